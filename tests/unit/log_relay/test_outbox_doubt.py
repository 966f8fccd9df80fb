"""Lines that were on an earlier wire and are no longer in memory: who decides what became of them, and when."""

import json
import random
from pathlib import Path

import msgpack
import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay.outbox import FRAME_OVERHEAD, Outbox

INFO, ERROR = frames.LEVELS["info"], frames.LEVELS["error"]


def outbox(lines, limit=1 << 20):
    out = Outbox(limit, on_blocked=lambda: None)
    for number in range(lines):
        out.queue(number, INFO, b"\x80")
    return out


def told(data):
    """Each log frame's seq, and each lost frame's range."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    return [frame[1] if frame[0] == 1 else (frame[1], frame[2]) for frame in unpacker]


def take(out):
    """Return what goes on the wire now."""
    sent = []
    while True:
        out.fill(100)
        if not out.to_write:
            return sent
        sent += told(out.to_write)
        out.written(len(out.to_write))


def balanced(out):
    return out.produced() == out.acked + out.pending() + sum(out.dropped.values())


def test_everything_not_acked_follows_hello_on_a_new_connection():
    """Lines of the last connection go again, in order, before any welcome; an ack is believed as far as they went."""
    out = outbox(10)
    assert take(out) == list(range(1, 11))
    out.release(4)
    out.connection_lost()
    out.reconnected()
    assert take(out) == list(range(5, 11))
    assert out.release(7) is False
    out.welcomed()
    assert (out.acked, out.pending(), out.bad_answers) == (7, 3, 0)


def test_what_is_in_doubt_waits_for_the_welcome_and_so_does_what_is_behind_it():
    """Lines 3 to 5 were sent and dropped: no lost frame is sent for them before the welcome says that they are not
    there."""
    out = outbox(8)
    take(out)
    for _ in range(5):
        out._drop(out.sent_low, 0)
    out.queue(9, INFO, b"\x80")
    out.connection_lost()
    out.reconnected()
    assert take(out) == []
    assert out.unsent()
    assert (out.pending(), sum(out.dropped.values())) == (9, 0)
    out.release(2)
    out.welcomed()
    assert take(out) == [(3, 5), 6, 7, 8, 9]
    assert (out.acked, out.pending(), out.dropped["overflow"]) == (2, 4, 3)
    assert balanced(out)


def test_a_line_dropped_before_the_welcome_is_in_doubt_only_if_it_was_on_a_wire():
    """Between hello and welcome: an unsent line that an earlier connection carried may be there, a new one cannot."""
    out = outbox(3)
    take(out)
    out.connection_lost()
    out.reconnected()
    out.queue(4, INFO, b"\x80")
    for _ in range(4):
        out._drop(out.unsent_low, 0)
    assert (out.dropped["overflow"], out.pending()) == (1, 3)
    out.release(2)
    out.welcomed()
    assert (out.acked, out.dropped["overflow"], out.pending()) == (2, 2, 0)
    assert take(out) == [(3, 4)]
    assert balanced(out)


def test_a_line_sent_again_and_dropped_stays_in_doubt_after_the_welcome():
    """It went out on this connection too, behind the hello that the welcome answers: its ack is still to come."""
    out = outbox(3)
    take(out)
    out.connection_lost()
    out.reconnected()
    take(out)
    for _ in range(3):
        out._drop(out.sent_low, 0)
    out.release(1)
    out.welcomed()
    assert (out.acked, out.pending(), sum(out.dropped.values())) == (1, 2, 0)
    out.release(3)
    assert (out.acked, out.pending()) == (3, 0)
    assert balanced(out)


@pytest.mark.parametrize("way", ["told", "rejected"])
def test_a_loss_that_the_relay_knows_of_stays_a_loss_when_the_next_welcome_covers_it(way):
    """The relay committed the lost frame (or its own reject), and the connection ended before the ack of that."""
    out = outbox(3)
    if way == "told":
        out._drop(out.unsent_low, 0)
        assert take(out) == [(1, 1), 2, 3]
    else:
        take(out)
        assert out.reject(1, "rejected", "rejected_repeatedly")
    out.connection_lost()
    out.reconnected()
    out.release(1)
    out.welcomed()
    assert (out.acked, sum(out.dropped.values()), out.pending()) == (0, 1, 2)
    assert take(out) == [2, 3]
    assert balanced(out)


def test_a_repair_remembers_what_the_relay_was_told():
    """After an interruption a lost frame that was on a wire is still known to have been."""
    out = outbox(3)
    out._drop(out.unsent_low, 0)
    take(out)
    out.dirty = True
    out.repair()
    out.connection_lost()
    out.reconnected()
    out.release(3)
    out.welcomed()
    assert (out.acked, out.dropped["overflow"], out.pending()) == (2, 1, 0)


def test_work_that_is_published_runs_at_once_or_when_the_baton_comes_back():
    """Nobody waits for it."""
    out, ran = outbox(0), []
    out.publish(ran.append, 1)
    assert ran == [1]
    del out.baton[0]
    out.publish(ran.append, 2)
    assert ran == [1]
    out.baton += (None,)
    out.combine()
    assert ran == [1, 2]


def test_lines_that_never_left_are_told_from_those_in_doubt():
    """What was handed over whole, on this connection or an earlier one, may be delivered; the rest cannot be."""
    out = outbox(10)
    assert out.unsent_lines() == 10
    out.fill(6)
    out.written(len(out.to_write) - 1)
    assert out.unsent_lines() == 5
    out.written(1)
    assert out.unsent_lines() == 4
    out.inbox.append((1, INFO, b"\x80"))
    out.overrun += 1
    assert (out.unsent_lines(), out.pending()) == (6, 12)
    out.admit_inbox()
    out.connection_lost()
    out.reconnected()
    assert (out.unsent_lines(), out.pending()) == (5, 11)


STREAMS = json.loads((Path(__file__).parents[2] / "contract" / "vectors" / "wire-v1-streams.json").read_text())
TIME = 1_769_162_400_123_456_789


@pytest.mark.parametrize(
    "name", ["a whole run before the welcome", "a reconnect: everything not acked again, and new lines"]
)
def test_the_bytes_behind_hello_are_those_of_the_vectors(name):
    """Lines and goodbye follow each other as the file of streams has them."""
    stream = next(stream for stream in STREAMS if stream["name"] == name)
    unpacker = msgpack.Unpacker()
    unpacker.feed(bytes.fromhex(stream["hex"]))
    hello = unpacker.unpack()[1]
    made = frames.hello(**{key: hello[key] for key in ("run", "app", "host", "pid", "started_ns")})
    out = Outbox(1 << 20, on_blocked=lambda: None)
    count = max(stream["takes"])
    for seq in range(1, count + 1):
        out.queue(TIME + seq, INFO, msgpack.packb({"event": f"line {seq}"}))
        if seq == stream["has"]:
            take(out)
            out.connection_lost()
            out.reconnected()
    out.fill(100)
    if not stream["has"]:
        out.append_bye()
    assert (made + out.to_write).hex() == stream["hex"]


class Relay:
    """The relay as the protocol has it: takes each seq once and in order, commits at once, and remembers what it is."""

    def __init__(self):
        self.last = 0
        self.lines = 0
        self.lost = 0
        self.unread = b""

    def connect(self):
        """A new connection has said hello: return the welcome's seq. What was unread of the last one is gone."""
        self.unread = b""
        return self.last

    def read(self, most):
        """Read up to `most` whole frames; a half one waits."""
        unpacker = msgpack.Unpacker()
        unpacker.feed(self.unread)
        used = 0
        for _ in range(most):
            try:
                frame = unpacker.unpack()
            except msgpack.OutOfData:
                break
            used = unpacker.tell()
            first, last = (frame[1], frame[1]) if frame[0] == 1 else (frame[1], frame[2])
            assert first <= self.last + 1, f"a hole nobody explained before {first}"
            if last > self.last:
                new = last - max(first, self.last + 1) + 1
                self.lines += new if frame[0] == 1 else 0
                self.lost += new if frame[0] == 2 else 0
                self.last = last
        self.unread = self.unread[used:]


@pytest.mark.parametrize("seed", range(60))
def test_both_sides_sums_are_equal_whatever_happens_when(seed):
    """Lines, drops, half frames, connections that end before, between and after welcome and acks: exact at the end."""
    dice = random.Random(f"doubt {seed}")
    out = Outbox(60 * (30 + FRAME_OVERHEAD), on_blocked=lambda: None)
    relay = Relay()
    connected, welcome = False, None

    def write(share):
        most = len(out.to_write) * share // 100
        relay.unread += out.to_write[:most]
        out.written(most)

    for _ in range(3_000):
        what = dice.choice(("log", "log", "log", "send", "send", "read", "welcome", "ack", "end", "connect", "hit"))
        if what == "log":
            for _ in range(dice.choice((1, 1, 1, 20))):
                out.queue(1, ERROR if dice.random() < 0.1 else INFO, b"\x80")
        elif what == "connect" and not connected:
            out.reconnected()
            connected, welcome = True, relay.connect()
        elif what == "end" and connected and dice.random() < 0.5:
            out.connection_lost()
            connected, welcome = False, None
        elif what == "send" and connected:
            if not out.to_write:
                out.fill(dice.choice((1, 5, 50)))
            write(dice.choice((10, 100, 100)))
        elif what == "read":
            if connected:
                relay.read(dice.choice((1, 10, 1000)))
        elif what == "welcome" and connected and welcome is not None:
            while out.release(welcome):
                pass
            out.welcomed()
            welcome = None
        elif what == "ack" and connected and welcome is None:
            while out.release(relay.last):
                pass
        elif what == "hit" and dice.random() < 0.02:
            out.dirty = True  # an interruption: the connection is to be closed
            out.repair()
            out.connection_lost()
            connected, welcome = False, None
        assert balanced(out)
    for _ in range(2):
        out.connection_lost()
        out.reconnected()
        welcome = relay.connect()
        while out.release(welcome):
            pass
        out.welcomed()
        while True:
            out.fill(100)
            if not out.to_write:
                break
            write(100)
        relay.read(10**6)
        while out.release(relay.last):
            pass
    assert (out.pending(), out.bad_answers) == (0, 0)
    assert out.dropped["overflow"] == relay.lost > 0
    assert out.acked == relay.lines > 0
