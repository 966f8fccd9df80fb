"""What the journal does not have any more: ranges of seqs, lost to damage or purged, and the notice in their place.

Owns: the ranges, how they are merged and looked up, and the gap notice. It must not know files or SQL. Read
`journal/purged` next: it takes lines away on purpose.

Any thread may read; a change replaces the whole list, so that a reader always sees one that is in order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from threading import Lock
from typing import TYPE_CHECKING

from logrelay.fanout.line_json import gap_body
from logrelay.fanout.positions import id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Range = tuple[int, int]
"""First and last seq, both included."""

MOST_HOLES = 65_536
"""Ranges kept apart, some 8 MB: as many as lines of one bot that were purged one by one may leave. Of damage beyond it
the nearest are joined, true lines between them included: a file in this state is not worth more memory, and what is
told to be missing may be more than is, never less."""


NEVER_ENDS = 1 << 62
"""The last seq of a stretch without an end: no journal gets there."""


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges ascending, those that touch or overlap joined, however many there are."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def first_gap(ranges: Iterable[Range], first: int) -> Range:
    """Return the first stretch from `first` on that is in none of the ranges, which are ascending; it may not end."""
    for start, last in ranges:
        if last < first:
            continue
        if start > first:
            return first, start - 1
        first = last + 1
    return first, NEVER_ENDS


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges as `joined` does, at most MOST_HOLES of them."""
    merged = joined(ranges)
    while len(merged) > MOST_HOLES:
        place = min(range(1, len(merged)), key=lambda n: merged[n][0] - merged[n - 1][1])
        merged[place - 1 : place + 1] = [(merged[place - 1][0], merged[place][1])]
    return merged


class Holes:
    """The ranges of seqs that the journal has lost."""

    def __init__(self, epoch_of: Callable[[int], str], now_us: Callable[[], int]) -> None:
        """`epoch_of` gives the epoch of a seq, `now_us` the relay's clock for the notices."""
        self._epoch_of, self._now_us = epoch_of, now_us
        self._ranges: list[Range] = []
        self._purged: list[Range] = []
        self._changing = Lock()

    @property
    def ranges(self) -> list[Range]:
        """All of them, ascending; not to be changed."""
        return self._ranges

    @property
    def lines(self) -> int:
        """How many lines are lost to damage."""
        return _count(self._ranges) - _count(self._purged)

    def replace(self, ranges: Iterable[Range], *, purged: Iterable[Range] = ()) -> None:
        """Forget what was known for these; those in `purged` are among them."""
        with self._changing:
            self._purged = merge(purged)
            self._ranges = merge([*ranges, *self._purged])

    def add(self, ranges: Iterable[Range]) -> int:
        """Note more of them. Returns how many lines are missing that were not known to be."""
        with self._changing:
            before = self.lines
            self._ranges = merge([*self._ranges, *ranges])
            return self.lines - before

    def forget(self, oldest: int) -> None:
        """Forget what retention would have taken away by now: everything before `oldest`."""
        if self._ranges and self._ranges[0][0] < oldest:
            with self._changing:
                self._ranges = [(max(first, oldest), last) for first, last in self._ranges if last >= oldest]
                self._purged = [(max(first, oldest), last) for first, last in self._purged if last >= oldest]

    def within(self, after: int, until: int) -> list[Range]:
        """Return what is missing of `after < seq <= until`, cut to it; what was purged is apart from what was lost."""
        found, purged = _cut(self._ranges, after, until), _cut(self._purged, after, until)
        return sorted([*without(found, purged), *purged]) if purged else found

    def cause(self, hole: Range) -> str:
        """Tell why one of the ranges of `within` is missing: `purged` or `corrupt`."""
        return "purged" if _cut(self._purged, hole[1] - 1, hole[1]) else "corrupt"

    def notice(self, hole: Range) -> bytes:
        """Render what a viewer gets in the place of these lines; its id is that of the last of them."""
        first, last = hole
        epoch = self._epoch_of(last)
        return gap_body(
            id_of(epoch, last),
            self._now_us(),
            epoch,
            cause=self.cause(hole),
            first=first,
            last=last,
            count=last - first + 1,
        )


def without(ranges: list[Range], known: list[Range]) -> list[Range]:
    """Return what of the ranges is in none of the known ones; both ascending."""
    left: list[Range] = []
    for first, last in ranges:
        at = first
        for known_first, known_last in known:
            if known_last < at:
                continue
            if known_first > last:
                break
            if known_first > at:
                left.append((at, known_first - 1))
            at = known_last + 1
        if at <= last:
            left.append((at, last))
    return left


def _count(ranges: list[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _cut(ranges: list[Range], after: int, until: int) -> list[Range]:
    """Return what of ascending ranges lies in `after < seq <= until`."""
    if not ranges or until <= after:
        return []
    start = bisect_left(ranges, after + 1, key=lambda r: r[1])
    stop = bisect_right(ranges, until, key=lambda r: r[0])
    return [(max(first, after + 1), min(last, until)) for first, last in ranges[start:stop]]
