"""A file that was damaged, deleted or replaced while the relay runs: nothing is lost that could be saved."""

from __future__ import annotations

import shutil
import stat

import orjson
import pytest

from logrelay.errors import JournalError, JournalRefused
from logrelay.fanout.positions import Epoch
from logrelay.journal import remembered_lines
from logrelay.journal.interface import JournalLost, Query
from logrelay.model import Commit
from tests.unit.journal.test_journal_file import ALL, overwrite_lines, read_all, write_some


def test_damage_at_run_time_goes_on_under_the_same_numbers(journal_at, lines, run, monkeypatch):
    """Append says JournalLost, reopen sets the file aside; epoch, head and runs go on, what is lost is told."""
    monkeypatch.setattr(remembered_lines, "REMEMBERED_BYTES", 1)
    journal = write_some(journal_at, lines, 5000)
    journal.append(Commit(runs=[run(7, last_seq=99)], aliases=["prov01"]))
    overwrite_lines(journal_at.path)
    with pytest.raises(JournalLost, match="damaged"):
        for _ in range(2):
            read_all(journal)
            journal.append(Commit(lines(5001, 1)))
    opening = journal.reopen()
    assert (opening.epoch, opening.oldest, opening.head, opening.runs) == ("abc123", 1, 5000, [run(7, last_seq=99)])
    assert opening.aliases == {"prov01"}
    assert any("corrupt-20260123T100000Z" in notice for notice in opening.notices)
    assert any("lines are lost: abc123-" in notice for notice in opening.notices)
    journal.append(Commit(lines(5001, 3)))
    assert read_all(journal)[-3:] == [5001, 5002, 5003]
    # The newest lines are in memory still, as many as are forgotten together.
    assert 4500 - remembered_lines.REMEMBERED_TOGETHER < journal.damaged_lines < 5000
    page = journal.page(Query(0, ALL, 10_000))
    told = [orjson.loads(body)["context"] for body in page.bodies if b'"notice":"gap"' in body]
    assert sum(gap["count"] for gap in told) == journal.damaged_lines == 5003 - (len(page.seqs) - len(told))
    assert {gap["cause"] for gap in told} == {"corrupt"}
    journal.close()
    again = journal_at().open()
    assert (again.earlier, again.oldest, again.head, again.runs) == (
        [Epoch("abc123", 1)],
        1,
        5003,
        [run(7, last_seq=99)],
    )


@pytest.mark.parametrize("what", ["file", "all", "wal", "shm", "directory"])
def test_a_deleted_journal_is_written_again(journal_at, lines, what):
    """The open file still has everything: it comes back complete, under its name, and says so."""
    journal = write_some(journal_at, lines)
    read_all(journal)
    path = journal_at.path
    for name in {
        "file": [""],
        "all": ["", "-wal", "-shm"],
        "wal": ["-wal"],
        "shm": ["-shm"],
        "directory": [],
    }[what]:
        path.with_name(path.name + name).unlink()
    if what == "directory":
        shutil.rmtree(path.parent)
    with pytest.raises(JournalLost, match="deleted or replaced"):
        journal.append(Commit(lines(3001, 1)))
    opening = journal.reopen()
    assert (opening.epoch, opening.oldest, opening.head) == ("abc123", 1, 3000)
    assert any("written again, complete" in notice for notice in opening.notices)
    journal.append(Commit(lines(3001, 1)))
    assert read_all(journal) == list(range(1, 3002))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(JournalRefused):
        journal_at().open()
    journal.close()
    again = journal_at()
    assert (again.open().head, again.page(Query(3000, ALL, 9)).seqs) == (3001, [3001])
    assert sorted(p.name for p in path.parent.iterdir() if "found" not in p.name) == [
        "journal.db",
        "journal.db-shm",
        "journal.db-wal",
        "journal.db.lock",
    ]


def test_a_file_put_in_the_journals_place_is_kept_aside(journal_at, lines, tmp_path):
    """Somebody moved another file there: it is not destroyed, and the journal is written again beside it."""
    journal = write_some(journal_at, lines)
    other = tmp_path / "other"
    other.write_text("somebody's file")
    other.replace(journal_at.path)
    with pytest.raises(JournalLost):
        journal.append(Commit(lines(3001, 1)))
    notices = " ".join(journal.reopen().notices)
    assert "found-20260123T100000Z" in notices
    journal.append(Commit(lines(3001, 1)))
    assert read_all(journal) == list(range(1, 3002))
    kept = journal_at.path.with_name("journal.db.found-20260123T100000Z")
    assert kept.read_text() == "somebody's file"


def test_a_reopening_that_fails_halfway_is_taken_up_again(journal_at, lines, run, monkeypatch):
    """Whatever step fails, the next attempt ends with the same epoch, numbers and runs."""
    journal = write_some(journal_at, lines)
    journal.append(Commit(runs=[run(3, last_seq=5)]))
    overwrite_lines(journal_at.path)
    replacement = journal._replacement
    for part, step in ((replacement, "salvage"), (replacement, "_write_again"), (journal, "_take_over")):
        with monkeypatch.context() as patch:

            def fail(*args, **kwargs):
                raise JournalError("disk full")

            patch.setattr(part, step, fail)
            with pytest.raises(JournalError, match="disk full"):
                journal.reopen()
        with pytest.raises(JournalError):
            journal.append(Commit(lines(3001, 1)))
    opening = journal.reopen()
    assert (opening.epoch, opening.head, opening.runs) == ("abc123", 3000, [run(3, last_seq=5)])
    assert sum("set aside" in notice for notice in opening.notices) == 1
    journal.append(Commit(lines(3001, 1)))
    assert read_all(journal)[-1] == 3001


@pytest.mark.parametrize("step", ["set_aside", "put_in_place"])
def test_a_relay_that_is_ended_while_it_saves_a_journal_loses_nothing(journal_at, lines, monkeypatch, step):
    """Before the damaged file is set aside, or between that and the new one's taking its place."""
    write_some(journal_at, lines).close()
    with journal_at.path.open("r+b") as file:
        file.write(b"\0" * 50)
    ended = journal_at()
    with monkeypatch.context() as patch:

        def end(*_args):
            raise KeyboardInterrupt

        patch.setattr(ended._file, step, end)
        with pytest.raises(KeyboardInterrupt):
            ended.open()
    assert journal_at.path.exists() is (step == "set_aside")
    opening = journal_at().open()
    assert opening.head == 3000
    assert not journal_at.path.with_name("journal.db.salvaged").exists()
    assert len(list(journal_at.path.parent.glob("*.corrupt-*"))) == 1
