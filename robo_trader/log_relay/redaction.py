"""The structlog processor that takes secrets out of a line before anyone else sees it.

Owns: walking an event without changing what its caller holds, the bounds of that walk, and what happens when
it fails. It must not know how a secret looks or where the line goes next. Read `secret_rules` next.

Place it behind everything that adds text (context, callsite, the formatted exception) and in front of everything
that ships or prints. A value is redacted when its key names a secret, or where its text looks like one, in nested
dicts, lists, tuples, sets, dataclasses and bytes. Any other object becomes its redacted `repr`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from .secret_rules import MARK, Rules
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

_KEYS = 4_096
"""Key names whose judgement is remembered; then all are forgotten. A trader has a few hundred."""

_SHORTEST = 6
"""No text below this length can hold a secret and the sign of it (`pwd=ab`)."""

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


class _Judgement(NamedTuple):
    """What a key's name means for its value."""

    secret: bool
    plural: bool
    """`tokens=512` counts something: numbers under a plural stay."""
    shown: str
    """The key as it may be shown: a key can itself be a secret (a dict keyed by tokens)."""


class Redactor:
    """A structlog processor: takes secrets out of the event dict and returns that same dict.

    The event dict itself is changed in place (it belongs to the chain); containers inside it belong to the
    caller and are copied where something in them must change. Never raises `Exception`: a value that cannot
    be looked at is replaced as a whole and counted in `failures`. Safe to call from any thread, also nested
    (a `__repr__` that logs): it takes no lock.

    `keys` are further key names to treat as secret, `allow` names never to treat so, `known` are secrets by
    value (see `secret_rules.from_environment`), `trusted` are keys whose values the chain itself wrote.
    """

    def __init__(
        self,
        *,
        keys: Iterable[str] = (),
        allow: Iterable[str] = (),
        known: Iterable[str] = (),
        trusted: Iterable[str] = ("timestamp", "level"),
    ) -> None:
        self._rules = Rules(keys=keys, allow=allow, known=known)
        self._may_hold = self._rules.may_hold
        self._trusted = frozenset(trusted)
        self._judged: dict[str, _Judgement] = {}
        self._plain: set[str] = set()
        """Those of `_judged` that say nothing about their values."""
        self._clean: set[str] = set()
        self.failures = 0
        """Values replaced because looking at them failed."""
        self.cut = 0
        """Values cut because they were over a bound."""

    def __call__(self, _logger: Any, _method_name: str, event_dict: MutableMapping[str, Any]) -> Any:
        """Redact `event_dict` in place and return it. Anything else than a dict is redacted as a value."""
        if type(event_dict) is not dict:
            return self._safely(event_dict, 0, [MAX_NODES])
        if "exc_info" in event_dict:
            self._format_exception(event_dict)
        plain, clean, trusted = self._plain, self._clean, self._trusted
        changes: list[tuple[Any, _Judgement, Any]] | None = None
        budget: list[int] | None = None
        for key, value in event_dict.items():
            if key in plain:  # nearly every field ends here
                kind = type(value)
                if kind in _PLAIN or (kind is str and value in clean):
                    continue
            if key in trusted:
                continue
            judgement = self._judged.get(key)
            if judgement is None:
                judgement = self._judge(key)
            if budget is None:
                budget = [MAX_NODES]
            new = self._under(judgement, value, 0, budget)
            if new is not value or judgement.shown is not key:
                if changes is None:
                    changes = []
                changes.append((key, judgement, new))
        if changes is not None:
            for key, judgement, new in changes:
                if judgement.shown is not key:
                    del event_dict[key]
                event_dict[judgement.shown] = new
        return event_dict

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
                return _Judgement(secret=False, plural=False, shown=key)
            else:
                name = str(key)
            secret, plural = self._rules.name(name)
            shown = self._rules.scrub(name[:MAX_TEXT])
        except Exception as error:
            self.failures += 1
            return _Judgement(secret=True, plural=False, shown=_failed(key, error))
        judgement = _Judgement(secret, plural, key if shown == name else shown)
        if type(key) is str and len(key) <= _CLEAN_LENGTH:
            if len(self._judged) >= _KEYS:
                self._judged.clear()
                self._plain.clear()
            self._judged[key] = judgement
            if not secret and judgement.shown is key:
                self._plain.add(key)
        return judgement

    def _under(self, judgement: _Judgement, value: Any, depth: int, budget: list[int]) -> Any:
        """Redact a value that stands under a key."""
        if judgement.secret:
            kind = type(value)
            if kind in _COUNTS or (judgement.plural and kind in (int, float)):
                return value
            if kind is str and (not value or value == MARK):
                return value
            return MARK
        return self._safely(value, depth, budget)

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
            held = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value) if f.repr}
            return self._fields(value, held, depth, budget)
        return self._object(value)

    def _text(self, text: str) -> str:
        if text in self._clean or len(text) < _SHORTEST:
            return text
        if len(text) > MAX_TEXT:
            self.cut += 1
            head = text[:MAX_TEXT]
            whole = max(head.rfind(" ", -_TORN), head.rfind("\n", -_TORN))
            head = head[: whole if whole >= 0 else MAX_TEXT - _TORN]
            return f"{self._rules.scrub(head)} [{len(text) - len(head)} more characters not shown]"
        if self._may_hold(text):
            new = self._rules.scrub(text)
            if new != text:
                return new
        if len(text) <= _CLEAN_LENGTH:
            if len(self._clean) >= _CLEAN_TEXTS:
                self._clean.clear()
            self._clean.add(text)
        return text

    def _mapping(self, value: Mapping[Any, Any], depth: int, budget: list[int]) -> Any:
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
            new = self._under(judgement, item, depth + 1, budget)
            changed = changed or new is not item or judgement.shown is not key
            out[judgement.shown] = new
        if "value" in out and isinstance(name := out.get("name", out.get("key")), str):  # {"name":, "value":}
            new = self._under(self._judge(name), out["value"], depth + 1, budget)
            changed = changed or new is not out["value"]
            out["value"] = new
        return out if changed else value

    def _sequence(self, value: Iterable[Any], depth: int, budget: list[int]) -> Any:
        changed = False
        out: list[Any] = []
        for item in value:
            budget[0] -= 1
            if budget[0] < 0:
                self.cut += 1
                out.append(_TOO_MANY)
                changed = True
                break
            new = self._safely(item, depth + 1, budget)
            changed = changed or new is not item
            out.append(new)
        if len(out) == 2 and isinstance(out[0], (str, bytes)):  # a header: ("X-Api-Key", "...")
            new = self._under(self._judge(out[0]), out[1], depth + 1, budget)
            changed = changed or new is not out[1]
            out[1] = new
        if not changed:
            return value
        return tuple(out) if isinstance(value, tuple) else out

    def _fields(self, value: Any, held: dict[str, Any], depth: int, budget: list[int]) -> Any:
        """Redact a dataclass or namedtuple: it stays what it is, or becomes a dict of its fields."""
        new = self._mapping(held, depth, budget)
        return value if new is held else new

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


def _failed(value: Any, error: Exception) -> str:
    """Make the note for a value that could not be looked at: types only, both texts may hold anything."""
    return f"[redacted: {type(value).__name__} could not be inspected, {type(error).__name__}]"
