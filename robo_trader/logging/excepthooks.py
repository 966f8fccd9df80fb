"""Exceptions that nobody caught, as critical lines: the last words of a thread or of the whole bot.

Owns: `sys.excepthook` and `threading.excepthook` while they are installed. It must not know the chain; it is given
the method that logs. `chain` installs it. Read `console` next.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Hooks:
    """Logs an uncaught exception, in the main thread or in another, then calls the hook that was there before."""

    def __init__(self, log_critical: Callable[..., None]) -> None:
        """`log_critical(event, exc_info=..., **fields)` logs a critical line."""
        self._log_critical = log_critical
        self._previous: Any = None
        self._previous_in_thread: Any = None

    def install(self) -> None:
        """Put both hooks in place. Doing it twice changes nothing."""
        if self._previous is None:
            self._previous, self._previous_in_thread = sys.excepthook, threading.excepthook
            sys.excepthook, threading.excepthook = self._unhandled, self._unhandled_in_thread

    def remove(self) -> None:
        """Put the original hooks back, unless someone has put theirs over ours since."""
        if self._previous is None:
            return
        if sys.excepthook == self._unhandled:
            sys.excepthook = self._previous
        if threading.excepthook == self._unhandled_in_thread:
            threading.excepthook = self._previous_in_thread
        self._previous = self._previous_in_thread = None

    def _unhandled(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        try:
            if not issubclass(kind, KeyboardInterrupt):
                self._log_critical("exception.unhandled", exc_info=(kind, error, traceback))
        finally:
            (self._previous or sys.__excepthook__)(kind, error, traceback)

    def _unhandled_in_thread(self, args: threading.ExceptHookArgs) -> None:
        try:
            if not issubclass(args.exc_type, SystemExit) and args.exc_value is not None:
                raised = (args.exc_type, args.exc_value, args.exc_traceback)
                name = args.thread.name if args.thread is not None else None
                self._log_critical("exception.unhandled", exc_info=raised, thread=name)
        finally:
            (self._previous_in_thread or threading.__excepthook__)(args)
