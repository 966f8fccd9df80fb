"""Where a line stands: the ids that viewers hold, and the positions they mean.

Owns: how an id is written and read, which epochs this journal has had, and what an id of each of them means now. It
must not know lines, viewers or the journal: the epochs and the head are arguments. No I/O. Read `fanout/hub` next.

A position is (epoch, seq), written `<epoch>-<seq>`. Seq counts all lines of a journal; an epoch names the lines that
were written between one opening of the journal and the next. A provisional epoch, `<epoch>.<random><epoch before>`,
names lines that were shown before the journal held them.

    epoch   k3f9ab          x07pq2               m4c8zd (this opening)
    seq     1 ... 481       482 ... 950          951 ...

Why each opening has an epoch of its own: what is not synced can be gone when the journal is opened again, after a power
cut, with a backup that was put back, or with a snapshot of the whole machine. The numbers behind the newest line that
is left are then given out once more, and only another epoch keeps them apart from those that viewers hold. What is left
is always a beginning of what there was, so an id up to the end of its epoch still means the same line, and one beyond
it says exactly which lines its viewer was shown and the journal no longer has: `k3f9ab-601` above, 482 to 601.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import NamedTuple

from logrelay.errors import RequestError, quoted

EXAMPLE_ID = "k3f9ab-1042"
"""What an error message shows to somebody who sent something else."""

SHOWN_CHARS = 60
"""How much of a wrong id an error repeats: a valid one has at most 53 characters."""

MAX_EPOCHS = 2000
"""Epochs that a journal remembers: those of a relay that is restarted every five minutes for a week. The oldest is
forgotten first, and its ids are then those of another journal; there is nothing else that they could cost."""

PROVISIONAL_CHARS = 4
"""Random characters of a provisional epoch: two times of trouble of one journal are not to share an id."""

LONGEST_NAME = 16
"""Characters on either side of the dot in an epoch, at most."""

MAX_SEQ = 2**53 - 1
"""No journal gets there, and beyond it JavaScript could not read the numbers in a gap notice."""

_ID = re.compile(r"([a-z0-9]{1,16}(?:\.[a-z0-9]{1,16})?)-([0-9]{1,19})")


def id_of(epoch: str, seq: int) -> str:
    """Write the id of a position."""
    return f"{epoch}-{seq}"


def is_id(text: str) -> bool:
    """Tell whether the text has the form of an id, of whatever journal."""
    return _ID.fullmatch(text) is not None


def split_id(id_: str) -> tuple[str, int]:
    """Split an id into epoch and seq. Raises RequestError (`bad_id`)."""
    match = _ID.fullmatch(id_)
    if not match:
        raise RequestError("bad_id", f"{quoted(id_, SHOWN_CHARS)} is not an id such as {EXAMPLE_ID!r}")
    return match[1], int(match[2])


class Epoch(NamedTuple):
    """An epoch that a journal has had."""

    name: str
    first: int
    """Seq of its first line; its last one is that before the first of the next epoch."""
    shared: bool = False
    """True: lines of several openings have it, as those of versions before do, which kept one epoch for good."""


class Lost(NamedTuple):
    """Lines that a viewer was shown under an epoch, and that the journal does not have."""

    epoch: str
    first: int
    last: int

    @property
    def lines(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


class Position(NamedTuple):
    """What an id means in this journal."""

    seq: int
    """The line of the id; where that was lost, the last one before it that was not."""
    lost: Lost | None = None
    """The lines behind `seq`, up to that of the id, which the journal does not have."""

    @property
    def end(self) -> int:
        """The seq that what comes before the id lies below."""
        return self.seq if self.lost is None else self.seq + 1


class Epochs:
    """The epochs of one journal, as they are while it is open. Does not change.

    `earlier` are those of former openings, oldest first; `current` is the epoch of the lines from seq `first` on.
    """

    def __init__(self, earlier: Sequence[Epoch], current: str, first: int) -> None:
        self.current = current
        """The epoch that new lines get."""
        self._names = [*(epoch.name for epoch in earlier), current]
        # A line that is gone has no epoch: nothing that was written earlier lies behind what is left.
        self._starts = [*(min(epoch.first, first) for epoch in earlier), first]
        self._ends = dict(zip(self._names[:-1], (start - 1 for start in self._starts[1:]), strict=True))
        self._shared = {epoch.name for epoch in earlier if epoch.shared}

    def of(self, seq: int) -> str:
        """Return the epoch of a position; that of the oldest line known for one before it."""
        return self._names[max(0, bisect_right(self._starts, seq) - 1)]

    def resolve(self, id_: str, *, aliases: Collection[str], head: int, head_id: str) -> Position:
        """Return what an id means now that the newest line is `head`, shown as `head_id`.

        `aliases` are the provisional epochs whose lines were committed. Raises RequestError: `bad_id`, or `expired`
        when the id is of another journal, of an epoch that was forgotten, or ahead of what this opening has given out.
        """
        of, seq = split_id(id_)
        name = self._own(of, aliases)
        if name is None:
            message = f"{id_} is an id of another journal, or of an epoch that this one does not remember"
            raise RequestError("expired", f"{message}; its newest line is {head_id}")
        end = head if name == self.current else self._ends[name]
        if seq <= end:
            return Position(seq)
        if name == self.current or seq > MAX_SEQ:
            raise RequestError("expired", f"{id_} is ahead of this journal, whose newest line is {head_id}")
        return Position(end, Lost(of, end + 1, seq))

    def provisional(self, random: str) -> str:
        """Return a name for a provisional epoch; `random` has PROVISIONAL_CHARS characters.

        It ends with the last epoch before this opening: an opening that commits nothing leaves no trace, and then that
        is where its lines would have followed.
        """
        before = self._names[-2] if len(self._names) > 1 else ""
        return f"{self.current}.{random}{before}"[: len(self.current) + 1 + LONGEST_NAME]

    def _own(self, of: str, aliases: Collection[str]) -> str | None:
        """Return the epoch of this journal that the epoch of an id stands for."""
        name, _, random = of.partition(".")
        if name != self.current and name not in self._ends:
            before = random[PROVISIONAL_CHARS:]
            return before if before in self._ends else None
        # A number was given once in an opening: of one that is over, a provisional id means the line of its number,
        # whether the journal was told of the provisional epoch or not.
        if random and of not in aliases and (name == self.current or name in self._shared):
            return None
        return name
