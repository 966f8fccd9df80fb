"""When an alert is tried again."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from logrelay.alerts.retry import FIRST_S, LONGEST_S, MAX_RETRY_AFTER_S, delay_s, retry_after_s

NOW = 1_769_162_400.0


def test_the_pause_doubles_up_to_the_longest():
    assert [delay_s(tries, None, 0.0) for tries in (1, 2, 3)] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert delay_s(1000, None, 0.0) == LONGEST_S


def test_a_service_that_is_down_for_an_hour_is_asked_a_dozen_times_and_at_least_every_ten_minutes():
    at, asked = 0.0, 0
    while at < 3600:
        asked += 1
        at += delay_s(asked, None, 0.5)

    assert 8 <= asked <= 14


def test_attempts_are_spread():
    assert delay_s(3, None, 0.0) < delay_s(3, None, 1.0) <= 1.25 * delay_s(3, None, 0.0)


def test_what_the_service_asks_for_is_the_least():
    assert delay_s(1, 120.0, 0.0) == 120.0
    assert delay_s(1, 1.0, 0.0) == FIRST_S
    assert delay_s(1, 10.0**9, 0.0) == MAX_RETRY_AFTER_S


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("120", 120.0), (" 7 ", 7.0), ("soon", None), ("-5", None), ("1.5", None), ("", None),
        (formatdate(NOW + 90, usegmt=True), 90.0), (formatdate(NOW - 90, usegmt=True), 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(value, seconds):
    assert retry_after_s(value, NOW) == seconds
