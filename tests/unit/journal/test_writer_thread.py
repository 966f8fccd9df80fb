"""The journal's thread: merges, reports, retries, recovers, stops; and never blocks who hands in."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.journal import remembered_lines, writer_thread
from logrelay.journal.interface import JournalLost, Query
from logrelay.journal.memory import MemoryJournal
from logrelay.journal.writer_thread import FIRST_RETRY_S, IDLE_S, MERGE_LINES, JournalThread
from logrelay.model import Commit
from tests.support.waiting import DEADLINE_S

ALL = 1 << 60

DUE_S = 1234.5
"""The next step of retention is so far away: less than the writer's longest wait, more than any test takes."""


class Loop:
    """Stands in for the event loop: runs what it is given, in order, and remembers what was said."""

    def __init__(self):
        self.said = []

    def call(self, function, *args):
        function(*args)

    def on_committed(self, upto, oldest):
        self.said.append(("committed", upto, oldest))

    def on_trouble(self, error):
        self.said.append(("trouble", error))

    def on_notice(self, notice):
        self.said.append(("notice", notice))

    def on_recovered(self, notices):
        self.said.append(("recovered", notices))

    def on_damaged(self, lines):
        self.said.append(("damaged", lines))

    def words(self):
        return [entry[0] for entry in self.said]

    def first(self, word):
        """Return what was said with the first such word."""
        return next(entry[1] for entry in self.said if entry[0] == word)

    @property
    def upto(self):
        return max((entry[1] for entry in self.said if entry[0] == "committed"), default=0)


class Gate:
    """A journal whose next appends can be held, made to fail, or made to raise anything."""

    def __init__(self, journal):
        self._journal = journal
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.waiting = threading.Event()
        self.fail = None
        self.failed = 0
        self.commits = []

    def append(self, commit):
        self.waiting.set()
        assert self.open_gate.wait(DEADLINE_S)
        if self.fail is not None:
            self.failed += 1
            raise self.fail
        self._journal.append(commit)
        self.commits.append(commit)

    def __getattr__(self, name):
        return getattr(self._journal, name)


@pytest.fixture
def loop():
    """What the thread reports to."""
    return Loop()


@pytest.fixture
def start(loop):
    """Open a journal, start its thread; at the end the thread closes the journal, and nobody else does."""
    started = []

    def begin(journal):
        opening = journal.open()
        writer = JournalThread(journal, opening, loop, loop.call)
        writer.start()
        started.append((writer, journal))
        return writer

    yield begin
    for writer, journal in started:
        if isinstance(journal, Gate):
            journal.open_gate.set()
            journal.fail = None
        writer.stop(DEADLINE_S)
        assert not writer.running, "the journal's thread did not end"


@pytest.fixture(params=["sqlite", "memory"])
def any_journal(request, journal_at):
    """Each kind of journal."""
    return journal_at() if request.param == "sqlite" else MemoryJournal(random_epoch=lambda: "abc123")


def test_what_is_submitted_is_committed_and_reported(any_journal, start, loop, lines, until):
    """Every commit is reported up to its last line, in order; a page read afterwards has it."""
    writer = start(any_journal)
    for first in range(1, 101, 10):
        writer.submit(Commit(lines(first, 10)))
    until(lambda: loop.upto == 100, "the last commit")
    uptos = [entry[1] for entry in loop.said]
    assert uptos == sorted(uptos)
    assert writer.read(Query(0, ALL, 1000)).result(DEADLINE_S).seqs == list(range(1, 101))
    assert writer.levels(1, 50).result(DEADLINE_S) == {20: 50}
    stats = writer.stats()
    assert (stats.lines, stats.pending_commits, stats.trouble, stats.pages) == (100, 0, None, 1)
    assert 1 <= stats.commits <= 10


def test_commits_that_wait_are_merged(journal_at, start, loop, lines, run, until):
    """What arrives during a commit becomes one transaction, the newest row of each run, bounded in lines."""
    gate = Gate(journal_at())
    writer = start(gate)
    gate.open_gate.clear()
    writer.submit(Commit(lines(1, 1)))
    assert gate.waiting.wait(DEADLINE_S)
    for n in range(2, 102):
        writer.submit(Commit(lines(n, 1), [run(1, last_seq=n)], [f"p{n:05}"], durable=n == 50))
    writer.submit(Commit(lines(102, MERGE_LINES)))
    gate.open_gate.set()
    until(lambda: loop.upto == 101 + MERGE_LINES, "the last commit")
    first, merged, last = gate.commits
    assert ([line.seq for line in merged.lines], merged.runs, len(merged.aliases), merged.durable) == (
        list(range(2, 102)),
        [run(1, last_seq=101)],
        100,
        True,
    )
    assert (len(first.lines), len(last.lines), last.durable) == (1, MERGE_LINES, False)


def test_trouble_is_said_once_and_ends(journal_at, start, loop, lines, until):
    """Failing commits: one report, retries, then recovered, then committed; nothing lost, nothing twice."""
    gate = Gate(journal_at())
    writer = start(gate)
    gate.fail = JournalError("the disk is full")
    writer.submit(Commit(lines(1, 5)))
    until(lambda: loop.said, "the trouble")
    for first in range(6, 26, 5):
        writer.submit(Commit(lines(first, 5)))
    assert writer.stats().trouble == "the disk is full"
    assert writer.stats().pending_commits == 5
    until(lambda: gate.failed >= 3, "the retries")
    gate.fail = None
    until(lambda: loop.upto == 25, "the recovery")
    words = ["trouble", "recovered", "committed", "committed", "committed"]
    assert loop.words() == words, "one commit, then twice as many as worked before"
    assert loop.said[1] == ("recovered", [])
    assert writer.read(Query(0, ALL, 1000)).result(DEADLINE_S).seqs == list(range(1, 26))
    assert writer.stats().trouble is None


def test_a_deleted_file_is_mended_on_the_way(journal_at, start, loop, lines, until):
    """Deletion under the running relay: trouble, the file written again, recovered with the words for viewers."""
    journal = journal_at()
    writer = start(journal)
    writer.submit(Commit(lines(1, 100)))
    until(lambda: loop.upto == 100, "the first commit")
    for path in journal_at.path.parent.glob("journal.db*"):
        path.unlink()
    writer.submit(Commit(lines(101, 1)))
    until(lambda: loop.upto == 101, "the commit after")
    # The upkeep may find it first, and then makes a commit of its own for it.
    assert [word for word in loop.words() if word != "committed"] == ["trouble", "recovered"]
    assert isinstance(loop.first("trouble"), JournalLost)
    assert "written again, complete" in loop.first("recovered")[0]
    assert writer.read(Query(0, ALL, 1000)).result(DEADLINE_S).seqs == list(range(1, 102))
    assert writer.stop(DEADLINE_S) == 0
    assert journal_at().open().head == 101


def test_damage_a_reader_finds_is_mended_by_the_writer(journal_at, start, loop, lines, until, monkeypatch):
    """A page that cannot be read wakes the writer, which saves what is readable under the same numbers."""
    monkeypatch.setattr(remembered_lines, "REMEMBERED_BYTES", 1)
    journal = journal_at()
    writer = start(journal)
    writer.submit(Commit(lines(1, 5000)))
    until(lambda: loop.upto == 5000, "the commit")
    journal._unchecked = 1 << 30
    until(lambda: journal._unchecked == 0, "the checkpoint")
    with journal_at.path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(20 * 4096)
        file.write(os.urandom(size - 20 * 4096))
    with suppress(JournalError):  # the writer may find it first, and be done or at work already
        writer.read(Query(0, ALL, 10_000)).result(DEADLINE_S)
    until(lambda: "recovered" in loop.words(), "the recovery")
    until(lambda: loop.said[-1] == ("committed", 5000, 1), "the commit behind it")
    writer.submit(Commit(lines(5001, 1)))
    until(lambda: loop.upto == 5001, "the next commit")
    assert writer.read(Query(5000, ALL, 10)).result(DEADLINE_S).seqs == [5001]
    assert writer.stats().damaged_lines > 0
    bodies = writer.read(Query(0, ALL, 1000)).result(DEADLINE_S).bodies
    assert any(b'"cause":"corrupt"' in body for body in bodies)


def test_a_commit_that_cannot_work_is_said_and_not_repeated(journal_at, start, loop, lines, until):
    """An error that no retry can help: reported with retry False; stop counts what is not in the journal."""
    writer = start(journal_at())
    writer.submit(Commit(lines(1, 1)))
    writer.submit(Commit(lines(7, 1)))
    writer.submit(Commit(lines(8, 1)))
    until(lambda: "trouble" in loop.words(), "the trouble")
    assert not loop.first("trouble").retry
    assert writer.stop(DEADLINE_S) in (2, 3)


def test_an_unexpected_error_is_said_too(journal_at, start, loop, lines, until):
    """A bug in a journal does not kill the thread silently."""
    gate = Gate(journal_at())
    writer = start(gate)
    gate.fail = ZeroDivisionError("bug")
    writer.submit(Commit(lines(1, 1)))
    until(lambda: loop.said, "the trouble")
    assert "ZeroDivisionError" in str(loop.said[0][1])
    assert not loop.said[0][1].retry


def test_stop_commits_what_is_left(journal_at, start, loop, lines):
    """Everything submitted before stop is in the journal after it, and the lock is free."""
    gate = Gate(journal_at())
    writer = start(gate)
    gate.open_gate.clear()
    for first in range(1, 20_001, 1000):
        writer.submit(Commit(lines(first, 1000)))
    threading.Timer(0.05, gate.open_gate.set).start()
    assert writer.stop(DEADLINE_S) == 0
    assert loop.upto == 20_000
    assert journal_at().open().head == 20_000


def test_stop_in_trouble_ends_by_its_deadline(journal_at, start, loop, lines, until):
    """The retry pause is cut short; what could not be written is counted."""
    gate = Gate(journal_at())
    writer = start(gate)
    gate.fail = JournalError("the disk is full")
    writer.submit(Commit(lines(1, 5)))
    writer.submit(Commit(lines(6, 5)))
    until(lambda: loop.said, "the trouble")
    assert writer.stop(2 * FIRST_RETRY_S) == 2
    until(lambda: not writer.running, "the end of the thread, which closes the journal behind that time")
    gate.fail = None
    assert journal_at().open().head == 0


def test_stop_in_trouble_still_writes_when_the_trouble_ends(journal_at, start, loop, lines, until):
    """Until the deadline it keeps trying."""
    gate = Gate(journal_at())
    writer = start(gate)
    gate.fail = JournalError("the disk is full")
    writer.submit(Commit(lines(1, 5)))
    until(lambda: loop.said, "the trouble")
    threading.Timer(0.2, lambda: setattr(gate, "fail", None)).start()
    assert writer.stop(DEADLINE_S) == 0
    assert loop.upto == 5


def test_a_stop_that_ends_too_early_leaves_the_journal_open(journal_at, start, loop, lines, until):
    """A disk that does not answer: the journal is the thread's, and is closed by it once the disk has answered."""
    gate = Gate(journal_at())
    writer = start(gate)
    gate.open_gate.clear()
    writer.submit(Commit(lines(1, 10)))
    assert gate.waiting.wait(DEADLINE_S)
    assert writer.stop(0.01) == 1
    assert writer.running
    with pytest.raises(JournalError, match="in use"):
        journal_at().open()
    gate.open_gate.set()
    assert writer.stop(DEADLINE_S) == 0
    assert not writer.running
    assert loop.upto == 10
    assert journal_at().open().head == 10


def test_the_thread_closes_after_the_last_reader(journal_at, start, lines, until, loop, monkeypatch):
    """A page that is being read when the relay stops is read to its end; only then the file is closed."""
    journal = journal_at()
    inside, go_on = threading.Event(), threading.Event()
    page = journal._reader.page

    def slow_page(db, query):
        inside.set()
        assert go_on.wait(DEADLINE_S)
        return page(db, query)

    monkeypatch.setattr(journal._reader, "page", slow_page)
    writer = start(journal)
    writer.submit(Commit(lines(1, 10)))
    until(lambda: loop.upto == 10, "the commit")
    read = writer.read(Query(0, ALL, 100))
    assert inside.wait(DEADLINE_S)
    writer.stop(0.01)
    assert writer.running
    go_on.set()
    assert read.result(DEADLINE_S).seqs == list(range(1, 11))
    writer.stop(DEADLINE_S)
    assert not writer.running


def test_a_thread_that_was_never_started_gives_the_journal_back(journal_at, loop, lines):
    """A start that fails elsewhere: the journal is closed, its lock free, and nothing was written."""
    journal = journal_at()
    writer = JournalThread(journal, journal.open(), loop, loop.call)
    writer.submit(Commit(lines(1, 10)))
    assert writer.stop(DEADLINE_S) == 1
    assert journal_at().open().head == 0


def test_closing_from_another_thread_waits_for_the_commit(journal_at, lines, monkeypatch):
    """Nobody should close a journal that a thread writes; who does it all the same waits instead of crashing."""
    journal = journal_at()
    journal.open()
    inside, go_on = threading.Event(), threading.Event()
    write = journal._row_writer.write

    def slow_write(db, commit):
        inside.set()
        assert go_on.wait(DEADLINE_S)
        write(db, commit)

    monkeypatch.setattr(journal._row_writer, "write", slow_write)
    append = threading.Thread(target=journal.append, args=(Commit(lines(1, 10)),))
    append.start()
    closing = threading.Thread(target=journal.close)
    try:
        assert inside.wait(DEADLINE_S)
        closing.start()
        closing.join(0.05)
        assert closing.is_alive(), "closed in the middle of a commit"
    finally:
        go_on.set()
        append.join(DEADLINE_S)
        closing.join(DEADLINE_S)
    with pytest.raises(JournalError, match="closed"):
        journal.reopen()
    assert journal_at().open().head == 10


def test_reading_goes_on_while_a_commit_hangs(journal_at, start, loop, lines, until):
    """A disk that hangs in a commit does not stop pages of what is in the journal already."""
    gate = Gate(journal_at())
    writer = start(gate)
    writer.submit(Commit(lines(1, 10)))
    until(lambda: loop.upto == 10, "the commit")
    gate.open_gate.clear()
    gate.waiting.clear()
    writer.submit(Commit(lines(11, 10)))
    assert gate.waiting.wait(DEADLINE_S)
    assert writer.read(Query(0, ALL, 100, Filter(level=20))).result(DEADLINE_S).seqs == list(range(1, 11))
    gate.open_gate.set()


def test_retention_runs_between_commits_and_is_reported(journal_at, start, loop, lines, until):
    """Under load the size is kept, `oldest` reported as it moves, and people are told once."""

    def moves():
        return [entry[2] for entry in loop.said if entry[0] == "committed"]

    journal = journal_at(max_bytes=2 << 20)
    writer = start(journal)
    for first in range(1, 40_001, 1000):
        writer.submit(Commit(lines(first, 1000)))
    until(lambda: loop.upto == 40_000, "the last commit")
    until(lambda: journal.due() > 0, "the end of retention")
    until(lambda: writer.stats().pruned == moves()[-1] - 1, "the report of its last step")
    oldest = moves()
    assert oldest == sorted(oldest)
    assert oldest[-1] > 30_000
    assert writer.read(Query(0, ALL, 1)).result(DEADLINE_S).oldest == oldest[-1]
    until(lambda: "notice" in loop.words(), "the notice, which comes behind a checkpoint")
    (told,) = [entry[1] for entry in loop.said if entry[0] == "notice"]
    assert told.details["cause"] == "size"


class RecordingQueue(SimpleQueue):
    """A queue that remembers how long its taker was ready to wait."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def get(self, block=True, timeout=None):
        self.waits.append(timeout)
        return super().get(block, timeout)


def test_an_idle_writer_sleeps_until_something_is_due(journal_at, start, loop, lines, until, monkeypatch):
    """After the work is done there is one long wait for what comes next, no polling: the thread uses no CPU."""
    monkeypatch.setattr(writer_thread, "SimpleQueue", RecordingQueue)
    journal = journal_at()
    journal.due = lambda: DUE_S
    done, report = [], loop.on_committed

    def on_committed(*args):  # on the writer's thread: how often it had waited before
        done.append(len(writer._queue.waits))
        report(*args)

    monkeypatch.setattr(loop, "on_committed", on_committed)
    writer = start(journal)
    writer.submit(Commit(lines(1, 100)))
    waits = writer._queue.waits
    until(lambda: done and DUE_S in waits[done[0] :] and waits[-1] == DUE_S, "the idle wait")
    waits = waits[done[0] :]
    assert set(waits[waits.index(DUE_S) :]) <= {IDLE_S, DUE_S}
    writer.submit(Commit(lines(101, 1)))
    until(lambda: loop.upto == 101, "the commit after the sleep")


def test_the_log_stays_small_under_steady_load(journal_at, start, loop, lines, until):
    """Checkpoints keep up: after many times its size in commits, the write-ahead log is bounded."""
    writer = start(journal_at(max_bytes=32 << 20))
    for round_ in range(60):
        for first in range(round_ * 4000 + 1, round_ * 4000 + 4001, 500):
            writer.submit(Commit(lines(first, 500)))
        until(lambda want=round_ * 4000 + 4000: loop.upto == want, "the round")
    assert Path(str(journal_at.path) + "-wal").stat().st_size < 5 << 20
    # Retention follows the commits, it does not go before them: at the last one it may still be at work.
    until(
        lambda: sum(path.stat().st_size for path in journal_at.path.parent.iterdir()) < 36 << 20,
        "the size that is kept",
    )


@pytest.fixture
def small_disk(tmp_path):
    """A file system of four megabytes; skipped where it may not be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_is_survived_without_a_restart(journal_at, start, loop, lines, small_disk, until):
    """The disk fills up: trouble in words, reading goes on; space comes back: all that was submitted is there, once."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (2 << 20))
    journal = journal_at(small_disk / "journal.db", max_bytes=64 << 20)
    writer = start(journal)
    sent = 0
    while "trouble" not in loop.words():
        assert sent < 20_000, "the disk never became full"
        writer.submit(Commit(lines(sent + 1, 200)))
        sent += 200
        until(lambda sent=sent: loop.upto == sent or "trouble" in loop.words(), "an answer")
    assert "disk is full" in str(loop.first("trouble"))
    assert loop.first("trouble").retry
    assert writer.read(Query(0, ALL, 10)).result(DEADLINE_S).seqs == list(range(1, 11))
    writer.submit(Commit(lines(sent + 1, 1)))
    ballast.unlink()
    until(lambda: loop.upto == sent + 1, "the recovery")
    assert loop.words().count("trouble") == loop.words().count("recovered") == 1
    found, after = [], 0
    while after < sent + 1:
        page = writer.read(Query(after, ALL, 10_000)).result(DEADLINE_S)
        found, after = found + page.seqs, page.reached
    assert found == list(range(1, sent + 2))
    assert writer.stop(DEADLINE_S) == 0
    again = journal_at(small_disk / "journal.db")
    assert again.open().head == sent + 1
    again.close()


def test_an_input_output_error_is_survived_without_a_restart(journal_at, start, loop, lines, until):
    """Writes that fail (here: beyond the file size the kernel allows) are trouble in words, and heal by themselves."""
    writer = start(journal_at())
    writer.submit(Commit(lines(1, 10)))
    until(lambda: loop.upto == 10, "the commit")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        writer.submit(Commit(lines(11, 4000)))
        until(lambda: "trouble" in loop.words(), "the trouble")
        assert "input/output error" in str(loop.first("trouble"))
        assert writer.read(Query(0, ALL, 100)).result(DEADLINE_S).seqs == list(range(1, 11))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    until(lambda: loop.upto == 4010, "the recovery")
    assert writer.read(Query(0, ALL, 10_000, max_bytes=8 << 20)).result(DEADLINE_S).seqs == list(range(1, 4011))
