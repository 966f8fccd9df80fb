"""How long the log sockets are left alone between two reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logrelay.ingest.read_coalescing import (
    FULL_BYTES,
    FULL_BYTES_PER_VIEWER,
    MAX_PAUSE_S,
    MIN_PAUSE_S,
    VIEWER_WRITE_S,
    pause_after,
)


@pytest.mark.parametrize(
    ("read", "viewers", "pause"),
    [
        (0, 0, MIN_PAUSE_S),
        (300, 0, MIN_PAUSE_S),
        (300, 1, MIN_PAUSE_S + VIEWER_WRITE_S),
        (300, 100, MIN_PAUSE_S + 100 * VIEWER_WRITE_S),
        (300, 4096, MAX_PAUSE_S),
        (FULL_BYTES - 1, 1, MIN_PAUSE_S + VIEWER_WRITE_S),
        (FULL_BYTES, 1, 0.0),
        (100 * FULL_BYTES_PER_VIEWER - 1, 100, MIN_PAUSE_S + 100 * VIEWER_WRITE_S),
        (100 * FULL_BYTES_PER_VIEWER, 100, 0.0),
        (10**9, 0, 0.0),
    ],
)
def test_the_pause_is_as_long_as_the_fixed_costs(read, viewers, pause):
    """A tick is followed by a pause that grows with the viewers, within bounds; a tick that read much by none."""
    assert pause_after(read, viewers) == pytest.approx(pause)


@given(st.integers(0, 10**9), st.integers(0, 10**5))
def test_the_pause_never_leaves_its_bounds(read, viewers):
    """However many viewers there are, the pause is 0 or between a millisecond and the 8 ms that latency allows."""
    pause = pause_after(read, viewers)
    assert pause == 0.0 or MIN_PAUSE_S <= pause <= MAX_PAUSE_S
    assert pause > 0.0 or read >= FULL_BYTES


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_viewers_never_mean_less_pause(one, two):
    """The pause rises with the number of viewers."""
    less, more = sorted((one, two))
    assert pause_after(0, less) <= pause_after(0, more)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**4))
def test_more_bytes_never_mean_more_pause(one, two, viewers):
    """The more had piled up, the less there is to wait for."""
    less, more = sorted((one, two))
    assert pause_after(less, viewers) >= pause_after(more, viewers)
