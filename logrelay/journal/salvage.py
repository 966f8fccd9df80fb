"""A sound journal made of what is readable in a damaged one.

Owns: which rows of the damaged file are taken, and how marks, logger names, epochs and holes are made up for what is
lost. It must not rename files or decide when it is called. Read `journal/retention` next.

The raw pages of the file are read, never its trees: a damaged page then costs its own rows and no others, whichever
page it is. What a row is, its shape says; whether it is true, its checksum. Lines of older versions, which have none,
have to look like a line of their number. It reads and writes some 100,000 lines in a second.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import orjson

from logrelay.fanout.positions import MAX_EPOCHS, Epoch
from logrelay.journal import schema
from logrelay.journal.checksums import is_a_line, line_crc, row_crc
from logrelay.journal.holes import Range, merge
from logrelay.journal.opening_record import read, write_epochs
from logrelay.journal.pages import RawPages, Value
from logrelay.journal.row_writer import RowWriter
from logrelay.journal.schema import NOTICE_SOURCE
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, WARNING, CollectedRow, DeviceRow, Run

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM_FACTOR = 1.2
"""Free disk that salvaging needs, as a multiple of the damaged file: the copy, its indexes, a little log."""
STEP_PAGES = 256
"""Pages between two reports of progress: a megabyte."""
MARK_LINES = 1024
"""Lines in a block that has to be made up, as in `retention`."""

_DEVICE_COLUMNS, _COLLECTED_COLUMNS = 7, 8
_LINE_COLUMNS, _MARK_COLUMNS, _RUN_COLUMNS, _SOURCE_COLUMNS = (6, 7), (10, 11), (10, 11), (2, 3, 4)
_META_NUMBERS = {"base": 0, "oldest": 1, "created_us": 0, "believed_us": 0, "clock_doubt_us": -(1 << 62)}
_META_TEXTS = frozenset({"epoch", "epochs", "boot", "sync", "closed"})
"""The keys of `meta`, and the least that the numbers may be."""
_EPOCH = re.compile(r"[a-z0-9]{1,16}")
_LEVELS = (DEBUG, INFO, WARNING, ERROR, CRITICAL)
_INSERT_LINE = (
    "INSERT OR IGNORE INTO lines (seq, time_us, level, source, run, body, crc) "
    "VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?)"
)
_INSERT_MARK = (
    "REPLACE INTO marks (first, last, relay_us, min_us, max_us, debug, info, warning, error, critical, crc) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(slots=True)
class Known:
    """What is known of the damaged journal from elsewhere: its memory, when the relay was running."""

    epochs: list[Epoch] = field(default_factory=list)
    """The newest last."""
    oldest: int | None = None
    head: int | None = None
    runs: list[Run] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    devices: list[DeviceRow] = field(default_factory=list)
    collected: list[CollectedRow] = field(default_factory=list)


@dataclass(slots=True)
class Salvaged:
    """What a salvage came to."""

    epochs: list[Epoch]
    """Those of its lines, the newest last; one at least."""
    new: bool
    """No epoch could be read: the one that is there is new, and no line has it."""
    oldest: int
    head: int
    """The newest line that is known of. There may have been newer ones: an opening has an epoch of its own anyway."""
    lines: int
    holes: list[Range]

    @property
    def lost(self) -> int:
        """How many lines are known to be missing."""
        return sum(last - first + 1 for first, last in self.holes)


@dataclass(slots=True)
class _Rows:
    """The rows of the small tables, by key; of two with one key the later."""

    marks: dict[int, tuple[int, ...]] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    sources: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    aliases: dict[int, str] = field(default_factory=dict)
    holes: list[Range] = field(default_factory=list)
    devices: dict[int, DeviceRow] = field(default_factory=dict)
    collected: dict[int, CollectedRow] = field(default_factory=dict)


def salvage(
    damaged_path: str,
    path: str,
    *,
    known: Known,
    random_epoch: Callable[[], str],
    now_us: Callable[[], int],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Salvaged:
    """Make a complete journal in the empty file at `path` of what can be read at `damaged_path`, which nobody has open.

    `progress` is told of the pages read and their number. Raises sqlite3.Error and OSError for the new file.
    """
    pages = RawPages(damaged_path)
    with closing(pages):
        free = pages.free()
        meta = _read_meta(pages, free)
        created_us = _number(meta.get("created_us")) or now_us()
        schema.create(path, epoch="unknown", base=0, created_us=created_us)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")  # put in place, and synced, as a whole
            db.execute("BEGIN")
            rows = _copy(pages, free, db, progress)
            result = _complete(db, rows, known, now_us, meta)
            epochs = known.epochs or _epochs(db, meta, result.head)
            new = not epochs
            if new:
                epochs = [Epoch(random_epoch(), result.head + 1)]
            own = {"base": result.head, "oldest": result.oldest}
            db.executemany("REPLACE INTO meta (key, value) VALUES (?, ?)", {**meta, **own}.items())
            write_epochs(db, epochs)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return replace(result, epochs=epochs, new=new)


def _read_meta(pages: RawPages, free: set[int]) -> dict[str, int | str]:
    """Return the rows of the table `meta`, of which no value is trusted that does not look like one of ours."""
    meta: dict[str, int | str] = {}
    for number in range(1, len(pages) + 1):
        for key, value in pages.pairs(number) if number not in free else ():
            name = key.decode("utf-8", "replace")
            if name in _META_NUMBERS and isinstance(value, int) and value >= _META_NUMBERS[name]:
                meta[name] = value
            elif name in _META_TEXTS and isinstance(value, bytes) and value.isascii() and value.decode().isprintable():
                meta[name] = value.decode()
    if not _EPOCH.fullmatch(str(meta.get("epoch"))):
        meta.pop("epoch", None)
    return meta


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _copy(pages: RawPages, free: set[int], db: sqlite3.Connection, progress: Callable[[int, int], None]) -> _Rows:
    rows = _Rows()
    for start in range(1, len(pages) + 1, STEP_PAGES):
        stop = min(start + STEP_PAGES, len(pages) + 1)
        lines = []
        for number in range(start, stop):
            if number in free:
                continue  # what retention took away must not come back
            for rowid, columns in pages.rows(number):
                line = _line(rowid, columns)
                if line is not None:
                    lines.append(line)
                else:
                    _take_small(rows, rowid, columns)
        db.executemany(_INSERT_LINE, lines)
        progress(stop - 1, len(pages))
    return rows


def _line(seq: int, columns: list[Value]) -> tuple[object, ...] | None:
    """Return the row of a line that is true."""
    if len(columns) not in _LINE_COLUMNS or columns[0] is not None or seq < 1:
        return None
    time_us, level, source, run, body = columns[1:6]
    crc = columns[6] if len(columns) > 6 else None
    if not (
        isinstance(time_us, int)
        and isinstance(level, int)
        and isinstance(source, int)
        and isinstance(run, int)
        and isinstance(body, bytes)
    ):
        return None
    if crc is None:
        return (seq, time_us, level, source, run, body, None) if is_a_line(seq, body) else None
    if crc != line_crc(seq, time_us, level, source, run, body):
        return None
    return seq, time_us, level, source, run, body, crc


def _take_small(rows: _Rows, rowid: int, columns: list[Value]) -> None:
    """Take a row of one of the small tables, if it is one and is true."""
    if not columns or columns[0] is not None:
        return
    try:
        if len(columns) in _MARK_COLUMNS and all(isinstance(value, int) for value in columns[1:10]):
            _take_mark(rows, rowid, columns)
        elif len(columns) in _RUN_COLUMNS and isinstance(columns[1], bytes):
            _take_run(rows, rowid, columns)
        elif len(columns) == _DEVICE_COLUMNS and isinstance(columns[1], bytes):
            _take_device(rows, rowid, columns)
        elif len(columns) == _COLLECTED_COLUMNS and isinstance(columns[1], bytes):
            _take_collected(rows, rowid, columns)
        elif len(columns) == 2 and isinstance(columns[1], int):
            if 0 < rowid <= columns[1]:
                rows.holes.append((rowid, columns[1]))
        elif len(columns) == 2 and isinstance(columns[1], bytes) and b"." in columns[1]:
            rows.aliases[rowid] = columns[1].decode()
        elif len(columns) in _SOURCE_COLUMNS and isinstance(columns[1], bytes) and rowid > NOTICE_SOURCE:
            app = columns[2] if len(columns) > 2 else None
            values = (rowid, columns[1].decode(), app.decode() if isinstance(app, bytes) else None)
            if len(columns) < 4 or columns[3] is None or columns[3] == row_crc(values):
                rows.sources.setdefault(rowid, values[1:])
    except UnicodeDecodeError:
        return


def _take_mark(rows: _Rows, rowid: int, columns: list[Value]) -> None:
    values = (rowid, *(value for value in columns[1:10] if isinstance(value, int)))
    crc = columns[10] if len(columns) > 10 else None
    sensible = 0 < rowid <= values[1] and values[3] <= values[4]
    if sensible and crc in (None, row_crc(values)) and values[1] >= rows.marks.get(rowid, values)[1]:
        rows.marks[rowid] = values


def _take_run(rows: _Rows, rowid: int, columns: list[Value]) -> None:
    key, app, host, pid, started_ns, last_seq, last_us, state, seen_us = columns[1:10]
    if not (isinstance(app, bytes) and isinstance(host, bytes) and isinstance(state, bytes) and isinstance(key, bytes)):
        return
    if not (isinstance(pid, int) and isinstance(started_ns, int) and isinstance(last_seq, int)):
        return
    if not (isinstance(last_us, int) and isinstance(seen_us, int)):
        return
    values = (rowid, key, app.decode(), host.decode(), pid, started_ns, last_seq, last_us, state.decode(), seen_us)
    crc = columns[10] if len(columns) > 10 else None
    if crc in (None, row_crc(values)) and (rowid not in rows.runs or last_seq >= rows.runs[rowid].last_seq):
        rows.runs[rowid] = Run(*values)


def _take_device(rows: _Rows, rowid: int, columns: list[Value]) -> None:
    owner, name, position, seen_us, connected, crc = columns[1:]
    if not (isinstance(owner, bytes) and isinstance(name, bytes) and isinstance(position, bytes)):
        return
    if not (isinstance(seen_us, int) and isinstance(connected, int)):
        return
    values = (rowid, owner.decode(), name.decode(), position.decode(), seen_us)
    if crc == row_crc((*values, connected)) and (rowid not in rows.devices or seen_us >= rows.devices[rowid].seen_us):
        rows.devices[rowid] = DeviceRow(*values, bool(connected))


def _take_collected(rows: _Rows, rowid: int, columns: list[Value]) -> None:
    kind, name, part, seq, stamp, seen_us, crc = columns[1:]
    if not (isinstance(kind, bytes) and isinstance(name, bytes) and isinstance(part, bytes)):
        return
    if not (isinstance(stamp, bytes) and isinstance(seq, int) and isinstance(seen_us, int)):
        return
    row = CollectedRow(rowid, kind.decode(), name.decode(), part.decode(), seq, stamp.decode(), seen_us)
    if crc == row_crc(row) and (rowid not in rows.collected or seen_us >= rows.collected[rowid].seen_us):
        rows.collected[rowid] = row


def _complete(
    db: sqlite3.Connection, rows: _Rows, known: Known, now_us: Callable[[], int], meta: dict[str, int | str]
) -> Salvaged:
    """Fill the other tables, and find what is missing."""
    newest: int = db.execute("SELECT coalesce(max(seq), 0) FROM lines").fetchone()[0]
    marked = max((mark[1] for mark in rows.marks.values()), default=0)
    told = max((last for _, last in rows.holes), default=0)
    # Lines and marks are written together. Where one of the two is behind, its newest page is lost, and the other says
    # how far the journal went.
    head = known.head if known.head is not None else max(newest, marked, told, _number(meta.get("base")))
    oldest: int = db.execute("SELECT min(seq) FROM lines").fetchone()[0] or (head + 1)
    starts = [first for first in (_number(meta.get("oldest")), *(first for first, _ in rows.holes)) if first > 0]
    oldest = known.oldest if known.oldest is not None else min([oldest, *starts])
    db.execute("DELETE FROM lines WHERE seq < ? OR seq > ?", (oldest, head))
    holes = merge(
        [
            *db.execute(
                "SELECT prev + 1, seq - 1 FROM (SELECT seq, lag(seq, 1, ?) OVER (ORDER BY seq) AS prev FROM lines) "
                "WHERE seq > prev + 1",
                (oldest - 1,),
            )
        ]
    )
    last: int = db.execute("SELECT coalesce(max(seq), ?) FROM lines", (oldest - 1,)).fetchone()[0]
    if last < head:
        holes = merge([*holes, (last + 1, head)])
    db.executemany("INSERT INTO holes (first, last) VALUES (?, ?)", holes)
    _complete_marks(db, rows, oldest, head, now_us)
    _complete_sources(db, rows)
    writer = RowWriter()
    writer.write_runs(db, known.runs or rows.runs.values())
    writer.write_aliases(db, known.aliases or [rows.aliases[n] for n in sorted(rows.aliases)])
    devices = known.devices or list(rows.devices.values())
    if devices:
        writer.write_devices(db, devices)
    collected = known.collected or list(rows.collected.values())
    if collected:
        writer.write_collected(db, collected)
    lines: int = db.execute("SELECT count(*) FROM lines").fetchone()[0]
    return Salvaged(epochs=[], new=False, oldest=oldest, head=head, lines=lines, holes=holes)


def _complete_marks(db: sqlite3.Connection, rows: _Rows, oldest: int, head: int, now_us: Callable[[], int]) -> None:
    """Keep the marks that are there, counts put right, and make up those that are not: in order, without overlap."""
    made: list[tuple[int, ...]] = []
    at, relay_us = oldest, min((mark[2] for mark in rows.marks.values()), default=now_us())
    floor_us = min((mark[3] for mark in rows.marks.values()), default=0)
    for first in [*sorted(rows.marks), head + 1]:
        while at < first:
            last = min(at + MARK_LINES, first) - 1
            made.append((at, last, relay_us, floor_us, 1 << 62))
            at = last + 1
        if first > head or first < at:
            continue
        _, last, mark_us, min_us, max_us, *_ = rows.marks[first]
        relay_us = max(relay_us, mark_us)
        last = min(last, head)
        made.append((first, last, relay_us, min_us, max_us))
        at = last + 1
    for first, last, when_us, min_us, max_us in made:
        counts = Counter(
            dict(
                db.execute("SELECT level, count(*) FROM lines WHERE seq BETWEEN ? AND ? GROUP BY level", (first, last))
            )
        )
        row = (first, last, when_us, min_us, max_us, *(counts[level] for level in _LEVELS))
        db.execute(_INSERT_MARK, (*row, row_crc(row)))


def _complete_sources(db: sqlite3.Connection, rows: _Rows) -> None:
    """Keep the logger names, and read those that are lost out of the lines that have their number."""
    lost = db.execute(
        "SELECT source, CAST(max(body) AS BLOB) FROM lines WHERE source > ? GROUP BY source", (NOTICE_SOURCE,)
    )
    for number, body in lost.fetchall():
        if number not in rows.sources:
            shape = orjson.loads(body)
            rows.sources[number] = (str(shape.get("source")), shape.get("app"))
    for number, (name, app) in rows.sources.items():
        row = (number, name, app)
        db.execute("REPLACE INTO sources (id, name, app, crc) VALUES (?, ?, ?, ?)", (*row, row_crc(row)))


def _epochs(db: sqlite3.Connection, meta: dict[str, int | str], head: int) -> list[Epoch]:
    """Return the epochs that the journal has written down, and those that only the ids of its lines tell of."""
    try:
        epochs = [epoch for epoch in read(meta) if _EPOCH.fullmatch(epoch.name) and epoch.first > 0]
    except (KeyError, TypeError):
        epochs = []
    noted = bool(epochs)
    names = {epoch.name for epoch in epochs}
    row = db.execute("SELECT max(seq) FROM lines WHERE seq <= ?", (head,)).fetchone()
    last = row[0] or 0
    at = _line_from(db, 1) if last else None
    while at is not None:
        start, name = at
        if name not in names and _EPOCH.fullmatch(name):
            names.add(name)
            # Whether several openings shared it is not known where nothing is: then ids are trusted less.
            epochs.append(Epoch(name, start, shared=not noted))
        at = _next_epoch(db, start, name, last)
    return sorted(epochs, key=lambda epoch: epoch.first)[-MAX_EPOCHS:]


def _next_epoch(db: sqlite3.Connection, start: int, name: str, last: int) -> tuple[int, str] | None:
    """Return the first line after `start` that has another epoch: those of one epoch lie side by side."""
    end = _line_from(db, last)
    if end is None or end[1] == name:
        return None
    low, high, found = start, last, end
    while high - low > 1:
        middle = (low + high) // 2
        line = _line_from(db, middle)
        if line is not None and line[1] == name:
            low = line[0]
        else:
            high, found = middle, line or found
    return found


def _line_from(db: sqlite3.Connection, seq: int) -> tuple[int, str] | None:
    """Return seq and epoch of the first line from `seq` on; a provisional epoch is that of its opening."""
    row = db.execute("SELECT seq, CAST(body AS BLOB) FROM lines WHERE seq >= ? ORDER BY seq LIMIT 1", (seq,)).fetchone()
    if row is None:
        return None
    return row[0], str(orjson.loads(row[1]).get("id")).partition("-")[0].partition(".")[0]
