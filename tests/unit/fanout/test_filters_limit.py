"""What a limit keeps back: of lines what it does not allow, of notices those about bots that may not be seen."""

from __future__ import annotations

import pytest

from logrelay.fanout.filters import UNLIMITED, Filter, Limit
from logrelay.fanout.hub import skip_filter
from logrelay.model import Line

BOTS = Limit(apps=("bot*",))


def notice(context):
    return Line(1, 0, 20, "logrelay", 0, b"", "", context)


def entry(level=20, source="x.y", app="bot1"):
    return Line(1, 0, level, source, 1, b"", "", {}, app)


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        ({"notice": "trader", "app": "bot1"}, True),
        ({"notice": "trader", "app": "other"}, False),
        ({"notice": "gap", "app": "other"}, False),
        ({"notice": "gap", "app": "bot1"}, True),
        ({"notice": "gap", "cause": "power"}, True),
        ({"notice": "relay", "state": "trouble"}, True),
        ({"notice": "relay", "state": "access"}, False),
        ({"notice": "relay", "state": "x", "app": "other"}, False),
        ({"notice": "trader", "state": "refused", "app": None}, False),
        ({"notice": "something new"}, False),
        ({"notice": "relay", "app": ""}, True),
        ({}, False),
    ],
)
def test_notices(context, shown):
    """By the app they name; those without one where they tell of all lines."""
    assert Filter().within(BOTS).matches(notice(context)) == shown
    asked = Filter(50, ("none",), "none", (("no", "no"),), ("bot*",), notices="all")
    assert asked.within(BOTS).matches(notice(context)) == shown
    assert Filter().matches(notice(context))


@pytest.mark.parametrize("limit", [Limit(40), Limit(sources=("x.*",))])
def test_other_limits_leave_notices(limit):
    """Whoever sees only errors, or some loggers, must still be told what is missing; not who reads the log."""
    for wanted in (Filter().within(limit), Filter(notices="all").within(limit)):
        assert wanted.matches(notice({"notice": "gap", "app": "any"})._replace(level=30))
        assert not wanted.matches(notice({"notice": "relay", "state": "access"}))
    assert Filter(notices="all").within(limit).matches(notice({"notice": "trader", "app": None}))


def test_lines_need_both():
    """What is asked for and what is allowed."""
    limit = Limit(30, ("x.*",), ("bot*",))
    assert Filter().within(limit).matches(entry(30))
    assert not Filter().within(limit).matches(entry(20))
    assert not Filter().within(limit).matches(entry(30, source="y"))
    assert not Filter().within(limit).matches(entry(30, app="other"))
    assert not Filter(sources=("*.z",)).within(limit).matches(entry(30))
    assert Filter(sources=("*.y",), apps=("*1",)).within(limit).matches(entry(30))
    assert not Filter(sources=("y",)).within(limit).matches(entry(30, source="y")), "asking opens nothing"


def test_the_filter_of_a_skipped_stretch_keeps_the_limit():
    """Whoever is skipped forward gets warnings of what it may see only."""
    wanted = Filter(10, ("a",), "t", (("k", "v"),), ("b",)).within(BOTS)
    skipped = skip_filter(wanted)
    assert skipped.limit == BOTS
    assert skipped == Filter(30, ("a",), "t", (("k", "v"),), ("b",), BOTS)


def test_no_limit_limits_nothing():
    """The value that everybody has who is not limited."""
    assert UNLIMITED.nothing
    assert Filter().everything
    assert not any(limit.nothing for limit in (Limit(20), Limit(sources=("*",)), Limit(apps=("*",))))
