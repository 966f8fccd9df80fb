"""What is readable of a damaged journal, in a sound one: lines, runs, names, marks, aliases, and what is missing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from logrelay.fanout.filters import Filter
from logrelay.fanout.positions import Epoch
from logrelay.journal.interface import Query
from logrelay.journal.salvage import Known, salvage
from logrelay.journal.verify import verify_file
from logrelay.model import CollectedRow, Commit, DeviceRow

PAGE = 4096
PHONES = [DeviceRow(1, "", "phone", "abc123-2990", 7, True), DeviceRow(2, "t1", "phone", "abc123-12", 9, False)]
ABC = [Epoch("abc123", 1)]
COLLECTED = [CollectedRow(1, "edge", "berlin", "k3f9ab", 7, "j1", 5), CollectedRow(2, "stream", "S", "t", 3, "m", 6)]


@pytest.fixture
def path(journal_at, lines, run):
    """A journal of 3,000 lines of two loggers, closed, of which the first 500 were taken away."""
    journal = journal_at()
    journal.open()
    for first in (1, 1001, 2001):
        journal.append(Commit(lines(first, 500), [run(1, last_seq=first)]))
        journal.append(Commit(lines(first + 500, 500, source="risk"), aliases=[f"abc123.{first}"]))
    journal.append(Commit(devices=PHONES, collected=COLLECTED))
    journal.close()
    return journal_at.path


def damage(path: Path, first: int, pages: int = 1) -> None:
    """Write nonsense over pages, counted from 0."""
    with path.open("r+b") as file:
        file.seek(first * PAGE)
        file.write(os.urandom(pages * PAGE))


def salvaged(path: Path, known: Known | None = None):
    """Salvage into a file beside it."""
    target = path.with_name("new.db")
    target.unlink(missing_ok=True)
    target.touch()
    told = []
    result = salvage(
        str(path),
        str(target),
        known=known or Known(),
        random_epoch=lambda: "fresh1",
        now_us=lambda: 0,
        progress=lambda *done: told.append(done),
    )
    assert told[-1][0] == told[-1][1]
    assert verify_file(str(target)).sound
    return target, result


def test_a_sound_journal_comes_over_whole(path, journal_at, run):
    """Epoch, lines, runs, aliases, names, times."""
    target, result = salvaged(path)
    assert (result.epochs, result.oldest, result.head, result.lines, result.holes) == (ABC, 1, 3000, 3000, [])
    journal, old = journal_at(target), journal_at(path)
    opening, before = journal.open(), old.open()
    assert (opening.earlier, opening.head, opening.runs, opening.aliases, opening.notices) == (
        before.earlier,
        before.head,
        before.runs,
        before.aliases,
        [],
    )
    assert opening.devices == before.devices == PHONES
    assert opening.collected == before.collected == COLLECTED
    everything = Query(0, 9999, 9999, max_bytes=1 << 30)
    assert journal.page(everything).bodies == old.page(everything).bodies
    assert journal.levels(1, 3000) == old.levels(1, 3000)
    assert len(journal.page(Query(0, 9999, 9999, Filter(sources=("risk",)), max_bytes=1 << 30)).seqs) == 1500


def test_the_header_and_the_roots_of_the_tables_are_not_needed(path):
    """Lines are found by their form, the epoch by their ids."""
    damage(path, 0)
    _, result = salvaged(path)
    assert (result.epochs, result.head, result.lines, result.holes) == (ABC, 3000, 3000, [])
    damage(path, 0, 15)
    _, result = salvaged(path)
    assert ([epoch.name for epoch in result.epochs], result.head) == (["abc123"], 3000)
    assert result.oldest - 1 + result.lines + result.lost == 3000
    assert result.lost < 300


def test_the_end_of_the_file_is_gone(path):
    """The marks tell how far it went, as long as they are there."""
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'marks'").fetchone()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 8 // 10)
    _, result = salvaged(path)
    assert (result.epochs, result.head) == (ABC, 3000)
    assert result.holes[-1][1] == 3000
    damage(path, root - 1)
    _, result = salvaged(path)
    assert result.epochs == ABC
    assert result.head < 3000


def test_what_the_relay_remembers_is_taken(path, run):
    """Epoch, bounds, runs and aliases of a relay that was running are better than any file's."""
    damage(path, 0, 20)
    mine = [Epoch("abc123", 1), Epoch("mine12", 3001)]
    _, result = salvaged(path, Known(mine, 100, 3100, [run(9, last_seq=8)], ["mine12.x"]))
    assert (result.epochs, result.oldest, result.head) == (mine, 100, 3100)
    assert result.holes[-1] == (3001, 3100)
    with closing(sqlite3.connect(path.with_name("new.db"))) as db:
        assert db.execute("SELECT id, last_seq FROM runs").fetchall() == [(9, 8)]
        assert db.execute("SELECT alias FROM aliases").fetchall() == [("mine12.x",)]
        assert db.execute("SELECT min(seq) FROM lines").fetchone()[0] >= 100


def test_what_retention_took_does_not_come_back(path):
    """Free pages still have old rows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DELETE FROM lines WHERE seq <= 1100")
        db.execute("UPDATE meta SET value = 1101 WHERE key = 'oldest'")
        db.execute("DELETE FROM marks WHERE last <= 1100 AND first < (SELECT max(first) FROM marks)")
    _, result = salvaged(path)
    assert result.oldest == 1101
    assert (result.lines, result.holes) == (1900, [])


def test_damaged_rows_of_small_tables_are_not_taken(path):
    """A run that claims another last seq would cost lines; a name is read out of the lines instead."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE runs SET last_seq = 99999")
        db.execute("UPDATE sources SET name = 'other'")
        db.execute("UPDATE marks SET max_us = 0")
    target, _ = salvaged(path)
    with closing(sqlite3.connect(target)) as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (0,)
        assert sorted(row[0] for row in db.execute("SELECT name FROM sources WHERE id > 0")) == [
            "risk",
            "robo_trader.runner",
        ]
        assert db.execute("SELECT max(last), sum(info) FROM marks").fetchone() == (3000, 3000)


def test_a_file_without_a_line_begins_anew(tmp_path):
    """Nobody knows which numbers were given away."""
    path = tmp_path / "journal.db"
    path.write_bytes(os.urandom(5 * PAGE))
    target = tmp_path / "new.db"
    target.touch()
    result = salvage(str(path), str(target), known=Known(), random_epoch=lambda: "fresh1", now_us=lambda: 0)
    assert (result.epochs, result.head, result.lines) == ([Epoch("fresh1", 1)], 0, 0)
    assert result.new


def test_the_epochs_are_written_down_and_in_the_ids_of_the_lines(journal_at, lines):
    """From the table where it is there; else from the lines, of which each has its id."""
    for count in (3, 1, 1000, 5, 2):
        journal = journal_at()
        begun = journal.open()
        bodies = [
            line._replace(body=line.body.replace(b"abc123", begun.epoch.encode()))
            for line in lines(begun.head + 1, count)
        ]
        journal.append(Commit(bodies))
        journal.close()
    journal = journal_at()
    expected = journal.open().earlier
    journal.close()
    assert [epoch.first for epoch in expected] == [1, 4, 5, 1005, 1010]
    _, result = salvaged(journal_at.path)
    assert result.epochs == expected
    with closing(sqlite3.connect(journal_at.path, isolation_level=None)) as db:
        db.execute("DROP TABLE meta")
    _, result = salvaged(journal_at.path)
    assert result.epochs == [epoch._replace(shared=True) for epoch in expected]


def test_what_an_opening_wrote_down_comes_over(path):
    """Boot, sync, how the last opening ended, and whether the clock is believed."""
    keys = "SELECT key, value FROM meta WHERE key NOT IN ('base') ORDER BY key"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("REPLACE INTO meta (key, value) VALUES ('believed_us', 7), ('clock_doubt_us', -7)")
        expected = db.execute(keys).fetchall()
    target, _ = salvaged(path)
    with closing(sqlite3.connect(target)) as db:
        assert db.execute(keys).fetchall() == expected
    assert {"boot", "sync", "closed", "epochs", "oldest", "created_us"} < {key for key, _ in expected}
