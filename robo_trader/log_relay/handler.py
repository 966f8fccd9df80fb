"""The handler of the logging module: what the processor is to a bot with structlog, for one without.

Owns: making an event of a record, and the options that a configuration file can give. It must not know how an event is
packed, redacted or sent; it has a processor for that. Read `processor` next.

    logging.config.dictConfig({
        "version": 1,
        "handlers": {"relay": {"class": "logrelay_client.LogRelayHandler", "app": "my_bot"}},
        "root": {"level": "INFO", "handlers": ["relay"]},
    })
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from . import arguments, environment, records, serializer
from .processor import MAX_BYTES, PRIVATE, RANKS, LogRelayProcessor, known_level, rank_of, word_for
from .redaction import Redact

KNOWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else came from `extra=` or from a filter."""
TAKEN: Final = frozenset(
    {"event", "level", "logger", "timestamp", "exc_info", "exception", "stack", "at", "level_name"}
)
"""Keys of the event itself; an `extra` of that name is kept under one with an underscore, docs/values.md."""


class LogRelayHandler(logging.Handler):
    """Ships every record that reaches it to the relay. Never blocks, never raises, takes no lock, changes no record.

    The arguments are those of `LogRelayProcessor`, and each may also be text, as configuration files have it:
    `exclude="audit,risk"`, `redact="off"`, `max_bytes="1048576"`. `level` (None: LOGRELAY_LEVEL, else info) is the
    handler's own level, which `setLevel` and the key `level` of `dictConfig` replace. `processor` is one that is there
    already, to share its connection; the other arguments then do not count.

    A formatter is not used: the message, its fields (`extra=`), the exception and the stack are shipped apart. Events
    of structlog that come by way of `wrap_for_formatter` are shipped too, unless a processor in structlog's chain has
    done so already.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        level: str | int | None = None,
        app: str | None = None,
        exclude: str | Iterable[str] = PRIVATE,
        max_bytes: int | str = MAX_BYTES,
        exit_timeout: float | str = 2.0,
        disabled: bool | str | None = None,
        redact: Redact | str = True,
        spool: str | os.PathLike[str] | None = None,
        processor: LogRelayProcessor | None = None,
    ) -> None:
        """Raise ValueError for an argument that makes no sense, as `LogRelayProcessor` does."""
        if level is None:
            level = environment.choice("LOGRELAY_LEVEL", "info", f"one of {', '.join(RANKS)}", known_level)
        rank = rank_of(level)
        arguments.optional("processor", processor, LogRelayProcessor, "a LogRelayProcessor", "one of its own")
        self._owned = processor is None
        self.processor = processor or LogRelayProcessor(
            socket or None,
            level=logging.NOTSET,  # one threshold is enough: the handler's
            app=app or None,
            exclude=exclude,
            max_bytes=_read("max_bytes", max_bytes, int, "a whole number of bytes"),
            exit_timeout=_read("exit_timeout", exit_timeout, float, "a number of seconds"),
            disabled=_read("disabled", disabled, environment.flag, "on or off") if disabled is not None else None,
            redact=_read("redact", redact, environment.flag, "on or off") if isinstance(redact, str) else redact,
            spool=spool or None,
        )
        """What ships; its `stats()` tell what became of the records."""
        # Last: from now on the logging module closes it at exit, which takes a whole handler.
        super().__init__(rank)
        self._closed = self.processor.stats()["state"] == "disabled"
        self.failures = 0
        """Records that could not be made into an event."""

    def createLock(self) -> None:  # noqa: N802 - the name is logging's
        """Have no lock: a signal handler or a fork may come while it is held, and nothing here needs one."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter and emit; as the base class does, but without its lock."""
        accepted = self.filter(record)
        if accepted:
            self.emit(accepted if isinstance(accepted, logging.LogRecord) else record)
        return accepted

    def emit(self, record: logging.LogRecord) -> None:
        """Ship one record, and the records that its values log when they are asked for their text."""
        if _busy.depth >= DEEPEST:
            self.failures += 1
            return
        _busy.depth += 1
        try:
            if not self.processor.records.is_new(record):  # on two loggers of one branch, or two handlers share it
                return
            word = word_for(record.levelno)
            if isinstance(record.msg, dict) and hasattr(record, "_logger"):  # structlog's wrap_for_formatter
                if not _was_shipped(record):
                    self.processor(None, word, {"logger": record.name} | record.msg)
            else:
                self.processor(None, word, event_of(record, word))
        except Exception:
            self.failures += 1
        finally:
            _busy.depth -= 1

    def flush(self, timeout: float = 0.0) -> None:
        """Wait up to `timeout` seconds until the relay has every line so far.

        Without one it returns at once: the logging module calls it often, and lines are on their way anyway.
        """
        if timeout > 0:
            self.processor.flush(timeout)

    def close(self) -> None:
        """Take the handler out of the logging module and, if the processor is its own, flush and close that."""
        try:
            if not self.processor.ending:  # logging's own exit hook runs behind the processor's
                if not self._closed and _called_by_logging():
                    environment.warn_once(
                        "logging was configured anew and has closed the handler: unless the new configuration has one, "
                        "no further record is shipped"
                    )
                if self._owned:
                    self.processor.close()
            self._closed = True
        finally:
            super().close()


DEEPEST: Final = 4
"""Records within records: a `__repr__` that logs an object whose `__repr__` logs. Beyond it is a circle."""


def _called_by_logging() -> bool:
    """Tell whether the logging module closes the handler (`basicConfig(force=True)`, `dictConfig`), and not the bot."""
    caller = sys._getframe(2)  # noqa: SLF001 - the interpreter has no other name for it
    return str(caller.f_globals.get("__name__")).partition(".")[0] == "logging"


class _Busy(threading.local):
    depth = 0


_busy = _Busy()


def _read(name: str, value: Any, kind: Callable[[Any], Any], allowed: str) -> Any:
    """Return an argument that may be text. Raises ValueError, which says what is allowed."""
    try:
        return kind(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{name} is {value!r}, must be {allowed}; leave it out for the default") from None


def event_of(record: logging.LogRecord, word: str) -> dict[str, Any]:
    """Return the event of a record. Never raises for what is in the record."""
    event: dict[str, Any] = {"event": _message(record), "logger": record.name}
    for key, value in vars(record).items():
        if key not in KNOWN:
            name = key if isinstance(key, str) else str(key)
            event[serializer.free_name(name, event, TAKEN, vars(record)) if name in TAKEN else name] = value
    if record.levelno != RANKS[word]:
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


def _was_shipped(record: logging.LogRecord) -> bool:
    """Tell whether the chain that made this record has a processor of ours, which has shipped the event already.

    Behind a queue the chain cannot be seen any more: then it is taken to be the configured one.
    """
    chain = records.chain_of(record)
    if chain is None:
        structlog = sys.modules.get("structlog")
        chain = structlog.get_config()["processors"] if structlog is not None else ()
    return any(isinstance(step, LogRelayProcessor) for step in chain)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().rstrip()
    except Exception:  # arguments that do not fit the format: the line is worth more than its form
        try:
            return f"{record.msg} {record.args!r}"
        except Exception:
            return f"[message of {record.pathname}:{record.lineno} could not be formatted]"
