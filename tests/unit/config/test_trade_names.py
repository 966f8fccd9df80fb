"""The table of trades: the paper trader's names, what the setting changes, and what it may not say."""

from __future__ import annotations

import pytest

from logrelay.config.settings import BY_NAME
from logrelay.config.trade_names import MAX_NAMES, TRADE_NAMES, read_trade_names


def test_without_a_setting_the_names_are_those_of_the_paper_trader():
    """Nothing given should leave the table as it is."""
    assert read_trade_names(()) == {kind: list(names) for kind, names in TRADE_NAMES.items()}


def test_an_entry_replaces_one_kind():
    """What is not named should keep its names."""
    table = read_trade_names(["fill=order.filled|order.part", "order_id=oid", "signal="])

    assert table["fill"] == ["order.filled", "order.part"]
    assert table["order_id"] == ["oid"]
    assert table["signal"] == []
    assert table["order"] == list(TRADE_NAMES["order"])


@pytest.mark.parametrize(
    "entry", ["", "fill", "fills=a", "fill=a b", "fill=a||b", "fill=|", "fill=a=b", "fill=" + "|".join("a" * 17)]
)
def test_an_entry_of_another_form_is_refused(entry):
    """A typing mistake should not silently leave the page without trades."""
    with pytest.raises(ValueError):
        read_trade_names([entry])
    with pytest.raises(ValueError):
        BY_NAME["trades"].value_type.from_toml([entry])


def test_the_setting_takes_what_the_table_takes():
    """A flag and the file should lead to the same entries."""
    names = "|".join(f"n{i}" for i in range(MAX_NAMES))
    assert BY_NAME["trades"].value_type.from_text(f"fill={names}, pnl=gain") == (f"fill={names}", "pnl=gain")
