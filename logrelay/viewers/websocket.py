"""The WebSocket protocol of one connection: the answer to a handshake, and where frames end in what was read.

Owns: how the `websockets` library is used without its I/O, what of it is never used and given back, and the longest
message of a viewer. It must not know the socket, or what messages say. Read `viewers/connection` next: it gives the
protocol what was read, and writes what that wants written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol

from logrelay.fanout.compression import WINDOW_BITS
from logrelay.http.response import HttpResponse

MAX_REQUEST_BYTES = 64 * 1024
"""A viewer's longest message."""

_CONNECTION_FIELDS = ("Connection", "Content-Length", "Date")
"""What the library writes into its refusals, and `viewers/plain_answer` into every answer."""

_OFFERED_COMPRESSION: list[Any] = [
    # The library only decompresses, without keeping a window per viewer; what goes out is made by `compression`.
    ServerPerMessageDeflateFactory(server_no_context_takeover=False, client_no_context_takeover=True)
]

_ANY_HEAD = b"GET / HTTP/1.1\r\n\r\n"
"""What the library's own reader is given to be past the head. It is not the one that was sent, because two readers of
the same bytes may disagree: ours has read it, and the library decides by what ours has found."""

_log = logging.getLogger("logrelay.websockets")
_log.addHandler(logging.NullHandler())
_log.propagate = False
_log.setLevel(logging.CRITICAL)


def answer_handshake(request: Request, subprotocol: str | None, *, compress: bool) -> ServerProtocol | HttpResponse:
    """Return the protocol, with its answer to be written, or the answer to a request that was no handshake after all.

    `compress`: compression is offered.
    """
    protocol = ServerProtocol(max_size=MAX_REQUEST_BYTES, logger=_log)
    if compress:
        protocol.available_extensions = _OFFERED_COMPRESSION
    protocol.receive_data(_ANY_HEAD)
    protocol.events_received()
    response = protocol.accept(request)
    if response.status_code != 101:
        fields = [pair for pair in response.headers.raw_items() if pair[0] not in _CONNECTION_FIELDS]
        return HttpResponse(response.status_code, tuple(fields), bytes(response.body))
    if subprotocol is not None:
        response.headers["Sec-WebSocket-Protocol"] = subprotocol
    protocol.send_response(response)
    return protocol


def shares_window(protocol: ServerProtocol) -> bool:
    """Tell whether the client keeps a whole window between messages; one that does not is served uncompressed."""
    return any(map(_shares_window, protocol.extensions))


def drop_compressors(protocol: ServerProtocol) -> None:
    """Give back what is never used: what goes out is made by `compression`. It would be 256 KiB per viewer."""
    for extension in protocol.extensions:
        vars(extension).pop("encoder", None)


def break_cycles(protocol: ServerProtocol) -> None:
    """Take apart a protocol that is over.

    It and its parser, a generator, refer to each other, and so do an error it has met and the frames of its traceback.
    The collector would find them late, since it seldom looks (`app.GC_THRESHOLD`), and keep what was read until then.
    """
    protocol.parser.close()
    vars(protocol).clear()


def whole_frames(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield where each of the complete frames begins and ends that `data` begins with."""
    at = 0
    while (size := frame_size(data, at)) is not None:
        yield at, at + size
        at += size


def frame_size(data: bytes | bytearray, at: int = 0) -> int | None:
    """Return the length of the frame that begins at `at` (RFC 6455 section 5.2); None: it is not complete.

    Of a frame that is longer than a request may be, the header is enough: the protocol refuses it.
    """
    there = len(data) - at
    if there < 2:
        return None
    size, head = data[at + 1] & 0x7F, 2
    if size >= 126:
        head = 4 if size == 126 else 10
        if there < head:
            return None
        size = int.from_bytes(data[at + 2 : at + head], "big")
    if size > MAX_REQUEST_BYTES:
        return there
    whole = head + (4 if data[at + 1] & 0x80 else 0) + size
    return whole if there >= whole else None


def _shares_window(extension: object) -> bool:
    return (
        isinstance(extension, PerMessageDeflate)
        and not extension.local_no_context_takeover
        and extension.local_max_window_bits == WINDOW_BITS
    )
