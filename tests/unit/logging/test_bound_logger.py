"""What a log call is, before the chain: its level, its threshold, and that it never raises."""

import asyncio
import json
import logging

import pytest
import structlog

from robo_trader.logger import get_logger
from robo_trader.logging import bound_logger


def lines(console):
    return [json.loads(line) for line in console.getvalue().splitlines()]


METHODS = {
    "debug": "debug", "info": "info", "warning": "warning", "warn": "warning", "error": "error",
    "exception": "error", "critical": "critical", "fatal": "critical", "msg": "info",
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_level(chain, method):
    """Each method of the logger arrives with one of the five level words, on both sides."""
    recorder, console = chain(level="debug", stream_level="debug")
    getattr(get_logger("a.b"), method)("hello", n=1)
    ((name, event),) = recorder.seen
    assert name == event["level"] == METHODS[method]
    assert (event["event"], event["logger"], event["n"]) == ("hello", "a.b", 1)
    assert lines(console)[0]["level"] == METHODS[method]


@pytest.mark.parametrize("method", METHODS)
def test_every_async_method_has_its_level(chain, method):
    """The async methods do the same from a coroutine, with the context variables of the task."""
    recorder, _ = chain(level="debug", stream_level="debug", foreign=False)

    async def say():
        structlog.contextvars.bind_contextvars(task="t1")
        try:
            raise ValueError("x")
        except ValueError:
            await getattr(get_logger(), f"a{method}")("hello %s", "you")

    asyncio.run(say())
    (event,) = recorder.events
    assert (event["level"], event["event"], event["task"]) == (METHODS[method], "hello you", "t1")
    assert ("ValueError: x" in event.get("exception", "")) == (method == "exception")


@pytest.mark.parametrize(
    ("number", "word"),
    [(0, "debug"), (10, "debug"), (20, "info"), (25, "info"), (39, "warning"), (50, "critical"),
     (99, "critical"), ("WARN", "warning"), ("nonsense", "info")],
)  # fmt: skip
def test_log_takes_any_number(chain, number, word):
    """`log(25, ...)` is no error: it counts as the next level below."""
    recorder, _ = chain(level="debug", stream_level="debug", foreign=False)
    bound_logger.TraderLogger.threshold(0)
    get_logger().log(number, "x %d", 1)
    asyncio.run(get_logger().alog(number, "y"))
    assert [(e["level"], e["event"]) for e in recorder.events] == [(word, "x 1"), (word, "y")]


def test_below_both_levels_nothing_happens_at_all(chain):
    """A debug call below both thresholds does not even run the chain."""
    ran = []
    _, console = chain(level="info", stream_level="warning", redactor=lambda *a: ran.append(1) or a[2])
    get_logger().debug("low")
    get_logger().log(5, "lower")
    assert not ran
    get_logger().info("shown")
    assert [e["event"] for e in lines(console)] == ["shown"]
    assert not get_logger().is_enabled_for(logging.DEBUG)


def test_a_failing_processor_does_not_reach_the_caller(chain, capfd):
    """If the chain itself breaks, the line is lost, counted and told on stderr once; trading goes on."""

    def broken(*_):
        raise ZeroDivisionError

    chain(redactor=broken)
    get_logger().info("x")
    get_logger().info("x")
    asyncio.run(get_logger().ainfo("x"))
    assert bound_logger.TraderLogger.failures >= 3
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1
    bound_logger.TraderLogger.failures -= 3
