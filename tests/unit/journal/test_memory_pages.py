"""Pages, counts and bounds of the memory journal to the line and to the byte."""

from __future__ import annotations

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.journal import memory
from logrelay.journal.interface import Query
from logrelay.journal.memory import LINE_COST, MAX_BYTES, MemoryJournal
from logrelay.model import Commit

ALL = 1 << 60
BLOCK = 4


@pytest.fixture
def ticks():
    """What the journal's clock says next; the last value stays."""
    return [0.0]


@pytest.fixture
def journal(monkeypatch, ticks):
    """An open journal with blocks of four lines and a clock set by hand."""
    monkeypatch.setattr(memory, "BLOCK_LINES", BLOCK)
    monkeypatch.setattr(memory, "PAGE_SECONDS", 1 / 16)  # adds up exactly
    made = MemoryJournal(random_epoch=lambda: "abc123", clock=lambda: ticks.pop(0) if len(ticks) > 1 else ticks[0])
    made.open()
    return made


def answer(page):
    return page.seqs, page.reached, page.complete, page.oldest


class TestPages:
    @pytest.mark.parametrize(("after", "until"), [(0, 10), (3, 4), (4, 8), (3, 9), (0, 1), (9, 10), (7, 99)])
    def test_every_stretch_across_blocks(self, journal, lines, after, until):
        """Its ends count as `after < seq <= until`; bodies are those of the seqs."""
        written = lines(1, 10)
        journal.append(Commit(written))
        expected = list(range(after + 1, min(until, 10) + 1))

        page = journal.page(Query(after, until, 100))
        assert answer(page) == (expected, min(until, 10), True, 1)
        assert page.bodies == [written[seq - 1].body for seq in expected]
        page = journal.page(Query(after, until, 100, newest=True))
        assert answer(page) == (expected, after, True, 1)
        assert page.bodies == [written[seq - 1].body for seq in expected]

    def test_a_stretch_without_lines(self, journal, lines):
        """Nothing is found, and it has been looked at."""
        journal.append(Commit(lines(1, 5)))

        assert answer(journal.page(Query(9, 20, 1))) == ([], 9, True, 1)
        assert answer(journal.page(Query(3, 3, 1))) == ([], 3, True, 1)

    def test_the_limit_ends_a_page_at_the_line_before_the_next_one(self, journal, lines):
        """A page that has all it may have is complete only where no line is left."""
        journal.append(Commit(lines(1, 10)))

        assert answer(journal.page(Query(0, 10, 5))) == ([1, 2, 3, 4, 5], 5, False, 1)
        assert answer(journal.page(Query(0, 10, 5, newest=True))) == ([6, 7, 8, 9, 10], 5, False, 1)
        assert journal.page(Query(0, 10, 10)).complete
        assert journal.page(Query(0, 10, 10, newest=True)).complete

    def test_max_bytes_to_the_byte(self, journal, line):
        """What fits exactly is in the page; what does not ends it; the first line always comes."""
        written = [line(seq, message="x" * 100) for seq in range(1, 6)]
        journal.append(Commit(written))
        size = len(written[0].body)

        for newest, ends in ((False, ([1, 2], 2)), (True, ([4, 5], 3))):
            for room in (2 * size, 3 * size - 1):
                page = journal.page(Query(0, 5, 9, max_bytes=room, newest=newest))
                assert (page.seqs, page.reached, page.complete) == (*ends, False)
        assert journal.page(Query(0, 5, 9, max_bytes=5 * size)).complete
        assert journal.page(Query(0, 5, 9, max_bytes=1)).seqs == [1]

    def test_a_line_that_does_not_match_needs_no_room(self, journal, line):
        """A large one in between does not end the page."""
        small = line(1, level=40)
        journal.append(Commit([small, line(2, message="x" * 5000), line(3, level=40)]))

        page = journal.page(Query(0, 3, 9, Filter(40), max_bytes=2 * len(small.body)))
        assert answer(page) == ([1, 3], 3, True, 1)

    @pytest.mark.parametrize(("newest", "found", "reached"), [(False, [1, 2], 2), (True, [9, 10], 8)])
    def test_the_time_of_a_page_is_up_after_its_seconds(self, journal, lines, ticks, newest, found, reached):
        """Not when they are just over, only beyond; what was found by then is the page."""
        journal.append(Commit(lines(1, 10)))
        ticks[:] = [5.0, 5.0, 5.0 + memory.PAGE_SECONDS, 5.0 + 1.5 * memory.PAGE_SECONDS]

        assert answer(journal.page(Query(0, 10, 100, newest=newest))) == (found, reached, False, 1)

    def test_the_bounds_of_time_hold_for_notices_too(self, journal, line):
        """`since` is inclusive, `until` exclusive."""
        journal.append(Commit([line(seq, run=seq % 2, time_us=seq * 10) for seq in range(1, 6)]))

        assert journal.page(Query(0, 5, 9, since_us=20, until_us=40)).seqs == [2, 3]

    def test_filters_are_asked(self, journal, line):
        """Level, source, text and fields; a notice about lost lines passes them all."""
        journal.append(
            Commit(
                [
                    line(1, level=10, source="a", message="Alpha"),
                    line(2, level=40, source="b", message="beta", context={"k": 1}),
                    line(3, run=0, level=40, message="notice", context={"notice": "gap"}),
                    line(4, level=40, source="a", message="ALPHA", context={"k": 2}),
                ]
            )
        )
        for wanted, expected in (
            (Filter(), [1, 2, 3, 4]),
            (Filter(40), [2, 3, 4]),
            (Filter(sources=("a",)), [1, 3, 4]),
            (Filter(40, ("a",)), [3, 4]),
            (Filter(text="alpha"), [1, 3, 4]),
            (Filter(where=(("k", "1"),)), [2, 3]),
            (Filter(sources=("b",), text="alpha"), [3]),
        ):
            assert journal.page(Query(0, 9, 9, wanted)).seqs == expected


class TestBounds:
    def test_whole_blocks_go_when_the_bound_is_passed(self, monkeypatch, line):
        """Exactly at the bound all stay; the newest block stays whatever its size."""
        monkeypatch.setattr(memory, "BLOCK_LINES", BLOCK)
        cost = len(line(1).body) + LINE_COST
        journal = MemoryJournal(random_epoch=lambda: "abc123", max_bytes=8 * cost)
        journal.open()
        assert (journal.prune(), journal.disk_bytes(), journal.pruned) == (1, 0, 0)
        journal.append(Commit([line(seq) for seq in range(1, 9)]))
        assert (journal.prune(), journal.disk_bytes(), journal.pruned) == (1, 8 * cost, 0)
        journal.append(Commit([line(9)]))
        assert (journal.prune(), journal.disk_bytes(), journal.pruned) == (5, 5 * cost, 4)
        assert journal.page(Query(0, ALL, 9)).seqs == [5, 6, 7, 8, 9]
        journal.append(Commit([line(10, message="x" * 20 * cost)]))
        assert (journal.prune(), journal.pruned) == (9, 8)
        assert answer(journal.page(Query(2, ALL, 9))) == ([9, 10], 10, True, 9)

    def test_what_is_kept_when_nobody_says_otherwise(self):
        """The bound and the clock have defaults."""
        journal = MemoryJournal(random_epoch=lambda: "abc123")
        assert (journal._max_bytes, journal.due()) == (MAX_BYTES, float("inf"))

    @pytest.mark.parametrize(("first", "last"), [(1, 10), (4, 5), (3, 3), (5, 8), (0, 99), (9, 10), (11, 20)])
    def test_levels_are_counted_in_every_stretch(self, journal, line, first, last):
        """Ends included, in order of rank."""
        levels = {seq: 10 * (1 + seq % 3) for seq in range(1, 11)}
        journal.append(Commit([line(seq, level=level) for seq, level in levels.items()]))
        expected = {}
        for seq in range(max(first, 1), min(last, 10) + 1):
            expected[levels[seq]] = expected.get(levels[seq], 0) + 1

        counted = journal.levels(first, last)
        assert counted == expected
        assert list(counted) == sorted(counted)

    def test_forgotten_runs_go(self, journal, run):
        """Those that a commit names, and no others, however many there are."""
        journal.append(Commit(runs=[run(n, state="closed") for n in range(1, 31)]))
        journal.append(Commit(runs=[run(31)], forgotten=[(n, run(n).key) for n in range(3, 31)]))
        assert [r.id for r in journal.open().runs] == [1, 2, 31]


class TestOpening:
    def test_an_opening_says_what_is_there(self, journal, lines, run):
        """Copies: what the caller does to them changes nothing."""
        journal.append(Commit(lines(1, 3), [run(1)], ["abc123.x"]))
        for opening in (journal.open(), journal.reopen()):
            assert (opening.epoch, opening.oldest, opening.head, opening.notices) == ("abc123", 1, 3, [])
            assert (opening.runs, opening.aliases) == ([run(1)], {"abc123.x"})
            opening.runs.put(run(1, state="gone"))
            opening.aliases.clear()

    def test_what_does_not_follow_is_refused_in_words(self, journal, lines):
        """Nothing of it is kept; trying again is no use."""
        journal.append(Commit(lines(1, 3)))
        for wrong, said in (
            (lines(3, 2), "lines 3 to 4"),
            (lines(5, 1), "lines 5 to 5"),
            (lines(4, 2)[::-1], "lines 5 to 4"),
        ):
            with pytest.raises(JournalError) as caught:
                journal.append(Commit(wrong))
            assert str(caught.value) == f"{said} do not follow line 3 of the journal"
            assert caught.value.retry is False
        gap = [*lines(4, 1), *lines(6, 1)]
        with pytest.raises(JournalError):
            journal.append(Commit(gap))
        assert journal.page(Query(0, ALL, 9)).seqs == [1, 2, 3]

    @pytest.mark.parametrize(
        "use", [lambda j: j.page(Query(0, 1, 1)), lambda j: j.levels(1, 1), lambda j: j.append(Commit())]
    )
    def test_a_journal_that_is_not_open_says_so(self, journal, lines, use):
        """Before it is opened and after it was closed; trying again is no use. Closing forgets the lines."""
        journal.append(Commit(lines(1, 3)))
        journal.close()
        for closed in (journal, MemoryJournal(random_epoch=lambda: "abc123")):
            with pytest.raises(JournalError, match=r"^the journal is not open$") as caught:
                use(closed)
            assert caught.value.retry is False
        assert journal.disk_bytes() == 0
        assert (journal.open().oldest, journal.page(Query(0, ALL, 9)).seqs) == (4, [])
