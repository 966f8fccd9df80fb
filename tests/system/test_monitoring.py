"""What Prometheus' own tool says of /metrics and of the rules in docs/monitoring."""

from __future__ import annotations

import shutil
import subprocess
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.http import relay, start
from tests.support.waiting import DEADLINE_S

__all__ = ["relay", "start"]

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"


def promtool(*arguments, **more):
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [program, *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=DEADLINE_S, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_metrics_are_in_the_format_and_named_as_prometheus_wants_it(relay):
    """With bots by name and lines by level; the tool reads every sample and looks for names that mislead."""
    trader = relay.trader()
    trader.log("order.rejected", "error", reason='a "quoted" \\ reason')
    trader.wait()
    connection = HTTPConnection("127.0.0.1", relay.port, timeout=DEADLINE_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert 'logrelay_trader_up{app="robo_trader"} 1' in text
    assert promtool("check", "metrics", input=text) == ""


def test_the_rules_are_valid_and_fire_when_they_should():
    """Each by series of its own, in docs/monitoring/rules.test.yml."""
    assert "SUCCESS" in promtool("check", "rules", "rules.yml")
    assert "SUCCESS" in promtool("test", "rules", "rules.test.yml")
