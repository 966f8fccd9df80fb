"""The state of every trader: connected, quiet, lost, closed, crashed or gone, and what becomes of each of its frames.

Owns: which state follows which, the rule that a seq is taken once and in order, and timestamps that rise within a run;
nobody else writes to a `Trader` or a `Run`. It must not know sockets or the journal: a connection is a
`TraderConnection`, and time is an argument (`now_us`, the relay's clock, and `mono`, a clock that never steps, in
seconds, both as plain numbers). What is told of traders is in `ingest/trader_notices`, which runs are known in
`ingest/known_runs`, who is waited for in `ingest/waited_for`, what is measured of each bot in `ingest/app_activity`.
Read `ingest/trader` next, which is what it changes, then `ingest/sequencer`: it is where the lines go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from logrelay.fanout.line_json import free_name, rfc3339
from logrelay.ingest.app_activity import AppRow, AppTable, Samples
from logrelay.ingest.frames import Bad, Bye, Frame, Hello, Log, Lost, reject
from logrelay.ingest.known_runs import KnownRuns
from logrelay.ingest.sequencer import CLOCK_STEP_US, Sequencer
from logrelay.ingest.trader import (
    CLOSED,
    CONNECTED,
    CRASHED,
    DEAD,
    GONE,
    LOST,
    NEVER,
    QUIET,
    RUNNING,
    UP,
    WAITED_FOR,
    End,
    Trader,
    TraderConnection,
)
from logrelay.ingest.trader_notices import SHORT_RUN_S, TraderNotices
from logrelay.ingest.waited_for import WaitedFor
from logrelay.model import UNKNOWN_UID, Run
from logrelay.run_table import MAX_RUNS

CRASH_GRACE_S = 1.0
"""A connection that ended without bye may be back at once (a reset, a second connection taking over); a trader
reconnects within a second, so one that is not back after that is told of. A dead process will not be back, but its run
may: another process may begin at once to send what it left behind."""

LOST_GRACE_S = 300.0
"""Seconds after which a lost trader of which nothing is known is gone: the network of a tunnel, a machine that is
restarted, a laptop's walk to the next room are back by then, and nobody should look at a list of the lost for days."""

GONE_GRACE_S = 10.0
"""After a start of the relay, traders that were connected before get this long to come back."""

EARLIEST_US = 946_684_800_000_000
"""2000-01-01. A time before it is in another unit, or of a clock that was never set: seconds, milliseconds and
microseconds since 1970 all lie before it when they are read as nanoseconds."""

LATEST_AHEAD_US = 86_400_000_000
"""A day: further ahead of the relay's clock than any time zone. Timestamps rise within a run, so one time that is a
century ahead would take all later lines of the run along."""

MAX_HOLE = 2**40
"""Lines that can be missing at once: a trader would need four months at 100,000 a second. A seq beyond it was made up,
and would make every later line of the run a repeat."""

TIME_NS = "time_ns"
"""The context field with the number that a trader gave for the time, in lines where it was not believed."""

SHOWN_RUNS = 20
"""Runs told to a viewer: all that are connected, filled up with the latest that ended."""

_LAST_US = 2**63
"""Later than any time; where the relay's own clock was never set, it is no measure for others."""


@dataclass(slots=True)
class Counters:
    """What has happened since the start."""

    connections: int = 0
    duplicates: int = 0
    lost_lines: int = 0
    unexplained_lines: int = 0
    rejected: int = 0
    refused: int = 0
    crashed: int = 0
    lost: int = 0
    """Times a trader lost its connection for longer than the grace time, and was not known to be dead."""
    given_up: int = 0
    """Connections that the relay closed because nothing was heard on them."""


class TraderRegistry:
    """All runs and their states. Adds lines to the sequencer; the caller takes them from there, and the notices.

    `runs` are those that the journal remembers, see `KnownRuns`, which has at most `max_runs` that ended.
    `quiet_after_s` are the seconds without a line after which a connected trader is called quiet (0: never), `mono` and
    `now_us` the present time by both clocks. The wall clock is believed once for each run, for the age of lines that
    came before the relay knew it, or before it was put into the table; from then on ages are differences of `mono`.

    `unsynced_before_us`: lines of runs that began before this time, on the relay's clock, may have been acked and then
    lost with the power; None: none was. `on_over` is called with the key of a run that was waited for and is not any
    longer, because it has ended for good: nobody need look at its process.
    """

    def __init__(
        self,
        runs: Iterable[Run],
        sequencer: Sequencer,
        *,
        quiet_after_s: float,
        mono: float,
        now_us: int,
        max_runs: int = MAX_RUNS,
        unsynced_before_us: int | None = None,
        on_over: Callable[[bytes], None] = lambda _run: None,
    ) -> None:
        self._sequencer = sequencer
        self._on_over = on_over
        self._quiet_after = quiet_after_s if quiet_after_s > 0 else NEVER
        self._unsynced_before_us = unsynced_before_us
        self.counters = Counters()
        self.notices = TraderNotices(sequencer)
        """What is told of them; the owner of the registry has what is due told in time."""
        self.runs = KnownRuns(runs, sequencer, mono=mono, now_us=now_us, max_runs=max_runs)
        """Which there are; the owner of the registry has them forgotten in time."""
        self._apps = AppTable()
        self._waited_for = WaitedFor()
        """The runs that have lost their connection and may come back."""
        latest = self.runs.take_latest()
        # Apps are restored in the order in which the runs began.
        rows = {run.id: self._restore_app(run, mono, now_us) for run in sorted(latest, key=lambda run: run.id)}
        for run in latest:
            trader = self._have_again(run, rows[run.id], now_us, mono, unsynced=unsynced_before_us is not None)
            if run.state in WAITED_FOR:
                trader.deadline = mono + GONE_GRACE_S
            else:
                self.runs.ended(trader)

    def _restore_app(self, run: Run, mono: float, now_us: int) -> AppRow:
        return self._apps.restored(
            run.app,
            mono,
            up=run.state in UP,
            clean=run.state == CLOSED,
            seen_age_s=_age_s(run.seen_us, now_us),
            line_age_s=_age_s(run.last_us, now_us) if run.last_us else None,
        )

    def _recall(self, key: bytes, now_us: int, mono: float) -> Trader | None:
        run = self.runs.take(key)
        if run is None:
            return None
        return self._have_again(run, AppRow(run.app), now_us, mono, unsynced=self._may_lack_lines(run))

    def _have_again(self, run: Run, row: AppRow, now_us: int, mono: float, *, unsynced: bool) -> Trader:
        """Have a run at hand that was in the table."""
        trader = Trader(
            run,
            row,
            last_line=mono,
            line_at=mono - _age_s(run.last_us, now_us) if run.last_us else None,
            committed=run.last_seq,
            unsynced=unsynced,
        )
        run.has_crashed = run.state == CRASHED
        self.runs.add(trader)
        return trader

    def _may_lack_lines(self, run: Run) -> bool:
        return self._unsynced_before_us is not None and run.started_ns // 1000 < self._unsynced_before_us

    # --- frames ---------------------------------------------------------------------------------------------

    def objection(self, hello: Hello) -> str | None:
        """Return why a hello is refused: a run belongs to the user, and while it is known to run, to the process.

        A process that is the end of a tunnel, or not to be seen from here, is known by its user only.
        """
        trader = self.runs.by_key.get(hello.run)
        run = trader.run if trader is not None else self.runs.in_table(hello.run)
        if run is None:
            return None
        if UNKNOWN_UID not in (run.uid, hello.peer_uid) and run.uid != hello.peer_uid:
            return f"the run belongs to another user (uid {run.uid}, this is {hello.peer_uid}); each makes its own"
        connection = trader.connection if trader is not None else None
        if (
            trader is not None
            and connection is not None
            and trader.peer_pid
            and trader.peer_pid != hello.peer_pid
            and connection.is_process_running()
        ):
            return f"the run belongs to the process {trader.peer_pid}, which is connected and runs; each makes its own"
        return None

    def hello(
        self, connection: TraderConnection, hello: Hello, now_us: int, mono: float
    ) -> tuple[Trader, TraderConnection | None]:
        """Take a new connection. Returns its trader and the connection it replaces, which the caller aborts."""
        self.counters.connections += 1
        trader = self.runs.by_key.get(hello.run) or self._recall(hello.run, now_us, mono)
        replaced: TraderConnection | None = None
        if trader is None:
            number = self.runs.new_id()
            run = Run(number, hello.run, hello.app, hello.host, hello.pid, hello.started_ns, seen_us=now_us)
            run.uid = hello.peer_uid
            trader = Trader(
                run, self._apps.came(run.app, mono, back=False), unsynced=self._may_lack_lines(run), began=mono
            )
            self.runs.add(trader)
            self.notices.began(trader, now_us, mono)
            self._replace_lost(hello.peer_pid, now_us, mono)
        else:
            replaced = trader.connection
            if trader.run.state not in UP:
                trader.app_row = self._apps.came(trader.run.app, mono, back=True)
                self.notices.came_back(trader, now_us, mono, is_dead=hello.is_dead)
        self.runs.back(hello.run)
        self._waited_for.discard(hello.run)
        if trader.run.uid == UNKNOWN_UID:
            trader.run.uid = hello.peer_uid
        trader.connection = connection
        trader.seen_since_start = True
        trader.run.said_bye = False
        trader.peer_pid = hello.peer_pid
        trader.is_dead = hello.is_dead
        trader.run.failure = hello.failure or trader.run.failure
        trader.run.has_crashed = trader.run.has_crashed and hello.is_dead
        trader.last_line = mono
        trader.deadline = mono + self._quiet_after
        self._set_state(trader, CONNECTED, now_us, mono)
        return trader, replaced

    def receive(self, trader: Trader, received: list[Frame], now_us: int, mono: float) -> list[bytes]:
        """Take the frames that are new, in order. Returns answers to send at once (rejects).

        Of a `Hello` only the failure counts that it tells; `Broken` is the caller's business and ignored here.
        """
        answers: list[bytes] = []
        run = trader.run
        add_line = self._sequencer.add_line
        lines_by_rank = trader.app_row.lines
        earliest_us, latest_us = (EARLIEST_US, now_us + LATEST_AHEAD_US) if now_us >= EARLIEST_US else (0, _LAST_US)
        taken = 0
        for frame in received:
            if type(frame) is Log:
                seq = frame.seq
                if seq != run.last_seq + 1:
                    if seq <= run.last_seq:
                        self.counters.duplicates += 1
                        continue
                    if seq - run.last_seq > MAX_HOLE:
                        answers.append(reject(seq, self._refuse_jump(run, seq, now_us, mono)))
                        continue
                    self._add_unexplained_gap(trader, seq - 1, now_us, mono)
                time_us = frame.time_ns // 1000
                clock_us = None
                is_absurd = not earliest_us <= time_us <= latest_us
                if is_absurd:
                    time_us = self._instead_of_absurd_time(trader, frame, now_us, mono)
                if time_us <= run.last_us:
                    if not is_absurd:
                        self._look_for_step_back(trader, time_us, now_us, mono)
                    if (trader.clock_stepped_back and not is_absurd) or run.last_us - time_us > CLOCK_STEP_US:
                        clock_us = time_us
                    time_us = run.last_us + 1
                elif not is_absurd:
                    trader.clock_stepped_back = False
                    trader.heard_us = time_us
                run.last_seq = seq
                run.last_us = time_us
                lines_by_rank[frame.rank] += 1
                add_line(run, time_us, frame.rank, frame.event, clock_us)
                taken += 1
            else:
                self._receive_other(trader, frame, answers, now_us, mono)
        if taken:
            trader.run.said_bye = trader.run.said_bye and type(received[-1]) is Bye
            self._note_lines(trader, taken, now_us, mono)
        if received:
            trader.unsynced = False
        self._sequencer.touch(run)
        return answers

    def _receive_other(self, trader: Trader, frame: Frame, answers: list[bytes], now_us: int, mono: float) -> None:
        """Take a frame that is no line."""
        run = trader.run
        if type(frame) is Hello:
            run.failure = frame.failure or run.failure
        elif type(frame) is Bye:
            if frame.last - run.last_seq > MAX_HOLE:
                self._refuse_jump(run, frame.last, now_us, mono)
                return
            if frame.last > run.last_seq:
                self._add_unexplained_gap(trader, frame.last, now_us, mono)
            trader.run.said_bye = True
        elif type(frame) is Lost:
            if frame.last - run.last_seq > MAX_HOLE:
                answers.append(reject(frame.last, self._refuse_jump(run, frame.last, now_us, mono)))
            else:
                self._receive_lost(trader, frame, now_us, mono)
        elif type(frame) is Bad:
            answers.append(reject(frame.seq, frame.reason))
            if frame.seq - run.last_seq > MAX_HOLE:
                self._refuse_jump(run, frame.seq, now_us, mono)
            else:
                self._receive_bad(trader, frame, now_us, mono)

    def _receive_lost(self, trader: Trader, frame: Lost, now_us: int, mono: float) -> None:
        run = trader.run
        if frame.last <= run.last_seq:
            self.counters.duplicates += 1
            return
        if frame.first > run.last_seq + 1:
            self._add_unexplained_gap(trader, frame.first - 1, now_us, mono)
        first = max(frame.first, run.last_seq + 1)
        self.counters.lost_lines += frame.last - first + 1
        run.last_seq = frame.last
        self.notices.lost_lines(run, frame.cause, first, frame.last, now_us, mono)

    def _receive_bad(self, trader: Trader, frame: Bad, now_us: int, mono: float) -> None:
        run = trader.run
        if frame.seq <= run.last_seq:
            return
        if frame.seq > run.last_seq + 1:
            self._add_unexplained_gap(trader, frame.seq - 1, now_us, mono)
        self.counters.rejected += 1
        run.last_seq = frame.seq
        self.notices.rejected(run, frame.seq, frame.reason, now_us, mono)

    def _add_unexplained_gap(self, trader: Trader, last: int, now_us: int, mono: float) -> None:
        run = trader.run
        first = run.last_seq + 1
        self.counters.unexplained_lines += last - first + 1
        run.last_seq = last
        self.notices.unexplained(run, first, last, now_us, mono, by_power=trader.unsynced)

    def _look_for_step_back(self, trader: Trader, time_us: int, now_us: int, mono: float) -> None:
        """Tell once when the trader's clock was set back; a time that the relay has put in is no time of that clock."""
        back = (trader.heard_us or trader.run.last_us) - time_us
        trader.heard_us = max(trader.heard_us, time_us)
        if back > CLOCK_STEP_US and not trader.clock_stepped_back:
            trader.clock_stepped_back = True
            self.notices.clock_was_set_back(trader.run, back, now_us, mono)

    def _instead_of_absurd_time(self, trader: Trader, frame: Log, now_us: int, mono: float) -> int:
        """Return the relay's time for a line whose own cannot be true; keep what was said, and tell once per run."""
        event = frame.event
        if TIME_NS in event:
            event[free_name(TIME_NS, event)] = event[TIME_NS]
        event[TIME_NS] = frame.time_ns
        if not trader.absurd_time_told:
            trader.absurd_time_told = True
            self.notices.absurd_time(trader.run, frame.time_ns, now_us, mono)
        return now_us

    def _refuse_jump(self, run: Run, seq: int, now_us: int, mono: float) -> str:
        """Count a frame that is too far ahead to be true, and tell of it; returns the reason."""
        reason = f"seq {seq} is {seq - run.last_seq} ahead of the last one; at most {MAX_HOLE} can be missing"
        self.counters.rejected += 1
        self.refused(reason, now_us, mono, run.app, what="frame")
        return reason

    def _note_lines(self, trader: Trader, count: int, now_us: int, mono: float) -> None:
        """Note that a trader has said something; one that was quiet is so no more."""
        trader.lines += count
        if trader.run.state == QUIET:
            self.notices.logs_again(trader, mono - trader.last_line, now_us, mono)
            self._set_state(trader, CONNECTED, now_us, mono)
        trader.last_line = trader.line_at = mono
        self._apps.heard(trader.app_row, mono)
        trader.deadline = mono + self._quiet_after
        trader.run.seen_us = now_us

    def ended(self, trader: Trader, connection: object, end: End, now_us: int, mono: float) -> bool:
        """Note the end of a connection. After bye the run is closed, or has crashed if it said that it fails.

        Without bye its end is told after a grace time.

        It is told as a crash only when the process is known to be dead; of one that is running it matters when it ends.
        Returns whether it does: then `process_died` is to be called.
        """
        self.counters.given_up += end.silent_s > 0
        if trader.connection is not connection:
            return False
        trader.connection = None
        trader.end = end._replace(process=DEAD) if trader.is_dead else end
        if trader.run.said_bye:
            trader.deadline = NEVER
            if trader.run.failure:
                self._crash(trader, now_us, mono)
                return False
            self.notices.ended_cleanly(trader, now_us, mono)
            self._set_state(trader, CLOSED, now_us, mono)
            return False
        trader.deadline = mono + CRASH_GRACE_S
        over = self._waited_for.add(trader)
        if over is not None:
            why = f"lost its connection, and so did {len(self._waited_for) - 1:,} others: it is not waited for"
            self._give_up(over, why, now_us, mono)
        return trader.end.process == RUNNING

    def _give_up(self, trader: Trader, why: str, now_us: int, mono: float) -> None:
        """Tell of a run that is not waited for any longer. Should it come back, it goes on all the same."""
        self.notices.gone(trader, why, now_us, mono)
        trader.deadline = NEVER
        self._set_state(trader, GONE, now_us, mono)

    def process_died(self, run_key: bytes, mono: float) -> float:
        """Note that the process of a run without connection has ended: it has crashed if it has not said goodbye.

        That is told at the end of a grace time: a process that was stopped may go on, connect anew, send the rest and
        its goodbye, and end, all before that connection is read. Returns when `pass_time` has something to tell.
        """
        trader = self.runs.by_key.get(run_key)
        if trader is None or trader.connection is not None or trader.run.state not in WAITED_FOR:
            return NEVER
        trader.end = trader.end._replace(process=DEAD)
        trader.deadline = mono + CRASH_GRACE_S
        return trader.deadline

    def committed(self, run_id: int, seq: int) -> None:
        """Note that everything of a run up to `seq` is in the journal, and ack it if the run is connected."""
        trader = self.runs.by_id.get(run_id)
        if trader is not None:
            trader.committed = seq
            if trader.connection is not None:
                trader.connection.ack(seq, now=trader.run.said_bye)

    def refused(self, reason: str, now_us: int, mono: float, app: str | None, *, what: str = "connection") -> None:
        """Count a refused connection, or a refused frame, and tell of it."""
        self.counters.refused += 1
        self.notices.refused(reason, app, now_us, mono, what=what)

    # --- time -----------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return the monotonic time at which `pass_time` has something to do; infinity when never."""
        return min(
            self.notices.next_report(), min((trader.deadline for trader in self.runs.by_key.values()), default=NEVER)
        )

    def change_quiet_after(self, seconds: float, mono: float) -> None:
        """Change after how many seconds without a line a connected trader is called quiet; 0: never."""
        self._quiet_after = seconds if seconds > 0 else NEVER
        for trader in self.runs.by_key.values():
            if trader.run.state == CONNECTED and trader.connection is not None:
                trader.deadline = max(mono, trader.last_line + self._quiet_after)

    def pass_time(self, now_us: int, mono: float) -> None:
        """Tell in notices which traders have become quiet, lost, crashed or gone."""
        self.notices.pass_time(now_us, mono)
        for trader in self.runs.by_key.values():
            if trader.deadline > mono:
                continue
            trader.deadline = NEVER
            if trader.connection is not None:
                self.notices.quiet(trader, mono - trader.last_line, now_us, mono)
                self._set_state(trader, QUIET, now_us, mono)
            elif not trader.seen_since_start:
                self._give_up(trader, "did not come back after the relay was restarted", now_us, mono)
            elif trader.end.process == DEAD:
                self._crash(trader, now_us, mono)
            elif trader.run.state == LOST:
                why = (
                    f"did not come back within {LOST_GRACE_S / 60:.0f} minutes of losing its connection; "
                    "whether it still runs is not known from here"
                )
                self._give_up(trader, why, now_us, mono)
            else:
                self._lose(trader, now_us, mono)

    def _lose(self, trader: Trader, now_us: int, mono: float) -> None:
        self.counters.lost += 1
        if trader.end.process != RUNNING:
            trader.deadline = mono + LOST_GRACE_S
        self.notices.lost(trader, now_us, mono)
        self._set_state(trader, LOST, now_us, mono)

    def _crash(self, trader: Trader, now_us: int, mono: float) -> None:
        self.counters.crashed += not trader.run.has_crashed
        self.notices.crashed(trader, now_us, mono)
        trader.run.has_crashed = True
        self._set_state(trader, CRASHED, now_us, mono)

    def _replace_lost(self, peer_pid: int, now_us: int, mono: float) -> None:
        """Note that a process has begun a new run; it cannot go on with one that it lost by becoming another program.

        Without this the end of the new program, in order or not, would be told as the crash of the old one.
        """
        for trader in self._waited_for.of_process(peer_pid):
            if trader.end.process == RUNNING:
                self._give_up(trader, "said no goodbye, and its process has begun a new run", now_us, mono)

    # --- what is known ---------------------------------------------------------------------------------------

    def connected(self) -> int:
        """Count the traders with a connection."""
        return sum(trader.connection is not None for trader in self.runs.by_key.values())

    def app_samples(self, mono: float) -> Samples:
        """Return what is measured of each bot by its name; see `AppTable.samples`."""
        return self._apps.samples(mono)

    def summaries(self, mono: float) -> list[dict[str, object]]:
        """Describe the traders for viewers and health checks, the most recently seen first."""
        order = sorted(
            self.runs.by_key.values(),
            key=lambda t: (t.connection is not None, t.run.seen_us, t.run.id),
            reverse=True,
        )
        return [self._summary(trader, mono) for trader in order[: max(SHOWN_RUNS, self.connected())]]

    @staticmethod
    def _summary(trader: Trader, mono: float) -> dict[str, object]:
        run = trader.run
        return {
            "app": run.app,
            "host": run.host,
            "pid": run.pid,
            "run": run.name,
            "state": run.state,
            "started": rfc3339(run.started_ns // 1000),
            "last_line": rfc3339(run.last_us) if run.last_us else None,
            "last_line_age_s": None if trader.line_at is None else round(max(0.0, mono - trader.line_at), 3),
            "quiet_s": round(mono - trader.last_line, 1) if trader.connection is not None else None,
            "last_seq": run.last_seq,
        } | _marks(trader)

    # --- inside ---------------------------------------------------------------------------------------------

    def _set_state(self, trader: Trader, state: str, now_us: int, mono: float) -> None:
        if state not in UP and trader.run.state in UP:
            self._apps.ended(trader.app_row, mono, clean=state == CLOSED)
        trader.run.state = state
        trader.run.seen_us = now_us
        if state not in WAITED_FOR:
            if self._waited_for.discard(trader.run.key):
                self._on_over(trader.run.key)
            self.runs.ended(trader)
        self._sequencer.touch(trader.run)

    def flooding(self, trader: Trader, lines: int, seconds: float, now_us: int, mono: float) -> None:
        """Tell that a trader sends so many lines that it is read after the others."""
        self.notices.floods(trader.run, lines, seconds, now_us, mono)


def _marks(trader: Trader) -> dict[str, object]:
    """Return what more is to be said of its state, where there is something."""
    run = trader.run
    if run.state in UP and not trader.seen_since_start:
        return {"awaited": True}
    if run.state == CLOSED and run.last_us and run.last_us - run.started_ns // 1000 <= SHORT_RUN_S * 1e6:
        return {"brief": True}
    return {}


def _age_s(time_us: int, now_us: int) -> float:
    return max(0.0, (now_us - time_us) / 1e6)  # a clock that was ahead has left times that are still to come
