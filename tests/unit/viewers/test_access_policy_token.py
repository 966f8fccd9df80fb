"""The token is compared in constant time: how long a refusal takes says nothing about how much of it was right."""

from __future__ import annotations

import hmac

import pytest

from logrelay.viewers import access_policy
from logrelay.viewers.access_policy import AccessPolicy, Granted, Refused

TOKEN = "correct-horse"


def decide(**shown):
    request = {
        "origin": (),
        "host_header": ("relay:8080",),
        "authorization": (),
        "subprotocols": (),
        "query_token": (),
        "peer_is_loopback": False,
    }
    return AccessPolicy(TOKEN).decide(**(request | shown))


WAYS = {
    "header": lambda token: {"authorization": (f"Bearer {token}",)},
    "subprotocol": lambda token: {"subprotocols": (f"bearer.{token}",)},
    "query": lambda token: {"query_token": (token,)},
}


@pytest.mark.parametrize("way", WAYS)
def test_only_the_constant_time_comparison_decides(way, monkeypatch):
    """Whatever it says is the answer, for a right token as for a wrong one: nothing else looks at the token."""
    asked = []

    def compare(one, other, answer):
        asked.append({one, other})
        return answer

    for shown in (TOKEN, "wrong-horse"):
        for answer in (True, False):
            monkeypatch.setattr(access_policy, "compare_digest", lambda a, b, answer=answer: compare(a, b, answer))
            asked.clear()
            decision = decide(**WAYS[way](shown))
            assert type(decision) is (Granted if answer else Refused)
            assert asked == [{shown.encode(), TOKEN.encode()}]


def test_the_comparison_is_the_one_of_the_standard_library():
    """`hmac.compare_digest` is the one that promises constant time."""
    assert access_policy.compare_digest is hmac.compare_digest
