"""The connection to the relay: one thread that connects, reads answers, sends the backlog and reports what is wrong.

Owns: the socket, the thread, backoff, the handshake, the goodbye and the lines on stderr. It must not know event dicts
or levels, nor call structlog, logging or warnings: whatever goes wrong here must never come back as a log line.
Callers never wait for this thread; it works on the outbox in short slices. Read `logrelay/ingest/server` next, the
other end of the socket.

**The first line of a run** may be its last, so the call that logs it does not leave the connecting to the thread: it
makes one attempt itself, says hello and sends the line (`_connect_in_call`), and the thread takes that connection over.
A Unix socket connects at once or not at all, so this waits for nobody; what may take long, as moving the descriptor to
a high number does, is the thread's.

**The welcome is not waited for.** Everything not acked and every new line follow hello at once; the relay ignores what
it has. Two things wait for the welcome all the same: a gap that only it can decide (see `outbox`), and, while a line is
under suspicion of ending the connections, every line.

**Why `_thread` and `_socket`.** `threading.Thread.start` takes locks that a signal handler's log call would
find taken, and gevent replaces both modules' classes by cooperative ones. The originals have neither problem.

The module is long because it is one state machine: which step a connection is at decides what may be sent, what an
answer means and what a person is told, and each method keeps what the others rely on after an interruption.
"""

from __future__ import annotations

import _socket
import _thread
import contextlib
import errno
import os
import select
import stat
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import frames
from .descriptors import (
    SEND_FLAGS,
    SOCKET_FLAGS,
    Mark,
    Wakeup,
    duplicate_high,
    is_marked,
    mark,
    move_high,
    refuse_sigpipe,
)
from .keepalive import Keepalive
from .outbox import SLICE_FRAMES, Outbox
from .spool_recovery import Recovery

if TYPE_CHECKING:
    from collections.abc import Callable

    from .spool import Spool

RETRY_FIRST_S: Final = 0.05
RETRY_LONGEST_S: Final = 0.8
"""Seconds before the second attempt, and the most between two: a relay that is back is found within a second."""
RETRY_REFUSED_S: Final = 10.0
"""Seconds before asking again a relay that said no."""
WELCOME_TIMEOUT_S: Final = 10.0
"""Seconds without a welcome until the sender looks whether the relay is to be found at another socket by now."""
TICK_S: Final = 1.0
"""Seconds between two turns when nothing happens: they repair what an interruption or a closed descriptor left."""
KERNEL_BUFFER: Final = 4 * 1024 * 1024
"""Bytes asked for as send buffer (the kernel caps it): a relay that reads in pulses must not look stalled."""
BATCHES_PER_TURN: Final = 32
"""Batches sent before the answers get their turn: about a megabyte."""
READ_BYTES: Final = 65_536
"""Bytes read at once."""
MAX_LOSSES: Final = 5
"""Connections that must end at the same first unacked line before that line is given up ..."""
MAX_LOSSES_ALONE: Final = 3
"""... the last ones of them with nothing else on the wire."""
_START: Final = ". Start it (logrelay serve), or name its socket in LOGRELAY_SOCKET"
REMEDIES: Final = {
    "FileNotFoundError": _START,
    "ConnectionRefusedError": _START,
    "PermissionError": ". The user of this process has to be in the group of that socket: ls -l shows it",
}
"""What to do about an absent relay, by what the system says of its socket."""
REPORT_EVERY_S: Final = 60.0
"""Seconds between two stderr lines about an absent relay."""
STDERR_BYTES: Final = 1_000
"""Bytes of one line on stderr; a pipe takes so many at once or not at all."""
WAIT_FIRST_S: Final = 0.0005
WAIT_LONGEST_S: Final = 0.02
"""Seconds between two looks of `flush` and `finish`, at first and at most."""


def default_path() -> str:
    """Return the first socket in the order of docs/protocol.md; looked up anew at every attempt.

    Where there is none it is the place at which a relay with the same environment would bind its own.
    """
    told = os.environ.get("LOGRELAY_SOCKET")
    if told:
        return told
    runtime, temporary, uid = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), os.getuid()
    system = "/run/logrelay/ingest.sock"
    users = [f"{base}/logrelay/ingest.sock" for base in (runtime, f"/run/user/{uid}") if base]
    # Predictable names in shared directories: `_check_directory` sees whose they are before anything is sent there.
    shared = [f"{base}/logrelay-{uid}/ingest.sock" for base in (temporary, "/tmp") if base]  # noqa: S108
    for place in (system, *users, *shared):
        if _place_of(place) is not None:
            return place
    if os.path.isdir("/run/logrelay"):  # noqa: PTH112 - pathlib would be one more import for three calls
        return system
    return users[0] if runtime else shared[0]


class Connection(NamedTuple):
    """A connection that has been made, and what tells it from others."""

    sock: _socket.socket
    mark: Mark
    """See `descriptors`."""
    place: tuple[str, int, int, int] | None
    """Which socket it leads to; None: it could not be seen. See `_place_of`."""


class Sender:
    """One run's connection. `flush` and `finish` wait, the rest never does.

    `path` is the relay's socket, None for the default order; `make_hello` makes the first frame of a connection, given
    why the run fails, or nothing;
    `exit_timeout` is how many seconds the thread may take to end. `wakeup` is also what the outbox wakes it with.
    With a `spool`, which the outbox has too, the files of dead runs of `app` are delivered.
    """

    def __init__(  # noqa: PLR0915  (one state machine)
        self,
        out: Outbox,
        wakeup: Wakeup,
        *,
        path: str | None,
        make_hello: Callable[..., bytes],
        exit_timeout: float,
        spool: Spool | None = None,
        app: str = "",
    ) -> None:
        self._out = out
        self._wakeup = wakeup
        self._path = path
        self._make_hello = make_hello
        self._exit_timeout = exit_timeout
        self.state = "idle"
        """idle, connecting, greeting, up, down, refused or closed."""
        self.reconnects = 0
        self.link_errors = 0
        """Times the thread was hit by an exception it did not expect."""
        self.refusal = ""
        self._abandoned = False
        """The processor is gone: finish what is there, then end."""
        self._finishing = False
        self._closing = False
        self._thread_baton: list[None] = [None]
        """Whoever removes the element may start the thread, which puts it back at its end."""
        self._turn_baton: list[None] = [None]
        """Whoever removes the element may take turns: the thread, or who waits where no thread can be started."""
        self._sock: _socket.socket | None = None
        self._fd = -1
        self._mark: Mark = -1
        self._place: tuple[str, int, int, int] | None = None
        """Which socket the connection leads to."""
        self._opening: Connection | None = None
        """A connection that is being made or moved: a forked child has to close it."""
        self._is_low = False
        """The connection was made in a call and has not been moved to a high number."""
        self._decoder = frames.Decoder()
        self._deadline = 0.0
        """When to look whether the relay, which has not answered, is elsewhere by now."""
        self._keepalive = Keepalive()
        self._next_try = 0.0
        self._retry_delay = RETRY_FIRST_S
        self._welcomed = 0
        self._last_error = ""
        self._down_since: float | None = None
        self._reported_at: float | None = None
        self._cautious = self._relay_outlived = False
        """One frame at a time, because connections keep ending around `_suspect_seq`; and: the relay has pinged, or
        answered a ping, on this connection, so what it was sent before did not end it."""
        self._suspect_seq = 0
        self._losses = self._losses_alone = 0
        self._bye_for = -1
        """The last seq that a bye was sent for."""
        self.failure = ""
        """Why the run ends, where that is a failure."""
        self._work: Callable[[], None] | None = None
        """What the thread is to run before its next turn, see `run_apart`."""
        self._is_away = False
        """The thread runs it, and has left the turns to who waits."""
        self._stderr = _socket_inode(2)
        self._spool = spool
        self._spool_told = False
        """A person knows that there is no spool, although one was asked for."""
        self._recovery = (
            None
            if spool is None
            else Recovery(
                spool.folder,
                app=app,
                connect=self._connect_apart,
                start_thread=lambda run: _unpatched("_thread", "start_new_thread")(run, ()),
                report=self._print_stderr,
            )
        )

    # -- for callers: never wait, never raise ----------------------------------------------------------------

    def start(self) -> bool:
        """Start the thread unless it runs. True: this call did.

        For the first line of a run also connect and send it. Starting a thread is impossible while the interpreter
        shuts down: then `finish` does the thread's work.
        """
        if self._closing:
            return False
        started = False
        first = self.state == "idle"
        try:
            del self._thread_baton[0]
        except IndexError:
            pass  # it runs
        else:
            try:
                if first:
                    self._connect_in_call()
                _unpatched("_thread", "start_new_thread")(self._run_thread, ())
            except BaseException as error:
                self._thread_baton += (None,)  # not a call: those fail at the recursion limit
                if not isinstance(error, Exception):
                    raise
                return False
            started = True
        self._out.sender_started()
        if self._thread_baton:  # it ended just now; the next call starts another
            self._out.sender_ended()
        if started and first:
            # Only now: without a thread that reads the acks no caller may send by itself. And not left to the thread,
            # which gets the interpreter only when this one waits.
            self._out.publish(self._send_in_call, True)
        return started

    @property
    def running(self) -> bool:
        """Whether the thread runs (or is about to)."""
        return not self._thread_baton

    @property
    def given_up(self) -> int:
        """Connections that were open and dead, and given up."""
        return self._keepalive.given_up

    def wake(self) -> None:
        """Make the thread look at the outbox. Safe in a signal handler and with the baton taken."""
        self._wakeup.set()

    def abandon(self) -> None:
        """Let the thread end once everything is sent, or `exit_timeout` has passed: nobody logs here any more."""
        self._abandoned = True
        if self._spool is not None and not self.running:
            self._end_spool(True)
        self.wake()

    def forget_in_child(self) -> None:
        """Drop the descriptors in a forked child: close, never shut down what is the parent's."""
        self._closing = True
        self.state = "closed"
        self._out.stop_direct()
        opening, self._opening = self._opening, None
        if opening is not None and opening.sock is not self._sock and is_marked(opening.sock.fileno(), opening.mark):
            opening.sock.close()
        self._close_socket()
        self._wakeup.close()
        if self._recovery is not None:
            self._recovery.forget_in_child()
        if self._spool is not None:
            self._spool.close()

    # -- for those who may wait ------------------------------------------------------------------------------

    def note_failure(self, why: str) -> None:
        """Note why the run ends, which is a failure, before `finish`. The relay is told with the bye."""
        self.failure = why

    def flush(self, timeout: float) -> bool:
        """Wait until every line has been acked or told as lost, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self.wake()
        return self._wait_until(self._all_acked, deadline)

    def finish(self, timeout: float, *, close: bool) -> bool:
        """Send what is there and a bye, and wait for the acks. True: all is in the journal.

        At most `timeout` seconds. With `close` the connection and the thread end here; without it, later
        lines are still sent, each followed by a new bye. A relay that was never met gets one attempt, not the
        whole budget.
        """
        deadline = time.monotonic() + timeout
        self._finishing = True
        try:
            if self._out.dirty:
                self._out.run_alone(self._out.repair)
            self._out.delegate(self._out.stop_direct)
        except TimeoutError:
            return False
        self._next_try = 0.0
        self.wake()
        done = self._wait_until(self._all_acked_after_bye, deadline)
        if self._recovery is not None and done:
            self._wait_until(self._is_recovered, deadline)
        if self._spool is not None:
            with contextlib.suppress(TimeoutError):
                self._out.delegate(self._end_spool, close)
        if close:
            self._closing = True
            self.wake()
            self._wait_until(lambda: not self.running, time.monotonic() + self._exit_timeout)
            if not self.running:
                self._out.delegate(self._lose_connection)
                self._wakeup.close()
                self.state = "closed"
        return done

    def run_apart(self, work: Callable[[], None], timeout: float) -> bool:
        """Have the thread run `work()`, which may never return, and take its turns meanwhile. True: it is done.

        At most `timeout` seconds; nobody waits for what is not done by then. At its end the interpreter starts no
        thread any more: where there is none, nothing is run.
        """
        if not self.running and not self.start():
            return False
        done: list[bool] = []

        def run() -> None:
            try:
                work()
            except BaseException:  # the thread has nobody to tell
                pass
            finally:
                done.append(True)
                self.wake()

        self._work = run
        self.wake()
        try:
            self._wait_until(lambda: bool(done), time.monotonic() + timeout)
        finally:
            self._work = None  # also where the wait is interrupted
        return bool(done)

    def _is_recovered(self) -> bool:
        return self._recovery is None or not self._recovery.running

    def _end_spool(self, close: bool) -> None:
        """Leave the file to the next run, or remove it if everything is in the journal."""
        if self._spool is not None:
            everything = self._all_acked() and not self._out.inbox
            self._spool.ended(everything=everything, has_failed=bool(self.failure))
            if close:
                self._spool.close()

    def _all_acked(self) -> bool:
        return self._out.pending() == 0 and not self._out.unsent()

    def _all_acked_after_bye(self) -> bool:
        return self._all_acked() and self._out.seq in {0, self._bye_for}

    def _wait_until(self, done: Callable[[], bool], deadline: float) -> bool:
        pause = WAIT_FIRST_S
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._finishing and not self._welcomed and self.state == "down" and self._next_try > 0:
                return False
            if self._out.seq or self._out.inbox:
                self.start()
            if self.running and not self._is_away:
                time.sleep(min(pause, left))
                pause = min(pause * 1.5, WAIT_LONGEST_S)
            else:
                try:
                    del self._turn_baton[0]
                except IndexError:
                    time.sleep(min(pause, left))
                    continue
                try:
                    self._turn(min(left, WAIT_LONGEST_S))
                finally:
                    self._turn_baton += (None,)
        return True

    # -- the thread ------------------------------------------------------------------------------------------

    def _run_thread(self) -> None:
        try:
            del self._turn_baton[0]
        except IndexError:
            return
        try:
            self.serve()
        except BaseException:
            pass
        finally:
            if not self._is_away:
                self._turn_baton += (None,)
            self._is_away = False
            self._end_thread()

    def serve(self) -> None:
        """Take turns until closed or abandoned. Whatever hits it costs the connection, not the lines."""
        give_up: float | None = None
        while not self._closing:
            try:
                if self._work is not None or self._is_away:
                    self._do_work()
                self._turn(TICK_S)
                if self._abandoned:
                    if not self._finishing:
                        self._finishing = True
                        self._out.delegate(self._out.stop_direct)  # nobody sends any more: the bye is ours to send
                    now = time.monotonic()
                    give_up = now + self._exit_timeout if give_up is None else give_up
                    if self._all_acked_after_bye():
                        return
                    if now >= give_up:
                        self.print_summary("after its processor was thrown away")
                        return
            except BaseException as error:  # the thread has no caller to tell; an exception thrown in must not end it
                self.link_errors += 1
                self._last_error = f"{type(error).__name__} in the sender thread"
                self._out.break_connection()
                self._out.stop_direct()
                # Not at once: an exception that comes back every time must not eat a core.
                self._next_try = time.monotonic() + RETRY_FIRST_S

    def _do_work(self) -> None:
        """Run what is to be run, without the turn baton. Begun again after an interruption, it only takes that back."""
        work, self._work = self._work, None
        if work is not None and not self._is_away:
            self._is_away = True
            self._turn_baton += (None,)
            work()
        while self._is_away and not self._closing:
            try:
                del self._turn_baton[0]
                self._is_away = False  # no call in between: an interruption finds both or neither
            except IndexError:
                time.sleep(WAIT_FIRST_S)

    def _end_thread(self) -> None:
        """Close what the thread has opened, and let a later call start another one."""
        try:
            if self._out.dirty:
                self._out.run_alone(self._out.repair)
            self._out.delegate(self._lose_connection)
            if self._closing or self._abandoned:
                self._wakeup.close()
                if self._recovery is not None:
                    self._recovery.stop()
                self._out.delegate(self._end_spool, True)
        finally:
            self.state = "closed" if self._closing else "down"
            # In this order: whoever starts the next thread in between only has to say so once more.
            self._thread_baton += (None,)
            self._out.sender_ended()

    def _turn(self, most: float) -> None:
        """Do what is due, wait at most `most` seconds for something to happen, and serve that."""
        out = self._out
        with contextlib.suppress(OSError):
            self._wakeup.open()  # first: nobody can wake us before, so whatever there is to do is looked at behind it
        if out.dirty:
            out.run_alone(out.repair)
        if out.broken:
            self._fail("interrupted", blameless=True)
        out.combine()
        if self._is_low:
            self._move_connection()
        now = time.monotonic()
        if self._sock is None and now >= self._next_try:
            self._connect(now)
        if self._recovery is not None and self.state == "up":
            self._recovery.start(now)
        if self._spool is not None and self._spool.failure and not self._spool_told:
            self._spool_told = True
            self._print_stderr(f"no spool in {self._spool.folder} ({self._spool.failure}); going on without it")
        want_write = self._sock is not None and self._send_backlog()
        self._wait(most, want_write)

    def _wait(self, most: float, want_write: bool) -> None:
        poll = _unpatched("select", "poll")()
        if self._wakeup.fd >= 0:
            poll.register(self._wakeup.fd, select.POLLIN)
        else:
            most = min(most, RETRY_FIRST_S)  # no descriptor to be had: look again soon
        if self._closing or (self._abandoned and not self._finishing):
            most = 0.0  # said before there was anything to wake us with
        now = time.monotonic()
        if self._sock is None:
            most = min(most, max(self._next_try - now, 0.0))
        else:
            poll.register(self._fd, select.POLLIN | (select.POLLOUT if want_write else 0))
            if self.state == "greeting":
                most = min(most, max(self._deadline - now, 0.0))
            most = min(most, self._keepalive.wait_s(now))
        ready = poll.poll(most * 1000)
        after = time.monotonic()
        self._keepalive.waited(after - now, most_s=most)
        if self._sock is not None and all(fd != self._fd or events == select.POLLOUT for fd, events in ready):
            self._look_for_silence(after)  # there is nothing to read
        for fd, events in ready:
            if fd == self._wakeup.fd:
                self._wakeup.clear()
            elif fd == self._fd and self._sock is not None:
                if not is_marked(self._fd, self._mark):
                    self._fail("the descriptor was closed by somebody else", blameless=True)
                elif events & ~select.POLLOUT:
                    self._read_answers()

    def _look_for_silence(self, now: float) -> None:
        """Ping a relay that has been silent, or give the connection up. Its socket has just had nothing to read."""
        if self.state == "greeting":
            if now >= self._deadline:
                self._look_elsewhere(now)
            return
        due = self._keepalive.due(now)
        if due == "ping":
            self._out.delegate(self._send_small, frames.PING)
        elif due == "dead":
            self._fail(f"the relay was silent for {self._keepalive.dead_s:.0f} s", blameless=True)

    # -- connecting ------------------------------------------------------------------------------------------

    def _connect_in_call(self) -> None:
        """Connect and send what is queued, in the call that logged a run's first line, which is then in the kernel.

        Never waits and raises no Exception: what cannot be done now the thread does, and tells a person about it.
        """
        try:
            del self._turn_baton[0]
        except IndexError:
            return
        try:
            self._take_connection(self._dial(high=False), time.monotonic(), first=True)
        except Exception:
            return
        finally:
            self._turn_baton += (None,)  # not a call: those fail at the recursion limit
        self._out.publish(self._send_in_call, False)

    def _connect(self, now: float) -> None:
        """Connect, in the thread; if it fails plan the next attempt."""
        try:
            made = self._dial(high=True)
        except Exception as error:
            self._last_error = f"{type(error).__name__}: {error}"
            self._schedule_retry(time.monotonic())  # the attempt itself may have taken long
            return
        self._take_connection(made, now, first=False)

    def _connect_apart(self) -> tuple[_socket.socket, Mark]:
        """Return a connection that is not this run's, and its mark. Raises OSError."""
        path = self._path if self._path is not None else default_path()
        _check_directory(path)
        sock = _unpatched("_socket", "socket")(_socket.AF_UNIX, _socket.SOCK_STREAM | SOCKET_FLAGS)
        try:
            refuse_sigpipe(sock)
            marked = mark(sock.fileno())
            sock.settimeout(0.0)  # a full queue is an error, not a wait
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock, marked

    def _dial(self, *, high: bool) -> Connection:
        """Return a connection on which hello has been said; raises an Exception where there is none.

        With `high` its descriptor has a high number, for which the kernel may keep us waiting; else it never waits.
        """
        path = self._path if self._path is not None else default_path()
        self.state = "connecting"
        _check_directory(path)
        place = _place_of(path)  # first: a socket that is replaced in between is found to be another later on
        kind = _unpatched("_socket", "socket")
        sock = kind(_socket.AF_UNIX, _socket.SOCK_STREAM | SOCKET_FLAGS)
        if high:
            sock = kind(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, move_high(sock.detach()))
        try:
            sock.settimeout(0.0)  # whatever socket.setdefaulttimeout says
            refuse_sigpipe(sock)
            with contextlib.suppress(OSError):
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, KERNEL_BUFFER)
            self._opening = made = Connection(sock, mark(sock.fileno()), place)
            sock.connect(path)
            first = self._make_hello(self.failure) if self.failure else self._make_hello()
            if sock.send(first, SEND_FLAGS) != len(first):
                raise BlockingIOError(errno.EAGAIN, "no room for hello")  # noqa: TRY301
        except BaseException:
            self._opening = None
            sock.close()
            raise
        return made

    def _take_connection(self, made: Connection, now: float, *, first: bool) -> None:
        """Make it the connection: lines may follow at once. `first`: the run has had no other."""
        try:
            if not first:
                # Before anybody can send on it: the lines of the last connection go first.
                self._out.delegate(self._out.reconnected)
            decoder, fd = frames.Decoder(), made.sock.fileno()
            self._keepalive.begin(now)
        except BaseException:
            self._opening = None
            made.sock.close()
            raise
        # No call from here on: an interruption finds the connection taken or not. The socket comes last, because who
        # sends looks at it first.
        self._decoder = decoder
        self._deadline = now + WELCOME_TIMEOUT_S
        self._bye_for = -1
        self._last_error = ""
        self._place = made.place
        self._mark = made.mark
        self._fd = fd
        self._is_low = first
        self.state = "greeting"
        self._sock = made.sock
        self._opening = None

    def _move_connection(self) -> None:
        """Give the connection that a call has made a high number, in the thread."""
        self._is_low = False
        place = self._place
        moved = duplicate_high(self._fd) if is_marked(self._fd, self._mark) else -1
        if moved >= 0:
            sock = _unpatched("_socket", "socket")(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, moved)
            self._opening = Connection(sock, self._mark, place)
            try:
                sock.settimeout(0.0)
                self._out.delegate(self._use_moved, sock)
            finally:
                self._opening = None
                if self._sock is not sock:
                    sock.close()

    def _use_moved(self, sock: _socket.socket) -> None:
        """Send on `sock` from now on, which is the same connection. With the baton: nobody sends meanwhile."""
        out, old = self._out, self._sock
        fd = sock.fileno()
        if old is None or not is_marked(fd, self._mark):
            return
        if out.direct_send is not None:
            out.start_direct(self._send_with_bye if self._finishing else sock.send, fd, self._mark)
        ours = is_marked(self._fd, self._mark)
        self._sock, self._fd = sock, fd
        if ours:
            old.close()
        else:
            old.detach()

    def _look_elsewhere(self, now: float) -> None:
        """Give up a connection that was never answered if the path leads to another socket by now.

        If not, another connection would only stand behind this one in the same queue, and what was sent on this one is
        read when the relay comes to it, even if this process is gone by then. It is given up all the same after a time
        that grows: a tunnel whose network is dead takes connections and never comes to them.
        """
        place = _place_of(self._path if self._path is not None else default_path())
        if place is not None and place != self._place:
            self._fail("no welcome", blameless=True)
            return
        if place is not None and not self._keepalive.has_patience(now):
            self._fail("no welcome", blameless=True)
            return
        self._deadline = now + WELCOME_TIMEOUT_S
        self._last_error = "it does not answer"
        self._report_absence(now, "waiting")

    def _schedule_retry(self, now: float, delay: float | None = None) -> None:
        """Plan the next attempt, and tell a person now and then."""
        if delay is None:
            delay = self._retry_delay * _between(0.6, 1.0)
            self._retry_delay = min(self._retry_delay * 2, RETRY_LONGEST_S)
        self._next_try = now + delay
        self.state = "refused" if self.refusal else "down"
        self._report_absence(now, "trying again")

    def _report_absence(self, now: float, doing: str) -> None:
        """Tell a person that no relay takes the lines, at most once in `REPORT_EVERY_S`."""
        if self._down_since is None:
            self._down_since = now
        if self._reported_at is None or now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            where = self._path if self._path is not None else default_path()
            remedy = REMEDIES.get(self._last_error.partition(":")[0], "")
            self._print_stderr(f"no relay at {where} ({self._last_error}); {self._counts()}; {doing}{remedy}")

    def _fail(self, why: str, *, blameless: bool = False) -> None:
        """Give up the connection; its lines are in doubt until the next welcome. `blameless`: no line is the cause."""
        if not blameless and self.state in {"up", "greeting"}:
            self._count_loss()
        self._last_error = why
        self._out.delegate(self._lose_connection)
        self._schedule_retry(time.monotonic(), RETRY_REFUSED_S * _between(0.8, 1.2) if self.refusal else None)

    def _lose_connection(self) -> None:
        self._out.stop_direct()
        self._close_socket()
        self._out.connection_lost()

    def _count_loss(self) -> None:
        """Remember at which line connections end: one that ends them all must not stop the others."""
        out = self._out
        if not out.outstanding() or self._relay_outlived:
            return  # a relay that cannot commit, on a full disk, acks nothing; its next restart is no line's doing
        first = out.first_unacked()
        self._losses = self._losses + 1 if first == self._suspect_seq else 1
        self._losses_alone = self._losses_alone + 1 if self._cautious and first == self._suspect_seq else 0
        self._suspect_seq = first
        if self._losses >= MAX_LOSSES and self._losses_alone >= MAX_LOSSES_ALONE:
            out.delegate(out.reject, first, "rejected_repeatedly", "rejected_repeatedly")
            self._losses = self._losses_alone = 0
        self._cautious = self._losses >= MAX_LOSSES - MAX_LOSSES_ALONE

    # -- listening -------------------------------------------------------------------------------------------

    def _read_answers(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            data = sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"{type(error).__name__}: {error}", blameless=self._keepalive.was_late)
            return
        if not data:
            self._fail("the relay closed the connection", blameless=self._keepalive.was_late)
            return
        self._keepalive.heard(time.monotonic())
        for answer in self._decoder.feed(data):
            self._handle_answer(answer)
            if self._sock is None:
                return

    def _handle_answer(self, answer: frames.Answer) -> None:
        out = self._out
        if isinstance(answer, frames.Welcome):
            if self.state != "greeting":
                out.count_bad_answer()
                self._fail("a second welcome")
            elif answer.acked > out.seq:
                self.refusal = f"the relay says it has line {answer.acked} of a run that has {out.seq}"
                self._fail(self.refusal, blameless=True)
            else:
                self._keepalive.welcomed(answer.ping_s, answer.dead_s, time.monotonic())
                self._on_welcome(answer.acked)
        elif isinstance(answer, frames.Ack) and self.state == "up":
            before = out.acked
            self._release(answer.seq)
            if out.acked != before:
                self._losses = self._losses_alone = 0
                if self._cautious and out.first_unacked() > self._suspect_seq:
                    self._cautious = False
        elif isinstance(answer, frames.Reject) and self.state == "up":
            known = answer.seq <= out.acked_seq  # sent again before the welcome, and rejected again
            if not out.delegate(out.reject, answer.seq, "rejected", "rejected_repeatedly") and not known:
                out.count_bad_answer()
        elif isinstance(answer, frames.Ping):
            self._relay_outlived = self.state == "up"
            out.delegate(self._send_small, frames.PONG)
        elif isinstance(answer, frames.Pong):
            self._relay_outlived = self.state == "up"
        elif isinstance(answer, frames.Refused):
            self.refusal = answer.reason or "refused"
            self._fail(f"refused: {answer.reason}", blameless=self.state != "up")
        else:
            out.count_bad_answer()
            self._fail(f"the relay answers nonsense ({answer})", blameless=self.state != "up")

    def _on_welcome(self, acked: int) -> None:
        """Release what the relay has, and decide what was in doubt. The lines are on their way already."""
        out = self._out
        before = out.acked
        self._release(acked)
        out.delegate(out.welcomed)
        if out.acked != before:
            self._losses = self._losses_alone = 0
            self._cautious = self._cautious and out.first_unacked() <= self._suspect_seq
        self.refusal = ""
        self._relay_outlived = False
        self.state = "up"
        self._welcomed += 1
        if self._welcomed > 1:
            self.reconnects += 1
        self._retry_delay = RETRY_FIRST_S
        self._last_error = ""
        if self._recovery is not None:
            self._recovery.start(time.monotonic(), soon=True)
        if self._down_since is not None:
            away = time.monotonic() - self._down_since
            self._down_since = None
            if self._reported_at is not None and away > RETRY_LONGEST_S:
                self._print_stderr(f"the relay is back after {away:.1f} s; {self._counts()}")

    def _release(self, seq: int) -> None:
        """Forget what is acked, in slices, letting callers in between."""
        out = self._out
        while out.delegate(out.release, seq):
            time.sleep(0)

    # -- sending ---------------------------------------------------------------------------------------------

    def _send_backlog(self) -> bool:
        """Give the kernel what it takes. True: there is more, wait until it takes again."""
        for _ in range(BATCHES_PER_TURN):
            outcome = self._out.delegate(self._send_batch)
            self._out.combine()
            if outcome is not None:
                return outcome and self._sock is not None
        return True  # poll returns at once: the answers get their turn

    def _send_in_call(self, direct: bool) -> None:
        """Send what a run has in its first moment, in whatever thread has the baton; see `_send_batch` for `direct`."""
        try:
            for _ in range(BATCHES_PER_TURN):
                if self._send_batch(direct=direct) is not None:
                    break
        except BaseException:
            self._out.break_connection()  # nobody knows what was sent
            raise

    def _send_batch(self, *, direct: bool = True) -> bool | None:
        """One batch. None: go on; True: the kernel is full; False: nothing is left (or the connection is).

        With `direct`, callers send themselves once nothing is left.
        """
        out = self._out
        sock = self._sock
        if sock is None or out.broken or out.dirty or (self._cautious and self.state != "up"):
            return False
        if out.direct_send is not None:
            return False
        out.admit_inbox()
        if not out.to_write:
            if self._cautious and out.outstanding():
                return False
            out.fill(1 if self._cautious else SLICE_FRAMES)
        if not out.to_write:
            if out.unsent():
                return False  # what comes next is in doubt, and the welcome will wake us
            if not self._finishing or self._bye_for == out.seq or not out.seq:
                if direct and not self._cautious:
                    out.start_direct(self._send_with_bye if self._finishing else sock.send, self._fd, self._mark)
                return False
            self._bye_for = out.seq
            out.append_bye(self._make_hello(self.failure) if self.failure else b"")
        if not is_marked(self._fd, self._mark):
            out.break_connection()
            self.wake()
            return False
        try:
            taken = sock.send(out.to_write, SEND_FLAGS)
        except BlockingIOError:
            return True
        except OSError:
            return False  # poll reports it as well, and there it is dealt with
        out.written(taken)
        return True if out.to_write else None

    def _send_small(self, frame: bytes) -> None:
        """Send a ping or a pong between two lines, with the baton; not while the kernel takes no bytes.

        A relay that does not read leaves the socket full, does not expect to hear of us, and pings us by itself.
        """
        out, sock = self._out, self._sock
        if sock is None or out.to_write or out.broken or out.dirty or not is_marked(self._fd, self._mark):
            return
        try:
            taken = sock.send(frame, SEND_FLAGS)
        except OSError:
            return  # full, or ended, which poll reports as well
        if taken != len(frame):
            out.break_connection()
            self.wake()

    def _send_with_bye(self, data: bytes, flags: int) -> int:
        """Send a line that came after the bye, and the bye again; otherwise like the socket's send."""
        sock = self._sock
        if sock is None:
            raise BrokenPipeError(errno.EPIPE, "no connection")
        # Not frames.bye: objects that are torn down at the very end still log, when modules are already empty.
        last = b"\x92\x03\xcf" + self._out.seq.to_bytes(8, "big")
        taken = sock.send(data + last, flags)
        self._bye_for = self._out.seq
        if len(data) <= taken < len(data) + len(last):
            self._out.break_connection()  # half a bye cannot be finished later: start over
            self.wake()
        return min(taken, len(data))

    def _close_socket(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if is_marked(self._fd, self._mark):
                sock.close()
            else:
                sock.detach()
        self._fd = self._mark = -1

    # -- for a person, on stderr ------------------------------------------------------------------------------------

    def _counts(self) -> str:
        out = self._out
        lost = sum(out.dropped.values())
        waiting = out.pending()
        lines, were = "line waits" if waiting == 1 else "lines wait", "was" if lost == 1 else "were"
        return f"{waiting} {lines}, {lost} {were} dropped"

    def print_summary(self, when: str = "at exit") -> None:
        """Print on stderr how many lines were not delivered and why, if any were not. `when` begins the text."""
        out = self._out
        unsent = out.unsent_lines()
        unconfirmed = out.pending() - unsent
        dropped = {cause: count for cause, count in out.dropped.items() if count}
        lost = unsent + sum(dropped.values())
        if not lost and unconfirmed <= 0:
            return
        reasons = []
        if unsent:
            reasons.append(f"{unsent} never left this process ({self._why()})")
        if dropped:
            told = ", ".join(f"{cause} {count}" for cause, count in dropped.items())
            reasons.append(f"{sum(dropped.values())} had been dropped ({told})")
        spool = self._spool
        if spool is not None and not spool.failure and out.pending() > 0 and spool.is_there():
            text = f"{out.pending()} of {out.produced()} lines NOT DELIVERED YET ({self._why()})"
            text += f": the next run sends them from {spool.path}"
            if dropped:
                text += f"; {reasons[-1]}"
        elif lost:
            text = f"{lost} of {out.produced()} lines NOT DELIVERED: {', '.join(reasons)}"
            if unconfirmed > 0:
                text += f"; {unconfirmed} more were sent, but never confirmed"
        else:
            text = f"{unconfirmed} of {out.produced()} lines perhaps NOT DELIVERED: sent, but never confirmed"
            text += f" ({self._why()})"
        self._print_stderr(f"{when}: {text}")

    def _why(self) -> str:
        """Say why lines are still here."""
        if self.refusal:
            return f"the relay refused: {self.refusal}"
        where = self._path if self._path is not None else default_path()
        if self._last_error:
            return f"no relay at {where}: {self._last_error}"
        return f"the relay at {where} did not take or confirm them in time"

    def _print_stderr(self, text: str) -> None:
        """Write one line to stderr if that can be done at once and it is still stderr."""
        try:
            if sys.stderr is None or _socket_inode(2) != self._stderr:
                return
            poll = _unpatched("select", "poll")()
            poll.register(2, select.POLLOUT)
            # With an error beside it nobody reads any more, and a write might end the process with SIGPIPE.
            if poll.poll(0) == [(2, select.POLLOUT)]:
                line = f"{__package__}[{os.getpid()}]: {text}".encode("utf-8", "backslashreplace")
                os.write(2, line[: STDERR_BYTES - 1] + b"\n")
        except Exception:
            pass


def _between(low: float, high: float) -> float:
    """Return a number for jitter. Not from `random`, whose state may be the strategy's seed."""
    return low + (high - low) * os.urandom(1)[0] / 255


def _unpatched(module: str, name: str) -> Any:
    """Return the standard library's own `module.name`, also after gevent has patched it."""
    patched = sys.modules.get("gevent.monkey")
    if patched is not None:
        return patched.get_original(module, name)
    return getattr(_MODULES[module], name)


_MODULES: Final = {"_socket": _socket, "_thread": _thread, "select": select}
"""Kept here: looking a module up by its name costs more than the call that is wanted from it."""


def _check_directory(path: str) -> None:
    """Refuse a socket in a per-user directory of a shared temp directory that another user may have made.

    Raises PermissionError. Other directories are made by an administrator or named on purpose.
    """
    parent = os.path.dirname(path)  # noqa: PTH120
    if os.path.basename(parent) != f"logrelay-{os.getuid()}":  # noqa: PTH119
        return
    seen = os.lstat(parent)
    if seen.st_uid != os.getuid() or seen.st_mode & 0o022 or not stat.S_ISDIR(seen.st_mode):
        raise PermissionError(errno.EACCES, "the directory belongs to or can be changed by another user", parent)


def _place_of(path: str) -> tuple[str, int, int, int] | None:
    """Return what tells the socket at `path` from one bound there later; None: there is no socket to be seen.

    Inode numbers are used again, so the time of the inode's last change is part of it.
    """
    try:
        seen = os.stat(path)  # noqa: PTH116 - as above
    except (OSError, ValueError):
        return None
    return (path, seen.st_dev, seen.st_ino, seen.st_ctime_ns) if stat.S_ISSOCK(seen.st_mode) else None


def _socket_inode(fd: int) -> tuple[int, int] | None:
    """Return which socket `fd` is, None for anything else; stderr may become another file."""
    try:
        seen = os.fstat(fd)
    except OSError:
        return None
    return (seen.st_dev, seen.st_ino) if stat.S_ISSOCK(seen.st_mode) else None
