"""When memory is given back: after many connections, seldom, on another thread. What it brings tests/siege says."""

from __future__ import annotations

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


def test_without_a_way_nothing_happens(loop, monkeypatch):
    """Another C library than glibc."""
    monkeypatch.setattr("logrelay.memory_return._trim_of_the_library", lambda: None)
    end(MemoryReturn(loop), 2 * TRIM_CONNECTIONS)
    assert loop.timers == []


def test_the_c_library_is_asked_where_it_can(loop):
    """On this system it does not raise."""
    memory = MemoryReturn(loop)
    end(memory, TRIM_CONNECTIONS)
    for timer in loop.timers:
        timer.call()
    for work in loop.on_threads:
        work()
