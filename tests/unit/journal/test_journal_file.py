"""Whose file it is, and what happens when it is damaged, deleted or replaced."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from logrelay.errors import JournalError, JournalRefused
from logrelay.fanout.positions import Epoch
from logrelay.journal import schema
from logrelay.journal.interface import Query
from logrelay.journal.journal_file import LOCK_MARK, JournalFile
from logrelay.model import Commit
from tests.support.waiting import DEADLINE_S

ALL = 1 << 60


def read_all(journal):
    return journal.page(Query(0, ALL, 100_000, max_bytes=1 << 30)).seqs


def test_a_second_relay_is_refused_and_told_who_holds_it(journal_at, lines):
    """The lock is on a file beside the journal; the holder goes on undisturbed; after it closes the way is free."""
    first = journal_at()
    first.open()
    with pytest.raises(JournalRefused, match=rf"in use by another relay \(process {os.getpid()}\)"):
        journal_at().open()
    first.append(Commit(lines(1, 1)))
    first.close()
    second = journal_at()
    assert second.open().head == 1


def test_the_mark_of_the_lock_is_never_off_the_disk(tmp_path, monkeypatch):
    """A power cut leaves it: without it a journal with a damaged header is taken for a stranger's file."""
    file, lock = JournalFile(str(tmp_path / "journal.db")), tmp_path / "journal.db.lock"
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.pread(descriptor, 99, 0).splitlines()[0]))
    file.claim()
    assert synced == [LOCK_MARK.encode()]
    file.reserve_lock(100_000)
    file.release()
    kept = []
    monkeypatch.setattr(os, "pwrite", lambda *_: kept.append(lock.read_bytes()))
    again = JournalFile(str(tmp_path / "journal.db"))
    again.claim()
    again.release()
    assert kept == [f"{LOCK_MARK}\n".encode()]
    assert len(synced) == 1, "it is there already"


def test_the_lock_ends_with_its_process(journal_at):
    """A killed relay leaves the lock file behind, but not the lock."""
    script = (
        "import sys, os, signal; from logrelay.journal.sqlite import SqliteJournal;"
        "SqliteJournal(sys.argv[1], now_us=lambda: 0, random_epoch=lambda: 'abcdef').open();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(journal_at.path)], check=False, timeout=DEADLINE_S)
    assert journal_at.path.with_name("journal.db.lock").exists()
    opening = journal_at().open()
    assert (opening.epoch, opening.earlier) == ("abc123", [Epoch("abcdef", 1, shared=True)])


def test_a_file_that_is_not_a_database_is_left_alone(journal_at):
    """Refused with one line that says what to do; not a byte of it changes."""
    journal_at.path.parent.mkdir()
    journal_at.path.write_bytes(b"precious notes\n" * 100)
    with pytest.raises(JournalRefused, match=r"no SQLite database.*choose another --journal path") as error:
        journal_at().open()
    assert "\n" not in str(error.value)
    assert not error.value.retry
    assert journal_at.path.read_bytes() == b"precious notes\n" * 100


def test_a_database_of_another_application_is_left_alone(journal_at):
    """Any SQLite file without our application id, whatever its tables are called."""
    journal_at.path.parent.mkdir()
    with closing(sqlite3.connect(journal_at.path)) as db, db:
        db.execute("CREATE TABLE lines (seq INTEGER PRIMARY KEY)")
    before = journal_at.path.read_bytes()
    with pytest.raises(JournalRefused, match="another application"):
        journal_at().open()
    assert journal_at.path.read_bytes() == before


def test_a_newer_journal_is_left_alone(journal_at, lines):
    """Its schema version is above ours: refused, and still readable for the newer relay."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 1)))
    journal.close()
    with closing(sqlite3.connect(journal_at.path)) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(
        JournalRefused, match=rf"schema version {schema.VERSION + 1}, this one knows up to {schema.VERSION}"
    ):
        journal_at().open()


def test_an_older_journal_is_migrated(journal_at, lines, monkeypatch):
    """Each version's step runs once, in a transaction with its version number; a failing step leaves the old
    version."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 1)))
    journal.close()
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)

    def half(db):
        db.execute("CREATE TABLE extra (x)")
        raise sqlite3.OperationalError("no")

    monkeypatch.setitem(schema.MIGRATIONS, schema.VERSION - 1, half)
    with pytest.raises(JournalError):
        journal_at().open()
    monkeypatch.setitem(schema.MIGRATIONS, schema.VERSION - 1, lambda db: db.execute("CREATE TABLE extra (x)"))
    again = journal_at()
    assert again.open().head == 1
    again.close()
    with closing(sqlite3.connect(journal_at.path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert db.execute("SELECT count(*) FROM extra").fetchone() == (0,)


def test_a_directory_is_refused_with_a_proposal(journal_at, tmp_path):
    """--journal names a file."""
    with pytest.raises(JournalRefused, match=r"is a directory.*journal\.db"):
        journal_at(tmp_path).open()


def test_a_place_that_cannot_be_written_is_one_clear_line(journal_at):
    """No directory can be made there, for whatever reason: a JournalError names the path."""
    with pytest.raises(JournalError, match=r"journal /proc/nowhere/journal\.db: ") as error:
        journal_at(Path("/proc/nowhere/journal.db")).open()
    assert "\n" not in str(error.value)
    with pytest.raises(JournalError, match="not a possible place"):
        journal_at(Path("/dev/null/journal.db")).open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_one_clear_line(journal_at, tmp_path):
    """Said before anything else is started."""
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o500)
    with pytest.raises(JournalError, match="no permission"):
        journal_at(shut / "journal.db").open()


def test_an_empty_file_becomes_a_journal(journal_at, lines):
    """`touch journal.db` is no reason to refuse."""
    journal_at.path.parent.mkdir()
    journal_at.path.touch()
    journal = journal_at()
    assert journal.open().notices == []
    journal.append(Commit(lines(1, 1)))
    assert stat.S_IMODE(journal_at.path.stat().st_mode) == 0o600


def write_some(journal_at, lines, count=3000):
    journal = journal_at()
    opening = journal.open()
    for start in range(opening.head + 1, count, 1000):
        journal.append(Commit(lines(start, 1000)))
    return journal


@pytest.mark.parametrize("damage", ["header", "garbage", "short", "schema", "tables", "marks"])
def test_a_damaged_journal_is_set_aside_at_opening(journal_at, lines, damage):
    """Renamed with a date, and a notice in words; what is readable goes on under the same numbers."""
    write_some(journal_at, lines).close()
    path = journal_at.path
    if damage == "header":
        with path.open("r+b") as file:
            file.write(b"\0" * 50)
    elif damage == "garbage":
        path.write_bytes(os.urandom(10_000))
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "schema":
        with path.open("r+b") as file:
            file.seek(100)
            file.write(os.urandom(3900))
    else:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DROP TABLE meta" if damage == "tables" else "DELETE FROM marks WHERE first > 1")
    broken = path.read_bytes()
    again = journal_at()
    opening = again.open()
    # A file of which no line is left cannot say which numbers it had given away.
    gone = damage in ("garbage", "short")
    assert ([epoch.name for epoch in opening.earlier], opening.head) == (([], 0) if gone else (["abc123"], 3000))
    assert opening.epoch != "abc123"
    (notice,) = opening.notices
    assert "journal.db.corrupt-20260123T100000Z" in notice
    assert path.with_name("journal.db.corrupt-20260123T100000Z").read_bytes() == broken
    again.append(Commit(lines(opening.head + 1, 5)))
    assert read_all(again) == list(range(1, opening.head + 6))


def overwrite_lines(path):
    """Destroy every page behind the first few, as a dying disk would."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(20 * 4096)
        file.write(os.urandom(size - 20 * 4096))


def test_set_aside_names_do_not_collide(journal_at, lines):
    """Two damaged files in the same second are both kept."""
    for _ in range(2):
        write_some(journal_at, lines).close()
        journal_at.path.write_bytes(b"x" * 200)
    journal_at().open()
    names = sorted(path.name for path in journal_at.path.parent.glob("*.corrupt-*"))
    assert names == ["journal.db.corrupt-20260123T100000Z", "journal.db.corrupt-20260123T100000Z-2"]


def test_damaged_files_do_not_fill_the_disk(journal_at, lines, clock):
    """The newest three are kept with their companions; a file of somebody else is never deleted."""
    stranger = journal_at.path.with_name("journal.db.found-20200101T000000Z")
    for _ in range(5):
        write_some(journal_at, lines, 10).close()
        stranger.write_text("somebody's")
        journal_at.path.write_bytes(b"x" * 200)
        journal_at.path.with_name("journal.db-wal").write_bytes(b"y")
        clock.forward(60)
        journal_at().open()
        journal_at.made[-1].close()
    names = sorted(path.name for path in journal_at.path.parent.iterdir())
    assert names == [
        "journal.db",
        "journal.db.corrupt-20260123T100300Z",
        "journal.db.corrupt-20260123T100300Z-wal",
        "journal.db.corrupt-20260123T100400Z",
        "journal.db.corrupt-20260123T100400Z-wal",
        "journal.db.corrupt-20260123T100500Z",
        "journal.db.corrupt-20260123T100500Z-wal",
        "journal.db.found-20200101T000000Z",
        "journal.db.lock",
    ]
