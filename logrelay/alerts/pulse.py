"""Whether the relay makes progress, so that a heartbeat may be sent.

Owns: `Pulse`, what the relay says of itself, and the judgement over two of them. It must not know where a heartbeat
goes. Pure. Read `alerts/worker` next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

UP = ("connected", "quiet")


class Pulse(NamedTuple):
    """What the relay says at one moment."""

    ready: bool
    """Traders and viewers are listened for, and the journal is written."""
    reason: str
    """Why not."""
    pending: int
    """Lines that were taken and are not committed."""
    committed: int
    """Seq of the newest line in the journal."""
    received: int
    """Up to which seq the worker, a viewer like any other, has been sent everything; below 0: something is owed."""
    up: tuple[str, ...] = ()
    """Bots of which a run is connected."""


def objection(now: Pulse, before: Pulse | None, expected: Iterable[str]) -> str:
    """Return why no heartbeat may be sent; empty: it may.

    That lines wait is normal. That as many or more wait as at the last heartbeat, and none was committed or sent since,
    is not.
    """
    if not now.ready:
        return now.reason or "the relay is not ready"
    if before is not None:
        if now.pending and before.pending and now.committed <= before.committed:
            return f"{now.pending:,} lines wait for the journal, and none was committed since the last heartbeat"
        behind = now.received < now.committed
        if behind and before.received < before.committed and now.received <= before.received:
            return "lines are committed and do not reach viewers"
    missing = [app for app in expected if app not in now.up]
    return f"not connected: {', '.join(missing)}" if missing else ""
