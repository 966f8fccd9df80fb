"""Retention by itself: what is written down about each block, when something is due, and what one step takes."""

from __future__ import annotations

import resource
import signal
from contextlib import closing

import pytest

from logrelay.journal import retention as module
from logrelay.journal import schema
from logrelay.journal.retention import Retention
from logrelay.journal.row_writer import RowWriter
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, WARNING, Commit

MIB = 1 << 20
DAY_US = 86_400_000_000
LITTLE_LOG_BYTES = 120 * 1024
"""Room for some of the pages that the largest step changes, and for all that the smallest does."""


class Kept:
    """A journal file with its retention, and nothing else around it."""

    def __init__(self, path, now_us, **limits):
        schema.create(str(path), epoch="abc123", base=0, created_us=now_us())
        limits = {"max_age_us": 100_000_000, "max_bytes": 64 * MIB} | limits
        self.retention = Retention(now_us=now_us, uptime_us=now_us.uptime, **limits)
        self.db = schema.connect_writer(str(path), full=False, log_bytes=self.retention.log_bytes)
        self.rows = RowWriter()
        self.rows.load(self.db)
        self.retention.load(self.db, 1, 0)

    def append(self, lines, *, confirm=True):
        self.db.execute("BEGIN IMMEDIATE")
        commit = Commit(lines)
        self.rows.write(self.db, commit)
        self.retention.mark(self.db, lines)
        self.db.execute("COMMIT" if confirm else "ROLLBACK")
        if confirm:
            self.rows.confirm(commit)
            self.retention.confirm(lines[-1].seq)

    def step(self):
        return self.retention.step(self.db)

    def due(self):
        return self.retention.due(self.db)

    def marks(self, columns="first, last"):
        return self.db.execute(f"SELECT {columns} FROM marks ORDER BY first").fetchall()

    def seqs(self):
        return [row[0] for row in self.db.execute("SELECT seq FROM lines ORDER BY seq")]


@pytest.fixture
def keep(tmp_path, clock):
    with closing(_Closing()) as opened:

        def make(**limits):
            opened.kept = Kept(tmp_path / "journal.db", clock, **limits)
            return opened.kept

        yield make


class _Closing:
    kept = None

    def close(self):
        if self.kept is not None:
            self.kept.db.close()


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_a_block_says_which_lines_it_holds(keep, line, clock):
    """First and last seq, when they were committed, the oldest and newest time in them, and how many of each level."""
    kept = keep()
    levels = [DEBUG, INFO, INFO, WARNING, ERROR, ERROR, ERROR, CRITICAL]
    times = [50, 40, 60, 55, 45, 70, 30, 65]
    made = [
        line(seq, level=level, time_us=time) for seq, (level, time) in enumerate(zip(levels, times, strict=True), 1)
    ]
    kept.append(made[:3])
    columns = "first, last, relay_us, min_us, max_us, debug, info, warning, error, critical"
    assert kept.marks(columns) == [(1, 3, clock(), 40, 60, 1, 2, 0, 0, 0)]
    clock.forward(1)
    kept.append(made[3:4])
    kept.append(made[4:])
    assert kept.marks(columns) == [(1, 8, clock(), 30, 70, 1, 2, 1, 3, 1)]


def test_a_block_ends_when_it_is_full(keep, lines, monkeypatch):
    """With the commit that fills it; one commit stays in one block however large it is."""
    monkeypatch.setattr(module, "BLOCK_LINES", 10)
    kept = keep()
    for first, count in ((1, 4), (5, 5), (10, 1), (11, 3), (14, 25), (39, 1), (40, 10), (50, 1)):
        kept.append(lines(first, count))
    assert kept.marks() == [(1, 10), (11, 38), (39, 49), (50, 50)]


def test_a_block_of_a_quiet_bot_ends_after_a_minute(keep, lines, clock):
    """Counted from its first line, so that the age of a line is known to the minute."""
    kept = keep()
    kept.append(lines(1, 1))
    clock.forward(30)
    kept.append(lines(2, 1))
    clock.forward(29.9)
    kept.append(lines(3, 1))
    clock.forward(0.1)
    kept.append(lines(4, 1))
    clock.forward(59)
    kept.append(lines(5, 1))
    assert kept.marks() == [(1, 3), (4, 5)]


def test_a_commit_that_failed_leaves_no_trace(keep, lines, monkeypatch):
    """The block goes on as if it had never been tried."""
    monkeypatch.setattr(module, "BLOCK_LINES", 10)
    kept = keep()
    kept.append(lines(1, 4))
    for _ in range(3):
        kept.append(lines(5, 6, level=ERROR), confirm=False)
    kept.append(lines(5, 5))
    kept.append(lines(10, 1))
    kept.append(lines(11, 1))
    assert kept.marks("first, last, info, error") == [(1, 10, 10, 0), (11, 11, 1, 0)]
    assert kept.retention.head == 11


# --- when something is due --------------------------------------------------------------------------------------------


def test_due_is_when_the_oldest_block_expires(keep, lines, clock):
    """To the millisecond, so that the writer neither polls nor sleeps too long; then there is something to do."""
    kept = keep(max_age_us=100_000_000)
    assert kept.due() == module.MOST_IDLE_S
    kept.append(lines(1, 10))
    clock.forward(70)
    kept.append(lines(11, 10))
    assert kept.due() == pytest.approx(30.001, abs=1e-6)
    clock.forward(29.5)
    assert kept.due() == pytest.approx(0.501, abs=1e-6)
    clock.forward(0.5)
    assert kept.due() == 0.0
    assert kept.step() == (10, 0)
    assert kept.due() == pytest.approx(70.001, abs=1e-6)
    clock.forward(70)
    assert kept.due() == 0.0
    assert kept.step() == (10, 0)
    assert kept.seqs() == []
    assert kept.due() == module.MOST_IDLE_S
    assert kept.step() == (0, 0)


def test_due_waits_no_longer_than_the_longest_idle_time(keep, lines):
    """The clock is looked at that often in any case."""
    kept = keep(max_age_us=10**15)
    kept.append(lines(1, 1))
    assert kept.due() == module.MOST_IDLE_S


def test_a_step_that_takes_the_clock_back_for_good_mends_the_marks(keep, lines, clock, monkeypatch):
    """Lines that were committed while the clock was a month ahead go as late as the clock was believed late."""
    monkeypatch.setattr(module, "BLOCK_LINES", 1)
    kept = keep(max_age_us=10 * DAY_US)
    clock.step(30 * 86_400)
    kept.append(lines(1, 1))  # an older relay believed the clock: this one has nothing else to go by
    kept.db.execute("UPDATE marks SET relay_us = ?", (clock(),))
    clock.step(-30 * 86_400)
    kept.retention.load(kept.db, 1, 1)
    for seq in range(2, 2 + 4 * 24):
        clock.forward(3600)
        kept.append(lines(seq, 1))
        while kept.due() == 0.0:
            kept.step()
    times = [row[0] for row in kept.marks("relay_us")]
    assert max(times) == clock()
    assert times == sorted(times)
    assert kept.retention.pruned == 0
    clock.forward(10 * 86_400)
    while kept.due() == 0.0:
        kept.step()
    assert kept.seqs() == []


def test_a_doubt_of_the_clock_outlives_a_restart(keep, lines, clock):
    """It is told once in each process, and does not begin anew at every start."""
    kept = keep(max_age_us=10 * DAY_US)
    kept.append(lines(1, 1))
    clock.step(30 * 86_400)
    for _ in range(5):
        kept.retention.load(kept.db, 1, 1)
        assert [n.details["state"] for n in kept.retention.take_notices()] == ["clock"]
        assert kept.retention.take_notices() == []
        for _ in range(14):
            clock.forward(3600)
            while kept.due() == 0.0:
                kept.step()
        kept.retention.save(kept.db)
    assert kept.seqs() == [1]
    clock.forward(3 * 3600)
    while kept.due() == 0.0:
        kept.step()
    assert kept.seqs() == []


def test_a_relay_that_was_quiet_for_days_was_not_off(keep, lines, clock):
    """What time it is is written down at the end."""
    kept = keep(max_age_us=5 * DAY_US)
    kept.append(lines(1, 1))
    for _ in range(4 * 24):
        clock.forward(3600)
        kept.due()
    kept.retention.save(kept.db)
    kept.retention.load(kept.db, 1, 1)
    assert kept.retention.take_notices() == []
    clock.forward(86_401)
    kept.step()
    assert kept.seqs() == []


def test_without_a_limit_by_age_nothing_is_ever_old(keep, lines, clock):
    """0 is no limit."""
    kept = keep(max_age_us=0)
    kept.append(lines(1, 10))
    for _ in range(100):
        clock.forward(36 * 3600)
        assert kept.due() == module.MOST_IDLE_S
    assert kept.step() == (0, 0)
    assert kept.retention.take_notices() == []


def test_lines_that_go_before_their_time_are_told_of_once_a_day(keep, lines, clock):
    """With their count and range, and all that went since the last time."""
    kept = keep(max_bytes=2 * MIB, max_age_us=0)
    kept.append(lines(1, 12_000))
    while kept.due() == 0.0:
        kept.step()
    (notice,) = kept.retention.take_notices()
    first = {"state": "evicted", "cause": "size", "count": kept.retention.pruned, "first": 1}
    assert notice.details == {**first, "last": kept.retention.pruned}
    assert str(kept.retention.pruned) in notice.text
    gone = kept.retention.pruned
    for n in range(3):
        kept.append(lines(12_001 + 3000 * n, 3000))
        while kept.due() == 0.0:
            kept.step()
        clock.forward(3600)
        assert kept.retention.take_notices() == []
    clock.forward(86_400 - 3 * 3600)
    (notice,) = kept.retention.take_notices()
    count = kept.retention.pruned - gone
    assert notice.details == {**first, "count": count, "first": gone + 1, "last": gone + count}
    assert dict(kept.retention.pruned_for) == {"size": kept.retention.pruned}


def test_lines_go_for_the_room_of_others(keep, lines):
    """What file and log may take is what the file system leaves to them; the pages are given back, too."""
    room = None
    kept = keep(max_bytes=16 * MIB, max_age_us=0, room=lambda: room)
    kept.append(lines(1, 12_000))
    assert kept.due() == module.MOST_IDLE_S
    room = 4 * MIB
    while kept.due() == 0.0:
        kept.step()
    assert 0 < kept.retention.pruned == kept.retention.pruned_for["space"] < 12_000
    budget = room - kept.retention.log_bytes
    assert kept.db.execute("PRAGMA page_count").fetchone()[0] * schema.PAGE_SIZE <= budget
    (notice,) = kept.retention.take_notices()
    assert notice.details["cause"] == "space"
    room = 16 * MIB
    assert kept.due() == module.MOST_IDLE_S


def test_old_lines_make_room_for_new_ones_down_to_a_little(keep, lines):
    """For a file that cannot grow; the newest stays, and so does a little."""
    kept = keep()
    kept.append(lines(1, 12_000))
    pages = kept.db.execute("PRAGMA page_count").fetchone()[0]
    gone = kept.retention.evict(kept.db)
    assert 0 < gone <= module.MOST_ROWS
    assert kept.retention.pruned_for == {"space": gone}
    while kept.retention.evict(kept.db):
        pass
    assert kept.db.execute("PRAGMA page_count").fetchone()[0] == pages, "the file is what it was"
    free = kept.db.execute("PRAGMA freelist_count").fetchone()[0]
    assert 0 < (pages - free) * schema.PAGE_SIZE <= module.LEAST_EVICTED_BYTES
    assert kept.seqs()[-1] == 12_000


def test_where_the_log_has_little_room_fewer_lines_go_at_a_time(keep, lines):
    """A step that is too large for it would fail each time, and no line could be written any more."""
    kept = keep()
    kept.append(lines(1, 12_000))
    kept.retention._rows = module.MOST_ROWS
    kept.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE_LOG_BYTES, before[1]))
    try:
        gone = kept.retention.evict(kept.db)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert module.FEWEST_ROWS <= gone < module.MOST_ROWS
    assert kept.seqs()[0] == gone + 1


# --- what a step takes ------------------------------------------------------------------------------------------------


def test_a_step_by_age_takes_whole_blocks_and_says_how_many_lines(keep, lines, clock, monkeypatch):
    """The oldest block first; the totals count it; the last mark stays and remembers the head."""
    monkeypatch.setattr(module, "BLOCK_LINES", 10)
    kept = keep(max_age_us=100_000_000)
    for first in (1, 11, 21):
        kept.append(lines(first, 10))
        clock.forward(30)
    clock.forward(10)
    assert kept.step() == (10, 0)
    assert (kept.retention.oldest, kept.retention.pruned) == (11, 10)
    assert kept.marks() == [(11, 20), (21, 30)]
    assert kept.step() == (0, 0)
    clock.forward(60)
    assert [kept.step(), kept.step(), kept.step()] == [(10, 0), (10, 0), (0, 0)]
    assert (kept.retention.oldest, kept.retention.head, kept.retention.pruned) == (31, 30, 30)
    assert kept.marks() == [(21, 30)]


def test_a_step_is_bounded_in_lines(keep, lines, clock, monkeypatch):
    """And adapts to the time it takes: the clock of this test stands still, so each step may take twice as many."""
    monkeypatch.setattr(module, "FIRST_ROWS", 100)
    monkeypatch.setattr(module, "FEWEST_ROWS", 40)
    monkeypatch.setattr(module, "MOST_ROWS", 350)
    kept = keep(max_age_us=100_000_000, clock=lambda: 0.0)
    kept.append(lines(1, 2000))
    clock.forward(101)
    assert [kept.step()[0] for _ in range(5)] == [100, 200, 350, 350, 350]
    assert kept.seqs() == list(range(1351, 2001))


def test_a_step_that_takes_long_is_followed_by_smaller_ones(keep, lines, clock, monkeypatch):
    """Down to the fewest, so that a commit never waits long for one."""
    monkeypatch.setattr(module, "FIRST_ROWS", 400)
    monkeypatch.setattr(module, "FEWEST_ROWS", 40)
    now = 0.0

    def slow():
        nonlocal now
        now += module.STEP_SECONDS * 2 - 1e-9
        return now

    kept = keep(max_age_us=100_000_000, clock=slow)
    kept.append(lines(1, 2000))
    clock.forward(101)
    assert [kept.step()[0] for _ in range(6)] == [400, 200, 100, 50, 40, 40]


def test_a_step_that_fails_is_undone(keep, lines, clock):
    """Nothing is half taken away, and the next step takes it."""
    kept = keep(max_age_us=100_000_000)
    kept.append(lines(1, 10))
    clock.forward(61)
    kept.append(lines(11, 10))
    clock.forward(40)
    kept.db.execute("CREATE TEMP TRIGGER no BEFORE DELETE ON marks BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(Exception, match="no"):
        kept.step()
    assert not kept.db.in_transaction
    kept.db.execute("DROP TRIGGER no")
    assert kept.seqs() == list(range(1, 21))
    assert (kept.retention.oldest, kept.retention.pruned) == (1, 0)
    assert kept.step() == (10, 0)
    assert kept.seqs() == list(range(11, 21))


def test_a_step_by_size_takes_the_share_that_is_too_much(keep, lines):
    """The oldest lines, as many as the file is too large by, near enough; the newest line stays whatever its size."""
    kept = keep(max_bytes=2 * MIB)
    kept.append(lines(1, 12_000))
    pages = kept.db.execute("PRAGMA page_count").fetchone()[0] * schema.PAGE_SIZE
    budget = 2 * MIB - kept.retention.log_bytes
    assert pages > budget
    assert kept.due() == 0.0
    taken = 0
    while kept.due() == 0.0:
        freed, moved = kept.step()
        assert freed or moved
        taken += freed
    share = 12_000 * (pages - budget) / pages
    assert share * 0.9 < taken < share * 1.2
    assert kept.seqs() == list(range(taken + 1, 12_001))
    assert kept.db.execute("PRAGMA page_count").fetchone()[0] * schema.PAGE_SIZE <= budget * 1.07


def test_space_is_given_back_in_small_steps(keep, lines, clock):
    """Some pages at a time, until a small share of the file is spare."""
    kept = keep(max_age_us=100_000_000)
    kept.append(lines(1, 12_000))
    clock.forward(101)
    before = kept.db.execute("PRAGMA page_count").fetchone()[0]
    while (step := kept.step())[0]:
        pass
    moved = []
    while step != (0, 0):
        assert step[0] == 0
        moved.append(step[1])
        step = kept.step()
    assert moved[:5] == [module.VACUUM_PAGES] * 5
    assert moved == sorted(moved, reverse=True), "a step took more than the one before it"
    assert kept.db.execute("PRAGMA page_count").fetchone()[0] == pytest.approx(before - sum(moved), abs=3)
    assert kept.db.execute("PRAGMA freelist_count").fetchone()[0] == pytest.approx(module.VACUUM_FLOOR, abs=3)


def test_limits_are_whole_bytes():
    """A share of the limit belongs to the write-ahead log, up to a bound; a small journal gives half of it."""
    small = (MIB + 7) // 2
    for limit, log in ((16 * MIB, 2 * MIB), (4 * MIB, MIB), (MIB + 7, small), (1 << 40, module.MOST_LOG)):
        made = Retention(max_age_us=1, max_bytes=limit, now_us=lambda: 0)
        assert made.log_bytes == log
        assert type(made.log_bytes) is int
