"""What the journal file looks like: tables, indexes, pragmas, versions.

Owns: the SQL that makes a journal, how a connection is set up, and the step from an older version to this one. It must
not decide what is kept or who reads it. Read `journal/journal_file` next: it is where the file lies.

    lines    one row per line; `body` is the complete viewer message, so SQLite's JSON functions work on it
    log      a view of it for people: `SELECT time, level, source, message FROM log WHERE level = 'ERROR'`
    marks    one row per block of about a thousand lines: relay time (retention by age), the range of shown times
             (time queries) and counts per level. It takes the place of a time index at a thousandth of its size
    runs     one row per trader process, with the last of its seqs that is in `lines`
    sources  small integers for logger names, one for each app that has the logger
    aliases  provisional epochs that were committed
    devices  how far viewers that have a name have received lines; made when there is the first of them, so that an
             older program neither needs nor knows it
    collected  how far lines of other machines have been collected; made when there is the first, as above
    forwarded  how far lines have been forwarded to a stream; made in the same way
    holes    ranges of seqs that were lost to damage or purged; there are no lines of them, or none that can be trusted
    purged   those of them that were purged; see `purged`
    meta     base (the head before the first line of this file), oldest (the first line that retention has not taken,
             whether it is still there or not), created_us, and the keys of `opening_record`
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from logrelay.errors import JournalError
from logrelay.model import RELAY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable

APPLICATION_ID = 0x6C6F6772
"""`logr` in ASCII, at byte 68 of the file: tells our journals from other SQLite files."""
VERSION = 3
"""user_version of the files this code writes. A higher one is refused, a lower one goes through MIGRATIONS."""

OLDEST_SQLITE = (3, 31, 0)
"""What the SQL here and in `query` needs (UPSERT, aggregate FILTER, JSON with several paths)."""

PAGE_SIZE = 4096
"""Measured against 8192 and 16384: the same speed in batches within a tenth, and half the write-ahead log
bytes for a commit of one line (five pages are touched however short the line is), which is what a quiet bot makes."""
WRITER_CACHE_KIB = 2048
"""The right edges of a table and two indexes and a batch in flight; a larger cache measured no faster."""
READER_CACHE_KIB = 1024
"""A page of lines is read once, in order: caching more than the inner pages of the tree gains nothing."""
BUSY_S = 1.0
"""How long a commit waits for a foreign writer (somebody's sqlite3 shell) before it is trouble."""
STATEMENTS = 64
"""Prepared statements kept per connection: four insert sizes and a handful of others, with room."""

NOTICE_SOURCE = 0
"""Source id of the relay's own notices: `source = 0` is the same as `run = 0`, and every filter lets it through."""
OVERFLOW_SOURCE = -1
"""Source id of lines whose logger name did not get a number because MAX_SOURCES had been given away."""
MAX_SOURCES = 10_000
"""Logger names with a number, counted once for each app. A program has hundreds; one that makes names up must not make
every filter slow."""

SourceKey = tuple[str, str | None]
"""Logger name and app, which share a number, so that one index finds both. The app is None for lines that a version
before wrote: theirs is the app of their run."""

_LOG_VIEW = """
CREATE VIEW log AS
    SELECT l.seq AS seq,
           json_extract(l.body, '$.timestamp') AS time,
           CASE WHEN l.level >= 50 THEN 'CRITICAL' WHEN l.level >= 40 THEN 'ERROR'
                WHEN l.level >= 30 THEN 'WARNING' WHEN l.level >= 20 THEN 'INFO' ELSE 'DEBUG' END AS level,
           json_extract(l.body, '$.source') AS source,
           json_extract(l.body, '$.message') AS message,
           json_extract(l.body, '$.context') AS context,
           coalesce(json_extract(l.body, '$.app'), r.app) AS app, r.pid AS pid, l.run AS run, l.body AS body
    FROM lines AS l LEFT JOIN runs AS r ON r.id = l.run;
"""

DEVICES_TABLE = """
CREATE TABLE IF NOT EXISTS devices (
    id INTEGER PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, position TEXT NOT NULL, seen_us INTEGER NOT NULL,
    connected INTEGER NOT NULL, crc INTEGER
)
"""
"""No part of a version: a file without it is a file without devices."""

COLLECTED_TABLE = """
CREATE TABLE IF NOT EXISTS collected (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL, seq INTEGER NOT NULL,
    stamp TEXT NOT NULL, seen_us INTEGER NOT NULL, crc INTEGER
)
"""
"""The same: a relay that collects nothing never makes it."""

FORWARDED_TABLE = """
CREATE TABLE IF NOT EXISTS forwarded (
    target TEXT PRIMARY KEY, journal TEXT NOT NULL, position TEXT NOT NULL, stream_seq INTEGER NOT NULL,
    made TEXT NOT NULL, crc INTEGER
) WITHOUT ROWID
"""
"""No part of a version, like the devices: made with its first row. A row that is lost or damaged costs that lines are
forwarded again, which whoever collects them refuses."""

_HOLES_TABLE = "CREATE TABLE holes (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);"

PURGED_TABLE = "CREATE TABLE IF NOT EXISTS purged (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);"
"""Made at each opening where it is not there, so that a file needs no new version for it."""

_TABLES = f"""
CREATE TABLE lines (
    seq INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, level INTEGER NOT NULL, source INTEGER NOT NULL,
    run INTEGER NOT NULL, body TEXT NOT NULL, crc INTEGER
);
CREATE INDEX lines_warning ON lines (seq, level, source) WHERE level >= 30 OR source = {NOTICE_SOURCE};
CREATE INDEX lines_source ON lines (source);
CREATE TABLE marks (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, relay_us INTEGER NOT NULL,
    min_us INTEGER NOT NULL, max_us INTEGER NOT NULL,
    debug INTEGER NOT NULL, info INTEGER NOT NULL, warning INTEGER NOT NULL, error INTEGER NOT NULL,
    critical INTEGER NOT NULL, crc INTEGER
);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL, app TEXT, crc INTEGER);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, app TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    started_ns INTEGER NOT NULL, last_seq INTEGER NOT NULL, last_us INTEGER NOT NULL, state TEXT NOT NULL,
    seen_us INTEGER NOT NULL, crc INTEGER
);
CREATE TABLE aliases (ordinal INTEGER PRIMARY KEY, alias TEXT NOT NULL UNIQUE);
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
{_HOLES_TABLE}
{PURGED_TABLE}
{_LOG_VIEW}
"""


def _add_app(db: sqlite3.Connection) -> None:
    """Version 1 to 2: a logger has a number for each app. No line is touched, so a full journal takes no longer."""
    db.execute("ALTER TABLE sources ADD COLUMN app TEXT")
    db.execute("DROP VIEW log")
    db.execute(_LOG_VIEW)


def _add_checksums(db: sqlite3.Connection) -> None:
    """Version 2 to 3: rows have a checksum. Those that are there have none, so no row is touched."""
    for table in ("lines", "marks", "sources", "runs"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
    db.execute(_HOLES_TABLE)
    db.execute(
        "INSERT INTO meta (key, value) "
        "SELECT 'oldest', coalesce((SELECT min(seq) FROM lines), (SELECT max(last) + 1 FROM marks), base.value + 1) "
        "FROM meta AS base WHERE base.key = 'base'"
    )


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _add_app, 2: _add_checksums}
"""From version n to n + 1, inside one transaction."""


def connect_writer(path: str, *, full: bool, log_bytes: int) -> sqlite3.Connection:
    """Open the one connection that writes. `full` syncs at every commit. Raises sqlite3.Error.

    A write-ahead log that had to grow is cut back to `log_bytes` when it starts over.
    """
    db = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS
    )
    try:
        db.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
        # Checkpoints are taken by hand (see sqlite.checkpoint): an automatic one would put its fsync into the
        # very commit that viewers are waiting for.
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute(f"PRAGMA journal_size_limit = {log_bytes}")
        # Some distributions build SQLite so that deleted rows are overwritten with zeros: retention would pay
        # for it twice, and whoever can read the file can read the lines that are still in it anyway.
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
    except BaseException:
        db.close()
        raise
    return db


def connect_reader(uri: str) -> sqlite3.Connection:
    """Open a connection that cannot write. Raises sqlite3.Error."""
    db = sqlite3.connect(
        uri,
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS,
    )
    try:
        db.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
        db.execute("PRAGMA query_only = ON")
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        db.close()
        raise
    return db


def create(path: str, *, epoch: str, base: int, created_us: int) -> None:
    """Make a complete, empty journal in the empty file at `path`; `base` is the head it goes on from.

    When this returns, every byte is in the file itself (no write-ahead log is left behind) and synced, so
    the file can be renamed into place. Raises sqlite3.Error, JournalError when this SQLite is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        allowed = ".".join(map(str, OLDEST_SQLITE))
        raise JournalError(f"SQLite {sqlite3.sqlite_version} is too old; at least {allowed} is needed", retry=False)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        # Has to be set before the first table is made; it is what lets retention give space back in small steps.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {VERSION};COMMIT;")
        db.execute("INSERT INTO sources (id, name) VALUES (?, ?)", (NOTICE_SOURCE, RELAY_SOURCE))
        db.executemany(
            "INSERT INTO meta (key, value) VALUES (?, ?)",
            [("epoch", epoch), ("base", base), ("oldest", base + 1), ("created_us", created_us)],
        )
        # Last: the mode is written into the header, and closing the only connection empties and removes the log.
        db.execute("PRAGMA journal_mode = WAL").fetchall()


def migrate(db: sqlite3.Connection) -> int:
    """Bring an older file to VERSION, one version per transaction; returns the version it had. Raises sqlite3.Error."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    found = version
    while version < VERSION:
        db.execute("BEGIN IMMEDIATE")
        try:
            MIGRATIONS[version](db)
            db.execute(f"PRAGMA user_version = {version + 1}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        version += 1
    return found
