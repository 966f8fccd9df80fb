"""A sample of the walked table (tests/unit/viewers/test_access_policy_table.py) at real relays."""

from __future__ import annotations

import itertools
import socket
import ssl

import pytest

from tests.support.certificates import Authority
from tests.support.waiting import DEADLINE_S
from tests.system.http.test_malformed import UPGRADE, ask

TOKEN = "V3sJm0t-Qz7w_1pLk9rXu8Yb2"


@pytest.mark.parametrize("upgrade", [False, True], ids=["http", "websocket"])
def test_a_proxy_on_this_machine_needs_a_token(start, upgrade):
    """Without one a request that shows a proxy is refused with the remedy; so is one of another site's page."""
    begin = UPGRADE[:-2] if upgrade else b"GET /logs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    welcome = 101 if upgrade else 200
    relay = start()
    locked = start(LOGRELAY_TOKEN=TOKEN, LOGRELAY_TRUSTED_PROXY="127.0.0.1")
    token = f"Authorization: Bearer {TOKEN}\r\n".encode()
    for row, status in {
        b"": welcome,
        b"Forwarded: for=203.0.113.7\r\n": 403,
        b"X-Forwarded-For: 127.0.0.1\r\n": 403,
        b"X-Real-IP: 127.0.0.1\r\n": 403,
        b"Via: 1.1 proxy\r\n": 403,
        b"Sec-Fetch-Site: cross-site\r\n": 403,
        b"Sec-Fetch-Site: same-origin\r\n": welcome,
    }.items():
        got, _, body = ask(relay.port, begin + row + b"\r\n")
        assert got == status, row
        if got == 403:
            assert b"token" in body
        assert ask(locked.port, begin + row + b"\r\n")[0] == 401
        assert ask(locked.port, begin + row + token + b"\r\n")[0] == welcome


def lan_address() -> str:
    """Return an address of this machine by which others reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return probe.getsockname()[0]


def status_of(address: str, port: int, tls: ssl.SSLContext | None, data: bytes) -> int:
    """Send a request and return the status of the answer."""
    with socket.create_connection((address, port), timeout=DEADLINE_S) as plain:
        client = plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost")
        with client:
            client.sendall(data)
            return int(client.recv(64).split()[1])


CREDENTIALS = {
    "none": (b"", b"", False),
    "bearer": (b"Authorization: Bearer %b\r\n" % TOKEN.encode(), b"", True),
    "subprotocol": (b"Sec-WebSocket-Protocol: logrelay.v1, bearer.%b\r\n" % TOKEN.encode(), b"", True),
    "url": (b"", b"&token=%b" % TOKEN.encode(), True),
    "wrong": (b"Authorization: Bearer wrong\r\n", b"", False),
}
"""Headers, what is added to the URL, and whether it is good."""


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("bind", ["127.0.0.1", "LAN", "::"])
def test_the_walked_table_at_real_relays(start, tmp_path, bind, encrypted):
    """Bind address x TLS x token x Origin x Host x proxy x credential, each with its outcome.

    Beyond loopback a relay has a token; what comes without one there is refused whoever it seems to be: an app, which
    sends an Origin, by a line that says why, anything else by 401.
    """
    host = lan_address() if bind == "LAN" else bind
    address = "::1" if bind == "::" and not encrypted else "127.0.0.1" if bind == "::" else host
    settings, tls, scheme = {}, None, "http"
    if encrypted:
        authority = Authority(tmp_path)
        cert, key = map(str, authority.issue("relay"))
        settings, tls, scheme = {"LOGRELAY_TLS_CERT": cert, "LOGRELAY_TLS_KEY": key}, authority.client(), "https"
    relays = [(start(LOGRELAY_HOST=host, LOGRELAY_TOKEN=TOKEN, **settings), True)]
    if bind == "127.0.0.1":
        relays.append((start(**settings), False))
    for relay, has_token in relays:
        own = f"[{address}]:{relay.port}" if ":" in address else f"{address}:{relay.port}"
        hosts = {own: True, f"localhost:{relay.port}": True, f"evil.example:{relay.port}": False}
        wrong = 0
        for name, known in hosts.items():
            for origin, proxy, credential in itertools.product(
                (None, f"{scheme}://{name}", "https://evil.example"),
                (b"", b"X-Forwarded-For: 10.1.1.1\r\n"),
                CREDENTIALS,
            ):
                headers, query, good = CREDENTIALS[credential]
                foreign = origin is not None and not origin.endswith(name)
                if credential == "wrong" and has_token and not foreign:
                    wrong += 1
                    if wrong > 2:
                        continue  # its answers come later and later
                rows = UPGRADE.replace(b"GET / ", b"GET /?tail=0%b " % query).replace(b"127.0.0.1", name.encode())
                rows = rows[:-2] + proxy + headers + (f"Origin: {origin}\r\n".encode() if origin else b"") + b"\r\n"
                if foreign:
                    expected = 403
                elif has_token:
                    expected = 101 if good or origin else 401
                else:
                    expected = 403 if proxy or not known else 101
                got = status_of(address, relay.port, tls, rows)
                assert got == expected, (name, origin, proxy, credential, has_token)
