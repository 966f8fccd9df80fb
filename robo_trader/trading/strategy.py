"""What to do: a moving-average crossover with a stop.

Owns: signals. It must not know cash, limits or fees. Read `risk` next.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from robo_trader.trading.market import Bar


class Signal(NamedTuple):
    """A wish to trade; risk and broker may disagree."""

    symbol: str
    side: str
    """buy or sell"""
    reason: str
    """crossover or stop"""
    fast: Decimal
    slow: Decimal


@dataclass
class Crossover:
    """Buys when the fast average crosses above the slow one, sells when it crosses below or the stop is hit.

    One instance sees all symbols. `stop` is the loss from the entry price at which a position is given up.
    """

    fast: int = 4
    slow: int = 12
    stop: Decimal = Decimal("0.006")
    _closes: dict[str, deque[Decimal]] = field(default_factory=dict, init=False)
    _above: dict[str, bool] = field(default_factory=dict, init=False)

    def on_bar(self, bar: Bar, entry: Decimal | None) -> Signal | None:
        """Take one bar in; `entry` is the average price of the position held, None if there is none."""
        closes = self._closes.setdefault(bar.symbol, deque(maxlen=self.slow))
        closes.append(bar.close)
        if len(closes) < self.slow:
            return None
        recent = list(closes)
        fast = _mean(recent[-self.fast :])
        slow = _mean(recent)
        above, was = fast > slow, self._above.get(bar.symbol)
        self._above[bar.symbol] = above
        if entry is not None and bar.close <= entry * (1 - self.stop):
            return Signal(bar.symbol, "sell", "stop", fast, slow)
        if was is None or above in (was, entry is not None):
            return None
        return Signal(bar.symbol, "buy" if above else "sell", "crossover", fast, slow)


def _mean(values: list[Decimal]) -> Decimal:
    return (sum(values, Decimal(0)) / len(values)).quantize(Decimal("0.0001"))
