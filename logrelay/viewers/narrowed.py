"""What somebody with limits sees of the relay, in one place.

Owns: `NarrowedStream` and `NarrowedFacts`, which stand for the stream and for the facts wherever a viewer with a
limited token is served. They narrow every filter on its way to the hub and to the journal, so that what a session or a
route asks for cannot be more than the token allows; what has no filter (traders, health, numbers) is left out or cut.
They must not know tokens. Read `viewers/stream` next.

Positions and counts are not kept back: how many lines there are is told by their ids anyway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from logrelay.fanout.batch import Form
from logrelay.fanout.filters import Filter, Limit
from logrelay.fanout.hub_types import Gap, Sink, Viewer
from logrelay.fanout.positions import Position
from logrelay.journal.interface import Page, Query, SummaryPage
from logrelay.viewers.stream import Stream

if TYPE_CHECKING:  # a relay that only streams need not load it
    from logrelay.http.api import RelayFacts

TROUBLE = "it cannot be written"
"""What is said of trouble with the journal: the reason names files and disks of the machine."""


EDGE_FIELDS = ("edge", "state", "since")
"""What is said of a machine to somebody who may see some bots of it."""


def narrowed_edges(
    edges: Sequence[Mapping[str, object]], traders: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """Return of the machines those that one of these traders is on."""
    names = {trader.get("edge") for trader in traders}
    return [{field: edge.get(field) for field in EDGE_FIELDS} for edge in edges if edge.get("edge") in names]


class NarrowedStream:
    """A `Stream` of which only what `limit` allows is seen."""

    def __init__(self, stream: Stream, limit: Limit) -> None:
        self._stream = stream
        self._limit = limit

    @property
    def epoch(self) -> str:
        """The journal's epoch."""
        return self._stream.epoch

    @property
    def head(self) -> int:
        """Seq of the newest published line."""
        return self._stream.head

    @property
    def committed(self) -> int:
        """Seq of the newest line in the journal."""
        return self._stream.committed

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self._stream.oldest

    @property
    def trouble(self) -> str | None:
        """That the journal is not being written, without the reason."""
        return None if self._stream.trouble is None else TROUBLE

    @property
    def pending_lines(self) -> int:
        """Lines taken from traders and not committed yet."""
        return self._stream.pending_lines

    @property
    def viewer_count(self) -> int:
        """Viewers that have joined."""
        return self._stream.viewer_count

    @property
    def journal_bytes(self) -> int:
        """Size of the journal on disk."""
        return self._stream.journal_bytes

    @property
    def damaged_lines(self) -> int:
        """Lines of the journal that were damaged, whosever they were: a gap of them is shown to everybody."""
        return self._stream.damaged_lines

    def join(self, sink: Sink, wanted: Filter, form: Form, *, deflate: bool = False) -> Viewer:
        """Add a viewer that wants what is allowed of `wanted`."""
        return self._stream.join(sink, wanted.within(self._limit), form, deflate=deflate)

    def start_after(self, viewer: Viewer, seq: int, gap: Gap | None = None) -> None:
        """Send what follows `seq`, and `gap` before it."""
        self._stream.start_after(viewer, seq, gap)

    def start_tail(self, viewer: Viewer, lines: int, behind: int | None = None) -> None:
        """Send the newest `lines` lines that the viewer wants, and what follows."""
        self._stream.start_tail(viewer, lines, behind)

    def change(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants to what is allowed of `wanted`."""
        self._stream.change(viewer, wanted.within(self._limit))

    def resubscribe(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants from where it stands to what is allowed of `wanted`."""
        self._stream.resubscribe(viewer, wanted.within(self._limit))

    def received(self, viewer: Viewer) -> int | None:
        """Return up to where a viewer was sent everything."""
        return self._stream.received(viewer)

    def keep_device(
        self, number: int, owner: str, name: str, seq: Callable[[], int], *, connected: bool, sure: int = 0
    ) -> None:
        """Have it remembered where a device stands."""
        self._stream.keep_device(number, owner, name, seq, connected=connected, sure=sure)

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        self._stream.leave(viewer)

    def drained(self, viewer: Viewer) -> None:
        """Go on sending."""
        self._stream.drained(viewer)

    def id_of(self, seq: int) -> str:
        """Return the id of a position."""
        return self._stream.id_of(seq)

    def resolve(self, id_: str, /) -> Position:
        """Return what an id means. Raises RequestError."""
        return self._stream.resolve(id_)

    def render_gap(self, gap: Gap) -> bytes:
        """Return the notice that tells a viewer of a gap."""
        return self._stream.render_gap(gap)

    def traders_shown(self) -> list[dict[str, object]]:
        """Return the traders whose lines may be seen."""
        return [trader for trader in self._stream.traders_shown() if self._limit.shows_app(str(trader.get("app", "")))]

    def edges_shown(self) -> list[dict[str, object]] | None:
        """Return the machines with a bot whose lines may be seen, and of them only whether they are heard."""
        edges = self._stream.edges_shown()
        return None if edges is None else narrowed_edges(edges, self.traders_shown())

    def read(self, query: Query) -> Awaitable[Page]:
        """Read what is allowed of a query."""
        return self._stream.read(replace(query, filter=query.filter.within(self._limit)))

    def summarize(self, query: Query) -> Awaitable[SummaryPage]:
        """Count what is allowed of a query."""
        return self._stream.summarize(replace(query, filter=query.filter.within(self._limit)))

    def lines_at(self, seqs: Sequence[int], /) -> Awaitable[dict[int, bytes]]:
        """Read lines that a summary has counted: what is not allowed was not."""
        return self._stream.lines_at(seqs)

    def counters(self) -> Mapping[str, int | float]:
        """Return nothing: the numbers are about everybody's lines."""
        return {}

    def app_samples(self) -> Mapping[str, Sequence[tuple[Mapping[str, str], int | float]]]:
        """Return nothing."""
        return {}


class NarrowedFacts:
    """`RelayFacts` of which only what `limit` allows is seen."""

    limited = True

    def __init__(self, facts: RelayFacts, limit: Limit) -> None:
        self._facts = facts
        self._limit = limit

    @property
    def head(self) -> int:
        """Seq of the newest committed line."""
        return self._facts.head

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self._facts.oldest

    def status(self) -> Mapping[str, object]:
        """Return whether there is trouble with the journal, and the traders whose lines may be seen."""
        status = self._facts.status()
        journal, traders, edges = status.get("journal"), status.get("traders"), status.get("edges")
        trouble = isinstance(journal, Mapping) and bool(journal.get("trouble"))
        shown = [
            trader
            for trader in (traders if isinstance(traders, list) else ())
            if self._limit.shows_app(str(trader.get("app", "")))
        ]
        found: dict[str, object] = {"journal": {"trouble": TROUBLE if trouble else None}, "traders": shown}
        if isinstance(edges, list):
            found["edges"] = narrowed_edges(edges, shown)
        return found

    def alerts(self) -> None:
        """Return nothing: alerts are about everybody's bots."""

    def ready(self) -> bool:
        """Tell whether the relay takes lines and viewers now."""
        return self._facts.ready()

    def counters(self) -> Mapping[str, int | float]:
        """Return nothing."""
        return {}

    def labelled(self) -> Mapping[str, Sequence[tuple[Mapping[str, str], int | float]]]:
        """Return nothing."""
        return {}

    async def read(self, query: Query) -> Page:
        """Read what is allowed of a query. Raises JournalError; cancelling drops the answer."""
        return await self._facts.read(replace(query, filter=query.filter.within(self._limit)))

    async def summarize(self, query: Query) -> SummaryPage:
        """Count what is allowed of a query. Raises JournalError; cancelling drops the answer."""
        return await self._facts.summarize(replace(query, filter=query.filter.within(self._limit)))

    async def lines_at(self, seqs: Sequence[int], /) -> dict[int, bytes]:
        """Read lines that a summary has counted: what is not allowed was not."""
        return await self._facts.lines_at(seqs)

    def id_of(self, seq: int) -> str:
        """Return the id of a position."""
        return self._facts.id_of(seq)

    def resolve(self, id_: str, /) -> Position:
        """Return what an id means. Raises RequestError."""
        return self._facts.resolve(id_)
