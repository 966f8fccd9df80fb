"""I1 to I6: what an owner may ask, switch off and rely on; and the list of where every item is tested."""

import os
import re
import threading
import time
from pathlib import Path

import pytest

from tests.support import bots as bots_module
from tests.support.processors import taken
from tests.support.threads import running
from tests.support.waiting import DEADLINE_S

bots = vars(bots_module)
run_bot, scaled, ROOT, HANGS_S = bots["run_bot"], bots["scaled"], Path(bots["ROOT"]), bots["HANGS_S"]

ITEMS = {"A": 9, "B": 6, "C": 7, "D": 8, "E": 7, "F": 9, "G": 6, "H": 9, "I": 6}
"""How many items each letter has. An item is tested by the functions named after it in this folder, or by these:"""

ELSEWHERE = {
    "H5": {
        "tests/unit/logging/test_foreign.py": [
            "test_foreign_records_come_once_with_any_number_of_root_handlers",
            "test_records_that_structlog_made_are_not_shipped_again",
            "test_custom_levels_go_by_their_number",
            "test_odd_extras_do_not_replace_ours",
        ],
    },
    "H7": {"tests/unit/logging/test_chain.py": ["test_contextvars_of_one_task_never_appear_in_another"]},
    "I1": {
        "tests/unit/logging/test_chain.py": ["test_planted_secrets_never_reach_the_socket"],
        "tests/unit/logging/test_tracebacks.py": ["test_exceptions_arrive_as_text_without_secrets_and_locals"],
    },
    "I6": {"Makefile": []},  # measured, not tested: make bench-trader
}


def test_every_item_has_a_test():
    """A1 to I6: each is tested in this folder or in tests/unit/log_relay under its own name, or as listed."""
    folders = (Path(__file__).parent, ROOT / "tests" / "unit" / "log_relay")
    here = "".join(path.read_text() for folder in folders for path in folder.glob("test_*.py"))
    tested = {name.upper() for name in re.findall(r"^def test_([a-i]\d)_", here, re.MULTILINE)}
    wanted = {f"{letter}{number}" for letter, count in ITEMS.items() for number in range(1, count + 1)}
    assert tested | set(ELSEWHERE) == wanted
    for file, names in (place for places in ELSEWHERE.values() for place in places.items()):
        text = (ROOT / file).read_text()
        for name in names:
            assert f"def {name}(" in text


@pytest.mark.parametrize("fault", ["group may write", "all may write", "symbolic link"])
def test_i2_a_directory_somebody_may_have_planted(ship, peer, tmp_path, monkeypatch, wait_for, fault, capfd):
    """The per-user directory in a shared temp directory must be ours alone: nothing is sent to a socket in another."""
    folder = tmp_path / f"logrelay-{os.getuid()}"
    if fault == "symbolic link":
        folder.symlink_to(Path(peer.path).parent)
    else:
        folder.mkdir()
        folder.chmod(0o720 if fault == "group may write" else 0o702)
    os.symlink(peer.path, folder / "ingest.sock") if fault != "symbolic link" else os.symlink(
        peer.path, Path(peer.path).parent / "ingest.sock"
    )
    processor = ship(str(folder / "ingest.sock"))
    processor(None, "info", {"event": "t"})
    wait_for(lambda: processor.stats()["state"] == "down")
    wait_for(lambda: "PermissionError" in capfd.readouterr().err)  # said a moment later
    assert peer.connections == []


def test_i3_stats_never_wait(ship, make_peer, wait_for):
    """All numbers are there at any moment: with the baton taken for ever by another thread, and in mid-traffic."""
    peer = make_peer()
    peer.acking = False
    peer.start()
    processor = ship()
    processor(None, "info", {"event": "t"})
    names = {
        "produced", "acked", "pending", "buffered_bytes", "max_bytes", "dropped", "degraded", "truncated", "excluded",
        "reconnects", "oldest_unacked_age", "state", "run",
    }  # fmt: skip
    stop = threading.Event()
    failed = []

    def ask():
        last = 0
        try:
            while not stop.is_set():
                stats = processor.stats()
                assert names <= set(stats)
                assert stats["produced"] >= last
                last = stats["produced"]
        except BaseException as error:
            failed.append(error)

    with running(ask, ask, ask, stop=stop.set):
        for i in range(3_000):
            processor(None, "info", {"event": "t", "i": i})
    assert not failed
    old = processor.stats()["oldest_unacked_age"]
    assert processor.stats()["oldest_unacked_age"] > old > 0
    baton = wait_for(lambda: taken(processor._out.baton), "the baton")
    assert processor.stats()["produced"] == 3_001
    processor._out.baton += baton
    peer.acking = True


@pytest.mark.parametrize("way", ["environment", "argument"])
def test_i4_disabled(peer, sock, way):
    """Switched off there is no thread, no descriptor and no hook; the event comes back, nothing is counted as lost."""
    bot = run_bot(
        """
import multiprocessing
hooks = []
os.register_at_fork = lambda **options: hooks.append(options)
before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), atexit._ncallbacks()
options = {}
if sys.argv[2] == "environment":
    os.environ["LOGRELAY_DISABLED"] = "1"
else:
    options["disabled"] = True
ship = LogRelayProcessor(SOCK, **options)
event = {"event": "t", "list": [1]}
for _ in range(100):
    assert ship(None, "info", event) is event
assert ship(None, "info", "text") == "text"
assert ship.flush(0) and ship.close(0)
assert ship.stats()["state"] == "disabled" and ship.stats()["produced"] == 0
assert event == {"event": "t", "list": [1]}
assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), atexit._ncallbacks()) == before
assert hooks == []
""",
        sock,
        way,
    )
    assert (bot.code, bot.err) == (0, "")
    assert peer.connections == []


def test_i5_the_wall_clock_jumps(ship, make_peer, balanced, monkeypatch, wait_for):
    """An hour back and forth: lines stay in the order of their calls with the clock's own times, and no timer minds.

    The clock is replaced where the processor reads it; the machine's own cannot be set for one process.
    """
    real, shift = time.time_ns, [0]
    monkeypatch.setattr("robo_trader.log_relay.processor._time_ns", lambda: real() + shift[0])
    monkeypatch.setattr(time, "time", lambda: (real() + shift[0]) / 1e9)
    peer = make_peer().start()
    processor = ship()
    hour = 3_600 * 10**9
    for i, jump in enumerate((0, -hour, hour, -hour, 0)):
        shift[0] = jump
        processor(None, "info", {"event": "t", "i": i, "jump": jump})
        assert processor.flush(DEADLINE_S)
        before = processor.stats()["reconnects"]
        peer.hang_up()  # and the connection comes back in each of these times
        wait_for(lambda before=before: processor.stats()["reconnects"] > before)
    (lines,) = peer.lines.values()
    assert [line[3]["i"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line[0] for line in lines] == [1, 2, 3, 4, 5]
    now = real()
    assert all(abs(line[1] - line[3]["jump"] - now) < hour / 2 for line in lines)
    assert processor.stats()["oldest_unacked_age"] == 0.0
    balanced(processor)


@pytest.mark.timeout(900)
def test_memory_is_flat_over_a_million_lines(make_peer, sock):
    """200,000 lines (1,000,000 with LOG_RELAY_FULL=1) with a stalled relay: memory stays within the bound and 10 %."""
    peer = make_peer().start()
    peer.on_frame = lambda connection, frame: frame[0] != 0 and setattr(peer, "reading", False)
    bot = run_bot(
        """
ship = LogRelayProcessor(SOCK, exit_timeout=0.0)
bound = ship.stats()["max_bytes"]
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
ship(None, "info", {"event": "t"})
until(lambda: ship.stats()["state"] == "up")
before, most, logged = rss(), 0, 0
for _ in range(int(sys.argv[2]) // 10_000):
    for i in range(10_000):
        ship(None, "error" if i % 50 == 0 else "info", {"event": "t", "i": i, "pad": "x" * (i % 300)})
    most = max(most, rss())
    stats = ship.stats()
    assert stats["buffered_bytes"] <= bound
    balanced(ship)
assert stats["dropped"]["overflow"] > 0
print((most - before) / bound)
""",
        sock,
        scaled(200_000, 1_000_000),
        hangs=scaled(HANGS_S, 2 * HANGS_S),
    )
    assert bot.code == 0, bot.err
    peer.reading = True
    peer.poke()
    assert float(bot.out) <= 1.10
