"""One trader's connection: bytes in, frames to the intake, answers and acks out.

Owns: the order of a connection (hello, then the rest), the time allowed for hello, and when acks are sent. It must not
know other connections or the rhythm of reads (its `Owner` does), nor what becomes of the frames (the `Intake` does).
Read `ingest/frames` next.

It is told of bytes as a protocol of asyncio is, and not by streams, for a reason: when a trader is killed while acks to
it are unread, the kernel reports ECONNRESET after the last byte, and a StreamReader then throws away what it had
already read.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from logrelay.ingest import frames
from logrelay.ingest.frames import Frame, Hello
from logrelay.ingest.keepalive import Bounds, Silence
from logrelay.ingest.peer_process import PeerProcess, peer_groups, peer_user, process_of
from logrelay.ingest.trader import DEAD, RUNNING, UNKNOWN, End, TraderConnection
from logrelay.model import UNKNOWN_UID

HELLO_TIMEOUT_S = 10.0
"""A trader says hello in the moment in which it connects."""

ACK_INTERVAL_S = 0.020
"""An ack wakes a thread in the trader. Fifty wake-ups a second cost a trader that sends much nothing that can be
measured."""

LAZY_ACK_S = 0.200
"""The same for a trader of whose memory hardly anything is used: five wake-ups a second on either side, instead of one
for each line of an ordinary day. It is what a `flush` may wait longer; a goodbye is acked at once."""

LAZY_ACK_BYTES = 16 * 1024
"""Hardly anything: a thousandth of the memory that a trader has by default, some hundred lines."""

ACK_RETRY_S = 0.5
"""Pause before an ack is tried again for which a trader's socket had no room."""


def _nowhere() -> memoryview:
    return memoryview(b"")


class Intake(Protocol):
    """Receives the frames. Called on the event loop; no method may raise."""

    def objection(self, hello: Hello) -> str | None:
        """Return why the connection with this hello is to be refused; None: `hello` may be called."""

    def hello(self, connection: TraderConnection, hello: Hello) -> int:
        """Take a new connection. Returns the last seq of its run that is in the journal, for the welcome."""

    def frames(self, connection: TraderConnection, frames: list[Frame]) -> list[bytes]:
        """Take log, lost, bye and bad frames, in order. Returns encoded answers to send."""

    def refused(self, connection: TraderConnection, reason: str) -> None:
        """Note that the connection is being closed for `reason`; it may or may not have said hello."""

    def ended(self, connection: TraderConnection, end: End) -> bool:
        """Note that a connection that had said hello is over; all of its frames have been handed over.

        Returns whether the end of its process is to be reported, by `process_died`.
        """

    def process_died(self, run: bytes) -> None:
        """Note that the process of a run that had lost its connection has ended."""

    def flooding(self, connection: TraderConnection, lines: int, seconds: float) -> None:
        """Note that a connection has sent so many lines in so many seconds, and is read after the others."""

    def tick(self) -> int:
        """Commit what was taken: everything that was readable has been read. Returns the number of viewers."""


class Owner(Protocol):
    """What a connection reports to the server that accepted it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the connection's timers."""

    @property
    def unpackers(self) -> frames.Unpackers:
        """What all connections decode with."""

    def admit(self, connection: UnixConnection) -> str | None:
        """Count the connection in. Returns None, or the reason why it is refused."""

    def was_read(self, connection: UnixConnection, size: int, frames: int = 0) -> None:
        """Note that `size` bytes were read, and so many frames worked on, pings among them."""

    def read_buffer(self, connection: UnixConnection) -> memoryview:
        """Return where bytes of the connection are read to; its length is how much is read at once."""

    def admit_hello(self, connection: UnixConnection) -> str | None:
        """Return why a connection that says hello is refused; None: it may stay."""

    def charge(self, connection: UnixConnection, count: int, *, is_new: bool) -> None:
        """Note how much memory half a frame of the connection takes now; `is_new`: it is another frame."""

    def was_refused(self, connection: UnixConnection, reason: str) -> None:
        """Note that the connection is turned away without having sent anything wrong."""

    def was_greeted(self, connection: UnixConnection) -> None:
        """Note that hello has come."""

    def was_lost(self, connection: UnixConnection) -> None:
        """Note that the connection is over."""


class UnixConnection:
    """One trader's connection over a Unix socket; for the intake it is a `TraderConnection`."""

    __slots__ = (
        "_ack_is_lazy",
        "_ack_timer",
        "_ack_wanted",
        "_acked",
        "_acked_bytes",
        "_bounds",
        "_charged",
        "_decoder",
        "_fd",
        "_find_process",
        "_hello_timer",
        "_intake",
        "_owner",
        "_silence",
        "_transport",
        "_unacked_bytes",
        "gid",
        "given_up",
        "greeted",
        "process",
        "read_buffer",
        "run",
        "uid",
    )

    def __init__(
        self,
        owner: Owner,
        intake: Intake,
        *,
        bounds: Bounds = Bounds(),  # noqa: B008  (it never changes)
        find_process: Callable[[socket.socket, int, int], PeerProcess | None] = process_of,
    ) -> None:
        """Take what a loop has accepted. `find_process`: see `peer_process.process_of`."""
        self._bounds = bounds
        self._find_process = find_process
        self._silence: Silence | None = None
        """None before hello, and for a trader that knows no pings."""
        self.uid = UNKNOWN_UID
        self.gid = UNKNOWN_UID
        """User and main group of who has connected."""
        self.run = b""
        """The key of its run, from hello on."""
        self.process: PeerProcess | None = None
        """The trader's process where it is known; who takes it (`take_process`) closes it."""
        self.given_up = False
        """Closed by the relay, as nothing was heard on it."""
        self._owner = owner
        self._intake = intake
        self._decoder = frames.Decoder(owner.unpackers, first_frame_bytes=frames.MAX_HELLO_BYTES)
        self._charged = 0
        """Bytes that the owner was told are kept of half a frame."""
        self._hello_timer: asyncio.TimerHandle | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ack_is_lazy = False
        """The timer is that of a trader of whose memory hardly anything is used."""
        self._unacked_bytes = self._acked_bytes = 0
        """Read since the last ack was sent, and before it since the one before."""
        self._ack_wanted = 0
        """The highest seq that was to be acked."""
        self._acked = 0
        """The highest seq that the trader has been told."""
        self.read_buffer: Callable[[], memoryview] = partial(owner.read_buffer, self)
        """Where the next bytes go, which every connection uses: they are taken out at once."""
        self._transport: asyncio.Transport | None = None
        """None before the connection is made and after it is lost."""
        self._fd = -1
        """The run that has said hello."""
        self.greeted = False
        """Hello has come, and the intake knows this connection."""

    # --- for its socket (trader_socket.Reader) ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for hello; refuse the connection when the server does not admit it."""
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        self.uid, self.gid = peer_user(sock)
        reason = self._owner.admit(self)
        if reason is not None:
            self._turn_away(reason)
            return
        self._hello_timer = self._owner.loop.call_later(HELLO_TIMEOUT_S, self._turn_away, "no hello came")

    def data_received(self, data: bytes) -> None:
        """Decode at once, so that no later error of the socket can take the bytes away; then hand the frames over."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        silence = self._silence
        if silence is not None:
            silence.heard()
        self._unacked_bytes += len(data)
        received = self._decoder.receive(data)
        if self._charged or self._decoder.half is not None:
            kept = self._decoder.kept_bytes
            if kept != self._charged:
                self._charged = kept
                self._owner.charge(self, kept, is_new=bool(received))
        if self._decoder.was_pinged and self.greeted:
            self._send(frames.PONG)
        if not self.greeted:
            if not received:
                if self._decoder.frame_count:
                    self._owner.was_read(self, len(data), self._decoder.frame_count)
                return
            first = received.pop(0)
            reason = self._greet(first) if isinstance(first, Hello) else "the first frame must be hello"
            if reason is not None:
                reason = first.reason if isinstance(first, frames.Broken) else reason
                self._intake.refused(self, reason)
                self._owner.was_read(self, 0)
                self._refuse(reason)
                return
        broken = received[-1] if received and isinstance(received[-1], frames.Broken) else None
        if broken:
            received.pop()
        if Hello in map(type, received):
            # Hello again says at most that the run fails; another run's ends what is understood, and the lines before
            # it count.
            other = next((n for n, f in enumerate(received) if type(f) is Hello and f.run != self.run), None)
            if other is not None:
                broken = frames.Broken("hello of another run: a connection is one run's, each makes one of its own")
                del received[other:]
            received = [frame for frame in received if type(frame) is not Hello or frame.failure]
        if received:
            for answer in self._intake.frames(self, received):
                self._send(answer)
        if broken:
            self._intake.refused(self, broken.reason)
        self._owner.was_read(self, len(data), self._decoder.frame_count)
        if broken:
            self._refuse(broken.reason)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (why it ended changes nothing)
        """Stop the timers and report the end."""
        for timer in (self._hello_timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._hello_timer = self._ack_timer = None
        self._transport = None
        self.read_buffer = _nowhere  # it has held this connection
        self._decoder.close()
        self._owner.was_lost(self)
        process = self.take_process()
        if process is not None:
            process.close()

    # --- for the intake (trader.TraderConnection) ---------------------------------------------------------------

    def ack(self, seq: int, *, now: bool) -> None:
        """Tell the trader that everything up to `seq` is kept; at most once in `ACK_INTERVAL_S` unless `now`."""
        if seq <= self._ack_wanted and not now:
            return
        self._ack_wanted = max(self._ack_wanted, seq)
        is_lazy = max(self._unacked_bytes, self._acked_bytes) < LAZY_ACK_BYTES
        if now:
            self._send_ack()
        elif self._ack_timer is None or (self._ack_is_lazy and not is_lazy):
            # The first ack waits too: the lines right behind it are then acked by the same wake-up.
            if self._ack_timer is not None:
                self._ack_timer.cancel()
            self._ack_is_lazy = is_lazy
            self._ack_timer = self._owner.loop.call_later(LAZY_ACK_S if is_lazy else ACK_INTERVAL_S, self._send_ack)

    def is_process_running(self) -> bool:
        """Tell whether the trader's process is known, and runs."""
        return self.process is not None and self.process.is_running()

    def abort(self) -> None:
        """Close at once; what the trader has sent and nobody has read is left to its next connection."""
        if self._transport is not None:
            self._transport.abort()

    # --- for the server -----------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Leave the socket unread until `resume_reading`; the kernel buffers meanwhile."""
        transport = self._transport
        if transport is not None and not transport.is_closing() and transport.is_reading():
            transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the socket again."""
        transport = self._transport
        if transport is not None and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()

    @property
    def knows_pings(self) -> bool:
        """Whether `pass_tick` is to be called."""
        return self._silence is not None

    def pass_tick(self) -> None:
        """Note that `Bounds.tick_s` has passed: send a ping if one is due, or give the connection up."""
        transport, silence = self._transport, self._silence
        if transport is None or silence is None or transport.is_closing():
            return
        due = silence.tick(is_read=transport.is_reading())
        if due == "ping":
            self._send(frames.PING)
        elif due == "dead":
            self.given_up = True
            transport.abort()

    def end(self, *, can_watch: bool) -> End:
        """Say how the connection ended. Not `can_watch`: a process that still runs counts as unknown."""
        process = UNKNOWN
        if self.process is not None:
            process = DEAD if not self.process.is_running() else RUNNING if can_watch else UNKNOWN
        return End(process, self._bounds.dead_s if self.given_up else 0.0)

    def take_process(self) -> PeerProcess | None:
        """Return the trader's process, which then is the caller's to close; None: not known, or taken."""
        process, self.process = self.process, None
        return process

    def groups(self) -> frozenset[int]:
        """Return the groups of who has connected, as far as the kernel says."""
        if self._transport is None:
            return frozenset()
        return peer_groups(self._transport.get_extra_info("socket")) | {self.gid}

    def turn_away(self, reason: str) -> None:
        """Refuse a connection that has done nothing wrong but has what others need."""
        self._turn_away(reason)

    def close(self) -> None:
        """Send the ack that is due, if there is one, and close."""
        self._send_ack()
        if self._transport is not None:
            self._transport.close()

    # --- inside -------------------------------------------------------------------------------------------------

    def _greet(self, hello: Hello) -> str | None:
        """Answer hello. Returns why it is refused; None: it was taken."""
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            hello = hello._replace(peer_uid=self.uid)
            if not hello.is_dead:
                self.process = self._find_process(sock, hello.pid, hello.started_ns)
            if self.process is not None:
                hello = hello._replace(peer_pid=self.process.pid)
        objection = self._owner.admit_hello(self) or self._intake.objection(hello)
        if objection is not None:
            return objection
        acked = self._intake.hello(self, hello)
        self.greeted = True
        self.run = hello.run
        self._acked = self._ack_wanted = acked
        bounds = self._bounds
        if hello.knows_pings:
            self._silence = Silence(bounds)
            self._send(frames.welcome(acked, ping_s=bounds.ping_s, dead_s=bounds.dead_s))
        else:
            self._send(frames.welcome(acked))
        self._owner.was_greeted(self)
        return None

    def _send_ack(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        transport = self._transport
        if self._ack_wanted <= self._acked or transport is None or transport.is_closing():
            return
        if self._send(frames.ack(self._ack_wanted)):
            self._acked = self._ack_wanted
            self._unacked_bytes, self._acked_bytes = 0, self._unacked_bytes
        else:
            self._ack_is_lazy = False
            # The trader reads no acks now; when it does, perhaps nothing else will be committed to remind us.
            self._ack_timer = self._owner.loop.call_later(ACK_RETRY_S, self._send_ack)

    def _turn_away(self, reason: str) -> None:
        self._owner.was_refused(self, reason)
        self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        """Answer refused and close."""
        if self._transport is not None and not self._transport.is_closing():
            self._send(frames.refused(reason))
            self._transport.close()

    def _send(self, answer: bytes) -> bool:
        """Send a small answer past the transport's buffer; never closes the connection, whatever happens.

        A transport that meets EPIPE closes itself, together with what a killed trader had sent and we had not read
        yet. Here the error is left for the reading side, which gets every byte first. An answer the socket has no
        room for is dropped: the trader does not read, and the next ack says everything an earlier one said.
        """
        if self._transport is None:
            return False
        try:
            taken = os.write(self._fd, answer) == len(answer)
        except OSError:
            return False
        if self._silence is not None:
            self._silence.sent()
        return taken
