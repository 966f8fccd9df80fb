"""Secrets that a sentence speaks of and then says: "Incorrect API key provided: ...", "my password is ...".

Owns: the words between the name and the value, and when what follows is taken for the value. It must not know what
a name means; it is told. `secret_rules` calls it for texts in which a name may be. Read `secret_shapes` next.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from .secret_names import Meaning, hides, is_expression, is_harmless, looks_like_password
from .secret_shapes import MARK

NAME_CHARS: Final = "abcdefghijklmnopqrstuvwxyz0123456789_.-"
"""What a name in free text is made of (lower case; the search runs on lowered text)."""

_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
"""Lowers ASCII only: `str.lower` changes the length of some other letters, and positions must stay."""

_NOUN: Final = re.compile(
    r"(?:key(?:[ _\-]?id|s)?|secrets?|tokens?|passwords?|passwd|passphrase|passcode|pwd|pin|totp|otp|code|"
    r"acc(?:oun)?t(?: (?:number|id|no\.?))?|iban|card(?: number)?|signature|session(?: id)?|"
    r"credentials?|cookie)(?=[ :=(])"
)
_TAIL: Final = re.compile(
    r"((?:[ ](?:is|was|are|be|now|provided|given|used|supplied|entered|received|set|to|as|in|use|you|your|the|here|"
    r"value|loaded|found|equals|new|old|current|number|id|string|changed|rotated|reset|updated)(?=[ :=(])){0,4}"
    r"(?:[ ](?:for|of|from|by|on|at)(?:[ ](?:user|account|exchange|the|broker))?[ ][\"']?[A-Za-z][\w.@\-]{0,31}[\"']?"
    r"(?:[ ](?:is|was|now|set|reset|changed|updated|to)){0,2})?)"
    r"([ ]{0,2}[:=][ ]{0,2}|[ ]{1,2}|[ ]?\()"
    r"(?=[^\s:=])"
)
"""What may stand between the name and the value; the second group is what parts them."""
_VALUE: Final = re.compile(r"(\\{0,3}[\"'`])([^\"'`\n\\]{1,512})\1|([^\s\"'`<>()\[\]{},;=]{1,256}={0,2})")
_REST: Final = re.compile(r"[^\s\"'`<>()\[\]{},;]*+")

_TELLING_SIGNS: Final = b"0123456789=:\"'`!@#$%^&*+?~"
_TELLING: Final = bytes(
    0x30 if c in _TELLING_SIGNS else 0x41 if 0x41 <= c <= 0x5A else 0x61 if 0x61 <= c <= 0x7A else 0x20
    for c in range(256)
)
"""Turns a digit or sign into `0`, a capital into `A` and a letter into `a`; see `_is_telling`."""
_LONG_WORD: Final = "a" * 24

_JUDGED: Final = 256
"""Characters of a value by which it is judged, the bound in the pattern above."""
_NAME_LENGTH: Final = 40
"""Characters before the noun that may belong to the name (`binance_api_`)."""
_TOLD: Final = frozenset(
    [
        "is",
        "was",
        "are",
        "be",
        "to",
        "now",
        "provided",
        "given",
        "used",
        "supplied",
        "entered",
        "received",
        "as",
        "equals",
    ]
)
"""Words behind which a sentence says the secret itself."""
_SHORTEST_TOLD: Final = 6
_SHORTEST_BARE: Final = 8
"""Characters of a secret directly behind its name; of a password six are enough."""


def lowered(text: str) -> str:
    """Return the text with the letters of ASCII lowered; every position stays what it is."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def scrub_sentences(text: str, meaning_in_text: Callable[[str, int, str], Meaning]) -> str:
    """Replace what sentences say to be secrets; `meaning_in_text(text, start, name)` tells what a name means there."""
    if not _is_telling(text):
        return text
    low = lowered(text)
    out: list[str] = []
    done = position = 0
    while (noun := _NOUN.search(low, position)) is not None:
        position = noun.end()
        if low[position] in ":=" and " " not in noun.group():
            continue  # a name and its value, which are judged already
        tail = _TAIL.match(low, position)
        if tail is None:
            continue
        said, separator = tail.groups()
        says = ":" in separator or "=" in separator
        if says and not said and " " not in noun.group():
            continue  # a name and its value, which are judged already
        value = _VALUE.match(text, tail.end())
        if value is None or text.startswith(MARK, tail.end()):
            continue
        group = 2 if value.group(2) is not None else 3
        shown = value.group(group).rstrip(".,;:!?")
        quoted = group == 2
        if not (says or quoted) and shown.isalpha() and shown.islower():
            continue  # a word of the sentence
        before = low[max(done, noun.start() - _NAME_LENGTH) : noun.start()]
        start = noun.start() - len(before) + len(before.rstrip(NAME_CHARS))
        meaning = meaning_in_text(text, start, text[start : noun.end()])
        if _is_said(meaning, noun.group(), said, shown, says=says, quoted=quoted):
            begin, end = value.start(group), value.start(group) + len(shown)
            rest = _REST.match(text, end) if len(shown) >= _JUDGED else None
            out += (text[done:begin], MARK)
            done = position = end if rest is None else rest.end()
    return "".join([*out, text[done:]]) if out else text


def _is_telling(text: str) -> bool:
    """Ask cheaply whether a sentence can say a secret: letters of one word are none.

    It needs a digit or a sign, a capital inside a word, or a very long word. A pattern takes ten times as long.
    """
    kinds = text.encode("latin-1", "replace").translate(_TELLING).decode("latin-1")
    return "0" in kinds or "aA" in kinds or _LONG_WORD in kinds.lower()


def _is_said(meaning: Meaning, noun: str, said: str, shown: str, *, says: bool, quoted: bool) -> bool:
    """Tell whether `shown` is taken for the value of `noun`; `says` is a colon or an equals sign before it."""
    if meaning is Meaning.NOTHING or is_harmless(shown):
        return False
    if meaning is not Meaning.SECRET:
        return hides(meaning, shown)
    if quoted or (says and (said or " " in noun)):
        return True
    told = not _TOLD.isdisjoint(said.split())
    enough = told or len(shown) >= (_SHORTEST_TOLD if "pass" in noun else _SHORTEST_BARE)
    return enough and looks_like_password(shown) and not is_expression(shown, noun)
