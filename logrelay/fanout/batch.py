"""Consecutive lines that are kept and sent together, and the bytes they become.

Owns: `Batch`: which of its lines a filter selects, and the WebSocket frames of a selection, each computed
once however many viewers share it. It must not know viewers, sockets or the journal. Pure. Read `viewers/server`
next: its connections are who the bytes are written to.

The cost of fan-out is here: a line is framed once, a selection is joined once, and every viewer with the same
selection gets the very same bytes objects.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain
from operator import attrgetter, itemgetter
from typing import Literal, NamedTuple

from logrelay.fanout.filters import Filter, ascii_lower, field_text, is_named, search_text
from logrelay.fanout.line_json import edge_of_body, read_body, run_of_body
from logrelay.model import RELAY_RUN, Line

Form = Literal["single", "batch", "ndjson", "sse"]
"""single: one line per message. batch: a message is a JSON array of lines (subprotocol logrelay.v1.batch). Over plain
HTTP, ndjson: a line of text for each; sse: a Server-Sent Event for each, with its id."""

Chosen = tuple[Sequence[bytes], Sequence[int]]
"""Viewer messages and their seqs."""

SEGMENT_BYTES = 48 * 1024
"""Bytes handed to a viewer's socket at once. What the kernel does not take stays in the relay's memory, and a
stalled viewer is promised to cost less than 64 KiB; one line can be 64 KiB, so it may stand alone over this."""

MAX_SHARED = 256
"""Selections, and context fields, that a batch remembers: far more than viewers have different wishes. Without a bound,
one viewer that changes its subscription all the time would fill the memory of an idle relay."""

_ID = b'"id":"'
"""What stands before the id of a line, near its beginning; an id has no character that JSON escapes."""

_TEXT_FRAME = 0x81
"""FIN and opcode 1 (RFC 6455 section 5.2)."""

_HEADER_BYTES = 4
"""Of a frame between 126 and 65,535 bytes, which nearly all lines are."""

MAX_HEADERS = 4096
"""Sizes whose header is remembered; all that occur in practice, in some 200 KB."""

MAX_KEYS = 4096
"""Keys remembered so that lines share them: far more than loggers times levels times bots."""

Key = tuple[int, str, int, str]
"""Level, source, 0 for notices (the relay's run) or 1, and app: what most filters look at."""

_keys: dict[Key, Key] = {}


class Segment(NamedTuple):
    """Bytes for a viewer's socket, and where it stands when it has them."""

    payload: bytes
    last: int
    """Every line up to this seq has been considered, sent or not wanted."""
    lines: int


_segment: Callable[[tuple[object, ...]], Segment] = partial(tuple.__new__, Segment)
"""Segment of a ready tuple: a line that comes alone makes one."""


class _Headers(dict[int, bytes]):
    """Headers of unmasked, final text frames by payload size (RFC 6455 section 5.2); lines have few sizes."""

    def __missing__(self, size: int) -> bytes:
        if size < 126:
            header = b"%c%c" % (_TEXT_FRAME, size)
        elif size < 65536:
            header = b"%c\x7e%b" % (_TEXT_FRAME, size.to_bytes(2, "big"))
        else:
            header = b"%c\x7f%b" % (_TEXT_FRAME, size.to_bytes(8, "big"))
        if len(self) < MAX_HEADERS:
            self[size] = header
        return header


_header = _Headers()


def frame(payload: bytes) -> bytes:
    """Wrap a text message in a WebSocket frame."""
    return _header[len(payload)] + payload


def segments_of(bodies: Sequence[bytes], seqs: Sequence[int], form: Form) -> list[Segment]:
    """Cut rendered lines into segments of about `SEGMENT_BYTES`, in order."""
    if not bodies:
        return []
    if len(bodies) == 1:
        (body,) = bodies
        return [_segment((_header[len(body)] + body if form == "single" else _join(bodies, form), seqs[0], 1))]
    sizes = list(accumulate([len(body) + _HEADER_BYTES for body in bodies]))
    if sizes[-1] <= SEGMENT_BYTES:
        return [Segment(_join(bodies, form), seqs[-1], len(bodies))]
    out = []
    start, base = 0, 0
    while start < len(bodies):
        end = max(bisect_right(sizes, base + SEGMENT_BYTES, start), start + 1)
        out.append(Segment(_join(bodies[start:end], form), seqs[end - 1], end - start))
        start, base = end, sizes[end - 1]
    return out


def _join(bodies: Sequence[bytes], form: Form) -> bytes:
    if form == "batch":
        return frame(b"[%b]" % b",".join(bodies))
    if form == "ndjson":
        return b"\n".join([*bodies, b""])
    if form == "sse":
        return b"".join([b"id: %b\ndata: %b\n\n" % (_id_in(body), body) for body in bodies])
    if len(bodies) == 1:
        return _header[len(bodies[0])] + bodies[0]
    # Header and body go into the one join that makes the segment: a line is copied once.
    headers = map(_header.__getitem__, map(len, bodies))
    return b"".join(chain.from_iterable(zip(headers, bodies, strict=True)))


def _id_in(body: bytes) -> bytes:
    """Return the id of a rendered line."""
    start = body.index(_ID) + len(_ID)
    return body[start : body.index(b'"', start)]


_body = attrgetter("body")
"""Mapped and not asked for in a comprehension, which is a call of its own: most batches are of one line."""


_looked_at = itemgetter(*(Line._fields.index(name) for name in ("level", "source", "run", "app")))


def _keys_of(lines: Sequence[Line]) -> list[Key]:
    if len(_keys) > MAX_KEYS:
        _keys.clear()
    if len(lines) == 1:
        level, source, run, app = _looked_at(lines[0])
        key = (level, source, run and 1, app)
        return [_keys.setdefault(key, key)]
    keys = [(level, source, run and 1, app) for level, source, run, app in map(_looked_at, lines)]
    return list(map(_keys.setdefault, keys, keys))


class Batch:
    """Lines with contiguous seqs. Reads message and context from the caller while fresh, from the body later.

    Once compacted, it holds the viewer messages and, when somebody has been sent all of them, their frames.
    """

    __slots__ = (
        "_blob",
        "_bodies",
        "_cache",
        "_columns",
        "_contexts",
        "_fresh",
        "_lowered",
        "_messages",
        "_whole",
        "alias",
        "count",
        "first",
        "keys",
        "keyset",
        "last",
        "lines",
        "size",
    )

    def __init__(
        self,
        lines: list[Line],
        messages: list[str] | None = None,
        contexts: list[dict[str, object]] | None = None,
        keys: list[Key] | None = None,
    ) -> None:
        self.lines: Sequence[Line] = lines
        """The lines; empty once compacted."""
        self.count = len(lines)
        self.first = lines[0].seq
        self.last = lines[-1].seq
        self._bodies: Sequence[bytes] = list(map(_body, lines))
        self._blob = b""
        """Once compacted, the bodies as one object: thousands of small ones that live on among millions that do not
        would keep five times their size of memory from being given back."""
        self.size = sum(map(len, self._bodies))
        self.keys: list[Key] = _keys_of(lines) if keys is None else keys
        self.keyset: frozenset[Key] = frozenset(self.keys)
        self.alias: tuple[str, str] | None = None
        self._fresh = True
        self._messages = messages
        self._contexts = contexts
        self._lowered: dict[bool, list[bytes]] = {}
        self._columns: dict[str, dict[str, list[int]]] = {}
        self._cache: dict[object, list[Segment]] = {}
        self._whole: dict[Form, list[Segment]] = {}
        """All lines as segments. Kept as long as the batch: viewers a little behind stand at their boundaries."""

    @classmethod
    def merge(cls, batches: Sequence[Batch]) -> Batch:
        """Make one batch of several that follow each other, while they are fresh."""
        lines = [line for batch in batches for line in batch.lines]
        keys = [key for batch in batches for key in batch.keys]
        if any(batch._messages is None for batch in batches):  # noqa: SLF001  (the same class)
            return cls(lines, keys=keys)
        messages: list[str] = []
        contexts: list[dict[str, object]] = []
        for batch in batches:
            decoded = batch._decoded()  # noqa: SLF001
            messages += decoded[0]
            contexts += decoded[1]
        return cls(lines, messages, contexts, keys)

    def absorb(self, others: Sequence[Batch]) -> None:
        """Take over the lines of the batches that follow; all of them are compacted.

        A bot logs a line at a time, and a batch of one line takes a kilobyte and a half besides it.
        """
        self._blob = b"\n".join([self._blob, *(other._blob for other in others)])  # noqa: SLF001  (the same class)
        self.keys = [*self.keys, *(key for other in others for key in other.keys)]
        self.keyset = frozenset(self.keys)
        self.count += sum(other.count for other in others)
        self.size += sum(other.size for other in others)
        self.last = others[-1].last
        self._whole = {}

    def provisional(self, epoch: str, alias: str) -> None:
        """Send these lines under the epoch `alias`, because the journal does not hold them yet.

        Call before the first `segments`.
        """
        self.alias = (epoch, alias)
        old, new = f'"id":"{epoch}-'.encode(), f'"id":"{alias}-'.encode()
        self._bodies = [body.replace(old, new, 1) for body in self._bodies]

    def compact(self) -> None:
        """Forget what only matters while the lines are fresh, decoded contexts and shared bytes; keep none again."""
        if not self._fresh:
            return
        self._fresh = False
        self.lines = ()
        self._blob, self._bodies = b"\n".join(self._bodies), ()
        self._messages = self._contexts = None
        self._lowered = {}
        self._columns = {}
        self._cache = {}

    def bodies(self) -> Sequence[bytes]:
        """Return the viewer messages, with provisional ids where `provisional` was called."""
        return self._bodies or self._blob.split(b"\n")

    def select(self, wanted: Filter) -> Sequence[int] | None:
        """Return the indices of the lines that pass, ascending; None stands for all of them."""
        if wanted.everything:
            return None
        passing = frozenset(k for k in self.keyset if k[2] != RELAY_RUN and wanted.wants(k[0], k[1], k[3]))
        notices = self._chosen_notices(wanted)
        if wanted.by_content:
            chosen = self._select_content(wanted, passing)
            return sorted({*chosen, *notices}) if notices else chosen
        if not notices:
            if len(passing) == len(self.keyset):
                return None
            return [i for i, key in enumerate(self.keys) if key in passing] if passing else ()
        if len(notices) == self.count:
            return None
        return sorted([*notices, *(i for i, key in enumerate(self.keys) if key in passing)])

    @property
    def has_notices(self) -> bool:
        """True when there is a notice among the lines."""
        return any(key[2] == RELAY_RUN for key in self.keyset)

    def _notices(self) -> list[int]:
        return [i for i, key in enumerate(self.keys) if key[2] == RELAY_RUN] if self.has_notices else []

    def _chosen_notices(self, wanted: Filter) -> list[int]:
        """Return the indices of the notices that pass."""
        notices = self._notices()
        if not notices or not wanted.by_notice:
            return notices
        return [i for i in notices if wanted.notice_passes(self.keys[i][0], *self._content(i))]

    def uncounted(self, wanted: Filter) -> frozenset[int]:
        """Return the indices of the notices that come besides what was asked for: they count toward no number."""
        return frozenset(i for i in self._notices() if not wanted.notice_counts(self.keys[i][0], *self._content(i)))

    def _content(self, index: int) -> tuple[str, dict[str, object]]:
        """Return message and context of one line."""
        if self._messages is not None and self._contexts is not None:
            return self._messages[index], self._contexts[index]
        return read_body(self.bodies()[index])

    def _select_content(self, wanted: Filter, passing: frozenset[Key]) -> Sequence[int]:
        keys = self.keys
        if wanted.where:
            chosen: set[int] | None = None
            for name, value in wanted.where:
                found = self._column(name).get(value, ())
                chosen = set(found) if chosen is None else chosen.intersection(found)
            candidates = sorted(i for i in chosen or () if keys[i] in passing)
        else:
            candidates = [i for i, key in enumerate(keys) if key in passing]
        if wanted.runs:
            names = self._run_names()
            candidates = [i for i in candidates if wanted.run_passes(names[i])]
        if wanted.edges:
            edges = self._edges()
            candidates = [i for i in candidates if wanted.edge_passes(edges[i])]
        if wanted.text:
            needle, hay = ascii_lower(wanted.text), self._lower(named=is_named(wanted.text))
            candidates = [i for i in candidates if needle in hay[i]]
        return candidates

    def _decoded(self) -> tuple[list[str], list[dict[str, object]]]:
        if self._messages is not None and self._contexts is not None:
            return self._messages, self._contexts
        read = [read_body(body) for body in self.bodies()]
        messages = [message for message, _ in read]
        contexts = [context for _, context in read]
        if self._fresh:
            self._messages, self._contexts = messages, contexts
        return messages, contexts

    def _run_names(self) -> list[str]:
        if self.lines:
            return [line.run_name for line in self.lines]
        return list(map(run_of_body, self.bodies()))

    def _edges(self) -> list[str]:
        if self.lines:
            return [line.edge for line in self.lines]
        return list(map(edge_of_body, self.bodies()))

    def _lower(self, *, named: bool) -> list[bytes]:
        lowered = self._lowered.get(named)
        if lowered is None:
            lowered = [
                search_text(message, context, named=named) for message, context in zip(*self._decoded(), strict=True)
            ]
            if self._fresh:
                self._lowered[named] = lowered
        return lowered

    def _column(self, name: str) -> dict[str, list[int]]:
        """Index the lines by one context field, once per batch: a hundred viewers may ask for a hundred values."""
        column = self._columns.get(name)
        if column is None:
            column = {}
            for index, context in enumerate(self._decoded()[1]):
                if name in context:
                    column.setdefault(field_text(context[name]), []).append(index)
            if self._fresh and len(self._columns) < MAX_SHARED:
                self._columns[name] = column
        return column

    def segments(self, wanted: Filter, form: Form, behind: int = 0) -> list[Segment]:
        """Return the selected lines after seq `behind` as segments; while fresh, the same objects for equal selections.

        The last segment's `last` may lie before the batch's: lines that were not wanted follow it.
        """
        indices = None if wanted.everything else self.select(wanted)
        if indices is None:
            return self._all(form, behind)
        if behind >= self.first:
            return segments_of(*self.chosen(wanted, behind), form)
        key = (form, tuple(indices))
        made = self._cache.get(key)
        if made is None:
            made = segments_of(*self._pick(indices), form)
            if self._fresh and len(self._cache) < MAX_SHARED:
                self._cache[key] = made
        return made

    def _all(self, form: Form, behind: int) -> list[Segment]:
        """Return all lines after `behind`; nothing is joined anew for a viewer that stands between two segments."""
        whole = self._whole.get(form)
        if whole is None:
            bodies = self._bodies or self.bodies()
            whole = self._whole[form] = segments_of(bodies, range(self.first, self.last + 1), form)
        if behind < self.first:
            return whole
        at = bisect_right(whole, behind, key=lambda segment: segment.last)
        if at == len(whole) or (at and whole[at - 1].last == behind):
            return whole[at:]
        end = whole[at].last
        rest = segments_of(
            self.bodies()[behind - self.first + 1 : end - self.first + 1], range(behind + 1, end + 1), form
        )
        return rest + whole[at + 1 :]

    def chosen(self, wanted: Filter, behind: int = 0) -> Chosen:
        """Return the selected lines after seq `behind`."""
        indices = self.select(wanted)
        if behind >= self.first:
            start = behind - self.first + 1
            indices = [i for i in (range(self.count) if indices is None else indices) if i >= start]
        return self._pick(indices)

    def _pick(self, indices: Sequence[int] | None) -> Chosen:
        bodies = self.bodies()
        if indices is None:
            return bodies, range(self.first, self.last + 1)
        return [bodies[i] for i in indices], [self.first + i for i in indices]
