"""SIGHUP to a real relay, at any time of its life: it reads again what can change, and never ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.support.waiting import DEADLINE_S, wait_for

TOKEN, OTHER = "kQ7-xv3T_pLm9.wZ2sRd", "Rb4~nY8cGh1_Wq6-jTzE"


@pytest.fixture
def serve(tmp_path):
    started = []
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LOGRELAY_", "XDG_"))}

    def start(**more):
        environ = clean | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()} | more
        with (tmp_path / "said").open("w") as said:
            command = [sys.executable, "-m", "logrelay", "serve", "--port", "0"]
            process = subprocess.Popen(command, env=environ, cwd=tmp_path, stderr=said)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(DEADLINE_S)


def said(tmp_path):
    return (tmp_path / "said").read_text()


def status(port, token):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz?token={token}", timeout=DEADLINE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None


def test_settings_change_while_the_relay_runs_and_a_bad_file_changes_nothing(serve, tmp_path):
    """The token of the file, limits and levels, at once; the port is left to a restart, and all of it is said."""
    config = tmp_path / "relay.toml"
    config.write_text(f'token = "{TOKEN}"\nmax_viewers = 7\n')
    process = serve(LOGRELAY_CONFIG=str(config))
    ready = wait_for(lambda: re.search(r"ready on ws://127\.0\.0\.1:(\d+)", said(tmp_path)), "the ready line")
    port = int(ready[1])
    assert status(port, TOKEN)[0] == 200

    def reload(text, answer):
        before = len(said(tmp_path))
        config.write_text(text)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: answer in said(tmp_path)[before:], lambda: f"{answer}: {said(tmp_path)[before:]}")

    reload(
        f'token = "{OTHER}"\nmax_viewers = 7\nkeep_bytes = "2MiB"\nquiet_after = 5\nport = 1\nsync = "full"\n',
        "relay.toml has been read again; changed: token, keep_bytes, quiet_after; only a restart changes sync",
    )
    assert (status(port, TOKEN)[0], status(port, OTHER)[0]) == (401, 200)
    reload("max_viewers = nine\n", "the settings in use stay: config file")
    reload(f"a = {'[' * 5000}\n", "nested too deeply")
    config.rename(tmp_path / "aside")
    os.mkfifo(config)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "cannot be read: it is no regular file" in said(tmp_path), "the reload of a pipe")
    config.unlink()
    reload("max_vievers = 9\n", "did you mean max_viewers?")
    assert status(port, OTHER)[0] == 200
    reload("", "changed: token, keep_bytes, quiet_after, max_viewers")
    assert status(port, OTHER)[0] == 401, "who has needed a token is not open to all because the file lost it"
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0


def test_no_hangup_ends_a_relay_that_starts_or_stops(serve, tmp_path):
    """From the command's first lines to the last moment of the process it should be noted or ignored."""
    process = serve()
    status_file = f"/proc/{process.pid}/status"

    def is_safe():
        with open(status_file) as file:
            masks = dict(line.split(":\t") for line in file)
        taken = int(masks["SigIgn"], 16) | int(masks["SigCgt"], 16)
        return taken >> (signal.SIGHUP - 1) & 1

    wait_for(lambda: is_safe() or process.poll() is not None, "the command's first lines")
    while " ready on " not in said(tmp_path):
        process.send_signal(signal.SIGHUP)
        assert process.poll() is None, said(tmp_path)
    wait_for(lambda: "variables of a running process cannot change" in said(tmp_path), "the reload that was asked for")
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 0, said(tmp_path)
