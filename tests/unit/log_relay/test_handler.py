"""The handler of the logging module: every record arrives once and without secrets, and the bot feels nothing."""

from __future__ import annotations

import logging
import logging.config
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from robo_trader.log_relay import LogRelayHandler, LogRelayProcessor, environment
from robo_trader.log_relay import handler as module
from tests.support.waiting import DEADLINE_S, wait_for

ROOT = Path(__file__).parents[3]
CLASS = "robo_trader.log_relay.LogRelayHandler"


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    """The logging module as it was."""
    for name in ("LEVEL", "EXCLUDE", "APP"):
        monkeypatch.delenv(f"LOGRELAY_{name}", raising=False)
    monkeypatch.setattr(environment, "_said", set())
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    yield
    root.handlers[:], root.manager.disable = handlers, disabled
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def make(sock):
    """Make handlers for the test's socket, on the root logger; they are closed at the end."""
    made = []

    def make(socket=sock, **options):
        handler = LogRelayHandler(socket, **{"level": "debug", "exit_timeout": 0.5, "app": "test"} | options)
        made.append(handler)
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(1)
        return handler

    yield make
    for handler in made:
        logging.getLogger().removeHandler(handler)
        handler.processor.close(0.0)
        handler.close()
    for handler in made:
        wait_for(lambda sender=handler.processor._sender: not sender.running, "the end of the sender's thread")


@pytest.fixture
def arrived(make, peer):
    """Log through a handler; return the events, with the levels under `level`."""
    handler = make()

    def arrived():
        assert handler.processor.flush(DEADLINE_S)
        (lines,) = peer.lines.values()
        return [line[3] | {"level": line[2]} for line in lines]

    return arrived


LOG = logging.getLogger("bot.engine")


def test_a_record_is_a_line(arrived):
    """Message, logger, level, extra fields; the place from warning up."""
    LOG.info("filled %d %s", 5, "AAPL", extra={"order_id": 7, "legs": [1, 2]})
    LOG.warning("late")
    first, second = arrived()
    assert first == {
        "event": "filled 5 AAPL", "logger": "bot.engine", "order_id": 7, "legs": [1, 2], "level": "info"
    }  # fmt: skip
    place, _, function = second.pop("at").partition(" ")
    assert place.startswith("test_handler.py:")
    assert function == "test_a_record_is_a_line"
    assert second == {"event": "late", "logger": "bot.engine", "level": "warning"}


@pytest.mark.parametrize(
    ("number", "word", "name"),
    [(7, "debug", "Level 7"), (10, "debug", None), (23, "info", "HEARD"), (37, "warning", "Level 37"),
     (50, "critical", None), (73, "critical", "Level 73")],
)  # fmt: skip
def test_levels_of_ones_own(make, peer, number, word, name):
    """They count as the next below, and keep their name."""
    handler = make(level=1)
    logging.addLevelName(23, "HEARD")
    LOG.log(number, "hi")
    assert handler.processor.flush(DEADLINE_S)
    (lines,) = peer.lines.values()
    assert [(line[2], line[3].get("level_name")) for line in lines] == [(word, name)]


def test_names_of_the_line_itself_are_kept_for_it(arrived):
    """An extra field of such a name gets another; `message` and the like are refused by logging."""
    LOG.info("hi", extra={"event": "e", "level": "l", "logger": "g", "timestamp": 1, "exception": "x", "stack": "s"})
    (event,) = arrived()
    assert (event["event"], event["logger"], event["level"]) == ("hi", "bot.engine", "info")
    assert [event[f"{name}_"] for name in ("event", "level", "logger", "timestamp", "exception", "stack")] == [
        "e", "l", "g", 1, "x", "s"
    ]  # fmt: skip


def test_a_name_with_an_underscore_of_the_callers_own_stays(arrived):
    """Both arrive: ours gives way, docs/values.md."""
    LOG.info("x", extra={"level": 1, "level_": 2, "event": "mine"})
    (event,) = arrived()
    assert (event["level"], event["level_"], event["level__"], event["event_"]) == ("info", 2, 1, "mine")


def test_a_record_that_comes_twice_is_shipped_once(make, peer):
    """The handler stands on two loggers of one branch; the same text again is another record."""
    handler = make()
    LOG.addHandler(handler)
    try:
        for _ in range(3):
            LOG.info("the same")
    finally:
        LOG.removeHandler(handler)
    assert handler.processor.flush(DEADLINE_S)
    assert [event["event"] for event in peer.events()] == ["the same"] * 3


def test_exceptions_and_stacks(arrived):
    """As text; also those that another handler formatted already."""
    try:
        raise ValueError("boom api_key=a1b2c3d4e5f6")
    except ValueError:
        LOG.exception("failed")
        LOG.info("again", exc_info=True, stack_info=True)
    LOG.info("nothing", exc_info=True)
    record = logging.makeLogRecord({"msg": "sent on", "name": "other", "levelno": 20, "exc_text": "Traceback: x"})
    logging.getLogger().handle(record)
    failed, again, nothing, sent = arrived()
    assert failed["exception"].startswith("Traceback (most recent call last)")
    assert failed["exception"].endswith("ValueError: boom api_key=[redacted]")
    assert "test_handler.py" in again["stack"]
    assert "ValueError" in again["exception"]
    assert "exc_info" not in again
    assert "exception" not in nothing or "NoneType" in nothing["exception"]
    assert sent["exception"] == "Traceback: x"


def test_no_secret_arrives(arrived):
    """In the message, its arguments and the extra fields."""
    LOG.info("login %s", "token=ghp_a1B2c3D4e5a1B2c3D4e5", extra={"api_key": "swordfish", "auth": {"password": "gull"}})
    (event,) = arrived()
    assert event["event"] == "login token=[redacted]"
    assert (event["api_key"], event["auth"]) == ("[redacted]", {"password": "[redacted]"})


def only_ours():
    """Take pytest's own handlers away, which fail where ours must not."""
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, LogRelayHandler)]


class Failing:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


class Chatty:
    def __repr__(self):
        LOG.info("asked")
        return "<chatty>"


class Endless:
    def __repr__(self):
        LOG.info("%r", self)
        return "<endless>"


def test_values_that_misbehave(arrived, capfd):
    """Arguments that do not fit or raise, a repr that logs, and one that logs itself: no call raises or prints."""
    only_ours()
    LOG.info("%d bars", "many")
    LOG.info("%s", Failing())
    LOG.info("%r is asked", Chatty())
    LOG.info("endless %r", Endless())
    LOG.info(Failing())
    texts = [event["event"] for event in arrived()]
    assert texts[0] == "%d bars ('many',)"
    assert texts[1].endswith("could not be formatted]")
    assert texts[2:4] == ["asked", "<chatty> is asked"]
    assert texts[-2] == "endless <endless>"
    assert len(texts) == 2 + 2 + module.DEEPEST + 1
    assert capfd.readouterr().err == ""


def test_interrupts_go_through(arrived):
    """KeyboardInterrupt out of a value is the caller's; the next record is shipped."""

    class Interrupts:
        def __repr__(self):
            raise KeyboardInterrupt

    only_ours()
    with pytest.raises(KeyboardInterrupt):
        LOG.info("%r", Interrupts())
    LOG.info("on")
    assert [event["event"] for event in arrived()] == ["on"]


def test_warnings_are_lines(arrived):
    """Those of the warnings module, once they are captured."""
    logging.captureWarnings(capture=True)
    logging._showwarning("old", DeprecationWarning, "bot.py", 12)
    (event,) = arrived()
    assert event["logger"] == "py.warnings"
    assert event["event"].startswith("bot.py:12: DeprecationWarning: old")
    assert "at" not in event


def test_filters_are_asked_and_may_change_the_record(make, peer):
    """As with any handler."""
    handler = make()
    handler.addFilter(lambda record: record.getMessage() != "drop")
    if sys.version_info >= (3, 12):
        handler.addFilter(lambda record: logging.makeLogRecord(vars(record) | {"seen": True}))
    for text in ("drop", "keep"):
        LOG.info(text)
    assert handler.processor.flush(DEADLINE_S)
    (event,) = peer.events()
    assert event["event"] == "keep"
    assert event.get("seen", sys.version_info < (3, 12))


def test_what_a_filter_gave_back_is_given_back(make):
    """As the base class does."""
    handler = make()
    record = logging.makeLogRecord({"msg": "x", "levelno": 20})
    assert handler.handle(record)
    handler.addFilter(lambda _record: False)
    assert not handler.handle(record)


def test_a_record_that_a_filter_made_is_shipped_instead(make, peer):
    """Since Python 3.12 a filter may give back another one."""
    handler = make()
    other = logging.makeLogRecord({"msg": "other", "name": "bot", "levelno": 20})
    handler.filter = lambda _record: other
    assert handler.handle(logging.makeLogRecord({"msg": "x", "levelno": 20})) is other
    assert handler.processor.flush(DEADLINE_S)
    assert [event["event"] for event in peer.events()] == ["other"]


def test_records_that_failed_are_counted(make, monkeypatch):
    """One by one, also those that log themselves; nothing is raised."""
    handler = make()
    assert handler.failures == 0
    only_ours()
    monkeypatch.setattr(module, "event_of", lambda _record, _word: 1 / 0)
    LOG.info("one")
    LOG.info("two")
    assert handler.failures == 2
    monkeypatch.undo()
    for _ in range(2):
        LOG.info("%r", Endless())
    assert handler.failures == 4


def test_blanks_at_the_end_are_left_out_and_those_at_the_beginning_stay(arrived):
    """An indented line is indented for a reason."""
    LOG.info("  indented \n")
    (event,) = arrived()
    assert event["event"] == "  indented"


def test_all_names_of_the_line_are_kept_for_it():
    """Whatever a filter or `extra` puts there, also under what is no text; what formatters leave is no field."""
    record = logging.makeLogRecord({"msg": "x", "name": "bot", "levelno": 20, "exc_info": None})
    vars(record).update({name: name for name in ("event", "level", "logger", "timestamp", "at", "level_name")})
    vars(record).update({5: "five", "asctime": "now", "message": "x", "taskName": "Task-1"})
    assert module.event_of(record, "info") == {
        "event": "x", "logger": "bot", "event_": "event", "level_": "level", "logger_": "logger",
        "timestamp_": "timestamp", "at_": "at", "level_name_": "level_name", "5": "five",
    }  # fmt: skip


def behind_a_queue(event, **fields):
    """A record of structlog as it comes out of a queue: nobody can see its chain any more."""
    return logging.makeLogRecord(
        {"msg": event, "name": "bot", "levelno": 30, "levelname": "WARNING", "_logger": None} | fields
    )


@pytest.mark.parametrize("in_chain", [True, False])
def test_behind_a_queue_the_configured_chain_counts(make, peer, in_chain):
    """With a processor in it the event has been shipped; without one the handler ships it, with the logger's name."""
    handler = make()
    structlog_through_logging(*([handler.processor] if in_chain else []))
    handler.handle(behind_a_queue({"event": "queued"}))
    LOG.info("record")
    assert handler.processor.flush(DEADLINE_S)
    (lines,) = peer.lines.values()
    seen = [(line[2], line[3]["event"], line[3]["logger"]) for line in lines]
    assert seen == [("warning", "queued", "bot")] * (not in_chain) + [("info", "record", "bot.engine")]
    assert handler.failures == 0


def test_behind_a_queue_without_structlog_the_event_is_shipped(make, peer, monkeypatch):
    """The process that listens to the queue need not have it."""
    handler = make()
    monkeypatch.setitem(sys.modules, "structlog", None)
    handler.handle(behind_a_queue({"event": "queued"}))
    monkeypatch.undo()
    assert handler.processor.flush(DEADLINE_S)
    assert [event["event"] for event in peer.events()] == ["queued"]


def test_text_of_a_record_with_a_logger_is_a_message(arrived):
    """Only a dict is an event."""
    logging.getLogger("bot").handle(behind_a_queue("text"))
    (event,) = arrived()
    assert event["event"] == "text"


# --- settings ---------------------------------------------------------------------------------------------------------


def config(sock, **handler):
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"relay": {"class": CLASS, "socket": sock, "exit_timeout": str(DEADLINE_S)} | handler},
        "root": {"level": "DEBUG", "handlers": ["relay"]},
    }


def configured():
    (handler,) = [h for h in logging.getLogger().handlers if isinstance(h, LogRelayHandler)]
    return handler


@pytest.mark.parametrize("how", ["class", "()"])
def test_dict_config_with_plain_text(sock, peer, how):
    """All arguments as text, as a file has them; a second configuration replaces the first and closes it."""
    options = config(
        sock, level="WARNING", app="my_bot", exclude="risk, audit", max_bytes="1048576", redact="on", disabled="no"
    )
    options["handlers"]["relay"][how] = options["handlers"]["relay"].pop("class")
    logging.config.dictConfig(options)
    handler = configured()
    settings = handler.processor._settings
    assert (handler.level, settings["app"], settings["exclude"]) == (30, "my_bot", ("risk", "audit"))
    assert (settings["max_bytes"], settings["exit_timeout"], settings["redact"]) == (1_048_576, DEADLINE_S, True)
    LOG.info("below")
    LOG.warning("above", extra={"password": "gull"})
    logging.getLogger("risk.limits").error("excluded")
    logging.config.dictConfig(config(sock, redact="off"))
    assert handler.processor.stats()["state"] == "closed"
    assert (handler.processor.stats()["acked"], handler.processor.stats()["excluded"]) == (1, 1)
    LOG.warning("second", extra={"password": "gull"})
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "root": {"handlers": []}})
    assert [(e["event"], e["password"]) for e in peer.events()] == [("above", "[redacted]"), ("second", "gull")]


def test_the_level_is_the_handlers(make, monkeypatch, capfd, peer):
    """LOGRELAY_LEVEL unless an argument or setLevel says otherwise; there is no second threshold."""
    monkeypatch.setenv("LOGRELAY_LEVEL", "error")
    handler = make(level=None)
    assert handler.level == 40
    LOG.warning("below")
    handler.setLevel("DEBUG")
    LOG.debug("above")
    assert handler.processor.flush(DEADLINE_S)
    assert [e["event"] for e in peer.events()] == ["above"]
    monkeypatch.setenv("LOGRELAY_LEVEL", "loud")
    assert make(level=None).level == 20
    said = capfd.readouterr().err
    assert "LOGRELAY_LEVEL='loud' is not one of debug, info, warning, error, critical; using info" in said
    monkeypatch.delenv("LOGRELAY_LEVEL")
    assert make(level=None).level == 20
    assert make(level="WARN").level == 30


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"level": "loud"}, "loud"),
        ({"max_bytes": "1MiB"}, "^max_bytes is '1MiB', must be a whole number of bytes; leave it out for the default$"),
        ({"exit_timeout": "x"}, "^exit_timeout is 'x', must be a number of seconds; leave it out for the default$"),
        ({"redact": "perhaps"}, "^redact is 'perhaps', must be on or off; leave it out for the default$"),
        ({"disabled": "perhaps"}, "^disabled is 'perhaps', must be on or off; leave it out for the default$"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(options, said):
    """When the bot is configured; and the logging module, which closes all its handlers at exit, has no half one."""
    before = len(logging._handlerList)
    with pytest.raises(ValueError, match=said):
        LogRelayHandler(**{"socket": "/nonexistent/s"} | options)
    assert len(logging._handlerList) == before


def test_it_takes_a_spool(make, tmp_path):
    """As the processor does, also as text."""
    handler = make(spool=str(tmp_path / "spool"))
    assert handler.processor._settings["spool"] == str(tmp_path / "spool")
    assert make(spool="").processor._settings["spool"] is None


def test_disabled_by_the_environment(make, monkeypatch):
    """As the processor is."""
    monkeypatch.setenv("LOGRELAY_DISABLED", "1")
    handler = make()
    LOG.info("hi")
    assert handler.processor.stats()["state"] == "disabled"


# --- flush, close, fork -----------------------------------------------------------------------------------------------


def test_flush_and_close(make, peer):
    """flush() of the logging module does not wait, with a time it does; close() delivers what is there."""
    handler = make()
    LOG.info("one")
    handler.flush()
    handler.flush(DEADLINE_S)
    assert len(peer.events()) == 1
    LOG.info("two")
    handler.processor.flush(DEADLINE_S)
    handler.close()
    handler.close()
    assert handler.processor.stats()["state"] == "closed"
    LOG.info("three")
    assert [e["event"] for e in peer.events()] == ["one", "two"]
    assert handler.processor.stats()["ignored"] == 1


def test_a_processor_that_is_shared_stays_open(make, ship, peer):
    """A bot with structlog has one already: its connection is used, and closing the handler leaves it."""
    processor = ship()
    handler = make(processor=processor)
    LOG.info("from logging")
    handler.close()
    processor(None, "info", {"event": "from structlog"})
    assert processor.flush(DEADLINE_S)
    assert [e["event"] for e in peer.events()] == ["from logging", "from structlog"]


def test_after_a_fork(arrived, peer, wait_for):
    """The child's records are a run of their own."""
    LOG.info("parent")
    child = os.fork()
    if child == 0:
        try:
            LOG.info("child")
            logging.getLogger().handlers[-1].flush(DEADLINE_S)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    wait_for(lambda: len(peer.lines) == 2 and all(peer.lines.values()))
    assert sorted(lines[0][3]["event"] for lines in peer.lines.values()) == ["child", "parent"]


def test_it_takes_no_lock(make):
    """A fork or a signal may come while a lock is held; there is none."""
    handler = make()
    assert handler.lock is None
    handler.acquire()
    handler.release()


def python(*arguments):
    """Run a program in an environment that says nothing about a relay."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGRELAY_")}
    command = [sys.executable, "-c", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=DEADLINE_S)


EXIT = """
import logging, sys
import atexit; atexit.register(lambda: logging.warning("last"))
from logging.config import dictConfig
relay = {"class": sys.argv[2], "socket": sys.argv[1], "exit_timeout": sys.argv[3]}
dictConfig({"version": 1, "handlers": {"relay": relay},
            "root": {"level": "INFO", "handlers": ["relay"]}})
logging.info("first")
"""


def test_records_of_the_end_of_the_process(peer, sock, wait_for):
    """Exit hooks that log are heard, and the exit is not held up twice."""
    done = python(EXIT, sock, CLASS, str(DEADLINE_S))
    assert done.returncode == 0, done.stderr
    wait_for(lambda: [e["event"] for e in peer.events()] == ["first", "last"])


def test_an_exit_without_a_relay_is_told_once(sock):
    """The processor's own exit hook has told what is lost; logging's, which comes behind it, has nothing to add."""
    done = python("\n".join(line for line in EXIT.splitlines() if "atexit" not in line) + "\n", sock, CLASS, "1")
    assert done.returncode == 0
    assert done.stderr.count("at exit") == 1
    assert "at close" not in done.stderr


# --- beside structlog -------------------------------------------------------------------------------------------------


def structlog_through_logging(*steps):
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, *steps, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


@pytest.mark.parametrize("in_chain", [True, False])
def test_events_of_structlog_are_shipped_once(make, peer, in_chain):
    """By the processor in structlog's chain, or by the handler if there is none."""
    handler = make()
    structlog_through_logging(*([handler.processor] if in_chain else []))
    structlog.get_logger("bot").warning("event", n=1)
    LOG.info("record")
    assert handler.processor.flush(DEADLINE_S)
    (lines,) = peer.lines.values()
    assert [(line[2], line[3]["event"], line[3].get("n")) for line in lines] == [
        ("warning", "event", 1), ("info", "record", None)
    ]  # fmt: skip


@pytest.mark.parametrize("in_chain", [True, False])
def test_the_chain_of_the_logger_itself_counts(make, peer, in_chain):
    """A logger that was bound or wrapped with a chain of its own need not have the one that is configured."""
    handler = make()
    with_relay = [
        structlog.stdlib.add_log_level,
        handler.processor,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    chains = (with_relay, [with_relay[0], with_relay[2]])
    structlog.configure(
        processors=chains[in_chain],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    own = structlog.wrap_logger(
        logging.getLogger("bot"), processors=chains[not in_chain], wrapper_class=structlog.stdlib.BoundLogger
    )
    own.warning("event", n=1)
    assert handler.processor.flush(DEADLINE_S)
    assert [event["event"] for event in peer.events()] == ["event"]


def test_two_handlers_that_share_a_processor_ship_a_record_once(make, ship, peer):
    processor = ship()
    make(processor=processor)
    LOG.addHandler(other := LogRelayHandler(processor=processor, level="debug"))
    try:
        LOG.info("once")
    finally:
        LOG.removeHandler(other)
    assert processor.flush(DEADLINE_S)
    assert [event["event"] for event in peer.events()] == ["once"]


@pytest.mark.parametrize(
    "configure",
    [
        lambda: logging.basicConfig(force=True, handlers=[logging.NullHandler()]),
        lambda: logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "root": {"handlers": []}}),
    ],
    ids=["basicConfig", "dictConfig"],
)
def test_a_handler_that_logging_closes_says_so_once(make, capfd, configure):
    """Its records would stop without a word."""
    make(), make()
    configure()
    assert capfd.readouterr().err.count("has closed the handler: unless the new configuration has one, no further") == 1


def close_as(name, handler):
    """Close it as a module of that name would."""
    exec("handler.close()", {"__name__": name, "handler": handler})


@pytest.mark.parametrize(("name", "said"), [("logging", 1), ("logging.config", 1), ("logging_of_mine", 0), ("bot", 0)])
def test_who_closes_it_decides_whether_that_is_said(make, capfd, name, said):
    """The logging module and its parts."""
    close_as(name, make())
    assert capfd.readouterr().err.count("has closed the handler") == said


def test_closing_again_or_a_disabled_one_is_not_said(make, capfd):
    """No record stops that did not stop before."""
    handler = make()
    handler.close()
    close_as("logging", handler)
    close_as("logging", make(disabled=True))
    shared = make(processor=make().processor)
    shared.close()
    close_as("logging", shared)
    assert "has closed the handler" not in capfd.readouterr().err


def test_a_handler_that_is_closed_is_out_of_the_logging_module():
    """It is not closed again at exit, and its name is free."""
    handler = LogRelayHandler(disabled=True)
    handler.set_name("relay of a test")
    handler.close()
    assert "relay of a test" not in logging._handlers


def test_flush_waits_only_when_it_is_told_to(make, monkeypatch):
    """The time is handed on; without one nothing is asked of the processor."""
    handler, waits = make(), []
    with monkeypatch.context() as patched:
        patched.setattr(type(handler.processor), "flush", lambda _self, timeout: waits.append(timeout))
        handler.flush()
        handler.flush(0.0)
        handler.flush(0.5)
    assert waits == [0.5]


def test_the_defaults_are_those_of_the_processor():
    """As the documentation has them."""
    handler, processor = LogRelayHandler(disabled=True), LogRelayProcessor(disabled=True)
    assert handler.processor._settings | {"level": None} == processor._settings | {"level": None}


def test_a_handler_that_the_bot_closes_says_nothing(make, capfd):
    make().close()
    assert "has closed the handler" not in capfd.readouterr().err


def test_the_processor_in_a_formatter(ship, peer):
    """As a partner of ProcessorFormatter it ships what structlog logs and what others log, redacted."""
    processor = ship()
    handler = logging.StreamHandler(open(os.devnull, "w"))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[
                processor,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(1)
    structlog_through_logging()
    structlog.get_logger("bot").info("event", api_key="swordfish")
    LOG.warning("record %s", "password=swordfish")
    assert processor.flush(DEADLINE_S)
    handler.stream.close()
    first, second = peer.events()
    assert (first["event"], first["api_key"]) == ("event", "[redacted]")
    assert (second["event"], second["logger"]) == ("record password=[redacted]", "bot.engine")


def test_the_package_imports_it_only_when_asked():
    """A bot that does not use the logging module gets none of it."""
    code = "import sys, robo_trader.log_relay as r\nprint('logging' in sys.modules)\nr.LogRelayHandler\n"
    done = python(code + "print('logging' in sys.modules, hasattr(r, 'Other'))")
    assert done.stdout.split() == ["False", "True", "False"], done.stderr


def test_it_is_a_handler_of_the_logging_module():
    """For type checkers and for whoever asks."""
    assert issubclass(LogRelayHandler, logging.Handler)
    assert isinstance(LogRelayHandler(disabled=True).processor, LogRelayProcessor)
