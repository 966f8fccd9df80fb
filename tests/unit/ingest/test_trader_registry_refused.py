"""What is not taken: a run that belongs to another, and a seq that cannot be true."""

from __future__ import annotations

import pytest

from logrelay.ingest.frames import Bad, Bye, Lost
from logrelay.ingest.trader_registry import MAX_HOLE
from logrelay.model import Run, run_name
from tests.unit.ingest.test_trader_notices_floods import notices
from tests.unit.ingest.test_trader_registry import NOW, Bench, hello, log, run_key


def test_another_user_does_not_get_a_run():
    bench = Bench()
    bench.join(peer_uid=1000)
    assert bench.registry.objection(hello(peer_uid=1000)) is None
    assert bench.registry.objection(hello(2, peer_uid=1001)) is None
    reason = bench.registry.objection(hello(peer_uid=1001))
    assert reason == "the run belongs to another user (uid 1000, this is 1001); each makes its own"


def test_a_run_stays_its_users_after_its_end():
    """Also when it has gone into the table of many."""
    bench = Bench()
    trader, connection = bench.join(peer_uid=1000)
    bench.receive(trader, log(1), Bye(1))
    bench.ended(trader, connection)
    bench.registry.committed(trader.run.id, 1)
    for number in range(2, 200):
        other, link = bench.join(number, peer_uid=1000)
        bench.receive(other, Bye(0))
        bench.ended(other, link)
    bench.registry.runs.forget(1, bench.now_us, bench.mono)
    assert run_key(1) not in bench.registry.runs.by_key
    assert bench.registry.objection(hello(peer_uid=1001))
    assert bench.registry.objection(hello(peer_uid=1000)) is None
    assert bench.registry.objection(hello(peer_uid=-1)) is None  # a kernel that does not say


def test_a_run_of_an_earlier_relay_is_his_who_comes_first():
    """The journal does not keep users."""
    bench = Bench([Run(1, run_key(1), "bot", "box", 4711, 0, last_seq=5)], head=5)
    assert bench.registry.objection(hello(peer_uid=1001)) is None
    bench.join(peer_uid=1001)
    assert bench.registry.objection(hello(peer_uid=1000))


@pytest.mark.parametrize("changes", [{"peer_pid": 9}, {"peer_pid": 0}, {"is_dead": True}])
def test_another_process_does_not_get_a_run_whose_own_is_connected(changes):
    """The same process may connect again, and anybody of the user once it is gone."""
    bench = Bench()
    _, connection = bench.join(peer_pid=8, peer_uid=1)
    connection.runs = True
    assert bench.registry.objection(hello(peer_uid=1, peer_pid=8)) is None
    reason = bench.registry.objection(hello(peer_uid=1, **changes))
    assert reason == "the run belongs to the process 8, which is connected and runs; each makes its own"
    connection.runs = False
    assert bench.registry.objection(hello(peer_uid=1, **changes)) is None


@pytest.mark.parametrize(
    "frame",
    [
        log(2**63 - 1),
        log(MAX_HOLE + 6),
        Lost(6, MAX_HOLE + 6, "overflow"),
        Lost(2**63 - 1, 2**63 - 1, "overflow"),
        Bad(2**63 - 1, "bad"),
        Bye(2**63 - 1),
    ],
)
def test_a_seq_far_ahead_is_refused_and_the_run_goes_on(frame):
    """Taken, it would make every later line of the run a repeat."""
    bench = Bench()
    trader, _ = bench.join()
    bench.receive(trader, *map(log, range(1, 6)))
    answers, shown = bench.receive(trader, frame, log(6))
    assert [line.message for line in shown if not line.is_notice] == ["line 6"]
    assert trader.run.last_seq == 6
    assert len(answers) == (type(frame) is not Bye)
    (told,) = notices(shown, "trader")
    assert told.message.startswith("a frame to the log socket refused: seq ")
    assert bench.registry.counters.rejected == 1
    assert bench.registry.counters.unexplained_lines == 0
    assert not trader.run.said_bye


def test_the_key_of_a_run_is_told_to_nobody():
    """Notices, lines and the list of traders have a name that is made of it."""
    bench = Bench()
    trader, connection = bench.join()
    bench.receive(trader, log(1), log(5), Lost(6, 7, "x"), Bad(8, "y"), log(9, NOW * 3))
    bench.ended(trader, connection)
    bench.pass_time(5)
    bodies = b"".join(line.body for commit in bench.commits for line in commit.lines)
    said = bodies.decode() + repr(bench.registry.summaries(bench.mono))
    assert said.count(run_name(run_key(1))) >= 8
    assert run_key(1).hex() not in said
