"""A journal's file, read without the relay: by a command, whether a relay has it open or not.

Owns: `ReadOnlyJournal`, one look at a file with the same walk that the relay answers with (`journal/query`). It must
not change the file or take the relay's lock: a relay that has it open does not notice. SQLite may leave an empty log
beside a file that nobody has open. Read `terminal/journal_facts` next.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from logrelay.errors import JournalError
from logrelay.fanout.positions import Epoch, Epochs
from logrelay.journal import journal_file, lone_file, opening_record, purged, schema, sqlite_errors
from logrelay.journal.holes import Holes
from logrelay.journal.lone_lines import WaitingLines
from logrelay.journal.query import READ_LIMIT, Reader, bounds, lines_at
from logrelay.journal.row_writer import RowWriter
from logrelay.journal.tallies import Tallies
from logrelay.journal.text_index import TextIndex
from logrelay.model import RELAY_RUN, merged

if TYPE_CHECKING:
    from logrelay.journal.interface import Page, Query, SummaryPage
    from logrelay.model import Run


class ReadOnlyJournal:
    """The journal in the file at `path`, as it is when it is looked at. Belongs to one thread; to be closed."""

    def __init__(self, path: str, *, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        """Open it for reading. Raises JournalError where there is none, or none that this version can read."""
        self.path = str(Path(path).expanduser().resolve())
        if not Path(self.path).is_file():
            raise JournalError(f"there is no journal file at {self.path}; --journal names another one", retry=False)
        with self._errors():
            self._db = schema.connect_reader(f"file:{quote(self.path)}?mode=ro")
        try:
            with self._errors():
                self._load(now_us)
        except BaseException:
            self._db.close()
            raise

    def _load(self, now_us: Callable[[], int]) -> None:
        db = self._db
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, READ_LIMIT)
        application = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if application != schema.APPLICATION_ID:
            journal_file.refuse_foreign(self.path)
            raise JournalError(f"journal {self.path} is damaged (its header is not that of a journal)", retry=False)
        if version != schema.VERSION:
            older = version < schema.VERSION
            cure = "start the relay once, which upgrades it" if older else "install that version to read it"
            raise JournalError(f"journal {self.path} has the schema version {version}: {cure}", retry=False)
        found = self._lone()  # first: what is handed over meanwhile is in both
        db.execute("BEGIN")  # one state for all that follows
        try:
            meta = dict(db.execute("SELECT key, value FROM meta"))
            rows = RowWriter()
            rows.load(db)
            self._names, self.aliases, self._runs = rows.names, frozenset(rows.aliases), list(rows.runs)
            self.oldest, self.head = bounds(db)
            holes, purged_ranges = db.execute("SELECT first, last FROM holes").fetchall(), purged.ranges_in(db)
            self.is_purge_unfinished = purged.is_unfinished(db)
        finally:
            db.execute("COMMIT")
        try:
            *earlier, last = opening_record.read(meta) or [Epoch(str(meta["epoch"]), self.oldest)]
        except (KeyError, TypeError) as error:
            raise JournalError(f"journal {self.path} is damaged (it lacks {error})") from error
        commits = lone_file.following(found, last.name, self.head)
        self._waiting = WaitingLines(self.head, commits)
        if commits:
            self.head = commits[-1].lines[-1].seq
            changed = {run.id: run for run in merged(commits).runs}
            self._runs = [*(run for run in self._runs if run.id not in changed), *changed.values()]
        self.epochs = Epochs(earlier, last.name, last.first)
        """The epochs of its lines, the last one that of the opening that wrote last."""
        self._holes = Holes(self.epochs.of, now_us)
        self._holes.replace(holes, purged=purged_ranges)
        self._reader = Reader(lambda: self._names, holes=self._holes, index=TextIndex(usable=True))
        self._tallies = Tallies(lambda: self._names)

    def _lone(self) -> lone_file.Found:
        """Read what the relay has not handed over to SQLite yet, or had no time to."""
        try:
            return lone_file.read(self.path, checked=False)
        except OSError as error:
            raise sqlite_errors.from_os(error, self.path) from error

    @property
    def damaged_lines(self) -> int:
        """Kept lines that are lost to damage, as far as the file says."""
        return self._holes.lines

    @property
    def runs(self) -> Sequence[Run]:
        """What the file remembers of the runs, in the order in which they were last seen."""
        return self._runs

    def page(self, query: Query) -> Page:
        """Answer a query. Raises JournalError."""
        with self._errors():
            return self._waiting.page(query, lambda wanted: self._reader.page(self._db, wanted))

    def summarize(self, query: Query) -> SummaryPage:
        """Count, see `Journal.summarize`. Raises JournalError."""
        with self._errors():
            return self._waiting.summarize(query, lambda wanted: self._tallies.page(self._db, wanted))

    def lines_at(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the viewer messages of some lines. Raises JournalError."""
        with self._errors():
            return self._waiting.lines_at(seqs, lambda wanted: lines_at(self._db, wanted))

    def count_lines(self) -> int:
        """Count the lines that bots logged; notices are not among them. Raises JournalError."""
        with self._errors():
            count: int = self._db.execute(
                "SELECT count(*) FROM lines WHERE run != ? AND seq <= ?", (RELAY_RUN, self._waiting.base)
            ).fetchone()[0]
            return count + sum(line.run != RELAY_RUN for part in self._waiting.commits for line in part.lines)

    def disk_bytes(self) -> int:
        """Bytes of the file and its log."""
        total = 0
        for companion in ("", "-wal", "-shm", lone_file.SUFFIX):
            with suppress(OSError):
                total += Path(self.path + companion).stat().st_size
        return total

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if sqlite_errors.primary_code(error) == sqlite3.SQLITE_CANTOPEN:
                raise JournalError(
                    f"journal {self.path} cannot be opened for reading by this user; run this as the relay's user, or "
                    "as root",
                    retry=False,
                ) from error
            raise sqlite_errors.from_sqlite(error, self.path) from error
        except sqlite3.Error as error:
            if sqlite_errors.primary_code(error) == sqlite3.SQLITE_NOTADB:
                journal_file.refuse_foreign(self.path)
            raise sqlite_errors.from_sqlite(error, self.path) from error
