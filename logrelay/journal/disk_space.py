"""Room on the disk: how much the journal may take, and what it has been promised.

Owns: `DiskSpace`: what the file system has left, and the space that the file, its log and the lock file take before
they need it. It must not decide which lines go. Read `journal/sqlite_errors` next: it says what is wrong when there is
none.

A full disk must stop neither upkeep nor the way back, so nothing is written that could not be taken further:
  * The file gets the pages of a commit before the commit, so a checkpoint, which fills them, always has room. After a
    checkpoint the log begins anew in the space that it has, so a commit and a step of retention have room as well.
  * The log is never smaller than LOG_RESERVE, and SQLite cuts it to no less.
  * The lock file takes START_RESERVE bytes and gives them up when a relay starts: SQLite cannot open a file without
    some new space.
File systems that write into new space what is already there (copy on write) may refuse all the same; then commits wait.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from logrelay.journal.schema import PAGE_SIZE
from logrelay.model import size_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from logrelay.journal.journal_file import JournalFile
    from logrelay.model import Line

KEEP_FREE_SHARE = 20
"""What stays free when nobody says otherwise: a twentieth of the file system,"""
MOST_KEEP_FREE = 256 << 20
"""but not more than this: on a large disk it is enough for whoever has to put things right."""
OWN_SHARE = 4
"""Lines go for the room of others until the journal has a quarter of what it may have: a program that fills the disk
takes what it is given, and at the end neither it nor the log would be there."""
LOG_RESERVE = 1 << 20
"""Bytes that the write-ahead log has in any case: a step of retention takes a third of it."""
START_RESERVE = LOG_RESERVE + (256 << 10)
"""Bytes of the lock file: a log as it was, which SQLite deletes at a stop, its index (32 KiB), and some pages."""
CHUNK_PAGES = 64
"""The file grows by so many pages at a time: a quarter of a megabyte is one call in a thousand lines."""
COMMIT_PAGES = 16
"""Pages that a commit may add besides its lines: right edges of table and indexes, marks, runs."""
ROW_BYTES = 128
"""What a line adds to the file besides its body: its row and its entries in two indexes."""
LONG_BYTES = 2000
"""Lines longer than this on average fill pages of their own, the last of them in part."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk is full, or a quota is."""


def pages_of(lines: Sequence[Line]) -> int:
    """Return how many pages a commit of `lines` adds to the file at most."""
    count, size = len(lines), size_of(lines)
    tails = count if size > LONG_BYTES * count else 0
    return (size * 5 // 4 + ROW_BYTES * count) // PAGE_SIZE + COMMIT_PAGES + tails


def kept_free(keep_free: int | None, total: int) -> int:
    """Return how many bytes of a file system of `total` are to stay free; None: nobody has said."""
    return min(total // KEEP_FREE_SHARE, MOST_KEEP_FREE) if keep_free is None else keep_free


class DiskSpace:
    """The room of one journal. Belongs to the thread that writes."""

    def __init__(self, file: JournalFile, *, keep_free: int | None, max_bytes: int) -> None:
        """Describe it; nothing is touched.

        `keep_free`: bytes of the file system that are to stay free; 0: it does not matter, None: KEEP_FREE_SHARE of it,
        at most MOST_KEEP_FREE. `max_bytes`: what file and log may take at most.
        """
        self._file, self._keep_free, self._max_bytes = file, keep_free, max_bytes
        self._log_reserve = 0
        self._descriptor: int | None = None
        """Of the journal's file. Opened before SQLite opens the file and closed after it: closing it drops SQLite's
        POSIX locks."""
        self._promised = 0
        """Pages that commits can still take, at least."""
        self._there: int | None = None
        """Pages that the file has on the disk; None: it has to be asked."""

    def change(self, *, keep_free: int | None, max_bytes: int) -> None:
        """Change what the constructor was given."""
        self._keep_free, self._max_bytes = keep_free, max_bytes

    def open(self) -> int:
        """Begin; to be called before SQLite opens the file. Returns the size of the file system. Raises OSError."""
        self.close()
        self._descriptor = os.open(self._file.path, os.O_RDWR | os.O_CLOEXEC)
        return self._look()[0]

    def close(self) -> None:
        """End; to be called when no SQLite connection to the file is left."""
        self.forget()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _look(self) -> tuple[int, int]:
        """Return size and free bytes of the file system. Raises OSError."""
        status = os.statvfs(self._file.path)
        return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize

    @property
    def gives_way(self) -> bool:
        """True when the oldest lines may go for lack of room."""
        return self._keep_free != 0

    def free(self) -> tuple[int | None, int]:
        """Return how many bytes of the file system are free (None: it does not say), and how many are to stay free."""
        try:
            total, free = self._look()
        except OSError:
            return None, 0
        if not total:
            return None, 0  # some network file systems do not say
        return free, kept_free(self._keep_free, total)

    def allowed(self) -> int | None:
        """Return how many bytes file and log may take now; None: the file system does not limit them."""
        if self._keep_free == 0:
            return None
        try:
            total, free = self._look()
        except OSError:
            return None
        if not total:
            return None  # some network file systems do not say
        keep_free = kept_free(self._keep_free, total)
        return max(self._file.disk_bytes() + free - keep_free, min(self._max_bytes, total) // OWN_SHARE)

    def is_short(self) -> bool:
        """Tell whether less is free than should be."""
        allowed = self.allowed()
        return allowed is not None and allowed < self._file.disk_bytes()

    def reserve(self, log_bytes: int) -> None:
        """Give log and lock file their space, where there is any; the log's share is `log_bytes`. Cheap when done."""
        size = min(LOG_RESERVE, log_bytes)
        with suppress(OSError):
            self._file.reserve_log(size)
            self._file.reserve_lock(START_RESERVE)

    def reserve_start(self) -> None:
        """Give the lock file its space; after SQLite has closed the file, whose log then leaves some."""
        with suppress(OSError):
            self._file.reserve_lock(START_RESERVE)

    def claim(self, db: sqlite3.Connection, pages: int) -> bool:
        """Have the file system keep room for a commit that adds up to `pages` pages. False: it has none.

        Raises sqlite3.Error.
        """
        if self._promised < pages and self._descriptor is not None:
            count: int = db.execute("PRAGMA page_count").fetchone()[0]
            spare: int = db.execute("PRAGMA freelist_count").fetchone()[0]
            there = self._there
            if there is None:
                there = os.fstat(self._descriptor).st_size // PAGE_SIZE
            # What checkpoints have still to write lies between the file's end and its last page.
            wanted = max(count - spare + pages, count)
            if there < wanted:
                if not (self._grow(there, wanted + CHUNK_PAGES) or self._grow(there, wanted)):
                    self._promised, self._there = 0, None
                    return False
                there = os.fstat(self._descriptor).st_size // PAGE_SIZE
            self._there = there
            self._promised = max(there - count + spare, pages)
        self._promised -= pages
        return True

    def forget(self) -> None:
        """Note that the file may have been cut: after a checkpoint or a step of retention."""
        self._promised, self._there = 0, None

    def _grow(self, there: int, wanted: int) -> bool:
        assert self._descriptor is not None, "asked by `claim`"
        untouched = self._file.is_as_noted()
        try:
            os.posix_fallocate(self._descriptor, there * PAGE_SIZE, (wanted - there) * PAGE_SIZE)
        except OSError as error:
            # Whatever else it is, the file may still be written: SQLite will say.
            return error.errno not in NO_ROOM
        except AttributeError:  # a platform without it
            return True
        finally:
            if untouched:
                self._file.note_file()  # this was us; what somebody did before is still to be noticed
        return True
