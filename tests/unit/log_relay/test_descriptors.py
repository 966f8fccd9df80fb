"""Descriptors that somebody else may close: they are recognised, left alone when they are not ours, and replaced."""

import fcntl
import os
import resource

import pytest

from robo_trader.log_relay import descriptors as module
from robo_trader.log_relay.descriptors import (
    HIGH_FD,
    HIGH_FDS,
    MARKS,
    Wakeup,
    is_marked,
    mark,
    move_high,
)


@pytest.fixture
def pipe():
    """Two descriptors, closed at the end unless they are already."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        close(fd)


@pytest.fixture
def wakeup():
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def close(fd):
    try:
        os.close(fd)
    except OSError:
        pass


def is_open(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def test_marks_are_told_apart(pipe):
    """Each open file has its own, kept with the file and not with the number."""
    one, other = mark(pipe[0]), mark(pipe[1])
    assert one != other
    assert {one, other} <= set(MARKS)
    assert fcntl.fcntl(pipe[0], fcntl.F_GETSIG) == one
    assert is_marked(pipe[0], one) is True
    assert is_marked(pipe[0], other) is False
    os.close(pipe[0])
    assert is_marked(pipe[0], one) is False


def test_marks_come_again(pipe):
    """There are only so many signals: after the last comes the first."""
    made = [mark(pipe[0]) for _ in range(2 * len(MARKS))]
    assert set(made) == set(MARKS)
    assert made[: len(MARKS)] == made[len(MARKS) :]


def test_a_descriptor_moves_to_a_high_number(pipe):
    """Where numbers are rarely used again; the old number is free, a program started later does not inherit it."""
    inode = os.fstat(pipe[0]).st_ino
    moved = move_high(pipe[0])
    try:
        assert moved >= HIGH_FD
        assert os.fstat(moved).st_ino == inode
        assert not is_open(pipe[0])
        assert fcntl.fcntl(moved, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    finally:
        close(moved)


@pytest.mark.parametrize("lowest", [*HIGH_FDS[1:], 0])
def test_where_the_limit_is_low_a_lower_number_is_taken(pipe, lowest):
    """At last its own."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    higher = [number for number in HIGH_FDS if number > lowest]
    inode = os.fstat(pipe[0]).st_ino
    assert max(pipe) < HIGH_FDS[-1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (higher[-1], limit[1]))
    try:
        moved = move_high(pipe[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    try:
        assert os.fstat(moved).st_ino == inode
        assert lowest <= moved < higher[-1]
        assert is_open(pipe[0]) is (moved == pipe[0]) is (lowest == 0)
    finally:
        if moved != pipe[0]:
            close(moved)


def test_a_wakeup_wakes_once_however_often_it_is_set(wakeup):
    """And not after it was cleared."""
    wakeup.open()
    fd = wakeup.fd
    assert fd >= HIGH_FD
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    wakeup.set()
    wakeup.set()
    assert os.eventfd_read(fd) == 2
    wakeup.set()
    wakeup.clear()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(fd)
    wakeup.open()
    assert wakeup.fd == fd, "it is still ours"


def test_a_closed_wakeup_does_nothing(wakeup):
    """Before it is opened and after it is closed."""
    assert wakeup.fd == -1
    wakeup.set()
    wakeup.close()
    wakeup.open()
    fd = wakeup.fd
    wakeup.close()
    assert wakeup.fd == -1
    assert not is_open(fd)
    wakeup.set()


def test_a_number_that_is_another_file_now_is_left_alone(wakeup):
    """Somebody closed every descriptor and opened an eventfd of his own at our number."""
    wakeup.open()
    fd = wakeup.fd
    own = os.eventfd(0, os.EFD_NONBLOCK)
    os.dup2(own, fd)
    try:
        fcntl.fcntl(own, fcntl.F_SETSIG, 0)
        wakeup.set()
        os.eventfd_write(own, 5)
        wakeup.clear()
        assert os.eventfd_read(own) == 5, "it was neither written nor read"
        assert wakeup.fd == -1
        wakeup.open()
        assert wakeup.fd not in (-1, fd)
        again = wakeup.fd
        os.dup2(own, again)
        wakeup.open()
        assert wakeup.fd not in (-1, fd, again)
        last = wakeup.fd
        os.dup2(own, last)
        wakeup.close()
        assert is_open(last), "closing is for ours only"
    finally:
        for number in {own, fd, again, last}:
            close(number)


def test_a_number_that_is_closed_is_replaced(wakeup):
    """The next `open` makes another."""
    wakeup.open()
    os.close(wakeup.fd)
    wakeup.set()
    wakeup.clear()
    assert wakeup.fd == -1
    wakeup.open()
    wakeup.set()
    assert os.eventfd_read(wakeup.fd) == 1
    os.close(wakeup.fd)
    wakeup.close()
    assert wakeup.fd == -1


def test_the_mark_is_there_before_the_number(wakeup, monkeypatch):
    """`set` in another thread looks at the number first: with the number it must find the mark."""
    seen = []
    real = module.mark

    def watched(fd):
        seen.append(wakeup.fd)
        return real(fd)

    monkeypatch.setattr(module, "mark", watched)
    wakeup.open()
    assert seen == [-1]
