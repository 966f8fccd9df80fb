"""The words and numbers every part shares, and what a run and a commit begin with."""

from __future__ import annotations

import logging
from dataclasses import fields

from logrelay import model
from logrelay.model import RANKS, RELAY_RUN, RELAY_SOURCE, SHOWN, Commit, Run


def test_the_level_words_of_the_wire_have_the_ranks_of_logging():
    """Five words; a filter compares their numbers."""
    assert set(RANKS) == {"debug", "info", "warning", "error", "critical"}
    for word, rank in RANKS.items():
        assert rank == getattr(logging, word.upper()) == getattr(model, word.upper())


def test_viewers_get_four_level_words():
    """The mobile app hides what it does not know."""
    assert SHOWN == {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "ERROR"}


def test_notices_are_told_apart_by_run_and_source():
    """Both are in journals that exist."""
    assert (RELAY_RUN, RELAY_SOURCE) == (0, "logrelay")


def test_a_copy_of_a_run_is_equal_and_another_one():
    """Every field is copied: each has another value here."""
    run = Run(*range(1, len(fields(Run)) + 1))
    copy = run.copy()

    assert copy == run
    copy.last_seq = 99
    assert run.last_seq == 7


def test_a_run_begins_connected_and_without_lines():
    """As the hello frame makes it."""
    run = Run(1, b"k" * 16, "app", "host", 2, 3)

    assert (run.last_seq, run.last_us, run.state, run.seen_us) == (0, 0, "connected", 0)


def test_a_commit_begins_empty():
    """There is nothing in it."""
    commit = Commit()
    assert not any((commit.lines, commit.runs, commit.aliases, commit.durable, commit.forgotten))
    assert not any((commit.devices, commit.collected, commit.forwarded))
