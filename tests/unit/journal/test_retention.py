"""Old lines go in small steps, by the relay's clock and by size; a clock that steps costs nothing."""

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
MIB = 1 << 20


def prune_all(journal, steps=100_000):
    """Prune until nothing is due; returns the oldest seq and the number of steps."""
    taken = 0
    while journal.due() == 0.0:
        journal.prune()
        taken += 1
        assert taken < steps, "retention does not come to an end"
    return journal.prune(), taken


def held(journal):
    """Return the first and last seq kept, and check that nothing between them is missing."""
    seqs, after = [], 0
    while True:
        page = journal.page(Query(after, ALL, 100_000, max_bytes=1 << 30))
        seqs, after = seqs + page.seqs, page.reached
        if page.complete:
            assert seqs == list(range(page.oldest, page.oldest + len(seqs)))
            return (seqs[0], seqs[-1]) if seqs else None


def test_age_is_the_relays_age(journal_at, lines, clock):
    """Lines go when they have been in the journal too long, whatever the trader's timestamps say."""
    journal = journal_at(max_age_s=DAY)
    journal.open()
    journal.append(Commit(lines(1, 500, time_us=1)))
    clock.forward(2000)
    journal.append(Commit(lines(501, 500, time_us=4_000_000_000_000_000)))
    assert prune_all(journal) == (1, 0)
    for hour in range(1, 24):  # as the writer does: looks at the clock all the time
        clock.forward(HOUR - 1000 / 23)
        assert prune_all(journal)[0] == 1, hour
    clock.forward(HOUR - 1500)
    prune_all(journal)
    assert held(journal) == (1, 1000)
    clock.forward(600)
    prune_all(journal)
    assert held(journal) == (501, 1000)
    clock.forward(2000)
    assert prune_all(journal)[0] == 1001
    assert held(journal) is None
    journal.append(Commit(lines(1001, 1)))
    assert held(journal) == (1001, 1001)


def test_head_and_numbers_survive_when_every_line_has_gone(journal_at, lines, clock):
    """An empty journal still knows its head, also after closing."""
    journal = journal_at(max_age_s=60)
    journal.open()
    journal.append(Commit(lines(1, 100)))
    clock.forward(120)
    assert prune_all(journal)[0] == 101
    page = journal.page(Query(0, ALL, 10))
    assert (page.seqs, page.complete, page.reached, page.oldest) == ([], True, 100, 101)
    journal.close()
    opening = journal_at().open()
    assert (opening.oldest, opening.head) == (101, 100)


def test_a_step_is_small(journal_at, fill, clock):
    """One step takes a few thousand lines at most, and says the oldest line kept."""
    journal = journal_at(max_age_s=60)
    journal.open()
    fill(journal, 1, 20_000)
    clock.forward(200)
    before = 1
    steps = 0
    while journal.due() == 0.0 and before <= 20_000:
        oldest = journal.prune()
        assert before < oldest <= before + retention.MOST_ROWS
        before, steps = oldest, steps + 1
    assert steps >= 5
    assert journal.pruned == 20_000


def test_size_is_kept(journal_at, fill):
    """The file stays below its limit while lines come, and holds the newest ones without a hole."""
    journal = journal_at(max_bytes=4 * MIB)
    journal.open()
    for first in range(1, 60_001, 1000):
        fill(journal, first, 1000)
        prune_all(journal)
        journal.checkpoint(idle=True)
    first, last = held(journal)
    assert last == 60_000
    assert 5000 < last - first < 16_000
    journal.close()
    assert journal_at.path.stat().st_size <= 4 * MIB
    assert journal_at(max_bytes=4 * MIB).open().oldest == first


def test_space_goes_back_to_the_file_system(journal_at, fill, clock):
    """When most lines have gone by age, the file gets small again."""
    journal = journal_at(max_age_s=60)
    journal.open()
    fill(journal, 1, 40_000)
    journal.checkpoint(idle=True)
    large = journal_at.path.stat().st_size
    clock.forward(120)
    fill(journal, 40_001, 100)
    _, steps = prune_all(journal)
    journal._unchecked = 1 << 30
    journal.checkpoint(idle=True)
    assert large > 10 * MIB
    assert journal_at.path.stat().st_size < 3 * MIB
    assert steps > 30
    assert held(journal) == (40_001, 40_100)


def test_the_newest_line_stays_under_the_smallest_limit(journal_at, line):
    """A few enormous lines do not empty the journal."""
    journal = journal_at(max_bytes=MIB)
    journal.open()
    for seq in range(1, 6):
        journal.append(Commit([line(seq, message="z" * 900_000)]))
    assert prune_all(journal)[0] == 5
    assert held(journal) == (5, 5)


def live(journal, clock, seconds):
    """Let time pass as the writer does: it looks at the clock all the time."""
    while seconds > 0:
        clock.forward(min(seconds, HOUR / 4))
        seconds -= HOUR / 4
        prune_all(journal)


@pytest.mark.parametrize("hours", [2, 30 * 24, 24 * 365 * 50])
@pytest.mark.parametrize("lasts", [HOUR, DAY, 2.9 * DAY])
@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_that_leaps_ahead_and_is_put_right_costs_nothing(journal_at, lines, clock, hours, lasts, restart):
    """Also where the relay is started with it; lines of that time are as old as they are."""
    journal = journal_at(max_age_s=7 * DAY)
    journal.open()
    seq = 0
    for _ in range(6):
        journal.append(Commit(lines(seq + 1, 10)))
        seq += 10
        live(journal, clock, DAY / 4)
    if restart:
        journal.close()
        journal = journal_at(max_age_s=7 * DAY)
        clock.step(hours * HOUR)
        journal.open()
    else:
        clock.step(hours * HOUR)
    journal.append(Commit(lines(seq + 1, 10)))
    live(journal, clock, lasts)
    journal.append(Commit(lines(seq + 11, 10)))
    clock.step(-hours * HOUR)
    live(journal, clock, HOUR)
    assert held(journal) == (1, seq + 20)
    live(journal, clock, 7 * DAY - HOUR * (1 + min(hours, 24 if restart else 1)))
    assert held(journal)[1] == seq + 20, "the last lines go before they are a week old"
    live(journal, clock, 2 * DAY)
    assert held(journal) is None, "lines of the time when the clock was ahead stay longer"


@pytest.mark.parametrize("restart", [False, True])
def test_a_leap_that_lasts_is_believed_after_the_hold(journal_at, lines, clock, restart):
    """A machine that was off for a month expires its lines some days after its start, and not later."""
    journal = journal_at(max_age_s=7 * DAY)
    journal.open()
    journal.append(Commit(lines(1, 100)))
    if restart:
        journal.close()
        journal = journal_at(max_age_s=7 * DAY)
    clock.step(30 * DAY)
    if restart:
        journal.open()
    live(journal, clock, 3 * DAY - HOUR)
    assert held(journal) == (1, 100)
    assert journal.due() <= retention.MOST_IDLE_S
    live(journal, clock, 2 * HOUR)
    assert held(journal) is None


def test_a_night_without_the_machine_is_believed_at_once(journal_at, lines, clock):
    """Off for the night, on for the day: lines are as old as the clock says."""
    seq = 0
    for _ in range(10):
        journal = journal_at(max_age_s=3 * DAY)
        journal.open()
        journal.append(Commit(lines(seq + 1, 10)))
        seq += 10
        live(journal, clock, 8 * HOUR)
        oldest = journal.prune()
        journal.close()
        clock.step(16 * HOUR)
    assert oldest == seq - 29


def test_a_clock_that_runs_behind_expires_nothing_early(journal_at, lines, clock):
    """A board without a battery boots in 1970: lines written then are as old as those before them, not older."""
    journal = journal_at(max_age_s=DAY)
    journal.open()
    journal.append(Commit(lines(1, 100)))
    right = clock.us
    journal.close()
    clock.us = 0
    journal = journal_at(max_age_s=DAY)
    journal.open()
    journal.append(Commit(lines(101, 100)))
    assert prune_all(journal)[0] == 1
    clock.us = right + 60_000_000
    for _ in range(10):
        clock.forward(600)
        assert prune_all(journal)[0] == 1
    assert held(journal) == (1, 200)


def test_due_says_when_the_oldest_block_expires(journal_at, lines, clock):
    """No polling: the next look is when something can have happened, or after MOST_IDLE_S."""
    journal = journal_at(max_age_s=300)
    journal.open()
    assert journal.due() == retention.MOST_IDLE_S
    journal.append(Commit(lines(1, 10)))
    assert journal.due() == pytest.approx(300, abs=1)
    clock.forward(299)
    assert 0 < journal.due() < 2
    clock.forward(1)
    assert journal.due() == 0.0


def test_a_reader_in_the_middle_does_not_stop_retention(journal_at, fill):
    """Somebody's open read transaction sees its old lines; pruning and writing go on."""
    journal = journal_at(max_bytes=2 * MIB)
    journal.open()
    fill(journal, 1, 3000)
    with closing(sqlite3.connect(journal.path)) as tool:
        tool.execute("BEGIN")
        assert tool.execute("SELECT count(*) FROM lines").fetchone() == (3000,)
        for first in range(3001, 20_001, 1000):
            fill(journal, first, 1000)
            prune_all(journal)
            journal.checkpoint(idle=True)
        assert tool.execute("SELECT min(seq), count(*) FROM lines").fetchone() == (1, 3000)
    assert held(journal)[0] > 10_000
