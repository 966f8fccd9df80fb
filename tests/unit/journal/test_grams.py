"""Filters of blocks: what occurs is never denied, and a slab gives back what was laid into it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.fanout.filters import Filter
from logrelay.fanout.line_json import log_line
from logrelay.journal import grams
from logrelay.journal.grams import (
    BLOCKS,
    GROUPS,
    PARTS,
    POSITIONS,
    bits_at,
    filter_of,
    indexed_text,
    needles_of,
    part_of,
    pieces_of,
    places_of,
    position_of,
    slab_of,
)

texts = st.lists(st.binary(max_size=12), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, min_size=1, max_size=BLOCKS), st.data())
def test_what_occurs_in_a_block_is_not_denied(blocks, data):
    """Any part of three characters or more of any text, wherever it stands, also at the very end."""
    slab = slab_of([filter_of(pieces_of(block)) for block in blocks])
    number = data.draw(st.integers(0, len(blocks) - 1))
    text = data.draw(st.sampled_from(blocks[number]))
    start = data.draw(st.integers(0, len(text)))
    needle = text[start : data.draw(st.integers(start, len(text)))]
    places = places_of([needle])
    assert bool(places) == (len(needle) >= 3)
    for place in places:
        assert bits_at(part_of(slab, place[0]), place) >> number & 1


def test_what_does_not_occur_is_mostly_denied():
    """Of a thousand ids none is found by chance in a block of six hundred others, with the pieces that a block has."""
    random = Random(1)
    slab = slab_of([filter_of(pieces_of(b"%016x" % random.getrandbits(64) for _ in range(900)))])
    found = 0
    for _ in range(1000):
        places = places_of([b"%016x" % random.getrandbits(64)])
        found += all(bits_at(part_of(slab, place[0]), place) for place in places)
    assert found == 0


def test_the_two_ways_to_a_position_agree():
    """The fast one is written out where it is used."""
    pieces = {0, 1, 0xFFFFFFFF, 0x61626364, 0x80000000, 0x00FFFFFF, *range(10_000, 20_000, 7)}
    made = filter_of(pieces)
    assert {at for at, bit in enumerate(made) if bit} == {position_of(piece) for piece in pieces}


def test_the_parts_are_the_slab():
    """And one of them fits a page."""
    slab = slab_of([b"\1" * POSITIONS] * BLOCKS)
    assert slab == b"\xff" * (POSITIONS * GROUPS)
    assert b"".join(part_of(slab, part) for part in range(PARTS)) == slab
    assert len(part_of(slab, 0)) < 4096 - 100


def test_a_long_text_is_asked_for_at_some_places():
    """More of them would cost reads and say nothing new."""
    assert len(places_of([bytes(range(200))])) <= grams.MOST_ASKED


def test_what_of_a_line_is_indexed():
    """Message, values and run; no names, no time, no source. A damaged line is left out."""
    event = {"event": "Order.Sent", "logger": "LoggerName", "order_id": "A1", "n": 1.5, "deep": {"K": ["X"]}}
    line = log_line("abc123", 1, 1, "bot", 0, 20, event, b"k" * 16)[0]
    text = indexed_text(line.body)
    assert text == b'order.sent\0a1\x001.5\0{"k":["x"]}\0' + line.run_name.encode()
    for damaged in (b"", b"{", b"[]", b"{}", b'{"message":1,"context":{}}', b'{"message":"x","context":[]}'):
        assert indexed_text(damaged) == b""


@pytest.mark.parametrize(
    ("wanted", "needles"),
    [
        (Filter(text="OrDer"), [b"order"]),
        (Filter(text="or"), []),
        (Filter(text="order_id=A1b"), [b"a1b"]),
        (Filter(text="order_id="), []),
        (Filter(where=(("symbol", "AAPL"), ("n", "1"))), [b"aapl"]),
        (Filter(runs=("744b938d",)), [b"744b938d"]),
        (Filter(runs=("744b*",)), []),
        (Filter(runs=("744b", "855c")), []),
        (Filter(text="word", where=(("k", "value"),)), [b"word", b"value"]),
    ],
)
def test_what_a_filter_needs(wanted, needles):
    """Only what every line that passes has in its indexed text."""
    assert needles_of(wanted) == needles
