"""What opening and reopening the SQLite journal leaves behind: files, settings, and words for people."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from logrelay.errors import ConfigError, JournalError
from logrelay.journal import schema
from logrelay.journal.interface import JournalLost, Query
from logrelay.journal.query import READ_LIMIT
from logrelay.model import Commit

ALL = 1 << 60
REWRITTEN = "The journal file was deleted or replaced while the relay ran; it was written again, complete."


def seqs(journal):
    return journal.page(Query(0, ALL, 10_000)).seqs


def open_files(path):
    """Names of the open files whose path begins like the journal's, the lock aside."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            name = str(descriptor.readlink())
        except OSError:
            continue
        if name.startswith(str(path)) and not name.removesuffix(" (deleted)").endswith(".lock"):
            found.append(name)
    return found


@pytest.fixture
def filled(journal_at, lines):
    """Make a journal with ten lines, closed."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 10)))
    journal.close()
    return journal


@pytest.fixture
def deleted(journal_at, lines, run):
    """Make a journal with ten lines and a run, open, and its file deleted."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 10), [run(3, last_seq=5)]))
    journal_at.path.unlink()
    with pytest.raises(JournalLost, match=r"was deleted or replaced while the relay was running"):
        journal.append(Commit(lines(11, 1)))
    return journal


# --- limits and settings ---------------------------------------------------------------------------------------------


def test_limits_are_refused_with_the_least_that_is_allowed(journal_at):
    """What was asked for, and what would do."""
    with pytest.raises(ConfigError) as error:
        journal_at(max_bytes=1000, max_age_s=60)
    assert str(error.value) == (
        "a journal of 1000 bytes and 60 s cannot be kept; at least 1048576 bytes and no less than 0 s are needed"
    )


def test_the_least_limits_are_allowed(journal_at, lines):
    """A megabyte, and less than a second."""
    journal = journal_at(max_bytes=1 << 20, max_age_s=0.5)
    journal.open()
    journal.append(Commit(lines(1, 1)))
    assert journal.due() == 0.501


def test_retention_measures_its_steps_with_the_clock_given(journal_at, lines, clock):
    """Where a step takes a second, the next one is the smallest there is."""
    journal = journal_at(max_age_s=60, clock=iter(range(1000)).__next__)
    journal.open()
    for first in range(1, 5001, 1000):
        journal.append(Commit(lines(first, 1000)))
    clock.forward(61)
    assert [journal.prune(), journal.prune(), journal.prune()] == [1001, 1101, 1201]


def test_the_connections_are_set_up(journal_at):
    """The log is cut to its share of the size; a reader may not glue together more than its limit."""
    journal = journal_at(max_bytes=8 << 20)
    journal.open()
    assert journal._db.execute("PRAGMA journal_size_limit").fetchone() == (1 << 20,)
    with journal._pool.lend() as db:
        assert db.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == READ_LIMIT


def test_a_file_whose_mode_somebody_changed_gets_its_log_back(journal_at, filled):
    """Without write-ahead log every reader would stop the writer."""
    with closing(sqlite3.connect(journal_at.path)) as tool:
        assert tool.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    journal = journal_at()
    journal.open()
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_size_on_the_disk_has_the_log_in_it(journal_at, lines):
    """File, log and index of the log."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 100)))
    path = journal_at.path
    sizes = [path.with_name(path.name + suffix).stat().st_size for suffix in ("", "-wal", "-shm")]
    assert all(sizes)
    assert journal.disk_bytes() == sum(sizes)


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_sound_file_is_opened_without_words(journal_at, filled):
    """A list that says nothing, not nothing."""
    assert journal_at().open().notices == []


KEPT = (
    "10 lines could be read and are kept in a new file, none is known to be lost. "
    "The damaged file was set aside as journal.db.corrupt-20260123T100000Z."
)


def change(statement):
    def apply(path):
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(statement)

    return apply


def cut_header(path):
    with path.open("r+b") as file:
        file.write(b"\0" * 50)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_header, "its header makes no sense"),
        (change("DROP TABLE meta"), "journal {path} is damaged (no such table: meta)"),
        (change("DELETE FROM meta WHERE key = 'epoch'"), "journal {path} is damaged (it lacks 'epoch')"),
        (change("UPDATE marks SET last = 8, crc = NULL"), "its last line is 10, its index says 8"),
        (change("UPDATE marks SET last = 10, info = 9"), "table marks: the row first = 1 fails its checksum"),
    ],
)
def test_a_damaged_file_is_set_aside_with_what_is_wrong(journal_at, filled, damage, words):
    """One notice, in these words; the file is not open any more when it gets its new name."""
    path = journal_at.path
    damage(path)
    journal = journal_at()
    set_aside, open_then = journal._file.set_aside, []

    def watched(reason, now_us):
        open_then.extend(open_files(path))
        return set_aside(reason, now_us)

    journal._file.set_aside = watched
    opening = journal.open()
    assert opening.notices == [f"The journal was damaged ({words.format(path=path)}). " + KEPT]
    assert [epoch[:2] for epoch in opening.earlier] == [("abc123", 1)]
    assert (opening.head, seqs(journal)) == (10, list(range(1, 11)))
    assert open_then == []


@pytest.mark.parametrize(
    ("table", "column", "key"), [("meta", "value", "'epochs'"), ("aliases", "alias", "'abc123.xy'")]
)
def test_a_text_that_is_none_any_more_is_damage(journal_at, lines, table, column, key):
    """One bit is enough; the relay starts all the same, with every line."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 3), aliases=["abc123.xy"]))
    journal.close()
    with closing(sqlite3.connect(journal_at.path, isolation_level=None)) as db:
        name = "key" if table == "meta" else "alias"
        db.execute(f"UPDATE {table} SET {column} = CAST(x'5bff5d' AS TEXT) WHERE {name} = {key}")
    again = journal_at()
    opening = again.open()
    assert (opening.head, "damaged" in opening.notices[0]) == (3, True)
    assert again.page(Query(0, 9, 9)).seqs == [1, 2, 3]
    again.close()


def test_an_opening_that_fails_leaves_nothing_open(journal_at, filled, monkeypatch):
    """Neither the file nor the lock: the next attempt is free."""

    def broken(db):
        raise sqlite3.OperationalError("no")

    journal = journal_at()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrate", broken)
        with pytest.raises(JournalError, match=r"journal\.db: SQLite cannot use the file \(no\)"):
            journal.open()
    assert open_files(journal_at.path) == []
    assert journal_at().open().head == 10


def test_an_error_of_the_system_is_said_with_the_path(journal_at, monkeypatch):
    """Not only those of SQLite."""

    def full(suffix):
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = journal_at()
    monkeypatch.setattr(journal._file, "blank", full)
    with pytest.raises(JournalError) as error:
        journal.open()
    assert str(error.value) == (
        f"journal {journal.path}: the disk is full; free some space (No space left on device: {journal.path})"
    )
    assert error.value.retry


# --- appending -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"), [([12, 13, 14], "12 to 14"), ([11, 13], "11 to 13"), ([10, 12], "10 to 12")]
)
def test_lines_that_do_not_follow_are_named(journal_at, filled, line, wrong, said):
    """A hole before them, a hole in them, or the last one twice."""
    journal = journal_at()
    journal.open()
    with pytest.raises(JournalError) as error:
        journal.append(Commit([line(seq) for seq in wrong]))
    assert str(error.value) == f"lines {said} do not follow line 10 of the journal"
    assert error.value.retry is False
    assert seqs(journal) == list(range(1, 11))


# --- reopening -------------------------------------------------------------------------------------------------------


def test_a_closed_journal_is_not_reopened(journal_at, filled):
    """Only `open` undoes a close."""
    with pytest.raises(JournalError) as error:
        filled.reopen()
    assert str(error.value) == f"journal {filled.path} has been closed"
    assert error.value.retry is False
    assert filled.open().head == 10


def test_nobody_reads_while_the_journal_is_reopened(deleted, monkeypatch):
    """A page in between says that it is not possible at the moment; the page after it is whole."""
    reclaim, said = deleted._file.reclaim, []

    def watched():
        with pytest.raises(JournalError) as error:
            seqs(deleted)
        said.append(str(error.value))
        reclaim()

    monkeypatch.setattr(deleted._file, "reclaim", watched)
    assert deleted.reopen().notices == [REWRITTEN]
    assert said == [f"journal {deleted.path} is not open at the moment"]
    assert seqs(deleted) == list(range(1, 11))
