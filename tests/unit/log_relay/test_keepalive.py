"""When the trader pings, gives a silent connection up, and one that is never welcomed."""

import math

import pytest

from robo_trader.log_relay.keepalive import (
    LATE_S,
    LEAST_PING_S,
    LONGEST_DEAD_S,
    OVERDUE,
    PATIENCE_FIRST_S,
    PATIENCE_LONGEST_S,
    Keepalive,
)


@pytest.fixture
def keepalive():
    keepalive = Keepalive()
    keepalive.begin(100.0)
    keepalive.welcomed(5.0, 12.0, 100.0)
    return keepalive


def test_an_old_relay_is_asked_for_nothing():
    """Its welcome names no seconds: whatever the silence, nothing is due."""
    keepalive = Keepalive()
    for welcome in ((0.0, 0.0), (5.0, 0.0), (0.0, 12.0), (-1.0, 12.0), (math.inf, 12.0), (5.0, math.nan)):
        keepalive.begin(0.0)
        keepalive.welcomed(*welcome, 0.0)
        assert (keepalive.due(1e9), keepalive.wait_s(1e9), keepalive.given_up) == (None, math.inf, 0)


def test_silence_gets_a_ping_and_then_the_end(keepalive):
    """The relay's own ping is due first; ours is for when it has not come."""
    assert keepalive.wait_s(100.0) == 5.0 * OVERDUE
    assert keepalive.due(107.4) is None
    assert keepalive.due(107.5) == "ping"
    assert keepalive.due(111.9) is None
    assert keepalive.wait_s(107.5) == pytest.approx(4.5)
    assert keepalive.given_up == 0
    assert keepalive.due(112.0) == "dead"
    assert (keepalive.given_up, keepalive.dead_s, keepalive.wait_s(200.0)) == (1, 12.0, 0.0)


def test_whatever_is_heard_ends_the_silence(keepalive):
    for now in range(105, 1000, 5):
        keepalive.heard(float(now))
        assert keepalive.due(now + 4.9) is None


def test_pings_go_on_while_the_end_is_far(keepalive):
    """Once in an interval."""
    keepalive.welcomed(1.0, 10.0, 100.0)
    assert [now for now in range(101, 110) if keepalive.due(float(now)) == "ping"] == list(range(102, 110))


def test_a_new_connection_has_agreed_on_nothing(keepalive):
    keepalive.begin(111.0)
    assert keepalive.due(1000.0) is None


def test_a_relay_cannot_make_a_trader_busy(keepalive):
    """The least interval is ours, and a connection has the time for a ping and its answer."""
    keepalive.welcomed(1e-9, 1e-9, 200.0)
    assert keepalive.wait_s(200.0) == pytest.approx(LEAST_PING_S * OVERDUE)
    assert keepalive.dead_s == 2 * LEAST_PING_S
    keepalive.begin(0.0)
    keepalive.welcomed(1.0, 2 * LONGEST_DEAD_S, 0.0)
    assert keepalive.wait_s(0.0) == math.inf


def test_patience_grows_and_is_bounded():
    """30 s, then twice as long each time, up to ten minutes; a welcome makes it short again."""
    keepalive, waited = Keepalive(), []
    for _ in range(8):
        keepalive.begin(0.0)
        waited.append(next(now for now in range(0, 10_000, 10) if not keepalive.has_patience(float(now))))
    assert waited == [30, 60, 120, 240, 480, 600, 600, 600]
    assert (waited[0], waited[-1], keepalive.given_up) == (PATIENCE_FIRST_S, PATIENCE_LONGEST_S, 8)
    keepalive.welcomed(0.0, 0.0, 0.0)
    keepalive.begin(0.0)
    assert keepalive.has_patience(29.9)
    assert not keepalive.has_patience(30.0)


def test_a_wait_that_took_far_too_long(keepalive):
    """The process was frozen; the next one that is in time is as any other."""
    assert keepalive.was_late is False
    keepalive.waited(1.0 + LATE_S, most_s=1.0)
    assert keepalive.was_late is False
    keepalive.waited(20.0, most_s=1.0)
    assert keepalive.was_late is True
    keepalive.waited(0.5, most_s=1.0)
    assert keepalive.was_late is False


def test_time_in_which_this_process_did_not_run_is_no_silence(keepalive):
    """Where a whole machine stood still, the relay on it could not ping either; what was silent before counts."""
    assert keepalive.due(107.0) is None
    keepalive.waited(30.5, most_s=0.5)
    assert keepalive.due(137.4) is None
    assert keepalive.due(137.5) == "ping"
    keepalive.waited(1.0, most_s=4.5)
    assert keepalive.due(141.9) is None
    assert keepalive.due(142.0) == "dead"


def test_patience_is_not_spent_while_this_process_does_not_run():
    keepalive = Keepalive()
    keepalive.begin(0.0)
    keepalive.waited(61.0, most_s=1.0)
    assert keepalive.has_patience(60.0 + PATIENCE_FIRST_S - 0.1)
    assert not keepalive.has_patience(60.0 + PATIENCE_FIRST_S)
