"""A disk that is full at each stage of a journal's life: lines are kept, or wait, or have gone and were counted."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from tests.support.chaos.ledger import Ledger, check_viewer, settled, troubles
from tests.support.chaos.scale import FULL, chance, scaled
from tests.support.waiting import DEADLINE_S, wait_for

DISK_BYTES = 24 << 20
HEAL_S = 5.0 if FULL else DEADLINE_S
"""From the moment when there is space until every line is in the journal, however the relay waited for it. With the
full counts, which have the machine for themselves, it is held to what is promised."""

STAGES = [
    "no line yet",
    "first lines",
    "much in the log",
    "retention at work",
    "stopped and started",
    "killed and started",
]
SHORT = ["first lines", "retention at work", "killed and started"]
"""Those that do not need the full counts."""
ROUNDS = scaled(1, 20)
"""Times of a full disk for each stage, in one relay's life."""


class SmallDisk:
    """A tmpfs of its own, which can be filled to the last byte from outside."""

    def __init__(self, scene) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root")
        self.path = scene.home / "disk"
        self.path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "chaos", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        scene.on_end(lambda: subprocess.run(["umount", "--lazy", str(self.path)], check=True))

    def fill(self, leave: int = 0) -> None:
        """Take every byte but `leave`."""
        with (self.path / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        os.truncate(self.path / "filler", max(0, (self.path / "filler").stat().st_size - leave))

    def free(self) -> None:
        """Give it back."""
        (self.path / "filler").unlink(missing_ok=True)


def check_kept(ledger: Ledger, name: str, last: int) -> int:
    """Each of the newest lines is there once and in order, up to `last`; returns how many before them are not."""
    got = [entry.data["context"]["n"] for entry in ledger.of(name)]
    assert got == list(range(got[0], last + 1)), f"{len(got)} lines from {got[0]} to {got[-1]} for {last}"
    return got[0] - 1


@pytest.mark.parametrize("keep_free", ["1MiB", "0"], ids=["retention-on", "retention-off"])
@pytest.mark.parametrize(
    "stage",
    [pytest.param(s, id=s.replace(" ", "-"), marks=() if s in SHORT else pytest.mark.long) for s in STAGES],
)
def test_a_full_disk_costs_no_line_that_memory_could_hold(scene, stage, keep_free):
    """Filled from outside, freed again: nothing in the journal has a hole, what went early is counted, no restart."""
    disk, dice = SmallDisk(scene), chance(f"{stage} {keep_free}")
    # With nothing kept free the journal itself must not fill the disk: then only a person could end it.
    limit = "2MiB" if stage == STAGES[3] else "8MiB" if keep_free == "0" else "1GiB"
    options = ["--keep-free", keep_free, "--keep-bytes", limit]
    relay = scene.relay(*options, journal=disk.path / "journal.db").start()
    viewer = scene.viewer(relay, name="viewer", tail=0).start()
    bot = scene.real_trader(relay, max_bytes=32 << 20)
    before = 0
    for _ in range(ROUNDS):
        if stage != STAGES[0]:
            count = {STAGES[2]: 7000, STAGES[3]: 12_000}.get(stage, 2000)
            bot.log(count, 200)
            before = bot.wait_settled()["acked"]
        if stage == STAGES[4]:
            relay.stop()
        disk.fill(leave=dice.choice((0, 0, 4096, 40_000, 300_000)))
        if stage == STAGES[4]:
            relay.start()
        elif stage == STAGES[5]:
            relay.kill()
            relay.start()
        for _ in range(scaled(10, 20)):
            total = bot.log(200, 200)
            viewer.wait(
                lambda n=total: any(f'"n":{n},'.encode() in got.raw for got in viewer.lines[-4000:]), "no live line"
            )
        if keep_free != "0" and before:
            # The oldest lines make room for the new ones: no trouble, and acks go on.
            bot.wait_settled()
            wait_for(lambda: relay.health()["journal"]["trouble"] is None, relay.tell)
        disk.free()
        stats = bot.wait_settled(HEAL_S)
        assert stats["acked"] == total
        assert sum(stats["dropped"].values()) == 0, stats
        wait_for(lambda: relay.get("/readyz")[0] == 200, relay.tell, HEAL_S)

    def early() -> float:
        return sum(relay.metric(f"journal_evicted_{cause}_lines_total") for cause in ("size", "space"))

    def counted() -> bool:  # retention goes on for a moment
        return Ledger.read(relay.journal).oldest - 1 == early()

    if stage in STAGES[:4]:  # the counters are those of the process
        wait_for(counted, lambda: f"the oldest line is {Ledger.read(relay.journal).oldest}, {early()} went early")
    ledger = Ledger.read(relay.journal)
    gone = check_kept(ledger, "robo", total)
    assert not ledger.notices(notice="gap"), "lines are missing on the way"
    if keep_free == "0" and stage != STAGES[3] and ROUNDS == 1:
        assert (gone, early()) == (0, 0), "nothing goes early when nothing may"
    log = (disk.path / "journal.db-wal").stat().st_size
    assert log <= 12 << 20, "the log has grown without bound"
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    print(f"\n{stage}, keep-free {keep_free}: {total} lines in {ROUNDS} rounds, {gone} went early, log {log >> 10} KiB")
    if gone == 0:
        check_viewer(viewer, ledger)


def test_lines_that_went_for_lack_of_room_are_told_of(scene):
    """One notice a day with cause, count and range; whoever reads on is told of no gap."""
    disk = SmallDisk(scene)
    relay = scene.relay(journal=disk.path / "journal.db").start()
    bot = scene.real_trader(relay)
    viewer = scene.viewer(relay, name="viewer", tail=0).start()
    bot.log(20_000, 200)
    bot.wait_settled()
    disk.fill()
    for _ in range(5):
        bot.log(1000, 200)
        bot.wait_settled()
    viewer.wait_for_notice(notice="relay", state="evicted", cause="space")
    told = settled(relay).notices(notice="relay", state="evicted")
    assert len(told) == 1
    context = told[0]["context"]
    assert context["first"] == 1
    assert context["count"] == context["last"] >= 100
    assert relay.metric("journal_evicted_space_lines_total") >= context["count"]
    told = Ledger.read(relay.journal).notices(notice="relay", state="trouble")
    assert not troubles(notice["context"] for notice in told)
