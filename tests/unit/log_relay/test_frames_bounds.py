"""The bounds of the trader's decoder at the bound, and what it says about what it cannot read."""

import msgpack
import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay.frames import Ack, Decoder, Garbage, Refused, Reject, Welcome

MOST = frames.MAX_SEQ
NONSENSE = Garbage("not an answer of wire protocol v1")


def feed(*values):
    return Decoder().feed(b"".join(map(msgpack.packb, values)))


def test_the_highest_and_lowest_seq():
    """Zero is what a relay says that has nothing; one more than the highest is no seq."""
    for seq in (0, 1, MOST):
        assert feed([0, {"protocol": 1, "acked": seq}]) == [Welcome(seq)]
        assert feed([1, seq]) == [Ack(seq)]
        assert feed([2, seq, "no"]) == [Reject(seq, "no")]
    for seq in (MOST + 1, -1, True, 1.0, "1", None):
        assert feed([0, {"protocol": 1, "acked": seq}]) == [Garbage("a welcome of another protocol")]
        assert feed([1, seq]) == [NONSENSE]
        assert feed([2, seq, "no"]) == [NONSENSE]


@pytest.mark.parametrize("value", [[], [4, 1], [1], [1, 2, 3], [2, 1], [3], [3, "a", "b"], [0, 1], {}, 5, "x", None])
def test_what_is_no_answer_ends_the_connection(value):
    """Nothing behind it is read any more."""
    decoder = Decoder()
    assert decoder.feed(msgpack.packb(value) + msgpack.packb([1, 5])) == [NONSENSE]
    assert decoder.feed(msgpack.packb([1, 5])) == []


def test_a_welcome_of_another_protocol_is_told_as_such():
    """Its version is not ours, or it says nothing about what it has."""
    for welcome in ({"protocol": 2, "acked": 1}, {"acked": 1}, {"protocol": 1}, {}):
        assert feed([0, welcome]) == [Garbage("a welcome of another protocol")]
    assert feed([0, {"protocol": 1, "acked": 1, "more": 2}]) == [Welcome(1)]


def test_a_reason_is_made_fit_for_a_terminal():
    """Cut, and without control characters; what is no text is named by its type."""
    assert feed([3, "a" * 499 + "b" + "c"]) == [Refused("a" * 499 + "b")]
    assert feed([3, "no\x1b[2J\nway"]) == [Refused("no?[2J?way")]
    assert feed([2, 1, b"x"]) == [Reject(1, "(bytes)")]
    assert feed([3, None]) == [Refused("(NoneType)")]
    assert Decoder().feed(b"\x92\x03\xa1\xff") == [Refused("\ufffd")]


def test_only_neighbouring_acks_are_one():
    """The higher of the two; what is between keeps its place."""
    assert feed([1, 5], [1, 3], [1, 7], [2, 6, "no"], [1, 4], [1, 9]) == [Ack(7), Reject(6, "no"), Ack(9)]
    assert feed([1, 3], [3, "x"]) == [Ack(3), Refused("x")]


def test_an_answer_without_end_is_not_waited_for():
    """Up to the bound it may still become one; beyond it is garbage, though each of its parts is allowed."""
    part = b"\xda\x02\x00" + b"x" * 512
    data = b"\x9f" + 14 * part
    for size in (1, 100, frames.MAX_ANSWER):
        decoder = Decoder()
        if size > 1:
            assert decoder.feed(msgpack.packb([1, 5])) == [Ack(5)]
        for at in range(0, frames.MAX_ANSWER, size):
            assert decoder.feed(data[at : min(at + size, frames.MAX_ANSWER)]) == []
        assert decoder.feed(data[frames.MAX_ANSWER : frames.MAX_ANSWER + 1]) == [
            Garbage("not msgpack: an answer without end")
        ]
        assert decoder.feed(msgpack.packb([1, 1])) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc1", "FormatError"),
        (b"\xdc\x00\x11", "17 exceeds max_array_len(16)"),
        (b"\xde\x00\x41", "65 exceeds max_map_len(64)"),
        (b"\xda\x10\x01" + b"x" * 4097, "4097 exceeds max_str_len(4096)"),
        (b"\xc5\x10\x01" + b"x" * 4097, "4097 exceeds max_bin_len(4096)"),
        (b"\xd4\x05\x00", "2 exceeds max_ext_len(0)"),
        (b"\x81\x01\x01", "int is not allowed for map key when strict_map_key=True"),
    ],
)
def test_nothing_is_allocated_for_what_no_answer_holds(data, why):
    """The first byte that is wrong ends it, and a person is told what."""
    assert Decoder().feed(data) == [Garbage(f"not msgpack: {why}")]


def test_what_fits_is_read():
    """A welcome may hold more than today's."""
    more = {f"k{n}": n for n in range(62)}
    assert feed([0, {"protocol": 1, "acked": 3} | more]) == [Welcome(3)]
    assert feed([3, "x" * 4000]) == [Refused("x" * 500)]


def test_a_burst_is_read_in_pieces():
    """More bytes than the buffer holds at once, ends of pieces in the middle of answers."""
    burst = b"".join(msgpack.packb([2, n, "r" * 400]) for n in range(1000))
    answers = Decoder().feed(burst)
    assert [answer.seq for answer in answers] == list(range(1000))
    answers = Decoder().feed(burst + b"\xc1" + burst)
    assert len(answers) == 1001
    assert answers[-1] == Garbage("not msgpack: FormatError")


def test_hello_bye_and_lost_as_bytes():
    """What the relay is told: each field in its place."""
    made = frames.hello(run=b"r" * 16, app="a", host="h", pid=3, started_ns=4)
    hello = {"protocol": 1, "run": b"r" * 16, "app": "a", "host": "h", "pid": 3, "started_ns": 4}
    assert msgpack.unpackb(made) == [0, hello]
    assert msgpack.unpackb(frames.bye(7)) == [3, 7]
    assert msgpack.unpackb(frames.lost(3, 5, "encode")) == [2, 3, 5, 3, "encode"]
