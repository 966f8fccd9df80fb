"""What changes while the journal does not keep up: provisional ids, bounded memory, and the way back.

Owns: the batches that wait for their commit, the decision that the journal is in trouble, the provisional epoch, how
much may wait before reading is paused, and the two steps of recovery. It must not know threads, timers or sockets, nor
publish or commit anything: it is told what happened and returns what is to be done; time is an argument (`mono`, a
clock that never steps, in seconds). Pure. Read `pipeline` next: it carries the decisions out.

While the journal cannot be written (disk full, a stalled fsync), viewers go on getting live lines. Those lines are
provisional: they are not acked, so the traders keep them, and they go out under an epoch of their own
(`<epoch>.<random>`), so that an id still always means the same line. When the journal works again the lines are
committed, and with them the provisional epoch as an alias: ids that viewers hold become good. If the relay dies before
that, a viewer that resumes with such an id is told which of the lines it was shown are not in the journal.

    normal      lines are published after their commit, under the journal's epoch
    degraded    lines are published at once, under the provisional epoch; `trouble` says why
    recovering  new lines wait for their commit again, but not all provisional ones are committed yet
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from logrelay.fanout.batch import Batch
from logrelay.fanout.positions import PROVISIONAL_CHARS, Epochs

COMMIT_DEADLINE_S = 1.0
"""A commit that takes longer than this is trouble: a viewer should not wait for a disk for more than a second."""

DEGRADED_BYTES = 64 * 1024 * 1024
"""Lines held in memory while the journal cannot take them. Beyond it the relay stops reading, and the traders'
own bounded memory takes over; at a bot's ten lines a second this is some hours."""

BUSY_BYTES = 512 * 1024
"""Lines taken and not committed while the journal works: a large transaction or two. A loop that reads faster than
the disk takes would only fill the memory; the kernel and the traders have room of their own."""

BUSY_S = 0.05
"""Lines that wait longer than this for their commit give it the processor. Whoever sends without pause would keep it
from the journal's thread, and so the lines of all others from viewers. Three times what the largest commit takes."""

MAX_ALIASES = 64
"""Provisional epochs remembered, as many as the journal does: a disk that comes and goes makes one every second."""

MIN_RECHECK_S = 0.01
"""A timer may fire a little early; the next one is set at least this far away, so that none fires in a row."""


@dataclass(slots=True)
class _Pending:
    batch: Batch
    since: float
    """Monotonic time of its submission."""
    acks: list[tuple[int, int]]
    """Run id and the seq to ack when the batch is committed."""


@dataclass(slots=True)
class Committed:
    """What a commit's report makes due: batches to publish, acks to send."""

    unpublished: list[Batch]
    """Batches that viewers have not been shown yet, in order."""
    acks: dict[int, int]
    """The last committed seq by run id."""


class DegradedMode:
    """Whether the journal keeps up, and what is to be done differently while it does not.

    `epochs` are those of the journal, `aliases` the provisional ones of earlier troubles that were committed.
    `random_text(n)` returns n random characters for a new one. `commit_deadline_s`: see COMMIT_DEADLINE_S.
    """

    def __init__(
        self,
        epochs: Epochs,
        aliases: Iterable[str],
        *,
        random_text: Callable[[int], str],
        commit_deadline_s: float = COMMIT_DEADLINE_S,
    ) -> None:
        self.trouble: str | None = None
        """Why the journal is not being written, or None. Written to by this class only, like all that is here."""
        self.alias: str | None = None
        """The provisional epoch under which lines are published at present; None: they wait for their commit."""
        self.commit_deadline_s = commit_deadline_s
        self._epochs = epochs
        self._aliases = dict.fromkeys(aliases)
        """Provisional epochs, the oldest first."""
        self._random_text = random_text
        self.pending: deque[_Pending] = deque()
        """What waits for its commit, the oldest first; changed by this class only."""
        self._pending_bytes = 0
        self.reading_paused = False
        """There is no room for more lines."""

    # --- lines come and go --------------------------------------------------------------------------------------

    def add(self, batch: Batch, acks: list[tuple[int, int]], mono: float) -> None:
        """Note a batch that has been submitted; `acks` are run ids and the seqs to ack once it is committed.

        While `alias` is set, the caller publishes it at once (`make_provisional`).
        """
        self.pending.append(_Pending(batch, mono, acks))
        self._pending_bytes += batch.size

    def take_committed(self, upto: int) -> Committed:
        """Note that everything up to `upto` is in the journal; returns what can now be published and acked."""
        pending = self.pending
        unpublished: list[Batch] = []
        acks: dict[int, int] = {}
        while pending and pending[0].batch.last <= upto:
            done = pending.popleft()
            self._pending_bytes -= done.batch.size
            acks.update(done.acks)
            if done.batch.alias is None:
                unpublished.append(done.batch)
        return Committed(unpublished, acks)

    def make_provisional(self, batch: Batch) -> None:
        """Give a batch the provisional epoch, right before it is published."""
        assert self.alias is not None, "only while degraded"
        batch.provisional(self._epochs.current, self.alias)

    @property
    def waiting(self) -> bool:
        """True while a batch waits for its commit."""
        return bool(self.pending)

    @property
    def pending_lines(self) -> int:
        """Lines submitted and not committed yet."""
        return sum(pending.batch.count for pending in self.pending)

    # --- in and out of trouble ----------------------------------------------------------------------------------

    def is_late(self, mono: float, written: int = 0) -> bool:
        """Tell whether a commit has taken too long, and nothing has been done about it yet.

        `written` is the newest seq that the journal's thread has written, by its own account: what only has not been
        reported yet is not late.
        """
        pending = self.pending
        if not pending or self.alias is not None or pending[0].batch.last <= written:
            return False
        return mono - pending[0].since >= self.commit_deadline_s

    def next_check(self, mono: float) -> float | None:
        """Return the seconds until `is_late` is to be asked again; None while nothing waits."""
        if not self.pending:
            return None
        if self.alias is not None:
            return self.commit_deadline_s
        return max(self.pending[0].since + self.commit_deadline_s - mono, MIN_RECHECK_S)

    def enter(self, reason: str) -> list[Batch] | None:
        """Note that the journal does not keep up, and why. None: that was known.

        Otherwise a new `alias` has been chosen. The caller commits it, and publishes the returned batches, which have
        been waiting for their commit, after `make_provisional`.
        """
        self.trouble = reason
        if self.alias is not None:
            return None
        self.alias = self._epochs.provisional(self._random_text(PROVISIONAL_CHARS))
        return [pending.batch for pending in self.pending if pending.batch.alias is None]

    def recover(self, mono: float) -> bool:
        """Take the steps out of trouble that are possible after a commit. Returns True when the last one was taken.

        First, once commits are quick again, new lines wait for their commit; then, once all provisional lines are
        committed, the trouble is over.
        """
        pending = self.pending
        if self.alias is not None and (not pending or mono - pending[0].since < self.commit_deadline_s):
            self._aliases[self.alias] = None
            if len(self._aliases) > MAX_ALIASES:
                del self._aliases[next(iter(self._aliases))]
            self.alias = None
        if self.trouble is None or self.alias is not None or (pending and pending[0].batch.alias is not None):
            return False
        self.trouble = None
        return True

    # --- memory -------------------------------------------------------------------------------------------------

    def update_reading(self, mono: float) -> Literal["pause", "resume"] | None:
        """Return whether traders are to be read no more, or again; None: as before.

        There is room for what is read: little while the journal keeps up, much while it does not. While it keeps up,
        what is read waits for what has been read before it.
        """
        pending, in_trouble = self.pending, self.alias is not None
        room = DEGRADED_BYTES if in_trouble else BUSY_BYTES
        is_busy = not in_trouble and bool(pending) and mono - pending[0].since > BUSY_S
        if self.reading_paused:
            if not is_busy and self._pending_bytes < room // 2:
                self.reading_paused = False
                return "resume"
        elif is_busy or self._pending_bytes > room:
            self.reading_paused = True
            return "pause"
        return None

    # --- ids ----------------------------------------------------------------------------------------------------

    def epoch_of(self, seq: int) -> str:
        """Return the epoch under which a published line is shown."""
        if self.trouble is not None:
            for pending in reversed(self.pending):
                if pending.batch.first <= seq:
                    alias = pending.batch.alias
                    return alias[1] if alias else self._epochs.of(seq)
        return self._epochs.of(seq)

    @property
    def aliases(self) -> Collection[str]:
        """The provisional epochs whose ids mean lines of this journal."""
        return self._aliases if self.alias is None else {*self._aliases, self.alias}
