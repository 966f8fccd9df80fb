"""Summaries of both kinds of journal, and the counts that are made behind the head."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logrelay.fanout.filters import Filter, Limit
from logrelay.fanout.summary import Summary
from logrelay.journal import memory, tallies
from logrelay.journal.interface import Query
from logrelay.journal.memory import MemoryJournal
from logrelay.model import CRITICAL, ERROR, INFO, RELAY_RUN, WARNING, Commit
from tests.support.journals import T0_US, Clock, Maker


@pytest.fixture
def small(monkeypatch):
    """Spans of eight lines, so that some dozens of lines have several."""
    for name in ("SPAN_LINES", "READ_LINES", "STEP_LINES"):
        monkeypatch.setattr(tallies, name, {"SPAN_LINES": 8, "READ_LINES": 5, "STEP_LINES": 4}[name])


@pytest.fixture(params=["sqlite", "memory"])
def journal(request, journal_at):
    """An open journal of each kind."""
    made = journal_at() if request.param == "sqlite" else MemoryJournal(random_epoch=lambda: "abc123")
    made.open()
    return made


def summarize(journal, query):
    """Ask until everything was looked at."""
    whole = Summary()
    while True:
        page = journal.summarize(query)
        whole.add(page.summary)
        if page.complete:
            return whole
        assert page.reached > query.after
        query = Query(page.reached, query.until, 0, query.filter, since_us=query.since_us)


def derive(journal):
    while journal.derive(seconds=1.0):
        pass


def test_a_stretch_is_counted_in_parts(journal, lines, fill, small, monkeypatch):
    """Every line once, with the counts that were made or without."""
    monkeypatch.setattr(memory, "SUMMARY_LINES", 100)
    monkeypatch.setattr(tallies, "PAGE_SECONDS", 0.0)
    fill(journal, 1, 250)
    journal.append(Commit(lines(251, 5, level=ERROR, app="other")))
    for _ in range(2):
        whole = summarize(journal, Query(0, 255, 0))
        assert {name: counts.levels for name, counts in whole.apps.items()} == {
            "robo_trader": {INFO: 250},
            "other": {ERROR: 5},
        }
        assert whole.apps["robo_trader"].first.seq == 1
        assert whole.apps["robo_trader"].last.seq == 250
        whole = summarize(journal, Query(100, 252, 0))
        assert whole.apps["robo_trader"].levels == {INFO: 150}
        assert whole.apps["other"].levels == {ERROR: 2}
        derive(journal)


def test_lines_are_read_by_seq(journal, lines):
    """Those that are not kept are left out."""
    made = lines(1, 3)
    journal.append(Commit(made))
    assert journal.lines_at([1, 3, 4]) == {1: made[0].body, 3: made[2].body}
    assert journal.lines_at([]) == {}


said = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from([INFO, INFO, WARNING, ERROR, CRITICAL]),
            st.sampled_from(["x 1", "x 2", "y"]),
            st.sampled_from(["one", "two"]),
            st.integers(-40, 5),
        ),
        st.tuples(
            st.sampled_from(
                [
                    {"notice": "trader", "state": "crashed", "app": "a"},
                    {"notice": "gap", "cause": "overflow", "count": 3, "app": "b"},
                    {"notice": "relay", "state": "access"},
                    {"notice": "relay", "state": "trouble"},
                ]
            ),
            st.sampled_from([INFO, WARNING, ERROR]),
            st.integers(-40, 5),
        ),
    ),
    max_size=60,
)
asked = st.builds(
    lambda after, since, apps, limit: (after, since, Filter(apps=apps).within(limit)),
    st.integers(0, 60),
    st.one_of(st.none(), st.integers(-10, 60)),
    st.sampled_from([(), ("a",), ("[bc]",)]),
    st.sampled_from([Limit(), Limit(WARNING), Limit(sources=("one",)), Limit(apps=("a",))]),
)


@pytest.fixture(scope="module")
def journals(tmp_path_factory):
    """Journals for the examples below, each in a file of its own."""
    maker = Maker(tmp_path_factory.mktemp("tallies") / "journal.db", Clock())
    yield maker
    for one in maker.made:
        one.close()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(said, asked)
def test_counts_are_those_of_the_lines(journals, line, small, tmp_path_factory, said, asked):
    """With spans or without, whatever was asked, as the memory journal counts line by line."""
    made = []
    for seq, (*one, shift) in enumerate(said, 1):
        time_us = T0_US + (seq + shift) * 1_000_000
        if len(one) == 2:
            context, level = one
            made.append(line(seq, level, run=RELAY_RUN, message="text", context=context, time_us=time_us))
        else:
            app, level, message, source = one
            context = {"severity": "CRITICAL"} if level == CRITICAL else {}
            context["exception"] = f"Error: {seq}"
            made.append(line(seq, level, source, 1, message, context, time_us, app))
    after, since, wanted = asked
    since_us = None if since is None else T0_US + since * 1_000_000
    query = Query(after, len(made), 0, wanted, since_us=since_us)
    plain = MemoryJournal(random_epoch=lambda: "abc123")
    plain.open()
    plain.append(Commit(made))
    expected = seqs_only(summarize(plain, query))
    journal = journals(tmp_path_factory.mktemp("j") / "journal.db")
    journal.open()
    journal.append(Commit(made))
    assert seqs_only(summarize(journal, query)) == expected
    derive(journal)
    assert seqs_only(summarize(journal, query)) == expected
    journal.close()
    journal.open()
    assert seqs_only(summarize(journal, query)) == expected
    journal.close()


def seqs_only(summary):
    """Leave out the times, which a journal in memory does not give."""
    return (
        {
            name: (dict(sorted(c.levels.items())), *(s and s.seq for s in (c.first, c.last)), c.crashes, c.gaps, c.lost)
            for name, c in summary.apps.items()
        },
        {key: (g.count, g.problem, g.first.seq, g.last.seq) for key, g in summary.groups.items()},
        summary.crashes,
        summary.gaps,
    )


def test_a_damaged_row_is_counted_anew(journal_at, fill, small):
    """The answer is right all the same, and the next step makes all rows anew."""
    journal = journal_at()
    journal.open()
    fill(journal, 1, 40)
    derive(journal)
    harm = "UPDATE tallies SET counts = CAST(replace(CAST(counts AS TEXT), ',20,8,', ',20,9,') AS BLOB) WHERE first = 9"
    with closing(sqlite3.connect(journal.path)) as db, db:
        assert db.execute("SELECT count(*) FROM tallies").fetchone() == (5,)
        db.execute(harm)
    assert summarize(journal, Query(0, 40, 0)).apps["robo_trader"].levels == {INFO: 40}
    derive(journal)
    with closing(sqlite3.connect(journal.path)) as db:
        assert b",20,8," in db.execute("SELECT counts FROM tallies WHERE first = 9").fetchone()[0]
    assert summarize(journal, Query(0, 40, 0)).apps["robo_trader"].levels == {INFO: 40}
    assert not journal._tallies.damaged


def test_rows_go_with_their_lines(journal_at, fill, small, clock):
    """What retention takes is not counted any more, also of a span that it cuts."""
    journal = journal_at(max_age_s=100)
    journal.open()
    fill(journal, 1, 21)
    derive(journal)
    clock.forward(80)
    fill(journal, 22, 21)
    clock.forward(50)
    journal.prune()
    assert journal.oldest == 22
    derive(journal)
    assert summarize(journal, Query(0, 42, 0)).apps["robo_trader"].levels == {INFO: 21}
    with closing(sqlite3.connect(journal.path)) as db:
        assert min(db.execute("SELECT last FROM tallies"))[0] >= 22


def test_a_span_with_too_much_in_it_is_counted_by_lines(journal_at, lines, small, monkeypatch):
    """Its row is empty."""
    monkeypatch.setattr(tallies, "MOST_ROWS", 3)
    journal = journal_at()
    journal.open()
    for seq in range(1, 9):
        journal.append(Commit(lines(seq, 1, level=ERROR, message=f"problem {chr(96 + seq)}")))
    derive(journal)
    with closing(sqlite3.connect(journal.path)) as db:
        assert db.execute("SELECT counts FROM tallies").fetchall() == [(b"null",)]
    assert len(summarize(journal, Query(0, 8, 0)).groups) == 8


def test_what_is_not_stored_does_not_grow(journal_at, lines, small, monkeypatch):
    """Whoever makes up names has the rest of a span left uncounted; a question counts its lines all the same."""
    monkeypatch.setattr(tallies, "MOST_ROWS", 3)
    journal = journal_at()
    journal.open()
    for seq in range(1, 9):
        journal.append(Commit(lines(seq, 1, app=f"app {seq}")))
    steps = []
    counted = tallies.Tally.add_lines
    monkeypatch.setattr(tallies.Tally, "add_lines", lambda *args: steps.append(args[2:4]) or counted(*args))
    derive(journal)
    assert steps == [(1, 4)], "four apps are too many already"
    assert len(summarize(journal, Query(0, 8, 0)).apps) == 8
