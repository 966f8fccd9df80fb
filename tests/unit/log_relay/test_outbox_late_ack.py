"""Lines that were counted as dropped and turn out to be in the journal are counted as acked, not as both."""

from robo_trader.log_relay import frames as wire
from robo_trader.log_relay.outbox import Outbox


def outbox(lines, limit=1 << 20):
    out = Outbox(limit, on_blocked=lambda: None)
    for number in range(lines):
        out.queue(number, wire.LEVELS["info"], b"\x80")
    return out


def drop_oldest_sent(out, count):
    """Go over the bound while lines wait for their ack, so that the oldest are dropped, in doubt."""
    for _ in range(count):
        out._drop(out.sent_low, 0)


def balanced(out):
    return out.produced() == out.acked + out.pending() + sum(out.dropped.values())


def test_an_ack_after_the_welcome_takes_back_what_was_counted_as_dropped():
    """The relay journals late what it read from the old connection, and its ack comes on the new one."""
    out = outbox(10)
    out.fill(100)
    drop_oldest_sent(out, 4)
    assert sum(out.dropped.values()) == 0, "in doubt is not dropped"
    out.reconnected()
    out.release(0)  # the welcome: nothing is journaled yet
    out.welcomed()
    assert out.dropped["overflow"] == 4
    assert balanced(out)
    assert out.release(10) is False
    assert (out.acked, out.dropped["overflow"], out.pending()) == (10, 0, 0)
    assert balanced(out)
    assert not out.unsent()


def test_a_late_ack_in_the_middle_of_a_gap_takes_back_only_its_part():
    """Up to the acked seq the lines got there; those behind are dropped, and are told as such."""
    out = outbox(10)
    out.fill(100)
    drop_oldest_sent(out, 6)
    out.reconnected()
    out.release(0)
    out.welcomed()
    assert out.dropped["overflow"] == 6
    assert out.release(4) is False
    assert (out.acked, out.dropped["overflow"], out.pending()) == (4, 2, 4)
    assert balanced(out)
    out.to_write = b""
    out.fill(100)
    assert out.to_write.startswith(wire.lost(5, 6, "overflow"))


def test_a_told_gap_stays_dropped_when_it_is_acked():
    """What the relay was told to be lost is lost; its ack says that it was read."""
    out = outbox(10)
    out._drop(out.unsent_low, 0)
    assert out.dropped["overflow"] == 1
    out.fill(100)
    assert out.release(10) is False
    assert (out.acked, out.dropped["overflow"], out.pending()) == (9, 1, 0)
    assert balanced(out)
