"""What somebody else does to the open file: noticed soon, and told from what does no harm."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from logrelay.errors import JournalError
from logrelay.journal import disturbance, sqlite
from logrelay.journal.interface import JournalLost
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
