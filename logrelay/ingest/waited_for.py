"""The runs that have lost their connection and may come back: the longest ago first, and by process.

Owns: `WaitedFor` and how many are waited for at most. It must not know what is told of them, or after which time they
are given up. Pure. Read `ingest/trader_registry` next: it decides when a run is waited for.
"""

from __future__ import annotations

from logrelay.ingest.trader import RUNNING, Trader

MAX_WAITED_FOR = 4_096
"""Runs that have lost their connection and are waited for, a kilobyte each: as many as `--max-traders` allows, so that
all of them may lose it at once. What walks over all traders walks over these as well."""


class WaitedFor:
    """The runs that have lost their connection, the longest ago first, and by process, where that is known.

    So that a hello, which may take the place of a run of its own process, need not walk over a crowd.
    """

    def __init__(self) -> None:
        self._by_key: dict[bytes, Trader] = {}
        self._by_process: dict[int, dict[bytes, Trader]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, trader: Trader) -> Trader | None:
        """Wait for a run from now on. Returns the one to be given up for it, the longest ago: there are too many."""
        key = trader.run.key
        self._by_key[key] = trader
        if trader.peer_pid and trader.end.process == RUNNING:
            self._by_process.setdefault(trader.peer_pid, {})[key] = trader
        return next(iter(self._by_key.values())) if len(self._by_key) > MAX_WAITED_FOR else None

    def discard(self, key: bytes) -> bool:
        """Wait no longer for the run of this key; returns whether it was waited for."""
        trader = self._by_key.pop(key, None)
        of_process = self._by_process.get(trader.peer_pid, {}) if trader is not None else {}
        if trader is not None and of_process.pop(key, None) is not None and not of_process:
            del self._by_process[trader.peer_pid]
        return trader is not None

    def of_process(self, pid: int) -> list[Trader]:
        """Return the runs whose connection ended while this process was known to run: a few, however many it has."""
        return list(self._by_process.get(pid, {}).values())
