"""The relay stops, politely or for a while: everything that reached it is kept, and the rest waits with the traders."""

from __future__ import annotations

import socket
import time

from tests.support.chaos.ledger import Ledger, check_trader, check_viewer, settled, wait_well
from tests.support.chaos.scale import scaled
from tests.support.stillness import Stillness
from tests.support.waiting import wait_for

STOPS = scaled(3, 20)

MOST_WAITING = 1000
"""Lines of a trader in the socket when the relay is stopped: about a megabyte, if the kernel allows."""

ATTEMPTS = 5
"""The end of a relay has a time for each of its steps. Where the machine stands still meanwhile it is tried again."""
STILL_S, LONG_END_S = 0.05, 1.0
"""A viewer that stands still for so long takes nothing meanwhile, and is not waited for; an end that takes so long has
waited for something else than its own work."""


def test_what_is_in_the_sockets_at_sigterm_is_committed_and_acked(scene):
    """Lines a trader has sent and the relay has not read when SIGTERM comes are committed and acked before it exits.

    A viewer that reads gets every one of them before its close code: 1012, nothing behind it.
    """
    for attempt in range(ATTEMPTS):
        if stopped_with_full_sockets(scene, attempt):
            return
    print("the machine stood still each time; what was acked is kept")


def stopped_with_full_sockets(scene, attempt) -> bool:
    """Check what must hold in any case, and return whether the machine ran well enough for the rest to be checked."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay, resume=False).start()
    traders = [scene.trader(relay, f"trader{attempt}-{n}").connect() for n in range(5)]
    for trader in traders:
        trader.burst(10)
        trader.wait_acked()
        # As the real trader does, as far as the kernel allows: more than the relay takes in one read.
        trader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    viewer.wait_for_id(settled(relay).head)
    relay.pause()
    for trader in traders:
        while trader.sent == trader.seq and trader.seq < MOST_WAITING:
            trader.log(padding="x" * 1000)
        assert trader.sent > 110, "the socket did not hold a hundred lines"
    with Stillness() as still:
        began = time.monotonic()
        relay.terminate()
        relay.resume()
        assert relay.wait() == 0
        took_s = time.monotonic() - began
    ledger = Ledger.read(relay.journal)
    for trader in traders:
        trader.wait_closed()
        kept = ledger.runs[trader.run][1]
        assert kept >= trader.acked, "acked, and not kept"
        check_trader(ledger, trader.name, 1, kept)
    if took_s > LONG_END_S or still.longest_s > STILL_S:
        viewer.stop()
        return False
    for trader in traders:
        assert trader.acked >= trader.sent, "sent, and not committed and acked before the end"
        check_trader(ledger, trader.name, 1, trader.sent)
    viewer.wait(lambda: viewer.closes, "no close code")
    viewer.stop()
    assert viewer.closes == [(1012, len(viewer.lines))]
    check_viewer(viewer, ledger)
    return True


def test_sigterm_under_load_exits_in_time_and_the_next_relay_goes_on(scene):
    """SIGTERM while four traders log and viewers watch: exit code 0 in time, 1012 for viewers, no loss, no repeat."""
    relay = scene.relay().start()
    viewers = [scene.viewer(relay, name=name).start() for name in ("one", "two")]
    sleeper = scene.viewer(relay, name="sleeper", rcvbuf=4096).start()
    feeders = [scene.feeder(relay, f"feeder{n}", rate=800) for n in range(4)]
    took, stood_still = [], False
    for round_ in range(STOPS):
        before = [f.acked for f in feeders]
        wait_for(lambda b=before: all(f.acked > a + 200 for f, a in zip(feeders, b, strict=True)), relay.tell)
        if round_ == 0:
            # A viewer that does not read must not hold up the end.
            sleeper.hold()
        wait_well(relay)
        head = Ledger.read(relay.journal).head
        for viewer in viewers:  # on a busy machine the traders can be faster than one that has to connect again
            viewer.wait(lambda v=viewer, r=round_: v.connections == r + 1, "not connected before the end")
            viewer.wait_for_id(head)
        with Stillness() as still:
            began = time.monotonic()
            assert relay.stop() == 0, relay.tell()
            took.append(time.monotonic() - began)
        stood_still = stood_still or took[-1] > LONG_END_S or still.longest_s > STILL_S
        ledger = Ledger.read(relay.journal)
        for feeder in feeders:
            check_trader(ledger, feeder.name, 1, ledger.runs[feeder.run][1])
        relay.start()
        sleeper.hurry()
    for feeder in feeders:
        feeder.finish()
    counts = {feeder.name: feeder.wait() for feeder in feeders}
    viewers[0].wait(
        lambda: sum(b'"state":"closed"' in got.raw for got in viewers[0].lines) == 4,
        "not all ends seen",
    )
    ledger = settled(relay)
    for name, count in counts.items():
        check_trader(ledger, name, 1, count)
    assert not ledger.notices(notice="gap")
    assert not ledger.notices(notice="trader", state="crashed")
    for viewer in (*viewers, sleeper):
        viewer.wait_for_id(ledger.head)
        viewer.stop()
        check_viewer(viewer, ledger)
    for viewer in viewers:
        codes = [code for code, _ in viewer.closes]
        assert codes == [1012] * STOPS or (stood_still and set(codes) <= {1012})
    print(f"\nSIGTERM to exit: {', '.join(f'{seconds:.2f}' for seconds in took)} s")


def test_sigint_is_a_clean_end_too(scene):
    """Ctrl-C ends the relay as SIGTERM does, with exit code 0 and no traceback."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(10)
    relay.process.send_signal(2)
    assert relay.wait() == 0
    if "not committed" not in relay.tell():  # what a disk keeps for longer than the end may take stays with the trader
        check_trader(Ledger.read(relay.journal), "trader", 1, 10)
    assert "Traceback" not in relay.tell()


def test_relay_away_for_a_while_loses_nothing_the_trader_kept(scene):
    """Lines logged while the relay is away come when it is back, in order, and once."""
    relay = scene.relay().start()
    feeder = scene.feeder(relay, "patient", rate=3000)
    viewer = scene.viewer(relay).start()
    wait_for(lambda: feeder.acked > 100, relay.tell)
    relay.kill()
    at = feeder.produced
    wait_for(lambda: feeder.produced > at + 3000, "the feeder does not log while the relay is away")
    relay.start()
    feeder.finish()
    count = feeder.wait()
    viewer.wait_for_notice(notice="trader", state="closed")
    ledger = settled(relay)
    viewer.wait_for_id(ledger.head)
    check_trader(ledger, "patient", 1, count)
    check_viewer(viewer, ledger)
    assert not ledger.notices(notice="gap")


def test_lines_the_trader_dropped_meanwhile_are_told_with_their_number(scene):
    """What the trader could not keep is one gap notice in its place in the stream, with the exact count and range."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(10)
    trader.wait_acked()
    relay.kill()
    trader.close()
    trader.burst(5)
    trader.add_lost(1234, "overflow")
    trader.burst(5)
    relay.start()
    trader.wait_acked()
    # Sent twice, the lost frame is told once.
    trader.send_raw(trader_lost(trader, 16, 1249))
    trader.log("behind")
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, 1255, without=range(16, 1250))
    (gap,) = ledger.notices(notice="gap")
    assert gap["context"].items() >= {"cause": "overflow", "count": 1234, "first": 16, "last": 1249}.items()
    order = [e.data["context"].get("n", e.data["context"].get("cause")) for e in ledger.entries]
    order = [one for one in order if one is not None]
    assert order[order.index(15) + 1 : order.index(1250)] == ["overflow"]


def trader_lost(trader, first: int, last: int) -> bytes:
    """Encode a lost frame as the trader's own would be."""
    from tests.support.chaos.feeder import LOST, pack  # noqa: PLC0415

    return pack([LOST, first, last, last - first + 1, "overflow"])


def test_a_hole_nobody_explained_is_told(scene):
    """A trader that skips numbers without a word gets a gap notice with the cause unexplained."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(3)
    trader.seq += 7
    trader.burst(3)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, 13, without=range(4, 11))
    (gap,) = ledger.notices(notice="gap")
    assert gap["context"].items() >= {"cause": "unexplained", "count": 7, "first": 4, "last": 10}.items()
