"""Signals: each for its reason."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from robo_trader.trading.market import Bar
from robo_trader.trading.strategy import Crossover

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


def bar(close, minute=0, symbol="A"):
    price = Decimal(str(close))
    return Bar(NOW + timedelta(minutes=minute), symbol, price, price, price, price, 100)


def test_a_crossing_up_buys_a_crossing_down_sells_a_stop_sells():
    """The three signals, each for its reason, and none before there are enough bars."""
    strategy = Crossover(fast=2, slow=4, stop=Decimal("0.10"))
    signals = [strategy.on_bar(bar(p, i), None) for i, p in enumerate([10, 9, 8, 7, 9, 12])]
    assert signals[:4] == [None] * 4
    bought = next(s for s in signals if s)
    assert (bought.side, bought.reason) == ("buy", "crossover")
    assert strategy.on_bar(bar(13, 6), Decimal(12)) is None
    stopped = strategy.on_bar(bar(10, 7), Decimal(12))
    assert (stopped.side, stopped.reason) == ("sell", "stop")
    sold = next(s for i in range(8, 12) if (s := strategy.on_bar(bar(18 - i, i), Decimal(9))) is not None)
    assert sold.side == "sell"
