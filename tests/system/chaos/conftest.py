"""Fixtures of the chaos tests: a home directory, and things that are ended whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.chaos import failure_report, real_trader
from tests.support.chaos.feeder import Feeder, Nursery, Trader
from tests.support.chaos.real_trader import RealTrader
from tests.support.chaos.relay import Relay
from tests.support.chaos.scale import FULL
from tests.support.chaos.viewer import Stalled, Viewer

FULL_TIMEOUT_S = 1800
"""For one test with the full counts."""


def pytest_configure(config):
    """Name the marker of what only the full counts run."""
    config.addinivalue_line("markers", "long: waits for one of the relay's own long times; runs with CHAOS=full only")


def pytest_collection_modifyitems(config, items):
    """Full counts take longer than the time limit that is right for every other run, and include what is long."""
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    if FULL:
        for item in mine:
            item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_S), append=False)
        return
    long = [item for item in mine if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


class Scene:
    """Makes the actors of a test, and ends every one of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._ends = []
        self.relays: list[Relay] = []
        self.traders: list[RealTrader] = []
        """What `failure_report` tells of."""

    def relay(self, *options: str, journal: Path | str | None = None) -> Relay:
        """A relay that is not started yet."""
        relay = Relay(self.home, *options, journal=journal)
        self.relays.append(relay)
        self._ends.append(relay.end)
        return relay

    def trader(self, relay: Relay, name: str = "trader", run: bytes | None = None) -> Trader:
        """A trader in this process, not connected yet."""
        trader = Trader(relay.socket, name, run)
        self._ends.append(trader.close)
        return trader

    def feeder(self, relay: Relay, name: str, **options: int) -> Feeder:
        """A trader in a process of its own, logging."""
        feeder = Feeder(self.home, relay.socket, name, **options)
        self._ends.append(feeder.end)
        return feeder

    def real_trader(self, relay: Relay, name: str = "robo", **options: float) -> RealTrader:
        """A trader with the real chain, in a process of its own."""
        trader = RealTrader(relay.socket, name, **options)
        self.traders.append(trader)
        self._ends.append(trader.end)
        return trader

    def nursery(self, relay: Relay, *, real: bool = False) -> Nursery:
        """A maker of traders that are going to be killed."""
        nursery = Nursery(relay.socket, module=real_trader.MODULE) if real else Nursery(relay.socket)
        self._ends.append(nursery.end)
        return nursery

    def viewer(self, relay: Relay, **options) -> Viewer:
        """A viewer that is not started yet."""
        viewer = Viewer(relay.port, **options)
        self._ends.append(viewer.stop)
        return viewer

    def stalled(self, relay: Relay, **query: object) -> Stalled:
        """A viewer that never reads."""
        stalled = Stalled(relay.port, **query)
        self._ends.append(stalled.close)
        return stalled

    def on_end(self, call) -> None:
        """Have something done at the end, before what was made earlier ends."""
        self._ends.append(call)

    def close(self) -> None:
        """End everything, the last one made first; the first error is raised when all is done."""
        first = None
        while self._ends:
            try:
                self._ends.pop()()
            except BaseException as error:
                first = first or error
        if first is not None:
            raise first


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Say what the processes of a test that failed are doing, while they are still there."""
    report = yield
    scene = getattr(item, "funcargs", {}).get("scene")
    if report.when == "call" and report.failed and isinstance(scene, Scene):
        report.sections.append(("the processes", failure_report.describe(scene.relays, scene.traders)))
    return report


@pytest.fixture
def scene():
    """A scene in a directory with a short path: a Unix socket's may have 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    scene = Scene(home)
    try:
        yield scene
    finally:
        try:
            scene.close()
        finally:
            shutil.rmtree(home, ignore_errors=True)
