"""The TLS socket for two threads: a reader that waits keeps no writer waiting, and only one of them is in OpenSSL."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from logrelay.terminal.tls_socket import TlsSocket, for_two_threads
from tests.support.certificates import Authority
from tests.support.threads import join
from tests.support.waiting import DEADLINE_S, wait_for

MUCH = b"0123456789abcdef" * 100_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def pair(authority):
    """Return both ends of a connection. Both are for two threads: the standard one could lose bytes at either end."""
    server_context = for_two_threads(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    server_context.load_cert_chain(*map(str, authority.issue("one")))
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE_S)
    theirs.settimeout(DEADLINE_S)
    accepted = []
    thread = threading.Thread(target=lambda: accepted.append(server_context.wrap_socket(theirs, server_side=True)))
    thread.start()
    client = for_two_threads(authority.client()).wrap_socket(ours, server_hostname="localhost")
    join(thread)
    yield client, accepted[0]
    client.close()
    accepted[0].close()


def read(end, size):
    data = b""
    while len(data) < size:
        more = end.recv(1 << 16)
        assert more, "the other end has closed"
        data += more
    return data


def test_both_ways_at_once(pair, monkeypatch):
    """More than any buffer holds, on two threads; at no time are both inside."""
    client, server = pair
    assert isinstance(client, TlsSocket)
    client.settimeout(None)
    inside, most = [], []
    for name in ("read", "write"):
        real = getattr(client._sslobj, name)

        def counted(*arguments, real=real):
            inside.append(1)
            most.append(len(inside))
            try:
                return real(*arguments)
            finally:
                inside.pop()

        monkeypatch.setattr(client, "_sslobj", _With(client._sslobj, name, counted))
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(read(client, len(MUCH)))),
        threading.Thread(target=lambda: got.append(read(server, len(MUCH)))),
        threading.Thread(target=lambda: server.sendall(MUCH)),
    ]
    for thread in threads:
        thread.start()
    client.sendall(MUCH)
    for thread in threads:
        join(thread)
    assert got == [MUCH, MUCH]
    assert max(most) == 1


class _With:
    """An object with one method replaced; the others are its own."""

    def __init__(self, real, name, method):
        self._real, self._name, self._method = real, name, method

    def __getattr__(self, name):
        return self._method if name == self._name else getattr(self._real, name)


def test_a_reader_that_waits_keeps_no_writer_waiting(pair):
    """And it is woken by what comes, and by the end."""
    client, server = pair
    client.settimeout(None)
    got = []
    reader = threading.Thread(target=lambda: [got.append(client.recv(100)) for _ in range(2)])
    reader.start()
    client.sendall(b"question")
    assert read(server, 8) == b"question"
    server.sendall(b"answer")
    client.sendall(b"more")
    assert read(server, 4) == b"more"
    wait_for(lambda: got, "the answer")
    client.shutdown(socket.SHUT_RDWR)
    join(reader)
    assert got == [b"answer", b""]


def test_behind_the_end_nothing_is_read(pair):
    """Not even what has come before: it could only be shown as it is, encrypted."""
    client, server = pair
    server.sendall(b"answer")
    client.shutdown(socket.SHUT_RDWR)
    assert client.recv(100) == b""


def test_waiting_ends_with_the_time_that_is_given(pair):
    """As for any socket, for reading and for writing; time given before the handshake counts too."""
    client, _server = pair
    assert client._limit_s == DEADLINE_S
    client.settimeout(0.01)
    with pytest.raises(TimeoutError):
        client.recv(1)
    with pytest.raises(TimeoutError):
        client.sendall(MUCH)
