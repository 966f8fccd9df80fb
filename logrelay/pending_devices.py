"""Where devices stand now, until the journal is told with a commit.

Owns: `PendingDevices`: the last that was said of each device, and how many rows go along with one commit. It must not
know the journal or viewers. Pure; time is an argument. Read `pipeline` next.

A position changes with every line that a phone receives. It goes along with the commit of the lines that come next, so
that it costs no commit of its own; where no line comes it is written after a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

WRITE_WITHIN_S = 5.0
"""Where no line comes, positions are written so long after they have changed. A relay that is killed before repeats the
lines of its last tick, whatever this is: they were on the way when the positions before them were written."""

FEW_LINES = 2
BURST_WRITE_S = 0.05
"""Where a device has received more lines than these since its position was written, it is written at once, and not more
often than this: after a burst, or what it had missed, nothing may come for a long time with which it could go along."""

ROWS_PER_S = 2000
"""Rows written along with commits, at most: some 5 µs each, so 1 % of the writing thread."""


class Place(NamedTuple):
    """Where a device stands."""

    id: int
    owner: str
    name: str
    seq: Callable[[], int]
    """Called when it is written down; below 0: nowhere."""
    connected: bool


class PendingDevices:
    """The devices whose place has changed since it was written."""

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}
        self.some = False
        """There is something to write."""
        self._written: dict[int, int] = {}
        """The seq that was written last, by device; there are no more of them than rows."""
        self._written_at = float("-inf")
        self._burst_at = float("-inf")
        self._pause_s = 0.0

    def note(self, place: Place, sure: int, mono_s: float) -> bool:
        """Take the newest place of a device, `sure` or behind it. Returns whether to write it without waiting."""
        self._places[place.id], self.some = place, True
        many = sure - self._written.get(place.id, 0) > FEW_LINES
        if not many or mono_s - self._burst_at < BURST_WRITE_S:
            return False
        self._burst_at = mono_s
        return True

    def wrote(self, number: int, seq: int) -> None:
        """Note what is being written of a device."""
        self._written[number] = seq

    def take(self, mono_s: float, *, all_of_them: bool = False) -> list[Place]:
        """Return what is to be written now, perhaps nothing, so that `ROWS_PER_S` are not exceeded."""
        if not self._places or (not all_of_them and mono_s - self._written_at < self._pause_s):
            return []
        places = list(self._places.values())
        self._places.clear()
        self.some = False
        self._written_at, self._pause_s = mono_s, len(places) / ROWS_PER_S
        return places
