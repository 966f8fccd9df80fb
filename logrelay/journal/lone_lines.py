"""Lines that come alone, committed with one write(2) and given to SQLite together.

Owns: `LoneLineJournal`, which writes a small commit to a file of its own (`journal/lone_file`) while lines come a few
at a time, and hands all of them on in one transaction a moment later; and how a question is answered from both. It must
not know sockets, threads or when to commit. Read `journal/connection_pool` next.

A transaction of one line costs ten times what appending the same bytes to a file does, whatever it writes: locks, the
log's pages and their headers. A line is as safe here as there: the kernel has it, a kill takes nothing away, and the
next opening finds it; against a power cut both are synced within the same seconds. What has to be on the disk at once
(`--sync full`, a CRITICAL line), and what the file does not hold (places of devices and of other machines, runs that
are forgotten), goes to SQLite at once, together with everything that waits.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from logrelay.errors import JournalError
from logrelay.journal.interface import Page, RowPage, SummaryPage
from logrelay.journal.lone_file import LoneFile
from logrelay.journal.memory import MemoryJournal
from logrelay.journal.sqlite import LOOK_S, SYNC_AFTER_S
from logrelay.model import Commit, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from logrelay.journal.interface import Keeping, Opening, Query, Room, UpkeepNotice
    from logrelay.journal.sqlite import SqliteJournal

CLOSE_BEHIND_S = 0.25
"""A commit so soon behind the one before is written to the file: beyond four a second it pays, below that a transaction
each is less work than a record and a part of a later one."""

WAITING_LINES, WAITING_BYTES, WAITING_S = 64, 64 * 1024, 3.0
"""So much is handed to SQLite with the next commit, half a millisecond of work; and what has waited for so long, before
the journal's thread has to be woken for it."""


class WaitingLines:
    """Commits that SQLite does not have yet, all behind its line `base`; any thread may look."""

    def __init__(self, base: int, commits: Sequence[Commit] = ()) -> None:
        self.base = base
        self._commits = list(commits)
        self.add = self._commits.append
        """Have one more commit."""

    @property
    def commits(self) -> list[Commit]:
        """Those there are now."""
        return self._commits[:]

    def _memory(self) -> MemoryJournal | None:
        """Return a journal of them; None: there are none."""
        commits = self.commits
        if not commits:
            return None
        journal = MemoryJournal(random_epoch=str, head=self.base)
        journal.open()
        for commit in commits:
            journal.append(commit)
        return journal

    def page(self, query: Query, read: Callable[[Query], Page]) -> Page:
        """Answer a query; `read` does for the lines up to `base`."""
        memory = self._memory() if query.until > self.base else None
        if memory is None:
            return read(query)
        return (self._newest if query.newest else self._oldest)(query, read, memory)

    def _oldest(self, query: Query, read: Callable[[Query], Page], memory: MemoryJournal) -> Page:
        first = read(replace(query, until=min(query.until, self.base)))
        if not first.complete:
            return first
        left, room = query.limit - first.counted, query.max_bytes - sum(map(len, first.bodies))
        if first.bodies and (left <= 0 or room <= 0):
            return replace(first, reached=max(query.after, self.base), complete=False)
        second = memory.page(
            replace(query, after=max(query.after, self.base), limit=left, max_bytes=room, notices=None)
        )
        return _joined(first, second, reached=second.reached, complete=second.complete)

    def _newest(self, query: Query, read: Callable[[Query], Page], memory: MemoryJournal) -> Page:
        second = memory.page(replace(query, after=max(query.after, self.base)))
        below = replace(query, until=self.base)
        if not second.complete or query.after >= self.base:
            return replace(second, oldest=read(replace(below, after=self.base, limit=0)).oldest)
        left, room = query.limit - second.counted, query.max_bytes - sum(map(len, second.bodies))
        if second.bodies and (left <= 0 or room <= 0):
            oldest = read(replace(below, after=self.base, limit=0)).oldest
            return replace(second, oldest=oldest, reached=self.base, complete=False)
        notices = None if query.notices is None else max(0, query.notices - second.beside)
        first = read(replace(below, limit=left, max_bytes=room, notices=notices))
        return _joined(first, second, reached=first.reached, complete=first.complete)

    def rows(self, after: int, max_bytes: int, read: Callable[[int], RowPage]) -> RowPage:
        """Read lines as rows; `read` does for those that SQLite has, which may be more than up to `base` by now."""
        memory = self._memory()
        page = read(after)
        room = max_bytes - sum(map(len, page.bodies))
        if memory is None or page.reached < self.base or (page.bodies and room <= 0):
            return page
        more = memory.rows(max(page.reached, self.base), max_bytes=room)
        if not more.seqs:
            return page
        origins = [*page.origins, *more.origins]
        places = [*page.places, *(place + len(page.origins) for place in more.places)]
        return replace(
            page,
            seqs=[*page.seqs, *more.seqs],
            ranks=[*page.ranks, *more.ranks],
            times=[*page.times, *more.times],
            places=places,
            bodies=[*page.bodies, *more.bodies],
            origins=origins,
            reached=more.reached,
        )

    def summarize(self, query: Query, read: Callable[[Query], SummaryPage]) -> SummaryPage:
        """Count; `read` does for the lines up to `base`."""
        memory = self._memory() if query.until > self.base else None
        if memory is None:
            return read(query)
        if query.after >= self.base:
            return memory.summarize(query)
        page = read(replace(query, until=self.base))
        # The rest is asked for again, from where this ends.
        return replace(page, complete=False, reached=self.base) if page.complete else page

    def lines_at(self, seqs: Sequence[int], read: Callable[[Sequence[int]], dict[int, bytes]]) -> dict[int, bytes]:
        """Return some lines."""
        wanted = {seq for seq in seqs if seq > self.base}
        waiting = {line.seq: line.body for commit in self.commits for line in commit.lines if line.seq in wanted}
        return read([seq for seq in seqs if seq not in waiting]) | waiting

    def levels(self, first: int, last: int, read: Callable[[int, int], dict[int, int]]) -> dict[int, int]:
        """Count lines by level."""
        memory = self._memory() if last > self.base else None
        if memory is None:
            return read(first, last)
        counts = read(first, self.base) if first <= self.base else {}
        for rank, count in memory.levels(max(first, self.base + 1), last).items():
            counts[rank] = counts.get(rank, 0) + count
        return dict(sorted(counts.items()))


def _joined(first: Page, second: Page, *, reached: int, complete: bool) -> Page:
    return Page(
        first.bodies + second.bodies,
        first.seqs + second.seqs,
        reached,
        complete,
        first.oldest,
        beside=first.beside + second.beside,
        notices_from=second.notices_from or first.notices_from,
    )


class LoneLineJournal:
    """The journal `inner`, with lone commits in a file of their own for a moment. See `Journal` for the promises."""

    def __init__(self, inner: SqliteJournal, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Describe it; nothing is opened. `clock` counts seconds."""
        self._inner, self._clock = inner, clock
        self._file = LoneFile(inner.path)
        self._epoch = ""
        self._is_open = False
        """Between `open` and `close`: the file is this one's, and no other relay's."""
        self._waiting = WaitingLines(0)
        """Replaced by another one when SQLite has got them: a reader goes on with the one that it has."""
        self._waiting_lines = 0
        self._waiting_since = 0.0
        """`clock` at the oldest commit that is waiting."""
        self._looked_at = float("-inf")
        """`clock` at the last look whether the file is there."""
        self._committed_at = float("-inf")
        """`clock` at the last commit of lines."""

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return self._inner.path

    def open(self) -> Opening:
        """Open or create. Lines that a relay before has left in its file are in the journal by then."""
        opening = self._inner.open()
        self._is_open = True
        self._epoch, self._waiting, self._waiting_lines = opening.epoch, WaitingLines(opening.head), 0
        return opening

    def reopen(self) -> Opening:
        """Save what can be saved after JournalLost; what waits follows with the next commit, which comes at once.

        The file may have been moved away with the journal: a new one is made then.
        """
        if not self._file.is_in_place():
            self._file.close()
        return self._inner.reopen()

    # --- writing --------------------------------------------------------------------------------------------

    def append(self, commit: Commit) -> None:
        """Write all of it in one transaction, with what is waiting, or nothing."""
        self._inner.append(self._with_waiting(commit))
        self._handed_over(commit)

    def append_now(self, commit: Commit) -> bool:
        """Write a commit to the file, or in one transaction with what is waiting; False: `append` is to do it."""
        now, waiting = self._clock(), self._waiting_lines
        if waiting and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            if not self._file.is_in_place():
                self._file.close()
        is_due = waiting and (
            not self._file.size
            or waiting >= WAITING_LINES
            or self._file.size >= WAITING_BYTES
            or now - self._waiting_since >= WAITING_S
        )
        is_plain = not (
            commit.aliases or commit.forgotten or commit.devices or commit.collected or commit.forwarded is not None
        )
        # One condition after the other, and no method for each: every step of a lone line counts.
        if (
            is_plain
            and not is_due
            and commit.lines
            and now - self._committed_at < CLOSE_BEHIND_S
            and self._inner.may_append_now(commit, waiting=waiting)
            and self._file.add(self._epoch, commit)
        ):
            if not waiting:
                self._waiting_since = now
            self._waiting.add(commit)
            self._waiting_lines = waiting + len(commit.lines)
            self._committed_at = now
            return True
        if not self._inner.append_now(self._with_waiting(commit)):
            return False
        self._handed_over(commit)
        return True

    def _with_waiting(self, commit: Commit) -> Commit:
        if not self._waiting_lines:
            return commit
        self._inner.note_unsynced(self._waiting_since)
        return merged([*self._waiting.commits, commit])

    def _handed_over(self, commit: Commit) -> None:
        """Note that SQLite has what was waiting, and `commit`."""
        if commit.lines:
            self._committed_at = self._clock()
        if self._waiting_lines or commit.lines:
            self._waiting, self._waiting_lines = WaitingLines(self._inner.head), 0
        self._file.clear()

    def sync(self) -> float:
        """Have the disk take what was committed some seconds ago; what has waited here for so long goes to SQLite."""
        if self._waiting_lines:
            wait = self._waiting_since + SYNC_AFTER_S - self._clock()
            if wait > 0:
                return min(wait, self._inner.sync())
            try:
                self.append(Commit())
            except JournalError:
                # The promise about a power cut holds where SQLite has no room, too.
                with suppress(OSError):
                    self._file.sync()
                self._inner.sync()
                raise
        return self._inner.sync()

    # --- reading --------------------------------------------------------------------------------------------

    def page(self, query: Query) -> Page:
        """Read."""
        return self._waiting.page(query, self._inner.page)

    def rows(self, after: int, *, max_bytes: int) -> RowPage:
        """Read lines as rows."""
        return self._waiting.rows(after, max_bytes, lambda behind: self._inner.rows(behind, max_bytes=max_bytes))

    def summarize(self, query: Query) -> SummaryPage:
        """Count."""
        return self._waiting.summarize(query, self._inner.summarize)

    def lines_at(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the viewer messages of some lines."""
        return self._waiting.lines_at(seqs, self._inner.lines_at)

    def levels(self, first: int, last: int) -> dict[int, int]:
        """Count lines by level."""
        return self._waiting.levels(first, last, self._inner.levels)

    # --- what is SQLite's alone -----------------------------------------------------------------------------

    def keep(self, keeping: Keeping) -> None:
        """Keep lines by other limits from now on."""
        self._inner.keep(keeping)

    def prune(self) -> int:
        """Take one small step of retention; what is waiting is younger than anything that goes."""
        return self._inner.prune()

    def due(self) -> float:
        """Tell in how many seconds `prune` has work."""
        return self._inner.due()

    def derive(self, *, seconds: float) -> bool:
        """Go on with what is made behind the head."""
        return self._inner.derive(seconds=seconds)

    @property
    def index_behind(self) -> int:
        """Kept lines that `derive` has not come to."""
        return self._inner.index_behind

    def checkpoint(self, *, idle: bool) -> None:
        """Put the write-ahead log in order if it is time to."""
        self._inner.checkpoint(idle=idle)

    def take_notices(self) -> list[UpkeepNotice]:
        """Return what people should be told of upkeep."""
        return self._inner.take_notices()

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self._inner.oldest

    @property
    def pruned(self) -> int:
        """Lines taken away by retention."""
        return self._inner.pruned

    @property
    def pruned_for(self) -> Mapping[str, int]:
        """The same by reason."""
        return self._inner.pruned_for

    @property
    def damaged_lines(self) -> int:
        """Kept lines that are lost to damage."""
        return self._inner.damaged_lines

    def disturbed(self) -> bool:
        """Tell whether somebody else seems to have changed the files."""
        return self._inner.disturbed()

    def disk_bytes(self) -> int:
        """Bytes that the journal takes on disk."""
        return self._inner.disk_bytes() + self._file.size

    def room(self) -> Room:
        """Return what is known of the log and the disk."""
        return self._inner.room()

    def close(self) -> None:
        """Hand over what waits, and close every file. Where that fails the file stays for the next opening.

        The file goes while the journal's lock is held: behind it, it could be that of the next relay.
        """
        try:
            if self._is_open:
                self._is_open = False
                if self._waiting_lines:
                    self.append(Commit())
                self._file.delete()
        except JournalError:
            self._file.close()
        finally:
            self._inner.close()
