"""The trader's codec against the golden vectors, byte by byte and in pieces."""

import importlib.util
import json
import math
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_trader.log_relay import frames

FOLDER = Path(__file__).parents[2] / "contract" / "vectors"
VECTORS = json.loads((FOLDER / "wire-v1.json").read_text())


def valued(described):
    """Turn the JSON description of a frame into values."""
    if isinstance(described, dict):
        if described.keys() == {"$bytes"}:
            return bytes.fromhex(described["$bytes"])
        if described.keys() == {"$float"}:
            return float(described["$float"])
        if described.keys() == {"$int"}:
            return int(described["$int"])
        return {key: valued(item) for key, item in described.items()}
    return [valued(item) for item in described] if isinstance(described, list) else described


def same(a, b):
    """Equal in value and type; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def test_vectors_are_what_their_maker_makes():
    """The files in the repository are the maker's output, so that nobody edits one without the other."""
    spec = importlib.util.spec_from_file_location("make_wire_v1", FOLDER / "make_wire_v1.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert {path.name for path in FOLDER.glob("wire-*.json")} == set(maker.FILES)
    for name, make in maker.FILES.items():
        assert (FOLDER / name).read_text() == maker.written(make())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vectors_decode_to_their_description(vector):
    """A plain msgpack decoder reads each vector as it is described: the file itself is sound."""
    assert same(msgpack.unpackb(bytes.fromhex(vector["hex"])), valued(vector["frame"]))


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["canonical"]], ids=lambda v: v["name"])
def test_encoder_produces_the_canonical_vectors(vector):
    """The encoder's bytes are the vector's."""
    match valued(vector["frame"]):
        case [0, info]:
            info.pop("protocol")
            made = frames.hello(**info)
        case [1, seq, time_ns, level, event]:
            made = frames.log(seq, time_ns, frames.LEVELS[level], msgpack.packb(event))
            assert frames.seq_of(made) == seq
            assert frames.time_of(made) == time_ns
            assert len(made) <= frames.MAX_FRAME
        case [2, first, last, _count, cause]:
            made = frames.lost(first, last, cause)
        case [3, last]:
            made = frames.bye(last)
        case [kind]:
            made = {4: frames.PING, 5: frames.PONG}[kind]
    assert made.hex() == vector["hex"]


def answer(frame):
    match frame:
        case [0, {"acked": acked, **more}]:
            return frames.Welcome(acked, more.get("ping_s", 0.0), more.get("dead_s", 0.0))
        case [1, seq]:
            return frames.Ack(seq)
        case [2, seq, reason]:
            return frames.Reject(seq, reason)
        case [3, reason]:
            return frames.Refused(reason)
        case [kind]:
            return {4: frames.Ping, 5: frames.Pong}[kind]()


RELAY = [v for v in VECTORS if v["direction"] == "relay"]


@pytest.mark.parametrize("vector", RELAY, ids=lambda v: v["name"])
def test_decoder_reads_the_relay_vectors(vector):
    """Whole, and one byte at a time."""
    data = bytes.fromhex(vector["hex"])
    expected = answer(valued(vector["frame"]))
    assert frames.Decoder().feed(data) == [expected]
    decoder = frames.Decoder()
    assert [a for i in range(len(data)) for a in decoder.feed(data[i : i + 1])] == [expected]


@given(cuts=st.lists(st.integers(0, 400)))
def test_decoder_reads_any_pieces(cuts):
    """All relay vectors in one stream, cut anywhere: the same answers in the same order."""
    data = b"".join(bytes.fromhex(v["hex"]) for v in RELAY if "ack:" not in v["name"])
    decoder, got, at = frames.Decoder(), [], 0
    for cut in [*sorted(min(c, len(data)) for c in cuts), len(data)]:
        got += decoder.feed(data[at:cut])
        at = cut
    assert got == [answer(valued(v["frame"])) for v in RELAY if "ack:" not in v["name"]]


@given(data=st.binary(max_size=300))
def test_decoder_never_raises(data):
    """Any bytes: answers or one Garbage, after which the decoder stays silent."""
    decoder = frames.Decoder()
    answers = [answer for piece in (data, b"\xc1" * 300, b"\x92\x01\x05" * 3) for answer in decoder.feed(piece)]
    assert sum(isinstance(a, frames.Garbage) for a in answers) <= 1
    if any(isinstance(a, frames.Garbage) for a in answers):
        assert isinstance(answers[-1], frames.Garbage)
        assert decoder.feed(b"\x92\x01\x05") == []


def test_acks_in_a_burst_become_one():
    """Acks are cumulative: a burst is one answer, the highest, and never looks like garbage for its size."""
    burst = b"".join(msgpack.packb([1, n]) for n in range(100_000))
    answers = frames.Decoder().feed(burst)
    assert answers[-1] == frames.Ack(99_999)
    assert len(answers) < 5


def test_high_levels_are_told_by_their_first_letter():
    """The outbox reads a stored frame's level from one byte: the words must keep their first letters apart."""
    from robo_trader.log_relay import outbox  # noqa: PLC0415

    for word, packed in frames.LEVELS.items():
        frame = frames.log(1, 1, packed, b"\x80")
        assert (frame[outbox.LEVEL_AT] in outbox.HIGH_LEVELS) == (word in ("warning", "error", "critical"))


def test_encoders_survive_odd_text():
    """A lone surrogate in the app's or host's name is escaped, not raised."""
    frame = frames.hello(run=bytes(16), app="\ud800", host="h", pid=1, started_ns=2)
    assert msgpack.unpackb(frame)[1]["app"] == "\\ud800"


@pytest.mark.parametrize("size", [0, 1, 100, frames.MAX_BODY])
def test_a_body_of_the_bound_fits_a_frame(size):
    """MAX_BODY plus the longest header is the protocol's frame, not a byte more."""
    frame = frames.log(2**63 - 1, 2**63 - 1, frames.LEVELS["critical"], b"x" * size)
    assert len(frame) <= frames.MAX_FRAME
    if size == frames.MAX_BODY:
        assert len(frame) == frames.MAX_FRAME
