"""The console: one line per event whatever is in it, and never a harm to the bot."""

import io
import json
import os

import pytest

from robo_trader.logger import get_logger, setup_structlog
from robo_trader.logging import chain as chain_module


def lines(console):
    return [json.loads(line) for line in console.getvalue().splitlines()]


@pytest.mark.parametrize("form", ["json", "console"])
def test_unrenderable_values_do_not_raise(chain, form):
    """Values that cannot be shown, keys that are no names, circles, surrogates, NaN: a line comes out, one each."""

    class Broken:
        def __repr__(self):
            raise RuntimeError

        __str__ = __repr__

    circle = {}
    circle["me"] = circle
    recorder, console = chain(form=form)
    for value in (Broken(), circle, "\ud800", float("nan"), {(1, 2): 3}, b"\xff", {1, 2}, 10**5000):
        get_logger().info("x", v=value, **{"odd \n key": 1})
    assert len(recorder.seen) == 8
    assert len(console.getvalue().splitlines()) == 8


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_object_that_logs_itself_makes_two_lines(relay, form):
    """Asked once for its repr it logs once; the inner line names its type, and both lines arrive, inner first."""

    class Chatty:
        def __repr__(self):
            get_logger().info("inner", me=self)
            return "chatty"

    console = io.StringIO()
    setup_structlog(socket=relay.path, stream=console, form=form)
    get_logger().info("outer", me=Chatty())
    relay.wait(lambda r: len(r.logs) >= 2)
    assert [(e["event"], e["me"]) for e in relay.events] == [("inner", "<Chatty>"), ("outer", "chatty")]
    assert len(console.getvalue().splitlines()) == 2


def test_values_cannot_forge_lines_or_move_the_cursor(chain):
    """Newlines and escape sequences in messages, keys and values are shown, not obeyed."""
    _, console = chain(form="console")
    get_logger("a\nb").info("one\ntwo\x1b[2J", key="x\r\ny\x1b]0;title\x07")
    assert len(console.getvalue().splitlines()) == 1
    assert "\x1b" not in console.getvalue()


def test_a_console_that_is_gone_costs_only_the_console(relay):
    """The reader of the pipe went away: no exception, lines still reach the relay, the loss is counted."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        setup_structlog(socket=relay.path, stream=stream)
        os.close(reading)
        before = chain_module._installed.console.lost
        get_logger().info("x")
        relay.wait(lambda r: len(r.logs) == 1)
        assert chain_module._installed.console.lost == before + 1


def test_a_closed_stream_is_never_written_to(chain, tmp_path):
    """Its descriptor's number may by then belong to a socket or to somebody's file."""
    with (tmp_path / "console").open("w") as stream:
        chain(stream=stream)
        number = stream.fileno()
    with (tmp_path / "other").open("w") as other:
        assert other.fileno() == number
        get_logger().info("x")
    assert not (tmp_path / "other").read_text()


def test_the_form_follows_the_output(monkeypatch):
    """JSON lines where no person looks, colours on a terminal, no colours with NO_COLOR; the environment decides over
    auto."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def shown(stream):
        setup_structlog(relay=False, stream=stream)
        get_logger().info("hello", n=1)
        return stream.getvalue()

    assert json.loads(shown(io.StringIO()))["event"] == "hello"
    assert "\x1b[" in shown(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in shown(Terminal())
    monkeypatch.setenv("ROBO_LOG_FORMAT", "console")
    assert "n=1" in shown(io.StringIO())
