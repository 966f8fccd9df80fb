"""Errors that nobody expected: counted, and told in one line now and then.

Owns: `FaultReport`, the words and the rate of those lines. It must not know where they are printed. Time is an
argument, in seconds of a clock that never steps. The reading trail ends here.

A traceback for each would let whoever found the bug fill the disk, and it may show values that a peer has sent. So the
line names the kind of the error and the places it came through, which is what a bug report needs.
"""

from __future__ import annotations

import traceback

FAULT_INTERVAL_S = 10.0
"""The least time between two lines. The first comes at once; the next one tells how many there were in between."""

SHOWN_FRAMES = 4
"""The innermost calls that a line names."""


class FaultReport:
    """Counts errors and words them."""

    def __init__(self) -> None:
        self.count = 0
        """Errors so far."""
        self._not_told = 0
        self._next_line = float("-inf")

    def note(self, error: BaseException | None, message: str, mono: float) -> str | None:
        """Take one error, with what asyncio says of it. Returns the line to print, or None while it is too soon."""
        self.count += 1
        if mono < self._next_line:
            self._not_told += 1
            return None
        more, self._not_told = self._not_told, 0
        self._next_line = mono + FAULT_INTERVAL_S
        between = f" ({more:,} more since the line before)" if more else ""
        what = message if error is None else f"{type(error).__name__} in {_places(error)}"
        return f"an error inside the relay, please report it: {what}{between}"


def _places(error: BaseException) -> str:
    """Name the innermost calls, the last one first, without any value."""
    frames = traceback.extract_tb(error.__traceback__)[-SHOWN_FRAMES:]
    return ", called by ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in reversed(frames)) or "?"
