"""What waits for viewers that do not read: how many bytes of all, and who has to go beyond that.

Owns: the sum of what is kept for connections until they read it, and the choice of the one that is cut. It must not
know sockets or how a connection is cut. Pure. Read `viewers/server` next: it asks this, and cuts.

A reader that is only slow takes some of what waits for it, so the one that has taken nothing for the longest time is
gone, or means harm. It is looked for among those of the address that holds most: no address costs another one its
answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

Holder = TypeVar("Holder", bound=Hashable)


class _Waiting(NamedTuple):
    address: str
    size: int
    shared: bytes | None


class Unread(Generic[Holder]):
    """Counts bytes that wait for readers. What is the same object for several of them is in memory once: so it counts.

    Belongs to one event loop.
    """

    def __init__(self, most: int) -> None:
        """Allow `most` bytes of all together."""
        self._most = most
        self._waiting: dict[Holder, _Waiting] = {}
        """Who has taken nothing for the longest time is first."""
        self._of_address: Counter[str] = Counter()
        """Bytes by address; what is shared counts once for each: many who sleep behind one address hold little."""
        self._sharers: Counter[int | tuple[str, int]] = Counter()
        """How many wait for the same object, by its id, and at each address: `_waiting` keeps it as long as somebody
        does."""
        self.total = 0
        """Bytes of all."""

    def charge(self, holder: Holder, address: str, size: int, shared: bytes | None = None) -> Holder | None:
        """Note that `size` bytes wait for a holder now; `shared` if others may wait for the same object.

        Returns who is to be cut because there are too many of all, and counts it no more; None: nobody.
        """
        before = self._waiting.get(holder)
        if before is not None:
            self._subtract(before)
            if size < before.size:
                del self._waiting[holder]
        if size <= 0:
            return None
        self._waiting[holder] = _Waiting(address, size, shared)
        if shared is None or self._join((address, id(shared))):
            self._of_address[address] += size
        if shared is None or self._join(id(shared)):
            self.total += size
        return self._take_one() if self.total > self._most else None

    def release(self, holder: Holder) -> None:
        """Note that nothing waits for a holder any more."""
        waiting = self._waiting.pop(holder, None)
        if waiting is not None:
            self._subtract(waiting)

    def _subtract(self, waiting: _Waiting) -> None:
        address, size, shared = waiting
        if shared is None or self._part((address, id(shared))):
            self._of_address[address] -= size
            if not self._of_address[address]:
                del self._of_address[address]
        if shared is None or self._part(id(shared)):
            self.total -= size

    def _join(self, sharers: int | tuple[str, int]) -> bool:
        """Count one more who shares; tells whether it is the first."""
        self._sharers[sharers] += 1
        return self._sharers[sharers] == 1

    def _part(self, sharers: int | tuple[str, int]) -> bool:
        """Count one less; tells whether it was the last."""
        self._sharers[sharers] -= 1
        if self._sharers[sharers]:
            return False
        del self._sharers[sharers]
        return True

    def _take_one(self) -> Holder:
        """Take away one of the address that has most: rather one that holds something for itself alone."""
        most = max(self._of_address, key=self._of_address.__getitem__)
        its = [(holder, waiting) for holder, waiting in self._waiting.items() if waiting.address == most]
        alone = (holder for holder, waiting in its if waiting.shared is None or self._sharers[id(waiting.shared)] == 1)
        chosen = next(alone, its[0][0])
        self.release(chosen)
        return chosen
