"""Single lines are taken out of a journal for good, and everything else of it stays right."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.journal import purged, schema
from logrelay.journal.holes import Holes
from logrelay.journal.interface import Query
from logrelay.journal.sqlite import SqliteJournal
from logrelay.journal.verify import verify_file
from logrelay.model import Commit

SECRET = "hunter2-XYZZY"


@pytest.fixture
def opened(tmp_path):
    """Open the journal of this test; every one is closed at its end."""
    journals = []

    def begin(epoch="abc123"):
        for one in journals:
            one.close()
        journals.append(SqliteJournal(str(tmp_path / "j.db"), now_us=lambda: 0, random_epoch=lambda: epoch))
        journals[-1].open()
        return journals[-1]

    yield begin
    for one in journals:
        one.close()


@pytest.fixture
def journal(opened, line):
    """2,000 lines of which numbers 5 to 7 and 1500 have a secret, 6 being a notice of the relay."""
    journal = opened()
    texts = {seq: SECRET * 20 for seq in (5, 6, 7, 1500)}
    made = [
        line(seq, message=texts.get(seq, "m"), run=0 if seq == 6 else 1, level=40 if seq == 5 else 20)
        for seq in range(1, 2001)
    ]
    for start in range(0, 2000, 100):
        journal.append(Commit(made[start : start + 100]))
    return journal


def pages(journal, **more):
    return journal.page(Query(0, 3000, 3000, **more))


def test_lines_go_and_the_rest_stays_right(opened, journal, tmp_path):
    """Counts, checksums, holes and the head should be as if somebody had taken care of them; a notice says it."""
    assert journal.purge([5, 6, 7, 1500, 9999]) == 3

    page = pages(journal)
    bodies = dict(zip(page.seqs, page.bodies, strict=True))
    assert page.seqs == list(range(1, 2002))
    for seq in (5, 7, 1500):
        assert b'"cause":"purged","count":1' in bodies[seq]
        assert b'"id":"abc123-%d"' % seq in bodies[seq]
    assert b'"state":"purged","count":3,"first":"abc123-5","last":"abc123-1500"' in bodies[2001]
    assert SECRET.encode() in bodies[6], "what the relay itself has said stays"
    assert sum(journal.levels(1, 2000).values()) == 1997
    assert 40 not in journal.levels(1, 2000)
    assert sum(journal.levels(1, 2001).values()) == 1998, "whole blocks, by what their marks say"
    assert journal.damaged_lines == 0
    opened("def456")  # a start in order, which verifies everything
    found = verify_file(str(tmp_path / "j.db"))
    assert found.sound
    assert (found.known, found.purged, found.head) == ([], [(5, 5), (7, 7), (1500, 1500)], 2001)


def test_a_reopened_journal_says_nothing_of_damage(opened, journal):
    """A relay that starts on the file should take it for sound, and show the gap."""
    journal.purge([5, 7])
    again = SqliteJournal(journal.path, now_us=lambda: 0, random_epoch=lambda: "def456")
    journal.close()
    opening = again.open()
    try:
        assert opening.notices == []
        assert [b"purged" in body for body in pages(again, filter=Filter(level=50)).bodies].count(True) >= 2
    finally:
        again.close()


def test_no_byte_is_left_in_any_file(opened, journal, tmp_path, line):
    """Neither in free pages nor in the log, also of a copy that retention or an update had left behind."""
    path = tmp_path / "j.db"
    assert SECRET.encode() in path.read_bytes() + (tmp_path / "j.db-wal").read_bytes()
    journal.purge([5, 7, 1500])
    journal.purge([])

    left = {one.name: one.read_bytes().count(SECRET.encode()) for one in tmp_path.iterdir()}
    # Twenty times in the one notice, which stays.
    assert {name: count for name, count in left.items() if count} == {"j.db": 20}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] == 0
        assert db.execute("PRAGMA auto_vacuum").fetchone()[0] == 2
    assert journal.append(Commit([line(2002)])) is None


def test_a_purge_that_was_ended_is_finished_by_the_next(journal, monkeypatch, tmp_path):
    """Lines that are gone while their bytes are not have to be remembered."""

    def fail(_db):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(purged, "wipe", fail)
        with pytest.raises(JournalError):
            journal.purge([5, 7, 1500])
    journal.checkpoint(idle=True)
    assert journal.purge([]) == 0
    assert sum(one.read_bytes().count(SECRET.encode()) for one in tmp_path.iterdir()) == 20


def test_retention_forgets_what_was_purged(journal, tmp_path):
    """A gap that would not be kept any more is not told."""
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE holes (first INTEGER PRIMARY KEY, last INTEGER NOT NULL)")
        db.execute(schema.PURGED_TABLE)
        for table in ("holes", "purged"):
            db.execute(f"INSERT INTO {table} VALUES (2, 3), (5, 9), (20, 20)")
        purged.forget(db, 6)
        assert purged.ranges_in(db) == [(7, 9), (20, 20)] == db.execute("SELECT first, last FROM holes").fetchall()


def test_too_many_places_are_refused_and_nothing_is_deleted(journal, monkeypatch):
    """True lines would be hidden between them."""
    monkeypatch.setattr(purged, "MOST_HOLES", 2)
    with pytest.raises(JournalError, match="these lines lie in 3 places"):
        journal.purge([5, 7, 1500])
    assert sum(journal.levels(1, 2000).values()) == 2000


def test_purged_and_lost_ranges_are_told_apart():
    """Where they touch, too; only what was lost counts as damage."""
    holes = Holes(lambda _seq: "abc123", lambda: 0)
    holes.replace([(5, 9)], purged=[(7, 8)])

    assert holes.within(0, 100) == [(5, 6), (7, 8), (9, 9)]
    assert holes.lines == 3
    assert [b'"cause":"purged"' in holes.notice(hole) for hole in holes.within(0, 100)] == [False, True, False]
    holes.forget(8)
    assert holes.within(0, 100) == [(8, 8), (9, 9)]


def test_a_file_of_the_version_before_has_none(tmp_path):
    """The table is made at an opening."""
    with closing(sqlite3.connect(tmp_path / "x.db")) as db:
        assert purged.ranges_in(db) == []
