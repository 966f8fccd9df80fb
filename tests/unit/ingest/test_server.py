"""The traders' server: how many are admitted, and the rhythm in which they are read; the loop and its clock are fake.

Real sockets, the stop and the last words of killed traders are in tests/integration/relay/test_trader_socket.py.
"""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from logrelay.budgets import TRIM_CONNECTIONS, TRIM_PAUSE_S
from logrelay.ingest.connection import HELLO_TIMEOUT_S
from logrelay.ingest.half_frames import HALF_FRAMES_BYTES
from logrelay.ingest.keepalive import TICK_S
from logrelay.ingest.peer_access import PeerAccess
from logrelay.ingest.peer_process import MAX_WATCHED
from logrelay.ingest.read_coalescing import FULL_BYTES, LONE_S, REST_S
from logrelay.ingest.read_shares import BURST_LINES, FLOOD_LINES_PER_S, OTHERS_S, TELL_AFTER_S
from logrelay.ingest.server import (
    ACCEPT_RETRY_S,
    ACCEPTED_AT_ONCE,
    FLOOD_READ_BYTES,
    HELLO_READ_BYTES,
    MAX_UNGREETED_PER_USER,
    PASS_BYTES,
    PASS_FRAMES,
    READ_BYTES,
    REFUSED_AT_ONCE,
    REFUSED_PER_S,
    TraderServer,
)
from logrelay.ingest.trader import RUNNING, UNKNOWN, End
from logrelay.progress import Work


class Handle:
    def __init__(self, call):
        self.call = call
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class Loop:
    """Calls nothing by itself: a test turns it."""

    def __init__(self):
        self.soon = []
        self.later = []
        self.now = 50.0
        self.readers = {}
        self.problems = []

    def time(self):
        return self.now

    def add_reader(self, fd, call, *args):
        self.readers[fd] = lambda: call(*args)

    def remove_reader(self, fd):
        return self.readers.pop(fd, None) is not None

    def call_soon(self, call, *args):
        self.soon.append(Handle(lambda: call(*args)))
        return self.soon[-1]

    def call_later(self, delay_s, call, *args):
        handle = Handle(lambda: call(*args))
        self.later.append((delay_s, handle))
        return handle

    def call_exception_handler(self, context):
        self.problems.append(context)

    def run_in_executor(self, _executor, _call):
        """Nothing is to be had from a thread here."""

    def turn(self):
        """Make the calls that are due now; return how many there were."""
        due, self.soon = self.soon, []
        for handle in due:
            if not handle.cancelled:
                handle.call()
        return len(due)

    def pass_time(self):
        """Let every timer ring; return their delays."""
        due, self.later = self.later, []
        for _, handle in due:
            if not handle.cancelled:
                handle.call()
        return [delay_s for delay_s, handle in due if not handle.cancelled]


class Connection:
    """What the server knows of a connection."""

    def __init__(self, *, greeted=True, run=b"", knows_pings=False, process=None):
        self.greeted = greeted
        self.run = run
        self.knows_pings = knows_pings
        self.process = process
        self.ticks = 0
        self.reading = True
        self.closed = False
        self.uid = 7
        self.refusal = None

    def turn_away(self, reason):
        self.refusal = reason

    def pass_tick(self):
        self.ticks += 1

    def end(self, *, can_watch):
        return End(UNKNOWN if self.process is None or not can_watch else RUNNING)

    def take_process(self):
        process, self.process = self.process, None
        return process

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def close(self):
        self.closed = True


class Intake:
    def __init__(self):
        self.viewers = 0
        self.calls = []
        self.ends = []
        """How connections have ended."""
        self.watches = False
        """Whether the end of a process matters."""

    def tick(self):
        self.calls.append("tick")
        return self.viewers

    def refused(self, connection, reason):
        self.calls.append(("refused", connection, reason))

    def flooding(self, connection, lines, seconds):
        self.calls.append(("flooding", connection, lines, seconds))

    def ended(self, connection, end):
        self.ends.append(end)
        self.calls.append(("ended", connection))
        return self.watches

    def process_died(self, run):
        self.calls.append(("died", run))


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def intake():
    return Intake()


class Poll:
    """Stands in for the sockets: what `ready` holds is called for a read."""

    def __init__(self, on_readable, _loop):
        self.on_readable = on_readable
        self.watching = True
        self.ready = []

    def add(self, descriptor, read):
        """Nothing comes by itself."""

    def remove(self, descriptor):
        """Nothing comes by itself."""

    something = False

    def has_something(self):
        return self.something

    def read(self, goes_on):
        for number, call in enumerate(self.ready):
            if number and not goes_on():
                break
            call()

    def watch(self):
        self.watching = True

    def rest(self):
        self.watching = False

    def close(self):
        self.watching = False


@pytest.fixture
def polls():
    return []


@pytest.fixture
def server(loop, intake, polls):
    def make(*args):
        polls.append(Poll(*args))
        return polls[-1]

    return TraderServer(intake, max_connections=3, loop=loop, make_poll=make)


@pytest.fixture
def poll(server, polls):
    return polls[0]


def begin_rest(server, loop, connection):
    """Have two lines come close behind one another."""
    for _ in range(2):
        server.was_read(connection, 10, 1)
        loop.turn()


def admitted(server, count):
    connections = [Connection() for _ in range(count)]
    for connection in connections:
        assert server.admit(connection) is None
        server.was_greeted(connection)
    return connections


def test_at_most_so_many_are_admitted(server):
    """The one too many is refused with the number; when another has left there is room again."""
    first, *_ = admitted(server, 3)
    assert server.connection_count == 3
    late = Connection(greeted=False)
    assert server.admit(late) == "3 traders are connected; at most 3 are allowed"
    server.was_lost(late)
    assert server.connection_count == 3
    server.was_lost(first)
    assert server.admit(late) is None


def test_another_number_counts_from_now_on(server):
    """Who is connected stays."""
    admitted(server, 2)
    server.limit_connections(1)
    assert server.connection_count == 2
    assert server.admit(Connection(greeted=False)) == "2 traders are connected; at most 1 are allowed"
    server.limit_connections(3)
    assert server.admit(Connection(greeted=False)) is None


def test_the_watchdog_is_told_whether_there_is_something_to_read(server, poll):
    """Not while nothing is to be read; and how much has been read in all."""
    (connection,) = admitted(server, 1)
    poll.something = False
    assert server.work() == Work(False, 0)
    poll.something = True
    server.was_read(connection, 70)
    server.was_read(connection, 30)
    assert server.work() == Work(True, 100)
    server.pause_reading()
    assert server.work() == Work(False, 100)
    server.resume_reading()
    assert server.work() == Work(True, 100)
    asyncio.run(server.close())
    assert server.work() == Work(False, 100)
    assert poll.watching is False


def test_only_who_said_hello_ends(server, loop, intake):
    """The intake hears of the end of what it knows, once, and a tick follows."""
    known, silent = admitted(server, 2)
    silent.greeted = False
    server.was_lost(silent)
    server.was_lost(known)
    server.was_lost(known)
    loop.turn()
    assert intake.calls == [("ended", known), "tick"]


def test_many_reads_are_one_tick(server, loop, intake, poll):
    """Everything that was readable at a time is committed together; lines that come alone are followed by no rest."""
    connections = admitted(server, 3)
    for connection in connections:
        server.was_read(connection, 100)
    assert intake.calls == []
    assert loop.turn() == 1
    assert intake.calls == ["tick"]
    assert (poll.watching, loop.later) == (True, [])
    loop.now += 2 * LONE_S
    server.was_read(connections[0], 100)
    loop.turn()
    assert (poll.watching, loop.later) == (True, [])


def test_a_line_close_behind_another_is_followed_by_a_rest(server, loop, intake, poll):
    """Nobody looks at the sockets meanwhile; at its end what has come is read, and while something has, it goes on."""
    (trader,) = admitted(server, 1)
    begin_rest(server, loop, trader)
    assert not poll.watching
    poll.ready = [lambda: server.was_read(trader, 500)]
    loop.now += REST_S
    assert loop.pass_time() == [REST_S]
    assert intake.calls == ["tick"] * 3, "a pass ticks by itself, in the same turn"
    assert (poll.watching, loop.soon) == (False, [])
    poll.ready = []
    loop.now += REST_S
    assert loop.pass_time() == [REST_S]
    assert intake.calls == ["tick"] * 3
    assert poll.watching


def test_what_the_loop_finds_is_read_and_ticked_at_once(server, loop, intake, poll):
    """One tick for all sockets that had something, and none when there was nothing."""
    one, two = admitted(server, 2)
    poll.on_readable()
    assert intake.calls == []
    poll.ready = [lambda: server.was_read(one, 10), lambda: server.was_read(two, 10)]
    poll.on_readable()
    assert (intake.calls, loop.soon) == (["tick"], [])


def test_a_tick_that_was_asked_for_is_not_made_twice(server, loop, poll):
    """Where a pass comes before it."""
    (one,) = admitted(server, 1)
    poll.ready = [lambda: server.was_read(one, 10), server.schedule_tick]
    poll.on_readable()
    server.schedule_tick()
    assert loop.turn() == 2, "the first was cancelled, the second asked for after the pass"


def test_after_much_there_is_no_rest(server, loop, poll):
    """A large batch was worth its costs; the bytes of one tick do not count for the next."""
    connection, other, _ = admitted(server, 3)
    begin_rest(server, loop, connection)
    loop.pass_time()
    server.was_read(connection, FULL_BYTES // 2)
    server.was_read(other, FULL_BYTES // 2)
    loop.turn()
    assert (poll.watching, loop.later) == (True, [])
    server.was_read(connection, 1)
    loop.turn()
    assert (poll.watching, len(loop.later)) == (False, 1)


def test_a_read_during_the_rest_does_not_prolong_it(server, loop, poll):
    """One timer runs for all."""
    one, two = admitted(server, 2)
    begin_rest(server, loop, one)
    server.was_read(two, 10)
    loop.turn()
    assert len(loop.pass_time()) == 1
    assert poll.watching


def test_paused_reading_stays_paused(server, loop):
    """Without room nothing is read, neither at the end of a rest nor after a tick, until there is room again."""
    one, two = admitted(server, 2)
    begin_rest(server, loop, one)
    server.pause_reading()
    loop.pass_time()
    assert not one.reading
    assert not two.reading
    server.schedule_tick()
    loop.turn()
    assert not one.reading
    server.resume_reading()
    assert one.reading
    assert two.reading


def test_resuming_waits_for_the_rest_that_runs(server, loop, poll):
    """Backpressure that comes and goes within a rest does not end it early."""
    (one,) = admitted(server, 1)
    begin_rest(server, loop, one)
    server.pause_reading()
    server.resume_reading()
    assert not poll.watching
    loop.pass_time()
    assert poll.watching


def test_the_end_of_the_rest_watches_whatever_happens(server, loop, poll):
    """An error in what was read costs no other trader its lines."""
    (one,) = admitted(server, 1)
    begin_rest(server, loop, one)
    poll.ready = [lambda: 1 // 0]
    with pytest.raises(ZeroDivisionError):
        loop.pass_time()
    assert poll.watching


def test_a_tick_can_be_had_without_a_read(server, loop, intake):
    """Asked for several times before the loop turns, there is one."""
    server.schedule_tick()
    server.schedule_tick()
    assert loop.turn() == 1
    server.schedule_tick()
    assert loop.turn() == 1
    assert intake.calls == ["tick", "tick"]


def test_refusals_are_told_until_the_stop(server, loop, intake):
    """A connection that comes while the relay stops is nobody's news."""
    connection = Connection()
    server.was_refused(connection, "no hello came")
    loop.turn()
    assert intake.calls == [("refused", connection, "no hello came"), "tick"]


def test_close_closes_everybody_and_admits_nobody(server, loop, intake):
    """At the end every connection is closed, and whoever comes is refused without a notice."""
    connections = admitted(server, 2)
    asyncio.run(server.close())
    assert all(connection.closed for connection in connections)
    late = Connection(greeted=False)
    assert server.admit(late) is not None
    server.was_refused(late, "stopping")
    loop.turn()
    assert intake.calls == []


def test_the_end_leaves_no_timer_and_no_descriptor(server, loop, intake, poll):
    """Whatever was waited for: the end of a rest, of a flood or of a process, and the next ping."""
    intake.watches = True
    process = Process(7)
    lost = Connection(run=b"a", process=process)
    server.admit(lost)
    server.was_greeted(lost)
    server.was_lost(lost)
    pinged = Connection(knows_pings=True)
    server.admit(pinged)
    server.was_greeted(pinged)
    greedy, other = admitted(server, 2)
    for _ in range(2):
        flood(server, loop, greedy, other, BURST_LINES)
    loop.now += 10.0
    begin_rest(server, loop, other)
    assert len([handle for _, handle in loop.later if not handle.cancelled]) == 3
    asyncio.run(server.drain())
    assert loop.pass_time() == []
    assert (pinged.ticks, greedy.reading, other.reading) == (0, True, True)
    assert (loop.readers, process.closed) == ({}, True)
    late = Connection(knows_pings=True)
    server.was_greeted(late)
    assert loop.later == []


def test_one_timer_for_all_who_know_pings(server, loop):
    """It runs while there is one of them, and every one counts each interval."""
    old, new, other = (Connection(knows_pings=knows) for knows in (False, True, True))
    for connection in (old, new, other):
        server.admit(connection)
        server.was_greeted(connection)
    assert [delay_s for delay_s, _ in loop.later] == [TICK_S]
    for _ in range(2):
        loop.now += TICK_S
        assert loop.pass_time() == [TICK_S]
    assert [connection.ticks for connection in (old, new, other)] == [0, 2, 2]
    server.was_lost(new)
    loop.now += TICK_S
    loop.pass_time()
    server.was_lost(other)
    loop.pass_time()
    assert [connection.ticks for connection in (old, new, other)] == [0, 2, 3]
    assert loop.later == [], "nobody is left to be pinged"


def test_a_relay_that_did_not_run_counts_no_silence(server, loop):
    """After 20 s on hold it has heard nobody, which is nobody's fault; then it counts on."""
    trader = Connection(knows_pings=True)
    server.admit(trader)
    server.was_greeted(trader)
    loop.now += 20.0
    loop.pass_time()
    assert trader.ticks == 0
    loop.now += TICK_S
    loop.pass_time()
    assert trader.ticks == 1


class Process:
    def __init__(self, fd):
        self.fd = fd
        self.closed = False

    def fileno(self):
        return self.fd

    def close(self):
        self.closed = True


def test_the_end_of_a_process_that_lost_its_connection_is_reported(server, loop, intake):
    """Once, and only if nothing has come of its run since; its descriptor is closed either way."""
    intake.watches = True
    processes = [Process(7), Process(8)]
    for process, run in zip(processes, (b"a", b"b"), strict=True):
        connection = Connection(run=run, process=process)
        server.admit(connection)
        server.was_greeted(connection)
        server.was_lost(connection)
    back = Connection(run=b"b")
    server.admit(back)
    server.was_greeted(back)
    assert (list(loop.readers), processes[1].closed) == ([7], True), "it is back: there is nothing to report"
    loop.readers[7]()
    assert intake.calls[-1] == ("died", b"a")
    assert (loop.readers, processes[0].closed) == ({}, True)


def test_so_many_processes_are_watched_at_most(server, loop, intake):
    """Of one more it is not known whether it runs."""
    intake.watches = True
    for number in range(MAX_WATCHED + 1):
        connection = Connection(run=b"%d" % number, process=Process(100 + number))
        server.admit(connection)
        server.was_greeted(connection)
        server.was_lost(connection)
    assert [end.process for end in intake.ends] == [RUNNING] * MAX_WATCHED + [UNKNOWN]


def test_the_process_of_a_run_that_is_over_is_watched_no_more(server, loop, intake):
    """Its place among those that are watched is another's."""
    intake.watches = True
    process = Process(7)
    connection = Connection(run=b"a", process=process)
    server.admit(connection)
    server.was_greeted(connection)
    server.was_lost(connection)
    server.forget_process(b"a")
    server.forget_process(b"b")
    assert (loop.readers, process.closed) == ({}, True)


class Crowd:
    """A listening socket with many in its queue."""

    def __init__(self, count):
        self.waiting = [socket.socketpair(socket.AF_UNIX) for _ in range(count)]
        self.everybody = list(self.waiting)
        self.accepted = []

    def fileno(self):
        return 3

    def setblocking(self, _blocking):
        """It never blocks."""

    def listen(self, _backlog):
        """It does."""

    def accept(self):
        if not self.waiting:
            raise BlockingIOError
        self.accepted.append(self.waiting.pop(0))
        return self.accepted[-1][0], b""

    def close(self):
        for pair in self.everybody:
            for end in pair:
                end.close()


@pytest.fixture
def crowd(server):
    made = Crowd(3 * ACCEPTED_AT_ONCE - 1)
    asyncio.run(server.serve(made))
    yield made
    made.close()


def test_a_crowd_is_accepted_some_at_a_time(server, loop, crowd):
    """Those who wait stay in the kernel, in their order; whoever is connected is read in between."""
    counts = []
    while 3 in loop.readers:
        loop.readers[3]()
        counts.append(len(crowd.accepted))
        if len(counts) < 4:
            loop.turn()
        else:
            break
    assert counts == [ACCEPTED_AT_ONCE, 2 * ACCEPTED_AT_ONCE, len(crowd.everybody), len(crowd.everybody)]
    assert crowd.accepted == crowd.everybody


def test_in_a_rest_no_more_are_accepted_than_are_read_behind_it(server, loop, poll, crowd):
    """The loop turns many times in a rest: the work of all that came would be done in one go."""
    (one,) = admitted(server, 1)
    begin_rest(server, loop, one)
    loop.readers[3]()
    assert len(crowd.accepted) == ACCEPTED_AT_ONCE
    for _ in range(5):
        loop.turn()
        assert 3 not in loop.readers
    loop.pass_time()
    assert 3 in loop.readers
    assert len(crowd.accepted) == ACCEPTED_AT_ONCE


def test_nobody_is_accepted_while_there_is_no_room(server, loop, poll, crowd):
    """Else newcomers would be read, and those that are connected wait for them."""
    (one,) = admitted(server, 1)
    loop.readers[3]()
    server.pause_reading()
    loop.turn()
    loop.readers[3]()
    poll.ready = [lambda: server.was_read(one, 10, 1)]
    poll.on_readable()
    for _ in range(3):
        loop.turn()
    assert 3 not in loop.readers
    assert len(crowd.accepted) == ACCEPTED_AT_ONCE
    server.resume_reading()
    loop.readers[3]()
    assert len(crowd.accepted) == 2 * ACCEPTED_AT_ONCE


def test_who_is_refused_again_and_again_waits_in_the_queue(server, loop):
    """All places are taken: a burst is refused at once, and after it so many in a second, however many come."""
    admitted(server, 3)
    crowd = Crowd(REFUSED_AT_ONCE + 3 * int(REFUSED_PER_S))
    asyncio.run(server.serve(crowd))

    def refused_at_once():
        before = len(crowd.accepted)
        while 3 in loop.readers:
            loop.readers[3]()
            loop.turn()
        return len(crowd.accepted) - before

    assert refused_at_once() == REFUSED_AT_ONCE
    for _ in range(20):
        (delay_s,) = [delay_s for delay_s, _ in loop.later if delay_s != TRIM_PAUSE_S]
        assert delay_s > (ACCEPTED_AT_ONCE - 1) / REFUSED_PER_S, "not woken for each of them"
        loop.now += delay_s
        loop.pass_time()
        assert 1 <= refused_at_once() <= ACCEPTED_AT_ONCE
    assert len(crowd.accepted) <= REFUSED_AT_ONCE + (loop.now - 50.0) * REFUSED_PER_S + 1
    loop.now += 1.0
    loop.pass_time()
    assert abs(refused_at_once() - REFUSED_PER_S) <= 2
    crowd.close()


def test_those_who_come_in_are_not_counted_as_refused(server, loop, crowd):
    """A relay with places takes a crowd as quickly as it can."""
    for _ in range(10 * REFUSED_AT_ONCE):
        connection = Connection()
        assert server.admit(connection) is None
        server.was_lost(connection)
    loop.readers[3]()
    assert [delay_s for delay_s, _ in loop.later if delay_s not in (HELLO_TIMEOUT_S, TRIM_PAUSE_S)] == []
    assert len(crowd.accepted) == ACCEPTED_AT_ONCE


def test_who_has_waited_longest_for_the_end_of_a_frame_is_refused(server):
    """Only while too much is kept, and not one that has gone."""
    one, two, three = admitted(server, 3)
    server.charge(one, HALF_FRAMES_BYTES, is_new=True)
    server.was_lost(one)
    server.charge(two, HALF_FRAMES_BYTES, is_new=True)
    assert (one.refusal, two.refusal) == (None, None)
    server.charge(three, 1, is_new=True)
    assert (one.refusal, three.refusal) == (None, None)
    assert two.refusal == "frames without an end take more than 32 MiB; this one began first"


def test_another_half_frame_begins_later(server):
    """More of the same frame does not."""
    one, two, three = admitted(server, 3)
    half = HALF_FRAMES_BYTES // 2
    for connection in (one, two, three):
        server.charge(connection, half // 2, is_new=True)
    server.charge(one, half // 2, is_new=True)
    server.charge(two, half, is_new=False)
    server.charge(three, half, is_new=False)
    assert [connection.refusal is not None for connection in (one, two, three)] == [False, True, False]


def test_memory_is_given_back_when_a_crowd_has_gone(server, loop):
    """Silent ones and refused ones count as well; a relay that stops has other things to do."""
    for _ in range(TRIM_CONNECTIONS):
        server.was_lost(Connection(greeted=False))
    assert [delay_s for delay_s, _ in loop.later] == [TRIM_PAUSE_S]
    server._stop_accepting()
    assert [handle.cancelled for _, handle in loop.later] == [True]


def test_before_hello_little_is_read(server):
    """Whoever is refused has had no more of its bytes looked at."""
    connection = Connection(greeted=False)
    assert server.admit(connection) is None
    assert len(server.read_buffer(connection)) == HELLO_READ_BYTES
    connection.greeted = True
    assert len(server.read_buffer(connection)) == FLOOD_READ_BYTES
    server.was_read(connection, FLOOD_READ_BYTES, FLOOD_READ_BYTES // 150)
    assert len(server.read_buffer(connection)) == READ_BYTES
    server.was_read(connection, 20_000, 1_000)
    assert len(server.read_buffer(connection)) == 20_000


def test_a_pass_ends_when_much_was_read(server, loop, intake, poll):
    """The others wait for the next turn of the loop, behind a tick; viewers have theirs in between."""
    (one, *_) = admitted(server, 3)
    reads = []

    def read():
        reads.append(READ_BYTES)
        server.was_read(one, READ_BYTES)

    poll.ready = [read] * 200
    poll.on_readable()
    assert sum(reads) == PASS_BYTES
    assert intake.calls == ["tick"]
    assert poll.watching, "the rest follows at once"
    poll.on_readable()
    assert sum(reads) == 2 * PASS_BYTES
    assert intake.calls == ["tick", "tick"]


def test_a_pass_ends_when_many_frames_were_worked_on(server, intake, poll):
    """However few bytes they have; the next pass begins with none."""
    (one, *_) = admitted(server, 3)
    reads = []

    def read():
        reads.append(1000)
        server.was_read(one, 2000, 1000)

    poll.ready = [read] * 200
    poll.on_readable()
    assert sum(reads) == PASS_FRAMES
    poll.on_readable()
    assert sum(reads) == 2 * PASS_FRAMES
    assert intake.calls == ["tick", "tick"]


def test_each_pass_has_the_same_room_to_the_byte_and_the_frame(server, poll):
    """The first one as well as those behind it."""
    (one, *_) = admitted(server, 3)
    reads = []

    def read(size, frames):
        reads.append(frames)
        server.was_read(one, size, frames)

    for _ in range(3):
        reads.clear()
        poll.ready = [lambda: read(10, PASS_FRAMES - 1), *[lambda: read(10, 1)] * 3]
        poll.on_readable()
        assert len(reads) == 2
        reads.clear()
        poll.ready = [lambda: read(PASS_BYTES - 1, 1), *[lambda: read(1, 1)] * 3]
        poll.on_readable()
        assert len(reads) == 2


def test_a_tick_that_was_asked_for_before_a_pass_is_made_by_it(server, loop, intake, poll):
    """Not once more behind it."""
    (one, *_) = admitted(server, 3)
    server.schedule_tick()
    poll.ready = [lambda: server.was_read(one, 10, 1)]
    poll.on_readable()
    loop.turn()
    assert intake.calls == ["tick"]


def test_what_is_read_of_no_frame_is_no_line(server, loop):
    """Half a line is not yet one: what is read at once follows the length of whole ones."""
    (one, *_) = admitted(server, 3)
    server.was_read(one, FLOOD_READ_BYTES)
    assert len(server.read_buffer(one)) == FLOOD_READ_BYTES


def test_a_socket_that_is_closed_meanwhile_is_not_looked_at_again(server, loop, crowd):
    """The relay is stopping."""
    loop.readers[3]()
    server._stop_accepting()
    loop.turn()
    assert 3 not in loop.readers


def test_the_process_of_who_ended_in_order_is_not_watched(server, loop, intake):
    """Whoever said bye may go on or end, that is nobody's business here."""
    connection = Connection(run=b"a", process=Process(7))
    server.admit(connection)
    server.was_greeted(connection)
    server.was_lost(connection)
    assert intake.calls[-1] == ("ended", connection)
    assert loop.readers == {}


# --- connections without hello ------------------------------------------------------------------------------


def silent(server, count, uid=7):
    connections = [Connection(greeted=False) for _ in range(count)]
    for connection in connections:
        connection.uid = uid
        assert server.admit(connection) is None
    return connections


def test_silent_connections_take_no_traders_place(server):
    """They have places of their own; hello is what counts."""
    silent(server, 50)
    admitted(server, 3)
    (late,) = silent(server, 0) or [Connection(greeted=False)]
    assert server.admit(late) == "3 traders are connected; at most 3 are allowed"


def test_who_says_hello_when_all_places_are_taken_is_refused(server):
    (waiting,) = silent(server, 1)
    assert server.admit_hello(waiting) is None
    admitted(server, 3)
    assert server.admit_hello(waiting) == "3 traders are connected; at most 3 are allowed"


def test_the_oldest_silent_one_of_a_user_makes_room(server):
    """Nobody else's does, and whoever has said hello stays."""
    (other,) = silent(server, 1, uid=8)
    (trader,) = admitted(server, 1)
    mine = silent(server, MAX_UNGREETED_PER_USER)
    silent(server, 2)
    assert [connection.refusal is not None for connection in mine[:3]] == [True, True, False]
    assert mine[0].refusal == "512 connections of this user without hello; this was the oldest"
    assert other.refusal is None
    assert trader.refusal is None


def test_the_oldest_silent_one_of_all_makes_room(server):
    first = silent(server, MAX_UNGREETED_PER_USER, uid=8)
    silent(server, MAX_UNGREETED_PER_USER, uid=9)
    silent(server, 1, uid=10)
    assert first[0].refusal == "1024 connections without hello; this was the oldest"
    assert first[1].refusal is None
    silent(server, 1, uid=11)
    assert first[1].refusal == first[0].refusal
    assert first[2].refusal is None


def test_traders_that_come_and_go_make_no_room_for_silent_ones(server):
    """Only connections without hello are counted, each once."""
    for connection in admitted(server, 3):
        server.was_lost(connection)
    mine = silent(server, MAX_UNGREETED_PER_USER + 1)
    assert [connection.refusal is not None for connection in mine[:2]] == [True, False]


def test_a_place_is_free_again_when_a_silent_one_has_left(server):
    mine = silent(server, MAX_UNGREETED_PER_USER)
    for connection in mine[:10]:
        server.was_lost(connection)
        server.was_lost(connection)
    silent(server, 10)
    assert all(connection.refusal is None for connection in mine)


# --- floods -------------------------------------------------------------------------------------------------


def flood(server, loop, connection, other, lines):
    """Let a connection send many lines while another one logs."""
    server.was_read(other, 100, 1)
    server.was_read(connection, lines * 10, lines)
    loop.turn()


def test_who_floods_is_read_after_the_others(server, loop):
    greedy, other, _ = admitted(server, 3)
    flood(server, loop, greedy, other, BURST_LINES)
    loop.pass_time()
    assert greedy.reading
    flood(server, loop, greedy, other, 2_000)
    assert not greedy.reading
    assert other.reading
    delays = [(delay_s, handle) for delay_s, handle in loop.later if not handle.cancelled]
    flood_delay, flood_timer = max(delays, key=lambda timer: timer[0])
    assert flood_delay == pytest.approx(2_000 / FLOOD_LINES_PER_S)
    loop.now += flood_delay
    flood_timer.call()
    assert greedy.reading


def test_who_floods_alone_is_read_at_once(server, loop):
    (greedy,) = admitted(server, 1)
    for _ in range(10):
        server.was_read(greedy, 1 << 18, 10_000)
        loop.turn()
        loop.pass_time()
        assert greedy.reading


def test_no_room_and_a_flood_do_not_get_into_each_others_way(server, loop):
    """Resumed reading leaves the one that floods alone; one whose time comes meanwhile waits for the room."""
    greedy, other, _ = admitted(server, 3)
    flood(server, loop, greedy, other, BURST_LINES)
    flood(server, loop, greedy, other, BURST_LINES)
    server.pause_reading()
    server.resume_reading()
    assert other.reading
    assert not greedy.reading
    server.pause_reading()
    loop.now += 10.0
    loop.pass_time()
    assert not greedy.reading
    server.resume_reading()
    assert greedy.reading


def test_a_flood_is_read_little_at_once_while_others_log(server, loop):
    """Once it is alone, it is read as fast as it sends."""
    greedy, other, _ = admitted(server, 3)
    for _ in range(3):
        flood(server, loop, greedy, other, BURST_LINES)
    assert len(server.read_buffer(greedy)) == FLOOD_READ_BYTES
    loop.now += 1000 * OTHERS_S
    assert len(server.read_buffer(greedy)) > FLOOD_READ_BYTES


def test_one_timer_for_all_who_flood(server, loop):
    """Each is read again when its time has come, the others later."""
    *greedy, other = admitted(server, 3)
    for connection in greedy:
        flood(server, loop, connection, other, BURST_LINES)
        flood(server, loop, connection, other, BURST_LINES)
    loop.later = [timer for timer in loop.later if timer[0] > REST_S]
    assert len(loop.later) == 1
    reading = []
    for _ in range(2):
        ((delay_s, handle),) = loop.later
        loop.later = []
        loop.now += delay_s
        handle.call()
        reading.append([connection.reading for connection in greedy])
    assert reading == [[True, False], [True, True]]
    assert loop.later == []


def test_who_has_gone_floods_no_more(server, loop):
    """Nothing of it is read again; nothing is known of another one in its place."""
    *greedy, other = admitted(server, 3)
    for connection in greedy:
        flood(server, loop, connection, other, BURST_LINES)
        flood(server, loop, connection, other, BURST_LINES)
    gone, stays = greedy
    server.was_lost(gone)
    loop.now += 60.0
    loop.pass_time()
    assert not gone.reading
    assert stays.reading
    gone.reading = True
    server.admit(gone)
    server.was_greeted(gone)
    assert len(server.read_buffer(gone)) == FLOOD_READ_BYTES
    flood(server, loop, gone, other, 10)
    assert gone.reading


def test_a_lasting_flood_is_told_of(server, loop, intake):
    greedy, other, _ = admitted(server, 3)
    for _ in range(30):
        flood(server, loop, greedy, other, BURST_LINES)
        loop.pass_time()
        loop.now += 0.5
    (told,) = [call for call in intake.calls if call[0] == "flooding"]
    assert told[1] is greedy
    assert told[3] >= TELL_AFTER_S


class Listening:
    """A listening socket whose answers are given."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.closed = False

    def setblocking(self, _flag):
        """It has no other mode."""

    def listen(self, _backlog):
        """It listens."""

    def fileno(self):
        return 5

    def accept(self):
        answer = self.answers.pop(0) if self.answers else BlockingIOError()
        raise answer

    def close(self):
        self.closed = True


def test_a_system_without_descriptors_is_asked_again_later(server, loop):
    """Those that wait stay in the queue; what was wrong is reported; other errors are not waited for."""
    sock = Listening(ConnectionAbortedError(), OSError(errno.EMFILE, "Too many open files"))
    asyncio.run(server.serve(sock))
    loop.readers[5]()
    assert loop.problems == []
    (error,) = sock.answers
    loop.readers[5]()
    assert loop.problems == [{"message": "a trader cannot be accepted at the moment", "exception": error}]
    assert 5 not in loop.readers
    assert loop.pass_time() == [ACCEPT_RETRY_S]
    loop.readers[5]()
    sock.answers = [OSError(errno.EINVAL, "Invalid argument")]
    with pytest.raises(OSError, match="Invalid"):
        loop.readers[5]()


def test_a_socket_that_is_closed_meanwhile_is_not_asked_again(server, loop):
    sock = Listening(OSError(errno.ENFILE, "Too many open files in system"))
    asyncio.run(server.serve(sock))
    loop.readers[5]()
    loop.readers[5] = None  # as it was before it was taken out
    asyncio.run(server.close())
    assert sock.closed
    loop.pass_time()
    assert 5 not in loop.readers


def test_who_is_in_a_group_that_may_log_is_admitted(loop, intake):
    """The kernel is asked for the groups where they matter only."""
    server = TraderServer(intake, max_connections=3, loop=loop, access=PeerAccess(gids=[100], own_uid=9))
    connection = Connection(greeted=False)
    connection.groups = lambda: frozenset({5, 100})
    assert server.admit(connection) is None
    connection.groups = lambda: frozenset({5})
    assert server.admit(connection).startswith("the user with uid 7 may not log here")


def test_who_is_not_allowed_is_refused_before_anything_else(loop, intake):
    server = TraderServer(intake, max_connections=3, loop=loop, access=PeerAccess([8], own_uid=9))
    connection = Connection(greeted=False)
    assert server.admit(connection).startswith("the user with uid 7 may not log here")
    connection.uid = 8
    assert server.admit(connection) is None
