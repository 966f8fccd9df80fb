"""Whether each part of the relay goes on with the work that it has; for the watchdog.

Owns: `Work`, what a part says of itself, and `Progress`, which compares what it said. It must not know the parts, nor
what is done about one that is stuck. Time is an argument (`mono`, seconds of a clock that never steps). Pure. Read
`systemd` next.

A part is stuck when it has had work at several looks in a row and has finished nothing in between. One look is not
enough: whoever looks may be the first to run after the machine was stopped. See docs/decisions/watchdog.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LEAST_LOOKS = 3
"""So many looks without progress: the loop has turned at least twice in between."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a part says of itself."""

    unfinished: bool
    """There is something to do, and nothing outside of the relay that it waits for."""
    finished: int
    """Grows with what has been done."""


@dataclass(frozen=True, slots=True)
class _Seen:
    finished: int
    since: float
    looks: int


class Progress:
    """Remembers what the parts said. `least_looks`: see LEAST_LOOKS."""

    def __init__(self, *, least_looks: int = LEAST_LOOKS) -> None:
        self._least_looks = least_looks
        self._seen: dict[str, _Seen] = {}

    def look(self, works: Mapping[str, Work], mono: float) -> dict[str, float]:
        """Take what every part says now; return the parts that are stuck, and the age of their oldest work in seconds.

        The age counts from the look at which the work was first seen.
        """
        stuck = {}
        for name, work in works.items():
            seen = self._seen.get(name)
            if not work.unfinished:
                self._seen.pop(name, None)
            elif seen is None or seen.finished != work.finished:
                self._seen[name] = _Seen(work.finished, mono, 1)
            else:
                self._seen[name] = _Seen(seen.finished, seen.since, seen.looks + 1)
                if seen.looks + 1 >= self._least_looks:
                    stuck[name] = mono - seen.since
        return stuck
