"""The paper trader as a whole: reproducible, and honest in what it logs."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from robo_trader.trading.broker import PaperBroker
from robo_trader.trading.engine import Engine, run
from robo_trader.trading.market import Bar, Minute, SimulatedMarket
from robo_trader.trading.risk import RiskLimits

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


def test_the_same_seed_trades_the_same(chain):
    """Two runs with one seed bring identical trades and books; another seed brings others; pace plays no part."""
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
    """With a file there are no session events: a new date is a new day, and ends the suspension of the last."""
    chain()
    engine = Engine(PaperBroker(1), risk=RiskLimits(daily_loss=Decimal(0)))
    engine.step(Minute(NOW, (bar(10),)))
    assert (engine.day, engine.suspended) == (1, True)
    engine.risk.daily_loss = Decimal(100)
    engine.step(Minute(NOW + timedelta(minutes=1), (bar(10, 1),)))
    assert engine.suspended
    engine.step(Minute(NOW + timedelta(days=1), (bar(10, 1440),)))
    assert (engine.day, engine.suspended) == (2, False)
