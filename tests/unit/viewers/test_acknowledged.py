"""What the kernel says of bytes that were sent: with real sockets."""

from __future__ import annotations

import socket
import struct
import sys

import pytest

from logrelay.viewers.acknowledged import acknowledged_bytes
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it")


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        yield near, far


def test_what_the_other_end_has_is_acknowledged(pair):
    """Byte by byte, read or not; handshakes do not count."""
    _, far = pair
    assert acknowledged_bytes(far) == 0
    far.sendall(b"x" * 1000)
    wait_for(lambda: acknowledged_bytes(far) == 1000, "the bytes to arrive")


def test_what_has_no_room_at_the_other_end_is_not(pair):
    """Nor is it after the connection has been reset."""
    near, far = pair
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    far.setblocking(False)
    sent = 0
    while True:
        try:
            sent += far.send(b"x" * 100_000)
        except BlockingIOError:
            break
    wait_for(lambda: (acknowledged_bytes(far) or 0) > 0, "something to arrive")
    assert acknowledged_bytes(far) < sent
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    near.close()
    wait_for(lambda: far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, "the reset")

    assert 0 < acknowledged_bytes(far) < sent


def test_other_sockets_say_nothing():
    """A Unix socket, a closed one, none."""
    one, other = socket.socketpair()
    with one, other:
        assert acknowledged_bytes(one) is None
    closed = socket.socket()
    closed.close()
    assert acknowledged_bytes(closed) is None
    assert acknowledged_bytes(None) is None
