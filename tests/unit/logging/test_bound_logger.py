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


# --- names that clash -------------------------------------------------------------------------------------------------

NAMES = ["self", "event", "method_name", "word", "level", "args", "kw", "positional_args", "logger", "timestamp"]


@pytest.mark.parametrize("method", [*METHODS, "log"])
@pytest.mark.parametrize("name", NAMES)
def test_a_field_may_have_any_name(chain, method, name):
    """No name of ours makes a call fail or costs the field; what clashes gets an underscore."""
    recorder, console = chain(level="debug", stream_level="debug", foreign=False)
    call = [20] if method == "log" else []
    getattr(get_logger("a"), method)(*call, "ws", **{name: 5})
    (event,) = recorder.events
    own = f"{name}_" if name in ("event", "level", "positional_args", "logger", "timestamp") else name
    assert (event["event"], event["logger"], event[own]) == ("ws", "a", 5)
    assert lines(console)[0][own] == 5


@pytest.mark.parametrize("method", [*METHODS, "log"])
@pytest.mark.parametrize("name", NAMES)
def test_a_field_of_an_async_call_may_have_any_name(chain, method, name):
    """The same from a coroutine."""
    recorder, _ = chain(level="debug", stream_level="debug", foreign=False)
    call = [20] if method == "log" else []

    async def say():
        await getattr(get_logger("a"), f"a{method}")(*call, "ws", **{name: 5})

    asyncio.run(say())
    (event,) = recorder.events
    own = f"{name}_" if name in ("event", "level", "positional_args", "logger", "timestamp") else name
    assert (event["event"], event[own]) == ("ws", 5)


def test_the_event_may_come_by_its_name(chain):
    """As before: without one in front, the field `event` is the message, and `log` takes its level by name."""
    recorder, _ = chain(foreign=False)
    get_logger().info(event="by name")
    get_logger().log(level=30, event="by name")
    get_logger().bind(event="bound").info()
    assert [(e["level"], e["event"]) for e in recorder.events] == [
        ("info", "by name"), ("warning", "by name"), ("info", "bound"),
    ]  # fmt: skip
    assert not any("event_" in e or "level_" in e for e in recorder.events)


def test_bound_fields_may_have_any_name(chain):
    """Bound ones do not replace the message, and the call's beat them."""
    recorder, _ = chain(foreign=False)
    log = get_logger().bind(n=1)
    bound = log.bind(**{"self": 1, "event": "bound", "event_": "mine"})
    bound.info("x")
    bound.info("x", event="called")
    bound.new(**{"self": 2}).info("x")
    assert [{k: v for k, v in e.items() if k not in ("level", "logger", "timestamp")} for e in recorder.events] == [
        {"n": 1, "self": 1, "event": "x", "event_": "mine", "event__": "bound"},
        {"n": 1, "self": 1, "event": "x", "event_": "mine", "event__": "called"},
        {"self": 2, "event": "x"},
    ]


def test_arguments_and_a_field_called_like_them(chain):
    """Both arrive."""
    recorder, _ = chain(foreign=False)
    get_logger().info("x %d", 1, positional_args="mine")
    assert recorder.events[0]["event"] == "x 1"
    assert recorder.events[0]["positional_args_"] == "mine"


# --- async: what only the moment of the call can tell -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["aerror", "aexception", "awarning", "ainfo", "acritical", "afatal", "alog"])
def test_an_async_call_captures_the_exception(chain, method):
    """exc_info=True means the exception that is being handled when the method is called, awaited later or not."""
    recorder, _ = chain(foreign=False)
    call = [40] if method == "alog" else []

    async def say():
        try:
            raise ValueError("boom")
        except ValueError:
            later = getattr(get_logger(), method)(*call, "x", exc_info=True)
        await later

    asyncio.run(say())
    (event,) = recorder.events
    assert event["exception"].endswith("ValueError: boom")
    assert "exc_info" not in event


def test_an_async_call_without_an_exception_has_none(chain):
    """Also where one was handled before."""
    recorder, _ = chain(foreign=False)

    async def say():
        await get_logger().aerror("x", exc_info=True)
        await get_logger().aerror("x", exc_info=False)
        await get_logger().aerror("x", exc_info=ValueError("given"))

    asyncio.run(say())
    assert [e.get("exception") for e in recorder.events] == [None, None, "ValueError: given"]


@pytest.mark.parametrize("method", ["aerror", "aexception", "awarning", "acritical", "alog"])
@pytest.mark.parametrize("task", [False, True])
def test_an_async_call_says_where_it_was_called(chain, method, task):
    """Not where the loop or the executor runs it."""
    recorder, _ = chain(foreign=False)
    call = [40] if method == "alog" else []

    async def caller_of_it():
        made = getattr(get_logger(), method)(*call, "x")
        await (asyncio.ensure_future(made) if task else made)

    asyncio.run(caller_of_it())
    at = recorder.events[0]["at"]
    assert at.startswith("test_bound_logger.py:")
    assert at.endswith(" caller_of_it")


def test_an_async_call_shows_the_callers_stack(chain):
    """`stack_info` is the caller's, and a field `stack` is kept."""
    recorder, _ = chain(foreign=False)

    async def caller_of_it():
        await get_logger().ainfo("x", stack_info=True, stack="mine")

    asyncio.run(caller_of_it())
    (event,) = recorder.events
    assert event["stack"].startswith("Stack (most recent call last):")
    assert "in caller_of_it" in event["stack"].splitlines()[-2]
    assert event["stack_"] == "mine"
    assert "stack_info" not in event


def test_an_async_call_at_the_end_of_the_loop_is_not_lost(chain):
    """An executor that takes no more calls: the line is logged here and now."""
    recorder, _ = chain(foreign=False)

    async def say():
        await get_logger().ainfo("first")
        await asyncio.get_running_loop().shutdown_default_executor()
        await get_logger().ainfo("last")

    asyncio.run(say())
    assert [e["event"] for e in recorder.events] == ["first", "last"]


def test_an_async_call_below_the_threshold_does_nothing(chain):
    """It can be awaited all the same."""
    recorder, _ = chain(foreign=False)
    asyncio.run(get_logger().adebug("x", event="y"))
    asyncio.run(get_logger().alog(5, "x"))
    bound_logger.TraderLogger.threshold(50)
    asyncio.run(get_logger().aexception("x"))
    assert recorder.events == []
