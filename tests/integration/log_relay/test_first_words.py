"""A run's first line is its call's business, and no line waits for the welcome."""

import contextlib
import os
import random
import signal
import socket
import time

import msgpack
import pytest

from tests.support import bots as bots_module
from tests.support.waiting import DEADLINE_S

bots = vars(bots_module)
Bot, run_bot, scaled = bots["Bot"], bots["run_bot"], bots["scaled"]

QUIET = ("-W", "ignore:This process:DeprecationWarning")
"""From Python 3.12 on fork warns about any thread, and the sender is one."""

DEATH = """
faulthandler.disable()
ship = LogRelayProcessor(SOCK)
def die(how):
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "_exit":
        os._exit(7)
    if how == "segfault":
        import ctypes
        ctypes.string_at(0)
    if how == "execv":
        os.execv("/bin/sh", ["sh", "-c", "exit 5"])
how, parent, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
if parent == "child":
    ship(None, "info", {"event": "parent"})
if parent != "alone":
    pid = os.fork()
    if pid:
        tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
for i in range(count):
    ship(None, "info", {"event": "last words", "i": i})
die(how)
"""
CODES = {"SIGKILL": -signal.SIGKILL, "_exit": 7, "segfault": -signal.SIGSEGV, "execv": 5}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("parent", ["alone", "child", "child of a silent parent"])
@pytest.mark.parametrize("how", CODES)
def test_a_bot_that_dies_after_its_first_lines_has_said_them(peer, sock, wait_for, how, parent, count):
    """Whatever ends it, right behind the first call or a few: those lines are in the kernel when the call returns."""
    bot = run_bot(DEATH, sock, how, parent, count, options=QUIET)
    assert CODES[how] == (bot.code if parent == "alone" else int(bot.out)), bot.err
    runs = 2 if parent == "child" else 1
    wait_for(lambda: len(peer.connections) == runs and not peer.live())
    said = [event["i"] for event in peer.events() if event["event"] == "last words"]
    assert said == list(range(count))
    assert [event["event"] for event in peer.events()].count("parent") == (parent == "child")


def test_the_thread_takes_over_the_connection_of_the_first_call(ship, peer, balanced, wait_for):
    """One connection, one hello, and each line once; the call returns with the link open for the next one."""
    processor = ship()
    processor(None, "info", {"event": "t", "i": 0})
    assert processor._out.direct_send is not None
    for i in range(1, 100):
        processor(None, "info", {"event": "t", "i": i})
        out = processor._out
        assert not out.unsent()
    assert processor.flush(DEADLINE_S)
    assert [event["i"] for event in peer.events()] == list(range(100))
    assert (len(peer.connections), peer.repeats, balanced(processor)["reconnects"]) == (1, 0, 0)


def test_a_relay_that_does_not_accept_yet_gets_everything_later(make_peer, sock, wait_for):
    """The socket is held while the relay restarts: what a bot says then is in its queue, also if it is killed."""
    peer = make_peer()
    peer.accepting = False
    peer.start()
    with Bot(
        """
ship = LogRelayProcessor(SOCK)
for i in range(100):
    ship(None, "error" if i % 3 else "info", {"event": "t", "i": i})
until(lambda: not ship._out.inbox)  # lines that came while the thread had the outbox
tell(ship._out.unsent_lines(), ship.stats()["state"])
time.sleep(1000)
""",
        sock,
    ) as bot:
        assert bot.line() == "0 greeting"
        bot.kill()
    peer.accepting = True
    peer.poke()
    peer.wait_lines(100)
    assert [event["i"] for event in peer.events()] == list(range(100))
    assert (len(peer.connections), peer.complaints) == (1, [])


@pytest.mark.parametrize("why", ["absent", "stale", "backlog full", "unsafe directory"])
def test_a_first_call_that_cannot_connect_leaves_it_to_the_thread(
    ship, make_peer, sock, tmp_path, monkeypatch, balanced, why
):
    """One attempt, no exception, no wait; the lines come when there is a relay."""
    path, waiting = sock, []
    listener = socket.socket(socket.AF_UNIX)
    if why == "unsafe directory":
        folder = tmp_path / f"logrelay-{os.getuid()}"
        folder.mkdir()
        folder.chmod(0o777)
        path = str(folder / "ingest.sock")
        peer = make_peer(path).start()
    elif why != "absent":
        listener.bind(sock)
        if why == "backlog full":
            listener.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client = socket.socket(socket.AF_UNIX)
                    waiting.append(client)
                    client.setblocking(False)
                    client.connect(sock)
        else:
            listener.close()
    processor = ship(path)
    processor(None, "info", {"event": "t", "i": 0})
    assert processor._out.direct_send is None
    for i in range(1, 10):
        processor(None, "info", {"event": "t", "i": i})
    assert balanced(processor)["pending"] == 10
    for client in waiting:
        client.close()
    listener.close()
    if why == "unsafe directory":
        assert peer.connections == []
        folder.chmod(0o700)
    else:
        peer = make_peer().start()
    assert processor.flush(DEADLINE_S)
    assert [event["i"] for event in peer.events()] == list(range(10))
    assert len(peer.connections) == 1


def test_a_signal_handler_that_says_the_first_words(peer, sock, wait_for):
    """The handler's line is the run's first, or comes in the middle of the first call: both are there, in one run."""
    code = """
def handler(*_):
    ship(None, "warning", {"event": "handler"})
signal.signal(signal.SIGUSR1, handler)
ship = LogRelayProcessor(SOCK)
if sys.argv[2] == "first":
    os.kill(os.getpid(), signal.SIGUSR1)
else:
    sent = []
    def spy(name, args):
        if name == "socket.connect" and not sent:
            sent.append(name)
            os.kill(os.getpid(), signal.SIGUSR1)
    sys.addaudithook(spy)
ship(None, "info", {"event": "main"})
os.kill(os.getpid(), signal.SIGKILL)
"""
    for number, when in enumerate(("first", "in the middle"), 1):
        assert run_bot(code, sock, when).code == -signal.SIGKILL
        wait_for(lambda n=number: len(peer.connections) == n and not peer.live())
        events = [event["event"] for event in peer.events(peer.connections[-1].run)]
        assert sorted(events) == ["handler", "main"], when


def test_a_fork_in_the_middle_of_the_first_call(peer, sock, wait_for):
    """A child that is forked while the parent connects keeps nothing of the connection: the relay sees its end."""
    with Bot(
        """
ship = LogRelayProcessor(SOCK)
make = ship._sender._make_hello
def forking():
    pid = os.fork()
    if not pid:
        tell("child lives")
        sys.stdin.readline()
        os._exit(0)
    return make()
ship._sender._make_hello = forking
ship(None, "info", {"event": "parent"})
tell("said")
time.sleep(60)
""",
        sock,
        options=QUIET,
    ) as bot:
        assert {bot.line(), bot.line()} == {"child lives", "said"}
        bot.kill()
        wait_for(lambda: [c.ended for c in peer.connections if c.run] in (["EOF"], ["ConnectionResetError"]))
    assert [event["event"] for event in peer.events()] == ["parent"]


def test_without_a_thread_nothing_is_sent_that_nobody_would_hear_the_ack_of(ship, peer, balanced, monkeypatch):
    """The first line goes out; later ones wait until a thread can be started, which takes the connection over."""
    import _thread  # noqa: PLC0415

    def none(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", none)
        processor = ship()
        for i in range(5):
            processor(None, "info", {"event": "t", "i": i})
        peer.wait_lines(1)
        assert processor._out.direct_send is None
        assert balanced(processor)["pending"] == 5
    processor(None, "info", {"event": "t", "i": 5})
    assert processor.flush(DEADLINE_S)
    assert [event["i"] for event in peer.events()] == list(range(6))
    assert len(peer.connections) == 1


def test_the_first_call_does_not_make_the_table_of_descriptors_grow(peer, sock):
    """With other threads the kernel makes who does that wait some 10 ms; the thread does it, and says nothing twice."""
    bot = run_bot(
        """
import _thread
def table():
    return [line for line in open("/proc/self/status") if line.startswith("FDSize")]
start, waiting = _thread.start_new_thread, []
_thread.start_new_thread = lambda *args: waiting.append(args) or 0
ship = LogRelayProcessor(SOCK)
before = table()
ship(None, "info", {"event": "t", "i": 0})
assert table() == before, (before, table())
sender = ship._sender
low = sender._fd
assert 0 <= low < 64
start(*waiting[0])
for i in range(1, 2_000):
    ship(None, "info", {"event": "t", "i": i})
assert ship.flush(DEADLINE_S)
assert sender._fd > low and ship._out.direct_fd == sender._fd
try:
    os.fstat(low)
except OSError:
    pass
else:
    assert os.readlink(f"/proc/self/fd/{low}") != os.readlink(f"/proc/self/fd/{sender._fd}")
balanced(ship)
""",
        sock,
    )
    assert (bot.code, bot.err) == (0, "")
    assert [event["i"] for event in peer.events()] == list(range(2_000))
    assert (len(peer.connections), peer.repeats) == (1, 0)


class Thrown(BaseException):
    """What a signal handler throws into the first call."""


# Thrown anywhere also means into callbacks of the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_thrown_into_the_first_call(ship, peer, balanced, wait_for):
    """Whenever it hits, the next line arrives, once; the books balance, and no connection is left open."""
    dice = random.Random("first call")
    hit, armed = [0], []

    def handler(*_):
        if armed:
            armed.clear()
            hit[0] += 1
            raise Thrown

    old = signal.signal(signal.SIGALRM, handler)
    try:
        for n in range(scaled(150, 5_000)):
            processor = ship()
            with contextlib.suppress(Thrown):
                armed.append(True)
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.000_02, 0.000_5))
                try:
                    processor(None, "info", {"event": "first", "n": n})
                finally:
                    armed.clear()
            signal.setitimer(signal.ITIMER_REAL, 0)
            processor(None, "info", {"event": "second", "n": n})
            assert processor.flush(DEADLINE_S), processor.stats()
            assert balanced(processor)["pending"] == 0
            run = bytes.fromhex(processor.stats()["run"])
            events = [event["event"] for event in peer.events(run)]
            assert events in (["second"], ["first", "second"])
            assert processor.close(DEADLINE_S)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert hit[0] > 0
    wait_for(lambda: not peer.live(), "the end of every connection")


# -- the welcome opens no gate -----------------------------------------------------------------------------------


def test_lines_follow_hello_on_a_reconnect_too(ship, make_peer, balanced, wait_for):
    """The relay has not answered the second hello, and has every line all the same; its welcome tells a position."""
    peer = make_peer().start()
    processor = ship()
    for i in range(10):
        processor(None, "info", {"event": "t", "i": i})
    assert processor.flush(DEADLINE_S)
    peer.acking = peer.welcoming = False
    for i in range(10, 20):
        processor(None, "info", {"event": "t", "i": i})
    peer.wait_lines(20)
    peer.hang_up()
    for i in range(20, 30):
        processor(None, "info", {"event": "t", "i": i})
    peer.wait_lines(30)
    wait_for(lambda: processor._out.direct_send is not None)
    processor(None, "info", {"event": "t", "i": 30})
    assert not processor._out.unsent()
    peer.wait_lines(31)
    assert processor.stats()["state"] == "greeting"
    assert balanced(processor)["acked"] == 10
    peer.send(msgpack.packb([0, {"protocol": 1, "acked": 20}]))
    wait_for(lambda: processor.stats()["acked"] == 20)
    assert processor.stats()["state"] == "up"
    peer.acking = True
    processor(None, "info", {"event": "t", "i": 31})
    assert processor.flush(DEADLINE_S)
    assert [event["i"] for event in peer.events()] == list(range(32))
    assert peer.complaints == []
    assert balanced(processor)["bad_answers"] == 0


@pytest.mark.parametrize("ends", [0, 1, 4])
def test_lines_in_doubt_wait_for_the_welcome(ship, make_peer, balanced, wait_for, ends):
    """Sent, not acked, dropped from memory, and the connection ends: only the welcome says which of them are lost.

    Also when more connections end before theirs has come. Both sides count the same.
    """
    peer = make_peer().start()
    processor = ship(max_bytes=256 * 1024)
    processor(None, "info", {"event": "first"})
    assert processor.flush(DEADLINE_S)
    peer.acking = peer.welcoming = False
    count = 1
    while not processor._out.sent_gaps:
        for _ in range(200):
            count += 1
            processor(None, "info", {"event": "t", "i": count, "pad": "p" * 100})
    peer.read_no_more()
    for _ in range(3_000):
        count += 1
        processor(None, "info", {"event": "t", "i": count, "pad": "p" * 100})
    peer.hang_up()
    peer.reading = True
    peer.poke()
    for number in range(ends + 1):
        wait_for(lambda n=number: len([c for c in peer.connections if c.hello]) == n + 2 and peer.live())
        assert processor.stats()["state"] in ("greeting", "connecting")
        if number < ends:
            peer.hang_up()
    had = peer.last[peer.run()]
    assert balanced(processor)["dropped"]["overflow"] == 0, "counted before anybody could know"
    assert had < count
    peer.acking = peer.welcoming = True
    peer.send(msgpack.packb([0, {"protocol": 1, "acked": had}]))
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    assert stats["dropped"]["overflow"] == peer.lost_count() > 0
    assert stats["acked"] == peer.count()
    assert stats["produced"] == count == peer.count() + peer.lost_count()
    assert peer.complaints == []


def test_a_relay_that_refuses_has_nothing(ship, make_peer, balanced, wait_for, capfd, monkeypatch):
    """Lines that went out behind hello count for nothing when hello is refused; they come when it is not."""
    monkeypatch.setattr("robo_trader.log_relay.sender.RETRY_REFUSED_S", 10 * DEADLINE_S)  # it is asked once here
    peer = make_peer()
    peer.refuse = "not today"
    peer.start()
    processor = ship()
    for i in range(5):
        processor(None, "info", {"event": "t", "i": i})
    wait_for(lambda: processor.stats()["state"] == "refused")
    processor(None, "info", {"event": "t", "i": 5})
    stats = balanced(processor)
    assert (stats["acked"], stats["pending"], processor._out.direct_send) == (0, 6, None)
    assert peer.count() == 0
    assert processor._sender._next_try > time.monotonic() + 2
    processor._sender.print_summary()
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "at exit" in line]
    assert "of 6 lines NOT DELIVERED: " in said
    assert "the relay refused: not today" in said
    peer.refuse = None
    processor._sender._next_try = 0.0
    processor._sender.wake()
    assert processor.flush(DEADLINE_S)
    assert [event["i"] for event in peer.events()] == list(range(6))


def test_a_relay_that_does_not_answer_keeps_its_connection(ship, make_peer, sock, wait_for, monkeypatch, capfd):
    """Overdue, the sender stays where its lines are; when the path leads to another socket it goes there."""
    silent = make_peer()
    silent.welcoming = silent.acking = False
    silent.start()
    processor = ship()
    for i in range(3):
        processor(None, "info", {"event": "t", "i": i})
    silent.wait_lines(3)
    # Only now: it is told of once, with the lines that wait then.
    monkeypatch.setattr("robo_trader.log_relay.sender.WELCOME_TIMEOUT_S", 0.05)
    processor._sender._deadline = 0.0
    processor._sender.wake()
    wait_for(lambda: processor._sender._reported_at is not None)
    before = processor._sender._deadline
    wait_for(lambda: processor._sender._deadline > before + 0.1)  # twice more
    assert (len(silent.connections), processor.stats()["state"]) == (1, "greeting")
    err = capfd.readouterr().err  # it was said before the time was moved on
    assert f"no relay at {sock} (it does not answer); 3 lines wait, 0 were dropped; waiting" in err
    os.unlink(sock)
    time.sleep(0.12)  # a path that leads nowhere is no better place
    assert silent.live()
    other = make_peer().start()
    assert processor.flush(DEADLINE_S)
    assert [event["i"] for event in other.events()] == [0, 1, 2]
    assert processor.stats()["dropped"] == dict.fromkeys(processor.stats()["dropped"], 0)


def test_a_default_path_that_changes_is_followed(ship, make_peer, sock, wait_for, monkeypatch):
    """Nobody answers at the socket of the environment; the variable then names another one, where somebody does."""
    monkeypatch.setattr("robo_trader.log_relay.sender.WELCOME_TIMEOUT_S", 0.05)
    silent = make_peer()
    silent.welcoming = silent.acking = False
    silent.start()
    other = make_peer(sock + "2").start()
    monkeypatch.setenv("LOGRELAY_SOCKET", sock)
    processor = ship(None)
    processor(None, "info", {"event": "t"})
    silent.wait_event("t")
    monkeypatch.setenv("LOGRELAY_SOCKET", sock + "2")
    assert processor.flush(DEADLINE_S)
    assert [event["event"] for event in other.events()] == ["t"]


def late(peer):
    """Have the relay read what there is before it answers hello, as one that dies over it never does."""
    peer.welcoming = False
    frame, ack, welcomed = peer._frame, peer._ack, set()

    def frame_then_ack(connection, *rest):
        frame(connection, *rest)
        if connection.hello and connection.ack_due is None and not connection.ended:
            connection.ack_due = time.monotonic() + 0.01

    def welcome_first(connection):
        if connection.fd not in welcomed or id(connection) not in welcomed:
            welcomed.update((connection.fd, id(connection)))
            with contextlib.suppress(OSError):
                connection.sock.send(msgpack.packb([0, {"protocol": 1, "acked": connection.acked}]))
        ack(connection)

    peer._frame, peer._ack = frame_then_ack, welcome_first
    return peer


def test_c7_a_poisonous_line_that_ends_connections_before_the_welcome(ship, make_peer, balanced, capfd, monkeypatch):
    """The relay dies over hello and poison in one read: then hello goes alone, and the line is found as ever."""
    monkeypatch.setattr("robo_trader.log_relay.keepalive.LATE_S", DEADLINE_S)  # a freeze would excuse the line
    peer = late(make_peer())
    deaths = []

    def choke(connection, frame):
        if frame[0] == 1 and frame[4].get("event") == "poison":
            deaths.append(frame[1])
            peer._end(connection, "choked")
            return True
        return False

    peer.on_frame = choke
    peer.ack_delay = 0.05
    processor = ship()
    for i in range(20):
        processor(None, "info", {"event": "before", "i": i})
    processor(None, "info", {"event": "poison"})
    for i in range(20):
        processor(None, "info", {"event": "after", "i": i})
    peer.start()
    assert processor.flush(DEADLINE_S), processor.stats()
    assert [(e["event"], e["i"]) for e in peer.events()] == [(w, i) for w in ("before", "after") for i in range(20)]
    assert 3 <= len(deaths) <= 8
    assert peer.lost_count("rejected_repeatedly") == 1
    assert balanced(processor)["dropped"]["rejected_repeatedly"] == 1
    assert peer.complaints == []
    processor(None, "info", {"event": "more"})
    peer.wait_event("more")


def test_c7_a_relay_that_dies_before_it_reads_costs_no_line(ship, make_peer, balanced, wait_for, capfd):
    """Connections that end again and again with the lines unread: nobody choked on them, so none is given up."""
    processor = ship()
    peer = make_peer()
    peer.accepting = False
    for i in range(12):
        before = processor._sender._deadline  # first: the thread may connect at once
        peer.start()
        processor(None, "info", {"event": "t", "i": i})
        wait_for(lambda before=before: processor._sender._deadline > before)
        peer.stop()
    peer.accepting = True
    peer.start()
    assert processor.flush(DEADLINE_S)
    assert [event["i"] for event in peer.events()] == list(range(12))
    assert balanced(processor)["acked"] == 12


@pytest.mark.parametrize("then", ["reads on", "hangs up"])
def test_d3_half_a_frame_before_the_welcome(ship, make_peer, balanced, wait_for, then):
    """The kernel takes half a frame behind hello: the other half follows, or the whole frame on the next connection."""
    peer = make_peer()
    peer.accepting = False
    peer.start()
    processor = ship(max_bytes=64 * 1024 * 1024)
    count = 0
    for size in range(16_000, 6_000, -700):
        for _ in range(300):
            count += 1
            processor(None, "info", {"event": "t", "i": count, "a": ["p" * size] * 3})
            if processor._out.unsent():
                break
        with contextlib.suppress(AssertionError):  # the thread fills the rest of the buffer, if it is more than nothing
            wait_for(lambda p=processor: p._out.to_write, deadline_s=0.5)
        if processor._out.to_write:
            break
        processor.close(0.0)
        processor, count = ship(max_bytes=64 * 1024 * 1024), 0
    assert processor._out.to_write, "the kernel never took half a frame"
    for _ in range(10):
        count += 1
        processor(None, "info", {"event": "t", "i": count})
    assert processor.stats()["state"] == "greeting"
    if then == "hangs up":
        peer.stop()
        peer.start()
    peer.accepting = True
    peer.poke()
    assert processor.flush(DEADLINE_S)
    run = bytes.fromhex(processor.stats()["run"])
    assert [event["i"] for event in peer.events(run)] == list(range(1, count + 1))
    assert peer.complaints == []
    assert balanced(processor)["acked"] == count


def test_a_reject_that_comes_again_behind_the_welcome_is_no_bad_answer(ship, make_peer, balanced, wait_for):
    """A relay that has used up the seq of a bad line rejects it again when it comes again before the welcome."""
    peer = make_peer()

    def reject(connection, frame):
        if frame[0] == 1 and frame[4].get("event") == "bad":
            peer.last[connection.run] = max(peer.last[connection.run], frame[1])
            if len(peer.connections) > 1:
                connection.sock.send(msgpack.packb([0, {"protocol": 1, "acked": peer.last[connection.run]}]))
                connection.sock.send(msgpack.packb([2, frame[1], "not good"]))
            return True
        return False

    peer.on_frame = reject
    peer.acking = peer.welcoming = False
    peer.start()
    processor = ship()
    processor(None, "info", {"event": "bad"})
    wait_for(lambda: sum(peer.last.values()) == 1)
    peer.hang_up()
    wait_for(lambda: processor.stats()["state"] == "up")
    peer.acking = True
    processor(None, "info", {"event": "good"})
    assert processor.flush(DEADLINE_S)
    assert balanced(processor)["bad_answers"] == 0


def test_f9_the_connection_of_the_first_call_changes_hands(peer, sock):
    """Our descriptor is closed and its number reused before any welcome: not a byte goes to whoever has it now."""
    bot = run_bot(
        """
import socket
ship = LogRelayProcessor(SOCK)
ship(None, "info", {"event": "t", "i": 0})
number = ship._sender._fd
broker, other = socket.socketpair()
other.setblocking(False)
os.dup2(broker.fileno(), number)
for i in range(1, 50):
    ship(None, "info", {"event": "t", "i": i})
assert ship.flush(DEADLINE_S), ship.stats()
balanced(ship)
try:
    raise SystemExit(f"the broker got {other.recv(100)}")
except BlockingIOError:
    pass
""",
        sock,
    )
    assert (bot.code, "Traceback" in bot.err) == (0, False), bot.err
    assert [event["i"] for event in peer.events()] == list(range(50))


# -- what is lost is said ----------------------------------------------------------------------------------------


def test_what_is_lost_at_the_end_is_said_with_its_reasons(ship, wait_for, capfd):
    """One line: how many never left and why, how many had been dropped and of what, how many are not confirmed."""
    processor = ship(max_bytes=256 * 1024)
    for i in range(5_000):
        processor(None, "info", {"event": "t", "i": i, "pad": "p" * 100})
    dropped = processor.stats()["dropped"]["overflow"]
    wait_for(lambda: processor._sender._last_error, "the thread to have looked for a relay")
    assert processor.close(0.0) is False
    said = capfd.readouterr().err.splitlines()
    (line,) = [line for line in said if "at close" in line]
    assert f"at close: 5000 of 5000 lines NOT DELIVERED: {5000 - dropped} never left this process (no relay at " in line
    assert f", {dropped} had been dropped (overflow {dropped})" in line


def test_lines_that_were_sent_but_not_confirmed_are_said_to_be_in_doubt(ship, make_peer, capfd):
    """They may be there: the text does not claim either."""
    peer = make_peer()
    peer.acking = False
    peer.start()
    processor = ship()
    for i in range(7):
        processor(None, "info", {"event": "t", "i": i})
    peer.wait_lines(7)
    assert processor.close(0.5) is False
    err = capfd.readouterr().err
    assert "at close: 7 of 7 lines perhaps NOT DELIVERED: sent, but never confirmed (the relay at " in err
    assert err.count("\n") == 1


def test_a_processor_that_is_thrown_away_says_what_it_could_not_deliver(ship, sock, wait_for, capfd):
    """Nobody closes it and its thread gives up: that is an end, too."""
    from robo_trader.log_relay import LogRelayProcessor  # noqa: PLC0415

    processor = LogRelayProcessor(sock, exit_timeout=0.05)
    processor(None, "info", {"event": "t"})
    sender = processor._sender
    del processor
    wait_for(lambda: not sender.running)
    assert "after its processor was thrown away: 1 of 1 lines NOT DELIVERED" in capfd.readouterr().err


def test_a_text_that_is_cut_is_still_a_line(ship, make_peer, wait_for, capfd):
    """A long reason in wide letters: one line, with its end."""
    peer = make_peer()
    peer.refuse = "\u4e2d" * 1_000
    peer.start()
    processor = ship()
    processor(None, "info", {"event": "t"})
    err = wait_for(lambda: capfd.readouterr().err, "a line on stderr")
    assert err.count("\n") == 1
    assert err.endswith("\n")
