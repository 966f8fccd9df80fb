"""A1 to A9: what a log call does to its caller, which is nothing."""

import copy
import subprocess
import sys

import pytest

from tests.support.waiting import DEADLINE_S

CHILD = """
import sys, threading, os
sys.path.insert(0, {root!r})
from robo_trader.log_relay import LogRelayProcessor
from tests.support.waiting import DEADLINE_S, wait_for
"""


WORK_S = 3 * DEADLINE_S
"""For a child that works for some seconds where nothing else runs, and waits for nobody."""


def child(root, code, *args, timeout=WORK_S):
    """Run `code` in a Python of its own, with LogRelayProcessor imported; return the finished process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD.format(root=root) + code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_a1_absent_relay_costs_no_syscall_on_a_socket(root, sock):
    """100,000 calls without a relay: none raises; the first one tries to connect, once, the others touch no socket."""
    done = child(
        root,
        """
seen = []
me = threading.get_ident()
def spy(name, args):
    if name.startswith("socket.") and threading.get_ident() == me:
        seen.append(name)
sys.addaudithook(spy)
ship = LogRelayProcessor(sys.argv[1], exit_timeout=0.0)
for i in range(100_000):
    event = {"event": "tick", "i": i, "price": 1.5}
    assert ship(None, "info", event) is event
    if not i:
        first, seen = seen, []
assert ship.stats()["produced"] == 100_000
print(first.count("socket.connect"), seen)
""",
        sock,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 []\n"


def test_a2_stalled_relay_memory_is_bounded(root, make_peer, sock, wait_for):
    """A relay that accepts, welcomes and then never reads: memory grows by the bound and 10 %, and no
    more."""
    peer = make_peer()
    peer.start()

    def then_nothing(connection, frame):
        peer.reading = False

    peer.on_frame = then_nothing
    done = child(
        root,
        """
bound = 8 * 1024 * 1024
ship = LogRelayProcessor(sys.argv[1], max_bytes=bound, exit_timeout=0.0)
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
def burst(n):
    for i in range(n):
        ship(None, "warning" if i % 10 == 0 else "info", {"event": "tick", "i": i, "note": "x" * (i % 400)})
burst(1)
wait_for(lambda: ship.stats()["state"] == "up", "the relay's welcome")
before = rss()
most = 0
for _ in range(10):  # more than twice what the bound holds
    burst(10_000)
    most = max(most, rss())
    assert ship.stats()["buffered_bytes"] <= bound
stats = ship.stats()
assert stats["produced"] == stats["acked"] + stats["pending"] + sum(stats["dropped"].values()), stats
print((most - before) / bound)
""",
        sock,
    )
    assert done.returncode == 0, done.stderr
    # The constant part (the thread, its arenas, the packer) is measured as growth too.
    assert float(done.stdout) <= 1.10 + 1 / 8


def test_a3_stopped_relay(ship, peer_process, balanced, wait_for, scale):
    """SIGSTOP, a flood, SIGCONT: no call waits, and received plus lost is produced, exactly."""
    peer_process.start()
    processor = ship(peer_process.path, max_bytes=256 * 1024)
    processor(None, "info", {"event": "first"})
    assert processor.flush(DEADLINE_S)
    peer_process.pause()
    total = 20_000 * scale
    for i in range(total):
        processor(None, "info", {"event": "tick", "i": i})
    balanced(processor)
    peer_process.resume()
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    wait_for(lambda: len(peer_process.lines()) + _lost(peer_process) == total + 1)
    assert stats["produced"] == total + 1
    assert stats["acked"] == len(peer_process.lines())
    assert stats["dropped"]["overflow"] == _lost(peer_process) > 0


def _lost(peer_process):
    return sum(last - first + 1 for _run, first, last, _cause in peer_process.lost())


def test_a4_the_argument_comes_back_untouched(ship, peer):
    """The returned object is the argument, and equals a deep copy taken before, on the fast and the careful
    way."""
    processor = ship()
    for event in (
        {"event": "plain", "n": 1, "x": 1.5, "none": None, "yes": True},
        {"event": "nested", "list": [1, {"a": (1, 2)}], "set": {1, 2}, "exc_info": False},
        {"event": "long", "text": "y" * 100_000},
        {"event": "deep", "level": "warning", "logger": "a.b", "timestamp": "now", "b": b"raw"},
    ):
        before = copy.deepcopy(event)
        assert processor(None, "info", event) is event
        assert event == before
    error = ValueError("kept")
    event = {"event": "failed", "exc_info": error}
    assert processor(None, "error", event) is event
    assert event == {"event": "failed", "exc_info": error}
    assert processor.flush(DEADLINE_S)
    assert peer.count() == 5


def hostile(method, error=ValueError):
    def bad(self, *args):
        raise error("hostile")

    if method == "__class__":
        return type("Hostile", (), {"__class__": property(bad), "__repr__": bad})()
    if method in ("items", "keys"):
        return type("Hostile", (dict,), {method: bad, "__repr__": bad})()
    return type("Hostile", (), {method: bad, "__repr__": bad, "__str__": bad})()


@pytest.mark.parametrize(
    "method",
    [
        "__repr__",
        "__str__",
        "__iter__",
        "__class__",
        "__len__",
        "__eq__",
        "__hash__",
        "__getattribute__",
        "__bool__",
    ],
)
def test_a5_hostile_values(ship, peer, method, balanced):
    """A value whose methods raise becomes a placeholder with its type's name; the other keys are intact."""
    processor = ship()
    processor(None, "info", {"event": "before", "bad": hostile(method), "good": 7, "list": [hostile(method), 8]})
    assert processor.flush(DEADLINE_S)
    (event,) = peer.events()
    assert event["event"] == "before"
    assert event["good"] == 7
    assert "Hostile" in event["bad"]
    assert "Hostile" in event["list"][0]
    assert event["list"][1] == 8
    assert balanced(processor)["degraded"] == 1


def test_a5_hostile_places(ship, peer, balanced):
    """Hostile objects as the level, the logger, the event, a key or a mapping: a line arrives for each."""
    bad = hostile("__hash__")
    processor = ship()
    processor(None, "info", {"event": "level", "level": bad})
    processor(None, "info", {"event": "logger", "logger": bad})
    processor(None, "info", {"event": bad})
    processor(None, bad, {"event": "method"})
    processor(None, "info", {"event": "items", "bad": hostile("items")})
    processor(None, "info", {"event": "key", hostile("__str__"): 1})
    assert processor.flush(DEADLINE_S)
    assert [e["event"] for e in peer.events()][:2] == ["level", "logger"]
    assert "Hostile" in peer.events()[2]["event"]
    assert peer.events()[3]["event"] == "method"
    assert peer.events()[4]["bad"] == {}
    assert any("Hostile" in key for key in peer.events()[5])
    assert balanced(processor)["acked"] == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a6_interrupts_pass(ship, peer, error, balanced):
    """KeyboardInterrupt and SystemExit from a repr reach the caller; the next 1,000 frames are in order."""

    class Stop:
        def __repr__(self):
            raise error

    processor = ship()
    with pytest.raises(error):
        processor(None, "info", {"event": "stop", "x": Stop()})
    for i in range(1000):
        processor(None, "info", {"event": "after", "i": i, "list": [i]})
    assert processor.flush(DEADLINE_S)
    assert [e["i"] for e in peer.events()] == list(range(1000))
    assert balanced(processor)["acked"] == 1000


def test_a7_no_dict(ship, peer, balanced):
    """A rendered line or nothing at all instead of an event dict: returned as it is, shipped as text,
    counted."""
    processor = ship()
    things = ["rendered", b"bytes", (({"event": "inner"},), {"extra": {}}), None, 5, ("a",), []]
    for thing in things:
        assert processor(None, "info", thing) is thing
    assert processor.flush(DEADLINE_S)
    assert [e["event"] for e in peer.events()] == [
        "rendered",
        "bytes",
        "inner",
        "<NoneType>",
        "<int>",
        "<tuple>",
        "<list>",
    ]
    assert balanced(processor)["degraded"] == len(things)


def test_a8_recursion_limit(root, peer, sock):
    """Calls with 1 to 60 Python frames left: only RecursionError may surface, and the books balance."""
    done = child(
        root,
        """
ship = LogRelayProcessor(sys.argv[1])
for _ in range(3):
    ship(None, "info", {"event": "warm", "list": [1]})
assert ship.flush(DEADLINE_S)
sys.setrecursionlimit(1000)
def dive(left, event):
    if left:
        return dive(left - 1, event)
    ship(None, "info", event)
def depth():
    n, f = 0, sys._getframe()
    while f: n, f = n + 1, f.f_back
    return n
raised = 0
for spare in range(1, 61):
    for event in ({"event": "fast", "i": spare}, {"event": "careful", "list": [spare, {"a": [1]}]}):
        try:
            dive(1000 - depth() - spare, event)
        except RecursionError:
            raised += 1
sys.setrecursionlimit(2000)
ship(None, "info", {"event": "after"})
assert ship.flush(DEADLINE_S), ship.stats()
stats = ship.stats()
assert stats["produced"] == stats["acked"] + stats["pending"] + sum(stats["dropped"].values()), stats
assert stats["pending"] == 0
assert stats["produced"] + raised >= 124, (stats, raised)
""",
        sock,
    )
    assert done.returncode == 0, done.stderr
    assert peer.events()[-1]["event"] == "after"


def test_a9_huge_values(ship, peer, balanced):
    """50 MB of text, a million elements, a data frame: one frame within the bound each, and the mark on
    it."""
    frame_type = type("DataFrame", (), {"__module__": "pandas.core.frame", "shape": (10_000, 5), "__repr__": None})
    processor = ship()
    processor(None, "info", {"event": "text", "v": "ab\u00e9" * 17_000_000})
    processor(None, "info", {"event": "list", "v": list(range(1_000_000))})
    processor(None, "info", {"event": "frame", "v": frame_type()})
    processor(None, "info", {"event": "keys", **{f"k{i}": "v" * 100 for i in range(100_000)}})
    processor(None, "info", {"event": "both", **{f"k{i}": "\U0001f600" * 10_000 for i in range(50)}})
    processor(None, "info", {"event": "x" * 10_000_000})
    processor(None, "info", {"event": "bytes", "v": bytes(20_000_000), "w": memoryview(bytes(20_000_000))})
    assert processor.flush(DEADLINE_S)
    events = peer.events()
    assert len(events) == 7
    assert all(e["_truncated"] for e in events)
    assert events[0]["v"].startswith("ab\u00e9")
    assert events[0]["v"].endswith("\u2026")
    assert events[1]["v"][:3] == [0, 1, 2]
    assert events[2]["v"] == "<DataFrame shape (10000, 5)>"
    assert events[3]["event"] == "keys"
    assert balanced(processor)["truncated"] == 7
