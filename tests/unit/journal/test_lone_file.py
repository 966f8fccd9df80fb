"""The file of lone commits: what is written is read again, and what is not whole is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from logrelay.errors import JournalRefused
from logrelay.journal import lone_file
from logrelay.journal.lone_file import LoneFile, following, left_over, read
from logrelay.model import Commit


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal.db")


@pytest.fixture
def commits(lines, run):
    return [Commit(lines(seq, 1), [run(1, last_seq=seq)]) for seq in range(11, 16)]


def write(path, commits, epoch="abc123"):
    file = LoneFile(path)
    assert all(file.add(epoch, commit) for commit in commits)
    file.close()


def told(commits):
    return [
        (line.seq, line.time_us, line.level, line.source, line.run, line.body, line.app)
        for c in commits
        for line in c.lines
    ]


def test_what_is_written_is_read(path, commits):
    """With its epoch, lines and runs."""
    write(path, commits)
    found = read(path)
    assert [epoch for epoch, _, _ in found.records] == ["abc123"] * 5
    assert not found.unread
    missing = following(found, "abc123", 10)
    assert told(missing) == told(commits)
    assert [commit.runs for commit in missing] == [commit.runs for commit in commits]


def test_only_what_follows_without_a_hole_counts(path, commits):
    """What SQLite has is passed over; behind a missing one nothing counts, nor does another epoch's."""
    write(path, commits[:2] + commits[3:])
    assert told(following(read(path), "abc123", 11)) == told(commits[1:2])
    assert following(read(path), "abc123", 9) == following(read(path), "def456", 10) == []
    found = read(path)
    assert not left_over(found, 15)
    assert left_over(found, 12)


@pytest.mark.parametrize("kind", ["cut", "flipped"])
def test_no_damage_makes_up_a_line(path, commits, kind):
    """At any byte: what is in front of it is read, and nothing behind it."""
    write(path, commits)
    file = Path(path + lone_file.SUFFIX)
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        file.write_bytes(whole[:at] if kind == "cut" else whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        found = read(path)
        kept = told(following(found, "abc123", 10))
        assert kept == told(commits)[: len(kept)]
        assert len(kept) < len(commits)
        assert found.unread or kind == "cut"


def test_half_a_record_is_taken_back(path, commits, monkeypatch):
    """A disk with room for a part of it: nothing was written, and the next one is whole."""
    file = LoneFile(path)
    assert file.add("abc123", commits[0])
    with monkeypatch.context() as patch:
        real = os.write
        patch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
        assert not file.add("abc123", commits[1])
    assert file.add("abc123", commits[1])
    file.close()
    assert told(following(read(path), "abc123", 10)) == told(commits[:2])


def test_behind_half_a_record_that_stays_nothing_is_written(path, commits, monkeypatch):
    """Until the file is cut, or made anew."""
    file = LoneFile(path)
    assert file.add("abc123", commits[0])
    with monkeypatch.context() as patch:
        real = os.write
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:9]))
        patch.setattr(os, "ftruncate", lambda _fd, _size: (_ for _ in ()).throw(OSError(5, "I/O error")))
        assert not file.add("abc123", commits[1])
    assert not file.add("abc123", commits[1])
    found = read(path)
    assert told(following(found, "abc123", 10)) == told(commits[:1])
    assert len(found.unread) == 9
    file.clear()
    assert file.add("abc123", commits[1])
    assert told(following(read(path), "abc123", 11)) == told(commits[1:2])
    file.close()


def test_a_file_that_was_deleted_is_made_anew(path, commits):
    """Once SQLite has what was in it."""
    file = LoneFile(path)
    assert file.add("abc123", commits[0])
    Path(path + lone_file.SUFFIX).unlink()
    file.clear()
    assert file.add("abc123", commits[1])
    file.close()
    assert told(following(read(path), "abc123", 11)) == told(commits[1:2])


def test_a_file_of_somebody_else_is_left_alone(path, commits, tmp_path):
    """A link to another file is not written to, and not read; one that everybody may write to is not believed."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    Path(path + lone_file.SUFFIX).symlink_to(victim)
    assert not LoneFile(path).add("abc123", commits[0])
    assert victim.read_bytes() == b"mine"
    with pytest.raises(JournalRefused, match="symbolic link"):
        read(path)


def test_it_is_private(path, commits):
    """Like the journal."""
    write(path, commits)
    assert Path(path + lone_file.SUFFIX).stat().st_mode & 0o777 == 0o600
    lone_file.delete(path)
    assert read(path) == lone_file.Found([], b"")
    lone_file.delete(path)


def test_a_file_that_everybody_may_write_to_is_refused(path, commits):
    """By the relay; a command that only reads shows what there is."""
    write(path, commits)
    Path(path + lone_file.SUFFIX).chmod(0o666)
    with pytest.raises(JournalRefused, match="everybody may write"):
        read(path)
    assert len(read(path, checked=False).records) == 5


def test_what_lies_there_is_never_cut(path, commits):
    """It is what another relay has written, or waits for the next opening: this one does without."""
    write(path, commits)
    assert not LoneFile(path).add("abc123", commits[0])
    assert len(read(path).records) == 5


def test_whoever_may_read_the_journal_may_read_it(path, commits):
    """As SQLite has it for its log."""
    Path(path).write_bytes(b"")
    Path(path).chmod(0o640)
    os.chown(path, -1, os.getgid())
    write(path, commits[:1])
    status = Path(path + lone_file.SUFFIX).stat()
    assert (status.st_mode & 0o777, status.st_gid) == (0o640, os.getgid())


def test_what_is_set_aside_is_kept_by_date(path, commits):
    """Twice in a second as well; each has what the journal lacks, and nothing that it has."""
    for n in (1, 2):
        write(path, commits)
        with Path(path + lone_file.SUFFIX).open("ab") as file:
            file.write(b"torn")
        name = lone_file.set_aside(path, lone_file.left_over(read(path), 15), 1_769_162_400_000_000)
        assert name == "journal.db.lone-20260123T100000Z" + ("-2" if n == 2 else "")
        assert Path(path).with_name(name).read_bytes() == b"torn"
        assert not Path(path + lone_file.SUFFIX).exists()
