"""Services that hang, refuse, want to be left alone, or are away: their alerts come later, and nothing else waits."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import threading
import time
from itertools import pairwise

import pytest

from tests.support.http import Trader
from tests.support.services import Receiver
from tests.support.stillness import Stillness
from tests.support.waiting import wait_for
from tests.system.alerts.conftest import is_delivery, kill_all, processes_of


@pytest.fixture
def connect():
    """Connect a trader; its socket is closed with the test."""
    made = []

    def trader(relay):
        made.append(Trader(relay.socket))
        return made[-1]

    yield trader
    for one in made:
        one.socket.close()


def rules(*urls, **keys):
    """Rules with a short cooldown, one for each URL."""
    more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in ({"cooldown": "2s"} | keys).items())
    return "".join(f'[[alert]]\nname = "rule{n}"\nurl = "{url}"\n{more}' for n, url in enumerate(urls))


def service(relay, rule):
    shown = json.loads(relay.get("/alerts")[1])
    return next((one for one in shown["services"] if one["rule"] == rule), None)


def told_of(receiver):
    """How many lines a receiver's alerts tell of together.

    An alert has the count since the matter began, and how many of them are new; one that has paused for as long as its
    cooldown begins anew.
    """
    found = 0
    for got in receiver.told:
        new = re.search(r"([\d,]+) of them since the last alert", got.body) or re.search(
            r"([\d,]+) times since", got.body
        )
        found += int(new[1].replace(",", "")) if new else 1
    return found


def test_services_that_hang_or_push_back_keep_nobody_waiting(make_relay, make_bot, connect, receiver):
    """One that hangs gets its alert again after the cooldown, and is told so: it may have had it.

    One that answers 429 with Retry-After is left alone for so long, and nothing is in doubt. Meanwhile heartbeats begin
    once the bot is there that is expected.
    """
    stuck, pushing, seen, still = Receiver(), Receiver(), threading.Event(), Stillness().start()
    try:
        stuck.answer = lambda _got: None if not stuck.got else (200, {})
        pushing.answer = lambda _got: (429, {"Retry-After": "7"}) if not seen.is_set() else (200, {})
        relay = make_relay(
            rules(f"{stuck.url}?rto=4", pushing.url, receiver.url),
            *("--heartbeat-every", "10", "--expect", "scalper"),
            LOGRELAY_HEARTBEAT=receiver.heartbeat,
        )
        wait_for(lambda: relay.metric("heartbeats_withheld_total") >= 1, "a heartbeat that is withheld")
        assert json.loads(relay.get("/alerts")[1])["heartbeat"] == {
            "withheld": "not connected: scalper", "error": "", "sent": None
        }  # fmt: skip
        assert receiver.beats == []
        bot = make_bot(relay)
        trader = connect(relay)
        trader.log("boom", "error")
        wait_for(lambda: (service(relay, "rule1") or {}).get("error") == "it answers with HTTP 429", "the error")
        seen.set()
        alone = receiver.wait_for("boom")[0]
        again = stuck.wait_for("boom")[0]
        assert alone.at < again.at
        assert "you may have had it before" in again.body
        # The times are those of the services, which this process is: what came while it stood still came later.
        assert again.at - stuck.got[0].at >= 2 - still.longest_s
        came = pushing.wait_for("boom")[0]
        assert all(later.at - earlier.at >= 7 - still.longest_s for earlier, later in pairwise(pushing.got))
        assert "before" not in came.body
        wait_for(lambda: service(relay, "rule1")["error"] == "", "the error to be over")
        failed = sum(not got.accepted for got in [*stuck.got, *pushing.got])
        assert failed >= 2
        wait_for(lambda: relay.metric("alerts_failed_total") == failed, "the count")

        wait_for(lambda: receiver.beats, "a heartbeat")
        wait_for(lambda: relay.metric("heartbeats_sent_total") >= 1, "its count")
        bot.stop()
        relay.kill()
        wait_for(lambda: not processes_of(relay), "the worker to end")
    finally:
        still.stop()
        stuck.release.set()
        stuck.close()
        pushing.close()


def test_one_that_is_away_gets_everything_in_order_when_it_is_back(make_relay, connect, receiver):
    """Through a restart of the relay, too; what waits is shown, and nothing of the URL."""
    relay = make_relay(rules(receiver.url))
    trader = connect(relay)
    receiver.close()
    trader.log("boom", "error")
    wait_for(lambda: (service(relay, "rule0") or {}).get("error"), "a failure")
    trader.log("the end", "critical")
    wait_for(lambda: service(relay, "rule0")["waiting"] >= 2, "both to wait")
    assert "hidden" not in json.dumps(service(relay, "rule0"))
    relay.restart()
    wait_for(lambda: service(relay, "rule0"), "the worker")
    wait_for(lambda: relay.metric("alerts_waiting") >= 2, "both to wait still")
    receiver.open()
    receiver.wait_for("the end")

    assert [re.sub("^.*: ", "", got.title) for got in receiver.told] == ["boom", "the end"]
    assert not any("hidden" in line for line in relay.said), relay.tell()


def test_ten_thousand_errors_in_a_minute_ring_a_few_times_and_are_all_counted(make_relay, connect, receiver):
    """With a cooldown of seconds, as often as it passes; the count is exact."""
    cooldown_s = 5
    relay = make_relay(rules(receiver.url, cooldown=f"{cooldown_s}s"))
    trader = connect(relay)
    begun = time.monotonic()
    for number in range(10_000):
        trader.log(f"order {number} rejected", "error")
    trader.wait()
    wait_for(lambda: told_of(receiver) == 10_000, lambda: f"all to be told; it is {told_of(receiver)}")

    assert len(receiver.told) <= 2 + (time.monotonic() - begun) / cooldown_s, receiver.accepted


def test_trouble_with_the_journal_is_told_while_it_lasts_and_from_memory(make_relay, connect, receiver):
    """The disk is full for the journal, and for the file of the alerts as well."""
    relay = make_relay(rules(receiver.url))
    trader = connect(relay)
    trader.log("well")
    wait_for(lambda: service(relay, "rule0"), "the worker")
    for pid in [relay.pid, *processes_of(relay)]:
        full(pid)
    trader.log("one that does not fit")
    receiver.wait_for("the journal is in trouble")
    wait_for(lambda: any("the alerts' file cannot be written" in line for line in relay.said), relay.tell)


def full(pid):
    """Let no write of a process go beyond a few pages into a file: to SQLite, a full disk."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def test_a_worker_that_is_killed_is_started_again_and_goes_on(make_relay, connect, receiver):
    """At every place of its life, and with no alert lost."""
    relay = make_relay(rules(receiver.url))
    trader = connect(relay)
    wait_for(lambda: processes_of(relay), "the worker")
    kill_all(processes_of(relay))
    trader.log("boom", "error")
    receiver.wait_for("boom")
    wait_for(lambda: relay.metric("alerts_worker_starts_total") >= 2, "the count")


def test_a_worker_that_stands_still_holds_nothing_up(make_relay, connect, receiver):
    """Lines are committed and acked all the same; it goes on where it was."""
    relay = make_relay(rules(receiver.url))
    trader = connect(relay)
    wait_for(lambda: service(relay, "rule0"), "the worker")
    (worker,) = (pid for pid in processes_of(relay) if not is_delivery(pid))
    os.kill(worker, signal.SIGSTOP)
    try:
        for number in range(2000):
            trader.log(f"order {number} rejected", "error", detail="x" * 500)
        begun = time.monotonic()
        trader.wait()
        print(f"acked {time.monotonic() - begun:.2f} s after the last line")
        assert told_of(receiver) == 0
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_for(lambda: told_of(receiver) == 2000, lambda: f"all to be told; it is {told_of(receiver)}")
