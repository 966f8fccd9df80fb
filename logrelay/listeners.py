"""Every socket that is bound, Unix or TCP, the relay's own or inherited from the service manager.

Owns: binding (the Unix socket's directory, stale file, mode and group; every TCP address of a host), the watch over our
own socket file and its removal, and the words of what goes wrong with either. It must not know who serves the sockets.
Read `ingest/server` next.

A socket listens as soon as it is bound, as an inherited one does: a second relay that starts in the same moment finds
the address in use, and whoever connects before the server accepts waits in the backlog, whose size the server sets.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from logrelay.config.settings import SUN_PATH_MAX_BYTES, Config, authority, connectable, is_loopback
from logrelay.errors import ListenError
from logrelay.ingest.peer_access import PeerAccess

SOCKET_MODE = 0o660
"""The trader's user is in the socket's group, or is the relay's own; nobody else may send lines."""

OWNER_MODE = 0o600
"""What the socket has between binding and the change of its group."""

DIRECTORY_MODE = 0o750
"""Given only to a directory that is made here: the trader's group may pass, others not."""

PRIVATE_MODE = 0o700
GROUP_PRIVATE_MODE = 0o710
"""The second where a group was named. In a directory such as /tmp anybody may have made ours before us: it has to
be ours, and nobody else's to write."""


NO_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What a machine without IPv6 answers to one of its addresses, or to a socket of that family."""


class UnixListener:
    """The log socket, listening at `path` with `mode`; a directory that is missing is made.

    Socket and directory get the `group`, a name or a number; None: that of the relay. Raises ListenError when the path
    is too long, in use by a live relay, taken by a file of another kind, in a directory where others could replace the
    socket, or not allowed to us, and when there is no such group. A socket file that no process listens on is replaced.
    """

    def __init__(self, path: str, *, mode: int = SOCKET_MODE, group: str | None = None) -> None:
        self._path, self._mode, self._group = Path(path), mode, group
        length = len(os.fsencode(path))
        if length > SUN_PATH_MAX_BYTES:
            raise ListenError(
                f"socket path is {length} bytes long, at most {SUN_PATH_MAX_BYTES} are possible: {path}; "
                "choose a shorter one with --socket"
            )
        gid = group_id(group)
        _make_directory(self._path.parent, gid)
        _remove_stale(self._path)
        self.socket = _bind_unix(self._path, mode, gid)
        """Listening and non-blocking. Whoever serves it closes it."""
        self._identity = _identity(self._path.stat())

    @property
    def path(self) -> str:
        """Where it was bound."""
        return str(self._path)

    def is_in_place(self) -> bool:
        """Tell whether the socket's file is still the one made here. A bound socket keeps its inode's number taken."""
        try:
            return _identity(self._path.lstat()) == self._identity
        except OSError:
            return False

    def bind_again(self) -> UnixListener:
        """Return another listener at the same path, with mode and group as here. Raises ListenError."""
        return UnixListener(str(self._path), mode=self._mode, group=self._group)

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
    """The relay's own log socket as it was bound first; None when it was inherited, and its file is not ours."""
    peer_access: PeerAccess = PeerAccess()  # noqa: RUF009  (it never changes)
    """Who may connect to the log socket."""
    viewers_inherited: bool = False
    """The viewers' sockets came from the service manager."""

    @property
    def viewer_authority(self) -> str:
        """Host and port of the first viewers' socket, as they stand in a URL."""
        host, port = self.viewer_sockets[0].getsockname()[:2]
        return authority(host, port)

    @property
    def page_authority(self) -> str:
        """The same as a browser on this machine is to be given it: a wildcard address is none to connect to."""
        host, port = self.viewer_sockets[0].getsockname()[:2]
        return authority(connectable(host), port)

    @property
    def viewers_on_loopback(self) -> bool:
        """Tell whether only this machine can reach the viewers' sockets."""
        return all(is_loopback(sock.getsockname()[0]) for sock in self.viewer_sockets)

    def remove_file(self) -> None:
        """Remove the log socket's file if the relay made it. Never raises."""
        if self.unix is not None:
            self.unix.remove()

    def close(self) -> None:
        """Close every socket and remove the file: for a start that failed before they were served. Never raises."""
        self.remove_file()
        _close(self.trader_sockets)
        _close(self.viewer_sockets)


@dataclass(frozen=True, slots=True)
class Mishap:
    """What became of the log socket's file, in words for the operator and the viewers."""

    text: str
    listener: UnixListener | None = None
    """Bound in its place, and to be served; None: there is none."""


class SocketFileWatch:
    """Whether traders can still find the log socket. Each mishap is told once, and again when it has changed."""

    def __init__(self, listeners: Listeners) -> None:
        self._unix = listeners.unix
        self._inherited: dict[Path, tuple[int, int]] = {}
        if self._unix is None:
            for sock in listeners.trader_sockets:
                name = sock.getsockname()
                if isinstance(name, str) and name:  # an abstract socket has no file
                    with contextlib.suppress(OSError):
                        self._inherited[Path(name)] = _identity(Path(name).stat())
        self._told = ""

    def check(self) -> Mishap | None:
        """Look at the file; where it is gone or another's, bind again. None: all is well, or as told before.

        Never takes the place of a relay that lives: that is told, and tried again with the next call.
        """
        if self._unix is None:
            return self._check_inherited()
        if self._unix.is_in_place():
            self._told = ""
            return None
        what = f"the log socket {self._unix.path} was removed or replaced"
        try:
            self._unix = self._unix.bind_again()
        except ListenError as error:
            return self._tell(f"{what} and cannot be bound again: {error}; it is tried again all the time")
        self._told = ""
        return Mishap(f"{what}; it has been bound again", self._unix)

    def _check_inherited(self) -> Mishap | None:
        for path, identity in self._inherited.items():
            try:
                if _identity(path.stat()) == identity:
                    continue
            except OSError:
                pass
            return self._tell(
                f"the log socket {path} was removed or replaced; whoever handed it to the relay has to make it anew: "
                "systemctl stop logrelay, then restart logrelay.socket"
            )
        return None

    def _tell(self, text: str) -> Mishap | None:
        if text == self._told:
            return None
        self._told = text
        return Mishap(text)

    def remove_file(self) -> None:
        """Remove the log socket's file if the relay made it. Never raises."""
        if self._unix is not None:
            self._unix.remove()


def open_listeners(config: Config, inherited: list[socket.socket]) -> Listeners:
    """Sort the inherited sockets, and bind those that are missing of the log socket and the viewers' port.

    A Unix socket is for traders, a TCP socket for viewers. Where one was inherited none is bound, and the settings
    `socket`, or `host` and `port`, change nothing. Raises ListenError, after closing all sockets, inherited ones too.
    """
    traders = [sock for sock in inherited if sock.family == socket.AF_UNIX]
    viewers = [sock for sock in inherited if sock.family != socket.AF_UNIX]
    unix: UnixListener | None = None
    own: list[socket.socket] | None = None
    try:
        access = allowed_peers(config)
        if not traders:
            unix = UnixListener(config.socket, mode=int(config.socket_mode, 8), group=config.socket_group)
            traders.append(unix.socket)
        if not viewers:
            viewers = own = bind_tcp(config.host, config.port)
    except ListenError:
        if unix is not None:
            unix.remove()
        _close([*traders, *viewers])
        raise
    return Listeners(traders, viewers, unix, access, viewers_inherited=viewers is not own)


def overridden(config: Config, origins: Mapping[str, str], listeners: Listeners) -> str | None:
    """Say which settings change nothing, because the sockets were inherited; None: every one that was given holds.

    `origins` says where each setting came from, see `config.loading.Effective`.
    """
    host, port = listeners.viewer_sockets[0].getsockname()[:2]
    differing = []
    if listeners.viewers_inherited:
        differing += [name for name, is_value in (("host", host), ("port", port)) if getattr(config, name) != is_value]
    if listeners.unix is None and all(sock.getsockname() != config.socket for sock in listeners.trader_sockets):
        differing.append("socket")
    given = [origins[name] for name in differing if origins.get(name, "default") != "default"]
    if not given:
        return None
    return (
        f"{' and '.join(given)} change nothing here: the service manager opens the sockets, viewers connect to "
        f"{listeners.viewer_authority}. Change that with: logrelay systemd install --listen ADDRESS "
        "(--listen 127.0.0.1:8765 is where it is by itself), and remove the settings"
    )


def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Bind every address of `host`: `localhost` is two of them, and a phone may come by either.

    `::` is every address of this machine, by IPv6 and IPv4, with a socket for each family: whoever comes by IPv4 is
    then seen as such, and not as an IPv6 address that stands for one. A machine without IPv6 has the other family.

    With port 0 all of them get the same free port. The sockets are non-blocking and listen. May block while a name is
    looked up. Raises ListenError when the host is unknown or an address cannot be bound.
    """
    found = _addresses(host, port)
    bound: list[socket.socket] = []
    shared_port = port
    for family, kind, proto, _, address in found:
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:
            if len(found) > 1 and error.errno in NO_FAMILY:
                continue
            _close(bound)
            raise _tcp_error(host, port, error) from error
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], shared_port, *address[2:]))
            sock.listen()
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if family == socket.AF_INET6 and len(found) > 1 and error.errno in NO_FAMILY:
                continue  # a machine without IPv6 still has localhost
            _close(bound)
            raise _tcp_error(host, port, error) from error
        bound.append(sock)
        shared_port = shared_port or sock.getsockname()[1]
    if not bound:
        raise ListenError(f"{host} is not an address of this machine; choose another --host")
    return bound


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[Any, ...]]]:
    """Return what `getaddrinfo` says of a host, each once; of `::`, of both families. Raises ListenError."""
    hosts = (host, "0.0.0.0") if _is_every_ipv6(host) else (host,)  # noqa: S104  (it was asked for)
    try:
        found = [
            row
            for one in hosts
            for row in socket.getaddrinfo(one, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ]
    except OSError as error:
        raise ListenError(f"host {host!r} is not an address of this machine: {error.strerror or error}") from error
    return list(dict.fromkeys(found))


def _is_every_ipv6(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.version == 6 and address.is_unspecified


def _tcp_error(host: str, port: int, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return ListenError(f"port {port} on {host} is in use; stop what uses it or choose another --port")
    if error.errno == errno.EACCES:
        return ListenError(f"may not listen on {host}:{port}; ports below 1024 need a privilege: choose another --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return ListenError(f"{host} is not an address of this machine; choose another --host")
    return ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}")


MAX_GID = 2**32 - 2
"""The highest number of a group; the one above it means "leave it" in chown(2)."""


def allowed_peers(config: Config) -> PeerAccess:
    """Return who may connect to the log socket. Raises ListenError for a user or group that there is not."""
    gids = [gid for gid in (group_id(group, option="--allow-gid") for group in config.allow_gid) if gid is not None]
    return PeerAccess([user_id(user) for user in config.allow_uid], gids, own_uid=os.geteuid())


def user_id(user: str) -> int:
    """Return the number of a user given by name or number. Raises ListenError."""
    if _is_id(user):
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ListenError(
            f"there is no user {user!r} on this machine; choose one of `getent passwd`, by name or number, "
            "with --allow-uid"
        ) from None


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_GID)) and int(text) <= MAX_GID


def group_id(group: str | None, *, option: str = "--socket-group") -> int | None:
    """Return the number of a group given by name or number; None: none is given. Raises ListenError."""
    if group is None:
        return None
    if _is_id(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ListenError(
            f"there is no group {group!r} on this machine; choose one of `getent group`, by name or number, "
            f"with {option}"
        ) from None


def _give(path: Path, gid: int) -> None:
    """Change the group of something that was made here. Raises OSError, and ListenError where that is not allowed."""
    try:
        os.chown(path, -1, gid, follow_symlinks=False)
    except PermissionError:
        raise ListenError(
            f"may not give {path} to the group {gid}; the relay's user has to be a member of the group that "
            "--socket-group names"
        ) from None


def _make_directory(directory: Path, gid: int | None) -> None:
    """Make the socket's directory; in a place where everybody may make one, insist that only we may write to it."""
    try:
        above = directory.parent.stat() if directory.parent.is_dir() else None
        public = above is not None and bool(above.st_mode & stat.S_ISVTX)
        private = PRIVATE_MODE if gid is None else GROUP_PRIVATE_MODE
        is_new = not directory.exists()
        directory.mkdir(mode=private if public else DIRECTORY_MODE, parents=True, exist_ok=True)
        if is_new and gid is not None:
            _give(directory, gid)
        made = directory.lstat() if public else directory.stat()
    except OSError as error:
        raise _unix_error(f"cannot make the directory {directory} for the log socket", error) from error
    if not public and made.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
        raise ListenError(
            f"everybody may write to the directory {directory}, so somebody else could take the log socket's place; "
            "take that right away (chmod o-w), or choose another place with --socket"
        )
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


def _bind_unix(path: Path, mode: int, gid: int | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound = False
    # The file must never be there with a wider mode, or with the same for another group, not even for an instant.
    mask = os.umask(0o777 & ~(mode if gid is None else OWNER_MODE))
    try:
        sock.bind(str(path))
        bound = True
        if gid is not None:
            _give(path, gid)
            path.chmod(mode)
        sock.listen()
    except (OSError, ListenError) as error:
        sock.close()
        if bound:
            with contextlib.suppress(OSError):
                path.unlink()
        if isinstance(error, ListenError):
            raise
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
