"""The commands of the terminal, in a home of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import SHOWN, Commit, Line, Run
from tests.support.terminal import Terminal
from tests.support.waiting import DEADLINE_S

ROOT = Path(__file__).parents[3]
T0_US = 1_769_162_400_000_000
"""2026-01-23T10:00:00Z."""


@pytest.fixture
def home(tmp_path):
    """A home directory, where the journal has its usual place."""
    return tmp_path


@pytest.fixture
def environ(home):
    """An environment without settings, whose default places are below the home; no relay is at its port."""
    others = ("LOGRELAY_", "XDG_", "NO_COLOR", "COLUMNS", "LINES")  # pytest's workers say how wide they think they are
    clean = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    # `STATE_DIRECTORY` keeps root from meaning an installed relay.
    return clean | {
        "HOME": str(home), "XDG_STATE_HOME": f"{home}/.local/state", "XDG_RUNTIME_DIR": str(home), "TZ": "UTC",
        "PYTHONPATH": str(ROOT), "TERM": "xterm", "LOGRELAY_PORT": "1",
    }  # fmt: skip


@pytest.fixture
def cli(environ, home):
    """Run a command to its end."""

    def run(*arguments, **more):
        return subprocess.run(
            [sys.executable, "-m", "logrelay", *map(str, arguments)],
            env=environ | more, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=2 * DEADLINE_S,  # `send` waits that long by itself
        )  # fmt: skip

    return run


@pytest.fixture
def start(environ, home):
    """Start a command whose stdout and stderr are pipes; it is ended with the test."""
    started = []

    def begin(*arguments, **more):
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "logrelay", *map(str, arguments)],
                env=environ | more, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True,
            )
        )  # fmt: skip
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def on_terminal(environ, home):
    """Start a command in front of a terminal; it is ended with the test."""
    opened = []

    def begin(*arguments, columns=80, program=("-m", "logrelay"), **more):
        command = [sys.executable, *program, *map(str, arguments)]
        opened.append(Terminal(command, environ | more, home, columns))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


def made_line(seq, level, app, source, message, **context):
    """Make a line as the relay makes it."""
    run = {"my_bot": 1, "backup": 2}[app]
    shape = {
        "type": "log", "id": f"abc123-{seq}", "level": SHOWN[level], "source": source, "message": message,
        "context": context, "timestamp": f"2026-01-23T10:00:{seq:02d}.000000Z", "app": app, "run": f"{run:032x}",
    }  # fmt: skip
    time_us = T0_US + seq * 1_000_000
    return Line(seq, time_us, level, source, run, orjson.dumps(shape), message, context, app)


@pytest.fixture
def journal(home):
    """A journal at its usual place, with five lines of two bots; nobody has it open."""
    path = home / ".local" / "state" / "logrelay" / "journal.db"
    one = SqliteJournal(str(path), now_us=lambda: T0_US, random_epoch=lambda: "abc123")
    one.open()
    lines = [
        made_line(1, 20, "my_bot", "trader", "engine.started", cash=100000),
        made_line(2, 20, "my_bot", "trader", "trade.executed", symbol="AAPL", quantity=10),
        made_line(3, 20, "my_bot", "trader", "trade.executed", symbol="MSFT", quantity=20),
        made_line(4, 40, "my_bot", "broker", "order.rejected", symbol="AAPL", reason="margin call"),
        made_line(5, 20, "backup", "backup", "done", files=120),
    ]
    last_us = T0_US + 5_000_000
    runs = [
        Run(1, b"\1" * 16, "my_bot", "box", 1, 1, 4, last_us - 1_000_000, "crashed", last_us),
        Run(2, b"\2" * 16, "backup", "box", 2, 1, 1, last_us, "closed", last_us),
    ]
    one.append(Commit(lines, runs))
    one.close()
    return path
