"""Ids, and the positions they mean."""

from __future__ import annotations

import pytest

from logrelay.errors import RequestError
from logrelay.fanout.positions import id_of, is_id, resolve_id, split_id


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


def resolved(id_, aliases=("k3f9ab.aaaa",)):
    return resolve_id(id_, epoch="k3f9ab", aliases=aliases, head=7, head_id="k3f9ab.aaaa-7")


def test_ids_of_this_journal_and_of_its_aliases_are_good():
    """A provisional id means the line of the same seq."""
    assert [resolved(f"k3f9ab-{seq}") for seq in (0, 7)] == [0, 7]
    assert resolved("k3f9ab.aaaa-3") == 3


@pytest.mark.parametrize(
    ("id_", "code", "said"),
    [
        ("zzzzzz-3", "expired", "zzzzzz-3 is an id of another journal; this one's ids begin with k3f9ab-"),
        ("k3f9ab.bbbb-3", "expired", "another journal"),
        ("k3f9ab-8", "expired", "is ahead of this journal, whose newest line is k3f9ab.aaaa-7"),
        ("k3f9ab.aaaa-8", "expired", "is ahead of this journal"),
        ("k3f9ab", "bad_id", "'k3f9ab' is not an id such as 'k3f9ab-1042'"),
        ("x" * 61, "bad_id", "'" + "x" * 57 + "...' is not an id"),
    ],
)
def test_other_ids_are_refused(id_, code, said):
    """Another journal's id, one that is ahead, and what is no id each say so."""
    with pytest.raises(RequestError) as refusal:
        resolved(id_)
    assert refusal.value.code == code
    assert said in str(refusal.value)
