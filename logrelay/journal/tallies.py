"""What happened in each span of lines, counted once behind the head, so that a summary reads counts and not lines.

Owns: the table `tallies`, one row for some thousand lines, which is filled behind the head in small steps, and how a
summary is put together of these rows and, at both ends, of lines. It must not know who asks, or threads. Read
`journal/connection_pool` next: on its connections questions are answered.

Whatever has no row, or one that fails its checksum, is counted line by line, whoever has written the lines; so an older
version may add and delete lines meanwhile. A row names apps and loggers, not their numbers, and how early and late its
lines are: a summary since a time takes the rows that lie behind it, and counts the lines of those that it cuts.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import orjson

from logrelay.fanout.problem_groups import Problem, problem_of
from logrelay.fanout.summary import Group, Seen, Summary, notice_passes, rank_of
from logrelay.journal.holes import first_gap
from logrelay.journal.interface import Query, SummaryPage
from logrelay.journal.query import bounds, by_time
from logrelay.journal.schema import NOTICE_SOURCE, OVERFLOW_SOURCE, SourceKey
from logrelay.model import RELAY_SOURCE, WARNING

TABLE = (
    "CREATE TABLE IF NOT EXISTS tallies (crc INTEGER NOT NULL, first INTEGER PRIMARY KEY, last INTEGER NOT NULL, "
    "counts BLOB NOT NULL)"
)
SPAN_LINES = 16_384
"""Lines in a span: 10 million lines have 610, and the lines of two of them are counted in some 20 ms."""
STEP_LINES = 1024
"""Lines counted in one step behind the head: about a millisecond, where few of them are problems."""
READ_LINES = 8192
"""Lines counted at a time where there is no row."""
PAGE_SECONDS = 0.05
"""One answer looks at spans and lines for about this long, then says how far it got."""
MOST_ROWS = 2000
"""Entries of one kind in a row. A span with more is counted line by line each time; no real program gets there."""
PAGES = 64
"""What a row takes in the file at most, usually one or two pages."""
_SEED = crc32(b"tallies 1")

_COUNT = (
    "SELECT source, CASE WHEN source IN ({}) THEN run ELSE 0 END AS of, level, count(*), min(time_us), max(time_us), "  # noqa: S608
    f"min(seq), max(seq) FROM lines NOT INDEXED WHERE seq BETWEEN :first AND :last AND source > {NOTICE_SOURCE} "
    "AND time_us >= :since GROUP BY source, of, level"
)
_PROBLEMS = (
    "SELECT seq, time_us, level, source, run, CAST(body AS BLOB) FROM lines INDEXED BY lines_warning "  # noqa: S608
    f"WHERE (level >= 30 OR source = {NOTICE_SOURCE}) AND seq BETWEEN :first AND :last AND level >= {WARNING} "
    "AND time_us >= :since ORDER BY seq"
)
_OVERFLOW = (
    "SELECT seq, time_us, level, CAST(body AS BLOB) FROM lines INDEXED BY lines_source "  # noqa: S608
    f"WHERE source = {OVERFLOW_SOURCE} AND seq BETWEEN :first AND :last AND time_us >= :since"
)
_EARLIEST = -(1 << 62)
_NOTICE_KEYS = ("notice", "state", "app", "apps", "count", "gaps")
"""What of a notice's context decides how it counts, and who may see it."""


@dataclass(slots=True)
class _Count:
    """Lines of one app, logger and level."""

    count: int
    min_us: int
    max_us: int
    first: int
    last: int

    def add(self, other: _Count) -> None:
        self.count += other.count
        self.min_us, self.max_us = min(self.min_us, other.min_us), max(self.max_us, other.max_us)
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)


@dataclass(slots=True)
class Tally:
    """Counts of a span, as they are stored."""

    counts: dict[tuple[str, str, int], _Count] = field(default_factory=dict)
    """By app, logger and level rank."""
    problems: dict[tuple[str, int], tuple[Problem, _Count]] = field(default_factory=dict)
    """By name of the group and level rank."""
    notices: list[tuple[int, int, int, str, dict[str, Any]]] = field(default_factory=list)
    """Seq, time, level rank, text and context of those at WARNING and above."""

    def add_lines(
        self,
        db: sqlite3.Connection,
        first: int,
        last: int,
        names: Mapping[int, SourceKey],
        apps: Callable[[], Mapping[int, str]],
        since_us: int = _EARLIEST,
    ) -> None:
        """Count some lines. `apps` gives the app of a run for loggers without one. Raises sqlite3.Error."""
        unnamed = [number for number, (_, app) in names.items() if app is None]
        values = {"first": first, "last": last, "since": since_us}
        of_run = apps() if unnamed else {}
        for number, run, level, count, *rest in db.execute(_COUNT.format(",".join(map(str, unnamed))), values):
            source, app = names.get(number, ("", ""))
            self._count(of_run.get(run, "") if app is None else app, source, level, _Count(count, *rest))
        for seq, time_us, level, body in db.execute(_OVERFLOW, values):
            shape = _shape(body)
            if shape:
                one = _Count(1, time_us, time_us, seq, seq)
                self._count(str(shape.get("app", "")), str(shape.get("source", "")), level, one)
        for seq, time_us, level, number, run, body in db.execute(_PROBLEMS, values):
            shape = _shape(body)
            if not shape:
                continue
            message, context = shape["message"], shape["context"]
            if number == NOTICE_SOURCE:
                kept = {key: context[key] for key in _NOTICE_KEYS if key in context}
                self.notices.append((seq, time_us, level, message, kept))
                continue
            app = str(shape.get("app", of_run.get(run, "")))
            problem = problem_of(app, str(shape.get("source", "")), message, context)
            self._problem(problem, rank_of(shape["level"], context), _Count(1, time_us, time_us, seq, seq))

    def _count(self, app: str, source: str, level: int, count: _Count) -> None:
        known = self.counts.setdefault((app, source, level), count)
        if known is not count:
            known.add(count)

    def _problem(self, problem: Problem, rank: int, count: _Count) -> None:
        known = self.problems.get((problem.group, rank))
        if known is not None:
            known[1].add(count)
            if known[1].last == count.last:
                self.problems[problem.group, rank] = (problem, known[1])
        else:
            self.problems[problem.group, rank] = (problem, count)

    @property
    def too_many(self) -> bool:
        """True when it should not be stored."""
        return max(len(self.counts), len(self.problems), len(self.notices)) > MOST_ROWS

    def stored(self) -> bytes:
        """Return it as `read` takes it."""
        shape = [
            [[*key, c.count, c.min_us, c.max_us, c.first, c.last] for key, c in self.counts.items()],
            [[*p, rank, c.count, c.min_us, c.max_us, c.first, c.last] for (_, rank), (p, c) in self.problems.items()],
            self.notices,
        ]
        return orjson.dumps(None if self.too_many else shape)

    @classmethod
    def read(cls, stored: bytes) -> Tally | None:
        """Return what was stored; None: there was too much. Raises ValueError, TypeError."""
        shape = orjson.loads(stored)
        if shape is None:
            return None
        tally = cls(notices=[(seq, us, rank, message, context) for seq, us, rank, message, context in shape[2]])
        for app, source, level, *numbers in shape[0]:
            tally.counts[app, source, level] = _Count(*numbers)
        for app, source, message, exception, rank, *numbers in shape[1]:
            problem = Problem(app, source, message, exception)
            tally.problems[problem.group, rank] = (problem, _Count(*numbers))
        return tally

    def add_to(self, summary: Summary, query: Query) -> bool:
        """Add what passes; False, and nothing is added, where only the lines can tell which of them are late enough."""
        since, wanted = _EARLIEST if query.since_us is None else query.since_us, query.filter
        counts = [
            (key, c) for key, c in self.counts.items() if c.max_us >= since and wanted.wants(key[2], key[1], key[0])
        ]
        problems = [
            (rank, problem, c)
            for (_, rank), (problem, c) in self.problems.items()
            if c.max_us >= since and wanted.wants(rank, problem.source, problem.app)
        ]
        if any(c.min_us < since for _, c in counts) or any(c.min_us < since for _, _, c in problems):
            return False
        for (app, _, level), c in counts:
            summary.count(app, {level: c.count}, Seen(c.first, c.min_us), Seen(c.last, c.max_us))
        for rank, problem, c in problems:
            summary.add_group(Group(problem, rank, c.count, Seen(c.first, c.min_us), Seen(c.last, c.max_us)))
        for seq, time_us, rank, message, context in self.notices:
            if time_us >= since and notice_passes(wanted, context):
                summary.add_notice(Seen(seq, time_us), rank, RELAY_SOURCE, message, context)
        return True


def _shape(body: bytes) -> dict[str, Any]:
    """Return what a body says; empty: it is damaged, and shown to nobody."""
    try:
        shape = orjson.loads(body)
        return shape if isinstance(shape["message"], str) and isinstance(shape["context"], dict) else {}
    except (ValueError, KeyError, TypeError):
        return {}


class Tallies:
    """The counted spans of one journal. Steps belong to the thread that writes, `page` to any."""

    def __init__(
        self, names: Callable[[], Mapping[SourceKey, int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`names` gives the ids of the sources at the moment; `clock` counts seconds."""
        self._names, self._clock = names, clock
        self.damaged = False
        """A reader has found a row that fails its checksum."""
        self._ranges: list[tuple[int, int]] = []
        self._begin()

    def _begin(self) -> None:
        self._tally = Tally()
        self._first = self._next = self._end = 0

    # --- the thread that writes -----------------------------------------------------------------------------------

    def load(self, db: sqlite3.Connection) -> None:
        """Make the table where it is missing, and take over what it holds. Raises sqlite3.Error."""
        self._begin()
        db.execute(TABLE)
        self._ranges = db.execute("SELECT first, last FROM tallies ORDER BY first").fetchall()
        self.damaged = False

    def due(self, oldest: int, head: int) -> bool:
        """Tell whether `step` has something to do."""
        if self.damaged or (self._ranges and self._ranges[0][1] < oldest):
            return True
        first, end = (self._next, self._end) if self._first and self._first >= oldest else self._gap(oldest)
        return min(head, end) - first + 1 >= min(STEP_LINES, end - first + 1)

    def _gap(self, oldest: int) -> tuple[int, int]:
        first, last = first_gap(self._ranges, oldest)
        return first, min(last, first + SPAN_LINES - 1)

    def step(self, db: sqlite3.Connection, oldest: int, head: int) -> int:
        """Do a little of what there is to do; returns the pages that were written at most. Raises sqlite3.Error."""
        if self.damaged:
            self.forget(db)
            return PAGES
        if self._ranges and self._ranges[0][1] < oldest:
            self.forget(db, self._ranges[0][0], self._ranges[0][1])
            return PAGES
        if not self._first or self._first < oldest:
            self._begin()
            self._first, self._end = self._gap(oldest)
            self._next = self._first
        upto = min(head, self._end, self._next + STEP_LINES - 1)
        if not self._tally.too_many:  # what is not stored need not grow to the end of the span
            self._tally.add_lines(db, self._next, upto, self._numbers(), lambda: _apps(db))
        self._next = upto + 1
        if self._next <= self._end:
            return 0
        row = (self._first, self._end, self._tally.stored())
        db.execute("REPLACE INTO tallies (crc, first, last, counts) VALUES (?, ?, ?, ?)", (_crc(*row), *row))
        self._ranges = sorted([*self._ranges, (self._first, self._end)])
        self._begin()
        return PAGES

    @property
    def will_write(self) -> bool:
        """True when the next step needs room in the file."""
        return bool(self._first) and self._next + STEP_LINES > self._end

    def forget(self, db: sqlite3.Connection, first: int = 0, last: int = 1 << 62) -> None:
        """Forget what was counted of a stretch of lines; it is counted anew. Raises sqlite3.Error."""
        self._begin()
        db.execute("DELETE FROM tallies WHERE last >= ? AND first <= ?", (first, last))
        self._ranges = [pair for pair in self._ranges if pair[1] < first or pair[0] > last]
        self.damaged = False

    def _numbers(self) -> dict[int, SourceKey]:
        return {number: key for key, number in self._names().items()}

    # --- any thread -------------------------------------------------------------------------------------------------

    def page(self, db: sqlite3.Connection, query: Query) -> SummaryPage:
        """Answer a question in one read transaction, or the beginning of it. Raises sqlite3.Error."""
        db.execute("BEGIN")
        try:
            oldest, head = bounds(db)
            low, high = max(query.after, oldest - 1), min(query.until, head)
            if query.since_us is not None:
                low, high = by_time(db, query, low, high)
            page, began = SummaryPage(Summary(), max(query.after, high), complete=True), self._clock()
            for first, last, stored in self._spans(db, low, high):
                self._add(db, page.summary, query, first, last, stored)
                if self._clock() - began > PAGE_SECONDS and last < high:
                    return SummaryPage(page.summary, last, complete=False)
            return page
        finally:
            if db.in_transaction:
                db.execute("COMMIT")

    def _spans(self, db: sqlite3.Connection, low: int, high: int) -> Iterator[tuple[int, int, bytes | None]]:
        """Cut `low < seq <= high` into spans that have a row, and stretches that have none."""
        at = low + 1
        sql = "SELECT first, last, counts, crc FROM tallies WHERE first > ? AND last <= ? ORDER BY first"
        rows: Iterable[tuple[Any, ...]] = ()
        with suppress(sqlite3.OperationalError):  # an older file that nobody writes has no such table
            rows = db.execute(sql, (low, high))
        for first, last, counts, crc in rows:
            yield from ((start, min(start + READ_LINES, first) - 1, None) for start in range(at, first, READ_LINES))
            if isinstance(counts, bytes) and crc == _crc(first, last, counts):
                yield first, last, counts
            else:
                self.damaged = True
                yield first, last, None
            at = last + 1
        yield from ((start, min(start + READ_LINES - 1, high), None) for start in range(at, high + 1, READ_LINES))

    def _add(
        self, db: sqlite3.Connection, summary: Summary, query: Query, first: int, last: int, stored: bytes | None
    ) -> None:
        if stored is not None:
            tally = Tally.read(stored)
            if tally is not None and tally.add_to(summary, query):
                return
        tally = Tally()
        since = _EARLIEST if query.since_us is None else query.since_us
        tally.add_lines(db, first, last, self._numbers(), lambda: _apps(db), since)
        tally.add_to(summary, query)


def _apps(db: sqlite3.Connection) -> dict[int, str]:
    return dict(db.execute("SELECT id, app FROM runs"))


def _crc(first: int, last: int, counts: bytes) -> int:
    return crc32(counts, crc32(b"%d %d" % (first, last), _SEED))
