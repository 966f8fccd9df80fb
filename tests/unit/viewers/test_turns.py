"""Work for viewers, a bounded share of each turn of the loop."""

from __future__ import annotations

from logrelay.budgets import HANDSHAKE_SLOTS, TURN_S
from logrelay.viewers.turns import Turns


class Loop:
    """A loop whose time passes when work says so."""

    def __init__(self):
        self.now = 0.0
        self.soon = []

    def time(self):
        return self.now

    def call_soon(self, function):
        self.soon.append(function)

    def turn(self):
        soon, self.soon = self.soon, []
        for function in soon:
            function()


def test_the_first_message_is_acted_on_at_once():
    """Nobody waits for a turn while there is nothing to do."""
    loop, done = Loop(), []
    Turns(loop).request(lambda: done.append(1))
    assert done == [1]
    loop.turn()
    assert loop.soon == [], "an idle loop stays idle"


def test_what_work_asks_for_is_for_a_later_turn():
    """One message of a viewer in each, however many it has sent."""
    loop, done = Loop(), []
    turns = Turns(loop)

    def work():
        done.append(loop.now)
        if len(done) < 2000:
            turns.request(work)

    turns.request(work)
    for _ in range(10):
        loop.turn()
    assert len(done) == 11


def test_a_turn_has_so_much_time_and_the_queue_is_fair():
    """What does not fit waits, in order."""
    loop, done = Loop(), []
    turns = Turns(loop)

    def work(name):
        def run():
            done.append(name)
            loop.now += TURN_S

        return run

    for name in "abc":
        turns.request(work(name))
    assert done == ["a"]
    loop.turn()
    assert done == ["a", "b"]
    loop.turn()
    loop.turn()
    assert done == ["a", "b", "c"]


def test_work_that_fails_does_not_stop_the_others():
    """The error goes on, to where the loop's errors go."""
    loop, done = Loop(), []
    turns = Turns(loop)
    turns.request(lambda: setattr(loop, "now", TURN_S))
    turns.request(lambda: 1 / 0)
    turns.request(lambda: done.append(1))
    for _ in range(3):
        try:
            loop.turn()
        except ZeroDivisionError:
            done.append(0)
    assert done == [0, 1]


def test_newcomers_take_turns_with_the_others_and_the_newest_is_first():
    """Of a crowd the oldest are cut, so the newest has to be looked at before it is one of them."""
    loop, done = Loop(), []
    turns = Turns(loop)

    def work(name, seconds=TURN_S / 2):
        def run():
            done.append(name)
            loop.now += seconds

        return run

    turns.request(work("first", TURN_S))
    for name in ("a", "b"):
        turns.request(work(name))
    for number in range(HANDSHAKE_SLOTS + 2):
        turns.request(work(number), newest_first=True)
    newest = HANDSHAKE_SLOTS + 1
    loop.turn()
    loop.turn()
    assert done == ["first", newest, "a", newest - 1, "b"]
    while loop.soon:
        loop.turn()
    assert done[5:] == list(range(newest - 2, 1, -1)), "beyond the places the oldest are forgotten"


def test_what_fits_into_a_turn_is_acted_on_at_once():
    """However late it is by the loop's clock, and in every turn anew."""
    loop, done = Loop(), []
    loop.now = 1000.0
    turns = Turns(loop)
    for turn in range(3):
        for number in range(3):
            turns.request(lambda turn=turn, number=number: done.append((turn, number)))
            assert done[-1] == (turn, number)
        loop.turn()
    turns.request(lambda: setattr(loop, "now", loop.now + TURN_S))
    turns.request(lambda: done.append("later"))
    assert done[-1] != "later"
    loop.turn()
    assert done[-1] == "later"


def test_nobody_is_served_before_those_who_wait():
    """Though there would be time for it: what work has asked for is older."""
    loop, done = Loop(), []
    turns = Turns(loop)
    turns.request(lambda: turns.request(lambda: done.append("older")))
    turns.request(lambda: done.append("younger"))
    assert done == []
    loop.turn()
    assert done == ["older", "younger"]
