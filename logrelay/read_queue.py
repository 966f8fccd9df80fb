"""Whose turn it is to have the journal read.

Owns: the queue of reads, in two lanes, and how many run at once. It must not know what is read or how: a read is a call
that begins it. Read `degraded` next.

One read is a page, some 50 ms at most. Reads wait here and not in the queue of the threads, because here the next one
of the same owner takes the place of the one before, and a search through the whole journal does not keep somebody
waiting who only wants the newest lines.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

MOST_READS = 2
"""At once: as many as the journal has threads for."""

MOST_SEARCHES = 1
"""Of them those that look at every line for a text or a field; so one thread is always there for the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """One page that somebody wants."""

    owner: Hashable
    """Who wants it. An owner has one read in the queue: a newer one takes the older one's place."""
    search: bool
    """It looks at every line of a stretch for a text or a field."""
    is_wanted: Callable[[], bool]
    """Asked when its turn has come; False: nobody waits for it any more."""
    begin: Callable[[Read], None]
    """Begins it; `ReadQueue.ended` is called when it has ended. It is given the read, so that it need not refer to it:
    both together would stay, with the page, until the collector looks."""


class ReadQueue:
    """Begins reads, one owner after another. Belongs to one event loop."""

    def __init__(self) -> None:
        self._lanes: dict[bool, OrderedDict[Hashable, Read]] = {False: OrderedDict(), True: OrderedDict()}
        self._running: dict[Read, None] = {}

    def put(self, read: Read) -> None:
        """Have a read begun when its turn comes: at once, when there is room."""
        self._lanes[not read.search].pop(read.owner, None)
        self._lanes[read.search][read.owner] = read
        self._begin_some()

    def ended(self, read: Read) -> None:
        """Note that a read has ended, and begin the next one."""
        self._running.pop(read, None)
        self._begin_some()

    @property
    def waiting(self) -> int:
        """Reads that have not begun."""
        return sum(map(len, self._lanes.values()))

    def _begin_some(self) -> None:
        for search in (False, True):
            lane = self._lanes[search]
            while lane and self._has_room(search=search):
                read = lane.popitem(last=False)[1]
                if read.is_wanted():
                    self._running[read] = None
                    read.begin(read)

    def _has_room(self, *, search: bool) -> bool:
        if len(self._running) >= MOST_READS:
            return False
        return not search or sum(read.search for read in self._running) < MOST_SEARCHES
