"""Which runs are remembered, for how long, and under which number."""

from __future__ import annotations

import pytest

from logrelay.ingest import known_runs
from logrelay.ingest.frames import Bye
from logrelay.ingest.known_runs import RECENT_RUNS
from logrelay.model import Run
from tests.unit.ingest.test_trader_registry import NOW, Bench, log, run_key


def test_long_names_are_remembered_for_fewer_runs(monkeypatch):
    """Runs are bounded in bytes too; the first that ended goes first, and it is told once."""
    monkeypatch.setattr(known_runs, "MAX_NAME_BYTES", 20_000)
    bench = Bench()
    for number in range(1, RECENT_RUNS + 80):
        trader, connection = bench.join(number, app="a" * 250, host="h" * 250)
        bench.receive(trader, log(1), Bye(1))
        bench.registry.committed(trader.run.id, 1)
        bench.ended(trader, connection)
        bench.registry.runs.forget(1, bench.now_us, bench.mono)
        assert bench.registry.runs._table.name_bytes <= 20_000
    assert len(bench.registry.runs._table) == 40
    assert bench.registry.runs.forgotten_early > 0


def test_a_run_out_of_the_table_has_an_age():
    """The age of its last line, as a bot that stops logging is to be noticed by it."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1, NOW), Bye(1))
    bench.registry.committed(trader.run.id, 1)
    bench.ended(trader, connection)
    for number in range(2, RECENT_RUNS + 3):
        other, link = bench.join(number)
        bench.receive(other, log(1), Bye(1))
        bench.registry.committed(other.run.id, 1)
        bench.ended(other, link)
    bench.registry.runs.forget(1, bench.now_us, bench.mono)
    assert trader.run.id not in bench.registry.runs.by_id
    bench.pass_time(30)
    bench.join()
    assert bench.registry.summaries(bench.mono + 5)[0]["last_line_age_s"] == 35.0


@pytest.mark.parametrize("state", ["closed", "crashed"])
def test_the_highest_number_is_never_given_again(state):
    """Its run stays when its time is over, however many came to their end later, until one has a higher number."""
    after = 40 * 86_400
    runs = [Run(n, run_key(n), "job", "box", 1, 1, 1, 1, state, NOW) for n in (101, *range(1, 101))]
    bench = Bench(runs=runs, head=9)
    bench.registry.runs.forget(10, bench.now_us, bench.mono)
    bench.now_us, bench.mono = bench.now_us + after * 1_000_000, bench.mono + after
    for _ in range(3):
        bench.registry.runs.forget(10, bench.now_us, bench.mono)
    bench.take()
    gone = {id_ for commit in bench.commits for id_, _ in commit.forgotten}
    kept = [run for run in runs if run.id not in gone]
    assert {run.id for run in kept} >= {101}
    bench = Bench(runs=kept, head=9)
    trader, _ = bench.join(number=500)
    assert trader.run.id == 102
