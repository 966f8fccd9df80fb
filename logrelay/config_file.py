"""How the bytes of a config file are read without waiting for anybody.

Owns: `read_config_file`. A pipe can be given at the start (`--config <(...)`), when somebody waits in front of it; a
relay that serves must not stop for one. It must not know what is in the file. Read `app` next to see the values used.
"""

from __future__ import annotations

import errno
import os
from stat import S_ISREG

MOST_BYTES = 1 << 20
"""Far more than all settings together: what has more was named by mistake, or never ends, as /dev/zero."""


def read_config_file(path: str, *, regular_only: bool) -> bytes:
    """Return the whole content of a config file. Raises OSError, in words, also for more than `MOST_BYTES`.

    With `regular_only` anything but a regular file is refused at once; without it, reading waits for a pipe's writer.
    """
    # Without O_NONBLOCK a pipe would be waited for in open(2), before it can be seen that it is one.
    waiting = os.O_NONBLOCK if regular_only else 0
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | waiting), "rb") as file:  # noqa: PTH123
        if regular_only and not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(
                errno.EINVAL, "it is no regular file; a pipe or a device can be read only when logrelay serve starts"
            )
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MOST_BYTES >> 20} MiB; allowed: a file of settings")
    return content
