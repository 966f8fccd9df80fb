"""Gives every line its seq, and gathers what will be committed and published together.

Owns: the next seq, the lines of the tick in progress and the runs they changed. It must not know where the lines come
from or what happens to them. Pure. Read `fanout/line_json` next for the form of a line, and `fanout/collected_line`
for that of one from another machine, then `pipeline`: it takes the lines and has them committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from logrelay.fanout.batch import Batch
from logrelay.fanout.collected_line import CollectedLine, CollectedLines, collected_line, collected_lines
from logrelay.fanout.line_json import log_line, notice_line
from logrelay.model import CRITICAL, CollectedRow, Commit, Line, Run
from logrelay.visible_text import visible

CLOCK_STEP_US = 1_000_000
"""A clock that runs back by more than a second was set back; less is threads overtaking each other."""


class Sequencer:
    """Collects the lines of one tick; `take` hands them out as one commit and one batch.

    `epoch` is the journal's and `next_seq` the place of the next line. `on_notice` is called with the rank and the text
    of every notice, for those who read the relay's own stderr.
    """

    __slots__ = (
        "_collected",
        "_contexts",
        "_epoch",
        "_forgotten",
        "_lines",
        "_messages",
        "_next_seq",
        "_notice_us",
        "_on_notice",
        "_runs",
        "_undecoded",
        "bytes_total",
        "has_critical",
        "lines_total",
    )

    def __init__(self, epoch: str, next_seq: int, *, on_notice: Callable[[int, str], None]) -> None:
        self._epoch = epoch
        self._next_seq = next_seq
        self._on_notice = on_notice
        self._notice_us = 0
        """Timestamp of the last notice: those rise strictly, like any run's."""
        self.lines_total = 0
        """Lines and notices handed out."""
        self.bytes_total = 0
        """Bytes of their bodies."""
        self._lines: list[Line] = []
        self._messages: list[str] = []
        self._contexts: list[dict[str, object]] = []
        self._runs: dict[int, Run] = {}
        self._forgotten: list[tuple[int, bytes]] = []
        self._collected: dict[int, CollectedRow] = {}
        self._undecoded = False
        """There are lines of which message and context are only in the body: the batch reads them where it has to."""
        self.has_critical = False
        """A CRITICAL line has been added: the next commit has to wait for the disk."""

    @property
    def head(self) -> int:
        """The seq of the last line that was added."""
        return self._next_seq - 1

    def add_line(self, run: Run, time_us: int, rank: int, event: dict[Any, Any], clock_us: int | None = None) -> None:
        """Add a trader's line; `event` is consumed. The caller guarantees that `time_us` rises within the run.

        `clock_us`: what the trader's clock said, where that is not `time_us` because it was set back.
        """
        seq = self._next_seq
        line, message, context = log_line(self._epoch, seq, run.id, run.app, time_us, rank, event, run.key, clock_us)
        self._next_seq = seq + 1
        self._lines.append(line)
        self._messages.append(message)
        self._contexts.append(context)
        if rank == CRITICAL:
            self.has_critical = True

    def add_notice(
        self,
        now_us: int,
        rank: int,
        notice: str,
        message: str,
        details: Mapping[str, object],
        *,
        on_stderr: bool = True,
    ) -> None:
        """Add one of the relay's own lines: `notice` is its kind (docs/protocol.md), `details` its other context."""
        seq = self._next_seq
        message = visible(message)
        self._notice_us = max(now_us, self._notice_us + 1)
        clock_us = now_us if self._notice_us - now_us > CLOCK_STEP_US else None
        line, message, context = notice_line(
            self._epoch, seq, self._notice_us, rank, notice, message, details, clock_us
        )
        self._next_seq = seq + 1
        self._lines.append(line)
        self._messages.append(message)
        self._contexts.append(context)
        if on_stderr:
            self._on_notice(rank, message)

    def add_collected(self, found: CollectedLine) -> None:
        """Add a line of another machine. None waits for the disk, CRITICAL or not: it can be collected again."""
        line, message, context = collected_line(self._epoch, self._next_seq, found)
        self._next_seq += 1
        self._lines.append(line)
        self._messages.append(message)
        self._contexts.append(context)

    def add_all_collected(self, found: CollectedLines) -> None:
        """Add usual lines of another machine, each as `add_collected` does."""
        lines = collected_lines(self._epoch, self._next_seq, found)
        self._next_seq += len(lines)
        self._lines += lines
        self._undecoded = True

    def note_collected(self, rows: Iterable[CollectedRow]) -> None:
        """Write how far machines have been collected with the next commit: the one that has the lines added before."""
        self._collected |= {row.id: row for row in rows}

    def tell_stderr(self, rank: int, text: str) -> None:
        """Say something to those who read stderr, and to nobody else."""
        self._on_notice(rank, visible(text))

    def touch(self, run: Run) -> None:
        """Write the run's row with the next commit."""
        self._runs[run.id] = run

    def forget(self, run: Run) -> None:
        """Delete the run's row with the next commit. It is not touched again."""
        self._runs.pop(run.id, None)
        self._forgotten.append((run.id, run.key))

    def take(self) -> tuple[Commit, Batch | None] | None:
        """Hand out what has gathered; None when there is nothing. The batch is None when only runs changed."""
        if not self._lines and not self._runs and not self._forgotten and not self._collected:
            return None
        runs = list(map(Run.copy, self._runs.values()))
        collected: Sequence[CollectedRow] = ()
        if self._collected:
            collected, self._collected = list(self._collected.values()), {}
        commit = Commit(self._lines, runs, (), self.has_critical, self._forgotten, (), collected)
        decoded = (None, None) if self._undecoded else (self._messages, self._contexts)
        batch = Batch(self._lines, *decoded) if self._lines else None
        if batch is not None:
            self.lines_total += batch.count
            self.bytes_total += batch.size
        self._lines, self._messages, self._contexts = [], [], []
        self._runs, self._forgotten = {}, []
        self.has_critical = self._undecoded = False
        return commit, batch
