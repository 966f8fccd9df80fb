"""Where frames end, the answer to a handshake, and what of the library is given back."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from logrelay.http.response import HttpResponse
from logrelay.viewers.websocket import (
    MAX_REQUEST_BYTES,
    answer_handshake,
    drop_compressors,
    frame_size,
    shares_window,
    whole_frames,
)
from tests.support.chaos.viewer import TEXT, mask


def test_where_frames_begin_and_end():
    """The last one is not complete."""
    assert list(whole_frames(b"\x81\x80aaaa" + b"\x81\x81aaaab" + b"\x81\x85aaaab")) == [(0, 6), (6, 13)]


def test_where_a_frame_ends():
    """Of one that is too long, the header is enough."""
    for size in (0, 125, 126, 65_535, MAX_REQUEST_BYTES):
        frame = bytearray(mask(TEXT, b"x" * size))
        assert frame_size(frame) == len(frame)
        assert frame_size(frame[:-1]) is None
        assert frame_size(frame + b"more") == len(frame)
    assert frame_size(bytearray(b"\x81")) is None
    assert frame_size(bytearray(mask(TEXT, b"x" * (MAX_REQUEST_BYTES + 1))[:10])) == 10


def handshake(**changes):
    fields = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return Request("/", Headers(fields))


def test_a_handshake_is_answered_with_the_subprotocol_and_a_protocol_that_is_past_it():
    protocol = answer_handshake(handshake(), "logrelay.v1.batch", compress=False)
    assert isinstance(protocol, ServerProtocol)
    answer = b"".join(protocol.data_to_send()).decode().lower()
    assert answer.startswith("http/1.1 101")
    assert "sec-websocket-protocol: logrelay.v1.batch" in answer
    protocol.receive_data(mask(TEXT, b"x" * 10))
    assert [event.data for event in protocol.events_received()] == [b"x" * 10]


def test_what_is_no_handshake_gets_an_answer_without_the_fields_of_a_connection():
    """Those are written where every answer gets them."""
    answer = answer_handshake(handshake(Sec_WebSocket_Version="12"), None, compress=False)
    assert isinstance(answer, HttpResponse)
    assert answer.status == 400
    assert not {name.lower() for name, _ in answer.headers} & {"connection", "content-length", "date"}


@pytest.mark.parametrize(
    ("offer", "compress", "shared"),
    [
        ("permessage-deflate", True, True),
        ("permessage-deflate; server_no_context_takeover", True, False),
        ("permessage-deflate; server_max_window_bits=10", True, False),
        ("permessage-deflate", False, False),
    ],
)
def test_only_who_keeps_a_whole_window_shares_it(offer, compress, shared):
    protocol = answer_handshake(handshake(Sec_WebSocket_Extensions=offer), None, compress=compress)
    assert shares_window(protocol) is shared
    drop_compressors(protocol)
    assert not any("encoder" in vars(extension) for extension in protocol.extensions)
