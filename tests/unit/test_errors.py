"""How an error message repeats what somebody sent."""

from __future__ import annotations

import pytest

from logrelay.errors import QUOTED_CHARS, quoted

TOKEN = "lr_h3Kq9-zZ_xv7Lw"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1", "'1'"),
        ("a\nb\x1b", r"'a\nb\x1b'"),
        ("x" * QUOTED_CHARS, repr("x" * QUOTED_CHARS)),
        ("x" * (QUOTED_CHARS + 1), repr("x" * (QUOTED_CHARS - 3) + "...")),
        ("1?token=own-one&a=b", "'1?token=...&a=b'"),
        ("Token=own-one", "'Token=...'"),
        ("Bearer  own-one x", "'Bearer  ... x'"),
        ("a, bearer.own-one, b", "'a, bearer...., b'"),
        (TOKEN, "'lr_...'"),
        (f"{'x' * (QUOTED_CHARS - 10)}?{TOKEN}", repr(f"{'x' * (QUOTED_CHARS - 10)}?lr_...")),
        ("token", "'token'"),
        ("lr_", "'lr_'"),
        ("clr_state", "'clr_state'"),
    ],
)
def test_what_was_sent_is_repeated_without_a_token(text, shown):
    """In quotes, escaped, short; what may be a token is left out, wherever it was put."""
    assert quoted(text) == shown
