"""The relay is killed: under load, and in the middle of a frame. Nothing is lost, nothing comes twice."""

from __future__ import annotations

from tests.support.chaos.ledger import (
    Ledger,
    check_rising_times,
    check_trader,
    check_viewer,
    cut_at_epoch_gaps,
    private_notices,
    settled,
)
from tests.support.chaos.scale import chance, scaled
from tests.support.waiting import wait_for

KILLS = scaled(15, 100)
FRAMES_CUT = scaled(40, 1000)
CUT_AT_ONCE = scaled(10, 40)
"""Traders with half a frame each when the relay is killed: a restart takes a quarter of a second, a frame does not."""


def test_kill_under_load_loses_nothing_and_repeats_nothing(scene):
    """Kill -9 again and again under load from four traders, with three viewers that resume.

    At the end the journal holds each trader's lines exactly once and in order, and each viewer (one that wants all,
    one that filters, one that reads slowly) has got exactly what the journal holds and it wanted, in order.
    """
    dice = chance("kill under load")
    relay = scene.relay().start()
    plain = scene.viewer(relay, name="plain").start()
    picky = scene.viewer(relay, name="picky", level="WARNING", where="symbol=AAPL", notices="all").start()
    slow = scene.viewer(relay, name="slow", rcvbuf=8192, chunk=20_000, pause_s=0.01).start()
    feeders = [scene.feeder(relay, f"feeder{n}", rate=800) for n in range(4)]
    for kill in range(KILLS):
        before = {feeder: feeder.acked for feeder in feeders}
        more = dice.randrange(1, 300)
        wait_for(lambda b=before, m=more: all(f.acked >= b[f] + m for f in feeders), relay.tell)
        # On a busy machine the traders can be faster than a viewer that waits before it connects again.
        plain.wait(lambda k=kill: plain.connections == k + 1, "the viewer was not connected before the kill")
        relay.restart()
    for feeder in feeders:
        feeder.finish()
    produced = {feeder.name: feeder.wait() for feeder in feeders}
    slow.hurry()
    # The ends of the traders are the last lines; nothing comes behind the notices about them.
    plain.wait(
        lambda: sum(b'"state":"closed"' in got.raw for got in plain.lines) == 4,
        "not all four traders were seen to end",
    )
    ledger = settled(relay)
    for viewer in (plain, slow, picky):
        viewer.wait_for_id(ledger.head)
        viewer.stop()
    for name, count in produced.items():
        check_trader(ledger, name, 1, count)
        assert ledger.runs[next(f.run for f in feeders if f.name == name)][1:] == (count, "closed")
    check_rising_times(ledger)
    check_viewer(plain, ledger)
    check_viewer(slow, ledger)
    check_viewer(picky, ledger, match=lambda entry: entry.level >= 30 and entry.data["context"].get("symbol") == "AAPL")
    assert plain.connections == KILLS + 1
    assert not ledger.notices(notice="gap")
    print(f"\n{KILLS} kills, {len(ledger.entries)} lines, {plain.connections} connections of the plain viewer")


def test_kill_in_the_middle_of_a_frame_brings_every_line_once(scene):
    """The relay is killed when it has read half a frame of each trader; it comes as a whole after the welcome."""
    dice = chance("mid-frame")
    relay = scene.relay().start()
    traders = [scene.trader(relay, f"cut{n}").connect() for n in range(CUT_AT_ONCE)]
    viewer = scene.viewer(relay).start()
    for _ in range(FRAMES_CUT // CUT_AT_ONCE):
        for trader in traders:
            trader.burst(dice.randrange(4))
            # Neither queued nor sent as a whole: kept, so that it comes again.
            frame = trader.add("cut in two", padding="x" * dice.choice((0, 10, 300, 40_000)))
            trader._queue.pop()
            trader.send_raw(frame[: dice.randrange(1, len(frame))])
        for trader in traders:
            wait_for(lambda t=trader: t.unread() == 0, "the relay has not read the half frames")
        if dice.random() < 0.5:
            for trader in traders:
                trader.wait_acked(trader.seq - 1)
        relay.restart()
        for trader in traders:
            trader.close()
            trader.connect()
    for trader in traders:
        trader.wait_acked()
        trader.bye()
    viewer.wait(lambda: sum(b'"closed"' in got.raw for got in viewer.lines) == len(traders), "not all ends seen")
    ledger = settled(relay)
    viewer.wait_for_id(ledger.head)
    for trader in traders:
        check_trader(ledger, trader.name, 1, trader.seq)
    check_viewer(viewer, ledger)
    assert not ledger.notices(notice="gap")


def test_connection_lost_in_the_middle_of_a_frame_brings_every_line_once(scene):
    """The trader loses the connection in the middle of a frame, at every byte of it; the relay stays."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    length = len(trader.add("cut", padding="x" * 40))
    for cut in range(1, length):
        trader.wait_acked()
        frame = trader.add("cut", padding="x" * 40)
        trader._queue.pop()
        trader.send_raw(frame[:cut])
        trader.close()
        trader.connect()
    trader.wait_acked()
    trader.bye()
    wait_for(lambda: relay.health()["traders"][0]["state"] == "closed", relay.tell)
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, trader.seq)
    assert not ledger.notices(notice="gap")
    assert not ledger.notices(state="crashed"), "a trader that is back at once has not crashed"
    assert not ledger.notices(state="refused")


def test_kill_before_any_ack_leaves_the_lines_with_the_trader(scene):
    """The relay is killed with lines in its socket that it has not even read; they come with the next relay."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(5)
    trader.wait_acked()
    relay.pause()
    trader.burst(100)
    relay.restart()
    assert trader.acked == 5
    trader.wait_acked()
    assert trader.welcomes == [0, 5]
    check_trader(Ledger.read(relay.journal), "trader", 1, 105)


def test_committed_lines_whose_acks_were_lost_do_not_come_twice(scene):
    """The trader reads no acks, the relay is killed: the welcome says what is kept, a stubborn resend is ignored."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(200)
    frames = [frame for _, frame in trader.unacked]
    viewer = scene.viewer(relay).start()
    viewer.wait(lambda: sum(b'"feeder"' in got.raw for got in viewer.lines) == 200, "not 200 lines")
    settled(relay)
    relay.restart()
    trader.close()
    trader.connect()
    assert trader.welcomes == [0, 200]
    assert not trader.unacked
    trader.send_raw(b"".join(frames))
    trader.log("behind them")
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, 201)
    viewer.wait_for_id(ledger.head)
    check_viewer(viewer, ledger)
    assert relay.metric("duplicate_frames_total") == 200


def test_two_connections_of_one_run_do_not_repeat_a_line(scene):
    """A run that connects again while its first connection is open owns the second; what it resends comes once."""
    relay = scene.relay().start()
    first = scene.trader(relay).connect()
    first.burst(50)
    second = scene.trader(relay, run=first.run)
    second.seq, second.unacked = first.seq, first.unacked.copy()
    relay.pause()
    first.burst(50)
    second.seq = first.seq
    second.unacked = first.unacked.copy()
    relay.resume()
    second.connect()
    second.burst(50)
    second.wait_acked()
    check_trader(Ledger.read(relay.journal), "trader", 1, 150)


def test_no_private_gaps_when_nothing_is_missing(scene):
    """A viewer that resumes behind its last id after a kill is told of no gap, because there is none."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    for _ in range(3):
        trader.burst(20)
        trader.wait_acked()
        viewer.wait_for_id(settled(relay).head)
        relay.restart()
    trader.burst(20)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    viewer.wait_for_id(ledger.head)
    check_viewer(viewer, ledger)
    assert not private_notices(viewer.lines)
    assert len(cut_at_epoch_gaps(viewer.lines)) == 1
