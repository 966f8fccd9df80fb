"""Every line once, whatever is forgotten: registry, sequencer and a real journal, reopened again and again."""

from __future__ import annotations

import json
import os
import random

import pytest

from logrelay.fanout.filters import Filter
from logrelay.ingest.frames import Bye, Hello, Log
from logrelay.ingest.known_runs import CLOCK_HOLD_S, CLOSED_S, FORGET_STEP, RECENT_RUNS, RESEND_S
from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.trader import DEAD, UNKNOWN, End
from logrelay.ingest.trader_registry import TraderRegistry
from logrelay.journal.interface import Query
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import INFO
from logrelay.run_table import MAX_RUNS

NOW = 1_769_162_400_000_000
WALKS = 60 if os.environ.get("CHAOS") == "full" else 6
STEPS = 400
CROWD = 2_100
"""More runs than the relay once remembered."""


class Connection:
    """A TraderConnection that remembers how far it was acked."""

    def __init__(self):
        self.acked = 0

    def ack(self, seq, *, now):
        self.acked = max(self.acked, seq)

    def abort(self):
        pass


class Relay:
    """What a relay does with frames, one step at a time, with the clocks in hand."""

    def __init__(self, path, *, max_age_s=7 * 86_400.0, max_runs=MAX_RUNS, ages=False):
        self.ages = ages
        """Lines grow old as the test's clocks go; else by the machine's uptime, which is not at all."""
        self.path, self.max_age_s, self.max_runs = path, max_age_s, max_runs
        self.now_us, self.mono = NOW, 1000.0
        self.journal = self.registry = None
        self.seen = {}
        """By seq, what every commit left in the journal before retention went over it; None for a notice."""
        self.start()

    def start(self):
        self.journal = SqliteJournal(
            str(self.path),
            now_us=lambda: self.now_us,
            **({"uptime_us": lambda: int(self.mono * 1e6)} if self.ages else {}),
            random_epoch=lambda: "k3f9ab",
            max_age_s=self.max_age_s,
        )
        opening = self.journal.open()
        self.sequencer = Sequencer(opening.epoch, opening.head + 1, on_notice=lambda _rank, _text: None)
        self.registry = TraderRegistry(
            opening.runs,
            self.sequencer,
            quiet_after_s=0,
            mono=self.mono,
            now_us=self.now_us,
            max_runs=self.max_runs,
        )
        self.head = opening.head

    def restart(self):
        """The old one was killed: what was not committed is gone."""
        self.journal.close()
        self.start()

    def commit(self):
        taken = self.sequencer.take()
        if taken is None:
            return
        commit, _ = taken
        self.journal.append(commit)
        for run in commit.runs:
            self.registry.committed(run.id, run.last_seq)
        self.head = commit.lines[-1].seq if commit.lines else self.head
        if commit.lines:
            self._look(commit.lines[0].seq)
        self.registry.runs.forget(self.journal.prune(), self.now_us, self.mono)

    def _look(self, first):
        page = self.journal.page(Query(first - 1, self.head, 100_000, Filter()))
        assert page.complete
        for seq, body in zip(page.seqs, page.bodies, strict=True):
            shape = json.loads(body)
            assert shape["context"].get("notice") != "gap", shape
            self.seen[seq] = shape["message"] if shape["source"] != "logrelay" else None

    def forward(self, seconds):
        self.mono += seconds
        self.now_us += int(seconds * 1e6)
        self.registry.pass_time(self.now_us, self.mono)
        self.commit()

    def connect(self, key):
        connection = Connection()
        hello = Hello(key, f"bot{key[0] % 3}", "box", 4711, NOW * 1000)
        trader, _ = self.registry.hello(connection, hello, self.now_us, self.mono)
        return trader, connection, trader.committed

    def send(self, trader, *frames):
        self.registry.receive(trader, list(frames), self.now_us, self.mono)

    def end(self, trader, connection, process=UNKNOWN):
        self.registry.ended(trader, connection, End(process), self.now_us, self.mono)

    def clean_run(self, key, lines=1):
        trader, connection, _ = self.connect(key)
        self.send(trader, *[log(key, seq, self.now_us) for seq in range(1, lines + 1)], Bye(lines))
        self.commit()
        self.end(trader, connection)

    def kept(self):
        """Return every line kept: a text for each of a trader, a dict for each notice."""
        found, after = [], 0
        while True:
            page = self.journal.page(Query(after, self.head, 100_000, Filter()))
            for body in page.bodies:
                shape = json.loads(body)
                found.append(shape["context"] if shape["source"] == "logrelay" else shape["message"])
            if page.complete:
                return found
            after = page.reached


def log(key, seq, now_us):
    return Log(seq, (now_us + seq) * 1000, INFO, {"event": f"{key.hex()} {seq}"})


def key_of(number):
    return random.Random(number).randbytes(16)


@pytest.fixture
def relay_at(tmp_path):
    """Make a relay on the same file; the last one is closed at the end."""
    made = []

    def make(**settings):
        made.append(Relay(tmp_path / "journal.db", **settings))
        return made[-1]

    yield make
    for relay in made:
        relay.journal.close()


def gaps(found):
    return [line for line in found if isinstance(line, dict) and line.get("notice") == "gap"]


def lines_of(found, key):
    return [line for line in found if isinstance(line, str) and line.startswith(key.hex())]


@pytest.mark.timeout(900)  # as many
@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "running"])
def test_a_run_that_dropped_is_known_after_thousands_of_others(relay_at, restart):
    """It resends its last lines: they are in the journal, once each, and nothing is said to be missing."""
    relay = relay_at()
    lost = key_of(0)
    trader, connection, _ = relay.connect(lost)
    relay.send(trader, *[log(lost, seq, relay.now_us) for seq in range(1, 11)])
    relay.commit()
    relay.end(trader, connection)
    relay.forward(14)
    for number in range(1, CROWD + 1):
        relay.clean_run(key_of(number))
    if restart:
        relay.restart()
    trader, _, acked = relay.connect(lost)
    assert acked == 10
    relay.send(trader, *[log(lost, seq, relay.now_us) for seq in range(9, 13)])
    relay.commit()
    found = relay.kept()
    assert lines_of(found, lost) == [f"{lost.hex()} {seq}" for seq in range(1, 13)]
    assert gaps(found) == []
    assert sum(isinstance(line, str) for line in found) == 12 + CROWD
    assert len(relay.registry.runs) == CROWD + 1
    assert len(relay.registry.runs.by_id) <= RECENT_RUNS + 1, "the rest is in the table"


def test_a_run_goes_when_it_can_send_nothing_again(relay_at):
    """Closed ones a day after their last line went, crashed ones when nobody resends, ones without a line at once."""
    relay = relay_at(max_age_s=86_400.0, ages=True)
    crashed, closed, empty = key_of(1), key_of(2), key_of(3)
    trader, connection, _ = relay.connect(crashed)
    relay.send(trader, log(crashed, 1, relay.now_us))
    relay.end(trader, connection)
    relay.clean_run(closed)
    relay.clean_run(empty, lines=0)
    relay.forward(2)

    def known(key):
        return relay.registry.runs.by_key.get(key) is not None or relay.registry.runs._table.get(key) is not None

    def others(first, count=RECENT_RUNS + 1):
        for number in range(first, first + count):
            relay.clean_run(key_of(number))

    others(1000)
    assert (known(crashed), known(closed), known(empty)) == (True, True, False)
    relay.forward(CLOSED_S - 10)
    others(2000)
    assert known(closed), "its line is kept"
    relay.forward(86_400.0)
    for _ in range(10):
        relay.forward(CLOCK_HOLD_S)  # retention takes its time after a leap of the clock
    others(3000)
    assert (known(crashed), known(closed)) == (True, False)
    relay.restart()
    assert (known(crashed), known(closed)) == (True, False), "the file says the same"
    relay.forward(CLOCK_HOLD_S)
    others(4000)
    for _ in range(40):
        relay.forward(86_400.0)
        others(5000, 1)
    assert known(crashed) is False
    assert relay.registry.runs.forgotten_early == 0


def test_a_clock_that_leaps_ahead_forgets_nobody(relay_at):
    """A year ahead at the start or while it runs: who is known is known, as long as true time has not passed."""
    relay = relay_at()
    lost = key_of(0)
    trader, connection, _ = relay.connect(lost)
    relay.send(trader, log(lost, 1, relay.now_us))
    relay.commit()
    relay.end(trader, connection)
    relay.forward(2)
    for number in range(1, 2 * RECENT_RUNS):
        relay.clean_run(key_of(number))
    true_us, relay.now_us = relay.now_us, relay.now_us + 2 * RESEND_S * 1_000_000
    relay.clean_run(key_of(900))
    relay.restart()
    relay.forward(60)
    relay.clean_run(key_of(901))
    relay.now_us = true_us + 3_600_000_000
    relay.forward(2 * CLOCK_HOLD_S)
    relay.clean_run(key_of(902))
    assert relay.connect(lost)[2] == 1


def test_beyond_the_bound_runs_go_before_their_time_and_it_is_told_once(relay_at):
    """Those that said goodbye go first, so the one that may still resend stays; counted, and told in one notice."""
    relay = relay_at(max_runs=100)
    lost = key_of(0)
    trader, connection, _ = relay.connect(lost)
    relay.send(trader, log(lost, 1, relay.now_us))
    relay.commit()
    relay.end(trader, connection, process=DEAD)
    relay.forward(2)
    for number in range(1, 501):
        relay.clean_run(key_of(number))
    relay.commit()
    early = relay.registry.runs.forgotten_early
    assert early == 501 - RECENT_RUNS - 100
    told = [line for line in relay.kept() if isinstance(line, dict) and line.get("state") == "runs"]
    assert [notice["count"] for notice in told] == [1]
    relay.forward(86_401)
    relay.clean_run(key_of(501))
    relay.commit()
    told = [line for line in relay.kept() if isinstance(line, dict) and line.get("state") == "runs"]
    assert [notice["count"] for notice in told] == [1, early - 1]
    relay.restart()
    assert len(relay.registry.runs) == 100 + RECENT_RUNS + 1, "one was forgotten and its row not deleted yet"
    assert relay.connect(lost)[2] == 1


def test_a_smaller_bound_is_reached_in_steps(relay_at):
    """A journal that remembers more than it may: no commit has to delete more than so many rows."""
    relay = relay_at()
    for number in range(1, 701):
        relay.clean_run(key_of(number))
    relay.max_runs = 10
    relay.restart()
    seen = []
    for number in range(1000, 1004):
        relay.clean_run(key_of(number))
        seen.append(len(relay.registry.runs))
    assert max(a - b for a, b in zip([700, *seen], seen, strict=False)) <= FORGET_STEP
    assert seen[-1] <= 10 + RECENT_RUNS + 2


@pytest.mark.timeout(900)  # thousands of commits, each on the disk
@pytest.mark.parametrize("seed", range(WALKS))
def test_every_line_once_whatever_happens(relay_at, seed):
    """Runs, drops, restarts, resends, retention and crowds at random: each line once, in order, and no gap."""
    rng = random.Random(seed)
    relay = relay_at(max_age_s=rng.choice((3_600.0, 86_400.0, 30 * 86_400.0)), ages=True)
    keys = [rng.randbytes(16) for _ in range(8)]
    logged = dict.fromkeys(keys, 0)
    """Lines each has logged."""
    acked = dict.fromkeys(keys, 0)
    """What each knows to be in the journal; it resends what is behind."""
    links, crowd = {}, 0

    def commit():
        relay.commit()
        for key, (_, connection) in links.items():
            if rng.random() < 0.7:  # else the ack does not arrive
                acked[key] = max(acked[key], connection.acked)

    for _ in range(STEPS):
        key = rng.choice(keys)
        match rng.choice(("log", "log", "log", "drop", "commit", "crowd", "time", "restart", "bye")):
            case "log":
                if key not in links:
                    trader, connection, welcome = relay.connect(key)
                    links[key] = trader, connection
                    assert acked[key] <= welcome <= logged[key]
                    if rng.random() < 0.5:
                        acked[key] = welcome
                    relay.send(trader, *[log(key, seq, NOW) for seq in range(acked[key] + 1, logged[key] + 1)])
                more = rng.randrange(1, 5)
                first, logged[key] = logged[key] + 1, logged[key] + more
                relay.send(links[key][0], *[log(key, seq, NOW) for seq in range(first, logged[key] + 1)])
            case "drop" if key in links:
                relay.end(*links.pop(key))
            case "bye" if key in links:
                relay.send(links[key][0], Bye(logged[key]))
                commit()
                relay.end(*links.pop(key))
                keys[keys.index(key)] = new = rng.randbytes(16)  # a run ends once: its process is over
                acked[new] = logged[new] = 0
            case "commit":
                commit()
            case "crowd":
                for _ in range(rng.choice((1, 30, 300))):
                    crowd += 1
                    relay.clean_run(crowd.to_bytes(16, "little"))
            case "time":
                relay.forward(rng.choice((0.5, 5.0, 600.0, 4 * 3600.0, 86_400.0)))
                commit()
            case "restart":
                relay.restart()
                links.clear()
    for key in keys:
        if key not in links:
            links[key] = relay.connect(key)[:2]
        relay.send(links[key][0], *[log(key, seq, NOW) for seq in range(acked[key] + 1, logged[key] + 1)])
    relay.commit()
    texts = [text for _, text in sorted(relay.seen.items()) if text is not None]
    for key in logged:
        assert [t for t in texts if t.startswith(key.hex())] == [
            f"{key.hex()} {seq}" for seq in range(1, logged[key] + 1)
        ]
    assert len(texts) == sum(logged.values()) + crowd
    assert sorted(relay.seen) == list(range(1, relay.head + 1))
    assert relay.registry.counters.unexplained_lines == 0
