"""Who executes orders: a paper broker that fills, splits, slips and refuses as real ones do.

Owns: fills, refusals, and the chatter of a client library. It must not know positions or why an order is
placed. Read `robo_trader/logger` next, which takes what all of these log.

`brokerlink.http` is a stand-in. A real bot talks through somebody's library, and such a library logs through
the logging module, in its own words and without asking; this one does that, down to a token in a line.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from robo_trader.trading.market import CENT
from robo_trader.trading.portfolio import Trade, fee_for

if TYPE_CHECKING:
    from robo_trader.trading.market import Bar

_http_log = logging.getLogger("brokerlink.http")


class OrderRejected(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """The broker will not execute this order."""


class BrokerTimeout(Exception):  # noqa: N818 - the name says what it is
    """The broker did not answer in time."""


class Order(NamedTuple):
    """What is asked of the broker; executed at the market or not at all."""

    id: str
    symbol: str
    side: str
    quantity: Decimal


@dataclass
class PaperBroker:
    """Executes against the last bar. The same seed and orders bring the same fills."""

    seed: int
    rejects: float = 0.04
    """Share of orders refused."""
    _dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._dice = random.Random(f"broker/{self.seed}")  # noqa: S311 - reproducible, not secret

    def connect(self) -> None:
        """Log in. There is no network here, only what a client library would say about it."""
        token = "pt_" + "".join(self._dice.choices("abcdefghjkmnpqrstuvwxyz23456789", k=24))
        _http_log.info("POST https://paper.broker.example/v1/login 200, token=%s", token)

    def reconnect(self, attempt: int) -> None:
        """Say that the library tries again by itself."""
        _http_log.warning("Retrying (%d/5) after connection broken by RemoteDisconnected: /v1/stream", attempt)

    def execute(self, order: Order, bar: Bar) -> list[Trade]:
        """Return the fills of an order, one to three, at prices a little worse than the bar's close.

        Raises OrderRejected when it is refused; a cause tells why.
        """
        dice = self._dice
        if dice.random() < self.rejects:
            self._refuse(order)
        pieces = dice.choices((1, 2, 3), weights=(70, 22, 8))[0] if order.quantity >= 3 else 1
        share = (order.quantity / pieces).to_integral_value() if order.quantity >= 3 else order.quantity
        fills = []
        for number in range(pieces):
            quantity = share if number < pieces - 1 else order.quantity - share * (pieces - 1)
            slip = Decimal(dice.randint(0, 3)) / 10_000 * (1 if order.side == "buy" else -1)
            price = max((bar.close * (1 + slip)).quantize(CENT), CENT)
            fee = fee_for(quantity, price)
            fills.append(Trade(bar.time, order.id, order.symbol, order.side, quantity, price, fee))
        return fills

    def _refuse(self, order: Order) -> None:
        if self._dice.random() < 0.5:
            raise OrderRejected(f"{order.id}: insufficient liquidity for {order.quantity} {order.symbol}")
        try:
            self._await_answer(order)
        except BrokerTimeout as error:
            raise OrderRejected(f"{order.id}: no confirmation, cancelled") from error

    def _await_answer(self, order: Order) -> None:
        _http_log.warning("Read timed out. (read timeout=2.0): /v1/orders/%s", order.id)
        raise BrokerTimeout(f"no answer for {order.id} within 2.0 s")
