"""How tests wait: with the one deadline of tests/support/waiting.py, which a slow machine can make longer."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("unit", "integration")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / "tests" / folder).rglob("*.py"))]

LONG_S = 5
"""A limit of so many seconds or more is a deadline for something that is expected to happen; shorter ones are what is
tested, for instance that a call gives up in time."""

WAITS = {"wait", "join", "communicate", "result", "timeout", "settimeout"}
"""Methods whose arguments without a name are a limit in seconds; the mark of pytest is one for the whole test."""


def is_mark(node):
    return ast.unparse(node) == "pytest.mark"


def own_limits(code):
    """Yield line and text of every wait in `code` that has a long limit of its own."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            limits = [keyword.value for keyword in node.keywords if keyword.arg in ("timeout", "deadline_s")]
            if isinstance(node.func, ast.Attribute) and node.func.attr in WAITS and not is_mark(node.func.value):
                limits += node.args
            for limit in limits:
                if isinstance(limit, ast.Constant) and isinstance(limit.value, int | float) and limit.value >= LONG_S:
                    yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "tests").as_posix())
def test_no_wait_has_a_limit_of_its_own(path):
    """`DEADLINE_S` should be the only one: a machine that needs longer sets it once, for everything."""
    assert list(own_limits(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "code", ["e.wait(20)", "t.join(timeout=10)", "p.communicate(timeout=30.0)", "run(timeout=5)", "asyncio.timeout(20)"]
)
def test_a_limit_is_found(code):
    """Each of these should be found."""
    assert list(own_limits(code))


@pytest.mark.parametrize(
    "code",
    [
        "e.wait()",
        "e.wait(DEADLINE_S)",
        "t.join(0.05)",
        "', '.join(words)",
        "run(timeout=T)",
        "pytest.mark.timeout(900)",
    ],
)
def test_what_is_no_limit_is_left_alone(code):
    """None of these should be found."""
    assert not list(own_limits(code))
