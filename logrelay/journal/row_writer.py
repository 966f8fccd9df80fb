"""What a commit writes: lines, names, runs, aliases, devices, how far lines were collected and forwarded.

Owns: the INSERT statements with the checksum of each row, the numbers of the logger names, and which aliases are
remembered; which runs are is decided by `ingest/known_runs`. It must not begin or end transactions, nor know
files. Read `journal/retention` next: it marks the lines in the same transaction, and takes them away one day.

Why lines go in with a few long INSERTs: Python's sqlite3 gives up the GIL and asks for it back around every
row of an executemany, and the event loop pays. One statement that holds hundreds of rows asks once.
"""

from __future__ import annotations

from itertools import repeat
from operator import attrgetter
from typing import TYPE_CHECKING

from logrelay.journal.checksums import line_crcs, row_crc
from logrelay.journal.schema import (
    COLLECTED_TABLE,
    DEVICES_TABLE,
    FORWARDED_TABLE,
    MAX_SOURCES,
    NOTICE_SOURCE,
    OVERFLOW_SOURCE,
    SourceKey,
)
from logrelay.model import RELAY_RUN, CollectedRow, Commit, DeviceRow, ForwardRow, Line, Run
from logrelay.run_table import RunTable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

CHUNKS = (512, 64, 8, 1)
"""Rows per INSERT: four statements, prepared once each, make up any number."""
RUN_CHUNKS = (64, 8, 1)
"""Rows of runs per statement, for the same reason: while many bots come and go, a commit has one of each."""
MAX_ALIASES = 64
"""Provisional epochs remembered: one per time of trouble that viewers lived through."""

MOST_CHANGED_RUNS = 64
"""Runs that wait to be put into the table, half a kilobyte each; a machine has fewer bots at a time."""

_COLUMNS = 7
_INSERTS = {
    n: "INSERT INTO lines (seq, time_us, level, source, run, body, crc) VALUES "  # noqa: S608  (only counts)
    + ",".join(["(?, ?, ?, ?, ?, CAST(? AS TEXT), ?)"] * n)
    for n in CHUNKS
}
_RUN_COLUMNS = 11
_RUNS = {
    n: "REPLACE INTO runs (id, key, app, host, pid, started_ns, last_seq, last_us, state, seen_us, crc) VALUES "  # noqa: S608  (only counts)
    + ",".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * n)
    for n in RUN_CHUNKS
}
_DEVICE_COLUMNS = "id, owner, name, position, seen_us, connected"
_DEVICE = f"REPLACE INTO devices ({_DEVICE_COLUMNS}, crc) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  (only names)
_COLLECTED_COLUMNS = "id, kind, name, part, seq, stamp, seen_us"
_COLLECTED = f"REPLACE INTO collected ({_COLLECTED_COLUMNS}, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_FORWARDED = "REPLACE INTO forwarded (target, journal, position, stream_seq, made, crc) VALUES (?, ?, ?, ?, ?, ?)"
_ALIAS = "INSERT OR IGNORE INTO aliases (alias) VALUES (?)"

_name_of = attrgetter("source", "app", "run")


class RowWriter:
    """Writes commits and remembers what of them is not lines. Belongs to the thread that writes."""

    def __init__(self) -> None:
        """Know nothing yet; see `load`."""
        self._runs = RunTable()
        self._changed_runs: dict[int, Run] = {}
        """Runs by id that have changed since, in that order: putting one into the table is a part of a lone line."""
        self.aliases: list[str] = []
        self.devices: dict[int, DeviceRow] = {}
        self._has_devices = False
        """The file has the table."""
        self.collected: dict[int, CollectedRow] = {}
        self._has_collected = False
        """The file has the table."""
        self.forwarded: dict[str, ForwardRow] = {}
        self._has_forwarded = False
        self.names: Mapping[SourceKey, int] = {}
        """Source ids by logger name and app. Replaced, never changed: readers on other threads go through it."""
        self._new_names: dict[SourceKey, int] = {}
        self._last_name = NOTICE_SOURCE

    @property
    def runs(self) -> RunTable:
        """The runs that the file has."""
        if self._changed_runs:
            changed, self._changed_runs = self._changed_runs, {}
            self._runs.change(changed.values(), ())
        return self._runs

    def load(self, db: sqlite3.Connection) -> None:
        """Take over what a file holds. Raises sqlite3.Error, TypeError when the columns are not ours."""
        names = db.execute("SELECT name, app, id FROM sources WHERE id > ?", (NOTICE_SOURCE,))
        self.names, self._new_names = {(name, app): number for name, app, number in names}, {}
        self._last_name = max(self.names.values(), default=NOTICE_SOURCE)
        self.aliases = [row[0] for row in db.execute("SELECT alias FROM aliases ORDER BY ordinal")]
        self._has_devices = _has_table(db, "devices")
        self.devices = {row.id: row for row in read_devices(db)} if self._has_devices else {}
        self._has_collected = _has_table(db, "collected")
        self.collected = {row.id: row for row in read_collected(db)} if self._has_collected else {}
        self._has_forwarded = _has_table(db, "forwarded")
        self.forwarded = {row.target: row for row in read_forwarded(db)} if self._has_forwarded else {}
        columns = "id, key, app, host, pid, started_ns, last_seq, last_us, state, seen_us"
        rows = db.execute(f"SELECT {columns} FROM runs ORDER BY seen_us, id")  # noqa: S608  (only names of columns)
        self._runs, self._changed_runs = RunTable(Run(*row) for row in rows), {}

    def write(self, db: sqlite3.Connection, commit: Commit) -> None:
        """Write a commit in the transaction that is open; `confirm` makes it count. Raises sqlite3.Error."""
        if commit.lines:
            self._write_names(db, commit.lines)
            self._write_lines(db, commit.lines)
        if commit.runs:
            self.write_runs(db, commit.runs)
        if commit.aliases:
            self.write_aliases(db, commit.aliases)
        if commit.devices:
            self.write_devices(db, commit.devices)
        if commit.collected:
            self.write_collected(db, commit.collected)
        if commit.forwarded is not None:
            self._write_forwarded(db, commit.forwarded)
        if commit.forgotten:
            # Last, because commits are written together: a row may have been changed before it was forgotten.
            db.executemany("DELETE FROM runs WHERE id = ?", [(id_,) for id_, _ in commit.forgotten])

    def confirm(self, commit: Commit) -> None:
        """Remember what of the commit is not lines: the transaction is in the file."""
        self._new_names = {}
        if commit.forgotten:
            self.runs.change(commit.runs, commit.forgotten)
        else:
            for run in commit.runs:
                self._changed_runs[run.id] = run
            if len(self._changed_runs) > MOST_CHANGED_RUNS:
                self._runs = self.runs
        if commit.aliases:
            self.aliases += [alias for alias in commit.aliases if alias not in self.aliases]
        if commit.devices:
            self._has_devices = True
            self.devices |= {row.id: row for row in commit.devices}
        if commit.collected:
            self._has_collected = True
            self.collected |= {row.id: row for row in commit.collected}
        if commit.forwarded is not None:
            self._has_forwarded = True
            self.forwarded[commit.forwarded.target] = commit.forwarded

    def write_devices(self, db: sqlite3.Connection, devices: Iterable[DeviceRow]) -> None:
        """Write the rows of devices in the transaction that is open. Raises sqlite3.Error."""
        if not self._has_devices:
            db.execute(DEVICES_TABLE)
        rows = [(*row[:-1], int(row.connected)) for row in devices]
        db.executemany(_DEVICE, [(*row, row_crc(row)) for row in rows])

    def write_collected(self, db: sqlite3.Connection, collected: Iterable[CollectedRow]) -> None:
        """Write how far other machines were collected in the transaction that is open. Raises sqlite3.Error."""
        if not self._has_collected:
            db.execute(COLLECTED_TABLE)
        db.executemany(_COLLECTED, [(*row, row_crc(row)) for row in collected])

    def _write_forwarded(self, db: sqlite3.Connection, row: ForwardRow) -> None:
        if not self._has_forwarded:
            db.execute(FORWARDED_TABLE)
        db.execute(_FORWARDED, (*row, row_crc(row)))

    def _write_lines(self, db: sqlite3.Connection, lines: Sequence[Line]) -> None:
        at, count, values = 0, len(lines), _values(lines, self.names)
        for rows in CHUNKS:
            while count - at >= rows:
                db.execute(_INSERTS[rows], values[at * _COLUMNS : (at + rows) * _COLUMNS])
                at += rows

    def _write_names(self, db: sqlite3.Connection, lines: Sequence[Line]) -> None:
        """Give new logger names their numbers, as long as there are any.

        Readers get to know a name before the commit, never after: a filter must not miss its first line.
        A number given away in a commit that failed stays with its name, and is written with the next.
        """
        known = self.names
        if len(lines) == 1 and not self._new_names and (lines[0].source, lines[0].app) in known:
            return  # the usual line that comes alone
        # One by one: `set - known.keys()` goes through all that are known, and this is done with every commit.
        keys = set(map(_name_of, lines))
        unknown = {(source, app) for source, app, run in keys if run != RELAY_RUN and (source, app) not in known}
        for name in sorted(unknown)[: max(0, MAX_SOURCES - len(self.names))]:
            self._last_name += 1
            self._new_names[name] = self._last_name
        if self._new_names:
            self.names = {**self.names, **self._new_names}
            rows = [(number, *key) for key, number in self._new_names.items()]
            db.executemany(
                "INSERT INTO sources (id, name, app, crc) VALUES (?, ?, ?, ?)", [(*row, row_crc(row)) for row in rows]
            )

    def write_runs(self, db: sqlite3.Connection, runs: Iterable[Run]) -> None:
        """Insert or replace runs by id. Raises sqlite3.Error."""
        values: list[object] = []
        for r in runs:
            row = (r.id, r.key, r.app, r.host, r.pid, r.started_ns, r.last_seq, r.last_us, r.state, r.seen_us)
            values += (*row, row_crc(row))
        at, count = 0, len(values) // _RUN_COLUMNS
        for rows in RUN_CHUNKS:
            while count - at >= rows:
                db.execute(_RUNS[rows], values[at * _RUN_COLUMNS : (at + rows) * _RUN_COLUMNS])
                at += rows

    def write_aliases(self, db: sqlite3.Connection, aliases: Iterable[str]) -> None:
        """Insert aliases that are not there yet. Raises sqlite3.Error."""
        db.executemany(_ALIAS, [(alias,) for alias in aliases])

    @property
    def too_many(self) -> bool:
        """True when there is something to `forget`."""
        return len(self.aliases) > MAX_ALIASES

    def forget(self, db: sqlite3.Connection) -> None:
        """Forget the oldest aliases. Raises sqlite3.Error."""
        dropped, self.aliases = self.aliases[:-MAX_ALIASES], self.aliases[-MAX_ALIASES:]
        db.executemany("DELETE FROM aliases WHERE alias = ?", [(alias,) for alias in dropped])


def _values(lines: Sequence[Line], names: Mapping[SourceKey, int]) -> list[object]:
    """Return what the columns of some lines get, line by line; put together by columns, in half of the time."""
    seqs, times, levels, sources, runs, bodies, _, _, apps, clocks, *_ = zip(*lines, strict=True)
    if clocks.count(None) != len(lines):
        times = tuple(us if clock_us is None else clock_us for us, clock_us in zip(times, clocks, strict=True))
    numbers = list(map(names.get, zip(sources, apps, strict=True), repeat(OVERFLOW_SOURCE)))
    if RELAY_RUN in runs:
        numbers = [number if run else NOTICE_SOURCE for number, run in zip(numbers, runs, strict=True)]
    crcs = line_crcs(seqs, times, levels, numbers, runs, bodies)
    values: list[object] = [None] * (_COLUMNS * len(lines))
    for place, column in enumerate((seqs, times, levels, numbers, runs, bodies, crcs)):
        values[place::_COLUMNS] = column
    return values


def _has_table(db: sqlite3.Connection, name: str) -> bool:
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone())


def read_collected(db: sqlite3.Connection) -> list[CollectedRow]:
    """Return how far other machines were collected, of a file that has the table. Raises sqlite3.Error.

    A row that fails its checksum is left out: lines then come again, which is better than that some never come.
    """
    rows = db.execute(f"SELECT {_COLLECTED_COLUMNS}, crc FROM collected ORDER BY id")  # noqa: S608  (only columns)
    return [CollectedRow(*row) for *row, crc in rows if crc == row_crc(row)]


def read_devices(db: sqlite3.Connection) -> list[DeviceRow]:
    """Return the devices of a file that has their table. Raises sqlite3.Error."""
    rows = db.execute(f"SELECT {_DEVICE_COLUMNS} FROM devices ORDER BY id")  # noqa: S608  (only names of columns)
    return [DeviceRow(id_, owner, name, at, seen_us, bool(on)) for id_, owner, name, at, seen_us, on in rows]


def read_forwarded(db: sqlite3.Connection) -> list[ForwardRow]:
    """Return how far lines were forwarded, of a file that has the table, without damaged rows. Raises sqlite3.Error."""
    rows = db.execute("SELECT target, journal, position, stream_seq, made, crc FROM forwarded")
    return [ForwardRow(*row) for *row, crc in rows if crc == row_crc(row)]
