"""Room on the disk is taken before it is needed, and what the journal may take leaves some to others."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from typing import NamedTuple

import pytest

from logrelay.journal import disk_space as module
from logrelay.journal import schema
from logrelay.journal.disk_space import DiskSpace, pages_of
from logrelay.journal.journal_file import JournalFile
from logrelay.journal.schema import PAGE_SIZE
from logrelay.model import Commit

MIB = 1 << 20


class Status(NamedTuple):
    """What is asked of a file system."""

    f_blocks: int
    f_bavail: int
    f_frsize: int


@pytest.fixture
def file(tmp_path):
    """An empty journal, open for writing; `db` is its connection."""
    path = tmp_path / "journal.db"
    schema.create(str(path), epoch="abc123", base=0, created_us=0)
    file = JournalFile(str(path))
    file.claim()
    yield file
    file.release()


@pytest.fixture
def db(file):
    with closing(schema.connect_writer(file.path, full=False, log_bytes=MIB)) as db:
        db.execute("SELECT count(*) FROM lines").fetchone()
        yield db


@pytest.fixture
def space(file):
    """The room of the journal."""
    space = DiskSpace(file, keep_free=MIB, max_bytes=64 * MIB)
    space.open()
    yield space
    space.close()


def has(monkeypatch, *, total, free):
    monkeypatch.setattr(os, "statvfs", lambda path: Status(total // 512, free // 512, 512))


@pytest.mark.parametrize(
    ("keep_free", "total", "free", "beyond"),
    [
        (MIB, 1024 * MIB, 21 * MIB, 20 * MIB),
        (None, 1024 * MIB, 120 * MIB, 120 * MIB - 1024 * MIB // 20),
        (None, 1 << 40, 300 * MIB, 44 * MIB),
    ],
)
def test_what_is_free_beyond_what_is_to_be_kept_free_may_be_taken(file, monkeypatch, keep_free, total, free, beyond):
    """Together with what the journal has already."""
    has(monkeypatch, total=total, free=free)
    allowed = DiskSpace(file, keep_free=keep_free, max_bytes=64 * MIB).allowed()
    assert allowed - file.disk_bytes() == pytest.approx(beyond, abs=512)


@pytest.mark.parametrize(("total", "own"), [(1 << 40, 16 * MIB), (8 * MIB, 2 * MIB)])
def test_a_quarter_is_the_journals_own(file, space, monkeypatch, total, own):
    """Of its limit, or of a smaller file system; others would take the rest as well."""
    has(monkeypatch, total=total, free=0)
    assert space.allowed() == own
    assert not space.is_short()


def test_a_file_system_that_does_not_limit(file, space, monkeypatch):
    """Because it was said, because it does not say, or because it cannot be asked."""
    assert DiskSpace(file, keep_free=0, max_bytes=MIB).allowed() is None
    has(monkeypatch, total=0, free=0)
    assert space.allowed() is None

    def fails(path):
        raise OSError(errno.EIO, "no answer", path)

    monkeypatch.setattr(os, "statvfs", fails)
    assert space.allowed() is None
    assert not space.is_short()


def test_the_file_has_the_pages_of_a_commit_before_it(file, space, db):
    """And SQLite takes them: the database is sound, and a checkpoint cuts what was not needed."""
    assert space.claim(db, 100)
    count = db.execute("PRAGMA page_count").fetchone()[0]
    size = os.stat(file.path).st_size
    assert size >= (count + 100) * PAGE_SIZE
    assert os.stat(file.path).st_blocks * 512 >= (count + 100) * PAGE_SIZE
    db.execute("INSERT INTO lines VALUES (1, 1, 20, 1, 1, printf('%.*c', 200000, 'x'), NULL)")
    assert db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with closing(sqlite3.connect(file.path)) as tool:
        assert tool.execute("SELECT length(body) FROM lines").fetchone() == (200_000,)


@pytest.mark.parametrize(("error", "claimed"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EFBIG, True)])
def test_no_room_is_said_before_the_commit(space, db, monkeypatch, error, claimed):
    """A quota is the same; whatever else it is, SQLite may still be able to write."""

    def refuse(*args):
        raise OSError(error, "no")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert space.claim(db, 100) is claimed


def test_free_pages_of_the_file_are_room(space, db, monkeypatch):
    """The pages of lines that have gone are those of the next ones."""
    db.execute("INSERT INTO lines VALUES (1, 1, 20, 1, 1, printf('%.*c', 800000, 'x'), NULL)")
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    db.execute("DELETE FROM lines")

    def refuse(*args):
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    spare = db.execute("PRAGMA freelist_count").fetchone()[0]
    assert spare > 100
    assert space.claim(db, spare)
    space.forget()
    assert not space.claim(db, spare + 1)


def test_log_and_lock_file_have_their_reserve(file, space, db):
    """As much of it as the log may have at all; the next start gives the lock file's up and reads what it says."""
    space.reserve(MIB // 8)
    assert os.stat(file.path + "-wal").st_size == MIB // 8
    space.reserve(MIB)
    assert os.stat(file.path + "-wal").st_size == module.LOG_RESERVE
    assert os.stat(file.path + ".lock").st_size == module.START_RESERVE
    db.execute("INSERT INTO lines VALUES (1, 1, 20, 1, 1, 'x', NULL)")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.release()
    file.claim()
    assert os.stat(file.path + ".lock").st_size < 100


def test_a_stop_leaves_the_room_of_the_next_start(journal_at):
    """SQLite deletes the log at a stop; what that leaves is kept by the lock file, before somebody else takes it."""
    journal = journal_at()
    journal.open()
    os.truncate(f"{journal.path}.lock", 10)  # the disk was full when it was asked for
    journal.close()
    assert not os.path.exists(f"{journal.path}-wal")
    assert os.stat(f"{journal.path}.lock").st_size == module.START_RESERVE


@pytest.mark.parametrize(("size", "count"), [(10, 1), (300, 1000), (3000, 50), (60_000, 20), (1, 4000)])
def test_a_commit_takes_no_more_pages_than_are_claimed(journal_at, lines, size, count):
    """Whatever its lines are like."""
    journal = journal_at()
    journal.open()
    made = lines(1, count, message="m" * size)
    before = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal.append(Commit(made))
    assert journal._db.execute("PRAGMA page_count").fetchone()[0] - before <= pages_of(made)
