"""How many history answers are being put together at once, in bytes.

Owns: the turns in which viewers begin to have one read, and the sum of what is read, or will be, and not sent yet. It
must not know the journal, viewers or what a line is. Read `viewers/requests` next.

An answer may take several pages of the journal, and who waits for its next page keeps the ones before. If all began
together, all would keep some: so the next one begins only when what the others keep, and are about to, is little.
Whoever has begun goes on. Answers that look for a text or a field, of which each page takes long, have turns of their
own, and keep nobody waiting who only scrolls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from logrelay.budgets import HISTORIES_BEGUN, HISTORY_KEPT_BYTES, HISTORY_PAGES_AHEAD


class Turn:
    """One answer that is being put together."""

    __slots__ = ("_expected", "_lane", "_size")

    def __init__(self, lane: _Lane) -> None:
        self._lane = lane
        self._size = 0
        self._expected: int | None = None
        """Bytes that it has and is about to have; None until the first page is there."""

    def keeps(self, size: int) -> None:
        """Note how many bytes of it are there now, one page after the last time."""
        expected = size + HISTORY_PAGES_AHEAD * (size - self._size)
        self._lane.change(self._expected, expected)
        self._size, self._expected = size, expected

    def end(self) -> None:
        """Note that it is sent, or not wanted any more."""
        self._lane.change(self._expected, 0)


class _Lane:
    def __init__(self) -> None:
        self.begun = 0
        """Answers of which nothing is there yet."""
        self.expected = 0
        """Bytes of the others, those that they are about to have included."""
        self.waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_full(self) -> bool:
        return self.begun >= HISTORIES_BEGUN or self.expected >= HISTORY_KEPT_BYTES

    def begin(self) -> None:
        self.begun += 1

    def change(self, before: int | None, now: int) -> None:
        if before is None:
            self.begun -= 1
        self.expected += now - (before or 0)
        self.wake()

    def wake(self) -> None:
        while self.waiting and not self.is_full:
            waiter = self.waiting.popleft()
            if not waiter.done():
                self.begin()
                waiter.set_result(None)


class HistoryTurns:
    """Gives turns, first come, first served. Belongs to one event loop."""

    def __init__(self) -> None:
        self._lanes = {False: _Lane(), True: _Lane()}

    @property
    def expected(self) -> int:
        """Bytes of all answers that are not sent yet, those that they are about to have included."""
        return sum(lane.expected for lane in self._lanes.values())

    @asynccontextmanager
    async def turn(self, *, search: bool) -> AsyncIterator[Turn]:
        """Wait for a turn, which ends with the block; `search` if each page takes long. Cancelling gives it up."""
        lane = self._lanes[search]
        if lane.is_full or lane.waiting:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            lane.waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    lane.change(None, 0)  # the turn had come in the same moment
                raise
        else:
            lane.begin()
        turn = Turn(lane)
        try:
            yield turn
        finally:
            turn.end()
