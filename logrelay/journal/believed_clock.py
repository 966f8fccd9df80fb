"""The time by which lines grow old: a clock that no single wrong clock can put ahead for long.

Owns: `BelievedClock`. It must not read a clock or know what is deleted: time is an argument. Pure. Read
`journal/schema` next: it has the tables.

The machine's clock may be wrong by a month: a dead battery, a virtual machine that woke up, a wrong key. If lines were
deleted by it, a week of them would go in an hour. So what is believed goes on from the last line that was written, as
fast as the machine's uptime does, and a clock that says something else is not believed before it has said so for
HOLD_US. A clock that is put right before that has changed nothing. Why not sooner, and why at all: docs/decisions,
"age by a believed clock".
"""

from __future__ import annotations

STEP_US = 3_600_000_000
"""A step of the clock that is believed at once while the relay runs: an hour, the usual mistake of a time zone. Lines
go an hour early, at most."""
START_STEP_US = 86_400_000_000
"""The same from the last line of the relay before to the start of this one, where nothing but the clock says how long
the machine was off: a night and a day. It makes lines go a day early, at most, if the clock was wrong."""
HOLD_US = 3 * 86_400_000_000
"""How long a clock has to go on saying something else: longer than a weekend in which nobody looks."""


class BelievedClock:
    """What time it is, as far as deleting lines is concerned. All values are microseconds."""

    def __init__(self) -> None:
        """Know nothing; see `start`."""
        self._us = self._uptime_us = 0
        self._since_us: int | None = None
        self._ahead_us = 0
        self._agreed = False

    def start(self, last_us: int | None, doubt_us: int, *, clock_us: int, uptime_us: int) -> bool:
        """Go on from what a journal says; returns what `look` does.

        Args:
            last_us: the time of its last line; None: it has none, and the clock is believed.
            doubt_us: what `doubt_us` was when it was written down last.
            clock_us: what the machine's clock says.
            uptime_us: a clock that never steps and goes on while the machine is suspended.
        """
        self._us = clock_us if last_us is None else last_us
        self._uptime_us = uptime_us
        self._since_us = abs(doubt_us) or None
        self._ahead_us = doubt_us
        self._agreed = False
        return self.look(clock_us, uptime_us)

    def look(self, clock_us: int, uptime_us: int) -> bool:
        """Look at the clocks. True: the time went back for good, so what was noted with a later time is wrong."""
        self._us += max(0, uptime_us - self._uptime_us)
        self._uptime_us = uptime_us
        ahead, before = clock_us - self._us, self._ahead_us
        self._ahead_us = ahead
        if abs(ahead) <= (STEP_US if self._agreed else START_STEP_US):
            self._us, self._since_us, self._agreed = clock_us, None, True
            return False
        if self._since_us is None or (ahead > 0) != (before > 0):
            self._since_us = self._us
        if self._us - self._since_us < HOLD_US:
            return False
        self._us, self._since_us, self._agreed = clock_us, None, True
        return ahead < 0

    @property
    def now_us(self) -> int:
        """The time that is believed, as of the last look."""
        return self._us

    @property
    def doubt_us(self) -> int:
        """The believed time since which the clock has said something else; with a minus when it is behind.

        0: it is believed.
        """
        if self._since_us is None:
            return 0
        return self._since_us if self._ahead_us > 0 else -self._since_us

    @property
    def ahead_us(self) -> int:
        """How far the clock is ahead of what is believed; below 0: behind. 0 while it is believed."""
        return 0 if self._since_us is None else self._ahead_us
