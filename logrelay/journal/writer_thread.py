"""The thread that writes the journal, and the few that read it.

Owns: `JournalThread`. Everything that blocks on the journal happens here, so that the event loop never does. It must
not know sockets, viewers or what a line says: it reports to a `JournalEvents`, on the loop. It also owns the open
journal: nobody else closes it. Read `journal/derive_rhythm` next: what is made behind the head waits for lines.

One commit is written at a time; what arrives meanwhile becomes the next one, so the busier the relay is, the
larger its transactions are. Retention and checkpoints are taken in small steps between commits. A small commit may be
made on the loop, while the thread rests (`commit_now`): `quick_commits` says when.

The module is long because commits, retries, upkeep and reopening are steps of one loop that only this thread may take.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Protocol, TypeVar

from logrelay.errors import JournalError
from logrelay.journal.derive_rhythm import WINDOW_S, DeriveRhythm
from logrelay.journal.interface import (
    Journal,
    JournalLost,
    Keeping,
    Opening,
    Page,
    Query,
    Room,
    RowPage,
    SummaryPage,
    UpkeepNotice,
)
from logrelay.journal.quick_commits import SLOW_S, QuickCommits
from logrelay.model import ERROR, WARNING, Commit, merged, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MERGE_LINES = 4096
"""Lines in one transaction at most: some 15 ms of work, and the unit that is tried again after an error."""
MERGE_BYTES = 8 << 20
"""Body bytes in one transaction at most; together with the queue this is all the writer holds."""
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0
"""Pauses between attempts: short for a lock that somebody held, capped so that a freed disk is seen at once."""
UPKEEP_LINES, UPKEEP_S = 4096, 0.25
"""Retention and checkpoints are looked after when so many lines have come, or so much time has passed."""
UPKEEP_RETRY_S = 5.0
"""Pause after retention or a checkpoint failed while commits work. A commit takes a checkpoint by itself before the log
has grown too long; this is for what waits for nobody."""
UPKEEP_TELL_S = 600.0
"""Upkeep that fails again and again is told of this often at most."""
IDLE_S = 0.05
"""No commit for so long: nobody waits, the checkpoint may wait for the disk."""
MOST_UNPLANNED_S = 4.0
"""Commits of the loop wake the thread to look after the journal if it would sleep for longer: once in so long."""
DERIVE_IDLE_S = 0.002
"""While nobody waits, half of the time goes into what is made behind the head, in pieces that no commit notices."""
DERIVE_BUSY_S = 0.005
"""While lines keep coming, as much of each quarter of a second: some 1,000 lines of a text index in a second."""
LONGEST_WAIT_S = 3600.0
"""A journal with nothing to do names a time far away or none; the platform's clocks cannot wait for ever."""
TELL_RHYTHM_S = 0.2
"""The rhythm is told of lines so often at most: it counts them by the second."""
DISK_LOOK_S = 1.0
"""The size on disk is looked at this often at most; it is for people."""
READERS = 2
"""Threads for pages: one viewer far behind must not keep the others from their replay; SQLite reads in parallel."""

_Answer = TypeVar("_Answer")

_PLAN = Commit()
"""In the queue: nothing is to be written, but the thread is to think again about when to look after the journal."""


class JournalEvents(Protocol):
    """Who the journal's thread reports to. Called on the loop, in the order in which things happened."""

    def on_committed(self, upto: int, oldest: int) -> None:
        """Everything up to seq `upto` is in the journal, and `oldest` is the oldest line kept.

        Called after each commit, and when retention moved `oldest` (with `upto` as before).
        """

    def on_trouble(self, error: JournalError) -> None:
        """Commits have begun to fail. Called once per time of trouble.

        `error.retry` False: the thread has given up for good, only `JournalThread.stop` is left. This is said once
        more where it was first thought that trying again would help.
        """

    def on_recovered(self, notices: list[str]) -> None:
        """Commits work again. Called once, before the `on_committed` of the commit that worked.

        The notices say what happened to the file, if something did.
        """

    def on_damaged(self, lines: int) -> None:
        """Somebody has read a part of the file that is damaged; so many lines are lost in all.

        Called for the first such line after an opening, and again each time the number has doubled.
        """

    def on_notice(self, notice: UpkeepNotice) -> None:
        """Upkeep has something that people should be told."""


@dataclass(frozen=True, slots=True)
class WriterStats:
    """A snapshot of the counters."""

    commits: int
    """Transactions written."""
    lines: int
    """Lines written."""
    pending_commits: int
    """Commits handed in and not yet in the journal; whoever submits bounds them."""
    disk_bytes: int
    """Size of the journal, log included, at the last look (after commits, at most once in a second)."""
    last_commit_s: float
    """How long the last transaction took."""
    slowest_commit_s: float
    """How long the slowest took."""
    pruned: int
    """Lines taken away by retention."""
    pruned_for: dict[str, int]
    """The same by reason: `age`, `size`, `space`."""
    pages: int
    """Pages read."""
    damaged_lines: int
    """Lines of the kept stretch that are lost to damage."""
    trouble: str | None
    """What keeps the journal from being written, in words; None when nothing does."""
    upkeep_trouble: str | None
    """What keeps retention or checkpoints from working while commits work."""
    stalled_s: float
    """Seconds that the disk has been at one thing; 0 while it is at nothing."""
    room: Room
    """What is known of the log and the disk, as of a moment ago."""
    index_behind: int
    """Lines that the text index does not have, as of a moment ago."""


class JournalThread:
    """Runs one open journal on a thread of its own. All methods are for the loop's thread, except `stop`."""

    def __init__(
        self,
        journal: Journal,
        opening: Opening,
        events: JournalEvents,
        call_soon: Callable[..., object],
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """Take over a journal that is open; `opening` is what opening it returned.

        `events` gets the reports, through `call_soon(function, *args)`, which runs the function on the loop and may be
        called from any thread (`loop.call_soon_threadsafe`). `clock` counts seconds, `cpu_clock` those in which the
        calling thread had the processor.
        """
        self._journal, self._events, self._call_soon, self._clock = journal, events, call_soon, clock
        self._cpu_clock = cpu_clock
        self._queue: SimpleQueue[Commit | None] = SimpleQueue()
        self._using = Lock()
        """Held by whoever does something with the journal: the thread, or the loop for one commit."""
        self._quick = QuickCommits()
        self._rhythm = DeriveRhythm()
        self._rows_read = self._rows_noted = 0
        """Rows that others have read to pass them on; how many of them, and of the lines committed, the rhythm knows
        of."""
        self._rows_told = float("-inf")
        """`clock` when it was told."""
        self._index_behind = journal.index_behind
        self._wakes_at = float("-inf")
        """`clock` at which the thread looks after the journal by itself; written with `_using` held."""
        self._carried_over: deque[Commit] = deque()
        """Taken from the queue, but too much for the transaction that was being put together."""
        self._most_parts = MERGE_LINES
        """Commits in one transaction: fewer after one that failed, for a disk with little room takes a small one."""
        self._thread = Thread(target=self._run, name="journal", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="journal-read")
        self._stopping = Event()
        self._is_stopping = False
        """The same, for who asks at each line."""
        self._deadline = float("inf")
        self._lost = False
        self._damage: JournalLost | None = None
        self._trouble: JournalError | None = None
        self._upkeep_trouble: Exception | None = None
        self._sync_trouble: JournalError | None = None
        self._upkeep_after = 0.0
        self._upkeep_told = float("-inf")
        self._upkeep_is_told = False
        self._unkept = 0
        """Lines committed since the last look after retention."""
        self._look_at = 0.0
        self._keeping: Keeping | None = None
        """Limits that the journal is to be told of, by the thread."""
        self._notices: list[str] = []
        self._told_damaged = journal.damaged_lines
        """Lines lost to damage of which somebody has been told; what the opening found, its notices said."""
        self._submitted = self._taken = self._commits = self._lines = self._pages = 0
        self._head, self._oldest = opening.head, opening.oldest
        self._last_s = self._slowest_s = 0.0
        self._busy_since: float | None = None
        """`clock` when the thread turned to the journal; None: it does not use it."""
        self._room = Room()
        self._disk_bytes = journal.disk_bytes()
        self._disk_looked = float("-inf")

    # --- for the loop ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; what has been submitted before is written now."""
        self._thread.start()

    def submit(self, commit: Commit) -> None:
        """Hand in what is to be written next. Never blocks; the commit belongs to the thread from now on."""
        self._submitted += 1
        self._queue.put(commit)

    def commit_now(self, commit: Commit, size: int) -> bool:
        """Write a small commit at once, on the loop, with the thread resting. False: it was not; `submit` it.

        `size` is that of its lines' bodies. Nothing is reported. The caller knows of no trouble, and of no commit that
        has not been reported.
        """
        lines = commit.lines
        if self._submitted != self._taken or self._trouble is not None or self._is_stopping:
            return False
        if not self._quick.allow(len(lines), size) or not self._using.acquire(blocking=False):
            return False
        try:
            if self._lost or self._damage is not None:
                return False
            began = self._clock()
            if not self._journal.append_now(commit):
                return False
            now = self._clock()
            if now - began >= SLOW_S:
                self._quick.note(now - began)
            self._count(commit, now - began, now)
            self._unkept += len(lines)
            if self._unkept >= UPKEEP_LINES or self._wakes_at - now > MOST_UNPLANNED_S:
                self._wakes_at = float("-inf")
                self._queue.put(_PLAN)
        except Exception:  # the thread meets it as well, and reports it
            self._quick.failed()
            return False
        finally:
            self._using.release()
        return True

    def read(self, query: Query) -> Future[Page]:
        """Read a page on another thread. The future raises JournalError when that is not possible now."""
        return self._readers.submit(self._page, query)

    def read_and(self, query: Query, convert: Callable[[Page], _Answer]) -> Future[_Answer]:
        """Read a page and convert it, both on another thread: for work that is too long for the loop."""
        return self._readers.submit(lambda: convert(self._page(query)))

    def rows(self, after: int, *, max_bytes: int) -> Future[RowPage]:
        """Read lines as rows on another thread; see `Journal.rows`."""
        return self._readers.submit(self._rows, after, max_bytes)

    def summarize(self, query: Query) -> Future[SummaryPage]:
        """Count on another thread; see `Journal.summarize`."""
        return self._readers.submit(self._journal.summarize, query)

    def lines_at(self, seqs: Sequence[int]) -> Future[dict[int, bytes]]:
        """Read some lines on another thread; see `Journal.lines_at`."""
        return self._readers.submit(self._journal.lines_at, seqs)

    def levels(self, first: int, last: int) -> Future[dict[int, int]]:
        """Count lines by level on another thread; see `Journal.levels`."""
        return self._readers.submit(self._journal.levels, first, last)

    @property
    def head(self) -> int:
        """Seq of the newest line in the journal; any thread. Whoever is told by reports only learns of it later."""
        return self._head

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept; any thread. See `head`."""
        return self._oldest

    @property
    def pending(self) -> int:
        """Commits handed in and not yet in the journal."""
        return self._submitted - self._taken

    def stats(self) -> WriterStats:
        """Return the counters as they are now; any thread."""
        return WriterStats(
            commits=self._commits,
            lines=self._lines,
            pending_commits=self.pending,
            disk_bytes=self._disk_bytes,
            last_commit_s=self._last_s,
            slowest_commit_s=self._slowest_s,
            pruned=self._journal.pruned,
            pruned_for=dict(self._journal.pruned_for),
            pages=self._pages,
            damaged_lines=self._journal.damaged_lines,
            trouble=str(self._trouble) if self._trouble else None,
            upkeep_trouble=str(self._upkeep_trouble) if self._upkeep_trouble else None,
            stalled_s=self.stalled_s,
            room=self._room,
            index_behind=self._index_behind,
        )

    @property
    def stalled_s(self) -> float:
        """Seconds since the thread turned to the journal and has not come back; any thread. 0 when it rests."""
        since = self._busy_since
        return 0.0 if since is None else max(0.0, self._clock() - since)

    def keep(self, keeping: Keeping) -> None:
        """Have the journal keep lines by other limits, as soon as the thread comes to it. Never blocks."""
        self._keeping = keeping
        self._queue.put(_PLAN)

    def look_after_files(self) -> None:
        """See to it that a file that somebody has cut or overwritten is noticed although no line comes."""
        if not self.pending and self._trouble is None and self._journal.disturbed():
            self.submit(Commit())

    @property
    def running(self) -> bool:
        """True while the thread is there; the journal may be in use until it is not."""
        return self._thread.is_alive()

    def stop(self, deadline_s: float) -> int:
        """Write what is left, close the journal, end the threads; blocks up to `deadline_s`. May be called again.

        Returns how many commits did not get into the journal.

        The thread closes the journal itself, as the last thing it does and after the last reader has left: SQLite does
        not survive being closed under a thread that uses it. When the disk does not answer in time the thread is
        therefore left behind with the journal open. Nothing half written can stay: the next opening rolls it back.
        """
        self._deadline = self._clock() + deadline_s
        self._is_stopping = True
        self._stopping.set()
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        else:
            # Never started: nobody writes, and closing waits for whoever reads.
            self._journal.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
        return self.pending

    # --- reading threads ------------------------------------------------------------------------------------

    def _page(self, query: Query) -> Page:
        return self._read(lambda: self._journal.page(query))

    def _rows(self, after: int, max_bytes: int) -> RowPage:
        page = self._read(lambda: self._journal.rows(after, max_bytes=max_bytes))
        self._rows_read += len(page.seqs)
        return page

    def _read(self, read: Callable[[], _Answer]) -> _Answer:
        try:
            page = read()
        except JournalError as error:
            # The file may have gone or be damaged. Only the writing thread may reopen it; an empty commit wakes it.
            if isinstance(error, JournalLost):
                self._damage = error
            if not self.pending:
                self._report(self.submit, Commit())
            raise
        self._pages += 1
        damaged = self._journal.damaged_lines
        if damaged >= max(1, 2 * self._told_damaged):
            # Two readers may find the same line at once: it is told twice then, with the same number.
            self._told_damaged = damaged
            self._report(self._events.on_damaged, damaged)
        return page

    # --- the writing thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # whatever it was, nobody would notice a thread that is gone
            self._report_trouble(JournalError(f"the journal's thread failed: {error!r}", retry=False))
        with self._using:
            self._journal.close()

    def _serve(self) -> None:
        while taken := self._next():
            commit = self._write(taken)
            if commit is None:
                while self._queue.get() is not None:
                    pass  # given up: what still comes is counted as pending, and reading goes on until `stop`
                return
            with self._at_work():
                self._unkept += len(commit.lines)
                now = self._clock()
                if self._unkept >= UPKEEP_LINES or now >= self._look_at:
                    # Asking whether there is something to do costs a third of a small commit.
                    self._upkeep(enough=self._unkept)
                    self._unkept, self._look_at = 0, now + UPKEEP_S
                    self._derive(DERIVE_BUSY_S)

    def _next(self) -> list[Commit]:
        """Wait for commits, looking after the journal meanwhile; return those for one transaction. Empty: the end."""
        wait = self._sleep_for(IDLE_S)
        while not self._carried_over:
            try:
                first = self._queue.get(timeout=wait)
            except Empty:
                wait = self._idle_upkeep()
                continue
            if first is None:
                return []
            if first is _PLAN:
                wait = self._plan()
                continue
            self._carried_over.append(first)
        return self._gather()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Have the journal for oneself, and let others see since when."""
        with self._using:
            self._busy_since = self._clock()
            try:
                yield
            finally:
                self._busy_since = None

    def _sleep_for(self, seconds: float) -> float:
        with self._using:
            self._wakes_at = self._clock() + seconds
        return seconds

    def _idle_upkeep(self) -> float:
        with self._at_work():
            enough, self._unkept = max(1, self._unkept), 0
            wait = min(self._upkeep(enough=enough, idle=True), LONGEST_WAIT_S)
            began, used = self._clock(), self._cpu_clock()
            if self._derive(DERIVE_IDLE_S):
                pause = self._rhythm.pause(self._clock() - began, self._cpu_clock() - used)
                wait = min(wait, pause if self._may_derive() else WINDOW_S)
            self._wakes_at = self._clock() + wait
        return wait

    def _plan(self) -> float:
        """Look after the journal now if much has come, else when what the loop has committed is to be synced."""
        with self._at_work():
            if self._unkept < UPKEEP_LINES and self._keeping is None:
                wait = min(self._sync(), LONGEST_WAIT_S)
                self._wakes_at = self._clock() + wait
                return wait
        return self._idle_upkeep()

    def _gather(self) -> list[Commit]:
        """Take commits that wait, up to a bound, the first one whatever its size."""
        waiting = self._carried_over
        parts = [waiting.popleft()]
        lines, size = len(parts[0].lines), size_of(parts[0].lines)
        while lines < MERGE_LINES and len(parts) < self._most_parts:
            if not waiting:
                try:
                    following = self._queue.get_nowait()
                except Empty:
                    break
                if following is _PLAN:
                    continue  # whoever writes looks after the journal afterwards
                if following is None:
                    self._queue.put(None)  # the end stays the end: nothing is submitted behind it
                    break
                waiting.append(following)
            lines, size = lines + len(waiting[0].lines), size + size_of(waiting[0].lines)
            if lines > MERGE_LINES or size > MERGE_BYTES:
                break
            parts.append(waiting.popleft())
        return parts

    def _write(self, parts: list[Commit]) -> Commit | None:
        """Write some commits in one transaction, however long it takes; if that fails, the first of them.

        Returns what was written. None: it could not be written and never will be here.
        """
        pause = FIRST_RETRY_S
        commit = merged(parts)
        while True:
            began = self._clock()
            try:
                with self._at_work():
                    self._reopen_if_lost()
                    self._journal.append(commit)
            except JournalError as error:
                self._quick.failed()
                self._report_trouble(error)
                if isinstance(error, JournalLost):
                    if not self._lost and pause == FIRST_RETRY_S:
                        self._lost, pause = True, pause * 2
                        continue  # time will not heal it: reopen at once, and wait only if that does not help
                    self._lost = True
                elif not error.retry:
                    return None
                else:
                    self._carried_over.extendleft(reversed(parts[1:]))
                    parts, self._most_parts = parts[:1], 1
                    commit = parts[0]
            except Exception as error:
                self._report_trouble(JournalError(f"the journal failed in an unexpected way: {error!r}", retry=False))
                return None
            else:
                self._taken += len(parts)
                self._most_parts = min(self._most_parts * 2, MERGE_LINES)
                self._written(commit, self._clock() - began)
                return commit
            if self._clock() + pause > self._deadline:
                return None
            self._pause(pause)
            pause = min(pause * 2, LAST_RETRY_S)

    def _reopen_if_lost(self) -> None:
        """Reopen a journal that was lost, also when only a reader noticed."""
        if self._damage is not None:
            self._lost = True
            self._report_trouble(self._damage)
            self._damage = None
        if self._lost:
            opening = self._journal.reopen()
            self._notices += opening.notices
            self._oldest = opening.oldest
            self._told_damaged = self._journal.damaged_lines
            self._lost = False
            self._damage = None

    def _written(self, commit: Commit, took: float) -> None:
        self._quick.note(took)
        self._count(commit, took, self._clock())
        if self._trouble is not None:
            notices, self._notices, self._trouble = self._notices, [], None
            self._report(self._events.on_recovered, notices)
        self._report(self._events.on_committed, self._head, self._oldest)

    def _count(self, commit: Commit, took: float, now: float) -> None:
        self._last_s = took
        self._slowest_s = max(self._slowest_s, took)
        self._commits += 1
        lines = commit.lines
        if lines:
            self._lines += len(lines)
            self._head = lines[-1].seq
        self._oldest = self._journal.oldest
        if now - self._rows_told >= TELL_RHYTHM_S:
            self._tell_rhythm(now)
        if now - self._disk_looked >= DISK_LOOK_S:
            self._disk_bytes, self._disk_looked = self._journal.disk_bytes(), now

    def _tell_rhythm(self, now: float) -> None:
        """Let the rhythm know of lines that were committed, or read to be passed on, since it was told last."""
        moved, self._rows_told = self._lines + self._rows_read, now
        self._rhythm.note(moved - self._rows_noted, now)
        self._rows_noted = moved

    def _report_trouble(self, error: JournalError) -> None:
        """Report once per time of trouble, and again only when trying again was given up."""
        is_new = self._trouble is None or (self._trouble.retry and not error.retry)
        self._trouble = error
        if is_new:
            self._report(self._events.on_trouble, error)

    def _report(self, function: Callable[..., object], *args: object) -> None:
        """Have the loop call a function, as long as there is a loop."""
        with suppress(RuntimeError):
            self._call_soon(function, *args)

    def _pause(self, seconds: float) -> None:
        """Wait before another attempt; `stop` ends the wait, and the waits after it are the shortest."""
        if self._stopping.is_set():
            time.sleep(min(seconds, FIRST_RETRY_S))
        else:
            self._stopping.wait(seconds)

    def _upkeep(self, *, enough: int, idle: bool = False) -> float:
        """Take retention steps until `enough` lines are gone, and a checkpoint if it is time.

        As many lines go as came, so that retention cannot fall behind. Returns the seconds until the next look.
        """
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            self._journal.keep(keeping)
        sync_in = self._sync()
        paused_for = self._upkeep_after - self._clock()
        if paused_for > 0:
            return min(sync_in, paused_for)
        try:
            wait = self._take_steps(enough)
            self._journal.checkpoint(idle=idle)
        except Exception as error:
            if isinstance(error, JournalLost):
                self._damage = error
                self._report(self.submit, Commit())
            self._upkeep_trouble = error
            self._upkeep_after = self._clock() + UPKEEP_RETRY_S
            if not isinstance(error, JournalLost):  # which is told of when the file is replaced
                self._tell_of_upkeep()
            return min(sync_in, UPKEEP_RETRY_S)
        self._upkeep_trouble = self._sync_trouble
        self._tell_of_upkeep()
        return min(sync_in, wait)

    def _derive(self, seconds: float) -> bool:
        """Have the journal go on with what it makes behind the head, unless somebody waits for a commit.

        Returns whether there is more to do, now or once lines do not pour in any more.
        """
        self._index_behind = self._journal.index_behind
        if self.pending or self._upkeep_trouble is not None or self._trouble is not None:
            return False
        if not self._may_derive():
            return True
        try:
            return self._journal.derive(seconds=seconds)
        except JournalError as error:
            # Nothing depends on it but the time that a question takes.
            if isinstance(error, JournalLost):
                self._damage = error
                self._report(self.submit, Commit())
            self._upkeep_after = self._clock() + UPKEEP_RETRY_S
            return False

    def _may_derive(self) -> bool:
        now = self._clock()
        self._tell_rhythm(now)  # an edge that catches up needs the processor as well
        return self._rhythm.may(now, self._index_behind)

    def _sync(self) -> float:
        """Have the disk take what it has not, when it is time; also while nothing else of the upkeep works."""
        try:
            wait = self._journal.sync()
        except JournalError as error:
            self._upkeep_trouble = self._sync_trouble = error
            return UPKEEP_RETRY_S
        if wait == float("inf"):
            self._sync_trouble = None
        self._report_oldest(self._journal.oldest)  # what waited for SQLite may have needed the room of others
        return wait

    def _take_steps(self, enough: int) -> float:
        before = self._journal.pruned
        wait = self._journal.due()
        while wait <= 0:
            oldest = self._journal.prune()
            self._report_oldest(oldest)
            if self._journal.pruned - before >= enough or self._journal.pruned == before:
                break
            wait = self._journal.due()
        return wait

    def _report_oldest(self, oldest: int) -> None:
        if oldest != self._oldest:
            self._oldest = oldest
            self._report(self._events.on_committed, self._head, oldest)

    def _tell_of_upkeep(self) -> None:
        """Have people told what retention did, and when it begins to fail or works again."""
        for notice in self._journal.take_notices():
            self._report(self._events.on_notice, notice)
        self._room = self._journal.room()
        now, error = self._clock(), self._upkeep_trouble
        if error is not None and not self._upkeep_is_told and now - self._upkeep_told >= UPKEEP_TELL_S:
            self._upkeep_told, self._upkeep_is_told = now, True
            text = f"the journal takes lines, but its upkeep fails: {error}"
            self._report(
                self._events.on_notice, UpkeepNotice(ERROR, text, {"state": "upkeep_trouble", "reason": str(error)})
            )
        elif error is None and self._upkeep_is_told:
            self._upkeep_is_told = False
            text = "the journal's upkeep works again"
            self._report(self._events.on_notice, UpkeepNotice(WARNING, text, {"state": "upkeep_recovered"}))
