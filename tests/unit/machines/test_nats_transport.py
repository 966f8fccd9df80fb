"""What a server says before it resets the connection is told, wherever the reset meets the client.

A small stand-in refuses at each point of the handshake and ends the connection with a reset (SO_LINGER 0), after which
a write or a read of the client fails; what it has said is then in a buffer, or still in the socket.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading

import pytest

from logrelay.config.nats_url import parse
from logrelay.machines import nats_link
from logrelay.machines.nats_link import NatsError, NatsRefusedError, NatsSettings
from tests.support.waiting import DEADLINE_S

pytest.importorskip("nats", reason="nats-py is not installed: pip install '.[nats]' in the checkout")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Have a server on a busy machine answered for as long as every test waits."""
    monkeypatch.setattr(nats_link, "CONNECT_TIMEOUT_S", DEADLINE_S)
    monkeypatch.setattr(nats_link, "REQUEST_TIMEOUT_S", DEADLINE_S)


INFO = b"INFO " + json.dumps({"server_id": "x", "version": "2.10.0", "max_payload": 1048576, "nonce": "n"}).encode()
REASONS = {
    "Authorization Violation": "does not know us",
    "maximum connections exceeded": "as many connections as it allows",
    "User Authentication Expired": "has expired or was revoked",
    "Secure Connection - TLS Required": "wants TLS",
}
POINTS = ("before INFO", "with INFO", "before CONNECT", "in CONNECT", "after CONNECT", "after PING")


class Refusing:
    """Takes connections one after the other; each is refused at a point, with or without a word."""

    def __init__(self, points, reason):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self.listening.getsockname()[1]}"
        self.points, self.reason = points, reason
        self.about_to_write, self.was_reset = threading.Semaphore(0), threading.Semaphore(0)
        self.taken = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join(DEADLINE_S)

    def _run(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            point = self.points[min(self.taken, len(self.points) - 1)]
            self.taken += 1
            with connection:
                connection.settimeout(DEADLINE_S)
                self._refuse(connection, point[0], speaks=point[1])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.was_reset.release()

    def _refuse(self, connection, point, *, speaks):
        said = f"-ERR '{self.reason}'\r\n".encode() if speaks else b""
        if point == "before INFO":
            connection.sendall(said)
            return
        if point == "with INFO":
            connection.sendall(INFO + b"\r\n" + said)
            return
        connection.sendall(INFO + b"\r\n")
        if point == "before CONNECT":  # the client has read INFO, and not looked at the socket again
            self.about_to_write.acquire(timeout=DEADLINE_S)
        elif point == "in CONNECT":
            connection.recv(1)
        else:
            wanted = b"PING\r\n" if point == "after PING" else b"}\r\n"
            read = b""
            while wanted not in read:
                read += connection.recv(4096)
        connection.sendall(said)


def refusal_of(server, point, monkeypatch):
    """Connect; returns the error. Whoever is asked for the secret waits until the server has reset the connection."""
    guard = nats_link._SecretGuard.__call__

    def guarded(self, secret):
        if secret and point == "before CONNECT" and server.taken == 1:
            server.about_to_write.release()
            assert server.was_reset.acquire(timeout=DEADLINE_S)
        return guard(self, secret)

    monkeypatch.setattr(nats_link._SecretGuard, "__call__", guarded)
    settings = NatsSettings((parse(server.url),), "LOGRELAY", user="ann", password="hunter3")
    with pytest.raises(NatsError) as refused:
        asyncio.run(nats_link.connect(settings, settings.servers[0], name="test", inbox="test"))
    assert "hunter3" not in str(refused.value)
    return refused.value


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("point", POINTS)
def test_a_reset_does_not_hide_the_reason(point, reason, monkeypatch):
    """Whatever the client was doing, it should know why, as a refusal."""
    with Refusing([(point, True)], reason) as server:
        error = refusal_of(server, point, monkeypatch)
    assert isinstance(error, NatsRefusedError), error
    assert REASONS[reason] in str(error)
    assert server.taken <= 2  # the client tries once more by itself when it has not seen the connection made


@pytest.mark.parametrize("point", POINTS)
def test_a_reset_without_a_word_is_not_believed_at_once(point, monkeypatch):
    """The reason may have been lost on the way: it should be asked for again, and be told then."""
    with Refusing([(point, False), ("after PING", True)], "Authorization Violation") as server:
        error = refusal_of(server, point, monkeypatch)
    assert isinstance(error, NatsRefusedError), error
    assert 2 <= server.taken <= 3


def test_a_server_that_never_says_why_is_told_after_a_few_attempts(monkeypatch):
    """It should be no refusal, which waits for a person: a server behind a proxy may be starting."""
    with Refusing([("in CONNECT", False)], "") as server:
        error = refusal_of(server, "in CONNECT", monkeypatch)
    assert not isinstance(error, NatsRefusedError)
    assert "nobody said why" in str(error)
    assert nats_link.MOST_ENDS <= server.taken <= 2 * nats_link.MOST_ENDS
