"""How many notices one cause may make: the first ones at once, the rest by number. Pure.

Owns: `NoticeRate`, which says whether a notice is told by itself and counts those that are not, `StderrRate`, which
does so for stderr, and `GapSums`, which adds up gaps that are told of together. It must not know how a notice looks or
where it goes; time is an argument, in seconds of a clock that never steps. Read `ingest/trader_notices` next: it asks
here before it tells something.

A notice is a line of the journal, a message to every viewer and a line on stderr. A program that connects, loses lines
or sets its clock without pause would make 50,000 of them in a second and push everything else out of the journal.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from logrelay.ingest.token_bucket import TokenBucket

APP_BURST = 50
"""Notices of one cause that an app gets at once. A machine that starts all of its jobs under one name has fewer."""

APP_PER_S = 2.0
"""What an app gets back in a second: a job that runs every second is told of in full."""

USER_BURST = 300
"""Notices of one cause from one user, whatever the names: as many traders as connect after a restart."""

USER_PER_S = 10.0

SUM_S = 10.0
"""Notices that were suppressed are told of by number after so long."""

STDERR_GAPS_S = 1.0
"""Sums of gaps are told in the stream with every commit, and on stderr no more often than this."""

STDERR_BURST = 25
"""Single notices about traders of one level that stderr gets at once, whatever they are about. It goes to the system's
log, which other programs share; all of them are in the stream and in the journal."""

STDERR_PER_S = 1.0

MAX_BUCKETS = 1_024
"""Rates remembered, some 200 bytes each; an app beyond it has only its user's share."""

SWEEP_S = 1.0
"""How often a full table of rates is searched for those that are not needed any more."""

MAX_SUMS = 64
"""Sums kept apart, by app and cause; what is beyond goes into one. A commit has that many notices at most."""

MAX_RANGES = 16
"""Ranges of missing seqs that a sum names; the count says how many lines there were in all."""

MAX_NAMED = 8
"""Apps that a count of suppressed notices names."""

_NEVER = float("inf")


@dataclass(slots=True)
class Suppressed:
    """Notices of one cause that were not told by themselves."""

    cause: str
    since: float
    rank: int = 0
    """The highest of their level ranks."""
    count: int = 0
    apps: dict[str, None] = field(default_factory=dict)
    """Some of the apps they were about, at most `MAX_NAMED`."""
    more_apps: bool = False

    def add(self, app: str, rank: int) -> None:
        """Count one more."""
        self.count += 1
        self.rank = max(self.rank, rank)
        if app not in self.apps:
            if len(self.apps) < MAX_NAMED:
                self.apps[app] = None
            else:
                self.more_apps = True


class StderrRate:
    """Token buckets by level: which single notices about traders are said on stderr as well."""

    def __init__(self) -> None:
        self._buckets: dict[int, TokenBucket] = {}
        self._held_back: dict[int, int] = {}
        self.due_at = _NEVER
        """When `take_due` has something; a field, for it is asked for with every read."""

    def admits(self, rank: int, mono: float) -> bool:
        """Tell whether a notice may be said, and count it as said or as held back."""
        bucket = self._buckets.get(rank)
        if bucket is None:
            bucket = self._buckets[rank] = TokenBucket(STDERR_BURST, STDERR_PER_S, mono)
        if bucket.wait_s(mono) > 0:
            self._held_back[rank] = self._held_back.get(rank, 0) + 1
            self.due_at = min(self.due_at, mono + SUM_S)
            return False
        bucket.take()
        return True

    def take_due(self, mono: float, *, all_of_them: bool = False) -> dict[int, int]:
        """Return how many were held back, by level rank, if that is due; the counts begin anew."""
        if mono < self.due_at and not all_of_them:
            return {}
        taken, self._held_back, self.due_at = self._held_back, {}, _NEVER
        return taken


class NoticeRate:
    """Token buckets by cause and app, and by cause and user; an app's notice takes one of both."""

    def __init__(self) -> None:
        self._buckets: dict[Hashable, TokenBucket] = {}
        self._suppressed: dict[str, Suppressed] = {}
        self._next_sweep = 0.0
        self.due_at = _NEVER
        """When `take_due` has something; see `StderrRate.due_at`."""
        self.total = 0
        """Notices suppressed since the start."""

    def admits(self, cause: str, app: str, user: int, mono: float) -> bool:
        """Tell whether a notice may be told by itself, and count it as told if so."""
        users = self._bucket((cause, user), USER_BURST, USER_PER_S, mono)
        if users is None or users.wait_s(mono) > 0:
            return False  # names that are made up take no more room either
        mine = self._bucket((cause, app, user), APP_BURST, APP_PER_S, mono)
        if mine is not None:
            if mine.wait_s(mono) > 0:
                return False
            mine.take()
        users.take()
        return True

    def suppress(self, cause: str, app: str, rank: int, mono: float) -> None:
        """Count a notice that is not told; `take_due` returns the count later."""
        self.total += 1
        found = self._suppressed.get(cause)
        if found is None:
            found = self._suppressed[cause] = Suppressed(cause, mono)
            self.due_at = min(self.due_at, mono + SUM_S)
        found.add(app, rank)

    def take_due(self, mono: float, *, all_of_them: bool = False) -> list[Suppressed]:
        """Return the counts that are due, or all; they begin anew."""
        due = [found for found in self._suppressed.values() if all_of_them or found.since + SUM_S <= mono]
        for found in due:
            del self._suppressed[found.cause]
        self.due_at = min((found.since + SUM_S for found in self._suppressed.values()), default=_NEVER)
        return due

    def _bucket(self, key: Hashable, burst: int, per_s: float, mono: float) -> TokenBucket | None:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS and mono >= self._next_sweep:
                self._next_sweep = mono + SWEEP_S
                self._forget_full(mono)
            if len(self._buckets) >= MAX_BUCKETS:
                return None
            bucket = self._buckets[key] = TokenBucket(burst, per_s, mono)
        return bucket

    def _forget_full(self, mono: float) -> None:
        """Forget those that have been left alone long enough to be full again: a new one is no different."""
        fill_s = max(APP_BURST / APP_PER_S, USER_BURST / USER_PER_S)
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if mono - bucket.used_at < fill_s}


@dataclass(slots=True)
class GapSum:
    """Gaps of one app and cause that are told of together."""

    app: str
    cause: str
    why: str
    count: int = 0
    """Missing lines: exact."""
    gaps: int = 0
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    """Run, first and last seq of some of the gaps, in order; adjacent ones are one."""
    more_ranges: bool = False
    pid: int = 0
    runs: dict[str, None] = field(default_factory=dict)
    more_runs: bool = False

    def add(self, run: str, pid: int, first: int, last: int) -> None:
        """Add the missing lines `first` to `last` of a run."""
        self.gaps += 1
        self.count += last - first + 1
        self.pid = pid
        if run not in self.runs:
            if len(self.runs) < MAX_RANGES:
                self.runs[run] = None
            else:
                self.more_runs = True
        if self.ranges and self.ranges[-1][0] == run and self.ranges[-1][2] + 1 == first and not self.more_ranges:
            self.ranges[-1] = (run, self.ranges[-1][1], last)
        elif len(self.ranges) < MAX_RANGES:
            self.ranges.append((run, first, last))
        else:
            self.more_ranges = True


class GapSums:
    """Gaps that were not told by themselves, added up until the next commit. No line is counted twice or left out.

    They go into the journal with the seqs that they explain: a relay that is killed in between forgets both.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], GapSum] = {}
        self.some = False
        """There are any."""

    def add(self, app: str, cause: str, why: str, run: str, pid: int, first: int, last: int) -> None:
        """Add a gap; what is beyond `MAX_SUMS` is added up without app and cause."""
        found = self._sums.get((app, cause))
        if found is None:
            if len(self._sums) >= MAX_SUMS:
                app, cause, why = "", "several", "for several reasons"
            found = self._sums.get((app, cause))
            if found is None:
                found = self._sums[app, cause] = GapSum(app, cause, why)
        self.some = True
        found.add(run, pid, first, last)

    def take(self) -> list[GapSum]:
        """Return the sums; they begin anew."""
        taken, self._sums, self.some = list(self._sums.values()), {}, False
        return taken
