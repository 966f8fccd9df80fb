"""E1 to E7: however a bot ends, what it had said is at the relay, or somebody is told."""

import contextlib
import json
import mmap
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import pytest

from tests.support import bots as bots_module
from tests.support.threads import running
from tests.support.waiting import DEADLINE_S, wait_for
from tests.support.wire_peer import process_state

bots = vars(bots_module)
Bot, run_bot, scaled = bots["Bot"], bots["run_bot"], bots["scaled"]
HANGS_S = bots["HANGS_S"]

KILLS = scaled(40, 1_000)
"""Bots killed in the middle of a burst, against each of the two relays."""

FAMILY = """
atexit.register(lambda: ship(None, "info", {"event": "said after ours"}))
ship = LogRelayProcessor(SOCK, exit_timeout=float(sys.argv[3]))
def first_words():
    ship(None, "info", {"event": "said before ours", "list": [1]})
def hook(kind, error, _trace):
    ship(None, "critical", {"event": "unhandled", "exception": repr(error)})
sys.excepthook = hook
for i in range(300):
    ship(None, "info", {"event": "t", "i": i})
atexit.register(first_words)
# Before the end, which has its own budget: the lines are with the kernel, which takes some 200 at once of a relay that
# stands still, or it is known why not.
sent = lambda: not ship._out.unsent() and not ship._out.inbox
until(lambda: ship._sender._last_error if sys.argv[4] == "absent" else sent())
def main():
    if sys.argv[2] == "sys.exit":
        sys.exit(3)
    elif sys.argv[2] == "exception":
        raise RuntimeError("out of luck")
    elif sys.argv[2] == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
tell("ending")
main()
"""
ENDS = {"return": 0, "sys.exit": 3, "exception": 1, "interrupt": -signal.SIGINT}


@pytest.mark.parametrize("end", ENDS)
def test_e1_ordinary_ends_with_the_relay_up(peer, sock, end):
    """Every line arrives, also those of excepthook and of atexit handlers on both sides of ours, and then a bye."""
    bot = run_bot(FAMILY, sock, end, DEADLINE_S, "there")
    assert (bot.code, bot.err) == (ENDS[end], "")
    names = [event["event"] for event in peer.events()]
    unhandled = ["unhandled"] if end in ("exception", "interrupt") else []
    assert names == ["t"] * 300 + unhandled + ["said before ours", "said after ours"]
    assert peer.seqs() == list(range(1, len(names) + 1))
    assert peer.byes[peer.run()][-1] == len(names)


@pytest.mark.parametrize(
    ("end", "relay"),
    [
        *((end, "absent") for end in ENDS),
        ("return", "mute"),
        ("exception", "never acking"),
        ("interrupt", "never acking"),
    ],
)
def test_e2_ordinary_ends_with_the_relay_down(make_peer, sock, end, relay):
    """The process ends within its budget, with its own exit code, and counts on stderr what did not arrive."""
    if relay != "absent":
        peer = make_peer()
        peer.welcoming = peer.acking = relay != "mute"
        peer.start()
        peer.on_frame = lambda connection, frame: relay == "never acking" and frame[0] != 0
    with Bot(FAMILY, sock, end, 0.4, relay) as bot:
        assert bot.line() == "ending"
        # The budget is 0.4 s to send and as much for the thread; the rest is for a machine that is busy.
        assert bot.wait() == ENDS[end]
    unhandled = end in ("exception", "interrupt")
    said = [line for line in bot.err.splitlines() if "at exit: " in line]
    # By our own exit handler, and again for the line of the handler after ours, unless the kernel took that line.
    counts = [301 + unhandled, 302 + unhandled][: 2 if relay == "absent" else 1]
    assert [int(line.split("at exit: ")[1].split()[0]) for line in said] == counts, said
    if relay == "absent":
        words = f"lines NOT DELIVERED: {{}} never left this process (no relay at {sock}: FileNotFoundError: "
    else:
        words = f"lines perhaps NOT DELIVERED: sent, but never confirmed (the relay at {sock} did not "
    assert all(words.format(count) in line for count, line in zip(counts, said, strict=True)), said
    assert "Traceback" not in bot.err


UNCAUGHT = """
ship = LogRelayProcessor(SOCK, level="warning" if sys.argv[2] == "quiet" else None)
how = sys.argv[2]
if how != "silent":
    ship(None, "error", {"event": "t"})
def broken(secret="password=hunter2222"):
    raise RuntimeError("out of luck, " + secret)
async def awaited():
    broken()
class Panic(BaseException):
    pass
class Odd(Exception):
    def __str__(self):
        raise ValueError
    __bool__ = __len__ = __str__
if how in ("main", "silent", "quiet"):
    broken()
elif how == "odd":
    raise Odd
elif how == "asyncio":
    import asyncio
    asyncio.run(awaited())
elif how == "panic":
    raise Panic("out of luck, password=hunter2222")
elif how == "unredacted":
    ship = LogRelayProcessor(SOCK, redact=False)
    ship(None, "error", {"event": "t"})
    broken()
elif how == "hook":
    sys.excepthook = lambda *_: None
    broken()
elif how == "system's hook":
    def shown(*_): pass
    shown.__module__ = "apport_python_hook"
    sys.excepthook = shown
    broken()
elif how == "caught":
    try:
        broken()
    except RuntimeError as error:
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__.tb_next
elif how == "prompt":
    sys.ps1 = "> "
    broken()
elif how == "interrupt":
    raise KeyboardInterrupt
elif how == "exit":
    sys.exit("out of luck")
elif how == "closed":
    ship.close()
    broken()
"""


@pytest.mark.parametrize("how", ["main", "asyncio", "odd", "quiet", "system's hook", "panic"])
def test_an_exception_that_nobody_catches_is_the_last_line(peer, sock, how):
    """Also where the bot has no hook for it; Python prints it all the same, and the run ends with a bye."""
    bot = run_bot(UNCAUGHT, sock, how)
    assert bot.code == 1
    assert ("Traceback" in bot.err) == (how != "system's hook")
    last = peer.events()[-1]
    assert [event["event"] for event in peer.events()] == ["t", "exception.unhandled"]
    assert peer.lines[peer.run()][-1][2] == "critical"
    shown = "<traceback (ValueError)>" if how == "odd" else "Traceback (most recent call last):"
    assert last["exception"].startswith(shown)
    assert "hunter2222" not in last["exception"]
    assert peer.byes[peer.run()][-1] == 2
    kind = {"odd": "Odd", "panic": "Panic"}.get(how, "RuntimeError")
    assert peer.failures[peer.run()] == [f"uncaught {kind}"]


def test_the_exception_at_the_end_is_redacted_in_any_case(peer, sock):
    """With redact=False the program's own redaction stands before the processor, where this line does not come by."""
    run_bot(UNCAUGHT, sock, "unredacted")
    told = [event for event in peer.events() if event["event"] == "exception.unhandled"]
    assert told
    assert all("RuntimeError: out of luck" in event["exception"] for event in told)
    assert "hunter2222" not in str(told)


SPAWNING = """
import multiprocessing, sys
sys.path.insert(0, sys.argv[2])
from tests.support import bots
exec(bots.UNHURRIED)
ship = LogRelayProcessor(sys.argv[1])
ship(None, "info", {"event": "imported"})
def work():
    ship(None, "info", {"event": "child"})
    raise RuntimeError("out of luck")
if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[3]).Process(target=work)
    child.start()
    child.join()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_that_begins_anew_tells_its_exception_once(peer, sock, root, tmp_path, method):
    """It imports the main module again, and makes a processor of its own."""
    path = tmp_path / "bot.py"
    path.write_text(SPAWNING)
    subprocess.run([sys.executable, path, sock, root, method], capture_output=True, check=True, timeout=HANGS_S)
    peer.read_all()
    told = ["imported", "imported", "child", "exception.unhandled"]
    assert [event["event"] for event in peer.events()] == told


@pytest.mark.parametrize("how", ["hook", "caught", "prompt", "interrupt", "exit", "closed", "silent"])
def test_nothing_is_told_of_an_exception_that_is_none_of_ours(peer, sock, how):
    """The host's hook tells it; it was caught; somebody sits at a prompt, or asked for the end; nothing was said."""
    run_bot(UNCAUGHT, sock, how)
    assert [event["event"] for event in peer.events()] == ([] if how == "silent" else ["t"])
    if how == "hook":  # which tells of the exception, and not of the end
        assert peer.failures == {peer.run(): ["uncaught RuntimeError"]}
    else:
        assert peer.failures == {}


CHILD = """
import multiprocessing
ship = LogRelayProcessor(SOCK)
def work(is_broken):
    ship(None, "info", {"event": "child"})
    if is_broken:
        raise RuntimeError("out of luck")
try:
    raise KeyError("of the parent")
except KeyError:
    for is_broken in (False, True):
        child = multiprocessing.get_context("fork").Process(target=work, args=(is_broken,))
        child.start()
        child.join()
print("done")
"""


def test_an_exception_that_ends_a_multiprocessing_child_is_told(peer, sock):
    """Nothing else could tell it, as multiprocessing calls no hook; one that the parent handles is not the child's."""
    bot = run_bot(CHILD, sock)
    assert bot.code == 0
    assert [event["event"] for event in peer.events()] == ["child", "child", "exception.unhandled"]
    assert "RuntimeError: out of luck" in peer.events()[-1]["exception"]
    assert list(peer.failures.values()) == [["uncaught RuntimeError"]]


LEAVING = """
import multiprocessing
ship = LogRelayProcessor(SOCK)
def work(status):
    ship(None, "info", {"event": "child"})
    sys.exit(status)
sys.stderr = open(os.devnull, "w")
for status in (None, 0, False, 3, "out of luck", 130, 143):
    child = multiprocessing.get_context("fork").Process(target=work, args=(status,))
    child.start()
    child.join()
    tell(child.exitcode)
"""


def test_a_child_that_leaves_with_a_status_says_so(peer, sock):
    """Its exit passes by where the processor says goodbye; of the program's own nothing can be seen."""
    with Bot(LEAVING, sock) as bot:
        assert [bot.line() for _ in range(7)] == ["0", "0", "0", "3", "1", "130", "143"]
        bot.wait()
    wait_for(lambda: sum(map(len, peer.byes.values())) == 7, "seven goodbyes")
    assert sorted(peer.failures.values()) == [["exit status 1"], ["exit status 3"]]


INTERRUPTED = """
class Slow(Exception):
    def __str__(self):
        if threading.current_thread() is threading.main_thread():
            return "slow"  # Python's own print of it
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait()
ship = LogRelayProcessor(SOCK)
ship(None, "info", {"event": "said"})
raise Slow
"""


def test_an_interruption_while_the_exception_is_formatted_leaves_the_goodbye(peer, sock):
    """What was said is delivered, and so is that the run failed."""
    run_bot("import signal, threading\n" + INTERRUPTED, sock)
    wait_for(lambda: sum(map(len, peer.byes.values())) == 1, "the goodbye")
    assert peer.events()[0]["event"] == "said"
    assert list(peer.failures.values()) == [["uncaught Slow"]]


def test_a_failure_is_said_to_a_relay_that_comes_late_too(make_peer, sock):
    """A hello of another connection says it at once, and the bye is the last thing said."""
    with Bot(
        """
ship = LogRelayProcessor(SOCK, exit_timeout=4 * DEADLINE_S)  # a half of it is for the exception
ship(None, "info", {"event": "t"})
until(lambda: ship.stats()["state"] == "up")
class Ended(Exception):
    asked = 0
    def __str__(self):
        Ended.asked += 1
        if Ended.asked > 1:
            tell("dying")
            sys.stdin.readline()
        return "out of luck"
raise Ended
""",
        sock,
    ) as bot:
        peer = make_peer().start()
        assert bot.line() == "dying"
        peer.hang_up()
        bot.ask("go on")
        bot.wait()
    assert peer.byes[peer.run()][-1] == 2
    said = [connection.hello.get("failed") for connection in peer.connections]
    assert said == [None] + ["uncaught Ended"] * (len(said) - 1)
    assert len(said) > 1


OWN_REDACTOR = """
import asyncio, multiprocessing, sys, threading
sys.path.insert(0, sys.argv[2])
from tests.support import bots
exec(bots.UNHURRIED)
import structlog
from robo_trader.log_relay import LogRelayHandler, LogRelayProcessor
from robo_trader.logger import get_logger, setup_structlog
how, fault = sys.argv[3:5]
def hide(logger, method, event):
    if "exception" in event and fault == "raises":
        raise KeyError("swordfish")
    if "exception" in event and fault == "drops":
        raise structlog.DropEvent
    if "exception" in event and fault == "odd":
        return None
    assert logger.name and event["logger"] and method == event["level"]
    return {key: str(value).replace("swordfish", "[hidden]") for key, value in event.items()}
def hide_event(event):
    return hide(threading.current_thread(), "critical", {**event, "logger": "x", "level": "critical"})
def set_up(**more):
    setup_structlog(socket=sys.argv[1], hooks=how in ("hooks", "thread", "task"), **more)
def work():
    get_logger("x").info("t")
    raise RuntimeError("out of luck, swordfish")
async def forgotten():
    async def fail():
        work()
    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])
if how == "handler":
    import logging
    logging.getLogger().addHandler(LogRelayHandler(sys.argv[1], redact=hide_event, exit_timeout=bots.DEADLINE_S))
    logging.getLogger("x").warning("t")
    raise RuntimeError("out of luck, swordfish")
if how == "own processor":
    set_up(relay=LogRelayProcessor(sys.argv[1]), redactor=hide)
else:
    set_up(redactor=None if how == "anew" else hide)
if how == "anew":
    get_logger("x").info("of the setup before")
    set_up(redactor=hide)
elif how == "closed":
    get_logger("x").info("of the setup before")
    setup_structlog(relay=False)
    set_up(redactor=hide)
if __name__ == "__main__":
    if how in ("main", "hooks", "anew", "closed", "own processor"):
        work()
    elif how == "asyncio":
        async def main():
            work()
        asyncio.run(main())
    elif how == "task":
        asyncio.run(forgotten())
    elif how == "thread":
        threading.Thread(target=work).start()
    else:
        child = multiprocessing.get_context(how).Process(target=work)
        child.start()
        child.join()
"""
OWN_WAYS = ["main", "asyncio", "anew", "closed", "own processor", "fork", "spawn", "forkserver", "handler"]
"""In these the processor tells of the exception; in the others a line of the chain does."""


def run_with_own_redactor(peer, tmp_path, *args):
    path = tmp_path / "bot.py"
    path.write_text(OWN_REDACTOR)
    subprocess.run([sys.executable, path, *args], capture_output=True, check=False, timeout=HANGS_S)
    peer.read_all()


@pytest.mark.parametrize("how", [*OWN_WAYS, "hooks", "thread", "task"])
def test_an_own_redactor_sees_the_exception_that_ends_the_bot(peer, sock, root, tmp_path, how):
    """Whoever tells of it: what only the owner's function knows to be a secret is not shipped."""
    run_with_own_redactor(peer, tmp_path, sock, root, how, "none")
    told = [event for event in peer.events() if "exception" in event]
    assert len(told) == 1
    assert "RuntimeError: out of luck, [hidden]" in told[0]["exception"]
    assert "t" in [event["event"] for event in peer.events()]
    assert "swordfish" not in str(peer.events())


@pytest.mark.parametrize(
    ("how", "fault"),
    # structlog's DropEvent is for chains of structlog, so the handler's function cannot drop a line by it.
    [
        pair
        for pair in product([*OWN_WAYS, "hooks", "thread", "task"], ["raises", "drops", "odd"])
        if pair != ("handler", "drops")
    ],
)
def test_an_own_redactor_that_fails_lets_nothing_out(peer, sock, root, tmp_path, how, fault):
    """What it would have made of the exception nobody knows: a note is shipped, or nothing if it drops the line."""
    run_with_own_redactor(peer, tmp_path, sock, root, how, fault)
    names = [event["event"] for event in peer.events()]
    assert "t" in names
    told = [name for name in names if name.startswith("[redacted: the redactor failed")]
    if fault == "drops":
        assert not told
    elif how in OWN_WAYS:
        assert len(told) == 1
    assert not [event for event in peer.events() if "exception" in event]
    assert "swordfish" not in str(peer.events())


def test_a_copy_that_lacks_the_redaction_shows_nothing_of_an_exception(peer, sock):
    """The function may be one that cannot be pickled; what it hides is not shipped for that."""
    bot = run_bot(
        """
import pickle
first = LogRelayProcessor(SOCK, redact=False)
first.redact_reports(lambda event: event)
ship = pickle.loads(pickle.dumps(first))
ship(None, "info", {"event": "t"})
raise RuntimeError("swordfish")
""",
        sock,
    )
    assert bot.code == 1
    assert [event["event"] for event in peer.events()] == ["t", "exception.unhandled"]
    assert "swordfish" not in str(peer.events())


SLOW_WORDS = """
ship = LogRelayProcessor(SOCK, exit_timeout=float(sys.argv[3]))
ship(None, "info", {"event": "t"})
class Slow(Exception):
    asked = 0
    def __str__(self):
        Slow.asked += 1
        if Slow.asked > 1:  # Python itself asks first, to print it
            tell("asked again")
            threading.Event().wait()
        return "out of luck"
def hang(event):
    tell("asked again")
    threading.Event().wait()
if sys.argv[2] == "child":
    import multiprocessing
    def work():
        ship(None, "info", {"event": "t"})
        Slow.asked = 1
        raise Slow
    sys.stderr = None  # what multiprocessing prints of it would ask once more
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
elif sys.argv[2] == "redactor":
    ship.redact_reports(hang)
    raise RuntimeError("swordfish")
elif sys.argv[2] == "exits":
    ship.redact_reports(lambda event: sys.exit(7))
    raise RuntimeError("swordfish")
else:
    raise Slow
"""


@pytest.mark.parametrize("how", ["main", "child", "redactor"])
@pytest.mark.parametrize("exit_timeout", [0, 1])
def test_an_exception_that_never_says_what_it_is_does_not_hold_up_the_end(peer, sock, how, exit_timeout):
    """A bot's last exception may block in its own code; the bot ends all the same, and its death is told."""
    bot = run_bot(SLOW_WORDS, sock, how, exit_timeout)
    assert bot.code == (0 if how == "child" else 1)
    last = peer.events()[-1]
    assert last["event"] == "exception.unhandled"
    kind = "RuntimeError" if how == "redactor" else "Slow"
    assert last["exception"] == f"{kind}: [not shown: there was no time to format it]"


def test_an_exception_whose_redaction_raises_an_exit_is_told_by_its_kind(peer, sock):
    """Nothing of its text is shown, and the sender thread goes on."""
    bot = run_bot(SLOW_WORDS, sock, "exits", DEADLINE_S)
    assert bot.code == 1
    assert peer.events()[-1]["exception"] == "RuntimeError: [not shown: it could not be formatted]"
    assert peer.byes[peer.run()][-1] == 2


def test_lines_that_wait_are_sent_while_an_exception_is_formatted(peer, sock):
    """The thread that sends them is the one that asks the exception: who waits for it sends meanwhile."""
    bot = run_bot(
        """
ship = LogRelayProcessor(SOCK, exit_timeout=4 * DEADLINE_S)  # a half of it is for the exception
ship(None, "info", {"event": "t"})
class Slow(Exception):
    asked = 0
    def __str__(self):
        Slow.asked += 1
        if Slow.asked > 1:
            for n in range(1000):
                ship(None, "info", {"event": "said meanwhile", "n": n, "pad": "x" * 4000})
            until(lambda: ship.stats()["acked"] == 1001)
        return "out of luck"
raise Slow
""",
        sock,
    )
    assert (bot.code, bot.err.splitlines()[-1]) == (1, "Slow: out of luck")
    assert len(peer.events()) == 1002
    assert peer.events()[-1]["exception"].endswith("Slow: out of luck")


DEATH = """
ship = LogRelayProcessor(SOCK)
ship(None, "info", {"event": "t", "i": 0})
until(lambda: up(ship))
for i in range(1, 200):
    ship(None, "info", {"event": "t", "i": i, "list": [i]})
if sys.argv[2] == "_exit":
    os._exit(7)
if sys.argv[2] == "segfault":
    faulthandler.disable()
    import ctypes
    ctypes.string_at(0)
os.kill(os.getpid(), getattr(signal, sys.argv[2]))
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("death", "code"),
    [("SIGTERM", -signal.SIGTERM), ("_exit", 7), ("SIGKILL", -signal.SIGKILL), ("segfault", -signal.SIGSEGV)],
)
def test_e3_sudden_deaths(peer, sock, wait_for, death, code):
    """While the link is up X is zero: a line whose call returned right before the death is at the relay."""
    bot = run_bot(DEATH, sock, death)
    assert bot.code == code
    wait_for(lambda: peer.connections and not peer.live())
    assert [event["i"] for event in peer.events()] == list(range(200))
    assert peer.byes == {}


def test_e3_the_first_lines(peer, sock, wait_for):
    """Before the link is up X is what connecting takes: nothing but the welcome has to be waited for, no timer."""
    bot = run_bot(
        """
ship = LogRelayProcessor(SOCK)
began = time.perf_counter()
ship(None, "info", {"event": "t", "i": 0})
until(lambda: not ship._out.unsent() and ship.stats()["state"] == "up")
print(round((time.perf_counter() - began) * 1000, 2))
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
""",
        sock,
    )
    assert bot.code == -signal.SIGKILL
    wait_for(lambda: peer.connections and not peer.live())
    assert [event["i"] for event in peer.events()] == [0]
    print(f"X of the first line, in ms: {bot.out.strip()}")


NURSERY = """
import mmap, struct
ROOM = 200  # lines on the way at most: as many as the smallest socket buffer of a stock kernel takes

def doomed(name, place):
    shared = mmap.mmap(os.open(place, os.O_RDWR), 8)
    ship = LogRelayProcessor(SOCK, app=name)
    ship(None, "info", {"event": "t", "bot": name, "n": 1})
    until(lambda: up(ship) and ship._out.acked == 1)
    n = 1
    while True:
        for _ in range(ROOM - 20):
            n += 1
            if n % 5:
                ship(None, "info", {"event": "t", "bot": name, "n": n})
            else:
                ship(None, "error", {"event": "t", "bot": name, "n": n, "list": ["x" * (n % 50)]})
            shared[:] = struct.pack("q", n)
        until(lambda: ship.stats()["pending"] < 20 and up(ship))

faulthandler.cancel_dump_traceback_later()
for line in sys.stdin:
    what, *words = line.split()
    if what == "spawn":
        pid = os.fork()
        if not pid:
            try:
                faulthandler.dump_traceback_later(HANGS_S, exit=True)
                doomed(*words)
            finally:
                os._exit(9)
        tell(pid)
    else:
        os.kill(int(words[0]), signal.SIGKILL)
        tell(os.waitstatus_to_exitcode(os.waitpid(int(words[0]), 0)[1]))
"""


def kill_bots(sock, folder, wait_for):
    """Let `KILLS` bots log, and kill each in the middle of it; returns by name how many calls had returned."""
    dice = random.Random("kill -9")
    returned = {}
    with Bot(NURSERY, sock) as nursery:
        for number in range(KILLS):
            name, place = f"bot{number}", Path(folder, f"bot{number}")
            place.write_bytes(bytes(8))
            with open(place, "r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
                nursery.ask(f"spawn {name} {place}")
                pid = nursery.line()
                wanted = dice.choice((2, 3, 20, 200, 1_000))
                wait_for(lambda shared=shared, wanted=wanted: struct.unpack("q", shared[:])[0] >= wanted)
                nursery.ask(f"kill {pid}")
                assert nursery.line() == str(-signal.SIGKILL)
                returned[name] = struct.unpack("q", shared[:])[0]
            place.unlink()
    return returned


def check_kept(returned, kept):
    for name, count in returned.items():
        numbers = kept.get(name, [])
        assert len(numbers) >= count, f"{name}: {count} calls had returned, {len(numbers)} lines are there"
        assert numbers == list(range(1, len(numbers) + 1)), f"{name}: not each line once and in order"
    print(f"{len(returned)} bots killed, {sum(returned.values())} lines whose call had returned, all there")


@pytest.mark.timeout(900)
def test_e3_killed_in_the_middle_of_a_burst(peer, sock, tmp_path, wait_for):
    """Kill -9 again and again (1,000 times with LOG_RELAY_FULL=1): no line whose call had returned is missing."""
    returned = kill_bots(sock, tmp_path, wait_for)
    wait_for(lambda: len({c.run for c in peer.connections if c.run}) == KILLS and not peer.live())
    kept = {}
    for event in peer.events():
        kept.setdefault(event["bot"], []).append(event["n"])
    check_kept(returned, kept)


@contextlib.contextmanager
def real_relay(folder):
    """`python -m logrelay serve`, up; yields the process and a way to read its journal: the relay's own SQLite file."""
    journal, sock = Path(folder, "journal.db"), Path(folder, "s")
    command = [sys.executable, "-m", "logrelay", "serve", "--port", "0", "--socket", str(sock)]
    with subprocess.Popen(
        [*command, "--journal", str(journal)], env=bots["environment"](), stderr=subprocess.PIPE, text=True
    ) as relay:
        try:
            assert "ready" in relay.stderr.readline()

            def entries():
                with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=DEADLINE_S)) as db:
                    rows = db.execute("SELECT CAST(body AS BLOB) FROM lines ORDER BY seq").fetchall()
                return [json.loads(row[0]) for row in rows]

            # A pipe that nobody reads would stop the relay after some 700 crashes that it tells of.
            with running(relay.stderr.read):
                try:
                    yield relay, sock, entries
                finally:
                    relay.send_signal(signal.SIGCONT)
                    relay.kill()
        finally:
            relay.kill()


@pytest.fixture
def home():
    """A directory with a short path: a Unix socket's may have 107 bytes."""
    folder = tempfile.mkdtemp(prefix="lr", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def crashes(entries):
    return sum(entry["context"].get("state") == "crashed" for entry in entries if entry["source"] == "logrelay")


@pytest.mark.timeout(900)
def test_e3_killed_in_the_middle_of_a_burst_with_the_real_relay(home, tmp_path, wait_for):
    """The same against `python -m logrelay serve`: every line whose call had returned is in the journal file."""
    with real_relay(home) as (_, sock, entries):
        returned = kill_bots(sock, tmp_path, wait_for)
        # The relay says that a bot crashed behind its last line.
        wait_for(lambda: crashes(entries()) == KILLS)
        kept = {}
        for entry in entries():
            if "bot" in entry["context"]:
                kept.setdefault(entry["context"]["bot"], []).append(entry["context"]["n"])
        assert not [entry for entry in entries() if entry["context"].get("notice") == "gap"]
    check_kept(returned, kept)


def test_e4_unread_acks_cost_no_line(home, wait_for):
    """A bot is killed with acks it never read: the kernel resets the connection, and the real relay still has it all.

    The bot's thread is kept from reading, the relay stands still, so that bytes wait on both sides when it dies.
    """
    code = """
from robo_trader.log_relay import frames
hello = frames.hello
frames.hello = lambda **more: hello(**more | {"ping": False})  # it will answer no ping, and must not be given up
ship = LogRelayProcessor(SOCK)
ship(None, "info", {"event": "t", "i": 0})
until(lambda: up(ship))
ship._sender._read_answers = lambda: time.sleep(0.01)
for i in range(1, 100):
    ship(None, "info", {"event": "t", "i": i})
import fcntl, struct, termios
def unread():
    return struct.unpack("i", fcntl.ioctl(ship._sender._fd, termios.FIONREAD, b"0000"))[0]
until(lambda: unread() > 0)
tell("first half")
sys.stdin.readline()
for i in range(100, 200):
    ship(None, "info", {"event": "t", "i": i})
tell(unread())
time.sleep(60)
"""
    with real_relay(home) as (relay, sock, entries), Bot(code, sock) as bot:

        def numbers():
            return [entry["context"]["i"] for entry in entries() if "i" in entry["context"]]

        assert bot.line() == "first half"
        wait_for(lambda: len(numbers()) == 100)
        relay.send_signal(signal.SIGSTOP)
        wait_for(lambda: process_state(relay.pid) == "T")
        bot.ask("go on")
        assert int(bot.line()) > 0, "there is no unread ack"
        bot.kill()
        relay.send_signal(signal.SIGCONT)
        wait_for(lambda: crashes(entries()) == 1)
        assert numbers() == list(range(200))


@pytest.mark.parametrize("place", ["runs before ours", "runs after ours"])
@pytest.mark.parametrize("relay", ["up", "absent"])
def test_e5_first_line_inside_atexit(make_peer, sock, place, relay):
    """The first line ever is logged by an atexit handler, where no thread can be started from Python 3.12 on."""
    if relay == "up":
        peer = make_peer().start()
    bot = run_bot(
        """
def last_words():
    for i in range(3):
        ship(None, "info", {"event": "t", "i": i})
if sys.argv[2] == "runs after ours":
    atexit.register(last_words)
ship = LogRelayProcessor(SOCK, exit_timeout=DEADLINE_S if sys.argv[3] == "up" else 0.3)
if sys.argv[2] == "runs before ours":
    atexit.register(last_words)
""",
        sock,
        place,
        relay,
    )
    assert bot.code == 0
    if relay == "up":
        assert [event["i"] for event in peer.events()] == [0, 1, 2]
        assert peer.byes[peer.run()][-1] == 3
        assert peer.complaints == []
        assert bot.err == ""
    else:
        assert "3 of 3 lines NOT DELIVERED" in bot.err
        assert "Traceback" not in bot.err


def test_e6_log_calls_while_the_interpreter_ends(peer, sock):
    """Threads that log to the very end, objects that log when they are torn down: no exception, no hang, all there."""
    code = """
class Loud:
    def __init__(self, name): self.name, self.ship = name, ship
    def __del__(self): self.ship(None, "info", {"event": "gone", "name": self.name})
ship = LogRelayProcessor(SOCK, exit_timeout=float(sys.argv[4]))
ship(None, "info", {"event": "t"})
until(lambda: up(ship))
gc.disable()
circle = [Loud("circle")]; circle.append(circle); del circle
if sys.argv[3] == "main":
    kept = Loud("main")
else:
    threading.kept = Loud("module")
weakref.finalize(Loud, lambda: ship(None, "info", {"event": "finalize"}))
def talk(ship=ship):
    while True:
        ship(None, "info", {"event": "thread"})
        time.sleep(0)
for _ in range(int(sys.argv[2])):
    threading.Thread(target=talk, daemon=True).start()
"""
    for place in ("main", "module"):
        bot = run_bot(code, sock, 0, place, DEADLINE_S)
        assert (bot.code, bot.err) == (0, "")
        (run,) = {connection.run for connection in peer.connections if connection.pid == bot.pid}
        assert sorted(event.get("name", event["event"]) for event in peer.events(run)) == [
            "circle",
            "finalize",
            place,
            "t",
        ]
    for _ in range(scaled(5, 50)):
        bot = run_bot(code, sock, 3, "main", 2)  # who talks on is never done, and the exit takes all of its time
        # Lines that three threads say after the goodbye may be in doubt, and are then counted.
        assert bot.code == 0
        assert not bot.err or all("NOT DELIVERED" in line for line in bot.err.splitlines())


def test_e7_no_thread_that_python_waits_for(peer, sock):
    """The sender is invisible to threading, so that nothing can wait for it; a process ends while it is at work."""
    bot = run_bot(
        """
before = len(os.listdir("/proc/self/task"))
ship = LogRelayProcessor(SOCK)
ship(None, "info", {"event": "t"})
assert ship.flush(DEADLINE_S)
assert len(os.listdir("/proc/self/task")) == before + 1
print([thread.name for thread in threading.enumerate() if not thread.daemon])
""",
        sock,
    )
    assert (bot.code, bot.err, bot.out) == (0, "", "['MainThread']\n")
    assert [event["event"] for event in peer.events()] == ["t"]
