"""Whether a file beside the journal is ours to use: no link to another file, and nobody else's.

Owns: how the lock is opened, and what is looked at before any file is used. It must not know SQLite or what the files
hold. Read `journal/journal_file` next.

Whoever may write to the journal's directory could put a link in the place of a file that is to be written, or a file of
its own in the place of the journal. What is found there is never changed: a person has to look at it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from logrelay.errors import JournalRefused

FILE_MODE = 0o600
"""Log lines of a trading bot are nobody else's business."""

_READ_FOR_GROUP = 0o040

_WRITE_FOR_ALL = 0o002
"""Refused. Rights for the group are the operator's own choice: the relay gives none."""


def open_for_reading(path: str, *, checked: bool = False) -> int:
    """Return a descriptor of a file that is no link. Raises JournalRefused, OSError.

    `checked`: one that is safe to use in every other way as well.
    """
    descriptor = _open(path, os.O_RDONLY)
    try:
        if checked:
            _check(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_for_appending(path: str, *, like: str) -> int:
    """Make a file that is written to at its end; returns its descriptor. Raises OSError, FileExistsError too.

    Whoever may read the file `like` may read it, as SQLite has it for its log.
    """
    descriptor = os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
    )
    with suppress(OSError):
        status = os.stat(like)  # noqa: PTH116  (as the others here)
        os.fchown(descriptor, -1, status.st_gid)
        os.fchmod(descriptor, FILE_MODE | stat.S_IMODE(status.st_mode) & _READ_FOR_GROUP)
    return descriptor


def open_lock(path: str) -> int:
    """Return a descriptor of the lock, which is made if it is not there. Raises JournalRefused, OSError."""
    lock = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        _check(path, os.fstat(lock))
    except BaseException:
        os.close(lock)
        raise
    return lock


def check_file(path: str) -> None:
    """Look at a file without opening it; one that is not there is good. Raises JournalRefused, OSError."""
    try:
        status = Path(path).lstat()
    except FileNotFoundError:
        return
    _check(path, status)


def _open(path: str, flags: int) -> int:
    try:
        # A pipe in its place is found out afterwards; waiting for its other end would be for ever.
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refusal(path, "it is a symbolic link") from error
        raise


def _check(path: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _refusal(path, "it is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "it is no regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise _refusal(path, f"it belongs to another user (uid {status.st_uid}, the relay's is {os.geteuid()})")
    if status.st_nlink > 1:
        raise _refusal(path, f"it has {status.st_nlink} names (hard links)")
    if status.st_mode & _WRITE_FOR_ALL:
        raise _refusal(path, f"everybody may write to it (mode {stat.S_IMODE(status.st_mode):04o})")


def _refusal(path: str, why: str) -> JournalRefused:
    return JournalRefused(
        f"{path} is not safe to use for the journal: {why}. It was left alone; look who made it, then move it away or "
        "make it a file of the relay's user with mode 0600, or choose another --journal path"
    )
