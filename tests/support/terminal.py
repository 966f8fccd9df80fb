"""Programs in front of a terminal of their own.

Owns: `Terminal`, which starts a program on a pty, reads what it shows, types, and takes the terminal away. It must not
know the programs. Read `waiting` next.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

from tests.support.waiting import DEADLINE_S

COLUMNS, ROWS = 80, 24


class Terminal:
    """A program in front of a terminal of its own."""

    def __init__(self, command, environ, cwd, columns=COLUMNS):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
            os.chdir(cwd)
            os.execvpe(command[0], command, environ)
        self.shown = ""
        self.status = None

    def read(self):
        """Read what there is, waiting for it as long as for anything; False at the end."""
        return self._read(time.monotonic() + DEADLINE_S)

    def _read(self, deadline):
        readable, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
        assert readable, f"nothing more after:\n{self.shown}"
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the last process in front of the terminal is gone
            return False
        self.shown += data.decode(errors="replace").replace("\r", "")
        return bool(data)

    def wait_for(self, pattern):
        deadline = time.monotonic() + DEADLINE_S
        while not (match := re.search(pattern, self.shown, re.MULTILINE)):
            assert self._read(deadline), f"ended without {pattern!r}:\n{self.shown}"
        return match

    def type(self, keys):
        os.write(self.fd, keys)

    def wait(self):
        deadline = time.monotonic() + DEADLINE_S
        while self._read(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def hang_up(self):
        """Take the terminal away."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def close(self):
        """Hang up, and end what does not end by itself."""
        self.hang_up()
        give_up = time.monotonic() + DEADLINE_S
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > give_up:
                os.kill(self.pid, signal.SIGKILL)
            else:
                time.sleep(0.05)  # between two looks
