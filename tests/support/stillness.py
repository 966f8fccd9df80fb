"""How long this process did not run, for tests of what is promised within a time.

Owns: `Stillness`. Where a program has to do something in a second, a machine that stands still for that second must not
fail the test, and one that does not must. Read `waiting` next.
"""

from __future__ import annotations

import threading
import time
from typing import Self

from tests.support.threads import join
from tests.support.waiting import LOOK_S


class Stillness:
    """In a `with` block: `longest_s` is for how long at most nothing of this process ran, as a thread of it saw."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stillness", daemon=True)

    def _look(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(LOOK_S):
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - before - LOOK_S)
            before = now

    def start(self) -> Self:
        """Begin to look, where there is no `with` block."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Look no longer."""
        self._stop.set()
        join(self._thread)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
