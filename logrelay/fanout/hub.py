"""Who is at the head, who is behind, and what each viewer is to get next. The heart of the relay, without I/O.

Owns: viewers as cursors, groups of viewers with an equal subscription, the recent batches (the tail), the
joining of replay and live, skipping forward and gaps. It must not know sockets, threads, clocks or SQLite:
a viewer's socket is a `Sink`, the journal is asked through `Fetch` values that the shell carries out.
Read `viewers` next: it turns a WebSocket into a Sink.

A viewer is a position in the journal (its cursor: every line up to it has been sent or was not wanted):

    live       at the head; gets every new batch as it is published
    ready      behind, and its socket has room: it is being served from the tail or waits for a Fetch
    stalled    behind, and its socket is full: costs nothing until `drained` is called

Decisions are synchronous. Replay meets live within one call: a viewer whose cursor reaches the head joins
its group in the same step, so nothing can be published in between (no hole) and nothing twice (no repeat).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from logrelay.fanout.batch import Batch, Chosen, Form, Segment, segments_of
from logrelay.fanout.compression import Deflater
from logrelay.fanout.filters import Filter
from logrelay.model import WARNING

RECENT_BYTES = 4 * 1024 * 1024
"""Recent lines kept in memory, and as much again for their frames, so that a hiccup of a viewer's socket costs no
journal read: some 16,000 lines, a fifth of a second at full speed, half an hour of a bot's."""

RECENT_LINES = 32 * 1024
"""The same for very short lines, which cost more than their bytes."""

KEPT_WARNINGS = 1000
"""Lines of WARNING and above that a viewer still gets from a stretch it is skipped over."""

MIN_PAGE_BYTES = 64 * 1024
MAX_PAGE_BYTES = 512 * 1024
"""A catch-up page grows while the viewer swallows whole pages and shrinks when it stalls in the middle of one,
because what it did not take is thrown away (a stalled viewer holds no memory) and read again later."""

PAGE_LINES = 4096
"""Lines in a page; bounds the time of one journal read."""


PACK_BYTES = 2 * 1024 * 1024
"""Lines of a compressed group waiting for the compressor. Beyond it the compressor does not keep up (some 250,000
lines/s), and the group's viewers become readers of the journal like any other slow ones."""

SMALL_BYTES = 8 * 1024
"""So little is sent uncompressed rather than through the compressor's thread, while a viewer of a compressed group
catches up: it is then at the head in this very step, however fast lines come."""


class Sink(Protocol):
    """The way to one viewer's socket."""

    def write(self, payload: bytes) -> bool:
        """Take all of it. Returns False when the socket is full: write no more until `Hub.drained`."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Something the shell must ask the journal for this viewer, answering with `Hub.fetched` or `Hub.failed`."""

    viewer: Viewer
    generation: int
    kind: Literal["start", "page", "levels", "pack"]
    """start: the newest `limit` matches. page: the next lines. levels: how many lines of each level there are.
    pack: compress `chosen`, which the hub has from memory."""
    after: int
    until: int
    limit: int
    max_bytes: int
    filter: Filter
    chosen: Chosen = ((), ())

    @property
    def compress(self) -> bool:
        """True: the answer's lines are to come as compressed segments."""
        return self.viewer.deflate and self.kind in ("page", "pack")


@dataclass(eq=False, slots=True)
class Pack:
    """Lines of a compressed group on their way through its compressor; the shell answers with `Hub.packed`.

    Packs of one group must be compressed, and answered, in the order in which they were handed out.
    """

    group: _Group
    number: int
    bodies: Sequence[bytes]
    seqs: Sequence[int]
    last: int
    fresh: bool
    """Reset the compressor first: somebody has joined."""
    size: int

    @property
    def deflater(self) -> Deflater:
        """The group's compressor."""
        return self.group.deflater

    @property
    def form(self) -> Form:
        """How lines become messages."""
        return self.group.form


@dataclass(slots=True)
class Found:
    """The shell's answer to a Fetch."""

    bodies: list[bytes]
    seqs: list[int]
    reached: int
    """page: every line up to here was looked at. start: every line above here was looked at."""
    complete: bool
    oldest: int
    """Oldest seq kept when the journal was read."""
    levels: Mapping[int, int] = field(default_factory=dict)
    """levels: lines of the stretch by level rank."""
    segments: list[Segment] | None = None
    """The lines, compressed, where the Fetch wanted it."""


@dataclass(slots=True)
class Gap:
    """Lines a viewer will not get, to be rendered as a notice."""

    cause: Literal["lag", "retention", "epoch"]
    first: int
    last: int
    count: int
    levels: Mapping[int, int] | None
    """By level rank where known (they are gone after retention)."""
    kept: int = 0
    """Lines of the stretch that were sent all the same (WARNING and above)."""
    detail: str = ""


@dataclass(slots=True)
class _Skip:
    """A viewer on its way over a stretch of which it only gets WARNING and above."""

    first: int
    until: int
    levels: Mapping[int, int] | None = None
    kept: int = 0
    lossy: bool = False
    """Lines may be missing that the viewer wants: it wants more than WARNING and above, or some are gone."""


class Viewer:
    """One subscription: where it stands and what it wants. Made by `Hub.join`."""

    __slots__ = (
        "asking",
        "cursor",
        "deflate",
        "epoch_gap",
        "filter",
        "form",
        "generation",
        "group",
        "joined",
        "page_bytes",
        "sink",
        "skip",
        "stalled",
        "start_left",
        "start_lines",
    )

    def __init__(self, sink: Sink, wanted: Filter, form: Form, *, deflate: bool) -> None:
        self.sink = sink
        self.filter = wanted
        self.form: Form = form
        self.deflate = deflate
        self.cursor = 0
        self.joined = 0
        """Number of the first pack of the group that is for this viewer."""
        self.group: _Group | None = None
        """The group while live, else None."""
        self.stalled = False
        self.asking = False
        """A Fetch is under way."""
        self.generation = 0
        """Rises when the subscription changes, so that an answer to an old Fetch is recognised."""
        self.page_bytes = MIN_PAGE_BYTES
        self.start_lines = 0
        """Lines asked for by the last `start_tail`."""
        self.start_left = 0
        """How many of them the journal is still to find; 0: the cursor is where it belongs."""
        self.epoch_gap: Gap | None = None
        self.skip: _Skip | None = None


class _Group:
    """Viewers at the head with an equal subscription. A compressed group is as far as its compressor is."""

    __slots__ = (
        "deflate",
        "deflater",
        "delivered",
        "filter",
        "form",
        "fresh",
        "live",
        "number",
        "packs",
        "packs_bytes",
    )

    def __init__(self, wanted: Filter, form: Form, *, deflate: bool) -> None:
        self.filter = wanted
        self.form: Form = form
        self.live: dict[Viewer, None] = {}
        self.deflate = deflate
        if deflate:
            self.deflater = Deflater()
        self.fresh = True
        self.number = 0
        self.packs = 0
        """Packs on their way."""
        self.packs_bytes = 0
        self.delivered = 0
        """While packs are on their way: everything up to here was sent or not wanted."""


class Hub:
    """Serves any number of viewers from one stream of batches.

    `ask` is called with a Fetch when the journal is needed; `render_gap` turns a Gap into message bytes.
    Both are called from within the hub's methods and must not call back into the hub.
    """

    def __init__(
        self,
        *,
        head: int,
        oldest: int,
        max_lag: int,
        tail: int,
        ask: Callable[[Fetch], None],
        pack: Callable[[Pack], None],
        render_gap: Callable[[Gap], bytes],
    ) -> None:
        self.head = head
        """Seq of the newest published line."""
        self.committed = head
        """Seq of the newest line in the journal."""
        self.oldest = oldest
        self.max_lag = max_lag
        self.landing = tail
        """A viewer skipped forward lands this many lines before the head."""
        self.viewers: dict[Viewer, None] = {}
        self._groups: dict[tuple[Filter, Form, bool], _Group] = {}
        self._recent: deque[Batch] = deque()
        self._recent_bytes = 0
        self._recent_lines = 0
        self._ask = ask
        self._pack = pack
        self._render_gap = render_gap
        self.lines_sent = 0
        self.bytes_sent = 0
        self.gaps = 0
        self.lines_skipped = 0

    # --- lines come in -----------------------------------------------------------------------------------

    def publish(self, batch: Batch) -> None:
        """Send a batch to everybody at the head and remember it for those just behind.

        Batches come in order and without holes: `batch.first == head + 1`.
        """
        assert batch.first == self.head + 1, "a batch was published out of order"
        self.head = batch.last
        self._recent.append(batch)
        self._recent_bytes += batch.size
        self._recent_lines += batch.count
        for group in list(self._groups.values()):
            if not group.live:
                continue
            if group.deflate:
                self._hand_out(group, batch)
                continue
            segments = batch.segments(group.filter, group.form)
            if not segments:
                continue
            if len(segments) == 1:
                payload = segments[0].payload
                stalled = [viewer for viewer in group.live if not viewer.sink.write(payload)]
                self._count(segments[0], len(group.live))
                for viewer in stalled:
                    viewer.cursor = batch.last
            else:
                stalled = [viewer for viewer in group.live if not self._write_all(viewer, segments, batch.last)]
            for viewer in stalled:
                self._leave(viewer)
                viewer.stalled = True
        self._trim()

    def _hand_out(self, group: _Group, batch: Batch) -> None:
        """Send a batch through the group's compressor."""
        bodies, seqs = batch.chosen(group.filter)
        if not bodies:
            return
        size = sum(map(len, bodies))
        if group.packs_bytes + size > PACK_BYTES and group.packs:
            left = list(group.live)
            for viewer in left:
                viewer.cursor = self.position(viewer, before=batch.first)
                self._leave(viewer)
            # Only these: anybody else could join a group that is still to get this batch, and get it twice.
            for viewer in left:
                self._serve(viewer)
            return
        if not group.packs:
            group.delivered = batch.first - 1
        group.packs += 1
        group.packs_bytes += size
        group.number += 1
        self._pack(Pack(group, group.number, bodies, seqs, batch.last, group.fresh, size))
        group.fresh = False

    def packed(self, pack: Pack, segments: list[Segment]) -> None:
        """Take a compressed pack and send it to those it is for."""
        group = pack.group
        group.packs -= 1
        group.packs_bytes -= pack.size
        group.delivered = pack.last
        for viewer in list(group.live):
            if viewer.joined <= pack.number and not self._write_all(viewer, segments, pack.last):
                self._leave(viewer)
                viewer.stalled = True

    def _write_all(self, viewer: Viewer, segments: list[Segment], end: int) -> bool:
        """Write segments until the socket is full. The cursor is then behind the last one written, or at `end`."""
        for segment in segments:
            room = viewer.sink.write(segment.payload)
            self._count(segment, 1)
            if not room:
                viewer.cursor = end if segment is segments[-1] else segment.last
                return False
        viewer.cursor = end
        return True

    def _count(self, segment: Segment, viewers: int) -> None:
        self.lines_sent += segment.lines * viewers
        self.bytes_sent += len(segment.payload) * viewers

    def commit(self, seq: int, oldest: int) -> None:
        """Learn that the journal holds everything up to `seq`, and from `oldest` on."""
        self.committed = max(self.committed, seq)
        self.oldest = max(self.oldest, oldest)
        self._trim()

    def _trim(self) -> None:
        """Forget old batches; those the journal does not hold yet are kept, their bound is the daemon's."""
        tail = self._recent
        while (
            len(tail) > 1
            and (self._recent_bytes > RECENT_BYTES or self._recent_lines > RECENT_LINES)
            and tail[0].last <= self.committed
        ):
            batch = tail.popleft()
            self._recent_bytes -= batch.size
            self._recent_lines -= batch.count
        if len(tail) > 1:
            # Only the newest batch is likely to be asked for as a whole again.
            tail[-2].compact()

    # --- viewers come and go ----------------------------------------------------------------------------

    def join(self, sink: Sink, wanted: Filter, form: Form, *, deflate: bool = False) -> Viewer:
        """Add a viewer that gets nothing until `start_after` or `start_tail` says where it begins.

        `deflate`: it can read compressed frames made by `compression`.
        """
        viewer = Viewer(sink, wanted, form, deflate=deflate)
        self.viewers[viewer] = None
        return viewer

    def start_after(self, viewer: Viewer, seq: int, gap: Gap | None = None) -> None:
        """Begin behind `seq` (resume). `gap` is told first, when what was asked for is not to be had."""
        self._restart(viewer)
        viewer.cursor = min(seq, self.head)
        viewer.epoch_gap = gap
        self._serve(viewer)

    def start_tail(self, viewer: Viewer, lines: int) -> None:
        """Begin with the newest `lines` lines that pass the viewer's filter."""
        self._restart(viewer)
        viewer.start_lines = lines
        if lines <= 0 or self.head < self.oldest:
            viewer.cursor = self.head
            self._serve(viewer)
        elif viewer.filter.everything:
            # No holes in seq: arithmetic finds the place.
            viewer.cursor = max(self.head - lines, self.oldest - 1)
            self._serve(viewer)
        else:
            self._start_in_tail(viewer, lines)

    def _start_in_tail(self, viewer: Viewer, lines: int) -> None:
        """Look for the newest matches in memory first, in the journal for the rest."""
        kept = self.oldest - 1  # memory may hold lines that the journal no longer does: they are over for a newcomer
        for batch in reversed(self._recent):
            chosen = batch.select(viewer.filter)
            places = range(batch.count) if chosen is None else chosen
            if len(places) >= lines:
                viewer.cursor = max(batch.first + places[-lines] - 1, kept)
                self._serve(viewer)
                return
            lines -= len(places)
        first = self._recent[0].first if self._recent else self.head + 1
        viewer.cursor = max(first - 1, kept)
        viewer.start_left = lines
        self._serve(viewer)

    def change(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants; nothing is sent until `start_after` or `start_tail` is called."""
        self._restart(viewer)
        viewer.filter = wanted

    def resubscribe(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants, from its cursor on."""
        if viewer.start_left:
            # It stands nowhere yet: what it asked for is the newest lines, now of another kind.
            self.change(viewer, wanted)
            self.start_tail(viewer, viewer.start_lines)
            return
        viewer.cursor = self.position(viewer)
        untold, skip = viewer.epoch_gap, viewer.skip
        self.change(viewer, wanted)
        viewer.epoch_gap = untold
        if skip is not None and skip.levels is not None:
            # The notice about what it has been skipped over already is still owed.
            viewer.skip = skip
            skip.lossy = skip.lossy or wanted.level < WARNING
        self._serve(viewer)

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer. Answers to its Fetches are ignored from now on."""
        self._restart(viewer)
        self.viewers.pop(viewer, None)

    def position(self, viewer: Viewer, *, before: int = 0) -> int:
        """Return the viewer's cursor; for a live one as of the batch that begins at `before`, else as of now."""
        group = viewer.group
        if group is None:
            return viewer.cursor
        if group.deflate and group.packs:
            return max(viewer.cursor, group.delivered)
        return before - 1 if before else self.head

    def behind(self) -> int:
        """Count the viewers that are not at the head."""
        return len(self.viewers) - sum(len(group.live) for group in self._groups.values())

    def _restart(self, viewer: Viewer) -> None:
        self._leave(viewer)
        viewer.generation += 1
        viewer.asking = False
        viewer.start_left = 0
        viewer.epoch_gap = None
        viewer.skip = None
        viewer.page_bytes = MIN_PAGE_BYTES

    def _leave(self, viewer: Viewer) -> None:
        group = viewer.group
        if group is not None:
            viewer.group = None
            group.live.pop(viewer, None)
            if not group.live:
                self._groups.pop((group.filter, group.form, group.deflate), None)

    # --- catching up ---------------------------------------------------------------------------------------

    def drained(self, viewer: Viewer) -> None:
        """The viewer's socket has room again: go on where its cursor stands."""
        if viewer.stalled:
            viewer.stalled = False
            if viewer in self.viewers and viewer.group is None and not viewer.asking:
                self._serve(viewer)

    def _serve(self, viewer: Viewer) -> None:
        """Send what the tail has; ask the journal for the rest; join the head when it is reached."""
        if viewer.stalled:
            return
        if viewer.start_left:
            self._fetch(viewer, "start", self.oldest - 1, viewer.cursor, viewer.start_left, MAX_PAGE_BYTES)
            return
        if viewer.epoch_gap is not None and not self._tell(viewer, viewer.epoch_gap):
            return
        if viewer.cursor + 1 < self.oldest and not self._overtaken(viewer, self.oldest):
            return
        if viewer.skip is not None:
            self._serve_skip(viewer, viewer.skip)
            return
        if self.head - viewer.cursor > self.max_lag:
            until = min(self.head - self.landing, self.committed)
            if until > viewer.cursor:
                viewer.skip = _Skip(viewer.cursor + 1, until, lossy=viewer.filter.level < WARNING)
                self._fetch(viewer, "levels", viewer.cursor, until, 0, 0)
                return
        first = self._recent[0].first if self._recent else self.head + 1
        if viewer.cursor + 1 < first:
            self._fetch(viewer, "page", viewer.cursor, first - 1, PAGE_LINES, viewer.page_bytes)
            return
        if viewer.deflate and self._serve_packed(viewer):
            return
        for batch in self._batches_after(viewer.cursor):
            if not self._write_all(viewer, batch.segments(viewer.filter, viewer.form, viewer.cursor), batch.last):
                viewer.stalled = True
                return
        self._go_live(viewer)

    def _serve_packed(self, viewer: Viewer) -> bool:
        """Have the next stretch of the tail compressed for one viewer; False when it is not worth it."""
        bodies: list[bytes] = []
        seqs: list[int] = []
        size, reached = 0, viewer.cursor
        for batch in self._batches_after(viewer.cursor):
            more, places = batch.chosen(viewer.filter, viewer.cursor)
            bodies += more
            seqs += places
            size += sum(map(len, more))
            reached = batch.last
            if size >= viewer.page_bytes:
                break
        if size <= SMALL_BYTES:
            return False
        self._fetch(viewer, "pack", viewer.cursor, reached, 0, 0, (bodies, seqs))
        return True

    def _batches_after(self, cursor: int) -> Iterator[Batch]:
        """Return the batches behind `cursor`, searched for from the nearer end of the tail."""
        tail = self._recent
        if tail and cursor - tail[0].first < tail[-1].last - cursor:
            # In trouble the tail is long, and a slow viewer takes a few batches at a time from its far end.
            return (batch for batch in tail if batch.last > cursor)
        wanted: list[Batch] = []
        for batch in reversed(tail):
            if batch.last <= cursor:
                break
            wanted.append(batch)
        return reversed(wanted)

    def _go_live(self, viewer: Viewer) -> None:
        key = (viewer.filter, viewer.form, viewer.deflate)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(viewer.filter, viewer.form, deflate=viewer.deflate)
        group.live[viewer] = None
        group.fresh = True
        viewer.joined = group.number + 1
        viewer.group = group
        viewer.page_bytes = MIN_PAGE_BYTES

    def _fetch(
        self,
        viewer: Viewer,
        kind: Literal["start", "page", "levels", "pack"],
        after: int,
        until: int,
        limit: int,
        max_bytes: int,
        chosen: Chosen = ((), ()),
    ) -> None:
        viewer.asking = True
        wanted = skip_filter(viewer.filter) if viewer.skip is not None else viewer.filter
        self._ask(Fetch(viewer, viewer.generation, kind, after, until, limit, max_bytes, wanted, chosen))

    def fetched(self, fetch: Fetch, found: Found) -> None:
        """Take the journal's answer to `fetch`; an answer nobody waits for any more is ignored."""
        viewer = fetch.viewer
        if fetch.generation != viewer.generation or viewer not in self.viewers:
            return
        viewer.asking = False
        if fetch.kind == "start":
            self._started(viewer, fetch, found)
        elif fetch.kind == "levels" and viewer.skip is not None:
            viewer.skip.levels = found.levels
            self._serve(viewer)
        else:
            self._paged(viewer, fetch, found)

    def failed(self, fetch: Fetch) -> None:
        """The journal could not be read: the viewer waits; the shell calls `retry` when reading works again."""
        if fetch.generation == fetch.viewer.generation:
            fetch.viewer.asking = False
            if fetch.kind == "levels":
                fetch.viewer.skip = None

    def retry(self) -> None:
        """Serve every viewer that is behind, has room and is waiting for nothing."""
        for viewer in list(self.viewers):
            if viewer.group is None and not viewer.stalled and not viewer.asking:
                self._serve(viewer)

    def _started(self, viewer: Viewer, fetch: Fetch, found: Found) -> None:
        if found.seqs:
            viewer.cursor = found.seqs[0] - 1
            viewer.start_left -= len(found.seqs)
        if viewer.start_left > 0 and not found.complete:
            self._fetch(viewer, "start", fetch.after, found.reached, viewer.start_left, MAX_PAGE_BYTES)
            return
        viewer.start_left = 0
        self._serve(viewer)

    def _paged(self, viewer: Viewer, fetch: Fetch, found: Found) -> None:
        if found.oldest > viewer.cursor + 1 and not self._overtaken(viewer, min(found.oldest, fetch.until + 1)):
            return
        segments = found.segments
        if segments is None:
            segments = segments_of(found.bodies, found.seqs, viewer.form)
        for segment in segments:
            room = viewer.sink.write(segment.payload)
            self._count(segment, 1)
            viewer.cursor = segment.last
            if viewer.skip is not None:
                viewer.skip.kept += segment.lines
            if not room:
                viewer.stalled = True
                if segment is not segments[-1]:
                    viewer.page_bytes = max(viewer.page_bytes // 2, MIN_PAGE_BYTES)
                    return
                break
        else:
            viewer.page_bytes = min(viewer.page_bytes * 2, MAX_PAGE_BYTES)
        viewer.cursor = max(viewer.cursor, found.reached)
        self._serve(viewer)

    # --- what a viewer will not get ----------------------------------------------------------------------

    def _tell(self, viewer: Viewer, gap: Gap) -> bool:
        """Send a gap notice; it is the viewer's own, not the journal's. Returns whether there is room for more."""
        viewer.epoch_gap = None
        self.gaps += 1
        self.lines_skipped += gap.count
        viewer.cursor = max(viewer.cursor, gap.last)
        segment = segments_of([self._render_gap(gap)], [viewer.cursor], viewer.form)[0]
        room = viewer.sink.write(segment.payload)
        self.bytes_sent += len(segment.payload)
        viewer.stalled = not room
        return room

    def _overtaken(self, viewer: Viewer, oldest: int) -> bool:
        """Tell the viewer that retention took what it was about to read."""
        if viewer.skip is not None:
            # Its notice will cover the whole stretch; levels of what is gone stay as they were counted.
            viewer.cursor = min(oldest - 1, viewer.skip.until)
            viewer.skip.lossy = True
            return True
        first = viewer.cursor + 1
        return self._tell(viewer, Gap("retention", first, oldest - 1, oldest - first, None))

    def _serve_skip(self, viewer: Viewer, skip: _Skip) -> None:
        """Skip forward: WARNING and above of the stretch page by page, then one notice for all the rest.

        A viewer that wants nothing else has missed nothing, and is told nothing.
        """
        if viewer.cursor < skip.until and skip.kept < KEPT_WARNINGS:
            limit = min(PAGE_LINES, KEPT_WARNINGS - skip.kept)
            self._fetch(viewer, "page", viewer.cursor, skip.until, limit, viewer.page_bytes)
            return
        viewer.skip = None
        told = skip.lossy or viewer.cursor < skip.until
        count = skip.until - skip.first + 1 - skip.kept
        viewer.cursor = max(viewer.cursor, skip.until)
        if (
            told
            and count > 0
            and not self._tell(viewer, Gap("lag", skip.first, skip.until, count, skip.levels, skip.kept))
        ):
            return
        self._serve(viewer)


def skip_filter(wanted: Filter) -> Filter:
    """Return what is kept of a skipped stretch: WARNING and above of what the viewer wants anyway."""
    return Filter(max(wanted.level, WARNING), wanted.sources, wanted.text, wanted.where)
