"""Rows out of raw pages: the same that SQLite reads, from file and log, and no error for any bytes."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest

from logrelay.journal.pages import PAGE_SIZE, RawPages


@pytest.fixture
def path(tmp_path):
    """A file with rows of every kind of value, some of them longer than a page."""
    made = tmp_path / "some.db"
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, number INTEGER, text TEXT, blob BLOB)")
        for n in range(1, 200):
            number = (0, 1, -1, 127, 1 << 14, 1 << 22, 1 << 30, 1 << 44, -(1 << 60), None)[n % 10]
            db.execute("INSERT INTO t VALUES (?, ?, ?, ?)", (n * n, number, "ä" * (n * n % 9000), b"b" * n))
    return made


def read(path):
    """Return the rows of the table, as SQLite would."""
    pages = RawPages(str(path))
    rows = {}
    with closing(pages):
        for number in range(2, len(pages) + 1):
            rows |= {rowid: (columns[1], columns[2].decode(), columns[3]) for rowid, columns in pages.rows(number)}
    return rows


def sqlite_reads(path):
    with closing(sqlite3.connect(path)) as db:
        return {row[0]: row[1:] for row in db.execute("SELECT * FROM t")}


def test_the_rows_are_those_that_sqlite_reads(path):
    """Numbers of every width, texts, bytes, NULLs, and chains of overflow pages."""
    assert read(path) == sqlite_reads(path)


def test_committed_pages_of_the_log_count_and_others_do_not(path, tmp_path):
    """The file of a relay that was killed; a transaction that was under way is not in it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE t SET text = 'new' WHERE id = 4")
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN")
        db.execute("UPDATE t SET text = 'half done'")
        copy = tmp_path / "copy.db"
        for end in ("", "-wal"):
            copy.with_name(copy.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
        db.execute("ROLLBACK")
        expected = sqlite_reads(path)
    assert expected[4][1] == "new"
    assert read(copy) == expected


def test_a_damaged_frame_does_not_end_the_log(path, tmp_path):
    """SQLite forgets everything behind it, committed or not."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE t SET number = 5 WHERE id = 1")
        first = path.with_name(path.name + "-wal").stat().st_size
        db.execute("UPDATE t SET text = 'new' WHERE id = 10000")
        copy = tmp_path / "copy.db"
        for end in ("", "-wal"):
            copy.with_name(copy.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
    with copy.with_name(copy.name + "-wal").open("r+b") as file:
        file.seek(first - 10)
        file.write(b"damage")
    assert read(copy)[10000][1] == "new"
    assert sqlite_reads(copy)[10000][1] != "new"


def test_no_bytes_are_an_error(path, tmp_path):
    """Whatever is in the file: rows or none."""
    dice = random.Random(1)
    content = bytearray(path.read_bytes())
    for _ in range(200):
        for _ in range(50):
            content[dice.randrange(len(content))] = dice.randrange(256)
        copy = tmp_path / "copy.db"
        copy.write_bytes(content)
        pages = RawPages(str(copy))
        with closing(pages):
            for number in range(len(pages) + 2):
                list(pages.rows(number))
                list(pages.pairs(number))
            pages.free()


def test_pages_that_hold_nothing_any_more_are_known(path):
    """What was deleted must not come back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM t WHERE id > 100")
        expected = db.execute("PRAGMA freelist_count").fetchone()[0]
    pages = RawPages(str(path))
    with closing(pages):
        assert len(pages.free()) == expected > 10


def test_pairs_of_a_table_without_rowids_are_found(path):
    """Short ones, and one that is longer than a page."""
    long = "x" * 10_000
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO meta VALUES ('a', 1), ('b', ?), ('c', 'text')", (long,))
    pages = RawPages(str(path))
    with closing(pages):
        found = [pair for number in range(1, len(pages) + 1) for pair in pages.pairs(number)]
    assert found == [(b"a", 1), (b"b", long.encode()), (b"c", b"text")]


def test_a_file_that_is_not_there_has_no_pages(tmp_path):
    """No error either."""
    pages = RawPages(str(tmp_path / "nothing.db"))
    with closing(pages):
        assert len(pages) == 0
        assert list(pages.rows(1)) == list(pages.pairs(1)) == []
