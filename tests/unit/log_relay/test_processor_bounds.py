"""What the processor keeps is bounded, and what is over the bound goes by age and level, not by who came last."""

import pytest

from robo_trader.log_relay import processor as processor_module
from robo_trader.log_relay.processor import LogRelayProcessor


@pytest.fixture
def processor(monkeypatch):
    """A processor without a relay and without a thread: nothing leaves it."""
    monkeypatch.setattr(LogRelayProcessor, "_start", lambda self: None)
    processor = LogRelayProcessor("/nonexistent/socket", level="debug", max_bytes=processor_module.MIN_BYTES)
    yield processor
    processor._closed = True


def fill(processor):
    """Log DEBUG lines until old ones are dropped."""
    while not sum(processor.stats()["dropped"].values()):
        processor(None, "debug", {"event": "noise " * 100})


def test_an_error_beside_a_full_memory_pushes_out_an_old_debug_line(processor):
    """A line that comes while another thread has the baton is not lost for it: who has it drops an old DEBUG line."""
    fill(processor)
    out = processor._out
    before = processor.stats()["dropped"]["overflow"]
    del out.baton[0]  # another thread is at it
    for number in range(50):
        processor(None, "error", {"event": f"order {number} was rejected"})
    assert out.overrun == 0, "the newest line was given up while old DEBUG lines are kept"
    out.baton += (None,)
    out.admit_inbox()
    kept = list(out.unsent_high)
    assert len(kept) == 50
    assert b"order 49 was rejected" in kept[-1]
    stats = processor.stats()
    assert stats["dropped"]["overflow"] > before
    assert stats["buffered_bytes"] <= stats["max_bytes"]
    assert stats["produced"] == stats["pending"] + sum(stats["dropped"].values())


def test_what_waits_for_the_baton_is_bounded_too(processor):
    """When the baton does not come back, the newest lines are counted as dropped instead of being kept."""
    fill(processor)
    out = processor._out
    del out.baton[0]
    for _ in range(4_000):
        processor(None, "error", {"event": "e" * 1_000})
    assert out.inbox_bytes <= processor_module.INBOX_BYTES
    assert out.overrun > 0
    produced = processor.stats()["produced"]
    out.baton += (None,)
    out.admit_inbox()
    stats = processor.stats()
    assert (out.overrun, out.inbox_bytes, len(out.inbox)) == (0, 0, 0)
    assert stats["produced"] == produced == stats["pending"] + sum(stats["dropped"].values())


def test_keys_and_logger_names_that_are_remembered_are_bounded(processor):
    """A key or a logger name made of an order id must not become memory that is never given back."""
    for number in range(20_000):
        processor(None, "info", {"event": "e", f"order_{number}": 1})
        processor(None, "info", {"event": "e", "logger": f"bot.order_{number}"})
    for name, value in vars(processor).items():
        if isinstance(value, dict | set) and name != "_settings":
            assert len(value) <= 10_000, name
    assert processor.stats()["produced"] == 40_000
