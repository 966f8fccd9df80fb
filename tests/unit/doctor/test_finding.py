"""What findings mean together."""

from __future__ import annotations

import pytest

from logrelay.doctor.finding import EXITS, error, exit_code, in_order, problem, warning

CONFIG, LISTEN, JOURNAL = (error(ends, ends, "t", "r") for ends in EXITS)
PROBLEM, WARNING = problem("p", "t", "r"), warning("w", "t", "r")


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        ([WARNING, WARNING], 0),
        ([WARNING, PROBLEM], 7),
        ([JOURNAL, PROBLEM], 4),
        ([JOURNAL, LISTEN], 3),
        ([WARNING, JOURNAL, LISTEN, CONFIG], 2),
    ],
)
def test_the_exit_code_is_the_one_that_serve_would_end_with(findings, code):
    """Settings are read before sockets are bound, and those before the journal; other problems need a look."""
    assert exit_code(findings) == code


def test_the_gravest_comes_first():
    """Among equals the order stays."""
    assert in_order([WARNING, PROBLEM, JOURNAL, LISTEN]) == [JOURNAL, LISTEN, PROBLEM, WARNING]
