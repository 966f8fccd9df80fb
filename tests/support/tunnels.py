"""A tunnel between a trader and the relay: socat from one Unix socket to another, which can be frozen.

Owns: `Tunnel` and the skip where socat is not installed. Frozen is what a tunnel is whose network is dead: connections
to it are taken by the kernel and stay open, nothing goes through. Read `waiting` next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_S, wait_for

LISTENS = "00010000"
"""What /proc/net/unix has among its flags (__SO_ACCEPTCON) of a socket that listens, and is not only bound."""

SOCAT = shutil.which("socat")

needs_socat = pytest.mark.skipif(SOCAT is None, reason="socat is not installed (apt-get install socat)")


class Tunnel:
    """Takes connections at `path` and carries their bytes to the socket `target`; a process group of its own."""

    def __init__(self, path: Path | str, target: Path | str) -> None:
        self.path, self.target = str(path), str(target)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Tunnel:
        """Start socat, and wait until it listens."""
        listen = f"UNIX-LISTEN:{self.path},fork,unlink-early"
        self.process = subprocess.Popen(
            [SOCAT, listen, f"UNIX-CONNECT:{self.target}"],
            start_new_session=True,  # the children, one for each connection, are in its group
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._listens, "socat to listen")
        return self

    def _listens(self) -> bool:
        """Tell whether this socat listens there: one that was just ended may be listed there, too."""
        rows = (row.split() for row in Path("/proc/net/unix").read_text().splitlines())
        listening = {f"socket:[{row[6]}]" for row in rows if row[7:] == [self.path] and row[3] == LISTENS}
        held = set()
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(os.readlink(fd))
        return bool(listening & held)

    def freeze(self) -> None:
        """Stop all of it, as it is; when this returns nothing goes through any more."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        wait_for(self._stands_still, "socat to stand still")

    def _stands_still(self) -> bool:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        states = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[0] for one in (pid, *children)]
        return not set(states) - set("TZ")

    def thaw(self) -> None:
        """Let it go on with what it has."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def replace(self) -> None:
        """Have another socat at the same place; connections of this one end, what is in it is lost."""
        self.end()
        self.start()

    def end(self) -> None:
        """End all of it whatever its state."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(DEADLINE_S)
            self.process = None
