"""How many messages a viewer may send."""

from __future__ import annotations

import pytest

from logrelay.budgets import CAUSES, MESSAGES_AT_ONCE, MESSAGES_PER_S, Allowance
from logrelay.http.metrics import METRICS


def test_a_burst_and_then_a_rate():
    """What is beyond both has to wait exactly until there is one to take."""
    allowance = Allowance(10.0)
    assert [allowance.take(10.0) for _ in range(int(MESSAGES_AT_ONCE))] == [0.0] * int(MESSAGES_AT_ONCE)
    wait = allowance.take(10.0)
    assert wait == pytest.approx(1 / MESSAGES_PER_S)
    assert allowance.take(10.0 + wait + 1e-9) == 0.0
    assert allowance.take(10.0 + wait + 1e-9) > 0


def test_a_long_silence_is_worth_one_burst():
    """And no more than that."""
    allowance = Allowance(0.0)
    for _ in range(int(MESSAGES_AT_ONCE)):
        allowance.take(0.0)
    taken = 0
    while not allowance.take(1e6):
        taken += 1
    assert taken == MESSAGES_AT_ONCE


def test_a_timer_that_rings_early_is_not_asked_for_again_and_again():
    """The loop's clock has milliseconds: a wait of less ended at once, and each look counted as one more message."""
    allowance, clock, taken, waits = Allowance(0.0), 0.0, 0, 0
    while taken < 200:
        wait = allowance.take(clock)
        if wait:
            waits += 1
            clock += int(wait * 1000) / 1000 - 0.0005
        else:
            taken += 1
    assert waits <= 2 * (200 - MESSAGES_AT_ONCE)


def test_half_a_message_makes_the_wait_shorter():
    """What has come back counts."""
    allowance = Allowance(0.0)
    for _ in range(int(MESSAGES_AT_ONCE)):
        allowance.take(0.0)
    assert allowance.take(0.25 / MESSAGES_PER_S) == pytest.approx(0.75 / MESSAGES_PER_S)


def test_every_cause_has_its_counter_and_a_sentence():
    """People read the sentence behind a number: it says who, and why."""
    counters = {metric.name for metric in METRICS if metric.name.endswith("_limit_total")}
    assert counters == {f"viewer_{cause}_limit_total" for cause in CAUSES}
    for sentence in CAUSES.values():
        assert sentence.startswith(("connections ", "long answers ", "viewers ", "times a viewer "))
        assert " were " in sentence or " sent more " in sentence
