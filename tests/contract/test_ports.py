"""What tests/support/ports.py promises to the tests that restart a server."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.support import ports
from tests.support.ports import BLOCK, PORTS, free_port
from tests.support.waiting import DEADLINE_S

MANY = BLOCK + 5


@pytest.fixture
def fresh(monkeypatch):
    """Let this process begin as one that has no port yet."""
    held = []
    monkeypatch.setattr(ports, "_held", held)
    monkeypatch.setattr(ports, "_given", [])
    monkeypatch.setattr(ports, "_used", 0)
    yield held
    for name in held:
        name.close()


def elsewhere() -> subprocess.Popen[str]:
    """Start a process of tests that takes many ports, says which, and keeps them until its input ends."""
    code = f"""
import sys
from tests.support.ports import free_port
print(*(free_port() for _ in range({MANY})), flush=True)
sys.stdin.read()
"""
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_no_two_processes_get_the_same_port(fresh):
    """Also beyond one block, and though nobody listens there."""
    others = [elsewhere() for _ in range(3)]
    try:
        theirs = [int(port) for other in others for port in other.stdout.readline().split()]
        ours = [free_port() for _ in range(MANY)]
    finally:
        for other in others:
            other.communicate(timeout=DEADLINE_S)
    assert len({*theirs, *ours}) == 4 * MANY
    assert all(port in PORTS for port in (*theirs, *ours))
    assert len(fresh) == 2


def test_a_port_that_somebody_listens_on_is_left_out(fresh):
    """By a program that is no test."""
    first = free_port()
    with socket.create_server(("127.0.0.1", first + 1)):
        assert free_port() == first + 2
