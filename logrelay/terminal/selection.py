"""Which lines a command is to show, as the parameters of the viewers' protocol.

Owns: `Selection`, its check before anything is opened, and the query string it makes. The conditions are those of
`fanout/filters` and the times those of `http/log_query`: nothing is decided here a second time. It must not know where
lines come from. No I/O; the clock is an argument. Read `terminal/relay` next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from logrelay.errors import ConfigError, RequestError
from logrelay.fanout.filters import parse_filter
from logrelay.http.log_query import parse_time

_ONE = ("level", "text", "notices", "since", "until")
_MANY = {"app": "apps", "run": "runs", "edge": "edges", "source": "sources", "where": "where"}
"""Parameters that may be given several times, and the fields that hold them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The conditions of a command line. What is empty asks for nothing."""

    level: str = ""
    apps: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    text: str = ""
    where: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    notices: str = ""

    def check(self, now_us: int, *, until_name: str = "until") -> None:
        """Raise ConfigError, in the words of the protocol, for what no relay would take.

        `until_name`: what the person called the end, where an option has another name than the parameter.
        """
        try:
            parse_filter(self._filter())
            since = parse_time("since", self.since, now_us) if self.since else None
            until = parse_time(until_name, self.until, now_us) if self.until else None
        except RequestError as error:
            raise ConfigError(str(error)) from None
        if since is not None and until is not None and since >= until:
            raise ConfigError(f"since {self.since!r} is not before {until_name} {self.until!r}")

    @property
    def empty(self) -> bool:
        """True when every line passes, by what the conditions mean: level debug and an empty glob ask for nothing."""
        return not (self.since or self.until or parse_filter(self._filter()).asks)

    def or_else(self, pairs: Iterable[tuple[str, str]]) -> Selection:
        """Return the same with the parameters of a URL where nothing was said; others of them are not looked at."""
        one = {name: value for name, value in pairs if name in _ONE and not getattr(self, name)}
        many: dict[str, tuple[str, ...]] = {}
        for name, value in pairs:
            field = _MANY.get(name)
            if field is not None and not getattr(self, field):
                many[field] = (*many.get(field, ()), value)
        changes: dict[str, Any] = {**one, **many}
        return replace(self, **changes)

    def live_query(self, **more: str | int) -> str:
        """Return the query string for the live stream, which knows no times; `more` are other parameters of it."""
        return urlencode([*self._pairs(self._filter()), *_given(more)])

    def query(self, **more: str | int) -> str:
        """Return the query string for /logs; `more` are other parameters of it, empty ones are left out."""
        times = {"since": self.since, "until": self.until}
        return urlencode([*self._pairs(self._filter()), *_given(times), *_given(more)])

    def _filter(self) -> dict[str, tuple[str, ...]]:
        one = {"level": self.level, "text": self.text, "notices": self.notices}
        many: dict[str, tuple[str, ...]] = {name: getattr(self, field) for name, field in _MANY.items()}
        return {name: (value,) for name, value in one.items() if value} | {n: v for n, v in many.items() if v}

    @staticmethod
    def _pairs(params: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
        return [(name, value) for name, values in params.items() for value in values]


def _given(params: Mapping[str, str | int]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in params.items() if value != ""]
