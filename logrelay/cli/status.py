"""`logrelay status`: how the bots and the relay are.

Owns: the command, and which findings are problems. What happened is counted by the relay (`/summary`), how it is told
by /healthz. It must not count anything itself. Read `cli/purge` next.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from logrelay.cli.line_options import reading, source_options
from logrelay.errors import JournalError, NeedsLookError, NoRelayError
from logrelay.visible_text import visible

if TYPE_CHECKING:
    from logrelay.terminal.answer import Answer
    from logrelay.terminal.finding import Source

DEFAULT_SINCE = "1d"
"""A night and a day: what the owner has not seen yet."""

BACK_WITHIN_S = 3.0
"""How long bots that the relay waits for, as it was just restarted, get to come back: most do within a second."""

ASK_AGAIN_S = 0.25
"""The pause between two questions while they are waited for."""

SHOWN_CHARS = 200
"""Characters of a message that are shown: two or three rows of a terminal."""

SHOWN_PROBLEMS = 10
"""Groups of problems listed in the text; --json lists all that the relay gives."""

BAD_STATES = ("crashed", "lost", "gone")
"""States of a bot that somebody has to look at; `closed` said goodbye."""

LINKS = {
    "collect": "lines of other machines are not collected: no connection to the NATS servers",
    "forward": "lines are not forwarded: no connection to the NATS servers",
}
"""What it means that one of these of /healthz is not connected."""

LINK_REMEDY = "start the server, or let logrelay check ask it with the relay's settings; no line is lost meanwhile"

NEW_LINK_S = 10.0
"""A connection that is younger away than that is waited for: a relay or a server may just have been restarted."""

PROBLEM_LEVELS = ("ERROR", "CRITICAL")
COUNTED_LEVELS = ("CRITICAL", "ERROR", "WARNING")

SERVICE_UNAVAILABLE = 503
"""What /healthz answers with while the journal is in trouble; it tells the same facts."""


@click.command()
@click.option("--since", default=DEFAULT_SINCE, show_default=True, metavar="TIME", help="Count problems from then on.")
@click.option("--app", "apps", multiple=True, metavar="GLOB", help="Bots; repeatable, any of them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@source_options
def status(as_json: bool, **given: Any) -> None:
    """Show each bot with its state and its last line, the problems since a time, and how the relay is.

    Exit codes: 0 all is well, 7 something needs a look (a bot crashed, was lost or is gone; a machine of a hub, or a
    NATS server, cannot be reached; a crash, a gap, or a line at ERROR or CRITICAL since then), 4 the relay has trouble
    with its journal, 5 no relay runs or it lets nobody in (the journal is shown where it can be read), 2 the command
    line is wrong.
    """
    from logrelay.terminal.output import Output  # noqa: PLC0415

    with reading(given) as asked:
        source, query = asked.found.source, asked.selection.query()
        health, summary = _ask(source, query)
        verdict = _verdict(summary, health, runs=source.follows, name=source.name)
        output = Output()
        if as_json:
            found = {"verdict": verdict[0], "source": source.name, "health": health, "summary": summary}
            output.write_text(json.dumps(found, indent=2))
        else:
            for text in _texts(summary, health, source.name, runs=source.follows, now=datetime.now(UTC)):
                output.write_text(text)
        output.flush()
    match verdict[0]:
        case "no relay":
            raise NoRelayError(verdict[1])
        case "trouble":
            raise JournalError(verdict[1])
        case "look":
            raise NeedsLookError(verdict[1])


def _object(answer: Answer, *, healthy_only: bool = True) -> dict[str, Any]:
    """Return the one object of an answer. Raises RelayError."""
    if healthy_only or answer.status != SERVICE_UNAVAILABLE:
        answer.check()
    return json.loads(b"".join(answer.chunks)) or {}


def _ask(source: Source, query: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return /healthz and /summary, the latter once the bots are back that a restarted relay waits for, or in vain."""
    give_up = time.monotonic() + BACK_WITHIN_S
    while True:
        health = _object(source.get("/healthz"), healthy_only=False)
        summary = _object(source.get(f"/summary?{query}"))
        awaited = any(map(_is_awaited, summary["apps"])) or _is_link_awaited(health, datetime.now(UTC))
        if not source.follows or not awaited or time.monotonic() >= give_up:
            return health, summary
        time.sleep(ASK_AGAIN_S)


def _links_down(health: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give the connections to NATS servers that are away, with what that means."""
    for key, meaning in LINKS.items():
        link = health.get(key)
        if link and not link.get("connected"):
            yield meaning, link


def _is_link_awaited(health: Mapping[str, Any], now: datetime) -> bool:
    return any(
        link.get("since") and (now - datetime.fromisoformat(link["since"])).total_seconds() < NEW_LINK_S
        for _, link in _links_down(health)
    )


def _link_text(meaning: str, link: Mapping[str, Any]) -> str:
    """Say that a connection is away, since when, and why."""
    since = f" since {link['since']}" if link.get("since") else ""
    return f"{meaning}{since}" + (f" ({visible(_cut(link['reason']))})" if link.get("reason") else "")


def _is_awaited(app: Mapping[str, Any]) -> bool:
    return bool(app.get("awaited"))


def _state(app: Mapping[str, Any], *, runs: bool) -> str:
    if not runs and app["state"] == "connected":
        return "not known"  # it was, when the journal was written last
    return "not back" if _is_awaited(app) else app["state"] or "unknown"


def _verdict(summary: Mapping[str, Any], health: Mapping[str, Any], *, runs: bool, name: str) -> tuple[str, str]:
    """Return what there is to be said in the end, as a word and in words."""
    if not runs:
        return "no relay", f"no relay was asked: this is what {name} says"
    if health.get("status") != "ok":
        return "trouble", str(health.get("reason", "the relay is in trouble"))
    down = [f"{_link_text(*link)}; {LINK_REMEDY}" for link in _links_down(health)]
    bad = [
        f"{visible(str(app['app']))} {'not back since the relay was restarted' if _is_awaited(app) else app['state']}"
        for app in summary["apps"]
        if app["state"] in BAD_STATES or _is_awaited(app)
    ]
    bad += [
        f"machine {visible(str(edge['edge']))} cannot be reached"
        for edge in health.get("edges") or ()
        if edge.get("state") == "unreachable"
    ]
    counts = (
        ("crash", "crashes", len(summary["crashes"]) + summary["more_crashes"]),
        ("gap", "gaps", len(summary["gaps"]) + summary["more_gaps"]),
        ("line at ERROR or above", "lines at ERROR or above", sum(summary["lines"][name] for name in PROBLEM_LEVELS)),
    )
    found = [*down, *bad, *(f"{count:,} {one if count == 1 else many}" for one, many, count in counts if count)]
    return ("look", "; ".join(found)) if found else ("well", "all is well")


def _texts(
    summary: Mapping[str, Any], health: Mapping[str, Any], name: str, *, runs: bool, now: datetime
) -> Iterator[str]:
    """Give what a person reads, row by row."""
    journal = health.get("journal") or {}
    how = str(health.get("reason") or health.get("status")) if runs else "no relay was asked"
    down = [_link_text(*link) for link in _links_down(health)] if runs else []
    facts = down if down and health.get("status") == "ok" else [how, *down]
    if runs and "uptime" in health:
        facts += [f"version {health['version']}", f"up {_duration(health['uptime'])}", f"{health['viewers']} viewers"]
    if journal.get("bytes") is not None:
        facts.append(f"{journal['bytes'] / (1 << 20):.1f} MiB of journal")
    if journal.get("damaged_lines"):
        facts.append(f"{journal['damaged_lines']:,} lines of it damaged")
    yield f"{name}: {', '.join(facts)}"
    if not summary["apps"]:
        yield "no bot is known"
    width = max((len(visible(str(app["app"]))) for app in summary["apps"]), default=0)
    for app in summary["apps"]:
        last, lines = app["last"], app["lines"]
        said = "nothing since then"
        if last:
            said = f"{_ago(last['timestamp'], now)}  {last['level']} {_cut(last['message'])}"
        counts = ", ".join(f"{lines[level]:,} {level}" for level in COUNTED_LEVELS if lines[level])
        yield f"  {visible(str(app['app'])):<{width}}  {_state(app, runs=runs):<9}  " + visible(
            said + (f"  ({counts})" if counts else "")
        )
    problems = summary["problems"]
    if problems:
        yield f"problems since {summary['since']}:"
    for one in problems[:SHOWN_PROBLEMS]:
        level = one.get("severity") or one["level"]
        text = _cut(f"{one['message']}" + (f": {one['exception']}" if one["exception"] else ""))
        where = f"{one['source']}, newest {_ago(one['last']['timestamp'], now)}, {one['last']['id']}"
        yield visible(f"  {one['count']:>6,} x {level:<8} {text}  ({where})")
    more = len(problems) - SHOWN_PROBLEMS + summary["more_problems"]
    if more > 0:
        yield f"  and {more:,} more; --json lists them, logrelay search --level warning shows the lines"


def _cut(text: object) -> str:
    """Return a text as far as a person reads it in a row; --json has all of it."""
    whole = str(text)
    return whole if len(whole) <= SHOWN_CHARS else whole[: SHOWN_CHARS - 1] + "\u2026"


def _ago(timestamp: str, now: datetime) -> str:
    seconds = (now - datetime.fromisoformat(timestamp)).total_seconds()
    return f"{_duration(max(0.0, seconds))} ago"


def _duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    parts: list[str] = []
    left = int(seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
        if len(parts) == 2:
            break
    return " ".join(parts)
