"""What is measured of each bot: up and down, ages without a wall clock, lines by level, and a bound on the names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.ingest import app_activity
from logrelay.ingest.app_activity import DOWN_SHOWN_S, MAX_NAMED_APPS, OTHER_APPS, AppTable
from logrelay.model import DEBUG, ERROR, INFO

START = 1000.0


@pytest.fixture
def table():
    return AppTable()


def of(table, name, mono=START):
    """Return the samples of one metric by the app's name; those by level as (app, level)."""
    found = table.samples(mono)[name]
    by_labels = {tuple(labels.values()): value for labels, value in found}
    assert len(by_labels) == len(found), "two samples with the same labels"
    return {labels[0] if len(labels) == 1 else labels: value for labels, value in by_labels.items()}


def up(table, mono=START):
    return of(table, "trader_up", mono)


def age(table, mono=START):
    return of(table, "trader_last_line_age_seconds", mono)


def lines(table):
    return {labels: count for labels, count in of(table, "trader_lines_total").items() if count}


def test_nobody_has_come(table):
    """An idle relay has no samples, of the rest neither."""
    assert table.samples(START) == {"trader_up": [], "trader_last_line_age_seconds": [], "trader_lines_total": []}


def test_a_bot_is_up_until_it_has_ended(table):
    """It is up before its first line; its age begins with that line."""
    row = table.came("bot", START, back=False)
    assert (up(table), age(table)) == ({"bot": 1}, {})
    table.heard(row, START + 5)
    assert age(table, START + 7.25) == {"bot": 2.25}
    assert age(table, START) == {"bot": 0.0}, "never negative"


@pytest.mark.parametrize(("clean", "shown"), [(True, {}), (False, {"bot": 0})])
def test_a_clean_end_is_no_alarm(table, clean, shown):
    """A job that has done its work is not expected to run; one that crashed is down."""
    row = table.came("bot", START, back=False)
    table.heard(row, START)
    row.lines[INFO] += 2
    table.ended(row, START, clean=clean)
    assert up(table) == shown
    assert age(table) == dict.fromkeys(shown, 0.0)
    assert lines(table) == {("bot", "info"): 2}, "what was counted stays"


def test_the_next_run_ends_the_alarm(table):
    """A job that crashed last night and ran this night is well."""
    table.ended(table.came("job", START, back=False), START, clean=False)
    row = table.came("job", START, back=False)
    assert up(table) == {"job": 1}
    table.ended(row, START, clean=True)
    assert up(table) == {}


def test_a_helper_that_ends_cleanly_hides_no_crash(table):
    """The bot crashes while its worker runs on: it is up while the worker is, and down afterwards."""
    bot, worker = table.came("bot", START, back=False), table.came("bot", START, back=False)
    table.ended(bot, START, clean=False)
    assert up(table) == {"bot": 1}
    table.ended(worker, START, clean=True)
    assert up(table) == {"bot": 0}


def test_a_run_that_is_back_has_not_crashed(table):
    """What was taken for a crash and came back counts no longer, also while another run is there."""
    bot = table.came("bot", START, back=False)
    worker = table.came("bot", START, back=False)
    table.ended(bot, START, clean=False)
    bot = table.came("bot", START, back=True)
    table.ended(worker, START, clean=True)
    table.ended(bot, START, clean=True)
    assert up(table) == {}
    bot = table.came("bot", START, back=True)
    worker = table.came("bot", START, back=True)
    for row in (bot, worker):
        table.ended(row, START, clean=True)
    assert up(table) == {}, "one that had ended cleanly takes nothing back"


def test_a_bot_that_was_given_up_is_no_alarm_for_ever(table):
    """A week after its end it is shown no longer, however long it had been quiet before it ended."""
    row = table.came("bot", START, back=False)
    table.heard(row, START)
    end = START + 2 * DOWN_SHOWN_S
    table.ended(row, end, clean=False)
    assert up(table, end + DOWN_SHOWN_S - 1) == {"bot": 0}
    assert age(table, end) == {"bot": 2 * DOWN_SHOWN_S}
    assert up(table, end + DOWN_SHOWN_S) == age(table, end + DOWN_SHOWN_S) == {}


def test_lines_are_counted_by_level(table):
    """All five levels have a sample from the first moment, so that a rate over the first error is right."""
    row = table.came("bot", START, back=False)
    row.lines[DEBUG] += 1
    row.lines[ERROR] += 3
    levels = ["debug", "info", "warning", "error", "critical"]
    assert list(of(table, "trader_lines_total")) == [("bot", level) for level in levels]
    assert lines(table) == {("bot", "debug"): 1, ("bot", "error"): 3}


def test_runs_of_an_earlier_life(table):
    """Ages go on from what the wall clock said once; the last run decides whether the bot is down."""
    table.restored("a", START, up=False, clean=True, seen_age_s=80.0, line_age_s=90.0)
    table.restored("a", START, up=False, clean=False, seen_age_s=20.0, line_age_s=30.5)
    table.restored("a", START, up=False, clean=False, seen_age_s=25.0, line_age_s=40.0)
    table.restored("b", START, up=False, clean=False, seen_age_s=60.0, line_age_s=60.0)
    table.restored("b", START, up=False, clean=True, seen_age_s=50.0, line_age_s=None)
    table.restored("c", START, up=True, clean=False, seen_age_s=5.0, line_age_s=None)
    table.restored("c", START, up=False, clean=False, seen_age_s=5.0, line_age_s=7.0)
    table.restored("d", START, up=False, clean=False, seen_age_s=DOWN_SHOWN_S, line_age_s=1.0)
    assert up(table) == {"a": 0, "c": 1}
    assert age(table, START + 1) == {"a": 31.5, "c": 8.0}
    row = table.restored("d", START, up=True, clean=False, seen_age_s=5.0, line_age_s=None)
    table.ended(row, START, clean=True)
    assert up(table) == {"a": 0, "c": 1}, "a run that may come back begins anew"


def test_the_number_of_names_is_bounded():
    """What is beyond is summed; no row is taken from a bot that is up."""
    table = AppTable(2)
    first, second = table.came("first", START, back=False), table.came("second", START, back=False)
    others = [table.came(f"name {n}", START, back=False) for n in range(1000)]
    for row in (first, second, *others):
        table.heard(row, START)
        row.lines[INFO] += 1
    assert up(table) == {"first": 1, "second": 1, OTHER_APPS: 1}
    assert lines(table) == {("first", "info"): 1, ("second", "info"): 1, (OTHER_APPS, "info"): 1000}
    for row in others:
        table.ended(row, START, clean=True)
    assert up(table) == {"first": 1, "second": 1}
    assert len(of(table, "trader_lines_total")) == 3 * 5


def test_a_row_is_given_away_in_order():
    """First that of a clean end, then that of a crash; of each the one that was heard of least recently."""
    table = AppTable(4)
    for number, name in enumerate(["crashed early", "clean late", "crashed late", "clean early"]):
        row = table.came(name, START + number, back=False)
        table.ended(row, START + (9 if name.endswith("late") else number), clean=name.startswith("clean"))
    order = ["clean early", "clean late", "crashed early", "crashed late"]
    for number, name in enumerate(order):
        table.came(f"new {number}", START, back=False)
        assert {app for app, _ in of(table, "trader_lines_total")} & set(order) == set(order[number + 1 :]), name


def test_the_name_of_the_rest_is_nobody_s(monkeypatch):
    """A bot of that very name is one of the rest, so the two are never two samples with the same labels."""
    table = AppTable(2)
    row = table.came(OTHER_APPS, START, back=False)
    assert row is not table.came("bot", START, back=False)
    assert up(table) == {"bot": 1, OTHER_APPS: 1}
    monkeypatch.setattr(app_activity, "MAX_NAMED_APPS", 0)
    assert MAX_NAMED_APPS == 50


STEPS = st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["came", "clean", "crash", "line"])), max_size=80)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whoever_is_up_is_shown_up(steps):
    """Whatever comes and goes, with more names than rows: runs up are the runs up, and no age is below zero."""
    table = AppTable(3)
    running: dict[int, list] = {n: [] for n in range(8)}
    counted = 0
    for number, (app, what) in enumerate(steps):
        mono = START + number
        if what == "came":
            running[app].append(table.came(f"app {app}", mono, back=False))
        elif running[app] and what == "line":
            table.heard(running[app][-1], mono)
            running[app][-1].lines[INFO] += 1
            counted += 1
        elif running[app]:
            table.ended(running[app].pop(), mono, clean=what == "clean")
    end = START + len(steps)
    shown = {app: value for app, value in up(table, end).items() if value}
    named = {f"app {n}" for n, rows in running.items() if rows and rows[-1].app != OTHER_APPS}
    assert shown.keys() - {OTHER_APPS} == named
    assert (OTHER_APPS in shown) == any(row.app == OTHER_APPS for rows in running.values() for row in rows)
    assert all(value >= 0 for value in age(table, end).values())
    assert sum(lines(table).values()) <= counted
    assert len(up(table, end)) <= 4
