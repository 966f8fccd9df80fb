"""The journal's place in the file system: directory, lock, header, names set aside.

Owns: everything about the files that is not SQL. It must not open SQLite connections or know what a line is.
Read `journal/disk_space` next.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from logrelay.errors import JournalRefused
from logrelay.journal import file_safety, sqlite_errors
from logrelay.journal.file_safety import FILE_MODE
from logrelay.journal.schema import APPLICATION_ID, VERSION

DIRECTORY_MODE = 0o700
LOCK_MARK = "logrelay journal"
"""First line of the lock file. Where it stands, a file that makes no sense was once ours."""
MOST_CORRUPT = 3
"""Damaged files kept for a post-mortem: each may be as large as the journal, and a bad disk makes many."""

FLIPPED_BITS = 8
"""An application_id that differs from ours by a byte at most is ours and damaged, not another program's."""
LIKELY_VERSION = 255
"""No schema version will be above this: a header that claims one is damaged."""

FINISHED = ".salvaged"
"""Added to the journal's name: what was saved of a damaged one, complete, for the moment before it takes its place."""

_HEADER_BYTES = 100
_SQLITE_MAGIC = b"SQLite format 3\0"
_COMPANIONS = ("", "-wal", "-shm")


class JournalFile:
    """The file at `path`, its lock, and its companions. Belongs to the thread that writes the journal.

    The file is never opened here while SQLite has it open: closing it would drop SQLite's POSIX locks. On its log there
    are none.
    """

    def __init__(self, path: str) -> None:
        """Name a place; nothing is touched."""
        self.path = str(Path(path).expanduser().resolve())
        self._lock_path = f"{self.path}.lock"
        self._lock: int | None = None
        self._was_ours = False
        self._identity: tuple[object, ...] | None = None
        self._state: tuple[tuple[int, int], ...] = ()

    @property
    def read_uri(self) -> str:
        """The SQLite URI of the file for reading only."""
        return f"file:{quote(self.path)}?mode=ro"

    def claim(self) -> None:
        """Make the directory if there is none, and take the lock.

        Raises JournalRefused when another relay holds it or a file is not safe to use, and JournalError when
        the directory cannot be written.
        """
        try:
            if Path(self.path).is_dir():
                raise JournalRefused(
                    f"journal {self.path} is a directory; --journal takes the path of a file, for example "
                    f"{self.path}/journal.db"
                )
            Path(self.path).parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            for companion in _COMPANIONS:
                file_safety.check_file(self.path + companion)
            if self._lock is None and not _has_mark(self._lock_path):
                self.inspect()  # beside a stranger's file no lock is left, whose mark would call it ours the next time
            self._take_lock()
        except OSError as error:
            raise sqlite_errors.from_os(error, self.path) from error

    def _take_lock(self) -> None:
        lock = file_safety.open_lock(self._lock_path)
        try:
            content = os.pread(lock, 200, 0).decode("utf-8", "replace").splitlines()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = f" (process {content[1]})" if len(content) > 1 else ""
                raise JournalRefused(
                    f"journal {self.path} is in use by another relay{holder}; one relay writes a "
                    "journal: stop that one, or give this one its own --journal path"
                ) from None
            self._was_ours = bool(content) and content[0] == LOCK_MARK
            mark = f"{LOCK_MARK}\n".encode()
            # The mark stays where it is, and is on the disk from the first time on: after a power cut as well it says
            # that a file whose header makes no sense is a damaged journal.
            os.ftruncate(lock, len(mark) if self._was_ours else 0)
            os.pwrite(lock, mark + f"{os.getpid()}\n".encode(), 0)
            if not self._was_ours:
                os.fsync(lock)
        except BaseException:
            os.close(lock)
            raise
        if self._lock is not None:
            os.close(self._lock)
        self._lock = lock

    def reclaim(self) -> None:
        """Take the lock again where its file was deleted with the journal. Raises like `claim`."""
        owned = self._lock is not None and _identity(self._lock_path) == _identity(self._lock)
        if not owned:
            self.claim()

    def release(self) -> None:
        """Give the lock back. The file stays: without it two relays could hold two locks of one name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def reserve_lock(self, size: int) -> None:
        """Have the lock file take `size` bytes of the disk until the next `claim`. Raises OSError."""
        if self._lock is not None:
            _allocate(self._lock, size)

    def reserve_log(self, size: int) -> None:
        """Have the write-ahead log take at least `size` bytes of the disk. Raises OSError.

        Behind its last frame there are zeros, which SQLite takes for the end. It holds no lock on this file.
        """
        log = os.open(self.path + "-wal", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _allocate(log, size)
        finally:
            os.close(log)

    def lengthen(self, size: int) -> None:
        """Make the file at least `size` bytes long, on the disk if there is room. Raises OSError."""
        if Path(self.path).stat().st_size < size:
            with Path(self.path).open("r+b") as file:
                with suppress(OSError):
                    _allocate(file.fileno(), size)
                if os.fstat(file.fileno()).st_size < size:
                    file.truncate(size)

    def inspect(self) -> str:
        """Look at the header: `missing`, `ours` or `damaged` (once ours, makes no sense now).

        Raises JournalRefused for a file that must not be touched, JournalError when it cannot be read.
        """
        try:
            with os.fdopen(file_safety.open_for_reading(self.path), "rb") as file:
                header = file.read(_HEADER_BYTES)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            raise sqlite_errors.from_os(error, self.path) from error
        if not header and not self._was_ours:
            return "missing"
        if not _is_ours(self.path, header, was_ours=self._was_ours):
            return "damaged"
        version = int.from_bytes(header[60:64], "big")
        if version > LIKELY_VERSION and self._was_ours:
            return "damaged"
        if version > VERSION:
            raise _newer(self.path, version)
        return "ours"

    def blank(self, suffix: str) -> str:
        """Make an empty private file beside the journal, to be put in place later; returns its path."""
        path = self.path + suffix
        for companion in (*_COMPANIONS, "-journal"):
            with suppress(FileNotFoundError):
                Path(path + companion).unlink()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        return path

    def finish(self, path: str) -> str:
        """Name the file at `path` as one that is complete, though not yet in place; returns its new path."""
        _sync(path)
        Path(path).rename(self.path + FINISHED)
        return self.path + FINISHED

    def take_finished(self) -> bool:
        """Put a finished file in place where a relay was ended between setting the old one aside and that.

        Where the old one is still in place the finished one is deleted: it will be made again. Returns whether it was
        put in place. Raises OSError.
        """
        finished = self.path + FINISHED
        if not os.path.lexists(finished):
            return False
        if self.exists():
            Path(finished).unlink()
            return False
        self.put_in_place(finished)
        return True

    def put_in_place(self, path: str) -> None:
        """Give the finished file at `path` the journal's name, for good even if the power goes.

        Once it has the name it is in place: a directory that cannot be synced then is no reason to do it again.
        """
        for companion in ("-wal", "-shm"):
            # A log without its database belongs to nobody; SQLite would try to read it into the new file.
            with suppress(FileNotFoundError):
                Path(self.path + companion).unlink()
        _sync(path)
        Path(path).rename(self.path)
        with suppress(OSError):
            _sync(str(Path(self.path).parent))

    def set_aside(self, reason: str, now_us: int) -> str:
        """Rename the file and its companions to a dated name; returns it, without directory."""
        stamp = datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y%m%dT%H%M%SZ")
        name, n = f"{self.path}.{reason}-{stamp}", 1
        while any(Path(name + companion).exists() for companion in _COMPANIONS):
            n += 1
            name = f"{self.path}.{reason}-{stamp}-{n}"
        for companion in _COMPANIONS:
            with suppress(FileNotFoundError):
                Path(self.path + companion).rename(name + companion)
        if reason == "corrupt":
            self._forget_corrupt()
        return Path(name).name

    def _forget_corrupt(self) -> None:
        """Delete the oldest damaged files beyond MOST_CORRUPT; files that are not ours are never deleted."""
        prefix, directory = f"{Path(self.path).name}.corrupt-", Path(self.path).parent
        names = sorted(
            path.name
            for path in directory.iterdir()
            if path.name.startswith(prefix) and not path.name.endswith(("-wal", "-shm"))
        )
        for name in names[:-MOST_CORRUPT]:
            for companion in _COMPANIONS:
                with suppress(FileNotFoundError):
                    (directory / f"{name}{companion}").unlink()

    def sync_log(self) -> None:
        """Have the disk take what is in the write-ahead log. Raises OSError."""
        _sync(self.path + "-wal")

    def remember(self) -> None:
        """Note which files the open journal consists of, and the state that they are in."""
        self._identity = self._now()
        self.note_state()

    def note_state(self) -> None:
        """Note size and time of the files after the journal itself has changed them. Two stat calls."""
        self._state = self._size_and_time()

    def note_log(self, least: int) -> None:
        """Note size and time of the log after the journal has written to it, and to nothing else. One stat call.

        Unless it is shorter than it was, and than `least` bytes, to which SQLite cuts a longer one: that was not us.
        """
        log = _size_and_time(self.path + "-wal")
        if log[0] >= min(self._state[1][0], least):
            self._state = (self._state[0], log)

    def note_file(self) -> None:
        """Note size and time of the file itself, which the journal has made longer. One stat call."""
        self._state = (_size_and_time(self.path), *self._state[1:])

    def is_as_noted(self) -> bool:
        """Tell whether the file itself is as it was noted; its log is not looked at. One stat call."""
        return self._state[:1] == (_size_and_time(self.path),)

    def touched(self, *, sizes_only: bool = False, least_log: int | None = None) -> bool:
        """Tell whether anybody else has changed the file or its log since `note_state`. Two stat calls.

        `sizes_only`: only whether one of them is shorter. `least_log`: the journal has written to its log since, which
        tells nothing any more as long as it is as long as it was, or of so many bytes (SQLite cuts a longer one).
        """
        now = self._size_and_time()
        if least_log is None and not sizes_only:
            return now != self._state
        if len(self._state) < len(now):
            return not sizes_only
        (file, log), (noted_file, noted_log) = now, self._state
        least = noted_log[0] if least_log is None else min(noted_log[0], least_log)
        return log[0] < least or (file[0] < noted_file[0] if sizes_only else file != noted_file)

    def too_short(self, page_size: int, pages: int, *, all_in: bool) -> bool:
        """Tell whether the file lacks pages although the whole log is in it (`all_in`)."""
        return all_in and self._size_and_time()[0][0] < page_size * pages

    def _size_and_time(self) -> tuple[tuple[int, int], ...]:
        return tuple(_size_and_time(self.path + companion) for companion in ("", "-wal"))

    def moved(self) -> bool:
        """Tell whether the files of that name are no longer those that are open. Three stat calls."""
        return self._now() != self._identity

    def exists(self) -> bool:
        """Tell whether anything has the journal's name."""
        return os.path.lexists(self.path)

    def _now(self) -> tuple[object, ...]:
        return tuple(_identity(self.path + companion) for companion in _COMPANIONS)

    def disk_bytes(self) -> int:
        """Return the size of the file and its companions."""
        total = 0
        for companion in _COMPANIONS:
            try:
                total += os.stat(self.path + companion).st_size  # noqa: PTH116  (a Path takes ten times as long)
            except OSError:
                continue
        return total


def refuse_foreign(path: str) -> None:
    """Raise JournalRefused where the file at `path` is not a journal and never was one, as far as its lock file says.

    For who only reads: no lock is taken. This process must not have the file open through SQLite with locks that count.
    A file that cannot be read is not refused: whoever opens it says why.
    """
    with suppress(OSError), Path(path).open("rb") as file:
        _is_ours(path, file.read(_HEADER_BYTES), was_ours=_has_mark(f"{path}.lock"))


def is_journal(path: str) -> bool:
    """Tell whether the file at `path` has the header of a journal; this process must not have it open."""
    try:
        with Path(path).expanduser().open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except (OSError, ValueError):
        return False
    return header.startswith(_SQLITE_MAGIC) and int.from_bytes(header[68:72], "big") == APPLICATION_ID


def version_of(path: str) -> int | None:
    """Return the schema version in a journal's header; None where it cannot be read, or is damaged.

    Raises JournalRefused for a file that is not ours, or newer than this version knows. This process must not have the
    file open through SQLite with locks that count.
    """
    try:
        with Path(path).open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError:
        return None
    if not header or not _is_ours(path, header, was_ours=_has_mark(f"{path}.lock")):
        return None
    version = int.from_bytes(header[60:64], "big")
    if VERSION < version <= LIKELY_VERSION:
        raise _newer(path, version)
    return version


def _newer(path: str, version: int) -> JournalRefused:
    return JournalRefused(
        f"journal {path} was written by a newer logrelay (schema version {version}, this one knows up to {VERSION}); "
        "install that version again or choose another --journal path"
    )


def _has_mark(lock_path: str) -> bool:
    """Tell whether a lock file says that the file beside it is, or was, a journal."""
    try:
        lock = os.open(lock_path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(lock, len(LOCK_MARK) + 1) == f"{LOCK_MARK}\n".encode()
    except OSError:
        return False
    finally:
        os.close(lock)


def _is_ours(path: str, header: bytes, *, was_ours: bool) -> bool:
    """Tell whether a header is one of ours; False: it was, and is damaged. Raises JournalRefused for a stranger's."""
    if len(header) < _HEADER_BYTES or not header.startswith(_SQLITE_MAGIC):
        if was_ours:
            return False
        raise JournalRefused(
            f"journal {path} is not a journal: the file exists and is no SQLite database; it "
            "was left alone, choose another --journal path"
        )
    application = int.from_bytes(header[68:72], "big")
    if application == APPLICATION_ID:
        return True
    if was_ours and (application ^ APPLICATION_ID).bit_count() <= FLIPPED_BITS:
        return False
    raise JournalRefused(
        f"journal {path} is not a journal: it is an SQLite database of another application (application_id "
        f"{application:#x}, ours is {APPLICATION_ID:#x}); it was left alone, choose another --journal path"
    )


def _allocate(descriptor: int, size: int) -> None:
    """Make a file at least `size` bytes long, with all of it on the disk."""
    there = os.fstat(descriptor).st_size
    if there < size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, there, size - there)


def _identity(file: str | int | None) -> tuple[int, int] | None:
    try:
        status = os.stat(file) if file is not None else None  # noqa: PTH116  (also takes a descriptor)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status is not None else None


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116  (twice per commit: half the time of Path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
