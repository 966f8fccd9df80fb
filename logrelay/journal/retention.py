"""What is kept and for how long: blocks, age, size, free space, in steps that nobody notices.

Owns: the `marks` table (one row per block of lines), the decision what has to go, the small transactions
that take it away, and the count of what went for which reason. It must not know files, threads or readers. Read
`journal/believed_clock` next: it says how old a line is.

Age is measured from the time of the commit, never with the trader's timestamps, and by the believed clock, so that a
machine's clock that is wrong costs no lines. Marks never go back in time: while the clock is a little behind, new
blocks take the time of the block before. Only when the believed time itself goes back for good are marks that lie
ahead of it set to it: their lines are kept that much longer as it took until the clock was believed.

Lines that go for size or for free space go before their time, so they are told of, at most once a day.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from operator import add, attrgetter
from typing import TYPE_CHECKING

from logrelay.journal import purged
from logrelay.journal.believed_clock import HOLD_US, BelievedClock
from logrelay.journal.checksums import row_crc
from logrelay.journal.interface import UpkeepNotice
from logrelay.journal.schema import PAGE_SIZE
from logrelay.journal.sqlite_errors import NO_ROOM, primary_code
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, WARNING, Line

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence

LEAST_EVICTED_BYTES = 256 * 1024
"""Lines of a full disk make room for new ones, down to this: what is left is too little to be worth less than the next
line. In a file that cannot grow beyond a megabyte there has to be room for the largest commit besides."""
BLOCK_LINES = 1024
"""Lines in a block: 10 million lines have 10 thousand marks, and a time query reads at most two blocks too many."""
BLOCK_US = 60_000_000
"""A block of a quiet bot is closed after a minute, so that age is known to the minute."""
MOST_IDLE_S = 600.0
"""Retention looks at the clock at least this often."""
STEP_SECONDS = 0.005
"""What one step of pruning aims at, so that a commit never waits longer for it."""
FIRST_ROWS, FEWEST_ROWS, MOST_ROWS = 1000, 100, 4096
"""Lines taken away in one step: where it begins, and what it is adapted between."""
VACUUM_PAGES = 64
"""Pages given back to the file system in one step: a quarter of a megabyte."""
VACUUM_SHARE = 16
"""Space is given back when a sixteenth of the file is free; less is kept for the lines to come."""
VACUUM_FLOOR = 256
"""Free pages (1 MiB) that are never worth giving back."""
LOG_SHARE = 8
"""An eighth of the size limit is left to the write-ahead log."""
LEAST_LOG = 1 << 20
"""A commit has to fit, or a full disk would stop it for good: one read of a trader, 256 KiB, takes 400 KiB of the log.
Of a journal under 2 MiB the log takes half."""
MOST_LOG = 32 << 20
"""But not more than this."""
TELL_US = 86_400_000_000
"""Lines that go before their time are told of once in a day: under a limit on size some go all the time."""
DAY_US = 86_400_000_000
AGE, SIZE, SPACE = "age", "size", "space"
"""Why lines go: they are old, the journal is too large, or the file system has too little room."""

_MARKED = (DEBUG, INFO, WARNING, ERROR, CRITICAL)
"""The levels that a mark counts, in the order of its columns."""

_UPTIME_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_levels = attrgetter("level")


@dataclass(slots=True)
class _Block:
    """The block new lines go into."""

    first: int
    began_us: int
    min_us: int
    max_us: int
    counts: list[int]
    """Lines of each level of `_MARKED`."""
    lines: int = 0


def log_share(least: int) -> int:
    """Return what the write-ahead log may take where file and log may have `least` bytes together."""
    return min(MOST_LOG, max(least // LOG_SHARE, min(LEAST_LOG, least // 2)))


def uptime_us() -> int:
    """Read a clock that never steps; on Linux it goes on while the machine is suspended."""
    return time.clock_gettime_ns(_UPTIME_CLOCK) // 1000


@dataclass(slots=True)
class _Evicted:
    """Lines that went before their time since somebody was told."""

    first: int
    last: int
    lines: int


class Retention:
    """Keeps marks and takes lines away. Belongs to the thread that writes."""

    def __init__(
        self,
        *,
        max_age_us: int,
        max_bytes: int,
        now_us: Callable[[], int],
        uptime_us: Callable[[], int] = uptime_us,
        room: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe what is kept.

        Args:
            max_age_us: microseconds after which a line goes; 0: no limit by age.
            max_bytes: what file and log may take.
            now_us: the machine's clock.
            uptime_us: a clock that never steps, see `BelievedClock`.
            room: returns how many bytes file and log may take so that the file system keeps room for others; None: it
                does not matter.
            clock: seconds, to measure how long a step takes.
        """
        self._max_age_us, self._max_bytes = max_age_us, max_bytes
        self._now_us, self._uptime_us, self._room, self._clock = now_us, uptime_us, room, clock
        self.fit(max_bytes)
        self._rows = FIRST_ROWS
        self._block: _Block | None = None
        self._pending: _Block | None = None
        self._last_mark_us = self._pending_us = 0
        self._believed = BelievedClock()
        self._went_back = False
        """The believed time went back: marks that lie ahead of it have to be set to it."""
        self._noted_doubt_us = 0
        """What the file says of the clock."""
        self._doubt_told = False
        self._evicted: dict[str, _Evicted] = {}
        self._told_us: dict[str, int] = {}
        self.oldest = 1
        self.head = 0
        self.pruned = 0
        self.pruned_for: Counter[str] = Counter()
        """Lines taken away, by reason."""

    def fit(self, disk_bytes: int) -> None:
        """Give the write-ahead log its share of the limit, or of a file system of `disk_bytes` that is smaller."""
        self.log_bytes = log_share(min(self._max_bytes, disk_bytes))
        """What the write-ahead log may take of the limit."""
        self._budget = self._max_bytes - self.log_bytes

    def change(self, *, max_age_us: int, max_bytes: int) -> None:
        """Change what is kept. The write-ahead log has its share until the file is opened anew."""
        self._max_age_us, self._max_bytes = max_age_us, max_bytes
        self._budget = max_bytes - min(self.log_bytes, max_bytes // 2)

    def load(self, db: sqlite3.Connection, oldest: int, head: int) -> None:
        """Take over what a file holds. Raises sqlite3.Error."""
        self.oldest, self.head = oldest, head
        self._block = self._pending = None
        row = db.execute("SELECT relay_us FROM marks ORDER BY first DESC LIMIT 1").fetchone()
        meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('believed_us', 'clock_doubt_us')").fetchall())
        last_us = max(row[0], int(meta.get("believed_us", 0))) if row else None
        self._noted_doubt_us = int(meta.get("clock_doubt_us", 0))
        self._went_back = self._believed.start(
            last_us, self._noted_doubt_us, clock_us=self._now_us(), uptime_us=self._uptime_us()
        )
        self._last_mark_us = row[0] if row else self._believed.now_us
        self._doubt_told = False

    def save(self, db: sqlite3.Connection) -> None:
        """Write down what time it is: a relay that was quiet for days was not off. Raises sqlite3.Error."""
        self._look()
        db.execute("REPLACE INTO meta (key, value) VALUES ('believed_us', ?)", (self._believed.now_us,))

    def _look(self) -> int:
        """Look at the clocks; returns the time that is believed."""
        if self._believed.look(self._now_us(), self._uptime_us()):
            self._went_back = True
        return self._believed.now_us

    def mark(self, db: sqlite3.Connection, lines: Sequence[Line]) -> None:
        """Write down the block of `lines` in the transaction that is open; `confirm` makes it count."""
        now = max(self._look(), self._last_mark_us)
        times = [line.time_us if line.clock_us is None else line.clock_us for line in lines]
        counts, least, most = list(map([*map(_levels, lines)].count, _MARKED)), min(times), max(times)
        block = self._block
        if block is None or block.lines >= BLOCK_LINES or now - block.began_us >= BLOCK_US:
            block = _Block(lines[0].seq, now, least, most, counts, len(lines))
        else:
            block = _Block(
                block.first,
                block.began_us,
                min(block.min_us, least),
                max(block.max_us, most),
                list(map(add, block.counts, counts)),
                block.lines + len(lines),
            )
        row = (block.first, lines[-1].seq, now, block.min_us, block.max_us, *block.counts)
        db.execute(
            "REPLACE INTO marks "
            "(first, last, relay_us, min_us, max_us, debug, info, warning, error, critical, crc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, row_crc(row)),
        )
        self._pending = block
        self._pending_us = now

    def begin_block(self) -> None:
        """Have the next lines begin a block: what the file says of the one before was changed by somebody else."""
        self._block = self._pending = None

    def confirm(self, head: int) -> None:
        """Note that the transaction is in the file."""
        if self._pending is not None:
            self._block, self._pending, self._last_mark_us = self._pending, None, self._pending_us
        self.head = head

    def step(self, db: sqlite3.Connection) -> tuple[int, int]:
        """Take one small step, if there is one to take; returns lines taken away and pages given back.

        Raises sqlite3.Error.
        """
        self._look()
        if self._clock_changed():
            self._note_clock(db)
        upto, reason = self._goal(db)
        if upto >= self.oldest:
            return self._delete(db, upto, reason), 0
        pages = min(self._spare_pages(db), VACUUM_PAGES)
        if pages:
            # Each step of this statement moves one page and returns no row, which `execute` takes for its end.
            db.executescript(f"PRAGMA incremental_vacuum({pages})")
        return 0, pages

    def evict(self, db: sqlite3.Connection) -> int:
        """Take some of the oldest lines away although they are within every limit; returns by how many numbers.

        For a file that cannot grow: the pages of the oldest lines are those of the next ones. Raises sqlite3.Error.
        """
        pages, free = _pages(db)
        if (pages - free) * PAGE_SIZE <= LEAST_EVICTED_BYTES or self.oldest >= self.head:
            return 0
        before = self.oldest
        while True:
            rows = self._rows
            try:
                self._delete(db, self.head - 1, SPACE)
            except sqlite3.Error as error:
                if primary_code(error) not in NO_ROOM or rows == FEWEST_ROWS:
                    raise
            else:
                return self.oldest - before

    def due(self, db: sqlite3.Connection) -> float:
        """Tell in how many seconds `step` has work: 0.0 for now. Raises sqlite3.Error."""
        self._look()
        if self._clock_changed() or self._goal(db)[0] >= self.oldest or self._spare_pages(db):
            return 0.0
        row = db.execute("SELECT relay_us FROM marks ORDER BY first LIMIT 1").fetchone()
        if row is None or self.oldest > self.head or not self._max_age_us:
            return MOST_IDLE_S
        wait = max(row[0] + self._max_age_us - self._believed.now_us, 0) / 1e6
        return min(MOST_IDLE_S, float(wait) + 0.001)

    def take_notices(self) -> list[UpkeepNotice]:
        """Return what people should be told of the steps since the last call."""
        now, notices = self._uptime_us(), []
        for reason, gone in list(self._evicted.items()):
            told = self._told_us.get(reason)
            if told is None or now - told >= TELL_US:
                self._told_us[reason] = now
                del self._evicted[reason]
                notices.append(_evicted_notice(reason, gone))
        ahead = self._believed.ahead_us
        if ahead and self._max_age_us and not self._doubt_told:
            notices.append(_clock_notice(ahead))
        self._doubt_told = bool(ahead)
        return notices

    def _clock_changed(self) -> bool:
        return self._went_back or self._believed.doubt_us != self._noted_doubt_us

    def _note_clock(self, db: sqlite3.Connection) -> None:
        """Write down whether the clock is believed; set marks that lie in the future to now."""
        now, doubt_us = self._believed.now_us, self._believed.doubt_us
        with _transaction(db):
            rows = [("believed_us", now), ("clock_doubt_us", doubt_us)]
            db.executemany("REPLACE INTO meta (key, value) VALUES (?, ?)", rows)
            if self._went_back:
                columns = "first, last, min_us, max_us, debug, info, warning, error, critical"
                late = db.execute(f"SELECT {columns} FROM marks WHERE relay_us > ?", (now,)).fetchall()  # noqa: S608
                for first, last, *rest in late:
                    crc = row_crc((first, last, now, *rest))
                    db.execute("UPDATE marks SET relay_us = ?, crc = ? WHERE first = ?", (now, crc, first))
        if self._went_back:
            self._block, self._last_mark_us, self._went_back = None, min(self._last_mark_us, now), False
        self._noted_doubt_us = doubt_us

    def _goal(self, db: sqlite3.Connection) -> tuple[int, str]:
        """Return the seq up to which lines should go now, below `oldest` when none should, and why."""
        if self.oldest > self.head:
            return 0, AGE
        goal, reason = self._expired(db), AGE
        pages, free = _pages(db)
        budget, limit = self._allowed()
        over = (pages - free) * PAGE_SIZE - budget
        if over > 0:
            # The share of the file that is too much is the share of the lines, near enough; a step is smaller anyway.
            lines = self.head - self.oldest + 1
            upto = self.oldest + max(1, lines * over // ((pages - free) * PAGE_SIZE))
            if upto > goal:
                goal, reason = upto, limit
        # The newest line stays: an empty journal cannot say where it is in time.
        return (min(goal, self.head - 1) if over > 0 else min(goal, self.head)), reason

    def _allowed(self) -> tuple[int, str]:
        """Return the bytes that lines may take, and what limits them."""
        room = self._room()
        if room is None or room - self.log_bytes >= self._budget:
            return self._budget, SIZE
        return max(0, room - self.log_bytes), SPACE

    def _expired(self, db: sqlite3.Connection) -> int:
        if not self._max_age_us:
            return 0
        # Marks never go back in time, so the oldest one tells.
        row = db.execute("SELECT last, relay_us FROM marks ORDER BY first LIMIT 1").fetchone()
        return row[0] if row and row[1] <= self._believed.now_us - self._max_age_us else 0

    def _spare_pages(self, db: sqlite3.Connection) -> int:
        pages, free = _pages(db)
        budget, limit = self._allowed()
        # A small limit on size leaves less room for idle pages.
        floor = min(VACUUM_FLOOR, self._budget // PAGE_SIZE // VACUUM_SHARE)
        spare = max(0, free - max(floor, pages // VACUUM_SHARE)) if free > floor else 0
        if limit == SPACE:
            # Others want the room: what the file has beyond what it may take is given back whole.
            spare = max(spare, min(free, pages - budget // PAGE_SIZE))
        return spare

    def _delete(self, db: sqlite3.Connection, upto: int, reason: str) -> int:
        began, first = self._clock(), self.oldest
        upto = min(upto, first + self._rows - 1)
        try:
            with _transaction(db):
                gone = db.execute("DELETE FROM lines WHERE seq <= ?", (upto,)).rowcount
                # The last mark stays even without lines: it remembers the head and the time.
                db.execute("DELETE FROM marks WHERE last <= ? AND first < (SELECT max(first) FROM marks)", (upto,))
                db.execute("UPDATE meta SET value = ? WHERE key = 'oldest'", (upto + 1,))
                purged.forget(db, upto)
        except sqlite3.Error:
            # A log that cannot grow has room for so many changed pages: fewer lines change fewer.
            self._rows = max(FEWEST_ROWS, self._rows // 2)
            raise
        self.oldest = upto + 1
        self.pruned += gone
        self.pruned_for[reason] += gone
        if reason != AGE:
            before = self._evicted.get(reason) or _Evicted(first, upto, 0)
            self._evicted[reason] = _Evicted(before.first, upto, before.lines + gone)
        pace = STEP_SECONDS / max(self._clock() - began, 1e-6)
        self._rows = int(max(FEWEST_ROWS, min(MOST_ROWS, self._rows * min(pace, 2.0))))
        return gone


def _pages(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the pages of the file and how many of them are free."""
    return db.execute("PRAGMA page_count").fetchone()[0], db.execute("PRAGMA freelist_count").fetchone()[0]


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _evicted_notice(reason: str, gone: _Evicted) -> UpkeepNotice:
    why = "the journal had reached --keep-bytes" if reason == SIZE else "the file system has little room (--keep-free)"
    text = f"{gone.lines} lines went before their time, numbers {gone.first} to {gone.last}: {why}"
    details = {"state": "evicted", "cause": reason, "count": gone.lines, "first": gone.first, "last": gone.last}
    return UpkeepNotice(INFO if reason == SIZE else WARNING, text, details)


def _clock_notice(ahead_us: int) -> UpkeepNotice:
    days = f"{abs(ahead_us) / DAY_US:.1f} days {'ahead of' if ahead_us > 0 else 'behind'}"
    text = (
        f"the machine's clock is {days} what the journal expects: lines are not deleted by it before it has said so "
        f"for {HOLD_US // DAY_US} days"
    )
    return UpkeepNotice(WARNING, text, {"state": "clock", "ahead_s": ahead_us // 1_000_000})
