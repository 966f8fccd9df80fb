"""Which tokens can be guessed.

Owns: the rules by which a token that somebody chose is called weak. It must not know settings. Pure. Read
`config/loading` next: it refuses such a token where strangers can try it.
"""

from __future__ import annotations

GOOD_TOKEN_CHARS = 16
"""Some 90 random bits."""

MIN_DIFFERENT = 8
"""Different characters of a good one: of 16 random characters it has fewer once in ten million times."""

WELL_KNOWN = (
    "admin", "changeme", "correct-horse-battery-staple", "default", "letmein", "logrelay", "make-your-own", "password",
    "qwerty", "secret", "token", "your-own", "your-token",
)  # fmt: skip
"""What guessers try first, and what stands in documentations; ours, too."""

_ORDERED = ("0123456789" * 2, "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")
_IN_ORDER = 8
"""So many characters in the order of the keyboard, the alphabet or the digits were not made by chance."""


def weakness(token: str) -> str | None:
    """Return what is wrong with a token, in words that follow "it", or None."""
    low = token.lower()
    if len(token) < GOOD_TOKEN_CHARS:
        return f"has {len(token)} characters, fewer than {GOOD_TOKEN_CHARS}"
    # A whole that is found in its own double, ends cut off, is a part repeated.
    if low in (low + low)[1:-1]:
        return "is one part, repeated"
    if len(set(token)) < MIN_DIFFERENT:
        return f"has fewer than {MIN_DIFFERENT} different characters"
    rest = low
    for word in sorted(WELL_KNOWN, key=len, reverse=True):
        rest = rest.replace(word, "")
    if rest != low and len(rest) < GOOD_TOKEN_CHARS // 2:
        return "is made of well-known words"
    pieces = {low[at : at + _IN_ORDER] for at in range(len(low) - _IN_ORDER + 1)}
    if any(piece in row or piece in row[::-1] for piece in pieces for row in _ORDERED):
        return "has characters in the order of the alphabet or of a keyboard"
    return None
