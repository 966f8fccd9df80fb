"""What a viewer asked to see, and what it may see.

Owns: the `Filter` value, its parsing from query or subscribe parameters, `matches`, and `Limit`, which narrows a
filter. It must not know who asked. The journal turns the same fields into SQL (`journal/filter_sql`); a test compares
their answers. No I/O. Read `fanout/hub` next.

Notices (run 0) pass when they are asked for like any line, or when they tell of lines that are missing and could have
matched: a viewer that asked for ERROR only must still be told what it did not get. `Filter.notice_passes` says exactly
when. A limit on the apps holds for them too: what tells of a bot that a viewer may not see is not shown to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import orjson

from logrelay.errors import RequestError, quoted
from logrelay.fanout.globs import Glob, is_glob
from logrelay.model import DEBUG, ERROR, RANKS, RELAY_RUN, RELAY_SOURCE, WARNING, Line

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

FILTER_PARAMETERS = ("level", "source", "app", "run", "edge", "text", "where", "notices")
"""Every parameter of a filter, in the URL of a viewer, in its messages, and in those of plain HTTP."""

LEVEL_NAMES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


NOTICES_FOR_ALL = ("gap", "relay")
"""Of the notices that name no app, those that tell of all lines: whoever reads any of them is concerned. The others
(`trader`: connections that were refused) are for viewers without a limit."""

PRIVATE_STATES = ("access",)
"""The `state` of notices about who reads the log: for viewers without a limit."""

Notices = Literal["relevant", "no", "all", "counted"]
NOTICES: tuple[Notices, ...] = ("relevant", "no", "all")
"""Which notices a viewer wants besides lines: those that concern what it asked for (the default), none, or every one.
`counted` is for the relay itself: only those that count like lines, see `Filter.notice_counts`."""

NOTICES_BESIDE = 100
"""Notices that a tail or an answer brings besides its lines, or as many as the lines that were asked for, if that is
more: a screen or two. Between a hundred lines of a bot that says little may lie a month of notices about others."""

LEAST_CONCERN = WARNING
"""A notice below this rank tells of nothing that is missing; it passes only where it is asked for like a line."""

SIDE_STATES = (*PRIVATE_STATES, "limit")
"""Notices of the kind `relay` that are not about lines: who reads the log, and what viewers may cost."""

INTERRUPTED_STATES = ("crashed", "lost", "gone")
"""The `state` of a trader from which lines may be missing."""


def most_notices(wanted: Filter, lines: int) -> int | None:
    """Return how many notices come with `lines` lines at most, the newest of them; None: every one was asked for."""
    return None if wanted.notices == "all" else max(lines, NOTICES_BESIDE)


def apps_of_notice(context: Mapping[str, object]) -> tuple[str, ...]:
    """Return the bots that a notice names; empty: none, or more than it names."""
    app, apps = context.get("app"), context.get("apps")
    if isinstance(app, str) and app:
        return (app,)
    return tuple(map(str, apps)) if isinstance(apps, list) else ()


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
    """Must occur in `search_text`; ASCII letters without regard to case (the rule SQLite's lower() has too)."""
    where: tuple[tuple[str, str], ...] = ()
    """Top-level context fields that must all have this value: a string as it is, anything else as JSON text."""
    apps: tuple[str, ...] = ()
    """Globs like those of `sources`, any of which must match the whole app name; empty: all."""
    limit: Limit = UNLIMITED
    """What must hold besides; set by `within` alone."""
    runs: tuple[str, ...] = ()
    """Globs for the run that the line shows; a line that shows none fails."""
    notices: Notices = "relevant"
    """Which notices pass, besides what the limit says of them."""
    edges: tuple[str, ...] = ()
    """Globs for the machine that the line was collected from; one of this relay's own fails."""
    everything: bool = field(init=False, repr=False, compare=False)
    """True when no line and no notice can fail this filter. Worked out once: it is asked for each batch."""

    def __post_init__(self) -> None:
        """Work out what follows from the fields."""
        object.__setattr__(self, "everything", not self.asks and not self.by_notice)

    def within(self, limit: Limit) -> Filter:
        """Return what of this filter somebody with `limit` may see; the same again for what was narrowed by it."""
        if self.limit == limit:
            return self
        assert self.limit.nothing, "a filter is narrowed by one limit only"
        return replace(self, level=max(self.level, limit.level), limit=limit)

    @property
    def asks(self) -> bool:
        """True when there is a condition on the lines, the limit left aside."""
        return bool(self.level > DEBUG or self.sources or self.apps or self.by_content)

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
        return not self.limit.nothing or self.notices in ("no", "counted") or (self.notices == "relevant" and self.asks)

    @property
    def by_content(self) -> bool:
        """True when a line has to be read for it: level, source and app do not tell."""
        return bool(self.text or self.where or self.runs or self.edges)

    def source_passes(self, source: str) -> bool:
        """Tell whether a source is asked for and may be seen."""
        asked, limit = self.sources, self.limit.sources
        return (not asked or name_matches(asked, source)) and (not limit or name_matches(limit, source))

    def app_passes(self, app: str) -> bool:
        """Tell whether an app is asked for and may be seen."""
        return (not self.apps or name_matches(self.apps, app)) and self.limit.shows_app(app)

    def run_passes(self, name: str) -> bool:
        """Tell whether lines that show this run are asked for."""
        return not self.runs or (name != "" and name_matches(self.runs, name))

    def edge_passes(self, name: str) -> bool:
        """Tell whether lines that were collected from this machine are asked for."""
        return not self.edges or (name != "" and name_matches(self.edges, name))

    def wants(self, level: int, source: str, app: str) -> bool:
        """Tell whether level, source and app pass; depends on nothing else, so callers may remember it."""
        return level >= self.level and self.source_passes(source) and self.app_passes(app)

    def matches(self, line: Line) -> bool:
        """Tell whether a line or a notice passes."""
        if line.run == RELAY_RUN:
            return self.notice_passes(line.level, line.message, line.context)
        if not self.wants(line.level, line.source, line.app):
            return False
        return self.content_matches(line)

    def notice_passes(self, level: int, message: str, context: Mapping[str, object]) -> bool:
        """Tell whether a notice of this rank, text and context passes.

        One that the limit keeps back never does. Of the others every one does where all were asked for, or nothing in
        particular; else one that satisfies the conditions like any line, or that tells of lines that are missing and
        could have satisfied them (`_concerns`).
        """
        if self.notices == "no" or not self.limit.shows_notice(context):
            return False
        if self.notices == "counted":
            return self.notice_counts(level, message, context)
        if self.notices == "all" or not self.asks:
            return True
        return self._asks_for_notice(level, message, context) or self._concerns(level, context)

    def notice_counts(self, level: int, message: str, context: Mapping[str, object]) -> bool:
        """Tell whether a notice that passes counts like a line: it was searched for by its source, text or fields."""
        return self._searches and self._asks_for_notice(level, message, context)

    @property
    def _searches(self) -> bool:
        return bool(self.sources or self.text or self.where)  # not by its bot or run: they are the lines' own

    def without_notices(self) -> Filter:
        """Return the same filter without the notices that do not count."""
        return replace(self, notices="counted" if self._searches and self.notices != "no" else "no")

    def _asks_for_notice(self, level: int, message: str, context: Mapping[str, object]) -> bool:
        if level < self.level or not self.shows_relay_source:
            return False
        if self.apps and not any(name_matches(self.apps, app) for app in apps_of_notice(context)):
            return False
        if not self.run_passes(_run_of(context)) or not self.edge_passes(_edge_of(context)):
            return False
        return self._content_matches(message, context)

    @property
    def shows_relay_source(self) -> bool:
        """True when the source of notices is one of those asked for."""
        return not self.sources or name_matches(self.sources, RELAY_SOURCE)

    def _concerns(self, level: int, context: Mapping[str, object]) -> bool:
        """Tell whether lines that could have matched are, or may be, missing.

        Source, text and fields of a line that is missing are not known, so they rule nothing out; its bot and run are,
        mostly, and its level, seldom.
        """
        if level < LEAST_CONCERN:
            return False
        kind, state = context.get("notice"), context.get("state")
        edge = _edge_of(context)
        if edge and not self.edge_passes(edge):
            return False  # what another machine says of itself, or is said of it
        if kind == "relay":
            return state not in SIDE_STATES
        apps = apps_of_notice(context)
        if self.apps and apps and not context.get("more_apps") and not any(name_matches(self.apps, a) for a in apps):
            return False
        run = _run_of(context)
        if run and not self.run_passes(run):
            return False
        if kind == "gap":
            return _may_hold(context.get("levels"), self.level)
        # A crash takes the last lines along, of whatever level; a connection that is lost only delays them.
        return state in INTERRUPTED_STATES and level >= min(self.level, ERROR if state == "crashed" else self.level)

    def content_matches(self, line: Line) -> bool:
        """Tell whether run, edge, text and context fields pass; level, source and app are not looked at."""
        if not self.run_passes(line.run_name) or not self.edge_passes(line.edge):
            return False
        return self._content_matches(line.message, line.context)

    def _content_matches(self, message: str, context: Mapping[str, object]) -> bool:
        if self.text:
            searched = search_text(message, context, named=is_named(self.text))
            if ascii_lower(self.text) not in searched:
                return False
        return all(key in context and field_text(context[key]) == value for key, value in self.where)


def _run_of(context: Mapping[str, object]) -> str:
    """Return the run that a notice names; empty: none, or several."""
    run = context.get("run")
    return run if isinstance(run, str) else ""


def _edge_of(context: Mapping[str, object]) -> str:
    """Return the machine that a notice came from or tells of; empty: this relay's own."""
    edge = context.get("edge")
    return edge if isinstance(edge, str) else ""


def _may_hold(levels: object, level: int) -> bool:
    """Tell whether lines counted by level word may have one of this rank; unknown counts may have any."""
    if not isinstance(levels, Mapping) or not levels:
        return True
    # CRITICAL is counted as ERROR.
    return any(RANKS.get(str(word).lower(), ERROR) >= min(level, ERROR) and count for word, count in levels.items())


def ascii_lower(text: str) -> bytes:
    """Lower A-Z only, as SQLite's lower() does, so that replay and live agree on every script."""
    return text.encode("utf-8", "replace").lower()


def is_named(text: str) -> bool:
    """Tell whether a text is looked for in `name=value` too; for names alone it would find every line that has one."""
    return "=" in text


def search_text(message: str, context: Mapping[str, object], *, named: bool) -> bytes:
    """Return what a `text` is looked for in, lowered: the message and the values of the context, NUL between them.

    No text has a NUL in it, so none is found across two of them. `named`: each value stands as `name=value`.
    """
    if named:
        parts = [message, *(f"{name}={field_text(value)}" for name, value in context.items())]
    else:
        parts = [message, *map(field_text, context.values())]
    return ascii_lower("\0".join(parts))


def field_text(value: object) -> str:
    """Return the text a `where` value is compared with: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def is_search(wanted: Filter) -> bool:
    """Tell whether the journal has to look at every line for it: for content, or a name not given in full."""
    return wanted.by_content or any(map(is_glob, (*wanted.sources, *wanted.apps)))


class _Globs:
    """The globs of one filter, which remember the names they were asked about; shared by equal filters."""

    __slots__ = ("_exact", "_globs", "_known")

    def __init__(self, globs: tuple[str, ...]) -> None:
        self._exact = frozenset(glob for glob in globs if not is_glob(glob))
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
    """Build a filter from the parameters of FILTER_PARAMETERS, lists of strings.

    `source`, `app`, `run`, `edge` and `where` may be given several times; the first four also as lists with commas.
    Raises RequestError (`bad_` and the name of the parameter) saying what is allowed.
    """
    level = DEBUG
    for given in params.get("level", ()):
        rank = RANKS.get({"warn": "warning", "fatal": "critical"}.get(given.lower(), given.lower()))
        if rank is None:
            raise RequestError("bad_level", f"level {quoted(given)} is not one of {', '.join(LEVEL_NAMES)}")
        level = rank
    sources, apps, runs, edges = (_globs(name, params) for name in ("source", "app", "run", "edge"))
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
        ("bad_run", runs),
        ("bad_edge", edges),
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
    conditions, notices = tuple(sorted(set(where))), _notices(params)
    return Filter(level, sources, text, conditions, apps, runs=runs, notices=notices, edges=edges)


def _notices(params: Mapping[str, Iterable[str]]) -> Notices:
    found: Notices = NOTICES[0]
    for given in params.get("notices", ()):
        known = next((name for name in NOTICES if name == given.lower()), None)
        if known is None:
            raise RequestError("bad_notices", f"notices {quoted(given)} is not one of {', '.join(NOTICES)}")
        found = known
    return found


def _globs(name: str, params: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return the globs of a parameter, sorted and each once: equal filters are to be equal values."""
    globs = {glob.strip() for given in params.get(name, ()) for glob in given.split(",") if glob.strip()}
    if len(globs) > MAX_SOURCES:
        raise RequestError(f"bad_{name}", f"{len(globs)} {name} globs given; at most {MAX_SOURCES} are allowed")
    return tuple(sorted(globs))
