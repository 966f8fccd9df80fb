"""A sound file in the journal's place, where there was none or the one that was there was damaged, deleted or replaced.

Owns: how such a file is made (empty, of what is readable, or a copy of one that is open still), the steps by which it
takes the journal's name, and what people are told of it. It must not know what is done with the new file.
Read `journal/salvage` next: it reads a damaged file.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from logrelay.errors import JournalError
from logrelay.fanout.positions import Epoch, Epochs, id_of
from logrelay.journal import schema
from logrelay.journal.holes import Range, merge, without
from logrelay.journal.interface import JournalLost
from logrelay.journal.journal_file import JournalFile
from logrelay.journal.remembered_lines import RememberedLines
from logrelay.journal.row_writer import RowWriter
from logrelay.journal.salvage import ROOM_FACTOR, Known, Salvaged, salvage
from logrelay.journal.sqlite_errors import translated
from logrelay.model import CollectedRow, Commit, DeviceRow
from logrelay.run_table import RunTable

SHOWN_PROGRESS_BYTES = 64 << 20
"""Saving what is readable of a file larger than this takes seconds, and progress is shown."""
SHOWN_RANGES = 8
"""Ranges that a notice lists; the others are counted."""


@dataclass(slots=True)
class Saved:
    """What a reopening has to carry over, however often it is tried."""

    epoch: str
    head: int
    runs: RunTable
    aliases: list[str]
    devices: list[DeviceRow]
    collected: list[CollectedRow]
    notices: list[str]
    done: bool
    """True: a sound file is in place and has only to be loaded."""
    moved: bool | None = None
    """Another file had the name when this began; later, closing the old one changes what is there."""
    trusted: bool = False
    """The file in place was made of verified rows."""
    copy: str = ""
    """Path of a complete copy of a file that was deleted, which has only to be put in place; empty: there is none."""

    def note_failure(self, *, lost: bool) -> None:
        """Note that the file could not be loaded; one that makes no sense either (`lost`) is put away, too."""
        self.done = not lost
        self.trusted = False


class Replacement:
    """Puts sound files in the journal's place. `on_progress` is told in words how far a long rescue is."""

    def __init__(
        self,
        file: JournalFile,
        *,
        now_us: Callable[[], int],
        random_epoch: Callable[[], str],
        on_progress: Callable[[str], None],
        remembered: RememberedLines,
    ) -> None:
        self._file, self._now_us, self._random_epoch = file, now_us, random_epoch
        self._on_progress, self._remembered = on_progress, remembered

    def create(self, epoch: str, *, base: int) -> None:
        """Begin an empty file whose first line is the one behind `base`."""
        with translated(self._file.path):
            path = self._file.blank(".new")
            schema.create(path, epoch=epoch, base=base, created_us=self._now_us())
            self._file.put_in_place(path)

    def has_room(self) -> bool:
        """Tell whether `salvage` has the room that it needs."""
        with translated(self._file.path):
            return shutil.disk_usage(Path(self._file.path).parent).free >= self._file.disk_bytes() * ROOM_FACTOR

    def salvage(self, known: Known, damage: str, notices: list[str]) -> Salvaged:
        """Put a sound file in place that has what is readable of the damaged one, which is set aside."""
        with translated(self._file.path):
            size = self._file.disk_bytes()
            free = shutil.disk_usage(Path(self._file.path).parent).free
            if free < size * ROOM_FACTOR:
                raise JournalError(
                    f"journal {self._file.path} is damaged ({damage}), and there is no room to save what is readable: "
                    f"{int(size * ROOM_FACTOR) >> 20} MiB are needed, {free >> 20} MiB are free; free some space, or "
                    "move the file away to begin a new journal"
                )
            path = self._file.blank(".salvage")
            shown = _Progress(self._on_progress if size >= SHOWN_PROGRESS_BYTES else None, self._file.path)
            try:
                found = salvage(
                    self._file.path,
                    path,
                    known=known,
                    random_epoch=self._random_epoch,
                    now_us=self._now_us,
                    progress=shown,
                )
                found = self._write_again(path, found)
                path = self._file.finish(path)
            except BaseException:
                with suppress(OSError):
                    Path(path).unlink()
                raise
            name = self._file.set_aside("corrupt", self._now_us())
            self._file.put_in_place(path)
        notices.append(_what_was_saved(found, damage, name))
        return found

    def _write_again(self, path: str, found: Salvaged) -> Salvaged:
        """Write lines that the file has lost and the memory still has."""
        lines = [line for line in self._remembered if any(a <= line.seq <= b for a, b in found.holes)]
        if not lines:
            return found
        seqs = merge((line.seq, line.seq) for line in lines)
        holes = without(found.holes, seqs)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            writer = RowWriter()
            writer.load(db)
            db.execute("BEGIN")
            writer.write(db, Commit(lines))
            db.execute("DELETE FROM holes")
            db.executemany("INSERT INTO holes (first, last) VALUES (?, ?)", holes)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return replace(found, lines=found.lines + len(lines), holes=holes)

    def replace(
        self,
        saved: Saved,
        db: sqlite3.Connection | None,
        disconnect: Callable[[], None],
        *,
        epochs: list[Epoch],
        oldest: int,
        harm: str,
    ) -> None:
        """Put a sound file in place: the old one rescued, or an empty one that goes on where it ended.

        `db`: the connection to the old one, if there is one, which `disconnect` closes; `epochs` and `oldest`: what is
        known of its lines; `harm`: what was done to it, in words, if that was noticed.
        """
        if saved.moved is None:
            saved.moved = self._file.moved()
        moved = saved.moved
        if not Path(saved.copy).is_file():
            saved.copy = self._copy(db) if moved and db is not None else ""
        if saved.copy:
            self._put_copy_in_place(saved, disconnect)
        else:
            disconnect()
            if self._file.exists() and not moved:
                runs = list(saved.runs)
                known = Known(epochs, oldest, saved.head, runs, saved.aliases, saved.devices, saved.collected)
                self.salvage(known, harm or "while the relay was running", saved.notices)
                saved.trusted = True
            else:
                self._begin_anew(saved)
        saved.done = True

    def _begin_anew(self, saved: Saved) -> None:
        """Put an empty file in place, which goes on where the old one ended."""
        if self._file.exists():
            name = self._set_aside("found")
            saved.notices.append(
                f"The journal file was replaced by another one; what is there now was set aside as {name}."
            )
        self.create(saved.epoch, base=saved.head)
        saved.notices.append(
            f"A new journal file was begun: lines up to number {saved.head} are gone from the relay, all "
            "lines after it are kept."
        )

    def _copy(self, db: sqlite3.Connection) -> str:
        """Copy the deleted file, which is still open here; returns the copy's path. Empty: it cannot be read."""
        path = ""
        try:
            with translated(self._file.path):
                path = self._file.blank(".rescue")
                with closing(sqlite3.connect(path, isolation_level=None)) as target:
                    db.backup(target)
        except JournalLost:
            return ""
        except JournalError:
            with suppress(OSError):
                Path(path).unlink()
            raise
        return path

    def _put_copy_in_place(self, saved: Saved, disconnect: Callable[[], None]) -> None:
        """Give the copy the journal's name. When that fails, the copy stays: there is nothing else any more."""
        if self._file.exists():
            name = self._set_aside("found")
            saved.notices.append(f"Another file had been put in the journal's place; it was set aside as {name}.")
        # Closing the old connection removes a log of the journal's name: so that comes first.
        disconnect()
        with translated(self._file.path):
            self._file.put_in_place(saved.copy)
        saved.notices.append(
            "The journal file was deleted or replaced while the relay ran; it was written again, complete."
        )

    def _set_aside(self, reason: str) -> str:
        with translated(self._file.path):
            return self._file.set_aside(reason, self._now_us())


class _Progress:
    """Tells how far a rescue is, a tenth at a time."""

    def __init__(self, tell: Callable[[str], None] | None, path: str) -> None:
        self._tell, self._path, self._told = tell, path, -1

    def __call__(self, done: int, of: int) -> None:
        tenth = done * 10 // max(of, 1)
        if self._tell is not None and tenth > self._told:
            self._told = tenth
            self._tell(f"journal {self._path} is damaged: saving what is readable, {tenth * 10} %")


def _what_was_saved(found: Salvaged, damage: str, name: str) -> str:
    text = f"The journal was damaged ({damage}). "
    if not found.lines:
        text += "No line of it could be read any more"
        text += f"; {counted(found.lost)} are lost: {_listed(found)}" if found.holes else ""
        text += f". It was set aside as {name} and a new one was begun."
    else:
        text += f"{counted(found.lines)} could be read and are kept in a new file"
        text += f"; {counted(found.lost)} are lost: {_listed(found)}" if found.holes else ", none is known to be lost"
        text += f". The damaged file was set aside as {name}."
    return text


def _listed(found: Salvaged) -> str:
    *earlier, last = found.epochs
    return listed_ranges(found.holes, Epochs(earlier, last.name, last.first))


def counted(lines: int) -> str:
    """Return so many lines in words."""
    return "1 line" if lines == 1 else f"{lines:,} lines"


def listed_ranges(holes: list[Range], epochs: Epochs) -> str:
    """Return some ranges of lines by their ids, and how many more there are."""
    ends = [(id_of(epochs.of(first), first), id_of(epochs.of(last), last)) for first, last in holes[:SHOWN_RANGES]]
    shown = [first if first == last else f"{first} to {last}" for first, last in ends]
    more = len(holes) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more ranges" if more else "")
