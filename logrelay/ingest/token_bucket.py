"""A token bucket: how much of something is allowed now, and how much comes back with time. Pure.

Owns: `TokenBucket`. It must not know what is counted; time is an argument, in seconds of a clock that never steps.
Read `ingest/notice_rate` next: it counts notices with it.
"""

from __future__ import annotations


class TokenBucket:
    """Holds `burst` tokens at most, full at first, and gets `per_s` of them back in a second."""

    __slots__ = ("_burst", "_left", "_per_s", "used_at")

    def __init__(self, burst: float, per_s: float, mono: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._left = burst
        self.used_at = mono
        """Monotonic time of the last question."""

    def wait_s(self, mono: float, tokens: float = 1) -> float:
        """Return the seconds until there are so many, 0.0 if there are; takes none."""
        self._left = min(self._burst, self._left + (mono - self.used_at) * self._per_s)
        self.used_at = mono
        return max(0.0, (tokens - self._left) / self._per_s)

    def spend(self, mono: float, tokens: float) -> bool:
        """Take so many, and tell whether there was one before: `wait_s` and `take` in one step."""
        left = min(self._burst, self._left + (mono - self.used_at) * self._per_s)
        self.used_at = mono
        self._left = max(-self._burst, left - tokens)
        return left >= 1

    def take(self, tokens: float = 1) -> None:
        """Take so many; what is not there is owed, up to a burst."""
        self._left = max(-self._burst, self._left - tokens)
