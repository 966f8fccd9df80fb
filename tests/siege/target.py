"""What an attacker knows and uses: the two addresses, a token or none, and the bytes of both protocols.

Owns: `Target`, `Crowd` (many connections kept open) and the frames. Nothing here waits for an answer unless it is asked
to. Read `viewer_attacks` next, and `trader_attacks` beside it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

import msgpack

from tests.support.chaos.viewer import mask

CONNECT_S = 5.0
"""How long an attacker waits for a connection before it tries another."""

GUESS = "guess-5up3r"
"""Every wrong token begins so: none is to stand in anything that the relay writes."""

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="


def raise_fd_limit() -> None:
    """Open as many connections as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True)
class Target:
    """One relay under siege, as the attacker sees it."""

    port: int
    socket: str
    token: str
    """Empty: the attacker has none."""
    seconds: float
    scale: float
    """1: the counts of a whole siege; less: a part of each."""
    run: str = ""

    def count(self, full: int) -> int:
        """Return how many of `full` to take."""
        return max(1, int(full * self.scale))

    def ends(self) -> float:
        """Return the monotonic time at which the attack is over, counted from now."""
        return time.monotonic() + self.seconds

    # --- the viewers' port --------------------------------------------------------------------------------------

    def tcp(self, rcvbuf: int | None = None, *, source: str = "") -> socket.socket:
        """Connect to the viewers' port; `source` is the address to come from, another machine's as it were."""
        sock = socket.socket()
        if source:
            sock.bind((source, 0))
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.settimeout(CONNECT_S)
        try:
            sock.connect(("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        return sock

    def request(self, path: str = "/", *, headers: str = "", method: str = "GET", token: str | None = None) -> bytes:
        """Return a plain request."""
        token = self.token if token is None else token
        bearer = f"Authorization: Bearer {token}\r\n" if token else ""
        return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{bearer}{headers}\r\n".encode()

    def upgrade(self, *, deflate: bool = False, token: str | None = None, **query: object) -> bytes:
        """Return a request for a WebSocket."""
        headers = (
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
        )
        if deflate:
            headers += "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"
        return self.request(f"/?{urlencode(query, doseq=True)}", headers=headers, token=token)

    def viewer(self, *, rcvbuf: int | None = None, deflate: bool = False, **query: object) -> socket.socket:
        """Open a WebSocket and read the head of the answer, and nothing of what comes behind it."""
        sock = self.tcp(rcvbuf)
        try:
            sock.sendall(self.upgrade(deflate=deflate, **query))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                there = sock.recv(4096, socket.MSG_PEEK)
                if not there:
                    raise ConnectionError("closed during the handshake")
                end = (head + there).find(b"\r\n\r\n")
                head += sock.recv(len(there) if end < 0 else end + 4 - len(head))
        except BaseException:
            sock.close()
            raise
        return sock

    # --- the traders' socket --------------------------------------------------------------------------------------

    def unix(self) -> socket.socket:
        """Connect to the traders' socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(CONNECT_S)
        try:
            sock.connect(self.socket)
        except BaseException:
            sock.close()
            raise
        return sock

    def trader(self, app: str = "besieger") -> socket.socket:
        """Connect and say hello; do not wait for the welcome."""
        sock = self.unix()
        sock.sendall(hello(app))
        return sock


def hello(app: str = "besieger", run: bytes | None = None) -> bytes:
    """Return a hello frame of a new run."""
    facts = {
        "protocol": 1,
        "run": os.urandom(16) if run is None else run,
        "app": app,
        "host": "siege",
        "pid": os.getpid(),
        "started_ns": time.time_ns(),
    }
    return msgpack.packb([0, facts])


def log(seq: int, event: object, level: str = "info") -> bytes:
    """Return a log frame."""
    return msgpack.packb([1, seq, time.time_ns(), level, event])


class Crowd:
    """Many connections that are kept open; one that ends is replaced by a new one, if `again`."""

    def __init__(self, make: Callable[[], socket.socket], count: int, *, again: bool = True) -> None:
        self._make, self._count, self._again = make, count, again
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self.opened = 0

    def fill(self, ends: float) -> None:
        """Open connections until there are enough, or the time is over."""
        while len(self._open) < self._count and time.monotonic() < ends:
            if not self._again and self.opened >= self._count:
                return
            try:
                sock = self._make()
            except OSError:
                time.sleep(0.005)
                continue
            sock.setblocking(False)
            self._open[sock.fileno()] = sock
            self._poll.register(sock.fileno(), select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
            self.opened += 1
            if self.opened % 50 == 0:
                self.bury(0)

    def bury(self, wait_s: float) -> None:
        """Close what the relay has closed."""
        for fd, _ in self._poll.poll(wait_s):
            self._poll.unregister(fd)
            self._open.pop(fd).close()

    def hold(self, seconds: float) -> None:
        """Keep the crowd complete for so long."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.fill(ends)
            self.bury(min(0.2, max(0.0, ends - time.monotonic())))

    def each(self) -> list[socket.socket]:
        """Return those that are open."""
        return list(self._open.values())

    def disperse(self) -> None:
        """Close all."""
        for sock in self._open.values():
            sock.close()
        self._open.clear()
        self._poll.close()


@contextlib.contextmanager
def crowd(make: Callable[[], socket.socket], count: int, *, again: bool = True) -> Iterator[Crowd]:
    """Make a crowd that disperses at the end."""
    made = Crowd(make, count, again=again)
    try:
        yield made
    finally:
        made.disperse()


def pump(sock: socket.socket, data: bytes, ends: float, *, read: bool) -> int:
    """Send the same bytes again and again until the time is over or the peer ends it; returns how many bytes."""
    sock.setblocking(False)
    view, sent = memoryview(data), 0
    at = 0
    while (left := ends - time.monotonic()) > 0:
        readable, writable, _ = select.select([sock] if read else [], [sock], [], min(left, 0.2))
        try:
            if readable and not sock.recv(1 << 20):
                return sent
            if writable:
                done = sock.send(view[at:])
                sent += done
                at = (at + done) % len(data)
        except BlockingIOError:
            continue
        except OSError:
            return sent
    return sent


def pump_all(
    make: Callable[[], socket.socket], data: Callable[[int], bytes], count: int, ends: float, *, read: bool = False
) -> None:
    """Pump over `count` connections in turn, making a new one for each that ends."""
    socks: list[tuple[socket.socket, bytes, int]] = []
    made = 0
    try:
        while time.monotonic() < ends:
            while len(socks) < count and time.monotonic() < ends:
                try:
                    sock = make()
                except OSError:
                    time.sleep(0.01)
                    break
                sock.setblocking(False)
                socks.append((sock, data(made), 0))
                made += 1
            busy = False
            for index in range(len(socks) - 1, -1, -1):
                sock, payload, at = socks[index]
                try:
                    if read:
                        with contextlib.suppress(BlockingIOError):
                            if not sock.recv(1 << 18):
                                raise ConnectionError
                    done = sock.send(memoryview(payload)[at:])
                    socks[index] = (sock, payload, (at + done) % len(payload))
                    busy = True
                except BlockingIOError:
                    continue
                except OSError:
                    sock.close()
                    socks.pop(index)
            if not busy:
                time.sleep(0.005)
    finally:
        for sock, _, _ in socks:
            sock.close()


def text(message: bytes) -> bytes:
    """Return a client's text frame."""
    return mask(1, message)


def half_frame(declared: int, sent: int) -> bytes:
    """Return the beginning of a text frame of `declared` bytes."""
    return bytes([0x81, 0xFF]) + struct.pack(">Q", declared) + bytes(4) + b"x" * sent
