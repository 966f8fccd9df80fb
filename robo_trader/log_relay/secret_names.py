"""What the name of a field says about its value, and whether a value looks like a secret.

Owns: the words that names are made of, what they mean together, and the test for randomness. It must not know events
or free text. `secret_rules` looks here for every name that it finds. Read `secret_sentences` next.

A name that can only mean a secret (`password`, `api_secret`) hides whatever stands under it. A bare word that also
means other things in trading (`token`, `session`, `signature`, `pin`, `account`) does not decide alone: the shape and
the randomness of the value do. `token="USDC"` stays, `token="q7Hx0..."` goes.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import Final
from urllib.parse import unquote

NAME_LENGTH: Final = 128
"""Characters of a name that are judged; no field name is longer, and a longer one is cut there."""

JUDGED: Final = 1_024
"""Characters of a value that are looked at for randomness: a secret that is longer is random from its beginning."""


_REMEMBERED: Final = 4_096
"""Names whose meaning is remembered: numbers do not count in a name, so that a bot has a few hundred."""


class Meaning(Enum):
    """What a name says about the value under it: when it is hidden."""

    NOTHING = "never for its name"
    SECRET = "always, but for words that give nothing away"  # noqa: S105 - says when, is none
    PASSWORD = "when it has letters and digits, or signs, as passwords do"  # noqa: S105 - the same
    OPAQUE = "when it looks random"
    KEY = "when it looks random and is long, for keys of caches and tables are short"
    CODE = "when it is a number of three to eight digits"
    LOGIN = "when it is credentials of HTTP or looks random, for `auth` is often only a state"
    ACCOUNT = "when it has six digits or looks random; an owner's name for an account stays"
    PERSONAL = "when personal data is to be hidden"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SECRET: Final = _set(
    "password passwords passwort pw passwd passwds pwd passphrase passphrases passcode secret secrets apikey "
    "apikeys credential "
    "credentials creds jwt mnemonic mnemonics privatekey privkey seckey cookie cookies csrf xsrf htpasswd listenkey "
    "keypair keypairs enctoken xprv"
)
"""Words that name a secret wherever they stand in a name."""

_GLUED: Final = tuple(
    _set(
        "password passwd passphrase secret apikey privatekey accesskey secretkey listenkey accesstoken authtoken "
        "refreshtoken bottoken sessiontoken apitoken"
    )
)
"""Endings of words written in one (`dbpassword`, `myapikey`)."""

_OPAQUE: Final = _set(
    "token tokens session sessions sessionid sid signature signatures sign sig bearer oauth jsessionid"
)
"""Words that name a secret, but also an asset, a part of the day, a direction or a state."""

_KEY: Final = _set("key keys keyid pk sk priv signer appkey clientkey dkey")

_CODE: Final = _set("pin otp totp cvv cvc")

_ACCOUNT: Final = _set(
    "account accounts acct accts accountid acctid accountno accountnumber accountnum acctnumber acctno acctcode "
    "accountcode accountids cardnumber cardno pan"
)

_PERSONAL: Final = _set(
    "email emails phone mobile telephone firstname lastname fullname surname dob birthday birthdate ssn passport "
    "street postcode zipcode username user users"
)

_SECRET_PAIRS: Final = frozenset(
    [(word, "key") for word in _set(
        "api private access secret encryption signing signature ssh auth hmac aes rsa listen session wallet priv apca")]
    + [(word, "keys") for word in _set("api private access secret encryption signing ssh")]
    + [(word, "token") for word in _set(
        "access auth refresh bearer bot csrf xsrf jwt oauth device push security session secret personal verification "
        "reset login admin api enc id user client service")]
    + [(word, "tokens") for word in _set("access auth refresh bot session api")]
    + [(word, "pass") for word in _set(
        "db database smtp mail email user login redis ftp mysql pg postgres account admin root proxy ssh broker ib "
        "vpn")]
    + [("seed", "phrase"), ("recovery", "phrase"), ("seed", "words"), ("key", "pem"), ("secret", "id"),
       ("wallet", "seed"), ("master", "seed"), ("key", "secret"), ("backup", "phrase")]
)  # fmt: skip
"""Two words that name a secret together; `key`, `id` and `phrase` alone are ordinary fields."""

_OPAQUE_PAIRS: Final = frozenset([("session", "id"), ("session", "ids"), ("login", "id"), ("auth", "id")])
"""Names of what is a secret in a browser and a number in a bot."""
_CODE_PAIRS: Final = frozenset(
    [(word, "code") for word in _set("mfa verification security auth login backup sms fa otp confirmation")]
)
_ACCOUNT_PAIRS: Final = frozenset(
    [(account, word) for account in _set("account acct card") for word in _set("id ids number numbers no num code")]
)
_PERSONAL_PAIRS: Final = frozenset(
    [(word, "name") for word in _set("first last full family given")]
    + [(word, "ip") for word in _set("client remote user")]
    + [("birth", "date"), ("date", "birth"), ("tax", "id"), ("postal", "code"), ("zip", "code"), ("ip", "address"),
       ("phone", "number"), ("home", "address"), ("postal", "address"), ("street", "address"), ("email", "address"),
       ("user", "name"), ("remote", "addr"), ("client", "addr")]
)  # fmt: skip

_DESCRIBES: Final = _set(
    "count counts used usage length len size max min limit limits rate rates remaining budget "
    "total name names type types kind id ids expiry expires expired expiration at age ttl "
    "lifetime valid invalid ok status state present missing set required enabled changed rotated "
    "file path url uri host endpoint scheme method policy provider algorithm version symbol "
    "address addresses price prices decimals contract pair time date open opened close closed start started end "
    "ended day number no num index high low volume timeout duration error errors bucket manager "
    "handler class hours minutes seconds ms attempts retries failures ratio mode format source level "
    "balance value equity currency margin summary info update updates region port label alias fee fees amount "
    "amounts liquidity supply pool pools list weight score check checks validity "
    "permission permissions scope scopes restrictions"
)
"""Last words that say something about a secret without being one: `token_count`, `session_open`."""

_DESCRIBING_PAIRS: Final = frozenset(
    [
        ("expires", "in"),
        ("expire", "in"),
        ("expiring", "in"),
        ("expiration", "in"),
        ("valid", "for"),
        ("valid", "until"),
    ]
)
"""Two words that say how long a secret is valid; their last one alone ends other names: `token_in` is an asset."""

_ORDINARY: Final = frozenset(
    [(part, word) for part in _set("trading market regular asian london us eu ny tokyo overnight pre post extended")
     for word in ("session", "sessions")]
    + [(word, "key") for word in _set(
        "cache primary foreign sort partition idempotency dedup dedupe group order row hash lookup composite unique "
        "index redis registry config dict map bucket object public pub sub stream topic queue redis lock metric "
        "feature sorting natural s")]
    + [(word, "keys") for word in _set("cache primary foreign public pub dict config missing extra unknown")]
    + [("public", "token"), ("first", "pass"), ("second", "pass"), ("max", "tokens"), ("function", "signature"),
       ("type", "signature"), ("call", "sign"), ("plus", "sign"), ("minus", "sign")]
)  # fmt: skip
"""Pairs whose second word names no secret here: `trading_session` is a part of the day."""

_PUBLIC: Final = _set("mint hash tx txid order client run strategy exchange broker network chain program account user")
"""Names that say of a random value inside `token={...}` or `session={...}` that it is an identifier."""

_ASSET: Final = _set(
    "in out base quote from to sell buy pay receive reward rewards fee gas native lp collateral debt underlying mint "
    "erc spl bep stable wrapped target input output pool pair asset instrument symbol governance stake staked borrow "
    "supply deposit long short a b x y"
)
"""Beside these `token` is an asset that is traded: `token_in`, `quote_token`, `instrument_token`."""

_PREPOSITIONS: Final = _set("in out from to a b x y")
"""Those of the words above that stand before a token in a sentence without belonging to it."""

_CODE_FILE: Final = re.compile(
    r"\.(?:py[cx]?|js|ts|go|rs|java|rb|c|cc|cpp|h|log|json|toml|ya?ml|ini|cfg|txt|csv|pem|md)$"
)
"""A name that is a file: what follows `auth.py:` is a line number."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
"""The words of a name: snake_case, kebab-case, camelCase, dotted, SHOUTING; digits do not count."""


def words_of(name: str) -> tuple[str, ...]:
    """Split a name into its words, in lower case."""
    return tuple(word.lower() for word in _WORDS.findall(name))


def is_plural(words: tuple[str, ...]) -> bool:
    """Tell whether a number under the name is a count: `tokens=512`."""
    return words[-1].endswith("s") and not words[-1].endswith("ss") if words else False


def is_source_file(name: str) -> bool:
    """Tell whether the name is that of a file, so that what follows it is a place in it."""
    return _CODE_FILE.search(name) is not None


@lru_cache(_REMEMBERED)
def meaning_of(words: tuple[str, ...]) -> Meaning:
    """Say what a name made of these words means for the value under it."""
    if not words:
        return Meaning.NOTHING
    last, pairs = words[-1], list(pairwise(words))
    pair = pairs[-1] if pairs else None
    if pair in _DESCRIBING_PAIRS:
        return Meaning.NOTHING
    if pair in _SECRET_PAIRS:
        return Meaning.SECRET
    if not _SECRET_PAIRS.isdisjoint(pairs) and (last not in _DESCRIBES or last in ("id", "ids")):
        return Meaning.SECRET
    if pair in _ACCOUNT_PAIRS:
        return Meaning.ACCOUNT
    if pair in _CODE_PAIRS:
        return Meaning.CODE
    if pair in _PERSONAL_PAIRS:
        return Meaning.PERSONAL
    if pair in _OPAQUE_PAIRS:
        return Meaning.OPAQUE
    if pair in _ORDINARY or last in _DESCRIBES:
        return Meaning.KEY if pair == ("key", "id") else Meaning.NOTHING
    if any(word in _SECRET or word.endswith(_GLUED) for word in words):
        return Meaning.SECRET
    return _meaning_of_bare(words, last)


def _meaning_of_bare(words: tuple[str, ...], last: str) -> Meaning:
    """Judge the words that mean a secret among other things."""
    if last in _PERSONAL:
        return Meaning.PERSONAL
    if last in _ACCOUNT:
        return Meaning.ACCOUNT
    if last in _CODE:
        return Meaning.CODE
    if last == "pass":
        return Meaning.PASSWORD
    if last in ("auth", "authorization"):
        return Meaning.LOGIN
    if any(word in _OPAQUE or word == "auth" or word.endswith("token") for word in words):
        assets = not _ASSET.isdisjoint(words) and any(word.startswith("token") for word in words)
        return Meaning.NOTHING if assets else Meaning.OPAQUE
    return Meaning.KEY if last in _KEY else Meaning.NOTHING


def describes(words: tuple[str, ...]) -> bool:
    """Tell whether a name inside `token={...}` or the like stands for something public: `symbol`, `address`, `tx`."""
    return words[-1] in _DESCRIBES or words[-1] in _PUBLIC


def phrase_meaning(words: tuple[str, ...], alone: Meaning) -> Meaning:
    """Judge a name in a sentence with the word before it, which may belong to it (`API key`) or not (`in token`).

    `alone` is what the name means without that word.
    """
    together = meaning_of(words)
    if together in (Meaning.SECRET, Meaning.ACCOUNT, Meaning.CODE):
        return together
    if together is Meaning.NOTHING and (words[:2] in _ORDINARY or words[0] in _ASSET - _PREPOSITIONS):
        return Meaning.NOTHING
    return alone


# --- values ---------------------------------------------------------------------------------------------------

_HARMLESS: Final = _set(
    "none null nil true false undefined nan str bytes int bool any ... | - -- missing invalid expired required empty "
    "unset unknown not set unchanged changed ok valid wrong incorrect rejected accepted redacted hidden masked removed "
    "omitted n/a na loaded found present configured active disabled enabled read readonly failed failure denied "
    "refreshed rotated renewed keepalive absent configured unconfigured provided supplied created deleted "
    "expiring revoked yes no on off is was must cannot has will should needs and or for from in of env environment "
    "prompt default optional string secretstr"
) | {""}
"""Values that give nothing away: nothing, a state, a type in a source line. Nobody's password is one of these."""

_ENCLOSING: Final = "<>()[]{}"
"""What a state is often put in, to tell it from a value: `<unset>`, `(none)`."""

_MASKED: Final = re.compile(r"[\w\-]{0,8}?(?:\*{2,}|\u2022{2,}|\.{3,}|\u2026|[xX]{4,})[\w\-]{0,4}")
"""A value that somebody has masked already; four characters of its end are a usual habit."""

_DATE: Final = re.compile(r"\d{4}-?\d\d-?\d\d[T _]?(?:\d\d:?\d\d(?::?\d\d)?(?:\.\d+)?)?(?:Z|[+\-]\d\d:?\d\d)?")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
"""An address on a chain: public, and what most bots call a token."""
_CHAIN_SIGNATURE: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{86,88}")
"""A transaction of Solana: public, and called its signature."""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")
_CHUNK: Final = re.compile(r"[A-Za-z0-9]{8,}")
_RUN: Final = re.compile(r"[A-Z]*[a-z]+|[A-Z]+|[0-9]+")
"""What a person writes without thinking: a word, or a number. Random text changes between them all the time."""
_EXPRESSION: Final = re.compile(
    r"(?:await )?(?:self|cls|os|config|cfg|conf|settings|args|env|kwargs|opts|options|params|creds|getpass|request|req|"
    r"ctx|state|keyring|vault|data|payload|response|resp|headers|session|client|credentials|secrets|account)[.\[(]"
)
"""How an expression of a source line begins. What it gives is not in the line."""
_CALL: Final = re.compile(r"[A-Za-z_][A-Za-z_.]*\(\)?")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z_.]*")

_SIGNS: Final = frozenset("!@#$%^&*+?~")
_HTTP_SCHEME: Final = re.compile(r"(?i)(?:bearer|basic|digest|negotiate|token|apikey|hmac|aws4-hmac-sha256)[ \t]+\S{6}")


_NEEDS_RANDOM: Final = (Meaning.OPAQUE, Meaning.KEY)


def looks_random(text: str) -> bool:
    """Tell whether the text has a part that no person would write: it changes between letters and digits too often.

    A part is eight or more letters and digits in a row. It looks random with four changes, with three if it is twelve
    long, when capitals are strewn in it, or when it is 24 letters without a break. A UUID looks random.
    """
    if len(text) < 8 or (len(text) < 24 and text.isalpha() and text.islower()):
        return False
    text = text[:JUDGED]
    if "%" in text:
        text = unquote(text, "latin-1")
    text = _ADDRESS.sub(" ", _DATE.sub(" ", text))
    for chunk in _CHUNK.findall(text):
        if chunk.isdigit():
            continue
        size, runs = len(chunk), len(_RUN.findall(chunk))
        if chunk.isalpha():
            if size >= 24 or (size >= 10 and size <= (2.5 if runs < 5 else 3) * runs):
                return True
        elif runs >= 4 or (runs == 3 and size >= 12) or size >= 32:
            return True
    return _UUID.search(text) is not None


def looks_like_password(text: str) -> bool:
    """Tell whether the text is six or more characters with a letter and a digit or a sign, or looks random."""
    if len(text) >= 6 and any(c.isalpha() for c in text):
        kinds = any(c.isdigit() for c in text) + any(c in _SIGNS for c in text)
        if kinds and not _DATE.fullmatch(text) and not _ADDRESS.fullmatch(text):
            return True
    return looks_random(text)


def is_harmless(text: str) -> bool:
    """Tell whether the text gives nothing away, whatever its name says: nothing, a state, or masked already."""
    if text.lower() in _HARMLESS or _MASKED.fullmatch(text) is not None:
        return True
    state = text.lower().strip(_ENCLOSING).replace("_", " ").replace("-", " ")
    return state in _HARMLESS or (state.startswith("not ") and state[4:] in _HARMLESS)


def is_expression(value: str, name: str) -> bool:
    """Tell whether the value is the code of a source line and not what it gives: `api_key=self.key`, `token=token`."""
    if _EXPRESSION.match(value) is not None:
        return not any(looks_like_password(part) for part in re.findall(r"[\"']([^\"']{6,256})[\"']", value))
    if _CALL.fullmatch(value) is not None and value.endswith((")", "(")):
        return True
    return _IDENTIFIER.fullmatch(value) is not None and set(words_of(value)) <= set(words_of(name)) | {
        "my",
        "the",
        "new",
    }


def hides(meaning: Meaning, text: str) -> bool:
    """Tell whether a text is to be hidden under a name of this meaning. `PERSONAL` is the caller's choice."""
    text = text.strip()
    if meaning in _NEEDS_RANDOM and (len(text) < 8 or (len(text) < 24 and text.isalpha() and text.islower())):
        return False
    if is_harmless(text[:JUDGED]):
        return False
    match meaning:
        case Meaning.SECRET | Meaning.PERSONAL:
            return True
        case Meaning.PASSWORD:
            return looks_like_password(text)
        case Meaning.OPAQUE:
            return looks_random(text) and _CHAIN_SIGNATURE.fullmatch(text) is None
        case Meaning.KEY:
            opaque = len(text) >= 16 and _UUID.fullmatch(text) is None and not set(": ,") & set(text)
            return opaque and ("/" not in text or _BASE64.fullmatch(text) is not None) and looks_random(text)
        case Meaning.CODE:
            return (text.isdigit() and 3 <= len(text) <= 8) or (not _is_number(text) and looks_like_password(text))
        case Meaning.LOGIN:
            return _HTTP_SCHEME.match(text) is not None or looks_random(text)
        case Meaning.ACCOUNT:
            return not _is_money(text) and (sum(map(str.isdigit, text)) >= 6 or looks_random(text))
    return False


def hides_number(meaning: Meaning, value: float, *, plural: bool) -> bool:
    """Tell whether a number is to be hidden: under a secret's name unless it counts, a code, an account."""
    match meaning:
        case Meaning.SECRET | Meaning.PERSONAL:
            return not plural
        case Meaning.CODE:
            return isinstance(value, int) and 100 <= value < 10**8
        case Meaning.ACCOUNT:
            return isinstance(value, int) and value >= 10**6
    return False


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdigit()


def _is_money(text: str) -> bool:
    return "." in text and text.replace(".", "", 1).replace(",", "").isdigit()
