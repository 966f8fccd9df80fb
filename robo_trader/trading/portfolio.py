"""What is held and what it is worth: cash, positions, fees, profit and loss, all exact.

Owns: the books, in Decimal. It must not know where prices come from, limits or logging. Read `broker` next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from robo_trader.trading.market import CENT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

ZERO = Decimal(0)
FEE_PER_SHARE, LEAST_FEE, MOST_FEE_SHARE = Decimal("0.005"), Decimal("0.35"), Decimal("0.005")
"""What a large retail broker asks for shares: an amount a share, bounded below, and above by a share of the value."""


class Trade(NamedTuple):
    """One fill, as the broker reported it. `fee` is what it cost on top."""

    time: datetime
    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal


@dataclass
class Position:
    """Long only: how many, and what they cost on average, without fees."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    """What the shares held cost together."""

    @property
    def average(self) -> Decimal:
        """Average price of what is held; zero if nothing is."""
        return self.cost / self.quantity if self.quantity else ZERO


@dataclass
class Portfolio:
    """The books. At every moment equity = start + realised + unrealised - fees, to the cent and beyond."""

    start: Decimal = Decimal(100_000)
    keep: int = 10_000
    """How many trades are remembered; a bot that runs for months must not grow."""
    cash: Decimal = field(init=False)
    realised: Decimal = field(default=ZERO, init=False)
    fees: Decimal = field(default=ZERO, init=False)
    positions: dict[str, Position] = field(default_factory=dict, init=False)
    trades: list[Trade] = field(default_factory=list, init=False)
    """The last `keep` trades."""

    def __post_init__(self) -> None:
        self.cash = self.start

    def apply(self, trade: Trade) -> Decimal:
        """Enter one trade and return the profit it realised, without fees.

        Raises ValueError, the books unchanged, when more is sold than is held or cash would go below zero.
        """
        position = self.positions.get(trade.symbol, Position())
        value = trade.quantity * trade.price
        gain = ZERO
        if trade.side == "buy":
            if value + trade.fee > self.cash:
                raise ValueError(f"{trade.order_id} costs {value + trade.fee:.2f}, cash is {self.cash:.2f}")
            position = Position(position.quantity + trade.quantity, position.cost + value)
            self.cash -= value + trade.fee
        else:
            if trade.quantity > position.quantity:
                raise ValueError(f"{trade.order_id} sells {trade.quantity}, held are {position.quantity}")
            left = position.quantity - trade.quantity
            kept = position.cost * left / position.quantity if left else ZERO
            gain = value - (position.cost - kept)
            position = Position(left, kept)
            self.cash += value - trade.fee
        self.positions[trade.symbol] = position
        if not position.quantity:
            del self.positions[trade.symbol]
        self.realised += gain
        self.fees += trade.fee
        self.trades.append(trade)
        del self.trades[: -self.keep]
        return gain

    def held(self, symbol: str) -> Position:
        """Return the position in a symbol, an empty one if there is none."""
        return self.positions.get(symbol, Position())

    def exposure(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Return what all positions are worth; one without a price counts at its cost."""
        return sum((_worth(s, p, prices) for s, p in self.positions.items()), ZERO)

    def unrealised(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Return what selling everything now would gain, without fees."""
        return sum((_worth(s, p, prices) - p.cost for s, p in self.positions.items()), ZERO)

    def equity(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Return cash and positions together."""
        return self.cash + self.exposure(prices)


def fee_for(quantity: Decimal, price: Decimal) -> Decimal:
    """Return the broker's fee: half a cent a share, at least 35 cents, at most 0.5 % of the value."""
    return min(max(quantity * FEE_PER_SHARE, LEAST_FEE), quantity * price * MOST_FEE_SHARE).quantize(CENT)


def _worth(symbol: str, position: Position, prices: Mapping[str, Decimal]) -> Decimal:
    return position.quantity * prices[symbol] if symbol in prices else position.cost
