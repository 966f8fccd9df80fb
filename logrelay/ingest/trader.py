"""A trader as data: one run as it is now, its connection, how that ended, and the states it can be in.

Owns: `Trader`, `TraderConnection`, `End` and the names of the states. It must not know when a trader moves from one
state to another. Read `ingest/trader_registry` next: it alone decides that, and changes a trader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from logrelay.ingest.app_activity import AppRow
from logrelay.model import Run

CONNECTED, QUIET, LOST, CLOSED, CRASHED, GONE = "connected", "quiet", "lost", "closed", "crashed", "gone"

UP = (CONNECTED, QUIET)
"""The states in which a bot counts as running, if only until it is known to be gone."""

WAITED_FOR = (CONNECTED, QUIET, LOST)
"""The states of a run that has not ended."""

ProcessState = Literal["running", "dead", "unknown"]
RUNNING: ProcessState = "running"
DEAD: ProcessState = "dead"
UNKNOWN: ProcessState = "unknown"
"""What is known of the process of a trader whose connection has ended."""

NEVER = float("inf")
"""Later than any deadline, on the monotonic clock."""


class End(NamedTuple):
    """How a connection ended."""

    process: ProcessState = UNKNOWN
    silent_s: float = 0.0
    """The relay has closed it, as nothing had been heard for so many seconds; 0: it ended by itself."""


_UNKNOWN_END = End()


class TraderConnection(Protocol):
    """A connection, as the registry and the pipeline know it. It must be hashable; no method raises."""

    def ack(self, seq: int, *, now: bool) -> None:
        """Tell the trader that everything up to `seq` is kept; at once if `now`, else together with later acks."""

    def is_process_running(self) -> bool:
        """Tell whether the process at the other end is known to be the trader, and runs."""

    def abort(self) -> None:
        """Close at once; what has not been read is lost to this connection."""


@dataclass(slots=True, eq=False)
class Trader:
    """One run, as it is now. Written to by the registry only."""

    run: Run
    app_row: AppRow
    """Where its lines are counted."""
    connection: TraderConnection | None = None
    """None: not connected."""
    seen_since_start: bool = False
    """It has been connected since the relay started."""
    end: End = _UNKNOWN_END
    """How its last connection ended."""
    peer_pid: int = 0
    """The pid by which the relay knows its process; 0: not known."""
    is_dead: bool = False
    """Its process is known to be dead: another one sends what it left behind."""
    last_line: float = 0.0
    """Monotonic time of the last line or of the hello, seconds."""
    line_at: float | None = None
    """Monotonic time of the last line, seconds; None: it has said nothing yet."""
    deadline: float = NEVER
    """Monotonic time of the next change of state that nobody's frame will announce."""
    clock_stepped_back: bool = False
    """Its clock was set back, and its timestamps have not caught up."""
    heard_us: int = 0
    """The latest time that its clock has said and that was believed, since the relay knows it; 0: none yet."""
    absurd_time_told: bool = False
    """A notice has said that its times are not believed."""
    committed: int = 0
    """The last seq that is in the journal; `run.last_seq` may be ahead of it."""
    lines: int = 0
    """Lines since the relay started."""
    unsynced: bool = False
    """It has sent nothing since the relay started: a hole before its next line is what the power took."""
    began: float = -NEVER
    """Monotonic time of its first hello, seconds; it may have been before the relay started."""
