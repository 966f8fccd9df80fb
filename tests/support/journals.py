"""Lines, clocks and journals for the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from logrelay.journal import memory, query
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import RELAY_RUN, RELAY_SOURCE, SHOWN, Commit, Line, Run
from tests.support.threads import outlive, where
from tests.support.waiting import DEADLINE_S, wait_for

T0_US = 1_769_162_400_000_000
"""2026-01-23T10:00:00Z."""
CONTEXT = {"symbol": "AAPL", "quantity": 100, "price": 187.3312, "side": "buy", "strategy": "momentum"}


def _line(
    seq,
    level=20,
    source="robo_trader.runner",
    run=1,
    message="trade.executed",
    context=None,
    time_us=None,
    app="robo_trader",
    edge="",
) -> Line:
    context = CONTEXT if context is None else context
    source = RELAY_SOURCE if run == RELAY_RUN else source
    time_us = T0_US + seq * 1000 if time_us is None else time_us
    shown = datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    shape = {
        "type": "log",
        "id": f"abc123-{seq}",
        "level": SHOWN[level],
        "source": source,
        "message": message,
        "context": context,
        "timestamp": shown,
    }
    if run != RELAY_RUN:
        shape |= {"app": app, "run": f"{run:032x}", **({"edge": edge, "host": "box"} if edge else {})}
    name = str(shape.get("run", ""))
    shown_app = "" if not run else app
    body = orjson.dumps(shape)
    return Line(seq, time_us, level, source, run, body, message, context, shown_app, run_name=name, edge=edge)


@pytest.fixture(scope="session")
def line() -> Callable[..., Line]:
    """Make a line as the relay makes it: the body says what the fields say."""
    return _line


@pytest.fixture(scope="session")
def lines() -> Callable[..., list[Line]]:
    """Make `count` lines from `first` on, all alike."""
    return lambda first, count, **kwargs: [_line(seq, **kwargs) for seq in range(first, first + count)]


@pytest.fixture(scope="session")
def run() -> Callable[..., Run]:
    """Describe a trader process."""
    return lambda number=1, **kwargs: Run(number, bytes([number % 256]) * 16, "robo_trader", "host", 4242, 1, **kwargs)


@dataclass
class Clock:
    """The relay's clock, set by hand."""

    us: int = T0_US
    up_us: int = 0
    """The machine's uptime, which no step of the clock changes."""

    def __call__(self) -> int:
        return self.us

    def uptime(self) -> int:
        """Read the clock that never steps."""
        return self.up_us

    def forward(self, seconds: float) -> None:
        """Let time pass; with less than 0, put the clock back."""
        self.us += int(seconds * 1e6)
        self.up_us += max(0, int(seconds * 1e6))

    def step(self, seconds: float) -> None:
        """Set the clock, without any time passing: by hand, by NTP, or because the machine was off meanwhile."""
        self.us += int(seconds * 1e6)


@pytest.fixture
def clock() -> Clock:
    """A clock that moves when told."""
    return Clock()


@dataclass
class Maker:
    """Makes journals at one path, and closes those left open; a `JournalThread` closes the one that it has itself."""

    path: Path
    clock: Clock
    epochs: Iterator[str] = field(default_factory=lambda: (f"abc{n:03}" for n in range(123, 999)))
    made: list[SqliteJournal] = field(default_factory=list)

    def __call__(self, path: Path | None = None, **kwargs) -> SqliteJournal:
        journal = SqliteJournal(
            str(path or self.path),
            now_us=self.clock,
            uptime_us=self.clock.uptime,
            random_epoch=lambda: next(self.epochs),
            **kwargs,
        )
        self.made.append(journal)
        return journal


@pytest.fixture
def journal_at(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    """Make a SqliteJournal under tmp_path; keyword arguments go to its constructor.

    A page has all that was asked for, however busy the machine is: its limit in time is far away.
    """
    for module in (query, memory):
        monkeypatch.setattr(module, "PAGE_SECONDS", DEADLINE_S)
    maker = Maker(tmp_path / "state" / "journal.db", clock)
    yield maker
    # SQLite under a thread that uses it must not be closed: that ends in a segmentation fault. Better a failed test.
    left = outlive([t for t in threading.enumerate() if t.name.startswith("journal")], DEADLINE_S)
    assert not left, f"a journal's thread does not end, so the journals stay open:\n{where(left)}"
    for journal in maker.made:
        journal.close()


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait until a condition holds; fail after the shared deadline."""
    return wait_for


@pytest.fixture(scope="session")
def fill(lines: Callable[..., list[Line]]) -> Callable[..., None]:
    """Append `count` lines in batches."""

    def append(journal, first: int, count: int, batch: int = 1000, **kwargs) -> None:
        for start in range(first, first + count, batch):
            journal.append(Commit(lines(start, min(batch, first + count - start), **kwargs)))

    return append
