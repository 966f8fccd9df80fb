"""When a connection that stays open is no longer believed: pings, and patience with a relay that never answers. Pure.

Owns: the times at which the trader pings, gives a silent connection up, or gives up one that was never welcomed
(docs/protocol.md, section 1). It must not know sockets or frames; time is an argument (`now`, seconds of a clock that
never steps). Read `descriptors` next.

The relay says in its welcome after how many seconds of silence either side pings, and after how many it gives up; a
relay from before pings says nothing, and then nothing is asked of it. The relay pings by itself, so a trader that hears
it has nothing to send but answers: its own ping is for the case that the relay's is overdue.

The clock is one that stands still while a machine is suspended, so a laptop that wakes up first listens for as long as
anybody else. Whoever asks `due` or `has_patience` has looked at the socket and found nothing to read: a process that
was frozen, or whose thread did not run, reads what came meanwhile before it judges. Where the whole machine stood
still nothing came, as the relay did not run either: so the time by which a wait was late is no silence.
"""

from __future__ import annotations

import math
from typing import Final, Literal

LEAST_PING_S: Final = 0.05
"""Seconds between two pings at the least, whatever the relay says: no answer may turn a trader into a busy loop."""
LONGEST_DEAD_S: Final = 86_400.0
"""Seconds of silence that are still a bound; a larger number is a mistake."""
LEAST_DEAD: Final = 2.0
"""Times the interval of pings: a connection gets the time for a ping and its answer before it is given up."""
OVERDUE: Final = 1.5
"""Times the interval after which the trader itself pings: by then the relay's ping should have come."""
LATE_S: Final = 2.0
"""Seconds by which a wait may be late. Beyond it this process did not run, and a relay that has closed the connection
meanwhile did so for the silence, not for a line."""
PATIENCE_FIRST_S: Final = 30.0
"""Seconds for which a connection may go without a welcome at first: a relay that starts with a large journal needs
some. A tunnel whose network is dead accepts connections and will never answer on this one."""
PATIENCE_LONGEST_S: Final = 600.0
"""Seconds at most; doubled each time. Behind a relay that is only stopped, each new connection leaves a copy of the
unacked lines in the queue (some 200 KiB of the kernel's memory): this many seconds make that six an hour."""


class Keepalive:
    """What is known of the silence on one connection after the other; `begin` starts with a new one."""

    __slots__ = ("_began", "_dead_s", "_heard", "_next_ping", "_patience", "_ping_s", "given_up", "was_late")

    def __init__(self) -> None:
        self._ping_s = 0.0
        """0: not negotiated."""
        self._dead_s = 0.0
        self._heard = 0.0
        self._next_ping = 0.0
        self._began = 0.0
        self._patience = PATIENCE_FIRST_S
        self.given_up = 0
        """Connections that were open and dead: nothing was heard on them for too long, or never."""
        self.was_late = False
        """The last wait for something to read took far longer than it should: this process was frozen."""

    def begin(self, now: float) -> None:
        """A new connection, on which nothing is agreed yet."""
        self._ping_s = 0.0
        self._began = now

    def welcomed(self, ping_s: float, dead_s: float, now: float) -> None:
        """Take the relay's seconds, 0 if it named none. Numbers that make no sense are brought within bounds."""
        self._patience = PATIENCE_FIRST_S
        if not (0 < ping_s <= LONGEST_DEAD_S and 0 < dead_s <= LONGEST_DEAD_S):
            return
        self._ping_s = max(ping_s, LEAST_PING_S)
        self._dead_s = max(dead_s, LEAST_DEAD * self._ping_s)
        self.heard(now)

    def heard(self, now: float) -> None:
        """Note that bytes of the relay have come."""
        self._heard = now
        self._next_ping = now + OVERDUE * self._ping_s

    def waited(self, took_s: float, *, most_s: float) -> None:
        """Note that a wait of at most `most_s` seconds is over, and how long it took.

        What is beyond `most_s` is time in which this process did not run, and perhaps the relay neither.
        """
        late_s = took_s - most_s
        self.was_late = late_s > LATE_S
        if late_s > 0:
            self._heard += late_s
            self._next_ping += late_s
            self._began += late_s

    def wait_s(self, now: float) -> float:
        """Return the seconds until `due` has something to say; infinity when never."""
        if not self._ping_s:
            return math.inf
        return max(0.0, min(self._next_ping, self._heard + self._dead_s) - now)

    def due(self, now: float) -> Literal["ping", "dead"] | None:
        """Return what is to be done, given that there is nothing to read. A ping is due once in an interval.

        Dead: the caller gives the connection up, which is counted here.
        """
        if not self._ping_s:
            return None
        if now >= self._heard + self._dead_s:
            self.given_up += 1
            return "dead"
        if now >= self._next_ping:
            self._next_ping = now + self._ping_s
            return "ping"
        return None

    @property
    def dead_s(self) -> float:
        """Seconds of silence after which this connection is given up."""
        return self._dead_s

    def has_patience(self, now: float) -> bool:
        """Whether a connection without a welcome is still waited for. False: give it up; the next one gets longer."""
        if now < self._began + self._patience:
            return True
        self._patience = min(2 * self._patience, PATIENCE_LONGEST_S)
        self.given_up += 1
        return False
