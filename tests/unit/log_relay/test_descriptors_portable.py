"""The mark on an open file and the wake-up, with what Linux has and without it."""

import _socket
import fcntl
import importlib.util
import os
import select
import socket
import sys

import pytest

from robo_trader.log_relay import descriptors as linux

ELSEWHERE = {"_set_mark": None, "GET_MARK": -1, "read_mark": linux._identity}
"""What the module's names are where fcntl has no F_SETSIG."""


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
    """Return the module as it is where names are missing; `test_what_is_not_there_is_not_used` holds it to that."""
    if request.param != "linux":
        monkeypatch.delattr(os, "eventfd")
        for name, value in ELSEWHERE.items():
            monkeypatch.setattr(linux, name, value)
    if request.param == "bare":
        monkeypatch.setattr(linux, "_duplicate", None)
    return linux


def test_what_is_not_there_is_not_used(monkeypatch):
    loaded = load_without(monkeypatch, (fcntl, "F_SETSIG"))
    assert loaded.read_mark is loaded._identity
    assert {name: getattr(loaded, name) for name in ELSEWHERE if name != "read_mark"} == {
        "_set_mark": None,
        "GET_MARK": -1,
    }
    assert loaded._duplicate is fcntl.fcntl
    assert load_without(monkeypatch, (fcntl, "F_DUPFD_CLOEXEC"))._duplicate is None
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert load_without(monkeypatch).read_mark.__name__ == "_identity"


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

    def test_set_costs_a_full_socket_nothing(self, wakeup, monkeypatch):
        """Or an eventfd that counts no further: the sender is woken all the same."""
        wakeup.open()

        def full(fd, data):
            raise BlockingIOError

        monkeypatch.setattr(os, "write", full)
        wakeup.set()

    def test_both_ends_are_non_blocking_and_ask_for_no_sigpipe(self, wakeup, monkeypatch, request):
        asked = []
        monkeypatch.setattr(linux, "refuse_sigpipe", asked.append)
        wakeup.open()
        assert not os.get_blocking(wakeup.fd)
        assert not os.get_blocking(wakeup._write_fd)
        pair_expected = "linux" not in request.node.callspec.id
        assert [type(end) for end in asked] == ([_socket.socket] * 2 if pair_expected else [])

    def test_open_keeps_what_is_there(self, wakeup):
        wakeup.open()
        before = (wakeup.fd, wakeup._mark, wakeup._write_fd, wakeup._write_mark)
        wakeup.open()
        assert (wakeup.fd, wakeup._mark, wakeup._write_fd, wakeup._write_mark) == before

    def test_clear_without_set_keeps_it_open(self, wakeup):
        wakeup.open()
        fd = wakeup.fd
        wakeup.clear()
        assert wakeup.fd == fd

    def test_what_cannot_be_read_any_more_is_replaced(self, wakeup, monkeypatch):
        wakeup.open()

        def broken(fd, count):
            raise OSError("I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "read", broken)
            wakeup.clear()
        assert wakeup.fd == -1

    def test_an_error_while_closing_changes_nothing(self, wakeup, monkeypatch):
        wakeup.open()
        real = os.close

        def complaining(fd):
            real(fd)
            raise OSError("I/O error")

        before = set(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", complaining)
            wakeup.close()
        assert len(before - set(os.listdir("/proc/self/fd"))) in (1, 2)
        assert (wakeup.fd, wakeup._write_fd) == (-1, -1)

    @pytest.mark.parametrize("cleared", [True, False])
    @pytest.mark.parametrize("end", ["fd", "_write_fd"])
    def test_an_end_that_was_taken_is_left_alone_and_replaced(self, wakeup, end, cleared, pair):
        before = set(os.listdir("/proc/self/fd"))
        wakeup.open()
        taken = getattr(wakeup, end)
        os.dup2(pair[0].fileno(), taken)
        wakeup.set()
        assert not readable(pair[1].fileno())
        if cleared:
            wakeup.clear()
        wakeup.open()
        assert taken not in (wakeup.fd, wakeup._write_fd)
        assert os.fstat(taken).st_ino == os.fstat(pair[0].fileno()).st_ino
        wakeup.set()
        assert readable(wakeup.fd)
        os.close(taken)
        wakeup.close()
        assert set(os.listdir("/proc/self/fd")) == before, "an end that was still ours was left open"

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
    assert linux.SEND_FLAGS == socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    assert linux.SOCKET_FLAGS == socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    monkeypatch.delattr(_socket, "MSG_DONTWAIT")
    assert linux._flags("MSG_DONTWAIT", "MSG_NOSIGNAL") == socket.MSG_NOSIGNAL


def test_what_is_missing_is_named(monkeypatch):
    assert linux.missing() == ""
    monkeypatch.delattr(select, "poll")
    monkeypatch.delattr(os, "register_at_fork")
    assert linux.missing() == "select.poll, os.register_at_fork"
    monkeypatch.delattr(_socket, "AF_UNIX")
    assert linux.missing() == "Unix domain sockets, select.poll, os.register_at_fork"


@pytest.mark.parametrize(
    ("platform", "options"), [("darwin", [0x1022]), ("freebsd14", [0x800]), ("netbsd10", [0x800]), ("linux", [])]
)
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
