"""A line or a notice as the bytes that viewers get.

Owns: the rendering of log lines, notices and timestamps, and how any value of a trader becomes JSON (docs/protocol.md,
section 2). It must not know sockets, WebSocket frames or who is listening: what the relay says to one viewer besides
lines is the viewers' own (`viewers/messages`). No I/O, no clock. Read `viewers/server` next: these bytes go out there.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from math import isfinite, isnan
from typing import Any

import msgpack
import orjson

from logrelay.fanout.positions import id_of
from logrelay.model import CRITICAL, DEBUG, RELAY_RUN, RELAY_SOURCE, SHOWN, WARNING, Line

NOTICES = ("gap", "trader", "relay")
"""Every value of `context.notice`."""

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

_second = 0
_second_text = "1970-01-01T00:00:00"


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
    epoch: str,
    seq: int,
    run: int,
    app: str,
    time_us: int,
    rank: int,
    event: dict[Any, Any],
    run_key: bytes = b"",
) -> tuple[Line, str, dict[str, object]]:
    """Make a line of a decoded event, which is consumed. `run` is the row id of the run, `run_key` its key.

    Returns the line (without message and context, which are only of use while it is fresh), its message and its
    context, both JSON-safe.
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
        "app": app,
        "run": run_key.hex(),
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
    return _line((seq, time_us, rank, source, run, body, "", EMPTY, app)), message, event


def notice_line(
    epoch: str, seq: int, time_us: int, rank: int, notice: str, message: str, details: Mapping[str, object]
) -> tuple[Line, str, dict[str, object]]:
    """Make a line of the relay's own; it takes a place in the journal like any other."""
    context: dict[str, object] = {"notice": notice, **details}
    return (
        Line(
            seq,
            time_us,
            rank,
            RELAY_SOURCE,
            RELAY_RUN,
            notice_body(id_of(epoch, seq), time_us, rank, message, context),
            "",
            EMPTY,
        ),
        message,
        context,
    )


def notice_body(id_: str, time_us: int, rank: int, message: str, context: Mapping[str, object]) -> bytes:
    """Render a notice; for one that only one viewer gets, `id_` is the position to resume behind."""
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


def gap_body(
    id_: str,
    time_us: int,
    epoch: str,
    *,
    cause: str,
    first: int,
    last: int,
    count: int,
    kept: int = 0,
    levels: Mapping[int, int] | None = None,
    detail: str = "",
) -> bytes:
    """Render what one viewer does not get: `count` lines of `first` to `last`; see docs/protocol.md, notices.

    `cause` is lag, retention or epoch; `kept` lines of the stretch were sent all the same, `levels` counts by level
    rank where that is known, and `detail` says why for the cause epoch.
    """
    context: dict[str, object] = {"notice": "gap", "cause": cause, "count": count}
    if cause == "epoch":
        message = f"lines may be missing: {detail}; what follows begins with the oldest line kept"
        context["reason"] = detail
    else:
        context["first"] = id_of(epoch, first)
        context["last"] = id_of(epoch, last)
        lines = "1 line" if count == 1 else f"{count:,} lines"
        if cause == "retention":
            message = f"{lines} missing: no longer kept (retention)"
        else:
            message = f"{lines} skipped: this viewer was too far behind"
            if kept:
                message += f"; {kept:,} of WARNING and above were sent"
                context["kept"] = kept
    if levels is not None:
        context["levels"] = _by_level_name(levels)
    return notice_body(id_, time_us, WARNING, message, context)


def _by_level_name(levels: Mapping[int, int]) -> dict[str, int]:
    """Add up counts by the level word that viewers get; CRITICAL is shown as ERROR."""
    named: dict[str, int] = {}
    for rank in sorted(levels):
        name = SHOWN.get(rank, SHOWN[DEBUG])
        named[name] = named.get(name, 0) + levels[rank]
    return named


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
