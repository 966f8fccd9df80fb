"""Which blocks of lines can hold a text: a filter of the four-character pieces of each block.

Owns: what of a line is indexed, how its pieces become positions in a filter, the layout of many filters in a slab, and
which pieces a question needs. It must not know SQL or files. Pure. Read `journal/text_index` next: it keeps the slabs.

Every piece of four characters (bytes, lowered) that occurs in the lines of a block sets one bit of the block's filter,
so a block in which a piece of the text is missing cannot hold the text, and any part of a word is found as well as a
whole one. A filter says "perhaps" of blocks that have all pieces, by chance or elsewhere: their lines are read.

The bits of one position in the filters of all blocks of a slab lie side by side, so that a question reads some bytes
for each of its pieces and not every filter. The first three characters of a piece choose sixteen positions next to
each other, the fourth one of them: a text of three characters asks for all sixteen at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import orjson

from logrelay.fanout.filters import Filter, ascii_lower, search_text
from logrelay.fanout.globs import is_glob

POSITIONS = 1 << 16
"""Bits of a block's filter."""
MOST_PIECES = 12_000
"""A block ends when it has so many pieces: a sixth of its bits are set then, so that a text of eight characters, five
pieces, is asked for in vain in one block of ten thousand."""
MOST_LINES = 1024
"""A block ends after so many lines whatever is in them: they are read for a single match."""
GROUP = 8
"""Blocks whose bits share a byte."""
GROUPS = 15
"""Bytes of one position in a slab: 120 blocks."""
BLOCKS = GROUP * GROUPS
PARTS = 256
"""A slab is stored in so many rows: each has the bits of 256 positions, 3,840 bytes, which fit a page of the file."""
MOST_ASKED = 24
"""Pieces of one question that are looked up; more would not make it any sharper."""
SHORTEST = 3
"""Characters of a text that the index can be asked for; shorter ones are looked for in every line."""
LAYOUT = f"1 {POSITIONS} {GROUPS} {sys.byteorder}".encode()
"""What the stored bytes depend on. It goes into their checksums, so that those of another layout count as damaged."""

_PER_PART = POSITIONS // PARTS
_STEP = 4
_PREFIX_MASK, _SPREAD, _LAST_SPREAD = 0xFFFFFF, 0x9E3779B1, 0x85EBCA6B


def indexed_text(body: bytes) -> bytes:
    """Return what of a rendered line is indexed: its message, the values of its context, and its run.

    Empty for what is no line: a damaged one is never shown, so nobody has to find it.
    """
    try:
        shape = orjson.loads(body)
        text = search_text(shape["message"], shape["context"], named=False)
    except (ValueError, KeyError, TypeError, AttributeError):
        return b""
    return text + b"\0" + ascii_lower(str(shape.get("run", "")))


def pieces_of(texts: Iterable[bytes]) -> set[int]:
    """Return the four-byte pieces of some texts, as numbers."""
    # A piece across two texts is harmless. The end is padded, so that three characters at the end are a piece too.
    text = b"\0".join(texts) + bytes(_STEP)
    view, found = memoryview(text), set[int]()
    for start in range(_STEP):
        end = start + (len(text) - start) // _STEP * _STEP
        found.update(view[start:end].cast("I"))
    return found


def position_of(piece: int) -> int:
    """Return the bit of a piece in a filter."""
    if sys.byteorder == "big":
        piece = _swapped(piece)
    return ((piece & _PREFIX_MASK) * _SPREAD >> 20 & 0xFFF) << 4 | piece * _LAST_SPREAD >> 28 & 0xF


def _swapped(piece: int) -> int:
    return int.from_bytes(piece.to_bytes(4, "big"), "little")


def filter_of(pieces: Iterable[int]) -> bytes:
    """Return a block's filter: a byte for each position, 0 or 1."""
    found = bytearray(POSITIONS)
    add_pieces(found, pieces)
    return bytes(found)


def add_pieces(found: bytearray, pieces: Iterable[int]) -> None:
    """Add pieces to the filter of a block, which is all zero at first."""
    if sys.byteorder == "big":
        pieces = map(_swapped, pieces)
    # As `position_of` says, without a call for each of some ten thousand pieces.
    for piece in pieces:
        found[((piece & _PREFIX_MASK) * _SPREAD >> 20 & 0xFFF) << 4 | piece * _LAST_SPREAD >> 28 & 0xF] = 1


def slab_of(filters: Sequence[bytes]) -> bytes:
    """Lay up to `BLOCKS` filters side by side: for each position `GROUPS` bytes with a bit for each block."""
    slab = empty_slab()
    for group in range(-(-len(filters) // GROUP)):
        lay_group(slab, filters, group)
    return bytes(slab)


def empty_slab() -> bytearray:
    """Return a slab in which no block has any piece."""
    return bytearray(POSITIONS * GROUPS)


def lay_group(slab: bytearray, filters: Sequence[bytes | bytearray], group: int) -> None:
    """Lay the filters of one group of blocks into a slab, of which `filters` has all."""
    bits = 0
    for number, one in enumerate(filters[group * GROUP : (group + 1) * GROUP]):
        bits |= int.from_bytes(one, "little") << number
    slab[group::GROUPS] = bits.to_bytes(POSITIONS, "little")


def part_of(slab: bytes | bytearray, part: int) -> bytes | bytearray:
    """Return one of the `PARTS` of a slab."""
    size = _PER_PART * GROUPS
    return slab[part * size : (part + 1) * size]


Place = tuple[int, int, int]
"""Where a question looks: the part, the first position in it, and how many of them, any of which will do."""


def places_of(needles: Iterable[bytes]) -> list[Place]:
    """Return where a question looks for texts that must all occur, lowered; none: it cannot be asked."""
    found: dict[Place, None] = {}
    for needle in needles:
        if len(needle) == SHORTEST:
            first = position_of(int.from_bytes(needle + b"\0", sys.byteorder)) & ~0xF
            found[first // _PER_PART, first % _PER_PART, 16] = None
        elif len(needle) > SHORTEST:
            for start in range(len(needle) - SHORTEST):
                at = position_of(int.from_bytes(needle[start : start + _STEP], sys.byteorder))
                found[at // _PER_PART, at % _PER_PART, 1] = None
    places = list(found)
    return places[:: max(1, -(-len(places) // MOST_ASKED))]


def bits_at(part: bytes, place: Place) -> int:
    """Return for each block of a slab, bit by bit, whether it has the piece of a place; `part` is that of the place."""
    _, first, count = place
    bits = 0
    for at in range(first * GROUPS, (first + count) * GROUPS, GROUPS):
        bits |= int.from_bytes(part[at : at + GROUPS], "little")
    return bits


def needles_of(wanted: Filter) -> list[bytes]:
    """Return texts, lowered, all of which occur in `indexed_text` of every line that passes, notices left out."""
    # Names are not indexed: of `name=value` only what is behind the last `=` is a value for certain.
    needles = [ascii_lower(wanted.text).rpartition(b"=")[2]]
    needles += [ascii_lower(value) for _, value in wanted.where]
    if len(wanted.runs) == 1 and not is_glob(wanted.runs[0]):
        needles.append(ascii_lower(wanted.runs[0]))
    return [needle for needle in needles if len(needle) >= SHORTEST]
