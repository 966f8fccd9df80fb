"""How long the log sockets are left alone between two reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logrelay.ingest.read_coalescing import (
    COMMIT_S,
    FULL_BYTES,
    FULL_BYTES_PER_VIEWER,
    LONE_S,
    MAX_REST_S,
    REST_S,
    VIEWER_WRITE_S,
    rest_after,
)

MANY = 500
"""Viewers whose writes take longer than a rest."""


@pytest.mark.parametrize(
    ("read", "viewers", "since_s", "rest"),
    [
        (300, 0, 0.001, REST_S),
        (300, 1, LONE_S - 0.001, REST_S),
        (300, 1, LONE_S, 0.0),
        (300, 4096, LONE_S, 0.0),
        (300, 100, 0.001, REST_S),
        (300, MANY, 0.001, COMMIT_S + MANY * VIEWER_WRITE_S),
        (300, 4096, 0.001, MAX_REST_S),
        (FULL_BYTES - 1, 1, 0.001, REST_S),
        (FULL_BYTES, 1, 0.001, 0.0),
        (100 * FULL_BYTES_PER_VIEWER - 1, 100, 0.001, REST_S),
        (100 * FULL_BYTES_PER_VIEWER, 100, 0.001, 0.0),
        (10**9, 0, 0.001, 0.0),
    ],
)
def test_a_rest_follows_lines_that_come_close_together(read, viewers, since_s, rest):
    """It grows with the viewers, within bounds; a line that comes alone and a tick that read much have none."""
    assert rest_after(read, viewers, since_s=since_s) == pytest.approx(rest)


@given(st.integers(0, 10**9), st.integers(0, 10**5), st.floats(0.0, 1e6))
def test_the_rest_never_leaves_its_bounds(read, viewers, since_s):
    """However many viewers there are."""
    rest = rest_after(read, viewers, since_s=since_s)
    assert rest == 0.0 or REST_S <= rest <= MAX_REST_S
    assert rest > 0.0 or read >= FULL_BYTES or since_s >= LONE_S


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_viewers_never_mean_less_rest(one, two):
    less, more = sorted((one, two))
    assert rest_after(0, less, since_s=0.0) <= rest_after(0, more, since_s=0.0)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**4))
def test_more_bytes_never_mean_more_rest(one, two, viewers):
    """The more had piled up, the less there is to wait for."""
    less, more = sorted((one, two))
    assert rest_after(less, viewers, since_s=0.0) >= rest_after(more, viewers, since_s=0.0)
