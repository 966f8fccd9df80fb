"""How an alert reads.

Owns: title and text of an alert: which bot, what, since when, how often, the reason, and a link that opens the page at
the line. It must not know services. Pure. Read `alerts/store` next.

A phone shows an alert on its locked screen, and services keep it. So it says what a line's message and the last line of
its exception say, which redaction has gone over in the bot, and of the context nothing but the fields that a rule
names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from logrelay.alerts.records import BEYOND, Alert, Matter
from logrelay.fanout.positions import is_id
from logrelay.model import CRITICAL
from logrelay.visible_text import visible

TITLE_CHARS = 100
"""What a phone shows of a title."""
BODY_CHARS = 2000
"""What most services take (Discord 2,000, Telegram 4,096); Apprise cuts or splits it for one that takes less. What
matters stands first: the fields of the context come behind the link."""
LISTED_CHARS = 100
"""Of a reason in an alert about several things."""

TEST_TITLE = "logrelay: this is a test"


class Message(NamedTuple):
    """What is sent."""

    title: str
    body: str
    severity: str
    """`failure`, `warning`, `success` or `info`: Apprise's words for the colour and the sound."""


def render(alert: Alert, *, page: str, stamp: Callable[[float], str], again: bool = False) -> Message:
    """Return the message for an alert.

    `page` is the URL of the relay's page, without a slash at its end; `stamp` writes seconds since 1970 as a time for a
    person. `again`: it is not known whether this alert was sent before.
    """
    first = alert.matters[0]
    many = len(alert.matters) + alert.more
    if alert.why == "back":
        title, severity = _back_title(first), "success"
        lines = [f"since {stamp(first.back_at or first.last_us / 1e6)}; it began at {stamp(first.since_us / 1e6)}"]
    elif many == 1:
        title, severity = _title(first), _severity(first)
        lines = _single(first, alert, stamp)
    else:
        title, severity = f"{many} things in the log: {_title(first)}", _severity(first)
        lines = [_HELD[alert.why]] if alert.why in _HELD else []
        for matter in alert.matters:
            lines.append(
                f"{_times(matter)} {_cut(_title(matter), TITLE_CHARS)}"
                + (f": {_cut(matter.reason, LISTED_CHARS)}" if matter.reason else "")
                + (f"; back since {stamp(matter.back_at)}" if matter.is_state and matter.back_at else "")
            )
            lines += _link(matter, page)
        if alert.more:
            lines.append(f"and {alert.more} more; {alert.lines:,} times in all")
        return _message(title, lines, severity, again=again)
    lines += _link(first, page)
    if alert.why != "back":
        lines += [f"{name}: {value}" for name, value in first.fields.items()]
    return _message(title, lines, severity, again=again)


def trial(name: str) -> Message:
    """Return what `logrelay alert test` sends."""
    return Message(TEST_TITLE, f"The alert rule {name} reaches you.", "info")


_HELD = {
    "quiet_hours": "Held back during the quiet hours:",
    "cap": "Held back, because there were too many alerts in an hour:",
}


def _message(title: str, lines: list[str], severity: str, *, again: bool) -> Message:
    if again:
        lines.insert(0, "The relay was interrupted while it sent this: you may have had it before.")
    body = "\n".join(visible(line) for line in lines)
    return Message(_cut(visible(title), TITLE_CHARS), _cut(body, BODY_CHARS), severity)


def _single(matter: Matter, alert: Alert, stamp: Callable[[float], str]) -> list[str]:
    lines: list[str] = []
    if alert.why in _HELD:
        lines.append(_HELD[alert.why])
    if matter.key == BEYOND and not matter.app:
        lines.append(f"The newest: {matter.message}")
    elif matter.kind in ("critical", "error", "lines"):
        lines.append(f"{_level(matter)} of {matter.source}" + (f" ({matter.app})" if matter.app else ""))
    elif matter.message:
        lines.append(matter.message)
    if matter.reason:
        lines.append(matter.reason)
    new = alert.lines
    if matter.kind == "gap" and matter.key in _OF_STREAM:
        lines.append(f"at {stamp(matter.last_us / 1e6)}")
    elif matter.kind == "gap":
        lines.append(f"{matter.count:,} lines are missing, since {stamp(matter.since_us / 1e6)}")
    elif matter.count == 1:
        lines.append(f"at {stamp(matter.since_us / 1e6)}")
    else:
        more = f", {new:,} of them since the last alert" if 0 < new < matter.count else ""
        lines.append(
            f"{matter.count:,} times since {stamp(matter.since_us / 1e6)}{more}, last at {stamp(matter.last_us / 1e6)}"
        )
    if matter.is_state and matter.back_at:
        lines.append(f"It is back since {stamp(matter.back_at)}.")
    return lines


def _link(matter: Matter, page: str) -> list[str]:
    return [f"{page}/#{matter.id}"] if page and is_id(matter.id) else []


_OF_STREAM = ("\nstream",)
"""Keys of gaps whose lines nobody has counted yet: it is known which messages of the stream are missing."""


def _times(matter: Matter) -> str:
    return f"{matter.count:,} x" if matter.count > 1 else "-"


def _title(matter: Matter) -> str:
    app = matter.app
    if matter.key == BEYOND and not app:
        return f"{matter.count:,} more things in the log, of too many kinds to tell them apart"
    match matter.kind:
        case "crashed":
            return f"{app or 'a bot'} crashed"
        case "gone":
            return f"{app or 'a bot'} is gone"
        case "quiet":
            return f"{app or 'a bot'} says nothing"
        case "gap" if matter.key in _OF_STREAM:
            return "logrelay: lines of other machines are missing"
        case "gap":
            return f"{matter.count:,} lines of {app} are missing" if app else f"{matter.count:,} lines are missing"
        case "journal":
            return "logrelay: the journal is in trouble"
        case "disk":
            return "logrelay: the disk is nearly full"
        case "edge" if matter.key.startswith("\n"):
            return "logrelay: the lines of other machines do not come"
        case "edge":
            return f"logrelay: {matter.key or 'a machine'} cannot be reached"
    what = matter.message or _level(matter)
    return f"{app}: {what}" if app else what


def _back_title(matter: Matter) -> str:
    match matter.kind:
        case "crashed" | "gone":
            return f"{matter.app or 'a bot'} is back"
        case "quiet":
            return f"{matter.app or 'a bot'} speaks again"
        case "journal":
            return "logrelay: the journal works again"
        case "disk":
            return "logrelay: the disk has room again"
        case "edge" if matter.key.startswith("\n"):
            return "logrelay: the lines of other machines come again"
        case "edge":
            return f"logrelay: {matter.key or 'a machine'} is reached again"
    return f"over: {_title(matter)}"


def _severity(matter: Matter) -> str:
    return "warning" if matter.kind in ("quiet", "gap", "disk", "lines") else "failure"


def _level(matter: Matter) -> str:
    return "CRITICAL" if matter.rank >= CRITICAL else {40: "ERROR", 30: "WARNING", 20: "INFO"}.get(matter.rank, "DEBUG")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
