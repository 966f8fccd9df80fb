"""When a silent trader is pinged and when it is given up, tick by tick."""

from __future__ import annotations

import pytest

from logrelay.ingest.keepalive import DEAD_TICKS, PING_TICKS, TICK_S, Bounds, Silence, is_late
from robo_trader.log_relay import keepalive as traders
from robo_trader.log_relay import sender

NOTICED_S = 15.0
"""Both sides promise to notice within so many seconds (docs/protocol.md)."""


def ticks(silence, count, **state):
    """Return what was due in so many ticks, by the number of the tick; pings are sent."""
    due = {}
    for n in range(1, count + 1):
        what = silence.tick(**{"is_read": True, **state})
        if what is not None:
            due[n] = what
        if what == "ping":
            silence.sent()
    return due


def test_the_defaults_keep_the_promise():
    """Heard of right before the freeze, the rest of a tick at the start, and each side's own clock: within 15 s."""
    bounds = Bounds()
    assert (bounds.tick_s, bounds.ping_ticks, bounds.dead_ticks) == (TICK_S, PING_TICKS, DEAD_TICKS)
    assert (bounds.ping_s, bounds.dead_s) == (5.0, 12.0)
    assert bounds.dead_s + 2 * bounds.tick_s < NOTICED_S
    assert bounds.dead_s + sender.TICK_S < NOTICED_S
    assert traders.OVERDUE * bounds.ping_s + bounds.ping_s > bounds.dead_s > traders.OVERDUE * bounds.ping_s + TICK_S
    assert 2 * bounds.ping_s < bounds.dead_s, "two pings before it is given up"


def test_silence_gets_pings_and_then_the_end():
    """Nothing in the first interval: the connection was just made, and that counts as a sign."""
    assert ticks(Silence(Bounds()), 13) == {6: "ping", 11: "ping", 13: "dead"}


def test_who_is_heard_is_not_pinged_for_it():
    """Lines flow one way and acks the other: nothing is due."""
    silence = Silence(Bounds())
    for _ in range(100):
        silence.heard()
        silence.sent()
        assert silence.tick(is_read=True) is None


def test_pongs_keep_an_idle_connection_for_ever():
    """Each ping is sent, and answered a tick later."""
    silence = Silence(Bounds())
    pings = 0
    for _ in range(1000):
        due = silence.tick(is_read=True)
        assert due != "dead"
        if due == "ping":
            pings += 1
            silence.sent()
            silence.heard()
    assert pings == pytest.approx(1000 / (PING_TICKS + 1), abs=2)


def test_a_trader_that_is_not_read_is_not_given_up_and_hears_of_us():
    """The journal is in trouble: lines stay in the socket, its pongs as well, and there is nothing to ack."""
    silence = Silence(Bounds())
    for _ in range(1000):
        due = ticks(silence, PING_TICKS + 1, is_read=False)
        assert list(due.values()) == ["ping"], "as often as ever"
    assert "dead" not in ticks(silence, DEAD_TICKS - 1).values(), "its silence begins when it is read again"
    assert silence.tick(is_read=True) == "dead"


def test_a_ping_for_which_there_is_no_room_is_tried_again():
    """The trader reads nothing, but its lines come."""
    silence = Silence(Bounds())
    due = {}
    for n in range(1, 20):
        silence.heard()
        due[n] = silence.tick(is_read=True)
    assert [n for n, what in due.items() if what == "ping"] == list(range(PING_TICKS + 1, 20))


@pytest.mark.parametrize(("passed_s", "late"), [(1.0, False), (1.9, False), (2.0, True), (20.0, True)])
def test_a_tick_that_comes_late_does_not_count(passed_s, late):
    assert is_late(passed_s, 1.0) is late
