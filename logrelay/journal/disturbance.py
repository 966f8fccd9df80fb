"""Whether somebody else has changed the journal's open file, and whether that did harm.

Owns: `Disturbance`: the looks at the files, what they were like when we left them, and what was noticed. It must not
know what becomes of a journal that was harmed. Read `journal/verify` next: it tells harm from a false alarm.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from logrelay.journal import schema
from logrelay.journal.disk_space import DiskSpace
from logrelay.journal.holes import Holes
from logrelay.journal.interface import JournalLost
from logrelay.journal.journal_file import JournalFile
from logrelay.journal.retention import Retention
from logrelay.journal.sqlite_errors import translated
from logrelay.journal.verify import verify_lines, verify_small_tables, verify_structure

MOST_FALSE_ALARMS = 3
"""After so many times that the file had been touched and was sound, only its size is looked at: its file system does
not keep times the way we expect, or a program checkpoints it by hand."""


class Disturbance:
    """Watches the files at the times of its owner, who has the connection for himself.

    `let_go` gives back any lock of a reader that the owner's connection holds: no checkpoint ends under it.
    """

    def __init__(
        self,
        file: JournalFile,
        space: DiskSpace,
        retention: Retention,
        holes: Holes,
        *,
        let_go: Callable[[], None],
    ) -> None:
        self._file, self._space, self._retention, self._holes, self._let_go = file, space, retention, holes, let_go
        self._false_alarms = 0
        self.harm = ""
        """What somebody did to the open file, in words; empty when nothing was noticed."""
        self.wrote = False
        """We have written to the log since the state of the files was noted."""

    def forget(self) -> None:
        """Forget whatever was noticed: the journal is opened."""
        self.harm, self._false_alarms = "", 0

    def note_opened(self) -> None:
        """Note that the file was opened, and nothing written to it yet."""
        self.wrote = False

    def note_replaced(self) -> None:
        """Note that there is a new file, to which nobody has done anything."""
        self.harm = ""

    def note_write(self) -> None:
        """Note that we are about to write to the log, without a look at the files behind it."""
        self.wrote = True

    def look(self, db: sqlite3.Connection) -> None:
        """See to it that the files are ours and as we left them. Raises JournalLost."""
        if self._file.moved():
            raise JournalLost(f"journal {self._file.path} was deleted or replaced while the relay was running")
        self.look_for_strangers(db)

    def look_for_strangers(self, db: sqlite3.Connection) -> None:
        """See to it that nobody else has written to the file or cut it. Raises JournalLost when that did harm."""
        if not self._touched():
            return
        self._let_go()
        with translated(self._file.path):
            _, pages, done = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._space.forget()
            if self._file.too_short(
                schema.PAGE_SIZE, db.execute("PRAGMA page_count").fetchone()[0], all_in=pages == done
            ):
                raise self._harmed("it was truncated while the relay was running")
            db.execute("PRAGMA shrink_memory")  # what is verified is what is in the file, not what was
            for damage in (*verify_structure(db), *verify_small_tables(db)):
                raise self._harmed(f"it was overwritten or truncated while the relay was running: {damage}")
            found = verify_lines(db, self._retention.oldest, self._retention.head, self._holes.ranges)
        if not found.sound:
            raise self._harmed("it was overwritten while the relay was running")
        self._false_alarms += 1
        self.note_state()

    def _harmed(self, harm: str) -> JournalLost:
        self.harm = harm
        return JournalLost(f"journal {self._file.path} is damaged ({harm})")

    def look_behind(self, db: sqlite3.Connection) -> None:
        """See to it that the file is whole, all of the log being in it. Raises JournalLost.

        Called behind a checkpoint, which hides a cut that was made after the look before it.
        """
        with translated(self._file.path):
            pages = db.execute("PRAGMA page_count").fetchone()[0]
        if self._file.too_short(schema.PAGE_SIZE, pages, all_in=True):
            raise self._harmed("it was truncated while the relay was running")

    def note_state(self) -> None:
        """Note what the files are like now: what is different later was somebody else."""
        self._file.note_state()
        self.wrote = False

    def note_log(self) -> None:
        """Note what the log is like after we have written to it, and to it alone.

        A change of the file behind it was somebody else's, whenever it was made: the look before may be long ago on a
        busy machine.
        """
        self._file.note_log(self._retention.log_bytes)
        self.wrote = False

    def seen(self) -> bool:
        """Tell whether the files seem to have been changed; any thread, and three stat calls."""
        return self._file.moved() or self._touched()

    def _touched(self) -> bool:
        return self._file.touched(
            sizes_only=self._false_alarms >= MOST_FALSE_ALARMS,
            least_log=self._retention.log_bytes if self.wrote else None,
        )
