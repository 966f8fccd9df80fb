"""Which lines tell of the same problem."""

from __future__ import annotations

import pytest

from logrelay.fanout.problem_groups import MAX_CHARS, Problem, fold, last_line, problem_of


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("order 4711 rejected", "order # rejected"),
        ("order A4711 rejected", "order A# rejected"),
        ("price 12.50 over 1,204.10", "price # over #"),
        ("at 0xDEADbeef", "at #"),
        ("id 3f2c4be1-a07d-4355-9f2c-4be1a07d3355 gone", "id # gone"),
        ("commit 9f2c4be1a07d3355", "commit #"),
        ("deadbeef is no number, facade-bed neither", "deadbeef is no number, facade-bed neither"),
        ("after 3 of 5", "after # of #"),
        ("", ""),
    ],
)
def test_numbers_are_folded(text, folded):
    """Numbers and ids, not words."""
    assert fold(text) == folded


def test_a_group_is_the_same_whatever_the_numbers():
    """And another one for another app, source, message or exception."""
    group = problem_of("a", "s", "order 1", {"exception": "Traceback:\n  line 1\nError: 5\n", "order": 1}).group
    assert group == problem_of("a", "s", "order 2", {"exception": "Traceback:\n  line 7\nError: 6"}).group
    others = [
        problem_of("b", "s", "order 1", {"exception": "Error: 5"}),
        problem_of("a", "t", "order 1", {"exception": "Error: 5"}),
        problem_of("a", "s", "orders 1", {"exception": "Error: 5"}),
        problem_of("a", "s", "order 1", {"exception": "Errors: 5"}),
        problem_of("a", "s", "order 1", {}),
        problem_of("a", "s", "order 1Error: ", {}),
    ]
    assert len({group, *(other.group for other in others)}) == 7


def test_the_name_of_a_group_never_changes():
    """Pages keep it, to tell what was seen before."""
    assert Problem("a", "s", "m 1", None).group == "9dc40016b364bb12"


@pytest.mark.parametrize(
    ("exception", "line"),
    [("a\nb\n\n", "b"), ("a", "a"), ("", ""), ("a\n  b: c  ", "b: c"), ("x" * 500, "x" * MAX_CHARS)],
)
def test_the_last_line_of_an_exception(exception, line):
    """The one that says what happened."""
    assert last_line(exception) == line


def test_long_texts_are_cut():
    """What a group holds is bounded; an exception that is no text counts as none."""
    problem = problem_of("a", "s", "x" * 5000, {"exception": ["no text"]})
    assert len(problem.message) == MAX_CHARS
    assert problem.exception is None
