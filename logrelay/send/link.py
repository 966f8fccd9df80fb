"""A run of its own at the relay: lines go out in order, and are kept until they are acked.

Owns: the socket, the window of unacked lines, connecting again, and how long anything may take. It must not know where
the lines come from. Blocking, for one thread. Read `send/frames` for what goes over it; the reading trail goes on with
the relay's end. Read `ingest/server` next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from logrelay.errors import NoRelayError, NotAckedError
from logrelay.send.frames import Ack, Answers, Refused, Reject, Welcome, bye

WINDOW_BYTES = 256 * 1024
"""Bytes of lines that may be unacked. Whoever gives more waits: that bounds the memory, and what a kill can lose."""

RETRY_S = 0.05
"""Pause before connecting again: a relay that restarts is back in a fraction of a second."""

READ_BYTES = 65_536


class Link:
    """Sends lines to the relay at `path` and waits for their acks.

    `hello` is the first frame of each connection. Anything may take `timeout_s` seconds, begun anew with every ack;
    then NotAckedError is raised when it has answered, or the kernel has taken part of a line for it: that line may come
    into the journal later. NoRelayError is raised when it was given nothing.
    """

    def __init__(
        self, path: str, hello: bytes, *, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._hello, self._timeout_s, self._clock = path, hello, timeout_s, clock
        self._socket: socket.socket | None = None
        self._answers = Answers()
        self._out = bytearray()
        self._unacked: deque[tuple[int, bytes]] = deque()
        self._unacked_bytes = 0
        self._answered = False
        self._given_bytes = 0
        """Bytes that the kernel has taken on this connection."""
        self._was_given_lines = False
        """Somebody was given a line on a connection before, and may still read it."""
        self._was_refused = False
        """The relay has said no: it takes nothing of what follows hello."""
        self._trouble = ""
        self._last_seq = 0
        self._ending = False
        self.acked = 0
        """Lines up to this seq are in the journal, those that were rejected excepted."""
        self.rejected: list[Reject] = []
        """Lines that the relay will never accept."""

    def send(self, seq: int, frame: bytes) -> None:
        """Send the next line; wait while too much is unacked. Raises NoRelayError, NotAckedError."""
        self._last_seq = seq
        self._unacked.append((seq, frame))
        self._unacked_bytes += len(frame)
        if self._socket is not None:
            self._out += frame
        self._work_until(lambda: not self._out and self._socket is not None and self._unacked_bytes <= WINDOW_BYTES)

    def finish(self) -> None:
        """Say goodbye and wait until every line is acked or rejected. Raises NoRelayError, NotAckedError."""
        self._ending = True
        if self._socket is not None:
            self._out += bye(self._last_seq)
        self._work_until(lambda: not self._unacked and self._answered and not self._out)

    def close(self) -> None:
        """Close the socket. What is not acked may or may not come into the journal."""
        self._drop()

    def _work_until(self, done: Callable[[], bool]) -> None:
        deadline = self._clock() + self._timeout_s
        while True:
            if self._socket is None:
                self._connect()
            if self._socket is not None and self._exchange(wait_s=0.0 if done() else self._left(deadline)):
                deadline = self._clock() + self._timeout_s
            if done():
                return
            left = self._left(deadline)
            if left <= 0:
                self._give_up()
            if self._socket is None:
                time.sleep(min(RETRY_S, left))

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self._clock())

    def _give_up(self) -> None:
        was_given = self._was_given_lines or self._given_bytes > len(self._hello)
        if not self._answered and (self._was_refused or not was_given):
            remedy = (
                "the user who sends has to be in the group of the socket"
                if self._trouble == os.strerror(errno.EACCES)
                else "start one with logrelay serve, or name the socket of one that runs with --socket"
            )
            raise NoRelayError(
                f"no relay takes lines at {self._path}: {self._trouble or 'it does not answer'}; {remedy}"
            )
        why = f" ({self._trouble})" if self._trouble else ""
        raise NotAckedError(
            f"the relay at {self._path} has not acked in {self._timeout_s:g} s{why}; logrelay status says how it is"
        )

    def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            check_directory(self._path)
            sock.setblocking(False)
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            self._trouble = error.strerror or str(error)
            return
        self._socket, self._answers, self._given_bytes = sock, Answers(), 0
        self._out = bytearray(self._hello)
        for _, frame in self._unacked:
            self._out += frame
        if self._ending:
            self._out += bye(self._last_seq)

    def _exchange(self, wait_s: float) -> bool:
        """Write and read what is possible, after at most `wait_s`. Returns whether the relay has acked more lines.

        What the kernel takes is no progress: a relay that ends each connection takes everything each time.
        """
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        events = poll.poll(wait_s * 1000)
        moved = False
        try:
            for _, mask in events:
                if mask & select.POLLOUT:
                    taken = self._socket.send(self._out, socket.MSG_NOSIGNAL)
                    self._given_bytes += taken
                    del self._out[:taken]
                if mask & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    moved = self._read() or moved
        except OSError as error:
            self._trouble = error.strerror or str(error)
            self._drop()
        return moved

    def _read(self) -> bool:
        assert self._socket is not None
        data = self._socket.recv(READ_BYTES)
        if not data:
            self._trouble = self._trouble or "the relay closed the connection"
            self._drop()
            return False
        moved = False
        for answer in self._answers.receive(data):
            match answer:
                case Welcome(acked) | Ack(acked):
                    self._answered = True
                    self._trouble = ""
                    moved = self._take_ack(acked) or moved
                case Reject():
                    self.rejected.append(answer)
                case Refused(reason):
                    self._trouble = f"it refuses: {reason}"
                    self._was_refused = True
                    self._drop()
                    return False
        return moved

    def _take_ack(self, seq: int) -> bool:
        """Forget the lines up to `seq`. Returns whether there were any."""
        before, self.acked = self.acked, max(self.acked, min(seq, self._last_seq))
        while self._unacked and self._unacked[0][0] <= seq:
            self._unacked_bytes -= len(self._unacked.popleft()[1])
        return self.acked > before

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._out = bytearray()
            self._was_given_lines = self._was_given_lines or self._given_bytes > len(self._hello)
            self._given_bytes = 0


def check_directory(path: str) -> None:
    """Refuse a socket in a per-user directory of a shared temp directory that another user may have made.

    Raises PermissionError; the trader has the same rule.
    """
    parent = Path(path).parent
    if parent.name == f"logrelay-{os.getuid()}":
        seen = parent.lstat()
        if seen.st_uid != os.getuid() or seen.st_mode & 0o022 or not stat.S_ISDIR(seen.st_mode):
            raise PermissionError(13, "the directory belongs to or can be changed by another user", str(parent))


def first_socket(places: tuple[str, ...]) -> str | None:
    """Return the first place where a socket lies."""
    for place in places:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(Path(place).stat().st_mode):
                return place
    return None
