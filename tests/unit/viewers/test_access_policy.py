"""Who may come in: every rule of the access policy, on plain values."""

from __future__ import annotations

import pytest

from logrelay.access.tokens import Token, TokenSet, digest_of
from logrelay.viewers.access_policy import BATCH, REFUSALS, AccessPolicy, Granted, Refused

TOKEN = "correct-horse-battery-staple"


def decide(policy, **changed):
    request = {
        "origin": [],
        "host_header": ["127.0.0.1:8765"],
        "authorization": [],
        "subprotocols": [],
        "query_token": [],
        "peer_is_loopback": True,
    }
    answer = policy.decide(**(request | changed))
    if isinstance(answer, Refused):
        assert answer.code in REFUSALS
        assert answer.message
        assert (answer.status == 401) == (("WWW-Authenticate", "Bearer") in answer.headers)
    return answer


OPEN = AccessPolicy(None)
LOCKED = AccessPolicy(TOKEN, "0.0.0.0")


def code(answer):
    assert isinstance(answer, Refused), answer
    return answer.status, answer.code


def test_the_mobile_app_and_wscat_come_in():
    """A client on this machine, without Origin or with the one React Native makes up, should be admitted."""
    assert decide(OPEN) == Granted(None)
    assert decide(OPEN, host_header=["localhost:8765"], origin=["http://localhost:8765"]) == Granted(None)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8765",
        "a.localhost:8765",
        "127.0.0.1",
        "[::1]:8765",
        "192.168.1.9:8765",
        "10.0.0.1",
    ],
)
def test_without_a_token_addresses_and_localhost_are_good_hosts(host):
    """An IP literal cannot be rebound, and localhost is ours."""
    assert decide(OPEN, host_header=[host]) == Granted(None)


@pytest.mark.parametrize("host", ["evil.example:8765", "localhost.evil.example", "127.0.0.1.nip.io", "xlocalhost"])
def test_without_a_token_an_unknown_name_is_dns_rebinding(host):
    """A page whose name resolves to this machine has an Origin equal to Host: still refused."""
    answer = decide(OPEN, host_header=[host], origin=[f"http://{host}"])

    assert code(answer) == (403, "bad_host")
    assert "DNS rebinding" in answer.message


def test_names_the_operator_gave_are_known():
    """The name in --host and those in --allow-hosts should be admitted, whatever their case."""
    policy = AccessPolicy(None, "Box.lan", ("logs.Example",))

    assert decide(policy, host_header=["box.lan:8765"]) == Granted(None)
    assert decide(policy, host_header=["LOGS.example"]) == Granted(None)
    assert code(decide(policy, host_header=["other.example"])) == (403, "bad_host")


@pytest.mark.parametrize("policy", [OPEN, LOCKED])
@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://127.0.0.1:8765", "127.0.0.1:8765", True),
        ("http://LocalHost:8765", "localhost:8765", True),
        ("http://127.0.0.1", "127.0.0.1:80", True),
        ("http://127.0.0.1:80", "127.0.0.1", True),
        ("https://127.0.0.1", "127.0.0.1", True),
        ("https://[::1]:8765", "[::1]:8765", True),
        ("https://127.0.0.1", "127.0.0.1:80", False),
        ("http://127.0.0.1:3000", "127.0.0.1:8765", False),
        ("http://evil.example", "127.0.0.1:8765", False),
        ("http://127.0.0.1:8765.evil.example", "127.0.0.1:8765", False),
        ("http://evil@127.0.0.1:8765", "127.0.0.1:8765", False),
        ("http://127.0.0.1:8765/path", "127.0.0.1:8765", False),
        ("http://127.0.0.1:99999", "127.0.0.1:8765", False),
        ("file://127.0.0.1:8765", "127.0.0.1:8765", False),
        ("null", "127.0.0.1:8765", False),
        ("", "127.0.0.1:8765", False),
    ],
)
def test_a_page_may_connect_to_the_relay_that_served_it_only(policy, origin, host, same):
    """Origin should be absent or have the host and port of Host, with or without a token."""
    answer = decide(policy, origin=[origin], host_header=[host], query_token=[TOKEN])

    assert answer == Granted(None) if same else code(answer) == (403, "bad_origin")


def test_an_allowed_origin_may_connect():
    """An origin listed in --allow-origins should be admitted, exactly that one."""
    policy = AccessPolicy(None, allowed_origins=("http://localhost:8081",))

    assert decide(policy, origin=["http://LOCALHOST:8081"]) == Granted(None)
    assert code(decide(policy, origin=["https://localhost:8081"])) == (403, "bad_origin")


@pytest.mark.parametrize("host", ["", "a b", "[::1", "host:port", "host:0", "host:65536", "http://host", "a/b", "u@h"])
def test_a_host_that_is_none_is_refused(host):
    """What does not look like a host should not be compared with anything."""
    assert code(decide(LOCKED, host_header=[host], query_token=[TOKEN])) == (400, "bad_host")


@pytest.mark.parametrize(
    "changed",
    [
        {"host_header": []},
        {"host_header": ["127.0.0.1", "127.0.0.1"]},
        {"origin": ["http://127.0.0.1:8765"] * 2},
        {"authorization": [f"Bearer {TOKEN}"] * 2},
        {"query_token": [TOKEN, TOKEN]},
    ],
)
def test_what_may_stand_once_must_not_stand_twice(changed):
    """Two of a header mean that somebody in between reads another one than we do: refuse."""
    assert code(decide(LOCKED, **changed)) == (400, "bad_request")


@pytest.mark.parametrize(
    "shown",
    [
        {"authorization": [f"Bearer {TOKEN}"]},
        {"authorization": [f"bearer  {TOKEN} "]},
        {"subprotocols": [f"bearer.{TOKEN}"]},
        {"query_token": [TOKEN]},
        {"query_token": [TOKEN], "authorization": [f"Bearer {TOKEN}"]},
    ],
)
@pytest.mark.parametrize("loopback", [True, False])
def test_the_token_opens_in_each_of_its_three_places(shown, loopback):
    """Header, subprotocol and URL should each be enough, from anywhere, under any name."""
    assert isinstance(decide(LOCKED, host_header=["any.name:1"], peer_is_loopback=loopback, **shown), Granted)


def test_without_the_token_nobody_comes_in_not_even_from_loopback():
    """A reverse proxy on this machine should not let in everybody behind it."""
    answer = decide(LOCKED)

    assert code(answer) == (401, "no_token")
    assert TOKEN not in answer.message


@pytest.mark.parametrize(
    "shown",
    [
        {"authorization": ["Bearer wrong"]},
        {"authorization": ["Bearer "]},
        {"authorization": ["bearer"], "query_token": [TOKEN]},
        {"authorization": [f"Bearer {TOKEN}x"]},
        {"subprotocols": ["bearer."]},
        {"subprotocols": [f"bearer.{TOKEN.upper()}"]},
        {"query_token": [""]},
        {"query_token": [TOKEN[:-1]]},
        {"query_token": ["\udcff"]},
        {"query_token": [TOKEN], "authorization": ["Bearer wrong"]},
        {"query_token": ["wrong"], "subprotocols": [f"bearer.{TOKEN}"]},
    ],
)
def test_a_wrong_token_is_refused(shown):
    """Anything shown that is not the token should refuse, even beside the right one."""
    answer = decide(LOCKED, **shown)

    assert code(answer) == (401, "bad_token")
    assert TOKEN not in answer.message


@pytest.mark.parametrize("value", [TOKEN, f"Basic {TOKEN}", "Digest username=x", "Bearerish x"])
def test_another_scheme_is_no_token(value):
    """Alone it shows none; beside a good token it is between the client and a proxy, and beside a wrong one no help."""
    alone = decide(LOCKED, authorization=[value])
    assert code(alone) == (401, "no_token")
    assert alone.message == "Authorization is not of the form: Bearer <token>"
    for good in ({"query_token": [TOKEN]}, {"subprotocols": [f"bearer.{TOKEN}"]}):
        assert isinstance(decide(LOCKED, authorization=[value], **good), Granted)
    assert code(decide(LOCKED, authorization=[value], query_token=["wrong"])) == (401, "bad_token")


def test_few_of_many_tokens_are_looked_up():
    """A stranger can write two thousand into one header; looking them all up kept the loop for 25 ms."""
    looked_up = []

    class Counting:
        needed = True

        def find(self, text, _now_s):
            looked_up.append(text)

    names = [f"bearer.{number}" for number in range(1500)]
    assert code(decide(OPEN, token_set=Counting(), subprotocols=names)) == (401, "bad_token")
    assert looked_up == ["0", "1"]
    assert code(decide(LOCKED, subprotocols=[f"bearer.{TOKEN}"] * 3 + ["bearer.wrong"])) == (401, "bad_token")


def test_a_ring_decides_which_tokens_are_good():
    """Every place may hold any token of the set of tokens, one at a time; whose time is over is not good any more."""
    one, two = (Token(name, digest_of(f"{name}-token"), name, expires_s=100) for name in ("one", "two"))
    token_set = TokenSet((one, two), needed=True)

    def ask(now_s=99.9, **shown):
        return decide(OPEN, token_set=token_set, now_s=now_s, **shown)

    for token in (one, two):
        text = f"{token.name}-token"
        for shown in (
            {"authorization": [f"Bearer {text}"]},
            {"subprotocols": [f"bearer.{text}"]},
            {"query_token": [text]},
        ):
            assert ask(**shown).token == token
            assert code(ask(100.0, **shown)) == (401, "bad_token")
    same = ask(authorization=["Bearer one-token"], query_token=["one-token"])
    assert same.token == one
    both = ask(authorization=["Bearer one-token"], query_token=["two-token"])
    assert code(both) == (400, "bad_request")
    assert code(ask()) == (401, "no_token")
    assert code(decide(OPEN, token_set=TokenSet(needed=True), query_token=["one-token"])) == (401, "bad_token")
    assert decide(OPEN, token_set=TokenSet()).token is None


def test_without_a_token_other_machines_stay_out():
    """Without a token the relay should refuse a peer that is not on loopback, wherever it listens."""
    assert code(decide(OPEN, peer_is_loopback=False, host_header=["192.168.1.9:8765"])) == (403, "no_token")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        (["chat"], None),
        ([BATCH], BATCH),
        ([f"bearer.{TOKEN}"], f"bearer.{TOKEN}"),
        ([f"bearer.{TOKEN}", BATCH], BATCH),
        (["chat", BATCH], BATCH),
    ],
)
@pytest.mark.parametrize("policy", [OPEN, LOCKED])
def test_the_answered_subprotocol_is_one_that_was_offered(policy, offered, chosen):
    """Batch if offered, else the one that carried the token, else none, with or without a token."""
    assert decide(policy, subprotocols=offered, query_token=[TOKEN]) == Granted(chosen)


def test_a_long_header_is_not_repeated_in_full():
    """A refusal goes into a response and a log: it should stay short whatever was sent."""
    answer = decide(OPEN, host_header=["x" * 10_000])

    assert len(answer.message) < 400


def test_the_token_is_not_in_the_repr():
    """A policy that is written to a log should not show its token."""
    assert TOKEN not in repr(LOCKED)


@pytest.mark.parametrize("host", ["127.0.0.1", "::", "fe80::1%eth0", "a_name"])
def test_a_check_by_http_1_0_may_leave_host_out(host):
    """Out or empty, whatever the relay listens on; it is held to everything else, and no browser sends such."""
    policy = AccessPolicy(None, host)
    for headers in ([], [""]):
        assert decide(policy, host_header=headers, host_optional=True) == Granted(None)
        assert code(decide(policy, host_header=headers)) in ((400, "bad_request"), (400, "bad_host"))
        asked = {"host_header": headers, "host_optional": True}
        assert code(decide(policy, **asked, origin=["http://evil.example"]))[0] == 400
        assert code(decide(policy, **asked, peer_is_loopback=False)) == (403, "no_token")
        assert code(decide(policy, **asked, forwarded_by="Via")) == (403, "no_token")
        assert code(decide(LOCKED, **asked)) == (401, "no_token")
        assert isinstance(decide(LOCKED, **asked, authorization=[f"Bearer {TOKEN}"], peer_is_loopback=False), Granted)
    assert code(decide(policy, host_header=["evil.example"], host_optional=True)) == (403, "bad_host")
