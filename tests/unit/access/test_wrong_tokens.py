"""Wrong tokens: each answer waits longer than the one before, in bounded memory, and the operator hears of it."""

from __future__ import annotations

import pytest

from logrelay.access.wrong_tokens import (
    FIRST_DELAY_S,
    FORGET_AFTER_S,
    MAX_ADDRESSES,
    MAX_DELAY_S,
    MAX_WAITING,
    MAX_WAITING_EACH,
    TELL_EVERY_S,
    WrongTokens,
    address_key,
)


def test_the_delay_doubles_up_to_its_limit_and_is_forgotten():
    """Whoever waits for each answer waits longer and longer; after a while without a wrong one it begins anew."""
    wrong, mono, delays = WrongTokens(), 0.0, []
    for _ in range(9):
        delays.append(wrong.note("10.0.0.1", mono))
        mono += delays[-1]
    assert delays == [min(FIRST_DELAY_S * 2**n, MAX_DELAY_S) for n in range(9)]
    assert wrong.note("10.0.0.2", mono) == FIRST_DELAY_S, "another address has nothing to do with it"
    last = mono - delays[-1]
    assert wrong.note("10.0.0.1", last + FORGET_AFTER_S) == MAX_DELAY_S
    assert wrong.note("10.0.0.1", last + 2 * FORGET_AFTER_S + 0.1) == FIRST_DELAY_S
    assert wrong.total == 12


def test_few_answers_wait_at_once():
    """For one address, and for all together; there is room again when they have gone out."""
    wrong = WrongTokens()
    assert None not in [wrong.note("10.0.0.1", 0.0) for _ in range(MAX_WAITING_EACH)]
    assert wrong.note("10.0.0.1", 0.0) is None
    assert wrong.note("10.0.0.1", MAX_DELAY_S) is not None
    wrong = WrongTokens()
    answers = [wrong.note(f"10.0.{n >> 8}.{n & 255}", 0.0) for n in range(MAX_WAITING + 50)]
    assert [answer is None for answer in answers] == [False] * MAX_WAITING + [True] * 50
    assert wrong.note("10.9.9.9", FIRST_DELAY_S) is not None


def test_the_table_has_a_bound():
    """The address that has been quiet for longest is forgotten first."""
    wrong = WrongTokens()
    for n in range(MAX_ADDRESSES + 500):
        wrong.note(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", float(n))
        wrong.note("192.0.2.1", n + 0.5)
    assert wrong.addresses == MAX_ADDRESSES
    assert wrong.note("192.0.2.1", MAX_ADDRESSES + 510.0) == MAX_DELAY_S
    assert wrong.note("10.0.0.1", MAX_ADDRESSES + 510.0) == FIRST_DELAY_S


def test_the_operator_hears_at_once_and_then_of_many_in_one_line():
    """One message a minute, with counts."""
    wrong = WrongTokens()
    assert wrong.take_message(0.0) is None
    wrong.note("10.0.0.1", 0.0)
    assert wrong.take_message(0.0) == "a wrong token was shown from 10.0.0.1; it was refused"
    for n in range(300):
        wrong.note("10.0.0.1", 1.0 + n / 100)
    assert wrong.take_message(TELL_EVERY_S - 0.1) is None
    assert wrong.take_message(TELL_EVERY_S) == "300 wrong tokens were shown from 10.0.0.1; they were refused"
    assert wrong.take_message(1e6) is None
    wrong.note("10.0.0.1", 1e6)
    wrong.note("2001:db8::1", 1e6)
    assert wrong.take_message(1e6) == (
        "2 wrong tokens were shown from 2 addresses, 2001:db8::/64 the last; they were refused"
    )


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "local"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_subscriber_has_one_key(address, key):
    """Of IPv6 it has 2^64 addresses; a mapped IPv4 address is that address."""
    assert address_key(address) == key
