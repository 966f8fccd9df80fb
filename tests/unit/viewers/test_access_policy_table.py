"""The walked table: who asks x token x Origin x Host x proxy x Sec-Fetch-Site x credential, each cell with its outcome.

The outcome is worked out here a second time, in the words of docs/security.md, and compared with the policy.
Where the relay listens is in who can ask: a Unix socket or loopback on 127.0.0.1 and ::1, all of them on 0.0.0.0 and
[::]. TLS changes none of these rules; tests/system/http tries a sample of the cells at real relays.
"""

from __future__ import annotations

import itertools

import pytest

from logrelay.viewers.access_policy import AccessPolicy, Refused

TOKEN = "correct-horse-battery-staple"
PEERS = {"unix": True, "127.0.0.1": True, "::1": True, "192.168.1.7": False, "2001:db8::7": False}
ORIGINS = {
    "none": [],
    "own": ["http://127.0.0.1:8765"],
    "listed": ["http://localhost:8081"],
    "foreign": ["http://evil.example"],
    "null": ["null"],
    "two": ["http://127.0.0.1:8765"] * 2,
}
HOSTS = {
    "address": ["127.0.0.1:8765"],
    "localhost": ["localhost:8765"],
    "listed": ["relay.lan:8765"],
    "foreign": ["evil.example:8765"],
    "malformed": ["a b"],
    "none": [],
}
PROXIES = (None, "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via")
SITES = ([], ["same-origin"], ["none"], ["cross-site"])
CREDENTIALS = {
    "none": {},
    "bearer": {"authorization": [f"Bearer {TOKEN}"]},
    "subprotocol": {"subprotocols": [f"bearer.{TOKEN}"]},
    "url": {"query_token": [TOKEN]},
    "wrong bearer": {"authorization": ["Bearer wrong"]},
    "wrong url": {"query_token": ["wrong"]},
    "right and wrong": {"authorization": [f"Bearer {TOKEN}"], "query_token": ["wrong"]},
}
GOOD_CREDENTIALS = ("bearer", "subprotocol", "url")


def expected(local, token, origin, host, proxy, site, credential):
    """Return the status, 200 for whoever comes in."""
    if origin == "two" or host in ("malformed", "none"):
        return 400
    own_origin = HOSTS[host] == ["127.0.0.1:8765"]
    if origin in ("foreign", "null") or (origin == "own" and not own_origin):
        return 403
    if token:
        return 200 if credential in GOOD_CREDENTIALS else 401
    foreign_page = site == ["cross-site"] and origin != "listed"
    return 403 if not local or proxy or foreign_page or host == "foreign" else 200


@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "token"])
@pytest.mark.parametrize("peer", PEERS)
def test_every_cell(peer, token):
    """Five peers with and without a token; for each of the ten every combination of the rest."""
    policy = AccessPolicy(token, "0.0.0.0", ("relay.lan",), ("http://localhost:8081",))
    cells = 0
    for origin, host, proxy, site, credential in itertools.product(ORIGINS, HOSTS, PROXIES, SITES, CREDENTIALS):
        given = {"authorization": [], "subprotocols": [], "query_token": []} | CREDENTIALS[credential]
        answer = policy.decide(
            origin=ORIGINS[origin],
            host_header=HOSTS[host],
            peer_is_loopback=PEERS[peer],
            forwarded_by=proxy,
            fetch_site=site,
            **given,
        )
        status = answer.status if isinstance(answer, Refused) else 200
        wanted = expected(PEERS[peer], token, origin, host, proxy, site, credential)
        assert status == wanted, (peer, token, origin, host, proxy, site, credential, answer)
        cells += 1
    assert cells == 6 * 6 * 6 * 4 * 7
