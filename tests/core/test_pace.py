"""How long the log sockets are left alone between two reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logrelay.pace import FULL_BYTES, MAX_REST_S, MIN_REST_S, rest_after


@pytest.mark.parametrize(
    ("read", "worked", "rest"),
    [
        (0, 0.0, MIN_REST_S),
        (300, 0.0001, MIN_REST_S),
        (300, MIN_REST_S, MIN_REST_S),
        (300, 0.003, 0.003),
        (300, MAX_REST_S, MAX_REST_S),
        (300, 5.0, MAX_REST_S),
        (FULL_BYTES - 1, 0.002, 0.002),
        (FULL_BYTES, 0.002, 0.0),
        (10**9, 5.0, 0.0),
        (300, -1.0, MIN_REST_S),
    ],
)
def test_the_rest_is_as_long_as_the_work(read, worked, rest):
    """A tick is followed by a rest as long as it took, within bounds; a tick that read much by none."""
    assert rest_after(read, worked) == rest


@given(st.integers(0, 10**9), st.floats(allow_nan=False))
def test_the_rest_never_leaves_its_bounds(read, worked):
    """Whatever the clock says, the rest is 0 or between a millisecond and the 8 ms that latency allows."""
    rest = rest_after(read, worked)
    assert rest == 0.0 or MIN_REST_S <= rest <= MAX_REST_S
    assert (rest == 0.0) == (read >= FULL_BYTES)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_work_never_means_less_rest(one, two):
    """The rest rises with the time a tick took."""
    less, more = sorted((one, two))
    assert rest_after(0, less) <= rest_after(0, more)
