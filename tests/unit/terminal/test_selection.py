"""The conditions of a command line as parameters of a request, and what is wrong with them."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from logrelay.errors import ConfigError
from logrelay.terminal.selection import Selection

ALL = Selection(
    level="warning", apps=("a", "b"), runs=("1*",), edges=("e*",), sources=("x.*",), text="text & more",
    where=("k=v=w", "n=1"), since="2h", until="1h",
)  # fmt: skip


def test_every_condition_is_in_the_request():
    """And in the live one all but the times, which a stream does not know."""
    live = {
        "level": ["warning"], "text": ["text & more"], "app": ["a", "b"], "run": ["1*"], "edge": ["e*"],
        "source": ["x.*"], "where": ["k=v=w", "n=1"],
    }  # fmt: skip

    assert parse_qs(ALL.live_query(after="k-1")) == live | {"after": ["k-1"]}
    assert parse_qs(ALL.query(limit=5, after="")) == live | {"since": ["2h"], "until": ["1h"], "limit": ["5"]}
    assert Selection().query() == ""
    assert Selection().empty
    assert not ALL.empty


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (Selection(level="loud"), "level 'loud' is not one of"),
        (Selection(where=("x",)), "field=value"),
        (Selection(since="yesterday"), "is not a time"),
        (Selection(since="1h", until="2h"), "is not before until"),
    ],
)
def test_a_wrong_condition_is_said_before_anything_is_opened(selection, said):
    """In the words of the protocol, as a mistake of the command line."""
    with pytest.raises(ConfigError, match=said):
        selection.check(10**15)


def test_a_url_says_what_the_command_line_does_not():
    """An option wins over the URL, and what the URL has besides is not asked for."""
    url = [("level", "error"), ("app", "a"), ("app", "b"), ("tail", "5"), ("where", "k=v")]

    assert Selection(text="x").or_else(url) == Selection("error", ("a", "b"), text="x", where=("k=v",))
    assert Selection("info", ("c",)).or_else(url) == Selection("info", ("c",), where=("k=v",))


def test_right_conditions_pass():
    """All of them at once."""
    ALL.check(10**15)
