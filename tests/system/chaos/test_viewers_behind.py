"""Viewers that are slow, stalled, away for long, or come with an id from elsewhere."""

from __future__ import annotations

import time
from collections import Counter

from tests.support.chaos.ledger import (
    UNANSWERED_S,
    Ledger,
    check_accounted,
    check_trader,
    check_viewer,
    private_notices,
    settled,
)
from tests.support.chaos.relay import Relay
from tests.support.chaos.scale import scaled
from tests.support.chaos.viewer import Viewer
from tests.support.waiting import wait_for

STALLED = scaled(200, 500)
LINES = scaled(40_000, 120_000)
STALLED_BYTES = 64 * 1024
"""Promised: what a stalled viewer may cost."""

WARM_LINES = 20_000
"""More than the relay's own memory of recent lines, so that it is full before the measurement begins."""


def latencies(viewer: Viewer, since: int) -> list[float]:
    """Return how long each line took from the trader's log call to the viewer, in seconds, from index `since` on."""
    taken = []
    for got in viewer.lines[since:]:
        data = got.data
        if data["source"] != "logrelay":
            shown = data["timestamp"]
            second = time.mktime(time.strptime(shown[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
            taken.append(got.at - second - int(shown[20:26]) / 1e6)
    return sorted(taken)


def p99(taken: list[float]) -> str:
    """Return the 99th percentile in words."""
    return f"{taken[int(len(taken) * 0.99)] * 1000:.1f} ms"


def test_stalled_viewers_cost_little_and_disturb_nobody(scene):
    """Hundreds of viewers that never read, one that does: little memory for each of them, and it misses nothing."""
    relay = scene.relay().start()
    healthy = scene.viewer(relay, name="healthy").start()
    feeder = scene.feeder(relay, "feeder", rate=7000)
    wait_for(lambda: feeder.acked > WARM_LINES, relay.tell)
    healthy.wait(lambda: len(healthy.lines) > WARM_LINES, "the healthy viewer is behind")
    before = relay.rss()
    quiet = p99(latencies(healthy, 0))
    came_at = time.monotonic()
    for _ in range(STALLED):
        scene.stalled(relay, tail=0)
    wait_for(lambda: relay.metric("_viewers") == STALLED + 1, relay.tell)
    connected = relay.rss()
    wait_for(lambda: relay.metric("viewers_behind") >= STALLED, "the viewers do not stall")
    since = len(healthy.lines)
    feeder.finish(at=LINES)
    after, looked = 0, feeder.acked
    while feeder.process.poll() is None:
        wait_for(lambda seen=looked: feeder.acked > seen + 1000 or feeder.process.poll() is not None, relay.tell)
        looked, now = feeder.acked, relay.rss()
        if relay.metric("viewers_behind") == STALLED:
            after = now
    count = feeder.wait()
    healthy.wait_for_notice(notice="trader", state="closed")
    # On a slow machine they are closed before the last line, because they answer no pings.
    assert time.monotonic() - came_at > UNANSWERED_S or relay.metric("viewers_behind") == STALLED
    assert after, "the viewers were never all stalled: the test shows nothing"
    ledger = settled(relay)
    healthy.wait_for_id(ledger.head)
    healthy.stop()
    check_trader(ledger, "feeder", 1, count)
    check_viewer(healthy, ledger)
    each = (after - before) / STALLED
    crowded = p99(latencies(healthy, since))
    print(
        f"\n{STALLED} stalled viewers, {count} lines: {each / 1024:.1f} KiB each, "
        f"of which {(connected - before) / STALLED / 1024:.1f} KiB for the connection"
        f"; p99 of the healthy one {quiet} alone, {crowded} among them"
    )
    assert each < STALLED_BYTES


def test_stalled_viewer_goes_on_where_it_stood(scene):
    """A viewer that stops reading for thousands of lines and then goes on has missed nothing, on one connection."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay, rcvbuf=4096).start()
    trader.burst(10)
    viewer.wait(lambda: len(viewer.lines) > 10, "no lines")
    held_at = time.monotonic()
    viewer.hold()
    trader.burst(20_000)
    trader.wait_acked()
    wait_for(lambda: relay.metric("viewers_behind") == 1, relay.tell)
    held_s = time.monotonic() - held_at
    viewer.hurry()
    viewer.wait_for_id(settled(relay).head)
    trader.burst(10)
    trader.wait_acked()
    ledger = settled(relay)
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    assert viewer.connections == 1 or held_s > UNANSWERED_S
    check_viewer(viewer, ledger)
    assert not private_notices(viewer.lines)


def test_resume_is_exact_from_every_id(scene):
    """Behind whichever id a viewer resumes, exactly the lines behind it follow; a filter changes nothing."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    for n in range(40):
        trader.log("resume", ("info", "warning")[n % 2])
    trader.wait_acked()
    ledger = settled(relay)
    for entry in ledger.entries:
        for level in ("DEBUG", "WARNING"):
            viewer = scene.viewer(relay, after=entry.id, level=level, notices="all").start()
            viewer.send({"type": "ping"})
            # The answer to a ping, sent once everything is quiet, comes behind the replay.
            wanted = [e.seq for e in ledger.entries if e.level >= 30 or e.is_notice or level == "DEBUG"]
            if wanted[-1] > entry.seq:
                viewer.wait_for_id(wanted[-1])
            viewer.stop()
            check_viewer(
                viewer, ledger, match=lambda e, level=level: level == "DEBUG" or e.level >= 30, after=entry.seq
            )
            assert not private_notices(viewer.lines)


def test_id_of_another_journal_gets_a_gap_notice_and_the_oldest_line_kept(scene):
    """Ids of another epoch, or of a line this journal has not reached: one epoch gap, then everything kept."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(700)
    trader.wait_acked()
    ledger = settled(relay)
    for foreign in (f"zzzzzz-{ledger.head - 5}", f"{ledger.epoch}.zzzz-3", f"{ledger.epoch}-{ledger.head + 1}"):
        viewer = scene.viewer(relay, after=foreign, name=foreign).start()
        viewer.wait(lambda v=viewer: len(v.lines) > ledger.head, "not everything came")
        viewer.stop()
        first, *rest = viewer.lines
        assert first.data["context"].items() >= {"notice": "gap", "cause": "epoch", "count": 0}.items()
        assert first.data["context"].keys().isdisjoint({"first", "last"})
        assert [got.id for got in rest] == [entry.id for entry in ledger.entries]
        assert not private_notices(rest)


def test_viewer_too_far_behind_is_skipped_with_exact_numbers(scene):
    """More than --max-lag behind: WARNING and above of the stretch come, then one gap notice that counts the others."""
    relay = scene.relay("--max-lag", "2000", "--tail", "100").start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay, rcvbuf=4096).start()
    trader.burst(10)
    viewer.wait(lambda: len(viewer.lines) > 10, "no lines")
    viewer.hold()
    levels = ["debug", "info", "info", "error", "info", "warning", "info", "info", "info", "critical"]
    for n in range(9_000):
        trader.add("line", levels[n % 10] if n % 30 < 10 else "info", padding="x" * 100)
    trader.flush_all()
    trader.wait_acked()
    wait_for(lambda: relay.metric("viewers_behind") == 1, relay.tell)
    ledger = settled(relay)
    viewer.hurry()
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    (gap,) = [got for got in viewer.lines if got.data["context"].get("cause") == "lag"]
    context = gap.data["context"]
    first, last = (int(context[key].rpartition("-")[2]) for key in ("first", "last"))
    got_seqs = [int(got.id.rpartition("-")[2]) for got in viewer.lines if got is not gap]
    assert got_seqs == sorted(set(got_seqs)), "out of order, or twice"
    stretch = [entry for entry in ledger.entries if first <= entry.seq <= last]
    severe = [entry.seq for entry in stretch if entry.level >= 30 or entry.is_notice]
    assert [seq for seq in got_seqs if first <= seq <= last] == severe
    assert [seq for seq in got_seqs if seq < first] == list(range(1, first))
    assert [seq for seq in got_seqs if seq > last] == list(range(last + 1, ledger.head + 1))
    assert ledger.head - last == 100, "a viewer lands as many lines before the head as a new one gets"
    assert context["kept"] == len(severe)
    assert context["count"] == len(stretch) - len(severe)
    shown = Counter(entry.data["level"] for entry in stretch)
    assert context["levels"] == dict(shown)
    assert viewer.lines.index(gap) == [int(g.id.rpartition("-")[2]) for g in viewer.lines].index(last + 1) - 1


def test_skip_is_told_to_a_filtered_viewer_too(scene):
    """The viewer that resumes far behind with a filter gets its own WARNING lines of the stretch, and the notice."""
    relay = scene.relay("--max-lag", "500", "--tail", "50").start()
    trader = scene.trader(relay).connect()
    for n in range(3_000):
        trader.add("line", ("info", "warning")[n % 100 == 0], symbol="AAPL" if n % 2 == 0 else "MSFT")
    trader.flush_all()
    trader.wait_acked()
    ledger = settled(relay)
    viewer = scene.viewer(relay, after=ledger.entries[0].id, where="symbol=AAPL", notices="all").start()
    viewer.wait_for_id(ledger.head - 1)
    viewer.stop()
    (gap,) = private_notices(viewer.lines)
    assert gap["context"]["cause"] == "lag"
    first, last = (int(gap["context"][key].rpartition("-")[2]) for key in ("first", "last"))
    got = [g.data["context"].get("n") for g in viewer.lines if "n" in g.data["context"]]
    wanted = [
        e.data["context"]["n"]
        for e in ledger.of("trader")
        if e.data["context"]["symbol"] == "AAPL" and (not first <= e.seq <= last or e.level >= 30)
    ]
    assert got == wanted
    assert gap["context"]["kept"] == 30 - sum(e.level == 30 and e.seq > last for e in ledger.of("trader"))
    assert gap["context"]["count"] == last - first + 1 - gap["context"]["kept"]


def fill(relay: Relay, trader, until, most: int = 400_000) -> None:
    """Log until `until()`, never more than a few thousand lines ahead of the journal."""
    while not until():
        assert trader.seq < most, f"{most} lines were not enough"
        for _ in range(500):
            trader.add("line", padding="x" * 700)
        trader.wait_acked()


def test_retention_overtakes_a_slow_viewer(scene):
    """Lines a viewer had still to get are deleted: one gap notice names exactly those, and the file does not grow."""
    limit = 4 << 20
    relay = scene.relay("--keep-bytes", str(limit)).start()
    trader = scene.trader(relay).connect()
    slow = scene.viewer(relay, name="slow", rcvbuf=4096).start()
    trader.burst(20)
    slow.wait(lambda: len(slow.lines) > 20, "no lines")
    held_at = time.monotonic()
    slow.hold()

    def oldest() -> int:
        return int(relay.health()["oldest"].rpartition("-")[2])

    fill(relay, trader, lambda: oldest() > 5_000)
    assert relay.metric("viewers_behind") == 1 or time.monotonic() - held_at > UNANSWERED_S
    slow.hurry()
    trader.wait_acked()
    # Retention goes on a little behind the last line.
    wait_for(
        lambda: relay.journal.stat().st_size <= limit, lambda: f"the journal has {relay.journal.stat().st_size} bytes"
    )
    ledger = settled(relay)
    slow.wait_for_id(ledger.head)
    slow.stop()
    lines = [got for got in slow.lines if int(got.id.rpartition("-")[2]) <= ledger.head]
    check_viewer(slow, ledger, stretches=[lines])
    gaps = private_notices(slow.lines)
    assert [gap["context"]["cause"] for gap in gaps] == ["retention"] * len(gaps)
    assert gaps
    # Numbers add up: every line came or was told, once.
    told = sum(gap["context"]["count"] for gap in gaps)
    came = len(lines) - len(gaps)
    assert came + told == ledger.head
    # An id of a line that is gone: one gap notice, exact, and the oldest kept.
    viewer = scene.viewer(relay, name="resumes", after=f"{ledger.epoch}-100").start()
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    (gap,) = private_notices(viewer.lines)
    begin = kept_from(viewer.lines[1:], ledger, settled(relay))
    assert (
        gap["context"].items()
        >= {
            "cause": "retention",
            "first": f"{ledger.epoch}-101",
            "last": f"{ledger.epoch}-{begin - 1}",
            "count": begin - 101,
        }.items()
    )


def kept_from(lines, before: Ledger, behind: Ledger) -> int:
    """Require that a viewer got the lines that were kept at a moment between two looks; return the first one's number.

    Retention may take a step while the viewer comes.
    """
    begin = int(lines[0].id.rpartition("-")[2])
    assert before.oldest <= begin <= behind.oldest
    wanted = [entry.id for entry in before.entries if entry.seq >= begin]
    assert [got.id for got in lines][: len(wanted)] == wanted
    return begin


def test_the_file_shrinks_when_less_is_to_be_kept(scene):
    """A journal grown large, and a relay started with a small --keep-bytes: the file shrinks, the newest lines stay."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    fill(relay, trader, lambda: trader.seq >= 15_000)
    assert relay.stop() == 0
    trader.close()
    large = relay.journal.stat().st_size
    assert large > 12 << 20
    relay.options += ["--keep-bytes", str(2 << 20)]
    relay.start()
    trader.connect()
    trader.burst(10)
    trader.wait_acked()
    while (size := relay.journal.stat().st_size) > 2 << 20:  # in small steps, each of which has the whole deadline
        wait_for(lambda size=size: relay.journal.stat().st_size < size, f"still {size} of {large}")
    ledger = settled(relay)
    assert [e.data["context"]["n"] for e in ledger.of("trader")][-1] == 15_010
    viewer = scene.viewer(relay).start()
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    kept_from(viewer.lines, ledger, settled(relay))


def test_relay_killed_while_retention_is_at_work(scene):
    """Kill -9 while old lines are being deleted: the newest are whole, and what is gone is told exactly."""
    relay = scene.relay("--keep-bytes", str(1 << 20)).start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    for _ in range(scaled(5, 50)):
        trader.burst(1500, padding="x" * 500)
        trader.wait_acked(trader.seq - 700)
        relay.restart()
        trader.close()
        trader.connect()
    trader.wait_acked()
    ledger = settled(relay)
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    kept = [entry.data["context"]["n"] for entry in ledger.of("trader")]
    assert kept == list(range(kept[0], trader.seq + 1))
    assert ledger.oldest > 1
    told = check_accounted(viewer.lines, 0, ledger.head)
    gaps = [gap["context"] for gap in private_notices(viewer.lines)]
    assert told == sum(gap["count"] for gap in gaps if gap["cause"] == "retention")


def test_memory_journal_begins_anew_and_says_so(scene):
    """Without a file the next relay knows nothing: another epoch, a gap notice for the viewer, and lines as ever."""
    relay = scene.relay(journal=":memory:").start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(50)
    trader.wait_acked()
    viewer.wait(lambda: len(viewer.lines) == 51, "not all lines")
    relay.restart()
    trader.close()
    trader.connect()
    trader.burst(50)
    trader.wait_acked()
    gap = viewer.wait_for_notice(notice="gap", cause="epoch")
    viewer.wait(lambda: [g.data["context"].get("n") for g in viewer.lines][-1] == 100, "lines stopped")
    viewer.stop()
    behind = [got.data["context"] for got in viewer.lines[viewer.lines.index(gap) + 1 :]]
    assert [context["n"] for context in behind if "n" in context] == list(range(51, 101))
    # What the old relay had acked is missing here, and the stream says which lines.
    assert [(c["first"], c["last"]) for c in behind if c.get("cause") == "unexplained"] == [(1, 50)]
