"""Sends what dead runs of this app have left in their spool files, under their own runs.

Owns: the thread that does it, its connection, and what becomes of each file: delivered ones are removed, damaged and
foreign ones set aside. It must not know the outbox or this run's connection. Read `logrelay/ingest/server` next: to the
relay this is a trader that is back after a lost connection.

Nothing of this is ever in a log call. The sender starts the thread once the relay has welcomed this run, and again from
time to time, because another process of the app may have died meanwhile. A thread of its own, because the sender's must
not leave this run's acks alone for as long as a file takes.

**Exactly once** holds as for any connection: hello names the dead run, the welcome says what of it the journal has, and
the relay ignores a seq it has seen. If this process dies in the middle, the file is still there for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from . import frames, spool
from .descriptors import SEND_FLAGS, Mark, is_marked
from .spool_format import NewerVersionError, Reader, resend

if TYPE_CHECKING:
    import _socket

SCAN_S: Final = 30.0
"""Seconds between two looks into the directory."""
SOON_S: Final = 1.0
"""Seconds after which a new welcome is a reason to look again."""
MAX_AGE_NS: Final = 28 * 86_400 * 1_000_000_000
"""A file with a line older than this is not sent any more: a relay remembers for 35 days what it has of a run, and
would later take lines that it has for new ones."""
STEP_S: Final = 0.05
"""Seconds that one send or receive may wait: then whether to go on is looked at."""
ANSWER_S: Final = 10.0
"""Seconds without progress after which a relay is left alone until the next look."""
SAID_OF_FAILED: Final = "its last lines tell more"
"""What is said of the failure of a run that left a spool file, in which nothing but the fact has a place."""
BATCH_BYTES: Final = 32_768
"""Bytes joined for one send."""
READ_BYTES: Final = 65_536

Connect = Callable[[], "tuple[_socket.socket, Mark]"]


def _waited_s(began: float) -> float:
    """Return for how long a step that began then has waited; what is beyond its bound was no waiting.

    Where the whole machine stood still, the relay did not run either.
    """
    return min(time.monotonic() - began, STEP_S)


class StoppedError(Exception):
    """The thread is to end, or the relay does not answer: the file stays for another time."""


class Recovery:
    """Looks for files of dead runs of `app` in `folder` and delivers them.

    `connect` returns a connected socket and its mark, `start_thread` starts a thread, `report` tells a person, `now_ns`
    is the clock of the lines' times. `start` and `stop` wait for nothing.
    """

    def __init__(
        self,
        folder: str,
        *,
        app: str,
        connect: Connect,
        start_thread: Callable[[Callable[[], None]], object],
        report: Callable[[str], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._folder = folder
        self._app = app
        self._connect = connect
        self._start_thread = start_thread
        self._report = report
        self._now_ns = now_ns
        self._next_look = 0.0
        self._baton: list[None] = [None]
        """Whoever removes the element may start the thread, which puts it back at its end."""
        self._is_stopped = False
        self._said: set[str] = set()
        """What was said already; a file that cannot be delivered is found again and again."""
        self._sock: _socket.socket | None = None
        self._mark: Mark = -1
        self._file: spool.DeadFile | None = None
        self._decoder = frames.Decoder()
        self._acked = -1
        """What the relay says to have; below 0: it has not answered."""
        self._sent = 0
        """The last seq that this connection has carried."""

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return not self._baton

    def start(self, now: float, *, soon: bool = False) -> None:
        """Start the thread if it is time; `soon`: the relay has just welcomed us."""
        if self._is_stopped or now < self._next_look - (SCAN_S - SOON_S if soon else 0.0):
            return
        try:
            del self._baton[0]
        except IndexError:
            return
        self._next_look = now + SCAN_S
        try:
            self._start_thread(self._run)
        except BaseException as error:
            self._baton += (None,)
            if not isinstance(error, Exception):
                raise

    def stop(self) -> None:
        """Let the thread end soon, and start no other."""
        self._is_stopped = True

    def forget_in_child(self) -> None:
        """Drop the descriptors in a forked child."""
        self._is_stopped = True
        file = self._file
        if file is not None:
            file.close()
        self._close_socket()

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.look()
        except BaseException as error:  # the thread has no caller to tell
            if not isinstance(error, StoppedError):
                self._tell(f"the spool {self._folder} cannot be looked through: {type(error).__name__}: {error}")
        finally:
            self._baton += (None,)

    def look(self) -> None:
        """Deliver every file that a dead run of this app has left. Raises OSError and `StoppedError`."""
        try:
            spool.check_directory(self._folder)
        except OSError:
            return  # this run's own spool has failed for it, and that is said
        for path in spool.candidates(self._folder):
            if self._is_stopped:
                return
            try:
                self._file = file = spool.DeadFile.take(path)
                if file is not None:
                    self._deliver(file)
            except NewerVersionError:
                pass  # left by a later version of this program, and for it
            except ValueError as error:
                self._set_aside(path, "foreign", str(error))
            except OSError as error:
                self._tell(f"spool file {path} cannot be delivered now: {type(error).__name__}: {error}")
            finally:
                taken, self._file = self._file, None
                if taken is not None:
                    taken.close()
                self._close_socket()

    def _deliver(self, file: spool.DeadFile) -> None:
        reader = Reader(file.read_at)
        if reader.app != self._app:
            return
        oldest_ns = next((entry.time_ns for entry in reader.entries() if entry.time_ns), None)
        if oldest_ns is not None and self._now_ns() - oldest_ns > MAX_AGE_NS:
            self._set_aside(file.path, "expired", "its lines are older than 28 days, and a relay may have them")
            return
        lines = 0
        if next(reader.entries(), None) is not None:
            lines = self._send(reader)
        if reader.torn:
            self._set_aside(file.path, "torn", f"{reader.torn} places in it are damaged; {lines} lines were whole")
        else:
            file.remove()
        if lines:
            many = "1 line" if lines == 1 else f"{lines} lines"
            was = "is" if lines == 1 else "are"
            self._report(f"{many} that an earlier run (pid {reader.pid}) had left behind {was} delivered")

    def _send(self, reader: Reader) -> int:
        """Send what the relay does not have, wait until it has it, and return how many lines that were."""
        self._sock, self._mark = self._connect()
        self._sock.settimeout(STEP_S)
        self._decoder = frames.Decoder()
        self._acked, self._sent = -1, 0
        failed = SAID_OF_FAILED if reader.has_failed else ""
        self._write(frames.hello_of_dead(reader.hello, failed))  # the lock on its file was free: the process is dead
        self._wait_for(0)
        lines, last, batch = 0, self._acked, b""
        known = max(self._acked, reader.acked)
        for entry in resend(reader.entries(), known, lambda: "torn" if reader.torn else "overflow"):
            batch += entry.frame
            last = self._sent = entry.last
            lines += entry.time_ns != 0
            if len(batch) >= BATCH_BYTES:
                self._write(batch)
                batch = b""
        if reader.ended:
            batch += frames.bye(last)
        self._write(batch)
        self._wait_for(last)
        return lines

    def _write(self, data: bytes) -> None:
        waited_s = 0.0
        while data:
            sock, began = self._checked(waited_s), time.monotonic()
            try:
                data = data[sock.send(data, SEND_FLAGS) :]
                waited_s = 0.0
            except (TimeoutError, BlockingIOError):
                waited_s += _waited_s(began)

    def _wait_for(self, seq: int) -> None:
        """Read answers until the journal has everything up to `seq`."""
        waited_s = 0.0
        while self._acked < seq:
            sock, began = self._checked(waited_s), time.monotonic()
            try:
                data = sock.recv(READ_BYTES)
            except (TimeoutError, BlockingIOError):
                continue
            finally:
                waited_s += _waited_s(began)
            if not data:
                raise ConnectionError("the relay closed the connection")
            for answer in self._decoder.feed(data):
                before = self._acked
                if isinstance(answer, frames.Welcome):
                    self._acked = max(before, answer.acked)
                elif isinstance(answer, frames.Ack) and answer.seq <= max(before, self._sent):
                    self._acked = max(before, answer.seq)
                elif isinstance(answer, frames.Ping):
                    self._write(frames.PONG)
                elif isinstance(answer, frames.Refused):
                    raise ConnectionError(f"the relay refused: {answer.reason}")
                elif not isinstance(answer, frames.Reject):
                    raise ConnectionError("the relay answers nonsense")
                if self._acked > before:
                    waited_s = 0.0

    def _checked(self, waited_s: float) -> _socket.socket:
        """Return the connection, if it is ours and it makes sense to go on."""
        sock = self._sock
        if self._is_stopped or sock is None:
            raise StoppedError
        if waited_s >= ANSWER_S:
            raise TimeoutError("the relay does not answer")
        if not is_marked(sock.fileno(), self._mark):
            raise ConnectionError("the descriptor was closed by somebody else")
        return sock

    def _close_socket(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if is_marked(sock.fileno(), self._mark):
                sock.close()
            else:
                sock.detach()

    # -- for a person ----------------------------------------------------------------------------------------

    def _set_aside(self, path: str, why: str, text: str) -> None:
        try:
            aside = spool.set_aside(path, why)
        except OSError as error:
            aside = f"nothing: {error}"
        self._tell(f"spool file {path}: {text}; it was renamed to {aside}")

    def _tell(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._report(text)
