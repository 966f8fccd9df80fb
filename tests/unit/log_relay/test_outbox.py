"""The outbox on its own: what sockets and threads make hard to hit on purpose."""

import os

import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay.outbox import Outbox

fcntl = pytest.importorskip("fcntl")
MARK = 50


def frame_count(data):
    import msgpack  # noqa: PLC0415

    unpacker = msgpack.Unpacker()
    unpacker.feed(bytes(data))
    return [frame[1] for frame in unpacker]


@pytest.fixture
def marked():
    """A descriptor with the mark that the outbox looks for before it sends."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETSIG, MARK)
    yield write
    os.close(read)
    os.close(write)


def queue(out, count, level="info"):
    for i in range(count):
        out.queue(i, frames.LEVELS[level], b"\x80")


def balanced(out):
    return out.produced() == out.acked + out.pending() + sum(out.dropped.values())


@pytest.mark.parametrize("takes", [0, 1, 13, 10**6])
def test_a_contended_line_that_is_taken_in_part(marked, takes):
    """A line from the inbox of which the kernel takes only some bytes: the others are next, nothing is repeated."""
    woken = []
    out = Outbox(1 << 20, on_blocked=lambda: woken.append(1))
    wire_bytes = bytearray()

    def send(data, flags):
        wire_bytes.extend(data[:takes])
        return min(takes, len(data))

    out.start_direct(send, marked, MARK)
    out.inbox.append((5, frames.LEVELS["info"], b"\x80"))
    out.inbox.append((6, frames.LEVELS["error"], b"\x80"))
    out.combine()
    assert (out.direct_send is None) == bool(woken) == (takes < 100)
    out.fill(10)
    assert frame_count(wire_bytes + out.to_write) == [1, 2]
    assert balanced(out)


def test_a_descriptor_that_is_not_ours_is_not_written_to(marked):
    """Without the mark nothing is sent and the line stays."""
    out = Outbox(1 << 20, on_blocked=lambda: None)
    out.start_direct(lambda data, flags: pytest.fail("sent"), marked, MARK + 1)
    out.inbox.append((5, frames.LEVELS["info"], b"\x80"))
    out.combine()
    assert out.direct_send is None
    assert frame_count(out.to_write) == [1]


def test_an_interrupted_change_is_repaired():
    """Lines twice in memory, in a gap and in memory, nowhere, or ahead of the counter: the sums are right again."""
    out = Outbox(1 << 20, on_blocked=lambda: None)
    queue(out, 10)
    out.unsent_low.insert(4, out.unsent_low[4])  # was being moved
    del out.unsent_low[7]  # vanished
    out._add_gap(out.unreported_gaps, 2, 2, "overflow", lost=True)  # was being dropped
    out.unsent_high.append(frames.log(11, 0, frames.LEVELS["error"], b"\x80"))  # was being admitted
    out.dirty = True
    out.repair()
    assert out.seq == 11
    assert out.dropped["overflow"] == 1
    assert out.broken
    assert balanced(out)
    out.reconnected()
    assert out.release(0) is False
    out.welcomed()
    out.fill(100)
    assert frame_count(out.to_write) == list(range(1, 12))
    assert balanced(out)
    assert out.dropped["overflow"] == 2


def test_an_interrupted_ack_is_not_counted_twice():
    """A repair between two slices of one ack takes what is already forgotten for acked, not for lost."""
    out = Outbox(1 << 20, on_blocked=lambda: None)
    queue(out, 1000)
    out.reject(5, "rejected", "rejected_repeatedly")
    out.fill(10_000)
    while out.unsent():
        out.to_write = b""
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
    out = Outbox(1 << 20, on_blocked=lambda: None)
    queue(out, 10)
    out.fill(5)
    assert out.release(6) is False
    assert (out.acked, out.bad_answers) == (0, 1)
    assert out.release(5) is False
    assert out.acked == 5


def test_work_nobody_waits_for_is_not_run():
    """Delegated work is run by whoever has the baton next, unless its owner has given up."""
    out = Outbox(1 << 20, on_blocked=lambda: None)
    ran = []
    del out.baton[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robo_trader.log_relay.outbox.BATON_TIMEOUT_S", 0.01)
        with pytest.raises(TimeoutError):
            out.delegate(ran.append, 1)
    out.baton += (None,)
    assert out.delegate(len, "abc") == 3
    assert ran == []
    assert not out.delegated
