"""Traders in JavaScript and Go, written from docs/protocol.md alone: every line once, through a kill of the relay."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.chaos.ledger import check_viewer, settled
from tests.support.chaos.scale import scaled
from tests.support.waiting import DEADLINE_S

PRODUCERS = Path(__file__).parents[2] / "contract" / "producers"
FIRST = scaled(300, 20_000)
LINES = 2 * FIRST
LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "ERROR"]


def node(_place):
    """Return the command of the one in JavaScript."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    return [program, str(PRODUCERS / "producer.mjs")]


def go(place):
    """Build the one in Go, without a network, and return its command."""
    program = shutil.which("go")
    if program is None:
        pytest.skip("go is not installed")
    environ = {**os.environ, "GOCACHE": str(place / "gocache"), "GOPATH": str(place / "gopath"), "GOPROXY": "off"}
    environ |= {"GO111MODULE": "off", "GOFLAGS": "-p=1", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    made = place / "producer"
    subprocess.run(
        [program, "build", "-o", str(made), str(PRODUCERS / "producer.go")], env=environ, cwd=place, check=True
    )
    return [str(made)]


@pytest.mark.parametrize("make", [node, go])
def test_a_producer_written_from_the_page(scene, tmp_path, make):
    """Lines of every level, a kill -9 of the relay, a resend, a loss, bye: once at a viewer and in the journal."""
    command = make(tmp_path)
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    producer = subprocess.Popen(
        [*command, str(relay.socket), str(FIRST), str(LINES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert producer.stdout.readline() == "ready\n"
        viewer.wait(lambda: any(b'"message":"line ' in got.raw for got in viewer.lines), "no line was shown")
        relay.restart()
        producer.stdin.write("go on\n")
        producer.stdin.flush()
        assert producer.stdout.readline() == "done\n"
        assert producer.wait(DEADLINE_S) == 0
    finally:
        producer.kill()
        producer.wait()
        producer.stdin.close()
        producer.stdout.close()
    viewer.wait(lambda: any(b'"state":"closed"' in got.raw for got in viewer.lines), "its end was not told")
    ledger = settled(relay)
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    check_viewer(viewer, ledger)
    shown = [entry.data for entry in ledger.entries if not entry.is_notice]
    gone = range(FIRST + 11, FIRST + 16)
    assert [line["context"]["n"] for line in shown] == [n for n in range(1, LINES + 1) if n not in gone]
    for line in shown:
        n = line["context"]["n"]
        assert line["message"] == f"line {n} \u00e9\U0001f600"
        assert line["level"] == LEVELS[n % 5]
        assert line["context"].get("severity") == ("CRITICAL" if n % 5 == 4 else None)
        assert line["context"]["price"] == 187.25
        assert line["context"]["huge"] == str(2**63 - 1)
        assert line["context"]["raw"] == "AP8="
        assert line["context"]["legs"] == [{"qty": -70_000}, None]
        assert "time_ns" not in line["context"]
    gaps = [notice["context"] for notice in ledger.notices(notice="gap")]
    assert [(gap["first"], gap["last"], gap["cause"]) for gap in gaps] == [(FIRST + 11, FIRST + 15, "overflow")]
    assert [run[1:] for run in ledger.runs.values()] == [(LINES, "closed")]
