"""A real relay whose alerts go to a real service, and bots that are processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import orjson
import pytest
from websockets.sync.client import connect

from tests.support.chaos.relay import ROOT, Relay
from tests.support.services import Receiver
from tests.support.waiting import DEADLINE_S, wait_for

pytest.importorskip("apprise")

BOT = """
import os, sys
from robo_trader.logger import get_logger, setup_structlog
setup_structlog()
log = get_logger("bot.broker")
log.info("started")
for line in sys.stdin:
    level, _, text = line.strip().partition(" ")
    if level == "raise":
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("it failed")
    else:
        getattr(log, level)(text)
    print("said", flush=True)
"""


class Bot:
    """A bot that logs what it is told."""

    def __init__(self, relay, app="scalper"):
        environ = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
        environ |= {"LOGRELAY_SOCKET": str(relay.socket), "LOGRELAY_APP": app, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(BOT)], env=environ, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def say(self, level, text):
        """Log a line; return when the call has returned."""
        self.process.stdin.write(f"{level} {text}\n")
        while self.process.stdout.readline().strip() != "said":
            pass

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self._close()

    def stop(self):
        """Let it end in order."""
        self.process.stdin.close()
        self.process.wait(DEADLINE_S)
        self._close()

    def _close(self):
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def make_bot():
    """Start a bot; it ends with the test."""
    made = []

    def make(relay, app="scalper"):
        made.append(Bot(relay, app))
        return made[-1]

    yield make
    for bot in made:
        if bot.process.poll() is None:
            bot.kill()


def processes_of(relay):
    """The processes that have this relay's socket pair or its alerts' file open: the worker and its deliveries."""
    found = []
    mark = str(relay.journal) + "-alerts"
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                links = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
            except OSError:
                continue
            if any(link.startswith(mark) for link in links):
                found.append(int(name))
    return found


def is_delivery(pid):
    """Whether a process delivers an alert, and is not the worker."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"logrelay-delivery" in file.read()
    except OSError:
        return False


def kill_all(pids):
    """SIGKILL to each that is still there: a delivery ends when it is done."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def ask():
    """Send a request as a viewer does, and return its answer."""

    def send(relay, request):
        patient = {"open_timeout": DEADLINE_S, "close_timeout": DEADLINE_S, "ping_interval": None}
        with connect(f"ws://127.0.0.1:{relay.port}/?tail=0", **patient) as viewer:
            viewer.recv(timeout=DEADLINE_S)
            viewer.send(orjson.dumps(request).decode())
            while (answer := orjson.loads(viewer.recv(timeout=DEADLINE_S)))["type"] == "log":
                pass
            return answer

    return send


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def make_relay(tmp_path):
    """Start a relay with these alert rules, TOML text or a URL; it and its processes end with the test."""
    made = []

    def make(rules, *options, **environ):
        relay = Relay(tmp_path, *options)
        if "[[alert]]" in rules:
            (tmp_path / "relay.toml").write_text(rules)
            relay.options += ["--config", str(tmp_path / "relay.toml")]
        elif rules:
            relay.environ["LOGRELAY_ALERT"] = rules
        relay.environ |= environ
        made.append(relay)
        return relay.start()

    yield make
    for relay in made:
        relay.end()
        wait_for(lambda relay=relay: not processes_of(relay), "the processes of the alerts to end")
