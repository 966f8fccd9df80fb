"""The engine: takes minutes from a market, asks strategy and risk, trades, keeps the books, and logs it all.

Owns: the order of things within a minute, and what is logged about them. It must not know how lines are shown
or shipped, nor the wall clock: only `wait` does, and it changes the pace, never a decision.
Everything it logs goes to `logger`. Read `market` next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars, unbind_contextvars

from robo_trader.logger import get_logger
from robo_trader.trading.broker import Order, OrderRejected, PaperBroker
from robo_trader.trading.market import CENT
from robo_trader.trading.portfolio import ZERO, Portfolio, Trade
from robo_trader.trading.risk import RiskLimits
from robo_trader.trading.strategy import Crossover, Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date, datetime

    from robo_trader.trading.market import Bar, Minute

MINUTE = 0.4
"""Seconds that a calm simulated minute takes at speed 1: some lines a second, in a burst more."""

REPORT = 10
"""Minutes between two pnl.update lines."""

NIGHT = timedelta(hours=4)
"""A pause of this length and more is the market's, not a fault of the feed."""

LOT = Decimal(12_000)
"""Value of one order."""

log = get_logger("robo_trader.runner")
feed_log = get_logger("robo_trader.market")
signal_log = get_logger("robo_trader.strategy")
risk_log = get_logger("robo_trader.risk")
book_log = get_logger("robo_trader.portfolio")
audit_log = get_logger("audit")
"""Stays on this machine: the stream leaves out `audit` and `security`."""


@dataclass
class Engine:
    """One trader, made of a broker, books, a strategy and limits; the other fields are its state.

    `step` is all that happens in a minute; the same minutes and seed bring the same trades.
    """

    broker: PaperBroker
    portfolio: Portfolio = field(default_factory=Portfolio)
    strategy: Crossover = field(default_factory=Crossover)
    risk: RiskLimits = field(default_factory=RiskLimits)
    prices: dict[str, Decimal] = field(default_factory=dict, init=False)
    """The last price of each symbol."""
    orders: int = field(default=0, init=False)
    minutes: int = field(default=0, init=False)
    suspended: bool = field(default=False, init=False)
    """The day's loss limit was reached: out of everything, nothing is bought until the next session."""
    day: int = field(default=0, init=False)
    """Days of trading so far; a context variable, so that every line of the day has it."""
    _date: date | None = field(default=None, init=False)
    _day_began: Decimal = field(default=ZERO, init=False)
    """Equity when the day began."""
    _seen: dict[str, datetime] = field(default_factory=dict, init=False)
    """When the last bar of each symbol began."""
    _spacing: dict[str, timedelta] = field(default_factory=dict, init=False)
    """The shortest time between two bars of a symbol: what a gap is measured by."""
    _retries: int = field(default=0, init=False)
    """Attempts to reconnect to the feed so far; 0: it is connected."""

    def step(self, minute: Minute) -> None:
        """Process one minute."""
        self.minutes += 1
        if minute.time.date() != self._date:
            self._date = minute.time.date()
            self._begin_day()
        for name, fields in minute.happened:
            self._on_event(name, fields)
        for bar in minute.bars:
            self._note_gap(bar)
            self.prices[bar.symbol] = bar.close
            feed_log.debug("bar.received", symbol=bar.symbol, close=bar.close, volume=bar.volume)
        for bar in minute.bars:
            self._decide(bar)
        if self._retries:
            self.broker.reconnect(self._retries)
            self._retries += 1
        elif minute.bars and self.minutes % REPORT == 0:
            self._report()
        self._guard(minute)

    def _begin_day(self) -> None:
        self.day += 1
        self.suspended = False
        self._day_began = self.portfolio.equity(self.prices)
        bind_contextvars(day=self.day)

    def _day_pnl(self) -> Decimal:
        return self.portfolio.equity(self.prices) - self._day_began

    def _on_event(self, name: str, fields: dict[str, Any]) -> None:
        if name == "session.opened":
            log.info("session.opened", symbols=fields["symbols"], cash=_money(self.portfolio.cash))
        elif name == "session.closed":
            log.info(
                "session.closed",
                day_pnl=_money(self._day_pnl()),
                open_positions=len(self.portfolio.positions),
            )
            audit_log.info("session.report", equity=self.portfolio.equity(self.prices), orders=self.orders)
        elif name == "feed.lost":
            self._retries = 1
            feed_log.error("connection.lost", peer="paper.broker.example", cause="remote closed the stream")
        elif name == "feed.back":
            feed_log.info("connection.established", peer="paper.broker.example", attempts=self._retries)
            self._retries = 0
        elif name == "burst":
            feed_log.info("market.burst", minutes=fields["minutes"])
        elif name == "halted":
            feed_log.warning("trading.halted", **fields)
        elif name == "resumed":
            self._seen.pop(fields["symbol"], None)
            feed_log.info("trading.resumed", **fields)

    def _note_gap(self, bar: Bar) -> None:
        """Log that bars of a symbol are missing within a session; the night is no gap, nor is a weekend."""
        last = self._seen.get(bar.symbol)
        self._seen[bar.symbol] = bar.time
        if last is None or bar.time <= last:
            return
        passed = bar.time - last
        spacing = self._spacing[bar.symbol] = min(passed, self._spacing.get(bar.symbol, passed))
        missing = passed // spacing - 1
        if missing > 0 and passed < NIGHT:
            feed_log.warning("data.gap", symbol=bar.symbol, missing_bars=missing, since=f"{last:%H:%M}")

    def _decide(self, bar: Bar) -> None:
        held = self.portfolio.held(bar.symbol)
        signal = self.strategy.on_bar(bar, held.average if held.quantity else None)
        if signal is None or (self.suspended and signal.side == "buy"):
            return
        signal_log.info(
            "signal.generated",
            symbol=signal.symbol,
            side=signal.side,
            reason=signal.reason,
            price=bar.close,
            fast=signal.fast,
            slow=signal.slow,
        )
        quantity = held.quantity if signal.side == "sell" else _size(bar.close)
        if quantity and (signal.side == "sell" or self._allowed(signal, bar, quantity)):
            self._trade(Order(self._next_id(), bar.symbol, signal.side, quantity), bar)

    def _allowed(self, signal: Signal, bar: Bar, quantity: Decimal) -> bool:
        value = quantity * bar.close
        position = self.portfolio.held(signal.symbol).quantity * bar.close
        broken = self.risk.check(bar.time, value, position, self.portfolio.exposure(self.prices))
        if broken is None:
            return True
        risk_log.warning(
            "risk.violation",
            rule=broken.rule,
            symbol=signal.symbol,
            wanted=_money(broken.wanted),
            allowed=_money(broken.allowed),
        )
        return False

    def _trade(self, order: Order, bar: Bar) -> None:
        log.info("order.submitted", order_id=order.id, symbol=order.symbol, side=order.side, qty=order.quantity)
        try:
            fills = self.broker.execute(order, bar)
            for number, trade in enumerate(fills, 1):
                self._book(trade, f"{number}/{len(fills)}")
        except OrderRejected:
            log.exception("order.rejected", order_id=order.id, symbol=order.symbol, side=order.side)
        except ValueError:  # the books refused: more sold than held, or no cash left
            book_log.exception("booking.refused", order_id=order.id)

    def _book(self, trade: Trade, part: str) -> None:
        gain = self.portfolio.apply(trade)
        fields: dict[str, Any] = {} if trade.side == "buy" else {"pnl": _money(gain)}
        if part != "1/1":
            fields["part"] = part
        book_log.info(
            "trade.executed",
            symbol=trade.symbol,
            side=trade.side,
            quantity=trade.quantity,
            price=trade.price,
            fee=trade.fee,
            **fields,
            order_id=trade.order_id,
        )

    def _guard(self, minute: Minute) -> None:
        """Suspend trading for the day when the loss limit is reached, and get out."""
        pnl = self._day_pnl()
        if self.suspended or not self.risk.suspended(pnl):
            return
        self.suspended = True
        risk_log.critical("trading.suspended", day_pnl=_money(pnl), limit=_money(-self.risk.daily_loss))
        for bar in minute.bars:
            held = self.portfolio.held(bar.symbol).quantity
            if held:
                self._trade(Order(self._next_id(), bar.symbol, "sell", held), bar)

    def _report(self) -> None:
        books = self.portfolio
        book_log.info(
            "pnl.update",
            equity=_money(books.equity(self.prices)),
            realised_pnl=_money(books.realised - books.fees),
            unrealised_pnl=_money(books.unrealised(self.prices)),
            positions=len(books.positions),
        )

    def _next_id(self) -> str:
        self.orders += 1
        return f"P-{self.orders:06d}"


def run(engine: Engine, minutes: Iterable[Minute], wait: Callable[[float], str | None], **about: Any) -> str:
    """Trade until the minutes end or `wait` says why to stop; return the reason.

    `wait(seconds)` returns None after that time, or at once the reason to stop. `about` is logged at the start.
    """
    log.info("engine.started", cash=_money(engine.portfolio.cash), **about)
    reason: str | None = None
    try:
        engine.broker.connect()
        for minute in minutes:
            engine.step(minute)
            reason = wait(MINUTE * minute.pace)
            if reason is not None:
                break
        reason = reason or "end of data"
    finally:
        log.info(
            "engine.stopped",
            reason=reason or "failure",
            minutes=engine.minutes,
            orders=engine.orders,
            equity=_money(engine.portfolio.equity(engine.prices)),
        )
        unbind_contextvars("day")
    return reason


def _money(amount: Decimal) -> Decimal:
    return amount.quantize(CENT)


def _size(price: Decimal) -> Decimal:
    """Return how many to buy: whole shares, or thousandths of what is dearer than a lot."""
    step = Decimal(1) if price * 10 <= LOT else Decimal("0.001")
    return (LOT / price).quantize(step, ROUND_DOWN)
