"""Lone commits wait in a file for SQLite, and nobody can tell: neither who asks, nor who opens the journal later."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.journal import lone_file, lone_lines
from logrelay.journal.interface import Query
from logrelay.journal.lone_lines import WAITING_LINES, LoneLineJournal
from logrelay.journal.read_only import ReadOnlyJournal
from logrelay.model import CRITICAL, Commit

FILTERS = (
    Filter(),
    Filter(level=40),
    Filter(sources=("bot.b*",)),
    Filter(apps=("two",)),
    Filter(text="aapl"),
    Filter(where=(("symbol", "MSFT"),)),
    Filter(notices="no"),
)


class Ticks:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def ticks():
    return Ticks()


@pytest.fixture
def lone(journal_at, ticks):
    """An open journal that has committed its first line, so that the next one may be a lone one."""
    journal = LoneLineJournal(journal_at(clock=ticks), clock=ticks)
    journal.open()
    yield journal
    journal.close()


def begin(journal, lines):
    journal.append(Commit(lines(1, 1)))


def waiting(journal):
    return [line.seq for commit in journal._waiting.commits for line in commit.lines]


def killed(journal, journal_at, tmp_path, name="after"):
    """Open a copy of the files as a kill would leave them at this moment."""
    directory = tmp_path / name
    directory.mkdir()
    for file in Path(journal.path).parent.iterdir():
        if not file.name.endswith(".lock"):
            shutil.copy(file, directory / file.name)
    copy = journal_at(directory / Path(journal.path).name)
    return copy, copy.open()


def test_lines_close_behind_one_another_wait_in_the_file(lone, lines, ticks, run):
    """And SQLite gets them with a line that comes later, all at once."""
    begin(lone, lines)
    for seq in range(2, 7):
        ticks.now += 0.02
        assert lone.append_now(Commit(lines(seq, 1), [run(1, last_seq=seq)]))
    assert waiting(lone) == [2, 3, 4, 5, 6]
    assert lone._inner.head == 1
    ticks.now += 1
    assert lone.append_now(Commit(lines(7, 1)))
    assert waiting(lone) == []
    assert lone._inner.head == 7
    assert lone_file.read(lone.path) == lone_file.Found([], b"")
    assert lone.page(Query(0, 99, 99)).seqs == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_much_or_has_waited_is_handed_over(lone, lines, ticks):
    """After WAITING_LINES, and after WAITING_S at the next line; after SYNC_AFTER_S without one, when it is synced."""
    begin(lone, lines)
    seq = 1
    for _ in range(WAITING_LINES):
        seq += 1
        assert lone.append_now(Commit(lines(seq, 1)))
    assert len(waiting(lone)) == WAITING_LINES
    assert lone.append_now(Commit(lines(seq + 1, 1)))
    assert not waiting(lone)
    assert lone.append_now(Commit(lines(seq + 2, 1)))
    assert len(waiting(lone)) == 1
    for _ in range(20):
        ticks.now += 0.2
        seq += 1
        assert lone.append_now(Commit(lines(seq + 2, 1)))
    assert 0 < len(waiting(lone)) < 16
    lone.sync()
    ticks.now += lone_lines.SYNC_AFTER_S
    assert lone.sync() == float("inf")
    assert not waiting(lone)
    assert lone._inner._unsynced_since is None, "synced with it, by the time at which it was promised"


def test_what_cannot_wait_takes_all_that_waits_with_it(lone, lines, ticks, run):
    """A CRITICAL line, and rows that the file does not hold."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1), [run(1, last_seq=2)]))
    assert waiting(lone) == [2]
    assert not lone.append_now(Commit(lines(3, 1, level=CRITICAL), durable=True))
    lone.append(Commit(lines(3, 1, level=CRITICAL), durable=True))
    assert lone._inner.head == 3
    assert not waiting(lone)
    assert lone.append_now(Commit(lines(4, 1)))
    assert waiting(lone) == [4]
    assert lone.append_now(Commit(lines(5, 1), aliases=["xyz"]))
    assert lone._inner.head == 5


def test_a_journal_that_syncs_each_commit_has_no_such_file(journal_at, lines):
    """There a write to the kernel's memory is not enough."""
    journal = LoneLineJournal(journal_at(sync="full"))
    journal.open()
    for seq in range(1, 6):
        commit = Commit(lines(seq, 1))
        if not journal.append_now(commit):
            journal.append(commit)
    assert journal._inner.head == 5
    assert not Path(journal.path + lone_file.SUFFIX).exists()
    journal.close()


def test_no_room_for_the_file_is_no_trouble(lone, lines, monkeypatch):
    """The commit goes to SQLite, and what was waiting with it."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    monkeypatch.setattr(lone._file, "add", lambda _epoch, _commit: False)
    assert lone.append_now(Commit(lines(3, 1)))
    assert lone._inner.head == 3


def test_lines_that_do_not_follow_are_refused(lone, lines):
    """By the file as by SQLite."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    with pytest.raises(JournalError, match="do not follow"):
        lone.append_now(Commit(lines(4, 1)))
    assert waiting(lone) == [2]


@pytest.mark.parametrize("seed", range(12))
def test_nobody_who_asks_can_tell(journal_at, line, run, ticks, tmp_path, seed):
    """Every question has the same answer as from a journal that has everything in SQLite, at any time."""
    rng = random.Random(seed)
    one = LoneLineJournal(journal_at(clock=ticks), clock=ticks)
    other = journal_at(tmp_path / "other.db")
    one.open(), other.open()
    head = 0

    def some(count):
        return [
            line(
                head + n,
                level=rng.choice((10, 20, 30, 40)),
                source=rng.choice(("bot.a", "bot.b1", "bot.b2")),
                run=rng.choice((0, 1, 1, 2)),
                app=rng.choice(("one", "two")),
                context={"symbol": rng.choice(("AAPL", "MSFT", "x" * 300))},
            )
            for n in range(1, count + 1)
        ]

    def ask(journal, query):
        """Go through a stretch as a reader does, and return all it gets."""
        bodies, seqs, notices = [], [], query.notices
        for _ in range(500):
            page = journal.page(query)
            assert page.oldest == 1
            bodies, seqs = (
                (page.bodies + bodies, page.seqs + seqs) if query.newest else (bodies + page.bodies, seqs + page.seqs)
            )
            left = query.limit - page.counted
            if page.complete or left <= 0:
                return bodies, seqs
            if notices is not None:
                notices = max(0, notices - page.beside)
            query = replace(
                query,
                limit=left,
                notices=notices,
                **({"until": page.reached} if query.newest else {"after": page.reached}),
            )
        raise AssertionError("it does not end")

    for _ in range(120):
        commit = Commit(some(rng.choice((1, 1, 1, 2, 5))), [run(1, last_seq=head)])
        head += len(commit.lines)
        ticks.now += rng.choice((0.01, 0.05, 0.05, 0.05, 0.3, 1.0))
        if not one.append_now(commit):
            one.append(commit)
        other.append(commit)
        after = rng.randint(0, head)
        query = Query(
            after,
            rng.choice((head, head + 50, rng.randint(after, head))),
            rng.choice((1, 3, 10, 100)),
            rng.choice(FILTERS),
            newest=rng.random() < 0.5,
            max_bytes=rng.choice((400, 2000, 1 << 20)),
            notices=rng.choice((None, None, 0, 2)),
        )
        assert ask(one, query) == ask(other, query), query
        first = rng.randint(1, head)
        assert one.levels(first, head) == other.levels(first, head)
        wanted = sorted(rng.sample(range(1, head + 1), min(head, 5)))
        assert one.lines_at(wanted) == other.lines_at(wanted)
        rows, same = one.rows(after, max_bytes=3000), other.rows(after, max_bytes=3000)
        least = min(len(rows.seqs), len(same.seqs))  # where a page ends is its own business
        assert bool(rows.seqs) == bool(same.seqs)
        for column in ("seqs", "bodies", "ranks", "times"):
            assert getattr(rows, column)[:least] == getattr(same, column)[:least]
        for n, m in zip(rows.places, same.places, strict=False):
            assert rows.origins[n]._replace(run_name="") == same.origins[m]._replace(run_name="")  # made up in bodies
    counts = []
    for journal in (one, other):
        at, summary = 0, []
        while True:
            page = journal.summarize(Query(at, head, 1000))
            summary.append(page.summary)
            if page.complete:
                break
            assert page.reached > at
            at = page.reached
        apps = [
            (name, level, n) for part in summary for name, app in part.apps.items() for level, n in app.levels.items()
        ]
        counts.append({key: sum(n for *of, n in apps if tuple(of) == key) for key in {(a, b) for a, b, _ in apps}})
    assert counts[0] == counts[1] != {}
    one.close()


@pytest.mark.parametrize("waiting_lines", [1, 7])
def test_after_a_kill_nothing_is_missing(lone, lines, run, journal_at, tmp_path, waiting_lines):
    """Lines and runs are there under their old ids, and the file is gone."""
    begin(lone, lines)
    for seq in range(2, 2 + waiting_lines):
        assert lone.append_now(Commit(lines(seq, 1), [run(3, last_seq=seq)]))
    before = lone.page(Query(0, 99, 99))
    with ReadOnlyJournalOf(lone.path) as reader:
        assert reader.page(Query(0, 99, 99)).bodies == before.bodies
        assert reader.head == 1 + waiting_lines
        assert reader.count_lines() == 1 + waiting_lines
        assert [r.last_seq for r in reader.runs if r.id == 3] == [1 + waiting_lines]
    copy, opening = killed(lone, journal_at, tmp_path)
    assert opening.head == 1 + waiting_lines
    assert opening.notices == []
    assert copy.page(Query(0, 99, 99)).bodies == before.bodies
    assert [r.last_seq for r in opening.runs if r.id == 3] == [1 + waiting_lines]
    assert [epoch.name for epoch in opening.earlier] == ["abc123"]
    assert opening.epoch != "abc123"
    assert not Path(copy.path + lone_file.SUFFIX).exists()
    copy.append(Commit(lines(2 + waiting_lines, 1)))
    copy.close()
    again, opening = killed(copy, journal_at, tmp_path, "again")
    assert opening.head == 2 + waiting_lines
    again.close()


class ReadOnlyJournalOf:
    """Closes it."""

    def __init__(self, path):
        self.journal = ReadOnlyJournal(path)

    def __enter__(self):
        return self.journal

    def __exit__(self, *_):
        self.journal.close()


def test_a_kill_between_the_transaction_and_the_cut_repeats_nothing(lone, lines, journal_at, tmp_path, monkeypatch):
    """SQLite has them already: the file says nothing new."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    monkeypatch.setattr(lone._file, "clear", lambda: None)
    lone.append(Commit(lines(3, 1)))
    copy, opening = killed(lone, journal_at, tmp_path)
    assert opening.head == 3
    assert opening.notices == []
    assert copy.page(Query(0, 99, 99)).seqs == [1, 2, 3]
    copy.close()


def test_a_file_that_does_not_follow_is_said_and_kept(lone, lines, journal_at, tmp_path):
    """The journal was put back from a copy that is older: its lines are not taken for those that come now."""
    begin(lone, lines)
    backup = tmp_path / "backup"
    shutil.copytree(Path(lone.path).parent, backup)
    lone.append(Commit(lines(2, 3)))
    assert lone.append_now(Commit(lines(5, 1)))
    shutil.copy(lone.path + lone_file.SUFFIX, backup)
    journal = journal_at(backup / Path(lone.path).name)
    opening = journal.open()
    assert opening.head == 1
    (notice,) = opening.notices
    assert "may be missing" in notice
    (aside,) = backup.glob("*.lone-*")
    assert aside.name in notice
    journal.close()
    assert journal_at(backup / Path(lone.path).name).open().notices == []


def test_a_close_that_fails_leaves_the_file(lone, lines, journal_at, tmp_path, monkeypatch):
    """The next opening has the lines."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))

    def full(_commit):
        raise JournalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(lone._inner, "append", full)
        lone.close()
    opening = lone.open()
    assert opening.head == 2
    assert lone.page(Query(0, 9, 9)).seqs == [1, 2]


def test_a_close_in_order_leaves_no_file(lone, lines):
    """Nothing is there for a version that does not know it."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    lone.close()
    assert not Path(lone.path + lone_file.SUFFIX).exists()
    assert lone.open().head == 2


def test_a_journal_that_is_replaced_gets_what_is_held(lone, lines):
    """The memory has it, whatever becomes of the files."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    for file in Path(lone.path).parent.iterdir():
        if not file.name.endswith(".lock"):
            file.unlink()
    with pytest.raises(JournalError):
        lone.append(Commit(lines(3, 1)))
    lone.reopen()
    lone.append(Commit(lines(3, 1)))
    assert lone.page(Query(0, 9, 9)).seqs == [1, 2, 3]


def test_a_relay_that_is_refused_touches_nothing(lone, lines, journal_at, ticks):
    """A second one on the same journal ends without having opened it: the file is that of the first."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    other = LoneLineJournal(journal_at(clock=ticks), clock=ticks)
    with pytest.raises(JournalError, match="in use"):
        other.open()
    other.close()
    assert len(lone_file.read(lone.path).records) == 1


def test_the_file_goes_while_the_lock_is_there(lone, lines, monkeypatch):
    """The next relay may open the journal in the moment in which the lock is given back, and make its own."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    there = []
    close = lone._inner.close
    monkeypatch.setattr(
        lone._inner, "close", lambda: (there.append(Path(lone.path + lone_file.SUFFIX).exists()), close())
    )
    lone.close()
    assert there == [False]


@pytest.mark.parametrize("moved", ["all", "the file alone"])
def test_a_file_that_is_moved_away_is_not_written_to(lone, lines, journal_at, tmp_path, ticks, moved):
    """What comes after a second is where the next opening looks for it; nobody reads the other one."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    (tmp_path / "old").mkdir()
    for file in Path(lone.path).parent.glob("*" if moved == "all" else "*-lone"):
        if not file.name.endswith(".lock"):
            file.rename(tmp_path / "old" / file.name)
    ticks.now += lone_lines.LOOK_S
    commit = Commit(lines(3, 1))
    try:
        done = lone.append_now(commit)
    except JournalError:
        lone.reopen()
        done = False
    if not done:
        lone.append(commit)
    for seq in (4, 5):
        assert lone.append_now(Commit(lines(seq, 1)))
    assert waiting(lone) == [4, 5]
    copy, opening = killed(lone, journal_at, tmp_path)
    assert opening.head == 5
    assert copy.page(Query(0, 99, 99)).seqs == [1, 2, 3, 4, 5]
    copy.close()


def test_a_new_journal_does_not_swallow_the_file(lone, lines, journal_at, tmp_path):
    """The journal was deleted after a kill: what it had not got is kept, and that is said."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    folder = tmp_path / "new"
    folder.mkdir()
    shutil.copy(lone.path + lone_file.SUFFIX, folder)
    journal = journal_at(folder / Path(lone.path).name)
    opening = journal.open()
    assert opening.head == 0
    assert ["was set aside" in text for text in opening.notices] == [True]
    assert len(list(folder.glob("*.lone-*"))) == 1
    journal.close()


def test_no_room_in_sqlite_delays_no_sync(lone, lines, ticks, monkeypatch):
    """What waits is synced where it is, and what SQLite has already is as well."""
    begin(lone, lines)
    ticks.now += 0.1
    assert lone.append_now(Commit(lines(2, 1)))

    def full(_commit):
        raise JournalError("disk full")

    synced = []
    monkeypatch.setattr(lone._inner, "append", full)
    monkeypatch.setattr(lone._file, "sync", lambda: synced.append("file"))
    ticks.now += lone_lines.SYNC_AFTER_S
    with pytest.raises(JournalError, match="disk full"):
        lone.sync()
    assert synced == ["file"]
    assert lone._inner._unsynced_since is None
    monkeypatch.undo()


def test_a_stop_leaves_the_file_of_another_relay(lone, lines):
    """Whose the name is by then."""
    begin(lone, lines)
    assert lone.append_now(Commit(lines(2, 1)))
    file = Path(lone.path + lone_file.SUFFIX)
    file.unlink()
    file.write_bytes(b"another's")
    lone.close()
    assert file.read_bytes() == b"another's"
    file.unlink()
