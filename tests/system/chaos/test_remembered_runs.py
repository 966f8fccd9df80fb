"""A trader that dropped comes back after thousands of others, and after a kill of the relay: it is known."""

from __future__ import annotations

import os
import socket

import msgpack

from tests.support.chaos.ledger import Ledger
from tests.support.chaos.scale import scaled
from tests.support.waiting import DEADLINE_S, wait_for

OTHERS = scaled(2_100, 20_000)
"""The relay once remembered 2,000 runs."""
AT_ONCE = 50
"""Of them connected at a time: one commit has the lines of many, so that a slow disk does not make minutes of it."""


class Link:
    """One connection of a run, written and read by hand."""

    def __init__(self, relay, run):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(str(relay.socket))
        self.answers = msgpack.Unpacker()
        self.send([0, {"protocol": 1, "run": run, "app": "bot", "host": "box", "pid": 1, "started_ns": 1}])
        self.acked = self.answer()[1]["acked"]

    def send(self, *frames):
        self.sock.sendall(b"".join(map(msgpack.packb, frames)))

    def answer(self):
        while True:
            for found in self.answers:
                return found
            self.answers.feed(self.sock.recv(65_536))

    def wait_acked(self, seq):
        while self.acked < seq:
            self.acked = self.answer()[1]

    def close(self):
        self.sock.close()


def log(run, seq):
    return [1, seq, 1_769_162_400_000_000_000 + seq, "info", {"event": f"{run.hex()} {seq}"}]


def test_a_dropped_run_is_known_after_thousands_of_others(scene):
    """It resends what it has no ack for: no line is kept twice, none is said to be missing."""
    relay = scene.relay().start()
    lost = os.urandom(16)
    link = Link(relay, lost)
    link.send(*[log(lost, seq) for seq in range(1, 11)])
    link.wait_acked(10)
    link.close()
    for _ in range(OTHERS // AT_ONCE):
        others = {run: Link(relay, run) for run in (os.urandom(16) for _ in range(AT_ONCE))}
        for run, other in others.items():
            other.send(log(run, 1), [3, 1])
        for other in others.values():
            other.wait_acked(1)
            other.close()
    wait_for(lambda: relay.metric("runs") == OTHERS + 1, relay.tell)
    relay.restart()
    assert relay.metric("runs") == OTHERS + 1
    link = Link(relay, lost)
    try:
        assert link.acked == 10
        link.send(*[log(lost, seq) for seq in range(9, 13)], [3, 12])
        link.wait_acked(12)
    finally:
        link.close()
    ledger = Ledger.read(relay.journal)
    lines = [entry.data["message"] for entry in ledger.entries if not entry.is_notice]
    assert [line for line in lines if line.startswith(lost.hex())] == [f"{lost.hex()} {n}" for n in range(1, 13)]
    assert (len(lines), len(set(lines))) == (12 + OTHERS, 12 + OTHERS)
    assert not ledger.notices(notice="gap")
