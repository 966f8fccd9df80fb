"""What is kept and for how long: blocks, age, size, in steps that nobody notices.

Owns: the `marks` table (one row per block of lines), the decision what has to go, and the small transactions
that take it away. It must not know files, threads or readers. Read `journal/schema` next: it has the
tables.

Age is measured with the relay's clock at the time of the commit, never with the trader's timestamps, and a
clock that steps must not cost lines:
  * Marks never go back in time: while the clock is behind, new blocks take the time of the block before.
  * When the clock is suddenly more than CLOCK_STEP ahead (a step, a suspended machine, or just a relay that
    was off for a while), expiry waits CLOCK_HOLD: a wrong clock is usually put right by then. A step of less
    than that makes lines expire that much too early, at most.
  * A clock that ran ahead by d and was put right keeps the lines of that time, and those after it, up to d
    longer; the size limit holds all the time.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from logrelay.journal.checksums import row_crc
from logrelay.journal.schema import PAGE_SIZE
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, WARNING, Line

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

BLOCK_LINES = 1024
"""Lines in a block: 10 million lines have 10 thousand marks, and a time query reads at most two blocks too many."""
BLOCK_US = 60_000_000
"""A block of a quiet bot is closed after a minute, so that age is known to the minute."""
CLOCK_STEP_US = 3_600_000_000
"""A leap of the clock that is not believed at once. The writer looks at least every MOST_IDLE_S."""
CLOCK_HOLD_US = 3_600_000_000
"""How long expiry waits after such a leap."""
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
MOST_LOG = 32 << 20
"""But not more than this."""

_levels = attrgetter("level")


@dataclass(slots=True)
class _Block:
    """The block new lines go into."""

    first: int
    began_us: int
    min_us: int
    max_us: int
    counts: Counter[int]
    lines: int = 0


class Retention:
    """Keeps marks and takes lines away. Belongs to the thread that writes."""

    def __init__(
        self,
        *,
        max_age_us: int,
        max_bytes: int,
        now_us: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep lines for `max_age_us` of the relay's clock `now_us`, and the file below `max_bytes`."""
        self._max_age_us = max_age_us
        self.log_bytes = min(MOST_LOG, max_bytes // LOG_SHARE)
        """What the write-ahead log may take of `max_bytes`."""
        self._budget = max_bytes - self.log_bytes
        self._now_us, self._clock = now_us, clock
        self._rows = FIRST_ROWS
        self._block: _Block | None = None
        self._pending: _Block | None = None
        self._last_mark_us = self._pending_us = 0
        self._believed_us = 0
        self._hold_until_us = 0
        self.oldest = 1
        self.head = 0
        self.pruned = 0

    def load(self, db: sqlite3.Connection, oldest: int, head: int) -> None:
        """Take over what a file holds. Raises sqlite3.Error."""
        self.oldest, self.head = oldest, head
        self._block = self._pending = None
        row = db.execute("SELECT relay_us FROM marks ORDER BY first DESC LIMIT 1").fetchone()
        self._last_mark_us = self._believed_us = row[0] if row else self._now_us()
        self._hold_until_us = 0

    def mark(self, db: sqlite3.Connection, lines: Sequence[Line]) -> None:
        """Write down the block of `lines` in the transaction that is open; `confirm` makes it count."""
        now = max(self._now_us(), self._last_mark_us)
        times = [line.time_us if line.clock_us is None else line.clock_us for line in lines]
        counts, least, most = Counter(map(_levels, lines)), min(times), max(times)
        block = self._block
        if block is None or block.lines >= BLOCK_LINES or now - block.began_us >= BLOCK_US:
            block = _Block(lines[0].seq, now, least, most, counts, len(lines))
        else:
            block = _Block(
                block.first,
                block.began_us,
                min(block.min_us, least),
                max(block.max_us, most),
                block.counts + counts,
                block.lines + len(lines),
            )
        row = (
            *(block.first, lines[-1].seq, now, block.min_us, block.max_us),
            *(block.counts[level] for level in (DEBUG, INFO, WARNING, ERROR, CRITICAL)),
        )
        db.execute(
            "REPLACE INTO marks "
            "(first, last, relay_us, min_us, max_us, debug, info, warning, error, critical, crc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, row_crc(row)),
        )
        self._pending = block
        self._pending_us = now

    def confirm(self, head: int) -> None:
        """Note that the transaction is in the file."""
        if self._pending is not None:
            self._block, self._pending, self._last_mark_us = self._pending, None, self._pending_us
        self.head = head

    def step(self, db: sqlite3.Connection) -> tuple[int, int]:
        """Take one small step, if there is one to take; returns lines taken away and pages given back.

        Raises sqlite3.Error.
        """
        upto = self._goal(db)
        if upto >= self.oldest:
            return self._delete(db, upto), 0
        pages = min(self._spare_pages(db), VACUUM_PAGES)
        if pages:
            # Each step of this statement moves one page and returns no row, which `execute` takes for its end.
            db.executescript(f"PRAGMA incremental_vacuum({pages})")
        return 0, pages

    def due(self, db: sqlite3.Connection) -> float:
        """Tell in how many seconds `step` has work: 0.0 for now. Raises sqlite3.Error."""
        if self._goal(db) >= self.oldest or self._spare_pages(db):
            return 0.0
        row = db.execute("SELECT relay_us FROM marks ORDER BY first LIMIT 1").fetchone()
        if row is None or self.oldest > self.head:
            return MOST_IDLE_S
        wait = max(row[0] + self._max_age_us - self._now_us(), self._hold_until_us - self._now_us(), 0) / 1e6
        return min(MOST_IDLE_S, float(wait) + 0.001)

    def _goal(self, db: sqlite3.Connection) -> int:
        """Return the seq up to which lines should go now; below `oldest` when none should."""
        if self.oldest > self.head:
            return 0
        goal = self._expired(db)
        pages: int = db.execute("PRAGMA page_count").fetchone()[0]
        free: int = db.execute("PRAGMA freelist_count").fetchone()[0]
        over = (pages - free) * PAGE_SIZE - self._budget
        if over > 0:
            # The share of the file that is too much is the share of the lines, near enough; a step is smaller anyway.
            lines = self.head - self.oldest + 1
            goal = max(goal, self.oldest + max(1, lines * over // ((pages - free) * PAGE_SIZE)))
        # The newest line stays: an empty journal cannot say where it is in time.
        return min(goal, self.head - 1) if over > 0 else min(goal, self.head)

    def _expired(self, db: sqlite3.Connection) -> int:
        now = self._now_us()
        if now - self._believed_us > CLOCK_STEP_US:
            if not self._hold_until_us:
                self._hold_until_us = now + CLOCK_HOLD_US
            if now < self._hold_until_us:
                return 0
        self._believed_us, self._hold_until_us = now, 0
        # Marks never go back in time, so the oldest one tells.
        row = db.execute("SELECT last, relay_us FROM marks ORDER BY first LIMIT 1").fetchone()
        return row[0] if row and row[1] <= now - self._max_age_us else 0

    def _spare_pages(self, db: sqlite3.Connection) -> int:
        free: int = db.execute("PRAGMA freelist_count").fetchone()[0]
        # A small limit on size leaves less room for idle pages.
        floor = min(VACUUM_FLOOR, self._budget // PAGE_SIZE // VACUUM_SHARE)
        if free <= floor:
            return 0
        pages: int = db.execute("PRAGMA page_count").fetchone()[0]
        return max(0, free - max(floor, pages // VACUUM_SHARE))

    def _delete(self, db: sqlite3.Connection, upto: int) -> int:
        began = self._clock()
        upto = min(upto, self.oldest + self._rows - 1)
        db.execute("BEGIN IMMEDIATE")
        try:
            gone = db.execute("DELETE FROM lines WHERE seq <= ?", (upto,)).rowcount
            # The last mark stays even without lines: it remembers the head and the time.
            db.execute("DELETE FROM marks WHERE last <= ? AND first < (SELECT max(first) FROM marks)", (upto,))
            db.execute("UPDATE meta SET value = ? WHERE key = 'oldest'", (upto + 1,))
            db.execute("DELETE FROM holes WHERE last <= ?", (upto,))
            db.execute("UPDATE holes SET first = ? WHERE first <= ?", (upto + 1, upto))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.oldest = upto + 1
        self.pruned += gone
        pace = STEP_SECONDS / max(self._clock() - began, 1e-6)
        self._rows = int(max(FEWEST_ROWS, min(MOST_ROWS, self._rows * min(pace, 2.0))))
        return gone
