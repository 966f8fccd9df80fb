"""Lines that are sent together: which of them, and as which bytes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from logrelay.fanout import batch as batch_module
from logrelay.fanout.batch import MAX_SHARED, SEGMENT_BYTES, Batch, frame, segments_of
from logrelay.fanout.filters import UNLIMITED, Filter, Limit
from logrelay.fanout.line_json import log_line, notice_line
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, WARNING

EPOCH = "k3f9ab"


def texts(data):
    """Read RFC 6455 frames with the websockets library; every one must be a whole text message."""
    client = ClientProtocol(parse_uri("ws://x/"), state=OPEN, max_size=None)
    client.receive_data(data)
    events = client.events_received()
    assert client.parser_exc is None
    assert all(event.opcode is Opcode.TEXT and event.fin and not event.rsv1 for event in events)
    return [bytes(event.data) for event in events]


def make(specs, first=1):
    """Make a fresh batch, and its lines with message and context, from (kind, level, source, message, context)."""
    lines, messages, contexts, full = [], [], [], []
    for seq, (notice, level, source, message, context) in enumerate(specs, first):
        if notice:
            line, message, context = notice_line(EPOCH, seq, seq, level, "relay", message, context)
        else:
            line, message, context = log_line(
                EPOCH, seq, 1, f"bot{level}", seq, level, {**context, "event": message, "logger": source}
            )
        lines.append(line)
        messages.append(message)
        contexts.append(context)
        full.append(line._replace(message=message, context=context))
    return Batch(lines, messages, contexts), full


FIELDS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "app"]),
    st.sampled_from(["1", 1, None, True, "x", [1], 1.5, {"k": "x"}, "bot20", "bot40"]),
    max_size=3,
)
SPECS = st.lists(
    st.tuples(
        st.booleans().map(lambda b: b) | st.just(False),
        st.sampled_from([DEBUG, INFO, WARNING, ERROR, CRITICAL]),
        st.sampled_from(["app", "app.one", "other"]),
        st.sampled_from(["", "a Hit", "a miss", "HIT it", "Ärger"]),
        FIELDS,
    ),
    min_size=1,
    max_size=12,
)
LIMITS = st.builds(
    Limit,
    st.sampled_from([DEBUG, INFO, ERROR]),
    st.sampled_from([(), ("app*",)]),
    st.sampled_from([(), ("bot[123]0",), ("none",)]),
)
ASKED = st.builds(
    Filter,
    st.sampled_from([DEBUG, DEBUG, INFO, WARNING, CRITICAL]),
    st.sampled_from([(), (), ("app*",), ("*.one", "other"), ("none",)]),
    st.sampled_from(["", "", "hit", "Ä", "nowhere"]),
    st.sampled_from([(), (), (("a", "1"),), (("a", "x"), ("b", "null")), (("c", '{"k":"x"}'),), (("d", "1"),)]),
    st.sampled_from([(), (), ("bot[12]0",), ("none", "bot50")]),
)
FILTERS = st.builds(Filter.within, ASKED, st.just(UNLIMITED) | LIMITS)


@settings(max_examples=250, deadline=None)
@given(SPECS, st.lists(FILTERS, min_size=1, max_size=4), st.booleans(), st.integers(1, 1000))
def test_select_is_matches_for_every_line(specs, filters, compacted, first):
    """A batch selects exactly the lines whose filter says yes, fresh or compacted, and None only for all of them."""
    batch, full = make(specs, first)
    for wanted in filters * 2:
        if compacted:
            batch.compact()
        chosen = batch.select(wanted)
        expected = [i for i, line in enumerate(full) if wanted.matches(line)]
        assert (list(range(len(full))) if chosen is None else list(chosen)) == expected


@settings(max_examples=150, deadline=None)
@given(SPECS, FILTERS, st.sampled_from(["single", "batch"]), st.integers(0, 14), st.integers(150, 900), st.booleans())
def test_segments_are_the_selected_lines_in_order(specs, wanted, form, behind, limit, provisional):
    """The frames of the segments, read by another WebSocket implementation, are the chosen bodies after `behind`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "SEGMENT_BYTES", limit)
        batch, full = make(specs)
        if provisional:
            batch.provisional(EPOCH, f"{EPOCH}.x7q2")
        segments = batch.segments(wanted, form, behind)
    bodies, seqs = batch.chosen(wanted, behind)
    expected = [line for line in full if line.seq > behind and wanted.matches(line)]
    assert list(seqs) == [line.seq for line in expected]
    epoch = f"{EPOCH}.x7q2" if provisional else EPOCH
    assert [json.loads(b)["id"] for b in bodies] == [f"{epoch}-{line.seq}" for line in expected]
    assert [json.loads(b)["message"] for b in bodies] == [line.message for line in expected]
    if not provisional:
        assert list(bodies) == [line.body for line in expected]
    at = 0
    for segment in segments:
        got = texts(segment.payload)
        if form == "batch":
            assert len(got) == 1
            assert got[0] == b"[" + b",".join(bodies[at : at + segment.lines]) + b"]"
            assert len(json.loads(got[0])) == segment.lines
        else:
            assert got == list(bodies[at : at + segment.lines])
        at += segment.lines
        assert segment.last == seqs[at - 1]
        assert segment.lines == 1 or len(segment.payload) <= limit + 4 * segment.lines + 12
    assert at == len(bodies)


@pytest.mark.parametrize("form", ["single", "batch"])
def test_segments_are_neither_too_big_nor_too_small(form):
    """Segments stay at 48 KiB, save one line alone, and no two neighbours would fit into one."""
    bodies = [b"%d" % (10**n) for n in range(120, 2000, 7)] + [b"1" * 70_000] + [b"1" * 120] * 2_000
    segments = segments_of(bodies, range(1, len(bodies) + 1), form)
    sizes = [len(segment.payload) for segment in segments]
    for size, segment in zip(sizes, segments, strict=True):
        assert segment.lines == 1 or size <= SEGMENT_BYTES + 4 * segment.lines + 12  # headers, or commas and brackets
        assert segment.lines == 1 or size < 64 * 1024
    assert all(a + b > SEGMENT_BYTES for a, b in pairwise(sizes))
    assert sum(segment.lines for segment in segments) == len(bodies)
    assert segments[-1].last == len(bodies)


def test_no_lines_no_segments():
    """Nothing to say is no frame at all."""
    assert segments_of([], [], "single") == []
    assert segments_of([], [], "batch") == []
    batch, _ = make([(False, INFO, "app", "x", {})])
    assert batch.segments(Filter(ERROR), "single") == []
    assert batch.segments(Filter(), "batch", 1) == []


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 65537, 200_000])
def test_frames_of_every_width(size):
    """The three widths of the length field, at their borders."""
    payload = b"x" * size
    assert texts(frame(payload) * 2) == [payload] * 2
    assert len(frame(payload)) == size + (2 if size < 126 else 4 if size < 65536 else 10)


def test_equal_selections_share_the_same_bytes():
    """However many viewers: an equal selection is framed once, also when different filters choose the same lines."""
    batch, _ = make([(False, level, "app", "x", {}) for level in (INFO, WARNING, ERROR)] * 3)
    everything = batch.segments(Filter(), "single")
    assert batch.segments(Filter(), "single") is everything
    assert batch.segments(Filter(INFO), "single") is everything
    assert batch.segments(Filter(sources=("app",)), "single") is everything
    warnings = batch.segments(Filter(WARNING), "single")
    assert batch.segments(Filter(WARNING, ("a*",)), "single") is warnings
    assert warnings is not everything
    assert batch.segments(Filter(), "batch") is not everything


def test_what_a_batch_remembers_is_bounded():
    """A viewer that asks for something else all the time fills no memory; compacted batches remember nothing."""
    batch, _ = make([(False, INFO, "app", "x", {"k": n, "other": n % 7}) for n in range(400)])
    for number in range(2 * MAX_SHARED):
        batch.segments(Filter(where=(("k", str(number)),)), "single")
        batch.segments(Filter(where=((f"f{number}", "1"),)), "single")
    assert len(batch._cache) <= MAX_SHARED
    assert len(batch._columns) <= MAX_SHARED
    batch.compact()
    for number in range(10):
        assert len(texts(batch.segments(Filter(text="x", where=(("k", str(number)),)), "single")[0].payload)) == 1
    assert not batch._cache
    assert not batch._columns
    assert batch._messages is None
    assert batch._contexts is None
    assert not batch._lowered


@settings(max_examples=60, deadline=None)
@given(SPECS, st.integers(1, 11), FILTERS)
def test_merged_batches_are_one_batch(specs, cut, wanted):
    """Two batches merged select and say what one batch of all the lines would."""
    whole, _ = make(specs)
    parts = [make(specs[:cut])[0]]
    if specs[cut:]:
        parts.append(make(specs[cut:], cut + 1)[0])
    merged = Batch.merge(parts)
    assert (merged.first, merged.last, merged.size) == (whole.first, whole.last, whole.size)
    assert merged.segments(wanted, "single") == whole.segments(wanted, "single")


def test_a_provisional_id_changes_the_id_and_nothing_else():
    """Even where the same words stand in the message and the context."""
    said = f'"id":"{EPOCH}-1"'
    batch, _ = make([(False, INFO, said, said, {"id": f"{EPOCH}-1", "text": said})])
    plain = json.loads(batch.bodies()[0])
    batch.provisional(EPOCH, f"{EPOCH}.x7q2")
    assert json.loads(batch.bodies()[0]) == {**plain, "id": f"{EPOCH}.x7q2-1"}


def test_what_nobody_looks_into_is_not_decoded(monkeypatch):
    """Lines of other machines come without what they say; batches are put together as they are."""
    first, second = (Batch(make([(False, INFO, "x", f"m{n}", {})], n)[1]) for n in (1, 2))
    monkeypatch.setattr(batch_module, "read_body", None)
    both = Batch.merge([first, second])
    assert (both.count, both.select(Filter(level=INFO))) == (2, None)
    monkeypatch.undo()
    assert both.select(Filter(text="m2")) == [1]
