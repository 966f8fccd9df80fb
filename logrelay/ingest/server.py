"""The traders' server: accepts connections on a Unix socket and sets the rhythm in which they are read.

Owns: the set of connections, coalesced reading, backpressure towards the traders, and the end of reading (`drain`).
It must not know how a socket is bound (`listeners` does that), nor the journal, the hub or the viewers: what arrives
goes to an `Intake`. Read `ingest/socket_poll` next.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable

from logrelay.ingest.connection import Intake, UnixConnection
from logrelay.ingest.frames import Unpackers
from logrelay.ingest.half_frames import HALF_FRAMES_BYTES, HalfFrames
from logrelay.ingest.keepalive import Bounds, is_late
from logrelay.ingest.peer_access import PeerAccess
from logrelay.ingest.peer_process import ProcessTable
from logrelay.ingest.read_coalescing import rest_after
from logrelay.ingest.read_shares import ReadShares
from logrelay.ingest.socket_poll import SocketPoll
from logrelay.ingest.token_bucket import TokenBucket
from logrelay.ingest.trader_socket import TraderSocket
from logrelay.memory_return import MemoryReturn
from logrelay.progress import Work

BACKLOG = 1024
"""Traders waiting to be accepted; a connect beyond it fails at once with EAGAIN and is tried again."""

ACCEPTED_AT_ONCE = 8
"""Connections accepted between two reads of all sockets: with hello and first line each is half a millisecond of work,
which all of them may bring with them. Whoever connects without pause waits in the kernel and not before others'
lines."""

NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The system has no room for one more connection at the moment,"""
ACCEPT_RETRY_S = 1.0
"""and is asked again after so long: those that wait stay in the queue."""

MAX_UNGREETED = 1_024
"""Connections without hello, some 60 KiB each at the worst. Beyond it the oldest is refused: a trader says hello in the
moment in which it connects, so it is never the one that takes up a place for nothing."""

MAX_UNGREETED_PER_USER = 512
"""Of them of one user; the same, for the oldest of that user. Twice as many as traders are allowed by default."""

READ_BYTES = 64 * 1024
"""Read at once of one connection: some 400 lines. All frames of a read are worked on in one turn of the loop; where
they are short, less is read."""

HELLO_READ_BYTES = 4 * 1024
"""Of one that has not said hello: a hello has some 200 bytes, and what is behind it is not worth a look where it is
refused."""

PASS_BYTES = 8 * READ_BYTES
"""Read at once of all connections together: eight that send as fast as they can, some 3,000 lines, which are 20 ms of
work. After an outage hundreds may send their backlogs; those that are left are read first in the next turn of the
loop."""

PASS_FRAMES = 4_000
"""Frames worked on in one turn of the loop, as much as those bytes hold of ordinary lines. Behind it the others wait
for the next turn as well: pings have two bytes, and a quarter of a million of them would take half a second."""

FLOOD_READ_BYTES = 8 * 1024
"""Of one that floods while others log, and of one of which nothing is known yet: a millisecond or two of work for the
shortest lines, which they may have to wait for."""

REFUSED_AT_ONCE = 256
"""Connections that are refused at once because all places are taken: as many as there are traders by default,"""
REFUSED_PER_S = 200.0
"""and after them so many in a second, some hundredths of a core. Whoever is refused and connects anew without pause
would be accepted again in the same millisecond, some 1,600 times a second, and take the processors from everybody: now
it waits in the queue. Nobody who could be served waits there for long, for there is no place."""

DRAIN_ROUNDS = 256
"""At 64 KiB a read this empties more than a socket can hold, with pauses for commits in between; a trader that goes on
writing must not keep us for longer than half a second."""

FLOOD_TIMER_S = 0.001
"""Timers of the loop have a resolution of a millisecond; what is due within it is read with the same one."""

DRAIN_ROUND_S = 0.002
"""Long enough for a trader that waits for room in its socket to send on."""


class TraderServer:
    """Accepts traders, and calls `intake.tick()` once for all that was readable at a time.

    At most `max_connections` traders are connected at once; more are refused. Connections without hello have places of
    their own. `bounds` say when a silent one is given
    up, `access` who may connect at all (None: everybody). `make_poll` makes what watches the sockets. Every method is
    to be called on `loop`.
    """

    def __init__(  # noqa: PLR0915  (one state machine)
        self,
        intake: Intake,
        *,
        max_connections: int,
        loop: asyncio.AbstractEventLoop,
        bounds: Bounds = Bounds(),  # noqa: B008  (it never changes)
        access: PeerAccess | None = None,
        make_poll: Callable[[Callable[[], None], asyncio.AbstractEventLoop], SocketPoll] = SocketPoll,
    ) -> None:
        self._access = access or PeerAccess()
        self._bounds = bounds
        self._pinged: dict[UnixConnection, None] = {}
        """Connections of traders that know pings."""
        self._keepalive_timer: asyncio.TimerHandle | None = None
        """Runs while there are such connections: one for all of them."""
        self._last_tick = 0.0
        """When it was set, by the loop's clock."""
        self._processes = ProcessTable(intake.process_died, loop=loop)
        self.loop = loop
        self.unpackers = Unpackers()
        self._intake = intake
        self._max_connections = max_connections
        self._connections: dict[UnixConnection, None] = {}
        self._ungreeted: dict[UnixConnection, None] = {}
        """Those of them that have not said hello, the oldest first."""
        self._refusals = TokenBucket(REFUSED_AT_ONCE, REFUSED_PER_S, loop.time())
        self._ungreeted_of: Counter[int] = Counter()
        """Their number by user."""
        self._half_frames: HalfFrames[UnixConnection] = HalfFrames()
        self._memory = MemoryReturn(loop)
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._hello_buffer = self._buffer[:HELLO_READ_BYTES]
        self._shares = ReadShares()
        self._flooding: dict[UnixConnection, float] = {}
        """Connections that are read after the others, and when, by the loop's clock."""
        self._flood_timer: asyncio.TimerHandle | None = None
        self._flood_timer_at = 0.0
        self._listening: list[socket.socket] = []
        """Sockets on which traders are accepted."""
        self._not_accepting: list[socket.socket] = []
        """Those of them that are left alone until the other sockets have been read."""
        self._poll = make_poll(self._read_ready, loop)
        self._in_pass = False
        """The sockets that have something are being read, and a tick follows."""
        self._tick_handle: asyncio.Handle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        """Runs while reads are coalesced; at its end whatever has come is read."""
        self._read_bytes = 0
        """Bytes read since the last tick."""
        self._read_frames = 0
        """Frames worked on since then."""
        self._was_read = False
        """Something was read since the last tick."""
        self._read_at = float("-inf")
        """When something was read before, by the loop's clock."""
        self._drained_bytes = 0
        """Bytes read in all; `drain` looks at how it grows."""
        self._times_paused = 0
        """How often the intake had no room; the same."""
        self._reading_paused = False
        """The intake has no room for more lines."""
        self._closing = False
        """Nobody is accepted any more."""
        self._closed = False

    @property
    def connection_count(self) -> int:
        """Traders connected now, whether they have said hello or not."""
        return len(self._connections)

    def limit_connections(self, count: int) -> None:
        """Change how many traders may be connected at once. Those that are connected stay."""
        self._max_connections = count

    def work(self) -> Work:
        """Say whether there is something to read, and how much has been read; for the watchdog."""
        waits = not self._reading_paused and not self._closing and self._poll.has_something()
        return Work(waits, self._drained_bytes)

    async def serve(self, sock: socket.socket) -> None:
        """Accept traders on a listening Unix socket. The socket is the server's to close, its file is not."""
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._listening.append(sock)
        self.loop.add_reader(sock.fileno(), self._accept, sock)
        if self._rest_timer is None:
            self._poll.watch()

    async def serve_instead(self, sock: socket.socket) -> None:
        """Accept traders on `sock`, and no longer on the sockets before it; connections stay as they are."""
        before, self._listening = self._listening, []
        await self.serve(sock)
        self._close_listening(before)

    def _close_listening(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            self.loop.remove_reader(sock.fileno())
            sock.close()

    def _accept(self, sock: socket.socket) -> None:
        """Accept those that wait, some at a time; nobody while nothing is read."""
        if self._reading_paused:
            # Whoever came now would be read before those that are left unread, and without a bound.
            self.loop.remove_reader(sock.fileno())
            self._not_accepting.append(sock)
            return
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NO_RESOURCES:
                    raise
                self.loop.call_exception_handler(
                    {"message": "a trader cannot be accepted at the moment", "exception": error}
                )
                self.loop.remove_reader(sock.fileno())
                self.loop.call_later(ACCEPT_RETRY_S, self._accept_again, sock)
                return
            connection = UnixConnection(self, self._intake, bounds=self._bounds)
            TraderSocket(accepted, connection, self._poll, self.loop).start()
            now = self.loop.time()
            if self._refusals.wait_s(now) > 0:
                self.loop.remove_reader(sock.fileno())
                self.loop.call_later(self._refusals.wait_s(now, ACCEPTED_AT_ONCE), self._accept_again, sock)
                return
        # In a rest the loop turns many times, and would take in more than can be read in one go behind it.
        self.loop.remove_reader(sock.fileno())
        self._not_accepting.append(sock)
        if self._rest_timer is None:
            self.loop.call_soon(self._accept_more)

    def _accept_more(self) -> None:
        """Look again at the sockets on which traders wait."""
        waiting, self._not_accepting = self._not_accepting, []
        for sock in waiting:
            self._accept_again(sock)

    def _accept_again(self, sock: socket.socket) -> None:
        if sock in self._listening:
            self.loop.add_reader(sock.fileno(), self._accept, sock)

    # --- what a connection reports (connection.Owner) -----------------------------------------------------------

    def admit(self, connection: UnixConnection) -> str | None:
        """Count a new connection in. Returns None, or the reason why it is refused."""
        groups = connection.groups() if self._access.needs_groups else ()
        reason = self._access.refusal(connection.uid, groups) or self.admit_hello(connection)
        if reason is not None:
            self._refusals.take()
            return reason
        if self._ungreeted_of[connection.uid] >= MAX_UNGREETED_PER_USER:
            oldest = next(other for other in self._ungreeted if other.uid == connection.uid)
            oldest.turn_away(f"{MAX_UNGREETED_PER_USER} connections of this user without hello; this was the oldest")
            self._forget_ungreeted(oldest)
        elif len(self._ungreeted) >= MAX_UNGREETED:
            oldest = next(iter(self._ungreeted))
            oldest.turn_away(f"{MAX_UNGREETED} connections without hello; this was the oldest")
            self._forget_ungreeted(oldest)
        self._connections[connection] = None
        self._ungreeted[connection] = None
        self._ungreeted_of[connection.uid] += 1
        return None

    def charge(self, connection: UnixConnection, count: int, *, is_new: bool) -> None:
        """Note what is kept of half a frame; of too much, whose frame began first is refused."""
        oldest = self._half_frames.charge(connection, count, is_new=is_new)
        if oldest is not None:
            oldest.turn_away(
                f"frames without an end take more than {HALF_FRAMES_BYTES >> 20} MiB; this one began first"
            )

    def read_buffer(self, connection: UnixConnection) -> memoryview:
        """Return where bytes of the connection are read to: few of one without hello, or of one that floods."""
        if not connection.greeted:
            return self._hello_buffer
        size = self._shares.read_bytes(connection, FLOOD_READ_BYTES, READ_BYTES, self.loop.time)
        return self._buffer if size == READ_BYTES else self._buffer[:size]

    def admit_hello(self, connection: UnixConnection) -> str | None:  # noqa: ARG002  (all are equal here)
        """Return why a connection that says hello is refused; None: there is room for one more trader.

        There is also while `drain` reads what was sent: it may be all that is left of a bot.
        """
        greeted = len(self._connections) - len(self._ungreeted)
        if self._closed or greeted >= self._max_connections:
            return f"{greeted} traders are connected; at most {self._max_connections} are allowed"
        return None

    def _forget_ungreeted(self, connection: UnixConnection) -> None:
        if self._ungreeted.pop(connection, connection) is None:
            self._ungreeted_of[connection.uid] -= 1
            if not self._ungreeted_of[connection.uid]:
                del self._ungreeted_of[connection.uid]

    def was_read(self, connection: UnixConnection, size: int, frames: int = 0) -> None:
        """Note that `size` bytes of a connection were read; tick when all that is readable now has been read.

        One that floods is not read again before its time, see `read_shares`.
        """
        self._read_bytes += size
        self._read_frames += frames
        self._drained_bytes += size
        self._was_read = True
        if not self._in_pass:
            self.schedule_tick()
        now = self.loop.time()
        pause_s = self._shares.pause_s(connection, frames, size, now)
        if pause_s > 0 and not self._closing:
            report = self._shares.take_report(connection, now)
            if report is not None:
                self._intake.flooding(connection, *report)
            connection.pause_reading()
            self._flooding[connection] = now + pause_s
            self._set_flood_timer()

    def _set_flood_timer(self) -> None:
        at = min(self._flooding.values())
        if self._flood_timer is not None:
            if self._flood_timer_at <= at:
                return
            self._flood_timer.cancel()
        self._flood_timer_at = at
        self._flood_timer = self.loop.call_later(max(0.0, at - self.loop.time()), self._read_flooding)

    def _read_flooding(self) -> None:
        """Read those again whose time has come."""
        self._flood_timer = None
        now = self.loop.time() + FLOOD_TIMER_S
        for connection in [connection for connection, at in self._flooding.items() if at <= now]:
            del self._flooding[connection]
            if not self._reading_paused:
                connection.resume_reading()
        if self._flooding:
            self._set_flood_timer()

    def was_refused(self, connection: UnixConnection, reason: str) -> None:
        """Report to the intake that a connection is turned away, unless the relay is stopping."""
        if not self._closing:
            self._intake.refused(connection, reason)
            self.schedule_tick()

    def was_greeted(self, connection: UnixConnection) -> None:
        """Ping the connection from now on, if its trader knows pings; its run has not lost its process any more."""
        self._processes.forget(connection.run)
        self._forget_ungreeted(connection)
        if connection.knows_pings and not self._closing:
            self._pinged[connection] = None
            if self._keepalive_timer is None:
                self._set_keepalive_timer()

    def forget_process(self, run: bytes) -> None:
        """Watch the process of a run no more: its run is over, and the place is another's."""
        self._processes.forget(run)

    def was_lost(self, connection: UnixConnection) -> None:
        """Forget a connection that is over; tell the intake about it if it had said hello."""
        admitted = self._connections.pop(connection, connection) is None
        self._forget_ungreeted(connection)
        self._shares.forget(connection)
        self._half_frames.forget(connection)
        self._memory.connection_ended()
        self._flooding.pop(connection, None)
        self._pinged.pop(connection, None)
        if admitted and connection.greeted:
            end = connection.end(can_watch=not self._processes.is_full)
            if self._intake.ended(connection, end) and not self._closing:
                process = connection.take_process()
                if process is not None:
                    self._processes.watch(connection.run, process)
        self.schedule_tick()

    def _set_keepalive_timer(self) -> None:
        self._last_tick = self.loop.time()
        self._keepalive_timer = self.loop.call_later(self._bounds.tick_s, self._pass_tick)

    def _pass_tick(self) -> None:
        """Let each connection of a trader that knows pings count an interval of silence."""
        self._keepalive_timer = None
        late = is_late(self.loop.time() - self._last_tick, self._bounds.tick_s)
        if not late:
            for connection in list(self._pinged):
                connection.pass_tick()
        if self._pinged:
            self._set_keepalive_timer()

    # --- the rhythm ---------------------------------------------------------------------------------------------

    def schedule_tick(self) -> None:
        """Call `intake.tick` in the next turn of the loop, once, whether a socket was read or not."""
        if self._tick_handle is None:
            self._tick_handle = self.loop.call_soon(self._tick)

    def _tick(self) -> None:
        if self._tick_handle is not None:
            self._tick_handle.cancel()  # where a pass ticks by itself
            self._tick_handle = None
        read_bytes, self._read_bytes, self._read_frames = self._read_bytes, 0, 0
        was_read, self._was_read = self._was_read, False
        viewers = self._intake.tick()
        if not was_read or self._rest_timer is not None or self._closing:
            return
        now = self.loop.time()
        rest_s = rest_after(read_bytes, viewers, since_s=now - self._read_at)
        self._read_at = now
        if rest_s > 0:
            self._poll.rest()
            self._rest_timer = self.loop.call_later(rest_s, self._end_rest)
        else:
            self._poll.watch()

    def _read_ready(self) -> None:
        """Read what can be read now, up to `PASS_BYTES` or `PASS_FRAMES`, and have it committed together.

        Called by the loop, and after a rest.
        """
        self._in_pass = True
        try:
            self._poll.read(self._has_room_in_pass)
        finally:
            self._in_pass = False
        if self._not_accepting and not self._reading_paused:
            self._accept_more()
        if self._was_read:
            self._tick()

    def _has_room_in_pass(self) -> bool:
        return self._read_bytes < PASS_BYTES and self._read_frames < PASS_FRAMES

    def _end_rest(self) -> None:
        """Read what has come. As long as something comes the loop need not watch for it."""
        self._rest_timer = None
        try:
            self._read_ready()
        finally:
            if self._rest_timer is None:
                self._poll.watch()

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`: the intake has no room. Traders keep their lines meanwhile."""
        if not self._reading_paused:
            self._reading_paused = True
            self._times_paused += 1
            for connection in self._connections:
                connection.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`. A rest that is still running is waited for."""
        if self._reading_paused:
            self._reading_paused = False
            for connection in self._connections:
                if connection not in self._flooding:
                    connection.resume_reading()
            self._accept_more()

    # --- the end ------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Stop accepting; read once more whatever traders have already sent, without waiting for more.

        Cancelling leaves some of it unread; the traders keep what is not acked.
        """
        self._stop_accepting()
        flooding, self._flooding = self._flooding, {}
        self.resume_reading()
        for connection in flooding:
            connection.resume_reading()
        for _ in range(DRAIN_ROUNDS):
            before = (self._drained_bytes, self._times_paused)
            had_room = not self._reading_paused
            self._read_ready()
            await asyncio.sleep(DRAIN_ROUND_S)
            if had_room and before == (self._drained_bytes, self._times_paused):
                break  # there was room all the time, and nothing came

    async def close(self) -> None:
        """Stop accepting, send the acks that are due, and close every connection."""
        self._stop_accepting()
        self._closed = True
        for connection in list(self._connections):
            connection.close()
        self._poll.close()

    def _stop_accepting(self) -> None:
        self._closing = True
        listening, self._listening = self._listening, []
        self._close_listening(listening)
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
        if self._keepalive_timer is not None:
            self._keepalive_timer.cancel()
            self._keepalive_timer = None
        if self._flood_timer is not None:
            self._flood_timer.cancel()
            self._flood_timer = None
        self._pinged.clear()
        self._memory.close()
        self._processes.close()
