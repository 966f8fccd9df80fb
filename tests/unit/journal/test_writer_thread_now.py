"""Commits made on the loop while the journal's thread rests: when, and what the thread still does for them."""

from __future__ import annotations

import threading

import pytest

from logrelay.errors import JournalError
from logrelay.journal import writer_thread
from logrelay.journal.memory import MemoryJournal
from logrelay.journal.quick_commits import TRUSTED_AFTER
from logrelay.journal.writer_thread import JournalThread
from logrelay.model import Commit
from tests.support.waiting import DEADLINE_S, wait_for


class Watched(MemoryJournal):
    """Notes who appends, can be held up and fail, and has something to sync after each commit of the loop."""

    def __init__(self):
        super().__init__(random_epoch=lambda: "k3f9ab")
        self.by = []
        self.free = threading.Event()
        self.free.set()
        self.in_append = threading.Event()
        self.error = None
        self.failed = 0
        self.unsynced = 0
        self.synced = threading.Event()
        self.sync_in = 0.01

    def append(self, commit):
        self.in_append.set()
        assert self.free.wait(DEADLINE_S)
        super().append(commit)
        self.by.append("thread")

    def append_now(self, commit):
        if self.error is not None:
            self.failed += 1
            raise self.error
        super().append(commit)
        self.by.append("loop")
        self.unsynced += 1
        return True

    def sync(self):
        if not self.unsynced:
            return float("inf")
        if self.sync_in:
            wait, self.sync_in = self.sync_in, 0.0
            return wait
        self.unsynced = 0
        self.synced.set()
        return float("inf")

    def due(self):
        return float("inf")


class Loop:
    def __init__(self):
        self.committed = []

    def call(self, function, *args):
        function(*args)

    def on_committed(self, upto, oldest):
        self.committed.append(upto)

    def on_trouble(self, error):
        """Not looked at here."""


@pytest.fixture
def journal():
    return Watched()


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def thread(journal, loop):
    # No time passes for it: a thread that is held up between two looks at a clock would be a disk that is slow.
    made = JournalThread(journal, journal.open(), loop, loop.call, clock=lambda: 100.0)
    made.start()
    yield made
    journal.free.set()
    made.stop(DEADLINE_S)


def trust(thread, lines, loop):
    for n in range(1, TRUSTED_AFTER + 1):
        assert not thread.commit_now(Commit(lines(n, 1)), 100)
        thread.submit(Commit(lines(n, 1)))
        wait_for(lambda n=n: n in loop.committed and not thread.pending, "the commit is reported")


def on_loop(thread, commit):
    """Make a commit on the loop, as soon as the thread has done what it does between commits."""
    wait_for(lambda: thread.commit_now(commit, 100), "the thread rests")


def test_the_loop_commits_once_the_disk_was_quick(thread, journal, loop, lines):
    """Nothing is reported of it; the counters know it."""
    trust(thread, lines, loop)
    first = TRUSTED_AFTER + 1
    on_loop(thread, Commit(lines(first, 2)))
    assert journal.by[-1] == "loop"
    assert loop.committed[-1] == TRUSTED_AFTER
    assert (thread.head, thread.oldest) == (first + 1, 1)
    stats = thread.stats()
    assert (stats.commits, stats.lines, stats.pending_commits) == (TRUSTED_AFTER + 1, first + 1, 0)


def test_the_thread_syncs_what_the_loop_has_committed(thread, journal, loop, lines):
    """It is woken for that by the first commit, though nothing is handed in."""
    trust(thread, lines, loop)
    wait_for(lambda: thread._wakes_at - thread._clock() > 100, "the thread has nothing to do for long")
    on_loop(thread, Commit(lines(TRUSTED_AFTER + 1, 1)))
    assert journal.synced.wait(DEADLINE_S)


def test_nothing_overtakes_what_waits(thread, journal, loop, lines):
    """While the thread writes, or has something to write, the loop does not wait for it, and hands in."""
    trust(thread, lines, loop)
    journal.free.clear()
    journal.in_append.clear()
    first = TRUSTED_AFTER + 1
    thread.submit(Commit(lines(first, 1)))
    assert not thread.commit_now(Commit(lines(first + 1, 1)), 100)
    assert journal.in_append.wait(DEADLINE_S)
    assert not thread.commit_now(Commit(lines(first + 1, 1)), 100)
    thread.submit(Commit(lines(first + 1, 1)))
    journal.free.set()
    wait_for(lambda: loop.committed[-1] == first + 1, "both are written")


def test_a_failure_is_left_to_the_thread(thread, journal, loop, lines):
    """Which meets it itself and reports it; and the disk has to earn its trust again."""
    trust(thread, lines, loop)
    commit = Commit(lines(TRUSTED_AFTER + 1, 1))
    journal.error = JournalError("busy")

    def meets_the_error():  # as soon as the thread has done what it does between commits
        assert not thread.commit_now(commit, 100)
        return journal.failed

    wait_for(meets_the_error, "the loop's own attempt")
    journal.error = None
    assert not thread.commit_now(commit, 100)
    thread.submit(commit)
    wait_for(lambda: loop.committed[-1] == TRUSTED_AFTER + 1, "it is written")


def test_much_is_looked_after_at_once(thread, journal, loop, lines, monkeypatch):
    """After so many lines retention has its turn, whenever the next sync is."""
    monkeypatch.setattr(writer_thread, "UPKEEP_LINES", 3)
    trust(thread, lines, loop)
    asked = threading.Event()
    monkeypatch.setattr(journal, "checkpoint", lambda *, idle: asked.set())
    journal.sync_in = 1000.0
    for n in range(1, 4):
        on_loop(thread, Commit(lines(TRUSTED_AFTER + n, 1)))
    assert asked.wait(DEADLINE_S)


def test_nothing_is_committed_on_the_loop_after_the_stop(thread, loop, lines):
    trust(thread, lines, loop)
    thread.stop(DEADLINE_S)
    assert not thread.commit_now(Commit(lines(TRUSTED_AFTER + 1, 1)), 100)
