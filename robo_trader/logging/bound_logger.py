"""What `log.info(...)` does before the chain: nothing below the threshold, never an exception above it.

Owns: the logger class that structlog makes loggers of. It must not know the chain or where lines go.
`chain` configures it. Read `redaction` next.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import structlog

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

    def log(self, level: int | str, event: Any = None, *args: Any, **kw: Any) -> Any:
        """Log at any number: it counts as the next level below (25 is info)."""
        rank = level if isinstance(level, int) else levels.RANKS.get(levels.word(str(level)) or "info", 20)
        if rank < self.rank:
            return None
        return getattr(self, levels.word_for(rank))(event, *args, **kw)

    async def alog(self, level: int | str, event: Any = None, *args: Any, **kw: Any) -> Any:
        """Log at any number, in the loop's executor."""
        rank = level if isinstance(level, int) else levels.RANKS.get(levels.word(str(level)) or "info", 20)
        if rank < self.rank:
            return None
        return await getattr(self, f"a{levels.word_for(rank)}")(event, *args, **kw)

    def is_enabled_for(self, level: int) -> bool:
        """Say whether a line of this level would go anywhere."""
        return level >= self.rank

    def get_effective_level(self) -> int:
        """Return the rank below which nothing is logged."""
        return self.rank


def _nothing(*_args: Any, **_kw: Any) -> None:
    return None


async def _nothing_async(*_args: Any, **_kw: Any) -> None:
    return None


def _methods(word: str) -> tuple[Any, Any]:
    inherited = getattr(_Base, f"a{word}")

    def method(self: Any, event: Any = None, *args: Any, **kw: Any) -> Any:
        try:
            if args:
                kw["positional_args"] = args
            return self._proxy_to_logger(word, event, **kw)
        except Exception as error:
            TraderLogger.line_lost(error)

    async def waiting(self: Any, event: Any = None, *args: Any, **kw: Any) -> Any:
        try:
            if args:
                kw["positional_args"] = args
            return await inherited(self, event, **kw)
        except Exception as error:
            TraderLogger.line_lost(error)

    return method, waiting
