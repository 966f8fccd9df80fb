"""`since` takes in the line of that very time, `until` leaves it out, wherever a block of lines begins or ends."""

from __future__ import annotations

import pytest

from logrelay.journal import memory, retention
from logrelay.journal.interface import Query
from logrelay.journal.memory import MemoryJournal
from logrelay.model import Commit

ALL = 1 << 60
BLOCK = 4
COUNT = 23


@pytest.fixture(params=["sqlite", "memory"])
def journal(request, journal_at, lines, monkeypatch):
    """Lines 1 to 23 at the times 10, 20, ... 230, in blocks of four."""
    monkeypatch.setattr(retention, "BLOCK_LINES", BLOCK)
    monkeypatch.setattr(memory, "BLOCK_LINES", BLOCK, raising=False)
    journal = journal_at() if request.param == "sqlite" else MemoryJournal(random_epoch=lambda: "abc123")
    journal.open()
    for seq in range(1, COUNT + 1):
        journal.append(Commit(lines(seq, 1, time_us=seq * 10)))
    return journal


def walk(journal, **kwargs):
    """Read blocks to the end of the stretch: a reader narrows to blocks and the caller asks for the exact times."""
    found, query = [], {"after": 0, "until": ALL, "limit": 1000} | kwargs
    page = journal.page(Query(**query))
    assert page.complete
    found += page.seqs
    return found


@pytest.mark.parametrize("seq", range(1, COUNT + 1))
def test_since_holds_the_line_of_that_time(journal, seq):
    """Also when it is the newest of its block."""
    assert walk(journal, since_us=seq * 10) == list(range(seq, COUNT + 1))


@pytest.mark.parametrize("seq", range(1, COUNT + 1))
def test_until_leaves_out_the_line_of_that_time(journal, seq):
    """Also when it is the oldest of its block."""
    assert walk(journal, until_us=seq * 10) == list(range(1, seq))
    assert walk(journal, until_us=seq * 10 + 1) == list(range(1, seq + 1))


def test_a_stretch_of_time_between_two_lines_is_empty(journal):
    """Nothing is found where nothing is, and that is all there is."""
    assert walk(journal, since_us=41, until_us=50) == []
    assert walk(journal, since_us=40, until_us=41) == [4]
    assert walk(journal, since_us=COUNT * 10 + 1) == []
    assert walk(journal, until_us=10) == []


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_a_line_is_found_by_the_clock_of_its_trader(kind, journal_at, line, monkeypatch):
    """A clock that was set back a day: the shown time rises on, and the search goes by what the clock said."""
    monkeypatch.setattr(retention, "BLOCK_LINES", BLOCK)
    monkeypatch.setattr(memory, "BLOCK_LINES", BLOCK, raising=False)
    journal = journal_at() if kind == "sqlite" else MemoryJournal(random_epoch=lambda: "abc123")
    journal.open()
    for seq in range(1, COUNT + 1):
        shown = line(seq, time_us=1_000 + seq)
        journal.append(Commit([shown._replace(clock_us=seq) if 9 <= seq <= 14 else shown]))
    assert walk(journal, since_us=9, until_us=13) == [9, 10, 11, 12]
    assert walk(journal, until_us=1_000) == [9, 10, 11, 12, 13, 14]
    assert walk(journal, since_us=1_000) == [*range(1, 9), *range(15, COUNT + 1)]
