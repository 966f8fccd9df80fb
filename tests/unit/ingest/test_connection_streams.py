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
RUN = bytes(range(16))
NOW_US = 1_769_162_400_000_000


class Timer:
    def cancel(self):
        pass


class Relay:
    """A registry behind one connection at a time; it is the connection's loop, transport, owner and intake."""

    def __init__(self, has):
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

    def was_read(self, _connection, _size):
        pass

    def was_greeted(self, _connection):
        pass

    def hello(self, connection, hello):
        self.registry.hello(connection, hello, NOW_US, 0.0)
        return self.trader.committed

    def frames(self, _connection, frames):
        return self.registry.receive(self.trader, frames, NOW_US, 0.0)

    def refused(self, _connection, reason):
        raise AssertionError(reason)


class Transport:
    def __init__(self, sock):
        self.sock = sock

    def get_extra_info(self, _name):
        return self.sock

    def is_closing(self):
        return False


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
