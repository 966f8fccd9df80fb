"""What must not happen: limits on a position, on all that is held, on the day's loss, on the pace of orders.

Owns: the limits and the judgement. It must not know why an order is wanted. Read `portfolio` next.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime


class Violation(NamedTuple):
    """A limit and by how much an order would have broken it."""

    rule: str
    wanted: Decimal
    allowed: Decimal


@dataclass
class RiskLimits:
    """Judges orders that would open or add to a position; getting out is always allowed."""

    position: Decimal = Decimal(25_000)
    """Value of one position."""
    exposure: Decimal = Decimal(45_000)
    """Value of all positions."""
    daily_loss: Decimal = Decimal(600)
    """Loss since the session opened at which trading is suspended for the rest of it."""
    orders_per_minute: int = 6
    """Orders in any 60 simulated seconds: a broken strategy shows itself by its pace."""
    _recent: deque[datetime] = field(default_factory=deque, init=False)

    def check(self, now: datetime, value: Decimal, position: Decimal, exposure: Decimal) -> Violation | None:
        """Return the limit that an order of `value` would break, or None; an order that passes is counted."""
        while self._recent and now - self._recent[0] >= timedelta(minutes=1):
            self._recent.popleft()
        if position + value > self.position:
            return Violation("position_value", position + value, self.position)
        if exposure + value > self.exposure:
            return Violation("total_exposure", exposure + value, self.exposure)
        if len(self._recent) >= self.orders_per_minute:
            return Violation("orders_per_minute", Decimal(len(self._recent) + 1), Decimal(self.orders_per_minute))
        self._recent.append(now)
        return None

    def suspended(self, day_pnl: Decimal) -> bool:
        """Say whether the day's loss has reached its limit."""
        return day_pnl <= -self.daily_loss
