"""What the answers of the relay's HTTP side are made of, for a file that no relay answers for.

Owns: `JournalFacts`, the `RelayFacts` of a journal's file, and `FileSource`, which asks the very code that answers for
a running relay (`http/api`), so that a search in a file and one at a relay cannot differ. It must not read the file
itself: `journal/read_only` does. Read `terminal/finding` next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

from logrelay import __version__
from logrelay.fanout.line_json import rfc3339
from logrelay.fanout.positions import Position, id_of
from logrelay.http.api import HttpApi
from logrelay.journal.interface import Page, Query, SummaryPage
from logrelay.journal.read_only import ReadOnlyJournal
from logrelay.terminal.answer import Answer
from logrelay.viewers.alerting import NoAlerts

Progress = Callable[[float | None], None]
"""Told which share of the work is done, from 0 to 1; None: it cannot be known."""


class JournalFacts:
    """The facts of a file. Blocks while it reads: there is nobody else to wait for."""

    limited = False

    def __init__(self, journal: ReadOnlyJournal, progress: Progress = lambda _share: None) -> None:
        """`progress` is told how far each walk over the journal is."""
        self._journal, self._progress = journal, progress

    @property
    def head(self) -> int:
        """Seq of the newest line; 0 when there is none."""
        return self._journal.head

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self._journal.oldest

    def status(self) -> Mapping[str, object]:
        """Return what the file says; nobody is connected as far as it knows."""
        journal = self._journal
        return {
            "version": __version__,
            "epoch": journal.epochs.current,
            "head": self.id_of(journal.head),
            "oldest": self.id_of(journal.oldest),
            "journal": {"trouble": None, "bytes": journal.disk_bytes(), "damaged_lines": journal.damaged_lines},
            "traders": [
                {
                    "app": run.app,
                    "host": run.host,
                    "pid": run.pid,
                    "run": run.name,
                    "state": run.state,
                    "last_line": rfc3339(run.last_us) if run.last_us else None,
                    "last_line_age_s": None,
                }
                for run in reversed(journal.runs)  # the most recently seen first, as a relay tells them
            ],
        }

    def ready(self) -> bool:
        """Tell that nobody takes lines."""
        return False

    def counters(self) -> Mapping[str, int | float]:
        """Return nothing: a file counts nothing."""
        return {}

    def alerts(self) -> Mapping[str, object]:
        """Return that there are none: only a running relay sends alerts."""
        return NoAlerts().shown()

    def labelled(self) -> Mapping[str, Sequence[tuple[Mapping[str, str], int | float]]]:
        """Return nothing, likewise."""
        return {}

    async def read(self, query: Query) -> Page:
        """Read from the file. Raises JournalError."""
        page = self._journal.page(query)
        low, high = max(query.after, self.oldest - 1), min(query.until, self.head)
        if high > low:
            done = high - page.reached if query.newest else page.reached - low
            whole = self.head - self.oldest + 1
            self._progress(1.0 if page.complete else min(1.0, (whole - (high - low) + done) / whole))
        return page

    async def summarize(self, query: Query) -> SummaryPage:
        """Have the file count. Raises JournalError."""
        return self._journal.summarize(query)

    async def lines_at(self, seqs: Sequence[int], /) -> dict[int, bytes]:
        """Read some lines. Raises JournalError."""
        return self._journal.lines_at(seqs)

    def id_of(self, seq: int) -> str:
        """Return the id of a position."""
        return id_of(self._journal.epochs.of(seq), seq)

    def resolve(self, id_: str, /) -> Position:
        """Return what an id means. Raises RequestError."""
        journal = self._journal
        return journal.epochs.resolve(id_, aliases=journal.aliases, head=journal.head, head_id=self.id_of(journal.head))


class FileSource:
    """Answers requests from the journal's file at `path`, which is opened anew for each of them."""

    follows = False
    """It has no live stream: who wants new lines asks again."""

    def __init__(self, path: str) -> None:
        """Name the file. Nothing is opened."""
        self.path = path

    @property
    def name(self) -> str:
        """What a person is told was read."""
        return f"journal {self.path}"

    def get(self, target: str, progress: Progress = lambda _share: None) -> Answer:
        """Answer a request such as `/logs?limit=5`. Raises JournalError."""
        journal = ReadOnlyJournal(self.path)
        answer = HttpApi(JournalFacts(journal, progress)).answer("GET", target, {})
        return Answer(answer.status, dict(answer.headers), _chunks(journal, answer.body))


def _chunks(journal: ReadOnlyJournal, body: bytes | AsyncGenerator[bytes, None]) -> Iterator[bytes]:
    """Give the parts of an answer's body as they are made, and close the file behind it."""
    try:
        if isinstance(body, bytes):
            yield body
            return
        with asyncio.Runner() as runner:
            try:
                while (chunk := runner.run(_next(body))) is not None:
                    yield chunk
            finally:
                runner.run(body.aclose())
    finally:
        journal.close()


async def _next(body: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(body, None)
