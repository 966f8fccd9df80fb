"""What the shared compressor makes is read back by any client's decompressor, also by one that came later."""

from __future__ import annotations

import json
import random
import zlib

import pytest

from logrelay.fanout import compression
from logrelay.fanout.compression import WINDOW_BITS, Deflater, compressed_frame, deflate_segments


class Client:
    """Reads compressed text frames (RFC 6455, RFC 7692) with the window every client has."""

    def __init__(self):
        self.inflater = zlib.decompressobj(-15)

    def read(self, raw):
        at, out = 0, []
        while at < len(raw):
            assert raw[at] == 0xC1, "a final, compressed text frame"
            size, at = raw[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, at = int.from_bytes(raw[at : at + width], "big"), at + width
            payload = raw[at : at + size]
            assert len(payload) == size
            out.append(self.inflater.decompress(payload + b"\0\0\xff\xff"))
            at += size
        return out


def bodies(count, first=1):
    line = b'{"id":"k3f9ab-%d","message":"trade.executed","context":{"n":%d}}'
    return [line % (n, n) for n in range(first, first + count)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70_000])
def test_frames_of_every_width(size):
    """The shortest form of the length is used, as the RFC demands."""
    raw = compressed_frame(b"x" * size)
    header = raw[: len(raw) - size]
    if size < 126:
        assert header == bytes([0xC1, size])
    elif size < 65536:
        assert header == bytes([0xC1, 126]) + size.to_bytes(2, "big")
    else:
        assert header == bytes([0xC1, 127]) + size.to_bytes(8, "big")


def test_messages_come_back_and_share_their_context():
    """Each message is complete at once, without the four bytes the RFC has removed, and the second is shorter."""
    deflater, client = Deflater(), Client()
    one, two = (deflater.message(body) for body in bodies(2))
    assert client.read(one) == bodies(1)
    assert client.read(two) == bodies(1, first=2)
    assert len(two) < len(one) / 2
    assert not one.endswith(b"\0\0\xff\xff")


def test_after_a_reset_a_newcomer_can_read_and_the_others_still_can():
    """Nothing refers to what the newcomer has not seen."""
    deflater, old, new = Deflater(), Client(), Client()
    old.read(b"".join(map(deflater.message, bodies(50))))
    deflater.reset()
    for body in bodies(50):
        frame = deflater.message(body)
        assert old.read(frame) == new.read(frame) == [body]


def test_no_reference_reaches_beyond_the_window_of_a_client():
    """A client's window is 32 KiB, whatever lies further back."""
    assert WINDOW_BITS == 15
    deflater, client = Deflater(), Client()
    noise = [random.Random(n).randbytes(30_000) for n in range(4)]
    for _ in range(2):
        for text in noise:
            assert client.read(deflater.message(text)) == [text]


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_segments_hold_every_line_once_in_order(arrays, count, monkeypatch):
    """As one message per line or as arrays; each segment says how far it reaches and how many lines it holds."""
    monkeypatch.setattr(compression, "SEGMENT_BYTES", 400)
    client, lines, seqs = Client(), bodies(count), [n * 3 for n in range(1, count + 1)]
    at = 0
    for segment in deflate_segments(Deflater(), lines, seqs, arrays=arrays):
        messages = client.read(segment.payload)
        if arrays:
            assert all(len(message) <= 400 + 2 + len(lines[0]) for message in messages)
            found = [line for message in messages for line in json.loads(message)]
        else:
            found = list(map(json.loads, messages))
        assert found == list(map(json.loads, lines[at : at + segment.lines]))
        assert segment.lines == len(found) > 0
        at += segment.lines
        assert segment.last == seqs[at - 1]
    assert at == count


def test_segments_are_as_large_as_the_bound_allows(monkeypatch):
    """None is over it, no two neighbours would fit into one, and one line alone may be larger."""
    monkeypatch.setattr(compression, "SEGMENT_BYTES", 400)
    noise = [random.Random(n).randbytes(size) for n, size in enumerate([90] * 40 + [900])]
    segments = deflate_segments(Deflater(), noise, range(1, 42), arrays=False)
    sizes = [len(segment.payload) for segment in segments]
    assert all(size <= 400 for size in sizes[:-1])
    assert segments[-1].lines == 1
    assert sizes[-1] > 400
    assert all(size + 110 > 400 for size in sizes[:-2])
    deflater = Deflater()
    exact = [len(deflater.message(text)) for text in noise[:2]]
    for bound, expected in ((sum(exact), [2]), (sum(exact) - 1, [1, 1])):
        monkeypatch.setattr(compression, "SEGMENT_BYTES", bound)
        made = deflate_segments(Deflater(), noise[:2], [1, 2], arrays=False)
        assert [segment.lines for segment in made] == expected


@pytest.mark.parametrize(("bound", "expected"), [(180, [2, 2, 1]), (179, [1] * 5), (270, [3, 2]), (1, [1] * 5)])
def test_arrays_are_cut_where_the_next_line_would_not_fit(bound, expected, monkeypatch):
    """Counted before compression: the client has to hold the message."""
    monkeypatch.setattr(compression, "SEGMENT_BYTES", bound)
    lines = [b'"%s"' % (b"%d" % n * 88) for n in range(5)]
    segments = deflate_segments(Deflater(), lines, [1, 2, 3, 4, 5], arrays=True)
    client = Client()
    found = [json.loads(message) for segment in segments for message in client.read(segment.payload)]
    assert [len(array) for array in found] == expected
    assert [text for array in found for text in array] == [str(n) * 88 for n in range(5)]
