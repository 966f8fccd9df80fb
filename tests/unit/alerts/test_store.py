"""The file of the alerts: what is written together, who may work on an alert, and what is in doubt."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from logrelay.alerts.retry import MAX_AGE_S, MAX_WAITING
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
