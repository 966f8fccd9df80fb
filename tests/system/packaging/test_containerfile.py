"""docs/Containerfile: its health check, asked of real relays, and that it copies what the distribution is made of."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.chaos.relay import Relay
from tests.support.waiting import DEADLINE_S, wait_for

TEXT = (Path(__file__).parents[3] / "docs" / "Containerfile").read_text("utf-8").replace("\\\n", "")


def health(relay: Relay, **more: str) -> int:
    """Return what the image's health check ends with; 0 is healthy."""
    command = json.loads(re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", TEXT, re.MULTILINE)[1])
    environ = {**os.environ, "LOGRELAY_PORT": str(relay.port), **more}
    assert command[0].endswith("/bin/python")
    done = subprocess.run([sys.executable, *command[1:]], env=environ, capture_output=True, timeout=DEADLINE_S)
    return done.returncode


@pytest.mark.parametrize("tls", [False, True])
def test_the_health_check_knows_a_relay_that_serves(tmp_path, tls):
    """On a port of its own, by TLS, and one that asks for a token; one that does not answer is not healthy."""
    options, more = [], {}
    if tls:
        cert, key = Authority(tmp_path).issue("relay")
        options, more = ["--tls-cert", str(cert), "--tls-key", str(key)], {"LOGRELAY_TLS_CERT": str(cert)}
    relay = Relay(tmp_path, *options)
    relay.environ = {"LOGRELAY_TOKEN": "V3sJm0t-Qz7w_1pLk9rXu8Yb2"}
    try:
        relay.start()
        wait_for(
            lambda: health(relay, **more) == 0, "a healthy relay"
        )  # one look of several that are late says nothing
    finally:
        relay.end()
    assert health(relay, **more) == 1


def test_what_is_copied_is_all_that_the_distribution_is_made_of():
    """And what the build is told to install is in pyproject.toml."""
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8")
    assert re.findall(r"^COPY (.*)$", TEXT, re.MULTILINE) == [
        "pyproject.toml README.md /src/",
        "logrelay /src/logrelay",
    ]
    assert re.search(r'^readme = "README.md"', project, re.MULTILINE)
    for extra in ("alerts", "nats"):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
