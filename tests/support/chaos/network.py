"""A network between this machine and another one, which can be cut: a namespace with a cable to it.

Owns: `Network`. It must not know who is at its ends. Read `waiting` next.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess

import pytest

from tests.support.waiting import DEADLINE_S


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def _hold_number() -> tuple[socket.socket, int]:
    """Take a number that no other process of tests has: a name without a file, which lasts as long as its socket."""
    for number in range(1, 251):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0logrelay-tests-network-{number}")
        except OSError:
            name.close()
            continue
        return name, number
    raise AssertionError("every network of the tests is in use")


class Network:
    """A cable between `near`, an address of this machine, and a network namespace, in which `inside` runs commands.

    Cut, packets are lost in both directions without a word, as with a phone that has left the house.
    """

    used = 0

    def __init__(self) -> None:
        Network.used += 1
        self._held, number = _hold_number()
        self.name = f"lr{os.getpid() % 100_000}n{Network.used}"
        self._far = f"{self.name}f"
        self.near, far = f"10.213.{number}.1", f"10.213.{number}.2"
        self.inside = ["ip", "netns", "exec", self.name]
        if shutil.which("ip") is None or _run("ip", "netns", "add", self.name).returncode != 0:
            self._held.close()
            pytest.skip("a network namespace cannot be made here")
        commands = [
            ["ip", "link", "add", self.name, "type", "veth", "peer", "name", self._far, "netns", self.name],
            ["ip", "addr", "add", f"{self.near}/30", "dev", self.name],
            ["ip", "link", "set", self.name, "up"],
            [*self.inside, "ip", "addr", "add", f"{far}/30", "dev", self._far],
            [*self.inside, "ip", "link", "set", self._far, "up"],
        ]
        for command in commands:
            done = _run(*command)
            if done.returncode != 0:
                self.end()
                pytest.skip(f"a network cannot be made here: {done.stderr.strip()}")

    def cut(self) -> None:
        """Lose every packet from now on."""
        assert _run(*self.inside, "ip", "link", "set", self._far, "down").returncode == 0

    def mend(self) -> None:
        """Carry packets again."""
        assert _run(*self.inside, "ip", "link", "set", self._far, "up").returncode == 0

    def end(self) -> None:
        """Take it away; processes inside have to have ended."""
        _run("ip", "netns", "del", self.name)
        _run("ip", "link", "del", self.name)
        self._held.close()
