"""What is told of the collected machines has a place among the metrics."""

from __future__ import annotations

from logrelay.http.metrics import METRICS
from logrelay.machines.collection import Collection
from logrelay.machines.edges import Edges
from logrelay.machines.overview import LinkCounters, Overview


def test_every_number_has_its_row_among_the_metrics():
    """Of the right kind: with a label or without."""
    edges = Edges({"berlin": (0, 5)}, mono=1.0)
    overview = Overview(Collection([]), edges, LinkCounters(connected=True, waiting=3))
    labels = {metric.name: metric.labels for metric in METRICS}

    assert all(labels[name] == () for name in overview.counters())
    assert all(labels[name] for name in overview.samples(1.0))
    assert overview.counters()["collect_waiting_messages"] == 3
    assert (overview.counters()["edges"], overview.counters()["edges_unreachable"]) == (1, 1)
    assert [edge["edge"] for edge in overview.edges_shown(1.0)] == ["berlin"]
    assert overview.bots_shown(1.0) == []
