"""What changes while the journal does not keep up: lateness, provisional ids, bounds, the two steps of recovery."""

from __future__ import annotations

import itertools

import pytest

from logrelay import degraded as degraded_module
from logrelay.degraded import BUSY_S, COMMIT_DEADLINE_S, DegradedMode
from logrelay.fanout.batch import Batch
from logrelay.fanout.line_json import log_line
from logrelay.fanout.positions import PROVISIONAL_CHARS, Epochs
from logrelay.model import INFO

EPOCH = "k3f9ab"
OLD_ALIAS = f"{EPOCH}.old1"
ROOM_BUSY, ROOM_DEGRADED = 1000, 4000


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch):
    """A few lines reach every bound."""
    monkeypatch.setattr(degraded_module, "BUSY_BYTES", ROOM_BUSY)
    monkeypatch.setattr(degraded_module, "DEGRADED_BYTES", ROOM_DEGRADED)


@pytest.fixture
def mode():
    """The journal keeps up; provisional epochs end in aaaa, bbbb, ..."""
    letters = iter("abcdefgh")
    return DegradedMode(Epochs([], EPOCH, 1), {OLD_ALIAS}, random_text=lambda n: next(letters) * n)


@pytest.fixture
def batch():
    """Make the next batch of `count` lines of about `size` bytes each."""
    seqs = itertools.count(1)

    def make(count=1, size=200):
        made = [
            log_line(EPOCH, seq, 1, "app", seq, INFO, {"event": "e", "pad": "x" * (size - 130)})
            for seq in itertools.islice(seqs, count)
        ]
        return Batch(*(list(column) for column in zip(*made, strict=True)))

    return make


def ids(batch):
    """Return the epochs under which a batch's lines are shown."""
    return {body.split(b'"id":"')[1].split(b"-")[0].decode() for body in batch.bodies()}


def test_a_batch_is_published_after_its_commit(mode, batch):
    """While the journal keeps up, batches come back in order, with the newest ack of each run."""
    one, two, three = batch(2), batch(), batch()
    mode.add(one, [(1, 10), (2, 5)], 0.0)
    mode.add(two, [(1, 11)], 0.1)
    mode.add(three, [(1, 12)], 0.2)

    assert mode.waiting
    assert mode.pending_lines == 4
    assert mode.take_committed(1).unpublished == [], "half of a batch is not a commit"
    done = mode.take_committed(two.last)
    assert done.unpublished == [one, two]
    assert done.acks == {1: 11, 2: 5}
    assert mode.pending_lines == 1
    assert mode.take_committed(three.last).acks == {1: 12}
    assert not mode.waiting
    assert mode.trouble is None


def test_a_commit_is_late_after_its_deadline(mode, batch):
    """The oldest commit counts, and the time of the next check is when that one is late."""
    assert mode.next_check(100.0) is None
    assert not mode.is_late(100.0)
    one, two = batch(), batch()
    mode.add(one, [], 100.0)
    mode.add(two, [], 100.5)

    assert not mode.is_late(100.0 + COMMIT_DEADLINE_S - 0.001)
    assert mode.next_check(100.25) == pytest.approx(COMMIT_DEADLINE_S - 0.25)
    assert mode.is_late(100.0 + COMMIT_DEADLINE_S)
    assert not mode.is_late(100.0 + COMMIT_DEADLINE_S, 10**6), "it is written: only its report is late"
    assert mode.is_late(100.0 + COMMIT_DEADLINE_S, 0)
    assert mode.next_check(100.0 + COMMIT_DEADLINE_S) == degraded_module.MIN_RECHECK_S
    mode.take_committed(one.last)
    assert not mode.is_late(100.0 + COMMIT_DEADLINE_S), "the one that waited so long is done"


def test_what_waits_is_shown_once_the_trouble_is_noticed(mode, batch):
    """Entering returns what nobody has been shown; later batches get the same epoch; none is published twice."""
    one, two = batch(), batch()
    mode.add(one, [(1, 1)], 0.0)
    mode.add(two, [(1, 2)], 0.5)

    assert mode.enter("the disk is full") == [one, two]
    assert mode.trouble == "the disk is full"
    assert mode.alias == f"{EPOCH}.{'a' * PROVISIONAL_CHARS}"
    for waiting in (one, two):
        mode.make_provisional(waiting)
    three = batch()
    mode.add(three, [(1, 3)], 1.0)
    mode.make_provisional(three)
    assert ids(one) == ids(three) == {mode.alias}
    assert not mode.is_late(50.0), "it is known"
    assert mode.next_check(50.0) == COMMIT_DEADLINE_S
    assert mode.enter("it is still full") is None
    assert mode.trouble == "it is still full"
    done = mode.take_committed(three.last)
    assert done.unpublished == []
    assert done.acks == {1: 3}


def test_recovery_takes_two_steps(mode, batch):
    """Quick commits end the provisional epoch; the commit of the last provisional line ends the trouble."""
    one, two = batch(), batch()
    mode.add(one, [], 0.0)
    mode.enter("slow")
    mode.make_provisional(one)
    mode.add(two, [], 5.0)
    mode.make_provisional(two)
    alias = mode.alias

    mode.take_committed(one.last)
    assert not mode.recover(5.0 + COMMIT_DEADLINE_S), "the next commit is late as well"
    assert mode.alias == alias
    assert not mode.recover(5.1), "a provisional line is still not committed"
    assert mode.alias is None
    assert mode.trouble == "slow"
    three = batch()
    mode.add(three, [], 5.2)
    assert mode.take_committed(two.last).unpublished == []
    assert mode.recover(5.3)
    assert mode.trouble is None
    assert mode.take_committed(three.last).unpublished == [three], "new lines waited for their commit"
    assert not mode.recover(5.4), "said once"


def test_trouble_in_the_middle_of_recovery_gets_an_epoch_of_its_own(mode, batch):
    """No id may change hands: only what has not been shown is made provisional anew, under another alias."""
    one, two, three = batch(), batch(), batch()
    for made in (one, two):
        mode.add(made, [], 0.0)
    for made in mode.enter("slow"):
        mode.make_provisional(made)
    first = mode.alias
    mode.take_committed(one.last)
    mode.recover(0.1)
    assert mode.alias is None
    mode.add(three, [], 0.2)

    assert mode.enter("slow again") == [three]
    mode.make_provisional(three)
    assert mode.alias == f"{EPOCH}.{'b' * PROVISIONAL_CHARS}"
    assert ids(two) == {first}
    assert ids(three) == {mode.alias}
    assert first in mode.aliases
    assert (mode.epoch_of(1), mode.epoch_of(2), mode.epoch_of(3)) == (EPOCH, first, mode.alias)


def test_a_recovery_with_nothing_left_is_complete(mode):
    """The journal failed at a commit without lines: there is nothing to wait for."""
    assert mode.enter("the disk is full") == []
    assert mode.recover(0.0)
    assert mode.alias is None
    assert mode.trouble is None


def test_reading_is_paused_at_the_bound_and_resumed_at_half_of_it(mode, batch):
    """Each change is returned once; there is little room while the journal works."""
    made, waiting = [], 0
    while waiting <= ROOM_BUSY:
        assert mode.update_reading(0.0) is None
        made.append(batch())
        mode.add(made[-1], [], 0.0)
        waiting += made[-1].size

    assert mode.update_reading(0.0) == "pause"
    assert mode.update_reading(0.0) is None
    while waiting >= ROOM_BUSY // 2:
        assert mode.update_reading(0.0) is None
        done = made.pop(0)
        mode.take_committed(done.last)
        waiting -= done.size
    assert mode.update_reading(0.0) == "resume"
    assert mode.update_reading(0.0) is None


def test_reading_waits_for_a_commit_that_takes_long(mode, batch):
    """However little it is: the processor is the journal's. What came behind it has time of its own."""
    first, second = batch(1), batch(1)
    mode.add(first, [], 0.0)
    mode.add(second, [], 10.0)
    assert mode.update_reading(BUSY_S) is None, "not longer than that"
    assert mode.update_reading(BUSY_S + 0.001) == "pause"
    assert mode.update_reading(5.0) is None
    mode.take_committed(first.last)
    assert mode.update_reading(11.0) is None, "the next one takes long as well"
    mode.take_committed(second.last)
    assert mode.update_reading(12.0) == "resume"
    assert mode.update_reading(13.0) is None


def test_reading_waits_for_no_commit_while_the_journal_is_in_trouble(mode, batch):
    """Lines are shown without one, so they are read."""
    mode.add(batch(1), [], 10.0)
    assert mode.update_reading(11.0) == "pause"
    mode.enter("slow")
    assert mode.update_reading(12.0) == "resume"
    assert mode.update_reading(13.0) is None


def test_there_is_more_room_while_degraded(mode, batch):
    """What was paused because the journal is busy is read again once it is in trouble, up to a larger bound."""
    few = batch(6)
    assert ROOM_BUSY < few.size < ROOM_DEGRADED // 2
    mode.add(few, [], 0.0)
    assert mode.update_reading(0.0) == "pause"

    mode.enter("slow")
    assert mode.update_reading(0.0) == "resume"
    many = batch(20)
    assert many.size > ROOM_DEGRADED
    mode.add(many, [], 0.0)
    assert mode.update_reading(0.0) == "pause"
    mode.take_committed(many.last)
    assert mode.update_reading(0.0) == "resume"


def test_ids_name_the_epoch_under_which_a_line_is_shown(mode, batch):
    """Provisional while not committed, the journal's own before and after."""
    one, two = batch(), batch(3)
    mode.add(one, [], 0.0)
    mode.add(two, [], 0.0)
    assert mode.epoch_of(one.first) == EPOCH
    for made in mode.enter("slow"):
        mode.make_provisional(made)
    alias = mode.alias
    assert {mode.epoch_of(seq) for seq in range(one.first, two.last + 1)} == {alias}

    mode.take_committed(one.last)
    assert mode.epoch_of(one.last) == EPOCH
    assert mode.epoch_of(two.first) == mode.epoch_of(two.last) == alias
    mode.take_committed(two.last)
    assert mode.recover(0.1)
    assert mode.epoch_of(two.last) == EPOCH


def test_epochs_of_this_journal_are_recognised(mode):
    """Every one that was committed, and the one in use; nothing else."""
    assert set(mode.aliases) == {OLD_ALIAS}
    mode.enter("slow")
    assert set(mode.aliases) == {OLD_ALIAS, mode.alias}
    alias = mode.alias
    mode.recover(0.0)
    assert set(mode.aliases) == {OLD_ALIAS, alias}, "it was committed"


def test_epochs_that_are_remembered_are_bounded(mode, monkeypatch):
    """A disk that comes and goes makes one each time; the oldest is forgotten."""
    monkeypatch.setattr(degraded_module, "MAX_ALIASES", 3)
    made = []
    for _ in range(5):
        mode.enter("slow")
        made.append(mode.alias)
        mode.recover(0.0)
    assert list(mode.aliases) == made[-3:]


class Sized:
    """A batch as far as memory is concerned."""

    alias = None

    def __init__(self, last, size):
        self.last, self.size = last, size


@pytest.mark.parametrize("room", [ROOM_BUSY, ROOM_BUSY + 1])
def test_the_bounds_of_reading_to_the_byte(mode, monkeypatch, room):
    """As much as there is room for may wait; one byte more pauses; resumed below half of it, rounded down."""
    monkeypatch.setattr(degraded_module, "BUSY_BYTES", room)
    half = room // 2
    sizes = [half - 1, 1, room - half, 1]
    for last, size in enumerate(sizes, 1):
        assert mode.update_reading(0.0) is None
        mode.add(Sized(last, size), [], 0.0)
    assert mode.update_reading(0.0) == "pause"

    waiting = sum(sizes)
    for last, size in enumerate(sizes, 1):
        assert mode.update_reading(0.0) is None
        mode.take_committed(last)
        waiting -= size
        if waiting < half:
            break
    assert mode.update_reading(0.0) == "resume"


@pytest.mark.parametrize("room", [ROOM_BUSY, ROOM_BUSY + 1])
def test_reading_goes_on_only_below_half_of_the_room(mode, monkeypatch, room):
    """Exactly half, rounded down, is not below it."""
    monkeypatch.setattr(degraded_module, "BUSY_BYTES", room)
    half = room // 2
    for last, size in enumerate((room, 1, half - 1), 1):
        mode.add(Sized(last, size), [], 0.0)
    assert mode.update_reading(0.0) == "pause"

    mode.take_committed(1)
    assert mode.update_reading(0.0) is None, "half of the room is taken"
    mode.take_committed(2)
    assert mode.update_reading(0.0) == "resume"


def test_a_line_that_waits_for_its_commit_again_has_the_epoch_of_the_journal(mode, batch):
    """While recovering, new lines are not provisional, though the trouble is not over."""
    one, two = batch(), batch()
    mode.add(one, [], 0.0)
    for made in mode.enter("slow"):
        mode.make_provisional(made)
    mode.recover(0.1)
    assert mode.trouble == "slow"
    mode.add(two, [], 0.2)

    assert mode.epoch_of(two.last) == EPOCH
