"""Secrets do not get through, everything else does, and nothing that is logged can hurt the redaction."""

import copy
import enum
import pathlib
import re
import sys
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_trader.log_relay import (
    known_secrets,
    redaction,
    secret_names,
    secret_rules,
    secret_sentences,
    secret_shapes,
)
from robo_trader.logging.redaction import MARK, MAX_NODES, MAX_TEXT, Redactor, Rules, from_environment
from tests.unit.log_relay.hostile_texts import BEGINNINGS, UNITS

SECRET = "hunter2correcthorse"

SECRET_NAMES = """
password PASSWORD Password db_password dbpassword password2 old_password passwordHash password_for_prod
user-passwd pwd
passphrase secret client_secret clientSecret CLIENT-SECRET secretKey secrets token TOKEN access_token
accessToken
refresh.token token_prod api_key apikey apiKey API_KEY X-Api-Key x-api-key apikeys authorization Authorization
proxy-authorization auth basic_auth oauth_token private_key privateKey access_key access_key_id
secret_access_key
cookie Set-Cookie session sessionid session_id session_token credential credentials creds jwt bearer mnemonic
seed_phrase recovery_phrase signing_key encryption_key ssh_key otp pin cvv signature db_pass pass csrf_token
""".split()

PLAIN_NAMES = """
tokens_used token_count max_tokens total_token_count tokenizer tokenized authorized authorised author
authors secretary
secretariat monkey donkey keyboard key keys key_id primary_key foreign_key sort_key hotkey passenger
compass bypass
passed passes first_pass pass_rate pinned spin opinion session_open trading_session market_session
session_count obsession
cookies_enabled cookie_policy auth_method auth_type password_length password_changed_at token_expires_at
access_token_ttl
token_type secret_name symbol price quantity order_id event level logger seed phrase words signal
assignment design
base_token quote_token token_symbol token_address
""".split()


@pytest.fixture
def redactor():
    return Redactor(environ={})


def show(redactor, **fields):
    return redactor(None, "info", {"event": "e", **fields})


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_name_hides_its_value(redactor, name):
    """Whatever stands under a name that means a secret is replaced, at the top and nested."""
    assert show(redactor, **{name: SECRET})[name] == MARK
    assert SECRET not in repr(show(redactor, a=[{name: {"deep": [SECRET]}}])["a"])
    assert show(redactor, a={name.encode(): SECRET.encode()})["a"] in ({name.encode(): MARK}, {name: MARK})


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_an_ordinary_name_keeps_its_value(redactor, name):
    """Names that only contain the letters of a secret's name, or describe one, stay readable."""
    assert show(redactor, **{name: "plain"})[name] == "plain"


@pytest.mark.parametrize(
    "text",
    [
        f"password={SECRET}",
        f"Password : {SECRET}",
        f'login(user="bob", password="{SECRET}")',
        f"    client.login(password = '{SECRET}')  # source line",
        f'def connect(password: str = "{SECRET}") -> None:',
        f'if token == "{SECRET}":',
        f'self["api_key"] = "{SECRET}"',
        f'{{"token": "{SECRET}", "n": 3}}',
        f"{{'api_key': '{SECRET}', 'x': 1}}",
        '{\\"password\\": \\"' + SECRET + '\\", \\"a\\": 1}',
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}=",
        f"Cookie: a=1; sid={SECRET}; b=2",
        f"postgres://bob:{SECRET}@db/x",
        f"redis://:{SECRET}@h:6379",
        f"amqp://u:p@{SECRET}@host/v",
        f"https://api.example/x?api_key={SECRET}&symbol=A",
        f"--password {SECRET} --n 3",
        f"--api-key={SECRET}",
        f"[('X-Api-Key', '{SECRET}'), ('Accept', '*/*')]",
        f"[(b'authorization', b'{SECRET}')]",
        f"<password>{SECRET}</password>",
        f"tokens=['a', '{SECRET}'] rest=1",
        f"credentials={{'user': 'bob', 'pw': '{SECRET}'}}",
        f"Config(host='h', password='{SECRET}', port=3)",
        f"PASSWORD => {SECRET}",
        f"export BINANCE_API_SECRET={SECRET}",
        f'password="""{SECRET}"""',
        f"password='quote \\' inside {SECRET}'",
        f'token: "unterminated {SECRET}',
        f"größe ﬀİ passwort ok, password={SECRET}",
        f"pass%3Dx token={SECRET}",
        f"password%3D{SECRET}",
        f"{{'password':\n    '{SECRET}'}}",
        f"OK-ACCESS-SIGN: {SECRET}",
        f"wallet_seed={SECRET}",
        f"mnemonic: apple {SECRET} pear",
        f"SecretStr('{SECRET}')",
        f'    client.set_password("{SECRET}")',
        f"password->{SECRET}",
    ],
)
def test_a_named_secret_in_free_text_is_hidden(redactor, text):
    """The value goes, the rest of the text stays; in messages, values, nested values and bytes."""
    for shown in (
        show(redactor, note=text),
        show(redactor, event=text),
        show(redactor, a=[{"b": (text,)}]),
        show(redactor, a=text.encode("utf-8")),
        show(redactor, a={text: 1}),
    ):
        assert SECRET not in repr(shown), shown


SHAPES = {
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_" + "a1B2" * 9,
    "github fine": "github_pat_" + "a1B2" * 12,
    "gitlab": "glpat-" + "a1B2" * 5,
    "slack": "xoxb-123456789012-abcdefABCDEF",
    "stripe": "sk_live_" + "a1B2" * 6,
    "openai": "sk-proj-" + "a1B2" * 8,
    "anthropic": "sk-ant-api03-" + "a1B2" * 8,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXRoYXQ",
    "google": "AIza" + "a1B2c3D" * 5,
    "sendgrid": "SG." + "a1B2" * 5 + "." + "c3D4" * 8,
    "telegram": "123456789:AAF" + "x1Y2" * 8,
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\nDEFghi\n-----END RSA PRIVATE KEY-----",
    "pem torn": "-----BEGIN PRIVATE KEY-----\\nMIIEabcDEFghi",
    "age": "AGE-SECRET-KEY-1" + "QPZRY9X8" * 7,
    "npm": "npm_" + "a1B2" * 9,
    "logrelay": "lr_" + "a1_B-" * 8 + "c3D",
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_secret_by_shape_is_hidden_anywhere(redactor, name):
    """Known kinds of secrets are found without a name, alone and in the middle of text, also as a dict key."""
    secret = SHAPES[name]
    assert show(redactor, a=secret)["a"] == MARK
    assert secret not in repr(show(redactor, a=f"got {secret} from peer"))
    assert secret not in str(show(redactor, a={"x": [f"'{secret}'"]}))
    assert secret not in "".join(map(str, show(redactor, a={secret: 1})["a"]))
    assert secret not in "".join(show(redactor, **{secret: 1}))


@pytest.mark.parametrize(
    "text",
    [
        "basic authentication failed",
        "bearer of bad news",
        "token_count=5 tokens_used: 7 monkey=3",
        "2026-01-23T10:00:00.123456Z",
        "http://h:8080/a@b.c",
        "filled AAPL: 100 @ 187.32 fee=0.35",
        "password=None token=None secret: ''",
        "def f(token: str | None = None, password: str) -> None:",
        "the key is in the pass of the session",
        "key=AAPL sort_key: price",
        "0x" + "ab" * 32,
        "sha256:" + "0f" * 32,
        "task-runner-with-a-long-name_and_more.of.it",
        "lr_scheduler_step_size_after_warmup=0.001",
        "C:\\Users\\bob\\x.csv --speed 3",
        "Unexpected token: ;",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(redactor, text):
    """Text without a secret comes back as the very same object."""
    assert show(redactor, a=text)["a"] is text


def test_true_false_none_and_counts_under_a_secret_name_stay(redactor):
    """`has_token=True` says something useful; a plural's number is a count; any other number is hidden."""
    shown = show(redactor, has_token=True, password=None, tokens=512, pin=1234, token="")
    assert (shown["has_token"], shown["password"], shown["tokens"]) == (True, None, 512)
    assert (shown["pin"], shown["token"]) == (MARK, "")


def test_the_callers_containers_are_never_changed(redactor):
    """What is replaced is replaced in copies; what holds nothing is passed on as the same object."""
    held = {
        "list": [{"password": SECRET}, {"a": 1}],
        "tuple": ("x", {"token": SECRET}),
        "clean": {"b": [1, 2]},
    }
    before = copy.deepcopy(held)
    shown = show(redactor, held=held)["held"]
    assert held == before
    assert shown == {
        "list": [{"password": MARK}, {"a": 1}],
        "tuple": ("x", {"token": MARK}),
        "clean": {"b": [1, 2]},
    }
    assert shown["clean"] is held["clean"]
    assert shown["list"][1] is held["list"][1]


def test_name_and_value_entries_are_hidden(redactor):
    """Some clients log headers as a list of {"name": ..., "value": ...}."""
    shown = show(redactor, a=[{"name": "X-Api-Key", "value": SECRET}, {"key": "symbol", "value": "A"}])
    assert shown["a"] == [{"name": "X-Api-Key", "value": MARK}, {"key": "symbol", "value": "A"}]


def test_headers_as_pairs_are_hidden(redactor):
    """Clients log headers as lists of pairs; the first of a pair is its name."""
    shown = show(
        redactor,
        headers=[("Accept", "*/*"), ("X-Api-Key", "zzz"), ["Cookie", "a=b"], (b"Authorization", b"Bearer q7q7q7")],
    )
    assert shown["headers"] == [
        ("Accept", "*/*"),
        ("X-Api-Key", MARK),
        ["Cookie", MARK],
        (b"Authorization", MARK),
    ]


@dataclass
class Account:
    user: str
    password: str
    unseen: str = field(default="x", repr=False)


class Pair(NamedTuple):
    name: str
    api_key: str


class Kind(enum.Enum):
    PLAIN = "plain"
    LEAK = "sk-abcdefghijklmnopqrstuvwx"


class Shy:
    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return f"<Shy {self.text}>"


def test_objects_are_redacted_by_what_they_would_show(redactor):
    """Dataclasses and namedtuples by field, exceptions and any object by their repr, enums by value."""
    shown = show(
        redactor,
        account=Account("bob", SECRET),
        clean=Account("bob", ""),
        pair=Pair("x", SECRET),
        error=ValueError(f"password={SECRET}"),
        shy=Shy(f"token={SECRET}"),
        kinds=[Kind.PLAIN, Kind.LEAK],
        path=pathlib.PurePosixPath("/x/password=" + SECRET),
        proxy=MappingProxyType({"token": SECRET}),
        ordered=OrderedDict(secret=SECRET),
        keys={"sk-abcdefghijklmnopqrstuvwx": 1}.keys(),
    )
    assert SECRET not in repr(shown)
    assert "sk-abc" not in repr(shown["keys"])
    assert shown["account"] == {"user": "bob", "password": MARK}
    assert shown["clean"] == Account("bob", "")
    assert shown["kinds"] == [Kind.PLAIN, MARK]


def test_exc_info_is_formatted_and_redacted(redactor):
    """An exception not yet formatted becomes text without the secret in its message, its cause or its source line."""

    def login(password):
        raise ValueError(f"rejected: password={password}")

    try:
        try:
            login(password="hunter2correcthorse")
        except ValueError as error:
            raise RuntimeError("Authorization: Bearer " + SECRET) from error
    except RuntimeError:
        info = sys.exc_info()
    for exc_info in (info, info[1]):
        shown = redactor(None, "error", {"event": "x", "exc_info": exc_info})
        assert "exc_info" not in shown
        assert "RuntimeError" in shown["exception"]
        assert "ValueError" in shown["exception"]
        assert SECRET not in shown["exception"]


def test_a_secret_known_by_value_is_found_where_nothing_names_it():
    """The values of secret environment variables are hidden literally, also in a bare argument of a source line."""
    known = from_environment(
        {"BROKER_API_KEY": SECRET, "HOME": "/root/home", "TOKEN_COUNT": "12345678", "AUTH": "production-east",
         "DB_PASSWORD": "short", "SSH_KEY_PATH": "/root/.ssh/id", "XDG_SESSION_TYPE": "waylandlong"}
    )  # fmt: skip
    assert known == [SECRET]
    shown = show(Redactor(known=known), a=f'login("bob", "{SECRET}")', b=[f"plain{SECRET}plain"])
    assert shown["a"] == f'login("bob", "{MARK}")'
    assert shown["b"] == [f"plain{MARK}plain"]


def test_the_owner_can_add_and_allow_names():
    """`keys` and `allow` extend the rules, in fields and in free text."""
    redactor = Redactor(keys=["account_number", "X-Acme"], allow=["session"])
    shown = show(redactor, accountNumber=5, session="london", note="account_number=12 x_acme: zz session=ny")
    assert (shown["accountNumber"], shown["session"]) == (MARK, "london")
    assert shown["note"] == f"account_number={MARK} x_acme: {MARK} session=ny"


class Hostile:
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__
    __len__ = __iter__ = __hash__ = __eq__ = __repr__


class LyingClass:
    @property
    def __class__(self):
        raise RuntimeError("no class")


class HostileDict(dict):
    def items(self):
        raise RuntimeError("no items")


@pytest.mark.parametrize(
    "make",
    [Hostile, LyingClass, lambda: HostileDict(a=1), lambda: [Hostile()], lambda: {"a": HostileDict(b=2)}],
)
def test_a_value_that_fails_is_replaced_and_counted(redactor, make):
    """A failure costs that value only: it is replaced as a whole, counted, and the other fields are there."""
    shown = show(redactor, bad=make(), good="x")
    assert "could not be inspected" in str(shown["bad"])
    assert shown["good"] == "x"
    assert redactor.failures >= 1


def test_keyboard_interrupt_in_a_repr_is_not_swallowed(redactor):
    """Someone wants the process to end; a log call must not prevent that."""

    class Interrupt:
        def __repr__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show(redactor, a=Interrupt())
    assert show(redactor, a=Shy("x"))["a"] == "<Shy x>"


def test_a_repr_that_logs_itself_ends(redactor):
    """An object that logs itself when asked gets its line; in the inner line only its type is named."""
    inner = []

    class Chatty:
        def __repr__(self):
            inner.append(show(redactor, me=self)["me"])
            return "chatty"

    assert show(redactor, a=Chatty())["a"] == "chatty"
    assert inner == ["<Chatty>"]


def test_big_values_are_bounded_and_still_clean(redactor):
    """A long string is cut where it was not looked at, a huge or circular container stops; each is counted."""
    tail = f"password={SECRET}"
    shown = show(redactor, a="x " * MAX_TEXT + tail, b="y" * (MAX_TEXT - 3) + " " + tail)
    assert SECRET not in repr(shown)
    assert len(shown["a"]) < MAX_TEXT + 100
    assert "not shown" in shown["a"]
    many = show(redactor, a=list(range(MAX_NODES * 3)))["a"]
    assert len(many) <= MAX_NODES + 1
    loop = []
    loop.append(loop)
    assert "deeper" in repr(show(redactor, a=loop)["a"])
    deep = SECRET
    for _ in range(50):
        deep = {"x": deep, "token": deep}
    assert SECRET not in repr(show(redactor, a=deep)["a"])
    assert redactor.cut >= 4


def test_remembered_names_and_texts_are_bounded(redactor):
    """A million different keys and values must not become a million entries."""
    for number in range(10_000):
        show(redactor, **{f"k{number}": f"v{number}"})
    assert len(redactor._judged) <= 4096
    assert len(redactor._clean) <= 4096


@pytest.mark.parametrize("thing", ["a string password=" + SECRET, b"token=" + SECRET.encode(), ("x", SECRET), None, 5])
def test_something_else_than_a_dict_is_taken(redactor, thing):
    """A chain in the wrong order gives us a rendered line; it is redacted, not refused."""
    shown = redactor(None, "info", thing)
    assert SECRET not in repr(shown) or isinstance(thing, tuple)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.decimals(allow_nan=False)
    | st.text(alphabet="abcXYZ 019äß-_/", max_size=30) | st.binary(max_size=0)
    | st.datetimes() | st.just(uuid.UUID(int=5)) | st.just(timedelta(1)) | st.just(Decimal("1.10"))
)  # fmt: skip
names = st.sampled_from(["symbol", "price", "x", "order_id", "näme", "note", "key", "tokens_used"])
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(names, inner, max_size=4)
        | st.tuples(inner, inner, inner)
        | st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(names, nested, max_size=6))
def test_lines_without_secrets_come_back_equal(event):
    """Property: what holds no secret is not changed at all, down to the identity of every value."""
    before = copy.deepcopy(event)
    values = dict(event)
    shown = Redactor()(None, "info", event)
    assert shown is event
    assert shown == before
    assert all(shown[key] is values[key] for key in values)


planted = st.sampled_from(
    [f"password={SECRET}", {"token": SECRET}, ("api_key", SECRET), Account("x", SECRET), f"https://u:{SECRET}@h/",
     f"Bearer {SECRET}", ValueError(f"secret: {SECRET}"), f"token='{SECRET}'".encode(),
     [[f"passwd => '{SECRET}'"]]]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_planted_secrets_never_survive(data):
    """Property: a secret hidden anywhere in random nesting appears nowhere in what comes out."""
    value = data.draw(planted)
    for _ in range(data.draw(st.integers(0, 6))):
        other = data.draw(nested)
        how, inner = data.draw(st.sampled_from(["list", "dict", "tuple", "set", "pair"])), value
        value = {
            "list": [other, inner],
            "dict": {"x": inner, "y": other},
            "tuple": (inner, other, 1),
            "set": [inner, {1, 2}],
            "pair": ["note", inner],
        }[how]
    kept = copy.deepcopy(value)
    shown = Redactor()(None, "info", {"event": "e", "a": value})
    assert SECRET not in repr(shown)
    assert SECRET not in str(shown)
    assert value == kept or "ValueError" in repr(kept)  # exceptions are not comparable


PATTERNS_S = 20.0
"""The patterns need half a second; a quadratic one a hundred times as much."""


@pytest.mark.parametrize("unit", UNITS)
def test_no_text_can_make_the_patterns_slow(unit):
    """65,536 hostile characters, all that is ever looked at: a quadratic pattern would need minutes.

    What is limited is the processor's time for this thread, which a busy machine does not change much.
    """
    rules = Rules(deny=["x_acme"], known=["not in here"])
    began = time.thread_time()
    for beginning in BEGINNINGS:
        rules.scrub((beginning + unit * (MAX_TEXT // len(unit) + 1))[:MAX_TEXT])
    assert time.thread_time() - began < PATTERNS_S


def test_a_repeated_word_is_no_seed_phrase():
    """Twelve words of the list are one only if they differ."""
    text = "word " * 40
    assert show(Redactor(environ={}), note=text)["note"] == text
    assert show(Redactor(environ={}), note=["word"] * 12)["note"] == ["word"] * 12


PATTERN_MODULES = (secret_names, secret_sentences, secret_shapes, secret_rules, known_secrets, redaction)
PATTERNS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value.pattern
    for module in PATTERN_MODULES
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern)
} | {"secret_rules.Rules._named": Rules(personal=True, deny=["x_acme"])._named.__self__.pattern}


def repeats_in_repeats(parsed, outer=1):
    """Yield the product of the bounds of each repeat of a variable length with those that it stands in.

    Possessive repeats and atomic groups count as one step: nothing that they took is tried again.
    """
    for kind, argument in parsed:
        name = str(kind)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, body = argument
            variable = most if least != most else 1
            if variable > 1 and outer > 1:
                yield outer * most
            yield from repeats_in_repeats(body, outer * variable)
        elif name == "SUBPATTERN":
            yield from repeats_in_repeats(argument[3], outer)
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from repeats_in_repeats(branch, outer)
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from repeats_in_repeats(argument[1], outer)


TRIED_AT_MOST = 4_096
"""Ways to share one stretch of text between a repeat and the one around it, at each position."""


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_has_an_endless_repeat_inside_a_repeat(name):
    """What backtracking can cost at one position is bounded by how a pattern is built, whatever the text is."""
    found = list(repeats_in_repeats(re._parser.parse(PATTERNS[name])))
    assert max(found, default=1) <= TRIED_AT_MOST


def test_the_test_of_the_patterns_finds_the_kind():
    """The classical mistake, and the same behind an alternative, in a group and with large bounds."""
    for pattern in (r"(a+)+b", r"(?:x|(?:[a-z]*y?)*)z", r"(?:\w{1,64},?){2,500}", r"(?=(?:a*)*)"):
        assert max(repeats_in_repeats(re._parser.parse(pattern))) > TRIED_AT_MOST, pattern
    for pattern in (r"a+b*", r"(?:a++)+b", r"(?:[^x]|\\.)*+x", r"(?:ab{3})*c"):
        assert list(repeats_in_repeats(re._parser.parse(pattern))) == [], pattern
