"""Exit codes that scripts rely on, and how an error message repeats what somebody sent."""

from __future__ import annotations

import pytest

from logrelay import errors
from logrelay.errors import QUOTED_CHARS, JournalError, JournalRefused, RequestError, quoted

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


def test_exit_codes_stay_as_they_are():
    """A script or a unit looks at them."""
    codes = {"RelayError": 1, "ConfigError": 2, "TokenFileError": 2, "ListenError": 3, "JournalError": 4}
    codes |= {"JournalRefused": 4, "NoRelayError": 5, "NotAckedError": 6, "NeedsLookError": 7, "RequestError": 1}
    assert {name: getattr(errors, name).exit_code for name in codes} == codes


def test_what_an_error_carries():
    """Its words, whether to try again, and the code of the protocol."""
    full, refused, bad = JournalError("the disk is full"), JournalRefused("in use"), RequestError("bad_id", "no id")
    assert (str(full), full.retry) == ("the disk is full", True)
    assert JournalError("gone", retry=False).retry is False
    assert (str(refused), refused.retry) == ("in use", False)
    assert (str(bad), bad.code) == ("no id", "bad_id")
