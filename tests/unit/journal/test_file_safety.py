"""Links, files of others and files for everybody are refused, and not a byte of them changes."""

from __future__ import annotations

import os

import pytest

from logrelay.errors import JournalRefused
from logrelay.journal import file_safety
from logrelay.model import Commit

PRECIOUS = b"my own notes"
COMPANIONS = ["", "-wal", "-shm", ".lock"]


@pytest.fixture
def place(journal_at):
    """Return the path of a file beside the journal, whose directory is there."""
    journal_at.path.parent.mkdir(exist_ok=True)
    return lambda companion: journal_at.path.with_name(journal_at.path.name + companion)


@pytest.mark.parametrize("companion", ["-wal", "-shm", ".lock"])
def test_a_link_is_not_followed(journal_at, place, tmp_path, companion):
    """A link in the place of the lock had the relay overwrite its user's own file."""
    target = tmp_path / "notes"
    target.write_bytes(PRECIOUS)
    place(companion).symlink_to(target)
    with pytest.raises(JournalRefused, match=r"is a symbolic link.*choose another --journal path") as error:
        journal_at().open()
    assert error.value.exit_code == 4
    assert target.read_bytes() == PRECIOUS


def test_a_link_to_nothing_makes_nothing(journal_at, place, tmp_path):
    place(".lock").symlink_to(tmp_path / "new")
    with pytest.raises(JournalRefused):
        journal_at().open()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("companion", COMPANIONS)
def test_what_everybody_may_write_is_refused(journal_at, lines, place, companion):
    journal = journal_at()
    journal.open()
    journal.append(Commit(lines(1, 3)))
    journal.close()
    path = place(companion)
    path.touch()
    path.chmod(0o666)
    before = path.read_bytes()
    with pytest.raises(JournalRefused, match=r"everybody may write to it \(mode 0666\)"):
        journal_at().open()
    assert path.read_bytes() == before
    path.chmod(0o660)
    again = journal_at()
    again.open()


@pytest.mark.parametrize("companion", COMPANIONS)
def test_a_file_with_two_names_is_refused(journal_at, place, tmp_path, companion):
    other = tmp_path / "notes"
    other.write_bytes(PRECIOUS)
    place(companion).hardlink_to(other)
    with pytest.raises(JournalRefused, match="it has 2 names"):
        journal_at().open()
    assert other.read_bytes() == PRECIOUS


@pytest.mark.parametrize("companion", COMPANIONS)
def test_what_is_no_file_is_refused(journal_at, place, companion):
    os.mkfifo(place(companion))
    with pytest.raises(JournalRefused, match="it is no regular file"):
        journal_at().open()


@pytest.mark.parametrize("companion", COMPANIONS)
def test_the_file_of_another_user_is_refused(journal_at, place, monkeypatch, companion):
    """Root's is taken: an administrator may have put it there."""
    path = place(companion)
    path.touch(mode=0o600)
    owner = path.stat().st_uid
    if owner == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(file_safety.os, "geteuid", lambda: owner + 1)
    with pytest.raises(JournalRefused, match=r"belongs to another user \(uid"):
        journal_at().open()


def test_the_lock_is_free_after_a_refusal(journal_at, place):
    """Once the file is gone another attempt succeeds, in the same process too."""
    place("-wal").symlink_to("/nowhere")
    with pytest.raises(JournalRefused):
        journal_at().open()
    place("-wal").unlink()
    assert journal_at().open().head == 0
