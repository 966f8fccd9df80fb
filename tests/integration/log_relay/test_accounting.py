"""C1 to C7: bounded memory, exact books, and a word about everything that is missing."""

import ctypes
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from tests.support.threads import running
from tests.support.waiting import DEADLINE_S


def told(peer):
    """The seqs a relay heard of, as lines and as lost, each exactly once or the test fails."""
    seqs = [seq for lines in peer.lines.values() for seq, *_ in lines]
    for spans in peer.lost.values():
        for first, last, _cause in spans:
            seqs.extend(range(first, last + 1))
    assert len(seqs) == len(set(seqs))
    return sorted(seqs)


def test_c1_books_balance_under_threads(ship, make_peer, balanced, wait_for, scale):
    """Eight threads, a relay that comes and goes, a bound that is too small: the books balance and agree."""
    peer = make_peer().start()
    processor = ship(max_bytes=256 * 1024)
    stop = threading.Event()

    def work(n):
        i = 0
        while not stop.is_set():
            for _ in range(20):
                i += 1
                processor(
                    None,
                    "warning" if i % 7 == 0 else "info",
                    {"event": "t", "n": n, "i": i, "pad": "p" * (i % 300)},
                )
            time.sleep(0.005)  # the relay's thread and the sender's need the interpreter as well

    with running(*(partial(work, n) for n in range(8)), stop=stop.set):
        for _ in range(3 * scale):
            before = peer.count()
            wait_for(lambda before=before: peer.count() > before + 500)
            peer.hang_up()
            peer.stop()
            before = processor.stats()["produced"]
            wait_for(lambda before=before: processor.stats()["produced"] > before + 3000)
            peer.start()
    balanced(processor)
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    wait_for(lambda: len(told(peer)) == stats["produced"])
    assert peer.complaints == []
    assert told(peer) == list(range(1, stats["produced"] + 1))
    assert stats["pending"] == 0
    assert stats["buffered_bytes"] <= 144 * 2
    assert stats["dropped"]["overflow"] == peer.lost_count("overflow") > 0
    assert stats["acked"] == peer.count()
    assert stats["reconnects"] >= 3 * scale  # a slow machine may need another attempt
    for n in range(8):  # in order per producer
        mine = [e["i"] for e in peer.events() if e["n"] == n]
        assert mine == sorted(mine)


def test_c2_bound_in_bytes(ship, balanced):
    """Without a relay the charged bytes never exceed the bound, whatever the sizes; a huge line does not
    wedge it."""
    processor = ship(max_bytes=256 * 1024)
    for i in range(5000):
        size = (i * 7919) % 3000 if i % 100 else 5_000_000
        processor(None, ("debug", "info", "error")[i % 3], {"event": "t", "pad": "p" * size})
        assert processor.stats()["buffered_bytes"] <= 256 * 1024
    stats = balanced(processor)
    assert stats["produced"] == 5000
    assert 0 < stats["pending"] < 5000
    assert stats["truncated"] > 0


def test_c2_tiny_lines_of_mixed_levels(ship, balanced, make_peer):
    """The worst case for the gaps between kept lines stays within the bound, and is told exactly."""
    processor = ship(max_bytes=256 * 1024)
    for i in range(20_000):
        processor(None, "error" if i % 2 else "info", {})
        assert processor.stats()["buffered_bytes"] <= 256 * 1024
    stats = balanced(processor)
    peer = make_peer().start()
    assert processor.flush(DEADLINE_S)
    assert told(peer) == list(range(1, 20_001))
    assert balanced(processor)["dropped"] == stats["dropped"]
    assert peer.lost_count() == stats["dropped"]["overflow"]


def test_c3_drop_policy(ship, make_peer, balanced):
    """Over the bound the oldest line below WARNING goes first; warnings and errors stay while there are
    others."""
    processor = ship(max_bytes=256 * 1024)
    pad = "p" * 200
    for i in range(5000):
        level = "error" if i % 50 == 0 else "warning" if i % 50 == 25 else "info"
        processor(None, level, {"event": "t", "i": i, "pad": pad})
    dropped = balanced(processor)["dropped"]["overflow"]
    peer = make_peer().start()
    assert processor.flush(DEADLINE_S)
    kept = [e["i"] for e in peer.events()]
    low = [i for i in kept if i % 25]
    assert [i for i in kept if i % 25 == 0] == list(range(0, 5000, 25))
    assert low == [i for i in range(low[0], 5000) if i % 25]
    assert dropped == 5000 - len(kept) == peer.lost_count("overflow")
    assert all(span[2] == "overflow" for spans in peer.lost.values() for span in spans)
    # Only errors: the oldest of those go.
    peer.stop()
    for i in range(5000):
        processor(None, "error", {"event": "e", "i": i, "pad": pad})
    peer.start()
    assert processor.flush(DEADLINE_S)
    errors = [e["i"] for e in peer.events() if e["event"] == "e"]
    assert errors == list(range(errors[0], 5000))
    assert errors[0] > 0
    assert peer.complaints == []
    balanced(processor)


def test_c3_in_flight_lines_are_dropped_too(ship, make_peer, balanced, wait_for):
    """Lines that are on the wire but not acked may be dropped from memory; an ack shows that they were not
    lost."""
    peer = make_peer().start()
    processor = ship(max_bytes=256 * 1024)
    processor(None, "info", {"event": "t", "i": 0})
    assert processor.flush(DEADLINE_S)
    peer.acking = False
    for i in range(1, 5000):
        processor(None, "info", {"event": "t", "i": i, "pad": "p" * 100})
        if i % 500 == 0:  # the relay reads; it only does not ack
            wait_for(lambda i=i: peer.count() == i + 1)
    stats = balanced(processor)
    assert stats["buffered_bytes"] <= 256 * 1024
    assert stats["dropped"]["overflow"] == 0
    assert stats["pending"] == 4999
    wait_for(lambda: peer.count() == 5000)
    peer.acking = True
    processor(None, "info", {"event": "last"})
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    assert stats["acked"] == 5001
    assert sum(stats["dropped"].values()) == 0


def test_c3_in_flight_lines_that_were_lost(ship, make_peer, balanced, wait_for):
    """The same, but the relay dies without having them: the welcome decides, and they are told as lost."""
    peer = make_peer().start()
    processor = ship(max_bytes=256 * 1024)
    processor(None, "info", {"event": "t", "i": 0})
    assert processor.flush(DEADLINE_S)
    peer.read_no_more()
    for i in range(1, 5000):
        processor(None, "error" if i % 100 == 0 else "info", {"event": "t", "i": i, "pad": "p" * 100})
    balanced(processor)
    peer.hang_up()
    peer.reading = True
    peer.poke()
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    assert told(peer) == list(range(1, 5001))
    assert stats["dropped"]["overflow"] == peer.lost_count() > 0
    assert stats["acked"] == peer.count()
    assert {i for i in range(0, 5000, 100)} <= {e["i"] for e in peer.events()}
    assert peer.complaints == []


def test_c4_drops_are_visible_three_ways(ship, make_peer, balanced):
    """The counter, the lost frames and the holes between the lines' seqs have one sum."""
    processor = ship(max_bytes=256 * 1024)
    for i in range(10_000):
        processor(None, "error" if i % 97 == 0 else "info", {"event": "t", "i": i})
    peer = make_peer().start()
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    (run,) = peer.lines
    seqs = peer.seqs(run)
    holes = 10_000 - len(seqs)
    assert sum(stats["dropped"].values()) == peer.lost_count() == holes > 0
    assert stats["run"] == run.hex()


def test_c4_lost_frames_survive_a_reconnect(ship, make_peer, balanced, wait_for):
    """A relay that dies after hearing of a loss, but before committing it, hears of it again."""
    processor = ship(max_bytes=256 * 1024)
    for i in range(10_000):
        processor(None, "info", {"event": "t", "i": i})
    peer = make_peer()
    heard = []

    def die_at_lost(connection, frame):
        if frame[0] == 2 and len(heard) < 2:
            heard.append(frame)
            peer._end(connection, "crashed")
            return True
        return False

    peer.on_frame = die_at_lost
    peer.start()
    assert processor.flush(DEADLINE_S)
    assert len(heard) == 2
    assert heard[0] == heard[1]
    assert told(peer) == list(range(1, 10_001))
    assert peer.complaints == []
    assert balanced(processor)["dropped"]["overflow"] == peer.lost_count()


def test_c5_one_line_on_stderr(root, sock):
    """Without a relay: one line per interval, and a summary at exit; not a line more."""
    code = f"""
import sys, time
sys.path.insert(0, {root!r})
from robo_trader.log_relay import LogRelayProcessor
from robo_trader.log_relay import sender
sender.REPORT_EVERY_S = 1.0
ship = LogRelayProcessor({sock!r}, exit_timeout=0.2)
began = time.monotonic()
n = 0
while time.monotonic() < began + 2.5:
    n += 1
    ship(None, "info", {{"event": "tick"}})
    time.sleep(0.0005)
print(n, time.monotonic() - began)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S)
    lines = done.stderr.splitlines()
    assert done.returncode == 0
    count, took = done.stdout.split()
    assert 2 <= len(lines) <= float(took) + 1 + 1 + 1, lines  # at once, after each interval, a summary
    assert all(line.startswith("robo_trader.log_relay[") for line in lines)
    assert all("no relay at " + sock in line for line in lines[:-1])
    assert (
        f"at exit: {count} of {count} lines NOT DELIVERED: {count} never left this process (no relay at " in lines[-1]
    )


def sender_threads(sender):
    """Idents of the thread that runs this link, or none."""
    found = []
    for ident, frame in sys._current_frames().items():
        while frame is not None:
            if frame.f_code is type(sender).serve.__code__ and frame.f_locals["self"] is sender:
                found.append(ident)
            frame = frame.f_back
    return found


@pytest.mark.parametrize("error", [SystemExit, RuntimeError, KeyboardInterrupt])
def test_c6_killed_sender_thread(ship, peer, balanced, wait_for, error, capfd):
    """An exception thrown into the sender thread costs the connection at most: later lines arrive, none
    twice."""
    processor = ship()
    for i in range(5):
        processor(None, "info", {"event": "t", "i": i})
        assert processor.flush(DEADLINE_S)
        failures = processor.stats()["link_errors"]
        (ident,) = wait_for(lambda: sender_threads(processor._sender))
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error)) == 1
        processor._sender.wake()
        # Between two turns nothing catches it: then the thread is over, and the next line starts another.
        wait_for(lambda n=failures: processor.stats()["link_errors"] > n or not processor._sender.running)
    for i in range(5, 1000):
        processor(None, "info", {"event": "t", "i": i})
    assert processor.flush(DEADLINE_S)
    assert [e["i"] for e in peer.events()] == list(range(1000))
    balanced(processor)


def test_c6_dead_sender_thread_is_replaced(ship, peer, balanced, wait_for):
    """If the thread is gone altogether, a later call starts another one."""
    processor = ship()
    processor(None, "info", {"event": "one"})
    assert processor.flush(DEADLINE_S)
    sender = processor._sender
    sender._closing = True
    sender.wake()
    wait_for(lambda: not sender.running and not processor._out.has_sender)
    sender._closing = False
    processor(None, "info", {"event": "two"})
    processor(None, "info", {"event": "three"})
    peer.wait_event("three")
    assert [e["event"] for e in peer.events()] == ["one", "two", "three"]


def test_c7_poisonous_line(ship, make_peer, balanced, capfd, monkeypatch):
    """A line at which the relay always ends the connection is given up after some attempts; the others
    arrive."""
    monkeypatch.setattr("robo_trader.log_relay.keepalive.LATE_S", DEADLINE_S)  # a freeze would excuse the line
    peer = make_peer()
    deaths = []

    def choke(connection, frame):
        if frame[0] == 1 and frame[4].get("event") == "poison":
            deaths.append(frame[1])
            peer._end(connection, "choked")
            return True
        return False

    peer.on_frame = choke
    peer.start()
    processor = ship()
    for i in range(20):
        processor(None, "info", {"event": "before", "i": i})
    processor(None, "info", {"event": "poison"})
    for i in range(20):
        processor(None, "info", {"event": "after", "i": i})
    assert processor.flush(DEADLINE_S)
    assert [(e["event"], e["i"]) for e in peer.events()] == [(w, i) for w in ("before", "after") for i in range(20)]
    assert len(deaths) <= 8
    assert peer.lost_count("rejected_repeatedly") == 1
    assert balanced(processor)["dropped"]["rejected_repeatedly"] == 1
    assert peer.complaints == []
    # And the link is as good as new.
    processor(None, "info", {"event": "more"})
    peer.wait_event("more")


def test_c7_rejected_line(ship, make_peer, balanced, wait_for):
    """A line the relay rejects is counted and not sent again, also after a reconnect."""
    import msgpack  # noqa: PLC0415

    peer = make_peer()

    def reject(connection, frame):
        if frame[0] == 1 and frame[4].get("event") == "bad":
            peer.last[connection.run] = max(peer.last[connection.run], frame[1])
            connection.sock.send(msgpack.packb([2, frame[1], "not good"]))
            return True
        return False

    peer.on_frame = reject
    peer.start()
    peer.acking = False
    processor = ship()
    for name in ("one", "bad", "two"):
        processor(None, "info", {"event": name})
    wait_for(lambda: processor.stats()["dropped"]["rejected"] == 1)
    peer.wait_event("two")
    peer.acking = True
    peer.hang_up()
    processor(None, "info", {"event": "three"})
    assert processor.flush(DEADLINE_S)
    assert [e["event"] for e in peer.events()] == ["one", "two", "three"]
    stats = balanced(processor)
    assert stats["acked"] == 3
    assert stats["produced"] == 4
    assert peer.complaints == []
