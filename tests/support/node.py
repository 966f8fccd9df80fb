"""Programs in Node.js: the packages of npm that they need, and what they say.

Owns: `packages`, which finds or fetches packages, and `Program`, a script that runs until it is ended. It must not know
what the script is about. Read `waiting` next.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.threads import join
from tests.support.waiting import DEADLINE_S, wait_for

INSTALL_S = 2 * DEADLINE_S
"""The longest that npm may take to fetch some small packages."""

PACKAGES = {"ws": "8", "reconnecting-websocket": "4"}
"""What may be asked for, with the major version."""


def packages(*names: str) -> Path:
    """Return a folder whose `node_modules` has the packages, fetched once. Skips where they are not to be had.

    One process of tests at a time looks and fetches: what another one is fetching is not whole yet.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logrelay-tests"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [name for name in names if not (folder / "node_modules" / name / "package.json").exists()]
        if missing:
            _fetch(folder, missing)
    return folder


def _fetch(folder: Path, missing: list[str]) -> None:
    wanted = [f"{name}@{major}" for name, major in PACKAGES.items()]
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not fetch {' '.join(missing)} in {INSTALL_S:g} s")
    if done.returncode != 0:
        pytest.skip(f"npm could not fetch {' '.join(missing)}: {done.stderr.strip()[-160:]}")


class Program:
    """A script in Node.js that writes JSON objects, one a line; it is ended with `end`."""

    def __init__(self, script: Path, *arguments: str, prefix: list[str] | None = None) -> None:
        command = [*(prefix or []), "node", str(script), *arguments]
        self.said: list[dict[str, object]] = []
        """What it has written so far."""
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def tell(self, **message: object) -> None:
        """Write one JSON object to its stdin."""
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something that it says; fail when it ends before."""

        def found() -> bool:
            ended = self.process.poll() is not None
            if ended:
                join(self._reader)  # its last words
            held = bool(condition())
            assert held or not ended, f"it ended with {self.process.returncode}, and not {what}"
            return held

        wait_for(found, what)

    def end(self) -> None:
        """End it whatever its state."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        join(self._reader)
        self.process.stdin.close()
        self.process.stdout.close()
