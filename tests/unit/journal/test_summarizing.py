"""Summaries of both kinds of journal."""

from __future__ import annotations

import pytest

from logrelay.fanout.summary import Summary
from logrelay.journal import summarizing
from logrelay.journal.interface import Query
from logrelay.journal.memory import MemoryJournal
from logrelay.model import ERROR, INFO, Commit


@pytest.fixture(params=["sqlite", "memory"])
def journal(request, journal_at):
    """An open journal of each kind."""
    made = journal_at() if request.param == "sqlite" else MemoryJournal(random_epoch=lambda: "abc123")
    made.open()
    return made


def summarize(journal, query):
    """Ask until everything was looked at."""
    whole, asked = Summary(), 0
    while True:
        page = journal.summarize(query)
        asked += 1
        whole.add(page.summary)
        if page.complete:
            return whole, asked
        query = Query(page.reached, query.until, 0, query.filter, since_us=query.since_us)


def test_a_stretch_is_counted_in_parts(journal, lines, fill, monkeypatch):
    """Every line once."""
    monkeypatch.setattr(summarizing, "SUMMARY_LINES", 100)
    fill(journal, 1, 250)
    journal.append(Commit(lines(251, 5, level=ERROR, app="other")))
    whole, _ = summarize(journal, Query(0, 255, 0))
    assert {name: counts.levels for name, counts in whole.apps.items()} == {
        "robo_trader": {INFO: 250},
        "other": {ERROR: 5},
    }
    assert whole.apps["robo_trader"].first.seq == 1
    assert whole.apps["robo_trader"].last.seq == 250
    whole, _ = summarize(journal, Query(100, 252, 0))
    assert whole.apps["robo_trader"].levels == {INFO: 150}
    assert whole.apps["other"].levels == {ERROR: 2}


def test_lines_are_read_by_seq(journal, lines):
    """Those that are not kept are left out."""
    made = lines(1, 3)
    journal.append(Commit(made))
    assert journal.lines_at([1, 3, 4]) == {1: made[0].body, 3: made[2].body}
    assert journal.lines_at([]) == {}
