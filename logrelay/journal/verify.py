"""Looking for damage in a journal that SQLite can still read.

Owns: the checks of every line's checksum, of the rows of the small tables, of SQLite's own structures, of seqs that are
missing, and of the file of lone commits. It must not change anything or decide what is done about it. Read
`journal/log_damage` next: it finds what SQLite passes over.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from logrelay.errors import JournalError
from logrelay.journal import lone_file, purged, schema
from logrelay.journal.checksums import BODY_CRC_SQL, UNCHECKED, damaged, row_crc
from logrelay.journal.holes import Range, merge, without
from logrelay.journal.query import bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_SHOWN = 20
"""Findings about SQLite's own structures that are listed; one damaged page causes several."""
MORE_LOOKS = 3
LOOK_AGAIN_S = 0.05
"""A relay that runs writes a record in some ten microseconds, and tries to take a torn one back at once."""
STEP_LINES = 2000
"""Lines read at once: a few milliseconds, some 600 kB."""

SMALL_TABLES = {
    "marks": "first, last, relay_us, min_us, max_us, debug, info, warning, error, critical",
    "runs": "id, key, app, host, pid, started_ns, last_seq, last_us, state, seen_us",
    "sources": "id, name, app",
    "devices": "id, owner, name, position, seen_us, connected",
    "collected": "id, kind, name, part, seq, stamp, seen_us",
}
"""The columns that a row's checksum covers."""

_MADE_WHEN_NEEDED = frozenset({"devices", "collected"})
"""Tables that a file need not have."""

_LINES = (
    f"SELECT seq, CAST(body AS BLOB), coalesce({BODY_CRC_SQL}, {UNCHECKED}) FROM lines NOT INDEXED "  # noqa: S608
    "WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)


@dataclass(slots=True)
class Findings:
    """What is wrong with a journal."""

    lines: int = 0
    """Lines looked at."""
    unchecked: int = 0
    """Of them without a checksum, written by an older version; they were checked for their shape."""
    damaged: list[Range] = field(default_factory=list)
    """Lines that are there and are not what they were."""
    missing: list[Range] = field(default_factory=list)
    """Lines that are not there, and that no hole accounts for."""
    structure: list[str] = field(default_factory=list)
    """What SQLite, or the checksum of another table's row, says is wrong."""

    known: list[Range] = field(default_factory=list)
    """Lines that an earlier relay has found to be lost; viewers are told, and nothing is to be done."""
    purged: list[Range] = field(default_factory=list)
    """Lines that were taken away on purpose, likewise."""
    version: int = 0
    """The schema version; lines can be held to a checksum from version 3 on."""
    epoch: str = ""
    oldest: int = 0
    head: int = 0
    """The newest line, one in the file of lone commits included."""
    lone: int = 0
    """Lines that only the file of lone commits has yet, each in a record whose sum is right."""

    @property
    def sound(self) -> bool:
        """True when nothing is wrong."""
        return not (self.damaged or self.missing or self.structure)


def verify_structure(db: sqlite3.Connection, most: int = 1) -> Iterator[str]:
    """Have SQLite compare its pages, tables and indexes; give at most `most` of what it finds."""
    try:
        for (text,) in db.execute(f"PRAGMA integrity_check({most})"):
            if text != "ok":
                yield " ".join(text.replace("*** in database main ***", "").split())
    except sqlite3.DatabaseError as error:
        yield str(error)


def verify_small_tables(db: sqlite3.Connection) -> Iterator[str]:
    """Give the rows of marks, runs and sources that fail their checksum, in words."""
    for table, columns in SMALL_TABLES.items():
        key = columns.partition(",")[0]
        try:
            if table in _MADE_WHEN_NEEDED:
                found = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
                if not found:
                    continue  # there has never been a row
            for *row, crc in db.execute(f"SELECT {columns}, crc FROM {table}"):  # noqa: S608  (our own names)
                if crc is not None and row_crc(row) != crc:
                    yield f"table {table}: the row {key} = {row[0]} fails its checksum"
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            yield f"table {table}: {error}"


def verify_lines(
    db: sqlite3.Connection,
    oldest: int,
    head: int,
    known: list[Range],
    *,
    go_on: Callable[[int], bool] = lambda _seq: True,
) -> Findings:
    """Hold the lines of `oldest <= seq <= head` to their checksums; `known` are the holes that are accounted for.

    `go_on` is told of the last seq looked at after each step, and ends the walk by returning False. Raises
    sqlite3.Error.
    """
    lines, unchecked, after = 0, 0, oldest - 1
    bad: list[Range] = []
    missing: list[Range] = []
    while after < head:
        rows = db.execute(_LINES, (after, head, STEP_LINES)).fetchall()
        expected = after + 1
        seqs = [row[0] for row in rows]
        if not seqs or seqs[-1] - after != len(seqs):
            for seq in seqs:
                if seq != expected:
                    missing.append((expected, seq - 1))
                expected = seq + 1
            if len(rows) < STEP_LINES and expected <= head:
                missing.append((expected, head))
        elif len(rows) < STEP_LINES and seqs[-1] < head:
            missing.append((seqs[-1] + 1, head))
        bodies = [row[1] if isinstance(row[1], bytes) else b"" for row in rows]
        sums = [row[2] for row in rows]
        lines += len(rows)
        unchecked += sums.count(UNCHECKED)
        bad += [(seq, seq) for seq in damaged(seqs, bodies, sums)]
        after = head if len(rows) < STEP_LINES else seqs[-1]
        if not go_on(after):
            break
    return Findings(lines, unchecked, without(merge(bad), known), without(merge(missing), known))


def first_kept(db: sqlite3.Connection, oldest: int) -> int:
    """Return the first line that retention has not taken; `oldest` is the first that is there. Raises sqlite3.Error."""
    row = db.execute("SELECT value FROM meta WHERE key = 'oldest'").fetchone()
    return min(oldest, row[0]) if row is not None and isinstance(row[0], int) and row[0] > 0 else oldest


def verify_file(path: str, *, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Findings:
    """Verify everything in the journal at `path`, in use or not; nothing is written to it.

    `progress` is told of the lines looked at and their number. What SQLite cannot read is a finding, not an error.
    """
    lone = _read_lone(path)  # first: what is handed over meanwhile is in both
    try:
        with closing(schema.connect_reader(f"file:{quote(path)}?mode=ro")) as db:
            db.execute("BEGIN")  # one state of it, whoever writes meanwhile
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            if version < schema.VERSION:
                return Findings(version=version, structure=[*verify_structure(db, MOST_SHOWN)])
            oldest, head = bounds(db)
            oldest = first_kept(db, oldest)
            known = merge(db.execute("SELECT first, last FROM holes"))
            purged_ranges = purged.ranges_in(db)
            lines = head - oldest + 1

            def step(seq: int) -> bool:
                progress(seq - oldest + 1, lines)
                return True

            structure = [*verify_structure(db, MOST_SHOWN), *verify_small_tables(db)]
            try:
                found = verify_lines(db, oldest, head, known, go_on=step)
            except sqlite3.DatabaseError as error:
                found = Findings(structure=[f"table lines: {error}"])
            epoch = str(db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0])
            waiting, objections = _verify_lone(path, lone, epoch, head)
            return replace(
                found,
                lines=found.lines + waiting,
                structure=[*found.structure, *structure, *objections],
                known=without(known, purged_ranges),
                purged=purged_ranges,
                version=version,
                epoch=epoch,
                oldest=oldest,
                head=head + waiting,
                lone=waiting,
            )
    except (sqlite3.DatabaseError, TypeError) as error:
        return Findings(structure=[f"it cannot be read ({error})"])


def _read_lone(path: str) -> lone_file.Found | str:
    """Return what the file of lone commits has, or why it cannot be read.

    The end of it may be half written at the moment: it is read again where it makes no sense.
    """
    try:
        found = lone_file.read(path, checked=False)
        for _ in range(MORE_LOOKS):
            if not found.unread:
                break
            time.sleep(LOOK_AGAIN_S)
            found = lone_file.read(path, checked=False)
    except (OSError, JournalError) as error:
        return str(error)
    return found


def _verify_lone(path: str, found: lone_file.Found | str, epoch: str, head: int) -> tuple[int, list[str]]:
    """Count the lines that the file of lone commits has behind `head`, and say what in it does not follow."""
    name = f"{path}{lone_file.SUFFIX}"
    if isinstance(found, str):
        return 0, [f"{name} cannot be read, and the newest lines may be in it: {found}"]
    commits = lone_file.following(found, epoch, head)
    waiting = sum(len(commit.lines) for commit in commits)
    stray = sum(record.commit.lines[-1].seq > head + waiting for record in found.records)
    objections = []
    if stray:
        objections.append(f"{name}: {stray:,} records do not follow line {head + waiting:,}; lines may be missing")
    if found.unread:
        objections.append(f"{name}: {len(found.unread):,} bytes are no whole record; what was in them is lost")
    return waiting, objections
