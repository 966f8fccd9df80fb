"""Requests that are no good HTTP, at a real relay: each has its answer and its count, and none leaves a traceback."""

from __future__ import annotations

import re
import socket
from http.client import HTTPConnection

import pytest

from logrelay.viewers.connection import MAX_DROPPED_BYTES
from tests.support.waiting import DEADLINE_S
from tests.unit.http.test_request_head import FAULTS

GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
POST = b"POST /logs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n12345"
OTHERS = {
    "pipelined": (GET + GET, 200),
    "bytes behind": (GET + b"\x00" * 5000, 200),
    "a WebSocket with bytes behind": (UPGRADE + b"\x81\x80abcd", 400),
    "POST": (POST, 405),
    "POST of a WebSocket": (UPGRADE.replace(b"GET", b"POST", 1), 405),
    "POST in chunks": (POST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 405),
    "POST by HTTP/1.0": (b"POST /healthz HTTP/1.0\r\nContent-Length: 5\r\n\r\n12345", 405),
    "POST to lines that go on": (POST.replace(b"/logs", b"/events"), 405),
    "PUT": (POST.replace(b"POST", b"PUT", 1), 405),
    "DELETE": (GET.replace(b"GET", b"DELETE"), 405),
    "OPTIONS": (GET.replace(b"GET", b"OPTIONS"), 204),
    "HTTP/1.0": (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
    "HTTP/1.0 health": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "HTTP/1.0 with an empty Host": (b"GET /healthz HTTP/1.0\r\nHost:\r\n\r\n", 200),
    "HTTP/1.0 with a name": (b"GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n", 403),
    "HTTP/1.0 through a proxy": (b"GET /healthz HTTP/1.0\r\nVia: 1.1 proxy\r\n\r\n", 403),
    "HTTP/1.1 without Host": (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
    "HTTP/1.0 with Origin": (b"GET /metrics HTTP/1.0\r\nOrigin: http://evil.example\r\n\r\n", 400),
    "a WebSocket by HTTP/1.0": (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
    "a WebSocket without a key": (UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    "half a request": (b"GET / HTTP/1.1\r\nHost: x\r\n", 400),
}
SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "connection": "close",
}


def ask(port: int, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, end the sending, and read the whole answer to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while more := client.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rows = head.decode().split("\r\n")
    assert re.fullmatch(r"HTTP/1\.1 [1-5][0-9][0-9] [A-Za-z -]+", first), answer[:200]
    return int(first.split()[1]), {k.lower(): v for k, v in (row.split(": ", 1) for row in rows)}, body


def metric(port: int, name: str) -> dict[str, int]:
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {labels: int(value) for labels, value in re.findall(rf"^{name}(\S*) (\d+)$", text, re.MULTILINE)}


def test_every_fault_is_answered_counted_and_closed(start):
    """One relay gets them all; its stderr stays empty, and it answers as before."""
    relay = start()
    for name, (data, status, reason) in FAULTS.items():
        before = metric(relay.port, "logrelay_requests_malformed_total")
        got, headers, body = ask(relay.port, data)
        assert (got, {key: headers.get(key) for key in SAFE}) == (status, SAFE), name
        assert int(headers["content-length"]) == len(body) > 0
        label = f'{{reason="{reason}"}}'
        assert metric(relay.port, "logrelay_requests_malformed_total")[label] == before[label] + 1, name
    for name, (data, status) in OTHERS.items():
        got, headers, _ = ask(relay.port, data)
        assert (got, headers["connection"], headers["x-content-type-options"]) == (status, "close", "nosniff"), name
        assert ("allow" in headers) == (status in (204, 405)), name
    assert ask(relay.port, GET)[0] == 200
    assert metric(relay.port, "logrelay_internal_errors_total") == {"": 0}
    relay.process.terminate()
    assert relay.process.stderr.read() == ""
    relay.process.wait(DEADLINE_S)
    relay.process.stderr.close()


@pytest.mark.parametrize("path", ["/", "/logs", "/metrics", "/static/main.js", "/nothing"])
def test_every_answer_has_the_safe_headers(start, path):
    """Also those that the access rules give; the page has a policy of its own, and its files may be kept."""
    relay = start(LOGRELAY_TOKEN="t" * 43)
    for headers in (b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nAuthorization: Bearer " + b"t" * 43, b"Host: a b"):
        _, got, _ = ask(relay.port, b"GET " + path.encode() + b" HTTP/1.1\r\n" + headers + b"\r\n\r\n")
        assert (got["x-content-type-options"], got["referrer-policy"]) == ("nosniff", "no-referrer")
        assert got["cache-control"] in ("no-store", "no-cache")
        assert "default-src 'none'" in got["content-security-policy"]
        assert got["connection"] == "close"


def test_head_has_no_body_whoever_answers(start):
    """A refusal of HEAD names the length of what GET would get, and sends nothing of it."""
    relay = start(LOGRELAY_TOKEN="t" * 43)
    request = b"HEAD /logs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    status, headers, body = ask(relay.port, request)
    assert (status, body) == (401, b"")
    assert int(headers["content-length"]) == len(ask(relay.port, request.replace(b"HEAD", b"GET"))[2])


def test_a_client_that_reads_last_gets_its_answer(start):
    """A body that nobody wants is read and thrown away, so that a client in the middle of it is not cut off."""
    relay = start()
    connection = HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE_S)
    connection.request("POST", "/logs", body=b"x" * (MAX_DROPPED_BYTES - (64 << 10)))
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD, OPTIONS")
    assert b"only GET, HEAD, OPTIONS are answered here" in answer.read()
    connection.close()


def test_a_check_without_host_shows_a_token_where_one_is_needed(start):
    """By HTTP/1.0, whatever address the relay listens on."""
    check, token = b"GET /healthz HTTP/1.0\r\n", b"Authorization: Bearer %b\r\n" % (b"V3sJm0t-Qz7w_1pLk9rXu8Yb2")
    for host in ("127.0.0.1", "0.0.0.0", "localhost"):
        relay = start(LOGRELAY_TOKEN="V3sJm0t-Qz7w_1pLk9rXu8Yb2", LOGRELAY_HOST=host)
        assert ask(relay.port, check + b"\r\n")[0] == 401
        assert ask(relay.port, check + token + b"\r\n")[0] == 200
