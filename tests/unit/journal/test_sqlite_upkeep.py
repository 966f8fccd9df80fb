"""When the SQLite journal takes a checkpoint, when it cuts its log, and under which setting it syncs."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from logrelay.errors import JournalError
from logrelay.journal import schema, sqlite
from logrelay.journal.disk_space import LOG_RESERVE
from logrelay.journal.interface import JournalLost, Keeping, Query
from logrelay.journal.lock_holders import Holder
from logrelay.journal.room_watch import PINNED_AFTER_S, PINNED_SHARES, RETRY_S
from logrelay.journal.sqlite import COMMIT_BYTES, ROW_BYTES
from logrelay.model import WARNING, Commit, size_of

ALL = 1 << 60
PASSIVE, TRUNCATE = "PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(TRUNCATE)"


class Answering:
    """A connection with some statements answered by the test: with a row, or with an error."""

    def __init__(self, db, answers):
        self._db, self._answers = db, answers

    def execute(self, sql, *args):
        answer = self._answers.get(sql)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return self._db.execute(f"SELECT {', '.join(map(str, answer))}")
        return self._db.execute(sql, *args)

    def close(self):
        if isinstance(self._answers.get("close"), Exception):
            self._db.close()
            raise self._answers["close"]
        self._db.close()

    def __getattr__(self, name):
        return getattr(self._db, name)


@pytest.fixture
def fresh(journal_at):
    """Open a journal whose log is empty as far as it knows."""

    def make(**kwargs):
        journal = journal_at(**kwargs)
        journal.open()
        journal.checkpoint(idle=True)
        return journal

    return make


def statements(journal):
    """Note what is executed from now on, but for the question whether the file is whole."""
    seen = []
    journal._db.set_trace_callback(lambda text: seen.append(text) if text != "PRAGMA page_count" else None)
    return seen


@pytest.fixture
def owes(monkeypatch):
    """Tell whether exactly so many bytes call for a checkpoint now: these do, and one more does not."""

    def ask(journal, size):
        seen = statements(journal)
        monkeypatch.setattr(sqlite, "IDLE_CHECKPOINT_BYTES", size + 1)
        journal.checkpoint(idle=True)
        assert PASSIVE not in seen, f"there are more than {size} bytes"
        monkeypatch.setattr(sqlite, "IDLE_CHECKPOINT_BYTES", size)
        journal.checkpoint(idle=True)
        return PASSIVE in seen

    return ask


# --- when -----------------------------------------------------------------------------------------------------------


def test_the_log_of_the_last_relay_is_put_in_order_first(journal_at):
    """Nobody knows how much is in it: the first idle moment takes a checkpoint."""
    journal = journal_at()
    journal.open()
    seen = statements(journal)
    journal.checkpoint(idle=True)
    journal.checkpoint(idle=True)
    assert seen == [PASSIVE]


def test_every_commit_counts_with_its_lines(fresh, owes, lines):
    """Bodies, and what a line and a commit cost besides."""
    journal = fresh()
    written = lines(1, 7)
    journal.append(Commit(written[:3]))
    journal.append(Commit(written[3:]))
    journal.append(Commit())
    bodies = sum(len(line.body) for line in written)
    assert owes(journal, 3 * COMMIT_BYTES + 7 * ROW_BYTES + bodies)
    assert owes(journal, 0), "after a checkpoint that did everything nothing is left"


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ([(5, 0)], 10 * COMMIT_BYTES),
        ([(0, 3)], 3 * schema.PAGE_SIZE),
        ([(0, 0)], 0),
        ([(5, 0), (0, 0), (1, 2)], 20 * COMMIT_BYTES + 2 * schema.PAGE_SIZE),
    ],
)
def test_what_retention_moves_counts_too(fresh, owes, monkeypatch, steps, size):
    """Lines taken away and pages given back go through the log."""
    journal = fresh()
    left = list(steps)
    monkeypatch.setattr(journal._retention, "step", lambda db: left.pop(0))
    journal.append(Commit())
    for _ in steps:
        assert journal.prune() == 1
    assert owes(journal, COMMIT_BYTES + size)


def test_a_busy_journal_waits_longer_than_an_idle_one(fresh, monkeypatch):
    """The fsync of a checkpoint keeps a commit waiting, so while commits come there are fewer of them."""
    monkeypatch.setattr(sqlite, "IDLE_CHECKPOINT_BYTES", 2 * COMMIT_BYTES)
    monkeypatch.setattr(sqlite, "BUSY_CHECKPOINT_BYTES", 3 * COMMIT_BYTES)
    for idle, most in [(True, 2), (False, 3)]:
        journal = fresh()
        seen = statements(journal)
        for commit in range(1, most + 1):
            journal.append(Commit())
            journal.checkpoint(idle=idle)
            assert (PASSIVE in seen) == (commit == most)
        journal.close()


@pytest.mark.parametrize("idle", [True, False])
def test_a_small_journal_takes_them_more_often(fresh, idle):
    """Half of what its log may take: 256 KiB of a journal of 1 MiB are reached by the fourteenth empty commit."""
    journal = fresh(max_bytes=1 << 20)
    seen = statements(journal)
    taken = []
    for _ in range(15):
        journal.append(Commit())
        journal.checkpoint(idle=idle)
        taken.append(seen.count(PASSIVE))
    assert taken == [*[0] * 13, 1, 1]


# --- what comes of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "left"),
    [((0, 10, 10), 0), ((0, 10, 9), 3 * COMMIT_BYTES // 2), ((1, -1, -1), 3 * COMMIT_BYTES // 2)],
)
def test_a_checkpoint_that_could_not_finish_is_tried_again_after_some_more(fresh, owes, monkeypatch, answer, left):
    """A reader of an old page, or another program's checkpoint: half of it counts as done."""
    journal = fresh()
    for _ in range(3):
        journal.append(Commit())
    monkeypatch.setattr(journal, "_db", Answering(journal._db, {PASSIVE: answer}))
    assert not owes(journal, 3 * COMMIT_BYTES)  # answered by the test, so it is not seen
    monkeypatch.setattr(journal, "_db", journal._db._db)
    assert owes(journal, left)


def reader(path):
    """Return a process that reads the journal at `path` and goes on reading that state of it."""
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN')\n"
        "db.execute('SELECT count(*) FROM lines').fetchone()\n"
        "print('reading', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "reading\n"
    return process


@pytest.mark.parametrize("count", [100, 1_500, 4_000])
def test_the_log_is_put_in_order_before_a_commit_makes_it_longer_than_its_share(fresh, lines, count):
    """Also while nobody looks after the journal between the commits, and however large they are."""
    journal = fresh(max_bytes=32 << 20)
    share = journal._retention.log_bytes
    log, taken = Path(journal.path + "-wal"), 0
    while taken < 4 * share:
        some = lines(journal._retention.head + 1, count)
        journal.append(Commit(some))
        taken += size_of(some)
        assert log.stat().st_size <= share * 5 // 4, "what a commit takes is an estimate"


def test_a_log_that_a_reader_holds_is_said_with_the_reader_and_so_is_its_end(fresh, lines):
    """Once it has twice its share and was held for long enough; a checkpoint is tried then also without new lines."""
    seconds = [100.0]
    journal = fresh(max_bytes=8 << 20, clock=lambda: seconds[0])
    share = journal._retention.log_bytes
    process = reader(journal.path)
    try:
        while journal._watch.room(0).log_bytes <= PINNED_SHARES * share:
            assert journal.take_notices() == []
            journal.append(Commit(lines(journal._retention.head + 1, 500)))
            journal.checkpoint(idle=False)
        assert journal.take_notices() == []
        assert journal.room().log_pinned_s == 0
        assert journal.due() == RETRY_S
        seconds[0] += PINNED_AFTER_S
        assert journal.room().log_pinned_s == PINNED_AFTER_S
        (told,) = journal.take_notices()
        assert told.rank == WARNING
        size = journal.room().log_bytes
        shown = str(Holder(process.pid, Path(f"/proc/{process.pid}/comm").read_text().strip()))
        assert told.details == {"state": "log_pinned", "bytes": size, "seconds": 10, "processes": [shown]}
        assert f"has grown to {size >> 20} MiB, where its share is 1 MiB" in told.text
        assert f"for 10 s, and the log cannot get shorter before it ends: {shown}; end its transaction" in told.text
        journal.checkpoint(idle=True)
        assert journal.take_notices() == [], "told once"
    finally:
        process.communicate()
    seconds[0] += RETRY_S
    journal.checkpoint(idle=True)
    (told,) = journal.take_notices()
    assert (told.details, journal.room().log_pinned_s) == ({"state": "log_released"}, 0)
    assert journal.due() > RETRY_S
    for _ in range(3):
        journal.append(Commit(lines(journal._retention.head + 1, 100)))
    assert Path(journal.path + "-wal").stat().st_size <= share + (64 << 10), "and the log is short again"


def test_a_log_that_a_reader_holds_on_a_disk_without_room_stops_the_commit(fresh, lines, monkeypatch):
    """It would take the last room; what is to be done is said."""
    seconds = [100.0]
    journal = fresh(max_bytes=8 << 20, clock=lambda: seconds[0])
    process = reader(journal.path)
    try:
        while journal._watch.room(0).log_bytes <= PINNED_SHARES * journal._retention.log_bytes:
            journal.append(Commit(lines(journal._retention.head + 1, 500)))
            journal.checkpoint(idle=False)
        seconds[0] += PINNED_AFTER_S
        monkeypatch.setattr(journal._space, "is_short", lambda: True)
        journal._unchecked = 1 << 30
        with pytest.raises(JournalError, match=r"takes the last room on the disk .*; end its transaction"):
            journal.append(Commit(lines(journal._retention.head + 1, 1)))
    finally:
        process.communicate()
    journal.append(Commit(lines(journal._retention.head + 1, 1)))


# --- cutting the log -------------------------------------------------------------------------------------------------


@pytest.fixture
def shrinking(fresh, monkeypatch):
    """Open a journal whose next retention steps move so many pages, with a checkpoint due at any time."""

    def make(*moved):
        journal = fresh()
        steps = [(0, pages) for pages in moved]
        monkeypatch.setattr(journal._retention, "step", lambda db: steps.pop(0))
        for _ in moved:
            journal.prune()
        monkeypatch.setattr(sqlite, "IDLE_CHECKPOINT_BYTES", 0)
        monkeypatch.setattr(sqlite, "BUSY_CHECKPOINT_BYTES", 0)
        return journal

    return make


@pytest.mark.parametrize(("moved", "cut"), [((), 0), ((0,), 0), ((1,), 1), ((1, 0), 1), ((0, 64), 1)])
def test_the_log_is_cut_once_after_pages_were_given_back(shrinking, moved, cut):
    """And only then: a log that is filled again and again is left at its size."""
    journal = shrinking(*moved)
    seen = statements(journal)
    journal.checkpoint(idle=True)
    journal.checkpoint(idle=True)
    assert (seen.count(PASSIVE), seen.count(TRUNCATE)) == (2, cut)


def test_the_log_is_not_cut_while_commits_come(shrinking):
    """It takes a lock that no reader may hold."""
    journal = shrinking(1)
    seen = statements(journal)
    journal.checkpoint(idle=False)
    assert seen == [PASSIVE]
    journal.checkpoint(idle=True)
    assert TRUNCATE in seen


@pytest.mark.parametrize("answer", [(0, 10, 9), (1, -1, -1)])
def test_the_log_is_not_cut_behind_a_checkpoint_that_could_not_finish(shrinking, monkeypatch, answer):
    """Somebody reads it: cutting would have to wait."""
    journal = shrinking(1)
    seen = statements(journal)
    db = journal._db
    monkeypatch.setattr(journal, "_db", Answering(db, {PASSIVE: answer}))
    journal.checkpoint(idle=True)
    assert TRUNCATE not in seen
    monkeypatch.setattr(journal, "_db", db)
    journal.checkpoint(idle=True)
    assert TRUNCATE in seen


def test_cutting_waits_for_no_reader_and_is_done_when_he_has_gone(shrinking, lines):
    """The pause for locks is off for this one statement, and on again after it, whatever came of it."""
    journal = shrinking(1)
    log = Path(journal.path + "-wal")
    journal.append(Commit(lines(1, 10)))
    os.truncate(log, 2 * LOG_RESERVE)
    journal._file.note_state()  # the test did it, for the journal
    with closing(sqlite3.connect(journal.path)) as tool:
        tool.execute("BEGIN")
        assert tool.execute("SELECT count(*) FROM lines").fetchone() == (10,)
        seen = statements(journal)
        journal.checkpoint(idle=True)
        assert seen == [PASSIVE, "PRAGMA busy_timeout = 0", TRUNCATE, "PRAGMA busy_timeout = 1000"]
        assert log.stat().st_size == 2 * LOG_RESERVE
    assert journal._db.execute("PRAGMA busy_timeout").fetchone() == (schema.BUSY_S * 1000,)
    journal.checkpoint(idle=True)
    assert log.stat().st_size == LOG_RESERVE, "cut, and given its reserve again"
    assert journal.page(Query(0, ALL, 100)).seqs == list(range(1, 11))


def test_the_pause_for_locks_is_back_after_cutting_failed(shrinking, monkeypatch):
    """Else the next commit that meets a lock would fail at once."""
    journal = shrinking(1)
    db = journal._db
    monkeypatch.setattr(journal, "_db", Answering(db, {TRUNCATE: sqlite3.OperationalError("disk I/O error")}))
    with pytest.raises(JournalError, match="disk I/O error"):
        journal.checkpoint(idle=True)
    assert db.execute("PRAGMA busy_timeout").fetchone() == (1000,)


# --- syncing ---------------------------------------------------------------------------------------------------------


def test_a_journal_that_syncs_does_so_from_the_first_commit_on(journal_at, lines):
    """`sync="full"`, and the other one only the first, which names a new epoch; SQLite calls them 2 and 1."""
    for sync, level in [("full", 2), ("normal", 1)]:
        journal = journal_at(sync=sync)
        journal.open()
        for expected in (2, level):
            journal.append(Commit(lines(journal._retention.head + 1, 1)))
            assert journal._db.execute("PRAGMA synchronous").fetchone() == (expected,)
        journal.close()


def test_retention_never_syncs(journal_at, lines):
    """A deletion that a power cut undoes is done again; the commit after it syncs as before."""
    journal = journal_at(sync="full")
    journal.open()
    journal.append(Commit(lines(1, 1)))
    journal.prune()
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (1,)
    journal.append(Commit(lines(2, 1)))
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_what_is_set_already_is_not_set_again(journal_at, lines):
    """A statement less for each commit."""
    journal = journal_at()
    journal.open()
    seen = statements(journal)
    journal.append(Commit(lines(1, 1), durable=True))
    journal.append(Commit(lines(2, 1), durable=True))
    journal.prune()
    journal.prune()
    journal.append(Commit(lines(3, 1)))
    settings = [sql for sql in seen if "synchronous" in sql]
    assert settings == ["PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"]


# --- transactions ----------------------------------------------------------------------------------------------------


def test_the_first_error_is_the_one_that_is_said(journal_at, lines, monkeypatch):
    """When undoing the transaction fails as well, that is not what the operator has to know."""
    journal = journal_at()
    journal.open()
    db = journal._db
    answers = {"COMMIT": sqlite3.OperationalError("no space"), "ROLLBACK": sqlite3.OperationalError("no more")}
    monkeypatch.setattr(journal, "_db", Answering(db, answers))
    with pytest.raises(JournalError, match=r"no space") as error:
        journal.append(Commit(lines(1, 1)))
    assert journal.path in str(error.value)
    db.execute("ROLLBACK")
    monkeypatch.setattr(journal, "_db", db)
    journal.append(Commit(lines(1, 2)))
    assert journal.page(Query(0, ALL, 10)).seqs == [1, 2]


def test_forgetting_that_fails_does_not_fail_the_commit(journal_at, run, monkeypatch):
    """It is a convenience: the commit before it is in the journal."""
    monkeypatch.setattr("logrelay.journal.row_writer.MAX_ALIASES", 1)

    def broken(db):
        raise sqlite3.OperationalError("no space")

    journal = journal_at()
    journal.open()
    monkeypatch.setattr(journal._row_writer, "forget", broken)
    journal.append(Commit(runs=[run(1), run(2)], aliases=["a", "b"]))
    journal.close()
    opening = journal_at().open()
    assert ([r.id for r in opening.runs], opening.aliases) == ([1, 2], {"a", "b"})


def test_a_connection_that_does_not_close_is_left_behind(journal_at, monkeypatch):
    """Closing goes on: the lock is given back."""
    journal = journal_at()
    journal.open()
    monkeypatch.setattr(
        journal, "_db", Answering(journal._db, {"close": sqlite3.OperationalError("unfinalized statements")})
    )
    journal.close()
    journal_at().open()


def test_a_journal_that_was_never_opened_says_so(journal_at, lines):
    """Each method that needs the file, with its path."""
    journal = journal_at()
    with pytest.raises(JournalLost) as lost:
        journal.append(Commit(lines(1, 1)))
    assert str(lost.value) == f"journal {journal.path} is not open"
    with pytest.raises(JournalError) as error:
        journal.page(Query(0, 1, 1))
    assert str(error.value) == f"journal {journal.path} is not open at the moment"


def test_other_limits_hold_from_now_on(journal_at, fill):
    """What is too much by new limits should go, in an open journal; limits that are raised again keep the rest."""
    journal = journal_at(max_bytes=64 << 20, max_age_s=0)
    journal.open()
    fill(journal, 1, 20_000)

    def prune():
        while journal.due() <= 0:
            journal.prune()

    prune()
    assert journal.pruned == 0
    journal.keep(Keeping(max_age_s=0, max_bytes=1 << 20, keep_free=0))
    prune()
    pruned = journal.pruned
    assert pruned > 10_000
    journal.keep(Keeping(max_age_s=0, max_bytes=64 << 20, keep_free=0))
    fill(journal, 20_001, 5_000)
    prune()
    assert journal.pruned == pruned
