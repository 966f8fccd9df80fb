"""Limits: each is named when it would be broken."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from robo_trader.trading.risk import RiskLimits

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


def test_each_limit_is_named_when_it_would_be_broken():
    """Position, exposure, pace, and the day's loss; what is exactly at a limit passes."""
    risk = RiskLimits(position=Decimal(100), exposure=Decimal(200), orders_per_minute=2)
    zero = Decimal(0)
    assert risk.check(NOW, Decimal(100), zero, zero) is None
    assert risk.check(NOW, Decimal(101), zero, zero) == ("position_value", 101, 100)
    assert risk.check(NOW, Decimal(50), zero, Decimal(180)) == ("total_exposure", 230, 200)
    assert risk.check(NOW, Decimal(1), zero, zero) is None
    assert risk.check(NOW, Decimal(1), zero, zero) == ("orders_per_minute", 3, 2)
    assert risk.check(NOW + timedelta(minutes=1), Decimal(1), zero, zero) is None
    assert risk.suspended(-risk.daily_loss)
    assert not risk.suspended(-risk.daily_loss + Decimal("0.01"))
