"""When people are told that the log is held or the disk low: once, and once more when it is over."""

from __future__ import annotations

import pytest

from logrelay.journal.interface import Room
from logrelay.journal.room_watch import (
    LOW_LOOK_S,
    PINNED_AFTER_S,
    PINNED_SHARES,
    RETRY_S,
    TELL_AGAIN_S,
    RoomWatch,
)
from logrelay.model import ERROR, WARNING

SHARE = 1 << 20
LONG = PINNED_SHARES * SHARE + 1
WANTED = 100 << 20
NEVER = float("inf")


@pytest.fixture
def watch():
    """Return a watch over a journal that nobody can be seen to read in."""
    return RoomWatch("/j.db", list)


def held(watch, now, size=LONG):
    watch.note_checkpoint(now, log_bytes=size, share=SHARE, whole=False)


def states(watch, now):
    return [notice.details["state"] for notice in watch.take_notices(now)]


def test_a_short_log_is_no_news_however_long_it_is_held(watch):
    """Whoever reads for an hour does no harm while nothing is written."""
    held(watch, 0, LONG - 1)
    assert states(watch, 3600) == []
    assert (watch.room(3600), watch.look_in_s()) == (Room(LONG - 1), NEVER)
    assert not watch.checkpoint_due(3600)


def test_a_long_log_is_no_news_before_it_was_held_for_a_while(watch):
    """A backup, or a page that somebody reads."""
    held(watch, 100)
    assert watch.look_in_s() == RETRY_S
    assert states(watch, 100 + PINNED_AFTER_S - 0.1) == []
    assert watch.room(100 + PINNED_AFTER_S - 0.1).log_pinned_s == 0
    assert states(watch, 100 + PINNED_AFTER_S) == ["log_pinned"]
    assert watch.room(100 + PINNED_AFTER_S) == Room(LONG, PINNED_AFTER_S)


def test_a_checkpoint_is_tried_now_and_then_while_the_log_is_held(watch):
    """Its end would else be noticed with the next lines only."""
    held(watch, 0)
    assert not watch.checkpoint_due(RETRY_S - 0.1)
    assert watch.checkpoint_due(RETRY_S)
    held(watch, RETRY_S)
    assert not watch.checkpoint_due(RETRY_S + 1)


def test_the_time_counts_from_the_first_checkpoint_that_could_not_finish(watch):
    """One that moves everything ends it."""
    held(watch, 0)
    held(watch, 8)
    assert watch.is_pinned(PINNED_AFTER_S)
    watch.note_checkpoint(9, log_bytes=LONG, share=SHARE, whole=True)
    assert not watch.is_pinned(PINNED_AFTER_S)
    held(watch, 12)
    assert not watch.is_pinned(15)


def test_who_holds_it_is_said_where_it_can_be_seen():
    """Else, how it can be found out."""
    for holders, said in (
        (["process 7 (sqlite3)", "process 8"], "process 7 (sqlite3), process 8; end its transaction"),
        ([], "not to be seen from here, logrelay check as root names it; end its transaction"),
    ):
        watch = RoomWatch("/j.db", lambda holders=holders: holders)
        held(watch, 0)
        (notice,) = watch.take_notices(60)
        assert said in notice.text
        assert "reading the same state of /j.db for 60 s" in notice.text
        assert notice.details.get("processes", []) == holders
        assert notice.rank == WARNING


def test_what_comes_and_goes_is_told_now_and_then(watch):
    """Each beginning that was told has its end; the others are only in the metrics."""
    told = []
    for now in range(0, 1300, 20):
        held(watch, now)
        told += states(watch, now + PINNED_AFTER_S)
        watch.note_checkpoint(now + 15, log_bytes=0, share=SHARE, whole=True)
        told += states(watch, now + 15)
    assert told == ["log_pinned", "log_released"] * (1 + 1300 // int(TELL_AGAIN_S))


def test_a_low_disk_is_told_at_half_of_what_is_to_stay_free_and_again_at_all_of_it(watch):
    """In between the oldest lines make room, or have made some."""
    told = []
    for now, free in enumerate([WANTED, WANTED // 2, WANTED // 2 - 1, 0, WANTED - 1, WANTED]):
        watch.note_disk(free, WANTED)
        told.append(states(watch, now))
        assert watch.room(now).free_bytes == free
        assert watch.look_in_s() == (LOW_LOOK_S if watch.room(now).low else NEVER)
    assert told == [[], [], ["disk_low"], [], [], ["disk_recovered"]]


def test_a_low_disk_is_an_error_with_its_numbers(watch):
    """It stops the bot as well."""
    watch.note_disk(3 << 20, WANTED)
    (low,) = watch.take_notices(0)
    assert (low.rank, low.details) == (ERROR, {"state": "disk_low", "free": 3 << 20, "wanted": WANTED})
    assert low.text == (
        "3.0 MiB of the file system of /j.db are free, 100.0 MiB are to stay free (--keep-free): free some space; "
        "a full disk stops the bot, too"
    )
    watch.note_disk(WANTED, WANTED)
    (over,) = watch.take_notices(1)
    assert (over.rank, over.text) == (WARNING, "100.0 MiB of the file system of /j.db are free again")


@pytest.mark.parametrize(("free", "wanted"), [(0, 0), (None, 0)])
def test_nothing_is_said_where_nothing_is_to_stay_free_or_it_is_not_known(watch, free, wanted):
    """`--keep-free 0`, and file systems on a network that do not say."""
    watch.note_disk(free, wanted)
    assert states(watch, 0) == []
    assert watch.room(0) == Room(0, 0.0, free, low=False)
