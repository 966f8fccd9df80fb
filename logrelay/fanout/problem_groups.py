"""Which lines tell of the same problem.

Owns: the rule by which lines at WARNING and above are grouped, and the name of a group. It must not know lines, counts
or who shows them. Pure. Read `fanout/summary` next: it counts them.

Two lines are of one group when app, source, message and the last line of the exception are the same but for their
numbers: "order 4711 rejected" and "order 4712 rejected" are one problem. An id of letters and digits counts as a
number too. Values of the context do not matter: they tell which order it was, not what went wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

MAX_CHARS = 300
"""Of a message and of an exception's last line, what is looked at and shown; what makes two problems differ stands at
the beginning."""
MAX_NAMES = 4096
"""Groups whose name is remembered; a bot has some dozens of problems."""
NAME_BYTES = 8
"""Of a group's name: among a million groups two have the same with a chance of one in thirty million."""

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\b(?=[0-9a-fA-F-]*[0-9])[0-9a-fA-F][0-9a-fA-F-]{7,}\b|[0-9]+(?:[.,][0-9]+)*")
"""Hexadecimal numbers, ids such as those of UUIDs and hashes, decimal numbers."""


class Problem(NamedTuple):
    """What the lines of a group have in common."""

    app: str
    source: str
    message: str
    """Of one of its lines, with the numbers of that line."""
    exception: str | None
    """The last line of the exception of one of its lines; None: they have none."""

    @property
    def group(self) -> str:
        """The name of the group, 16 hexadecimal digits."""
        exception = None if self.exception is None else fold(self.exception)
        return _name(self.app, self.source, fold(self.message), exception)


def problem_of(app: str, source: str, message: str, context: Mapping[str, object]) -> Problem:
    """Return the problem that a line tells of."""
    exception = context.get("exception")
    last = last_line(exception) if isinstance(exception, str) else ""
    return Problem(app, source, message[:MAX_CHARS], last or None)


def last_line(exception: str) -> str:
    """Return the last line of a traceback that is not empty: type and text of the exception."""
    return exception.rstrip().rpartition("\n")[2].strip()[:MAX_CHARS]


def fold(text: str) -> str:
    """Return a text in which every number is `#`."""
    return _NUMBER.sub("#", text)


@lru_cache(MAX_NAMES)
def _name(*parts: str | None) -> str:
    text = "\0".join("" if part is None else f"={part}" for part in parts)
    return blake2b(text.encode("utf-8", "replace"), digest_size=NAME_BYTES, person=b"logrelay problem").hexdigest()
