"""Lines that do not come through structlog: the records of the logging module, which libraries write.

Owns: turning a record into an event dict for the same chain, exactly once. It must not know what the chain does.
`chain` installs it. Read `excepthooks` next.

It is one handler on the root logger, not a processor inside a formatter: a formatter runs once per handler, so two
handlers would ship every record twice.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from robo_trader.logging import levels
from robo_trader.logging.console import Outlet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import Processor

    from robo_trader.logging.console import Console

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else came from `extra=`."""

_TAKEN = frozenset({"event", "level", "logger", "timestamp", "exception", "exc_info", "stack", "at"})
"""Keys of our own that an `extra=` must not replace; such extras appear as `extra_<key>`."""


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
        try:
            word = levels.word_for(record.levelno)
            line: Any = event_of(record, word)
            outlet = Outlet(record.name, self._console)
            for processor in self._chain:
                line = processor(outlet, word, line)
            if isinstance(line, str):
                self._console.write(line)
        except Exception:
            self.failures += 1


def event_of(record: logging.LogRecord, word: str) -> dict[str, Any]:
    """Build the event dict of a record of the logging module. Never raises for what is in the record."""
    event: dict[str, Any] = {"event": _message(record), "logger": record.name}
    for key, value in vars(record).items():
        if key not in _KNOWN:
            name = key if isinstance(key, str) else str(key)
            event[f"extra_{name}" if name in _TAKEN else name] = value
    if record.levelno != levels.RANKS[word]:
        event["level_name"] = record.levelname
    if record.levelno >= logging.WARNING and record.name != "py.warnings":  # whose text says where
        event["at"] = f"{record.filename}:{record.lineno} {record.funcName}"
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
