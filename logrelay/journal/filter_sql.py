"""A filter in SQL: conditions, index, and what only Python can decide.

Owns: the translation of `Filter` into SQL with the same answers as `Filter.matches`; a test holds the two
together. It must not run anything. Read `journal/connection_pool` next: on its connections the queries run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from logrelay.fanout.filters import LEAST_CONCERN, Filter, ascii_lower, is_named
from logrelay.fanout.globs import literal_start
from logrelay.journal.schema import MAX_SOURCES, NOTICE_SOURCE, OVERFLOW_SOURCE, SourceKey
from logrelay.model import DEBUG, WARNING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from logrelay.journal.interface import Query

MOST_MERGED_SOURCES = 8
"""Up to this many sources are read through their index and merged; more are not selective, and are scanned."""
_WARNING = f"(level >= 30 OR source = {NOTICE_SOURCE})"
"""What the index `lines_warning` holds, word for word: else SQLite would not use it."""
_NOTICES_BELOW = {
    "no": "",
    "counted": "",
    "all": f" OR source = {NOTICE_SOURCE}",
    "relevant": f" OR (source = {NOTICE_SOURCE} AND level >= {LEAST_CONCERN})",
}
"""Notices below the level that was asked for, as far as SQL can tell which of them pass."""
_NUL = "'\\u0000'"
"""An escaped NUL: SQLite's JSON functions end a text there, so Python looks at such lines."""
_ESCAPED_AT_WILL = "\u2028\u2029\x85"
"""Characters that stand in a body as they are or escaped, depending on which version has written it."""
_REAL_CHARS = frozenset("0123456789.e+-")
"""Characters of a JSON number with a fraction, whose text SQLite does not keep as it is."""


@dataclass(slots=True)
class Plan:
    """How one filter is answered."""

    conditions: list[str] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)
    merged: tuple[int, ...] = ()
    """Source ids to read through their index; empty: see `warnings`."""
    warnings: bool = False
    """Read through the index of lines at WARNING and above."""
    judge_all: bool = False
    """SQL gives too many lines: Python has the last word on each."""
    looks_inside: bool = False
    """SQLite's JSON functions read the bodies."""
    judge_nul: bool = False
    """The same, only for lines with a NUL in them."""
    judge_notices: bool = False
    """The same, only for notices."""

    @property
    def indexed(self) -> bool:
        """True when an index leads the walk, so that a step is counted in its entries."""
        return self.warnings or bool(self.merged)

    def select(self, columns: str, order: str, limit_clause: str) -> str:
        """Return the SELECT of the matches in `after < seq <= until`."""
        where = " AND ".join(["seq > :after", "seq <= :until", *self.conditions])
        if self.merged:
            arms = " UNION ALL ".join(
                f"SELECT {columns} FROM lines INDEXED BY lines_source WHERE source = {number} AND {where}"  # noqa: S608
                for number in self.merged
            )
            return f"{arms} ORDER BY seq {order} {limit_clause}"
        index = "INDEXED BY lines_warning" if self.warnings else "NOT INDEXED"
        return f"SELECT {columns} FROM lines {index} WHERE {where} ORDER BY seq {order} {limit_clause}"  # noqa: S608

    def visits(self, order: str) -> str:
        """Return the SELECT of the seq at which `:visits` index entries have been looked at."""
        where = "seq > :after AND seq <= :until"
        if self.merged:
            arms = " UNION ALL ".join(
                f"SELECT seq FROM lines INDEXED BY lines_source WHERE source = {number} AND {where}"  # noqa: S608
                for number in self.merged
            )
            return f"{arms} ORDER BY seq {order} LIMIT 1 OFFSET :visits - 1"
        return (
            f"SELECT seq FROM lines INDEXED BY lines_warning WHERE {_WARNING} AND {where} "  # noqa: S608
            f"ORDER BY seq {order} LIMIT 1 OFFSET :visits - 1"
        )


def needs_runs(wanted: Filter, names: Mapping[SourceKey, int]) -> bool:
    """Tell whether `make_plan` has to know the app of each run: there are lines that do not say theirs."""
    return wanted.by_app and any(app is None for _, app in names)


def make_plan(
    query: Query,
    names: Mapping[SourceKey, int],
    apps_of_runs: Mapping[int, str] | None = None,
    *,
    look_inside: bool = True,
    only_notices: bool = False,
) -> Plan:
    """Choose conditions and index; `names` are the ids of the sources, for `apps_of_runs` see `needs_runs`.

    `look_inside` False: SQLite is not to read the bodies, because one of them is damaged and is no JSON.
    `only_notices`: of the stretch nothing else can match.
    """
    plan, wanted = Plan(), query.filter
    if only_notices:
        plan.merged, plan.judge_notices = (NOTICE_SOURCE,), wanted.by_notice
        if wanted.notices == "no":
            plan.conditions.append("0")
        _add_times(plan, query)
        return plan
    if wanted.level >= WARNING:
        plan.warnings = True
        plan.conditions.append(_WARNING)
    if wanted.level > DEBUG:
        notices = _NOTICES_BELOW[wanted.notices]
        plan.conditions.append(f"(level >= :level{notices})" if notices else "level >= :level")
        plan.values["level"] = wanted.level
    without = wanted.notices == "no" or (wanted.notices == "counted" and not wanted.shows_relay_source)
    if without:
        plan.conditions.append(f"source != {NOTICE_SOURCE}")
    elif wanted.notices == "relevant" and not wanted.shows_relay_source:
        plan.conditions.append(f"(source != {NOTICE_SOURCE} OR level >= {LEAST_CONCERN})")
    plan.judge_notices = wanted.by_notice and not without
    if wanted.by_source or wanted.by_app:
        numbers, unnamed = _source_numbers(names, wanted)
        plan.judge_all = OVERFLOW_SOURCE in numbers
        if without:
            numbers.remove(NOTICE_SOURCE)
        if 0 < len(numbers) <= MOST_MERGED_SOURCES and not plan.warnings:
            plan.merged = tuple(numbers)
        else:
            # A list without an entry is no condition that every SQLite finds an index for.
            plan.conditions.append(f"source IN ({_list(numbers or [OVERFLOW_SOURCE - 1])})")
        if wanted.by_app and unnamed:
            runs = [run for run, app in (apps_of_runs or {}).items() if wanted.app_passes(app)]
            plan.conditions.append(f"(source NOT IN ({_list(unnamed)}) OR run IN ({_list(runs)}))")
    content = _content(plan, wanted) if look_inside else []
    plan.judge_all = plan.judge_all or not look_inside
    if content:
        plan.looks_inside = True
        plan.judge_nul = True
        plan.conditions.append(f"(source = {NOTICE_SOURCE} OR ({' AND '.join(content)}) OR instr(body, {_NUL}))")
    _add_times(plan, query)
    return plan


def _add_times(plan: Plan, query: Query) -> None:
    if query.since_us is not None:
        plan.conditions.append("time_us >= :since")
        plan.values["since"] = query.since_us
    if query.until_us is not None:
        plan.conditions.append("time_us < :before")
        plan.values["before"] = query.until_us


def _source_numbers(names: Mapping[SourceKey, int], wanted: Filter) -> tuple[list[int], list[int]]:
    """Return the ids that pass, notices first, and those of them whose lines do not say their app.

    Matched in Python: one meaning on both sides.
    """
    passing = [
        (number, app)
        for (name, app), number in names.items()
        if wanted.source_passes(name) and (app is None or wanted.app_passes(app))
    ]
    overflow = [OVERFLOW_SOURCE] if len(names) >= MAX_SOURCES else []
    numbers = [NOTICE_SOURCE, *overflow, *sorted(number for number, _ in passing)]
    return numbers, [number for number, app in passing if app is None]


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _content(plan: Plan, wanted: Filter) -> list[str]:
    """Translate run, edge, text and where; what SQL cannot say exactly is left to Python (`judge_all`)."""
    conditions = []
    if wanted.runs:
        conditions.append(_own_field(plan, "run", wanted.runs))
    if wanted.edges:
        conditions.append(_own_field(plan, "edge", wanted.edges))
    if wanted.text:
        conditions += _text(plan, ascii_lower(wanted.text).decode())
    for n, (key, value) in enumerate(wanted.where):
        try:
            (key + value).encode()
        except UnicodeEncodeError:
            conditions.append("0")  # half a surrogate pair stands in no JSON text
            continue
        if not key or any(c in '"\\' or c < " " for c in key):
            # How such a key is written in a JSON path differs between SQLite versions.
            plan.judge_all = True
            continue
        if not any(c in key + value for c in _ESCAPED_AT_WILL):
            # Most lines fail this, and it is many times as fast as reading JSON.
            conditions.append(f"(instr(body, :text{n}) OR instr(body, :json{n}))")
            plan.values |= {f"text{n}": f"{_json(key)}:{_json(value)}", f"json{n}": f"{_json(key)}:{value}"}
        path = f":path{n}"
        # With two paths json_extract answers `[a,b]` with both exactly as they stand in the body; with one
        # path it would turn numbers into SQLite's own.
        conditions.append(
            f"CASE json_type(body, {path}) WHEN 'text' THEN json_extract(body, {path}) = :value{n} "
            f"ELSE json_type(body, {path}) IS NOT NULL AND json_extract(body, {path}, {path}) = :twice{n} END"
        )
        plan.values |= {
            f"path{n}": f'$.context."{key}"',
            f"value{n}": value,
            f"twice{n}": f"[{value},{value}]",
        }
    return conditions


def _own_field(plan: Plan, field: str, globs: tuple[str, ...]) -> str:
    """Translate the globs for `run` or `edge`: SQL looks for the beginning of each, Python judges what is a pattern."""
    choices = []
    for n, glob in enumerate(globs):
        start = literal_start(glob)
        quoted = f'"{field}":{_json(start)}'
        if start == glob:
            choices.append(f"(instr(body, :{field}{n}) AND json_extract(body, '$.{field}') = :{field}_name{n})")
            plan.values |= {f"{field}{n}": quoted, f"{field}_name{n}": glob}
        else:
            choices.append(f"instr(body, :{field}{n})")
            plan.values[f"{field}{n}"] = quoted[:-1]
            plan.judge_all = True
    return f"({' OR '.join(choices)})"


def _text(plan: Plan, text: str) -> list[str]:
    """Translate a lowered text: a look at the body as it stands, then at message and values."""
    if any(c in text for c in _ESCAPED_AT_WILL):
        plan.judge_all = True
        return []
    named = is_named(text)
    conditions = []
    # A value that is no string is searched as JSON text, and so stands in the body as it is.
    for n, piece in enumerate(text.split("=") if named else [text]):
        escaped = _json(piece)[1:-1]
        if escaped == piece:
            conditions.append(f"instr(lower(body), :piece{n})")
        else:
            conditions.append(f"(instr(lower(body), :piece{n}) OR instr(lower(body), :escaped{n}))")
            plan.values[f"escaped{n}"] = escaped
        plan.values[f"piece{n}"] = piece
    # SQLite makes its own text of a number with a fraction: Python looks at the lines that have one.
    if named or _REAL_CHARS.issuperset(text):
        plan.judge_all = True
        real = "1"
    else:
        real = "0"
    value = "CASE f.type WHEN 'null' THEN f.type WHEN 'true' THEN f.type WHEN 'false' THEN f.type ELSE f.value END"
    value = f"f.key || '=' || {value}" if named else value
    found = f"CASE f.type WHEN 'real' THEN {real} ELSE instr(lower({value}), :text) END"
    fields = f"SELECT 1 FROM json_each(body, '$.context') AS f WHERE {found}"  # noqa: S608
    conditions.append(f"(instr(lower(json_extract(body, '$.message')), :text) OR EXISTS ({fields}))")
    plan.values["text"] = text
    return conditions


def _json(text: str) -> str:
    return orjson.dumps(text).decode()
