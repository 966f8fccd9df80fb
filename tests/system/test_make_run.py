"""`make run` on a real terminal: relay and paper trader side by side, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.terminal import Terminal
from tests.support.waiting import DEADLINE_S, wait_for

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CTRL_C = b"\x03"

WIDE = 200
"""Columns: what is looked for should not be cut by the terminal."""


@pytest.fixture
def arguments(tmp_path):
    """The arguments that make `make` use the installation under test, without installing anything."""
    for command in (shutil.which("make"), BIN / "logrelay"):
        if command is None or not Path(command).exists():
            pytest.skip(f"{command or 'make'} is not installed; `make test` installs it")
    (tmp_path / "ready").touch()
    return [f"BIN={BIN}", f"READY={tmp_path / 'ready'}"]


@pytest.fixture
def environ(tmp_path):
    """The caller's environment without settings, and without what `make test` leaves for another make."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LOGRELAY_", "MAKE", "MFLAGS"))}
    return clean | {"LOGRELAY_PORT": "0", "TMPDIR": str(tmp_path)}


@pytest.fixture
def terminal(environ, tmp_path):
    opened = []

    def start(*command, **more):
        opened.append(Terminal(command, environ | more, ROOT, columns=WIDE))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
    for home in tmp_path.glob("logrelay-run.*"):  # what a failed test left
        for pid in processes_of(home):
            os.kill(pid, signal.SIGKILL)


def processes_of(directory):
    """Every process that was started for a run in `directory`, told by its environment: pid and command."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"LOGRELAY_SOCKET={directory}/".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    return found


def logs(url, query):
    with urllib.request.urlopen(f"{url}logs?{query}", timeout=DEADLINE_S) as answer:
        return [line for line in map(json.loads, answer) if line["source"] != "logrelay"]  # without notices


def test_ctrl_c_ends_relay_and_trader_cleanly(arguments, terminal, tmp_path):
    """Both should run, the printed URL should show the trader's lines, and Ctrl-C should leave nothing, with 0."""
    run = terminal("make", "run", *arguments)
    url = run.wait_for(r"browser +(http://localhost:\d+/)$")[1]
    assert run.wait_for(r"terminal +npx wscat -c (ws://\S+)$")[1] == url.replace("http", "ws").rstrip("/")
    run.wait_for(rf"/logrelay tail {url.replace('http', 'ws').rstrip('/')}$")
    run.wait_for(r"^relay  \| .*ready")
    run.wait_for(r"^trader \| ")
    lines = wait_for(lambda: logs(url, "source=robo_trader*&limit=5"), lambda: f"lines behind:\n{run.shown}")
    assert lines[0]["source"].startswith("robo_trader")
    run.wait_for(r"^trader \| \x1b\[")  # a terminal gets colours, though the trader writes into a pipe
    (home,) = tmp_path.glob("logrelay-run.*")
    assert len([p for p in processes_of(home).values() if "serve" in p or "-m robo_trader" in p]) >= 2

    run.type(CTRL_C)

    assert run.wait() == 0, run.shown
    assert processes_of(home) == {}
    assert not home.exists()
    assert "Traceback" not in run.shown
    assert "make: ***" not in run.shown


def test_a_port_in_use_is_said_and_nothing_is_left(arguments, terminal, tmp_path):
    """When another program has the port, the relay's own words should be shown and the command should fail."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run = terminal("make", "run", *arguments, f"PORT={port}", NO_COLOR="1")
        code = run.wait()

    assert code == 2
    assert re.search(rf"^relay  \| logrelay: .*port {port}", run.shown, re.MULTILINE), run.shown
    assert "the relay did not start (exit code 3)" in run.shown
    assert "make run: with another port it may: make run PORT=9000" in run.shown
    assert not list(tmp_path.glob("logrelay-run.*"))


def test_a_port_that_is_none_is_called_what_was_typed(arguments, terminal, tmp_path):
    """The word PORT was typed, and not the variable that the relay takes it from."""
    run = terminal("make", "run", *arguments, "PORT=abc", NO_COLOR="1")
    assert run.wait() == 2
    assert "make run: PORT is 'abc'; allowed: a whole number from 0 to 65535" in run.shown
    assert not list(tmp_path.glob("logrelay-run.*"))


def test_a_terminal_that_goes_away_ends_both(arguments, terminal, tmp_path):
    """Closing the window should end relay and trader too."""
    run = terminal("make", "run", *arguments)
    run.wait_for(r"^trader \| ")
    (home,) = tmp_path.glob("logrelay-run.*")
    run.hang_up()
    wait_for(lambda: not processes_of(home), lambda: f"the end of {processes_of(home)}")


def test_make_alone_lists_every_target_with_a_description(environ):
    """A newcomer who types `make` should see what there is, and nothing should be done."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shown = subprocess.run(["make"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()

    assert [line.split()[1] for line in shown.splitlines()] == targets


def test_setup_does_nothing_the_second_time(arguments, environ):
    """With everything installed, `make setup` should not run a single command."""
    done = subprocess.run(
        ["make", "setup", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )

    assert "Nothing to be done" in done.stdout
