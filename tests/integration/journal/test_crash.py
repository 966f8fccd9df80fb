"""A relay that is killed with SIGKILL loses no reported line, repeats none, leaves no half commit, no epoch twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from logrelay.journal.interface import Query
from logrelay.journal.sqlite import SqliteJournal
from tests.integration.journal.crash_child import BODY
from tests.support.waiting import DEADLINE_S

KILLS = 50
CHILD = Path(__file__).with_name("crash_child.py")
ROOT = Path(__file__).parents[3]


def read_all(journal, after, until):
    """Read a stretch, page by page: one page is bounded in time, and a busy machine reads little in it."""
    lines, complete = [], False
    while not complete:
        page = journal.page(Query(after, until, 10_000, max_bytes=1 << 24))
        lines += zip(page.seqs, page.bodies, strict=True)
        after, complete = page.reached, page.complete
    return lines


@pytest.mark.timeout(900)  # fifty processes
def test_fifty_kills_lose_and_repeat_nothing(tmp_path):
    """After each SIGKILL: every printed seq is there, the run's last_seq is that of its last line, no hole."""
    path = str(tmp_path / "journal.db")
    chance = random.Random(20260123)
    reported = reported_by_kill = 0
    heads = [0]
    for kill in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, str(CHILD), path],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        try:
            assert child.stdout is not None
            first = child.stdout.readline()  # it is up, and has committed once
            if kill % 2:
                first += child.stdout.readline()
            time.sleep(chance.uniform(0, 0.03))  # the moment of the kill is what is random here
            child.send_signal(signal.SIGKILL)
            printed = [int(word) for word in (first + child.stdout.read()).split() if word.isdigit()]
        finally:
            child.kill()
            child.wait(DEADLINE_S)
            child.stdout.close()
        assert printed, f"the child of kill {kill} said nothing: {first!r}"
        reported = printed[-1]
        reported_by_kill += len(printed)
        journal = SqliteJournal(path, now_us=lambda: 0, random_epoch=lambda: "zzzzzz")
        opening = journal.open()
        try:
            assert (opening.epoch, opening.notices) == ("zzzzzz", [])
            assert [epoch.first for epoch in opening.earlier] == [began + 1 for began in heads]
            heads.append(opening.head)
            assert opening.head >= reported
            assert {run.id: run.last_seq for run in opening.runs} == {1: opening.head}
            newest = read_all(journal, max(0, opening.head - 5000), opening.head)
            assert [seq for seq, _ in newest] == list(range(max(0, opening.head - 5000) + 1, opening.head + 1))
            epoch = opening.earlier[-1].name
            assert newest[-1][1] == BODY % (epoch.encode(), opening.head)
        finally:
            journal.close()
    journal = SqliteJournal(path, now_us=lambda: 0, random_epoch=lambda: "zzzzzz")
    head = journal.open().head
    found, after = 0, 0
    while after < head:
        page = journal.page(Query(after, head, 10_000))
        assert page.seqs == list(range(after + 1, page.reached + 1))
        found, after = found + len(page.seqs), page.reached
    journal.close()
    assert found == head >= reported
    assert reported_by_kill > KILLS
