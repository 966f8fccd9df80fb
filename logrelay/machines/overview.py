"""What viewers, health checks and monitors are told of the machines whose lines are collected.

Owns: `Overview`, which puts together what the collection and the edges know, and how the connection to the servers is
doing. It must not know NATS clients, viewers or the journal. Pure; time is an argument. Read `viewers/stream` next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from logrelay.machines.collection import Collection
from logrelay.machines.edges import Edges, Samples


@dataclass(slots=True)
class LinkCounters:
    """How the connection to the servers is doing. Written to by the collector only."""

    connected: bool = False
    reconnects: int = 0
    bad_batches: int = 0
    waiting: int = 0
    """Messages of the stream that had not been read at the last look."""


class Overview:
    """The collected machines as they are shown; see `pipeline.OtherMachines` for what each method promises."""

    def __init__(self, collection: Collection, edges: Edges, link: LinkCounters) -> None:
        self._collection, self._edges, self._link = collection, edges, link

    def bots_shown(self, mono: float) -> list[dict[str, object]]:
        """Return the bots of all edges."""
        return self._edges.bots_shown(mono)

    def edges_shown(self, mono: float) -> list[dict[str, object]]:
        """Return the edges."""
        return self._edges.edges_shown(mono)

    def samples(self, mono: float) -> Samples:
        """Return what is measured of each edge, and of its bots."""
        return self._edges.samples(mono)

    def counters(self) -> Mapping[str, int | float]:
        """Return what is counted of all of them."""
        taken, link = self._collection.counters, self._link
        return {
            "collect_connected": int(link.connected),
            "collect_reconnects_total": link.reconnects,
            "collect_waiting_messages": link.waiting,
            "collected_messages_total": taken.batches,
            "collected_lines_total": taken.lines,
            "collected_duplicate_lines_total": taken.duplicates,
            "collected_missing_lines_total": taken.missing,
            "collected_bad_messages_total": link.bad_batches,
            "edges": self._edges.count(unreachable=False),
            "edges_unreachable": self._edges.count(unreachable=True),
        }
