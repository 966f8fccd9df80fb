"""The way of a line through the relay: take -> commit -> ack -> publish.

Owns: the order of those steps, and the timers that they need. It must not know sockets or SQLite: what it works with is
made by the factories given to its constructor. `hub_requests` carries out what the hub wants from the journal and the
compressors, and `degraded` decides what changes while the journal does not keep up. Read `journal/writer_thread` next:
it commits; then `fanout/hub`, which publishes.

    traders -> sequencer -> journal's thread: commit -> ack to the traders, batch to the hub -> viewers

The module is long because it is where all parts meet: most methods hand one call on, and after every call of the hub
its requests have to be carried out. What decides anything by itself has been taken out of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from logrelay.degraded import COMMIT_DEADLINE_S, DEGRADED_BYTES, DegradedMode
from logrelay.errors import JournalError
from logrelay.fanout.batch import Batch, Form
from logrelay.fanout.collected_line import Collected, CollectedLine, CollectedLines
from logrelay.fanout.filters import Filter, is_search
from logrelay.fanout.hub import Hub
from logrelay.fanout.hub_types import Gap, Sink, Viewer
from logrelay.fanout.line_json import gap_body, left_out_body
from logrelay.fanout.positions import Epochs, Position, id_of
from logrelay.hub_requests import READ_RETRY_S, HubRequests
from logrelay.ingest.app_activity import Samples
from logrelay.ingest.connection import Intake
from logrelay.ingest.frames import Frame, Hello
from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.token_bucket import TokenBucket
from logrelay.ingest.trader import End, Trader, TraderConnection
from logrelay.ingest.trader_registry import TraderRegistry
from logrelay.journal.interface import Opening, Page, Query, RowPage, SummaryPage, UpkeepNotice
from logrelay.journal.writer_thread import JournalEvents, JournalThread
from logrelay.model import ERROR, WARNING, Commit, DeviceRow, ForwardRow
from logrelay.pending_devices import WRITE_WITHIN_S, PendingDevices, Place
from logrelay.progress import Work
from logrelay.run_table import MAX_RUNS

DEADLINE_REST_S = 0.05
"""Between two walks over the traders whose time has come: one walk for a crowd that ends together, and nobody is told
of later than a person can notice."""
LOOP_LATE_S = 0.25
"""A timer that fires so much late tells that the loop was kept from turning: what it has not heard by then says
nothing about the journal, nor about a trader."""

STALLED_S = 5.0
"""A disk that has not answered for so long is frozen: what upkeep does in one go takes some milliseconds."""

DELIVERY_STEP_S = 0.1
"""A viewer that has taken nothing for so long is not about to."""

SYNC_BURST = 20
SYNCS_PER_S = 10.0
"""Commits with CRITICAL lines, each of which waits for the disk: so many at once, and in a second. Beyond it several
share one and wait a tenth of a second: a bot that logs nothing but CRITICAL would keep the disk from others' lines."""

_NEVER = float("inf")


class ReadControl(Protocol):
    """What the pipeline needs of the traders' server. Called on the loop."""

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`: there is no room for more lines. Traders keep theirs."""

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""

    def schedule_tick(self) -> None:
        """Call `Pipeline.tick` in the next turn of the loop, once, whether a socket was read or not."""

    def forget_process(self, run: bytes) -> None:
        """Watch the process of a run no more: the run is over."""


class OtherMachines(Protocol):
    """What is shown of the machines whose lines are collected. Called on the loop; nothing blocks."""

    def bots_shown(self, mono: float) -> list[dict[str, object]]:
        """Return their bots, as viewers are told of bots."""

    def edges_shown(self, mono: float) -> list[dict[str, object]]:
        """Return the machines, as viewers are told of them."""

    def link_shown(self) -> Mapping[str, object]:
        """Return how the connection over which their lines come is, as health checks are told of it."""

    def samples(self, mono: float) -> Samples:
        """Return what is measured of each, by the names in `http.metrics.METRICS`."""

    def counters(self) -> Mapping[str, int | float]:
        """Return what is counted of all of them, by the same names."""


Server = TypeVar("Server", bound=ReadControl)


class Pipeline(Generic[Server]):
    """Takes lines from traders, has them committed, acks them, and publishes them to viewers.

    Lives on one event loop: every method is to be called there. It is the `Intake` of the traders' server and the
    `JournalEvents` of the journal's thread, which it makes for itself.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        make_journal_thread: Callable[[JournalEvents], JournalThread],
        make_trader_server: Callable[[Intake], Server],
        on_fatal: Callable[[str], None],
        on_notice: Callable[[int, str], None],
        random_text: Callable[[int], str],
        loop: asyncio.AbstractEventLoop,
        quiet_after_s: float,
        max_lag: int,
        landing_lines: int,
        max_runs: int = MAX_RUNS,
        commit_deadline_s: float = COMMIT_DEADLINE_S,
        read_retry_s: float = READ_RETRY_S,
        machines: OtherMachines | None = None,
        after_commit: Callable[[int, int], None] = lambda _upto, _oldest: None,
    ) -> None:
        """Build the pipeline on an open journal; nothing is committed before `start`.

        Args:
            opening: what opening the journal returned.
            make_journal_thread: makes the thread for that journal, which reports to its argument.
            make_trader_server: makes the server whose frames go to its argument; it is then `trader_server`.
            on_fatal: called with the reason when the journal will not work again in this process.
            on_notice: called with level rank and text of every notice, for those who read the relay's own stderr.
            random_text: returns so many random letters and digits.
            loop: the loop this lives on.
            quiet_after_s: seconds without a line after which a connected trader is called quiet; 0: never.
            max_lag: lines that a viewer may be behind before it is skipped forward.
            landing_lines: a viewer skipped forward goes on so many lines before the head.
            max_runs: ended runs that are remembered at most.
            commit_deadline_s: seconds after which a commit is late, see `degraded.COMMIT_DEADLINE_S`.
            read_retry_s: seconds after which a failed read of the journal is tried again.
            machines: what is known of the machines whose lines are collected; None: none are.
            after_commit: called after each commit, and when retention has taken lines, with the newest and the oldest
                seq that the journal has.
        """
        self.epoch = opening.epoch
        """The first part of the ids of all lines from now on."""
        self._epochs = Epochs(opening.earlier, opening.epoch, opening.head + 1)
        self._loop = loop
        self._on_fatal = on_fatal
        self._on_notice = on_notice
        self._machines = machines
        self._has_room = asyncio.Event()
        """Set while lines of other machines may be taken."""
        self._has_room.set()
        self._sequencer = Sequencer(opening.epoch, opening.head + 1, on_notice=on_notice)
        self._registry = TraderRegistry(
            opening.runs,
            self._sequencer,
            quiet_after_s=quiet_after_s,
            mono=time.monotonic(),
            now_us=_now_us(),
            max_runs=max_runs,
            unsynced_before_us=_now_us() if opening.unsynced else None,
            on_over=lambda run: self.trader_server.forget_process(run),  # noqa: PLW0108  (made below)
        )
        self._trader_by_connection: dict[TraderConnection, Trader] = {}
        self._degraded = DegradedMode(
            self._epochs, opening.aliases, random_text=random_text, commit_deadline_s=commit_deadline_s
        )
        self._hub = Hub(
            head=opening.head,
            oldest=opening.oldest,
            max_lag=max_lag,
            landing_lines=landing_lines,
            render_gap=self.render_gap,
        )
        self._all_committed: asyncio.Event | None = None
        """Set once nothing waits for its commit; None while nobody waits for that."""
        self._commit_timer: asyncio.TimerHandle | None = None
        self._commit_check_at = _NEVER
        """Monotonic time at which the commit timer is to fire."""
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._deadline = _NEVER
        """Monotonic time at which the deadline timer fires."""
        self._deadline_walked = float("-inf")
        """When it fired last and the registry was told of the time."""
        self._was_late = False
        """The deadline timer fired late, and has been set once more."""
        self._devices = PendingDevices()
        self._devices_timer: asyncio.TimerHandle | None = None
        self._forwarded: ForwardRow | None = None
        """To be written with the next commit."""
        self._after_commit = after_commit
        self._syncs = TokenBucket(SYNC_BURST, SYNCS_PER_S, time.monotonic())
        self._sync_timer: asyncio.TimerHandle | None = None
        self._stopping = False
        for notice in opening.notices:
            self._add_notice(WARNING, notice, {"state": "journal"})
        self.journal_thread = make_journal_thread(self)
        self._requests = HubRequests(
            self._hub, self.journal_thread, loop=loop, on_notice=on_notice, retry_s=read_retry_s
        )
        self.trader_server = make_trader_server(self)

    def start(self) -> None:
        """Begin to commit and to watch the time. Lines may have been taken before."""
        self.journal_thread.start()
        self._set_deadline(self._registry.next_deadline())
        self.trader_server.schedule_tick()

    # --- take: what the traders' server calls (Intake) ----------------------------------------------------------

    def objection(self, hello: Hello) -> str | None:
        """Return why a hello is refused: its run is another's."""
        return self._registry.objection(hello)

    def hello(self, connection: TraderConnection, hello: Hello) -> int:
        """Admit a run; a second connection of the same run replaces the first."""
        trader, replaced = self._registry.hello(connection, hello, _now_us(), time.monotonic())
        if replaced is not None and replaced is not connection:
            self._trader_by_connection.pop(replaced, None)
            replaced.abort()
        self._trader_by_connection[connection] = trader
        self._set_deadline(min(trader.deadline, self._registry.notices.next_report()))
        return trader.committed

    def frames(self, connection: TraderConnection, frames: list[Frame]) -> list[bytes]:
        """Give frames their place in the stream."""
        trader = self._trader_by_connection.get(connection)
        if trader is None:
            return []  # replaced by a newer connection, which will send the rest again
        answers = self._registry.receive(trader, frames, time.time_ns() // 1000, time.monotonic())
        self._set_deadline(min(trader.deadline, self._registry.notices.next_report()))
        return answers

    def refused(self, connection: TraderConnection, reason: str) -> None:
        """Say in the stream that a connection was turned away."""
        trader = self._trader_by_connection.get(connection)
        self._registry.refused(reason, _now_us(), time.monotonic(), trader.run.app if trader else None)
        self._set_deadline(self._registry.next_deadline())

    def ended(self, connection: TraderConnection, end: End) -> bool:
        """Note the end of a connection. Returns whether the end of its process is to be reported."""
        trader = self._trader_by_connection.pop(connection, None)
        if trader is None or self._stopping:
            return False
        watch = self._registry.ended(trader, connection, end, _now_us(), time.monotonic())
        self._set_deadline(min(trader.deadline, self._registry.notices.next_report()))
        return watch

    def process_died(self, run: bytes) -> None:
        """Note that the process of a run that had lost its connection has ended."""
        if not self._stopping:
            due = self._registry.process_died(run, time.monotonic())
            self._set_deadline(min(due, self._registry.notices.next_report()))

    def flooding(self, connection: TraderConnection, lines: int, seconds: float) -> None:
        """Say in the stream that a trader sends so much that it is read after the others."""
        trader = self._trader_by_connection.get(connection)
        if trader is not None:
            self._registry.flooding(trader, lines, seconds, _now_us(), time.monotonic())

    def tick(self) -> int:
        """Have what has gathered committed; while degraded, publish it as well. Returns the number of viewers.

        CRITICAL lines wait for one another if there are too many commits that have to wait for the disk.
        """
        if self._sequencer.has_critical and not self._stopping:
            wait_s = self._syncs.wait_s(time.monotonic())
            if wait_s > 0:
                if self._sync_timer is None:
                    self._sync_timer = self._loop.call_later(wait_s, self._on_sync_allowed)
                return len(self._hub.viewers)
            self._syncs.take()
        self._registry.notices.tell_gaps(time.time_ns() // 1000, time.monotonic())
        taken = self._sequencer.take()
        if taken is not None:
            self._submit(*taken)
        return len(self._hub.viewers)

    # --- take: what the collector of other machines' lines calls ------------------------------------------------

    def collect(self, found: Collected) -> None:
        """Give lines of other machines their place, with what is told between them; all of it in one commit.

        The rows are written with them: whoever reads them at the next start has these lines, and no others.
        """
        for item in found.items:
            if isinstance(item, CollectedLines):
                self._sequencer.add_all_collected(item)
            elif isinstance(item, CollectedLine):
                self._sequencer.add_collected(item)
            else:
                self._sequencer.add_notice(_now_us(), item.rank, item.notice, item.message, item.details)
        self._sequencer.note_collected(found.rows)
        self.trader_server.schedule_tick()

    async def wait_room(self) -> None:
        """Wait until there is room for lines of other machines.

        There is none while the journal is in trouble, or has as much to write as it may have: those lines wait where
        they are. Cancelling ends the wait only.
        """
        await self._has_room.wait()

    def _update_room(self) -> None:
        if self._degraded.trouble is None and not self._degraded.reading_paused:
            self._has_room.set()
        else:
            self._has_room.clear()

    # --- commit -------------------------------------------------------------------------------------------------

    def _on_sync_allowed(self) -> None:
        self._sync_timer = None
        self.trader_server.schedule_tick()

    def _submit(self, commit: Commit, batch: Batch | None) -> None:
        if self._devices.some:
            commit = replace(commit, devices=self._take_devices())
        if self._forwarded is not None:
            commit, self._forwarded = replace(commit, forwarded=self._forwarded), None
        degraded = self._degraded
        # A report that is still on its way must not come behind what the loop has committed itself.
        is_committed = (
            not degraded.pending
            and degraded.trouble is None
            and not self._stopping
            and self.journal_thread.commit_now(commit, 0 if batch is None else batch.size)
        )
        if not is_committed:
            self.journal_thread.submit(commit)
        if batch is None:
            return
        if is_committed:
            # Nothing waits, so nothing has to be found among what waits.
            oldest = self.journal_thread.oldest
            self._hub.publish(batch, oldest=oldest)
            for request in self._hub.take_requests():
                self._requests.carry_out(request)
            for run in commit.runs:
                self._registry.committed(run.id, run.last_seq)
            self._forget_runs(oldest)
            self._after_commit(batch.last, oldest)
            return
        degraded.add(batch, [(run.id, run.last_seq) for run in commit.runs], time.monotonic())
        if degraded.alias is not None:
            self._publish_provisional(batch)
        if self._commit_timer is None and not self._stopping:
            self._check_commit_in(degraded.commit_deadline_s)
        self._update_reading()

    def _take_devices(self, *, all_of_them: bool = False) -> list[DeviceRow]:
        """Return the rows of devices to write now. None is ahead of the journal: an id that it has not is none."""
        committed, now_us = self._hub.committed, _now_us()
        rows = []
        for number, owner, name, seq, connected in self._devices.take(time.monotonic(), all_of_them=all_of_them):
            at = min(seq(), committed)
            if at >= 0:
                self._devices.wrote(number, at)
                rows.append(DeviceRow(number, owner, name, self.id_of(at), now_us, connected))
        return rows

    def _write_devices(self) -> None:
        """Write what has gone along with no commit; while the journal is in trouble it waits."""
        if self._devices_timer is not None:
            self._devices_timer.cancel()
            self._devices_timer = None
        if self._devices.some and self.trouble is None:
            self.journal_thread.submit(Commit(devices=self._take_devices(all_of_them=True)))
        elif self._devices.some and not self._stopping:
            self._devices_timer = self._loop.call_later(WRITE_WITHIN_S, self._write_devices)

    def _update_reading(self) -> None:
        """Read on only while there is room for what is read."""
        change = self._degraded.update_reading(time.monotonic())
        self._update_room()
        if change is None:
            return
        if change == "resume":
            self.trader_server.resume_reading()
            return
        self.trader_server.pause_reading()
        if self._degraded.alias is not None:
            self._add_notice(
                ERROR,
                f"{DEGRADED_BYTES >> 20} MiB of lines wait for the journal: the relay stops reading; "
                "the traders keep their lines in their own bounded memory",
                {"state": "full"},
            )
            self.trader_server.schedule_tick()

    # --- ack, publish: what the journal's thread reports (JournalEvents) ----------------------------------------

    def on_committed(self, upto: int, oldest: int) -> None:
        """Publish and ack everything up to `upto`."""
        degraded, hub = self._degraded, self._hub
        committed = degraded.take_committed(upto)
        batches = committed.unpublished
        if batches:
            hub.publish(batches[0] if len(batches) == 1 else Batch.merge(batches))
        hub.commit(upto, oldest)
        self._requests.carry_out_all()
        for run_id, seq in committed.acks.items():
            self._registry.committed(run_id, seq)
        self._forget_runs(oldest)
        self._update_reading()
        if degraded.trouble is not None and degraded.recover(time.monotonic()):
            self._on_trouble_over()
            self._update_room()
        if self._all_committed is not None and not degraded.waiting:
            self._all_committed.set()
        self._after_commit(upto, oldest)

    def _forget_runs(self, oldest: int) -> None:
        if self._registry.runs.forget(oldest, time.time_ns() // 1000, time.monotonic()):
            self.trader_server.schedule_tick()

    def on_trouble(self, error: JournalError) -> None:
        """The journal refuses lines: go on without it, and say so."""
        self._degrade(str(error))
        if not error.retry:
            self._on_fatal(str(error))

    def on_recovered(self, notices: list[str]) -> None:
        """The journal takes lines again; `notices` say what became of it (a corrupt file set aside, ...)."""
        for text in notices:
            self._add_notice(WARNING, text, {"state": "journal"})
        self.trader_server.schedule_tick()

    def on_damaged(self, lines: int) -> None:
        """Say that a part of the file is damaged; whoever comes to the place is told of a gap."""
        self.announce(
            ERROR,
            f"the journal file is damaged: {lines:,} {'line' if lines == 1 else 'lines'} of it cannot be trusted any "
            "more and are shown as a gap; look at the disk, and verify the file with logrelay check --verify-journal",
            {"state": "journal", "damaged_lines": lines},
        )

    def look_after_files(self) -> None:
        """Look whether somebody has changed the journal's files; to be called about once in a second.

        A disk that does not answer is noticed here as well: a commit would be late, but none may come.
        """
        stalled_s = self.journal_thread.stalled_s
        if stalled_s >= STALLED_S and self.trouble is None:
            self._degrade(f"the disk has not answered for {stalled_s:.0f} s")
        self.journal_thread.look_after_files()

    def change_quiet_after(self, seconds: float) -> None:
        """Change after how many seconds without a line a connected trader is called quiet; 0: never."""
        self._registry.change_quiet_after(seconds, time.monotonic())
        self._set_deadline(self._registry.next_deadline())

    def works(self, ingest: Work) -> dict[str, Work]:
        """Say of each part whether it has work, for the watchdog; `ingest` is what the traders' server says.

        What waits for the disk is not a part's own: while the disk does not answer, or refuses, the relay goes on
        without it (`degraded`), and another process would meet the same disk.
        """
        thread, hub = self.journal_thread, self._hub
        waits_for_disk = self.trouble is not None or thread.stalled_s > 0
        return {
            "ingest": ingest,
            "journal": Work(thread.pending > 0 and not waits_for_disk, thread.stats().commits),
            "fan-out": Work(thread.head > hub.committed, hub.committed),
        }

    def on_notice(self, notice: UpkeepNotice) -> None:
        """Say in the stream what the journal's upkeep has to say."""
        self.announce(notice.rank, notice.text, notice.details)

    # --- while the journal does not keep up ---------------------------------------------------------------------

    def _on_commit_deadline(self) -> None:
        self._commit_timer = None
        degraded = self._degraded
        if time.monotonic() - self._commit_check_at > LOOP_LATE_S:
            # The loop itself was late, and with it the report of the commit. Look again: the journal may be well.
            self._check_commit_in(degraded.commit_deadline_s)
            return
        if degraded.is_late(time.monotonic(), self.journal_thread.head):
            self._degrade(f"a commit has taken more than {degraded.commit_deadline_s:.0f} s")
        wait_s = degraded.next_check(time.monotonic())
        if wait_s is not None:
            self._check_commit_in(wait_s)

    def _check_commit_in(self, seconds: float) -> None:
        self._commit_check_at = time.monotonic() + seconds
        self._commit_timer = self._loop.call_later(seconds, self._on_commit_deadline)

    def _degrade(self, reason: str) -> None:
        waiting = self._degraded.enter(reason)
        if waiting is None:
            return
        assert self._degraded.alias is not None, "chosen by `enter`"
        self.journal_thread.submit(Commit(aliases=[self._degraded.alias]))
        for batch in waiting:
            self._publish_provisional(batch)
        self._update_reading()
        self._add_notice(
            ERROR,
            f"the journal cannot be written: {reason}; "
            "lines are shown live, the traders keep them until it works again",
            {"state": "trouble", "reason": reason},
        )
        self.trader_server.schedule_tick()

    def _publish_provisional(self, batch: Batch) -> None:
        self._degraded.make_provisional(batch)
        self._hub.publish(batch)
        self._requests.carry_out_all()

    def _on_trouble_over(self) -> None:
        self._add_notice(
            WARNING,
            "the journal works again: the lines that were only shown live are kept now",
            {"state": "recovered"},
        )
        self.trader_server.schedule_tick()
        self._hub.retry()
        self._requests.carry_out_all()

    # --- time ---------------------------------------------------------------------------------------------------

    def _set_deadline(self, at: float) -> None:
        """See to it that the registry is told of the time at the monotonic time `at`."""
        if self._stopping or at >= self._deadline or at == _NEVER:
            return
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline = at
        wait_s = max(at, self._deadline_walked + DEADLINE_REST_S) - time.monotonic()
        self._deadline_timer = self._loop.call_later(max(0.0, wait_s), self._on_deadline)

    def _on_deadline(self) -> None:
        late = time.monotonic() - self._deadline > LOOP_LATE_S
        self._deadline_timer = None
        self._deadline = _NEVER
        if late and not self._was_late:
            # Timers fire before sockets are read: the hello, the lines or the goodbye may be waiting there. This once:
            # a loop that is late every time has read in between.
            self._was_late = True
            self._set_deadline(time.monotonic() + LOOP_LATE_S)
            return
        self._was_late = False
        self._deadline_walked = time.monotonic()
        self._registry.pass_time(_now_us(), self._deadline_walked)
        self.trader_server.schedule_tick()
        # A quiet trader's deadline moves with every line; the timer is set anew only when it has fired.
        self._set_deadline(self._registry.next_deadline())

    def _add_notice(self, rank: int, message: str, details: dict[str, object]) -> None:
        """Say something about the relay in the stream; it goes out with the next tick."""
        self._sequencer.add_notice(_now_us(), rank, "relay", message, details)

    def announce(self, rank: int, message: str, details: dict[str, object]) -> None:
        """Say at once in the stream what another part of the relay has to say; `details` has its `state`."""
        self._add_notice(rank, message, details)
        self.trader_server.schedule_tick()

    # --- what viewers ask ---------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """Seq of the newest published line."""
        return self._hub.head

    @property
    def committed(self) -> int:
        """Seq of the newest line in the journal."""
        return self._hub.committed

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self._hub.oldest

    def join(self, sink: Sink, wanted: Filter, form: Form, *, deflate: bool = False) -> Viewer:
        """Add a viewer that gets nothing until `start_after` or `start_tail`; see `Hub.join`."""
        return self._hub.join(sink, wanted, form, deflate=deflate)

    def start_after(self, viewer: Viewer, seq: int, gap: Gap | None = None) -> None:
        """Begin behind `seq`; `gap` is sent first. See `Hub.start_after`."""
        self._hub.start_after(viewer, seq, gap)
        self._requests.carry_out_all()

    def start_tail(self, viewer: Viewer, lines: int, behind: int | None = None) -> None:
        """Begin with the newest `lines` lines that the viewer wants; see `Hub.start_tail`."""
        self._hub.start_tail(viewer, lines, behind)
        self._requests.carry_out_all()

    def change(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants; nothing is sent until it is started again. See `Hub.change`."""
        self._hub.change(viewer, wanted)
        self._requests.carry_out_all()

    def resubscribe(self, viewer: Viewer, wanted: Filter) -> None:
        """Change what a viewer wants, from where it is on; see `Hub.resubscribe`."""
        self._hub.resubscribe(viewer, wanted)
        self._requests.carry_out_all()

    def received(self, viewer: Viewer) -> int | None:
        """Return up to where a viewer was sent everything; see `Hub.received`."""
        return self._hub.received(viewer)

    def keep_device(
        self, number: int, owner: str, name: str, seq: Callable[[], int], *, connected: bool, sure: int = 0
    ) -> None:
        """Have the journal remember where a device stands: with the next commit, or soon; see `pending_devices`."""
        if self._devices.note(Place(number, owner, name, seq, connected), sure, time.monotonic()):
            self._write_devices()
        elif self._devices_timer is None and not self._stopping:
            self._devices_timer = self._loop.call_later(WRITE_WITHIN_S, self._write_devices)

    def keep_forwarded(self, row: ForwardRow) -> None:
        """Have the journal remember how far lines were forwarded: with the next commit, whenever that is.

        It makes no commit of its own: whoever forwards asks the other side first, and this only where that is silent.
        """
        self._forwarded = row

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        self._hub.leave(viewer)
        self._requests.carry_out_all()

    def drained(self, viewer: Viewer) -> None:
        """Go on sending to a viewer whose socket has room again."""
        self._hub.drained(viewer)
        self._requests.carry_out_all()

    def read(self, query: Query) -> Awaitable[Page]:
        """Read from the journal on another thread, in its turn. Raises JournalError; cancelling drops the answer."""
        return self._requests.read_in_turn(lambda: self.journal_thread.read(query), search=is_search(query.filter))

    def rows(self, after: int, *, max_bytes: int) -> Awaitable[RowPage]:
        """Read lines as rows, see `Journal.rows`, in their turn. Raises JournalError; cancelling drops the answer."""
        return self._requests.read_in_turn(lambda: self.journal_thread.rows(after, max_bytes=max_bytes), search=False)

    def summarize(self, query: Query) -> Awaitable[SummaryPage]:
        """Have the journal count on another thread, in its turn. Raises JournalError; cancelling drops the answer."""
        return self._requests.read_in_turn(lambda: self.journal_thread.summarize(query), search=True)

    def lines_at(self, seqs: Sequence[int]) -> Awaitable[dict[int, bytes]]:
        """Read some lines on another thread, in its turn. Raises JournalError; cancelling drops the answer."""
        return self._requests.read_in_turn(lambda: self.journal_thread.lines_at(seqs), search=False)

    def id_of(self, seq: int) -> str:
        """Return the id of a position; a provisional one while the journal does not hold it."""
        return id_of(self._degraded.epoch_of(seq), seq)

    def resolve(self, id_: str) -> Position:
        """Return what an id of this journal means. Raises RequestError (`bad_id`, `expired`)."""
        head = self.head
        return self._epochs.resolve(id_, aliases=self._degraded.aliases, head=head, head_id=self.id_of(head))

    def render_gap(self, gap: Gap) -> bytes:
        """Render a gap for one viewer; see docs/protocol.md, notices."""
        if gap.cause == "notices":
            return left_out_body(self.id_of(gap.behind), _now_us())
        of = self._epochs.of
        return gap_body(
            self.id_of(gap.behind),
            _now_us(),
            gap.epoch or of(gap.first),
            last_epoch=gap.epoch or of(gap.last),
            cause=gap.cause,
            first=gap.first,
            last=gap.last,
            count=gap.count,
            kept=gap.kept,
            levels=gap.levels,
            detail=gap.detail,
        )

    # --- what is told of the relay ------------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """Why the journal is not being written, or None."""
        return self._degraded.trouble

    @property
    def pending_lines(self) -> int:
        """Lines taken from traders and not committed yet."""
        return self._degraded.pending_lines

    @property
    def viewer_count(self) -> int:
        """Viewers that have joined."""
        return len(self._hub.viewers)

    @property
    def damaged_lines(self) -> int:
        """Lines of the kept stretch that are lost to damage of the file."""
        return self.journal_thread.stats().damaged_lines

    @property
    def lost_traders(self) -> int:
        """Traders that have lost their connection and are not known to be dead."""
        return self._registry.runs.in_state("lost")

    @property
    def journal_bytes(self) -> int:
        """Bytes the journal takes on disk, as of a moment ago."""
        return self.journal_thread.stats().disk_bytes

    def traders_shown(self) -> list[dict[str, object]]:
        """Return the traders as viewers and health checks are told of them, the most recently seen first.

        Those of other machines, if there are any, come behind this relay's own.
        """
        own = self.own_traders()
        return own if self._machines is None else [*own, *self._machines.bots_shown(time.monotonic())]

    def own_traders(self) -> list[dict[str, object]]:
        """Return the traders of this relay's own log socket, the most recently seen first."""
        return self._registry.summaries(time.monotonic())

    def edges_shown(self) -> list[dict[str, object]] | None:
        """Return the machines whose lines are collected, as viewers are told of them; None: there are none."""
        return None if self._machines is None else self._machines.edges_shown(time.monotonic())

    def counters(self) -> Mapping[str, int | float]:
        """Return what is counted here, by the names in `http.metrics.METRICS`."""
        hub, registry, stats = self._hub, self._registry, self.journal_thread.stats()
        traders = registry.counters
        return {
            "lines_total": self._sequencer.lines_total,
            "bytes_total": self._sequencer.bytes_total,
            "commits_total": stats.commits,
            "journal_bytes": stats.disk_bytes,
            "journal_damaged_lines": stats.damaged_lines,
            "journal_trouble": int(self.trouble is not None),
            "journal_stalled_seconds": round(stats.stalled_s, 3),
            "journal_log_bytes": stats.room.log_bytes,
            "journal_log_pinned_seconds": round(stats.room.log_pinned_s, 3),
            "journal_disk_low": int(stats.room.low),
            "journal_index_behind_lines": stats.index_behind,
            **({} if stats.room.free_bytes is None else {"journal_disk_free_bytes": stats.room.free_bytes}),
            "journal_upkeep_trouble": int(stats.upkeep_trouble is not None),
            "journal_expired_lines_total": stats.pruned_for.get("age", 0),
            "journal_evicted_size_lines_total": stats.pruned_for.get("size", 0),
            "journal_evicted_space_lines_total": stats.pruned_for.get("space", 0),
            "pending_lines": self.pending_lines,
            "viewers": len(hub.viewers),
            "viewers_behind": hub.behind(),
            "viewer_lines_total": hub.lines_sent,
            "viewer_bytes_total": hub.bytes_sent,
            "viewer_gaps_total": hub.gaps,
            "viewer_lines_skipped_total": hub.lines_skipped,
            "traders": registry.connected(),
            "traders_quiet": registry.runs.in_state("quiet"),
            "traders_lost": registry.runs.in_state("lost"),
            "runs": len(registry.runs),
            "runs_forgotten_early_total": registry.runs.forgotten_early,
            "trader_connections_total": traders.connections,
            "trader_lost_lines_total": traders.lost_lines + traders.unexplained_lines,
            "trader_rejected_frames_total": traders.rejected,
            "trader_refused_total": traders.refused,
            "trader_duplicate_frames_total": traders.duplicates,
            "trader_crashes_total": traders.crashed,
            "trader_connections_lost_total": traders.lost,
            "trader_connections_given_up_total": traders.given_up,
            **({} if self._machines is None else self._machines.counters()),
        }

    def app_samples(self) -> Samples:
        """Return what is measured of each bot by its name, by the names in `http.metrics.METRICS`."""
        mono = time.monotonic()
        own = self._registry.app_samples(mono)
        if self._machines is None:
            return own
        others = self._machines.samples(mono)
        return {name: [*own.get(name, ()), *others.get(name, ())] for name in (*own, *(others.keys() - own.keys()))}

    # --- the end ------------------------------------------------------------------------------------------------

    async def wait_committed(self, timeout_s: float) -> bool:
        """Wait until everything taken is committed, at most `timeout_s`. Returns whether it is.

        From now on no timer runs, whether it is in time or not. What is not committed stays with the traders.
        Cancelling ends the wait only.
        """
        self._stopping = True
        self._requests.stop()
        timers = (self._deadline_timer, self._commit_timer, self._sync_timer)
        for timer in (*timers, self._devices_timer):
            if timer is not None:
                timer.cancel()
        self._registry.notices.flush(_now_us(), time.monotonic())
        self.tick()
        if self._degraded.waiting:
            self._all_committed = asyncio.Event()
            try:
                await asyncio.wait_for(self._all_committed.wait(), timeout_s)
            except TimeoutError:
                return False
        return True

    async def wait_delivered(self, timeout_s: float) -> None:
        """Let viewers that are a moment behind have the last lines; wait while any of them makes progress."""
        hub, deadline = self._hub, self._loop.time() + timeout_s
        sent = -1
        while hub.behind() and hub.bytes_sent != sent and self._loop.time() < deadline:
            sent = hub.bytes_sent
            await asyncio.sleep(DELIVERY_STEP_S)

    async def close(self, timeout_s: float) -> None:
        """End the compressors, and the journal's thread, which closes the journal; at most `timeout_s`.

        What a compressor has not begun is dropped. A journal that does not answer in time is left open, see
        `JournalThread.stop`. To be called in any case, also without `start`: nobody else closes the journal.
        """
        self._requests.close()
        if self._devices.some or self._forwarded is not None:
            devices = self._take_devices(all_of_them=True)
            self.journal_thread.submit(Commit(devices=devices, forwarded=self._forwarded))
        await asyncio.to_thread(self.journal_thread.stop, timeout_s)


def _now_us() -> int:
    return time.time_ns() // 1000
