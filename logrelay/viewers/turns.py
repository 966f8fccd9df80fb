"""Work for viewers, one message after another, a bounded share of each turn of the loop.

Owns: the queue of those who have a message to be acted on, and the time spent on them in this turn. It must not know
what the work is. Read `viewers/unread` next: it bounds what waits for those who do not read.

Without this, whoever sends most is served most: everything that a socket had to say would be acted on before the loop
looks at anything else, and a line would wait behind all of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from logrelay.budgets import HANDSHAKE_SLOTS, TURN_S


class Turns:
    """Runs work in the order in which it was asked for, `TURN_S` of it in one turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._newest_first: deque[Callable[[], None]] = deque(maxlen=HANDSHAKE_SLOTS)
        """What is for connections without a complete request. Beyond the places that there are for those, the oldest is
        forgotten: its connection has been cut, or will be at its deadline."""
        self._spent = 0.0
        self._scheduled = False
        self._running = False

    def request(self, work: Callable[[], None], *, newest_first: bool = False) -> None:
        """Do the work now when there is time in this turn and nobody waits, else in a later turn.

        What work asks for is done in a later turn: one message of a viewer in each. `newest_first` is for newcomers,
        who take turns with the others: of a crowd that comes faster than it is served the oldest are cut, so the newest
        has to be looked at before it is one of them.
        """
        if self._running or self._waiting or self._newest_first or self._spent >= TURN_S:
            (self._newest_first if newest_first else self._waiting).append(work)
        else:
            self._run(work)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._on_turn)

    def _run(self, work: Callable[[], None]) -> None:
        began = self._loop.time()
        self._running = True
        try:
            work()
        finally:
            self._running = False
            self._spent += self._loop.time() - began

    def _on_turn(self) -> None:
        self._scheduled = False
        self._spent = 0.0
        waiting, newcomers = self._waiting, self._newest_first
        if not waiting and not newcomers:
            return
        # Before the work, which may raise: the rest is not to be forgotten then.
        self._scheduled = True
        self._loop.call_soon(self._on_turn)
        for _ in range(max(len(waiting), len(newcomers))):
            if self._spent >= TURN_S:
                break
            if newcomers:
                self._run(newcomers.pop())
            if waiting:
                self._run(waiting.popleft())
