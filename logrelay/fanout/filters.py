"""What a viewer asked to see.

Owns: the `Filter` value, its parsing from query or subscribe parameters, and `matches`. It must not know who asked. The
journal turns the same fields into SQL (`journal/filter_sql`); a test compares their answers. No I/O.
Read `fanout/hub` next.

Notices (run 0) pass every filter: a viewer that asked for ERROR only must still be told what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from re import Pattern
from re import compile as compile_re

import orjson

from logrelay.errors import RequestError, quoted
from logrelay.model import DEBUG, RANKS, RELAY_RUN, Line

MAX_SOURCES = 32
"""Globs per filter: more than a person types, few enough to test on every new source."""
MAX_WHERE = 16
"""Field conditions per filter."""
MAX_PATTERN_CHARS = 256
"""Length of one glob, text or where condition; a filter is kept per viewer, so it has to be small."""

LEVEL_NAMES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class Filter:
    """Lines at or above `level`, from a source that matches, with the text and the context fields asked for."""

    level: int = DEBUG
    """Minimum rank."""
    sources: tuple[str, ...] = ()
    """Globs (`*`, `?`, `[...]`), case-sensitive, any of which must match the whole source; empty: all."""
    text: str = ""
    """Must occur in the message; ASCII letters without regard to case (the rule SQLite's lower() has too)."""
    where: tuple[tuple[str, str], ...] = ()
    """Top-level context fields that must all have this value: a string as it is, anything else as JSON text."""

    @property
    def everything(self) -> bool:
        """True when no line can fail this filter."""
        return self.level <= DEBUG and not self.sources and not self.text and not self.where

    def wants(self, level: int, source: str) -> bool:
        """Tell whether level and source pass; depends on nothing else, so callers may remember it."""
        return level >= self.level and (not self.sources or source_matches(self.sources, source))

    def matches(self, line: Line) -> bool:
        """Tell whether the line passes; a notice always does."""
        if line.run == RELAY_RUN:
            return True
        if not self.wants(line.level, line.source):
            return False
        return self.content_matches(line)

    def content_matches(self, line: Line) -> bool:
        """Tell whether text and context fields pass; level and source are not looked at."""
        if self.text and ascii_lower(self.text) not in ascii_lower(line.message):
            return False
        return all(key in line.context and field_text(line.context[key]) == value for key, value in self.where)


def ascii_lower(text: str) -> bytes:
    """Lower A-Z only, as SQLite's lower() does, so that replay and live agree on every script."""
    return text.encode("utf-8", "replace").lower()


def field_text(value: object) -> str:
    """Return the text a `where` value is compared with: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


@lru_cache(maxsize=256)
def _glob(pattern: str) -> Pattern[str]:
    return compile_re(translate(pattern))


@lru_cache(maxsize=4096)
def source_matches(globs: tuple[str, ...], source: str) -> bool:
    """Tell whether any of the globs matches the whole of `source`."""
    return any(_glob(glob).match(source) is not None for glob in globs)


def parse_filter(params: Mapping[str, Iterable[str]]) -> Filter:
    """Build a filter from `level`, `source`, `text` and `where` parameters, each a list of strings.

    `source` and `where` may be given several times; `source` also as a comma-separated list.
    Raises RequestError (`bad_level`, `bad_source`, `bad_text`, `bad_where`) saying what is allowed.
    """
    level = DEBUG
    for given in params.get("level", ()):
        rank = RANKS.get({"warn": "warning", "fatal": "critical"}.get(given.lower(), given.lower()))
        if rank is None:
            raise RequestError("bad_level", f"level {quoted(given)} is not one of {', '.join(LEVEL_NAMES)}")
        level = rank
    sources = tuple(dict.fromkeys(g.strip() for s in params.get("source", ()) for g in s.split(",") if g.strip()))
    if len(sources) > MAX_SOURCES:
        raise RequestError("bad_source", f"{len(sources)} source globs given; at most {MAX_SOURCES} are allowed")
    text = ""
    for text in params.get("text", ()):  # noqa: B007  (the last one given counts)
        pass
    where = []
    for condition in params.get("where", ()):
        key, equals, value = condition.partition("=")
        if not equals or not key or '"' in key:
            raise RequestError(
                "bad_where",
                f"where {quoted(condition)} is not of the form field=value, with no quote in field",
            )
        where.append((key, value))
    if len(where) > MAX_WHERE:
        raise RequestError("bad_where", f"{len(where)} where conditions given; at most {MAX_WHERE} are allowed")
    for code, values in (
        ("bad_source", sources),
        ("bad_text", (text,)),
        ("bad_where", [k + v for k, v in where]),
    ):
        for value in values:
            if len(value) > MAX_PATTERN_CHARS or "\0" in value:
                raise RequestError(
                    code,
                    f"{quoted(value)} has {len(value)} characters or a NUL; at most {MAX_PATTERN_CHARS} are allowed",
                )
    return Filter(level, tuple(sorted(sources)), text, tuple(sorted(set(where))))
