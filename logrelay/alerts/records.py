"""What the engine remembers and what it hands out.

Owns: `Matter`, something that a rule tells of, and `Alert`, one message about one or several of them. It must not know
how an alert is worded (`alerts/text`) or sent. Pure. Read `alerts/release` next: it decides when a matter is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

from logrelay.config.alert_rules import STATE_KINDS

MAX_TEXT_CHARS = 300
"""Of a message and of an exception's last line, as in a summary."""

BEYOND = "beyond"
"""The key of the matter that counts what is beyond the most matters at once."""

Reason = Literal["now", "again", "gathered", "quiet_hours", "cap", "back"]
"""Why an alert comes: for the first time; with what came since; with others that came close behind; with what the
quiet hours, or the most alerts in an hour, had held back; because it is over."""


class Seen(NamedTuple):
    """What a line says that a matter takes over."""

    time_us: int
    rank: int
    source: str
    message: str
    reason: str
    id: str
    fields: Mapping[str, str] = {}


@dataclass(slots=True)
class Matter:
    """Something that a rule tells of: a state of a bot or of the relay, or lines that tell of the same problem."""

    rule: str
    kind: str
    key: str
    """What tells it apart from others of its rule and kind: a bot, a problem group."""
    app: str
    since_us: int
    """When it began, by the clock of the line that says so; microseconds since 1970."""
    last_us: int
    count: int = 0
    """How often, or for a gap how many lines."""
    told: int = 0
    """What `count` was when it was told last."""
    told_at: float = 0.0
    """When that was, seconds since 1970; 0: never."""
    seen_at: float = 0.0
    """When it was counted last."""
    active: bool = False
    """A state that lasts."""
    back_at: float = 0.0
    """Since when a state seems to be over; 0: it is not."""
    rank: int = 0
    source: str = ""
    message: str = ""
    reason: str = ""
    """The last line of the exception, or why the relay has trouble."""
    id: str = ""
    """Of the newest line that tells of it."""
    fields: dict[str, str] = field(default_factory=dict)
    is_known: bool = False
    """A state that lasts, as far as the owner was told."""
    kept_back: bool = False
    """It is held back by quiet hours or by the most alerts in an hour."""

    @property
    def is_new(self) -> bool:
        """Whether something has happened that was not told."""
        return self.count > self.told

    def keep_back(self) -> bool:
        """Note that it is held back; returns whether it was not before."""
        before, self.kept_back = self.kept_back, True
        return not before

    def note_told(self, now: float) -> None:
        """Note that all of it was told, with a state also whether it seems to be over."""
        self.told, self.told_at, self.kept_back = self.count, now, False
        self.is_known = self.active and not self.back_at

    def note_ignored(self) -> None:
        """Note that nobody is to be told of what has happened so far."""
        self.told, self.kept_back = self.count, False

    def note_seen(self, seen: Seen, count: int, now: float) -> None:
        """Count what a line tells of; texts and id are those of the newest line of the highest level."""
        self.count += count
        self.seen_at = now
        self.last_us = max(self.last_us, seen.time_us)
        if seen.rank >= self.rank or not self.id:
            self.rank, self.source, self.message, self.reason = seen.rank, seen.source, seen.message, seen.reason
            self.id, self.fields = seen.id, dict(seen.fields)

    def begin(self) -> None:
        """Note that the state lasts."""
        self.active, self.back_at = True, 0.0

    def seems_over(self, now: float) -> None:
        """Note that the state has ended, if it stays so."""
        if self.active and not self.back_at:
            self.back_at = now

    def end(self) -> None:
        """Note that the state is over."""
        self.active, self.back_at, self.is_known = False, 0.0, False

    @property
    def is_state(self) -> bool:
        """Whether it can last and be over."""
        return self.kind in STATE_KINDS

    @property
    def name(self) -> str:
        """What names it among all of them."""
        return f"{self.rule}\0{self.kind}\0{self.key}"

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


class Alert(NamedTuple):
    """One message to be sent."""

    rule: str
    why: Reason
    matters: tuple[Matter, ...]
    """What it tells of, as it was then, the most severe first."""
    more: int = 0
    """Matters beyond those."""
    lines: int = 0
    """How often all of them happened since they were told last."""


def copy_of(matter: Matter) -> Matter:
    """Return the matter as it is now."""
    return replace(matter, fields=dict(matter.fields))


_KEYS = {one.name for one in fields(Matter)}


def matter_of(kept: Mapping[str, Any]) -> Matter:
    """Return the matter that `as_json` gave; keys of a later version are left out, those it had not yet are made up."""
    known = {"is_known": kept.get("active", False) and kept.get("told_at", 0.0) > 0}
    return Matter(**known | {key: value for key, value in kept.items() if key in _KEYS})
