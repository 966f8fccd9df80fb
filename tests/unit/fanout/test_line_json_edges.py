"""Lines and notices at the edges: the first timestamp, other time zones, the last number that is one, odd values."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from decimal import Decimal

import pytest

from logrelay.fanout import line_json
from logrelay.fanout.line_json import MAX_DEPTH, MAX_SAFE_INTEGER, gap_body, json_safe_value, log_line, notice_line
from logrelay.model import DEBUG, INFO, RELAY_RUN, RELAY_SOURCE, WARNING

US = 1_769_162_400_123_456


@pytest.mark.parametrize(
    ("us", "shown"),
    [
        (-2_000_000, "1970-01-01T00:00:00.000000Z"),
        (-1_000_000, "1970-01-01T00:00:00.000000Z"),
        (-1, "1970-01-01T00:00:00.000000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (1_000_001, "1970-01-01T00:00:01.000001Z"),
    ],
)
def test_the_first_timestamp_of_a_process_is_like_any_other(us, shown):
    """Whatever second it is in, also one before 1970."""
    spec = importlib.util.find_spec(line_json.__name__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)

    assert fresh.rfc3339(us) == shown
    assert fresh.rfc3339(us) == shown


def test_timestamps_are_utc_wherever_the_relay_runs(monkeypatch):
    """The time zone of the machine is not that of the stream."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert line_json.rfc3339(US + 7_000_000) == "2026-01-23T10:00:07.123456Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_line_does_not_hold_its_message_twice():
    """It is in the body; beside it only as long as the line is fresh."""
    line, message, context = log_line("k3f9ab", 7, 3, "app", US, INFO, {"event": "hello", "a": 1})

    assert (line.message, dict(line.context)) == ("", {})
    assert (message, context) == ("hello", {"a": 1})


def test_a_notice_is_a_line_of_the_relay():
    """It has a place, a time and a level like any other, and run and source of the relay."""
    line, message, context = notice_line("k3f9ab", 7, US, WARNING, "relay", "stopping", {"why": "asked"})

    assert (line.seq, line.time_us, line.level, line.source, line.run) == (7, US, WARNING, RELAY_SOURCE, RELAY_RUN)
    assert (line.message, dict(line.context)) == ("", {})
    assert (message, context) == ("stopping", {"notice": "relay", "why": "asked"})
    assert json.loads(line.body) == {
        "type": "log",
        "id": "k3f9ab-7",
        "level": "WARNING",
        "source": "logrelay",
        "message": "stopping",
        "context": {"notice": "relay", "why": "asked"},
        "timestamp": "2026-01-23T10:00:00.123456Z",
    }


def test_the_kinds_of_notices_are_those_of_the_protocol():
    """Programs compare them, so none may change its name."""
    assert set(line_json.NOTICES) == {"gap", "trader", "relay"}


def test_a_level_without_a_word_is_counted_as_debug():
    """A gap notice leaves no line out of its counts."""
    body = gap_body("e-9", US, "e", cause="lag", first=1, last=9, count=9, levels={5: 2, DEBUG: 3, INFO: 4})

    assert json.loads(body)["context"]["levels"] == {"DEBUG": 5, "INFO": 4}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_numbers_javascript_can_hold_stay_numbers(sign):
    """Beside a value that has to be replaced, too; the next one becomes a text."""
    values = {"last": sign * MAX_SAFE_INTEGER, "next": sign * (MAX_SAFE_INTEGER + 1), "odd": math.nan}
    line, _, _ = log_line("e", 1, 1, "app", US, INFO, {"event": "x", **values})

    assert json.loads(line.body)["context"] == {
        "last": sign * MAX_SAFE_INTEGER,
        "next": str(sign * (MAX_SAFE_INTEGER + 1)),
        "odd": "NaN",
    }


@pytest.mark.parametrize(("depth", "inner"), [(MAX_DEPTH, "[]"), (MAX_DEPTH + 1, '"..."')])
def test_a_message_may_be_as_deep_as_a_value(depth, inner):
    """What is deeper is shown as dots."""
    value = []
    for _ in range(depth - 1):
        value = [value]
    _, message, _ = log_line("e", 1, 1, "app", US, INFO, {"event": value})

    around = MAX_DEPTH - 1 if inner == "[]" else MAX_DEPTH
    assert message == "[" * around + inner + "]" * around


def test_what_msgpack_cannot_hold_is_shown_as_text():
    """No value stops a line."""
    assert json_safe_value(Decimal("1.50"), 0) == "1.50"


def test_a_new_epoch_may_have_no_reason():
    """The notice is whole without it."""
    shape = json.loads(gap_body("e-9", US, "e", cause="epoch", first=0, last=0, count=0))

    assert shape["context"] == {"notice": "gap", "cause": "epoch", "count": 0, "reason": ""}
