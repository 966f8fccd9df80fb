"""Which events and fields of a bot's log are about a trade.

Owns: the table, its default (the names of the paper trader) and how it is read from the setting `trades`. It must not
know who shows trades. Pure. Read `config/settings` next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

TRADE_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "signal": ("signal.generated",),
    "order": ("order.submitted",),
    "fill": ("trade.executed",),
    "rejection": ("order.rejected",),
    "report": ("pnl.update", "session.closed", "trading.suspended"),
    "order_id": ("order_id",),
    "symbol": ("symbol",),
    "side": ("side",),
    "quantity": ("quantity", "qty"),
    "price": ("price",),
    "pnl": ("pnl",),
    "amount": ("day_pnl", "realised_pnl", "unrealised_pnl"),
    "positions": ("positions", "open_positions"),
}
"""The first five are messages of lines; `report` is what tells how much was gained. The others are fields of the
context, of which the first that a line has counts; those of a report are `amount`, all of them, and
`positions`."""

MAX_NAMES = 16
"""Names of one kind: each message is asked for by itself."""

ENTRY: Final = rf"(?:{'|'.join(TRADE_NAMES)})=(?:[^\s,=|\0]{{1,128}}(?:\|[^\s,=|\0]{{1,128}}){{0,{MAX_NAMES - 1}}})?"
"""One entry of the setting: `fill=order.filled|order.partially_filled`; without a name, nothing has this meaning."""


def read_trade_names(entries: Iterable[str]) -> dict[str, list[str]]:
    """Return the table with the entries in place of the defaults. Raises ValueError for one that is not of the form."""
    table = {kind: list(names) for kind, names in TRADE_NAMES.items()}
    for entry in entries:
        if not re.fullmatch(ENTRY, entry):
            raise ValueError(entry)
        kind, _, names = entry.partition("=")
        table[kind] = names.split("|") if names else []
    return table
