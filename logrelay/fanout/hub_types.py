"""What the hub is made of and what it exchanges with the pipeline: viewers, groups, requests, answers, gaps.

Owns: the records of a viewer and of a group, which only the hub writes to, and the values that go between the hub and
whoever carries out its requests. It must not know sockets, threads or SQLite, nor decide who gets what. Pure.
Read `fanout/batch` next: it is what a group is sent.

The hub does no I/O. What it needs from the journal or from a compressor it queues as a request; the pipeline takes the
requests after each call (`Hub.take_requests`), carries them out on other threads and hands the answers to the hub:

    StartFetch     Hub.started(fetch, found)             where the newest lines that a viewer wants begin
    PageFetch      Hub.paged(fetch, found)               the next lines for a viewer that is behind
    LevelsFetch    Hub.levels_counted(fetch, levels)     how many lines of each level a viewer will be skipped over
    CompressFetch  Hub.compressed(fetch, segments)       lines from memory, compressed for one viewer
    Pack           Hub.packed(pack, segments)            lines for a whole group, through its compressor

A fetch that failed is answered with `Hub.failed(fetch)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from logrelay.fanout.batch import Form, Segment, segments_of
from logrelay.fanout.compression import Deflater, deflate_segments
from logrelay.fanout.filters import Filter


class Sink(Protocol):
    """The way to one viewer's socket."""

    def write(self, payload: bytes) -> bool:
        """Take all of it. Returns False when the socket is full: write no more until `Hub.drained`."""


# --- requests and answers --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class LinesFetch:
    """What both requests for lines of the journal say: those of `after < seq <= until` that pass `filter`."""

    viewer: Viewer
    generation: int
    """`viewer.generation` when this was asked; a viewer that has asked for something else since has another one."""
    filter: Filter
    after: int
    until: int
    limit: int
    max_bytes: int
    """The answer may end early after so many bytes of lines."""


@dataclass(frozen=True, slots=True, eq=False)
class StartFetch(LinesFetch):
    """Find the newest `limit` lines of `after < seq <= until` that pass `filter`."""

    notices: int | None
    """Notices that may come with them, without counting; None: all."""


@dataclass(frozen=True, slots=True, eq=False)
class PageFetch(LinesFetch):
    """Read the next lines of `after < seq <= until` that pass `filter`, at most `limit` of them."""

    form: Form
    compress: bool
    """True: the answer is to have `Found.segments`, made by `compressed`."""

    def compressed(self, bodies: Sequence[bytes], seqs: Sequence[int]) -> list[Segment]:
        """Compress what was found; takes time, for the thread that read it."""
        return _compressed_alone(bodies, seqs, self.form)


@dataclass(frozen=True, slots=True, eq=False)
class LevelsFetch:
    """Count the lines of `first <= seq <= last` by level."""

    viewer: Viewer
    generation: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class CompressFetch:
    """Compress lines that the hub has in memory, for one viewer."""

    viewer: Viewer
    generation: int
    bodies: Sequence[bytes]
    seqs: Sequence[int]
    until: int
    """With these lines the viewer stands here: those between were not wanted."""
    form: Form

    def compressed(self) -> list[Segment]:
        """Carry it out; takes time, for a thread that compresses."""
        return _compressed_alone(self.bodies, self.seqs, self.form)


Fetch = StartFetch | PageFetch | LevelsFetch | CompressFetch
"""A request for one viewer, which waits for its answer."""


@dataclass(eq=False, slots=True)
class Pack:
    """Lines for all viewers of a compressed group, on their way through its compressor.

    Packs of one group must be compressed, and answered, in the order in which they were queued.
    """

    group: Group
    number: int
    """1 for the group's first pack, rising by one."""
    bodies: Sequence[bytes]
    seqs: Sequence[int]
    last: int
    """Seq of the last line of the batch, wanted or not."""
    fresh: bool
    """Somebody has joined: the compressor starts afresh."""
    size: int
    """Bytes of `bodies`."""

    def compressed(self) -> list[Segment]:
        """Carry it out; takes time, and only one thread at a time may do so for a group."""
        deflater = self.group.deflater
        if self.fresh:
            deflater.reset()
        return deflate_segments(deflater, self.bodies, self.seqs, arrays=self.group.form == "batch")

    def uncompressed(self) -> list[Segment]:
        """Return the same lines as messages that are not compressed: as good to read, only longer."""
        return segments_of(self.bodies, self.seqs, self.group.form)


Request = Fetch | Pack
"""What `Hub.take_requests` hands out."""


@dataclass(slots=True)
class Found:
    """The answer to a StartFetch or a PageFetch."""

    bodies: Sequence[bytes]
    """Viewer messages, ascending by seq."""
    seqs: Sequence[int]
    reached: int
    """PageFetch: every line up to here was looked at. StartFetch: every line above here was looked at."""
    complete: bool
    """The whole stretch was looked at."""
    oldest: int
    """Oldest seq kept when the journal was read."""
    segments: list[Segment] | None = None
    """The lines, compressed, where a PageFetch wanted it."""
    beside: int = 0
    """How many of them are notices that do not count toward `StartFetch.limit`."""
    notices_from: int = 0
    """StartFetch: notices before this seq are beyond those that it allowed; 0: none is."""


def _compressed_alone(bodies: Sequence[bytes], seqs: Sequence[int], form: Form) -> list[Segment]:
    """Compress for one viewer alone, with a compressor of its own: the result refers to nothing before it."""
    return deflate_segments(Deflater(), bodies, seqs, arrays=form == "batch")


# --- what a viewer will not get --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Gap:
    """Lines a viewer will not get, to be rendered as a notice."""

    cause: Literal["lag", "retention", "epoch", "unsynced", "away", "notices"]
    """`notices`: no line is missing, but notices from `first` to `last` are left out; how many is not known."""
    first: int
    last: int
    count: int
    levels: Mapping[int, int] | None
    """Lines by level rank where known (they are gone after retention)."""
    kept: int = 0
    """Lines of the stretch that were sent all the same (WARNING and above)."""
    detail: str = ""
    """epoch: why the id that the viewer resumed with is no good."""
    epoch: str = ""
    """unsynced: the epoch under which the lines were shown; their numbers mean other lines by now, or none."""

    @property
    def behind(self) -> int:
        """The position behind the gap: where its viewer goes on."""
        return self.first - 1 if self.cause in ("unsynced", "notices") else self.last


@dataclass(slots=True)
class Skip:
    """A viewer's way over a stretch of which it only gets WARNING and above."""

    first: int
    until: int
    levels: Mapping[int, int] | None = None
    """Lines of the stretch by level rank, once counted."""
    kept: int = 0
    """Lines of the stretch that were sent."""
    lossy: bool = False
    """Lines may be missing that the viewer wants: it wants more than WARNING and above, or some are gone."""


# --- viewers and groups ----------------------------------------------------------------------------------------------


class Viewer:
    """One subscription: where it stands and what it wants. Made by `Hub.join`; only the hub writes to it."""

    __slots__ = (
        "behind",
        "cursor",
        "deflate",
        "epoch_gap",
        "fetching",
        "filter",
        "form",
        "generation",
        "group",
        "joined",
        "notices_from",
        "page_bytes",
        "sink",
        "skip",
        "stalled",
        "start_left",
        "start_lines",
        "start_notices",
    )

    def __init__(self, sink: Sink, wanted: Filter, form: Form, *, deflate: bool, page_bytes: int) -> None:
        self.sink = sink
        self.filter = wanted
        self.form: Form = form
        self.deflate = deflate
        """It can read compressed frames made by `compression`."""
        self.cursor = 0
        """Every line up to this seq has been sent or was not wanted; for a live viewer see `Hub.position`."""
        self.joined = 0
        """Number of the first pack of the group that is for this viewer."""
        self.group: Group | None = None
        """The group while live, else None."""
        self.stalled = False
        """The socket is full."""
        self.fetching = False
        """A Fetch is under way."""
        self.generation = 0
        """Rises when the subscription changes, so that an answer to an old Fetch is recognised."""
        self.page_bytes = page_bytes
        """Bytes of lines in its next catch-up page."""
        self.start_lines = 0
        """Lines asked for by the last `start_tail`."""
        self.start_left = 0
        """How many of them the journal is still to find; 0: the cursor is where it belongs."""
        self.start_notices: int | None = None
        """How many notices may still come with them; None: all."""
        self.notices_from = 0
        """Of the notices before this seq, those that do not count are left out."""
        self.behind: int | None = None
        """Where it was before the newest lines that it is to begin with were looked for; None: it was nowhere."""
        self.epoch_gap: Gap | None = None
        """To be sent before anything else."""
        self.skip: Skip | None = None


class Group:
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
        """Somebody has joined since the last pack."""
        self.number = 0
        """Number of the last pack."""
        self.packs = 0
        """Packs on their way."""
        self.packs_bytes = 0
        self.delivered = 0
        """While packs are on their way: everything up to here was sent or not wanted."""

    def add(self, viewer: Viewer) -> None:
        """Take in a viewer that has everything up to the head."""
        self.live[viewer] = None
        self.fresh = True

    def make_pack(self, bodies: Sequence[bytes], seqs: Sequence[int], size: int, *, first: int, last: int) -> Pack:
        """Number the chosen lines of the batch from `first` to `last` and count them as on their way."""
        if not self.packs:
            self.delivered = first - 1
        self.packs += 1
        self.packs_bytes += size
        self.number += 1
        pack = Pack(self, self.number, bodies, seqs, last, self.fresh, size)
        self.fresh = False
        return pack

    def take_back(self, pack: Pack) -> None:
        """Note that a pack has come through the compressor."""
        self.packs -= 1
        self.packs_bytes -= pack.size
        self.delivered = pack.last
