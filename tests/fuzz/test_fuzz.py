"""A part of the random inputs, always the same ones; `make fuzz` makes others, and more."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.fuzz.cases import Case, Connection, Piece, shrink
from tests.fuzz.lanes import LANES, run_lane
from tests.fuzz.real import run_real

FULL = os.environ.get("CHAOS") == "full"
SEED = 11
IN_PROCESS = 100_000 if FULL else 4_000
OVER_SOCKETS = 10_000 if FULL else 300


@pytest.mark.parametrize("listener", LANES)
def test_whatever_comes_is_answered_as_documented(listener):
    """Nothing is raised, every answer is well-formed, and every line is accounted for."""
    outcome = run_lane(listener, seed=SEED, inputs=IN_PROCESS)
    assert outcome.faults == []
    assert outcome.inputs == IN_PROCESS


@pytest.mark.parametrize("listener", LANES)
def test_a_real_relay_goes_on_for_the_others(listener):
    """Exactly once for the healthy, no traceback, no internal error, and the memory comes back."""
    outcome = run_real(listener, seed=SEED, inputs=OVER_SOCKETS, seconds=float("inf"))
    assert outcome.faults == []
    assert outcome.inputs == OVER_SOCKETS


@pytest.mark.parametrize("listener", LANES)
def test_a_seed_is_always_the_same_input(listener):
    """Else nobody could have a fault again."""
    make, _ = LANES[listener]
    assert [make(Random(seed)) for seed in range(50)] == [make(Random(seed)) for seed in range(50)]


def test_a_failing_input_is_made_smaller():
    """Down to what makes it fail."""
    pieces = tuple(Piece(bytes([number]) * 50) for number in range(20))
    case = Case((Connection(pieces, (3,)), Connection(pieces)))
    small = shrink(case, lambda one: any(b"\x07" in piece.data for each in one.connections for piece in each.pieces))
    assert [piece.data for connection in small.connections for piece in connection.pieces] == [b"\x07"]


@pytest.mark.parametrize(
    ("listener", "break_it"),
    [
        ("socket", "logrelay.ingest.trader_registry.TraderRegistry._add_unexplained_gap"),
        ("socket", "logrelay.ingest.frames.Unpackers.renew_scanner"),
        ("port", "logrelay.viewers.session.Session.connection_lost"),
        ("port", "logrelay.viewers.requests._as_lists"),
    ],
)
def test_a_fault_is_found(listener, break_it, monkeypatch):
    """What does nothing any more should be noticed, and told with what shows it again."""
    monkeypatch.setattr(break_it, lambda *_: None)
    outcome = run_lane(listener, seed=SEED, inputs=3_000)
    assert outcome.faults
    assert f"make fuzz ARGS='--{listener} --seed " in outcome.faults[0]
