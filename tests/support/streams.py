"""A `Stream` without an engine, and a `ViewerSocket` without a network: what was asked of them is written down."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

from logrelay.errors import JournalError
from logrelay.fanout.positions import Epoch, Epochs
from logrelay.journal.interface import Page


@dataclass
class FakeStream:
    """Ten lines are in the journal, `bodies[seq - 1]` each; 1 to `oldest - 1` are no longer kept."""

    epoch: str = "k3f9ab"
    earlier: tuple = ()
    """An epoch before it, whose lines end before `first`."""
    first: int = 1
    head: int = 10
    committed: int = 10
    oldest: int = 1
    trouble: str | None = None
    pending_lines: int = 0
    viewer_count: int = 0
    journal_bytes: int = 4096
    damaged_lines: int = 0
    edges: list | None = None
    calls: list = field(default_factory=list)
    queries: list = field(default_factory=list)
    position: int | None = 10
    """Where viewers stand."""
    kept: dict = field(default_factory=dict)
    """What is to be remembered of devices, by number."""
    unreadable: bool = False
    looked_at: int = 1000
    """Lines one read looks at."""
    bodies: list = field(default_factory=lambda: [b'{"n":%d}' % n for n in range(1, 11)])

    def join(self, sink, wanted, form, *, deflate=False):
        self.calls.append(("join", wanted, form, deflate))
        return SimpleNamespace(sink=sink, filter=wanted, skip=None)

    def start_after(self, viewer, seq, gap=None):
        self.calls.append(("start_after", seq, gap))

    def start_tail(self, viewer, lines, behind=None):
        self.calls.append(("start_tail", lines) if behind is None else ("start_tail", lines, behind))

    def received(self, viewer):
        return self.position

    def keep_device(self, number, owner, name, seq, *, connected, sure=0):
        self.kept[number] = (owner, name, seq(), connected)

    def change(self, viewer, wanted):
        viewer.filter = wanted
        self.calls.append(("change", wanted))

    def resubscribe(self, viewer, wanted):
        viewer.filter = wanted
        self.calls.append(("resubscribe", wanted))

    def leave(self, viewer):
        self.calls.append(("leave",))

    def drained(self, viewer):
        self.calls.append(("drained",))

    def id_of(self, seq):
        return f"{self.epoch}-{seq}"

    @property
    def epochs(self):
        return Epochs([Epoch(name, 1) for name in self.earlier], self.epoch, self.first)

    def resolve(self, id_):
        return self.epochs.resolve(id_, aliases=(), head=self.head, head_id=self.id_of(self.head))

    def render_gap(self, gap):
        return json.dumps({"gap": [gap.cause, gap.epoch, gap.first, gap.last, gap.count]}).encode()

    def traders_shown(self):
        return [{"app": "bot"}]

    def edges_shown(self):
        return self.edges

    async def read(self, query):
        self.queries.append(query)
        if self.unreadable:
            raise JournalError("the disk does not answer")
        low = max(query.after + 1, self.oldest, query.until - self.looked_at + 1)
        seqs = list(range(low, query.until + 1))[-query.limit :]
        reached = (seqs[0] if seqs else low) - 1
        complete = reached <= max(query.after, self.oldest - 1)
        return Page([self.bodies[seq - 1] for seq in seqs], seqs, reached, complete, self.oldest)

    def counters(self):
        return {"lines_total": self.committed}

    def app_samples(self):
        return {"trader_up": [({"app": "bot"}, 1)]}


class FakeSocket:
    """Takes messages; `writing_paused` is the test's to set."""

    def __init__(self):
        self.sent = []
        self.closed = None
        self.writing_paused = False
        self.pause_after_send = False

    def write(self, payload):
        raise AssertionError("only the hub writes frames")

    def send(self, text):
        self.sent.append(json.loads(text))
        self.writing_paused = self.writing_paused or self.pause_after_send

    def close(self, code, reason):
        self.closed = (code, reason)
