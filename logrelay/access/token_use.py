"""When each token was used last, and from where.

Owns: what is noted in memory, and the small file beside the token file in which `logrelay token list` finds it. It must
not know the tokens' limits or their texts. `TokenUse` is for one thread; `write_uses` blocks, and is for another.
Read `access/wrong_tokens` next.

The file is for people only: nothing is decided by it, so that a damaged one is begun anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from logrelay.access.token_file import read_private, write_private
from logrelay.access.tokens import Token
from logrelay.errors import TokenFileError

SUFFIX = ".used"
"""What the file's name has more than that of the token file."""

WRITE_EVERY_S = 60.0
"""The file is written so often at most: a scraper uses its token every few seconds."""

VERSION = 1


class Use(NamedTuple):
    """The last use of a token."""

    time_s: int
    """Seconds since 1970."""
    address: str
    """The address that the request came from; `local` for a Unix socket."""


class TokenUse:
    """Notes uses, and says when they are to be written. `known` is what was noted before, by the tokens' ids."""

    def __init__(self, known: Mapping[str, Use]) -> None:
        self._uses = dict(known)
        self._changed = False
        self._written_mono = float("-inf")

    def note(self, token: Token, now_s: float, address: str | None) -> None:
        """Note that a token has been used."""
        use = Use(int(now_s), address or "local")
        if self._uses.get(token.id) != use:
            self._uses[token.id] = use
            self._changed = True

    def take(self, known_ids: set[str], mono: float, *, at_once: bool = False) -> dict[str, Use] | None:
        """Return what is to be written now, of the tokens that there are; None: nothing, or not yet."""
        if not self._changed or (not at_once and mono - self._written_mono < WRITE_EVERY_S):
            return None
        self._changed = False
        self._written_mono = mono
        self._uses = {id_: use for id_, use in self._uses.items() if id_ in known_ids}
        return dict(self._uses)


def read_uses(tokens_path: str) -> dict[str, Use]:
    """Return the uses by the tokens' ids; empty where there is no file, or none that can be read."""
    try:
        data = read_private(tokens_path + SUFFIX)
        shape = json.loads(data) if data is not None else {}
        if shape.get("version") != VERSION:
            return {}
        return {str(id_): Use(int(time_s), str(address)) for id_, (time_s, address) in shape["uses"].items()}
    except (TokenFileError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def latest_uses(one: Mapping[str, Use], other: Mapping[str, Use]) -> dict[str, Use]:
    """Return the later use of each token."""
    return {id_: max(found[id_] for found in (one, other) if id_ in found) for id_ in {**one, **other}}


def write_uses(tokens_path: str, uses: Mapping[str, Use]) -> None:
    """Write the uses. Raises OSError."""
    shape = {"version": VERSION, "uses": {id_: list(use) for id_, use in uses.items()}}
    write_private(tokens_path + SUFFIX, json.dumps(shape, indent=1).encode() + b"\n")
