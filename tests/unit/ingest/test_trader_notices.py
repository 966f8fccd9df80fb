"""What the registry says about traders, word for word, what it counts, and when a run was seen last."""

from __future__ import annotations

import json

import pytest

from logrelay.ingest import trader_notices as module
from logrelay.ingest.app_activity import AppRow
from logrelay.ingest.frames import Bad, Bye, Hello, Log, Lost
from logrelay.ingest.sequencer import CLOCK_STEP_US, Sequencer
from logrelay.ingest.trader import DEAD, End, Trader
from logrelay.ingest.trader_notices import SHORT_RUN_S
from logrelay.ingest.trader_registry import CRASH_GRACE_S, GONE_GRACE_S, TraderRegistry
from logrelay.model import ERROR, INFO, WARNING, Run, run_name

NOW = 1_769_162_400_000_000
CRASHED = End(DEAD)
KEY = b"k" * 16
HELLO = Hello(KEY, "bot", "box", 4711, NOW * 1000)
WHO = {"app": "bot", "host": "box", "pid": 4711, "run": run_name(KEY)}


class Connection:
    def ack(self, seq, *, now):
        pass

    def abort(self):
        pass


class Bench:
    """A registry whose clocks move only here."""

    def __init__(self, runs=(), quiet_after_s=60.0):
        self.mono, self.now_us = 1000.0, NOW
        self.sequencer = Sequencer("k3f9ab", 1, on_notice=lambda rank, text: None)
        self.registry = TraderRegistry(
            runs, self.sequencer, quiet_after_s=quiet_after_s, mono=self.mono, now_us=self.now_us
        )
        self.runs = []

    def hello(self, hello=HELLO):
        trader, _ = self.registry.hello(Connection(), hello, self.now_us, self.mono)
        return trader

    def receive(self, trader, *received):
        self.registry.receive(trader, list(received), self.now_us, self.mono)
        return self.notices()

    def end(self, trader, end=CRASHED):
        self.registry.ended(trader, trader.connection, end, self.now_us, self.mono)
        return self.notices()

    def forward(self, seconds):
        self.mono += seconds
        self.now_us += int(seconds * 1e6)
        self.registry.pass_time(self.now_us, self.mono)
        return self.notices()

    def notices(self):
        """Return rank, kind, message and the other context of each notice since the last call."""
        taken = self.sequencer.take()
        if taken is None:
            return []
        self.runs = taken[0].runs
        shown = [(line.level, json.loads(line.body)) for line in taken[0].lines]
        return [
            (level, line["context"].pop("notice"), line["message"], line["context"])
            for level, line in shown
            if "notice" in line["context"]
        ]


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def trader(bench):
    trader = bench.hello()
    bench.notices()
    return trader


def log(seq, time_us=None):
    return Log(seq, (NOW + seq if time_us is None else time_us) * 1000, INFO, {"event": "e"})


def test_a_trader_begins_with_nothing():
    """No line, no connection, no time at which something happens."""
    trader = Trader(Run(1, KEY, "bot", "box", 1, 1), AppRow("bot"))
    assert (trader.connection, trader.seen_since_start, trader.run.said_bye, trader.clock_stepped_back) == (
        None,
        False,
        False,
        False,
    )
    assert (trader.last_line, trader.deadline, trader.committed, trader.lines) == (0.0, float("inf"), 0, 0)


def test_coming_and_going(bench):
    """Each is said once, with who it is and when its last line was."""
    trader = bench.hello()
    assert bench.notices() == [
        (INFO, "trader", "bot (pid 4711) connected", {"state": "connected", "last_line": None} | WHO)
    ]
    bench.receive(trader, log(1))
    last = {"last_line": "2026-01-23T10:00:00.000001Z"}
    assert bench.receive(trader, Bye(1)) == []
    assert bench.end(trader) == [
        (INFO, "trader", "bot (pid 4711) ended cleanly", {"state": "closed"} | last | WHO),
    ]
    bench.hello()
    assert bench.notices() == [(INFO, "trader", "bot (pid 4711) is back", {"state": "connected"} | last | WHO)]
    bench.end(trader)
    assert bench.forward(CRASH_GRACE_S) == [
        (
            ERROR,
            "trader",
            "bot (pid 4711) is gone without saying goodbye: it crashed or was killed",
            {"state": "crashed"} | last | WHO,
        )
    ]
    for crashes in (1, 2):
        assert bench.registry.counters.crashed == crashes
        bench.hello()
        bench.end(trader)
        bench.forward(CRASH_GRACE_S)
    assert bench.hello(Hello(b"o" * 16, "", "box", 5, 1))
    assert bench.notices()[0][2] == "trader (pid 5) connected"


def run_of(bench, n, seconds, lines=0, app="cron"):
    """Let a run come, log, say goodbye and end; return what was said."""
    trader = bench.hello(Hello(bytes([n]) * 16, app, "box", n, NOW * 1000))
    said = bench.notices()
    bench.receive(trader, *(log(seq) for seq in range(1, lines + 1)), Bye(lines))
    return said + bench.forward(seconds) + bench.end(trader)


def texts(said):
    return [message for _, _, message, _ in said]


def test_short_clean_runs_are_told_of_once(bench):
    """From the second run of an app on, one notice says all; what is not short, or not clean, is told as ever."""
    assert texts(run_of(bench, 1, 0.5)) == ["cron (pid 1) connected", "cron (pid 1) ended cleanly"]
    assert run_of(bench, 2, 1.5, lines=3) == [
        (
            INFO,
            "trader",
            "cron (pid 2) ran for 1.5 s and ended cleanly; 3 lines",
            {"state": "closed", "app": "cron", "host": "box", "pid": 2, "run": run_name(bytes([2]) * 16)}
            | {"last_line": "2026-01-23T10:00:00.000003Z", "lines": 3, "seconds": 1.5},
        )
    ]
    assert texts(run_of(bench, 3, 0.0, app="other")) == ["other (pid 3) connected", "other (pid 3) ended cleanly"]
    assert texts(run_of(bench, 4, SHORT_RUN_S, lines=1)) == ["cron (pid 4) connected", "cron (pid 4) ended cleanly"]
    assert texts(run_of(bench, 5, SHORT_RUN_S + 1)) == ["cron (pid 5) connected", "cron (pid 5) ended cleanly"]
    assert texts(run_of(bench, 6, 1.0)) == ["cron (pid 6) connected", "cron (pid 6) ended cleanly"]


def test_a_run_of_an_app_with_short_runs_that_crashes(bench):
    """Its beginning is told before its end."""
    run_of(bench, 1, 0.5)
    trader = bench.hello(Hello(b"2" * 16, "cron", "box", 2, NOW * 1000))
    assert bench.notices() == []
    assert bench.registry.notices.next_report() == bench.mono + SHORT_RUN_S
    bench.end(trader)
    assert [text.split(")")[1][:22] for text in texts(bench.forward(CRASH_GRACE_S))] == [
        " connected",
        " is gone without sayin",
    ]
    bench.hello(Hello(b"3" * 16, "cron", "box", 3, NOW * 1000))
    bench.registry.notices.flush(bench.now_us, bench.mono)
    assert texts(bench.notices()) == ["cron (pid 3) connected"]


def test_apps_with_short_runs_are_remembered_up_to_a_bound(bench, monkeypatch):
    """The one that ran last longest ago goes first."""
    monkeypatch.setattr(module, "MAX_SHORT_APPS", 2)
    for n, app in enumerate("abc"):
        run_of(bench, n, 0.1, app=app)
    assert [len(run_of(bench, 10 + n, 0.1, app=app)) for n, app in enumerate("cba")] == [1, 1, 2]


def test_one_whose_time_has_not_come_hides_no_other(bench):
    """The first trader goes on, the second falls silent."""
    first, second = bench.hello(), bench.hello(Hello(b"o" * 16, "other", "box", 5, 1))
    bench.forward(30)
    bench.receive(first, log(1))
    said = bench.forward(30)
    assert [message for _, _, message, _ in said] == ["other (pid 5) is connected but has been quiet for 60 s"]
    assert (first.run.state, second.run.state) == ("connected", "quiet")


def test_quiet_and_loud_again(bench, trader):
    """With how long it was quiet."""
    bench.receive(trader, log(1))
    last = {"last_line": "2026-01-23T10:00:00.000001Z"}
    assert bench.forward(59.9) == []
    assert bench.forward(0.1) == [
        (
            WARNING,
            "trader",
            "bot (pid 4711) is connected but has been quiet for 60 s",
            {"state": "quiet"} | last | WHO,
        )
    ]
    bench.forward(15.0)
    assert bench.receive(trader, log(2)) == [
        (
            INFO,
            "trader",
            "bot (pid 4711) logs again after 75 s of quiet",
            {"state": "connected", "last_line": "2026-01-23T10:00:00.000002Z"} | WHO,
        )
    ]


@pytest.mark.parametrize(("after", "deadline"), [(0.0, float("inf")), (0.5, 1000.5), (-1.0, float("inf"))])
def test_quiet_may_be_any_time_or_never(after, deadline):
    """Nothing or less is never."""
    bench = Bench(quiet_after_s=after)
    assert bench.hello().deadline == deadline


def test_a_trader_that_does_not_come_back(bench):
    """After a start of the relay; one that had ended before is not waited for."""
    gone = Run(3, KEY, "bot", "box", 4711, 1, last_seq=7, last_us=NOW)
    quiet = Run(4, b"q" * 16, "other", "box", 5, 1, state="quiet")
    closed = Run(5, b"c" * 16, "done", "box", 6, 1, state="closed")
    bench = Bench([gone, quiet, closed])
    by_id = bench.registry.runs.by_id
    assert {number: trader.run for number, trader in by_id.items()} == {3: gone, 4: quiet, 5: closed}
    assert [trader.committed for trader in by_id.values()] == [7, 0, 0]
    assert {trader.last_line for trader in by_id.values()} == {1000.0}
    assert bench.registry.next_deadline() == 1000.0 + GONE_GRACE_S
    assert bench.forward(GONE_GRACE_S - 0.1) == []
    said = bench.forward(0.1)
    assert said[0] == (
        WARNING,
        "trader",
        "bot (pid 4711) did not come back after the relay was restarted",
        {"state": "gone", "last_line": "2026-01-23T10:00:00.000000Z"} | WHO,
    )
    assert [message.split(" (")[0] for _, _, message, _ in said] == ["bot", "other"]
    assert [(run.state, run.seen_us) for run in bench.runs] == [("gone", bench.now_us)] * 2
    assert bench.hello().run.id == 3
    assert bench.hello(Hello(b"n" * 16, "n", "h", 1, 1)).run.id == 6


def test_when_a_run_was_seen_last(bench):
    """At each change of its state and at each line, by the relay's clock; the journal gets it."""
    seen = []

    def note():
        bench.notices()
        seen.append([(run.id, run.state, (run.seen_us - NOW) // 1_000_000) for run in bench.runs])
        bench.runs = []

    trader = bench.hello()
    assert trader.run.seen_us == NOW
    note()
    bench.forward(60)
    seen.append([(run.id, run.state, (run.seen_us - NOW) // 1_000_000) for run in bench.runs])
    bench.now_us += 1_000_000
    bench.receive(trader, log(1))
    seen.append([(run.id, run.state, (run.seen_us - NOW) // 1_000_000) for run in bench.runs])
    bench.now_us += 1_000_000
    bench.receive(trader, log(2), Bye(2))
    seen.append([(run.id, run.state, (run.seen_us - NOW) // 1_000_000) for run in bench.runs])
    bench.now_us += 1_000_000
    bench.end(trader)
    seen.append([(run.id, run.state, (run.seen_us - NOW) // 1_000_000) for run in bench.runs])
    bench.now_us += 1_000_000
    bench.hello()
    note()
    bench.end(trader)
    bench.forward(CRASH_GRACE_S)
    seen.append([(run.id, run.state, (run.seen_us - NOW) // 1_000_000) for run in bench.runs])
    states = ["connected", "quiet", "connected", "closed", "closed", "connected", "crashed"]
    assert seen == [[(1, state, at)] for state, at in zip(states, (0, 60, 61, 62, 63, 64, 65), strict=True)]


def test_a_quiet_run_that_logs_is_seen_when_its_state_changes(bench, trader, monkeypatch):
    """Its row is written with the time of the change."""
    bench.forward(60)
    set_state, times = bench.registry._set_state, []
    monkeypatch.setattr(bench.registry, "_set_state", lambda *args: times.append(args[2]) or set_state(*args))
    bench.receive(trader, log(1))
    assert times == [bench.now_us]


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        ("overflow", "the trader's memory for unsent lines was full"),
        ("too_big", "too big for a frame"),
        ("encode", "could not be encoded"),
        ("rejected_repeatedly", "the connection ended again and again at this line"),
        ("of its own", "of its own"),
    ],
)
def test_lost_lines_are_told_with_their_cause(bench, trader, cause, why):
    """In words; a cause that we do not know in the trader's."""
    assert bench.receive(trader, Lost(1, 1500, cause), Lost(1501, 1501, cause)) == [
        (
            WARNING,
            "gap",
            f"{count} of bot (pid 4711) lost: {why}",
            {"cause": cause, "count": last - first + 1, "first": first, "last": last}
            | {key: WHO[key] for key in ("app", "pid", "run")},
        )
        for first, last, count in ((1, 1500, "1,500 lines"), (1501, 1501, "1 line"))
    ]
    assert bench.registry.counters.lost_lines == 1501


def test_missing_and_rejected_lines_are_told(bench, trader):
    """Whatever shows that they are missing."""
    who = {key: WHO[key] for key in ("app", "pid", "run")}

    def missing(first, last, count):
        what = f"{count} of bot (pid 4711) missing, and the trader did not say why"
        context = {"cause": "unexplained", "count": last - first + 1, "first": first, "last": last}
        return WARNING, "gap", what, context | who

    def rejected(seq):
        said = "1 line of bot (pid 4711) rejected: no event"
        return WARNING, "gap", said, {"cause": "rejected", "count": 1, "first": seq, "last": seq} | who

    assert bench.receive(trader, log(3)) == [missing(1, 2, "2 lines")]
    assert bench.receive(trader, Bad(5, "no event"), Bad(6, "no event"), Bad(6, "no event")) == [
        missing(4, 4, "1 line"),
        rejected(5),
        rejected(6),
    ]
    assert bench.receive(trader, Lost(8, 8, "encode"))[0] == missing(7, 7, "1 line")
    assert bench.receive(trader, Bye(8)) == []
    assert bench.receive(trader, Bye(10)) == [missing(9, 10, "2 lines")]
    counters = bench.registry.counters
    assert (counters.unexplained_lines, counters.rejected, counters.lost_lines) == (6, 2, 1)
    assert bench.receive(trader, log(3), Lost(2, 5, "encode"), log(10), Lost(1, 10, "encode")) == []
    assert counters.duplicates == 4
    bench.receive(trader, log(11), log(12))
    bench.receive(trader, log(13))
    assert trader.lines == 4


def test_a_clock_that_was_set_back(bench, trader):
    """Is told once until it has caught up; a second is threads overtaking each other."""
    bench.receive(trader, log(1, NOW + 100_000_000))
    assert bench.receive(trader, log(2, NOW + 100_000_000 - CLOCK_STEP_US)) == []
    back = 2_345_678
    last = trader.run.last_us
    assert bench.receive(trader, log(3, last - back), log(4, last - back)) == [
        (
            WARNING,
            "trader",
            "the clock of bot (pid 4711) was set back by 2.3 s; its timestamps stand still until it has caught up",
            {"state": "clock", "back_s": 2.346} | {key: WHO[key] for key in ("app", "pid", "run")},
        )
    ]
    assert trader.run.last_us == last + 2
    bench.receive(trader, log(5, last + 10))
    assert len(bench.receive(trader, log(6, last - back))) == 1, "it was told of the time before"


def test_refusals_in_words(bench):
    """The first at once, those within a second together; with the last reason and who it was."""
    registry = bench.registry
    registry.refused("no hello came", bench.now_us, bench.mono, None)
    context = {"state": "refused", "reason": "no hello came", "app": None, "count": 1}
    said = "a connection to the log socket refused: no hello came"
    assert bench.notices() == [(WARNING, "trader", said, context)]
    assert registry.next_deadline() == float("inf")
    for app in ("a", "b"):
        registry.refused("too old", bench.now_us, bench.mono + 0.5, app)
    assert bench.notices() == []
    assert registry.next_deadline() == bench.mono + module.REFUSED_INTERVAL_S
    context = {"state": "refused", "reason": "too old", "app": "b", "count": 2}
    said = "2 connections to the log socket refused: too old"
    assert bench.forward(1.0) == [(WARNING, "trader", said, context)]
    for _ in range(1234):
        registry.refused("x", bench.now_us, bench.mono, None)
    assert bench.forward(1.0)[0][2] == "1,234 connections to the log socket refused: x"
    assert registry.counters.refused == 1237


def test_what_health_checks_see(bench, trader):
    """Of a run without a line, of one that logs, of one that is gone."""
    started = {"started": "2026-01-23T10:00:00.000000Z"}
    bench.mono += 1.26
    summary = WHO | started | {"state": "connected", "last_line": None, "last_line_age_s": None, "quiet_s": 1.3}
    summary |= {"last_seq": 0}
    assert bench.registry.summaries(bench.mono) == [summary]
    bench.receive(trader, log(1))
    bench.end(trader)
    summary |= {"last_line": "2026-01-23T10:00:00.000001Z", "last_line_age_s": 2.5, "quiet_s": None, "last_seq": 1}
    assert bench.registry.summaries(bench.mono + 2.5) == [summary]


def test_a_run_that_says_why_it_fails_has_crashed(bench):
    """In hello again before its bye; told at once, as it said so itself, and as any crash where it is counted."""
    trader = bench.hello()
    bench.notices()
    bench.receive(trader, log(1), HELLO._replace(failure="uncaught ValueError"), Bye(1))
    last = {"last_line": "2026-01-23T10:00:00.000001Z", "reason": "uncaught ValueError"}
    text = "bot (pid 4711) ended with a failure: uncaught ValueError"
    assert bench.end(trader) == [(ERROR, "trader", text, {"state": "crashed"} | last | WHO)]
    assert (trader.run.state, bench.registry.counters.crashed) == ("crashed", 1)
    assert bench.forward(2 * GONE_GRACE_S) == []
    bench.hello(HELLO._replace(is_dead=True, failure="its last lines tell more"))
    bench.receive(trader, Bye(1))
    assert [notice[:3:2] for notice in bench.end(trader)] == [
        (INFO, "what bot (pid 4711) left behind when it crashed has come")
    ]


def test_a_run_that_only_says_that_it_fails_has_not_said_goodbye(bench):
    """It was killed then, or has lost its connection: nobody knows how it ends."""
    trader = bench.hello(HELLO._replace(failure="uncaught ValueError"))
    bench.end(trader)
    told = bench.forward(CRASH_GRACE_S)
    assert told[-1][2] == "bot (pid 4711) is gone without saying goodbye: it crashed or was killed"


def test_the_end_of_a_run_that_fails_is_not_kept_before_it_is_told(bench):
    """A relay that stops in between has the next one tell that the run did not come back, not that it ended well."""
    trader = bench.hello()
    bench.receive(trader, log(1), HELLO._replace(failure="uncaught ValueError"), Bye(1))
    (kept,) = bench.runs
    assert (kept.state, trader.run.state) == ("connected", "connected")
    following = Bench([kept])
    assert [notice[2] for notice in following.forward(GONE_GRACE_S)] == [
        "bot (pid 4711) did not come back after the relay was restarted"
    ]


def test_a_goodbye_is_kept_before_its_connection_ends(bench):
    """A machine that is shut down ends bots and relay at once: the next relay must not miss those that said bye."""
    trader = bench.hello()
    bench.receive(trader, log(1), Bye(1))
    (kept,) = bench.runs
    assert (kept.state, trader.run.state) == ("closed", "connected")
    following = Bench([kept])
    assert following.forward(2 * GONE_GRACE_S) == []
    bench.receive(trader, log(2))
    assert [run.state for run in bench.runs] == ["connected"], "it went on"
