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

from robo_trader.logger import get_logger
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
    """Extras arrive as fields; those with the names of ours get a prefix; objects and odd keys do no harm."""
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
    assert (event["extra_event"], event["extra_level"], event["extra_logger"]) == ("e", "l", "x")
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
