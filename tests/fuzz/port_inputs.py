"""Inputs for the viewers' port: requests, handshakes, WebSocket frames and messages, good, odd and damaged.

Owns: `make_case`. A piece has no meaning here: what is required of the answers holds for every input. Read `port_lane`
next.
"""

from __future__ import annotations

import json
import struct
import zlib
from random import Random
from typing import Any
from urllib.parse import quote

from tests.fuzz.cases import Case, Connection, Piece, cuts, mutate

GOOD_TOKEN = "correct-horse-battery-staple-0123456789"
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="

METHODS = ("GET", "GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "PUT", "get", "CONNECT", "TRACE", "PRI", "G" * 40, "")
PATHS = (
    "/", "/", "/healthz", "/readyz", "/metrics", "/logs", "/logs", "/logs", "/static/main.js", "/favicon.ico", "//",
    "*", "/%00", "/..%2f..%2fetc/passwd", "/logs/", "/static/../logs", "http://127.0.0.1/", "/%ff%fe", "/\xe9",
    "/" + "a" * 9000, "", "?", "/logs#x", "/;x", "/logs?",
)  # fmt: skip
VERSIONS = ("HTTP/1.1",) * 90 + (
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/9.9",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.1 ",
    "",
)

TEXTS = (
    "", "x", "INFO", "warning", "error", "CRITICAL", "fatal", "TRACE", "*", "?", "[", "[!", "[a-", "[]]", "**",
    "*a*b*c*", "a,b,,c", "a" * 257, "*" * 256, "é", "\x00", "\n", "\x1b[31m", "\U0001f600", "\ud800", "'\"; --", "%",
    "_", "\\", "k=v", "k=", "=v", "=", 'a"b=c', "k=null", "k=1.0", "k=NaN", "n=1", "symbol=AAPL", "k" * 300 + "=v",
    "k3f9ab-1", "k3f9ab-10", "k3f9ab-11", "k3f9ab-0", "k3f9ab--1", "zzzzzz-4", "k3f9ab-99999999999999999999",
    "k3f9ab", "-", "-1", "0", "1", "5", "100000", "100001", "1e3", "1.5", "0x10", "٣", "+5", " 5", "5 ", "9" * 400,
    "2026-01-23T10:00:00Z", "2026-01-23T10:00:00+00:00", "2026-02-30T10:00:00Z", "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "2026-01-23T10:00:00.123456789Z", "2026-01-23t24:00:00z", "2026-01-23T10:00:60Z", "15m", "2h", "999999999w", "0s",
    "-1s", "1769162400", "1769162400.5", "1769162400000", "253402300799.999999999", "253402300800", "true", "null",
)  # fmt: skip
LOG_PARAMETERS = ("since", "until", "level", "source", "app", "text", "where", "limit", "after", "before")
PARAMETERS = (
    *LOG_PARAMETERS, "level", "source", "app", "text", "where", "tail", "after", "before", "token", "channel", "x",
    "", "LEVEL",
)  # fmt: skip
PLAUSIBLE: dict[str, tuple[str, ...]] = {
    "since": ("15m", "1769162400", "2026-01-23T09:59:59Z", "2026-01-23T10:00:00.000003Z"),
    "until": ("2026-01-23T10:00:00.000008Z", "1769162500.5"),
    "level": ("DEBUG", "info", "WARNING"),
    "source": ("bot.*", "bot.part1", "*", "bot.part[12]", "b?t*"),
    "app": ("bot", "b*", "other"),
    "text": ("line", "LINE 1", "x"),
    "where": ("n=1", "symbol=AAPL", "k=null", "k=1.0", "k=true", "k=v"),
    "limit": ("1", "5", "1000"),
    "after": ("k3f9ab-1", "k3f9ab-10", "k3f9ab-11", "k3f9ab-0"),
    "before": ("k3f9ab-10", "k3f9ab-1", "k3f9ab-11"),
    "tail": ("0", "5", "100000"),
    "channel": ("logs",),
}
ODD_HEADERS = (
    "Content-Length: 0", "Content-Length: 5", "Content-Length: -1", "Content-Length: 5, 5",
    "Content-Length: 99999999999999999999", "Content-Length: 0\r\nContent-Length: 0", "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity", "Expect: 100-continue", "Connection: keep-alive", "Connection: close, Upgrade",
    "Upgrade: h2c", "Upgrade: websocket", "Host: evil.example", "Host: ", "Host: 127.0.0.1:99999", "Host: [::1]",
    "Host: a\r\nHost: b", "Origin: null", "Origin: http://127.0.0.1:8765", "Origin: http://evil",
    "Origin: http://127.0.0.1:8765\r\nOrigin: http://127.0.0.1:8765", "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-origin", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 1.2.3.4, , ::1, junk",
    'Forwarded: for="[::1]:80";by=x', "Forwarded: for=", "Via: x", "X-Real-IP: \xff", "If-None-Match: *",
    'If-None-Match: "x", W/"y"', "Accept-Encoding: gzip", "Cookie: " + "c" * 7000, "X: " + "y" * 8300, "X : y",
    " X: y", "X:", ": y", "X\ty: z", "X: \x00", "X: a\x7fb", "X: \x1b[2J", "X", "\xe9: x", "X: \xe9",
    "Range: bytes=0-1", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: short",
    "Sec-WebSocket-Protocol: logrelay.v1.batch", "Sec-WebSocket-Protocol: ,",
    "Sec-WebSocket-Protocol: bearer.wrong, logrelay.v1.batch", "Sec-WebSocket-Extensions: permessage-deflate",
    "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8", 'Sec-WebSocket-Extensions: x; y="',
    "Sec-WebSocket-Accept: x", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99",
    "\r\n".join(f"H{n}: v" for n in range(101)),
)  # fmt: skip
AUTHORIZATIONS = (
    f"Authorization: Bearer {GOOD_TOKEN}", f"Authorization: bearer  {GOOD_TOKEN} ", "Authorization: Bearer wrong",
    "Authorization: Bearer", "Authorization: Bearer ", "Authorization: Basic eDp5", "Authorization: ",
    f"Authorization: Bearer {GOOD_TOKEN} x", "Authorization: Bearer \xe9\xff",
    f"Authorization: Basic x\r\nAuthorization: Bearer {GOOD_TOKEN}",
    f"Authorization: Bearer a\r\nAuthorization: Bearer {GOOD_TOKEN}", f"Sec-WebSocket-Protocol: bearer.{GOOD_TOKEN}",
    f"Sec-WebSocket-Protocol: logrelay.v1.batch, bearer.{GOOD_TOKEN}, bearer.{GOOD_TOKEN}",
    "Sec-WebSocket-Protocol: bearer.",
)  # fmt: skip

SCALARS: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 5, 1.0, 1.5, 200, 1000, 1001, 100_000, 2**31, 2**53, 2**63, 2**64, 10**30,
    float("inf"), float("nan"), [], {}, [[]], ["x"], ["x", 1], [None], [True], {"k": "v"}, {"k": 1.5}, {"k": None},
    {"k": [1, {"x": 2}]}, {"": "x"}, ["a"] * 40, *TEXTS,
)  # fmt: skip
RAW_MESSAGES = (
    b"", b" ", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"\xed\xa0\x80", b'{"type":"ping","type":"history"}',
    b'{"type":"\\ud800"}', b'{"type":"subscribe","text":"\\ud800"}', b'{"type":"subscribe","where":{"\\udc00":1}}',
    b'{"type":"history","before":"\\ud83d"}', b'{"type":"subscribe","tail":1e400}',
    b'{"type":"subscribe","tail":' + b"9" * 5000 + b"}", b'{"type":"ping"}\x00', b"\xef\xbb\xbf{}", b"[" * 1000,
    b'{"type":"subscribe","where":{"k":' + b"[" * 500 + b"]" * 500 + b"}}", b'{"a":' * 1500, b"{}" * 2,
    b'{"type":"subscribe","where":{"k":' + b'{"k":' * 240 + b"1" + b"}" * 240 + b"}}",
    b'{"type":' + b" " * 60_000 + b'"ping"}', b'{"type":"subscribe","source":"' + b"*a" * 100 + b'"}',
    b'{"type":["ping"]}', b'{"type":{"ping":1}}', b'{"type":null}',
)  # fmt: skip


def _pick(rng: Random, choices: Any) -> Any:
    return choices[int(rng.random() * len(choices))]


def _query(rng: Random, names: tuple[str, ...]) -> str:
    pairs = []
    for _ in range(int(rng.random() ** 2 * 6)):
        name = _pick(rng, names)
        value: str = _pick(rng, PLAUSIBLE.get(name, TEXTS) if rng.random() < 0.75 else TEXTS)
        if rng.random() < 0.9:
            value = quote(value.encode("utf-8", "surrogatepass"))
        else:
            value = _pick(rng, ("%", "%zz", "%ff%fe", "%ed%a0%80", "+", "a;b=c", "%00", "&&", "=", "%C3%A9", "\xe9"))
        pairs.append(f"{name}={value}" if rng.random() < 0.95 else value)
    return "?" + "&".join(pairs) if pairs else ""


def _head(method: str, target: str, version: str, headers: list[str]) -> bytes:
    text = "\r\n".join([f"{method} {target} {version}", *headers, "", ""])
    return text.encode("iso-8859-1", "replace")


def _credentials(rng: Random, *, wanted: bool) -> list[str]:
    if wanted and rng.random() < 0.8:
        return [AUTHORIZATIONS[0]]
    return [_pick(rng, AUTHORIZATIONS)] if rng.random() < 0.3 else []


def _request(rng: Random, *, token: bool) -> list[Piece]:
    """Return a plain request, and perhaps what is not to stand behind it."""
    chance = rng.random()
    method = "GET" if chance < 0.5 else _pick(rng, METHODS)
    names = LOG_PARAMETERS if rng.random() < 0.8 else PARAMETERS
    target = ("/logs" if rng.random() < 0.4 else _pick(rng, PATHS)) + _query(rng, names)
    headers = ["Host: 127.0.0.1:8765"] if rng.random() < 0.95 else []
    headers += _credentials(rng, wanted=token)
    headers += [_pick(rng, ODD_HEADERS) for _ in range(int(rng.random() ** 3 * 4))]
    pieces = [Piece(_head(method, target, _pick(rng, VERSIONS), headers))]
    if rng.random() < 0.1:
        pieces.append(_pick(rng, (pieces[0], Piece(b"body!"), Piece(b"0\r\n\r\n"), Piece(rng.randbytes(50)))))
    return pieces


def frame(
    opcode: int, payload: bytes, *, key: bytes, first: int = 0x80, masked: int = 0x80, declared: int = -1
) -> bytes:
    """Return a client's frame; `first` has the bits beside the opcode, `declared` may be another length."""
    size = len(payload) if declared < 0 else declared
    if size < 126:
        head = struct.pack(">BB", first | opcode, masked | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first | opcode, masked | 126, size)
    else:
        head = struct.pack(">BBQ", first | opcode, masked | 127, size)
    if not masked:
        return head + payload
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    body = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(payload), "big")
    return head + key + body


def _deflated(payload: bytes) -> bytes:
    maker = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (maker.compress(payload) + maker.flush(zlib.Z_SYNC_FLUSH))[:-4]


BOMBS = tuple(_deflated(bytes(size)) for size in (70_000, 1 << 20, 16 << 20))


def message(rng: Random) -> bytes:
    """Return the JSON of a viewer's message, more or less."""
    chance = rng.random()
    if chance < 0.15:
        return _pick(rng, RAW_MESSAGES)  # type: ignore[no-any-return]
    shape: dict[str, object] = {
        "type": _pick(rng, ("subscribe", "subscribe", "history", "history", "ping", "x", 1, None))
    }
    if shape["type"] == "history" and rng.random() < 0.7:
        shape["before"] = f"k3f9ab-{int(rng.random() * 12)}"
    for _ in range(int(rng.random() ** 2 * 5)):
        name = _pick(rng, PARAMETERS)
        shape[name] = _pick(rng, PLAUSIBLE.get(name, SCALARS) if rng.random() < 0.7 else SCALARS)
    text: str = json.dumps(shape, ensure_ascii=rng.random() < 0.7)
    return text.encode("utf-8", "surrogatepass")


def _frames(rng: Random) -> list[Piece]:
    """Return one frame, or the fragments of one message."""
    key = b"\0\0\0\0" if rng.random() < 0.5 else rng.randbytes(4)
    chance = rng.random()
    if chance < 0.68:
        return [Piece(frame(1, message(rng), key=key))]
    if chance < 0.74:
        opcode = _pick(rng, (9, 10))
        return [Piece(frame(opcode, rng.randbytes(_pick(rng, (0, 1, 8, 125, 126))), key=key))]
    if chance < 0.78:
        code = _pick(rng, (1000, 1001, 1002, 1005, 1006, 1015, 999, 0, 3000, 4400, 4999, 5000, 65535))
        reason = _pick(rng, (b"", b"bye", b"\xff", b"x" * 123, b"x" * 124))
        payload = _pick(rng, (b"", b"\x03", struct.pack(">H", code) + reason))
        return [Piece(frame(8, payload, key=key))]
    if chance < 0.84:
        text = message(rng)
        at = int(rng.random() * (len(text) + 1))
        between = [Piece(frame(9, b"", key=key))] if rng.random() < 0.3 else []
        return [Piece(frame(1, text[:at], key=key, first=0)), *between, Piece(frame(0, text[at:], key=key))]
    if chance < 0.86:
        return [Piece(frame(_pick(rng, (0, 2)), message(rng), key=key, first=_pick(rng, (0, 0x80))))]
    if chance < 0.89:
        return [
            Piece(frame(_pick(rng, (1, 3, 7, 11, 15)), message(rng), key=key, first=_pick(rng, (0x90, 0xA0, 0xF0))))
        ]
    if chance < 0.92:
        return [Piece(frame(1, message(rng), key=key, masked=0))]
    if chance < 0.96:
        text = _pick(rng, BOMBS) if rng.random() < 0.05 else _deflated(message(rng))
        if rng.random() < 0.3:
            text = rng.randbytes(20) + text
        return [Piece(frame(_pick(rng, (1, 1, 1, 2, 9)), text, key=key, first=0xC0))]
    if chance < 0.98:
        declared = _pick(rng, (0, 1, 126, 65_535, 65_536, 65_537, 2**31, 2**63 - 1, 2**63, 2**64 - 1))
        return [Piece(frame(1, message(rng)[:40], key=key, declared=declared))]
    return [Piece(rng.randbytes(1 + int(rng.random() * 30)))]


def _websocket(rng: Random, *, token: bool) -> list[Piece]:
    headers = [
        "Host: 127.0.0.1:8765", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]  # fmt: skip
    if rng.random() < 0.3:
        headers.append(
            "Sec-WebSocket-Extensions: permessage-deflate"
            + _pick(
                rng, ("", "; client_no_context_takeover", "; server_no_context_takeover", "; client_max_window_bits")
            )
        )
    headers += _credentials(rng, wanted=token)
    if rng.random() < 0.15:
        headers.append(_pick(rng, ODD_HEADERS))
    if rng.random() < 0.05:
        del headers[int(rng.random() * len(headers))]
    pieces = [Piece(_head("GET", _pick(rng, ("/", "/", "/logs", "/x")) + _query(rng, PARAMETERS), "HTTP/1.1", headers))]
    for _ in range(int(rng.random() ** 2 * 8)):
        pieces += _frames(rng)
    return pieces


def make_case(rng: Random) -> Case:
    """Return one input: a connection, and which kind of relay it comes to."""
    relay = _pick(rng, ("open", "open", "token", "limited"))
    is_websocket = rng.random() < 0.6
    pieces = (_websocket if is_websocket else _request)(rng, token=relay != "open")
    if rng.random() < 0.35:
        if is_websocket and len(pieces) > 1 and rng.random() < 0.8:
            behind = pieces[1:]
            mutate(rng, behind)
            pieces = [pieces[0], *behind]
        else:
            mutate(rng, pieces)
    address = "127.0.0.1" if rng.random() < 0.9 else _pick(rng, ("10.1.2.3", "::1", "fe80::1", "192.168.1.7"))
    peer = {"relay": relay, "address": address, "deflate": rng.random() < 0.5}
    # A client waits for the answer before it sends frames, mostly.
    waits = is_websocket and rng.random() < 0.9
    sizes = (len(pieces[0].data) or 1, *cuts(rng)) if waits and pieces else cuts(rng)
    return Case((Connection(tuple(pieces), sizes),), peer)
