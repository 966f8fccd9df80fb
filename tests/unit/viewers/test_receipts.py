"""What a viewer has received: answers to pings, the kernel's word, and whole lines of half an array."""

from __future__ import annotations

import pytest

from logrelay.fanout.batch import segments_of
from logrelay.viewers import receipts as receipts_module
from logrelay.viewers.receipts import AWAKE_S, LIVE_S, Receipts, frame_at, seq_of


def body(seq, size=40):
    return b'{"type":"log","id":"k3f9ab-%d","message":"%s"}' % (seq, b"x" * size)


class Wire:
    """A connection that has written 100 bytes before the first line."""

    def __init__(self, position=0, form="single"):
        self.end = 100
        self.form = form
        self.number = 0
        self.receipts = Receipts(position, self.end)

    def lines(self, first, last, *, size=40):
        (segment,) = segments_of([body(seq, size) for seq in range(first, last + 1)], range(first, last + 1), self.form)
        self.receipts.wrote(self.end, segment.payload)
        self.end += len(segment.payload)
        self.receipts.mark(self.end, last)
        return self

    def ping(self, now_s=0.0):
        self.end += 10
        self.number += 1
        self.receipts.pinged(self.number, self.end, now_s)
        return self.end


def test_an_answered_ping_confirms_everything_before_it():
    """And nothing behind it."""
    wire = Wire().lines(1, 3)
    wire.ping()
    wire.lines(4, 5)

    assert (wire.receipts.position, wire.receipts.all_read, wire.receipts.wants_ping) == (0, False, False)
    assert wire.receipts.answered(1)
    assert (wire.receipts.position, wire.receipts.all_read, wire.receipts.wants_ping) == (3, False, True)
    assert not wire.receipts.answered(1), "a pong twice tells nothing"
    assert not wire.receipts.answered(7), "nor does one that nobody asked for"
    assert wire.receipts.position == 3


def test_a_pong_answers_earlier_pings_too():
    """RFC 6455 lets a client answer the last of several only."""
    wire = Wire().lines(1, 1)
    wire.ping()
    wire.lines(2, 2)
    wire.ping()
    wire.receipts.answered(2)

    assert (wire.receipts.position, wire.receipts.unanswered, wire.receipts.all_read) == (2, 0, True)


def test_lines_that_were_not_wanted_need_no_ping():
    """Nothing was sent for them, so nothing has to arrive; behind something that was sent they wait with it."""
    wire = Wire(5)
    wire.receipts.mark(wire.end, 9)
    assert (wire.receipts.position, wire.receipts.wants_ping) == (9, False)
    wire.lines(10, 10)
    wire.receipts.mark(wire.end, 14)
    wire.ping()
    wire.receipts.answered(1)
    assert wire.receipts.position == 14


def test_a_network_that_falls_silent_leaves_what_had_arrived():
    """The ping arrived and its answer did not come back; the next one did not arrive: lines 1 to 4 are there."""
    wire = Wire().lines(1, 2)
    wire.ping(now_s=10.0)
    wire.lines(3, 4)
    arrived = wire.end
    wire.ping(now_s=10.0 + AWAKE_S)

    assert wire.receipts.received(arrived, 20.0) == 4


@pytest.mark.parametrize("form", ["single", "batch"])
def test_half_a_segment_counts_its_whole_frames(form):
    """In an array a line has not arrived before all of them have."""
    wire = Wire(form=form).lines(1, 4)
    first = 100 + sum(frame_at(wire.receipts._written[0].payload, 0))
    wire.ping(now_s=0.0)
    line_1 = first if form == "single" else 0

    assert wire.receipts.received(first, 9.0) == (1 if form == "single" else 4)
    assert wire.receipts.received(first - 1, 9.0) == 0
    assert wire.receipts.received(line_1 + 1, 9.0) == (1 if form == "single" else 0)


def test_a_process_that_does_not_read_has_nothing_of_what_arrived():
    """Two pings arrived, far enough apart, and none was answered: a suspended app, or a proxy that still stands."""
    wire = Wire().lines(1, 2)
    wire.ping(now_s=0.0)
    wire.lines(3, 3)
    arrived = wire.ping(now_s=AWAKE_S)
    wire.lines(4, 4)
    wire.ping(now_s=2 * AWAKE_S)

    assert wire.receipts.received(arrived, 60.0) == 0


def test_without_silence_only_answers_count():
    """Where everything has arrived, or was sent a moment ago, whoever ended the connection could have answered."""
    wire = Wire().lines(1, 2)
    arrived = wire.ping(now_s=0.0)
    assert wire.receipts.received(arrived, 60.0) == 0, "everything arrived"
    wire.lines(3, 3)
    wire.ping(now_s=60.0)
    assert wire.receipts.received(arrived, 60.0 + AWAKE_S / 2) == 0, "a moment ago"
    assert wire.receipts.received(None, 90.0) == 0, "nobody knows what arrived"


def test_what_is_written_down_meanwhile():
    """The kernel's word, as long as no answer is overdue."""
    wire = Wire().lines(1, 2)
    wire.ping(now_s=0.0)
    arrived = wire.end
    wire.lines(3, 3)

    assert wire.receipts.standing(arrived, LIVE_S / 2) == 2
    assert wire.receipts.standing(wire.end, LIVE_S / 2) == 3
    assert wire.receipts.standing(wire.end, LIVE_S) == 0
    assert wire.receipts.standing(None, 0.0) == 0


def test_what_is_kept_is_bounded(monkeypatch):
    """Frames and marks beyond a bound are known only together; nothing is claimed that has not arrived."""
    monkeypatch.setattr(receipts_module, "KEPT_BYTES", 1000)
    monkeypatch.setattr(receipts_module, "MAX_MARKS", 4)
    wire = Wire()
    for seq in range(1, 101):
        wire.lines(seq, seq, size=200)
        assert wire.receipts._kept <= 1000
        assert len(wire.receipts._marks) <= 4
    middle = 100 + (wire.end - 100) // 2
    wire.ping(now_s=0.0)

    assert wire.receipts.received(middle, 9.0) <= 50
    assert wire.receipts.received(wire.end - 10, 9.0) == 100
    wire.receipts.answered(1)
    assert (wire.receipts.position, wire.receipts._kept) == (100, 0)


@pytest.mark.parametrize("size", [0, 125, 126, 70_000])
def test_frames_of_every_length(size):
    """The three forms of a length."""
    (segment,) = segments_of([b"x" * size or b"{}"], [1], "single")

    assert sum(frame_at(segment.payload, 0)) == len(segment.payload)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"{", b'{"id":7}', b'{"id":"nonsense"}'])
def test_what_is_no_line_has_no_seq(text):
    """An answer, or nothing at all."""
    assert seq_of(text) == 0
