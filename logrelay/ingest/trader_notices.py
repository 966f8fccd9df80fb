"""What the relay tells of traders, in words, and how often.

Owns: the sentences of the notices about traders and refused connections, and which of them are told at once, later,
together with others or by number. It must not know when a trader changes its state, nor change it. Time is an argument:
`now_us`, the relay's clock, for the notice, and `mono`, a clock that never steps, in seconds, for how often. Pure.
Read `ingest/notice_rate` next: it counts what is told.
"""

from __future__ import annotations

from collections.abc import Mapping

from logrelay.fanout.line_json import rfc3339
from logrelay.ingest.notice_rate import STDERR_GAPS_S, SUM_S, GapSum, GapSums, NoticeRate, StderrRate, Suppressed
from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.trader import CLOSED, CONNECTED, CRASHED, GONE, LOST, NEVER, QUIET, RUNNING, Trader
from logrelay.model import ERROR, INFO, WARNING, Run

SHORT_RUN_S = 20.0
"""A run that ended cleanly within this time was short: a job under cron, a worker. The next runs of its app are told of
when they have ended, in one notice, or after this time: a job that runs every minute would make 2,880 notices a day."""

MAX_SHORT_APPS = 1_024
"""Apps remembered for it; the one whose short run was longest ago is forgotten first, and has two notices again."""

REFUSED_INTERVAL_S = 1.0
"""A program that connects wrongly does so again and again; its refusals must not fill the journal."""

FLOODING = "flooding"
"""What a notice says of a trader that is read after the others; it is no state of a run."""

CLOCK = "clock"
"""What a notice says of a trader whose clock was set back or cannot be right; it is no state of a run either."""

_NO_DETAILS: Mapping[str, object] = {}

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
"""Why a trader has dropped lines, in words."""

_KINDS = {
    CONNECTED: "traders connecting or logging again",
    QUIET: "traders becoming quiet",
    LOST: "traders losing their connection",
    CLOSED: "traders ending cleanly",
    CRASHED: "traders crashing",
    GONE: "traders not coming back",
    FLOODING: "traders that flood",
    CLOCK: "clocks that were set back or cannot be right",
}
"""What notices of a state are about, for those that are told of by number."""


class TraderNotices:
    """Adds the notices about traders to the sequencer.

    The runs of an app whose last one was short are not announced before they have lasted, or before something else is
    told of them.
    """

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self._rate = NoticeRate()
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
        self._short_apps: dict[str, None] = {}
        """Apps whose last run was short, in that order."""
        self._unannounced: dict[Trader, float] = {}
        """Runs of such apps that no notice has told of, and the monotonic time at which one will; ascending."""

    # --- when something is told -----------------------------------------------------------------------------

    def next_report(self) -> float:
        """Return when something is due that was not told at once; infinity when nothing is. Quick."""
        due = min(self._rate.due_at, self._on_stderr.due_at)
        if self._unannounced:
            due = min(due, next(iter(self._unannounced.values())))
        return min(due, self._next_refusal_notice) if self._unreported_refusals else due

    def pass_time(self, now_us: int, mono: float) -> None:
        """Tell what is due and was not told at once."""
        self._announce_due(now_us, mono, until=mono)
        self._report_refusals(now_us, mono)
        self._report_sums(now_us, mono)

    def flush(self, now_us: int, mono: float) -> None:
        """Tell now what would be told later: the relay is about to end."""
        self._announce_due(now_us, mono, until=NEVER)
        self._report_sums(now_us, mono, all_of_them=True)

    def tell_gaps(self, now_us: int, mono: float) -> None:
        """Tell of the gaps that were added up; to be called before what has gathered is taken to be committed."""
        if not self._gap_sums.some:
            return
        for gaps in self._gap_sums.take():
            aloud = mono >= self._next_gaps_on_stderr
            if aloud:
                self._next_gaps_on_stderr = mono + STDERR_GAPS_S
            self._sequencer.add_notice(now_us, WARNING, "gap", *_summed_gaps(gaps), on_stderr=aloud)

    def _announce_due(self, now_us: int, mono: float, *, until: float) -> None:
        """Tell of runs that have turned out not to be short."""
        while self._unannounced:
            trader, due = next(iter(self._unannounced.items()))
            if due > until:
                break
            del self._unannounced[trader]
            self._announce(trader, now_us, mono)

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

    def _report_sums(self, now_us: int, mono: float, *, all_of_them: bool = False) -> None:
        for found in self._rate.take_due(mono, all_of_them=all_of_them):
            self._sequencer.add_notice(now_us, found.rank, "trader", *_suppressed(found))
        for rank, count in self._on_stderr.take_due(mono, all_of_them=all_of_them).items():
            what = "1 more notice" if count == 1 else f"{count:,} more notices"
            self._sequencer.tell_stderr(
                rank, f"{what} about traders: not said here, but in the stream and in the journal"
            )

    # --- a trader comes -------------------------------------------------------------------------------------

    def began(self, trader: Trader, now_us: int, mono: float) -> None:
        """Tell of a new run; later, where the last one of its app was short."""
        if trader.run.app in self._short_apps:
            self._unannounced[trader] = mono + SHORT_RUN_S
        else:
            self._announce(trader, now_us, mono)

    def came_back(self, trader: Trader, now_us: int, mono: float, *, is_dead: bool) -> None:
        """Tell of a run that had ended or was lost; `is_dead`: another process sends what it left behind."""
        what = "is dead; another process sends what it left behind" if is_dead else "is back"
        self._tell_state(trader, now_us, mono, INFO, f"{_name(trader.run)} {what}", CONNECTED)

    def logs_again(self, trader: Trader, silence_s: float, now_us: int, mono: float) -> None:
        """Tell that a trader is not quiet any more."""
        text = f"{_name(trader.run)} logs again after {silence_s:.0f} s of quiet"
        self._tell_state(trader, now_us, mono, INFO, text, CONNECTED)

    def refused(self, reason: str, app: str | None, now_us: int, mono: float, *, what: str) -> None:
        """Tell of a refused `what`, a connection or a frame.

        There is at most one such notice in `REFUSED_INTERVAL_S`; later refusals are told of together by the next one.
        """
        self._unreported_refusals += 1
        self._last_refusal = (reason, app, what)
        self._report_refusals(now_us, mono)

    def _announce(self, trader: Trader, now_us: int, mono: float) -> None:
        self._tell_state(trader, now_us, mono, INFO, f"{_name(trader.run)} connected", CONNECTED)

    # --- a trader falls silent or ends ----------------------------------------------------------------------

    def quiet(self, trader: Trader, silence_s: float, now_us: int, mono: float) -> None:
        """Tell that a connected trader says nothing."""
        text = f"{_name(trader.run)} is connected but has been quiet for {round(silence_s)} s"
        self._tell_state(trader, now_us, mono, WARNING, text, QUIET)

    def lost(self, trader: Trader, now_us: int, mono: float) -> None:
        """Tell that a trader has lost its connection and is not known to be dead."""
        silent_s = trader.end.silent_s
        why = f" (nothing was heard of it for {silent_s:.0f} s)" if silent_s else ""
        is_running = trader.end.process == RUNNING
        known = "its process is still running" if is_running else "whether it still runs is not known from here"
        self._tell_state(trader, now_us, mono, WARNING, f"{_name(trader.run)} lost its connection{why}; {known}", LOST)

    def gone(self, trader: Trader, why: str, now_us: int, mono: float) -> None:
        """Tell that a trader is not waited for any longer; `why` is the rest of the sentence that begins with it."""
        self._tell_state(trader, now_us, mono, WARNING, f"{_name(trader.run)} {why}", GONE)

    def crashed(self, trader: Trader, now_us: int, mono: float) -> None:
        """Tell of a crash, or of the failure that it said itself; if told before, only that the rest has come."""
        name, failure = _name(trader.run), trader.run.failure if trader.run.said_bye else ""
        if trader.run.has_crashed:
            rank, text = INFO, f"what {name} left behind when it crashed has come"
        elif failure:
            rank, text = ERROR, f"{name} ended with a failure: {failure}"
        else:
            rank, text = ERROR, f"{name} is gone without saying goodbye: it crashed or was killed"
        self._tell_state(trader, now_us, mono, rank, text, CRASHED, {"reason": failure} if failure else _NO_DETAILS)

    def ended_cleanly(self, trader: Trader, now_us: int, mono: float) -> None:
        """Tell of a clean end; with the beginning, if that was not told because the app's runs are short."""
        run, seconds = trader.run, mono - trader.began
        self._short_apps.pop(run.app, None)
        if seconds <= SHORT_RUN_S:
            self._short_apps[run.app] = None
            if len(self._short_apps) > MAX_SHORT_APPS:
                del self._short_apps[next(iter(self._short_apps))]
            if self._unannounced.pop(trader, None) is not None:
                text = f"{_name(run)} ran for {seconds:.1f} s and ended cleanly; {_lines(trader.lines)}"
                more = {"lines": trader.lines, "seconds": round(seconds, 3)}
                self._tell_state(trader, now_us, mono, INFO, text, CLOSED, more)
                return
        self._tell_state(trader, now_us, mono, INFO, f"{_name(run)} ended cleanly", CLOSED)

    # --- what is wrong with what it sends -------------------------------------------------------------------

    def lost_lines(self, run: Run, cause: str, first: int, last: int, now_us: int, mono: float) -> None:
        """Tell of lines that the trader says it had to drop."""
        self._tell_gap(run, cause, first, last, f"lost: {_CAUSES.get(cause, cause)}", now_us, mono)

    def rejected(self, run: Run, seq: int, reason: str, now_us: int, mono: float) -> None:
        """Tell of a frame that cannot be understood."""
        self._tell_gap(run, "rejected", seq, seq, f"rejected: {reason}", now_us, mono)

    def unexplained(self, run: Run, first: int, last: int, now_us: int, mono: float, *, by_power: bool) -> None:
        """Tell of lines that did not come; `by_power`: a relay before may have had them when the power went."""
        if by_power:
            what = "missing: a relay before had them, and the machine stopped before the disk did"
            self._tell_gap(run, "power", first, last, what, now_us, mono)
        else:
            what = "missing, and the trader did not say why"
            self._tell_gap(run, "unexplained", first, last, what, now_us, mono)

    def _tell_gap(self, run: Run, cause: str, first: int, last: int, what: str, now_us: int, mono: float) -> None:
        """Tell that `first` to `last` are missing: at once, or with others when there are too many such notices."""
        if not self._rate.admits("gap", run.app, run.uid, mono):
            self._gap_sums.add(run.app, cause, what, run.name, run.pid, first, last)
            return
        count = last - first + 1
        self._sequencer.add_notice(
            now_us,
            WARNING,
            "gap",
            f"{_lines(count)} of {_name(run)} {what}",
            {
                "cause": cause,
                "count": count,
                "first": first,
                "last": last,
                "app": run.app,
                "pid": run.pid,
                "run": run.name,
            },
            on_stderr=self._on_stderr.admits(WARNING, mono),
        )

    def clock_was_set_back(self, run: Run, back_us: int, now_us: int, mono: float) -> None:
        """Tell of a trader whose clock was set back by so many microseconds."""
        text = (
            f"the clock of {_name(run)} was set back by {back_us / 1e6:.1f} s; "
            "its timestamps stand still until it has caught up"
        )
        details = {"state": CLOCK, **_who(run), "back_s": round(back_us / 1e6, 3)}
        self._tell(run, now_us, mono, WARNING, text, details)

    def absurd_time(self, run: Run, time_ns: int, now_us: int, mono: float) -> None:
        """Tell of a trader that gives times that cannot be true, of which this is the first."""
        unit = next((unit for unit, ns in _UNITS if abs(time_ns * ns // 1000 - now_us) <= _YEARS_US), None)
        hint = f"it looks like {unit}" if unit else f"that is {rfc3339(time_ns // 1000)}"
        text = (
            f"{_name(run)} gives times that cannot be true: {time_ns} nanoseconds since 1970, {hint}; "
            "its lines get the time at which they came, and keep the number as time_ns"
        )
        self._tell(run, now_us, mono, WARNING, text, {"state": CLOCK, **_who(run), "time_ns": str(time_ns)})

    def floods(self, run: Run, lines: int, seconds: float, now_us: int, mono: float) -> None:
        """Tell that a trader sends so many lines that it is read after the others."""
        text = f"{_name(run)} floods: {lines:,} lines in {seconds:.0f} s; it is read after the others"
        details = {"state": FLOODING, **_who(run), "lines": lines, "seconds": round(seconds, 3)}
        self._tell(run, now_us, mono, WARNING, text, details)

    # --- inside ---------------------------------------------------------------------------------------------

    def _tell_state(
        self,
        trader: Trader,
        now_us: int,
        mono: float,
        rank: int,
        message: str,
        state: str,
        more: Mapping[str, object] = _NO_DETAILS,
    ) -> None:
        run = trader.run
        if self._unannounced.pop(trader, None) is not None:
            self._announce(trader, now_us, mono)  # what else is told of it comes behind its beginning
        details: dict[str, object] = {
            "state": state,
            "app": run.app,
            "host": run.host,
            "pid": run.pid,
            "run": run.name,
            "last_line": rfc3339(run.last_us) if run.last_us else None,
            **more,
        }
        self._tell(run, now_us, mono, rank, message, details)

    def _tell(self, run: Run, now_us: int, mono: float, rank: int, message: str, details: Mapping[str, object]) -> None:
        """Tell something of a trader, unless much of the kind has just been told: then it is counted."""
        kind = str(details["state"])
        if self._rate.admits(kind, run.app, run.uid, mono):
            aloud = self._on_stderr.admits(rank, mono)
            self._sequencer.add_notice(now_us, rank, "trader", message, details, on_stderr=aloud)
        else:
            self._rate.suppress(kind, run.app, rank, mono)


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


def _who(run: Run) -> dict[str, object]:
    return {"app": run.app, "pid": run.pid, "run": run.name}


def _name(run: Run) -> str:
    return f"{run.app or 'trader'} (pid {run.pid})"


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"
