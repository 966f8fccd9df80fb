"""Talking to the service manager: inherited sockets, readiness, watchdog.

Owns: the three environment protocols of systemd (sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3)),
without its library. It must not know when the relay is ready or well (`app` tells it), nor what the inherited sockets
are for (`listeners` sorts them). The environment and the pid are arguments. Read `app` next.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping, MutableMapping

from logrelay.errors import ListenError

LISTEN_FDS_START = 3
"""SD_LISTEN_FDS_START: inherited descriptors follow stdin, stdout and stderr."""

MAX_FDS = 64
"""More sockets than any relay serves; a larger number is a mistake."""

NOTIFY_WAIT_S = 1.0
"""How long READY and STOPPING may wait for a busy manager. Losing READY would fail the start; a stuck manager
must not hang the relay."""


def inherited_sockets(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """Take over the sockets the service manager passed, in its order; an empty list when there are none.

    Removes the LISTEN_* variables, so that a child does not take them for its own. The sockets become
    non-blocking and are not inherited further; the caller closes them. Raises ListenError for anything that is not a
    listening stream socket of family AF_UNIX, AF_INET or AF_INET6, after closing what was taken.
    """
    given = {name: environ.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")}
    if not given["LISTEN_FDS"] or given["LISTEN_PID"] != str(pid):
        return []  # nothing passed, or passed to another process
    if not given["LISTEN_FDS"].isascii() or not given["LISTEN_FDS"].isdigit():
        raise ListenError(f"LISTEN_FDS is {given['LISTEN_FDS']!r}; allowed: a number of sockets")
    count = int(given["LISTEN_FDS"])
    if count > MAX_FDS:
        raise ListenError(f"LISTEN_FDS is {count}; allowed: at most {MAX_FDS} sockets")
    names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else []
    if len(names) != count:
        names = ["unknown"] * count
    taken: list[socket.socket] = []
    try:
        for fd, name in enumerate(names, LISTEN_FDS_START):
            taken.append(_listening_socket(fd, name))
    except ListenError:
        for inherited in taken:
            inherited.close()
        raise
    return taken


def _listening_socket(fd: int, name: str) -> socket.socket:
    what = f"inherited file descriptor {fd} ({name})"
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ListenError(f"{what} is not a socket")
    except OSError as error:
        raise ListenError(f"{what} cannot be used: {error.strerror}") from None
    taken = socket.socket(fileno=fd)
    family_fits = taken.family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
    if not family_fits or taken.type != socket.SOCK_STREAM or not _accepts(taken):
        taken.close()
        raise ListenError(f"{what} is not a listening stream socket (Unix or TCP)")
    taken.set_inheritable(False)
    taken.setblocking(False)
    return taken


def _accepts(taken: socket.socket) -> bool:
    return bool(taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how many seconds apart to call `Notifier.watchdog`, or None if no watchdog listens.

    Half the manager's limit, as sd_watchdog_enabled(3) recommends.
    """
    usec = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid) or not usec.isascii() or not usec.isdigit() or int(usec) == 0:
        return None
    return int(usec) / 2_000_000


def keeps_out(environ: Mapping[str, str], path: str) -> str | None:
    """Return what to do about a unit that lets the relay not write to the file at `path`; None: it is no unit's doing.

    ProtectSystem= shows as a file system that is mounted read-only for this service.
    """
    states = environ.get("STATE_DIRECTORY", "").split(":")
    directory = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120  (no link is followed)
    if "INVOCATION_ID" not in environ or any(state and f"{directory}/".startswith(f"{state}/") for state in states):
        return None
    above = directory
    while not os.path.exists(above):  # noqa: PTH110
        above = os.path.dirname(above)  # noqa: PTH120
    if not os.statvfs(above).f_flag & os.ST_RDONLY:
        return None
    allowed = " and ".join(filter(None, states)) or "no directory"
    return (
        f"the unit lets the relay write to {allowed} alone. Choose a directory that is not below /home, /root or /tmp; "
        f"do: install -d -o logrelay -g logrelay -m 0700 {directory}; then systemctl edit logrelay, and under "
        f"[Service] add ReadWritePaths={directory}"
    )


class Notifier:
    """Tells the service manager the state of the relay; does nothing where there is no manager.

    No method raises: a relay must not end because its manager does not listen. Each returns whether the message was
    sent.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        if address[:1] not in ("/", "@"):
            return  # not under a manager, or over vsock, which is for virtual machines
        if address.startswith("@"):
            address = "\0" + address[1:]  # an abstract socket: a name without a file
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.connect(address)
        except OSError:
            self.close()

    @property
    def connected(self) -> bool:
        """True when a service manager listens."""
        return self._socket is not None

    def ready(self, status: str) -> bool:
        """Say that every socket is served. May block for `NOTIFY_WAIT_S` at most."""
        return self._send(f"READY=1\nSTATUS={_one_line(status)}", NOTIFY_WAIT_S)

    def stopping(self) -> bool:
        """Say that the end has begun. May block for `NOTIFY_WAIT_S` at most."""
        return self._send("STOPPING=1", NOTIFY_WAIT_S)

    def reloading(self, mono_us: int) -> bool:
        """Say that the settings are read again; `mono_us` is the monotonic clock in microseconds. `ready` ends it."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={mono_us}", NOTIFY_WAIT_S)

    def status(self, text: str) -> bool:
        """Show one line in `systemctl status`. Never blocks."""
        return self._send(f"STATUS={_one_line(text)}", 0)

    def watchdog(self) -> bool:
        """Say that the loop turns and every part goes on. Never blocks; the next message makes up for a lost one."""
        return self._send("WATCHDOG=1", 0)

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str, wait_s: float) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.settimeout(wait_s)
            self._socket.send(message.encode("utf-8", "replace"), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True


def _one_line(text: str) -> str:
    return " ".join(text.split())
