"""Viewers that share a compressor, and viewers that take lines in arrays: the same promises, whatever the bytes."""

from __future__ import annotations

from tests.support.chaos.ledger import check_trader, check_viewer, settled
from tests.support.chaos.scale import chance, scaled
from tests.support.waiting import wait_for

ROUNDS = scaled(6, 60)


def test_every_kind_of_viewer_gets_every_line_through_kills_stalls_and_newcomers(scene):
    """Compressed, in arrays, filtered, slow, coming late, resuming after kill -9: each gets exactly what is its own.

    The relay shares one compressor among viewers and keeps its context from line to line; whoever comes, falls behind
    or is cut off in between must not make it refer to something somebody has never seen.
    """
    dice = chance("compressed")
    relay = scene.relay("--compression", "on").start()
    severe = {"level": "WARNING", "notices": "all"}
    kinds = [
        ("plain", {}, {}),
        ("deflate", {"deflate": True}, {}),
        ("arrays", {"batch": True}, {}),
        ("both", {"deflate": True, "batch": True}, {}),
        ("severe", {"deflate": True}, severe),
        ("slow", {"deflate": True, "rcvbuf": 8192, "chunk": 4096, "pause_s": 0.01}, {}),
        ("slow both", {"deflate": True, "batch": True, "rcvbuf": 8192, "chunk": 4096, "pause_s": 0.01}, {}),
        ("slow severe", {"deflate": True, "rcvbuf": 8192, "chunk": 4096, "pause_s": 0.01}, severe),
    ]
    viewers = [(scene.viewer(relay, name=name, **how, **wanted).start(), wanted) for name, how, wanted in kinds]
    feeders = [scene.feeder(relay, f"feeder{n}", rate=700) for n in range(2)]
    for round_ in range(ROUNDS):
        before = [f.acked for f in feeders]
        wait_for(lambda b=before: all(f.acked >= a + 150 for f, a in zip(feeders, b, strict=True)), relay.tell)
        held = dice.choice(viewers)[0]
        held.hold()
        # A newcomer joins while others are at the head, some are behind, and one does not read.
        name, how, wanted = kinds[round_ % len(kinds)]
        viewers.append((scene.viewer(relay, name=f"{name} {round_}", **how, **wanted).start(), wanted))
        before = [f.acked for f in feeders]
        wait_for(lambda b=before: all(f.acked >= a + 150 for f, a in zip(feeders, b, strict=True)), relay.tell)
        held._open.set()
        if dice.random() < 0.4:
            relay.restart()
    for feeder in feeders:
        feeder.finish()
    counts = {feeder.name: feeder.wait() for feeder in feeders}
    for viewer, _ in viewers:
        viewer.hurry()
    plain = viewers[0][0]
    plain.wait(lambda: sum(b'"state":"closed"' in got.raw for got in plain.lines) == 2, "not all ends seen")
    ledger = settled(relay)
    for name, count in counts.items():
        check_trader(ledger, name, 1, count)
    for viewer, wanted in viewers:
        viewer.wait_for_id(ledger.head)
        viewer.stop()
        check_viewer(viewer, ledger, match=lambda entry, wanted=wanted: not wanted or entry.level >= 30)
        assert bool(viewer.compressed) == ("deflate" in viewer.headers)
        assert bool(viewer.arrays) == ("batch" in viewer.headers)
    print(f"\n{len(ledger.entries)} lines to {len(viewers)} viewers, {relay.starts - 1} kills")


def test_compressed_viewers_through_trouble(scene):
    """Provisional lines, recovery and a stall in between: compressed viewers see what uncompressed ones see."""
    relay = scene.relay("--compression", "on").start()
    trader = scene.trader(relay).connect()
    viewers = [
        scene.viewer(relay, name="plain").start(),
        scene.viewer(relay, name="deflate", deflate=True).start(),
        scene.viewer(relay, name="both", deflate=True, batch=True).start(),
        scene.viewer(relay, name="stalls", deflate=True, rcvbuf=4096).start(),
    ]
    trader.burst(50)
    trader.wait_acked()
    viewers[3].hold()
    relay.limit_file_size(0)
    trader.burst(3000, padding="x" * 50)
    viewers[1].wait_for_notice(notice="relay", state="trouble")
    late = scene.viewer(relay, name="late", deflate=True).start()
    trader.burst(50)
    late.wait_for_line(lambda data: data["context"].get("n") == trader.seq, "the newcomer is behind")
    relay.limit_file_size(None)
    trader.wait_acked()
    viewers[3].hurry()
    viewers[0].wait_for_notice(notice="relay", state="recovered")
    trader.burst(50)
    trader.wait_acked()
    ledger = settled(relay)
    check_trader(ledger, "trader", 1, trader.seq)
    for viewer in (*viewers, late):
        viewer.wait_for_id(ledger.head)
        viewer.stop()
        check_viewer(viewer, ledger)
