"""How often each limit of the viewers' port was met, and when people are told.

Owns: the counters by cause, and the one line per cause and minute. It must not know what the limits are about, nor
where the line goes. Read `http/api` next: it shows the counters.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

from logrelay.budgets import CAUSES, NOTICE_AGAIN_S, NOTICE_FIRST_S


class LimitReport:
    """Counts by the keys of `budgets.CAUSES`. Belongs to one event loop.

    `tell` gets one line about a cause: `NOTICE_FIRST_S` after it happened first, then at most every `NOTICE_AGAIN_S`,
    with how often it happened since the last line.
    """

    def __init__(self, tell: Callable[[str], None], loop: asyncio.AbstractEventLoop) -> None:
        self._tell = tell
        self._loop = loop
        self._counts = Counter(dict.fromkeys(CAUSES, 0))
        self._unreported: Counter[str] = Counter()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def note(self, cause: str, times: int = 1) -> None:
        """Count that a limit was met."""
        self._counts[cause] += times
        self._unreported[cause] += times
        if cause not in self._timers:
            self._timers[cause] = self._loop.call_later(NOTICE_FIRST_S, self._on_time, cause)

    def _on_time(self, cause: str) -> None:
        del self._timers[cause]
        count = self._unreported.pop(cause, 0)
        if count:
            self._tell(f"viewers' port: {count} {CAUSES[cause]}")
            self._timers[cause] = self._loop.call_later(NOTICE_AGAIN_S, self._on_time, cause)

    def counters(self) -> Mapping[str, int]:
        """Return the counts by the names in `metrics.METRICS`."""
        return {f"viewer_{cause}_limit_total": count for cause, count in self._counts.items()}

    def close(self) -> None:
        """Tell of nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
