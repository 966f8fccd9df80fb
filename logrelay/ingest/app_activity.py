"""What is measured of each bot by its name: whether it is up, the age of its last line, its lines by level.

Owns: `AppTable`, whose rows are bounded in number however many names traders come with, and `AppRow`. It must not know
runs, frames or connections: the registry says which app a run belongs to, and when its runs come and end. Time is an
argument, in seconds of a clock that never steps, so a step of the machine's clock changes no age. Read
`ingest/sequencer` next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from logrelay.model import RANKS

MAX_NAMED_APPS = 50
"""Apps with rows of their own. Each is up to seven samples at every scrape, and a machine runs a handful of bots; only
a program that makes up names has more."""

OTHER_APPS = "(other apps)"
"""The row of all apps beyond that. An app of this very name never gets a row of its own, so it means nothing else."""

DOWN_SHOWN_S = 7 * 86_400.0
"""A bot that ended badly is shown as down for so long, which is as long as lines are kept by default. A bot that was
renamed or given up would else be an alarm for ever."""

_LEVEL_WORDS = {rank: word for word, rank in RANKS.items()}

Samples = Mapping[str, Sequence[tuple[Mapping[str, str], int | float]]]
"""Metric name to its samples, each with its labels."""


@dataclass(slots=True, eq=False)
class AppRow:
    """One app, or all apps that have no row of their own. Written to by the table only, but for `lines`."""

    app: str
    runs_up: int = 0
    """Runs that are connected, or that may still come back."""
    ended_badly: int = 0
    """Runs that crashed or were lost since a run came while none was up."""
    sign_at: float = -math.inf
    """Time of the last line, of the last connection or of its end."""
    line_at: float | None = None
    """Time of the last line; None when there has been none."""
    lines: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_LEVEL_WORDS, 0))
    """Lines since the relay started, by level rank."""


class AppTable:
    """The apps that are measured by name, at most `max_named`, and one row for the rest.

    When the table is full, a new app takes the row of one that is not up: of one that ended cleanly, else of one that
    ended badly, and of those the one that was heard of least recently. While all are up it is counted with the rest.
    """

    def __init__(self, max_named: int = MAX_NAMED_APPS) -> None:
        self._max_named = max_named
        self._rows: dict[str, AppRow] = {}
        self._others = AppRow(OTHER_APPS)

    def restored(
        self, app: str, mono: float, *, up: bool, clean: bool, seen_age_s: float, line_age_s: float | None
    ) -> AppRow:
        """Take over a run of an earlier life of the relay, in the order in which the runs began.

        The ages are by the wall clock, zero at least: of the run's last change, and of its last line (None: it had
        none). `up`: it may come back; `clean`: it had ended with a goodbye.
        """
        row = self._row(app)
        if up:
            row.runs_up += 1
            row.ended_badly = 0
        elif not row.runs_up:
            row.ended_badly = 0 if clean else 1
        if line_age_s is not None and (row.line_at is None or row.line_at < mono - line_age_s):
            row.line_at = mono - line_age_s
        row.sign_at = max(row.sign_at, mono - seen_age_s)
        return row

    def came(self, app: str, mono: float, *, back: bool) -> AppRow:
        """Note that a run is up, and return the row for its lines; `back`: it had ended before, badly or not."""
        row = self._row(app)
        if not row.runs_up:
            row.ended_badly = 0
        elif back and row.ended_badly:
            row.ended_badly -= 1
        row.runs_up += 1
        row.sign_at = mono
        return row

    def ended(self, row: AppRow, mono: float, *, clean: bool) -> None:
        """Note that a run that was up has ended."""
        row.runs_up -= 1
        row.sign_at = mono
        if not clean:
            row.ended_badly += 1

    def heard(self, row: AppRow, mono: float) -> None:
        """Note that there was a line."""
        row.line_at = row.sign_at = mono

    def samples(self, mono: float) -> Samples:
        """Return what is known at `mono`, by the names of `http.metrics.METRICS`.

        A bot whose runs have all ended cleanly has neither `trader_up` nor an age: it is not expected to run.
        """
        up: list[tuple[Mapping[str, str], int | float]] = []
        ages: list[tuple[Mapping[str, str], int | float]] = []
        lines: list[tuple[Mapping[str, str], int | float]] = []
        for row in (*self._rows.values(), self._others):
            labels: Mapping[str, str] = {"app": row.app}
            if row.runs_up or self._is_down(row, mono):
                up.append((labels, int(row.runs_up > 0)))
                if row.line_at is not None:
                    ages.append((labels, round(max(0.0, mono - row.line_at), 3)))
            if row is not self._others or any(row.lines.values()):
                lines += [({**labels, "level": _LEVEL_WORDS[rank]}, count) for rank, count in row.lines.items()]
        return {"trader_up": up, "trader_last_line_age_seconds": ages, "trader_lines_total": lines}

    def _row(self, app: str) -> AppRow:
        row = self._rows.get(app)
        if row is not None:
            return row
        if app == OTHER_APPS:
            return self._others
        if len(self._rows) >= self._max_named:
            idle = [row for row in self._rows.values() if not row.runs_up]
            if not idle:
                return self._others
            del self._rows[min(idle, key=lambda row: (row.ended_badly > 0, row.sign_at)).app]
        row = self._rows[app] = AppRow(app)
        return row

    @staticmethod
    def _is_down(row: AppRow, mono: float) -> bool:
        return row.ended_badly > 0 and mono - row.sign_at < DOWN_SHOWN_S
