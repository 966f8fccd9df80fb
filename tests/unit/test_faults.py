"""Unexpected errors: one line now and then, with the place and without a value."""

from __future__ import annotations

from logrelay.faults import FAULT_INTERVAL_S, FaultReport


def error():
    try:
        {}["a secret"]
    except KeyError as caught:
        return caught


def test_the_first_is_told_at_once_and_the_next_tells_how_many():
    """Whoever repeats a bug a thousand times a second writes a line in ten seconds."""
    report = FaultReport()
    first = report.note(error(), "a callback failed", 100.0)
    assert first.startswith("an error inside the relay, please report it: KeyError in test_faults.py:")
    assert first.endswith(" error")
    assert [report.note(error(), "x", 100.0 + n / 1000) for n in range(1500)] == [None] * 1500
    later = report.note(error(), "x", 100.0 + FAULT_INTERVAL_S)
    assert later.endswith(" error (1,500 more since the line before)")
    assert report.note(error(), "x", 200.0).endswith(" error")
    assert report.count == 1503


def test_no_value_is_shown():
    """What a peer has sent stands in the text of an error; the line is about the relay."""
    assert "secret" not in FaultReport().note(error(), "x", 0.0)


def test_an_error_without_an_exception_is_what_asyncio_says_of_it():
    """Some of its reports have a text only."""
    assert FaultReport().note(None, "Task was destroyed", 0.0).endswith("report it: Task was destroyed")
    assert FaultReport().note(ValueError(), "x", 0.0).endswith("ValueError in ?")
