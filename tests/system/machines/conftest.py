"""Hub relays where tests of relays expect a relay, for those that hold for both."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.support.hubs import HubProcess, HubRelay
from tests.system.chaos.conftest import Scene


class HubScene(Scene):
    """A scene whose relays are hub relays."""

    def relay(self, *options, journal=None):
        """A hub relay that is not started yet; its edge runs."""
        relay = HubProcess(self.home, *options, journal=journal)
        self.relays.append(relay)
        self.on_end(relay.end)
        return relay


@pytest.fixture
def short_folder():
    """A directory with a short path: a Unix socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hub-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def scene(short_folder):
    """As that of the chaos tests."""
    made = HubScene(short_folder)
    yield made
    made.close()


@pytest.fixture
def relay(request, short_folder):
    """A hub relay: where the test has a home, a process that is not started yet, else one that runs."""
    if "home" in request.fixturenames:
        home = request.getfixturevalue("home")
        made = HubProcess(short_folder, journal=home / ".local" / "state" / "logrelay" / "journal.db")
        yield made
        made.end()
    else:
        running = HubRelay(short_folder)
        yield running
        running.stop()
