"""The epochs of a journal's openings, and whether the last one ended in order."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.positions import MAX_EPOCHS, Epoch
from logrelay.journal import sqlite
from logrelay.journal.opening_record import OpeningRecord
from logrelay.model import Commit


def record(*names, boot="boot-1", full=False):
    left = iter(names)
    return OpeningRecord(random_epoch=lambda: next(left), boot=boot, full=full)


@pytest.fixture
def meta():
    """The table, with what a new file has in it."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO meta VALUES ('epoch', 'aaaaaa'), ('base', 0)")
        yield db


def begun(db, *names, head, created=False, **kwargs):
    found = record(*names, **kwargs)
    found.begin(dict(db.execute("SELECT key, value FROM meta")), head, created=created)
    return found


def test_each_opening_that_commits_leaves_its_epoch(meta):
    """A new file has its own; each later opening takes a new one, and one that writes nothing is not remembered."""
    first = begun(meta, head=0, created=True)
    assert (first.epoch, first.earlier, first.due) == ("aaaaaa", [], True)
    first.write(meta)
    first.confirm()
    assert not first.due
    begun(meta, "nobody", head=4)
    begun(meta, "bbbbbb", head=4).write(meta)
    third = begun(meta, "cccccc", head=9)
    assert (third.epoch, third.earlier) == ("cccccc", [Epoch("aaaaaa", 1), Epoch("bbbbbb", 5)])


def test_a_file_of_a_version_before_has_one_epoch_for_all_its_openings(meta):
    """It may have begun behind another file's lines; that several openings share it stays known."""
    meta.execute("UPDATE meta SET value = 7 WHERE key = 'base'")
    begun(meta, "bbbbbb", head=20).write(meta)
    assert begun(meta, "cccccc", head=30).earlier == [Epoch("aaaaaa", 8, shared=True), Epoch("bbbbbb", 21)]


def test_the_oldest_epoch_is_forgotten_first(meta):
    """What is remembered has a bound."""
    for number in range(MAX_EPOCHS + 5):
        begun(meta, f"n{number}", head=number).write(meta)
    earlier = begun(meta, "last", head=MAX_EPOCHS + 5).earlier
    assert len(earlier) == MAX_EPOCHS - 1
    assert earlier[0].name == "n6"
    assert earlier[-1].name == f"n{MAX_EPOCHS + 4}"


def test_a_name_is_not_taken_twice(meta):
    """Where the source has no other name, the earlier epoch is forgotten rather than given a second meaning."""
    begun(meta, "bbbbbb", head=3).write(meta)
    assert begun(meta, "aaaaaa", "bbbbbb", "cccccc", head=5).epoch == "cccccc"
    stuck = OpeningRecord(random_epoch=lambda: "aaaaaa", boot="", full=False)
    stuck.begin(dict(meta.execute("SELECT key, value FROM meta")), 5, created=False)
    assert (stuck.epoch, stuck.earlier) == ("aaaaaa", [Epoch("bbbbbb", 4)])


@pytest.mark.parametrize("value", ["", "[", "7", '[["a"]]', '[["a","b",0]]'])
def test_a_list_that_makes_no_sense_leaves_the_epochs_unknown(meta, value):
    """Their ids are then those of another journal, which is told; none gets a second meaning."""
    begun(meta, "bbbbbb", head=3).write(meta)
    meta.execute("UPDATE meta SET value = ? WHERE key = 'epochs'", (value,))
    assert begun(meta, "cccccc", head=5).earlier == []


def test_only_a_machine_that_stopped_under_the_relay_may_have_taken_lines(meta):
    """Not a kill in the same boot, not a stop in order, not with sync=full, and nobody knows of a version before."""
    assert not begun(meta, "bbbbbb", head=3, boot="boot-9").unsynced
    normal = begun(meta, "bbbbbb", head=3)
    normal.write(meta)
    assert not begun(meta, "cccccc", head=5).unsynced
    assert begun(meta, "cccccc", head=5, boot="boot-2").unsynced
    normal.write_closed(meta)
    assert not begun(meta, "cccccc", head=5, boot="boot-2").unsynced
    begun(meta, "dddddd", head=5).write(meta)
    assert begun(meta, "eeeeee", head=5, boot="boot-2").unsynced
    begun(meta, "ffffff", head=5, full=True).write(meta)
    assert not begun(meta, "gggggg", head=5, boot="boot-2").unsynced


# --- in the journal --------------------------------------------------------------------------------------------------


def test_a_journal_tells_that_the_machine_stopped_under_it(journal_at, lines):
    """The notice stands where the lines may be missing; after `close` there is nothing to tell."""
    killed = journal_at(boot="boot-1")
    killed.open()
    killed.append(Commit(lines(1, 3)))
    with killed._in_use:  # as a kill leaves it: without the mark
        killed._disconnect()
        killed._file.release()
    opening = journal_at(boot="boot-2").open()
    assert opening.unsynced
    assert ["power cut" in notice for notice in opening.notices] == [True]


def test_a_stop_in_order_leaves_nothing_to_tell(journal_at, lines):
    """Also when the machine is then started anew."""
    stopped = journal_at(boot="boot-1")
    stopped.open()
    stopped.append(Commit(lines(1, 3)))
    stopped.close()
    opening = journal_at(boot="boot-2").open()
    assert (opening.unsynced, opening.notices) == (False, [])


def test_an_epoch_goes_on_where_a_lost_file_is_replaced(journal_at, lines):
    """With the ids of its openings before: what is not kept any more is told with range and count."""
    first = journal_at()
    first.open()
    first.append(Commit(lines(1, 3)))
    first.close()
    second = journal_at()
    second.open()
    second.append(Commit(lines(4, 3)))
    for path in journal_at.path.parent.iterdir():
        if not path.name.endswith(".lock"):
            path.unlink()
    with pytest.raises(JournalError):
        second.append(Commit(lines(7, 1)))
    assert second.reopen().earlier == [Epoch("abc123", 1)]
    second.append(Commit(lines(7, 1)))
    second.close()
    assert journal_at().open().earlier == [Epoch("abc123", 1), Epoch("abc124", 4)]


class Seconds:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def synced(monkeypatch):
    """Where files are synced."""
    paths = []
    monkeypatch.setattr("logrelay.journal.journal_file._sync", paths.append)
    return paths


def test_what_is_committed_is_synced_within_seconds(journal_at, lines, synced):
    """The oldest commit that is not on the disk sets the time; a sync takes all of them, and then there is nothing."""
    clock = Seconds()
    journal = journal_at(clock=clock)
    journal.open()
    synced.clear()
    assert journal.sync() == float("inf")
    journal.append(Commit(lines(1, 1)))
    assert journal.sync() == float("inf"), "the first commit of an opening is synced"
    journal.append(Commit(lines(2, 1)))
    clock.now += 2
    journal.append(Commit(lines(3, 1)))
    assert journal.sync() == sqlite.SYNC_AFTER_S - 2
    clock.now += 3
    assert (synced, journal.sync(), synced) == ([f"{journal.path}-wal"], float("inf"), [f"{journal.path}-wal"])
    journal.append(Commit(lines(4, 1)))
    journal.append(Commit(lines(5, 1), durable=True))
    assert journal.sync() == float("inf")


def test_a_sync_that_fails_is_tried_again(journal_at, lines, monkeypatch):
    """Not at once, and as trouble of the upkeep: nothing is said to be on the disk that is not."""
    clock = Seconds()
    journal = journal_at(clock=clock)
    journal.open()
    journal.append(Commit(lines(1, 1)))
    journal.append(Commit(lines(2, 1)))

    def fail(_path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("logrelay.journal.journal_file._sync", fail)
    clock.now += 5
    with pytest.raises(JournalError):
        journal.sync()
    assert journal.sync() == sqlite.SYNC_AFTER_S


def test_a_journal_that_always_syncs_has_nothing_left(journal_at, lines):
    """sync=full."""
    journal = journal_at(sync="full")
    journal.open()
    for seq in (1, 2):
        journal.append(Commit(lines(seq, 1)))
        assert journal.sync() == float("inf")
