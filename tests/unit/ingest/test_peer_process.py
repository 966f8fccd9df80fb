"""The process behind a connection: real ones, that connect, end and are recognised or not."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from logrelay.ingest import peer_process as module
from logrelay.ingest.peer_process import PeerProcess, ProcessTable, peer_groups, peer_pid, peer_user, process_of
from logrelay.model import UNKNOWN_UID
from tests.support.waiting import DEADLINE_S, wait_for

CONNECT = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sys.stdin.read()
"""


@pytest.fixture
def peer(tmp_path):
    """Return a process and the accepted end of the connection that it has made."""
    path = str(tmp_path / "s")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(DEADLINE_S)
        child = subprocess.Popen([sys.executable, "-c", CONNECT, path], stdin=subprocess.PIPE)
        try:
            sock, _ = listener.accept()
            with sock:
                yield child, sock
        finally:
            child.kill()
            child.communicate()


def test_a_process_is_known_and_its_end_is_seen(peer):
    """Also while it is a zombie, whose pid is still taken."""
    child, sock = peer
    process = process_of(sock, child.pid, time.time_ns())
    assert process.pid == peer_pid(sock) == child.pid
    assert process.is_running()
    os.kill(child.pid, 9)
    wait_for(lambda: not process.is_running())
    process.close()
    process.close()
    assert process.fileno() == -1


def test_a_process_that_hello_does_not_name_is_not_the_trader(peer):
    """The end of a tunnel: who connected is not who logs."""
    child, sock = peer
    assert process_of(sock, child.pid + 1, time.time_ns()) is None
    assert process_of(sock, 0, time.time_ns()) is None


def test_a_process_in_a_pid_namespace_of_its_own_is_known(peer, monkeypatch):
    """A bot in a container on this machine says the number that it has there."""
    child, sock = peer
    monkeypatch.setattr(module, "_innermost_pid", lambda pid: {child.pid: 7}[pid])
    with closing(process_of(sock, 7, int((module._began_s(child.pid) + 1) * 1e9))) as process:
        assert process.pid == child.pid


def test_a_process_of_another_age_in_a_namespace_is_not_the_trader(peer, monkeypatch):
    """Both are the first process of a container: a tunnel on this machine, and a bot on another one."""
    child, sock = peer
    monkeypatch.setattr(module, "_innermost_pid", lambda _: 1)
    began_s = module._began_s(child.pid)
    for age_s, known in ((-10, False), (-1, True), (59, True), (61, False), (3_600, False)):
        process = process_of(sock, 1, int((began_s + age_s) * 1e9))
        assert (process is not None) == known, age_s
        if process is not None:
            process.close()
    monkeypatch.setattr(module, "_began_s", lambda _: None)
    assert process_of(sock, 1, time.time_ns()) is None, "its age cannot be known"


def test_the_innermost_pid_is_read_from_proc():
    assert module._innermost_pid(os.getpid()) == os.getpid()
    assert module._innermost_pid(2**30) == 0


def test_an_older_kernel_is_asked_for_the_pid(peer, monkeypatch):
    """By number, and only if the process is as old as the run: another may have the number by now."""
    child, sock = peer
    monkeypatch.setattr(module, "_SO_PEERPIDFD", 12_345)
    with closing(process_of(sock, child.pid, time.time_ns())) as process:
        assert process.is_running()
    assert process_of(sock, child.pid, time.time_ns() - 3_600 * 10**9) is None
    assert module._began_s(child.pid) == pytest.approx(time.time(), abs=DEADLINE_S)
    assert module._began_s(2**30) is None


def test_without_descriptors_nothing_is_known(peer, monkeypatch):
    child, sock = peer

    def fail(*_):
        raise OSError(24, "no descriptor left")

    monkeypatch.setattr(module, "_SO_PEERPIDFD", 12_345)
    monkeypatch.setattr(os, "pidfd_open", fail)
    assert process_of(sock, child.pid, time.time_ns()) is None
    monkeypatch.delattr(os, "pidfd_open")
    assert process_of(sock, child.pid, time.time_ns()) is None, "no Linux"


def held(child):
    return PeerProcess(child.pid, os.pidfd_open(child.pid))


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)


def test_the_table_reports_each_end_once():
    """And closes what it was given, whatever becomes of it."""
    children = [sleeper() for _ in range(3)]

    async def scenario():
        loop, died = asyncio.get_running_loop(), asyncio.Queue()
        table = ProcessTable(died.put_nowait, loop=loop, limit=2)
        first, second, other = map(held, children)
        table.watch(b"1", first)
        assert not table.is_full
        table.watch(b"2", second)
        assert (len(table), table.is_full) == (2, True)
        table.forget(b"2")
        assert (len(table), second.fileno()) == (1, -1)
        for child in children[:2]:
            child.kill()
        async with asyncio.timeout(DEADLINE_S):
            assert await died.get() == b"1"
        assert (len(table), first.fileno(), died.empty()) == (0, -1, True)
        table.watch(b"3", other)
        table.close()
        assert (len(table), other.fileno()) == (0, -1)

    try:
        asyncio.run(scenario())
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_the_kernel_says_user_and_groups():
    """Of a socket that is no Unix socket it does not, and nothing is raised."""
    one, two = socket.socketpair(socket.AF_UNIX)
    with one, two:
        assert peer_user(one) == (os.geteuid(), os.getegid())
        assert peer_groups(one) >= frozenset(os.getgroups())
    with socket.socket() as tcp:
        assert peer_groups(tcp) == frozenset()
        assert peer_user(tcp) in {(UNKNOWN_UID, UNKNOWN_UID), (2**32 - 1, 2**32 - 1), (-1, -1)}
    assert peer_user(one) == (UNKNOWN_UID, UNKNOWN_UID)
