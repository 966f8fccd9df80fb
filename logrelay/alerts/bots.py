"""Which bots are up, and since when a bot says nothing, as the relay's notices tell it.

Owns: `Bots`, the runs that are up by bot, from notices and from the list that the relay gives. It must not know rules:
how long is too long is asked by `alerts/engine`. Time is an argument, seconds since 1970. Pure. Read `alerts/engine`
next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

UP = ("connected", "quiet")
SILENT = ("quiet", "lost")
ENDED = ("closed", "crashed", "gone")

MAX_RUNS = 5_000
"""Runs that are up at once: far above what a relay lets in. Beyond it the oldest is forgotten."""


class Bots:
    """The runs that are not over, by bot. `expected` are bots that should always be up."""

    def __init__(self, expected: Iterable[str], kept: Mapping[str, Any] | None = None) -> None:
        kept = kept or {}
        self._runs: dict[str, tuple[str, str, float]] = {
            run: (a, s, t) for run, (a, s, t) in kept.get("runs", {}).items()
        }
        """By run: bot, state, since when."""
        self._absent: dict[str, float] = dict(kept.get("absent", {}))
        """Since when an expected bot is not up."""
        self._expected = tuple(expected)

    def as_json(self) -> dict[str, Any]:
        """Return what is to be remembered."""
        return {"runs": self._runs, "absent": self._absent}

    def note(self, run: str, app: str, state: str, since: float) -> None:
        """Take over what a notice says of a run."""
        if state in ENDED:
            self._runs.pop(run, None)
            return
        if state not in UP and state not in SILENT:
            return
        known = self._runs.pop(run, None)
        if known is None and len(self._runs) >= MAX_RUNS:
            self._runs.pop(next(iter(self._runs)))
        self._runs[run] = (app, state, since)

    def replace(self, traders: Iterable[Mapping[str, Any]], now: float) -> None:
        """Take over the relay's own list of the traders."""
        self._runs = {}
        for trader in traders:
            quiet_s = trader.get("quiet_s")
            since = now - float(quiet_s) if isinstance(quiet_s, int | float) else _seconds(trader.get("last_line"), now)
            self.note(str(trader.get("run")), str(trader.get("app", "")), str(trader.get("state")), since)

    def is_up(self, app: str) -> bool:
        """Tell whether a run of the bot is connected, quiet or not."""
        return any(app == name and state in UP for name, state, _ in self._runs.values())

    def speaks(self, app: str) -> bool:
        """Tell whether a run of the bot is connected and not quiet."""
        return any(app == name and state == "connected" for name, state, _ in self._runs.values())

    def silent(self, now: float) -> dict[str, tuple[str, float]]:
        """Return the bots that say nothing: `quiet`, `lost` or `absent`, and since when."""
        found: dict[str, tuple[str, float]] = {}
        talking = set()
        for app, state, since in self._runs.values():
            if state == "connected":
                talking.add(app)
            elif app not in found or since > found[app][1] or (state == "quiet" and found[app][0] == "lost"):
                found[app] = (state, max(since, found[app][1] if app in found else since))
        for app in self._expected:
            if app in found or app in talking:
                self._absent.pop(app, None)
            else:
                found[app] = ("absent", self._absent.setdefault(app, now))
        return {app: value for app, value in found.items() if app not in talking}


def _seconds(timestamp: object, now: float) -> float:
    try:
        return min(now, datetime.fromisoformat(str(timestamp)).timestamp())
    except ValueError:
        return now
