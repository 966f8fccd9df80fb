"""Where a line stands: the ids that viewers hold, and the positions they mean.

Owns: how an id is written and read, and which ids are good in this journal. It must not know lines, viewers or the
journal: the epochs and the head are arguments. No I/O. Read `fanout/hub` next.

A position is (epoch, seq), written `<epoch>-<seq>`. The epoch names the journal; a provisional one, `<epoch>.<random>`,
names lines that were shown before the journal held them, and becomes an alias of the journal's own when it does.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from logrelay.errors import RequestError, quoted

EXAMPLE_ID = "k3f9ab-1042"
"""What an error message shows to somebody who sent something else."""

SHOWN_CHARS = 60
"""How much of a wrong id an error repeats: a valid one has at most 53 characters."""

_ID = re.compile(r"([a-z0-9]{1,16}(?:\.[a-z0-9]{1,16})?)-([0-9]{1,19})")


def id_of(epoch: str, seq: int) -> str:
    """Write the id of a position."""
    return f"{epoch}-{seq}"


def is_id(text: str) -> bool:
    """Tell whether the text has the form of an id, of whatever journal."""
    return _ID.fullmatch(text) is not None


def split_id(id_: str) -> tuple[str, int]:
    """Split an id into epoch and seq. Raises RequestError (`bad_id`)."""
    match = _ID.fullmatch(id_)
    if not match:
        raise RequestError("bad_id", f"{quoted(id_, SHOWN_CHARS)} is not an id such as {EXAMPLE_ID!r}")
    return match[1], int(match[2])


def resolve_id(id_: str, *, epoch: str, aliases: Collection[str], head: int, head_id: str) -> int:
    """Return the seq that an id means in the journal `epoch`, whose newest line is `head`, shown as `head_id`.

    `aliases` are the provisional epochs that mean the same journal. Raises RequestError: `bad_id`, or `expired` when
    the id is of another journal or ahead of this one.
    """
    of, seq = split_id(id_)
    if of != epoch and of not in aliases:
        raise RequestError("expired", f"{id_} is an id of another journal; this one's ids begin with {epoch}-")
    if seq > head:
        raise RequestError("expired", f"{id_} is ahead of this journal, whose newest line is {head_id}")
    return seq
