"""One attempt: how long it may take, and the file that it looks into. The services are in tests/system/alerts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from logrelay.alerts.delivery import READ_S, attempt
from tests.support.chaos.relay import ROOT
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
