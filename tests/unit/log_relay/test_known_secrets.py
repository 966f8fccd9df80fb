"""Secrets that are known by value: which values of an environment count, and that each form of them is found."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from robo_trader.log_relay.known_secrets import LONGEST_KNOWN, KnownSecrets, from_environment
from robo_trader.log_relay.secret_shapes import MARK

ODD = "gull/a b+ü\"'\n~7"
"""A value that each way of writing it changes."""

FORMS = {
    "plain": ODD,
    "quoted": quote(ODD, safe=""),
    "quoted but for slashes": quote(ODD),
    "of a form": quote_plus(ODD),
    "quoted in lower case": "gull%2fa%20b%2b%c3%bc%22%27%0a~7",
    "json": json.dumps(ODD)[1:-1],
    "json with its letters": json.dumps(ODD, ensure_ascii=False)[1:-1],
    "repr": repr(ODD)[1:-1],
    "hexadecimal": ODD.encode().hex(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_replaced_whole(form):
    """Nothing of it is left, and what stands around it is."""
    assert KnownSecrets([ODD]).scrub(f"a {FORMS[form]} z") == f"a {MARK} z"


@pytest.mark.parametrize("urlsafe", [False, True])
@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("value", [">>>???tandem>>>???", ">>>???tandem>>>???x", ">>>???tandem>>>???xy"])
def test_base64_is_found_at_each_offset(value, offset, urlsafe):
    """All letters are replaced that the neighbours of the value cannot change."""
    low, high = (base64.b64encode(b * offset + value.encode() + b * 3).decode() for b in (b"\x00", b"\xff"))
    same = [at for at, (one, other) in enumerate(zip(low, high, strict=True)) if one == other and one != "="]
    text = low.replace("+", "-").replace("/", "_") if urlsafe else low
    shown = KnownSecrets([value]).scrub(text)
    assert shown == text[: same[0]] + MARK + text[same[-1] + 1 :]


def test_a_value_with_half_a_character_is_no_error():
    """The environment gives bytes that are no text as lone surrogates."""
    assert KnownSecrets(["gull-\udc80-tandem"]).scrub("a gull-%3F-tandem z") == f"a {MARK} z"
    assert KnownSecrets(["gull-\udc80-tandem"]).scrub(b"gull-?-tandem".hex()) == MARK


def test_a_value_inside_another_leaves_nothing_of_it():
    """The longest is looked for first, in each form."""
    known = KnownSecrets(["tandem gull", "tandem gull at sea", "tandem gull at"])
    assert known.scrub("tandem gull at sea") == MARK
    assert known.scrub("tandem%20gull%20at%20sea") == MARK
    assert known.scrub("tandem gull, tandem gull at, tandem%20gull") == f"{MARK}, {MARK}, {MARK}"


def test_of_a_long_value_the_beginning_is_looked_for():
    """A certificate need not be compared to its end."""
    value = "tandem-9" * LONGEST_KNOWN
    assert KnownSecrets([value]).scrub(value[:LONGEST_KNOWN] + " rest") == f"{MARK} rest"
    assert KnownSecrets([value]).scrub(value[: LONGEST_KNOWN - 1]) == value[: LONGEST_KNOWN - 1]


def test_a_text_without_a_value_is_the_same_object():
    """Also if nothing is known, whatever the text is like; that is false, and what knows something is true."""
    text = "nothing%20here \\ but /long/enough/letters"
    for known in (KnownSecrets([]), KnownSecrets(["tandem-gull"])):
        assert known.scrub(text) is text
        assert known.scrub("short") == "short"
    assert bool(KnownSecrets(["tandem-gull"])) is True
    assert bool(KnownSecrets(["short"])) is False


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("gull77", True),
        ("gull7", False),
        ("swordfis", True),
        ("swordfi", False),
        ("12345678", True),
        ("1234567", False),
        ("gull!!a", False),
    ],
)
def test_how_long_a_value_has_to_be(value, known):
    """Six characters with letters and digits, else eight."""
    assert bool(KnownSecrets([value])) is known


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("DB_PASSWORD", "tandem-gull", True),
        ("SYMBOL", "a1B2c3D4e5F6", False),
        ("MY_TOKEN", "swordfish7", True),
        ("my_token", "swordfish7", True),
        ("MY_TOKEN", "WETH-USDC", False),
        ("PASS", "swordfish7", True),
        ("MY_KEY", "swordfish7", True),
        ("SESSION", "swordfish7", False),
        ("SESSION", "a1B2c3D4e5F6", True),
        ("AUTH", "a1B2c3D4e5F6", True),
        ("KEY_ID", "a1B2c3D4e5F6", True),
        ("PASS", "tandem-gull", False),
        ("DB_PASSWORD", "/run/secrets/db", False),
        ("DB_PASSWORD", "~/secrets/db", False),
        ("DB_PASSWORD", "./secrets/db", False),
        ("DB_PASSWORD", "********", False),
    ],
)
def test_which_variables_hold_a_secret(name, value, known):
    """By what the name means, and for names that mean less by what the value looks like."""
    assert from_environment({name: value}) == [value] * known


def test_all_secrets_of_one_environment_are_found():
    """In the order of the variables, each as it stands and decoded; none replaces another."""
    assert from_environment(
        {
            "DB_PASSWORD": "tandem-gull",
            "ONE": "https://bot:a%2Fb%2Fc12345@db/x",
            "TWO": "https://q1w2e3r4%2Ft5y6@host/x",
            "THREE": "host=db password=sword%2Bfish9 user=somebody",
            "FOUR": "api_key=swordfish8",
        }
    ) == [
        "tandem-gull", "a%2Fb%2Fc12345", "a/b/c12345", "q1w2e3r4%2Ft5y6", "q1w2e3r4/t5y6",
        "sword%2Bfish9", "sword+fish9", "swordfish8",
    ]  # fmt: skip
