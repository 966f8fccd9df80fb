"""One accepted socket of a trader, as a transport of asyncio has it, without asyncio's watching of it.

Owns: `TraderSocket`: the reading of one socket, and its end. It must not know frames (its protocol does), nor when it
is read (`SocketPoll` says so). Read `ingest/connection` next: it is the protocol.

It writes nothing: what a trader is answered is small and goes past every buffer, see `UnixConnection`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from logrelay.ingest.socket_poll import SocketPoll


class Reader(Protocol):
    """Who is told of what a socket has brought, and of its end."""

    @property
    def read_buffer(self) -> Callable[[], memoryview]:
        """Says where bytes are read to, and how many at most; what lies there is not needed once they were taken."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn of the connection, which may be closed at once."""

    def data_received(self, data: bytes) -> None:
        """Take what was read."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn of the end."""


class TraderSocket(asyncio.Transport):
    """Reads one socket for a protocol, whenever the poll finds that there is something."""

    def __init__(
        self, sock: socket.socket, protocol: Reader, poll: SocketPoll, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Take over a connected socket, which is closed with this."""
        super().__init__()
        sock.setblocking(False)
        self._sock, self._protocol, self._poll, self._loop = sock, protocol, poll, loop
        self._reading = self._closing = False

    def start(self) -> None:
        """Tell the protocol of the connection, and read from now on unless it has closed it."""
        self._protocol.connection_made(self)
        self.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket for `socket`."""
        return self._sock if name == "socket" else default

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return self._closing

    def is_reading(self) -> bool:
        """Tell whether what comes is read."""
        return self._reading

    def pause_reading(self) -> None:
        """Leave what comes in the kernel, until `resume_reading`."""
        if self._reading:
            self._reading = False
            self._poll.remove(self._sock.fileno())

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading and not self._closing:
            self._reading = True
            self._poll.add(self._sock.fileno(), self._read)

    def close(self) -> None:
        """Read no more; the protocol is told in the next turn of the loop, and the socket closed after that."""
        self._end(None)

    def abort(self) -> None:
        """Do what `close` does: nothing waits to be written."""
        self._end(None)

    def _read(self) -> None:
        """Read once, and hand it over. Errors of the socket end the connection, those of the protocol are reported."""
        try:
            into = self._protocol.read_buffer()
            size = self._sock.recv_into(into)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if not size:
            self._end(None)
            return
        try:
            self._protocol.data_received(bytes(into[:size]))
        except Exception as error:
            context = {"message": "what a trader has sent could not be worked on", "exception": error}
            self._loop.call_exception_handler({**context, "transport": self, "protocol": self._protocol})
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._closing:
            return
        self.pause_reading()
        self._closing = True
        self._loop.call_soon(self._finish, error)

    def _finish(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._sock.close()
