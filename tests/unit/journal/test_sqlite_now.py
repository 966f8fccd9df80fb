"""Commits that the event loop makes itself: what they must not wait for, and what must not wait for them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.errors import JournalError
from logrelay.journal import sqlite
from logrelay.journal.interface import Query
from logrelay.model import Commit

ALL = 1 << 60


class Seconds:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def local(monkeypatch):
    """Whatever the file system of the tests is."""
    monkeypatch.setattr(sqlite, "waits_for_others", lambda _path: False)


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def journal(journal_at, lines, seconds):
    """One with a line, whose opening has been written down."""
    journal = journal_at(clock=seconds)
    journal.open()
    journal.append(Commit(lines(1, 1)))
    return journal


def seqs(journal):
    return journal.page(Query(0, ALL, 1000)).seqs


def test_it_is_a_commit_like_any_other(journal, lines, run):
    """Readers see it at once, also in another program; the next ones follow, on the loop or not."""
    assert journal.append_now(Commit(lines(2, 3), [run()]))
    assert journal.append_now(Commit(lines(5, 1)))
    journal.append(Commit(lines(6, 1)))
    assert journal.append_now(Commit(lines(7, 1)))
    assert seqs(journal) == list(range(1, 8))
    with closing(sqlite3.connect(journal.path)) as other:
        assert other.execute("SELECT count(*), max(seq) FROM lines").fetchone() == (7, 7)
        assert other.execute("SELECT max(last) FROM marks").fetchone() == (7,)
        assert other.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    journal.close()
    assert journal.open().head == 7


@pytest.mark.parametrize("how", ["durable", "full", "first", "network"])
def test_what_may_take_long_is_left_to_the_thread(journal_at, lines, monkeypatch, how):
    """A sync, and the first commit of an opening, which has one; a file system whose writes may take any time."""
    monkeypatch.setattr(sqlite, "waits_for_others", lambda _path: how == "network")
    journal = journal_at(sync="full" if how == "full" else "normal")
    journal.open()
    if how != "first":
        journal.append(Commit(lines(1, 1)))
    last = len(seqs(journal))
    assert not journal.append_now(Commit(lines(last + 1, 1), durable=how == "durable"))
    assert len(seqs(journal)) == last


def test_somebody_elses_lock_is_not_waited_for(journal, lines, monkeypatch):
    """It is refused at once; the thread waits for it, and then goes on."""
    assert journal.append_now(Commit(lines(2, 1)))
    waits = []
    execute = journal._wait_for_locks
    monkeypatch.setattr(
        journal, "_wait_for_locks", lambda db, *, patient: (waits.append(patient), execute(db, patient=patient))
    )
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError):
            journal.append_now(Commit(lines(3, 1)))
        assert waits == [False]
        other.execute("ROLLBACK")
    journal.append(Commit(lines(3, 1)))
    assert waits == [False, True]
    assert journal.append_now(Commit(lines(4, 1)))
    assert seqs(journal) == [1, 2, 3, 4]


def test_a_checkpoint_is_not_held_up(journal, lines):
    """The lock that saves calls between commits is given back first: the log begins anew."""
    for n in range(2, 12):
        assert journal.append_now(Commit(lines(n, 1)))
    journal._unchecked = sqlite.IDLE_CHECKPOINT_BYTES
    journal.checkpoint(idle=True)
    assert journal._unchecked == 0, "everything was moved into the file"
    assert journal.append_now(Commit(lines(12, 1)))
    assert seqs(journal) == list(range(1, 13))


def test_a_log_that_has_grown_is_put_in_order_first(journal, lines):
    """By the thread, which is asked."""
    journal._unchecked = journal._retention.log_bytes + 1
    assert not journal.append_now(Commit(lines(2, 1)))


def test_the_files_are_looked_at_once_a_second(journal, lines, seconds, monkeypatch):
    """However many commits there are: it is most of the calls of a small one."""
    looks = []
    monkeypatch.setattr(journal._disturbance, "look", looks.append)
    for n in range(2, 12):
        assert journal.append_now(Commit(lines(n, 1)))
    assert len(looks) == 1
    seconds.now += sqlite.LOOK_S
    assert journal.append_now(Commit(lines(12, 1)))
    assert len(looks) == 2


def test_what_is_committed_on_the_loop_is_synced_like_the_rest(journal, lines, seconds):
    """The oldest unsynced commit sets the time; afterwards every change of the log by others is noticed."""
    assert journal.append_now(Commit(lines(2, 1)))
    assert journal.sync() == sqlite.SYNC_AFTER_S
    seconds.now += sqlite.SYNC_AFTER_S
    assert journal.sync() == float("inf")
    assert not journal.disturbed()
    with open(journal.path + "-wal", "r+b") as log:
        log.write(log.read(1))
    assert journal.disturbed()


def test_lines_out_of_order_are_refused(journal, lines):
    with pytest.raises(JournalError, match="do not follow"):
        journal.append_now(Commit(lines(7, 1)))
    assert seqs(journal) == [1]
