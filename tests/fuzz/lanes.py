"""Runs many inputs in this process, and says which of them showed a fault.

Owns: `run_lane`, its count, its faults and its look at the memory. An input is its seed: the number of the first one
plus its place. Read `real` next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from tests.fuzz import port_inputs, socket_inputs
from tests.fuzz.cases import Case, shrink
from tests.fuzz.port_lane import PortLane
from tests.fuzz.socket_lane import SocketLane

MOST_FAULTS = 5
"""After so many there is something to do first."""

LOOK_INPUTS = 5_000
"""Inputs between two looks at the memory and two words on progress."""

WARM_INPUTS = 30_000
"""After so many, every cache and every buffer has the size that it keeps."""

GROWTH_BYTES = 48 << 20
"""What the memory of this process may grow by after that."""

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Lane(Protocol):
    """Checks inputs for one listener."""

    def check(self, case: Case) -> str | None:
        """Return what does not hold, or None."""

    def close(self) -> None:
        """Release what is held."""


LANES: dict[str, tuple[Callable[[Random], Case], Callable[[], Lane]]] = {
    "socket": (socket_inputs.make_case, SocketLane),
    "port": (port_inputs.make_case, PortLane),
}
"""The log socket and the viewers' port: what makes their inputs and what checks them."""


@dataclass
class LaneOutcome:
    """What became of a number of inputs."""

    listener: str
    inputs: int = 0
    seconds: float = 0.0
    rss_warm: int = 0
    rss_after: int = 0
    faults: list[str] = field(default_factory=list)


def rss() -> int:
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def run_lane(
    listener: str,
    *,
    seed: int,
    inputs: int,
    seconds: float = float("inf"),
    progress: Callable[[LaneOutcome], None] = lambda _: None,
) -> LaneOutcome:
    """Check inputs until there were so many, the time is over, or there are `MOST_FAULTS` faults."""
    make, make_lane = LANES[listener]
    outcome, began = LaneOutcome(listener), time.monotonic()
    lane = make_lane()
    try:
        while outcome.inputs < inputs and outcome.seconds < seconds and len(outcome.faults) < MOST_FAULTS:
            case = make(Random(seed + outcome.inputs))
            fault = lane.check(case)
            if fault is not None:
                outcome.faults.append(_report(listener, seed + outcome.inputs, case, fault, lane))
            outcome.inputs += 1
            if outcome.inputs % LOOK_INPUTS == 0:
                outcome.seconds = time.monotonic() - began
                if outcome.inputs <= WARM_INPUTS:
                    outcome.rss_warm = rss()
                progress(outcome)
    finally:
        lane.close()
    outcome.seconds, outcome.rss_after = time.monotonic() - began, rss()
    if outcome.inputs > WARM_INPUTS and outcome.rss_after > outcome.rss_warm + GROWTH_BYTES:
        outcome.faults.append(f"memory grew from {outcome.rss_warm >> 20} to {outcome.rss_after >> 20} MB")
    return outcome


def _report(listener: str, seed: int, case: Case, fault: str, lane: Lane) -> str:
    """Say what failed, with a smaller input that fails as well, and how to have it again."""
    small = shrink(case, lambda candidate: lane.check(candidate) is not None)
    return (
        f"{fault}\n  again: make fuzz ARGS='--{listener} --seed {seed} --inputs 1'"
        f"\n  smaller, with: {lane.check(small)}\n{small}"
    )
