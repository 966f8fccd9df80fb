"""The way of a line through the relay when the journal does not keep up, and the passing of time."""

from __future__ import annotations

import json
import threading

import pytest
from websockets.sync.client import connect

from logrelay.errors import JournalError
from logrelay.journal.memory import MemoryJournal
from tests.support.waiting import DEADLINE_S


class Gate(MemoryJournal):
    """A journal whose disk can stall, fail, and work again."""

    def __init__(self):
        super().__init__(random_epoch=lambda: "k3f9ab")
        self.permits = threading.Semaphore(0)
        self.open_for_all = threading.Event()
        self.open_for_all.set()
        self.broken = False
        self.unreadable = False
        self.ended = False

    def append_now(self, commit):
        """Have every commit made by the thread, which may be stalled."""
        return False

    def append(self, commit):
        while not self.open_for_all.is_set():
            if self.permits.acquire(timeout=0.005):
                break
        if self.ended:
            raise JournalError("the journal is of another kind now", retry=False)
        if self.broken:
            raise JournalError("the disk is full")
        super().append(commit)

    def stall(self):
        self.open_for_all.clear()

    def go_on(self):
        self.open_for_all.set()

    def page(self, query):
        if self.unreadable:
            raise JournalError("the disk does not answer")
        return super().page(query)


COMMIT_DEADLINE_S = 0.25
"""A commit that takes longer is trouble: these tests do not wait for a second each."""


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.broken = False
    made.go_on()


class Watch:
    """A viewer that remembers every line."""

    def __init__(self, relay, query=""):
        self.manager = connect(relay.url + query, compression=None)
        self.ws = self.manager.__enter__()
        relay.guests.append(self)
        self.first = json.loads(self.ws.recv(timeout=DEADLINE_S))
        self.lines = []

    def until(self, words, behind=0):
        """Read until a line that contains `words`; return it. The first `behind` lines do not count."""
        for line in self.lines[behind:]:
            if words in line["message"]:
                return line
        while True:
            self.lines.append(json.loads(self.ws.recv(timeout=DEADLINE_S)))
            if words in self.lines[-1].get("message", ""):
                return self.lines[-1]

    def ids(self, source="bot"):
        return [line["id"] for line in self.lines if line["source"] == source]

    def close(self):
        self.ws.close()


def number(id_):
    return int(id_.rpartition("-")[2])


@pytest.mark.parametrize("how", ["stall", "fail"])
def test_lines_are_shown_while_the_journal_is_in_trouble(house, gate, until, how):
    """Live at once under provisional ids, not acked; later kept, acked, and those ids are good for resume."""
    relay = house(journal=gate, commit_deadline_s=COMMIT_DEADLINE_S)
    trader = relay.trader()
    trader.hello()
    trader.log(1)
    trader.acked(1)
    watch = Watch(relay)
    watch.until("line 1")
    if how == "stall":
        gate.stall()
    else:
        gate.broken = True
    trader.log(2, 4)
    watch.until("line 4")
    watch.until("the journal cannot be written")
    trader.log(5)
    provisional = watch.until("line 5")["id"]
    assert provisional.startswith("k3f9ab.")
    assert relay.call(lambda: relay.pipeline.committed) < number(provisional)
    assert relay.call(relay.service.ready) is False
    late = Watch(relay, "?tail=100")
    late.until("line 5")
    seen, seen_late = len(watch.lines), len(late.lines)  # a stalled machine may have been trouble before
    gate.broken = False
    gate.go_on()
    trader.acked(5)
    watch.until("works again", behind=seen)
    late.until("works again", behind=seen_late)
    until(lambda: relay.call(relay.service.ready))
    trader.log(6)
    assert watch.until("line 6")["id"].startswith("k3f9ab-")
    numbers = [number(line["id"]) for line in watch.lines]
    assert numbers == list(range(1, len(numbers) + 1)), "each line once, in order"
    assert [number(line["id"]) for line in late.lines] == numbers[: len(late.lines)]
    again = Watch(relay, f"?after={provisional}")
    again.until("line 6")
    assert [number(line["id"]) for line in again.lines] == numbers[number(provisional) :]
    trader.close()


def test_a_second_trouble_before_the_first_is_quite_over(house, gate):
    """One commit gets through, the next one stalls: no line is shown twice, none under an id that may change hands."""
    relay = house(journal=gate, commit_deadline_s=COMMIT_DEADLINE_S)
    trader = relay.trader()
    trader.hello()
    trader.log(1)
    trader.acked(1)
    watch = Watch(relay)
    watch.until("line 1")
    gate.stall()
    trader.log(2)
    watch.until("line 2")
    trader.log(3)
    watch.until("line 3")
    gate.permits.release()
    trader.acked(2)
    head = Watch(relay, "?tail=0").first["head"]
    committed = relay.call(lambda: relay.pipeline.committed)
    assert number(head) <= committed or head.startswith("k3f9ab."), "an id for a line that is not kept yet"
    trader.log(4)
    watch.until("line 4")
    trader.log(5)
    watch.until("line 5")
    gate.go_on()
    trader.acked(5)
    trader.log(6)
    watch.until("line 6")
    numbers = [number(line["id"]) for line in watch.lines]
    assert numbers == list(range(1, len(numbers) + 1))
    trader.close()


def test_a_journal_that_cannot_be_read_is_asked_again(house, gate):
    """Replay waits until reading works; nothing is lost, and history says what is wrong."""
    relay = house(journal=gate)
    trader = relay.trader()
    trader.hello()
    for at in range(1, 6001, 500):
        trader.log(at, at + 499)
    trader.acked(6000)
    gate.unreadable = True
    watch = Watch(relay, "?tail=6001")
    other = Watch(relay, "?tail=0")
    other.ws.send('{"type":"history","before":"k3f9ab-100"}')
    answer = json.loads(other.ws.recv(timeout=DEADLINE_S))
    assert (answer["type"], answer["code"]) == ("error", "journal")
    trader.log(6001)
    other.until("line 6001")
    gate.unreadable = False
    watch.until("line 6001")
    assert [number(line["id"]) for line in watch.lines] == list(range(1, 6003))
    trader.close()


def test_a_journal_that_will_not_work_again_is_fatal(house, gate):
    """Whoever ends the process is told why, once; until then viewers get lines, and traders keep them."""
    relay = house(journal=gate, close_s=1.0)  # there is nothing to wait for
    trader = relay.trader()
    trader.hello()
    trader.log(1)
    trader.acked(1)
    watch = Watch(relay)
    watch.until("line 1")
    gate.ended = True
    trader.log(2)
    assert watch.until("line 2")["id"].startswith("k3f9ab.")
    watch.until("the journal cannot be written")
    assert relay.call(lambda: relay.fatal) == ["the journal is of another kind now"]
    trader.close()


def test_quiet_is_said_every_time(house, monkeypatch):
    """A trader that falls quiet, speaks, and falls quiet again is reported again."""
    relay = house(quiet_after_s=0.1)
    trader = relay.trader()
    trader.hello()
    watch = Watch(relay)
    for round_ in range(1, 4):
        trader.log(round_)
        watch.until(f"line {round_}")
        watch.lines.clear()
        watch.until("has been quiet")
    trader.close()


def test_a_lost_connection_and_a_return_are_said(house):
    """The end without a goodbye, and the trader's return, without a line in between."""
    relay = house()
    trader = relay.trader()
    trader.hello()
    trader.log(1)
    watch = Watch(relay)
    watch.until("line 1")
    trader.close()
    watch.until("lost its connection; whether it still runs is not known from here")
    again = relay.trader(run=trader.run)
    assert again.hello() == 1
    watch.until("is back")
    again.log(2)
    again.send([3, 2])
    again.close()
    watch.until("ended cleanly")
    assert [line["message"] for line in watch.lines if line["source"] == "bot"] == ["line 1", "line 2"]


def test_the_stop_keeps_everything_that_was_sent(house):
    """Lines in the sockets at the stop are committed and acked before the traders are let go."""
    relay = house()
    trader = relay.trader()
    trader.hello()
    trader.log(1, 3000)
    relay.stop()
    trader.acked(3000)
    assert trader.frame() is None
