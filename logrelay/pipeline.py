"""The way of a line through the relay: taken from a trader, committed, acked, published.

Owns: the order of those steps, and what happens when the journal does not keep up. It must not know sockets or
SQLite: it gets an `Ingest`, a journal writer and a `Hub` from the daemon and introduces them to each other.
Read `hub` next for what viewers get, `journal.writer` for the other thread.

    traders -> sequencer -> writer thread: commit -> ack to the traders, batch to the hub -> viewers

**Trouble.** While the journal cannot be written (disk full, a stalled fsync), viewers go on getting live lines. Those
lines are provisional: they are not acked, so the traders keep them, and they go out under an epoch of their own
(`<epoch>.<random>`), so that an id still always means the same line. When the journal works again the lines
are committed, and with them the provisional epoch as an alias: ids that viewers hold become good. If the relay dies
before that, the alias was never written, and a viewer that resumes with such an id is told of a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from logrelay.errors import JournalError
from logrelay.fanout.batch import Batch, Chosen, Form, Segment, segments_of
from logrelay.fanout.compression import Deflater, deflate_segments
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub import Fetch, Found, Gap, Hub, Pack, Sink, Viewer
from logrelay.fanout.line_json import gap_body
from logrelay.fanout.positions import resolve_id
from logrelay.ingest.frames import Frame, Hello
from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.server import TraderServer
from logrelay.ingest.trader_registry import Trader, TraderConnection, TraderRegistry
from logrelay.journal.interface import Opening, Page, Query
from logrelay.journal.writer_thread import Writer
from logrelay.model import ERROR, WARNING, Commit

PATIENCE_S = 1.0
"""A commit that takes longer than this is trouble: a viewer should not wait for a disk for more than a second."""

PENDING_BYTES = 64 * 1024 * 1024
"""Lines held in memory while the journal cannot take them. Beyond it the relay stops reading, and the traders'
own bounded memory takes over; at a bot's ten lines a second this is some hours."""

BUSY_BYTES = 512 * 1024
"""Lines taken and not committed while the journal works: a large transaction or two. A loop that reads faster than
the disk takes would only fill the memory; the kernel and the traders have room of their own."""

HAND_OVER_STEP_S = 0.1
"""A viewer that has taken nothing for so long is not about to."""

RETRY_READ_S = 1.0
"""After a failed read of the journal, viewers that wait for it are served again this much later."""


@dataclass(slots=True)
class _Pending:
    batch: Batch
    since: float
    """Monotonic time of its submission."""
    runs: list[tuple[int, int]]
    """Run id and the seq to ack when the batch is committed."""


class Relay:
    """Everything between the two doors. Lives on the event loop; the writer calls back through it."""

    def __init__(
        self,
        opening: Opening,
        *,
        loop: asyncio.AbstractEventLoop,
        quiet_after_s: float,
        max_lag: int,
        tail: int,
        random_text: Callable[[int], str],
        say: Callable[[int, str], None],
    ) -> None:
        self.epoch = opening.epoch
        self.aliases = set(opening.aliases)
        self.loop = loop
        self.writer: Writer
        """Set by `start`."""
        self.sequencer = Sequencer(opening.epoch, opening.head + 1, on_notice=say)
        self.traders = TraderRegistry(opening.runs, self.sequencer, quiet_after_s=quiet_after_s, mono=time.monotonic())
        self.hub = Hub(
            head=opening.head,
            oldest=opening.oldest,
            max_lag=max_lag,
            tail=tail,
            ask=self._ask,
            pack=self._pack,
            render_gap=self._render_gap,
        )
        self.ingest: TraderServer | None = None
        self.trouble: str | None = None
        """Why the journal is not being written, or None."""
        self._alias: str | None = None
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._holding = False
        self._of: dict[TraderConnection, Trader] = {}
        self._settled: asyncio.Event | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._clock_at = float("inf")
        self._retry: asyncio.TimerHandle | None = None
        self._random_text = random_text
        self._say = say
        self._stopping = False
        # Threads are made when there is something to compress, not before.
        self._compressor = ThreadPoolExecutor(1, thread_name_prefix="compress")
        self._packers = ThreadPoolExecutor(1, thread_name_prefix="catch-up")
        self.hopeless: Callable[[str], None] = lambda _why: None
        """Called when the journal will not work again in this process; the daemon ends it."""
        for notice in opening.notices:
            self.notice(WARNING, notice, {"state": "journal"})

    # --- Intake: what the traders' door calls -----------------------------------------------------------------

    def hello(self, connection: TraderConnection, hello: Hello) -> int:
        """Admit a run; a second connection of the same run replaces the first."""
        trader, replaced = self.traders.hello(connection, hello, _now_us(), time.monotonic())
        if replaced is not None and replaced is not connection:
            self._of.pop(replaced, None)
            replaced.abort()
        self._of[connection] = trader
        self._set_clock(trader.deadline)
        return trader.committed

    def frames(self, connection: TraderConnection, frames: list[Frame]) -> list[bytes]:
        """Give frames their place in the stream."""
        trader = self._of.get(connection)
        if trader is None:
            return []  # replaced by a newer connection, which will send the rest again
        answers = self.traders.receive(trader, frames, _now_us(), time.monotonic())
        self._set_clock(trader.deadline)
        return answers

    def refused(self, connection: TraderConnection, reason: str) -> None:
        """Say in the stream that a connection was turned away."""
        trader = self._of.get(connection)
        self.traders.refused(reason, _now_us(), time.monotonic(), trader.run.app if trader else None)
        self._set_clock(self.traders.next_deadline())

    def ended(self, connection: TraderConnection) -> None:
        """Note the end of a connection."""
        trader = self._of.pop(connection, None)
        if trader is not None and not self._stopping:
            self.traders.ended(trader, connection, _now_us(), time.monotonic())
            self._set_clock(trader.deadline)

    def tick(self) -> int:
        """Hand what has gathered to the writer; in trouble, to the viewers as well. Returns the number of viewers."""
        taken = self.sequencer.take()
        if taken is not None:
            self._hand_in(*taken)
        return len(self.hub.viewers)

    def _hand_in(self, commit: Commit, batch: Batch | None) -> None:
        self.writer.submit(commit)
        if batch is None:
            return
        runs = [(run.id, run.last_seq) for run in commit.runs]
        self._pending.append(_Pending(batch, time.monotonic(), runs))
        self._pending_bytes += batch.size
        if self._alias is not None:
            self._publish_provisional(batch)
        if self._patience is None:
            self._patience = self.loop.call_later(PATIENCE_S, self._lose_patience)
        self._mind_room()

    def _mind_room(self) -> None:
        """Read on only while there is room for what is read: little while the journal keeps up, much in trouble."""
        if self.ingest is None:
            return
        room = BUSY_BYTES if self._alias is None else PENDING_BYTES
        if self._holding and self._pending_bytes < room // 2:
            self._holding = False
            self.ingest.resume_reading()
        elif not self._holding and self._pending_bytes > room:
            self._holding = True
            self.ingest.pause_reading()
            if self._alias is None:
                return
            self.notice(
                ERROR,
                f"{PENDING_BYTES >> 20} MiB of lines wait for the journal: the relay stops reading; "
                "the traders keep their lines in their own bounded memory",
                {"state": "full"},
            )
            self.flush()

    # --- the writer's reports ---------------------------------------------------------------------------------

    def on_committed(self, upto: int, oldest: int) -> None:
        """Publish and ack everything up to `upto`."""
        pending = self._pending
        fresh: list[Batch] = []
        acks: dict[int, int] = {}
        while pending and pending[0].batch.last <= upto:
            done = pending.popleft()
            self._pending_bytes -= done.batch.size
            acks.update(done.runs)
            if done.batch.alias is None:
                fresh.append(done.batch)
        if fresh:
            self.hub.publish(fresh[0] if len(fresh) == 1 else Batch.merge(fresh))
        self.hub.commit(upto, oldest)
        for run_id, seq in acks.items():
            self.traders.committed(run_id, seq)
        self._mind_room()
        if self.trouble is not None:
            self._perhaps_recover()
        if not pending and self._settled is not None:
            self._settled.set()

    def on_trouble(self, error: JournalError) -> None:
        """The journal refuses lines: go on without it, and say so."""
        self._degrade(str(error))
        if not error.retry:
            self.hopeless(str(error))

    def on_recovered(self, notices: list[str]) -> None:
        """The journal takes lines again; `notices` say what became of it (a corrupt file set aside, ...)."""
        for text in notices:
            self.notice(WARNING, text, {"state": "journal"})
        self.flush()

    def _lose_patience(self) -> None:
        self._patience = None
        if not self._pending:
            return
        waited = time.monotonic() - self._pending[0].since
        if waited >= PATIENCE_S and self._alias is None and not self._stopping:
            self._degrade(f"a commit has taken more than {PATIENCE_S:.0f} s")
        wait = PATIENCE_S if self._alias is not None else max(PATIENCE_S - waited, 0.01)
        self._patience = self.loop.call_later(wait, self._lose_patience)

    def _degrade(self, why: str) -> None:
        self.trouble = why
        if self._alias is not None:
            return
        self._alias = f"{self.epoch}.{self._random_text(4)}"
        self.writer.submit(Commit(aliases=[self._alias]))
        for pending in self._pending:
            if pending.batch.alias is None:
                self._publish_provisional(pending.batch)
        self._mind_room()
        self.notice(
            ERROR,
            f"the journal cannot be written: {why}; lines are shown live, the traders keep them until it works again",
            {"state": "trouble", "reason": why},
        )
        self.flush()

    def _publish_provisional(self, batch: Batch) -> None:
        assert self._alias is not None
        batch.provisional(self.epoch, self._alias)
        self.hub.publish(batch)

    def _perhaps_recover(self) -> None:
        """End the trouble in two steps: first new lines wait for their commit again, then all the old ones have it."""
        pending = self._pending
        if self._alias is not None and (not pending or time.monotonic() - pending[0].since < PATIENCE_S):
            self.aliases.add(self._alias)
            self._alias = None
        if self._alias is not None or (pending and pending[0].batch.alias is not None):
            return
        self.trouble = None
        self.notice(
            WARNING,
            "the journal works again: the lines that were only shown live are kept now",
            {"state": "recovered"},
        )
        self.flush()
        self.hub.retry()

    # --- time ---------------------------------------------------------------------------------------------------

    def _set_clock(self, at: float) -> None:
        """See to it that `pass_time` is called at the monotonic time `at`."""
        if at >= self._clock_at or at == float("inf"):
            return
        if self._clock is not None:
            self._clock.cancel()
        self._clock_at = at
        self._clock = self.loop.call_later(max(0.0, at - time.monotonic()), self._ring)

    def _ring(self) -> None:
        self._clock = None
        self._clock_at = float("inf")
        self.traders.pass_time(_now_us(), time.monotonic())
        self.flush()
        # A quiet trader's deadline moves with every line; the clock is set only when it rings.
        self._set_clock(self.traders.next_deadline())

    def start(self, ingest: TraderServer, writer: Writer) -> None:
        """Learn the traders' door and the journal's thread; begin to watch the time."""
        self.ingest = ingest
        self.writer = writer
        self._set_clock(self.traders.next_deadline())
        self.flush()

    def notice(self, rank: int, message: str, details: dict[str, object]) -> None:
        """Say something about the relay in the stream; it goes out with the next tick or `flush`."""
        self.sequencer.add_notice(_now_us(), rank, "relay", message, details)

    def flush(self) -> None:
        """Have a tick soon, though nothing was read."""
        if self.ingest is not None:
            self.ingest.schedule_tick()

    # --- what the hub asks --------------------------------------------------------------------------------------

    def _ask(self, fetch: Fetch) -> None:
        future: Future[Found]
        if fetch.kind == "pack":
            future = self._packers.submit(_compressed, fetch, Found([], [], fetch.until, True, 0), fetch.chosen)
        elif fetch.kind == "levels":
            future = _then(self.writer.levels(fetch.after + 1, fetch.until), lambda n: Found([], [], 0, True, 0, n))
        else:
            query = Query(
                after=fetch.after,
                until=fetch.until,
                limit=fetch.limit,
                filter=fetch.filter,
                newest=fetch.kind == "start",
                max_bytes=fetch.max_bytes,
            )
            future = _then(self.writer.read(query), lambda page: _found(fetch, page))
        future.add_done_callback(lambda done: self._later(self._answered, fetch, done))

    def _pack(self, pack: Pack) -> None:
        """Compress away from the event loop; one thread, so that packs stay in order."""
        future = self._compressor.submit(_packed, pack)
        future.add_done_callback(lambda done: self._later(self._was_packed, pack, done))

    def _was_packed(self, pack: Pack, future: Future[list[Segment]]) -> None:
        if not future.cancelled():
            error = future.exception()
            # Uncompressed messages are as good to read; only memory could have run out.
            segments = future.result() if error is None else segments_of(pack.bodies, pack.seqs, pack.form)
            self.hub.packed(pack, segments)

    def _later(self, *call: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits for the answer any more
            self.loop.call_soon_threadsafe(*call)  # type: ignore[arg-type]

    def _answered(self, fetch: Fetch, future: Future[Found]) -> None:
        error = future.exception()
        if error is None:
            self.hub.fetched(fetch, future.result())
            return
        self.hub.failed(fetch)
        self._say(ERROR, f"the journal cannot be read: {error}")
        if self._retry is None and not self._stopping:
            self._retry = self.loop.call_later(RETRY_READ_S, self._retry_reads)

    def _retry_reads(self) -> None:
        self._retry = None
        self.hub.retry()

    def id_of(self, seq: int) -> str:
        """Return the id of a position; a provisional one while the journal does not hold it."""
        if self.trouble is not None and seq > self.hub.committed:
            for pending in reversed(self._pending):
                if pending.batch.first <= seq:
                    alias = pending.batch.alias
                    return f"{alias[1] if alias else self.epoch}-{seq}"
        return f"{self.epoch}-{seq}"

    def resolve(self, id_: str) -> int:
        """Return the seq of an id of this journal. Raises RequestError (`bad_id`, `expired`)."""
        aliases = self.aliases if self._alias is None else {*self.aliases, self._alias}
        head = self.hub.head
        return resolve_id(id_, epoch=self.epoch, aliases=aliases, head=head, head_id=self.id_of(head))

    def _render_gap(self, gap: Gap) -> bytes:
        """Render a gap for one viewer; see docs/protocol.md, notices."""
        return gap_body(
            self.id_of(gap.last),
            _now_us(),
            self.epoch,
            cause=gap.cause,
            first=gap.first,
            last=gap.last,
            count=gap.count,
            kept=gap.kept,
            levels=gap.levels,
            detail=gap.detail,
        )

    # --- BEGIN viewers.stream.Stream: what viewers and plain HTTP use of the engine -----------------------------------

    @property
    def head(self) -> int:
        """Seq of the newest published line."""
        return self.hub.head

    @property
    def committed(self) -> int:
        """Seq of the newest line in the journal."""
        return self.hub.committed

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self.hub.oldest

    @property
    def viewer_count(self) -> int:
        """Viewers that have joined."""
        return len(self.hub.viewers)

    @property
    def journal_bytes(self) -> int:
        """Size of the journal on disk."""
        return self.writer.stats().disk_bytes

    def join(self, sink: Sink, wanted: Filter, form: Form, *, deflate: bool = False) -> Viewer:
        """Add a viewer; see `Hub.join`."""
        return self.hub.join(sink, wanted, form, deflate=deflate)

    def start_after(self, viewer: Viewer, seq: int, gap: Gap | None = None) -> None:
        """Begin behind `seq`; see `Hub.start_after`."""
        self.hub.start_after(viewer, seq, gap)

    def start_tail(self, viewer: Viewer, lines: int) -> None:
        """Begin with the newest lines; see `Hub.start_tail`."""
        self.hub.start_tail(viewer, lines)

    def change(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants; see `Hub.change`."""
        self.hub.change(viewer, wanted)

    def resubscribe(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants from its cursor on; see `Hub.resubscribe`."""
        self.hub.resubscribe(viewer, wanted)

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        self.hub.leave(viewer)

    def drained(self, viewer: Viewer) -> None:
        """Go on sending to a viewer whose socket has room again."""
        self.hub.drained(viewer)

    def traders_shown(self) -> list[dict[str, object]]:
        """Return the traders as viewers are told of them."""
        return self.traders.summaries(time.monotonic())

    async def read(self, query: Query) -> Page:
        """Read from the journal's threads. Raises JournalError; cancelling drops the answer."""
        return await asyncio.wrap_future(self.writer.read(query))

    def counters(self) -> dict[str, int | float]:
        """Return what the engine counts, by the names of `http.metrics.METRICS`."""
        hub, counted, stats = self.hub, self.traders.counters, self.writer.stats()
        return {
            "lines_total": self.sequencer.lines_total,
            "bytes_total": self.sequencer.bytes_total,
            "commits_total": stats.commits,
            "journal_bytes": stats.disk_bytes,
            "journal_trouble": int(self.trouble is not None),
            "pending_lines": self.pending_lines,
            "viewers": len(hub.viewers),
            "viewers_behind": hub.behind(),
            "viewer_lines_total": hub.lines_sent,
            "viewer_bytes_total": hub.bytes_sent,
            "viewer_gaps_total": hub.gaps,
            "viewer_lines_skipped_total": hub.lines_skipped,
            "traders": self.traders.connected(),
            "traders_quiet": self.traders.in_state("quiet"),
            "trader_connections_total": counted.connections,
            "trader_lost_lines_total": counted.lost_lines + counted.unexplained_lines,
            "trader_rejected_frames_total": counted.rejected,
            "trader_refused_total": counted.refused,
            "trader_duplicate_frames_total": counted.duplicates,
            "trader_crashes_total": counted.crashed,
        }

    # --- END viewers.stream.Stream ------------------------------------------------------------------------------------

    # --- the end ------------------------------------------------------------------------------------------------

    async def settle(self, timeout_s: float) -> bool:
        """Wait until everything taken is committed, at most `timeout_s`. Returns whether it is.

        What is not committed stays with the traders.
        """
        self._stopping = True
        self.tick()
        if self._pending:
            self._settled = asyncio.Event()
            try:
                await asyncio.wait_for(self._settled.wait(), timeout_s)
            except TimeoutError:
                return False
        for timer in (self._clock, self._patience, self._retry):
            if timer is not None:
                timer.cancel()
        return True

    async def hand_over(self, timeout_s: float) -> None:
        """Let viewers that are a moment behind have the last lines; wait while any of them gets on."""
        deadline = self.loop.time() + timeout_s
        sent = -1
        while self.hub.behind() and self.hub.bytes_sent != sent and self.loop.time() < deadline:
            sent = self.hub.bytes_sent
            await asyncio.sleep(HAND_OVER_STEP_S)

    def close(self) -> None:
        """End the compressors' threads; what they have not begun is dropped."""
        for pool in (self._compressor, self._packers):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def pending_lines(self) -> int:
        """Lines taken from traders and not committed yet."""
        return sum(pending.batch.count for pending in self._pending)


def _now_us() -> int:
    return time.time_ns() // 1000


def _then(source: Future[Any], convert: Callable[[Any], Found]) -> Future[Found]:
    """Convert a future's result on the thread that made it, or hand on its error."""
    target: Future[Found] = Future()

    def done(ended: Future[Any]) -> None:
        try:
            target.set_result(convert(ended.result()))
        except (Exception, CancelledError) as error:
            target.set_exception(error)

    source.add_done_callback(done)
    return target


def _found(fetch: Fetch, page: Page) -> Found:
    found = Found(page.bodies, page.seqs, page.reached, page.complete, page.oldest)
    return _compressed(fetch, found, (page.bodies, page.seqs)) if fetch.compress else found


def _compressed(fetch: Fetch, found: Found, chosen: Chosen) -> Found:
    """Compress lines for one viewer, for itself alone: nothing it refers to lies before it."""
    found.segments = deflate_segments(Deflater(), *chosen, arrays=fetch.viewer.form == "batch")
    return found


def _packed(pack: Pack) -> list[Segment]:
    if pack.fresh:
        pack.deflater.reset()
    return deflate_segments(pack.deflater, pack.bodies, pack.seqs, arrays=pack.form == "batch")
