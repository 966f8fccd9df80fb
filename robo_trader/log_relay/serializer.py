"""Any Python value as a plain, bounded copy that msgpack can pack without running anybody's code.

Owns: what becomes of each kind of value on its way to the relay, the bounds on text, items, nodes and depth, and the
placeholders for values that cannot be shown. It must not know sockets, levels or who logs, and of frames only how
deep they may nest; it keeps no reference to what it copied. `processor` calls it for every event that is more than
short text and numbers. Read `frames` next.

Only here may foreign code run (a `__repr__`, a property, a `tzinfo`), and whatever it does ends as a placeholder. Only
`Exception` is caught: KeyboardInterrupt and SystemExit are meant for the caller.

The module is longer than others because every kind of value has its few lines in one class, which shares the bounds.
"""

# ruff: noqa: SLF001 - the table of converters at the end is the second half of the class

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import math
import os
import pathlib
import re
import sys
import threading
import traceback
import types
import uuid
from collections.abc import Callable, Container, Iterable, MutableMapping
from itertools import islice
from typing import Any, Final, NamedTuple

from .frames import MAX_DEPTH

MARK: Final = "_truncated"
"""The event key that says what was cut: the names of up to `MARKED` top-level keys."""
MARKED: Final = 8
CUT: Final = "\u2026"
"""Stands where something was left out."""
HIDDEN: Final = frozenset({"_record", "_from_structlog"})
"""Keys of structlog's ProcessorFormatter: a LogRecord and a flag, never meant for a reader. A single one is the
caller's."""
FIRST: Final = ("event", "logger", "exception")
"""Keys that are copied before all others, so that a bound never costs the sentence itself."""
TRACEBACK_ENTRIES: Final = 100
"""Innermost frames kept of each traceback; a runaway recursion has a thousand that say the same."""
MAX_DIGITS: Final = 4_000
"""Decimal digits up to which an int is written in decimal; Python refuses beyond 4,300, so then it is hex."""
ARRAYS: Final = frozenset(
    {
        "cudf",
        "dask",
        "jax",
        "jaxlib",
        "modin",
        "numpy",
        "pandas",
        "polars",
        "pyarrow",
        "tensorflow",
        "torch",
        "xarray",
    }
)
"""Libraries whose objects are too big to be shown whole and slow to be shown at all: shape instead of repr."""


_UNIT: Final = re.compile(r"\[(\d*)(\w+)\]")
"""The unit of a numpy or Arrow time, and how many of it count as one: `<m8[ns]`, `<m8[25s]`, `duration[us]`."""
_SECONDS: Final = {"W": 604_800, "D": 86_400, "h": 3_600, "m": 60, "s": 1}
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FRACTIONS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9, "ps": 12, "fs": 15, "as": 18}
"""Decimal places of a second."""


class Bounds(NamedTuple):
    """How much of an event is copied."""

    text: int
    """Characters of one string, bytes of one bytes object."""
    items: int
    """Entries of one container."""
    nodes: int
    """Values in the whole event, containers included: bounds the time."""
    room: int
    """Characters in the whole event: bounds the memory."""


ROUNDS: Final = (
    Bounds(text=16_384, items=256, nodes=4_096, room=65_536),
    Bounds(text=4_096, items=64, nodes=1_024, room=16_384),
    Bounds(text=512, items=16, nodes=256, room=8_192),
    Bounds(text=128, items=8, nodes=48, room=4_096),
)
"""Tried in order until the event fits in a frame. The last always does: 4,096 characters are at most 24 KiB
(six bytes each when escaped), plus a few bytes for each of 48 nodes."""


class Copied(NamedTuple):
    """A bounded copy of an event, and what had to be done to it."""

    event: dict[str, Any]
    cut: list[str]
    """Top-level keys whose values are not whole; empty: nothing was left out."""
    faults: int
    """Values that could not be shown because their own code failed."""


class _Nesting(threading.local):
    depth = 0


_nesting = _Nesting()

_base_text: Final[Callable[[Any], str]] = str.__str__
_name_of: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__
_mro_of: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__


def copy(source: dict[Any, Any], bounds: Bounds) -> Copied:
    """Return a copy of `source` that shares nothing mutable with it.

    Runs the values' own code (their repr) at most one level deep: an object whose repr logs itself gets its
    own line, and a placeholder in that line.
    """
    depth = _nesting.depth
    try:
        _nesting.depth = depth + 1
        return _Copier(bounds, trusting=depth == 0).event(source)
    finally:
        _nesting.depth = depth


def free_name(name: str, *taken: Container[str]) -> str:
    """Return the name under which a field of the caller's is kept when `name` is ours: underscores until it is free."""
    name += "_"
    while any(name in names for names in taken):
        name += "_"
    return name


def set_aside(event: MutableMapping[str, Any], key: str, *taken: Container[str]) -> None:
    """Rename what the caller has under `key`, if anything, because we are about to write there."""
    if key in event:
        event[free_name(key, event, *taken)] = event.pop(key)


def type_name(value: object) -> str:
    """Return the name of a value's type without asking the value or its metaclass."""
    return _clean(_name_of(type(value)))[:80]


def text_of(value: Any) -> str:
    """Return what a rendered line says: text as it is, bytes decoded, anything else as a placeholder."""
    kind = type(value)
    if issubclass(kind, str):
        text: str = _base_text(value)
        return _clean(text[: ROUNDS[0].text])
    if kind is bytes:
        data: bytes = value
        return data[: ROUNDS[0].text].decode("utf-8", "backslashreplace")
    return f"<{type_name(value)}>"


def traceback_text(exc_info: object) -> str | None:
    """Return the traceback that structlog's `exc_info` stands for, or None when there is none.

    Understands all its forms: True, an exception, the three-tuple, and false values. Keeps no reference.
    """
    error: Any
    if issubclass(type(exc_info), BaseException):
        error = exc_info
    elif type(exc_info) is tuple:
        error = exc_info[1] if len(exc_info) == 3 and issubclass(type(exc_info[1]), BaseException) else None
    else:
        error = sys.exc_info()[1] if exc_info else None
    if error is None:
        return None
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-TRACEBACK_ENTRIES)
        return "".join(lines).rstrip("\n")
    finally:
        del error


def _clean(text: str) -> str:
    """Return `text` with lone surrogates escaped, so that it is valid UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


class _Copier:
    __slots__ = ("bounds", "cut", "faults", "nodes", "room", "trusting")

    def __init__(self, bounds: Bounds, *, trusting: bool) -> None:
        self.bounds = bounds
        self.trusting = trusting
        self.nodes = bounds.nodes
        self.room = bounds.room
        self.cut = False
        self.faults = 0

    def event(self, source: dict[Any, Any]) -> Copied:
        hidden = HIDDEN if dict.keys(source) >= HIDDEN else ()
        pairs = list(islice(dict.items(source), self.bounds.items))
        whole = len(pairs) == dict.__len__(source)
        out: dict[str, Any] = {}
        names: list[str] = []
        late: list[tuple[Any, Any]] = []
        for name in FIRST:
            if dict.__contains__(source, name):
                self._put(out, name, dict.__getitem__(source, name), names)
        for key, value in pairs:
            if type(key) is str:
                if key in out or key in hidden:
                    continue
                if key == "exc_info":
                    self._exc_info(out, value, names)
                    continue
            late.append((key, value))
        for key, value in late:
            self._put(out, self._key(key, out), value, names)
        if not whole:
            names.append(CUT)
        if names:
            set_aside(out, MARK)
        return Copied(out, names[:MARKED], self.faults)

    def _put(self, out: dict[str, Any], key: str, value: Any, names: list[str]) -> None:
        self.cut = False
        out[key] = self.value(value, 2)
        if self.cut:
            names.append(key[:64])

    def _exc_info(self, out: dict[str, Any], value: Any, names: list[str]) -> None:
        if "exception" in out:
            return
        try:
            text = traceback_text(value)
        except Exception as error:
            self.faults += 1
            text = f"<traceback ({type_name(error)})>"
        if text is not None:
            bound = min(self.bounds.text, max(self.room, 1))
            if len(text) > bound:
                # The end of a traceback says what happened; the beginning only how the program started.
                text = CUT + text[-bound:]
                names.append("exception")
            self.room -= len(text)
            out["exception"] = _clean(text)

    def value(self, value: Any, depth: int) -> Any:
        """Return the plain copy of one value; `depth` is what a container here would be at."""
        kind = type(value)
        self.nodes -= 1
        if kind is str:
            return self._text(value)
        if kind is float or kind is bool or value is None:
            return value
        if kind is int:
            return value if -(2**63) <= value < 2**64 else self._big(value)
        if self.nodes < 0:
            self.cut = True
            return CUT
        try:
            convert = _CONVERT.get(kind)
            if convert is None:
                convert = self._choose(kind)
            return convert(self, value, depth)
        except Exception as error:
            self.faults += 1
            return f"<{type_name(value)} ({type_name(error)})>"

    def _choose(self, kind: type) -> _Convert:
        for base in _mro_of(kind):
            known = _CONVERT.get(base) or _LIBRARY.get((_library_of(base), _name_of(base)))
            if known is not None:
                return known
        if _library_of(kind) in ARRAYS:
            return _Copier._array
        if dataclasses.is_dataclass(kind):
            return _Copier._dataclass
        return _Copier._shown

    def _text(self, text: str) -> str:
        bound = self.bounds.text
        if len(text) > bound or len(text) > self.room:
            self.cut = True
            text = text[: max(min(bound, self.room), 0)] + CUT
        self.room -= len(text)
        return _clean(text)

    def _key(self, key: Any, taken: dict[str, Any]) -> str:
        name: str
        if type(key) is not str:
            if issubclass(type(key), str):
                key = _base_text(key)
            else:
                shown = self.value(key, MAX_DEPTH)
                key = shown if type(shown) is str else repr(shown)
        key = name = self._text(key)
        # Two keys may become one (1 and "1", or two cut at the same place); neither value may vanish for it.
        twin = 2
        while name in taken and twin <= self.bounds.items:
            name = f"{key}#{twin}"
            twin += 1
        return name

    def _big(self, value: int) -> str:
        if value.bit_length() * 0.30103 < MAX_DIGITS:
            return self._text(int.__str__(value))
        if value.bit_length() > self.bounds.text * 4:
            self.cut = True
            return f"<int of {value.bit_length()} bits>"
        return self._text(hex(value))

    def _list(self, values: Iterable[Any], depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.cut = True
            return CUT
        bound = self.bounds.items
        taken = list(islice(values, bound + 1))
        out = []
        for value in taken[:bound]:
            if self.nodes < 0:
                break
            out.append(self.value(value, depth + 1))
        if len(out) < len(taken):
            self.cut = True
            out.append(CUT)
        return out

    def _dict(self, items: Iterable[tuple[Any, Any]], depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.cut = True
            return CUT
        bound = self.bounds.items
        taken = list(islice(items, bound + 1))
        out: dict[str, Any] = {}
        for key, value in taken[:bound]:
            if self.nodes < 0:
                break
            out[self._key(key, out)] = self.value(value, depth + 1)
        if len(out) < len(taken):
            self.cut = True
            out[CUT] = CUT
        return out

    def _mapping(self, value: Any, depth: int) -> Any:
        return self._dict(iter(value.items()), depth)

    def _dataclass(self, value: Any, depth: int) -> Any:
        fields = dataclasses.fields(value)
        return self._dict(((f.name, getattr(value, f.name)) for f in fields if f.repr), depth)

    def _bytes(self, value: Any, _depth: int) -> bytes:
        bound = max(min(self.bounds.text, self.room), 0)
        size = memoryview(value).nbytes
        if size > bound:
            self.cut = True
        self.room -= min(size, bound)
        if type(value) is memoryview:
            # A strided or typed view cannot be sliced by bytes; a contiguous one is not copied whole.
            return bytes(value.cast("B")[:bound]) if value.c_contiguous else value.tobytes()[:bound]
        return bytes(memoryview(value)[:bound])

    def _exception(self, value: BaseException, _depth: int) -> str:
        said = str(value) if self.trusting else ""
        if type(said) is not str:
            said = _base_text(said)
        name = type_name(value)
        return self._text(f"{name}: {said}" if said else name)

    def _enum(self, value: enum.Enum, _depth: int) -> str:
        name = value._name_
        # Flags that are combined, or none, have no name of their own in some versions of Python.
        return self._text(f"{type_name(value)}.{name}" if name is not None else f"{type_name(value)}({value._value_})")

    def _array(self, value: Any, depth: int) -> Any:
        shape = getattr(value, "shape", None)
        if shape is None or not issubclass(type(shape), tuple):
            return self._shown(value, depth)
        shape, dtype = tuple(shape), getattr(value, "dtype", None)
        timed = getattr(dtype, "kind", None) in _TIMED
        if timed and shape == () and callable(getattr(value, "ravel", None)):
            return self.value(value[()], depth)
        if shape == () and callable(getattr(value, "item", None)):
            plain = value.item()
            # A long double is one of those that give themselves: no plain number is as exact.
            return self.value(plain, depth) if type(plain) is not type(value) else self._text(_base_text(str(value)))
        size = getattr(value, "size", None)
        if size is None or callable(size):  # polars has none, and torch a method
            size = _product(shape)
        if type(size) is int and size <= self.bounds.items:
            if timed and callable(getattr(value, "__iter__", None)):
                return self._list(iter(value), depth)
            for name in ("tolist", "to_list"):
                if callable(listed := getattr(value, name, None)):
                    return self.value(listed(), depth)
        self.cut = True
        return self._text(f"<{type_name(value)} shape {shape}{'' if dtype is None else f' {dtype}'}>")

    def _record(self, value: Any, depth: int) -> Any:
        """Show a numpy record as the list of its fields; `item` would turn their times into integers."""
        names = value.dtype.names
        return (
            self._bytes(value.tobytes(), depth) if names is None else self._list((value[name] for name in names), depth)
        )

    def _duration(self, value: Any, depth: int) -> Any:
        """Show numpy's timedelta64, and pandas' Timedelta, which has one."""
        value = getattr(value, "asm8", value)
        unit = _UNIT.search(value.dtype.str)
        if _base_text(str(value)) == "NaT":
            return "NaT"
        count = int(value.view("i8"))
        return self.value(count, depth) if unit is None else _duration_text(count * int(unit[1] or 1), unit[2])

    def _arrow(self, value: Any, depth: int) -> Any:
        """Show an Arrow scalar as what it stands for; its own conversion knows no nanoseconds."""
        kind, name = value.type, type_name(value)
        if not value.is_valid:
            return None
        if name in ("DurationScalar", "Time32Scalar", "Time64Scalar", "TimestampScalar"):
            unit, count = kind.unit, value.value
            if name == "DurationScalar":
                return _duration_text(count, unit)
            whole, fraction = divmod(count, 10 ** _FRACTIONS[unit])
            if name != "TimestampScalar":
                clock = _EPOCH + dt.timedelta(seconds=whole)
                return clock.time().isoformat() + _decimals(fraction, unit)
            moment = (_EPOCH + dt.timedelta(seconds=whole)).isoformat()
            return moment.removesuffix("+00:00") + _decimals(fraction, unit) + ("" if kind.tz is None else "+00:00")
        if name in ("ListScalar", "LargeListScalar", "FixedSizeListScalar", "ListViewScalar", "LargeListViewScalar"):
            return self._list(iter(value.values), depth)
        if name in ("DictionaryScalar", "RunEndEncodedScalar", "UnionScalar"):
            return self.value(value.value, depth)
        if name == "StructScalar":
            return self._dict(iter(value.items()), depth)
        if callable(buffer := getattr(value, "as_buffer", None)) and (size := buffer().size) > self.bounds.text * 4:
            self.cut = True
            return f"<{name} of {size} bytes>"
        plain = value.as_py()
        return self.value(plain, depth) if type(plain) is not type(value) else self._shown(value, depth)

    def _arrow_array(self, value: Any, depth: int) -> Any:
        count = len(value)
        if count <= self.bounds.items:
            return self._list(iter(value), depth)
        self.cut = True
        return self._text(f"<{type_name(value)} shape ({count},) {value.type}>")

    def _shown(self, value: Any, _depth: int) -> str:
        if not self.trusting:
            self.faults += 1
            return f"<{type_name(value)}>"
        return self._text(_base_text(repr(value)))


_Convert = Callable[[_Copier, Any, int], Any]


def _as_list(base: Any) -> _Convert:
    """Return a converter that iterates as `base` does, whatever a subclass made of `__iter__`."""
    iterate = base.__iter__
    return lambda copier, value, depth: copier._list(iterate(value), depth)


def _as_text(show: Callable[[Any], str]) -> _Convert:
    return lambda copier, value, _depth: copier._text(show(value))


def _library_of(kind: type) -> str:
    module = kind.__module__
    return module.partition(".")[0] if type(module) is str else ""


def _product(shape: tuple[Any, ...]) -> int | None:
    return math.prod(shape) if all(type(side) is int for side in shape) else None


def _decimals(fraction: int, unit: str) -> str:
    """Return `.000000005` for 5 ns, and nothing for 0."""
    return f".{fraction:0{_FRACTIONS[unit]}d}".rstrip("0") if fraction else ""


def _duration_text(count: int, unit: str) -> str:
    """Return a duration in ISO 8601: `P1DT2H3M4.5S`, `-PT0.000000005S`, `P5M` for months; a sign stands in front."""
    sign, count = ("-", -count) if count < 0 else ("", count)
    if unit in ("Y", "M"):
        return f"{sign}P{count}{unit}"
    if unit in _SECONDS:
        whole, decimals = count * _SECONDS[unit], ""
    else:
        whole, fraction = divmod(count, 10 ** _FRACTIONS[unit])
        decimals = _decimals(fraction, unit)
    days, whole = divmod(whole, 86_400)
    hours, whole = divmod(whole, 3_600)
    minutes, seconds = divmod(whole, 60)
    date = f"{days}D" if days else ""
    clock = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    if seconds or decimals or not (date or clock):
        clock += f"{seconds}{decimals}S"
    return f"{sign}P{date}{'T' if clock else ''}{clock}"


def _whole(value: int) -> int:
    return int.__pos__(value)


_CONVERT: Final[dict[type, _Convert]] = {
    str: lambda copier, value, _: copier._text(_base_text(value)),
    int: lambda copier, value, depth: copier.value(_whole(value), depth),
    float: lambda _c, value, _d: float.__pos__(value),
    dict: lambda copier, value, depth: copier._dict(iter(dict.items(value)), depth),
    list: _as_list(list),
    tuple: _as_list(tuple),
    set: _as_list(set),
    frozenset: _as_list(frozenset),
    collections.deque: _as_list(collections.deque),
    types.MappingProxyType: _Copier._mapping,
    collections.ChainMap: _Copier._mapping,
    collections.UserDict: _Copier._mapping,
    type({}.keys()): _as_list(type({}.keys())),
    type({}.values()): _as_list(type({}.values())),
    bytes: _Copier._bytes,
    bytearray: _Copier._bytes,
    memoryview: _Copier._bytes,
    decimal.Decimal: _as_text(decimal.Decimal.__str__),
    dt.datetime: _as_text(dt.datetime.isoformat),
    dt.date: _as_text(dt.date.isoformat),
    dt.time: _as_text(dt.time.isoformat),
    dt.timedelta: _as_text(dt.timedelta.__str__),
    uuid.UUID: _as_text(str),
    fractions.Fraction: _as_text(str),
    ipaddress.IPv4Address: _as_text(str),
    ipaddress.IPv6Address: _as_text(str),
    ipaddress.IPv4Network: _as_text(str),
    ipaddress.IPv6Network: _as_text(str),
    pathlib.PurePath: _as_text(os.fspath),
    enum.Enum: _Copier._enum,
    BaseException: _Copier._exception,
}
"""By exact type first, then by the first base in the method resolution order: an IntEnum is an int before it is an
Enum."""

_LIBRARY: Final[dict[tuple[str, str], _Convert]] = {
    ("numpy", "datetime64"): _as_text(str),
    ("numpy", "timedelta64"): _Copier._duration,
    ("numpy", "void"): _Copier._record,
    ("numpy", "MaskedConstant"): lambda _c, _value, _d: None,  # its `item` is 0.0; in an array it is None
    # A Timestamp is a datetime, and NaT is one too, of the year 1: that is why these come before the standard library.
    ("pandas", "Timestamp"): _as_text(lambda value: value.isoformat()),
    ("pandas", "NaTType"): lambda _c, _value, _d: "NaT",
    ("pandas", "Timedelta"): _Copier._duration,
    ("pandas", "Period"): _as_text(str),
    ("pandas", "Interval"): _as_text(str),
    # Every scalar and every array of Arrow has one of these bases.
    ("pyarrow", "Scalar"): _Copier._arrow,
    ("pyarrow", "Array"): _Copier._arrow_array,
    ("pyarrow", "ChunkedArray"): _Copier._arrow_array,
}
"""The same by library and name: none of them is imported here."""

_TIMED: Final = frozenset("mMV")
"""Kinds of numpy arrays whose `tolist` and `item` give integers where there are times: they are copied item by item."""
