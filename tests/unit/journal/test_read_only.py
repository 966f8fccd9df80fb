"""A journal's file is read while nobody, or somebody, has it open; nothing of it changes."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.journal.interface import Query
from logrelay.journal.read_only import ReadOnlyJournal
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit


@pytest.fixture
def path(tmp_path, line, run):
    """A journal of two openings, closed."""
    path = tmp_path / "j.db"
    for epoch, first in (("abc123", 1), ("def456", 11)):
        journal = SqliteJournal(str(path), now_us=lambda: 0, random_epoch=lambda epoch=epoch: epoch)
        journal.open()
        journal.append(
            Commit([line(seq, level=40 if seq == 15 else 20) for seq in range(first, first + 10)], runs=[run()])
        )
        journal.close()
    return path


def test_it_answers_as_the_journal_does(path):
    """Head, epochs, runs, and a query with a filter."""
    with closing(ReadOnlyJournal(str(path))) as journal:
        assert (journal.oldest, journal.head, journal.epochs.current) == (1, 20, "def456")
        assert journal.epochs.of(10) == "abc123"
        assert [run.app for run in journal.runs] == ["robo_trader"]
        assert journal.page(Query(0, 20, 50)).seqs == list(range(1, 21))
        assert journal.page(Query(0, 20, 50, Filter(level=40))).seqs == [15]
        assert journal.disk_bytes() > 4096
        assert journal.damaged_lines == 0


def test_the_file_and_its_lock_stay_as_they_are(path):
    """Not even another time of the file; what SQLite leaves beside it is empty."""
    before = {one.name: one.stat().st_mtime_ns for one in path.parent.iterdir()}
    with closing(ReadOnlyJournal(str(path))) as journal:
        journal.page(Query(0, 20, 50))
    after = {one.name: one.stat().st_mtime_ns for one in path.parent.iterdir()}
    assert {name: after[name] for name in before} == before
    assert not (path.parent / "j.db-wal").exists() or (path.parent / "j.db-wal").stat().st_size == 0


def test_a_journal_that_is_written_is_read_and_not_disturbed(path, line):
    """The writer should find nothing that a stranger has touched, and the reader see what is committed."""
    writer = SqliteJournal(str(path), now_us=lambda: 0, random_epoch=lambda: "ghi789")
    writer.open()
    try:
        for seq in range(21, 26):
            writer.append(Commit([line(seq)]))
            with closing(ReadOnlyJournal(str(path))) as journal:
                assert journal.head == seq
            assert not writer.disturbed()
    finally:
        writer.close()


def test_what_is_no_journal_is_said(tmp_path):
    """No file, another program's, and one of another version."""
    with pytest.raises(JournalError, match="there is no journal file"):
        ReadOnlyJournal(str(tmp_path / "none.db"))
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(JournalError, match="is not a journal"):
        ReadOnlyJournal(str(other))


@pytest.mark.parametrize(("version", "said"), [(1, "start the relay once"), (99, "install that version")])
def test_another_version_is_said(path, version, said):
    """With what to do."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(JournalError, match=said):
        ReadOnlyJournal(str(path))
