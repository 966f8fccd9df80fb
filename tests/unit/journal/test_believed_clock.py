"""What time it is believed to be, whatever the machine's clock says."""

from __future__ import annotations

import random

import pytest

from logrelay.journal.believed_clock import HOLD_US, START_STEP_US, STEP_US, BelievedClock

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
NOW_US = 1_769_162_400_000_000


class Machine:
    """A clock that can be set, an uptime that cannot, and what is believed of them."""

    def __init__(self, *, last_us=NOW_US, clock_us=NOW_US, doubt_us=0):
        self.clock_us, self.up_us = clock_us, 5
        self.believed = BelievedClock()
        self.went_back = self.believed.start(last_us, doubt_us, clock_us=clock_us, uptime_us=self.up_us)

    def live(self, us, step=HOUR_US // 6):
        while us > 0:
            self.clock_us += min(step, us)
            self.up_us += min(step, us)
            self.went_back |= self.believed.look(self.clock_us, self.up_us)
            us -= step

    def set(self, us):
        self.clock_us += us
        self.went_back |= self.believed.look(self.clock_us, self.up_us)

    @property
    def now_us(self):
        return self.believed.now_us


@pytest.mark.parametrize("step", [STEP_US, -STEP_US, 1, -1])
def test_a_small_step_is_believed_at_once(step):
    """As NTP takes them."""
    machine = Machine()
    machine.set(step)
    assert machine.now_us == NOW_US + step
    assert (machine.believed.doubt_us, machine.believed.ahead_us, machine.went_back) == (0, 0, False)


@pytest.mark.parametrize("step", [STEP_US + 1, -STEP_US - 1, 30 * DAY_US, -(50 * 365) * DAY_US])
def test_a_large_step_is_believed_after_the_hold(step):
    """Until then time goes on as if it had not been."""
    machine = Machine()
    machine.set(step)
    machine.live(HOLD_US - 1)
    assert machine.now_us == NOW_US + HOLD_US - 1
    assert machine.believed.ahead_us == step
    assert machine.believed.doubt_us == (NOW_US if step > 0 else -NOW_US)
    assert not machine.went_back
    machine.live(1)
    assert machine.now_us == NOW_US + step + HOLD_US
    assert machine.believed.doubt_us == 0
    assert machine.went_back == (step < 0)


@pytest.mark.parametrize("off", [0, HOUR_US, START_STEP_US, -START_STEP_US])
def test_a_night_is_believed_at_the_start(off):
    """Nothing else says how long the machine was off."""
    machine = Machine(clock_us=NOW_US + off)
    assert machine.now_us == NOW_US + off
    machine.set(STEP_US + 1)
    assert machine.now_us == NOW_US + off, "later a step has to be small"


def test_a_clock_that_is_set_soon_after_the_start_may_take_the_step_of_a_start():
    """A board without a battery begins in 1970, or where it ended, and is put right by NTP."""
    machine = Machine(clock_us=0)
    machine.live(HOUR_US)
    assert machine.now_us == NOW_US + HOUR_US
    machine.set(NOW_US + 20 * HOUR_US)
    assert machine.now_us == NOW_US + 21 * HOUR_US
    assert not machine.went_back


def test_a_hold_goes_on_through_restarts_and_begins_anew_on_the_other_side():
    """What was ahead and is behind now says two different things."""
    ahead = Machine(clock_us=NOW_US + 30 * DAY_US, doubt_us=NOW_US - HOLD_US + HOUR_US)
    ahead.live(HOUR_US - 1)
    assert ahead.now_us == NOW_US + HOUR_US - 1
    ahead.live(1)
    assert ahead.now_us == NOW_US + 30 * DAY_US + HOUR_US
    behind = Machine(clock_us=NOW_US - 30 * DAY_US, doubt_us=NOW_US - HOLD_US + HOUR_US)
    behind.live(2 * HOUR_US)
    assert behind.now_us == NOW_US + 2 * HOUR_US
    assert behind.believed.doubt_us == -NOW_US


def test_a_journal_without_lines_believes_the_clock():
    """There is nothing that could go too early."""
    assert Machine(last_us=None, clock_us=17).now_us == 17


def test_whatever_the_clock_does_for_less_than_the_hold_costs_an_hour_at_most():
    """Random steps, each put right in time: what is believed is never further than STEP_US from the truth."""
    chance = random.Random(7)
    for _ in range(200):
        machine, truth = Machine(), NOW_US
        for _ in range(12):
            wrong = chance.choice((1, -1)) * int(10 ** chance.uniform(7, 16))
            lasts = chance.randrange(HOLD_US)
            right = chance.randrange(HOUR_US, DAY_US)
            machine.set(wrong)
            machine.live(lasts, step=DAY_US // 2)
            machine.set(-wrong)
            machine.live(right, step=DAY_US // 2)
            truth += lasts + right
            assert abs(machine.now_us - truth) <= STEP_US
            assert machine.believed.doubt_us == 0
        assert not machine.went_back
