"""What a line is, once it is inside the relay.

Owns: `Line`, the level names and ranks, and how a run (one trader process) is described. It must not know
where lines come from or go to. Pure. `ingest/frames` makes events, `fanout/line_json` makes lines of them. Read
`fanout/filters` next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
"""Level ranks, the numbers of Python's logging module, so that a filter is one comparison."""

RANKS: dict[str, int] = {
    "debug": DEBUG,
    "info": INFO,
    "warning": WARNING,
    "error": ERROR,
    "critical": CRITICAL,
}
"""The five level words of the wire protocol (docs/protocol.md, log frame)."""

SHOWN: dict[int, str] = {DEBUG: "DEBUG", INFO: "INFO", WARNING: "WARNING", ERROR: "ERROR", CRITICAL: "ERROR"}
"""The four words viewers get. The mobile app hides what it does not know, so CRITICAL is shown as ERROR."""

RELAY_RUN = 0
"""The run number of the relay's own lines (notices)."""

RELAY_SOURCE = "logrelay"
"""The source of notices. A trader's own logger of that name is shown as `<app>/logrelay`."""


class Line(NamedTuple):
    """One line: its place, what a filter asks about, and the exact bytes viewers get."""

    seq: int
    """Place in the journal, from 1, without holes."""
    time_us: int
    """Microseconds since 1970 UTC as shown in `timestamp`; rises strictly within one run."""
    level: int
    """Rank, 10 to 50."""
    source: str
    run: int
    """Row id of the run in the journal; `RELAY_RUN` for the relay's own notices."""
    body: bytes
    """The whole viewer message, JSON in UTF-8, without a raw newline: `{"type":"log","id":"<epoch>-<seq>",...}`."""
    message: str
    context: Mapping[str, object]
    """JSON-safe values, as in `body`."""
    app: str = ""
    """Name of the bot that logged it, as in its hello; empty for notices."""
    clock_us: int | None = None
    """What the clock said, where that is not `time_us` because it had been set back. The line is found by it."""


@dataclass(slots=True)
class Run:
    """One trader process as the journal remembers it."""

    id: int
    """Small number given by the relay, from 1; what `Line.run` holds."""
    key: bytes
    """The 16 random bytes of the hello frame."""
    app: str
    host: str
    pid: int
    started_ns: int
    last_seq: int = 0
    """The last seq of this run that is in the journal."""
    last_us: int = 0
    """The last `timestamp` given to a line of this run, microseconds."""
    state: str = "connected"
    """connected, quiet, lost, closed, crashed or gone; see docs/protocol.md."""
    seen_us: int = 0
    """The relay's clock at the last change, microseconds; old runs are forgotten by it."""

    def copy(self) -> Run:
        """Return a copy for another thread; a third of the time of dataclasses.replace, and there is one per tick."""
        return Run(
            self.id,
            self.key,
            self.app,
            self.host,
            self.pid,
            self.started_ns,
            self.last_seq,
            self.last_us,
            self.state,
            self.seen_us,
        )


@dataclass(slots=True)
class Commit:
    """What goes into the journal together, or not at all."""

    lines: list[Line] = field(default_factory=list)
    """Ascending, contiguous `seq`, the first one behind the journal's head."""
    runs: list[Run] = field(default_factory=list)
    """Rows to insert or replace, by `id`. The caller passes copies."""
    aliases: list[str] = field(default_factory=list)
    """Provisional epochs (see `degraded`) whose ids are from now on as good as the journal's own."""
    durable: bool = False
    """True: sync to the disk now, whatever `--sync` says (there is a CRITICAL line in it)."""
