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

BUSY_LINES_PER_S = 5_000
"""Lines pour in. Up to here the index takes a twentieth of a core, and is made as they come."""
WINDOW_S = 0.25
"""Lines are counted for so long."""
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

    def _turn(self, now: float) -> None:
        """Begin another window when this one is over."""
        took = now - self._began
        if took >= WINDOW_S:
            self._per_s, self._lines, self._began = self._lines / took, 0, now
