"""What a commit leaves in the tables, and what of it is remembered."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from logrelay.errors import JournalError
from logrelay.journal import row_writer, schema
from logrelay.journal.checksums import row_crc
from logrelay.journal.row_writer import CHUNKS, RowWriter
from logrelay.journal.schema import NOTICE_SOURCE, OVERFLOW_SOURCE
from logrelay.model import CollectedRow, Commit, DeviceRow

APP = "robo_trader"
"""The app of the lines that nothing else is said of."""


@pytest.fixture
def db(tmp_path):
    """An empty journal; nothing is committed."""
    path = str(tmp_path / "journal.db")
    schema.create(path, epoch="abc123", base=0, created_us=0)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        yield db


@pytest.fixture
def writer(db):
    """It has read the empty journal."""
    made = RowWriter()
    made.load(db)
    return made


def rows(db, sql):
    return db.execute(sql).fetchall()


def loaded(db):
    """Return a writer that has read what is in the file."""
    again = RowWriter()
    again.load(db)
    return again


def write(writer, db, commit):
    writer.write(db, commit)
    writer.confirm(commit)


def test_the_columns_of_a_line(writer, db, line):
    """Every column has its value, the body as text; notices have the number of notices, whatever their source."""
    written = [line(1, level=40, source="b", run=3), line(2, run=0), line(3, source="a")]
    written.append(line(4, source="a")._replace(clock_us=5))  # of a clock that was set back: it is found by that
    writer.write(db, Commit(written))

    assert rows(db, "SELECT seq, time_us, level, source, run, body, typeof(body) FROM lines ORDER BY seq") == [
        (1, written[0].time_us, 40, 2, 3, written[0].body.decode(), "text"),
        (2, written[1].time_us, 20, NOTICE_SOURCE, 0, written[1].body.decode(), "text"),
        (3, written[2].time_us, 20, 1, 1, written[2].body.decode(), "text"),
        (4, 5, 20, 1, 1, written[3].body.decode(), "text"),
    ]
    assert writer.names == {("a", APP): 1, ("b", APP): 2}
    assert rows(db, "SELECT id, name, app FROM sources ORDER BY id") == [
        (NOTICE_SOURCE, "logrelay", None), (1, "a", APP), (2, "b", APP),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 71, 72, 512, 513, 1100])
def test_any_number_of_lines_in_as_few_statements_as_can_be(writer, db, lines, count):
    """Each line once, in order."""
    seen = []
    db.set_trace_callback(lambda sql: seen.append(sql) if "INTO lines" in sql else None)
    writer.write(db, Commit(lines(1, count)))
    fewest, left = 0, count
    for rows_each in CHUNKS:
        fewest, left = fewest + left // rows_each, left % rows_each

    assert [row[0] for row in rows(db, "SELECT seq FROM lines")] == list(range(1, count + 1))
    assert len(seen) == fewest


def test_names_keep_their_numbers(writer, db, line):
    """In one process and over a restart; new ones go on behind the last."""
    write(writer, db, Commit([line(1, source="b"), line(2, source="a")]))
    write(writer, db, Commit([line(3, source="c"), line(4, source="b")]))
    again = loaded(db)
    assert again.names == {("a", APP): 1, ("b", APP): 2, ("c", APP): 3}
    write(again, db, Commit([line(5, source="aa"), line(6, source="c")]))

    assert rows(db, "SELECT source FROM lines ORDER BY seq") == [(2,), (1,), (3,), (2,), (4,), (3,)]
    assert loaded(db).names == {("a", APP): 1, ("b", APP): 2, ("c", APP): 3, ("aa", APP): 4}


def test_the_same_logger_of_two_apps_has_two_numbers(writer, db, line):
    """So the index that finds a source finds an app as well."""
    write(writer, db, Commit([line(1, source="a"), line(2, source="a", app="other"), line(3, source="a")]))
    assert rows(db, "SELECT source FROM lines ORDER BY seq") == [(2,), (1,), (2,)]
    assert loaded(db).names == {("a", "other"): 1, ("a", APP): 2}


def test_readers_keep_the_names_they_have(writer, db, line):
    """The mapping they hold is replaced, never changed."""
    writer.write(db, Commit([line(1, source="a")]))
    held = writer.names
    writer.confirm(Commit())
    writer.write(db, Commit([line(2, source="b")]))

    assert held == {("a", APP): 1}
    assert writer.names == {("a", APP): 1, ("b", APP): 2}


def test_names_beyond_the_bound_have_no_number(writer, db, line, monkeypatch):
    """Exactly as many have one as there may be; the first in order of the alphabet when they come together."""
    monkeypatch.setattr(row_writer, "MAX_SOURCES", 2)
    write(writer, db, Commit([line(1, source="z")]))
    write(writer, db, Commit([line(2, source="y"), line(3, source="x")]))
    write(writer, db, Commit([line(4, source="w"), line(5, source="z")]))

    assert writer.names == {("z", APP): 1, ("x", APP): 2}
    assert rows(db, "SELECT source FROM lines ORDER BY seq") == [
        (1,), (OVERFLOW_SOURCE,), (2,), (OVERFLOW_SOURCE,), (1,),
    ]  # fmt: skip
    monkeypatch.setattr(row_writer, "MAX_SOURCES", 1)
    write(writer, db, Commit([line(6, source="v")]))
    assert writer.names == {("z", APP): 1, ("x", APP): 2}, "a bound that is passed already takes nothing away"


def test_a_name_of_a_commit_that_failed_is_written_with_the_next(writer, db, line):
    """It is not written a second time after that."""
    db.execute("BEGIN")
    writer.write(db, Commit([line(1, source="a")]))
    db.execute("ROLLBACK")
    assert writer.names == {("a", APP): 1}
    write(writer, db, Commit([line(1, source="b")]))
    write(writer, db, Commit([line(2, source="a")]))

    assert loaded(db).names == {("a", APP): 1, ("b", APP): 2}
    assert rows(db, "SELECT source FROM lines ORDER BY seq") == [(2,), (1,)]


def test_reading_a_file_forgets_what_was_to_be_written_into_another(writer, db, line):
    """The journal went on in a new file: the numbers are those of that file."""
    db.execute("BEGIN")
    writer.write(db, Commit([line(1, source="a")]))
    db.execute("ROLLBACK")
    writer.load(db)
    write(writer, db, Commit([line(1, source="b")]))

    assert loaded(db).names == {("b", APP): 1}


def test_a_commit_may_hold_only_runs_or_only_aliases(writer, db, run):
    """What it does not hold is not touched."""
    write(writer, db, Commit(runs=[run(2, last_seq=5, last_us=6, state="quiet", seen_us=7)]))
    assert rows(db, "SELECT * FROM runs") == [
        (2, b"\2" * 16, "robo_trader", "host", 4242, 1, 5, 6, "quiet", 7, row_crc(
            (2, b"\2" * 16, "robo_trader", "host", 4242, 1, 5, 6, "quiet", 7))),
    ]  # fmt: skip
    write(writer, db, Commit(aliases=["x"]))
    write(writer, db, Commit(runs=[run(2, last_seq=9), run(1)]))

    assert (writer.runs, writer.aliases) == ([run(2, last_seq=9), run(1)], ["x"])
    again = loaded(db)
    assert (again.runs, again.aliases) == ([run(1), run(2, last_seq=9)], ["x"]), "in the order they were seen"
    assert rows(db, "SELECT count(*) FROM lines") == [(0,)]


def test_nothing_is_remembered_before_it_is_confirmed(writer, db, run):
    """The transaction may still fail."""
    writer.write(db, Commit(runs=[run(1)], aliases=["x"]))

    assert (writer.runs, writer.aliases) == ([], [])


def test_an_alias_is_kept_once(writer, db):
    """In the order in which they came."""
    for aliases in (["b", "a"], ["b"], ["c", "a"]):
        write(writer, db, Commit(aliases=aliases))

    assert writer.aliases == loaded(db).aliases == ["b", "a", "c"]


def test_a_commit_takes_runs_out(writer, db, run):
    """From the file and from memory, by number; a run that came back under a new number stays."""
    write(writer, db, Commit(runs=[run(n, state="closed", seen_us=n) for n in range(1, 6)]))
    again = replace(run(9, seen_us=9), key=run(2).key)
    gone = [(n, run(n).key) for n in (1, 2, 4)]
    write(writer, db, Commit(runs=[run(4, state="crashed"), again], forgotten=gone))

    assert [r.id for r in loaded(db).runs] == [3, 5, 9]
    assert sorted(r.id for r in writer.runs) == [3, 5, 9]
    assert writer.runs.get(run(2).key) == again


def test_any_number_of_runs_is_a_few_statements(writer, db, run):
    """Each row is the run's; two of one run are in one commit, of which the later counts."""
    written = [run(n, last_seq=n, last_us=2 * n, seen_us=n) for n in range(1, 64 + 8 + 2 + 1)]
    statements = []
    db.set_trace_callback(statements.append)
    writer.write_runs(db, [*written, run(3, last_seq=99, seen_us=3)])
    db.set_trace_callback(None)
    assert len(statements) == 5
    written[2] = run(3, last_seq=99, seen_us=3)
    assert sorted(loaded(db).runs, key=lambda r: r.id) == written
    columns = "id, key, app, host, pid, started_ns, last_seq, last_us, state, seen_us"
    assert all(row[-1] == row_crc(row[:-1]) for row in rows(db, f"SELECT {columns}, crc FROM runs"))
    writer.write_runs(db, [])
    assert len(loaded(db).runs) == len(written)


def test_runs_are_remembered_as_the_file_has_them_however_many_change(writer, db, run, monkeypatch):
    """Those that changed lately are looked up and passed on like all others; only so many of them wait."""
    monkeypatch.setattr(row_writer, "MOST_CHANGED_RUNS", 3)
    for n in (5, 1, 4, 2, 3):
        write(writer, db, Commit(runs=[run(n, last_seq=1, seen_us=n)]))
    write(writer, db, Commit(runs=[run(1, last_seq=7, seen_us=1)]))
    write(writer, db, Commit(runs=[run(1, last_seq=8, seen_us=1), run(6, seen_us=6)]))
    assert len(writer._changed_runs) <= 3

    assert [(r.id, r.last_seq) for r in writer.runs] == [(5, 1), (1, 8), (4, 1), (2, 1), (3, 1), (6, 0)]
    assert sorted(writer.runs, key=lambda r: r.id) == sorted(loaded(db).runs, key=lambda r: r.id)
    write(writer, db, Commit(runs=[run(6, last_seq=1, seen_us=6)]))
    write(writer, db, Commit(forgotten=[(6, run(6).key)]))
    assert writer.runs.get(run(6).key) is None


class TestForget:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setattr(row_writer, "MAX_ALIASES", 2)

    def test_at_the_bound_nothing_is_too_many(self, writer, db):
        """One more is."""
        write(writer, db, Commit(aliases=["a", "b"]))
        assert not writer.too_many
        writer.forget(db)
        assert loaded(db).aliases == ["a", "b"]

        write(writer, db, Commit(aliases=["c"]))
        assert writer.too_many
        writer.forget(db)
        assert not writer.too_many

    def test_the_oldest_aliases_go(self, writer, db):
        """By when they came, not by their name."""
        write(writer, db, Commit(aliases=["d", "c", "b", "a"]))
        writer.forget(db)

        assert writer.aliases == loaded(db).aliases == ["b", "a"]


# --- devices ------------------------------------------------------------------------------------------------


def test_devices_are_there_after_the_next_opening(journal_at):
    """The table is made with the first of them; a row is replaced by number, and the last of several commits counts."""
    journal = journal_at()
    journal.open()
    with closing(sqlite3.connect(journal_at.path)) as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'devices'").fetchone()
    phone = DeviceRow(1, "", "phone", "abc123-5", 7, True)
    journal.append(Commit(devices=[phone, DeviceRow(2, "t1", "tablet", "abc123-6", 8, False)]))
    journal.append(Commit(devices=[phone._replace(position="abc123-9")]))
    journal.close()

    found = journal_at().open().devices
    assert found == [phone._replace(position="abc123-9"), DeviceRow(2, "t1", "tablet", "abc123-6", 8, False)]
    assert type(found[0].connected) is bool


def test_a_commit_that_fails_makes_no_table_that_is_believed_to_be_there(journal_at):
    """The table is part of the transaction."""
    journal = journal_at()
    journal.open()
    row = DeviceRow(1, "", "phone", "abc123-5", 7, True)
    with pytest.raises(JournalError):
        journal.append(Commit(devices=[row, row._replace(name=None)]))
    journal.append(Commit(devices=[row]))
    journal.close()

    assert journal_at().open().devices == [row]


# --- how far other machines were collected ------------------------------------------------------------------


def test_what_was_collected_is_there_after_the_next_opening(journal_at, lines):
    """With the lines it speaks of, or not at all; a relay that collects nothing never makes the table."""
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 1)))
    with closing(sqlite3.connect(journal.path)) as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'collected'").fetchone()
    rows = [CollectedRow(1, "edge", "berlin", "k3f9ab", 7, "j1", 5), CollectedRow(2, "stream", "S", "t", 3, "m", 6)]
    journal.append(Commit(lines(2, 1), collected=rows))
    journal.append(Commit(lines(3, 1), collected=[rows[0]._replace(seq=8)]))
    with pytest.raises(JournalError):
        journal.append(Commit(lines(4, 1), collected=[rows[1]._replace(seq=9), rows[1]._replace(name=None)]))
    journal.close()

    opening = journal_at().open()
    assert (opening.head, opening.collected) == (3, [rows[0]._replace(seq=8), rows[1]])
