"""How the value of a setting is read, from text and from TOML.

Owns: `ValueType` and the few ways to make one. It must not know any setting. Pure. Read `config/settings` next: it is
the table that uses the types.

A reader raises ValueError for whatever is not allowed; the caller tells where the value stood and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_BINARY = {"kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB}
_DECIMAL = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS = {"": 1, "b": 1} | _BINARY | _DECIMAL
"""Suffixes of a size, compared without regard to case."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """One way of reading a value."""

    metavar: str
    """What stands for the value in `--help`."""
    allowed: str
    """What may be given, in words that follow "allowed: "."""
    from_text: Callable[[str], object]
    """Reads a flag or an environment variable."""
    from_toml: Callable[[object], object]
    """Reads a value as tomllib gives it: a number has to be a number there, not a string."""
    show: Callable[[object], str] = str
    """Writes a value so that a person, or the same option, can read it."""
    repeatable: bool = False
    """The option may be given several times; `from_text` gets what was given with blanks between."""


def whole(low: int, high: int) -> ValueType:
    """Make a type for a whole number from `low` to `high`."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError
        return value

    def parse(text: str) -> int:
        return check(int(_matching(r"[0-9]{1,20}", text)))

    return ValueType("N", f"a whole number from {low} to {high}", parse, check)


def number(low: float, high: float, unit: str) -> ValueType:
    """Make a type for a number from `low` to `high`, possibly with a fraction; or 0, which means "never"."""

    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError  # noqa: TRY004  (one exception means "not allowed")
        if value != 0 and not low <= value <= high:  # NaN is not in the range
            raise ValueError
        return float(value)

    def parse(text: str) -> float:
        return check(float(_matching(r"[0-9]{1,15}(\.[0-9]{1,15})?", text)))

    def show(value: object) -> str:
        return f"{value:g}"

    return ValueType("NUMBER", f"0, or a number of {unit} from {low:g} to {high:g}", parse, check, show)


def size(low: int, high: int, *, zero: bool = False) -> ValueType:
    """Make a type for a number of bytes, plain or with a unit such as MiB or GB; with `zero`, or 0: "never"."""

    def check(value: object) -> int:
        if isinstance(value, str):
            return parse(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError  # noqa: TRY004  (one exception means "not allowed")
        if not low <= value <= high and not (zero and value == 0):
            raise ValueError
        return value

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,20}) ?([a-zA-Z]{0,3})", text, re.ASCII)
        if match is None or match[2].lower() not in UNITS:
            raise ValueError
        return check(int(match[1]) * UNITS[match[2].lower()])

    allowed = f"{'0, or ' if zero else ''}bytes from {size_text(low)} to {size_text(high)}, plain or like 512MiB"
    return ValueType("SIZE", allowed, parse, check, size_text)


def choice(*words: str) -> ValueType:
    """Make a type for one of a few words in lower case, given in any case."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError
        return value.lower()

    return ValueType("|".join(words), " or ".join(words), check, check)


def address() -> ValueType:
    """Make a type for an IP address, in brackets or without, or a host name."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004  (one exception means "not allowed")
        inner = re.fullmatch(r"\[([0-9A-Fa-f:.]*:[A-Za-z0-9:.%_-]*)\]", value, re.ASCII)
        return _matching(r"[A-Za-z0-9._:%-]+", value if inner is None else inner[1])

    return ValueType("ADDRESS", "an IP address or a host name", check, check)


def text(pattern: str, allowed: str, metavar: str) -> ValueType:
    """Make a type for a string that matches `pattern` as a whole."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004  (one exception means "not allowed")
        return _matching(pattern, value)

    return ValueType(metavar, allowed, check, check)


def network() -> ValueType:
    """Make a type for an IP address or network, as text."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004  (one exception means "not allowed")
        if "%" in value:
            raise ValueError  # an address of one interface is no network
        ip_network(value, strict=False)
        return value

    return ValueType("ADDRESS|NETWORK", "an IP address like 10.0.0.2, or a network like 10.0.0.0/8", check, check)


def several(each: ValueType, most: int) -> ValueType:
    """Make a type for up to `most` values: with commas in a flag or a variable, an array in the file."""

    def check(value: object) -> tuple[object, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError
        return tuple(each.from_toml(item) for item in value)

    def parse(given: str) -> tuple[object, ...]:
        return check([part.strip() for part in given.split(",") if part.strip()])

    def show(value: object) -> str:
        return ",".join(value) if isinstance(value, tuple) else str(value)

    return ValueType(f"{each.metavar},...", f"at most {most}, each {each.allowed}", parse, check, show)


def size_text(count: object) -> str:
    """Write a number of bytes as a size is read: `1GiB`, `512MiB`, `1000`."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if isinstance(count, int) and count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def _matching(pattern: str, given: str) -> str:
    if not re.fullmatch(pattern, given, re.ASCII):
        raise ValueError
    return given
