"""The connection to the relay: one thread that connects, listens, sends the backlog and says what is wrong.

Owns: the socket, the wake-up descriptor, the thread, backoff, the handshake, the goodbye and the lines on
stderr. It must not know event dicts or levels, nor call structlog, logging or warnings: whatever goes wrong
here must never come back as a log line. Callers never wait for this thread; it takes the outbox's token in
short slices. Read `logrelay/ingest` next, the other end.

**Descriptors that change hands.** Code in the same process may close every descriptor (daemonising code
does), and the next socket it opens gets our number: writing on would send log lines to a broker. So our open
files carry a mark that the number alone does not have: the signal number of F_SETSIG, kept with the open file
and without effect as long as O_ASYNC is off. It is read back before each send (145 ns, a third of an fstat).
The descriptors also live at high numbers, where reuse is rare.

**Why `_thread` and `_socket`.** `threading.Thread.start` takes locks that a signal handler's log call would
find taken, and gevent replaces both modules' classes by cooperative ones. The originals have neither problem.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import importlib
import itertools
import os
import select
import stat
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from . import frames as wire
from .outbox import F_GETSIG, F_SETSIG, FLAGS, SLICE, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_FIRST: Final = 0.05
RETRY_MOST: Final = 0.8
"""Seconds before the second attempt, and the most between two: a relay that is back is found within a
second."""
RETRY_REFUSED: Final = 10.0
"""Seconds before asking again a relay that said no."""
HELLO_PATIENCE: Final = 10.0
"""Seconds to wait for the welcome. A stopped relay still accepts connections; it may be continued."""
TICK: Final = 1.0
"""Seconds between two looks around when nothing happens: mends what an interruption or a closed descriptor
left."""
KERNEL_BUFFER: Final = 4 * 1024 * 1024
"""Bytes asked for as send buffer (the kernel caps it): a relay that reads in pulses must not look stalled."""
BATCHES: Final = 32
"""Batches sent before the answers get their turn: about a megabyte."""
HEARD: Final = 65_536
"""Bytes read at once."""
DEATHS: Final = 5
"""Connections that must end at the same first unacked line before that line is given up ..."""
DEATHS_ALONE: Final = 3
"""... the last ones of them with nothing else on the wire."""
SAY_EVERY: Final = 60.0
"""Seconds between two stderr lines about an absent relay."""
TAGS: Final = range(40, 60)
"""Signal numbers used as marks: real-time signals that neither glibc (32 to 34) nor anybody's defaults
use."""
HIGH_FD: Final = 900
"""Where our descriptors go if the limit allows; higher would make the kernel's table grow."""

_marks = itertools.count()


def default_path() -> str:
    """Return where the relay listens, by the order in docs/protocol.md; looked up anew at every attempt."""
    told = os.environ.get("LOGRELAY_SOCKET")
    if told:
        return told
    if os.path.isdir("/run/logrelay"):  # noqa: PTH112 - pathlib would be one more import for three calls
        return "/run/logrelay/ingest.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return f"{runtime}/logrelay/ingest.sock"
    # A predictable name in a shared directory: `_safe` looks at whose it is before anything is sent there.
    return f"{os.environ.get('TMPDIR') or '/tmp'}/logrelay-{os.getuid()}/ingest.sock"  # noqa: S108


class Link:
    """One run's connection. `flush` and `finish` wait, the rest never does.

    `hello` makes the first frame; `path` is None for the default order.
    """

    def __init__(self, out: Outbox, *, path: str | None, hello: Callable[[], bytes], patience: float) -> None:
        self.out = out
        self.path = path
        self.hello = hello
        self.patience = patience
        self.state = "idle"
        """idle, connecting, greeting, up, down, refused or closed."""
        self.reconnects = 0
        self.failures = 0
        """Times the thread was hit by an exception it did not expect."""
        self.refusal = ""
        self.abandoned = False
        """The processor is gone: finish what is there, then leave."""
        self.finishing = False
        self.closing = False
        self._starter: list[None] = [None]
        self._driver: list[None] = [None]
        self._sock: _socket.socket | None = None
        self._fd = -1
        self._tag = -1
        self._bell = -1
        self._bell_tag = -1
        self._decoder = wire.Decoder()
        self._deadline = 0.0
        self._next_try = 0.0
        self._delay = RETRY_FIRST
        self._welcomed = 0
        self._trouble = ""
        self._away_since: float | None = None
        self._said_at: float | None = None
        self._stuck_at = 0
        self._deaths = 0
        self._alone = 0
        self._bye_for = -1
        self._stderr = _socket_inode(2)
        out.blocked = self.wake

    # -- for callers: never wait, never raise ----------------------------------------------------------------

    def start(self) -> bool:
        """Start the thread unless it runs. True: this call did.

        Impossible while the interpreter shuts down: then `finish` does the thread's work.
        """
        if self.closing:
            return False
        try:
            del self._starter[0]
        except IndexError:
            self.out.manned = True
            if self._starter:  # it ended just now; the next call starts another
                self.out.manned = False
            return False
        self.out.manned = True
        try:
            self._open_bell()
            _original("_thread", "start_new_thread")(_serve, (self,))
        except BaseException as error:
            self.out.manned = False
            self._starter += (None,)
            if not isinstance(error, Exception):
                raise
            return False
        return True

    @property
    def running(self) -> bool:
        """Whether the thread runs (or is about to)."""
        return not self._starter

    def wake(self) -> None:
        """Make the thread look at the outbox. Safe in a signal handler and with the token held."""
        bell = self._bell
        if bell < 0:
            return
        with contextlib.suppress(OSError):
            if fcntl.fcntl(bell, F_GETSIG) == self._bell_tag:
                os.eventfd_write(bell, 1)

    def forget(self) -> None:
        """Drop the descriptors in a forked child: close, never shut down what is the parent's."""
        self.closing = True
        self.state = "closed"
        self.out.direct = None
        self._close_socket()
        self._close_bell()

    # -- for those who may wait ------------------------------------------------------------------------------

    def flush(self, timeout: float) -> bool:
        """Wait until every line has been acked or told as lost, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self.wake()
        return self._until(self._settled, deadline)

    def finish(self, timeout: float, *, close: bool) -> bool:
        """Send what is there and a bye, and wait for the acks. True: all is in the journal.

        At most `timeout` seconds. With `close` the connection and the thread end here; without it, later
        lines are still sent, each followed by a new bye. A relay that was never met gets one attempt, not the
        whole budget.
        """
        deadline = time.monotonic() + timeout
        self.finishing = True
        try:
            if self.out.dirty:
                self.out.alone(self.out.repair)
            self.out.locked(self._stop_direct)
        except TimeoutError:
            return False
        self._next_try = 0.0
        self.wake()
        done = self._until(self._gone, deadline)
        if close:
            self.closing = True
            self.wake()
            self._until(lambda: not self.running, time.monotonic() + self.patience)
            if not self.running:
                self.out.locked(self._lose_connection, "closed")
                self._close_bell()
                self.state = "closed"
        return done

    def _settled(self) -> bool:
        return self.out.pending() == 0 and not self.out.unsent()

    def _gone(self) -> bool:
        return self._settled() and self.out.seq in {0, self._bye_for}

    def _until(self, done: Callable[[], bool], deadline: float) -> bool:
        nap = 0.0005
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self.finishing and not self._welcomed and self.state == "down" and self._next_try > 0:
                return False
            if self.out.seq or self.out.inbox:
                self.start()
            if self.running:
                time.sleep(min(nap, left))
                nap = min(nap * 1.5, 0.02)
            else:
                try:
                    del self._driver[0]
                except IndexError:
                    time.sleep(min(nap, left))
                    continue
                try:
                    self._turn(min(left, 0.02))
                finally:
                    self._driver += (None,)
        return True

    # -- the thread ------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run until closed or abandoned. Whatever hits it costs the connection, not the lines."""
        give_up: float | None = None
        while not self.closing:
            try:
                self._turn(TICK)
                if self.abandoned:
                    self.finishing = True
                    now = time.monotonic()
                    give_up = now + self.patience if give_up is None else give_up
                    if self._gone() or now >= give_up:
                        return
            except BaseException as error:  # the thread has no caller to tell; an exception thrown in must not end it
                self.failures += 1
                self._trouble = f"{type(error).__name__} in the sender thread"
                self.out.broken = True
                self.out.direct = None
                # Not at once: an exception that comes back every time must not eat a core.
                self._next_try = time.monotonic() + RETRY_FIRST

    def leave(self) -> None:
        """Undo what the thread holds at its end, and let a later call start another one."""
        try:
            if self.out.dirty:
                self.out.alone(self.out.repair)
            self.out.locked(self._lose_connection, "thread ended")
            if self.closing or self.abandoned:
                self._close_bell()
        finally:
            self.state = "closed" if self.closing else "down"
            self.out.manned = False
            self._starter += (None,)

    def _turn(self, most: float) -> None:
        """Do what is due, wait at most `most` seconds for something to happen, and serve that."""
        out = self.out
        if out.dirty:
            out.alone(out.repair)
        if out.broken:
            self._fail("interrupted", ours=True)
        out.settle_inbox()
        self._open_bell()
        now = time.monotonic()
        if self._sock is None and now >= self._next_try:
            self._connect(now)
        elif self.state == "greeting" and now >= self._deadline:
            self._fail("no welcome")
        eager = self.state == "up" and self._drain()
        self._wait(most, eager)

    def _wait(self, most: float, eager: bool) -> None:
        poll = _original("select", "poll")()
        if self._bell >= 0:
            poll.register(self._bell, select.POLLIN)
        now = time.monotonic()
        if self._sock is None:
            most = min(most, max(self._next_try - now, 0.0))
        else:
            poll.register(self._fd, select.POLLIN | (select.POLLOUT if eager else 0))
            if self.state == "greeting":
                most = min(most, max(self._deadline - now, 0.0))
        for fd, events in poll.poll(most * 1000):
            if fd == self._bell:
                self._hush()
            elif fd == self._fd and self._sock is not None:
                if not self._is_ours():
                    self._fail("the descriptor was closed by somebody else")
                elif events & ~select.POLLOUT:
                    self._listen()

    # -- connecting ------------------------------------------------------------------------------------------

    def _connect(self, now: float) -> None:
        sock = None
        try:
            path = self.path if self.path is not None else default_path()
            self.state = "connecting"
            _safe(path)
            kind = _original("_socket", "socket")
            sock = kind(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
            sock = _raised(kind, sock)
            sock.settimeout(0.0)  # whatever socket.setdefaulttimeout says
            with contextlib.suppress(OSError):
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, KERNEL_BUFFER)
            tag = TAGS[next(_marks) % len(TAGS)]
            fcntl.fcntl(sock.fileno(), F_SETSIG, tag)
            sock.connect(path)
            first = self.hello()
            if sock.send(first, FLAGS) != len(first):
                raise BlockingIOError(errno.EAGAIN, "no room for hello")  # noqa: TRY301
        except Exception as error:
            if sock is not None:
                sock.close()
            self._trouble = f"{type(error).__name__}: {error}"
            self._later(now)
            return
        self._sock, self._fd, self._tag = sock, sock.fileno(), tag
        self._decoder = wire.Decoder()
        self._deadline = now + HELLO_PATIENCE
        self.state = "greeting"

    def _later(self, now: float, delay: float | None = None) -> None:
        """Plan the next attempt, and tell a person now and then."""
        if delay is None:
            delay = self._delay * _between(0.6, 1.0)
            self._delay = min(self._delay * 2, RETRY_MOST)
        self._next_try = now + delay
        self.state = "refused" if self.refusal else "down"
        if self._away_since is None:
            self._away_since = now
        if self._said_at is None or now - self._said_at >= SAY_EVERY:
            self._said_at = now
            where = self.path if self.path is not None else default_path()
            self._say(f"no relay at {where} ({self._trouble}); {self._sums()}; trying again")

    def _fail(self, why: str, *, ours: bool = False) -> None:
        """Give up the connection; its lines are in doubt until the next welcome."""
        if self.state == "up" and not ours:
            self._suspect()  # no line is to blame for what happened on this side
        self._trouble = why
        self.out.locked(self._lose_connection, why)
        self._later(time.monotonic(), RETRY_REFUSED * _between(0.8, 1.2) if self.refusal else None)

    def _lose_connection(self, _why: str) -> None:
        out = self.out
        self._stop_direct()
        out.rest = b""
        out.fd = out.tag = -1
        self._close_socket()
        out.broken = False

    def _stop_direct(self) -> None:
        out = self.out
        if out.direct is not None:
            out.wired = max(out.wired, out.seq)
            out.direct = None

    def _suspect(self) -> None:
        """Remember at which line connections end: one that ends them all must not stop the others."""
        out = self.out
        if not out.outstanding():
            return
        first = out.first()
        self._deaths = self._deaths + 1 if first == self._stuck_at else 1
        self._alone = self._alone + 1 if out.cautious and first == self._stuck_at else 0
        self._stuck_at = first
        if self._deaths >= DEATHS and self._alone >= DEATHS_ALONE:
            out.locked(out.rejected, first, "rejected_repeatedly", "rejected_repeatedly")
            self._deaths = self._alone = 0
        out.cautious = self._deaths >= DEATHS - DEATHS_ALONE

    # -- listening -------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            data = sock.recv(HEARD)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"{type(error).__name__}: {error}")
            return
        if not data:
            self._fail("the relay closed the connection")
            return
        for answer in self._decoder.feed(data):
            self._hear(answer)
            if self._sock is None:
                return

    def _hear(self, answer: wire.Answer) -> None:
        out = self.out
        if isinstance(answer, wire.Welcome):
            if self.state != "greeting":
                out.heard_wrong += 1
                self._fail("a second welcome")
            elif answer.acked > out.seq:
                self.refusal = f"the relay says it has line {answer.acked} of a run that has {out.seq}"
                self._fail(self.refusal)
            else:
                self._begin(answer.acked)
        elif isinstance(answer, wire.Ack) and self.state == "up":
            before = out.acked
            self._release(answer.seq)
            if out.acked != before:
                self._deaths = self._alone = 0
                if out.cautious and out.first() > self._stuck_at:
                    out.cautious = False
        elif isinstance(answer, wire.Reject) and self.state == "up":
            if not out.locked(out.rejected, answer.seq, "rejected", "rejected_repeatedly"):
                out.heard_wrong += 1
        elif isinstance(answer, wire.Refused):
            self.refusal = answer.reason or "refused"
            self._fail(f"refused: {answer.reason}")
        else:
            out.heard_wrong += 1
            self._fail(f"the relay answers nonsense ({answer})")

    def _begin(self, acked: int) -> None:
        """Settle what was in doubt and start sending."""
        out = self.out
        before = out.acked
        self._release(acked)
        out.locked(out.reconnected)
        if out.acked != before:
            self._deaths = self._alone = 0
            out.cautious = out.cautious and out.first() <= self._stuck_at
        self.refusal = ""
        self.state = "up"
        self._welcomed += 1
        if self._welcomed > 1:
            self.reconnects += 1
        self._delay = RETRY_FIRST
        self._bye_for = -1
        if self._away_since is not None:
            away = time.monotonic() - self._away_since
            self._away_since = None
            if self._said_at is not None and away > RETRY_MOST:
                self._say(f"the relay is back after {away:.1f} s; {self._sums()}")

    def _release(self, seq: int) -> None:
        """Forget what is acked, in slices, letting callers in between."""
        out = self.out
        while out.locked(out.release, seq):
            time.sleep(0)

    # -- sending ---------------------------------------------------------------------------------------------

    def _drain(self) -> bool:
        """Give the kernel what it takes. True: there is more, wait until it takes again."""
        for _ in range(BATCHES):
            outcome = self.out.locked(self._drain_some)
            self.out.settle_inbox()
            if outcome is not None:
                return outcome and self._sock is not None
        return True  # poll returns at once: the answers get their turn

    def _drain_some(self) -> bool | None:
        """One batch. None: go on; True: the kernel is full; False: nothing is left (or the connection is)."""
        out = self.out
        sock = self._sock
        if sock is None or out.broken or out.dirty:
            return False
        if out.direct is not None:
            return False
        out.absorb()
        if not out.rest:
            if out.cautious and out.outstanding():
                return False
            out.fill(1 if out.cautious else SLICE)
        if not out.rest:
            if not self.finishing or self._bye_for == out.seq or not out.seq:
                if not out.cautious:
                    out.fd, out.tag = self._fd, self._tag
                    out.direct = self._send_last if self.finishing else sock.send
                return False
            self._bye_for = out.seq
            out.rest = wire.bye(out.seq)
        if not self._is_ours():
            out.broken = True
            self.wake()
            return False
        try:
            taken = sock.send(out.rest, FLAGS)
        except BlockingIOError:
            return True
        except OSError:
            return False  # poll reports it as well, and there it is dealt with
        out.rest = out.rest[taken:]
        return True if out.rest else None

    def _send_last(self, data: bytes, flags: int) -> int:
        """Send a line that came after the bye, and the bye again; otherwise like the socket's send."""
        sock = self._sock
        if sock is None:
            raise BrokenPipeError(errno.EPIPE, "no connection")
        # Not wire.bye: objects that are torn down at the very end still log, when modules are already empty.
        last = b"\x92\x03\xcf" + self.out.seq.to_bytes(8, "big")
        taken = sock.send(data + last, flags)
        self._bye_for = self.out.seq
        if len(data) <= taken < len(data) + len(last):
            self.out.broken = True  # half a bye cannot be finished later: start over
            self.wake()
        return min(taken, len(data))

    # -- descriptors -----------------------------------------------------------------------------------------

    def _is_ours(self) -> bool:
        try:
            return fcntl.fcntl(self._fd, F_GETSIG) == self._tag
        except OSError:
            return False

    def _close_socket(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if self._is_ours():
                sock.close()
            else:
                sock.detach()
        self._fd = self._tag = -1

    def _open_bell(self) -> None:
        if self._bell >= 0:
            with contextlib.suppress(OSError):
                if fcntl.fcntl(self._bell, F_GETSIG) == self._bell_tag:
                    return
        low = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        bell = _high(low)
        tag = TAGS[next(_marks) % len(TAGS)]
        fcntl.fcntl(bell, F_SETSIG, tag)
        self._bell_tag = tag
        self._bell = bell

    def _hush(self) -> None:
        with contextlib.suppress(OSError):
            if fcntl.fcntl(self._bell, F_GETSIG) == self._bell_tag:
                os.eventfd_read(self._bell)
                return
        self._bell = -1

    def _close_bell(self) -> None:
        bell, self._bell = self._bell, -1
        with contextlib.suppress(OSError):
            if bell >= 0 and fcntl.fcntl(bell, F_GETSIG) == self._bell_tag:
                os.close(bell)

    # -- telling a person ------------------------------------------------------------------------------------

    def _sums(self) -> str:
        out = self.out
        lost = sum(out.dropped.values())
        return f"{out.pending()} lines wait, {lost} were dropped"

    def summary(self) -> None:
        """Say on stderr what did not arrive, if anything did not. Called at exit."""
        out = self.out
        waiting = out.pending()
        dropped = {cause: count for cause, count in out.dropped.items() if count}
        if waiting or dropped:
            told = ", ".join(f"{cause} {count}" for cause, count in dropped.items()) or "none"
            self._say(f"at exit: {waiting} of {out.produced()} lines not acknowledged by the relay; dropped: {told}")

    def _say(self, text: str) -> None:
        """Write one line to stderr if that can be done at once and it is still stderr."""
        try:
            if sys.stderr is None or _socket_inode(2) != self._stderr:
                return
            poll = _original("select", "poll")()
            poll.register(2, select.POLLOUT)
            ready = poll.poll(0)
            if ready and ready[0][1] & select.POLLOUT:
                os.write(
                    2,
                    f"robo_trader.log_relay[{os.getpid()}]: {text}\n".encode("utf-8", "backslashreplace")[:1000],
                )
        except Exception:
            pass


def _serve(link: Link) -> None:
    try:
        del link._driver[0]  # noqa: SLF001 - the thread's own entry
    except IndexError:
        return
    try:
        link.serve()
    except BaseException:
        pass
    finally:
        link._driver += (None,)  # noqa: SLF001
        link.leave()


def _between(low: float, high: float) -> float:
    """Return a number for jitter. Not from `random`, whose state may be the strategy's seed."""
    return low + (high - low) * os.urandom(1)[0] / 255


def _original(module: str, name: str) -> Any:
    """Return the standard library's own `module.name`, also after gevent has replaced it."""
    patched = sys.modules.get("gevent.monkey")
    if patched is not None:
        return patched.get_original(module, name)
    return getattr(importlib.import_module(module), name)


def _safe(path: str) -> None:
    """Refuse a socket in a per-user directory of a shared temp directory that another user may have made.

    Raises PermissionError. Other directories are made by an administrator or named on purpose.
    """
    parent = os.path.dirname(path)  # noqa: PTH120
    if os.path.basename(parent) != f"logrelay-{os.getuid()}":  # noqa: PTH119
        return
    seen = os.lstat(parent)
    if seen.st_uid != os.getuid() or seen.st_mode & 0o022 or not stat.S_ISDIR(seen.st_mode):
        raise PermissionError(errno.EACCES, "the directory belongs to or can be changed by another user", parent)


def _high(fd: int) -> int:
    """Move a descriptor to a high number; stays where it is if the limit is low."""
    for lowest in (HIGH_FD, HIGH_FD // 4, 40):
        with contextlib.suppress(OSError):
            moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
            os.close(fd)
            return moved
    return fd


def _raised(kind: Any, sock: _socket.socket) -> _socket.socket:
    return kind(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, _high(sock.detach()))  # type: ignore[no-any-return]


def _socket_inode(fd: int) -> tuple[int, int] | None:
    """Return which socket `fd` is, None for anything else; stderr may become another file."""
    try:
        seen = os.fstat(fd)
    except OSError:
        return None
    return (seen.st_dev, seen.st_ino) if stat.S_ISSOCK(seen.st_mode) else None
