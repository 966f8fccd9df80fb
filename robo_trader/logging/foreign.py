"""Lines that do not come through structlog: the records of the logging module, which libraries write.

Owns: turning a record into an event dict for the same chain, exactly once, and keeping the handler where records
come by. It must not know what the chain does. `chain` installs it. Read `excepthooks` next.

It is one handler on the root logger, not a processor inside a formatter: a formatter runs once per handler, so two
handlers would ship every record twice.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any

from robo_trader.log_relay.records import ShippedRecords
from robo_trader.log_relay.serializer import free_name, set_aside
from robo_trader.logging import levels
from robo_trader.logging.bound_logger import callsite, warn_once
from robo_trader.logging.console import Outlet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from structlog.typing import Processor

    from robo_trader.logging.console import Console

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every record has; anything else came from `extra=`."""

TAKEN = frozenset({"event", "level", "logger", "timestamp", "exception", "exc_info", "stack", "stack_info", "at"})
"""Keys of our own that an `extra=` must not replace; it is set aside (docs/values.md)."""

_WARNING = re.compile(r"(.+?):(\d+): \w+: ")
"""How `warnings.formatwarning` begins: file, line, category."""

_NO_CALLERS = ("logging.", "warnings.", "robo_trader.logging.")
"""Modules whose frames lie between a warning and this handler."""

_SHOWN_DISABLED = 5
"""Loggers that a warning names; the rest are counted."""


class ForeignHandler(logging.Handler):
    """Gives each record of the logging module to the chain, once; never raises into the logging call.

    Records that structlog made (a chain ending in `ProcessorFormatter.wrap_for_formatter`) are left alone:
    they have been through a chain of their own. It takes no lock, because a signal handler or a fork may come
    while it is held; the chain needs none.
    """

    def __init__(self, chain: Sequence[Processor], console: Console) -> None:
        super().__init__()
        self._chain = chain
        self._console = console
        self._shipped = ShippedRecords()
        self.failures = 0
        """Records that could not be turned into a line."""

    def createLock(self) -> None:  # noqa: N802 - the name is logging's
        """Have no lock."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit; as the base class does, but without its lock."""
        accepted = self.filter(record)
        if accepted:
            self.emit(record if accepted is True else accepted)
        return bool(accepted)

    def emit(self, record: logging.LogRecord) -> None:
        """Run the record through the chain and write what comes out."""
        if isinstance(record.msg, dict) and hasattr(record, "_logger"):
            return
        if not self._shipped.is_new(record):  # the handler is on two loggers, or behind a queue as well
            return
        try:
            word = levels.word_for(record.levelno)
            line: Any = event_of(record, word)
            outlet = Outlet(record.name, self._console, foreign=True)
            for processor in self._chain:
                line = processor(outlet, word, line)
            if isinstance(line, str):
                self._console.write(line)
        except Exception:
            self.failures += 1


class Attachment:
    """The handler on the root logger, and whatever has to be so that records reach it.

    Whoever configures the logging module anew (`basicConfig(force=True)`, `dictConfig`, `root.handlers.clear()`) takes
    the handler away. That is noticed by `keep`, and by the next record that any logger makes: records are made by a
    factory, and ours looks first, so that not even that record is lost. Then the handler is put back, the root
    logger's level is lowered again, and stderr is told once. A level that somebody sets without taking the handler
    away is left alone.
    """

    def __init__(self, handler: ForeignHandler, rank: int) -> None:
        """Attach the handler for records from `rank` up."""
        self._handler = handler
        self._rank = rank
        self._root = logging.getLogger()
        self._level: int | None = None
        """The root logger's level before it was lowered."""
        self._undone = False
        self.failures = 0
        """Times that it could not be put back."""
        handler.setLevel(rank)
        self._root.addHandler(handler)
        self._lower()
        logging.captureWarnings(capture=True)
        made: Callable[..., logging.LogRecord] = logging.getLogRecordFactory()

        def make(*args: Any, **kw: Any) -> logging.LogRecord:
            self.keep()
            return made(*args, **kw)

        self._made, self._make = made, make
        logging.setLogRecordFactory(make)

    def _lower(self) -> None:
        level = self._root.level
        if level == logging.NOTSET or level > self._rank:
            self._level = level
            self._root.setLevel(self._rank)

    def keep(self) -> None:
        """Put the handler back if it is gone. Never raises."""
        if self._undone or self._handler in self._root.handlers:
            return
        try:
            # Not addHandler: it waits for the module's lock, which whoever configures holds for as long as it takes.
            self._root.handlers.append(self._handler)
            self._level = None
            self._lower()
            text = "logging was configured anew without the handler that streams library lines; it was put back"
            warn_once(f"{text} (call setup_structlog last, or with foreign=False)")
            loggers = list(self._root.manager.loggerDict.items())
            off = sorted(name for name, logger in loggers if isinstance(logger, logging.Logger) and logger.disabled)
            if off:
                more = f" and {len(off) - _SHOWN_DISABLED} more" if len(off) > _SHOWN_DISABLED else ""
                names = ", ".join(off[:_SHOWN_DISABLED])
                warn_once(f"disable_existing_loggers has silenced {names}{more}: their lines are not streamed")
        except Exception:
            self.failures += 1

    def undo(self) -> None:
        """Take the handler away, and everything back."""
        self._undone = True
        self._root.removeHandler(self._handler)
        logging.captureWarnings(capture=False)
        if self._level is not None:
            self._root.setLevel(self._level)
        if logging.getLogRecordFactory() is self._make:
            logging.setLogRecordFactory(self._made)


def _where_warned(text: str) -> str:
    """Return the place that a captured warning is about; its record only knows the module that captured it."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    said = _WARNING.match(text)
    path, line = (said[1], int(said[2])) if said else ("", 0)
    while frame is not None:
        if said:
            if frame.f_code.co_filename == path and frame.f_lineno == line:
                return callsite(frame)
        elif not f"{frame.f_globals.get('__name__')}.".startswith(_NO_CALLERS):
            return callsite(frame)
        frame = frame.f_back
    return f"{path.rpartition('/')[2]}:{line}"


def event_of(record: logging.LogRecord, word: str) -> dict[str, Any]:
    """Build the event dict of a record of the logging module. Never raises for what is in the record."""
    event: dict[str, Any] = {"event": _message(record), "logger": record.name}
    for key, value in vars(record).items():
        if key not in _KNOWN:
            name = key if isinstance(key, str) else str(key)
            event[free_name(name, event, vars(record)) if name in TAKEN or name in event else name] = value
    if record.levelno != levels.RANKS[word]:
        set_aside(event, "level_name")
        event["level_name"] = record.levelname
    if record.levelno >= logging.WARNING:
        event["at"] = f"{record.filename}:{record.lineno} {record.funcName}"
        if record.name == "py.warnings":
            event["at"] = _where_warned(event["event"])
    if record.exc_info:
        event["exc_info"] = record.exc_info
    elif record.exc_text:
        event["exception"] = record.exc_text
    if record.stack_info:
        event["stack"] = record.stack_info
    return event


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().rstrip()
    except Exception:  # arguments that do not fit the format: the line is worth more than its form
        try:
            return f"{record.msg} {record.args!r}"
        except Exception:
            return f"[message of {record.pathname}:{record.lineno} could not be formatted]"
