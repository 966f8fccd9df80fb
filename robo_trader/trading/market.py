"""Where prices come from: a seeded simulator, or a CSV file of bars.

Owns: bars, and everything that can happen to a feed (gaps, bursts, halts, a lost connection). It must not
know who trades. Simulated time only: the wall clock decides nothing here. Read `strategy` next.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

CENT = Decimal("0.01")
SYMBOLS = ("AAPL", "MSFT", "NVDA", "AMZN", "BTCUSD")
OPENS, MINUTES = time(14, 30), 390
"""A session of the New York exchange: 14:30 UTC, six and a half hours of one-minute bars."""
_FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday. Simulated days begin here whatever the date is, so that a seed always means the same."""
_PRICES = {"AAPL": 187.0, "MSFT": 402.0, "NVDA": 131.0, "AMZN": 178.0, "BTCUSD": 64210.0}
_VOLATILITY = 0.0011
"""Standard deviation of a minute's return in calm times: about 2 % a day, as a large share has."""
_BURST = 4.0
"""How much wilder a burst is, and how much faster its minutes pass."""
_NIGHT = 6
"""How many minutes' standard deviations a price moves overnight."""
_BURST_ODDS, _OUTAGE_ODDS = 0.02, 0.006
"""Chance in a minute that a burst or an outage of the feed begins: some eight and two a session."""
_TREND_ODDS, _LOST_BAR_ODDS = 0.03, 0.002
"""Chance in a minute that a symbol's trend changes, or that its bar gets lost."""
_TREND = 0.4
"""Standard deviation of a trend's drift, in those of a minute's return: without trends there are no crossovers."""
_HALT = 11
"""Standard deviations of a minute's return at which trading in a symbol is halted."""
_LEAST_PRICE = 0.05
"""Below this a random walk could reach zero."""
_MOST = Decimal("1e12")
"""The highest number accepted in a file: more is a damaged row, not a price or a volume."""


class Bar(NamedTuple):
    """One minute of one symbol. `time` is when it began, UTC."""

    time: datetime
    symbol: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int


@dataclass(frozen=True, slots=True)
class Minute:
    """What one step of the feed brought: bars, and what else happened, in order."""

    time: datetime
    bars: tuple[Bar, ...] = ()
    happened: tuple[tuple[str, dict[str, object]], ...] = ()
    """Name and fields: session.opened, session.closed, burst, halted, resumed, feed.lost, feed.back."""
    pace: float = 1.0
    """How long this minute takes compared with a calm one."""


class BarsError(Exception):
    """The file of bars cannot be used at all; one line for a person."""


@dataclass
class _Quote:
    price: float
    drift: float = 0.0
    halted: int = 0
    """Minutes until trading in it resumes."""


@dataclass
class SimulatedMarket:
    """An endless feed. The same seed and symbols bring the same minutes, on every machine."""

    seed: int
    symbols: Sequence[str] = SYMBOLS
    _quotes: dict[str, _Quote] = field(default_factory=dict, init=False)

    def minutes(self) -> Iterator[Minute]:
        """Yield minute after minute, session after session."""
        dice = random.Random(f"market/{self.seed}")  # noqa: S311 - reproducible, not secret
        self._quotes = {s: _Quote(_PRICES.get(s) or dice.uniform(20, 400)) for s in self.symbols}
        day = 0
        while True:
            begin = _FIRST_DAY + timedelta(days=day // 5 * 7 + day % 5, hours=OPENS.hour, minutes=OPENS.minute)
            yield from self._session(dice, begin)
            day += 1

    def _session(self, dice: random.Random, begin: datetime) -> Iterator[Minute]:
        for quote in self._quotes.values():
            quote.price *= 1 + dice.gauss(0, _VOLATILITY * _NIGHT)  # what happened overnight
            quote.halted = 0
        yield Minute(begin, happened=(("session.opened", {"symbols": list(self.symbols)}),))
        burst = outage = 0
        for number in range(MINUTES):
            now = begin + timedelta(minutes=number)
            happened: list[tuple[str, dict[str, object]]] = []
            if burst == 0 and dice.random() < _BURST_ODDS:
                burst = dice.randint(6, 18)
                happened.append(("burst", {"minutes": burst}))
            if outage > 0:
                outage -= 1
                if outage == 0:
                    happened.append(("feed.back", {}))
            elif dice.random() < _OUTAGE_ODDS:
                outage = dice.randint(2, 5)
                happened.append(("feed.lost", {"minutes": outage}))
            wild = _BURST if burst else 1.0
            bars = [b for s in self.symbols if (b := self._bar(dice, now, s, wild, happened)) is not None]
            yield Minute(now, () if outage else tuple(bars), tuple(happened), 1 / wild)
            burst = max(burst - 1, 0)
        back: tuple[tuple[str, dict[str, object]], ...] = (("feed.back", {}),) if outage else ()
        end = begin + timedelta(minutes=MINUTES)
        yield Minute(end, happened=(*back, ("session.closed", {})), pace=6)

    def _bar(
        self,
        dice: random.Random,
        now: datetime,
        symbol: str,
        wild: float,
        happened: list[tuple[str, dict[str, object]]],
    ) -> Bar | None:
        """Move one symbol by a minute; None while it is halted or when its bar got lost."""
        quote = self._quotes[symbol]
        if dice.random() < _TREND_ODDS:
            quote.drift = dice.gauss(0, _VOLATILITY * _TREND)
        path = [quote.price]
        for _ in range(4):
            path.append(max(path[-1] * (1 + quote.drift / 4 + dice.gauss(0, _VOLATILITY * wild / 2)), _LEAST_PRICE))
        moved = path[-1] / path[0] - 1
        volume = int(dice.lognormvariate(7, 0.6) * wild)
        lost = dice.random() < _LOST_BAR_ODDS
        if quote.halted > 0:
            quote.halted -= 1
            if quote.halted == 0:
                happened.append(("resumed", {"symbol": symbol}))
            return None
        quote.price = path[-1]
        if abs(moved) > _VOLATILITY * _HALT:
            quote.halted = dice.randint(3, 8)
            change = f"{moved:+.2%}"
            happened.append(("halted", {"symbol": symbol, "change": change, "minutes": quote.halted}))
        if lost:
            return None
        prices = [_cents(p) for p in path]
        return Bar(now, symbol, prices[0], max(prices), min(prices), prices[-1], volume)


def _cents(price: float) -> Decimal:
    return max(Decimal(price).quantize(CENT), CENT)


_COLUMNS = ("open", "high", "low", "close", "volume")
_TIMES = ("time", "timestamp", "datetime", "date")


def read_bars(path: Path, warn: Callable[[int, str], None]) -> Iterator[Minute]:
    """Return the minutes of a CSV file: time, open, high, low, close, volume, symbol if several.

    Column names in any case and order; times are ISO 8601 (UTC without a zone) or Unix seconds, and rise.
    A bad row is skipped and reported by `warn(line number, reason)`.
    Raises BarsError, at once, when the file or its header cannot be used.
    """
    try:
        file = path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        raise BarsError(f"cannot read {path}: {error.strerror or error}") from error
    rows = csv.reader(file)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        file.close()
        raise BarsError(f"{path} is not a CSV file: {error}") from error
    clock = next((name for name in _TIMES if name in header), None)
    missing = [name for name in _COLUMNS if name not in header] + ([] if clock else ["time"])
    if missing:
        file.close()
        raise BarsError(f"{path} needs a header line naming {', '.join(missing)}")
    return _minutes(rows, header, clock or "time", path.stem.upper(), warn=warn, close=file.close)


def _minutes(
    rows: Iterator[list[str]],
    header: list[str],
    clock: str,
    name: str,
    *,
    warn: Callable[[int, str], None],
    close: Callable[[], None],
) -> Iterator[Minute]:
    """Gather the bars of one time into one minute."""
    bars: list[Bar] = []
    line = 1
    try:
        while True:
            line = getattr(rows, "line_num", line) + 1
            try:
                row = next(rows, None)
                if row is None:
                    break
                if not row:
                    continue
                bar = _bar_of(row, header, clock, name, after=bars[-1].time if bars else None)
            except (csv.Error, UnicodeDecodeError, ValueError) as error:
                warn(line, str(error))
                if isinstance(error, UnicodeDecodeError):
                    break  # the rest of the file cannot be decoded either
                continue
            if bars and bar.time != bars[-1].time:
                yield Minute(bars[-1].time, tuple(bars))
                bars = []
            bars.append(bar)
        if bars:
            yield Minute(bars[-1].time, tuple(bars))
    finally:
        close()


def _bar_of(row: list[str], header: list[str], clock: str, name: str, *, after: datetime | None) -> Bar:
    """Return the bar of one row. Raises ValueError saying what is wrong with it."""
    if len(row) != len(header):
        raise ValueError(f"it has {len(row)} fields, the header has {len(header)}")
    cells = dict(zip(header, map(str.strip, row), strict=True))
    numbers = []
    for column in _COLUMNS:
        try:
            number = Decimal(cells[column])
        except InvalidOperation:
            raise ValueError(f"{column} is {cells[column]!r}, not a number") from None
        if not number.is_finite() or number < 0 or number > _MOST:
            raise ValueError(f"{column} is {cells[column]!r}, out of range")
        numbers.append(number)
    opened, high, low, close, volume = numbers
    if not (low <= opened <= high and low <= close <= high and low > 0):
        raise ValueError(f"low {low} <= open {opened}, close {close} <= high {high} does not hold")
    when = _time_of(cells[clock])
    if after is not None and when < after:
        raise ValueError(f"its time {when.isoformat()} is before that of the row above it")
    return Bar(when, cells.get("symbol") or name, opened, high, low, close, int(volume))


def _time_of(text: str) -> datetime:
    try:
        if text.replace(".", "", 1).isdigit() and len(text) > 8:
            return datetime.fromtimestamp(float(text), UTC)
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"time is {text!r}, not an ISO 8601 time") from None
