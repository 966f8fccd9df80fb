"""Traders are killed in the middle of a burst: what they had said is kept, and their end is told."""

from __future__ import annotations

import os

import pytest

from logrelay.model import run_name
from tests.support.chaos.feeder import SENT, Shared
from tests.support.chaos.ledger import Ledger, check_trader, check_viewer, settled
from tests.support.chaos.scale import chance, scaled
from tests.support.waiting import wait_for

KILLS = scaled(40, 1000)


def test_killed_traders_lose_no_line_whose_send_returned(scene):
    """Kill -9 in the middle of a burst, with acks read or left unread (then the kernel resets the connection).

    Every line whose send() had returned is in the journal, exactly once and in order; a crash is told for each.
    """
    dice = chance("killed traders")
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    nursery = scene.nursery(relay)
    said = {}
    for n in range(KILLS):
        name, run = f"doomed{n}", os.urandom(16)
        shared = Shared(scene.home / name)
        pid = nursery.spawn(name, run, shared, reads_acks=n % 2 == 0)
        wanted = dice.choice((1, 2, 10, 100, 1500))
        wait_for(lambda s=shared, w=wanted: s.take(SENT) >= w, relay.tell)
        nursery.kill(pid)
        said[name] = shared.take(SENT), run
        shared.close()
        shared.path.unlink()
    viewer.wait(lambda: sum(b'"state":"crashed"' in got.raw for got in viewer.lines) == KILLS, "not all crashes told")
    assert relay.metric("trader_crashes_total") == KILLS
    ledger = settled(relay)
    viewer.wait_for_id(ledger.head)
    by_name = {}
    for entry in ledger.entries:
        feeder = entry.data["context"].get("feeder")
        if feeder is not None:
            by_name.setdefault(feeder, []).append(entry.data["context"]["n"])
    for name, (sent, run) in said.items():
        kept = by_name.get(name, [])
        assert len(kept) >= sent, f"{name} had said {sent} lines, {len(kept)} are kept"
        assert kept == list(range(1, len(kept) + 1)), f"{name}: not each line once and in order"
        assert ledger.runs[run][1:] == (len(kept), "crashed")
    crashed = [notice["context"]["run"] for notice in ledger.notices(notice="trader", state="crashed")]
    assert sorted(crashed) == sorted(run_name(run) for _, run in said.values())
    assert not ledger.notices(notice="gap")
    assert not ledger.notices(notice="trader", state="refused")
    check_viewer(viewer, ledger)
    print(f"\n{KILLS} traders killed, {sum(sent for sent, _ in said.values())} lines whose send had returned")


def test_killed_while_the_relay_does_not_read(scene):
    """The relay stands still while a trader says its last words and is killed; it reads them when it runs again."""
    relay = scene.relay().start()
    nursery = scene.nursery(relay)
    shared = Shared(scene.home / "doomed")
    run = os.urandom(16)
    pid = nursery.spawn("doomed", run, shared, reads_acks=False)
    wait_for(lambda: shared.take(SENT) >= 50, relay.tell)
    relay.pause()
    # As far as the socket's buffer goes: then this trader, unlike the real one, waits for room.
    looks = [-1]
    wait_for(lambda: (looks.append(shared.take(SENT)), looks[-40:] == [looks[-1]] * 40)[1], "it does not stand still")
    nursery.kill(pid)
    sent = shared.take(SENT)
    relay.resume()
    wait_for(lambda: relay.health()["traders"][0]["state"] == "crashed", relay.tell)
    ledger = settled(relay)  # the disk may stand still for a moment
    assert ledger.runs[run][1] >= sent
    check_trader(ledger, "doomed", 1, ledger.runs[run][1])
    shared.close()


def test_a_clean_end_is_told_as_one(scene):
    """A trader that says goodbye is closed: never crashed, and in the stream behind its last line."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    trader = scene.trader(relay).connect()
    trader.burst(30)
    trader.bye()
    viewer.wait_for_notice(notice="trader", state="closed", run=run_name(trader.run))
    ledger = settled(relay)
    check_trader(ledger, "trader", 1, 30)
    states = [notice["context"]["state"] for notice in ledger.notices(notice="trader")]
    assert states == ["connected", "closed"]
    ends = [entry for entry in ledger.entries if not entry.is_notice or entry.data["context"]["notice"] == "trader"]
    assert ends[-1].data["context"]["state"] == "closed"
    assert relay.health()["traders"][0]["state"] == "closed"


@pytest.mark.long
def test_a_trader_that_dies_with_the_relay_is_told_as_gone(scene):
    """Relay and trader end together; the next relay waits a while for the trader, and then says that it is gone."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(3)
    trader.wait_acked()
    relay.kill()
    trader.close()
    relay.start()
    viewer = scene.viewer(relay).start()
    viewer.wait_for_notice(notice="trader", state="gone", run=run_name(trader.run))
    assert relay.health()["traders"][0]["state"] == "gone"
    # And should it have been elsewhere only, its lines are taken as if nothing had been.
    trader.connect()
    assert trader.welcomes == [0, 3]
    trader.burst(2)
    trader.wait_acked()
    check_trader(Ledger.read(relay.journal), "trader", 1, 5)


def test_the_crash_of_a_trader_is_told_across_a_restart_of_the_relay(scene):
    """A trader crashed and was told; a restart of the relay does not tell it again, nor forget it."""
    relay = scene.relay().start()
    shared = Shared(scene.home / "doomed")
    nursery = scene.nursery(relay)
    pid = nursery.spawn("doomed", os.urandom(16), shared, reads_acks=True)
    wait_for(lambda: shared.take(SENT) >= 3, relay.tell)
    nursery.kill(pid)
    shared.close()
    viewer = scene.viewer(relay).start()
    viewer.wait_for_notice(notice="trader", state="crashed")
    settled(relay)
    relay.restart()
    assert relay.health()["traders"][0]["state"] == "crashed"
    other = scene.trader(relay, "other").connect()
    other.burst(1)
    other.wait_acked()
    ledger = Ledger.read(relay.journal)
    assert len(ledger.notices(notice="trader", state="crashed")) == 1
