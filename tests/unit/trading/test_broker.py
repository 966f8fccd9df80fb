"""Fills and refusals."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from robo_trader.trading.broker import Order, OrderRejected, PaperBroker
from robo_trader.trading.market import Bar

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


def bar(close, minute=0, symbol="A"):
    price = Decimal(str(close))
    return Bar(NOW + timedelta(minutes=minute), symbol, price, price, price, price, 100)


@pytest.mark.parametrize("quantity", ["1", "2", "3", "100", "0.188"])
def test_fills_add_up_and_never_beat_the_bar(quantity):
    """All fills of an order together are the order; buying is never below, selling never above the close."""
    broker = PaperBroker(3, rejects=0)
    for number in range(60):
        side = "buy" if number % 2 else "sell"
        fills = broker.execute(Order(f"P-{number}", "A", side, Decimal(quantity)), bar(50))
        assert sum(f.quantity for f in fills) == Decimal(quantity)
        assert all(f.quantity > 0 and f.fee >= 0 for f in fills)
        assert all(f.price >= 50 if side == "buy" else f.price <= 50 for f in fills)


def test_a_refused_order_is_an_exception():
    """The broker's refusal names the order."""
    with pytest.raises(OrderRejected, match="P-1"):
        PaperBroker(3, rejects=1).execute(Order("P-1", "A", "buy", Decimal(1)), bar(50))
