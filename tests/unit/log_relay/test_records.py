"""Records of the logging module and rendered lines: each is recognised, and shipped once."""

from __future__ import annotations

import copy
import logging
import time
import weakref

import pytest
import structlog

from robo_trader.log_relay import records
from robo_trader.log_relay.records import ShippedRecords, chain_of, event_in, passed_chain


def record():
    return logging.makeLogRecord({"msg": "the same", "name": "lib"})


def test_a_record_is_new_once_and_another_of_the_same_text_too():
    """Identity counts, not what it says."""
    shipped, one, two = ShippedRecords(), record(), record()
    assert [shipped.is_new(one), shipped.is_new(one), shipped.is_new(two), shipped.is_new(one)] == [
        True, False, True, False,
    ]  # fmt: skip


def test_a_copy_of_a_record_is_that_record():
    """Structlog's formatter and logging's queue make copies; a clock that stands still makes none."""
    shipped, one = ShippedRecords(), record()
    assert shipped.is_new(logging.makeLogRecord(one.__dict__))
    assert not shipped.is_new(logging.makeLogRecord(one.__dict__))
    assert not shipped.is_new(copy.copy(one))
    assert not shipped.is_new(one)


def test_records_in_the_same_moment_are_two(monkeypatch):
    """Equal times are not one time."""
    moment = time.time()
    monkeypatch.setattr(time, "time", lambda: moment)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    shipped = ShippedRecords()
    kept = [record() for _ in range(100)]
    assert len({one.created for one in kept}) == 1
    assert all(map(shipped.is_new, kept))


def test_records_are_not_kept_alive():
    """Also when the next one gets the memory of the last, each is new."""
    shipped, one = ShippedRecords(), record()
    assert shipped.is_new(one)
    dead = weakref.ref(one)
    del one
    assert dead() is None
    assert all(shipped.is_new(record()) for _ in range(5_000))


def test_what_is_remembered_is_bounded(monkeypatch):
    """The oldest are forgotten, a generation at a time."""
    monkeypatch.setattr(records, "GENERATION", 3)
    shipped, kept = ShippedRecords(), [record() for _ in range(8)]
    assert all(map(shipped.is_new, kept))
    assert len(shipped._seen) + len(shipped._older) == 5
    assert not any(map(shipped.is_new, kept[3:]))
    assert shipped.is_new(kept[0])


def test_what_cannot_be_remembered_is_new():
    """Nothing is lost for it."""
    shipped = ShippedRecords()
    assert shipped.is_new("text")
    assert shipped.is_new("text")


class Seen:
    """A processor that keeps what it saw."""

    def __init__(self):
        self.events = []

    def __call__(self, _logger, _method, event):
        self.events.append(event)
        return event


class Asking(logging.Handler):
    """Asks whether each record passed a chain with `processor`."""

    def __init__(self, processor):
        super().__init__()
        self.processor, self.answers = processor, []

    def emit(self, record):
        self.answers.append(passed_chain(record, self.processor))


@pytest.mark.parametrize("inside", [True, False])
def test_a_record_that_structlog_made_knows_its_chain(inside):
    """With the processor in the chain it has been seen; without it, or when nobody made it with structlog, not."""
    seen = Seen()
    asking = Asking(seen)
    logger = logging.Logger("own")
    logger.addHandler(asking)
    wrap = structlog.stdlib.ProcessorFormatter.wrap_for_formatter
    own = structlog.wrap_logger(
        logger, processors=[seen, wrap] if inside else [wrap], wrapper_class=structlog.stdlib.BoundLogger
    )
    own.warning("x")
    logger.warning("y")
    logger.warning({"event": "z"})
    assert asking.answers == [inside, False, False]


class Chain:
    """What runs a chain has its processors, and hands the event to the logging module in a call of this name."""

    def __init__(self, *processors):
        self._processors = processors

    def _proxy_to_logger(self, args, record):
        return chain_of(record)


class Unlike(Chain):
    """Has the call and no processors."""

    def __init__(self):
        pass


def test_the_chain_is_the_one_whose_event_it_is():
    """A chain that runs at the same time for another event, or that has none, made another record."""
    event = {"event": "x"}
    made = logging.makeLogRecord({"msg": event})
    assert Chain("a", "b")._proxy_to_logger((event,), made) == ("a", "b")
    assert Chain("a")._proxy_to_logger((dict(event),), made) is None
    assert Chain("a")._proxy_to_logger((), made) is None
    assert Chain("a")._proxy_to_logger([event], made) is None
    assert Unlike()._proxy_to_logger((event,), made) == ()


def test_what_is_no_record_has_no_chain():
    """Whatever it is, asking does not fail."""
    assert chain_of(object()) is None
    assert chain_of(record()) is None


@pytest.mark.parametrize(
    ("value", "event"),
    [
        ("event='x' a=1", {"event": "event='x' a=1"}),
        (b'{"event": "x"}', {"event": '{"event": "x"}'}),
        ("\x1b[2m10:00\x1b[0m [\x1b[1;32minfo\x1b[0m] x", {"event": "10:00 [info] x"}),
        ((("x",), {}), {"event": "x"}),
        ((("x %d", 5), {"extra": {"a": 1}}), {"event": "x %d", "positional_args": (5,), "extra": {"a": 1}}),
        ((("x",), {"event": "mine"}), {"event": "x", "event_": "mine"}),
        ((("x", 5), {"positional_args": 1}), {"event": "x", "positional_args": (5,), "positional_args_": 1}),
        ((("x",),), {"event": "x"}),
        ((("x",), 5), {"event": "x"}),
        ((({"event": "x", "a": 1},), {"extra": {}}), {"event": "x", "a": 1}),
        ((), {"event": "<tuple>"}),
        (((),), {"event": "<tuple>"}),
        (((5,), {}), {"event": "<tuple>"}),
        (None, {"event": "<NoneType>"}),
    ],
    ids=repr,
)
def test_the_event_in_what_a_renderer_made(value, event):
    """The text of a line is its message, without the colours of a terminal."""
    assert event_in(value) == event
