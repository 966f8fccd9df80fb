"""The rules of the redaction applied to text: names with their values, sentences, URLs, command lines, shapes.

Owns: finding in free text what is a name and how far its value goes. It must not know events, structlog or where text
comes from. Every pattern is linear in the length of the text: repetitions are bounded, or are over a class that
cannot match what follows. `redaction` walks the values and asks here. Read `known_secrets` next.

What bears no sign cannot be found: "swordfish" in a sentence that does not speak of a password, or a short secret as a
bare argument, unless its value is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .known_secrets import SHORTEST_KNOWN, KnownSecrets, from_environment
from .secret_names import (
    NAME_LENGTH,
    Meaning,
    describes,
    hides,
    is_expression,
    is_harmless,
    is_plural,
    is_source_file,
    looks_like_password,
    looks_random,
    meaning_of,
    phrase_meaning,
    words_of,
)
from .secret_sentences import NAME_CHARS, lowered, scrub_sentences
from .secret_shapes import MARK, scrub_shapes, scrub_token, words_of_text

__all__ = ["MARK", "SHORTEST_KNOWN", "Rules", "from_environment"]

_STEMS: Final = (
    "p(?:ass|w(?:d|(?![a-z]))|in(?![a-z])|em(?![a-z])|hrase|riv|k(?![a-z])|an(?![a-z]))|se(?:cret|ss|ed|ckey)|s(?:ig|id(?![a-z])|k(?![a-z]))|"
    "to(?:ken|tp)|otp|a(?:uth|cc)|key|c(?:ook|red|srf|v[vc]|ard)|xsrf|jwt|bearer|mnem|words|htpass|iban|xprv|mfa|sms|code"
)
"""How the words of `secret_names` begin, or occur in a word; written as a tree because it is tried at every letter."""
_PERSONAL_STEMS: Final = "mail|phone|mobile|name|user|dob|birth|ssn|passport|street|zip|post|addr|ip(?![a-z])"

_TYPED: Final = r":[ ]?(?:str|bytes|secretstr|optional\[str\])(?:[ ]?\|[ ]?none)?[ ]?="
_NAMED: Final = (
    r"[\w.\-]{0,40}+(\\{0,3}[\"'])?\]?"
    rf"(?:[ \t]{{0,4}}(?:=>|->|:=|[=!]=|=|%3d|{_TYPED}|:(?!//))"
    r"|(,)[ \t\n]{0,4}(?=[bru]?\\{0,3}[\"'])|(>)|\((?=[bru]?\\{0,3}[\"'])|([ \t]{1,4})(?=[^\s=:]))"
)
"""What follows a stem up to the value. Besides `=` and `:` these are separators: `==` and `: str =` of a source line in
a traceback, the comma of a pair (`"x-api-key", "..."`), the `>` of XML, a call's `("`, the space behind an option."""

_REMEMBERED: Final = 4_096
"""Names whose meaning is remembered; then all are forgotten. A bot has a few hundred."""
_SILENT_LENGTH: Final = 512
"""Characters of a text whose words are remembered to name no secret. When `_REMEMBERED` words are, no more are taken:
a bot's own words come first, and made-up ones are not worth a place."""
_WORD_LENGTH: Final = 20
"""Characters before a name in which the word before it lies."""
_REMEMBERED_LENGTH: Final = 64
"""Characters of the longest name worth remembering."""

_NAME: Final = re.compile(r"[\w.\-]*")
_QUOTE: Final = re.compile(r"\s{0,40}[bBrRuUfF]{0,2}(\"\"\"|'''|\\{0,3}[\"'])")
_UNTIL: Final = {
    '"': re.compile(r'(?:[^"\\]|\\.)*+(?=")', re.DOTALL),
    "'": re.compile(r"(?:[^'\\]|\\.)*+(?=')", re.DOTALL),
}
_BARE: Final = re.compile(r"[ \t]{0,8}((?:(?!</|[&,;][\w.\-]{1,40}[=:])\S)++)")
_ANGLE: Final = re.compile(r"[ \t]{0,8}(<[^<>\s]{0,128}(?: [a-z]{1,16}){0,3}>)(?=[\s,;)\]}\"']|\Z)")
"""A value in angle brackets (`<not set>`); with text behind them they are a tag of XML, whose value comes later.
The `repr` of an object has a number at its end and is none."""
_CONNECTION: Final = re.compile(r"[^\s;=&,\"'<>()\[\]{}][^;=&\r\n\"']{0,127}(?=;)")
"""A value of a connection string goes to the next semicolon and may have spaces."""
_NEXT_LINE: Final = re.compile(r"[ \t]{0,8}\r?\n[ \t]{0,8}([^\s:=\"']{6,256})(?=[ \t]{0,8}(?:[\r\n]|\Z))")
"""A value that is all of the line below its name."""
_COUNT_DIGITS: Final = 3
"""Digits of a number that counts what a plural names: `cookies: 3`."""
_LINE: Final = re.compile(r"[ \t]{0,8}([^\r\n\"']++)")
_FIRST: Final = re.compile(r"[ \t]{0,8}([^\s,;&\"'()\[\]{}<>=\\]+={0,2})")
_LIST: Final = re.compile(r"[ \t]{0,8}[\[(]([^\])]*)")
_PARTS: Final = re.compile(r"[^\s,;&\"'()\[\]{}<>]{6,128}")
_BRACKET: Final = re.compile(r"\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|[\[\](){}]", re.DOTALL)
_CLOSERS: Final = ",;)]}>\"'"
_VALUE_KEY: Final = re.compile(r"\\{0,3}[\"'](?:val(?:ue)?|secret|content)\\{0,3}[\"']\s{0,4}:")
_JSON_KEY: Final = re.compile(r"\\{0,3}[\"'][\w.\-]{1,64}\\{0,3}[\"']\s{0,4}:")

_JUDGED: Final = 256
"""Characters of a value by which it is judged: a secret that is longer is one from its beginning."""
_JUDGED_LIST: Final = 512
"""The same for a list, any of whose items may be one."""

_WITH_SPACES: Final = frozenset(["authorization", "cookie", "cookies", "mnemonic", "passphrase", "phrase", "words"])
"""Names whose unquoted values go to the end of the line."""

_VALIDATION: Final = re.compile(
    r"(?m)^([\w.\-]{1,128})\n[^\n]{0,512}?input_value=(?:'([^'\n]{0,4096})'|\"([^\"\n]{0,4096})\"|([^\s,\]]{1,4096}))"
)
"""A field and its value as pydantic says that it is wrong."""

_URL: Final = re.compile(r"(://[^\s/:@\"'<>]{0,128}:)(?!\d{1,5}(?:[/?#\s\"',)\]]|\Z))[^\s\"'<>]{1,256}@")
"""`scheme://user:password@`; a port is not a password."""
_URL_USER: Final = re.compile(r"(?<=://)([^\s/:@\"'<>\[\]]{8,512})(?=[:@])")
"""The user of a URL, who may be a token; a host with a port does not look random."""

_FIX: Final = re.compile(r"(?:(?<![\w.\-])|(?<=\\u0001)|(?<=\\x01))(554|925|1402|1404|96|89)=([^\x01|^;\s\\]{1,1024})")
"""Password, NewPassword and their encrypted forms, RawData and Signature of a FIX logon."""

_USER_OPTION: Final = re.compile(
    r"(?<![\w\-])(-u|--user|--proxy-user)(=?[\"']?,?[ \t]{0,4}[\"']?)([^\s:\"'/]{1,64}):(?!//)([^\s\"']{1,256})"
)
"""`curl -u name:password`, also as a list of arguments."""
_SHORT_OPTION: Final = re.compile(
    r"(\bsshpass\b[^|;\n]{0,60}? -p ?|\bredis-cli\b[^|;\n]{0,80}? -a |\b(?:mysql|mysqldump|mariadb)\b[^|;\n]{0,80}? -p)"
    r"([^\s\"'\-][^\s\"']{0,255})"
)

_FRAME: Final = re.compile(
    r"[\"'](?:op|method|action|event|cmd|command|request|type|channel)\\{0,3}[\"']\s{0,4}:\s{0,4}\\{0,3}[\"']"
    r"(?:[\w./]{0,24}(?:auth|login|logon|signin)[\w.]{0,16})\\{0,3}[\"']"
)
"""A frame that logs a client in: every random text in it is a part of the proof."""
_FRAME_VALUE: Final = re.compile(r"(?<=[\"'])([^\"'\\\s]{8,4096})(?=\\{0,3}[\"'](?!\s{0,4}:))")
LOGIN_KEYS: Final = ("op", "method", "action", "event", "cmd", "command", "request", "type", "channel")
"""Keys of a frame whose value says that it logs in."""
_LOGIN_WORD: Final = re.compile(r"(?i)[\w./]{0,24}(?:auth|login|logon|signin)[\w.]{0,16}")

_EMAIL: Final = re.compile(r"(?<![\w.+\-])[\w.+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,4}")
_PHONE: Final = re.compile(r"(?<![\w+])\+\d(?:[ \-().]{0,2}\d){7,14}(?!\d)")


def is_login(said: object) -> bool:
    """Tell whether the value of one of `LOGIN_KEYS` says that the frame logs a client in."""
    return isinstance(said, str) and len(said) <= NAME_LENGTH and _LOGIN_WORD.fullmatch(said) is not None


class Rules:
    """The rules with the owner's additions; they never change, and all threads share them.

    `deny` and `allow` are names, compared without case and punctuation (`X-Acme` is `x_acme`): what stands under one of
    `deny` is hidden always, under one of `allow` never for its name. `known` are secret values to find anywhere.
    `personal` hides names of people, addresses of mail and telephone numbers too. `known_only`
    looks for known values and nothing else.
    """

    def __init__(
        self,
        *,
        deny: Iterable[str] = (),
        allow: Iterable[str] = (),
        known: Iterable[str] = (),
        personal: bool = False,
        known_only: bool = False,
    ) -> None:
        self._deny = frozenset(words_of(name) for name in deny)
        self._allow = frozenset(words_of(name) for name in allow)
        self._personal = personal
        self._known = KnownSecrets(known)
        self._known_only = known_only
        self._meanings: dict[str, tuple[Meaning, bool]] = {}
        more_words = sorted({word for words in self._deny for word in words})
        self._more = tuple(more_words)
        more = "".join(f"|{re.escape(word)}" for word in more_words)
        self._silent: set[str] = set()
        """Words, of texts in which no name of a secret was, in lower case."""
        self._named = re.compile(f"(?:{_STEMS}{f'|{_PERSONAL_STEMS}' if personal else ''}{more}){_NAMED}").search

    def meaning(self, name: str) -> tuple[Meaning, bool]:
        """Say what a name means for its value, and whether it is a plural (whose numbers are counts)."""
        known = self._meanings.get(name)
        if known is None:
            known = self._meaning(name)
            self._remember(name, known)
        return known

    def _meaning(self, name: str) -> tuple[Meaning, bool]:
        words = words_of(name[:NAME_LENGTH])
        if not words or words in self._allow or self._known_only:
            return Meaning.NOTHING, False
        if words in self._deny:
            return Meaning.SECRET, False
        meaning = meaning_of(words)
        if meaning is Meaning.PERSONAL and not self._personal:
            meaning = Meaning.NOTHING
        return meaning, is_plural(words)

    def describes(self, key: object) -> bool:
        """Tell whether a key inside `token={...}` or the like says of its value that it is no secret (`symbol`)."""
        words = words_of(key[:NAME_LENGTH]) if isinstance(key, str) else ()
        return not words or words in self._allow or describes(words)

    def knows(self, text: str) -> bool:
        """Tell whether the text holds a secret that is known by its value."""
        return bool(self._known) and self._known.scrub(text) is not text

    def scrub(self, text: str) -> str:
        """Return `text` with every secret replaced by `MARK`; the same object if there is none."""
        new = self._known.scrub(text) if self._known else text
        if self._known_only:
            return new
        if (
            " " not in new and "=" not in new and ":" not in new and '"' not in new and "'" not in new
            and ">" not in new and "%3" not in new and "@" not in new and not self._personal
        ):  # fmt: skip
            return scrub_token(new)
        low = lowered(new)
        words = words_of_text(low)
        if "@" in new and "://" in new:
            new = _URL_USER.sub(_hide_random, _URL.sub(rf"\1{MARK}@", new))
        if not self._silent.issuperset(words.split()) and self._speaks(words):
            if "=" in new or ":" in new or ">" in new or '"' in new or "'" in new or " -" in new or "%3" in new:
                new = self._scrub_named(new)
            new = scrub_sentences(new, self._meaning_in_text)
        if " -" in low or '"-' in low or "'-" in low:
            new = _scrub_options(new, low)
        if (" args " in words or " params " in words) and _FRAME.search(new) is not None:
            new = _FRAME_VALUE.sub(_hide_random, new)
        if " input value " in words:
            new = _VALIDATION.sub(self._hide_field, new)
        if "=" in low and ("35=" in low or "8=fix" in low or " logon " in words):
            new = _FIX.sub(rf"\1={MARK}", new)
        new = scrub_shapes(new, words)
        if self._personal:
            new = _PHONE.sub(MARK, _EMAIL.sub(MARK, new))
        return text if new == text else new

    def _hide_field(self, found: re.Match[str]) -> str:
        group = next((g for g in (2, 3, 4) if found.group(g)), 0)
        if not group or not hides(self.meaning(found.group(1))[0], found.group(group)):
            return found.group()
        begin, end = found.start(group) - found.start(), found.end(group) - found.start()
        return f"{found.group()[:begin]}{MARK}{found.group()[end:]}"

    def _speaks(self, words: str) -> bool:
        """Ask the cheap question first: whether any name of a secret may be in the text."""
        # One expression, because a loop over the words costs three times as much. The short ones are words of
        # their own: `side`, `risk`, `ping` and `company` are in every other line.
        speaks = (
            "key" in words or "pass" in words or "token" in words or "secret" in words or "sess" in words
            or "auth" in words or "sign" in words or " sig " in words or "account" in words or "acct" in words
            or "cred" in words or "cook" in words or "pwd" in words or "card" in words or " code " in words
            or "pin " in words or "jwt" in words or "mnem" in words or "phrase" in words or "seed" in words
            or "otp" in words or " cv" in words or "srf" in words or "priv" in words or "bearer" in words
            or "pw " in words or " pk " in words or " sk " in words or "sid " in words or self._personal
            or (self._more != () and any(word in words or not word.isascii() for word in self._more))
        )  # fmt: skip
        if not speaks and len(words) <= _SILENT_LENGTH and len(self._silent) < _REMEMBERED:
            self._silent.update(words.split())
        return speaks

    def _scrub_named(self, text: str) -> str:
        """Replace the values of `name=value`, `"name": "value"`, `--name value` and the like."""
        low = lowered(text)
        out: list[str] = []
        done = position = 0
        while (found := self._named(low, position)) is not None:
            stem, position = found.span()
            before = low[max(done, stem - NAME_LENGTH) : stem]
            start = stem - (len(before) - len(before.rstrip(NAME_CHARS)))
            if start > done and not low[start - 1].isascii():
                start = _name_start(low, start, max(done, stem - NAME_LENGTH))
            if start and low[start - 1] == "\\" and low[start] in "nrt" and start < stem:
                start += 1  # "\\r\\nKey: ..." of bytes that were printed
            named = _NAME.match(text, start)
            name = named.group() if named is not None else ""
            quoted, comma, tag, space = found.groups()
            if (
                (comma and not quoted)
                or (tag and not name.endswith("-") and text[start - 1 : start] != "<")
                or (space and not name.startswith("-"))
                or is_source_file(name)
            ):
                continue
            meaning = self._meaning_in_text(text, start, name)
            if meaning is Meaning.NOTHING:
                continue
            if comma and _JSON_KEY.match(text, position) is not None:
                value_key = _VALUE_KEY.match(text, position)
                if value_key is None:
                    continue
                position = value_key.end()
            if meaning is Meaning.SECRET and start and text[start - 1] == ";" and text[position - 1] == "=":
                connection = _CONNECTION.match(text, position)
                if connection is not None and " " in connection.group() and not is_harmless(connection.group()):
                    out += (text[done:position], MARK)
                    done = position = connection.end()
                    continue
            if _is_hidden(meaning, name, text, position):
                begin, end = _extent(text, position, name)
                out += (text[done:begin], MARK)
                done = position = end if meaning is Meaning.SECRET else _end_of_one(text, begin, end, name)
        if not out:
            return text
        out.append(text[done:])
        return "".join(out)

    def _meaning_in_text(self, text: str, start: int, name: str) -> Meaning:
        """Judge a name with the word before it: `API Key: ...` is two words of one name."""
        meaning = self.meaning(name)[0]
        if meaning is Meaning.SECRET or start == 0 or text[start - 1] != " ":
            return meaning
        before = text[max(0, start - _WORD_LENGTH) : start - 1].rpartition(" ")[2].lstrip("\"'([{\\")
        if not before.isalnum() or not before.isascii():
            return meaning
        together = f"{before} {name}"
        known = self._meanings.get(together)
        if known is None:
            words = words_of(name)
            if words and words not in self._allow and (*words_of(before), *words) not in self._allow:
                meaning = phrase_meaning((*words_of(before), *words), meaning)
            self._remember(together, (meaning, False))
            return meaning
        return known[0]

    def _remember(self, name: str, known: tuple[Meaning, bool]) -> None:
        if len(name) <= _REMEMBERED_LENGTH:
            if len(self._meanings) >= _REMEMBERED:
                self._meanings.clear()
            self._meanings[name] = known


def _name_start(low: str, start: int, least: int) -> int:
    """Say where a name begins that has letters beyond ASCII."""
    while start > least and (low[start - 1].isalnum() or low[start - 1] in "_.-"):
        start -= 1
    return start


def _is_hidden(meaning: Meaning, name: str, text: str, position: int) -> bool:
    """Tell whether the value that begins at `position` is hidden, by its beginning.

    A value that is not hidden is searched for more names: whoever judged it as a whole would read a text that is full
    of names once for each of them.
    """
    if meaning is not Meaning.SECRET:
        items = _LIST.match(text, position, position + _JUDGED_LIST)
        if items is not None:
            value = items.group(1)
            pair = (
                meaning is Meaning.LOGIN
                and "(" in items.group()[:9]
                and "," in value
                and ('"' in value or "'" in value)
            )
            return pair or any(hides(meaning, part) for part in set(_PARTS.findall(value)))
        bare = _FIRST.match(text, position, position + _JUDGED)
        if bare is not None and name[-13:].lower() != "authorization":
            return hides(meaning, bare.group(1)) and not is_expression(bare.group(1), name)
    head = text[position : position + _JUDGED]
    begin, end = _extent(head, 0, name)
    value = head[begin:end]
    plain = value.strip(_CLOSERS + " ")
    if not value or value.startswith(MARK) or is_harmless(plain):
        return False
    quoted = begin > 0 and head[begin - 1] in "\"'"
    if meaning is Meaning.SECRET:
        arrow = text.endswith("->", 0, position) and not name.endswith("-")
        if not quoted and (arrow or "\n" in head[:begin]) and not looks_like_password(plain):
            return False  # an arrow often leads to another name, and below a name with a colon stands a list or prose
        if not quoted and plain.isdigit() and len(plain) <= _COUNT_DIGITS and is_plural(words_of(name)):
            return False
        plural = is_plural(words_of(name)) and plain.isalpha() and plain.islower()  # "secrets: loaded from the vault"
        return quoted or end == len(head) == _JUDGED or not (plural or is_expression(plain, name))
    # What a brace encloses is not one value: the names inside speak for themselves.
    return value[0] != "{" and hides(meaning, value)


def _end_of_one(text: str, begin: int, end: int, name: str) -> int:
    """Say where a hidden value ends whose name is no certain sign: behind its first word if nothing encloses it."""
    if (
        (begin > 0 and text[begin - 1] in "\"'")
        or text[begin : begin + 1] in ("[", "(")
        or name[-13:].lower() == "authorization"
    ):
        return end
    first = _FIRST.match(text, begin, end)
    return first.end() if first is not None else end


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
    if words_of(name)[-1:] and words_of(name)[-1] in _WITH_SPACES:
        line = _LINE.match(text, position)
        return line.span(1) if line is not None else (position, position)
    begin = position + len(text[position : position + 8]) - len(text[position : position + 8].lstrip(" \t"))
    if text[begin : begin + 1] in ("[", "(", "{") and not text.startswith(MARK, begin):
        depth = 0
        for part in _BRACKET.finditer(text, begin):
            sign = part.group()
            depth += 1 if sign in "[({" else -1 if sign in "])}" else 0
            if depth == 0:
                return begin, part.end()
        return begin, len(text)
    angle = _ANGLE.match(text, position)
    if angle is not None:
        return angle.span(1)
    bare = _BARE.match(text, position)
    if bare is None:
        below = _NEXT_LINE.match(text, position)
        return below.span(1) if below is not None else (position, position)
    begin, end = bare.span(1)
    return begin, begin + len(text[begin:end].rstrip(_CLOSERS))


def _hide_random(found: re.Match[str]) -> str:
    return MARK if looks_random(found.group(1)) else found.group()


def _scrub_options(text: str, low: str) -> str:
    """Replace the passwords of command lines whose options do not name them."""
    curl = "curl" in low or "http" in low or "wget" in low

    def hide(found: re.Match[str]) -> str:
        option, between, user, _ = found.groups()
        if not (option.startswith("--") or (curl and option == "-u")):
            return found.group()
        return f"{option}{between}{user}:{MARK}"

    if "-u" in low:
        text = _USER_OPTION.sub(hide, text)
    if "sshpass" in low or "redis-cli" in low or "mysql" in low or "mariadb" in low:
        text = _SHORT_OPTION.sub(rf"\1{MARK}", text)
    return text
