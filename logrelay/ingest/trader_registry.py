"""The traders as data: who is connected, quiet, lost, closed, crashed or gone, and what becomes of every frame.

Owns: the runs (nobody else writes to a `Run`), the rule that a seq is taken once and in order, timestamps that rise
within a run, and the notices about traders. It must not know sockets or the journal: a connection is a
`TraderConnection`, and time is an argument (`now_us`, the relay's clock, and `mono`, a clock that never steps, in
seconds, both as plain numbers). What is measured of each bot is in `ingest/app_activity`. Read `ingest/sequencer` next:
it is where the lines go.

The module is long because it is one state machine: each frame, each end of a connection and each passing of time moves
the same `Trader` between its states, and each move has its notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from logrelay.fanout.line_json import free_name, rfc3339
from logrelay.ingest.app_activity import AppRow, AppTable, Samples
from logrelay.ingest.frames import Bad, Bye, Frame, Hello, Log, Lost, reject
from logrelay.ingest.notice_rate import STDERR_GAPS_S, SUM_S, GapSum, GapSums, NoticeRate, StderrRate, Suppressed
from logrelay.ingest.sequencer import CLOCK_STEP_US, Sequencer
from logrelay.model import ERROR, INFO, UNKNOWN_UID, WARNING, Run
from logrelay.run_table import MAX_NAME_BYTES, MAX_RUNS, RunTable

CRASH_GRACE_S = 1.0
"""A connection that ended without bye may be back at once (a reset, a second connection taking over); a trader
reconnects within a second, so one that is not back after that is told of. A dead process will not be back, but its run
may: another process may begin at once to send what it left behind."""

SHORT_RUN_S = 20.0
"""A run that ended cleanly within this time was short: a job under cron, a worker. The next runs of its app are told of
when they have ended, in one notice, or after this time: a job that runs every minute would make 2,880 notices a day."""

MAX_SHORT_APPS = 1_024
"""Apps remembered for it; the one whose short run was longest ago is forgotten first, and has two notices again."""

LOST_GRACE_S = 300.0
"""Seconds after which a lost trader of which nothing is known is gone: the network of a tunnel, a machine that is
restarted, a laptop's walk to the next room are back by then, and nobody should look at a list of the lost for days."""

GONE_GRACE_S = 10.0
"""After a start of the relay, traders that were connected before get this long to come back."""

REFUSED_INTERVAL_S = 1.0
"""A program that connects wrongly does so again and again; its refusals must not fill the journal."""

RESEND_S = 35 * 86_400
"""Nobody sends lines of a run again so long after the relay has last seen it: traders give up what is 28 days old in a
spool, and the rest is for clocks that differ and for the time between the last line and the end."""

CLOSED_S = 86_400
"""A run that said goodbye has sent everything; only its last ack may have got lost. A job that leaves lines in a spool
for that runs again within a day, mostly; and while its lines are kept it is remembered anyway."""

CLOCK_HOLD_S = 3_600
"""A clock that is wrong when the machine starts is usually put right within the hour; before, nothing is forgotten by
it."""

MAX_WAITED_FOR = 4_096
"""Runs that have lost their connection and are waited for, a kilobyte each: as many as `--max-traders` allows, so that
all of them may lose it at once. What walks over all traders walks over these as well."""

RECENT_RUNS = 64
"""Ended runs that are kept as they are, with room for the ones that are shown; older ones go into a table."""

FORGET_STEP = 256
"""Runs forgotten with one commit: each is a row to delete, and lines wait meanwhile. No commit brings as many."""

TELL_FORGOTTEN_S = 86_400.0
"""Runs forgotten before their time are told of at most once a day: it goes on until somebody changes a limit."""

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

CONNECTED, QUIET, LOST, CLOSED, CRASHED, GONE = "connected", "quiet", "lost", "closed", "crashed", "gone"

FLOODING = "flooding"
"""What a notice says of a trader that is read after the others; it is no state of a run."""

ProcessState = Literal["running", "dead", "unknown"]
RUNNING: ProcessState = "running"
DEAD: ProcessState = "dead"
UNKNOWN: ProcessState = "unknown"
"""What is known of the process of a trader whose connection has ended."""

_UP = (CONNECTED, QUIET)
"""The states in which a bot counts as running, if only until it is known to be gone."""

_WAITED_FOR = (CONNECTED, QUIET, LOST)
"""The states of a run that has not ended."""

_NEVER = float("inf")
_NO_DETAILS: Mapping[str, object] = {}
_LAST_US = 2**63
"""Later than any time; where the relay's own clock was never set, it is no measure for others."""


class End(NamedTuple):
    """How a connection ended."""

    process: ProcessState = UNKNOWN
    silent_s: float = 0.0
    """The relay has closed it, as nothing had been heard for so many seconds; 0: it ended by itself."""


_UNKNOWN_END = End()


class TraderConnection(Protocol):
    """A connection, as the registry and the pipeline know it. It must be hashable; no method raises."""

    def ack(self, seq: int, *, now: bool) -> None:
        """Tell the trader that everything up to `seq` is kept; at once if `now`, else together with later acks."""

    def is_process_running(self) -> bool:
        """Tell whether the process at the other end is known to be the trader, and runs."""

    def abort(self) -> None:
        """Close at once; what has not been read is lost to this connection."""


@dataclass(slots=True, eq=False)
class Trader:
    """One run, as it is now. Written to by the registry only."""

    run: Run
    app_row: AppRow
    """Where its lines are counted."""
    connection: TraderConnection | None = None
    """None: not connected."""
    seen_since_start: bool = False
    """It has been connected since the relay started."""
    end: End = _UNKNOWN_END
    """How its last connection ended."""
    peer_pid: int = 0
    """The pid by which the relay knows its process; 0: not known."""
    is_dead: bool = False
    """Its process is known to be dead: another one sends what it left behind."""
    last_line: float = 0.0
    """Monotonic time of the last line or of the hello, seconds."""
    line_at: float | None = None
    """Monotonic time of the last line, seconds; None: it has said nothing yet."""
    deadline: float = _NEVER
    """Monotonic time of the next change of state that nobody's frame will announce."""
    clock_stepped_back: bool = False
    """Its clock was set back, and its timestamps have not caught up."""
    heard_us: int = 0
    """The latest time that its clock has said and that was believed, since the relay knows it; 0: none yet."""
    absurd_time_told: bool = False
    """A notice has said that its times are not believed."""
    committed: int = 0
    """The last seq that is in the journal; `run.last_seq` may be ahead of it."""
    lines: int = 0
    """Lines since the relay started."""
    unsynced: bool = False
    """It has sent nothing since the relay started: a hole before its next line is what the power took."""
    began: float = -_NEVER
    """Monotonic time of its first hello, seconds; it may have been before the relay started."""


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
    forgotten_early: int = 0


class _WaitedFor:
    """The runs that have lost their connection, the longest ago first, and by process, where that is known.

    So that a hello, which may take the place of a run of its own process, need not walk over a crowd.
    """

    def __init__(self) -> None:
        self._by_key: dict[bytes, Trader] = {}
        self._by_process: dict[int, dict[bytes, Trader]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def oldest(self) -> Trader:
        """The one that has been waited for the longest; there has to be one."""
        return next(iter(self._by_key.values()))

    def add(self, trader: Trader) -> None:
        """Wait for a run from now on."""
        key = trader.run.key
        self._by_key[key] = trader
        if trader.peer_pid and trader.end.process == RUNNING:
            self._by_process.setdefault(trader.peer_pid, {})[key] = trader

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


class TraderRegistry:
    """All runs. Adds lines and notices to the sequencer; the caller takes them from there.

    `runs` are those that the journal remembers, in the order in which they were last seen (a table is kept, and
    changed), `quiet_after_s` the seconds without a line after which a connected trader is called quiet (0: never),
    `mono` and `now_us` the present time by both clocks, `max_runs` how many ended runs are remembered at most. The wall
    clock is believed once for each run, for the age of lines that came before the relay knew it, or before it was put
    into the table; from then on ages are differences of `mono`.

    `unsynced_before_us`: lines of runs that began before this time, on the relay's clock, may have been acked and then
    lost with the power; None: none was. `on_over` is called with the key of a run that was waited for and is not any
    longer, because it has ended for good: nobody need look at its process.
    """

    def __init__(  # noqa: PLR0915  (one state machine)
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
        self._max_runs = max_runs
        self._next_forgotten_notice = 0.0
        """Monotonic time before which no notice tells of runs forgotten early."""
        self._unreported_forgotten = 0
        self._started = (now_us, mono)
        """The clock of the relay and the monotonic one when this was made."""
        self._quiet_after = quiet_after_s if quiet_after_s > 0 else _NEVER
        self._unsynced_before_us = unsynced_before_us
        self.counters = Counters()
        self._mono = mono
        """Monotonic time of the call that is being worked on."""
        self._notices = NoticeRate()
        self._on_stderr = StderrRate()
        self._gap_sums = GapSums()
        self._next_gaps_on_stderr = 0.0
        """Monotonic time before which no sum of gaps is told there."""
        self._unreported_refusals = 0
        """Refusals that no notice has told of yet."""
        self._next_refusal_notice = 0.0
        """Monotonic time before which no notice tells of them."""
        self._last_refusal: tuple[str, str | None, str] = ("", None, "connection")
        """Its reason, the app if the connection had said hello, and whether it was a connection or a frame."""
        self._by_key: dict[bytes, Trader] = {}
        """The runs that are connected, waited for, or ended lately: what walks over all traders walks over these."""
        self.by_id: dict[int, Trader] = {}
        """The same by `Run.id`."""
        self._short_apps: dict[str, None] = {}
        """Apps whose last run was short, in that order."""
        self._unannounced: dict[bytes, float] = {}
        """Runs of such apps that no notice has told of, and the monotonic time at which one will; ascending."""
        self._apps = AppTable()
        self._waited_for = _WaitedFor()
        """Those of them that have lost their connection and may come back."""
        self._ended: dict[bytes, Trader] = {}
        """Those of them that have ended, in that order."""
        self._table = runs if isinstance(runs, RunTable) else RunTable(runs)
        """The other runs that ended. The mark of each is the journal's head when it was put there, so none of its
        lines is behind that; 0: it was there when the relay started."""
        self._first_head = sequencer.head
        self._next_id = self._table.highest_id() + 1
        # Apps are restored in the order in which the runs began.
        known = {run.id: run for run in (*self._table.in_states(*_WAITED_FOR), *self._table.latest(RECENT_RUNS))}
        rows = {number: self._restore_app(known[number], mono, now_us) for number in sorted(known)}
        for run in known.values():
            if self._table.pop(run.key) is not None:
                trader = Trader(
                    run,
                    rows[run.id],
                    last_line=mono,
                    line_at=mono - _age_s(run.last_us, now_us) if run.last_us else None,
                    committed=run.last_seq,
                    unsynced=unsynced_before_us is not None,
                )
                run.has_crashed = run.state == CRASHED
                self._by_key[run.key] = self.by_id[run.id] = trader
                if run.state in _WAITED_FOR:
                    trader.deadline = mono + GONE_GRACE_S
                else:
                    self._ended[run.key] = trader

    def _restore_app(self, run: Run, mono: float, now_us: int) -> AppRow:
        return self._apps.restored(
            run.app,
            mono,
            up=run.state in _UP,
            clean=run.state == CLOSED,
            seen_age_s=_age_s(run.seen_us, now_us),
            line_age_s=_age_s(run.last_us, now_us) if run.last_us else None,
        )

    # --- frames ---------------------------------------------------------------------------------------------

    def objection(self, hello: Hello) -> str | None:
        """Return why a hello is refused: a run belongs to the user, and while it is known to run, to the process.

        A process that is the end of a tunnel, or not to be seen from here, is known by its user only.
        """
        trader = self._by_key.get(hello.run)
        run = trader.run if trader is not None else self._table.get(hello.run)
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
        self._mono = mono
        self.counters.connections += 1
        trader = self._by_key.get(hello.run) or self._recall(hello.run, now_us, mono)
        replaced: TraderConnection | None = None
        if trader is None:
            run = Run(self._next_id, hello.run, hello.app, hello.host, hello.pid, hello.started_ns, seen_us=now_us)
            run.uid = hello.peer_uid
            self._next_id += 1
            trader = self._by_key[run.key] = self.by_id[run.id] = Trader(
                run, self._apps.came(run.app, mono, back=False), unsynced=self._may_lack_lines(run), began=mono
            )
            if run.app in self._short_apps:
                self._unannounced[run.key] = mono + SHORT_RUN_S
            else:
                self._announce(trader, now_us)
            self._replace_lost(hello.peer_pid, now_us, mono)
        else:
            replaced = trader.connection
            if trader.run.state not in _UP:
                trader.app_row = self._apps.came(trader.run.app, mono, back=True)
                what = "is back"
                if hello.is_dead:
                    what = "is dead; another process sends what it left behind"
                self._add_notice(trader, now_us, INFO, f"{_name(trader.run)} {what}", CONNECTED)
        self._ended.pop(hello.run, None)
        self._waited_for.discard(hello.run)
        if trader.run.uid == UNKNOWN_UID:
            trader.run.uid = hello.peer_uid
        trader.connection = connection
        trader.seen_since_start = True
        trader.run.said_bye = False
        trader.peer_pid = hello.peer_pid
        trader.is_dead = hello.is_dead
        trader.run.has_crashed = trader.run.has_crashed and hello.is_dead
        trader.last_line = mono
        trader.deadline = mono + self._quiet_after
        self._set_state(trader, CONNECTED, now_us, mono)
        return trader, replaced

    def receive(self, trader: Trader, received: list[Frame], now_us: int, mono: float) -> list[bytes]:
        """Take the frames that are new, in order. Returns answers to send at once (rejects).

        `Hello` and `Broken` are the caller's business and ignored here.
        """
        self._mono = mono
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
                    self._add_unexplained_gap(trader, seq - 1, now_us)
                time_us = frame.time_ns // 1000
                clock_us = None
                is_absurd = not earliest_us <= time_us <= latest_us
                if is_absurd:
                    time_us = self._instead_of_absurd_time(trader, frame, now_us)
                if time_us <= run.last_us:
                    if not is_absurd:
                        self._look_for_step_back(trader, time_us, now_us)
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
        if type(frame) is Bye:
            if frame.last - run.last_seq > MAX_HOLE:
                self._refuse_jump(run, frame.last, now_us, mono)
                return
            if frame.last > run.last_seq:
                self._add_unexplained_gap(trader, frame.last, now_us)
            trader.run.said_bye = True
        elif type(frame) is Lost:
            if frame.last - run.last_seq > MAX_HOLE:
                answers.append(reject(frame.last, self._refuse_jump(run, frame.last, now_us, mono)))
            else:
                self._receive_lost(trader, frame, now_us)
        elif type(frame) is Bad:
            answers.append(reject(frame.seq, frame.reason))
            if frame.seq - run.last_seq > MAX_HOLE:
                self._refuse_jump(run, frame.seq, now_us, mono)
            else:
                self._receive_bad(trader, frame, now_us)

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
            silence = mono - trader.last_line
            text = f"{_name(trader.run)} logs again after {silence:.0f} s of quiet"
            self._add_notice(trader, now_us, INFO, text, CONNECTED)
            self._set_state(trader, CONNECTED, now_us, mono)
        trader.last_line = trader.line_at = mono
        self._apps.heard(trader.app_row, mono)
        trader.deadline = mono + self._quiet_after
        trader.run.seen_us = now_us

    def ended(self, trader: Trader, connection: object, end: End, now_us: int, mono: float) -> bool:
        """Note the end of a connection. After bye the run is closed; without it that is told after a grace time.

        It is told as a crash only when the process is known to be dead; of one that is running it matters when it ends.
        Returns whether it does: then `process_died` is to be called.
        """
        self._mono = mono
        self.counters.given_up += end.silent_s > 0
        if trader.connection is not connection:
            return False
        trader.connection = None
        trader.end = end._replace(process=DEAD) if trader.is_dead else end
        if trader.run.said_bye:
            trader.deadline = _NEVER
            self._tell_end(trader, now_us, mono)
            self._set_state(trader, CLOSED, now_us, mono)
            return False
        trader.deadline = mono + CRASH_GRACE_S
        self._waited_for.add(trader)
        if len(self._waited_for) > MAX_WAITED_FOR:
            self._give_up_waiting(self._waited_for.oldest, now_us, mono)
        return trader.end.process == RUNNING

    def _give_up_waiting(self, trader: Trader, now_us: int, mono: float) -> None:
        """Tell of a run that is not waited for any longer. Should it come back, it goes on all the same."""
        text = f"{_name(trader.run)} lost its connection, and so did {MAX_WAITED_FOR:,} others: it is not waited for"
        self._add_notice(trader, now_us, WARNING, text, GONE)
        trader.deadline = _NEVER
        self._set_state(trader, GONE, now_us, mono)

    def _tell_end(self, trader: Trader, now_us: int, mono: float) -> None:
        """Tell of a clean end; with the beginning, if that was not told because the app's runs are short."""
        run, seconds = trader.run, mono - trader.began
        self._short_apps.pop(run.app, None)
        if seconds <= SHORT_RUN_S:
            self._short_apps[run.app] = None
            if len(self._short_apps) > MAX_SHORT_APPS:
                del self._short_apps[next(iter(self._short_apps))]
            if self._unannounced.pop(run.key, None) is not None:
                text = f"{_name(run)} ran for {seconds:.1f} s and ended cleanly; {_lines(trader.lines)}"
                more = {"lines": trader.lines, "seconds": round(seconds, 3)}
                self._add_notice(trader, now_us, INFO, text, CLOSED, more)
                return
        self._add_notice(trader, now_us, INFO, f"{_name(run)} ended cleanly", CLOSED)

    def _announce(self, trader: Trader, now_us: int) -> None:
        self._add_notice(trader, now_us, INFO, f"{_name(trader.run)} connected")

    def _announce_due(self, now_us: int, mono: float) -> None:
        """Tell of runs that have turned out not to be short."""
        while self._unannounced:
            key, due = next(iter(self._unannounced.items()))
            if due > mono:
                break
            del self._unannounced[key]
            trader = self._by_key.get(key)
            if trader is not None:
                self._announce(trader, now_us)

    def process_died(self, run_key: bytes, mono: float) -> float:
        """Note that the process of a run without connection has ended: it has crashed if it has not said goodbye.

        That is told at the end of a grace time: a process that was stopped may go on, connect anew, send the rest and
        its goodbye, and end, all before that connection is read. Returns when `pass_time` has something to tell.
        """
        self._mono = mono
        trader = self._by_key.get(run_key)
        if trader is None or trader.connection is not None or trader.run.state not in _WAITED_FOR:
            return _NEVER
        trader.end = trader.end._replace(process=DEAD)
        trader.deadline = mono + CRASH_GRACE_S
        return trader.deadline

    def committed(self, run_id: int, seq: int) -> None:
        """Note that everything of a run up to `seq` is in the journal, and ack it if the run is connected."""
        trader = self.by_id.get(run_id)
        if trader is not None:
            trader.committed = seq
            if trader.connection is not None:
                trader.connection.ack(seq, now=trader.run.said_bye)

    def refused(self, reason: str, now_us: int, mono: float, app: str | None, *, what: str = "connection") -> None:
        """Count a refused connection, and tell of it in a notice.

        There is at most one such notice in `REFUSED_INTERVAL_S`; later refusals are told of together by the next one.
        """
        self.counters.refused += 1
        self._unreported_refusals += 1
        self._last_refusal = (reason, app, what)
        self._report_refusals(now_us, mono)

    def _report_refusals(self, now_us: int, mono: float) -> None:
        if not self._unreported_refusals or mono < self._next_refusal_notice:
            return
        count, self._unreported_refusals = self._unreported_refusals, 0
        self._next_refusal_notice = mono + REFUSED_INTERVAL_S
        reason, app, noun = self._last_refusal
        what = f"a {noun}" if count == 1 else f"{count:,} {noun}s"
        self._sequencer.add_notice(
            now_us,
            WARNING,
            "trader",
            f"{what} to the log socket refused: {reason}",
            {"state": "refused", "reason": reason, "app": app, "count": count},
        )

    # --- time -----------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """Return the monotonic time at which `pass_time` has something to do; infinity when never."""
        return min(self.next_report(), min((trader.deadline for trader in self._by_key.values()), default=_NEVER))

    def next_report(self) -> float:
        """Return when something is due that was not told at once; infinity when nothing is. Quick."""
        due = min(self._notices.due_at, self._on_stderr.due_at)
        if self._unannounced:
            due = min(due, next(iter(self._unannounced.values())))
        return min(due, self._next_refusal_notice) if self._unreported_refusals else due

    def change_quiet_after(self, seconds: float, mono: float) -> None:
        """Change after how many seconds without a line a connected trader is called quiet; 0: never."""
        self._quiet_after = seconds if seconds > 0 else _NEVER
        for trader in self._by_key.values():
            if trader.run.state == CONNECTED and trader.connection is not None:
                trader.deadline = max(mono, trader.last_line + self._quiet_after)

    def pass_time(self, now_us: int, mono: float) -> None:
        """Tell in notices which traders have become quiet, lost, crashed or gone."""
        self._mono = mono
        self._announce_due(now_us, mono)
        self._report_refusals(now_us, mono)
        self._report_sums(now_us, mono)
        for trader in self._by_key.values():
            if trader.deadline > mono:
                continue
            trader.deadline = _NEVER
            run = trader.run
            if trader.connection is not None:
                silence = round(mono - trader.last_line)
                self._add_notice(
                    trader,
                    now_us,
                    WARNING,
                    f"{_name(run)} is connected but has been quiet for {silence} s",
                    QUIET,
                )
                self._set_state(trader, QUIET, now_us, mono)
            elif not trader.seen_since_start:
                self._add_notice(
                    trader,
                    now_us,
                    WARNING,
                    f"{_name(run)} did not come back after the relay was restarted",
                    GONE,
                )
                self._set_state(trader, GONE, now_us, mono)
            elif trader.end.process == DEAD:
                self._tell_crash(trader, now_us, mono)
            elif run.state == LOST:
                self._add_notice(
                    trader,
                    now_us,
                    WARNING,
                    f"{_name(run)} did not come back within {LOST_GRACE_S / 60:.0f} minutes of losing its connection; "
                    "whether it still runs is not known from here",
                    GONE,
                )
                self._set_state(trader, GONE, now_us, mono)
            else:
                self._tell_lost(trader, now_us, mono)

    def _tell_lost(self, trader: Trader, now_us: int, mono: float) -> None:
        self.counters.lost += 1
        name, silent_s = _name(trader.run), trader.end.silent_s
        if trader.end.process == RUNNING:
            known = "its process is still running"
        else:
            known = "whether it still runs is not known from here"
            trader.deadline = mono + LOST_GRACE_S
        why = f" (nothing was heard of it for {silent_s:.0f} s)" if silent_s else ""
        self._add_notice(trader, now_us, WARNING, f"{name} lost its connection{why}; {known}", LOST)
        self._set_state(trader, LOST, now_us, mono)

    def _tell_crash(self, trader: Trader, now_us: int, mono: float) -> None:
        name = _name(trader.run)
        if trader.run.has_crashed:
            self._add_notice(trader, now_us, INFO, f"what {name} left behind when it crashed has come", CRASHED)
        else:
            self.counters.crashed += 1
            text = f"{name} is gone without saying goodbye: it crashed or was killed"
            self._add_notice(trader, now_us, ERROR, text, CRASHED)
        trader.run.has_crashed = True
        self._set_state(trader, CRASHED, now_us, mono)

    def _replace_lost(self, peer_pid: int, now_us: int, mono: float) -> None:
        """Note that a process has begun a new run; it cannot go on with one that it lost by becoming another program.

        Without this the end of the new program, in order or not, would be told as the crash of the old one.
        """
        for trader in self._waited_for.of_process(peer_pid):
            if trader.end.process == RUNNING:
                text = f"{_name(trader.run)} said no goodbye, and its process has begun a new run"
                self._add_notice(trader, now_us, WARNING, text, GONE)
                trader.deadline = _NEVER
                self._set_state(trader, GONE, now_us, mono)

    # --- what is known ---------------------------------------------------------------------------------------

    def connected(self) -> int:
        """Count the traders with a connection."""
        return sum(trader.connection is not None for trader in self._by_key.values())

    def in_state(self, state: str) -> int:
        """Count the runs in a state."""
        return sum(trader.run.state == state for trader in self._by_key.values()) + self._table.in_state(state)

    def remembered(self) -> int:
        """Count the runs that would be known if they came back."""
        return len(self._by_key) + len(self._table)

    def app_samples(self, mono: float) -> Samples:
        """Return what is measured of each bot by its name; see `AppTable.samples`."""
        return self._apps.samples(mono)

    def summaries(self, mono: float) -> list[dict[str, object]]:
        """Describe the traders for viewers and health checks, the most recently seen first."""
        order = sorted(
            self._by_key.values(),
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
        if state not in _UP and trader.run.state in _UP:
            self._apps.ended(trader.app_row, mono, clean=state == CLOSED)
        trader.run.state = state
        trader.run.seen_us = now_us
        if state not in _WAITED_FOR:
            if self._waited_for.discard(trader.run.key):
                self._on_over(trader.run.key)
            self._ended.pop(trader.run.key, None)
            self._ended[trader.run.key] = trader
        self._sequencer.touch(trader.run)

    def flooding(self, trader: Trader, lines: int, seconds: float, now_us: int, mono: float) -> None:
        """Tell that a trader sends so many lines that it is read after the others."""
        self._mono = mono
        text = f"{_name(trader.run)} floods: {lines:,} lines in {seconds:.0f} s; it is read after the others"
        details = {
            "state": FLOODING,
            "app": trader.run.app,
            "pid": trader.run.pid,
            "run": trader.run.name,
            "lines": lines,
            "seconds": round(seconds, 3),
        }
        self._tell(trader, now_us, WARNING, FLOODING, text, details)

    def _add_notice(
        self,
        trader: Trader,
        now_us: int,
        rank: int,
        message: str,
        state: str = CONNECTED,
        more: Mapping[str, object] = _NO_DETAILS,
    ) -> None:
        run = trader.run
        if self._unannounced.pop(run.key, None) is not None:
            self._announce(trader, now_us)  # what else is told of it comes behind its beginning
        details: dict[str, object] = {
            "state": state,
            "app": run.app,
            "host": run.host,
            "pid": run.pid,
            "run": run.name,
            "last_line": rfc3339(run.last_us) if run.last_us else None,
            **more,
        }
        self._tell(trader, now_us, rank, state, message, details)

    def _add_gap(self, trader: Trader, now_us: int, cause: str, first: int, last: int, what: str, why: str) -> None:
        """Tell that `first` to `last` are missing: at once, or with others when there are too many such notices."""
        run = trader.run
        run.last_seq = last
        if not self._notices.admits("gap", run.app, run.uid, self._mono):
            self._gap_sums.add(run.app, cause, f"{what}{why}", run.name, run.pid, first, last)
            return
        count = last - first + 1
        self._sequencer.add_notice(
            now_us,
            WARNING,
            "gap",
            f"{_lines(count)} of {_name(run)} {what}{why}",
            {
                "cause": cause,
                "count": count,
                "first": first,
                "last": last,
                "app": run.app,
                "pid": run.pid,
                "run": run.name,
            },
            on_stderr=self._on_stderr.admits(WARNING, self._mono),
        )

    def _tell(
        self, trader: Trader, now_us: int, rank: int, state: str, message: str, details: dict[str, object]
    ) -> None:
        """Tell something of a trader, unless much of the kind has just been told: then it is counted."""
        run = trader.run
        if self._notices.admits(state, run.app, run.uid, self._mono):
            aloud = self._on_stderr.admits(rank, self._mono)
            self._sequencer.add_notice(now_us, rank, "trader", message, details, on_stderr=aloud)
        else:
            self._notices.suppress(state, run.app, rank, self._mono)

    def tell_gaps(self, now_us: int, mono: float) -> None:
        """Tell of the gaps that were added up; to be called before what has gathered is taken to be committed."""
        if not self._gap_sums.some:
            return
        for gaps in self._gap_sums.take():
            aloud = mono >= self._next_gaps_on_stderr
            if aloud:
                self._next_gaps_on_stderr = mono + STDERR_GAPS_S
            self._sequencer.add_notice(now_us, WARNING, "gap", *_summed_gaps(gaps), on_stderr=aloud)

    def flush(self, now_us: int, mono: float) -> None:
        """Tell now what would be told later: the relay is about to end."""
        self._announce_due(now_us, _NEVER)
        self._report_sums(now_us, mono, all_of_them=True)

    def _report_sums(self, now_us: int, mono: float, *, all_of_them: bool = False) -> None:
        for found in self._notices.take_due(mono, all_of_them=all_of_them):
            self._sequencer.add_notice(now_us, found.rank, "trader", *_suppressed(found))
        for rank, count in self._on_stderr.take_due(mono, all_of_them=all_of_them).items():
            what = "1 more notice" if count == 1 else f"{count:,} more notices"
            self._sequencer.tell_stderr(
                rank, f"{what} about traders: not said here, but in the stream and in the journal"
            )

    def _receive_lost(self, trader: Trader, frame: Lost, now_us: int) -> None:
        run = trader.run
        if frame.last <= run.last_seq:
            self.counters.duplicates += 1
            return
        if frame.first > run.last_seq + 1:
            self._add_unexplained_gap(trader, frame.first - 1, now_us)
        first = max(frame.first, run.last_seq + 1)
        count = frame.last - first + 1
        self.counters.lost_lines += count
        why = _CAUSES.get(frame.cause, frame.cause)
        self._add_gap(trader, now_us, frame.cause, first, frame.last, "lost: ", why)

    def _receive_bad(self, trader: Trader, frame: Bad, now_us: int) -> None:
        run = trader.run
        if frame.seq <= run.last_seq:
            return
        if frame.seq > run.last_seq + 1:
            self._add_unexplained_gap(trader, frame.seq - 1, now_us)
        self.counters.rejected += 1
        self._add_gap(
            trader,
            now_us,
            "rejected",
            frame.seq,
            frame.seq,
            "rejected: ",
            frame.reason,
        )

    def _add_unexplained_gap(self, trader: Trader, last: int, now_us: int) -> None:
        run = trader.run
        first = run.last_seq + 1
        count = last - first + 1
        self.counters.unexplained_lines += count
        cause, why = "unexplained", ", and the trader did not say why"
        if trader.unsynced:
            cause, why = "power", ": a relay before had them, and the machine stopped before the disk did"
        self._add_gap(trader, now_us, cause, first, last, "missing", why)

    def _look_for_step_back(self, trader: Trader, time_us: int, now_us: int) -> None:
        """Tell once when the trader's clock was set back; a time that the relay has put in is no time of that clock."""
        run = trader.run
        back = (trader.heard_us or run.last_us) - time_us
        trader.heard_us = max(trader.heard_us, time_us)
        if back > CLOCK_STEP_US and not trader.clock_stepped_back:
            trader.clock_stepped_back = True
            self._tell(
                trader,
                now_us,
                WARNING,
                "clock",
                f"the clock of {_name(run)} was set back by {back / 1e6:.1f} s; "
                "its timestamps stand still until it has caught up",
                {
                    "state": "clock",
                    "app": run.app,
                    "pid": run.pid,
                    "run": run.name,
                    "back_s": round(back / 1e6, 3),
                },
            )

    def _instead_of_absurd_time(self, trader: Trader, frame: Log, now_us: int) -> int:
        """Return the relay's time for a line whose own cannot be true; keep what was said, and tell once per run."""
        said, event, run = frame.time_ns, frame.event, trader.run
        if TIME_NS in event:
            event[free_name(TIME_NS, event)] = event[TIME_NS]
        event[TIME_NS] = said
        if not trader.absurd_time_told:
            trader.absurd_time_told = True
            unit = next((unit for unit, ns in _UNITS if abs(said * ns // 1000 - now_us) <= _YEARS_US), None)
            hint = f"it looks like {unit}" if unit else f"that is {rfc3339(said // 1000)}"
            self._tell(
                trader,
                now_us,
                WARNING,
                "clock",
                f"{_name(run)} gives times that cannot be true: {said} nanoseconds since 1970, {hint}; "
                "its lines get the time at which they came, and keep the number as time_ns",
                {"state": "clock", "app": run.app, "pid": run.pid, "run": run.name, "time_ns": str(said)},
            )
        return now_us

    # --- what is forgotten -----------------------------------------------------------------------------------

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
                self.counters.forgotten_early += 1
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
            del self._ended[run.key], self._by_key[run.key], self.by_id[run.id]
            if run.last_seq or self._is_highest(run):
                self._table.put(run, self._sequencer.head)
            else:
                self._sequencer.forget(run)

    def _recall(self, key: bytes, now_us: int, mono: float) -> Trader | None:
        run = self._table.pop(key)
        if run is None:
            return None
        trader = self._by_key[key] = self.by_id[run.id] = Trader(
            run,
            AppRow(run.app),
            last_line=mono,
            line_at=mono - _age_s(run.last_us, now_us) if run.last_us else None,
            committed=run.last_seq,
            unsynced=self._may_lack_lines(run),
        )
        run.has_crashed = run.state == CRASHED
        return trader

    def _may_lack_lines(self, run: Run) -> bool:
        return self._unsynced_before_us is not None and run.started_ns // 1000 < self._unsynced_before_us

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


_UNITS = (("seconds", 1_000_000_000), ("milliseconds", 1_000_000), ("microseconds", 1_000))
"""What is taken for nanoseconds by mistake, and how many of them it is."""
_YEARS_US = 10 * 365 * 86_400_000_000
"""A number is in a unit when it then lies within ten years of now."""

_CAUSES = {
    "overflow": "the trader's memory for unsent lines was full",
    "too_big": "too big for a frame",
    "encode": "could not be encoded",
    "rejected_repeatedly": "the connection ended again and again at this line",
    "torn": "damaged in the spool file of a killed trader",
}


_KINDS = {
    CONNECTED: "traders connecting or logging again",
    QUIET: "traders becoming quiet",
    LOST: "traders losing their connection",
    CLOSED: "traders ending cleanly",
    CRASHED: "traders crashing",
    GONE: "traders not coming back",
    FLOODING: "traders that flood",
    "clock": "clocks that were set back or cannot be right",
}
"""What notices of a state are about, for those that are told of by number."""


def _suppressed(found: Suppressed) -> tuple[str, dict[str, object]]:
    """Return text and details of the notice for those that were not told by themselves."""
    apps = ", ".join(app or "without a name" for app in found.apps) + (" and others" if found.more_apps else "")
    return (
        f"and {found.count:,} more of this kind in {SUM_S:.0f} s: {_KINDS[found.cause]} ({apps})",
        {
            "state": found.cause,
            "count": found.count,
            "apps": list(found.apps),
            "suppressed": True,
            **({"more_apps": True} if found.more_apps else {}),
        },
    )


def _summed_gaps(gaps: GapSum) -> tuple[str, dict[str, object]]:
    """Return text and details of one notice for many gaps."""
    who = f"of {gaps.app or 'traders'}" + (f" (pid {gaps.pid})" if len(gaps.runs) == 1 else "")
    details: dict[str, object] = {
        "cause": gaps.cause,
        "count": gaps.count,
        "gaps": gaps.gaps,
        "app": gaps.app,
        "ranges": [{"run": run, "first": first, "last": last} for run, first, last in gaps.ranges],
        "more_ranges": gaps.more_ranges,
    }
    if len(gaps.runs) == 1:
        details |= {"run": next(iter(gaps.runs)), "pid": gaps.pid}
    return f"{_lines(gaps.count)} {who} {gaps.why} ({gaps.gaps:,} gaps)", details


def _marks(trader: Trader) -> dict[str, object]:
    """Return what more is to be said of its state, where there is something."""
    run = trader.run
    if run.state in _UP and not trader.seen_since_start:
        return {"awaited": True}
    if run.state == CLOSED and run.last_us and run.last_us - run.started_ns // 1000 <= SHORT_RUN_S * 1e6:
        return {"brief": True}
    return {}


def _age_s(time_us: int, now_us: int) -> float:
    return max(0.0, (now_us - time_us) / 1e6)  # a clock that was ahead has left times that are still to come


def _name(run: Run) -> str:
    return f"{run.app or 'trader'} (pid {run.pid})"


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"
