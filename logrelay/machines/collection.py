"""How far the journals of other machines have been collected, and what of a batch is new.

Owns: the positions (of each edge and epoch the last seq taken, and of the stream the last message read), what of a
batch is taken, which gaps are told, and the rows in which the journal remembers all that. It must not know clients of
NATS, threads or the journal: rows come in at the start and go out with the lines that they speak of, in one
transaction, so that a relay that is killed anywhere goes on exactly behind what it has. Pure; time is an argument. Read
`edges` next.

The position in the stream only says where to go on reading. What makes lines come once are the seqs of the edges: they
hold when the stream is deleted and made anew, put back from a backup, or read again from its beginning.

    batch of edge e, epoch k, lines 401 to 500      e/k taken up to 380    381 to 400 are missing: a gap, then all
                                                    e/k taken up to 450    451 to 500 are new
                                                    e/k not known, the newest of e is j-400: new, and nothing is missing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from logrelay.fanout.collected_line import (
    Collected,
    CollectedLine,
    ShownTimes,
    Told,
    moved,
    moved_lines,
    read_lines,
    run_key,
    shown_before,
    usual_lines,
)
from logrelay.fanout.positions import id_of, split_id
from logrelay.machines.stream_batch import Hole, StreamBatch, StreamLine
from logrelay.model import WARNING, CollectedRow

MAX_EDGES = 1024
"""Machines that are remembered; beyond it the one that was heard of least recently is forgotten: should its lines come
again, after the stream was read from its beginning, they would be kept twice."""
MAX_EPOCHS = 32
"""Epochs of an edge that are remembered, the newest: each start of its relay makes one."""
MAX_STREAMS = 8
"""Streams remembered: one is collected at a time, and a person may try another."""
CHUNK_LINES = 1024
"""Lines handed on at once: some 5 ms of the event loop."""
MOST_GAPS = 4
"""Holes of one cause in a batch that are told one by one; more of them are added up."""
MOST_RANGES = 16
"""Ranges named by a gap that is a sum, as in the notices about traders."""

STREAM, EDGE, STATE = "stream", "edge", "state"
"""The kinds of rows."""

HOLE_TEXTS = {
    "retention": "no longer kept there when their turn came",
    "corrupt": "the journal over there was damaged",
    "purged": "purged there",
    "too_large": "too large for a message of the server",
    "unreadable": "what came was no line",
}
"""What is said of lines that an edge could not send, by `reason`."""


class StreamFacts(NamedTuple):
    """What the server says of a stream."""

    name: str
    created: str
    first_seq: int
    last_seq: int


@dataclass(slots=True)
class Counters:
    """What has happened since the start."""

    batches: int = 0
    lines: int = 0
    duplicates: int = 0
    missing: int = 0
    edges_forgotten: int = 0


@dataclass(slots=True)
class _Edge:
    """What has been taken of one machine."""

    epochs: dict[str, CollectedRow] = field(default_factory=dict)
    """By epoch, the one that was taken last at the end."""
    state: CollectedRow | None = None

    @property
    def newest(self) -> CollectedRow | None:
        """The epoch that was taken last."""
        return next(reversed(self.epochs.values()), None)

    @property
    def rows(self) -> list[CollectedRow]:
        """Everything that is remembered of it."""
        return [*self.epochs.values(), *((self.state,) if self.state else ())]

    @property
    def seen_us(self) -> int:
        """When it was heard of last."""
        return max((row.seen_us for row in self.rows), default=0)


class Collection:
    """What has been collected of which machine. Not for several threads at once.

    `rows` are those of the journal. Each call that changes something returns the rows to write, in a `Collected`; the
    caller commits them with the lines in it, or gives the whole object up.
    """

    def __init__(self, rows: Iterable[CollectedRow]) -> None:
        self.counters = Counters()
        self._edges: dict[str, _Edge] = {}
        self._streams: dict[str, CollectedRow] = {}
        self._times = ShownTimes()
        self._last_us = 0
        self._next_id = 1
        self._free: list[int] = []
        for row in sorted(rows, key=lambda row: (row.seen_us, row.id)):
            self._next_id = max(self._next_id, row.id + 1)
            self._last_us = max(self._last_us, row.seen_us)
            if row.kind == STREAM:
                self._streams[row.name] = row
            elif row.kind == EDGE:
                self._edges.setdefault(row.name, _Edge()).epochs[row.part] = row
            else:
                found = self._edges.setdefault(row.name, _Edge())
                found.state = row

    # --- where to read ----------------------------------------------------------------------------------------

    def position(self, stream: str) -> CollectedRow | None:
        """Return what is remembered of a stream; None: it was never read."""
        return self._streams.get(stream)

    def begin(self, facts: StreamFacts, stamp: str | None) -> tuple[int, Told | None]:
        """Return at which message of the stream to begin, and what is to be told first.

        `stamp` is the own id of the message at the position that is remembered, as the stream has it now; None: that
        was not asked, or there is none any more.
        """
        known, first = self._streams.get(facts.name), max(1, facts.first_seq)
        if known is None:
            return first, None
        if known.part != facts.created:
            return first, _stream_told(facts, "was made anew")
        if known.seq > facts.last_seq or (stamp is not None and stamp != known.stamp):
            return first, _stream_told(facts, "has gone back: it has other messages than were read")
        gone = first - known.seq - 1
        if gone > 0:
            what = "1 message" if gone == 1 else f"{gone:,} messages"
            return first, _stream_told(facts, f"has lost {what} that had not been collected", gone)
        return known.seq + 1, None

    def passed(self, facts: StreamFacts, seq: int, stamp: str, now_us: int) -> CollectedRow:
        """Note that a message of the stream has been read; its row is to be written."""
        known = self._streams.pop(facts.name, None)
        if known is None and len(self._streams) >= MAX_STREAMS:
            known = self._streams.pop(min(self._streams, key=lambda name: self._streams[name].seen_us))
        number = self._number() if known is None else known.id
        row = CollectedRow(number, STREAM, facts.name, facts.created, seq, stamp, self._now(now_us))
        self._streams[facts.name] = row
        return row

    def learn(self, bodies: Iterable[bytes]) -> None:
        """Learn which timestamps the newest lines of the journal have, ascending by seq; once, at the start."""
        for body in bodies:
            known = shown_before(body)
            if known is not None:
                self._times.seen(*known)

    # --- what is new --------------------------------------------------------------------------------------------

    def take(self, batch: StreamBatch, now_us: int) -> Iterator[Collected]:
        """Yield what of a batch is new, in parts, the last of which may be empty; nothing else may be called between.

        A part counts as taken when it is yielded: its lines and rows are to be committed together.
        """
        self.counters.batches += 1
        edge = self._edges.get(batch.edge) or self._new_edge(batch.edge)
        row, newest = edge.epochs.get(batch.epoch), edge.newest
        same_journal = newest is not None and newest.stamp == batch.journal
        taken = row.seq if row is not None else 0
        at = row.seq if row is not None else newest.seq if same_journal and newest is not None else None
        part = Collected()
        if at is not None and batch.first > at + 1:
            begin = newest.part if row is None and newest is not None else batch.epoch
            self._tell_gap(part, batch, id_of(begin, at + 1), id_of(batch.epoch, batch.first - 1))
        elif at is None and newest is not None and batch.after:
            # The journal over there is another one: whatever came before this batch has come here, or never will.
            epoch, last = split_id(batch.after)
            there = edge.epochs.get(epoch)
            if there is None or there.seq < last:
                first = 1 if there is None else there.seq + 1
                self._tell_gap(part, batch, id_of(epoch, first), id_of(epoch, last))
        new = batch.lines
        if new and new[0].seq <= taken:
            new = [line for line in new if line.seq > taken]
        self.counters.duplicates += len(batch.lines) - len(new)
        # A hole before the lines may begin in the epoch before, of which some had come.
        yield from self._parts(batch, edge, part, new, _clipped(batch, taken, at or 0), now_us)

    def _parts(
        self,
        batch: StreamBatch,
        edge: _Edge,
        part: Collected,
        lines: list[StreamLine],
        holes: list[Hole],
        now_us: int,
    ) -> Iterator[Collected]:
        told = _gaps_by_place(holes)
        unreadable: list[int] = []
        for start in range(0, len(lines), CHUNK_LINES):
            some = lines[start : start + CHUNK_LINES]
            usual = usual_lines(batch.edge, batch.epoch, some)
            holes_between = bool(told) and told[0].last < some[-1].seq
            if usual is None or holes_between:
                self._place_each(batch, some, read_lines(batch.edge, some), part, told, unreadable)
            else:
                if not self._times.take_free(usual.shown):
                    place, edge_name = self._times.place, batch.edge
                    runs = [run_key(edge_name, run_name) for run_name in usual.run_names]
                    usual = moved_lines(usual, list(map(place, runs, usual.shown)))
                part.items.append(usual)
                self.counters.lines += len(some)
            if start + CHUNK_LINES < len(lines):
                last = lines[start + CHUNK_LINES - 1].seq
                part.rows.append(self._reached(batch, edge, last, now_us))
                yield part
                part = Collected()
        told += _gaps_by_place([Hole(seq, seq, "unreadable") for seq in unreadable])
        for gap in told:
            self._tell_hole(part, batch, gap)
        known = edge.epochs.get(batch.epoch)
        if known is None or batch.last > known.seq:
            part.rows.append(self._reached(batch, edge, batch.last, now_us))
        part.is_last = True
        yield part

    def _place_each(
        self,
        batch: StreamBatch,
        lines: list[StreamLine],
        read: list[CollectedLine | None],
        part: Collected,
        told: list[_Gap],
        unreadable: list[int],
    ) -> None:
        for (seq, _, _, origin, _), found in zip(lines, read, strict=True):
            while told and told[0].last < seq:
                self._tell_hole(part, batch, told.pop(0))
            if found is None:
                unreadable.append(seq)
                continue
            shown_us = self._times.place(run_key(batch.edge, origin.run_name), found.shown_us)
            part.items.append(found if shown_us == found.shown_us else moved(found, shown_us))
            self.counters.lines += 1

    def _reached(self, batch: StreamBatch, edge: _Edge, seq: int, now_us: int) -> CollectedRow:
        known = edge.epochs.pop(batch.epoch, None)
        if known is None and len(edge.epochs) >= MAX_EPOCHS:
            known = edge.epochs.pop(next(iter(edge.epochs)))
        number = self._number() if known is None else known.id
        row = CollectedRow(number, EDGE, batch.edge, batch.epoch, seq, batch.journal, self._now(now_us))
        edge.epochs[batch.epoch] = row
        return row

    # --- what is told -------------------------------------------------------------------------------------------

    def _tell_gap(self, part: Collected, batch: StreamBatch, first: str, last: str) -> None:
        """Tell of lines that were in the stream and have gone from it, or have never got there; by their ids."""
        count = split_id(last)[1] - split_id(first)[1] + 1
        self.counters.missing += count
        text = f"{_lines(count)} of edge {batch.edge} missing: no longer in the stream when this hub came to them"
        ids = {"first": first, "last": last}
        part.items.append(Told(WARNING, "gap", text, {"cause": "stream", "count": count, **ids, "edge": batch.edge}))

    def _tell_hole(self, part: Collected, batch: StreamBatch, gap: _Gap) -> None:
        self.counters.missing += gap.size
        why = HOLE_TEXTS.get(gap.cause, gap.cause)
        details: dict[str, object] = {
            "cause": "edge",
            "reason": gap.cause,
            "count": gap.size,
            "first": id_of(batch.epoch, gap.ranges[0].first),
            "last": id_of(batch.epoch, gap.last),
            "edge": batch.edge,
        }
        text = f"{_lines(gap.size)} of edge {batch.edge} missing: {why}"
        if len(gap.ranges) > 1:
            text += f" ({len(gap.ranges):,} gaps)"
            details["gaps"] = len(gap.ranges)
        part.items.append(Told(WARNING, "gap", text, details))

    # --- the state of an edge -----------------------------------------------------------------------------------

    def edges(self) -> Mapping[str, tuple[int, int]]:
        """Return of each edge since when it is told to be unreachable (0: it is not) and when it was heard of last."""
        return {
            name: (edge.state.seq if edge.state is not None else 0, edge.seen_us) for name, edge in self._edges.items()
        }

    def note_state(self, edge: str, unreachable_us: int, now_us: int) -> CollectedRow:
        """Note what has been told of an edge; its row is to be written with that."""
        found = self._edges.get(edge) or self._new_edge(edge)
        number = self._number() if found.state is None else found.state.id
        found.state = CollectedRow(number, STATE, edge, "", unreachable_us, "", self._now(now_us))
        return found.state

    # --- numbers ------------------------------------------------------------------------------------------------

    def _new_edge(self, name: str) -> _Edge:
        if len(self._edges) >= MAX_EDGES:
            gone = self._edges.pop(min(self._edges, key=lambda one: self._edges[one].seen_us))
            self._free += [row.id for row in gone.rows]
            self.counters.edges_forgotten += 1
        edge = self._edges[name] = _Edge()
        return edge

    def _number(self) -> int:
        if self._free:
            return self._free.pop()
        self._next_id += 1
        return self._next_id - 1

    def _now(self, now_us: int) -> int:
        """Return a time that rises from row to row: it tells which of them came last."""
        self._last_us = max(now_us, self._last_us + 1)
        return self._last_us


class _Gap(NamedTuple):
    """Holes of one cause that are told together."""

    cause: str
    ranges: list[Hole]

    @property
    def last(self) -> int:
        """The last seq of them."""
        return self.ranges[-1].last

    @property
    def size(self) -> int:
        """How many lines they were."""
        return sum(hole.size for hole in self.ranges)


def _clipped(batch: StreamBatch, taken: int, taken_before: int) -> list[Hole]:
    """Return what of the holes is new, without those that are no loss.

    `taken` is the last seq taken of the epoch, `taken_before` that of the journal, for what stands before the lines.
    """
    front = batch.lines[0].seq if batch.lines else batch.last + 1
    found = []
    for hole in batch.holes:
        floor = max(taken, taken_before) if hole.last < front else taken
        if hole.last > floor and hole.cause != "collected":
            found.append(hole._replace(first=max(hole.first, floor + 1)))
    return found


def _gaps_by_place(holes: Iterable[Hole]) -> list[_Gap]:
    """Return what is told of holes, in order: each by itself, or those of one cause together where they are many."""
    by_cause: dict[str, list[Hole]] = {}
    for hole in holes:
        by_cause.setdefault(hole.cause, []).append(hole)
    gaps: list[_Gap] = []
    for cause, found in by_cause.items():
        if len(found) <= MOST_GAPS:
            gaps += [_Gap(cause, [hole]) for hole in found]
        else:
            gaps.append(_Gap(cause, found))
    return sorted(gaps, key=lambda gap: gap.last)


def _stream_told(facts: StreamFacts, what: str, messages: int | None = None) -> Told:
    text = (
        f"the stream {facts.name} {what}; it is read from its message {max(1, facts.first_seq)} on, each line is taken "
        "once, and what is missing of an edge is told with its next lines"
    )
    details: dict[str, object] = {"state": "stream", "stream": facts.name}
    if messages is not None:
        details["messages"] = messages
    return Told(WARNING, "relay", text, details)


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"
