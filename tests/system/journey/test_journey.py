"""One line, from the call in the trader to the message on the phone: in steps, and as a whole."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from logrelay.fanout.batch import Batch
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub import Hub
from logrelay.ingest import frames as relay_wire
from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.trader_registry import TraderRegistry
from logrelay.journal.interface import Query
from logrelay.journal.sqlite import SqliteJournal
from robo_trader.log_relay import LogRelayProcessor
from robo_trader.logging.redaction import Redactor
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


class Phone:
    """A viewer's socket, as the hub sees it."""

    def __init__(self):
        self.got = b""

    def write(self, payload):
        self.got += payload
        return True


def test_a_line_takes_the_steps_that_the_modules_are_named_after(tmp_path):
    """logger -> logging -> log_relay -> ingest -> journal -> fanout -> phone, in the order of the folders."""
    # robo_trader/logging/redaction: nothing secret goes on.
    event = Redactor()(
        None,
        "info",
        {"event": "trade.executed", "logger": "robo_trader.runner", "symbol": "AAPL", "api_key": "sk-123456789"},
    )
    assert "sk-123456789" not in str(event)

    # robo_trader/log_relay: the processor returns what it was given; the frame is in the socket when it returns.
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        processor = LogRelayProcessor(path, app="robo")
        assert processor(None, "info", event) is event
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE_S)
            decoder = relay_wire.Decoder()
            # logrelay/ingest/frames: bytes to frames.
            received = []
            while len(received) < 2:  # the line follows hello and waits for no welcome
                received += decoder.receive(connection.recv(65536))
            hello, log = received
            assert isinstance(hello, relay_wire.Hello)
            connection.sendall(relay_wire.welcome(0))
            assert log.event["symbol"] == "AAPL"

            # logrelay/ingest/trader_registry, sequencer, then the journal: a place in the stream, and then on the disk.
            journal = SqliteJournal(tmp_path / "j.db", now_us=lambda: 1, random_epoch=lambda: "k3f9ab")
            opening = journal.open()
            sequencer = Sequencer(opening.epoch, opening.head + 1, on_notice=lambda _rank, _text: None)
            traders = TraderRegistry(opening.runs, sequencer, quiet_after_s=60, mono=0.0, now_us=0)
            trader, _ = traders.hello("connection", hello, 1, 0.0)
            assert traders.receive(trader, [log], 1, 0.0) == []
            commit, batch = sequencer.take()
            assert isinstance(batch, Batch)

            # logrelay/fanout/hub: nobody is shown it before it is committed.
            hub = Hub(head=0, oldest=1, max_lag=1000, landing_lines=500, render_gap=lambda gap: b"")
            phone = Phone()
            hub.start_tail(hub.join(phone, Filter(), "single"), 0)
            journal.append(commit)
            hub.publish(batch)
            hub.commit(batch.last, 1)
            assert not hub.take_requests(), "everything was in memory"

            # and the ack, so that the trader may forget it.
            connection.sendall(relay_wire.ack(trader.run.last_seq))
            assert processor.flush(DEADLINE_S)
            processor.close()
    assert processor.stats()["acked"] == 1

    # logrelay/fanout/line_json: what the phone reads is what the journal holds.
    shown = json.loads(phone.got[phone.got.rindex(b'{"type":"log"') :])
    assert shown["message"] == "trade.executed"
    assert shown["source"] == "robo_trader.runner"
    assert shown["level"] == "INFO"
    assert shown["context"] == {"symbol": "AAPL", "api_key": "[redacted]"}
    assert shown["id"] == "k3f9ab-2"
    page = journal.page(Query(1, 2, 10))
    assert json.loads(page.bodies[0]) == shown
    journal.close()


# --- the whole of it, with the real daemon and a real trader -----------------------------------------------------


class Process:
    """A child, ended by its own pid."""

    def __init__(self, argv, env):
        self.popen = subprocess.Popen(
            argv,
            env={**os.environ, **env},
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def line(self, stream):
        """Return the next line of a stream, or fail."""
        got = queue.Queue()
        threading.Thread(target=lambda: got.put(stream.readline()), daemon=True).start()
        return got.get(timeout=DEADLINE_S)

    def end(self, number=signal.SIGTERM):
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        with contextlib.suppress(BrokenPipeError):
            self.popen.communicate(timeout=DEADLINE_S)
        return self.popen.returncode


class House:
    """A relay and a trader that may come and go."""

    def __init__(self, home):
        self.env = {"LOGRELAY_SOCKET": str(home / "s"), "ROBO_LOG_FORMAT": "json"}
        self.journal = str(home / "j.db")
        self.port = free_port()
        self.children = []

    def relay(self):
        argv = [sys.executable, "-m", "logrelay", "serve", "--port", str(self.port), "--journal", self.journal]
        child = Process(argv, self.env)
        self.children.append(child)
        ready = child.line(child.popen.stderr)
        assert "ready" in ready, ready
        assert f":{self.port}" in ready, ready
        return child

    def trader(self):
        child = Process([sys.executable, str(HERE / "trader.py")], {**self.env, "PYTHONPATH": str(ROOT)})
        self.children.append(child)
        assert child.line(child.popen.stdout) == "up\n"
        return child

    def say(self, trader, *words):
        for word in words:
            trader.popen.stdin.write(word + "\n")
            trader.popen.stdin.flush()
            while trader.line(trader.popen.stdout) != "said\n":
                pass  # its own console, as JSON lines

    def viewer(self, query="?tail=0"):
        return connect(f"ws://127.0.0.1:{self.port}/{query}", compression=None)


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    yield house
    for child in house.children:
        child.end(signal.SIGKILL)


def logs(viewer, count, *, notices=False):
    """Return the next lines of traders (or of everybody)."""
    got = []
    end = time.monotonic() + DEADLINE_S
    while len(got) < count:
        message = json.loads(viewer.recv(timeout=max(0.1, end - time.monotonic())))
        if message["type"] == "log" and (notices or message["source"] != "logrelay"):
            got.append(message)
    return got


def test_every_kind_of_call_arrives_with_its_level_and_form(house):
    """What robo_trader says is what the app can show: four levels, text messages, object contexts."""
    house.relay()
    trader = house.trader()
    with house.viewer() as viewer:
        words = [
            "debug",
            "stdlib-debug",
            "info",
            "warn",
            "warning",
            "error",
            "critical",
            "fatal",
            "exception",
            "int",
            "dict",
            "raised",
            "stdlib",
        ]
        house.say(trader, *words)
        got = logs(viewer, 11)
    assert [(line["level"], line["message"]) for line in got] == [
        ("INFO", "info.word"),
        ("WARNING", "warn.word"),
        ("WARNING", "warning.word"),
        ("ERROR", "error.word"),
        ("ERROR", "critical.word"),
        ("ERROR", "fatal.word"),
        ("ERROR", "order.failed"),
        ("INFO", "42"),
        ("INFO", '{"a":[1,2.5,null]}'),
        ("INFO", "ValueError: as an event"),
        ("WARNING", "retrying GET / in 5 s"),
    ]
    assert [line["context"].get("severity") for line in got[4:6]] == ["CRITICAL", "CRITICAL"]
    assert "ZeroDivisionError" in got[6]["context"]["exception"]
    assert got[0]["context"]["quantity"] == 100
    assert got[0]["source"] == "robo_trader.runner"
    assert got[-1]["source"] == "thirdparty.http"
    stamps = [line["timestamp"] for line in got]
    assert stamps == sorted(set(stamps))


def test_lines_flow_again_whoever_comes_last(house):
    """Trader before relay, relay restarted, trader restarted: nobody has to do anything, and every line is there."""
    trader = house.trader()
    house.say(trader, "count 1", "count 2")
    relay = house.relay()
    with house.viewer("?tail=500") as viewer:
        assert [line["context"]["n"] for line in logs(viewer, 2)] == [1, 2]
        house.say(trader, "count 3")
        (third,) = logs(viewer, 1)
        assert third["context"]["n"] == 3
    assert relay.end(signal.SIGKILL) == -signal.SIGKILL
    house.say(trader, "count 4", "count 5")
    house.relay()
    with house.viewer("?after=" + third["id"]) as viewer:
        assert [line["context"]["n"] for line in logs(viewer, 2)] == [4, 5]
        assert trader.end() == -signal.SIGTERM
        trader = house.trader()
        house.say(trader, "count 6")
        seen = logs(viewer, 1)
        assert seen[0]["context"]["n"] == 6
