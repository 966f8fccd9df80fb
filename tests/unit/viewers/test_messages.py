"""What the relay says to one viewer besides lines."""

from __future__ import annotations

import json

import pytest

from logrelay.fanout.filters import Filter
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, WARNING
from logrelay.viewers import messages


def test_control_messages():
    """connection, subscribed, history, error and pong have the agreed shape."""
    assert json.loads(messages.connection("e-2", "e-1", [{"app": "a"}], "0.1.0")) == {
        "type": "connection",
        "status": "connected",
        "head": "e-2",
        "oldest": "e-1",
        "traders": [{"app": "a"}],
        "version": "0.1.0",
        "encrypted": False,
    }
    wanted = Filter(CRITICAL, ("a.*", "b"), "x", (("k", "v=w"),))
    assert json.loads(messages.subscribed(wanted, "e-2")) == {
        "type": "subscribed",
        "channel": "logs",
        "filter": {"level": "CRITICAL", "source": ["a.*", "b"], "text": "x", "where": ["k=v=w"]},
        "head": "e-2",
    }
    assert messages.filter_shape(Filter(apps=("a", "b*"))) == {"app": ["a", "b*"]}
    assert json.loads(messages.subscribed(Filter(), "e-2"))["filter"] == {}
    assert json.loads(messages.history([], more=False)) == {"type": "history", "logs": [], "more": False}
    assert json.loads(messages.history([b'{"a":1}', b"{}"], more=True)) == {
        "type": "history",
        "logs": [{"a": 1}, {}],
        "more": True,
    }
    assert json.loads(messages.error("bad_id", 'a "word"')) == {
        "type": "error",
        "code": "bad_id",
        "message": 'a "word"',
    }
    assert json.loads(messages.PONG) == {"type": "pong"}
    for name in ("connection", "subscribed", "history", "error", "pong", "log"):
        assert name in messages.MESSAGE_TYPES


@pytest.mark.parametrize(
    ("level", "shown"),
    [(DEBUG, {}), (INFO, {"level": "INFO"}), (WARNING, {"level": "WARNING"}), (ERROR, {"level": "ERROR"}),
     (CRITICAL, {"level": "CRITICAL"})],
)  # fmt: skip
def test_a_filter_names_the_level_it_asks_for(level, shown):
    """CRITICAL too, which no line is shown with; DEBUG is everything and is not named."""
    assert messages.filter_shape(Filter(level)) == shown


def test_the_codes_are_those_of_the_protocol():
    """Programs compare them, so none may change its name."""
    assert set(messages.ERROR_CODES) == {
        "bad_json", "bad_type", "bad_channel", "bad_level", "bad_source", "bad_app", "bad_run", "bad_text", "bad_where",
        "bad_edge", "bad_notices", "bad_tail", "bad_id", "bad_device", "bad_limit", "busy", "expired", "journal",
        "bad_silence", "alerts", "limited",
    }  # fmt: skip
    assert set(messages.CLOSE_CODES) == {1000, 1001, 1002, 1003, 1007, 1009, 1011, 1012, 4400, 4401, 4403, 4409, 4429}
