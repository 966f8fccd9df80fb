"""A line or a notice as the bytes that viewers get.

Owns: the rendering of log lines, notices and timestamps, and how any value of a trader becomes JSON (docs/protocol.md,
section 2). It must not know sockets, WebSocket frames or who is listening: what the relay says to one viewer besides
lines is the viewers' own (`viewers/messages`). No I/O, no clock. Read `viewers/server` next: these bytes go out there.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from math import isfinite, isnan
from typing import Any

import msgpack
import orjson

from logrelay.fanout.positions import id_of
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, RANKS, RELAY_RUN, RELAY_SOURCE, SHOWN, WARNING, Line, run_name

NOTICES = ("gap", "trader", "relay")
"""Every value of `context.notice`."""

MAX_SAFE_INTEGER = 2**53 - 1
"""JavaScript's Number.MAX_SAFE_INTEGER; beyond it a number read from JSON is another number."""

MAX_DEPTH = 32
"""Deeper values are shown as text. Honest traders stop at 16; orjson would give up at 254."""

_LAST_US = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z, the last moment RFC 3339 can write; later clocks are shown as it."""

MAX_SOURCE_CHARS = 256
"""A longer name of a logger is cut: filters, caches and the journal remember thousands of names, and a dotted path of a
module has some 40 characters. The whole name stays in the context."""

UNSYNCED = "the relay or its machine stopped before the disk had them; what follows are other lines"
"""What a viewer is told of lines that it has been shown and that the journal does not have."""

CLOCK = "clock"
"""The context field with the time that a trader's clock said, on lines whose `timestamp` is another."""

STAMP_US = 100_000
"""How far the `timestamp` of an event may be from the time of its frame to be that of the same call: some processors,
and threads that wait for their turn, lie between. Beyond it, it is the trader's own field and kept."""

_QUARTER_US = 900_000_000
_WIDEST_ZONE_US = 14 * 4 * _QUARTER_US + STAMP_US
"""Offsets of zones are whole quarters of an hour, up to 14 hours."""

_MAX_MADE_UP = 200
"""Characters of a message that is made of the context: a line on a phone is cut before."""

_LEVEL_WORDS = {
    letter + word: rank
    for word, rank in [*RANKS.items(), ("warn", WARNING), ("err", ERROR), ("exception", ERROR), ("fatal", CRITICAL)]
    for letter in ("", "a")
}
"""Words under `level` that say no more than the frame's level does, methods such as `awarning` included."""

_WORDS = {rank: word for word, rank in RANKS.items()}
"""The word of each rank: nearly always, the level of the event is just that."""

_LINE_ENDS = tuple((char.encode(), b"\\u%04x" % ord(char)) for char in "\u2028\u2029\x85")
"""Characters that end a line for Unicode, and for JavaScript before 2019, but not for JSON."""

_JSON = orjson.OPT_STRICT_INTEGER

_COPIED = b"%b"
"""Makes a copy of its own size. Some versions of orjson return bytes that keep the 4 KiB which they were written into:
a kept line of 200 bytes would take twenty times its size, out of every budget that counts what is in it."""
EMPTY: Mapping[str, object] = {}
_line: Callable[[tuple[object, ...]], Line] = partial(tuple.__new__, Line)
"""Line of a ready tuple, without the detour over keyword arguments that a NamedTuple's constructor takes."""

_second = 0
_second_text = "1970-01-01T00:00:00"


def escaped(json: bytes) -> bytes:
    """Escape U+2028, U+2029 and U+0085 in JSON, which then means the same: some readers of lines end a line there."""
    if json.isascii():
        return json
    for raw, escape in _LINE_ENDS:
        if raw in json:
            json = json.replace(raw, escape)
    return json


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


class _Seconds(dict[int, str]):
    """How the times of a second begin, by the second."""

    def __missing__(self, second: int) -> str:
        self[second] = begin = rfc3339(second * 1_000_000)[:20]
        return begin


def rfc3339_of_each(times: Sequence[int]) -> list[str]:
    """Render many times, each as `rfc3339` does, in a third of the time; those of one second share their beginning."""
    if not times or not 0 <= min(times) <= max(times) <= _LAST_US:
        return list(map(rfc3339, times))
    of = _Seconds()
    return ["%s%06dZ" % (of[second], us) for second, us in map(divmod, times, repeat(1_000_000))]  # noqa: UP031  (quick)


def log_line(
    epoch: str,
    seq: int,
    run: int,
    app: str,
    time_us: int,
    rank: int,
    event: dict[Any, Any],
    run_key: bytes = b"",
    clock_us: int | None = None,
) -> tuple[Line, str, dict[str, object]]:
    """Make a line of a decoded event, which is consumed. `run` is the row id of the run, `run_key` its key.

    Of the key only the name made of it (`model.run_name`) is in the line.
    `clock_us` is what the trader's clock said, where `time_us` is another time because that clock was set back: the
    line is then found by it, and shows it. Returns the line (without message and context, which are only of use while
    it is fresh), its message and its context, both JSON-safe.
    """
    message = event.pop("event", None)
    source = event.pop("logger", None)
    level = event.pop("level", None)
    timestamp = event.pop("timestamp", None)
    if type(message) is not str or not message:
        message = _other_message(event) if message is None or message == "" else text_of(message)
    if type(source) is not str or not source:
        if source is not None and source != "":
            event[free_name("logger", event)] = source
        source = app
    elif len(source) > MAX_SOURCE_CHARS:
        event[free_name("logger", event)] = source
        source = source[:MAX_SOURCE_CHARS]
    if source == RELAY_SOURCE:
        source = f"{app}/{RELAY_SOURCE}"
    if level is not None and (type(level) is not str or (level != _WORDS[rank] and _rank_of(level) != rank)):
        event[free_name("level", event)] = level
    shown, name = rfc3339(time_us), run_name(run_key)
    if (
        timestamp is not None
        # The usual one is of the same tenth of a second, digit by digit.
        and (type(timestamp) is not str or timestamp[:21] != shown[:21] or clock_us is not None)
        and not _is_time_of_call(timestamp, time_us if clock_us is None else clock_us)
    ):
        event[free_name("timestamp", event)] = timestamp
    if rank == CRITICAL:
        if "severity" in event and event["severity"] != "CRITICAL":
            event[free_name("severity", event)] = event["severity"]
        event["severity"] = "CRITICAL"
    if clock_us is not None:
        if CLOCK in event:
            event[free_name(CLOCK, event)] = event[CLOCK]
        event[CLOCK] = rfc3339(clock_us)
    shape = {
        "type": "log",
        "id": f"{epoch}-{seq}",
        "level": SHOWN[rank],
        "source": source,
        "message": message,
        "context": event,
        "timestamp": shown,
        "app": app,
        "run": name,
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
    body = _COPIED % body if body.isascii() else escaped(_COPIED % body)
    return _line((seq, time_us, rank, source, run, body, "", EMPTY, app, clock_us, name, "")), message, event


def _rank_of(word: str) -> int | None:
    return _LEVEL_WORDS.get(word) or _LEVEL_WORDS.get(word.lower())


def free_name(name: str, event: Mapping[Any, Any]) -> str:
    """Return the name under which a trader's own field is kept when `name` is taken (docs/values.md)."""
    name += "_"
    while name in event:
        name += "_"
    return name


def _other_message(event: dict[Any, Any]) -> str:
    """Return a message for an event without a text: EventRenamer and the like have put it elsewhere."""
    for key in ("message", "msg"):
        if event.get(key) not in (None, ""):
            return text_of(event.pop(key))
    if not event:
        return ""
    text = orjson.dumps(json_safe(event)).decode()
    return text if len(text) <= _MAX_MADE_UP else text[:_MAX_MADE_UP] + "\u2026"


def _is_time_of_call(timestamp: object, call_us: int) -> bool:
    """Tell whether a `timestamp` is TimeStamper's: it then says once more when the line was logged.

    Without an offset it may be of any zone, that is, a whole number of quarters of an hour off.
    """
    if type(timestamp) is float:
        return abs(timestamp * 1e6 - call_us) <= STAMP_US
    if type(timestamp) is not str:
        return False
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return False
    off = int((moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 1e6) - call_us
    if moment.tzinfo is None and abs(off) <= _WIDEST_ZONE_US:
        off = (off + _QUARTER_US // 2) % _QUARTER_US - _QUARTER_US // 2
    # A text without a fraction was cut to its second.
    return -(STAMP_US if moment.microsecond else 1_000_000 + STAMP_US) <= off <= STAMP_US


def notice_line(
    epoch: str,
    seq: int,
    time_us: int,
    rank: int,
    notice: str,
    message: str,
    details: Mapping[str, object],
    clock_us: int | None = None,
) -> tuple[Line, str, dict[str, object]]:
    """Make a line of the relay's own; it takes a place in the journal like any other. `clock_us` as in `log_line`."""
    context: dict[str, object] = {"notice": notice, **details}
    if clock_us is not None:
        context[CLOCK] = rfc3339(clock_us)
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
            clock_us=clock_us,
        ),
        message,
        context,
    )


def notice_body(id_: str, time_us: int, rank: int, message: str, context: Mapping[str, object]) -> bytes:
    """Render a notice; for one that only one viewer gets, `id_` is the position to resume behind."""
    body = orjson.dumps(
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
    return escaped(_COPIED % body)


def left_out_body(id_: str, time_us: int) -> bytes:
    """Render what is said where older notices are left out of a tail or an answer."""
    text = "older notices of the relay are left out here, so that they do not outnumber the lines: notices=all has them"
    return notice_body(id_, time_us, INFO, text, {"notice": "relay", "state": "left_out"})


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
    last_epoch: str = "",
) -> bytes:
    """Render what one viewer does not get: `count` lines of `first` to `last`; see docs/protocol.md, notices.

    `cause` is lag, retention, corrupt, purged, epoch, unsynced or away; `kept` lines of it were sent all the same,
    `levels` counts by level rank where that is known, and `detail` says why for the cause epoch. `epoch` is that of
    `first`, and of `last` where `last_epoch` names no other.
    """
    context: dict[str, object] = {"notice": "gap", "cause": cause, "count": count}
    if cause == "epoch":
        message = f"lines may be missing: {detail}; what follows begins with the oldest line kept"
        context["reason"] = detail
    else:
        context["first"] = id_of(epoch, first)
        context["last"] = id_of(last_epoch or epoch, last)
        lines = "1 line" if count == 1 else f"{count:,} lines"
        if cause == "retention":
            message = f"{lines} missing: no longer kept (retention)"
        elif cause == "away":
            message = f"{lines} skipped: this device was away for longer than the relay waits (--device-window)"
        elif cause == "unsynced":
            message = f"{lines} shown before {'is' if count == 1 else 'are'} not in the journal: {UNSYNCED}"
        elif cause == "purged":
            message = f"{lines} purged: {'it' if count == 1 else 'they'} should not have been logged"
        elif cause == "corrupt":
            message = f"{lines} missing: the journal file was damaged there"
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


def run_of_body(body: bytes) -> str:
    """Return the run that a rendered line shows; empty: none."""
    return str(orjson.loads(body).get("run", ""))


def edge_of_body(body: bytes) -> str:
    """Return the machine that a rendered line was collected from; empty: it is this relay's own."""
    return str(orjson.loads(body).get("edge", ""))


def read_body(body: bytes) -> tuple[str, dict[str, object]]:
    """Return message and context of a rendered line, for filters that look at lines no longer fresh."""
    shape = orjson.loads(body)
    return shape["message"], shape["context"]
