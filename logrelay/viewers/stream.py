"""What the viewers need of the engine, and nothing else.

Owns: `Stream`, the interface that the pipeline offers. It must not know who implements it: viewers import no pipeline,
and the pipeline imports no viewers. Read `viewers/session` next: it is who asks most of this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from logrelay.fanout.batch import Form
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub_types import Gap, Sink, Viewer
from logrelay.fanout.positions import Position
from logrelay.journal.interface import Page, Query, SummaryPage


class Stream(Protocol):
    """The stream of lines: where it stands, who gets it, and how it is doing. Called on the event loop."""

    @property
    def epoch(self) -> str:
        """The epoch that new lines get."""

    @property
    def head(self) -> int:
        """Seq of the newest published line; ahead of `committed` while the journal is in trouble."""

    @property
    def committed(self) -> int:
        """Seq of the newest line in the journal; 0 when there is none."""

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""

    @property
    def trouble(self) -> str | None:
        """Why the journal is not being written; None while it is."""

    @property
    def pending_lines(self) -> int:
        """Lines taken from traders and not committed yet."""

    @property
    def viewer_count(self) -> int:
        """Viewers that have joined."""

    @property
    def damaged_lines(self) -> int:
        """Lines of the kept stretch that are lost to damage of the journal's file."""

    @property
    def journal_bytes(self) -> int:
        """Size of the journal on disk."""

    def join(self, sink: Sink, wanted: Filter, form: Form, *, deflate: bool = False) -> Viewer:
        """Add a viewer that gets nothing until `start_after` or `start_tail`; see `Hub`, also for what follows."""

    def start_after(self, viewer: Viewer, seq: int, gap: Gap | None = None) -> None:
        """Send what follows `seq`, and `gap` before it."""

    def start_tail(self, viewer: Viewer, lines: int, behind: int | None = None) -> None:
        """Send the newest `lines` lines that the viewer wants, and what follows; see `Hub.start_tail` for `behind`."""

    def change(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants; nothing is sent until it is started again."""

    def resubscribe(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants from where it stands."""

    def received(self, viewer: Viewer) -> int | None:
        """Return up to where a viewer was sent everything; None: something before is still owed."""

    def keep_device(
        self, number: int, owner: str, name: str, seq: Callable[[], int], *, connected: bool, sure: int = 0
    ) -> None:
        """Have it remembered, beyond the end of the process, where the device in row `number` stands.

        `seq` is called when it is written down; below 0: nowhere. It is known already that it will be `sure` at least.
        """

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer."""

    def drained(self, viewer: Viewer) -> None:
        """Go on sending: the viewer's socket has room again."""

    def id_of(self, seq: int) -> str:
        """Return the id of a position; a provisional one while the journal does not hold it."""

    def resolve(self, id_: str, /) -> Position:
        """Return what an id means. Raises RequestError (`bad_id`, `expired`)."""

    def render_gap(self, gap: Gap) -> bytes:
        """Return the notice that tells a viewer of a gap, as a viewer message."""

    def traders_shown(self) -> list[dict[str, object]]:
        """Return the traders as viewers are told of them, JSON-safe."""

    def edges_shown(self) -> list[dict[str, object]] | None:
        """Return the machines whose lines are collected, likewise; None: none are."""

    def read(self, query: Query) -> Awaitable[Page]:
        """Read from the journal, off the event loop. Raises JournalError; cancelling drops the answer."""

    def summarize(self, query: Query) -> Awaitable[SummaryPage]:
        """Have the journal count, off the event loop. Raises JournalError; cancelling drops the answer."""

    def lines_at(self, seqs: Sequence[int], /) -> Awaitable[dict[int, bytes]]:
        """Read some lines by seq, see `Journal.lines_at`. Raises JournalError; cancelling drops the answer."""

    def counters(self) -> Mapping[str, int | float]:
        """Return what the engine counts, by the names of `http.metrics.METRICS`."""

    def app_samples(self) -> Mapping[str, Sequence[tuple[Mapping[str, str], int | float]]]:
        """Return what the engine measures of each bot: metric name to samples, each with its labels."""
