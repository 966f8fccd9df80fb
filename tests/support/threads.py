"""Threads of a test, which end with it whatever happens.

Owns: `running` and `join`. What a test leaves behind in spite of it is found by `leftovers`. Read `leftovers` next.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator

from tests.support.waiting import DEADLINE_S


@contextlib.contextmanager
def running(
    *targets: Callable[[], object], stop: Callable[[], object] | None = None, name: str | None = None
) -> Iterator[list[threading.Thread]]:
    """Run each target in a thread of its own during the block.

    At its end, however it ends, `stop` is called (usually `Event.set`) and the threads are joined; one that still lives
    at the deadline fails the test. Without `stop` the targets must end by themselves. The threads are daemons: one that
    hangs cannot keep the interpreter from ending.
    """
    threads = [threading.Thread(target=target, name=name, daemon=True) for target in targets]
    try:
        for thread in threads:
            thread.start()
        yield threads
    finally:
        if stop is not None:
            stop()
        join(*(thread for thread in threads if thread.ident is not None))


def join(*threads: threading.Thread, deadline_s: float = DEADLINE_S) -> None:
    """Wait for the end of threads; fail, saying where they stand, when one lives longer than all may take together."""
    left = outlive(threads, deadline_s)
    if left:
        raise AssertionError(f"after {deadline_s:g} s still alive:\n{where(left)}")


def outlive(threads: Iterable[threading.Thread], deadline_s: float) -> list[threading.Thread]:
    """Return which of these threads still live after `deadline_s`."""
    end = time.monotonic() + deadline_s
    threads = list(threads)
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()]


def where(threads: Iterable[threading.Thread]) -> str:
    """Return where threads stand, for messages of failed tests."""
    frames = sys._current_frames()
    told = []
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else "  it has just ended\n"
        told.append(f"{thread.name}\n{stack}")
    return "".join(told)
