"""What viewers, health checks and monitors are told of the machines whose lines are collected.

Owns: `Overview`, which puts together what the collection and the edges know, and how the connection to the servers is
doing. It must not know NATS clients, viewers or the journal. Pure; time is an argument. Read `viewers/stream` next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from logrelay.fanout.line_json import rfc3339
from logrelay.machines.collection import Collection
from logrelay.machines.edges import Edges, Samples


@dataclass(slots=True)
class LinkCounters:
    """How the connection to the servers is doing. Written to by the collector only."""

    connected: bool = False
    reconnects: int = 0
    bad_batches: int = 0
    down_us: int = 0
    """Since when there is no connection, by this machine's clock; 0: there is one, or none was wanted yet."""
    reason: str = ""
    """Why there is none, as the last attempt has it."""
    waiting: int = 0
    """Messages of the stream that had not been read at the last look."""


def link_shown(down_us: int, reason: str, *, connected: bool) -> dict[str, object]:
    """Return a connection to NATS servers as health checks are told of it, JSON-safe."""
    since = rfc3339(down_us) if down_us and not connected else None
    return {"connected": connected, "since": since, "reason": None if connected else reason or None}


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

    def link_shown(self) -> Mapping[str, object]:
        """Return how the connection to the servers is, as health checks are told of it."""
        return link_shown(self._link.down_us, self._link.reason, connected=self._link.connected)

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
