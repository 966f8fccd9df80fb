"""Every error of SQLite or the system becomes one line that names the journal, the cause and what to do."""

from __future__ import annotations

import errno
import sqlite3

import pytest

from logrelay.journal.interface import JournalLost
from logrelay.journal.sqlite_errors import from_os, from_sqlite, primary_code

PATH = "/var/lib/logrelay/journal.db"


def failed(code):
    error = sqlite3.OperationalError("what SQLite says")
    if code is not None:
        error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "the disk is full; free some space"),
        (sqlite3.SQLITE_READONLY, "has become read-only; make it writable again"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "has become read-only; make it writable again"),
        (
            sqlite3.SQLITE_IOERR,
            "input/output error; look at the disk and at the kernel log, and whether a quota is used up",
        ),
        (
            sqlite3.SQLITE_IOERR_FSYNC,
            "input/output error; look at the disk and at the kernel log, and whether a quota is used up",
        ),
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened; look at the modes of the file and its directory"),
        (sqlite3.SQLITE_BUSY, "another program holds a write lock on the file; end its transaction"),
        (sqlite3.SQLITE_LOCKED, "another program holds a write lock on the file; end its transaction"),
        (sqlite3.SQLITE_PERM, "access to the file is not permitted; look at its owner and mode"),
        (sqlite3.SQLITE_AUTH, "access to the file is not permitted; look at its owner and mode"),
        (sqlite3.SQLITE_NOMEM, "the machine is out of memory"),
        (sqlite3.SQLITE_NOLFS, "the file system cannot hold a file this large"),
        (sqlite3.SQLITE_MISUSE, "SQLite cannot use the file"),
        (None, "SQLite cannot use the file"),
    ],
)
def test_trouble_of_sqlite_can_be_tried_again(code, words):
    """Extended codes are read by their primary one; what is not known is said in general words."""
    error = from_sqlite(failed(code), PATH)
    assert not isinstance(error, JournalLost)
    assert error.retry is True
    assert str(error).startswith(f"journal {PATH}: ")
    assert f"{words} (what SQLite says)" in str(error)


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CORRUPT_INDEX,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
    ],
)
def test_damage_means_that_the_journal_is_lost(code):
    """It has to be opened again, time does not heal it."""
    error = from_sqlite(failed(code), PATH)
    assert isinstance(error, JournalLost)
    assert str(error) == f"journal {PATH} is damaged (what SQLite says)"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk is full; free some space"),
        (errno.EROFS, "has become read-only; make it writable again"),
        (errno.EACCES, "no permission; the relay's user must be able to write the directory and the file"),
        (errno.EPERM, "no permission; the relay's user must be able to write the directory and the file"),
        (errno.ENOTDIR, "this is not a possible place for a file; choose another --journal path"),
        (errno.EEXIST, "this is not a possible place for a file; choose another --journal path"),
        (errno.ENAMETOOLONG, "this is not a possible place for a file; choose another --journal path"),
        (errno.ELOOP, "this is not a possible place for a file; choose another --journal path"),
        (errno.EIO, "the place cannot be used"),
    ],
)
def test_trouble_of_the_system_can_be_tried_again(number, words):
    """It names the file that the system named, else the journal."""
    error = from_os(OSError(number, "what the system says", "/var/lib"), PATH)
    assert not isinstance(error, JournalLost)
    assert error.retry is True
    assert str(error).startswith(f"journal {PATH}: ")
    assert str(error).endswith(f"{words} (what the system says: /var/lib)")
    error = from_os(OSError(number, "what the system says"), PATH)
    assert str(error).endswith(f"{words} (what the system says: {PATH})")


def test_an_error_without_words_is_shown_as_it_is():
    """Python raises OSError with a text alone, too."""
    assert str(from_os(OSError("odd"), PATH)).endswith(f"the place cannot be used (odd: {PATH})")


def test_the_primary_code_is_the_lowest_byte():
    """0 when the error is the module's own, which has no code."""
    assert primary_code(failed(sqlite3.SQLITE_IOERR_FSYNC)) == sqlite3.SQLITE_IOERR
    assert primary_code(failed(None)) == 0
