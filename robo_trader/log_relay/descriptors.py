"""Descriptors that somebody else may close and whose numbers may be reused, and the one that wakes the sender.

Owns: the mark on an open file, the check of it, the wake-up descriptor, and what of this operating systems name
differently. It must not know frames, threads or what is sent. Read `sender` next.

Code in the same process may close every descriptor (daemonising code does), and the next socket it opens gets our
number: writing on would send log lines to a broker. So our open files carry a mark that the number alone does not
have: on Linux the signal number of F_SETSIG, kept with the open file and without effect as long as O_ASYNC is off. It
is read back before each send (145 ns, a third of an fstat). Where F_SETSIG is missing the mark is what fstat says of
the open file, its device and inode. The descriptors also live at high numbers, where reuse is rare.

Only the sender's thread may move one there. It is the first number that high in most processes, so the kernel makes a
larger table, and when the process has other threads it first waits until each has left the old one: some 10 ms.
"""

from __future__ import annotations

import _socket
import contextlib
import itertools
import os
import select
import sys
from collections.abc import Callable
from typing import Any, Final

MARKS: Final = range(40, 60)
"""Signal numbers used as marks: real-time signals that neither glibc (32 to 34) nor anybody's defaults use."""
HIGH_FD: Final = 900
"""Where our descriptors go if the limit allows; higher would make the kernel's table grow."""
HIGH_FDS: Final = (HIGH_FD, HIGH_FD // 4, 40)
"""Lowest numbers tried, one after the other, where RLIMIT_NOFILE is low."""
SOCKET_FLAGS: Final[int] = getattr(_socket, "SOCK_CLOEXEC", 0) | getattr(_socket, "SOCK_NONBLOCK", 0)
"""Added to a socket's type. Without them Python makes it not inheritable, and `settimeout(0)` non-blocking."""
SEND_FLAGS: Final[int] = getattr(_socket, "MSG_DONTWAIT", 0) | getattr(_socket, "MSG_NOSIGNAL", 0)
"""For every send: never wait, and no SIGPIPE, whose default the host may have put back and which ends the process."""
NO_SIGPIPE_OPTIONS: Final = {"darwin": 0x1022, "freebsd": 0x0800, "netbsd": 0x0800}
"""SO_NOSIGPIPE by the first letters of sys.platform, from each system's sys/socket.h; Python does not name it."""
WAKE: Final = (1).to_bytes(8, sys.byteorder)
"""Written to wake the sender: an eventfd takes a 64-bit integer, a socket takes any bytes."""
WAKE_READ_BYTES: Final = 4096
"""Bytes read at once to take wake-ups back. An eventfd needs 8; of a socket what is left wakes the sender once more."""

Mark = Any
"""What `mark` returned: an integer on Linux, else a pair. Only to be compared with what `read_mark` returns."""

_next_mark = itertools.count()


def _identity(fd: int, _command: int) -> tuple[int, int]:
    seen = os.fstat(fd)
    return seen.st_dev, seen.st_ino


_set_mark: Callable[[int, int, int], Any] | None = None
_duplicate: Callable[[int, int, int], Any] | None = None
_DUPLICATE = _SET_MARK = GET_MARK = -1
read_mark: Callable[[int, int], Mark] = _identity
"""`read_mark(fd, GET_MARK)` returns the mark of an open file, raises OSError. On Linux it is fcntl itself: the hot path
calls it for each line."""

with contextlib.suppress(ImportError):
    import fcntl

    if hasattr(fcntl, "F_DUPFD_CLOEXEC"):
        _duplicate, _DUPLICATE = fcntl.fcntl, fcntl.F_DUPFD_CLOEXEC
    if hasattr(fcntl, "F_SETSIG"):
        _set_mark, _SET_MARK = fcntl.fcntl, fcntl.F_SETSIG
        read_mark, GET_MARK = fcntl.fcntl, fcntl.F_GETSIG


def missing() -> str:
    """Name what this operating system lacks and nothing here can do without; empty: it has all."""
    needed = {
        "Unix domain sockets": hasattr(_socket, "AF_UNIX"),
        "select.poll": hasattr(select, "poll"),
        "os.register_at_fork": hasattr(os, "register_at_fork"),
    }
    return ", ".join(name for name, there in needed.items() if not there)


def mark(fd: int) -> Mark:
    """Mark the open file behind `fd` as ours and return the mark. Raises OSError."""
    if _set_mark is None:
        return _identity(fd, -1)
    chosen = MARKS[next(_next_mark) % len(MARKS)]
    _set_mark(fd, _SET_MARK, chosen)
    return chosen


def is_marked(fd: int, expected: Mark) -> bool:
    """Whether `fd` is still the open file that was given this mark."""
    try:
        return bool(read_mark(fd, GET_MARK) == expected)
    except (OSError, ValueError):  # fcntl has a ValueError for negative numbers
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
    if _duplicate is not None:
        for lowest in HIGH_FDS:
            with contextlib.suppress(OSError):
                return int(_duplicate(fd, _DUPLICATE, lowest))
    return -1


def refuse_sigpipe(sock: _socket.socket) -> None:
    """Have a send on `sock` to nobody fail instead of raising SIGPIPE, where that is an option of the socket."""
    for system, option in NO_SIGPIPE_OPTIONS.items():
        if sys.platform.startswith(system):
            with contextlib.suppress(OSError):
                sock.setsockopt(_socket.SOL_SOCKET, option, 1)


def _wakeup_ends() -> tuple[int, int]:
    """Return the descriptor to poll and the one to write to: of an eventfd one and the same, else a pair of sockets.

    Not of a pipe: that has no option against SIGPIPE. Raises OSError.
    """
    if hasattr(os, "eventfd"):
        fd = move_high(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        return fd, fd
    ends = _socket.socketpair()
    for end in ends:
        end.settimeout(0.0)
        refuse_sigpipe(end)
    return move_high(ends[0].detach()), move_high(ends[1].detach())


class Wakeup:
    """A descriptor that makes the sender's poll return. Closed until `open` is called; `open` also replaces a lost one.

    Not a threading.Event: a signal handler that logs would deadlock on its lock.
    """

    __slots__ = ("_mark", "_write_fd", "_write_mark", "fd")

    def __init__(self) -> None:
        self.fd = -1
        """For poll; -1: there is none."""
        self._mark: Mark = -1
        self._write_fd = -1
        self._write_mark: Mark = -1

    def open(self) -> None:
        """Open the descriptor unless it is open and still ours. Raises OSError."""
        if self._is_ours():
            return
        self.close()  # of a pair one end may be left
        fd, write_fd = _wakeup_ends()
        self._mark = mark(fd)
        self._write_mark = self._mark if write_fd == fd else mark(write_fd)
        self.fd = fd
        self._write_fd = write_fd  # last: `set` in another thread looks at this number first

    def set(self) -> None:
        """Wake the sender. Never waits and takes no lock: safe in a signal handler and for who has the baton."""
        fd = self._write_fd
        if fd < 0:
            return
        with contextlib.suppress(OSError):
            if read_mark(fd, GET_MARK) == self._write_mark:
                os.write(fd, WAKE)

    def clear(self) -> None:
        """Take back what `set` did, once poll has returned for it."""
        with contextlib.suppress(OSError):
            if is_marked(self.fd, self._mark) and os.read(self.fd, WAKE_READ_BYTES):
                return
        self.close()  # somebody else's by now, or its other end is: the next `open` makes another

    def close(self) -> None:
        """Close what is still ours of it."""
        fd, self.fd = self.fd, -1
        write_fd, self._write_fd = self._write_fd, -1
        with contextlib.suppress(OSError):
            if is_marked(fd, self._mark):
                os.close(fd)
        with contextlib.suppress(OSError):
            if write_fd != fd and is_marked(write_fd, self._write_mark):
                os.close(write_fd)

    def _is_ours(self) -> bool:
        return is_marked(self.fd, self._mark) and is_marked(self._write_fd, self._write_mark)
