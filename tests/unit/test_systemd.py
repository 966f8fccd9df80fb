"""sd_listen_fds, sd_notify and the watchdog, against real sockets and a real systemd-socket-activate."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from logrelay.errors import ListenError
from logrelay.systemd import LISTEN_FDS_START, Notifier, inherited_sockets, keeps_out, watchdog_interval
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S


def manager_socket(address):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(address)
    manager.settimeout(DEADLINE_S)
    return manager


def test_without_a_manager_nothing_happens():
    """Outside systemd every call should do nothing and say so."""
    notifier = Notifier({})

    assert not notifier.connected
    assert (notifier.ready("x"), notifier.status("x"), notifier.watchdog(), notifier.stopping()) == (False,) * 4


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_ready_status_watchdog_and_stopping(tmp_path, abstract):
    """Each message should arrive as one datagram in the words of sd_notify(3), at either kind of address."""
    name = f"logrelay-test-{os.getpid()}" if abstract else str(tmp_path / "n")
    with manager_socket("\0" + name if abstract else name) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": ("@" if abstract else "") + name})

        assert notifier.ready("ws://127.0.0.1:8765")
        assert manager.recv(999) == b"READY=1\nSTATUS=ws://127.0.0.1:8765"
        assert notifier.status("two\nlines=1")
        assert manager.recv(999) == b"STATUS=two lines=1"
        assert notifier.reloading(7)
        assert manager.recv(999) == b"RELOADING=1\nMONOTONIC_USEC=7"
        assert notifier.watchdog()
        assert manager.recv(999) == b"WATCHDOG=1"
        assert notifier.stopping()
        assert manager.recv(999) == b"STOPPING=1"
        notifier.close()
        assert not notifier.watchdog()


def test_a_deaf_manager_never_blocks_or_raises(tmp_path):
    """With the manager's queue full, watchdog pings should be given up; with it gone, everything should."""
    manager = manager_socket(str(tmp_path / "n"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")})

    heard = 0
    while notifier.watchdog():
        heard += 1
        assert heard < 100_000
    assert heard > 0
    manager.close()
    assert not notifier.ready("x")
    notifier.close()


@pytest.mark.parametrize("address", ["/no/such/socket", "vsock:2:1", "relative"])
def test_an_address_that_cannot_be_reached_counts_as_no_manager(address):
    """A manager that is not there should not stop the relay."""
    assert not Notifier({"NOTIFY_SOCKET": address}).connected


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2000000"}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_pinged_at_half_its_limit(environ, seconds):
    """Half of WATCHDOG_USEC, if it is meant for this process, should be returned."""
    assert watchdog_interval(environ, 7) == seconds


def test_sockets_for_another_process_are_left_alone():
    """A child with the environment of its parent should not take the sockets, and should lose their names."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x", "HOME": "/"}

    assert inherited_sockets(environ, 2) == []
    assert environ == {"HOME": "/"}
    assert inherited_sockets({}, 2) == []


@pytest.mark.parametrize("count", ["x", "-1", "65", "\u0661"])
def test_a_count_that_makes_no_sense_is_an_error(count):
    """LISTEN_FDS should be a small number; anything else stops the start."""
    with pytest.raises(ListenError, match=r"LISTEN_FDS is .*allowed"):
        inherited_sockets({"LISTEN_FDS": count, "LISTEN_PID": "7"}, 7)


CHILD = """
import os, sys
from logrelay.errors import ListenError
from logrelay.systemd import inherited_sockets
try:
    taken = inherited_sockets(os.environ, os.getpid())
except ListenError as error:
    sys.exit(f"ListenError: {error}")
for taken_socket in taken:
    print(taken_socket.family.name, taken_socket.getblocking(), taken_socket.get_inheritable())
print("LISTEN_FDS" in os.environ)
"""


def child_with(fds, names=""):
    """Run CHILD with `fds` as its descriptors from 3 on, the way a manager does."""
    shell = 'export LISTEN_PID=$$; exec "$@"'
    environ = os.environ | {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names, "PYTHONPATH": os.getcwd()}
    copies = [os.dup(fd) for fd in fds]

    def place():
        high = [os.dup2(fd, 100 + i) for i, fd in enumerate(copies)]
        for i, fd in enumerate(high):
            os.dup2(fd, LISTEN_FDS_START + i)

    try:
        return subprocess.run(
            ["/bin/sh", "-c", shell, "sh", sys.executable, "-c", CHILD],
            env=environ,
            preexec_fn=place,
            close_fds=False,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    finally:
        for fd in copies:
            os.close(fd)


def test_listening_sockets_are_taken_over_in_order(tmp_path):
    """A Unix and a TCP listener should come back in order, non-blocking and not inheritable."""
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        done = child_with([unix.fileno(), tcp.fileno()], "ingest:viewers")

    assert done.stderr == ""
    assert done.stdout == "AF_UNIX False False\nAF_INET False False\nFalse\n"


def test_a_wrong_number_of_names_is_no_reason_to_fail(tmp_path):
    """Names only stand in errors: without usable ones every socket should be taken, and called unknown."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, open("/dev/null") as null:
        done = child_with([tcp.fileno()], "a:b")
        bad = child_with([null.fileno()], "a:b")

    assert done.stdout == "AF_INET False False\nFalse\n"
    assert "inherited file descriptor 3 (unknown) is not a socket" in bad.stderr


def test_what_is_not_a_listening_socket_is_refused():
    """A pipe, a datagram socket or a socket that does not listen should stop the start, and be named."""
    with (
        open("/dev/null") as null,
        socket.socket() as idle,
        socket.socket(type=socket.SOCK_DGRAM) as datagram,
    ):
        for file, said in (
            (null, "is not a socket"),
            (idle, "is not a listening"),
            (datagram, "is not a listening"),
        ):
            done = child_with([file.fileno()], "viewers")
            assert done.returncode == 1
            assert f"ListenError: inherited file descriptor 3 (viewers) {said}" in done.stderr


def test_a_real_socket_activation_passes_both_sockets(tmp_path):
    """systemd's own activator should be understood."""
    activator = shutil.which("systemd-socket-activate")
    if activator is None:
        pytest.skip("systemd-socket-activate is not installed")
    path = tmp_path / "ingest.sock"
    port = free_port()  # the activator wants a number
    command = [
        activator,
        f"-EPYTHONPATH={os.getcwd()}",
        "-l",
        str(path),
        "-l",
        f"127.0.0.1:{port}",
        "--fdname=ingest:viewer",
    ]
    process = subprocess.Popen(
        [*command, sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said = process.stderr.readline()  # "Listening on ... as 3.", once per socket
        said += process.stderr.readline()
        assert str(path) in said
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            out, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.communicate()
    assert out == "AF_UNIX False False\nAF_INET False False\nFalse\n"


def test_only_a_unit_is_blamed_for_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    """Not where the relay runs by itself, nor for its state directory: there the disk itself is read-only."""
    path = str(tmp_path / "missing" / "journal.db")
    assert keeps_out({"INVOCATION_ID": "x"}, path) is None
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_flag=os.ST_RDONLY))

    assert keeps_out({}, path) is None
    assert keeps_out({"INVOCATION_ID": "x", "STATE_DIRECTORY": str(tmp_path)}, path) is None
    said = keeps_out({"INVOCATION_ID": "x", "STATE_DIRECTORY": "/var/lib/logrelay"}, path)
    assert f"ReadWritePaths={tmp_path}/missing" in said
    assert "/var/lib/logrelay alone" in said
