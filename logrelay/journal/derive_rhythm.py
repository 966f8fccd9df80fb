"""When the journal's thread goes on with what is made behind the head, and when that waits for lines.

Owns: `DeriveRhythm`: how fast lines come, and how far what is made of them may fall behind meanwhile. It must not know
the journal, threads or clocks: time is an argument. Pure. Read `journal/file_systems` next, and with it who makes a
commit.

The text index takes more of the processor for a line than all the rest of its way into the journal, and nobody misses
it for some time: what is not in it yet is searched line by line. So while lines pour in (a hub relay that catches up, a
bot that runs wild), or out (an edge that catches up), it waits, and the processor is theirs. It does not wait for ever:
beyond MOST_BEHIND a search would take seconds.
"""

from __future__ import annotations

BUSY_LINES_PER_S = 2_000
"""Lines pour in. Up to here the index takes a fiftieth of a core, and is made as they come."""
WINDOW_S = 1.0
"""Lines are counted for so long: those that are forwarded come in some thousands at a time."""
PAUSE_S, CROWDED_PAUSE_S = 0.002, 0.02
"""After a piece of work of two milliseconds: half of a core where nobody else wants it, a tenth where somebody does."""
OWN_SHARE = 0.6
"""Of the time that a piece took, the thread had the processor for less: somebody else wants it, or the interpreter."""
MOST_BEHIND = 1_000_000
"""Lines that the index may be behind while lines pour in. A search looks at so many, one by one, in a second or two."""


class DeriveRhythm:
    """Counts lines. Belongs to the thread that writes."""

    def __init__(self) -> None:
        self._began = float("-inf")
        self._lines = 0
        self._per_s = 0.0
        """In the window before."""

    def note(self, lines: int, now: float) -> None:
        """Learn that so many lines have been committed, or read to be forwarded."""
        self._turn(now)
        self._lines += lines

    def may(self, now: float, behind: int) -> bool:
        """Tell whether to go on now, with so many lines behind."""
        if behind >= MOST_BEHIND:
            return True
        self._turn(now)
        return max(self._per_s, self._lines / WINDOW_S) < BUSY_LINES_PER_S

    def pause(self, took_s: float, cpu_s: float) -> float:
        """Return how long to rest after a piece of work, in which the thread had the processor for `cpu_s`."""
        return PAUSE_S if cpu_s >= took_s * OWN_SHARE else CROWDED_PAUSE_S

    def _turn(self, now: float) -> None:
        """Begin another window when this one is over."""
        took = now - self._began
        if took >= WINDOW_S:
            self._per_s, self._lines, self._began = self._lines / took, 0, now
