"""When a part of the relay counts as stuck, with time as an argument."""

from __future__ import annotations

from logrelay.progress import LEAST_LOOKS, Progress, Work


def test_a_part_without_progress_is_stuck_after_some_looks():
    """Its age should count from the first look at its work."""
    progress = Progress()

    ages = [progress.look({"journal": Work(True, 5)}, mono) for mono in (10.0, 25.0, 40.0, 55.0)]
    assert LEAST_LOOKS == 3
    assert ages == [{}, {}, {"journal": 30.0}, {"journal": 45.0}]


def test_whoever_finishes_something_is_not_stuck():
    """However much is left: a busy relay always has work."""
    progress = Progress()

    assert [progress.look({"ingest": Work(True, n)}, n * 15.0) for n in range(10)] == [{}] * 10


def test_a_part_that_goes_on_is_not_stuck_any_more():
    """It begins anew, with one more piece done or with nothing left to do."""
    progress = Progress()
    for finished in (True, False):
        for mono in (0.0, 15.0, 30.0):
            stuck = progress.look({"fan-out": Work(True, 5)}, mono)
        assert stuck
        assert progress.look({"fan-out": Work(finished, 6)}, 45.0) == {}
        assert progress.look({"fan-out": Work(True, 5)}, 60.0) == {}


def test_each_part_is_looked_at_by_itself():
    """One that is well should not hide one that is not."""
    progress = Progress()
    for mono in (0.0, 1.0, 2.0):
        stuck = progress.look({"ingest": Work(True, int(mono)), "journal": Work(True, 1)}, mono)

    assert stuck == {"journal": 2.0}
