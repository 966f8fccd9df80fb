"""What batches share and remember is bounded, however many different names, sizes and wishes come."""

from __future__ import annotations

from logrelay.fanout import batch as module
from logrelay.fanout.batch import Batch
from logrelay.fanout.filters import Filter
from logrelay.fanout.line_json import log_line
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
