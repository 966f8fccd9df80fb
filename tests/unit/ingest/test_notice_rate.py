"""Notices are told at once until there are too many of a cause; what is suppressed is counted, and gaps add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logrelay.ingest import notice_rate
from logrelay.ingest.notice_rate import (
    APP_BURST,
    APP_PER_S,
    MAX_BUCKETS,
    MAX_NAMED,
    MAX_RANGES,
    MAX_SUMS,
    STDERR_BURST,
    STDERR_PER_S,
    SUM_S,
    USER_BURST,
    GapSums,
    NoticeRate,
    StderrRate,
)
from logrelay.model import ERROR, INFO, WARNING

NEVER = float("inf")


def told(rate, times, cause="connected", app="bot", user=7, mono=0.0):
    return sum(rate.admits(cause, app, user, mono) for _ in range(times))


def test_an_app_has_a_burst_and_gets_back_some_every_second():
    rate = NoticeRate()
    assert told(rate, 1_000) == APP_BURST
    assert told(rate, 1_000, mono=1.0) == APP_PER_S
    assert told(rate, 1_000, mono=1_000.0) == APP_BURST


def test_each_cause_app_and_user_has_a_rate_of_its_own():
    """The flood of one must not hold back the news of another."""
    rate = NoticeRate()
    told(rate, 1_000)
    assert told(rate, 1, cause="crashed") == told(rate, 1, app="other") == told(rate, 1, user=8) == 1
    assert told(rate, 1) == 0


def test_made_up_names_share_what_their_user_has():
    rate = NoticeRate()
    assert sum(rate.admits("connected", f"app{n}", 7, 0.0) for n in range(5_000)) == USER_BURST
    assert rate.admits("connected", "bot", 8, 0.0)


def test_the_rates_that_are_remembered_are_bounded():
    """Names and users beyond it are suppressed; who has been left alone is forgotten, and begins anew."""
    rate = NoticeRate()
    for n in range(5_000):
        rate.admits("connected", "app", n, 0.0)
        assert len(rate._buckets) <= MAX_BUCKETS
    assert not rate.admits("connected", "app", 10_000, 0.5)
    assert rate.admits("connected", "app", 10_000, 100.0)
    assert len(rate._buckets) == 2


def test_what_is_suppressed_is_told_by_number():
    rate = NoticeRate()
    assert rate.due_at == NEVER
    for n in range(1_234):
        rate.suppress("connected", f"app{n % 20}", INFO, 5.0)
    rate.suppress("crashed", "bot", ERROR, 6.0)
    assert rate.total == 1_235
    assert rate.due_at == 5.0 + SUM_S
    assert rate.take_due(5.0 + SUM_S - 0.1) == []
    (found,) = rate.take_due(5.0 + SUM_S)
    assert (found.cause, found.count, found.rank, found.more_apps) == ("connected", 1_234, INFO, True)
    assert list(found.apps) == [f"app{n}" for n in range(MAX_NAMED)]
    (found,) = rate.take_due(0.0, all_of_them=True)
    assert (found.cause, found.count, found.rank, found.more_apps) == ("crashed", 1, ERROR, False)
    assert rate.due_at == NEVER


def test_gaps_of_an_app_and_cause_add_up():
    sums = GapSums()
    for first in (1, 5, 6, 20):
        sums.add("bot", "overflow", "lost: why", "run", 3, first, first)
    sums.add("bot", "too_big", "lost: big", "run", 3, 7, 9)
    gap, other = sums.take()
    assert (gap.app, gap.cause, gap.count, gap.gaps, gap.pid) == ("bot", "overflow", 4, 4, 3)
    assert gap.ranges == [("run", 1, 1), ("run", 5, 6), ("run", 20, 20)]
    assert not gap.more_ranges
    assert (other.cause, other.count, other.ranges) == ("too_big", 3, [("run", 7, 9)])
    assert sums.take() == []


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40), st.integers(1, 9), st.integers(1, 2**40)), max_size=300)
)
def test_no_missing_line_is_counted_twice_or_left_out(gaps):
    """Whatever the names: the sums have every line, and stay few and small."""
    sums = GapSums()
    for app, run, first, count in gaps:
        sums.add(f"app{app}", "cause", "why", f"run{run}", 1, first, first + count - 1)
    found = sums.take()
    assert sum(gap.count for gap in found) == sum(count for *_, count in gaps)
    assert sum(gap.gaps for gap in found) == len(gaps)
    assert len(found) <= MAX_SUMS + 1
    for gap in found:
        assert len(gap.ranges) <= MAX_RANGES
        assert len(gap.runs) <= MAX_RANGES
        listed = sum(last - first + 1 for _, first, last in gap.ranges)
        assert listed <= gap.count
        assert gap.more_ranges or listed == gap.count


def test_the_table_of_rates_is_searched_seldom(monkeypatch):
    """A flood that keeps it full must not have it searched for every notice."""
    searched = []
    search = NoticeRate._forget_full
    monkeypatch.setattr(NoticeRate, "_forget_full", lambda self, mono: (searched.append(mono), search(self, mono)))
    rate = NoticeRate()
    for n in range(5_000):
        rate.admits("connected", "app", n, 0.5)
    assert searched == [0.5]
    assert notice_rate.SWEEP_S > 0


def test_stderr_gets_a_burst_of_each_level_and_then_a_number():
    """A flood of one level does not hold back another one, and what is held back is told."""
    rate = StderrRate()
    assert rate.due_at == NEVER
    assert sum(rate.admits(WARNING, 5.0) for _ in range(1_000)) == STDERR_BURST
    assert sum(rate.admits(ERROR, 5.0) for _ in range(3)) == 3
    assert sum(rate.admits(WARNING, 6.0) for _ in range(10)) == STDERR_PER_S
    assert rate.due_at == 5.0 + SUM_S
    assert rate.take_due(5.0 + SUM_S - 0.1) == {}
    assert rate.take_due(5.0 + SUM_S) == {WARNING: 1_000 - STDERR_BURST + 9}
    assert (rate.due_at, rate.take_due(NEVER)) == (NEVER, {})
