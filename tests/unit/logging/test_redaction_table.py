"""The table of lines: no secret gets through, and hardly any other line is touched."""

from __future__ import annotations

import copy
import json
import re

import pytest

from robo_trader.logging.redaction import Redactor
from tests.unit.logging import secret_lines

SECRET_LINES = [*secret_lines.FIRST_SECRET, *secret_lines.SECOND_SECRET, *secret_lines.THIRD_SECRET]
HARMLESS_LINES = [*secret_lines.FIRST_HARMLESS, *secret_lines.SECOND_HARMLESS, *secret_lines.THIRD_HARMLESS]
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
