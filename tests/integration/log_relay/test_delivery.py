"""D1 to D8: everything arrives once, in order, whatever the relay and the socket do."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial

import msgpack
import pytest

from tests.support.threads import running
from tests.support.waiting import DEADLINE_S


def test_d1_relay_killed_again_and_again(ship, peer_process, balanced, wait_for, scale):
    """kill -9 of the relay in the middle of things: every line is in its journal exactly once, in order."""
    processor = ship(peer_process.path)
    stop = threading.Event()
    produced = Counter()

    def work(n):
        while not stop.is_set():
            for _ in range(20):
                produced[n] += 1
                pad = "p" * (produced[n] * 37 % 2000)
                processor(None, "info", {"event": "t", "n": n, "i": produced[n], "pad": pad})
            time.sleep(0.001)

    with running(*(partial(work, n) for n in range(2)), stop=stop.set):
        for _ in range(12 * scale):
            peer_process.start()
            size = os.path.getsize(peer_process.journal)
            wait_for(lambda size=size: os.path.getsize(peer_process.journal) > size)
            peer_process.kill()
    peer_process.start()
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    entries = peer_process.entries()
    seqs = []
    for entry in entries:
        seqs.extend([entry[2]] if entry[1] == 1 else range(entry[2], entry[3] + 1))
    assert seqs == list(range(1, stats["produced"] + 1))
    assert stats["dropped"]["overflow"] + stats["acked"] == stats["produced"] == sum(produced.values())
    for n in produced:
        mine = [e[5]["i"] for e in entries if e[1] == 1 and e[5]["n"] == n]
        assert mine == sorted(set(mine))
        if not sum(stats["dropped"].values()):
            assert mine == list(range(1, produced[n] + 1))


def test_d2_reconnect_and_quiet_waiting(root, make_peer, sock):
    """While no relay is there it is looked for now and then, with pauses; a relay that appears is found."""
    code = f"""
import sys, time
sys.path.insert(0, {root!r})
from robo_trader.log_relay import LogRelayProcessor
from tests.support.waiting import wait_for
attempts = []
def spy(name, args):
    if name == "socket.connect":
        attempts.append(time.monotonic())
sys.addaudithook(spy)
ship = LogRelayProcessor({sock!r})
ship(None, "info", {{"event": "first"}})
wait_for(lambda: len(attempts) >= 9, "nine attempts")
print(*(later - earlier for earlier, later in zip(attempts, attempts[1:])), flush=True)
sys.stdin.readline()
wait_for(lambda: ship.stats()["acked"], "the ack")
print("found", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            pauses = [float(pause) for pause in child.stdout.readline().split()]
            peer = make_peer().start()
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "found\n"
            child.stdin.close()
            child.wait(DEADLINE_S)
        finally:
            child.kill()
    # A busy machine makes pauses longer, never shorter: the last ones are those of the full back-off. The first call
    # tries at once, and its thread again at once.
    assert min(pauses[1:]) > 0.01
    assert min(pauses[-2:]) > 0.3
    assert [e["event"] for e in peer.events()] == ["first"]


def test_d2_backoff_is_capped_and_jittered():
    """The pauses grow from 50 ms to at most 0.8 s and are not the same for all traders."""
    from robo_trader.log_relay import sender as module  # noqa: PLC0415
    from robo_trader.log_relay.descriptors import Wakeup  # noqa: PLC0415
    from robo_trader.log_relay.outbox import Outbox  # noqa: PLC0415

    schedules = []
    for _ in range(5):
        wakeup = Wakeup()
        out = Outbox(1 << 20, on_blocked=wakeup.set)
        sender = module.Sender(out, wakeup, path="/nowhere", make_hello=bytes, exit_timeout=0.0)
        sender._reported_at = float("inf")
        pauses = []
        for _attempt in range(10):
            sender._schedule_retry(0.0)  # at another time the sum is rounded, one time in a hundred to above the bound
            pauses.append(sender._next_try)
        assert 0.02 < pauses[0] <= module.RETRY_FIRST_S
        assert all(module.RETRY_LONGEST_S * 0.5 < p <= module.RETRY_LONGEST_S for p in pauses[5:])
        schedules.append(tuple(pauses))
    assert len(set(schedules)) == 5


def tear(peer, processor):
    """Log until the kernel has taken half a frame of a peer that no longer reads; returns the lines it took.

    Where the room ends between two frames nothing is torn, and nothing more is sent: then again with another size.
    """
    count = 0
    for size in range(16_000, 6_000, -700):
        peer.read_no_more()
        for _ in range(300):
            if processor._out.to_write:
                return count
            count += 1
            processor(None, "info", {"event": "t", "i": count, "a": ["p" * size, "q" * size, "r" * size]})
        peer.reading = True
        peer.poke()
        assert processor.flush(DEADLINE_S)
    raise AssertionError("the kernel never took half a frame")


def test_d3_torn_frame(ship, make_peer, balanced, wait_for):
    """The kernel takes half a frame, then the relay dies: the whole frame comes again, the half counts for
    nothing."""
    peer = make_peer().start()
    peer.keep_raw = True
    processor = ship(max_bytes=64 * 1024 * 1024)
    processor(None, "info", {"event": "t", "i": 0})
    assert processor.flush(DEADLINE_S)
    count = tear(peer, processor)
    first = peer.connections[-1]
    peer.hang_up()
    peer.reading = True
    peer.poke()
    assert processor.flush(DEADLINE_S)
    assert [e["i"] for e in peer.events()] == list(range(count + 1))
    assert peer.complaints == []
    assert first.ended == "hung up"
    assert balanced(processor)["acked"] == count + 1


def test_d3_partial_write_goes_on(ship, make_peer, balanced):
    """The kernel takes half a frame and the relay reads on later: the other half follows, without a
    reconnect."""
    peer = make_peer().start()
    processor = ship(max_bytes=64 * 1024 * 1024)
    processor(None, "info", {"event": "t", "i": 0})
    assert processor.flush(DEADLINE_S)
    count = tear(peer, processor)
    for _ in range(10):
        count += 1
        processor(None, "info", {"event": "t", "i": count})
    peer.reading = True
    peer.poke()
    assert processor.flush(DEADLINE_S)
    assert [e["i"] for e in peer.events()] == list(range(count + 1))
    assert peer.complaints == []
    assert len(peer.connections) == 1
    assert balanced(processor)["reconnects"] == 0


def test_d4_odd_acks(ship, make_peer, balanced, wait_for):
    """Acks repeated, stale, from the future or byte by byte release what they should and nothing else."""
    peer = make_peer().start()
    peer.acking = False
    processor = ship()
    for i in range(10):
        processor(None, "info", {"event": "t", "i": i})
    peer.wait_lines(10)
    for byte in msgpack.packb([1, 4]):
        peer.send(bytes([byte]))
    wait_for(lambda: processor.stats()["acked"] == 4)
    peer.send(msgpack.packb([1, 4]) * 3 + msgpack.packb([1, 2]))
    peer.send(msgpack.packb([1, 11]) + msgpack.packb([1, 2**40]))
    wait_for(lambda: processor.stats()["bad_answers"] >= 1)
    assert balanced(processor)["acked"] == 4
    peer.send(msgpack.packb([1, 4]) * 1000 + msgpack.packb([1, 6]))
    wait_for(lambda: processor.stats()["acked"] == 6)
    assert balanced(processor)["pending"] == 4
    assert len(peer.connections) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xc1",
        b"hello",
        b"\x00" * 100,
        msgpack.packb([1]),
        msgpack.packb([1, -5]),
        msgpack.packb([1, "7"]),
        msgpack.packb([1, True]),
        msgpack.packb([9, 1]),
        msgpack.packb({"a": 1}),
        msgpack.packb([0, {"protocol": 1, "acked": 0}]),
        msgpack.packb([0, {"protocol": 2, "acked": 0}]),
        b"\xdb\xff\xff\xff\xff" + b"a" * 5000,
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 3000,
    ],
)
def test_d4_garbage(ship, peer, balanced, wait_for, garbage, capfd):
    """Bytes that are no answer end the connection, release nothing, and the lines arrive over the next
    one."""
    processor = ship()
    processor(None, "info", {"event": "one"})
    assert processor.flush(DEADLINE_S)
    peer.acking = False
    processor(None, "info", {"event": "two"})
    peer.wait_event("two")
    peer.send(garbage)
    wait_for(lambda: processor.stats()["bad_answers"] >= 1)
    wait_for(lambda: processor.stats()["reconnects"] >= 1)
    peer.acking = True
    processor(None, "info", {"event": "three"})
    assert processor.flush(DEADLINE_S)
    assert [e["event"] for e in peer.events()] == ["one", "two", "three"]
    assert balanced(processor)["acked"] == 3


def test_d4_wrong_welcome(ship, make_peer, balanced, wait_for, capfd):
    """A welcome for lines that were never logged releases nothing."""
    peer = make_peer()

    def lie(connection, frame):
        if frame[0] == 0:
            connection.sock.send(msgpack.packb([0, {"protocol": 1, "acked": 1000}]))
            return True
        return False

    peer.on_frame = lie
    peer.start()
    processor = ship()
    processor(None, "info", {"event": "t"})
    wait_for(lambda: processor.stats()["refusal"])
    assert balanced(processor)["pending"] == 1


def test_d5_refused(ship, make_peer, balanced, wait_for, capfd):
    """A relay that refuses is asked again slowly, and the reason is shown."""
    peer = make_peer()
    peer.refuse = "not today"
    peer.start()
    processor = ship()
    before = time.monotonic()
    processor(None, "info", {"event": "t"})
    wait_for(lambda: processor.stats()["state"] == "refused")
    assert processor.stats()["refusal"] == "not today"
    wait_for(lambda: "not today" in capfd.readouterr().err)  # said a moment later
    attempts = len(peer.connections)
    assert 1 <= attempts <= 1 + (time.monotonic() - before) / 2
    assert processor._sender._next_try > before + 2
    assert balanced(processor)["pending"] == 1


def test_d5_no_relay_in_any_way(ship, sock, make_peer, balanced, wait_for, tmp_path, capfd):
    """Missing path, missing directory, stale file, full backlog, a path too long, NUL, a plain file: never an
    exception."""
    stale = sock + "stale"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as gone:
        gone.bind(stale)
    full = sock + "full"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(full)
    listener.listen(0)
    waiting = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        waiting.append(client)
        try:
            client.connect(full)
        except BlockingIOError:
            break
    plain = tmp_path / "plain"
    plain.write_text("")
    for path in (sock, "/nonexistent/dir/s", stale, full, "/tmp/" + "x" * 200, "a\0b", str(plain), "/"):
        processor = ship(path)
        processor(None, "info", {"event": "t"})
        wait_for(lambda p=processor: p.stats()["state"] == "down")
        assert balanced(processor)["pending"] == 1
    # The last two get well: the backlog is served, the file is replaced by a socket.
    for client in waiting:
        client.close()
    listener.close()


def test_d5_unsafe_directory(ship, tmp_path, balanced, wait_for, make_peer, monkeypatch, capfd):
    """A per-user directory that others can write to is not trusted, one of mode 0700 is."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    folder = tmp_path / f"logrelay-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    peer = make_peer(str(folder / "ingest.sock")).start()
    processor = ship(str(folder / "ingest.sock"))
    processor(None, "info", {"event": "t"})
    wait_for(lambda: processor.stats()["state"] == "down")
    wait_for(lambda: "another user" in capfd.readouterr().err)  # said a moment later
    assert peer.connections == []
    folder.chmod(0o700)
    peer.wait_event("t")


def test_d5_default_path_order(monkeypatch, tmp_path):
    """The socket is looked for in the order of docs/protocol.md; empty variables count as not set."""
    from robo_trader.log_relay import sender  # noqa: PLC0415

    monkeypatch.setattr(sender, "_place_of", lambda path: None)  # whatever relays this machine has
    default_path = sender.default_path
    monkeypatch.setenv("LOGRELAY_SOCKET", "/x/y.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_path() == "/x/y.sock"
    monkeypatch.setenv("LOGRELAY_SOCKET", "")
    if os.path.isdir("/run/logrelay"):
        assert default_path() == "/run/logrelay/ingest.sock"
        return
    assert default_path() == "/run/user/7/logrelay/ingest.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert default_path() == f"{tmp_path}/logrelay-{os.getuid()}/ingest.sock"
    monkeypatch.setenv("TMPDIR", "")
    assert default_path() == f"/tmp/logrelay-{os.getuid()}/ingest.sock"


def test_d5_inode_replaced(ship, make_peer, sock, balanced, capfd):
    """The socket file is replaced under a new relay while the old one goes: the trader finds the new one."""
    old = make_peer().start()
    processor = ship()
    processor(None, "info", {"event": "one"})
    assert processor.flush(DEADLINE_S)
    os.unlink(sock)
    new = make_peer()
    new.last.update(old.last)
    new.start()
    processor(None, "info", {"event": "two"})
    assert processor.flush(DEADLINE_S)
    old.stop(unlink=False)
    processor(None, "info", {"event": "three"})
    new.wait_event("three")
    assert [e["event"] for e in old.events()] == ["one", "two"]
    assert new.events()[-1]["event"] == "three"
    balanced(processor)


def test_d6_sigpipe(root, make_peer, sock):
    """With SIGPIPE at its default and the relay dying under load, the process lives and loses nothing."""
    peer = make_peer().start()
    code = f"""
import signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
sys.path.insert(0, {root!r})
from robo_trader.log_relay import LogRelayProcessor
ship = LogRelayProcessor({sock!r})
for i in range(20_000):
    ship(None, "info", {{"event": "t", "i": i}})
    if i % 1000 == 0:
        print(i, flush=True)
assert ship.flush({DEADLINE_S})
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        for _ in child.stdout:
            peer.hang_up()
        assert child.wait(DEADLINE_S) == 0
    assert [e["i"] for e in peer.events()] == list(range(20_000))
    assert peer.complaints == []


def test_d7_signals_during_sending(ship, peer, balanced, scale):
    """A signal every millisecond while lines are sent: no byte is torn or sent twice, also when the handler
    logs."""
    processor = ship()
    counter = itertools.count(1)

    def handler(*_):
        processor(None, "info", {"event": "signal", "n": next(counter)})

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for i in range(20_000 * scale):
            processor(None, "info", {"event": "main", "i": i, "pad": "p" * (i % 1000)})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert processor.flush(DEADLINE_S)
    events = peer.events()
    assert [e["i"] for e in events if e["event"] == "main"] == list(range(20_000 * scale))
    assert sorted(e["n"] for e in events if e["event"] == "signal") == list(range(1, next(counter)))
    assert len(peer.connections) == 1
    assert peer.repeats == 0
    balanced(processor)


def test_d8_a_line_goes_out_in_the_call(ship, peer, wait_for):
    """While the link is up a line is in the kernel when the call returns: no timer, no other thread is
    needed."""
    processor = ship()
    processor(None, "info", {"event": "first"})
    assert processor.flush(DEADLINE_S)
    wait_for(lambda: processor._out.direct_send is not None)
    peer.acking = False  # else the thread that hears of an ack may be in the middle of it
    for i in range(100):
        processor(None, "info", {"event": "t", "i": i})
        out = processor._out
        assert not out.unsent_low
        assert not out.unsent_high
        assert not out.to_write
        assert not out.inbox
    peer.wait_lines(101)


def test_d8_a_backlog_goes_out_in_few_sends(ship, make_peer, balanced):
    """What was queued while the relay was away is sent in batches: far fewer sends than lines."""
    processor = ship()
    for i in range(20_000):
        processor(None, "info", {"event": "t", "i": i, "pad": "p" * 50})
    sender = processor._sender
    sends = []
    drain = sender._send_batch

    def counted():
        sends.append(1)
        return drain()

    sender._send_batch = counted
    peer = make_peer().start()
    assert processor.flush(DEADLINE_S)
    assert [e["i"] for e in peer.events()] == list(range(20_000))
    assert len(sends) < 1000
    balanced(processor)
