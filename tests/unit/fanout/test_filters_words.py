"""The words a filter is asked with, and how a refusal repeats what it was asked."""

from __future__ import annotations

import pytest

from logrelay.errors import RequestError
from logrelay.fanout import filters
from logrelay.fanout.filters import Filter, ascii_lower, parse_filter
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, WARNING


@pytest.mark.parametrize(
    ("word", "level"),
    [
        ("debug", DEBUG),
        ("Info", INFO),
        ("WARN", WARNING),
        ("warning", WARNING),
        ("error", ERROR),
        ("fatal", CRITICAL),
        ("FATAL", CRITICAL),
        ("critical", CRITICAL),
    ],
)
def test_levels_by_the_words_people_use(word, level):
    """In any case; two short forms are understood."""
    assert parse_filter({"level": [word]}) == Filter(level)


def test_a_condition_is_split_at_its_first_sign():
    """A value may hold the sign, a field may not."""
    assert parse_filter({"where": ["query=a=b"]}) == Filter(where=(("query", "a=b"),))


def test_text_that_is_no_unicode_is_searched_as_it_is_shown():
    """Half a surrogate pair, which JSON can bring, is no error."""
    assert ascii_lower("A\ud800B") == b"a?b"


@pytest.mark.parametrize(
    ("given", "shown"),
    [("x", "'x'"), ("x" * 40, f"'{'x' * 40}'"), ("x" * 41, f"'{'x' * 37}...'"), ("x" * 900, f"'{'x' * 37}...'")],
)
def test_a_refusal_repeats_the_first_forty_characters(given, shown):
    """Enough to find the mistake, and never a wall of text."""
    with pytest.raises(RequestError) as refusal:
        parse_filter({"where": [given]})
    assert str(refusal.value).startswith(f"where {shown} is not of the form")


def test_what_matched_is_remembered_within_bounds():
    """Globs and logger names come from outside: neither fills the memory."""
    assert filters._shared.cache_info().maxsize is not None
    globs = filters._Globs(("*a", "b"))
    for n in range(filters.MAX_NAMES * 2):
        assert not globs.match(f"name {n}")
    assert len(globs._known) == filters.MAX_NAMES
