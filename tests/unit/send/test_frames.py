"""A trader's frames as the relay reads them, and its answers as bytes of the vectors."""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import pytest

from logrelay.ingest.frames import MAX_FRAME_BYTES, Bye, Decoder, Hello, Log
from logrelay.send import frames
from logrelay.send.frames import CUT_BYTES, MAX_ANSWER_BYTES, MAX_LOGGER_CHARS, Ack, Answers, Refused, Reject, Welcome

VECTORS = json.loads((Path(__file__).parents[2] / "contract" / "vectors" / "wire-v1.json").read_text())
RUN = bytes(range(16))


def read(data):
    return Decoder().receive(data)


def test_hello_and_bye_are_those_of_the_vectors():
    """To the byte: all implementations of the protocol have them in common."""
    hexes = {vector["name"]: bytes.fromhex(vector["hex"]) for vector in VECTORS}
    made = frames.hello(RUN, "robo_trader", "box", 4242, 1769162400123456789)
    assert made == hexes["hello"]
    assert read(made) == [Hello(RUN, "robo_trader", "box", 4242, 1769162400123456789)]
    assert read(frames.bye(7)) == [Bye(7)]


def test_a_line_is_read_as_it_was_given():
    """Half a surrogate pair, which no UTF-8 holds, becomes a question mark."""
    event = {"event": "m", "n": 2**64 - 1, "deep": {"a": [None, True, 1.5]}, "half": "\ud800"}
    assert read(frames.log(3, 5, "error", event)) == [Log(3, 5, 40, {**event, "half": "?"})]


@pytest.mark.parametrize("over", [0, 1])
def test_a_line_that_does_not_fit_is_cut(over):
    """The longest that fits is sent as it is; a byte more, and the message is cut and the fields left out."""
    base = len(frames.log(1, 1, "info", {"event": "x" * 60_000, "field": 1}))
    event = {"event": "x" * (60_000 + MAX_FRAME_BYTES - base + over), "field": 1}
    frame = frames.log(1, 1, "info", event)
    assert len(frame) <= MAX_FRAME_BYTES
    cut = {"event": "x" * CUT_BYTES, "truncated": MAX_FRAME_BYTES + 1}
    assert read(frame) == [Log(1, 1, 20, cut if over else event)]


def test_a_cut_does_not_split_a_character_and_keeps_the_logger():
    """A logger name that is too long itself goes; a message that is no text has nothing to keep."""
    assert CUT_BYTES % 3 == 0
    long = "x" + "€" * 30_000
    (line,) = read(frames.log(1, 1, "info", {"event": long, "logger": "a"}))
    assert line.event["event"] == long[: CUT_BYTES // 3]
    assert line.event["logger"] == "a"
    for logger, kept in (("l" * MAX_LOGGER_CHARS, True), ("l" * (MAX_LOGGER_CHARS + 1), False), (7, False)):
        (line,) = read(frames.log(1, 1, "info", {"event": long, "logger": logger}))
        assert ("logger" in line.event) is kept
    (line,) = read(frames.log(1, 1, "info", {"event": [1], "pad": long}))
    assert line.event["event"] == ""


def test_a_value_that_is_nested_too_deep_is_left_out():
    """Such a line has no size."""
    deep = []
    for _ in range(3000):
        deep = [deep]
    assert read(frames.log(1, 1, "info", {"event": "m", "deep": deep})) == [
        Log(1, 1, 20, {"event": "m", "truncated": 0})
    ]


@pytest.mark.parametrize(
    # Pings are not among them: the hello of `logrelay send` does not ask for any.
    "vector",
    [v for v in VECTORS if v["direction"] == "relay" and len(v["frame"]) > 1],
    ids=lambda v: v["name"],
)
def test_every_answer_of_the_vectors_is_understood(vector):
    """Byte by byte as well as at once."""
    data = bytes.fromhex(vector["hex"])
    kind, *rest = vector["frame"]
    (made,) = Answers().receive(data)
    assert type(made) is (Welcome, Ack, Reject, Refused)[kind]
    if kind:
        assert [value for value in rest if not isinstance(value, dict)] == [
            v for v in made if not isinstance(v, int)
        ] or (kind in (1, 2))
    one_by_one = Answers()
    assert [answer for byte in data for answer in one_by_one.receive(bytes([byte]))] == [made]


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        ([0, {"protocol": 1, "acked": 7, "more": 1}], Welcome(7)),
        ([1, 9], Ack(9)),
        ([2, 3, "why"], Reject(3, "why")),
        ([3, "full"], Refused("full")),
    ],
)
def test_answers(frame, answer):
    """Several at once come in order."""
    packed = msgpack.packb(frame)
    assert Answers().receive(packed * 2) == [answer, answer]


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"HTTP/1.1",
        *map(msgpack.packb, ([0, {"protocol": 2, "acked": 1}], [0, {}], [9], [1, "x"], [2, 1], [], 5)),
    ],
    ids=repr,
)
def test_what_is_no_answer_of_a_relay_is_a_refusal(data):
    """Another program may listen on that socket."""
    assert Answers().receive(msgpack.packb([1, 1]) + data)[-1].reason.startswith("what answers there is no relay (")


def test_an_answer_without_end_is_a_refusal():
    """It does not fill the memory."""
    answers = Answers()
    head = b"\x93\x02\x01\xdb\x7f\xff\xff\xff"
    assert answers.receive(head) == []
    assert isinstance(answers.receive(b"x" * (MAX_ANSWER_BYTES + 1))[-1], Refused)
