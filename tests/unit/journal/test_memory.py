"""The memory journal answers like the one on disk, within its bound."""

from __future__ import annotations

import pytest

from logrelay.errors import JournalError
from logrelay.journal import memory
from logrelay.journal.interface import Query
from logrelay.journal.memory import MemoryJournal
from logrelay.model import Commit

ALL = 1 << 60


@pytest.fixture
def journal():
    """An open journal of one megabyte, whose pages have all the time there is."""
    made = MemoryJournal(random_epoch=lambda: "abc123", max_bytes=1 << 20, clock=lambda: 0.0)
    assert made.open().head == 0
    return made


def test_the_oldest_lines_go_and_the_newest_stay(journal, fill):
    """Beyond the bound whole blocks go; what is left has no hole, `oldest` says where it begins."""
    fill(journal, 1, 20_000, batch=100)
    oldest = journal.prune()
    assert 15_000 < oldest < 20_000
    assert journal.disk_bytes() <= 1 << 20
    assert journal.pruned == oldest - 1
    page = journal.page(Query(0, ALL, 100_000, max_bytes=1 << 30))
    assert page.seqs == list(range(oldest, 20_001))
    assert (page.oldest, page.complete, page.reached) == (oldest, True, 20_000)
    assert journal.levels(1, ALL) == {20: 20_001 - oldest}
    assert journal.levels(oldest - 5, oldest + 5) == {20: 6}


@pytest.mark.parametrize("newest", [False, True])
def test_a_page_gets_somewhere_however_slow_the_machine_is(fill, newest):
    """Each look at the clock finds that the time of a page is over: the lines come one by one, and all come."""
    ticks = iter(range(10**6))
    journal = MemoryJournal(random_epoch=lambda: "abc123", clock=lambda: float(next(ticks)))
    journal.open()
    fill(journal, 1, 5)
    after, until, seqs = 0, 5, []
    for _ in range(5):
        page = journal.page(Query(after, until, 10, newest=newest))
        seqs += page.seqs
        after, until = (after, page.reached) if newest else (page.reached, until)
    assert sorted(seqs) == [1, 2, 3, 4, 5]


def test_pages_say_how_far_they_got(journal, fill):
    """Limits in lines and bytes, upwards and downwards, join without hole or repeat."""
    fill(journal, 1, 1500, batch=70)
    page = journal.page(Query(10, 90, 5))
    assert (page.seqs, page.reached, page.complete) == ([11, 12, 13, 14, 15], 15, False)
    page = journal.page(Query(10, 90, 5, newest=True))
    assert (page.seqs, page.reached, page.complete) == ([86, 87, 88, 89, 90], 85, False)
    page = journal.page(Query(10, ALL, 5, max_bytes=1))
    assert (page.seqs, page.reached) == ([11], 11)
    page = journal.page(Query(1500, ALL, 5))
    assert (page.seqs, page.reached, page.complete) == ([], 1500, True)
    found, below = [], ALL
    while below > 0:
        page = journal.page(Query(0, below, 333, newest=True))
        found, below = page.seqs + found, page.reached if not page.complete else 0
    assert found == list(range(1, 1501))


def test_the_time_of_a_page_is_bounded(fill):
    """With a clock that runs fast a page of rare matches ends early and goes on where it was."""
    journal = MemoryJournal(random_epoch=lambda: "abc123", clock=iter(n * 0.001 for n in range(10**7)).__next__)
    journal.open()
    fill(journal, 1, 1000)
    found, after, pages = [], 0, 0
    while True:
        page = journal.page(Query(after, ALL, 1000, since_us=1))
        found, after, pages = found + page.seqs, page.reached, pages + 1
        if page.complete:
            break
    assert found == list(range(1, 1001))
    assert pages >= 1000 * 0.001 / memory.PAGE_SECONDS


def test_what_does_not_follow_is_refused(journal, lines, run):
    """As on disk; and runs and aliases are remembered for a reopening."""
    journal.append(Commit(lines(1, 2), [run(1, last_seq=2)], ["prov01"]))
    with pytest.raises(JournalError):
        journal.append(Commit(lines(4, 2)))
    opening = journal.reopen()
    assert (opening.epoch, opening.head, opening.runs, opening.aliases) == (
        "abc123",
        2,
        [run(1, last_seq=2)],
        {"prov01"},
    )
    journal.close()
    with pytest.raises(JournalError):
        journal.page(Query(0, 1, 1))
