"""One TCP connection on the viewers' port: an HTTP request, and then perhaps a WebSocket.

Owns: the handshake, frames in and out, flow control of the socket, ping and close of one connection. It must not know
the journal, the traders or what a line is: what a request is answered with and what a viewer is told are the service's.
The protocol itself is the `websockets` library's, used as it offers it for this: Sans-I/O. Read `viewers/service`
next, and `static/client.js` for the other end.

Log lines bypass the library: the hub hands over ready frames, the same bytes object for every viewer with an equal
subscription, and they go straight to the transport. Only what concerns one viewer (handshake, ping, close) passes
through the protocol object.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncGenerator
from typing import Any, Protocol, cast

from websockets.datastructures import Headers
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

from logrelay.access.tokens import Token
from logrelay.fanout.batch import frame
from logrelay.fanout.compression import WINDOW_BITS
from logrelay.http.response import HttpResponse
from logrelay.viewers.service import ViewerService
from logrelay.viewers.session import Session

HANDSHAKE_TIMEOUT_S = 10.0
"""From connect to a complete request, and from an answer to the end of the connection."""

PINGS_UNANSWERED = 3
"""A phone that sleeps answers late; after this many unanswered pings it is gone. Being wrong costs it a reconnect."""

STREAM_TIMEOUT_S = 60.0
"""A reader of /logs that takes nothing for so long is gone; it would keep its connection for ever."""

CLOSE_TIMEOUT_S = 3.0
"""Time for the closing handshake before the connection is cut."""

MAX_REQUEST_BYTES = 64 * 1024
"""A viewer's longest message."""

NOTSENT_BYTES = 512 * 1024
"""Unsent bytes the kernel takes for one viewer (TCP_NOTSENT_LOWAT, tcp(7)): two thousand lines, enough for a burst.
Without it a suspended phone would have megabytes of old lines in the kernel's buffer, beyond anybody's reach."""

PING_PAYLOAD = b"logrelay"

_TCP_NOTSENT_LOWAT: int = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
"""Python 3.11 does not export it; 25 is Linux's number."""

_NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER with no time (socket(7)): closing sends a reset, and drops what was not sent."""

_OFFERED_COMPRESSION: list[Any] = [
    # The library only decompresses, without keeping a window per viewer; what goes out is made by `compression`.
    ServerPerMessageDeflateFactory(server_no_context_takeover=False, client_no_context_takeover=True)
]

_log = logging.getLogger("logrelay.websockets")
_log.addHandler(logging.NullHandler())
_log.propagate = False
_log.setLevel(logging.CRITICAL)


class ConnectionRegistry(Protocol):
    """Who keeps the connections and knows how many there may be. Called on the event loop."""

    def add(self, connection: ViewerConnection) -> bool:
        """Take up a new connection; False when there are too many."""

    def refuse_viewer(self) -> HttpResponse | None:
        """Return the answer for a viewer that is one too many, or None while there is a place for it."""

    def offers_compression(self, peer: str | None) -> bool:
        """Tell whether to offer compression to a viewer at address `peer`."""

    def viewer_opened(self, connection: ViewerConnection) -> None:
        """Count a connection among the viewers."""

    def forget(self, connection: ViewerConnection) -> None:
        """Remove a connection that has ended."""


class ViewerConnection(asyncio.Protocol):
    """One connection, from accept to its end."""

    __slots__ = (
        "_body_task",
        "_closing",
        "_loop",
        "_peer",
        "_protocol",
        "_reading_paused",
        "_registry",
        "_service",
        "_session",
        "_timer",
        "_transport",
        "_unanswered_pings",
        "_writing_paused",
        "_writing_resumed",
        "token",
    )

    def __init__(self, registry: ConnectionRegistry, service: ViewerService, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._service = service
        self._loop = loop
        self._protocol = ServerProtocol(max_size=MAX_REQUEST_BYTES, logger=_log)
        self._transport: asyncio.Transport | None = None
        self._peer: str | None = None
        self._session: Session | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Aborts the connection when it rings."""
        self._body_task: asyncio.Task[None] | None = None
        """Writes a response body of unknown length."""
        self._writing_paused = False
        self._writing_resumed: asyncio.Event | None = None
        """Set while the socket has room; exists while `_body_task` does."""
        self._reading_paused = False
        self._closing = False
        self._unanswered_pings = 0
        self.token: Token | None = None
        """The token by which it was admitted; None: by none, or not yet."""

    # --- transport callbacks --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, at most `HANDSHAKE_TIMEOUT_S`."""
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self._transport = transport
        if not self._registry.add(self):
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
        self._abort_after(HANDSHAKE_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        """Feed the protocol and act on what it makes of the bytes."""
        self._protocol.receive_data(data)
        self._handle_events()

    def eof_received(self) -> bool:
        """Let the protocol conclude; the transport closes when this returns False."""
        self._protocol.receive_eof()
        self._handle_events()
        return False

    def pause_writing(self) -> None:
        """Note that the kernel has no room."""
        self._writing_paused = True
        if self._writing_resumed is not None:
            self._writing_resumed.clear()

    def resume_writing(self) -> None:
        """Go on: everything written has gone to the kernel."""
        self._writing_paused = False
        if self._writing_resumed is not None:
            self._writing_resumed.set()
            return
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        if self._session is not None and not self._closing:
            self._session.writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (why it ended changes nothing)
        """Forget everything about the connection."""
        self._cancel_timer()
        if self._body_task is not None:
            self._body_task.cancel()
        self._registry.forget(self)
        self._transport = None
        session, self._session = self._session, None
        if session is not None:
            session.connection_lost()

    # --- protocol events ------------------------------------------------------------------------------------------

    def _handle_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._handle_request(event)
            elif isinstance(event, Frame):
                self._handle_frame(event)
        self._flush()

    def _flush(self) -> None:
        """Write what the protocol wants written."""
        transport = self._transport
        if transport is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()
        finished = self._protocol.state is CLOSED or (
            self._protocol.close_expected() and self._protocol.state is not OPEN
        )
        if finished and self._body_task is None and not self._closing:
            # The peer may close first, as RFC 6455 section 7.1.1 wants it, but has to do so soon.
            self._closing = True
            self._abort_after(CLOSE_TIMEOUT_S)

    def _abort_after(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, self.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _handle_request(self, request: Request) -> None:
        decision = self._service.decide(request, self._peer)
        self.token = decision.token
        if isinstance(decision, HttpResponse):
            if decision.delay_s:
                self._cancel_timer()
                self._timer = self._loop.call_later(decision.delay_s, self._send_late, decision)
            else:
                self._send_response(decision)
            return
        refusal = self._registry.refuse_viewer()
        if refusal is not None:
            self._send_response(refusal)
            return
        self._open_websocket(request, decision.subprotocol)

    def _send_late(self, response: HttpResponse) -> None:
        self._send_response(response)
        self._flush()

    def _open_websocket(self, request: Request, subprotocol: str | None) -> None:
        protocol = self._protocol
        if self._registry.offers_compression(self._peer):
            protocol.available_extensions = _OFFERED_COMPRESSION
        response = protocol.accept(request)
        if response.status_code == 101 and subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        protocol.send_response(response)
        self._flush()
        if response.status_code != 101:
            return
        self._cancel_timer()
        self._registry.viewer_opened(self)
        deflate = any(map(_shares_context, protocol.extensions))
        self._session = self._service.open(
            self, request.path, subprotocol=subprotocol, deflate=deflate, token=self.token
        )

    def _handle_frame(self, event: Frame) -> None:
        if event.opcode is Opcode.PONG:
            self._unanswered_pings = 0
        elif event.opcode is Opcode.TEXT and self._session is not None and not self._closing:
            if event.fin:
                self._handle_text(self._session, bytes(event.data))
            else:
                self.close(CloseCode.MESSAGE_TOO_BIG, "send a request in one frame")
        elif event.opcode in (Opcode.BINARY, Opcode.CONT) and self._session is not None and not self._closing:
            self.close(CloseCode.UNSUPPORTED_DATA, "send text")

    def _handle_text(self, session: Session, text: bytes) -> None:
        try:
            text.decode()
        except UnicodeDecodeError:
            self.close(CloseCode.INVALID_DATA, "text has to be UTF-8")
            return
        session.message_received(text)

    # --- plain HTTP -----------------------------------------------------------------------------------------------

    def _send_response(self, response: HttpResponse) -> None:
        made = self._protocol.reject(response.status, "")
        fields = Headers()
        fields["Date"] = made.headers["Date"]
        fields["Connection"] = "close"
        body = response.body
        if not isinstance(body, bytes):
            for name, value in response.headers:
                fields[name] = value
            head = Response(response.status, made.reason_phrase, fields).serialize()
            self._cancel_timer()
            self._writing_resumed = asyncio.Event()
            self._writing_resumed.set()
            self._body_task = self._loop.create_task(self._send_stream(head, body, self._writing_resumed))
            return
        fields["Content-Length"] = str(len(body))
        for name, value in response.headers:
            if name.lower() == "content-length":
                del fields["Content-Length"]  # the answer to HEAD names the length of what GET would send
            fields[name] = value
        if "Content-Type" not in fields:
            fields["Content-Type"] = "text/plain; charset=utf-8"
        made.body = body
        self._protocol.send_response(Response(response.status, made.reason_phrase, fields, body))
        self._abort_after(HANDSHAKE_TIMEOUT_S)

    async def _send_stream(self, head: bytes, chunks: AsyncGenerator[bytes, None], resumed: asyncio.Event) -> None:
        """Write a body of unknown length, waiting for the socket; the end of the connection is its end."""
        transport = self._transport
        assert transport is not None
        try:
            transport.write(head)
            async for chunk in chunks:
                transport.write(chunk)
                await asyncio.wait_for(resumed.wait(), STREAM_TIMEOUT_S)
            transport.close()
        except Exception:
            self.reset()
        finally:
            await chunks.aclose()

    # --- what the session and the hub call (session.ViewerSocket) -------------------------------------------------

    @property
    def writing_paused(self) -> bool:
        """True while the socket has no room."""
        return self._writing_paused

    def write(self, payload: bytes) -> bool:
        """Send ready-made frames. Returns False when the socket is full; `Session.writing_resumed` follows."""
        transport = self._transport
        if transport is None or self._closing:
            return False
        transport.write(payload)
        return not self._writing_paused

    def send(self, text: bytes) -> None:
        """Send one text message. A viewer that does not read its answers is not read from until it does."""
        transport = self._transport
        if transport is None or self._closing:
            return
        transport.write(frame(text))
        if self._writing_paused and not self._reading_paused and transport.is_reading():
            self._reading_paused = True
            transport.pause_reading()

    def close(self, code: int, reason: str) -> None:
        """Close with a code of `messages.CLOSE_CODES`; the connection is cut if the peer does not answer in time."""
        protocol = self._protocol
        if protocol.state is OPEN:
            protocol.send_close(code, reason)
            self._flush()
            self._closing = True
            self._abort_after(CLOSE_TIMEOUT_S)
        elif self._session is None:
            self.reset()

    # --- what the server calls ------------------------------------------------------------------------------------

    @property
    def shows_lines(self) -> bool:
        """True while lines are, or may be, on their way to the peer."""
        return self._body_task is not None or (self._session is not None and not self._closing)

    def ping(self) -> None:
        """Ask for a pong, or close when the last `PINGS_UNANSWERED` pings had none."""
        if self._closing or self._protocol.state is not OPEN:
            return
        if self._unanswered_pings >= PINGS_UNANSWERED:
            self.close(CloseCode.INTERNAL_ERROR, "no answer to pings")
            return
        self._unanswered_pings += 1
        try:
            self._protocol.send_ping(PING_PAYLOAD)
        except ProtocolError:
            return
        self._flush()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Cut the connection by a reset: only that tells a client not to take half a body for the whole."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()


def _shares_context(extension: object) -> bool:
    """Tell whether the client keeps a whole window between messages; one that does not is served uncompressed."""
    return (
        isinstance(extension, PerMessageDeflate)
        and not extension.local_no_context_takeover
        and extension.local_max_window_bits == WINDOW_BITS
    )
