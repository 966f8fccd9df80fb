"""Whose turn it is to have the journal read."""

from __future__ import annotations

from logrelay.read_queue import MOST_READS, MOST_SEARCHES, Read, ReadQueue


class Reads:
    """Puts reads and notes which have begun."""

    def __init__(self):
        self.queue = ReadQueue()
        self.begun = []
        self.unwanted = set()

    def put(self, owner, name=None, *, search=False):
        name = owner if name is None else name
        read = Read(owner, search, lambda: name not in self.unwanted, lambda read: self.begun.append((name, read)))
        self.queue.put(read)

    @property
    def names(self):
        return [name for name, _ in self.begun]

    def end(self, name):
        self.queue.ended(next(read for begun, read in self.begun if begun == name))


def test_so_many_at_once_and_the_others_in_turn():
    """Each as soon as another has ended."""
    reads = Reads()
    for owner in "abcd":
        reads.put(owner)
    assert reads.names == ["a", "b"]
    assert MOST_READS == 2
    reads.end("b")
    assert reads.names == ["a", "b", "c"]
    assert reads.queue.waiting == 1


def test_searches_leave_room_for_those_who_do_not_search():
    """A thousand searches keep nobody waiting who wants the newest lines."""
    reads = Reads()
    for n in range(1000):
        reads.put(f"search {n}", search=True)
    assert reads.names == ["search 0"]
    assert MOST_SEARCHES == 1
    reads.put("newcomer")
    assert reads.names == ["search 0", "newcomer"]


def test_a_newer_read_takes_the_place_of_the_one_before():
    """What was asked for first is never read, and the queue does not grow."""
    reads = Reads()
    for owner in "abc":
        reads.put(owner)
    for n in range(100):
        reads.put("c", f"c{n}")
    reads.put("c", "last", search=True)
    assert reads.queue.waiting == 1
    reads.end("a")
    assert reads.names == ["a", "b", "last"]


def test_what_nobody_waits_for_is_not_begun():
    """The next one is, in the same step."""
    reads = Reads()
    for owner in "abcd":
        reads.put(owner)
    reads.unwanted = {"c"}
    reads.end("a")
    assert reads.names == ["a", "b", "d"]
