"""The relay is killed while lines come alone, and lie in a file of their own: every line that was acked is there."""

from __future__ import annotations

from pathlib import Path

from logrelay.journal import lone_file
from logrelay.journal.quick_commits import TRUSTED_AFTER
from tests.support.chaos.ledger import Ledger, check_rising_times, check_trader, settled
from tests.support.chaos.scale import chance, scaled
from tests.support.waiting import wait_for

KILLS = scaled(6, 100)
MOST_LINES = 300
"""Sent before one kill: where the machine is slow SQLite gets them before there are as many as chance wants."""


def test_a_kill_takes_no_line_that_came_alone(scene):
    """Kill -9 behind an ack, with SQLite far from having all: nothing is lost, nothing comes twice, ids hold."""
    dice = chance("lone kills")
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    trader = scene.trader(relay).connect()
    file = Path(f"{relay.journal}{lone_file.SUFFIX}")
    found = []
    for kill in range(KILLS):
        for _ in range(TRUSTED_AFTER):
            log_one(trader, viewer)
        wanted = dice.randrange(1, 12)
        if not any(found):  # at least once
            wait_for(lambda: log_one(trader, viewer) or waiting(relay), relay.tell)
        for _ in range(MOST_LINES):
            if waiting(relay) >= wanted:
                break
            log_one(trader, viewer)
        if dice.random() < 0.7:
            trader.wait_acked()
        relay.kill()
        found.append(waiting(relay))
        acked = trader.acked
        if dice.random() < 0.5:
            assert check_left(relay, acked), "what a command reads of the file is not all"
        relay.start()
        trader.close()
        trader.connect()
        viewer.wait(lambda k=kill: viewer.connections == k + 2, "the viewer did not come back")
    trader.wait_acked()
    trader.bye()
    settled(relay)
    relay.stop()
    assert not file.exists(), "an orderly end leaves nothing for a version that does not know the file"
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, trader.seq)
    check_rising_times(ledger)
    assert not ledger.notices(notice="gap")
    assert any(found), "on a busy machine SQLite may get them before one kill, not before all"
    print(f"\n{KILLS} kills, {trader.seq} lines; in the file: {found}")


def waiting(relay) -> int:
    """Commits in the file."""
    return len(lone_file.read(str(relay.journal)).records)


def log_one(trader, viewer) -> None:
    """Send a line, and wait until it is shown: the next one comes alone."""
    trader.burst(1)
    viewer.wait(lambda: viewer.place() >= trader.seq, "the line was not shown")


def check_left(relay, acked) -> bool:
    """Everything acked is in what the kill has left."""
    return len(Ledger.read(relay.journal).of("trader")) >= acked
