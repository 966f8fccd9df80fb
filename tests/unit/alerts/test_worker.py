"""Which alerts are sent now, and what the worker tells the relay when something is not as it should be."""

from __future__ import annotations

import socket
import sqlite3
import time
import urllib.error
from dataclasses import replace
from math import inf

import pytest

from logrelay.alerts.store import Locks, Outgoing, Queued, Store, open_store
from logrelay.alerts.task import Task
from logrelay.alerts.text import Message
from logrelay.alerts.worker import Worker, beat_error, fingerprint, hung_up, startable, words_of
from logrelay.config.alert_rules import rules_of_text

NOW = 1_769_162_400.0
ALERT = Queued(1, "phone", "s1", "title", "body", "failure", 900.0, "waiting", 0, NOW, NOW, 0)
IN_DOUBT = ALERT._replace(tries=1, doubtful=1, due_at=NOW + 900)
REFUSED = ALERT._replace(tries=1, due_at=NOW + 5)
DAY_S = 86_400.0


def numbers(queued, *, now=NOW, busy=(), rests=None):
    found, wait_s = startable(queued, now, busy, rests or {})
    return [one.number for one in found], wait_s


def test_one_in_doubt_lets_the_later_ones_pass():
    assert numbers([IN_DOUBT, ALERT._replace(number=2), ALERT._replace(number=3)]) == ([2], 900)


def test_one_that_was_refused_does_not():
    assert numbers([REFUSED, ALERT._replace(number=2)]) == ([], 5)


def test_a_service_that_failed_rests_and_the_others_do_not_wait_for_it():
    queued = [IN_DOUBT, ALERT._replace(number=2), ALERT._replace(number=3, service="s2")]
    assert numbers(queued, rests={"s1": NOW + 10}) == ([3], 900)
    assert numbers(queued[1:], rests={"s1": NOW + 10}) == ([3], 10)
    assert numbers(queued, rests={"s1": NOW + 30 * DAY_S})[0] == [2, 3], "the clock was set back"


def test_one_after_another_for_each_service():
    assert numbers([ALERT, ALERT._replace(number=2)]) == ([1], inf)
    assert numbers([ALERT], busy=["s1"]) == ([], inf)
    assert numbers([ALERT._replace(state="sending")]) == ([], inf)


def test_a_cooldown_of_days_is_waited_for():
    week = IN_DOUBT._replace(cooldown_s=7 * DAY_S, due_at=NOW + 7 * DAY_S)
    assert numbers([week]) == ([], 7 * DAY_S)
    assert numbers([week], now=NOW + 7 * DAY_S)[0] == [1]


def test_a_clock_that_was_set_back_keeps_nothing_waiting():
    later = ALERT._replace(made_at=NOW + 30 * DAY_S, due_at=NOW + 30 * DAY_S)
    assert numbers([later])[0] == [1]
    assert numbers([later._replace(tries=1)])[0] == [1]
    tried = later._replace(tries=1, doubtful=1, due_at=NOW + 900)
    assert numbers([tried]) == ([], 900), "it was tried by the clock of now"


@pytest.fixture
def make_worker():
    stores = []

    def make(store, rules, sent):
        stores.append(store)
        return Worker(Task(rules, "http://localhost", None), store, Locks(None), sent.append)

    yield make
    for store in stores:
        store.close()


def test_a_rule_that_cannot_be_used_is_told_and_left_out(make_worker):
    good, bad = rules_of_text("json://localhost/a json://localhost/b")
    bad = replace(bad, where=tuple(f"f{n}=1" for n in range(99)))
    sent = []
    make_worker(Store(":memory:"), (bad, good), sent).begin()

    assert [one["type"] for one in sent] == ["notice", "follow"]
    assert "alert2" in sent[0]["text"]
    assert "99 where conditions" in sent[0]["text"]


def test_a_damaged_file_is_told(make_worker, tmp_path):
    (tmp_path / "alerts").write_bytes(b"this is no database" * 300)
    sent = []
    make_worker(open_store(str(tmp_path / "alerts")), rules_of_text("json://localhost/a"), sent).begin()

    assert ".damaged-" in sent[0]["text"]


def test_the_end_of_the_relay_is_seen_behind_what_it_has_sent():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"a line that nobody has read")
        assert not hung_up(ours)
        theirs.close()
        assert hung_up(ours)


def test_an_alert_that_a_delivery_does_not_find_counts_as_failed_and_waits(make_worker):
    store = Store(":memory:")
    worker = make_worker(store, rules_of_text("json://localhost/a"), [])
    store.commit("", {}, [], NOW)
    worker._note_result(ALERT, {"sent": False, "claimed": False, "error": "it is not waiting in the alerts' file"})

    assert worker._failures["s1"] == (1, "it is not waiting in the alerts' file")
    assert worker._rests["s1"] > NOW


A, B = "json://localhost/a", "json://localhost/b"


def waiting(store):
    return [(one.rule, one.service) for one in store.queued()]


@pytest.mark.parametrize(
    ("before", "after", "rule", "goes_to"),
    [
        ([A], [B], "alert1", B),
        ([A, B], [B], "alert1", A),
        ([A, B], [B, A], "alert1", A),
        ([A], [A, B], "alert1", A),
    ],
    ids=["another URL", "the rule before it was taken away", "two that change places", "one more"],
)
def test_what_waits_goes_with_its_rule_to_another_url(make_worker, before, after, rule, goes_to):
    """A topic that was misspelt is corrected; but what goes to another rule as well is not sent there twice."""
    store = Store(":memory:")
    make_worker(store, rules_of_text(" ".join(before)), []).begin()
    store.commit("", {}, [Outgoing(rule, fingerprint(A), Message("t", "b", "info"), 900.0)], NOW)
    make_worker(store, rules_of_text(" ".join(after)), []).begin()

    assert waiting(store) == [(rule, fingerprint(goes_to))]


def test_a_line_that_cannot_be_judged_is_left_out_and_told_once(make_worker, capsys):
    """It must not end the alerts of all others, again and again."""
    sent = []
    worker = make_worker(Store(":memory:"), rules_of_text(A), sent)
    for number in range(3):
        worker.take({"type": "log", "id": f"k3f9ab-{number}", "level": "NONE"})
    worker.take({"type": "log", "id": "k3f9ab-9", "level": "ERROR", "source": "s", "message": "boom", "app": "a"})

    assert [one["text"].partition(":")[0] for one in sent] == [
        "the alerts could not judge the line k3f9ab-0 and leave it out"
    ]
    assert [one["message"] for one in worker._engine.active(time.time())] == ["boom"]
    assert "KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            urllib.error.HTTPError("https://hc.example/hidden", 404, "no /hidden", None, None),
            "it answers with HTTP 404",
        ),
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
        (urllib.error.URLError("unknown url type: hidden"), "str"),
        (TimeoutError("hidden"), "no answer within 10 s"),
        (ValueError("https://hc.example/hidden"), "ValueError"),
    ],
)
def test_why_a_heartbeat_failed_is_said_without_its_url(error, text):
    assert beat_error(error) == text


def test_what_ends_the_process_is_said_with_its_place_and_no_secret():
    def failing(error):
        try:
            raise error
        except type(error) as caught:
            return words_of(caught)

    assert failing(ValueError("json://hidden")).startswith("ValueError at test_worker.py:")
    assert failing(sqlite3.OperationalError("no such table")).startswith("OperationalError: no such table at test_work")
