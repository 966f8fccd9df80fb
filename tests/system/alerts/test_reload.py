"""Rules read again by SIGHUP, the alerts of a relay that keeps nothing, and a process of the alerts that dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3

import pytest

from tests.support.http import Trader
from tests.support.ports import free_port
from tests.support.services import Receiver
from tests.support.waiting import DEADLINE_S, wait_for
from tests.system.alerts.conftest import kill_all, processes_of


@pytest.fixture
def other():
    receiver = Receiver()
    yield receiver
    receiver.close()


def alerts(relay):
    return json.loads(relay.get("/alerts")[1])


def reload(relay, text, answer):
    (relay.home / "relay.toml").write_text(text)
    before = len(relay.said)
    relay.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any(answer in line for line in relay.said[before:]), relay.tell)


def rule(url, **more):
    """A rule with its own cooldown, and one for lines that are told in a second."""
    mark = f'[[alert]]\nname = "marks"\nurl = {json.dumps(url)}\ntext = "mark"\nlevel = "warning"\ncooldown = "1s"\n'
    return (
        mark
        + '[[alert]]\nname = "phone"\n'
        + "".join(f"{k} = {json.dumps(v)}\n" for k, v in ({"url": url} | more).items())
    )


def test_rules_change_while_the_relay_runs_and_nothing_of_theirs_is_forgotten(make_relay, ask, receiver, other):
    """A URL that was wrong is corrected: what waits comes, once; cooldowns and silences go on; no rules are none."""
    relay = make_relay(rule(f"json://127.0.0.1:{free_port()}/x"))
    assert ask(relay, {"type": "silence", "app": "cron", "for_s": 3600})["type"] == "alerts"
    with contextlib.closing(Trader(relay.socket)) as trader:
        trader.log("boom", "error")
        wait_for(lambda: alerts(relay)["services"][0]["error"], "the failure")
        reload(relay, rule(receiver.url, colour="red"), "'colour' in alert rule phone (number 2) is no key of a rule")
        wait_for(lambda: alerts(relay)["services"][0]["waiting"] >= 1, "it to wait")
        reload(relay, rule(receiver.url), "relay.toml has been read again; changed: alert")
        receiver.wait_for("boom")
        trader.log("boom", "error")
        trader.log("a mark", "warning")
        receiver.wait_for("a mark")
        reload(relay, rule(other.url), "changed: alert")
        trader.log("boom", "error")
        trader.log("a further mark", "warning")
        other.wait_for("a further mark")
        assert [one["app"] for one in alerts(relay)["silences"]] == ["cron"]
        assert [got.title.partition(": ")[2] for got in [*receiver.told, *other.told]] == [
            "boom", "a mark", "a further mark"
        ]  # fmt: skip
        reload(relay, "keep_days = 3\n", "changed: keep_days, alert")
        wait_for(lambda: not processes_of(relay), "the end of the alerts' process")
        assert alerts(relay)["enabled"] is False
        reload(relay, rule(other.url), "changed: keep_days, alert")
        wait_for(lambda: alerts(relay)["services"], "the alerts")
        trader.log("one mark more", "warning")
        other.wait_for("one mark more")
    assert not any("has ended" in line for line in relay.said), relay.tell()


def test_a_relay_that_keeps_nothing_repeats_nothing_when_the_process_of_its_alerts_ends(
    make_relay, ask, receiver, tmp_path
):
    """Position, cooldowns and silences outlive that process, and end with the relay."""
    place = tmp_path / "run"
    place.mkdir()
    relay = make_relay("", "--journal", ":memory:", LOGRELAY_ALERT=receiver.url, RUNTIME_DIRECTORY=str(place))
    ask(relay, {"type": "silence", "app": "cron", "for_s": 3600})
    with contextlib.closing(Trader(relay.socket)) as trader:
        trader.log("boom", "error")
        receiver.wait_for("boom")
        (store,) = place.glob("*/alerts")
        kill_all(holders(store))
        wait_for(lambda: relay.metric("alerts_worker_starts_total") == 2, "another process")
        trader.log("boom", "error")
        trader.log("the end", "critical")
        receiver.wait_for("the end")
    assert len(receiver.told) == 2
    assert [one["app"] for one in alerts(relay)["silences"]] == ["cron"]
    assert relay.stop() == 0
    assert list(place.iterdir()) == []


def holders(path):
    """The processes that have a file open."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if any(os.readlink(f"/proc/{name}/fd/{fd}") == str(path) for fd in os.listdir(f"/proc/{name}/fd")):
                found.append(int(name))
    return found


def test_a_process_that_dies_of_a_fault_says_of_which(make_relay, receiver):
    """Another one goes on; one that is killed is told with the signal, not with a number below zero."""
    relay = make_relay(rule(receiver.url))
    wait_for(lambda: alerts(relay)["services"], "the worker")
    with contextlib.closing(sqlite3.connect(f"{relay.journal}-alerts", timeout=DEADLINE_S)) as file:
        file.execute("DROP TABLE queue")
    with contextlib.closing(Trader(relay.socket)) as trader:
        trader.log("boom", "error")
        receiver.wait_for("boom")
    wait_for(
        lambda: any("has ended (OperationalError: no such table: queue at store.py" in x for x in relay.said),
        relay.tell,
    )
    for starts in (2, 3):
        wait_for(lambda starts=starts: relay.metric("alerts_worker_starts_total") >= starts, "another process")
        kill_all(wait_for(lambda: processes_of(relay), "the worker"))
    wait_for(lambda: any("has ended (signal SIGKILL) and is started again" in line for line in relay.said), relay.tell)
