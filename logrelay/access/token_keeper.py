"""The tokens of a running relay: read at the start, and again whenever their file has changed.

Owns: the set of tokens that is good now, the watch over the token file and over lifetimes, the notes of use and of
wrong tokens, and what the operator is told of all that. It must not know connections: `app` closes those whose token is
good no longer. Lives on the event loop; what it does there is a stat, and the reading of a small file that has changed.
Read `access/tokens` next.

A file that cannot be understood, or that is gone, lets nobody in: which tokens were revoked in it is not known. The
token of the settings does not depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Thread

from logrelay.access.token_file import read_tokens, signature
from logrelay.access.token_use import TokenUse, Use, latest_uses, read_uses, write_uses
from logrelay.access.tokens import SETTING_NAME, Token, TokenSet, make_token_set
from logrelay.access.wrong_tokens import WrongTokens
from logrelay.budgets import Allowance
from logrelay.errors import TokenFileError
from logrelay.model import ERROR, INFO, WARNING

LAST_WRITE_S = 0.5
"""How long the end of the relay waits for the last uses to be written."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look at the tokens has found."""

    changed: bool = False
    """Some tokens may be good no longer, or one is needed now: connections have to be looked through."""
    messages: list[tuple[int, str]] = field(default_factory=list)
    """Level ranks and words for the operator."""


class TokenKeeper:
    """Keeps the tokens of the file at `path` (None: there is none) and `setting`, the text of LOGRELAY_TOKEN, or None.

    `now` is the wall clock and `mono` the monotonic one, both in seconds. Raises TokenFileError for a file that is
    there and cannot be used.
    """

    def __init__(
        self,
        path: str | None,
        setting: str | None,
        *,
        now: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._setting = setting
        self.now = now
        self._mono = mono
        self.wrong = WrongTokens()
        self._signature = None if path is None else signature(path)
        tokens = None if path is None else read_tokens(path)
        self._seen = tokens is not None
        """There has been a file: from now on a token is needed, whatever becomes of it."""
        self.token_set = make_token_set(setting, tokens or (), needed=self._seen)
        """The tokens that are good now, but for those whose time is over."""
        self._changed = False
        """The tokens have been others since the last `check`, though they may be the same again: whoever came in by one
        that was there in between has to be looked at."""
        self._messages: list[tuple[int, str]] = []
        """What a look in between has found, for the next `check`."""
        self._looks = Allowance(mono())
        """For looks because of unknown tokens, some microseconds each: whoever guesses without pause causes fifty in a
        second, and whoever uses a token that was made a moment ago, meanwhile too, waits a fiftieth of one."""
        self._expired = self._expired_now()
        self._use = TokenUse({} if path is None or tokens is None else read_uses(path))
        self._writer: Thread | None = None
        self._write_error: str | None = None
        self._told_write_error = False

    # --- what requests report -------------------------------------------------------------------------------------

    def note_use(self, token: Token, address: str | None) -> None:
        """Note that a request with this token was granted."""
        self._use.note(token, self.now(), address)

    def note_wrong(self, address: str | None) -> float | None:
        """Note a wrong token; see `WrongTokens.note`."""
        return self.wrong.note(address, self._mono())

    def change_setting(self, setting: str | None) -> None:
        """Take another text of LOGRELAY_TOKEN; None: there is none any more. `check` tells what that has changed."""
        if setting != self._setting:
            self._setting = setting
            of_file = [token for token in self.token_set.tokens if token.name != SETTING_NAME]
            self._take(make_token_set(setting, of_file, needed=self._seen or self.token_set.needed))

    # --- the watch ------------------------------------------------------------------------------------------------

    def check(self, *, reload: bool = False) -> Findings:
        """Look whether the file or the time has changed anything; `reload`: read the file in any case."""
        messages, self._messages = self._messages, []
        wrong = self.wrong.take_message(self._mono())
        if wrong is not None:
            messages.append((WARNING, wrong))
        messages += self._look(reload=reload)
        changed, self._changed = self._changed, False
        expired = self._expired_now()
        newly = [token for token in self.token_set.tokens if token in expired - self._expired]
        messages += [(INFO, f"the token {token.name} has expired") for token in newly]
        self._expired = expired
        if self._write_error is not None and not self._told_write_error:
            self._told_write_error = True
            messages.append((WARNING, f"the last use of tokens cannot be written: {self._write_error}"))
        return Findings(changed or bool(newly), messages)

    def look_again(self) -> bool:
        """Look at the file because of a token that is not known: it may have been made a moment ago.

        Returns whether the tokens are others now. What there is to be told, and to be closed, is for the next `check`.
        """
        if self._looks.take(self._mono()):
            return False
        before = self.token_set
        self._messages += self._look()
        return self.token_set != before

    def _take(self, token_set: TokenSet) -> None:
        self._changed = self._changed or token_set != self.token_set
        self.token_set = token_set

    def _look(self, *, reload: bool = False) -> list[tuple[int, str]]:
        """Read the file if it has changed; return what is to be told of that."""
        if self._path is None:
            return []
        found = signature(self._path)
        if found == self._signature and not (reload and found is not None):
            return []
        self._signature = found
        return self._reload(self._path)

    def _expired_now(self) -> frozenset[Token]:
        now_s = self.now()
        return frozenset(token for token in self.token_set.tokens if token.has_expired(now_s))

    def _reload(self, path: str) -> list[tuple[int, str]]:
        """Read the file; return what is to be told of it."""
        before, seen = self.token_set, self._seen
        tokens: tuple[Token, ...] | None = ()
        trouble: list[tuple[int, str]] = []
        try:
            tokens = read_tokens(path)
        except TokenFileError as error:
            trouble = [(ERROR, str(error))]
        self._seen = seen or tokens is not None
        self._take(make_token_set(self._setting, tokens or (), needed=self._seen))
        if tokens is None and seen:
            gone = f"the token file {path} is gone: no token of it is taken any more. "
            trouble = [(WARNING, gone + "Put it back, or restart the relay if none is wanted")]
        return trouble or [(INFO, text) for text in _differences(before, self.token_set)]

    # --- uses -----------------------------------------------------------------------------------------------------

    def write_uses(self, *, at_once: bool = False) -> None:
        """Have the uses written by a thread of its own, if there are new ones and the last ones are old enough.

        A disk that hangs keeps that thread only, and the process does not wait for it at its end.
        """
        if self._path is None or not self._seen or (self._writer is not None and self._writer.is_alive()):
            return
        known_ids = {token.id for token in self.token_set.tokens}
        uses = self._use.take(known_ids, self._mono(), at_once=at_once)
        if uses is not None:
            self._writer = Thread(target=self._write, args=(self._path, uses, known_ids), name="token-use", daemon=True)
            self._writer.start()

    def _write(self, path: str, uses: Mapping[str, Use], known_ids: set[str]) -> None:
        """Write them together with what another relay with the same file has noted meanwhile."""
        noted = {id_: use for id_, use in read_uses(path).items() if id_ in known_ids}
        try:
            write_uses(path, latest_uses(noted, uses))
        except OSError as error:
            self._write_error = error.strerror or str(error)

    def close(self) -> None:
        """Write the last uses; blocks for `LAST_WRITE_S` at most."""
        self.write_uses(at_once=True)
        if self._writer is not None:
            self._writer.join(LAST_WRITE_S)


def _differences(before: TokenSet, after: TokenSet) -> list[str]:
    """Say which tokens came and went, by their names."""
    old, new = ({token.name for token in token_set.tokens} for token_set in (before, after))
    texts = [f"the token {name} was added" for name in sorted(new - old)]
    return texts + [f"the token {name} was revoked" for name in sorted(old - new)]
