"""What batches share and remember is bounded, however many different names, sizes and wishes come."""

from __future__ import annotations

import tracemalloc

import orjson

from logrelay.fanout import batch as module
from logrelay.fanout.batch import Batch
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub import RECENT_LINES, Hub
from logrelay.fanout.line_json import gap_body, log_line, notice_line
from logrelay.model import INFO


def lines(first, count, **fields):
    return [
        log_line("k3f9ab", seq, 1, f"bot.order_{seq}", seq, INFO, {"event": "e", **fields})[0]
        for seq in range(first, first + count)
    ]


def test_keys_that_lines_share_are_bounded():
    """A bot that names its loggers after its orders must not fill the relay's memory."""
    for number in range(30):
        batch = Batch(lines(1 + number * 500, 500))
        assert {key[1] for key in batch.keys} == {line.source for line in batch.lines}
        assert len(module._keys) <= module.MAX_KEYS + 500


def test_lines_of_one_logger_and_level_share_their_key():
    """That is what the keys are remembered for."""
    one, two = (Batch([log_line("k3f9ab", seq, 1, "bot", seq, INFO, {"event": "e"})[0]]) for seq in (1, 2))
    assert one.keys[0] is two.keys[0]


def test_headers_of_frames_are_bounded():
    """Every size has its right header, remembered or not."""
    for size in range(2 * module.MAX_HEADERS):
        payload = b"x" * size
        frame = module.frame(payload)
        assert frame.endswith(payload)
        header = frame[: len(frame) - size]
        if size < 126:
            assert header == bytes([0x81, size])
        else:
            assert header == bytes([0x81, 126, size >> 8, size & 255])
    assert len(module._header) <= module.MAX_HEADERS


def test_selections_and_columns_of_a_batch_are_bounded():
    """One viewer that changes its wishes all the time does not fill the memory of an idle relay."""
    batch = Batch(lines(1, 600))
    for number in range(600):
        wanted = Filter(sources=(f"bot.order_{number + 1}",))
        assert [s.last for s in batch.segments(wanted, "single")] == [number + 1]
        batch.segments(Filter(where=((f"field{number}", "x"),)), "single")
    assert len(batch._cache) <= module.MAX_SHARED
    assert len(batch._columns) <= module.MAX_SHARED


def held_by(make):
    """Return the bytes that what `make` returns takes, together with it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        return tracemalloc.get_traced_memory()[0] - before, made
    finally:
        tracemalloc.stop()


def test_a_line_takes_the_memory_of_its_bytes():
    """Some versions of orjson return bytes that keep 4 KiB whatever they hold: budgets count what is in them."""
    held, made = held_by(lambda: [one.body for one in lines(1, 1000)])
    assert held < 2 * sum(map(len, made))
    held, made = held_by(lambda: [notice_line("k3f9ab", n, n, INFO, "relay", "m", {})[0].body for n in range(1000)])
    assert held < 2 * sum(map(len, made))
    held, made = held_by(
        lambda: [gap_body("k3f9ab-1", 1, "k3f9ab", cause="lag", first=1, last=2, count=2) for _ in range(1000)]
    )
    assert held < 2 * sum(map(len, made))


def test_lines_that_come_one_by_one_take_little_more_than_their_bytes():
    """As a bot logs: each commit has one line. All that is remembered of them has a bound that can be believed."""

    class Reader:
        def write(self, payload):
            return True

    def follow():
        hub = Hub(head=0, oldest=1, max_lag=100_000, landing_lines=1000, render_gap=lambda _: b"")
        hub.start_tail(hub.join(Reader(), Filter(), "single"), 0)
        for seq in range(1, 4001):
            hub.publish(Batch(lines(seq, 1)))
            hub.commit(seq, 1)
        return hub

    held, hub = held_by(follow)
    assert hub._recent_lines == 4000 < RECENT_LINES
    assert held < 3 * hub._recent_bytes + 128 * 1024


def test_joined_batches_say_what_the_single_ones_said():
    """Bodies, places, selections and segments."""
    single = [Batch(lines(seq, 2)) for seq in range(1, 9, 2)]
    for one in single:
        one.compact()
    joined = Batch(lines(1, 2))
    joined.compact()
    joined.segments(Filter(), "single")
    joined.absorb(single[1:])
    assert (joined.first, joined.last, joined.count) == (1, 8, 8)
    assert joined.size == sum(one.size for one in single)
    assert [orjson.loads(body)["id"] for body in joined.bodies()] == [f"k3f9ab-{seq}" for seq in range(1, 9)]
    for wanted in (Filter(), Filter(sources=("bot.order_[36]",)), Filter(text="e")):
        for behind in (0, 1, 4, 7):
            expected = [
                (body, seq)
                for one in single
                for body, seq in zip(*one.chosen(wanted, behind), strict=True)
                if seq > behind
            ]
            assert list(zip(*joined.chosen(wanted, behind), strict=True)) == expected
            payload = b"".join(segment.payload for segment in joined.segments(wanted, "single", behind))
            assert payload == b"".join(module.frame(body) for body, _ in expected)
