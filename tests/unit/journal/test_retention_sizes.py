"""How much has to go for the size of the file, to the line and to the page, with a file that is only numbers."""

from __future__ import annotations

import pytest

from logrelay.journal import retention as module
from logrelay.journal.retention import VACUUM_FLOOR, VACUUM_PAGES, VACUUM_SHARE, Retention
from logrelay.journal.schema import PAGE_SIZE

BUDGET_PAGES = 800
DAY_US = 86_400_000_000
NOW_US = 1_769_162_400_000_000


class File:
    """Answers what retention asks SQLite, and notes what it takes away."""

    in_transaction = False

    def __init__(self, pages, free, mark=(1, NOW_US)):
        self.pages, self.free, self.mark = pages, free, mark
        self.deleted, self.vacuumed = [], []
        self.rowcount = 0

    def execute(self, sql, values=()):
        if sql.startswith("DELETE FROM lines"):
            self.deleted += values
        if "page_count" in sql:
            self.answer = (self.pages,)
        elif "freelist_count" in sql:
            self.answer = (self.free,)
        elif "SELECT last, relay_us" in sql:
            self.answer = self.mark
        elif "DESC" in sql:
            self.answer = (NOW_US,)  # the newest block: the clock has not leapt
        elif "FROM meta" in sql:
            self.answer = None
        elif "SELECT relay_us" in sql:
            self.answer = self.mark[1:]
        return self

    def fetchone(self):
        return self.answer

    def fetchall(self):
        return []

    def executescript(self, sql):
        self.vacuumed.append(sql)


def kept(file, *, oldest, head, budget=BUDGET_PAGES * PAGE_SIZE, now=NOW_US):
    """Make a retention that has read the file; the log takes its share of what is allowed."""
    allowed = min(budget * 8 // 7, budget + module.MOST_LOG)
    made = Retention(max_age_us=DAY_US, max_bytes=allowed, now_us=lambda: now, uptime_us=lambda: 0, clock=lambda: 0.0)
    assert made._budget == budget, "what the tests count with"
    made.load(file, oldest, head)
    return made


@pytest.mark.parametrize(
    ("pages", "free", "oldest", "head", "upto"),
    [
        (800, 0, 1, 1000, None),  # exactly what is allowed
        (900, 100, 1, 1000, None),  # free pages hold no lines
        (801, 0, 1, 1000, 2),  # a little too much: a line, the next one beside it
        (1000, 0, 1, 1000, 201),  # a fifth is too much: a fifth of the lines
        (1100, 100, 1, 1000, 201),
        (1000, 0, 501, 1500, 701),  # of those that are there
        (1000, 0, 501, 515, 504),  # of fifteen
        (1000, 0, 501, 509, 502),  # of nine, of which a fifth is nearly two
        (1000, 0, 500, 504, 501),  # of five, of which a fifth is one
        (1000, 0, 500, 503, 501),  # at least one
        (9000, 0, 1, 3, 2),  # the newest stays
        (9000, 0, 3, 3, None),
    ],
)
def test_the_share_of_the_file_that_is_too_much_is_that_of_the_lines(monkeypatch, pages, free, oldest, head, upto):
    """Rounded down, at least one, and never the newest line."""
    monkeypatch.setattr(module, "VACUUM_SHARE", 1)  # no page is given back
    file = File(pages, free)
    retention = kept(file, oldest=oldest, head=head)
    retention.step(file)

    assert file.deleted == ([] if upto is None else [upto])
    assert retention.oldest == (oldest if upto is None else upto + 1)
    assert type(retention.oldest) is int
    assert (kept(file, oldest=oldest, head=head).due(file) == 0.0) == (upto is not None)


def test_a_byte_too_much_is_too_much():
    """The budget need not be whole pages."""
    for budget, deleted in ((800 * PAGE_SIZE, []), (800 * PAGE_SIZE - 1, [2])):
        file = File(800, 0)
        kept(file, oldest=1, head=1000, budget=budget).step(file)
        assert file.deleted == deleted


@pytest.mark.parametrize("over", [0, 1, PAGE_SIZE])
def test_the_newest_line_goes_by_age_but_never_by_size(over):
    """A journal that is within its size may become empty; one beyond it must still say where it is in time."""
    file = File(800, 0, mark=(5, NOW_US - DAY_US))
    kept(file, oldest=1, head=5, budget=800 * PAGE_SIZE - over).step(file)
    assert file.deleted == [4 if over else 5]


def test_a_newest_line_that_has_to_stay_is_looked_at_again_soon():
    """It is old enough, and stays while the file is too large: never less than no time is left."""
    file = File(801, 0, mark=(5, NOW_US - 2 * DAY_US))

    assert kept(file, oldest=5, head=5).due(file) == pytest.approx(0.001, abs=1e-9)


@pytest.mark.parametrize(
    ("pages", "free", "given_back"),
    [
        (800, 50, 0),  # the floor of this budget is fifty pages
        (800, 51, 1),
        (800, 60, 10),
        (816, 51, 0),  # a sixteenth of the file
        (816, 52, 1),
        (831, 52, 1),
        (832, 53, 1),
        (800, 50 + VACUUM_PAGES, VACUUM_PAGES),
        (800, 51 + VACUUM_PAGES, VACUUM_PAGES),
    ],
)
def test_free_pages_are_given_back_above_a_share(pages, free, given_back):
    """Of the budget and of the file, a few at a time."""
    file = File(pages, free)
    retention = kept(file, oldest=1, head=1000)

    assert (retention.due(file) == 0.0) == (given_back > 0)
    assert retention.step(file) == (0, given_back)
    assert file.vacuumed == ([f"PRAGMA incremental_vacuum({given_back})"] if given_back else [])
    assert file.deleted == []


@pytest.mark.parametrize(("free", "given_back"), [(VACUUM_FLOOR, 0), (VACUUM_FLOOR + 1, 1)])
def test_a_large_journal_keeps_no_more_than_a_floor(free, given_back):
    """However large its budget is."""
    file = File(VACUUM_FLOOR * VACUUM_SHARE, free)
    budget = 7 * 2**30

    assert kept(file, oldest=1, head=1000, budget=budget).step(file) == (0, given_back)


@pytest.mark.parametrize(("budget_pages", "free", "given_back"), [(815, 50, 0), (815, 51, 1), (816, 51, 0)])
def test_the_floor_is_whole_pages(budget_pages, free, given_back):
    """Rounded down."""
    file = File(600, free)

    assert kept(file, oldest=1, head=9, budget=budget_pages * PAGE_SIZE).step(file) == (0, given_back)


@pytest.mark.parametrize(("age_s", "due"), [(0, 600.0), (86_000, 400.001), (86_399.5, 0.501), (86_399.9999, 0.0011)])
def test_something_is_due_when_the_oldest_block_is_old_enough(age_s, due):
    """A thousandth later, and at the latest in ten minutes."""
    file = File(1, 0, mark=(1, NOW_US - int(age_s * 1e6)))
    retention = kept(file, oldest=1, head=1000)

    assert retention.due(file) == pytest.approx(due, abs=1e-9)
