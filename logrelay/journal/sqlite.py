"""The embedded journal: one SQLite file in WAL mode, one row per line.

Owns: `SqliteJournal`: the connection that writes, what it is set to, and the order of steps in opening, appending,
purging, upkeep and closing. It must not start threads (any may read, one at a time may write) or know who the lines are
for. The parts are in `journal_file` (files), `disturbance` and `replacement` (a file that somebody else has changed, or
that was damaged), `schema`, `row_writer` (writing), `filter_sql` and `query` (reading), `retention`.
Read `journal/opening_record` next: it is what an opening writes, then `journal/row_writer`: what a commit does.

The module is long because opening, appending, upkeep and reopening change the same connection under the same lock, and
each of them decides whether that has to wait for somebody else's lock or for the disk.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeVar

from logrelay.errors import ConfigError, JournalError
from logrelay.fanout.line_json import notice_line
from logrelay.fanout.positions import id_of
from logrelay.journal import log_damage, lone_file, purged, schema, sqlite_errors
from logrelay.journal.connection_pool import ConnectionPool
from logrelay.journal.disk_space import DiskSpace, pages_of
from logrelay.journal.disturbance import Disturbance
from logrelay.journal.file_systems import waits_for_others
from logrelay.journal.holes import Holes, merge
from logrelay.journal.interface import (
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
from logrelay.journal.journal_file import JournalFile
from logrelay.journal.line_rows import RowReader
from logrelay.journal.lock_holders import readers_of
from logrelay.journal.opening_record import OpeningRecord
from logrelay.journal.query import READ_LIMIT, Reader, bounds, count_levels, lines_at
from logrelay.journal.remembered_lines import RememberedLines
from logrelay.journal.replacement import Replacement, Saved, counted, listed_ranges
from logrelay.journal.retention import Retention, uptime_us
from logrelay.journal.room_watch import RoomWatch
from logrelay.journal.row_writer import MAX_ALIASES, RowWriter
from logrelay.journal.salvage import Known
from logrelay.journal.tallies import Tallies
from logrelay.journal.text_index import PAGES, TextIndex
from logrelay.journal.transaction import Transaction
from logrelay.journal.verify import first_kept, verify_lines, verify_small_tables, verify_structure
from logrelay.model import WARNING, Commit, merged, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from logrelay.journal.holes import Range
    from logrelay.model import Line

DAY_S = 86_400
MAX_AGE_S = 7 * DAY_S
MAX_BYTES = 1 << 30
"""What is kept when nobody says otherwise: a week, or about three million lines."""
LEAST_BYTES = 1 << 20
"""A journal smaller than this would be busier with retention than with lines."""

IDLE_CHECKPOINT_BYTES = 4 << 20
BUSY_CHECKPOINT_BYTES = 16 << 20
"""Bytes written since the last checkpoint after which one is taken: when nobody waits, and anyway."""
CHECKPOINTS_PER_LOG = 2
"""A small journal's log is put in order twice before it takes the share of the size limit that is its own."""
COMMIT_BYTES = 20_000
"""What a commit costs in the log besides its bodies: the last pages of table, indexes, marks, runs."""
MANY_LINES = 50
"""From so many lines on it touches twice as many pages of the indexes."""
ROW_BYTES = 40
"""What a line costs besides its body. With this what commits of 5 to 4,000 lines were seen to take is met within a
fifth."""
SYNC_AFTER_S, SYNC_WITHIN_S = 4.0, 5.0
"""With sync=normal, what is committed is synced from so many seconds on, so that a power cut cannot take back more than
the second. About as often as ext4 writes its own journal: a quiet bot's relay does not keep a disk busier than the
system does anyway. A little sooner, so that the file system has nothing of ours left to write by itself: while it does,
it makes writes wait, and while we do, no commit is made on the event loop."""
LOOK_S = 1.0
"""How often `append_now` looks whether somebody has changed the files. `append` looks each time."""
VERIFY_BYTES = 64 << 20
"""A journal up to this size is verified as a whole when it is opened, in about a second; of a larger one only the small
tables are, and each line when it is read."""
MOST_EVICTIONS = 64
"""Steps of retention for one commit that has no room. Each makes room for some hundred lines at least."""

_Result = TypeVar("_Result")


def _logged_bytes(commit: Commit) -> int:
    """Return about how many bytes a commit takes in the log."""
    count = len(commit.lines)
    return size_of(commit.lines) + ROW_BYTES * count + COMMIT_BYTES * (1 if count < MANY_LINES else 2)


class SqliteJournal:
    """A journal in the SQLite file at `path`. See `Journal` for what each method promises."""

    def __init__(
        self,
        path: str,
        *,
        now_us: Callable[[], int],
        random_epoch: Callable[[], str],
        sync: Literal["normal", "full"] = "normal",
        max_age_s: float = MAX_AGE_S,
        max_bytes: int = MAX_BYTES,
        keep_free: int | None = 0,
        uptime_us: Callable[[], int] = uptime_us,
        clock: Callable[[], float] = time.monotonic,
        boot: str = "",
        text_index: bool = True,
        on_progress: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Describe a journal; nothing is opened. Raises ConfigError for limits that make no sense.

        Lines older than `max_age_s` seconds go (0: no limit by age), and the oldest ones when file and log are larger
        than `max_bytes`, or when less than `keep_free` bytes of the file system are free (see `DiskSpace`).

        `sync`: "full" syncs to the disk at every commit; "normal" leaves that to `sync`: a killed relay loses nothing
        either way, a power cut may take back what was committed since. `clock` counts seconds. `boot` names the boot of
        the machine: a journal that was not closed, and was written in another boot, may have lost such lines.
        `text_index`: keep an index for texts and fields; without it they are looked for in every line.
        `on_progress` is told in words how far a long rescue of a damaged file is.
        """
        if max_bytes < LEAST_BYTES or max_age_s < 0:
            raise ConfigError(
                f"a journal of {max_bytes} bytes and {max_age_s} s cannot be kept; at least {LEAST_BYTES} "
                "bytes and no less than 0 s are needed"
            )
        self._file = JournalFile(path)
        self._errors = partial(sqlite_errors.translated, self._file.path)
        """Turns the errors of SQLite and the system into ours, around a block."""
        self._now_us, self._random_epoch, self._clock = now_us, random_epoch, clock
        self._full = sync == "full"
        self._space = DiskSpace(self._file, keep_free=keep_free, max_bytes=max_bytes)
        self._retention = Retention(
            max_age_us=int(max_age_s * 1e6),
            max_bytes=max_bytes,
            now_us=now_us,
            uptime_us=uptime_us,
            room=self._space.allowed,
            clock=clock,
        )
        self._watch = RoomWatch(
            self._file.path, lambda: list(map(str, readers_of(self._file.path, besides=os.getpid())))
        )
        self._record = OpeningRecord(random_epoch=random_epoch, boot=boot, full=self._full)
        self._row_writer = RowWriter()
        self._holes = Holes(self._record.epoch_of, now_us)
        self._text_index = TextIndex()
        self._has_text_index = text_index
        self._tallies = Tallies(lambda: self._row_writer.names, clock)
        self._reader = Reader(lambda: self._row_writer.names, clock, holes=self._holes, index=self._text_index)
        self._row_reader = RowReader(lambda: self._row_writer.names, self._holes)
        self._remembered = RememberedLines()
        self._disturbance = Disturbance(self._file, self._space, self._retention, self._holes, let_go=self._let_go)
        self._replacement = Replacement(
            self._file,
            now_us=now_us,
            random_epoch=random_epoch,
            on_progress=on_progress,
            remembered=self._remembered,
        )
        self._pool = ConnectionPool(self._connect_reader)
        self._db: sqlite3.Connection | None = None
        self._in_use = Lock()
        """Taken by every method of the one thread that writes. Never waited for, except by a `close` that comes from
        another thread: SQLite crashes when a connection is closed in the middle of a statement."""
        self._closed = False
        self._syncing = self._full
        self._unsynced_since: float | None = None
        """`clock` at the oldest commit that was not synced; None: all were."""
        self._unchecked = 0
        self._looked_at = float("-inf")
        """`clock` at the last look at the files by `append_now`."""
        self._patient = True
        """The connection waits BUSY_S for somebody else's lock."""
        self._snapshot: sqlite3.Cursor | None = None
        """Holds the lock of a reader between commits of `append_now`, which saves two calls of each. No checkpoint can
        finish under it, so everything else lets it go first (`_let_go`)."""
        self._waits_for_others = False
        """The file is on a network, or another program makes the file system: a write may take any time."""
        self._shrunk = False
        """Retention has moved pages and the log's file has not been cut since."""
        self._saved: Saved | None = None

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return self._file.path

    # --- opening --------------------------------------------------------------------------------------------

    def open(self) -> Opening:
        """Open or create. What is readable of a damaged journal goes into a new file; `Opening.notices` says so."""
        with self._in_use:
            self._closed = False
            self._disturbance.forget()
            self._remembered.clear()
            return self._open()

    def _open(self) -> Opening:
        self._file.claim()
        try:
            notices: list[str] = []
            with self._errors():
                if self._file.take_finished():
                    notices.append("What was saved of a damaged journal is in its place now; a relay before was ended.")
            state = self._file.inspect()
            damage = ""
            if state == "ours":
                damage = self._look_at_log(notices)
            elif state == "damaged":
                damage = "its header makes no sense"
            if state == "ours" and not damage:
                try:
                    return self._load(notices, file="found")
                except JournalLost as error:
                    self._disconnect()
                    damage = str(error)
            if damage:
                found = self._replacement.salvage(Known(), damage, notices)
                return self._load(notices, file="created" if found.new else "found", trusted=True)
            self._replacement.create(self._random_epoch(), base=0)
            return self._load(notices, file="created")
        except BaseException:
            self._disconnect()
            self._file.release()
            raise

    def _look_at_log(self, notices: list[str]) -> str:
        """Make the file as long as its log says. Returns what is wrong with the log, if commits lie behind it.

        SQLite would forget them when it opens the file.
        """
        found = log_damage.look(self.path)
        damage = self._log_damage(found, notices) if found is not None else ""
        if found is not None and not damage:
            with self._errors():
                self._file.lengthen(found.pages * schema.PAGE_SIZE)
        return damage

    def _log_damage(self, found: log_damage.LogState, notices: list[str]) -> str:
        if not found.unreached:
            return ""
        with suppress(KeyError):
            cut_off = self._record.was_cut_off(found.meta)
            if cut_off and (found.meta["sync"] != "full" or found.unreached < log_damage.ENOUGH):
                return ""  # the disk had not everything when the power went: nothing is damaged, and that is told
        if not self._replacement.has_room():
            notices.append(
                "A part of the journal's write-ahead log is damaged, and there is no room to save what is behind it: "
                "the last lines before this one are missing. Look at the disk, and free some space."
            )
            return ""
        return "a part of its write-ahead log, with commits behind it"

    def _load(
        self, notices: list[str], *, file: Literal["found", "created", "replaced"], trusted: bool = False
    ) -> Opening:
        """Connect to the file in place and take over what it holds. Raises JournalLost for nonsense.

        `trusted`: it was made a moment ago, of rows that were verified.
        """
        try:
            self._take_over(notices, file, trusted=trusted or file == "created")
        except (KeyError, TypeError, ValueError) as error:
            raise JournalLost(f"journal {self.path} is damaged (it lacks {error})") from error
        except JournalError as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.Error) and sqlite_errors.primary_code(cause) == sqlite3.SQLITE_ERROR:
                raise JournalLost(f"journal {self.path} is damaged ({cause})") from cause
            raise
        self._pool.open()
        unsynced = file == "found" and self._record.unsynced
        if unsynced:
            notices.append(
                "The machine stopped while the relay was running (a power cut, or a reset): of the lines before this "
                f"one those of its last {SYNC_WITHIN_S:.0f} seconds may be missing (sync=normal)."
            )
        return self._opening(notices, unsynced=unsynced)

    def _take_over(self, notices: list[str], file: Literal["found", "created", "replaced"], *, trusted: bool) -> None:
        with self._errors():
            self._retention.fit(self._space.open())
            self._db = db = schema.connect_writer(self._file.path, full=self._full, log_bytes=self._retention.log_bytes)
            self._syncing, self._patient = self._full, True
            self._disturbance.note_opened()
            self._waits_for_others = waits_for_others(self._file.path)
            version = schema.migrate(db)
            if version != schema.VERSION:
                notices.append(
                    f"The journal was upgraded in place from schema version {version} to {schema.VERSION}: new lines "
                    "have a checksum. A logrelay of the version before refuses the file from now on."
                )
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            meta = dict(db.execute("SELECT key, value FROM meta"))
            oldest, head = bounds(db)
            marked = db.execute("SELECT max(last) FROM marks").fetchone()[0]
            if marked is not None and marked != head:
                raise JournalLost(f"its last line is {head}, its index says {marked}")
            if file != "replaced":
                oldest, head = self._take_lone(db, meta, oldest, head, notices)
            if file == "replaced":
                self._record.go_on()
            else:
                self._record.begin(meta, head, created=file == "created")
            db.execute(schema.PURGED_TABLE)
            self._load_holes(db)
            if not trusted:
                self._verify(db, oldest, head, notices)
            self._retention.load(db, oldest, head)
            self._row_writer.load(db)
            self._load_derived(db)
            self._unchecked = IDLE_CHECKPOINT_BYTES  # whatever the last relay left in the log
            self._space.reserve(self._retention.log_bytes)
            self._file.remember()

    def _take_lone(
        self, db: sqlite3.Connection, meta: Mapping[str, object], oldest: int, head: int, notices: list[str]
    ) -> tuple[int, int]:
        """Write the lines that a relay before had no time to hand over; they are the last of its opening.

        Returns the bounds of the lines that are there now.
        """
        found = lone_file.read(self.path)
        epoch = str(meta["epoch"])
        commits = lone_file.following(found, epoch, head)
        if commits:
            commit = merged(commits)
            self._row_writer.load(db)
            self._retention.load(db, oldest, head)
            self._retention.begin_block()
            self._sync(db, full=True)  # the file goes, and the disk must have one of the two
            with self._transaction(db):
                self._row_writer.write(db, commit)
                self._retention.mark(db, commit.lines)
            self._sync(db, full=self._full)
            oldest, head = bounds(db)
        rest = lone_file.left_over(found, head)
        if rest:
            name = lone_file.set_aside(self.path, rest, self._now_us())
            notices.append(
                f"What the relay before had committed last, in {Path(self.path).name}{lone_file.SUFFIX}, does not "
                f"follow the journal's last line: it was set aside as {name}. Lines before this one may be missing."
            )
        else:
            lone_file.delete(self.path)
        return oldest, head

    def _load_holes(self, db: sqlite3.Connection) -> None:
        self._holes.replace(db.execute("SELECT first, last FROM holes"), purged=purged.ranges_in(db))

    def _load_derived(self, db: sqlite3.Connection) -> None:
        """Take over what is made behind the head. Where the disk has no room for it, questions take longer."""
        try:
            self._tallies.load(db)
            if self._has_text_index:
                self._text_index.load(db)
            else:
                self._text_index.drop(db)
        except sqlite3.OperationalError as error:
            if sqlite_errors.primary_code(error) not in sqlite_errors.NO_ROOM:
                raise

    def _verify(self, db: sqlite3.Connection, oldest: int, head: int, notices: list[str]) -> None:
        """Look for damage; lines that fail are holes from now on. Raises JournalLost for what only a new file cures."""
        whole = self._file.disk_bytes() <= VERIFY_BYTES
        for damage in (*(verify_structure(db) if whole else ()), *verify_small_tables(db)):
            raise JournalLost(damage)
        if not whole:
            return
        known = self._holes.ranges
        found = verify_lines(db, first_kept(db, oldest), head, known)
        bad = merge([*found.damaged, *found.missing])
        if not bad:
            return
        self._holes.add(bad)
        db.execute("BEGIN")
        db.execute("DELETE FROM holes")
        db.executemany("INSERT INTO holes (first, last) VALUES (?, ?)", self._holes.ranges)
        db.execute("COMMIT")
        notices.append(
            f"The journal file is damaged: {counted(sum(b - a + 1 for a, b in bad))} in it cannot be trusted any more "
            f"and are shown as a gap: {listed_ranges(bad, self._record.epochs)}. Look at the disk."
        )

    def _opening(self, notices: list[str], *, unsynced: bool = False) -> Opening:
        kept, record, runs = self._retention, self._record, self._row_writer.runs.copy()
        aliases, devices = set(self._row_writer.aliases), list(self._row_writer.devices.values())
        earlier, collected = list(record.earlier), list(self._row_writer.collected.values())
        forwarded = list(self._row_writer.forwarded.values())
        return Opening(
            record.epoch,
            kept.oldest,
            kept.head,
            runs,
            aliases,
            notices,
            earlier,
            unsynced,
            devices,
            collected,
            forwarded,
        )

    def reopen(self) -> Opening:
        """Save what can be saved after JournalLost. Epochs and numbering go on: every id given out holds."""
        with self._working():
            if self._closed:
                raise JournalError(f"journal {self.path} has been closed", retry=False)
            return self._reopen()

    def _reopen(self) -> Opening:
        self._pool.drain()
        if self._saved is None:
            runs, aliases = self._row_writer.runs.copy(), list(self._row_writer.aliases)
            devices, collected = list(self._row_writer.devices.values()), list(self._row_writer.collected.values())
            head = self._retention.head
            self._saved = Saved(self._record.epoch, head, runs, aliases, devices, collected, [], done=False)
        saved = self._saved
        self._file.reclaim()
        if not saved.done:
            self._replacement.replace(
                saved,
                self._db,
                self._disconnect,
                epochs=self._record.known,
                oldest=self._retention.oldest,
                harm=self._disturbance.harm,
            )
        try:
            self._load(saved.notices, file="replaced", trusted=saved.trusted)
            if not self._row_writer.runs and not self._row_writer.devices and not self._row_writer.collected:
                self._restore(saved)
        except JournalError as error:
            self._disconnect()  # half reopened is not open: append says so
            saved.note_failure(lost=isinstance(error, JournalLost))
            raise
        self._saved = None
        self._disturbance.note_replaced()
        return self._opening(saved.notices)

    def _restore(self, saved: Saved) -> None:
        runs, collected = list(saved.runs), saved.collected
        commit = Commit(runs=runs, aliases=saved.aliases, devices=saved.devices, collected=collected)
        db = self._require()
        with self._transaction(db):
            self._row_writer.write(db, commit)
        self._row_writer.confirm(commit)
        self._disturbance.note_log()

    # --- writing --------------------------------------------------------------------------------------------

    def append(self, commit: Commit) -> None:
        """Write all of it in one transaction, or nothing."""
        with self._working():
            self._append(commit)

    def _append(self, commit: Commit) -> None:
        db = self._require()
        self._disturbance.look(db)
        self._wait_for_locks(db, patient=True)
        self._check_order(commit.lines)
        try:
            self._commit(db, commit)
        finally:
            self._disturbance.note_log()  # also of what a commit that failed has written

    def append_now(self, commit: Commit) -> bool:
        """Write all of it in one transaction, or nothing; False: `append` is to do it."""
        if not self._in_use.acquire(blocking=False):
            return False
        try:
            db = self._ready_now(commit)
            if db is None:
                return False
            self._check_order(commit.lines)
            self._commit_now(db, commit)
        finally:
            self._in_use.release()
        return True

    def may_append_now(self, commit: Commit, *, waiting: int) -> bool:
        """Tell whether `append_now` would write a commit, behind `waiting` lines that this was not given.

        Raises what `append_now` raises, but for what a transaction would.
        """
        if not self._in_use.acquire(blocking=False):
            return False
        try:
            if self._ready_now(commit) is None:
                return False
            if commit.lines[0].seq != self._retention.head + waiting + 1:
                self._check_order(commit.lines, waiting)
        finally:
            self._in_use.release()
        return True

    def _ready_now(self, commit: Commit) -> sqlite3.Connection | None:
        """Return the connection if nothing that may take long comes before a commit. Raises JournalLost."""
        db = self._db
        if db is None or self._full or commit.durable or self._waits_for_others or self._record.due:
            return None
        if len(self._row_writer.aliases) > MAX_ALIASES or self._unchecked > self._retention.log_bytes:
            return None  # a checkpoint comes first
        now = self._clock()
        if now - self._looked_at >= LOOK_S:
            self._disturbance.look(db)
            self._disturbance.note_log()
            self._looked_at = now
        return db

    def _commit_now(self, db: sqlite3.Connection, commit: Commit) -> None:
        self._wait_for_locks(db, patient=False)
        self._sync(db, full=False)
        try:
            if self._snapshot is None:
                with self._errors():
                    self._snapshot = db.execute("SELECT key FROM meta")
                    self._snapshot.fetchone()
            self._disturbance.note_write()
            with Transaction(db, self._file.path):
                self._claim_now(db, commit)
                self._row_writer.write(db, commit)
                if commit.lines:
                    self._retention.mark(db, commit.lines)
        except BaseException:
            self._let_go()
            raise
        self._confirm(commit)

    def _claim_now(self, db: sqlite3.Connection, commit: Commit) -> None:
        """Have room for a commit; asked in its transaction, where no question takes a lock of its own."""
        if not self._space.claim(db, pages_of(commit.lines)):
            raise JournalError(f"journal {self.path}: {sqlite_errors.FULL}")

    def _let_go(self) -> None:
        """Give back the lock that `append_now` holds between commits."""
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Have the connection for oneself."""
        with self._in_use:
            self._let_go()
            yield

    def _wait_for_locks(self, db: sqlite3.Connection, *, patient: bool) -> None:
        if patient != self._patient:
            with self._errors():
                db.execute(f"PRAGMA busy_timeout = {int(schema.BUSY_S * 1000) if patient else 0}")
            self._patient = patient

    def _check_order(self, lines: Sequence[Line], waiting: int = 0) -> None:
        """See to it that lines follow those that are there, and the `waiting` ones that are not there yet."""
        head = self._retention.head + waiting
        if lines and (lines[0].seq != head + 1 or lines[-1].seq != head + len(lines)):
            raise JournalError(
                f"lines {lines[0].seq} to {lines[-1].seq} do not follow line {head} of the journal",
                retry=False,
            )

    def _commit(self, db: sqlite3.Connection, commit: Commit) -> None:
        if self._unchecked and self._unchecked + _logged_bytes(commit) > self._retention.log_bytes:
            self._bound_log()
        self._sync(db, full=self._full or commit.durable or self._record.due)
        self._claim(db, commit)
        self._with_room(db, lambda: self._write(db, commit))
        self._record.confirm()
        self._confirm(commit)
        if self._row_writer.too_many:
            # Forgetting is a convenience: rows that stay because it failed go after the next opening.
            with suppress(JournalError), self._transaction(db):
                self._row_writer.forget(db)

    def _confirm(self, commit: Commit) -> None:
        """Remember what a commit has written."""
        lines = commit.lines
        self._row_writer.confirm(commit)
        if self._syncing:
            self._unsynced_since = None  # a sync takes all that was committed before, too
        elif self._unsynced_since is None:
            self._unsynced_since = self._clock()
        if lines:
            self._retention.confirm(lines[-1].seq)
            self._remembered.add(lines, size_of(lines))
        self._unchecked += _logged_bytes(commit)

    def note_unsynced(self, since: float) -> None:
        """Note that what is committed next was promised at the time `since` of `clock`, as if it were committed then.

        Belongs to whoever writes.
        """
        if self._unsynced_since is None or since < self._unsynced_since:
            self._unsynced_since = since

    def sync(self) -> float:
        """Have the disk take what was committed SYNC_AFTER_S ago. Returns in how many seconds to ask again."""
        with self._working():
            since, now = self._unsynced_since, self._clock()
            if since is None:
                return float("inf")
            if now - since < SYNC_AFTER_S:
                return since + SYNC_AFTER_S - now
            self._unsynced_since = now  # one that fails is tried again, but not at once
            if self._disturbance.wrote and self._db is not None:
                # From now on a change of the log is noticed, too.
                self._disturbance.look_for_strangers(self._db)
                self._disturbance.note_log()
            with self._errors():
                self._file.sync_log()
            self._unsynced_since = None
            return float("inf")

    def _write(self, db: sqlite3.Connection, commit: Commit) -> None:
        with self._transaction(db):
            self._write_rows(db, commit)

    def _write_rows(self, db: sqlite3.Connection, commit: Commit) -> None:
        if self._record.due:
            self._record.write(db)
        self._row_writer.write(db, commit)
        if commit.lines:
            self._retention.mark(db, commit.lines)

    def _claim(self, db: sqlite3.Connection, commit: Commit) -> None:
        """Have room in the file for a commit: on a full disk the oldest lines go, if they may."""
        pages = pages_of(commit.lines)
        for _ in range(MOST_EVICTIONS if self._space.gives_way else 0):
            with self._errors():
                if self._space.claim(db, pages):
                    return
            if not self._with_room(db, lambda: self._evict(db)):
                break
        with self._errors():
            if not self._space.claim(db, pages):
                raise JournalError(f"journal {self.path}: {sqlite_errors.FULL}")

    def _evict(self, db: sqlite3.Connection) -> int:
        with self._errors():
            numbers = self._retention.evict(db)
        self._holes.forget(self._retention.oldest)
        return numbers

    def _with_room(self, db: sqlite3.Connection, write: Callable[[], _Result]) -> _Result:
        """Run one transaction; where the log cannot grow, once more from its beginning."""
        try:
            return write()
        except JournalError as error:
            cause = error.__cause__
            if isinstance(error, JournalLost) or not isinstance(cause, sqlite3.Error):
                raise
            if sqlite_errors.primary_code(cause) not in sqlite_errors.NO_ROOM:
                raise
            try:
                with self._errors():
                    # Waits for readers, a second at most: a page takes some 50 ms.
                    db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            finally:
                self._disturbance.note_state()  # also of what one that failed has written
            self._space.forget()
            self._unchecked = 0
            return write()

    def _bound_log(self) -> None:
        """Take a checkpoint before the log grows any further; where the disk has no room for it, no commit follows."""
        self._checkpoint(idle=False, least=0)
        if self._watch.is_pinned(self._clock()) and self._space.is_short():
            raise JournalError(
                f"journal {self.path}: its write-ahead log takes the last room on the disk because another program has "
                "been reading the same state of the file all the time; end its transaction"
            )

    def _sync(self, db: sqlite3.Connection, *, full: bool) -> None:
        if full != self._syncing:
            with self._errors():
                db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._syncing = full

    # --- purging --------------------------------------------------------------------------------------------

    def purge(self, seqs: Sequence[int]) -> int:
        """Take lines away for good, notices excepted, and write the file anew; returns how many went.

        In the same transaction a notice says so, and holes say what is missing. For a file that no relay serves from:
        viewers are not told, and what other parts remember of the lines is not touched. Needs free disk of twice the
        file. Raises JournalError; lines may be gone then whose bytes are still in the file, and the next call, with
        lines or without, sees to that.
        """
        with self._working():
            db = self._require()
            self._disturbance.look(db)
            self._wait_for_locks(db, patient=True)
            self._sync(db, full=True)
            with self._errors():
                db.execute("PRAGMA secure_delete = ON")
            try:
                count = self._take_away(db, seqs)
                with self._errors():
                    if purged.is_unfinished(db):
                        purged.wipe(db)
            finally:
                with self._errors():
                    db.execute("PRAGMA secure_delete = OFF")
                self._space.forget()
                self._disturbance.note_state()
            return count

    def _take_away(self, db: sqlite3.Connection, seqs: Sequence[int]) -> int:
        seq, now = self._retention.head + 1, self._now_us()
        with self._transaction(db):
            gone = purged.take_away(db, seqs)
            self._forget_derived(db, gone)
            self._retention.begin_block()
            count = sum(last - first + 1 for first, last in gone)
            if not count:
                return 0
            ids = [id_of(self._record.epoch_of(end), end) for end in (gone[0][0], gone[-1][1])]
            they = "it" if count == 1 else "they"
            text = f"{counted(count)} purged from the journal: {they} should not have been logged"
            details = {"state": "purged", "count": count, "first": ids[0], "last": ids[1]}
            line, _, _ = notice_line(self._record.epoch, seq, now, WARNING, "relay", text, details)
            commit = Commit([line], durable=True)
            self._write_rows(db, commit)
        self._record.confirm()
        self._remembered.clear()
        self._confirm(commit)
        self._load_holes(db)
        return count

    # --- upkeep ---------------------------------------------------------------------------------------------

    def keep(self, keeping: Keeping) -> None:
        """Keep lines by other limits from now on."""
        self._space.change(keep_free=keeping.keep_free, max_bytes=keeping.max_bytes)
        self._retention.change(max_age_us=int(keeping.max_age_s * 1e6), max_bytes=keeping.max_bytes)

    def prune(self) -> int:
        """Take one small step of retention. Returns the oldest seq kept now."""
        with self._working():
            db = self._require()
            self._disturbance.look_for_strangers(db)
            self._wait_for_locks(db, patient=True)
            self._sync(db, full=False)  # a deletion that a power cut undoes is done again
            try:
                freed, moved = self._with_room(db, lambda: self._step(db))
            finally:
                self._space.forget()
                self._disturbance.note_log()
            # What retention frees goes through the log first: it is given back to the disk by the next checkpoint.
            self._unchecked += (COMMIT_BYTES * 10 if freed else 0) + moved * schema.PAGE_SIZE
            self._shrunk = self._shrunk or moved > 0
            self._holes.forget(self._retention.oldest)
            return self._retention.oldest

    def _step(self, db: sqlite3.Connection) -> tuple[int, int]:
        with self._errors():
            return self._retention.step(db)

    def derive(self, *, seconds: float) -> bool:
        """Go on with the text index and the tallies. Returns whether there is more to do now."""
        if not self._derive_due():
            return False
        with self._working():
            db, clock = self._require(), self._clock
            self._disturbance.look_for_strangers(db)
            self._wait_for_locks(db, patient=True)
            began, more = clock(), True
            while more and clock() - began < seconds:
                if not self._derive_some(db):
                    return False
                more = self._derive_due()
            return more

    @property
    def index_behind(self) -> int:
        """Kept lines that the text index does not have; 0 where there is none to be made."""
        return self._text_index.behind(self._retention.oldest, self._retention.head)

    def _forget_derived(self, db: sqlite3.Connection, ranges: Sequence[Range]) -> None:
        """Leave nothing of what was made of some lines, in the transaction that is open. Raises sqlite3.Error."""
        for first, last in ranges:
            self._tallies.forget(db, first, last)
            if self._text_index.usable:
                self._text_index.forget(db, first, last)

    def _derive_due(self) -> bool:
        oldest, head = self._retention.oldest, self._retention.head
        return self._tallies.due(oldest, head) or self._text_index.due(oldest, head)

    def _derive_some(self, db: sqlite3.Connection) -> bool:
        """Take one step; False: the disk has no room for what it writes."""
        oldest, head = self._retention.oldest, self._retention.head
        part = self._tallies if self._tallies.due(oldest, head) else self._text_index
        try:
            with self._errors():
                if part.will_write and (self._space.is_short() or not self._space.claim(db, PAGES)):
                    return False
                self._sync(db, full=False)  # what a power cut takes back is made again
                pages = self._with_room(db, lambda: part.step(db, oldest, head))
        finally:
            self._disturbance.note_log()
        self._unchecked += pages * schema.PAGE_SIZE
        return True

    def take_notices(self) -> list[UpkeepNotice]:
        """Return what people should be told of upkeep since the last call."""
        with self._in_use:
            self._watch.note_disk(*self._space.free())
            return [*self._retention.take_notices(), *self._watch.take_notices(self._clock())]

    def due(self) -> float:
        """Tell in how many seconds `prune` has work: 0.0 for now."""
        with self._working(), self._errors():
            db = self._require()
            db.execute("BEGIN")  # one lock for all of its questions
            try:
                return min(self._retention.due(db), self._watch.look_in_s())
            finally:
                db.execute("COMMIT")

    def checkpoint(self, *, idle: bool) -> None:
        """Move the log into the file when enough has come together. Waits for the disk, but for no reader."""
        with self._working():
            self._checkpoint(idle=idle)

    def _checkpoint(self, *, idle: bool, least: int | None = None) -> None:
        """Take a checkpoint if `least` bytes wait for it. None: as many as are worth one."""
        if least is None:
            share = self._retention.log_bytes // CHECKPOINTS_PER_LOG
            least = min(share, IDLE_CHECKPOINT_BYTES if idle else BUSY_CHECKPOINT_BYTES)
        little = self._unchecked < least
        if little and not self._watch.checkpoint_due(self._clock()):
            return
        db = self._require()
        self._disturbance.look_for_strangers(db)  # what it would write to the file hides what somebody else did
        self._space.forget()
        with self._errors():
            try:
                busy, pages, done = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if idle and self._shrunk and not busy and pages == done:
                    self._give_back(db)
            finally:
                self._space.reserve(self._retention.log_bytes)
                self._disturbance.note_state()
        whole = not busy and pages == done
        if whole:
            self._disturbance.look_behind(db)
        # A reader in the middle of an old page keeps the rest in the log; it is tried again after some more.
        self._unchecked = 0 if whole else self._unchecked // 2
        self._watch.note_checkpoint(
            self._clock(),
            log_bytes=max(pages, 0) * schema.PAGE_SIZE,
            share=self._retention.log_bytes,
            whole=whole,
        )

    def _give_back(self, db: sqlite3.Connection) -> None:
        """Cut the log's file too, which a vacuum has filled; not now if somebody reads it, and without waiting."""
        db.execute("PRAGMA busy_timeout = 0")
        try:
            self._shrunk = bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        finally:
            db.execute(f"PRAGMA busy_timeout = {int(schema.BUSY_S * 1000)}")
            self._patient = True

    # --- reading --------------------------------------------------------------------------------------------

    def page(self, query: Query) -> Page:
        """Answer a query; any thread. Raises JournalError."""
        with self._reading() as db:
            return self._reader.page(db, query)

    def rows(self, after: int, *, max_bytes: int) -> RowPage:
        """Read lines as rows; any thread. Raises JournalError."""
        with self._reading() as db:
            return self._row_reader.page(db, after, max_bytes)

    def summarize(self, query: Query) -> SummaryPage:
        """Count; any thread. Raises JournalError."""
        with self._reading() as db:
            return self._tallies.page(db, query)

    def lines_at(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the viewer messages of some lines; any thread. Raises JournalError."""
        with self._reading() as db:
            return lines_at(db, seqs)

    def levels(self, first: int, last: int) -> dict[int, int]:
        """Count the kept lines of a stretch by level rank; any thread. Raises JournalError."""
        with self._reading() as db:
            return count_levels(db, first, last)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._errors(), self._pool.lend() as db:
            if db is None:
                raise JournalError(f"journal {self.path} is not open at the moment")
            yield db

    def _connect_reader(self) -> sqlite3.Connection:
        db = schema.connect_reader(self._file.read_uri)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, READ_LIMIT)
        return db

    @property
    def damaged_lines(self) -> int:
        """Lines of the kept stretch that are lost to damage, as far as it is known; any thread."""
        return self._holes.lines

    def disturbed(self) -> bool:
        """Tell whether the files seem to have been changed by somebody else; any thread, and three stat calls.

        A commit under way looks the same: the next `append` looks again, and finds out what it was.
        """
        return self._disturbance.seen()

    def disk_bytes(self) -> int:
        """Bytes of the file and its log."""
        return self._file.disk_bytes()

    def room(self) -> Room:
        """Return what is known of the log and the disk."""
        return self._watch.room(self._clock())

    @property
    def head(self) -> int:
        """Seq of the newest line of the file."""
        return self._retention.head

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self._retention.oldest

    @property
    def pruned(self) -> int:
        """Lines taken away by retention since the journal was opened."""
        return self._retention.pruned

    @property
    def pruned_for(self) -> Mapping[str, int]:
        """The same by reason."""
        return self._retention.pruned_for

    # --- closing --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every file and give the lock back. Waits for whoever reads or writes. Only `open` undoes it."""
        with self._working():
            self._closed = True
            self._write_closed()
            self._disconnect()
            self._space.reserve_start()  # what the log leaves may be the last space for a long time
            self._file.release()

    def _write_closed(self) -> None:
        """Write what time it is, and that this opening ends in order, if it has written anything."""
        db = self._db
        if db is None or self._file.moved():
            return
        # Whoever opens a file that does not say so takes care; nothing else depends on it.
        with suppress(JournalError):
            self._sync(db, full=self._full or not self._record.due)
            with self._transaction(db):
                self._retention.save(db)
                if not self._record.due:
                    self._record.write_closed(db)

    def _disconnect(self) -> None:
        self._pool.drain()
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        self._space.close()

    # --- errors ---------------------------------------------------------------------------------------------

    def _require(self) -> sqlite3.Connection:
        if self._db is None:
            raise JournalLost(f"journal {self.path} is not open")
        return self._db

    def _transaction(self, db: sqlite3.Connection) -> Transaction:
        """All or nothing."""
        return Transaction(db, self._file.path)
