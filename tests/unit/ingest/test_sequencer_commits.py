"""Lines get their seqs without holes, and each tick hands out its own lines, runs and durability, once."""

from __future__ import annotations

import orjson
import pytest

from logrelay.fanout import batch as batch_module
from logrelay.fanout.batch import Batch
from logrelay.fanout.collected_line import read_line, usual_lines
from logrelay.fanout.filters import Filter
from logrelay.fanout.line_json import log_line
from logrelay.ingest.sequencer import Sequencer
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, RELAY_RUN, WARNING, CollectedRow, Run


@pytest.fixture
def sequencer():
    return Sequencer("k3f9ab", 7, on_notice=lambda rank, text: None)


@pytest.fixture
def run():
    return Run(3, b"r" * 16, "bot", "host", 42, 1)


def log(sequencer, run, rank=INFO, time_us=1_000, **fields):
    sequencer.add_line(run, time_us, rank, {"event": "said", **fields})


def test_nothing_gathered_is_nothing_to_take(sequencer):
    """An empty tick makes no commit."""
    assert sequencer.take() is None
    assert (sequencer.lines_total, sequencer.bytes_total) == (0, 0)


@pytest.mark.parametrize("rank", [DEBUG, INFO, WARNING, ERROR])
def test_only_a_critical_line_makes_a_commit_durable(sequencer, run, rank):
    """Lower levels do not wait for the disk, whatever came in the ticks before."""
    log(sequencer, run, rank)
    assert sequencer.take()[0].durable is False
    log(sequencer, run, rank)
    log(sequencer, run, CRITICAL)
    log(sequencer, run, rank)
    assert sequencer.take()[0].durable is True
    log(sequencer, run, rank)
    assert sequencer.take()[0].durable is False


def test_a_notice_is_not_durable_by_itself(sequencer):
    """The relay's own lines do not make the disk wait, even critical ones."""
    sequencer.add_notice(1, CRITICAL, "shutdown", "stopping", {})
    assert sequencer.take()[0].durable is False


def test_commit_and_batch_hold_the_same_lines_once(sequencer, run):
    """Seqs go on where they began; what was taken is not handed out again; the totals count it."""
    log(sequencer, run, time_us=10, symbol="AAPL")
    sequencer.add_notice(20, WARNING, "gap", "lines are missing", {"count": 2})
    commit, batch = sequencer.take()
    assert [line.seq for line in commit.lines] == [7, 8]
    assert [line.run for line in commit.lines] == [3, RELAY_RUN]
    assert (batch.first, batch.last, batch.count) == (7, 8, 2)
    assert list(batch.bodies()) == [line.body for line in commit.lines]
    assert b'"id":"k3f9ab-7"' in commit.lines[0].body
    assert b'"id":"k3f9ab-8"' in commit.lines[1].body
    assert (sequencer.lines_total, sequencer.bytes_total) == (2, batch.size)
    first = batch.size
    assert sequencer.take() is None
    log(sequencer, run)
    commit, batch = sequencer.take()
    assert [line.seq for line in commit.lines] == [9]
    assert (sequencer.lines_total, batch.count) == (3, 1)
    assert sequencer.bytes_total == first + batch.size


def test_filters_find_message_and_context_of_fresh_lines(sequencer, run, monkeypatch):
    """The batch knows what the lines say, those of the trader and the relay's own, without decoding them again."""
    monkeypatch.setattr(batch_module, "read_body", lambda body: pytest.fail("decoded again"))
    log(sequencer, run, symbol="AAPL")
    sequencer.add_notice(20, WARNING, "gap", "lines are missing", {"count": 2})
    _, batch = sequencer.take()
    messages, contexts = batch._decoded()
    assert messages == ["said", "lines are missing"]
    assert contexts == [{"symbol": "AAPL"}, {"notice": "gap", "count": 2}]


def test_a_line_without_a_logger_is_from_its_program(sequencer, run):
    """The source is the logger's name where there is one."""
    log(sequencer, run)
    log(sequencer, run, logger="bot.risk")
    commit, _ = sequencer.take()
    assert [line.source for line in commit.lines] == ["bot", "bot.risk"]


def test_timestamps_of_notices_rise_strictly(sequencer):
    """Also while the clock stands or goes back."""
    for now in (100, 100, 50, 200):
        sequencer.add_notice(now, INFO, "note", "text", {})
    commit, _ = sequencer.take()
    assert [line.time_us for line in commit.lines] == [100, 101, 102, 200]


def test_a_touched_run_is_written_once_as_it_was_then(sequencer, run):
    """A tick with runs and no lines makes a commit and no batch; later changes belong to a later commit."""
    sequencer.touch(run)
    sequencer.touch(run)
    commit, batch = sequencer.take()
    run.last_seq = 99
    assert batch is None
    assert [written.last_seq for written in commit.runs] == [0]
    assert commit.lines == []
    assert (sequencer.lines_total, sequencer.bytes_total) == (0, 0)
    assert sequencer.take() is None
    log(sequencer, run)
    assert sequencer.take()[0].runs == []


def test_collected_lines_go_with_how_far_they_are(sequencer):
    """One commit has both; a CRITICAL line of another machine does not wait for the disk: it can be had again."""
    line = log_line("edge01", 41, 3, "bot", 1_769_162_400_000_000, CRITICAL, {"event": "x"}, b"k" * 16)[0]
    sequencer.add_collected(read_line("berlin", "box", CRITICAL, line.time_us, "bot", line.run_name, line.body))
    row = CollectedRow(1, "edge", "berlin", "edge01", 41, "j", 5)
    sequencer.note_collected([row._replace(seq=40)])
    sequencer.note_collected([row])
    commit, batch = sequencer.take()

    assert [(line.seq, line.edge) for line in commit.lines] == [(7, "berlin")]
    assert (commit.collected, commit.durable, batch.count) == ([row], False, 1)
    assert sequencer.take() is None
    sequencer.note_collected([row])
    commit, batch = sequencer.take()
    assert (commit.collected, commit.lines, batch) == ([row], [], None)


def test_usual_lines_take_their_places_together(sequencer, run):
    """Between a local line and a notice; a filter that looks into lines finds what each says, though none was kept."""
    made = [
        log_line("edge01", 41 + n, 3, "bot", 1_769_162_400_000_000 + n, 20, {"event": f"x{n}", "n": n}, b"k" * 16)[0]
        for n in range(3)
    ]
    said = [(line.seq, 20, line.time_us, ("bot", line.run_name, "box", "bot"), line.body) for line in made]
    log(sequencer, run)
    sequencer.add_all_collected(usual_lines("berlin", "edge01", said))
    sequencer.add_notice(5, 30, "relay", "between", {"n": 1})
    commit, batch = sequencer.take()

    assert [(line.seq, line.edge) for line in commit.lines] == [
        (7, ""),
        (8, "berlin"),
        (9, "berlin"),
        (10, "berlin"),
        (11, ""),
    ]
    assert [orjson.loads(line.body)["id"] for line in commit.lines] == [f"k3f9ab-{seq}" for seq in range(7, 12)]
    assert batch.select(Filter(where=(("n", "1"),))) == [2, 4]
    assert batch.select(Filter(text="X2")) == [3, 4], "and the notice, which every viewer gets"
    log(sequencer, run)
    assert Batch.merge([batch, sequencer.take()[1]]).select(Filter(text="x1")) == [2, 4]
