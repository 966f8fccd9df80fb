"""SIGHUP, from before the relay runs until after it has ended: it asks for a reload and never ends the process.

Owns: the signal's handler. It must not know what is read again. The handler is Python's own and not the loop's, which
would put the default back when the loop closes, and with it the end of the process. Read `systemd` next.
"""

from __future__ import annotations

import signal
from collections.abc import Callable


class Hangups:
    """Takes the signal from now on; what comes before `begin` is made up for there. For the main thread."""

    def __init__(self) -> None:
        self._asked = False
        self._react: Callable[[], object] | None = None
        signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self._react is None:
            self._asked = True
        else:
            self._react()

    def begin(self, react: Callable[[], object]) -> None:
        """Call `react` for each signal from now on, in the main thread, between any two steps of it."""
        self._react = react
        if self._asked:
            self._asked = False
            react()

    def end(self) -> None:
        """Ignore the signal until the process has ended: there is nothing to read again for."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._react = None
