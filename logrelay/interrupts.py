"""SIGINT, as Ctrl-C sends it, from before the command line is loaded until after it has ended: a quiet end with 130.

Owns: the signal's handler in a process that runs one command. It must not know which command, and load nothing: it is
there before everything else. A command that ends in a way of its own catches KeyboardInterrupt, as in any program; the
relay, which serves, has a handler of its own meanwhile. Read `hangup` next.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended, as shells have it: 128 and the number of SIGINT."""


class Interrupts:
    """Takes the signal from now on. For the main thread, once in a process.

    There is nothing to clean up before `begin`: the process ends at once. Between `begin` and `end` it is
    KeyboardInterrupt. After `end` it is ignored, so that the exit code of what was done stays. A process that was
    started with the signal ignored, as a shell's background job is, goes on ignoring it.
    """

    def __init__(self) -> None:
        self._raises = False
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)
            sys.unraisablehook = _on_unraisable

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._raises:
            raise KeyboardInterrupt
        os._exit(INTERRUPTED)

    def begin(self) -> None:
        """Let a command see it from now on."""
        self._raises = True

    def end(self) -> None:
        """Ignore it until the process has ended."""
        self._raises = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process where Python would print the interrupt and go on, as in a `__del__`."""
    if unraisable.exc_type is KeyboardInterrupt:
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(unraisable)
