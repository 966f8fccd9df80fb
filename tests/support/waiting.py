"""How tests wait: one deadline for everything, and conditions instead of pauses.

Owns: `DEADLINE_S` and `wait_for`. It must not know what is waited for. Read `threads` next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = float(os.environ.get("TEST_DEADLINE_S", "60"))
"""How long anything may take before a test gives up. It costs nothing while tests pass, and the machine may be busy
with other things: so it is far above what any step takes, and well below pytest's own limit for a test."""

LOOK_S = 0.004
"""The pause between two looks at a condition that nothing announces."""

Result = TypeVar("Result")


def wait_for(
    condition: Callable[[], Result], what: str | Callable[[], str] = "the condition", deadline_s: float = DEADLINE_S
) -> Result:
    """Return the first true value of `condition()`; fail with `what`, which may be a function, after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what() if callable(what) else what}")
        time.sleep(LOOK_S)
