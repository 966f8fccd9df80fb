"""Facts over a list of lines for the HTTP API alone, and a real relay with a real trader for the whole."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgpack
import orjson
import pytest

from logrelay.errors import JournalError, RequestError
from logrelay.fanout.positions import Lost, Position
from logrelay.fanout.summary import Summary, add_body
from logrelay.http.api import HttpApi
from logrelay.http.response import HttpResponse
from logrelay.journal.interface import Page, Query, SummaryPage
from logrelay.model import RANKS, Line
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S

NOW = 1_769_162_400.0
"""2026-01-23T10:00:00Z."""


@dataclass
class ListFacts:
    """The journal's promises (`Page.reached`, retention) in memory.

    Lines 1.. with one second between them, the last one at NOW.
    """

    lines: list[Line] = field(default_factory=list)
    oldest: int = 1
    looked_at: int = 1000
    """How many lines one page looks at before it gives up, as a journal does with rare matches."""
    trouble: str | None = None
    failing: bool = False
    is_ready: bool = True
    traders: list[dict[str, object]] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    before_read: list = field(default_factory=list)
    """Called, one per page read, before the page is read."""
    epoch: str = "k3f9ab"
    limited: bool = False

    @property
    def head(self) -> int:
        return len(self.lines)

    def add(self, n: int, level: str = "info", source: str = "robo_trader.runner", **context: object) -> None:
        for _ in range(n):
            seq = len(self.lines) + 1
            body = {"type": "log", "id": f"{self.epoch}-{seq}", "level": level.upper(), "source": source,
                    "message": f"line {seq}", "context": context}  # fmt: skip
            line = Line(seq, 0, RANKS[level], source, 1, orjson.dumps(body), f"line {seq}", context)
            self.lines.append(line)

    def fill_in_times(self) -> None:
        newest = round(NOW * 1e6)
        self.lines = [line._replace(time_us=newest - (self.head - line.seq) * 1_000_000) for line in self.lines]

    def status(self):
        return {
            "version": "0.1.0",
            "epoch": self.epoch,
            "head": f"{self.epoch}-{self.head}",
            "oldest": f"{self.epoch}-{self.oldest}",
            "uptime": 12.5,
            "viewers": 3,
            "journal": {"trouble": self.trouble, "bytes": 4096, "last_error_line": "secret"},
            "traders": self.traders,
            "last_message": "secret",
        }

    def ready(self):
        return self.is_ready

    def counters(self):
        return {"lines_total": self.head, "journal_trouble": int(self.trouble is not None), "viewers": 3}

    def alerts(self):
        return None if self.limited else {"type": "alerts", "enabled": False}

    def labelled(self):
        return {"trader_up": [({"app": trader["app"]}, 1) for trader in self.traders]}

    def id_of(self, seq: int) -> str:
        return f"{self.epoch}-{seq}"

    def resolve(self, id_: str) -> Position:
        epoch, _, seq = id_.partition("-")
        if not seq.isdigit():
            raise RequestError("bad_id", f"{id_!r} is not an id")
        if epoch != self.epoch:
            raise RequestError("expired", f"{id_!r} is of another journal")
        return (
            Position(int(seq)) if int(seq) <= self.head else Position(self.head, Lost(epoch, self.head + 1, int(seq)))
        )

    async def summarize(self, query: Query) -> SummaryPage:
        page = await self.read(replace(query, limit=100, filter=replace(query.filter, notices="all")))
        summary = Summary()
        for seq, body in zip(page.seqs, page.bodies, strict=True):
            add_body(summary, query.filter, seq, body)
        return SummaryPage(summary, page.reached, page.complete)

    async def lines_at(self, seqs: list[int]) -> dict[int, bytes]:
        return {seq: self.lines[seq - 1].body for seq in seqs if self.oldest <= seq <= self.head}

    async def read(self, query: Query) -> Page:
        self.queries.append(query)
        await asyncio.sleep(0)
        if self.before_read:
            self.before_read.pop(0)()
        if self.failing:
            raise JournalError("disk I/O error")
        first, last = max(query.after + 1, self.oldest), min(query.until, self.head)
        stretch = range(last, first - 1, -1) if query.newest else range(first, last + 1)
        found: list[Line] = []
        reached, size, done = (query.until + 1 if query.newest else query.after), 0, True
        for looked, seq in enumerate(stretch):
            if looked == self.looked_at or len(found) == query.limit or size >= query.max_bytes:
                done = False
                break
            line = self.lines[seq - 1]
            reached = seq
            late = query.until_us is not None and line.time_us >= query.until_us
            early = query.since_us is not None and line.time_us < query.since_us
            if not late and not early and query.filter.matches(line):
                found.append(line)
                size += len(line.body)
        if query.newest:
            found.reverse()
            reached -= 1
        return Page([x.body for x in found], [x.seq for x in found], reached, done, self.oldest)


@pytest.fixture
def facts() -> ListFacts:
    return ListFacts()


@pytest.fixture
def api(facts: ListFacts) -> HttpApi:
    return HttpApi(facts, now=lambda: NOW)


async def collect(answer: HttpResponse) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    return b"".join([chunk async for chunk in answer.body])


@pytest.fixture
def lines(api: HttpApi):
    """GET a target that must succeed; return the ids' seqs, or the whole objects of lines that are not log lines."""

    def get(target: str) -> list[object]:
        answer = api.answer("GET", target, {})
        body = asyncio.run(collect(answer))
        assert answer.status == 200, body
        found = [orjson.loads(line) for line in body.splitlines()]
        return [int(x["id"].partition("-")[2]) if x["type"] == "log" else x for x in found]

    return get


class Trader:
    """Speaks wire protocol v1 as a trader does: hello, welcome, log frames, acks."""

    def __init__(self, path: Path, app: str = "robo_trader", started_ns: int = 1) -> None:
        self.seq = 0
        self.acked = -1
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))
        self.unpacker = msgpack.Unpacker()
        self.run = secrets.token_bytes(16)
        hello = {"protocol": 1, "run": self.run, "app": app, "host": "box", "pid": 4711, "started_ns": started_ns}
        self.send([0, hello])
        self.wait(0)

    def send(self, frame: list) -> None:
        self.socket.sendall(msgpack.packb(frame))

    def log(self, event: str, level: str = "info", **fields: object) -> None:
        self.seq += 1
        self.send([1, self.seq, time.time_ns(), level, {"event": event, "logger": "robo_trader.runner", **fields}])

    def wait(self, acked: int | None = None) -> None:
        """Wait until everything sent is in the journal."""
        while self.acked < (self.seq if acked is None else acked):
            data = self.socket.recv(65536)
            assert data, "the relay closed the connection"
            self.unpacker.feed(data)
            for kind, value in self.unpacker:
                assert kind in (0, 1), value
                self.acked = value["acked"] if kind == 0 else value

    def close(self) -> None:
        self.socket.close()


class Relay:
    """A relay process that can be killed and started again in the same place."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.socket = directory / "s"
        self.directory = directory
        self.environment = environment
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None
        self.traders: list[Trader] = []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "logrelay", "serve", "--port", str(self.port), "--socket", str(self.socket)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_") and k != "NOTIFY_SOCKET"}
        self.process = subprocess.Popen(
            [*command, "--journal", str(self.directory / "j.db")],
            env=kept | self.environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.said = said = []
        """What it said until it was ready."""
        for line in self.process.stderr:
            said.append(line)
            if re.search(rf"ready.*wss?://[^ ,]*:{self.port}\b", line):
                return
        pytest.fail(f"the relay did not start: {said}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def trader(self, app: str = "robo_trader", **more: int) -> Trader:
        self.traders.append(Trader(self.socket, app, **more))
        return self.traders[-1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def stop(self) -> None:
        for trader in self.traders:
            trader.close()
        if self.process.poll() is None:
            self.kill()


@pytest.fixture
def start(tmp_path_factory):
    """Start a relay with environment variables; all of them end with the test."""
    relays: list[Relay] = []

    def begin(**environment: str) -> Relay:
        relays.append(Relay(tmp_path_factory.mktemp("r"), **environment))
        return relays[-1]

    yield begin
    for relay in relays:
        relay.stop()


@pytest.fixture
def relay(start) -> Relay:
    return start()
