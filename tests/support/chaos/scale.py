"""How often to do things, and the random choices.

Owns: `scaled`, `chance`, and what the environment says about both. Read `relay` next.
"""

from __future__ import annotations

import os
import random

FULL = os.environ.get("CHAOS") == "full"
"""CHAOS=full (make chaos) takes the full counts; otherwise CI's."""

SEED = int(os.environ.get("CHAOS_SEED", "20260123"))
"""Where the random choices begin; what is asserted does not depend on them."""


def scaled(ci: int, full: int) -> int:
    """Return how often to do something."""
    return full if FULL else ci


def chance(name: str) -> random.Random:
    """Return the random choices of one test, the same in every run with the same CHAOS_SEED."""
    return random.Random(f"{SEED} {name}")
