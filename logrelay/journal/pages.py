"""Rows in the raw pages of a file that SQLite cannot read, or of which it does not find all pages any more.

Owns: the part of SQLite's file format that is needed for it (fileformat2.html): leaf pages of tables, records, overflow
chains, and the frames of a write-ahead log. It must not decide which rows are true: it gives what has the form of a
row, and whoever asks holds it to its checksum. It opens files for reading only. Read `journal/verify` next: it looks
for damage while SQLite can still read the file.
"""

from __future__ import annotations

import sys
from array import array
from pathlib import Path
from struct import Struct, error
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Value = int | bytes | None
"""What a column holds: a text comes as its bytes."""

PAGE_SIZE = 4096
"""The only size our files have; a damaged header is not asked."""
TABLE_LEAF, INDEX_LEAF = 13, 10
"""First byte of a leaf page of a table, and of an index or a table without rowids."""
FILE_HEADER = 100
"""Bytes before the b-tree header of page 1."""
LOG_HEADER, FRAME_HEADER = 32, 24
MOST_PAYLOAD = 1 << 20
"""Longer than any row of ours (a body is at most some 400 KiB): a larger length is damage."""
MOST_IN_TABLE, MOST_IN_INDEX = PAGE_SIZE - 35, (PAGE_SIZE - 12) * 64 // 255 - 23
"""Bytes of a record that its page holds; the rest of a longer one is in overflow pages."""
MOST_COLUMNS = 16
_INT_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
LOG_MAGIC = 0x377F0682
"""First word of a log; its last bit says that checksums are of big-endian words."""
_LEAF, _WORD = Struct(">BHHHB"), Struct(">I")
_FRAME = Struct(">II")


class RawPages:
    """The pages of one file as its last committed transaction left them: the log's, where it has them, else the file's.

    Holds two descriptors and the places of the log's pages until `close`.
    """

    def __init__(self, path: str) -> None:
        """Open the file and its log. Raises OSError; a missing file has no pages."""
        self._file = Path(path).open("rb") if Path(path).exists() else None  # noqa: SIM115  (see `close`)
        self._count = Path(path).stat().st_size // PAGE_SIZE if self._file is not None else 0
        self._log = None
        self._in_log: dict[int, int] = {}
        """Offset in the log by page number."""
        log = Path(path + "-wal")
        if log.exists() and log.stat().st_size > LOG_HEADER:
            self._log = log.open("rb")
            self._find_frames()
        self._count = max(self._count, max(self._in_log, default=0))

    def __len__(self) -> int:
        """Return the number of the last page."""
        return self._count

    def free(self) -> set[int]:
        """Return the pages that hold nothing any more; none, where the list of them is damaged."""
        free: set[int] = set()
        trunk = int.from_bytes(self.page(1)[32:36], "big")
        while trunk and trunk not in free and trunk <= self._count:
            page = self.page(trunk)
            if not page:
                return set()
            free.add(trunk)
            trunk, leaves = _FRAME.unpack_from(page)
            if leaves > PAGE_SIZE // 4 - 2:
                return set()
            free.update(_WORD.unpack_from(page, 8 + 4 * n)[0] for n in range(leaves))
        return free

    def close(self) -> None:
        """Close both files."""
        for file in (self._file, self._log):
            if file is not None:
                file.close()

    def _find_frames(self) -> None:
        """Note where the committed pages of the log are.

        A frame that is damaged does not end the log, as it would for SQLite: what is behind it was committed as well,
        and rows have checksums of their own.
        """
        assert self._log is not None
        header = self._log.read(LOG_HEADER)
        salt, place = log_salt(header, self._log.read(FRAME_HEADER)), LOG_HEADER
        self._log.seek(place)
        pending: dict[int, int] = {}
        # What is in neither file is not there: a number beyond it is damaged, and would make pages without end.
        most = self._count + Path(self._log.name).stat().st_size // (FRAME_HEADER + PAGE_SIZE)
        while len(frame := self._log.read(FRAME_HEADER)) == FRAME_HEADER:
            number, pages_after_commit = _FRAME.unpack_from(frame)
            if frame[8:16] == salt and 0 < number <= most:
                pending[number] = place + FRAME_HEADER
                if pages_after_commit:
                    self._in_log.update(pending)
                    pending = {}
            place += FRAME_HEADER + PAGE_SIZE
            self._log.seek(place)

    def page(self, number: int) -> bytes:
        """Return a page, empty when it cannot be read."""
        file, place = self._file, (number - 1) * PAGE_SIZE
        if number in self._in_log:
            file, place = self._log, self._in_log[number]
        if file is None or number < 1:
            return b""
        try:
            file.seek(place)
            page = file.read(PAGE_SIZE)
        except OSError:
            return b""
        return page if len(page) == PAGE_SIZE else b""

    def rows(self, number: int) -> Iterator[tuple[int, list[Value]]]:
        """Give what has the form of a row on a page: rowid and columns. A page of another kind has none."""
        page = self.page(number)
        for at in _cells(page, TABLE_LEAF, FILE_HEADER if number == 1 else 0):
            row = self._row(page, at)
            if row is not None:
                yield row

    def pairs(self, number: int) -> Iterator[tuple[bytes, Value]]:
        """Give what has the form of a row of two columns, the first a text, in an index or a table without rowids."""
        page = self.page(number)
        for at in _cells(page, INDEX_LEAF, 0):
            try:
                length, start = _varint(page, at)
                payload = self._payload(page, start, length, MOST_IN_INDEX)
                columns = _columns(payload) if payload else []
            except (IndexError, ValueError, error):
                continue
            if len(columns) == 2 and isinstance(columns[0], bytes):
                yield columns[0], columns[1]

    def _row(self, page: bytes, at: int) -> tuple[int, list[Value]] | None:
        try:
            length, at = _varint(page, at)
            rowid, at = _varint(page, at)
            payload = self._payload(page, at, length, MOST_IN_TABLE)
            return (rowid, _columns(payload)) if payload is not None else None
        except (IndexError, ValueError, error):
            return None

    def _payload(self, page: bytes, at: int, length: int, most: int) -> bytes | None:
        """Return a record, its overflow pages included; `most` bytes of one are in the page."""
        if not 0 < length <= MOST_PAYLOAD:
            return None
        least = (PAGE_SIZE - 12) * 32 // 255 - 23
        if length <= most:
            return page[at : at + length] if at + length <= PAGE_SIZE else None
        local = least + (length - least) % (PAGE_SIZE - 4)
        local = local if local <= most else least
        parts, left = [page[at : at + local]], length - local
        following: int = _WORD.unpack_from(page, at + local)[0]
        while left > 0:
            more = self.page(following)
            if not more:
                return None
            parts.append(more[4 : 4 + left])
            left -= len(parts[-1])
            following = _WORD.unpack_from(more)[0]
        return b"".join(parts)


def log_salt(header: bytes, first_frame: bytes) -> bytes:
    """Return what the frames of a log are known by: its header says so, or its first frame where that is damaged."""
    stored = header[24:32]
    is_true = log_checksum(header, bytes(8), header[:24]) == stored
    return header[16:24] if is_true or len(first_frame) < FRAME_HEADER else first_frame[8:16]


def log_checksum(log_header: bytes, before: bytes, data: bytes) -> bytes:
    """Return SQLite's checksum of `data`, eight bytes at a time, that goes on from the checksum `before`."""
    order = "big" if _WORD.unpack_from(log_header)[0] & 1 else "little"
    first, second = _FRAME.unpack(before)
    words = array("I", data)
    if order != sys.byteorder:
        words.byteswap()
    for n in range(0, len(words), 2):
        first = (first + words[n] + second) & 0xFFFFFFFF
        second = (second + words[n + 1] + first) & 0xFFFFFFFF
    return _FRAME.pack(first, second)


def _cells(page: bytes, kind: int, start: int) -> list[int]:
    """Return where the cells of a page lie, whose header is at `start`; none, where it is of another kind."""
    if not page or page[start] != kind:
        return []
    _, _, cells, _, _ = _LEAF.unpack_from(page, start)
    first = start + 8
    places = (first + 2 * n for n in range(min(cells, (PAGE_SIZE - first) // 2)))
    return [int.from_bytes(page[at : at + 2], "big") for at in places]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(9):
        byte = data[at + n]
        if n == 8:
            value = value << 8 | byte
            break
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return (value - (1 << 64) if value >= 1 << 63 else value), at + n + 1


def _columns(payload: bytes) -> list[Value]:
    size, at = _varint(payload, 0)
    columns: list[Value] = []
    place = size
    while at < size and len(columns) < MOST_COLUMNS:
        kind, at = _varint(payload, at)
        if kind in _INT_BYTES:
            end = place + _INT_BYTES[kind]
            columns.append(int.from_bytes(payload[place:end], "big", signed=True))
        elif kind in (8, 9):
            end = place
            columns.append(kind - 8)
        elif kind == 0:
            end = place
            columns.append(None)
        elif kind >= 12:
            end = place + (kind - 12) // 2
            columns.append(payload[place:end])
        else:
            raise ValueError("a kind of value that we do not write")
        if end > len(payload):
            raise ValueError("a value beyond the end of its record")
        place = end
    return columns
