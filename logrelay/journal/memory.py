"""The journal that keeps nothing: `--journal :memory:`.

Owns: `MemoryJournal`, the newest lines in a bounded amount of memory, under a new epoch at each start. It
must not touch the disk. Read `journal/writer_thread` next.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import orjson

from logrelay.errors import JournalError
from logrelay.fanout.line_json import read_body
from logrelay.fanout.summary import Summary, add_body
from logrelay.journal.interface import (
    Keeping,
    Opening,
    Page,
    Query,
    Room,
    RowOrigin,
    RowPage,
    SummaryPage,
    UpkeepNotice,
)
from logrelay.model import RELAY_RUN, CollectedRow, Commit, Line
from logrelay.run_table import RunTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_BYTES = 64 << 20
"""What is kept when nobody says otherwise: about 150,000 lines."""
LINE_COST = 160
"""Bytes a kept line takes besides its body: the row, its numbers, its slot."""
BLOCK_LINES = 512
"""Lines per block; whole blocks are dropped, and a reader copies one at a time."""
SUMMARY_LINES = 4096
"""Lines counted at a time: some 30 ms."""
PAGE_SECONDS = 0.05
"""One page() call looks at lines for about this long."""


class _Row(NamedTuple):
    time_us: int
    level: int
    source: str
    run: int
    body: bytes
    app: str


class _Block:
    __slots__ = ("first", "rows", "size")

    def __init__(self, first: int) -> None:
        self.first = first
        self.rows: list[_Row] = []
        self.size = 0


class MemoryJournal:
    """Keeps the newest lines in memory. See `Journal` for what each method promises."""

    def __init__(
        self,
        *,
        random_epoch: Callable[[], str],
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
        head: int = 0,
    ) -> None:
        """Keep up to `max_bytes`, bookkeeping included, of the lines behind `head`."""
        self._epoch, self._max_bytes, self._clock = random_epoch(), max_bytes, clock
        self._lock = Lock()
        self._blocks: deque[_Block] = deque()
        self._size = 0
        self._head = head
        self._runs = RunTable()
        self._aliases: set[str] = set()
        self._collected: dict[int, CollectedRow] = {}
        self._open = False
        self._pruned = 0

    @property
    def pruned(self) -> int:
        """Lines dropped so far."""
        return self._pruned

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self.prune()

    @property
    def pruned_for(self) -> Mapping[str, int]:
        """All of them for their size."""
        return {"size": self._pruned}

    def take_notices(self) -> list[UpkeepNotice]:
        """Nobody is told: this journal promises to keep nothing."""
        return []

    def open(self) -> Opening:
        """Begin; always under an epoch of its own."""
        self._open = True
        with self._lock:
            runs, aliases, collected = self._runs.copy(), set(self._aliases), list(self._collected.values())
            return Opening(self._epoch, self._oldest(), self._head, runs, aliases, collected=collected)

    def append_now(self, commit: Commit) -> bool:
        """Keep the lines: it never takes long."""
        self.append(commit)
        return True

    def reopen(self) -> Opening:
        """There is nothing that could have been lost."""
        return self.open()

    def append(self, commit: Commit) -> None:
        """Keep the lines, and drop the oldest beyond the limit (the newest block stays whatever its size)."""
        self._check()
        lines = commit.lines
        if lines and (lines[0].seq != self._head + 1 or lines[-1].seq != self._head + len(lines)):
            raise JournalError(
                f"lines {lines[0].seq} to {lines[-1].seq} do not follow line {self._head} of the journal",
                retry=False,
            )
        with self._lock:
            for line in lines:
                if not self._blocks or len(self._blocks[-1].rows) >= BLOCK_LINES:
                    self._blocks.append(_Block(line.seq))
                block = self._blocks[-1]
                cost = len(line.body) + LINE_COST
                found_us = line.time_us if line.clock_us is None else line.clock_us
                block.rows.append(_Row(found_us, line.level, line.source, line.run, line.body, line.app))
                block.size += cost
                self._size += cost
            self._head += len(lines)
            while self._size > self._max_bytes and len(self._blocks) > 1:
                gone = self._blocks.popleft()
                self._size -= gone.size
                self._pruned += len(gone.rows)
            self._aliases.update(commit.aliases)
            self._runs.change(commit.runs, commit.forgotten)
            self._collected |= {row.id: row for row in commit.collected}

    def keep(self, _keeping: Keeping) -> None:
        """Change nothing: what is kept in memory has a limit of its own."""

    def prune(self) -> int:
        """Return the oldest seq; `append` has dropped what is too much already."""
        with self._lock:
            return self._oldest()

    def due(self) -> float:
        """There is never anything to do."""
        return float("inf")

    def derive(self, *, seconds: float) -> bool:  # noqa: ARG002  (as the interface has it)
        """There is nothing that is made behind the head."""
        return False

    @property
    def index_behind(self) -> int:
        """There is no index that could lack lines."""
        return 0

    def checkpoint(self, *, idle: bool) -> None:
        """There is no log."""

    def sync(self) -> float:
        """There is no disk."""
        return float("inf")

    def page(self, query: Query) -> Page:
        """Read, block by block; a block is looked at without the lock."""
        self._check()
        with self._lock:
            oldest, head, blocks = self._oldest(), self._head, list(self._blocks)
        low, high = max(query.after, oldest - 1), min(query.until, head)
        began, left, room = self._clock(), query.limit, query.max_bytes
        notices_left = query.notices if query.newest else None
        bodies: list[bytes] = []
        seqs: list[int] = []
        beside, notices_from = 0, 0
        reached, complete = (query.after if query.newest else max(query.after, high)), True
        for looked_at, (seq, row) in enumerate(self._walk(blocks, low, high, newest=query.newest)):
            matched = _matches(query, seq, row)
            full = left <= 0 or (matched and room < len(row.body) and bool(bodies))
            late = self._clock() - began > PAGE_SECONDS
            # However late the first row is looked at, a page gets somewhere.
            if full or (looked_at and late):
                reached, complete = (seq if query.newest else seq - 1), False
                break
            if not matched:
                continue
            if row.run == RELAY_RUN and not query.filter.notice_counts(row.level, *read_body(row.body)):
                if notices_left == 0:
                    notices_from = notices_from or seq + 1
                    continue
                notices_left = None if notices_left is None else notices_left - 1
                beside += 1
            else:
                left -= 1
            bodies.append(row.body)
            seqs.append(seq)
            room -= len(row.body)
        if query.newest:
            bodies.reverse()
            seqs.reverse()
        return Page(bodies, seqs, reached, complete, oldest, beside=beside, notices_from=notices_from)

    @staticmethod
    def _walk(blocks: list[_Block], low: int, high: int, *, newest: bool) -> Iterator[tuple[int, _Row]]:
        """Give the rows of `low < seq <= high`, each with its seq, a copy of one block at a time."""
        for block in reversed(blocks) if newest else blocks:
            start, stop = max(low + 1, block.first), min(high, block.first + len(block.rows) - 1)
            if start > stop:
                continue
            rows = list(islice(block.rows, start - block.first, stop - block.first + 1))
            numbered = list(enumerate(rows, start))
            yield from reversed(numbered) if newest else numbered

    def rows(self, after: int, *, max_bytes: int) -> RowPage:
        """Read lines as rows."""
        self._check()
        with self._lock:
            oldest, head, blocks = self._oldest(), self._head, list(self._blocks)
            hosts = {run.id: run.host for run in self._runs}
        places: dict[RowOrigin, int] = {}
        found: list[tuple[int, int, int, int, bytes]] = []
        size, reached = 0, max(after, head)
        for seq, row in self._walk(blocks, max(after, oldest - 1), head, newest=False):
            if found and size + len(row.body) > max_bytes:
                reached = seq - 1
                break
            name = "" if row.run == RELAY_RUN else str(orjson.loads(row.body).get("run", ""))
            origin = RowOrigin(row.app, name, hosts.get(row.run, ""), row.source)
            found.append((seq, row.level, row.time_us, places.setdefault(origin, len(places)), row.body))
            size += len(row.body)
        seqs, ranks, times, of_line, bodies = map(list, zip(*found, strict=True)) if found else ([], [], [], [], [])
        return RowPage(seqs, ranks, times, of_line, bodies, list(places), [], reached, oldest)

    def summarize(self, query: Query) -> SummaryPage:
        """Count what a page has."""
        everything = replace(query, limit=SUMMARY_LINES, filter=replace(query.filter, notices="all"))
        page, summary = self.page(everything), Summary()
        for seq, body in zip(page.seqs, page.bodies, strict=True):
            add_body(summary, query.filter, seq, body)
        return SummaryPage(summary, page.reached, page.complete)

    def lines_at(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Return the viewer messages of some lines."""
        found: dict[int, bytes] = {}
        for seq in seqs:
            page = self.page(Query(seq - 1, seq, 1))
            if page.bodies:
                found[seq] = page.bodies[0]
        return found

    def levels(self, first: int, last: int) -> dict[int, int]:
        """Count the kept lines of a stretch by level rank."""
        self._check()
        with self._lock:
            counts = Counter(
                row.level
                for block in self._blocks
                if block.first <= last and block.first + len(block.rows) > first
                for row in islice(block.rows, max(0, first - block.first), max(0, last - block.first + 1))
            )
        return dict(sorted(counts.items()))

    @property
    def damaged_lines(self) -> int:
        """Memory is not damaged without the process ending."""
        return 0

    def disturbed(self) -> bool:
        """There are no files."""
        return False

    def room(self) -> Room:
        """There is no log and no disk."""
        return Room()

    def disk_bytes(self) -> int:
        """Bytes of memory the lines take, near enough."""
        return self._size

    def close(self) -> None:
        """Forget everything."""
        self._open = False
        with self._lock:
            self._blocks.clear()
            self._size = 0

    def _check(self) -> None:
        if not self._open:
            raise JournalError("the journal is not open", retry=False)

    def _oldest(self) -> int:
        return self._blocks[0].first if self._blocks else self._head + 1


def _matches(query: Query, seq: int, row: _Row) -> bool:
    """Ask the filter; the body is parsed only when text or fields are asked for."""
    if query.since_us is not None and row.time_us < query.since_us:
        return False
    if query.until_us is not None and row.time_us >= query.until_us:
        return False
    wanted = query.filter
    notice = row.run == RELAY_RUN
    if wanted.everything or (notice and not wanted.by_notice):
        return True
    if notice and wanted.notices == "no":
        return False
    if not notice:
        if not wanted.wants(row.level, row.source, row.app):
            return False
        if not wanted.by_content:
            return True
    said = orjson.loads(row.body)
    line = Line(seq, row.time_us, row.level, row.source, row.run, b"", said["message"], said["context"])
    line = line._replace(run_name=str(said.get("run", "")), edge=str(said.get("edge", "")))
    return wanted.matches(line) if notice else wanted.content_matches(line)
