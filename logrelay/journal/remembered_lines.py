"""The newest lines of the journal in memory, to be written again where its file loses them while the relay runs.

Owns: `RememberedLines`, and how many there are. It must not know the file, or when it has lost lines. Pure.
Read `journal/replacement` next: it writes them again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from logrelay.model import Line, size_of

REMEMBERED_BYTES = 4 << 20
"""Of the bodies; they are the hub's recent lines, so they cost no memory of their own."""
REMEMBERED_TOGETHER = 512
"""Of which at most so many, and an eighth of those bytes or one commit, are forgotten at a time: one by one, that would
take as long as remembering them."""


class RememberedLines:
    """Lines in the order in which they were added; the oldest are forgotten, many at a time."""

    def __init__(self) -> None:
        self._parts: deque[list[Line]] = deque()
        self.bytes = self._newest_bytes = 0
        """Of the bodies in all, and of those that are remembered together with the newest."""

    def __iter__(self) -> Iterator[Line]:
        """Yield them, the oldest first."""
        return chain.from_iterable(self._parts)

    def clear(self) -> None:
        """Forget all."""
        self._parts.clear()
        self.bytes = 0

    def add(self, lines: Sequence[Line], size: int) -> None:
        """Remember lines that follow; `size` are the bytes of their bodies."""
        remembered = self._parts
        for at in range(0, len(lines), REMEMBERED_TOGETHER):
            some = list(lines[at : at + REMEMBERED_TOGETHER])
            part = size if len(some) == len(lines) else size_of(some)
            together = self._newest_bytes + part
            if (
                remembered
                and len(remembered[-1]) + len(some) <= REMEMBERED_TOGETHER
                and together <= REMEMBERED_BYTES // 8
            ):
                remembered[-1] += some
                self._newest_bytes = together
            else:
                remembered.append(some)
                self._newest_bytes = part
        self.bytes += size
        while self.bytes > REMEMBERED_BYTES and len(remembered) > 1:
            self.bytes -= size_of(remembered.popleft())
