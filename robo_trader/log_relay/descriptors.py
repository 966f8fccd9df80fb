"""Descriptors that somebody else may close and whose numbers may be reused, and the one that wakes the sender.

Owns: the mark on an open file, the check of it, and the wake-up descriptor. It must not know frames, threads or what
is sent. Read `sender` next.

Code in the same process may close every descriptor (daemonising code does), and the next socket it opens gets our
number: writing on would send log lines to a broker. So our open files carry a mark that the number alone does not
have: the signal number of F_SETSIG, kept with the open file and without effect as long as O_ASYNC is off. It is read
back before each send (145 ns, a third of an fstat). The descriptors also live at high numbers, where reuse is rare.

Only the sender's thread may move one there. It is the first number that high in most processes, so the kernel makes a
larger table, and when the process has other threads it first waits until each has left the old one: some 10 ms.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from typing import Final

F_SETSIG: Final = 10
F_GETSIG: Final = 11
"""Linux fcntl commands (the fcntl module does not name them): a signal number kept with an open file."""
MARKS: Final = range(40, 60)
"""Signal numbers used as marks: real-time signals that neither glibc (32 to 34) nor anybody's defaults use."""
HIGH_FD: Final = 900
"""Where our descriptors go if the limit allows; higher would make the kernel's table grow."""
HIGH_FDS: Final = (HIGH_FD, HIGH_FD // 4, 40)
"""Lowest numbers tried, one after the other, where RLIMIT_NOFILE is low."""

_next_mark = itertools.count()


def mark(fd: int) -> int:
    """Mark the open file behind `fd` as ours and return the mark. Raises OSError."""
    chosen = MARKS[next(_next_mark) % len(MARKS)]
    fcntl.fcntl(fd, F_SETSIG, chosen)
    return chosen


def is_marked(fd: int, expected: int) -> bool:
    """Whether `fd` is still the open file that was given this mark."""
    try:
        return fcntl.fcntl(fd, F_GETSIG) == expected
    except OSError:
        return False


def move_high(fd: int) -> int:
    """Move a descriptor to a high number and return it; it stays where it is if the limit is low."""
    moved = duplicate_high(fd)
    if moved < 0:
        return fd
    os.close(fd)
    return moved


def duplicate_high(fd: int) -> int:
    """Return a high number for the same open file, whose mark it has too; -1 if the limit is low."""
    for lowest in HIGH_FDS:
        with contextlib.suppress(OSError):
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    return -1


class Wakeup:
    """An eventfd that makes the sender's poll return. Closed until `open` is called; `open` also replaces a lost one.

    Not a threading.Event: a signal handler that logs would deadlock on its lock.
    """

    __slots__ = ("_mark", "fd")

    def __init__(self) -> None:
        self.fd = -1
        """For poll; -1: there is none."""
        self._mark = -1

    def open(self) -> None:
        """Open the descriptor unless it is open and still ours. Raises OSError."""
        if self._is_ours():
            return
        fd = move_high(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._mark = mark(fd)
        self.fd = fd  # last: `set` in another thread looks at the number first

    def set(self) -> None:
        """Wake the sender. Never waits and takes no lock: safe in a signal handler and for who has the baton."""
        fd = self.fd
        if fd < 0:
            return
        with contextlib.suppress(OSError):
            if fcntl.fcntl(fd, F_GETSIG) == self._mark:
                os.eventfd_write(fd, 1)

    def clear(self) -> None:
        """Take back what `set` did, once poll has returned for it."""
        with contextlib.suppress(OSError):
            if fcntl.fcntl(self.fd, F_GETSIG) == self._mark:
                os.eventfd_read(self.fd)
                return
        self.fd = -1  # somebody else's by now: the next `open` makes another

    def close(self) -> None:
        """Close the descriptor if it is still ours."""
        fd, self.fd = self.fd, -1
        with contextlib.suppress(OSError):
            if fd >= 0 and fcntl.fcntl(fd, F_GETSIG) == self._mark:
                os.close(fd)

    def _is_ours(self) -> bool:
        return self.fd >= 0 and is_marked(self.fd, self._mark)
