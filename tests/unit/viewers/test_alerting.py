"""Who may silence bots, and how often; what becomes of it is in tests/system/alerts."""

from __future__ import annotations

import asyncio

import pytest

from logrelay.budgets import SILENCES_AT_ONCE, SILENCES_PER_S
from logrelay.errors import RequestError
from logrelay.viewers.alerting import CurrentAlerts, LimitedAlerts, NoAlerts


class Facts:
    """Alerts that note what was silenced."""

    def __init__(self):
        self.silenced = []

    def shown(self):
        return {"silences": self.silenced}

    async def silence(self, app, for_s):
        if app == "bad":
            raise RequestError("bad_silence", "no such silence")
        self.silenced.append((app, for_s))

    def counters(self):
        return {"alerts_sent_total": 7}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def code_of(alerts, app="bot"):
    """Return the code with which a silence is refused; empty: it is not."""
    try:
        asyncio.run(alerts.silence(app, 60.0))
    except RequestError as error:
        return error.code
    return ""


def test_bots_are_silenced_some_times_at_once_and_then_seldom():
    """Whoever asks, and whatever the answer is: each is a line of the stream."""
    clock, facts = Clock(), Facts()
    alerts = CurrentAlerts(clock)
    alerts.use(facts)
    assert [code_of(alerts) for _ in range(SILENCES_AT_ONCE - 1)] == [""] * (SILENCES_AT_ONCE - 1)
    assert code_of(alerts, "bad") == "bad_silence"
    assert len(facts.silenced) == SILENCES_AT_ONCE - 1
    with pytest.raises(RequestError, match=r"bots were silenced 20 times in a short time; ask again in 10 s$"):
        asyncio.run(alerts.silence("bot", 60.0))
    clock.now += 1 / SILENCES_PER_S - 0.01
    assert code_of(alerts) == "busy"
    clock.now += 0.02
    assert [code_of(alerts) for _ in range(2)] == ["", "busy"]
    assert facts.silenced[-1] == ("bot", 60.0)


def test_alerts_come_and_go():
    """What viewers ask is asked of those that there are now."""
    alerts = CurrentAlerts(Clock())
    assert (alerts.shown()["enabled"], alerts.counters(), code_of(alerts)) == (False, {}, "alerts")
    alerts.use(Facts())
    assert (alerts.shown(), alerts.counters()) == ({"silences": []}, {"alerts_sent_total": 7})
    alerts.use(None)
    assert (alerts.shown(), code_of(alerts)) == (NoAlerts().shown(), "alerts")


def test_a_token_with_limits_silences_nothing():
    """It concerns everybody."""
    assert code_of(LimitedAlerts()) == "limited"
    assert LimitedAlerts().shown()["enabled"] is False
