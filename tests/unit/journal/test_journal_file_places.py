"""The journal's files without SQLite: modes, lock, header, names, and what is written in which order."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from logrelay.errors import JournalError, JournalRefused
from logrelay.journal.journal_file import LOCK_MARK, MOST_CORRUPT, JournalFile
from logrelay.journal.schema import APPLICATION_ID, VERSION

T0_US = 1_769_162_400_000_000
STAMP = "20260123T100000Z"


@pytest.fixture
def place(tmp_path):
    """A journal's place, two directories deep, neither of which is there."""
    return tmp_path / "a" / "b" / "journal.db"


@pytest.fixture
def file(place):
    """The place, claimed."""
    claimed = JournalFile(str(place))
    claimed.claim()
    yield claimed
    claimed.release()


def header(application=APPLICATION_ID, version=VERSION, size=100):
    """Make the first bytes of an SQLite file."""
    made = bytearray(b"SQLite format 3\0".ljust(120, b"\0"))
    made[60:64] = version.to_bytes(4, "big")
    made[68:72] = application.to_bytes(4, "big")
    return bytes(made[:size])


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


def open_files():
    return len(os.listdir("/proc/self/fd"))


class TestPath:
    def test_home_and_symlinks_are_resolved(self, tmp_path, monkeypatch):
        """A relay that changes its directory, or whose link is moved, still means the same file."""
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")

        assert JournalFile("~/link/j.db").path == str(tmp_path.resolve() / "real" / "j.db")

    def test_odd_characters_do_not_end_the_uri(self, tmp_path):
        """A question mark would begin the parameters of the URI."""
        assert JournalFile(str(tmp_path / "a?b%c.db")).read_uri == f"file:{tmp_path.resolve()}/a%3Fb%25c.db?mode=ro"


class TestLock:
    def test_directory_and_lock_are_private_whatever_the_umask(self, place):
        """Nobody else learns what a bot trades."""
        before = os.umask(0)
        try:
            JournalFile(str(place)).claim()
        finally:
            os.umask(before)

        assert mode(place.parent) == 0o700
        assert mode(f"{place}.lock") == 0o600

    def test_the_lock_file_says_whose_it_is(self, place):
        """Also where a longer text stood in it, or no text at all."""
        place.parent.mkdir(parents=True)
        lock = Path(f"{place}.lock")
        for before in (b"", b"\xff\xfe" * 200, b"logrelay journal\n123456789012345\nmore"):
            lock.write_bytes(before)
            file = JournalFile(str(place))
            file.claim()
            assert lock.read_text() == f"{LOCK_MARK}\n{os.getpid()}\n"
            file.release()

    @pytest.mark.parametrize(
        ("content", "holder"), [("", ""), (f"{LOCK_MARK}\n", ""), (f"{LOCK_MARK}\n4711\n", " (process 4711)")]
    )
    def test_a_lock_that_is_held_is_refused(self, place, content, holder):
        """The holder is named where it is known; nothing stays open, and the lock file is not touched."""
        place.parent.mkdir(parents=True)
        Path(f"{place}.lock").write_text(content)
        with open(f"{place}.lock") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            before = open_files()
            with pytest.raises(JournalRefused) as caught:
                JournalFile(str(place)).claim()
            assert open_files() == before
        assert str(caught.value) == (
            f"journal {place} is in use by another relay{holder}; one relay writes a journal: "
            "stop that one, or give this one its own --journal path"
        )
        assert Path(f"{place}.lock").read_text() == content

    def test_a_released_lock_is_free_and_leaves_nothing_open(self, place):
        """Releasing twice is fine; the file stays."""
        file = JournalFile(str(place))
        before = open_files()
        file.claim()
        assert open_files() == before + 1
        file.release()
        file.release()
        assert open_files() == before
        assert Path(f"{place}.lock").exists()
        JournalFile(str(place)).claim()

    def test_reclaiming_takes_the_lock_only_where_it_was_lost(self, file, place):
        """Where the lock file is the one that is held nothing happens; where it is gone a new one is made."""
        inode = Path(f"{place}.lock").stat().st_ino
        before = open_files()
        file.reclaim()
        assert Path(f"{place}.lock").stat().st_ino == inode

        Path(f"{place}.lock").unlink()
        file.reclaim()
        assert open_files() == before, "the old one is closed"
        with pytest.raises(JournalRefused):
            JournalFile(str(place)).claim()

    def test_reclaiming_without_a_lock_takes_one(self, place):
        """Also where no lock file is."""
        file = JournalFile(str(place))
        file.reclaim()
        with pytest.raises(JournalRefused):
            JournalFile(str(place)).claim()
        file.release()

    def test_a_directory_is_no_journal(self, tmp_path):
        """The refusal proposes a file in it."""
        with pytest.raises(JournalRefused) as caught:
            JournalFile(str(tmp_path)).claim()
        assert str(caught.value) == (
            f"journal {tmp_path} is a directory; --journal takes the path of a file, for example {tmp_path}/journal.db"
        )

    def test_an_error_of_the_system_names_the_journal(self, tmp_path):
        """It can be tried again."""
        (tmp_path / "file").touch()
        with pytest.raises(JournalError, match=f"^journal {tmp_path}/file/j.db: ") as caught:
            JournalFile(str(tmp_path / "file" / "j.db")).claim()
        assert caught.value.retry


class TestHeader:
    def test_the_mark_is_that_of_every_version(self):
        """A relay has to know the lock file of an older one."""
        assert LOCK_MARK == "logrelay journal"

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (None, "missing"),
            (b"", "missing"),
            (header(), "ours"),
            (header(version=0), "ours"),
            (header(size=120), "ours"),
        ],
    )
    def test_what_may_be_opened(self, file, place, content, found):
        """A journal, an older one, or a place where one can be made."""
        if content is not None:
            place.write_bytes(content)
        assert file.inspect() == found

    @pytest.mark.parametrize("content", [b"x", header(size=99), b"s" + header()[1:]])
    def test_nonsense_is_a_damaged_journal_only_where_one_was(self, place, content):
        """The lock file of an earlier relay tells; without it the file is somebody's."""
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
        first = JournalFile(str(place))
        for look in (first.inspect, first.claim, first.claim):
            with pytest.raises(JournalRefused) as caught:
                look()
            assert str(caught.value) == (
                f"journal {place} is not a journal: the file exists and is no SQLite database; "
                "it was left alone, choose another --journal path"
            )
        assert [path.name for path in place.parent.iterdir()] == [place.name], "no lock, which would call it ours"
        Path(f"{place}.lock").write_text("logrelay journal\n1\n")
        second = JournalFile(str(place))
        second.claim()
        assert second.inspect() == "damaged"
        second.release()

    def test_a_lock_file_of_something_else_does_not_make_it_ours(self, place):
        """Only our mark does."""
        place.parent.mkdir(parents=True)
        place.write_bytes(b"x")
        Path(f"{place}.lock").write_text("another program\n")
        for look in (JournalFile(str(place)).claim, JournalFile(str(place)).claim, JournalFile(str(place)).inspect):
            with pytest.raises(JournalRefused):
                look()
        assert Path(f"{place}.lock").read_text() == "another program\n"

    def test_another_application_is_named(self, file, place):
        """Both numbers are shown, as `file` shows them."""
        place.write_bytes(header(application=0xABC))
        with pytest.raises(JournalRefused) as caught:
            file.inspect()
        assert str(caught.value) == (
            f"journal {place} is not a journal: it is an SQLite database of another application (application_id 0xabc, "
            "ours is 0x6c6f6772); it was left alone, choose another --journal path"
        )

    @pytest.mark.parametrize("version", [VERSION + 1, 1 << 24, (1 << 32) - 1])
    def test_a_newer_version_is_named(self, file, place, version):
        """And what to do about it."""
        place.write_bytes(header(version=version))
        with pytest.raises(JournalRefused) as caught:
            file.inspect()
        assert str(caught.value) == (
            f"journal {place} was written by a newer logrelay (schema version {version}, this one knows up to "
            f"{VERSION}); install that version again or choose another --journal path"
        )

    def test_a_file_that_cannot_be_read_is_an_error(self, tmp_path):
        """It names the journal."""
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "j.db"
        with pytest.raises(JournalError, match=f"^journal {path}: .*not a possible place"):
            JournalFile(str(path)).inspect()


class TestNames:
    def test_a_blank_file_is_private_and_alone(self, file, place):
        """What an earlier attempt left is gone; the journal itself stays."""
        place.write_text("journal")
        for companion in ("", "-wal", "-shm", "-journal"):
            Path(f"{place}.new{companion}").write_text("old")
        before, mask = open_files(), os.umask(0)
        try:
            path = file.blank(".new")
        finally:
            os.umask(mask)

        assert path == f"{place}.new"
        assert Path(path).read_bytes() == b""
        assert mode(path) == 0o600
        assert open_files() == before
        assert sorted(p.name for p in place.parent.iterdir()) == ["journal.db", "journal.db.lock", "journal.db.new"]

    def test_a_finished_file_is_synced_renamed_and_the_name_synced(self, file, place, monkeypatch):
        """In this order, so that a power cut leaves the old one or the whole new one; nothing stays open."""
        place.write_text("old")
        for companion in ("-wal", "-shm"):
            Path(f"{place}{companion}").write_text("old")
        Path(f"{place}.new").write_text("new")
        synced, before = [], open_files()
        monkeypatch.setattr(
            os, "fsync", lambda number: synced.append((os.readlink(f"/proc/self/fd/{number}"), place.read_text()))
        )

        file.put_in_place(f"{place}.new")

        assert synced == [(f"{place}.new", "old"), (str(place.parent), "new")]
        assert sorted(p.name for p in place.parent.iterdir()) == ["journal.db", "journal.db.lock"]
        assert open_files() == before

    def test_a_file_is_put_where_there_was_none(self, file, place):
        """No companion is missed."""
        Path(f"{place}.new").write_text("new")
        file.put_in_place(f"{place}.new")
        assert place.read_text() == "new"

    def test_a_file_set_aside_takes_its_companions_along(self, file, place):
        """The name is dated; one that is taken, be it by a companion, gets a number."""
        taken = place.with_name(f"journal.db.found-{STAMP}-2-shm")
        for expected in (f"journal.db.found-{STAMP}", f"journal.db.found-{STAMP}-3", f"journal.db.found-{STAMP}-4"):
            for companion in ("", "-wal", "-shm"):
                Path(f"{place}{companion}").write_text(companion)
            assert file.set_aside("found", T0_US) == expected
            for companion in ("", "-wal", "-shm"):
                assert Path(f"{place.parent}/{expected}{companion}").read_text() == companion
                assert not Path(f"{place}{companion}").exists()
            taken.touch()

    def test_the_date_in_a_name_is_utc(self, file, place, monkeypatch):
        """Its Z says so, wherever the relay runs."""
        place.touch()
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        try:
            assert file.set_aside("found", T0_US) == f"journal.db.found-{STAMP}"
        finally:
            monkeypatch.undo()
            time.tzset()

    @pytest.mark.parametrize("reason", ["corrupt", "found"])
    def test_only_the_newest_damaged_files_are_kept(self, file, place, reason):
        """Whole, with their companions; what is not damaged but somebody's is kept always."""
        for second in range(MOST_CORRUPT + 2):
            for companion in ("", "-wal", "-shm"):
                Path(f"{place}{companion}").touch()
            file.set_aside(reason, T0_US + second * 1_000_000)
        kept = range(2 if reason == "corrupt" else 0, MOST_CORRUPT + 2)

        assert sorted(p.name for p in place.parent.iterdir()) == sorted(
            [
                f"journal.db.{reason}-20260123T10000{second}Z{companion}"
                for second in kept
                for companion in ("", "-wal", "-shm")
            ]
            + ["journal.db.lock"]
        )


class TestWatch:
    @pytest.mark.parametrize("companion", ["", "-wal", "-shm"])
    def test_a_deleted_or_replaced_file_is_noticed(self, file, place, companion):
        """Each of the three that SQLite has open; what is written into them is no change."""
        paths = [Path(f"{place}{c}") for c in ("", "-wal", "-shm")]
        for path in paths:
            path.touch()
        file.remember()
        paths[0].write_text("more")
        assert not file.moved()

        one = Path(f"{place}{companion}")
        one.rename(f"{one}.away")
        assert file.moved()
        one.touch()
        assert file.moved()
        Path(f"{one}.away").rename(one)
        assert not file.moved()

    def test_a_link_that_leads_nowhere_exists(self, file, place):
        """It has the journal's name."""
        assert not file.exists()
        place.symlink_to("/nowhere")
        assert file.exists()

    def test_the_size_is_that_of_all_files(self, file, place):
        """One that is not there has none."""
        assert file.disk_bytes() == 0
        place.write_bytes(b"x" * 5)
        Path(f"{place}-wal").write_bytes(b"x" * 70)
        assert file.disk_bytes() == 75
        Path(f"{place}-shm").write_bytes(b"x" * 900)
        assert file.disk_bytes() == 975
