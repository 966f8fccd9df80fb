"""The outbox against a model of the relay: whatever happens in whatever order, the sums and the wire are right.

A `World` has an outbox, a relay that reads what was sent and commits it, and a connection between them that takes as
many bytes as it likes and may end at any moment. After every step the outbox is looked at as a whole (`check`), and in
the end the relay has every line once and in order, or was told of its loss.
"""

import os
import random
from collections import Counter

import msgpack
import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay.outbox import FRAME_OVERHEAD, GAP_COST, Outbox

fcntl = pytest.importorskip("fcntl")
MARK = 51
LEVELS = ("debug", "info", "info", "info", "warning", "error", "critical")
STEPS = 90


@pytest.fixture(scope="module")
def marked():
    """A descriptor with the mark that the outbox looks for before it sends."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETSIG, MARK)
    yield write
    os.close(read)
    os.close(write)


class World:
    """An outbox, a connection and a relay."""

    def __init__(self, seed, fd, limit):
        self.random = random.Random(seed)
        self.fd = fd
        self.out = Outbox(limit, on_blocked=self.blocked)
        self.blocks = 0
        self.logged = 0
        self.rejected = 0
        self.late_welcomes = False
        self.welcome_says = None
        """What the relay has answered to hello, until the outbox hears of it."""
        # the relay
        self.unpacker = msgpack.Unpacker()
        self.last = 0
        self.lines = {}
        self.told = Counter()
        # the connection
        self.room = None
        self.out.to_write = b""

    def blocked(self):
        self.blocks += 1

    # --- the connection and the relay

    def take(self, data, _flags=0):
        """Be the kernel: take all, some or none."""
        size = self.random.choice([len(data), len(data), len(data), len(data) // 2, 1, 0])
        size = min(size, len(data))
        self.read(data[:size])
        if not size:
            raise BlockingIOError
        return size

    def read(self, data):
        """Be the relay: a line is taken once and in order, and nothing is left out."""
        self.unpacker.feed(data)
        for frame in self.unpacker:
            if frame[0] == 1:
                _, seq, time_ns, level, event = frame
                if seq > self.last:
                    assert seq == self.last + 1, "a hole"
                    assert level in LEVELS
                    self.last = seq
                    self.lines[seq] = (time_ns, event["n"])
            elif frame[0] == 2:
                _, first, last, count, cause = frame
                assert count == last - first + 1 > 0
                assert first <= self.last + 1, "a hole"
                if last > self.last:
                    self.told[cause] += last - self.last
                    self.last = last

    # --- steps

    def body(self):
        self.logged += 1
        return msgpack.packb({"n": self.logged, "text": "x" * self.random.choice([0, 0, 5, 60, 300])})

    def log(self):
        """Log a line as the processor does when it may not send itself."""
        word = self.random.choice(LEVELS)
        if self.out.direct_send is not None:
            return self.log_contended()
        return self.out.queue(self.logged, frames.LEVELS[word], self.body())

    def log_contended(self):
        for _ in range(self.random.randint(1, 3)):
            body = self.body()
            self.out.inbox_bytes += len(body)
            self.out.inbox.append((self.logged, frames.LEVELS[self.random.choice(LEVELS)], body))
        self.out.combine()
        assert not self.out.inbox
        assert self.out.inbox_bytes == 0

    def lose_without_place(self):
        self.out.overrun += self.random.randint(0, 2)
        self.out.unencoded += self.random.randint(0, 2)
        self.out.combine()
        assert (self.out.overrun, self.out.unencoded) == (0, 0)

    def send(self):
        """Do what the sender does in a turn."""
        out = self.out
        if out.direct_send is not None:
            return
        if not out.to_write:
            out.fill(self.random.choice([1, 2, 5, 50]))
        if out.to_write:
            try:
                out.written(self.take(out.to_write))
            except BlockingIOError:
                return
        elif not out.unsent():
            out.start_direct(self.take, self.fd, MARK)

    def stop(self):
        self.out.stop_direct()

    def ack(self):
        """Ack something that the relay has read, new or old. The welcome comes first."""
        self.welcome()
        while self.out.release(self.random.randint(max(0, self.last - 5), self.last)):
            pass

    def ack_what_was_not_sent(self):
        out = self.out
        before, acked = out.bad_answers, out.acked
        top = out.seq if out.direct_send is not None else out.sent_seq
        assert out.release(top + 1) is False
        assert (out.bad_answers, out.acked) == (before + 1, acked)

    def reject(self):
        self.welcome()
        seq = self.random.randint(1, max(1, self.last))
        if self.out.reject(seq, "rejected", "rejected_repeatedly"):
            self.rejected += 1

    def reconnect(self):
        """End the connection, with or without a welcome on it, and say hello on the next one."""
        out = self.out
        if self.random.random() < 0.5:
            self.ack()
        out.break_connection()
        out.connection_lost()
        assert (out.direct_send, out.direct_fd, out.direct_mark, out.broken, out.to_write) == (None, -1, -1, False, b"")
        self.unpacker = msgpack.Unpacker()
        for _ in range(self.random.randint(0, 2)):
            self.log()
            self.check()
        if self.random.random() < 0.3:
            out.dirty = True
            out.repair()
            assert (out.broken, out.dirty, out.direct_send) == (True, False, None)
            self.check()
            out.connection_lost()
        late = self.late_welcomes and self.random.random() < 0.5
        out.reconnected()
        self.welcome_says = self.last if not late else out.acked_seq
        assert not out.outstanding()

    def welcome(self):
        """Hear the relay's welcome, if it is still to come."""
        out = self.out
        if self.welcome_says is not None:
            while out.release(max(self.welcome_says, out.acked_seq)):
                pass
            out.welcomed()
            self.welcome_says = None
            assert out.doubtful_seq == 0
            self.check()

    # --- what always holds

    def check(self):
        out = self.out
        queues = (out.sent_low, out.sent_high, out.unsent_low, out.unsent_high)
        gaps = (out.sent_gaps, out.unreported_gaps)
        assert out.produced() == out.acked + out.pending() + sum(out.dropped.values()), "the sums"
        size = sum(len(frame) + FRAME_OVERHEAD for queue in queues for frame in queue)
        assert out.charged_bytes == size + GAP_COST * sum(map(len, gaps)), "the charge"
        assert out.charged_bytes <= out.limit or not any(queues), "the bound"
        seqs = []
        for queue in queues:
            here = [frames.seq_of(frame) for frame in queue]
            assert here == sorted(here)
            seqs += here
        for at, queue in enumerate(queues):
            assert all((frame[20 + 1 : 20 + 2] in (b"w", b"e", b"c")) == bool(at % 2) for frame in queue), "by level"
        for spans in gaps:
            for one, other in zip(spans, list(spans)[1:], strict=False):
                assert one.last < other.first
                alike = (one.cause, one.lost, one.told) == (other.cause, other.lost, other.told)
                assert not (alike and one.last + 1 == other.first) or spans is out.sent_gaps, "neighbours are joined"
            for gap in spans:
                seqs += range(gap.first, gap.last + 1)
        assert all(gap.lost for gap in out.unreported_gaps) or self.welcome_says is not None
        seqs.sort()
        assert len(seqs) == len(set(seqs)), "in one place only"
        if seqs:
            assert seqs[0] == out.first_unacked()
        else:
            assert out.first_unacked() == out.seq + 1
        sent = [frames.seq_of(queue[-1]) for queue in queues[:2] if queue]
        unsent = [frames.seq_of(queue[0]) for queue in queues[2:] if queue]
        assert not sent or not unsent or max(sent) < min(unsent), "in order"
        assert out.outstanding() == bool(sent or out.sent_gaps)
        assert out.unsent() == bool(unsent or out.unreported_gaps or out.to_write)
        oldest = [frames.time_of(queue[0]) for queue in queues if queue]
        assert out.oldest_ns() == min(oldest, default=None)

    def drain(self):
        """Send and ack everything, over a connection that takes it all."""
        out = self.out
        self.reconnect()
        self.welcome()
        self.random = random.Random(0)
        for _ in range(1_000):
            if not out.unsent():
                break
            if not out.to_write:
                out.fill(100)
            self.read(out.to_write)
            out.written(len(out.to_write))
            self.check()
        assert out.release(self.last) is False
        self.check()


@pytest.mark.parametrize("limit", [900, 2_500, 1 << 20])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_nothing_is_lost_without_being_told(marked, seed, limit):
    """In the end the relay has each line once, in order, or was told of its loss; both sides count the same."""
    world = World(seed, marked, limit)
    # A relay that has read more than its welcome says is told of losses that are none: there the sums differ.
    world.late_welcomes = seed % 3 == 2
    steps = [world.log] * 6 + [world.send] * 6 + [world.ack] * 2 + [world.log_contended, world.stop, world.reconnect]
    steps += [world.welcome]
    steps += [world.lose_without_place, world.ack_what_was_not_sent]
    if seed % 3 == 1:
        steps.append(world.reject)
    world.check()
    for _ in range(STEPS):
        world.random.choice(steps)()
        world.check()
    world.drain()
    out = world.out
    assert out.pending() == 0
    assert out.charged_bytes == 0
    assert out.seq == world.last
    numbers = [number for _, number in world.lines.values()]
    assert len(set(numbers)) == len(numbers)
    times = [time_ns for time_ns, _ in world.lines.values()]
    assert len(times) == len(numbers)
    if not seed % 3:
        assert out.acked == len(world.lines)
        assert sum(out.dropped.values()) == sum(world.told.values())
        if limit > 900:  # the least of memories joins gaps of different causes
            assert {cause: count for cause, count in out.dropped.items() if count} == dict(world.told)
    assert out.dropped["rejected"] == world.rejected
    assert out.acked + sum(out.dropped.values()) == out.seq
