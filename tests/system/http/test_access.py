"""A sample of the walked table (tests/unit/viewers/test_access_policy_table.py) at real relays."""

from __future__ import annotations

import pytest

from tests.system.http.test_malformed import UPGRADE, ask

TOKEN = "t" * 43


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
