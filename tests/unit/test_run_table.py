"""Many runs in little memory: the table held to a dict."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from logrelay.model import Run
from logrelay.run_table import LEAST_RUNS, MAX_RUNS, RunTable, most_runs


def made(number, **changes):
    shape = {"app": "bot", "host": "box", "pid": number, "started_ns": 5, "last_seq": number, "state": "closed"}
    return Run(number, number.to_bytes(16, "big"), **{**shape, **changes})


@pytest.mark.parametrize("seed", range(20))
def test_it_does_what_a_dict_would(seed):
    """Put, replace, take out and look up at random, through several sizes; order, counts and copies included."""
    rng = random.Random(seed)
    table, model = RunTable(), {}
    for _ in range(2000):
        number = rng.randrange(1, 300)
        key = number.to_bytes(16, "big")
        if rng.random() < rng.choice((0.3, 0.7)):
            assert table.pop(key) == model.pop(key, None)
        else:
            app = rng.choice(("", "bot", "é" * 128, "scalper"))
            run = made(number, app=app, last_seq=rng.randrange(2**63), state=rng.choice(("closed", "crashed", "gone")))
            table.put(run)
            model[key] = run
        assert table.get(key) == model.get(key)
    assert table == list(model.values())
    assert len(table) == len(model)
    assert table.size == table.copy().size == sum(map(len, filter(None, table._records)))
    names = sum(len(run.app.encode()) + len(run.host.encode()) for run in model.values())
    assert table.name_bytes == table.copy().name_bytes == names
    for state in ("closed", "crashed", "gone", "connected"):
        assert table.in_state(state) == sum(run.state == state for run in model.values())
    assert table.in_states("closed", "gone") == [run for run in model.values() if run.state in ("closed", "gone")]
    assert table.latest(7) == list(model.values())[-7:]
    assert table.latest(0) == []
    assert table.highest_id() == max(run.id for run in model.values())
    copy = table.copy()
    copy.put(made(999))
    copy.pop(next(iter(model)))
    assert table == list(model.values()), "a copy is a table of its own"
    assert (made(999) in list(copy), len(copy)) == (True, len(model))


def test_every_field_comes_back():
    """The largest numbers, negative times, texts that are not ASCII, and no text at all."""
    most = 2**63 - 1
    for run in (
        Run(most, b"k" * 16, "é" * 128, "中" * 128, most, most, most, most, "connected", most),
        Run(1, bytes(16), "", "", 0, 0, 0, -1, "gone", -5),
    ):
        table = RunTable([run])
        assert (table.get(run.key), list(table), len(table)) == (run, [run], 1)
    assert table != [made(1)]
    assert table != "a table"
    with pytest.raises(TypeError, match="no hash"):
        hash(table)


def test_the_first_in_a_state():
    """In the order in which they were added, with its mark, also when earlier ones were taken out and others added."""
    table = RunTable()
    assert (table.first("closed"), table.first("closed", other=True), table.highest_id()) == (None, None, 0)
    for number in range(1, 101):
        table.put(made(number, state="closed" if number % 3 else "crashed"), number * 10)
    seen = []
    for _ in range(200):
        found = table.first("closed")
        if found is None:
            break
        seen.append((found[0].id, found[1]))
        table.pop(found[0].key)
        if found[0].id < 50:
            table.put(made(found[0].id + 1000))
    assert seen == [(n, n * 10) for n in range(1, 101) if n % 3] + [(n + 1000, 0) for n in range(1, 50) if n % 3]
    lost = table.first("closed", other=True)
    assert lost == (made(3, state="crashed"), 30)
    assert len(table) == 33


def test_a_remembered_run_is_small():
    """Two hundred bytes at most; a copy costs next to nothing until it changes."""
    tracemalloc.start()
    try:
        table = RunTable(made(number) for number in range(20_000))
        size = tracemalloc.get_traced_memory()[0]
        copy = table.copy()
        more = tracemalloc.get_traced_memory()[0] - size
    finally:
        tracemalloc.stop()
    assert size / 20_000 < 200
    assert more / 20_000 < 40
    assert len(copy) == 20_000


def test_a_forgotten_run_leaves_nothing_behind():
    """A million that come and go take no more than those that are there."""
    table = RunTable()
    for number in range(20_000):
        table.put(made(number))
        if number >= 100:
            table.pop((number - 100).to_bytes(16, "big"))
    assert (len(table), [run.id for run in table]) == (100, list(range(19_900, 20_000)))
    assert len(table._records) < 1000


@pytest.mark.parametrize(
    ("journal_bytes", "runs"),
    [(1 << 20, LEAST_RUNS), (64 << 20, 65_536), (1 << 30, MAX_RUNS), (1 << 40, MAX_RUNS)],
)
def test_how_many_a_journal_remembers(journal_bytes, runs):
    """They take an eighth of the size limit at most, except in the smallest journals."""
    assert most_runs(journal_bytes) == runs
