"""What tells a true row from a damaged one: a checksum for each.

Owns: how the checksum of a line and of a row of the small tables is computed, in Python and in SQL, and what a line
without one (written by an older version) must at least look like. It must not read or write anything. Pure. Read
`journal/holes` next: it keeps what turned out to be damaged.

A line's checksum is zlib's CRC-32 of the body, begun with the seq, plus the other columns, each times an odd number,
modulo 2^32. A reader can take the other columns off in SQL, where it costs nothing, and is left with one CRC for each
line; and a change of any one bit changes the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MASK = 0xFFFFFFFF
_TIME_HIGH, _LEVEL, _SOURCE, _RUN = 40503, 7919, 104729, 1299709
"""Odd numbers that keep the columns apart: two of them exchanged give another sum."""

BODY_CRC_SQL = (
    f"((crc - time_us - (time_us >> 32) * {_TIME_HIGH} - level * {_LEVEL} - source * {_SOURCE} - run * {_RUN})"
    f" & {MASK})"
)
"""The checksum of seq and body alone that the row claims; NULL for a line of an older version."""

UNCHECKED = -1
"""Stands for a missing checksum where numbers are listed."""


def line_crc(seq: int, time_us: int, level: int, source: int, run: int, body: bytes) -> int:
    """Return the checksum of a line; `source` is its number."""
    rest = time_us + (time_us >> 32) * _TIME_HIGH + level * _LEVEL + source * _SOURCE + run * _RUN
    return (crc32(body, seq & MASK) + rest) & MASK


def line_crcs(
    seqs: Iterable[int],
    times: Iterable[int],
    levels: Iterable[int],
    sources: Iterable[int],
    runs: Iterable[int],
    bodies: Iterable[bytes],
) -> list[int]:
    """Return the checksums of many lines, each as `line_crc` does."""
    crcs = map(crc32, bodies, [seq & MASK for seq in seqs])
    return [
        (crc + us + (us >> 32) * _TIME_HIGH + level * _LEVEL + source * _SOURCE + run * _RUN) & MASK
        for crc, us, level, source, run in zip(crcs, times, levels, sources, runs, strict=True)
    ]


def row_crc(values: Iterable[object]) -> int:
    """Return the checksum of a row of a small table: integers, texts, bytes and NULLs."""
    texts = [v.hex() if type(v) is bytes else str(v) for v in values]
    return crc32("\0".join(texts).encode("utf-8", "replace"))


def damaged(seqs: Sequence[int], bodies: Sequence[bytes], wanted: Sequence[int]) -> list[int]:
    """Return the seqs whose body is not what it was; `wanted` as BODY_CRC_SQL gives it, UNCHECKED for none."""
    if [crc32(body, seq & MASK) for seq, body in zip(seqs, bodies, strict=True)] == list(wanted):
        return []  # the usual page: one comparison
    return [
        seq
        for seq, body, crc in zip(seqs, bodies, wanted, strict=True)
        if not (is_a_line(seq, body) if crc == UNCHECKED else crc32(body, seq & MASK) == crc)
    ]


def is_a_line(seq: int, body: bytes) -> bool:
    """Tell whether a body without a checksum has the shape of the line `seq`."""
    try:
        shape = orjson.loads(body)
    except ValueError:
        return False
    return (
        isinstance(shape, dict)
        and str(shape.get("id")).endswith(f"-{seq}")
        and isinstance(shape.get("message"), str)
        and isinstance(shape.get("context"), dict)
        and isinstance(shape.get("level"), str)
    )
