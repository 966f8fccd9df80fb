"""The viewer protocol: what a line looks like on its way out, and what a viewer may say.

Owns: rendering of log lines, notices and control messages, ids and timestamps, and the parsing of what viewers
send (docs/protocol.md, section 2). It must not know sockets, WebSocket frames or who is listening.
No I/O, no clock. Read `hub` next: it decides who gets which line.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import isfinite, isnan
from typing import Any
from urllib.parse import parse_qs

import msgpack
import orjson

from logrelay.errors import RequestError
from logrelay.fanout.filters import Filter, field_text, parse_filter
from logrelay.model import CRITICAL, RELAY_RUN, RELAY_SOURCE, SHOWN, Line

MESSAGE_TYPES = ("log", "connection", "subscribed", "history", "pong", "error")
"""Every `type` the relay sends."""

REQUEST_TYPES = ("subscribe", "history", "ping")
"""Every `type` a viewer may send."""

ERROR_CODES: dict[str, str] = {
    "bad_json": "the message is not a JSON object",
    "bad_type": "the `type` is not one a viewer can send",
    "bad_channel": "the only channel is `logs`",
    "bad_level": "unknown level name",
    "bad_source": "too many or too long source globs",
    "bad_text": "text too long",
    "bad_where": "not of the form field=value",
    "bad_tail": "not a number in the allowed range",
    "bad_id": "not an id of this relay",
    "bad_limit": "not a number in the allowed range",
    "busy": "more history requests at once than allowed",
    "expired": "an id of another journal, or one it has not reached",
    "journal": "the journal cannot be read now; ask again",
}
"""Every `code` of an error message."""

NOTICES = ("gap", "trader", "relay")
"""Every value of `context.notice`."""

MAX_TAIL = 100_000
"""Lines a viewer may ask for on connect; twenty times what the web viewer shows."""

MAX_HISTORY = 1_000
"""Lines in one history answer: about 300 KB, one comfortable message."""

DEFAULT_HISTORY = 200

MAX_SAFE_INTEGER = 2**53 - 1
"""JavaScript's Number.MAX_SAFE_INTEGER; beyond it a number read from JSON is another number."""

MAX_DEPTH = 32
"""Deeper values are shown as text. Honest traders stop at 16; orjson would give up at 254."""

_LAST_US = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z, the last moment RFC 3339 can write; later clocks are shown as it."""

_JSON = orjson.OPT_STRICT_INTEGER
EMPTY: Mapping[str, object] = {}
_line: Callable[[tuple[object, ...]], Line] = partial(tuple.__new__, Line)
"""Line of a ready tuple, without the detour over keyword arguments that a NamedTuple's constructor takes."""

_ID = re.compile(r"([a-z0-9]{1,16}(?:\.[a-z0-9]{1,16})?)-([0-9]{1,19})")

_DIGITS = re.compile(r"[0-9]{1,9}")

_second = -1
_second_text = ""


def rfc3339(us: int) -> str:
    """Render microseconds since 1970 as `2026-01-23T10:00:00.123456Z`; out-of-range clocks are clamped."""
    global _second, _second_text  # noqa: PLW0603  (one remembered second: lines come in bunches)
    second = us // 1_000_000
    if second != _second:
        us = min(max(us, 0), _LAST_US)
        second = us // 1_000_000
        # strftime pads years below 1000 differently from platform to platform; isoformat does not.
        _second_text = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        _second = second
    return f"{_second_text}.{us - second * 1_000_000:06d}Z"


def log_line(
    epoch: str, seq: int, run: int, app: str, time_us: int, rank: int, event: dict[Any, Any]
) -> tuple[Line, str, dict[str, object]]:
    """Make a line of a decoded event, which is consumed.

    Returns the line (without message and context, which are only of use while it is fresh), its message and
    its context, both JSON-safe.
    """
    message = event.pop("event", None)
    source = event.pop("logger", None)
    event.pop("timestamp", None)
    event.pop("level", None)
    if type(message) is not str:
        message = text_of(message)
    if type(source) is not str or not source:
        source = app
    if source == RELAY_SOURCE:
        source = f"{app}/{RELAY_SOURCE}"
    if rank == CRITICAL:
        event["severity"] = "CRITICAL"
    shape = {
        "type": "log",
        "id": f"{epoch}-{seq}",
        "level": SHOWN[rank],
        "source": source,
        "message": message,
        "context": event,
        "timestamp": rfc3339(time_us),
    }
    try:
        body = orjson.dumps(shape, option=_JSON)
        # orjson writes NaN and infinities as null: only a line with a null in it needs a second look.
        if b"null" in body and not _finite(event):
            shape["context"] = event = json_safe(event)
            body = orjson.dumps(shape, option=_JSON)
    except TypeError:
        shape["context"] = event = json_safe(event)
        body = orjson.dumps(shape, option=_JSON)
    return _line((seq, time_us, rank, source, run, body, "", EMPTY)), message, event


def notice_line(
    epoch: str, seq: int, time_us: int, rank: int, notice: str, message: str, details: Mapping[str, object]
) -> tuple[Line, str, dict[str, object]]:
    """Make a line the relay itself says; it takes a place in the journal like any other."""
    context: dict[str, object] = {"notice": notice, **details}
    return (
        Line(
            seq,
            time_us,
            rank,
            RELAY_SOURCE,
            RELAY_RUN,
            notice_body(f"{epoch}-{seq}", time_us, rank, message, context),
            "",
            EMPTY,
        ),
        message,
        context,
    )


def notice_body(id_: str, time_us: int, rank: int, message: str, context: Mapping[str, object]) -> bytes:
    """Render a notice for one viewer only; `id_` is the position to resume behind."""
    return orjson.dumps(
        {
            "type": "log",
            "id": id_,
            "level": SHOWN[rank],
            "source": RELAY_SOURCE,
            "message": message,
            "context": context,
            "timestamp": rfc3339(time_us),
        }
    )


def text_of(value: object) -> str:
    """Return the message text of an event that is not a string."""
    if value is None:
        return ""
    safe = json_safe_value(value, 0)
    return safe if isinstance(safe, str) else orjson.dumps(safe).decode()


def _finite(value: object) -> bool:
    """Tell whether no NaN or infinity hides in a value that orjson could encode."""
    if type(value) is float:
        return isfinite(value)
    if type(value) is dict:
        return all(map(_finite, value.values()))
    if type(value) is list:
        return all(map(_finite, value))
    return True


def json_safe(event: Mapping[Any, Any]) -> dict[str, object]:
    """Return a copy that JSON and JavaScript read back without changing a value."""
    return {_key(key): json_safe_value(value, 1) for key, value in event.items()}


def json_safe_value(value: object, depth: int) -> object:
    """Return a JSON value for anything msgpack can hold; see docs/protocol.md for the mapping."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(value)
    if isinstance(value, float):
        if isfinite(value):
            return value
        return "NaN" if isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, msgpack.Timestamp):
        return rfc3339(value.to_unix_nano() // 1000)
    if isinstance(value, msgpack.ExtType):
        return base64.b64encode(value.data).decode("ascii")
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {_key(key): json_safe_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe_value(item, depth + 1) for item in value]
    return str(value)


def _key(key: object) -> str:
    return key if isinstance(key, str) else text_of(key)


def read_body(body: bytes) -> tuple[str, dict[str, object]]:
    """Return message and context of a rendered line, for filters that look at lines no longer fresh."""
    shape = orjson.loads(body)
    return shape["message"], shape["context"]


# --- what the relay says besides lines -------------------------------------------------------------------


def connection(head: str, oldest: str, traders: list[dict[str, object]], version: str) -> bytes:
    """Render the first message of every connection."""
    return orjson.dumps(
        {
            "type": "connection",
            "status": "connected",
            "head": head,
            "oldest": oldest,
            "traders": traders,
            "version": version,
        }
    )


def subscribed(wanted: Filter, head: str) -> bytes:
    """Render the answer to a subscribe request: the subscription as it is now."""
    return orjson.dumps({"type": "subscribed", "channel": "logs", "filter": filter_shape(wanted), "head": head})


def filter_shape(wanted: Filter) -> dict[str, object]:
    """Return the filter in the words of a subscribe request."""
    shape: dict[str, object] = {}
    if wanted.level > min(SHOWN):
        shape["level"] = "CRITICAL" if wanted.level >= CRITICAL else SHOWN[wanted.level]
    if wanted.sources:
        shape["source"] = list(wanted.sources)
    if wanted.text:
        shape["text"] = wanted.text
    if wanted.where:
        shape["where"] = [f"{key}={value}" for key, value in wanted.where]
    return shape


def history(bodies: list[bytes], more: bool) -> bytes:
    """Render the answer to a history request, oldest line first."""
    return b'{"type":"history","more":%s,"logs":[%s]}' % (b"true" if more else b"false", b",".join(bodies))


def error(code: str, message: str) -> bytes:
    """Render an error; `code` is a key of ERROR_CODES."""
    return orjson.dumps({"type": "error", "code": code, "message": message})


PONG = b'{"type":"pong"}'
"""The answer to a ping request, for clients that cannot see WebSocket pings (every browser)."""


# --- what a viewer says ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscribe:
    """What a viewer wants to see; None: as it is."""

    filter: Filter | None = None
    tail: int | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Lines older than `before`, newest of them first chosen, told oldest first."""

    before: str
    limit: int = DEFAULT_HISTORY


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a pong."""


Request = Subscribe | History | Ping

_FILTER_KEYS = ("level", "source", "text", "where")


def parse_request(text: str | bytes) -> Request:
    """Parse one message of a viewer. Raises RequestError; the viewer then keeps what it had."""
    try:
        message = orjson.loads(text)
    except ValueError:
        raise RequestError(
            "bad_json",
            f'{_clip(text)} is not JSON; send an object such as {{"type":"subscribe","channel":"logs"}}',
        ) from None
    if not isinstance(message, dict):
        raise RequestError("bad_json", f"{_clip(text)} is not a JSON object")
    match message.get("type"):
        case "subscribe":
            channel = message.get("channel", "logs")
            if channel != "logs":
                raise RequestError("bad_channel", f"channel {_clip(channel)} is unknown; the only one is 'logs'")
            return _subscribe(_as_lists(message))
        case "history":
            before = message.get("before")
            if not isinstance(before, str) or not _ID.fullmatch(before):
                raise RequestError("bad_id", f"before {_clip(before)} is not an id such as 'k3f9ab-1042'")
            return History(before, _number(message.get("limit", DEFAULT_HISTORY), "limit", 1, MAX_HISTORY))
        case "ping":
            return Ping()
        case other:
            raise RequestError("bad_type", f"type {_clip(other)} is not one of {', '.join(REQUEST_TYPES)}")


def parse_target(target: str) -> Subscribe:
    """Parse the subscription in the query of a request target; unknown parameters are not looked at.

    Raises RequestError.
    """
    return _subscribe(_query(target))


def query_tokens(target: str) -> list[str]:
    """Return every `token` parameter of a request target."""
    return _query(target).get("token", [])


def _query(target: str) -> dict[str, list[str]]:
    """Return the parameters behind the first `?`; every target has some, however little it looks like a URL."""
    # The HTTP parser hands on bytes beyond ASCII as lone surrogates, which JSON and SQLite cannot say.
    text = target.partition("?")[2].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return parse_qs(text, keep_blank_values=True)


def _as_lists(message: dict[str, Any]) -> dict[str, list[str]]:
    """Bring a JSON subscribe request into the form of a query: every value a list of strings."""
    params: dict[str, list[str]] = {}
    for key in (*_FILTER_KEYS, "tail", "after"):
        value = message.get(key)
        if value is None:
            continue
        if key == "where" and isinstance(value, dict):
            try:
                value = [f"{name}={field_text(v)}" for name, v in value.items()]
            except TypeError:  # orjson reads deeper than it writes
                raise RequestError("bad_where", "where is nested too deep") from None
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str | int) and not isinstance(v, bool) for v in values):
            raise RequestError(f"bad_{'id' if key == 'after' else key}", f"{key} {_clip(value)} is not a string")
        params[key] = [str(v) for v in values]
    return params


def _subscribe(params: Mapping[str, list[str]]) -> Subscribe:
    wanted = parse_filter(params) if any(key in params for key in _FILTER_KEYS) else None
    tail = after = None
    if params.get("tail"):
        tail = _number(params["tail"][-1], "tail", 0, MAX_TAIL)
    if params.get("after"):
        after = params["after"][-1]
        if not _ID.fullmatch(after):
            raise RequestError("bad_id", f"after {_clip(after)} is not an id such as 'k3f9ab-1042'")
    return Subscribe(wanted, tail, after)


def _number(value: object, name: str, low: int, high: int) -> int:
    text = str(value)
    number = int(text) if _DIGITS.fullmatch(text) else low - 1
    if not low <= number <= high:
        raise RequestError(f"bad_{name}", f"{name} {_clip(value)} is not a whole number from {low} to {high}")
    return number


def split_id(id_: str) -> tuple[str, int]:
    """Split an id into epoch and seq. Raises RequestError (`bad_id`)."""
    match = _ID.fullmatch(id_)
    if not match:
        raise RequestError("bad_id", f"{_clip(id_)} is not an id such as 'k3f9ab-1042'")
    return match[1], int(match[2])


def _clip(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
