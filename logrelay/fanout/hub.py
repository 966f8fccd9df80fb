"""Who is at the head, who is behind, and what each viewer is to get next. Without I/O.

Owns: viewers as cursors, groups of viewers with an equal subscription, the recent batches, the joining of replay and
live, skipping forward and gaps. It must not know sockets, threads, clocks or SQLite: a viewer's socket is a `Sink`, and
what it wants from the journal or a compressor it queues as requests (see `hub_types`). Read `fanout/batch` next: it is
the bytes that a group of viewers gets.

The module is long because it is one state machine: starting, replaying, being live, being skipped forward are states of
the same cursor, and each transition has to be seen beside the others.

A viewer is a position in the journal (its cursor: every line up to it has been sent or was not wanted):

    live       at the head; gets every new batch as it is published
    ready      behind, and its socket has room: it is being served from the recent batches or waits for a Fetch
    stalled    behind, and its socket is full: costs nothing until `drained` is called

Decisions are synchronous. Replay meets live within one call: a viewer whose cursor reaches the head joins
its group in the same step, so nothing can be published in between (no hole) and nothing twice (no repeat).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from logrelay.fanout.batch import Batch, Form, Segment, segments_of
from logrelay.fanout.filters import Filter, most_notices
from logrelay.fanout.hub_types import (
    CompressFetch,
    Fetch,
    Found,
    Gap,
    Group,
    LevelsFetch,
    Pack,
    PageFetch,
    Request,
    Sink,
    Skip,
    StartFetch,
    Viewer,
)
from logrelay.model import WARNING

RECENT_BYTES = 4 * 1024 * 1024
"""Recent lines kept in memory, and as much again for their frames, so that a hiccup of a viewer's socket costs no
journal read: some 16,000 lines, a fifth of a second at full speed, half an hour of a bot's."""

RECENT_LINES = 32 * 1024
"""The same for very short lines, which cost more than their bytes."""

SMALL_BATCH_LINES = 16
SMALL_BATCH_BYTES = 8 * 1024
"""A batch of so little is small: it takes more memory than its lines."""

JOINED_BATCHES = 64
"""So many small ones in a row become one, once they are no longer the newest."""

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

CONTENT_LINES = 256
"""Recent lines that are searched for a text or a field here, on the loop, when a viewer begins: a few milliseconds.
What is before them is searched in the journal, by another thread, although it is in memory as well."""

SMALL_BYTES = 8 * 1024
"""So little is sent uncompressed rather than through the compressor's thread, while a viewer of a compressed group
catches up: it is then at the head in this very step, however fast lines come."""


class Hub:
    """Serves any number of viewers from one stream of batches.

    `head` and `oldest` are the journal's newest and oldest seq. A viewer more than `max_lag` lines behind is skipped
    forward, to `landing_lines` lines before the head. `render_gap` makes a notice of a Gap: the bytes of its viewer
    message.

    Whoever calls a method then takes the requests that it may have queued (`take_requests`).
    """

    def __init__(
        self,
        *,
        head: int,
        oldest: int,
        max_lag: int,
        landing_lines: int,
        render_gap: Callable[[Gap], bytes],
    ) -> None:
        self.head = head
        """Seq of the newest published line."""
        self.committed = head
        """Seq of the newest line in the journal."""
        self.oldest = oldest
        """Seq of the oldest line that the journal keeps."""
        self.viewers: dict[Viewer, None] = {}
        self._max_lag = max_lag
        self._landing_lines = landing_lines
        self._groups: dict[tuple[Filter, Form, bool], Group] = {}
        self._recent: deque[Batch] = deque()
        self._recent_bytes = 0
        self._recent_lines = 0
        self._small_batches = 0
        """Recent batches in a row, up to the newest, that are small and have not been joined."""
        self._requests: list[Request] = []
        self._render_gap = render_gap
        self.lines_sent = 0
        self.bytes_sent = 0
        self.gaps = 0
        self.lines_skipped = 0

    def take_requests(self) -> Sequence[Request]:
        """Return what the hub wants from the journal and the compressors since the last call, in order.

        Each request is to be carried out and answered; `hub_types` says how.
        """
        requests = self._requests
        if not requests:
            return ()
        self._requests = []
        return requests

    # --- lines come in -----------------------------------------------------------------------------------

    def publish(self, batch: Batch, *, oldest: int | None = None) -> None:
        """Send a batch to everybody at the head and remember it for those just behind.

        Batches come in order and without holes: `batch.first == head + 1`. `oldest`: the journal holds the batch
        already, and from that seq on; `commit` need not be called.
        """
        assert batch.first == self.head + 1, "a batch was published out of order"
        self.head = batch.last
        self._recent.append(batch)
        self._recent_bytes += batch.size
        self._recent_lines += batch.count
        small = batch.count <= SMALL_BATCH_LINES and batch.size <= SMALL_BATCH_BYTES
        self._small_batches = self._small_batches + 1 if small else 0
        for group in list(self._groups.values()):
            if not group.live:
                continue
            if group.deflate:
                self._publish_compressed(group, batch)
                continue
            segments = batch.segments(group.filter, group.form)
            if not segments:
                continue
            if len(segments) == 1:
                segment = segments[0]
                payload, viewers = segment.payload, len(group.live)
                self.lines_sent += segment.lines * viewers
                self.bytes_sent += len(payload) * viewers
                stalled = []
                for viewer in group.live:  # no comprehension, which is a call of its own: most batches are of one line
                    if not viewer.sink.write(payload):
                        viewer.cursor = batch.last
                        stalled.append(viewer)
            else:
                stalled = [viewer for viewer in group.live if not self._write_all(viewer, segments, batch.last)]
            for viewer in stalled:
                self._leave(viewer)
                viewer.stalled = True
        if oldest is not None:
            self.committed, self.oldest = batch.last, max(self.oldest, oldest)
        self._trim()

    def _publish_compressed(self, group: Group, batch: Batch) -> None:
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
        self._requests.append(group.make_pack(bodies, seqs, size, first=batch.first, last=batch.last))

    def packed(self, pack: Pack, segments: list[Segment]) -> None:
        """Take a compressed pack and send it to those it is for."""
        group = pack.group
        group.take_back(pack)
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
        """Forget old batches; those the journal does not hold yet are kept, their bound is the pipeline's."""
        recent = self._recent
        while (
            len(recent) > 1
            and (self._recent_bytes > RECENT_BYTES or self._recent_lines > RECENT_LINES)
            and recent[0].last <= self.committed
        ):
            batch = recent.popleft()
            self._recent_bytes -= batch.size
            self._recent_lines -= batch.count
        if len(recent) > 1:
            # Only the newest batch is likely to be asked for as a whole again.
            recent[-2].compact()
            if self._small_batches > JOINED_BATCHES and recent[-2].last <= self.committed:
                self._join_small_batches()

    def _join_small_batches(self) -> None:
        """Make one batch of the small ones before the newest; the journal holds them, so they are as they will stay."""
        recent = self._recent
        newest = recent.pop()
        *later, first = [recent.pop() for _ in range(min(self._small_batches - 1, len(recent)))]
        if later:
            first.absorb(later[::-1])
        recent.extend((first, newest))
        self._small_batches = 1

    # --- viewers come and go ----------------------------------------------------------------------------

    def join(self, sink: Sink, wanted: Filter, form: Form, *, deflate: bool = False) -> Viewer:
        """Add a viewer that gets nothing until `start_after` or `start_tail` says where it begins.

        `deflate`: it can read compressed frames made by `compression`.
        """
        viewer = Viewer(sink, wanted, form, deflate=deflate, page_bytes=MIN_PAGE_BYTES)
        self.viewers[viewer] = None
        return viewer

    def start_after(self, viewer: Viewer, seq: int, gap: Gap | None = None) -> None:
        """Begin behind `seq` (resume). `gap` is sent first, when what was asked for is not to be had."""
        self._restart(viewer)
        viewer.cursor = min(seq, self.head)
        viewer.epoch_gap = gap
        self._serve(viewer)

    def start_tail(self, viewer: Viewer, lines: int, behind: int | None = None) -> None:
        """Begin with the newest `lines` lines that pass the viewer's filter.

        Notices among them come besides, the newest of them (`filters.most_notices`); the viewer is told of the rest.
        With `behind`, where it was already, it begins there at the earliest, what lies between is told as a gap, and no
        notice is left out.
        """
        self._restart(viewer)
        viewer.start_lines = lines
        viewer.behind = behind
        if lines <= 0 or self.head < self.oldest:
            viewer.cursor = self.head
            self._begin(viewer)
        else:
            viewer.start_notices = most_notices(viewer.filter, lines) if behind is None else None
            self._start_in_recent(viewer, lines)

    def _start_in_recent(self, viewer: Viewer, lines: int) -> None:
        """Look for the newest matches in memory first, in the journal for the rest."""
        kept = self.oldest - 1  # memory may hold lines that the journal no longer does: they are over for a newcomer
        first = self._searched_from(viewer)
        for batch in reversed(self._recent):
            if batch.first < first:
                break
            chosen = batch.select(viewer.filter)
            places: Sequence[int] = range(batch.count) if chosen is None else chosen
            if batch.has_notices:
                beside = batch.uncounted(viewer.filter).intersection(places)
                places = [place for place in places if place not in beside]
                start = places[-lines] if len(places) >= lines else 0
                self._allow_notices(viewer, sum(place > start for place in beside), batch.last + 1)
            if len(places) >= lines:
                viewer.cursor = max(batch.first + places[-lines] - 1, kept)
                self._begin(viewer)
                return
            lines -= len(places)
        viewer.cursor = max(first - 1, kept)
        viewer.start_left = lines
        self._serve(viewer)

    @staticmethod
    def _allow_notices(viewer: Viewer, count: int, behind: int) -> None:
        """Let a batch's notices come with the lines that a viewer begins with, unless enough did that are newer."""
        if viewer.start_notices is None or not count:
            return
        if viewer.start_notices == 0 and not viewer.notices_from:
            viewer.notices_from = behind
        viewer.start_notices = max(0, viewer.start_notices - count)

    def _begin(self, viewer: Viewer) -> None:
        """Serve a viewer whose first line has been found; if some before it, or notices, are left out, say so first."""
        searched_all = viewer.start_left > 0  # there are no more: none lies between
        first = self.oldest if searched_all else viewer.cursor + 1
        viewer.start_left = 0
        behind, viewer.behind = viewer.behind, None
        if behind is not None and viewer.cursor > behind and not searched_all:
            viewer.epoch_gap = Gap("away", behind + 1, viewer.cursor, viewer.cursor - behind, None)
        elif behind is not None:
            viewer.cursor = min(max(viewer.cursor, behind), self.head)
        elif viewer.notices_from > first:
            viewer.epoch_gap = Gap("notices", first, viewer.notices_from - 1, 0, None)
        self._serve(viewer)

    def _searched_from(self, viewer: Viewer) -> int:
        """Return the seq from which on this viewer is served from memory; the journal has all that is before it."""
        recent = self._recent
        if not recent:
            return self.head + 1
        if not viewer.filter.text and not viewer.filter.where:
            return recent[0].first
        lines = 0
        for batch in reversed(recent):
            lines += batch.count
            if lines > CONTENT_LINES and batch.last <= self.committed:
                return batch.last + 1
        return recent[0].first

    def change(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants; nothing is sent until `start_after` or `start_tail` is called."""
        self._restart(viewer)
        viewer.filter = wanted

    def resubscribe(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants, from its cursor on."""
        if viewer.start_left:
            # It stands nowhere yet: what it asked for is the newest lines, now of another kind.
            behind = viewer.behind
            self.change(viewer, wanted)
            self.start_tail(viewer, viewer.start_lines, behind)
            return
        viewer.cursor = self.position(viewer)
        epoch_gap, skip = viewer.epoch_gap, viewer.skip
        self.change(viewer, wanted)
        viewer.epoch_gap = epoch_gap
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

    def received(self, viewer: Viewer) -> int | None:
        """Return up to where everything was sent, not wanted, or told to be missing; None: something is still owed."""
        if viewer.start_left or viewer.skip is not None or viewer.epoch_gap is not None:
            return None
        return self.position(viewer)

    def behind(self) -> int:
        """Count the viewers that are not at the head."""
        return len(self.viewers) - sum(len(group.live) for group in self._groups.values())

    def _restart(self, viewer: Viewer) -> None:
        self._leave(viewer)
        viewer.generation += 1
        viewer.fetching = False
        viewer.start_left = 0
        viewer.notices_from = 0
        viewer.behind = None
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
            if viewer in self.viewers and viewer.group is None and not viewer.fetching:
                self._serve(viewer)

    def _serve(self, viewer: Viewer) -> None:
        """Send what the recent batches have; ask the journal for the rest; join the head when it is reached."""
        if viewer.stalled:
            return
        if viewer.start_left:
            self._fetch_start(viewer, self.oldest - 1, viewer.cursor)
            return
        if viewer.epoch_gap is not None and not self._send_gap(viewer, viewer.epoch_gap):
            return
        if viewer.cursor + 1 < self.oldest and not self._overtaken(viewer, self.oldest):
            return
        if viewer.skip is not None:
            self._serve_skip(viewer, viewer.skip)
            return
        if self.head - viewer.cursor > self._max_lag:
            until = min(self.head - self._landing_lines, self.committed)
            if until > viewer.cursor:
                viewer.skip = Skip(viewer.cursor + 1, until, lossy=viewer.filter.level < WARNING)
                viewer.fetching = True
                self._requests.append(LevelsFetch(viewer, viewer.generation, viewer.cursor + 1, until))
                return
        first = self._searched_from(viewer)
        if viewer.cursor + 1 < first:
            self._fetch_page(viewer, first - 1, PAGE_LINES)
            return
        if viewer.deflate and self._fetch_compressed(viewer):
            return
        for batch in self._batches_after(viewer.cursor):
            wanted = self._filter_for(viewer, batch.last)
            if not self._write_all(viewer, batch.segments(wanted, viewer.form, viewer.cursor), batch.last):
                viewer.stalled = True
                return
        self._go_live(viewer)

    @staticmethod
    def _filter_for(viewer: Viewer, last: int) -> Filter:
        """Return what a viewer wants of a stretch that ends with `last`."""
        return viewer.filter if last >= viewer.notices_from else viewer.filter.without_notices()

    def _fetch_compressed(self, viewer: Viewer) -> bool:
        """Have the next stretch of the recent lines compressed for one viewer; False when it is not worth it."""
        bodies: list[bytes] = []
        seqs: list[int] = []
        size, reached = 0, viewer.cursor
        for batch in self._batches_after(viewer.cursor):
            more, places = batch.chosen(self._filter_for(viewer, batch.last), viewer.cursor)
            bodies += more
            seqs += places
            size += sum(map(len, more))
            reached = batch.last
            if size >= viewer.page_bytes:
                break
        if size <= SMALL_BYTES:
            return False
        viewer.fetching = True
        self._requests.append(CompressFetch(viewer, viewer.generation, bodies, seqs, reached, viewer.form))
        return True

    def _batches_after(self, cursor: int) -> Iterator[Batch]:
        """Return the batches behind `cursor`, searched for from the nearer end of the recent ones."""
        recent = self._recent
        if recent and cursor - recent[0].first < recent[-1].last - cursor:
            # While the journal is in trouble there are many, and a slow viewer takes a few at a time from the far end.
            return (batch for batch in recent if batch.last > cursor)
        wanted: list[Batch] = []
        for batch in reversed(recent):
            if batch.last <= cursor:
                break
            wanted.append(batch)
        return reversed(wanted)

    def _go_live(self, viewer: Viewer) -> None:
        key = (viewer.filter, viewer.form, viewer.deflate)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(viewer.filter, viewer.form, deflate=viewer.deflate)
        group.add(viewer)
        viewer.joined = group.number + 1
        viewer.group = group
        viewer.page_bytes = MIN_PAGE_BYTES

    def _fetch_start(self, viewer: Viewer, after: int, until: int) -> None:
        viewer.fetching = True
        self._requests.append(
            StartFetch(
                viewer,
                viewer.generation,
                viewer.filter,
                after,
                until,
                viewer.start_left,
                MAX_PAGE_BYTES,
                viewer.start_notices,
            )
        )

    def _fetch_page(self, viewer: Viewer, until: int, limit: int) -> None:
        viewer.fetching = True
        if viewer.cursor + 1 < viewer.notices_from:
            until = min(until, viewer.notices_from - 1)
        wanted = self._filter_for(viewer, until)
        self._requests.append(
            PageFetch(
                viewer,
                viewer.generation,
                skip_filter(wanted) if viewer.skip is not None else wanted,
                viewer.cursor,
                until,
                limit,
                viewer.page_bytes,
                viewer.form,
                viewer.deflate,
            )
        )

    # --- answers --------------------------------------------------------------------------------------------

    def started(self, fetch: StartFetch, found: Found) -> None:
        """Take the newest lines that a viewer wants: now it is known where it begins."""
        viewer = fetch.viewer
        if not self._is_awaited(fetch):
            return
        if found.seqs:
            viewer.cursor = found.seqs[0] - 1
            viewer.start_left -= len(found.seqs) - found.beside
        viewer.notices_from = viewer.notices_from or found.notices_from
        if viewer.start_notices is not None:
            viewer.start_notices -= found.beside
        if viewer.start_left > 0 and not found.complete:
            self._fetch_start(viewer, fetch.after, found.reached)
            return
        self._begin(viewer)

    def levels_counted(self, fetch: LevelsFetch, levels: Mapping[int, int]) -> None:
        """Take the number of lines of each level in the stretch that a viewer is skipped over."""
        viewer = fetch.viewer
        if self._is_awaited(fetch):
            if viewer.skip is not None:
                viewer.skip.levels = levels
            self._serve(viewer)

    def compressed(self, fetch: CompressFetch, segments: list[Segment]) -> None:
        """Take lines of a viewer, compressed."""
        if self._is_awaited(fetch):
            self._send_page(fetch.viewer, segments, fetch.until)

    def paged(self, fetch: PageFetch, found: Found) -> None:
        """Take the next lines of a viewer from the journal."""
        viewer = fetch.viewer
        if not self._is_awaited(fetch):
            return
        if found.oldest > viewer.cursor + 1 and not self._overtaken(viewer, min(found.oldest, fetch.until + 1)):
            return
        segments = found.segments
        if segments is None:
            segments = segments_of(found.bodies, found.seqs, viewer.form)
        self._send_page(viewer, segments, found.reached)

    def _is_awaited(self, fetch: Fetch) -> bool:
        """Note that an answer has come; False when nobody waits for it any more."""
        viewer = fetch.viewer
        if fetch.generation != viewer.generation or viewer not in self.viewers:
            return False
        viewer.fetching = False
        return True

    def failed(self, fetch: Fetch) -> None:
        """The journal could not be read: the viewer waits until `retry` is called."""
        if fetch.generation == fetch.viewer.generation:
            fetch.viewer.fetching = False
            if isinstance(fetch, LevelsFetch):
                fetch.viewer.skip = None

    def retry(self) -> None:
        """Serve every viewer that is behind, has room and is waiting for nothing."""
        for viewer in list(self.viewers):
            if viewer.group is None and not viewer.stalled and not viewer.fetching:
                self._serve(viewer)

    def _send_page(self, viewer: Viewer, segments: list[Segment], reached: int) -> None:
        """Send segments, which bring the viewer up to `reached`, as far as its socket takes them; then go on."""
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
        viewer.cursor = max(viewer.cursor, reached)
        self._serve(viewer)

    # --- what a viewer will not get ----------------------------------------------------------------------

    def _send_gap(self, viewer: Viewer, gap: Gap) -> bool:
        """Send a gap notice; it is the viewer's own, not the journal's. Returns whether there is room for more."""
        viewer.epoch_gap = None
        if gap.cause != "notices":
            self.gaps += 1
        if gap.cause != "unsynced":  # those it has been shown
            self.lines_skipped += gap.count
        viewer.cursor = max(viewer.cursor, gap.behind)
        segment = segments_of([self._render_gap(gap)], [viewer.cursor], viewer.form)[0]
        room = viewer.sink.write(segment.payload)
        self.bytes_sent += len(segment.payload)
        viewer.stalled = not room
        return room

    def _overtaken(self, viewer: Viewer, oldest: int) -> bool:
        """Tell the viewer that retention took what it was about to read. Returns whether there is room for more."""
        if viewer.skip is not None:
            # Its notice will cover the whole stretch; levels of what is gone stay as they were counted.
            viewer.cursor = min(oldest - 1, viewer.skip.until)
            viewer.skip.lossy = True
            return True
        first = viewer.cursor + 1
        return self._send_gap(viewer, Gap("retention", first, oldest - 1, oldest - first, None))

    def _serve_skip(self, viewer: Viewer, skip: Skip) -> None:
        """Skip forward: WARNING and above of the stretch page by page, then one notice for all the rest.

        A viewer that wants nothing else has missed nothing, and is sent no notice.
        """
        if viewer.cursor < skip.until and skip.kept < KEPT_WARNINGS:
            limit = min(PAGE_LINES, KEPT_WARNINGS - skip.kept)
            self._fetch_page(viewer, skip.until, limit)
            return
        viewer.skip = None
        incomplete = skip.lossy or viewer.cursor < skip.until
        count = skip.until - skip.first + 1 - skip.kept
        viewer.cursor = max(viewer.cursor, skip.until)
        if (
            incomplete
            and count > 0
            and not self._send_gap(viewer, Gap("lag", skip.first, skip.until, count, skip.levels, skip.kept))
        ):
            return
        self._serve(viewer)


def skip_filter(wanted: Filter) -> Filter:
    """Return what is kept of a skipped stretch: WARNING and above of what the viewer wants anyway."""
    return replace(wanted, level=max(wanted.level, WARNING))
