"""Exceptions that nobody caught, as critical lines: the last words of a thread or of the whole bot.

Owns: `sys.excepthook` and `threading.excepthook` while they are installed, and what is printed in the place of
Python's own. It must not know the chain or how secrets look; it is given the method that logs and the function that
redacts. `chain` installs it. Read `console` next.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


PRINTED_CHARS = 32_768
"""Characters of the end of a traceback that are printed: what is longer repeats itself, and the end says what
happened."""


class Hooks:
    """Logs an uncaught exception, in the main thread or in another, and prints it as Python would, but redacted.

    If somebody had put a hook of their own in place, that hook is called in the place of printing, with the exception
    as it is: what it prints is its own affair.
    """

    def __init__(self, log_critical: Callable[..., None], redact_text: Callable[[str], str]) -> None:
        """`log_critical(event, exc_info=..., **fields)` logs a critical line, `redact_text` returns a text redacted."""
        self._log_critical = log_critical
        self._redact_text = redact_text
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

    def _unhandled(self, kind: type[BaseException], error: BaseException, found: TracebackType | None) -> None:
        try:
            if not issubclass(kind, KeyboardInterrupt):
                self._log_critical("exception.unhandled", exc_info=(kind, error, found))
        finally:
            if self._previous in (None, sys.__excepthook__):
                self._print("", kind, error, found)
            else:
                self._previous(kind, error, found)

    def _unhandled_in_thread(self, args: threading.ExceptHookArgs) -> None:
        try:
            if not issubclass(args.exc_type, SystemExit) and args.exc_value is not None:
                raised = (args.exc_type, args.exc_value, args.exc_traceback)
                name = args.thread.name if args.thread is not None else None
                self._log_critical("exception.unhandled", exc_info=raised, thread=name)
        finally:
            if self._previous_in_thread not in (None, threading.__excepthook__):
                self._previous_in_thread(args)
            elif not issubclass(args.exc_type, SystemExit):
                who = args.thread.name if args.thread is not None else threading.get_ident()
                self._print(f"Exception in thread {who}:\n", args.exc_type, args.exc_value, args.exc_traceback)

    def _print(
        self, heading: str, kind: type[BaseException], error: BaseException | None, found: TracebackType | None
    ) -> None:
        """Print the traceback on stderr without its secrets; if that fails, only the exception's type."""
        text = f"{kind.__name__}: [not shown]\n"
        with contextlib.suppress(Exception):
            whole = "".join(traceback.format_exception(kind, error, found))
            if len(whole) > PRINTED_CHARS:
                begin = whole.find("\n", len(whole) - PRINTED_CHARS) + 1 or len(whole) - PRINTED_CHARS
                whole = f"[{begin} characters not shown]\n{whole[begin:]}"
            text = self._redact_text(heading + whole)
        with contextlib.suppress(Exception):
            sys.stderr.write(text)
            sys.stderr.flush()
