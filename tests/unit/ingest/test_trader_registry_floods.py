"""Traders that mean harm, or are broken: floods are told of by number, runs have owners, and no seq jumps away."""

from __future__ import annotations

import pytest

from logrelay.ingest import trader_registry
from logrelay.ingest.frames import Bad, Bye, Lost
from logrelay.ingest.notice_rate import APP_BURST, STDERR_BURST, STDERR_GAPS_S, SUM_S
from logrelay.ingest.trader_registry import MAX_HOLE, RECENT_RUNS, End
from logrelay.model import INFO, WARNING, Run, run_name
from tests.unit.ingest.test_trader_registry import NOW, Bench, Connection, hello, log, run_key


def notices(shown, kind):
    return [line for line in shown if line.is_notice and line.context["notice"] == kind]


def test_a_flood_of_hellos_is_told_of_by_number():
    bench = Bench()
    told = []
    for number in range(1, 3_001):
        trader, _ = bench.registry.hello(Connection(), hello(number), bench.now_us, bench.mono)
        told += bench.take()
        bench.receive(trader, Bye(0))
        told += bench.ended(trader, trader.connection)
    assert len(told) == 1 + APP_BURST, "all but the first are short runs of an app that has them"
    assert bench.registry.next_deadline() == bench.mono + SUM_S
    both = bench.pass_time(SUM_S)
    assert [(line.context["state"], line.context["count"], line.level) for line in both] == [
        ("closed", 3_000 - APP_BURST, INFO),
    ]
    assert both[0].message == "and 2,950 more of this kind in 10 s: traders ending cleanly (bot)"
    assert both[0].context["apps"] == ["bot"]
    assert bench.registry.next_report() == float("inf")


def test_a_flood_of_lost_frames_is_exact():
    """Every missing line is in a notice of the same commit: a relay that is killed forgets both or none."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, *(Lost(seq, seq, "overflow") for seq in range(1, 10_001)), log(10_001))
    *single, summed = notices(shown, "gap")
    assert len(single) == APP_BURST
    assert bench.registry.next_report() == bench.mono + SUM_S, "stderr did not get all of them"
    assert summed.level == WARNING
    assert summed.message == (
        "9,950 lines of bot (pid 4711) lost: the trader's memory for unsent lines was full (9,950 gaps)"
    )
    name = run_name(run_key(1))
    assert summed.context == {
        "notice": "gap",
        "cause": "overflow",
        "count": 9_950,
        "gaps": 9_950,
        "app": "bot",
        "pid": 4711,
        "run": name,
        "ranges": [{"run": name, "first": 51, "last": 10_000}],
        "more_ranges": False,
    }
    assert bench.registry.counters.lost_lines == 10_000


def test_what_is_suppressed_is_told_before_the_end():
    """A relay that stops does not wait for the time at which the sums are due."""
    bench = Bench()
    for number in range(1, 200):
        bench.registry.hello(Connection(), hello(number), bench.now_us, bench.mono)
    bench.registry.flush(bench.now_us, bench.mono)
    kinds = [(line.context["notice"], line.context.get("count")) for line in bench.take()]
    assert kinds[-1] == ("trader", 199 - APP_BURST)


def test_gaps_of_many_runs_name_no_single_one():
    bench = Bench()
    for number in range(1, 301):
        trader, _ = bench.registry.hello(Connection(), hello(number), bench.now_us, bench.mono)
        bench.registry.receive(trader, [Bad(1, f"bad {number}")], bench.now_us, bench.mono)
    *_, summed = notices(bench.take(), "gap")
    assert summed.context["count"] == 300 - APP_BURST
    assert summed.context["more_ranges"] is True
    assert "run" not in summed.context
    assert bench.registry.counters.rejected == 300


def test_a_clock_that_goes_back_again_and_again_is_told_of_by_number():
    bench = Bench()
    trader, _ = bench.join()
    steps = []
    for n in range(1, 501):
        steps += [log(2 * n - 1, NOW + 10_000_000 * n), log(2 * n, NOW)]
    _, shown = bench.receive(trader, *steps)
    assert len(notices(shown, "trader")) == APP_BURST
    (summed,) = bench.pass_time(SUM_S)
    assert (summed.context["state"], summed.context["count"]) == ("clock", 500 - APP_BURST)


def test_another_user_does_not_get_a_run():
    bench = Bench()
    bench.join(peer_uid=1000)
    assert bench.registry.objection(hello(peer_uid=1000)) is None
    assert bench.registry.objection(hello(2, peer_uid=1001)) is None
    reason = bench.registry.objection(hello(peer_uid=1001))
    assert reason == "the run belongs to another user (uid 1000, this is 1001); each makes its own"


def test_a_run_stays_its_users_after_its_end():
    """Also when it has gone into the table of many."""
    bench = Bench()
    trader, connection = bench.join(peer_uid=1000)
    bench.receive(trader, log(1), Bye(1))
    bench.ended(trader, connection)
    bench.registry.committed(trader.run.id, 1)
    for number in range(2, 200):
        other, link = bench.join(number, peer_uid=1000)
        bench.receive(other, Bye(0))
        bench.ended(other, link)
    bench.registry.forget(1, bench.now_us, bench.mono)
    assert run_key(1) not in bench.registry._by_key
    assert bench.registry.objection(hello(peer_uid=1001))
    assert bench.registry.objection(hello(peer_uid=1000)) is None
    assert bench.registry.objection(hello(peer_uid=-1)) is None  # a kernel that does not say


def test_a_run_of_an_earlier_relay_is_his_who_comes_first():
    """The journal does not keep users."""
    bench = Bench([Run(1, run_key(1), "bot", "box", 4711, 0, last_seq=5)], head=5)
    assert bench.registry.objection(hello(peer_uid=1001)) is None
    bench.join(peer_uid=1001)
    assert bench.registry.objection(hello(peer_uid=1000))


@pytest.mark.parametrize("changes", [{"peer_pid": 9}, {"peer_pid": 0}, {"is_dead": True}])
def test_another_process_does_not_get_a_run_whose_own_is_connected(changes):
    """The same process may connect again, and anybody of the user once it is gone."""
    bench = Bench()
    _, connection = bench.join(peer_pid=8, peer_uid=1)
    connection.runs = True
    assert bench.registry.objection(hello(peer_uid=1, peer_pid=8)) is None
    reason = bench.registry.objection(hello(peer_uid=1, **changes))
    assert reason == "the run belongs to the process 8, which is connected and runs; each makes its own"
    connection.runs = False
    assert bench.registry.objection(hello(peer_uid=1, **changes)) is None


@pytest.mark.parametrize(
    "frame",
    [
        log(2**63 - 1),
        log(MAX_HOLE + 6),
        Lost(6, MAX_HOLE + 6, "overflow"),
        Lost(2**63 - 1, 2**63 - 1, "overflow"),
        Bad(2**63 - 1, "bad"),
        Bye(2**63 - 1),
    ],
)
def test_a_seq_far_ahead_is_refused_and_the_run_goes_on(frame):
    """Taken, it would make every later line of the run a repeat."""
    bench = Bench()
    trader, _ = bench.join()
    bench.receive(trader, *map(log, range(1, 6)))
    answers, shown = bench.receive(trader, frame, log(6))
    assert [line.message for line in shown if not line.is_notice] == ["line 6"]
    assert trader.run.last_seq == 6
    assert len(answers) == (type(frame) is not Bye)
    (told,) = notices(shown, "trader")
    assert told.message.startswith("a frame to the log socket refused: seq ")
    assert bench.registry.counters.rejected == 1
    assert bench.registry.counters.unexplained_lines == 0
    assert not trader.run.said_bye


def test_the_key_of_a_run_is_told_to_nobody():
    """Notices, lines and the list of traders have a name that is made of it."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1), log(5), Lost(6, 7, "x"), Bad(8, "y"), log(9, NOW * 3))
    bench.ended(trader, connection)
    bench.pass_time(5)
    bodies = b"".join(line.body for commit in bench.commits for line in commit.lines)
    said = bodies.decode() + repr(bench.registry.summaries(bench.mono))
    assert said.count(run_name(run_key(1))) >= 8
    assert run_key(1).hex() not in said


def test_a_name_with_control_characters_is_shown_escaped():
    bench = Bench()
    bench.registry.hello(Connection(), hello(app="\x1b]0;x\x07\u202e"), bench.now_us, bench.mono)
    (told,) = bench.take()
    assert told.message == "\\x1b]0;x\\x07\\u202e (pid 4711) connected"
    assert told.context["app"] == "\x1b]0;x\x07\u202e"


def test_sums_of_gaps_come_to_stderr_once_a_second():
    """The stream has one with every commit of a flood; a person at the terminal needs none of them."""
    heard = []
    bench = Bench(on_notice=lambda _rank, text: heard.append(text))
    trader, _ = bench.join()
    for first in range(1, 1_001, 100):
        bench.receive(trader, *(Lost(seq, seq, "overflow") for seq in range(first, first + 100)))
    assert len([text for text in heard if "gaps)" in text]) == 1
    bench.pass_time(STDERR_GAPS_S)
    bench.receive(trader, *(Lost(seq, seq, "overflow") for seq in range(1_001, 1_101)))
    assert len([text for text in heard if "gaps)" in text]) == 2


def test_stderr_gets_some_of_many_notices_and_the_number_of_the_others():
    """A program that makes up names has a burst for each of them, and the system's log is for other things too."""
    said = []
    bench = Bench(on_notice=lambda rank, text: said.append((rank, text)))
    for number in range(1, 201):
        bench.registry.hello(Connection(), hello(number, app=f"app{number}"), bench.now_us, bench.mono)
    assert len(bench.take()) == 200
    assert len(said) == STDERR_BURST
    bench.pass_time(SUM_S)
    more = f"{200 - STDERR_BURST} more notices about traders: not said here, but in the stream and in the journal"
    assert said[STDERR_BURST:] == [(INFO, more)]


def test_runs_that_are_waited_for_are_bounded(monkeypatch):
    """Of whoever says hello and goes, without end, from where its process is not seen. Who comes back goes on."""
    monkeypatch.setattr(trader_registry, "MAX_WAITED_FOR", 20)
    bench, told = Bench(), []
    for number in range(1, 201):
        trader, _ = bench.registry.hello(Connection(), hello(number), bench.now_us, bench.mono)
        bench.receive(trader, log(1))
        bench.registry.committed(trader.run.id, 1)
        told += bench.ended(trader, trader.connection, End())
        bench.registry.forget(1, bench.now_us, bench.mono)
        assert len(bench.registry._by_key) <= 20 + RECENT_RUNS + 1
    given_up = [line.message for line in told if "it is not waited for" in line.message]
    assert given_up[0] == "bot (pid 4711) lost its connection, and so did 20 others: it is not waited for"
    assert len(given_up) == APP_BURST
    trader, _ = bench.registry.hello(Connection(), hello(1), bench.now_us, bench.mono)
    assert trader.committed == 1


def test_who_comes_back_is_not_counted_among_those_that_are_waited_for(monkeypatch):
    """A tunnel that drops again and again is one run."""
    monkeypatch.setattr(trader_registry, "MAX_WAITED_FOR", 2)
    bench = Bench()
    for _ in range(5):
        trader, _ = bench.registry.hello(Connection(), hello(1), bench.now_us, bench.mono)
        bench.take()
        assert bench.ended(trader, trader.connection, End()) == []
    assert len(bench.registry._waited_for) == 1
