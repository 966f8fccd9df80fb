"""What a line is, once it is inside the relay.

Owns: `Line`, the level names and ranks, and how a run (one trader process) is described. It must not know
where lines come from or go to. Pure. `ingest/frames` makes events, `fanout/line_json` makes lines of them. Read
`fanout/filters` next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
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

COLLECTED_RUN = -1
"""The run number of bots' lines that came from another machine's relay: their runs have rows there, and none here."""

UNKNOWN_UID = -1
"""The user of a run that has not been connected since the relay started."""

MAX_RUN_NAMES = 4_096
"""Names of runs that are remembered, a quarter of a kilobyte each: there is one in every line."""

RELAY_SOURCE = "logrelay"
"""The source of notices. A trader's own logger of that name is shown as `<app>/logrelay`."""


@lru_cache(MAX_RUN_NAMES)
def run_name(key: bytes) -> str:
    """Return the public name of a run: 32 hexadecimal digits that stay the same, and do not tell the key.

    Whoever has the key could go on in the run's place: only its trader and the relay know it. No key, no name.
    """
    return blake2b(key, digest_size=16, person=b"logrelay run").hexdigest() if key else ""


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
    run_name: str = ""
    """The `run` that the line shows, made by `run_name`; empty for notices, and where an older relay kept the line."""
    edge: str = ""
    """The machine that it was collected from, as the line shows it; empty: it came to this relay itself."""


_body = attrgetter("body")


def size_of(lines: Iterable[Line]) -> int:
    """Return how many bytes the bodies of some lines have."""
    return sum(map(len, map(_body, lines)))


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
    uid: int = field(default=UNKNOWN_UID, compare=False)
    """User of the process that opened it. Not in the journal: after a start of the relay it is whoever comes first."""
    said_bye: bool = field(default=False, compare=False)
    """Its last frame was bye. The journal is told that it is closed, though its connection may still be open: a relay
    that stops with it must not miss it at the next start."""
    failure: str = field(default="", compare=False)
    """Why it ends, as it said itself; empty: it did not fail. Until that has been told the journal is not told its end:
    a relay that stops in between has the next one tell that the run did not come back."""
    has_crashed: bool = field(default=False, compare=False)
    """It was told that it has crashed, and its own process has not been back since. The journal is told so even while
    another process delivers what it left behind: a relay that starts anew meanwhile must not tell it twice."""

    @property
    def name(self) -> str:
        """What everybody but its trader and the relay knows it by; see `run_name`."""
        return run_name(self.key)

    def copy(self) -> Run:
        """Return a copy for the journal; a third of the time of dataclasses.replace, and there is one per tick."""
        run = Run(*_of_run(self))
        return run if not (run.said_bye or run.has_crashed) else replace(run, state=run.state_kept)

    @property
    def state_kept(self) -> str:
        """The state that the journal is told, see `said_bye` and `has_crashed`."""
        if self.said_bye and not self.failure and self.state in ("connected", "quiet"):
            return "closed"
        if self.has_crashed and self.state in ("connected", "quiet", "lost"):
            return "crashed"
        return self.state


_of_run = attrgetter(*(one.name for one in fields(Run)))


class DeviceRow(NamedTuple):
    """How far a viewer that has a name has received lines, as the journal remembers it."""

    id: int
    """Small number given by the relay, from 1. A row is overwritten by the next device that gets its number."""
    owner: str
    """The id of the token that it was used with; empty: none was needed."""
    name: str
    position: str
    """The id of the last line that it has received."""
    seen_us: int
    """The relay's clock when this was so, microseconds."""
    connected: bool


class CollectedRow(NamedTuple):
    """How far lines of other machines have been collected, or what was told of one, as the journal remembers it."""

    id: int
    """Small number given by the relay, from 1. A row is overwritten by the next one that gets its number."""
    kind: str
    """`stream`: the last message read of a stream; `edge`: the last line taken of an edge; `state`: what was told."""
    name: str
    """Of the stream, or of the edge."""
    part: str
    """When the stream was made; the epoch of the edge's lines; empty."""
    seq: int
    """Of the message; of the line in the edge's journal; since when the edge is unreachable (us; 0: it is not)."""
    stamp: str
    """The message's own id, by which it is known again; else empty."""
    seen_us: int
    """The relay's clock when this was so, microseconds."""


class ForwardRow(NamedTuple):
    """How far lines have been forwarded to a stream of another machine, as the journal remembers it."""

    target: str
    """Which stream, under which name: another one has its own row."""
    journal: str
    """Random name of this journal towards the stream, see `machines/stream_batch`."""
    position: str
    """The id of the last line that the stream has acknowledged."""
    stream_seq: int
    """The sequence of its message in the stream."""
    made: str
    """When that stream was made, as its server says: one that was made anew has nothing of what went before."""


@dataclass(slots=True)
class Commit:
    """What goes into the journal together, or not at all."""

    lines: Sequence[Line] = ()
    """Ascending, contiguous `seq`, the first one behind the journal's head."""
    runs: Sequence[Run] = ()
    """Rows to insert or replace, by `id`. The caller passes copies."""
    aliases: Sequence[str] = ()
    """Provisional epochs (see `degraded`) whose ids are from now on as good as the journal's own."""
    durable: bool = False
    """True: sync to the disk now, whatever `--sync` says (there is a CRITICAL line in it)."""
    forgotten: Sequence[tuple[int, bytes]] = ()
    """Rows to delete, by `id` and `key`. Nothing is said of such a run after it, in this commit or a later one."""
    devices: Sequence[DeviceRow] = ()
    """Rows to insert or replace, by `id`."""
    collected: Sequence[CollectedRow] = ()
    """Rows to insert or replace, by `id`: with the lines that they speak of, or not at all."""
    forwarded: ForwardRow | None = None
    """The row to insert or replace, by `target`."""


def merged(parts: Sequence[Commit]) -> Commit:
    """Make one commit of several that follow each other."""
    if len(parts) == 1:
        return parts[0]
    runs = {run.id: run for part in parts for run in part.runs}
    return Commit(
        [line for part in parts for line in part.lines],
        list(runs.values()),
        [alias for part in parts for alias in part.aliases] or (),
        any(part.durable for part in parts),
        [run for part in parts for run in part.forgotten] or (),
        list({device.id: device for part in parts for device in part.devices}.values()) or (),
        list({row.id: row for part in parts for row in part.collected}.values()) or (),
        next((part.forwarded for part in reversed(parts) if part.forwarded is not None), None),
    )
