"""How a secret is recognised: by the name it stands under, by its shape, or because its value is known.

Owns: the words and patterns. It must not know events, structlog or where text comes from. Every pattern is
linear in the length of the text: repetitions are bounded, or are over a class that cannot match what follows.
`redaction` walks the values and asks here. Read `serializer` next.

When in doubt it redacts: an unknown name with a secret word in it (`token_for_prod`) is a secret. What keeps
ordinary fields readable is a list of last words that describe a secret without being one (`token_count`).
What bears no sign cannot be found: "my password is ..." in prose, or a secret as a bare argument, unless its
value is known (`from_environment`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

MARK = "[redacted]"
"""Stands where a secret stood."""

NAME_LENGTH = 128
"""Characters of a name that are judged; no field name is longer, and a longer one is cut there."""

SHORTEST_KNOWN = 8
"""Characters a secret needs to be looked for by value: shorter ones ("prod", "1234") occur in any text."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_STRONG = _set(
    "password passwords passwd passwds pwd passphrase passphrases passcode secret secrets token "
    "tokens apikey apikeys credential credentials creds jwt bearer mnemonic privatekey"
)
"""Words that name a secret wherever they stand in a name."""

_WEAK = _set(
    "authorization auth oauth cookie cookies session sessions pass pin otp totp cvv cvc signature "
    "csrf xsrf sessionid sid htpasswd"
)
"""Words that name a secret, but also other things: never looked for by value in the environment."""

_GLUED = tuple(_set("password passwd passphrase secret token apikey privatekey accesskey secretkey"))
"""Endings of words written in one (`dbpassword`, `accesstoken`)."""

_PAIRS = frozenset(
    [(word, "key") for word in _set(
        "api private access secret encryption signing signature ssh auth master license consumer client "
        "account shared storage app service deploy hmac aes rsa")]
    + [(word, "keys") for word in _set("api private access secret encryption signing ssh")]
    + [("seed", "phrase"), ("recovery", "phrase"), ("seed", "words"), ("key", "pem"), ("session", "id"),
       ("secret", "id"), ("access", "sign"), ("api", "sign"), ("wallet", "seed"), ("master", "seed")]
)  # fmt: skip
"""Two words that name a secret together; `key`, `id` and `phrase` alone are ordinary fields."""

_DESCRIBES = _set(
    "count counts used usage length len size max min limit limits rate rates remaining budget "
    "total name names type types kind id ids expiry expires expired expiration at age ttl "
    "lifetime valid invalid ok status state present missing set required enabled changed rotated "
    "file path url uri host endpoint scheme method policy provider algorithm version symbol "
    "address price decimals contract pair time date open opened close closed start started end "
    "ended day number no num index high low volume timeout duration error errors bucket manager "
    "handler class hours minutes seconds ms attempts retries failures ratio"
)
"""Last words that say something about a secret without being one: `token_count`, `session_open`."""

_ORDINARY = frozenset(
    [(part, word) for part in _set("trading market regular asian london us eu overnight pre post")
     for word in ("session", "sessions")]
    + [("public", "token"), ("first", "pass"), ("second", "pass"), ("max", "tokens"), ("base", "token"),
       ("quote", "token"), ("function", "signature")]
)  # fmt: skip
"""Pairs whose second word names no secret here: `trading_session` is a part of the day."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
"""The words of a name: snake_case, kebab-case, camelCase, dotted, SHOUTING; digits do not count."""

_STEM = (
    "(?:p(?:ass|wd|in|em|hrase)|se(?:cret|ss|ed)|s(?:ig|id)|to(?:ken|tp)|otp|a(?:pi|uth|cc)|key|c(?:ook|red|sr|v)|xsrf|"
    "jwt|bearer|mnem|words|htpass)"
)
"""How the words above begin, or occur in a word; written as a tree because it is tried at every letter."""

_TYPED = r":[ ]?(?:str|bytes|SecretStr|Optional\[str\])(?:[ ]?\|[ ]?None)?[ ]?="
_NAMED = (
    r"[\w.\-]{0,40}+(\\?[\"'])?\]?"
    rf"(?:[ \t]{{0,4}}(?:=>|:=|[=!]=|=|%3d|{_TYPED.lower()}|:(?!//))"
    r"|(,)[ \t]{0,4}(?=[bru]?\\?[\"'])|(>)|\((?=[bru]?\\?[\"'])|([ \t]{1,4})(?=[^\s=:]))"
)
"""What follows a stem up to the value. Besides `=` and `:` these are separators: `==` and `: str =` of a
source line in a traceback, the comma of a pair (`"x-api-key", "..."`), the `>` of XML, a call's `("`, and
the space behind an option."""

_NAME = "abcdefghijklmnopqrstuvwxyz0123456789_.-"
"""What a name in free text is made of (lower case; the search runs on lowered text)."""

_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
"""Lowers ASCII only: `str.lower` changes the length of some other letters, and positions must stay."""

_QUOTE = re.compile(r"\s{0,40}[bBrRuUfF]{0,2}(\"\"\"|'''|\\?[\"'])")
_UNTIL = {
    '"': re.compile(r'(?:[^"\\]|\\.)*+(?=")', re.DOTALL),
    "'": re.compile(r"(?:[^'\\]|\\.)*+(?=')", re.DOTALL),
}
_BARE = re.compile(r"[ \t]{0,8}((?:(?!</|[&,;][\w.\-]{1,40}[=:])\S)++)")
_LINE = re.compile(r"[ \t]{0,8}([^\r\n\"']++)")
_BRACKET = re.compile(r"\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|[\[\](){}]", re.DOTALL)
_CLOSERS = ",;)]}>\"'"

_WITH_SPACES = _set("authorization cookie cookies mnemonic passphrase phrase words")
"""Names whose unquoted values go to the end of the line."""

_HARMLESS = _set("none null nil true false undefined str bytes int bool any ... |") | {""}
"""Values that give nothing away: nothing, None, a type in a source line."""

_PEM = "[A-Z0-9 ]{0,32} PRIVATE KEY(?: BLOCK)?"
_SHAPES = (
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{12,128}",  # AWS access key ids
    r"\bgh[pousr]_[A-Za-z0-9]{16,255}|\bgithub_pat_\w{16,255}",  # GitHub
    r"\bgl(?:pat|dt|rt|cbt|ptt|agent|soat)-[\w\-.]{16,255}",  # GitLab
    r"\bxox[abceoprs](?:\.xox[a-z])?-[\w\-]{8,255}|\bxapp-[\w\-]{8,255}",  # Slack
    r"\b[spr]k_(?:live|test)_\w{8,255}|\bwhsec_[\w+/=]{16,255}",  # Stripe
    r"\bsk-[A-Za-z0-9_\-]{16,255}",  # OpenAI style, also sk-ant-, sk-proj-
    r"\beyJ[\w\-]{6,1024}+\.[\w\-]{6,65536}(?:\.[\w\-]{0,65536}){0,3}",  # JWT, also encrypted ones
    r"\bAIza[\w\-]{30,255}|\bya29\.[\w\-.]{20,255}|\bGOCSPX-[\w\-]{16,255}",  # Google
    r"\bSG\.[\w\-]{16,255}\.[\w\-]{16,255}",  # SendGrid
    r"\bnpm_[A-Za-z0-9]{30,255}|\bpypi-[\w\-]{32,255}|\bhf_[A-Za-z0-9]{30,255}|\bdop_v1_[a-f0-9]{32,255}",
    r"\bAGE-SECRET-KEY-1[0-9A-Z]{32,128}",
    r"(?<![\w:.])(?:bot)?\d{8,10}:[A-Za-z0-9_\-]{32,64}(?![\w\-])",  # Telegram bots, the usual alarm channel
    r"(?<=hooks\.slack\.com/services/)\S{8,255}",
    r"(?<=/api/webhooks/)\d{8,24}/[\w\-]{16,255}",  # Discord
    rf"-----BEGIN{_PEM}-----(?s:.*?)(?:-----END{_PEM}-----|\Z)",  # a torn one goes to the end
)
_SHAPE = re.compile("|".join(_SHAPES))
_SCHEME = re.compile(
    r"\b((?i:bearer|basic|digest|negotiate))([ \t]{1,4}|%20)"
    r"(?=[^\s\"',]{0,256}(?:[0-9=]|[a-z+/][A-Z])|[^\s\"',]{24})[A-Za-z0-9._~+/=\-]{6,65536}"
)
"""HTTP credentials. The look ahead keeps prose (`basic authentication`): a digit, `=`, mixed case, length."""
_URL = re.compile(r"(://[^\s/:@\"'<>]{0,128}:)(?!\d{1,5}(?:[/?#\s\"',)\]]|\Z))[^\s\"'<>]{1,256}@")
"""`scheme://user:password@`; a port is not a password."""

_SHORTEST_SHAPE = 13
"""Characters of the shortest secret with a shape (`xoxb-` and 8 more, `Basic Ym9iOg==`)."""

_RUN = re.compile(r"[\w\-.+/]{13}|earer[ %]|asic[ %]|EARER |ASIC ")
"""What every shape has: an unbroken run, or the HTTP scheme before a short one."""

_SIGHT = re.compile(
    r"eyJ|A(?:[KSB]IA|CCA|Iza|GE-S)|gh[pousr]_|github_pat_|gl[a-z]{2,5}-|xox|xapp-|[spr]k_|whsec_|sk-|ya29|"
    r"GOCSPX|SG\.|npm_|pypi-|hf_|dop_v1_|hooks\.slack|api/webhooks|\d{8}:|-----BEGIN|"
    r"earer|asic|EARER|ASIC|igest|IGEST|otiate|OTIATE"
)
"""How the shapes begin; the exact patterns are five times slower and run only where this found something."""


class Rules:
    """The rules with the owner's additions; immutable, shared by all threads.

    `keys` and `allow` are names, compared without case and punctuation (`X-Acme` is `x_acme`). `known` are
    secret values to find literally anywhere; those shorter than `SHORTEST_KNOWN` are ignored.
    """

    def __init__(self, *, keys: Iterable[str] = (), allow: Iterable[str] = (), known: Iterable[str] = ()) -> None:
        self._keys = frozenset(_words(key) for key in keys)
        self._allow = frozenset(_words(key) for key in allow)
        values = sorted({value for value in known if len(value) >= SHORTEST_KNOWN}, key=len, reverse=True)
        literal = "|".join(re.escape(value) for value in values)
        self._known = re.compile(literal) if literal else None
        extra = "|".join(sorted(re.escape(word) for words in self._keys for word in words))
        stems = f"(?:{_STEM}|{extra})" if extra else _STEM
        self._named = re.compile(stems + _NAMED).search

    def name(self, name: str) -> tuple[bool, bool]:
        """Say whether a key's name means a secret, and whether it is a plural (whose numbers are counts)."""
        words = _words(name[:NAME_LENGTH])
        if not words or words in self._allow:
            return False, False
        if words in self._keys:
            return True, False
        return _names_secret(words), words[-1].endswith("s") and not words[-1].endswith("ss")

    def may_hold(self, text: str) -> bool:
        """Ask the cheap question first: False means that `scrub` would find nothing."""
        if "=" in text or ":" in text or ">" in text or "--" in text or "'," in text or '",' in text:
            return True
        if "('" in text or '("' in text or "%3" in text:
            return True
        if self._known is not None and self._known.search(text) is not None:
            return True
        if len(text) < _SHORTEST_SHAPE or _RUN.search(text) is None:
            return False
        return _SIGHT.search(text) is not None

    def scrub(self, text: str) -> str:
        """Return `text` with every secret replaced by `MARK`; the same object if there is none."""
        new = text
        if self._known is not None:
            new = self._known.sub(MARK, new)
        if "://" in new:
            new = _URL.sub(rf"\1{MARK}@", new)
        new = self._scrub_named(new)
        if _SIGHT.search(new) is not None:
            new = _SHAPE.sub(MARK, new)
            new = _SCHEME.sub(rf"\1\2{MARK}", new)
        return text if new == text else new

    def _scrub_named(self, text: str) -> str:
        """Replace the values of `name=value`, `"name": "value"`, `--name value` and the like."""
        low = text.lower() if text.isascii() else text.translate(_LOWER)
        out: list[str] = []
        done = position = 0
        while (found := self._named(low, position)) is not None:
            stem, position = found.span()
            before = low[max(done, stem - NAME_LENGTH) : stem]
            start = stem - (len(before) - len(before.rstrip(_NAME)))
            name = text[start : position - len(low[start:position].lstrip(_NAME))]
            _quote, comma, tag, space = found.groups()
            if (
                (comma and not _quote)
                or (tag and not name.endswith("-") and text[start - 1 : start] != "<")
                or (space and not name.startswith("--"))
                or not self.name(name)[0]
            ):
                continue
            begin, end = _extent(text, position, name)
            if text[begin:end].strip(_CLOSERS + " *").lower() in _HARMLESS:
                continue
            out += (text[done:begin], MARK)
            done = position = end
        if not out:
            return text
        out.append(text[done:])
        return "".join(out)


def _extent(text: str, position: int, name: str) -> tuple[int, int]:
    """Say where the value that begins at `position` lies, without its quotes."""
    quoted = _QUOTE.match(text, position)
    if quoted is not None:
        quote, begin = quoted.group(1), quoted.end()
        if quote in _UNTIL:
            inside = _UNTIL[quote].match(text, begin)
            end = inside.end() if inside is not None else -1
        else:
            end = text.find(quote, begin)
        return begin, end if end >= 0 else len(text)
    if _words(name)[-1:] and _words(name)[-1] in _WITH_SPACES:
        line = _LINE.match(text, position)
        return line.span(1) if line is not None else (position, position)
    bare = _BARE.match(text, position)
    if bare is None:
        return position, position
    begin, end = bare.span(1)
    if text[begin] in "[({":
        depth = 0
        for part in _BRACKET.finditer(text, begin):
            sign = part.group()
            depth += 1 if sign in "[({" else -1 if sign in "])}" else 0
            if depth == 0:
                return begin, part.end()
        return begin, len(text)
    return begin, begin + len(text[begin:end].rstrip(_CLOSERS))


def from_environment(environ: Mapping[str, str]) -> list[str]:
    """Return the values of those variables whose names say that they hold a secret.

    Only names with a strong word (TOKEN, PASSWORD, API_KEY ...); no paths, and nothing shorter than
    `SHORTEST_KNOWN`. With them a secret is found even where nothing names it, as in `login("bob", "...")`.
    """
    found = []
    for name, value in environ.items():
        words = _words(name)
        strong = not _STRONG.isdisjoint(words) or not _PAIRS.isdisjoint(pairwise(words))
        long = len(value) >= SHORTEST_KNOWN and not value.startswith(("/", "~"))
        if strong and long and _names_secret(words):
            found.append(value)
    return found


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORDS.findall(name))


def _names_secret(words: tuple[str, ...]) -> bool:
    pairs = list(pairwise(words))
    if pairs and pairs[-1] in _PAIRS:
        return True
    if not _PAIRS.isdisjoint(pairs) and words[-1] not in _DESCRIBES - {"id", "ids"}:
        return True
    if not words or words[-1] in _DESCRIBES or (pairs and pairs[-1] in _ORDINARY):
        return False
    return any(word in _STRONG or word in _WEAK or word.endswith(_GLUED) for word in words)
