"""When a matter is told: at once, with others, later, or not.

Owns: `Release`, which decides for one rule: cooldown, what comes close behind another, quiet hours, the most alerts in
an hour. It must not know lines, silences or services; time is an argument. Pure. Read `alerts/bots` next.

The first matter is told at once. What comes within some seconds behind it is gathered into one alert, so that ten
thousand different errors in a minute ring twice and not ten thousand times, and nothing is left out of the count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

from logrelay.alerts.records import Alert, Matter, Reason, copy_of
from logrelay.config.alert_rules import AlertRule

GATHER_S = {"state": 2.0, "critical": 10.0, "lines": 60.0}
"""How long matters are gathered behind an alert, by class: a machine that goes down takes all bots along at once; a
CRITICAL line cannot wait long; errors come in crowds."""

HOUR_S = 3600.0
MAX_LISTED = 5
"""Matters that one alert lists; the others are counted."""

LOOK_S = 60.0
"""How often it is looked whether quiet hours are over."""

CLOCK_STEP_S = 60.0
"""A time of the past that lies so far ahead tells that the clock was set back: it is not waited for."""

GROUPS = {"state": "states", "critical": "lines", "lines": "lines"}
"""Which classes share the most alerts in an hour: lines must not use up what a crash needs."""

_SEVERITY = {kind: place for place, kind in enumerate(
    ("crashed", "journal", "critical", "gone", "disk", "edge", "gap", "quiet", "error", "lines")
)}  # fmt: skip


def class_of(kind: str) -> str:
    """Return the class of a kind, a key of `GATHER_S`."""
    return "critical" if kind == "critical" else ("lines" if kind in ("error", "lines", "gap") else "state")


class Release:
    """The times at which one rule has sent something; changes with each alert. Kept by `as_json`."""

    def __init__(self, rule: AlertRule, kept: Mapping[str, Any] | None = None) -> None:
        """Take the rule, and what `as_json` returned in an earlier life."""
        kept = kept or {}
        self._rule = rule
        self._sent: dict[str, list[float]] = {name: list(map(float, at)) for name, at in kept.get("sent", {}).items()}
        """When alerts were handed out in the last hour, by group."""
        self._last: dict[str, float] = dict(kept.get("last", {}))
        """When one was handed out last, by class."""
        self._postponed: dict[str, Reason] = dict(kept.get("postponed", {}))
        """Why matters are held back now, by group."""
        self.kept_back = 0
        """Matters that were held back by the quiet hours or by the most alerts in an hour, since the start."""

    def as_json(self) -> dict[str, Any]:
        """Return what is to be remembered."""
        return {"sent": self._sent, "last": self._last, "postponed": self._postponed}

    def _gather_s(self, name: str) -> float:
        """Return how long matters of a class are gathered: no longer than the rule is silent about one."""
        cooldown_s = self._rule.state_cooldown_s if name == "state" else self._rule.line_cooldown_s
        return min(GATHER_S[name], cooldown_s)

    def ready_at(self, matter: Matter, now: float) -> float:
        """Return from when on a matter with something new may be told, as far as it alone decides."""
        cooldown_s = self._rule.state_cooldown_s if matter.is_state else self._rule.line_cooldown_s
        return _later(matter.told_at, cooldown_s, now)

    def decide(self, waiting: Iterable[Matter], now: float, *, quiet: bool) -> list[Alert]:
        """Return the alerts for matters that have something new, and note them as told. `quiet`: in quiet hours."""
        ready: dict[str, list[Matter]] = {}
        for matter in waiting:
            if self.ready_at(matter, now) <= now:
                ready.setdefault(class_of(matter.kind), []).append(matter)
        alerts: list[Alert] = []
        for group in ("states", "lines"):
            classes = [name for name in GATHER_S if GROUPS[name] == group and name in ready]
            those = [matter for name in classes for matter in ready[name]]
            if not those:
                continue
            if quiet:
                self._keep_back(group, "quiet_hours", those)
            elif self._is_full(group, now):
                self._keep_back(group, self._postponed.get(group, "cap"), those)
            elif group in self._postponed:
                alerts.append(self._tell(those, now, self._postponed.pop(group)))
            else:
                for name in classes:
                    alerts += self._decide_class(name, ready[name], now)
        return alerts

    def _decide_class(self, name: str, ready: list[Matter], now: float) -> list[Alert]:
        gather_s = self._gather_s(name)
        if _later(self._last.get(name, 0.0), gather_s, now) > now:
            return []
        if self._is_full(GROUPS[name], now):
            self._keep_back(GROUPS[name], "cap", ready)
            return []
        # The first of a crowd is told by itself, at once; the others follow soon, together.
        is_first = _later(self._last.get(name, 0.0), 2 * gather_s, now) <= now
        return [self._tell([min(ready, key=_order)] if is_first else ready, now, "gathered")]

    def next_look(self, waiting: Iterable[Matter], now: float) -> float:
        """Return when `decide` may have something for these matters; infinity: never."""
        earliest = inf
        for matter in waiting:
            name = class_of(matter.kind)
            at = max(self.ready_at(matter, now), _later(self._last.get(name, 0.0), self._gather_s(name), now))
            if self._postponed.get(GROUPS[name]) == "quiet_hours":
                at = max(at, now + LOOK_S)
            elif self._is_full(GROUPS[name], now):
                at = max(at, min(self._sent[GROUPS[name]]) + HOUR_S)
            earliest = min(earliest, at)
        return earliest

    def tell_back(self, matter: Matter, now: float, *, quiet: bool) -> Alert | None:
        """Return the alert that a state is over, if it may be sent now; it counts among those of the hour."""
        if quiet or self._is_full("states", now):
            return None
        self._sent.setdefault("states", []).append(now)
        return Alert(self._rule.name, "back", (copy_of(matter),))

    def _is_full(self, group: str, now: float) -> bool:
        sent = [at for at in self._sent.get(group, ()) if now - HOUR_S < at <= now + CLOCK_STEP_S]
        self._sent[group] = sent
        return len(sent) >= self._rule.max_per_hour

    def _keep_back(self, group: str, why: Reason, matters: Iterable[Matter]) -> None:
        self._postponed[group] = why
        self.kept_back += sum(matter.keep_back() for matter in matters)

    def _tell(self, matters: list[Matter], now: float, why: Reason) -> Alert:
        ordered = sorted(matters, key=_order)
        count = sum(matter.count - matter.told for matter in matters)
        if len(ordered) == 1 and why == "gathered":
            why = "again" if ordered[0].told_at else "now"
        alert = Alert(
            self._rule.name, why, tuple(map(copy_of, ordered[:MAX_LISTED])), max(0, len(ordered) - MAX_LISTED), count
        )
        for matter in matters:
            matter.note_told(now)
            self._last[class_of(matter.kind)] = now
        self._sent.setdefault(GROUPS[class_of(matters[0].kind)], []).append(now)
        return alert


def _later(at: float, wait_s: float, now: float) -> float:
    """Return when `wait_s` have passed since `at`; 0 for what never was, or lies ahead because the clock was set."""
    return 0.0 if not at or at > now + CLOCK_STEP_S else at + wait_s


def _order(matter: Matter) -> tuple[int, int, int]:
    return _SEVERITY.get(matter.kind, len(_SEVERITY)), -matter.rank, -matter.count
