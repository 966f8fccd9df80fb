"""The process at the other end of a log socket, where it can be known: held by a pidfd, and asked whether it runs.

Owns: how a process is recognised as the one that hello names, its pidfd, and the table of processes that have lost
their connection and are watched until they end. It must not know runs beyond their keys, nor what is told of them.
Read `ingest/frames` next.

A connection that ends without bye is a crash only when the process is gone. The kernel says who connected
(SO_PEERCRED). Where that pid is the one in hello, or in its own pid namespace has that number and is as old as the
run (a bot in a container on this machine), the peer is the trader itself, and a pidfd tells for certain when it ends:
it means this process also after the pid has been given to another. At the end of a tunnel, or where the relay cannot
see the peer's processes, the pid is another's or 0; then nothing is known, and nothing is claimed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from logrelay.model import UNKNOWN_UID

_CREDENTIALS = struct.Struct("iII")
"""struct ucred: pid, uid, gid."""

_SO_PEERPIDFD = 77
"""Since Linux 6.5 the kernel itself makes the pidfd of who connected. Without it the pid is looked up, and might be
another process's by now if the connection stood long in the queue: then `_began_s` is compared."""

_SO_PEERGROUPS = 59
"""Since Linux 4.13."""

_GROUP = struct.Struct("I")
MAX_GROUPS = 1_024
"""Of one process; who is in more counts as in none of them."""

_STAT_START = 19
"""Place of the start time in /proc/<pid>/stat behind the command's name, in clock ticks since the boot."""

START_SLACK_S = 2.0
"""A process begins before its run; clocks are read at two places, and one of them in hundredths of a second."""

INNER_START_S = 60.0
"""A run begins within so many seconds of its process where the pid was compared in a namespace. There numbers say
little: the first process of every container is 1, that of a tunnel here as well as that of a bot on another machine. A
bot that begins its run later is not known, which is the safe side."""

MAX_WATCHED = 1_000
"""Processes watched that have lost their connection; each has a descriptor. More than are ever lost at once; beyond it
it is not known whether the next one still runs, and so it is told."""


class PeerProcess:
    """A process, known by a pidfd, which belongs to this object. `pid` is its number here."""

    __slots__ = ("_fd", "pid")

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd

    def fileno(self) -> int:
        """Return the pidfd, which becomes readable when the process ends; -1 once closed."""
        return self._fd

    def is_running(self) -> bool:
        """Ask the kernel whether the process still runs."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close the pidfd; may be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def process_of(sock: socket.socket, pid: int, started_ns: int) -> PeerProcess | None:
    """Return the process that connected `sock` if it is the one whose hello names `pid`; None: it cannot be known.

    `started_ns` is the beginning of its run, nanoseconds since 1970. Never raises.
    """
    try:
        peer = peer_pid(sock)
        if peer <= 0 or (pid != peer and not (pid == _innermost_pid(peer) and _began_with(peer, started_ns))):
            return None
        fd = _pidfd_of_peer(sock)
        if fd is None:
            fd = os.pidfd_open(peer)
            began_s = _began_s(peer)
            if began_s is not None and began_s > started_ns / 1e9 + START_SLACK_S:
                os.close(fd)
                return None
    except (OSError, AttributeError, ValueError):  # no such process any more, no descriptor left, not Linux
        return None
    return PeerProcess(peer, fd)


def peer_pid(sock: socket.socket) -> int:
    """Return the pid of who connected, as this process sees it; 0: not to be seen from here. Raises OSError."""
    return _credentials(sock)[0]


def peer_user(sock: socket.socket) -> tuple[int, int]:
    """Return uid and gid of who connected; both `UNKNOWN_UID` where the kernel does not say. Never raises.

    Of a tunnel it is the user that the tunnel's end here runs as.
    """
    try:
        _, uid, gid = _credentials(sock)
    except OSError:
        return UNKNOWN_UID, UNKNOWN_UID
    return uid, gid


def peer_groups(sock: socket.socket) -> frozenset[int]:
    """Return the groups of who connected, besides the main one; none where the kernel does not say. Never raises."""
    try:
        given = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, MAX_GROUPS * _GROUP.size)
    except OSError:
        return frozenset()
    return frozenset(number for (number,) in _GROUP.iter_unpack(given))


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid, gid


def _pidfd_of_peer(sock: socket.socket) -> int | None:
    try:
        given = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
    except OSError:
        return None
    return int.from_bytes(given, sys.byteorder)


def _innermost_pid(pid: int) -> int:
    """Return the pid that a process sees as its own; 0 if /proc does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def _began_with(pid: int, started_ns: int) -> bool:
    """Tell whether a process is about as old as a run that began at `started_ns`."""
    began_s = _began_s(pid)
    return began_s is not None and -START_SLACK_S <= started_ns / 1e9 - began_s <= INNER_START_S


def _began_s(pid: int) -> float | None:
    """Return when a process began, seconds since 1970; None if /proc does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        ticks = int(stat.rpartition(")")[2].split()[_STAT_START])
        booted = next(
            int(line.split()[1])
            for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()
            if line.startswith("btime ")
        )
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return booted + ticks / os.sysconf("SC_CLK_TCK")


class ProcessTable:
    """The processes of runs that have lost their connection; `on_died` is called with the run's key when one ends.

    At most `limit` of them. Every method is to be called on `loop`, which calls `on_died`.
    """

    def __init__(
        self, on_died: Callable[[bytes], None], *, loop: asyncio.AbstractEventLoop, limit: int = MAX_WATCHED
    ) -> None:
        self._on_died = on_died
        self._loop = loop
        self._limit = limit
        self._by_run: dict[bytes, PeerProcess] = {}

    def __len__(self) -> int:
        return len(self._by_run)

    @property
    def is_full(self) -> bool:
        """No more can be watched."""
        return len(self._by_run) >= self._limit

    def watch(self, run: bytes, process: PeerProcess) -> None:
        """Report the end of a process, which belongs to this table from now on."""
        self.forget(run)
        self._by_run[run] = process
        self._loop.add_reader(process.fileno(), self._died, run)

    def forget(self, run: bytes) -> None:
        """Watch the process of a run no more: the run is back."""
        process = self._by_run.pop(run, None)
        if process is not None:
            self._loop.remove_reader(process.fileno())
            process.close()

    def close(self) -> None:
        """Forget all."""
        for run in list(self._by_run):
            self.forget(run)

    def _died(self, run: bytes) -> None:
        self.forget(run)
        self._on_died(run)
