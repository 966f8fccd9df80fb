"""One trader's socket as a transport: what is read, and how it ends."""

from __future__ import annotations

import socket
import struct

import pytest

from logrelay.ingest.trader_socket import TraderSocket


class Loop:
    def __init__(self):
        self.soon = []
        self.problems = []

    def call_soon(self, call, *args):
        self.soon.append((call, args))

    def turn(self):
        due, self.soon = self.soon, []
        for call, args in due:
            call(*args)

    def call_exception_handler(self, context):
        self.problems.append(context)


class Poll:
    def __init__(self):
        self.reads = {}

    def add(self, descriptor, read):
        assert descriptor not in self.reads
        self.reads[descriptor] = read

    def remove(self, descriptor):
        del self.reads[descriptor]

    def read(self):
        for read in list(self.reads.values()):
            read()


class Protocol:
    def __init__(self):
        self.buffer = bytearray(8)
        self.calls = []
        self.refuse = False
        self.error = None

    def connection_made(self, transport):
        self.calls.append("made")
        if self.refuse:
            transport.close()

    def read_buffer(self):
        return memoryview(self.buffer)

    def data_received(self, data):
        if self.error is not None:
            raise self.error
        self.calls.append(data)

    def connection_lost(self, error):
        self.calls.append(("lost", error))


class Bench:
    def __init__(self):
        self.loop, self.poll, self.protocol = Loop(), Poll(), Protocol()
        self.near, self.far = socket.socketpair()
        self.transport = TraderSocket(self.near, self.protocol, self.poll, self.loop)

    def ends(self):
        """Let the loop turn; return the error with which the connection has ended."""
        assert self.transport.is_closing()
        assert not self.poll.reads
        assert self.near.fileno() >= 0, "it is closed when the protocol has been told"
        self.loop.turn()
        assert self.near.fileno() < 0
        (end,) = [call[1] for call in self.protocol.calls if call[0] == "lost"]
        return end


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.near.close()
    made.far.close()


def test_it_is_read_once_each_time(bench):
    """As much as there is room for; the rest waits for the next time."""
    bench.transport.start()
    bench.far.sendall(b"twelve bytes")
    bench.poll.read()
    assert bench.protocol.calls == ["made", b"twelve b"]
    bench.poll.read()
    bench.poll.read()
    assert bench.protocol.calls == ["made", b"twelve b", b"ytes"]


def test_it_is_a_transport(bench):
    assert bench.transport.get_extra_info("socket") is bench.near
    assert bench.transport.get_extra_info("peername", 5) == 5
    assert not bench.near.getblocking()


def test_paused_it_is_not_looked_at(bench):
    """Asked twice or once."""
    bench.transport.start()
    for _ in range(2):
        bench.transport.pause_reading()
        assert (bench.poll.reads, bench.transport.is_reading()) == ({}, False)
    for _ in range(2):
        bench.transport.resume_reading()
        assert (len(bench.poll.reads), bench.transport.is_reading()) == (1, True)


def test_every_byte_comes_before_the_end(bench):
    bench.transport.start()
    bench.far.sendall(b"last")
    bench.far.close()
    bench.poll.read()
    bench.poll.read()
    assert bench.protocol.calls == ["made", b"last"]
    assert bench.ends() is None


def test_a_killed_peer_is_an_error_behind_its_last_byte(bench):
    """With answers to it unread the kernel reports a reset, after what it has sent."""
    bench.transport.start()
    bench.near.send(b"an ack")
    bench.far.sendall(b"last")
    bench.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    bench.far.close()
    bench.poll.read()
    bench.poll.read()
    assert bench.protocol.calls == ["made", b"last"]
    assert isinstance(bench.ends(), ConnectionResetError)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_is_told_in_the_next_turn_once(bench, how):
    bench.transport.start()
    getattr(bench.transport, how)()
    bench.transport.close()
    bench.transport.resume_reading()
    assert bench.protocol.calls == ["made"]
    assert bench.ends() is None


def test_who_is_turned_away_at_once_is_not_read(bench):
    bench.protocol.refuse = True
    bench.transport.start()
    assert bench.ends() is None


def test_an_error_of_ours_costs_the_connection_and_is_reported(bench):
    """And no other one."""
    bench.transport.start()
    bench.protocol.error = ValueError("wrong")
    bench.far.sendall(b"x")
    bench.poll.read()
    assert [context["exception"] for context in bench.loop.problems] == [bench.protocol.error]
    assert bench.ends() is bench.protocol.error
