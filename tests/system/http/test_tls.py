"""TLS on a real relay: both ways of asking, a new certificate by SIGHUP, and what is refused."""

from __future__ import annotations

import json
import signal
import socket
from contextlib import closing
from http.client import HTTPSConnection

import pytest
from websockets.sync.client import connect

from tests.support.certificates import Authority
from tests.support.waiting import DEADLINE_S
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
    with connect(f"wss://localhost:{relay.port}/?tail=0", ssl=authority.client()) as viewer:
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
            assert json.loads(viewer.recv(DEADLINE_S))["message"] == f"line {step}"
        for step in range(2000):
            trader.log(f"more {step}", padding="x" * 500)
        for step in range(2000):
            assert json.loads(viewer.recv(DEADLINE_S))["message"] == f"more {step}"
    with socket.create_connection(("127.0.0.1", relay.port), timeout=DEADLINE_S) as plain:
        plain.sendall(GET)
        assert b"HTTP/1.1" not in plain.recv(100)


def test_sighup_does_not_end_a_relay_without_a_certificate(start):
    """A terminal that is closed, or a hook that is run for every service, is no reason to end."""
    relay = start()
    relay.process.send_signal(signal.SIGHUP)
    assert "no certificate" in relay.process.stderr.readline()
    assert ask(relay.port, GET)[0] == 200
