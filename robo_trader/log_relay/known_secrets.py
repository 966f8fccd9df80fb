"""Secrets that are known by value: what the environment holds, in every form in which a line may show it.

Owns: which variables hold secrets, and finding their values as they are, URL-encoded, escaped, in base64 and in
hexadecimal. It must not know how unknown secrets look. `secret_rules` asks here first. Read `secret_names` next.

With it a secret is found even where nothing names it, as in `login("bob", "...")`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, quote_plus, unquote

from .secret_names import Meaning, is_harmless, looks_like_password, looks_random, meaning_of, words_of
from .secret_shapes import MARK

SHORTEST_KNOWN: Final = 8
"""Characters a secret needs to be looked for by value: shorter ones ("prod", "1234") occur in any text."""
SHORTEST_MIXED: Final = 6
"""The same where letters and digits are mixed, as in a password inside a URL."""
LONGEST_KNOWN: Final = 4_096
"""Characters of the longest: what is longer is a file or a certificate, whose beginning is enough to find it."""

_ENCODED = re.compile(r"[A-Za-z0-9+/_\-]{12}|%[0-9A-Fa-f]{2}|\\")
"""What a text has that holds a value in another form."""
_USERINFO: Final = re.compile(r"://([^\s/:@\"'<>]{0,256})(?::([^\s\"'<>]{1,1024}))?@(?=[^\s/?#@]{1,256}(?:[/?#]|$))")
_PARAMETER: Final = re.compile(r"(?:^|[?&;\s])([\w.\-]{2,64})=([^&;\s\"']{1,1024})")


def from_environment(environ: Mapping[str, str]) -> list[str]:
    """Return the secrets among the values of an environment.

    These are the values of variables whose names can only mean a secret (TOKEN, PASSWORD, API_KEY ...), and the
    passwords inside URLs and connection strings of any variable (DATABASE_URL). No paths, no short values.
    """
    found: dict[str, None] = {}
    for name, value in environ.items():
        if _names_secret(name, value) and not value.startswith(("/", "~", "./")):
            found[value] = None
        if "://" in value:
            for user, password in _USERINFO.findall(value):
                if password:
                    found |= dict.fromkeys((password, unquote(password)))
                if looks_random(user):
                    found |= dict.fromkeys((user, unquote(user)))
        if "=" in value:
            for key, inside in _PARAMETER.findall(value):
                if meaning_of(words_of(key)) is Meaning.SECRET:
                    found |= dict.fromkeys((inside, unquote(inside)))
    return [value for value in found if _is_long_enough(value) and not is_harmless(value)]


class KnownSecrets:
    """Finds given values in text, in each of their forms. Immutable; one that knows nothing is false."""

    def __init__(self, values: Iterable[str]) -> None:
        """Take the secrets; those that are too short to be told from other text are left out."""
        plain = sorted({v[:LONGEST_KNOWN] for v in values if _is_long_enough(v)}, key=len, reverse=True)
        forms = sorted({form for v in plain for form in _forms(v)} - set(plain), key=len, reverse=True)
        self._plain = tuple(plain)
        self._forms = re.compile("|".join(map(re.escape, forms))) if forms else None
        self._all = re.compile("|".join(map(re.escape, plain))) if plain else None

    def __bool__(self) -> bool:
        return bool(self._plain)

    def scrub(self, text: str) -> str:
        """Return the text with every known value replaced; the same object if it holds none."""
        for value in self._plain:
            if value in text:
                text = self._all.sub(MARK, text) if self._all is not None else text
                break
        if self._forms is not None and _ENCODED.search(text) is not None and self._forms.search(text) is not None:
            text = self._forms.sub(MARK, text)
        return text


def _names_secret(name: str, value: str) -> bool:
    meaning = meaning_of(words_of(name))
    if meaning in (Meaning.OPAQUE, Meaning.KEY, Meaning.PASSWORD, Meaning.LOGIN):
        bare = name.upper().endswith(("TOKEN", "PASS", "KEY"))  # in an environment these are rarely assets or states
        return looks_random(value) or (bare and looks_like_password(value))
    return meaning is Meaning.SECRET


def _is_long_enough(value: str) -> bool:
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and looks_like_password(value)
    return len(value) >= (SHORTEST_MIXED if mixed else SHORTEST_KNOWN)


def _forms(value: str) -> Iterable[str]:
    """Return the forms in which a line may show the value."""
    raw = value.encode("utf-8", "replace")
    yield quote(value, safe="", errors="replace")
    yield quote(value, errors="replace")
    yield quote_plus(value, errors="replace")
    yield re.sub(r"%[0-9A-F]{2}", lambda m: m.group().lower(), quote(value, safe="", errors="replace"))
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield raw.hex()
    # In base64 a value looks different at each of three offsets (`user:password`); letters that also depend on what
    # stands before or behind it are left out.
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + raw)
        first, last = (offset * 8 + 5) // 6, (offset + len(raw)) * 8 // 6
        inner = text[first:last].decode()
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
