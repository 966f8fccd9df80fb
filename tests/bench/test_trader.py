"""The trader's benchmark: it must measure what it says, notice who blocks, and leave nothing behind.

Real processes; nothing here looks at how fast anything is.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import trader  # noqa: E402
import trader_peers  # noqa: E402
from processes import Child, Fleet  # noqa: E402

DEADLINE = 20.0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.stop_all()


@pytest.mark.parametrize("keys", [3, 10, 30])
def test_events_have_the_keys_that_the_table_says(keys: int) -> None:
    """Called directly, an event has that many keys; a whole logging call adds three itself."""
    assert {len(event) for event in trader_peers.events(keys, bare=False)} == {keys}
    assert {len(event) for event in trader_peers.events(keys, bare=True)} == {keys - 3}


def test_our_processor_reaches_a_sink_and_loses_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """Every call of a measurement is counted once and acked by the sink."""
    sink = Child(fleet, "sink", [sys.executable, str(HERE / "trader_sink.py")])
    path = str(tmp_path / "s")
    sink.ask("listen", DEADLINE, path=path, mode="coalesce", ours=True)
    child = Child(fleet, "ours", [sys.executable, str(HERE / "trader_peers.py")])
    child.ask("begin", DEADLINE, name="ours", path=path, state="up", keys=10)
    said = child.ask(
        "measure", DEADLINE, bursts=2, size=100, seconds=0.1, rate=500.0, threads=2, settle=True, limit=10.0
    )
    assert (len(said["bursts"]), said["stuck"]) == (2, False)
    assert said["produced"] == 1 + 200 + len(said["paced"])
    assert said["counts"] == {"lost": 0, "kept": 0}


def test_a_call_that_does_not_return_is_said_to_block(fleet: Fleet, tmp_path: Path) -> None:
    """SocketHandler behind a peer that never reads: the measurement ends at its limit and says so."""
    sink = Child(fleet, "sink", [sys.executable, str(HERE / "trader_sink.py")])
    path = str(tmp_path / "s")
    sink.ask("listen", DEADLINE, path=path, mode="read")
    fleet_pid = sink.pid
    child = Child(fleet, "socket", [sys.executable, str(HERE / "trader_peers.py")])
    child.ask("begin", DEADLINE, name="socket", path=path, state="stalled", keys=10)
    trader.os.kill(fleet_pid, trader.signal.SIGSTOP)
    try:
        said = child.ask(
            "measure", DEADLINE, bursts=1, size=200_000, seconds=0.0, rate=1.0, threads=1, settle=False, limit=1.0
        )
    finally:
        trader.os.kill(fleet_pid, trader.signal.SIGCONT)
    assert said["stuck"]
    assert 0 < said["calls_in_limit"] < 200_000


def test_one_command_gives_a_table_and_its_json_can_be_shown_again(tmp_path: Path) -> None:
    """A small real run with the relay down; the same figures from the file as Markdown."""
    command = [sys.executable, str(HERE / "trader.py")]
    small = ["--quick", "--states", "down", "--shippers", "ours", "--json", str(tmp_path / "run.json")]
    ran = subprocess.run([*command, *small], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, "down: no socket; 1 thread" in ran.stdout) == (0, True), ran.stderr
    again = [*command, "--from", str(tmp_path / "run.json"), "--markdown"]
    shown = subprocess.run(again, capture_output=True, text=True, timeout=60, check=False)
    assert shown.stdout.startswith("## What a log call costs the trader: one run\n")
    assert all(sample["state"] == "down" for sample in json.loads((tmp_path / "run.json").read_bytes())["samples"])
