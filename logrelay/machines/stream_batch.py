"""A stretch of an edge's journal as one message of the stream, and back.

Owns: the subject, the headers and the body of such a message (docs/machines.md has them as a table), and how a stretch
is cut to what a server takes. It must not know NATS clients, files or what becomes of the lines. Pure. Read
`edge_state` next: it is the other thing that an edge says.

A batch covers every seq from `first` to `last`: each is either a line or lies in a hole that says why it is none. So
whoever has all batches of an edge has all of its journal, and knows it from the headers alone:

* A line is named by edge, epoch and seq. Seqs of one epoch only rise, so whoever remembers of each epoch the last seq
  that it has taken (as the journal does for a run) takes each line once, also when a batch is published again.
* `after` is the id of the last line of the edge's batch before this one. Where that is not what was taken last, batches
  are missing between both (the stream's own retention has taken them); within one journal seqs count on over all of its
  epochs, so their difference is how many lines are missing.
* Another `journal` is another numbering: the edge's file was wiped or replaced.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack

from logrelay.fanout.positions import MAX_SEQ, is_id, split_id
from logrelay.model import RANKS

VERSION = "1"
"""Of headers and body. A message of another version is refused: its hub relay has to be upgraded first."""

LINES_SUBJECT, STATE_SUBJECT = "logrelay.lines.", "logrelay.state."
"""In front of the edge's name."""

EDGE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a name may be: one token of a NATS subject, and short enough for a column on a phone."""

HOLE_CAUSES = ("retention", "corrupt", "purged", "too_large", "collected")
"""Why lines are not in a batch that covers them. Those of `collected` are no loss: the edge had them from the stream,
where their own edges have put them."""

HEADER_BYTES = 1024
"""Kept free of a server's max_payload, which counts headers, too; ours take some 500 bytes at most."""
LEAST_PAYLOAD = 4096
"""A server that takes smaller messages is not used: the notice about a line that is too large has to fit into one, or
it would be the next such line."""
LINE_BYTES = 40
"""What a line takes besides its body, at most: five integers and two lengths."""
HOLE_BYTES = 40
"""What a hole takes, at most."""
MOST_BATCH_LINES = 65_536
"""A decoder takes no more lines or holes: five times what the edge sends."""

H_VERSION, H_EDGE, H_JOURNAL, H_EPOCH = "Logrelay-Version", "Logrelay-Edge", "Logrelay-Journal", "Logrelay-Epoch"
H_FIRST, H_LAST, H_AFTER = "Logrelay-First", "Logrelay-Last", "Logrelay-After"
H_LINES, H_LEVELS = "Logrelay-Lines", "Logrelay-Levels"
MESSAGE_ID, EXPECTED_LAST = "Nats-Msg-Id", "Nats-Expected-Last-Subject-Sequence"

_WORDS = {rank: word for word, rank in RANKS.items()}
_EPOCH = re.compile(r"[a-z0-9]{1,16}")
_JOURNAL = re.compile(r"[a-z0-9]{1,32}")
_NUMBER = re.compile(r"[0-9]{1,16}")


class BadBatchError(ValueError):
    """A message is not a batch as this version knows it. The text says what is wrong with it."""


class Origin(NamedTuple):
    """Who logged a line. Few of them in a batch; equal ones are one object."""

    app: str
    """Name of the bot; empty: a notice of the edge itself."""
    run_name: str
    """The run as viewers see it; empty for notices, and for lines from before there were names."""
    host: str
    """Host of the bot, as it said in its hello; empty where the edge has forgotten the run."""
    source: str


class StreamLine(NamedTuple):
    """A line of an edge's journal."""

    seq: int
    rank: int
    """Level rank, 10 to 50: CRITICAL lines are ERROR in the body."""
    found_us: int
    """Microseconds: what the bot's clock said, by which the line is found. The body's `timestamp` is another where that
    clock had been set back."""
    origin: Origin
    body: bytes
    """The viewer message as the edge's viewers get it, with the edge's id."""


stream_line: Callable[[tuple[object, ...]], StreamLine] = partial(tuple.__new__, StreamLine)
"""A line of a ready tuple, in half the time."""


class Hole(NamedTuple):
    """Seqs without a line, ends included."""

    first: int
    last: int
    cause: str
    """One of HOLE_CAUSES."""

    @property
    def size(self) -> int:
        """How many lines they were."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """A stretch of an edge's journal: every seq from `first` to `last`, both included."""

    edge: str
    journal: str
    """Random name of the edge's journal: it stays the same as long as its seqs count on."""
    epoch: str
    """Epoch of the lines. A hole in front of them may begin in an earlier one."""
    first: int
    last: int
    after: str = ""
    """Id of the last line of the batch before; empty: the edge knows of none."""
    lines: list[StreamLine] = field(default_factory=list)
    """Ascending by seq."""
    holes: list[Hole] = field(default_factory=list)
    """Ascending; between, before and behind the lines."""

    @property
    def id(self) -> str:
        """Id of the last line: the `after` of the next batch."""
        return f"{self.epoch}-{self.last}"

    @property
    def subject(self) -> str:
        """Where it is published."""
        return LINES_SUBJECT + self.edge

    @property
    def missing(self) -> int:
        """Lines that are lost: those in the holes, without the ones that other edges have put into the stream."""
        return sum(hole.size for hole in self.holes if hole.cause != "collected")


def payload_objection(most: int) -> str | None:
    """Return why a server that takes messages of up to `most` bytes is not used; None: it is."""
    if most >= LEAST_PAYLOAD:
        return None
    return f"its max_payload is {most:,} bytes; at least {LEAST_PAYLOAD:,} are needed, and 1 MiB is its default"


def edge_name_of(host: str) -> str:
    """Make an edge's name of the name of its machine: what may not stand in one becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", host).strip("-")[:64] or "edge"


def levels_text(lines: Iterable[StreamLine]) -> str:
    """Write how many lines of which level there are: `info=20 error=1`."""
    counts = Counter(line.rank for line in lines)
    return " ".join(f"{_WORDS[rank]}={counts[rank]}" for rank in sorted(counts))


def encode(batch: StreamBatch, *, expected_last: int | None) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a batch.

    `expected_last` is the sequence in the stream of the edge's last message, 0: there is none. The server refuses the
    message when that is another one, so that a batch is stored once, however often and however late it is sent again.
    """
    headers = {
        H_VERSION: VERSION,
        H_EDGE: batch.edge,
        H_JOURNAL: batch.journal,
        H_EPOCH: batch.epoch,
        H_FIRST: str(batch.first),
        H_LAST: str(batch.last),
        H_LINES: str(len(batch.lines)),
        MESSAGE_ID: f"{batch.edge}.{batch.epoch}.{batch.first}.{batch.last}",
    }
    if batch.after:
        headers[H_AFTER] = batch.after
    if batch.lines:
        headers[H_LEVELS] = levels_text(batch.lines)
    if expected_last is not None:
        headers[EXPECTED_LAST] = str(expected_last)
    places: dict[Origin, int] = {}
    for line in batch.lines:
        places.setdefault(line.origin, len(places))
    columns = [
        list(places),
        [line.seq for line in batch.lines],
        [line.rank for line in batch.lines],
        [line.found_us for line in batch.lines],
        [places[line.origin] for line in batch.lines],
        [line.body for line in batch.lines],
        batch.holes,
    ]
    packed: bytes = msgpack.packb(columns)
    return headers, packed


def split(batch: StreamBatch, max_payload: int) -> list[StreamBatch]:
    """Cut a batch so that each part is a message of at most `max_payload` bytes, in order.

    A line that is larger by itself becomes a hole (`too_large`).
    """
    room = max(1, max_payload - HEADER_BYTES)
    origins = {id(line.origin): line for line in batch.lines}
    named = sum(_size(line) - len(line.body) for line in origins.values())
    rows = sum(len(line.body) for line in batch.lines) + LINE_BYTES * len(batch.lines)
    if rows + named + HOLE_BYTES * len(batch.holes) <= room:
        return [batch]
    parts: list[StreamBatch] = []
    pieces: list[tuple[int, StreamLine | Hole]] = [(line.seq, line) for line in batch.lines]
    pieces += [(hole.last, hole) for hole in batch.holes]
    pieces.sort(key=itemgetter(0))
    first, after, size = batch.first, batch.after, 0
    lines: list[StreamLine] = []
    holes: list[Hole] = []
    for last, piece in pieces:
        if isinstance(piece, StreamLine) and _size(piece) > room:
            piece = Hole(last, last, "too_large")  # noqa: PLW2901  (what is sent in its place)
        takes = HOLE_BYTES if isinstance(piece, Hole) else _size(piece)
        if size and size + takes > room:
            before = piece.first - 1 if isinstance(piece, Hole) else last - 1
            parts.append(replace(batch, first=first, last=before, after=after, lines=lines, holes=holes))
            first, after, size, lines, holes = before + 1, parts[-1].id, 0, [], []
        if isinstance(piece, Hole):
            holes.append(piece)
        else:
            lines.append(piece)
        size += takes
    parts.append(replace(batch, first=first, after=after, lines=lines, holes=holes))
    return parts


def _size(line: StreamLine) -> int:
    origin = line.origin
    # Every line might have an origin of its own; four bytes is the longest that a character can be.
    named = 4 * (len(origin.app) + len(origin.run_name) + len(origin.host) + len(origin.source)) + 16
    return len(line.body) + LINE_BYTES + named


def decode(headers: Mapping[str, str] | None, body: bytes) -> StreamBatch:
    """Return the batch of a message. Raises BadBatchError; whatever the bytes are, nothing else."""
    if not headers:
        raise BadBatchError("it has no headers")
    version = headers.get(H_VERSION)
    if version != VERSION:
        raise BadBatchError(f"its version is {_shown(version)}; this relay reads {VERSION}: upgrade the hub relay")
    head = StreamBatch(
        _matching(headers, H_EDGE, EDGE_NAME),
        _matching(headers, H_JOURNAL, _JOURNAL),
        _matching(headers, H_EPOCH, _EPOCH),
        _number(headers, H_FIRST),
        _number(headers, H_LAST),
        headers.get(H_AFTER, ""),
    )
    if not 1 <= head.first <= head.last <= MAX_SEQ:
        raise BadBatchError(f"it says that it has the lines {head.first} to {head.last}")
    if head.after and (not is_id(head.after) or split_id(head.after)[1] > MAX_SEQ):
        raise BadBatchError(f"its {H_AFTER} is {_shown(head.after)}, which is no id")
    lines, holes = _read_body(body)
    batch = replace(head, lines=lines, holes=holes)
    if _number(headers, H_LINES) != len(batch.lines):
        raise BadBatchError(f"it says that it has {headers[H_LINES]} lines, and has {len(batch.lines)}")
    _check_cover(batch)
    return batch


def position_of(headers: Mapping[str, str] | None) -> tuple[str, str]:
    """Return journal and id of the last line of a message by its headers alone. Raises BadBatchError."""
    if not headers:
        raise BadBatchError("it has no headers")
    last = _number(headers, H_LAST)
    if not 1 <= last <= MAX_SEQ:
        raise BadBatchError(f"its last line is {last}")
    return _matching(headers, H_JOURNAL, _JOURNAL), f"{_matching(headers, H_EPOCH, _EPOCH)}-{last}"


def _read_body(body: bytes) -> tuple[list[StreamLine], list[Hole]]:
    try:
        columns = msgpack.unpackb(body, use_list=True, max_ext_len=0)
    except Exception as error:  # msgpack raises a dozen kinds, some of them ValueErrors of their own
        raise BadBatchError(f"its body is no msgpack: {error}") from None
    if type(columns) is not list or len(columns) != 7 or any(type(column) is not list for column in columns):
        raise BadBatchError("its body is not an array of seven arrays")
    named, seqs, ranks, times, places, bodies, holes = columns
    if not len(seqs) == len(ranks) == len(times) == len(places) == len(bodies) <= MOST_BATCH_LINES:
        raise BadBatchError(f"its columns have different lengths, or more than {MOST_BATCH_LINES} lines")
    if len(named) > len(seqs) or len(holes) > MOST_BATCH_LINES:
        raise BadBatchError("it has too many origins or holes")
    if any(type(row) is not list or len(row) != 4 or any(type(text) is not str for text in row) for row in named):
        raise BadBatchError("an origin is not an array of four texts")
    origins = [Origin(*row) for row in named]
    if not (_all(int, seqs) and _all(int, ranks) and _all(int, times) and _all(int, places) and _all(bytes, bodies)):
        raise BadBatchError("a column has a value of another type")
    if not set(ranks) <= _WORDS.keys() or (places and not 0 <= min(places) <= max(places) < len(origins)):
        raise BadBatchError("a line has a level or an origin that there is not")
    if times and not -1 << 62 < min(times) <= max(times) < 1 << 62:
        raise BadBatchError("a line has a time that is none")
    if not _are_objects(bodies):
        raise BadBatchError("the body of a line is no JSON object in one line")
    of_line = map(origins.__getitem__, places)
    lines = list(map(stream_line, zip(seqs, ranks, times, of_line, bodies, strict=True)))
    return lines, [_hole(row) for row in holes]


def _are_objects(bodies: list[bytes]) -> bool:
    """Tell whether each body begins and ends as an object and is one line, all at once: lines come in thousands."""
    if not bodies:
        return True
    text, between = b"\n".join(bodies), len(bodies) - 1
    return (
        text.count(b"\n") == text.count(b"}\n{") == between and bodies[0].startswith(b"{") and bodies[-1].endswith(b"}")
    )


def _hole(row: Any) -> Hole:
    if type(row) is not list or len(row) != 3 or not _all(int, row[:2]) or row[2] not in HOLE_CAUSES:
        raise BadBatchError("a hole is not an array of two seqs and a cause")
    return Hole(*row)


def _check_cover(batch: StreamBatch) -> None:
    """See to it that every seq is there once."""
    if not batch.holes and [line.seq for line in batch.lines] == list(range(batch.first, batch.last + 1)):
        return
    ranges = [*((line.seq, line.seq) for line in batch.lines), *((hole.first, hole.last) for hole in batch.holes)]
    if any(low > high for low, high in ranges):
        raise BadBatchError("a hole ends before it begins")
    at = batch.first
    if [line.seq for line in batch.lines] != sorted(line.seq for line in batch.lines):
        raise BadBatchError("its lines are not in order")
    for low, high in sorted(ranges):
        if low != at:
            raise BadBatchError(f"it has neither line nor hole for {at}, or has it twice")
        at = high + 1
    if at != batch.last + 1:
        raise BadBatchError(f"it ends with {at - 1}, and says with {batch.last}")


def _all(kind: type, values: Sequence[object]) -> bool:
    return set(map(type, values)) <= {kind}


def _number(headers: Mapping[str, str], name: str) -> int:
    return int(_matching(headers, name, _NUMBER))


def _matching(headers: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> str:
    value = headers.get(name)
    if value is None or pattern.fullmatch(value) is None or not value.isascii():
        raise BadBatchError(f"its header {name} is {_shown(value)}")
    return value


def _shown(value: str | None) -> str:
    return "missing" if value is None else repr(value[:40])
