"""F1 to F9: a forked child is a run of its own, and the parent never notices."""

import subprocess
import sys

import pytest

from tests.support import bots as bots_module

bots = vars(bots_module)
Bot, run_bot, scaled, HANGS_S = bots["Bot"], bots["run_bot"], bots["scaled"], bots["HANGS_S"]

OPTIONS = ("-W", "ignore:This process:DeprecationWarning")
"""From Python 3.12 on fork warns about any thread, and the sender is one."""

FORKING = """
def forked(child, *args):
    "Run `child` in a fork, which then ends hard; its exit code."
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(int(HANGS_S))  # faulthandler deadlocks here: its thread is not in the child
            child(*args)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def say(ship, count, **fields):
    for i in range(count):
        ship(None, "error" if i % 3 else "info", {"event": "t", "i": i, "pid": os.getpid()} | fields)
"""


def by_pid(peer):
    """The numbers of the lines by the pid they name, which must be the pid of the one run they came in."""
    runs = list(peer.lines)  # the peer's thread adds to it, and to the connections before
    pids = {c.run: c.pid for c in peer.connections if c.run}
    found = {}
    for run in runs:
        numbers = found.setdefault(pids[run], [])
        assert not numbers, "a process has two runs"
        for event in peer.events(run):
            assert event["pid"] == pids[run], "a line in another process's run"
            numbers.append(event["i"])
    return found


@pytest.mark.parametrize("held", ["baton", "_thread_baton", "_turn_baton"])
def test_f1_fork_while_a_thread_has_what_guards_the_outbox(peer, sock, held):
    """What another thread held for ever at the fork does not stop the child's first line."""
    bot = run_bot(
        FORKING
        + """
ship = LogRelayProcessor(SOCK)
say(ship, 3)
assert ship.flush(DEADLINE_S)
place = ship._out.baton if sys.argv[2] == "baton" else getattr(ship._sender, sys.argv[2])
taken, over = threading.Event(), threading.Event()
def hold():
    kept = list(place)
    place.clear()
    taken.set()
    over.wait()
    place.extend(kept)
holder = threading.Thread(target=hold)
holder.start()
taken.wait()
def child():
    say(ship, 5)
    assert ship.flush(DEADLINE_S)
    balanced(ship)
assert forked(child) == 0
over.set()
holder.join()
say(ship, 1)
assert ship.flush(DEADLINE_S)
""",
        sock,
        held,
        options=OPTIONS,
    )
    assert bot.err == ""
    assert bot.code == 0
    assert sorted(by_pid(peer).values()) == [[0, 1, 2, 0], [0, 1, 2, 3, 4]]


def test_f1_fork_at_any_moment(peer, sock):
    """Forks while four threads log as fast as they can: each child's lines arrive under its own pid and run."""
    bot = run_bot(
        FORKING
        + """
ship = LogRelayProcessor(SOCK)
stop = False
def talk(n):
    while not stop:
        ship(None, "info", {"event": "thread", "n": n})
threads = [threading.Thread(target=talk, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
def child():
    say(ship, 20)
    assert ship.flush(DEADLINE_S), ship.stats()
    assert balanced(ship)["produced"] == 20
codes = [forked(child) for _ in range(int(sys.argv[2]))]
stop = True
for thread in threads: thread.join()
assert ship.flush(DEADLINE_S)
assert balanced(ship)["pending"] == 0
assert codes == [0] * len(codes), codes
""",
        sock,
        scaled(30, 500),
        options=OPTIONS,
        hangs=scaled(HANGS_S, 100),
    )
    assert "Traceback" not in bot.err  # dropped lines are told at the end; four threads are faster than this relay
    assert bot.code == 0
    children = [run for run in peer.lines if peer.events(run)[0]["event"] == "t"]
    assert len(children) == scaled(30, 500)
    for run in children:
        assert [event["i"] for event in peer.events(run)] == list(range(20))
        assert peer.lines[run][-1][0] == 20


def test_f2_the_child_never_sends_for_its_parent(make_peer, sock):
    """The parent has thousands of lines on the way: the child sends its own only, on its own connection."""
    peer = make_peer().start()
    with Bot(
        FORKING
        + """
ship = LogRelayProcessor(SOCK)
say(ship, 1)
assert ship.flush(DEADLINE_S)
tell("up")
sys.stdin.readline()
say(ship, 30_000, pad="x" * 100)
assert ship._out.unsent(), "the kernel took everything"
def child():
    say(ship, 5)
    tell("child said", ship.stats()["produced"])
    sys.stdin.readline()
    assert ship.flush(DEADLINE_S)
    gc.collect()
pid = forked(child)
assert pid == 0
assert ship.flush(DEADLINE_S), ship.stats()
assert balanced(ship)["dropped"]["overflow"] == 0
""",
        sock,
        options=OPTIONS,
    ) as bot:
        assert bot.line() == "up"
        peer.read_no_more()
        bot.ask("go on")
        assert bot.line() == "child said 5"
        peer.reading = True
        peer.poke()
        bot.ask("go on")
        assert bot.wait() == 0, bot.err
    found = by_pid(peer)
    assert found.pop(bot.pid) == [0, *range(30_000)]
    assert list(found.values()) == [list(range(5))]
    assert peer.repeats == 0
    assert peer.complaints == []
    assert len(peer.connections) == 2


@pytest.mark.parametrize("end", ["ordinary", "collected", "closed"])
def test_f3_the_end_of_a_child_leaves_the_parent_connected(peer, sock, end):
    """A child that runs every exit handler, collects the processor or closes it: the parent's connection goes on."""
    bot = run_bot(
        FORKING
        + """
import logging
ship = LogRelayProcessor(SOCK)
say(ship, 3)
assert ship.flush(DEADLINE_S)
sender = ship._sender
faulthandler.cancel_dump_traceback_later()  # its thread is not in the child, which would wait for it at its end
pid = os.fork()
if not pid:
    signal.alarm(int(HANGS_S))
    if sys.argv[2] == "collected":
        del ship, sender
        gc.collect()
        os._exit(0)
    if sys.argv[2] == "closed":
        ship.close()
        os._exit(0)
    logging.shutdown()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
say(ship, 3)
assert ship.flush(DEADLINE_S)
assert balanced(ship)["reconnects"] == 0
""",
        sock,
        end,
        options=OPTIONS,
    )
    assert bot.err == ""
    assert bot.code == 0
    assert by_pid(peer) == {bot.pid: [0, 1, 2] * 2}
    assert len(peer.connections) == 1
    assert peer.byes[peer.run()] == [6]


def test_f4_the_relay_sees_the_parent_die_although_a_child_lives(peer, sock, wait_for):
    """The child keeps no copy of the parent's connection: the relay gets the end of it when the parent is killed."""
    with Bot(
        FORKING
        + """
ship = LogRelayProcessor(SOCK)
say(ship, 1)
assert ship.flush(DEADLINE_S)
pid = os.fork()
if not pid:
    tell("child lives")
    sys.stdin.readline()
    say(ship, 1)
    assert ship.flush(DEADLINE_S)
    os._exit(0)
signal.pause()
""",
        sock,
        options=OPTIONS,
    ) as bot:
        assert bot.line() == "child lives"
        bot.kill()
        wait_for(lambda: [c.ended for c in peer.connections] == ["EOF"])
        bot.ask("say something, child")
        wait_for(lambda: len(by_pid(peer)) == 2)
    assert peer.connections[1].pid != bot.pid


def test_f5_the_fork_hook_does_nothing_but_forget(peer, sock):
    """Right after the fork the child has no thread, socket or descriptor of ours, and everything can be closed."""
    bot = run_bot(
        FORKING
        + """
ship = LogRelayProcessor(SOCK)
say(ship, 3)
assert ship.flush(DEADLINE_S)
open_files = lambda: [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd") if int(n) > 2]
kinds = lambda: sorted(os.readlink(file).split(":")[0] for file in open_files() if os.path.lexists(file))
def child():
    assert "socket" not in kinds() and "anon_inode" not in kinds(), kinds()
    assert len(os.listdir("/proc/self/task")) == 1
    assert ship.stats()["produced"] == 0 and ship.stats()["state"] == "idle"
    os.closerange(3, 1024)
    files = [os.open("/tmp", os.O_TMPFILE | os.O_RDWR) for _ in range(300)]
    say(ship, 5)
    assert ship.flush(DEADLINE_S)
    assert all(os.fstat(file).st_size == 0 for file in files)
assert "socket" in kinds()
code = forked(child)
assert code == 0
say(ship, 1)
assert ship.flush(DEADLINE_S)
""",
        sock,
        options=OPTIONS,
    )
    assert bot.err == ""
    assert bot.code == 0
    found = by_pid(peer)
    assert found.pop(bot.pid) == [0, 1, 2, 0]
    assert list(found.values()) == [[0, 1, 2, 3, 4]]


def test_f6_a_thousand_processors_leave_nothing(peer, sock):
    """Made, used and thrown away a thousand times, then a fork: no descriptor, thread or memory of them is left."""
    bot = run_bot(
        FORKING
        + """
from robo_trader.log_relay import processor
def state():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), len(processor._living)
before = state()
for n in range(1000):
    ship = LogRelayProcessor(SOCK)
    if n % 10 == 0:
        ship(None, "info", {"event": "t", "i": n, "pid": os.getpid()})
    ref = weakref.ref(ship)
    del ship
    if ref() is not None:
        gc.collect()
    assert ref() is None
gc.collect()
until(lambda: state() == before)
def child():
    assert processor._living == {}
assert forked(child) == 0
from robo_trader.log_relay.outbox import Outbox
gc.collect()
assert not [thing for thing in gc.get_objects() if isinstance(thing, Outbox)]
""",
        sock,
        options=OPTIONS,
    )
    assert bot.err == ""
    assert bot.code == 0
    # Thrown away without a close: a line that was logged arrives all the same.
    assert sorted(event["i"] for event in peer.events()) == list(range(0, 1000, 10))


WORKER = """
import multiprocessing, os, subprocess, sys
from tests.support import bots
exec(bots.UNHURRIED)
DEADLINE_S = float(os.environ["TEST_DEADLINE_S"])
ship = LogRelayProcessor(sys.argv[1] if len(sys.argv) > 1 else os.environ["THE_SOCKET"])

def work(count):
    for i in range(count):
        ship(None, "info", {"event": "t", "i": i, "pid": os.getpid()})

if __name__ == "__main__":
    os.environ["THE_SOCKET"] = sys.argv[1]
    work(2)
    assert ship.flush(DEADLINE_S)
    if sys.argv[2] == "daemonised":
        sys.stdout.flush()
        if os.fork():
            sys.exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.closerange(0, 4096)
        os.open(os.devnull, os.O_RDWR)
        os.dup2(0, 1)
        os.dup2(0, 2)
        work(4)
        sys.exit(0)
    if sys.argv[2] == "preexec_fn":
        process = subprocess.Popen([sys.executable, "-c", ""], preexec_fn=lambda: work(1) or ship.flush(DEADLINE_S))
        assert process.wait() == 0
    else:
        context = multiprocessing.get_context(sys.argv[2])
        if sys.argv[3] == "process":
            workers = [context.Process(target=work, args=(4,)) for _ in range(2)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
        else:
            with context.Pool(2) as pool:
                pool.map(work, [4, 4], chunksize=1)
                pool.close()
                pool.join()
    work(1)
"""


@pytest.mark.parametrize(
    "how",
    [
        "fork process",
        "fork pool",
        "spawn process",
        "forkserver process",
        "forkserver pool",
        "daemonised -",
        "preexec_fn -",
    ],
)
def test_f7_every_way_to_make_a_process(peer, sock, tmp_path, wait_for, how):
    """Lines of children arrive under their own pids, also when the child ends right after its last line."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    process = subprocess.run(
        [sys.executable, *OPTIONS, str(script), sock, *how.split()],
        env=bots["environment"](),
        capture_output=True,
        text=True,
        timeout=HANGS_S,
    )
    assert (process.returncode, process.stderr) == (0, "")
    children = {"daemonised -": [4], "preexec_fn -": [1], "fork pool": None, "forkserver pool": None}.get(how, [4, 4])

    def arrived():
        found = sorted(len(numbers) for numbers in by_pid(peer).values())
        if children is None:  # one worker of a pool may do all the work
            return sum(found) == 3 + 8
        return found == sorted([*children, 2 if how == "daemonised -" else 3])

    wait_for(arrived, what=lambda: f"all lines; there are {by_pid(peer)}")
    if how not in ("preexec_fn -", "daemonised -"):  # those end by exec, and by os._exit
        wait_for(lambda: len(peer.byes) == len(by_pid(peer)), what=lambda: f"a goodbye of each; there are {peer.byes}")


def test_f8_fork_while_a_frame_is_sent_in_part(make_peer, sock):
    """The kernel took half of a batch at the fork: the parent sends the other half, the child nothing of it."""
    peer = make_peer().start()
    with Bot(
        FORKING
        + """
ship = LogRelayProcessor(SOCK)
say(ship, 1)
assert ship.flush(DEADLINE_S)
tell("up")
sys.stdin.readline()
n = 0
def in_part():
    "One line more, unless the thread still fills the rest of the buffer; whether half a frame is left."
    global n
    if ship._out.direct_send is not None:
        n += 1
        ship(None, "info", {"event": "t", "i": n, "pid": os.getpid(), "pad": "x" * 3000})
    return ship._out.to_write
until(in_part)
def child():
    assert ship._out.to_write == b""
    say(ship, 5)
    tell(n)
    sys.stdin.readline()
    assert ship.flush(DEADLINE_S)
assert forked(child) == 0
assert ship.flush(DEADLINE_S)
assert balanced(ship)["reconnects"] == 0
""",
        sock,
        options=OPTIONS,
    ) as bot:
        assert bot.line() == "up"
        peer.read_no_more()
        bot.ask("go on")
        count = int(bot.line())
        peer.reading = True
        peer.poke()
        bot.ask("go on")
        assert bot.wait() == 0, bot.err
    found = by_pid(peer)
    assert found.pop(bot.pid) == list(range(count + 1))
    assert list(found.values()) == [list(range(5))]
    assert (peer.repeats, peer.complaints) == (0, [])


@pytest.mark.parametrize("what", ["connection", "wakeup", "everything"])
def test_f9_a_descriptor_that_changes_hands(peer, sock, what):
    """Somebody closes our descriptor and opens his own under its number: not a byte of ours goes into it."""
    bot = run_bot(
        FORKING
        + """
import socket
ship = LogRelayProcessor(SOCK)
say(ship, 3)
assert ship.flush(DEADLINE_S)
until(lambda: up(ship))
sender = ship._sender
connection, wakeup = sender._fd, sender._wakeup.fd
numbers = {"connection": [connection], "wakeup": [wakeup], "everything": [connection, wakeup]}[sys.argv[2]]
brokers = []
for number in numbers:
    broker, other = socket.socketpair()
    other.setblocking(False)
    os.dup2(broker.fileno(), number)  # closes ours, and the number is the broker's now
    brokers.append((number, os.fstat(number).st_ino, other))
say(ship, 200)
assert ship.flush(DEADLINE_S), ship.stats()
say(ship, 5)
assert ship.flush(DEADLINE_S), ship.stats()
balanced(ship)
for number, inode, other in brokers:
    assert os.fstat(number).st_ino == inode, "we closed what is not ours"
    try:
        raise SystemExit(f"the broker got {other.recv(100)}")
    except BlockingIOError:
        pass
os.write(brokers[0][0], b"still works")
assert brokers[0][2].recv(100) == b"still works"
""",
        sock,
        what,
    )
    assert "Traceback" not in bot.err
    assert bot.code == 0
    assert by_pid(peer) == {bot.pid: [0, 1, 2, *range(200), *range(5)]}
