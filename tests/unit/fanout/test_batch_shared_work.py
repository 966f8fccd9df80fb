"""Work on a batch is done once and shared, and a viewer that stands anywhere inside it gets exactly what follows."""

from __future__ import annotations

import orjson
import pytest

from logrelay.fanout import batch as module
from logrelay.fanout.batch import Batch, segments_of
from logrelay.fanout.filters import Filter
from logrelay.fanout.line_json import log_line
from logrelay.model import ERROR, INFO, WARNING

COUNT = 40


def make(count=COUNT, first=1, **fields):
    """Make lines whose levels alternate, with message, context and a field `n`."""
    levels = (INFO, WARNING, ERROR)
    made = [
        log_line("k3f9ab", seq, 1, "bot", seq, levels[seq % 3], {"event": f"m{seq}", "n": seq, **fields})
        for seq in range(first, first + count)
    ]
    return Batch([line for line, _, _ in made], [m for _, m, _ in made], [c for _, _, c in made])


def seqs_in(segments, form):
    """Read back the seqs of the lines in segments, which are frames of less than 64 KiB."""
    out = []
    for segment in segments:
        raw, at = segment.payload, 0
        while at < len(raw):
            size, at = raw[at + 1], at + 2
            if size == 126:
                size, at = int.from_bytes(raw[at : at + 2], "big"), at + 2
            value = orjson.loads(raw[at : at + size])
            out += [line["context"]["n"] for line in (value if form == "batch" else [value])]
            at += size
        assert segment.last == out[-1]
    return out


@pytest.mark.parametrize("form", ["single", "batch"])
@pytest.mark.parametrize("compacted", [False, True])
def test_a_viewer_inside_a_batch_gets_what_follows(form, compacted, monkeypatch):
    """Behind every line, also in the middle of a segment: all lines after it, in order, once."""
    monkeypatch.setattr(module, "SEGMENT_BYTES", 700)
    batch = make()
    if compacted:
        batch.compact()
    whole = batch.segments(Filter(), form)
    assert len(whole) > 5
    for behind in range(COUNT + 1):
        segments = batch.segments(Filter(), form, behind)
        assert seqs_in(segments, form) == list(range(behind + 1, COUNT + 1))
        assert sum(segment.lines for segment in segments) == COUNT - behind
        # All but the segment it stands in are the very ones that others get.
        assert sum(any(segment is other for other in whole) for segment in segments) >= len(segments) - 1
        some = batch.segments(Filter(WARNING), form, behind)
        assert seqs_in(some, form) == [seq for seq in range(behind + 1, COUNT + 1) if seq % 3]


@pytest.mark.parametrize("form", ["single", "batch"])
def test_a_viewer_between_two_segments_costs_nothing(form, monkeypatch):
    """Viewers a little behind stand at the boundaries: nothing is joined anew for them."""
    monkeypatch.setattr(module, "SEGMENT_BYTES", 700)
    batch = make()
    whole = batch.segments(Filter(), form)
    for at, segment in enumerate(whole):
        rest = batch.segments(Filter(), form, segment.last)
        assert all(one is other for one, other in zip(rest, whole[at + 1 :], strict=True))


def test_different_selections_are_different_bytes():
    """What one viewer wants is not sent to another one with other wishes, however often they ask."""
    batch = make()
    for _ in range(2):
        for form in ("single", "batch"):
            assert seqs_in(batch.segments(Filter(WARNING), form), form) == [n for n in range(1, COUNT + 1) if n % 3]
            assert seqs_in(batch.segments(Filter(ERROR), form), form) == [n for n in range(1, COUNT + 1) if n % 3 == 2]
            assert seqs_in(batch.segments(Filter(), form), form) == list(range(1, COUNT + 1))


def test_all_lines_are_chosen_from_the_first_on():
    """Without a place to begin behind, nothing is left out."""
    bodies, seqs = make().chosen(Filter())
    assert list(seqs) == list(range(1, COUNT + 1))
    assert len(bodies) == COUNT


def test_size_is_that_of_the_messages():
    """The hub bounds its memory by it."""
    batch = make()
    assert batch.size == sum(map(len, batch.bodies())) > 0
    batch.compact()
    assert batch.size == sum(map(len, batch.bodies()))
    assert len(batch.lines) == 0


def test_a_provisional_batch_says_so():
    """Whoever meets it later knows the epoch and what stands in its place."""
    batch = make()
    assert batch.alias is None
    batch.provisional("k3f9ab", "k3f9ab.x7q2")
    assert batch.alias == ("k3f9ab", "k3f9ab.x7q2")


def test_fresh_lines_are_not_decoded_again(monkeypatch):
    """Message and context are those the caller has decoded already, also after a merge."""
    monkeypatch.setattr(module, "read_body", lambda body: pytest.fail("decoded again"))
    one, two = make(3), make(3, first=4)
    merged = Batch.merge([one, two])
    for batch, seqs in ((one, [2]), (merged, [2])):
        assert list(batch.select(Filter(text="M2"))) == [seq - 1 for seq in seqs]
        assert list(batch.select(Filter(where=(("n", "2"),)))) == [seq - 1 for seq in seqs]
    assert list(merged.select(Filter(text="m5"))) == [4]
    assert list(merged.select(Filter(where=(("n", "5"),)))) == [4]


@pytest.mark.parametrize("given", [(None, None), (["m"], None), (None, [{"n": 1}])])
def test_lines_that_come_without_both_are_decoded_once(monkeypatch, given):
    """As long as the batch is fresh, a hundred viewers cost one decoding; a field is looked at once, too."""
    decoded, looked = [], []
    read, text = module.read_body, module.field_text
    monkeypatch.setattr(module, "read_body", lambda body: decoded.append(body) or read(body))
    monkeypatch.setattr(module, "field_text", lambda value: looked.append(value) or text(value))
    searched = []
    search = module.search_text
    monkeypatch.setattr(
        module, "search_text", lambda message, *rest, **how: searched.append(message) or search(message, *rest, **how)
    )
    made = make(3)
    batch = Batch(made.lines, *given)
    for _ in range(3):
        for number in (1, 2, 3):
            assert list(batch.select(Filter(where=(("n", str(number)),)))) == [number - 1]
            assert list(batch.select(Filter(text=f"m{number}"))) == [number - 1]
    assert len(decoded) == 3
    assert looked == [1, 2, 3]
    assert searched == ["m1", "m2", "m3"]


def test_segments_end_where_the_next_line_would_not_fit():
    """A segment of exactly the bound is whole; one byte more begins another one."""
    fits = [b"x" * (module.SEGMENT_BYTES // 2 - 4)] * 2
    assert [segment.lines for segment in segments_of(fits, [1, 2], "single")] == [2]
    more = [fits[0], fits[1] + b"x"]
    assert [segment.lines for segment in segments_of(more, [1, 2], "single")] == [1, 1]
    assert [segment.lines for segment in segments_of([*fits, *fits, b"y"], [1, 2, 3, 4, 5], "single")] == [2, 2, 1]
