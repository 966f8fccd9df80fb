"""What a line that comes alone costs the real relay, as the kernel counts it: system calls, and how often it sleeps.

Counted and not timed, so that other work on the machine changes little; where it does (a commit that is slow sends the
next ones back to the journal's thread), the best stretch counts, and a stretch without such work is waited for.
`perf` counts without disturbing, else `strace`; where neither may look at the relay, the calls are not counted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import msgpack
import pytest

from tests.support.stillness import Stillness
from tests.support.waiting import DEADLINE_S, wait_for

MOST_CALLS = 8.0
"""For a line at 50/s with one viewer, five of them at present. It was 31 to 34 when two threads took turns, and 14 when
each line was a transaction."""
MOST_SWITCHES = 1.9
"""Times that a thread goes to sleep; half of what it was."""
LINES, LINES_PER_S = 50, 50
QUIET_STRETCHES = 8
"""So many stretches that were not disturbed have to be beyond the bounds before the relay is taken to be."""
QUIET_S = 0.02
"""A stretch in which this process did not run for longer was disturbed: a commit that takes so long is a slow one."""


class Bot:
    """Speaks the wire protocol, a line at a time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        hello = {"protocol": 1, "run": b"l" * 16, "app": "bot", "host": "box", "pid": 1, "started_ns": 0}
        self.socket.sendall(msgpack.packb([0, hello]))
        self.seq = 0

    def log(self, lines):
        for _ in range(lines):
            self.seq += 1
            event = {"event": "trade.executed", "logger": "bot.runner", "symbol": "AAPL", "quantity": 100}
            self.socket.sendall(msgpack.packb([1, self.seq, time.time_ns(), "info", event]))
            time.sleep(1 / LINES_PER_S)  # the pace is what is measured


def traces(counter, pid):
    return counter.poll() is not None or "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()


def counts(counter, _pid):
    """Tell whether perf has its events, and waits."""
    place = Path(f"/proc/{counter.pid}")
    try:
        events = [fd for fd in (place / "fd").iterdir() if "perf_event" in os.readlink(fd)]
        return counter.poll() is not None or (
            events and (place / "stat").read_text().rpartition(")")[2].split()[0] == "S"
        )
    except OSError:
        return counter.poll() is not None


LOOKS = {"perf": counts, "strace": traces}


COUNTERS = {
    "perf": ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter"],
    "strace": ["strace", "-f", "-qq", "-c", "-U", "calls,name"],
}
"""The first one that is there and may look counts."""


def count_calls(pid, work, out: Path, counters=tuple(COUNTERS)):
    """Return the system calls of a process during `work()`; None where nothing here can count them."""
    for name in counters:
        if shutil.which(name) is None:
            continue
        out.unlink(missing_ok=True)
        counter = subprocess.Popen(
            [*COUNTERS[name], "-o", str(out), "-p", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(partial(LOOKS[name], counter, pid), "it looks, or ends")
            work()
        finally:
            counter.send_signal(signal.SIGINT)
            counter.wait()
        text = out.read_text() if out.exists() else ""
        found = re.search(r"^(\d+),", text, re.MULTILINE) or re.search(r"^\s*(\d+)\s+total", text, re.MULTILINE)
        if found and int(found[1]):
            return int(found[1])
    return None


def sleeps(pid):
    """Return how often the threads of a process have gone to sleep."""
    texts = []
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            texts.append(path.read_text())
    return sum(int(re.search(r"^voluntary_ctxt_switches:\t(\d+)", text, re.MULTILINE)[1]) for text in texts)


CALLER = """
import os, sys
while sys.stdin.buffer.raw.read(1):
    for _ in range(500):
        os.getppid()
    os.write(1, b"x")
"""


def test_each_counter_counts_what_was_called(tmp_path):
    """On a process that makes a known number of calls: whichever is used here, the bounds mean the same."""
    with subprocess.Popen([sys.executable, "-c", CALLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def call():
            process.stdin.write(b"x")
            process.stdin.flush()
            assert process.stdout.read(1) == b"x"

        call()
        counted = {name: count_calls(process.pid, call, tmp_path / "calls", [name]) for name in COUNTERS}
        process.stdin.close()
    able = {name: calls for name, calls in counted.items() if calls is not None}
    if not able:
        pytest.skip("neither perf nor strace is installed and may look at a process here")
    assert all(500 <= calls <= 520 for calls in able.values()), able


def test_a_lone_line_is_cheap(scene, tmp_path):
    """One viewer, one bot, 50 lines/s, the journal on disk and every line acked."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    bot = Bot(relay.socket)
    with bot.socket:
        bot.log(LINES)
        fewest_calls = fewest_sleeps = float("inf")
        quiet, end = 0, time.monotonic() + 2 * DEADLINE_S
        while quiet < QUIET_STRETCHES and time.monotonic() < end:
            before = sleeps(relay.process.pid)
            with Stillness() as still:
                calls = count_calls(relay.process.pid, lambda: bot.log(LINES), tmp_path / "calls")
            fewest_sleeps = min(fewest_sleeps, (sleeps(relay.process.pid) - before) / LINES)
            quiet += still.longest_s < QUIET_S
            if calls is None:  # not to be had here, or not this time
                continue
            fewest_calls = min(fewest_calls, calls / LINES)
            if fewest_calls <= MOST_CALLS and fewest_sleeps <= MOST_SWITCHES:
                break
        wait_for(lambda: len([got for got in viewer.lines if b"trade.executed" in got.raw]) == bot.seq, "all are shown")
    if fewest_calls == float("inf"):
        pytest.skip("neither perf nor strace may look at a process here")
    assert fewest_calls <= MOST_CALLS
    assert fewest_sleeps <= MOST_SWITCHES
