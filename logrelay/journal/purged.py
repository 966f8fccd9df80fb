"""Lines that were taken away on purpose, because they should not have been logged.

Owns: the table `purged`, the statements that take single lines out of a journal, and the ones that leave no byte of
them. It must not choose lines, begin transactions, or know who asks. Read `journal/pages` next: it finds lines in a
file that SQLite cannot read any more.

The table `holes` has these ranges as well: a version before this table then tells of them as lost, and does not take
the file for damaged. What is only in `holes` was lost to damage.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from logrelay.errors import JournalError
from logrelay.journal.checksums import row_crc
from logrelay.journal.holes import MOST_HOLES, Range, joined, merge
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, RELAY_RUN, WARNING

UNFINISHED = "purge_unfinished"
"""Key of `meta` that is there while lines were taken away and their bytes may still be in the file."""

CHUNK = 500
"""Seqs in one statement."""


def ranges_in(db: sqlite3.Connection) -> list[Range]:
    """Return the ranges that a file tells of. Raises sqlite3.Error."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'purged'").fetchone() is None:
        return []
    return merge(db.execute("SELECT first, last FROM purged"))


def forget(db: sqlite3.Connection, upto: int) -> None:
    """Forget what retention takes away, in the transaction that is open. Raises sqlite3.Error."""
    for table in ("holes", "purged"):
        db.execute(f"DELETE FROM {table} WHERE last <= ?", (upto,))  # noqa: S608  (our own names)
        db.execute(f"UPDATE {table} SET first = ? WHERE first <= ?", (upto + 1, upto))  # noqa: S608


def take_away(db: sqlite3.Connection, seqs: Sequence[int]) -> list[Range]:
    """Delete lines by seq, notices of the relay excepted, in the transaction that is open; returns what went.

    Raises sqlite3.Error, and JournalError when they lie in more ranges than a journal tells apart: nothing is deleted.
    """
    gone: list[int] = []
    for start in range(0, len(seqs), CHUNK):
        some = seqs[start : start + CHUNK]
        marks = ",".join("?" * len(some))
        sql = f"SELECT seq FROM lines WHERE seq IN ({marks}) AND run != ?"  # noqa: S608  (only question marks)
        gone += (seq for (seq,) in db.execute(sql, (*some, RELAY_RUN)))
    ranges = joined((seq, seq) for seq in gone)
    holes = joined([*db.execute("SELECT first, last FROM holes"), *ranges])
    if len(holes) > MOST_HOLES:
        raise JournalError(
            f"these lines lie in {len(ranges):,} places, with what is missing already in {len(holes):,}; a journal "
            f"tells {MOST_HOLES:,} apart: purge wider, for instance all lines of a time",
            retry=False,
        )
    db.executemany("DELETE FROM lines WHERE seq = ?", [(seq,) for seq in gone])
    for table, found in (("holes", holes), ("purged", joined([*ranges_in(db), *ranges]))):
        db.execute(f"DELETE FROM {table}")  # noqa: S608  (our own names)
        db.executemany(f"INSERT INTO {table} (first, last) VALUES (?, ?)", found)  # noqa: S608
    _count_anew(db, ranges)
    if gone:
        db.execute("REPLACE INTO meta (key, value) VALUES (?, 1)", (UNFINISHED,))
    return ranges


def _count_anew(db: sqlite3.Connection, ranges: Sequence[Range]) -> None:
    """Have the marks say how many lines of each level are left."""
    marks = db.execute("SELECT first, last, relay_us, min_us, max_us FROM marks").fetchall()
    for first, last, *times in marks:
        if not any(begin <= last and end >= first for begin, end in ranges):
            continue
        sql = "SELECT level, count(*) FROM lines NOT INDEXED WHERE seq BETWEEN ? AND ? GROUP BY level"
        counts = dict(db.execute(sql, (first, last)))
        levels = [counts.get(level, 0) for level in (DEBUG, INFO, WARNING, ERROR, CRITICAL)]
        db.execute(
            "UPDATE marks SET debug = ?, info = ?, warning = ?, error = ?, critical = ?, crc = ? WHERE first = ?",
            (*levels, row_crc((first, last, *times, *levels)), first),
        )


def is_unfinished(db: sqlite3.Connection) -> bool:
    """Tell whether bytes of lines that were taken away may still be in the file. Raises sqlite3.Error."""
    return db.execute("SELECT 1 FROM meta WHERE key = ?", (UNFINISHED,)).fetchone() is not None


def wipe(db: sqlite3.Connection) -> None:
    """Write the file anew, without free pages, and cut the log: no byte of what was deleted is left in either.

    Needs free disk of twice the file. Raises sqlite3.Error; when it fails `is_unfinished` stays true.
    """
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.execute("PRAGMA temp_store = FILE")  # a journal does not fit into memory
    db.execute("VACUUM")
    db.execute("DELETE FROM meta WHERE key = ?", (UNFINISHED,))
    busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    db.execute("PRAGMA temp_store = MEMORY")
    if busy:
        db.execute("REPLACE INTO meta (key, value) VALUES (?, 1)", (UNFINISHED,))
        raise sqlite3.OperationalError("database is locked")
