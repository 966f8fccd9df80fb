"""Every run that would be known if it came back, and when it is forgotten.

Owns: which runs are at hand as a `Trader` and which are in a table, the numbers that runs get, and the rules by which
they are forgotten. It must not know what a trader's states mean for it, but that a run has ended, nor change a run.
Time is an argument. Pure. Read `run_table` next: it holds those that ended long ago.
"""

from __future__ import annotations

from collections.abc import Iterable

from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.trader import CLOSED, WAITED_FOR, Trader
from logrelay.model import WARNING, Run
from logrelay.run_table import MAX_NAME_BYTES, MAX_RUNS, RunTable

RESEND_S = 35 * 86_400
"""Nobody sends lines of a run again so long after the relay has last seen it: traders give up what is 28 days old in a
spool, and the rest is for clocks that differ and for the time between the last line and the end."""

CLOSED_S = 86_400
"""A run that said goodbye has sent everything; only its last ack may have got lost. A job that leaves lines in a spool
for that runs again within a day, mostly; and while its lines are kept it is remembered anyway."""

CLOCK_HOLD_S = 3_600
"""A clock that is wrong when the machine starts is usually put right within the hour; before, nothing is forgotten by
it."""

RECENT_RUNS = 64
"""Ended runs that are kept as they are, with room for the ones that are shown; older ones go into a table."""

FORGET_STEP = 256
"""Runs forgotten with one commit: each is a row to delete, and lines wait meanwhile. No commit brings as many."""

TELL_FORGOTTEN_S = 86_400.0
"""Runs forgotten before their time are told of at most once a day: it goes on until somebody changes a limit."""


class KnownRuns:
    """All runs: those that are at hand, by key and by number, and behind them a table of the others that ended.

    `runs` are those that the journal remembers, in the order in which they were last seen; a table is kept, and
    changed. `mono` and `now_us` are the present time by both clocks, `max_runs` is how many ended runs are remembered
    at most. Rows are deleted, and what is forgotten too early is told, by the sequencer.
    """

    def __init__(
        self, runs: Iterable[Run], sequencer: Sequencer, *, mono: float, now_us: int, max_runs: int = MAX_RUNS
    ) -> None:
        self._sequencer = sequencer
        self._max_runs = max_runs
        self.by_key: dict[bytes, Trader] = {}
        """The runs that are connected, waited for, or ended lately: what walks over all traders walks over these."""
        self.by_id: dict[int, Trader] = {}
        """The same by `Run.id`."""
        self._ended: dict[bytes, Trader] = {}
        """Those of them that have ended, in that order."""
        self._table = runs if isinstance(runs, RunTable) else RunTable(runs)
        """The other runs that ended. The mark of each is the journal's head when it was put there, so none of its
        lines is behind that; 0: it was there when the relay started."""
        self._first_head = sequencer.head
        self._next_id = self._table.highest_id() + 1
        self._started = (now_us, mono)
        """The clock of the relay and the monotonic one when this was made."""
        self._next_forgotten_notice = 0.0
        """Monotonic time before which no notice tells of runs forgotten early."""
        self._unreported_forgotten = 0
        self.forgotten_early = 0
        """Runs that were forgotten before their time."""

    def __len__(self) -> int:
        """Count the runs that would be known if they came back."""
        return len(self.by_key) + len(self._table)

    def in_state(self, state: str) -> int:
        """Count the runs in a state."""
        return sum(trader.run.state == state for trader in self.by_key.values()) + self._table.in_state(state)

    def in_table(self, key: bytes) -> Run | None:
        """Return a run that is not at hand, as a copy; None: it is not known, or at hand."""
        return self._table.get(key)

    def new_id(self) -> int:
        """Return the number of the next new run."""
        self._next_id += 1
        return self._next_id - 1

    def take_latest(self) -> list[Run]:
        """Take those out of the table that have not ended, or ended last: after a start they are at hand again."""
        found = {run.id: run for run in (*self._table.in_states(*WAITED_FOR), *self._table.latest(RECENT_RUNS))}
        return [run for run in found.values() if self._table.pop(run.key) is not None]

    def take(self, key: bytes) -> Run | None:
        """Take a run out of the table, if it is there."""
        return self._table.pop(key)

    def add(self, trader: Trader) -> None:
        """Have a run at hand that is new, or was in the table."""
        self.by_key[trader.run.key] = self.by_id[trader.run.id] = trader

    def ended(self, trader: Trader) -> None:
        """Note that a run at hand has ended just now."""
        self._ended.pop(trader.run.key, None)
        self._ended[trader.run.key] = trader

    def back(self, key: bytes) -> None:
        """Note that a run goes on, whether it had ended or not."""
        self._ended.pop(key, None)

    def forget(self, oldest: int, now_us: int, mono: float) -> bool:
        """Forget the runs that need not be known any more, a bounded number at a time; to be called after a commit.

        `oldest` is the seq of the oldest line kept. Returns True when there is something to tell: a notice was added.
        The run with the highest number stays, and those that it is before wait with it: the number is known by it only,
        and a number that is given again would be the name of two runs. The next run that comes takes its place.

        A run is forgotten when none of its lines has ever been in the journal; when it said goodbye, none of its lines
        is kept and `CLOSED_S` have passed; or when `RESEND_S` have passed. Beyond `max_runs` others go before their
        time, those that said goodbye first. Their rows go with the next commit.
        """
        if len(self._ended) <= RECENT_RUNS and not len(self._table) and not self._unreported_forgotten:
            return False  # the relay of one bot
        trusted_us = self._trusted(now_us, mono)
        self._retire()
        for _ in range(FORGET_STEP):
            closed, lost = self._table.first(CLOSED), self._table.first(CLOSED, other=True)
            closed = None if closed is not None and self._is_highest(closed[0]) else closed
            lost = None if lost is not None and self._is_highest(lost[0]) else lost
            if closed is not None and self._is_over(*closed, oldest, trusted_us):
                self._drop(closed[0])
            elif lost is not None and trusted_us - lost[0].seen_us > RESEND_S * 1_000_000:
                self._drop(lost[0])
            elif self._is_full() and (early := closed or lost) is not None:
                self._drop(early[0])
                self.forgotten_early += 1
                self._unreported_forgotten += 1
            else:
                break
        return self._report_forgotten(now_us, mono)

    def _retire(self) -> None:
        """Put the runs that ended longest ago into the table, except those with lines that are not committed yet."""
        while len(self._ended) > RECENT_RUNS:
            trader = next(iter(self._ended.values()))
            run = trader.run
            if trader.committed < run.last_seq:
                return
            del self._ended[run.key], self.by_key[run.key], self.by_id[run.id]
            if run.last_seq or self._is_highest(run):
                self._table.put(run, self._sequencer.head)
            else:
                self._sequencer.forget(run)

    def _trusted(self, now_us: int, mono: float) -> int:
        """Return a time that a step of the clock cannot put ahead; 0 while it is too early to tell."""
        passed_s = mono - self._started[1]
        return 0 if passed_s < CLOCK_HOLD_S else min(now_us, self._started[0] + int(passed_s * 1e6))

    def _is_over(self, run: Run, mark: int, oldest: int, trusted_us: int) -> bool:
        age_s = (trusted_us - run.seen_us) / 1e6
        none_kept = (mark or self._first_head) < oldest
        return age_s > RESEND_S or (none_kept and age_s > CLOSED_S)

    def _is_highest(self, run: Run) -> bool:
        return run.id == self._next_id - 1

    def _is_full(self) -> bool:
        return len(self._table) > self._max_runs or self._table.name_bytes > MAX_NAME_BYTES

    def _drop(self, run: Run) -> None:
        self._table.pop(run.key)
        self._sequencer.forget(run)

    def _report_forgotten(self, now_us: int, mono: float) -> bool:
        if not self._unreported_forgotten or mono < self._next_forgotten_notice:
            return False
        count, self._unreported_forgotten = self._unreported_forgotten, 0
        self._next_forgotten_notice = mono + TELL_FORGOTTEN_S
        self._sequencer.add_notice(
            now_us,
            WARNING,
            "relay",
            f"{'1 run was' if count == 1 else f'{count:,} runs were'} forgotten before their time, because at most "
            f"{self._max_runs:,} that ended are remembered, and {MAX_NAME_BYTES >> 20} MiB of their names: lines that "
            "one of them sends again would be kept twice. "
            f"A larger --keep-bytes remembers more, up to {MAX_RUNS:,}",
            {"state": "runs", "count": count},
        )
        return True
