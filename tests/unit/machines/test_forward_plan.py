"""Where an edge goes on, and the chain of batches that pages make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logrelay.fanout.positions import Epoch, Epochs
from logrelay.journal.interface import RowOrigin, RowPage
from logrelay.machines.forward_plan import Cutter, LastMessage, Resume, resume, row_of, seq_of
from logrelay.machines.stream_batch import Hole
from logrelay.model import ForwardRow

EPOCHS = Epochs([Epoch("aaaaaa", 1), Epoch("bbbbbb", 101)], "cccccc", 201)
"""1 to 100, 101 to 200, and from 201 on."""
NOTED = ForwardRow("S/box", "journal1", "bbbbbb-150", 7, "monday")


def begin(noted=None, last=None, *, made="monday", oldest=1, head=300):
    return resume(noted, last, made=made, epochs=EPOCHS, oldest=oldest, head=head, new_journal=lambda: "journal2")


@pytest.mark.parametrize(
    ("noted", "last", "more", "wanted"),
    [
        # nothing is known anywhere: all that is kept
        (None, None, {"oldest": 20}, Resume("journal2", 19, "", 0)),
        # both agree
        (NOTED, LastMessage("journal1", "bbbbbb-150", 7), {}, Resume("journal1", 150, "bbbbbb-150", 7)),
        # killed before the journal was told
        (NOTED, LastMessage("journal1", "cccccc-250", 9), {}, Resume("journal1", 250, "cccccc-250", 9, "", 100)),
        (None, LastMessage("journal1", "aaaaaa-50", 2), {}, Resume("journal1", 50, "aaaaaa-50", 2, "", 50)),
        # the server has lost what it had acknowledged
        (NOTED, LastMessage("journal1", "aaaaaa-90", 5), {}, Resume("journal1", 90, "aaaaaa-90", 5)),
        # a power cut took lines back that the stream has
        (NOTED, LastMessage("journal1", "bbbbbb-220", 9), {}, Resume("journal1", 200, "bbbbbb-220", 9, "", 50)),
        # the stream's retention has taken our last message
        (NOTED, None, {}, Resume("journal1", 150, "bbbbbb-150", 0)),
        # a stream that was made anew gets everything
        (NOTED, None, {"made": "friday", "oldest": 30}, Resume("journal1", 29, "", 0)),
        # the journal was wiped, or another relay forwards under the name
        (None, LastMessage("journal1", "zzzzzz-9", 4), {}, Resume("journal2", 0, "zzzzzz-9", 4, "zzzzzz-9")),
        (NOTED, LastMessage("journal9", "zzzzzz-9", 8), {}, Resume("journal1", 150, "zzzzzz-9", 8, "zzzzzz-9")),
        (NOTED, LastMessage("journal1", "zzzzzz-9", 8), {}, Resume("journal2", 0, "zzzzzz-9", 8, "zzzzzz-9")),
        # the note is of another journal (a file was put in its place)
        (NOTED._replace(position="zzzzzz-5"), None, {}, Resume("journal2", 0, "", 0)),
    ],
)
def test_an_edge_goes_on_where_the_stream_ends(noted, last, more, wanted):
    """What the stream has should count; what the journal remembers only where the stream says nothing."""
    assert begin(noted, last, **more) == wanted


def page(first, last, *, oldest=1, holes=(), collected=()):
    gone = {seq for low, high, _ in holes for seq in range(low, high + 1)}
    seqs = [seq for seq in range(max(first, oldest), last + 1) if seq not in gone]
    bodies = [b'{"edge":"%d"}' % seq if seq in collected else b'{"n":%d}' % seq for seq in seqs]
    count = len(seqs)
    origins = [RowOrigin("bot", "r", "h", "s")]
    return RowPage(seqs, [20] * count, [1] * count, [0] * count, bodies, origins, list(holes), last, oldest)


def cutter(seq=0, after=""):
    return Cutter(
        "box",
        Resume("journal1", seq, after, 0),
        epoch_of=EPOCHS.of,
        is_collected=lambda body: b'"edge"' in body,
    )


def spans(cut):
    return [(batch.epoch, batch.first, batch.last, len(batch.lines)) for batch in cut.batches]


def test_a_batch_has_one_epoch():
    """Lines of several openings should be several batches, one chain."""
    cut = cutter().cut(page(1, 250))

    assert spans(cut) == [("aaaaaa", 1, 100, 100), ("bbbbbb", 101, 200, 100), ("cccccc", 201, 250, 50)]
    assert [batch.after for batch in cut.batches] == ["", "aaaaaa-100", "bbbbbb-200"]


def test_what_retention_has_taken_is_a_hole_before_the_lines():
    """Whoever collects should learn how many lines are missing, and that they were deleted."""
    cut = cutter(50, "aaaaaa-50").cut(page(51, 230, oldest=205))

    assert spans(cut) == [("cccccc", 51, 230, 26)]
    assert cut.batches[0].holes == [Hole(51, 204, "retention")]
    assert cut.batches[0].missing == 154


def test_damage_and_what_was_purged_are_told_apart():
    """Each hole should keep its cause, also at the end of a page; a line that is just not there is damage."""
    given = page(201, 220, holes=[(205, 206, "corrupt"), (207, 210, "purged"), (220, 220, "corrupt")])
    lost = given.seqs.index(203)
    for column in (given.seqs, given.ranks, given.times, given.places, given.bodies):
        del column[lost]
    cut = cutter(200).cut(given)

    assert spans(cut) == [("cccccc", 201, 220, 12)]
    assert [tuple(hole) for hole in cut.batches[0].holes] == [
        (203, 203, "corrupt"),
        (205, 206, "corrupt"),
        (207, 210, "purged"),
        (220, 220, "corrupt"),
    ]


def test_lines_of_other_edges_make_no_message_of_their_own():
    """A relay that collects and forwards should not send back what it has got, nor a message that says so."""
    one = cutter(200)
    assert one.cut(page(201, 240, collected=range(201, 241))).batches == []
    assert one.cut(page(241, 250, collected=range(241, 251))).reached == 250
    cut = one.cut(page(251, 252))

    assert spans(cut) == [("cccccc", 201, 252, 2)]
    assert cut.batches[0].holes == [Hole(201, 250, "collected")]
    assert cut.batches[0].missing == 0


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.sets(st.integers(1, 300), max_size=60),
    st.sets(st.integers(1, 300), max_size=200),
    st.integers(1, 200),
)
def test_every_page_goes_on_where_the_one_before_ended(steps, gone, collected, oldest):
    """Whatever pages there are, their batches should be one chain in which every seq is a line or a hole, once."""
    one, at, batches = cutter(), 0, []
    for step in steps:
        last = max(at + step, oldest)
        holes = [(seq, seq, "corrupt") for seq in sorted(gone) if max(at + 1, oldest) <= seq <= last]
        cut = one.cut(page(at + 1, last, oldest=oldest, holes=holes, collected=collected))
        assert cut.reached == last
        batches += cut.batches
        at = last
    before, seen = None, []
    for batch in batches:
        assert batch.first == (1 if before is None else before.last + 1)
        assert batch.after == ("" if before is None else before.id)
        assert {EPOCHS.of(line.seq) for line in batch.lines} <= {batch.epoch}
        covered = [line.seq for line in batch.lines]
        covered += [seq for hole in batch.holes for seq in range(hole.first, hole.last + 1)]
        assert sorted(covered) == list(range(batch.first, batch.last + 1))
        seen += [line.seq for line in batch.lines]
        before = batch
    end = before.last if before else 0
    assert seen == [seq for seq in range(oldest, end + 1) if seq not in gone | collected]
    assert {seq for seq in range(end + 1, at + 1)} <= collected


def test_a_row_remembers_the_last_line_that_was_acknowledged():
    """What the journal keeps should lead back to the same place."""
    batch = cutter().cut(page(1, 30)).batches[0]
    row = row_of(batch, target="S/box", stream_seq=3, made="monday")

    assert row == ForwardRow("S/box", "journal1", "aaaaaa-30", 3, "monday")
    assert seq_of(row) == 30
