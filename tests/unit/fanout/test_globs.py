"""Globs have the answers of the standard library, whatever the glob is, in one pass."""

from __future__ import annotations

import tracemalloc
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from logrelay.fanout.globs import Glob


@given(st.text("ab*?[]!c", max_size=12), st.text("abc[]!", max_size=10))
def test_the_answers_are_those_of_fnmatch(glob, name):
    """Sets that are never closed, empty sets and several stars included."""
    assert Glob(glob).match(name) == fnmatchcase(name, glob)


@given(st.sampled_from(["[a-c]", "[!a-c]", "[b-]", "[-b]", "[a-bx]"]), st.text("*?ab", max_size=4), st.text("abcx-"))
def test_ranges_are_those_of_fnmatch(inside, rest, name):
    """Also beside the rest of a glob."""
    assume(len(name) < 12)
    for glob in (inside + rest, rest + inside):
        assert Glob(glob).match(name) == fnmatchcase(name, glob)


@pytest.mark.parametrize("glob", ["*a" * 127 + "*b", "*" * 256, "?*" * 128, "[a-z]" * 51])
def test_a_long_glob_takes_one_pass(glob):
    """No glob makes the work more than the name is long, so this ends at once."""
    assert Glob(glob).match("a" * 60_000) == (glob in ("*" * 256, "?*" * 128))


def test_a_long_glob_takes_little_memory():
    """A thousand viewers may have 64 of them each."""
    globs = ["*" + "ab?c" * 60 + str(number) for number in range(200)]
    tracemalloc.start()
    try:
        kept = [Glob(glob) for glob in globs]
        taken = tracemalloc.get_traced_memory()[0] / len(globs)
    finally:
        tracemalloc.stop()
    assert kept[7].match("x" + "abxc" * 60 + "7")
    assert taken < 800
