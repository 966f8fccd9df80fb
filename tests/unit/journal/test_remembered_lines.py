"""The newest lines in memory: which they are, and that they are bounded."""

from __future__ import annotations

import pytest

from logrelay.journal import remembered_lines
from logrelay.journal.remembered_lines import RememberedLines
from logrelay.model import size_of


@pytest.mark.parametrize("together", [1, 3, 700])
def test_what_is_kept_to_be_written_again_is_bounded_in_bytes(lines, monkeypatch, together):
    """Long lines, alone or in commits: the newest are kept, up to the bound and the last that were kept together."""
    monkeypatch.setattr(remembered_lines, "REMEMBERED_BYTES", 80_000)
    remembered = RememberedLines()
    seq, size = 1, 2_000
    for _ in range(2_100 // together):
        some = [line._replace(body=line.body.ljust(size)) for line in lines(seq, together)]
        remembered.add(some, size_of(some))
        seq += together
        kept = list(remembered)
        assert [line.seq for line in kept] == list(range(seq - len(kept), seq)), "the newest, none left out"
        held = sum(len(line.body) for line in kept)
        assert held == remembered.bytes
        assert held <= 80_000 + max(10_000, min(together, remembered_lines.REMEMBERED_TOGETHER) * size)
    assert len(kept) * size >= 80_000 - 10_000


def test_what_is_forgotten_is_not_written_again(lines):
    """Lines that were purged, or are of a journal before."""
    remembered = RememberedLines()
    remembered.add(lines(1, 3), 30)
    remembered.clear()
    assert (list(remembered), remembered.bytes) == ([], 0)


def test_lines_are_put_together_and_forgotten_at_exact_bounds(lines, monkeypatch):
    """An eighth of the bytes together, and as many as the bound has in all."""
    monkeypatch.setattr(remembered_lines, "REMEMBERED_BYTES", 85)
    remembered = RememberedLines()
    for seq in range(1, 18):
        remembered.add([lines(seq, 1)[0]._replace(body=b"12345")], 5)
    assert [len(part) for part in remembered._parts] == [2] * 8 + [1]
    assert remembered.bytes == 85
    remembered.add([lines(18, 1)[0]._replace(body=b"12345")], 5)
    assert (next(iter(remembered)).seq, remembered.bytes) == (3, 80)
    remembered.add([lines(19, 1)[0]._replace(body=b"1" * 500)], 500)
    assert [line.seq for line in remembered] == [19], "the newest stay, however long they are"


def test_no_more_lines_are_together_than_may_be_forgotten_at_once(lines, monkeypatch):
    """Of a long commit what comes last is as long as it is, and what follows joins it."""
    monkeypatch.setattr(remembered_lines, "REMEMBERED_BYTES", 80)
    monkeypatch.setattr(remembered_lines, "REMEMBERED_TOGETHER", 3)
    remembered = RememberedLines()
    short = [line._replace(body=b"12345") for line in lines(1, 5)]
    remembered.add(short[:4], 20)
    remembered.add(short[4:], 5)
    assert [len(part) for part in remembered._parts] == [3, 2]
    remembered = RememberedLines()
    for line in lines(1, 7):
        remembered.add([line._replace(body=b"1")], 1)
    assert [len(part) for part in remembered._parts] == [3, 3, 1]
