"""The relay seen through the real wscat, as a person at a terminal sees it.

wscat ends as soon as its stdin does, without a word: so stdin stays open here, and every test that expects a
refusal also expects wscat's own message about it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest

from tests.support.waiting import DEADLINE_S

TOKEN = "correct-horse-battery-staple"
TRADER = """
import sys
from robo_trader.log_relay import LogRelayProcessor
ship = LogRelayProcessor(sys.argv[1], app="test_bot", level="debug")
for number in range(int(sys.argv[2])):
    ship(None, "info", {"event": f"line {number}", "number": number})
"""


@pytest.fixture(scope="module")
def wscat():
    found = shutil.which("wscat")
    if found is None:
        pytest.skip("wscat is not installed (npm install -g wscat)")
    return found


@pytest.fixture
def started():
    """Processes that are ended with the test, at the latest after a while, so that no read of a pipe hangs."""
    running = []

    def start(command, **options):
        process = subprocess.Popen(command, text=True, **options)
        alarm = threading.Timer(4 * DEADLINE_S, process.kill)  # for the whole test, which has several waits
        alarm.start()
        running.append((process, alarm))
        return process

    yield start
    for process, alarm in reversed(running):
        alarm.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def relay(started, tmp_path):
    """Start a relay; return its ws:// URL."""

    def start(**environ):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
        command = [sys.executable, "-m", "logrelay", "serve", "--port", "0", "--journal", str(tmp_path / "j.db")]
        process = started(
            [*command, "--socket", str(tmp_path / "s")], env=clean | environ, stderr=subprocess.PIPE, cwd=os.getcwd()
        )
        ready = process.stderr.readline()
        match = re.search(r"ready.*(ws://[^\s,]+)", ready)
        assert match, ready
        return match[1]

    return start


@pytest.fixture
def connect(started, wscat):
    """Start wscat with stdin held open."""

    def start(url, *arguments):
        return started(
            [wscat, "-c", url, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    return start


def trade(tmp_path, count):
    """Ship lines through the real processor, in a process of its own that then ends."""
    subprocess.run([sys.executable, "-c", TRADER, str(tmp_path / "s"), str(count)], check=True, timeout=DEADLINE_S)


def lines_of(process, count):
    """Read messages until so many log lines of the bot are there; return all messages."""
    messages, lines = [], 0
    while lines < count:
        text = process.stdout.readline()
        assert text, f"wscat ended after {messages}"
        messages.append(json.loads(text))
        lines += messages[-1].get("source") == "test_bot"
    return messages


def refusal(process):
    said = process.stdout.read()  # not communicate(), which would close stdin
    assert process.wait(DEADLINE_S) != 0, said
    return said


def test_wscat_reads_what_was_and_what_comes(relay, connect, tmp_path):
    """The connection message, then the lines before, then the lines after, each once and in order."""
    url = relay()
    trade(tmp_path, 3)
    viewer = connect(url)
    before = lines_of(viewer, 3)
    trade(tmp_path, 2)
    after = lines_of(viewer, 2)

    assert before[0]["type"] == "connection"
    bot = [m for m in before + after if m.get("source") == "test_bot"]
    assert [m["message"] for m in bot] == [f"line {n}" for n in (0, 1, 2, 0, 1)]
    assert [m["level"] for m in bot] == ["INFO"] * 5
    assert bot[0]["context"]["number"] == 0
    viewer.stdin.close()
    assert viewer.wait(DEADLINE_S) == 0


def test_wscat_subscribes_as_the_app_does(relay, connect, tmp_path):
    """The app's subscribe message should be answered and change nothing."""
    viewer = connect(relay(), "-x", '{"type":"subscribe","channel":"logs"}', "-w", str(DEADLINE_S))
    types = [json.loads(viewer.stdout.readline())["type"] for _ in range(2)]
    trade(tmp_path, 1)

    assert types == ["connection", "subscribed"]
    assert lines_of(viewer, 1)[-1]["message"] == "line 0"


def test_wscat_asks_in_the_url(relay, connect, tmp_path):
    """The newest lines that pass the filter should come, and no others of the bot."""
    url = relay()
    trade(tmp_path, 12)
    found = lines_of(connect(f"{url}/?where=number=7&text=LINE"), 1)

    assert [m["message"] for m in found if m.get("source") == "test_bot"] == ["line 7"]


@pytest.mark.parametrize("how", ["header", "subprotocol", "url"])
def test_wscat_shows_the_token(relay, connect, tmp_path, how):
    """Each of the three places for the token should let wscat in."""
    url = relay(LOGRELAY_TOKEN=TOKEN)
    arguments = {
        "header": [url, "-H", f"Authorization: Bearer {TOKEN}"],
        "subprotocol": [url, "-s", f"bearer.{TOKEN}"],
        "url": [f"{url}/?token={TOKEN}"],
    }[how]
    viewer = connect(*arguments)
    trade(tmp_path, 1)

    assert lines_of(viewer, 1)[-1]["message"] == "line 0"


def test_wscat_without_the_token_is_refused(relay, connect):
    """No token and a wrong one should both be answered with 401."""
    url = relay(LOGRELAY_TOKEN=TOKEN)

    assert "Unexpected server response: 401" in refusal(connect(url))
    assert "Unexpected server response: 401" in refusal(connect(url, "-H", "Authorization: Bearer wrong"))


def test_wscat_from_a_foreign_page_or_under_a_foreign_name_is_refused(relay, connect):
    """Another site's Origin, and a Host that may be DNS rebinding, should both be answered with 403."""
    url = relay()

    assert "Unexpected server response: 403" in refusal(connect(url, "-o", "http://evil.example"))
    rebound = ("-H", "Host: evil.example:8765", "-o", "http://evil.example:8765")
    assert "Unexpected server response: 403" in refusal(connect(url, *rebound))


def test_wscat_gets_batches_when_it_offers_them(relay, connect, tmp_path):
    """With the subprotocol a message should be an array of lines."""
    url = relay()
    trade(tmp_path, 3)
    viewer = connect(url, "-s", "logrelay.v1.batch")
    lines = []
    while len([m for m in lines if m["source"] == "test_bot"]) < 3:
        message = json.loads(viewer.stdout.readline())
        lines += message if isinstance(message, list) else []

    assert [m["message"] for m in lines if m["source"] == "test_bot"] == ["line 0", "line 1", "line 2"]
