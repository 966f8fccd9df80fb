"""Who is waited for: nothing is kept of who is not, and there is a bound."""

from __future__ import annotations

from logrelay.ingest import waited_for
from logrelay.ingest.known_runs import RECENT_RUNS
from logrelay.ingest.notice_rate import APP_BURST
from logrelay.ingest.trader import RUNNING, UNKNOWN, End
from logrelay.ingest.trader_registry import CRASH_GRACE_S, LOST_GRACE_S
from tests.unit.ingest.test_trader_registry import Bench, Connection, hello, log, run_key


def test_of_a_crowd_that_was_waited_for_nothing_is_kept():
    """Back, dead, replaced or gone: the place where it was looked for by its process is free again."""
    bench = Bench()
    for number in range(1, 9):
        trader, connection = bench.join(number, peer_pid=100 + number % 4)
        bench.ended(trader, connection, End(RUNNING))
    bench.hello(1, peer_pid=101)
    bench.registry.process_died(run_key(2), bench.mono)
    bench.hello(9, peer_pid=103)
    bench.pass_time(CRASH_GRACE_S)
    bench.pass_time(LOST_GRACE_S)
    for number in range(1, 10):
        bench.registry.process_died(run_key(number), bench.mono)
    bench.pass_time(CRASH_GRACE_S)
    waited_for = bench.registry._waited_for
    assert (len(waited_for), waited_for._by_process) == (0, {})


def test_a_process_with_many_runs_is_not_gone_through():
    """Whoever makes runs without pause makes no hello slower: what is looked at are those it was known to run for."""
    bench = Bench()
    for number in range(1, 50):
        trader, connection = bench.join(number, peer_pid=7)
        bench.ended(trader, connection, End(UNKNOWN if number % 2 else RUNNING))
    assert len(bench.registry._waited_for.of_process(7)) <= 1
    assert len(bench.registry._waited_for) == 25


def test_runs_that_are_waited_for_are_bounded(monkeypatch):
    """Of whoever says hello and goes, without end, from where its process is not seen. Who comes back goes on."""
    monkeypatch.setattr(waited_for, "MAX_WAITED_FOR", 20)
    bench, told = Bench(), []
    for number in range(1, 201):
        trader, _ = bench.registry.hello(Connection(), hello(number), bench.now_us, bench.mono)
        bench.receive(trader, log(1))
        bench.registry.committed(trader.run.id, 1)
        told += bench.ended(trader, trader.connection, End())
        bench.registry.runs.forget(1, bench.now_us, bench.mono)
        assert len(bench.registry.runs.by_key) <= 20 + RECENT_RUNS + 1
    given_up = [line.message for line in told if "it is not waited for" in line.message]
    assert given_up[0] == "bot (pid 4711) lost its connection, and so did 20 others: it is not waited for"
    assert len(given_up) == APP_BURST
    trader, _ = bench.registry.hello(Connection(), hello(1), bench.now_us, bench.mono)
    assert trader.committed == 1


def test_who_comes_back_is_not_counted_among_those_that_are_waited_for(monkeypatch):
    """A tunnel that drops again and again is one run."""
    monkeypatch.setattr(waited_for, "MAX_WAITED_FOR", 2)
    bench = Bench()
    for _ in range(5):
        trader, _ = bench.registry.hello(Connection(), hello(1), bench.now_us, bench.mono)
        bench.take()
        assert bench.ended(trader, trader.connection, End()) == []
    assert len(bench.registry._waited_for) == 1
