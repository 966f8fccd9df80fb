"""The mark on an open file and the wake-up, with what Linux has and without it."""

import _socket
import fcntl
import importlib.util
import os
import select
import socket

import pytest

from robo_trader.log_relay import descriptors as linux


def load_without(monkeypatch, *names):
    """Return a second copy of the module, loaded while `names` are missing."""
    for owner, name in names:
        monkeypatch.delattr(owner, name)
    spec = importlib.util.spec_from_file_location("robo_trader.log_relay.descriptors_elsewhere", linux.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["linux", "elsewhere", "bare"])
def descriptors(request, monkeypatch):
    missing = {
        "linux": [],
        "elsewhere": [(os, "eventfd"), (fcntl, "F_SETSIG")],
        "bare": [(os, "eventfd"), (fcntl, "F_SETSIG"), (fcntl, "F_DUPFD_CLOEXEC")],
    }[request.param]
    return load_without(monkeypatch, *missing)


@pytest.fixture
def pair():
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def readable(fd):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def test_a_mark_is_of_the_open_file_and_not_of_its_number(descriptors, pair):
    ours, other = (end.fileno() for end in pair)
    mark = descriptors.mark(ours)
    assert descriptors.is_marked(ours, mark)
    assert not descriptors.is_marked(other, mark)
    moved = os.dup(ours)
    assert descriptors.is_marked(moved, mark)
    os.dup2(other, moved)
    assert not descriptors.is_marked(moved, mark)
    os.close(moved)
    assert not descriptors.is_marked(moved, mark)
    assert not descriptors.is_marked(-1, mark)


def test_marking_what_is_closed_raises(descriptors, pair):
    fd = os.dup(pair[0].fileno())
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        descriptors.mark(fd)


def test_two_open_files_have_two_marks(descriptors, pair):
    first, second = (descriptors.mark(end.fileno()) for end in pair)
    assert first != second


def test_a_move_leaves_one_descriptor_that_no_child_inherits(descriptors, pair):
    fd = os.dup(pair[0].fileno())
    moved = descriptors.move_high(fd)
    try:
        assert os.fstat(moved).st_ino == os.fstat(pair[0].fileno()).st_ino
        assert not os.get_inheritable(moved)
        if moved != fd:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
    finally:
        os.close(moved)


class TestWakeup:
    @pytest.fixture
    def wakeup(self, descriptors):
        made = descriptors.Wakeup()
        yield made
        made.close()

    def test_set_wakes_once_until_it_is_taken_back(self, wakeup):
        wakeup.set()  # nobody waits yet
        wakeup.open()
        assert not readable(wakeup.fd)
        wakeup.set()
        wakeup.set()
        assert readable(wakeup.fd)
        wakeup.clear()
        assert not readable(wakeup.fd)

    def test_set_never_waits_however_often_it_is_called(self, wakeup):
        wakeup.open()
        for _ in range(100_000):  # more than a socket's buffer takes
            wakeup.set()
        while readable(wakeup.fd):
            wakeup.clear()
            assert wakeup.fd >= 0

    def test_open_keeps_what_is_there(self, wakeup):
        wakeup.open()
        fd = wakeup.fd
        wakeup.open()
        assert wakeup.fd == fd

    @pytest.mark.parametrize("end", ["fd", "_write_fd"])
    def test_an_end_that_was_taken_is_left_alone_and_replaced(self, wakeup, end, pair):
        wakeup.open()
        taken = getattr(wakeup, end)
        os.dup2(pair[0].fileno(), taken)
        wakeup.set()
        assert not readable(pair[1].fileno())
        wakeup.clear()
        wakeup.open()
        assert wakeup.fd != taken
        assert os.fstat(taken).st_ino == os.fstat(pair[0].fileno()).st_ino
        wakeup.set()
        assert readable(wakeup.fd)
        os.close(taken)

    def test_close_closes_both_ends_and_no_others(self, descriptors, wakeup, pair):
        before = set(os.listdir("/proc/self/fd"))
        wakeup.open()
        wakeup.close()
        wakeup.close()
        assert (wakeup.fd, set(os.listdir("/proc/self/fd"))) == (-1, before)
        wakeup.set()
        wakeup.open()
        wakeup.set()
        assert readable(wakeup.fd)


def test_flags_that_a_system_does_not_have_are_left_out(monkeypatch):
    whole = load_without(monkeypatch)
    assert whole.SEND_FLAGS == socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    assert whole.SOCKET_FLAGS == socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    bare = load_without(
        monkeypatch, *((_socket, name) for name in ("MSG_DONTWAIT", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "SOCK_NONBLOCK"))
    )
    assert (bare.SEND_FLAGS, bare.SOCKET_FLAGS) == (0, 0)


def test_what_is_missing_is_named(monkeypatch):
    assert linux.missing() == ""
    monkeypatch.delattr(select, "poll")
    monkeypatch.delattr(os, "register_at_fork")
    assert linux.missing() == "select.poll, os.register_at_fork"


@pytest.mark.parametrize(("platform", "options"), [("darwin", [0x1022]), ("freebsd14", [0x800]), ("linux", [])])
def test_the_option_against_sigpipe_is_the_system_s_own(monkeypatch, platform, options):
    class Socket:
        asked = []

        def setsockopt(self, level, option, value):
            assert (level, value) == (socket.SOL_SOCKET, 1)
            self.asked.append(option)
            raise OSError("this is Linux")

    Socket.asked = []
    monkeypatch.setattr(linux.sys, "platform", platform)
    linux.refuse_sigpipe(Socket())
    assert Socket.asked == options
