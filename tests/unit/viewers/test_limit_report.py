"""How often a limit was met is counted; people are told now and then."""

from __future__ import annotations

from logrelay.budgets import CAUSES, NOTICE_AGAIN_S, NOTICE_FIRST_S
from logrelay.http.metrics import METRICS
from logrelay.viewers.limit_report import LimitReport


class Timer:
    def __init__(self, delay, function, args):
        self.delay, self.function, self.args = delay, function, args
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class Loop:
    def __init__(self):
        self.timers = []

    def call_later(self, delay, function, *args):
        self.timers.append(Timer(delay, function, args))
        return self.timers[-1]

    def fire(self):
        timer = self.timers.pop(0)
        timer.function(*timer.args)
        return timer.delay


def test_a_flood_is_one_line_with_a_count():
    """And the next one a minute later, only if it went on."""
    loop, told = Loop(), []
    report = LimitReport(told.append, loop)
    for _ in range(10_000):
        report.note("handshake")
    assert (len(loop.timers), told) == (1, [])
    assert loop.fire() == NOTICE_FIRST_S
    assert told == [f"viewers' port: 10000 {CAUSES['handshake']}"]
    report.note("handshake", 5)
    assert loop.fire() == NOTICE_AGAIN_S
    assert told[1].startswith("viewers' port: 5 ")
    loop.fire()
    assert (loop.timers, len(told)) == ([], 2)
    assert report.counters()["viewer_handshake_limit_total"] == 10_005


def test_every_cause_has_a_metric_from_the_start():
    """A scraper can tell zero from nothing."""
    counters = LimitReport(lambda _text: None, Loop()).counters()
    assert set(counters) <= {metric.name for metric in METRICS}
    assert set(counters.values()) == {0}


def test_after_the_end_nothing_is_told():
    """The relay is stopping."""
    loop = Loop()
    report = LimitReport(lambda _text: None, loop)
    report.note("answer")
    report.close()
    assert loop.timers[0].cancelled


def test_after_a_quiet_time_it_is_told_soon_again():
    """As if it happened for the first time."""
    loop, told = Loop(), []
    report = LimitReport(told.append, loop)
    report.note("answer")
    loop.fire()
    loop.fire()
    report.note("answer")
    assert loop.fire() == NOTICE_FIRST_S
    assert len(told) == 2
