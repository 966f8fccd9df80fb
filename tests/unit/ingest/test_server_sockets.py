"""The traders' server on real sockets and a real loop: who is accepted, what is read at the end, and the end itself.

How it decides is in test_server.py, with a fake clock; killed traders are in tests/integration/relay.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, asynccontextmanager
from itertools import count

import msgpack

from logrelay.ingest import server
from logrelay.ingest.frames import Log
from logrelay.ingest.keepalive import Bounds
from logrelay.ingest.server import TraderServer
from tests.support.waiting import DEADLINE_S, LOOK_S

BOUNDS = Bounds(tick_s=3.0, ping_ticks=2, dead_ticks=5)


async def until(condition):
    """Turn the loop until the condition is true."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  (nothing announces it)
            await asyncio.sleep(LOOK_S)


def hello(run):
    return msgpack.packb(
        [0, {"protocol": 1, "run": run * 16, "app": "bot", "host": "h", "pid": 1, "started_ns": 1, "ping": True}]
    )


def log(seq):
    return msgpack.packb([1, seq, 1_700_000_000_000_000_000, "info", {"event": "e"}])


class Intake:
    """Takes everything; `on_tick` is called with each tick."""

    def __init__(self):
        self.seqs = []
        self.refusals = []
        self.ends = 0
        self.ticks = 0
        self.on_tick = lambda: None

    def objection(self, _hello):
        return None

    def hello(self, _connection, _hello):
        return 0

    def frames(self, _connection, frames):
        self.seqs += [frame.seq for frame in frames if type(frame) is Log]
        return []

    def refused(self, _connection, reason):
        self.refusals.append(reason)

    def ended(self, _connection, _end):
        self.ends += 1
        return False

    def process_died(self, _run):
        """Nobody asks."""

    def flooding(self, *_args):
        """Nobody floods."""

    def tick(self):
        self.ticks += 1
        self.on_tick()
        return 0


class Place:
    """A server, and paths of its sockets."""

    def __init__(self, folder, *, max_connections=5):
        self.folder = folder
        self.intake = Intake()
        self.server = TraderServer(
            self.intake, max_connections=max_connections, loop=asyncio.get_running_loop(), bounds=BOUNDS
        )
        self.ends = ExitStack()

    def bound(self, name):
        """Return a socket with a name, on which nobody listens yet."""
        sock = self.ends.enter_context(socket.socket(socket.AF_UNIX))
        sock.bind(str(self.folder / name))
        return sock

    def trader(self, name, data=b""):
        """Connect and send."""
        sock = self.ends.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(str(self.folder / name))
        sock.sendall(data)
        sock.setblocking(False)
        return sock

    async def has(self, seqs):
        await until(lambda: sorted(self.intake.seqs) == sorted(seqs))


@asynccontextmanager
async def place(folder, **options):
    made = Place(folder, **options)
    with made.ends:
        try:
            yield made
        finally:
            await made.server.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def answers(sock):
    unpacker = msgpack.Unpacker()
    unpacker.feed(sock.recv(1 << 16))
    return list(unpacker)


def test_who_comes_is_accepted_and_read(tmp_path):
    """On a socket that only had a name; the server never waits for anybody. The welcome says when it pings."""

    async def run():
        async with place(tmp_path) as at:
            sock = at.bound("a")
            await at.server.serve(sock)
            assert not sock.getblocking()
            one, two = (at.trader("a", hello(run) + log(seq)) for run, seq in ((b"1", 1), (b"2", 2)))
            await at.has([1, 2])
            assert at.server.connection_count == 2
            for trader in (one, two):
                (welcome,) = answers(trader)
                assert welcome[:1] == [0]
                assert (welcome[1]["ping_s"], welcome[1]["dead_s"]) == (BOUNDS.ping_s, BOUNDS.dead_s)
            one.close()
            await until(lambda: at.intake.ends == 1)
            assert at.server.connection_count == 1

    asyncio.run(run())


def test_many_may_wait_to_be_accepted(tmp_path):
    """None of them is turned away by the kernel."""

    async def run():
        async with place(tmp_path, max_connections=500) as at:
            await at.server.serve(at.bound("a"))
            for _ in range(200):
                at.trader("a", hello(b"1"))  # whoever says nothing for long is turned away
            await until(lambda: at.server.connection_count == 200)

    asyncio.run(run())


def test_who_says_something_else_is_refused(tmp_path):
    async def run():
        async with place(tmp_path) as at:
            await at.server.serve(at.bound("a"))
            trader = at.trader("a", log(1))
            await until(lambda: at.intake.refusals)
            assert at.intake.refusals == ["the first frame must be hello"]
            assert answers(trader) == [[3, "the first frame must be hello"]]

    asyncio.run(run())


def test_another_socket_takes_the_place_of_those_before(tmp_path):
    """Who is connected stays; nobody is accepted at the old place any more."""

    async def run():
        async with place(tmp_path) as at:
            before, after = at.bound("a"), at.bound("b")
            await at.server.serve(before)
            trader = at.trader("a", hello(b"1") + log(1))
            await at.has([1])
            await at.server.serve_instead(after)
            assert before.fileno() == -1
            trader.send(log(2))
            at.trader("b", hello(b"2") + log(3))
            await at.has([1, 2, 3])

    asyncio.run(run())


def test_the_drain_reads_what_was_sent(tmp_path):
    """All of it, also of those that were not read for want of room; then it ends, and nobody else is accepted."""

    async def run():
        async with place(tmp_path) as at:
            sock = at.bound("a")
            await at.server.serve(sock)
            traders = [at.trader("a", hello(run)) for run in (b"1", b"2")]
            await until(lambda: at.intake.ticks and at.server.connection_count == 2)
            at.server.pause_reading()
            for number, trader in enumerate(traders):
                trader.setblocking(True)
                trader.sendall(b"".join(log(seq) for seq in range(1 + number * 2000, 2001 + number * 2000)))
            await at.server.drain()
            assert sorted(at.intake.seqs) == list(range(1, 4001))
            assert sock.fileno() == -1

    asyncio.run(run())


def test_the_drain_goes_on_while_there_is_no_room(tmp_path):
    """A pause says nothing about whether something is left to be read: what comes behind it is read too."""

    async def run():
        async with place(tmp_path) as at:
            await at.server.serve(at.bound("a"))
            trader = at.trader("a", hello(b"1"))
            await until(lambda: at.server.connection_count == 1)
            loop, pauses = asyncio.get_running_loop(), iter(range(3))

            def no_room():
                if next(pauses, None) is not None:
                    at.server.pause_reading()
                    trader.send(log(len(at.intake.seqs) + 1))
                    loop.call_soon(at.server.resume_reading)

            at.intake.on_tick = no_room
            trader.send(log(1))
            await at.server.drain()
            at.intake.on_tick = lambda: None
            assert at.intake.seqs == [1, 2, 3, 4]

    asyncio.run(run())


def test_the_drain_ends_although_a_trader_goes_on(tmp_path, monkeypatch):
    """So many rounds, and no more; few here, as the trader never rests."""
    monkeypatch.setattr(server, "DRAIN_ROUNDS", 8)

    async def run():
        async with place(tmp_path) as at:
            await at.server.serve(at.bound("a"))
            trader = at.trader("a", hello(b"1"))
            await until(lambda: at.server.connection_count == 1)

            seqs = count(1)

            def send_on():
                trader.send(log(next(seqs)))  # whatever the tick was for: that of hello may be still to come

            at.intake.on_tick = send_on
            send_on()
            await at.server.drain()
            at.intake.on_tick = lambda: None
            assert len(at.intake.seqs) >= 8

    asyncio.run(run())


def test_the_drain_reads_a_trader_whose_hello_has_just_come(tmp_path):
    """It was accepted, and what it sent may be all that is left of it."""

    async def run():
        async with place(tmp_path) as at:
            await at.server.serve(at.bound("a"))
            trader = at.trader("a")
            await until(lambda: at.server.connection_count == 1)
            trader.sendall(hello(b"1") + log(1))
            await at.server.drain()
            assert at.intake.seqs == [1]
            assert at.intake.refusals == []

    asyncio.run(run())


def test_the_end_closes_every_connection(tmp_path):
    """With the acks that are due, and nobody is told of ends that the relay has made."""

    async def run():
        async with place(tmp_path) as at:
            await at.server.serve(at.bound("a"))
            trader = at.trader("a", hello(b"1") + log(1))
            await at.has([1])
            answers(trader)
            await at.server.close()
            await until(lambda: at.server.connection_count == 0)
            assert trader.recv(1) == b""

    asyncio.run(run())
