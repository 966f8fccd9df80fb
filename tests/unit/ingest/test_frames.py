"""The trader protocol, relay side: every frame, every way of arriving, every way of being wrong."""

from __future__ import annotations

import gc
import itertools
import json
import tracemalloc
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.ingest import frames
from logrelay.ingest.frames import Bad, Broken, Bye, Decoder, Hello, Log, Lost
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, WARNING

RUN = bytes(range(16))
HELLO = {"protocol": 1, "run": RUN, "app": "robo_trader", "host": "box", "pid": 4711, "started_ns": 1_700_000_000}


def pack(value):
    return msgpack.packb(value)


def hello(**changes):
    return [0, {key: value for key, value in {**HELLO, **changes}.items() if value is not None}]


GOOD = [
    (hello(), Hello(RUN, "robo_trader", "box", 4711, 1_700_000_000)),
    (hello(extra="unknown keys are ignored"), Hello(RUN, "robo_trader", "box", 4711, 1_700_000_000)),
    (hello(failed="f" * 1000), Hello(RUN, "robo_trader", "box", 4711, 1_700_000_000, failure="f" * 128)),
    (hello(failed=7), Hello(RUN, "robo_trader", "box", 4711, 1_700_000_000)),
    (hello(app="", host=""), Hello(RUN, "", "", 4711, 1_700_000_000)),
    (hello(app="a" * 1000, host="h" * 1000), Hello(RUN, "a" * 128, "h" * 128, 4711, 1_700_000_000)),
    (hello(pid=0, started_ns=0), Hello(RUN, "robo_trader", "box", 0, 0)),
    ([1, 1, 5, "debug", {}], Log(1, 5, DEBUG, {})),
    ([1, 2, 5, "info", {"event": "x"}], Log(2, 5, INFO, {"event": "x"})),
    ([1, 3, 0, "warning", {"n": None}], Log(3, 0, WARNING, {"n": None})),
    ([1, 4, -1, "error", {"f": 1.5, "b": b"\xff"}], Log(4, -1, ERROR, {"f": 1.5, "b": b"\xff"})),
    ([1, 2**63 - 1, 2**64 - 1, "critical", {"l": [1, [2]]}], Log(2**63 - 1, 2**64 - 1, CRITICAL, {"l": [1, [2]]})),
    ([2, 1, 1, 1, "overflow"], Lost(1, 1, "overflow")),
    ([2, 5, 9, 5, "c" * 200], Lost(5, 9, "c" * 64)),
    ([3, 0], Bye(0)),
    ([3, 77], Bye(77)),
]

BAD = [
    ([1, 7], 7, "5 elements, not 2"),
    ([1, 7, 5, "info"], 7, "5 elements, not 4"),
    ([1, 7, 5, "info", {}, 0], 7, "5 elements, not 6"),
    ([1, 7, "5", "info", {}], 7, "time_ns is an integer, not str"),
    ([1, 7, 5.0, "info", {}], 7, "time_ns is an integer, not float"),
    ([1, 7, True, "info", {}], 7, "time_ns is an integer, not bool"),
    ([1, 7, 5, "INFO", {}], 7, "level 'INFO' is not one of debug, info, warning, error, critical"),
    ([1, 7, 5, 20, {}], 7, "level 20 is not one of"),
    ([1, 7, 5, None, {}], 7, "level None is not one of"),
    ([1, 7, 5, ["info"], {}], 7, "level ['info'] is not one of"),
    ([1, 7, 5, "info", []], 7, "an event is a map, not list"),
    ([1, 7, 5, "info", None], 7, "an event is a map, not NoneType"),
    ([1, 7, 5, "info", "text"], 7, "an event is a map, not str"),
    ([2, 3, 9, 6, "overflow"], 9, "a lost frame is"),
    ([2, 9, 3, -5, "overflow"], 9, "a lost frame is"),
    ([2, 3, 9, 7, None], 9, "a lost frame is"),
]

BROKEN = [
    (None, "a frame is an array"),
    (1, "a frame is an array"),
    ("text", "a frame is an array"),
    ({}, "a frame is an array"),
    ([], "a frame is an array"),
    ([6], "kind 6"),
    ([4, 1], "kind 4"),
    ([5, None], "kind 5"),
    ([4.0], "kind 4.0"),
    ([-1, 2], "kind -1"),
    (["hello", {}], "kind 'hello'"),
    ([None], "kind None"),
    ([True, 1, 5, "info", {}], "kind True"),
    ([1.0, 1, 5, "info", {}], "kind 1.0"),
    ([1], "1 elements"),
    ([1, 0, 5, "info", {}], "kind 1"),
    ([1, -1, 5, "info", {}], "kind 1"),
    ([1, 2**63, 5, "info", {}], "kind 1"),
    ([1, "1", 5, "info", {}], "kind 1"),
    ([1, True, 5, "info", {}], "kind 1"),
    ([2, 0, 3, 4, "overflow"], "kind 2"),
    ([2, 1, 3, 3], "kind 2"),
    ([3], "kind 3"),
    ([3, -1], "kind 3"),
    ([3, False], "kind 3"),
    ([3, 1, 2], "kind 3"),
    ([0], "kind 0"),
    ([0, HELLO, 1], "kind 0"),
    ([0, []], "hello holds a map"),
    (hello(protocol=2), "protocol 2 is not spoken here; this relay speaks 1"),
    (hello(protocol="1"), "protocol '1' is not spoken"),
    (hello(protocol=None), "protocol None is not spoken"),
    (hello(run=b"short"), "run is 16 bytes"),
    (hello(run="x" * 16), "run is 16 bytes"),
    (hello(run=None), "run is 16 bytes"),
    (hello(app=None), "app and host are strings"),
    (hello(app=b"x"), "app and host are strings"),
    (hello(host=7), "app and host are strings"),
    (hello(pid=-1), "pid and started_ns"),
    (hello(pid=True), "pid and started_ns"),
    (hello(pid=2**63), "pid and started_ns"),
    (hello(started_ns=1.5), "pid and started_ns"),
    (hello(started_ns=None), "pid and started_ns"),
]

AFTER = [1, 8, 6, "info", {"event": "the next one"}]


def feed(data, size):
    """Decode bytes that arrive `size` at a time."""
    decoder = Decoder()
    received = []
    for at in range(0, len(data), size):
        received += decoder.receive(data[at : at + size])
    return received, decoder


@pytest.mark.parametrize(("value", "frame"), GOOD, ids=lambda v: repr(v)[:40])
def test_good_frames_arrive_in_any_pieces(value, frame):
    """A good frame is the same whole, byte by byte, and with the next one behind it."""
    data = pack(value)
    for size in (len(data), 1, 3):
        received, decoder = feed(data, size)
        assert received == [frame]
        assert type(received[0]) is type(frame)
        assert decoder.pending == 0
    both, _ = feed(data + pack(AFTER), 10**6)
    assert both == [frame, Log(8, 6, INFO, {"event": "the next one"})]


@pytest.mark.parametrize(("value", "frame"), GOOD, ids=lambda v: repr(v)[:40])
def test_half_a_frame_is_no_frame(value, frame):
    """Whatever is cut off, nothing is reported, and the rest may still come."""
    data = pack(value)
    for cut in range(1, len(data)):
        decoder = Decoder()
        assert decoder.receive(data[:cut]) == []
        assert decoder.pending == cut
        assert decoder.receive(data[cut:]) == [frame]


@pytest.mark.parametrize(("value", "seq", "reason"), BAD, ids=lambda v: repr(v)[:40])
def test_a_bad_frame_is_rejected_by_its_seq(value, seq, reason):
    """A log or lost frame whose seq can be read is rejected, with the reason, and the next frame is understood."""
    for size in (10**6, 1):
        received, _ = feed(pack(value) + pack(AFTER), size)
        assert [type(frame) for frame in received] == [Bad, Log]
        assert received[0].seq == seq
        assert reason in received[0].reason


@pytest.mark.parametrize(("value", "reason"), BROKEN, ids=lambda v: repr(v)[:40])
def test_what_is_no_frame_ends_the_connection(value, reason):
    """Anything else breaks the stream: one Broken with a reason, and silence afterwards."""
    for size in (10**6, 1):
        received, decoder = feed(pack(value) + pack(AFTER), size)
        assert [type(frame) for frame in received] == [Broken]
        assert reason in received[0].reason
        assert len(received[0].reason) < 250
        assert decoder.receive(pack(AFTER)) == []


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x95\x01\x01\x05\xc1",
        b"GET /",
    ],
)
def test_bytes_that_are_not_msgpack_are_broken(data):
    """Bytes nobody could mean, and lengths nobody could send, break the stream at once."""
    received, _ = feed(data, 10**6)
    assert [type(frame) for frame in received] == [Broken]


@pytest.mark.parametrize("key", [[1], {"a": 1}])
def test_a_key_that_cannot_be_a_key_breaks_the_stream(key):
    """A map with an array or a map as a key has no Python value; the decoder says so and does not raise."""
    inner = b"\x81" + pack(key) + b"\x01"
    received, _ = feed(b"\x95\x01\x01\x05" + pack("info") + inner, 10**6)
    assert [type(frame) for frame in received] == [Broken]


def log_of(size):
    """Return a log frame of exactly `size` bytes."""
    guess = size - 40
    base = len(pack([1, 9, 5, "info", {"event": "x" * guess}]))
    data = pack([1, 9, 5, "info", {"event": "x" * (guess + size - base)}])
    assert len(data) == size
    return data


def test_a_frame_of_exactly_64_kib_is_taken_and_one_byte_more_is_rejected():
    """The limit counts the frame's own bytes, not what arrives with it."""
    limit = frames.MAX_FRAME_BYTES
    assert limit == 65_536
    for prefix in (b"", pack([3, 0])):
        for size in (10**7, 4096):
            fits, _ = feed(prefix + log_of(limit) + pack(AFTER), size)
            assert [type(frame) for frame in fits][-2:] == [Log, Log]
            over, _ = feed(prefix + log_of(limit + 1) + pack(AFTER), size)
            assert [type(frame) for frame in over][-2:] == [Bad, Log]
            assert over[-2].seq == 9
            assert "65537 bytes" in over[-2].reason


def test_a_frame_that_never_ends_is_given_up_after_a_mebibyte():
    """Memory for half a frame is bounded: more than 1 MiB without an end breaks the stream, exactly then."""
    decoder = Decoder()
    head = b"\x95\x01\x01\x05" + pack("info") + b"\x81\xa5event\xdb" + (1_900_000).to_bytes(4, "big")
    received = decoder.receive(head)
    sent = len(head)
    while not received:
        sent += 4096
        assert sent <= frames.MAX_PENDING_BYTES + 4096
        received = decoder.receive(b"x" * 4096)
    assert sent > frames.MAX_PENDING_BYTES
    assert [type(frame) for frame in received] == [Broken]


def test_a_frame_below_a_mebibyte_is_rejected_and_the_stream_goes_on():
    """A trader that sends one huge line does not lose its connection over it."""
    for size in (256 * 1024, 1000):
        received, _ = feed(log_of(1_000_000) + pack(AFTER), size)
        assert [type(frame) for frame in received] == [Bad, Log]


def test_many_frames_at_once():
    """A read of 256 KiB full of small frames, and one that ends in the middle of a frame, lose nothing."""
    data = b"".join(pack([1, n, 5, "info", {"event": str(n)}]) for n in range(1, 12_000))
    for size in (256 * 1024, 65_521):
        received, _ = feed(data, size)
        assert [frame.seq for frame in received] == list(range(1, 12_000))


def test_deep_nesting_is_an_event_or_an_end_but_never_an_exception():
    """Nesting far over the limit of 16 neither raises nor takes the decoder down."""
    for depth in (14, 100, 500, 1000, 5000, 60_000):
        data = b"\x95\x01\x01\x05" + pack("info") + b"\x81\xa1x" + b"\x91" * depth + b"\xc0"
        received, _ = feed(data, 10**6)
        assert len(received) == 1
        assert type(received[0]) in (Log, Bad, Broken)
        if depth == 14:
            assert type(received[0]) is Log


def test_text_that_is_not_utf8_is_shown_all_the_same():
    """A trader that cannot spell UTF-8 still has something to say."""
    data = b"\x95\x01\x01\x05" + pack("info") + b"\x81\xa5event\xa2\xff\xfe"
    received, _ = feed(data, 10**6)
    assert received == [Log(1, 5, INFO, {"event": "��"})]


def test_extension_types_and_odd_keys_pass():
    """What the trader protocol does not use is not a reason to lose a line: `line_json` makes JSON of it."""
    event = {1: "int", b"b": "bytes", "t": msgpack.Timestamp(5, 7), "x": msgpack.ExtType(9, b"data"), None: 0, 1.5: 1}
    received, _ = feed(pack([1, 1, 5, "info", event]), 10**6)
    assert received == [Log(1, 5, INFO, event)]


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 300))
def test_random_bytes_never_raise(data, size):
    """Any bytes at all give frames, and perhaps one Broken as the last; how they are cut makes no difference."""
    pieces, decoder = feed(data, size)
    whole, _ = feed(data, 10**6)
    assert [type(frame) for frame in pieces] == [type(frame) for frame in whole]
    assert sum(type(frame) is Broken for frame in pieces) <= 1
    assert all(type(frame) is not Broken for frame in pieces[:-1])
    assert decoder.receive(b"") == []


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4))


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES | st.lists(st.integers(-1, 6) | VALUES, min_size=1, max_size=6), max_size=6), st.integers(1, 50))
def test_random_msgpack_never_raises(values, size):
    """Well-formed msgpack of any shape is judged frame by frame, the same however it is cut."""
    data = b"".join(map(pack, values))
    pieces, _ = feed(data, size)
    whole, _ = feed(data, 10**6)
    assert repr(pieces) == repr(whole)
    broken = [type(frame) is Broken for frame in whole]
    lines = sum(repr(value) not in ("[4]", "[5]") for value in values)  # pings and pongs are not received
    assert len(whole) == lines if not any(broken) else broken.index(True) == len(whole) - 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**63 - 1),
            st.integers(-(2**63), 2**64 - 1),
            st.sampled_from(["debug", "info", "warning", "error", "critical"]),
            st.dictionaries(st.text(max_size=8), VALUES, max_size=5),
        ),
        max_size=5,
    )
)
def test_log_frames_round_trip(rows):
    """What msgpack packs, the decoder gives back: seq, time, rank and event."""
    received, _ = feed(b"".join(pack([1, *row]) for row in rows), 10**6)
    assert repr([(f.seq, f.time_ns, f.event) for f in received]) == repr([(s, t, e) for s, t, _, e in rows])
    assert [frames.RANKS[row[2]] for row in rows] == [f.rank for f in received]


def test_answers_are_the_agreed_bytes():
    """The relay's four frames, byte for byte."""
    assert frames.welcome(0) == pack([0, {"protocol": 1, "acked": 0}])
    assert frames.welcome(2**63 - 1) == pack([0, {"protocol": 1, "acked": 2**63 - 1}])
    assert frames.ack(300) == b"\x92\x01\xcd\x01\x2c"
    assert frames.reject(7, "because") == b"\x93\x02\x07\xa7because"
    assert frames.refused("no") == b"\x92\x03\xa2no"
    for number in (0, 1, 127, 128, 2**16, 2**32, 2**63 - 1):
        assert msgpack.unpackb(frames.ack(number)) == [1, number]


def test_every_pair_of_frames_parts_at_the_right_byte():
    """Frames need no separator: any good frame may follow any other."""
    for (one, first), (two, second) in itertools.product(GOOD, GOOD):
        assert feed(pack(one) + pack(two), 7)[0] == [first, second]


# --- the bytes both sides are held to -----------------------------------------------------------------------

VECTORS = json.loads((Path(__file__).parents[2] / "contract" / "vectors" / "wire-v1.json").read_text())
FROM_TRADER = [vector for vector in VECTORS if vector["direction"] == "trader"]
FROM_RELAY = [vector for vector in VECTORS if vector["direction"] == "relay"]


def plain(value):
    """Undo the vectors' notation for what JSON cannot say."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 1:
            ((key, text),) = value.items()
            if key == "$bytes":
                return bytes.fromhex(text)
            if key == "$int":
                return int(text)
            if key == "$float":
                return float(text)
        return {key: plain(item) for key, item in value.items()}
    return value


def meaning(frame):
    """Return the frame a vector describes."""
    match plain(frame):
        case [0, said]:
            known = said.get("ping", False), said.get("dead", False)
            return Hello(*(said[key] for key in ("run", "app", "host", "pid", "started_ns")), *known)
        case [1, seq, time_ns, level, event]:
            return Log(seq, time_ns, frames.RANKS[level], event)
        case [2, first, last, _, cause]:
            return Lost(first, last, cause)
        case [3, last]:
            return Bye(last)


@pytest.mark.parametrize("vector", FROM_TRADER, ids=lambda v: v["name"])
def test_vectors_from_the_trader(vector):
    """Every frame of the golden vectors means what it says: whole, byte by byte, and with bytes behind it."""
    data = bytes.fromhex(vector["hex"])
    expected = [meaning(vector["frame"])] if len(vector["frame"]) > 1 else []
    for size in (len(data), 1):
        received, decoder = feed(data, size)
        assert repr(received) == repr(expected)
        assert decoder.pending == 0
    received, decoder = feed(data + data[: len(data) // 2], 10**6)
    assert repr(received) == repr(expected)
    assert decoder.pending == len(data) // 2


@pytest.mark.parametrize(
    ("kinds", "was_pinged"), [([4], True), ([5], False), ([4, 5], True), ([5, 4, 4, 5], True), ([], False)]
)
def test_pings_and_pongs_are_no_lines(kinds, was_pinged):
    """They are not among what is received; whether one is to be answered is said until the next bytes."""
    decoder = frames.Decoder()
    line = msgpack.packb([1, 1, 5, "info", {}])
    assert decoder.was_pinged is False
    data = line + b"".join(msgpack.packb([kind]) for kind in kinds) + line
    assert [type(frame) for frame in decoder.receive(data)] == [Log, Log]
    assert (decoder.was_pinged, decoder.pending) == (was_pinged, 0)
    decoder.receive(b"")
    assert decoder.was_pinged is False


def test_vectors_in_one_stream():
    """All of them behind each other, cut at every width up to 64."""
    data = b"".join(bytes.fromhex(vector["hex"]) for vector in FROM_TRADER)
    expected = repr([meaning(vector["frame"]) for vector in FROM_TRADER if len(vector["frame"]) > 1])
    for size in (*range(1, 65), 4096):
        assert repr(feed(data, size)[0]) == expected


@pytest.mark.parametrize("vector", FROM_RELAY, ids=lambda v: v["name"])
def test_vectors_from_the_relay(vector):
    """The relay's encoder writes them, where they are not there to show another form that is allowed too."""
    match plain(vector["frame"]):
        case [0, {"protocol": 1, "acked": acked, "ping_s": ping_s, "dead_s": dead_s}]:
            made, other_form = frames.welcome(acked, ping_s=ping_s, dead_s=dead_s), False
        case [0, {"protocol": 1, "acked": acked, **more}]:
            made, other_form = frames.welcome(acked), bool(more)
        case [1, seq]:
            made, other_form = frames.ack(seq), "form" in vector["name"]
        case [2, seq, reason]:
            made, other_form = frames.reject(seq, reason), False
        case [3, reason]:
            made, other_form = frames.refused(reason), False
        case [kind]:
            made, other_form = {4: frames.PING, 5: frames.PONG}[kind], False
    assert (made == bytes.fromhex(vector["hex"])) is not other_form


def test_the_vectors_leave_no_frame_out():
    """Each kind of frame of both directions is in the golden vectors."""
    for sent in (FROM_TRADER, FROM_RELAY):
        assert {vector["frame"][0] for vector in sent} == {0, 1, 2, 3, 4, 5}


_ODD = [
    [4],
    [5],
    [3, 9],
    [2, 1, 5, 5, "full"],
    [1, 7],
    [9],
    {},
    [1, 8, 5, "loud", {}],
    hello(),
    5,
    [],
    "x",
    [1, 1.0, 5, "info", {}],
]


@given(
    st.lists(
        st.one_of(
            st.integers(1, 9).map(lambda seq: pack([1, seq, 5, "info", {"event": "x"}])),
            st.sampled_from(_ODD).map(pack),
            st.binary(max_size=12),
            st.sampled_from([b"\xdd\x00\x10\x00\x00", b"\xc1", pack([1, 1, 5, "info", {"t": "y" * 1100}])]),
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, 40), max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_what_comes_alone_is_decoded_as_it_is_among_others(parts, cuts):
    """Frame by frame, in halves, several in one read: one call for what is one frame gives what the usual way does."""
    reads = [pack([1, 1, 5, "info", {}])]
    for part, cut in itertools.zip_longest(parts, cuts):
        data = part or b""
        reads += [data] if cut is None else [data[:cut], data[cut:]] if cut % 2 else [data + pack([4])]
    quick, usual = Decoder(), Decoder()
    seen = {quick: [], usual: []}
    for decoder, most in ((quick, frames.ONE_BYTES), (usual, -1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frames, "ONE_BYTES", most)
            for data in reads:
                received = decoder.receive(data)
                seen[decoder].append(
                    (received, decoder.was_pinged, decoder.frame_count, decoder.pending, decoder.half is None)
                )
    assert seen[quick] == seen[usual]


def test_what_claims_much_behind_a_frame_that_came_alone_takes_little():
    """A few bytes cannot make the relay give memory for what they say will come."""
    decoder = Decoder()
    decoder.receive(pack([1, 1, 5, "info", {}]))
    tracemalloc.start()
    try:
        assert decoder.receive(b"\xdd\x00\x10\x00\x00" * (frames.ONE_BYTES // 5)) == []
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert decoder.half is not None


@pytest.mark.parametrize("depth", [400, 600, 1000])
def test_what_is_too_deep_to_be_told_of_breaks_the_stream_also_where_it_comes_alone(depth):
    """What cannot be shown is as little a frame as what cannot be decoded; nothing is raised."""
    quick, usual = Decoder(), Decoder()
    quick.receive(pack([1, 1, 5, "info", {}]))
    deep = b"\x91" * depth + b"\x01"
    received = quick.receive(deep)
    assert list(map(type, received)) == [Broken]
    assert received == usual.receive(deep)
    assert quick.frame_count == usual.frame_count


@pytest.mark.parametrize("odd", [b"\xc1", b"\x81\x90\x01", b"\x91" * 1000 + b"\x01"])
@pytest.mark.parametrize("is_late", [False, True])
def test_nothing_is_kept_of_what_is_not_understood(odd, is_late):
    """An error that refers to itself would keep the connection and all that it has sent, until the collector looks."""
    decoder = Decoder()
    if is_late:
        decoder.receive(pack([1, 1, 5, "info", {}]))
    gc.collect()
    gc.disable()
    try:
        assert list(map(type, decoder.receive(odd))) == [Broken]
        assert gc.collect() == 0
    finally:
        gc.enable()
