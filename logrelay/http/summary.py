"""The answer to GET /summary.

Owns: how parts of a summary are gathered, which lines have to be read to show it, and the JSON it becomes
(docs/protocol.md). It must not know HTTP or the journal. No I/O, no clock.
Read `static/client.js` next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from logrelay.fanout.line_json import rfc3339
from logrelay.fanout.summary import AppCount, Event, Group, Seen, Summary
from logrelay.http.log_query import SummaryQuery
from logrelay.journal.interface import Query, SummaryPage
from logrelay.model import CRITICAL, RANKS, SHOWN

SHOWN_APPS = 200
SHOWN_PROBLEMS = 100
SHOWN_NOTICES = 100
"""Entries of each list: more than a person looks at; the whole stays some 100 kB at most. The rest is counted."""
UP = ("connected", "quiet")
"""States of a run that has a connection, or is waited for after a start of the relay."""


async def gather(query: Query, summarize: Callable[[Query], Awaitable[SummaryPage]]) -> Summary:
    """Ask for one part after another and add them up. Raises what `summarize` raises."""
    whole = Summary()
    while query.after < query.until:
        page = await summarize(query)
        whole.add(page.summary)
        if page.complete:
            break
        assert page.reached > query.after, "a part that got nowhere would be asked for again for ever"
        query = replace(query, after=page.reached)
    return whole


def seqs_shown(summary: Summary) -> list[int]:
    """Return the seqs of the lines that `shape` wants to show something of."""
    found: set[int] = set()
    for _, counts in _apps(summary, [])[:SHOWN_APPS]:
        found.update(seen.seq for seen in (counts.first, counts.last) if seen is not None)
    for groups in _problems(summary)[:SHOWN_PROBLEMS]:
        found.update((_first(groups).seq, _last(groups).seq, groups[0].last.seq))
    found.update(event.seq for event in (*summary.crashes[-SHOWN_NOTICES:], *summary.gaps[-SHOWN_NOTICES:]))
    return sorted(found)


def shape(
    summary: Summary,
    wanted: SummaryQuery,
    bodies: Mapping[int, bytes],
    *,
    traders: Sequence[Mapping[str, object]],
    head: int,
    oldest: int,
    id_of: Callable[[int], str],
    now_us: int,
) -> dict[str, object]:
    """Return the answer, JSON-safe.

    `bodies` are the lines of `seqs_shown`, as far as they are still there; `traders` is what `connection` says of them,
    the most recently seen first; `head` and `oldest` are seqs, `now_us` microseconds since 1970.
    """
    lines = {seq: orjson.loads(body) for seq, body in bodies.items()}
    app_passes = wanted.query.filter.app_passes
    shown = [trader for trader in traders if app_passes(str(trader.get("app", "")))]
    states, marks = states_of(shown), _marks(shown)
    apps, problems = _apps(summary, states), _problems(summary)
    total: dict[int, int] = {}
    for counts in summary.apps.values():
        for rank, count in counts.levels.items():
            total[rank] = total.get(rank, 0) + count

    def point(seen: Seen | None) -> dict[str, object] | None:
        if seen is None:
            return None
        line = lines.get(seen.seq)
        if line is None:  # gone meanwhile, or damaged
            return {"id": id_of(seen.seq), "timestamp": rfc3339(seen.time_us)}
        return {"id": line["id"], "timestamp": line["timestamp"]}

    def newest(seen: Seen | None) -> dict[str, object] | None:
        shown, line = point(seen), None if seen is None else lines.get(seen.seq)
        if shown is not None:
            shown |= {"level": line["level"], "message": line["message"]} if line else {"level": None, "message": None}
        return shown

    def event(notice: Event) -> dict[str, object]:
        return {**(point(Seen(notice.seq, 0)) or {}), "app": notice.app}

    def context(notice: Event) -> Mapping[str, Any]:
        found: Mapping[str, Any] = lines.get(notice.seq, {}).get("context", {})
        return found

    return {
        "type": "summary",
        "head": id_of(head) if head else None,
        "oldest": id_of(oldest) if head else None,
        "since": None if wanted.query.since_us is None else rfc3339(wanted.query.since_us),
        "after": wanted.after,
        "until": rfc3339(now_us),
        "lines": _levels(total),
        "apps": [
            {
                "app": name,
                "state": states.get(name),
                **marks.get(name, {}),
                "lines": _levels(counts.levels),
                "first": point(counts.first),
                "last": newest(counts.last),
                "crashes": counts.crashes,
                "gaps": counts.gaps,
                "lost": counts.lost,
            }
            for name, counts in apps[:SHOWN_APPS]
        ],
        "problems": [
            {
                "group": groups[0].problem.group,
                **_level(groups[0].rank),
                "app": groups[0].problem.app,
                "source": groups[0].problem.source,
                "message": groups[0].problem.message,
                "exception": groups[0].problem.exception,
                "count": sum(group.count for group in groups),
                "first": point(_first(groups)),
                "last": point(_last(groups)),
            }
            for groups in problems[:SHOWN_PROBLEMS]
        ],
        "crashes": [
            {
                **event(notice),
                "run": context(notice).get("run"),
                "message": lines.get(notice.seq, {}).get("message"),
            }
            for notice in summary.crashes[: -SHOWN_NOTICES - 1 : -1]
        ],
        "gaps": [
            {
                **event(notice),
                "cause": context(notice).get("cause") or context(notice).get("state"),
                "count": notice.number,
            }
            for notice in summary.gaps[: -SHOWN_NOTICES - 1 : -1]
        ],
        "more_apps": max(0, len(apps) - SHOWN_APPS),
        "more_problems": max(0, len(problems) - SHOWN_PROBLEMS) + summary.more_groups,
        "more_crashes": max(0, len(summary.crashes) - SHOWN_NOTICES) + summary.more_crashes,
        "more_gaps": max(0, len(summary.gaps) - SHOWN_NOTICES) + summary.more_gaps,
    }


def states_of(traders: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Return the state of each app: that of a run with a connection, else of the one that was seen last.

    `traders` are described as in `connection`, the most recently seen first.
    """
    states: dict[str, object] = {}
    for trader in traders:
        app, state = str(trader.get("app", "")), trader.get("state")
        if app not in states or (states[app] not in UP and state in UP):
            states[app] = state
    return states


def _marks(traders: Iterable[Mapping[str, object]]) -> dict[str, dict[str, bool]]:
    """Return what more is to be said of the state of each app, where no run of it is connected."""
    marks: dict[str, dict[str, bool]] = {}
    by_app: dict[str, list[Mapping[str, object]]] = {}
    for trader in traders:
        by_app.setdefault(str(trader.get("app", "")), []).append(trader)
    for app, runs in by_app.items():
        up = [run for run in runs if run.get("state") in UP]
        if up and all(run.get("awaited") for run in up):
            marks[app] = {"awaited": True}
        elif not up and all(run.get("brief") for run in runs):
            marks[app] = {"brief": True}
    return marks


def _apps(summary: Summary, known: Iterable[str]) -> list[tuple[str, AppCount]]:
    """Return the apps, the one that spoke last first."""
    apps = {**{name: AppCount() for name in known}, **summary.apps}
    return sorted(apps.items(), key=lambda item: (-(item[1].last.seq if item[1].last else 0), item[0]))


def _problems(summary: Summary) -> list[list[Group]]:
    """Return the groups, each with its levels from the highest down; the most severe first, then the newest."""
    groups: dict[str, list[Group]] = {}
    for (name, _), group in summary.groups.items():
        groups.setdefault(name, []).append(group)
    for levels in groups.values():
        levels.sort(key=lambda group: -group.rank)
    return sorted(groups.values(), key=lambda levels: (-levels[0].rank, -_last(levels).seq))


def _first(groups: Sequence[Group]) -> Seen:
    return min(group.first for group in groups)


def _last(groups: Sequence[Group]) -> Seen:
    return max(group.last for group in groups)


def _levels(counts: Mapping[int, int]) -> dict[str, int]:
    return {name.upper(): counts.get(rank, 0) for name, rank in RANKS.items()}


def _level(rank: int) -> dict[str, str]:
    return {"level": SHOWN[rank], "severity": "CRITICAL"} if rank == CRITICAL else {"level": SHOWN[rank]}
