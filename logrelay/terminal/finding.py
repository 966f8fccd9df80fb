"""Where lines are read from when nobody says it: the running relay, else the journal's file.

Owns: the choice, and the words of what was chosen. It must not know what is asked of the source. Read
`terminal/history` next.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import orjson

from logrelay.config.settings import MEMORY, Config, connectable
from logrelay.errors import ConfigError, JournalError, NoRelayError
from logrelay.journal.read_only import ReadOnlyJournal
from logrelay.terminal.answer import refusal
from logrelay.terminal.journal_facts import FileSource
from logrelay.terminal.relay import Address, RelaySource, TlsDiffersError, parse_address

_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?")

Source: TypeAlias = RelaySource | FileSource
"""Either answers `get`, with the same answers."""


START_IT = "start the relay (logrelay serve)"
"""What to do where none answers."""

SAME_SETTINGS = "give this command the settings of the relay (LOGRELAY_TLS_CERT and LOGRELAY_TLS_KEY)"
"""What to do where one answers that was started with other settings."""


@dataclass(frozen=True, slots=True)
class Found:
    """A source, what of its URL was a filter, and what a person should know of the choice."""

    source: Source
    given: tuple[tuple[str, str], ...] = ()
    note: str = ""


def address_of(config: Config, token: str | None) -> Address:
    """Return where the relay of these settings is reached from this machine."""
    return Address(
        connectable(config.host), config.port, secure=config.tls_cert is not None, token=token,
        certificate=config.tls_cert,
    )  # fmt: skip


def with_remedy(error: NoRelayError) -> NoRelayError:
    """Return the error with what to do where nobody listens; as it is where its words say more."""
    refused = isinstance(error.__cause__, ConnectionRefusedError)
    return NoRelayError(f"{error}; {START_IT}, or name another address") if refused else error


def find(place: str | None, config: Config, journal: str, token: str | None, *, history: bool = False) -> Found:
    """Return where to read from. Raises ConfigError for a URL that is none, NoRelayError where there is nothing.

    `place` is a URL, a journal's file, or None: the relay of the settings, else the file `journal`. For `history` the
    file is preferred where it is that of the running relay: a walk over it can say how far it is, and costs the relay
    nothing.
    """
    if place is not None:
        if "://" in place:
            address, given = parse_address(place, token)
            named = RelaySource(address)
            try:
                named.require_relay(*named.health())
            except NoRelayError as error:
                raise with_remedy(error) from error.__cause__
            return Found(named, tuple(given))
        if _HOST_AND_PORT.fullmatch(place) and not Path(place).exists():
            raise ConfigError(f"there is no journal file {place}; did you mean ws://{place}?")
        if not Path(place).expanduser().is_file():
            raise JournalError(
                f"there is no journal file at {Path(place).expanduser()}; name one that is there, or a relay, such as "
                "ws://localhost:8765",
                retry=False,
            )
        return Found(FileSource(place))
    relay = RelaySource(address_of(config, token))
    readable = journal != MEMORY and Path(journal).expanduser().is_file()
    try:
        status, body = relay.health()
    except NoRelayError as error:
        if readable:
            return Found(FileSource(journal), note=f"{error}; reading its journal {journal}")
        if isinstance(error, TlsDiffersError):
            raise NoRelayError(f"{error}, or {SAME_SETTINGS}") from error
        none = "it would keep its journal in memory" if journal == MEMORY else f"there is no journal at {journal}"
        raise NoRelayError(f"{error}, and {none}; {START_IT}, or name a URL or a journal file") from error
    relay.require_relay(status, body)
    if status == 401 and token is None and readable:
        return Found(
            FileSource(journal),
            note=f"the relay at {relay.address.url} needs a token, and none is known (--token-file PATH or "
            f"LOGRELAY_TOKEN shows it one): reading the journal {journal}",
        )
    if status not in (200, 503):  # 503: it has trouble with its journal, and answers all the same
        raise refusal(status, body)
    if history and readable and _epoch_of(body) == _epoch_in(journal):
        return Found(FileSource(journal))
    return Found(relay)


def _epoch_of(healthz: bytes) -> object:
    """Return the epoch that a relay says it writes; None where it does not say it."""
    try:
        found = orjson.loads(healthz)
    except ValueError:
        return None
    return found.get("epoch") if isinstance(found, dict) else None


def _epoch_in(path: str) -> str:
    """Return the epoch that a file was written with last; empty where it cannot be read."""
    try:
        with closing(ReadOnlyJournal(path)) as journal:
            return journal.epochs.current
    except JournalError:
        return ""
