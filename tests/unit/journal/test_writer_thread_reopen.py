"""A reopening that failed is tried again before anything is written."""

from __future__ import annotations

import threading

import pytest

from logrelay.errors import JournalError
from logrelay.journal import writer_thread
from logrelay.journal.interface import JournalLost
from logrelay.journal.memory import MemoryJournal
from logrelay.journal.writer_thread import JournalThread
from logrelay.model import Commit
from tests.support.waiting import DEADLINE_S


class Lost(MemoryJournal):
    """A journal that is lost at the first append, and then cannot be reopened some times."""

    def __init__(self, errors):
        super().__init__(random_epoch=lambda: "abc123")
        self.errors = errors
        self.calls = []
        self.lost = True

    def append(self, commit):
        self.calls.append("append")
        if self.lost:
            self.lost = False
            raise JournalLost("gone")
        super().append(commit)

    def reopen(self):
        self.calls.append("reopen")
        if self.errors:
            raise self.errors.pop(0)
        return super().reopen()


class Reports:
    """Notes that a commit was reported."""

    def __init__(self):
        self.committed = threading.Event()

    def on_committed(self, upto, oldest):
        self.committed.set()

    def on_trouble(self, error):
        pass

    def on_notice(self, notice):
        pass

    def on_recovered(self, notices):
        pass

    def on_damaged(self, lines):
        pass


@pytest.mark.parametrize("error", [JournalError("the disk is full"), JournalLost("still damaged")])
def test_nothing_is_appended_until_a_reopening_has_worked(lines, monkeypatch, error):
    """A failed attempt does not count: what is half open must not be written to."""
    monkeypatch.setattr(writer_thread, "FIRST_RETRY_S", 0.001)
    reports = Reports()
    journal = Lost([error, error])
    thread = JournalThread(journal, journal.open(), reports, lambda function, *args: function(*args))
    thread.start()
    try:
        thread.submit(Commit(lines(1, 1)))
        assert reports.committed.wait(DEADLINE_S)
    finally:
        thread.stop(DEADLINE_S)
    assert journal.calls == ["append", "reopen", "reopen", "reopen", "append"]
