"""The outbox step by step: what goes first when memory is full, what is joined, and who may do what with the baton."""

import os
import socket

import msgpack
import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay import outbox as module
from robo_trader.log_relay.outbox import FRAME_OVERHEAD, GAP_COST, GAP_GAIN, Delegated, Outbox

fcntl = pytest.importorskip("fcntl")
MARK = 52
BODY = b"\xc5\x01\x2c" + bytes(300)
"""303 bytes: a frame with it frees more than the gap it leaves costs."""
SIZE = len(frames.log(1, 1, frames.LEVELS["info"], BODY)) + FRAME_OVERHEAD
HIGH_SIZE = len(frames.log(1, 1, frames.LEVELS["error"], BODY)) + FRAME_OVERHEAD


@pytest.fixture
def blocked():
    return []


@pytest.fixture
def out(blocked):
    return Outbox(1 << 20, on_blocked=lambda: blocked.append(1))


@pytest.fixture
def marked():
    """A descriptor with the mark that the outbox looks for before it sends."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETSIG, MARK)
    yield write
    os.close(read)
    os.close(write)


@pytest.fixture
def impatient(monkeypatch):
    """Whoever waits for the baton gives up soon."""
    monkeypatch.setattr(module, "BATON_TIMEOUT_S", 0.01)


def log(out, *words, body=BODY):
    """Queue one line per level word; its time is its seq."""
    for word in words:
        out.queue(out.seq + 1, frames.LEVELS[word], body)


def kept(out):
    """Return the seqs in memory: below WARNING, and the others."""
    return [
        [frames.seq_of(frame) for queue in queues for frame in queue]
        for queues in ((out.sent_low, out.unsent_low), (out.sent_high, out.unsent_high))
    ]


def gaps(spans):
    return [(gap.first, gap.last, gap.cause, gap.lost) for gap in spans]


def unpacked(data):
    unpacker = msgpack.Unpacker()
    unpacker.feed(bytes(data))
    return list(unpacker)


def balanced(out):
    return out.produced() == out.acked + out.pending() + sum(out.dropped.values())


# --- the first moment -------------------------------------------------------------------------------------------------


def test_an_outbox_begins_empty(out):
    """Nothing is produced, dropped, charged, waiting or wrong, and callers queue."""
    assert (out.seq, out.acked, out.acked_seq, out.sent_seq, out.charged_bytes, out.inbox_bytes) == (0,) * 6
    assert (out.overrun, out.unencoded, out.bad_answers, out.pending(), out.produced()) == (0,) * 5
    assert out.dropped == {"overflow": 0, "too_big": 0, "encode": 0, "rejected": 0, "rejected_repeatedly": 0}
    assert (out.direct_send, out.direct_fd, out.direct_mark, out.to_write) == (None, -1, -1, b"")
    assert (out.dirty, out.broken, out.has_sender, out.unsent(), out.outstanding()) == (False,) * 5
    assert out.baton == [None]
    assert out.limit == 1 << 20
    assert out.first_unacked() == 1
    assert out.oldest_ns() is None


# --- the bound --------------------------------------------------------------------------------------------------------


def test_the_oldest_below_warning_goes_first(out):
    """Then the next of them; lines of WARNING and above are touched only when no other is left."""
    log(out, "error", "info", "debug", "warning", "info")
    out.limit = out.charged_bytes
    log(out, "info")
    assert kept(out) == [[5, 6], [1, 4]]
    assert gaps(out.unreported_gaps) == [(2, 3, "overflow", True)]
    assert out.dropped["overflow"] == 2
    log(out, "critical", "critical")
    assert kept(out) == [[], [1, 4, 7, 8]]
    assert gaps(out.unreported_gaps) == [(2, 3, "overflow", True), (5, 6, "overflow", True)]
    log(out, "error")
    assert kept(out) == [[], [4, 7, 8, 9]]
    assert gaps(out.unreported_gaps) == [(1, 3, "overflow", True), (5, 6, "overflow", True)]
    assert out.charged_bytes <= out.limit
    assert balanced(out)


def test_the_bound_itself_is_within_the_bound(out):
    """A byte more costs a line."""
    out.limit = 3 * SIZE
    log(out, "info", "info", "info")
    assert kept(out) == [[1, 2, 3], []]
    out.limit += SIZE - 1
    log(out, "info")
    assert kept(out)[0][-1] == 4
    assert out.dropped["overflow"] > 0


def test_lines_on_the_wire_go_before_those_that_wait(out):
    """They are older, and may have got there: they are in doubt, not lost."""
    log(out, "info", "info", "info")
    out.fill(2)
    out.limit = out.charged_bytes - SIZE
    out.shed()
    assert kept(out) == [[3], []]
    assert gaps(out.sent_gaps) == [(1, 2, "overflow", False)]
    assert not out.unreported_gaps
    assert sum(out.dropped.values()) == 0
    assert out.pending() == 3
    assert balanced(out)


@pytest.mark.parametrize("small", [b"\x80", b"\xc4\x3c" + bytes(60)])
def test_a_line_too_small_to_pay_for_its_gap_is_left(out, small):
    """Then the oldest of all goes, also one of WARNING and above."""
    assert len(frames.log(1, 1, frames.LEVELS["info"], small)) + FRAME_OVERHEAD < GAP_COST + GAP_GAIN
    log(out, "error")
    log(out, "info", "info", body=small)
    out.limit = out.charged_bytes - 1
    out.shed()
    assert kept(out) == [[2, 3], []]
    assert gaps(out.unreported_gaps) == [(1, 1, "overflow", True)]
    assert balanced(out)


def test_a_small_line_beside_a_gap_costs_none_of_its_own(out):
    """It is dropped before lines of WARNING and above."""
    log(out, "error", "info")
    log(out, "info", "info", body=b"\x80")
    out.limit = out.charged_bytes - SIZE + GAP_COST - 1
    out.shed()
    assert kept(out) == [[4], [1]]
    assert gaps(out.unreported_gaps) == [(2, 3, "overflow", True)]
    assert out.dropped["overflow"] == 2


def test_no_more_is_dropped_than_must_be(out):
    """The bound is reached by one line."""
    log(out, "info", "info", "info")
    out.limit = out.charged_bytes - SIZE + GAP_COST
    out.shed()
    assert kept(out) == [[2, 3], []]


@pytest.mark.parametrize(("over", "goes"), [(0, True), (-1, False)])
def test_what_a_line_must_free_to_go_before_its_turn(out, over, goes):
    """`GAP_GAIN` bytes more than the gap costs that it leaves."""
    overhead = len(frames.log(1, 1, frames.LEVELS["info"], b"")) + FRAME_OVERHEAD
    log(out, "error")
    log(out, "info", body=bytes(GAP_COST + GAP_GAIN - overhead + over))
    assert out._drop(out.unsent_low, GAP_COST + GAP_GAIN) is goes
    assert kept(out) == [[] if goes else [2], [1]]


def test_lines_dropped_one_after_the_other_are_one_gap(out):
    """It grows without costing more; the next of another kind is a gap of its own."""
    log(out, *["info"] * 6)
    out.fill(3)
    before = out.charged_bytes
    for _ in range(3):
        assert out._drop(out.sent_low, 0)
    assert out.charged_bytes == before - 3 * SIZE + GAP_COST
    for _ in range(2):
        assert out._drop(out.unsent_low, 10**6) or out._drop(out.unsent_low, 0)
    assert out.charged_bytes == before - 5 * SIZE + 2 * GAP_COST
    assert gaps(out.sent_gaps) == [(1, 3, "overflow", False)]
    assert gaps(out.unreported_gaps) == [(4, 5, "overflow", True)]
    assert out.dropped["overflow"] == 2
    assert balanced(out)


def test_gaps_of_different_causes_are_joined_at_the_very_end(out):
    """When no line is left to drop, the bound is kept by telling less exactly; the sum of the lost stays."""
    out.overrun, out.unencoded = 2, 3
    out.combine()
    log(out, "info")
    assert gaps(out.unreported_gaps) == [(1, 2, "overflow", True), (3, 5, "encode", True)]
    assert out.charged_bytes == 2 * GAP_COST + SIZE
    out.limit = GAP_COST
    out.shed()
    assert gaps(out.unreported_gaps) == [(1, 6, "overflow", True)]
    assert out.dropped["overflow"] == 6
    assert out.dropped["encode"] == 0
    assert out.charged_bytes == GAP_COST
    assert balanced(out)


def test_only_neighbours_of_one_kind_are_joined(out):
    """Not over a line between them, nor lost ones with those in doubt."""
    log(out, *["info"] * 9)
    out.fill(9)
    for seq, cause, lost in ((1, "overflow", False), (2, "rejected", True), (3, "encode", True), (5, "encode", True)):
        out._add_gap(out.sent_gaps, seq, seq, cause, lost=lost)
    for _ in range(9):
        del out.sent_low[0]
    out.charged_bytes = 4 * GAP_COST
    out.dropped.update(rejected=1, encode=2)
    out.limit = 0
    out.shed()
    assert gaps(out.sent_gaps) == [(1, 1, "overflow", False), (2, 3, "rejected", True), (5, 5, "encode", True)]
    assert out.charged_bytes == 3 * GAP_COST
    assert (out.dropped["rejected"], out.dropped["encode"]) == (2, 1)


def test_gaps_are_kept_in_order_and_joined_on_both_sides(out):
    """Wherever a seq is added: before, behind, between, or as the missing one of two."""
    gap_list = out.sent_gaps
    for first, last in ((10, 12), (20, 22), (1, 2), (14, 15)):
        out._add_gap(gap_list, first, last, "overflow", lost=True)
    assert gaps(gap_list) == [(f, n, "overflow", True) for f, n in ((1, 2), (10, 12), (14, 15), (20, 22))]
    assert out.charged_bytes == 4 * GAP_COST
    out._add_gap(gap_list, 13, 13, "overflow", lost=True)
    assert [gap[:2] for gap in gaps(gap_list)] == [(1, 2), (10, 15), (20, 22)]
    assert out.charged_bytes == 3 * GAP_COST
    out._add_gap(gap_list, 3, 4, "overflow", lost=True)
    out._add_gap(gap_list, 18, 19, "overflow", lost=True)
    out._add_gap(gap_list, 23, 23, "overflow", lost=True)
    assert [gap[:2] for gap in gaps(gap_list)] == [(1, 4), (10, 15), (18, 23)]
    assert out.charged_bytes == 3 * GAP_COST
    out._add_gap(gap_list, 5, 5, "encode", lost=True)
    out._add_gap(gap_list, 9, 9, "overflow", lost=False)
    out._add_gap(gap_list, 16, 16, "overflow", lost=False)
    out._add_gap(gap_list, 17, 17, "encode", lost=True)
    assert [gap[:2] for gap in gaps(gap_list)] == [(1, 4), (5, 5), (9, 9), (10, 15), (16, 16), (17, 17), (18, 23)]
    assert out.charged_bytes == 7 * GAP_COST


# --- bytes out --------------------------------------------------------------------------------------------------------


def test_what_is_filled_at_once_is_bounded_in_frames_and_bytes(out):
    """In lines of one level, and merged with others."""
    log(out, *["info"] * 10)
    out.fill(4)
    assert [frame[1] for frame in unpacked(out.to_write)] == [1, 2, 3, 4]
    assert (len(out.sent_low), out.sent_seq) == (4, 4)
    out.fill(100)
    assert [frame[1] for frame in unpacked(out.to_write)] == list(range(1, 11)), "behind what is there"
    out.to_write = b""
    big = b"\xc5\x20\x00" + bytes(8192)
    for word in ("info", "error"):
        log(out, word, *["info"] * 9, body=big)
        out.fill(100)
        assert module.BATCH_BYTES // 2 < len(out.to_write) < module.BATCH_BYTES + 2 * 8300
        out.fill(100)
        out.fill(100)
        out.fill(100)
        assert len(unpacked(out.to_write)) == 10
        out.to_write = b""
        assert not out.unsent()
    log(out, "info", body=b"\xc5\xff\x00" + bytes(0xFF00))
    out.fill(100)
    assert len(out.to_write) > module.BATCH_BYTES, "one line always fits"


def test_lines_of_all_levels_and_gaps_go_out_in_order(out):
    """A gap is told where its lines would have stood, also the very last."""
    log(out, "info", "error", "info", "info", "error", "info")
    assert out.reject(3, "encode", "encode")
    assert out.reject(6, "too_big", "too_big")
    out.fill(100)
    told = [tuple(frame[:3]) if frame[0] == 2 else frame[1] for frame in unpacked(out.to_write)]
    assert told == [1, 2, (2, 3, 3), 4, 5, (2, 6, 6)]
    assert out.sent_seq == 6
    assert kept(out) == [[1, 4], [2, 5]]
    assert gaps(out.sent_gaps) == [(3, 3, "encode", True), (6, 6, "too_big", True)]
    assert out.unsent()
    out.written(len(out.to_write))
    assert not out.unsent()


def test_a_bye_says_the_last_seq(out):
    """Behind everything else."""
    log(out, "info")
    out.fill(1)
    out.append_bye()
    assert [frame[0] for frame in unpacked(out.to_write)] == [1, 3]
    assert unpacked(out.to_write)[-1] == [3, 1]
    out.written(5)
    assert out.to_write == (frames.log(1, 1, frames.LEVELS["info"], BODY) + frames.bye(1))[5:]


def test_of_several_frames_the_last_waits_again(out):
    """Those before it were taken."""
    for word, queue in (("info", out.sent_low), ("error", out.sent_high)):
        log(out, word, word, word)
        out.fill(10)
        out.cut_short(queue[-1], 0)
        assert [frames.seq_of(frame) for frame in queue] == [out.seq - 2, out.seq - 1]
        out.fill(10)


def test_a_batch_is_full_at_its_bound(out, monkeypatch):
    """In bytes: what just fits goes out, also told gaps count; without one byte of room nothing more."""
    size = SIZE - FRAME_OVERHEAD
    for first, more in (("info", "info"), ("error", "info")):
        for bound, count in ((2 * size + 1, 2), (2 * size, 2), (2 * size - 1, 1)):
            monkeypatch.setattr(module, "BATCH_BYTES", bound + (1 if first == "error" else 0))
            log(out, first, *[more] * 3)
            out.to_write = b""
            out.fill(100)
            sent = len(unpacked(out.to_write))
            # Where levels are merged the bound is looked at before each frame, not behind it.
            assert sent == (count if first == "info" else 3 if bound > 2 * size else 2)
            while out.unsent():
                out.to_write = b""
                out.fill(100)
    monkeypatch.setattr(module, "BATCH_BYTES", 20)
    log(out, *["info", "error"] * 20)
    for seq in range(out.seq - 39, out.seq, 2):
        assert out.reject(seq, "rejected", "rejected")
    for queue in (out.unsent_low, out.unsent_high):
        queue.clear()
    out.to_write = b""
    out.fill(100)
    assert 1 <= len(unpacked(out.to_write)) <= 3, "told gaps take room, too"


@pytest.mark.parametrize("word", ["info", "error"])
def test_a_frame_of_which_nothing_was_taken_waits_again(out, blocked, word):
    """It goes back to the others that wait, and was never sent."""
    log(out, "info", "error")
    out.fill(2)
    out.start_direct(lambda data, flags: 0, 7, 8)
    frame = frames.log(3, 3, frames.LEVELS[word], BODY)
    (out.sent_high if word == "error" else out.sent_low).append(frame)
    out.seq = 3
    out.cut_short(frame, 0)
    assert (out.sent_seq, out.direct_send, blocked) == (2, None, [1])
    assert list(out.unsent_high if word == "error" else out.unsent_low) == [frame]
    assert kept(out) == ([[1, 3], [2]] if word == "info" else [[1], [2, 3]])
    assert len(out.sent_low) + len(out.sent_high) == 2
    out.to_write = b""
    out.fill(10)
    assert [sent[1] for sent in unpacked(out.to_write)] == [3]


def test_a_frame_of_which_a_part_was_taken_is_finished_next(out, blocked):
    """It counts as sent."""
    frame = frames.log(1, 3, frames.LEVELS["info"], BODY)
    out.sent_low.append(frame)
    out.seq = 1
    out.start_direct(lambda data, flags: 0, 7, 8)
    out.cut_short(frame, 4)
    assert (out.sent_seq, out.direct_send, out.to_write, blocked) == (1, None, frame[4:], [1])
    assert not out.unsent_low


def test_a_line_that_came_while_the_baton_was_taken_goes_to_the_kernel(out, marked, blocked):
    """At once, while everything before is on the wire."""
    sent = []
    out.start_direct(lambda data, flags: sent.append((data, flags)) or len(data), marked, MARK)
    for word in ("info", "error"):
        out.inbox.append((5, frames.LEVELS[word], BODY))
        out.inbox_bytes += len(BODY)
    out.overrun = 2
    out.unencoded = 1
    out.combine()
    assert [frame[0:2] for data, _ in sent for frame in unpacked(data)] == [[1, 1], [1, 2], [2, 3], [2, 5]]
    assert {flags for _, flags in sent} == {module.SEND_FLAGS}
    assert (out.inbox_bytes, out.to_write, blocked) == (0, b"", [])
    assert out.charged_bytes == SIZE + HIGH_SIZE + 2 * GAP_COST
    assert out.dropped["overflow"] == 2
    assert out.dropped["encode"] == 1
    assert out.oldest_ns() == 5
    assert balanced(out)


def test_a_kernel_that_fails_is_left_to_the_sender(out, marked, blocked):
    """The bytes stay, and the sender looks."""

    def send(data, flags):
        raise BrokenPipeError

    out.start_direct(send, marked, MARK)
    out.inbox.append((5, frames.LEVELS["info"], BODY))
    out.combine()
    assert (out.direct_send, blocked) == (None, [1])
    assert unpacked(out.to_write)[0][1] == 1


def test_callers_may_send_themselves_until_told_not_to(out):
    """What they sent counts as sent from then on."""

    def send(data, flags):
        return 0

    log(out, "info", "info")
    out.fill(1)
    out.start_direct(send, 7, 8)
    assert (out.direct_send, out.direct_fd, out.direct_mark) == (send, 7, 8)
    assert out.sent_seq == 1
    out.stop_direct()
    assert (out.direct_send, out.sent_seq) == (None, 2)
    out.seq = 3
    out.stop_direct()
    assert out.sent_seq == 2, "nobody has sent since"


def test_a_lost_connection_leaves_nothing_of_it(out):
    """No half frame goes to the next one."""
    log(out, "info")
    out.start_direct(lambda data, flags: 0, 7, 8)
    out.to_write = b"half"
    out.break_connection()
    assert out.broken is True
    out.connection_lost()
    assert (out.direct_send, out.direct_fd, out.direct_mark, out.to_write, out.broken) == (None, -1, -1, b"", False)
    assert out.sent_seq == 1


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_ack_is_worked_off_in_slices(out, monkeypatch):
    """A caller waits for no more than one."""
    monkeypatch.setattr(module, "SLICE_FRAMES", 3)
    log(out, *["info", "error"] * 4)
    out.fill(100)
    answers = [out.release(7) for _ in range(3)]
    assert answers == [True, True, False]
    assert (out.acked, out.acked_seq) == (7, 7)
    assert kept(out) == [[], [8]]
    assert out.charged_bytes == HIGH_SIZE


def test_an_older_ack_changes_nothing(out):
    """Acks are cumulative."""
    log(out, *["info"] * 5)
    out.fill(5)
    assert out.release(4) is False
    assert out.release(2) is False
    assert (out.acked, out.acked_seq, out.bad_answers) == (4, 4, 0)


def test_an_ack_may_say_what_callers_have_just_sent(out):
    """While they send themselves everything is on the wire; else what was filled."""
    log(out, "info", "info")
    out.fill(1)
    out.start_direct(lambda data, flags: 0, 7, 8)
    assert out.release(2) is False
    assert (out.acked, out.bad_answers) == (2, 0)
    assert out.release(3) is False
    assert (out.acked, out.bad_answers) == (2, 1)


def test_an_ack_inside_a_gap_takes_its_part(out):
    """The lines in doubt got there up to it; the rest stays in doubt."""
    log(out, *["info"] * 6)
    out.fill(6)
    for _ in range(5):
        out._drop(out.sent_low, 0)
    assert out.release(3) is False
    assert gaps(out.sent_gaps) == [(4, 5, "overflow", False)]
    assert (out.acked, out.pending()) == (3, 3)
    assert out.charged_bytes == SIZE + GAP_COST
    assert out.release(5) is False
    assert not out.sent_gaps
    assert (out.acked, out.charged_bytes) == (5, SIZE)


def test_a_new_connection_begins_with_what_is_not_acked(out):
    """Gaps in doubt are lost once the welcome has left them out; neighbours are told as one, others as they are."""
    log(out, *["info", "error"] * 4)
    out.fill(5)
    out._drop(out.sent_low, 0)  # 1
    out.reject(3, "rejected", "rejected_repeatedly")
    out.reject(7, "encode", "encode")
    out.reject(2, "overflow", "overflow")
    out.to_write = b"half"
    before = out.charged_bytes
    out.reconnected()
    others = [(3, 3, "rejected_repeatedly", True), (7, 7, "encode", True)]
    assert gaps(out.unreported_gaps) == [(1, 1, "overflow", False), (2, 2, "overflow", True), *others]
    assert not out.sent_gaps
    assert (out.charged_bytes, out.dropped["overflow"]) == (before, 1)
    assert out.to_write == b""
    out.welcomed()
    assert gaps(out.unreported_gaps) == [(1, 2, "overflow", True), *others]
    assert out.charged_bytes == before - GAP_COST
    assert out.dropped["overflow"] == 2
    assert [list(map(frames.seq_of, queue)) for queue in (out.unsent_low, out.unsent_high)] == [[5], [4, 6, 8]]
    assert not out.outstanding()
    assert balanced(out)


@pytest.mark.parametrize("seq", [1, 2, 3, 4])
def test_a_line_is_rejected_wherever_it_is(out, seq):
    """On the wire or waiting, of any level; as a gap of the cause it was rejected for."""
    log(out, "info", "error", "info", "error")
    out.fill(2)
    before = out.charged_bytes
    assert out.reject(seq, "rejected", "rejected_repeatedly") is True
    there, other = (out.sent_gaps, out.unreported_gaps) if seq <= 2 else (out.unreported_gaps, out.sent_gaps)
    assert gaps(there) == [(seq, seq, "rejected_repeatedly", True)]
    assert not other
    assert out.dropped["rejected"] == 1
    assert all(seq not in seqs for seqs in kept(out))
    assert out.charged_bytes == before - (SIZE if seq % 2 else HIGH_SIZE) + GAP_COST
    assert out.reject(seq, "rejected", "rejected_repeatedly") is False
    assert out.dropped["rejected"] == 1
    assert balanced(out)


def test_a_line_in_the_middle_is_rejected_alone(out):
    """Its neighbours stay."""
    log(out, *["info"] * 5)
    assert out.reject(3, "rejected", "rejected") is True
    assert out.reject(9, "rejected", "rejected") is False
    assert kept(out) == [[1, 2, 4, 5], []]
    assert out.reject(5, "rejected", "rejected") is True
    assert out.dropped["rejected"] == 2


# --- the baton --------------------------------------------------------------------------------------------------------


def test_lines_wait_while_somebody_has_the_baton(out):
    """Nothing is touched, and the work is done afterwards."""
    ran = []
    del out.baton[0]
    out.inbox.append((5, frames.LEVELS["info"], BODY))
    out.delegated.append(Delegated(ran.append, (1,)))
    out.combine()
    assert (out.seq, ran, len(out.inbox), out.produced(), out.pending()) == (0, [], 1, 1, 1)
    out.baton += (None,)
    out.combine()
    assert (out.seq, ran, len(out.inbox)) == (1, [1], 0)
    assert not out.delegated
    assert out.baton == [None]


def test_nothing_is_done_while_the_state_is_in_doubt(out):
    """Lines go to the inbox; the sender repairs first."""
    out.dirty = True
    log(out, "info", "error")
    out.combine()
    assert (out.seq, len(out.inbox), out.inbox_bytes, out.charged_bytes) == (0, 2, 2 * len(BODY), 0)
    assert out.inbox[0] == (1, frames.LEVELS["info"], BODY)
    out.repair()
    out.combine()
    assert (out.seq, len(out.inbox)) == (2, 0)
    assert balanced(out)


@pytest.mark.parametrize(("left", "taken"), [(0, 2), (-1, 1)])
def test_lines_that_wait_for_the_repair_are_bounded(out, left, taken):
    """The newest is counted as dropped; nobody may touch the older ones now."""
    log(out, "info")
    out.dirty = True
    out.limit = SIZE + 2 * len(BODY) + left
    log(out, "info", "info")
    assert (len(out.inbox), out.overrun) == (taken, 2 - taken)
    log(out, "info", "info")
    assert (len(out.inbox), out.overrun) == (taken, 4 - taken)
    assert out.produced() == out.pending() == 5


def test_delegated_work_returns_and_raises(out):
    """To the one who asked for it."""

    def fail(text):
        raise ValueError(text)

    assert out.delegate(max, 3, 5) == 5
    with pytest.raises(ValueError, match="no"):
        out.delegate(fail, "no")
    assert not out.delegated
    assert not out.dirty


def test_delegating_repairs_first(out):
    """Who would repair may be the one who waits."""
    log(out, "info")
    out.dirty = True
    assert out.delegate(max, 3, 5) == 5
    assert not out.dirty
    assert out.broken


def test_work_given_up_is_not_run(out, impatient):
    """TimeoutError while somebody keeps the baton, for both ways to work with it."""
    ran = []
    del out.baton[0]
    with pytest.raises(TimeoutError, match=r"^somebody keeps the baton$"):
        out.delegate(ran.append, 1)
    with pytest.raises(TimeoutError, match=r"^somebody keeps the baton$"):
        out.run_alone(lambda: ran.append(2))
    out.baton += (None,)
    out.combine()
    assert ran == []
    out.run_alone(lambda: ran.append(3))
    assert ran == [3]
    assert out.baton == [None]


class Clock:
    """Stands in for the module `time`: sleeping is what moves it."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_the_baton_is_waited_for_in_short_sleeps(out, monkeypatch):
    """Longer ones as long as they are short, and for so long only."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    del out.baton[0]
    first, longest = module.POLL_FIRST_S, module.POLL_LONGEST_S
    for work in (lambda: out.delegate(max, 1, 2), lambda: out.run_alone(lambda: None)):
        clock.slept.clear()
        with pytest.raises(TimeoutError):
            work()
        assert clock.slept[:8] == [min(first * 2**n, longest) for n in range(8)]
        assert clock.slept[-1] == longest
        assert sum(clock.slept) == pytest.approx(module.BATON_TIMEOUT_S, abs=longest)


@pytest.mark.parametrize("way", ["delegate", "run_alone"])
def test_a_process_that_stood_still_goes_on_waiting_for_the_baton(out, monkeypatch, way):
    """Who has it did not run either, and gives it back as soon as it does."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    del out.baton[0]
    sleep = clock.sleep

    def frozen(seconds):
        sleep(seconds)
        clock.now += 3600
        if len(clock.slept) == 3:
            out.baton += (None,)

    monkeypatch.setattr(clock, "sleep", frozen)
    ran = []
    getattr(out, way)(lambda: ran.append(1))
    assert (ran, len(clock.slept)) == ([1], 3)


def test_the_baton_comes_back_in_time(out, monkeypatch):
    """Both ways of waiting go on then."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    for work in (lambda: out.delegate(max, 1, 2), lambda: out.run_alone(lambda: None)):
        del out.baton[0]
        sleep = clock.sleep

        def give_back(seconds, sleep=sleep):
            sleep(seconds)
            if len(clock.slept) % 4 == 0:
                out.baton += (None,)

        monkeypatch.setattr(clock, "sleep", give_back)
        assert work() in (2, None)
        monkeypatch.setattr(clock, "sleep", sleep)
        assert out.baton == [None]


def test_no_send_waits_or_ends_the_process():
    """Whatever the socket is set to."""
    assert module.SEND_FLAGS == socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Thrown(BaseException):
    """Thrown into a thread from outside."""


@pytest.mark.parametrize("way", ["run_alone", "combine"])
def test_an_interruption_leaves_the_state_in_doubt(out, way):
    """Callers queue, the baton is back, and whoever comes next looks for a sender."""

    def interrupted():
        raise Thrown

    out.sender_started()
    assert out.has_sender is True
    out.start_direct(lambda data, flags: 0, 7, 8)
    if way == "combine":
        out.delegated.append(Delegated(interrupted, ()))
    with pytest.raises(Thrown):
        out.run_alone(interrupted) if way == "run_alone" else out.combine()
    assert (out.direct_send, out.dirty, out.baton) == (None, True, [None])
    assert out.has_sender is (way == "run_alone")
    out.sender_ended()
    assert out.has_sender is False


def test_a_published_work_done_by_another_is_not_done_again(out):
    """An interruption may come between the doing and the taking away."""
    ran = []
    work = Delegated(ran.append, (1,))
    work.run()
    assert (ran, work.done, work.error, work.result) == ([1], True, None, None)
    out.delegated.append(work)
    out.combine()
    assert ran == [1]
    assert not out.delegated


# --- repair -----------------------------------------------------------------------------------------------------------


def test_a_repair_of_what_is_whole_changes_no_sum(out):
    """Everything ends on the sent side, in doubt; the lost stay lost."""
    log(out, *["info", "error"] * 4)
    out.fill(3)
    out._drop(out.sent_low, 0)
    out.reject(5, "encode", "encode")
    out.release(0)
    out.direct_send = max
    out.to_write = b"half"
    out.dirty = True
    before = out.charged_bytes
    out.repair()
    assert (out.charged_bytes, out.dirty, out.broken, out.direct_send, out.to_write) == (before, False, True, None, b"")
    assert gaps(out.sent_gaps) == [(1, 1, "overflow", False), (5, 5, "encode", True)]
    assert kept(out) == [[3, 7], [2, 4, 6, 8]]
    assert not out.unsent_low
    assert not out.unsent_high
    assert not out.unreported_gaps
    assert (out.seq, out.sent_seq, out.dropped["encode"]) == (8, 8, 1)
    assert balanced(out)


def test_a_repair_finds_lines_that_are_nowhere(out):
    """At the beginning, between lines, beside gaps and at the end: in doubt, so the next welcome decides."""
    log(out, *["info"] * 12)
    out.fill(12)
    out.release(1)
    out.reject(6, "rejected", "rejected")
    for seq in (2, 4, 7, 11, 12):
        out.sent_low.remove(next(frame for frame in out.sent_low if frames.seq_of(frame) == seq))
    out.repair()
    assert kept(out) == [[3, 5, 8, 9, 10], []]
    assert gaps(out.sent_gaps) == [
        (2, 2, "overflow", False),
        (4, 4, "overflow", False),
        (6, 6, "rejected", True),
        (7, 7, "overflow", False),
        (11, 12, "overflow", False),
    ]
    assert out.charged_bytes == 5 * SIZE + 5 * GAP_COST
    assert (out.acked, out.pending()) == (1, 10)
    assert balanced(out)


def test_a_repair_finds_lines_beside_gaps_and_at_both_ends(out):
    """The first, those just before a gap, the last; and gaps may be the last as well."""
    log(out, *["info"] * 6)
    out.reject(4, "encode", "encode")
    out.unsent_low.clear()
    log(out, "info")
    out.unsent_low.clear()
    out.repair()
    assert gaps(out.sent_gaps) == [
        (1, 3, "overflow", False),
        (4, 4, "encode", True),
        (5, 7, "overflow", False),
    ]
    assert balanced(out)
    log(out, "info", "info")
    out.reject(9, "encode", "encode")
    out.repair()
    assert gaps(out.sent_gaps)[3:] == [(9, 9, "encode", True)]
    log(out, "info")
    out.unsent_low.clear()
    out.repair()
    assert gaps(out.sent_gaps)[4:] == [(10, 10, "overflow", False)]
    assert (kept(out), out.charged_bytes) == ([[8], []], SIZE + 5 * GAP_COST)
    assert balanced(out)


def test_a_repair_finishes_drops(out):
    """A line that is in a gap as well goes; a lost one is counted then."""
    log(out, *["info", "error"] * 3)
    out.fill(2)
    out._add_gap(out.sent_gaps, 1, 2, "overflow", lost=False)
    out._add_gap(out.unreported_gaps, 4, 5, "encode", lost=True)
    out.repair()
    assert kept(out) == [[3], [6]]
    assert gaps(out.sent_gaps) == [(1, 2, "overflow", False), (4, 5, "encode", True)]
    assert out.dropped["encode"] == 2
    assert out.dropped["overflow"] == 0
    assert out.charged_bytes == SIZE + HIGH_SIZE + 2 * GAP_COST
    assert balanced(out)


def test_a_repair_cuts_a_gap_that_is_ahead_of_the_counter(out):
    """Its lines have no seq yet: they are still counted where they came from."""
    log(out, "info")
    out._add_gap(out.unreported_gaps, 2, 4, "encode", lost=True)
    out.unencoded = 3
    out.repair()
    assert out.seq == 1
    assert not out.sent_gaps
    assert (out.produced(), out.pending()) == (4, 4)
    assert balanced(out)


# --- for people -------------------------------------------------------------------------------------------------------


def test_the_oldest_line_is_looked_for_in_every_queue(out):
    """Its time, not its place."""
    for time_ns, word in ((50, "info"), (40, "error"), (30, "info"), (20, "error")):
        out.queue(time_ns, frames.LEVELS[word], BODY)
        assert out.oldest_ns() == time_ns
        if time_ns == 40:
            out.fill(2)
    assert out.reject(4, "rejected", "rejected")
    assert out.oldest_ns() == 30
    assert out.reject(3, "rejected", "rejected")
    assert (out.oldest_ns(), out.first_unacked()) == (40, 1)
    out.release(2)
    assert (out.oldest_ns(), out.first_unacked()) == (None, 3)


def test_bad_answers_are_counted(out):
    """One by one."""
    out.count_bad_answer()
    out.count_bad_answer()
    assert out.bad_answers == 2
