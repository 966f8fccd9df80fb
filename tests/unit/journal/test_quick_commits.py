"""When the event loop makes a commit itself."""

from __future__ import annotations

import pytest

from logrelay.journal.quick_commits import MOST_BYTES, MOST_LINES, SLOW_S, TRUSTED_AFTER, QuickCommits


@pytest.fixture
def trusted():
    quick = QuickCommits()
    for _ in range(TRUSTED_AFTER):
        quick.note(SLOW_S / 2)
    return quick


def test_nothing_is_trusted_before_it_was_quick_for_a_while():
    """At the start the thread makes the commits."""
    quick = QuickCommits()
    for _ in range(TRUSTED_AFTER):
        assert not quick.allow(1, 100)
        quick.note(0.0)
    assert quick.allow(1, 100)


@pytest.mark.parametrize("spoil", [lambda quick: quick.note(SLOW_S), QuickCommits.failed])
def test_the_first_slow_one_is_the_last(trusted, spoil):
    """Also one that failed; then as many as at the start have to be quick again."""
    spoil(trusted)
    for _ in range(TRUSTED_AFTER):
        assert not trusted.allow(1, 100)
        trusted.note(SLOW_S / 2)
    assert trusted.allow(1, 100)


@pytest.mark.parametrize(
    ("lines", "size", "allowed"),
    [(MOST_LINES, 1, True), (MOST_LINES + 1, 1, False), (1, MOST_BYTES, True), (1, MOST_BYTES + 1, False)],
)
def test_only_a_small_one(trusted, lines, size, allowed):
    """A large one is worth waking the thread for."""
    assert trusted.allow(lines, size) is allowed
