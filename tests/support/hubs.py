"""A hub relay where a test expects a relay: bots connect to an edge, and their lines come through a NATS server.

Owns: `HubRelay` in place of `http.Relay`, and `HubProcess` in place of `chaos.relay.Relay`. What is killed and started
again is the hub relay; the edge and the server stay. Read `edges` next.
"""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import orjson

from logrelay.model import run_name
from tests.support.chaos.relay import Relay as Process
from tests.support.http import Relay, Trader
from tests.support.nats import NatsServer
from tests.support.waiting import DEADLINE_S, wait_for

EDGE = "edge"


class HubTrader(Trader):
    """Waits until the hub relay has what the edge has acked."""

    def __init__(self, path: Path, app: str, hub: HubRelay, **more: int) -> None:
        self._hub = hub
        self._logged_us = 0
        super().__init__(path, app, **more)

    def log(self, event: str, level: str = "info", **fields: object) -> None:
        self._logged_us = time.time_ns() // 1000
        super().log(event, level, **fields)

    def wait(self, acked: int | None = None) -> None:
        super().wait(acked)
        if acked is None and self.seq:
            wait_for(self._is_there, "the lines to be at the hub relay")

    def _is_there(self) -> bool:
        """Tell whether the newest line of this run is one that was logged as late."""
        lines = self._hub.get(f"/logs?notices=no&limit=1&run={run_name(self.run)}").splitlines()
        if not lines:
            return False
        shown = orjson.loads(lines[0])["timestamp"]
        second = self._logged_us // 1_000_000
        floor = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + f".{self._logged_us % 1_000_000:06d}Z"
        return bool(shown >= floor)


class HubRelay(Relay):
    """A hub relay with one edge."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.server = NatsServer(directory / "nats").start()
        (directory / "edge").mkdir()
        self.edge = Relay(
            directory / "edge",
            LOGRELAY_FORWARD=self.server.url,
            LOGRELAY_EDGE_NAME=EDGE,
            LOGRELAY_QUIET_AFTER=environment.get("LOGRELAY_QUIET_AFTER", "60"),
        )
        super().__init__(directory, LOGRELAY_COLLECT=self.server.url, **environment)

    def trader(self, app: str = "robo_trader", **more: int) -> Trader:
        self.traders.append(HubTrader(self.edge.socket, app, self, **more))
        return self.traders[-1]

    def get(self, target: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request("GET", target)
            return connection.getresponse().read()
        finally:
            connection.close()

    def stop(self) -> None:
        super().stop()
        self.edge.stop()
        self.server.kill()


class HubProcess(Process):
    """A hub relay with one edge, whose log socket stands for its own."""

    def __init__(self, home: Path, *options: str, journal: Path | str | None = None) -> None:
        self.server = NatsServer(home / "nats").start()
        (home / "e").mkdir()
        self.edge = Process(home / "e", "--forward", self.server.url, "--edge-name", EDGE, "--quiet-after", "0").start()
        super().__init__(home, "--collect", self.server.url, *options, journal=journal)

    def spawn(self) -> None:
        self.socket = self.home / "hub.sock"
        super().spawn()
        self.socket = self.edge.socket

    def end(self) -> None:
        super().end()
        self.edge.end()
        self.server.kill()
