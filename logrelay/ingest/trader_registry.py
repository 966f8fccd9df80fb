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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from logrelay.fanout.line_json import rfc3339
from logrelay.ingest.app_activity import AppRow, AppTable, Samples
from logrelay.ingest.frames import Bad, Bye, Frame, Hello, Log, Lost, reject
from logrelay.ingest.sequencer import CLOCK_STEP_US, Sequencer
from logrelay.model import ERROR, INFO, WARNING, Run

CRASH_GRACE_S = 1.0
"""A connection that ended without bye may be back at once (a reset, a second connection taking over); a trader
reconnects within a second, so one that is not back after that is told of. A dead process will not be back, but its run
may: another process may begin at once to send what it left behind."""

LOST_GRACE_S = 300.0
"""Seconds after which a lost trader of which nothing is known is gone: the network of a tunnel, a machine that is
restarted, a laptop's walk to the next room are back by then, and nobody should look at a list of the lost for days."""

GONE_GRACE_S = 10.0
"""After a start of the relay, traders that were connected before get this long to come back."""

REFUSED_INTERVAL_S = 1.0
"""A program that connects wrongly does so again and again; its refusals must not fill the journal."""

MAX_RUNS = 10_000
"""Runs remembered to recognise their lines; the oldest ended ones are forgotten first."""

SHOWN_RUNS = 20
"""Runs told to a viewer: all that are connected, filled up with the latest that ended."""

CONNECTED, QUIET, LOST, CLOSED, CRASHED, GONE = "connected", "quiet", "lost", "closed", "crashed", "gone"

ProcessState = Literal["running", "dead", "unknown"]
RUNNING: ProcessState = "running"
DEAD: ProcessState = "dead"
UNKNOWN: ProcessState = "unknown"
"""What is known of the process of a trader whose connection has ended."""

_UP = (CONNECTED, QUIET)
"""The states in which a bot counts as running, if only until it is known to be gone."""

_NEVER = float("inf")


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
    said_bye: bool = False
    end: End = _UNKNOWN_END
    """How its last connection ended."""
    peer_pid: int = 0
    """The pid by which the relay knows its process; 0: not known."""
    is_dead: bool = False
    """Its process is known to be dead: another one sends what it left behind."""
    has_crashed: bool = False
    """That was told, and its own process has not been back since."""
    last_line: float = 0.0
    """Monotonic time of the last line or of the hello, seconds."""
    line_at: float | None = None
    """Monotonic time of the last line, seconds; None: it has said nothing yet."""
    deadline: float = _NEVER
    """Monotonic time of the next change of state that nobody's frame will announce."""
    clock_stepped_back: bool = False
    """Its clock was set back, and its timestamps have not caught up."""
    committed: int = 0
    """The last seq that is in the journal; `run.last_seq` may be ahead of it."""
    lines: int = 0
    """Lines since the relay started."""


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
    """All runs. Adds lines and notices to the sequencer; the caller takes them from there.

    `runs` are those that the journal remembers, `quiet_after_s` the seconds without a line after which a connected
    trader is called quiet (0: never), `mono` and `now_us` the present time by both clocks. The wall clock is believed
    here once, for the ages of lines that came before; from then on ages are differences of `mono`.
    """

    def __init__(
        self, runs: Iterable[Run], sequencer: Sequencer, *, quiet_after_s: float, mono: float, now_us: int
    ) -> None:
        self._sequencer = sequencer
        self._quiet_after = quiet_after_s if quiet_after_s > 0 else _NEVER
        self.counters = Counters()
        self._unreported_refusals = 0
        """Refusals that no notice has told of yet."""
        self._next_refusal_notice = 0.0
        """Monotonic time before which no notice tells of them."""
        self._last_refusal: tuple[str, str | None] = ("", None)
        """Its reason, and the app if the connection had said hello."""
        self._by_key: dict[bytes, Trader] = {}
        self.by_id: dict[int, Trader] = {}
        """By `Run.id`."""
        self._apps = AppTable()
        for run in sorted(runs, key=lambda r: r.id):
            trader = Trader(run, self._restore_app(run, mono, now_us), last_line=mono, committed=run.last_seq)
            trader.line_at = mono - _age_s(run.last_us, now_us) if run.last_us else None
            self.by_id[run.id] = trader
            trader.has_crashed = run.state == CRASHED
            if run.state in (CONNECTED, QUIET, LOST):
                trader.deadline = mono + GONE_GRACE_S
            self._by_key[run.key] = trader
        self._next_id = max((t.run.id for t in self._by_key.values()), default=0) + 1

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

    def hello(
        self, connection: TraderConnection, hello: Hello, now_us: int, mono: float
    ) -> tuple[Trader, TraderConnection | None]:
        """Take a new connection. Returns its trader and the connection it replaces, which the caller aborts."""
        self.counters.connections += 1
        trader = self._by_key.get(hello.run)
        replaced: TraderConnection | None = None
        if trader is None:
            self._forget_old()
            run = Run(self._next_id, hello.run, hello.app, hello.host, hello.pid, hello.started_ns, seen_us=now_us)
            self._next_id += 1
            trader = self._by_key[run.key] = self.by_id[run.id] = Trader(
                run, self._apps.came(run.app, mono, back=False)
            )
            self._add_notice(trader, now_us, INFO, f"{_name(run)} connected")
            self._replace_lost(hello.peer_pid, now_us, mono)
        else:
            replaced = trader.connection
            if trader.run.state not in _UP:
                trader.app_row = self._apps.came(trader.run.app, mono, back=True)
                what = "is back"
                if hello.is_dead:
                    what = "is dead; another process sends what it left behind"
                self._add_notice(trader, now_us, INFO, f"{_name(trader.run)} {what}", CONNECTED)
        trader.connection = connection
        trader.seen_since_start = True
        trader.said_bye = False
        trader.peer_pid = hello.peer_pid
        trader.is_dead = hello.is_dead
        trader.has_crashed = trader.has_crashed and hello.is_dead
        trader.last_line = mono
        trader.deadline = mono + self._quiet_after
        self._set_state(trader, CONNECTED, now_us, mono)
        return trader, replaced

    def receive(self, trader: Trader, received: list[Frame], now_us: int, mono: float) -> list[bytes]:
        """Take the frames that are new, in order. Returns answers to send at once (rejects).

        `Hello` and `Broken` are the caller's business and ignored here.
        """
        answers: list[bytes] = []
        run = trader.run
        add_line = self._sequencer.add_line
        lines_by_rank = trader.app_row.lines
        taken = 0
        for frame in received:
            if type(frame) is Log:
                seq = frame.seq
                if seq != run.last_seq + 1:
                    if seq <= run.last_seq:
                        self.counters.duplicates += 1
                        continue
                    self._add_unexplained_gap(trader, seq - 1, now_us)
                time_us = frame.time_ns // 1000
                clock_us = None
                if time_us <= run.last_us:
                    said_us, time_us = time_us, self._timestamp_after_last(trader, time_us, now_us)
                    if trader.clock_stepped_back:
                        clock_us = said_us
                else:
                    trader.clock_stepped_back = False
                run.last_seq = seq
                run.last_us = time_us
                lines_by_rank[frame.rank] += 1
                add_line(run, time_us, frame.rank, frame.event, clock_us)
                taken += 1
            elif type(frame) is Lost:
                self._receive_lost(trader, frame, now_us)
            elif type(frame) is Bad:
                answers.append(reject(frame.seq, frame.reason))
                self._receive_bad(trader, frame, now_us)
            elif type(frame) is Bye:
                if frame.last > run.last_seq:
                    self._add_unexplained_gap(trader, frame.last, now_us)
                trader.said_bye = True
        if taken:
            trader.lines += taken
            trader.said_bye = trader.said_bye and type(received[-1]) is Bye
            if run.state == QUIET:
                silence = mono - trader.last_line
                self._add_notice(
                    trader, now_us, INFO, f"{_name(run)} logs again after {silence:.0f} s of quiet", CONNECTED
                )
                self._set_state(trader, CONNECTED, now_us, mono)
            trader.last_line = trader.line_at = mono
            self._apps.heard(trader.app_row, mono)
            trader.deadline = mono + self._quiet_after
            run.seen_us = now_us
        self._sequencer.touch(run)
        return answers

    def ended(self, trader: Trader, connection: object, end: End, now_us: int, mono: float) -> bool:
        """Note the end of a connection. After bye the run is closed; without it that is told after a grace time.

        It is told as a crash only when the process is known to be dead; of one that is running it matters when it ends.
        Returns whether it does: then `process_died` is to be called.
        """
        self.counters.given_up += end.silent_s > 0
        if trader.connection is not connection:
            return False
        trader.connection = None
        trader.end = end._replace(process=DEAD) if trader.is_dead else end
        if trader.said_bye:
            trader.deadline = _NEVER
            self._add_notice(trader, now_us, INFO, f"{_name(trader.run)} ended cleanly", CLOSED)
            self._set_state(trader, CLOSED, now_us, mono)
            return False
        trader.deadline = mono + CRASH_GRACE_S
        return trader.end.process == RUNNING

    def process_died(self, run_key: bytes, now_us: int, mono: float) -> None:
        """Note that the process of a run without connection has ended: it has crashed if it has not said goodbye.

        In the grace time it is told at the end of that, as of one that was dead already.
        """
        trader = self._by_key.get(run_key)
        if trader is not None and trader.connection is None and trader.run.state in (CONNECTED, QUIET, LOST):
            trader.end = trader.end._replace(process=DEAD)
            if trader.run.state == LOST:
                self._tell_crash(trader, now_us, mono)

    def committed(self, run_id: int, seq: int) -> None:
        """Note that everything of a run up to `seq` is in the journal, and ack it if the run is connected."""
        trader = self.by_id.get(run_id)
        if trader is not None:
            trader.committed = seq
            if trader.connection is not None:
                trader.connection.ack(seq, now=trader.said_bye)

    def refused(self, reason: str, now_us: int, mono: float, app: str | None) -> None:
        """Count a refused connection, and tell of it in a notice.

        There is at most one such notice in `REFUSED_INTERVAL_S`; later refusals are told of together by the next one.
        """
        self.counters.refused += 1
        self._unreported_refusals += 1
        self._last_refusal = (reason, app)
        self._report_refusals(now_us, mono)

    def _report_refusals(self, now_us: int, mono: float) -> None:
        if not self._unreported_refusals or mono < self._next_refusal_notice:
            return
        count, self._unreported_refusals = self._unreported_refusals, 0
        self._next_refusal_notice = mono + REFUSED_INTERVAL_S
        reason, app = self._last_refusal
        what = "a connection" if count == 1 else f"{count:,} connections"
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
        refusals = self._next_refusal_notice if self._unreported_refusals else _NEVER
        return min(refusals, min((trader.deadline for trader in self._by_key.values()), default=_NEVER))

    def pass_time(self, now_us: int, mono: float) -> None:
        """Tell in notices which traders have become quiet, lost, crashed or gone."""
        self._report_refusals(now_us, mono)
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
        if trader.has_crashed:
            self._add_notice(trader, now_us, INFO, f"what {name} left behind when it crashed has come", CRASHED)
        else:
            self.counters.crashed += 1
            text = f"{name} is gone without saying goodbye: it crashed or was killed"
            self._add_notice(trader, now_us, ERROR, text, CRASHED)
        trader.has_crashed = True
        self._set_state(trader, CRASHED, now_us, mono)

    def _replace_lost(self, peer_pid: int, now_us: int, mono: float) -> None:
        """Note that a process has begun a new run; it cannot go on with one that it lost by becoming another program.

        Without this the end of the new program, in order or not, would be told as the crash of the old one.
        """
        if not peer_pid:
            return
        for trader in self._by_key.values():
            is_waited_for = trader.connection is None and trader.run.state in (CONNECTED, QUIET, LOST)
            if is_waited_for and trader.peer_pid == peer_pid and trader.end.process == RUNNING:
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
        return sum(trader.run.state == state for trader in self._by_key.values())

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
            "run": run.key.hex(),
            "state": run.state,
            "started": rfc3339(run.started_ns // 1000),
            "last_line": rfc3339(run.last_us) if run.last_us else None,
            "last_line_age_s": None if trader.line_at is None else round(max(0.0, mono - trader.line_at), 3),
            "quiet_s": round(mono - trader.last_line, 1) if trader.connection is not None else None,
            "last_seq": run.last_seq,
        }

    # --- inside ---------------------------------------------------------------------------------------------

    def _set_state(self, trader: Trader, state: str, now_us: int, mono: float) -> None:
        if state not in _UP and trader.run.state in _UP:
            self._apps.ended(trader.app_row, mono, clean=state == CLOSED)
        trader.run.state = state
        trader.run.seen_us = now_us
        self._sequencer.touch(trader.run)

    def _add_notice(self, trader: Trader, now_us: int, rank: int, message: str, state: str = CONNECTED) -> None:
        run = trader.run
        details = {
            "state": state,
            "app": run.app,
            "host": run.host,
            "pid": run.pid,
            "run": run.key.hex(),
            "last_line": rfc3339(run.last_us) if run.last_us else None,
        }
        self._sequencer.add_notice(now_us, rank, "trader", message, details)

    def _add_gap(self, trader: Trader, now_us: int, cause: str, first: int, last: int, message: str) -> None:
        run = trader.run
        self._sequencer.add_notice(
            now_us,
            WARNING,
            "gap",
            message,
            {
                "cause": cause,
                "count": last - first + 1,
                "first": first,
                "last": last,
                "app": run.app,
                "pid": run.pid,
                "run": run.key.hex(),
            },
        )
        run.last_seq = last

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
        self._add_gap(trader, now_us, frame.cause, first, frame.last, f"{_lines(count)} of {_name(run)} lost: {why}")

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
            f"1 line of {_name(run)} rejected: {frame.reason}",
        )

    def _add_unexplained_gap(self, trader: Trader, last: int, now_us: int) -> None:
        run = trader.run
        first = run.last_seq + 1
        count = last - first + 1
        self.counters.unexplained_lines += count
        self._add_gap(
            trader,
            now_us,
            "unexplained",
            first,
            last,
            f"{_lines(count)} of {_name(run)} missing, and the trader did not say why",
        )

    def _timestamp_after_last(self, trader: Trader, time_us: int, now_us: int) -> int:
        """Return a timestamp just above the run's last one; tell once when the trader's clock was set back."""
        run = trader.run
        back = run.last_us - time_us
        if back > CLOCK_STEP_US and not trader.clock_stepped_back:
            trader.clock_stepped_back = True
            self._sequencer.add_notice(
                now_us,
                WARNING,
                "trader",
                f"the clock of {_name(run)} was set back by {back / 1e6:.1f} s; "
                "its timestamps stand still until it has caught up",
                {
                    "state": "clock",
                    "app": run.app,
                    "pid": run.pid,
                    "run": run.key.hex(),
                    "back_s": round(back / 1e6, 3),
                },
            )
        return run.last_us + 1

    def _forget_old(self) -> None:
        if len(self._by_key) < MAX_RUNS:
            return
        ended = [t for t in self._by_key.values() if t.connection is None and t.deadline == _NEVER]
        ended = [t for t in ended if t.run.state != LOST]  # one whose process runs may be back at any time
        ended.sort(key=lambda t: t.run.seen_us)
        for trader in ended[: MAX_RUNS // 10]:
            del self._by_key[trader.run.key], self.by_id[trader.run.id]


_CAUSES = {
    "overflow": "the trader's memory for unsent lines was full",
    "too_big": "too big for a frame",
    "encode": "could not be encoded",
    "rejected_repeatedly": "the connection ended again and again at this line",
    "torn": "damaged in the spool file of a killed trader",
}


def _age_s(time_us: int, now_us: int) -> float:
    return max(0.0, (now_us - time_us) / 1e6)  # a clock that was ahead has left times that are still to come


def _name(run: Run) -> str:
    return f"{run.app or 'trader'} (pid {run.pid})"


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"
