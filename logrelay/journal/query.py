"""Reading lines: walks a stretch of the journal in bounded steps.

Owns: the walk, its bounds in lines, bytes and time, and counting by level. It must not open files or write, nor know
how a filter becomes SQL. Every body that is read is held to its checksum. Read `journal/filter_sql` next: it makes
SQL of a filter.

Why a page is one value: Python's sqlite3 lets go of the GIL around every sqlite3_step, so reading a thousand
rows means asking for the GIL back a thousand times, against the event loop. Here SQLite concatenates the bodies of
a page (they hold no raw newline), so that a page is one step.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import orjson

from logrelay.fanout.line_json import read_body
from logrelay.journal.checksums import BODY_CRC_SQL, UNCHECKED, damaged
from logrelay.journal.filter_sql import Plan, make_plan, needs_runs
from logrelay.journal.grams import needles_of, places_of
from logrelay.journal.holes import Holes
from logrelay.journal.interface import Page, Query
from logrelay.journal.schema import NOTICE_SOURCE, SourceKey
from logrelay.journal.text_index import Stretch, TextIndex
from logrelay.model import RELAY_SOURCE, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PAGE_SECONDS = 0.05
"""One page() call looks at lines for about this long, then says how far it got."""
STEP_SECONDS = 0.01
"""What one SQL step aims at, so that the call ends near PAGE_SECONDS."""
FIRST_VISITS, FEWEST_VISITS, MOST_VISITS = 8192, 512, 1 << 20
"""Lines looked at in one step: where it begins, and what it is adapted between (1 to 10 million are looked at
in a second, depending on the filter)."""
STEP_BYTES = 1 << 20
"""Body bytes one step aims at; with READ_LIMIT it keeps the memory of a reader small."""
READ_LIMIT = 4 << 20
"""Hard limit for what one step may glue together, kept by SQLite: it answers TOOBIG and the step is halved.
Above any single body (a frame is 64 KiB, and JSON at most six times as long)."""
_BAD_JSON = "malformed JSON"
"""What SQLite's JSON functions say about a body that is none."""
_FIRST_MEAN = 512
"""Body bytes expected before any have been seen."""

_NOTICES = f"group_concat(CASE WHEN source = {NOTICE_SOURCE} THEN '[' || seq || ',' || level || ']' END)"
"""Which of the rows are notices, each with its level."""

_READ = (
    "SELECT CAST(group_concat(body, char(10)) AS BLOB), group_concat(seq), "  # noqa: S608  (only our own columns)
    f"group_concat(coalesce({BODY_CRC_SQL}, {UNCHECKED})), {_NOTICES} FROM ({{}})"
)
_COLUMNS = "seq, body, time_us, level, source, run, crc"


class Reader:
    """Reads pages from connections it is given. Holds no connection; any thread may use it."""

    def __init__(
        self,
        names: Callable[[], Mapping[SourceKey, int]],
        clock: Callable[[], float] = time.monotonic,
        *,
        holes: Holes | None = None,
        index: TextIndex | None = None,
    ) -> None:
        """`names` gives the ids of the sources at the moment; `clock` counts seconds and bounds a page.

        A line that fails its checksum is added to `holes`; what is in them is never given, a notice takes its place.
        """
        self._names, self._clock, self._index = names, clock, index
        self._holes = holes if holes is not None else Holes(lambda _seq: "", lambda: 0)
        self._mean = _FIRST_MEAN

    def page(self, db: sqlite3.Connection, query: Query) -> Page:
        """Answer a query in one read transaction. Raises sqlite3.Error."""
        db.execute("BEGIN")
        try:
            return self._page(db, query)
        finally:
            _end_reading(db)

    def _page(self, db: sqlite3.Connection, query: Query) -> Page:
        oldest, head = bounds(db)
        low, high = max(query.after, oldest - 1), min(query.until, head)
        if query.since_us is not None or query.until_us is not None:
            low, high = by_time(db, query, low, high)
        floor = query.after if query.newest else max(query.after, min(query.until, head))
        page = Page([], [], floor, complete=True, oldest=oldest)
        if low >= high:
            return page
        if query.limit > 0:
            # The names are asked for after the transaction has begun: they know every source it can see.
            names = self._names()
            apps = dict(db.execute("SELECT id, app FROM runs")) if needs_runs(query.filter, names) else None
            make, stretches = partial(make_plan, names=names, apps_of_runs=apps), self._stretches(db, query, low, high)
            walk = _Walk(db, query, make, low, high, self._holes, stretches)
            beside = self._take(walk, page)
            if not walk.done:
                page.complete = False
                page.reached = walk.low if not query.newest else walk.high
            self._tell_holes(page, query, beside, *((low, walk.low) if not query.newest else (walk.high, high)))
            page.beside = len(beside.intersection(page.seqs))
        else:
            page.complete, page.reached = False, high if query.newest else low
        if query.newest:
            page.bodies.reverse()
            page.seqs.reverse()
        return page

    def _stretches(self, db: sqlite3.Connection, query: Query, low: int, high: int) -> Iterator[Stretch] | None:
        """Return which stretches can hold what is searched for; None: any."""
        if self._index is None or not self._index.usable or not query.filter.by_content:
            return None
        places = places_of(needles_of(query.filter))
        return self._index.stretches(db, places, low, high, newest=query.newest) if places else None

    def _tell_holes(self, page: Page, query: Query, beside: set[int], after: int, until: int) -> None:
        """Put a notice into the place of what is missing in the stretch that was walked; still in walking order.

        The notices count as little as others, but `query.limit` bounds their number as well.
        """
        holes = self._holes.within(after, until)
        if not holes:
            return
        found = [(seq, seq, body) for seq, body in zip(page.seqs, page.bodies, strict=True)]
        # A line may have been read before another reader found that the file lies about it.
        found = [(first, seq, body) for first, seq, body in found if not self._holes.within(seq - 1, seq)]
        found += [(first, last, self._holes.notice((first, last))) for first, last in holes]
        found.sort(reverse=query.newest)
        beside.update(last for _, last in holes)
        places = [place for place, (first, last, _) in enumerate(found) if (first, last) in set(holes)]
        if len(places) > query.limit:
            del found[places[query.limit - 1] + 1 :]
            page.complete, page.reached = False, found[-1][0] - 1 if query.newest else found[-1][1]
        page.seqs, page.bodies = [last for _, last, _ in found], [body for _, _, body in found]

    def _take(self, walk: _Walk, page: Page) -> set[int]:
        """Fill the page step by step until something is enough: lines, bytes, time, or the stretch.

        Returns the seqs of the notices that do not count.
        """
        query, began = walk.query, self._clock()
        beside: set[int] = set()
        left, room, visits, now = query.limit, query.max_bytes, FIRST_VISITS, began
        while not walk.done and left > 0 and room > 0 and now - began < PAGE_SECONDS:
            rows = max(1, min(left, min(room, STEP_BYTES) // self._mean + 1))
            bodies, seqs, uncounted = walk.step(rows, visits)
            if uncounted and query.newest and query.notices is not None:
                bodies, seqs = self._leave_out(walk, page, bodies, seqs, uncounted, query.notices - len(beside))
            size = sum(map(len, bodies))
            if size > room and (len(bodies) > 1 or page.bodies):
                keep = max(sum(total <= room for total in accumulate(map(len, bodies))), 0 if page.bodies else 1)
                if keep < len(bodies):
                    walk.back_to(seqs[keep])
                    bodies, seqs, room = bodies[:keep], seqs[:keep], 0
            if bodies:
                # A plain store: two readers at once lose one of two estimates, which harms nobody.
                self._mean = max(1, (self._mean + sum(map(len, bodies)) // len(bodies)) // 2)
            page.bodies += bodies
            page.seqs += seqs
            new = uncounted.intersection(seqs)
            beside |= new
            left -= len(bodies) - len(new)
            room -= size
            before, now = now, self._clock()
            # Only a step that looked at so many lines tells how long they take.
            pace = min(STEP_SECONDS / max(now - before, 1e-6), 4.0 if walk.looked >= visits else 1.0)
            visits = int(max(FEWEST_VISITS, min(MOST_VISITS, visits * pace)))
        return beside

    @staticmethod
    def _leave_out(
        walk: _Walk, page: Page, bodies: list[bytes], seqs: list[int], uncounted: set[int], left: int
    ) -> tuple[list[bytes], list[int]]:
        """Leave out the notices beyond the newest `left` of those that do not count."""
        over = [seq for seq in seqs if seq in uncounted][left:]
        if not over:
            return bodies, seqs
        page.notices_from = page.notices_from or over[0] + 1
        walk.leave_out_notices()
        gone = set(over)
        kept = [(body, seq) for body, seq in zip(bodies, seqs, strict=True) if seq not in gone]
        return [body for body, _ in kept], [seq for _, seq in kept]


class _Statements:
    """The SQL of one plan."""

    def __init__(self, plan: Plan, *, newest: bool) -> None:
        self.plan = plan
        order = "DESC" if newest else "ASC"
        rows = plan.select(_COLUMNS, order, "LIMIT :rows")
        self.read = _READ.format(rows)
        self.read_slowly = f"SELECT seq, CAST(body AS BLOB), coalesce({BODY_CRC_SQL}, {UNCHECKED}) FROM ({rows})"  # noqa: S608
        self.visits = plan.visits(order) if plan.indexed else ""


class _Walk:
    """A walk over one stretch, `low < seq <= high` being what is left of it."""

    def __init__(
        self,
        db: sqlite3.Connection,
        query: Query,
        make: Callable[..., Plan],
        low: int,
        high: int,
        holes: Holes,
        stretches: Iterator[Stretch] | None = None,
    ) -> None:
        self.query, self.low, self.high = query, low, high
        self.looked = 0
        """Lines that the last step was to look at, at most."""
        self._holes = holes
        self._db, self._make = db, make
        self._stretches, self._stretch = stretches, Stretch(1 << 62, 0, perhaps=True)
        self._go_by(query)

    def _go_by(self, query: Query) -> None:
        self._all = _Statements(self._make(query), newest=query.newest)
        self._notices = self._all
        if self._stretches is not None:
            self._notices = _Statements(self._make(query, only_notices=True), newest=query.newest)

    @property
    def done(self) -> bool:
        """True when nothing is left of the stretch."""
        return self.low >= self.high

    def leave_out_notices(self) -> None:
        """Look for no more notices that do not count."""
        self.query = replace(self.query, filter=self.query.filter.without_notices())
        self._go_by(self.query)

    def step(self, rows: int, visits: int) -> tuple[list[bytes], list[int], set[int]]:
        """Return the next `rows` matches in walking order, having looked at about `visits` lines.

        The last value has the seqs of the notices among them that do not count.
        """
        sql = self._enter_stretch()
        if self.done:
            return [], [], set()
        low, high = self._window(sql, visits)
        self.looked = high - low
        values = {**sql.plan.values, "after": low, "until": high, "rows": rows}
        while True:
            try:
                bodies, seqs, sums, notices, glued = self._read(sql, values)
                break
            except sqlite3.DataError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_TOOBIG or rows == 1:
                    raise
                rows //= 2
                values["rows"] = rows
            except sqlite3.OperationalError as error:
                if _BAD_JSON not in str(error) or not sql.plan.looks_inside:
                    raise
                # A body is damaged. Which one shows only when it is read, and SQLite must not look into it.
                sql = self._all = _Statements(self._make(self.query, look_inside=False), newest=self.query.newest)
                values = {**sql.plan.values, "after": low, "until": high, "rows": rows}
        if len(seqs) == rows:
            low, high = (low, seqs[-1] - 1) if self.query.newest else (seqs[-1], high)
            self.low, self.high = (self.low, high) if self.query.newest else (low, self.high)
        elif self.query.newest:
            self.high = low
        else:
            self.low = high
        bodies, seqs = self._true_ones(bodies, seqs, sums)
        if not glued:
            bodies = [body.replace(b"\n", b" ") for body in bodies]
        plan = sql.plan
        if plan.judge_all or plan.judge_nul or (plan.judge_notices and notices):
            bodies, seqs = self._judge(plan, bodies, seqs, notices)
        return bodies, seqs, self._uncounted(bodies, seqs, notices) if notices else set()

    def _uncounted(self, bodies: list[bytes], seqs: list[int], notices: Mapping[int, int]) -> set[int]:
        """Return the seqs of the notices that do not count."""
        wanted = self.query.filter
        return {
            seq
            for body, seq in zip(bodies, seqs, strict=True)
            if seq in notices and not wanted.notice_counts(notices[seq], *read_body(body))
        }

    def back_to(self, seq: int) -> None:
        """Go back: the line at `seq` was not taken after all, it is the next one."""
        if self.query.newest:
            self.high = seq
        else:
            self.low = seq - 1

    def _enter_stretch(self) -> _Statements:
        """Go on to the stretch that comes next; returns how it is read."""
        if self._stretches is None:
            return self._all
        newest, stretch = self.query.newest, self._stretch
        while not self.done and (self.high < stretch.first if newest else self.low >= stretch.last):
            following = next(self._stretches, None)
            if following is None:
                self.low = self.high = self.low if newest else self.high
                break
            stretch = self._stretch = following
            # What lies between two stretches was looked at by the index.
            if newest:
                self.high = min(self.high, stretch.last)
            else:
                self.low = max(self.low, stretch.first - 1)
        return self._all if stretch.perhaps else self._notices

    def _window(self, sql: _Statements, visits: int) -> tuple[int, int]:
        """Return the part of what is left that one step may look at."""
        low, high = self.low, self.high
        if self._stretches is not None:
            low, high = max(low, self._stretch.first - 1), min(high, self._stretch.last)
        if not sql.plan.conditions or not self._stretch.perhaps:
            return low, high  # every line (of these sources) is a match: the row limit bounds the step
        if sql.plan.indexed:
            values = {"after": low, "until": high, "visits": visits}
            row = self._db.execute(sql.visits, values).fetchone()
            if row is None:
                return low, high
            return (row[0] - 1, high) if self.query.newest else (low, row[0])
        if self.query.newest:
            return max(low, high - visits), high
        return low, min(high, low + visits)

    def _read(
        self, sql: _Statements, values: dict[str, object]
    ) -> tuple[list[bytes], list[int], list[int], Mapping[int, int], bool]:
        """Return bodies, seqs, the checksums that the rows claim (see `checksums.damaged`), and the notices' levels.

        The last value is False where a body may have a newline in it.
        """
        glued, numbers, sums, pairs = self._db.execute(sql.read, values).fetchone()
        if numbers is None:
            return [], [], [], {}, True
        bodies: list[bytes] = glued.split(b"\n") if glued is not None else []
        seqs: list[int] = orjson.loads(f"[{numbers}]")
        notices = dict(orjson.loads(f"[{pairs}]")) if pairs else {}
        if len(bodies) == len(seqs) and _in_order(seqs, down=self.query.newest):
            return bodies, seqs, orjson.loads(f"[{sums}]"), notices, True
        # SQLite promises no order inside group_concat (it keeps the subquery's), and somebody may have put a
        # newline into a body by hand. The slow way round is right in every case.
        rows = self._db.execute(sql.read_slowly, values).fetchall()
        rows.sort(reverse=self.query.newest)
        bodies, seqs = [body or b"" for _, body, _ in rows], [seq for seq, _, _ in rows]
        return bodies, seqs, [crc for _, _, crc in rows], notices, False

    def _true_ones(self, bodies: list[bytes], seqs: list[int], sums: list[int]) -> tuple[list[bytes], list[int]]:
        """Leave out what is damaged, and note it: a notice takes its place."""
        bad = set(damaged(seqs, bodies, sums))
        if bad:
            self._holes.add((seq, seq) for seq in bad)
            kept = [(body, seq) for body, seq in zip(bodies, seqs, strict=True) if seq not in bad]
            bodies, seqs = [body for body, _ in kept], [seq for _, seq in kept]
        return bodies, seqs

    def _judge(
        self, plan: Plan, bodies: list[bytes], seqs: list[int], notices: Mapping[int, int]
    ) -> tuple[list[bytes], list[int]]:
        """Let Filter decide where SQL cannot: keeps what really matches."""
        everything, by_notice = plan.judge_all, plan.judge_notices
        kept = []
        for body, seq in zip(bodies, seqs, strict=True):
            if seq in notices:
                passes = not by_notice or self.query.filter.notice_passes(notices[seq], *read_body(body))
            else:
                passes = not (everything or b"\\u0000" in body) or self._matches(body, seq)
            if passes:
                kept.append((body, seq))
        return [body for body, _ in kept], [seq for _, seq in kept]

    def _matches(self, body: bytes, seq: int) -> bool:
        sql = (
            "SELECT l.level, l.source, l.run, r.app FROM lines AS l LEFT JOIN runs AS r ON r.id = l.run WHERE l.seq = ?"
        )
        level, _source, run, app = self._db.execute(sql, (seq,)).fetchone()
        said = orjson.loads(body)
        name = said.get("source", RELAY_SOURCE)
        app, shown, edge = said.get("app", app or ""), str(said.get("run", "")), str(said.get("edge", ""))
        line = Line(seq, 0, level, name, run, b"", said["message"], said["context"], app, run_name=shown, edge=edge)
        return self.query.filter.matches(line)


def _in_order(seqs: list[int], *, down: bool) -> bool:
    first, last, count = seqs[0], seqs[-1], len(seqs)
    if abs(last - first) + 1 == count and seqs == list(range(first, last + (-1 if down else 1), -1 if down else 1)):
        return True  # the usual page, compared at C speed
    return all(a > b for a, b in pairwise(seqs)) if down else all(a < b for a, b in pairwise(seqs))


def bounds(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the oldest seq kept (`head + 1` when none is) and the head."""
    oldest, newest, first, last = db.execute(
        "SELECT (SELECT min(seq) FROM lines), (SELECT max(seq) FROM lines), "
        "(SELECT min(first) FROM holes), (SELECT max(last) FROM holes)"
    ).fetchone()
    if newest is None and last is None:
        head = db.execute(
            "SELECT coalesce((SELECT max(last) FROM marks), (SELECT value FROM meta WHERE key = 'base'))"
        ).fetchone()[0]
        return head + 1, head
    # What was lost to damage counts as kept: whoever comes to it is told.
    return min(x for x in (oldest, first) if x is not None), max(x for x in (newest, last) if x is not None)


def by_time(db: sqlite3.Connection, query: Query, low: int, high: int) -> tuple[int, int]:
    """Narrow a stretch to the blocks that can hold a line of the time asked for."""
    since = query.since_us if query.since_us is not None else -(1 << 62)
    before = query.until_us if query.until_us is not None else 1 << 62
    first, last = db.execute(
        "SELECT min(first), max(last) FROM marks WHERE last > ? AND first <= ? AND max_us >= ? AND min_us < ?",
        (low, high, since, before),
    ).fetchone()
    if first is None:
        return high, high
    return max(low, first - 1), min(high, last)


def lines_at(db: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, bytes]:
    """Return the bodies of some lines by seq, without those that are missing or damaged. Raises sqlite3.Error."""
    found: dict[int, bytes] = {}
    sql = f"SELECT CAST(body AS BLOB), coalesce({BODY_CRC_SQL}, {UNCHECKED}) FROM lines WHERE seq = ?"  # noqa: S608
    for seq in seqs:
        row = db.execute(sql, (seq,)).fetchone()
        if row is not None and row[0] is not None and not damaged([seq], [row[0]], [row[1]]):
            found[seq] = row[0].replace(b"\n", b" ")
    return found


def count_levels(db: sqlite3.Connection, first: int, last: int) -> dict[int, int]:
    """Count lines by level: whole blocks by their marks, the ends by the lines. Raises sqlite3.Error."""
    db.execute("BEGIN")
    try:
        oldest, head = bounds(db)
        first, last = max(first, oldest), min(last, head)
        counts: dict[int, int] = {}
        if first > last:
            return counts
        inner = db.execute(
            "SELECT min(first), max(last), sum(debug), sum(info), sum(warning), sum(error), sum(critical) "
            "FROM marks WHERE first >= ? AND last <= ?",
            (first, last),
        ).fetchone()
        ends = [(first, last)]
        if inner[0] is not None:
            counts = dict(zip((10, 20, 30, 40, 50), inner[2:], strict=True))
            ends = [(first, inner[0] - 1), (inner[1] + 1, last)]
        for start, stop in ends:
            for level, count in db.execute(
                "SELECT level, count(*) FROM lines NOT INDEXED WHERE seq BETWEEN ? AND ? GROUP BY level",
                (start, stop),
            ):
                counts[level] = counts.get(level, 0) + count
        return {level: counts[level] for level in sorted(counts) if counts[level]}
    finally:
        _end_reading(db)


def _end_reading(db: sqlite3.Connection) -> None:
    """End the transaction, which SQLite may have ended by itself after an input/output error."""
    if db.in_transaction:
        db.execute("COMMIT")
