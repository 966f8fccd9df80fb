"""The attacks on the viewers' port. Each is a function of a `Target` that returns when its time is over.

Owns: one function per attack. What is measured meanwhile, and which limits hold, is the business of `rows`. Read
`trader_attacks` next.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import ssl
import struct
import time
import zlib

import orjson

from tests.siege.target import GUESS, Target, crowd, half_frame, pump, pump_all, text
from tests.support.chaos.viewer import mask

PING, CLOSE = 9, 8

RANDOM = random.Random(20260123)


# --- without a complete request --------------------------------------------------------------------------------------


def half_open(target: Target) -> None:
    """5,000 connections that say nothing; each that is closed is replaced."""
    with crowd(target.tcp, target.count(5000)) as many:
        many.hold(target.seconds)


def slow_headers(target: Target) -> None:
    """2,000 requests that come a few bytes at a time and never end."""
    start = target.request()[:-4]

    def make() -> socket.socket:
        sock = target.tcp()
        sock.sendall(start)
        return sock

    ends = target.ends()
    with crowd(make, target.count(2000)) as many:
        while time.monotonic() < ends:
            many.fill(ends)
            for sock in many.each():
                with contextlib.suppress(OSError):
                    sock.send(b"\r\nX: y")
            many.hold(min(1.0, max(0.0, ends - time.monotonic())))


def _big_head(target: Target, headers: int) -> bytes:
    return target.request()[: -len("\r\n")] + b"".join(b"X-%d: %b\r\n" % (n, b"x" * 8100) for n in range(headers))


def _send_what_goes(sock: socket.socket, data: bytes) -> None:
    sock.settimeout(2.0)
    with contextlib.suppress(OSError):
        sock.sendall(data)


def big_headers(target: Target) -> None:
    """600 connections with 126 headers of 8 kB and no blank line."""
    head = _big_head(target, 126)

    def make() -> socket.socket:
        sock = target.tcp()
        _send_what_goes(sock, head)
        return sock

    with crowd(make, target.count(600)) as many:
        many.hold(target.seconds)


def big_headers_again(target: Target) -> None:
    """The same, closed at once and begun anew."""
    head, ends = _big_head(target, 126), target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.tcp() as sock:
            _send_what_goes(sock, head)


def long_request_line(target: Target) -> None:
    """600 connections with a request line without an end."""
    line = b"GET /" + b"x" * 60_000

    def make() -> socket.socket:
        sock = target.tcp()
        _send_what_goes(sock, line)
        return sock

    with crowd(make, target.count(600)) as many:
        many.hold(target.seconds)


def connect_reset(target: Target) -> None:
    """Connections that are reset at once."""
    ends = target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.tcp() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# --- before and during a TLS handshake --------------------------------------------------------------------------------


def _client_hello() -> bytes:
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def _send_and_stay(target: Target, data: bytes, source: str = "") -> None:
    def make() -> socket.socket:
        sock = target.tcp(source=source)
        _send_what_goes(sock, data)
        return sock

    with crowd(make, target.count(3000)) as many:
        many.hold(target.seconds)


def half_client_hellos(target: Target) -> None:
    """3,000 connections that say half of what begins a handshake."""
    _send_and_stay(target, _client_hello()[:150])


def client_hellos(target: Target) -> None:
    """3,000 connections that say all of it, so that the relay answers, and nothing more; from another machine."""
    _send_and_stay(target, _client_hello(), "127.0.0.2")


def plain_text(target: Target) -> None:
    """3,000 requests without TLS where TLS is spoken."""
    _send_and_stay(target, target.request())


# --- requests ---------------------------------------------------------------------------------------------------------


def _flood(target: Target, request: bytes, width: int = 50) -> None:
    """Send the request on connection after connection, `width` at a time, reading what comes."""
    ends = target.ends()
    while time.monotonic() < ends:
        socks = []
        for _ in range(width):
            with contextlib.suppress(OSError):
                sock = target.tcp()
                sock.sendall(request)
                socks.append(sock)
        for sock in socks:
            _read_answer(sock, 0.2)
            sock.close()


def _read_answer(sock: socket.socket, timeout_s: float) -> None:
    """Read to the end, or until nothing comes for so long. A token that was shown is not to be repeated."""
    sock.settimeout(timeout_s)
    end = b""
    with contextlib.suppress(OSError):
        while data := sock.recv(1 << 16):
            if f"{GUESS}-".encode() in end + data:
                raise AssertionError(f"the answer repeats the token: {data!r:.200}")
            end = data[-len(GUESS) :]


def bytes_behind_request(target: Target) -> None:
    """A request with bytes behind it in one packet, again and again."""
    _flood(target, target.request("/healthz") + b"GARBAGE" * 20)


def pipelined_requests(target: Target) -> None:
    """A hundred requests in one packet."""
    _flood(target, target.request("/healthz") * 100)


def malformed_requests(target: Target) -> None:
    """Requests that are none."""
    _flood(target, b"\x16\x03\x01 BREW / COFFEE/9\r\n: \r\n\r\n")


def wrong_tokens(target: Target) -> None:
    """Guess tokens."""
    ends = target.ends()
    for n in itertools.count():
        if time.monotonic() > ends:
            return
        with contextlib.suppress(OSError), target.tcp() as sock:
            sock.sendall(target.request("/healthz", token=f"{GUESS}-{n:040d}"))
            _read_answer(sock, 0.5)


def wrong_token_viewers(target: Target) -> None:
    """Ask for WebSockets with wrong tokens."""
    _flood(target, target.upgrade(token=f"{GUESS}-{0:040d}"))


def wrong_tokens_in_urls(target: Target) -> None:
    """Guess tokens in the URL, in front of something else that is wrong."""
    ends = target.ends()
    while time.monotonic() < ends:
        path = f"/logs?token={GUESS}-{RANDOM.random()}&after={GUESS}&limit=x"
        with contextlib.suppress(OSError), target.tcp() as sock:
            sock.sendall(target.request(path))
            _read_answer(sock, 0.1)


def page_flood(target: Target) -> None:
    """Fetch the page without pause."""
    _flood(target, target.request("/static/main.js"))


def metrics_flood(target: Target) -> None:
    """Ask for the metrics without pause."""
    _flood(target, target.request("/metrics"))


def _leave_unread(target: Target, path: str, count: int) -> None:
    """Ask so often, and read none of the answers."""
    request = target.request(path)

    def make() -> socket.socket:
        sock = target.tcp(rcvbuf=4096)
        sock.sendall(request)
        return sock

    with crowd(make, target.count(count)) as many:
        many.hold(target.seconds)


def unread_pages(target: Target) -> None:
    """1,000 requests for the page whose answers are not read."""
    _leave_unread(target, "/static/main.js", 1000)


def unread_logs(target: Target) -> None:
    """300 requests for 14,000 lines whose answers are not read."""
    _leave_unread(target, "/logs?limit=14000", 300)


def log_scans(target: Target) -> None:
    """Fifty searches at a time over the whole journal for what is not there."""
    _flood(target, target.request("/logs?text=nothing-says-this&limit=1000000"))


def many_globs_in_logs(target: Target) -> None:
    """Searches with 32 long globs each, every time others."""
    ends = target.ends()
    while time.monotonic() < ends:
        globs = "&".join(f"source={_random_glob(100)}" for _ in range(32))
        with contextlib.suppress(OSError), target.tcp() as sock:
            sock.sendall(target.request(f"/logs?{globs}"))
            _read_answer(sock, 1.0)


# --- WebSockets: bytes ------------------------------------------------------------------------------------------------


def upgrade_flood(target: Target) -> None:
    """Open WebSockets and close them, without pause."""
    ends = target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.viewer():
            pass


def costly_upgrades(target: Target) -> None:
    """Requests for WebSockets with as many offers of extensions as a head has room for."""
    offers = "".join(f"Sec-WebSocket-Extensions: {','.join('a' * 3900)}\r\n" for _ in range(2))
    _flood(target, target.upgrade()[: -len("\r\n")] + offers.encode() + b"\r\n")


def viewers_unread(target: Target) -> None:
    """600 viewers that want everything there is and never read."""
    with crowd(lambda: target.viewer(rcvbuf=4096, tail=100_000), target.count(600)) as many:
        many.hold(target.seconds)


def viewers_unread_alone(target: Target) -> None:
    """The same, each with conditions of its own: what waits for one waits for nobody else."""
    names = itertools.count()

    def make() -> socket.socket:
        return target.viewer(rcvbuf=4096, tail=100_000, source=["robo_trader.*", f"robo_trader.part{next(names)}x"])

    with crowd(make, target.count(600)) as many:
        many.hold(target.seconds)


def compressed_viewers_unread(target: Target) -> None:
    """600 viewers that want everything there is and never read, compressed."""
    with crowd(lambda: target.viewer(rcvbuf=4096, deflate=True, tail=100_000), target.count(600)) as many:
        many.hold(target.seconds)


def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    data = packer.compress(b" " * size) + packer.flush(zlib.Z_SYNC_FLUSH)
    frame = bytearray(mask(1, data[:-4]))
    frame[0] |= 0x40
    return bytes(frame)


def inflate_bombs(target: Target) -> None:
    """Compressed viewers, each with a message of 60 MB in 60 kB, again and again."""
    bomb, ends = _bomb(60_000_000), target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.viewer(deflate=True) as sock:
            _send_what_goes(sock, bomb)


def compressed_reconnects(target: Target) -> None:
    """Compressed viewers that send one message that grows to what is allowed, and come again."""
    message, ends = _bomb(60_000), target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.viewer(deflate=True, tail=0) as sock:
            sock.sendall(message)


def ping_frames_unread(target: Target) -> None:
    """Ping frames without pause on eight connections, pongs unread."""
    frames = mask(PING, b"x" * 125) * 500
    pump_all(lambda: target.viewer(rcvbuf=4096, tail=0), lambda _: frames, 8, target.ends())


def tiny_ping_frames(target: Target) -> None:
    """Empty ping frames without pause, pongs read."""
    frames = mask(PING, b"") * 10_000
    pump_all(lambda: target.viewer(tail=0), lambda _: frames, 8, target.ends(), read=True)


def pong_frames(target: Target) -> None:
    """Pongs that nobody asked for."""
    frames = mask(10, b"") * 10_000
    pump_all(lambda: target.viewer(tail=0), lambda _: frames, 8, target.ends())


def ping_messages_read(target: Target) -> None:
    """`{"type":"ping"}` as fast as it goes, answers read."""
    with contextlib.suppress(OSError), target.viewer(tail=0) as sock:
        pump(sock, text(b'{"type":"ping"}') * 2000, target.ends(), read=True)


def ping_messages_unread(target: Target) -> None:
    """The same on eight connections, answers unread."""
    frames = text(b'{"type":"ping"}') * 2000
    pump_all(lambda: target.viewer(rcvbuf=4096, tail=0), lambda _: frames, 8, target.ends())


def half_frames(target: Target) -> None:
    """600 viewers with a message of which the end never comes."""

    def make() -> socket.socket:
        sock = target.viewer(tail=0)
        _send_what_goes(sock, half_frame(65_000, 64_900))
        return sock

    with crowd(make, target.count(600)) as many:
        many.hold(target.seconds)


def too_long_frames(target: Target) -> None:
    """Messages that say they are a gigabyte."""
    ends, data = target.ends(), half_frame(1 << 30, 1 << 20)
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.viewer(tail=0) as sock:
            _send_what_goes(sock, data)


def fragments(target: Target) -> None:
    """Messages in pieces of nothing."""
    ends, data = target.ends(), bytes([0x01, 0x80]) + bytes(4) + (bytes([0x00, 0x80]) + bytes(4)) * 10_000
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.viewer(tail=0) as sock:
            _send_what_goes(sock, data)


def bad_messages(target: Target) -> None:
    """Messages that are wrong in some way, errors read."""
    frames = b"".join(
        text(body)
        for body in (b"{", b"[]", b'{"type":"x"}', b'{"type":"subscribe","where":' + b"[" * 1000 + b"]" * 1000 + b"}")
    )
    pump_all(lambda: target.viewer(tail=0), lambda _: frames * 200, 4, target.ends(), read=True)


def closes_unread(target: Target) -> None:
    """600 viewers that begin to close and then stay."""
    close = mask(CLOSE, struct.pack(">H", 1000))

    def make() -> socket.socket:
        sock = target.viewer(rcvbuf=4096, tail=0)
        sock.sendall(close * 50)
        return sock

    with crowd(make, target.count(600)) as many:
        many.hold(target.seconds)


# --- WebSockets: work -------------------------------------------------------------------------------------------------


def _subscribe(**wanted: object) -> bytes:
    return text(orjson.dumps({"type": "subscribe", "channel": "logs", **wanted}))


def subscribe_storm(target: Target) -> None:
    """240 kB of subscribe requests with `text` and `tail` from one viewer, then more."""
    frames = b"".join(_subscribe(text=f"nothing {n}", tail=100_000) for n in range(2500))
    with contextlib.suppress(OSError), target.viewer(tail=0) as sock:
        pump(sock, frames, target.ends(), read=True)


def subscribe_storm_many(target: Target) -> None:
    """The same from fifty viewers."""
    frames = b"".join(_subscribe(text=f"nothing {n}", tail=100_000) for n in range(500))
    pump_all(lambda: target.viewer(tail=0), lambda _: frames, 50, target.ends(), read=True)


def subscribe_where(target: Target) -> None:
    """Subscriptions to fields, each time others."""
    frames = b"".join(_subscribe(where={f"field{n}_{k}": "x" for k in range(16)}, tail=100_000) for n in range(500))
    pump_all(lambda: target.viewer(tail=0), lambda _: frames, 10, target.ends(), read=True)


def queued_subscribes(target: Target) -> None:
    """1,000 viewers, each of which searches the whole journal for something that is not there."""
    subscribe = itertools.count()

    def make() -> socket.socket:
        sock = target.viewer(tail=0)
        sock.sendall(_subscribe(text=f"nothing says {next(subscribe)}", tail=100_000))
        return sock

    with crowd(make, target.count(900)) as many:
        many.hold(target.seconds)


def _random_glob(size: int) -> str:
    return "*" + "*".join(RANDOM.choice("abcdefghij?") * RANDOM.randint(1, 4) for _ in range(size // 4)) + "z"


def many_globs(target: Target) -> None:
    """600 viewers with 32 globs of 256 characters, all different."""

    def make() -> socket.socket:
        sock = target.viewer(tail=0)
        sock.sendall(_subscribe(source=[_random_glob(256)[:256] for _ in range(32)], tail=500))
        return sock

    with crowd(make, target.count(600)) as many:
        many.hold(target.seconds)


def glob_changes(target: Target) -> None:
    """Four viewers that change their globs all the time."""
    frames = b"".join(
        _subscribe(source=["*" + "a*" * 120 + "b", *(_random_glob(200)[:256] for _ in range(31))]) for _ in range(40)
    )
    pump_all(lambda: target.viewer(tail=0), lambda _: frames, 4, target.ends(), read=True)


def history_storm(target: Target) -> None:
    """History requests without pause, answers read."""
    frames = _history(target) * 500
    pump_all(lambda: target.viewer(tail=0), lambda _: frames, 10, target.ends(), read=True)


def history_unread(target: Target) -> None:
    """200 viewers that ask for a thousand lines four times and do not read."""
    request = _history(target) * 4

    def make() -> socket.socket:
        sock = target.viewer(rcvbuf=4096, tail=0)
        sock.sendall(request)
        return sock

    with crowd(make, target.count(200)) as many:
        many.hold(target.seconds)


def _history(target: Target) -> bytes:
    """Ask the relay for its head, and for the thousand lines before it."""
    with target.viewer(tail=0) as sock:
        data = b""
        while b'"head":"' not in data or b'"oldest"' not in data:
            data += sock.recv(4096)
    head = data.partition(b'"head":"')[2].partition(b'"')[0].decode()
    return text(orjson.dumps({"type": "history", "before": head, "limit": 1000}))


def history_searches(target: Target) -> None:
    """Fifty viewers whose filter fits nothing, scrolling back without end."""
    frames = _history(target) * 100

    def make() -> socket.socket:
        sock = target.viewer(tail=0, text=f"nothing says {os.urandom(4).hex()}")
        return sock

    pump_all(make, lambda _: frames, 50, target.ends(), read=True)


# --- what other protocols bring ---------------------------------------------------------------------------------------


def chunked_bodies(target: Target) -> None:
    """100 requests with bodies in chunks that never end."""
    head = target.request("/logs", method="POST", headers="Transfer-Encoding: chunked\r\n")
    chunks = (b"4000\r\n" + b"x" * 0x4000 + b"\r\n") * 8

    def make() -> socket.socket:
        sock = target.tcp()
        sock.sendall(head)
        return sock

    pump_all(make, lambda _: chunks, 100, target.ends())


def http2_upgrades(target: Target) -> None:
    """Requests to go on with HTTP/2, and the beginning of it behind them in one packet."""
    headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    preface = (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + (b"\x00\x00\x06\x04\x00" + bytes(4) + b"\x00\x03\x7f\xff\xff\xff") * 100
    )
    _flood(target, target.request("/healthz", headers=headers) + preface)
    _flood(target, preface)


def odd_control_frames(target: Target) -> None:
    """Pings in pieces, pings that are too long, kinds and bits that there are not, each on a viewer of its own."""
    frames = (
        bytes([0x09, 0x80]) + bytes(4) + bytes([0x89, 0x80]) + bytes(4),
        bytes([0x89, 0xFE]) + struct.pack(">H", 60_000) + bytes(4) + bytes(60_000),
        bytes([0x8B, 0x80]) + bytes(4),
        bytes([0xF9, 0x80]) + bytes(4),
        bytes([0x88, 0x81]) + bytes(5),
        bytes([0x81, 0x05]) + b"plain",
        bytes([0x81, 0xFF]) + b"\xff" * 8 + bytes(4),
    )
    ends = target.ends()
    for data in itertools.cycle(frames):
        if time.monotonic() > ends:
            return
        with contextlib.suppress(OSError), target.viewer(tail=0) as sock:
            _send_what_goes(sock, data)
            _read_answer(sock, 0.02)


def context_takeover(target: Target) -> None:
    """40 compressed viewers that keep their window and send messages that grow a thousandfold, as many as they may."""
    packer = zlib.compressobj(9, wbits=-15)
    frames = bytearray()
    for n in range(50):
        data = packer.compress(b'{"type":"ping","x":"' + b"%d" % (n % 10) * 60_000 + b'"}')
        frame = bytearray(mask(1, (data + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]))
        frame[0] |= 0x40
        frames += frame
    pump_all(lambda: target.viewer(deflate=True, tail=0), lambda _: bytes(frames), 40, target.ends(), read=True)


# --- lines over plain HTTP --------------------------------------------------------------------------------------------


def followers_unread(target: Target) -> None:
    """600 readers of lines that go on without end, which they do not read; half of them as events."""
    paths = itertools.cycle(("/logs?follow=1&tail=100000", "/events?tail=100000"))

    def make() -> socket.socket:
        sock = target.tcp(rcvbuf=4096)
        sock.sendall(target.request(next(paths)))
        return sock

    with crowd(make, target.count(600)) as many:
        many.hold(target.seconds)


def event_visits(target: Target) -> None:
    """Readers of events that come and go without pause."""
    _flood(target, target.request("/events?tail=100"), width=20)


def slow_events(target: Target) -> None:
    """1,000 requests for events that come a few bytes at a time and never end."""
    start = target.request("/events", headers="Last-Event-ID: ")[:-4]

    def make() -> socket.socket:
        sock = target.tcp()
        sock.sendall(start)
        return sock

    ends = target.ends()
    with crowd(make, target.count(1000)) as many:
        while time.monotonic() < ends:
            many.fill(ends)
            for sock in many.each():
                with contextlib.suppress(OSError):
                    sock.send(b"x")
            many.hold(min(0.5, max(0.0, ends - time.monotonic())))


def summaries(target: Target) -> None:
    """Counts of the whole journal, fifty at a time, each by other conditions."""
    globs = "&".join(f"source={_random_glob(100)}" for _ in range(32))
    _flood(target, target.request(f"/summary?since=0&{globs}&text={'ab' * 120}"))


def where_scans(target: Target) -> None:
    """Searches of the whole journal by sixteen fields, fifty at a time."""
    fields = "&".join(f"where=field{n}.{'a' * 200}=x" for n in range(15))
    _flood(target, target.request(f"/logs?limit=1000000&where=symbol=AAPL&{fields}"))


def tokens_from_many_addresses(target: Target) -> None:
    """Guess tokens, each time from another address."""
    ends = target.ends()
    while time.monotonic() < ends:
        socks = []
        for _ in range(50):
            address = f"127.{RANDOM.randint(1, 254)}.{RANDOM.randint(0, 255)}.{RANDOM.randint(1, 254)}"
            with contextlib.suppress(OSError):
                sock = target.tcp(source=address)
                sock.sendall(target.request("/healthz", token=f"{GUESS}-{RANDOM.random()}"))
                socks.append(sock)
        for sock in socks:
            _read_answer(sock, 0.02)
            sock.close()


# --- devices, and the end ---------------------------------------------------------------------------------------------


def device_names(target: Target) -> None:
    """Viewers with a name, each time another one."""
    ends = target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.viewer(device=f"d{os.urandom(16).hex()}"):
            pass


def closings(target: Target) -> None:
    """200 viewers with answers that they have not read, all closed in one moment, again and again."""
    request, ends = _history(target) * 4, target.ends()
    while time.monotonic() < ends:
        socks = []
        for _ in range(target.count(200)):
            with contextlib.suppress(OSError):
                sock = target.viewer(rcvbuf=4096, tail=1000)
                sock.sendall(request)
                socks.append(sock)
        for sock in socks:
            sock.close()


ATTACKS = {
    name: attack
    for name, attack in list(globals().items())
    if callable(attack) and not name.startswith("_") and getattr(attack, "__module__", "") == __name__
}
