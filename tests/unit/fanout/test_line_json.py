"""What a line and a notice look like on their way out: docs/protocol.md, section 2."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.fanout.line_json import (
    MAX_DEPTH,
    gap_body,
    json_safe,
    log_line,
    notice_line,
    read_body,
    rfc3339,
    rfc3339_of_each,
)
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, RELAY_RUN, WARNING, run_name
from tests.support.waiting import DEADLINE_S

RUN_KEY = bytes.fromhex("9f1c0a7e5b3d4826a1f0c2e4d6b8907a")


def line_of(event, *, rank=INFO, app="robo_trader", time_us=1_769_162_400_123_456, seq=1042):
    """Render an event; return the line and its JSON, checked for what must hold for every line."""
    line, message, context = log_line("k3f9ab", seq, 3, app, time_us, rank, dict(event), RUN_KEY)
    shape = json.loads(line.body)
    assert b"\n" not in line.body
    assert list(shape) == ["type", "id", "level", "source", "message", "context", "timestamp", "app", "run"]
    assert (shape["app"], shape["run"]) == (app, run_name(RUN_KEY))
    assert shape["type"] == "log"
    assert shape["message"] == message
    assert shape["context"] == context
    assert type(shape["message"]) is str
    assert type(shape["context"]) is dict
    assert read_body(line.body) == (message, context)
    assert (line.seq, line.time_us, line.level, line.run, line.source) == (seq, time_us, rank, 3, shape["source"])
    assert line.app == app
    return line, shape


def test_the_line_of_the_protocol_page():
    """The example in docs/protocol.md is what the relay writes, to the byte."""
    line, _ = line_of({"event": "trade.executed", "logger": "robo_trader.runner", "symbol": "AAPL", "quantity": 100})
    assert line.body == (
        b'{"type":"log","id":"k3f9ab-1042","level":"INFO","source":"robo_trader.runner","message":"trade.executed",'
        b'"context":{"symbol":"AAPL","quantity":100},"timestamp":"2026-01-23T10:00:00.123456Z",'
        b'"app":"robo_trader","run":"744b938d57d455224f29a864fb7f6656"}'
    )


@pytest.mark.parametrize(
    ("rank", "shown"), [(DEBUG, "DEBUG"), (INFO, "INFO"), (WARNING, "WARNING"), (ERROR, "ERROR"), (CRITICAL, "ERROR")]
)
def test_viewers_get_four_levels(rank, shown):
    """Critical goes out as ERROR with a severity, because the app hides levels it does not know."""
    line, shape = line_of({"event": "x"}, rank=rank)
    assert shape["level"] == shown
    assert shape["context"] == ({"severity": "CRITICAL"} if rank == CRITICAL else {})
    assert line.level == rank


def test_critical_wins_over_a_field_of_the_same_name():
    """`context.severity` of a critical line is the relay's word; the trader's is kept beside it."""
    _, shape = line_of({"event": "x", "severity": "mild"}, rank=CRITICAL)
    assert shape["context"] == {"severity": "CRITICAL", "severity_": "mild"}
    _, shape = line_of({"event": "x", "severity": "CRITICAL"}, rank=CRITICAL)
    assert shape["context"] == {"severity": "CRITICAL"}
    _, shape = line_of({"event": "x", "severity": "mild"}, rank=ERROR)
    assert shape["context"] == {"severity": "mild"}


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("text", "text"),
        ("", ""),
        (None, ""),
        (5, "5"),
        (-1.5, "-1.5"),
        (True, "true"),
        (False, "false"),
        (2**60, str(2**60)),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        ({"a": 1, "b": [None]}, '{"a":1,"b":[null]}'),
        ([1, "two", {"x": math.inf}], '[1,"two",{"x":"Infinity"}]'),
        ([], "[]"),
        ({}, "{}"),
        (b"\x00\xff", "AP8="),
        (msgpack.Timestamp(0, 1000), "1970-01-01T00:00:00.000001Z"),
        (msgpack.ExtType(5, b"abc"), "YWJj"),
        ("line one\nline two\u2028\u2029\0", "line one\nline two\u2028\u2029\0"),
    ],
    ids=repr,
)
def test_message_is_always_a_string(event, message):
    """`event` becomes `message`: a string as it is, None as nothing, the rest as compact JSON."""
    _, shape = line_of({"event": event})
    assert shape["message"] == message
    assert shape["context"] == {}


def test_no_event_at_all():
    """The message is never blank: what EventRenamer made of the event, else the context; and that stays complete."""
    for event, message, context in [
        ({"x": 1}, '{"x":1}', {"x": 1}),
        ({"x": 1, "message": "m", "msg": "n"}, "m", {"x": 1, "msg": "n"}),
        ({"x": 1, "message": None, "msg": "n"}, "n", {"x": 1, "message": None}),
        ({"event": "", "message": "m"}, "m", {}),
        ({"event": None, "msg": ["a", 1]}, '["a",1]', {}),
        ({"event": 0, "message": "m"}, "0", {"message": "m"}),
        ({"event": "e", "message": "m", "msg": "n"}, "e", {"message": "m", "msg": "n"}),
        ({"x": "y" * 300}, '{"x":"' + "y" * 194 + "\u2026", {"x": "y" * 300}),
        ({"x": math.inf}, '{"x":"Infinity"}', {"x": "Infinity"}),
        ({}, "", {}),
    ]:
        _, shape = line_of(event)
        assert (shape["message"], shape["context"]) == (message, context)


@pytest.mark.parametrize(
    ("logger", "source"),
    [
        ("robo_trader.runner", "robo_trader.runner"),
        ("", "robo_trader"),
        (None, "robo_trader"),
        ("logrelay", "robo_trader/logrelay"),
        ("logrelay.x", "logrelay.x"),
        ("Logrelay", "Logrelay"),
    ],
    ids=repr,
)
def test_source_is_the_logger_else_the_app_but_never_the_relay(logger, source):
    """A trader's logger called `logrelay` cannot pass itself off as the relay."""
    _, shape = line_of({"event": "x", "logger": logger})
    assert shape["source"] == source
    assert shape["context"] == {}


@pytest.mark.parametrize("logger", [7, 0, [], {"a": 1}, True], ids=repr)
def test_a_logger_that_is_no_text_is_kept(logger):
    """The app is the source then, and the value a field."""
    _, shape = line_of({"event": "x", "logger": logger})
    assert (shape["source"], shape["context"]) == ("robo_trader", {"logger_": logger})


def test_an_app_called_logrelay_cannot_pass_for_the_relay_either():
    """Nor can an app of that name."""
    _, shape = line_of({"event": "x"}, app="logrelay")
    assert shape["source"] == "logrelay/logrelay"


def test_timestamp_and_level_of_the_event_are_not_repeated():
    """The trader's own timestamp and level are in the frame already; other fields stay, in their order."""
    stamp = "2026-01-23T10:00:00.123400Z"
    _, shape = line_of({"timestamp": stamp, "b": 1, "level": "info", "event": "x", "logger": "l", "a": 2})
    assert list(shape["context"].items()) == [("b", 1), ("a", 2)]


@pytest.mark.parametrize(
    ("stamp", "kept"),
    [
        ("2026-01-23T10:00:00.123456Z", False),
        ("2026-01-23T10:00:00.099999Z", False),  # another tenth of a second
        ("2026-01-23T10:00:00.030000Z", False),
        ("2026-01-23T10:00:00.000000Z", False),  # TimeStamper cut it to the second
        ("2026-01-23T09:59:59.900000Z", True),
        ("2026-01-23T10:00:00.300000Z", True),
        ("2026-01-23T11:00:00.123+01:00", False),
        ("2026-01-23T11:00:00.123Z", True),
        ("2026-01-23T15:45:00.123456", False),  # local time, in Nepal
        ("2026-01-23T15:46:00.123456", True),
        ("2026-01-23 10:00:00", False),
        ("2026-01-23 09:59:58", True),
        ("2026-01-24 12:00:00", True),  # no zone is 26 hours off
        ("10:00:00", True),
        ("2020", True),
        ("", True),
        (1_769_162_400.1, False),
        (1_769_162_399.1, True),
        (math.nan, True),
        (1_769_162_400, True),  # an exchange's; TimeStamper gives a float
        (1_769_162_400_123, True),
        (["x"], True),
        (None, False),
    ],
    ids=repr,
)
def test_a_timestamp_that_is_not_that_of_the_call_is_kept(stamp, kept):
    """An exchange's time of a trade is a field; what TimeStamper wrote says what the frame says."""
    line, _, context = log_line("e", 1, 1, "app", 1_769_162_400_123_456, INFO, {"event": "x", "timestamp": stamp})
    assert context.keys() == ({"timestamp_"} if kept else set())
    if kept and stamp == stamp:
        assert json.loads(line.body)["context"] == {"timestamp_": stamp}


@pytest.mark.parametrize(
    ("level", "rank", "kept"),
    [
        ("info", INFO, False),
        ("INFO", INFO, False),
        ("warn", WARNING, False),
        ("awarning", WARNING, False),
        ("exception", ERROR, False),
        ("fatal", CRITICAL, False),
        ("info", ERROR, True),
        ("tier-1", INFO, True),
        ("", INFO, True),
        (3, INFO, True),
        ([1], INFO, True),
        (None, INFO, False),
    ],
)
def test_a_level_that_is_not_the_lines_is_kept(level, rank, kept):
    """A grid bot's `level=3` is a field."""
    _, _, context = log_line("e", 1, 1, "app", 1, rank, {"event": "x", "level": level})
    context.pop("severity", None)
    assert context == ({"level_": level} if kept else {})


def test_fields_of_the_traders_own_never_meet_those_of_the_message():
    """They are in `context`, whatever their names; a name that is taken gets underscores until it is free."""
    own = {"id": 1, "type": "t", "source": "s", "app": "a", "message": "m", "context": {}, "run": 5, "level_": 7}
    _, shape = line_of({"event": "x", "logger": "l", **own, "level": 3})
    assert (shape["type"], shape["message"], shape["source"]) == ("log", "x", "l")
    assert shape["context"] == {**own, "level__": 3}


def test_a_clock_that_was_set_back_is_shown_and_found_by():
    """The timestamp rises on; the field says what the clock said, and so does the line to the journal."""
    us = 1_769_162_400_123_456
    event = {"event": "x", "clock": "mine", "timestamp": "2026-01-22T10:00:00.1Z"}
    line, _, context = log_line("e", 1, 1, "app", us, INFO, event, clock_us=us - 86_400_000_000)
    assert context == {"clock_": "mine", "clock": "2026-01-22T10:00:00.123456Z"}
    assert json.loads(line.body)["timestamp"] == "2026-01-23T10:00:00.123456Z"
    assert (line.time_us, line.clock_us) == (us, us - 86_400_000_000)
    line, _, context = log_line("e", 1, 1, "app", us, INFO, {"event": "x", "clock": "mine"})
    assert (context, line.clock_us) == ({"clock": "mine"}, None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (2**53 - 1, 2**53 - 1),
        (2**53, str(2**53)),
        (-(2**53) + 1, -(2**53) + 1),
        (-(2**53), str(-(2**53))),
        (2**64 - 1, str(2**64 - 1)),
        (-(2**63), str(-(2**63))),
        (b"", ""),
        (b"\xff\x00", "/wA="),
        (None, None),
        (1e308, 1e308),
        (5e-324, 5e-324),
        (-0.0, -0.0),
        ("null", "null"),
        (msgpack.Timestamp(1, 500), "1970-01-01T00:00:01.000000Z"),
        (msgpack.ExtType(1, b"\xff"), "/w=="),
        ({1: "a", None: "b", b"k": "c", 1.5: "d"}, {"1": "a", "": "b", "aw==": "c", "1.5": "d"}),
    ],
    ids=repr,
)
def test_values_that_json_or_javascript_would_change(value, shown):
    """At the top, in a list, in a map, beside a None and deep down: the same value is shown the same way."""
    for event, expected in (
        ({"v": value}, {"v": shown}),
        ({"v": [value, None]}, {"v": [shown, None]}),
        ({"n": None, "v": {"w": [[value]]}}, {"n": None, "v": {"w": [[shown]]}}),
        ({"event": "null", "v": value}, {"v": shown}),
    ):
        _, shape = line_of(event)
        assert repr(shape["context"]) == repr(expected)


def test_top_level_keys_that_are_no_strings():
    """An event with other keys than strings is shown with their text."""
    _, shape = line_of({1: "a", "b": 2, None: 3})
    assert shape["context"] == {"1": "a", "b": 2, "": 3}


@pytest.mark.parametrize("depth", [16, 31, 32, 100, 253, 254, 300, 1000])
def test_deep_nesting_is_shown_as_far_as_it_is_sensible(depth):
    """No depth is an error; where it is cut off an ellipsis says so."""
    value = "core"
    for _ in range(depth):
        value = [value]
    _, shape = line_of({"v": value})
    at = shape["context"]["v"]
    levels = 0
    while isinstance(at, list):
        at, levels = at[0], levels + 1
    assert at == "core" if depth < MAX_DEPTH else at in ("core", "...")
    assert levels == depth or at == "..."


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([2**53, 2**53 - 1, -(2**53), -(2**53) + 1]),
    st.floats(),
    st.text(max_size=12),
    st.binary(max_size=9),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=5)),
    st.builds(msgpack.Timestamp, st.integers(-(2**40), 2**40), st.integers(0, 999_999_999)),
)
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), v, max_size=3),
    max_leaves=12,
)
EVENTS = st.dictionaries(st.text(max_size=8) | st.sampled_from(["event", "logger", "level"]), VALUES, max_size=6)


@settings(max_examples=80, deadline=None)
@given(EVENTS, st.sampled_from([DEBUG, INFO, WARNING, ERROR, CRITICAL]))
def test_the_body_says_what_json_safe_says(event, rank):
    """However the body was made, its context is `json_safe` of what was left of the event."""
    _, shape = line_of(event, rank=rank)
    rest = {key: value for key, value in event.items() if key not in ("event", "logger", "timestamp", "level")}
    if event.get("logger") not in (None, "") and not isinstance(event["logger"], str):
        rest["logger_"] = event["logger"]
    level = event.get("level")
    if level is not None and (not isinstance(level, str) or level.upper() != shape["level"]):
        rest["level_"] = level
    if rank == CRITICAL:
        rest["severity"] = "CRITICAL"
    assert json.dumps(shape["context"]) == json.dumps(json_safe(rest))


def test_node_reads_the_same_values(tmp_path):
    """JSON.parse gives every one of 1,000 random bodies back as it was: text, whole numbers, floats, order."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    rng = random.Random(20260123)

    def value(depth):
        kind = rng.randrange(9 if depth < 4 else 7)
        if kind == 0:
            return rng.choice([None, True, False])
        if kind == 1:
            return rng.choice([1, -1]) * rng.getrandbits(rng.choice([8, 31, 52, 53, 54, 63]))
        if kind == 2:
            return rng.choice([math.nan, math.inf, -math.inf, 0.1, 1e21, 1e-7, 123456789.123456789, -0.0, 5e-324])
        if kind == 3:
            return rng.random() * 10 ** rng.randrange(-20, 20)
        if kind in (4, 5):
            return "".join(
                chr(rng.choice([9, 10, 34, 92, 60, 228, 0x2028, 0x20AC, 0x1F600, 0x7F, 0])) for _ in range(6)
            )
        if kind == 6:
            return rng.randbytes(5)
        if kind == 7:
            return [value(depth + 1) for _ in range(3)]
        return {f"k{rng.randrange(99)}": value(depth + 1) for _ in range(3)}

    bodies = [
        log_line("e", n + 1, 1, "app", n, INFO, {"event": value(3), **{f"f{i}": value(0) for i in range(4)}})[0].body
        for n in range(1000)
    ]
    script = (
        "const out = require('fs').readFileSync(0, 'utf8').split('\\n').filter(Boolean)"
        ".map(l => JSON.stringify(JSON.parse(l))); process.stdout.write(out.join('\\n'))"
    )
    answer = subprocess.run(
        [node, "-e", script], input=b"\n".join(bodies), capture_output=True, timeout=DEADLINE_S, check=True
    ).stdout
    shown = answer.decode().split("\n")
    assert len(shown) == len(bodies)
    for body, text in zip(bodies, shown, strict=True):
        assert repr(floats(json.loads(text))) == repr(floats(json.loads(body)))


def floats(value):
    """JavaScript has one kind of number: compare whole floats as integers, and 0 without a sign."""
    if isinstance(value, dict):
        return {key: floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [floats(item) for item in value]
    if isinstance(value, float | int) and not isinstance(value, bool):
        return float(value) + 0.0
    return value


# --- time ---------------------------------------------------------------------------------------------------


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_US = 253_402_300_799_999_999


def plainly(us):
    return (EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@given(st.integers(0, LAST_US))
def test_rfc3339_is_what_datetime_says(us):
    """Any moment from 1970 to 9999, leap years included, in six digits."""
    assert rfc3339(us) == plainly(us)
    assert rfc3339(us) == plainly(us)  # the remembered second


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1970-01-01T00:00:00.000000Z"),
        (-(2**70), "1970-01-01T00:00:00.000000Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
        (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
        (LAST_US, "9999-12-31T23:59:59.999999Z"),
        (LAST_US + 1, "9999-12-31T23:59:59.999999Z"),
        (2**80, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_rfc3339_clamps_what_cannot_be_written(us, text):
    """Clocks before 1970 and after 9999 are shown as the nearest moment that can be written."""
    assert rfc3339(us) == text
    assert len(text) == 27


# --- notices -------------------------------------------------------------------------


def test_a_notice_is_an_ordinary_line():
    """The relay's own words have its source, run 0 and the notice's name in context."""
    line, message, context = notice_line("k3f9ab", 7, 0, WARNING, "gap", "3 lines missing", {"count": 3})
    shape = json.loads(line.body)
    assert shape == {
        "type": "log",
        "id": "k3f9ab-7",
        "level": "WARNING",
        "source": "logrelay",
        "message": "3 lines missing",
        "context": {"notice": "gap", "count": 3},
        "timestamp": "1970-01-01T00:00:00.000000Z",
    }
    assert (line.run, line.source, message, context) == (RELAY_RUN, "logrelay", shape["message"], shape["context"])


def gap(**changed):
    told = {"cause": "lag", "first": 3, "last": 9, "count": 7}
    return json.loads(gap_body("k3f9ab.aaaa-9", 0, "k3f9ab", **(told | changed)))


def test_a_gap_by_lag():
    """What a viewer too far behind does not get, by level word, and what it got of it."""
    shape = gap(count=5, kept=2, levels={DEBUG: 1, INFO: 2, ERROR: 1, CRITICAL: 1})
    assert shape == {
        "type": "log",
        "id": "k3f9ab.aaaa-9",
        "level": "WARNING",
        "source": "logrelay",
        "message": "5 lines skipped: this viewer was too far behind; 2 of WARNING and above were sent",
        "context": {
            "notice": "gap",
            "cause": "lag",
            "count": 5,
            "first": "k3f9ab-3",
            "last": "k3f9ab-9",
            "kept": 2,
            "levels": {"DEBUG": 1, "INFO": 2, "ERROR": 2},
        },
        "timestamp": "1970-01-01T00:00:00.000000Z",
    }
    assert gap(count=1)["message"] == "1 line skipped: this viewer was too far behind"
    assert "kept" not in gap()["context"]
    assert "levels" not in gap()["context"]


def test_a_gap_by_retention():
    """What is no longer kept is counted, with its ends."""
    shape = gap(cause="retention", count=1234, kept=5)
    assert shape["message"] == "1,234 lines missing: no longer kept (retention)"
    assert shape["context"] == {
        "notice": "gap", "cause": "retention", "count": 1234, "first": "k3f9ab-3", "last": "k3f9ab-9",
    }  # fmt: skip


def test_a_gap_by_another_epoch():
    """Nobody knows how much is missing behind an id of another journal: the reason is told, no ends."""
    shape = gap(cause="epoch", count=0, detail="x-1 is an id of another journal")
    assert shape["message"] == (
        "lines may be missing: x-1 is an id of another journal; what follows begins with the oldest line kept"
    )
    assert shape["context"] == {
        "notice": "gap", "cause": "epoch", "count": 0, "reason": "x-1 is an id of another journal",
    }  # fmt: skip


def test_a_gap_of_lines_that_were_not_on_the_disk():
    """Their ids are those under which they were shown; the notice's own is where the viewer goes on."""
    shape = gap(cause="unsynced")
    assert shape["context"] == {
        "notice": "gap",
        "cause": "unsynced",
        "count": 7,
        "first": "k3f9ab-3",
        "last": "k3f9ab-9",
    }
    assert shape["message"].startswith("7 lines shown before are not in the journal: the relay or its machine stopped")
    assert gap(cause="unsynced", count=1)["message"].startswith("1 line shown before is not in the journal")


def test_a_gap_through_several_epochs():
    """Its ends have the epochs of their lines."""
    shape = gap(cause="retention", last_epoch="zzz999")
    assert (shape["context"]["first"], shape["context"]["last"]) == ("k3f9ab-3", "zzz999-9")


@pytest.mark.parametrize("chars", [256, 257, 60_000])
def test_a_long_source_is_cut_and_kept_whole_in_the_context(chars):
    """Sources are remembered by the thousand, here and in the journal."""
    name = "x" * chars
    line, shape = line_of({"event": "e", "logger": name, "logger_": 1})
    assert line.source == name[:256]
    assert shape["context"] == ({"logger_": 1} if chars <= 256 else {"logger_": 1, "logger__": name})


@given(
    st.lists(
        st.integers(0, 3_000_000) | st.integers(-(1 << 61), 1 << 61) | st.integers(253_402_300_799_999_000, 1 << 58),
        max_size=6,
    )
)
def test_many_times_are_rendered_as_each_would_be(times):
    """Also those that no clock can write."""
    assert rfc3339_of_each(times) == [rfc3339(us) for us in times]
