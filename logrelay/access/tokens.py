"""What a token is, and whether one that was shown is good.

Owns: `Token`, `TokenSet`, which looks tokens up, and the rules for names, lifetimes and limits. It must not know
files, HTTP or who asks. No I/O; time and randomness are arguments. Read `access/token_file` next.

Only the SHA-256 of a token is kept. A slow hash for passwords would be of no use: a token has 256 random bits, so that
nobody finds it by trying, however quick the hash is; and a slow one would let strangers keep the relay busy.

The looking up tells nothing by its time: what is compared is the hash of what was shown, which nobody can steer towards
the hash of a token, and the last comparison is `compare_digest`, also where nothing was found.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from logrelay.errors import ConfigError, RequestError, quoted
from logrelay.fanout.filters import UNLIMITED, Limit, parse_filter

PREFIX = "lr_"
"""How our tokens begin, so that scanners for secrets, and our own redaction, know them."""

RANDOM_BYTES = 32
"""256 bits, beyond any guessing; 43 characters in base64."""

ID_BYTES = 8
"""What tells apart two tokens that had the same name one after the other."""

DIGEST_BYTES = 32
"""Of SHA-256."""

MAX_TOKENS = 256
"""Tokens in a file: one for each phone and script of a team, and a file that is read in a millisecond."""

SETTING_NAME = "LOGRELAY_TOKEN"
"""How the token of the settings is called where tokens are listed; no other can have this name."""

MIN_LIFETIME_S, MAX_LIFETIME_S = 60, 3650 * 86_400
"""What `--expires` may be: long enough to be typed in somewhere, and at most ten years."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LIFETIME = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NOBODY = bytes(DIGEST_BYTES)
"""Compared where nothing was found, so that the same is done for every token that is shown."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token as the relay knows it: by the hash of its text."""

    name: str
    digest: bytes
    """SHA-256 of the text."""
    id: str = ""
    """Random; empty for the token of the settings."""
    limit: Limit = UNLIMITED
    created_s: int = 0
    """Seconds since 1970; 0: not known."""
    expires_s: int | None = None
    """The same; None: never."""

    def has_expired(self, now_s: float) -> bool:
        """Tell whether its time is over."""
        return self.expires_s is not None and now_s >= self.expires_s


@dataclass(frozen=True, slots=True)
class TokenSet:
    """All tokens of a relay at one time."""

    tokens: tuple[Token, ...] = ()
    needed: bool = False
    """Whoever comes needs a token, even where there is none that would be good."""

    def find(self, shown: str, now_s: float) -> Token | None:
        """Return the token that was shown, or None when there is none or its time is over."""
        digest = digest_of(shown)
        found = {token.digest: token for token in self.tokens}.get(digest)
        same = compare_digest(digest, _NOBODY if found is None else found.digest)
        return found if same and found is not None and not found.has_expired(now_s) else None

    def has_expired(self, shown: str, now_s: float) -> bool:
        """Tell whether a token was shown whose time is over: to know, one must have it."""
        return self.find(shown, 0) is not None and self.find(shown, now_s) is None

    def holds(self, token: Token, now_s: float) -> bool:
        """Tell whether this very token is still good, with the same limits."""
        return token in self.tokens and not token.has_expired(now_s)


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of a token's text."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def make_token_set(text: str | None, tokens: Iterable[Token] = (), *, needed: bool = False) -> TokenSet:
    """Return the set of the token of the settings (None: there is none) and of others; `needed` also without any."""
    own = () if text is None else (Token(SETTING_NAME, digest_of(text)),)
    several = (*own, *tokens)
    return TokenSet(several, needed or bool(several))


def token_text(random: bytes) -> str:
    """Return the text of a new token made of `RANDOM_BYTES` random bytes."""
    return PREFIX + urlsafe_b64encode(random).rstrip(b"=").decode()


def check_name(name: str) -> str:
    """Return the name of a token to be. Raises ConfigError."""
    if not _NAME.fullmatch(name) or name == SETTING_NAME:
        raise ConfigError(
            f"{quoted(name)} cannot be the name of a token; allowed: 1 to 64 letters, digits and . _ -, the first a "
            f"letter or a digit, and not {SETTING_NAME}"
        )
    return name


def parse_lifetime(text: str) -> int:
    """Return the seconds of `90d`, `12h`, `30m` or `4w`. Raises ConfigError."""
    match = _LIFETIME.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not MIN_LIFETIME_S <= seconds <= MAX_LIFETIME_S:
        raise ConfigError(f"--expires is {quoted(text)}; allowed: 1m to 3650d, as a number with m, h, d or w")
    return seconds


def parse_limit(min_level: str | None, apps: Sequence[str], sources: Sequence[str]) -> Limit:
    """Return the limit in the words of the command line. Raises ConfigError."""
    for option, globs in (("--app", apps), ("--source", sources)):
        if any(not glob.strip(" ,") for glob in globs):
            raise ConfigError(f"{option} is empty; allowed: the name or a glob, such as 'scalper*'")
    given = {"app": apps, "source": sources, "level": () if min_level is None else (min_level,)}
    try:
        wanted = parse_filter(given)
    except RequestError as error:
        raise ConfigError(str(error)) from None
    return Limit(wanted.level, wanted.sources, wanted.apps)
