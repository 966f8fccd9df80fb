"""Lines read as rows, whole, with who logged them."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from logrelay.journal.memory import MemoryJournal
from logrelay.model import Commit, run_name


@pytest.fixture(params=["sqlite", "memory"])
def journal(request, journal_at, fill):
    made = journal_at() if request.param == "sqlite" else MemoryJournal(random_epoch=lambda: "abc123")
    made.open()
    yield made
    if request.param == "memory":
        made.close()


def walk(journal, after=0, max_bytes=3000):
    """Return all pages."""
    pages, head = [], None
    while head is None or pages[-1].reached < head:
        pages.append(journal.rows(after, max_bytes=max_bytes))
        assert pages[-1].reached > after or not pages[-1].seqs
        if pages[-1].reached == after:
            break
        after = pages[-1].reached
        head = head or 10**9
    return pages


def test_every_line_comes_once_with_who_logged_it(journal, line, run):
    """Pages of any size should together be the journal: levels, times, origins, bodies."""
    rows = [
        line(seq, level=(10, 20, 30, 40, 50)[seq % 5], source=f"logger{seq % 3}", run=seq % 3) for seq in range(1, 101)
    ]
    journal.append(Commit(rows, [run(1), run(2)]))

    pages = walk(journal)

    got = [
        (seq, rank, time_us, page.origins[place], body)
        for page in pages
        for seq, rank, time_us, place, body in zip(
            page.seqs, page.ranks, page.times, page.places, page.bodies, strict=True
        )
    ]
    assert [(seq, rank, time_us, body) for seq, rank, time_us, _, body in got] == [
        (row.seq, row.level, row.time_us, row.body) for row in rows
    ]
    assert len(pages) > 5
    for row, (_, _, _, origin, _) in zip(rows, got, strict=True):
        assert (origin.app, origin.source) == (row.app, row.source)
        assert origin.host == ("host" if row.run else "")
    assert all(sum(map(len, page.bodies)) <= 3000 for page in pages)


def test_a_line_that_is_larger_than_a_page_comes_alone(journal, line):
    """Whoever asks for little should get on all the same."""
    journal.append(Commit([line(1, message="x" * 9000), line(2)]))

    assert [page.seqs for page in walk(journal, max_bytes=100)][:2] == [[1], [2]]


def test_at_the_head_there_is_nothing(journal, lines):
    """Nothing behind the newest line should be no error."""
    journal.append(Commit(lines(1, 5)))

    page = journal.rows(5, max_bytes=1000)

    assert (page.seqs, page.reached, page.oldest) == ([], 5, 1)


def sqlite_journal(journal_at, *rows, runs=()):
    journal = journal_at()
    journal.open()
    journal.append(Commit(list(rows), list(runs)))
    return journal


def test_the_name_of_the_run_is_the_one_that_viewers_see(journal_at, line, run):
    """The key of a run should not go to other machines, its name should."""
    journal = sqlite_journal(journal_at, line(1), runs=[run(1)])

    assert journal.rows(0, max_bytes=1000).origins[0].run_name == run_name(run(1).key)


def test_a_run_that_is_forgotten_is_read_from_the_line(journal_at, line):
    """Without its row the line itself should say app and run."""
    journal = sqlite_journal(journal_at, line(1, run=7))

    origin = journal.rows(0, max_bytes=1000).origins[0]

    assert (origin.app, origin.run_name, origin.host) == ("robo_trader", f"{7:032x}", "")


def test_damaged_and_purged_lines_are_holes(journal_at, lines, line):
    """What cannot be trusted should be a hole with its cause, and never be passed on."""
    journal = sqlite_journal(journal_at, *lines(1, 9))
    journal.purge([4, 5])
    with contextlib.closing(sqlite3.connect(journal.path)) as db, db:
        db.execute("UPDATE lines SET body = replace(CAST(body AS TEXT), 'trade', 'fraud') WHERE seq = 7")
    db.close()

    page = journal.rows(0, max_bytes=100_000)

    assert page.seqs == [1, 2, 3, 6, 8, 9, 10]
    assert page.holes == [(4, 5, "purged"), (7, 7, "corrupt")]
    assert not any(b"fraud" in body for body in page.bodies)


def test_a_newline_in_a_body_breaks_no_page(journal_at, lines):
    """Somebody's sqlite3 shell may have put one there: the line is damaged, the others are not."""
    journal = sqlite_journal(journal_at, *lines(1, 4))
    with contextlib.closing(sqlite3.connect(journal.path)) as db, db:
        db.execute("UPDATE lines SET body = replace(CAST(body AS TEXT), ',', ',' || char(10)) WHERE seq = 2")
    db.close()

    page = journal.rows(0, max_bytes=100_000)

    assert (page.seqs, page.holes) == ([1, 3, 4], [(2, 2, "corrupt")])


def test_what_retention_has_taken_shows_in_oldest(journal_at, lines, fill):
    """Whoever was behind should see from where on lines are kept."""
    journal = journal_at(max_bytes=1 << 20)
    journal.open()
    for first in range(1, 6001, 500):
        journal.append(Commit(lines(first, 500)))
    while journal.due() <= 0:
        journal.prune()

    page = journal.rows(0, max_bytes=1000)

    assert page.oldest > 1
    assert page.seqs[0] == page.oldest
