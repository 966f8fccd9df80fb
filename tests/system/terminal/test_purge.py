"""`logrelay purge` on a journal that a relay writes, and that it writes again afterwards."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.chaos.relay import Relay
from tests.support.waiting import DEADLINE_S

SECRET = "hunter2-XYZZY"


@pytest.fixture
def relay(home):
    one = Relay(home, journal=home / ".local" / "state" / "logrelay" / "journal.db")
    yield one
    one.end()


@pytest.fixture
def send(relay, cli):
    """Put a line of a bot into the journal."""
    return lambda *words: cli("send", f"--timeout={DEADLINE_S:g}", "--socket", relay.socket, "--app", "my_bot", *words)


def bytes_left(directory):
    return sum(path.read_bytes().count(SECRET.encode()) for path in directory.rglob("*") if path.is_file())


def test_purged_lines_are_gone_for_good_and_told_of(relay, send, cli, on_terminal):
    """Refused beside the relay; afterwards no file has a byte of them, a viewer resumes, and everything is sound."""
    relay.start()
    for n in range(3):
        for text in (f"login with {SECRET}", "fine"):
            assert send(text, f"n={n}").returncode == 0
    directory = relay.journal.parent
    purge = ("purge", "--grep", SECRET)
    dry = cli(*purge, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "logrelay: 3 lines of 6 would be deleted; nothing was\n")
    refused = cli(*purge, "--yes")
    assert refused.returncode == 4
    assert f"(process {relay.pid})" in refused.stderr
    assert "stop the relay (systemctl stop" in refused.stderr
    before = [json.loads(row) for row in relay.get("/logs")[1].splitlines()]
    first = next(one["id"] for one in before if SECRET in one["message"])
    assert relay.stop() == 0
    assert bytes_left(directory)

    unasked = cli(*purge)
    assert (unasked.returncode, "--yes" in unasked.stderr) == (2, True)
    asked = on_terminal(*purge, columns=200)
    asked.wait_for(r"Delete 3 lines of 6 from .*\? \[y/N\]")
    asked.type(b"n\r")
    assert asked.wait() == 1
    assert bytes_left(directory)
    (directory / "journal.db.corrupt-20260101T000000Z").write_bytes(b"")
    done = cli(*purge, "--yes")
    assert done.returncode == 0, done.stderr
    assert "3 lines deleted" in done.stderr
    assert "journal.db.corrupt-20260101T000000Z" in done.stderr
    assert bytes_left(directory) == 0
    assert cli(*purge, "--yes").stderr == "logrelay: no line passes: nothing is deleted\n"

    relay.start()
    lines = [json.loads(row) for row in relay.get(f"/logs?after={first}")[1].splitlines()]
    assert not [one for one in lines if one["type"] == "error"]
    gaps = [one["context"] for one in lines if one["context"].get("cause") == "purged"]
    assert [gap["count"] for gap in gaps] == [1, 1], "those behind the one that it resumes at"
    assert [one["message"] for one in lines].count("fine") == 3
    told = [one["context"] for one in lines if one["context"].get("state") == "purged"]
    assert [(one["count"], one["first"]) for one in told] == [(3, first)]
    assert not [said for said in relay.said if "damage" in said]
    assert relay.health()["journal"]["damaged_lines"] == 0
    verified = cli("check", "--verify-journal")
    assert (verified.returncode, "it is sound" in verified.stdout) == (0, True)
    assert re.search(r"^purged: 3 lines, numbers \d+, \d+, \d+$", verified.stdout, re.MULTILINE)


def test_everything_is_never_purged_by_mistake(cli, journal):
    """Without a condition nothing is asked, and nothing done."""
    done = cli("purge", "--yes")
    assert (done.returncode, "nothing was said about which lines" in done.stderr) == (2, True)
    assert cli("purge", "--before", "1h", "--until", "2h", "--yes").returncode == 2
    assert cli("purge", "--before", "2026-01-23T10:00:03Z", "--level", "info", "--yes").returncode == 0
    left = [json.loads(row)["message"] for row in cli("export").stdout.splitlines()]
    assert "engine.started" not in left
    assert {"order.rejected", "done"} <= set(left)


def test_a_relay_that_was_killed_is_no_power_cut_to_purge(relay, send, cli):
    """The machine is the same since; only its boot tells."""
    relay.start()
    assert send(SECRET).returncode == 0
    relay.kill()
    done = cli("purge", "--grep", SECRET, "--yes")
    assert (done.returncode, "1 line deleted" in done.stderr) == (0, True), done.stderr
    assert "machine stopped" not in done.stderr
