"""What one connection may cost: one message a turn, an allowance, answers that are not read, places, and no cycles."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest

from logrelay import budgets
from logrelay.fanout.batch import frame
from logrelay.http.response import HttpResponse
from logrelay.viewers import connection as connection_module
from logrelay.viewers.connection import ViewerConnection
from logrelay.viewers.limit_report import LimitReport
from logrelay.viewers.server import ACCEPTORS, ViewerServer
from logrelay.viewers.service import Upgrade
from tests.support.chaos.viewer import CLOSE, PING, PONG, TEXT, mask
from tests.support.waiting import DEADLINE_S
from tests.unit.viewers.test_connection import WEBSOCKET, Bench, FakeTransport, on_a_loop

MESSAGE = mask(TEXT, b'{"type":"ping"}')


class SlowBench(Bench):
    """Turns are given when the test says so, and no time passes: what a viewer may send grows with it."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        now = loop.time()
        loop.time = lambda: now
        self.waiting = []
        super().__init__(Upgrade(None))
        self.connection.data_received(WEBSOCKET)
        self.turn()
        self.transport.written = b""

    def request_turn(self, connection):
        self.waiting.append(connection)

    def turn(self):
        waiting, self.waiting = self.waiting, []
        for connection in waiting:
            connection.take_turn()


@on_a_loop
async def test_one_message_is_acted_on_in_a_turn():
    """However many came together; meanwhile the socket is left alone."""
    bench = SlowBench()
    bench.connection.data_received(MESSAGE * 3)
    assert (len(bench.session.heard), bench.transport.reading) == (0, False)
    for count in (1, 2, 3):
        bench.turn()
        assert len(bench.session.heard) == count
    assert (bench.waiting, bench.transport.reading, bench.charged) == ([], True, 0)
    bench.connection.connection_lost(None)


@on_a_loop
async def test_the_beginning_of_a_message_is_charged():
    """Until its end is there."""
    bench = SlowBench()
    bench.connection.data_received(MESSAGE[:5])
    assert (bench.charged, bench.transport.reading, bench.waiting) == (5, True, [])
    bench.connection.data_received(MESSAGE[5:])
    bench.turn()
    assert (bench.charged, len(bench.session.heard)) == (0, 1)
    bench.connection.connection_lost(None)


@on_a_loop
async def test_more_messages_than_allowed_have_to_wait():
    """The socket is not read from; the limit is counted once for each wait."""
    bench = SlowBench()
    bench.connection.data_received(mask(PONG, b"") * (int(budgets.MESSAGES_AT_ONCE) + 50))
    while bench.waiting:
        bench.turn()
    assert (bench.limits, bench.transport.reading) == (["messages"], False)
    bench.connection.connection_lost(None)


@on_a_loop
async def test_who_does_not_read_pongs_is_not_listened_to():
    """One answer beyond what the socket takes, and no more until it has room."""
    bench = SlowBench()
    bench.connection.pause_writing()
    bench.connection.data_received(mask(PING, b"x" * 100) * 5)
    for _ in range(5):
        bench.turn()
    assert bench.transport.written == bytes([0x8A, 100]) + b"x" * 100
    assert bench.transport.reading is False
    bench.connection.resume_writing()
    for _ in range(5):
        bench.turn()
    assert (len(bench.transport.written), bench.transport.reading) == (5 * 102, True)
    bench.connection.connection_lost(None)


@on_a_loop
async def test_behind_the_end_only_the_peers_own_close_is_read():
    """Thousands of tiny frames, each of which the protocol would take some microseconds for, are thrown away."""
    bench = SlowBench()
    bench.connection.close(1001, "enough")
    read = []
    protocol = bench.connection._protocol
    receive_data = protocol.receive_data
    protocol.receive_data = lambda data: (read.append(data), receive_data(data))
    bench.connection.data_received(mask(TEXT, b"") * 1000 + mask(TEXT, b"half")[:7])
    bench.turn()
    assert (read, bench.waiting, bench.charged) == ([b""], [], 7)
    close = mask(CLOSE, b"\x03\xe9")
    bench.connection.data_received(mask(TEXT, b"half")[7:] + mask(TEXT, b"") * 1000 + close + mask(TEXT, b""))
    bench.turn()
    assert (read, bench.charged) == ([b"", close], 0)
    bench.connection.connection_lost(None)


@on_a_loop
async def test_nothing_of_a_connection_stays_without_the_collector():
    """The protocol and its parser refer to each other: what was read would stay until somebody looks."""
    bench = Bench(Upgrade(None))
    bench.connection.data_received(WEBSOCKET)
    bench.connection.data_received(b"\x81\x05brokn")  # not masked: an error with a traceback
    protocol = weakref.ref(bench.connection._protocol)
    gc.disable()
    try:
        bench.connection.connection_lost(None)
        assert protocol() is None
    finally:
        gc.enable()


class From(FakeTransport):
    """A connection from an address."""

    def __init__(self, address):
        super().__init__()
        self.address = address

    def get_extra_info(self, name):
        return (self.address, 5) if name == "peername" else None


def server_with(counts):
    """Make a server, and connect so often from each address."""
    loop = asyncio.get_running_loop()
    report = LimitReport(lambda _text: None, loop)
    server = ViewerServer(None, max_viewers=10, compression="off", loop=loop, report=report)
    transports = []
    for address, count in counts.items():
        for _ in range(count):
            transports.append(From(address))
            ViewerConnection(server, None, loop).connection_made(transports[-1])
    report.close()
    return server, transports, report


@on_a_loop
async def test_of_too_many_without_a_request_the_oldest_goes():
    """From one address first: the others keep their places."""
    count = budgets.HANDSHAKES_PER_ADDRESS
    server, transports, report = server_with({"10.0.0.2": 1, "10.0.0.1": count + 3})
    gone = [index for index, transport in enumerate(transports) if transport.ended]
    assert gone == [1, 2, 3]
    assert report.counters()["viewer_handshake_limit_total"] == 3
    for connection in list(server.connections):
        connection.connection_lost(None)
    assert not server.connections


@on_a_loop
async def test_a_network_of_ipv6_is_one_address():
    """Its subscriber may choose the other half of each address, and would have all places otherwise."""
    count = budgets.HANDSHAKES_PER_ADDRESS
    crowd = {f"2001:db8:0:1::{number:x}": 1 for number in range(count + 2)}
    server, transports, _ = server_with({"2001:db8:0:2::1": 1, **crowd})
    assert [index for index, transport in enumerate(transports) if transport.ended] == [1, 2]
    for connection in list(server.connections):
        connection.connection_lost(None)


@on_a_loop
async def test_all_addresses_together_have_a_limit_too():
    """The oldest of all goes."""
    each = budgets.HANDSHAKES_PER_ADDRESS
    addresses = {f"10.0.0.{n}": each for n in range(budgets.HANDSHAKE_SLOTS // each)}
    server, transports, _ = server_with(addresses | {"10.1.0.1": 2})
    assert [index for index, transport in enumerate(transports) if transport.ended] == [0, 1]
    for connection in list(server.connections):
        connection.connection_lost(None)


@on_a_loop
async def test_of_too_many_beginnings_of_messages_the_oldest_is_closed():
    """With 4429; the others stay."""

    class Charged:
        def __init__(self):
            self.closed = []

        def close(self, code, reason):
            self.closed.append(code)

    server, _, report = server_with({})
    first, second = Charged(), Charged()
    server.charge(first, budgets.UNDECODED_BYTES // 2)
    server.charge(second, budgets.UNDECODED_BYTES // 2)
    server.charge(second, budgets.UNDECODED_BYTES // 2 + 1)
    report.close()
    assert (first.closed, second.closed) == ([4429], [])
    server.charge(second, 0)
    server.charge(first, budgets.UNDECODED_BYTES)
    assert first.closed == [4429]


def test_a_crowd_is_accepted_some_in_each_turn():
    """uvloop accepts one by each handle of a listening socket: a newcomer would wait a turn for each before it."""
    uvloop = pytest.importorskip("uvloop", reason="asyncio's own loop accepts all at once")

    async def scenario():
        loop = asyncio.get_running_loop()
        server = ViewerServer(None, max_viewers=1, compression="off", loop=loop)
        listener = socket.create_server(("127.0.0.1", 0))
        await server.listen(listener)
        crowd = [socket.create_connection(listener.getsockname()) for _ in range(4 * ACCEPTORS)]
        turns = 0
        while len(server.connections) < len(crowd):
            await asyncio.sleep(0)
            turns += 1
        for client in crowd:
            client.close()
        await server.close(1001, "the end", 5.0)
        return turns

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) < 2 * ACCEPTORS


def test_what_is_behind_a_request_is_thrown_away_a_little_at_a_time(monkeypatch):
    """A crowd that sends megabytes after its answers does not keep the loop busy."""
    monkeypatch.setattr(connection_module, "DROP_PAUSE_S", 0.001)

    @on_a_loop
    async def scenario():
        bench = Bench(HttpResponse(404, (), b"no\n"))
        bench.connection.data_received(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        bench.connection.data_received(b"x" * 1000)
        assert bench.transport.reading is False
        async with asyncio.timeout(DEADLINE_S):
            while not bench.transport.reading:  # noqa: ASYNC110  (nothing announces it)
                await asyncio.sleep(0)
        bench.connection.connection_lost(None)

    scenario()


class Viewer:
    """A viewer from an address, as the server knows it."""

    def __init__(self, peer):
        self.peer = peer
        self.code = None

    def close(self, code, reason):
        self.code = code


@pytest.fixture(autouse=True)
def few_kept(monkeypatch):
    """The numbers of these tests are small."""
    monkeypatch.setattr(budgets, "KEPT_PER_ADDRESS", 2)


def come(server, peer):
    """Let a viewer in if there is a place for it."""
    viewer = Viewer(peer)
    if server.refuse_viewer(viewer) is not None:
        return None
    server.viewer_opened(viewer)
    return viewer


@on_a_loop
async def test_an_address_keeps_no_other_out():
    """While there are places it has any number; then the newest of the address with most goes, down to a fair share."""
    server, _, report = server_with({})
    crowd = [come(server, f"2001:db8::{number:x}") for number in range(10)]
    assert all(crowd)
    assert come(server, "2001:db8::ffff") is None, "of the same network"
    others = [come(server, "10.0.0.1") for _ in range(5)]
    assert all(others)
    assert [viewer.code for viewer in crowd] == [None] * 5 + [4429] * 5
    assert come(server, "10.0.0.1") is None, "each has half"
    third = come(server, "10.0.0.2")
    assert third is not None
    assert (len(server.viewers), report.counters()["viewer_share_limit_total"]) == (10, 6)
    for viewer in (*crowd, *others, third):
        server.forget(viewer)
    assert not server.viewers
    assert not server._viewers_of
    report.close()


@on_a_loop
async def test_a_house_keeps_its_phone_and_its_page():
    """However many other addresses come: each has a few places that no other takes."""
    server, _, report = server_with({})
    viewers = [come(server, f"10.0.0.{number // 2}") for number in range(10)]
    assert come(server, "10.0.1.1") is None
    assert [viewer.code for viewer in viewers] == [None] * 10
    for viewer in viewers:
        server.forget(viewer)
    report.close()


@on_a_loop
async def test_pings_that_are_never_answered_give_no_allowance_without_end():
    """A device that has left thousands of them unanswered sends no more pongs at once than one that is awake."""
    bench = SlowBench()
    for number in range(budgets.PONGS_DUE * 3):
        bench.connection.send_ping(b"%d" % number)
    pongs = budgets.PONGS_DUE + int(budgets.MESSAGES_AT_ONCE)
    bench.connection.data_received(mask(PONG, b"") * (pongs + 50))
    turns = 0
    while bench.waiting:
        bench.turn()
        turns += 1
    assert pongs <= turns <= pongs + 5
    assert bench.limits == ["messages"]
    bench.connection.connection_lost(None)


class FullTransport(FakeTransport):
    """A socket that takes `room` bytes and keeps the rest, as a real transport does."""

    def __init__(self):
        super().__init__()
        self.connection = None
        self.room = 1 << 30
        self.kept = bytearray()

    def write(self, data):
        self.kept += data
        self.flush()
        if self.kept and self.connection is not None:
            self.connection.pause_writing()

    def flush(self):
        taken = bytes(self.kept[: self.room])
        del self.kept[: self.room]
        self.room -= len(taken)
        super().write(taken)

    def get_write_buffer_size(self):
        return len(self.kept)

    def read(self, count):
        """Have the reader take so many bytes more."""
        self.room += count
        self.flush()
        if not self.kept:
            self.connection.resume_writing()


def full_bench(decision, request):
    """Return a bench whose reader takes nothing behind the answer to its request."""
    bench = Bench.__new__(Bench)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.unit.viewers.test_connection.FakeTransport", FullTransport)
        bench.__init__(decision)
    bench.transport.connection = bench.connection
    bench.connection.data_received(request)
    bench.transport.written, bench.transport.room = b"", 0
    return bench


@on_a_loop
async def test_a_long_answer_is_written_as_the_reader_takes_it():
    """What waits is counted to the byte; what comes behind it stays behind it; then lines go on."""
    bench = full_bench(Upgrade(None), WEBSOCKET)
    connection, transport = bench.connection, bench.transport
    answer = bytes(range(256)) * 1200
    connection.send(answer)
    whole = 10 + len(answer)
    assert (connection.writing_paused, bench.unread) == (True, (whole, None))
    assert len(transport.kept) == budgets.ANSWER_SLICE_BYTES, "the transport has one slice, wherever it keeps more"
    assert connection.write(b"a line") is False, "the hub waits, and its bytes wait behind the answer"
    connection.send_ping(b"now")
    assert bench.unread == (whole + len(b"a line") + 5, None)
    assert connection.bytes_written >= whole + len(b"a line") + 5
    taken = 0
    while connection.writing_paused:
        assert "room" not in bench.session.heard
        transport.read(50_000)
        taken += 50_000
        assert taken < 2 * whole
    assert bench.unread == (0, None)
    assert bench.session.heard == ["room"]
    assert transport.written == frame(answer) + b"a line" + b"\x89\x03now"
    connection.connection_lost(None)


@on_a_loop
async def test_lines_that_wait_are_counted_as_what_others_may_wait_for():
    """And released when they are taken."""
    bench = full_bench(Upgrade(None), WEBSOCKET)
    lines = frame(b"x" * 500)
    assert bench.connection.write(lines) is False
    assert bench.unread == (len(lines), lines)
    assert bench.unread[1] is lines
    bench.transport.read(len(lines))
    assert (bench.unread, bench.session.heard) == ((0, None), ["room"])
    bench.transport.room = 1000
    assert bench.connection.write(lines) is True
    bench.connection.connection_lost(None)


@on_a_loop
async def test_a_plain_answer_that_is_not_read_is_counted_too():
    """It ends when all of it is written, not before."""
    body = b"y" * 200_000
    bench = full_bench(HttpResponse(200, (), body), b"")
    bench.transport.room = 50
    bench.connection.data_received(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert bench.unread[0] > len(body) - 50
    assert bench.transport.ended == []
    for _ in range(10):
        bench.transport.read(50_000)
    assert (bench.unread[0], bench.transport.ended) == (0, ["eof"])
    assert bench.transport.written.endswith(b"\r\n\r\n" + body)
    bench.connection.connection_lost(None)


@on_a_loop
async def test_a_client_that_has_ended_its_half_gets_the_whole_answer():
    """A transport that closes keeps what it has, and takes nothing more."""
    body = b"y" * 200_000
    bench = full_bench(HttpResponse(200, (), body), b"")
    bench.transport.room = 50
    bench.connection.data_received(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert bench.connection.eof_received() is True
    for _ in range(10):
        bench.transport.read(50_000)
    assert bench.transport.written.endswith(b"\r\n\r\n" + body)
    assert bench.transport.ended == []
    await bench.transport.done.wait()
    assert bench.transport.ended == ["close"]
    bench.connection.connection_lost(None)


@on_a_loop
async def test_a_goodbye_comes_behind_what_waits():
    """A close frame in the middle of an answer would be part of it."""
    bench = full_bench(Upgrade(None), WEBSOCKET)
    answer = b"z" * 200_000
    bench.connection.send(answer)
    bench.connection.close(1012, "bye")
    for _ in range(10):
        bench.transport.read(50_000)
    assert bench.transport.written == frame(answer) + bytes([0x88, 5]) + (1012).to_bytes(2, "big") + b"bye"
    bench.connection.connection_lost(None)


@on_a_loop
async def test_of_all_that_wait_one_that_does_not_read_is_cut():
    """By a reset, so that what the kernel has for it is given back too; the others get their answers."""
    server, _, report = server_with({})
    cut, most = [], budgets.UNREAD_BYTES

    class Holder:
        peer = "10.0.0.1"

        def reset(self):
            cut.append(self)

    holders = [Holder() for _ in range(3)]
    for holder in holders:
        server.charge_unread(holder, most // 2)
    report.close()
    assert cut == holders[:1]
    assert report.counters()["viewer_unread_limit_total"] == 1
    server.charge_unread(holders[2], most + 1)
    assert cut == holders, "who holds more than all may is cut itself, and the asking ends"
    report.close()
