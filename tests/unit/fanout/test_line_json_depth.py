"""Nesting is shown to a depth of 32, the event being depth 0, and from there on as an ellipsis."""

from __future__ import annotations

import math

import orjson
import pytest

from logrelay.fanout.line_json import json_safe_value, log_line
from logrelay.model import INFO


def nested(depth, core="core", wrap=lambda value: [value]):
    for _ in range(depth):
        core = wrap(core)
    return core


def shown(value):
    """Render a value that orjson alone cannot show, so that the careful way is taken."""
    line, _, _ = log_line("k3f9ab", 1, 1, "app", 1, INFO, {"event": "e", "v": value, "odd": math.nan})
    return orjson.loads(line.body)["context"]["v"]


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,)], ids=["list", "dict", "tuple"])
def test_depth_32_is_the_first_that_is_not_shown(wrap):
    """31 containers in a field are shown whole; of 32 the innermost is an ellipsis, of 33 the one around it."""
    as_json = lambda v: list(v) if isinstance(v, tuple) else v
    relisted = lambda v: wrap(as_json(v))

    def expect(depth, core):
        value = core
        for _ in range(depth):
            value = as_json(relisted(value))
        return value

    assert shown(nested(31, wrap=wrap)) == expect(31, "core")
    assert shown(nested(32, wrap=wrap)) == expect(31, "...")
    assert shown(nested(33, wrap=wrap)) == expect(31, "...")


def test_a_scalar_is_shown_at_any_depth():
    """Only what nests further is cut."""
    assert json_safe_value("core", 32) == "core"
    assert json_safe_value(7, 1000) == 7
    assert json_safe_value([], 31) == []
    assert json_safe_value([], 32) == "..."
    assert json_safe_value({}, 32) == "..."
