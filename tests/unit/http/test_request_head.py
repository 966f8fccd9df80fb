"""The head of a request: what is accepted, what each fault is answered with, and that it never grows."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.http.request_head import (
    MALFORMED,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    MAX_WEBSOCKET_BYTES,
    HeadReader,
    Malformed,
    RequestHead,
)

GOOD = b"GET /logs?a=b HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nX-Empty:\r\nX-Wide: \t caf\xe9 \r\n\r\n"


def read(data, pieces=1):
    """Feed the bytes in so many pieces; return the outcome, or None when it wants more."""
    reader = HeadReader()
    size = max(1, -(-len(data) // pieces))
    for at in range(0, len(data), size):
        outcome = reader.receive(data[at : at + size])
        if outcome is not None:
            return outcome
    return None


def request(*rows, first=b"GET / HTTP/1.1", end=b"\r\n\r\n"):
    return b"\r\n".join((first, b"Host: x", *rows)) + end


@pytest.mark.parametrize("pieces", [1, 2, 7, len(GOOD)])
def test_a_request_is_understood_however_it_arrives(pieces):
    """Names and values as they were sent, white space around a value left out."""
    fields = (("Host", "127.0.0.1:8765"), ("X-Empty", ""), ("X-Wide", "caf\xe9"))
    assert read(GOOD, pieces) == RequestHead("GET", "/logs?a=b", "1.1", fields, False)


def test_half_a_request_is_waited_for():
    """Nothing is decided before the blank line."""
    assert all(read(GOOD[:n]) is None for n in range(1, len(GOOD)))


def test_what_comes_behind_is_never_a_request():
    """It is noted, and left out; a WebSocket may not begin like this."""
    head = read(GOOD + b"GET /second HTTP/1.1\r\n\r\n")
    assert (head.target, head.bytes_behind) == ("/logs?a=b", True)
    assert head.malformed_for_websocket().status == 400
    assert read(GOOD).malformed_for_websocket() is None


@pytest.mark.parametrize("name", ["Connection", "Upgrade", "Sec-WebSocket-Extensions", "sec-websocket-protocol"])
def test_what_asks_for_a_websocket_is_short(name):
    """Reading these lists takes the library long; a plain request is not read for them."""
    for size, status in ((MAX_WEBSOCKET_BYTES, None), (MAX_WEBSOCKET_BYTES + 1, 431)):
        row = f"{name}: {'a,' * (size // 4)}\r\n{name}: {'b' * (size - size // 4 * 2)}\r\n".encode()
        head = read(GOOD[:-2] + row + b"\r\n")
        fault = head.malformed_for_websocket()
        assert (None if fault is None else fault.status) == status


FAULTS = {
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n\n", 400, "line"),
    "one bare LF": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400, "line"),
    "bare CR": (request(b"A: b\rC: d"), 400, "line"),
    "NUL": (request(b"A: b\x00c"), 400, "line"),
    "control character": (request(b"A: b\x01c"), 400, "line"),
    "folded header": (request(b"A: b", b" c"), 400, "line"),
    "space before the colon": (request(b"Content-Length : 5"), 400, "line"),
    "no colon": (request(b"A"), 400, "line"),
    "no name": (request(b": b"), 400, "line"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400, "line"),
    "two spaces": (request(first=b"GET  / HTTP/1.1"), 400, "line"),
    "not ASCII": (request(first=b"GET /\xe9 HTTP/1.1"), 400, "line"),
    "as of a proxy": (request(first=b"GET http://x/ HTTP/1.1"), 400, "line"),
    "CONNECT": (request(first=b"CONNECT x:443 HTTP/1.1"), 400, "line"),
    "asterisk": (request(first=b"GET * HTTP/1.1"), 400, "line"),
    "garbage": (b"\xff\xfe\xfd", 400, "line"),
    "blank line first": (b"\r\nGET / HTTP/1.1\r\n\r\n", 400, "line"),
    "an endless method": (b"A" * 40, 400, "line"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"),
    "HTTP/1.9": (request(first=b"GET / HTTP/1.9"), 505, "version"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500, 400, "tls"),
    "length and coding": (request(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400, "framing"),
    "coding and length": (request(b"transfer-encoding: x", b"content-length: 0"), 400, "framing"),
    "coding in HTTP/1.0": (request(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"), 400, "framing"),
    "coding": (request(b"Transfer-Encoding: chunked"), 501, "framing"),
    "two lengths": (request(b"Content-Length: 0", b"Content-Length: 0"), 400, "framing"),
    "a list of lengths": (request(b"Content-Length: 0, 0"), 400, "framing"),
    "signed length": (request(b"Content-Length: +0"), 400, "framing"),
    "negative length": (request(b"Content-Length: -1"), 400, "framing"),
    "hexadecimal length": (request(b"Content-Length: 0x5"), 400, "framing"),
    "empty length": (request(b"Content-Length:"), 400, "framing"),
    "endless length": (request(b"Content-Length: " + b"9" * 5000), 400, "framing"),
    "GET with a body": (request(b"Content-Length: 5") + b"12345", 400, "framing"),
    "long target": (b"GET /" + b"x" * MAX_HEAD_BYTES, 414, "size"),
    "long whole target": (request(first=b"GET /" + b"x" * MAX_LINE_BYTES + b" HTTP/1.1"), 414, "size"),
    "long header": (request(b"A: " + b"x" * MAX_LINE_BYTES), 431, "size"),
    "many headers": (request(*[b"A: b"] * MAX_FIELDS), 431, "size"),
    "many long headers": (request(*[b"A: " + b"x" * 7000] * 3), 431, "size"),
    "headers without an end": (request(b"A: " + b"x" * 4000, b"B: " + b"y" * 20_000, end=b""), 431, "size"),
}


@pytest.mark.parametrize("pieces", [1, 3, 10_000])
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_has_its_answer(name, pieces):
    """However the bytes arrive, and before the end of the head where it can be told before."""
    data, status, reason = FAULTS[name]
    outcome = read(data, pieces)
    assert isinstance(outcome, Malformed), outcome
    assert (outcome.status, outcome.reason) == (status, reason)
    assert reason in MALFORMED
    assert outcome.message.isascii()


WORDS = {
    "bare LF": "lines end with CR LF, and neither of them nor NUL stands elsewhere",
    "garbage": "a request begins with its method, as in GET / HTTP/1.1",
    "two spaces": "the first line is not of the form METHOD TARGET HTTP/1.1",
    "as of a proxy": "the target is not a path that begins with /: this is no proxy",
    "no colon": "a header is not of the form Name: value, on one line and without control characters",
    "HTTP/1.9": "this port speaks HTTP/1.1, HTTP/1.0 and WebSocket",
    "TLS": "this port speaks plain HTTP and WebSocket, and the client began with TLS: use http:// or ws://, or give "
    "the relay a certificate with --tls-cert and --tls-key",
    "coding and length": "Transfer-Encoding may stand neither beside Content-Length nor in HTTP/1.0",
    "coding": "a body with Transfer-Encoding is not taken here",
    "two lengths": "one Content-Length is allowed, and it is a plain number",
    "GET with a body": "GET has no body here",
    "long whole target": "the first line is longer than 8 KiB",
    "long header": "a header is longer than 8 KiB",
    "many headers": "there are more than 100 headers",
    "many long headers": "the headers are longer than 16 KiB in all",
}


@pytest.mark.parametrize("name", WORDS)
def test_a_person_is_told_what_was_wrong(name):
    """What was wrong, or what is allowed, in words that a client's log shows."""
    assert read(FAULTS[name][0]).message == WORDS[name]


def test_every_reason_has_a_request():
    """Each is a label of a metric; the one that is missing among the faults is that of a WebSocket."""
    assert set(MALFORMED) == {reason for _, _, reason in FAULTS.values()} | {"bytes_behind"}


def test_a_websocket_is_refused_in_words():
    """With the reason for the metrics."""
    words = "a WebSocket begins after the answer to its request, not before"
    assert read(GOOD + b"x").malformed_for_websocket() == Malformed(400, "bytes_behind", words)
    head = read(request(b"Upgrade: " + b"a" * (MAX_WEBSOCKET_BYTES + 1)))
    names = "Connection, Upgrade, Sec-WebSocket-Extensions and Sec-WebSocket-Protocol"
    assert head.malformed_for_websocket() == Malformed(431, "size", f"{names} are longer than 2 KiB in all")


def test_tls_is_known_by_its_second_byte():
    """The first one alone may become anything, and is waited with."""
    reader = HeadReader()
    assert reader.receive(b"\x16") is None
    assert reader.receive(b"\x03").reason == "tls"


def test_a_first_line_without_an_end_is_told_of_before_the_head_is_full():
    """The last byte that may come, and the first one too many."""
    line = b"GET /" + b"x" * (MAX_LINE_BYTES - 5)
    reader = HeadReader()
    assert reader.receive(line) is None
    assert reader.receive(b"x") == Malformed(414, "size", "the first line is longer than 8 KiB")


def test_of_what_is_too_long_no_byte_is_looked_at():
    """At the bound as beyond it: what is wrong in it, and where it begins, changes nothing."""
    first = b"GET / HTTP/1.1\r\nA: \0"
    assert read(first + b"x" * (MAX_HEAD_BYTES - len(first))).status == 431
    assert read(b"\r\n" + b"x" * MAX_HEAD_BYTES).status == 431
    assert read(b"\r\n\r\n" + b"x" * MAX_HEAD_BYTES).status == 400, "this one is a head, and a wrong one"


@pytest.mark.parametrize(
    "data",
    [
        request(*[b"A: b"] * (MAX_FIELDS - 1)),
        request(b"A: " + b"x" * (MAX_LINE_BYTES - 3)),
        request(b"Content-Length: 0"),
        request(b"Content-Length: 5", first=b"POST / HTTP/1.1") + b"12345",
        request(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.1"),
        request(first=b"OPTIONS * HTTP/1.1"),
        request(first=b"GET / HTTP/1.0"),
        b"GET / HTTP/1.0\r\n\r\n",
        request(first=b"GET /" + b"x" * (MAX_LINE_BYTES - 14) + b" HTTP/1.1"),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_just_allowed(data):
    """The last one on the good side of each bound; a method that will be refused may have a body."""
    assert isinstance(read(data), RequestHead)
    assert isinstance(read(data, 5), RequestHead)


def test_the_bound_of_the_whole_head():
    """Exactly 16 KiB are a head; a byte more is not."""
    row = b"A: " + b"x" * 5000
    room = MAX_HEAD_BYTES - len(request(row, row, b"B: "))
    assert isinstance(read(request(row, row, b"B: " + b"y" * room)), RequestHead)
    assert read(request(row, row, b"B: " + b"y" * (room + 1))).status == 431


def test_the_end_of_a_probe_and_of_half_a_request():
    """A connection that says nothing is answered nothing; half a request is told that it is one."""
    assert HeadReader().receive_eof() is None
    reader = HeadReader()
    reader.receive(GOOD[:30])
    assert reader.receive_eof() == Malformed(400, "line", "the request ended before its blank line")


PIECES = st.lists(st.sampled_from([b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"\n", b"\x00", b"A: b\r\n", b" c",
                                   b"\x16\x03", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
                  | st.binary(max_size=12), max_size=12)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(PIECES, st.integers(1, 40))
def test_the_outcome_does_not_depend_on_how_the_bytes_arrive(parts, pieces):
    """In one packet or in many, the same bytes are the same request or the same status; nothing raises."""
    data = b"".join(parts)
    whole, cut = read(data), read(data, pieces)
    if isinstance(whole, RequestHead):
        assert (cut.method, cut.target, cut.fields) == (whole.method, whole.target, whole.fields)
    elif whole is not None and cut is not None:
        assert isinstance(cut, Malformed)


@pytest.mark.parametrize("filling", [b" ", b"\t", b"a", b" a", b"\xff", b":"])
@pytest.mark.parametrize("wrong", [b"\x01", b"\x7f"])
def test_a_head_takes_one_look_at_each_byte_wherever_its_fault_stands(filling, wrong):
    """A header as long as allowed, of what a pattern could share out in many ways, and a fault behind it.

    Looked at in every way, one such request would keep the relay for minutes: then this test does not end.
    """
    long = filling * ((MAX_LINE_BYTES - 10) // len(filling))
    outcome = read(request(b"X-Long:" + long + wrong))
    assert isinstance(outcome, Malformed)
    assert (outcome.status, outcome.reason) == (400, "line")
    assert isinstance(read(request(b"X-Long:" + long)), RequestHead)


@pytest.mark.parametrize("seed", range(4))
def test_lines_end_as_a_pattern_would_have_it(seed):
    """CR LF only, and no NUL: the same for every text, and wherever it is cut in two."""
    rng, bad = random.Random(seed), re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\x00")
    for _ in range(1500):
        text = b"GET /" + bytes(rng.choice(b"\r\n\r\n\r\nx\0" if rng.random() < 0.1 else b"\r\nx") for _ in range(8))
        for cut in range(5, len(text)):
            reader = HeadReader()
            for read, upto in ((text[:cut], cut), (text[cut:], len(text))):
                outcome = reader.receive(read)
                head, end, _ = text[:upto].partition(b"\r\n\r\n")
                is_told = isinstance(outcome, Malformed) and outcome.message.startswith("lines end with CR LF")
                assert is_told == bool(bad.search(head + end)), (text, cut)
                if outcome is not None:
                    break
