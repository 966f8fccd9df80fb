"""The traders' server: its connections, and bytes that must not get lost whatever the other end does."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request

import msgpack
import pytest

from logrelay.ingest import connection as connection_module
from logrelay.ingest.server import TraderServer
from logrelay.listeners import UnixListener
from tests.support.waiting import DEADLINE_S


class Recorder:
    """An Intake that remembers."""

    def __init__(self):
        self.lines = {}
        self.connections = {}
        self.refusals = []
        self.over = []
        self.ticks = 0
        self.acked = 0

    def objection(self, hello):
        return None

    def hello(self, connection, hello):
        self.connections[hello.run] = connection
        self.lines.setdefault(connection, [])
        return self.acked

    def frames(self, connection, frames):
        self.lines[connection] += frames
        return []

    def refused(self, connection, reason):
        self.refusals.append(reason)

    def ended(self, connection, _end):
        self.over.append(connection)
        return False

    def process_died(self, run):
        self.over.append(run)

    def tick(self):
        self.ticks += 1
        return 0

    def seqs(self, run):
        return [frame.seq for frame in self.lines[self.connections[run]]]


def on_loop(loop_factory, scenario, **settings):
    """Run `scenario(server, recorder)` on a loop; nothing may go wrong on it unseen."""
    problems = []

    async def go():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: problems.append(context))
        recorder = Recorder()
        server = TraderServer(recorder, max_connections=settings.pop("max_connections", 500), loop=loop)
        try:
            await scenario(server, recorder)
        finally:
            await server.close()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(go())
    assert not problems, problems


async def soon(condition):
    """Wait on the loop for a condition."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come true"
        await asyncio.sleep(0.001)


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def hello(run=b"r" * 16):
    said = {"protocol": 1, "run": run, "app": "bot", "host": "box", "pid": 1, "started_ns": 0}
    return msgpack.packb([0, said])


def logs(first, last, pad=""):
    return b"".join(msgpack.packb([1, n, n, "info", {"event": f"line {n}{pad}"}]) for n in range(first, last + 1))


# --- connections --------------------------------------------------------------------------------------------


def test_two_hundred_traders_at_once(folder, loop_factory):
    """Each in pieces of its own; every line arrives once and in order."""
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        loop = asyncio.get_running_loop()

        async def trader(number):
            run = number.to_bytes(16, "big")
            sock = connect(path)
            data = hello(run) + logs(1, 60)
            step = 37 + number
            for at in range(0, len(data), step):
                await loop.sock_sendall(sock, data[at : at + step])
            return run, sock

        traders = await asyncio.gather(*(trader(number) for number in range(200)))
        await soon(lambda: all(run in recorder.connections and len(recorder.seqs(run)) == 60 for run, _ in traders))
        assert all(recorder.seqs(run) == list(range(1, 61)) for run, _ in traders)
        for _, sock in traders:
            sock.close()
        await soon(lambda: len(recorder.over) == 200)
        assert server.connection_count == 0
        assert recorder.ticks < 200 * 60 / 2, "lines are taken together"

    on_loop(loop_factory, scenario)


def test_more_traders_than_allowed_are_refused_and_said(folder, loop_factory):
    """The one too many gets a refused frame and its connection closed; the others do not notice."""
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        first = [connect(path) for _ in range(2)]
        for number, sock in enumerate(first):
            sock.send(hello(bytes([number]) * 16))
        await soon(lambda: len(recorder.connections) == 2)
        third = connect(path)
        answer = await everything(third)
        assert [frame[0] for frame in answer] == [3]
        assert "at most 2 are allowed" in answer[0][1]
        assert len(recorder.refusals) == 1
        first[0].send(logs(1, 1))
        await soon(lambda: recorder.seqs(b"\0" * 16) == [1])
        for sock in (*first, third):
            sock.close()

    on_loop(loop_factory, scenario, max_connections=2)


async def everything(sock):
    """Return every frame up to the end of the connection."""
    loop = asyncio.get_running_loop()
    data = b""
    while True:
        more = await asyncio.wait_for(loop.sock_recv(sock, 65536), DEADLINE_S)
        if not more:
            break
        data += more
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    return list(unpacker)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "an array"),
        (b"\xc1", "not msgpack"),
        (logs(1, 1), "first frame must be hello"),
        (msgpack.packb([0, {"protocol": 9}]), "protocol 9"),
        (hello() + b"\xc1", "not msgpack"),
        (hello() + msgpack.packb([9]), "kind 9"),
        (hello() + logs(1, 3) + b"\xc1" + logs(4, 4), "not msgpack"),
    ],
)
def test_garbage_is_refused_and_disturbs_nobody(folder, loop_factory, data, reason):
    """The answer is refused with a reason; lines before the garbage count; another trader goes on."""
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        good = connect(path)
        good.send(hello(b"g" * 16))
        await soon(lambda: recorder.connections)
        bad = connect(path)
        bad.send(data)
        frames = [frame for frame in await everything(bad) if frame[0] == 3]
        assert len(frames) == 1
        assert reason in frames[0][1]
        assert len(recorder.refusals) == 1
        if b"line 3" in data:
            assert recorder.seqs(b"r" * 16) == [1, 2, 3]
        good.send(logs(1, 2))
        await soon(lambda: recorder.seqs(b"g" * 16) == [1, 2])
        good.close()
        bad.close()
        await soon(lambda: server.connection_count == 0)

    on_loop(loop_factory, scenario)


def test_a_connection_that_says_nothing_is_ended(folder, loop_factory, monkeypatch):
    """It holds a place among the traders; half a hello is nothing, too."""
    monkeypatch.setattr(connection_module, "HELLO_TIMEOUT_S", 0.05)
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        silent, half = connect(path), connect(path)
        half.send(hello()[:20])
        for sock in (silent, half):
            assert [frame[0] for frame in await everything(sock)] == [3]
            sock.close()
        await soon(lambda: server.connection_count == 0)
        assert recorder.over == []

    on_loop(loop_factory, scenario)


def test_half_a_frame_at_the_end_is_forgotten(folder, loop_factory):
    """The line comes again after the next hello."""
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        sock = connect(path)
        data = hello() + logs(1, 2)
        sock.send(data[:-3])
        sock.close()
        await soon(lambda: recorder.over)
        assert recorder.seqs(b"r" * 16) == [1]
        assert recorder.refusals == []

    on_loop(loop_factory, scenario)


# --- the last words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ack_the_dead", [False, True])
@pytest.mark.parametrize("size", [20, 2000])
def test_no_byte_is_lost_when_a_trader_dies_with_acks_unread(folder, loop_factory, ack_the_dead, size):
    """The relay does not read, the trader writes and dies: all it wrote is taken, though the kernel says ECONNRESET.

    Written to while it is dead, the relay's ack meets EPIPE; that must not close the reading side either.
    """
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        for attempt in range(10):
            run = attempt.to_bytes(16, "big")
            sock = connect(path)
            sock.send(hello(run) + logs(1, 10))
            await soon(lambda run=run: run in recorder.connections and len(recorder.seqs(run)) == 10)
            connection = recorder.connections[run]
            connection.ack(5 + attempt % 3, now=True)
            server.pause_reading()
            sock.setblocking(True)
            sock.sendall(logs(11, 40, "x" * size))
            sock.close()  # with the welcome and the ack unread: the same for the kernel as a SIGKILL
            if ack_the_dead:
                connection.ack(9, now=True)
                await asyncio.sleep(0)
                connection.ack(10, now=True)
            server.resume_reading()
            await soon(lambda connection=connection: connection in recorder.over)
            assert recorder.seqs(run) == list(range(1, 41))

    on_loop(loop_factory, scenario)


def test_a_trader_that_does_not_read_its_acks_does_not_disturb(folder, loop_factory):
    """Its socket fills up with acks; the relay drops them, keeps reading, and stays on its feet."""
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        sock = connect(path)
        sock.send(hello())
        await soon(lambda: recorder.connections)
        connection = recorder.connections[b"r" * 16]
        for seq in range(1, 50_000):
            connection.ack(seq, now=True)
        sock.send(logs(1, 5))
        await soon(lambda: len(recorder.seqs(b"r" * 16)) == 5)
        sock.close()
        await soon(lambda: recorder.over)

    on_loop(loop_factory, scenario)


def test_drain_takes_what_is_in_the_sockets(folder, loop_factory):
    """At the stop of the relay everything traders have already sent is taken, also while reading was paused."""
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        sock = connect(path)
        sock.send(hello())
        await soon(lambda: recorder.connections)
        server.pause_reading()
        sock.send(logs(1, 1000))
        await server.drain()
        assert recorder.seqs(b"r" * 16) == list(range(1, 1001))
        with pytest.raises(OSError, match=r"refused|No such file"):
            connect(path)
        sock.close()

    on_loop(loop_factory, scenario)


KILLED = """
    import os, signal, socket, sys
    import msgpack
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(sys.argv[1])
    said = {"protocol": 1, "run": b"k" * 16, "app": "killed", "host": "h", "pid": os.getpid(), "started_ns": 0}
    sock.sendall(msgpack.packb([0, said]))
    for seq in range(1, 401):
        sock.sendall(msgpack.packb([1, seq, seq, "info", {"event": f"line {seq}"}]))
        if seq == 200:
            sys.stdin.read(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_words_of_a_killed_process_arrive(house, until):
    """A process that logs, never reads an ack and is killed by SIGKILL has said it all; the crash is told after it."""
    relay = house()
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(relay.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    until(lambda: len(read_logs(relay, "killed")) >= 200)
    child.stdin.write(b"x")
    child.stdin.close()
    assert child.wait(DEADLINE_S) == -signal.SIGKILL
    until(lambda: any("crashed" in line["message"] for line in read_logs(relay, "logrelay")))
    assert [line["message"] for line in read_logs(relay, "killed")] == [f"line {n}" for n in range(1, 401)]


def read_logs(relay, source):
    """Read every line of a source over plain HTTP."""
    url = f"http://127.0.0.1:{relay.port}/logs?limit=100000&source={source}"
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        lines = [json.loads(line) for line in answer.read().splitlines()]
    return [line for line in lines if line["source"] == source]


# --- with a whole relay behind it ---------------------------------------------------------------------------


def test_lines_are_acked_and_a_second_connection_takes_over(house):
    """The newer connection of a run owns it: it hears what is kept, the older one is closed, no line is doubled."""
    relay = house()
    one = relay.trader()
    assert one.hello() == 0
    one.log(1, 5)
    one.acked(5)
    two = relay.trader(run=one.run)
    assert two.hello() == 5
    assert one.frame() is None
    two.log(4, 8)
    two.acked(8)
    three = relay.trader(run=one.run)
    assert three.hello() == 8
    three.send([3, 8])
    three.close()
    assert [line["message"] for line in read_logs(relay, "bot")] == [f"line {n}" for n in range(1, 9)]
    one.close()
    two.close()


def test_rejects_name_the_frame_and_the_rest_goes_on(house):
    """A frame that can never be accepted is answered with its seq, said in the stream, and acked like a line."""
    relay = house()
    trader = relay.trader()
    trader.hello()
    trader.log(1)
    trader.send([1, 2, 0, "loud", {}])
    trader.log(3)
    frames = [trader.frame()]
    while frames[-1][0] != 1 or frames[-1][1] < 3:
        frames.append(trader.frame())
    assert [frame[:2] for frame in frames if frame[0] == 2] == [[2, 2]]
    gaps = [line["context"] for line in read_logs(relay, "logrelay") if line["context"]["notice"] == "gap"]
    assert [(gap["cause"], gap["first"], gap["last"]) for gap in gaps] == [("rejected", 2, 2)]
    trader.close()


def test_bye_is_acked_at_once(house):
    """A trader that says goodbye waits for its last ack only as long as the commit takes."""
    relay = house()
    trader = relay.trader()
    trader.hello()
    trader.log(1, 3)
    trader.send([3, 3])
    trader.acked(3)
    trader.close()


def test_an_ack_that_did_not_fit_is_sent_when_there_is_room_again(folder, loop_factory):
    """The trader reads late and nothing else is committed: the last ack still reaches it, else it keeps its lines."""
    path = folder / "ingest.sock"

    async def scenario(server, recorder):
        await server.serve(UnixListener(str(path)).socket)
        sock = connect(path)
        sock.send(hello())
        await soon(lambda: recorder.connections)
        connection = recorder.connections[b"r" * 16]
        last = 50_000
        for seq in range(1, last + 1):
            connection.ack(seq, now=True)
        unpacker = msgpack.Unpacker()
        heard = []

        def last_was_heard():
            try:
                unpacker.feed(sock.recv(65536))
            except BlockingIOError:
                return False
            heard.extend(frame[1] for frame in unpacker)
            return heard[-1] == last

        await soon(last_was_heard)
        acked = heard[1:]
        assert acked == sorted(set(acked)), "an ack came twice, or out of order"
        assert len(acked) < last, "everything fitted, so the test shows nothing"
        sock.close()
        await soon(lambda: recorder.over)

    on_loop(loop_factory, scenario)


DAY_NS = 86_400 * 10**9
NOON_NS = 1_769_169_600 * 10**9
"""2026-01-23T12:00:00Z."""


def test_lines_of_a_clock_that_was_set_back_a_day_are_found_by_their_true_time(house):
    """They keep their order, their shown times rise, and a search by time finds each where its clock was."""
    relay = house()
    trader = relay.trader()
    trader.hello()
    times = [NOON_NS, NOON_NS - DAY_NS, NOON_NS - DAY_NS + 10**9, NOON_NS + 10**9]
    trader.send(*([1, seq, at, "info", {"event": f"line {seq}"}] for seq, at in enumerate(times, 1)))
    trader.acked(4)

    def found(query):
        with urllib.request.urlopen(
            f"http://127.0.0.1:{relay.port}/logs?source=bot&{query}", timeout=DEADLINE_S
        ) as got:
            lines = map(json.loads, got.read().splitlines())
            return [line for line in lines if line["source"] == "bot"]

    everything = found("limit=100")
    assert [line["message"] for line in everything] == ["line 1", "line 2", "line 3", "line 4"]
    shown = [line["timestamp"] for line in everything]
    assert shown == sorted(set(shown))
    assert [line["context"].get("clock") for line in everything] == [
        None, "2026-01-22T12:00:00.000000Z", "2026-01-22T12:00:01.000000Z", None,
    ]  # fmt: skip
    day_before = found("since=2026-01-22T11:00:00Z&until=2026-01-22T13:00:00Z")
    assert [line["message"] for line in day_before] == ["line 2", "line 3"]
    assert [line["message"] for line in found("since=2026-01-23T11:00:00Z&until=2026-01-23T13:00:00Z")] == [
        "line 1", "line 4",
    ]  # fmt: skip
    trader.close()
