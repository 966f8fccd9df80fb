"""The traders' sockets behind one descriptor: with both loops, and with the kernel's count of who was woken."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import uvloop

from logrelay.ingest.socket_poll import SocketPoll
from tests.support.waiting import DEADLINE_S, LOOK_S, wait_for

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
SENDS = 200


class Running:
    """A loop on a thread of its own, and a poll on it that reads one socket."""

    def __init__(self, loop):
        self.loop = loop
        self.wakes = 0
        self.received = b""
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.poll = SocketPoll(self._on_readable, loop)
        self.poll.add(self.near.fileno(), self._read)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _on_readable(self):
        self.wakes += 1
        self.poll.read()

    def _read(self):
        with contextlib.suppress(BlockingIOError):
            self.received += self.near.recv(1 << 16)

    def call(self, function):
        """Call a function on the loop, and return what it returns."""
        answer = []
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (answer.append(function()), done.set()))
        assert done.wait(DEADLINE_S)
        return answer[0]

    def switches(self):
        """Return how often the loop's thread has gone to sleep, once it sleeps, and not only for the interpreter."""

        def count():
            status = Path(f"/proc/self/task/{self.thread.native_id}/status").read_text()
            return re.search(r"^State:\tS", status, re.MULTILINE) and int(
                re.search(r"^voluntary_ctxt_switches:\t(\d+)", status, re.MULTILINE)[1]
            )

        def asleep():
            before = count()
            time.sleep(LOOK_S)  # it gets the interpreter now if it waits for that, and has one more of them then
            return before if before == count() else None

        return wait_for(asleep, "the loop sleeps")

    def close(self):
        self.call(lambda: (self.poll.remove(self.near.fileno()), self.poll.close()))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE_S)
        self.loop.close()
        self.near.close()
        self.far.close()


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def running(request):
    made = Running(request.param())
    yield made
    made.close()


def test_what_comes_is_read_while_the_loop_watches(running):
    running.call(running.poll.watch)
    running.far.sendall(b"one")
    wait_for(lambda: running.received == b"one", "it is read")
    assert running.wakes == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the count is the Linux kernel's")
def test_a_send_to_a_relay_that_rests_wakes_nobody(running):
    """As the kernel counts it: the loop's thread sleeps through all of them. Then one read has them all."""
    running.call(running.poll.watch)
    running.far.sendall(b"first")
    wait_for(lambda: running.received == b"first", "it is read")
    running.call(running.poll.rest)
    before = running.switches()
    for _ in range(SENDS):
        running.far.sendall(b"x")
    assert running.switches() == before
    assert running.wakes == 1
    running.call(running.poll.read)
    assert running.received == b"first" + b"x" * SENDS
    running.call(running.poll.watch)
    running.far.sendall(b"again")
    wait_for(lambda: running.received.endswith(b"again"), "it is read")


def test_what_came_in_the_rest_is_found_by_watching(running):
    running.far.sendall(b"early")
    running.call(running.poll.watch)
    running.call(running.poll.watch)
    wait_for(lambda: running.received == b"early", "it is read")


def test_a_socket_that_was_removed_is_left_alone(running):
    """Also its end; when it is added again, everything is there."""
    running.call(running.poll.watch)
    running.call(lambda: running.poll.remove(running.near.fileno()))
    running.far.sendall(b"kept")
    running.far.shutdown(socket.SHUT_WR)
    running.call(running.poll.read)
    assert running.received == b""
    running.call(lambda: running.poll.add(running.near.fileno(), running._read))
    wait_for(lambda: running.received == b"kept", "it is read")


def test_of_several_only_those_that_have_something_are_read(running):
    """And none that one before it has taken out in the same pass."""
    calls = []
    pairs = [socket.socketpair() for _ in range(3)]

    def read(index):
        calls.append(index)
        pairs[index][0].recv(100)
        for other in {0: (1,), 1: (0,)}.get(index, ()):
            running.poll.remove(pairs[other][0].fileno())

    def scenario():
        for index, (near, _) in enumerate(pairs):
            running.poll.add(near.fileno(), lambda index=index: read(index))
        pairs[0][1].sendall(b"x")
        pairs[1][1].sendall(b"x")
        running.poll.read()
        kept = calls[0]
        running.poll.remove(pairs[kept][0].fileno())
        running.poll.remove(pairs[2][0].fileno())

    running.call(scenario)
    assert calls in ([0], [1])
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_what_a_pass_leaves_is_read_first_in_the_next(running):
    """Each has its turn, however much the others send; at least one is read in each pass."""
    calls = []
    pairs = [socket.socketpair() for _ in range(7)]

    def scenario():
        for index, (near, far) in enumerate(pairs):
            running.poll.add(near.fileno(), lambda index=index: calls.append(index))  # and so it stays readable
            far.sendall(b"x")
        passes = []
        for _ in range(7):
            calls.clear()
            running.poll.read(lambda: len(calls) < 3)
            passes.append(list(calls))
        calls.clear()
        running.poll.read(lambda: False)
        assert len(calls) == 1
        for near, _ in pairs[1:]:  # some of which are left for the next pass
            running.poll.remove(near.fileno())
        running.poll.remove(running.near.fileno())
        calls.clear()
        running.poll.read()
        running.poll.remove(pairs[0][0].fileno())
        return passes, list(calls)

    passes, alone = running.call(scenario)
    running.call(lambda: running.poll.add(running.near.fileno(), running._read))
    assert [len(one) for one in passes] == [3] * 7
    assert all({*range(7)} == {*passes[n], *passes[n + 1], *passes[n + 2]} for n in range(5))
    assert alone == [0]
    for pair in pairs:
        for sock in pair:
            sock.close()
