"""One attempt: how long it may take, and the file that it looks into. The services are in tests/system/alerts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from logrelay.alerts.delivery import READ_S, attempt
from tests.support.chaos.relay import ROOT
from tests.support.ports import free_port
from tests.support.services import Receiver
from tests.support.waiting import DEADLINE_S


def python(code, **options):
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def test_it_ends_by_itself_when_nobody_ends_it():
    """Its request never comes, and whoever started it would never kill it."""
    code = "from logrelay.alerts import delivery; delivery.ATTEMPT_S = 1.0; delivery.main()"
    process = python(code, stdin=subprocess.PIPE)
    try:
        assert process.wait(DEADLINE_S) == -signal.SIGALRM
    finally:
        process.kill()
        process.communicate()


def test_a_file_that_was_removed_is_no_empty_file(tmp_path):
    path = str(tmp_path / "alerts")
    result = attempt({"path": path, "number": 1, "url": "json://localhost"})

    assert (result.sent, result.stored) == (False, False)
    assert not os.path.exists(path)


def test_an_answer_is_waited_for_as_long_as_a_busy_service_takes():
    pytest.importorskip("apprise")
    code = (
        "from logrelay.alerts.delivery import deliver, Message; import apprise;"
        "deliver('json://127.0.0.1:1', Message('t', 'b', 'failure'));"
        "a = apprise.Apprise(['json://127.0.0.1:1', 'json://127.0.0.1:1?rto=3']);"
        "print(*(one.socket_read_timeout for one in a))"
    )
    process = python(code)
    out, _ = process.communicate(timeout=DEADLINE_S)

    assert out.split() == [str(READ_S), "3.0"]


HOUR_OF_ATTEMPTS = """
import random, sys
from logrelay.alerts.delivery import attempt
from logrelay.alerts.store import Outgoing, Store
from logrelay.alerts.text import Message
from logrelay.alerts.worker import startable
path, port, url = sys.argv[1], int(sys.argv[2]), sys.argv[3]
begun = now = 1_769_162_400.0
store = Store(path)
for number in range(3):
    store.commit("", {}, [Outgoing("phone", "s1", Message(f"alert {number}", "b", "failure"), 900.0)], begun)
tries = 0
while store.queued():
    alerts, wait_s = startable(store.queued(), now, (), {})
    if not alerts:
        now += wait_s
        continue
    address = url if now - begun >= 3600 else f"json://127.0.0.1:{port}/"
    result = attempt({"path": path, "number": alerts[0].number, "url": address}, lambda: now)
    assert result.sent == (now - begun >= 3600), result
    assert not result.doubtful
    tries += not result.sent
print(tries, round(now - begun))
"""


def test_a_service_that_is_down_for_an_hour_gets_everything_in_order_soon_after(tmp_path):
    """The time is an argument; the refusals, the file and the service are real."""
    pytest.importorskip("apprise")
    receiver = Receiver()
    try:
        process = subprocess.run(
            [sys.executable, "-c", HOUR_OF_ATTEMPTS, str(tmp_path / "alerts"), str(free_port()),
             f"{receiver.url}?cto={DEADLINE_S:g}&rto={DEADLINE_S:g}"],
            cwd=ROOT, capture_output=True, text=True, timeout=4 * DEADLINE_S,  # for a dozen attempts
        )  # fmt: skip
    finally:
        receiver.close()
    assert process.returncode == 0, process.stderr
    tries, took_s = map(int, process.stdout.split())

    assert [got.title for got in receiver.accepted] == ["alert 0", "alert 1", "alert 2"]
    assert 8 <= tries <= 15
    assert 3600 <= took_s <= 3600 + 13 * 60
