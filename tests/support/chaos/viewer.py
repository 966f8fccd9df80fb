"""A viewer from scratch: RFC 6455 by hand, so that nothing is hidden that a library would smooth over.

Owns: `Viewer`, a thread that reads lines, remembers them, and resumes behind the last id; `Stalled`, a viewer that
never reads. Read `ledger` next.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
import threading
import time
import zlib
from typing import NamedTuple
from urllib.parse import urlencode

import orjson

from tests.support.threads import join
from tests.support.waiting import DEADLINE_S, wait_for

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

RECONNECT_PAUSE_S = 0.01
"""Shorter than a polite client's: the tests want to be there when the relay is."""

LOOK_S = 0.1
"""How often a waiting viewer looks whether it is to stop."""


class Got(NamedTuple):
    """One log message as it came."""

    id: str
    raw: bytes
    at: float
    """When it was read, time.time()."""
    connection: int
    """On which connection of this viewer, from 1."""

    @property
    def data(self) -> dict[str, object]:
        """The decoded message."""
        return orjson.loads(self.raw)


def handshake(
    port: int,
    query: dict[str, object],
    *,
    rcvbuf: int | None = None,
    headers: str = "",
    tls: ssl.SSLContext | None = None,
) -> tuple[socket.socket, bytes, str]:
    """Open a WebSocket; returns it, what came behind the answer's head, and the head. Raises OSError."""
    sock = socket.socket()
    try:
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.settimeout(DEADLINE_S)
        sock.connect(("127.0.0.1", port))
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname="localhost")
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET /?{urlencode(query, doseq=True)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(4096)
            if not more:
                raise ConnectionError("closed during the handshake")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(f"refused: {head.splitlines()[0].decode()}")
    except BaseException:
        sock.close()
        raise
    return sock, rest, head.decode()


def mask(opcode: int, payload: bytes) -> bytes:
    """Build a client frame; the mask is zero, which RFC 6455 does not forbid and which changes nothing."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack(">H", size)
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack(">Q", size)
    return head + bytes(4) + payload


class Viewer:
    """Reads until `stop`; reconnects and resumes behind the last id whenever the connection ends."""

    def __init__(
        self,
        port: int,
        *,
        name: str = "viewer",
        after: str | None = None,
        resume: bool = True,
        chunk: int = 1 << 16,
        pause_s: float = 0.0,
        rcvbuf: int | None = None,
        deflate: bool = False,
        batch: bool = False,
        **query: object,
    ) -> None:
        self.port = port
        self.name = name
        self.query = {"tail": 100_000} | query
        self.resume = resume
        self.chunk = chunk
        self.pause_s = pause_s
        """With `chunk` this makes a slow reader: so many bytes, then a pause. `hurry` ends it."""
        self.rcvbuf = rcvbuf
        self.headers = ""
        if deflate:
            self.headers += "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        if batch:
            self.headers += "Sec-WebSocket-Protocol: logrelay.v1.batch\r\n"
        self._inflate = None
        self.compressed = 0
        """Messages that came compressed."""
        self.arrays = 0
        """Messages that were arrays of lines."""
        self.lines: list[Got] = []
        self.others: list[dict[str, object]] = []
        """connection, subscribed, error and pong messages."""
        self.closes: list[tuple[int, int]] = []
        """Close codes, each with how many lines had come before it."""
        self.connections = 0
        self.last_id = after
        self.error: BaseException | None = None
        self._open = threading.Event()
        self._open.set()
        self._stop = threading.Event()
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # --- for the test ------------------------------------------------------------------------------------------

    def start(self) -> Viewer:
        """Connect, and return when the first `connection` message is there."""
        self._thread.start()
        self.wait(lambda: self.others, "no connection message")
        return self

    def launch(self) -> Viewer:
        """Begin to try to connect; return at once."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the connection and the thread; fail if the viewer saw something impossible."""
        self._stop.set()
        self._open.set()
        if self._thread.ident is not None:
            join(self._thread)
        if self.error is not None:
            raise AssertionError(f"{self.name}: {self.error!r}") from self.error

    def hold(self) -> None:
        """Stop reading."""
        self._open.clear()

    def hurry(self) -> None:
        """Read as fast as possible from now on."""
        self.pause_s, self.chunk = 0.0, 1 << 16
        self._open.set()

    def send(self, message: dict[str, object]) -> None:
        """Send a request."""
        self._sock.sendall(mask(TEXT, orjson.dumps(message)))

    def wait(self, condition, what: str, deadline_s: float = DEADLINE_S):
        """Wait for a condition, or for the viewer to fail."""

        def look():
            if self.error is not None:
                raise AssertionError(f"{self.name}: {self.error!r}") from self.error
            return condition()

        return wait_for(look, lambda: f"{self.name}: {what}; {self.tell()}", deadline_s)

    def wait_for_id(self, seq: int, deadline_s: float = DEADLINE_S) -> None:
        """Wait until it stands at or behind a place in the journal."""
        self.wait(lambda: self.place() >= seq, f"has not reached line {seq}", deadline_s)

    def wait_for_line(self, match, what: str, deadline_s: float = DEADLINE_S) -> Got:
        """Wait for a line whose decoded message `match` accepts; returns the first such line."""
        seen = 0

        def look():
            nonlocal seen
            while seen < len(self.lines):
                seen += 1
                if match(self.lines[seen - 1].data):
                    return self.lines[seen - 1]
            return None

        return self.wait(look, what, deadline_s)

    def wait_for_notice(self, deadline_s: float = DEADLINE_S, **context: object) -> Got:
        """Wait for a line of the relay itself whose context holds these values."""
        return self.wait_for_line(
            lambda data: data["source"] == "logrelay" and context.items() <= data["context"].items(),
            f"no notice with {context}",
            deadline_s,
        )

    def place(self) -> int:
        """Return the seq of the last id."""
        return int(self.last_id.rpartition("-")[2]) if self.last_id else 0

    def tell(self) -> str:
        """Return what happened, for messages of failed tests."""
        notices = [got.raw.decode()[:200] for got in self.lines if b'"source":"logrelay"' in got.raw][-5:]
        return (
            f"{len(self.lines)} lines on {self.connections} connections, last id {self.last_id}, closes {self.closes}, "
            f"last notices {notices}"
        )

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                query = dict(self.query)
                if self.last_id is not None:
                    query["after"] = self.last_id
                try:
                    self._sock, rest, head = handshake(self.port, query, rcvbuf=self.rcvbuf, headers=self.headers)
                except OSError:
                    time.sleep(RECONNECT_PAUSE_S)
                    continue
                self.connections += 1
                # One window per connection, kept from message to message (RFC 7692, section 7.1.1).
                self._inflate = zlib.decompressobj(-15) if "permessage-deflate" in head else None
                try:
                    self._read(self._sock, rest)
                except OSError:
                    pass
                finally:
                    self._sock.close()
                if not self.resume:
                    return
        except BaseException as error:
            self.error = error

    def _read(self, sock: socket.socket, data: bytes) -> None:
        """Read frames until the connection ends."""
        sock.settimeout(LOOK_S)
        while not self._stop.is_set():
            data = self._frames(sock, data)
            self._open.wait()
            if self.pause_s:
                self._stop.wait(self.pause_s)
            try:
                more = sock.recv(self.chunk)
            except TimeoutError:
                continue
            if not more:
                return
            data += more
        sock.settimeout(2)
        sock.sendall(mask(CLOSE, struct.pack(">H", 1000)))

    def _frames(self, sock: socket.socket, data: bytes) -> bytes:
        """Take whole frames; return what is left."""
        at, end, now = 0, len(data), time.time()
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            body = at + 2
            assert size < 128, "a server's frame is masked"
            assert first & 0x80, "a fragmented message"
            assert not first & (0x70 if self._inflate is None else 0x30), "reserved bits without an extension"
            if size == 126:
                if end - at < 4:
                    break
                (size,) = struct.unpack_from(">H", data, body)
                body += 2
            elif size == 127:
                if end - at < 10:
                    break
                (size,) = struct.unpack_from(">Q", data, body)
                body += 8
            if end - body < size:
                break
            payload = data[body : body + size]
            at = body + size
            opcode = first & 0x0F
            if opcode == TEXT:
                if first & 0x40:
                    payload = self._inflate.decompress(payload + b"\x00\x00\xff\xff")
                    self.compressed += 1
                self._message(payload, now)
            elif opcode == PING:
                sock.sendall(mask(PONG, payload))
            elif opcode == CLOSE:
                self.closes.append((int.from_bytes(payload[:2], "big"), len(self.lines)))
                sock.sendall(mask(CLOSE, payload[:2]))
            else:
                raise AssertionError(f"opcode {opcode}")
        return data[at:]

    def _message(self, payload: bytes, now: float) -> None:
        message = orjson.loads(payload)
        if isinstance(message, list):
            self.arrays += 1
            for line in message:
                self.lines.append(Got(line["id"], orjson.dumps(line), now, self.connections))
            self.last_id = message[-1]["id"]
        elif message["type"] == "log":
            self.lines.append(Got(message["id"], payload, now, self.connections))
            self.last_id = message["id"]
        else:
            self.others.append(message)


class Stalled:
    """A viewer that asks for everything and never reads."""

    def __init__(self, port: int, **query: object) -> None:
        self._sock, _, _ = handshake(port, query, rcvbuf=4096)

    def close(self) -> None:
        """Go away."""
        self._sock.close()
