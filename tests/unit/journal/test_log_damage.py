"""A damaged frame in a log that a killed relay left: what was committed behind it is found, and nothing else is."""

from __future__ import annotations

import os
import shutil

import pytest

from logrelay.errors import JournalError
from logrelay.journal import journal_file, log_damage, replacement
from logrelay.journal.interface import Query
from logrelay.journal.pages import FRAME_HEADER, LOG_HEADER, PAGE_SIZE
from logrelay.model import Commit

FRAME_BYTES = FRAME_HEADER + PAGE_SIZE
COMMITS, EACH = 8, 5
LINES = COMMITS * EACH


@pytest.fixture
def left(journal_at, lines, tmp_path):
    """Return the path of a journal as a killed relay leaves it: its newest lines are in the log only."""
    journal = journal_at(tmp_path / "running.db", boot="this boot")
    journal.open()
    for n in range(COMMITS):
        journal.append(Commit(lines(n * EACH + 1, EACH)))
    path = tmp_path / "left" / "journal.db"
    path.parent.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{tmp_path}/running.db{end}", f"{path}{end}")
    journal.close()
    return path


def frames_of(path):
    """Return the places of the frames in the log, and which of them end a commit."""
    data = path.with_name(path.name + "-wal").read_bytes()
    places = [at for at in range(LOG_HEADER, len(data), FRAME_BYTES) if data[at + 8 : at + 16] == data[16:24]]
    return places, [data[at + 4 : at + 8] != bytes(4) for at in places]


def bodies_of(journal):
    return journal.page(Query(0, LINES, 10 * LINES)).bodies


def damage(path, at, bits=4):
    with path.with_name(path.name + "-wal").open("r+b") as log:
        log.seek(at)
        byte = log.read(1)[0]
        log.seek(at)
        log.write(bytes([byte ^ bits]))


def test_a_log_that_was_left_behind_is_sound(left):
    found = log_damage.look(str(left))
    assert (found.unreached, found.meta["boot"]) == (0, "this boot")
    assert left.with_name(left.name + "-wal").exists(), "looking changes nothing"


@pytest.mark.parametrize("has_room", [True, False])
def test_a_file_whose_growth_the_power_took_back_is_not_damaged(left, journal_at, lines, monkeypatch, has_room):
    """It was made longer for the first commit, and the disk had not noted that: no page of it is missing."""
    pages = log_damage.look(str(left)).pages
    size = left.stat().st_size
    assert pages * PAGE_SIZE <= size
    used = int.from_bytes(left.read_bytes()[28:32], "big")
    os.truncate(left, used * PAGE_SIZE)
    assert used < pages
    if not has_room:
        monkeypatch.setattr(journal_file, "_allocate", lambda _descriptor, _size: None)
    journal = journal_at(left, boot="another boot", max_bytes=1 << 20)
    opening = journal.open()
    assert left.stat().st_size >= pages * PAGE_SIZE
    assert opening.head == LINES
    assert not [notice for notice in opening.notices if "damaged" in notice]
    journal.append(Commit(lines(LINES + 1, 1)))
    journal.checkpoint(idle=True)
    journal.close()


def test_no_log_is_no_damage(left):
    left.with_name(left.name + "-wal").unlink()
    assert log_damage.look(str(left)) is None


def test_a_page_number_that_is_damaged_makes_no_pages_without_end(left, journal_at):
    """It says that the file has a thousand million of them."""
    damage(left, frames_of(left)[0][3], 0x40)
    journal = journal_at(left, boot="this boot")
    opening = journal.open()
    assert (opening.head, bool(opening.notices)) == (LINES, True)
    journal.close()


@pytest.mark.parametrize("part", ["header", "salt", "page"])
@pytest.mark.parametrize("place", [0, 1, 7, -4])
def test_commits_behind_a_damaged_frame_are_saved(left, journal_at, place, part):
    """SQLite takes the frame for the end of the log."""
    places, ends = frames_of(left)
    at = places[place]
    damage(left, at + {"header": 2, "salt": 9, "page": 900}[part])
    assert log_damage.look(str(left)).unreached == (log_damage.ENOUGH if sum(ends[place + 1 :]) > 1 else 1)
    journal = journal_at(left, boot="this boot")
    opening = journal.open()
    missing = sum(last - first + 1 for first, last in journal._holes.ranges)
    kept = len(bodies_of(journal))
    journal.close()
    assert opening.head == LINES
    assert "a part of its write-ahead log" in opening.notices[0]
    assert kept + missing == LINES
    assert missing <= EACH, "the damage costs the lines of one page at most"


@pytest.mark.parametrize("at", [3, 17, 25])
def test_a_log_whose_header_is_damaged_is_not_forgotten(left, journal_at, at):
    """SQLite would not read any of it."""
    damage(left, at)
    journal = journal_at(left, boot="this boot")
    opening = journal.open()
    assert (opening.head, len(bodies_of(journal)), bool(opening.notices)) == (LINES, LINES, True)
    journal.close()


def test_the_last_frame_of_a_killed_relay_is_no_damage(left, journal_at):
    """It may have been cut off while it was written; nobody was told that its lines were kept."""
    damage(left, frames_of(left)[0][-1] + 100)
    assert log_damage.look(str(left)).unreached == 0
    journal = journal_at(left, boot="this boot")
    assert (journal.open().head, journal.damaged_lines) == (LINES - EACH, 0)
    journal.close()


@pytest.mark.parametrize(
    ("sync", "place", "is_told"),
    [("normal", -15, False), ("normal", 1, True), ("full", -15, True), ("full", -2, False)],
)
def test_a_power_cut_leaves_a_log_with_holes(journal_at, lines, tmp_path, sync, place, is_told):
    """What the disk had not yet is no damage: with sync=full only of the last commit, with normal all but the first."""
    journal = journal_at(tmp_path / "running.db", boot="this boot", sync=sync)
    journal.open()
    for n in range(COMMITS):
        journal.append(Commit(lines(n * EACH + 1, EACH)))
    path = tmp_path / "journal.db"
    for end in ("", "-wal"):
        shutil.copy(f"{tmp_path}/running.db{end}", f"{path}{end}")
    journal.close()
    damage(path, frames_of(path)[0][place] + 100)
    journal = journal_at(path, boot="another boot")
    opening = journal.open()
    assert any("write-ahead log" in notice for notice in opening.notices) == is_told
    assert (opening.head == LINES) == is_told
    journal.close()


def test_where_there_is_no_room_the_relay_starts_and_says_so(left, journal_at, monkeypatch):
    """Without the lines behind the damage: a log that nobody takes is worse."""
    damage(left, frames_of(left)[0][2] + 100)
    usage = shutil.disk_usage(left.parent)
    monkeypatch.setattr(replacement.shutil, "disk_usage", lambda _path: usage._replace(free=0))
    journal = journal_at(left, boot="this boot")
    opening = journal.open()
    assert opening.head < LINES
    assert "no room to save" in opening.notices[0]
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.reopen()
