"""Ranges of lost lines: merged, looked up, forgotten, and told."""

from __future__ import annotations

import orjson
import pytest

from logrelay.journal import holes as module
from logrelay.journal.holes import NEVER_ENDS, Holes, first_gap, merge


@pytest.fixture
def holes():
    return Holes(lambda seq: "abc123" if seq < 100 else "new123", lambda: 0)


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([], []),
        ([(5, 5), (1, 2)], [(1, 2), (5, 5)]),
        ([(1, 2), (3, 4)], [(1, 4)]),
        ([(1, 9), (3, 4)], [(1, 9)]),
        ([(1, 2), (4, 4)], [(1, 2), (4, 4)]),
    ],
)
def test_ranges_that_touch_are_one(ranges, merged):
    """Ascending, whatever the order in which they were found."""
    assert merge(ranges) == merged


def test_too_many_ranges_are_joined_where_they_are_nearest(monkeypatch):
    """More may be told to be missing than is, never less."""
    monkeypatch.setattr(module, "MOST_HOLES", 2)
    assert merge([(1, 1), (10, 10), (12, 12), (30, 30)]) == [(1, 12), (30, 30)]


def test_a_stretch_gets_what_is_missing_of_it(holes):
    """Cut to the stretch; `after` itself does not belong to it."""
    holes.replace([(3, 5), (9, 9)])
    assert holes.within(0, 20) == [(3, 5), (9, 9)]
    assert holes.within(3, 4) == [(4, 4)]
    assert holes.within(5, 8) == []
    assert holes.within(8, 9) == [(9, 9)]
    assert holes.within(9, 9) == []


@pytest.mark.parametrize(
    ("ranges", "first", "gap"),
    [
        ([], 5, (5, NEVER_ENDS)),
        ([(1, 4)], 5, (5, NEVER_ENDS)),
        ([(5, 8)], 5, (9, NEVER_ENDS)),
        ([(3, 5), (6, 8), (10, 12)], 5, (9, 9)),
        ([(6, 8)], 5, (5, 5)),
        ([(9, 12)], 5, (5, 8)),
    ],
)
def test_the_first_stretch_that_no_range_has(ranges, first, gap):
    """Ranges before it, and those that touch each other, are no gap."""
    assert first_gap(ranges, first) == gap


def test_what_is_new_is_counted(holes):
    """So that somebody is told once."""
    assert holes.add([(3, 5)]) == 3
    assert holes.add([(5, 6)]) == 1
    assert holes.add([(4, 4)]) == 0
    assert holes.lines == 4


def test_what_retention_would_have_taken_is_forgotten(holes):
    """Also a part of a range."""
    holes.replace([(1, 2), (4, 8), (11, 11)])
    holes.forget(6)
    assert holes.ranges == [(6, 8), (11, 11)]
    holes.forget(6)
    assert holes.ranges == [(6, 8), (11, 11)]


def test_the_notice_says_what_it_stands_for(holes):
    """Its id is that of the last line, so that a viewer resumes behind it; each line's epoch is its own."""
    shape = orjson.loads(holes.notice((98, 120)))
    assert shape["id"] == "new123-120"
    assert shape["context"] == {
        "notice": "gap",
        "cause": "corrupt",
        "count": 23,
        "first": "new123-98",
        "last": "new123-120",
    }
    assert shape["message"] == "23 lines missing: the journal file was damaged there"
