"""Which tokens can be guessed, and that no random one is called so."""

from __future__ import annotations

import random
import string

import pytest

from logrelay.access.tokens import token_text
from logrelay.config.weak_tokens import WELL_KNOWN, weakness


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("x", "has 1 characters"),
        ("fifteen-chars-x", "has 15 characters, fewer than 16"),
        ("a" * 40, "repeated"),
        ("q7Hx0bT2q7Hx0bT2", "repeated"),
        ("Abc1Abc1Abc1Abc1", "repeated"),
        ("1212121212122112", "fewer than 8 different"),
        ("correct-horse-battery-staple", "well-known"),
        ("my-secret-password-1", "well-known"),
        ("CHANGEME-changeme-1", "well-known"),
        ("xx-0123456789abcdef", "in the order"),
        ("zyxwvutsrqponmlk", "in the order"),
        ("qwertyuiop-9f3kd8", "in the order"),
    ],
)
def test_what_can_be_guessed(token, why):
    """The words say what is wrong with it."""
    assert why in weakness(token)


def test_every_well_known_word_is_found():
    """With some signs around it, too."""
    for word in WELL_KNOWN:
        assert weakness(f"{word}-17") is not None


def test_what_was_made_at_random_is_good():
    """Ours, and those of the commands that people know: secrets, openssl rand -hex, uuidgen, pwgen."""
    dice = random.Random(7)
    for _ in range(3000):
        made = [
            token_text(dice.randbytes(32)),
            dice.randbytes(16).hex(),
            "".join(dice.choices(string.ascii_letters + string.digits, k=16)),
        ]
        assert [token for token in made if weakness(token) is not None] == []
