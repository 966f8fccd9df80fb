"""The file beside the journal's that lone commits are written to first: one write(2) instead of a transaction.

Owns: `LoneFile`, the form of its records, and which of them a journal still lacks. It must not know SQLite, nor when
something is written here: `journal/lone_lines` does. Read `journal/lone_lines` next.

A record is one commit: its length and the CRC-32 of what follows, four bytes each, little endian, then the epoch, the
lines and the runs as msgpack. SQLite has everything that was here before the file was last cut to nothing. So after a
kill it holds the newest lines, and whoever opens the journal takes them from here; what a power cut left of it may be
anything, and counts only as far as it follows the journal's last line without a hole.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import msgpack

from logrelay.journal import file_safety
from logrelay.model import Commit, Line, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

SUFFIX = "-lone"
"""Added to the journal's name."""

MOST_RECORD_BYTES = 1 << 20
"""A longer record is none: what is written here has a small part of it."""

MOST_FILE_BYTES = 4 << 20
"""What is read of the file; what is written has a hundredth of it before SQLite gets it."""

_HEAD = Struct("<II")
_head = _HEAD.pack
_pack = msgpack.Packer(autoreset=True).pack
_EMPTY: dict[str, object] = {}
_of_line = itemgetter(*map(Line._fields.index, ("seq", "time_us", "level", "source", "run", "body", "app", "clock_us")))
_of_run = attrgetter("id", "key", "app", "host", "pid", "started_ns", "last_seq", "last_us", "state", "seen_us")
"""What of a line and a run is kept; the rest is in the body, or is made of it."""


class Record(NamedTuple):
    """One commit of a file."""

    epoch: str
    commit: Commit
    raw: bytes
    """As it was written."""


class Found(NamedTuple):
    """What was read of a file."""

    records: Sequence[Record]
    """In the order in which they were written."""
    unread: bytes
    """What is behind them and makes no sense."""


class LoneFile:
    """Writes the file of the journal at `path`. Belongs to whoever writes the journal."""

    def __init__(self, path: str) -> None:
        """Name it; nothing is touched."""
        self._journal, self._path = path, path + SUFFIX
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        """Device and inode of the open file."""
        self.size = 0
        """Bytes written since it was cut."""
        self._is_torn = False
        """Half a record could not be taken back: nothing is written behind it."""

    def add(self, epoch: str, commit: Commit) -> bool:
        """Write a commit of lines and runs; False: nothing was written, and it has to go elsewhere.

        The kernel has it when this returns True: it survives the process, and the machine once the file is synced.
        """
        try:
            packed = _pack((epoch, list(map(_of_line, commit.lines)), list(map(_of_run, commit.runs))))
        except ValueError:  # text that is no UTF-8: SQLite says what it thinks of it
            return False
        record = _head(len(packed), crc32(packed)) + packed
        try:
            descriptor = self._descriptor
            if descriptor is None:
                descriptor = self._open()
            elif self._is_torn:
                return False
            written = os.write(descriptor, record)
        except OSError:
            return False  # no room, or no file that is safe to use
        if written != len(record):
            self._take_back(descriptor)
            return False
        self.size += written
        return True

    def _open(self) -> int:
        """Make it, readable by those who may read the journal. Raises OSError, where there is one too.

        The opening has taken what was in one: what lies there now is somebody else's, or waits for the next opening.
        """
        descriptor = file_safety.make_for_appending(self._path, like=self._journal)
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)
        self._descriptor, self.size, self._is_torn = descriptor, 0, False
        return descriptor

    def is_in_place(self) -> bool:
        """Tell whether the file of that name is still the one that is written to, if any is. One stat call."""
        if self._descriptor is None:
            return True
        try:
            status = os.stat(self._path, follow_symlinks=False)  # noqa: PTH116  (a Path takes ten times as long)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def sync(self) -> None:
        """Have the disk take what is in it, and its name. Raises OSError."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            directory = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_CLOEXEC)  # noqa: PTH120
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _take_back(self, descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, self.size)
        except OSError:
            self._is_torn = True

    def clear(self) -> None:
        """Cut it to nothing: SQLite has everything.

        Where that fails, or the name is another file's by now, it is closed: the next record makes a new one where the
        name is free, and goes to SQLite where it is not.
        """
        if self._descriptor is None or not (self.size or self._is_torn):
            return
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError:
            self.close()
            return
        self.size, self._is_torn = 0, False
        if not self.is_in_place():
            self.close()

    def close(self) -> None:
        """Close it; what is in it stays."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
        self.size = 0

    def delete(self) -> None:
        """Close it and take it away: SQLite has everything. Another one of its name stays."""
        if self._descriptor is not None and self.is_in_place():
            delete(self._journal)
        self.close()


def delete(path: str) -> None:
    """Take away the file of the journal at `path`, if there is one. One that cannot be is left; it means nothing."""
    with suppress(OSError):
        os.unlink(path + SUFFIX)  # noqa: PTH108  (as the others here)


def set_aside(path: str, rest: bytes, now_us: int) -> str:
    """Keep `rest` of the file of the journal at `path` under a dated name, and delete the file.

    Returns the name, without directory. Raises OSError.
    """
    stamp = datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y%m%dT%H%M%SZ")
    name, n = f"{path}.lone-{stamp}", 1
    while os.path.lexists(name):
        n += 1
        name = f"{path}.lone-{stamp}-{n}"
    with os.fdopen(file_safety.make_for_appending(name, like=path), "wb") as file:
        file.write(rest)
        file.flush()
        os.fsync(file.fileno())
    delete(path)
    return os.path.basename(name)  # noqa: PTH119


def read(path: str, *, checked: bool = True) -> Found:
    """Read what the file of the journal at `path` has; nothing where there is none. Raises JournalRefused, OSError.

    Not `checked`: whoever may read it does, whoever owns it.
    """
    try:
        with os.fdopen(file_safety.open_for_reading(path + SUFFIX, checked=checked), "rb") as file:
            data = file.read(MOST_FILE_BYTES + 1)
    except FileNotFoundError:
        return Found([], b"")
    records: list[Record] = []
    at = 0
    while at + _HEAD.size <= len(data):
        size, crc = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + size
        packed = data[at + _HEAD.size : end]
        if size > MOST_RECORD_BYTES or end > len(data) or crc32(packed) != crc:
            break
        decoded = _decode(packed)
        if decoded is None:
            break
        records.append(Record(*decoded, data[at:end]))
        at = end
    return Found(records, data[at:])


def _decode(packed: bytes) -> tuple[str, Commit] | None:
    """Make a record's commit; None: its sum is right, and yet it is none of ours."""
    try:
        content: Any = msgpack.unpackb(packed, use_list=True, strict_map_key=False)
        epoch, lines, runs = content
        made = [
            Line(seq, time_us, level, source, run, body, "", _EMPTY, app, clock_us)
            for seq, time_us, level, source, run, body, app, clock_us in lines
        ]
        commit = Commit(made, [Run(*run) for run in runs])
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return (epoch, commit) if isinstance(epoch, str) and made else None


def following(found: Found, epoch: str, head: int) -> list[Commit]:
    """Return the commits that a journal lacks whose last line is `head`, of the epoch `epoch`.

    All of them, or up to where one is missing.
    """
    missing: list[Commit] = []
    for of, commit, _ in found.records:
        first, last = commit.lines[0].seq, commit.lines[-1].seq
        if of != epoch or last <= head:
            continue
        if first != head + 1 or last != head + len(commit.lines):
            break
        missing.append(commit)
        head = last
    return missing


def left_over(found: Found, head: int) -> bytes:
    """Return what is in the file that a journal lacks which has `head` and all of `following`."""
    return b"".join([*(raw for _, commit, raw in found.records if commit.lines[-1].seq > head), found.unread])
