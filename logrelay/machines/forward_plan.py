"""Where an edge goes on, and which messages a page of its journal makes. Without I/O.

Owns: `resume`, which compares what the journal remembers with what the stream has, and `Cutter`, which makes batches of
rows. It must not know NATS clients, threads or files. Pure. Read `forwarder` next: it does what is decided here.

The stream is asked first, for it knows what it has. The journal's own note counts where the stream says nothing: its
retention has taken the edge's last message, or somebody has purged it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from logrelay.errors import RequestError
from logrelay.fanout.positions import Epochs, split_id
from logrelay.journal.interface import RowPage
from logrelay.machines.stream_batch import Hole, Origin, StreamBatch, StreamLine, stream_line
from logrelay.model import ForwardRow


class LastMessage(NamedTuple):
    """The edge's last message in the stream."""

    journal: str
    id: str
    """Of its last line."""
    stream_seq: int


class Resume(NamedTuple):
    """Where to go on."""

    journal: str
    """Our name in what is published from now on."""
    seq: int
    """Everything up to here is in the stream, or was told to be missing."""
    after: str
    """The id of the last line that the stream has of us; empty: none that is known."""
    expected: int
    """The sequence of our last message in the stream; 0: there is none."""
    other: str = ""
    """The id of a last line that is not of this journal; empty: there is none such."""
    acknowledged: int = 0
    """Lines that the stream had although the journal did not know it."""


def resume(
    noted: ForwardRow | None,
    last: LastMessage | None,
    *,
    made: str,
    epochs: Epochs,
    oldest: int,
    head: int,
    new_journal: Callable[[], str],
) -> Resume:
    """Decide where to go on.

    `noted` is what the journal remembers of this stream, `last` what the stream has, `made` when it was made. `epochs`
    are the journal's, `oldest` and `head` its ends. `new_journal` makes a name for a journal that has none.
    """
    journal = noted.journal if noted is not None else ""
    noted_seq = None if noted is None else _seq_of(noted.position, epochs, head)
    if last is not None:
        seq = _seq_of(last.id, epochs, head)
        if seq is not None:
            known = noted_seq if noted_seq is not None else oldest - 1
            # Behind what was noted: the stream has lost what it had acknowledged, and gets it again.
            return Resume(last.journal, seq, last.id, last.stream_seq, acknowledged=max(0, seq - known))
        if not journal or journal == last.journal or noted_seq is None:
            journal, noted_seq = new_journal(), None
        begin = noted_seq if noted_seq is not None and noted is not None and noted.made == made else oldest - 1
        return Resume(journal, begin, last.id, last.stream_seq, other=last.id)
    if noted is not None and noted_seq is not None and noted.made == made:
        return Resume(journal, noted_seq, noted.position, 0)
    return Resume(journal if noted_seq is not None and journal else new_journal(), oldest - 1, "", 0)


def _seq_of(id_: str, epochs: Epochs, head: int) -> int | None:
    """Return what the id of a line means in this journal; None: it is of another."""
    try:
        return epochs.resolve(id_, aliases=(), head=head, head_id="").seq
    except RequestError:
        return None


@dataclass(frozen=True, slots=True)
class Cut:
    """What a page has come to."""

    batches: list[StreamBatch]
    reached: int
    """Everything up to here is in them, or only consists of other edges' lines."""


class Cutter:
    """Makes batches of pages, in order, as one chain. Belongs to one thread.

    `epoch_of` gives the epoch of a seq, `is_collected` tells whether a line came from the stream itself.
    """

    def __init__(
        self,
        edge: str,
        begin: Resume,
        *,
        epoch_of: Callable[[int], str],
        is_collected: Callable[[bytes], bool] = lambda _body: False,
    ) -> None:
        self._edge, self._journal = edge, begin.journal
        self._epoch_of, self._is_collected = epoch_of, is_collected
        self._covered = begin.seq
        """Batches have been made of everything up to here."""
        self._after = begin.after
        self._holes: list[Hole] = []
        """Behind `_covered`, waiting for a line: there is nothing to be told yet."""

    def cut(self, page: RowPage) -> Cut:
        """Make batches of the next page."""
        lines, holes = self._sorted(page)
        if lines and not holes and not self._holes and self._is_whole(lines, page.reached):
            return Cut([self._batch(lines, [], page.reached, self._epoch_of(page.reached))], page.reached)
        batches: list[StreamBatch] = []
        part: list[StreamLine] = []
        gone: list[Hole] = self._holes
        self._holes = []
        at = self._covered + 1 if not gone else gone[-1].last + 1
        epoch = ""
        pieces: list[StreamLine | Hole] = sorted([*lines, *holes], key=_first)
        for piece in pieces:
            first, last = (piece.first, piece.last) if isinstance(piece, Hole) else (piece.seq, piece.seq)
            if last < at:
                continue
            if first > at:
                gone = _joined(gone, Hole(at, first - 1, "corrupt" if first > page.oldest else "retention"))
            if isinstance(piece, Hole):
                gone = _joined(gone, Hole(max(first, at), last, piece.cause))
            else:
                if part and self._epoch_of(first) != epoch:
                    batches.append(self._batch(part, gone, first - 1, epoch))
                    part, gone = [], []
                epoch = self._epoch_of(first)
                part.append(piece)
            at = last + 1
        if at <= page.reached:
            gone = _joined(gone, Hole(at, page.reached, "corrupt"))
            at = page.reached + 1
        if part or any(hole.cause != "collected" for hole in gone):
            batches.append(self._batch(part, gone, at - 1, epoch or self._epoch_of(at - 1)))
        else:
            self._holes = gone
        return Cut(batches, at - 1)

    def _is_whole(self, lines: list[StreamLine], reached: int) -> bool:
        """Tell whether the lines go on without a hole, and are of one epoch: the usual page, which need not be cut."""
        first, last = lines[0].seq, lines[-1].seq
        return (
            first == self._covered + 1
            and last == reached
            and last - first + 1 == len(lines)
            and self._epoch_of(first) == self._epoch_of(last)
        )

    def _sorted(self, page: RowPage) -> tuple[list[StreamLine], list[Hole]]:
        origins = [Origin(*origin) for origin in page.origins]
        of_line = map(origins.__getitem__, page.places)
        columns = zip(page.seqs, page.ranks, page.times, of_line, page.bodies, strict=True)
        lines = list(map(stream_line, columns))
        holes = [Hole(*hole) for hole in page.holes]
        taken = [line for line in lines if self._is_collected(line.body)]
        if taken:
            seqs = {line.seq for line in taken}
            lines = [line for line in lines if line.seq not in seqs]
            holes += [Hole(seq, seq, "collected") for seq in seqs]
        if page.oldest > self._covered + 1:
            holes = [hole for hole in holes if hole.last >= page.oldest]
            begin = self._holes[-1].last + 1 if self._holes else self._covered + 1
            if begin < page.oldest:
                holes.append(Hole(begin, page.oldest - 1, "retention"))
        return lines, holes

    def _batch(self, lines: list[StreamLine], holes: list[Hole], last: int, epoch: str) -> StreamBatch:
        first = self._covered + 1
        batch = StreamBatch(self._edge, self._journal, epoch, first, last, self._after, lines, holes)
        self._covered, self._after = last, batch.id
        return batch


def _first(piece: StreamLine | Hole) -> int:
    return piece.seq if isinstance(piece, StreamLine) else piece.first


def _joined(holes: list[Hole], hole: Hole) -> list[Hole]:
    if holes and holes[-1].cause == hole.cause and holes[-1].last + 1 == hole.first:
        return [*holes[:-1], Hole(holes[-1].first, hole.last, hole.cause)]
    return [*holes, hole]


def row_of(batch: StreamBatch, *, target: str, stream_seq: int, made: str) -> ForwardRow:
    """Return what the journal is to remember once a batch is in the stream."""
    return ForwardRow(target, batch.journal, batch.id, stream_seq, made)


def seq_of(row: ForwardRow) -> int:
    """Return the seq of the last line that was acknowledged."""
    return split_id(row.position)[1]
