"""Takes secrets out of a line before anyone else sees it.

Owns: walking an event without changing what its caller holds, the bounds of that walk, what happens when it fails,
and the settings. It must not know how a secret looks, structlog, or where the line goes next. The walk is one
recursion, which is why it stays in one module. Read `secret_rules` next.

Place it behind everything that adds text (context, callsite, the formatted exception) and in front of everything
that ships or prints. A value is redacted when its key names a secret, or where its text looks like one, in nested
dicts, lists, tuples, sets, dataclasses and bytes. Any other object becomes its redacted `repr`. docs/redaction.md says
what is found.
"""

from __future__ import annotations

import dataclasses
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final, NamedTuple
from uuid import UUID

from . import arguments, environment
from .known_secrets import from_environment
from .secret_names import Meaning, hides, hides_number
from .secret_rules import LOGIN_KEYS, Rules, is_login
from .secret_shapes import MARK, is_seed_phrase
from .serializer import traceback_text

MAX_TEXT = 65_536
"""Characters of one string that are looked at; the rest is cut off, because what nobody looked at must not
leave, and no frame to the relay can hold more than 64 KiB anyway."""

MAX_NODES = 5_000
"""Values looked at in one line. A line is read by a person: more than this is a dump, and 5,000 nodes keep
the walk under about 2 ms. What lies behind is replaced by a note."""

MAX_DEPTH = 16
"""Nesting that is followed, the depth of a frame in docs/protocol.md; it also ends circular values."""

_TORN = 256
"""How far back from the cut of a long string its last word may begin; a torn secret may look like none."""

_CLEAN_TEXTS = 4_096
"""Short strings remembered as holding nothing (event names, symbols, logger names); then all are dropped."""

_CLEAN_LENGTH = 64
"""Longest string worth remembering: 4,096 of them are at most about 0.5 MiB."""

_FORM_LENGTH = 256
"""Longest text whose form is remembered: 4,096 of them are at most about 1.2 MiB."""

_FORM_DIGITS = 12
"""Digits of a text whose form is remembered; what has a check digit, a card's number or an IBAN, has more."""

_FORM: bytes = bytes(0x30 if 0x30 <= c <= 0x39 else c for c in range(256))
"""Turns every digit into `0`. Lines of one kind differ in their numbers only, and no rule but those that `_has_form`
leaves out asks which digit it is: what holds no secret then holds none with other digits either."""

_NO_FORM = re.compile(rb"0=|[%\\]|[\w\-]{16}")
"""Where it matters which digit it is: tags of FIX, escapes, and long words, which may be known by their shape."""

_KEYS = 4_096
"""Key names whose judgement is remembered; then all are forgotten. A trader has a few hundred."""

_SHORTEST = 6
"""No text below this length can hold a secret and the sign of it (`pwd=ab`)."""

_SEED_WORDS = 12
"""Words of the shortest seed phrase of a wallet."""

_USER_OPTIONS = frozenset(["-u", "--user", "--proxy-user"])
"""Options of curl behind which stands `name:password`."""

_ARRAYS = frozenset(["numpy", "pandas", "polars", "pyarrow", "torch"])
"""Libraries whose objects stay what they are: numbers remain numbers, tables are shown by their shape."""

_TOO_DEEP = "[not shown: nested deeper than 16]"
_TOO_MANY = "[not shown: more than 5000 values in one line]"

_PLAIN: frozenset[type] = frozenset(
    [
        int,
        float,
        bool,
        type(None),
        Decimal,
        complex,
        Fraction,
        datetime,
        date,
        time,
        timedelta,
        timezone,
        UUID,
    ]
)
"""Types whose text cannot hold a secret of ours. Exact types only: a subclass may have its own text."""

_NUMBERS = (int, float, complex, Decimal, datetime, date, time, timedelta)
"""Their subclasses (a timestamp of pandas) are numbers and times for all behind us, whatever they print."""

_COUNTS: frozenset[type] = frozenset({bool, type(None)})
"""`has_token=True` and `password=None` say something useful and give nothing away."""


_INHERITED = frozenset([Meaning.OPAQUE, Meaning.KEY, Meaning.LOGIN, Meaning.PASSWORD, Meaning.CODE])
"""What a mapping hands on to those of its values whose own keys say nothing: `token={"raw": "..."}`."""


_ARGUMENTS = frozenset(["args", "params"])
"""Fields of a frame whose items have no names; in one that logs in they are keys and signatures."""


class _Judgement(NamedTuple):
    """What a key's name means for its value."""

    meaning: Meaning
    plural: bool
    """`tokens=512` counts something: numbers under a plural stay."""
    shown: Any
    """The key as it may be shown: a key can itself be a secret (a dict keyed by tokens)."""


DEFAULTS: Final = {"deny": "none", "keys": "none", "allow": "none", "trusted": "timestamp, level"}
"""What leaving one of these arguments out means, as an error says it."""


class Redactor:
    """Takes secrets out of events and texts. Never raises `Exception`, takes no lock, may be shared by all threads.

    A value that cannot be looked at is replaced as a whole and counted in `failures`. It may be called again while it
    runs (a `__repr__` that logs).

    `environ` (default: this process's environment) is read once, now: the values of its secrets are found wherever
    they stand (see `known_secrets.from_environment`), and it holds the settings: LOGRELAY_REDACT_ALLOW and
    LOGRELAY_REDACT_DENY (names, separated by commas, added to those given), LOGRELAY_REDACT_PERSONAL (on or off, used
    where `personal` is None). `deny` are names whose values are always hidden, `allow` names whose values are never
    hidden for their name; both are compared without case and punctuation, and `allow` wins. `personal` hides names of
    people, mail addresses and telephone numbers too. `known` are further secrets by value. `trusted` are keys whose
    values the chain itself wrote. `keys` is the former name of `deny`. `known_only` leaves out all rules but those
    about known values: for use behind a redactor of one's own.

    An argument of the wrong kind raises ValueError: its name, what was given, what is allowed. A text in the place of a
    list is one, for it would be taken for its letters.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        personal: bool | None = None,
        known: Iterable[str] = (),
        trusted: Iterable[str] = ("timestamp", "level"),
        keys: Iterable[str] = (),
        known_only: bool = False,
    ) -> None:
        if environ is None:
            environ = os.environ
        else:
            environ = arguments.texts_by_name("environ", environ, "the environment of this process")
        names = {"deny": deny, "keys": keys, "allow": allow, "trusted": trusted}
        given = {name: arguments.listed(name, value, "names", DEFAULTS[name]) for name, value in names.items()}
        secrets = arguments.listed("known", known, "texts", "none", secret=True)
        personal = arguments.optional("personal", personal, bool, "True, False", "LOGRELAY_REDACT_PERSONAL")
        self._rules = Rules(
            deny=[*given["deny"], *given["keys"], *environment.names("LOGRELAY_REDACT_DENY", environ)],
            allow=[*given["allow"], *environment.names("LOGRELAY_REDACT_ALLOW", environ)],
            known=[*secrets, *from_environment(environ)],
            personal=_personal(environ) if personal is None else personal,
            known_only=known_only,
        )
        self._scrub = self._rules.scrub
        self._known_only = known_only
        self._trusted = frozenset(given["trusted"])
        self._judged: dict[str, _Judgement] = {}
        self._plain: set[str] = set()
        """Those of `_judged` that say nothing about their values."""
        self._clean: set[str] = set()
        self._clean_forms: set[bytes] = set()
        """Forms of texts without a secret: a set of its own, because a text of bytes is no text."""
        self.failures = 0
        """Values replaced because looking at them failed."""
        self.cut = 0
        """Values cut because they were over a bound."""

    def __call__(self, _logger: Any, _method_name: str, event_dict: MutableMapping[str, Any]) -> Any:
        """Redact `event_dict` in place and return it, as a processor of structlog does.

        The event dict belongs to the chain; containers inside it belong to the caller and are copied where something in
        them must change. Anything else than a dict is redacted as a value.
        """
        if type(event_dict) is not dict:
            return self.value(event_dict)
        if "exc_info" in event_dict:
            self._format_exception(event_dict)
        changes = self._changes(event_dict)
        if changes is not None:
            for key, shown, new in changes:
                if shown is not key:
                    del event_dict[key]
                event_dict[shown] = new
        return event_dict

    def redact(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the event without its secrets: `event` itself if it has none, else a copy. Never changes `event`.

        `exc_info`, in any of its forms, becomes the text `exception`, unless there is one already: only as text can an
        exception be searched.
        """
        if "exc_info" in event:
            had = event.get("exception")
            event = dict(event)
            self._format_exception(event)
            if had is not None:
                event["exception"] = had
        changes = self._changes(event)
        if changes is None:
            return event
        new = {key: shown for key, shown, _ in changes}
        values = {key: value for key, _, value in changes}
        return {new.get(key, key): values.get(key, value) for key, value in event.items()}

    def value(self, value: Any) -> Any:
        """Return any value without its secrets: itself if it has none."""
        return self._safely(value, 0, [MAX_NODES])

    def text(self, text: str) -> str:
        """Return a text without its secrets: the same object if it has none. For text of any length, bounded."""
        try:
            return self._text(text)
        except Exception as error:
            self.failures += 1
            return _failed(text, error)

    def _changes(self, event: MutableMapping[str, Any]) -> list[tuple[Any, Any, Any]] | None:
        """Return what must change, as key, key as it may be shown, new value; None if nothing must."""
        plain, clean, trusted, simple = self._plain, self._clean, self._trusted, _PLAIN
        changes: list[tuple[Any, Any, Any]] | None = None
        budget: list[int] | None = None
        for key, value in event.items():
            kind = type(value)
            if key in plain:  # nearly every field ends here
                if kind is str:
                    if value in clean or key in trusted:
                        continue
                    new = self.text(value)
                    if new is not value:
                        changes = changes or []
                        changes.append((key, key, new))
                    continue
                if kind in simple:
                    continue
            if key in trusted:
                continue
            judgement = self._judged.get(key)
            if judgement is None:
                judgement = self._judge(key)
            if budget is None:
                budget = [MAX_NODES]
            new = self._under(judgement, value, 0, budget)
            if key in _ARGUMENTS and not self._known_only and any(is_login(event.get(said)) for said in LOGIN_KEYS):
                new = self._proof(new, 0)
            if new is not value or judgement.shown is not key:
                changes = changes or []
                changes.append((key, judgement.shown, new))
        return changes

    def _format_exception(self, event: MutableMapping[str, Any]) -> None:
        """Replace `exc_info` by the text `exception`, which can be searched; without an exception it just goes."""
        given = event.pop("exc_info")
        try:
            text = traceback_text(given)
        except Exception as error:
            self.failures += 1
            text = f"[exc_info was {type(given).__name__}: {type(error).__name__}]"
        if text is not None:
            event["exception"] = text

    def _judge(self, key: Any) -> _Judgement:
        """Judge a key and remember it. Keys of event dicts are strings; nested dicts may have any."""
        try:
            if isinstance(key, str):
                name = key
            elif isinstance(key, (bytes, bytearray)):
                name = bytes(key).decode("latin-1")
            elif type(key) in _PLAIN:
                return _Judgement(Meaning.NOTHING, plural=False, shown=key)
            else:
                name = str(key)
            meaning, plural = self._rules.meaning(name)
            shown = self._scrub(name[:MAX_TEXT])
        except Exception as error:
            self.failures += 1
            return _Judgement(Meaning.SECRET, plural=False, shown=_failed(key, error))
        judgement = _Judgement(meaning, plural, key if shown == name else shown)
        if type(key) is str and len(key) <= _CLEAN_LENGTH:
            if len(self._judged) >= _KEYS:
                self._judged.clear()
                self._plain.clear()
            self._judged[key] = judgement
            if meaning is Meaning.NOTHING and judgement.shown is key:
                self._plain.add(key)
        return judgement

    def _under(self, judgement: _Judgement, value: Any, depth: int, budget: list[int]) -> Any:
        """Redact a value that stands under a key."""
        meaning = judgement.meaning
        if meaning is Meaning.NOTHING:
            return self._safely(value, depth, budget)
        if type(value) in _COUNTS:
            return value
        try:
            return self._named(judgement, value, depth, budget)
        except Exception as error:
            self.failures += 1
            return _failed(value, error)

    def _named(self, judgement: _Judgement, value: Any, depth: int, budget: list[int]) -> Any:
        """Redact a value whose key means something."""
        meaning = judgement.meaning
        kind = type(value)
        if kind is str or isinstance(value, str):
            text = str.__str__(value)
            hidden = text != MARK and hides(meaning, text[:MAX_TEXT])
            return MARK if hidden else self._value(value, depth, budget)
        if kind is int or kind is float or isinstance(value, _NUMBERS):
            number = isinstance(value, (int, float)) and kind is not bool
            hidden = hides_number(meaning, value, plural=judgement.plural) if number else meaning is Meaning.SECRET
            return MARK if hidden else value
        if meaning is Meaning.SECRET:
            return MARK
        if isinstance(value, (bytes, bytearray, memoryview)):
            raw = bytes(value[:MAX_TEXT]).decode("latin-1")
            return MARK if hides(meaning, raw) else self._value(value, depth, budget)
        if isinstance(value, tuple) and meaning is Meaning.LOGIN and len(value) == 2 and type(value[1]) is str:
            return MARK
        if depth < MAX_DEPTH and meaning in _INHERITED and isinstance(value, Mapping):
            return self._mapping(value, depth, budget, judgement)
        if (
            depth < MAX_DEPTH
            and isinstance(value, (list, tuple, set, frozenset, deque))
            and not hasattr(kind, "_fields")
        ):
            return self._sequence(value, depth, budget, judgement)
        return self._value(value, depth, budget)

    def _proof(self, value: Any, depth: int) -> Any:
        """Return the arguments of a frame that logs in without what looks random: keys and signatures in a list."""
        if type(value) is str:
            return MARK if hides(Meaning.OPAQUE, value) else value
        if type(value) is list or type(value) is tuple:
            if depth < MAX_DEPTH:
                return [self._proof(item, depth + 1) for item in value[:MAX_NODES]]
        elif type(value) is dict and depth < MAX_DEPTH:
            return {key: self._proof(item, depth + 1) for key, item in value.items()}
        return value

    def _safely(self, value: Any, depth: int, budget: list[int]) -> Any:
        try:
            return self._value(value, depth, budget)
        except Exception as error:
            self.failures += 1
            return _failed(value, error)

    def _value(self, value: Any, depth: int, budget: list[int]) -> Any:
        """Return `value` itself if it holds no secret, else what may be shown instead."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is str:
            return self._text(value)
        if depth < MAX_DEPTH:  # the usual containers first: asking for an abstract class is slow
            if kind is dict:
                return self._mapping(value, depth, budget)
            if kind is list or kind is tuple:
                return self._sequence(value, depth, budget)
        if isinstance(value, str):
            raw = str.__str__(value)
            new = self._text(raw)
            return value if new is raw else new
        if isinstance(value, (bytes, bytearray, memoryview)):
            raw = bytes(value[: MAX_TEXT + 1]).decode("latin-1")
            new = self._text(raw)
            return value if new is raw else new.encode("latin-1", "replace")
        if depth >= MAX_DEPTH and _is_container(value):
            self.cut += 1
            return _TOO_DEEP
        if isinstance(value, Mapping):
            return self._mapping(value, depth, budget)
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return self._fields(value, dict(zip(kind._fields, value, strict=False)), depth, budget)
        if isinstance(value, (list, tuple, set, frozenset, deque)):
            return self._sequence(value, depth, budget)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value) if f.repr}
            return self._fields(value, fields, depth, budget)
        return self._object(value)

    def _text(self, text: str) -> str:
        if text in self._clean or len(text) < _SHORTEST:
            return text
        if len(text) > MAX_TEXT:
            self.cut += 1
            head = text[:MAX_TEXT]
            whole = max(head.rfind(" ", -_TORN), head.rfind("\n", -_TORN))
            head = head[: whole if whole >= 0 else MAX_TEXT - _TORN]
            return f"{self._scrub(head)} [{len(text) - len(head)} more characters not shown]"
        form = None
        if len(text) <= _FORM_LENGTH and text.isascii():
            form = text.encode().translate(_FORM)
            if form in self._clean_forms and not self._rules.knows(text):
                return text
        new = self._scrub(text)
        if new is not text:
            return new
        if form is not None and _has_form(form):
            if len(self._clean_forms) >= _CLEAN_TEXTS:
                self._clean_forms.clear()
            self._clean_forms.add(form)
        if len(text) <= _CLEAN_LENGTH:
            if len(self._clean) >= _CLEAN_TEXTS:
                self._clean.clear()
            self._clean.add(text)
        return text

    def _mapping(self, value: Mapping[Any, Any], depth: int, budget: list[int], over: _Judgement | None = None) -> Any:
        """Redact the values of a mapping, each under its own key, or under the mapping's if that says nothing."""
        changed = False
        out: dict[Any, Any] = {}
        for key, item in value.items():
            budget[0] -= 1
            if budget[0] < 0:
                self.cut += 1
                out["..."] = _TOO_MANY
                return out
            judgement = self._judged.get(key) if type(key) is str else None
            if judgement is None:
                judgement = self._judge(key)
            if judgement.meaning is Meaning.NOTHING and type(item) in _PLAIN:
                changed = changed or judgement.shown is not key
                out[judgement.shown] = item
                continue
            if over is not None and judgement.meaning is Meaning.NOTHING and not self._rules.describes(key):
                new = self._under(over, item, depth + 1, budget)
            else:
                new = self._under(judgement, item, depth + 1, budget)
            changed = changed or new is not item or judgement.shown is not key
            out[judgement.shown] = new
        name = out.get("name", out.get("key"))
        if "value" in out and isinstance(name, str):  # {"name": ..., "value": ...}
            new = self._under(self._judge(name), out["value"], depth + 1, budget)
            changed = changed or new is not out["value"]
            out["value"] = new
        if (
            not _ARGUMENTS.isdisjoint(out)
            and not self._known_only
            and any(key in out and is_login(out[key]) for key in LOGIN_KEYS)
        ):
            return {k: self._proof(item, depth) if k in _ARGUMENTS else item for k, item in out.items()}
        return out if changed else value

    def _sequence(
        self, value: Iterable[Any], depth: int, budget: list[int], judgement: _Judgement | None = None
    ) -> Any:
        """Redact the items of a sequence, each on its own, under the name of the sequence, or as an argument."""
        changed = False
        out: list[Any] = []
        option: _Judgement | None = None
        for item in value:
            budget[0] -= 1
            if budget[0] < 0:
                self.cut += 1
                out.append(_TOO_MANY)
                changed = True
                break
            if option is not None:  # ["bot", "--api-secret", "..."]
                new = self._under(option, item, depth + 1, budget)
            elif judgement is not None:
                new = self._under(judgement, item, depth + 1, budget)
            else:
                new = self._safely(item, depth + 1, budget)
            option = None
            if type(item) is str and not self._known_only:
                if item[:1] == "-" and 3 < len(item) <= _CLEAN_LENGTH and "=" not in item and new is item:
                    option = self._judge(item)
                elif out and type(out[-1]) is str and out[-1] in _USER_OPTIONS and ":" in item and new is item:
                    new = f"{item.partition(':')[0]}:{MARK}"
            changed = changed or new is not item
            out.append(new)
        if len(out) == 2 and isinstance(out[0], (str, bytes)) and len(out[0]) > 2:  # a header: ("X-Api-Key", "...")
            new = self._under(self._judge(out[0]), out[1], depth + 1, budget)
            changed = changed or new is not out[1]
            out[1] = new
        elif len(out) >= _SEED_WORDS and is_seed_phrase(out) and not self._known_only:
            return MARK
        if not changed:
            return value
        return tuple(out) if isinstance(value, tuple) else out

    def _fields(self, value: Any, fields: dict[str, Any], depth: int, budget: list[int]) -> Any:
        """Redact a dataclass or namedtuple: it stays what it is, or becomes a dict of its fields."""
        new = self._mapping(fields, depth, budget)
        return value if new is fields else new

    def _object(self, value: Any) -> Any:
        """Turn any other object into its redacted `repr`, so that nobody behind us has to ask it again.

        Objects may run any code when asked, even log themselves; then the inner line names only the type.
        """
        if isinstance(value, type) or (isinstance(value, _NUMBERS) and not isinstance(value, Enum)):
            return value
        if isinstance(value, PurePath):
            return value if self._text(str(value)) == str(value) else self._text(str(value))
        if isinstance(value, Enum):
            return value if self._value(value.value, MAX_DEPTH - 1, [MAX_NODES]) is value.value else MARK
        if _asking.depth:
            return f"<{type(value).__name__}>"
        _asking.depth += 1
        try:
            # The last line of a traceback is how people know an exception.
            text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
        finally:
            _asking.depth -= 1
        new = self._text(text)
        kept = type(value).__module__.partition(".")[0] in _ARRAYS and new is text
        return value if kept else new


class _Asking(threading.local):
    depth = 0


_asking = _Asking()
"""How many objects of this thread are being asked for their `repr` right now."""


def _is_container(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple, set, frozenset, deque)) or dataclasses.is_dataclass(value)


def _has_form(form: bytes) -> bool:
    """Tell whether it makes no difference for the rules which digits stand where `form` has a zero."""
    digits = form.count(b"0")
    return 0 < digits <= _FORM_DIGITS and _NO_FORM.search(form) is None


def _failed(value: Any, error: Exception) -> str:
    """Make the note for a value that could not be looked at: types only, both texts may hold anything."""
    return f"[redacted: {type(value).__name__} could not be inspected, {type(error).__name__}]"


def _personal(environ: Mapping[str, str]) -> bool:
    """Read LOGRELAY_REDACT_PERSONAL. A typing error hides more rather than less, and is said on stderr."""
    said = environ.get("LOGRELAY_REDACT_PERSONAL", "")
    try:
        return environment.flag(said)
    except ValueError as error:
        environment.warn_once(f"LOGRELAY_REDACT_PERSONAL={error}; using on")
        return True


Redact = bool | Redactor | Callable[[dict[str, Any]], dict[str, Any]]
"""What a processor may be told: the default rules or none, a redactor with settings, or a function of one's own."""


def check_redact(redact: Any) -> None:
    """Raise ValueError for what cannot say how secrets are taken out."""
    if redact is not None and not isinstance(redact, bool) and not callable(redact):
        raise arguments.wrong("redact", redact, "True, False, a Redactor or a function", "the default rules")


def redaction_of(redact: Redact) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """Return what takes the secrets out of an event that is about to be shipped; None if nothing is to do that.

    Raises ValueError for what is none of the possibilities.
    """
    check_redact(redact)
    if isinstance(redact, Redactor):
        return redact.redact
    if isinstance(redact, bool) or redact is None:
        return None if redact is False else Redactor().redact
    return OwnRedaction(redact).redact


class OwnRedaction:
    """A function of the bot's own, and behind it what hides the secrets of the environment.

    The function gets a dict that it may change, and returns the event to be shipped. If it fails, nothing of the event
    is shipped but a note and where it came from.
    """

    def __init__(self, function: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._function = function
        self._known = Redactor(known_only=True)
        self.failures = 0
        """Events that were replaced by a note."""

    def redact(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the event as the function returns it, without the secrets of the environment."""
        try:
            shown = self._function(dict(event))
            if type(shown) is not dict:
                raise TypeError(type(shown).__name__)  # noqa: TRY301 - handled like the function's own
        except Exception as error:
            self.failures += 1
            shown = {key: event[key] for key in ("level", "logger") if key in event}
            shown["event"] = f"[redacted: the redactor failed, {type(error).__name__}]"
        return self._known.redact(shown)


def without_torn_words(value: Any, cut: str, depth: int = 0) -> Any:
    """Return a plain value whose texts do not end or begin with a part of a word where they were cut.

    `cut` is the mark that stands there. A part of a secret may look like none, so it must not be what is judged.
    """
    if type(value) is str:
        if value.endswith(cut):
            head = value[: -len(cut)]
            end = max(head.rfind(" ", -_TORN), head.rfind("\n", -_TORN))
            value = head[: end if end >= 0 else max(len(head) - _TORN, 0)] + cut
        if value.startswith(cut) and len(value) > len(cut):
            ends = [at for at in (value.find(" ", 0, _TORN), value.find("\n", 0, _TORN)) if at >= 0]
            value = cut + value[min(ends, default=_TORN) :]
    elif depth < MAX_DEPTH:
        if type(value) is dict:
            return {key: without_torn_words(item, cut, depth + 1) for key, item in value.items()}
        if type(value) is list:
            return [without_torn_words(item, cut, depth + 1) for item in value]
    return value
