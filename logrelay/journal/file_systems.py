"""On which file systems a write may take any time although the disk is well.

Owns: the look at the kernel's list of mounts. It must not know the journal or what is written. Read
`journal/quick_commits` next: it decides who commits.

A write to a local file ends in the kernel's memory. A write to a file on a network waits for another machine, and one
to a file system that a program makes (FUSE) for that program: the event loop must wait for neither.
"""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = "/proc/self/mountinfo"
"""See proc_pid_mountinfo(5)."""

LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "tmpfs", "overlay"})
"""Of a file system that is not here it is not known whom a write waits for."""


def waits_for_others(path: str, mounts: str = MOUNTS) -> bool:
    """Tell whether a write to `path` may wait for another machine or program; True where the system does not say."""
    return kind_of(path, mounts) not in LOCAL


def kind_of(path: str, mounts: str = MOUNTS) -> str:
    """Return the type of the file system that `path` is on, as in mount(8); empty where the system does not say."""
    try:
        lines = Path(mounts).read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    place = os.path.realpath(path)
    longest, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(longest):
            longest, kind = point, right.split(" ")[0]
    return kind
