"""Globs for names of sources and apps, matched in one pass.

Owns: `Glob`: `*`, `?`, `[...]` and `[!...]`, case-sensitive, on the whole name, with the answers of the standard
library's `fnmatch.fnmatchcase`. It must not know filters. Pure. Read `fanout/filters` next: a filter has many of them.

Why not `fnmatch`: it makes a regular expression of each glob, which takes a millisecond for a long one, and a viewer
may ask for 64 of them in every message. Here nothing is compiled, and a name is read once, whatever the glob: all
places of the glob that the name may have come to are bits of one number.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_ANY = "?"
_SPECIAL = re.compile(r"[*?\[]")
"""What makes a name a glob."""


def is_glob(name: str) -> bool:
    """Tell whether other names than `name` itself can match it."""
    return _SPECIAL.search(name) is not None


def literal_start(glob: str) -> str:
    """Return what every name that matches begins with: the whole glob where it is no pattern."""
    return _SPECIAL.split(glob, maxsplit=1)[0]


class Glob:
    """One glob."""

    __slots__ = ("_items", "_prefix", "_stars")

    def __init__(self, glob: str) -> None:
        items: list[str | Callable[[str], bool]] = []
        self._stars = 0
        """Bit n: anything may come before item n."""
        literal = True
        self._prefix = ""
        at = 0
        while at < len(glob):
            char = glob[at]
            at += 1
            if char == "*":
                self._stars |= 1 << len(items)
                literal = False
                continue
            if char == "[":
                end = _end_of_set(glob, at)
                if end:
                    items.append(_set(glob[at:end]))
                    at, literal = end + 1, False
                    continue
                items.append(_character("["))
            else:
                items.append(_ANY if char == "?" else _character(char))
            literal = literal and char != "?"
            if literal:
                self._prefix += char
        texts = [item for item in items if isinstance(item, str)]
        self._items: str | list[str | Callable[[str], bool]] = "".join(texts) if len(texts) == len(items) else items
        """What must be there, one character each: the character, `_ANY`, or a test. A string where there is no test: it
        takes an eighth of the memory, and a thousand viewers may have tens of thousands of globs."""

    def match(self, name: str) -> bool:
        """Tell whether the whole name is as the glob says."""
        items, stars = self._items, self._stars
        if len(name) < len(items) or not name.startswith(self._prefix) or (not stars and len(name) != len(items)):
            return False
        takes: dict[str, int] = {}
        places = 1
        for char in name:
            mask = takes.get(char)
            if mask is None:
                mask = sum(1 << n for n, item in enumerate(items) if _takes(item, char))
                takes[char] = mask
            places = (places & mask) << 1 | (places & stars)
            if not places:
                return False
        return bool(places >> len(items) & 1)


def _character(char: str) -> str | Callable[[str], bool]:
    return char if char != _ANY else char.__eq__


def _takes(item: str | Callable[[str], bool], char: str) -> bool:
    if isinstance(item, str):
        return item in (char, _ANY)
    return item(char)


def _end_of_set(glob: str, start: int) -> int:
    """Return where the `]` of a set is that begins at `start`; 0: there is none, so the `[` means itself."""
    at = start
    if glob[at : at + 1] == "!":
        at += 1
    if glob[at : at + 1] == "]":
        at += 1
    return glob.find("]", at) if "]" in glob[at:] else 0


def _set(inside: str) -> Callable[[str], bool]:
    """Return the test for `[inside]`: characters and ranges; `!` in front turns it round."""
    negated = inside.startswith("!")
    if negated:
        inside = inside[1:]
    singles: set[str] = set()
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(inside):
        if at + 2 < len(inside) and inside[at + 1] == "-":
            ranges.append((inside[at], inside[at + 2]))
            at += 3
        else:
            singles.add(inside[at])
            at += 1

    def test(char: str) -> bool:
        return (char in singles or any(low <= char <= high for low, high in ranges)) != negated

    return test
