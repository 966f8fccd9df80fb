"""The sequencer: seqs without holes, and what is handed out together."""

from __future__ import annotations

import json

from logrelay.ingest.sequencer import Sequencer
from logrelay.model import CRITICAL, ERROR, INFO, RELAY_RUN, Run

NOW_US = 1_769_162_400_000_000


def run(number=1):
    return Run(number, number.to_bytes(16, "big"), "bot", "box", 4711, 0)


def made(next_seq=1):
    """Return a sequencer and the list of the notices it reports."""
    notices = []
    return Sequencer("k3f9ab", next_seq, on_notice=lambda rank, text: notices.append((rank, text))), notices


def add_line(sequencer, rank=INFO, text="x"):
    sequencer.add_line(run(), NOW_US, rank, {"event": text})


def test_lines_and_notices_share_one_sequence():
    """Seqs go on without a hole through lines, notices and takes; ids name the epoch."""
    sequencer, _ = made(next_seq=100)
    add_line(sequencer)
    sequencer.add_notice(NOW_US, ERROR, "relay", "trouble", {})
    first, _ = sequencer.take()
    add_line(sequencer)
    second, _ = sequencer.take()
    lines = [*first.lines, *second.lines]
    assert [line.seq for line in lines] == [100, 101, 102]
    assert [json.loads(line.body)["id"] for line in lines] == ["k3f9ab-100", "k3f9ab-101", "k3f9ab-102"]
    assert [line.run for line in lines] == [1, RELAY_RUN, 1]


def test_nothing_gathered_is_nothing_to_take():
    """A tick without lines costs no commit, and what was taken is not handed out twice."""
    sequencer, _ = made()
    assert sequencer.take() is None
    add_line(sequencer)
    assert sequencer.take() is not None
    assert sequencer.take() is None


def test_a_run_that_changed_is_committed_without_a_batch():
    """A change of state is for the journal; viewers are sent nothing."""
    sequencer, _ = made()
    changed = run()
    sequencer.touch(changed)
    sequencer.touch(changed)
    commit, batch = sequencer.take()
    assert batch is None
    assert commit.lines == []
    assert commit.runs == [changed]
    assert commit.runs[0] is not changed
    assert sequencer.take() is None


def test_only_a_commit_with_a_critical_line_is_durable():
    """A CRITICAL line has its own commit synced, and no commit after it."""
    sequencer, _ = made()
    add_line(sequencer, ERROR)
    assert sequencer.take()[0].durable is False
    add_line(sequencer, CRITICAL)
    add_line(sequencer, INFO)
    assert sequencer.take()[0].durable is True
    add_line(sequencer, INFO)
    assert sequencer.take()[0].durable is False


def test_every_notice_is_reported_when_it_is_added():
    """Who reads the relay's stderr hears of a notice at once, of a trader's line never."""
    sequencer, notices = made()
    sequencer.add_notice(NOW_US, ERROR, "relay", "trouble", {"state": "trouble"})
    assert notices == [(ERROR, "trouble")]
    add_line(sequencer)
    sequencer.take()
    assert notices == [(ERROR, "trouble")]


def test_totals_count_what_was_handed_out():
    """Lines and the bytes of their bodies are counted with each take."""
    sequencer, _ = made()
    add_line(sequencer)
    sequencer.add_notice(NOW_US, INFO, "relay", "hello", {})
    assert (sequencer.lines_total, sequencer.bytes_total) == (0, 0)
    commit, batch = sequencer.take()
    assert sequencer.lines_total == 2
    assert sequencer.bytes_total == batch.size == sum(len(line.body) for line in commit.lines)
