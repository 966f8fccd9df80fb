"""One connection on a fake transport: what a request is answered with, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from logrelay.http.response import Follow, HttpResponse
from logrelay.viewers import connection as connection_module
from logrelay.viewers.connection import ViewerConnection
from logrelay.viewers.service import Upgrade
from tests.support.waiting import DEADLINE_S

REQUEST = b"GET /logs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class FakeTransport:
    """A socket that takes everything, unless the test pauses it."""

    def __init__(self):
        self.written = b""
        self.ended = []
        self.reading = True
        self.done = asyncio.Event()
        self.wrote = asyncio.Event()

    def set_write_buffer_limits(self, high):
        assert high == 0

    def get_extra_info(self, name):
        return ("192.168.1.7", 5) if name == "peername" else None

    def write(self, data):
        self.written += data
        self.wrote.set()

    buffered = 0

    def get_write_buffer_size(self):
        return self.buffered

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.ended.append("eof")

    def is_closing(self):
        return "close" in self.ended or "abort" in self.ended

    def is_reading(self):
        return self.reading

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def close(self):
        self.ended.append("close")
        self.done.set()

    def abort(self):
        self.ended.append("abort")
        self.done.set()


class FakeSession:
    def __init__(self):
        self.heard = []

    def message_received(self, text):
        self.heard.append(text)

    def writing_resumed(self):
        self.heard.append("room")

    def pong_received(self, payload):
        pass

    def close_answered(self):
        pass

    def connection_lost(self, *, in_order=False):
        self.heard.append("end")


class Bench:
    """A connection, and in one object the registry and the service that it is given."""

    def __init__(self, decision, *, places=1, connections=1):
        self.decision = decision
        self.places = places
        self.connections = connections
        self.asked = []
        self.forgotten = 0
        self.opened = []
        self.session = FakeSession()
        self.transport = FakeTransport()
        self.read_buffer = memoryview(bytearray(1024))
        self.charged = 0
        self.unread = (0, None)
        self.answered = 0
        self.limits = []
        self.connection = ViewerConnection(self, self, asyncio.get_running_loop())
        self.connection.connection_made(self.transport)

    # the service

    def client_of(self, request, peer):
        return peer

    def decide(self, request, peer):
        self.asked.append((request.path, peer))
        return self.decision

    def count_malformed(self, reason):
        self.asked.append(reason)

    def open(self, socket, target, *, subprotocol, deflate, token):
        self.opened.append((target, subprotocol, deflate))
        return self.session

    def follow(self, socket, follow, *, token):
        self.opened.append(follow.target)
        return self.session

    # the registry

    def add(self, connection):
        return self.connections > 0

    def refuse_viewer(self, connection):
        return None if self.places else HttpResponse(503, (("Retry-After", "10"),), b"full\n")

    def offers_compression(self, peer):
        return True

    def viewer_opened(self, connection):
        self.opened.append("counted")

    def forget(self, connection):
        self.forgotten += 1

    def answering(self, connection):
        self.answered += 1

    streams_are_full = False
    streams = 0

    def streaming(self, connection):
        self.streams += 1

    def request_turn(self, connection):
        connection.take_turn()

    def charge(self, connection, count):
        self.charged = count

    def charge_unread(self, connection, count, shared=None):
        self.unread = (count, shared)

    def exceeded(self, cause, times=1):
        self.limits.append(cause)

    def answer(self):
        """Return status line, headers by lower-case name, and body."""
        head, _, body = self.transport.written.partition(b"\r\n\r\n")
        first, *rows = head.decode().split("\r\n")
        pairs = [row.split(": ", 1) for row in rows]
        assert len({name.lower() for name, _ in pairs}) == len(pairs), "a header is sent twice"
        return first, {name.lower(): value for name, value in pairs}, body


def on_a_loop(test):
    def run(*args, **kwargs):
        async def bounded():
            async with asyncio.timeout(DEADLINE_S):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


@on_a_loop
async def test_one_viewer_too_many_is_told_when_to_come_again():
    """No WebSocket, no session."""
    bench = Bench(Upgrade(None), places=0)
    bench.connection.data_received(WEBSOCKET)
    first, headers, body = bench.answer()
    assert first.startswith("HTTP/1.1 503 ")
    assert (headers["retry-after"], body, bench.opened) == ("10", b"full\n", [])
    bench.connection.connection_lost(None)


@on_a_loop
async def test_one_connection_too_many_is_cut():
    """Before anything is read of it."""
    assert Bench(Upgrade(None), connections=0).transport.ended == ["abort"]


@pytest.mark.parametrize("subprotocol", [None, "logrelay.v1.batch"])
def test_a_websocket_has_a_session_until_it_ends(subprotocol):
    """The viewer is counted before its session begins; the session hears of room and of the end."""

    @on_a_loop
    async def scenario():
        bench = Bench(Upgrade(subprotocol))
        bench.connection.data_received(WEBSOCKET)
        first, headers, _ = bench.answer()
        assert first.startswith("HTTP/1.1 101 ")
        assert headers.get("sec-websocket-protocol") == subprotocol
        assert bench.opened == ["counted", ("/", subprotocol, False)]
        bench.connection.pause_writing()
        assert bench.connection.writing_paused
        assert bench.connection.write(b"frames") is False
        bench.connection.send(b"{}")
        assert bench.transport.reading is False, "a viewer that does not read is not read from"
        bench.connection.resume_writing()
        assert bench.transport.reading is True
        assert bench.connection.write(b"frames") is True
        bench.connection.connection_lost(None)
        assert bench.connection.write(b"frames") is False
        assert bench.session.heard == ["room", "end"]
        assert bench.forgotten == 1

    scenario()


@on_a_loop
async def test_a_request_that_is_none_is_answered_and_counted():
    """What follows is thrown away, up to a bound."""
    bench = Bench(None)
    bench.connection.data_received(b"\x00")
    first, headers, body = bench.answer()
    assert (first, headers["connection"]) == ("HTTP/1.1 400 Bad Request", "close")
    assert int(headers["content-length"]) == len(body)
    assert bench.asked == ["line"]
    bench.connection.data_received(b"x" * connection_module.MAX_DROPPED_BYTES)
    assert bench.transport.ended == ["eof"]
    bench.connection.data_received(b"x")
    assert bench.transport.ended == ["eof", "abort"]
    bench.connection.connection_lost(None)


@on_a_loop
async def test_a_websocket_waits_for_its_answer():
    """Bytes behind its request are refused, in one packet with it."""
    bench = Bench(Upgrade(None))
    bench.connection.data_received(WEBSOCKET + b"\x81\x80")
    assert bench.answer()[0] == "HTTP/1.1 400 Bad Request"
    assert (bench.asked[1:], bench.opened) == (["bytes_behind"], [])
    bench.connection.connection_lost(None)


@on_a_loop
async def test_an_unexpected_error_ends_its_connection_and_is_reported():
    """No exception leaves a callback: the loop would write a traceback for each."""
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    bench = Bench(Upgrade(None))
    bench.decision = None
    bench.connection.data_received(WEBSOCKET)
    assert bench.transport.ended == ["abort"]
    assert [type(error) for error in reported] == [AttributeError]
    bench.connection.connection_lost(None)


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"GET / HTTP/1.1", b"POST / HTTP/1.1\r\nContent-Length: 5", b"405"),
        (b"GET / HTTP/1.1", b"T / HTTP/1.1", b"405"),
        (b"Host: 127", b"Content-Length: 00\r\nHost: 127", b"101"),
        (b"Host: 127", b"X: " + b"y" * (8 * 1024 - 3) + b"\r\nHost: 127", b"101"),
        (b"Host: 127", b"".join(b"H%d: v\r\n" % n for n in range(95)) + b"Host: 127", b"101"),
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8", b"400"),
    ],
)
def test_every_head_that_is_one_has_an_answer(old, new, status):
    """Whatever the library would think of the same bytes: one reader decides, and no error comes of a second one."""

    @on_a_loop
    async def ask():
        """Send it."""
        bench, errors = Bench(Upgrade(None)), []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        bench.connection.data_received(WEBSOCKET.replace(old, new))
        assert errors == []
        assert bench.transport.written.split(b" ")[1] == status

    ask()


@on_a_loop
async def test_an_answer_that_waits_is_sent_behind_the_end_of_the_request():
    """A client may end its sending at once; the answer to a wrong token comes later."""
    bench = Bench(HttpResponse(401, (), b"wrong\n", delay_s=0.001))
    bench.connection.data_received(b"GET /logs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert bench.connection.eof_received() is True
    await bench.transport.wrote.wait()
    assert bench.transport.written.endswith(b"\r\n\r\nwrong\n")
    bench.connection.connection_lost(None)


@on_a_loop
async def test_an_answer_that_goes_on_shows_that_it_lives_and_is_cut_when_nobody_reads():
    """Something that means nothing with each round of pings; after three rounds in which nothing was taken, the end."""
    bench = Bench(HttpResponse(200, (), follow=Follow("/logs?follow=1", "ndjson", None, b"\n")))
    connection, transport = bench.connection, bench.transport
    connection.data_received(b"GET /logs?follow=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert bench.opened == ["counted", "/logs?follow=1"]
    head = transport.written
    for _ in range(5):
        connection.ping()
    assert transport.written == head + b"\n" * 5
    connection.pause_writing()
    for _ in range(3):
        connection.ping()
    connection.resume_writing()
    connection.ping()
    assert (transport.written, transport.ended) == (head + b"\n" * 6, [])  # it has read on in time
    connection.pause_writing()
    for _ in range(3):
        connection.ping()
    assert transport.ended == []
    connection.ping()
    assert transport.ended == ["abort"]
