"""The end of the chain on this machine: one line of text per event, written so that it cannot hurt the bot.

Owns: how an event looks on a terminal and as JSON, and writing it. It must not know levels' thresholds,
secrets or the relay; all lines arrive redacted. Read `log_relay/processor` next: it stands just before the renderer.
"""

from __future__ import annotations

import json
import math
import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from robo_trader.logging import levels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

_EVENT_WIDTH = 22
"""Columns for the event's name: the trader's longest is `connection.established`."""

_SOURCE_WIDTH = 9
"""Columns for the logger's last name: `portfolio`."""

_RESET, _DIM, _BOLD = "\x1b[0m", "\x1b[2m", "\x1b[1m"
_GREEN, _RED, _CYAN = "\x1b[32m", "\x1b[31m", "\x1b[36m"
_LEVELS = {
    "debug": ("DEBUG", _DIM),
    "info": ("INFO ", _GREEN),
    "warning": ("WARN ", "\x1b[33m"),
    "error": ("ERROR", "\x1b[1;31m"),
    "critical": ("CRIT ", "\x1b[1;37;41m"),
}
_HEAD = ("timestamp", "level", "logger", "event")


def _text(value: Any) -> str:
    try:
        return value if type(value) is str else str(value)
    except Exception:
        return f"[{type(value).__name__}]"


_encode = json.JSONEncoder(default=_text, ensure_ascii=False, allow_nan=False).encode


class Console:
    """Writes finished lines to a text stream; never raises, never waits for a lock.

    A stream with a file descriptor is written with one `os.write` per line: no buffer that a fork could copy,
    nothing that a signal handler which logs could deadlock on. A full pipe does block the caller, as any
    print would: that is between the owner and the reader of the pipe. Failures are counted in `lost`.
    """

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self._fd: int | None = None
        self.lost = 0
        """Lines that could not be written: the terminal or the reader of the pipe is gone."""

    def point_at(self, stream: TextIO) -> None:
        """Write to `stream` from now on."""
        try:
            fd: int | None = stream.fileno()
            stream.flush()
        except (OSError, ValueError, AttributeError):
            fd = None
        self._stream, self._fd = stream, fd

    def write(self, text: str) -> None:
        """Write one line. The empty text stands for "not on this console" and writes nothing."""
        if not text:
            return
        try:
            if self._stream is None or self._stream.closed:  # its descriptor may be somebody else's by now
                self.lost += 1
            elif self._fd is not None:
                data = f"{text}\n".encode("utf-8", "backslashreplace")
                while data:
                    data = data[os.write(self._fd, data) :]
            else:
                self._stream.write(f"{text}\n")
                self._stream.flush()
        except Exception:
            self.lost += 1


class Outlet:
    """What structlog takes for the wrapped logger: a name, and any method writes the finished line.

    `foreign` says that the line is a record of the logging module.
    """

    __slots__ = ("_console", "foreign", "name")

    def __init__(self, name: str, console: Console, *, foreign: bool = False) -> None:
        self.name = name
        self.foreign = foreign
        self._console = console

    def msg(self, text: str) -> None:
        """Write the line."""
        self._console.write(text)

    debug = info = warning = warn = error = err = exception = critical = fatal = failure = msg


class Renderer:
    """The last processor: the event dict in, one line of text out, or "" below `level`.

    `style` is "json", "plain" or "colour". It never raises: what cannot be rendered is rendered poorer.
    """

    def __init__(self, *, style: str, level: str) -> None:
        self.rank = levels.RANKS[level]
        self._render = {"json": render_json, "plain": render_plain, "colour": render_colour}[style]

    def __call__(self, _logger: Any, _method_name: str, event_dict: Mapping[str, Any]) -> str:
        """Render one event."""
        try:
            if levels.RANKS.get(event_dict["level"], self.rank) < self.rank:
                return ""
            return self._render(event_dict)
        except Exception as error:
            return _render_poorly(event_dict, error)


def render_json(event: Mapping[str, Any]) -> str:
    """Render as one JSON object: time, level, logger and event first, Decimal as exact text."""
    ordered = {key: event[key] for key in _HEAD if key in event}
    ordered.update(event)
    try:
        return _encode(ordered)
    except (ValueError, TypeError, RecursionError):  # NaN, keys that are no strings, circular values
        return json.dumps({_text(k): _jsonable(v) for k, v in ordered.items()}, ensure_ascii=False)


def render_colour(event: Mapping[str, Any]) -> str:
    """Render for a terminal."""
    return _render_line(event, colour=True)


def render_plain(event: Mapping[str, Any]) -> str:
    """Render for a person reading a file."""
    return _render_line(event, colour=False)


def _render_line(event: Mapping[str, Any], *, colour: bool) -> str:
    dim, bold, reset = (_DIM, _BOLD, _RESET) if colour else ("", "", "")
    level = str(event.get("level", "info"))
    label, paint = _LEVELS.get(level, (f"{level[:5].upper():5}", ""))
    clock = str(event.get("timestamp", ""))[11:23]
    source = _printable(str(event.get("logger", "")).rpartition(".")[2])
    name = _printable(_text(event.get("event", "")))
    fields = [
        _field(key, value, colour=colour)
        for key, value in event.items()
        if key not in _HEAD and key not in ("exception", "stack")
    ]
    line = (
        f"{dim}{clock}{reset} {paint if colour else ''}{label}{reset} "
        f"{dim}{source:{_SOURCE_WIDTH}}{reset} {bold}{name:{_EVENT_WIDTH}}{reset} {'  '.join(fields)}"
    ).rstrip()
    for key in ("stack", "exception"):
        if event.get(key):
            rows = _text(event[key]).rstrip().split("\n")
            line += "".join(f"\n    {dim}|{reset} {_printable(row)}" for row in rows)
    return line


def _field(key: Any, value: Any, *, colour: bool) -> str:
    text = value if isinstance(value, str) else _text(value)
    shown = _printable(text) if text and " " not in text else repr(text) if isinstance(value, str) else text
    shown = _printable(shown)
    if not colour:
        return f"{_printable(str(key))}={shown}"
    paint = ""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        paint = (_RED if value < 0 else _GREEN) if "pnl" in str(key) else _CYAN
    return f"{_DIM}{_printable(str(key))}={_RESET}{paint}{shown}{_RESET if paint else ''}"


def _printable(text: str) -> str:
    """Escape what is not printable: a value must not move the cursor or forge a second line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def _jsonable(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < 16 and isinstance(value, dict):
        return {_text(k): _jsonable(v, depth + 1) for k, v in value.items()}
    if depth < 16 and isinstance(value, (list, tuple)):
        return [_jsonable(v, depth + 1) for v in value]
    return _text(value)


def _render_poorly(event: Any, error: Exception) -> str:
    """Say at least that there was an event, when rendering failed for a reason nobody thought of."""
    name = event.get("event") if isinstance(event, dict) else event
    return json.dumps({"event": _text(name), "rendering_failed": type(error).__name__})
