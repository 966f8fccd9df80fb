"""Batches of an edge's lines as messages: the golden vectors, every cut, and whatever somebody sends."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logrelay.machines import stream_batch
from logrelay.machines.stream_batch import BadBatchError, Hole, Origin, StreamBatch, StreamLine

FOLDER = Path(__file__).parents[2] / "contract" / "vectors"
VECTORS = json.loads((FOLDER / "stream-v1.json").read_text())
GOOD = [vector for vector in VECTORS if "error" not in vector]
BAD = [vector for vector in VECTORS if "error" in vector]
BOT = Origin("robo", "a" * 32, "box", "robo.runner")


def line(seq, size=10, origin=BOT):
    return StreamLine(seq, 20, 1_769_162_400_000_000 + seq, origin, b'{"m":"%s"}' % (b"x" * size))


def batch(first, last, *, holes=(), size=10):
    missing = {seq for hole in holes for seq in range(hole.first, hole.last + 1)}
    lines = [line(seq, size) for seq in range(first, last + 1) if seq not in missing]
    return StreamBatch("box-1", "0123456789abcdef", "k3f9ab", first, last, "k3f9ab-0", lines, list(holes))


def test_vectors_are_what_their_maker_makes():
    """The file in the repository should be the maker's output."""
    spec = importlib.util.spec_from_file_location("make_stream_v1", FOLDER / "make_stream_v1.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)

    assert (FOLDER / "stream-v1.json").read_text() == maker.written(maker.vectors())


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["name"])
def test_a_vector_is_read_and_written(vector):
    """What is read should be what it is described as, and be written as the same bytes."""
    headers, body = vector["headers"], bytes.fromhex(vector["body"])
    found = stream_batch.decode(headers, body)

    shown = [[x.seq, x.rank, x.found_us, *x.origin, x.body.decode()] for x in found.lines]
    assert shown == vector["lines"]
    assert [list(hole) for hole in found.holes] == vector["holes"]
    assert stream_batch.encode(found, expected_last=None) == (headers, body)
    assert stream_batch.position_of(headers) == (found.journal, found.id)


@pytest.mark.parametrize("vector", BAD, ids=lambda v: v["name"])
def test_a_bad_message_is_refused_with_its_reason(vector):
    """Whoever reads the text should know what is wrong with the message."""
    with pytest.raises(BadBatchError) as refused:
        stream_batch.decode(vector["headers"], bytes.fromhex(vector["body"]))

    assert vector["error"] in str(refused.value)


def test_headers_say_it_all_without_the_body():
    """Who looks at the stream with another tool should see what a message has, and the server store it once."""
    rows = [line(1), line(2)._replace(rank=50), line(3)]
    made = StreamBatch("box-1", "0123456789abcdef", "k3f9ab", 1, 3, "aaaaaa-9", rows)

    headers, _ = stream_batch.encode(made, expected_last=7)

    assert headers["Nats-Expected-Last-Subject-Sequence"] == "7"
    assert headers["Nats-Msg-Id"] == "box-1.k3f9ab.1.3"
    assert headers["Logrelay-Levels"] == "info=2 critical=1"
    assert headers["Logrelay-Lines"] == "3"
    assert headers["Logrelay-After"] == "aaaaaa-9"
    assert made.subject == "logrelay.lines.box-1"


@given(
    lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=60),
    holes=st.sets(st.integers(1, 59), max_size=10),
    payload=st.integers(1200, 8000),
)
def test_every_cut_has_all_of_it_and_fits(lengths, holes, payload):
    """The parts of a batch should be one chain, have each seq once, and each be smaller than the server's limit."""
    last = len(lengths)
    gone = [Hole(seq, seq, "corrupt") for seq in sorted(holes) if seq <= last]
    missing = {hole.first for hole in gone}
    lines = [line(seq, size) for seq, size in enumerate(lengths, 1) if seq not in missing]
    whole = StreamBatch("box-1", "0123456789abcdef", "k3f9ab", 1, last, "aaaaaa-9", lines, gone)

    parts = stream_batch.split(whole, payload)

    after, found, tell = "aaaaaa-9", [], []
    for part in parts:
        headers, body = stream_batch.encode(part, expected_last=2**53)
        assert sum(len(k) + len(v) + 4 for k, v in headers.items()) + len(body) <= payload
        read = stream_batch.decode(headers, body)
        assert read.after == after
        after = read.id
        found += read.lines
        tell += read.holes
    assert after == whole.id
    too_large = {hole.first for hole in tell if hole.cause == "too_large"}
    assert found == [x for x in lines if x.seq not in too_large]
    assert [hole for hole in tell if hole.cause != "too_large"] == gone
    assert all(lengths[seq - 1] > payload - 1500 for seq in too_large)


@given(st.binary(max_size=300), st.sampled_from(GOOD))
def test_any_bytes_are_refused_and_nothing_else_happens(data, vector):
    """Bytes of anybody should be a batch or a BadBatchError."""
    try:
        stream_batch.decode(vector["headers"], data)
    except BadBatchError:
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=9) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=8),
        max_leaves=40,
    ),
    st.integers(0, 6),
)
def test_any_column_is_refused_and_nothing_else_happens(value, place):
    """A column of any values should be refused as well."""
    vector = GOOD[2]
    columns = msgpack.unpackb(bytes.fromhex(vector["body"]))
    columns[place] = value
    try:
        stream_batch.decode(vector["headers"], msgpack.packb(columns))
    except BadBatchError:
        return


@pytest.mark.parametrize(
    ("host", "name"),
    [("box", "box"), ("box.example.org", "box-example-org"), ("*.>", "edge"), ("a b", "a-b"), ("x" * 99, "x" * 64)],
)
def test_a_host_name_becomes_a_token_of_a_subject(host, name):
    """Whatever a machine is called, its subject should be one token below the prefix."""
    assert stream_batch.edge_name_of(host) == name
    assert stream_batch.EDGE_NAME.fullmatch(name)


def test_lines_of_other_edges_are_not_missing():
    """A hole that only says whose the lines are should not be counted as a loss."""
    holes = [Hole(1, 5, "collected"), Hole(6, 8, "purged")]

    assert batch(1, 9, holes=holes).missing == 3


@given(st.lists(st.text("{}\n", max_size=4).map(str.encode), max_size=4))
def test_bodies_are_looked_at_together_as_one_by_one(bodies):
    """Whatever stands at their ends: the place between two of them must not make up for what one of them lacks."""
    each = [body.startswith(b"{") and body.endswith(b"}") and b"\n" not in body for body in bodies]
    assert stream_batch._are_objects(bodies) is all(each)
