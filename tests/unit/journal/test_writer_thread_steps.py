"""What the journal's thread does, in which order and at which moment: with a journal, a clock and waits of our own.

Nothing here takes time: the clock moves when the journal or a pause moves it, and what is submitted before `start` is
there at once, so that it is known what a transaction finds waiting.
"""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace

import pytest

from logrelay.errors import JournalError
from logrelay.journal import writer_thread
from logrelay.journal.derive_rhythm import BUSY_LINES_PER_S, MOST_BEHIND, PAUSE_S, WINDOW_S
from logrelay.journal.interface import JournalLost, Keeping, Opening, Page, Query, Room
from logrelay.journal.writer_thread import (
    DERIVE_BUSY_S,
    DERIVE_IDLE_S,
    IDLE_S,
    LONGEST_WAIT_S,
    READERS,
    UPKEEP_RETRY_S,
    UPKEEP_S,
    UPKEEP_TELL_S,
    JournalThread,
)
from logrelay.model import Commit
from tests.support.waiting import DEADLINE_S, wait_for

QUERY = Query(0, 100, 10)
FIRST_S, LAST_S = 0.125, 2.0
"""The pauses between attempts here: sums of them are exact."""


class Clock:
    """Seconds, moved by hand."""

    def __init__(self):
        self.now = 0.0
        self.step = 0.0
        """By so much it goes on with every look at it."""

    def __call__(self):
        self.now += self.step
        return self.now


class Scripted:
    """A journal that does what its lists say, one entry for each call, and then works."""

    def __init__(self, clock):
        self.clock = clock
        self.calls = []
        self.commits = []
        self.threads = []
        self.append_errors = []
        """For each attempt an error or None."""
        self.took = []
        """How many seconds each attempt takes."""
        self.reopenings = []
        """An error or the notices of each."""
        self.dues = []
        """What `due` answers, or raises; at the end of the list nothing is ever due."""
        self.derives, self.derived = [], []
        self.syncs = []
        """What `sync` answers, or raises; at the end of the list there is nothing to sync."""
        self.checkpoints = []
        self.page_error = None
        self.pages_wait = None
        self.oldest, self.pruned, self.per_step = 1, 0, 1
        self.sizes = iter(range(1000, 100_000))
        self.closed = False
        self.notices = []

    def append(self, commit):
        self.calls.append("append")
        self.threads.append(threading.current_thread())
        self.clock.now += self.took.pop(0) if self.took else 0.0
        error = self.append_errors.pop(0) if self.append_errors else None
        if error is not None:
            raise error
        self.commits.append(commit)

    def reopen(self):
        self.calls.append("reopen")
        found = self.reopenings.pop(0) if self.reopenings else []
        if isinstance(found, Exception):
            raise found
        self.oldest += 10
        return Opening("abc123", self.oldest, 0, [], set(), found)

    def due(self):
        self.calls.append("due")
        found = self.dues.pop(0) if self.dues else float("inf")
        if isinstance(found, Exception):
            raise found
        return found

    def keep(self, keeping):
        self.calls.append(keeping)

    def room(self):
        return Room(log_bytes=7)

    def prune(self):
        self.calls.append("prune")
        self.pruned += self.per_step
        self.oldest += self.per_step
        return self.oldest

    def checkpoint(self, *, idle):
        self.calls.append("checkpoint")
        self.checkpoints.append(idle)

    def derive(self, *, seconds):
        self.derived.append(seconds)
        found = self.derives.pop(0) if self.derives else False
        if isinstance(found, Exception):
            raise found
        return found

    def sync(self):
        found = self.syncs.pop(0) if self.syncs else float("inf")
        if isinstance(found, Exception):
            raise found
        return found

    def page(self, query):
        self.threads.append(threading.current_thread())
        if self.pages_wait is not None:
            assert self.pages_wait.wait(DEADLINE_S)
        if self.page_error is not None:
            raise self.page_error
        return Page([b"{}"], [query.after + 1], query.after + 1, True, self.oldest)

    def levels(self, first, last):
        return {first: last}

    damaged_lines = 0
    index_behind = 0

    def disturbed(self):
        return False

    def disk_bytes(self):
        return next(self.sizes)

    pruned_for = {}

    def take_notices(self):
        taken, self.notices = self.notices, []
        return taken

    def close(self):
        self.calls.append("close")
        self.closed = True


class Loop:
    """Runs what it is given at once, and remembers what was said."""

    def __init__(self):
        self.said = []
        self.gone = False

    def call(self, function, *args):
        if self.gone:
            raise RuntimeError("Event loop is closed")
        function(*args)

    def on_committed(self, upto, oldest):
        self.said.append((upto, oldest))

    def on_trouble(self, error):
        self.said.append(error)

    def on_notice(self, notice):
        self.said.append(("notice", notice))

    def on_recovered(self, notices):
        self.said.append(notices)

    def on_damaged(self, lines):
        self.said.append(lines)


class Waits(threading.Event):
    """Takes the place of the event `stop` sets: notes the pauses between attempts, and makes the clock pass them."""

    def __init__(self):
        super().__init__()
        self.pauses = []
        self.asleep = threading.Event()
        self.hold_at = None
        """The pause with this number is waited for in earnest, until `stop`."""

    def wait(self, timeout=None):
        self.pauses.append(timeout)
        if len(self.pauses) == self.hold_at:
            self.asleep.set()
            return super().wait(DEADLINE_S)
        self.clock.now += timeout
        return False


class World:
    """One thread and all that it works with."""

    def __init__(self, monkeypatch):
        self.clock = Clock()
        self.journal = Scripted(self.clock)
        self.loop = Loop()
        self.waits = Waits()
        self.waits.clock = self.clock
        self.sleeps = []
        self.idle = []
        """How long the thread meant to wait for a commit, each time."""
        self.idle_turns = 0
        """So many of these waits end at once without a commit."""
        self.asleep = threading.Semaphore(0)
        world = self

        class Queue(queue.SimpleQueue):
            def get(self, block=True, timeout=None):
                if not self.empty():
                    return super().get()
                world.idle.append(timeout)
                if world.idle_turns:
                    world.idle_turns -= 1
                    raise queue.Empty
                world.asleep.release()
                return super().get(timeout=DEADLINE_S)

        def sleep(seconds):
            self.sleeps.append(seconds)
            self.clock.now += seconds

        monkeypatch.setattr(writer_thread, "SimpleQueue", Queue)
        monkeypatch.setattr(writer_thread, "Event", lambda: self.waits)
        monkeypatch.setattr(writer_thread, "time", SimpleNamespace(sleep=sleep))
        monkeypatch.setattr(writer_thread, "FIRST_RETRY_S", FIRST_S)
        monkeypatch.setattr(writer_thread, "LAST_RETRY_S", LAST_S)
        opening = Opening("abc123", 1, 0, [], set())
        self.thread = JournalThread(self.journal, opening, self.loop, self.loop.call, clock=self.clock)

    def begin(self, *commits):
        """Submit, start, and wait until the thread sleeps."""
        for commit in commits:
            self.thread.submit(commit)
        self.thread.start()
        self.settle()

    def then(self, commit):
        """Submit one more and wait until the thread sleeps again."""
        self.thread.submit(commit)
        self.settle()

    def settle(self):
        assert self.asleep.acquire(timeout=DEADLINE_S), "the thread does not come to rest"

    def said(self):
        """Everything said, errors as text."""
        return [str(entry) if isinstance(entry, Exception) else entry for entry in self.loop.said]

    def taken(self):
        """Seqs of each transaction."""
        return [[line.seq for line in commit.lines] for commit in self.journal.commits]


@pytest.fixture
def world(monkeypatch):
    """A thread that is not started yet; it is stopped at the end."""
    made = World(monkeypatch)
    yield made
    made.thread.stop(DEADLINE_S)
    assert not made.thread.running


# --- threads and counters --------------------------------------------------------------------------------------------


def test_the_threads_have_names_and_do_not_keep_the_process_alive(world, lines):
    """`ps -L` and a stack dump tell them apart, and a disk that hangs does not stop the relay from ending."""
    world.begin(Commit(lines(1, 1)))
    world.thread.read(QUERY).result(DEADLINE_S)
    writing, reading = world.journal.threads
    assert (writing.name, writing.daemon) == ("journal", True)
    assert reading.name.startswith("journal-read")


def test_no_more_threads_read_than_is_said(world):
    """However many pages are asked for at once."""
    world.journal.pages_wait = threading.Event()
    before = set(threading.enumerate())
    pages = [world.thread.read(QUERY) for _ in range(READERS + 3)]
    assert len(set(threading.enumerate()) - before) == READERS
    world.journal.pages_wait.set()
    assert [page.result(DEADLINE_S).seqs for page in pages] == [[1]] * (READERS + 3)


def test_the_counters_begin_at_nothing(world):
    """Except for what the journal takes on the disk already."""
    stats = world.thread.stats()
    assert (stats.commits, stats.lines, stats.pending_commits, stats.pruned, stats.pages) == (0, 0, 0, 0, 0)
    assert (stats.last_commit_s, stats.slowest_commit_s) == (0.0, 0.0)
    assert (stats.trouble, stats.upkeep_trouble) == (None, None)
    assert stats.disk_bytes == 1000
    assert not world.thread.running


def test_the_counters_say_what_was_done(world, lines):
    """Transactions and lines add up; the last and the slowest are told apart; only pages that came are counted."""
    world.journal.took = [0.5, 3.0, 1.0]
    world.begin(Commit(lines(1, 2)))
    world.then(Commit(lines(3, 3)))
    world.then(Commit(lines(6, 4)))
    for _ in range(3):
        world.thread.read(QUERY).result(DEADLINE_S)
    world.journal.page_error = JournalError("not now")
    with pytest.raises(JournalError, match="not now"):
        world.thread.read(QUERY).result(DEADLINE_S)
    world.settle()
    stats = world.thread.stats()
    assert (stats.lines, stats.pages, stats.pending_commits) == (9, 3, 0)
    assert (stats.commits, len(world.journal.commits)) == (4, 4)  # the empty one after the page that failed
    assert (stats.last_commit_s, stats.slowest_commit_s) == (0.0, 3.0)


def test_how_long_the_disk_has_been_at_one_thing_can_be_seen(world, lines, monkeypatch):
    """While it is at it, and not afterwards; what is known of log and disk is that of the last upkeep."""
    seen, append = [], world.journal.append

    def watched(commit):
        append(commit)
        seen.append(world.thread.stats().stalled_s)

    monkeypatch.setattr(world.journal, "append", watched)
    world.journal.took = [0.5, 3.0]
    assert (world.thread.stalled_s, world.thread.stats().room) == (0.0, Room())
    world.begin(Commit(lines(1, 2)))
    world.then(Commit(lines(3, 3)))
    assert seen == [0.5, 3.0]
    assert (world.thread.stalled_s, world.thread.stats().room) == (0.0, Room(log_bytes=7))


def test_other_limits_are_handed_on_with_the_next_look(world, lines):
    """By the thread, which the journal belongs to, and once."""
    keeping = Keeping(1.0, 2, None)
    world.thread.keep(keeping)
    world.begin(Commit(lines(1, 2)))
    world.then(Commit(lines(3, 3)))

    assert [call for call in world.journal.calls if isinstance(call, Keeping)] == [keeping]


def test_what_waits_is_counted_until_it_is_in_the_journal(world, lines):
    """Handed in and not written: pending; each part of a transaction is one commit of these."""
    for seq in range(1, 4):
        world.thread.submit(Commit(lines(seq, 1)))
    assert world.thread.pending == world.thread.stats().pending_commits == 3
    world.begin()
    assert world.thread.pending == 0
    world.then(Commit(lines(4, 1)))
    assert world.thread.pending == 0
    assert world.taken() == [[1, 2, 3], [4]]
    assert world.thread.stats().commits == 2


def test_the_disk_is_looked_at_once_a_second(world, lines):
    """After the first commit, and then when a second has passed."""
    seen = []
    world.begin(Commit(lines(1, 1)))
    seen.append(world.thread.stats().disk_bytes)
    for seq, now in [(2, 0.75), (3, 1.0), (4, 1.75), (5, 2.0)]:
        world.clock.now = now
        world.then(Commit(lines(seq, 1)))
        seen.append(world.thread.stats().disk_bytes)
    assert seen == [1001, 1001, 1002, 1002, 1003]


def test_the_disk_is_looked_at_while_the_index_is_made(world, lines):
    """However often the rhythm is told of lines meanwhile."""
    world.begin(Commit(lines(1, 1)))
    before = world.thread.stats().disk_bytes
    for seq in range(2, 30):
        world.clock.now = seq * 0.1
        world.thread._may_derive()
        world.then(Commit(lines(seq, 1)))
    assert world.thread.stats().disk_bytes == before + 2


def test_a_page_is_converted_on_the_thread_that_read_it(world):
    """`read_and` gives the page of the query to the function, and its answer to the caller."""
    answer = world.thread.read_and(Query(7, 100, 10), lambda page: (page.seqs, threading.current_thread().name))
    seqs, name = answer.result(DEADLINE_S)
    assert seqs == [8]
    assert name.startswith("journal-read")
    assert world.thread.stats().pages == 1
    assert world.thread.levels(3, 9).result(DEADLINE_S) == {3: 9}


# --- merging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ([4, 6, 1], [[4, 6], [1]]),
        ([4, 7, 3], [[4], [7, 3]]),
        ([10, 0, 1], [[10], [0, 1]]),
        ([11, 1], [[11], [1]]),
        ([1, 0, 9, 0], [[1, 0, 9], [0]]),
        ([9, 1], [[9, 1]]),
        ([6, 6, 6], [[6], [6], [6]]),
    ],
)
def test_a_transaction_has_so_many_lines_at_most(world, lines, monkeypatch, sizes, taken):
    """What would be too much begins the next one; a commit that is too much on its own is written alone."""
    monkeypatch.setattr(writer_thread, "MERGE_LINES", 10)
    first = 1
    for size in sizes:
        world.thread.submit(Commit(lines(first, size)))
        first += size
    world.begin()
    assert [len(commit.lines) for commit in world.journal.commits] == [sum(part) for part in taken]
    assert [seq for seqs in world.taken() for seq in seqs] == list(range(1, first))
    assert world.thread.pending == 0


@pytest.mark.parametrize(("spare", "taken"), [(0, [[1, 2, 3], [4]]), (-1, [[1, 2], [3, 4]]), (1000, [[1, 2, 3, 4]])])
def test_a_transaction_has_so_many_bytes_at_most(world, lines, monkeypatch, spare, taken):
    """Three bodies fit, to the byte; with one byte less the third begins the next transaction."""
    written = lines(1, 4)
    monkeypatch.setattr(writer_thread, "MERGE_BYTES", sum(len(line.body) for line in written[:3]) + spare)
    world.begin(*(Commit([line]) for line in written))
    assert world.taken() == taken


def test_a_merged_transaction_has_everything_of_its_parts(world, lines, run):
    """Lines in order, of each run the newest row, every alias, and durable if one part is."""
    world.begin(
        Commit(lines(1, 1), [run(1, last_seq=1), run(2)], ["prov01"]),
        Commit(lines(2, 2), [run(1, last_seq=3)], ["prov02"], durable=True),
        Commit([], [], ["prov03"]),
    )
    [merged] = world.journal.commits
    assert merged == Commit(lines(1, 3), [run(1, last_seq=3), run(2)], ["prov01", "prov02", "prov03"], durable=True)
    world.thread.submit(Commit(lines(4, 1)))
    world.then(Commit(lines(5, 1)))
    assert not world.journal.commits[-1].durable


def test_the_end_is_found_behind_what_is_left(world, lines):
    """`stop` behind commits that wait: they are one transaction, and then the journal is closed, once."""
    held = threading.Event()
    append = world.journal.append
    entered = threading.Event()

    def slow(commit):
        entered.set()
        assert held.wait(DEADLINE_S)
        append(commit)

    world.journal.append = slow
    world.thread.submit(Commit(lines(1, 1)))
    world.thread.start()
    assert entered.wait(DEADLINE_S)
    world.thread.submit(Commit(lines(2, 1)))
    world.thread.submit(Commit(lines(3, 1)))
    assert world.thread.stop(0.0) == 3
    held.set()
    assert world.thread.stop(DEADLINE_S) == 0
    assert world.taken() == [[1], [2, 3]]
    assert world.journal.calls.count("close") == 1
    assert world.journal.calls[-1] == "close"


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_the_pauses_between_attempts_double_up_to_a_bound(world, lines):
    """Each attempt is a whole one; the time of the commit is that of the attempt that worked."""
    world.journal.append_errors = [JournalError("full")] * 7
    world.journal.took = [0.0] * 7 + [0.25]
    world.begin(Commit(lines(1, 1)))
    assert world.waits.pauses == [0.125, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert world.said() == ["full", [], (1, 1)]
    assert world.thread.stats().last_commit_s == 0.25
    world.journal.append_errors = [JournalError("full again")]
    world.then(Commit(lines(2, 1)))
    assert world.waits.pauses[7:] == [0.125]
    assert world.said()[3:] == ["full again", [], (2, 1)]


def test_a_journal_that_is_lost_is_reopened_at_once_and_then_after_pauses(world, lines):
    """The first reopening does not wait; where it does not help, the pauses are those of any trouble."""
    world.journal.append_errors = [JournalLost("gone")]
    world.journal.reopenings = [JournalError("no space"), JournalLost("damaged, too"), ["begun anew"]]
    world.begin(Commit(lines(1, 1)))
    assert world.journal.calls[:5] == ["append", "reopen", "reopen", "reopen", "append"]
    assert world.waits.pauses == [0.25, 0.5]
    assert world.said() == ["gone", ["begun anew"], (1, 11)]


def test_a_journal_that_is_lost_again_and_again_is_not_reopened_without_pauses(world, lines):
    """Only the first time of a commit: else a disk that loses every file would keep the thread busy."""
    world.journal.append_errors = [JournalLost("gone"), JournalLost("gone"), JournalLost("gone")]
    world.journal.reopenings = [["one"], ["two"], ["three"]]
    world.begin(Commit(lines(1, 1)))
    assert world.journal.calls[:7] == ["append", "reopen", "append", "reopen", "append", "reopen", "append"]
    assert world.waits.pauses == [0.25, 0.5]
    assert world.said() == ["gone", ["one", "two", "three"], (1, 31)]
    world.journal.append_errors = [JournalLost("gone")]
    world.then(Commit(lines(2, 1)))
    assert world.waits.pauses == [0.25, 0.5]
    assert world.said()[3:] == ["gone", [], (2, 41)]


def test_nothing_is_reopened_that_works(world, lines):
    """One reopening for one loss; the commits before and after it go straight to the journal."""
    world.begin(Commit(lines(1, 1)))
    assert "reopen" not in world.journal.calls
    world.journal.append_errors = [JournalLost("gone")]
    world.then(Commit(lines(2, 1)))
    world.then(Commit(lines(3, 1)))
    assert world.journal.calls.count("reopen") == 1
    assert world.taken() == [[1], [2], [3]]


def test_an_error_that_no_attempt_helps_ends_the_writing_but_not_the_reading(world, lines):
    """It is said, what comes is counted as pending, pages are read, and `stop` closes the journal."""
    world.journal.append_errors = [JournalError("too large", retry=False)]
    world.begin(Commit(lines(1, 1)))
    world.then(Commit(lines(2, 1)))
    assert world.said() == ["too large"]
    assert world.loop.said[0].retry is False
    assert world.thread.stats().trouble == "too large"
    assert (world.thread.pending, world.waits.pauses, world.journal.commits) == (2, [], [])
    assert world.thread.running
    assert not world.journal.closed
    assert world.thread.read(QUERY).result(DEADLINE_S).seqs == [1]
    assert world.thread.stop(DEADLINE_S) == 2
    assert world.journal.closed


def test_giving_up_is_said_although_the_trouble_was(world, lines):
    """What retries first and then cannot work is said twice, what was given up is said once."""
    world.journal.append_errors = [JournalError("full"), JournalError("full"), JournalError("too large", retry=False)]
    world.begin(Commit(lines(1, 1)))
    assert world.said() == ["full", "too large"]
    assert world.waits.pauses == [0.125, 0.25]


def test_a_mistake_in_the_journal_is_said_and_not_tried_again(world, lines):
    """Anything that is no JournalError; the thread stays for the pages."""
    world.journal.append_errors = [ZeroDivisionError("bug")]
    world.begin(Commit(lines(1, 1)))
    assert world.said() == ["the journal failed in an unexpected way: ZeroDivisionError('bug')"]
    assert world.loop.said[0].retry is False
    assert world.thread.pending == 1
    assert world.journal.calls == ["append"]
    assert world.thread.read(QUERY).result(DEADLINE_S).seqs == [1]


def test_a_thread_that_fails_says_so_and_closes_the_journal(world, lines):
    """Whatever goes wrong outside of the attempts: nobody would notice a thread that is gone."""

    def broken():
        raise ZeroDivisionError("bug")

    world.journal.disk_bytes = broken
    world.thread.submit(Commit(lines(1, 1)))
    world.thread.start()
    world.thread._thread.join(DEADLINE_S)
    assert world.said() == ["the journal's thread failed: ZeroDivisionError('bug')"]
    assert world.loop.said[0].retry is False
    assert world.journal.closed
    assert not world.thread.running


def test_a_loop_that_has_ended_is_no_trouble(world, lines):
    """The last reports of a relay that stops have nobody to go to; what was handed in is written all the same."""
    world.loop.gone = True
    world.begin(Commit(lines(1, 1)))
    world.then(Commit(lines(2, 1)))
    assert world.taken() == [[1], [2]]
    assert world.thread.pending == 0


# --- what readers find -----------------------------------------------------------------------------------------------


def test_damage_that_a_reader_finds_is_mended_by_the_writing_thread(world, lines):
    """The reader is told, the trouble is said, the journal reopened, and what it says then reported."""
    world.begin(Commit(lines(1, 3)))
    world.journal.page_error = JournalLost("damaged")
    world.journal.reopenings = [["begun anew"]]
    world.journal.calls.clear()
    with pytest.raises(JournalLost, match="damaged"):
        world.thread.read(QUERY).result(DEADLINE_S)
    world.settle()
    assert world.journal.calls == ["reopen", "append"]
    assert world.taken() == [[1, 2, 3], []]
    assert world.said() == [(3, 1), "damaged", ["begun anew"], (3, 11)]
    assert world.thread.stats().trouble is None
    world.then(Commit(lines(4, 1)))
    assert world.journal.calls.count("reopen") == 1


def test_a_page_that_only_failed_wakes_the_thread_without_reopening(world, lines):
    """The append finds out whether the file is gone; nothing is in trouble as long as it works."""
    world.begin(Commit(lines(1, 3)))
    world.journal.page_error = JournalError("busy")
    with pytest.raises(JournalError, match="busy"):
        world.thread.read(QUERY).result(DEADLINE_S)
    world.settle()
    assert world.taken() == [[1, 2, 3], []]
    assert "reopen" not in world.journal.calls
    assert world.said() == [(3, 1), (3, 1)]


def test_a_page_that_failed_wakes_nobody_who_has_work(world, lines):
    """The commit that waits finds the damage."""
    world.thread.submit(Commit(lines(1, 1)))
    world.journal.page_error = JournalLost("damaged")
    with pytest.raises(JournalLost, match="damaged"):
        world.thread.read(QUERY).result(DEADLINE_S)
    assert world.thread.pending == 1
    world.begin()
    assert world.journal.calls[:2] == ["reopen", "append"]
    assert world.taken() == [[1]]


# --- the end ---------------------------------------------------------------------------------------------------------


def test_attempts_go_on_until_the_deadline_of_stop(world, lines):
    """After `stop` the pauses are the shortest, and an attempt that could only come later is not waited for."""
    world.journal.append_errors = [JournalError("full")] * 100
    world.waits.hold_at = 1
    world.thread.submit(Commit(lines(1, 1)))
    world.thread.start()
    assert world.waits.asleep.wait(DEADLINE_S)
    world.clock.now = 10.0
    world.thread.stop(1.25)
    world.thread._thread.join(DEADLINE_S)
    # 10.0 and a pause of 0.25, 10.125 and 0.5, 10.25 and 1.0: the last is the deadline; 10.375 and 2.0 are beyond it.
    assert world.sleeps == [0.125] * 3
    assert world.journal.calls == ["append"] * 5 + ["close"]
    assert world.thread.pending == 1


def test_without_stop_there_is_no_deadline(world, lines):
    """An hour of trouble is not the end of trying."""
    world.journal.append_errors = [JournalError("full")] * 2000
    world.begin(Commit(lines(1, 1)))
    assert world.clock.now > 3600
    assert world.taken() == [[1]]


def test_stop_gives_up_the_pages_that_nobody_reads_yet(world):
    """Those that are being read come; `stop` waits for neither."""
    world.journal.pages_wait = threading.Event()
    pages = [world.thread.read(QUERY) for _ in range(READERS + 1)]
    wait_for(lambda: len(world.journal.threads) == READERS, "the pages that are being read")
    world.thread.stop(DEADLINE_S)
    assert pages[-1].cancelled()
    assert not any(page.done() for page in pages[:-1])
    world.journal.pages_wait.set()
    assert [page.result(DEADLINE_S).seqs for page in pages[:-1]] == [[1]] * READERS


# --- upkeep ----------------------------------------------------------------------------------------------------------


def test_the_first_commit_is_followed_by_a_look(world, lines):
    """One that is not taken for idleness: whoever hands in the next commit waits."""
    world.begin(Commit(lines(1, 1)))
    assert world.journal.calls == ["append", "due", "checkpoint"]
    assert world.journal.checkpoints == [False]


def test_a_look_is_taken_when_so_much_time_has_passed(world, lines):
    """Not before, and from then on anew."""
    looks = []
    world.begin(Commit(lines(1, 1)))
    for seq, now in enumerate([UPKEEP_S / 2, UPKEEP_S, 1.5 * UPKEEP_S, 2 * UPKEEP_S], 2):
        world.clock.now = now
        world.then(Commit(lines(seq, 1)))
        looks.append(len(world.journal.checkpoints))
    assert looks == [1, 2, 2, 3]


def test_a_look_is_taken_when_so_many_lines_have_come(world, lines, monkeypatch):
    """All since the last look count, also over several transactions."""
    monkeypatch.setattr(writer_thread, "UPKEEP_LINES", 10)
    looks, first = [], 2
    world.begin(Commit(lines(1, 1)))
    for count in [9, 1, 5, 4, 1, 10]:
        world.then(Commit(lines(first, count)))
        first += count
        looks.append(len(world.journal.checkpoints))
    assert looks == [1, 2, 2, 2, 3, 4]


def test_as_many_lines_go_as_have_come(world, lines, monkeypatch):
    """Retention goes on until so many lines are gone as were committed since the last look, and says each step."""
    monkeypatch.setattr(writer_thread, "UPKEEP_LINES", 5)
    world.journal.dues = [0.0] * 100
    world.begin(Commit(lines(1, 1)))
    assert world.journal.calls == ["append", "due", "prune", "checkpoint"]
    assert world.said() == [(1, 1), (1, 2)]
    world.then(Commit(lines(2, 3)))
    assert world.journal.pruned == 1
    world.then(Commit(lines(5, 2)))
    assert world.journal.pruned == 6
    assert world.said()[2:] == [(4, 2), (6, 2), (6, 3), (6, 4), (6, 5), (6, 6), (6, 7)]
    assert world.thread.stats().pruned == 6
    world.journal.per_step = 4
    world.then(Commit(lines(7, 5)))
    assert world.journal.pruned == 14


def test_retention_ends_when_nothing_is_due_any_more(world, lines):
    """Fewer lines than came, where the limits allow more; what is due in less than a second is not due."""
    world.journal.dues = [0.0, -1.0, 0.5]
    world.begin(Commit(lines(1, 8)))
    assert world.journal.calls == ["append", "due", "prune", "due", "prune", "due", "checkpoint"]


def test_retention_that_cannot_go_on_is_not_asked_for_ever(world, lines):
    """A step that takes nothing away is the last one for now, and nothing is said that did not change."""
    world.journal.dues, world.journal.per_step = [0.0] * 100, 0
    world.begin(Commit(lines(1, 8)))
    assert world.journal.calls == ["append", "due", "prune", "checkpoint"]
    assert world.said() == [(8, 1)]


def test_an_idle_thread_takes_one_step_at_a_time_and_sleeps_until_the_next(world, lines):
    """Nobody waits, which the checkpoint is told; a journal with nothing to do is waited for an hour at most."""
    world.begin(Commit(lines(1, 8)))
    assert world.idle == [IDLE_S]
    world.journal.dues = [0.0] * 3 + [7.5]
    world.idle_turns = 2
    world.then(Commit(lines(9, 1)))
    assert world.idle[1:] == [IDLE_S, 0.0, 0.0]
    assert world.journal.pruned == 2
    world.idle_turns = 3
    world.then(Commit(lines(10, 1)))
    assert world.idle[4:] == [IDLE_S, 0.0, 7.5, LONGEST_WAIT_S]
    assert world.journal.pruned == 3
    assert world.journal.checkpoints == [False] + [True] * 5


def test_an_idle_thread_wakes_when_it_is_time_to_sync(world, lines):
    """However long retention has nothing to do, and also while retention does not work."""
    world.begin(Commit(lines(1, 1)))
    world.journal.syncs, world.journal.dues = [4.0, 1.5], [7.5, JournalError("cannot take away")]
    world.idle_turns = 2
    world.then(Commit(lines(2, 1)))
    assert world.idle[1:] == [IDLE_S, 4.0, 1.5]


def test_a_sync_that_fails_is_said_until_one_works(world, lines):
    """Commits and the rest of the upkeep go on; only what is on the disk is not known."""
    world.journal.syncs = [JournalError("cannot sync"), 2.0]
    world.begin(Commit(lines(1, 1)))
    assert world.thread.stats().upkeep_trouble == "cannot sync"
    assert world.journal.calls == ["append", "due", "checkpoint"]
    world.clock.now = 10.0
    world.then(Commit(lines(2, 1)))
    assert world.thread.stats().upkeep_trouble == "cannot sync"
    world.clock.now = 20.0
    world.then(Commit(lines(3, 1)))
    assert world.thread.stats().upkeep_trouble is None


def test_upkeep_that_fails_is_said_in_the_counters_and_tried_again_later(world, lines):
    """Commits go on; idle or busy, nothing is asked of the journal until the pause is over."""
    world.journal.dues = [JournalError("cannot take away"), 5.0]
    world.begin(Commit(lines(1, 1)))
    assert world.thread.stats().upkeep_trouble == "cannot take away"
    assert world.thread.stats().trouble is None
    assert world.journal.calls == ["append", "due"]
    world.clock.now = 2.0
    world.idle_turns = 1
    world.then(Commit(lines(2, 1)))
    assert world.idle[-2:] == [IDLE_S, UPKEEP_RETRY_S - 2.0]
    assert world.journal.calls == ["append", "due", "append"]
    world.clock.now = UPKEEP_RETRY_S
    world.then(Commit(lines(3, 1)))
    assert world.journal.calls == ["append", "due", "append", "append", "due", "checkpoint"]
    assert world.thread.stats().upkeep_trouble is None
    told = [entry[1] for entry in world.loop.said if entry[0] == "notice"]
    assert [notice.details["state"] for notice in told] == ["upkeep_trouble", "upkeep_recovered"]
    assert told[0].details["reason"] == "cannot take away"


def test_upkeep_that_fails_again_and_again_is_told_of_now_and_then(world, lines):
    """A disk that is at its limit makes it fail and work by turns."""
    world.begin(Commit(lines(1, 1)))
    told = []
    for n in range(1, 300):
        world.journal.dues = [JournalError("busy")] if n % 2 else []
        world.clock.now = n * UPKEEP_RETRY_S
        world.then(Commit(lines(n + 1, 1)))
        told = [entry for entry in world.loop.said if entry[0] == "notice"]
    assert 2 <= len(told) <= 2 * (300 * UPKEEP_RETRY_S / UPKEEP_TELL_S + 1)


def test_a_commit_that_fails_is_tried_in_its_parts(world, lines):
    """A disk with little room takes a small one; then twice as many as worked before go together."""
    world.journal.append_errors = [JournalError("full"), JournalError("full")]
    world.begin(*(Commit(lines(n, 1)) for n in range(1, 10)))
    assert world.taken() == [[1], [2, 3], [4, 5, 6, 7], [8, 9]]
    assert world.thread.pending == 0


def test_what_is_made_behind_the_head_goes_on_while_nobody_waits(world, lines):
    """A piece at a time, with a pause as long; with nothing to do the thread sleeps as long as before."""
    world.journal.derives = [False, True, True, False]
    world.idle_turns = 4
    world.begin(Commit(lines(1, 1)))
    assert world.idle[:4] == [IDLE_S, PAUSE_S, PAUSE_S, world.idle[3]]
    assert world.idle[3] > PAUSE_S
    assert world.journal.derived[:4] == [DERIVE_BUSY_S, DERIVE_IDLE_S, DERIVE_IDLE_S, DERIVE_IDLE_S]


def test_what_is_made_behind_the_head_waits_while_lines_pour_in(world, lines):
    """Until they do not, which is looked for in time, or until too much is missing; how much is told."""
    world.journal.derives = [True] * 9
    world.journal.index_behind = 7
    world.idle_turns = 3
    world.begin(Commit(lines(1, int(BUSY_LINES_PER_S * WINDOW_S))))
    assert world.idle[1:3] == [WINDOW_S, WINDOW_S]
    assert world.journal.derived == []
    assert world.thread.stats().index_behind == 7
    world.journal.index_behind, world.idle_turns = MOST_BEHIND, 1
    world.then(Commit(lines(int(BUSY_LINES_PER_S * WINDOW_S) + 1, 1)))
    assert world.journal.derived


def test_an_error_of_what_is_made_behind_the_head_is_no_trouble(world, lines):
    """Commits go on, nobody is told, and it is left alone for a while; a lost journal is reopened."""
    world.journal.derives = [JournalError("no room")]
    world.begin(Commit(lines(1, 1)))
    world.then(Commit(lines(2, 1)))
    assert world.said() == [(1, 1), (2, 1)]
    world.journal.derives = [JournalLost("gone")]
    world.journal.reopenings = [["begun anew"]]
    world.clock.now += UPKEEP_RETRY_S
    world.then(Commit(lines(3, 1)))
    assert "reopen" in world.journal.calls


def test_an_idle_thread_whose_upkeep_fails_sleeps_for_the_pause(world, lines):
    """It does not ask again and again what does not work."""
    world.begin(Commit(lines(1, 1)))
    world.journal.dues = [JournalError("cannot take away")]
    world.clock.now = UPKEEP_S / 2
    world.idle_turns = 1
    world.then(Commit(lines(2, 1)))
    assert world.idle[-2:] == [IDLE_S, UPKEEP_RETRY_S]


def test_a_pause_that_ends_between_two_looks_at_the_clock_is_no_wait_of_less_than_nothing(world, lines):
    """Such a wait is an error, which would end the thread and the relay with it."""
    world.begin(Commit(lines(1, 1)))
    world.journal.dues = [JournalError("cannot take away")]
    world.clock.now, world.clock.step = UPKEEP_S / 2, UPKEEP_RETRY_S * 3 / 8
    world.idle_turns = 4
    world.then(Commit(lines(2, 1)))
    assert len(world.idle) >= 5
    assert min(world.idle) >= 0


def test_a_journal_that_upkeep_finds_lost_is_reopened(world, lines):
    """An empty commit wakes the thread for it, as one does for a reader."""
    world.journal.dues = [JournalLost("gone")]
    world.journal.reopenings = [["begun anew"]]
    world.begin(Commit(lines(1, 2)))
    assert world.journal.calls == ["append", "due", "reopen", "append"]
    assert world.said() == [(2, 1), "gone", ["begun anew"], (2, 11)]
    assert world.taken() == [[1, 2], []]
    assert world.thread.pending == 0


def test_upkeep_that_only_fails_reopens_nothing(world, lines):
    """An error that is no loss is not one of the file."""
    world.journal.dues = [JournalError("busy")]
    world.begin(Commit(lines(1, 2)))
    assert world.journal.calls == ["append", "due"]
    assert world.said()[0] == (2, 1)
    assert len(world.said()) == 2, "and it is told"
