"""Whether the relay's user can run this installation: where the interpreter and the packages are.

Owns: which directories a unit hides, and the look at the rights of every directory on the way to a file. It must not
know users: whoever is neither the owner nor in the group needs the rights for others. Read `installation/machine` next.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from pathlib import Path

HIDDEN_FROM_SERVICES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  (nothing is put there)
"""The units hide these directories: a service cannot start an installation that lies in one."""

MOST_LINKS = 40
"""The kernel follows no more symbolic links than this on one way (path_resolution(7))."""


def is_hidden(path: str) -> bool:
    """Tell whether the units hide this path from the relay."""
    return f"{path}/".startswith(HIDDEN_FROM_SERVICES)


def obstacle(paths: Iterable[str], *, hidden: Callable[[str], bool] = is_hidden) -> str | None:
    """Return what keeps a user without rights of its own from reading one of these paths, in words; None: nothing.

    Every directory on the way and every link is looked at.
    """
    for path in paths:
        for step in _way(Path(path)):
            if hidden(str(step)):
                return f"{step} lies in a directory that the service may not see (ProtectHome=, PrivateTmp=)"
            try:
                mode = step.lstat().st_mode
            except OSError as error:
                return f"{step} cannot be looked at: {error.strerror or error}"
            needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
            if not stat.S_ISLNK(mode) and mode & needed != needed:
                return f"{step} has mode {stat.S_IMODE(mode):04o}, so that other users cannot read it"
    return None


def _way(path: Path) -> list[Path]:
    """Return every directory, link and file that opening the path passes, in order."""
    passed: list[Path] = []
    left, at, links = [*path.parts[1:]][::-1], Path("/"), 0
    while left:
        at /= left.pop()
        passed.append(at)
        if at.is_symlink() and links < MOST_LINKS:
            links += 1
            target = at.readlink()
            at = Path("/") if target.is_absolute() else at.parent
            left += [part for part in reversed(target.parts) if part != "/"]
        elif at.name == "..":
            at = at.parent.parent
    return passed
