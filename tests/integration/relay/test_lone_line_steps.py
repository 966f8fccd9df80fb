"""How many functions the relay calls for a line that comes alone.

At a bot's pace a line finds every cache cold, and what it costs is how much code it goes through: when this was 147
instead of 125, and some of the calls were those of counters, paths and generators, it was a quarter more CPU time.
Counted and not timed, so that other work on the machine changes nothing.
"""

from __future__ import annotations

import sys
import time

import pytest
import uvloop

from logrelay.journal.lone_lines import LoneLineJournal
from logrelay.journal.sqlite import SqliteJournal
from tests.integration.relay.test_pipeline import Watch
from tests.support.waiting import DEADLINE_S

MOST_CALLS = 100
"""Calls of Python functions for a line, from the read of its frame on, and of this count itself; 95 at present."""


class CallCount:
    """Counts what the thread calls that begins it."""

    def __init__(self):
        self.calls = 0

    def _note(self, _frame, event, _argument):
        self.calls += event == "call"

    def begin(self):
        self.calls = 0
        sys.setprofile(self._note)

    def end(self):
        sys.setprofile(None)
        return self.calls


@pytest.fixture
def loop_factory():
    """The one that is used; asyncio's own loop is Python, and counts its own calls."""
    return uvloop.new_event_loop


def test_a_lone_line_takes_few_steps(house, folder):
    """With the journal on disk and a viewer; the first lines go through the journal's thread."""
    journal = LoneLineJournal(
        SqliteJournal(str(folder / "journal.db"), now_us=lambda: time.time_ns() // 1000, random_epoch=lambda: "k3f9ab")
    )
    relay = house(journal=journal)
    trader = relay.trader()
    trader.hello()
    watch, count = Watch(relay), CallCount()
    fewest, seq, ends = 1 << 30, 0, time.monotonic() + DEADLINE_S
    while fewest > MOST_CALLS and time.monotonic() < ends:
        seq += 1
        relay.call(count.begin)
        trader.log(seq)
        watch.until(f"line {seq}")
        fewest = min(fewest, relay.call(count.end))
    assert fewest <= MOST_CALLS, f"{fewest} calls at best, of {seq} lines"
