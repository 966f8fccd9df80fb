"""The viewers' port: handshakes, requests, close codes, and viewers that do not read."""

from __future__ import annotations

import json
import socket
import struct
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode
from websockets.sync.client import connect

from logrelay.terminal.tls_socket import for_two_threads
from logrelay.tls import TlsFiles
from logrelay.viewers import connection as connection_module
from logrelay.viewers import server as server_module
from tests.support.certificates import Authority
from tests.support.waiting import DEADLINE_S

STALLED_BYTES = 64 * 1024
"""What a stalled viewer may hold in the relay's memory (docs, segment size)."""


class Peer:
    """A viewer, message by message."""

    def __init__(self, relay, query="", **settings):
        settings.setdefault("compression", None)
        settings.setdefault("max_size", None)
        self.stack = ExitStack()
        self.ws = self.stack.enter_context(connect(relay.url + query, **settings))
        relay.guests.append(self)
        self.first = self.message()
        assert self.first["type"] == "connection"

    def message(self, timeout=DEADLINE_S):
        return json.loads(self.ws.recv(timeout=timeout))

    def lines(self, count):
        """Return the next `count` lines; nothing else may come between."""
        out = []
        while len(out) < count:
            message = self.message()
            got = message if isinstance(message, list) else [message]
            assert all(shape["type"] == "log" for shape in got), got
            out += got
        assert len(out) == count
        return out

    def ask(self, **request):
        self.ws.send(json.dumps(request))

    def closed(self):
        """Read to the end; return the close code and the messages before it."""
        messages = []
        try:
            while True:
                messages.append(self.message())
        except ConnectionClosed as end:
            return end.rcvd and end.rcvd.code, messages

    def close(self):
        self.stack.close()


def filled(relay, count, **fields):
    """Have a trader log `count` lines; return it once all are acked. The first line is the notice that it came."""
    trader = relay.trader()
    trader.hello()
    for at in range(1, count + 1, 500):
        trader.log(at, min(at + 499, count), **fields)
    trader.acked(count)
    return trader


def seqs(lines):
    return [int(line["id"].rpartition("-")[2]) for line in lines]


# --- handshake ----------------------------------------------------------------------------------------------


def test_the_app_as_it_is(house):
    """Connect, get the last lines, send the subscription the app sends, get live lines: nothing twice."""
    relay = house()
    trader = filled(relay, 3, symbol="AAPL")
    peer = Peer(relay)
    assert peer.first["status"] == "connected"
    assert peer.first["head"] == "k3f9ab-4"
    assert peer.first["oldest"] == "k3f9ab-1"
    assert peer.first["traders"][0]["last_seq"] == 3
    lines = peer.lines(4)
    assert [line["message"] for line in lines] == ["bot (pid 7) connected", "line 1", "line 2", "line 3"]
    assert lines[1]["context"] == {"symbol": "AAPL"}
    peer.ask(type="subscribe", channel="logs")
    assert peer.message() == {"type": "subscribed", "channel": "logs", "filter": {}, "head": "k3f9ab-4"}
    trader.log(4, 6)
    assert seqs(peer.lines(3)) == [5, 6, 7]
    peer.close()
    trader.close()


@pytest.mark.parametrize("path", ["", "logs", "any/path/at/all?level=DEBUG", "?tail=0"])
def test_any_path_will_do(house, path):
    """The app's URL has no path, others have."""
    relay = house()
    Peer(relay, path).close()


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:1", 403), ("http://127.0.0.1:{port}", 101)],
)
def test_origin(house, origin, status):
    """A page from elsewhere is refused with 403; the relay's own page is let in."""
    relay = house()
    headers = {"Origin": origin.format(port=relay.port)}
    if status == 101:
        Peer(relay, additional_headers=headers).close()
    else:
        with pytest.raises(InvalidStatus) as refusal, connect(relay.url, additional_headers=headers):
            pass
        assert refusal.value.response.status_code == status


def test_too_many_viewers(house, until):
    """The one too many gets 503 and when to try again; a place that becomes free can be had."""
    relay = house(max_viewers=2)
    one, two = Peer(relay), Peer(relay)
    with pytest.raises(InvalidStatus) as refusal, connect(relay.url):
        pass
    assert refusal.value.response.status_code == 503
    assert refusal.value.response.headers["Retry-After"] == "10"
    one.close()
    until(lambda: relay.call(lambda: len(relay.viewers.viewers)) == 1)
    three = Peer(relay)
    two.close()
    three.close()


@pytest.mark.parametrize("target", ["//[", "/?text=%ff", "/?source=" + "a," * 2000, "*", "/" + "x" * 4000])
def test_targets_of_every_shape_get_an_answer(house, target):
    """No request line, however odd, ends in silence or on the loop's list of accidents (checked by `stop`)."""
    relay = house()
    with socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as sock:
        sock.sendall(
            f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode("latin-1")
        )
        assert sock.recv(12) == (b"HTTP/1.1 400" if target == "*" else b"HTTP/1.1 101")


def test_a_wrong_subscription_in_the_url(house):
    """connection, then the error, then close code 4400."""
    relay = house()
    peer = Peer(relay, "?level=loud")
    code, messages = peer.closed()
    assert code == 4400
    assert [(m["type"], m["code"]) for m in messages] == [("error", "bad_level")]
    assert "DEBUG, INFO" in messages[0]["message"]


def test_the_batch_subprotocol(house):
    """Lines come as arrays, several to a message; everything else as objects."""
    relay = house()
    trader = filled(relay, 1000)
    peer = Peer(relay, "?tail=1001", subprotocols=["logrelay.v1.batch"])
    assert peer.ws.subprotocol == "logrelay.v1.batch"
    messages = []
    while sum(map(len, messages)) < 1001:
        messages.append(peer.message())
        assert isinstance(messages[-1], list)
    assert len(messages) < 100, "several lines to a message"
    assert seqs(line for lines in messages for line in lines) == list(range(1, 1002))
    peer.ask(type="ping")
    assert peer.message() == {"type": "pong"}
    peer.close()
    trader.close()


@pytest.mark.parametrize("batch", [False, True])
def test_a_compressed_viewer_reads_the_same(house, batch):
    """Replay, live lines and answers, through permessage-deflate as another library understands it."""
    relay = house(compression="on")
    trader = filled(relay, 2000)
    settings = {"subprotocols": ["logrelay.v1.batch"]} if batch else {}
    one = Peer(relay, "?tail=2001", compression="deflate", **settings)
    assert seqs(one.lines(2001)) == list(range(1, 2002))
    two = Peer(relay, "?tail=1", compression="deflate", **settings)
    assert seqs(two.lines(1)) == [2001]
    for at in range(2001, 2301, 10):
        trader.log(at, at + 9)
        if at == 2101:
            two.close()
            two = Peer(relay, "?tail=0", compression="deflate", **settings)
            head = int(two.first["head"].rpartition("-")[2])
        if at % 50 == 1:
            one.ask(type="ping")
    got, pongs = [], 0
    while len(got) < 300 or pongs < 6:  # answers and lines come by the same connection, in no order among each other
        message = one.message()
        if isinstance(message, dict) and message["type"] == "pong":
            pongs += 1
        else:
            got += message if isinstance(message, list) else [message]
    assert seqs(got) == list(range(2002, 2302))
    assert pongs == 6
    assert seqs(two.lines(2301 - head)) == list(range(head + 1, 2302))
    for peer in (one, two):
        peer.close()
    trader.close()


def test_the_end_of_the_relay(house):
    """A stop closes every viewer with 1012, after what was committed."""
    relay = house()
    trader = filled(relay, 5)
    peer = Peer(relay)
    trader.log(6, 7)
    relay.stop()
    code, messages = peer.closed()
    assert code == 1012
    assert seqs(messages) == list(range(1, 9))
    trader.close()


# --- requests -----------------------------------------------------------------------------------------------


def test_resume(house):
    """Behind an id: exactly what follows. An id of another journal: a gap notice first, then the oldest kept."""
    relay = house()
    trader = filled(relay, 20)
    peer = Peer(relay, "?after=k3f9ab-15")
    assert seqs(peer.lines(6)) == list(range(16, 22))
    peer.ask(type="subscribe", after="k3f9ab-20")
    assert peer.message()["type"] == "subscribed"
    assert seqs(peer.lines(1)) == [21]
    peer.close()
    for stranger in ("zzzzzz-3", "k3f9ab.x-3", "k3f9ab-22"):
        peer = Peer(relay, f"?after={stranger}")
        lines = peer.lines(22)
        assert lines[0]["context"]["notice"] == "gap"
        assert lines[0]["context"]["cause"] == "epoch"
        assert lines[0]["context"]["count"] == 0
        assert seqs(lines[1:]) == list(range(1, 22))
        peer.close()
    trader.close()


def test_a_subscription_changes_the_filter_or_the_place(house):
    """A new filter from here on; a tail of the new filter; no repeat and no loss at the seam."""
    relay = house()
    trader = relay.trader()
    trader.hello()
    trader.log(1, 50, level="info")
    trader.log(51, 60, level="error")
    trader.acked(60)
    peer = Peer(relay, "?tail=0")
    peer.ask(type="subscribe", level="ERROR", tail=3)
    assert peer.message()["filter"] == {"level": "ERROR"}
    assert [line["message"] for line in peer.lines(3)] == ["line 58", "line 59", "line 60"]
    trader.log(61, level="info")
    trader.log(62, level="error")
    assert [line["message"] for line in peer.lines(1)] == ["line 62"]
    peer.ask(type="subscribe", level="DEBUG")
    assert peer.message()["filter"] == {}
    trader.log(63)
    assert [line["message"] for line in peer.lines(1)] == ["line 63"]
    peer.ask(type="subscribe", level="loud")
    assert peer.message()["code"] == "bad_level"
    trader.log(64)
    assert [line["message"] for line in peer.lines(1)] == ["line 64"]
    peer.close()
    trader.close()


def test_history(house):
    """Older lines of the filter, oldest first; `more` until there are none; the answers come in order."""
    relay = house()
    trader = relay.trader()
    trader.hello()
    for seq in range(1, 301):
        trader.log(seq, level="error" if seq % 3 == 0 else "info")
    trader.acked(300)
    peer = Peer(relay, "?tail=0&level=ERROR&source=bot")
    before, found = peer.first["head"], []
    while True:
        peer.ask(type="history", before=before, limit=40)
        answer = peer.message()
        assert answer["type"] == "history"
        logs = answer["logs"]
        assert len(logs) <= 40
        found = logs + found
        if not answer["more"]:
            break
        before = logs[0]["id"]
    errors = [line["message"] for line in found if line["source"] == "bot"]
    # head itself is line 300: `before` leaves it out
    assert errors == [f"line {n}" for n in range(3, 300, 3)]
    assert len({line["id"] for line in found}) == len(found)
    for _ in range(4):
        peer.ask(type="history", before="k3f9ab-2", limit=1, notices="all")
    for _ in range(4):
        assert seqs(peer.message()["logs"]) == [1]
    peer.ask(type="history", before="k3f9ab-999")
    assert peer.message()["code"] == "expired"
    peer.ask(type="history", before="k3f9ab-1")
    assert peer.message() == {"type": "history", "logs": [], "more": False}
    peer.close()
    trader.close()


def test_ping_and_nonsense(house):
    """A ping has its pong; nonsense has an error and changes nothing."""
    relay = house()
    peer = Peer(relay)
    peer.ask(type="ping")
    assert peer.message() == {"type": "pong"}
    for text, code in (("{", "bad_json"), ("[]", "bad_json"), ('{"type":"log"}', "bad_type")):
        peer.ws.send(text)
        assert peer.message()["code"] == code
    assert peer.ws.ping().wait(DEADLINE_S)
    peer.close()


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("binary", 1003),
        ("too big", 1009),
        ("pieces too big", 1009),
        ("not utf-8", 1007),
        ("pieces not utf-8", 1007),
        ("unmasked", 1002),
        ("a piece of nothing", 1002),
    ],
)
def test_close_codes(house, what, code):
    """Each way of breaking the rules has the close code of the table; others are not disturbed."""
    relay = house()
    other = Peer(relay)
    peer = Peer(relay)
    if what == "binary":
        peer.ws.send(b"\0")
    elif what == "too big":
        peer.ws.send("x" * (64 * 1024 + 1))
    elif what == "pieces too big":
        with suppress(ConnectionClosed):  # the answer may come before the last piece is sent
            peer.ws.send(iter(["x" * (32 * 1024), "x" * (32 * 1024), "x"]))
    elif what == "pieces not utf-8":
        peer.ws.socket.sendall(b"\x01\x81\0\0\0\0\xff\x80\x81\0\0\0\0\xfe")
    elif what == "a piece of nothing":
        peer.ws.socket.sendall(b"\x80\x81\0\0\0\0x")
    elif what == "not utf-8":
        peer.ws.socket.sendall(b"\x81\x82\0\0\0\0\xff\xfe")
    else:
        peer.ws.socket.sendall(b"\x81\x02{}")
    assert peer.closed() == (code, [])
    other.ask(type="ping")
    assert other.message() == {"type": "pong"}
    other.close()


def test_a_request_in_pieces_is_heard(house):
    """RFC 6455, section 5.4: with other frames in between, and the bytes of one character apart, up to the limit."""
    relay = house()
    peer = Peer(relay)
    request = json.dumps({"type": "subscribe", "text": "\u00e4" * 9}, ensure_ascii=False).encode()
    pieces = [request[at : at + 1] for at in range(len(request))]
    frames = [bytes([0x01 if n == 0 else 0x00, 0x81]) + bytes(4) + piece for n, piece in enumerate(pieces)]
    frames[-1] = bytes([0x80]) + frames[-1][1:]
    frames.insert(5, bytes([0x89, 0x80]) + bytes(4))  # a ping in between
    peer.ws.socket.sendall(b"".join(frames))
    assert peer.message()["filter"] == {"text": "\u00e4" * 9}
    empty = json.dumps({"type": "ping", "x": ""})
    whole = json.dumps({"type": "ping", "x": "x" * (64 * 1024 - len(empty))})
    peer.ws.send(iter([whole[:30_000], whole[30_000:]]))
    assert peer.message() == {"type": "pong"}
    peer.close()


def test_no_message_is_longer_than_clients_take(house):
    """A client that takes a megabyte, as most do unless told, reads all of the history of long lines."""
    relay = house()
    trader = filled(relay, 60, pad="x" * 30_000)
    peer = Peer(relay, "?tail=0", max_size=1024 * 1024)
    before, found, answers = peer.first["head"], 0, 0
    while True:
        peer.ask(type="history", before=before, limit=1000, notices="no")
        answer = peer.message()
        found, answers, before = found + len(answer["logs"]), answers + 1, answer["logs"][0]["id"]
        if not answer["more"]:
            break
    assert found == 59
    assert answers == 2
    peer.close()
    trader.close()


def test_a_request_of_64_kib_is_heard(house):
    """The limit is the documented one."""
    relay = house()
    peer = Peer(relay)
    empty = json.dumps({"type": "ping", "x": ""})
    peer.ask(type="ping", x="x" * (64 * 1024 - len(empty)))
    assert peer.message() == {"type": "pong"}
    peer.close()


# --- viewers that do not read -------------------------------------------------------------------------------


class Deaf:
    """A viewer whose end of the connection is small and not read until `read`."""

    def __init__(self, relay, query="", headers=""):
        self.sock = socket.socket()
        relay.guests.append(self)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(("127.0.0.1", relay.port))
        self.sock.sendall(
            f"GET /{query} HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"{headers}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self.data += self.sock.recv(1)
        assert self.data.startswith(b"HTTP/1.1 101")
        self.data = b""

    def say(self, text):
        data = text.encode()
        assert len(data) < 126
        self.sock.sendall(bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data)

    def message(self):
        """Read one unfragmented text message; skip pings."""
        while True:
            first, size = self.take(2)
            if size >= 126:
                size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
            payload = self.take(size)
            if first & 15 == Opcode.TEXT:
                return json.loads(payload)

    def take(self, count):
        while len(self.data) < count:
            more = self.sock.recv(65536)
            assert more, "the relay closed the connection"
            self.data += more
        out, self.data = self.data[:count], self.data[count:]
        return out

    def close(self):
        self.sock.close()


def buffered(relay):
    """Return the bytes that the relay's transports hold, the largest of all viewers."""
    return relay.call(lambda: max((c._transport.get_write_buffer_size() for c in relay.viewers.connections), default=0))


@pytest.mark.parametrize("batch", [False, True])
def test_a_stalled_viewer_costs_less_than_64_kib(house, until, batch):
    """Ten megabytes go by while it sleeps: its buffer stays small, others are served, and then it gets all of it."""
    relay = house()
    trader = filled(relay, 10)
    deaf = Deaf(relay, "?tail=0", "Sec-WebSocket-Protocol: logrelay.v1.batch\r\n" if batch else "")
    awake = Peer(relay, "?tail=0")
    largest = 0
    for at in range(11, 11 + 20_000, 500):
        trader.log(at, at + 499, pad="x" * 400)
        trader.acked(at + 499)
        largest = max(largest, buffered(relay))
        awake.lines(500)
    until(lambda: relay.counter("viewers_behind") == 1)  # the other one has read all, and its last buffer goes soon
    assert 0 < largest < STALLED_BYTES
    deaf.say('{"type":"ping"}')
    got, pongs = [], 0
    assert deaf.message()["type"] == "connection"
    while len(got) < 20_000:
        message = deaf.message()
        if isinstance(message, dict) and message["type"] == "pong":
            pongs += 1
        else:
            got += message if isinstance(message, list) else [message]
        if len(got) % 2000 < 2:
            largest = max(largest, buffered(relay))
    assert [line["message"] for line in got] == [f"line {n}" for n in range(11, 20_011)]
    assert pongs == 1 or deaf.message() == {"type": "pong"}
    assert largest < STALLED_BYTES
    until(lambda: relay.counter("viewers_behind") == 0)
    deaf.close()
    awake.close()
    trader.close()


def test_a_viewer_far_behind_is_skipped_with_a_notice(house, until):
    """More than max_lag lines behind: warnings arrive all the same, one notice counts the rest, then the head."""
    relay = house(max_lag=3000, tail=100)
    trader = filled(relay, 10)
    deaf = Deaf(relay, "?tail=0")
    for at in range(11, 11 + 20_000, 500):
        trader.log(at, at + 498, pad="x" * 400)
        trader.log(at + 499, level="warning")
        trader.acked(at + 499)
    assert relay.counter("viewers_behind") == 1
    assert deaf.message()["type"] == "connection"
    lines = []
    while not lines or lines[-1]["message"] != "line 20010":
        lines.append(deaf.message())
    gaps = [line["context"] for line in lines if line["source"] == "logrelay"]
    plain = [line for line in lines if line["source"] == "bot"]
    warnings = [line["message"] for line in plain if line["level"] == "WARNING"]
    assert warnings == [f"line {n}" for n in range(510, 20_011, 500)]
    assert {gap["cause"] for gap in gaps} == {"lag"}
    assert sum(gap["count"] for gap in gaps) + len(plain) == 20_000
    for gap in gaps:
        first, last = (int(gap[key].rpartition("-")[2]) for key in ("first", "last"))
        assert gap["count"] + gap["kept"] == last - first + 1 == sum(gap["levels"].values())
        assert gap["levels"]["WARNING"] == gap["kept"]
    deaf.close()
    trader.close()


@pytest.mark.parametrize(
    "request_",
    ['{"type":"ping"}', '{"type":"history","before":"k3f9ab-900","limit":1000}', '{"type":"subscribe"}', "?"],
)
def test_requests_without_reading_the_answers_do_not_fill_the_memory(house, request_):
    """A viewer that asks and asks and never reads is not heard any more; what waits for it stays bounded."""
    relay = house()
    trader = filled(relay, 1000, pad="x" * 1000)
    deaf = Deaf(relay, "?tail=0")
    deaf.sock.settimeout(0.3)
    largest = 0
    frame = bytes([0x81, 0x80 | len(request_), 0, 0, 0, 0]) + request_.encode()
    chunk = frame * 200
    sent = 0
    try:
        while sent < 30_000_000:
            sent += deaf.sock.send(chunk[sent % len(chunk) :])
            largest = max(largest, buffered(relay))
    except TimeoutError:
        pass
    largest = max(largest, buffered(relay))
    assert sent < 30_000_000, "the relay went on listening"
    assert largest < 2_500_000
    other = Peer(relay, "?tail=1")
    assert len(other.lines(1)) == 1
    other.close()
    deaf.close()
    trader.close()


def test_plain_http_with_a_slow_reader(house):
    """A long answer is streamed at the reader's pace, complete and in order."""
    relay = house()
    trader = filled(relay, 5000, pad="x" * 500)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(DEADLINE_S)
    sock.connect(("127.0.0.1", relay.port))
    sock.sendall(f"GET /logs?limit=5001 HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\n\r\n".encode())
    data, largest = b"", 0
    while more := sock.recv(16_384):
        data += more
        if len(data) % 7 == 0:
            largest = max(largest, buffered(relay))
    sock.close()
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert seqs(map(json.loads, body.splitlines())) == list(range(1, 5002))
    assert largest < 2_500_000, "one page of the journal, not all of it"
    trader.close()


def test_plain_http_of_a_reader_that_leaves(house, until):
    """An answer nobody waits for any more ends with its connection."""
    relay = house()
    trader = filled(relay, 5000, pad="x" * 500)
    for _ in range(5):
        sock = socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S)
        sock.sendall(f"GET /logs?limit=5001 HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\n\r\n".encode())
        sock.recv(1000)
        sock.close()
    until(lambda: relay.call(lambda: not relay.viewers.connections))
    trader.close()


def test_plain_http_refusals(house):
    """A foreign Host is refused before anything is read."""
    relay = house()
    request = urllib.request.Request(f"http://127.0.0.1:{relay.port}/logs", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=DEADLINE_S)
    assert refusal.value.code == 403
    refusal.value.close()


# --- peers that are no viewers ------------------------------------------------------------------------------

UPGRADE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100 + b"\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 100_000,
        b"GET /" + b"x" * 100_000,
        UPGRADE + b"\r\n",
        UPGRADE + b"Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n",
        UPGRADE + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 8\r\n\r\n",
    ],
    ids=lambda data: repr(data[:30]),
)
def test_nonsense_at_the_port_ends_with_an_answer_or_at_once(house, data):
    """What is no request of ours is refused or cut off, without a trace on the loop, and viewers do not notice."""
    relay = house()
    watcher = Peer(relay)
    with socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as sock:
        answer = b""
        try:
            sock.sendall(data)
            while more := sock.recv(65536):
                answer += more
        except ConnectionError:
            pass
        assert b"101 Switching" not in answer
    watcher.ask(type="ping")
    assert watcher.message() == {"type": "pong"}
    watcher.close()


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\x16"], ids=repr)
def test_a_peer_that_never_finishes_its_request_is_cut_off(house, data, monkeypatch):
    """A connection without a request does not stay."""
    monkeypatch.setattr(connection_module, "HANDSHAKE_TIMEOUT_S", 0.05)
    relay = house()
    with socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as sock:
        with suppress(ConnectionError):
            sock.sendall(data)
            assert sock.recv(100) == b""


def test_a_viewer_that_answers_no_ping_is_closed_with_1011(house, monkeypatch):
    """Three pings without an answer and it is gone; one that answers stays."""
    monkeypatch.setattr(server_module, "PING_INTERVAL_S", 0.5)  # three of them: time for an answer on a busy machine
    relay = house()
    alive = Peer(relay)
    deaf = Deaf(relay)
    assert deaf.message()["type"] == "connection"
    opcodes = []
    while not opcodes or opcodes[-1] != Opcode.CLOSE:
        first, size = deaf.take(2)
        payload = deaf.take(size)
        opcodes.append(first & 15)
    assert opcodes == [Opcode.PING] * 3 + [Opcode.CLOSE]
    assert int.from_bytes(payload[:2], "big") == 1011
    deaf.close()
    alive.ask(type="ping")
    assert alive.message() == {"type": "pong"}
    alive.close()


def test_a_viewer_that_vanishes_is_forgotten(house, until):
    """A reset in the middle of a stall leaves nothing behind, neither viewer nor timer nor group."""
    relay = house()
    trader = filled(relay, 3000, pad="x" * 400)
    for _ in range(5):
        deaf = Deaf(relay, "?tail=3000")
        deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        deaf.close()
    until(lambda: relay.call(lambda: not relay.viewers.connections and not relay.pipeline.viewer_count))
    assert relay.call(lambda: not relay.pipeline._hub._groups)
    trader.close()


@pytest.mark.parametrize("compression", ["off", "on"])
def test_tls_on_either_loop(house, folder, compression):
    """A viewer by TLS gets everything, also after it has not read for a while; requests and refusals are answered."""
    authority = Authority(folder)
    files = TlsFiles(*map(str, authority.issue("relay")))
    relay = house(tls=files.context, compression=compression)
    trader = filled(relay, 10)
    offered = {"off": None, "on": "deflate"}[compression]
    url = f"wss://localhost:{relay.port}/?tail=0"
    with connect(url, ssl=for_two_threads(authority.client()), max_size=None, compression=offered) as ws:
        assert json.loads(ws.recv(DEADLINE_S))["type"] == "connection"
        trader.log(11, 8000, padding="x" * 1000)
        trader.acked(8000)
        got = [json.loads(ws.recv(DEADLINE_S)) for _ in range(7990)]
        assert [line["message"] for line in got] == [f"line {n}" for n in range(11, 8001)]
        for _ in range(50):
            ws.send(json.dumps({"type": "ping"}))
        assert [json.loads(ws.recv(DEADLINE_S))["type"] for _ in range(50)] == ["pong"] * 50
    for data, status in ((b"GET /logs?limit=3 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"), (b"\x00", b"400")):
        with (
            socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as plain,
            authority.client().wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(data)
            answer = b""
            while more := secure.recv(65536):
                answer += more
        assert answer.startswith(b"HTTP/1.1 " + status)
