"""TLS on a real relay: both ways of asking, a new certificate by SIGHUP, and what is refused."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from logrelay.terminal.tls_socket import for_two_threads
from tests.support.certificates import Authority
from tests.support.chaos.relay import Relay as HeldRelay
from tests.support.threads import join
from tests.support.waiting import DEADLINE_S, wait_for
from tests.system.http.test_malformed import GET, ask


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def served(relay, authority) -> str:
    """Return the name in the certificate of a new connection."""
    with (
        socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as plain,
        authority.client().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return dict(pair[0] for pair in secure.getpeercert()["subject"])["commonName"]


def next_line(viewer) -> str:
    """Return the message of the next line of a trader."""
    while True:
        message = json.loads(viewer.recv(DEADLINE_S))
        if "notice" not in message["context"]:
            return message["message"]


def test_a_relay_with_a_certificate(start, authority):
    """https and wss are answered; SIGHUP changes the certificate, drops nobody and survives a bad one."""
    cert, key = authority.issue("first")
    relay = start(LOGRELAY_TLS_CERT=str(cert), LOGRELAY_TLS_KEY=str(key), LOGRELAY_COMPRESSION="on")
    trader = relay.trader()
    trader.log("connected")
    trader.wait()  # so that no notice of its connection is still to come
    with closing(HTTPSConnection("localhost", relay.port, timeout=DEADLINE_S, context=authority.client())) as client:
        client.request("GET", "/healthz")
        answer = client.getresponse()
        assert (answer.status, json.loads(answer.read())["status"]) == (200, "ok")
    with connect(f"wss://localhost:{relay.port}/?tail=0", ssl=for_two_threads(authority.client())) as viewer:
        assert json.loads(viewer.recv(DEADLINE_S))["encrypted"] is True
        for step, (name, said) in enumerate(
            {"second": "have been read again, and the certificate", "bad": "stays: the TLS cert"}.items()
        ):
            if name == "bad":
                cert.write_text("no certificate")
            else:
                for new, old in zip(authority.issue(name), (cert, key), strict=True):
                    old.write_bytes(new.read_bytes())
            relay.process.send_signal(signal.SIGHUP)
            assert said in relay.process.stderr.readline()
            assert served(relay, authority) == "second"
            trader.log(f"line {step}")
            assert next_line(viewer) == f"line {step}"
        for step in range(2000):
            trader.log(f"more {step}", padding="x" * 500)
        for step in range(2000):
            assert next_line(viewer) == f"more {step}"
    with socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as plain:
        plain.sendall(GET)
        assert b"HTTP/1.1" not in plain.recv(100)


class DroppingProxy:
    """Carries bytes between clients and the relay, until it drops what it carries without a word."""

    def __init__(self, port: int) -> None:
        self._relay = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._relay))
            self._ends += [near, far]
            for pair in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._carry, args=pair))
                self._threads[-1].start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                target.sendall(data)

    def drop(self) -> None:
        """Reset every connection on both sides; what is on the way is lost."""
        ends, self._ends = self._ends, []
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for end in ends:
            end.close()

    def end(self) -> None:
        """Drop all, and accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            join(thread)


def test_a_device_goes_on_over_tls_where_it_was_dropped(start, authority):
    """Through somebody who drops connections nothing is missing; what was not yet answered for may come again."""
    cert, key = map(str, authority.issue("relay"))
    relay = start(LOGRELAY_TLS_CERT=cert, LOGRELAY_TLS_KEY=key)
    trader = relay.trader()
    proxy = DroppingProxy(relay.port)
    seen: list[list[int]] = []
    sent = 0
    try:
        for _ in range(6):
            for _ in range(40):
                trader.log("line", n=sent)
                sent += 1
            # Pings are answered while it reads, as by every client.
            with connect(
                f"wss://localhost:{proxy.port}/?device=phone", ssl=for_two_threads(authority.client())
            ) as viewer:
                seen.append([])
                while not seen[-1] or seen[-1][-1] < sent - 1:
                    message = json.loads(viewer.recv(DEADLINE_S))
                    if message["type"] == "log" and message["message"] == "line":
                        seen[-1].append(message["context"]["n"])
                trader.log("line", n=sent)  # it may be on the way, or read and not answered for
                sent += 1
                proxy.drop()
                # What the client had received, and answered pings behind, is the viewer's, though the link is gone.
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        message = json.loads(viewer.recv(DEADLINE_S))
                        if message["type"] == "log" and message["message"] == "line":
                            seen[-1].append(message["context"]["n"])
    finally:
        proxy.end()
    read = [n for numbers in seen for n in numbers]
    assert sorted(set(read)) == list(range(sent - 1)) or sorted(set(read)) == list(range(sent))
    assert all(numbers == list(range(numbers[0], numbers[-1] + 1)) for numbers in seen), "in order, without a hole"
    assert all(later[0] <= earlier[-1] + 1 for earlier, later in itertools.pairwise(seen)), "nothing is left out"


def test_sighup_does_not_end_a_relay_without_a_certificate(start):
    """A terminal that is closed, or a hook that is run for every service, is no reason to end."""
    relay = start()
    relay.process.send_signal(signal.SIGHUP)
    assert "no certificate" in relay.process.stderr.readline()
    assert ask(relay.port, GET)[0] == 200


def test_an_expired_certificate_is_told_of_until_it_is_renewed(start, authority):
    """The relay serves with it, its clients refuse; SIGHUP with a good one lets them in."""
    cert, key = authority.issue("old", days=-1)
    relay = start(LOGRELAY_TLS_CERT=str(cert), LOGRELAY_TLS_KEY=str(key))
    assert "has expired" in relay.said[0]
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        served(relay, authority)
    for new, old in zip(authority.issue("new"), (cert, key), strict=True):
        old.write_bytes(new.read_bytes())
    relay.process.send_signal(signal.SIGHUP)
    assert "have been read again" in relay.process.stderr.readline()
    assert served(relay, authority) == "new"


def test_a_long_answer_goes_on_with_the_certificate_it_began_with(start, authority):
    """A new one is taken by new connections; a reader of /logs gets every line."""
    cert, key = authority.issue("first")
    relay = start(LOGRELAY_TLS_CERT=str(cert), LOGRELAY_TLS_KEY=str(key))
    trader = relay.trader()
    for number in range(300):
        trader.log(f"line {number}", padding="x" * 20_000)
    trader.wait()
    client = HTTPSConnection("localhost", relay.port, timeout=DEADLINE_S, context=authority.client())
    with closing(client):
        client.request("GET", "/logs?limit=1000&source=robo_trader.*")
        answer = client.getresponse()
        read = [answer.readline()]
        for new, old in zip(authority.issue("second"), (cert, key), strict=True):
            old.write_bytes(new.read_bytes())
        relay.process.send_signal(signal.SIGHUP)
        assert "have been read again" in relay.process.stderr.readline()
        assert served(relay, authority) == "second"
        read += answer.readlines()
    lines = [json.loads(row)["message"] for row in read]
    assert [text for text in lines if text.startswith("line")] == [f"line {number}" for number in range(300)]


def test_a_socket_that_systemd_holds_speaks_tls_as_well(tmp_path, authority):
    """What the units do: the socket comes from outside, the certificate from the settings."""
    cert, key = authority.issue("held")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = HeldRelay(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key))
        relay.held, relay.port = listener, listener.getsockname()[1]
        try:
            relay.start()
            assert served(relay, authority) == "held"
        finally:
            relay.end()


def test_two_relays_share_a_token_file(start, authority, tmp_path):
    """One with TLS, one without; a token is added and revoked for both, and both write its last use."""
    path = tmp_path / "tokens.json"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
    environ |= {"LOGRELAY_TOKENS": str(path), "LOGRELAY_JOURNAL": ":memory:"}

    def command(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "logrelay", "token", *arguments],
            cwd=Path(__file__).resolve().parents[3], env=environ, capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    tokens = [command("add", name) for name in ("phone", "script")]
    cert, key = map(str, authority.issue("relay"))
    relays = [start(LOGRELAY_TOKENS=str(path), LOGRELAY_TLS_CERT=cert, LOGRELAY_TLS_KEY=key)]
    relays += [start(LOGRELAY_TOKENS=str(path))]

    def ask_with(relay, token):
        request = GET[:-2] + f"Authorization: Bearer {token}\r\n\r\n".encode()
        if relay is relays[1]:
            return ask(relay.port, request)[0]
        with (
            socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as plain,
            authority.client().wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(request)
            return int(secure.recv(64).split()[1])

    assert [ask_with(relay, token) for relay in relays for token in tokens] == [200] * 4
    command("revoke", "phone")
    for relay in relays:
        wait_for(lambda relay=relay: ask_with(relay, tokens[0]) == 401, "the token is revoked")
        assert ask_with(relay, tokens[1]) == 200
        relay.process.send_signal(signal.SIGTERM)
        with relay.process.stderr:
            assert relay.process.wait(DEADLINE_S) == 0
    assert "127.0.0.1" in command("list")
