"""Every bound of the protocol at the bound: what is just allowed, and what the trader is told beyond it."""

from __future__ import annotations

import tracemalloc

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
    [
        b"\xdd" + (frames.MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
        b"\xdf\xff\xff\xff\xff",
        b"\xdc\xff\xff" * 480,
        b"\x95\x01\x01\x05\xa4info\x81\xa1k" + b"\xde\xff\xff\xa1k" * 200,
    ],
    ids=["array", "map", "nested", "in a line"],
)
def test_a_claim_of_items_costs_no_memory_before_they_are_there(claim):
    """Such a claim is half a frame like any other: waited for, and given up at the same bound."""
    decoder = Decoder()
    tracemalloc.start()
    try:
        assert decoder.receive(claim) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 160 * 1024  # two scanners; each of the nested ones claims half a megabyte for itself
    received = []
    while not received:
        received = decoder.receive(b"\x01" * 4096)
        assert decoder.pending <= frames.MAX_PENDING_BYTES
    assert type(received[-1]) is Broken  # the first array finds its end just before, and looks like a long log frame


def test_a_first_frame_has_a_bound_of_its_own():
    """Who has not said hello gets no memory for more than one; after it a frame may be as long as any."""
    hello = [
        0,
        {"protocol": 1, "run": bytes(16), "app": "a", "host": "h", "pid": 1, "started_ns": 1, "more": "x" * 900},
    ]
    line = msgpack.packb([1, 1, 5, "info", {"event": "x" * 2_000}])
    first = msgpack.packb(hello)
    for size in (len(first), 7):
        decoder, received = Decoder(first_frame_bytes=len(first)), []
        for at in range(0, len(first + line), size):
            received += decoder.receive((first + line)[at : at + size])
        assert [type(frame) for frame in received] == [Hello, Log]
        decoder = Decoder(first_frame_bytes=len(first) - 1)
        received = []
        for at in range(0, len(first), size):
            received += decoder.receive(first[at : at + size])
        assert received == [
            Broken(f"a frame of more than {len(first) - 1} bytes; at most {len(first) - 1} are allowed")
        ]


def test_there_is_room_for_a_few_long_frames_among_all_connections():
    """A thousand faulty traders cannot fill the memory together; the one that comes too late is told why."""
    shared = frames.Unpackers()
    frame = msgpack.packb([1, 2**40, 5, "info", {"event": "x" * 900_000}])
    half, most = frame[:-1], frames.MAX_LONG_BYTES // len(frame)
    decoders = [Decoder(shared) for _ in range(most + 1)]
    for decoder in decoders[:most]:
        assert decoder.receive(half) == []
    refused = [Broken("a frame of more than 65536 bytes; at most 65536 are allowed")]
    assert decoders[most].receive(half) == refused
    short = Decoder(shared)
    assert short.receive(half[: frames.MAX_FRAME_BYTES]) == []  # what is not too long is no part of the account
    assert short.receive(half[frames.MAX_FRAME_BYTES :]) == refused
    answer = Bad(2**40, f"the frame has {len(frame)} bytes; at most 65536 are allowed")
    assert decoders[0].receive(frame[-1:]) == [answer]
    decoders[1].close()
    assert decoders[2].receive(b"x\xc1") == [answer, Broken("not msgpack as agreed: FormatError")]
    for _ in range(3):
        assert Decoder(shared).receive(frame) == [answer]  # complete at once: it waits for nothing
        latecomer = Decoder(shared)
        assert latecomer.receive(half) == []
        latecomer.close()
    for decoder in decoders[3:most]:
        decoder.close()
    assert shared.long_bytes == 0


def test_connections_that_share_their_unpackers_do_not_mix():
    """Half a frame, or one that breaks the stream, leaves nothing for the next connection to find."""
    shared = frames.Unpackers()
    line = msgpack.packb([1, 1, 5, "info", {"event": "x" * 100}])
    one, other = Decoder(shared), Decoder(shared)
    assert one.receive(line + line[:20]) == [Log(1, 5, 20, {"event": "x" * 100})]
    for bad in (
        b"\xc1",
        line + b"\xc1",
        b"\x91\x07",
        b"\x91\x07" + line,
        msgpack.packb([1, 1, 5, "info", {(1,): 2}]) + line,
    ):
        assert type(Decoder(shared).receive(bad)[-1]) is Broken
        assert other.receive(line) == [Log(1, 5, 20, {"event": "x" * 100})]
    assert one.receive(line[20:] + line) == [Log(1, 5, 20, {"event": "x" * 100})] * 2


def test_a_long_frame_of_another_kind_ends_the_stream():
    """It names no line that could be rejected."""
    for frame in ([3, "x" * 70_000], [["x" * 70_000]], ["x" * 70_000], {"x": "y" * 70_000}):
        data = msgpack.packb(frame)
        for size in (len(data), 4_000):
            decoder, received = Decoder(), []
            for at in range(0, len(data), size):
                received += decoder.receive(data[at : at + size])
            assert received == [Broken(f"a frame of {len(data)} bytes that is no log frame; at most 65536 are allowed")]


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


@pytest.mark.parametrize("ping", [b"\x91\x04", b"\x91\x05\x91\x04"])
def test_no_ping_lifts_the_bound_of_the_first_frame(ping):
    """Who has not said hello gets no more memory by sending pings, in one read or before it; behind hello they may."""
    claim = b"\x91\xc6\x00\x00\xff\x00" + bytes(frames.MAX_HELLO_BYTES)
    too_long = Broken(
        f"a frame of more than {frames.MAX_HELLO_BYTES} bytes; at most {frames.MAX_HELLO_BYTES} are allowed"
    )
    for reads in ([ping + claim], [ping, claim], [ping + claim[:9], claim[9:]]):
        decoder = Decoder(first_frame_bytes=frames.MAX_HELLO_BYTES)
        assert [frame for read in reads for frame in decoder.receive(read)] == [too_long]
    decoder = Decoder(first_frame_bytes=frames.MAX_HELLO_BYTES)
    assert [type(frame) for frame in decoder.receive(ping + msgpack.packb([0, HELLO]) + ping)] == [Hello]
    assert decoder.receive(ping) + decoder.receive(claim) == []


def test_an_error_in_a_long_frame_takes_no_more_off_the_account_than_was_put_in():
    """Else each such connection would make room for more half frames, until there is no bound."""
    claim = b"\x95\x01\x01\x01\xa4info\x92\xc6" + (90_000).to_bytes(4, "big")
    for read in (8_192, 80_000):
        unpackers = frames.Unpackers()
        data, received = claim + bytes(90_000) + b"\x91" * 20_000, []
        decoder = Decoder(unpackers)
        received += decoder.receive(data[:5_000])
        for at in range(5_000, len(data), read):
            received += decoder.receive(data[at : at + read])
        assert [type(frame) for frame in received] == [Broken]
        assert unpackers.long_bytes == 0
        decoder.close()
        assert unpackers.long_bytes == 0


@pytest.mark.parametrize("size", [1, 7, 1000, 4096, 60_000])
@pytest.mark.parametrize("event", [b"\xdc\xff\xff" * 480, b"\xdb\x00\x00\xea\x60" + b"x" * 59_000, b"\x81" * 400])
def test_each_byte_of_half_a_frame_is_looked_at_a_few_times(monkeypatch, event, size):
    """However it arrives: what came before is not scanned again with each read."""
    looked = []

    class Unpacker(msgpack.Unpacker):
        def feed(self, data):
            looked.append(len(data))
            super().feed(data)

    monkeypatch.setattr(frames.msgpack, "Unpacker", Unpacker)
    decoder = frames.Decoder(frames.Unpackers())
    data = b"\x95\x01\x01" + msgpack.packb(1) + msgpack.packb("info") + event
    data = data[: 3000 if size < 1000 else None]
    for at in range(0, len(data), size):
        assert decoder.receive(data[at : at + size]) == []
    assert decoder.pending == len(data)
    assert len(data) <= sum(looked) <= 2 * len(data)


def test_what_half_a_frame_takes_is_known():
    """Its bytes, and from the second read on what looks for its end; of one that is too long its first bytes."""
    line = msgpack.packb([1, 1, 5, "info", {"event": "x" * 900}])
    decoder = Decoder()
    assert decoder.kept_bytes == 0
    assert len(decoder.receive(line + line[:500])) == 1
    assert decoder.kept_bytes == 500
    assert decoder.receive(line[500:700]) == []
    assert decoder.kept_bytes == 700 + frames._SCANNER_BYTES
    assert len(decoder.receive(line[700:] + line[:3])) == 1
    assert decoder.kept_bytes == 3
    decoder.close()
    assert decoder.kept_bytes == 0
    for reads in ((70_000,), (60_000, 10_000), (20_000, 45_000, 10_000)):
        decoder = Decoder()
        claim = b"\x95\x01\x01\x05\xa4info\x81\xa5event\xdb" + (80_000).to_bytes(4, "big") + bytes(90_000)
        at = 0
        for size in reads:
            assert decoder.receive(claim[at : at + size]) == []
            at += size
        assert decoder.pending == at
        assert decoder.kept_bytes == frames._HEAD_BYTES + frames._SCANNER_BYTES


def test_what_looks_for_the_end_of_a_frame_takes_what_is_said():
    """Measured, so that the account of all connections means something."""
    half = b"\x95\x01\x01\x05\xa4info\x81\xa5event\xda\xff\xff" + bytes(1000)
    decoders = [Decoder(frames.Unpackers()) for _ in range(50)]
    for decoder in decoders:
        decoder.receive(half[:500])
    tracemalloc.start()
    try:
        for decoder in decoders:
            decoder.receive(half[500:600])
        taken = tracemalloc.get_traced_memory()[0] / len(decoders)
    finally:
        tracemalloc.stop()
    assert taken <= frames._SCANNER_BYTES + 1000


def test_every_frame_is_counted_as_work():
    """Pings too, of which nothing else is seen, those that are too long, and those that are completed."""
    line, ping, pong = msgpack.packb([1, 1, 5, "info", {"event": "x"}]), b"\x91\x04", b"\x91\x05"
    decoder = Decoder()
    assert decoder.receive((ping + pong) * 500) == []
    assert decoder.frame_count == 1000
    assert len(decoder.receive(line + ping + line + line[:5])) == 2
    assert decoder.frame_count == 3
    assert decoder.receive(b"") == []
    assert decoder.frame_count == 0
    assert len(decoder.receive(line[5:] + ping)) == 1
    assert decoder.frame_count == 2
    long = msgpack.packb([1, 2, 5, "info", {"event": "x" * 70_000}])
    assert len(decoder.receive(ping + long + line)) == 2
    assert decoder.frame_count == 3
