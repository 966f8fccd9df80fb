"""Where the file of the alerts is while the journal is in memory.

Owns: `RuntimeDirectory`, a private directory that is there as long as the relay, and its removal, also of what a relay
left behind that was killed. It must not know what is in the file. Read `alerts/link` next.

The file has to outlive the alerts' process, which would otherwise begin anew with the lines since the relay's start and
send every alert again. It must not outlive the relay: a journal in memory keeps nothing either.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

PREFIX = "logrelay-alerts-"
ALIVE = "alive"
"""The name of the file that the relay holds locked; the kernel lets go of it when the relay dies."""


class RuntimeDirectory:
    """A directory of the relay's own, mode 0700; in memory where the machine has such a place."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Make it, and remove those of relays that are dead. Raises OSError where there can be none."""
        base = _base(environ)
        _remove_left_behind(base)
        self._path = tempfile.mkdtemp(prefix=PREFIX, dir=base)
        self._lock = os.open(f"{self._path}/{ALIVE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def store(self) -> str:
        """Path of the alerts' file."""
        return f"{self._path}/alerts"

    def remove(self) -> None:
        """Remove it with what is in it."""
        shutil.rmtree(self._path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def _base(environ: Mapping[str, str]) -> str:
    """Return where to make it: what systemd gives the service, or the session of the user, is in memory."""
    given = (environ.get("RUNTIME_DIRECTORY", "").split(":")[0], environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm")  # noqa: S108
    for place in given:
        if place and os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK):  # noqa: PTH112
            return place
    return tempfile.gettempdir()


def _remove_left_behind(base: str) -> None:
    """Remove the directories of relays of this user that are not alive any more."""
    for path in Path(base).glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            lock = os.open(path / ALIVE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
