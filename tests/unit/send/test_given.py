"""What becomes of arguments and of lines of stdin."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given as given_values
from hypothesis import strategies as st

from logrelay.errors import ConfigError
from logrelay.send.given import Given, from_arguments, from_line, level_of, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("0", 0), ("1.5", 1.5), ("-0.25", -0.25), ("1e3", 1000.0), ("2E-2", 0.02),
        ("true", True), ("false", False), ("null", None), ('"007"', "007"), ('"true"', "true"), ('""', ""),
        ("", ""), ("007", "007"), ("+1", "+1"), (".5", ".5"), ("1.", "1."), ("1_000", "1_000"), ("0x10", "0x10"),
        ("True", "True"), ("None", "None"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("AAPL", "AAPL"),
        ('"half', '"half'), ('"a" b', '"a" b'), ("[1]", "[1]"), ("{}", "{}"), ("a=b", "a=b"), ("\u0661", "\u0661"),
        ("1e999", "1e999"), ("18446744073709551615", 2**64 - 1), ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775808", -(2**63)), ("-9223372036854775809", "-9223372036854775809"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_a_value_is_a_json_scalar_or_text(text, value):
    """Nothing that only looks a little like a number is changed, and nothing that msgpack or JSON could not hold."""
    assert (type(value_of(text)), value_of(text)) == (type(value), value)


@pytest.mark.parametrize(
    ("word", "level"),
    [
        ("debug", "debug"), ("INFO", "info"), (" Warning ", "warning"), ("warn", "warning"), ("err", "error"),
        ("fatal", "critical"), ("alert", "critical"), ("emergency", "critical"), ("notice", "info"), ("trace", "debug"),
        ("critical", "critical"), (10, "debug"), (5, "debug"), (20, "info"), (25, "info"), (30, "warning"),
        (40, "error"), (49, "error"), (50, "critical"), (99, "critical"),
        ("loud", None), ("", None), (0, None), (-1, None), (True, None), (30.0, None), (None, None), ([], None),
    ],
)  # fmt: skip
def test_levels(word, level):
    """The words of several loggers, and the numbers of Python's."""
    assert level_of(word) == level


def test_a_line_of_arguments():
    """Fields in order; a value may have an equals sign; the moment is that of sending."""
    made = from_arguments("done", ["n=1", "where=a=b", "empty="], "warning")
    assert made == Given("warning", None, {"event": "done", "n": 1, "where": "a=b", "empty": ""})


@pytest.mark.parametrize("pair", ["word", "=x", "="])
def test_a_pair_without_a_key_is_refused(pair):
    """With a hint, because a message without quotes is the usual mistake."""
    with pytest.raises(ConfigError, match=r"not of the form key=value; put the message in quotes"):
        from_arguments("done", [pair], "info")


def test_keys_that_mean_something_on_the_wire_get_another_name():
    """The relay would take them for its own; also when the other name is taken."""
    pairs = ["event=1", "level=2", "logger=3", "timestamp=4", "level_=5", "type=6"]
    fields = {"event": "m", "event_": 1, "level_": 5, "level__": 2, "logger_": 3, "timestamp_": 4, "type": 6}
    assert from_arguments("m", pairs, "info").event == fields


@pytest.mark.parametrize("line", [b"", b"\n", b"  \r\n", b"\t"])
def test_a_blank_line_is_left_out(line):
    """It says nothing."""
    assert from_line(line, "info") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"plain\n", "plain"), (b"  indented\r\n", "  indented"), (b"\xff!\n", "\ufffd!"), (b"no end", "no end"),
        (b"5\n", "5"), (b'"quoted"\n', '"quoted"'), (b"[1]\n", "[1]"), (b"{half\n", "{half"), (b"{} x\n", "{} x"),
        (b'{"a":' * 5000 + b"\n", '{"a":' * 5000),
    ],
)  # fmt: skip
def test_what_is_no_object_is_text(line, message):
    """Nothing is refused, whatever a program prints."""
    assert from_line(line, "error") == Given("error", None, {"event": message})


@pytest.mark.parametrize(
    ("said", "made"),
    [
        ({"event": "e", "message": "m", "msg": "s"}, Given("info", None, {"event": "e", "message": "m", "msg": "s"})),
        ({"message": "m", "msg": "s"}, Given("info", None, {"event": "m", "msg": "s"})),
        ({"msg": "s", "level": "WARN"}, Given("warning", None, {"event": "s"})),
        ({"msg": "s", "level": 50}, Given("critical", None, {"event": "s"})),
        ({"msg": "s", "severity": "ERROR"}, Given("error", None, {"event": "s"})),
        ({"msg": "s", "levelname": "DEBUG"}, Given("debug", None, {"event": "s"})),
        ({"msg": "s", "level": "loud"}, Given("info", None, {"event": "s", "level_": "loud"})),
        ({"msg": "s", "level": "loud", "severity": "error"}, Given("error", None, {"event": "s", "level_": "loud"})),
        ({"msg": "s", "logger": "a", "source": "c"}, Given("info", None, {"event": "s", "logger": "a", "source": "c"})),
        ({"msg": "s", "source": "c"}, Given("info", None, {"event": "s", "logger": "c"})),
        ({"logger_name": "n", "logger": ""}, Given("info", None, {"logger": "n", "logger_": ""})),
        ({"msg": "s", "logger": 7}, Given("info", None, {"event": "s", "logger_": 7})),
        ({"msg": "s", "timestamp": "1970-01-01T00:00:01Z"}, Given("info", 10**9, {"event": "s"})),
        ({"msg": "s", "time": "1970-01-01T02:00:00.5+02:00"}, Given("info", 5 * 10**8, {"event": "s"})),
        ({"msg": "s", "time": "1970-01-02T00:00:01"}, Given("info", 86_401 * 10**9, {"event": "s"})),
        ({"msg": "s", "ts": 1.5}, Given("info", 1_500_000_000, {"event": "s"})),
        ({"msg": "s", "ts": 253_402_300_799}, Given("info", 253_402_300_799 * 10**9, {"event": "s"})),
        ({"msg": "s", "ts": 253_402_300_800}, Given("info", None, {"event": "s", "ts": 253_402_300_800})),
        ({"msg": "s", "ts": 0}, Given("info", None, {"event": "s", "ts": 0})),
        ({"msg": "s", "ts": 1}, Given("info", 10**9, {"event": "s"})),
        ({"msg": "s", "ts": True}, Given("info", None, {"event": "s", "ts": True})),
        ({"time": "soon", "timestamp": None}, Given("info", None, {"time": "soon", "timestamp_": None})),
        ({"msg": "s", "time": "soon", "ts": 2}, Given("info", 2 * 10**9, {"event": "s", "time": "soon"})),
        ({"msg": "s", "context": {"a": 1, "b": 2}, "b": 3}, Given("info", None, {"event": "s", "a": 1, "b": 3})),
        ({"msg": "s", "context": "text"}, Given("info", None, {"event": "s", "context": "text"})),
        ({"a": [1, {"b": None}]}, Given("info", None, {"a": [1, {"b": None}]})),
        ({}, Given("info", None, {})),
        ({"event": {"deep": 1}}, Given("info", None, {"event": {"deep": 1}})),
    ],
)  # fmt: skip
def test_an_object_is_read_for_what_loggers_call_things(said, made):
    """Message, level, logger and time are taken where they fit; everything else stays a field."""
    assert from_line(json.dumps(said).encode() + b"\n", "info") == made


def test_numbers_that_no_frame_can_hold_are_their_digits():
    """And NaN, which JSON does not have, is a word."""
    line = b' {"msg":"s","a":18446744073709551616,"b":1e999,"c":NaN,"d":[-Infinity]}\n'
    fields = {"event": "s", "a": "18446744073709551616", "b": "1e999", "c": "NaN", "d": ["-Infinity"]}
    assert from_line(line, "info") == Given("info", None, fields)


@given_values(st.binary(max_size=60) | st.text(string.printable, max_size=60).map(str.encode))
def test_no_line_is_too_strange(line):
    """Whatever comes is a line or blank."""
    made = from_line(line, "info")
    assert made is None or isinstance(made.event, dict)
