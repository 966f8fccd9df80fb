"""Exceptions as text, in whatever form a line brings them."""

import gc
import sys
import weakref

import pytest

from robo_trader.logger import get_logger

SECRET = "hunter2correcthorse"


def failing():
    local = "value of a local variable"
    raise ValueError(f"refused, password={SECRET} {len(local)}")


FORMS = {
    "exception()": lambda log, error: log.exception("x"),
    "exc_info=True": lambda log, error: log.error("x", exc_info=True),
    "exc_info=exception": lambda log, error: log.info("x", exc_info=error),
    "exc_info=tuple": lambda log, error: log.critical("x", exc_info=sys.exc_info()),
    "ready text": lambda log, error: log.error("x", exception=f"ValueError: refused, password={SECRET}"),
}


@pytest.mark.parametrize("form", FORMS)
def test_exceptions_arrive_as_text_without_secrets_and_locals(chain, form):
    """All forms of exc_info become a string; the planted secret is in neither output, nor are local variables."""
    recorder, console = chain()
    try:
        failing()
    except ValueError as error:
        FORMS[form](get_logger(), error)
    (event,) = recorder.events
    assert "exc_info" not in event
    assert "ValueError: refused" in event["exception"]
    for shown in (repr(event), console.getvalue()):
        assert SECRET not in shown
        assert "value of a local variable" not in shown.replace('local = "value of a local variable"', "")


@pytest.mark.parametrize("exc_info", [False, None, True, "text", 5, (None, None, None), (1, 2, 3), object()])
def test_odd_exc_info_never_raises(chain, exc_info):
    """No exception, or no exception at all: the line comes."""
    recorder, _ = chain()
    get_logger().error("x", exc_info=exc_info)
    assert recorder.events[0]["event"] == "x"
    assert "exc_info" not in recorder.events[0]


def test_no_frame_stays_referenced(chain):
    """After the call nothing of ours keeps the frames of the exception alive."""
    recorder, _ = chain()

    class Local:
        pass

    def scene():
        thing = Local()
        try:
            raise ValueError
        except ValueError:
            get_logger().exception("x")
        return weakref.ref(thing)

    gone = scene()
    gc.collect()
    assert gone() is None
    assert recorder.events


def test_stack_info_becomes_text(chain):
    """`stack_info=True` adds the stack as text."""
    recorder, _ = chain()
    get_logger().info("x", stack_info=True)
    assert "test_stack_info_becomes_text" in recorder.events[0]["stack"]
