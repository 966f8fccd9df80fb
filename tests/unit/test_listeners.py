"""Binding: the log socket's file and directory, every address of a host, and what is inherited."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from logrelay import listeners
from logrelay.config.settings import SUN_PATH_MAX_BYTES, Config
from logrelay.errors import ListenError
from logrelay.listeners import (
    Listeners,
    SocketFileWatch,
    UnixListener,
    allowed_peers,
    bind_tcp,
    group_id,
    open_listeners,
)
from tests.support.waiting import DEADLINE_S


@pytest.fixture
def folder():
    """A short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="lr") as name:
        yield Path(name)


@pytest.fixture
def unix():
    """Return a function that makes a UnixListener; closed and removed at the end of the test."""
    made = []

    def make(path):
        listener = UnixListener(str(path))
        made.append(listener)
        return listener

    yield make
    for listener in made:
        listener.socket.close()
        listener.remove()


def config(folder, **changes):
    return Config(**{"socket": str(folder / "ingest.sock"), "journal": ":memory:", "port": 0, **changes})


def is_closed(sock):
    return sock.fileno() == -1


def connects_to(address, family=socket.AF_UNIX):
    with socket.socket(family) as client:
        client.settimeout(DEADLINE_S)
        client.connect(address)
    return True


# --- the log socket -----------------------------------------------------------------------------------------


def test_the_socket_has_mode_0660_and_goes_away(folder, unix):
    """Owner and group may write, whatever the umask; the directory is made; the file is removed at the end."""
    path = folder / "new" / "ingest.sock"
    mask = os.umask(0)
    try:
        listener = unix(path)
        assert os.umask(0) == 0, "the umask was not put back"
    finally:
        os.umask(mask)
    status = path.lstat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert not listener.socket.getblocking()
    listener.remove()
    assert not path.exists()
    listener.remove()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o620])
def test_the_socket_has_the_mode_and_the_group_that_were_asked_for(folder, mode):
    """Socket and new directory belong to the group, which may pass; a directory that was there stays as it is."""
    group = os.getgid()
    path = folder / "new" / "ingest.sock"
    listener = UnixListener(str(path), mode=mode, group=str(group))
    try:
        assert (stat.S_IMODE(path.lstat().st_mode), path.lstat().st_gid) == (mode, group)
        assert (stat.S_IMODE(path.parent.stat().st_mode), path.parent.stat().st_gid) == (0o750, group)
    finally:
        listener.socket.close()
        listener.remove()


def test_a_group_by_name(folder):
    """The name of the group that this process has."""
    path = folder / "ingest.sock"
    listener = UnixListener(str(path), group=grp.getgrgid(os.getgid()).gr_name)
    assert path.lstat().st_gid == os.getgid()
    listener.socket.close()
    listener.remove()


def test_a_group_that_does_not_exist_is_refused(folder):
    """Before anything is made."""
    with pytest.raises(ListenError, match=r"there is no group 'nosuchgroup' .* --socket-group"):
        UnixListener(str(folder / "new" / "ingest.sock"), group="nosuchgroup")
    assert not (folder / "new").exists()


def test_a_group_that_may_not_be_given_leaves_no_socket(folder, monkeypatch):
    """The system lets nobody give a file to a group that he is not a member of."""

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ListenError, match=r"may not give .* to the group 7; .* has to be a member"):
        UnixListener(str(folder / "ingest.sock"), group="7")
    assert list(folder.iterdir()) == []


@pytest.fixture
def watched(folder):
    """A log socket with its watch; what is bound is closed at the end."""
    unix = UnixListener(str(folder / "run" / "ingest.sock"))
    bound = [unix]
    watch = SocketFileWatch(Listeners([unix.socket], [], unix))

    def check():
        mishap = watch.check()
        if mishap is not None and mishap.listener is not None:
            bound.append(mishap.listener)
        return mishap

    yield SimpleNamespace(path=folder / "run" / "ingest.sock", check=check, watch=watch)
    for listener in bound:
        listener.socket.close()
        listener.remove()


@pytest.mark.parametrize("gone", ["file", "directory", "replaced"])
def test_a_socket_that_was_removed_is_bound_again(watched, gone):
    """Whoever cleans up a temporary directory, or puts another file there that nobody listens on."""
    assert watched.check() is None
    watched.path.unlink()
    if gone == "directory":
        watched.path.parent.rmdir()
    elif gone == "replaced":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(watched.path))
    mishap = watched.check()

    assert mishap.text == f"the log socket {watched.path} was removed or replaced; it has been bound again"
    assert connects_to(str(watched.path))
    assert watched.check() is None
    watched.watch.remove_file()
    assert not watched.path.exists(), "the new file is the relay's to remove"


def test_the_socket_of_another_relay_is_not_stolen(watched):
    """It is told once; when that relay is gone the place is taken again, and told."""
    watched.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(watched.path))
        other.listen()
        inode = watched.path.stat().st_ino
        mishap = watched.check()
        assert mishap.listener is None
        assert "another relay is listening" in mishap.text
        assert watched.check() is None, "told once"
        assert watched.path.stat().st_ino == inode
        watched.watch.remove_file()
        assert watched.path.exists(), "it is not ours"
    assert "bound again" in watched.check().text


def test_a_second_mishap_is_told_like_the_first(watched):
    """What was told before is forgotten once all is well."""
    for _ in range(2):
        watched.path.unlink()
        watched.path.mkdir()
        assert "is not a socket" in watched.check().text
        assert watched.check() is None
        watched.path.rmdir()
        assert "bound again" in watched.check().text


def test_a_socket_from_systemd_is_not_bound_again(folder):
    """It is said once that only systemd can make it anew."""
    path = folder / "ingest.sock"
    with socket.socket(socket.AF_UNIX) as inherited, socket.socket(socket.AF_UNIX) as abstract:
        inherited.bind(str(path))
        abstract.bind("\0" + str(path))
        watch = SocketFileWatch(Listeners([abstract, inherited], [], None))
        assert watch.check() is None
        path.unlink()
        mishap = watch.check()
        assert mishap.listener is None
        assert "restart logrelay.socket" in mishap.text
        assert watch.check() is None
        assert not path.exists()
        watch.remove_file()


def test_a_bound_socket_listens(folder, unix):
    """Who connects before a server accepts waits; nobody is refused, and nobody takes the socket for stale."""
    path = folder / "ingest.sock"
    unix(path)
    assert connects_to(str(path))
    with pytest.raises(ListenError, match="another relay is listening"):
        unix(path)


def test_a_stale_socket_is_replaced(folder, unix):
    """What a killed relay left behind is in nobody's way."""
    path = folder / "ingest.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    unix(path)
    assert connects_to(str(path))


def test_a_live_socket_is_not_stolen(folder, unix):
    """A second relay is refused with a hint, and the first one keeps its file."""
    path = folder / "ingest.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        inode = path.stat().st_ino
        with pytest.raises(ListenError, match="another relay is listening"):
            unix(path)
        assert path.stat().st_ino == inode


def test_a_live_socket_with_a_full_backlog_is_not_stolen(folder, unix):
    """A relay too busy to accept is alive all the same."""
    path = folder / "ingest.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        waiting = []
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            waiting.append(sock)
            try:
                sock.connect(str(path))
            except BlockingIOError:
                break
        with pytest.raises(ListenError, match="another relay is listening"):
            unix(path)
        assert path.exists()
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link to a file", "datagram socket"])
def test_another_kind_of_file_is_left_alone(folder, unix, kind):
    """What is not a stream socket is refused and kept."""
    path = folder / "ingest.sock"
    datagram = None
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link to a file":
        (folder / "target").write_text("precious")
        path.symlink_to(folder / "target")
    else:
        datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        datagram.bind(str(path))
    with pytest.raises(ListenError, match=r"is not a socket; choose another place|in use"):
        unix(path)
    assert os.path.lexists(path)
    if datagram:
        datagram.close()


def test_a_path_that_is_too_long_is_refused_with_its_length(folder, unix):
    """108 bytes do not fit in a socket address, 107 do, and bytes are counted, not characters."""
    room = SUN_PATH_MAX_BYTES - len(os.fsencode(folder)) - 1
    with pytest.raises(ListenError, match=f"socket path is {SUN_PATH_MAX_BYTES + 1} bytes long"):
        unix(folder / ("x" * (room + 1)))
    with pytest.raises(ListenError, match="bytes long"):
        unix(folder / ("ä" * (room // 2 + 1)))
    unix(folder / ("x" * room))


def test_a_socket_that_another_relay_put_there_is_not_removed(folder, unix):
    """At its end a relay removes its own file only."""
    path = folder / "ingest.sock"
    listener = unix(path)
    path.unlink()
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(path))
    other.close()
    listener.remove()
    assert path.exists()


def test_a_directory_in_a_public_place_is_private(folder, unix):
    """Under a directory where anybody may make files, such as /tmp, ours is made for us alone."""
    folder.chmod(0o1777)
    path = folder / "logrelay-0" / "ingest.sock"
    unix(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("whose", ["writable for all", "somebody else's"])
def test_a_directory_that_others_could_have_put_there_is_refused(folder, unix, whose):
    """Whoever may write to the directory may put another socket in the place of ours."""
    folder.chmod(0o1777)
    path = folder / "logrelay-0" / "ingest.sock"
    path.parent.mkdir()
    if whose == "writable for all":
        path.parent.chmod(0o777)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        os.chown(path.parent, 12345, 12345)
    with pytest.raises(ListenError, match="others may write"):
        unix(path)
    assert not path.exists()


# --- TCP ----------------------------------------------------------------------------------------------------


def test_every_address_of_a_host_is_bound_with_one_port(monkeypatch):
    """`localhost` is two addresses where the machine has IPv6; both get the free port that the first one found."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(listeners.socket, "getaddrinfo", lambda *_args, **_settings: found)
    bound = bind_tcp("localhost", 0)
    try:
        names = [sock.getsockname() for sock in bound]
        assert [name[0] for name in names] == ["127.0.0.1", "127.0.0.2"]
        assert names[0][1] == names[1][1] != 0
        for sock in bound:
            assert not sock.getblocking()
            assert connects_to(sock.getsockname(), socket.AF_INET)
    finally:
        for sock in bound:
            sock.close()


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_machine_without_ipv6_still_has_localhost(monkeypatch, number):
    """An IPv6 address that cannot be bound is passed over when another address of the host could be."""

    class WithoutIpv6(socket.socket):
        def bind(self, address):
            if self.family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            super().bind(address)

    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(listeners.socket, "getaddrinfo", lambda *_args, **_settings: found)
        patched.setattr(listeners.socket, "socket", WithoutIpv6)
        bound = bind_tcp("localhost", 0)
        patched.setattr(listeners.socket, "getaddrinfo", lambda *_args, **_settings: found[1:])
        with pytest.raises(ListenError):
            bind_tcp("::1", 0)
    assert [sock.family for sock in bound] == [socket.AF_INET]
    bound[0].close()


def test_every_address_of_both_families_is_bound(monkeypatch):
    """`::` is IPv6 and IPv4, each by a socket of its own with the same port; what the machine lacks is left out."""
    families = []
    for host in ("::", "0::0"):
        bound = bind_tcp(host, 0)
        families = [sock.family for sock in bound]
        port = bound[0].getsockname()[1]
        assert {sock.getsockname()[1] for sock in bound} == {port}
        assert connects_to(("127.0.0.1", port), socket.AF_INET)
        if socket.AF_INET6 in families:
            assert connects_to(("::1", port), socket.AF_INET6)
        for sock in bound:
            sock.close()
    assert families in ([socket.AF_INET6, socket.AF_INET], [socket.AF_INET])

    class WithoutIpv6(socket.socket):
        def __init__(self, family, *args):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *args)

    with monkeypatch.context() as patched:
        patched.setattr(listeners.socket, "socket", WithoutIpv6)
        bound = bind_tcp("::", 0)
        with pytest.raises(ListenError, match="::1"):
            bind_tcp("::1", 0)
    assert [sock.family for sock in bound] == [socket.AF_INET]
    bound[0].close()


def test_a_port_in_use_is_named(monkeypatch):
    """The error should name the port and the option, and what was bound already should be closed."""
    bound = []

    class Watched(socket.socket):
        def __init__(self, *args):
            super().__init__(*args)
            bound.append(self)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        with monkeypatch.context() as patched:
            patched.setattr(listeners.socket, "getaddrinfo", lambda *_args, **_settings: found)
            patched.setattr(listeners.socket, "socket", Watched)
            with pytest.raises(ListenError, match=f"port {port} on 127.0.0.1 is in use; .*--port"):
                bind_tcp("127.0.0.1", port)
    assert len(bound) == 2
    assert all(is_closed(sock) for sock in bound)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_another_machine_is_refused(host):
    """The error should name the host and the option."""
    with pytest.raises(ListenError, match=host):
        bind_tcp(host, 0)


def test_a_host_that_nobody_knows_is_refused(monkeypatch):
    """A name that cannot be looked up is an error of ours, not a traceback."""

    def unknown(*_args, **_settings):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(listeners.socket, "getaddrinfo", unknown)
    with pytest.raises(ListenError, match="host 'nowhere' is not an address of this machine: Name or service"):
        bind_tcp("nowhere", 0)


# --- both ---------------------------------------------------------------------------------------------------


def test_what_was_not_inherited_is_bound(folder):
    """Without a service manager both sockets are the relay's own, and closing removes the file."""
    opened = open_listeners(config(folder), [])
    path = folder / "ingest.sock"
    assert [sock.getsockname() for sock in opened.trader_sockets] == [str(path)]
    assert opened.viewer_authority == f"127.0.0.1:{opened.viewer_sockets[0].getsockname()[1]}"
    opened.close()
    assert all(is_closed(sock) for sock in [*opened.trader_sockets, *opened.viewer_sockets])
    assert not path.exists()


def test_inherited_sockets_are_sorted_by_family_and_nothing_else_is_bound(folder):
    """Unix is for traders, TCP for viewers, in the manager's order; the settings change nothing, no file is removed."""
    inherited_path = folder / "inherited.sock"
    traders = socket.socket(socket.AF_UNIX)
    traders.bind(str(inherited_path))
    one, two = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    opened = open_listeners(config(folder, host="192.0.2.1", port=1), [one, traders, two])
    assert opened.trader_sockets == [traders]
    assert opened.viewer_sockets == [one, two]
    assert opened.viewer_authority == f"127.0.0.1:{one.getsockname()[1]}"
    assert not (folder / "ingest.sock").exists()
    opened.remove_file()
    assert inherited_path.exists()
    opened.close()
    assert inherited_path.exists()


def test_one_kind_inherited_the_other_bound(folder):
    """A socket unit with a Unix socket only leaves the port to the settings."""
    traders = socket.socket(socket.AF_UNIX)
    traders.bind(str(folder / "inherited.sock"))
    opened = open_listeners(config(folder), [traders])
    assert opened.trader_sockets == [traders]
    assert len(opened.viewer_sockets) == 1
    opened.close()


def test_when_the_port_is_in_use_the_log_socket_goes_too(folder):
    """A start that fails leaves no file behind and no socket open, inherited ones neither."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match="in use"):
            open_listeners(config(folder, port=port), [])
        assert not (folder / "ingest.sock").exists()
    viewers = socket.create_server(("127.0.0.1", 0))
    (folder / "ingest.sock").write_text("precious")
    with pytest.raises(ListenError, match="is not a socket"):
        open_listeners(config(folder), [viewers])
    assert is_closed(viewers)


def test_an_ipv6_address_stands_in_brackets(folder):
    """The address is shown as it stands in a URL."""
    try:
        viewers = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    opened = open_listeners(config(folder), [viewers])
    assert opened.viewer_authority == f"[::1]:{viewers.getsockname()[1]}"
    opened.close()


@pytest.mark.parametrize("number", ["4294967295", "99999999999", "9" * 5000, "\u00b2"])
def test_a_number_that_no_group_can_have_is_refused(number):
    """The first of them would mean "leave the group as it is" to the system."""
    with pytest.raises(ListenError, match=f"there is no group '{number}' on this machine"):
        group_id(number)
    assert group_id("4294967294") == 4294967294


# --- who may connect ----------------------------------------------------------------------------------------


def test_users_and_groups_may_be_names_or_numbers():
    me, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    config = Config("s", "j", allow_uid=(me, "4711"), allow_gid=(group, "4712"))
    access = allowed_peers(config)
    assert access.refusal(4711, ()) is None
    assert access.refusal(4713, (4712,)) is None
    assert access.refusal(4713, (os.getgid(),)) is None
    assert access.refusal(4713, ())


@pytest.mark.parametrize(
    ("lists", "text"),
    [
        ({"allow_uid": ("nobody-of-that-name",)}, r"no user 'nobody-of-that-name'.*--allow-uid"),
        ({"allow_gid": ("nobody-of-that-name",)}, r"no group 'nobody-of-that-name'.*--allow-gid"),
        ({"allow_uid": ("99999999999",)}, r"no user '99999999999'"),
    ],
)
def test_a_user_or_group_that_there_is_not(lists, text):
    with pytest.raises(ListenError, match=text):
        allowed_peers(Config("s", "j", **lists))


def test_a_directory_for_everybody_without_sticky_bit_is_refused(folder):
    """Anybody could take the socket's place there; with the bit, only its owner could."""
    place = folder / "open"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(ListenError, match="everybody may write to the directory"):
        UnixListener(str(place / "ingest.sock"))
    place.chmod(0o1777)
    listener = UnixListener(str(place / "ingest.sock"))
    listener.socket.close()
    listener.remove()
