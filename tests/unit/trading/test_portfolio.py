"""The books: exact, balanced, bounded."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from robo_trader.trading.portfolio import Portfolio, Trade, fee_for

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


orders = st.lists(
    st.tuples(st.sampled_from("AB"), st.booleans(), st.integers(1, 50), st.integers(100, 20_000)), max_size=40
)


@settings(max_examples=100, deadline=None)
@given(orders)
def test_the_books_balance_whatever_is_traded(wanted):
    """Property: equity = start + realised + unrealised - fees, cash and quantities never go below zero."""
    books, prices = Portfolio(), {}
    for number, (symbol, buy, quantity, cents) in enumerate(wanted):
        price = Decimal(cents) / 100
        prices[symbol] = price
        fee = fee_for(Decimal(quantity), price)
        before = (books.cash, books.realised, books.fees, dict(books.positions), len(books.trades))
        trade = Trade(NOW, f"P-{number}", symbol, "buy" if buy else "sell", Decimal(quantity), price, fee)
        try:
            books.apply(trade)
        except ValueError:
            assert before == (books.cash, books.realised, books.fees, books.positions, len(books.trades))
        total = books.start + books.realised + books.unrealised(prices) - books.fees
        assert abs(books.equity(prices) - total) < Decimal("1e-18")
        assert books.cash >= 0
        assert all(position.quantity > 0 for position in books.positions.values())


def test_selling_realises_the_difference_to_the_average_price():
    """Bought at 10 and 20, half sold at 30: average 15, gain 15 a share, fees apart."""
    books = Portfolio()
    for number, (side, quantity, price) in enumerate([("buy", 10, 10), ("buy", 10, 20), ("sell", 10, 30)]):
        gain = books.apply(Trade(NOW, f"P-{number}", "A", side, Decimal(quantity), Decimal(price), Decimal(1)))
    assert gain == Decimal(150)
    assert (books.realised, books.fees, books.cash) == (150, 3, Decimal(99_997))
    assert books.held("A").average == 15
    assert books.equity({"A": Decimal(30)}) == 100_000 + 150 + 150 - 3


def test_trades_kept_are_bounded():
    """A bot that runs for months keeps the last trades only; the sums are complete."""
    books = Portfolio(keep=5)
    for number in range(20):
        side = "sell" if number % 2 else "buy"
        books.apply(Trade(NOW, f"P-{number}", "A", side, Decimal(1), Decimal(10), Decimal(1)))
    assert [t.order_id for t in books.trades] == [f"P-{n}" for n in range(15, 20)]
    assert books.fees == 20
