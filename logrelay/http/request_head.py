"""The head of an HTTP request, from bytes: what is accepted, and what is wrong with what is not.

Owns: `HeadReader`, which takes the bytes of a new connection until the head is complete, within `MAX_HEAD_BYTES`, and
`Malformed`, every answer to a head that is none. It must not know who asks, what paths exist, sockets or time. No I/O.
Read `http/api` next: it answers requests that were understood.

It is strict where two readers of the same bytes could disagree about where a request ends (RFC 9112, section 11.2):
line ends, folded lines, lengths and codings. Each connection carries one request, so what follows a head is never read
as another one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEAD_BYTES = 16 * 1024
"""Request line, headers and blank line. Browsers send one or two kilobytes; with large cookies of the same host some
more. It bounds what a peer can have kept before anything is known of it."""

MAX_LINE_BYTES = 8 * 1024
"""The usual bound of HTTP servers, and that of the library which accepts WebSockets."""

MAX_FIELDS = 100
"""Headers of one request. Browsers send some twenty, proxies add ten; each costs more memory than its bytes."""

MAX_WEBSOCKET_BYTES = 2 * 1024
"""What asks for a WebSocket, in all. Browsers send a hundred bytes and a token; the library that reads these lists
takes two microseconds for a byte, which for the longest head would be thirty milliseconds of everybody's time."""

WEBSOCKET_LISTS = ("connection", "sec-websocket-extensions", "sec-websocket-protocol", "upgrade")

MALFORMED = ("bytes_behind", "framing", "line", "size", "tls", "version")
"""Every `Malformed.reason`."""

ALLOWED_METHODS = "GET, HEAD, OPTIONS"

END = b"\r\n\r\n"

_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_FIRST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
"""The value with the white space around it, which is taken off behind: a pattern that left it out itself would try
every way to share it out, for minutes where 8 KiB of it end in a byte that is not allowed."""
_BEGINNING = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,32}(?: |\Z)")
"""What a request can begin with: its method, and a space once that has come."""
_LENGTH = re.compile(r"[0-9]{1,18}")
_TLS_HANDSHAKE = b"\x16\x03"
"""The first bytes of a TLS connection: a record of type handshake, version 3.x (RFC 8446, section 5.1)."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A head that is none: the status of the answer, why, and words for a person."""

    status: int
    reason: str
    """One of `MALFORMED`, for the metrics."""
    message: str


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A complete head."""

    method: str
    target: str
    """As it was sent: a path with its query, or `*`. ASCII without spaces."""
    version: str
    """`1.0` or `1.1`."""
    fields: tuple[tuple[str, str], ...]
    """Names and values as they were sent, in order; bytes beyond ASCII as ISO-8859-1."""
    bytes_behind: bool
    """Something came behind it, with it."""

    def values(self, name: str) -> list[str]:
        """Return every value of a header; `name` in lower case."""
        return [value for field, value in self.fields if field.lower() == name]

    def malformed_for_websocket(self) -> Malformed | None:
        """Tell what forbids a WebSocket: its client has to wait for the answer before it sends more (RFC 6455, 4.1)."""
        if self.bytes_behind:
            return Malformed(400, "bytes_behind", "a WebSocket begins after the answer to its request, not before")
        if sum(len(value) for name in WEBSOCKET_LISTS for value in self.values(name)) > MAX_WEBSOCKET_BYTES:
            names = "Connection, Upgrade, Sec-WebSocket-Extensions and Sec-WebSocket-Protocol"
            return Malformed(431, "size", f"{names} are longer than {MAX_WEBSOCKET_BYTES >> 10} KiB in all")
        return None


class HeadReader:
    """Gathers one request's head. `MAX_HEAD_BYTES` is the most it keeps, and one read of the socket beside it."""

    __slots__ = ("_gathered",)

    def __init__(self) -> None:
        self._gathered = bytearray()

    def receive(self, data: bytes) -> RequestHead | Malformed | None:
        """Take the next bytes; None: go on. After any other answer the reader is used up. Never raises."""
        gathered = self._gathered
        seen = len(gathered)
        gathered += data
        end = gathered.find(END, max(0, seen - len(END) + 1), MAX_HEAD_BYTES)
        if end < 0 and len(gathered) >= MAX_HEAD_BYTES:
            return _fault_of_size(gathered)  # whatever is in it: what is too long is not worth a look at every byte
        head = bytes(gathered if end < 0 else gathered[: end + len(END)])
        fault = _fault_of_bytes(head, seen)
        if fault is not None or end >= 0:
            return fault or _parse(head, bytes_behind=len(gathered) > len(head))
        return _fault_of_size(gathered)

    def receive_eof(self) -> Malformed | None:
        """Note that nothing more comes. None when nothing has come: a probe of the port, which expects no answer."""
        if not self._gathered:
            return None
        return Malformed(400, "line", "the request ended before its blank line")


def _fault_of_bytes(head: bytes, checked: int) -> Malformed | None:
    """Find what no complete head may have; everything before `checked` has been looked at."""
    if not _BEGINNING.match(head):
        if head.startswith(_TLS_HANDSHAKE[: len(head)]):
            return None if len(head) < len(_TLS_HANDSHAKE) else _TLS
        return Malformed(400, "line", "a request begins with its method, as in GET / HTTP/1.1")
    start = checked - head.endswith(b"\r", 0, checked)  # a CR that came last may have its LF now
    ends, last = head.count(b"\r\n", start), head.endswith(b"\r")
    # Counted, not searched with a pattern: that would take half a millisecond for the longest head.
    if head.count(b"\n", start) != ends or head.count(b"\r", start) - last != ends or head.find(b"\0", start) >= 0:
        return Malformed(400, "line", "lines end with CR LF, and neither of them nor NUL stands elsewhere")
    return None


_TLS = Malformed(
    400,
    "tls",
    "this port speaks plain HTTP and WebSocket, and the client began with TLS: use http:// or ws://, or give the relay "
    "a certificate with --tls-cert and --tls-key",
)


def _fault_of_size(gathered: bytearray) -> Malformed | None:
    first_line = gathered.find(b"\r\n")
    if first_line < 0 and len(gathered) > MAX_LINE_BYTES:
        return _LONG_TARGET
    if len(gathered) < MAX_HEAD_BYTES:
        return None
    return Malformed(431, "size", f"the headers are longer than {MAX_HEAD_BYTES >> 10} KiB in all")


_LONG_TARGET = Malformed(414, "size", f"the first line is longer than {MAX_LINE_BYTES >> 10} KiB")


def _parse(head: bytes, *, bytes_behind: bool) -> RequestHead | Malformed:
    first, *rows = head[: -len(END)].split(b"\r\n")
    if len(first) > MAX_LINE_BYTES:
        return _LONG_TARGET
    match = _FIRST_LINE.fullmatch(first)
    if match is None:
        return Malformed(400, "line", "the first line is not of the form METHOD TARGET HTTP/1.1")
    method, target, version = (part.decode("ascii") for part in match.groups())
    if version not in ("1.0", "1.1"):
        return Malformed(505, "version", "this port speaks HTTP/1.1, HTTP/1.0 and WebSocket")
    if len(rows) > MAX_FIELDS:
        return Malformed(431, "size", f"there are more than {MAX_FIELDS} headers")
    fields = []
    for row in rows:
        if len(row) > MAX_LINE_BYTES:
            return Malformed(431, "size", f"a header is longer than {MAX_LINE_BYTES >> 10} KiB")
        field = _FIELD.fullmatch(row)
        if field is None:
            return Malformed(
                400, "line", "a header is not of the form Name: value, on one line and without control characters"
            )
        fields.append((field[1].decode("ascii"), field[2].strip(b" \t").decode("iso-8859-1")))
    request = RequestHead(method, target, version, tuple(fields), bytes_behind)
    return _fault_of_target(request) or _fault_of_framing(request) or request


def _fault_of_target(request: RequestHead) -> Malformed | None:
    if request.target.startswith("/") or (request.target, request.method) == ("*", "OPTIONS"):
        return None
    return Malformed(400, "line", "the target is not a path that begins with /: this is no proxy")


def _fault_of_framing(request: RequestHead) -> Malformed | None:
    """Find a body that cannot be told from what follows, or that nobody would read."""
    lengths, codings = request.values("content-length"), request.values("transfer-encoding")
    if codings and (lengths or request.version == "1.0"):
        return Malformed(400, "framing", "Transfer-Encoding may stand neither beside Content-Length nor in HTTP/1.0")
    if codings and request.method in ALLOWED_METHODS.split(", "):
        return Malformed(501, "framing", "a body with Transfer-Encoding is not taken here")
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        return Malformed(400, "framing", "one Content-Length is allowed, and it is a plain number")
    if any(map(int, lengths)) and request.method in ALLOWED_METHODS.split(", "):
        return Malformed(400, "framing", f"{request.method} has no body here")
    return None  # any other method is refused whatever its body is
