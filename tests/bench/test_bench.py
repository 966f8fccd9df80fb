"""The benchmark itself: it must notice what it claims to notice, and leave nothing behind.

Real servers and real processes; nothing here looks at how fast anything is.
"""

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import lines  # noqa: E402
import machines  # noqa: E402
import report  # noqa: E402
from peers import Broadcast  # noqa: E402
from processes import BenchError, Child, Fleet, children_of  # noqa: E402
from streams import BINARY, TEXT, Connection, Frames, NatsMessages  # noqa: E402
from viewers import Probe  # noqa: E402

VIEWERS = [sys.executable, str(HERE / "viewers.py")]
FEEDERS = [sys.executable, str(HERE / "feeders.py")]
DEADLINE = 20.0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.stop_all()


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """A server's frame."""
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return bytes([first]) + size + payload


def test_frames_are_found_wherever_the_stream_is_cut() -> None:
    """Text, a fragmented message with a ping inside, and a long one: the same messages for every place of one cut."""
    stream = frame(b"one") + frame(b"tw", 0x01) + frame(b"!", 0x89) + frame(b"o", 0x80) + frame(b"x" * 300, 0x82)
    expected = [(TEXT, b"one"), (9, b"!"), (TEXT, b"two"), (BINARY, b"x" * 300)]
    for cut in range(len(stream) + 1):
        frames = Frames(deflate=False)
        assert frames.feed(stream[:cut]) + frames.feed(stream[cut:]) == expected


@pytest.mark.parametrize("shared_window", [True, False])
def test_compressed_messages_are_inflated_with_and_without_a_shared_window(shared_window: bool) -> None:
    """A sender that keeps its window and one that forgets it after each message are both readable."""
    frames, packer = Frames(deflate=True), zlib.compressobj(wbits=-15)
    for text in (b"the same words", b"the same words again"):
        if not shared_window:
            packer = zlib.compressobj(wbits=-15)
        packed = (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert frames.feed(frame(packed, 0xC1)) == [(TEXT, text)]


def test_nats_payloads_are_found_wherever_the_stream_is_cut() -> None:
    """Payloads may hold line ends and look like operations; INFO and PING are skipped."""
    stream = b"INFO {}\r\nMSG logs 1 5\r\nMSG\r\n\r\nPING\r\nMSG logs 1 2\r\nok\r\n"
    for cut in range(len(stream) + 1):
        messages = NatsMessages()
        assert messages.feed(stream[:cut]) + messages.feed(stream[cut:]) == [b"MSG\r\n", b"ok"]


def test_a_line_is_counted_once_wherever_the_reads_are_cut() -> None:
    """The marker of a line may lie across two reads, also very short ones; it counts once, and the last one is told."""
    line = lines.json_line(1, time.time_ns(), 7, 0, 0)
    for size in (1, 3, 50, len(line) + 1):
        viewer = object.__new__(Connection)
        viewer.deflate = False
        viewer.begin(3)
        reads = [(line * 3)[at : at + size] for at in range(0, 3 * len(line), size)]
        assert [viewer.count_lines(read, lines.marker(7)) for read in reads].count(True) == 1
        assert viewer.count == 3


def test_every_form_of_a_line_carries_the_same_fields_and_one_marker() -> None:
    """JSON and wire frame should tell the same; the marker is in the JSON once and of another cell never."""
    line = lines.json_line(1, time.time_ns(), 7, 4711, 99)
    assert json.loads(line)["context"] == lines.fields(7, 4711, 99)
    assert (line.count(lines.marker(7)), line.count(lines.marker(77))) == (1, 0)
    assert 230 < len(line) < 300


class Replies:
    """Answers a probe's reads with lines as a server would send them."""

    count = bytes = expected = 0
    ended = ""
    deflate = False

    def __init__(self, numbers: list[tuple[int, int]]) -> None:
        self.frames = Frames(deflate=False)
        self._numbers = numbers
        reader, self._writer = os.pipe()
        self.socket: Any = os.fdopen(reader, "rb")
        self._writer = os.fdopen(self._writer, "wb")
        self._writer.write(b"readable for ever")
        self._writer.flush()

    def begin(self, expected: int) -> None:
        self.expected = expected

    def read(self) -> bytes:
        if not self._numbers:
            self.ended = "all said"
            return b""
        n, seq = self._numbers.pop(0)
        return frame(lines.json_line(seq, time.time_ns(), 1, n, 0))

    def close(self) -> None:
        self.socket.close()
        self._writer.close()


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ([(0, 1), (1, 2), (2, 3)], {}),
        ([(0, 1), (2, 2)], {"disorder": 1, "missing": 1}),
        ([(0, 1), (0, 2), (1, 3)], {"surplus": 1}),
        ([(0, 1), (1, 3), (2, 4)], {"holes": 1}),
        ([(1, 1), (0, 2), (2, 3)], {"disorder": 1, "surplus": 1}),
    ],
    ids=["fine", "a line missing", "a line twice", "an id skipped", "two lines swapped"],
)
def test_the_probe_finds_what_is_wrong(numbers: list[tuple[int, int]], found: dict[str, int]) -> None:
    """Each fault is counted as what it is, and nothing else is."""
    probe, replies = Probe(), Replies(numbers)
    probe._viewer = replies  # type: ignore[assignment]
    said = probe.watch(cell=1, expect=3, limit=DEADLINE, ids=True)
    replies.close()
    assert {key: said[key] for key in ("missing", "surplus", "disorder", "holes") if said[key]} == found


def test_a_crowd_counts_every_line_and_says_how_many_did_not_come(fleet: Fleet, tmp_path: Path) -> None:
    """Three viewers of a real server: all lines are counted; lines that were never sent are missing."""
    server = Broadcast()
    server.start(fleet, tmp_path / "server")
    crowd, feeders = Child(fleet, "crowd", VIEWERS), Child(fleet, "feeders", FEEDERS)
    crowd.ask("open", DEADLINE, port=server.port, paths=["/"] * 3)
    feeders.ask("open", DEADLINE, kind=server.trader, address=server.address, traders=2)
    crowd.tell("count", cell=1, expect=50, limit=DEADLINE)
    feeders.ask("blast", DEADLINE, cell=1, count=50)
    assert crowd.answer(DEADLINE)["lines"] == 150
    crowd.tell("count", cell=2, expect=[5, 5, 6], limit=1.0)
    feeders.ask("pace", DEADLINE, cell=2, count=5, rate=1000)
    counted = crowd.answer(DEADLINE)
    assert (counted["lines"], counted["missing"]) == (15, 1)


def test_a_failing_command_is_an_error_and_the_process_lives_on(fleet: Fleet) -> None:
    """A trader that cannot connect is reported in words; the next command works."""
    feeders = Child(fleet, "feeders", FEEDERS)
    with pytest.raises(BenchError, match="FileNotFoundError"):
        feeders.ask("open", DEADLINE, kind="json", address="/nonexistent/socket")
    assert feeders.ask("close", DEADLINE) == {}


def test_one_command_gives_one_report_and_its_json_can_be_shown_again(tmp_path: Path) -> None:
    """A small real run: a table with figures, exit status 0, and the same figures from the file as Markdown."""
    command = [sys.executable, str(HERE / "fanout.py")]
    small = ["--quick", "--only", "traders", "--servers", "websockets", "--json", str(tmp_path / "run.json")]
    ran = subprocess.run([*command, *small], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, "websockets.broadcast" in ran.stdout) == (0, True), ran.stderr
    again = [*command, "--from", str(tmp_path / "run.json"), "--servers", "websockets", "--markdown"]
    shown = subprocess.run(again, capture_output=True, text=True, timeout=60, check=False)
    assert shown.stdout.startswith("## Numbers of one run\n")
    result = json.loads((tmp_path / "run.json").read_bytes())
    median = report.number(next(s["lines_per_s"] for s in result["samples"] if s["rate"] == 0))
    assert median in ran.stdout
    assert median in shown.stdout


def test_a_server_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    """A relay that cannot be called is named with the reason; the exit status says that it was not measured."""
    command = [sys.executable, str(HERE / "fanout.py"), "--quick", "--only", "traders", "--servers", "logrelay"]
    ran = subprocess.run(
        [*command, "--relay", "false"], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert ran.returncode == 1
    assert "logrelay did not run: false serve" in ran.stdout


def test_ctrl_c_ends_every_process_and_shows_what_there_is() -> None:
    """Interrupted in the middle, it should exit with 130 after a report, and none of its children should be left."""
    command = [sys.executable, str(HERE / "fanout.py"), "--only", "fanout", "--servers", "websockets"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        assert bench.stderr is not None
        for line in bench.stderr:
            if "fanout, 10 viewer(s)" in line:
                break
        children = children_of(bench.pid)
        bench.send_signal(signal.SIGINT)
        said, _ = bench.communicate(timeout=DEADLINE)
    assert len(children) == 4  # the server, the crowd, the probe, the traders
    assert bench.returncode == 130
    assert "interrupted" in said
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_lines_of_an_edge_are_followed_to_a_viewer_of_the_hub_relay(fleet: Fleet, tmp_path: Path) -> None:
    """The section `machines`, small: every line is counted, each process's CPU time and memory is told."""
    pytest.importorskip("nats", reason="nats-py is not installed (pip install '.[nats]' in the checkout)")
    scripts = {"feeders": FEEDERS, "crowd": VIEWERS, "probe": VIEWERS}
    load = {role: Child(fleet, role, command) for role, command in scripts.items()}
    numbers = iter(range(1, 100))
    section = machines.Machines(fleet, tmp_path, load.__getitem__, lambda: next(numbers), DEADLINE)
    if why := section.missing():
        pytest.skip(why)
    samples = section.measure(lone=3, live=500, backlog=700, say=lambda _: None)
    assert [(one["cell"], one["lines"], one["faults"]) for one in samples] == [
        *(("lone", 3, ""), ("live", 500, ""), ("backlog", 700, ""), ("rebuild", 700, "")),
    ]
    assert len(samples[0]["latencies_us"]) == 3
    assert [sorted(one["cpu_us"]) for one in samples] == [["edge", "hub", "nats"]] * 3 + [["hub", "nats"]]
    [table] = report.machines(samples)
    assert [row[0] for row in table.rows] == ["3", "500", "700", "700"]
