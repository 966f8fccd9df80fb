"""The walk through the lines, on a file made by hand: its steps, its ends, and where each bound is kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import orjson
import pytest

from logrelay.fanout.filters import Filter
from logrelay.journal import filter_sql, query, schema
from logrelay.journal.checksums import line_crc
from logrelay.journal.interface import Query
from logrelay.journal.query import Reader, bounds, count_levels
from logrelay.model import ERROR, INFO, RELAY_SOURCE

ALL = 1 << 60
APP = "bot"
NAMES = {("a", APP): 1, ("b", APP): 2}
BLOCK = 10
BODY = 200
"""Every body has as many bytes, unless a test says otherwise."""


def body(seq, source="a", message="m", size=BODY, context=None):
    shape = {"seq": seq, "source": source, "message": message, "context": context or {}, "app": APP, "pad": ""}
    shape["pad"] = "x" * (size - len(orjson.dumps(shape)))
    made = orjson.dumps(shape)
    assert len(made) == size
    return made


class Clock:
    """Goes on by as much at every look."""

    def __init__(self):
        self.now, self.tick = 0.0, 0.0

    def __call__(self):
        self.now += self.tick
        return self.now - self.tick


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The file of an empty journal whose numbers go on from 7."""
    path = tmp_path_factory.mktemp("empty") / "journal.db"
    schema.create(str(path), epoch="abc123", base=7, created_us=0)
    return path.read_bytes()


@pytest.fixture
def db(empty, tmp_path):
    """A copy of it, open; nothing waits for the disk."""
    (tmp_path / "journal.db").write_bytes(empty)
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        yield db


@pytest.fixture
def fill(db):
    """Write lines of (level, source, body), 1 and on, at times 10, 20, ..., with a mark for each block of ten."""

    def write(rows):
        db.execute("BEGIN")
        for at, (level, source, text) in enumerate(rows):
            seq = at + 1
            number = 0 if source == RELAY_SOURCE else NAMES.get((source, APP), schema.OVERFLOW_SOURCE)
            columns = (seq * 10, level, number, int(number != 0))
            db.execute(
                "INSERT INTO lines VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?)",
                (seq, *columns, text, line_crc(seq, *columns, text)),
            )
        for first in range(1, len(rows) + 1, BLOCK):
            block = rows[first - 1 : first - 1 + BLOCK]
            last = first + len(block) - 1
            counts = [sum(level == rank for level, _, _ in block) for rank in (10, 20, 30, 40, 50)]
            db.execute(
                "INSERT INTO marks VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (first, last, first * 10, last * 10, *counts),
            )
        db.execute("COMMIT")

    return write


@pytest.fixture
def clock(monkeypatch):
    """It stands still. The seconds are fractions that add up exactly."""
    monkeypatch.setattr(query, "PAGE_SECONDS", 1 / 16)
    monkeypatch.setattr(query, "STEP_SECONDS", 1 / 64)
    return Clock()


@pytest.fixture
def reader(clock):
    """A reader with the names of the file."""
    return Reader(lambda: NAMES, clock)


@pytest.fixture
def steps(db):
    """The SELECTs that read bodies, with their values, as SQLite gets them."""
    seen = []
    db.set_trace_callback(lambda sql: seen.append(sql) if "group_concat" in sql else None)
    return seen


def some(count, **kwargs):
    return [(INFO, "a", body(seq, **kwargs)) for seq in range(1, count + 1)]


def answer(page):
    return page.seqs, page.reached, page.complete, page.oldest


class TestBounds:
    def test_a_journal_without_lines_goes_on_from_its_base(self, db, reader):
        """What was never there cannot be read; levels neither."""
        assert bounds(db) == (8, 7)
        assert answer(reader.page(db, Query(0, ALL, 9))) == ([], 7, True, 8)
        assert count_levels(db, 1, ALL) == {}

    def test_a_journal_that_lost_all_its_lines_knows_its_head(self, db, fill):
        """From the marks, which outlive the lines they count."""
        fill(some(25))
        assert bounds(db) == (1, 25)
        db.execute("DELETE FROM lines WHERE seq <= 4")
        assert bounds(db) == (5, 25)
        db.execute("DELETE FROM lines")
        assert bounds(db) == (26, 25)

    def test_a_read_ends_its_transaction_whatever_happens(self, db, fill, reader):
        """Else it would hold up the write-ahead log for ever."""
        fill(some(3))
        reader.page(db, Query(0, ALL, 9))
        assert not db.in_transaction
        count_levels(db, 1, 3)
        assert not db.in_transaction
        db.execute("DROP TABLE lines")
        for read in (lambda: reader.page(db, Query(0, ALL, 9)), lambda: count_levels(db, 1, 3)):
            with pytest.raises(sqlite3.OperationalError):
                read()
            assert not db.in_transaction

    def test_a_page_is_read_in_one_transaction(self, db, fill, reader, tmp_path):
        """A line that comes while it is read is not in it, nor in what it says it reached."""
        fill(some(3))
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as writer:

            def names():
                writer.execute(
                    "INSERT INTO lines VALUES (4, 40, 20, 1, 1, '{}', ?)", (line_crc(4, 40, 20, 1, 1, b"{}"),)
                )
                return NAMES

            assert answer(Reader(names, Clock()).page(db, Query(0, ALL, 9))) == ([1, 2, 3], 3, True, 1)
        assert reader.page(db, Query(0, ALL, 9)).seqs == [1, 2, 3, 4]


class TestPages:
    @pytest.mark.parametrize(("after", "until"), [(0, 30), (4, 20), (7, 8), (7, 7), (29, 99), (30, 99), (40, 50)])
    @pytest.mark.parametrize("limit", [1, 3, 100])
    @pytest.mark.parametrize("newest", [False, True])
    def test_pages_join_to_the_stretch(self, db, fill, reader, after, until, limit, newest):
        """Each says how far it got; the last one is complete; bodies are those of the seqs."""
        fill(some(30))
        expected = list(range(after + 1, min(until, 30) + 1))
        found, low, high = [], after, until
        while True:
            page = reader.page(db, Query(low, high, limit, newest=newest))
            assert page.bodies == [body(seq) for seq in page.seqs]
            assert len(page.seqs) <= limit
            found = page.seqs + found if newest else found + page.seqs
            if page.complete:
                break
            assert page.reached == (page.seqs[0] - 1 if newest else page.seqs[-1])
            low, high = (low, page.reached) if newest else (page.reached, high)
        assert found == expected
        assert page.reached == (after if newest else max(after, min(until, 30)))

    def test_a_page_of_no_lines_got_nowhere(self, db, fill, reader):
        """From where it began."""
        fill(some(5))
        db.execute("DELETE FROM lines WHERE seq = 1")
        assert answer(reader.page(db, Query(0, 4, 0))) == ([], 1, False, 2)
        assert answer(reader.page(db, Query(0, 4, 0, newest=True))) == ([], 4, False, 2)

    @pytest.mark.parametrize("newest", [False, True])
    def test_max_bytes_to_the_byte(self, db, fill, reader, newest):
        """What fits exactly is in; the first line always comes; a page that is full is not complete."""
        fill(some(6))

        def count(room):
            page = reader.page(db, Query(0, ALL, 100, newest=newest, max_bytes=room))
            assert page.complete == (len(page.seqs) == 6)
            if not page.complete:
                assert page.reached == (6 - len(page.seqs) if newest else len(page.seqs))
            return len(page.seqs)

        rooms = (1, BODY - 1, BODY, 2 * BODY - 1, 2 * BODY, 3 * BODY + 1, 6 * BODY - 1, 6 * BODY)
        assert [count(room) for room in rooms] == [1, 1, 1, 1, 2, 3, 5, 6]
        for _ in range(30):
            assert count(3 * BODY) == 3, "whatever size of lines it has come to expect"

    def test_a_large_line_ends_the_page_before_it_and_comes_alone(self, db, fill, reader):
        """In both directions."""
        fill([(INFO, "a", body(seq, size=50_000 if seq == 4 else BODY)) for seq in range(1, 8)])

        for newest, before, rest in ((False, [1, 2, 3], 3), (True, [5, 6, 7], 4)):
            page = reader.page(db, Query(0, ALL, 100, newest=newest, max_bytes=10 * BODY))
            assert (page.seqs, page.reached) == (before, rest)
            after, until = (0, page.reached) if newest else (page.reached, ALL)
            page = reader.page(db, Query(after, until, 100, newest=newest, max_bytes=10 * BODY))
            assert (page.seqs, page.complete) == ([4], False)

    def test_steps_follow_the_size_of_the_lines(self, db, fill, reader, steps, monkeypatch):
        """Once it is known, a step asks for about as many as it may hold, and never more than the limit."""
        monkeypatch.setattr(query, "STEP_BYTES", 10 * BODY)
        fill(some(60))
        for _ in range(12):
            reader.page(db, Query(0, ALL, 100))
        steps.clear()
        page = reader.page(db, Query(0, ALL, 100))
        assert page.seqs == list(range(1, 61))
        assert page.bodies == [body(seq) for seq in page.seqs], "of every step"
        assert all("LIMIT 11" in sql for sql in steps[:-1])
        steps.clear()
        reader.page(db, Query(0, ALL, 4))
        assert len(steps) == 1
        assert "LIMIT 4" in steps[0]

    def test_the_time_of_a_page_is_up(self, db, fill, reader, clock, steps, monkeypatch):
        """After a step that ends at its seconds or beyond, no other begins."""
        monkeypatch.setattr(query, "STEP_BYTES", 1)
        fill(some(10))
        clock.tick = query.PAGE_SECONDS / 2
        assert answer(reader.page(db, Query(0, ALL, 100))) == ([1, 2], 2, False, 1)
        clock.tick = query.PAGE_SECONDS / 2 * 0.99
        assert reader.page(db, Query(0, ALL, 100)).seqs == [1, 2, 3]


class TestWindows:
    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch):
        monkeypatch.setattr(query, "FIRST_VISITS", 4)
        monkeypatch.setattr(query, "FEWEST_VISITS", 3)
        monkeypatch.setattr(query, "MOST_VISITS", 20)

    @pytest.mark.parametrize(
        "wanted",
        [Filter(text="needle"), Filter(INFO, text="needle"), Filter(sources=("b",), text="needle"), Filter(ERROR)],
    )
    @pytest.mark.parametrize("newest", [False, True])
    @pytest.mark.parametrize("limit", [1, 100])
    @pytest.mark.parametrize("tick", [0.0, 1e-4, 0.01])
    def test_rare_matches_are_all_found(self, db, fill, reader, clock, wanted, newest, limit, tick):
        """Step by step, whether SQLite goes by seq or by an index, and however fast it is."""
        rows = []
        for seq in range(1, 61):
            needle = seq in (1, 17, 18, 60)
            rows.append((ERROR if needle or (seq % 9 == 0 and wanted.text) else INFO, "b" if needle or seq % 4 else "a",
                         body(seq, message="a Needle" if needle else "hay")))  # fmt: skip
        fill(rows)
        clock.tick = tick
        found, low, high = [], 0, ALL
        while True:
            page = reader.page(db, Query(low, high, limit, wanted, newest=newest))
            found = page.seqs + found if newest else found + page.seqs
            if page.complete:
                break
            low, high = (low, page.reached) if newest else (page.reached, high)
        assert found == [1, 17, 18, 60]

    @pytest.mark.parametrize(("newest", "reached"), [(False, 4), (True, 56)])
    @pytest.mark.parametrize(
        "wanted", [Filter(text="needle"), Filter(sources=("a",), text="needle"), Filter(40, text="n")]
    )
    def test_the_first_step_looks_at_so_many_lines(self, db, fill, reader, clock, newest, reached, wanted):
        """And when it took too long the page ends there."""
        fill([(ERROR, "a", body(seq, message="hay")) for seq in range(1, 61)])
        clock.tick = query.PAGE_SECONDS
        assert answer(reader.page(db, Query(0, ALL, 9, wanted, newest=newest))) == ([], reached, False, 1)

    @pytest.mark.parametrize(
        ("seconds", "windows"),
        [
            (1 / 64, [4, 4, 4]),
            (1 / 32, [4, 3, 3]),
            (1 / 128, [4, 8, 16, 20]),
            (0.0, [4, 16, 20, 20]),
        ],
    )
    def test_steps_adapt_to_the_speed(self, db, fill, reader, clock, steps, seconds, windows):
        """Towards the time that a step aims at, at most four times as far as before, and within bounds."""
        fill([(INFO, "a", body(seq, message="hay")) for seq in range(1, 61)])
        clock.tick = seconds
        page = reader.page(db, Query(0, ALL, 9, Filter(text="needle")))
        ends = [int(sql.partition("seq <= ")[2].split()[0]) for sql in steps]

        assert [b - a for a, b in zip([0, *ends], ends, strict=False)][: len(windows)] == windows[: len(ends)]
        assert page.reached == ends[-1]


class TestTimes:
    @pytest.mark.parametrize(
        ("since", "until", "first", "last"),
        [(250, None, 20, 40), (None, 140, 0, 20), (250, 260, 20, 30), (100, 110, 0, 10), (101, 111, 10, 20),
         (None, 110, 0, 10), (None, 111, 0, 20)],
    )  # fmt: skip
    def test_only_blocks_that_can_hold_the_time_are_walked(self, db, fill, reader, steps, since, until, first, last):
        """Their marks tell; at the times 10, 20, ... a block of ten lines ends at a hundred."""
        fill(some(40))
        expected = [s for s in range(1, 41) if (since or 0) <= s * 10 < (until or ALL)]

        assert reader.page(db, Query(0, ALL, 100, since_us=since, until_us=until)).seqs == expected
        assert f"seq > {first} AND seq <= {last} " in steps[0]

    def test_a_stretch_of_another_time_is_not_walked_at_all(self, db, fill, reader, steps):
        """It has been looked at, all the same."""
        fill(some(40))

        assert answer(reader.page(db, Query(3, 30, 9, since_us=401))) == ([], 30, True, 1)
        assert answer(reader.page(db, Query(3, 30, 9, until_us=10, newest=True))) == ([], 3, True, 1)
        assert answer(reader.page(db, Query(3, 20, 9, since_us=201, until_us=300))) == ([], 20, True, 1)
        assert steps == []

    def test_times_before_1970_are_times(self, db, fill, reader):
        """A clock may be that far off; without `since` there is no first one."""
        fill(some(3))
        for seq, time_us, *columns, text in db.execute(
            "SELECT seq, time_us, level, source, run, body FROM lines"
        ).fetchall():
            crc = line_crc(seq, -time_us, *columns, text.encode())
            db.execute("UPDATE lines SET time_us = ?, crc = ? WHERE seq = ?", (-time_us, crc, seq))
        db.execute("UPDATE marks SET min_us = -30, max_us = -10")

        assert reader.page(db, Query(0, ALL, 9, until_us=-10)).seqs == [2, 3]

    def test_a_stretch_ends_within_a_block(self, db, fill, reader, steps):
        """The narrower of both bounds counts."""
        fill(some(40))

        assert reader.page(db, Query(12, 17, 9, since_us=110, until_us=300)).seqs == [13, 14, 15, 16, 17]
        assert "seq > 12 AND seq <= 17 " in steps[0]
        assert reader.page(db, Query(20, 30, 9, until_us=220)).seqs == [21]


class TestOddities:
    def test_a_step_too_large_for_sqlite_is_halved(self, db, fill, reader, steps):
        """Until it fits; a single line that is too large is an error."""
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 3 * BODY)
        fill(some(9))
        assert answer(reader.page(db, Query(0, ALL, 9))) == (list(range(1, 10)), 9, True, 1)
        assert answer(reader.page(db, Query(0, ALL, 9, newest=True))) == (list(range(1, 10)), 0, True, 1)
        assert any("LIMIT 2" in sql for sql in steps)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, BODY + 20)
        assert answer(reader.page(db, Query(0, ALL, 9))) == (list(range(1, 10)), 9, True, 1)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, BODY - 1)
        with pytest.raises(sqlite3.DataError):
            reader.page(db, Query(0, ALL, 9))

    @pytest.mark.parametrize("newest", [False, True])
    def test_a_newline_in_a_body_does_not_shift_the_others(self, db, fill, reader, newest):
        """Somebody put it there by hand: the line is not what was written, and a notice takes its place."""
        fill(some(5))
        db.execute("UPDATE lines SET body = replace(body, ',', char(10)) WHERE seq = 2")
        page = reader.page(db, Query(0, ALL, 9, newest=newest))

        assert page.seqs == [1, 2, 3, 4, 5]
        assert [found for found in page.bodies if b"notice" not in found] == [body(seq) for seq in (1, 3, 4, 5)]
        assert orjson.loads(page.bodies[1])["context"]["cause"] == "corrupt"

    @pytest.mark.parametrize("newest", [False, True])
    def test_a_newline_in_an_old_body_becomes_a_blank(self, db, fill, reader, newest):
        """A line of an older version has no checksum; it is a line as long as it looks like one."""
        fill(some(5))
        old = b'{"type":"log",\n"id":"abc123-2","level":"INFO","message":"m","context":{}}'
        db.execute("UPDATE lines SET body = CAST(? AS TEXT), crc = NULL WHERE seq = 2", (old,))
        page = reader.page(db, Query(0, ALL, 9, newest=newest))

        assert page.seqs == [1, 2, 3, 4, 5]
        assert page.bodies[1] == old.replace(b"\n", b" ")

    @pytest.mark.parametrize(
        ("seqs", "down", "ordered"),
        [
            ([5], False, True), ([5], True, True), ([1, 2, 3], False, True), ([3, 2, 1], True, True),
            ([1, 3, 9], False, True), ([9, 3, 1], True, True), ([1, 2, 3], True, False), ([3, 2, 1], False, False),
            ([1, 3, 2, 4], False, False), ([4, 2, 3, 1], True, False), ([1, 9, 3], False, False),
            ([1, 1], False, False), ([2, 2], True, False), ([1, 2, 2, 4], False, False),
        ],
    )  # fmt: skip
    def test_order_is_looked_at(self, seqs, down, ordered):
        """SQLite does not promise it: what is out of order is read again, the slow way."""
        assert query._in_order(seqs, down=down) is ordered

    def test_python_decides_where_sql_cannot(self, db, fill, reader, monkeypatch):
        """A key with a quote, a logger without a number, a NUL in the text; notices pass."""
        monkeypatch.setattr(filter_sql, "MAX_SOURCES", 2)
        fill(
            [
                (INFO, "a", body(1, context={'k"': 1})),
                (INFO, "a", body(2, context={'k"': 2})),
                (ERROR, RELAY_SOURCE, body(3, source=RELAY_SOURCE, context={"notice": "relay"})),
                (INFO, "c", body(4, source="c", message="one\0two")),
                (INFO, "d", body(5, source="d", message="one")),
                (INFO, "a", body(6, message="one\0three")),
            ]
        )
        for wanted, expected in (
            (Filter(where=(('k"', "1"),)), [1, 3]),
            (Filter(sources=("c",)), [3, 4]),
            (Filter(sources=("a",)), [1, 2, 3, 6]),
            (Filter(text="two"), [3, 4]),
            (Filter(text="three"), [3, 6]),
            (Filter(sources=("c",), text="three"), [3]),
            (Filter(apps=(APP,)), [1, 2, 3, 4, 5, 6]),
            (Filter(apps=("other",)), [3]),
        ):
            assert reader.page(db, Query(0, ALL, 9, wanted)).seqs == expected
            assert reader.page(db, Query(0, ALL, 9, wanted, newest=True)).seqs == expected

    @pytest.mark.parametrize("newest", [False, True])
    @pytest.mark.parametrize("more", [{}, {"text": "m"}, {"where": (('k"', "1"),)}])
    def test_a_line_that_does_not_say_its_app_has_the_app_of_its_run(self, db, fill, newest, more):
        """A version before wrote it: found by index, and judged, by what the table of the runs says."""
        fill([(INFO, "a", body(seq, context={'k"': 1}).replace(b'"app"', b'"ap_"')) for seq in range(1, 7)])
        for run, after in ((7, 2), (8, 4)):
            db.execute("UPDATE lines SET run = ? WHERE seq > ?", (run, after))
        for seq, *columns, text in db.execute("SELECT seq, time_us, level, source, run, body FROM lines").fetchall():
            db.execute("UPDATE lines SET crc = ? WHERE seq = ?", (line_crc(seq, *columns, text.encode()), seq))
        db.executemany(
            "INSERT INTO runs VALUES (?, x'00', ?, 'host', 1, 1, 1, 1, 'closed', 1, NULL)", [(7, APP), (8, "other")]
        )
        reader = Reader(lambda: {("a", None): 1, ("b", "third"): 2}, Clock())

        def found(app):
            return reader.page(db, Query(0, ALL, 9, Filter(apps=(app,), **more), newest=newest)).seqs

        assert found(APP) == [3, 4]
        assert found("o*") == [5, 6]
        assert found("third") == []


class TestLevels:
    @pytest.mark.parametrize(
        ("first", "last"),
        [(1, 35), (0, ALL), (1, 10), (11, 20), (10, 21), (9, 22), (5, 6), (5, 15), (35, 35), (36, 40), (8, 7), (-5, 3)],
    )
    def test_blocks_and_ends_add_up(self, db, fill, first, last):
        """Levels that are not there are not named; those that are, in order of rank."""
        levels = [10 * (1 + seq * seq % 5) if seq < 12 else 10 * (3 + seq % 3) for seq in range(1, 36)]
        fill([(level, "a", body(seq)) for seq, level in enumerate(levels, 1)])
        expected = {}
        for level in levels[max(first, 1) - 1 : max(min(last, 35), 0)] if first <= last else []:
            expected[level] = expected.get(level, 0) + 1
        counted = count_levels(db, first, last)

        assert counted == expected
        assert list(counted) == sorted(expected)

    def test_whole_blocks_are_counted_by_their_marks(self, db, fill):
        """Without a look at their lines."""
        fill([(INFO, "a", body(seq)) for seq in range(1, 36)])
        db.execute("UPDATE marks SET error = 1000, info = 0 WHERE first = 11")

        assert count_levels(db, 1, 35) == {INFO: 25, ERROR: 1000}
        assert count_levels(db, 11, 20) == {ERROR: 1000}
        assert count_levels(db, 12, 20) == {INFO: 9}
        assert count_levels(db, 11, 19) == {INFO: 9}

    def test_only_lines_that_are_kept_are_counted(self, db, fill):
        """Where retention cut a block its mark no longer counts."""
        fill([(INFO, "a", body(seq)) for seq in range(1, 36)])
        db.execute("DELETE FROM lines WHERE seq <= 4")

        assert count_levels(db, 1, 35) == {INFO: 31}
