"""The file of the alerts: what is written together, who may work on an alert, and what is in doubt."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from logrelay.alerts.retry import MAX_AGE_S, MAX_DOUBTS, MAX_WAITING
from logrelay.alerts.store import OWNER_BYTE, Locks, Outgoing, Store, open_store
from logrelay.alerts.text import Message
from tests.support.chaos.relay import ROOT

T = 1_769_162_400.0
MESSAGE = Message("scalper crashed", "at 3:01", "failure")
ALERT = Outgoing("phone", "s1", MESSAGE, 300.0)


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "alerts"))
    yield store
    store.close()


def test_position_state_and_alerts_are_one_transaction(store):
    store.commit("k3f9ab-7", {"bots": {"runs": {}}, "silences": {"x": 1.5}}, [ALERT], T)
    with pytest.raises(AttributeError):
        store.commit("k3f9ab-8", {"bots": {"runs": {"r": 1}}}, [ALERT, None], T)

    assert store.load() == ("k3f9ab-7", {"bots": {"runs": {}}, "silences": {"x": 1.5}})
    assert [(one.rule, one.title, one.state, one.due_at) for one in store.queued()] == [
        ("phone", "scalper crashed", "waiting", T)
    ]


def test_a_row_that_is_gone_is_taken_away(store):
    store.commit("", {"a": {"n": 1}, "b": {"n": 2}}, [], T)
    store.commit("", {"a": None, "b": {"n": 3}}, [], T)

    assert store.load() == ("", {"b": {"n": 3}})


def test_an_alert_s_way(store):
    store.commit("", {}, [ALERT], T)
    number = store.queued()[0].number
    assert store.begin(number).body == "at 3:01"
    store.note_sending(number)
    assert store.begin(number) is None
    store.note_failed(number, T + 5, doubtful=False)
    again = store.begin(number)
    assert (again.tries, again.due_at, again.doubtful) == (1, T + 5, 0)
    store.note_sending(number)
    store.note_sent(number)
    assert store.queued() == []
    store.forget_sent()
    assert store.begin(number) is None


def test_what_was_sent_is_not_in_the_file_any_more(store, tmp_path):
    store.commit("", {}, [ALERT], T)
    store.note_sending(1)
    store.note_sent(1)
    store.forget_sent()
    store.close()

    assert b"scalper crashed" not in (tmp_path / "alerts").read_bytes()


def test_the_file_is_private(store, tmp_path):
    store.commit("", {}, [ALERT], T)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}

    assert set(modes.values()) == {0o600}, modes


def test_a_damaged_file_is_set_aside(tmp_path):
    path = tmp_path / "alerts"
    path.write_bytes(b"this is no database, whatever it was" * 100)
    store = open_store(str(path))
    store.commit("k3f9ab-7", {}, [], T)
    store.close()

    assert [name for name in os.listdir(tmp_path) if "damaged" in name]


def damage_a_page(path):
    """Overwrite the last page, which holds rows."""
    with open(path, "r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xff" * 4096)


def damage_what_is_remembered(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE remembered SET body = '{\"n\": '")


def damage_a_text(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE queue SET title = CAST(x'ff' AS TEXT)")


def damage_a_number(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE queue SET due_at = 'soon'")


@pytest.mark.parametrize("damage", [damage_a_page, damage_what_is_remembered, damage_a_text, damage_a_number])
def test_a_file_that_is_damaged_within_is_set_aside_and_that_is_known(tmp_path, damage):
    path = str(tmp_path / "alerts")
    before = Store(path)
    before.commit("k3f9ab-7", {"a": {"n": 1}}, [ALERT] * 50, T)
    before.close()
    damage(path)
    store = open_store(path)
    found, queued, aside = store.load(), store.queued(), store.set_aside
    store.close()

    assert (found, queued) == (("", {}), [])
    assert os.path.exists(aside)


def test_a_file_that_is_well_or_in_use_is_not_set_aside(store, tmp_path):
    store.commit("k3f9ab-7", {"a": {"n": 1}}, [ALERT], T)
    again = open_store(store.path)
    assert again.set_aside == ""
    assert len(again.queued()) == 1
    again.close()


def test_a_file_that_is_gone_is_not_made_where_there_has_to_be_one(tmp_path):
    with pytest.raises(sqlite3.Error):
        Store(str(tmp_path / "a b?c"), create=False)
    Store(str(tmp_path / "a b?c")).close()
    Store(str(tmp_path / "a b?c"), create=False).close()


def test_one_in_doubt_is_repeated_twice_and_then_given_up(store):
    store.commit("", {}, [ALERT], T)
    for _ in range(MAX_DOUBTS):
        assert store.give_up(["s1"], T) == {}
        store.note_sending(1)
        store.note_failed(1, T, doubtful=True)
    assert store.give_up(["s1"], T) == {"phone": 1}


def test_one_in_doubt_is_kept_for_its_cooldown_and_a_day(store):
    cooldown_s = 7 * 86_400.0
    store.commit("", {}, [ALERT._replace(cooldown_s=cooldown_s)], T)
    store.note_sending(1)
    store.note_failed(1, T + cooldown_s, doubtful=True)
    assert store.give_up(["s1"], T + cooldown_s + MAX_AGE_S - 1) == {}
    assert store.give_up(["s1"], T + cooldown_s + MAX_AGE_S + 1) == {"phone": 1}


def test_what_waits_can_go_to_another_service(store):
    store.commit("", {}, [ALERT, ALERT._replace(rule="other"), ALERT], T)
    store.note_sending(3)
    store.note_sent(3)
    store.move("phone", "s1", "s2")

    assert [(one.rule, one.service) for one in store.queued()] == [("phone", "s2"), ("other", "s1")]


def test_who_waits_for_its_turn_need_not(store):
    with OtherProcess(store.path, OWNER_BYTE):
        assert not Locks(store.path).wait(OWNER_BYTE, unless=lambda: True)


def test_what_is_too_old_too_many_or_for_nobody_is_given_up(store):
    store.commit("", {}, [ALERT] * (MAX_WAITING + 3), T)
    store.commit("", {}, [ALERT._replace(rule="old", service="gone")], T)
    assert store.give_up(["s1"], T) == {"phone": 3, "old": 1}
    assert [store.queued()[0].number, len(store.queued())] == [4, MAX_WAITING]
    assert store.give_up(["s1"], T + MAX_AGE_S + 1) == {"phone": MAX_WAITING}
    assert store.queued() == []


HOLDER = """
import sys
from logrelay.alerts.store import Locks
locks = Locks(sys.argv[1])
print(locks.take(int(sys.argv[2])), flush=True)
sys.stdin.read()
"""


class OtherProcess:
    """A process that takes a lock."""

    def __init__(self, path, byte):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, path, str(byte)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.has_it = self.process.stdout.readline() == b"True\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def test_an_alert_on_the_wire_is_in_doubt_only_when_nobody_works_on_it(store):
    store.commit("", {}, [ALERT], T)
    store.note_sending(1)
    locks = Locks(store.path)
    with OtherProcess(store.path, 1) as other:
        assert other.has_it
        assert store.resolve_doubts(locks, T + 9) == 1
        assert store.queued()[0].state == "sending"
    assert store.resolve_doubts(locks, T + 9) == 0
    found = store.queued()[0]

    assert (found.state, found.due_at, found.doubtful) == ("waiting", T + 9 + 300.0, 1)


def test_one_process_judges_lines_and_its_death_lets_the_next_one(store):
    with OtherProcess(store.path, OWNER_BYTE) as first:
        assert first.has_it
        assert not Locks(store.path).take(OWNER_BYTE)
    locks = Locks(store.path)
    locks.wait(OWNER_BYTE)
    with OtherProcess(store.path, OWNER_BYTE) as second:
        assert not second.has_it


def test_in_memory_nothing_is_locked():
    assert Locks(None).take(7)
    Locks(None).release(7)


def test_everything_can_be_moved_to_another_file(store):
    store.commit("k3f9ab-7", {"a": {"n": 1}}, [ALERT], T)
    memory = Store(":memory:")
    store.copy_to(memory)
    memory.commit("k3f9ab-9", {}, [], T)
    memory.copy_to(store)
    memory.close()

    assert store.load() == ("k3f9ab-9", {"a": {"n": 1}})
    assert len(store.queued()) == 1
