"""A reopening that failed is tried again before anything is written."""

from __future__ import annotations

import threading

import pytest

from logrelay.errors import JournalError
from logrelay.journal import writer_thread
from logrelay.journal.interface import JournalLost
from logrelay.journal.memory import MemoryJournal
from logrelay.journal.writer_thread import Writer
from logrelay.model import Commit


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


@pytest.mark.parametrize("error", [JournalError("the disk is full"), JournalLost("still damaged")])
def test_nothing_is_appended_until_a_reopening_has_worked(lines, monkeypatch, error):
    """A failed attempt does not count: what is half open must not be written to."""
    monkeypatch.setattr(writer_thread, "FIRST_RETRY_S", 0.001)
    committed = threading.Event()
    journal = Lost([error, error])
    opening = journal.open()
    writer = Writer(
        journal,
        lambda function, *args: function(*args),
        on_committed=lambda upto, oldest: committed.set(),
        on_trouble=lambda error: None,
        on_recovered=lambda notices: None,
    )
    writer.start(opening.head, opening.oldest)
    try:
        writer.submit(Commit(lines(1, 1)))
        assert committed.wait(20)
    finally:
        writer.stop(5)
    assert journal.calls == ["append", "reopen", "reopen", "reopen", "append"]
