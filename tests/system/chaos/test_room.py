"""A log that is held, retention that fails, a disk that is low or frozen: a notice and a metric each, and the end."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.support.chaos.ledger import troubles
from tests.support.waiting import DEADLINE_S, wait_for
from tests.system.chaos.test_full_disk import SmallDisk
from tests.unit.journal.test_sqlite_upkeep import reader


def told(viewer, *states):
    """Return the notices about these states, in order."""
    found = [line.data["context"] for line in viewer.lines if b'"notice":"relay"' in line.raw]
    return [context for context in found if context["state"] in states]


def test_a_reader_that_never_ends_and_retention_that_fails_are_told(scene):
    """The first with its process, its size and its time; both until they are over, also while no line comes."""
    relay = scene.relay("--keep-bytes", "8MiB").start()
    viewer = scene.viewer(relay, name="viewer", tail=0).start()
    bot = scene.real_trader(relay)
    bot.log(100, 200)
    bot.wait_settled()
    process = reader(str(relay.journal))
    try:
        bot.log(4000, 1000)
        bot.wait_settled()
        viewer.wait(lambda: told(viewer, "log_pinned"), "nobody said that the log is held")
        wait_for(lambda: relay.metric("journal_log_pinned_seconds") >= 10, relay.tell)
        assert relay.metric("journal_log_bytes") > 2 << 20
    finally:
        process.communicate()
    viewer.wait(lambda: told(viewer, "log_released"), "nobody said that it is over")
    wait_for(lambda: relay.metric("journal_log_pinned_seconds") == 0, relay.tell)
    (pinned, _) = told(viewer, "log_pinned", "log_released")
    assert pinned["bytes"] > 2 << 20
    assert pinned["seconds"] >= 10
    assert [f"process {process.pid} (" in one for one in pinned["processes"]] == [True]

    with closing(sqlite3.connect(relay.journal, timeout=DEADLINE_S, isolation_level=None)) as other:
        other.execute("CREATE TRIGGER stay BEFORE DELETE ON lines BEGIN SELECT RAISE(ABORT, 'no line goes'); END")
        bot.log(8000, 1000)
        bot.wait_settled()
        viewer.wait(lambda: told(viewer, "upkeep_trouble"), "nobody said that retention fails")
        assert relay.metric("journal_upkeep_trouble") == 1
        wait_for(lambda: relay.health()["status"] == "ok", "lines are kept all the same")
        other.execute("DROP TRIGGER stay")
    viewer.wait(lambda: told(viewer, "upkeep_recovered"), "nobody said that it works again")
    wait_for(lambda: relay.metric("journal_upkeep_trouble") == 0, relay.tell)
    (failed, _) = told(viewer, "upkeep_trouble", "upkeep_recovered")
    assert "no line goes" in failed["reason"]
    # A disk that stands still for a moment, as that of a busy machine does, is another matter.
    assert troubles(told(viewer, "trouble")) == []


def test_a_disk_that_is_low_is_told_once(scene):
    """With what is free; and when it has room again."""
    disk = SmallDisk(scene)
    relay = scene.relay(journal=disk.path / "journal.db").start()
    viewer = scene.viewer(relay, name="viewer", tail=0).start()
    bot = scene.real_trader(relay)
    bot.log(2000, 200)
    bot.wait_settled()
    wait_for(lambda: relay.metric("journal_disk_free_bytes") > 1 << 20, relay.tell)
    assert relay.metric("journal_disk_low") == 0
    disk.fill()

    def low() -> bool:
        bot.log(20, 200)
        bot.wait_settled()
        return bool(told(viewer, "disk_low"))

    wait_for(low, relay.tell)
    assert relay.metric("journal_disk_low") == 1
    disk.free()

    def over() -> bool:
        bot.log(20, 200)
        bot.wait_settled()
        return bool(told(viewer, "disk_recovered"))

    wait_for(over, relay.tell)
    assert relay.metric("journal_disk_low") == 0
    assert [context["state"] for context in told(viewer, "disk_low", "disk_recovered")] == [
        "disk_low",
        "disk_recovered",
    ]
    assert troubles(told(viewer, "trouble")) == []


@pytest.fixture
def frozen_disk(scene):
    """A file system of its own that can be frozen as a disk that does not answer is: every write waits."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    image, mount = scene.home / "image", scene.home / "frozen"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, mount]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system can be made and mounted here: {done.stderr.strip()}")
    scene.on_end(lambda: subprocess.run(["umount", "--lazy", mount], check=True))
    scene.on_end(lambda: subprocess.run(["fsfreeze", "--unfreeze", mount], check=False, capture_output=True))
    return mount


def test_a_disk_that_does_not_answer_is_told(scene, frozen_disk):
    """Lines are shown meanwhile, and kept afterwards."""
    relay = scene.relay(journal=frozen_disk / "journal.db").start()
    viewer = scene.viewer(relay, name="viewer", tail=0).start()
    bot = scene.real_trader(relay)
    bot.log(100, 200)
    bot.wait_settled()
    subprocess.run(["fsfreeze", "--freeze", frozen_disk], check=True)
    total = bot.log(10, 200)
    viewer.wait(lambda: told(viewer, "trouble"), "nobody said that the disk does not answer")
    wait_for(lambda: relay.metric("journal_stalled_seconds") > 1, relay.tell)
    wait_for(lambda: relay.metric("journal_trouble") == 1, relay.tell)
    assert relay.get("/healthz")[0] == 503
    subprocess.run(["fsfreeze", "--unfreeze", frozen_disk], check=True)
    assert bot.wait_settled()["acked"] == total
    viewer.wait(lambda: told(viewer, "recovered"), "nobody said that it works again")
    wait_for(lambda: relay.metric("journal_trouble") == 0 == relay.metric("journal_stalled_seconds"), relay.tell)
    states = [context["state"] for context in told(viewer, "trouble", "recovered")]
    # Once, unless the disk of this machine stood still by itself as well.
    assert states == ["trouble", "recovered"] * (len(states) // 2)
