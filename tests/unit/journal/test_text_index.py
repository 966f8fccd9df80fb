"""The index of texts: made behind the head, forgotten with its lines, never believed when it is damaged."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from logrelay.fanout.filters import Filter
from logrelay.journal import query, tallies, text_index
from logrelay.journal.interface import Query
from logrelay.model import RELAY_RUN, Commit


@pytest.fixture
def small(monkeypatch):
    """Slabs of sixteen lines in four blocks."""
    for name, value in {"STEP_LINES": 2, "MOST_LINES": 4, "BLOCKS": 4}.items():
        monkeypatch.setattr(text_index, name, value)


@pytest.fixture
def journal(journal_at, small):
    made = journal_at()
    made.open()
    return made


def derive(journal):
    while journal.derive(seconds=1.0):
        pass


def write(journal, line, first, count, **special):
    """Append lines, of which those given by number have a text of their own."""
    lines = []
    for seq in range(first, first + count):
        order = special.get(f"at{seq}", f"order{seq:08x}")
        lines.append(line(seq, context={"order_id": order}))
    journal.append(Commit(lines))


def find(journal, text, head, **how):
    page = journal.page(Query(0, head, 1000, Filter(text=text), **how))
    assert page.complete
    return page.seqs


def slabs(journal):
    with closing(sqlite3.connect(journal.path)) as db:
        return db.execute("SELECT first, last FROM text_slabs ORDER BY first").fetchall()


def bodies_read(journal, monkeypatch, text, head):
    """Count the lines that a search looks at one by one."""
    looked = []
    step = query._Walk.step

    def counting(self, rows, visits):
        answer = step(self, rows, visits)
        if self._stretch.perhaps:
            looked.append(self.looked)
        return answer

    monkeypatch.setattr(query._Walk, "step", counting)
    assert find(journal, text, head, newest=True) == find(journal, text, head)
    return sum(looked) // 2


def test_it_is_made_behind_the_head_and_goes_on_after_a_restart(journal, line):
    """What is full is kept, what is not begins again; nothing is found twice or not at all."""
    write(journal, line, 1, 41, at7="needle-one", at40="needle-two")
    assert find(journal, "NEEDLE", 41) == [7, 40]
    assert journal.index_behind == 41
    derive(journal)
    assert journal.index_behind == 1, "half of a step is not worth one"
    assert slabs(journal) == [(1, 16), (17, 32)]
    assert find(journal, "needle", 41) == find(journal, "needle", 41, newest=True) == [7, 40]
    journal.close()
    journal.open()
    write(journal, line, 42, 10, at42="needle-three")
    derive(journal)
    assert slabs(journal) == [(1, 16), (17, 32), (33, 48)]
    assert find(journal, "needle", 51) == [7, 40, 42]
    assert find(journal, "eedle-t", 51) == [40, 42]


def test_only_what_can_hold_the_text_is_read(journal, line, monkeypatch):
    """One block of a hundred, and what is not indexed yet."""
    write(journal, line, 1, 403, at200="needle")
    derive(journal)
    assert bodies_read(journal, monkeypatch, "needle", 403) <= 4 + 3
    assert find(journal, "nowhere", 403) == []


def test_notices_are_found_in_what_is_left_out(journal, line):
    """A gap may have held what was asked for."""
    write(journal, line, 1, 20)
    gap = line(21, 30, run=RELAY_RUN, context={"notice": "gap", "cause": "overflow", "count": 3})
    journal.append(Commit([gap, line(22, context={"order_id": "needle"}), line(23)]))
    write(journal, line, 24, 40)
    derive(journal)
    for how in ({}, {"newest": True}):
        assert find(journal, "needle", 63, **how) == [21, 22]
        assert find(journal, "nowhere", 63, **how) == [21]


def test_short_texts_are_looked_for_everywhere(journal, line):
    """The index cannot be asked for two characters."""
    write(journal, line, 1, 33, at5="zq")
    derive(journal)
    assert find(journal, "zq", 33) == [5]
    assert find(journal, "ZQ", 33) == [5]


def test_it_goes_with_its_lines(journal_at, small, line, clock):
    """Retention takes its rows too."""
    journal = journal_at(max_age_s=100)
    journal.open()
    write(journal, line, 1, 32)
    derive(journal)
    clock.forward(80)
    write(journal, line, 33, 32, at40="needle")
    derive(journal)
    clock.forward(50)
    journal.prune()
    assert journal.oldest == 33
    derive(journal)
    assert [first for first, _ in slabs(journal)] == [33, 49]
    with closing(sqlite3.connect(journal.path)) as db:
        assert db.execute("SELECT min(id) FROM text_bits").fetchone()[0] >= 33 * 256
    assert find(journal, "needle", 64) == [40]


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE text_bits SET bits = zeroblob(20)",
        "UPDATE text_bits SET crc = crc + 1",
        "DELETE FROM text_bits",
        "UPDATE text_slabs SET starts = zeroblob(16)",
        "UPDATE text_slabs SET last = last + 1000",
    ],
)
def test_a_damaged_index_denies_nothing_and_is_made_anew(journal, line, harm):
    """Nobody is told: no line was in danger."""
    write(journal, line, 1, 48, at20="needle")
    derive(journal)
    with closing(sqlite3.connect(journal.path)) as db, db:
        db.execute(harm)
    assert find(journal, "needle", 48, newest=True) == [20]
    assert journal._text_index.damaged
    assert find(journal, "needle", 48) == [20]
    derive(journal)
    assert not journal._text_index.damaged
    assert slabs(journal) == [(1, 16), (17, 32), (33, 48)]
    assert find(journal, "needle", 48) == [20]
    assert not journal._text_index.damaged


def test_a_damaged_index_goes_a_slab_at_a_time(journal, line):
    """No step is longer than another, however large the index is, and until it is gone nothing of it is believed."""
    write(journal, line, 1, 48, at20="needle")
    derive(journal)
    journal._text_index.damaged = True
    left = []
    while journal._text_index.damaged:
        assert find(journal, "needle", 48) == [20]
        journal.derive(seconds=0.0)
        journal._derive_some(journal._db)
        left.append(len(slabs(journal)))
    assert left == [2, 1, 0, 0]


def test_a_step_does_one_small_thing(journal, line, monkeypatch):
    """A commit waits behind a step: what it does is counted, whether the lines are short or long."""
    for name, value in {"STEP_BYTES": 1000, "STEP_PIECES": 30, "BLOCKS": 20, "STEP_PARTS": 7}.items():
        monkeypatch.setattr(text_index, name, value)
    done = Counter()

    def counted(name, size):
        function = getattr(text_index, name)

        def counting(*arguments):
            done[name] += size(*arguments)
            return function(*arguments)

        monkeypatch.setattr(text_index, name, counting)

    counted("indexed_text", lambda _body: 1)
    counted("add_pieces", lambda _filter, pieces: len(pieces))
    counted("lay_group", lambda *_: 1)
    counted("compress", lambda *_: 1)
    write(journal, line, 1, 40, at7="needle")
    journal.append(Commit([line(seq, context={"order_id": f"long{seq}" * 400}) for seq in range(41, 83)]))
    whole, steps = Counter(), 0
    while journal._derive_due():
        done.clear()
        assert journal._derive_some(journal._db)
        assert len(done) <= 1
        (most,) = done.values() or (0,)
        bound = {"indexed_text": 2, "add_pieces": 30, "lay_group": 1, "compress": 7}
        assert all(most <= bound[name] for name in done)
        if journal._text_index._next > 41 and "indexed_text" in done:
            assert most == 1, "a line longer than a step's bytes is indexed alone"
        whole.update(done)
        steps += 1
    assert whole["indexed_text"] >= 80
    assert whole["lay_group"] == 3, "20 blocks are three groups of eight"
    assert whole["compress"] >= 256
    assert slabs(journal) == [(1, 80)]
    assert steps > 40 + 3 + 256 // 7
    assert find(journal, "needle", 80) == [7]
    assert find(journal, "long80long", 80) == [80]


def test_a_purge_leaves_nothing_of_its_lines_in_index_and_tallies(journal, line, monkeypatch):
    """Not a bit that says which pieces of text they had, nor a count; what is left is indexed and counted anew."""
    for name, value in {"SPAN_LINES": 16, "STEP_LINES": 2}.items():
        monkeypatch.setattr(tallies, name, value)
    write(journal, line, 1, 48, at20="needle")
    derive(journal)

    def rows(sql):
        with closing(sqlite3.connect(journal.path)) as db:
            return db.execute(sql).fetchall()

    bits = "SELECT bits FROM text_bits WHERE id / 256 = 17 ORDER BY id"
    before, counted = rows(bits), rows("SELECT first FROM tallies ORDER BY first")
    assert counted == [(1,), (17,), (33,)]
    assert len(before) == 256
    assert journal.purge([20]) == 1
    assert slabs(journal) == [(1, 16), (33, 48)]
    assert rows(bits) == []
    assert rows("SELECT first FROM tallies ORDER BY first") == [(1,), (33,)]
    derive(journal)
    assert slabs(journal)[:3] == [(1, 16), (17, 32), (33, 48)]
    assert rows(bits) != before
    assert [b"gap" in body for body in journal.page(Query(0, 48, 1000, Filter(text="needle"))).bodies] == [True]
    assert 21 in find(journal, f"order{21:08x}", 48)


def test_on_a_full_disk_no_part_of_it_is_written_and_lines_are(journal, line, monkeypatch):
    """What is indexed in memory waits; the file has room for lines alone."""
    write(journal, line, 1, 20, at7="needle")
    monkeypatch.setattr(journal._space, "is_short", lambda: True)
    for _ in range(100):
        journal.derive(seconds=1.0)
    assert slabs(journal) == []
    write(journal, line, 21, 12)
    assert find(journal, "needle", 32) == [7]
    monkeypatch.undo()
    derive(journal)
    assert slabs(journal)


def test_tables_that_are_missing_deny_nothing(journal, line):
    """Somebody dropped them while the relay ran."""
    write(journal, line, 1, 48, at20="needle")
    derive(journal)
    with closing(sqlite3.connect(journal.path)) as db, db:
        db.execute("DROP TABLE text_slabs")
    assert find(journal, "needle", 48) == [20]


def test_an_older_version_may_write_and_delete_meanwhile(journal, journal_at, line):
    """Its lines have no slab, and are looked at one by one; slabs of lines that are gone go."""
    write(journal, line, 1, 32, at7="needle")
    derive(journal)
    journal.close()
    old = journal_at(text_index=False, max_age_s=0)
    old._load_derived = lambda _db: None  # it does not know these tables
    old.open()
    write(old, line, 33, 40, at50="needle")
    old.close()
    with closing(sqlite3.connect(old.path)) as db, db:
        db.execute("DELETE FROM lines WHERE seq <= 10")
        db.execute("UPDATE meta SET value = 11 WHERE key = 'oldest'")
    journal.open()
    assert find(journal, "needle", 72) == [50]
    derive(journal)
    assert find(journal, "needle", 72) == [50]


def test_a_stretch_can_be_forgotten(journal, line):
    """Whoever deletes lines for what they say leaves nothing of them here."""
    write(journal, line, 1, 48, at20="needle")
    derive(journal)
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as db:
        before = db.execute("SELECT bits FROM text_bits WHERE id BETWEEN 17 * 256 AND 17 * 256 + 255").fetchall()
        index = text_index.TextIndex()
        index.load(db)
        index.forget(db, 20, 20)
        assert db.execute("SELECT first FROM text_slabs ORDER BY first").fetchall() == [(1,), (33,)]
        assert db.execute("SELECT count(*) FROM text_bits WHERE id / 256 = 17").fetchone() == (0,)
    assert before
    assert find(journal, "needle", 48) == [20]
    journal.close()
    journal.open()
    derive(journal)
    assert slabs(journal) == [(1, 16), (17, 32), (33, 48)]


def test_it_can_be_switched_off(journal, journal_at, line):
    """The tables go; switched on again, it is made anew."""
    write(journal, line, 1, 33, at20="needle")
    derive(journal)
    journal.close()
    off = journal_at(text_index=False)
    off.open()
    derive(off)
    assert find(off, "needle", 33) == [20]
    off.close()
    with closing(sqlite3.connect(off.path)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'text_%'").fetchone() == (0,)
    journal.open()
    derive(journal)
    assert len(slabs(journal)) == 2


def test_a_rescue_takes_its_rows_for_none_of_its_own(journal, line, tmp_path):
    """Of a damaged file the lines are saved; the index is made anew."""
    write(journal, line, 1, 48, at20="needle")
    derive(journal)
    journal.close()
    with open(journal.path, "r+b") as file:
        file.write(b"\xff" * 100)
    opening = journal.open()
    assert (opening.oldest, opening.head) == (1, 48)
    assert len(journal._row_writer.names) == 1
    derive(journal)
    assert find(journal, "needle", 48) == [20]
    assert len(slabs(journal)) == 3
