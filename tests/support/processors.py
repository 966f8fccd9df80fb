"""Fixtures for the trader side: a relay end in a thread or in a process, and processors that are closed afterwards."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support import waiting
from tests.support import wire_peer as peers

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


SCALE = int(os.environ.get("LOG_RELAY_SCALE", "1"))
"""Multiplies the counts of the tests that take long; 10 for a nightly run."""


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """No test finds a real relay or is switched off by the caller's environment."""
    for name in ("LOGRELAY_SOCKET", "LOGRELAY_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """A relay end that stands still for a while is neither told of nor given up, nor is a file left to the next look.

    A busy machine is no dead tunnel. The tests of those times set them.
    """
    monkeypatch.setattr("robo_trader.log_relay.sender.WELCOME_TIMEOUT_S", 10 * waiting.DEADLINE_S)
    monkeypatch.setattr("robo_trader.log_relay.keepalive.PATIENCE_FIRST_S", 10 * waiting.DEADLINE_S)
    monkeypatch.setattr("robo_trader.log_relay.spool_recovery.ANSWER_S", waiting.DEADLINE_S)


@pytest.fixture
def scale():
    """How many times longer than in CI (environment variable LOG_RELAY_SCALE)."""
    return SCALE


@pytest.fixture
def wait_for():
    """Wait until a condition is true, with a deadline."""
    return waiting.wait_for


@pytest.fixture
def sock():
    """A short path for a socket, in a directory of its own."""
    folder = tempfile.mkdtemp(prefix="lr", dir="/tmp")
    yield os.path.join(folder, "s")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_peer(sock):
    """Make relay ends in threads, at the test's socket unless told otherwise; all are stopped at the end."""
    made = []

    def make(path=sock, **options):
        peer = peers.Peer(path, **options)
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.stop()


@pytest.fixture
def peer(make_peer):
    """A relay end that runs, with nothing to complain about at the end of the test."""
    peer = make_peer().start()
    yield peer
    assert peer.complaints == []


@pytest.fixture
def peer_process(sock, tmp_path):
    """A relay end in a process of its own; not started. Killed at the end."""
    process = peers.PeerProcess(sock, tmp_path / "journal")
    yield process
    process.kill()


@pytest.fixture
def ship(sock):
    """Make processors for the test's socket; they are closed at the end. Defaults: every level, short exit."""
    from robo_trader.log_relay import LogRelayProcessor  # noqa: PLC0415

    made = []

    def make(socket=sock, **options):
        processor = LogRelayProcessor(socket, **{"level": "debug", "exit_timeout": 0.5, "app": "test"} | options)
        made.append(processor)
        return processor

    yield make
    for processor in made:
        processor.close(0.0)
    for processor in made:
        waiting.wait_for(lambda sender=processor._sender: not sender.running, "the end of the sender's thread")


def taken(baton):
    """Take the baton if it is free; what is returned is to be put back."""
    try:
        return [baton.pop()]
    except IndexError:
        return []


@pytest.fixture
def balanced():
    """Return the stats of a processor at a moment at which nobody changes what they count: the books balance then."""

    def check(processor):
        out = processor._out
        held = waiting.wait_for(lambda: taken(out.baton), "the baton")
        try:
            stats = processor.stats()
        finally:
            out.baton += held
        out.combine()
        assert stats["produced"] == stats["acked"] + stats["pending"] + sum(stats["dropped"].values()), stats
        return stats

    return check


@pytest.fixture
def root():
    """The repository's root, for child processes' PYTHONPATH."""
    return str(ROOT)
