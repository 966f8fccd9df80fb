"""Which programs hold SQLite's locks on a journal, as far as the kernel tells.

Owns: the look into /proc/locks, and the names of processes. It must not know why somebody asks. Read `journal/pages`
next.

A reader of a WAL journal holds a lock on one of five bytes of the file beside it that ends in `-shm` (SQLite,
"WAL-mode File Format", section 2.3.2), and the kernel lists every lock with the number of the process. In a service
that may not look at the processes of others there is no such list, or no names.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOCKS = "/proc/locks"
"""See proc_locks(5)."""

WAL_WRITE = 120
WAL_READS = range(123, 128)
"""Bytes of the `-shm` file: the writer's, and those of readers, one for each state of the log that somebody reads."""

MOST_SHOWN = 5
"""Processes that are named; whoever has more to end begins with these."""


class Holder(NamedTuple):
    """A process that holds a lock."""

    pid: int
    command: str
    """Its name; empty where it is not to be seen."""

    def __str__(self) -> str:
        """Write it as a person reads it."""
        return f"process {self.pid}" + (f" ({self.command})" if self.command else "")


def readers_of(path: str, *, besides: int, locks: str = LOCKS) -> list[Holder]:
    """Return who reads in the journal at `path`, `besides` being the process that is not meant. Never raises."""
    return _holders(path + "-shm", WAL_READS, besides, locks)


def _holders(path: str, wanted: range, besides: int, locks: str) -> list[Holder]:
    try:
        status = os.stat(path)  # noqa: PTH116  (twice its number is needed, and no other method)
        rows = Path(locks).read_text("ascii").splitlines()
    except (OSError, ValueError):
        return []
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    found: dict[int, bool] = {}
    for row in rows:
        # 1: POSIX  ADVISORY  READ 3212 fe:00:3153945 124 124; of one that waits there is an arrow behind the number
        fields = row.split()
        if len(fields) != 8 or fields[1] != "POSIX":
            continue
        place, _, inode = fields[5].rpartition(":")
        with suppress(ValueError):
            pid, first, last = int(fields[4]), int(fields[6]), int(fields[7])
            if int(inode) == status.st_ino and pid not in (besides, 0) and any(first <= n <= last for n in wanted):
                found[pid] = found.get(pid, False) or place == device
    # Where layers are stacked the kernel and stat(2) name different devices.
    best = [pid for pid, exact in found.items() if exact] or list(found)
    return [Holder(pid, _command(pid)) for pid in best[:MOST_SHOWN]]


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    return ""
