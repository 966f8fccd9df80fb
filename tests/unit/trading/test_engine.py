"""The paper trader: reproducible, exact in its books, honest about bad data."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_trader.trading.broker import Order, OrderRejected, PaperBroker
from robo_trader.trading.engine import Engine, run
from robo_trader.trading.market import Bar, BarsError, Minute, SimulatedMarket, read_bars
from robo_trader.trading.portfolio import Portfolio, Trade, fee_for
from robo_trader.trading.risk import RiskLimits
from robo_trader.trading.strategy import Crossover

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


def bar(close, minute=0, symbol="A"):
    price = Decimal(str(close))
    return Bar(NOW + timedelta(minutes=minute), symbol, price, price, price, price, 100)


def never(_seconds):
    return None


def trade_of(seed, minutes=800, wait=never, **options):
    engine = Engine(PaperBroker(seed))
    run(engine, itertools.islice(SimulatedMarket(seed, **options).minutes(), minutes), wait)
    return engine


# --- the whole ----------------------------------------------------------------------------------------


def test_the_same_seed_trades_the_same(chain):
    """Two runs with one seed bring identical trades and books; another seed brings others; pace plays no
    part."""
    chain()
    waits = []

    def slow(seconds):
        waits.append(seconds)

    first, second, third = trade_of(7), trade_of(7, wait=slow), trade_of(8)
    assert first.portfolio.trades
    assert first.portfolio.trades == second.portfolio.trades
    assert first.portfolio.cash == second.portfolio.cash
    assert first.portfolio.trades != third.portfolio.trades
    assert len(set(waits)) > 1  # bursts pass faster


def test_it_says_what_a_bot_says(chain):
    """Two weeks of trading bring every kind of line, at its level, with its fields."""
    recorder, _ = chain()
    engine = trade_of(1, minutes=4000)
    levels = {e["event"].split(" ")[0]: e["level"] for e in recorder.events}
    for event, level in {
        "engine.started": "info", "session.opened": "info", "session.closed": "info",
        "signal.generated": "info", "order.submitted": "info", "trade.executed": "info",
        "pnl.update": "info", "market.burst": "info", "data.gap": "warning",
        "risk.violation": "warning", "trading.halted": "warning", "trading.resumed": "info",
        "trading.suspended": "critical", "connection.lost": "error", "connection.established": "info",
        "order.rejected": "error", "Retrying": "warning", "engine.stopped": "info",
    }.items():  # fmt: skip
        assert levels.get(event) == level, event
    rejected = [e for e in recorder.events if e["event"] == "order.rejected"]
    assert all("OrderRejected: P-" in e["exception"] for e in rejected)
    assert any("BrokerTimeout" in e["exception"] and "direct cause" in e["exception"] for e in rejected)
    login = next(e for e in recorder.events if "login" in e["event"])
    assert login["logger"] == "brokerlink.http"
    assert login["event"].endswith("token=[redacted]")
    assert recorder.events[0]["event"] == "engine.started"
    assert recorder.events[-1]["event"] == "engine.stopped"
    assert recorder.events[-1]["orders"] == engine.orders
    assert {e["day"] for e in recorder.events if e["event"] == "trade.executed"} > {1, 2}
    lost = sum(e["event"] == "connection.lost" for e in recorder.events)
    back = sum(e["event"] == "connection.established" for e in recorder.events)
    assert lost - back in (0, 1)


def test_the_engine_stops_when_told_and_says_why(chain):
    """The reason that `wait` gives ends the run after that minute and stands in engine.stopped."""
    recorder, _ = chain()
    engine = Engine(PaperBroker(1))
    reasons = iter([None, None, "SIGTERM"])
    assert run(engine, SimulatedMarket(1).minutes(), lambda _s: next(reasons), seed=1) == "SIGTERM"
    assert engine.minutes == 3
    assert recorder.events[-1]["reason"] == "SIGTERM"
    assert recorder.events[0]["seed"] == 1


def test_a_failure_is_said_before_it_spreads(chain):
    """If the feed itself breaks, engine.stopped says failure and the exception goes on."""
    recorder, _ = chain()

    def broken():
        yield next(SimulatedMarket(1).minutes())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Engine(PaperBroker(1)), broken(), never)
    assert recorder.events[-1]["reason"] == "failure"


def test_after_the_loss_limit_nothing_is_bought_that_day(chain):
    """Between trading.suspended and the next session there are sells only."""
    recorder, _ = chain()
    trade_of(1, minutes=4000)
    suspended, seen = False, 0
    for event in recorder.events:
        if event["event"] == "trading.suspended":
            suspended = True
            seen += 1
        elif event["event"] == "session.opened":
            suspended = False
        elif event["event"] == "trade.executed" and suspended:
            assert event["side"] == "sell"
    assert seen


def test_gaps_are_measured_by_the_feeds_own_spacing(chain):
    """Bars every five minutes are no gaps; two missing ones are; a night and a weekend are not."""
    recorder, _ = chain()
    times = [0, 5, 10, 25, 30, 30 + 17 * 60, 35 + 17 * 60, 35 + 3 * 1440]
    minutes = [Minute(NOW + timedelta(minutes=m), (bar(10, m),)) for m in times]
    run(Engine(PaperBroker(1)), minutes, never)
    gaps = [e for e in recorder.events if e["event"] == "data.gap"]
    assert [(e["missing_bars"], e["symbol"]) for e in gaps] == [(2, "A")]


def test_recorded_bars_have_days_too(chain):
    """With a file there are no session events: a new date is a new day, and ends the suspension of the
    last."""
    chain()
    engine = Engine(PaperBroker(1), risk=RiskLimits(daily_loss=Decimal(0)))
    engine.step(Minute(NOW, (bar(10),)))
    assert (engine.day, engine.suspended) == (1, True)
    engine.risk.daily_loss = Decimal(100)
    engine.step(Minute(NOW + timedelta(minutes=1), (bar(10, 1),)))
    assert engine.suspended
    engine.step(Minute(NOW + timedelta(days=1), (bar(10, 1440),)))
    assert (engine.day, engine.suspended) == (2, False)


# --- the books ----------------------------------------------------------------------------------------

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


# --- strategy, risk, broker ---------------------------------------------------------------------------


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


# --- bars from a file ---------------------------------------------------------------------------------


def read(path):
    warned = []
    minutes = list(read_bars(path, lambda line, reason: warned.append((line, reason))))
    return minutes, warned


def test_bars_of_one_time_are_one_minute(tmp_path):
    """Several symbols, any column order and case, a byte-order mark, blank lines: as people's files are."""
    file = tmp_path / "bars.csv"
    file.write_text(
        "\ufeffSymbol,Time,Open,High,Low,Close,Volume,Extra\n"
        "A,2026-01-05T14:30:00Z,1,2,1,2,10,x\n"
        "B,2026-01-05T15:30:00+01:00,5,5,5,5,10,x\n"
        "\n"
        "A,2026-01-05 14:31,2,2,1.5,2,0,x\n"
        "A,1767623520,2,2,1.5,2,0,x\n",
        encoding="utf-8",
    )
    minutes, warned = read(file)
    assert not warned
    assert [[b.symbol for b in m.bars] for m in minutes] == [["A", "B"], ["A"], ["A"]]
    assert [m.time - NOW for m in minutes] == [timedelta(minutes=n) for n in range(3)]
    assert minutes[0].bars[0].close == Decimal(2)


def test_a_bad_row_is_named_by_its_line_and_skipped(tmp_path):
    """Every kind of bad row costs itself only."""
    file = tmp_path / "spy.csv"
    rows = {
        3: "2026-01-05T14:31:00,1,2,1",
        4: "yesterday,1,2,1,2,10",
        5: "2026-01-05T14:31:00,1,2,1,NaN,10",
        6: "2026-01-05T14:31:00,one,2,1,2,10",
        7: "2026-01-05T14:31:00,1,1,2,1,10",
        8: "2026-01-05T14:31:00,1,2,1,2,-5",
        9: "2026-01-05T13:00:00,1,2,1,2,10",
        10: "2026-01-05T14:31:00,1e400,2,1,2,10",
        11: "99999999999999999999,1,2,1,2,10",
        12: "2026-01-05T14:31:00,-1,2,-1,2,10",
    }
    file.write_text(
        "time,open,high,low,close,volume\n2026-01-05T14:30:00,1,2,1,2,10\n"
        + "\n".join(rows.values())
        + "\n2026-01-05T14:32:00,1,2,1,2,10\n"
    )
    minutes, warned = read(file)
    assert [m.bars[0].symbol for m in minutes] == ["SPY", "SPY"]
    assert [line for line, _ in warned] == list(rows)
    assert "has 4 fields" in warned[0][1]
    assert "'yesterday'" in warned[1][1]
    assert "before" in warned[6][1]


def test_a_quoted_line_break_does_not_shift_the_numbers(tmp_path):
    """The line told is the line where the row begins in the file."""
    file = tmp_path / "a.csv"
    file.write_text('time,open,high,low,close,volume\n"2026-\n01-05",1,2,1,2,10\nbad,1,2,1,2,10\n')
    assert [line for line, _ in read(file)[1]] == [2, 4]


@pytest.mark.parametrize("content", [b"", b"a,b,c\n1,2,3\n", b"\x00\xff\xfe\x01" * 50, b"time,open,high,low,close\n"])
def test_a_file_without_a_header_is_refused_at_once(tmp_path, content):
    """One clear error, before anything is traded."""
    file = tmp_path / "x.csv"
    file.write_bytes(content)
    with pytest.raises(BarsError, match=r"x\.csv"):
        read_bars(file, lambda *_: None)


def test_a_file_that_turns_binary_ends_there(tmp_path):
    """Bytes that are no text in the middle: told once, what came before is traded."""
    file = tmp_path / "x.csv"
    good = b"2026-01-05T14:30:00,1,2,1,2,10\n"
    file.write_bytes(b"time,open,high,low,close,volume\n" + good * 2000 + b"\xff\xfe\x00" * 100)
    minutes, warned = read(file)
    assert minutes
    assert len(warned) == 1


def test_a_missing_file_is_named(tmp_path):
    """No file, or a folder."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(BarsError, match="cannot read"):
            read_bars(path, lambda *_: None)
