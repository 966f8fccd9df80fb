"""A clock that is put back costs no lines: what is known of the age of a block never goes back in time."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.journal import retention
from logrelay.journal.interface import Query
from logrelay.model import Commit

ALL = 1 << 60
HOUR = 3600.0
DAY = 24 * HOUR


def live(journal, clock, seconds):
    """Let time pass as the writer does: it looks at the clock all the time."""
    while seconds > 0:
        clock.forward(min(seconds, HOUR / 4))
        seconds -= HOUR / 4
        while journal.due() == 0.0:
            journal.prune()


def kept(journal):
    return journal.page(Query(0, ALL, 1000)).seqs


@pytest.mark.parametrize("block", [1024, 3])
def test_lines_before_a_clock_was_put_back_are_kept_for_their_full_age(journal_at, lines, clock, monkeypatch, block):
    """Also those whose block goes on after the step, which must not take the earlier time for all of it."""
    monkeypatch.setattr(retention, "BLOCK_LINES", block)
    journal = journal_at(max_age_s=DAY)
    journal.open()
    journal.append(Commit(lines(1, 2)))
    clock.step(-HOUR / 2)
    for seq in range(3, 8):
        journal.append(Commit(lines(seq, 1)))
        clock.forward(1)
    live(journal, clock, HOUR / 2 + DAY - 60)
    assert kept(journal) == [1, 2, 3, 4, 5, 6, 7]
    live(journal, clock, 120)
    assert kept(journal) == []


def test_marks_never_go_back_in_time(journal_at, lines, clock, monkeypatch):
    """While the clock is behind, blocks take the time of the block before; also after the journal was opened again."""
    monkeypatch.setattr(retention, "BLOCK_LINES", 1)
    journal = journal_at()
    journal.open()
    seq = 0
    times = []
    for step in (0, -HOUR, 10, -10, HOUR, -HOUR, 1, None, -DAY, 5, DAY, -1, HOUR, -HOUR, None, 1):
        if step is None:
            journal.close()
            journal = journal_at()
            journal.open()
            continue
        clock.step(step)
        seq += 1
        journal.append(Commit(lines(seq, 1)))
        times.append(max([clock(), *times]))
    with closing(sqlite3.connect(journal_at.path)) as db:
        assert [row[0] for row in db.execute("SELECT relay_us FROM marks ORDER BY first")] == times


def test_a_commit_that_failed_does_not_move_the_time(journal_at, lines, clock):
    """A clock that ran ahead only while nothing could be written leaves no trace."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 1)))
    began = clock()
    clock.forward(HOUR)
    with closing(sqlite3.connect(journal_at.path, isolation_level=None)) as db:
        db.execute("CREATE TRIGGER no_marks AFTER INSERT ON marks BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(Exception, match="no"):
            journal.append(Commit(lines(2, 1)))
        db.execute("DROP TRIGGER no_marks")
        clock.step(-HOUR)
        journal.append(Commit(lines(2, 1)))
        assert db.execute("SELECT max(relay_us) FROM marks").fetchone()[0] == began
