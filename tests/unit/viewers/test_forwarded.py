"""Whose request it is behind a proxy: a chain is believed hop by hop from our end, and no further."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.viewers.forwarded import MAX_HOPS, client_address, forwarding_header

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


def client(peer="127.0.0.1", forwarded=(), xff=(), trusted=TRUSTED):
    return client_address(peer, forwarded=list(forwarded), x_forwarded_for=list(xff), trusted=trusted)


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:5123", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:5123", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, fd00::1", "203.0.113.7"),
        ("203.0.113.7, nonsense", "127.0.0.1"),
        ("203.0.113.7, nonsense, 10.1.2.3", "10.1.2.3"),
        ("fe80::1%eth0", "127.0.0.1"),
        ("", "127.0.0.1"),
        (",", "127.0.0.1"),
    ],
)
def test_the_chain_is_walked_from_the_right(chain, found):
    """The first that is not trusted is the client; what it wrote itself, further left, does not count."""
    assert client(xff=[chain]) == found
    assert client(xff=chain.split(",")) == found, "several headers are one list"
    assert client("192.168.1.7", xff=[chain]) == "192.168.1.7", "a stranger is not believed"
    assert client(xff=[chain], trusted=()) == "127.0.0.1"
    assert client(None, xff=[chain]) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("for=203.0.113.7", "203.0.113.7"),
        ('For="[2001:db8::7]:4711";proto=https', "2001:db8::7"),
        ("by=10.0.0.1; for=203.0.113.7 ;host=x", "203.0.113.7"),
        ('for=198.51.100.1;host="a,for=1.2.3.4", for=203.0.113.7', "203.0.113.7"),
        ("for=203.0.113.7, for=10.1.1.1", "203.0.113.7"),
        ("for=unknown", "127.0.0.1"),
        ("for=_hidden, for=10.1.1.1", "10.1.1.1"),
        ("proto=https", "127.0.0.1"),
        ("xfor=203.0.113.7", "127.0.0.1"),
        ('for="203.0.113.7', "127.0.0.1"),
        ('for=198.51.100.1;x=", for="[2001:db8::7]"', "127.0.0.1"),
        ('for=198.51.100.1;x="\\, for="[2001:db8::7]"', "127.0.0.1"),
        ('for=198.51.100.1;x=", for=203.0.113.7', "127.0.0.1"),
        ('host=";for=198.51.100.1;";for=203.0.113.7', "203.0.113.7"),
        ('host="\\";for=198.51.100.1;";for=203.0.113.7', "203.0.113.7"),
    ],
)
def test_the_standard_header(value, found):
    """RFC 7239: parameters, quotes, and hops that hide themselves."""
    assert client(forwarded=[value]) == found


def test_two_headers_have_to_agree():
    """A proxy sets one of them and passes on what the client has made of the other."""
    assert client(forwarded=["for=203.0.113.7"], xff=["203.0.113.7"]) == "203.0.113.7"
    assert client(forwarded=["for=198.51.100.1"], xff=["203.0.113.7"]) == "127.0.0.1"


def test_a_header_is_read_in_one_pass():
    """It comes from a stranger, before any token. Each quote was tried up to the end: this took an hour."""
    assert client(forwarded=['"' + '\\"' * 500_000]) == "127.0.0.1"
    assert client(forwarded=['for="' + '\\"' * 500_000 + '"']) == "127.0.0.1"
    assert client(forwarded=[";" * 500_000 + "for=203.0.113.7"]) == "203.0.113.7"


@pytest.mark.parametrize("name", ["Forwarded", "via", "X-Real-IP", "X-Forwarded-For", "x-forwarded-proto"])
def test_a_proxy_shows_itself(name):
    """By any of these, in either case."""
    assert forwarding_header(["Host", name]) == name
    assert forwarding_header(["Host", "X-Forward", "Viaduct", "Origin"]) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=3), st.lists(st.text(max_size=30), max_size=3))
def test_no_header_raises_or_invents_an_address(forwarded, xff):
    """Whatever is written in them, the answer is an address that stands there, or the peer's."""
    found = client(forwarded=forwarded, xff=xff)
    assert found == "127.0.0.1" or isinstance(found, str)


def test_a_chain_has_an_end():
    """A client can claim two thousand trusted proxies; each would be looked at."""
    chain = ["203.0.113.9", *["10.0.0.1"] * (MAX_HOPS - 1)]
    for more, found in (([], "203.0.113.9"), (["10.0.0.1"], "10.0.0.1")):
        xff = ",".join(chain + more)
        trusted = ("10.0.0.0/8",)
        assert client_address("10.0.0.1", forwarded=[], x_forwarded_for=[xff], trusted=trusted) == found
