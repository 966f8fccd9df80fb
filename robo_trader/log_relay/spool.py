"""The spool: a file in which the lines of a run outlive its process until the relay has them. Off unless asked for.

Owns: the directory, the file of this run (preallocated, mapped into memory, locked), and taking the file of a dead one.
It must not know what is in the file beyond `spool_format`, nor sockets, nor threads. Read `spool_recovery` next.

What is written to the mapping is in the kernel's page cache at once, so it survives whatever ends the process, as long
as the machine runs. The blocks are allocated before, because a write that finds the disk full would be a SIGBUS.

**The lock** says that a run lives. flock belongs to the open file, and the mapping keeps that open: code that closes
every descriptor does not release it, and a forked child that closes its copies does not either. The kernel releases it
when the process is gone, however it went.

**The descriptor.** `mmap` keeps a copy of the descriptor and closes that number with the mapping. Somebody may have
closed it meanwhile, and the number be a broker's socket: so it is looked at first, and a mapping whose descriptor is
not ours any more is left as it is.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import Final

from . import spool_format

with contextlib.suppress(ImportError):
    import fcntl

SUFFIX: Final = ".spool"
NEW_SUFFIX: Final = ".new"
"""Of a file that is being made, and is not locked yet."""
NEW_SECONDS: Final = 60.0
"""After so long nobody is still making it."""
MAX_DEAD: Final = 16
"""Files of dead runs of one app beyond which it makes no other: a bot that crashes again and again must not fill the
disk. Not of all apps together, because only their own next runs can take those of the others away."""
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
OTHERS_WRITE: Final = 0o022
SCAN_FDS: Final = 64
"""Numbers above our own descriptor in which the mapping's copy is looked for: it gets the lowest free one."""

_left_alone: list[mmap.mmap] = []
"""Mappings that cannot be closed without closing somebody else's descriptor."""


class Spool:
    """The file of this run. `append` and the like need the outbox's baton and never raise an Exception.

    `folder` is the directory, `limit` the outbox's bound in bytes, `make_hello` makes the run's first frame. The file
    is made by `open`, or by the first line; if that fails, `failure` says why, and everything goes on without it.
    """

    __slots__ = (
        "_identity",
        "_is_closed",
        "_last",
        "_limit",
        "_make_hello",
        "_mapping",
        "_run",
        "_writer",
        "failure",
        "folder",
        "path",
    )

    def __init__(self, folder: str, *, run: bytes, limit: int, make_hello: Callable[[], bytes]) -> None:
        self.folder = folder
        self.path = ""
        """Where the file is; empty: there is none, or not yet."""
        self.failure = ""
        self._run = run
        self._limit = limit
        self._make_hello = make_hello
        self._mapping: Mapping | None = None
        self._writer: spool_format.Writer | None = None
        self._last = b""
        self._identity: tuple[int, int] | None = None
        self._is_closed = False

    def open(self) -> None:
        """Make the file. This may wait for the disk."""
        if self._writer is not None or self.failure or self._is_closed:
            return
        try:
            self._create()
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"

    def _create(self) -> None:
        if not hasattr(os, "posix_fallocate"):
            raise OSError(errno.ENOSYS, "this system cannot allocate the blocks of a file")
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, DIRECTORY_MODE)  # noqa: PTH102
        check_directory(self.folder)
        hello = self._make_hello()
        app = spool_format.app_of_hello(hello)
        if sum(_is_dead(path, app) for path in candidates(self.folder)) >= MAX_DEAD:
            raise OSError(errno.EDQUOT, f"{MAX_DEAD} files of dead runs of this app wait to be delivered", self.folder)
        ring = spool_format.ring_bytes(self._limit)
        size = spool_format.file_bytes(ring)
        path = f"{self.folder}/{self._run.hex()}{SUFFIX}"
        made = path + NEW_SUFFIX
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(fd, 0, size)
            made_as = identity(fd)
            mapping = Mapping(fd, size)
            try:
                writer = spool_format.Writer(mapping.view, ring=ring, hello=hello, run=self._run)
                os.rename(made, path)  # noqa: PTH104 - pathlib would be one more import
            except BaseException:
                mapping.close()
                raise
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(made)  # noqa: PTH108
            raise
        finally:
            os.close(fd)
        self._mapping, self._writer, self.path, self._identity = mapping, writer, path, made_as

    def append(self, frame: bytes) -> None:
        """Take a line that is about to be queued or sent."""
        writer = self._writer or self._opened()
        if writer is not None:
            try:
                writer.append(frame)
                self._last = frame
            except Exception as error:
                self._give_up(error)

    def append_lost(self, frame: bytes) -> None:
        """Take a lost frame for lines that have no frame of their own."""
        writer = self._writer or self._opened()
        if writer is not None:
            try:
                writer.append_lost(frame)
            except Exception as error:
                self._give_up(error)

    def has(self, frame: bytes) -> bool:
        """Whether this very object was the last that `append` took."""
        return self._last is frame

    def is_there(self) -> bool:
        """Whether the next run will find this file. The mapping works on when somebody has removed or replaced it."""
        try:
            seen = os.lstat(self.path)
        except OSError:
            return False
        return (seen.st_dev, seen.st_ino) == self._identity

    def _opened(self) -> spool_format.Writer | None:
        self.open()
        return self._writer

    def _give_up(self, error: Exception) -> None:
        """Take no more lines. What is in the file stays, and stays locked."""
        self._writer = None
        self.failure = f"{type(error).__name__}: {error}"

    def acked(self, seq: int, *, everything: bool) -> None:
        """Note that the journal has the lines up to `seq`, and whether there are no others."""
        writer = self._writer
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.acked(seq, everything=everything)

    def ended(self, *, everything: bool, has_failed: bool = False) -> None:
        """Note the run's end in order, or by a failure of which it is to be told.

        With `everything` acked the file is removed, else it is for the next run.
        """
        with contextlib.suppress(Exception):
            if everything and self.path:
                os.unlink(self.path)  # noqa: PTH108
                self.path = ""
            elif self._writer is not None:
                self._writer.ended(has_failed=has_failed)

    def close(self) -> None:
        """Let go of the file and its lock. Lines that come later are not taken."""
        self._is_closed = True
        writer, self._writer = self._writer, None
        mapping, self._mapping = self._mapping, None
        with contextlib.suppress(Exception):
            if writer is not None:
                writer.release()
            if mapping is not None:
                mapping.close()


class Mapping:
    """A file in memory, shared with the kernel, of which no descriptor of ours is needed any more."""

    __slots__ = ("_copy", "_identity", "_map", "view")

    def __init__(self, fd: int, size: int) -> None:
        self._identity = identity(fd)
        if sys.version_info >= (3, 13):
            self._map = mmap.mmap(fd, size, trackfd=False)
            self._copy = -1
        else:
            self._map = mmap.mmap(fd, size)
            self._copy = next((n for n in range(fd + SCAN_FDS) if n != fd and identity(n) == self._identity), -2)
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Close it, unless that would close what somebody else has opened."""
        self.view.release()
        if self._copy == -1 or identity(self._copy) == self._identity:
            self._map.close()
        else:
            _left_alone.append(self._map)


class DeadFile:
    """A spool file whose run is dead, locked for us. Use `take`."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._identity = identity(fd)

    @classmethod
    def take(cls, path: str) -> DeadFile | None:
        """Return the file at `path`; None: it is gone, or its run lives, or somebody else has taken it.

        Raises OSError if it cannot be opened, ValueError if it is no regular file of ours.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ValueError("it is a symbolic link") from None
            if error.errno == errno.EISDIR:
                raise ValueError("it is a directory") from None
            raise
        try:
            seen = os.fstat(fd)
            if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.getuid():
                raise ValueError("it is no regular file of this user")  # noqa: TRY301
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # else somebody has delivered it just now
                return cls(path, fd)
        except BlockingIOError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def read_at(self, offset: int, size: int) -> bytes:
        """Return so many bytes, fewer at the end. Not from a mapping: a disk that cannot be read is an error here."""
        if identity(self._fd) != self._identity:
            raise OSError(errno.EBADF, "the descriptor was closed by somebody else")
        return os.pread(self._fd, size, offset)

    def remove(self) -> None:
        """Delete it: everything in it has been delivered."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108

    def close(self) -> None:
        """Release it. Also in a forked child, where the parent keeps its lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and identity(fd) == self._identity:
            os.close(fd)


def set_aside(path: str, why: str) -> str:
    """Rename a file so that no run looks at it again, and return its new path."""
    aside = f"{path}.{why}"
    os.rename(path, aside)  # noqa: PTH104
    return aside


def candidates(folder: str) -> list[str]:
    """Return the paths of all spool files, the oldest first; files whose making was interrupted are removed."""
    found: list[tuple[float, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                when = entry.stat(follow_symlinks=False).st_ctime
                if entry.name.endswith(SUFFIX):
                    found.append((when, entry.path))
                elif entry.name.endswith(SUFFIX + NEW_SUFFIX) and time.time() - when > NEW_SECONDS:
                    os.unlink(entry.path)  # noqa: PTH108
    return [path for _, path in sorted(found)]


def _is_dead(path: str, app: str | None) -> bool:
    """Whether a file there waits for a relay and a run of `app`. What cannot be told of any app counts for none."""
    try:
        dead = DeadFile.take(path)
    except (OSError, ValueError):
        return False
    if dead is None:
        return False
    try:
        return app is not None and spool_format.app_of(dead.read_at(0, spool_format.HEADER_BYTES)) == app
    except OSError:
        return False
    finally:
        dead.close()


def check_directory(folder: str) -> None:
    """Raise OSError if the directory is not there, or not ours alone to write to."""
    seen = os.lstat(folder)
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & OTHERS_WRITE:
        raise PermissionError(errno.EACCES, "it is no directory of this user, or others can write to it", folder)


def identity(fd: int) -> tuple[int, int] | None:
    """Return what tells an open file from others; None: the descriptor is not open."""
    try:
        seen = os.fstat(fd)
    except (OSError, OverflowError):
        return None
    return (seen.st_dev, seen.st_ino)
