"""A new file in the place of one that was deleted, replaced or damaged, and what is said of it."""

from __future__ import annotations

import errno
import sqlite3

import pytest

from logrelay.errors import JournalError
from logrelay.journal import schema
from logrelay.model import Commit
from tests.unit.journal.test_sqlite_opening import KEPT, REWRITTEN, deleted, filled, open_files, seqs

__all__ = ["deleted", "filled"]


class Unreadable:
    """A connection to a file of which no copy can be made."""

    def __init__(self, db, error):
        self._db, self._error = db, error
        self.close = db.close

    def backup(self, _target):
        raise self._error


def test_a_new_file_that_cannot_be_finished_does_not_get_the_name(journal_at, monkeypatch):
    """It is made beside it; what is left of it is in nobody's way the next time."""

    def full(path, **kwargs):
        raise sqlite3.OperationalError("full")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "create", full)
        with pytest.raises(JournalError, match="full"):
            journal_at().open()
    path = journal_at.path
    assert sorted(p.name for p in path.parent.iterdir()) == ["journal.db.lock", "journal.db.new"]
    journal_at().open()
    assert not path.with_name("journal.db.new").exists()


def test_the_deleted_file_is_closed_before_its_copy_gets_the_name(deleted, journal_at, monkeypatch):
    """Closing it later would remove the log of the new one, which has the same name."""
    put_in_place, open_then = deleted._file.put_in_place, []

    def watched(path):
        open_then.extend(open_files(journal_at.path))
        put_in_place(path)

    monkeypatch.setattr(deleted._file, "put_in_place", watched)
    deleted.reopen()
    assert open_then == []


@pytest.mark.parametrize("cut", ["set_aside", "put_in_place"])
def test_a_copy_that_could_not_be_put_in_place_is_not_forgotten(deleted, journal_at, lines, run, monkeypatch, cut):
    """The deleted file is closed by then: the copy is all there is. The next attempt takes it, and says it once."""
    journal_at.path.write_text("somebody's file")

    def broken(*args):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(deleted._file, cut, broken)
        for _ in range(2):
            with pytest.raises(JournalError, match="Input/output error"):
                deleted.reopen()
    opening = deleted.reopen()
    assert (opening.epoch, opening.oldest, opening.head, opening.runs) == ("abc123", 1, 10, [run(3, last_seq=5)])
    assert opening.notices == [
        "Another file had been put in the journal's place; it was set aside as journal.db.found-20260123T100000Z.",
        REWRITTEN,
    ]
    deleted.append(Commit(lines(11, 1)))
    assert seqs(deleted) == list(range(1, 12))
    assert not journal_at.path.with_name("journal.db.rescue").exists()


def test_a_copy_that_was_deleted_too_is_not_waited_for(deleted, journal_at, lines, monkeypatch):
    """Nothing is left then: a new file goes on under the same numbers."""

    def broken(path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(deleted._file, "put_in_place", broken)
        with pytest.raises(JournalError, match="Input/output error"):
            deleted.reopen()
    journal_at.path.with_name("journal.db.rescue").unlink()
    opening = deleted.reopen()
    assert (opening.epoch, opening.oldest, opening.head) == ("abc123", 11, 10)
    deleted.append(Commit(lines(11, 1)))
    assert seqs(deleted) == [11]


def test_a_copy_that_cannot_be_finished_is_removed_and_made_again(deleted, journal_at, monkeypatch):
    """A disk that was full: the deleted file stays open, and nothing half finished stays beside it."""
    with monkeypatch.context() as patch:
        patch.setattr(deleted, "_db", Unreadable(deleted._db, sqlite3.OperationalError("full")))
        with pytest.raises(JournalError, match="full"):
            deleted.reopen()
    assert [p.name for p in journal_at.path.parent.iterdir() if "rescue" in p.name] == []
    assert deleted.reopen().notices == [REWRITTEN]
    assert seqs(deleted) == list(range(1, 11))


def test_a_copy_that_cannot_even_be_begun_says_why(deleted, monkeypatch):
    """There is no file to remove then."""
    with monkeypatch.context() as patch:

        def full(suffix):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(deleted._file, "blank", full)
        with pytest.raises(JournalError, match="the disk is full"):
            deleted.reopen()
    assert deleted.reopen().notices == [REWRITTEN]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_deleted_file_that_cannot_be_read_either_is_given_up(deleted, journal_at, lines, run, monkeypatch, replaced):
    """A new one goes on under its numbers; a file in its place is set aside under a name that says what it is."""
    if replaced:
        journal_at.path.write_text("somebody's file")

    def full(path, **kwargs):
        raise sqlite3.OperationalError("full")

    error = sqlite3.DatabaseError("Could not decode to UTF-8 text")
    monkeypatch.setattr(deleted, "_db", Unreadable(deleted._db, error))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "create", full)
        with pytest.raises(JournalError, match="full"):
            deleted.reopen()
    opening = deleted.reopen()
    assert (opening.epoch, opening.oldest, opening.head, opening.runs) == ("abc123", 11, 10, [run(3, last_seq=5)])
    begun = "A new journal file was begun: lines up to number 10 are gone from the relay, all lines after it are kept."
    found = (
        "The journal file was replaced by another one; what is there now was set aside as "
        "journal.db.found-20260123T100000Z."
    )
    assert opening.notices == ([found, begun] if replaced else [begun])
    deleted.append(Commit(lines(11, 1)))
    assert seqs(deleted) == [11]


def test_a_damaged_file_is_named_so_when_it_is_reopened(journal_at, filled):
    """It is still the one that is open: damaged, not replaced."""
    journal = journal_at()
    journal.open()
    assert journal.reopen().notices == ["The journal was damaged (while the relay was running). " + KEPT]
