"""What a refused peer is told, word for word: it is all that a person at the other end has to go on."""

from __future__ import annotations

import pytest

from logrelay.access.tokens import Token, digest_of, make_token_set
from logrelay.viewers.access_policy import BATCH, SHOWN_CHARS, AccessPolicy, Granted

OPEN, LOCKED = AccessPolicy(None), AccessPolicy("correct-horse")
NEEDED = (
    "a token is needed: as the header Authorization: Bearer <token>, as the WebSocket "
    "subprotocol bearer.<token>, or as ?token=<token>"
)
LONG = "x" * (SHOWN_CHARS + 1)
CUT = "'" + "x" * (SHOWN_CHARS - 3) + "...'"


def decide(policy, **changed):
    request = {
        "origin": (),
        "host_header": ("localhost:8765",),
        "authorization": (),
        "subprotocols": (),
        "query_token": (),
        "peer_is_loopback": True,
    }
    return policy.decide(**(request | changed))


@pytest.mark.parametrize(
    ("policy", "changed", "said"),
    [
        (OPEN, {"host_header": ()}, "one Host and at most one Origin, Authorization and token are allowed"),
        (OPEN, {"host_header": ("a b",)}, "Host 'a b' is not of the form name or name:port"),
        (OPEN, {"host_header": (LONG + " ",)}, f"Host {CUT} is not of the form name or name:port"),
        (
            OPEN,
            {"origin": ("http://evil.example",)},
            (
                "Origin 'http://evil.example' is not this relay's own page ('localhost:8765'); "
                "another one has to be listed in --allow-origins"
            ),
        ),
        (
            OPEN,
            {"origin": (LONG,), "host_header": (LONG,)},
            f"Origin {CUT} is not this relay's own page ({CUT}); another one has to be listed in --allow-origins",
        ),
        (OPEN, {"peer_is_loopback": False}, "this relay has no token, so only its own machine may connect"),
        (
            OPEN,
            {"host_header": (LONG,)},
            (
                f"Host {CUT} is a name this relay does not know, which is how DNS rebinding looks; "
                "use an IP address or localhost, list the name in --allow-hosts, or set a token"
            ),
        ),
        (LOCKED, {}, NEEDED),
        (LOCKED, {"authorization": ("Basic eve",)}, "Authorization is not of the form: Bearer <token>"),
        (LOCKED, {"query_token": ("wrong",)}, "the token is wrong, was revoked or has expired"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_do(policy, changed, said):
    """Each refusal has its own words, and repeats a bounded part of what was sent."""
    assert decide(policy, **changed).message == said


def test_the_name_of_the_batch_subprotocol_is_part_of_the_protocol():
    """Clients ask for it by this name."""
    assert BATCH == "logrelay.v1.batch"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://localhost", "localhost:443"),
        ("http://localhost", "localhost:80"),
        ("HTTPS://localhost", "localhost"),
        ("HTTP://localhost:8765", "localhost:8765"),
    ],
)
def test_the_scheme_of_an_origin_gives_its_port(origin, host):
    """In whatever case it is written."""
    assert decide(OPEN, origin=(origin,), host_header=(host,)) == Granted(None)


def test_an_address_in_brackets_is_one_to_its_end():
    """An IPv4 address inside IPv6 is no unknown name."""
    assert decide(OPEN, host_header=("[::ffff:10.1.2.3]:8765",)) == Granted(None)


def test_a_policy_knows_the_default_address_of_the_relay():
    """It is the one of `--host`."""
    assert AccessPolicy(None).host == "127.0.0.1"


def test_who_has_a_token_whose_time_is_over_is_told_so():
    """Its owner then makes a new one; for a stranger's guess the words stay those of any wrong token."""
    old = Token("phone", digest_of("lr_old"), expires_s=100)
    token_set = make_token_set(None, [old])

    def said(text: str, now_s: float) -> str | None:
        verdict = decide(LOCKED, token_set=token_set, now_s=now_s, query_token=(text,))
        return None if isinstance(verdict, Granted) else verdict.message

    assert said("lr_old", 99) is None
    assert said("lr_old", 100) == "the token has expired"
    assert said("lr_other", 100) == "the token is wrong, was revoked or has expired"
