"""Damage in a file that SQLite can read: found where it is, and nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from logrelay.journal.lone_file import SUFFIX, LoneFile
from logrelay.journal.verify import verify_file, without
from logrelay.model import Commit


@pytest.fixture
def path(journal_at, lines, run):
    """A journal of 3,000 lines, closed."""
    journal = journal_at()
    journal.open()
    for first in (1, 1001, 2001):
        journal.append(Commit(lines(first, 1000), [run(1, last_seq=first)]))
    journal.close()
    return str(journal_at.path)


def change(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def test_a_sound_file_is_sound_also_while_it_is_written(path, journal_at, lines):
    """Every line was looked at; progress is told up to the end."""
    journal, told = journal_at(), []
    opening = journal.open()
    journal.append(Commit(lines(3001, 10)))
    found = verify_file(path, progress=lambda *done: told.append(done))
    assert found.sound
    assert (found.lines, found.unchecked, found.epoch, found.oldest, found.head) == (3010, 0, opening.epoch, 1, 3010)
    assert told[-1] == (3010, 3010)


@pytest.mark.parametrize(
    ("statement", "damaged", "missing"),
    [
        ("UPDATE lines SET body = replace(body, 'buy', 'bux') WHERE seq = 17", [(17, 17)], []),
        ("UPDATE lines SET level = 10 WHERE seq BETWEEN 5 AND 7", [(5, 7)], []),
        ("UPDATE lines SET time_us = time_us + 1 WHERE seq = 2000", [(2000, 2000)], []),
        ("UPDATE lines SET seq = 9000 WHERE seq = 3000", [(9000, 9000)], [(3000, 8999)]),
        ("DELETE FROM lines WHERE seq BETWEEN 1990 AND 2010", [], [(1990, 2010)]),
        ("UPDATE lines SET crc = NULL WHERE seq = 5", [], []),
    ],
)
def test_lines_are_named(path, statement, damaged, missing):
    """Ranges of numbers; what has no checksum is counted."""
    change(path, statement)
    found = verify_file(path)
    assert (found.damaged, found.missing, found.structure) == (damaged, missing, [])
    assert found.unchecked == ("NULL" in statement)


def test_what_is_known_to_be_lost_is_no_finding(path):
    """A salvage has told of it."""
    change(path, "DELETE FROM lines WHERE seq BETWEEN 5 AND 9", "INSERT INTO holes VALUES (5, 8)")
    found = verify_file(path)
    assert (found.missing, found.known) == ([(9, 9)], [(5, 8)])


@pytest.mark.parametrize("table", ["marks", "runs", "sources"])
def test_rows_of_small_tables_are_named(path, table):
    """Their checksum is the only thing that can tell."""
    column = {"marks": "info", "runs": "last_seq", "sources": "app"}[table]
    change(path, f"UPDATE {table} SET {column} = 4 WHERE crc IS NOT NULL")
    found = verify_file(path)
    assert found.structure
    assert all(text.startswith(f"table {table}: the row ") for text in found.structure)


def test_what_sqlite_finds_is_passed_on(path):
    """An index without its entries; a page of nonsense; a file that is none."""
    with open(path, "r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096)
    assert verify_file(path).structure
    with open(path, "r+b") as file:
        file.write(b"\xff" * 100)
    assert "it cannot be read" in verify_file(path).structure[0]


def test_ranges_are_taken_out_of_ranges():
    """At the ends, in the middle, wholly, not at all."""
    assert without([(1, 10)], [(1, 2), (5, 5), (9, 20)]) == [(3, 4), (6, 8)]
    assert without([(1, 3), (7, 9)], [(1, 3)]) == [(7, 9)]
    assert without([(4, 5)], [(1, 3), (6, 9)]) == [(4, 5)]
    assert without([(4, 5)], [(1, 9)]) == []


@pytest.fixture
def lone(path, lines, run):
    """Write lone commits beside the journal, from a line on, as its relay would have that was killed."""
    epoch = verify_file(path).epoch

    def write(first, count=3, epoch=epoch):
        file = LoneFile(path)
        Path(path + SUFFIX).unlink(missing_ok=True)
        for seq in range(first, first + count):
            assert file.add(epoch, Commit(lines(seq, 1), [run(1, last_seq=seq)]))
        file.close()
        return Path(path + SUFFIX)

    return write


def test_lone_commits_are_verified_too(path, lone):
    """They are counted where they follow the journal's last line, and passed over where SQLite has them."""
    lone(3001)
    found = verify_file(path)
    assert found.sound
    assert (found.lines, found.lone, found.head) == (3003, 3, 3003)
    lone(2999, 2)
    found = verify_file(path)
    assert found.sound
    assert (found.lines, found.lone, found.head) == (3000, 0, 3000)


def test_damage_among_lone_commits_is_found(path, lone):
    """A record that is not what it was, half of one, one behind a hole, and a file that is none."""
    file = lone(3001)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    found = verify_file(path)
    assert (found.sound, found.lone) == (False, 2)
    assert "bytes are no whole record" in found.structure[0]
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    found = verify_file(path)
    assert (found.sound, found.lone) == (False, 1)
    file = lone(3005)
    found = verify_file(path)
    assert (found.sound, found.lone, found.lines) == (False, 0, 3000)
    assert "3 records do not follow line 3,000" in found.structure[0]
    file.unlink()
    file.mkdir()
    assert "cannot be read" in verify_file(path).structure[0]
