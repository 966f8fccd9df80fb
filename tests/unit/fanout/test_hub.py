"""The hub against a model: whatever happens in whatever order, a viewer gets exactly the lines it asked for.

A `World` plays everything around the hub (traders, journal, sockets, the compressor) and interprets a list of small
operations, valid in any state. A `Watcher` is a viewer's socket and, beside it, the model of what this viewer is owed.
After every single operation each watcher checks what it was sent, and that the hub's cursor claims no more than that.

`LOGRELAY_HUB_WALKS=5000` walks further than the default.
"""

from __future__ import annotations

import json
import os
import random
import zlib
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logrelay.fanout import batch as batch_module
from logrelay.fanout import compression
from logrelay.fanout import filters as filters_module
from logrelay.fanout import hub as hub_module
from logrelay.fanout.batch import Batch
from logrelay.fanout.filters import Filter, most_notices
from logrelay.fanout.hub import Hub, skip_filter
from logrelay.fanout.hub_types import CompressFetch, Found, Gap, LevelsFetch, Pack, PageFetch, StartFetch
from logrelay.fanout.line_json import log_line, notice_line
from logrelay.journal import memory as memory_module
from logrelay.journal import retention as retention_module
from logrelay.journal.interface import Query
from logrelay.journal.memory import MemoryJournal
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, RELAY_RUN, WARNING, Commit

WALKS = int(os.environ.get("LOGRELAY_HUB_WALKS", "300"))
STEPS = 220
EPOCH = "k3f9ab"
LEVELS = (DEBUG, INFO, INFO, INFO, WARNING, INFO, ERROR, CRITICAL)
FILTERS = (
    Filter(),
    Filter(),
    Filter(level=INFO),
    Filter(level=WARNING),
    Filter(sources=("a.*",)),
    Filter(text="hit"),
    Filter(where=(("sym", "X"),)),
    Filter(level=ERROR, sources=("b.*", "c")),
    Filter(text="nothing says this"),
    Filter(text="said by"),
    Filter(level=WARNING, notices="all"),
    Filter(notices="no"),
)


@pytest.fixture(autouse=True)
def _small_numbers(monkeypatch):
    """Shrink every bound, so that a few dozen lines reach all of them."""
    for module, name, value in (
        (hub_module, "RECENT_BYTES", 3000),
        (hub_module, "RECENT_LINES", 12),
        (hub_module, "SMALL_BATCH_LINES", 2),
        (hub_module, "JOINED_BATCHES", 2),
        (filters_module, "NOTICES_BESIDE", 2),
        (hub_module, "KEPT_WARNINGS", 4),
        (hub_module, "MIN_PAGE_BYTES", 400),
        (hub_module, "MAX_PAGE_BYTES", 1600),
        (hub_module, "PAGE_LINES", 5),
        (hub_module, "PACK_BYTES", 1500),
        (hub_module, "SMALL_BYTES", 300),
        (hub_module, "CONTENT_LINES", 4),
        (batch_module, "SEGMENT_BYTES", 500),
        (compression, "SEGMENT_BYTES", 200),
        (memory_module, "BLOCK_LINES", 3),
        (retention_module, "BLOCK_LINES", 3),
        (retention_module, "FIRST_ROWS", 3),
        (retention_module, "FEWEST_ROWS", 3),
        (retention_module, "MOST_ROWS", 3),
    ):
        monkeypatch.setattr(module, name, value)


# --- journals -----------------------------------------------------------------------------------------------


class ListJournal:
    """The plainest journal that keeps the promises of `Journal`."""

    def __init__(self):
        self.lines = []
        self.oldest = 1

    def append(self, lines):
        self.lines += lines

    def prune(self, count):
        self.oldest = min(self.oldest + count, len(self.lines) + 1)

    def page(self, fetch, patience):
        """Answer a Fetch, giving up after looking at `patience` lines."""
        low, high = max(fetch.after, self.oldest - 1), min(fetch.until, len(self.lines))
        newest = isinstance(fetch, StartFetch)
        order = range(high, low, -1) if newest else range(low + 1, high + 1)
        bodies, seqs, size = [], [], 0
        beside, notices_from = 0, 0
        reached, complete = (fetch.after if newest else max(fetch.after, high)), True
        for looked, seq in enumerate(order):
            line = self.lines[seq - 1]
            wanted = fetch.filter.matches(line)
            too_much = wanted and bodies and size + len(line.body) > fetch.max_bytes
            if looked > patience or len(bodies) - beside >= fetch.limit or too_much:
                reached, complete = (seq if newest else seq - 1), False
                break
            if wanted and not counts(fetch.filter, line):
                if newest and fetch.notices is not None and beside == fetch.notices:
                    notices_from = notices_from or seq + 1
                    continue
                beside += 1
            if wanted:
                bodies.append(line.body)
                seqs.append(seq)
                size += len(line.body)
        if newest:
            bodies.reverse()
            seqs.reverse()
        return Found(bodies, seqs, reached, complete, self.oldest, beside=beside, notices_from=notices_from)

    def levels(self, first, last):
        stretch = self.lines[max(first, self.oldest) - 1 : last]
        return dict(Counter(line.level for line in stretch))

    def close(self):
        pass


class RealJournal:
    """A journal of the product, and a clock that `prune` moves on."""

    def __init__(self, make):
        self.now_us = 1_700_000_000_000_000
        self._real = make(lambda: self.now_us)
        self.oldest = self._real.open().oldest

    def append(self, lines):
        self._real.append(Commit([line._replace(message="", context={}) for line in lines]))
        self.oldest = self._real.prune()

    def prune(self, count):
        self.now_us += count * 2_000_000
        for _ in range(count):
            if self._real.due() > 0:
                break
            self.oldest = self._real.prune()

    def page(self, fetch, patience):
        page = self._real.page(
            Query(
                after=fetch.after,
                until=fetch.until,
                limit=min(fetch.limit, patience + 1),
                filter=fetch.filter,
                newest=isinstance(fetch, StartFetch),
                max_bytes=fetch.max_bytes,
                notices=fetch.notices if isinstance(fetch, StartFetch) else None,
            )
        )
        return Found(
            page.bodies,
            page.seqs,
            page.reached,
            page.complete,
            page.oldest,
            beside=page.beside,
            notices_from=page.notices_from,
        )

    def levels(self, first, last):
        return self._real.levels(first, last)

    def close(self):
        self._real.close()


def counts(wanted, line):
    """Tell whether a line that passes counts toward a tail."""
    return line.run != RELAY_RUN or wanted.notice_counts(line.level, line.message, line.context)


# --- the world ----------------------------------------------------------------------------------------------


class Watcher:
    """A viewer's socket, which takes some bytes and then is full, and the model of what the viewer is owed."""

    def __init__(self, world, form, deflate, room):
        self.world = world
        self.room = room
        self.full = False
        self.raw = bytearray()
        self.inflater = zlib.decompressobj(-15)
        self.form = form
        self.deflate = deflate
        self.filter = Filter()
        self.viewer = None
        self.pos = 0
        """Every line up to here was received, not wanted, explained by a notice, or is in `missing`."""
        self.missing = []
        self.got = []
        self.starting = False
        self.owed_epoch = False
        self.lines = 0
        self.gaps = []

    def write(self, payload):
        assert not self.full, "the hub wrote to a full socket"
        assert payload, "the hub wrote nothing"
        self.raw += payload
        self.room -= len(payload)
        self.full = self.room <= 0
        return not self.full

    def messages(self):
        """Decode what has come (RFC 6455 frames, RFC 7692 compression): whole frames, or it is an error."""
        raw, at, out = bytes(self.raw), 0, []
        self.raw.clear()
        while at < len(raw):
            first, size = raw[at], raw[at + 1]
            at += 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size = int.from_bytes(raw[at : at + width], "big")
                at += width
            payload = raw[at : at + size]
            assert len(payload) == size, "half a frame"
            at += size
            if first == 0xC1:
                assert self.deflate, "a compressed frame for a viewer that cannot read it"
                payload = self.inflater.decompress(payload + b"\0\0\xff\xff")
            else:
                assert first == 0x81
            value = json.loads(payload)
            if self.form == "batch" and type(value) is list:
                assert value, "an empty array"
                out += value
            else:
                out.append(value)
        return out

    # what the viewer is owed

    def restart(self, pos, *, starting=False, owed_epoch=False):
        self.pos = pos
        self.notices_from = 0
        self.missing = []
        self.got = []
        self.starting = starting
        self.owed_epoch = owed_epoch

    def advance(self, to):
        truth = self.world.truth
        for seq in range(self.pos + 1, to + 1):
            wanted = self.filter.without_notices() if seq < self.notices_from else self.filter
            if wanted.matches(truth[seq - 1]) and not (self.starting and seq < self.world.journal.oldest):
                self.missing.append(seq)
        self.pos = max(self.pos, to)

    def check(self):
        for shape in self.messages():
            assert self.viewer is not None
            if "gap" in shape:
                self.told(self.world.gaps[shape["gap"]])
            else:
                self.received(shape)
        viewer, hub = self.viewer, self.world.hub
        if viewer.start_left:
            assert not self.got, "lines before the start was found"
            return
        position = hub.position(viewer)
        assert position >= self.pos, f"cursor {position} behind the line {self.pos} that was sent"
        self.advance(position)
        if viewer.skip is None:
            assert not self.missing, f"lines {self.missing} were passed over"
        self.starting = False
        if viewer.group is not None:
            assert not viewer.stalled
            assert not viewer.fetching
            if not viewer.group.packs:
                assert self.pos == hub.head
            assert not self.owed_epoch, "the lost epoch was never told"

    def received(self, shape):
        world = self.world
        epoch, _, text = shape["id"].rpartition("-")
        seq = int(text)
        line = world.truth[seq - 1]
        if epoch == EPOCH:
            assert seq <= world.committed, "an uncommitted line under the journal's own epoch"
        else:
            assert world.alias_of.get(seq) == epoch
        assert {**shape, "id": f"{EPOCH}-{seq}"} == json.loads(line.body)
        assert self.filter.matches(line), f"line {seq} was not wanted"
        assert not self.owed_epoch, "a line before the notice about the epoch"
        assert seq > self.pos, f"line {seq} repeated or out of order, behind {self.pos}"
        self.advance(seq - 1)
        self.pos = seq
        self.got.append(seq)
        self.lines += 1
        assert not self.missing or self.kept_anyway(line), f"lines {self.missing} lost before {seq}"

    @staticmethod
    def kept_anyway(line):
        return line.level >= WARNING or line.run == RELAY_RUN

    def told(self, gap):
        world, truth = self.world, self.world.truth
        self.gaps.append(gap)
        if gap.cause == "epoch":
            assert self.owed_epoch
            self.owed_epoch = False
            assert gap.count == 0
            self.pos = max(self.pos, gap.last)
            return
        assert not self.owed_epoch
        if gap.cause == "notices":
            assert not self.got, "said behind a line"
            assert self.pos < gap.first <= gap.last < world.hub.head
            beside = [line.seq for line in truth if self.filter.matches(line) and not counts(self.filter, line)]
            assert any(gap.first <= seq <= gap.last for seq in beside), "no notice was left out"
            assert sum(seq > gap.last for seq in beside) >= most_notices(self.filter, self.asked_tail), "too many"
            self.notices_from = gap.last + 1
            return
        if gap.cause == "retention":
            assert gap.count == gap.last - gap.first + 1 > 0
            assert gap.levels is None
            assert gap.kept == 0
            assert gap.first > self.pos
            assert gap.last < world.journal.oldest, "told to be gone, but it is kept"
            self.advance(gap.first - 1)
            assert not self.missing, f"lines {self.missing} lost before a gap"
            self.pos = gap.last
            return
        assert gap.cause == "lag"
        assert self.pos <= gap.last
        kept = [seq for seq in self.got if seq >= gap.first]
        assert len(kept) == gap.kept
        assert sum(truth[seq - 1].run != RELAY_RUN for seq in kept) <= hub_module.KEPT_WARNINGS
        assert all(self.kept_anyway(truth[seq - 1]) for seq in kept)
        assert gap.count == gap.last - gap.first + 1 - gap.kept > 0
        if self.filter.level >= WARNING and not self.excused and world.journal.oldest <= gap.first:
            assert gap.kept >= hub_module.KEPT_WARNINGS, "told of a gap without having missed anything"
        assert not any(seq < gap.first for seq in self.missing), "the gap begins too late"
        asked, oldest, levels = world.levels_told[self.viewer, gap.last]
        assert asked == gap.first
        assert gap.levels == levels
        if oldest <= gap.first:
            assert sum(levels.values()) == gap.last - gap.first + 1
        self.advance(gap.last)
        for seq in self.missing:
            if skip_filter(self.filter).matches(truth[seq - 1]):
                beyond = gap.kept >= hub_module.KEPT_WARNINGS and seq > kept[-1]
                assert beyond or seq < world.journal.oldest or seq in self.excused, f"warning {seq} not sent"
        self.missing = []

    excused = frozenset()


class World:
    """Everything around the hub."""

    def __init__(self, journal, *, max_lag=30, landing=8):
        self.journal = journal
        self.max_lag, self.landing = max_lag, landing
        self.truth = []
        self.committed = 0
        self.alias = None
        self.aliases = 0
        self.alias_of = {}
        self.pending = []
        self.asked = []
        self.packs = []
        self.gaps = []
        self.levels_told = {}
        self.watchers = []
        self.gone = []
        self.hub = Hub(head=0, oldest=1, max_lag=max_lag, landing_lines=landing, render_gap=self.render)

    def call(self, method, *args):
        """Call a method of the hub, then take its requests, as the pipeline does."""
        method(*args)
        for request in self.hub.take_requests():
            if isinstance(request, Pack):
                self.packs.append(request)
            else:
                self.ask(request)
        assert not self.hub.take_requests(), "requests were handed out twice"

    def ask(self, fetch):
        viewer = fetch.viewer
        assert viewer in self.hub.viewers
        assert fetch.generation == viewer.generation
        if not isinstance(fetch, CompressFetch):
            until = fetch.last if isinstance(fetch, LevelsFetch) else fetch.until
            assert until <= self.hub.committed <= self.committed, "the journal was asked for what it cannot have"
        waiting = [f for f, _ in self.asked if f.viewer is viewer and f.generation == viewer.generation]
        assert not waiting, "a second question before the first was answered"
        if isinstance(fetch, LevelsFetch):
            assert self.hub.head - fetch.first + 1 > self.max_lag
            assert fetch.last == min(self.hub.head - self.landing, self.hub.committed)
        self.asked.append([fetch, None])

    def render(self, gap: Gap):
        self.gaps.append(gap)
        return b'{"gap":%d}' % (len(self.gaps) - 1)

    # operations: three small numbers each, meaningful in every state

    def append(self, a, b, c):
        count = 1 + a % (30 if a > 250 else 6)
        lines, messages, contexts = [], [], []
        for i in range(count):
            seq = len(self.truth) + 1
            number = b * 7 + c * 13 + i * 5
            if number % 9 == 0:
                rank, kind = ((INFO, "trader"), (WARNING, "relay"), (WARNING, "gap"))[seq % 3]
                made = notice_line(EPOCH, seq, seq, rank, kind, "said by the relay", {"n": number})
            else:
                event = {
                    "event": "a hit" if number % 3 == 0 else "a miss",
                    "logger": ("a.one", "a.two", "b.one", "c")[number % 4],
                    "sym": "XYZ"[number % 3 :][:1],
                    "pad": "p" * ((0, 0, 40, 700)[number % 4 if number % 11 == 0 else 0] + c % 60),
                }
                made = log_line(EPOCH, seq, 1, "app", seq, LEVELS[number % len(LEVELS)], event)
            line, message, context = made
            lines.append(line)
            messages.append(message)
            contexts.append(context)
            self.truth.append(line._replace(message=message, context=context))
        batch = Batch(lines, messages, contexts)
        self.pending.append(batch)
        if self.alias:
            self.publish_provisional(batch)

    def publish_provisional(self, batch):
        for seq in range(batch.first, batch.last + 1):
            self.alias_of[seq] = self.alias
        batch.provisional(EPOCH, self.alias)
        self.call(self.hub.publish, batch)

    def commit(self, a, b, c):
        done = self.pending[: 1 + a % 3]
        if not done:
            return
        del self.pending[: len(done)]
        self.journal.append([self.truth[seq - 1] for batch in done for seq in range(batch.first, batch.last + 1)])
        self.committed = done[-1].last
        fresh = [batch for batch in done if batch.alias is None]
        if fresh:
            self.call(self.hub.publish, fresh[0] if len(fresh) == 1 else Batch.merge(fresh))
        self.call(self.hub.commit, self.committed, self.journal.oldest)
        if self.alias and not self.pending:
            self.alias = None
            self.call(self.hub.retry)

    def write(self, a, b, c):
        """Append and commit: what nearly every tick is."""
        self.append(a, b, c)
        if not self.alias:
            self.commit(2, 0, 0)

    def trouble(self, a, b, c):
        if self.alias is None and a % 4 == 0:
            self.aliases += 1
            self.alias = f"{EPOCH}.t{self.aliases}"
            for batch in self.pending:
                self.publish_provisional(batch)

    def recover(self, a, b, c):
        while self.alias:
            if not self.pending:
                self.append(0, b, c)
            self.commit(0, 0, 0)

    def prune(self, a, b, c):
        self.journal.prune(a % (40 if a > 240 else 8))
        if b % 2:
            self.call(self.hub.commit, self.committed, self.journal.oldest)

    def join(self, a, b, c):
        if len(self.watchers) < 6:
            deflate = c % 3 == 0
            watcher = Watcher(self, ("single", "batch")[c // 3 % 2], deflate, 200 + b * 15)
            watcher.filter = FILTERS[a % len(FILTERS)]
            watcher.viewer = self.hub.join(watcher, watcher.filter, watcher.form, deflate=deflate)
            self.watchers.append(watcher)
            self.start(watcher, b, c)

    def start(self, watcher, b, c):
        """Begin with a tail, behind an id, or behind an id of another journal, as a viewer's session does."""
        hub = self.hub
        if b % 4 < 2:
            self.tail(watcher, (0, 1, 3, 8, 30, 1000)[c % 6])
        elif b % 4 == 2:
            seq = hub.head * c // 255
            watcher.restart(seq)
            self.call(hub.start_after, watcher.viewer, seq)
        else:
            oldest = hub.oldest
            watcher.restart(min(oldest - 1, hub.head), owed_epoch=True)
            gap = Gap("epoch", 0, oldest - 1, 0, None, detail="another journal")
            self.call(hub.start_after, watcher.viewer, oldest - 1, gap)

    def tail(self, watcher, count):
        watcher.restart(self.start_of_tail(watcher.filter, count), starting=True)
        watcher.asked_tail = count
        self.call(self.hub.start_tail, watcher.viewer, count)

    def start_of_tail(self, wanted, count):
        """Return the seq behind which the newest `count` lines are: notices among them do not count."""
        lines = self.truth[self.hub.oldest - 1 : self.hub.head]
        matching = [line.seq for line in lines if wanted.matches(line) and counts(wanted, line)]
        if count == 0:
            return self.hub.head
        return matching[-count] - 1 if len(matching) >= count else min(self.hub.oldest - 1, self.hub.head)

    def pick(self, n):
        return self.watchers[n % len(self.watchers)] if self.watchers else None

    def drain(self, a, b, c):
        watcher = self.pick(a)
        if watcher and (watcher.full or b % 8 == 0):
            watcher.full = False
            watcher.room = 100 + b * b // 8
            self.call(self.hub.drained, watcher.viewer)

    def read(self, a, b, c):
        """The journal reads a page; the answer is delivered later."""
        if self.asked:
            entry = self.asked[a % len(self.asked)]
            if entry[1] is None:
                entry[1] = self.answer(entry[0], b if b % 3 == 0 else 1000)

    def answer(self, fetch, patience):
        """Carry a fetch out as the pipeline does; returns the hub's method for the answer, and the answer."""
        match fetch:
            case LevelsFetch():
                levels = self.journal.levels(fetch.first, fetch.last)
                self.levels_told[fetch] = (fetch.first, self.journal.oldest, levels)
                return self.hub.levels_counted, levels
            case CompressFetch():
                return self.hub.compressed, fetch.compressed()
            case StartFetch():
                return self.hub.started, self.journal.page(fetch, patience)
            case PageFetch():
                found = self.journal.page(fetch, patience)
                if fetch.compress:
                    found.segments = fetch.compressed(found.bodies, found.seqs)
                return self.hub.paged, found

    def deliver(self, a, b, c):
        if self.asked:
            index = a % len(self.asked)
            if self.asked[index][1] is None:
                self.read(index, b, c)
            fetch, (method, answer) = self.asked.pop(index)
            if isinstance(fetch, LevelsFetch) and fetch.generation == fetch.viewer.generation:
                self.levels_told[fetch.viewer, fetch.last] = self.levels_told[fetch]
            self.call(method, fetch, answer)

    def fail(self, a, b, c):
        if self.asked and b % 2:
            fetch, _ = self.asked.pop(a % len(self.asked))
            self.call(self.hub.failed, fetch)

    def retry(self, a, b, c):
        self.call(self.hub.retry)

    def compress(self, a, b, c):
        if self.packs:
            pack = self.packs.pop(0)
            self.call(self.hub.packed, pack, pack.compressed())

    def resubscribe(self, a, b, c):
        watcher = self.pick(a)
        if watcher:
            wanted = FILTERS[b % len(FILTERS)]
            if watcher.viewer.start_left:
                # It stands nowhere yet: the tail it asked for is now one of the new filter.
                watcher.restart(self.start_of_tail(wanted, watcher.asked_tail), starting=True)
            else:
                # What was passed over while skipping was judged by the old filter.
                watcher.excused = watcher.excused | {s for s in range(1, watcher.pos + 1) if s not in watcher.missing}
            watcher.filter = wanted
            self.call(self.hub.resubscribe, watcher.viewer, wanted)

    def again(self, a, b, c):
        """Subscribe anew with a tail or an id, and perhaps another filter."""
        watcher = self.pick(a)
        if watcher:
            if a % 3:
                watcher.filter = FILTERS[b % len(FILTERS)]
                self.call(self.hub.change, watcher.viewer, watcher.filter)
            self.start(watcher, b, c)

    def leave(self, a, b, c):
        watcher = self.pick(a)
        if watcher and b % 2:
            self.call(self.hub.leave, watcher.viewer)
            self.watchers.remove(watcher)
            self.gone.append(watcher)

    TABLE = (
        *("write",) * 9,
        "append",
        "commit",
        "trouble",
        "recover",
        "prune",
        "prune",
        "join",
        "join",
        *("drain",) * 5,
        "read",
        "read",
        *("deliver",) * 6,
        "fail",
        "retry",
        "compress",
        "compress",
        "compress",
        "resubscribe",
        "again",
        "leave",
    )

    def do(self, step):
        op, a, b, c = step
        getattr(self, self.TABLE[op % len(self.TABLE)])(a, b, c)
        self.check()

    def check(self):
        for watcher in self.watchers:
            watcher.check()
        for watcher in self.gone:
            assert not watcher.raw, "a viewer that left was sent something"
        self.bounds()

    def bounds(self):
        hub = self.hub
        tail = list(hub._recent)
        assert hub._recent_bytes == sum(batch.size for batch in tail)
        assert hub._recent_lines == sum(batch.count for batch in tail)
        if len(tail) > 1 and tail[0].last <= hub.committed:
            assert hub._recent_bytes <= hub_module.RECENT_BYTES
            assert hub._recent_lines <= hub_module.RECENT_LINES
        live = Counter()
        for key, group in hub._groups.items():
            assert group.live, "an empty group was kept"
            assert key == (group.filter, group.form, group.deflate)
            biggest = max((pack.size for pack in self.packs if pack.group is group), default=0)
            assert group.packs_bytes <= max(hub_module.PACK_BYTES, biggest)
            live.update(list(group.live))
        assert all(viewer.group is not None for viewer in live)
        assert hub.behind() == len(hub.viewers) - len(live)
        assert set(hub.viewers) == {watcher.viewer for watcher in self.watchers}
        for viewer in hub.viewers:
            held = [getattr(viewer, name) for name in viewer.__slots__]
            assert not any(isinstance(value, bytes | bytearray | list | dict | Batch) for value in held)

    def run_to_the_end(self):
        """Let everything finish: then every viewer stands at the head."""
        self.recover(0, 1, 1)
        while self.pending:
            self.commit(2, 0, 0)
        for _ in range(400):
            self.call(self.hub.retry)
            for watcher in self.watchers:
                watcher.full, watcher.room = False, 10**9
                self.call(self.hub.drained, watcher.viewer)
            while self.asked:
                self.deliver(0, 1, 0)
            while self.packs:
                self.compress(0, 0, 0)
            self.check()
            if not self.hub.behind() and not self.packs:
                break
        assert self.hub.behind() == 0, "a viewer never reached the head"
        for watcher in self.watchers:
            assert watcher.pos == self.hub.head
        everybody = self.watchers + self.gone
        assert self.hub.lines_sent == sum(watcher.lines for watcher in everybody)
        assert self.hub.gaps == sum(gap.cause != "notices" for watcher in everybody for gap in watcher.gaps)
        assert self.hub.lines_skipped == sum(gap.count for watcher in everybody for gap in watcher.gaps)


def play(steps, journal, **numbers):
    """Play the steps, then let everything finish. Returns the world for a look around."""
    world = World(journal, **numbers)
    try:
        for step in steps:
            world.do(step)
        world.run_to_the_end()
    finally:
        journal.close()
    return world


def shortest(steps, fails):
    """Leave out steps as long as it still fails: what is left is the bug."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if fails(fewer):
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def failure(steps, make, **numbers):
    try:
        play(steps, make(), **numbers)
    except Exception as error:
        return error
    return None


def walk(seed, make, length=STEPS, **numbers):
    """Play a random list of steps; on failure say the shortest one that fails too."""
    rng = random.Random(seed)
    steps = [(rng.randrange(256), rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(length)]
    if failure(steps, make, **numbers) is None:
        return
    least = shortest(steps, lambda fewer: failure(fewer, make, **numbers) is not None)
    names = [f"{World.TABLE[op % len(World.TABLE)]}{rest}" for op, *rest in least]
    error = failure(least, make, **numbers)
    raise AssertionError(f"seed {seed}: {error!r} after {len(least)} steps:\n" + "\n".join(names)) from error


def test_random_walks_over_a_model_journal():
    """Whatever the order of events: exactly the wanted lines, in order, or a notice that says which are missing."""
    for seed in range(WALKS):
        walk(seed, ListJournal)


@pytest.mark.parametrize(("max_lag", "landing"), [(1, 0), (5, 40), (12, 3), (10**9, 8)])
def test_walks_with_other_limits(max_lag, landing):
    """The same where everybody is skipped at once, lands further back than it was, or is never skipped."""
    for seed in range(WALKS // 8):
        walk(1_000_000 + seed, ListJournal, max_lag=max_lag, landing=landing)


STEP = st.tuples(*[st.integers(0, 255)] * 4)


@settings(
    max_examples=max(1, WALKS // 2),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(st.lists(STEP, min_size=10, max_size=120))
def test_lists_of_steps_that_hypothesis_thinks_up(steps):
    """The same with lists that are biased towards the extremes and shrink well."""
    play(steps, ListJournal())


def test_walks_over_the_memory_journal():
    """The product's memory journal keeps the promises that the model keeps."""
    for seed in range(WALKS // 5):
        walk(2_000_000 + seed, lambda: RealJournal(make_memory))


def make_memory(_now_us):
    return MemoryJournal(random_epoch=lambda: EPOCH, max_bytes=60_000)


def test_walks_over_the_sqlite_journal(tmp_path):
    """So does SQLite, with retention by age at its heels."""
    number = 0

    def make():
        nonlocal number
        number += 1

        def sqlite(now_us):
            return SqliteJournal(
                str(tmp_path / f"{number}.db"),
                now_us=now_us,
                random_epoch=lambda: EPOCH,
                max_age_s=30,
                max_bytes=1 << 24,
            )

        return RealJournal(sqlite)

    for seed in range(WALKS // 20):
        walk(3_000_000 + seed, make, length=120)


def test_the_walks_go_everywhere():
    """The walks above are worth something only if they meet every kind of event; count them."""
    seen = Counter()
    for seed in range(60):
        rng = random.Random(seed)
        steps = [tuple(rng.randrange(256) for _ in range(4)) for _ in range(STEPS)]
        world = play(steps, ListJournal())
        everybody = world.watchers + world.gone
        seen.update(gap.cause for watcher in everybody for gap in watcher.gaps)
        seen["kept"] += sum(gap.kept for watcher in everybody for gap in watcher.gaps)
        seen["kept to the bound"] += sum(
            gap.kept == hub_module.KEPT_WARNINGS for watcher in everybody for gap in watcher.gaps
        )
        seen["provisional"] += len(world.alias_of)
        seen["lines"] += sum(watcher.lines for watcher in everybody)
        seen["compressed"] += sum(watcher.lines for watcher in everybody if watcher.deflate)
        seen["arrays"] += sum(watcher.lines for watcher in everybody if watcher.form == "batch")
    for what in ("lag", "retention", "epoch", "kept", "kept to the bound", "provisional", "compressed", "arrays"):
        assert seen[what] > 20, (what, seen)
