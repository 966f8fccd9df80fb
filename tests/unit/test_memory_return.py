"""When memory is given back: after many connections, seldom, on another thread. What it brings tests/siege says."""

from __future__ import annotations

import ctypes
import platform

import pytest

from logrelay.budgets import TRIM_CONNECTIONS, TRIM_PAUSE_S
from logrelay.memory_return import MemoryReturn


class Timer:
    def __init__(self, call):
        self.call, self.cancelled = call, False

    def cancel(self):
        self.cancelled = True


class Loop:
    """Keeps timers and work for threads until a test wants them."""

    def __init__(self):
        self.timers, self.on_threads = [], []

    def call_later(self, delay_s, call):
        assert delay_s == TRIM_PAUSE_S
        self.timers.append(Timer(call))
        return self.timers[-1]

    def run_in_executor(self, executor, call):
        assert executor is None
        self.on_threads.append(call)


def end(memory, count):
    for _ in range(count):
        memory.connection_ended()


@pytest.fixture
def loop():
    return Loop()


def test_it_is_given_back_some_time_after_many_have_ended(loop):
    """Once for a crowd, however large; then the counting begins anew."""
    given = []
    memory = MemoryReturn(loop, lambda: given.append(1))
    end(memory, TRIM_CONNECTIONS - 1)
    assert loop.timers == []
    end(memory, 1 + 3 * TRIM_CONNECTIONS)
    (timer,) = loop.timers
    timer.call()
    (work,) = loop.on_threads
    assert given == [], "not on the loop's own thread"
    work()
    assert given == [1]
    end(memory, TRIM_CONNECTIONS - 1)
    assert len(loop.timers) == 1
    end(memory, 1)
    assert len(loop.timers) == 2


def test_at_the_end_nothing_is_given_back_any_more(loop):
    """Closing twice does no harm."""
    memory = MemoryReturn(loop, lambda: None)
    end(memory, TRIM_CONNECTIONS)
    memory.close()
    memory.close()
    assert [timer.cancelled for timer in loop.timers] == [True]


class Library:
    """The C library, as far as it is asked."""

    def __init__(self):
        self.kept_bytes = []

    def malloc_trim(self, kept):
        self.kept_bytes.append(kept)
        return 1


def test_the_c_library_is_asked_where_it_can(loop, monkeypatch):
    """For all that it can give: nothing is to be kept at the top."""
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library if name is None else None)
    memory = MemoryReturn(loop)
    end(memory, TRIM_CONNECTIONS)
    loop.timers[0].call()
    assert loop.on_threads[0]() == 1
    assert library.kept_bytes == [0]


@pytest.mark.parametrize("wrong", ["no library", "no function"])
def test_another_c_library_is_left_alone(loop, monkeypatch, wrong):
    """It cannot be loaded by that name, or has no such function."""

    def load(_name):
        if wrong == "no library":
            raise OSError("not found")
        return object()

    monkeypatch.setattr(ctypes, "CDLL", load)
    end(MemoryReturn(loop), 2 * TRIM_CONNECTIONS)
    assert loop.timers == []


def test_a_way_that_is_given_is_taken(loop):
    """And not the library's."""
    memory = MemoryReturn(loop, lambda: "given")
    end(memory, TRIM_CONNECTIONS)
    loop.timers[0].call()
    assert loop.on_threads[0]() == "given"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the function")
def test_with_glibc_there_is_a_way(loop):
    """On this very system."""
    memory = MemoryReturn(loop)
    end(memory, TRIM_CONNECTIONS)
    loop.timers[0].call()
    assert loop.on_threads[0]() in (0, 1)
