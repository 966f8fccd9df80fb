"""Who is seen to hold SQLite's locks on a file."""

from __future__ import annotations

import os

import pytest

from logrelay.journal.lock_holders import MOST_SHOWN, Holder, readers_of


@pytest.fixture
def journal(tmp_path):
    """Return the path of a journal whose index is there."""
    (tmp_path / "j.db-shm").write_bytes(b"")
    return str(tmp_path / "j.db")


def place(journal, device=None):
    status = os.stat(journal + "-shm")
    device = device or f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return f"{device}:{status.st_ino}"


def read(tmp_path, journal, *rows):
    (tmp_path / "locks").write_text("".join(f"{n}: {row}\n" for n, row in enumerate(rows, 1)))
    return [holder.pid for holder in readers_of(journal, besides=99, locks=str(tmp_path / "locks"))]


def test_readers_are_those_with_a_lock_on_a_state_of_the_log(tmp_path, journal):
    """Not the writer, not who has only opened it, not this process, not other files, nobody who waits."""
    at = place(journal)
    rows = [
        *(f"POSIX  ADVISORY  READ {byte} {at} {byte} {byte}" for byte in range(120, 129)),
        f"POSIX  ADVISORY  READ 99 {at} 124 124",
        f"POSIX  ADVISORY  READ 0 {at} 124 124",
        f"POSIX  ADVISORY  READ 7 {at}9 124 124",
        f"FLOCK  ADVISORY  WRITE 7 {at} 124 124",
        f"-> POSIX  ADVISORY  READ 7 {at} 124 124",
        f"POSIX  ADVISORY  READ 7 {at} 0 EOF",
        "nonsense",
    ]
    assert read(tmp_path, journal, *rows) == [123, 124, 125, 126, 127]


def test_where_devices_do_not_match_the_number_of_the_file_decides(tmp_path, journal):
    """As under overlayfs; where one does match, it is the one."""
    other, same = place(journal, "00:99"), place(journal)
    rows = [f"POSIX  ADVISORY  READ 5 {other} 124 124"]
    assert read(tmp_path, journal, *rows) == [5]
    assert read(tmp_path, journal, *rows, f"POSIX  ADVISORY  READ 6 {same} 124 124") == [6]


def test_there_is_an_end_to_the_list(tmp_path, journal):
    """And a process is named once."""
    rows = [f"POSIX  ADVISORY  READ {pid} {place(journal)} 124 124" for pid in (1, *range(1, 20))]
    assert read(tmp_path, journal, *rows) == list(range(1, 1 + MOST_SHOWN))


def test_where_nothing_is_told_nobody_is_seen(tmp_path, journal):
    """No list, no index, bytes that are no text."""
    assert readers_of(journal, besides=0, locks=str(tmp_path / "none")) == []
    (tmp_path / "locks").write_bytes(b"\xff")
    assert readers_of(journal, besides=0, locks=str(tmp_path / "locks")) == []
    assert readers_of(str(tmp_path / "other.db"), besides=0) == []


def test_a_process_is_shown_with_its_name_where_there_is_one():
    """A number alone, where names may not be seen."""
    assert str(Holder(7, "sqlite3")) == "process 7 (sqlite3)"
    assert str(Holder(7, "")) == "process 7"
