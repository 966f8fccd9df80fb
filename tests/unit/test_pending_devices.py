"""Positions of devices on their way into the journal: with the next commit, or at once after a burst."""

from __future__ import annotations

from logrelay.pending_devices import BURST_WRITE_S, FEW_LINES, ROWS_PER_S, PendingDevices, Place


def place(number, seq=1):
    return Place(number, "", f"d{number}", lambda: seq, connected=True)


def test_the_last_place_of_each_device_is_written_once():
    """Whatever was said in between."""
    pending = PendingDevices()
    for seq in (1, 2, 3):
        pending.note(place(1, seq), 0, 0.0)
    pending.note(place(2, 9), 0, 0.0)

    assert [(found.id, found.seq()) for found in pending.take(0.0)] == [(1, 3), (2, 9)]
    assert not pending.some
    assert pending.take(1.0) == []


def test_many_devices_do_not_go_along_with_every_commit():
    """So many rows in a second, whatever the rate of commits is; at the end all of them."""
    pending = PendingDevices()
    for number in range(1, 201):
        pending.note(place(number), 0, 0.0)
    assert len(pending.take(10.0)) == 200
    pending.note(place(1), 0, 10.0)

    assert pending.take(10.0 + 199 / ROWS_PER_S) == []
    assert len(pending.take(10.0, all_of_them=True)) == 1
    pending.note(place(1), 0, 10.0)
    assert len(pending.take(10.0 + 201 / ROWS_PER_S)) == 1


def test_after_a_burst_a_position_does_not_wait():
    """A few lines go along with what comes next; more are written at once, but not all the time."""
    pending = PendingDevices()
    pending.wrote(1, 100)

    assert not pending.note(place(1), 100 + FEW_LINES, 0.0)
    assert pending.note(place(1), 101 + FEW_LINES, 0.0)
    assert not pending.note(place(1), 200, BURST_WRITE_S / 2)
    assert pending.note(place(1), 200, BURST_WRITE_S)
    assert pending.note(place(2), 200, 9.0), "of another device nothing was written yet"
    assert not pending.note(place(3), 0, 99.0), "nor is anything known of this one"


def test_whether_there_is_anything_to_write():
    """Not before the first word, nor once it was taken."""
    pending = PendingDevices()
    assert not pending.some
    pending.note(place(1), 0, 0.0)
    assert pending.some
    pending.take(0.0)
    assert not pending.some


def test_the_bounds_are_exact():
    """As many lines as a few of a device of which nothing was written; the pause that rows take."""
    pending = PendingDevices()
    assert not pending.note(place(1), FEW_LINES, 0.0)
    assert pending.note(place(1), FEW_LINES + 1, 0.0)
    assert len(pending.take(0.0)) == 1
    pending.note(place(1), 0, 0.0)
    assert len(pending.take(1 / ROWS_PER_S)) == 1
