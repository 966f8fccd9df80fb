"""An answer to a request for lines, wherever it comes from.

Owns: `Answer`: its lines one by one, and what of them is an error. It must not know sockets or files. No I/O of its
own. Read `terminal/journal_facts` next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from logrelay.errors import ConfigError, JournalError, NoRelayError, RelayError

HEAD_HEADER = "logrelay-head"
"""The header that says how far the journal was looked at."""

ACCESS_HINT = (
    "give one with --token-file PATH, as LOGRELAY_TOKEN or in the URL (?token=...). Who may read the "
    "journal's file can name that instead of a URL"
)
"""What to do about a token that is missing or not known, for a command that takes a URL or a file."""

SHOWN_TO_LIMITED = {"status", "journal", "traders"}
"""What /healthz has in any case: whoever holds a token with limits is not told version and epoch."""

NOT_OF_A_RELAY = (404, 405, 501)
"""Statuses that no relay has for /healthz: no such page, no such method."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of an answer. Whoever does not read it to its end closes `chunks`."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]

    @property
    def head(self) -> str:
        """The id up to which the journal was looked at; empty where it is not said."""
        return next((value for name, value in self.headers.items() if name.lower() == HEAD_HEADER), "")

    def check(self, access_hint: str = ACCESS_HINT) -> None:
        """Raise the error that an answer other than 200 means: RelayError, with its text. See `refusal`."""
        if self.status != 200:
            raise refusal(self.status, b"".join(self.chunks), access_hint)

    def beginning(self, most_bytes: int, within_s: float) -> bytes:
        """Return the body, or what has come of it in time, some `most_bytes` at most: it may be anybody's."""
        body, give_up = b"", time.monotonic() + within_s
        for chunk in self.chunks:
            body += chunk
            if len(body) >= most_bytes or time.monotonic() >= give_up:
                break
        return body

    def rows(self) -> Iterator[bytes]:
        """Give the lines of the body, without their line breaks, as they come."""
        rest = b""
        for chunk in self.chunks:
            *whole, rest = (rest + chunk).split(b"\n")
            yield from filter(None, whole)
        if rest:
            yield rest

    def objects(self) -> Iterator[dict[str, object]]:
        """Give the objects of the body. Raises JournalError where one says that the journal could not be read on."""
        for row in self.rows():
            found = orjson.loads(row)
            if found.get("type") == "error" and found.get("code") == "journal":
                raise JournalError(str(found.get("message")))
            yield found


def relay_facts(healthz: bytes) -> dict[str, Any] | None:
    """Return what a relay says of itself at /healthz; None: this is no such answer, or one to a token with limits."""
    found = _object(healthz)
    return found if {"version", "epoch"} <= found.keys() else None


def is_anothers(status: int, healthz: bytes) -> bool:
    """Tell whether what answers at /healthz is no relay; one that lets nobody in, and a proxy's, are left open."""
    if status >= 400 and status not in NOT_OF_A_RELAY:
        return False
    return relay_facts(healthz) is None and not _object(healthz).keys() >= SHOWN_TO_LIMITED


def _object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that an answer is; an empty one: it is none."""
    try:
        found = orjson.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class NotLetInError(NoRelayError):
    """A relay answers, and lets nobody in without a good token."""


def refusal(status: int, body: bytes, access_hint: str = ACCESS_HINT) -> RelayError:
    """Return the error that a refused request means; `access_hint` says how the command is given a token."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = orjson.loads(body)
        text = str(found["message"]) if isinstance(found, dict) and "message" in found else text
    except (ValueError, KeyError):
        pass
    if status in (400, 404, 410):
        return ConfigError(text)
    if status == 401:
        return NotLetInError(f"{text}; {access_hint}")
    return NoRelayError(f"the relay refuses (HTTP {status}): {text}")
