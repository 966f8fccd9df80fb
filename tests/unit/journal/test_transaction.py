"""All or nothing, and what is said when it is nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.journal.interface import JournalLost
from logrelay.journal.transaction import Transaction
from logrelay.model import Commit
from tests.unit.journal.test_sqlite import seqs


def test_a_value_sqlite_cannot_hold_leaves_nothing_behind(journal_at, line):
    """A line that cannot be stored undoes its whole commit, and the journal goes on."""
    journal = journal_at()
    journal.open()
    with pytest.raises(JournalError) as error:
        journal.append(Commit([line(1), line(2)._replace(time_us=1 << 70)]))
    assert not error.value.retry
    journal.append(Commit([line(1, source="a"), line(2, source="b")]))
    assert seqs(journal, filter=Filter(sources=("b",))) == [2]


def test_a_value_that_cannot_be_held_is_named(journal_at, line):
    """With the path, and that no other attempt helps."""
    journal = journal_at()
    journal.open()
    with pytest.raises(JournalError) as error:
        journal.append(Commit([line(1)._replace(time_us=1 << 70)]))
    assert str(error.value).startswith(f"journal {journal.path} cannot hold this value: Python int too large")
    assert error.value.retry is False


@pytest.fixture
def db(tmp_path):
    """A database with an empty table."""
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        db.execute("CREATE TABLE a (b UNIQUE)")
        yield db


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (sqlite3.OperationalError("no"), JournalError),
        (sqlite3.DatabaseError("Could not decode to UTF-8 text"), JournalLost),
        (OSError(28, "No space left on device"), JournalError),
        (OverflowError("too large"), JournalError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_what_was_written_is_taken_back_whatever_happens(db, error, becomes):
    """And the connection is free for the next one."""
    with pytest.raises(becomes) as raised, Transaction(db, "journal.db"):
        db.execute("INSERT INTO a VALUES (1)")
        raise error
    assert isinstance(error, KeyboardInterrupt) or str(raised.value).startswith("journal journal.db")
    assert not db.in_transaction
    with Transaction(db, "journal.db"):
        db.execute("INSERT INTO a VALUES (2)")
    assert db.execute("SELECT b FROM a").fetchall() == [(2,)]


def test_a_transaction_that_cannot_begin_says_so(db):
    with pytest.raises(JournalError, match=r"journal\.db: .*within a transaction"), Transaction(db, "journal.db"):
        with Transaction(db, "journal.db"):
            pass
