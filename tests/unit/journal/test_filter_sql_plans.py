"""Which way SQLite goes through the lines for a filter: asked of SQLite itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.fanout.filters import Filter
from logrelay.journal import filter_sql, schema
from logrelay.journal.filter_sql import MOST_MERGED_SOURCES, make_plan
from logrelay.journal.interface import Query
from logrelay.model import INFO, WARNING

NAMES = {(f"s{number}", "bot"): number for number in range(1, MOST_MERGED_SOURCES + 1)}
FEW = tuple([name for name, _ in NAMES][: MOST_MERGED_SOURCES - 1])
"""Notices are merged with them, so this is the most that is."""
BY_SEQ = "USING INTEGER PRIMARY KEY"
BY_WARNING = "USING COVERING INDEX lines_warning"
BY_SOURCE = "INDEX lines_source (source=?"


@pytest.fixture
def ways(tmp_path):
    """Return what SQLite says about how it runs the SELECT of a plan."""
    path = tmp_path / "journal.db"
    schema.create(str(path), epoch="abc123", base=0, created_us=0)
    with closing(sqlite3.connect(path)) as db:

        def ask(sql, plan):
            values = {"after": 0, "until": 9, "visits": 5, **plan.values}
            return " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values))

        yield ask


@pytest.mark.parametrize(
    ("wanted", "way", "indexed"),
    [
        (Filter(), BY_SEQ, False),
        (Filter(INFO), BY_SEQ, False),
        (Filter(WARNING), BY_WARNING, True),
        (Filter(WARNING, FEW), BY_WARNING, True),
        (Filter(sources=FEW), BY_SOURCE, True),
        (Filter(apps=("nobody",)), BY_SOURCE, True),
        (Filter(apps=("bot",)), BY_SEQ, False),
        (Filter(sources=tuple(name for name, _ in NAMES)), BY_SEQ, False),
    ],
)
@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_a_filter_has_its_way_through_the_lines(ways, wanted, way, indexed, order):
    """Few sources and warnings are found by an index; what most lines match is read in order of its seqs."""
    plan = make_plan(Query(0, 9, 10, wanted), NAMES)
    said = ways(plan.select("seq", order, "LIMIT 5"), plan)

    assert said.count(way) == (len(plan.merged) or 1)
    assert "SCAN" not in said
    assert plan.indexed is indexed
    if indexed:
        assert said.count("lines_") == ways(plan.visits(order), plan).count("lines_")


@pytest.mark.parametrize(("numbers", "judged"), [(len(NAMES) + 1, False), (len(NAMES), True)])
def test_python_judges_sources_once_the_numbers_are_used_up(monkeypatch, numbers, judged):
    """Then a line may have a logger without a number."""
    monkeypatch.setattr(filter_sql, "MAX_SOURCES", numbers)

    assert make_plan(Query(0, 9, 10, Filter(sources=FEW)), NAMES).judge_all is judged
    assert make_plan(Query(0, 9, 10, Filter(INFO)), NAMES).judge_all is False


@pytest.mark.parametrize(
    ("key", "judged"),
    [("symbol", False), ("A b.c", False), ("é[0]", False), ("", True), ('a"b', True), ("a\\b", True), ("a\nb", True)],
)
def test_python_judges_fields_whose_name_sql_cannot_write(key, judged):
    """How a quote, a backslash or a control character stands in a path differs between versions of SQLite."""
    plan = make_plan(Query(0, 9, 10, Filter(where=((key, "1"), ("side", "buy")))), NAMES)

    assert plan.judge_all is judged
    assert '$.context."side"' in plan.values.values()


@pytest.mark.parametrize("pair", [("k\ud800", "v"), ("k", "v\udc00")])
def test_half_a_surrogate_pair_matches_no_line_but_notices(tmp_path, pair):
    """SQLite is not asked about what it cannot be given; the notices come all the same."""
    path = tmp_path / "journal.db"
    schema.create(str(path), epoch="abc123", base=0, created_us=0)
    plan = make_plan(Query(0, 9, 10, Filter(where=(pair, ("a", "b")))), NAMES)
    with closing(sqlite3.connect(path)) as db:
        for seq, source in ((1, 0), (2, 1)):
            db.execute(
                "INSERT INTO lines VALUES (?, 0, 20, ?, ?, ?, NULL)",
                (seq, source, source, '{"context":{"k":"v","a":"b"},"message":"m"}'),
            )
        found = db.execute(plan.select("seq", "ASC", ""), {"after": 0, "until": 9, **plan.values}).fetchall()

    assert found == [(1,)]


def test_nobody_has_to_judge_what_sql_says_exactly():
    """A second look at every line would cost as much as the first; only one with a NUL in it gets one."""
    plain = make_plan(Query(0, 9, 10, Filter(INFO, FEW)), NAMES)
    said = make_plan(Query(0, 9, 10, Filter(text="x")), NAMES)

    assert (plain.judge_all, plain.judge_nul) == (False, False)
    assert (said.judge_all, said.judge_nul) == (False, True)
