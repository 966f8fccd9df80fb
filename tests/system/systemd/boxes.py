"""A throw-away machine with systemd as process 1 and the relay's program installed, see box.sh.

It needs root, overlayfs and a writable cgroup2.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_S, wait_for

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
UNITS = ROOT / "logrelay" / "units"
BOX = HERE / "box.sh"
SYSTEM_PYTHON = "/usr/bin/python3"
"""Services run as users that may not look below /root, where other interpreters tend to be."""
LOGRELAY = "/opt/logrelay/venv/bin/logrelay"

PREPARE = """#!/bin/bash
set -e
mkdir -p "$1/opt/logrelay" "$1/opt/robo-trader"
cp -a {venv} "$1/opt/logrelay/venv"
cp -a {root}/robo_trader "$1/opt/robo-trader/"
ln -s /opt/logrelay/venv "$1/opt/robo-trader/.venv"
grep -rlI --include='*' '^#!{venv}/' "$1/opt/logrelay/venv/bin" | xargs sed -i '1s|{venv}|/opt/logrelay/venv|'
cp {root}/logrelay/units/logrelay.sysusers "$1/opt/logrelay/"
{more}
"""
"""Runs outside, with the new root as its argument. What the box needs of the checkout is copied: that may lie
below /tmp, which is a file system of its own inside."""

COMMAND_S = 4 * DEADLINE_S
"""For one command: an installation waits for systemd itself, longer than a test waits for one thing, and pip or the
start of a box are many steps in one."""

SLOW = {
    "service": f"TimeoutStartSec={COMMAND_S:.0f}\nTimeoutStopSec={COMMAND_S:.0f}\n",
    "logrelay.service": f"WatchdogSec={COMMAND_S:.0f}\n",
}
"""What the units allow on a machine that stands still now and then: systemd would kill there, and count it. Their names
put these before every other drop-in, so that a test of a time can set its own."""


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, **more)


def why_no_box():
    """Return what is missing for a box on this machine, or None."""
    if os.geteuid() != 0:
        return "a box needs root"
    for program in ("/lib/systemd/systemd", "unshare", "nsenter", "setpriv", "ip", SYSTEM_PYTHON):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlayfs"
    if not re.search(r"^\S+ \S+ cgroup2 rw", Path("/proc/mounts").read_text(), re.MULTILINE):
        return "there is no writable cgroup2"
    if run(SYSTEM_PYTHON, "-c", "import ensurepip").returncode != 0:
        return "the system's Python has no venv module (python3-venv)"
    return None


class Box:
    def __init__(self, directory):
        self.directory = directory

    def done(self, *command, **more):
        """Run a command; return what became of it, whatever that is."""
        return run(str(BOX), "run", str(self.directory), *command, **more)

    def __call__(self, *command, check=True):
        done = self.done(*command)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def popen(self, *command, **more):
        return subprocess.Popen(
            [str(BOX), "run", str(self.directory), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more,
        )  # fmt: skip

    def journal(self):
        self.done("journalctl", "--sync")  # journald takes what it is given in its own time
        return self.done("journalctl", "--no-pager", "-n60", "-u*logrelay*", "-urobo*").stdout

    def show(self, unit, name):
        return self("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def until(self, what, check):
        return wait_for(check, lambda: f"{what}:\n{self.journal()}")

    def path(self, inside):
        return f"/proc/{(self.directory / 'manager').read_text().strip()}/root{inside}"

    def write(self, inside, text, mode=0o644):
        path = Path(self.path(inside))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def get(self, target, port=8765):
        """GET from the relay in the box, with the box's own Python."""
        url = f"http://127.0.0.1:{port}{target}"
        code = f"import urllib.request as u; print(u.urlopen({url!r}, timeout={DEADLINE_S}).read().decode())"
        return self(SYSTEM_PYTHON, "-c", code, check=False)

    def lines(self, query):
        """Lines as GET /logs gives them, notices included."""
        return [json.loads(line) for line in self.get(f"/logs?{query}").splitlines() if line]

    def traded(self, query="limit=100"):
        """Lines of the trader alone."""
        return [line for line in self.lines(f"source=robo_trader*&{query}") if line["source"] != "logrelay"]


@contextlib.contextmanager
def new_box(more=""):
    """Boot a box; `more` is shell that prepares its root, `$1`. Skips where none can be had.

    BOX_DIR names a box that was started before, for who writes a test and does not want to wait.
    """
    if os.environ.get("BOX_DIR"):
        yield Box(Path(os.environ["BOX_DIR"]))
        return
    missing = why_no_box()
    if missing:
        pytest.skip(missing)
    # Not below /tmp: that is a file system of its own inside the box.
    home = Path(run("mktemp", "-d", "/var/tmp/logrelay-box.XXXXXX").stdout.strip())
    try:
        venv = home / "venv"
        run(SYSTEM_PYTHON, "-m", "venv", str(venv), check=True)
        pip = [f"{venv}/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        installed = run(*pip, f"{ROOT}[bot]")
        if installed.returncode != 0:
            pytest.skip(f"logrelay cannot be installed for {SYSTEM_PYTHON}: {installed.stderr[-300:]}")
        prepare = home / "prepare"
        prepare.write_text(PREPARE.format(venv=venv, root=ROOT, more=more))
        prepare.chmod(0o755)
        state = home / "box"
        state.mkdir()
        try:
            started = run(
                str(BOX), "start", str(state), str(prepare), env=os.environ | {"BOX_LIMIT_S": f"{COMMAND_S:.0f}"}
            )
            assert started.returncode == 0, started.stdout + started.stderr  # with the log of the box, if there is one
            box = Box(state)
            for unit, text in SLOW.items():
                box.write(f"/run/systemd/system/{unit}.d/00-slow.conf", f"[Service]\n{text}")
            box("systemctl", "daemon-reload")
            yield box
        finally:
            run(str(BOX), "stop", str(state))
    finally:
        shutil.rmtree(home, ignore_errors=True)
