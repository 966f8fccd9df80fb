"""Secrets that are known by their own shape, wherever they stand: keys of services, wallets, cards, accounts.

Owns: the patterns, the checksums, and the cheap questions asked before them. It must not know names or events. Every
pattern is linear in the length of the text: repetitions are bounded, or are over a class that cannot match what
follows. `secret_rules` asks here for every text. Read `seed_words` next.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from .seed_words import SEED_WORDS

MARK: Final = "[redacted]"
"""Stands where a secret stood."""

_PEM = "[A-Z0-9 ]{0,32} PRIVATE KEY(?: BLOCK)?"
_B58 = "1-9A-HJ-NP-Za-km-z"
_SHAPES = (
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{12,128}",  # AWS access key ids
    r"\bgh[pousr]_[A-Za-z0-9]{16,255}|\bgithub_pat_\w{16,255}",  # GitHub
    r"\bgl(?:pat|dt|rt|cbt|ptt|agent|soat)-[\w\-.]{16,255}",  # GitLab
    r"\bxox[abceoprs](?:\.xox[a-z])?-[\w\-]{8,255}|\bxapp-[\w\-]{8,255}",  # Slack
    r"\b[spr]k_(?:live|test)_\w{8,255}|\bwhsec_[\w+/=]{16,255}",  # Stripe
    r"\b[ST]?[sp]k_[0-9a-f]{32}\b",  # IEX Cloud
    r"\bsk-[A-Za-z0-9_\-]{16,255}",  # OpenAI style, also sk-ant-, sk-proj-
    r"\beyJ[\w\-]{6,1024}+\.[\w\-]{6,65536}(?:\.[\w\-]{0,65536}+){0,3}",  # JWT, also encrypted ones
    r"\bAIza[\w\-]{30,255}|\bya29\.[\w\-.]{20,255}|\bGOCSPX-[\w\-]{16,255}",  # Google
    r"\bSG\.[\w\-]{16,255}\.[\w\-]{16,255}",  # SendGrid
    r"\bnpm_[A-Za-z0-9]{30,255}|\bpypi-[\w\-]{32,255}|\bhf_[A-Za-z0-9]{30,255}|\bdop_v1_[a-f0-9]{32,255}",
    r"\b(?:hvs\.|hvb\.|dp\.pt\.|glsa_|dckr_pat_|tskey-[a-z]{2,9}-|sntrys_|nvapi-|gsk_|shp(?:at|ca|pa|ss)_)[\w\-]{16,255}",
    r"\blr_[\w\-]{43}(?![\w\-])",  # the relay's own, for viewers
    r"\bAGE-SECRET-KEY-1[0-9A-Z]{32,128}",
    r"\b(?:PK|AK|CK)(?=[A-Z]{0,23}[0-9])(?:[A-Z0-9]{24}|[A-Z0-9]{18})\b",  # Alpaca
    r"\b[0-9a-f]{32}-[0-9a-f]{32}\b",  # OANDA
    r"\b(?:AC|SK)[0-9a-f]{32}\b",  # Twilio
    r"(?<![\w:.])(?:bot)?\d{8,10}:(?=[A-Fa-f0-9]{0,64}[G-Zg-z_\-])[A-Za-z0-9_\-]{32,64}(?![\w\-])",  # Telegram bots
    r"(?<![\w:.])(?:bot)?\d{4,12}:A[A-Za-z0-9_\-]{30,64}(?![\w\-])",  # the same, older and newer ids
    r"\b[MNO][A-Za-z0-9_\-]{23,27}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,45}",  # Discord bots
    r"(?<=hooks\.slack\.com/services/)\S{8,255}|(?<=hooks\.slack\.com/workflows/)\S{8,255}",
    r"(?<=hooks\.slack\.com/triggers/)\S{8,255}|(?<=webhook\.office\.com/webhookb2/)\S{16,512}",
    r"(?<=/api/webhooks/)\d{8,24}/[\w\-]{16,255}|(?<=/webhooks/)\d{8,24}/[\w\-]{16,255}",  # Discord
    r"(?<=hc-ping\.com/)[\w\-]{22,64}|(?<=infura\.io/v3/)\w{16,64}|(?<=infura\.io/ws/v3/)\w{16,64}",
    r"(?<=alchemy\.com/v2/)[\w\-]{16,64}|(?<=alchemy\.com/nft/v3/)[\w\-]{16,64}|(?<=quiknode\.pro/)\w{24,64}",
    r"(?<=[?&]t=)\d{20,64}(?!\d)|(?<=apiKeys/)[\w\-]{16,64}",  # Flex tokens of Interactive Brokers, Coinbase
    r"(?<=core\.chainstack\.com/)\w{16,64}|(?<=rpc\.ankr\.com/)[a-z_]{2,32}/\w{32,80}|(?<=blastapi\.io/)[\w\-]{32,64}",
    rf"\b[xyzt]prv[{_B58}]{{90,112}}|\bS[A-Z2-7]{{55}}\b|\bnsec1[a-z0-9]{{50,64}}|\bedsk[{_B58}]{{50,100}}",  # wallets
    rf"\bed25519:[{_B58}]{{86,88}}\b|\b(?:ed25519e?_sk|xprv|addr_xsk|acct_xsk|root_xsk)1[a-z0-9]{{40,255}}",  # the same
    r"\bsuiprivkey1[a-z0-9]{50,80}",
    rf"-----BEGIN{_PEM}-----(?s:.*?)(?:-----END{_PEM}-----|\Z)",  # a torn one goes to the end
)
_SHAPE: Final = re.compile("|".join(_SHAPES))
_MIXED: Final = re.compile(
    r"(?<![A-Za-z0-9])(?=[a-z0-9]{0,64}[A-Z])(?=[A-Z0-9]{0,64}[a-z])(?=[A-Za-z]{0,64}[0-9])[A-Za-z0-9]{60,72}(?![A-Za-z0-9])"
)
"""Keys, secrets and listen keys of Binance and others: 64 letters of both cases and digits. A hash has one case."""
_LISTEN: Final = re.compile(r"(?:(?<=/ws/)|(?<=[?&]streams=))[A-Za-z0-9]{60,72}(?![A-Za-z0-9])")
"""A listen key in the address of a stream. There it is hidden in one case too, for no hash stands at that place."""
_SCHEME: Final = re.compile(
    r"\b((?i:bearer|basic|negotiate))([ \t]{1,4}|%20)"
    r"(?=[^\s\"',]{0,256}(?:[0-9=]|[a-z+/][A-Z])|[^\s\"',]{24})[A-Za-z0-9._~+/=\-]{6,65536}"
)
"""HTTP credentials. The look ahead keeps prose (`basic authentication`): a digit, `=`, mixed case, length."""

_SIGHT: Final = re.compile(
    r"eyJ|A(?:[KSB]IA|CCA|Iza|GE-S|C[0-9a-f]{4})|gh[pousr]_|github_pat_|gl[a-z]{2,5}[-_]|xox|xapp-|[spr]k_|whsec_|sk-|"
    r"lr_|ya29|GOCSPX|S(?:G\.|K[0-9a-f]{4}|[A-Z2-7]{32})|npm_|pypi-|hf_|dop_v1_|hv[sb]\.|dp\.pt|dckr_|tskey|sntrys|nvapi|gsk_|"
    r"shp[a-z]{2}_|[PAC]K[A-Z0-9]{12}|[0-9a-f]{8}-[0-9a-f]{32}|\d{4}:[A-Za-z0-9_\-]{24}|[MNO][\w\-]{23}|hooks\.slack|"
    r"office\.com|webhooks/|hc-ping|infura|alchemy|quiknode|chainstack|ankr|blastapi|prv|nsec1|edsk|"
    r"[?&]t=|apiKeys/|ed25519|addr_x|acct_x|root_x|suipriv|-----BEGIN"
)
"""How the shapes begin; the exact patterns are five times slower and run only where this found something."""

# Tables for `bytes.translate`, which is ten times as fast as that of `str`. What comes out is looked at as `str` again:
# `in` is five times as fast there.
_KIND: Final = bytes(
    0x30 if 0x30 <= c <= 0x39 else 0x41 if 0x41 <= c <= 0x5A else 0x61 if 0x61 <= c <= 0x7A else c for c in range(256)
)
"""Turns every digit into `0`, every capital into `A` and every letter into `a`: what a text is made of."""
_RUN: Final = bytes(0x78 if chr(c) in "-_" or (c < 128 and chr(c).isalnum()) else 0x20 for c in range(256))
_ALNUM: Final = bytes(0x78 if c < 128 and chr(c).isalnum() else 0x20 for c in range(256))
_LETTERS: Final = bytes(c if 0x61 <= c <= 0x7A else 0x20 for c in range(256))
_LONG: Final = "x" * 16
"""Every shape has a run of sixteen letters, digits, `_` and `-`, but PEM and HTTP's short credentials."""
_RUN_24: Final = "x" * 24
"""The same of shapes that begin with an ordinary letter, or with a number and a colon."""
_RUN_41: Final = "x" * 41
"""The same of keys that consist of hexadecimal digits or capitals alone."""
_VERY_LONG: Final = "x" * 50
"""Letters and digits of the shortest key that has no other sign than its length."""

_IB: Final = re.compile(r"(?<![A-Za-z0-9])(?:D[UFI]|U)\d{6,8}(?![A-Za-z0-9])")
"""Accounts of Interactive Brokers."""
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_CARD_GROUPS: Final = re.compile(
    r"(?<![\w\-.])[3-6]\d{3}(?:([ \-])\d{4}\1\d{4}\1\d{1,7}|([ \-])\d{6}\2\d{5})(?![\w\-.])"
)
_CARD: Final = re.compile(r"(?<![\w.\-])(?:4\d{12}(?:\d{3})?|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6\d{15})(?![\w.])")
_WIF: Final = re.compile(rf"(?<![A-Za-z0-9])[5KLc9][{_B58}]{{50,51}}(?![A-Za-z0-9])")
_HEX64: Final = re.compile(r"(?<![0-9A-Za-z])(?:0[xX])?[0-9a-fA-F]{64}(?![0-9A-Za-z])")
_KEY_BEFORE: Final = re.compile(
    r"(?i)(?:priv(?:ate)?|sign(?:er|ing)|secret|wallet|from_?key|seed|\bpk|\bsk|(?<!pub)(?<!public[ _])key)"
)
_HASH_BEFORE: Final = re.compile(
    r"(?i)(?:tx|hash|block|digest|order|\bid\b|root|topic|pool|condition|public|pub_?key|address|sha)"
)
_IB_BEGINS: Final = ("U", "D")
SHORTEST_SHAPE: Final = 15
"""Characters of the shortest secret with a shape but no space, an IBAN; accounts of Interactive Brokers are shorter."""
_BEFORE = 48
"""Characters before 64 hexadecimal digits in which a word may say what they are: by themselves they are a hash."""
_SEED_GAP: Final = re.compile(r"[\s,;\"'\[\]()|.:\d\\n\-]{1,10}")
_SEED_LENGTH: Final = 12
"""Words of the shortest seed phrase."""
_SEED_DIFFERENT: Final = 7
"""Different words of one: twelve random words of 2,048 hardly ever repeat, a progress bar of words does."""
_SEED_LENGTHS: Final = (12, 15, 18, 21, 24)
"""Words of seed phrases as BIP 39 has them."""
_SEED_BEFORE: Final = 3
"""Words of BIP 39 that may stand in front of a phrase without belonging to it: `note`, `seed`, `phrase`."""
_SEED_BITS: Final = 11
"""Bits of a phrase that each of its words stands for."""
_SEED_INDEX: Final = {word: index for index, word in enumerate(sorted(SEED_WORDS))}
"""The number of each word; the list of BIP 39 is in the order of the alphabet."""
_WORD: Final = re.compile(r"[a-z]+")
_WIF_TAIL_BYTES: Final = 4
"""Bytes of the checksum at the end of a WIF key."""


def words_of_text(low: str) -> str:
    """Return the words of a text that was lowered, with a space before and behind each."""
    letters = low.encode("latin-1", "replace").translate(_LETTERS).decode("latin-1")
    return f" {letters} "


def scrub_token(text: str) -> str:
    """Do what `scrub_shapes` does for a text without any space or sign, quicker."""
    if len(text) < SHORTEST_SHAPE:
        return _IB.sub(MARK, text) if text[-6:].isdigit() and text[:1] in _IB_BEGINS else text
    return scrub_shapes(text, "")


def scrub_shapes(text: str, words: str) -> str:
    """Return the text with everything replaced that is a secret by its shape; the same object if there is nothing.

    `words` are the words of the text as `words_of_text` gives them.
    """
    new = text
    data = text.encode("latin-1", "replace")
    runs = data.translate(_RUN).decode("latin-1")
    if _LONG in runs or "-----BEGIN" in text:
        if _may_have_shape(text, runs) and _SIGHT.search(text) is not None:
            new = _SHAPE.sub(MARK, new)
        if _VERY_LONG in data.translate(_ALNUM).decode("latin-1"):
            new = _MIXED.sub(MARK, new)
            if "/ws/" in new or "streams=" in new:
                new = _LISTEN.sub(MARK, new)
            new = _WIF.sub(_hide_wif, new)
            new = _HEX64.sub(_hide_key, new)
    if " bearer " in words or " basic " in words or " negotiate " in words:
        new = _SCHEME.sub(rf"\1\2{MARK}", new)
    kinds = data.translate(_KIND).decode("latin-1")
    if "0000" in kinds:
        if "A000000" in kinds:
            new = _IB.sub(MARK, new)
        if "AA00" in kinds:
            new = _IBAN.sub(_hide_iban, new)
        if "0000000000000" in kinds and ("card" in words or " visa " in words or " amex " in words or " pan " in words):
            new = _CARD.sub(_hide_card, new)
        if "0000-" in kinds or "0000 " in kinds:
            groups = kinds.replace(" ", "-")
            if "0000-0000-0000" in groups or "0000-000000-00000" in groups:
                new = _CARD_GROUPS.sub(_hide_card, new)
    if text.count(" ") + text.count(",") >= _SEED_LENGTH - 1 and _may_hold_seed(words.split()):
        new = _scrub_seed(new)
    return new


def _may_have_shape(text: str, runs: str) -> bool:
    """Ask cheaply for what `_SIGHT` finds: a plain text with a UUID in it has a long run, and is no secret."""
    # `in` looks for a letter or two thirty times as fast as a pattern with fifty branches; the tests hold both to
    # the same answer for every line of the table.
    return (
        ("_" in text and (
            "k_" in text or "gh" in text or "gl" in text or "whsec_" in text or "npm_" in text or "hf_" in text
            or "dop_v1_" in text or "dckr_" in text or "shp" in text or "r_x" in text or "t_x" in text))
        or ("-" in text and (
            "sk-" in text or "xox" in text or "xapp-" in text or "gl" in text or "pypi-" in text or "tskey" in text
            or "nvapi" in text or "AGE-S" in text or "GOCSPX" in text or "-----BEGIN" in text))
        or ("." in text and (
            "SG." in text or "hv" in text or "dp.pt" in text or "office.com" in text or "hooks.slack" in text
            or "ya29" in text or "quiknode" in text or "chainstack" in text or "ankr" in text))
        or ("/" in text and (
            "webhooks/" in text or "hc-ping" in text or "infura" in text or "alchemy" in text or "blastapi" in text
            or "t=" in text or "apiKeys/" in text))
        or "eyJ" in text or "IA" in text or "ACCA" in text or "AIza" in text or "AC" in text or "SK" in text
        or "PK" in text or "AK" in text or "CK" in text or "prv" in text or "sntrys" in text
        or (_RUN_24 in runs and (
            "nsec1" in text or "edsk" in text or "ed25519" in text or "suipriv" in text or ":" in text
            or "M" in text or "N" in text or "O" in text or _RUN_41 in runs))
    )  # fmt: skip


def _may_hold_seed(words: list[str]) -> bool:
    """Look at every sixth word: of twelve in a row two neighbours among these are words of a seed phrase."""
    before = False
    for word in words[:: _SEED_LENGTH // 2]:
        now = word in SEED_WORDS
        if now and before:
            return True
        before = now
    return False


def is_seed_phrase(words: list[object]) -> bool:
    """Tell whether a list is a seed phrase: twelve or more words, all of them of BIP 39."""
    if len(words) < _SEED_LENGTH or not all(type(w) is str and w in SEED_WORDS for w in words):
        return False
    different = len(set(words))
    return different >= _SEED_DIFFERENT or (different > 1 and _has_seed_checksum([str(word) for word in words]))


def _has_seed_checksum(words: list[str]) -> bool:
    """Tell whether the checksum is right: a wallet takes a phrase of few words, of a progress bar it is hardly so."""
    for first in range(_SEED_BEFORE + 1):
        phrase = words[first:]
        if len(phrase) not in _SEED_LENGTHS:
            continue
        number = 0
        for word in phrase:
            number = number << _SEED_BITS | _SEED_INDEX[word]
        bits = len(phrase) // 3
        entropy = (number >> bits).to_bytes(bits * 4, "big")
        if sha256(entropy).digest()[0] >> (8 - bits) == number & ((1 << bits) - 1):
            return True
    return False


def _scrub_seed(text: str) -> str:
    out: list[str] = []
    done = first = last = 0
    phrase: list[object] = []
    for found in _WORD.finditer(text):
        begin, end = found.span()
        word = found.group()
        joins = word in SEED_WORDS and (not phrase or _SEED_GAP.fullmatch(text, last, begin) is not None)
        if not joins:
            if is_seed_phrase(phrase):
                out += (text[done:first], MARK)
                done = last
            phrase = []
        if word in SEED_WORDS:
            if not phrase:
                first = begin
            phrase.append(word)
            last = end
    if is_seed_phrase(phrase):
        out += (text[done:first], MARK)
        done = last
    return "".join([*out, text[done:]]) if out else text


def _hide_wif(found: re.Match[str]) -> str:
    """Hide a Bitcoin private key: its checksum tells it from any other text of that alphabet."""
    number = 0
    for letter in found.group():
        number = number * 58 + "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".index(letter)
    raw = number.to_bytes(40, "big").lstrip(b"\0")
    body, check = raw[:-_WIF_TAIL_BYTES], raw[-_WIF_TAIL_BYTES:]
    return MARK if sha256(sha256(body).digest()).digest()[:_WIF_TAIL_BYTES] == check else found.group()


def _hide_key(found: re.Match[str]) -> str:
    """Hide 64 hexadecimal digits if the words before them speak of a key and none, later, of a hash."""
    before = found.string[max(0, found.start() - _BEFORE) : found.start()]
    said = list(_KEY_BEFORE.finditer(before))
    if not said or _HASH_BEFORE.search(before, said[-1].end()) is not None:
        return found.group()
    return MARK


def _hide_iban(found: re.Match[str]) -> str:
    """Hide an account number of a bank if its check digits are right."""
    plain = found.group().replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return found.group()
    return MARK if int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1 else found.group()


def _hide_card(found: re.Match[str]) -> str:
    """Hide a card's number if its check digit is right (Luhn)."""
    digits = [int(c) for c in found.group() if c.isdigit()]
    if not 13 <= len(digits) <= 19:
        return found.group()
    total = sum(sum(divmod(d * (1 + i % 2), 10)) for i, d in enumerate(reversed(digits)))
    return MARK if total % 10 == 0 else found.group()
