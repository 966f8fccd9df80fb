"""A desk over a list of lines: the journal's promises (`Page.reached`, retention) in thirty lines of memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import orjson
import pytest

from logrelay.errors import JournalError, RequestError
from logrelay.journal import Page, Query
from logrelay.pages import Answer, Pages
from logrelay.record import RANKS, Line

NOW = 1_769_162_400.0
"""2026-01-23T10:00:00Z."""


@dataclass
class ListDesk:
    """Lines 1.. with one second between them, the last one at NOW."""

    lines: list[Line] = field(default_factory=list)
    oldest: int = 1
    looked_at: int = 1000
    """How many lines one page looks at before it gives up, as a journal does with rare matches."""
    trouble: str | None = None
    failing: bool = False
    is_ready: bool = True
    traders: list[dict[str, object]] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    before_page: list = field(default_factory=list)
    """Called, one per page read, before the page is read."""
    epoch: str = "k3f9ab"

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

    def settle_times(self) -> None:
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

    def resolve(self, id: str) -> int:
        epoch, _, seq = id.partition("-")
        if not seq.isdigit():
            raise RequestError("bad_id", f"{id!r} is not an id")
        if epoch != self.epoch:
            raise RequestError("unknown_epoch", f"{id!r} is of another journal")
        if int(seq) < self.oldest - 1:
            raise RequestError("expired", f"{id!r} is no longer kept")
        return int(seq)

    async def page(self, query: Query) -> Page:
        self.queries.append(query)
        await asyncio.sleep(0)
        if self.before_page:
            self.before_page.pop(0)()
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
def desk() -> ListDesk:
    return ListDesk()


@pytest.fixture
def pages(desk: ListDesk) -> Pages:
    return Pages(desk, now=lambda: NOW)


async def collect(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    return b"".join([chunk async for chunk in answer.body])


@pytest.fixture
def lines(pages: Pages):
    """GET a target that must succeed; return the ids' seqs, or the whole objects of lines that are not log lines."""

    def get(target: str) -> list[object]:
        answer = pages.answer("GET", target, {})
        body = asyncio.run(collect(answer))
        assert answer.status == 200, body
        found = [orjson.loads(line) for line in body.splitlines()]
        return [int(x["id"].partition("-")[2]) if x["type"] == "log" else x for x in found]

    return get
