"""The SQLite journal keeps what it is given, once, in order, and gives it back however it is asked."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from logrelay.errors import ConfigError, JournalError
from logrelay.fanout.filters import Filter
from logrelay.fanout.positions import Epoch
from logrelay.journal import query as reading
from logrelay.journal.interface import Query
from logrelay.model import Commit

ALL = 1 << 60


def seqs(journal, **kwargs):
    """Read a stretch to its end, page by page."""
    given = {"after": 0, "until": ALL, "limit": 1000} | kwargs
    found = []
    while True:
        page = journal.page(Query(**given))
        found = page.seqs + found if given.get("newest") else found + page.seqs
        if page.complete:
            return found
        given["until" if given.get("newest") else "after"] = page.reached


def test_a_new_journal_is_empty_private_and_has_an_epoch(journal_at):
    """The directory (0700) and file (0600) are made; epoch from the source given, nothing in it."""
    journal = journal_at()
    opening = journal.open()
    assert (opening.epoch, opening.oldest, opening.head, opening.runs, opening.aliases, opening.notices) == (
        "abc123",
        1,
        0,
        [],
        set(),
        [],
    )
    path = Path(journal.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name(path.name + "-wal").stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    page = journal.page(Query(0, ALL, 10))
    assert (page.bodies, page.reached, page.complete, page.oldest) == ([], 0, True, 1)


def test_what_was_committed_is_there_after_reopening(journal_at, lines, run):
    """Lines, runs, aliases, epoch and head survive closing; bodies come back byte for byte."""
    journal = journal_at()
    journal.open()
    written = lines(1, 1234)
    journal.append(Commit(written[:1], [run(1, last_seq=1)]))
    journal.append(Commit(written[1:], [run(1, last_seq=1234, state="closed"), run(2)], ["prov01"]))
    journal.close()
    again = journal_at()
    opening = again.open()
    assert (opening.epoch, opening.earlier) == ("abc124", [Epoch("abc123", 1)])
    assert (opening.oldest, opening.head, opening.aliases) == (1, 1234, {"prov01"})
    assert opening.runs == [run(1, last_seq=1234, state="closed"), run(2)]
    page = again.page(Query(0, ALL, 5000))
    assert page.bodies == [line.body for line in written]
    assert page.seqs == list(range(1, 1235))
    assert (page.reached, page.complete, page.oldest) == (1234, True, 1)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 65, 511, 512, 513, 1100])
def test_every_batch_size_arrives_whole(journal_at, lines, count):
    """However many rows a statement holds, each line is in the journal once."""
    journal = journal_at()
    journal.open()
    written = lines(1, count, level=30) + lines(count + 1, 1, source="other")
    journal.append(Commit(written))
    assert journal.page(Query(0, ALL, 5000)).bodies == [line.body for line in written]
    assert journal.levels(1, ALL) == {20: 1, 30: count}


def test_a_commit_that_does_not_follow_is_refused_whole(journal_at, lines):
    """Holes and repeats are the caller's mistake: nothing is written, and trying again is no use."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 3)))
    for wrong in (lines(3, 2), lines(5, 2)):
        with pytest.raises(JournalError) as error:
            journal.append(Commit(wrong))
        assert not error.value.retry
    assert seqs(journal) == [1, 2, 3]


def test_pages_join_without_hole_or_repeat(journal_at, fill):
    """Any limit, upwards and downwards: the pages together are the stretch."""
    journal = journal_at()
    journal.open()
    fill(journal, 1, 3000)
    for limit in (1, 7, 999, 3000):
        assert seqs(journal, limit=limit, after=100, until=2900) == list(range(101, 2901))
        assert seqs(journal, limit=limit, after=100, until=2900, newest=True) == list(range(101, 2901))


def test_a_page_says_how_far_it_got(journal_at, fill):
    """`reached` and `complete` at the limit, at the end, and beyond the head."""
    journal = journal_at()
    journal.open()
    fill(journal, 1, 100)
    page = journal.page(Query(10, 90, 5))
    assert (page.seqs, page.reached, page.complete) == ([11, 12, 13, 14, 15], 15, False)
    page = journal.page(Query(10, 90, 5, newest=True))
    assert (page.seqs, page.reached, page.complete) == ([86, 87, 88, 89, 90], 85, False)
    page = journal.page(Query(95, ALL, 5))
    assert (page.seqs, page.reached, page.complete) == ([96, 97, 98, 99, 100], 100, True)
    page = journal.page(Query(100, ALL, 5))
    assert (page.seqs, page.reached, page.complete) == ([], 100, True)
    page = journal.page(Query(0, 3, 5, newest=True))
    assert (page.seqs, page.reached, page.complete) == ([1, 2, 3], 0, True)


def test_max_bytes_bounds_a_page_but_one_line_always_comes(journal_at, line):
    """A page ends before the line that would be too much; a line larger than the page comes alone."""
    journal = journal_at()
    journal.open()
    journal.append(Commit([line(n, message="x" * (50_000 if n == 4 else 500)) for n in range(1, 9)]))
    size = len(line(1, message="x" * 500).body)
    assert journal.page(Query(0, ALL, 100, max_bytes=2 * size)).seqs == [1, 2]
    assert journal.page(Query(0, ALL, 100, max_bytes=2 * size + 1)).seqs == [1, 2]
    page = journal.page(Query(3, ALL, 100, max_bytes=10))
    assert (page.seqs, page.reached, page.complete) == ([4], 4, False)
    assert seqs(journal, max_bytes=2 * size) == list(range(1, 9))
    assert seqs(journal, max_bytes=2 * size, newest=True) == list(range(1, 9))


def test_large_lines_are_read_within_the_memory_limit(journal_at, line):
    """When lines are suddenly a hundred times larger than before, SQLite's own limit halves the step."""
    journal = journal_at()
    journal.open()
    journal.append(Commit([line(n) for n in range(1, 2001)]))
    for first in range(2001, 2201, 50):
        journal.append(Commit([line(n, message="y" * 60_000) for n in range(first, first + 50)]))
    for newest in (False, True):
        assert seqs(journal, limit=5000, max_bytes=64 << 20, newest=newest) == list(range(1, 2201))


def test_filters_choose_lines_and_what_tells_of_others(journal_at, line):
    """Level, source, text and where; a notice about lost lines passes all of them."""
    journal = journal_at()
    journal.open()
    journal.append(
        Commit(
            [
                line(1, level=10, source="a.x", message="Alpha"),
                line(2, level=40, source="a.y", message="beta"),
                line(3, run=0, level=30, message="notice", context={"notice": "gap"}),
                line(4, level=30, source="b.x", context={"symbol": "MSFT"}),
                line(5, level=50, source="a.x", message="ALPHABET"),
            ]
        )
    )
    for wanted, expected in [
        (Filter(level=20), [2, 3, 4, 5]),
        (Filter(level=30), [2, 3, 4, 5]),
        (Filter(level=40), [2, 3, 5]),
        (Filter(level=50), [3, 5]),
        (Filter(sources=("a.*",)), [1, 2, 3, 5]),
        (Filter(sources=("nobody",)), [3]),
        (Filter(sources=(*(f"x{n}" for n in range(20)), "b.x")), [3, 4]),
        (Filter(level=40, sources=("a.?",), text="alpha"), [3, 5]),
        (Filter(text="ALPHA"), [1, 3, 5]),
        (Filter(where=(("symbol", "MSFT"),)), [3, 4]),
    ]:
        assert seqs(journal, filter=wanted) == expected, wanted
        assert seqs(journal, filter=wanted, newest=True, limit=1) == expected, wanted


def test_time_bounds_find_lines_of_a_trader_whose_clock_is_off(journal_at, lines, line):
    """since is inclusive and until exclusive, over blocks, also where times jump back."""
    journal = journal_at()
    journal.open()
    for start in range(1, 5001, 500):
        journal.append(Commit(lines(start, 500)))
    journal.append(Commit([line(5001, time_us=line(10).time_us)]))
    first, last = line(2000).time_us, line(2100).time_us
    assert seqs(journal, since_us=first, until_us=last) == list(range(2000, 2100))
    assert seqs(journal, since_us=first, until_us=last, newest=True, limit=30) == list(range(2000, 2100))
    assert seqs(journal, until_us=line(11).time_us) == [*range(1, 11), 5001]
    assert seqs(journal, since_us=line(9000).time_us) == []
    page = journal.page(Query(0, ALL, 10, since_us=line(9000).time_us))
    assert (page.reached, page.complete) == (5001, True)


def test_rare_matches_are_found_in_bounded_steps(journal_at, lines, line, monkeypatch):
    """When the time of a page is up it says how far it got, and the next one goes on from there."""
    journal = journal_at(clock=iter(n * 0.02 for n in range(10_000_000)).__next__)
    journal.open()
    for start in range(1, 20_001, 2000):
        journal.append(Commit(lines(start, 2000, message="nothing")))
    journal.append(Commit([line(20_001, message="needle", source="rare", level=50)]))
    monkeypatch.setattr(reading, "PAGE_SECONDS", 0.05)  # three looks at this journal's clock
    monkeypatch.setattr(reading, "FIRST_VISITS", 600)
    monkeypatch.setattr(reading, "MOST_VISITS", 600)
    page = journal.page(Query(0, ALL, 10, Filter(text="needle")))
    assert page.seqs == []
    assert not page.complete
    assert 0 < page.reached < 5000
    for newest in (False, True):
        assert seqs(journal, filter=Filter(text="needle"), newest=newest) == [20_001]
        assert seqs(journal, filter=Filter(sources=("robo*",), text="needle"), newest=newest) == []
        assert seqs(journal, filter=Filter(sources=("r*",), text="needle"), newest=newest) == [20_001]


def test_levels_counts_whole_blocks_and_ends(journal_at, line):
    """Counts of any stretch equal counting by hand."""
    journal = journal_at()
    journal.open()
    written = [line(n, level=10 * (1 + n * n % 5)) for n in range(1, 6001)]
    for start in range(0, 6000, 300):
        journal.append(Commit(written[start : start + 300]))
    for first, last in [(1, 6000), (2, 5999), (1025, 2048), (17, 17), (500, 5500), (5990, ALL), (7000, 8000)]:
        expected = {}
        for entry in written[first - 1 : min(last, 6000)]:
            expected[entry.level] = expected.get(entry.level, 0) + 1
        assert journal.levels(first, last) == expected


def test_any_sqlite_tool_reads_the_file_while_the_relay_runs(journal_at, line, run):
    """The view `log` needs no knowledge of ours, JSON functions work on it, and reading does not stop writing."""
    journal = journal_at()
    journal.open()
    journal.append(Commit([line(1, level=50, context={"symbol": "TSLA"}), line(2, run=0)], [run(1)]))
    with closing(sqlite3.connect(journal.path)) as tool:
        tool.execute("BEGIN")
        rows = tool.execute(
            "SELECT seq, time, level, source, message, context ->> 'symbol', app, pid FROM log ORDER BY seq"
        ).fetchall()
        journal.append(Commit([line(3)]))
        assert tool.execute("SELECT count(*) FROM log").fetchone() == (2,)
    assert rows[0] == (
        *(1, "2026-01-23T10:00:00.001000Z", "CRITICAL", "robo_trader.runner", "trade.executed", "TSLA"),
        *("robo_trader", 4242),
    )
    assert rows[1][3] == "logrelay"
    assert seqs(journal) == [1, 2, 3]


def test_bodies_changed_by_hand_are_still_read_in_order(journal_at, lines):
    """A newline somebody put into a body does not shift the other lines of the page."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 5)))
    with closing(sqlite3.connect(journal.path)) as tool, tool:
        tool.execute("UPDATE lines SET body = replace(body, ',', ',' || char(10)) WHERE seq IN (2, 4)")
    page = journal.page(Query(0, ALL, 10))
    assert page.seqs == [1, 2, 3, 4, 5]
    assert page.bodies[2] == lines(3, 1)[0].body
    assert not any(b"\n" in body for body in page.bodies)
    assert journal.page(Query(0, ALL, 2, newest=True)).seqs == [3, 4, 5]  # 4 is a notice: its line fails its checksum


def test_more_sources_than_numbers_are_still_filtered(journal_at, line, monkeypatch):
    """Beyond the bound a name gets no number, and its lines are found all the same."""
    monkeypatch.setattr("logrelay.journal.row_writer.MAX_SOURCES", 3)
    monkeypatch.setattr("logrelay.journal.filter_sql.MAX_SOURCES", 3)
    journal = journal_at()
    journal.open()
    journal.append(Commit([line(n, source=f"s{n}") for n in range(1, 8)]))
    journal.append(Commit([line(8, run=0, level=30, context={"notice": "gap"})]))
    assert seqs(journal, filter=Filter(sources=("s6", "s1"))) == [1, 6, 8]
    assert seqs(journal, filter=Filter(sources=("s6", "s1"), level=30)) == [8]


def test_a_durable_commit_syncs_whatever_the_setting(journal_at, lines):
    """With sync=normal a durable commit runs under synchronous=FULL, the next one under NORMAL again."""
    journal = journal_at()
    journal.open()
    seen = []
    journal._db.set_trace_callback(lambda sql: seen.append(sql) if "synchronous" in sql else None)
    journal.append(Commit(lines(1, 1)))
    journal.append(Commit(lines(2, 1), durable=True))
    journal.append(Commit(lines(3, 1)))
    assert seen == ["PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"]
    assert seqs(journal) == [1, 2, 3]


def test_aliases_are_bounded_and_runs_are_forgotten_when_a_commit_says_so(journal_at, run, monkeypatch):
    """The newest aliases stay; of the runs only those go that are named, in the file as in memory."""
    monkeypatch.setattr("logrelay.journal.row_writer.MAX_ALIASES", 3)
    journal = journal_at()
    journal.open()
    for n in range(1, 31):
        state = "connected" if n in (1, 2) else "crashed"
        journal.append(Commit(runs=[run(n, seen_us=n, state=state)], aliases=[f"prov{n:02}"]))
    journal.append(Commit(forgotten=[(n, run(n).key) for n in range(5, 31)]))
    assert [r.id for r in journal._row_writer.runs] == [1, 2, 3, 4]
    journal.close()
    opening = journal_at().open()
    assert [r.id for r in opening.runs] == [1, 2, 3, 4]
    assert opening.aliases == {"prov28", "prov29", "prov30"}


def test_limits_that_make_no_sense_are_config_errors(journal_at):
    """A journal smaller than a megabyte, or of an age below 0, is refused before anything is touched."""
    with pytest.raises(ConfigError):
        journal_at(max_bytes=1000)
    with pytest.raises(ConfigError):
        journal_at(max_age_s=-1)
    assert not journal_at.path.parent.exists()


def test_a_closed_journal_says_so(journal_at, lines):
    """Reading and writing after close is an error, not a crash; closing twice is fine."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 1)))
    journal.close()
    journal.close()
    with pytest.raises(JournalError):
        journal.page(Query(0, 1, 1))
    with pytest.raises(JournalError):
        journal.append(Commit(lines(2, 1)))
    assert not os.path.exists(journal.path + "-wal")
