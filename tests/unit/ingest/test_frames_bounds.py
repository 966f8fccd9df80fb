"""Every bound of the protocol at the bound: what is just allowed, and what the trader is told beyond it."""

from __future__ import annotations

import msgpack
import pytest

from logrelay.ingest import frames
from logrelay.ingest.frames import Bad, Broken, Bye, Decoder, Hello, Log, Lost

MOST = frames.MAX_SEQ
HELLO = {"protocol": 1, "run": b"r" * 16, "app": "bot", "host": "box", "pid": 1, "started_ns": 2}


def decode(*values):
    return Decoder().receive(b"".join(map(msgpack.packb, values)))


def test_the_highest_numbers_are_allowed():
    """In each place where a number has a bound; one more is not."""
    assert decode([1, MOST, 5, "info", {}]) == [Log(MOST, 5, 20, {})]
    assert decode([2, MOST, MOST, 1, "overflow"]) == [Lost(MOST, MOST, "overflow")]
    assert decode([3, MOST]) == [Bye(MOST)]
    assert decode([1, MOST, 5, "loud", {}]) == [Bad(MOST, "level 'loud' is not one of " + ", ".join(frames.RANKS))]
    assert decode([0, HELLO | {"pid": MOST, "started_ns": MOST}]) == [Hello(b"r" * 16, "bot", "box", MOST, MOST)]
    for beyond in ([1, MOST + 1, 5, "info", {}], [2, 1, MOST + 1, MOST + 1, "x"], [3, MOST + 1]):
        assert type(decode(beyond)[0]) is Broken
    for field in ("pid", "started_ns"):
        assert decode([0, HELLO | {field: MOST + 1}]) == [Broken("hello's pid and started_ns are integers")]
        assert decode([0, HELLO | {field: -1}]) == [Broken("hello's pid and started_ns are integers")]


@pytest.mark.parametrize("level", ["info", "loud"])
def test_a_frame_of_the_bound_is_not_too_long(level):
    """The next byte is what it is rejected for, whatever else is wrong with it."""
    event = "x" * (frames.MAX_FRAME_BYTES - len(msgpack.packb([1, 1, 5, level, {"event": "x" * 60_000}])) + 60_000)
    fits, over = ([1, 1, 5, level, {"event": event + more}] for more in ("", "x"))
    assert len(msgpack.packb(fits)) == frames.MAX_FRAME_BYTES
    (taken,), (rejected,) = decode(fits), decode(over)
    assert type(taken) is Log if level == "info" else taken.reason.startswith("level 'loud'")
    assert rejected == Bad(1, f"the frame has {frames.MAX_FRAME_BYTES + 1} bytes; at most 65536 are allowed")


def test_half_a_frame_is_waited_for_up_to_the_bound():
    """One byte more ends the connection, which is told why; what comes later is ignored."""
    decoder = Decoder()
    claim = b"\x91\xc6\x00\x20\x00\x00"  # an array that holds two megabytes
    room = frames.MAX_PENDING_BYTES - len(claim)
    assert decoder.receive(claim + bytes(room)) == []
    assert decoder.pending == frames.MAX_PENDING_BYTES
    assert decoder.receive(b"x") == [Broken("a frame of more than 1048576 bytes; at most 65536 are allowed")]
    assert decoder.receive(bytes(10)) == []
    assert decoder.receive(msgpack.packb([3, 1])) == []


def test_a_large_read_behind_a_large_half_is_taken():
    """The buffer has room for the bytes that are waited for and for another read."""
    decoder = Decoder()
    frame = msgpack.packb([1, 1, 5, "info", {"event": "x" * 1_000}])
    many = frame * (2 * frames.MAX_PENDING_BYTES // len(frame) - 10)
    received = decoder.receive(many[:-10])
    assert len(received) + 1 == len(many) // len(frame)
    assert len(decoder.receive(many[-10:])) == 1


@pytest.mark.parametrize(
    "claim",
    [b"\xdd" + (frames.MAX_FRAME_BYTES + 1).to_bytes(4, "big"), b"\xdf" + (1 << 20).to_bytes(4, "big")],
    ids=["array", "map"],
)
def test_a_claim_of_too_many_items_is_not_believed(claim):
    """Before anything is allocated for it."""
    (broken,) = Decoder().receive(claim)
    assert broken.reason.startswith("not msgpack as agreed: ValueError ")
    assert "exceeds max" in broken.reason


def test_what_is_no_msgpack_is_named():
    """By the kind of the error, cut to a line's length."""
    assert Decoder().receive(b"\xc1") == [Broken("not msgpack as agreed: FormatError")]
    assert frames._describe_error(ValueError("x" * 500)) == "ValueError " + "x" * 109


def test_keys_and_values_may_be_of_any_kind():
    """The relay shows what it gets: a key that is a number, bytes that are not UTF-8."""
    (line,) = decode([1, 1, 5, "info", {1: b"\xff", "t": "ok"}])
    assert line.event == {1: b"\xff", "t": "ok"}
    (line,) = Decoder().receive(b"\x95\x01\x01\x05\xa4info\x81\xa1k\xa1\xff")
    assert line.event == {"k": "\ufffd"}
