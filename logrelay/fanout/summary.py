"""What happened in a stretch of lines: counted by level and app, problems grouped, crashes and gaps.

Owns: `Summary`, which lines and notices are added to and which can be added up. It must not know where lines are kept
or how a summary is shown (`http/summary`). Pure. Read `journal/tallies` next: it
counts a journal.

Everything in it is bounded: of problems, crashes and gaps beyond the bounds only their number stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from logrelay.fanout.filters import Filter
from logrelay.fanout.problem_groups import Problem, problem_of
from logrelay.model import CRITICAL, ERROR, RANKS, RELAY_SOURCE, WARNING

MAX_APPS = 1000
"""Bots that are counted apart; whoever has more of them makes names up."""
MAX_PROBLEMS = 1000
"""Groups of problems that are counted apart: a program has some dozens, one that writes random texts must not fill the
memory. Beyond it a line counts in its level alone, and `more_problems` says that there were some."""
MAX_NOTICES = 1000
"""Crashes, and gaps, that are kept, the newest; the others are counted."""


LOST_BETWEEN = ("stream", "forward_lost", "collect_lost")
"""States of the relay's notices that are gaps by another name: lines lost, or not coming, between machines."""


class Seen(NamedTuple):
    """A line, by its number, and what the clock said then, in microseconds."""

    seq: int
    time_us: int


@dataclass(slots=True)
class AppCount:
    """What one bot said."""

    levels: dict[int, int] = field(default_factory=dict)
    """Lines by level rank."""
    first: Seen | None = None
    last: Seen | None = None
    crashes: int = 0
    gaps: int = 0
    lost: int = 0
    """Lines that are missing in its gaps."""

    def add(self, levels: Mapping[int, int], first: Seen | None, last: Seen | None) -> None:
        """Count lines."""
        for rank, count in levels.items():
            self.levels[rank] = self.levels.get(rank, 0) + count
        if first is not None and (self.first is None or first < self.first):
            self.first = first
        if last is not None and (self.last is None or last > self.last):
            self.last = last

    def add_event(self, event: Event) -> None:
        """Count a crash or a gap."""
        if event.gaps:
            self.gaps += event.gaps
            self.lost += event.number
        else:
            self.crashes += event.number

    def add_counts(self, other: AppCount) -> None:
        """Count what was counted elsewhere."""
        self.add(other.levels, other.first, other.last)
        self.crashes += other.crashes
        self.gaps += other.gaps
        self.lost += other.lost


@dataclass(slots=True)
class Group:
    """The lines of one level that tell of the same problem."""

    problem: Problem
    """As the newest of them says it."""
    rank: int
    count: int
    first: Seen
    last: Seen

    def add(self, other: Group) -> None:
        """Count more lines of the same group and level."""
        self.count += other.count
        self.first = min(self.first, other.first)
        if other.last >= self.last:
            self.last, self.problem = other.last, other.problem


class Event(NamedTuple):
    """A notice that tells of a crash or a gap."""

    seq: int
    app: str
    number: int
    """Crashes, or lines that are missing."""
    gaps: int
    """Gaps that it tells of; 0: it tells of a crash."""


@dataclass(slots=True)
class Summary:
    """Counts that can be added up. Not for several threads at once."""

    apps: dict[str, AppCount] = field(default_factory=dict)
    groups: dict[tuple[str, int], Group] = field(default_factory=dict)
    """By name of the group and level rank."""
    more_groups: int = 0
    """Lines of groups beyond the bound."""
    crashes: list[Event] = field(default_factory=list)
    """The newest, ascending by seq."""
    gaps: list[Event] = field(default_factory=list)
    more_crashes: int = 0
    more_gaps: int = 0

    def app(self, name: str) -> AppCount | None:
        """Return the counts of an app; None: there are too many."""
        found = self.apps.get(name)
        if found is None and len(self.apps) < MAX_APPS:
            found = self.apps[name] = AppCount()
        return found

    def count(self, app: str, levels: Mapping[int, int], first: Seen | None, last: Seen | None) -> None:
        """Count lines of an app."""
        counts = self.app(app)
        if counts is not None:
            counts.add(levels, first, last)

    def add_group(self, group: Group) -> None:
        """Count lines of a problem."""
        key = (group.problem.group, group.rank)
        known = self.groups.get(key)
        if known is not None:
            known.add(group)
        elif len(self.groups) < MAX_PROBLEMS:
            self.groups[key] = Group(group.problem, group.rank, group.count, group.first, group.last)
        else:
            self.more_groups += group.count

    def add_problem(
        self, seen: Seen, rank: int, app: str, source: str, message: str, context: Mapping[str, object]
    ) -> None:
        """Count a line at WARNING or above as a problem."""
        self.add_group(Group(problem_of(app, source, message, context), rank, 1, seen, seen))

    def add_notice(self, seen: Seen, rank: int, source: str, message: str, context: Mapping[str, object]) -> None:
        """Count a notice: as a crash, a gap, a problem, or not at all."""
        event = event_of(seen.seq, rank, context)
        if event is not None:
            self.add_event(event)
        elif rank >= WARNING:
            self.add_problem(seen, rank, _app(context), source, message, context)

    def add_event(self, event: Event) -> None:
        """Count a crash or a gap; they come ascending by seq."""
        counts = self.app(event.app) if event.app else None
        if counts is not None:
            counts.add_event(event)
        if event.gaps:
            self.more_gaps += event.gaps - 1 + _append(self.gaps, event)
        else:
            self.more_crashes += event.number - 1 + _append(self.crashes, event)

    def add(self, later: Summary) -> None:
        """Add the summary of a stretch behind this one."""
        for name, counts in later.apps.items():
            mine = self.app(name)
            if mine is not None:
                mine.add_counts(counts)
        for group in later.groups.values():
            self.add_group(group)
        self.more_groups += later.more_groups
        self.more_crashes += later.more_crashes + sum(_append(self.crashes, event) for event in later.crashes)
        self.more_gaps += later.more_gaps + sum(_append(self.gaps, event) for event in later.gaps)


def add_body(summary: Summary, wanted: Filter, seq: int, body: bytes, app: str = "") -> None:
    """Add a rendered line, or a notice, if it is to be counted; its time is not known then.

    `app` is that of a line which does not say its own.
    """
    shape = orjson.loads(body)
    context, source = shape["context"], shape.get("source", RELAY_SOURCE)
    rank = rank_of(shape["level"], context)
    seen = Seen(seq, 0)
    if "app" not in shape and source == RELAY_SOURCE:
        if notice_passes(wanted, context):
            summary.add_notice(seen, rank, source, shape["message"], context)
        return
    app = shape.get("app", app)
    summary.count(app, {rank: 1}, seen, seen)
    if rank >= WARNING:
        summary.add_problem(seen, rank, app, source, shape["message"], context)


def rank_of(level: str, context: Mapping[str, object]) -> int:
    """Return the level rank of a rendered line."""
    return CRITICAL if context.get("severity") == "CRITICAL" else RANKS[level.lower()]


def notice_passes(wanted: Filter, context: Mapping[str, object]) -> bool:
    """Tell whether a notice is counted: it may be seen, and concerns what was asked for."""
    app = _app(context)
    return wanted.limit.shows_notice(context) and (not app or wanted.app_passes(app))


def event_of(seq: int, rank: int, context: Mapping[str, object]) -> Event | None:
    """Return the crash or the gap that a notice tells of; None: neither."""
    count = context.get("count")
    number = count if isinstance(count, int) else 0
    if context.get("notice") == "gap" and rank >= WARNING:
        gaps = context.get("gaps")
        return Event(seq, _app(context), number, gaps if isinstance(gaps, int) and gaps > 0 else 1)
    if context.get("notice") == "relay" and context.get("state") in LOST_BETWEEN and rank >= WARNING:
        return Event(seq, _app(context), number, 1)
    # At INFO: what a crashed bot left behind has come, and its crash was told of before.
    if context.get("notice") == "trader" and context.get("state") == "crashed" and rank >= ERROR:
        return Event(seq, _app(context), max(1, number), 0)
    return None


def _app(context: Mapping[str, object]) -> str:
    app = context.get("app")
    if isinstance(app, str):
        return app
    apps = context.get("apps")
    return str(apps[0]) if isinstance(apps, list) and len(apps) == 1 else ""


def _append(events: list[Event], event: Event) -> int:
    """Keep an event as one of the newest; returns how many had to go for it."""
    events.append(event)
    if len(events) <= MAX_NOTICES:
        return 0
    del events[0]
    return 1
