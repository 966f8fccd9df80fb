"""Reopening a journal that was lost: what failed is done again, what worked is not."""

from __future__ import annotations

import pytest

from logrelay.errors import JournalError
from logrelay.journal import schema
from logrelay.journal.interface import JournalLost, Query
from logrelay.model import Commit

ALL = 1 << 60


def test_a_new_file_that_is_damaged_too_is_replaced_by_the_next_attempt(journal_at, lines, run, monkeypatch):
    """The attempt that met it did not count as done: else the relay would meet the same damage for ever."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 10), [run(3, last_seq=5)]))
    journal_at.path.unlink()
    with pytest.raises(JournalLost):
        journal.append(Commit(lines(11, 1)))
    connect = schema.connect_writer

    def damage_first(path, **kwargs):
        journal_at.path.write_bytes(b"nonsense" * 4096)
        return connect(path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(schema, "connect_writer", damage_first)
        with pytest.raises(JournalLost):
            journal.reopen()
    with pytest.raises(JournalError):
        journal.append(Commit(lines(11, 1)))
    opening = journal.reopen()
    assert (opening.epoch, opening.head, opening.runs) == ("abc123", 10, [run(3, last_seq=5)])
    journal.append(Commit(lines(11, 1)))
    assert journal.page(Query(0, ALL, 100)).seqs == [11]


@pytest.mark.parametrize("error", [JournalError("the disk is full"), MemoryError("the memory is full")])
def test_a_sound_file_that_could_not_be_loaded_is_not_replaced_again(journal_at, lines, monkeypatch, error):
    """Whatever comes in between costs nothing: the file written by the first attempt is loaded by the second."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 10)))
    journal_at.path.unlink()
    with pytest.raises(JournalLost):
        journal.append(Commit(lines(11, 1)))

    def full(path, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(schema, "connect_writer", full)
        with pytest.raises(type(error), match="full"):
            journal.reopen()
    inode = journal_at.path.stat().st_ino
    opening = journal.reopen()
    assert journal_at.path.stat().st_ino == inode
    assert (opening.oldest, opening.head) == (1, 10)
    assert len(opening.notices) == 1
