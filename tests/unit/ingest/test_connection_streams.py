"""What a trader may write behind hello without waiting for the welcome, in any pieces, and what becomes of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import msgpack
import pytest

from logrelay.ingest.connection import UnixConnection
from logrelay.ingest.frames import Hello, Log, Unpackers
from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.trader_registry import TraderRegistry
from logrelay.model import INFO

STREAMS = json.loads((Path(__file__).parents[2] / "contract" / "vectors" / "wire-v1-streams.json").read_text())
ODD = json.loads((Path(__file__).parents[2] / "contract" / "vectors" / "wire-v1-odd.json").read_text())
RUN = bytes(range(16))
NOW_US = 1_769_162_400_000_000


class Timer:
    def cancel(self):
        pass


class Relay:
    """A registry behind one connection at a time; it is the connection's loop, transport, owner and intake."""

    def __init__(self, has, *, may_refuse=False):
        self.may_refuse = may_refuse
        self.sequencer = Sequencer("k3f9ab", 1, on_notice=lambda _rank, _text: None)
        self.registry = TraderRegistry((), self.sequencer, quiet_after_s=0.0, mono=0.0, now_us=0)
        self.loop = self
        self.unpackers = Unpackers()
        hello = Hello(RUN, "bot", "box", 1, 1)
        self.trader, _ = self.registry.hello(self, hello, NOW_US, 0.0)
        earlier = [Log(seq, NOW_US * 1000 + seq, INFO, {"event": "earlier"}) for seq in range(1, has + 1)]
        self.registry.receive(self.trader, earlier, NOW_US, 0.0)
        self.registry.committed(self.trader.run.id, has)
        self.sequencer.take()

    def ack(self, seq, *, now):
        pass

    def abort(self):
        pass

    def call_later(self, *_):
        return Timer()

    def admit(self, _connection):
        return None

    def admit_hello(self, _connection):
        return None

    def charge(self, _connection, _count, *, is_new):
        pass

    def read_buffer(self, _connection):
        return memoryview(bytearray(1))

    def was_read(self, _connection, _size, _frames):
        pass

    def was_greeted(self, _connection):
        pass

    def objection(self, hello):
        return None

    def hello(self, connection, hello):
        self.registry.hello(connection, hello, NOW_US, 0.0)
        return self.trader.committed

    def frames(self, _connection, frames):
        return self.registry.receive(self.trader, frames, NOW_US, 0.0)

    def refused(self, _connection, reason):
        assert self.may_refuse, reason


class Transport:
    def __init__(self, sock):
        self.sock = sock
        self.closed = False

    def close(self):
        self.closed = True

    def get_extra_info(self, _name):
        return self.sock

    def is_closing(self):
        return self.closed


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream["name"])
def test_a_stream_behind_hello(stream, size):
    """Each new line is taken once and in order, of each loss the part that is one; the only answer is the welcome."""
    relay = Relay(stream["has"])
    near, far = socket.socketpair()
    with near, far:
        connection = UnixConnection(relay, relay)
        connection.connection_made(Transport(near))
        data = bytes.fromhex(stream["hex"])
        for start in range(0, len(data), size):
            connection.data_received(data[start : start + size])
        answers = msgpack.Unpacker()
        answers.feed(far.recv(4096))
    assert list(answers) == [[0, {"protocol": 1, "acked": stream["welcome"]}]]
    taken = relay.sequencer.take()
    shown = [json.loads(line.body) for line in taken[0].lines] if taken else []
    lines = [shape["message"] for shape in shown if shape["source"] != "logrelay"]
    assert lines == [f"line {seq}" for seq in stream["takes"]]
    gaps = [shape["context"] for shape in shown if shape["context"].get("notice") == "gap"]
    assert [[gap["first"], gap["last"], gap["cause"]] for gap in gaps] == stream["gaps"]
    assert relay.trader.run.last_seq == stream["last"]


@pytest.mark.parametrize("size", [1, 13, 10**6])
@pytest.mark.parametrize("stream", ODD, ids=lambda stream: stream["name"])
def test_an_odd_stream(stream, size):
    """What docs/protocol.md says becomes of it: what is taken, answered and told, and where the run then stands."""
    relay = Relay(0, may_refuse=True)
    near, far = socket.socketpair()
    with near, far:
        connection = UnixConnection(relay, relay)
        connection.connection_made(Transport(near))
        data = bytes.fromhex(stream["hex"])
        for start in range(0, len(data), size):
            connection.data_received(data[start : start + size])
        answers = msgpack.Unpacker()
        answers.feed(far.recv(4096))
    welcome, *answers = answers
    assert welcome == [0, {"protocol": 1, "acked": 0}]
    assert ["refused" if kind == 3 else f"reject {rest[0]}" for kind, *rest in answers] == stream["answers"]
    taken = relay.sequencer.take()
    shown = [json.loads(line.body) for line in taken[0].lines] if taken else []
    lines = [shape for shape in shown if shape["source"] != "logrelay"]
    assert [shape["message"] for shape in lines] == [f"line {seq}" for seq in stream["takes"]]
    gaps = [shape["context"] for shape in shown if shape["context"].get("notice") == "gap"]
    assert [[gap["first"], gap["last"], gap["cause"]] for gap in gaps] == stream["gaps"]
    assert relay.trader.run.said_bye is stream["bye"]
    told = [shape for shape in shown if shape["context"].get("state") == "clock"]
    if stream["context"] is not None:
        expected = dict(stream["context"])
        absurd = expected.pop("NOW", False)
        assert lines[-1]["context"] == expected
        assert lines[-1]["timestamp"][:10] == "2026-01-23"
        assert len(told) == (1 if absurd or len(lines) == 2 else 0)


def test_absurd_times_are_told_once_and_drag_nothing_along():
    """A clock of seconds, of a century ahead, or of none: lines in order at the relay's time, one notice a run."""
    relay = Relay(0)
    now_ns = NOW_US * 1000
    absurd = [now_ns // 10**9, now_ns // 10**6, 0, -(2**63), 2**64 - 1, now_ns + 4 * 10**18]
    logs = [Log(seq, said, INFO, {"event": str(said)}) for seq, said in enumerate(absurd, 1)]
    relay.registry.receive(relay.trader, logs, NOW_US, 0.0)
    relay.registry.receive(relay.trader, [Log(7, now_ns + 10**9, INFO, {"event": "true"})], NOW_US + 10**6, 1.0)
    shown = [json.loads(line.body) for line in relay.sequencer.take()[0].lines]
    told = [shape for shape in shown if shape["context"].get("state") == "clock"]
    assert [shape["context"]["time_ns"] for shape in told] == [str(absurd[0])]
    assert "it looks like seconds" in told[0]["message"]
    lines = [shape for shape in shown if shape["source"] != "logrelay"]
    assert [shape["timestamp"] for shape in lines] == [
        *(f"2026-01-23T10:00:00.00000{n}Z" for n in range(6)),
        "2026-01-23T10:00:01.000000Z",
    ]
    assert [shape["context"].get("time_ns") for shape in lines] == [
        said if abs(said) < 2**53 else str(said) for said in absurd
    ] + [None]
    assert all("clock" not in shape["context"] for shape in lines)


@pytest.mark.parametrize("off_us", [-(86_400_000_000 * 365 * 20), -86_400_000_000, 0, 86_400_000_000])
def test_a_time_that_may_be_true_is_believed(off_us):
    """Years old, from a spool, or a day ahead; and any, where the relay's own clock was never set."""
    relay = Relay(0)
    relay.registry.receive(relay.trader, [Log(1, (NOW_US + off_us) * 1000, INFO, {})], NOW_US, 0.0)
    relay.registry.receive(relay.trader, [Log(2, (NOW_US + off_us + 1) * 1000, INFO, {})], 5, 0.0)
    taken = relay.sequencer.take()[0].lines
    assert [line.time_us for line in taken if line.run] == [NOW_US + off_us, NOW_US + off_us + 1]
    assert all(b"time_ns" not in line.body for line in taken)
