"""Conditions with deadlines, and how often to do things.

Owns: `wait_for`, `scaled`. Read `relay` next.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = float(os.environ.get("CHAOS_DEADLINE_S", "30"))
"""How long anything may take before the test gives up; generous, because the machine may be busy with other things."""

LOOK_S = 0.004
"""Pause between two looks at a condition that nothing announces."""

FULL = os.environ.get("CHAOS") == "full"
"""CHAOS=full (make chaos) takes the full counts; otherwise CI's."""

SEED = int(os.environ.get("CHAOS_SEED", "20260123"))
"""Where the random choices begin; what is asserted does not depend on them."""

Result = TypeVar("Result")


def scaled(ci: int, full: int) -> int:
    """Return how often to do something."""
    return full if FULL else ci


def chance(name: str) -> random.Random:
    """Return the random choices of one test, the same in every run with the same CHAOS_SEED."""
    return random.Random(f"{SEED} {name}")


def wait_for(condition: Callable[[], Result], what: str | Callable[[], str], deadline_s: float = DEADLINE_S) -> Result:
    """Wait until `condition()` is true and return its value; fail with `what` after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what() if callable(what) else what}")
        time.sleep(LOOK_S)
