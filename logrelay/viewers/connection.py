"""One TCP connection on the viewers' port: an HTTP request, and then perhaps a WebSocket.

Owns: the handshake, frames in and out, flow control of the socket, ping and close of one connection. It must not know
the journal, the traders or what a line is: what a request is answered with and what a viewer is told are the service's.
The protocol itself is in `viewers/websocket`, and what an answer over plain HTTP looks like in `viewers/plain_answer`.
Read `viewers/service` next, and `static/client.js` for the other end.

Log lines bypass the library: the hub hands over ready frames, the same bytes object for every viewer with an equal
subscription, and they go straight to the transport. Only what concerns one viewer (handshake, ping, close) passes
through the protocol object.

The module is long because one connection is one state machine: head, handshake, messages, flow control and end. What
was written and not read yet is part of it: it decides whether anything is read, and when the connection may end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from functools import partial, wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from websockets.datastructures import Headers
from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

from logrelay import budgets
from logrelay.access.tokens import Token
from logrelay.budgets import Allowance
from logrelay.errors import RequestError
from logrelay.fanout.batch import frame
from logrelay.http.request_head import HeadReader, Malformed, RequestHead
from logrelay.http.response import HttpResponse
from logrelay.viewers import messages
from logrelay.viewers.acknowledged import acknowledged_bytes
from logrelay.viewers.forwarded import forwarding_header
from logrelay.viewers.plain_answer import AnswerStream, answer_head
from logrelay.viewers.requests import Subscribe, names_device, parse_request
from logrelay.viewers.service import Explain, Upgrade, ViewerService
from logrelay.viewers.session import Session
from logrelay.viewers.websocket import (
    answer_handshake,
    break_cycles,
    drop_compressors,
    frame_size,
    shares_window,
    whole_frames,
)

HANDSHAKE_TIMEOUT_S = 10.0
"""From connect to a complete request, and from an answer to the end of the connection."""

PINGS_UNANSWERED = 3
"""A phone that sleeps answers late; after this many unanswered pings it is gone. Being wrong costs it a reconnect."""

EXPLAIN_WITHIN_S = 5.0
"""Time to subscribe for a client that is to be told that it needs a token; an app does it at once."""

CLOSE_TIMEOUT_S = 3.0
"""Time for the closing handshake before the connection is cut."""

MAX_DROPPED_BYTES = 1024 * 1024
"""Read and thrown away behind a request, a body or more requests, so that its sender sees the answer and no reset."""

DROP_PAUSE_S = 0.05
"""Between two reads of what is thrown away, `budgets.READ_BYTES` each."""

NOTSENT_BYTES = 512 * 1024
"""Unsent bytes the kernel takes for one viewer (TCP_NOTSENT_LOWAT, tcp(7)): two thousand lines, enough for a burst.
Without it a suspended phone would have megabytes of old lines in the kernel's buffer, beyond anybody's reach."""

PING_PAYLOAD = b"logrelay"

_OPCODE_BITS = 0x0F
"""Of a frame's first byte (RFC 6455 section 5.2)."""

_TCP_NOTSENT_LOWAT: int = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
"""Python 3.11 does not export it; 25 is Linux's number."""

_NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER with no time (socket(7)): closing sends a reset, and drops what was not sent."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _closing_on_error(
    callback: Callable[Concatenate[ViewerConnection, _P], _R],
) -> Callable[Concatenate[ViewerConnection, _P], _R | None]:
    """Close the connection when a callback raises, and report the error where the loop's others are reported.

    What a peer has brought about must not cost more than its own connection, nor a traceback each time.
    """

    @wraps(callback)
    def guarded(self: ViewerConnection, /, *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return callback(self, *args, **kwargs)
        except Exception as error:
            self.failed(error)
            return None

    return guarded


class ConnectionRegistry(Protocol):
    """Who keeps the connections and knows how many there may be. Called on the event loop."""

    def add(self, connection: ViewerConnection) -> bool:
        """Take up a new connection; False when there are too many."""

    def refuse_viewer(self, connection: ViewerConnection) -> HttpResponse | None:
        """Return the answer for a viewer that is one too many, or None: there is a place for it, or one is made."""

    def offers_compression(self, peer: str | None) -> bool:
        """Tell whether to offer compression to a viewer at address `peer`."""

    def viewer_opened(self, connection: ViewerConnection) -> None:
        """Count a connection among the viewers."""

    def answering(self, connection: ViewerConnection) -> None:
        """Count a connection among those that get a plain answer."""

    def streaming(self, connection: ViewerConnection) -> None:
        """Count a connection among those that get an answer of unknown length, until it is forgotten."""

    @property
    def streams_are_full(self) -> bool:
        """Whether so many of them are under way that others are refused."""

    def forget(self, connection: ViewerConnection) -> None:
        """Remove a connection that has ended."""

    @property
    def read_buffer(self) -> memoryview:
        """What is read into, by one connection after another."""

    def request_turn(self, connection: ViewerConnection) -> None:
        """Have `take_turn` called once, at once or in a later turn of the loop."""

    def charge(self, connection: ViewerConnection, count: int) -> None:
        """Note that so many undecoded bytes are held for a connection now."""

    def charge_unread(self, connection: ViewerConnection, count: int, shared: bytes | None = None) -> None:
        """Note that so many bytes wait for a connection to read; `shared` if they may for others as well.

        When there are too many of all, somebody is cut, perhaps this connection.
        """

    def exceeded(self, cause: str, times: int = 1) -> None:
        """Count that a limit was met, by a key of `budgets.CAUSES`."""


class ViewerConnection(asyncio.BufferedProtocol):
    """One connection, from accept to its end."""

    __slots__ = (
        "_allowance",
        "_answer_delayed",
        "_answer_waits",
        "_at_end",
        "_charged",
        "_close_code",
        "_closing",
        "_direct",
        "_drop_timer",
        "_dropped_bytes",
        "_explanation",
        "_fragments",
        "_head_reader",
        "_heartbeat",
        "_inbox",
        "_loop",
        "_peer",
        "_peer_ended",
        "_pongs_due",
        "_protocol",
        "_reading_paused",
        "_registry",
        "_service",
        "_session",
        "_stream",
        "_throttle",
        "_timer",
        "_transport",
        "_turn_requested",
        "_unanswered_pings",
        "_unread",
        "_unsent",
        "_unsent_bytes",
        "_writing_paused",
        "bytes_written",
        "token",
    )

    def __init__(self, registry: ConnectionRegistry, service: ViewerService, loop: asyncio.AbstractEventLoop) -> None:  # noqa: PLR0915
        self._registry = registry
        self._service = service
        self._loop = loop
        self._head_reader: HeadReader | None = HeadReader()
        """None once there has been a request, or what was to be one."""
        self._dropped_bytes = 0
        self._protocol: ServerProtocol | None = None
        """Exists once a WebSocket is to be opened: a client that only asks need not pay for it."""
        self._transport: asyncio.Transport | None = None
        self._peer: str | None = None
        self._session: Session | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Aborts the connection when it rings."""
        self._stream: AnswerStream | None = None
        """An answer of unknown length."""
        self._writing_paused = False
        self._reading_paused = False
        self._closing = False
        self._close_code = 0
        """The code that it was closed with; 0: not yet, or by the peer."""
        self._peer_ended = False
        """The peer said goodbye, or that it sends nothing more."""
        self._explanation = ""
        """The line to answer a subscription with, for a client that is not let in; empty: it is no such client."""
        self._direct = True
        """The request does not show a proxy."""
        self._unanswered_pings = 0
        self._heartbeat = b""
        """Of an answer over plain HTTP that goes on with new lines; empty for any other."""
        self._pongs_due = 0
        """Answers to `send_ping` that are still to come; they do not count among the viewer's messages."""
        self.bytes_written = 0
        """Bytes given to the transport."""
        self.token: Token | None = None
        """The token by which it was admitted; None: by none, or not yet."""
        self._inbox = bytearray()
        """Read and not acted on yet: one message is acted on in each turn."""
        self._fragments: bytearray | None = None
        """The beginning of a message that comes in several frames; the protocol bounds it to `MAX_REQUEST_BYTES`."""
        self._charged = 0
        """Bytes that the registry was told are held."""
        self._turn_requested = False
        self._allowance = Allowance(loop.time())
        self._drop_timer: asyncio.TimerHandle | None = None
        """At its end what is behind the request is thrown away on."""
        self._throttle: asyncio.TimerHandle | None = None
        """Runs while the viewer has sent more messages than it may."""
        self._answer_delayed = False
        """An answer to a wrong token is to be sent later."""
        self._answer_waits = False
        """The viewer does not read its answers: nothing more is acted on until it does."""
        self._unsent: deque[bytes] = deque()
        """What was written and is not with the transport yet: the slices of a long answer, and what came behind it."""
        self._unsent_bytes = 0
        """Bytes in it."""
        self._unread = 0
        """Bytes that the registry was told are waiting, here and in the transport."""
        self._at_end: Callable[[asyncio.Transport], None] | None = None
        """What is to be done when all of it is written."""

    # --- transport callbacks --------------------------------------------------------------------------------------

    @_closing_on_error
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, at most `HANDSHAKE_TIMEOUT_S`."""
        transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self._transport = transport
        name = transport.get_extra_info("peername")
        self._peer = name[0] if isinstance(name, tuple) else None
        if not self._registry.add(self):
            transport.abort()
            return
        # The buffer holds only what the kernel refused: at most one segment, because `write` then says stop.
        # With TLS a limit of 0 would be reached by an empty buffer, and nothing would ever end the pause.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_BYTES)
        self._abort_after(HANDSHAKE_TIMEOUT_S)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (one size for all)
        """Return where to read to: `budgets.READ_BYTES` at once, shared by all connections.

        A view, since asyncio's TLS reads on into slices of it, and a slice of a bytearray is a copy.
        """
        return self._registry.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self.data_received(bytes(self._registry.read_buffer[:nbytes]))

    @_closing_on_error
    def data_received(self, data: bytes) -> None:
        """Keep what was read until its turn comes; drop what is behind a request, which nobody needs."""
        if self._protocol is None and self._head_reader is None:
            self._drop(len(data))
            return
        self._inbox += data
        self._proceed()

    def _drop(self, size: int) -> None:
        """Throw away what is behind a request, a little at a time: a crowd with megabytes would keep the loop busy."""
        self._dropped_bytes += size
        if self._dropped_bytes > MAX_DROPPED_BYTES:
            self.abort()
        elif self._transport is not None and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
            self._drop_timer = self._loop.call_later(DROP_PAUSE_S, self._drop_more)

    def _drop_more(self) -> None:
        self._drop_timer = None
        if self._transport is not None and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()

    @_closing_on_error
    def eof_received(self) -> bool:
        """Conclude; the transport closes when this returns False. An answer that is to wait is still sent."""
        if self._inbox and not self._closing:
            self._feed(len(self._inbox))  # the last words, all at once: nothing comes behind them
        self._peer_ended = True
        if self._protocol is not None:
            self._protocol.receive_eof()
            self._handle_events(self._protocol)
        elif self._head_reader is not None:
            self._handle_head(self._head_reader.receive_eof())
        transport = self._transport
        if transport is None or not transport.can_write_eof():
            return False  # with TLS there is no half of a connection to keep open
        if self._unsent:
            self._at_end = self._close_soon  # a transport that closes takes nothing more
            return True
        return self._answer_delayed

    # --- one message a turn -----------------------------------------------------------------------------------------

    def _proceed(self) -> None:
        """Ask for a turn when a message is complete; read on when none waits."""
        transport = self._transport
        if transport is None or self._turn_requested or self._throttle is not None:
            return
        ready = self._next_size() is not None
        if ready and not self._answer_waits:
            self._turn_requested = True
            self._registry.request_turn(self)
            ready = self._turn_requested  # False: it has been taken already, and looked at what came then
            if not ready:
                return
        if (ready or self._answer_waits) and not self._reading_paused:
            self._reading_paused = True
            transport.pause_reading()
        elif not (ready or self._answer_waits) and self._reading_paused:
            self._reading_paused = False
            transport.resume_reading()
        self._note_charge()

    def _next_size(self) -> int | None:
        """Return how many bytes of the inbox to act on next; None: a message is not complete."""
        inbox = self._inbox
        if self._session is None:
            return len(inbox) or None
        if self._closing:
            return max((end for _, end in whole_frames(inbox)), default=None)
        return frame_size(inbox)

    @_closing_on_error
    def take_turn(self) -> None:
        """Act on one message. Called by the registry, once for each `request_turn`."""
        self._turn_requested = False
        if self._transport is None or self._answer_waits:
            return
        size = self._next_size()
        if size is None:
            return
        if self._pongs_due and self._inbox[0] & 0x0F == Opcode.PONG:
            self._pongs_due -= 1
        elif self._session is not None:
            wait_s = self._allowance.take(self._loop.time())
            if wait_s:
                self._throttle = self._loop.call_later(wait_s, self._on_allowance)
                self._registry.exceeded("messages")
                if not self._reading_paused:
                    self._reading_paused = True
                    self._transport.pause_reading()
                return
        self._feed(size)
        self._proceed()

    @_closing_on_error
    def _on_allowance(self) -> None:
        self._throttle = None
        self._proceed()

    def _feed(self, size: int) -> None:
        """Act on the beginning of the inbox."""
        data = bytes(memoryview(self._inbox)[:size])
        del self._inbox[:size]
        if self._closing and self._session is not None:
            # Of what comes behind the end only the peer's own close matters; thousands of frames are thrown away.
            ends = (data[start:end] for start, end in whole_frames(data) if data[start] & _OPCODE_BITS == Opcode.CLOSE)
            data = next(ends, b"")
        if self._protocol is not None:
            self._protocol.receive_data(data)
            self._handle_events(self._protocol)
        elif self._head_reader is not None:
            self._handle_head(self._head_reader.receive(data))

    def _note_charge(self) -> None:
        """Tell the registry how much is held, when that has changed."""
        charged = len(self._inbox) + len(self._fragments or b"")
        if charged != self._charged:
            self._charged = charged
            self._registry.charge(self, charged)

    def pause_writing(self) -> None:
        """Note that the kernel has no room."""
        self._writing_paused = True
        if self._stream is not None:
            self._stream.pause_writing()

    @_closing_on_error
    def resume_writing(self) -> None:
        """Go on: everything written has gone to the kernel."""
        self._writing_paused = False
        if self._stream is not None:
            self._stream.resume_writing()
            return
        if self._unsent and self._transport is not None:
            self._write_on(self._transport)
            if self.writing_paused:
                return
        elif self._unread:
            self._unread = 0
            self._registry.charge_unread(self, 0)
        self._answer_waits = False
        self._proceed()
        if self._session is not None and not self._closing:
            self._session.writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (why it ended changes nothing)
        """Forget everything about the connection."""
        self._cancel_timer()
        if self._throttle is not None:
            self._throttle.cancel()
            self._throttle = None
        if self._drop_timer is not None:
            self._drop_timer.cancel()
            self._drop_timer = None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
        self._registry.forget(self)
        session, self._session = self._session, None
        if session is not None:
            session.connection_lost(in_order=self._peer_ended)
        self._transport = None
        self._inbox.clear()
        self._fragments = None
        self._unsent.clear()
        self._unsent_bytes = 0
        self._at_end = None
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            break_cycles(protocol)

    def failed(self, error: Exception) -> None:
        """Report an error that nobody expected, and cut the connection."""
        self._loop.call_exception_handler({"message": "a viewer's connection failed", "exception": error})
        self.abort()

    # --- the WebSocket's protocol ---------------------------------------------------------------------------------

    def _handle_events(self, protocol: ServerProtocol) -> None:
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._handle_frame(event)
        self._flush(protocol)

    def _flush(self, protocol: ServerProtocol) -> None:
        """Write what the protocol wants written."""
        transport = self._transport
        if transport is None:
            return
        for data in protocol.data_to_send():
            if data:
                self._write(transport, data)
                self._answer_waits = self._answer_waits or (self.writing_paused and self._session is not None)
            elif transport.can_write_eof():
                self._when_written(transport, _end_writing)
        finished = protocol.state is CLOSED or (protocol.close_expected() and protocol.state is not OPEN)
        if finished and not self._closing:
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

    # --- the request ----------------------------------------------------------------------------------------------

    def _handle_head(self, head: RequestHead | Malformed | None) -> None:
        if head is None:
            return
        self._head_reader = None
        if isinstance(head, Malformed):
            self._refuse(head)
            return
        request = Request(head.target, Headers(head.fields), head.method, f"HTTP/{head.version}")
        self._direct = forwarding_header(name for name, _ in head.fields) is None
        self._peer = self._service.client_of(request, self._peer)
        decision = self._service.decide(request, self._peer)
        self.token = decision.token
        if isinstance(decision, Upgrade) or (isinstance(decision, HttpResponse) and decision.follow is not None):
            decision = self._registry.refuse_viewer(self) or decision
        if isinstance(decision, HttpResponse):
            head_only = head.method == "HEAD"
            if decision.delay_s:
                self._cancel_timer()
                self._answer_delayed = True
                send = partial(self._send_response, decision, head_only=head_only)
                self._timer = self._loop.call_later(decision.delay_s, send)
            else:
                self._send_response(decision, head_only=head_only)
            return
        fault = head.malformed_for_websocket()
        if fault is not None:
            self._refuse(fault)
            return
        if isinstance(decision, Explain):
            self._cancel_timer()
            self._timer = self._loop.call_later(decision.delay_s, self._open_for_explanation, request, decision)
            return
        self._open_websocket(request, decision.subprotocol)

    def _refuse(self, fault: Malformed) -> None:
        self._service.count_malformed(fault.reason)
        self._send_response(HttpResponse(fault.status, (), f"{fault.message}\n".encode()))

    def _accept(self, request: Request, subprotocol: str | None, *, compress: bool) -> ServerProtocol | None:
        """Answer a handshake; None: it was none after all, and has been refused."""
        protocol = answer_handshake(request, subprotocol, compress=compress)
        if isinstance(protocol, HttpResponse):
            self._send_response(protocol)
            return None
        self._protocol = protocol
        self._flush(protocol)
        self._cancel_timer()
        return protocol

    @_closing_on_error
    def _open_for_explanation(self, request: Request, decision: Explain) -> None:
        """Open a WebSocket that is closed as soon as the client has said something, or soon.

        It keeps its place among the connections without a complete request: it is no viewer.
        """
        self._timer = None
        if self._accept(request, decision.subprotocol, compress=False) is not None:
            self._explanation = decision.text
            self._timer = self._loop.call_later(EXPLAIN_WITHIN_S, self._explain, b"")

    def _explain(self, text: bytes) -> None:
        """Close, and before that say why to a client that subscribes and would not see it otherwise."""
        reason, self._explanation = self._explanation, ""
        transport = self._transport
        with contextlib.suppress(RequestError):
            if text and transport is not None and isinstance(parse_request(text), Subscribe):
                self._write(transport, frame(messages.needs_token(reason, int(time.time() * 1e6))))
        self.close(messages.CLOSE_NEEDS_TOKEN, reason.partition(":")[0])

    def _open_websocket(self, request: Request, subprotocol: str | None) -> None:
        # What a device has received is counted in lines, and compressed ones cannot be told apart.
        compress = self._registry.offers_compression(self._peer) and not names_device(request.path)
        protocol = self._accept(request, subprotocol, compress=compress)
        if protocol is None:
            return
        self._registry.viewer_opened(self)
        deflate = shares_window(protocol)
        drop_compressors(protocol)
        self._session = self._service.open(
            self, request.path, subprotocol=subprotocol, deflate=deflate, token=self.token
        )

    def _handle_frame(self, event: Frame) -> None:
        if event.opcode is Opcode.PONG:
            self._unanswered_pings = 0
            if self._session is not None:
                self._session.pong_received(bytes(event.data))
        elif event.opcode is Opcode.CLOSE:
            self._peer_ended = True
            # The answer to a close repeats its code; with another one the two have crossed on the way.
            if self._session is not None and self._close_code and event.data[:2] == self._close_code.to_bytes(2, "big"):
                self._session.close_answered()
        elif self._explanation:
            if event.opcode is Opcode.TEXT:
                self._explain(bytes(event.data))
        elif event.opcode in (Opcode.TEXT, Opcode.CONT) and self._session is not None and not self._closing:
            if event.opcode is Opcode.TEXT and event.fin:
                self._handle_text(self._session, bytes(event.data))
                return
            # RFC 6455, section 5.4. That a message begins before it goes on, and is not too long, the protocol sees to.
            begun = self._fragments if self._fragments is not None else bytearray()
            begun += event.data
            self._fragments = None if event.fin else begun
            if event.fin:
                self._handle_text(self._session, bytes(begun))
        elif event.opcode is Opcode.BINARY and self._session is not None and not self._closing:
            self.close(CloseCode.UNSUPPORTED_DATA, "send text")

    def _handle_text(self, session: Session, text: bytes) -> None:
        try:
            text.decode()
        except UnicodeDecodeError:
            self.close(CloseCode.INVALID_DATA, "text has to be UTF-8")
            return
        session.message_received(text)

    # --- plain HTTP -----------------------------------------------------------------------------------------------

    def _send_response(self, response: HttpResponse, *, head_only: bool = False) -> None:
        """Answer, and end the connection; `head_only`: the request was HEAD, so the body stays here."""
        transport = self._transport
        if transport is None:
            return
        if response.follow is None:
            self._registry.answering(self)
        body = response.body
        is_whole = isinstance(body, bytes) and response.follow is None and response.status not in (204, 304)
        length = len(body) if is_whole and isinstance(body, bytes) else None
        head = answer_head(response.status, response.headers, length, int(time.time()))
        if response.follow is not None:
            self._cancel_timer()
            self._heartbeat = response.follow.heartbeat
            self._registry.viewer_opened(self)
            self._write(transport, head)
            self._session = self._service.follow(self, response.follow, token=self.token)
            return
        if not isinstance(body, bytes):
            self._cancel_timer()
            self._registry.streaming(self)
            self._stream = AnswerStream(transport, head, body, limits=self._registry, reset=self.reset, loop=self._loop)
            return
        self._write(transport, head if head_only else head + body)
        if transport.can_write_eof():
            # Reading goes on for a moment: closed with bytes unread, it would be a reset.
            self._when_written(transport, _end_writing)
            self._abort_after(HANDSHAKE_TIMEOUT_S)
        else:
            self._when_written(transport, _close)

    # --- what the session and the hub call (session.ViewerSocket) -------------------------------------------------

    @property
    def peer(self) -> str | None:
        """The address of the other end; None where it has none."""
        return self._peer

    @property
    def writing_paused(self) -> bool:
        """True while the socket has no room."""
        return self._writing_paused or bool(self._unsent)

    def write(self, payload: bytes) -> bool:
        """Send ready-made frames. Returns False when the socket is full; `Session.writing_resumed` follows."""
        transport = self._transport
        if transport is None or self._closing or transport.is_closing():
            return False
        if self._unsent:
            self._write(transport, payload)
            return False
        self.bytes_written += len(payload)
        transport.write(payload)
        if not self._writing_paused:
            return True
        self._unread = len(payload)
        self._registry.charge_unread(self, self._unread, payload)
        return False

    def _write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write what is for this connection alone: of a long answer what the socket takes, and the rest as it does.

        So what waits can be counted, whatever is between this and the socket.
        """
        self.bytes_written += len(data)
        step = budgets.ANSWER_SLICE_BYTES
        self._unsent.extend(data[start : start + step] for start in range(0, len(data), step))
        self._unsent_bytes += len(data)
        if len(self._unsent) == 1 or not self._writing_paused:
            self._write_on(transport)
        else:
            self._note_unread(transport)

    def _write_on(self, transport: asyncio.Transport) -> None:
        """Write what waits: the first slice, whatever room there is, and as long as there is some the others."""
        while self._unsent:
            data = self._unsent.popleft()
            self._unsent_bytes -= len(data)
            transport.write(data)
            if self._writing_paused:
                break
        self._note_unread(transport)
        if self._at_end is not None and not self._unsent:
            at_end, self._at_end = self._at_end, None
            at_end(transport)

    def _note_unread(self, transport: asyncio.Transport) -> None:
        """Tell the registry how much waits to be read, when that has changed."""
        unread = self._unsent_bytes + (transport.get_write_buffer_size() if self._writing_paused else 0)
        if unread != self._unread:
            self._unread = unread
            self._registry.charge_unread(self, unread)

    def _when_written(self, transport: asyncio.Transport, do: Callable[[asyncio.Transport], None]) -> None:
        """Have something done when all is with the transport, now or later."""
        if self._unsent:
            self._at_end = do
        else:
            do(transport)

    def _close_soon(self, transport: asyncio.Transport) -> None:
        """Close in the next turn: a transport of asyncio that is closed while it tells of room ends twice."""
        self._loop.call_soon(transport.close)

    def acknowledged_bytes(self) -> int | None:
        """Return how many bytes the kernel at the other end has acknowledged.

        None: it is not known, or is that of somebody in between.
        """
        transport = self._transport
        if transport is None or not self._direct or transport.get_extra_info("sslcontext") is not None:
            return None
        return acknowledged_bytes(transport.get_extra_info("socket"))

    def send_ping(self, payload: bytes) -> None:
        """Send a ping; its answer goes to the session."""
        transport, protocol = self._transport, self._protocol
        if transport is None or self._closing or protocol is None or protocol.state is not OPEN:
            return
        with contextlib.suppress(ProtocolError):  # one with this payload is under way
            protocol.send_ping(payload)
            self._pongs_due = min(self._pongs_due + 1, budgets.PONGS_DUE)
        for data in protocol.data_to_send():
            if data:
                self._write(transport, data)

    def send(self, text: bytes) -> None:
        """Send one text message. A viewer that does not read its answers is not read from until it does."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._write(transport, frame(text))
        if self.writing_paused:
            self._answer_waits = True
            self._proceed()

    def close(self, code: int, reason: str) -> None:
        """Close with a code of `messages.CLOSE_CODES`; the connection is cut if the peer does not answer in time."""
        protocol = self._protocol
        if protocol is not None and protocol.state is OPEN:
            protocol.send_close(code, reason)
            self._flush(protocol)
            self._closing = True
            self._close_code = code
            self._abort_after(CLOSE_TIMEOUT_S)
        elif self._session is None:
            self.reset()
        elif self._heartbeat and not self._closing:
            # An answer that goes on has no end of its own: its reader asks again behind the last id.
            self._closing = True
            if self._transport is not None:
                self._when_written(self._transport, _close)
            self._abort_after(CLOSE_TIMEOUT_S)

    # --- what the server calls ------------------------------------------------------------------------------------

    @property
    def shows_lines(self) -> bool:
        """True while lines are, or may be, on their way to the peer."""
        return self._stream is not None or (self._session is not None and not self._closing)

    def ping(self) -> None:
        """Ask for a pong, or close when the last `PINGS_UNANSWERED` pings had none."""
        if self._heartbeat:
            self._beat()
            return
        protocol = self._protocol
        if self._closing or protocol is None or protocol.state is not OPEN:
            return
        if self._unanswered_pings >= PINGS_UNANSWERED:
            self.close(CloseCode.INTERNAL_ERROR, "no answer to pings")
            return
        self._unanswered_pings += 1
        try:
            protocol.send_ping(PING_PAYLOAD)
        except ProtocolError:
            return
        self._flush(protocol)

    def _beat(self) -> None:
        """Show a reader of lines over plain HTTP that the connection lives; cut it when nothing is taken for long."""
        if self._writing_paused:
            self._unanswered_pings += 1
            if self._unanswered_pings > PINGS_UNANSWERED:
                self.abort()
            return
        self._unanswered_pings = 0
        self.write(self._heartbeat)

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


def _close(transport: asyncio.Transport) -> None:
    transport.close()


def _end_writing(transport: asyncio.Transport) -> None:
    with contextlib.suppress(OSError):  # asyncio's own transport asks the socket at once, and the peer may be gone
        transport.write_eof()
