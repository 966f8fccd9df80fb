"""Gives memory back to the system after many connections have ended.

Owns: when the C library is asked to do so. It must not know connections. Read `viewers/connection` next.

What is freed in small pieces stays with the process: the C library keeps it for the next time. After an attack, or a
morning on which everybody looked, that would be most of what the relay takes, for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import Callable

from logrelay.budgets import TRIM_CONNECTIONS, TRIM_PAUSE_S


class MemoryReturn:
    """Counts connections that ended, and has `trim` called on another thread. Belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, trim: Callable[[], object] | None = None) -> None:
        """`trim` gives memory back; None: the C library's own way, where there is one."""
        self._loop = loop
        self._trim = trim if trim is not None else _trim_of_the_library()
        self._ended = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_ended(self) -> None:
        """Count one; after `TRIM_CONNECTIONS` memory is given back within `TRIM_PAUSE_S`."""
        self._ended += 1
        if self._ended >= TRIM_CONNECTIONS and self._timer is None and self._trim is not None:
            self._timer = self._loop.call_later(TRIM_PAUSE_S, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._ended = 0
        assert self._trim is not None, "the timer is only set where there is a way"
        self._loop.run_in_executor(None, self._trim)

    def close(self) -> None:
        """Do nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _trim_of_the_library() -> Callable[[], object] | None:
    """Return glibc's malloc_trim(3); None with another C library."""
    with contextlib.suppress(OSError, AttributeError):
        trim = ctypes.CDLL(None).malloc_trim
        return lambda: trim(0)
    return None
