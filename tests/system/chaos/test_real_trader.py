"""The real processor against the real relay: killed on either side, and more lines than it may keep."""

from __future__ import annotations

import os

import pytest

from tests.support.chaos.feeder import SENT, Shared
from tests.support.chaos.ledger import Ledger, check_trader, check_viewer, settled
from tests.support.chaos.scale import chance, scaled
from tests.support.waiting import wait_for

KILLS = scaled(40, 1000)
RELAY_KILLS = scaled(5, 50)


def test_killed_real_traders_have_said_their_last_words(scene):
    """Kill -9 in the middle of logging: every line whose log call had returned is in the journal, once and in order."""
    dice = chance("killed real traders")
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    nursery = scene.nursery(relay, real=True)
    said = {}
    for n in range(KILLS):
        name = f"doomed{n}"
        shared = Shared(scene.home / name)
        pid = nursery.spawn(name, os.urandom(16), shared, reads_acks=True)
        wanted = dice.choice((2, 3, 10, 100, 400))
        wait_for(lambda s=shared, w=wanted: s.take(SENT) >= w, relay.tell)
        nursery.kill(pid)
        said[name] = shared.take(SENT)
        shared.close()
        shared.path.unlink()
    viewer.wait(lambda: sum(b'"state":"crashed"' in got.raw for got in viewer.lines) == KILLS, "not all crashes told")
    ledger = settled(relay)
    kept = {}
    for entry in ledger.entries:
        context = entry.data["context"]
        if "feeder" in context:
            kept.setdefault(context["feeder"], []).append(context["n"])
    for name, sent in said.items():
        assert len(kept.get(name, [])) >= sent, f"{name} had logged {sent} lines, {len(kept.get(name, []))} are kept"
        assert kept[name] == list(range(1, len(kept[name]) + 1)), f"{name}: not each line once and in order"
    assert sorted(state for _, _, state in ledger.runs.values()) == ["crashed"] * KILLS
    assert not ledger.notices(notice="gap")
    print(f"\n{KILLS} real traders killed, {sum(said.values())} lines whose log call had returned")


def test_relay_killed_under_a_real_trader(scene):
    """Kill -9 of the relay while the real trader logs from four threads: every line once, in the trader's order."""
    dice = chance("relay under real trader")
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    trader = scene.real_trader(relay, max_bytes=64 << 20)
    for _ in range(RELAY_KILLS):
        count = trader.log(dice.choice((4, 40, 2000)), threads=4)
        relay.restart()
        count = trader.log(200, threads=2)
        if dice.random() < 0.5:
            trader.wait_settled()
    stats = trader.wait_settled()
    assert stats["produced"] == stats["acked"] == count
    assert trader.quit() == 0
    viewer.wait_for_notice(notice="trader", state="closed")
    ledger = settled(relay)
    check_trader(ledger, "robo", 1, count)
    viewer.wait_for_id(ledger.head)
    check_viewer(viewer, ledger)
    assert not ledger.notices(notice="gap")


def check_books(ledger: Ledger, stats: dict, count: int) -> int:
    """Lines kept and lines told to be lost are together all lines, and no line is both; returns how many are lost."""
    gaps = [gap["context"] for gap in ledger.notices(notice="gap")]
    lost: set[int] = set()
    for gap in gaps:
        stretch = range(gap["first"], gap["last"] + 1)
        assert gap["cause"] == "overflow"
        assert gap["count"] == len(stretch)
        assert lost.isdisjoint(stretch), "a line is told to be lost twice"
        lost.update(stretch)
    check_trader(ledger, "robo", 1, count, without=lost)
    assert len(lost) == count - len(ledger.of("robo"))
    # The trader cannot know what of a connection that it gave up was read after all: it may count more than were lost.
    assert len(lost) <= stats["dropped"]["overflow"] == stats["produced"] - stats["acked"]
    return len(lost)


def test_relay_away_within_the_bound_loses_nothing(scene):
    """As many lines as the trader may keep, logged while the relay is away, come when it is back."""
    relay = scene.relay().start()
    trader = scene.real_trader(relay, max_bytes=1 << 20)
    trader.log(10)
    trader.wait_settled()
    relay.kill()
    count = trader.log(2_000)
    relay.start()
    stats = trader.wait_settled()
    assert stats["produced"] == count
    assert check_books(Ledger.read(relay.journal), stats, count) == 0
    assert trader.quit() == 0


@pytest.mark.parametrize("how", ["killed", "standing still"])
def test_beyond_the_bound_the_gap_has_the_exact_number(scene, how):
    """More lines than the trader may keep, the relay dead or stopped: what is missing is told, exactly."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    trader = scene.real_trader(relay, max_bytes=256 << 10)
    trader.log(10)
    trader.wait_settled()
    if how == "killed":
        relay.kill()
    else:
        relay.pause()
    # A relay that stands still leaves what the kernel's buffers hold; a dead one does not.
    trader.log(6_000 if how == "killed" else 40_000, padding=100)
    if how == "killed":
        relay.start()
    else:
        relay.resume()
    count = trader.log(50)
    stats = trader.wait_settled()
    ledger = settled(relay)
    assert check_books(ledger, stats, count) > 3_000
    viewer.wait_for_id(ledger.head)
    check_viewer(viewer, ledger)
    # Where the lines are missing, not somewhere: a gap stands between its neighbours.
    places = [
        (e.data["context"].get("n") or e.data["context"]["first"])
        for e in ledger.entries
        if "n" in e.data["context"] or e.data["context"].get("notice") == "gap"
    ]
    assert places == sorted(places)
    assert trader.quit() == 0


def test_a_real_trader_that_ends_while_the_relay_is_away_ends_all_the_same(scene):
    """The relay is dead when the trader ends: it ends with its own exit code, soon, and what it had sent is kept."""
    relay = scene.relay().start()
    trader = scene.real_trader(relay, exit_s=2.0)
    trader.log(50)
    trader.wait_settled()
    relay.kill()
    trader.log(50)
    assert trader.quit() == 0
    relay.start()
    check_trader(Ledger.read(relay.journal), "robo", 1, 50)
