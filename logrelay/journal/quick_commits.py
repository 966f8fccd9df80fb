"""Whether a commit is made on the event loop or on the journal's thread. Pure.

Owns: `QuickCommits`. It must not know the journal, threads or clocks. Read `journal/interface` next: it is what a
commit goes to.

A line that comes alone costs less when nobody has to be woken for it: a commit that syncs nothing only writes to the
kernel's memory, some 60 us. But a disk that is full of work makes such a write wait as well, and nobody must wait for
a disk. So a commit is made on the loop only if it is small, if those before it were quick, one after the other, and if
the journal's thread does nothing: it is the thread that syncs and takes checkpoints, and while it waits for the disk
every commit waits behind it, and not the loop. The first slow one on the loop is the last one there.

The bound: what the kernel makes one small write(2) wait on a local file system that has answered within SLOW_S until
then. With sync=full, for a CRITICAL line, on a network file system, for somebody's lock, or while a sync or a
checkpoint runs, the loop does not wait at all.
"""

from __future__ import annotations

TRUSTED_AFTER = 20
"""Commits in a row that were quick on the thread before the loop makes one: a few seconds of a bot."""

SLOW_S = 0.020
"""A commit that took longer had to wait for a disk; less is what a busy processor makes of one."""

MOST_LINES = 64
"""Lines in one that the loop makes: half a millisecond. What is more is worth waking the thread for."""

MOST_BYTES = 64 * 1024
"""Their bodies, for the same reason."""


class QuickCommits:
    """Knows how long the last commits took."""

    def __init__(self) -> None:
        """Trust nothing yet."""
        self._quick = 0

    def note(self, took_s: float) -> None:
        """Note that a commit took so many seconds, wherever it was made."""
        self._quick = self._quick + 1 if took_s < SLOW_S else 0

    def failed(self) -> None:
        """Note that one failed."""
        self._quick = 0

    def allow(self, lines: int, size: int) -> bool:
        """Tell whether the loop may make a commit of so many lines and bytes."""
        return self._quick >= TRUSTED_AFTER and lines <= MOST_LINES and size <= MOST_BYTES
