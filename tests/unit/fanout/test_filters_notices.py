"""Which notices come with which lines: those that concern what was asked for, and how they count."""

from __future__ import annotations

import pytest

from logrelay.errors import RequestError
from logrelay.fanout.filters import NOTICES_BESIDE, Filter, most_notices, parse_filter
from logrelay.model import CRITICAL, ERROR, INFO, WARNING

CONNECTED = (INFO, "bot (pid 7) connected", {"notice": "trader", "state": "connected", "app": "bot"})
CRASHED = (ERROR, "bot (pid 7) is gone", {"notice": "trader", "state": "crashed", "app": "bot"})
LEFT = (INFO, "what bot left behind has come", {"notice": "trader", "state": "crashed", "app": "bot"})
LOST = (WARNING, "bot (pid 7) lost its connection", {"notice": "trader", "state": "lost", "app": "bot"})
QUIET = (WARNING, "bot (pid 7) is quiet", {"notice": "trader", "state": "quiet", "app": "bot"})
GAP = (WARNING, "3 lines of bot lost", {"notice": "gap", "cause": "overflow", "count": 3, "app": "bot"})
POWER = (WARNING, "3 lines missing", {"notice": "gap", "cause": "power", "count": 3})
LAG = (WARNING, "skipped", {"notice": "gap", "cause": "lag", "levels": {"DEBUG": 4, "WARNING": 2, "ERROR": 0}})
TROUBLE = (ERROR, "the journal cannot be written", {"notice": "relay", "state": "trouble"})
RECOVERED = (WARNING, "the journal works again", {"notice": "relay", "state": "recovered"})
ACCESS = (WARNING, "a token was added", {"notice": "relay", "state": "access"})
VIEWERS = (WARNING, "viewers' port: 3 connections were cut", {"notice": "relay", "state": "limit"})
MANY = (ERROR, "and 70 more", {"notice": "trader", "state": "crashed", "apps": ["bot", "b2"], "suppressed": True})
EVERY = (CONNECTED, CRASHED, LEFT, LOST, QUIET, GAP, POWER, LAG, TROUBLE, RECOVERED, ACCESS, VIEWERS, MANY)
LOSSES = [CRASHED, GAP, POWER, TROUBLE, RECOVERED, MANY]


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (Filter(), EVERY),
        (Filter(INFO), EVERY),
        (Filter(WARNING), [n for n in EVERY if n not in (CONNECTED, LEFT)]),
        # Of unknown levels any may be missing; of known ones, only those that there are.
        (Filter(ERROR), LOSSES),
        (Filter(CRITICAL), LOSSES),
        # The lines of another bot are not missed.
        (Filter(apps=("other",)), [POWER, LAG, TROUBLE, RECOVERED]),
        (Filter(ERROR, apps=("other",)), [POWER, TROUBLE, RECOVERED]),
        (Filter(apps=("b?t",)), [n for n in EVERY if n not in (ACCESS, VIEWERS)]),
        # What is missing may be of any logger, text and value; what is not missing is not of those asked for.
        (Filter(sources=("bot.*",)), [CRASHED, LOST, GAP, POWER, LAG, TROUBLE, RECOVERED, MANY]),
        (Filter(text="AAPL"), [CRASHED, LOST, GAP, POWER, LAG, TROUBLE, RECOVERED, MANY]),
        (Filter(where=(("symbol", "AAPL"),)), [CRASHED, LOST, GAP, POWER, LAG, TROUBLE, RECOVERED, MANY]),
        # Asked for like any line.
        (Filter(text="is quiet"), [CRASHED, LOST, QUIET, GAP, POWER, LAG, TROUBLE, RECOVERED, MANY]),
        (Filter(sources=("logrelay",)), EVERY),
        (Filter(where=(("state", "connected"),)), [CONNECTED, CRASHED, LOST, *EVERY[5:10], MANY]),
    ],
)
def test_a_notice_comes_when_it_concerns_what_was_asked_for(wanted, shown):
    """Asked for like a line, or telling of lines that may have matched and are missing."""
    assert [notice for notice in EVERY if wanted.notice_passes(*notice)] == list(shown)


@pytest.mark.parametrize("wanted", [Filter(), Filter(ERROR), Filter(sources=("bot.*",), text="x")])
def test_all_and_none(wanted):
    """As a viewer says, whatever else it asks for."""
    assert all(Filter(wanted.level, wanted.sources, wanted.text, notices="all").notice_passes(*n) for n in EVERY)
    assert not any(Filter(wanted.level, wanted.sources, wanted.text, notices="no").notice_passes(*n) for n in EVERY)


def test_a_run_that_a_notice_names():
    """It is one of those asked for, or the notice is about other lines; many name none, or several."""
    rank, text, context = CRASHED
    for runs, shown in (("7*", True), ("8*", False)):
        assert Filter(runs=(runs,)).notice_passes(rank, text, {**context, "run": "744b"}) is shown
        assert Filter(runs=(runs,)).notice_passes(rank, text, context)
    rank, text, context = CONNECTED
    assert Filter(runs=("7*",)).notice_passes(rank, text, {**context, "run": "744b"})
    assert not Filter(runs=("8*",)).notice_passes(rank, text, {**context, "run": "744b"})
    assert not Filter(runs=("7*",)).notice_passes(rank, text, context)
    assert not Filter(runs=("7*",)).notice_counts(rank, text, {**context, "run": "744b"})


def test_more_bots_than_a_notice_names():
    """They may be among the others that it counts."""
    rank, text, context = MANY
    assert not Filter(apps=("b3",)).notice_passes(rank, text, context)
    assert Filter(apps=("b3",)).notice_passes(rank, text, {**context, "more_apps": True})


@pytest.mark.parametrize(
    ("wanted", "counted"),
    [
        (Filter(), []),
        (Filter(ERROR), []),
        (Filter(apps=("bot",)), []),
        (Filter(sources=("log*",)), EVERY),
        (Filter(text="goodbye"), []),
        (Filter(text="the journal"), [TROUBLE, RECOVERED]),
        (Filter(where=(("state", "crashed"),)), [CRASHED, LEFT, MANY]),
        (Filter(WARNING, where=(("state", "crashed"),), notices="all"), [CRASHED, MANY]),
    ],
)
def test_a_notice_counts_only_where_it_was_searched_for(wanted, counted):
    """By its source, its text or its fields; what comes besides the lines takes no line's place."""
    assert [notice for notice in EVERY if wanted.notice_counts(*notice)] == list(counted)
    assert [notice for notice in EVERY if wanted.without_notices().notice_passes(*notice)] == list(counted)


def test_notices_beside_a_number_of_lines_are_bounded():
    """As many as the lines, or some hundred; all where all were asked for."""
    assert most_notices(Filter(), 1) == NOTICES_BESIDE
    assert most_notices(Filter(), 5000) == 5000
    assert most_notices(Filter(notices="all"), 5) is None


def test_the_parameter():
    """One of three words."""
    assert parse_filter({}).notices == "relevant"
    assert parse_filter({"notices": ["No"]}).notices == "no"
    assert parse_filter({"notices": ["relevant"], "level": ["error"]}) == Filter(ERROR)
    for wrong in ("yes", "counted", ""):
        with pytest.raises(RequestError, match="relevant, no, all"):
            parse_filter({"notices": [wrong]})
