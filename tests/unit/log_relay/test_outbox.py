"""The books on their own: what sockets and threads make hard to hit on purpose."""

import os

import pytest

from robo_trader.log_relay import frames as wire
from robo_trader.log_relay.outbox import F_SETSIG, Outbox

fcntl = pytest.importorskip("fcntl")
TAG = 50


def frame_count(data):
    import msgpack  # noqa: PLC0415

    unpacker = msgpack.Unpacker()
    unpacker.feed(bytes(data))
    return [frame[1] for frame in unpacker]


@pytest.fixture
def marked():
    """A descriptor with the mark that the outbox looks for before it sends."""
    read, write = os.pipe()
    fcntl.fcntl(write, F_SETSIG, TAG)
    yield write
    os.close(read)
    os.close(write)


def queue(out, count, level="info"):
    for i in range(count):
        out.queue(i, wire.LEVELS[level], b"\x80")


def balanced(out):
    return out.produced() == out.acked + out.pending() + sum(out.dropped.values())


@pytest.mark.parametrize("takes", [0, 1, 13, 10**6])
def test_a_contended_line_that_is_taken_in_part(marked, takes):
    """A line from the inbox of which the kernel takes only some bytes: the others are next, nothing is
    repeated."""
    out = Outbox(1 << 20)
    wire_bytes = bytearray()
    woken = []

    def send(data, flags):
        wire_bytes.extend(data[:takes])
        return min(takes, len(data))

    out.direct, out.fd, out.tag, out.blocked = send, marked, TAG, lambda: woken.append(1)
    out.inbox.append((5, wire.LEVELS["info"], b"\x80"))
    out.inbox.append((6, wire.LEVELS["error"], b"\x80"))
    out.settle_inbox()
    assert (out.direct is None) == bool(woken) == (takes < 100)
    out.fill(10)
    assert frame_count(wire_bytes + out.rest) == [1, 2]
    assert balanced(out)


def test_a_descriptor_that_is_not_ours_is_not_written_to(marked):
    """Without the mark nothing is sent and the line stays."""
    out = Outbox(1 << 20)
    out.direct, out.fd, out.tag = lambda data, flags: pytest.fail("sent"), marked, TAG + 1
    out.inbox.append((5, wire.LEVELS["info"], b"\x80"))
    out.settle_inbox()
    assert out.direct is None
    assert frame_count(out.rest) == [1]


def test_an_interrupted_holder_is_mended():
    """Lines twice in memory, in a gap and in memory, nowhere, or ahead of the counter: the books balance
    again."""
    out = Outbox(1 << 20)
    queue(out, 10)
    out.unsent_low.insert(4, out.unsent_low[4])  # was being moved
    del out.unsent_low[7]  # vanished
    out._note(out.untold, 2, 2, "overflow", lost=True)  # was being dropped
    out.unsent_high.append(wire.log(11, 0, wire.LEVELS["error"], b"\x80"))  # was being admitted
    out.dirty = True
    out.repair()
    assert out.seq == 11
    assert out.dropped["overflow"] == 1
    assert out.broken
    assert balanced(out)
    assert out.release(0) is False
    out.reconnected()
    out.fill(100)
    assert frame_count(out.rest) == list(range(1, 12))
    assert balanced(out)
    assert out.dropped["overflow"] == 2


def test_an_interrupted_ack_is_not_counted_twice():
    """A repair between two slices of one ack takes what is already forgotten for acked, not for lost."""
    out = Outbox(1 << 20)
    queue(out, 1000)
    out.rejected(5, "rejected", "rejected_repeatedly")
    out.fill(10_000)
    while out.unsent():
        out.rest = b""
        out.fill(10_000)
    assert out.release(900)
    assert out.acked == 256
    out.dirty = True
    out.repair()
    while out.release(900):
        pass
    assert out.acked == 899
    assert balanced(out)


def test_an_ack_of_what_was_never_sent_releases_nothing():
    """Only seqs that were on a wire can be acked."""
    out = Outbox(1 << 20)
    queue(out, 10)
    out.fill(5)
    assert out.release(6) is False
    assert (out.acked, out.heard_wrong) == (0, 1)
    assert out.release(5) is False
    assert out.acked == 5


def test_an_errand_nobody_waits_for_is_not_run():
    """An errand is run by whoever holds the token next, unless its owner has given up."""
    out = Outbox(1 << 20)
    ran = []
    del out.token[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robo_trader.log_relay.outbox.PATIENCE", 0.01)
        with pytest.raises(TimeoutError):
            out.locked(ran.append, 1)
    out.token += (None,)
    assert out.locked(len, "abc") == 3
    assert ran == []
    assert not out.errands
