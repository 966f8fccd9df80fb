"""A raw WebSocket viewer connection and the byte streams that servers put on it.

Owns: the client handshake, frames -> messages, messages -> lines. It must not know what is measured.
`viewers` drives it. Without I/O apart from `Connection`; no library is used, so that a viewer costs a fraction of
what a server does.
"""

from __future__ import annotations

import base64
import os
import socket
import zlib

from lines import masked

HOST = "127.0.0.1"
RECEIVE_BYTES = 1 << 18
"""One read: more than a loopback socket usually holds, so that one wake-up is one read."""
HANDSHAKE_SECONDS = 10.0
NATS_HELLO = b'CONNECT {"verbose":false,"no_responders":false}\r\nSUB logs 1\r\n'
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Frames:
    """The messages in a server's WebSocket byte stream, inflated where permessage-deflate was agreed on."""

    def __init__(self, deflate: bool) -> None:
        # One decompressor for the connection also reads a stream whose sender forgets its window after each message.
        self._inflate = zlib.decompressobj(-15) if deflate else None
        self._buffer = b""
        self._parts: list[bytes] = []
        self._opcode = TEXT
        self._packed = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes as they came; return the messages (opcode, payload) that are now complete."""
        buffer = self._buffer + data if self._buffer else data
        out: list[tuple[int, bytes]] = []
        at, end = 0, len(buffer)
        while end - at >= 2:
            first, size, head = buffer[at], buffer[at + 1], at + 2
            if size == 126:
                size, head = int.from_bytes(buffer[head : head + 2], "big"), head + 2
            elif size == 127:
                size, head = int.from_bytes(buffer[head : head + 8], "big"), head + 8
            if head + size > end:
                break
            payload, at = buffer[head : head + size], head + size
            opcode = first & 0x0F
            if opcode >= CLOSE:
                out.append((opcode, payload))
                continue
            if opcode:
                self._opcode, self._packed, self._parts = opcode, bool(first & 0x40), []
            self._parts.append(payload)
            if first & 0x80:
                whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                if self._packed and self._inflate is not None:
                    whole = self._inflate.decompress(whole + b"\0\0\xff\xff")
                out.append((self._opcode, whole))
        self._buffer = buffer[at:]
        return out


class NatsMessages:
    """The payloads of the MSG operations in a NATS client stream."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came; return the payloads that are now complete."""
        buffer, at = self._buffer + data, 0
        out: list[bytes] = []
        while (end := buffer.find(b"\r\n", at)) >= 0:
            if not buffer.startswith(b"MSG ", at):  # INFO, PING, +OK
                at = end + 2
                continue
            size = int(buffer[at:end].rsplit(b" ", 1)[1])
            if end + 2 + size + 2 > len(buffer):
                break
            out.append(buffer[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
        self._buffer = buffer[at:]
        return out


class Connection:
    """One viewer: a socket after its handshake, and what it has counted."""

    def __init__(
        self, port: int, path: str, *, dialect: str = "plain", deflate: bool = False, subprotocol: str = ""
    ) -> None:
        """Connect and upgrade. Raises OSError if the server does not agree to exactly what was asked for."""
        self.socket = socket.create_connection((HOST, port), timeout=HANDSHAKE_SECONDS)
        try:
            self._rest = self._handshake(port, path, deflate, subprotocol)
            if dialect == "nats":
                self.socket.sendall(masked(BINARY, NATS_HELLO))
            self.socket.setblocking(False)
        except BaseException:
            self.socket.close()
            raise
        self.deflate = deflate
        self.frames = Frames(deflate)
        self.bytes = 0
        """Received since `begin`, WebSocket frame headers included."""
        self.count = 0
        self.expected = 0
        self.ended = ""
        """Why the connection is over; empty while it is not."""
        self._tail = b""

    def _handshake(self, port: int, path: str, deflate: bool, subprotocol: str) -> bytes:
        request = [
            f"GET {path} HTTP/1.1",
            f"Host: {HOST}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if deflate:  # what every browser offers
            request.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        if subprotocol:
            request.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        self.socket.sendall("\r\n".join([*request, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.socket.recv(4096)
            if not data:
                raise ConnectionError(f"closed during the handshake: {answer[:80]!r}")
            answer += data
        head, rest = answer.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"no upgrade: {answer[:120]!r}")
        if subprotocol and f"sec-websocket-protocol: {subprotocol}".encode() not in head.lower():
            raise ConnectionError(f"the server did not agree to the subprotocol {subprotocol}")
        if deflate and b"permessage-deflate" not in head:
            raise ConnectionError("the server did not agree to compress")
        return rest

    def begin(self, expected: int) -> None:
        """Forget what was counted; `expected` lines are to come."""
        self.count = self.bytes = 0
        self.expected = expected
        self._tail = b""

    def read(self) -> bytes:
        """Return what has arrived, b"" if that is nothing or the end (`ended` tells)."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.ended = str(error)
            return b""
        if not data:
            self.ended = "closed by the server"
        self.bytes += len(data)
        return data

    def count_lines(self, data: bytes, mark: bytes) -> bool:
        """Count the marks in what arrived, those cut by the end of a read too; True when the last expected one came."""
        if self.deflate:
            data = b"".join([payload for opcode, payload in self.frames.feed(data) if opcode < CLOSE])
        joined = self._tail + data
        before = self.count
        self.count += joined.count(mark)
        self._tail = joined[1 - len(mark) :]
        return before < self.expected <= self.count
