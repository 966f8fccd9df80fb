"""The traders' sockets, of which the event loop sees one descriptor.

Owns: `SocketPoll`: which sockets are looked at, and whether the loop is. It must not know what is read from them, nor
when to rest. Read `ingest/trader_socket` next: it is one of them.

While the relay rests a trader's send must wake nobody. A transport that is paused does not do: libuv leaves its
descriptor in epoll, so that the next send still wakes the loop, which then takes it out with one call and puts it back
with another. Here all sockets are in an epoll of their own, and only that one is taken out of the loop for a rest and
put back behind it, however many traders there are. A rest that ends with something to read needs neither.
"""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class SocketPoll:
    """Sockets to read from, and the loop that is told when one of them can be read. Every method is for `loop`."""

    def __init__(self, on_readable: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Hold no socket yet, and rest. `on_readable` is called while a socket can be read, and `watch` was called."""
        self._on_readable, self._loop = on_readable, loop
        # An epoll, and a kqueue on systems without: both have a descriptor that can be read when there is an event.
        self._selector: Any = selectors.DefaultSelector()
        self._reads: dict[int, Callable[[], None]] = {}
        self._left: list[int] = []
        """Descriptors that had something and were not read; their turn comes first."""
        self._watched = False

    def add(self, descriptor: int, read: Callable[[], None]) -> None:
        """Look at a socket from now on; `read` is called when there is something to read, an end, or an error.

        It is also called when there is nothing.
        """
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._reads[descriptor] = read

    def remove(self, descriptor: int) -> None:
        """Look at it no more. What it gets meanwhile is there when it is added again."""
        self._selector.unregister(descriptor)
        del self._reads[descriptor]

    def read(self, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Read each socket that has something, once; never waits. Of one alone it is not asked whether it has.

        After one of them has been read `goes_on` is asked before each other; those that it leaves are first next time.
        """
        if len(self._reads) == 1:
            for read in list(self._reads.values()):
                read()
            return
        ready = [key.fd for key, _ in self._selector.select(0)]
        if self._left:
            first, self._left = dict.fromkeys(self._left), []
            ready = [*filter(set(ready).__contains__, first), *(fd for fd in ready if fd not in first)]
        for number, fd in enumerate(ready):
            if number and not goes_on():
                self._left = ready[number:]
                return
            found = self._reads.get(fd)
            if found is not None:  # none: one before it in this pass has had it removed
                found()

    def has_something(self) -> bool:
        """Tell whether one of the sockets can be read now; never waits."""
        return bool(self._reads) and bool(self._selector.select(0))

    def watch(self) -> None:
        """Have the loop call `on_readable` while there is something to read."""
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._selector.fileno(), self._on_readable)

    def rest(self) -> None:
        """Have the loop not look, whatever comes, until `watch`."""
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._selector.fileno())

    def close(self) -> None:
        """End; every socket has been removed."""
        self.rest()
        self._selector.close()
