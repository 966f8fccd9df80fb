"""What the forwarder's thread gets of the relay's loop."""

from __future__ import annotations

import asyncio

import pytest

from logrelay.errors import JournalError
from logrelay.journal.interface import RowPage
from logrelay.machines.line_feed import MOST_MARKS, LineFeed
from logrelay.model import ForwardRow

ROW = ForwardRow("S/box", "j", "aaaaaa-5", 1, "monday")


class Source:
    trouble = None

    def __init__(self):
        self.asked, self.said, self.kept = [], [], []
        self.error = None

    def rows(self, after, *, max_bytes):
        self.asked.append((after, max_bytes))
        answer = asyncio.get_running_loop().create_future()
        if self.error is None:
            answer.set_result(RowPage([after + 1], [20], [1], [0], [b"{}"], [], [], after + 1, 1))
        else:
            answer.set_exception(self.error)
        return answer

    def keep_forwarded(self, row):
        self.kept.append(row)

    def announce(self, rank, message, details):
        self.said.append(details["state"])

    def own_traders(self):
        return [{"app": "bot"}]

    def id_of(self, seq):
        return f"aaaaaa-{seq}"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def running(use, *, head=0, oldest=1):
    """Run `use(feed, source, clock)` on a loop."""

    async def run():
        source, clock = Source(), Clock()
        feed = LineFeed(source, head=head, oldest=oldest, loop=asyncio.get_running_loop(), clock=clock)
        await use(feed, source, clock)

    asyncio.run(run())


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def test_lines_that_are_there_are_read_at_once():
    """Whoever is behind should not wait for a commit."""

    async def use(feed, source, clock):
        page = await asyncio.wrap_future(feed.next_page(3, 1000))
        assert (page.reached, source.asked) == (4, [(3, 1000)])

    running(use, head=10)


def test_whoever_is_at_the_head_waits_for_the_next_commit():
    """The commit itself should begin the read."""

    async def use(feed, source, clock):
        answer = feed.next_page(10, 1000)
        await settled()
        feed.committed(10, 1)  # retention has moved, no line has come
        assert (source.asked, answer.done()) == ([], False)
        feed.committed(11, 1)
        assert (await asyncio.wrap_future(answer)).reached == 11

    running(use, head=10)


def test_another_question_takes_the_place_of_the_one_before():
    """Only one should wait: a forwarder that has connected again asks anew."""

    async def use(feed, source, clock):
        old, new = feed.next_page(10, 1), feed.next_page(10, 2)
        await settled()
        feed.committed(11, 1)
        await asyncio.wrap_future(new)
        assert old.cancelled()
        assert source.asked == [(10, 2)]

    running(use, head=10)


def test_a_journal_that_cannot_be_read_is_told():
    """The error should come to whoever waits."""

    async def use(feed, source, clock):
        source.error = JournalError("the disk does not answer")
        with pytest.raises(JournalError, match="does not answer"):
            await asyncio.wrap_future(feed.next_page(3, 1000))

    running(use, head=10)


def test_lag_is_counted_from_what_the_stream_has():
    """Lines and seconds should be those of the oldest line that it does not have."""

    async def use(feed, source, clock):
        assert feed.lag_lines == 10
        feed.note(10, ROW)
        await settled()
        assert (feed.lag_lines, feed.lag_s, source.kept) == (0, 0.0, [ROW])
        feed.committed(12, 1)
        clock.now = 4.0
        feed.committed(20, 1)
        clock.now = 5.0
        assert (feed.lag_lines, feed.lag_s) == (10, 5.0)
        feed.note(15, None)
        await settled()
        assert (feed.lag_lines, feed.lag_s) == (5, 1.0)
        feed.committed(20, 18)
        assert feed.lag_lines == 3, "what retention has taken does not wait any more"

    running(use, head=10)


def test_a_day_without_a_network_takes_no_more_memory():
    """Points in time should be thinned out, the oldest kept."""

    async def use(feed, source, clock):
        feed.note(0, None)
        await settled()
        for second in range(5 * MOST_MARKS):
            clock.now = float(second)
            feed.committed(second + 1, 1)
        assert len(feed._marks) <= MOST_MARKS
        assert feed.lag_s == clock.now

    running(use)


def test_it_is_said_once_that_lines_go_which_were_not_forwarded():
    """Retention that overtakes should be told when it begins, and again after everything was well."""

    async def use(feed, source, clock):
        feed.committed(20, 8)
        assert source.said == [], "it is not known yet what the stream has"
        feed.note(10, None)
        await settled()
        feed.committed(20, 11)
        assert source.said == []
        feed.committed(20, 12)
        feed.committed(20, 13)
        assert source.said == ["forward_losing"]
        feed.note(20, None)
        await settled()
        feed.committed(40, 30)
        assert source.said == ["forward_losing"] * 2

    running(use, head=10)


def test_a_snapshot_says_how_the_relay_is():
    """The other thread should get what viewers are told, too."""

    async def use(feed, source, clock):
        now = await asyncio.wrap_future(feed.snapshot())
        assert (now.head, now.head_id, now.trouble, now.bots) == (10, "aaaaaa-10", None, ({"app": "bot"},))

    running(use, head=10)
