"""What an alert rule is, and how it is read from the settings.

Owns: `AlertRule`, its defaults where only a URL is given, and the reading of `--alert` and of the tables `[[alert]]` in
the file. It must not know lines, services or when an alert is sent. Pure. Read `config/settings` next.

A URL names a service and mostly holds the secret to it, so no error and no text of this module repeats one, nor what
may be one in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import inf
from typing import Any, NamedTuple

from logrelay.config.value_types import ValueType
from logrelay.errors import ConfigError
from logrelay.model import ERROR, RANKS

STATE_KINDS = ("crashed", "gone", "quiet", "journal", "disk", "edge")
"""What lasts until it is over, and is followed by an alert that says so."""
LINE_KINDS = ("critical", "error", "gap", "lines")
"""What happens once or many times, and is counted. `lines` is what the conditions of the rule itself ask for."""
KINDS = (*STATE_KINDS, *LINE_KINDS)
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != "lines")

MAX_RULES = 16
"""Nobody reads more; each line is compared with every rule."""
MAX_URL_CHARS = 2048
MAX_NAME_CHARS = 40
MAX_PATTERNS = 32
"""Globs of one kind in a rule, as in a filter of a viewer (`fanout.filters`, whose bounds these three repeat)."""
MAX_WHERE = 16
"""Conditions on fields."""
MAX_PATTERN_CHARS = 256
"""Of one glob, text or condition."""
SHOWN_CHARS = 60
"""How much of a wrong value an error repeats."""
MAX_RATE = 10_000
"""Lines that a rate may ask for: so many times are remembered for each such rule."""

LINE_COOLDOWN_S = 900.0
"""Between two alerts about the same problem: a count four times an hour is enough to see whether it gets worse."""
STATE_COOLDOWN_S = 300.0
"""The same for states: a bot that crashed, came back and crashed for good is told of after five minutes at the most."""
MAX_PER_HOUR = 20
"""Alerts of one rule in an hour; whoever gets more turns them off. What is beyond comes in a summary."""
QUIET_AFTER_S = 1800.0
"""Half an hour without a line: most bots say something every minute, and a feed that reconnects takes a few."""
MIN_COOLDOWN_S, MAX_SECONDS = 1.0, 30 * 86_400.0

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 1440

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([smhd])")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\0]+")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")
_RATE = re.compile(r"([0-9]{1,5}) in ([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([smhd])")
_HOURS = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?)?(?: ?(?P<from>[0-9]{2}:[0-9]{2})-(?P<to>[0-9]{2}:[0-9]{2}))?"
)


class Span(NamedTuple):
    """Some hours of some days; one that goes beyond midnight belongs to the day on which it begins."""

    days: frozenset[int]
    """0 is Monday."""
    start: int
    """Minute of the day."""
    end: int
    """Minute of the day, exclusive; not above `start`: of the next day."""

    def contains(self, day: int, minute: int) -> bool:
        """Tell whether a minute of a day lies in it."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of the week."""

    spans: tuple[Span, ...] = ()

    def contains(self, day: int, minute: int) -> bool:
        """Tell whether a minute of a day (0 is Monday) lies in any of them."""
        return any(span.contains(day, minute) for span in self.spans)


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule: what is told, to which service, and how often."""

    name: str
    url: str = field(repr=False)
    """As Apprise takes it; a secret."""
    kinds: tuple[str, ...] = DEFAULT_KINDS
    level: int = ERROR
    """Lowest rank of the lines that `lines` asks for."""
    apps: tuple[str, ...] = ()
    """Globs; empty: every bot. They hold for every kind."""
    sources: tuple[str, ...] = ()
    """Globs for the logger; they hold for lines alone, as the next two do."""
    text: str = ""
    where: tuple[str, ...] = ()
    """`field=value`, all of which must hold."""
    rate_count: int = 1
    rate_s: float = 0.0
    """Tell only when so many lines came in so many seconds; 0: each."""
    quiet_after: tuple[tuple[str, float], ...] = (("*", QUIET_AFTER_S),)
    """Seconds of silence by glob for the app; the first that matches counts, infinity: never."""
    quiet_normal: tuple[tuple[str, Hours], ...] = ()
    """Hours in which silence is normal, by glob for the app; the first that matches counts."""
    quiet_hours: Hours = field(default_factory=Hours)
    """Hours in which nothing is sent; a summary follows."""
    line_cooldown_s: float = LINE_COOLDOWN_S
    state_cooldown_s: float = STATE_COOLDOWN_S
    max_per_hour: int = MAX_PER_HOUR
    fields: tuple[str, ...] = ()
    """Fields of the context that an alert shows; of itself it shows none."""
    back: bool = True
    """Tell when a state is over."""

    @property
    def service(self) -> str:
        """What may be shown of the URL: everything behind its scheme may be a secret."""
        return redacted(self.url)


class UnknownKeyError(ConfigError):
    """A table has a key that no rule has. It may be a setting of the relay, which TOML took for the rule's."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


def redacted(url: str) -> str:
    """Return what may be shown of a service's URL."""
    return f"{url.partition('://')[0]}://***"


def alerts_type() -> ValueType:
    """Make the type of the setting: URLs with blanks between them, or in the file an array of URLs or of tables."""
    return ValueType(
        "URL",
        f"at most {MAX_RULES} URLs such as ntfys://ntfy.sh/TOPIC, with blanks between them; in the file tables "
        "[[alert]], see docs/alerts.md",
        rules_of_text,
        rules_of_toml,
        show=lambda shown: ", ".join(map(str, shown)) if isinstance(shown, tuple) else str(shown),
        repeatable=True,
    )


def public(rules: object) -> object:
    """Return what anybody may see of rules: their names, and the kinds of their services."""
    if not isinstance(rules, tuple):
        return rules
    return tuple(f"{rule.name} ({rule.service})" for rule in rules if isinstance(rule, AlertRule))


def rules_of_text(text: str) -> tuple[AlertRule, ...]:
    """Read URLs with white space between them; each is a rule with the defaults. Raises ConfigError."""
    return rules_of_toml(text.split())


def rules_of_toml(value: object) -> tuple[AlertRule, ...]:
    """Read an array of URLs and tables. Raises ConfigError, which names the rule and the key, and no URL."""
    if not isinstance(value, list):
        raise ConfigError("alert is no list; allowed: tables [[alert]], or an array of URLs")
    if len(value) > MAX_RULES:
        raise ConfigError(f"{len(value)} alert rules are given; at most {MAX_RULES} are allowed")
    rules: list[AlertRule] = []
    for number, given in enumerate(value, 1):
        rule = _read_rule({"url": given} if isinstance(given, str) else given, number)
        same = next((place for place, other in enumerate(rules, 1) if other.name == rule.name), None)
        if same is not None:
            raise ConfigError(
                f"two alert rules are called {rule.name}, number {same} and number {number}; give each its own name"
            )
        rules.append(rule)
    return tuple(rules)


def _read_rule(given: object, number: int) -> AlertRule:
    if not isinstance(given, dict):
        raise ConfigError(f"alert rule {number} is neither a URL nor a table, but {_shown(given)}")
    name = given.get("name", f"alert{number}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"the name of alert rule {number} is {_shown(name)}; allowed: 1 to {MAX_NAME_CHARS} of A-Z a-z 0-9 . _ -"
        )
    shown = name if name == f"alert{number}" else f"{name} (number {number})"
    for key in given:
        if key not in _READERS:
            near = get_close_matches(key.replace("-", "_"), _READERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(_READERS)}"
            raise UnknownKeyError(f"{_cut(repr(key))} in alert rule {shown} is no key of a rule; {hint}", key)
    if "url" not in given:
        raise ConfigError(f"alert rule {shown} has no url; see docs/alerts.md")
    values: dict[str, Any] = {"name": name}
    for key, value in given.items():
        target, reader, allowed = _READERS[key]
        try:
            found = reader(value)
        except (ValueError, TypeError, AttributeError):
            what = "not valid (its value is not shown)" if key == "url" else _shown(value)
            raise ConfigError(f"{key} in alert rule {shown} is {what}; allowed: {allowed}") from None
        values[target] = found
    if "cooldown" in values:
        values["line_cooldown_s"] = values["state_cooldown_s"] = values.pop("cooldown")
    if "rate" in values:
        values["rate_count"], values["rate_s"] = values.pop("rate")
    if "kinds" not in values and any(key in given for key in ("level", "source", "text", "where", "rate")):
        values["kinds"] = ("lines",)
    return AlertRule(**values)


def _shown(value: object) -> str:
    """Return a wrong value as an error repeats it; what may be a URL stays out of it."""
    text = repr(value)
    return "a value that is not shown" if "://" in text else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


# --- one value each ---------------------------------------------------------------------------------------------------


def seconds_of(value: object) -> float:
    """Read a duration such as `90s`, `15m`, `2h`, `1d`, or a number of seconds. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError  # noqa: TRY004  (one exception means "not allowed")
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(str(value))
        if match is None:
            raise ValueError
        seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError
    return seconds


def hours_of(value: object) -> Hours:
    """Read hours such as `22:00-07:00`, `sat-sun` or `mon-fri 22:00-06:00`, or an array of them. Raises ValueError."""
    given = value if isinstance(value, list) else [value]
    if len(given) > MAX_PATTERNS:
        raise ValueError
    return Hours(tuple(map(_span, given)))


def _span(value: object) -> Span:
    match = _HOURS.fullmatch(str(value).lower()) if isinstance(value, str) and value else None
    if match is None:
        raise ValueError
    first, last = match["first"], match["last"] or match["first"]
    days = frozenset(range(7))
    if first is not None:
        begin, end = DAYS.index(first), DAYS.index(last)
        days = frozenset(day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1))
    if match["from"] is None:
        return Span(days, 0, DAY_MINUTES)
    start, end = _minute(match["from"]), _minute(match["to"])
    if start in (end, DAY_MINUTES):
        raise ValueError
    return Span(days, start, end)


def _minute(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour * 60 + minute > DAY_MINUTES:
        raise ValueError
    return hour * 60 + minute


def _by_app(read: Callable[[object], Any]) -> Callable[[object], tuple[tuple[str, Any], ...]]:
    """Make a reader of one value for every bot, or of a table of globs with `default` for the others."""

    def reader(value: object) -> tuple[tuple[str, Any], ...]:
        if not isinstance(value, dict):
            return (("*", read(value)),)
        if len(value) > MAX_PATTERNS:
            raise ValueError
        found = [(_pattern(glob), read(one)) for glob, one in value.items() if glob != "default"]
        if "default" in value:
            found.append(("*", read(value["default"])))
        return tuple(found)

    return reader


def _quiet_after(value: object) -> float:
    return inf if value in ("off", 0) and not isinstance(value, bool) else seconds_of(value)


def _quiet_after_by_app(value: object) -> tuple[tuple[str, float], ...]:
    found = _by_app(_quiet_after)(value)
    return found if any(glob == "*" for glob, _ in found) else (*found, ("*", QUIET_AFTER_S))


def _cooldown(value: object) -> float:
    seconds = seconds_of(value)
    if seconds < MIN_COOLDOWN_S:
        raise ValueError
    return seconds


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PATTERN_CHARS or "\0" in value:
        raise ValueError
    if value != value.encode("utf-8", "replace").decode():
        raise ValueError
    return value


def _patterns(value: object) -> tuple[str, ...]:
    given = value if isinstance(value, list) else [value]
    if not 0 < len(given) <= MAX_PATTERNS:
        raise ValueError
    return tuple(map(_pattern, given))


def _globs(value: object) -> tuple[str, ...]:
    """Read globs; a comma separates two of them, as in a filter."""
    return _patterns([glob.strip() for given in _patterns(value) for glob in given.split(",") if glob.strip()])


def _where(value: object) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = [f"{name}={_field_text(one)}" for name, one in value.items()]
    found = _patterns(value)
    if len(found) > MAX_WHERE or any(
        "=" not in one or one.startswith("=") or '"' in one.partition("=")[0] for one in found
    ):
        raise ValueError
    return found


def _field_text(value: object) -> str:
    """Return the text that a field with this value is compared with: what is no text, as JSON."""
    import orjson  # noqa: PLC0415  (`--help` does not pay for it)

    return orjson.dumps(value).decode() if isinstance(value, bool | int | float | list | dict) else str(value)


def _kinds(value: object) -> tuple[str, ...]:
    found = _patterns(value)
    if any(kind not in KINDS for kind in found):
        raise ValueError
    return tuple(dict.fromkeys(found))


def _level(value: object) -> int:
    return RANKS[value.lower()] if isinstance(value, str) and value.lower() in RANKS else _refuse()


def _refuse() -> int:
    raise ValueError


def _rate(value: object) -> tuple[int, float]:
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= MAX_RATE:
        raise ValueError
    return int(match[1]), seconds_of(match[2] + match[3])


def _cap(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
        raise ValueError
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004  (one exception means "not allowed")
    return value


def _url(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_URL_CHARS or not _URL.fullmatch(value):
        raise ValueError
    return value


_HOURS_ALLOWED = "hours such as 22:00-07:00, sat-sun or mon-fri 22:00-06:00, or an array of them"
_READERS: Mapping[str, tuple[str, Callable[[object], Any], str]] = {
    "name": ("name", str, "a name"),
    "url": ("url", _url, "a URL as Apprise takes it, such as ntfys://ntfy.sh/TOPIC"),
    "on": ("kinds", _kinds, f"some of {', '.join(KINDS)}"),
    "level": ("level", _level, "debug, info, warning, error or critical"),
    "app": ("apps", _globs, "a name or a glob of a bot, or an array of them"),
    "source": ("sources", _globs, "a name or a glob of a logger, or an array of them"),
    "text": ("text", _pattern, "a text of 1 to 256 characters"),
    "where": ("where", _where, f"field=value, an array of at most {MAX_WHERE} of them, or a table"),
    "rate": ("rate", _rate, f"like 5 in 10m: 1 to {MAX_RATE} lines in a time"),
    "quiet_after": ("quiet_after", _quiet_after_by_app, "a time such as 30m, off, or a table of them by bot"),
    "quiet_normal": ("quiet_normal", _by_app(hours_of), f"{_HOURS_ALLOWED}; or a table of them by bot"),
    "quiet_hours": ("quiet_hours", hours_of, _HOURS_ALLOWED),
    "cooldown": ("cooldown", _cooldown, "a time of 1s to 30d, such as 15m"),
    "max_per_hour": ("max_per_hour", _cap, "a whole number from 1 to 1000"),
    "fields": ("fields", _patterns, "a name of a context field, or an array of them"),
    "back": ("back", _flag, "true or false"),
}
"""Each key of a table: the field, or what stands for two, its reader, and what is allowed in words."""

RULE_KEYS = tuple(_READERS)
