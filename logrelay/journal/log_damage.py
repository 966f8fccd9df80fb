"""What a write-ahead log says that was left behind: whether it has commits that SQLite does not reach, and more pages.

Owns: how that is found out. A damaged frame ends the log for SQLite, without a word: what was committed behind it is
gone. It must not change anything, nor decide what is done about it; SQLite itself says how far it comes, in its index
of the log (walformat.html). Read `journal/salvage` next: it takes what is behind the damage as well.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from struct import Struct, error
from typing import NamedTuple
from urllib.parse import quote

from logrelay.journal import schema
from logrelay.journal.pages import FRAME_HEADER, LOG_HEADER, PAGE_SIZE, log_checksum, log_salt

ENOUGH = 2
"""Commits behind the damage that are counted: after a power cut one that was being written may look like it."""

_FRAME_BYTES = FRAME_HEADER + PAGE_SIZE
_INDEX = Struct("=II")
_INDEX_AT = 16
"""Where the index of a log says which frame is the last one that is valid, and how many pages the file has then, in the
machine's own byte order."""


class LogState(NamedTuple):
    """What is found in a log that was left behind."""

    unreached: int
    """Whole commits behind a damaged frame, ENOUGH at most."""
    pages: int
    """So many pages SQLite takes the file to have. It has less when the power went before the disk had noted that it
    had grown; what is not there was never used, but SQLite calls a file damaged that lacks so much."""
    meta: dict[str, object]
    """The table `meta`, as SQLite reads it."""


def look(path: str) -> LogState | None:
    """Look at the log of the journal at `path`, which nobody has open. None: there is none, or it cannot be told."""
    log_path = Path(path + "-wal")
    try:
        if not log_path.exists() or log_path.stat().st_size <= LOG_HEADER:
            return None
        # A connection that only reads leaves the log as it is when it is closed.
        with closing(schema.connect_reader(f"file:{quote(path)}?mode=ro")) as db:
            meta: dict[str, object] = dict(db.execute("SELECT key, value FROM meta"))
            index = Path(path + "-shm").read_bytes()[: _INDEX_AT + _INDEX.size]
        last_frame, pages = _INDEX.unpack_from(index, _INDEX_AT)
        return LogState(_commits_behind(log_path, last_frame), pages, meta)
    except (sqlite3.Error, OSError, TypeError, ValueError, error):
        return None  # whoever opens the file next says what is wrong with it


def _commits_behind(log_path: Path, last_frame: int) -> int:
    """Count the commits behind `last_frame` whose last frame is whole: it follows from the one before it.

    What was not committed has no such frame, and what an earlier log left in the file has another salt. Nor is the last
    frame of a relay that was killed while it wrote it whole.
    """
    found = 0
    with log_path.open("rb") as log:
        header = log.read(LOG_HEADER)
        salt = log_salt(header, log.read(FRAME_HEADER))
        # The frame after the last valid one is the damaged one, so the first that can follow is the one behind it.
        place = LOG_HEADER + last_frame * _FRAME_BYTES
        log.seek(place)
        before = log.read(FRAME_HEADER)
        while found < ENOUGH:
            place += _FRAME_BYTES
            log.seek(place)
            frame = log.read(FRAME_HEADER)
            if len(frame) < FRAME_HEADER:
                break
            if frame[8:16] == salt and frame[4:8] != bytes(4) and before[8:16] == salt:
                expected = log_checksum(header, before[16:24], frame[:8] + log.read(PAGE_SIZE))
                found += frame[16:24] == expected
            before = frame
    return found
