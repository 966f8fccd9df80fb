"""Level words and their ranks, and the words that other loggers use for them.

Owns: the five words of the wire protocol and how anything else maps to them. It must not know structlog or
logging. Read `foreign` next.
"""

from __future__ import annotations

RANKS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""The five words of docs/protocol.md with the numbers of Python's logging module."""

_ALIASES = {
    "warn": "warning", "exception": "error", "err": "error", "failure": "error", "fatal": "critical",
    "msg": "info", "trace": "debug", "notset": "debug",
}  # fmt: skip
"""Method names that structlog's loggers pass on under other names (26.1: `warn`, `msg` and friends)."""


def word(name: str) -> str | None:
    """Return the level word for a method or level name, None if it is none. `ainfo` is `info`."""
    name = name.lower()
    if name in RANKS:
        return name
    if name in _ALIASES:
        return _ALIASES[name]
    return word(name[1:]) if name[:1] == "a" else None


def word_for(rank: float) -> str:
    """Return the highest level word that is not above `rank`: 25 is info, 5 is debug."""
    found = "debug"
    for name, number in RANKS.items():
        if rank >= number:
            found = name
    return found
