"""What SQLite's errors mean to the person who runs the relay.

Owns: the mapping from an SQLite or OS error to a JournalError: one clear line, and whether to try again, to
reopen, or to give up. It must not touch files or connections. Read `journal/query` next: it reads what was written.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from logrelay.errors import JournalError
from logrelay.journal.interface import JournalLost

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
"""The file does not make sense any more."""

UNREADABLE = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
    }
)
"""A part of the file cannot be read any more, or is not there: the rest can be saved, and waiting does not help."""

NO_TEXT = "Could not decode to UTF-8"
"""What Python's module says of a text that is none any more, without a code of SQLite's."""

NO_ROOM_FOR_INDEX = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMOPEN})
"""SQLite calls it an input/output error when there is no room for the 32 KiB of a log's index."""

NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
"""There may be no room: SQLite says so only for a full disk, and calls a full quota an input/output error."""

FULL = "the disk is full; free some space"

_WORDS = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_READONLY: "the file or its file system has become read-only; make it writable again",
    sqlite3.SQLITE_IOERR: "the disk reports an input/output error; look at the disk and at the kernel log, and whether "
    "a quota is used up",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; look at the modes of the file and its directory",
    sqlite3.SQLITE_BUSY: "another program holds a write lock on the file; end its transaction",
    sqlite3.SQLITE_LOCKED: "another program holds a write lock on the file; end its transaction",
    sqlite3.SQLITE_PERM: "access to the file is not permitted; look at its owner and mode",
    sqlite3.SQLITE_AUTH: "access to the file is not permitted; look at its owner and mode",
    sqlite3.SQLITE_NOMEM: "the machine is out of memory",
    sqlite3.SQLITE_NOLFS: "the file system cannot hold a file this large",
}


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 when the error is not SQLite's own (misuse of the module)."""
    code = getattr(error, "sqlite_errorcode", 0)
    return int(code) & 0xFF


def from_sqlite(error: sqlite3.Error, path: str) -> JournalError:
    """Say what happened to the journal at `path`. Damage is a JournalLost, all else can be tried again."""
    code = primary_code(error)
    if code in DAMAGED or getattr(error, "sqlite_errorcode", 0) in UNREADABLE or str(error).startswith(NO_TEXT):
        return JournalLost(f"journal {path} is damaged ({error})")
    words = _WORDS.get(code, "SQLite cannot use the file")
    if getattr(error, "sqlite_errorcode", 0) in NO_ROOM_FOR_INDEX:
        words = f"{FULL} (or the disk reports an input/output error)"
    return JournalError(f"journal {path}: {words} ({error})")


def from_os(error: OSError, path: str) -> JournalError:
    """Say which OS error keeps the journal at `path` from being used; all of them can be tried again."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        words = _WORDS[sqlite3.SQLITE_FULL]
    elif error.errno == errno.EROFS:
        words = _WORDS[sqlite3.SQLITE_READONLY]
    elif error.errno in (errno.EACCES, errno.EPERM):
        words = "no permission; the relay's user must be able to write the directory and the file"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        words = "this is not a possible place for a file; choose another --journal path"
    else:
        words = "the place cannot be used"
    return JournalError(f"journal {path}: {words} ({error.strerror or error}: {error.filename or path})")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn SQLite's and the system's errors within a block into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error
    except OSError as error:
        raise from_os(error, path) from error
