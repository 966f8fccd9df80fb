"""When the text index waits for lines, and for how long."""

from __future__ import annotations

import pytest

from logrelay.journal.derive_rhythm import (
    BUSY_LINES_PER_S,
    CROWDED_PAUSE_S,
    MOST_BEHIND,
    PAUSE_S,
    WINDOW_S,
    DeriveRhythm,
)

MANY = int(BUSY_LINES_PER_S * WINDOW_S)


def test_a_bot_that_logs_now_and_then_has_its_lines_indexed_at_once():
    """Also the first lines of all, and a burst that is small."""
    rhythm = DeriveRhythm()
    for second in range(5):
        rhythm.note(MANY - 1, float(second))
        assert rhythm.may(float(second), 10)


def test_while_lines_pour_in_it_waits_and_goes_on_when_they_do_not():
    """Within two windows after the last of them."""
    rhythm = DeriveRhythm()
    for step in range(20):
        rhythm.note(MANY // 4, step * WINDOW_S / 5)
    assert not rhythm.may(4 * WINDOW_S, 10)
    assert not rhythm.may(4.9 * WINDOW_S, 10)
    assert rhythm.may(6 * WINDOW_S, 10)


@pytest.mark.parametrize(("behind", "goes_on"), [(MOST_BEHIND - 1, False), (MOST_BEHIND, True)])
def test_it_does_not_wait_for_ever(behind, goes_on):
    """A search would have to look at too many lines."""
    rhythm = DeriveRhythm()
    rhythm.note(MANY, 1.0)
    assert rhythm.may(1.0, behind) is goes_on


@pytest.mark.parametrize(("cpu_s", "pause"), [(0.002, PAUSE_S), (0.0005, CROWDED_PAUSE_S), (0.0, CROWDED_PAUSE_S)])
def test_where_others_want_the_processor_it_rests_longer(cpu_s, pause):
    """It is seen by how long a piece takes."""
    assert DeriveRhythm().pause(0.002, cpu_s) == pause
