"""The sender turn by turn, without its thread and with a clock in hand: every answer of the relay, every failure.

A `Bench` has an outbox, a sender and the relay's end of a real socket, all in one thread: a test takes a turn, looks at
what the relay got, answers, and takes another turn.
"""

import contextlib
import fcntl
import os
import select
import signal
import socket
import stat
import sys
import types

import msgpack
import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay import sender as module
from robo_trader.log_relay.descriptors import HIGH_FD, Wakeup, is_marked
from robo_trader.log_relay.outbox import Outbox
from robo_trader.log_relay.sender import Sender

HELLO = frames.hello(run=b"r" * 16, app="a", host="h", pid=1, started_ns=2)


class Clock:
    """Stands in for the module `time` of the sender: sleeping is what moves it."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class Relay:
    """The relay's end: a listener, and the connection accepted last."""

    def __init__(self, path):
        self.path = path
        self.listener = None
        self.connection = None
        self.unpacker = None
        self.accepted = []

    def listen(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.listener.setblocking(False)
        return self

    def accept(self):
        self.connection, _ = self.listener.accept()
        self.connection.setblocking(False)
        self.accepted.append(self.connection)
        self.unpacker = msgpack.Unpacker()

    def frames(self):
        """Return what has come, and None at the end for a connection that ended."""
        ended = []
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while True:
                data = self.connection.recv(65536)
                if not data:
                    ended = [None]
                    break
                self.unpacker.feed(data)
        return [*self.unpacker, *ended]

    def send(self, *values):
        self.connection.send(b"".join(map(msgpack.packb, values)))

    def close(self):
        for sock in (self.listener, *self.accepted):
            if sock is not None:
                sock.close()


class Bench:
    def __init__(self, path, clock, limit=1 << 22):
        self.clock = clock
        self.relay = Relay(path)
        self.wakeup = Wakeup()
        self.out = Outbox(limit, on_blocked=self.wakeup.set)
        self.sender = Sender(self.out, self.wakeup, path=path, make_hello=lambda: HELLO, exit_timeout=0.5)
        self.told = []
        self.sender._print_stderr = self.told.append
        self.sender._wait = self.wait

    def log(self, *words, body=b"\x80"):
        for word in words or ("info",):
            self.out.queue(self.out.seq + 1, frames.LEVELS[word], body)

    def wait(self, most, want_write):
        """Wait on the clock in hand, not on the socket: what is to come is there already."""
        self.wanted = want_write
        Sender._wait(self.sender, 0.0, want_write)
        self.clock.now += most

    def turn(self, count=1):
        for _ in range(count):
            self.sender._turn(0.0)

    def greet(self, acked=0, **more):
        """Connect, and be welcomed; returns what the relay got behind hello, before its welcome."""
        self.turn()
        self.relay.accept()
        hello, *early = self.relay.frames()
        assert hello == msgpack.unpackb(HELLO)
        assert self.sender.state == "greeting"
        self.relay.send([0, {"protocol": 1, "acked": acked, **more}])
        self.turn()
        return early

    def up(self, acked=0, **more):
        """Connect, send and be welcomed; returns what the relay got behind hello."""
        early = self.greet(acked, **more)
        assert self.sender.state == "up"
        self.turn()
        return early + self.relay.frames()

    def lose(self):
        """The relay ends the connection; the next attempt is due."""
        self.relay.connection.close()
        self.turn()
        self.clock.now = max(self.clock.now, self.sender._next_try)

    def seqs(self):
        return [frame[1] for frame in self.relay.frames()]

    def balanced(self):
        out = self.out
        return out.produced() == out.acked + out.pending() + sum(out.dropped.values())


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def jitter(monkeypatch):
    """The range of each random delay; the delay is its upper end."""
    ranges = []
    monkeypatch.setattr(module, "_between", lambda low, high: ranges.append((low, high)) or high)
    return ranges


@pytest.fixture
def bench(sock, clock, jitter):
    bench = Bench(sock, clock)
    yield bench
    bench.sender._close_socket()
    bench.wakeup.close()
    bench.relay.close()


@pytest.fixture
def relay(bench):
    return bench.relay.listen()


# --- connecting -------------------------------------------------------------------------------------------------------


def test_a_connection_from_hello_to_ack(bench, relay):
    """Lines that waited go out once the relay has welcomed us, and are forgotten once it has them."""
    sender, out = bench.sender, bench.out
    assert (sender.state, sender.reconnects, sender.link_errors, sender.refusal) == ("idle", 0, 0, "")
    assert sender.running is False
    bench.log("info", "error", "info")
    assert [frame[:4] for frame in bench.up()] == [[1, 1, 1, "info"], [1, 2, 2, "error"], [1, 3, 3, "info"]]
    assert (out.pending(), out.outstanding(), out.unsent()) == (3, True, False)
    relay.send([1, 2])
    bench.turn()
    assert (out.acked, out.pending()) == (2, 1)
    relay.send([1, 3])
    bench.turn()
    assert sender._all_acked()
    assert (sender.reconnects, out.bad_answers, bench.told) == (0, 0, [])


def test_the_socket_is_ours_and_out_of_the_way(bench, relay):
    """Marked, at a high number, not inherited, never waiting, with room for a relay that reads in pulses."""
    default = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        bench.turn()
    finally:
        socket.setdefaulttimeout(default)
    sender = bench.sender
    fd = sender._fd
    assert fd == sender._sock.fileno() >= HIGH_FD
    assert is_marked(fd, sender._mark)
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
    assert sender._sock.gettimeout() == 0.0
    plain = socket.socket(socket.AF_UNIX)
    with plain:
        usual = plain.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        with open("/proc/sys/net/core/wmem_max") as file:
            most = 2 * int(file.read())
    assert sender._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == max(most, usual) or most > 2 << 22
    relay.accept()
    assert relay.frames() == [msgpack.unpackb(HELLO)]


def test_attempts_come_less_often_and_are_told_of_now_and_then(bench, jitter, clock):
    """Each waits twice as long, up to a bound, and some less at random; a person hears of it once a minute."""
    bench.log("info", "info")
    waits = []
    for _ in range(7):
        bench.turn()
        assert bench.sender.state == "down"
        waits.append(bench.sender._next_try - clock.now)
        before = bench.sender._next_try
        clock.now = before - 0.001
        bench.turn()
        assert bench.sender._next_try == before, "too early"
        clock.now = before
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8])
    assert set(jitter) == {(0.6, 1.0)}
    text = f"no relay at {bench.relay.path} (FileNotFoundError: [Errno 2] No such file or directory); "
    text += "2 lines wait, 0 were dropped; trying again. "
    text += "Start it (logrelay serve), or name its socket in LOGRELAY_SOCKET"
    assert bench.told == [text]
    clock.now = 1000.0 + 59.99
    bench.turn()
    assert len(bench.told) == 1
    clock.now = 1000.0 + 60.0
    bench.sender._next_try = clock.now
    bench.out.reject(1, "rejected", "rejected")
    bench.turn()
    assert bench.told[1:] == [text.replace("2 lines wait, 0 were", "1 line waits, 1 was")]


def test_a_relay_that_is_back_is_told_of(bench, clock):
    """If its absence was, and lasted longer than a wait."""
    bench.log()
    bench.turn()
    clock.now += 12.25
    bench.relay.listen()
    bench.up()
    assert bench.told[1:] == ["the relay is back after 12.2 s; 1 line waits, 0 were dropped"]
    bench.relay.send([1, 1])
    bench.turn()
    bench.lose()
    bench.up(acked=1)
    assert len(bench.told) == 2, "it was away for a moment only"
    assert bench.sender.reconnects == 1
    assert bench.sender._retry_delay == module.RETRY_FIRST_S


def test_a_relay_that_says_nothing(bench, relay, clock):
    """Is kept while its socket is the one to be found, and told of; every ten seconds we look."""
    bench.turn()
    relay.accept()
    for wait in range(1, 3):
        clock.now += module.WELCOME_TIMEOUT_S - 0.01
        bench.turn()
        assert len(bench.told) == (wait > 1), "too early"
        clock.now += 0.01
        bench.turn()
        assert bench.sender.state == "greeting"
    text = f"no relay at {relay.path} (it does not answer); 0 lines wait, 0 were dropped; waiting"
    assert bench.told == [text], "not more than once a minute"
    first, clock.now = relay.connection, bench.sender._deadline
    relay.listener.close()
    os.unlink(relay.path)
    bench.turn()
    assert bench.sender.state == "greeting", "there is nothing better"
    relay.listen()
    clock.now = bench.sender._deadline
    bench.turn()
    assert bench.sender.state == "down"
    assert bench.sender._last_error == "no welcome"
    assert relay.frames()[-1] is None
    assert bench.sender._next_try == pytest.approx(clock.now + 0.05)
    clock.now = bench.sender._next_try
    bench.up()
    assert relay.connection is not first


def test_hello_that_does_not_fit_is_a_failed_attempt(bench, relay):
    """Half a hello cannot be finished later."""
    bench.sender._make_hello = lambda: bytes(1 << 24)
    bench.turn()
    assert bench.sender.state == "down"
    assert bench.sender._last_error == "BlockingIOError: [Errno 11] no room for hello"
    assert bench.sender._sock is None
    assert bench.sender._fd == -1


def test_how_the_socket_is_made(bench, relay, monkeypatch):
    """Closed in a program started meanwhile, from the first moment on; a kernel that gives no room is no reason."""
    made, sent = [], []

    class Recording(socket.SocketType):
        def __init__(self, *args):
            made.append(args)
            super().__init__(*args)

        def send(self, data, *flags):
            sent.append(flags)
            return super().send(data, *flags)

        def setsockopt(self, *args):
            raise PermissionError

    monkeypatch.setattr(module, "_unpatched", lambda name, what: Recording if what == "socket" else select.poll)
    states = []
    bench.sender._make_hello = lambda: states.append(bench.sender.state) or HELLO
    bench.turn()
    assert states == ["connecting"]
    assert bench.sender.state == "greeting"
    assert made == [
        (socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK),
        (socket.AF_UNIX, socket.SOCK_STREAM, 0, bench.sender._fd),
    ]
    assert sent == [(module.SEND_FLAGS,)]


def test_nothing_is_sent_to_a_socket_somebody_may_have_planted(bench, monkeypatch):
    """However well it listens."""
    folder = os.path.join(os.path.dirname(bench.relay.path), f"logrelay-{os.getuid()}")
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    bench.relay.path = bench.sender._path = os.path.join(folder, "s")
    bench.relay.listen()
    bench.turn()
    assert bench.sender.state == "down"
    assert bench.sender._last_error.startswith("PermissionError: ")
    with pytest.raises(BlockingIOError):
        bench.relay.accept()
    os.chmod(folder, 0o700)
    monkeypatch.setattr(module, "_between", lambda low, high: low)
    bench.sender._retry_delay = 0.5
    bench.relay.path = bench.sender._path = "/nowhere"
    bench.sender._next_try = 0.0
    bench.turn()
    assert bench.sender._next_try == pytest.approx(bench.clock.now + 0.3)


def test_a_hello_that_cannot_be_made_is_a_failed_attempt(bench, relay):
    """The socket is closed."""
    bench.sender._make_hello = lambda: 1 / 0
    bench.turn()
    assert bench.sender._last_error == "ZeroDivisionError: division by zero"
    relay.accept()
    assert relay.frames() == [None]


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_relay_that_says_no_is_asked_again_later(bench, relay, jitter, clock):
    """Its reason is kept until it says yes."""
    bench.log()
    bench.turn()
    relay.accept()
    relay.send([3, "not now"])
    bench.turn()
    sender = bench.sender
    assert (sender.state, sender.refusal, sender._last_error) == ("refused", "not now", "refused: not now")
    assert jitter == [(0.8, 1.2)]
    assert sender._next_try == pytest.approx(clock.now + 12.0)
    assert len(bench.told) == 1
    clock.now = sender._next_try
    relay.frames()
    bench.up()
    assert (sender.state, sender.refusal) == ("up", "")


def test_a_refusal_without_a_reason(bench, relay):
    """Is one all the same."""
    bench.turn()
    relay.accept()
    relay.send([3, ""])
    bench.turn()
    assert (bench.sender.state, bench.sender.refusal) == ("refused", "refused")


def test_a_welcome_that_claims_too_much_is_a_refusal(bench, relay):
    """The relay has lines that this run never had."""
    bench.log("info", "info")
    bench.greet(acked=3)
    assert bench.sender.state == "refused"
    assert bench.sender.refusal == "the relay says it has line 3 of a run that has 2"
    assert bench.sender._last_error == bench.sender.refusal
    assert bench.out.pending() == 2


def test_a_welcome_says_what_the_relay_has(bench, relay):
    """What had no ack is sent again without waiting for it, and what it covers is forgotten."""
    bench.log("info", "error", "info")
    bench.up()
    bench.lose()
    assert [frame[1] for frame in bench.greet(acked=2)] == [1, 2, 3]
    assert relay.frames() == []
    assert (bench.out.acked, bench.sender.reconnects, bench.out.bad_answers) == (2, 1, 0)
    assert bench.out.pending() == 1


def test_what_a_welcome_covers_and_was_not_sent_again_is_left_out(bench, relay, monkeypatch):
    """A turn sends so much, then the welcome is read."""
    monkeypatch.setattr(module, "BATCHES_PER_TURN", 1)
    lines = 4 * module.SLICE_FRAMES
    bench.log(*["info"] * lines)
    bench.up()
    bench.turn(4)
    relay.frames()
    bench.lose()
    early = [frame[1] for frame in bench.greet(acked=lines - 2)]
    assert early == list(range(1, module.SLICE_FRAMES + 1))
    bench.turn(2)
    later = bench.seqs()
    assert later[-2:] == [lines - 1, lines]
    assert len(later) <= module.SLICE_FRAMES + 2


def test_a_second_welcome_is_one_too_many(bench, relay):
    """It ends the connection."""
    bench.up()
    relay.send([0, {"protocol": 1, "acked": 0}])
    bench.turn()
    assert (bench.sender.state, bench.sender._last_error) == ("down", "a second welcome")
    assert bench.out.bad_answers == 1


@pytest.mark.parametrize("early", [[1, 1], [2, 1, "no"]])
def test_an_answer_before_the_welcome_is_nonsense(bench, relay, early):
    """So is what is no answer."""
    bench.log()
    bench.turn()
    relay.accept()
    relay.send(early)
    bench.turn()
    assert bench.sender.state == "down"
    assert bench.sender._last_error.startswith("the relay answers nonsense (")
    assert (bench.out.bad_answers, bench.out.acked, bench.out.dropped["rejected"]) == (1, 0, 0)


def test_nothing_behind_nonsense_is_heard(bench, relay):
    """The connection is over."""
    bench.log("info", "info")
    bench.up()
    relay.send([1, 1], [9], [1, 2])
    bench.turn()
    assert (bench.out.acked, bench.out.bad_answers, bench.sender.state) == (1, 1, "down")
    assert bench.sender._last_error == ("the relay answers nonsense (Garbage(why='not an answer of wire protocol v1'))")


def test_a_rejected_line_is_dropped(bench, relay):
    """Counted as such; one that is not there is a bad answer, and the connection goes on."""
    bench.log("info", "info")
    bench.up()
    relay.send([2, 1, "too long"], [2, 1, "again"], [2, 1, "and again"])
    bench.turn()
    assert bench.out.dropped["rejected"] == 1
    assert (bench.out.bad_answers, bench.sender.state) == (2, "up")
    assert [gap.cause for gap in bench.out.sent_gaps] == ["rejected_repeatedly"]
    relay.send([1, 2])
    bench.turn()
    assert bench.sender._all_acked()
    assert bench.balanced()


def test_an_ack_is_worked_off_in_slices(bench, relay, clock):
    """Others run in between."""
    bench.log(*["info"] * 600)
    bench.up()
    clock.slept.clear()
    relay.send([1, 600])
    bench.turn()
    assert bench.out.acked == 600
    assert clock.slept == [0, 0]


def test_an_end_is_told_as_what_it_was(bench, relay):
    """Closed, or reset."""
    bench.up()
    bench.lose()
    assert (bench.sender._last_error, bench.sender.state) == ("the relay closed the connection", "down")
    bench.greet()
    bench.out.stop_direct()
    bench.log()
    bench.turn()
    bench.relay.connection.close()  # with a line unread: a reset
    bench.turn()
    assert bench.sender._last_error == "ConnectionResetError: [Errno 104] Connection reset by peer"
    assert bench.sender._sock is None


# --- lines that end connections ---------------------------------------------------------------------------------------


def test_a_line_that_ends_every_connection_is_given_up(bench, relay):
    """After five, the last three with that line alone on the wire; the others get through."""
    bench.log("info", "info", "info")
    got = []
    for _ in range(5):
        got.append([frame[1] for frame in bench.up()])
        assert bench.out.dropped["rejected_repeatedly"] == 0
        bench.lose()
    assert got == [[1, 2, 3], [1, 2, 3], [1], [1], [1]]
    assert bench.out.dropped["rejected_repeatedly"] == 1
    assert bench.up() == [[2, 1, 1, 1, "rejected_repeatedly"], [1, 2, 2, "info", {}], [1, 3, 3, "info", {}]]
    assert bench.balanced()


def test_each_such_line_is_given_up_by_itself(bench, relay):
    """The next one gets as many connections; what is known of the first does not count against it."""
    bench.log("info", "info", "info")
    got, committed = [], 0
    for _ in range(12):
        came = bench.up(acked=committed)
        got.append([frame[:2] for frame in came])
        for kind, seq, *_ in came:
            if kind == 1 and seq in (1, 2):
                break  # it ends the connection
            committed = seq
        bench.lose()
    first = [[1, 1], [1, 2], [1, 3]]
    second = [[1, 2], [1, 3]]
    assert got[:5] == [first, first, [[1, 1]], [[1, 1]], [[1, 1]]]
    # The loss is told again behind hello: the welcome that covers it comes later.
    assert got[5:11] == [[[2, 1], *second], [[2, 1], *second], second, [[1, 2]], [[1, 2]], [[1, 2]]]
    assert got[11] == [[2, 2], [1, 3]]
    assert bench.out.dropped["rejected_repeatedly"] == 2
    bench.up(acked=3)
    assert bench.sender._all_acked()
    assert bench.sender.reconnects == 12
    assert bench.balanced()


def test_an_ack_without_news_clears_nothing(bench, relay):
    """The relay says again what it said before, and ends the connection at the same line."""
    bench.log("info", "info", "info")
    got = []
    for acked in (0, 1, 1, 1, 1):
        got.append([frame[1] for frame in bench.up(acked=acked)])
        relay.send([1, 1])
        bench.turn()
        bench.lose()
    assert got == [[1, 2, 3], [2, 3], [2], [2], [2]]
    assert bench.out.dropped["rejected_repeatedly"] == 1


def test_an_ack_clears_the_suspicion(bench, relay):
    """The line got through, so it was not the line."""
    bench.log("info", "info", "info")
    for _ in range(4):
        bench.up()
        bench.lose()
    assert [frame[1] for frame in bench.up()] == [1]
    relay.send([1, 1])
    bench.turn(3)
    assert bench.seqs() == [2, 3], "no longer one at a time"
    bench.lose()
    for _ in range(3):
        assert [frame[1] for frame in bench.up(acked=1)]
        bench.lose()
    assert bench.out.dropped["rejected_repeatedly"] == 0


def test_a_welcome_clears_the_suspicion_too(bench, relay):
    """The relay had committed the line before the connection ended."""
    bench.log("info", "info", "info")
    for _ in range(4):
        bench.up()
        bench.lose()
    assert [frame[1] for frame in bench.up(acked=1)] == [2, 3]
    bench.lose()
    assert [frame[1] for frame in bench.up(acked=1)] == [2, 3]
    assert bench.out.dropped["rejected_repeatedly"] == 0


@pytest.mark.parametrize("sign", [[4], [5]], ids=["ping", "pong"])
def test_a_relay_that_lives_on_without_acking_blames_no_line(bench, relay, sign):
    """Its disk is full, and it is restarted again and again: the line stays, however often."""
    bench.log("info", "info", "info")
    for _ in range(8):
        assert [frame[1] for frame in bench.up() if frame[0] == 1] == [1, 2, 3]
        relay.send(sign)
        bench.turn()
        bench.lose()
    assert bench.out.dropped["rejected_repeatedly"] == 0
    for _ in range(5):
        bench.up()
        bench.lose()
    assert bench.out.dropped["rejected_repeatedly"] == 1, "of a connection that ends at once it is the line"


def test_connections_that_end_for_other_reasons_blame_no_line(bench, relay):
    """Nothing was on the wire, or it was this side."""
    for _ in range(6):
        bench.up()
        bench.lose()
    bench.log("info", "info")
    for _ in range(6):
        assert [frame[1] for frame in bench.up()] == [1, 2]
        bench.out.break_connection()
        bench.turn()
        assert bench.sender._last_error == "interrupted"
        bench.clock.now = bench.sender._next_try
    assert bench.out.dropped["rejected_repeatedly"] == 0


# --- sending ----------------------------------------------------------------------------------------------------------


def test_callers_send_themselves_once_everything_is_on_the_wire(bench, relay):
    """Before any welcome; and queue again as soon as the connection is gone."""
    bench.log()
    assert bench.out.direct_send is None
    bench.turn()
    assert bench.sender.state == "greeting"
    assert bench.out.direct_send == bench.sender._sock.send
    assert (bench.out.direct_fd, bench.out.direct_mark) == (bench.sender._fd, bench.sender._mark)
    assert bench.sender._send_batch() is False
    relay.accept()
    bench.lose()
    assert (bench.out.direct_send, bench.out.direct_fd) == (None, -1)


def test_a_turn_sends_a_bounded_number_of_batches(bench, relay, monkeypatch):
    """Then the answers get their turn."""
    monkeypatch.setattr(module, "BATCHES_PER_TURN", 3)
    bench.log(*["info"] * (module.SLICE_FRAMES * 4))
    bench.turn()
    relay.accept()
    assert len(relay.frames()) == 1 + 3 * module.SLICE_FRAMES
    assert bench.out.direct_send is None
    bench.turn()
    assert len(relay.frames()) == module.SLICE_FRAMES
    assert bench.out.direct_send is not None


def test_a_full_socket_is_waited_for(bench, relay, monkeypatch):
    """The rest of a batch is the next on the wire; no line is repeated or torn."""
    monkeypatch.setattr(module, "KERNEL_BUFFER", 4096)
    bench.log(*["info", "error"] * 200, body=b"\xc5\x03\xe8" + bytes(1000))
    bench.turn()
    relay.accept()
    assert bench.out.to_write
    assert bench.wanted is True
    assert bench.sender._send_batch() is True
    assert bench.sender._send_backlog() is True
    hello, *early = relay.frames()
    assert hello[0] == 0
    got = [frame[1] for frame in early]
    relay.send([0, {"protocol": 1, "acked": 0}])
    bench.turn()
    for _ in range(400):
        got += bench.seqs()
        if len(got) == 400:
            break
        assert bench.out.direct_send is None
        bench.turn()
    assert got == list(range(1, 401))
    bench.turn()
    assert bench.out.direct_send is not None


def test_what_a_batch_says_about_the_next(bench, relay, monkeypatch):
    """Go on, wait for room, or nothing is left: who said "wait" with nothing left would never sleep."""
    sender, out = bench.sender, bench.out
    assert sender._send_batch() is False, "no connection"
    assert out.broken is False
    bench.greet()
    out.stop_direct()
    bench.log("info", "info")
    out.break_connection()
    assert sender._send_batch() is False
    out.broken, out.dirty = False, True
    assert sender._send_batch() is False
    out.dirty = False
    assert relay.frames() == []
    sent = []

    takes = [5, None, 1000]

    def send(data, flags):
        sent.append(flags)
        taken = takes.pop(0)
        if taken is None:
            raise BrokenPipeError
        return min(taken, len(data))

    real, sender._sock = sender._sock, types.SimpleNamespace(send=send)
    for said in (True, False, None, False):
        assert sender._send_batch() is said
    assert sent == [module.SEND_FLAGS] * 3
    sender._sock = real
    assert sender._send_backlog() is False
    sender._cautious = True
    out.stop_direct()
    bench.log()
    assert sender._send_batch() is False, "one at a time"
    sender._cautious = False
    bench.turn()
    assert bench.wanted is False
    monkeypatch.setattr(module, "BATCHES_PER_TURN", 1)
    out.stop_direct()
    bench.log("info", "info")
    assert sender._send_backlog() is True, "there may be more"


def test_lines_are_admitted_without_a_connection(bench):
    """They must not fill the inbox while the relay is away."""
    bench.out.inbox.append((5, frames.LEVELS["info"], b"\x80"))
    bench.turn()
    assert (bench.out.seq, len(bench.out.inbox)) == (1, 0)


def test_lines_that_wait_for_the_baton_are_sent_too(bench, relay):
    """They are admitted before each batch."""
    bench.up()
    bench.out.stop_direct()
    bench.out.inbox.append((5, frames.LEVELS["info"], b"\x80"))
    bench.turn()
    assert bench.seqs() == [1]


def test_a_doubtful_state_is_repaired_first(bench, relay):
    """The connection is given up: what was on it goes again, and is decided by the next welcome."""
    bench.log("info", "info")
    bench.up()
    bench.out.dirty = True
    assert bench.sender._send_batch() is False
    bench.turn()
    assert (bench.out.dirty, bench.sender.state, bench.sender._last_error) == (False, "down", "interrupted")
    assert relay.frames() == [None]
    bench.clock.now = bench.sender._next_try
    assert [frame[1] for frame in bench.up(acked=1)] == [1, 2]
    assert (bench.out.acked, bench.out.pending()) == (1, 1)


@pytest.mark.parametrize("when", ["sending", "waiting"])
def test_a_descriptor_that_somebody_closed(bench, relay, when):
    """Its number is another file now: that is neither written nor closed, and a new connection is made."""
    bench.up()
    fd = bench.sender._fd
    one, other = socket.socketpair()
    with one, other:
        os.dup2(one.fileno(), fd)
        if when == "sending":
            bench.out.stop_direct()
            bench.log()
            bench.wakeup.clear()
            bench.wakeup.open()
            assert bench.sender._send_batch() is False
            assert bench.out.broken
            assert os.eventfd_read(bench.wakeup.fd) == 1, "to close it"
        else:
            other.send(b"x")
        bench.turn()
        assert bench.sender.state == "down"
        assert bench.sender._last_error == (
            "interrupted" if when == "sending" else "the descriptor was closed by somebody else"
        )
        assert os.fstat(fd).st_ino == os.fstat(one.fileno()).st_ino
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)
        os.close(fd)
    relay.frames()
    bench.clock.now = bench.sender._next_try
    assert bench.up() is not None
    assert bench.sender.state == "up"


# --- the goodbye ------------------------------------------------------------------------------------------------------


def test_a_goodbye_behind_the_last_line(bench, relay):
    """Once, and again behind each line that comes later, whoever sends it."""
    bench.log("info", "info")
    bench.sender._finishing = True
    assert bench.up()[-1] == [3, 2]
    bench.turn(2)
    assert relay.frames() == []
    assert bench.out.direct_send == bench.sender._send_with_bye
    frame = frames.log(3, 3, frames.LEVELS["info"], b"\x80")
    bench.out.seq = 3
    bench.out.sent_low.append(frame)
    assert bench.out.direct_send(frame, module.SEND_FLAGS) == len(frame)
    assert relay.frames() == [[1, 3, 3, "info", {}], [3, 3]]
    assert bench.sender._bye_for == 3
    assert not bench.sender._all_acked_after_bye()
    relay.send([1, 3])
    bench.turn()
    assert bench.sender._all_acked_after_bye()
    bench.log()
    assert not bench.sender._all_acked_after_bye()


def test_a_run_without_lines_says_no_goodbye(bench, relay):
    """There is nothing to end."""
    bench.sender._finishing = True
    assert bench.up() == []
    assert bench.sender._all_acked_after_bye()


@pytest.mark.parametrize(("takes", "broken"), [(-1, False), (0, True), (5, True), (11, False)])
def test_half_a_goodbye_breaks_the_connection(bench, takes, broken):
    """It cannot be finished later; the line itself was taken."""
    data = b"x" * 20
    sent = []
    bench.sender._sock = types.SimpleNamespace(send=lambda data, flags: sent.append((data, flags)) or 20 + takes)
    bench.out.seq = 7
    bench.wakeup.open()
    assert bench.sender._send_with_bye(data, 3) == min(20, 20 + takes)
    if broken:
        assert os.eventfd_read(bench.wakeup.fd) == 1
    assert sent == [(data + frames.bye(7)[:2] + b"\xcf" + (7).to_bytes(8, "big"), 3)]
    assert msgpack.unpackb(sent[0][0][20:]) == [3, 7]
    assert bench.out.broken is broken
    bench.sender._sock = None
    with pytest.raises(BrokenPipeError, match=r"^\[Errno 32\] no connection$"):
        bench.sender._send_with_bye(data, 3)


def test_a_new_connection_needs_a_new_goodbye(bench, relay):
    """The relay did not keep the old one."""
    bench.log()
    bench.sender._finishing = True
    assert [frame[0] for frame in bench.up()] == [1, 3]
    bench.lose()
    assert [frame[0] for frame in bench.up()] == [1, 3]


# --- those who wait ---------------------------------------------------------------------------------------------------


@pytest.fixture
def threadless(bench, monkeypatch):
    """No thread can be started, as in an interpreter that shuts down: who waits takes the turns."""

    def refuse(*args):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    unpatched = module._unpatched
    monkeypatch.setattr(
        module, "_unpatched", lambda name, what: refuse if what == "start_new_thread" else unpatched(name, what)
    )
    return bench


def answering(bench, *, acks=True):
    """Answer each turn as a relay that is there."""
    turn = bench.sender._turn
    turns = []

    def taken(most):
        turns.append(most)
        turn(0.0)
        bench.clock.now += min(most, module.WAIT_LONGEST_S)
        with contextlib.suppress(BlockingIOError):
            if bench.relay.listener is not None:
                bench.relay.accept()
        for frame in bench.relay.frames() if bench.relay.connection else []:
            if frame and frame[0] == 0:
                bench.relay.send([0, {"protocol": 1, "acked": 0}])
            elif frame and frame[0] == 1 and acks:
                bench.relay.send([1, frame[1]])
            elif frame:
                bench.said = frame

    bench.sender._turn = taken
    return turns


def test_finishing_without_a_thread(threadless, relay):
    """Sends what is there and a bye, waits for the acks, and closes what it has opened."""
    bench = threadless
    answering(bench)
    bench.log("info", "error")
    assert bench.sender.start() is False
    assert bench.sender.running is False
    assert bench.out.has_sender is False
    assert bench.sender.finish(5.0, close=True) is True
    assert bench.said == [3, 2]
    assert (bench.out.acked, bench.sender.state, bench.wakeup.fd) == (2, "closed", -1)
    assert bench.sender._sock is None
    assert relay.frames() == [None]
    assert bench.sender.start() is False, "it is closed"
    assert bench.sender._turn_baton == [None]
    assert bench.sender._thread_baton == [None]


def test_finishing_for_now_leaves_everything_open(threadless, relay):
    """Later lines are still sent, each with a goodbye of its own."""
    bench = threadless
    answering(bench)
    bench.log()
    assert bench.sender.finish(5.0, close=False) is True
    assert bench.sender.state == "up"
    bench.out.stop_direct()
    bench.log()
    bench.turn(2)
    assert bench.said == [3, 2]


def test_waiting_ends_in_time(threadless, relay, clock):
    """Acks do not come: False, and the budget is what it took."""
    bench = threadless
    turns = answering(bench, acks=False)
    bench.log()
    began = clock.now
    assert bench.sender.flush(3.0) is False
    assert clock.now == pytest.approx(began + 3.0, abs=module.WAIT_LONGEST_S)
    assert max(turns) == module.WAIT_LONGEST_S
    assert bench.sender.flush(0.0) is False
    bench.relay.send([1, 1])
    assert bench.sender.flush(3.0) is True


def test_a_relay_never_met_gets_one_attempt(threadless, clock):
    """Not the whole budget of the exit; who only flushes waits for it."""
    bench = threadless
    turns = answering(bench)
    bench.log()
    began = clock.now
    assert bench.sender.finish(5.0, close=False) is False
    assert clock.now < began + 1
    assert turns
    bench.sender._finishing = False
    began = clock.now
    assert bench.sender.flush(1.0) is False
    assert clock.now >= began + 1


def test_an_attempt_is_made_whatever_was_before(threadless, relay):
    """The last one failed, and the next was not due yet."""
    bench = threadless
    answering(bench)
    bench.log()
    bench.relay.listener, listener = None, bench.relay.listener
    os.rename(bench.relay.path, bench.relay.path + "x")
    bench.turn()
    assert bench.sender.state == "down"
    os.rename(bench.relay.path + "x", bench.relay.path)
    bench.relay.listener = listener
    bench.sender._next_try = bench.clock.now + 100
    assert bench.sender.finish(5.0, close=False) is True


@pytest.mark.parametrize("ends", [True, False])
def test_closing_waits_for_the_thread(bench, clock, ends):
    """As long as an exit may take; what the thread still uses is not closed under it."""
    sender = bench.sender
    del sender._thread_baton[0]
    bench.wakeup.open()
    sleep = clock.sleep

    def slept(seconds):
        assert sender._closing
        sleep(seconds)
        if ends and len(clock.slept) == 3:
            sender._thread_baton += (None,)

    clock.sleep = slept
    began = clock.now
    assert sender.finish(5.0, close=True) is True
    assert sender.running is not ends
    assert (sender.state, bench.wakeup.fd == -1) == (("closed", True) if ends else ("idle", False))
    if ends:
        assert bench.told == [], "nobody took a turn for it"
        assert clock.slept == pytest.approx([module.WAIT_FIRST_S * 1.5**n for n in range(3)])
    else:
        assert clock.now == pytest.approx(began + 0.5)
        assert max(clock.slept) == module.WAIT_LONGEST_S
        assert os.eventfd_read(bench.wakeup.fd) == 2, "to send, and to end"


def test_whoever_waits_starts_the_thread(bench, monkeypatch):
    """If there is a line for it, wherever."""
    started = []
    monkeypatch.setattr(bench.sender, "start", lambda: started.append(1))
    monkeypatch.setattr(bench.sender, "_all_acked", lambda: bool(started))
    assert bench.sender.flush(0.1) is False
    bench.out.inbox.append((5, frames.LEVELS["info"], b"\x80"))
    assert bench.sender.flush(0.1) is True
    started.clear()
    bench.out.combine()
    assert bench.out.seq == 1
    assert bench.sender.flush(0.1) is True


def test_whoever_waits_wakes_the_thread(bench):
    """It may be asleep."""
    bench.wakeup.open()
    bench.log()
    del bench.sender._thread_baton[0]
    for wait in (bench.sender.flush, lambda seconds: bench.sender.finish(seconds, close=False)):
        assert wait(0.0) is False
        assert os.eventfd_read(bench.wakeup.fd) == 1


def test_waiting_for_nothing_starts_nothing(threadless):
    """No line was logged."""
    assert threadless.sender.flush(1.0) is True
    assert threadless.sender.finish(1.0, close=False) is True
    assert threadless.sender._sock is None


def test_another_who_takes_turns_is_waited_for(threadless, relay, clock):
    """Only one does at a time."""
    bench = threadless
    turns = answering(bench)
    bench.log()
    del bench.sender._turn_baton[0]
    assert bench.sender.flush(0.1) is False
    assert turns == []
    assert clock.slept[0] == module.WAIT_FIRST_S
    bench.sender._run_thread()
    assert turns == []


def test_an_outbox_that_is_kept_cannot_be_finished(threadless, monkeypatch):
    """False after a while, not a process that hangs."""
    monkeypatch.setattr("robo_trader.log_relay.outbox.BATON_TIMEOUT_S", 0.01)
    bench = threadless
    bench.log()
    del bench.out.baton[0]
    assert bench.sender.finish(1.0, close=True) is False
    bench.out.baton += (None,)


def test_finishing_repairs_first(threadless, relay):
    """A doubtful state would keep everybody waiting."""
    bench = threadless
    answering(bench)
    bench.log()
    assert bench.sender.flush(5.0) is True
    bench.log()
    bench.out.dirty = True
    assert bench.sender.finish(5.0, close=False) is True
    assert bench.out.acked == 2


# --- the thread -------------------------------------------------------------------------------------------------------


def test_a_thread_is_started_once(bench, monkeypatch):
    """Whoever starts it says so; the others see that it runs. No descriptor is opened but by the thread."""
    started = []
    unpatched = module._unpatched

    def recording(name, what):
        if what == "socket":
            return unpatched(name, what)
        return lambda *args: started.append((name, what, args))

    monkeypatch.setattr(module, "_unpatched", recording)
    assert bench.sender.start() is True
    assert (bench.sender.running, bench.out.has_sender) == (True, True)
    assert bench.sender.start() is False
    assert started == [("_thread", "start_new_thread", (bench.sender._run_thread, ()))]
    assert bench.wakeup.fd == -1
    bench.out.sender_ended()
    assert bench.sender.start() is False
    assert bench.out.has_sender is True
    bench.sender._closing = True
    assert bench.sender.start() is False
    assert len(started) == 1


def test_a_thread_that_ended_at_once_is_no_sender(bench, monkeypatch):
    """The next call starts another."""

    def start(run, args):
        bench.sender._thread_baton += (None,)

    monkeypatch.setattr(module, "_unpatched", lambda name, what: start)
    assert bench.sender.start() is True
    assert bench.out.has_sender is False


def test_an_interruption_of_the_start_is_the_callers(bench, monkeypatch):
    """And the next one can start it."""

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_unpatched", lambda name, what: interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.sender.start()
    assert bench.sender._thread_baton == [None]
    assert bench.out.has_sender is False


def test_whatever_hits_the_thread_costs_the_connection_only(bench, relay, clock):
    """It waits a moment before the next attempt, and says what it was."""
    bench.log()
    bench.up()
    sender = bench.sender
    turn, errors = sender._turn, [MemoryError(), KeyboardInterrupt()]

    def interrupted(most):
        assert most == module.TICK_S
        if errors:
            raise errors.pop(0)
        sender._closing = True

    sender._turn = interrupted
    sender._next_try = 0.0
    sender.serve()
    assert sender.link_errors == 2
    assert sender._last_error == "KeyboardInterrupt in the sender thread"
    assert (bench.out.broken, bench.out.direct_send) == (True, None)
    assert sender._next_try == pytest.approx(clock.now + module.RETRY_FIRST_S)
    sender._turn = turn
    bench.turn()
    assert sender.state == "down"


@pytest.mark.parametrize("acks", [True, False])
def test_a_processor_that_is_gone_ends_its_thread(bench, relay, clock, acks):
    """Once everything is there, or after the time for an exit."""
    bench.log("info", "info")
    turns = answering(bench, acks=acks)
    sender = bench.sender
    del sender._thread_baton[0]
    bench.wakeup.open()
    sender.abandon()
    assert os.eventfd_read(bench.wakeup.fd) == 1, "it may be asleep"
    began = clock.now
    sender._run_thread()
    assert turns[0] == module.TICK_S
    assert sender._finishing is True
    assert (bench.out.acked == 2) is acks
    assert bench.said == [3, 2]
    if not acks:
        assert clock.now >= began + 0.5
    assert (sender.running, sender.state, bench.out.has_sender) == (False, "down", False)
    assert (sender._sock, bench.wakeup.fd) == (None, -1)
    assert sender._turn_baton == [None]


def test_a_thread_that_ends_leaves_everything_to_the_next(bench, relay):
    """The connection is closed and the state repaired; the wake-up stays unless nobody comes back."""
    bench.log()
    bench.up()
    bench.out.sender_started()
    del bench.sender._thread_baton[0]
    bench.out.dirty = True
    bench.sender._end_thread()
    assert (bench.out.dirty, bench.sender.state, bench.sender.running) == (False, "down", False)
    assert bench.out.has_sender is False
    assert bench.wakeup.fd >= 0
    assert bench.sender._sock is None
    del bench.sender._thread_baton[0]
    bench.sender._closing = True
    bench.sender._end_thread()
    assert (bench.sender.state, bench.wakeup.fd) == ("closed", -1)


def test_a_wakeup_wakes(bench, relay):
    """The poll returns for it, once."""
    bench.up()
    bench.sender.wake()
    bench.turn()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(bench.wakeup.fd)


def test_a_forked_child_closes_only_its_own_copies(bench, relay):
    """The parent's connection goes on."""
    bench.log()
    bench.up()
    kept = os.dup(bench.sender._fd)
    try:
        bench.sender.forget_in_child()
        assert (bench.sender.state, bench.sender._sock, bench.wakeup.fd) == ("closed", None, -1)
        assert bench.out.direct_send is None
        assert bench.sender.start() is False
        assert relay.frames() == [], "it was not shut down"
    finally:
        os.close(kept)


@pytest.mark.parametrize(
    ("state", "waits"), [("retry", 2.0), ("overdue", 0.0), ("greeting", 4.0), ("late", 0.0), ("up", 7.0)]
)
def test_the_wait_is_as_long_as_nothing_is_due(bench, relay, clock, monkeypatch, state, waits):
    """No longer than allowed, nor than until the next attempt or the end of the time for the welcome."""
    waited = []

    registered = {}
    bench.wakeup.open()

    class Poll:
        def register(self, fd, events):
            registered[fd] = events

        def poll(self, timeout):
            waited.append(timeout)
            return []

    if state in ("greeting", "late", "up"):
        bench.turn() if state != "up" else bench.up()
    monkeypatch.setattr(module, "_unpatched", lambda name, what: Poll)
    bench.sender._next_try = clock.now + (2.0 if state == "retry" else -1.0)
    bench.sender._deadline = clock.now + (4.0 if state == "greeting" else -1.0)
    Sender._wait(bench.sender, 7.0, want_write=False)
    assert waited == [pytest.approx(waits * 1000)]
    assert registered == dict.fromkeys({bench.wakeup.fd, bench.sender._fd} - {-1}, select.POLLIN)
    if state == "up":
        Sender._wait(bench.sender, 7.0, want_write=True)
        assert registered[bench.sender._fd] == select.POLLIN | select.POLLOUT
        assert registered[bench.wakeup.fd] == select.POLLIN


# --- for a person -----------------------------------------------------------------------------------------------------


def test_the_summary_says_what_did_not_arrive(bench):
    """And why; nothing when everything did."""
    bench.sender.print_summary()
    assert bench.told == []
    bench.log("info", "info", "info")
    bench.sender.print_summary()
    bench.out.reject(1, "rejected", "rejected")
    bench.out.overrun = 2
    bench.out.combine()
    bench.sender._last_error = "it is gone"
    bench.sender.print_summary()
    bench.sender.refusal = "go away"
    bench.sender.print_summary("at close")
    path = bench.relay.path
    dropped = "3 had been dropped (overflow 2, rejected 1)"
    slow = f"the relay at {path} did not take or confirm them in time"
    assert bench.told == [
        f"at exit: 3 of 3 lines NOT DELIVERED: 3 never left this process ({slow})",
        f"at exit: 5 of 5 lines NOT DELIVERED: 2 never left this process (no relay at {path}: it is gone), {dropped}",
        f"at close: 5 of 5 lines NOT DELIVERED: 2 never left this process (the relay refused: go away), {dropped}",
    ]


def test_the_summary_tells_what_was_sent_from_what_was_not(bench, relay):
    """Nobody knows of those that were sent and not confirmed."""
    bench.log("info", "info")
    bench.up()
    bench.sender.print_summary()
    bench.out.stop_direct()
    bench.log()
    bench.sender.print_summary()
    why = f"(the relay at {relay.path} did not take or confirm them in time)"
    assert bench.told == [
        f"at exit: 2 of 2 lines perhaps NOT DELIVERED: sent, but never confirmed {why}",
        f"at exit: 1 of 3 lines NOT DELIVERED: 1 never left this process {why}; 2 more were sent, but never confirmed",
    ]


@pytest.fixture
def printer(sock, capfd):
    """A sender that really prints."""
    wakeup = Wakeup()
    return Sender(Outbox(1 << 20, on_blocked=wakeup.set), wakeup, path=sock, make_hello=bytes, exit_timeout=0.5)


def test_a_line_on_stderr(printer, capfd, monkeypatch):
    """Bounded, so that a pipe takes it at once; never a traceback."""
    printer._print_stderr("t\udc80ext")
    assert capfd.readouterr().err == f"robo_trader.log_relay[{os.getpid()}]: t\\udc80ext\n"
    printer._print_stderr("x" * 2000)
    assert len(capfd.readouterr().err) == module.STDERR_BYTES
    monkeypatch.setattr(module.os, "write", lambda fd, data: 1 / 0)
    printer._print_stderr("x")
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", None)
    printer._print_stderr("x")
    assert capfd.readouterr().err == ""


def test_a_stderr_that_is_full_or_another_file_is_left_alone(printer):
    """A log line must not reach a broker because number 2 was closed and used again; nobody waits for a reader."""
    kept = os.dup(2)
    one, other = socket.socketpair()
    read, write = os.pipe()
    try:
        os.dup2(one.fileno(), 2)
        printer._print_stderr("x")
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(100)
        again = Sender(printer._out, Wakeup(), path=None, make_hello=bytes, exit_timeout=0.5)
        other.send(b"what somebody types does not matter")
        again._print_stderr("x")
        assert other.recv(100).endswith(b": x\n")
        printer._stderr = None
        os.set_blocking(write, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, bytes(4096))
        os.set_blocking(write, True)
        os.dup2(write, 2)
        printer._print_stderr("nobody waits")
    finally:
        os.dup2(kept, 2)
        for fd in (kept, read, write):
            os.close(fd)
        one.close()
        other.close()


@pytest.mark.parametrize("full", [True, False])
def test_a_stderr_that_nobody_reads_is_left_alone(sock, full):
    """A pipe whose reader has gone: where the program did not have SIGPIPE ignored, writing would end it."""
    kept = os.dup(2)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])  # so that it is seen and ends nothing
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        with contextlib.suppress(BlockingIOError):
            while full:
                os.write(write, bytes(4096))
        os.set_blocking(write, True)
        os.dup2(write, 2)
        printer = Sender(
            Outbox(1 << 20, on_blocked=Wakeup().set), Wakeup(), path=sock, make_hello=bytes, exit_timeout=1
        )
        printer._stderr = None
        os.close(read)
        printer._print_stderr("x")
        assert signal.SIGPIPE not in signal.sigpending()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(write)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])


# --- helpers ----------------------------------------------------------------------------------------------------------


def test_where_the_relay_is_looked_for(monkeypatch, tmp_path):
    """What the environment says, the system's directory, the user's, a directory of our own in the temporary one."""
    for name in ("LOGRELAY_SOCKET", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    isdir = []
    monkeypatch.setattr(module.os.path, "isdir", lambda path: path in isdir)
    monkeypatch.setattr(module, "_place_of", lambda path: None)  # whatever relays this machine has
    assert module.default_path() == f"/tmp/logrelay-{os.getuid()}/ingest.sock"
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert module.default_path() == f"/elsewhere/logrelay-{os.getuid()}/ingest.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/5")
    assert module.default_path() == "/run/user/5/logrelay/ingest.sock"
    isdir.append("/run/logrelay")
    assert module.default_path() == "/run/logrelay/ingest.sock"
    monkeypatch.setenv("LOGRELAY_SOCKET", "/told")
    assert module.default_path() == "/told"


def test_without_a_path_the_usual_places_are_tried(bench, monkeypatch):
    """Anew at each attempt, and told to a person."""
    bench.sender._path = None
    monkeypatch.setenv("LOGRELAY_SOCKET", "/nowhere/s")
    bench.turn()
    assert bench.told[0].startswith("no relay at /nowhere/s (FileNotFoundError")
    bench.relay.listen()
    monkeypatch.setenv("LOGRELAY_SOCKET", bench.relay.path)
    bench.clock.now = bench.sender._next_try
    bench.up()


def test_a_directory_somebody_may_have_planted(tmp_path, monkeypatch):
    """Ours, and nobody else's to change; other directories are not looked at."""
    ours = tmp_path / f"logrelay-{os.getuid()}"
    path = str(ours / "ingest.sock")
    with pytest.raises(FileNotFoundError):
        module._check_directory(path)
    ours.mkdir(mode=0o755)
    module._check_directory(path)
    said = r"^\[Errno 13\] the directory belongs to or can be changed by another user: "
    for mode in (0o775, 0o757):
        ours.chmod(mode)
        with pytest.raises(PermissionError, match=said) as caught:
            module._check_directory(path)
        assert caught.value.filename == str(ours)
    ours.chmod(0o700)
    uid = os.getuid()
    monkeypatch.setattr(module.os, "lstat", lambda path: types.SimpleNamespace(st_uid=uid + 1, st_mode=stat.S_IFDIR))
    with pytest.raises(PermissionError):
        module._check_directory(path)
    monkeypatch.undo()
    ours.rmdir()
    ours.symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        module._check_directory(path)
    (tmp_path / "other").mkdir(mode=0o777)
    (tmp_path / "other").chmod(0o777)
    module._check_directory(str(tmp_path / "other" / "ingest.sock"))


def test_jitter_fills_its_range(monkeypatch):
    """Not from `random`, whose state may be the strategy's seed."""
    for byte, value in ((0, 2.0), (255, 4.0), (51, 2.4)):
        monkeypatch.setattr(module.os, "urandom", lambda count, byte=byte: bytes([byte] * count))
        assert module._between(2.0, 4.0) == pytest.approx(value)


def test_the_standard_library_is_found_behind_gevent(monkeypatch):
    """Its own objects, where somebody has replaced them."""
    assert module._unpatched("select", "poll") is select.poll
    asked = types.SimpleNamespace(get_original=lambda name, what: (name, what))
    monkeypatch.setitem(sys.modules, "gevent.monkey", asked)
    assert module._unpatched("select", "poll") == ("select", "poll")


def test_only_a_socket_has_an_inode_that_counts(tmp_path):
    """Files and closed descriptors have none."""
    one, other = socket.socketpair()
    with one, other:
        seen = os.fstat(one.fileno())
        assert module._socket_inode(one.fileno()) == (seen.st_dev, seen.st_ino)
        assert module._socket_inode(one.fileno()) != module._socket_inode(other.fileno())
        closed = one.fileno()
    assert module._socket_inode(closed) is None
    with (tmp_path / "f").open("w") as file:
        assert module._socket_inode(file.fileno()) is None


# --- silence ----------------------------------------------------------------------------------------------------------

PINGS = {"ping_s": 5.0, "dead_s": 12.0}


def test_a_ping_is_answered_between_two_lines(bench, relay):
    """By the thread, whoever sends the lines; a pong needs no answer."""
    bench.up(**PINGS)
    assert bench.out.direct_send is not None
    relay.send([4])
    bench.turn()
    assert relay.frames() == [[5]]
    assert bench.out.direct_send is not None, "calls go on sending by themselves"
    relay.send([5])
    bench.turn()
    assert (relay.frames(), bench.sender.state, bench.out.bad_answers) == ([], "up", 0)


def test_a_silent_relay_is_pinged_and_given_up(bench, relay, clock):
    """What is not acked is sent again on the next connection, and no line is suspected for it."""
    bench.log()
    bench.up(**PINGS)
    began = clock.now
    for at, sent in ((7.4, []), (7.5, [[4]]), (11.9, [])):
        clock.now = began + at
        bench.turn()
        assert relay.frames() == sent
    clock.now = began + 12.0
    bench.turn()
    assert (bench.sender.state, bench.sender.given_up, bench.sender._losses) == ("down", 1, 0)
    assert bench.sender._last_error == "the relay was silent for 12 s"
    assert relay.frames() == [None]
    clock.now = bench.sender._next_try
    assert [frame[1] for frame in bench.up(**PINGS)] == [1]
    assert bench.sender.reconnects == 1


def test_what_has_come_is_read_before_the_silence_is_judged(bench, relay, clock):
    """A process that was frozen, or whose thread did not run, finds the relay's pings in its socket."""
    bench.up(**PINGS)
    relay.send([4])
    clock.now += 3600
    bench.turn()
    assert (bench.sender.state, bench.sender.given_up, relay.frames()) == ("up", 0, [[5]])


def test_a_relay_from_before_pings_may_be_silent_for_ever(bench, relay, clock):
    bench.up()
    clock.now += 86_400
    bench.turn(3)
    assert (bench.sender.state, relay.frames()) == ("up", [])


def test_no_ping_while_the_kernel_takes_no_bytes(bench, relay, clock):
    """It would stand in the middle of a line. The relay, which does not read, pings by itself."""
    bench.up(**PINGS)
    bench.sender._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    bench.out.stop_direct()
    while not bench.out.to_write:
        bench.log(*["info"] * 10, body=b"\xda\x80\x00" + b"x" * 32_768)
        bench.turn()
    before = bench.out.to_write
    clock.now += 8
    bench.turn()
    assert bench.out.to_write == before
    relay.send([4])
    bench.turn()
    assert (bench.out.to_write, bench.sender.state) == (before, "up")
    got = relay.frames()  # there is room again, and the rest of a line still comes first
    bench.out.delegate(bench.sender._send_small, frames.PING)
    while bench.out.unsent():
        bench.turn()
        got += relay.frames()
    assert [frame[:2] for frame in got + relay.frames()] == [[1, seq] for seq in range(1, bench.out.seq + 1)]


def test_a_relay_that_is_never_met_gets_longer_each_time(bench, relay, clock):
    """A tunnel whose network is dead takes every connection; 30 s, then 60."""
    waited = []
    for given_up in (1, 2, 3):
        bench.turn()
        assert bench.sender.state == "greeting"
        began = clock.now
        while bench.sender.state == "greeting":
            clock.now += 1
            bench.turn()
        waited.append(clock.now - began)
        assert bench.sender.given_up == given_up
        clock.now = bench.sender._next_try
    assert waited == pytest.approx([30, 60, 120], abs=10)


class FrozenPoll:
    """A poll in which the process was stopped for 20 s."""

    def __init__(self, clock, real=select.poll):
        self.clock, self.real = clock, real()

    def register(self, *what):
        self.real.register(*what)

    def poll(self, most):
        self.clock.now += 20
        return self.real.poll(most)


def test_the_end_of_a_connection_after_a_freeze_is_no_lines_fault(bench, relay, clock, monkeypatch):
    """The relay has closed it for the silence: five such ends must not cost the first unacked line."""
    bench.log()
    for _ in range(module.MAX_LOSSES + 1):
        bench.up(**PINGS)
        relay.connection.close()
        with monkeypatch.context() as patch:
            patch.setattr(select, "poll", lambda: FrozenPoll(clock))
            bench.turn()
        assert (bench.sender.state, bench.sender._losses) == ("down", 0)
        clock.now = bench.sender._next_try
    assert bench.out.dropped["rejected_repeatedly"] == 0


def test_a_machine_that_stood_still_gives_no_relay_up(bench, relay, clock, monkeypatch):
    """The relay on it could say nothing either: it is listened to for as long as ever, welcomed or not."""
    with monkeypatch.context() as patch:
        patch.setattr(select, "poll", lambda: FrozenPoll(clock))
        bench.turn(4)
        relay.accept()
        assert (bench.sender.state, bench.sender.given_up) == ("greeting", 0)
        relay.send([0, {"protocol": 1, "acked": 0, **PINGS}])
        bench.turn(4)
    assert (bench.sender.state, bench.sender.given_up) == ("up", 0)
    clock.now += 12
    bench.turn()
    assert (bench.sender.state, bench.sender.given_up) == ("down", 1)


def test_a_welcome_that_has_come_is_read_before_another_relay_is_looked_for(bench, relay, clock):
    """Also when the path leads elsewhere by now: this one answers, if late."""
    bench.turn()
    relay.accept()
    relay.send([0, {"protocol": 1, "acked": 0}])
    relay.listener.close()
    relay.listen()
    clock.now = bench.sender._deadline + 1
    bench.turn()
    assert bench.sender.state == "up"


def test_an_attempt_that_took_long_is_followed_by_a_pause(bench, relay, clock):
    """It may be the machine that is slow, and a busy loop would make it slower."""

    def slow_hello():
        clock.now += 5
        raise OSError

    bench.sender._make_hello = slow_hello
    bench.turn()
    assert bench.sender._next_try == pytest.approx(clock.now + module.RETRY_FIRST_S)
