"""The journal cannot be written: viewers go on getting lines, traders keep theirs, and afterwards all is well."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time

import pytest

from tests.support.chaos.ledger import UNANSWERED_S, Ledger, check_trader, check_viewer, settled
from tests.support.waiting import DEADLINE_S, wait_for

DISK_BYTES = 4 << 20
"""Size of the file system that is going to be full."""


class FileLimit:
    """No write into any file succeeds (RLIMIT_FSIZE of the running relay): needs no privilege."""

    name = "file size limit"

    def __init__(self, scene) -> None:
        self.relay = scene.relay()

    def fill(self) -> None:
        """From now on writing fails."""
        self.relay.limit_file_size(0)

    def free(self) -> None:
        """Writing works again."""
        if self.relay.process.poll() is None:
            self.relay.limit_file_size(None)


class FullDisk:
    """A small tmpfs of its own, filled to the last byte: ENOSPC as it is."""

    name = "full tmpfs"

    def __init__(self, scene) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root; the file size limit stands in for it")
        self.mount = scene.home / "disk"
        self.mount.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "chaos", str(self.mount)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        scene.on_end(lambda: subprocess.run(["umount", "--lazy", str(self.mount)], check=True))
        # Old lines are not to make room: the journal is to be in trouble.
        self.relay = scene.relay("--keep-free", "0", journal=self.mount / "journal.db")

    def fill(self) -> None:
        """Take every byte there is."""
        with (self.mount / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))

    def free(self) -> None:
        """Give it back."""
        (self.mount / "filler").unlink(missing_ok=True)


class Lock:
    """Another process holds a write lock on the journal: commits wait, as they would for a stuck disk."""

    name = "foreign lock"

    def __init__(self, scene) -> None:
        self.relay = scene.relay()
        self._db = None

    def fill(self) -> None:
        """Take the lock."""
        self._db = sqlite3.connect(self.relay.journal, isolation_level=None, timeout=DEADLINE_S)
        self._db.execute("BEGIN IMMEDIATE")

    def free(self) -> None:
        """Give it back."""
        if self._db is not None:
            self._db.close()
            self._db = None


@pytest.fixture(params=[FileLimit, FullDisk, Lock], ids=lambda kind: kind.name.replace(" ", "-"))
def trouble(request, scene):
    """Something that keeps the journal from being written, and can be ended."""
    trouble = request.param(scene)
    scene.on_end(trouble.free)
    trouble.relay.start()
    return trouble


def into_trouble(trouble, viewer, trader) -> str:
    """Bring the journal into trouble and log until the relay says so; return the provisional epoch of this trouble.

    The disk may have stood still for a moment before, which is trouble of its own: it is to be over, and not to count.
    """
    viewer.wait_for_id(settled(trouble.relay).head)
    before = len(viewer.lines)
    trouble.fill()

    def told():
        trader.log("until somebody notices", padding="x" * 500)
        trader.step()
        return [got for got in viewer.lines[before:] if b'"state":"trouble"' in got.raw]

    return viewer.wait(told, "nobody said that the journal is in trouble")[-1].id.rpartition("-")[0]


def logged(viewer, trader) -> int:
    """Count the trader's lines the viewer has."""
    return sum(f'"feeder":"{trader.name}"'.encode() in got.raw for got in viewer.lines)


def kept(viewer, trader, provisional) -> int:
    """Count those of the trader's lines that the viewer has under other ids than those of the present trouble."""
    lines = (got for got in viewer.lines if f'"feeder":"{trader.name}"'.encode() in got.raw)
    return sum(got.id.rpartition("-")[0] != provisional for got in lines)


def test_lines_flow_while_the_journal_cannot_be_written(scene, trouble):
    """Full disk, or a lock somebody holds: viewers get lines live with provisional ids, traders no acks, all are told.

    When it is over the lines are committed and acked, each once; the provisional ids resume exactly.
    """
    relay = trouble.relay
    trader = scene.trader(relay).connect()
    watching = scene.viewer(relay, name="watching").start()
    leaving = scene.viewer(relay, name="leaving", resume=False).start()
    trader.burst(100)
    trader.wait_acked()
    provisional = into_trouble(trouble, watching, trader)
    acked = kept(watching, trader, provisional)
    trader.wait_acked(acked)
    for _ in range(5):
        count = trader.burst(10)
        watching.wait(lambda n=count: logged(watching, trader) == n, "live lines stopped")
    trader.step()
    assert trader.acked == acked, "lines were acked that are not kept"
    (plain,) = {epoch for got in watching.lines if "." not in (epoch := got.id.rpartition("-")[0])}
    assert provisional.startswith(f"{plain}.")
    assert watching.last_id.rpartition("-")[0] == provisional
    status = relay.health()
    assert status["journal"]["trouble"], status
    assert relay.get("/readyz")[0] == 503

    # One leaves in the middle of it and comes back, still in the middle of it.
    leaving.wait(lambda: logged(leaving, trader) == trader.seq, "the other viewer is behind")
    leaving.stop()
    back = scene.viewer(relay, name="back", after=leaving.last_id).start()
    count = trader.burst(10)
    back.wait(lambda: logged(back, trader) == 10, "no exact resume on a provisional id while in trouble")
    # Another one stays away until it is over; and one begins now.
    held = leaving.last_id
    late = scene.viewer(relay, name="late").start()
    late.wait(lambda: logged(late, trader) == count, "who comes in the middle of trouble does not get every line")

    trouble.free()
    trader.wait_acked()
    watching.wait_for_notice(notice="relay", state="recovered")
    trader.burst(10)
    trader.wait_acked()
    ledger = settled(relay)
    check_trader(ledger, "trader", 1, trader.seq)
    assert provisional in ledger.aliases
    # Once for each time of trouble: one, unless the disk stood still by itself before or behind it.
    assert len(ledger.notices(notice="relay", state="trouble")) == len(ledger.aliases)
    assert 1 <= len(ledger.notices(notice="relay", state="recovered")) <= len(ledger.aliases)
    assert not ledger.notices(notice="gap")
    again = scene.viewer(relay, name="again", after=held).start()
    for viewer in (watching, late, back, again):
        viewer.wait_for_id(ledger.head)
        viewer.stop()
    stood = int(held.rpartition("-")[2])
    check_viewer(watching, ledger)
    check_viewer(late, ledger)
    check_viewer(back, ledger, after=stood)
    check_viewer(again, ledger, after=stood)
    wait_for(lambda: relay.get("/readyz")[0] == 200, relay.tell)
    # What was provisional stays good when the relay is another one.
    relay.restart()
    trader.close()
    trader.connect()
    trader.burst(5)
    trader.wait_acked()
    ledger = settled(relay)
    later = scene.viewer(relay, name="later", after=held).start()
    later.wait_for_id(ledger.head)
    later.stop()
    check_viewer(later, ledger, after=stood)


def test_a_relay_killed_in_trouble_keeps_no_false_promise(scene, trouble):
    """Killed before the lines were kept: they come again from the trader, and who holds a provisional id is told which.

    Then everything behind the last line that was kept: nothing is left out in silence, and each line has one place.
    """
    relay = trouble.relay
    trader = scene.trader(relay).connect()
    watching = scene.viewer(relay, name="watching").start()
    trader.burst(100)
    trader.wait_acked()
    into_trouble(trouble, watching, trader)
    count = trader.burst(50)
    watching.wait(lambda: logged(watching, trader) == count, "live lines stopped")
    assert "." in watching.last_id
    assert trader.acked < count
    relay.kill()
    trouble.free()
    relay.start()
    trader.wait_acked()
    trader.burst(5)
    trader.wait_acked()
    ledger = settled(relay)
    check_trader(ledger, "trader", 1, trader.seq)
    watching.wait_for_notice(notice="gap", cause="unsynced")
    watching.wait_for_id(ledger.head)
    watching.stop()
    check_viewer(watching, ledger)


def test_sigterm_in_trouble_ends_in_time_and_leaves_the_lines_to_the_traders(scene):
    """The relay is stopped while the journal cannot be written: it ends in time, says what is open, and no ack lies."""
    trouble = FileLimit(scene)
    relay = trouble.relay.start()
    trader = scene.trader(relay).connect()
    watching = scene.viewer(relay, name="watching").start()
    trader.burst(10)
    trader.wait_acked()
    into_trouble(trouble, watching, trader)
    trader.burst(20)
    relay.terminate()
    assert relay.wait() == 0
    assert "not committed" in relay.tell()
    trader.wait_closed()
    trouble.free()
    assert Ledger.read(relay.journal).runs[trader.run][1] == trader.acked
    relay.start()
    trader.wait_acked()
    check_trader(Ledger.read(relay.journal), "trader", 1, trader.seq)


def test_trouble_again_and_again(scene):
    """Three times of trouble, each with ids of its own; every line is kept once and every id stays good."""
    trouble = FileLimit(scene)
    relay = trouble.relay.start()
    trader = scene.trader(relay).connect()
    watching = scene.viewer(relay, name="watching").start()
    held = []
    for round_ in range(3):
        trouble.fill()
        count = trader.burst(5)
        watching.wait(lambda n=count: logged(watching, trader) == n, "live lines stopped")
        assert "." in watching.last_id
        held.append((watching.last_id, watching.place()))
        trouble.free()
        trader.wait_acked()
        wait_for(lambda n=round_: relay.get("/readyz")[0] == 200, relay.tell)
        trader.burst(5)
        trader.wait_acked()
    assert len({id_.rpartition("-")[0] for id_, _ in held}) == 3
    ledger = settled(relay)
    check_trader(ledger, "trader", 1, trader.seq)
    watching.wait_for_id(ledger.head)
    check_viewer(watching, ledger)
    for id_, place in held:
        viewer = scene.viewer(relay, name=id_, after=id_).start()
        viewer.wait_for_id(ledger.head)
        viewer.stop()
        check_viewer(viewer, ledger, after=place)


def test_start_on_a_full_disk(scene):
    """A relay that is started while the disk is full either serves or says in one line why not, with exit code 4."""
    trouble = FullDisk(scene)
    relay = trouble.relay.start()
    trader = scene.trader(relay).connect()
    trader.burst(100)
    trader.wait_acked()
    trouble.fill()
    relay.kill()
    said = len(relay.said)
    relay.spawn()
    wait_for(lambda: relay.process.poll() is not None or relay._ready.is_set(), relay.tell)
    if relay._ready.is_set():
        viewer = scene.viewer(relay).start()
        trader.close()
        trader.connect()
        trader.burst(10)
        viewer.wait(lambda: logged(viewer, trader) == 110, "a relay that serves shows lines")
        trouble.free()
    else:
        assert relay.wait() == 4
        assert len(relay.said) == said + 1, relay.tell()
        assert str(relay.journal) in relay.said[-1]
        trouble.free()
        relay.start()
    trader.wait_acked()
    check_trader(Ledger.read(relay.journal), "trader", 1, trader.seq)


def test_readers_do_not_suffer_from_a_full_disk(scene):
    """While the disk is full, history and /logs answer with what is kept, and the filter of a viewer works."""
    trouble = FullDisk(scene)
    relay = trouble.relay.start()
    trader = scene.trader(relay).connect()
    watching = scene.viewer(relay, name="watching", tail=0).start()
    trader.burst(200)
    trader.log("alarm", "warning")
    trader.wait_acked()
    kept = shutil.disk_usage(trouble.mount)
    into_trouble(trouble, watching, trader)
    assert shutil.disk_usage(trouble.mount).used >= kept.used
    status, body = relay.get("/logs?level=WARNING&text=alarm")
    assert status == 200
    assert body.count(b"\n") >= 1
    watching.send({"type": "history", "before": watching.lines[0].id, "limit": 100})
    watching.wait(lambda: any(m["type"] == "history" for m in watching.others), "no answer to history")
    picky = scene.viewer(relay, name="picky", level="WARNING", notices="all", tail=10).start()
    trader.log("a second alarm", "warning")
    picky.wait_for_line(lambda data: data["message"] == "a second alarm", "the second alarm")


def test_a_viewer_that_stalls_through_the_trouble_misses_nothing(scene):
    """It stops reading before the trouble and goes on after it: the lines of that time are among what it catches up."""
    trouble = FileLimit(scene)
    relay = trouble.relay.start()
    trader = scene.trader(relay).connect()
    watching = scene.viewer(relay, name="watching").start()
    before = scene.viewer(relay, name="stalls before", rcvbuf=4096).start()
    within = scene.viewer(relay, name="stalls within", rcvbuf=4096).start()
    trader.burst(10)
    trader.wait_acked()
    before.wait(lambda: logged(before, trader) == 10, "no lines")
    held_at = time.monotonic()
    before.hold()
    trader.burst(3000, padding="x" * 100)
    trader.flush_all()
    trader.wait_acked()
    into_trouble(trouble, watching, trader)
    within.wait(lambda: any("." in got.id for got in within.lines), "no provisional line")
    within.hold()
    trader.burst(6000, padding="x" * 100)
    trader.flush_all()
    watching.wait(lambda: logged(watching, trader) == trader.seq, "live lines stopped")
    wait_for(lambda: relay.metric("viewers_behind") == 2, relay.tell)
    within.hurry()
    within.wait(lambda: logged(within, trader) == trader.seq, "no catching up in the middle of trouble")
    trouble.free()
    trader.wait_acked()
    before.hurry()
    held_s = time.monotonic() - held_at
    watching.wait_for_notice(notice="relay", state="recovered")
    ledger = settled(relay)
    check_trader(ledger, "trader", 1, trader.seq)
    for viewer in (watching, before, within):
        viewer.wait_for_id(ledger.head)
        viewer.stop()
        check_viewer(viewer, ledger)
        assert viewer.connections == 1 or held_s > UNANSWERED_S


def test_memory_is_bounded_while_the_journal_cannot_be_written(scene):
    """More lines than the relay may hold: it says so and stops reading; the traders keep the rest."""
    trouble = FileLimit(scene)
    relay = trouble.relay.start()
    trader = scene.trader(relay).connect()
    watching = scene.viewer(relay, name="watching").start()
    trader.burst(5)
    trader.wait_acked()
    rss = relay.rss()
    into_trouble(trouble, watching, trader)
    for _ in range(1600):
        trader.add("a large line", padding="x" * 60_000)
    assert sum(len(frame) for _, frame in trader.unacked) > 90 << 20
    looked = 0

    def told() -> bool:
        nonlocal looked
        for _ in range(100):
            trader.step(0.001)
        looked, begin = len(watching.lines), looked
        return any(b'"state":"full"' in got.raw for got in watching.lines[begin:looked])

    watching.wait(told, "the relay did not say that its memory is full")
    # A quick answer shows that it lives; what the trader has still to send stays where it is.
    assert relay.get("/healthz")[0] in (200, 503)
    assert trader.sent < trader.seq
    # 64 MiB of lines, as bodies and as what filters look at, and what the allocator makes of it.
    assert relay.rss() - rss < 256 << 20, f"grown by {(relay.rss() - rss) >> 20} MiB"
    print(f"\nthe relay holds {(relay.rss() - rss) >> 20} MiB more when it stops to read")
    trouble.free()
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, trader.seq)
    watching.wait_for_id(ledger.head)
    watching.stop()
    check_viewer(watching, ledger)
