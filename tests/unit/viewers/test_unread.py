"""What waits for viewers that do not read: the sum, and who has to go."""

from __future__ import annotations

from logrelay.viewers.unread import Unread


def test_what_waits_is_summed():
    """By what each holds now; 0 and the end take it away."""
    unread = Unread(100)
    assert unread.charge("a", "1", 40) is None
    assert unread.charge("b", "2", 60) is None
    assert unread.total == 100
    assert unread.charge("a", "1", 30) is None
    assert unread.total == 90
    assert unread.charge("a", "1", 0) is None
    assert unread.total == 60
    unread.release("b")
    unread.release("b")
    assert unread.total == 0
    assert unread.charge("c", "3", 0) is None
    assert unread.total == 0


def test_who_has_taken_nothing_for_the_longest_time_is_cut():
    """Taking some of it counts; getting more does not."""
    unread = Unread(100)
    unread.charge("a", "1", 30)
    unread.charge("b", "1", 30)
    unread.charge("c", "1", 30)
    unread.charge("a", "1", 20)
    unread.charge("b", "1", 35)
    assert unread.charge("d", "1", 20) == "b"
    assert unread.total == 70
    assert unread.charge("d", "1", 60) == "c"
    assert unread.charge("d", "1", 90) == "a"
    assert unread.total == 90


def test_the_address_that_has_most_pays():
    """However long somebody from elsewhere has taken nothing."""
    unread = Unread(100)
    unread.charge("phone", "1", 30)
    unread.charge("first", "2", 35)
    assert unread.charge("second", "2", 36) == "first"
    assert unread.charge("third", "2", 34) is None
    assert unread.charge("phone", "1", 80) == "phone"
    assert unread.total == 70


def test_the_same_bytes_count_once():
    """However many wait for them; with the last of them they go."""
    unread, lines = Unread(100), b"x" * 60
    for name in "abc":
        assert unread.charge(name, "1", 60, lines) is None
    assert unread.total == 60
    assert unread.charge("d", "1", 30, b"y" * 30) is None
    assert unread.total == 90
    unread.release("a")
    unread.release("b")
    assert unread.total == 90
    assert unread.charge("c", "1", 0) is None
    assert unread.total == 30
    assert unread.charge("c", "1", 60, lines) is None
    assert unread.total == 90


def test_who_waits_alone_goes_before_those_who_share():
    """Cutting one of those would give nothing back; where all share, the first of them goes, until it is enough."""
    unread, lines, others = Unread(100), b"x" * 60, b"y" * 50
    unread.charge("a", "1", 60, lines)
    unread.charge("b", "1", 60, lines)
    assert unread.charge("c", "1", 50, others) == "c"
    assert unread.total == 60
    unread.charge("d", "1", 40, b"z" * 40)
    assert unread.charge("e", "1", 41) == "d"
    unread.release("e")
    assert unread.charge("c", "1", 40, others[:40]) is None
    shared = b"z" * 30
    assert unread.charge("c", "1", 30, shared) is None
    assert unread.charge("d", "1", 30, shared) is None
    assert unread.total == 90
    assert unread.charge("e", "2", 20) == "a"
    assert unread.total == 110, "the same bytes wait for another: the caller asks again"
    assert unread.charge("e", "2", 20) == "b"
    assert unread.total == 50


def test_many_who_sleep_behind_one_address_do_not_pay_for_what_others_hold():
    """What they share is in memory once, and so it counts for their address."""
    unread, lines = Unread(100), b"x" * 20
    for number in range(50):
        assert unread.charge(("phone", number), "office", 20, lines) is None
    assert unread.charge("harm", "elsewhere", 70) is None
    assert unread.charge("more harm", "elsewhere", 30) == "harm"
    for number in range(50):
        unread.release(("phone", number))
    assert unread.total == 30
    assert unread.charge("first", "office", 40) is None
    assert unread.charge("second", "office", 40) == "first", "nothing of what was shared counts any more"


def test_what_is_over_leaves_nothing_behind():
    """Neither who held it, nor the address, nor the bytes: both come in any number."""
    unread, lines = Unread(100), b"x" * 60
    unread.charge("a", "1", 0)
    unread.charge("a", "1", 60, lines)
    unread.charge("b", "2", 60, lines)
    unread.charge("c", "2", 1)
    assert unread.total == 61
    unread.charge("c", "2", 0)
    unread.charge("b", "2", 0)
    unread.release("a")
    assert (unread.total, unread._waiting, unread._of_address, unread._sharers) == (0, {}, {}, {})


def test_an_address_has_what_its_holders_have_now():
    """What one of them has taken, or what went with it, does not count against the others."""
    unread = Unread(100)
    unread.charge("big", "1", 70)
    unread.charge("other", "1", 20)
    unread.charge("big", "1", 5)
    unread.charge("phone", "2", 40)
    assert unread.charge("late", "1", 36) == "other", "by 61 to 40, and the one that took some is behind it"
    unread.release("late")
    unread.release("big")
    assert unread.charge("new", "3", 39) is None
    assert unread.charge("newer", "3", 22) == "new"


def test_who_has_as_much_as_before_keeps_its_place():
    """It has taken nothing."""
    unread = Unread(100)
    unread.charge("a", "1", 50)
    unread.charge("b", "1", 50)
    unread.charge("a", "1", 50)
    assert unread.charge("c", "1", 1) == "a"
