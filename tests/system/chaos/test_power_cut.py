"""The power goes: no id gets a second meaning, and whoever was shown lines that are gone is told which.

A relay is recorded while it works; then the power is cut at random points of the record, and what a disk may hold at
each of them is opened again. Few recordings make many points.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import sqlite3

import pytest

from logrelay.fanout.positions import Epochs
from logrelay.journal.interface import Query
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit, Line, run_name
from tests.support.chaos import power
from tests.support.chaos.ledger import LATE_COMMIT, Ledger, check_accounted, settled
from tests.support.chaos.scale import chance, scaled

RECORDINGS = scaled(1, 5)
"""Of each kind; every one is cut once in the middle, and recorded again from there."""
POINTS = scaled(6, 20)
"""In each recording, of which there are two generations."""
RESTARTS = scaled(1, 4)
"""Points at which a real relay is started on what was left."""

ATTEMPTS = 5
"""A commit that takes more than a second is rare, and mostly the work of other tests."""

KINDS = {
    "normal": ("--sync", "normal"),
    "full": ("--sync", "full"),
    "normal-small": ("--sync", "normal", "--keep-bytes", "1MiB"),
}


class Scenery:
    """One relay's directory, its trader and its viewer, through several cuts."""

    def __init__(self, scene, options, number):
        self.scene, self.home = scene, scene.home / f"recording-{number}"
        self.home.mkdir()
        self.shim = power.build(self.home)
        self.disk = self.home / "disk"
        self.options = options
        self.trader = None
        self.told = power.Told()
        """Before the present recording began."""
        self.generation = 0

    def record(self, choices):
        """Run a relay on what the disk holds, with a trader and a viewer, until it is killed; returns what it did.

        Where the disk of this machine stood still meanwhile, lines were shown before they were kept, under ids of their
        own, of which this test knows nothing: then it begins anew.
        """
        for _ in range(ATTEMPTS):
            recording, before, stood_still = self._record(choices)
            if not stood_still:
                return recording, before
            shutil.rmtree(self.disk)
            if before is not None:
                before.rename(self.disk)
        pytest.fail(f"the disk of this machine stood still in each of {ATTEMPTS} recordings")

    def _record(self, choices, rounds=60):
        self.generation += 1
        before = None
        if self.disk.exists():
            before = self.disk.rename(self.home / f"before-{self.generation}")
        self.disk.mkdir()
        for path in before.iterdir() if before is not None else ():
            (self.disk / path.name).write_bytes(path.read_bytes())
        relay = self.scene.relay(*self.options, journal=self.disk / "journal.db")
        log, boot = self.home / f"log-{self.generation}", self.home / "boot"
        boot.write_text(f"boot-{self.generation}\n")
        relay.environ = {
            "LD_PRELOAD": str(self.shim),
            "POWER_DIR": str(self.disk),
            "POWER_LOG": str(log),
            "POWER_BOOT": str(boot),
        }
        relay.start()
        assert not [text for text in relay.said if "damaged" in text], relay.said
        trader = self.trader = self.scene.trader(relay).connect()
        last = list(self.told.lines)[-1:]
        viewer = self.scene.viewer(relay, after=last[0] if last else None).start()
        for _ in range(rounds):
            trader.burst(choices.randint(1, 30), pad="x" * choices.choice([1, 1, 2000]))
            if choices.random() < 0.7:
                trader.wait_acked()
        trader.wait_acked()
        viewer.wait(lambda: viewer.place() >= trader.seq, "the viewer is behind")
        relay.kill()
        viewer.stop()
        trader.close()
        stood_still = any(LATE_COMMIT in text for text in relay.said)
        stood_still = stood_still or any("." in line.id for line in viewer.lines)
        return power.Recording(log, self.disk), before, stood_still


def all_told(scenery, recording, point):
    """Everything that was given out until then, by id; fails where an id was given for two lines."""
    told = power.Told(dict(scenery.told.lines))
    for text in recording.told(point).lines.values():
        told.message(text)
    return told


def bodies_of(journal, head):
    """Read every line that is kept."""
    found, after, complete = {}, 0, False
    while not complete:
        page = journal.page(Query(after, head, 100_000))
        found |= dict(zip(page.seqs, page.bodies, strict=True))
        after, complete = page.reached, page.complete
    return found


def check_point(folder, told, acked, *, full):
    """Open what is left, resume with every id that was given, and go on. Returns how many lines were lost."""
    path = folder / "journal.db"
    names = (f"new{n:03}" for n in itertools.count())
    journal = SqliteJournal(str(path), now_us=lambda: 1, random_epoch=lambda: next(names), boot="after the cut")
    opening = journal.open()
    try:
        assert not [text for text in opening.notices if "damaged" in text], opening.notices
        bodies = bodies_of(journal, opening.head)
        epochs = Epochs(opening.earlier, opening.epoch, opening.head + 1)
        lost = 0
        for id_, text in told.lines.items():
            position = epochs.resolve(id_, aliases=(), head=opening.head, head_id="head")
            epoch, _, number = id_.rpartition("-")
            if position.lost is None:
                assert position.seq == int(number)
                assert position.seq < opening.oldest or bodies[position.seq] == text, f"{id_} means another line"
                continue
            lost += 1
            assert position.lost == (epoch, position.seq + 1, int(number))
            assert (f"{epoch}-{position.seq}" in told.lines) or position.seq == 0 or position.seq < opening.oldest
            assert text not in bodies.values(), f"{id_} is said to be lost, and is there"
        if full:
            assert lost == 0, "a synced line is gone"
            assert max((run.last_seq for run in opening.runs), default=0) >= max(acked.values(), default=0)
        seqs = range(opening.head + 1, opening.head + 4)
        fresh = [f"{opening.epoch}-{seq}" for seq in seqs]
        assert not told.lines.keys() & set(fresh), "an id is given out again"
        body = b'{"type":"log","id":"%b","message":"m","context":{}}'
        journal.append(
            Commit([Line(s, s, 20, "s", 1, body % i.encode(), "", {}) for s, i in zip(seqs, fresh, strict=True)])
        )
    finally:
        journal.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return lost


@pytest.mark.parametrize("kind", KINDS)
def test_no_id_has_two_meanings_and_nothing_is_missing_unsaid(scene, kind):
    """At every point: the journal opens, each id means its line or is told to be lost, and no id comes again."""
    choices = chance(f"power cut {kind}")
    points = with_loss = lost = restarts = 0
    for number in range(RECORDINGS):
        scenery = Scenery(scene, KINDS[kind], number)
        for generation in (1, 2):
            recording, before = scenery.record(choices)
            begin = recording.first_line() + 1
            for index in range(POINTS):
                point = choices.randrange(begin, len(recording.steps) + 1)
                told = all_told(scenery, recording, point)
                folder = scene.home / f"cut-{number}-{generation}-{index}"
                disk = power.Disk(before, scenery.disk).play(recording.steps[:point])
                disk.after_cut(folder, choices)
                if index < RESTARTS:
                    copy = scene.home / f"real-{number}-{generation}-{index}"
                    copy.mkdir()
                    for path in folder.iterdir():
                        (copy / path.name).write_bytes(path.read_bytes())
                    check_restart(scene, copy, scenery, told)
                    restarts += 1
                gone = check_point(folder, told, recording.told(point).acked, full=kind == "full")
                points, lost, with_loss = points + 1, lost + gone, with_loss + (gone > 0)
            # On from a cut in the middle: what was told before it counts from now on.
            point = choices.randrange((begin + len(recording.steps)) // 2, len(recording.steps))
            scenery.told = all_told(scenery, recording, point)
            disk = power.Disk(before, scenery.disk).play(recording.steps[:point])
            old = scenery.disk.rename(scene.home / f"old-{number}-{generation}")
            disk.after_cut(scenery.disk, choices)
            assert old.exists()
    print(f"{kind}: {points} points, {with_loss} with loss, {lost} lines told to be lost, {restarts} real restarts")
    assert points == RECORDINGS * 2 * POINTS
    assert kind == "full" or with_loss, "nothing was ever dropped: this tests nothing"


def check_restart(scene, folder, scenery, told):
    """A real relay on what is left: a viewer resumes with its last id, and the trader goes on where it is."""
    relay = scene.relay(*scenery.options, journal=folder / "journal.db").start()
    held = list(told.lines)[-1]
    viewer = scene.viewer(relay, after=held).start()
    # On another machine, or out of a spool: it goes on behind what was acked to it, which the relay may not have.
    trader = scene.trader(relay, run=scenery.trader.run)
    trader.started_ns, trader.seq = scenery.trader.started_ns, scenery.trader.seq
    trader.connect().burst(5)
    trader.wait_acked()
    viewer.wait_for_id(settled(relay).head)
    relay.stop()
    ledger = Ledger.read(relay.journal)
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    check_trader_goes_on(ledger, trader, "unexplained" if "full" in scenery.options else "power")
    epoch, _, number = held.rpartition("-")
    kept = {entry.id for entry in ledger.entries}
    first, *_ = viewer.lines
    context = first.data["context"]
    if held in kept:
        assert context.get("cause") != "unsynced"
        check_accounted(viewer.lines, int(number), ledger.head)
        return
    if context.get("cause") == "retention":
        return
    assert context["cause"] == "unsynced", first
    begin = int(re.fullmatch(rf"{epoch}-(\d+)", context["first"])[1])
    assert (context["last"], context["count"]) == (held, int(number) - begin + 1)
    assert first.id.endswith(f"-{begin - 1}")
    check_accounted(viewer.lines[1:], begin - 1, ledger.head)
    assert not {got.id for got in viewer.lines[1:]} & told.lines.keys(), "an id was given out again"


def check_trader_goes_on(ledger, trader, cause):
    """What was acked and is not there is told with its cause, its range and its count; what was sent now is there."""
    key = run_name(trader.run)
    kept = [entry.data["context"]["n"] for entry in ledger.entries if entry.data.get("run") == key]
    gaps = [gap["context"] for gap in ledger.notices(notice="gap", run=key)]
    for gap in gaps:
        assert gap["cause"] == cause, gap
        assert gap["count"] == gap["last"] - gap["first"] + 1
    told = [n for gap in gaps for n in range(gap["first"], gap["last"] + 1)]
    begin = min(kept) if ledger.oldest > 1 else 1
    assert sorted(kept + [n for n in told if n >= begin]) == list(range(begin, trader.seq + 1))
