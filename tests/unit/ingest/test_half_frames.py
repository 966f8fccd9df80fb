"""Who has waited longest for the end of a frame makes room, and nobody else."""

from __future__ import annotations

import pytest

from logrelay.ingest.half_frames import HALF_FRAMES_BYTES, HalfFrames


def test_who_has_waited_longest_makes_room():
    """Only beyond the bound; a frame that grows keeps its place, another one begins anew at the end."""
    half_frames = HalfFrames(100)
    assert half_frames.charge("one", 50, is_new=True) is None
    assert half_frames.charge("two", 40, is_new=True) is None
    assert half_frames.charge("three", 10, is_new=True) is None
    assert half_frames.total == 100
    assert half_frames.charge("one", 45, is_new=True) is None
    assert half_frames.charge("two", 45, is_new=False) is None
    assert half_frames.total == 100
    assert half_frames.charge("three", 11, is_new=False) == "two"
    assert half_frames.total == 56
    assert half_frames.charge("three", 56, is_new=False) == "three", "it began before the frame that one has now"
    assert half_frames.total == 45


@pytest.mark.parametrize("is_new", [True, False])
def test_who_grows_too_much_alone_makes_room_itself(is_new):
    """There is nobody else."""
    half_frames = HalfFrames(100)
    assert half_frames.charge("one", 101, is_new=is_new) == "one"
    assert half_frames.total == 0
    assert half_frames.charge("one", 100, is_new=is_new) is None


def test_what_is_complete_or_over_counts_no_longer():
    """Nor does one that makes room for others."""
    half_frames = HalfFrames()
    for _ in range(3):
        assert half_frames.charge("one", HALF_FRAMES_BYTES, is_new=True) is None
        assert half_frames.charge("one", 0, is_new=False) is None
        assert half_frames.total == 0
        assert half_frames.charge("two", HALF_FRAMES_BYTES, is_new=True) is None
        half_frames.forget("two")
        half_frames.forget("two")
        assert half_frames.total == 0
    assert half_frames.charge("one", 5, is_new=True) is None
    assert half_frames.charge("two", HALF_FRAMES_BYTES, is_new=True) == "one"
    half_frames.forget("one")
    assert half_frames.total == HALF_FRAMES_BYTES
    assert half_frames.charge("two", 0, is_new=True) is None
    assert half_frames.charge("three", HALF_FRAMES_BYTES + 1, is_new=True) == "three"
