"""Counts of a stretch of lines: they can be added up, and are bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.fanout import summary as module
from logrelay.fanout.filters import Filter, Limit
from logrelay.fanout.line_json import log_line, notice_line
from logrelay.fanout.summary import Event, Seen, Summary, add_body, event_of, notice_passes
from logrelay.model import CRITICAL, ERROR, INFO, WARNING

entry = st.one_of(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), st.sampled_from([INFO, WARNING, ERROR, CRITICAL]), st.sampled_from("xyz")
    ),
    st.sampled_from(
        [
            (ERROR, {"notice": "trader", "state": "crashed", "app": "a"}),
            (ERROR, {"notice": "trader", "state": "crashed", "count": 4, "apps": ["b"], "suppressed": True}),
            (INFO, {"notice": "trader", "state": "crashed", "app": "a"}),
            (WARNING, {"notice": "gap", "cause": "overflow", "count": 3, "app": "b"}),
            (WARNING, {"notice": "gap", "cause": "overflow", "count": 9, "gaps": 4, "app": ""}),
            (WARNING, {"notice": "relay", "state": "clock"}),
        ]
    ),
)


def body_of(seq, said):
    if len(said) == 3:
        app, rank, message = said
        return log_line("abc123", seq, 1, app, seq, rank, {"event": message})[0].body
    rank, context = said
    return notice_line("abc123", seq, seq, rank, context["notice"], "text", context)[0].body


def add_up(said, first=1):
    summary = Summary()
    for seq, one in enumerate(said, first):
        add_body(summary, Filter(), seq, body_of(seq, one))
    return summary


@settings(max_examples=100, deadline=None)
@given(st.lists(entry, max_size=20), st.integers(0, 20), st.sampled_from([2, 1000]))
def test_the_sum_of_two_stretches_is_the_summary_of_both(said, cut, bound):
    """However the journal is cut into parts, also where there are more groups and notices than are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_NOTICES", bound)
        whole, summed = add_up(said), add_up(said[:cut])
        summed.add(add_up(said[cut:], cut + 1))
        assert summed == whole


def test_everything_is_bounded(monkeypatch):
    """What is beyond the bounds is counted as a number, and the newest crashes and gaps are those that stay."""
    for name in ("MAX_APPS", "MAX_PROBLEMS", "MAX_NOTICES"):
        monkeypatch.setattr(module, name, 3)
    crash = {"notice": "trader", "state": "crashed", "app": "a"}
    said = [*((letter, ERROR, f"problem {letter}") for letter in "abcdef"), *[(ERROR, crash)] * 5]
    summary = add_up(said)
    assert list(summary.apps) == ["a", "b", "c"]
    assert len(summary.groups) == 3
    assert summary.more_groups == 3
    assert [event.seq for event in summary.crashes] == [9, 10, 11]
    assert summary.more_crashes == 2
    assert summary.apps["a"].crashes == 5


@pytest.mark.parametrize(
    ("rank", "context", "event"),
    [
        (WARNING, {"notice": "gap", "count": 3, "app": "a"}, Event(1, "a", 3, 1)),
        (WARNING, {"notice": "gap", "count": 3, "gaps": 2, "app": ""}, Event(1, "", 3, 2)),
        (WARNING, {"notice": "gap", "count": "odd", "gaps": None}, Event(1, "", 0, 1)),
        (INFO, {"notice": "gap", "count": 3, "app": "a"}, None),
        (ERROR, {"notice": "trader", "state": "crashed", "app": "a"}, Event(1, "a", 1, 0)),
        (ERROR, {"notice": "trader", "state": "crashed", "count": 7, "apps": ["a", "b"]}, Event(1, "", 7, 0)),
        (INFO, {"notice": "trader", "state": "crashed", "app": "a"}, None),
        (WARNING, {"notice": "trader", "state": "lost", "app": "a"}, None),
        (ERROR, {"notice": "relay", "state": "crashed"}, None),
        (WARNING, {"notice": "relay", "state": "collect_lost"}, Event(1, "", 0, 1)),
        (WARNING, {"notice": "relay", "state": "stream", "messages": 3}, Event(1, "", 0, 1)),
        (WARNING, {"notice": "relay", "state": "forward_lost", "count": 7}, Event(1, "", 7, 1)),
        (INFO, {"notice": "relay", "state": "collect_back"}, None),
    ],
)
def test_which_notices_are_crashes_and_gaps(rank, context, event):
    """By their kind and state, not by their text."""
    assert event_of(1, rank, context) == event


@pytest.mark.parametrize(
    ("wanted", "context", "passes"),
    [
        (Filter(), {"notice": "gap", "app": "a"}, True),
        (Filter(apps=("a",)), {"notice": "gap", "app": "a"}, True),
        (Filter(apps=("a",)), {"notice": "gap", "app": "b"}, False),
        (Filter(apps=("a",)), {"notice": "relay", "state": "trouble"}, True),
        (Filter().within(Limit(apps=("a",))), {"notice": "gap", "app": "b"}, False),
        (Filter().within(Limit(apps=("a",))), {"notice": "trader", "state": "crashed", "apps": ["a", "b"]}, False),
        (Filter().within(Limit(level=ERROR)), {"notice": "relay", "state": "access"}, False),
    ],
)
def test_which_notices_are_counted(wanted, context, passes):
    """Those that may be seen and are of an app that was asked for, or of none."""
    assert notice_passes(wanted, context) is passes


def test_first_and_last_are_those_of_the_lowest_and_the_highest_seq():
    """In whatever order they are added."""
    summary = Summary()
    for seq in (5, 3, 9, 4):
        summary.count("a", {INFO: 1}, Seen(seq, 0), Seen(seq, 0))
    assert (summary.apps["a"].first, summary.apps["a"].last) == (Seen(3, 0), Seen(9, 0))
