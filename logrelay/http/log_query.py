"""The parameters of GET /logs and GET /summary, read strictly.

Owns: which parameters there are, how times are written, and the `Query` they make. It must not know HTTP answers or who
reads the journal. No I/O; the clock is an argument. Read `journal/query` next: it is what answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from urllib.parse import parse_qs

from logrelay.errors import RequestError, quoted
from logrelay.fanout.filters import FILTER_PARAMETERS, Filter, most_notices, parse_filter
from logrelay.fanout.positions import Position
from logrelay.journal.interface import Query

DEFAULT_LIMIT = 1000
"""Lines when no limit is given: what a person scrolls through, a fraction of a megabyte."""
MAX_LIMIT = 1_000_000
"""Lines of one answer: a day of a busy trader. More is asked for in parts; no answer runs for ever."""
MAX_FIELDS = 64
"""Parameters in one query string: all the globs and conditions that a filter may have, and the rest."""

DEFAULT_AROUND = 100
"""Lines around an id when no limit is given: what happened just before and after, on a few screens of a phone."""
DEFAULT_SUMMARY_AGE = "1d"
"""How far a summary goes back by itself: everything since the owner looked yesterday at this time."""

PARAMETERS = ("since", "until", *FILTER_PARAMETERS, "limit", "after", "before", "around")
AROUND_PARAMETERS = (*FILTER_PARAMETERS, "limit", "around")
SUMMARY_PARAMETERS = ("since", "after", "app")
FOLLOW = "follow"
"""The parameter of /logs that makes another answer of it, which is read elsewhere (`viewers/requests`)."""
REPEATABLE = frozenset({"source", "app", "run", "edge", "where"})

_LIMIT = re.compile(r"[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_AGE = re.compile(r"([0-9]{1,9})([smhdw])")
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?"
    # A + that was not percent-encoded arrives as a space; there is only one thing it can have been.
    r"(?:[Zz]|([-+ ])([0-9]{2}:[0-9]{2}))"
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_END_OF_TIME = 253_402_300_800
"""Seconds from 1970 to the year 10000, where RFC 3339 ends; milliseconds given by mistake are beyond it."""
_TIME_FORMS = "RFC 3339 (2026-01-23T10:00:00Z), seconds since 1970 (1769162400.5) or an age (90s, 15m, 2h, 7d, 1w)"


def parse_log_query(query: str, head: int, resolve: Callable[[str], Position], now_us: int) -> Query:
    """Read the query string of /logs into what to ask the journal for, up to the line `head`.

    Raises RequestError (`bad_parameter`, `bad_limit`, `bad_time`, those of `parse_filter` and of `resolve`). Unknown
    and repeated parameters are errors: a typing mistake must not silently widen what is found. `token` is ignored:
    access was decided before.
    """
    given = _given(query, PARAMETERS)
    one = {name: values[0] for name, values in given.items()}
    limit = _limit(one, DEFAULT_LIMIT)
    since, until = (parse_time(name, one[name], now_us) if name in one else None for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        message = f"since {quoted(one['since'])} is not before until {quoted(one['until'])}"
        raise RequestError("bad_time", message)
    newest = "after" not in one and since is None
    wanted = parse_filter(given)
    return Query(
        after=resolve(one["after"]).seq if "after" in one else 0,
        until=min(head, resolve(one["before"]).end - 1) if "before" in one else head,
        limit=limit,
        filter=wanted,
        newest=newest,
        since_us=since,
        until_us=until,
        notices=most_notices(wanted, limit) if newest else None,
    )


@dataclass(frozen=True, slots=True)
class Around:
    """Asks for a line and the lines around it."""

    position: Position
    before: int
    """Matches to give from before the line, the newest of them."""
    behind: int
    """Matches to give from behind the line, the oldest of them."""
    filter: Filter
    """Of the lines around it."""


def parse_around_query(query: str, resolve: Callable[[str], Position]) -> Around | None:
    """Read the query string of /logs where it has `around`; None: it has not. Raises RequestError as above."""
    if "around" not in parse_qs(query, keep_blank_values=True, errors="replace"):
        return None
    given = _given(query, AROUND_PARAMETERS)
    one = {name: values[0] for name, values in given.items()}
    limit = _limit(one, DEFAULT_AROUND)
    return Around(resolve(one["around"]), limit // 2, limit - 1 - limit // 2, parse_filter(given))


@dataclass(frozen=True, slots=True)
class SummaryQuery:
    """Asks what happened since a time, or behind a line."""

    query: Query
    after: str | None
    """The id that was given."""


def parse_summary_query(query: str, head: int, resolve: Callable[[str], Position], now_us: int) -> SummaryQuery:
    """Read the query string of /summary into what to ask the journal for, up to the line `head`.

    Raises RequestError as above.
    """
    given = _given(query, SUMMARY_PARAMETERS)
    one = {name: values[0] for name, values in given.items()}
    since = None
    if "since" in one or "after" not in one:
        since = parse_time("since", one.get("since", DEFAULT_SUMMARY_AGE), now_us)
    after = resolve(one["after"]).seq if "after" in one else 0
    asked = Query(after=after, until=head, limit=0, filter=parse_filter(given), since_us=since)
    return SummaryQuery(asked, one.get("after"))


def _given(query: str, allowed: Sequence[str]) -> dict[str, list[str]]:
    try:
        given = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        message = f"the query is not UTF-8, or has more than {MAX_FIELDS} parameters"
        raise RequestError("bad_parameter", message) from None
    given.pop("token", None)
    for name, values in given.items():
        if name not in allowed:
            names = (*allowed, FOLLOW) if allowed is PARAMETERS else allowed
            message = f"parameter {quoted(name)} is not one of {', '.join(names)}"
            raise RequestError("bad_parameter", message)
        if len(values) > 1 and name not in REPEATABLE:
            message = f"{name} is given {len(values)} times; only {', '.join(sorted(REPEATABLE))} may be"
            raise RequestError("bad_parameter", message)
    return given


def _limit(one: dict[str, str], default: int) -> int:
    limit = one.get("limit", str(default))
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise RequestError("bad_limit", f"limit {quoted(limit)} is not a number from 1 to {MAX_LIMIT}")
    return int(limit)


def parse_time(name: str, text: str, now_us: int) -> int:
    """Return microseconds since 1970 for RFC 3339, seconds since 1970 or an age before `now_us`.

    Digits beyond the microsecond round up, which keeps `>= since` and `< until` exact. Raises RequestError
    (`bad_time`) that names the parameter.
    """
    if age := _AGE.fullmatch(text):
        return max(0, now_us - int(age[1]) * _UNITS[age[2]] * 1_000_000)  # before 1970 there is no line
    if _SECONDS.fullmatch(text) and Decimal(text) < _END_OF_TIME:
        return _microseconds(Decimal(text))
    if form := _RFC3339.fullmatch(text):
        date, clock, fraction, sign, offset = form.groups()
        zone = f"{'+' if sign == ' ' else sign}{offset}" if sign else "+00:00"
        try:
            whole = datetime.fromisoformat(f"{date}T{clock}{zone}").timestamp()
        except ValueError:
            pass
        else:
            return _microseconds(Decimal(int(whole)) + Decimal(fraction or 0))
    raise RequestError("bad_time", f"{name} {quoted(text)} is not a time: {_TIME_FORMS}")


def _microseconds(seconds: Decimal) -> int:
    return int((seconds * 1_000_000).to_integral_value(ROUND_CEILING))
