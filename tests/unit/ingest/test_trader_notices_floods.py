"""Traders that mean harm, or are broken: floods are told of by number, runs have owners, and no seq jumps away."""

from __future__ import annotations

from logrelay.ingest.frames import Bad, Bye, Lost
from logrelay.ingest.notice_rate import APP_BURST, STDERR_BURST, STDERR_GAPS_S, SUM_S
from logrelay.model import INFO, WARNING, run_name
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
    assert bench.registry.notices.next_report() == float("inf")


def test_a_flood_of_lost_frames_is_exact():
    """Every missing line is in a notice of the same commit: a relay that is killed forgets both or none."""
    bench = Bench()
    trader, _ = bench.join()
    _, shown = bench.receive(trader, *(Lost(seq, seq, "overflow") for seq in range(1, 10_001)), log(10_001))
    *single, summed = notices(shown, "gap")
    assert len(single) == APP_BURST
    assert bench.registry.notices.next_report() == bench.mono + SUM_S, "stderr did not get all of them"
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
    bench.registry.notices.flush(bench.now_us, bench.mono)
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
