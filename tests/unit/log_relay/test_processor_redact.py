"""The bare processor takes secrets out of what it ships, and leaves the event of the other processors as it is."""

from __future__ import annotations

import copy
import pickle

import pytest

from robo_trader.log_relay import LogRelayProcessor, Redactor
from robo_trader.log_relay import processor as module
from tests.support.waiting import DEADLINE_S

SECRET = "ghp_" + "a1B2c3D4e5" * 4


@pytest.fixture
def shipped(ship, peer):
    """Log one event through a processor with these options; return what arrives."""

    def log(event, **options):
        processor = ship(**options)
        before = copy.copy(event)
        assert processor(None, "info", event) is event
        assert repr(event) == repr(before)
        assert processor.flush(DEADLINE_S)
        return peer.events()[-1]

    return log


class Order:
    def __repr__(self):
        return f"Order(api_key={SECRET!r})"


@pytest.mark.parametrize(
    "event",
    [
        {"event": "login", "api_key": SECRET},
        {"event": f"using token {SECRET}"},
        {"event": "x", "config": {"exchange": [{"secret": SECRET}]}},
        {"event": "x", "order": Order()},
        {"event": "x", "raw": f"api_key={SECRET}".encode()},
        {"event": "x", SECRET: 1},
        {"event": "x", "exc_info": ValueError(f"api_key={SECRET}")},
        {"event": "x", "text": "word, " * 4_000 + SECRET},
        {"event": "x", "text": "a " * 8_185 + SECRET},  # fourteen characters of it stand before the cut
    ],
    ids=["key", "text", "nested", "object", "bytes", "name", "exception", "long", "cut"],
)
def test_a_secret_does_not_arrive(shipped, event):
    """By default, on the fast way and on the slow one, whole or torn."""
    arrived = repr(shipped(event))
    assert SECRET[:12] not in arrived
    assert SECRET[-12:] not in arrived


def test_what_is_no_secret_arrives_as_it_is(shipped):
    """Numbers, text and nested values."""
    event = {"event": "order.placed", "symbol": "AAPL", "qty": 5, "price": 1.5, "legs": [{"id": "a"}], "none": None}
    assert shipped(event) == event


def test_redaction_can_be_left_to_the_chain(shipped, monkeypatch):
    """Who redacts in front of the processor should not pay twice: no redactor is even made."""
    monkeypatch.setattr(module, "redaction_of", lambda redact: None if redact is False else pytest.fail("made"))
    assert shipped({"event": "x", "api_key": SECRET}, redact=False)["api_key"] == SECRET


def test_a_redactor_with_settings(shipped):
    """It brings its own names."""
    arrived = shipped({"event": "x", "team": "a", "api_key": "b-1"}, redact=Redactor(deny=["team"], allow=["api_key"]))
    assert (arrived["team"], arrived["api_key"]) == ("[redacted]", "b-1")


@pytest.mark.parametrize("more", [{}, {"list": [1]}], ids=["fast", "slow"])
def test_a_function_of_ones_own(shipped, monkeypatch, more):
    """It may change what it gets; behind it the secrets of the environment are hidden all the same."""
    monkeypatch.setenv("BROKER_PASSWORD", "gulls-in-tandem")

    def mine(event):
        event["event"] += "!"
        event["more"] = Order if "list" in event else {"a": 2**70}
        return event

    arrived = shipped({"event": "hi gulls-in-tandem", "api_key": "left", **more}, redact=mine)
    assert arrived["event"] == "hi [redacted]!"
    assert arrived["api_key"] == "left"
    assert arrived["more"] == ({"a": str(2**70)} if not more else repr(Order))


@pytest.mark.parametrize("answer", [None, "text", ZeroDivisionError])
def test_a_function_that_fails_lets_nothing_out(shipped, answer):
    """The line says so, and where it came from."""

    def mine(event):
        if isinstance(answer, type):
            raise answer
        return answer

    arrived = shipped({"event": "hi", "logger": "bot", "password": "gull"}, redact=mine)
    name = "ZeroDivisionError" if isinstance(answer, type) else "TypeError"
    assert arrived == {"event": f"[redacted: the redactor failed, {name}]", "logger": "bot"}


def test_a_function_that_makes_too_much_of_a_line(shipped):
    """What it returns is bounded as any event is."""
    arrived = shipped({"event": "hi"}, redact=lambda _: {"event": "x" * 10_000_000, "more": ["y"] * 100_000})
    assert len(repr(arrived)) < 70_000


def test_what_cannot_redact_is_refused():
    """When the processor is made."""
    with pytest.raises(
        ValueError,
        match=r"^redact is 5, must be True, False, a Redactor or a function; leave it out for the default rules$",
    ):
        LogRelayProcessor(redact=5)


def test_a_disabled_processor_has_no_redactor(monkeypatch):
    """It costs nothing."""
    assert LogRelayProcessor(disabled=True)._redact is None


def test_a_copy_redacts_as_well(ship):
    """Also a pickled one, with a redactor that has settings."""
    for redact in (True, False, Redactor(deny=["team"])):
        one = ship(redact=redact, exit_timeout=0.0)
        for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            other._closed = True
            if redact is False:
                assert other._redact is None
            else:
                assert other._redact({"event": "x", "team": "a", "api_key": SECRET})["api_key"] == "[redacted]"
