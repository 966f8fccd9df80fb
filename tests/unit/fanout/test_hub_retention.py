"""What retention took from the journal is told as a gap, but not further than memory still has the lines."""

from __future__ import annotations

import json

import pytest

from logrelay.fanout.batch import Batch
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub import Hub
from logrelay.fanout.hub_types import Found, PageFetch
from logrelay.fanout.line_json import log_line
from logrelay.model import INFO


def batch(first, last):
    made = [log_line("k3f9ab", seq, 1, "app", seq, INFO, {"event": "e", "n": seq}) for seq in range(first, last + 1)]
    return Batch([line for line, _, _ in made], [message for _, message, _ in made], [context for *_, context in made])


class Socket:
    """Takes everything, and reads frames back."""

    def __init__(self):
        self.raw = b""

    def write(self, payload):
        self.raw += payload
        return True

    def messages(self):
        raw, at, out = self.raw, 0, []
        while at < len(raw):
            size, at = raw[at + 1], at + 2
            if size == 126:
                size, at = int.from_bytes(raw[at : at + 2], "big"), at + 2
            out.append(json.loads(raw[at : at + size]))
            at += size
        return out


@pytest.mark.parametrize("oldest", [5, 10, 11, 12, 15, 16, 21])
def test_a_gap_does_not_cover_what_memory_still_has(oldest):
    """The journal was pruned into the lines of memory while a page was read: those are sent from memory, whole."""
    gaps = []

    def render(gap):
        gaps.append(gap)
        return b'{"gap":%d}' % gap.last

    hub = Hub(
        head=10,
        oldest=1,
        max_lag=1000,
        landing_lines=10,
        render_gap=render,
    )
    hub.publish(batch(11, 15))
    hub.publish(batch(16, 20))
    socket = Socket()
    viewer = hub.join(socket, Filter(), "single")
    hub.start_after(viewer, 2)
    [fetch] = hub.take_requests()
    assert isinstance(fetch, PageFetch)
    assert (fetch.after, fetch.until) == (2, 10)
    kept = list(range(oldest, 11))
    bodies = list(batch(oldest, 10).bodies()) if kept else []
    hub.paged(fetch, Found(bodies, kept, 10, complete=True, oldest=oldest))
    assert not hub.take_requests(), "nobody reads the journal or compresses"
    assert [(gap.cause, gap.first, gap.last, gap.count) for gap in gaps] == [
        ("retention", 3, min(oldest - 1, 10), min(oldest - 1, 10) - 2)
    ]
    first, *rest = socket.messages()
    assert first == {"gap": min(oldest - 1, 10)}
    assert [message["context"]["n"] for message in rest] == list(range(min(oldest, 11), 21))
    assert viewer.group is not None, "it is at the head"
