"""A logger name given its number in a commit that failed keeps it, and is written with the commit that succeeds."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.journal.interface import Query
from logrelay.model import Commit
from tests.support.waiting import DEADLINE_S

ALL = 1 << 60


def by_source(journal, *sources):
    """Return the seqs of the lines of these loggers."""
    return journal.page(Query(0, ALL, 1000, filter=Filter(sources=sources))).seqs


@pytest.fixture
def refusing(journal_at):
    """Make the file refuse lines while the test says so, as a full disk does: names are written before them."""

    def switch(sql):
        with closing(sqlite3.connect(journal_at.path, isolation_level=None, timeout=DEADLINE_S)) as db:
            db.execute(sql)

    class Refusing:
        def __enter__(self):
            switch("CREATE TRIGGER no_lines BEFORE INSERT ON lines BEGIN SELECT RAISE(ABORT, 'no'); END")

        def __exit__(self, *_):
            switch("DROP TRIGGER no_lines")

    return Refusing()


def test_the_names_of_a_failed_commit_are_written_with_its_retry(journal_at, line, refusing):
    """Else they are missing from the file: after a restart a filter finds nothing, or the lines of another source."""
    journal = journal_at()
    journal.open()
    commit = Commit([line(1, source="a.one"), line(2, source="a.two")])
    with refusing, pytest.raises(JournalError):
        journal.append(commit)
    journal.append(commit)
    assert by_source(journal, "a.one") == [1]
    journal.close()
    journal = journal_at()
    journal.open()
    journal.append(Commit([line(3, source="b.new")]))
    assert by_source(journal, "a.one") == [1]
    assert by_source(journal, "a.two") == [2]
    assert by_source(journal, "b.new") == [3]


def test_names_of_several_failed_commits_come_together(journal_at, line, refusing):
    """The retry can be a larger commit than the one that failed: old names and new ones each keep their lines."""
    journal = journal_at()
    journal.open()
    first, second = line(1, source="z.first"), line(2, source="a.second")
    with refusing:
        for lines in ([first], [first], [first, second]):
            with pytest.raises(JournalError):
                journal.append(Commit(lines))
    journal.append(Commit([first, second]))
    journal.append(Commit([line(3, source="m.third"), line(4, source="z.first")]))
    journal.close()
    journal = journal_at()
    journal.open()
    assert by_source(journal, "z.first") == [1, 4]
    assert by_source(journal, "a.second") == [2]
    assert by_source(journal, "m.third") == [3]
