"""When a heartbeat may be sent."""

from __future__ import annotations

import pytest

from logrelay.alerts.pulse import Pulse, objection

WELL = Pulse(ready=True, reason="", pending=0, committed=10, received=10, up=("scalper",))


def pulse(**given):
    return WELL._replace(**given)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, WELL),
        (WELL, WELL),
        (None, pulse(pending=5, received=3)),
        (pulse(pending=5), pulse(pending=7, committed=11, received=11)),
        (pulse(pending=0), pulse(pending=7)),
        (pulse(received=3), pulse(received=4)),
        (pulse(received=10), pulse(committed=20, received=10)),
        (pulse(received=-1), pulse(received=5)),
    ],
)
def test_a_relay_that_makes_progress_or_has_nothing_to_do_sends_it(before, now):
    assert objection(now, before, ("scalper",)) == ""


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (None, pulse(ready=False, reason="disk is full"), "disk is full"),
        (WELL, pulse(ready=False), "not ready"),
        (pulse(pending=5), pulse(pending=5), "5 lines wait for the journal"),
        (pulse(pending=5), pulse(pending=50), "50 lines wait"),
        (pulse(received=3), pulse(received=3), "do not reach viewers"),
        (pulse(received=-1), pulse(received=-1), "do not reach viewers"),
        (None, pulse(up=()), "not connected: scalper"),
        (None, pulse(up=("other",)), "not connected: scalper"),
    ],
)
def test_it_is_withheld_with_a_reason(before, now, why):
    assert why in objection(now, before, ("scalper",))


def test_without_expected_bots_none_is_missed():
    assert objection(pulse(up=()), WELL, ()) == ""
