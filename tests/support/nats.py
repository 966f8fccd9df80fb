"""Real NATS servers for a test: started on loopback with their files in a folder of the test, killed, started again.

Owns: `NatsServer`, `NatsCluster`, `Proxy` and the skip where nats-server is not installed. It must not know the relay.
Read `waiting` next.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S, wait_for

SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")

needs_nats = pytest.mark.skipif(SERVER is None, reason="nats-server is not installed (apt-get install nats-server)")


class NatsServer:
    """One server with JetStream in a folder of its own. It keeps its ports and its store when it is started again."""

    def __init__(self, folder: Path, *, extra: str = "", name: str = "single", max_payload: int | None = None) -> None:
        """`extra` is more of its configuration (users, tls, cluster, ...)."""
        assert SERVER is not None, "mark the test with needs_nats"
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.monitor = free_port(), free_port()
        self.store = folder / "store"
        self.log = folder / "nats.log"
        self.config = folder / "nats.conf"
        self.process: subprocess.Popen[bytes] | None = None
        payload = f"max_payload: {max_payload}\n" if max_payload else ""
        self.config.write_text(
            f'server_name: "{name}"\nlisten: "127.0.0.1:{self.port}"\nhttp: "127.0.0.1:{self.monitor}"\n'
            f'jetstream {{ store_dir: "{self.store}", max_mem: 64MB, max_file: 4GB }}\n{payload}{extra}\n'
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def begin(self) -> NatsServer:
        """Start it without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [SERVER, "-c", str(self.config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def start(self, deadline_s: float = DEADLINE_S) -> NatsServer:
        """Start it, and wait until it takes messages; in a cluster that is when it has what the others have."""
        self.begin()
        self.wait_ready(deadline_s)
        return self

    def wait_ready(self, deadline_s: float = DEADLINE_S) -> None:
        wait_for(self.healthy, lambda: f"nats-server to be ready; it says: {self.log.read_text()[-2000:]}", deadline_s)

    def healthy(self) -> bool:
        try:
            return bool(self.ask("healthz").get("status") == "ok")
        except OSError:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            return False

    def ask(self, what: str) -> dict[str, Any]:
        """Return an answer of its monitoring port: `varz`, `jsz?streams=true`, `connz`, ..."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/{what}", timeout=DEADLINE_S) as answer:
            answered: dict[str, Any] = json.load(answer)
            return answered

    def kill(self) -> None:
        """End it with SIGKILL, as a crash does; what it had written stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
            self.process = None

    def stop(self) -> None:
        """End it with SIGTERM."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(DEADLINE_S)
            self.process = None

    def freeze(self) -> None:
        """Have it answer nobody, with its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def delete_store(self) -> None:
        """Take its disk away, while it is not running."""
        assert self.process is None
        shutil.rmtree(self.store, ignore_errors=True)

    def streams(self) -> list[dict[str, Any]]:
        """Return what it says of its streams: `name`, `state` (messages, last_seq, ...), `config`."""
        accounts = self.ask("jsz?accounts=true&streams=true&config=true").get("account_details") or []
        return [stream for account in accounts for stream in account.get("stream_detail") or []]


class NatsCluster:
    """Three servers that elect leaders among themselves."""

    def __init__(self, folder: Path, *, extra: str = "") -> None:
        routes = [free_port() for _ in range(3)]
        known = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
        self.servers = [
            NatsServer(
                folder / f"n{place}",
                name=f"n{place}",
                extra=f'cluster {{ name: "c", listen: "127.0.0.1:{port}", routes: [{known}] }}\n{extra}',
            )
            for place, port in enumerate(routes)
        ]

    def start(self) -> NatsCluster:
        for server in self.servers:
            server.begin()
        for server in self.servers:
            server.wait_ready()
        return self

    @property
    def urls(self) -> str:
        return ",".join(server.url for server in self.servers)

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


class Proxy:
    """Carries bytes to a server until it is cut: socat, a process group of its own, at a port that stays the same."""

    def __init__(self, target: int) -> None:
        self.port, self.target = free_port(), target
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> Proxy:
        """Let connections through."""
        self.process = subprocess.Popen(
            [
                shutil.which("socat") or "socat",
                f"TCP-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr",
                f"TCP:127.0.0.1:{self.target}",
            ],
            start_new_session=True,  # the children, one for each connection, are in its group
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._listens, "socat to listen")
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def cut(self) -> None:
        """End every connection, whatever is in it, and take no more."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(DEADLINE_S)
            self.process = None

    def freeze(self) -> None:
        """Keep connections open, and let nothing through: a network that has died without a word."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)


needs_socat = pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed (apt-get install socat)")


@contextmanager
def nats_server(folder: Path, **options: Any) -> Iterator[NatsServer]:
    """Run one server during the block."""
    server = NatsServer(folder, **options)
    try:
        yield server.start()
    finally:
        server.kill()


@contextmanager
def nats_cluster(folder: Path, **options: Any) -> Iterator[NatsCluster]:
    """Run three servers during the block."""
    cluster = NatsCluster(folder, **options)
    try:
        yield cluster.start()
    finally:
        cluster.kill()


def asked(url: str, ask: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    """Connect to a server, return what `ask(client)` returns, and close the connection."""
    import nats  # noqa: PLC0415  (an extra: tests that need it say so)

    async def run() -> Any:
        client = await nats.connect(url, allow_reconnect=False, connect_timeout=DEADLINE_S, **options)
        try:
            return await ask(client)
        finally:
            await client.close()

    return asyncio.run(run())


def messages_of(url: str, stream: str = "LOGRELAY", **options: Any) -> list[Any]:
    """Return every message of a stream, in order: each has `subject`, `headers`, `data` and `metadata.sequence`."""

    async def read(client: Any) -> list[Any]:
        js = client.jetstream(timeout=DEADLINE_S)
        info = await js.stream_info(stream)
        count = info.state.messages
        if not count:
            return []
        subscription = await js.subscribe("logrelay.lines.*", stream=stream, ordered_consumer=True)
        return [await subscription.next_msg(timeout=DEADLINE_S) for _ in range(count)]

    found: list[Any] = asked(url, read, **options)
    return found
