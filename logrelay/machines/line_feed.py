"""What the forwarder, which has a thread of its own, gets of the relay and gives back to it.

Owns: one request for lines, which waits on the relay's loop until there are any, and how far behind the stream is. It
must not know NATS, nor how lines are read. Read `forward_plan` next: it is what becomes of a page.

A lone line costs one way to the other thread: the read is begun by the commit that it waits for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from logrelay.journal.interface import RowPage
from logrelay.model import WARNING, ForwardRow

MOST_MARKS = 512
"""Points in time that are remembered to tell for how long lines have waited; beyond it every second one goes."""
MARK_EVERY_S = 0.5
"""How far apart they are at least, at first."""


class Source(Protocol):
    """What is needed of the pipeline. Called on the loop."""

    def rows(self, after: int, *, max_bytes: int) -> Awaitable[RowPage]:
        """Read lines behind a seq; see `Journal.rows`."""

    def keep_forwarded(self, row: ForwardRow) -> None:
        """Have the journal remember how far lines were forwarded."""

    def announce(self, rank: int, message: str, details: dict[str, object]) -> None:
        """Say something in the stream of lines."""

    def own_traders(self) -> list[dict[str, object]]:
        """Return this machine's bots as viewers are told of them."""

    def id_of(self, seq: int) -> str:
        """Return the id of a position."""

    @property
    def trouble(self) -> str | None:
        """Why the journal is not being written."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the relay is."""

    head: int
    head_id: str
    trouble: str | None
    bots: Sequence[Mapping[str, object]]


@dataclass(slots=True)
class _Asked:
    after: int
    max_bytes: int
    answer: Future[RowPage]


class LineFeed:
    """Hands lines to another thread. What is called from there says so; the rest belongs to the loop."""

    def __init__(
        self, source: Source, *, head: int, oldest: int, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]
    ) -> None:
        """`head` and `oldest` are the ends of the journal when it was opened; `clock` counts seconds."""
        self._source, self._loop, self._clock = source, loop, clock
        self._head, self._oldest = head, oldest
        self._forwarded: int | None = None
        """None: it is not known yet what the stream has."""
        self._waiting: _Asked | None = None
        self._reading: set[asyncio.Future[RowPage]] = set()
        self._marks: deque[tuple[int, float]] = deque()
        """Seqs of the head, and when it was there: those that the stream does not have."""
        if head >= oldest:
            self._marks.append((head, clock()))
        self._mark_every_s = MARK_EVERY_S
        self._losing = False
        """It has been said that lines go which the stream does not have."""

    # --- on the loop -----------------------------------------------------------------------------------------

    def committed(self, upto: int, oldest: int) -> None:
        """Learn which lines the journal has; whoever waits for them gets them."""
        if upto > self._head:
            now = self._clock()
            if not self._marks or now - self._marks[-1][1] >= self._mark_every_s:
                self._mark(upto, now)
        self._head, self._oldest = max(self._head, upto), oldest
        asked = self._waiting
        if asked is not None and upto > asked.after:
            self._waiting = None
            self._read(asked)
        if self._forwarded is not None and oldest > self._forwarded + 1 and not self._losing:
            self._losing = True
            text = (
                "the journal is deleting lines that have not been forwarded (--keep-bytes, --keep-days); the hub "
                "relays will be told which"
            )
            self._source.announce(WARNING, text, {"state": "forward_losing"})

    def _mark(self, head: int, now: float) -> None:
        if len(self._marks) >= MOST_MARKS:
            self._marks = deque(mark for place, mark in enumerate(self._marks) if place % 2 == 0)
            self._mark_every_s *= 2
        self._marks.append((head, now))

    def _read(self, asked: _Asked) -> None:
        if not asked.answer.set_running_or_notify_cancel():
            return
        reading = asyncio.ensure_future(self._source.rows(asked.after, max_bytes=asked.max_bytes))
        self._reading.add(reading)
        reading.add_done_callback(lambda done: self._on_read(done, asked.answer))

    def _on_read(self, done: asyncio.Future[RowPage], answer: Future[RowPage]) -> None:
        self._reading.discard(done)
        if done.cancelled():
            answer.set_exception(asyncio.CancelledError())
            return
        error = done.exception()
        if error is None:
            answer.set_result(done.result())
        else:
            answer.set_exception(error)

    def _ask(self, asked: _Asked) -> None:
        if self._waiting is not None:
            self._waiting.answer.cancel()
            self._waiting = None
        if self._head > asked.after:
            self._read(asked)
        else:
            self._waiting = asked

    def _note(self, seq: int, row: ForwardRow | None) -> None:
        self._forwarded = seq
        if seq >= self._oldest - 1:
            self._losing = False
        while self._marks and self._marks[0][0] <= seq:
            self._marks.popleft()
        if not self._marks:
            self._mark_every_s = MARK_EVERY_S
        if row is not None:
            self._source.keep_forwarded(row)

    def _snapshot(self, answer: Future[Snapshot]) -> None:
        source = self._source
        answer.set_result(Snapshot(self._head, source.id_of(self._head), source.trouble, tuple(source.own_traders())))

    # --- any thread ------------------------------------------------------------------------------------------

    def next_page(self, after: int, max_bytes: int) -> Future[RowPage]:
        """Ask for the lines behind a seq; the answer comes when there are any. Another question cancels this one.

        The future raises JournalError when the journal cannot be read now.
        """
        answer: Future[RowPage] = Future()
        self._call(self._ask, _Asked(after, max_bytes, answer))
        return answer

    def note(self, seq: int, row: ForwardRow | None) -> None:
        """Tell up to where the stream has everything, and what the journal is to remember of it."""
        self._call(self._note, seq, row)

    def announce(self, rank: int, message: str, details: dict[str, object]) -> None:
        """Say something in the stream of lines."""
        self._call(self._source.announce, rank, message, details)

    def snapshot(self) -> Future[Snapshot]:
        """Ask how the relay is."""
        answer: Future[Snapshot] = Future()
        self._call(self._snapshot, answer)
        return answer

    def _call(self, function: Callable[..., object], *args: object) -> None:
        with suppress(RuntimeError):  # the loop has closed: nobody is there any more
            self._loop.call_soon_threadsafe(function, *args)

    @property
    def ends(self) -> tuple[int, int]:
        """Seqs of the oldest and of the newest line that the journal has."""
        return self._oldest, self._head

    @property
    def lag_lines(self) -> int:
        """Lines that the stream does not have; those that it was told are missing do not count."""
        return self._head - max(self._forwarded if self._forwarded is not None else 0, self._oldest - 1)

    @property
    def lag_s(self) -> float:
        """For how many seconds the oldest of them has waited, as far as this process has seen."""
        try:
            return max(0.0, self._clock() - self._marks[0][1])
        except IndexError:
            return 0.0
