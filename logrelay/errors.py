"""Every error the relay raises on purpose, in one tree.

Owns: the exceptions, the process exit code of each, and how their texts repeat what a peer sent. It must not know any
other module of the package. Read `model` next.

    RelayError                  something the operator can act on; `exit_code` is the process's
    +-- ConfigError             an option, environment variable or config key is wrong          (2)
        +-- TokenFileError      the token file is damaged, not private, or cannot be written    (2)
    +-- ListenError             a socket cannot be listened on: port in use, path refused       (3)
    +-- JournalError            the journal cannot be used as it is                             (4)
        +-- JournalRefused      not ours, newer than us, or held by another relay               (4)
    +-- NoRelayError            nobody takes the lines of `logrelay send`                       (5)
    +-- NotAckedError           a relay has taken lines, and has not acked them in time         (6)
    +-- NeedsLookError          `logrelay status` has found something that somebody has to look at      (7)
    +-- RequestError            a viewer asked for something that is not there; has a `code`
"""

from __future__ import annotations

import re

QUOTED_CHARS = 40
"""How much of what a peer sent an error message repeats, where nothing else is said: enough to recognise it."""


class RelayError(Exception):
    """Something went wrong that a person can act on. The text says what, what was allowed, what to do."""

    exit_code = 1


class ConfigError(RelayError):
    """A setting is wrong. Nothing has been opened yet."""

    exit_code = 2


class TokenFileError(ConfigError):
    """The file of the tokens cannot be used. Nobody is let in by it, and trying again does not help."""


class ListenError(RelayError):
    """A socket cannot be listened on."""

    exit_code = 3


class JournalError(RelayError):
    """The journal failed. `retry` says whether trying the same again later can help."""

    exit_code = 4

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


class JournalRefused(JournalError):  # noqa: N818  (it was refused: a decision, not an accident)
    """The file at the journal's path must not be touched: foreign, newer, or in use by another relay."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry=False)


class NoRelayError(RelayError):
    """No relay takes lines: nobody listens, or it refuses."""

    exit_code = 5


class NotAckedError(RelayError):
    """A relay answers, but has not acked lines in time: they may or may not come into the journal."""

    exit_code = 6


class NeedsLookError(RelayError):
    """Everything was asked and answered, and something is not as it should be."""

    exit_code = 7


class RequestError(RelayError):
    """A viewer's request cannot be met. `code` is one of the codes in docs/protocol.md."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


_TOKEN_SHOWN = re.compile(r"(token=|bearer[. ]\s*|\blr_)[^\s&,;'\"]+", re.IGNORECASE)
"""Where a token begins in what somebody sent: as in a URL, in a header or subprotocol, and one that we have made."""


def quoted(text: str, limit: int = QUOTED_CHARS) -> str:
    """Return what a peer sent as an error message repeats it: in quotes, escaped, and at most `limit` characters.

    Without what may be a token: one that was put in a wrong place would be in messages that people pass on.
    """
    text = _TOKEN_SHOWN.sub(r"\1...", text)
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
