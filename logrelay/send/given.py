"""What somebody gives to `logrelay send`, as an event: arguments `key=value`, lines of JSON, lines of text.

Owns: which values are numbers, where message, level, logger and time stand in a JSON line, and what becomes of keys
that mean something else on the wire. It must not know frames or sockets. No I/O, no clock. Read `send/frames` next.

Nothing that comes in on stdin is refused: a line that is no JSON object is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import NamedTuple

from logrelay.errors import ConfigError, quoted
from logrelay.model import RANKS

MESSAGE_KEYS = ("event", "message", "msg")
LEVEL_KEYS = ("level", "severity", "levelname")
LOGGER_KEYS = ("logger", "source", "logger_name")
TIME_KEYS = ("timestamp", "time", "ts")
"""Where a JSON line may have what; the first that fits is taken, the others are fields like any."""

RESERVED = ("event", "level", "logger", "timestamp")
"""Keys of the wire protocol's event. A field of that name gets an underscore at its end, so that it is not lost."""

_ALIASES = {"warn": "warning", "err": "error", "fatal": "critical", "emergency": "critical", "alert": "critical"}
_ALIASES |= {"notice": "info", "trace": "debug"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, object] = {"true": True, "false": False, "null": None}
_LEAST, _MOST = -(2**63), 2**64 - 1
"""What msgpack can hold; an integer beyond is sent as its digits."""
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999: a number beyond it is no time in seconds."""


class Given(NamedTuple):
    """One line to be sent."""

    level: str
    """A level word of the wire protocol."""
    time_ns: int | None
    """Nanoseconds since 1970 UTC; None: the moment of sending."""
    event: dict[str, object]


def level_of(word: object) -> str | None:
    """Return the level of the wire protocol that a word or a number (10 to 50, as in Python's logging) means."""
    if isinstance(word, str):
        name = word.strip().lower()
        name = _ALIASES.get(name, name)
        return name if name in RANKS else None
    if type(word) is int and word > 0:
        passing = [name for name, rank in RANKS.items() if rank <= max(word, min(RANKS.values()))]
        return passing[-1]
    return None


def value_of(text: str) -> object:
    """Return the value of `key=TEXT`: a JSON number, true, false, null or a JSON string in quotes, else the text."""
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        return _loads(text)
    if text.startswith('"'):
        try:
            value = _loads(text)
        except ValueError:
            return text
        return value if isinstance(value, str) else text
    return text


def from_arguments(message: str, pairs: Iterable[str], level: str) -> Given:
    """Make a line of the arguments. Raises ConfigError for a pair that is not of the form key=value."""
    fields: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{quoted(pair)} is not of the form key=value; put the message in quotes")
        fields[key] = value_of(text)
    return Given(level, None, {"event": message, **_renamed(fields)})


def from_line(line: bytes, level: str) -> Given | None:
    """Make a line of one line of stdin, without its end; None: it is blank. `level` is for lines that say none."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    if not text.strip():
        return None
    if text.lstrip().startswith("{"):
        try:
            said = _loads(text)
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, dict):
            return _from_object(said, level)
    return Given(level, None, {"event": text})


def _from_object(said: dict[str, object], default_level: str) -> Given:
    level, time_ns, event = default_level, None, {}
    for key in MESSAGE_KEYS:
        if key in said:
            event["event"] = said.pop(key)
            break
    for key in LEVEL_KEYS:
        found = level_of(said.get(key))
        if found is not None:
            level = found
            del said[key]
            break
    for key in LOGGER_KEYS:
        if isinstance(said.get(key), str) and said[key]:
            event["logger"] = said.pop(key)
            break
    for key in TIME_KEYS:
        time_ns = _time_ns(said.get(key))
        if time_ns is not None:
            del said[key]
            break
    context = said.get("context")
    if isinstance(context, dict):
        del said["context"]
        said = {**context, **said}
    return Given(level, time_ns, {**event, **_renamed(said)})


def _renamed(fields: Mapping[str, object]) -> dict[str, object]:
    """Give fields whose names mean something on the wire a name of their own."""
    named = dict(fields)
    for key in RESERVED:
        if key in named:
            own = f"{key}_"
            while own in named:
                own += "_"
            named[own] = named.pop(key)
    return named


def _time_ns(value: object) -> int | None:
    """Return a time in RFC 3339, or in seconds since 1970, as nanoseconds; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LAST_SECOND:
        return int(value * 1_000_000) * 1000 if isinstance(value, float) else value * 1_000_000_000
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _loads(text: str) -> object:
    return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=str)


def _integer(digits: str) -> int | str:
    if len(digits) > len(str(_LEAST)):
        return digits
    value = int(digits)
    return value if _LEAST <= value <= _MOST else digits


def _float(digits: str) -> float | str:
    value = float(digits)
    return value if isfinite(value) else digits
