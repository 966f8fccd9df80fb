"""Every socket that is bound, Unix or TCP, the relay's own or inherited from the service manager.

Owns: binding (the Unix socket's directory, stale file and mode; every TCP address of a host), removal of our own socket
file, and the words of what goes wrong with either. It must not know who serves the sockets. Read `ingest/server` next.

A socket listens as soon as it is bound, as an inherited one does: a second relay that starts in the same moment finds
the address in use, and whoever connects before the server accepts waits in the backlog, whose size the server sets.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from logrelay.config.settings import SUN_PATH_MAX_BYTES, Config
from logrelay.errors import ListenError

SOCKET_MODE = 0o660
"""The trader's user is in the relay's group, or is the same; nobody else may send lines."""

DIRECTORY_MODE = 0o750
"""Given only to a directory that is made here: the trader's group may pass, others not."""

PRIVATE_MODE = 0o700
"""In a directory such as /tmp anybody may have made ours before us: it has to be ours, and nobody else's to write."""


class UnixListener:
    """The log socket, listening at `path` with mode 0660; a directory that is missing is made.

    Raises ListenError when the path is too long, in use by a live relay, taken by a file of another kind, in a
    directory where others could replace the socket, or not allowed to us. A socket file that no process listens on is
    replaced.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        length = len(os.fsencode(path))
        if length > SUN_PATH_MAX_BYTES:
            raise ListenError(
                f"socket path is {length} bytes long, at most {SUN_PATH_MAX_BYTES} are possible: {path}; "
                "choose a shorter one with --socket"
            )
        _make_directory(self._path.parent)
        _remove_stale(self._path)
        self.socket = _bind_unix(self._path)
        """Listening and non-blocking. Whoever serves it closes it."""
        self._identity = _identity(self._path.stat())

    def remove(self) -> None:
        """Remove the socket's file if it is still the one made here. Never raises."""
        # If the file or its directory is gone already, nothing is left to remove.
        with contextlib.suppress(OSError):
            if _identity(self._path.lstat()) == self._identity:
                self._path.unlink()


@dataclass(frozen=True, slots=True)
class Listeners:
    """Every listening socket of a relay, by who connects to it. Whoever serves one closes it."""

    trader_sockets: list[socket.socket]
    viewer_sockets: list[socket.socket]
    """At least one."""
    unix: UnixListener | None
    """The relay's own log socket; None when it was inherited, and its file is not ours to remove."""

    @property
    def viewer_authority(self) -> str:
        """Host and port of the first viewers' socket, as they stand in a URL."""
        host, port = self.viewer_sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def remove_file(self) -> None:
        """Remove the log socket's file if the relay made it. Never raises."""
        if self.unix is not None:
            self.unix.remove()

    def close(self) -> None:
        """Close every socket and remove the file: for a start that failed before they were served. Never raises."""
        self.remove_file()
        _close(self.trader_sockets)
        _close(self.viewer_sockets)


def open_listeners(config: Config, inherited: list[socket.socket]) -> Listeners:
    """Sort the inherited sockets, and bind those that are missing of the log socket and the viewers' port.

    A Unix socket is for traders, a TCP socket for viewers. Where one was inherited none is bound, and the settings
    `socket`, or `host` and `port`, change nothing. Raises ListenError, after closing all sockets, inherited ones too.
    """
    traders = [sock for sock in inherited if sock.family == socket.AF_UNIX]
    viewers = [sock for sock in inherited if sock.family != socket.AF_UNIX]
    unix: UnixListener | None = None
    try:
        if not traders:
            unix = UnixListener(config.socket)
            traders.append(unix.socket)
        if not viewers:
            viewers = bind_tcp(config.host, config.port)
    except ListenError:
        if unix is not None:
            unix.remove()
        _close([*traders, *viewers])
        raise
    return Listeners(traders, viewers, unix)


def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Bind every address of `host`: `localhost` is two of them, and a phone may come by either.

    With port 0 all of them get the same free port. The sockets are non-blocking and listen. May block while a name is
    looked up. Raises ListenError when the host is unknown or an address cannot be bound.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"host {host!r} is not an address of this machine: {error.strerror or error}") from error
    bound: list[socket.socket] = []
    shared_port = port
    for family, kind, proto, _, address in dict.fromkeys(found):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], shared_port, *address[2:]))
            sock.listen()
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if family == socket.AF_INET6 and bound and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # a machine without IPv6 still has localhost
            _close(bound)
            raise _tcp_error(host, port, error) from error
        bound.append(sock)
        shared_port = shared_port or sock.getsockname()[1]
    return bound


def _tcp_error(host: str, port: int, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return ListenError(f"port {port} on {host} is in use; stop what uses it or choose another --port")
    if error.errno == errno.EACCES:
        return ListenError(f"may not listen on {host}:{port}; ports below 1024 need a privilege: choose another --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return ListenError(f"{host} is not an address of this machine; choose another --host")
    return ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}")


def _make_directory(directory: Path) -> None:
    """Make the socket's directory; in a place where everybody may make one, insist that only we may write to it."""
    try:
        above = directory.parent.stat() if directory.parent.is_dir() else None
        public = above is not None and bool(above.st_mode & stat.S_ISVTX)
        directory.mkdir(mode=PRIVATE_MODE if public else DIRECTORY_MODE, parents=True, exist_ok=True)
        made = directory.lstat() if public else directory.stat()
    except OSError as error:
        raise _unix_error(f"cannot make the directory {directory} for the log socket", error) from error
    if public and (not stat.S_ISDIR(made.st_mode) or made.st_uid not in (os.geteuid(), 0) or made.st_mode & 0o022):
        raise ListenError(
            f"others may write to the directory {directory}, so somebody else could take the log socket's place; "
            "remove it, make it mode 0700, or choose another place with --socket"
        )


def _remove_stale(path: Path) -> None:
    """Remove what a dead relay left behind; refuse to take the place of a live one or of another kind of file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unix_error(f"cannot look at {path}", error) from error
    if not stat.S_ISSOCK(mode):
        raise ListenError(
            f"{path} exists and is not a socket; choose another place with --socket, or move away what is there"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except BlockingIOError:
            raise _in_use(path) from None  # its backlog is full: somebody listens
        except OSError as error:
            raise _unix_error(f"cannot tell whether {path} is in use", error) from error
        else:
            raise _in_use(path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unix_error(f"cannot remove the stale log socket {path}", error) from error


def _bind_unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The file must never be there with a wider mode, not even for an instant.
    mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        sock.bind(str(path))
        sock.listen()
    except OSError as error:
        sock.close()
        raise _unix_error(f"cannot open the log socket {path}", error) from error
    finally:
        os.umask(mask)
    sock.setblocking(False)
    return sock


def _in_use(path: Path) -> ListenError:
    return ListenError(f"another relay is listening on {path}; stop it, or give this one another place with --socket")


def _unix_error(what: str, error: OSError) -> ListenError:
    hint = {
        errno.EACCES: "; run as a user who may write there, or choose another place with --socket",
        errno.EROFS: "; choose a writable place with --socket",
        errno.ENOENT: "; create the directory or choose another place with --socket",
    }.get(error.errno or 0, "")
    return ListenError(f"{what}: {error.strerror or error}{hint}")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
