"""A line as a person reads it in a terminal.

Owns: the form of a line on a terminal (columns, colours, wrapping) and without one (a single line that grep finds). It
must not know where lines come from, nor the terminal: what it can do is an argument. Everything that a bot wrote goes
through `visible_text`, so no line can clear the screen or look like two. Pure. Read `terminal/output` next.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import orjson

from logrelay.model import RELAY_SOURCE
from logrelay.visible_text import visible

INDENT = 6
"""Columns by which what belongs to a line stands back: the next line begins visibly further left."""

LEAST_WIDTH = 40
"""Columns below which nothing is wrapped: the terminal does that as well."""

WORDS = {"DEBUG": "DEBUG", "INFO": "INFO ", "WARNING": "WARN ", "ERROR": "ERROR", "CRITICAL": "CRIT "}
"""Five columns each."""

BLOCKS = ("exception", "stack")
"""Fields of several lines, shown as they are below the others on a terminal."""

RESET, DIM, BOLD = "\x1b[0m", "\x1b[2m", "\x1b[1m"
GREEN, YELLOW, RED, CYAN, MAGENTA = "\x1b[32m", "\x1b[33m", "\x1b[1;31m", "\x1b[36m", "\x1b[1;35m"
ALARM = "\x1b[1;37;41m"
LEVEL_COLOURS = {"DEBUG": DIM, "INFO": GREEN, "WARNING": YELLOW, "ERROR": RED, "CRITICAL": ALARM}
BAD_STATES = ("crashed", "lost", "gone", "trouble")
"""States in a notice that somebody has to look at."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the output can show."""

    colours: bool = False
    columns: int = 0
    """Width of the terminal; 0: there is none, and each line is one line with its full time in UTC."""
    zone: tzinfo = UTC
    """The zone of the times on a terminal."""


def level_of(line: Mapping[str, object]) -> str:
    """Return the level word of a line, CRITICAL told apart from ERROR."""
    context = line.get("context")
    critical = isinstance(context, Mapping) and context.get("severity") == "CRITICAL"
    return "CRITICAL" if critical else str(line.get("level", ""))


def day_of(line: Mapping[str, object], zone: tzinfo) -> str:
    """Return the day of a line in a zone, as a terminal shows it between lines; empty where the time is none."""
    moment = _moment(line, zone)
    return "" if moment is None else moment.strftime("%A %Y-%m-%d").strip()


def render(line: Mapping[str, object], form: Form) -> str:
    """Return a log line as text, without a line break at its end."""
    given = line.get("context")
    context = dict(given) if isinstance(given, Mapping) else {}
    level = level_of(line)
    if level == "CRITICAL":
        del context["severity"]
    moment = _moment(line, form.zone)
    if form.columns and moment is not None:
        time = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
    else:
        time = visible(str(line.get("timestamp", "")))
    source = visible(_source(line))
    is_notice = line.get("source") == RELAY_SOURCE
    message = visible(str(line.get("message", "")))
    message_colour = (_notice_colour(context) if is_notice else BOLD) if form.colours else ""
    blocks = {name: context.pop(name) for name in BLOCKS if form.columns and isinstance(context.get(name), str)}
    pieces = [
        (time, DIM),
        (WORDS.get(level, visible(level)), LEVEL_COLOURS.get(level, "")),
        (source, CYAN if not is_notice else MAGENTA),
        *((word, message_colour) for word in message.split(" ")),
    ]
    # The text of a notice says what is in its fields.
    fields = {} if is_notice and form.columns else context
    pieces += [(f"{visible(str(name))}={_value(value)}", DIM if form.colours else "") for name, value in fields.items()]
    text = _laid_out(pieces, form)
    for block in blocks.values():
        text += "".join(f"\n{' ' * INDENT}{visible(row)}" for row in str(block).rstrip("\n").split("\n"))
    return text


def _source(line: Mapping[str, object]) -> str:
    """Return the logger, with the bot before it where its name does not say it."""
    source, app = str(line.get("source", "")), line.get("app")
    if not isinstance(app, str) or not app or source == app or source.startswith(f"{app}."):
        return source
    return f"{app}/{source}"


def _notice_colour(context: Mapping[str, object]) -> str:
    if context.get("notice") == "gap" or context.get("state") in BAD_STATES:
        return RED
    return MAGENTA


def _value(value: object) -> str:
    """Return a value as it stands behind `name=`: a plain word as it is, anything else as JSON."""
    if isinstance(value, str):
        if value and value.isprintable() and not any(c in value for c in " \"'=\\"):
            return value
        return visible(orjson.dumps(value).decode())
    return visible(orjson.dumps(value).decode())


def _moment(line: Mapping[str, object], zone: tzinfo) -> datetime | None:
    try:
        return datetime.fromisoformat(str(line.get("timestamp"))).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return None


def _laid_out(pieces: list[tuple[str, str]], form: Form) -> str:
    """Set the pieces beside each other, on a terminal with the rest of a long line further in."""
    rows, used, shown = [""], 0, ""
    for text, wanted in pieces:
        width = columns_of(text)
        colour = wanted if form.colours and text else ""
        between = 1 if used else 0
        breaks = form.columns >= LEAST_WIDTH and used > INDENT and used + between + width > form.columns
        if shown and (breaks or colour != shown):
            rows[-1] += RESET
            shown = ""
        if breaks:
            rows.append(" " * INDENT)
            used, between = INDENT, 0
        rows[-1] += " " * between + ("" if colour == shown else colour) + text
        used += between + width
        shown = colour
    return "\n".join(rows) + (RESET if shown else "")


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
