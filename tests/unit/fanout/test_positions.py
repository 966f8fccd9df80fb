"""Ids, and the positions they mean."""

from __future__ import annotations

import pytest

from logrelay.errors import RequestError
from logrelay.fanout.positions import MAX_SEQ, Epoch, Epochs, Lost, Position, id_of, is_id, split_id


def test_split_id():
    """An id is an epoch, perhaps a provisional one, and a seq."""
    assert split_id("k3f9ab-1042") == ("k3f9ab", 1042)
    assert split_id("k3f9ab.x7q2-0") == ("k3f9ab.x7q2", 0)
    for wrong in (
        "",
        "-",
        "k3f9ab",
        "k3f9ab-",
        "-1",
        "k3f9ab--1",
        "k3f9ab.-1",
        "a.b.c-1",
        "k3f9ab-1 ",
        "k3f9ab-\uff11",
    ):
        with pytest.raises(RequestError) as refusal:
            split_id(wrong)
        assert refusal.value.code == "bad_id"


def test_an_id_reads_back():
    """What `id_of` writes is an id, and means what it was made of."""
    for epoch, seq in (("k3f9ab", 1042), ("k3f9ab.x7q2", 0), ("a", 2**63 - 1)):
        assert is_id(id_of(epoch, seq))
        assert split_id(id_of(epoch, seq)) == (epoch, seq)
    assert not is_id("k3f9ab-1\n")


NOW = Epochs([Epoch("old000", 1, shared=True), Epoch("cut111", 4), Epoch("cut222", 6)], "k3f9ab", 8)
"""Lines 1 to 3, 4 and 5, 6 and 7, and those from 8 on."""


def resolved(id_, aliases=("k3f9ab.aaaa", "old000.cccc"), epochs=NOW):
    return epochs.resolve(id_, aliases=aliases, head=10, head_id="k3f9ab.aaaa-10")


@pytest.mark.parametrize(
    ("id_", "seq"),
    [
        ("k3f9ab-10", 10),
        ("k3f9ab-8", 8),
        ("k3f9ab-7", 7),
        ("k3f9ab-0", 0),
        ("k3f9ab.aaaa-9", 9),
        ("cut222-7", 7),
        ("cut222.xxxx-7", 7),
        ("cut111-5", 5),
        ("cut111-1", 1),
        ("old000-3", 3),
        ("old000.cccc-3", 3),
    ],
)
def test_an_id_up_to_the_end_of_its_epoch_means_its_line(id_, seq):
    """Whether the epoch is this opening's, an earlier one, or a provisional one of either."""
    assert resolved(id_) == Position(seq)
    assert resolved(id_).end == seq


@pytest.mark.parametrize(
    ("id_", "lost"),
    [
        ("cut222-8", Lost("cut222", 8, 8)),
        ("cut222.xxxx-20", Lost("cut222.xxxx", 8, 20)),
        ("cut111-7", Lost("cut111", 6, 7)),
        (f"old000-{MAX_SEQ}", Lost("old000", 4, MAX_SEQ)),
        ("old000.cccc-5", Lost("old000.cccc", 4, 5)),
    ],
)
def test_an_id_beyond_the_end_of_its_epoch_tells_what_is_gone(id_, lost):
    """Its viewer goes on behind what is left; the lines that have the numbers now are others."""
    position = resolved(id_)
    assert position == Position(lost.first - 1, lost)
    assert position.end == lost.first
    assert lost.lines == lost.last - lost.first + 1


@pytest.mark.parametrize(
    ("id_", "code", "said"),
    [
        ("zzzzzz-3", "expired", "zzzzzz-3 is an id of another journal, or of an epoch that this one does not remember"),
        ("zzzzzz.aaaa-3", "expired", "its newest line is k3f9ab.aaaa-10"),
        ("k3f9ab.bbbb-3", "expired", "another journal"),
        ("old000.bbbb-3", "expired", "another journal"),
        ("k3f9ab-11", "expired", "is ahead of this journal, whose newest line is k3f9ab.aaaa-10"),
        ("k3f9ab.aaaa-11", "expired", "is ahead of this journal"),
        (f"old000-{MAX_SEQ + 1}", "expired", "is ahead of this journal"),
        ("k3f9ab", "bad_id", "'k3f9ab' is not an id such as 'k3f9ab-1042'"),
        ("x" * 61, "bad_id", "'" + "x" * 57 + "...' is not an id"),
    ],
)
def test_other_ids_are_refused(id_, code, said):
    """Another journal's id, a provisional one that nobody was given, one that is ahead, and what is no id say so."""
    with pytest.raises(RequestError) as refusal:
        resolved(id_)
    assert refusal.value.code == code
    assert said in str(refusal.value)


def test_a_position_has_the_epoch_of_its_line():
    """So that the id of a position is the id that its line has in the journal."""
    assert [NOW.of(seq) for seq in range(12)] == [
        *["old000"] * 4,
        *["cut111"] * 2,
        *["cut222"] * 2,
        *["k3f9ab"] * 4,
    ]
    assert Epochs([], "k3f9ab", 8).of(3) == "k3f9ab"


def test_an_epoch_whose_lines_are_all_gone_ends_before_its_first():
    """A file that was put back from before an epoch: its ids say how many lines there were, and mean none."""
    epochs = Epochs([Epoch("aaaaaa", 1), Epoch("bbbbbb", 20), Epoch("cccccc", 30)], "k3f9ab", 5)
    assert [epochs.of(seq) for seq in (4, 5, 30)] == ["aaaaaa", "k3f9ab", "k3f9ab"]
    assert resolved("aaaaaa-19", epochs=epochs) == Position(4, Lost("aaaaaa", 5, 19))
    assert resolved("cccccc-33", epochs=epochs) == Position(4, Lost("cccccc", 5, 33))


def test_a_provisional_id_of_an_opening_that_committed_nothing():
    """It left no trace, but the id says behind which epoch its lines would have come: those are told as lost."""
    gone = Epochs([Epoch("aaaaaa", 1), Epoch("bbbbbb", 5)], "cccccc", 8)
    alias = gone.provisional("x7q2")
    assert alias == "cccccc.x7q2bbbbbb"
    now = Epochs([Epoch("aaaaaa", 1), Epoch("bbbbbb", 5)], "dddddd", 8)
    means = now.resolve(f"{alias}-12", aliases=(), head=10, head_id="dddddd-10")
    assert means == Position(7, Lost(alias, 8, 12))
    assert now.resolve(f"{alias}-7", aliases=(), head=10, head_id="dddddd-10") == Position(7)
    later = Epochs([Epoch("bbbbbb", 5), Epoch("cccccc", 8)], "dddddd", 11)  # it did commit something
    assert later.resolve(f"{alias}-9", aliases=(), head=12, head_id="dddddd-12") == Position(9)
    for unknown in ("cccccc.x7q2-9", "cccccc.x7q2zzzzzz-9", "cccccc-9"):
        with pytest.raises(RequestError) as refusal:
            now.resolve(unknown, aliases=(), head=10, head_id="dddddd-10")
        assert refusal.value.code == "expired"
    assert Epochs([], "k3f9ab", 1).provisional("x7q2") == "k3f9ab.x7q2"
    longest = Epochs([Epoch("b" * 16, 1)], "c" * 16, 8).provisional("x7q2")
    assert is_id(id_of(longest, 9))
