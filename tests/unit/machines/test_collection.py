"""What of a batch is new, whatever was read before and however the stream has changed."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.fanout.collected_line import CollectedLine, CollectedLines, Told
from logrelay.fanout.line_json import log_line
from logrelay.machines import collection as module
from logrelay.machines.collection import Collection, StreamFacts
from logrelay.machines.stream_batch import Hole, Origin, StreamBatch, StreamLine
from logrelay.model import CollectedRow

T0 = 1_769_162_400_000_000
ORIGIN = Origin("bot", "r" * 32, "box", "bot.x")
FACTS = StreamFacts("S", "2026", 1, 100)


def line(seq, epoch="e1"):
    body = log_line(epoch, seq, 1, "bot", T0 + seq, 20, {"event": f"line {seq}", "logger": "bot.x"}, b"k" * 16)[0].body
    return StreamLine(seq, 20, T0 + seq, ORIGIN, body)


def batch(first, last, epoch="e1", *, edge="berlin", journal="j1", after="", holes=()):
    without = {seq for hole in holes for seq in range(hole.first, hole.last + 1)}
    lines = [line(seq, epoch) for seq in range(first, last + 1) if seq not in without]
    return StreamBatch(edge, journal, epoch, first, last, after, lines, list(holes))


class Hub:
    """A collection whose rows are remembered, as the journal does, and what came out of it."""

    def __init__(self):
        self.rows = {}
        self.out = []
        self.collection = Collection([])

    def take(self, found, *, parts=None):
        """Take a batch, or only the first `parts` of it, after which the relay is killed."""
        for number, part in enumerate(self.collection.take(found, T0)):
            if number == parts:
                self.restart()
                return
            self.keep(part)

    def keep(self, part):
        self.rows |= {row.id: row for row in part.rows}
        self.out += part.items

    def restart(self):
        self.collection = Collection(self.rows.values())

    @property
    def lines(self):
        found = []
        for item in self.out:
            if isinstance(item, CollectedLines):
                found += [orjson.loads(b'{"id":"' + b'"' + rest + b"}") for rest in item.rests]
            elif isinstance(item, CollectedLine):
                found.append(item.shape)
        return [int(shape["message"].split()[1]) for shape in found]

    @property
    def told(self):
        """Cause, reason, count, first and last of every gap."""
        found = [item.details for item in self.out if isinstance(item, Told)]
        return [(d["cause"], d.get("reason"), d["count"], d["first"], d["last"]) for d in found]


@pytest.fixture
def hub():
    return Hub()


def test_what_overlaps_is_cut_to_what_is_new(hub):
    """A batch that was published twice, in other cuts, before or after a restart, adds nothing."""
    hub.take(batch(1, 10))
    hub.take(batch(5, 12))
    hub.restart()
    hub.take(batch(1, 12))
    hub.take(batch(11, 14))

    assert hub.lines == list(range(1, 15))
    assert hub.told == []
    assert hub.collection.counters.duplicates == 14


def test_a_gap_is_told_with_its_range(hub):
    """Between what was taken and where a batch begins, also over a start of the edge's relay."""
    hub.take(batch(1, 10))
    hub.take(batch(14, 15))
    hub.restart()
    hub.take(batch(20, 21, "e2"))

    assert hub.lines == [*range(1, 11), 14, 15, 20, 21]
    assert hub.told == [("stream", None, 3, "e1-11", "e1-13"), ("stream", None, 4, "e1-16", "e2-19")]
    assert hub.collection.counters.missing == 4, "since the restart"


def test_an_edge_that_is_new_has_no_gap(hub):
    """A hub relay that comes to an old stream has missed nothing: it was not there."""
    hub.take(batch(500, 510, after="e1-499"))

    assert hub.told == []


def test_numbers_that_an_edge_gives_again_are_other_lines(hub):
    """After a power cut over there a new epoch begins below what had been forwarded; all of it is new."""
    hub.take(batch(1, 100))
    hub.take(batch(91, 95, "e2"))
    hub.restart()
    hub.take(batch(96, 110, "e2"))

    assert hub.lines == [*range(1, 101), *range(91, 111)]
    assert hub.told == []


def test_an_older_epoch_that_comes_again_adds_nothing(hub):
    """The edge's disk was put back from a backup, and it forwards from there."""
    hub.take(batch(1, 100))
    hub.take(batch(101, 150, "e2"))
    hub.restart()
    hub.take(batch(90, 100))
    hub.take(batch(101, 150, "e2"))
    hub.take(batch(151, 152, "e3"))

    assert hub.lines == list(range(1, 153))
    assert hub.told == []


def test_another_journal_begins_anew(hub):
    """Its numbers are its own; what of it was lost before the first batch that came is told by `after`."""
    hub.take(batch(1, 100))
    hub.take(batch(1, 5, "n1", journal="j2"))
    hub.take(batch(8, 9, "m1", journal="j3", after="m1-7"))

    assert hub.lines == [*range(1, 101), *range(1, 6), 8, 9]
    assert hub.told == [("stream", None, 7, "m1-1", "m1-7")]


def test_of_a_journal_that_was_wiped_or_put_back_only_what_never_came_is_told(hub):
    """The edge names the last line that the stream has of the journal before, which may have been taken."""
    hub.take(batch(1, 100))
    hub.take(batch(1, 5, "n1", journal="j2", after="e1-100"))
    assert hub.told == []
    hub.take(batch(1, 5, "m1", journal="j3", after="n1-7"))
    assert hub.told == [("stream", None, 2, "n1-6", "n1-7")]


def test_holes_are_told_in_their_place_and_those_of_other_edges_not(hub):
    """With the reason that the edge has given."""
    holes = [Hole(3, 4, "purged"), Hole(6, 6, "collected"), Hole(8, 9, "too_large")]
    hub.take(batch(1, 9, holes=holes))

    assert hub.lines == [1, 2, 5, 7]
    assert hub.told == [("edge", "purged", 2, "e1-3", "e1-4"), ("edge", "too_large", 2, "e1-8", "e1-9")]
    assert [isinstance(item, Told) for item in hub.out] == [False, False, True, False, False, True]
    hub.take(batch(1, 9, holes=holes))
    assert len(hub.told) == 2, "nothing is told twice"


def test_a_hole_before_the_lines_is_cut_to_what_had_not_come(hub):
    """It may begin in the epoch before: the edge did not learn that its last batch was taken, then retention came."""
    hub.take(batch(1, 95))
    hub.take(batch(90, 110, "e2", holes=[Hole(90, 100, "retention")]))

    assert hub.told == [("edge", "retention", 5, "e2-96", "e2-100")]


def test_many_holes_are_added_up(hub):
    """Somebody has purged every second line."""
    hub.take(batch(1, 20, holes=[Hole(seq, seq, "purged") for seq in range(2, 21, 2)]))

    assert hub.told == [("edge", "purged", 10, "e1-2", "e1-20")]
    assert hub.out[-1].details["gaps"] == 10


def test_a_line_that_is_none_is_told_and_the_others_are_taken(hub):
    """Its number counts as taken."""
    found = batch(1, 3)
    found.lines[1] = found.lines[1]._replace(body=b"{}")
    hub.take(found)
    hub.take(batch(4, 4))

    assert hub.lines == [1, 3, 4]
    assert hub.told == [("edge", "unreadable", 1, "e1-2", "e1-2")]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12), st.integers(0, 3) | st.none()), max_size=12),
    st.integers(1, 4),
)
def test_killed_anywhere_each_line_is_taken_once(steps, chunk):
    """Batches go back and forth over a journal of an edge, and the relay is killed between their parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_LINES", chunk)
        hub, end = Hub(), 0
        for back, size, parts in [*steps, (12, 1, None), (0, 300, None)]:
            first = max(1, end + 1 - back)
            last = first + size - 1
            hub.take(batch(first, last), parts=parts)
            if parts is not None:
                hub.take(batch(first, last))
            end = max(end, last)

    assert hub.lines == list(range(1, end + 1))
    assert hub.told == []


@pytest.mark.parametrize("chunk", [2, 5, 100])
def test_lines_of_two_machines_that_say_the_same_time_are_moved_apart(hub, monkeypatch, chunk):
    """Together with those around them, which stay as they are."""
    monkeypatch.setattr(module, "CHUNK_LINES", chunk)
    hub.take(batch(1, 4))
    hub.take(batch(3, 8, edge="paris"))
    found = [item for item in hub.out if isinstance(item, CollectedLines)]

    assert [us - T0 for item in found for us in item.shown] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert [us - T0 for item in found for us in item.found] == [1, 2, 3, 4, 3, 4, 5, 6, 7, 8]
    assert hub.collection.counters.lines == 10


def test_what_is_remembered_is_bounded(hub, monkeypatch):
    """Of epochs the newest, of edges those heard of last; numbers of rows are given again."""
    monkeypatch.setattr(module, "MAX_EPOCHS", 3)
    monkeypatch.setattr(module, "MAX_EDGES", 2)
    for number in range(5):
        hub.take(batch(number + 1, number + 1, f"e{number}"))
    assert len(hub.rows) == 3
    for number in range(4):
        hub.take(batch(1, 1, edge=f"edge{number}"))
    assert len(hub.rows) <= 5
    assert hub.collection.counters.edges_forgotten == 3
    assert set(hub.collection.edges()) == {"edge2", "edge3"}


# --- where to read ------------------------------------------------------------------------------------------------


def passed(seq=40, facts=FACTS, stamp="m40"):
    collection = Collection([])
    row = collection.passed(facts, seq, stamp, T0)
    return Collection([row])


@pytest.mark.parametrize(
    ("facts", "stamp", "start", "told"),
    [
        (FACTS, "m40", 41, None),
        (FACTS, None, 41, None),
        (FACTS._replace(last_seq=40), "m40", 41, None),
        (FACTS._replace(first_seq=41, last_seq=40), None, 41, None),
        (FACTS._replace(first_seq=41), None, 41, None),
        (FACTS._replace(created="2027"), None, 1, "made anew"),
        (FACTS._replace(last_seq=39), None, 1, "gone back"),
        (FACTS, "other", 1, "gone back"),
        (FACTS._replace(first_seq=61), None, 61, "lost 20 messages"),
        (FACTS._replace(first_seq=42, last_seq=41), None, 42, "lost 1 message "),
        (FACTS._replace(name="T", first_seq=7), None, 7, None),
        (FACTS._replace(name="T", first_seq=0, last_seq=0), None, 1, None),
    ],
)
def test_where_to_begin(facts, stamp, start, told):
    """Behind what was read, if it is the same stream; else at its beginning, and that is said."""
    begun, said = passed().begin(facts, stamp)

    assert begun == start
    assert (said is None) is (told is None)
    assert said is None or told in said.message


def test_a_position_moves_in_its_own_row():
    """One for each stream, of which a few are remembered."""
    collection = Collection([])
    first = collection.passed(FACTS, 1, "m1", T0)
    second = collection.passed(FACTS, 2, "m2", T0)
    assert (first.id, second.seq, second.stamp) == (second.id, 2, "m2")
    rows = [collection.passed(FACTS._replace(name=f"S{n}"), 1, "", T0) for n in range(20)]
    assert len({row.id for row in rows}) == module.MAX_STREAMS


def test_what_was_told_of_an_edge_is_remembered():
    """So that a restart of the hub relay does not tell it again."""
    collection = Collection([])
    row = collection.note_state("berlin", 77, T0)
    assert row == CollectedRow(1, "state", "berlin", "", 77, "", T0)
    assert Collection([row]).edges() == {"berlin": (77, T0)}
    back = collection.note_state("berlin", 0, T0)
    assert (back.id, back.seq, back.seen_us) == (1, 0, T0 + 1)
