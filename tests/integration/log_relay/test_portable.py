"""Bots on systems that lack what only Linux has: the names are taken away before the first import."""

import signal

import pytest

from tests.support import bots as bots_module

bots = vars(bots_module)
run_bot = bots["run_bot"]

WITHOUT_LINUX = """
import _socket, fcntl, os, socket, sys
sys.platform = "darwin"
del os.eventfd, os.eventfd_read, os.eventfd_write, fcntl.F_SETSIG, fcntl.F_GETSIG
for module in (_socket, socket):
    del module.SOCK_CLOEXEC, module.SOCK_NONBLOCK, module.MSG_NOSIGNAL
"""
"""What a laptop with macOS does not have. The rest of the names are there and mean the same."""

ALSO_WITHOUT = "del fcntl.F_DUPFD_CLOEXEC, _socket.MSG_DONTWAIT, socket.MSG_DONTWAIT\n"
"""What some other systems do not have either."""

SYSTEMS = {"macOS": WITHOUT_LINUX, "bare": WITHOUT_LINUX + ALSO_WITHOUT}

WINDOWS = """
import _socket, os, socket, sys
sys.modules["fcntl"] = None
sys.platform = "win32"
del os.register_at_fork, os.getuid, _socket.AF_UNIX, socket.AF_UNIX
"""

QUIET = ("-W", "ignore:This process:DeprecationWarning")


@pytest.mark.parametrize("system", SYSTEMS)
def test_lines_arrive_in_order_and_once(peer, sock, system):
    """In the call while the kernel takes them, by the thread otherwise, which is woken for what a call left."""
    bot = run_bot(
        """
ship = LogRelayProcessor(SOCK)
assert not hasattr(os, "eventfd")
for i in range(2000):
    ship(None, "info", {"event": "t", "i": i})
assert ship.flush(DEADLINE_S), ship.stats()
until(lambda: up(ship))
wakeup = ship._sender._wakeup
assert wakeup._write_fd not in (-1, wakeup.fd)
for fd in (ship._sender._fd, wakeup.fd, wakeup._write_fd):
    assert not os.get_inheritable(fd) and not os.get_blocking(fd)
balanced(ship)
""",
        sock,
        before=SYSTEMS[system],
    )
    assert (bot.code, bot.err) == (0, "")
    assert [event["i"] for event in peer.events()] == list(range(2000))
    assert peer.repeats == 0


@pytest.mark.parametrize("what", ["connection", "wakeup", "other end", "everything"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_descriptor_that_changes_hands(peer, sock, system, what):
    """Without the mark of F_SETSIG fstat tells whose a descriptor is: not a byte goes into somebody else's."""
    bot = run_bot(
        """
import socket
ship = LogRelayProcessor(SOCK)
ship(None, "info", {"event": "t", "i": 0})
assert ship.flush(DEADLINE_S)
until(lambda: up(ship))
sender = ship._sender
ours = {"connection": sender._fd, "wakeup": sender._wakeup.fd, "other end": sender._wakeup._write_fd}
brokers = []
for name, number in ours.items():
    if sys.argv[2] in (name, "everything"):
        broker, other = socket.socketpair()
        other.setblocking(False)
        os.dup2(broker.fileno(), number)  # closes ours, and the number is the broker's now
        brokers.append((number, os.fstat(number).st_ino, other))
for i in range(1, 200):
    ship(None, "info", {"event": "t", "i": i})
assert ship.flush(DEADLINE_S), ship.stats()
ship(None, "info", {"event": "t", "i": 200})
assert ship.flush(DEADLINE_S), ship.stats()
balanced(ship)
for number, inode, other in brokers:
    assert os.fstat(number).st_ino == inode, "we closed what is not ours"
    try:
        raise SystemExit(f"the broker got {other.recv(100)}")
    except BlockingIOError:
        pass
""",
        sock,
        what,
        before=SYSTEMS[system],
    )
    assert (bot.code, "Traceback" in bot.err) == (0, False), bot.err
    assert [event["i"] for event in peer.events()] == list(range(201))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_forked_child_is_a_run_of_its_own(peer, sock, system):
    bot = run_bot(
        """
ship = LogRelayProcessor(SOCK)
ship(None, "info", {"event": "t", "who": "parent", "i": 0})
pid = os.fork()
for i in range(1, 50):
    ship(None, "info", {"event": "t", "who": "parent" if pid else "child", "i": i})
assert ship.flush(DEADLINE_S), ship.stats()
if pid == 0:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
""",
        sock,
        options=QUIET,
        before=SYSTEMS[system],
    )
    assert bot.code == 0, bot.err
    said = {who: [event["i"] for event in peer.events() if event["who"] == who] for who in ("parent", "child")}
    assert said == {"parent": list(range(50)), "child": list(range(1, 50))}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_first_line_of_a_bot_that_is_killed(peer, sock, wait_for, system):
    bot = run_bot(
        """
ship = LogRelayProcessor(SOCK)
ship(None, "info", {"event": "last words"})
os.kill(os.getpid(), signal.SIGKILL)
""",
        sock,
        before=SYSTEMS[system],
    )
    assert bot.code == -signal.SIGKILL
    wait_for(lambda: len(peer.connections) == 1 and not peer.live())
    assert [event["event"] for event in peer.events()] == ["last words"]


@pytest.mark.parametrize(
    ("taken_away", "named"),
    [
        ("import _socket, socket\ndel _socket.AF_UNIX, socket.AF_UNIX\n", "Unix domain sockets"),
        ("import select\ndel select.poll\n", "select.poll"),
        (
            WINDOWS,
            "Unix domain sockets, os.register_at_fork",
        ),
    ],
    ids=["no AF_UNIX", "no poll", "Windows"],
)
def test_a_system_on_which_it_cannot_work(sock, taken_away, named):
    """The bot runs on, one line on stderr says what is missing, and nothing piles up for a relay that never comes."""
    bot = run_bot(
        """
first, second = LogRelayProcessor(SOCK), LogRelayProcessor(SOCK)
for i in range(1000):
    event = {"event": "t", "i": i, "o": object()}
    assert first(None, "info", event) is event and second(None, "error", event) is event
assert first.flush(0) and second.flush(0)
stats = first.stats()
assert (stats["pending"], stats["produced"]) == (0, 0), stats
assert not first._sender.running and not second._sender.running
first.close(0)
""",
        sock,
        before=taken_away,
    )
    assert bot.code == 0, bot.err
    assert bot.err.count("\n") == 1, bot.err
    assert f"has no {named}: no line is shipped" in bot.err


def test_nothing_is_said_where_it_is_switched_off(sock):
    bot = run_bot(
        "LogRelayProcessor(SOCK, disabled=True)(None, 'info', {'event': 't'})\n",
        sock,
        before="import _socket, socket\ndel _socket.AF_UNIX, socket.AF_UNIX\n",
    )
    assert (bot.code, bot.err) == (0, "")
