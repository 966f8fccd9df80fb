"""The traders' server: accepts connections on a Unix socket and sets the rhythm in which they are read.

Owns: the set of connections, coalesced reading, backpressure towards the traders, and the end of reading (`drain`).
It must not know how a socket is bound (`listeners` does that), nor the journal, the hub or the viewers: what arrives
goes to an `Intake`. Read `ingest/connection` next.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio import BaseEventLoop
from typing import Any

from logrelay.ingest.connection import Intake, UnixConnection
from logrelay.ingest.frames import Unpackers
from logrelay.ingest.keepalive import Bounds, is_late
from logrelay.ingest.peer_process import ProcessTable
from logrelay.ingest.read_coalescing import pause_after

BACKLOG = 1024
"""Traders waiting to be accepted; a connect beyond it fails at once with EAGAIN and is tried again."""

DRAIN_ROUNDS = 64
"""At 256 KiB a read this empties more than a socket can hold; a trader that goes on writing must not keep us."""

DRAIN_ROUND_S = 0.002
"""Long enough for the loop to poll its sockets once; a socket that had data is paused again by then."""


class TraderServer:
    """Accepts traders, and calls `intake.tick()` once for all that was readable at a time.

    At most `max_connections` traders are connected at once; more are refused. `bounds` say when a silent one is given
    up. Every method is to be called on `loop`.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        max_connections: int,
        loop: asyncio.AbstractEventLoop,
        bounds: Bounds = Bounds(),  # noqa: B008  (it never changes)
    ) -> None:
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
        self._paused: dict[UnixConnection, None] = {}
        """Connections whose socket is not read now, in the order in which they were paused."""
        self._servers: list[asyncio.AbstractServer] = []
        self._tick_handle: asyncio.Handle | None = None
        self._pause_timer: asyncio.TimerHandle | None = None
        """Runs while reads are coalesced; at its end every paused connection is read again."""
        self._read_bytes = 0
        """Bytes read since the last tick."""
        self._reading_paused = False
        """The intake has no room for more lines."""
        self._closing = False

    @property
    def connection_count(self) -> int:
        """Traders connected now, whether they have said hello or not."""
        return len(self._connections)

    async def serve(self, sock: socket.socket) -> None:
        """Accept traders on a listening Unix socket. The socket is the server's to close, its file is not."""
        # From 3.13 on asyncio removes the file by itself; whether it is ours to remove is decided in `listeners`.
        keep_file: Any = {}
        if sys.version_info >= (3, 13) and isinstance(self.loop, BaseEventLoop):
            keep_file = {"cleanup_socket": False}
        server = await self.loop.create_unix_server(
            lambda: UnixConnection(self, self._intake, bounds=self._bounds), sock=sock, backlog=BACKLOG, **keep_file
        )
        self._servers.append(server)

    async def serve_instead(self, sock: socket.socket) -> None:
        """Accept traders on `sock`, and no longer on the sockets before it; connections stay as they are."""
        before, self._servers = self._servers, []
        await self.serve(sock)
        for server in before:
            server.close()

    # --- what a connection reports (connection.Owner) -----------------------------------------------------------

    def admit(self, connection: UnixConnection) -> str | None:
        """Count a new connection in. Returns None, or the reason why it is refused."""
        if self._closing or len(self._connections) >= self._max_connections:
            return f"{len(self._connections)} traders are connected; at most {self._max_connections} are allowed"
        self._connections[connection] = None
        return None

    def was_read(self, connection: UnixConnection, size: int) -> None:
        """Pause a connection of which `size` bytes were read; tick when all that is readable now has been read."""
        self._read_bytes += size
        connection.pause_reading()
        self._paused[connection] = None
        self.schedule_tick()

    def was_refused(self, connection: UnixConnection, reason: str) -> None:
        """Report to the intake that a connection is turned away, unless the relay is stopping."""
        if not self._closing:
            self._intake.refused(connection, reason)
            self.schedule_tick()

    def was_greeted(self, connection: UnixConnection) -> None:
        """Ping the connection from now on, if its trader knows pings; its run has not lost its process any more."""
        self._processes.forget(connection.run)
        if connection.knows_pings and not self._closing:
            self._pinged[connection] = None
            if self._keepalive_timer is None:
                self._set_keepalive_timer()

    def was_lost(self, connection: UnixConnection) -> None:
        """Forget a connection that is over; tell the intake about it if it had said hello."""
        admitted = self._connections.pop(connection, connection) is None
        self._paused.pop(connection, None)
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
        self._tick_handle = None
        read_bytes, self._read_bytes = self._read_bytes, 0
        viewers = self._intake.tick()
        if self._pause_timer is None and not self._reading_paused and self._paused:
            pause_s = pause_after(read_bytes, viewers)
            if pause_s > 0:
                self._pause_timer = self.loop.call_later(pause_s, self._end_pause)
            else:
                self._end_pause()

    def _end_pause(self) -> None:
        """Read every paused connection again, unless the intake has no room."""
        self._pause_timer = None
        if self._reading_paused:
            return
        paused, self._paused = self._paused, {}
        for connection in paused:
            connection.resume_reading()

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`: the intake has no room. Traders keep their lines meanwhile."""
        if not self._reading_paused:
            self._reading_paused = True
            for connection in self._connections:
                connection.pause_reading()
                self._paused[connection] = None

    def resume_reading(self) -> None:
        """Undo `pause_reading`. A coalescing pause that is still running is waited for."""
        if self._reading_paused:
            self._reading_paused = False
            if self._pause_timer is None:
                self._end_pause()

    # --- the end ------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Stop accepting; read once more whatever traders have already sent, without waiting for more.

        Cancelling leaves some of it unread; the traders keep what is not acked.
        """
        self._stop_accepting()
        self.resume_reading()
        for _ in range(DRAIN_ROUNDS):
            self._end_pause()
            # One turn lets the selector report what is readable, the next one runs the tick it scheduled.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(DRAIN_ROUND_S)
            if not self._paused:
                break

    async def close(self) -> None:
        """Stop accepting, send the acks that are due, and close every connection."""
        self._stop_accepting()
        for connection in list(self._connections):
            connection.close()

    def _stop_accepting(self) -> None:
        self._closing = True
        for server in self._servers:
            server.close()
        if self._pause_timer is not None:
            self._pause_timer.cancel()
            self._pause_timer = None
        if self._keepalive_timer is not None:
            self._keepalive_timer.cancel()
            self._keepalive_timer = None
        self._pinged.clear()
        self._processes.close()
