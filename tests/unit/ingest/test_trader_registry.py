"""The traders as data: seqs taken once and in order, timestamps that rise, and who is there."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.fanout.line_json import rfc3339
from logrelay.ingest.frames import Bad, Bye, Hello, Log, Lost, reject
from logrelay.ingest.known_runs import RECENT_RUNS
from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.trader import DEAD, RUNNING, UNKNOWN, End
from logrelay.ingest.trader_registry import CRASH_GRACE_S, GONE_GRACE_S, LOST_GRACE_S, SHOWN_RUNS, TraderRegistry
from logrelay.model import ERROR, INFO, RELAY_RUN, WARNING, Run, run_name

NOW = 1_769_162_400_000_000
CRASHED = End(DEAD)
HOUR_US = 3_600_000_000
QUIET_S = 60.0


def run_key(number):
    return number.to_bytes(16, "big")


def hello(number=1, **changes):
    return Hello(run_key(number), **{"app": "bot", "host": "box", "pid": 4711, "started_ns": NOW * 1000, **changes})


def log(seq, time_us=None, rank=INFO):
    return Log(seq, (NOW + seq if time_us is None else time_us) * 1000, rank, {"event": f"line {seq}"})


class Connection:
    """A TraderConnection that remembers."""

    def __init__(self):
        self.acks = []
        self.aborted = False
        self.runs = False

    def ack(self, seq, *, now):
        self.acks.append((seq, now))

    def abort(self):
        self.aborted = True

    def is_process_running(self):
        return self.runs


class Bench:
    """A registry with a sequencer behind it and clocks in hand."""

    def __init__(
        self,
        runs=(),
        head=0,
        quiet_after_s=QUIET_S,
        unsynced_before_us=None,
        on_notice=lambda _rank, _text: None,
    ):
        self.over = []
        self.mono = 1000.0
        self.now_us = NOW
        self.sequencer = Sequencer("k3f9ab", head + 1, on_notice=on_notice)
        self.registry = TraderRegistry(
            runs,
            self.sequencer,
            quiet_after_s=quiet_after_s,
            mono=self.mono,
            now_us=self.now_us,
            unsynced_before_us=unsynced_before_us,
            on_over=self.over.append,
        )
        self.commits = []

    def hello(self, number=1, connection=None, **changes):
        return self.registry.hello(connection or Connection(), hello(number, **changes), self.now_us, self.mono)

    def join(self, number=1, **changes):
        connection = Connection()
        trader, _ = self.registry.hello(connection, hello(number, **changes), self.now_us, self.mono)
        self.take()
        return trader, connection

    def receive(self, trader, *frames):
        answers = self.registry.receive(trader, list(frames), self.now_us, self.mono)
        return answers, self.take()

    def take(self):
        """Return what has been added, each line as (message, context), and remember the commit."""
        self.registry.notices.tell_gaps(self.now_us, self.mono)  # as the pipeline does before each commit
        taken = self.sequencer.take()
        if taken is None:
            return []
        commit, _ = taken
        self.commits.append(commit)
        return [Shown(line) for line in commit.lines]

    def ended(self, trader, connection, end=CRASHED):
        self.registry.ended(trader, connection, end, self.now_us, self.mono)
        return self.take()

    def pass_time(self, seconds):
        self.mono += seconds
        self.now_us += int(seconds * 1e6)
        self.registry.pass_time(self.now_us, self.mono)
        return self.take()


class Shown:
    """A line as a viewer sees it."""

    def __init__(self, line):
        shape = json.loads(line.body)
        self.line = line
        self.message = shape["message"]
        self.context = shape["context"]
        self.level = line.level
        self.is_notice = line.run == RELAY_RUN
        self.time_us = line.time_us

    def __repr__(self):
        return f"<{self.message} {self.context}>"


def messages_of(shown):
    return [line.message for line in shown]


def gap_of(shown):
    """Return cause, first, last and count of the one notice in `shown`."""
    gaps = [line.context for line in shown if line.context.get("notice") == "gap"]
    assert len(gaps) == 1, shown
    gap = gaps[0]
    assert gap["run"] == run_name(run_key(1))
    assert (gap["app"], gap["pid"]) == ("bot", 4711)
    return gap["cause"], gap["first"], gap["last"], gap["count"]


# --- hello --------------------------------------------------------------------------------------------------


def test_a_new_run_is_announced_once():
    """The first hello of a run is a notice; a second one soon after is not."""
    bench = Bench()
    trader, replaced = bench.hello()
    assert replaced is None
    assert trader.run.state == "connected"
    (notice,) = bench.take()
    assert notice.message == "bot (pid 4711) connected"
    assert notice.level == INFO
    assert notice.context["notice"] == "trader"
    assert notice.context["state"] == "connected"
    assert notice.context["run"] == run_name(run_key(1))
    assert notice.context["last_line"] is None
    bench.hello()
    assert bench.take() == []
    assert bench.registry.counters.connections == 2


def test_a_second_connection_replaces_the_first():
    """The newer connection owns the run; the end of the older one means nothing any more."""
    bench = Bench()
    one, two = Connection(), Connection()
    trader, _ = bench.hello(connection=one)
    again, replaced = bench.hello(connection=two)
    assert again is trader
    assert replaced is one
    bench.take()
    assert bench.ended(trader, one) == []
    assert trader.connection is two
    assert bench.pass_time(5) == []
    assert bench.registry.connected() == 1


def test_a_known_run_goes_on_where_the_journal_stands():
    """After a restart of the relay the hello of a known run finds its last seq, and no line is taken twice."""
    known = Run(7, run_key(1), "bot", "box", 4711, 0, last_seq=41, last_us=NOW + 50)
    bench = Bench([known], head=100)
    trader, _ = bench.hello()
    assert trader.run.id == 7
    assert trader.committed == 41
    assert bench.take() == []
    _, shown = bench.receive(trader, log(40), log(41), log(42))
    assert messages_of(shown) == ["line 42"]
    assert shown[0].line.seq == 101
    assert shown[0].time_us == NOW + 51
    assert bench.registry.counters.duplicates == 2
    other, _ = bench.hello(2)
    assert other.run.id == 8


# --- the place of a frame -----------------------------------------------------------------------------------


def test_lines_are_taken_once_and_in_order():
    """A line that comes again is counted and ignored."""
    bench = Bench()
    trader, _ = bench.join()
    answers, shown = bench.receive(trader, log(1), log(2), log(2), log(1), log(3))
    assert answers == []
    assert messages_of(shown) == ["line 1", "line 2", "line 3"]
    assert bench.registry.counters.duplicates == 2
    assert trader.run.last_seq == 3
    assert trader.lines == 3
    _, shown = bench.receive(trader, log(3), log(4))
    assert messages_of(shown) == ["line 4"]


def test_a_hole_is_said_at_its_place():
    """A hole nobody explained is a gap notice before the line behind it."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, log(1), log(5))
    assert [line.is_notice for line in shown] == [False, True, False]
    assert gap_of(shown) == ("unexplained", 2, 4, 3)
    assert shown[1].level == WARNING
    assert "3 lines of bot (pid 4711) missing" in shown[1].message
    assert bench.registry.counters.unexplained_lines == 3
    _, shown = bench.receive(trader, log(3), log(6))
    assert messages_of(shown) == ["line 6"]


@pytest.mark.parametrize("cause", ["overflow", "too_big", "encode", "rejected_repeatedly", "torn", "something new"])
def test_a_lost_frame_stands_for_its_lines(cause):
    """What the trader dropped is said with its cause, and the seqs go on behind it."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, log(1), Lost(2, 2001, cause), log(2002))
    assert gap_of(shown) == (cause, 2, 2001, 2000)
    assert messages_of(shown)[0::2] == ["line 1", "line 2002"]
    assert "2,000 lines of bot (pid 4711) lost" in shown[1].message
    assert ("damaged in the spool file" in shown[1].message) is (cause == "torn")
    assert bench.registry.counters.lost_lines == 2000
    assert bench.registry.counters.unexplained_lines == 0


@pytest.mark.parametrize(
    ("frame", "gaps"),
    [
        (Lost(1, 5, "overflow"), []),
        (Lost(3, 3, "overflow"), []),
        (Lost(4, 8, "overflow"), [("overflow", 6, 8, 3)]),
        (Lost(6, 6, "overflow"), [("overflow", 6, 6, 1)]),
        (Lost(9, 9, "overflow"), [("unexplained", 6, 8, 3), ("overflow", 9, 9, 1)]),
        (Lost(1, 2**40 + 5, "overflow"), [("overflow", 6, 2**40 + 5, 2**40)]),
    ],
)
def test_a_lost_frame_is_clipped_to_what_is_new(frame, gaps):
    """Only the part behind the last seq counts; what lies between is unexplained."""
    bench = Bench()
    trader, _ = bench.join()
    bench.receive(trader, *map(log, range(1, 6)))
    _, shown = bench.receive(trader, frame)
    assert [tuple(s.context[k] for k in ("cause", "first", "last", "count")) for s in shown] == gaps
    assert trader.run.last_seq == max(5, frame.last)
    assert bench.registry.counters.duplicates == (0 if gaps else 1)


def test_a_bad_frame_is_rejected_and_its_seq_used():
    """The trader is told not to send it again, the viewers what is missing, and the next line follows."""
    bench = Bench()
    trader, _ = bench.join()
    answers, shown = bench.receive(trader, log(1), Bad(2, "an event is a map, not list"), log(3))
    assert answers == [reject(2, "an event is a map, not list")]
    assert gap_of(shown) == ("rejected", 2, 2, 1)
    assert "an event is a map" in shown[1].message
    assert messages_of(shown)[::2] == ["line 1", "line 3"]
    assert bench.registry.counters.rejected == 1
    answers, shown = bench.receive(trader, Bad(2, "again"))
    assert answers == [reject(2, "again")]
    assert shown == []
    _, shown = bench.receive(trader, Bad(9, "far ahead"))
    assert [s.context["cause"] for s in shown] == ["unexplained", "rejected"]
    assert [(s.context["first"], s.context["last"]) for s in shown] == [(4, 8), (9, 9)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(log, st.integers(1, 30)),
            st.builds(lambda a, n: Lost(a, a + n, "overflow"), st.integers(1, 30), st.integers(0, 9)),
            st.builds(Bad, st.integers(1, 30), st.just("bad")),
            st.builds(Bye, st.integers(0, 30)),
        ),
        max_size=25,
    ),
    st.integers(1, 5),
)
def test_every_seq_is_accounted_for_exactly_once(frames, pieces):
    """Whatever a trader sends: each seq up to the last is a line or lies in exactly one gap, in rising order."""
    bench = Bench()
    trader, _ = bench.join()
    shown = []
    for at in range(0, len(frames), pieces):
        shown += bench.receive(trader, *frames[at : at + pieces])[1]
    at = 0
    for line in shown:
        if line.is_notice:
            assert line.context["notice"] == "gap"
            assert line.context["first"] == at + 1
            assert line.context["count"] == line.context["last"] - at
            at = line.context["last"]
        else:
            at += 1
            assert line.message == f"line {at}"
    assert at == trader.run.last_seq == max([f.last if type(f) in (Lost, Bye) else f.seq for f in frames], default=0)
    assert [line.line.seq for line in shown] == list(range(2, 2 + len(shown)))  # 1 is the notice about the hello


# --- the commit ---------------------------------------------------------------------------------------------


def test_a_commit_is_acked_to_the_run_s_connection():
    """What is in the journal is acked to the present connection of its run, and is what the next hello is told."""
    bench = Bench()
    trader, connection = bench.join()
    _, other = bench.join(2)
    bench.receive(trader, log(1), log(2), log(3))
    bench.registry.committed(trader.run.id, 2)
    assert trader.committed == 2
    assert connection.acks == [(2, False)]
    assert other.acks == []
    second = Connection()
    bench.hello(connection=second)
    bench.registry.committed(trader.run.id, 3)
    assert (connection.acks, second.acks) == ([(2, False)], [(3, False)])


def test_a_commit_is_acked_at_once_after_bye():
    """A trader that said goodbye waits for its last ack only."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1), Bye(1))
    bench.registry.committed(trader.run.id, 1)
    assert connection.acks == [(1, True)]


def test_a_commit_of_a_run_that_is_not_connected_is_noted():
    """A run that is gone is acked by the welcome of its next connection; a forgotten run by nobody."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1))
    bench.ended(trader, connection)
    bench.registry.committed(trader.run.id, 1)
    bench.registry.committed(999, 1)
    assert connection.acks == []
    assert bench.hello()[0].committed == 1


# --- the end ------------------------------------------------------------------------------------------------


def test_bye_and_the_end_of_the_connection_close_the_run():
    """A clean end is an INFO notice and no crash follows."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1), Bye(1))
    (notice,) = bench.ended(trader, connection)
    assert notice.message == "bot (pid 4711) ended cleanly"
    assert (notice.level, notice.context["state"]) == (INFO, "closed")
    assert notice.context["last_line"] == "2026-01-23T10:00:00.000001Z"
    assert trader.run.state == "closed"
    assert bench.pass_time(100) == []
    assert bench.registry.next_deadline() == float("inf")


def test_bye_tells_of_lines_that_never_came():
    """Lines that the run used a seq for, and that are not there at its end, are missing without an explanation."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, log(1), Bye(4))
    assert gap_of(shown) == ("unexplained", 2, 4, 3)
    assert trader.run.last_seq == 4


def test_a_line_behind_bye_takes_it_back():
    """A trader that goes on after bye and then dies has crashed."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, Bye(0))
    bench.receive(trader, log(1))
    assert bench.ended(trader, connection) == []
    assert [s.context["state"] for s in bench.pass_time(CRASH_GRACE_S)] == ["crashed"]


def test_no_bye_is_a_crash_after_a_moment():
    """A connection that ends without bye may be back within a second; after that a dead process has crashed."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1))
    assert bench.ended(trader, connection) == []
    assert bench.registry.next_deadline() == bench.mono + CRASH_GRACE_S
    assert bench.pass_time(CRASH_GRACE_S / 2) == []
    (notice,) = bench.pass_time(CRASH_GRACE_S)
    assert notice.level == ERROR
    assert notice.context["state"] == "crashed"
    assert "crashed or was killed" in notice.message
    assert bench.registry.counters.crashed == 1
    assert bench.registry.runs.in_state("crashed") == 1
    assert bench.pass_time(1000) == []
    _, shown = bench.hello()[0], bench.take()
    assert messages_of(shown) == ["bot (pid 4711) is back"]
    assert trader.run.state == "connected"


def test_back_in_time_is_no_news():
    """A reset and a reconnect within the grace time are not told to anybody."""
    bench = Bench()
    trader, connection = bench.join()
    bench.ended(trader, connection)
    bench.mono += CRASH_GRACE_S / 2
    bench.hello()
    assert bench.take() == []
    assert bench.pass_time(CRASH_GRACE_S) == []


def test_a_run_that_said_goodbye_and_returns_is_announced():
    """After "ended cleanly" nobody expects more lines: its return is said."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, Bye(0))
    bench.ended(trader, connection)
    bench.hello()
    assert messages_of(bench.take()) == ["bot (pid 4711) is back"]


@pytest.mark.parametrize("state", ["connected", "quiet"])
def test_a_trader_that_does_not_come_back_after_a_restart_is_gone(state):
    """Those that were there before get ten seconds; one notice, and `is back` when it comes later."""
    known = Run(1, run_key(1), "bot", "box", 4711, 0, state=state)
    bench = Bench([known, Run(2, run_key(2), "bot", "box", 1, 0, state="closed")])

    def awaited():
        return [trader["state"] for trader in bench.registry.summaries(bench.mono) if trader.get("awaited")]

    assert awaited() == [state]
    assert bench.pass_time(GONE_GRACE_S - 0.1) == []
    (notice,) = bench.pass_time(0.1)
    assert (notice.level, notice.context["state"]) == (WARNING, "gone")
    assert bench.registry.runs.by_id[1].run.state == "gone"
    assert awaited() == []
    bench.hello()
    assert messages_of(bench.take()) == ["bot (pid 4711) is back"]


def test_a_trader_that_comes_back_after_a_restart_is_no_news():
    """A restart of the relay is not the traders' story."""
    known = Run(1, run_key(1), "bot", "box", 4711, 0, state="connected")
    bench = Bench([known])
    bench.hello()
    assert bench.take() == []
    assert "awaited" not in bench.registry.summaries(bench.mono)[0]
    assert bench.pass_time(GONE_GRACE_S) == []


@pytest.mark.parametrize(("seconds", "brief"), [(20, True), (21, False)])
def test_a_job_is_told_from_a_bot_that_was_stopped(seconds, brief):
    """A run that said goodbye within twenty seconds is marked; one that goes on, or was longer, is not."""
    ended = Run(1, run_key(1), "job", "box", 4711, 0, state="closed", last_us=seconds * 1_000_000)
    bench = Bench([ended, Run(2, run_key(2), "bot", "box", 1, 0, state="crashed", last_us=1)])
    marked = {trader["app"] for trader in bench.registry.summaries(bench.mono) if trader.get("brief")}
    assert marked == ({"job"} if brief else set())


# --- quiet --------------------------------------------------------------------------------------------------


def test_quiet_and_loud_again():
    """Silence is told once, its end once, and the next silence again."""
    bench = Bench()
    trader, _ = bench.join()
    bench.receive(trader, log(1))
    assert bench.pass_time(QUIET_S - 1) == []
    (notice,) = bench.pass_time(1)
    assert notice.message == "bot (pid 4711) is connected but has been quiet for 60 s"
    assert (notice.level, notice.context["state"]) == (WARNING, "quiet")
    assert trader.run.state == "quiet"
    assert bench.pass_time(1000) == []
    _, shown = bench.receive(trader, log(2))
    assert messages_of(shown) == ["line 2", "bot (pid 4711) logs again after 1060 s of quiet"]
    assert trader.run.state == "connected"
    assert bench.registry.next_deadline() == bench.mono + QUIET_S
    assert [s.context["state"] for s in bench.pass_time(QUIET_S)] == ["quiet"]


def test_lines_put_the_silence_off():
    """The time runs from the last line, and a duplicate is not a line."""
    bench = Bench()
    trader, _ = bench.join()
    for seq in range(1, 5):
        bench.receive(trader, log(seq))
        assert bench.pass_time(QUIET_S - 1) == []
    bench.receive(trader, log(1))
    assert [s.context["state"] for s in bench.pass_time(1)] == ["quiet"]


def test_quiet_after_zero_means_never():
    """0 turns the watch off."""
    bench = Bench(quiet_after_s=0)
    bench.join()
    assert bench.registry.next_deadline() == float("inf")
    assert bench.pass_time(10**6) == []


def test_a_quiet_trader_that_dies_has_crashed():
    """Quiet and then gone: both are told."""
    bench = Bench()
    trader, connection = bench.join()
    bench.pass_time(QUIET_S)
    bench.ended(trader, connection)
    assert [s.context["state"] for s in bench.pass_time(CRASH_GRACE_S)] == ["crashed"]


# --- timestamps ---------------------------------------------------------------------------------------------


def test_timestamps_rise_by_a_microsecond_when_they_would_not():
    """Equal and slightly older times are moved up, without a word about it."""
    bench = Bench()
    trader, _ = bench.join()
    times = [NOW, NOW, NOW - 900_000, NOW + 1, NOW + 10]
    _, shown = bench.receive(trader, *(log(i + 1, t) for i, t in enumerate(times)))
    assert [s.time_us - NOW for s in shown] == [0, 1, 2, 3, 10]
    assert not any(s.is_notice for s in shown)


def test_a_clock_set_back_by_an_hour_is_said_once_and_again_next_time():
    """One notice, timestamps that stand still, and then time goes on; a second step is told again."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, log(1, NOW), log(2, NOW - HOUR_US), log(3, NOW - HOUR_US + 5))
    assert [s.is_notice for s in shown] == [False, True, False, False]
    assert shown[1].context["state"] == "clock"
    assert shown[1].context["back_s"] == 3600.0
    assert shown[1].level == WARNING
    assert [s.time_us - NOW for s in shown if not s.is_notice] == [0, 1, 2]
    assert [s.line.clock_us for s in shown if not s.is_notice] == [None, NOW - HOUR_US, NOW - HOUR_US + 5]
    assert [s.context.get("clock") for s in shown if not s.is_notice] == [
        None, rfc3339(NOW - HOUR_US), rfc3339(NOW - HOUR_US + 5),
    ]  # fmt: skip
    _, shown = bench.receive(trader, log(4, NOW + 2 * HOUR_US), log(5, NOW))
    assert [s.is_notice for s in shown] == [False, True, False]
    assert shown[1].context["back_s"] == 7200.0
    assert shown[2].time_us == NOW + 2 * HOUR_US + 1
    _, shown = bench.receive(
        trader, log(6, NOW + 2 * HOUR_US - 5), log(7, NOW + 3 * HOUR_US), log(8, NOW + HOUR_US * 3)
    )
    assert [s.line.clock_us for s in shown] == [NOW + 2 * HOUR_US - 5, None, None]


def test_a_time_that_the_relay_put_in_is_no_time_of_the_traders_clock():
    """Lines without a believable time, mixed with old lines that have one: nobody has set a clock back."""
    bench = Bench()
    trader, _ = bench.join()
    old = NOW - HOUR_US
    frames = [log(1, old), Log(2, 5, INFO, {}), log(3, old + 10), Log(4, 5, INFO, {}), log(5, old + 20)]
    _, shown = bench.receive(trader, *frames)
    told = [line.context["state"] for line in shown if line.is_notice]
    assert (told, "cannot be true" in next(line for line in shown if line.is_notice).message) == (["clock"], True)
    lines = [line.line for line in shown if not line.is_notice]
    assert [line.time_us - NOW for line in lines] == [-HOUR_US, 0, 1, 2, 3]
    assert [line.clock_us for line in lines] == [None, None, old + 10, None, old + 20], "they are found by their times"
    _, shown = bench.receive(trader, log(6, old - HOUR_US))
    assert [line.context.get("back_s") for line in shown if line.is_notice] == [3600.0], "this is a step"


def test_a_time_put_in_behind_a_clock_that_is_ahead_is_no_step_either():
    """The relay's clock, which stands in, is behind the trader's."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, log(1, NOW + HOUR_US), Log(2, 5, INFO, {}), log(3, NOW + HOUR_US + 10))
    assert ["set back" in line.message for line in shown if line.is_notice] == [False]
    lines = [line.line for line in shown if not line.is_notice]
    assert [line.time_us - NOW - HOUR_US for line in lines] == [0, 1, 10]
    assert [line.clock_us for line in lines] == [None, NOW, None]


def test_a_clock_set_forward_needs_no_word():
    """Time that leaps ahead is simply later."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, log(1, NOW), log(2, NOW + HOUR_US), log(3, NOW + HOUR_US + 1))
    assert [s.time_us - NOW for s in shown] == [0, HOUR_US, HOUR_US + 1]


def test_runs_keep_their_own_time():
    """The clock of one run does not move that of another."""
    bench = Bench()
    one, _ = bench.join(1)
    two, _ = bench.join(2)
    bench.receive(one, log(1, NOW + HOUR_US))
    _, shown = bench.receive(two, log(1, NOW))
    assert shown[0].time_us == NOW


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=30))
def test_timestamps_rise_whatever_the_clock_does(times_ns):
    """Any nanoseconds that fit a frame give timestamps that rise strictly, and so does what viewers read."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, *(Log(i + 1, t, INFO, {}) for i, t in enumerate(times_ns)))
    lines = [s.line for s in shown if not s.is_notice]
    shown_times = [json.loads(line.body)["timestamp"] for line in lines]
    assert len(lines) == len(times_ns)
    assert all(a.time_us < b.time_us for a, b in pairwise(lines))
    assert shown_times == sorted(set(shown_times))
    assert all(0 < line.time_us < 2**63 for line in lines)


def test_notices_rise_too_when_the_relays_clock_steps_back():
    """Notices are a run of their own: their timestamps rise strictly as well."""
    bench = Bench()
    shown = []
    for number in range(1, 6):
        bench.now_us -= HOUR_US
        bench.hello(number)
        shown += bench.take()
    times = [s.time_us for s in shown]
    assert all(a < b for a, b in pairwise(times))
    assert [s.line.clock_us for s in shown[1:]] == [bench.now_us + HOUR_US * back for back in (3, 2, 1, 0)]
    assert "clock" not in shown[0].context
    assert shown[4].context["clock"] == rfc3339(bench.now_us)


# --- what is shown -------------------------------------------------------------------------------------------


def test_what_viewers_are_shown():
    """Connected traders first, then the latest that ended, twenty in all unless more are connected."""
    bench = Bench()
    for number in range(1, 31):
        bench.now_us += 1_000_000
        trader, connection = bench.join(number, pid=number)
        if number % 10:
            bench.receive(trader, Bye(0))
            bench.ended(trader, connection)
    bench.mono += 2.5
    shown = bench.registry.summaries(bench.mono)
    assert len(shown) == SHOWN_RUNS
    assert [t["pid"] for t in shown][:5] == [30, 20, 10, 29, 28]
    assert shown[0] == {
        "app": "bot",
        "host": "box",
        "pid": 30,
        "run": run_name(run_key(30)),
        "state": "connected",
        "started": "2026-01-23T10:00:00.000000Z",
        "last_line": None,
        "last_line_age_s": None,
        "quiet_s": 2.5,
        "last_seq": 0,
    }
    assert shown[3]["quiet_s"] is None
    for number in range(31, 61):
        bench.join(number)
    assert len(bench.registry.summaries(bench.mono)) == 33


def test_commits_carry_copies_of_the_runs():
    """What goes to the journal's thread does not change under it."""
    bench = Bench()
    trader, _ = bench.join()
    bench.receive(trader, log(1))
    kept = bench.commits[-1].runs[0]
    bench.receive(trader, log(2))
    assert kept is not trader.run
    assert kept.last_seq == 1
    assert bench.commits[-1].runs[0].last_seq == 2


def test_refusals_are_said_at_most_once_a_second_and_none_is_forgotten():
    """A program that connects wrongly ten times a second is one notice a second; the last ones are said as well."""
    bench = Bench()
    said = []
    for number in range(50):
        bench.registry.refused("no hello came", bench.now_us, number / 10, "bot")
        bench.registry.pass_time(bench.now_us, number / 10)
        said += [notice.context["count"] for notice in bench.take()]
    assert bench.registry.next_deadline() == pytest.approx(5.0, abs=0.11)
    bench.registry.pass_time(bench.now_us, bench.registry.next_deadline())
    said += [notice.context["count"] for notice in bench.take()]
    assert said[0] == 1
    assert sum(said) == 50 == bench.registry.counters.refused
    assert len(said) in (6, 7)
    assert bench.registry.next_deadline() == float("inf")


def measured(bench):
    samples = bench.registry.app_samples(bench.mono)
    up = {labels["app"]: value for labels, value in samples["trader_up"]}
    return up, {labels["app"]: value for labels, value in samples["trader_last_line_age_seconds"]}


@pytest.mark.parametrize("step_s", [-30 * 86_400, -5, 0, 5, 30 * 86_400])
def test_a_step_of_the_clock_changes_no_age(step_s):
    """Whatever is set on the machine's clock, a line that came ten seconds ago is ten seconds old."""
    bench = Bench()
    trader, _ = bench.join()
    bench.receive(trader, log(1))
    bench.now_us += step_s * 1_000_000
    bench.pass_time(10.0)
    assert measured(bench) == ({"bot": 1}, {"bot": 10.0})
    assert bench.registry.summaries(bench.mono)[0]["last_line_age_s"] == 10.0
    bench.receive(trader, log(2, bench.now_us))
    assert measured(bench) == ({"bot": 1}, {"bot": 0.0})


@pytest.mark.parametrize(("ahead_s", "age"), [(-40, 40.0), (0, 0.0), (30 * 86_400, 0.0)])
def test_ages_from_before_the_start_are_taken_from_the_wall_clock_once(ahead_s, age):
    """A line of an earlier life is as old as the clock says at the start, and no younger than now if it is ahead."""
    last_us = NOW + ahead_s * 1_000_000
    run = Run(1, run_key(1), "bot", "box", 1, 0, 7, last_us, "crashed", last_us)
    silent = Run(2, run_key(2), "silent", "box", 2, 0, state="crashed", seen_us=NOW)
    bench = Bench([run, silent])
    bench.now_us -= HOUR_US
    bench.pass_time(2.0)
    assert measured(bench) == ({"bot": 0, "silent": 0}, {"bot": age + 2.0})
    ages = {t["app"]: t["last_line_age_s"] for t in bench.registry.summaries(bench.mono)}
    assert ages == {"bot": age + 2.0, "silent": None}


@pytest.mark.parametrize("bye", [True, False])
def test_a_bot_is_up_from_hello_to_its_end(bye):
    """After a clean end nothing says that it ought to run; after a crash it is down, and up again when it is back."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1, rank=ERROR), *([Bye(1)] if bye else []))
    bench.ended(trader, connection)
    if not bye:
        assert measured(bench)[0] == {"bot": 1}, "it may be back at once"
    bench.pass_time(CRASH_GRACE_S)
    assert measured(bench)[0] == ({} if bye else {"bot": 0})
    trader, _ = bench.join()
    bench.receive(trader, log(1, rank=ERROR), log(2))
    assert measured(bench)[0] == {"bot": 1}
    counted = bench.registry.app_samples(bench.mono)["trader_lines_total"]
    assert {labels["level"]: n for labels, n in counted if n} == {"error": 1, "info": 1}, "a repeat is not counted"


def test_a_quiet_bot_and_one_that_takes_over_are_up():
    """Quiet is not down; a second connection of a run makes no second run of it."""
    bench = Bench()
    trader, _ = bench.join()
    bench.pass_time(QUIET_S)
    assert trader.run.state == "quiet"
    _, connection = bench.join()
    assert measured(bench)[0] == {"bot": 1}
    bench.receive(trader, Bye(0))
    bench.ended(trader, connection)
    assert measured(bench)[0] == {}


def test_a_bot_from_before_the_restart_is_up_until_it_has_not_come_back():
    """The relay's own restart is no alarm; a bot that does not come back is one."""
    bench = Bench([Run(1, run_key(1), "bot", "box", 1, 0, 7, NOW, "connected", NOW)])
    assert measured(bench)[0] == {"bot": 1}
    bench.pass_time(GONE_GRACE_S)
    assert measured(bench)[0] == {"bot": 0}


# --- connections that are lost ----------------------------------------------------------------------------------------


def lost(bench, end):
    """Return a trader that has lost its connection, and what was told of it after the grace time."""
    trader, connection = bench.join()
    bench.receive(trader, log(1))
    assert bench.ended(trader, connection, end) == []
    (notice,) = bench.pass_time(CRASH_GRACE_S)
    return trader, notice


def test_a_process_that_runs_has_not_crashed():
    """It is lost until it is back, however long that takes, and it is a warning."""
    bench = Bench()
    trader, notice = lost(bench, End(RUNNING))
    assert (notice.level, notice.context["state"]) == (WARNING, "lost")
    assert notice.message == "bot (pid 4711) lost its connection; its process is still running"
    assert bench.pass_time(100 * LOST_GRACE_S) == []
    assert (trader.run.state, bench.registry.counters.crashed, bench.registry.counters.lost) == ("lost", 0, 1)
    assert bench.registry.summaries(bench.mono)[0]["state"] == "lost"
    bench.hello()
    assert messages_of(bench.take()) == ["bot (pid 4711) is back"]
    assert trader.run.state == "connected"


def test_a_process_that_ends_later_has_crashed_then():
    """Without connection and without bye; it is told once, after the grace time."""
    bench = Bench()
    trader, _ = lost(bench, End(RUNNING))
    for told in (1, 0):
        at = bench.registry.process_died(run_key(1), bench.mono)
        assert (at, bench.take()) == (bench.mono + CRASH_GRACE_S if told else float("inf"), [])
        seen = bench.pass_time(CRASH_GRACE_S)
        assert [(notice.level, notice.context["state"]) for notice in seen] == [(ERROR, "crashed")] * told
    assert (trader.run.state, bench.registry.counters.crashed) == ("crashed", 1)


def test_a_lost_process_that_came_back_and_ended_has_not_crashed():
    """Its end may be seen before its last connection is read, on which it says goodbye."""
    bench = Bench()
    trader, _ = lost(bench, End(RUNNING))
    bench.registry.process_died(run_key(1), bench.mono)
    _, connection = bench.join()
    bench.receive(trader, log(2), Bye(2))
    assert messages_of(bench.ended(trader, connection, CRASHED)) == ["bot (pid 4711) ended cleanly"]
    assert bench.pass_time(CRASH_GRACE_S) == []
    assert bench.registry.counters.crashed == 0


def test_a_process_that_ends_within_the_grace_time_has_crashed():
    """The connection of a killed process ends a moment before it does; both make one alarm, at the usual time."""
    bench = Bench()
    trader, connection = bench.join()
    assert bench.registry.ended(trader, connection, End(RUNNING), bench.now_us, bench.mono) is True
    bench.registry.process_died(run_key(1), bench.mono)
    assert bench.take() == []
    (notice,) = bench.pass_time(CRASH_GRACE_S)
    assert notice.message == "bot (pid 4711) is gone without saying goodbye: it crashed or was killed"
    bench.registry.process_died(run_key(1), bench.mono)
    assert bench.take() == []


@pytest.mark.parametrize("state", ["connected", "closed", "gone"])
def test_the_end_of_a_process_matters_only_to_who_is_lost(state):
    """One that is connected, has said bye or is gone already is no crash."""
    bench = Bench()
    if state == "gone":
        trader, _ = lost(bench, End(UNKNOWN))
        bench.pass_time(LOST_GRACE_S)
    else:
        trader, connection = bench.join()
    if state == "closed":
        bench.receive(trader, Bye(0))
        assert bench.registry.ended(trader, connection, End(RUNNING), bench.now_us, bench.mono) is False
    bench.take()
    bench.registry.process_died(run_key(1), bench.mono)
    bench.registry.process_died(run_key(99), bench.mono)
    assert (bench.take(), trader.run.state) == ([], state)


def test_of_what_is_not_known_nothing_is_claimed():
    """A lost tunnel is told as that; after a named time the trader is gone, and never crashed."""
    bench = Bench()
    trader, notice = lost(bench, End(UNKNOWN))
    assert (notice.level, notice.context["state"]) == (WARNING, "lost")
    assert notice.message == "bot (pid 4711) lost its connection; whether it still runs is not known from here"
    assert bench.pass_time(LOST_GRACE_S - 0.1) == []
    (notice,) = bench.pass_time(0.2)
    assert (notice.level, notice.context["state"]) == (WARNING, "gone")
    assert notice.message == (
        "bot (pid 4711) did not come back within 5 minutes of losing its connection; "
        "whether it still runs is not known from here"
    )
    assert (trader.run.state, bench.registry.counters.crashed) == ("gone", 0)
    bench.hello()
    assert messages_of(bench.take()) == ["bot (pid 4711) is back"]


def test_a_connection_that_was_given_up_says_why():
    """It is counted, and how long nothing was heard is part of what is told."""
    bench = Bench()
    _, notice = lost(bench, End(UNKNOWN, 12.0))
    assert "lost its connection (nothing was heard of it for 12 s); whether" in notice.message
    assert bench.registry.counters.given_up == 1


def test_a_process_that_has_become_another_program():
    """With exec the connection ends and the process runs on: its next run takes the old one's place, without alarm."""
    bench = Bench()
    old, _ = lost(bench, End(UNKNOWN))
    assert old.peer_pid == 0
    bench.join(2)
    assert old.run.state == "lost", "nothing says that it is the same process"
    trader, connection = bench.join(3, peer_pid=7)
    bench.ended(trader, connection, End(RUNNING))
    bench.pass_time(CRASH_GRACE_S)
    bench.hello(4, peer_pid=8)
    assert (trader.run.state, len(bench.take())) == ("lost", 1)
    bench.hello(5, peer_pid=7)
    assert messages_of(bench.take()) == [
        "bot (pid 4711) connected",
        "bot (pid 4711) said no goodbye, and its process has begun a new run",
    ]
    assert trader.run.state == "gone"
    bench.registry.process_died(run_key(3), bench.mono)
    assert bench.take() == []
    trader, connection = bench.join(number=6, peer_pid=9)
    bench.ended(trader, connection, End(RUNNING))
    bench.hello(7, peer_pid=9)
    bench.take()
    assert (trader.run.state, bench.pass_time(CRASH_GRACE_S)) == ("gone", []), "the next program was quick"
    assert bench.over == [run_key(3), run_key(6)], "nobody need look at the process for them"


def test_a_run_that_is_not_waited_for_any_longer_is_told_of():
    """So that its process is watched no more: when it is given up, gone or back, and not when it ended in order."""
    bench = Bench()
    trader, connection = bench.join(1, peer_pid=7)
    bench.receive(trader, log(1), Bye(1))
    bench.ended(trader, connection, End(RUNNING))
    assert bench.over == []
    lost_one, connection = bench.join(2, peer_pid=8)
    bench.ended(lost_one, connection, End(RUNNING))
    bench.hello(2, peer_pid=8)
    assert bench.over == [], "it is back, and the server knows"
    gone, connection = bench.join(3, peer_pid=9)
    bench.ended(gone, connection, End(UNKNOWN))
    bench.pass_time(CRASH_GRACE_S)
    bench.pass_time(LOST_GRACE_S)
    assert bench.over == [run_key(3)]


def test_a_dead_run_that_another_process_delivers_has_crashed():
    """Whatever is known of that process; if the crash was told before, only that the rest has come."""
    bench = Bench()
    trader, connection = bench.join(is_dead=True)
    assert bench.registry.ended(trader, connection, End(RUNNING), bench.now_us, bench.mono) is False
    (notice,) = bench.pass_time(CRASH_GRACE_S)
    assert (notice.level, notice.context["state"]) == (ERROR, "crashed")
    again, connection = bench.hello(is_dead=True)[0], trader.connection
    assert again is trader
    assert messages_of(bench.take()) == ["bot (pid 4711) is dead; another process sends what it left behind"]
    bench.ended(trader, connection, End(UNKNOWN))
    (notice,) = bench.pass_time(CRASH_GRACE_S)
    assert (notice.level, notice.context["state"]) == (INFO, "crashed")
    assert notice.message == "what bot (pid 4711) left behind when it crashed has come"
    assert bench.registry.counters.crashed == 1


@pytest.mark.parametrize("way", ["crowd", "restart"])
def test_a_crash_is_told_once_however_many_runs_ended_since(way):
    """What the run left behind may come much later, when the run is only in the table."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1))
    bench.ended(trader, connection, CRASHED)
    assert [notice.context["state"] for notice in bench.pass_time(CRASH_GRACE_S)] == ["crashed"]
    bench.registry.committed(trader.run.id, 1)
    others = [Run(2 + n, run_key(2 + n), "job", "box", 1, 1, 1, 1, "closed", NOW + 10**9) for n in range(RECENT_RUNS)]
    if way == "restart":
        bench = Bench(runs=[trader.run, *others], head=9)
    else:
        for run in others:
            other, connection = bench.join(run.id)
            bench.receive(other, log(1), Bye(1))
            bench.registry.committed(other.run.id, 1)
            bench.ended(other, connection, End())
        bench.registry.runs.forget(1, bench.now_us, bench.mono)
    assert trader.run.id not in bench.registry.runs.by_id
    again, connection = bench.join(is_dead=True)
    bench.ended(again, connection, End())
    (notice,) = bench.pass_time(CRASH_GRACE_S)
    assert notice.message == "what bot (pid 4711) left behind when it crashed has come"
    assert bench.registry.counters.crashed == (way == "crowd")


def test_a_crash_is_told_once_although_the_relay_is_restarted_in_the_middle_of_what_was_left_behind():
    """The journal knows all the while that the run has crashed; its own process, if it is back, takes that away."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1))
    bench.ended(trader, connection, CRASHED)
    assert [notice.context["state"] for notice in bench.pass_time(CRASH_GRACE_S)] == ["crashed"]
    trader, _ = bench.join(is_dead=True)
    bench.receive(trader, log(2))
    assert (trader.run.state, bench.commits[-1].runs[0].state) == ("connected", "crashed")
    bench = Bench(runs=[bench.commits[-1].runs[0]], head=9)
    assert bench.pass_time(GONE_GRACE_S) == [], "nobody waits for it"
    trader, connection = bench.join(is_dead=True)
    bench.ended(trader, connection, End())
    (notice,) = bench.pass_time(CRASH_GRACE_S)
    assert notice.message == "what bot (pid 4711) left behind when it crashed has come"
    assert bench.registry.counters.crashed == 0
    trader, _ = bench.join()
    bench.receive(trader, log(3))
    assert bench.commits[-1].runs[0].state == "connected"


def test_a_lost_trader_is_gone_when_the_relay_was_restarted_meanwhile():
    """Its process, if it was known, is not any more."""
    bench = Bench(runs=[Run(1, run_key(1), "bot", "box", 4711, 1, state="lost")])
    (notice,) = bench.pass_time(GONE_GRACE_S)
    assert (notice.level, notice.context["state"]) == (WARNING, "gone")


def test_a_hole_that_the_power_left_is_said_to_be_one():
    """Where a relay before acked lines that the disk had not: the first hole of a run from before has that cause."""
    known = Run(1, run_key(1), "bot", "box", 4711, NOW * 1000, last_seq=5, state="connected")
    bench = Bench([known], unsynced_before_us=NOW + 1)
    trader, _ = bench.join()
    _, shown = bench.receive(trader, log(9), log(11))
    assert [gap_of([line]) for line in shown if line.is_notice] == [("power", 6, 8, 3), ("power", 10, 10, 1)]
    assert "a relay before had them" in shown[0].message
    _, shown = bench.receive(trader, log(13))
    assert gap_of(shown) == ("unexplained", 12, 12, 1)
    unknown, _ = bench.join(2)
    assert bench.receive(unknown, log(3))[1][0].context["cause"] == "power"
    later, _ = bench.join(3, started_ns=(NOW + 1) * 1000)
    assert bench.receive(later, log(3))[1][0].context["cause"] == "unexplained"


def test_without_a_power_cut_no_hole_is_explained_by_one():
    """A run from before the relay's start may have holes of its own."""
    known = Run(1, run_key(1), "bot", "box", 4711, NOW * 1000, last_seq=5, state="connected")
    trader, _ = (bench := Bench([known])).join()
    assert gap_of(bench.receive(trader, log(9))[1]) == ("unexplained", 6, 8, 3)
