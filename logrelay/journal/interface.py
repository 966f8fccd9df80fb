"""Where lines are kept: the interface every journal keeps, and nothing else.

Owns: `Journal`, `Opening`, `Query`, `Page`, `JournalLost`. It must not know SQLite, threads or sockets:
`sqlite` is the embedded default, `memory` keeps nothing, `writer_thread` runs one of them on a thread of its own.
Read `journal/sqlite` next.

A position is (epoch, seq), see `fanout/positions`. Each opening of a journal has another epoch, also where a journal
lost while the relay ran does not: it goes on in a new file under the same one, see `reopen`. Seq rises by one per line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.fanout.positions import Epoch
from logrelay.fanout.summary import Summary
from logrelay.model import CollectedRow, Commit, DeviceRow, ForwardRow
from logrelay.run_table import RunTable

EVERYTHING = Filter()


class JournalLost(JournalError):  # noqa: N818  (a state to get over, named like JournalRefused)
    """The open journal is damaged, deleted or replaced: `reopen` saves what can be saved, then try again."""


@dataclass(slots=True)
class Opening:
    """What a journal holds when it is opened."""

    epoch: str
    """Six lower-case letters and digits, random at each opening: the epoch of the lines behind `head`."""
    oldest: int
    """Seq of the oldest line kept; `head + 1` when none is."""
    head: int
    """Seq of the newest line; 0 when there has never been one."""
    runs: RunTable
    """Those that the journal remembers, in the order in which they were last seen. The receiver may keep it."""
    aliases: set[str]
    """Provisional epochs that were later committed: `<alias>-<seq>` means `<epoch>-<seq>`."""
    notices: list[str] = field(default_factory=list)
    """What the operator and the viewers must be told about the opening (a corrupt file set aside, ...)."""
    earlier: list[Epoch] = field(default_factory=list)
    """The epochs of the lines up to `head`, and of those that are not kept any more; oldest first."""
    unsynced: bool = False
    """The machine stopped under the last opening: lines that were acked and shown may not be in the journal."""
    devices: list[DeviceRow] = field(default_factory=list)
    """How far viewers that have a name have come."""
    collected: list[CollectedRow] = field(default_factory=list)
    """How far lines of other machines have been collected."""
    forwarded: list[ForwardRow] = field(default_factory=list)
    """How far lines have been forwarded, by stream."""


@dataclass(frozen=True, slots=True)
class UpkeepNotice:
    """What people should be told of upkeep: lines that went before their time, a clock that is not believed."""

    rank: int
    """Level rank."""
    text: str
    details: dict[str, object]
    """With `state`, see docs/protocol.md, notices."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is known of a journal's write-ahead log and of its disk."""

    log_bytes: int = 0
    """Size of the log at the last checkpoint."""
    log_pinned_s: float = 0.0
    """Seconds since a program that reads has kept the log from getting shorter; 0: none does, or it is short."""
    free_bytes: int | None = None
    """Free bytes of the file system; None: it is not known."""
    low: bool = False
    """Less is free than should be."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much is kept, and for how long."""

    max_age_s: float
    """Lines that are older go; 0: no limit by age."""
    max_bytes: int
    """The oldest lines go when file and log are larger."""
    keep_free: int | None
    """The oldest lines go when fewer bytes of the file system are free; 0: never, None: a share of it."""


PAGE_BYTES = 1 << 20
"""A megabyte of lines at a time, unless a reader asks for another size: a few milliseconds of work, and as much memory
for each reader."""


@dataclass(frozen=True, slots=True)
class Query:
    """A stretch of the journal: `after < seq <= until`, at most `limit` lines of it that match."""

    after: int
    until: int
    limit: int
    """Notices do not count, unless they were searched for (`Filter.notice_counts`)."""
    filter: Filter = EVERYTHING
    newest: bool = False
    """True: the newest `limit` matches of the stretch instead of the oldest; still returned ascending."""
    since_us: int | None = None
    until_us: int | None = None
    """Bounds on what the clock said (`Line.clock_us`, else the shown timestamp), inclusive and exclusive, microseconds.
    They hold for notices too."""
    max_bytes: int = PAGE_BYTES
    """Stop after this many body bytes (at least one line is returned)."""
    notices: int | None = None
    """With `newest`: so many notices that do not count, the newest ones; the others are left out, see
    `Page.notices_from`. None: every one that matches."""


@dataclass(slots=True)
class Page:
    """The answer to a query."""

    bodies: list[bytes]
    """Viewer messages, ascending by seq. Where lines are lost to damage, one of them is a gap notice."""
    seqs: list[int]
    """Their seqs; of a gap notice the seq of the last line that it stands for."""
    reached: int
    """Ascending: every line up to here was looked at, ask again with `after=reached`; never beyond the newest
    line. Newest: every line above here was looked at, ask again with `until=reached`."""
    complete: bool
    """True: the whole stretch, as far as there were lines, was looked at."""
    oldest: int
    """Seq of the oldest line kept when the page was read; a hole between `after` and it is the reader's gap."""
    beside: int = 0
    """How many of the bodies are notices that do not count toward `Query.limit`."""
    notices_from: int = 0
    """Notices were left out before this seq: there were more of them than wanted. 0: none was."""

    @property
    def counted(self) -> int:
        """How many of the bodies count toward `Query.limit`."""
        return len(self.bodies) - self.beside


class RowOrigin(NamedTuple):
    """Who logged a line."""

    app: str
    """Empty: a notice."""
    run_name: str
    host: str
    """Empty where the run has been forgotten."""
    source: str


@dataclass(slots=True)
class RowPage:
    """Lines as rows, for those who pass them on; the columns have an entry for each line."""

    seqs: list[int]
    """Ascending."""
    ranks: list[int]
    times: list[int]
    """What the clock said, by which a line is found; microseconds."""
    places: list[int]
    """Which of `origins`."""
    bodies: list[bytes]
    origins: list[RowOrigin]
    holes: list[tuple[int, int, str]]
    """First and last seq of what is known to be missing, and why: `corrupt` or `purged`."""
    reached: int
    """Every line up to here was looked at: ask again with it."""
    oldest: int
    """Seq of the oldest line kept when this was read."""


@dataclass(slots=True)
class SummaryPage:
    """The answer to a question for a summary, as far as it was looked at."""

    summary: Summary
    reached: int
    """Every line up to here was looked at: ask again with `after=reached`, and add it up."""
    complete: bool
    """True: the whole stretch, as far as there were lines, was looked at."""


class Journal(Protocol):
    """Keeps lines. All methods block.

    `open`, `append`, `append_now`, `keep`, `prune`, `due`, `derive`, `checkpoint`, `sync`, `reopen` and `close` belong
    to one thread at a time, the others to any thread at any time.
    """

    def open(self) -> Opening:
        """Open or create. Raises JournalRefused, or JournalError when the place cannot be written."""

    def append(self, commit: Commit) -> None:
        """Write all of it in one transaction, or nothing.

        Raises JournalError with `retry` set or not, and JournalLost when `reopen` has to come first.
        """

    def append_now(self, commit: Commit) -> bool:
        """Write a commit like `append`, on the event loop, if nothing that may take long is due with it.

        False: nothing was written, and `append` is to do it: there is a sync, a checkpoint or a lock to wait for.
        Raises what `append` raises; nothing was written then either.
        """

    def reopen(self) -> Opening:
        """After JournalLost: save what can be saved and go on under the same epoch and the same numbering.

        `Opening.notices` says what happened. Raises JournalError when it did not work; ask again later.
        """

    def keep(self, keeping: Keeping) -> None:
        """Keep lines by other limits from now on; what has to go by them goes with the next steps of retention."""

    def prune(self) -> int:
        """Take one small step of retention (some milliseconds). Returns the oldest seq kept now."""

    def due(self) -> float:
        """Tell in how many seconds `prune` has work to do: 0.0 for now."""

    def derive(self, *, seconds: float) -> bool:
        """Go on for about so long with what is made behind the head to answer questions faster.

        Returns whether there is more to do now.
        """

    def checkpoint(self, *, idle: bool) -> None:
        """Put the write-ahead log in order if it is time to; `idle` says that nobody waits for a commit."""

    def sync(self) -> float:
        """Have the disk take what was committed some seconds ago. Returns in how many seconds to ask again."""

    def take_notices(self) -> list[UpkeepNotice]:
        """Return what people should be told of `prune` and `append` since the last call."""

    def page(self, query: Query) -> Page:
        """Read. One call takes a bounded time, however rare the matches: see `Page.reached`."""

    def rows(self, after: int, *, max_bytes: int) -> RowPage:
        """Read the lines behind `after` as rows, some milliseconds' worth: about `max_bytes` of bodies, or one line."""

    def summarize(self, query: Query) -> SummaryPage:
        """Count. Of the query level, source and app, the stretch and `since_us` hold; a call takes a bounded time."""

    def lines_at(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the viewer messages of some lines by seq; one that is not kept, or is damaged, is left out."""

    def levels(self, first: int, last: int) -> dict[int, int]:
        """Count the kept lines of a stretch, ends included, by level rank; no entry means none."""

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept: on a full disk `append` takes old lines away for new ones."""

    @property
    def pruned(self) -> int:
        """Lines taken away by retention since the journal was opened."""

    @property
    def pruned_for(self) -> Mapping[str, int]:
        """The same by reason: `age`, `size`, `space`."""

    @property
    def index_behind(self) -> int:
        """Kept lines that `derive` has not come to: a search looks at them one by one."""

    @property
    def damaged_lines(self) -> int:
        """Kept lines that are lost to damage, as far as it is known; a notice takes their place."""

    def disturbed(self) -> bool:
        """Tell, quickly, whether somebody else seems to have changed the files; `append` then looks closer."""

    def disk_bytes(self) -> int:
        """Bytes the journal takes on disk (in memory for one without a file), write-ahead log included."""

    def room(self) -> Room:
        """Return what is known of the log and the disk; any thread, without touching either."""

    def close(self) -> None:
        """Close every file. Committed lines stay. Only `open` may follow."""
