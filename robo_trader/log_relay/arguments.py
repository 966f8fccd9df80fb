"""The arguments of the processor and the handler, looked at when one is made.

Owns: what each kind of argument may be, and the text of the error: the name, what was given, what is allowed, what to
do. It must not know what an argument is for, and touches nothing. Read `environment` next.

A wrong argument is an error of who wrote the bot, seen the first time it starts; nothing that is found later may raise.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from . import environment

SHOWN_CHARS: Final = 60
"""Characters of a wrong value that are shown."""


def wrong(name: str, value: Any, allowed: str, otherwise: str, *, secret: bool = False) -> ValueError:
    """Return the error for an argument; `otherwise` is what leaving it out means. `secret`: the value is not shown."""
    try:
        shown = f"a {type(value).__name__} (its value is not shown)" if secret else repr(value)
    except Exception:  # the value's own code
        shown = f"a {type(value).__name__}"
    shown = shown if len(shown) <= SHOWN_CHARS else shown[: SHOWN_CHARS - 3] + "..."
    return ValueError(f"{name} is {shown}, must be {allowed}; leave it out for {otherwise}")


def path(name: str, value: Any, otherwise: str) -> str | None:
    """Return a path as text. Raises ValueError for what is none.

    One that no file can have, such as a text with a NUL, is a place where no relay is: it comes from the environment
    as often as from code, and a bot starts all the same.
    """
    if value is None:
        return None
    try:
        return os.fsdecode(value)
    except TypeError:
        raise wrong(name, value, "a path, as text or pathlib.Path, or None", otherwise) from None


def names(name: str, value: Any, otherwise: str) -> tuple[str, ...]:
    """Return names that were given as a list, or as text with commas. Raises ValueError for anything else."""
    if isinstance(value, str):
        return environment.split(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        found = tuple(value)
        if all(isinstance(one, str) for one in found):
            return found
    raise wrong(name, value, "a list of names, or a text of names with commas between them", otherwise)


def listed(name: str, value: Any, what: str, otherwise: str, *, secret: bool = False) -> tuple[str, ...]:
    """Return texts that were given as a list. Raises ValueError for anything else, also for one text alone.

    A text is iterable, so it would be taken for its letters. `secret`: the value is not shown.
    """
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray):
        found = tuple(value)
        if all(isinstance(one, str) for one in found):
            return found
    raise wrong(name, value, f"a list of {what}", otherwise, secret=secret)


def texts_by_name(name: str, value: Any, otherwise: str) -> Mapping[str, str]:
    """Return a mapping such as `os.environ`. Raises ValueError, which shows no value, for anything else."""
    if isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair):
        return value
    raise wrong(name, value, "a mapping of names to texts, as os.environ is one", otherwise, secret=True)


def whole_number(name: str, value: Any, least: int, otherwise: str) -> int:
    """Return a whole number of bytes. Raises ValueError for less than `least`, and for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise wrong(name, value, f"a whole number of bytes, {least} or more", otherwise)
    return value


def seconds(name: str, value: Any, otherwise: str) -> float:
    """Return a number of seconds. Raises ValueError for a negative one, and for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:  # nan is not
        raise wrong(name, value, "a number of seconds, 0 or more", otherwise)
    return value


def optional(name: str, value: Any, kind: type, allowed: str, otherwise: str) -> Any:
    """Return what is of a type, or None. Raises ValueError for anything else."""
    if value is not None and not isinstance(value, kind):
        raise wrong(name, value, f"{allowed} or None", otherwise)
    return value
