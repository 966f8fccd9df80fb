"""What a terminal would obey is shown as an escape; everything a person reads stays."""

from __future__ import annotations

import pytest

from logrelay.visible_text import visible

READ = "Zürich \u4e2d\u6587 \U0001f469\u200d\U0001f4bb \u00a0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bot (pid 7) connected", "bot (pid 7) connected"),
        ("", ""),
        (
            "Zürich \u4e2d\u6587 \U0001f469\u200d\U0001f4bb \u00a0",
            "Zürich \u4e2d\u6587 \U0001f469\u200d\U0001f4bb \u00a0",
        ),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\nlogrelay: b\r\0\t", "a\\x0alogrelay: b\\x0d\\x00\\x09"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("\u202eevil\u202c\u2066x\u2069\u200f\u061c", "\\u202eevil\\u202c\\u2066x\\u2069\\u200f\\u061c"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud83d", "\\ud83d"),
    ],
)
def test_only_what_is_obeyed_is_escaped(text, shown):
    assert visible(text) == shown
