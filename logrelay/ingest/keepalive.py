"""When a trader that stays connected is no longer believed to be there. Pure.

Owns: how long a connection may be silent, when a ping is due, and when it is given up (docs/protocol.md, section 1).
It must not know sockets, timers or clocks: it is called once in `Bounds.tick_s`, and counts those calls. Read
`ingest/frames` next.

It counts calls, not seconds, for a reason: a relay that was itself stopped or busy for 20 seconds has listened to
nobody meanwhile. When it wakes, one call has been missed and no trader's silence has grown by 20 seconds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

TICK_S = 1.0
"""One timer looks at all connections so often: the bounds need no better resolution, and one wake-up a second costs a
relay with a thousand idle traders less than a timer for each."""

PING_TICKS = 5
"""Seconds of silence after which a ping is sent, and the most that pass between two things the relay sends."""

DEAD_TICKS = 12
"""Seconds of silence after which a connection is given up: two pings have gone unanswered, the second for two seconds.
With a tick and the trader's own, both sides notice within 15 seconds of the freeze."""

LATE_TICKS = 2
"""A call that comes so many intervals after the one before finds a relay that did not run. What the traders have sent
meanwhile may not be read yet, so nothing is counted."""


class Bounds(NamedTuple):
    """How often is looked, and how many looks without a sign are too many."""

    tick_s: float = TICK_S
    ping_ticks: int = PING_TICKS
    dead_ticks: int = DEAD_TICKS

    @property
    def ping_s(self) -> float:
        """Seconds of silence after which either side pings, for the welcome."""
        return self.tick_s * self.ping_ticks

    @property
    def dead_s(self) -> float:
        """Seconds of silence after which either side gives up, for the welcome."""
        return self.tick_s * self.dead_ticks


class Silence:
    """What has been heard from one trader, and said to it, counted in ticks."""

    __slots__ = ("_bounds", "_has_heard", "_has_sent", "_unheard", "_unsent")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._has_heard = self._has_sent = True
        """Since the last tick."""
        self._unheard = self._unsent = 0
        """Ticks in a row without."""

    def heard(self) -> None:
        """Note that bytes have come."""
        self._has_heard = True

    def sent(self) -> None:
        """Note that the kernel has taken bytes for the trader."""
        self._has_sent = True

    def tick(self, *, is_read: bool) -> Literal["ping", "dead"] | None:
        """Count one interval; returns what is due. Not `is_read`: nobody listens, so the silence is ours.

        A ping is due as well when nothing was sent for as long: a trader that is not read gets no acks and no answers,
        and must not give up a relay that is well.
        """
        self._unheard = 0 if self._has_heard or not is_read else self._unheard + 1
        self._unsent = 0 if self._has_sent else self._unsent + 1
        self._has_heard = self._has_sent = False
        if self._unheard >= self._bounds.dead_ticks:
            return "dead"
        if self._unsent >= self._bounds.ping_ticks or (self._unheard and self._unheard % self._bounds.ping_ticks == 0):
            return "ping"
        return None


def is_late(passed_s: float, tick_s: float) -> bool:
    """Tell whether a tick that comes `passed_s` after the one before is to be left out."""
    return passed_s >= LATE_TICKS * tick_s
