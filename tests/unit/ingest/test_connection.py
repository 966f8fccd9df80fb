"""One trader's connection: hello first, when acks are sent, and answers that do not fit."""

from __future__ import annotations

import os
import socket

import msgpack
import pytest

from logrelay.ingest.connection import (
    ACK_INTERVAL_S,
    ACK_RETRY_S,
    HELLO_TIMEOUT_S,
    LAZY_ACK_BYTES,
    LAZY_ACK_S,
    UnixConnection,
)
from logrelay.ingest.frames import Hello, Log, Unpackers, reject
from logrelay.ingest.trader import DEAD, RUNNING, UNKNOWN, End

HELLO = [0, {"protocol": 1, "run": b"r" * 16, "app": "bot", "host": "box", "pid": 1, "started_ns": 0}]


class Timer:
    """A timer of the fake loop."""

    def __init__(self, delay_s, call, args):
        self.delay_s, self.call, self.args = delay_s, call, args
        self.cancelled = False

    def cancel(self):
        self.cancelled = True

    def fire(self):
        assert not self.cancelled
        self.call(*self.args)


class Loop:
    def __init__(self):
        self.timers = []

    def call_later(self, delay_s, call, *args):
        self.timers.append(Timer(delay_s, call, args))
        return self.timers[-1]

    def waiting(self):
        return [timer for timer in self.timers if not timer.cancelled]


class Transport:
    """The relay's end of a socket pair, as a connection sees it."""

    def __init__(self, sock):
        self.sock = sock
        self.closing = self.aborted = False
        self.reading = True

    def get_extra_info(self, name):
        assert name == "socket"
        return self.sock

    def is_closing(self):
        return self.closing

    def is_reading(self):
        return self.reading

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = self.aborted = True


class Bench:
    """A connection with a fake loop; it is its own owner and intake, and writes down what it is told."""

    def __init__(self, *, refusal=None, acked=0):
        self.loop = Loop()
        self.unpackers = Unpackers()
        self.refusal = refusal
        self.acked = acked
        self.calls = []
        self.answers = []
        self.charges = []
        self.frame_counts = []
        self.trader, self.relay = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.trader.setblocking(False)
        self.relay.setblocking(False)
        self.transport = Transport(self.relay)
        self.connection = UnixConnection(self, self)
        self.connection.connection_made(self.transport)

    def read_buffer(self, connection):
        return memoryview(bytearray(1))

    def close(self):
        self.trader.close()
        self.relay.close()

    def receive(self, *values):
        self.connection.data_received(b"".join(map(msgpack.packb, values)))

    def sent(self):
        """Return the frames the trader has been sent since the last call."""
        try:
            data = self.trader.recv(1 << 20)
        except BlockingIOError:
            return []
        unpacker = msgpack.Unpacker()
        unpacker.feed(data)
        return list(unpacker)

    def fill(self):
        """Leave no room in the trader's socket."""
        try:
            while True:
                os.write(self.relay.fileno(), b"\xc0" * 4096)
        except BlockingIOError:
            pass

    # Owner

    def admit(self, _connection):
        return self.refusal

    def admit_hello(self, _connection):
        return None

    def charge(self, _connection, count, *, is_new):
        self.charges.append((count, is_new))

    def was_read(self, _connection, size, frames=0):
        self.frame_counts.append(frames)
        self.calls.append(("read", size))

    def was_refused(self, _connection, reason):
        self.calls.append(("turned away", reason))

    def was_lost(self, _connection):
        self.calls.append(("lost",))

    def was_greeted(self, _connection):
        pass

    # Intake

    def objection(self, hello):
        return None

    def hello(self, _connection, hello):
        self.calls.append(("hello", hello.app))
        return self.acked

    def frames(self, _connection, frames):
        taken = [frame for frame in frames if isinstance(frame, Log | Hello)]
        self.calls.append(("frames", [frame.seq if isinstance(frame, Log) else frame.failure for frame in taken]))
        return self.answers

    def refused(self, _connection, reason):
        self.calls.append(("refused", reason))


@pytest.fixture
def bench():
    """Return a function that makes a Bench; its sockets are closed at the end of the test."""
    made = []

    def make(**settings):
        made.append(Bench(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def log(seq):
    return [1, seq, seq, "info", {"event": f"line {seq}"}]


# --- hello --------------------------------------------------------------------------------------------------


def test_hello_is_welcomed_with_what_is_kept(bench):
    """The welcome names the last seq in the journal; frames behind hello go to the intake, then the read is told."""
    it = bench(acked=7)
    it.receive(HELLO, log(8), log(9))
    assert it.sent() == [[0, {"protocol": 1, "acked": 7}]]
    assert [call[0] for call in it.calls] == ["hello", "frames", "read"]
    assert it.calls[1] == ("frames", [8, 9])
    assert it.loop.waiting() == [], "the time for hello is over"


def test_a_second_hello_is_ignored(bench):
    """A connection is one run's; hello again changes nothing, and the lines around it count."""
    it = bench()
    it.receive(HELLO, log(1), HELLO, log(2))
    assert [call for call in it.calls if call[0] in ("hello", "frames")] == [("hello", "bot"), ("frames", [1, 2])]


def test_a_second_hello_that_tells_of_a_failure_is_taken_in_its_place(bench):
    """It stands right before the bye."""
    it = bench()
    it.receive(HELLO, log(1), [0, {**HELLO[1], "failed": "uncaught ValueError"}], log(2))
    assert ("frames", [1, "uncaught ValueError", 2]) in it.calls


def test_hello_of_another_run_ends_the_connection(bench):
    """Lines behind it would count as the first run's; those before it are taken."""
    it = bench()
    it.receive(HELLO, log(1), [0, {**HELLO[1], "run": b"x" * 16}], log(2))
    assert [call for call in it.calls if call[0] in ("hello", "frames")] == [("hello", "bot"), ("frames", [1])]
    assert it.sent()[-1][0] == 3
    assert it.transport.closing


def test_a_connection_that_is_not_admitted_is_refused(bench):
    """The owner's reason goes out, and the connection closes without having waited for hello."""
    it = bench(refusal="too many")
    assert it.sent() == [[3, "too many"]]
    assert it.transport.closing
    assert it.calls == [("turned away", "too many")]
    assert it.loop.timers == []


def test_no_hello_in_time_is_refused(bench):
    """Half a hello is none: the place among the traders is needed."""
    it = bench()
    it.connection.data_received(msgpack.packb(HELLO)[:20])
    (timer,) = it.loop.waiting()
    assert timer.delay_s == HELLO_TIMEOUT_S
    timer.fire()
    assert it.sent() == [[3, "no hello came"]]
    assert it.transport.closing
    assert it.calls == [("turned away", "no hello came")]


def test_lines_before_garbage_count(bench):
    """What was understood is taken; the rest is refused, and nothing is read after it."""
    it = bench()
    it.receive(HELLO, log(1), [9], log(2))
    assert [call[0] for call in it.calls] == ["hello", "frames", "refused", "read"]
    assert it.calls[1] == ("frames", [1])
    assert [frame[0] for frame in it.sent()] == [0, 3]
    assert it.transport.closing
    before = list(it.calls)
    it.receive(log(3))
    assert it.calls == before


def test_the_intake_s_answers_are_sent(bench):
    """Rejects go out in order."""
    it = bench()
    it.answers = [reject(1, "a"), reject(2, "b")]
    it.receive(HELLO, log(1))
    assert it.sent()[1:] == [[2, 1, "a"], [2, 2, "b"]]


# --- acks ---------------------------------------------------------------------------------------------------


def test_who_sends_much_is_acked_sooner(bench):
    """A timer set for hardly anything is replaced once; the ack after one for much is still soon, the next is not."""
    it = bench()
    it.receive(HELLO)
    it.connection.ack(1, now=False)
    text = "x" * (LAZY_ACK_BYTES // 2)
    for seq in (2, 3):
        it.receive([1, seq, 5, "info", {"event": text}])
        it.connection.ack(seq, now=False)
        it.connection.ack(seq, now=False)
    assert [(timer.delay_s, timer.cancelled) for timer in it.loop.timers[1:]] == [
        (LAZY_ACK_S, True),
        (ACK_INTERVAL_S, False),
    ]
    for delay_s in (ACK_INTERVAL_S, ACK_INTERVAL_S, LAZY_ACK_S):
        timer = it.loop.timers[-1]
        assert timer.delay_s == delay_s
        timer.cancelled = False
        timer.fire()
        seq += 1
        it.connection.ack(seq, now=False)
    assert it.sent()[-1] == [1, seq - 1]


def test_acks_are_gathered_for_a_moment(bench):
    """Three commits in a row are one ack, of the last seq, when the interval is over."""
    it = bench()
    it.receive(HELLO)
    it.sent()
    for seq in (1, 2, 3):
        it.connection.ack(seq, now=False)
    (timer,) = it.loop.waiting()
    assert timer.delay_s == LAZY_ACK_S
    assert it.sent() == []
    timer.fire()
    assert it.sent() == [[1, 3]]
    it.connection.ack(3, now=False)
    it.connection.ack(2, now=True)
    assert it.sent() == []
    assert it.loop.waiting() == [], "what is acked needs no timer"


def test_an_ack_now_is_sent_now(bench):
    """After bye nothing else will come: the ack does not wait, and takes along what was gathered."""
    it = bench()
    it.receive(HELLO)
    it.sent()
    it.connection.ack(1, now=False)
    it.connection.ack(2, now=True)
    assert it.sent() == [[1, 2]]
    assert it.loop.waiting() == []


def test_an_ack_that_does_not_fit_is_sent_again(bench):
    """An ack the socket had no room for has not been sent: it is tried until there is room."""
    it = bench()
    it.receive(HELLO)
    it.fill()
    it.connection.ack(5, now=True)
    (timer,) = it.loop.waiting()
    assert timer.delay_s == ACK_RETRY_S
    timer.fire()
    (timer,) = it.loop.waiting()
    assert timer.delay_s == ACK_RETRY_S
    while it.sent():
        pass
    timer.fire()
    assert it.sent() == [[1, 5]]
    assert it.loop.waiting() == []


def test_writing_to_a_dead_trader_does_not_close_the_reading_side(bench):
    """What it sent before it died is still to be read."""
    it = bench()
    it.receive(HELLO)
    it.trader.close()
    it.connection.ack(1, now=True)
    assert not it.transport.closing
    it.receive(log(1))
    assert it.calls[-2] == ("frames", [1])


def test_close_sends_the_ack_that_is_due(bench):
    """A relay that stops does not leave the traders to send again what it has kept."""
    it = bench()
    it.receive(HELLO)
    it.sent()
    it.connection.ack(4, now=False)
    it.connection.close()
    assert it.sent() == [[1, 4]]
    assert it.transport.closing
    assert it.loop.waiting() == []


def test_abort_closes_without_a_word(bench):
    """A connection that was replaced is cut."""
    it = bench()
    it.receive(HELLO)
    it.sent()
    it.connection.ack(4, now=False)
    it.connection.abort()
    assert it.transport.aborted
    it.loop.waiting()[0].fire()
    assert it.sent() == []


def test_the_end_stops_the_timers_and_is_told_once(bench):
    """After the end nothing is sent and nothing rings, whatever the intake still asks for."""
    it = bench()
    it.receive(HELLO)
    it.sent()
    it.connection.ack(1, now=False)
    it.connection.connection_lost(None)
    assert it.loop.waiting() == []
    assert it.calls[-1] == ("lost",)
    it.connection.ack(2, now=True)
    it.connection.abort()
    it.connection.close()
    it.connection.pause_reading()
    it.connection.resume_reading()
    assert it.sent() == []
    assert it.calls.count(("lost",)) == 1


def test_reading_is_paused_and_resumed_once(bench):
    """A transport is only asked for what it does not do already: uvloop's raises otherwise."""
    it = bench()
    it.connection.pause_reading()
    assert not it.transport.reading
    it.transport.pause_reading = None
    it.connection.pause_reading()
    it.connection.resume_reading()
    assert it.transport.reading
    it.transport.resume_reading = None
    it.connection.resume_reading()


# --- pings ------------------------------------------------------------------------------------------------------------

PINGED = [0, HELLO[1] | {"ping": True}]


def test_pings_are_agreed_on_in_hello_and_welcome(bench):
    """Who does not know them is told nothing of them, and never gets one."""
    bench = bench()
    bench.receive(HELLO)
    assert bench.sent() == [[0, {"protocol": 1, "acked": 0}]]
    assert bench.connection.knows_pings is False
    for _ in range(100):
        bench.connection.pass_tick()
    assert (bench.sent(), bench.transport.aborted) == ([], False)


def test_a_trader_that_is_silent_is_pinged_and_given_up(bench):
    bench = bench()
    bench.receive(PINGED)
    assert bench.sent() == [[0, {"protocol": 1, "acked": 0, "ping_s": 5.0, "dead_s": 12.0}]]
    assert bench.connection.knows_pings is True
    for n in range(1, 13):
        bench.connection.pass_tick()
        assert bench.sent() == ([[4]] if n in (6, 11) else []), n
    assert not bench.transport.aborted
    bench.connection.pass_tick()
    assert bench.transport.aborted
    assert bench.connection.end(can_watch=True) == End(UNKNOWN, 12.0)
    bench.connection.pass_tick()


def test_anything_that_is_read_keeps_a_trader(bench):
    """A pong, or the half of a line."""
    bench = bench()
    bench.receive(PINGED)
    bench.sent()
    for data in (b"\x91\x05", b"\x95\x01") * 20:
        for _ in range(10):
            bench.connection.pass_tick()
        bench.connection.data_received(data)
    assert not bench.transport.aborted
    assert bench.connection.end(can_watch=True) == End(UNKNOWN)


def test_a_trader_that_is_not_read_is_kept(bench):
    bench = bench()
    bench.receive(PINGED)
    bench.connection.pause_reading()
    for _ in range(100):
        bench.connection.pass_tick()
    assert not bench.transport.aborted
    assert [4] in bench.sent()


def test_a_ping_is_answered_however_many_came(bench):
    """And is nobody else's business."""
    bench = bench()
    bench.receive(PINGED)
    bench.sent()
    bench.receive([4], [4], [1, 1, 0, "info", {}], [5], [4])
    assert bench.sent() == [[5]]
    assert bench.calls[-2][1:] == ([1],)
    bench.receive([5])
    assert bench.sent() == []


def test_a_ping_before_hello_is_no_hello(bench):
    """Nothing is answered before the welcome."""
    bench = bench()
    bench.receive([4])
    assert (bench.sent(), bench.connection.greeted) == ([], False)


class Process:
    def __init__(self, *, running):
        self.pid, self.running, self.closed = 44, running, False

    def is_running(self):
        return self.running

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ("running", "can_watch", "known"),
    [(True, True, RUNNING), (False, True, DEAD), (True, False, UNKNOWN), (False, False, DEAD)],
)
def test_the_end_says_what_is_known_of_the_process(bench, running, can_watch, known):
    """Its descriptor is closed with the connection, unless somebody has taken it."""
    bench = bench()
    process = Process(running=running)
    asked = []
    connection = UnixConnection(bench, bench, find_process=lambda *args: asked.append(args) or process)
    connection.connection_made(bench.transport)
    connection.data_received(msgpack.packb(HELLO))
    assert asked == [(bench.relay, 1, 0)]
    assert connection.end(can_watch=can_watch) == End(known)
    connection.connection_lost(None)
    assert process.closed
    assert connection.take_process() is None


def test_of_a_dead_run_no_process_is_looked_for(bench):
    """It is another one that sends its lines."""
    bench = bench()
    connection = UnixConnection(bench, bench, find_process=lambda *_: pytest.fail("looked for"))
    connection.connection_made(bench.transport)
    connection.data_received(msgpack.packb([0, HELLO[1] | {"dead": True}]))
    assert connection.greeted


def test_what_is_held_for_half_a_frame_is_told_when_it_changes(bench):
    """And whether it is another frame than before."""
    one = bench()
    one.receive(HELLO)
    line = msgpack.packb(log(1))
    assert one.charges == []
    one.connection.data_received(line)
    assert one.charges == []
    one.connection.data_received(line + line[:5])
    assert one.charges == [(5, True)]
    one.connection.data_received(line[5:6])
    (_, grown) = one.charges
    assert (grown[0] > 6, grown[1]) == (True, False)
    one.connection.data_received(line[6:] + line[:5])
    assert one.charges[2:] == [(5, True)]
    one.connection.data_received(line[5:])
    assert one.charges[3:] == [(0, True)]


def test_pings_are_counted_as_work_before_hello_and_behind_it(bench):
    """Whoever sends nothing else is read after the others like any other flood."""
    one = bench()
    one.connection.data_received(b"\x91\x04" * 50)
    assert one.frame_counts == [50]
    one.receive(HELLO, [4], log(1), [5])
    assert one.frame_counts == [50, 4]
    one.receive([4], [4])
    assert one.frame_counts == [50, 4, 2]
    two = bench()
    two.connection.data_received(msgpack.packb(HELLO)[:20])
    assert two.frame_counts == [], "half a hello is no frame"
