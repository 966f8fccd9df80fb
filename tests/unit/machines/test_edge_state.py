"""What an edge says of itself: written, read, and whatever else somebody sends."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logrelay.machines import edge_state
from logrelay.machines.edge_state import BadStateError, EdgeState

BOT = {
    "app": "robo", "host": "box", "pid": 4242, "run": "a" * 32, "state": "quiet", "started": "2026-01-23T10:00:00Z",
    "last_line": None, "last_line_age_s": 12.5, "quiet_s": 12.5, "last_seq": 9,
}  # fmt: skip
STATE = EdgeState(
    edge="box-1", version="1.0", started_us=1, sent_us=2, interval_s=3.0, journal="ab12", head="k3f9ab-7", forwarded=5,
    lag_lines=2, trouble="the disk is full", bots=(BOT,),
)  # fmt: skip


def test_a_state_is_read_as_it_was_written():
    """Every field should come through."""
    assert edge_state.decode(edge_state.encode(STATE)) == STATE
    assert STATE.subject == "logrelay.state.box-1"


def test_more_bots_than_fit_are_counted():
    """A message should stay small, and say what it leaves out."""
    many = EdgeState(**{**{n: getattr(STATE, n) for n in STATE.__dataclass_fields__}, "bots": (BOT,) * 503})

    read = edge_state.decode(edge_state.encode(many))

    assert (len(read.bots), read.more_bots) == (500, 3)


def test_keys_of_a_later_version_are_left_out():
    """A newer edge should not be unreachable for an older hub relay."""
    shape = orjson.loads(edge_state.encode(STATE))
    shape["bots"][0]["mood"] = "well"

    assert edge_state.decode(orjson.dumps(shape | {"weather": "sun"})) == STATE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"edge": "a.b"}, "edge"),
        ({"edge": 5}, "edge"),
        ({"version": "x" * 2000}, "version"),
        ({"forwarded": -1}, "forwarded"),
        ({"lag_lines": True}, "lag_lines"),
        ({"interval_s": 0}, "interval_s"),
        ({"interval_s": "3"}, "interval_s"),
        ({"bots": {}}, "bots"),
        ({"bots": [5]}, "bots"),
        ({"bots": [BOT | {"state": None}]}, "no app, run or state"),
        ({"bots": [BOT | {"pid": [1]}]}, "pid"),
        ({"trouble": 1}, "trouble"),
    ],
)
def test_a_bad_state_is_refused_with_its_reason(change, says):
    """Whoever reads the text should know what is wrong."""
    shape = orjson.loads(edge_state.encode(STATE)) | change
    with pytest.raises(BadStateError, match=says):
        edge_state.decode(orjson.dumps(shape))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else_happens(data):
    """Bytes of anybody should be a state or a BadStateError."""
    with pytest.raises(BadStateError):
        edge_state.decode(data)


def test_a_large_message_is_not_even_parsed():
    """A message beyond the bound should be refused by its size."""
    with pytest.raises(BadStateError, match="bytes"):
        edge_state.decode(b" " * (edge_state.MOST_STATE_BYTES + 1))
