"""The directory of the alerts' file while the journal is in memory: private, and gone with its relay."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

from logrelay.alerts.runtime_file import RuntimeDirectory
from tests.support.chaos.relay import ROOT

OTHER_RELAY = """
import os, sys
from logrelay.alerts.runtime_file import RuntimeDirectory
print(RuntimeDirectory(os.environ).store, flush=True)
sys.stdin.read()
"""


def test_it_is_private_and_removed_with_what_is_in_it(tmp_path):
    place = RuntimeDirectory({"RUNTIME_DIRECTORY": f"{tmp_path}:/elsewhere"})
    (directory,) = tmp_path.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert place.store.startswith(f"{directory}/")
    (directory / "alerts-wal").write_text("x")
    place.remove()

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_relay_left_behind_is_removed_and_what_a_living_one_has_is_not(tmp_path):
    environ = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "RUNTIME_DIRECTORY": ""}
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_RELAY], cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other.stdin, other.stdout:
        theirs = os.path.dirname(other.stdout.readline().decode().strip())
        RuntimeDirectory(environ).remove()
        assert os.path.isdir(theirs)
        other.kill()
        other.wait()
        RuntimeDirectory(environ).remove()

    assert not os.path.exists(theirs)
