"""The table of lines: no secret gets through, and hardly any other line is touched."""

from __future__ import annotations

import copy
import json
import re
from random import Random

import pytest

from robo_trader.log_relay.secret_shapes import _RUN, _SIGHT, _may_have_shape
from robo_trader.logging.redaction import Redactor
from tests.unit.log_relay import secret_lines

SECRET_LINES = [
    *secret_lines.FIRST_SECRET,
    *secret_lines.SECOND_SECRET,
    *secret_lines.THIRD_SECRET,
    *secret_lines.FOURTH_SECRET,
]
HARMLESS_LINES = [
    *secret_lines.FIRST_HARMLESS,
    *secret_lines.SECOND_HARMLESS,
    *secret_lines.THIRD_HARMLESS,
    *secret_lines.FOURTH_HARMLESS,
]
LONG = 16
"""Characters of a secret from which on a half of it is looked for as well."""


def plain(text):
    """Letters and digits only: a secret is found however it was quoted, escaped or split into a list."""
    return re.sub("[^A-Za-z0-9]", "", text)


def left_of(line, shown):
    """What is left of the secrets of the line: a secret, or one half of a long one."""
    out = plain(repr(shown))
    for secret in map(plain, line.secrets):
        halves = [secret] if len(secret) < LONG else [secret[: len(secret) // 2], secret[len(secret) // 2 :]]
        yield from (part for part in halves if part in out)


def test_the_table_is_large_enough():
    """Both kinds of error should be measured on two hundred lines or more, no line twice."""
    assert len({repr(line.event) for line in SECRET_LINES}) == len(SECRET_LINES) >= 200
    assert len({repr(event) for event in HARMLESS_LINES}) == len(HARMLESS_LINES) >= 200
    assert all(line.secrets for line in SECRET_LINES)
    assert all(plain(secret) in plain(repr(line.event)) for line in SECRET_LINES for secret in line.secrets)


@pytest.mark.parametrize("line", SECRET_LINES, ids=lambda line: str(line.event)[:60])
def test_no_secret_is_left(line):
    """As it was logged, in the copy that `redact` makes, nested, as bytes and as JSON inside a string."""
    redactor = Redactor(environ=line.environ)
    event = line.event
    assert list(left_of(line, redactor(None, "info", copy.deepcopy(event)))) == []
    assert list(left_of(line, redactor.redact(event))) == []
    assert list(left_of(line, redactor.value([{"a": (event,)}]))) == []
    if len(event) == 1 and isinstance(event["event"], str):
        text = event["event"]
        assert list(left_of(line, redactor.text(text))) == []
        assert list(left_of(line, redactor.value({"note": [text.encode("utf-8")]}))) == []
        assert list(left_of(line, redactor.text(json.dumps({"note": text})))) == []


def test_hardly_any_other_line_is_touched():
    """At most two harmless lines may lose something."""
    redactor = Redactor(environ={})
    touched = [event for event in HARMLESS_LINES if redactor(None, "info", copy.deepcopy(event)) != event]
    assert len(touched) <= 2, touched


def test_a_line_that_is_not_touched_is_the_same_object():
    """`redact` should make no copy of a line without a secret, and never change what it was given."""
    redactor = Redactor(environ={})
    assert [event for event in HARMLESS_LINES if redactor.redact(event) is not event] == []
    for line in SECRET_LINES:
        before = copy.deepcopy(line.event)
        Redactor(environ=line.environ).redact(line.event)
        assert repr(line.event) == repr(before)


def other_digits(value, random):
    """Return the value with other digits wherever a text has digits."""
    if isinstance(value, str):
        return re.sub("[0-9]", lambda _: random.choice("0123456789"), value)
    if isinstance(value, dict):
        return {key: other_digits(item, random) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(other_digits(item, random) for item in value)
    return value


def test_what_is_remembered_of_a_clean_line_hides_no_secret_of_the_same_form():
    """A redactor remembers clean texts without their digits; a secret must not be taken for one of them."""
    random, redactor = Random(7), Redactor(environ={})
    known = {}
    for number, line in enumerate(SECRET_LINES):
        known |= {f"{name}_{number}": value for name, value in line.environ.items()}
    knowing = Redactor(environ=known)
    for line in SECRET_LINES:
        for _ in range(3):
            redactor.redact(other_digits(line.event, random))
            knowing.redact(other_digits(line.event, random))
    for line in SECRET_LINES:
        assert list(left_of(line, (knowing if line.environ else redactor).redact(line.event))) == []


def test_a_second_line_of_a_form_is_not_looked_at_again(monkeypatch):
    """Lines that differ in their numbers only cost one search."""
    redactor = Redactor(environ={})
    assert redactor.text("filled 17 AAPL at 187.32") == "filled 17 AAPL at 187.32"
    monkeypatch.setattr(redactor, "_scrub", None)
    assert redactor.text("filled 93 AAPL at 204.11") == "filled 93 AAPL at 204.11"


@pytest.mark.parametrize(
    ("clean", "secret"),
    [
        ("8=FIX.4.4|35=A|553=hunter-two|", "8=FIX.4.4|35=A|554=hunter-two|"),
        ("charged card 4000 0000 0000 0001", "charged card 4000 0000 0000 0002"),
        ("transfer to DE88370400440532013000", "transfer to DE89370400440532013000"),
        ("it is gulls-in-tandem7", "it is gulls-in-tandem9"),
        ("a %52bpassword%3dgull", "a %42bpassword%3dgull"),
    ],
)
def test_a_digit_that_decides_is_not_forgotten(clean, secret):
    """Tags of FIX, check digits, escapes, values of the environment: here the digit itself makes the secret."""
    redactor = Redactor(environ={"BROKER_PASSWORD": "gulls-in-tandem9"})
    alone = Redactor(environ={"BROKER_PASSWORD": "gulls-in-tandem9"}).text(secret)
    redactor.text(clean)
    assert redactor.text(secret) == alone
    if "%" not in secret:
        assert redactor.text(clean) == clean
        assert alone != secret


def test_the_cheap_question_about_shapes_leaves_none_out():
    """Whatever the exact search for beginnings finds, the cheap one before it should have found."""
    texts = [text for line in SECRET_LINES for text in (*line.secrets, *map(str, line.event.values()))]
    found = [text for text in texts if _SIGHT.search(text) is not None]
    assert len(found) > 100
    for text in found:
        runs = text.encode("latin-1", "replace").translate(_RUN).decode("latin-1")
        assert "x" * 16 not in runs or _may_have_shape(text, runs), text
