"""Lines of the logging module: each reaches the relay exactly once, whatever else is installed."""

import io
import logging
import logging.config
import logging.handlers
import queue
import threading
import warnings

import pytest
import structlog

from robo_trader.logger import get_logger, reset_structlog
from robo_trader.logging import chain as chain_module
from robo_trader.logging.foreign import ForeignHandler
from tests.support.threads import running


@pytest.fixture
def root():
    """The root logger; handlers and levels added by the test are taken away again."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("others", [0, 1, 2])
def test_foreign_records_come_once_with_any_number_of_root_handlers(chain, root, others):
    """With one, two and three root handlers, some with structlog's formatter, a record is shipped once."""
    for _ in range(others):
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(),
                ]
            )
        )
        root.addHandler(handler)
    recorder, console = chain()
    logging.getLogger("lib.http").info("GET %s", "/x")
    get_logger("own").info("mine")
    assert [(e["logger"], e["event"], e["level"]) for e in recorder.events] == [
        ("lib.http", "GET /x", "info"),
        ("own", "mine", "info"),
    ]
    assert len(console.getvalue().splitlines()) == 2


def test_records_that_structlog_made_are_not_shipped_again(chain, root):
    """An event that goes through ProcessorFormatter on its way to the root logger is not taken as foreign."""
    recorder, _ = chain()
    own = structlog.wrap_logger(
        logging.getLogger("own"),
        processors=[recorder, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    own.info("once", n=1)
    assert [e["event"] for e in recorder.events] == ["once"]


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (1, "debug"),
        (5, "debug"),
        (15, "debug"),
        (25, "info"),
        (35, "warning"),
        (45, "error"),
        (60, "critical"),
    ],
)
def test_custom_levels_go_by_their_number(chain, root, number, level):
    """A library's own level becomes the next known one below, and its name is kept."""
    logging.addLevelName(number, f"CUSTOM{number}")
    recorder, _ = chain(level="debug", stream_level="debug")
    root.setLevel(1)
    for handler in root.handlers:
        if isinstance(handler, ForeignHandler):
            handler.setLevel(1)
    logging.getLogger("lib").log(number, "x")
    (event,) = recorder.events
    assert (event["level"], event["level_name"]) == (level, f"CUSTOM{number}")


def test_odd_extras_do_not_replace_ours(chain):
    """Extras arrive as fields; those with the names of ours are set aside; objects and odd keys do no harm."""
    recorder, _ = chain()
    extra = {
        "event": "e",
        "level": "l",
        "logger": "x",
        "timestamp": 1,
        "exception": 2,
        "order": {"a": 1},
        "o": object(),
        5: 6,
    }
    logging.getLogger("lib").warning("text", extra=extra)
    (event,) = recorder.events
    assert (event["event"], event["level"], event["logger"]) == ("text", "warning", "lib")
    assert (event["event_"], event["level_"], event["logger_"]) == ("e", "l", "x")
    assert (event["timestamp_"], event["exception_"]) == (1, 2)
    assert event["order"] == {"a": 1}
    assert event["5"] == 6
    assert event["at"].startswith("test_foreign.py:")
    assert not any(key.startswith("_") for key in event)


@pytest.mark.parametrize(
    "arguments", [("%d", "x"), ("%s %s", 1), (object(),), ({"a": 1},), (None,), ("%(a)s", {"a": 1})]
)
def test_odd_messages_never_raise(chain, root, arguments, capsys):
    """Arguments that do not fit, objects and dicts as message: the line comes, nothing is printed by logging."""
    root.handlers.clear()
    recorder, _ = chain()
    logging.getLogger("lib").warning(*arguments)
    assert len(recorder.events) == 1
    assert "Logging error" not in capsys.readouterr().err


def test_exceptions_of_libraries_arrive_as_text(chain):
    """`logger.exception` and `exc_info=` of the logging module become the same `exception` string."""
    recorder, _ = chain()
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("lib").exception("failed")
    logging.getLogger("lib").error("failed", exc_info=(None, None, None))
    with_text = logging.makeLogRecord({"name": "lib", "levelno": 40, "msg": "m", "exc_text": "Traceback text"})
    logging.getLogger("lib").handle(with_text)
    first, second, third = recorder.events
    assert first["exception"].endswith("ValueError: boom")
    assert not second.get("exception")
    assert third["exception"] == "Traceback text"


def test_records_from_a_queue_come_once(chain, root):
    """QueueHandler and QueueListener in between change nothing."""
    recorder, _ = chain()
    box = queue.SimpleQueue()
    lib = logging.getLogger("queued")
    lib.propagate = False
    handler = logging.handlers.QueueHandler(box)
    lib.addHandler(handler)
    ours = [h for h in root.handlers if isinstance(h, ForeignHandler)]
    listener = logging.handlers.QueueListener(box, *ours)
    listener.start()
    try:
        lib.warning("x %d", 1)
    finally:
        listener.stop()
        lib.removeHandler(handler)
        lib.propagate = True
    assert [e["event"] for e in recorder.events] == ["x 1"]


def test_library_debug_follows_the_lower_of_both_levels(chain, root):
    """LOGRELAY_LEVEL=debug also streams libraries' debug lines; at info they are dropped before any work."""
    recorder, _ = chain(stream_level="debug")
    logging.getLogger("lib").debug("seen")
    assert [e["event"] for e in recorder.events] == ["seen"]
    recorder, _ = chain()
    logging.getLogger("lib").debug("unseen")
    assert not logging.getLogger("lib").isEnabledFor(logging.DEBUG)
    assert not recorder.events


def test_dict_config_during_traffic_does_not_deadlock(chain, root):
    """Reconfiguring logging while other threads log: everybody finishes."""
    chain()
    stop = threading.Event()

    def talk():
        while not stop.is_set():
            logging.getLogger("lib").info("x")

    with running(talk, talk, talk, stop=stop.set):
        for _ in range(30):
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "incremental": True})


def test_warnings_are_lines_too(chain):
    """Python's warnings go through the chain instead of a bare stderr."""
    recorder, _ = chain()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("careful, password=abcdef", stacklevel=1)
    logging.captureWarnings(capture=False)
    events = [e for e in recorder.events if e["logger"] == "py.warnings"]
    assert len(events) == 1
    assert "careful, password=[redacted]" in events[0]["event"]


def test_extras_that_are_set_aside_do_not_meet(chain):
    """A name with an underscore of the caller's own stays; ours gets another one."""
    recorder, _ = chain()
    logging.getLogger("lib").log(25, "x", extra={"level": 1, "level_": 2, "level_name": "mine"})
    (event,) = recorder.events
    assert (event["level"], event["level_"], event["level__"]) == ("info", 2, 1)
    assert (event["level_name"], event["level_name_"]) == (logging.getLevelName(25), "mine")


def test_a_record_that_comes_twice_is_one_line_and_the_same_text_again_is_another(chain, root):
    """The handler on two loggers of one branch sees each record twice."""
    recorder, _ = chain()
    (ours,) = [h for h in root.handlers if isinstance(h, ForeignHandler)]
    lib = logging.getLogger("lib.twice")
    lib.addHandler(ours)
    try:
        for _ in range(3):
            lib.warning("the same")
    finally:
        lib.removeHandler(ours)
    assert [e["event"] for e in recorder.events] == ["the same"] * 3


def somewhere():
    warnings.warn("careful", stacklevel=1)


@pytest.mark.parametrize(
    "formatted",
    [warnings.formatwarning, lambda message, *_: f"odd: {message}", lambda message, *_: f"gone.py:5: W: {message}"],
)
def test_a_warning_says_where_it_was_given(chain, monkeypatch, formatted):
    """The caller's file, line and function, not ours; without a readable text, whoever called."""
    recorder, _ = chain()
    monkeypatch.setattr(warnings, "formatwarning", formatted)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        somewhere()
    logging.captureWarnings(capture=False)
    (event,) = [e for e in recorder.events if e["logger"] == "py.warnings"]
    if "gone.py" in event["event"]:
        assert event["at"] == "gone.py:5"
    else:
        line = somewhere.__code__.co_firstlineno + 1
        assert event["at"] == f"test_foreign.py:{line} somewhere"


# --- when logging is configured anew ----------------------------------------------------------------------------------

CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"null": {"class": "logging.NullHandler"}},
    "root": {"level": "WARNING", "handlers": ["null"]},
}


def cleared(root):
    root.handlers.clear()


def replaced(root):
    root.handlers = [logging.NullHandler()]


def taken_away(root):
    for handler in list(root.handlers):
        root.removeHandler(handler)


@pytest.mark.parametrize(
    "configure",
    [
        lambda _root: logging.basicConfig(force=True, handlers=[logging.NullHandler()]),
        lambda _root: logging.config.dictConfig(CONFIG),
        cleared,
        replaced,
        taken_away,
    ],
)
def test_library_lines_go_on_after_a_new_configuration(chain, root, capfd, configure):
    """Not even the first is lost, the level is as at setup, and stderr says it once."""
    recorder, _ = chain()
    for number in range(2):
        configure(root)
        logging.getLogger("lib").warning("warning %d", number)
        logging.getLogger("lib").info("info %d", number)
    assert [e["event"] for e in recorder.events] == ["warning 0", "info 0", "warning 1", "info 1"]
    assert capfd.readouterr().err.count("configured anew") == 1
    assert sum(isinstance(h, ForeignHandler) for h in root.handlers) == 1


def test_a_structlog_call_notices_too(chain, root, monkeypatch):
    """Where the new level lets no record be made, the first line of the next second puts it right."""
    recorder, _ = chain()
    logging.config.dictConfig({**CONFIG, "root": {"level": "CRITICAL", "handlers": []}})
    logging.getLogger("lib").info("nobody can know")
    now = chain_module.time.time_ns()
    monkeypatch.setattr(chain_module.time, "time_ns", lambda: now + 2 * 10**9)
    get_logger().info("own")
    logging.getLogger("lib").info("seen")
    assert [e["event"] for e in recorder.events] == ["own", "seen"]


def test_loggers_that_were_disabled_are_named(chain, root, capfd):
    """dictConfig does that unless told otherwise; what the owner wanted is not undone, but it is said."""
    chain()
    loggers = [logging.getLogger(f"!aaa.lib{n}") for n in range(7)]
    try:
        logging.config.dictConfig({**CONFIG, "disable_existing_loggers": True})
        logging.getLogger("aaa.new").warning("x")
        said = capfd.readouterr().err
        assert "silenced !aaa.lib0, !aaa.lib1, !aaa.lib2, !aaa.lib3, !aaa.lib4 and " in said
        assert all(logger.disabled for logger in loggers)
    finally:
        for logger in logging.root.manager.loggerDict.values():
            if isinstance(logger, logging.Logger):
                logger.disabled = False


def test_a_level_alone_is_the_owners_word(chain, root):
    """Nobody took the handler away, so nothing is put back."""
    recorder, _ = chain()
    root.setLevel(logging.ERROR)
    logging.getLogger("lib").warning("low")
    logging.getLogger("lib").error("high")
    assert [e["event"] for e in recorder.events] == ["high"]
    assert root.level == logging.ERROR


def test_reset_takes_the_record_factory_back(chain, root):
    """Unless somebody else has put theirs over ours: then ours does nothing any more."""
    before = logging.getLogRecordFactory()
    recorder, _ = chain()
    assert logging.getLogRecordFactory() is not before
    chain()
    reset_structlog()
    assert logging.getLogRecordFactory() is before
    recorder, _ = chain()
    ours = logging.getLogRecordFactory()
    try:
        logging.setLogRecordFactory(lambda *args, **kw: ours(*args, **kw))
        reset_structlog()
        logging.getLogger("lib").warning("x")
        assert not any(isinstance(h, ForeignHandler) for h in root.handlers)
        assert not recorder.events
    finally:
        logging.setLogRecordFactory(before)
