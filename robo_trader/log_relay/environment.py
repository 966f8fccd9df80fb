"""The variables of the environment that a bot's operator may set, read when a processor or a redactor is made.

Owns: how a value is read, and what is said on stderr about one that makes no sense. It must not know what a setting
does, and never raises: a typing error in a variable must not stop a bot. Read `redaction` next.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

SHOWN_CHARS: Final = 60
"""Characters of a bad value that are shown: it may be anything, even a secret in the wrong variable."""
WARNINGS: Final = 100
"""Different texts that are said in one process; it only bounds the memory that remembers them."""

ON: Final = frozenset({"on", "1", "true", "yes"})
OFF: Final = frozenset({"off", "0", "false", "no", ""})

T = TypeVar("T")

_said: set[str] = set()


def warn_once(text: str) -> None:
    """Print `text` on stderr, the first time only. Never raises and never waits: a full pipe gets nothing."""
    if text in _said or len(_said) >= WARNINGS:
        return
    _said.add(text)
    if sys.stderr is None:
        return
    with contextlib.suppress(Exception):
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        # With an error beside it nobody reads any more, and a write might end the process with SIGPIPE.
        if poll.poll(0) == [(2, select.POLLOUT)]:
            os.write(2, f"{__package__}[{os.getpid()}]: {text}\n".encode("utf-8", "backslashreplace"))


def choice(variable: str, default: T, allowed: str, read: Callable[[str], T]) -> T:
    """Return what `read` makes of the variable; `default` if it is not set, empty, or `read` raises ValueError.

    `allowed` says on stderr, once, what would have been understood.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        return default
    try:
        return read(value)
    except ValueError:
        used = {True: "1 (on)", False: "0 (off)"}.get(default, default) if isinstance(default, bool) else default
        warn_once(f"{variable}={value[:SHOWN_CHARS]!r} is not {allowed}; using {used}")
        return default


def flag(text: str) -> bool:
    """Read a switch: on, 1, true, yes or off, 0, false, no, in either case. Raises ValueError for anything else."""
    word = text.strip().lower()
    if word in ON:
        return True
    if word in OFF:
        return False
    raise ValueError(f"{text[:SHOWN_CHARS]!r} is neither on nor off")


def switch(variable: str, *, default: bool = False) -> bool:
    """Return a variable that is on or off."""
    return choice(variable, default, "1 (on) or 0 (off)", flag)


def names(variable: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the names that a variable lists, separated by commas."""
    return split((os.environ if environ is None else environ).get(variable, ""))


def split(text: str) -> tuple[str, ...]:
    """Return the names of a list that is separated by commas."""
    return tuple(name for name in map(str.strip, text.split(",")) if name)
