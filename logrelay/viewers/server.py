"""The viewers' door: HTTP and WebSocket on one port.

Owns: connections, handshakes, pings, close codes, and a bounded write buffer for each viewer. It must not know the
journal, the traders or what a line is: admission, pages and subscriptions are a `ViewerService`'s. The protocol
itself is the `websockets` library's, used as it offers it for this: Sans-I/O. Read `hub` next for who gets
what, `static/viewer.js` for the other end.

Log lines bypass the library: the hub hands over ready frames, the same bytes object for every viewer with an
equal subscription, and they go straight to the transport. Only what concerns one viewer (handshake, ping, close)
passes through the protocol object.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

from websockets.datastructures import Headers
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

from logrelay.fanout.batch import frame
from logrelay.fanout.compression import WINDOW_BITS

HANDSHAKE_TIMEOUT_S = 10.0
"""From connect to a complete request."""

PING_INTERVAL_S = 30.0
"""Under the 60 s after which common proxies and NATs forget an idle connection."""

PINGS_UNANSWERED = 3
"""A phone that sleeps answers late; after this many unanswered pings it is gone. Being wrong costs it a reconnect."""

STREAM_TIMEOUT_S = 60.0
"""A reader of /logs that takes nothing for so long is gone; it would hold its connection for ever."""

SPARE_CONNECTIONS = 256
"""Plain HTTP requests and handshakes under way, on top of the viewers."""

CLOSE_TIMEOUT_S = 3.0
"""Patience for the closing handshake before the connection is cut."""

MAX_REQUEST_BYTES = 64 * 1024
"""A viewer's longest message."""

NOTSENT_BYTES = 512 * 1024
"""Unsent bytes the kernel takes for one viewer (TCP_NOTSENT_LOWAT, tcp(7)): two thousand lines, enough for a burst.
Without it a sleeping phone would have megabytes of old lines in the kernel's buffer, beyond anybody's reach."""

ACCEPT_BACKLOG = 1024

_log = logging.getLogger("logrelay.websockets")
_log.addHandler(logging.NullHandler())
_log.propagate = False
_log.setLevel(logging.CRITICAL)


class Session(Protocol):
    """What the desk gives for an admitted viewer. Called on the event loop."""

    def received(self, text: bytes) -> None:
        """Take one message of the viewer."""

    def drained(self) -> None:
        """The socket has room again after `ViewerConnection.write` said it was full."""

    def ended(self) -> None:
        """The connection is over."""


class Admission(Protocol):
    """The desk's answer to a request: exactly one of the three is set."""

    refusal: tuple[int, list[tuple[str, str]], bytes] | None
    answer: tuple[int, list[tuple[str, str]], bytes | AsyncIterator[bytes]] | None
    upgrade: bool
    subprotocol: str | None


class ViewerService(Protocol):
    """Decides about requests and sessions."""

    def admit(self, request: Request, peer: str | None) -> Admission:
        """Decide about a complete HTTP request from address `peer`."""

    def open(self, connection: ViewerConnection, request: Request) -> Session:
        """A WebSocket was opened for an admitted request; the desk may write to it from now on."""


class ViewerConnection(asyncio.Protocol):
    """One connection: an HTTP request, and then perhaps a WebSocket."""

    __slots__ = (
        "_closing",
        "_door",
        "_full",
        "_hushed",
        "_peer",
        "_pings",
        "_protocol",
        "_session",
        "_stream",
        "_timer",
        "_transport",
        "deflate",
        "subprotocol",
    )

    def __init__(self, door: ViewerServer) -> None:
        self._door = door
        self._protocol = ServerProtocol(max_size=MAX_REQUEST_BYTES, logger=_log)
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stream: asyncio.Task[None] | None = None
        self._full: asyncio.Event | bool = False
        self._closing = False
        self._hushed = False
        self._pings = 0
        self._peer: str | None = None
        self.subprotocol: str | None = None
        self.deflate = False

    # --- transport callbacks ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, not for ever."""
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self._transport = transport
        if len(self._door.connections) >= self._door.max_viewers + SPARE_CONNECTIONS:
            transport.abort()
            return
        # The buffer holds only what the kernel refused: at most one segment, because `write` then says stop.
        transport.set_write_buffer_limits(high=0)
        name = transport.get_extra_info("peername")
        self._peer = name[0] if isinstance(name, tuple) else None
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_BYTES)
        self._door.connections[self] = None
        self._timer = self._door.loop.call_later(HANDSHAKE_TIMEOUT_S, self.abort)

    def data_received(self, data: bytes) -> None:
        """Feed the protocol and act on what it makes of the bytes."""
        protocol = self._protocol
        protocol.receive_data(data)
        self._events()

    def eof_received(self) -> bool:
        """Let the protocol conclude; the transport closes when this returns False."""
        self._protocol.receive_eof()
        self._events()
        return False

    def pause_writing(self) -> None:
        """The kernel has no room."""
        if self._full is False:
            self._full = True
        elif isinstance(self._full, asyncio.Event):
            self._full.clear()

    def resume_writing(self) -> None:
        """Everything written has gone to the kernel."""
        if isinstance(self._full, asyncio.Event):
            self._full.set()
            return
        self._full = False
        if self._hushed and self._transport is not None:
            self._hushed = False
            self._transport.resume_reading()
        if self._session is not None and not self._closing:
            self._session.drained()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (the end is the end)
        """Forget everything about the connection."""
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.cancel()
        self._door.forget(self)
        self._transport = None
        session, self._session = self._session, None
        if session is not None:
            session.ended()

    # --- protocol ------------------------------------------------------------------------------------------------

    def _events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._request(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._flush()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()
        if self._protocol.state is CLOSED or (self._protocol.close_expected() and self._protocol.state is not OPEN):
            self._close_soon()

    def _close_soon(self) -> None:
        """The protocol is finished: give the peer a moment to close first, as RFC 6455 section 7.1.1 wants it."""
        if self._stream is None and not self._closing:
            self._closing = True
            self._rearm(CLOSE_TIMEOUT_S)

    def _rearm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._door.loop.call_later(seconds, self.abort)

    def _request(self, request: Request) -> None:
        admission = self._door.desk.admit(request, self._peer)
        if admission.refusal is not None:
            self._respond(*admission.refusal)
        elif admission.answer is not None:
            status, headers, body = admission.answer
            if isinstance(body, bytes):
                self._respond(status, headers, body)
            else:
                self._respond_stream(status, headers, body)
        else:
            self._open(request, admission.subprotocol)

    def _open(self, request: Request, subprotocol: str | None) -> None:
        door = self._door
        if len(door.open) >= door.max_viewers:
            text = f"{len(door.open)} viewers are connected; at most {door.max_viewers} are allowed\n"
            self._respond(503, [("Retry-After", "10")], text.encode())
            return
        protocol = self._protocol
        if door.deflates(self._peer):
            protocol.available_extensions = _DEFLATE
        response = protocol.accept(request)
        if response.status_code == 101 and subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
            self.subprotocol = subprotocol
        protocol.send_response(response)
        self._flush()
        if response.status_code != 101:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.deflate = any(map(_shares_context, protocol.extensions))
        door.open[self] = None
        door.arm_pings()
        self._session = door.desk.open(self, request)

    def _frame(self, event: Frame) -> None:
        if event.opcode is Opcode.PONG:
            self._pings = 0
        elif event.opcode is Opcode.TEXT and self._session is not None and not self._closing:
            if event.fin:
                self._text(bytes(event.data))
            else:
                self.close(CloseCode.MESSAGE_TOO_BIG, "send a request in one frame")
        elif event.opcode in (Opcode.BINARY, Opcode.CONT) and self._session is not None and not self._closing:
            self.close(CloseCode.UNSUPPORTED_DATA, "send text")

    def _text(self, data: bytes) -> None:
        try:
            data.decode()
        except UnicodeDecodeError:
            self.close(CloseCode.INVALID_DATA, "text has to be UTF-8")
            return
        assert self._session is not None
        self._session.received(data)

    # --- plain HTTP ----------------------------------------------------------------------------------------------

    def _respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        response = self._protocol.reject(status, "")
        response.body = body
        fields = Headers()
        fields["Date"] = response.headers["Date"]
        fields["Connection"] = "close"
        fields["Content-Length"] = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                del fields["Content-Length"]  # the answer to HEAD names the length of what GET would send
            fields[name] = value
        if "Content-Type" not in fields:
            fields["Content-Type"] = "text/plain; charset=utf-8"
        self._protocol.send_response(Response(status, response.reason_phrase, fields, body))
        self._rearm(HANDSHAKE_TIMEOUT_S)

    def _respond_stream(self, status: int, headers: list[tuple[str, str]], chunks: AsyncIterator[bytes]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        response = self._protocol.reject(status, "")
        fields = Headers()
        fields["Date"] = response.headers["Date"]
        fields["Connection"] = "close"
        for name, value in headers:
            fields[name] = value
        head = Response(status, response.reason_phrase, fields).serialize()
        self._full = asyncio.Event()
        self._full.set()
        self._stream = self._door.loop.create_task(self._pour(head, chunks))

    async def _pour(self, head: bytes, chunks: AsyncIterator[bytes]) -> None:
        """Write a body of unknown length, waiting for the socket; the end of the connection is its end."""
        transport = self._transport
        assert transport is not None
        assert isinstance(self._full, asyncio.Event)
        try:
            transport.write(head)
            async for chunk in chunks:
                transport.write(chunk)
                await asyncio.wait_for(self._full.wait(), STREAM_TIMEOUT_S)
            transport.close()
        except Exception:
            # The client must not take half a body for the whole: a reset is the only way left to say so.
            transport.abort()
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    # --- what the desk and the hub call --------------------------------------------------------------------------

    @property
    def peer(self) -> str | None:
        """The viewer's address."""
        return self._peer

    def write(self, payload: bytes) -> bool:
        """Send ready-made frames. Returns False when the socket is full: `Session.drained` is called when it is not."""
        transport = self._transport
        if transport is None or self._closing:
            return False
        transport.write(payload)
        return self._full is False

    def send(self, text: bytes) -> None:
        """Send one text message of our own. A viewer that does not read its answers is not heard until it does."""
        transport = self._transport
        if transport is None or self._closing:
            return
        transport.write(frame(text))
        if self._full is not False and not self._hushed and transport.is_reading():
            self._hushed = True
            transport.pause_reading()

    @property
    def full(self) -> bool:
        """True while the socket has no room."""
        return self._full is not False

    def close(self, code: int, reason: str) -> None:
        """Close with a code of CLOSE_CODES; the connection is cut if the peer does not answer in time."""
        protocol = self._protocol
        if protocol.state is OPEN:
            protocol.send_close(code, reason)
            self._flush()
            self._closing = True
            self._rearm(CLOSE_TIMEOUT_S)
        elif self._session is None:
            self.abort()

    def ping(self) -> None:
        """Ask for a sign of life, or give up on a peer that has given none for too long."""
        if self._closing or self._protocol.state is not OPEN:
            return
        if self._pings >= PINGS_UNANSWERED:
            self.close(CloseCode.INTERNAL_ERROR, "no answer to pings")
            return
        self._pings += 1
        try:
            self._protocol.send_ping(b"logrelay")
        except ProtocolError:
            return
        self._flush()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()


class ViewerServer:
    """Listens on TCP and keeps the connections."""

    def __init__(
        self, desk: ViewerService, *, max_viewers: int, compression: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.desk = desk
        self.max_viewers = max_viewers
        self.loop = loop
        self.connections: dict[ViewerConnection, None] = {}
        self.open: dict[ViewerConnection, None] = {}
        self._compression = compression
        self._servers: list[asyncio.Server] = []
        self._ping_timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    def deflates(self, peer: str | None) -> bool:
        """Tell whether to offer compression: not to a viewer on this machine, for whom bytes cost nothing."""
        if self._compression == "auto":
            return peer is not None and not (peer.startswith("127.") or peer in ("::1", "::ffff:127.0.0.1"))
        return self._compression == "on"

    async def listen(self, sock: socket.socket) -> None:
        """Serve a bound TCP socket."""
        server = await self.loop.create_server(lambda: ViewerConnection(self), sock=sock, backlog=ACCEPT_BACKLOG)
        self._servers.append(server)

    def forget(self, connection: ViewerConnection) -> None:
        """Drop a connection from the books."""
        self.connections.pop(connection, None)
        self.open.pop(connection, None)
        if not self.open and self._ping_timer is not None:
            self._ping_timer.cancel()
            self._ping_timer = None
        if self._emptied is not None and not self.connections:
            self._emptied.set()

    def arm_pings(self) -> None:
        """Have everybody pinged from time to time; one timer for all, and none while nobody is there."""
        if self._ping_timer is None:
            self._ping_timer = self.loop.call_later(PING_INTERVAL_S, self._ping_all)

    def _ping_all(self) -> None:
        self._ping_timer = None
        for connection in list(self.open):
            connection.ping()
        if self.open:
            self.arm_pings()

    def stop_accepting(self) -> None:
        """Close the door; those inside stay."""
        for server in self._servers:
            server.close()

    async def close(self, code: int, reason: str, timeout_s: float) -> None:
        """Close every connection, waiting at most `timeout_s` for the peers; then cut what is left."""
        self.stop_accepting()
        if self._ping_timer is not None:
            self._ping_timer.cancel()
            self._ping_timer = None
        self._emptied = asyncio.Event()
        for connection in list(self.connections):
            connection.close(code, reason)
        if self.connections:
            try:
                await asyncio.wait_for(self._emptied.wait(), timeout_s)
            except TimeoutError:
                for connection in list(self.connections):
                    connection.abort()


_TCP_NOTSENT_LOWAT: int = getattr(socket, "TCP_NOTSENT_LOWAT", 25)

_DEFLATE: list[Any] = [
    # The library only decompresses, without keeping a window per viewer; what goes out is made by `compression`.
    ServerPerMessageDeflateFactory(server_no_context_takeover=False, client_no_context_takeover=True)
]


def _shares_context(extension: object) -> bool:
    """Tell whether the client keeps a whole window between messages; one that does not is served uncompressed."""
    return (
        isinstance(extension, PerMessageDeflate)
        and not extension.local_no_context_takeover
        and extension.local_max_window_bits == WINDOW_BITS
    )
