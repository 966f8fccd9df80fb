"""What `log.info(...)` does before the chain: nothing below the threshold, never an exception above it.

Owns: the logger class that structlog makes loggers of. It must not know the chain or where lines go.
`chain` configures it. Read `redaction` next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Any

import structlog

from robo_trader.log_relay.serializer import set_aside
from robo_trader.logging import levels

_WARNINGS = 100
"""Different warnings on stderr in one process; it only bounds the memory that remembers them."""

_warned: set[str] = set()


def warn_once(text: str) -> None:
    """Print `text` on stderr, the first time only; never raises."""
    if text in _warned or len(_warned) >= _WARNINGS:
        return
    _warned.add(text)
    with contextlib.suppress(Exception):
        os.write(2, f"robo_trader: {text}\n".encode("utf-8", "backslashreplace"))


_Base: Any = structlog.make_filtering_bound_logger(logging.NOTSET)


class TraderLogger(_Base):  # type: ignore[misc]
    """A filtering bound logger whose calls never raise because of what is logged or where it goes.

    The level methods are set by `threshold`, below it they do nothing at all. They are replaced on the class,
    so a second setup also reaches loggers that are already bound or cached.

    All parameters of its own are positional-only, so that a field may have any name (`event=`, `self=`, `level=`):
    what clashes is renamed as docs/values.md says.
    """

    rank = logging.NOTSET
    failures = 0
    """Lines that were lost because the chain itself failed; told on stderr once."""

    @classmethod
    def threshold(cls, rank: int) -> None:
        """Let lines of `rank` and above into the chain."""
        cls.rank = rank
        for word, number in levels.RANKS.items():
            method, waiting = _methods(word) if number >= rank else (_nothing, _nothing_async)
            setattr(cls, word, method)
            setattr(cls, f"a{word}", waiting)
        for alias, word in (("warn", "warning"), ("fatal", "critical"), ("msg", "info")):
            setattr(cls, alias, getattr(cls, word))
            setattr(cls, f"a{alias}", getattr(cls, f"a{word}"))

    @classmethod
    def line_lost(cls, error: Exception) -> None:
        """Count a line that was lost because the chain failed, and print the first such error on stderr."""
        cls.failures += 1
        warn_once(f"a log line could not be written ({type(error).__name__}); further ones are only counted")

    def bind(self, /, **new_values: Any) -> TraderLogger:
        """Return a logger with these fields too."""
        context = {**self._context, **new_values}
        return self.__class__(self._logger, self._processors, self._context.__class__(context))

    def new(self, /, **new_values: Any) -> TraderLogger:
        """Return a logger with these fields only."""
        return self.__class__(self._logger, self._processors, self._context.__class__(new_values))

    def exception(self, event: Any = None, /, *args: Any, **kw: Any) -> Any:
        """Log an error with the exception that is being handled."""
        return self.error(event, *args, **{"exc_info": True, **kw})

    def aexception(self, event: Any = None, /, *args: Any, **kw: Any) -> Awaitable[Any]:
        """Log an error with the exception that is being handled now, in the loop's executor."""
        kw = {"exc_info": True, **kw}
        if self.rank <= logging.ERROR:
            _capture(self, kw, sys._getframe(1), logging.ERROR)  # noqa: SLF001
        waiting: Awaitable[Any] = self.aerror(event, *args, **kw)
        return waiting

    def log(self, /, *args: Any, **kw: Any) -> Any:
        """Log at any number, `log(level, event, ...)`: it counts as the next level below (25 is info)."""
        level, args = (args[0], args[1:]) if args else (kw.pop("level", "info"), ())
        rank = _rank(level)
        if rank < self.rank:
            return None
        return getattr(self, levels.word_for(rank))(*args, **kw)

    def alog(self, /, *args: Any, **kw: Any) -> Awaitable[Any]:
        """Log at any number, in the loop's executor."""
        level, args = (args[0], args[1:]) if args else (kw.pop("level", "info"), ())
        rank = _rank(level)
        if rank >= self.rank:
            _capture(self, kw, sys._getframe(1), rank)  # noqa: SLF001
        waiting: Awaitable[Any] = getattr(self, f"a{levels.word_for(rank)}")(*args, **kw)
        return waiting

    def is_enabled_for(self, level: int) -> bool:
        """Say whether a line of this level would go anywhere."""
        return level >= self.rank

    def get_effective_level(self) -> int:
        """Return the rank below which nothing is logged."""
        return self.rank

    def _proxy_to_logger(self, method_name: str, event: Any = None, /, **kw: Any) -> Any:
        # As structlog's own, but with names that no field can clash with.
        if event is not None and ("event" in kw or "event" in self._context):
            kw.setdefault("event", self._context.get("event"))
            set_aside(kw, "event", self._context)
        try:
            args, kw = self._process_event(method_name, event, kw)
            return getattr(self._logger, method_name)(*args, **kw)
        except structlog.DropEvent:
            return None


def _rank(level: Any) -> int:
    return level if isinstance(level, int) else levels.RANKS.get(levels.word(str(level)) or "info", 20)


def _nothing(*_args: Any, **_kw: Any) -> None:
    return None


async def _nothing_async(*_args: Any, **_kw: Any) -> None:
    return None


def _capture(logger: Any, kw: dict[str, Any], frame: FrameType | None, rank: int) -> None:
    """Put into `kw` what only the thread and the moment of the call can tell: exception, stack and caller."""
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    given = kw.get("exc_info", logger._context.get("exc_info"))  # noqa: SLF001
    if given and not isinstance(given, (tuple, BaseException)):
        kw["exc_info"] = sys.exc_info()
    if frame is None:
        return
    if rank >= levels.RANKS["warning"] and "at" not in kw and "at" not in logger._context:  # noqa: SLF001
        kw["at"] = callsite(frame)
    if kw.get("stack_info"):
        del kw["stack_info"]
        set_aside(kw, "stack", logger._context)  # noqa: SLF001
        kw["stack"] = "Stack (most recent call last):\n" + "".join(traceback.format_stack(frame)).rstrip("\n")


def callsite(frame: FrameType) -> str:
    """Return `file.py:12 function` for a frame."""
    code = frame.f_code
    return f"{os.path.basename(code.co_filename)}:{frame.f_lineno} {code.co_name}"  # noqa: PTH119 - as structlog does


def _methods(word: str) -> tuple[Any, Any]:
    rank = levels.RANKS[word]

    def method(self: Any, event: Any = None, /, *args: Any, **kw: Any) -> Any:
        try:
            if args:
                set_aside(kw, "positional_args")
                kw["positional_args"] = args
            elif "positional_args" in kw:
                set_aside(kw, "positional_args")
            return self._proxy_to_logger(word, event, **kw)
        except Exception as error:
            TraderLogger.line_lost(error)

    def waiting(self: Any, event: Any = None, /, *args: Any, **kw: Any) -> Awaitable[Any]:
        # No coroutine itself: one runs only when it is awaited, and the exception may be over by then.
        try:
            _capture(self, kw, sys._getframe(1), rank)  # noqa: SLF001
        except Exception as error:
            TraderLogger.line_lost(error)
        return _in_executor(partial(copy_context().run, partial(method, self, event, *args, **kw)))

    return method, waiting


async def _in_executor(call: Callable[[], Any]) -> Any:
    """Run `call` in the loop's executor; here and now when that takes no more calls, at the program's end."""
    try:
        done = asyncio.get_running_loop().run_in_executor(None, call)
    except RuntimeError:
        return call()
    return await done
