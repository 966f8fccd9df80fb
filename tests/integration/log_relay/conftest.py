"""A relay end for processors to talk to."""

from __future__ import annotations

from tests.support.processors import (
    balanced,
    make_peer,
    own_environment,
    peer,
    peer_process,
    root,
    scale,
    ship,
    sock,
    unhurried,
    wait_for,
)

__all__ = [
    "balanced",
    "make_peer",
    "own_environment",
    "peer",
    "peer_process",
    "root",
    "scale",
    "ship",
    "sock",
    "unhurried",
    "wait_for",
]
