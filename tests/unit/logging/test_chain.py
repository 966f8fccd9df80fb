"""The chain: what reaches the relay and the console, in every way a line can be logged."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import threading

import pytest
import structlog

from robo_trader.logger import get_logger, reset_structlog, setup_structlog
from robo_trader.logging import chain as chain_module
from robo_trader.logging.redaction import Redactor
from tests.support.threads import running

SECRET = "hunter2correcthorse"


def lines(console):
    return [json.loads(line) for line in console.getvalue().splitlines()]


@pytest.mark.parametrize(
    "name", ["warn", "fatal", "msg", "exception", "ainfo", "err", "notice", "trace", "level 17", ""]
)
def test_the_chain_takes_unknown_method_names(chain, name):
    """A generic structlog logger passes any method name on; none of them may raise, and the name is not lost."""
    recorder, _ = chain()
    generic = structlog.wrap_logger(
        chain_module._installed.console, processors=[*chain_module._installed.chain[:-1], lambda *_: ((), {})],
        wrapper_class=structlog.BoundLogger,
    )  # fmt: skip
    event = {"event": "x"}
    for processor in generic._processors[:-1]:
        event = processor(None, name, event)
    assert event["level"] in ("debug", "info", "warning", "error", "critical")
    if name in ("notice", "level 17"):
        assert event["level_name"] == name
    assert len(recorder.seen) == 1


@pytest.mark.parametrize(
    "arguments", [("%d and %d", 1), ("%d", "x"), ("100% sure", 5), (None, 1), (5, 1), ("%(a)s", {"b": 1})]
)
def test_arguments_that_do_not_fit_never_raise(chain, arguments):
    """A wrong format costs the format, not the line and not the trade."""
    recorder, _ = chain()
    get_logger().info(*arguments)
    (event,) = recorder.events
    assert str(arguments[1]) in str(event["event"])


@pytest.mark.parametrize("event", ["text", 5, None, ValueError("x"), {"a": 1}, b"bytes"])
def test_any_event_object_passes(chain, event):
    """The event may be anything, or missing."""
    recorder, console = chain()
    get_logger().info(event)
    assert len(recorder.seen) == 1
    assert len(lines(console)) == 1


def test_stream_and_console_levels_are_independent(chain):
    """Debug lines reach the relay although the console shows warnings only, and the other way round."""
    recorder, console = chain(level="warning", stream_level="debug")
    get_logger().debug("low")
    get_logger().warning("high")
    assert [e["event"] for e in recorder.events] == ["low", "high"]
    assert [e["event"] for e in lines(console)] == ["high"]


def test_the_environment_sets_the_stream_level(chain, monkeypatch, relay):
    """LOGRELAY_LEVEL=debug brings debug lines to the real relay while the console stays at info."""
    monkeypatch.setenv("LOGRELAY_LEVEL", "DEBUG")
    console = io.StringIO()
    setup_structlog(socket=relay.path, stream=console, form="json")
    get_logger().debug("low")
    relay.wait(lambda r: len(r.logs) == 1)
    assert relay.logs[0][3] == "debug"
    assert not console.getvalue()


def test_a_bad_level_in_the_environment_is_named_and_survived(chain, monkeypatch, capfd):
    """A typing error must not stop a trading bot: one line on stderr with the allowed words, then info."""
    monkeypatch.setenv("LOGRELAY_LEVEL", "verbose")
    recorder, _ = chain()
    chain()
    get_logger().debug("no")
    said = capfd.readouterr().err
    assert said.count("LOGRELAY_LEVEL='verbose'") == 1
    assert "debug, info, warning, error, critical" in said
    assert not recorder.seen


def test_a_bad_argument_is_an_error():
    """In code a wrong level is a mistake to fix, not to guess about."""
    with pytest.raises(ValueError, match="one of debug, info"):
        setup_structlog(level="loud", relay=False)
    with pytest.raises(ValueError, match="auto, console, colour, json"):
        setup_structlog(form="xml", relay=False)


def failing():
    local = "value of a local variable"
    raise ValueError(f"refused, password={SECRET} {len(local)}")


def test_contextvars_of_one_task_never_appear_in_another(chain):
    """Two interleaved tasks and a thread each see their own context only."""
    recorder, _ = chain()

    async def task(name, turns):
        structlog.contextvars.bind_contextvars(**{f"only_{name}": name})
        for _ in range(turns):
            get_logger().info("x", who=name)
            await asyncio.sleep(0)
            await get_logger().ainfo("x", who=name)

    async def both():
        await asyncio.gather(task("a", 20), task("b", 20))

    asyncio.run(both())
    with running(lambda: get_logger().info("x", who="t")):
        pass
    assert len(recorder.events) == 81
    for event in recorder.events:
        assert {key for key in event if key.startswith("only_")} == ({f"only_{event['who']}"} - {"only_t"})


def test_trouble_says_where_it_came_from(chain):
    """From warning up a line names file, line and function of the caller; below it does not, as that costs."""
    recorder, _ = chain()
    get_logger().info("x")
    get_logger().warning("x")
    asyncio.run(get_logger().aerror("x"))
    get_logger().log(40, "x")
    info, warning, _error, log = recorder.events
    assert "at" not in info
    assert warning["at"].startswith("test_chain.py:")
    assert warning["at"].endswith("test_trouble_says_where_it_came_from")
    assert log["at"].endswith("test_trouble_says_where_it_came_from")


def test_audit_and_security_are_never_streamed(relay, monkeypatch):
    """The excluded loggers and their children stay on the console; the environment adds to them."""
    monkeypatch.setenv("LOGRELAY_EXCLUDE", "billing, ,secret.plan")
    console = io.StringIO()
    setup_structlog(socket=relay.path, stream=console, form="json")
    names = [
        "audit",
        "audit.trail",
        "security",
        "billing",
        "billing.x",
        "secret.plan",
        "auditor",
        "robo_trader.risk",
    ]
    for name in names:
        get_logger(name).info("x")
        logging.getLogger(name).info("y")
    relay.wait(lambda r: len(r.logs) >= 4)
    get_logger("last").info("z")
    relay.wait(lambda r: r.events[-1]["event"] == "z")
    assert {e["logger"] for e in relay.events} == {"auditor", "robo_trader.risk", "last"}
    assert {e["logger"] for e in lines(console)} == {*names, "last"}


def test_exclude_can_be_given(relay):
    """An argument replaces the default exclusions."""
    setup_structlog(socket=relay.path, stream=io.StringIO(), exclude=["mine"])
    get_logger("mine").info("no")
    get_logger("audit").info("yes")
    relay.wait(lambda r: r.logs)
    assert [e["event"] for e in relay.events] == ["yes"]


def test_planted_secrets_never_reach_the_socket(relay, monkeypatch):
    """Secrets in every place a line can hold one: none of them is in any byte that the relay receives."""
    monkeypatch.setenv("BROKER_TOKEN", "onlyknownbyvalue77")
    console = io.StringIO()
    setup_structlog(socket=relay.path, stream=console, form="json", stream_level="debug")
    log = get_logger("robo_trader.x").bind(password=SECRET)
    structlog.contextvars.bind_contextvars(api_key=SECRET)
    log.info(f"token={SECRET}", headers=[("Authorization", SECRET)], nested={"a": [{"secret": SECRET}]})
    log.info("login as %s with password=%s", "bob", SECRET)
    log.debug("x", bare="onlyknownbyvalue77", raw=f"passwd: {SECRET}".encode())
    logging.getLogger("lib").warning("url https://bob:%s@host/", SECRET, extra={"session_token": SECRET})
    try:
        try:
            failing()
        except ValueError as error:
            raise RuntimeError(f"Authorization: Bearer {SECRET}") from error
    except RuntimeError:
        log.exception("failed", error=ValueError(f"secret={SECRET}"))
        logging.getLogger("lib").exception("failed %s", {"cookie": SECRET})
    relay.wait(lambda r: len(r.logs) == 6)
    for shown in (repr(relay.logs), console.getvalue()):
        assert SECRET not in shown
        assert "onlyknownbyvalue77" not in shown
        assert "Traceback" in shown


def test_the_renderer_does_not_reach_into_what_was_shipped(chain):
    """The relay gets the event before any renderer, with the caller's own types."""
    recorder, _ = chain(form="console")
    get_logger().info("x", n=1, values=[1, 2])
    assert recorder.events[0]["values"] == [1, 2]
    assert {"event", "level", "logger", "timestamp"} <= set(recorder.events[0])
    assert recorder.events[0]["timestamp"].endswith("Z")


def test_colours_can_be_asked_for_where_there_is_no_terminal(chain):
    """`make run` writes its trader into a pipe, and knows itself whether a terminal is behind it."""
    for form, coloured in (("console", False), ("colour", True)):
        _, stream = chain(form=form)
        get_logger().info("x", n=1)
        assert ("\x1b[" in stream.getvalue()) == coloured


def test_setting_up_twice_doubles_nothing(relay):
    """A second setup keeps the connection, and every line still comes once, on both sides."""
    first = setup_structlog(socket=relay.path, stream=io.StringIO())
    hook, thread_hook = sys.excepthook, threading.excepthook
    console = io.StringIO()
    second = setup_structlog(socket=relay.path, stream=console, form="json")
    assert second is first
    get_logger().info("own")
    logging.getLogger("lib").warning("foreign")
    relay.wait(lambda r: len(r.logs) >= 2)
    assert [e["event"] for e in relay.events] == ["own", "foreign"]
    assert [e["event"] for e in lines(console)] == ["own", "foreign"]
    assert len(relay.hellos) == 1
    reset_structlog()
    assert sys.excepthook is not hook
    assert threading.excepthook is not thread_hook
    assert sys.excepthook is sys.__excepthook__


def test_loggers_that_exist_follow_a_new_setup(chain):
    """Early, bound and cached loggers use the newest chain, console and levels."""
    early = get_logger("early")
    early_bound = early.bind(x=1)
    chain()
    cached = get_logger("cached")
    cached.info("first")
    bound = cached.bind(y=2)
    bound.debug("not yet")
    recorder, console = chain(level="debug", stream_level="debug")
    for log in (early, early_bound, cached, bound):
        log.debug("second")
    assert [e["event"] for e in recorder.events] == ["second"] * 4
    assert len(lines(console)) == 3  # what was bound before any setup prints through structlog's own stdout logger


def test_reset_takes_everything_back(chain):
    """After a reset there is no handler, no hook, and the root logger's level is what it was."""
    before = (
        list(logging.getLogger().handlers),
        logging.getLogger().level,
        sys.excepthook,
        threading.excepthook,
    )
    chain(level="debug")
    reset_structlog()
    after = (
        list(logging.getLogger().handlers),
        logging.getLogger().level,
        sys.excepthook,
        threading.excepthook,
    )
    assert after == before


def test_capture_logs_sees_events_and_ships_nothing(chain):
    """structlog's own test helper works; afterwards shipping resumes."""
    recorder, _ = chain()
    log = get_logger()
    log.info("before")
    with structlog.testing.capture_logs() as captured:
        log.info("within")
    log.info("after")
    assert [e["event"] for e in captured] == ["within"]
    assert [e["event"] for e in recorder.events] == ["before", "after"]


def test_importing_the_logger_has_no_effect_and_loads_nothing_heavy():
    """Import starts no thread, opens no socket, configures nothing, and leaves the relay's libraries alone."""
    code = (
        "import sys, threading, os, logging\n"
        "fds = set(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else set()\n"
        "import structlog\n"
        "import robo_trader.logger\n"
        "heavy = {'logrelay', 'websockets', 'click', 'orjson', 'uvloop'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert threading.active_count() == 1\n"
        "assert not structlog.is_configured()\n"
        "assert not logging.getLogger().handlers\n"
        "assert sys.excepthook is sys.__excepthook__\n"
        "assert not fds or set(os.listdir('/proc/self/fd')) == fds\n"
        "assert {'setup_structlog', 'get_logger', 'LogRelayProcessor'} <= set(robo_trader.logger.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_redactor_can_be_given(chain):
    """The owner's own rules replace the default."""
    recorder, _ = chain(redactor=Redactor(keys=["iban"]))
    get_logger().info("x", iban="DE00", symbol="A")
    assert recorder.events[0]["iban"] == "[redacted]"


def ours_aside(event):
    return {k: v for k, v in event.items() if k not in ("event", "level", "logger", "timestamp")}


def test_fields_named_like_ours_are_set_aside(chain):
    """The line has our words under its own names, and the caller's with an underscore; others are untouched."""
    recorder, console = chain()
    own = {"id": 1, "type": "t", "message": "m", "source": "s", "app": "a", "run": "r", "context": {}, "name": "n"}
    get_logger("here").info("x", level="tier-1", timestamp="T", logger=5, level_="mine", **own)
    (event,) = recorder.events
    assert (event["level"], event["logger"], event["event"]) == ("info", "here", "x")
    assert event["timestamp"].endswith("Z")
    assert ours_aside(event) == {"level_": "mine", "level__": "tier-1", "timestamp_": "T", "logger_": 5, **own}
    assert lines(console)[0] == event


@pytest.mark.parametrize("logger", [0, 5, {"a": 1}, ["x"], True])
def test_a_logger_that_is_no_text_is_a_field(chain, logger):
    """A text is where the line comes from, as always; nothing is nothing."""
    recorder, _ = chain()
    get_logger("here").info("x", logger=logger)
    get_logger("here").info("x", logger="there")
    get_logger("here").info("x", logger=None)
    first, second, third = recorder.events
    assert (first["logger"], first["logger_"]) == ("here", logger)
    assert (second["logger"], third["logger"]) == ("there", "here")
    assert "logger_" not in second
    assert "logger_" not in third


def test_exception_and_stack_of_the_callers_own_are_set_aside(chain):
    """Only where the line has one of ours as well."""
    recorder, _ = chain()
    get_logger().error("x", exception="mine", stack="mine", exc_info=ValueError("v"), stack_info=True)
    get_logger().error("x", exception="mine", stack="mine")
    first, second = recorder.events
    assert (first["exception_"], first["stack_"]) == ("mine", "mine")
    assert first["exception"] == "ValueError: v"
    assert first["stack"].startswith("Stack (most")
    assert (second["exception"], second["stack"]) == ("mine", "mine")
    assert "exception_" not in second


def test_context_variables_named_like_ours_are_set_aside(chain):
    """They are there for the whole task; a field of the line still beats one of the same name."""
    recorder, _ = chain()
    structlog.contextvars.bind_contextvars(event="ctx", level=3, timestamp="T", at="A", n=1, m=1)
    get_logger("here").info("x", n=2)
    logging.getLogger("lib").warning("y", extra={"n": 3})
    first, second = recorder.events
    assert ours_aside(first) == {"n": 2, "m": 1, "event_": "ctx", "level_": 3, "timestamp_": "T", "at": "A"}
    assert (second["event"], second["level"], second["n"], second["m"]) == ("y", "warning", 3, 1)
    assert (second["event_"], second["level_"], second["timestamp_"], second["at_"]) == ("ctx", 3, "T", "A")


def test_the_name_of_an_unknown_level_does_not_replace_a_field(chain):
    """A method's name is kept beside it."""
    chain()
    event = chain_module.add_level(None, "notice", {"event": "x", "level_name": "mine"})
    assert event == {"event": "x", "level_name": "notice", "level_name_": "mine", "level": "info"}


def test_a_bound_name_is_a_field(chain):
    """`get_logger` takes the logger's name in front, or by its name, and everything else as fields."""
    recorder, _ = chain()
    get_logger("here", name="n", self=1).info("x")
    get_logger(name="there").info("x")
    first, second = recorder.events
    assert (first["logger"], first["name"], first["self"]) == ("here", "n", 1)
    assert (second["logger"], "name" in second) == ("there", False)
