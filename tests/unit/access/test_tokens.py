"""Tokens: their text, their hashes, the way one is looked up, and what names, lifetimes and limits may be."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest

from logrelay.access import tokens
from logrelay.access.tokens import (
    MAX_LIFETIME_S,
    SETTING_NAME,
    Token,
    TokenSet,
    check_name,
    digest_of,
    make_token_set,
    parse_lifetime,
    parse_limit,
    token_text,
)
from logrelay.errors import ConfigError
from logrelay.fanout.filters import Limit

GOOD = "lr_good"


def test_a_token_is_43_characters_that_go_anywhere_behind_a_prefix():
    """Header, URL and the name of a subprotocol take them as they are."""
    assert token_text(bytes(range(32))) == "lr_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert token_text(b"\xff" * 32) == "lr_" + "_" * 42 + "8"


def test_only_the_hash_is_kept():
    """What is kept should not be the token."""
    token_set = make_token_set(GOOD)
    assert token_set.tokens == (Token(SETTING_NAME, sha256(GOOD.encode()).digest()),)
    assert GOOD not in repr(token_set)


@pytest.mark.parametrize("shown", [GOOD, "lr_wrong", "", "\udcff"])
def test_the_constant_time_comparison_decides_for_every_token(shown, monkeypatch):
    """Found or not, the last word has one comparison of two hashes: what is wrong or missing takes the same way."""
    asked = []

    def compare(one, other):
        asked.append((one, len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(tokens, "compare_digest", compare)
    found = make_token_set(GOOD).find(shown, 0.0)
    assert (found is not None) == (shown == GOOD)
    assert asked == [(digest_of(shown), 32)]
    monkeypatch.setattr(tokens, "compare_digest", lambda *_: False)
    assert make_token_set(GOOD).find(GOOD, 0.0) is None
    assert tokens.compare_digest is not hmac.compare_digest
    monkeypatch.undo()
    assert tokens.compare_digest is hmac.compare_digest


def test_a_token_is_good_until_its_time_is_over():
    """From the second on in which it expires nobody finds it."""
    short = Token("short", digest_of(GOOD), "1", expires_s=100)
    token_set = TokenSet((short,), needed=True)
    assert token_set.find(GOOD, 99.99) == short
    assert token_set.find(GOOD, 100.0) is None
    assert token_set.holds(short, 99.99)
    assert not token_set.holds(short, 100.0)
    assert not TokenSet().holds(short, 0.0)
    assert not token_set.holds(Token("short", digest_of(GOOD), "1", Limit(40), expires_s=100), 0.0), (
        "its limits changed"
    )


def test_a_ring_says_whether_a_token_is_needed():
    """Also where none is left that would be good."""
    assert make_token_set(None) == TokenSet((), needed=False)
    assert make_token_set(None, needed=True).needed
    assert make_token_set("x").needed
    assert make_token_set(None, [Token("a", digest_of("x"))]).needed


@pytest.mark.parametrize("name", ["phone", "P", "0", "my-phone_2.home", "a" * 64])
def test_names(name):
    """Anything that needs no quotes anywhere."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "ü", "a" * 65, "a\n", SETTING_NAME])
def test_names_that_are_none(name):
    """The name of the token of the settings belongs to it."""
    with pytest.raises(ConfigError, match="allowed: 1 to 64 letters"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("1m", 60), ("12h", 43_200), ("90d", 7_776_000), ("4w", 2_419_200)]
)
def test_lifetimes(text, seconds):
    """As people write them."""
    assert parse_lifetime(text) == seconds
    assert parse_lifetime("3650d") == MAX_LIFETIME_S


@pytest.mark.parametrize("text", ["", "90", "d", "59s", "0d", "-1d", "1.5d", "3651d", "1y", "9999999999d", "1d "])
def test_lifetimes_that_are_none(text):
    """The message should say what is allowed."""
    with pytest.raises(ConfigError, match="allowed: 1m to 3650d"):
        parse_lifetime(text)


def test_limits():
    """They are read like what a viewer asks for."""
    assert parse_limit(None, (), ()).nothing
    assert parse_limit("warn", ["b*", "a,c"], ["x.*"]) == Limit(30, ("x.*",), ("a", "b*", "c"))
    assert not parse_limit("INFO", (), ()).nothing


@pytest.mark.parametrize("given", [("loud", (), ()), (None, [""], ()), (None, (), [" , "]), (None, ["x" * 257], ())])
def test_limits_that_are_none(given):
    """An empty glob would be no limit at all, and so has to be refused."""
    with pytest.raises(ConfigError):
        parse_limit(*given)


@pytest.mark.parametrize("given", [(None, ["bad\udcff"], ()), (None, (), ["\ud800*"])])
def test_a_limit_that_is_no_text_is_refused(given):
    """Bytes of a command line that are no UTF-8: whoever has the token is told its limits, and got an error instead."""
    with pytest.raises(ConfigError, match="not valid UTF-8"):
        parse_limit(*given)
