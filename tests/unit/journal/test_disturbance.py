"""What somebody else does to the open file: noticed soon, and told from what does no harm."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from logrelay.errors import JournalError
from logrelay.journal import disturbance, sqlite
from logrelay.journal.interface import JournalLost
from logrelay.journal.schema import PAGE_SIZE
from logrelay.model import Commit
from tests.unit.journal.test_sqlite_now import journal, local, seconds, seqs

__all__ = ["journal", "local", "seconds"]


def test_what_another_program_has_written_is_no_harm(journal, lines):
    """The state that the loop's commits build on is looked at anew by the next `append`."""
    assert journal.append_now(Commit(lines(2, 1)))
    with closing(sqlite3.connect(journal.path)) as other, other:
        other.execute("CREATE TABLE theirs (a)")
    with pytest.raises(JournalError):
        journal.append_now(Commit(lines(3, 1)))
    journal.append(Commit(lines(3, 1)))
    assert journal.append_now(Commit(lines(4, 1)))
    assert seqs(journal) == [1, 2, 3, 4]


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_truncated_file_is_noticed_within_a_second(journal, lines, seconds, suffix):
    """While lines come on the loop, and by whoever looks while none come."""
    for n in range(2, 40):
        assert journal.append_now(Commit(lines(n, 1)))
    assert not journal.disturbed()
    os.truncate(journal.path + suffix, 4096)
    assert journal.disturbed()
    seconds.now += sqlite.LOOK_S
    with pytest.raises(JournalLost):
        journal.append_now(Commit(lines(40, 1)))
    journal.reopen()
    journal.append(Commit(lines(40, 1)))
    assert seqs(journal)[-1] == 40


def test_a_deleted_file_is_noticed_within_a_second(journal, lines, seconds):
    assert journal.append_now(Commit(lines(2, 1)))
    os.unlink(journal.path)
    seconds.now += sqlite.LOOK_S
    with pytest.raises(JournalLost):
        journal.append_now(Commit(lines(3, 1)))


def test_after_some_false_alarms_only_sizes_are_looked_at(journal, lines, monkeypatch):
    """A file system with times of its own would have the whole file read again and again."""
    looks = []
    monkeypatch.setattr(disturbance, "verify_structure", lambda _db: looks.append(1) or ())
    for n in range(disturbance.MOST_FALSE_ALARMS + 2):
        os.utime(journal.path, (n, n))
        journal.append(Commit(lines(2 + n, 1)))
    assert len(looks) == disturbance.MOST_FALSE_ALARMS
    os.truncate(journal.path, 4096)
    with pytest.raises(JournalLost):
        journal.append(Commit(lines(50, 1)))


def cut_during(monkeypatch, owner, name, path, size):
    """Cut a file in the middle of the next call of a method, behind the look that comes before it."""
    real = getattr(owner, name)

    def cutting(*arguments, **options):
        done = real(*arguments, **options)
        os.truncate(path, size)
        return done

    monkeypatch.setattr(owner, name, cutting)


def pages_of(journal):
    """Return how many pages the file's header counts; behind them is room that nobody would miss."""
    return int.from_bytes(Path(journal.path).read_bytes()[28:32], "big")


@pytest.fixture
def filled(journal, lines):
    """Return a journal of 300 lines in its file, none of them in its log alone."""
    journal.append(Commit(lines(2, 299)))
    journal._unchecked = sqlite.BUSY_CHECKPOINT_BYTES
    journal.checkpoint(idle=True)
    journal.append(Commit(lines(301, 1)))
    assert not journal.disturbed()
    return journal


PARTS = {
    "append": ("_commit", lambda journal, lines: journal.append(Commit(lines(302, 1)))),
    "derive": ("_with_room", lambda journal, _lines: journal.derive(seconds=1.0)),
    "prune": ("_step", lambda journal, _lines: journal.prune()),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_what_is_cut_in_the_middle_of_our_own_write_is_noticed(filled, lines, monkeypatch, part, suffix):
    """A machine can be so busy that much happens between a look at the files and the write behind it."""
    name, write = PARTS[part]
    due = iter([True])
    monkeypatch.setattr(filled, "_derive_due", lambda: next(due, False))
    with monkeypatch.context() as patch:
        cut_during(patch, filled, name, filled.path + suffix, 8192)
        write(filled, lines)
    assert filled.disturbed()
    with pytest.raises(JournalLost):
        filled.append(Commit(lines(303, 1)))


def test_a_checkpoint_does_not_hide_a_cut(filled, lines, monkeypatch):
    """What is like the noted state afterwards is the state that it noted itself."""
    for _ in range(2):
        filled._unchecked = sqlite.BUSY_CHECKPOINT_BYTES
        filled.checkpoint(idle=False)
    filled._unchecked = sqlite.BUSY_CHECKPOINT_BYTES
    with monkeypatch.context() as patch:
        cut_during(patch, filled._disturbance, "look_for_strangers", filled.path, pages_of(filled) // 2 * PAGE_SIZE)
        with pytest.raises(JournalLost, match="truncated"):
            filled.checkpoint(idle=True)


def test_growth_does_not_hide_a_cut(filled, lines, seconds):
    """Commits of the loop look once in a second, and under load the file is made longer meanwhile."""
    assert filled.append_now(Commit(lines(302, 1)))
    cut = pages_of(filled) // 2 * PAGE_SIZE
    os.truncate(filled.path, cut)
    head = 302
    while os.path.getsize(filled.path) == cut:
        assert filled.append_now(Commit(lines(head + 1, 100)))
        head += 100
    assert filled.disturbed()
    seconds.now += sqlite.LOOK_S
    with pytest.raises(JournalLost):
        filled.append_now(Commit(lines(head + 1, 1)))


def test_a_checkpoint_that_fails_half_way_is_no_disturbance(filled, lines, monkeypatch):
    """A disk without room ends it after some pages: those were ours."""
    db, full = filled._db, sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    class Full:
        def execute(self, sql, *arguments):
            if sql.startswith("COMMIT"):
                raise full
            if "RESTART" in sql:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                raise full
            return db.execute(sql, *arguments)

        def __getattr__(self, name):
            return getattr(db, name)

    with monkeypatch.context() as patch:
        patch.setattr(filled, "_db", Full())
        with pytest.raises(JournalError):
            filled.append(Commit(lines(302, 10)))
    filled.append(Commit(lines(302, 10)))
    assert filled._disturbance._false_alarms == 0


def test_room_that_was_made_for_lines_is_no_disturbance(filled, lines):
    """The file gets longer by our own hand, with a commit on either thread."""
    size = os.path.getsize(filled.path)
    for n in range(10):
        filled.append(Commit(lines(302 + 1000 * n, 999)))
        filled.append_now(Commit(lines(1301 + 1000 * n, 1)))
        assert not filled.disturbed()
    assert os.path.getsize(filled.path) > size
    assert filled._disturbance._false_alarms == 0
