"""What is kept of frames that are not complete yet, of all connections together.

Owns: `HalfFrames`, the account of that memory, and who makes room when it is too much. It must not know sockets or
frames: a connection is any key. Pure. Read `ingest/server` next: it refuses who has to make room.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

HALF_FRAMES_BYTES = 32 * 1024 * 1024
"""Of all connections together: of the longest frames, and with what looks for their ends, 300 traders have as much,
more than are allowed by default. Beyond it the one that has waited longest for the end of its frame is refused: a
trader hands a frame over whole, and the rest of it is there with the next read."""

_Key = TypeVar("_Key")


class HalfFrames(Generic[_Key]):
    """Bytes by connection, at most `most` in all."""

    def __init__(self, most: int = HALF_FRAMES_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[_Key, int] = OrderedDict()
        """Whose frame began first is first."""
        self.total = 0
        """Bytes of all of them."""

    def charge(self, key: _Key, count: int, *, is_new: bool) -> _Key | None:
        """Note that so many bytes are kept for a connection now; `is_new`: of another frame than before.

        Returns who has to make room, and is no longer counted; None: there is room for all.
        """
        self.total += count - self._kept.get(key, 0)
        if is_new or not count:
            self._kept.pop(key, None)
        if count:
            self._kept[key] = count
        if self.total <= self._most:
            return None
        oldest, kept = self._kept.popitem(last=False)
        self.total -= kept
        return oldest

    def forget(self, key: _Key) -> None:
        """Forget a connection that is over."""
        self.total -= self._kept.pop(key, 0)
