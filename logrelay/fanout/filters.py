"""What a viewer asked to see, and what it may see.

Owns: the `Filter` value, its parsing from query or subscribe parameters, `matches`, and `Limit`, which narrows a
filter. It must not know who asked. The journal turns the same fields into SQL (`journal/filter_sql`); a test compares
their answers. No I/O. Read `fanout/hub` next.

Notices (run 0) pass whatever was asked for: a viewer that asked for ERROR only must still be told what is missing. A
limit on the apps holds for them too: what tells of a bot that a viewer may not see is not shown to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from re import compile as compile_re

import orjson

from logrelay.errors import RequestError, quoted
from logrelay.fanout.globs import Glob
from logrelay.model import DEBUG, RANKS, RELAY_RUN, Line

MAX_SOURCES = 32
"""Globs for the source per filter, and as many for the app: more than a person types, few
enough to test on every new one."""
MAX_WHERE = 16
"""Field conditions per filter."""
MAX_GLOBS = 1024
"""Sets of globs that are remembered: about as many as there are viewers."""
MAX_NAMES = 64
"""Names that a set of globs remembers its answer for; a bot has some dozens of loggers."""
MAX_PATTERN_CHARS = 256
"""Length of one glob, text or where condition; a filter is kept per viewer, so it has to be small."""

_SPECIAL = compile_re(r"[*?\[]")
"""What makes a name a glob."""

LEVEL_NAMES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


NOTICES_FOR_ALL = ("gap", "relay")
"""Of the notices that name no app, those that tell of all lines: whoever reads any of them is concerned. The others
(`trader`: connections that were refused) are for viewers without a limit."""

PRIVATE_STATES = ("access",)
"""The `state` of notices about who reads the log: for viewers without a limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that somebody may see, whatever is asked for: see the fields of the same names in `Filter`."""

    level: int = DEBUG
    sources: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """True when it limits nothing."""
        return self.level <= DEBUG and not self.sources and not self.apps

    def shows_app(self, app: str) -> bool:
        """Tell whether anything of this app may be seen."""
        return not self.apps or name_matches(self.apps, app)

    def shows_notice(self, context: Mapping[str, object]) -> bool:
        """Tell whether a notice with this context may be seen; level and source are those of the relay, and pass."""
        if context.get("state") in PRIVATE_STATES:
            return self.nothing
        app = context.get("app")
        if isinstance(app, str) and app:
            return self.shows_app(app)
        return not self.apps or context.get("notice") in NOTICES_FOR_ALL


UNLIMITED = Limit()


@dataclass(frozen=True, slots=True)
class Filter:
    """Lines at or above `level`, of a source and an app that match, with the text and the fields asked for."""

    level: int = DEBUG
    """Minimum rank."""
    sources: tuple[str, ...] = ()
    """Globs (`*`, `?`, `[...]`), case-sensitive, any of which must match the whole source; empty: all."""
    text: str = ""
    """Must occur in the message; ASCII letters without regard to case (the rule SQLite's lower() has too)."""
    where: tuple[tuple[str, str], ...] = ()
    """Top-level context fields that must all have this value: a string as it is, anything else as JSON text."""
    apps: tuple[str, ...] = ()
    """Globs like those of `sources`, any of which must match the whole app name; empty: all."""
    limit: Limit = UNLIMITED
    """What must hold besides; set by `within` alone."""

    def within(self, limit: Limit) -> Filter:
        """Return what of this filter somebody with `limit` may see; the same again for what was narrowed by it."""
        if self.limit == limit:
            return self
        assert self.limit.nothing, "a filter is narrowed by one limit only"
        return replace(self, level=max(self.level, limit.level), limit=limit)

    @property
    def everything(self) -> bool:
        """True when no line and no notice can fail this filter."""
        asked = self.level > DEBUG or self.sources or self.apps or self.text or self.where
        return not asked and self.limit.nothing

    @property
    def by_source(self) -> bool:
        """True when not every source passes."""
        return bool(self.sources or self.limit.sources)

    @property
    def by_app(self) -> bool:
        """True when not every app passes."""
        return bool(self.apps or self.limit.apps)

    @property
    def by_notice(self) -> bool:
        """True when not every notice passes."""
        return not self.limit.nothing

    def source_passes(self, source: str) -> bool:
        """Tell whether a source is asked for and may be seen."""
        asked, limit = self.sources, self.limit.sources
        return (not asked or name_matches(asked, source)) and (not limit or name_matches(limit, source))

    def app_passes(self, app: str) -> bool:
        """Tell whether an app is asked for and may be seen."""
        return (not self.apps or name_matches(self.apps, app)) and self.limit.shows_app(app)

    def wants(self, level: int, source: str, app: str) -> bool:
        """Tell whether level, source and app pass; depends on nothing else, so callers may remember it."""
        return level >= self.level and self.source_passes(source) and self.app_passes(app)

    def matches(self, line: Line) -> bool:
        """Tell whether the line passes. Of notices only those fail that the limit keeps back."""
        if line.run == RELAY_RUN:
            return self.limit.shows_notice(line.context)
        if not self.wants(line.level, line.source, line.app):
            return False
        return self.content_matches(line)

    def content_matches(self, line: Line) -> bool:
        """Tell whether text and context fields pass; level, source and app are not looked at."""
        if self.text and ascii_lower(self.text) not in ascii_lower(line.message):
            return False
        return all(key in line.context and field_text(line.context[key]) == value for key, value in self.where)


def ascii_lower(text: str) -> bytes:
    """Lower A-Z only, as SQLite's lower() does, so that replay and live agree on every script."""
    return text.encode("utf-8", "replace").lower()


def field_text(value: object) -> str:
    """Return the text a `where` value is compared with: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def is_search(wanted: Filter) -> bool:
    """Tell whether the journal has to look at every line for it: for a text, a field, or a name not given in full."""
    return bool(wanted.text or wanted.where) or any(_SPECIAL.search(glob) for glob in (*wanted.sources, *wanted.apps))


class _Globs:
    """The globs of one filter, which remember the names they were asked about; shared by equal filters."""

    __slots__ = ("_exact", "_globs", "_known")

    def __init__(self, globs: tuple[str, ...]) -> None:
        self._exact = frozenset(glob for glob in globs if not _SPECIAL.search(glob))
        self._globs = [Glob(glob) for glob in globs if glob not in self._exact]
        self._known: dict[str, bool] = {}

    def match(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            known = name in self._exact or any(glob.match(name) for glob in self._globs)
            if len(self._known) >= MAX_NAMES:
                self._known.pop(next(iter(self._known)), None)  # any thread may be here: the journal's read with it
            self._known[name] = known
        return known


@lru_cache(maxsize=MAX_GLOBS)
def _shared(globs: tuple[str, ...]) -> _Globs:
    return _Globs(globs)


def name_matches(globs: tuple[str, ...], name: str) -> bool:
    """Tell whether any of the globs matches the whole of `name`, a source or an app."""
    return _shared(globs).match(name)


def parse_filter(params: Mapping[str, Iterable[str]]) -> Filter:
    """Build a filter from `level`, `source`, `app`, `text` and `where` parameters, each a list of strings.

    `source`, `app` and `where` may be given several times; `source` and `app` also as comma-separated lists.
    Raises RequestError (`bad_level`, `bad_source`, `bad_app`, `bad_text`, `bad_where`) saying what is allowed.
    """
    level = DEBUG
    for given in params.get("level", ()):
        rank = RANKS.get({"warn": "warning", "fatal": "critical"}.get(given.lower(), given.lower()))
        if rank is None:
            raise RequestError("bad_level", f"level {quoted(given)} is not one of {', '.join(LEVEL_NAMES)}")
        level = rank
    sources, apps = _globs("source", params), _globs("app", params)
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
        ("bad_app", apps),
        ("bad_text", (text,)),
        ("bad_where", [k + v for k, v in where]),
    ):
        for value in values:
            if len(value) > MAX_PATTERN_CHARS or "\0" in value:
                raise RequestError(
                    code,
                    f"{quoted(value)} has {len(value)} characters or a NUL; at most {MAX_PATTERN_CHARS} are allowed",
                )
            if not value.isascii() and value != value.encode("utf-8", "replace").decode():
                # From a command line or a token file; shown to a viewer it could not be written.
                raise RequestError(code, f"{quoted(value)} is not valid UTF-8")
    return Filter(level, sources, text, tuple(sorted(set(where))), apps)


def _globs(name: str, params: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return the globs of a parameter, sorted and each once: equal filters are to be equal values."""
    globs = {glob.strip() for given in params.get(name, ()) for glob in given.split(",") if glob.strip()}
    if len(globs) > MAX_SOURCES:
        raise RequestError(f"bad_{name}", f"{len(globs)} {name} globs given; at most {MAX_SOURCES} are allowed")
    return tuple(sorted(globs))
