"""Finding the lines that can hold a text without reading all of them.

Owns: the tables `text_slabs` and `text_bits`, which are filled behind the head in small steps, and the stretches that a
question has to look at. It must not know filters of viewers (`journal/grams`) or threads. Read `journal/tallies` next:
it counts behind the head in the same way.

A commit writes nothing of it, but it waits behind a step, so every step does one small thing: it indexes some lines in
memory, puts some pieces into the filter of a full block, lays eight filters side by side (a millisecond), or writes a
part of a slab. The slab is written when it is full, its row in `text_slabs` last: what has no such row is looked at
line by line, whoever has written it. After a restart a slab that was not full begins again. What is in it is only ever
taken for "perhaps" or "no", and every part has a checksum; where one fails, nothing of the index is believed, and it is
made anew.

Both tables begin with a column that is never NULL, so that a rescue of a damaged file (`journal/salvage`, that of older
versions too) takes their rows for none of its own. An older version ignores them.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import insort
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from zlib import compress, crc32, decompress
from zlib import error as zlib_error

from logrelay.journal.grams import (
    BLOCKS,
    GROUP,
    LAYOUT,
    MOST_LINES,
    MOST_PIECES,
    PARTS,
    POSITIONS,
    Place,
    add_pieces,
    bits_at,
    empty_slab,
    indexed_text,
    lay_group,
    part_of,
    pieces_of,
)
from logrelay.journal.holes import first_gap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SLABS = """CREATE TABLE IF NOT EXISTS text_slabs (
    crc INTEGER NOT NULL, first INTEGER PRIMARY KEY, last INTEGER NOT NULL, starts BLOB NOT NULL
)"""
_BITS = """CREATE TABLE IF NOT EXISTS text_bits (
    crc INTEGER NOT NULL, id INTEGER PRIMARY KEY, bits BLOB NOT NULL
)"""
STEP_LINES = 64
"""Lines indexed in one step: about a millisecond, if they are as short as a bot's mostly are."""
STEP_BYTES = 64 * 1024
"""Bodies indexed in one step; longer ones end it before `STEP_LINES`. A body longer than that takes a step alone."""
STEP_PIECES = 6_000
"""Pieces put into the filter of a full block in one step: some two milliseconds, two or three times for most blocks."""
STEP_PARTS = 16
"""Parts of a slab written in one transaction: 60 kB at most, some two milliseconds and the commit."""
PAGES = 2 * STEP_PARTS
"""What a step writes at most, in pages of the file."""
MOST_SLABS = 100_000
"""Slabs that are looked at by one question; a journal of a thousand million lines has fewer."""


class Stretch(NamedTuple):
    """Lines `first` to `last`, ends included."""

    first: int
    last: int
    perhaps: bool
    """False: none of them holds the text; of notices nothing is said."""


class DamagedIndexError(Exception):
    """What is stored is not what was written."""


class TextIndex:
    """The index of one journal. Steps belong to the thread that writes, `stretches` to any."""

    def __init__(self, *, usable: bool = False) -> None:
        """Know nothing yet, see `load`; `usable`: only ask what is in the file, if it is there."""
        self.damaged = False
        """A reader has found damage, or rows of another layout: nothing is believed until the index was emptied."""
        self.usable = usable
        """True: the tables are there."""
        self._ranges: list[tuple[int, int]] = []
        """First and last line of each slab, ascending."""
        self._begin()

    def _begin(self) -> None:
        self._first = 0
        """First line of the slab that is being made; 0: none is."""
        self._next = 0
        """The line that comes next."""
        self._end = 0
        """Where it has to end, because what follows is indexed."""
        self._filters: list[bytearray] = []
        self._starts = array("I")
        self._block: set[int] = set()
        self._block_lines = 0
        self._pieces: Iterator[int] | None = None
        """Those of a full block that its filter, the last one, lacks; None: no block is full."""
        self._slab = bytearray()
        """A full slab, into which the filters are laid, and which then is written. Empty: there is none."""
        self._laid = 0
        """Groups of filters that are in it."""
        self._written = 0

    # --- the thread that writes -----------------------------------------------------------------------------------

    def load(self, db: sqlite3.Connection) -> None:
        """Make the tables where they are missing, and take over what they hold. Raises sqlite3.Error."""
        self._begin()
        for table in (_SLABS, _BITS):
            db.execute(table)
        self._ranges = db.execute("SELECT first, last FROM text_slabs ORDER BY first").fetchall()
        self.damaged, self.usable = False, True

    def drop(self, db: sqlite3.Connection) -> None:
        """Take the tables away: nobody wants them, and they take space. Raises sqlite3.Error."""
        self._begin()
        self._ranges, self.usable = [], False
        for table in ("text_slabs", "text_bits"):
            db.execute(f"DROP TABLE IF EXISTS {table}")

    def due(self, oldest: int, head: int) -> bool:
        """Tell whether `step` has something to do."""
        if not self.usable:
            return False
        outdated = bool(self._ranges) and self._ranges[0][1] < oldest
        return self.damaged or outdated or self._is_under_way or self._lines_left(oldest, head) >= STEP_LINES

    def behind(self, oldest: int, head: int) -> int:
        """Return how many lines are not in the index yet, up to the head; those that wait in memory count as in it."""
        return max(0, self._lines_left(oldest, head)) if self.usable else 0

    @property
    def _is_under_way(self) -> bool:
        return self._pieces is not None or bool(self._slab)

    def _lines_left(self, oldest: int, head: int) -> int:
        if self._first and self._next > oldest:
            return min(head, self._end) - self._next + 1
        first, end = first_gap(self._ranges, oldest)
        return min(head, end) - first + 1

    def step(self, db: sqlite3.Connection, oldest: int, head: int) -> int:
        """Do a little of what there is to do; returns the pages that were written at most. Raises sqlite3.Error."""
        if self._ranges and (self.damaged or self._ranges[0][1] < oldest):
            # One at a time, as all of them take seconds, in which every commit would wait.
            self._forget_slab(db, self._ranges[0][0])
            return PAGES
        if self.damaged:
            self._begin()
            self.damaged = False
            return 0
        if self.will_write:
            return self._write_some(db)
        if not self._first or self._first < oldest:
            self._begin()
            self._first, self._end = first_gap(self._ranges, oldest)
            self._next = self._first
        if self._slab:
            lay_group(self._slab, self._filters, self._laid)
            self._laid += 1
        elif self._pieces is not None:
            self._go_on_with_filter(self._pieces)
        else:
            self._index_some(db, head)
        return 0

    @property
    def will_write(self) -> bool:
        """True when the next step needs room in the file."""
        return bool(self._slab) and self._laid * GROUP >= len(self._filters)

    def forget(self, db: sqlite3.Connection, first: int = 0, last: int = 1 << 62) -> None:
        """Forget what is indexed of a stretch of lines; it is indexed anew.

        In the transaction that is open, if one is: whoever takes lines away for what they say calls it there, and so
        leaves nothing of them. Raises sqlite3.Error.
        """
        self._begin()
        for start, end in list(self._ranges):
            if end >= first and start <= last:
                self._forget_slab(db, start)
        self.damaged = False

    def _forget_slab(self, db: sqlite3.Connection, first: int) -> None:
        # Its row first: parts without one are nothing, whatever happens in between.
        db.execute("DELETE FROM text_slabs WHERE first = ?", (first,))
        db.execute("DELETE FROM text_bits WHERE id BETWEEN ? AND ?", (first * PARTS, first * PARTS + PARTS - 1))
        self._ranges = [pair for pair in self._ranges if pair[0] != first]

    def _index_some(self, db: sqlite3.Connection, head: int) -> None:
        upto = min(head, self._end, self._next + STEP_LINES - 1)
        texts, size = [], 0
        rows = db.execute(
            "SELECT seq, CAST(body AS BLOB) FROM lines NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq",
            (self._next, upto),
        )
        for seq, body in rows:
            texts.append(indexed_text(body))
            size += len(body)
            if size >= STEP_BYTES:
                upto = seq
                break
        rows.close()
        if not self._block_lines:
            self._starts.append(self._next - self._first)
        self._block |= pieces_of(texts)
        self._block_lines += upto - self._next + 1
        self._next = upto + 1
        if self._next > self._end or self._block_lines >= MOST_LINES or len(self._block) >= MOST_PIECES:
            self._filters.append(bytearray(POSITIONS))
            self._pieces = iter(self._block)
            self._block, self._block_lines = set(), 0

    def _go_on_with_filter(self, pieces: Iterator[int]) -> None:
        some = list(islice(pieces, STEP_PIECES))
        add_pieces(self._filters[-1], some)
        if len(some) == STEP_PIECES:
            return
        self._pieces = None
        if self._next > self._end or len(self._filters) == BLOCKS:
            self._slab = empty_slab()

    def _write_some(self, db: sqlite3.Connection) -> int:
        first, last = self._first, self._next - 1
        parts = range(self._written, self._written + STEP_PARTS)
        rows = [(first * PARTS + part, compress(part_of(self._slab, part), 1)) for part in parts]
        is_last = self._written + STEP_PARTS >= PARTS
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "REPLACE INTO text_bits (crc, id, bits) VALUES (?, ?, ?)",
                [(_crc(id_, bits), id_, bits) for id_, bits in rows],
            )
            if is_last:
                starts = self._starts.tobytes()
                row = (_crc(first, starts + str(last).encode()), first, last, starts)
                db.execute("REPLACE INTO text_slabs (crc, first, last, starts) VALUES (?, ?, ?, ?)", row)
        self._written += STEP_PARTS
        if is_last:
            insort(self._ranges, (first, last))
            self._begin()
        return STEP_PARTS

    # --- any thread -------------------------------------------------------------------------------------------------

    def stretches(
        self, db: sqlite3.Connection, places: Sequence[Place], low: int, high: int, *, newest: bool
    ) -> Iterator[Stretch]:
        """Cut `low < seq <= high` into stretches, in walking order; to be used up in one read transaction.

        What is damaged is looked at line by line, and noted in `damaged`.
        """
        order = "DESC" if newest else "ASC"
        columns = "first, last, starts, crc"
        sql = f"SELECT {columns} FROM text_slabs WHERE last > ? AND first <= ? ORDER BY first {order} LIMIT ?"  # noqa: S608
        at = high if newest else low + 1
        try:
            slabs = [] if self.damaged else db.execute(sql, (low, high, MOST_SLABS)).fetchall()
        except sqlite3.DatabaseError:
            self.damaged = True
            slabs = []
        for first, last, starts, crc in slabs:
            if newest and last < at:
                yield Stretch(last + 1, at, perhaps=True)
            elif not newest and first > at:
                yield Stretch(at, first - 1, perhaps=True)
            try:
                _check(isinstance(starts, bytes) and crc == _crc(first, starts + str(last).encode()))
                blocks = _blocks(first, last, starts, _bits(db, first, places))
            except (DamagedIndexError, sqlite3.DatabaseError):
                self.damaged = True
                blocks = [Stretch(first, last, perhaps=True)]
            for block in reversed(blocks) if newest else blocks:
                start, end = max(block.first, low + 1), min(block.last, high)
                if start <= end:
                    yield Stretch(start, end, block.perhaps)
            at = first - 1 if newest else last + 1
        if newest and at > low:
            yield Stretch(low + 1, at, perhaps=True)
        elif not newest and at <= high:
            yield Stretch(at, high, perhaps=True)


def _check(sound: bool) -> None:
    if not sound:
        raise DamagedIndexError


def _bits(db: sqlite3.Connection, first: int, places: Sequence[Place]) -> int:
    """Return bit by bit which blocks of a slab have all pieces."""
    bits = (1 << BLOCKS) - 1
    parts: dict[int, bytes] = {}
    for place in places:
        part = parts.get(place[0])
        if part is None:
            id_ = first * PARTS + place[0]
            row = db.execute("SELECT bits, crc FROM text_bits WHERE id = ?", (id_,)).fetchone()
            _check(row is not None and isinstance(row[0], bytes) and _crc(id_, row[0]) == row[1])
            try:
                part = parts[place[0]] = decompress(row[0])
            except zlib_error:
                raise DamagedIndexError from None
        bits &= bits_at(part, place)
        if not bits:
            break
    return bits


def _blocks(first: int, last: int, starts: bytes, bits: int) -> list[Stretch]:
    """Return the blocks of a slab, ascending; neighbours that are to be treated alike are one stretch."""
    offsets = array("I", starts)
    found: list[Stretch] = []
    for number, offset in enumerate(offsets):
        end = first + offsets[number + 1] - 1 if number + 1 < len(offsets) else last
        perhaps = bool(bits >> number & 1)
        if found and not perhaps and not found[-1].perhaps:
            found[-1] = Stretch(found[-1].first, end, perhaps)
        else:
            found.append(Stretch(first + offset, end, perhaps))
    return found


def _crc(id_: int, content: bytes) -> int:
    return crc32(content, crc32(LAYOUT, id_ & 0xFFFFFFFF))
