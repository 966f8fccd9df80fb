"""The lines of one run that have a seq and are not yet known to be in the journal, and every counter about them.

Owns: the baton that guards all of this, seq numbers, the frames in memory, the bound on them, what was dropped, and
what goes on the wire next. It must not know sockets beyond one callable that takes bytes, nor threads, event dicts or
the wall clock. `processor` puts lines in, `sender` takes them out. Read `descriptors` next.

**The baton** is flat combining (Hendler, Incze, Shavit, Tzafrir: "Flat Combining and the Synchronization-Parallelism
Tradeoff", SPAA 2010). `baton` is a list with one element; who removes it (`del baton[0]`) may change the state and
puts it back when done. No caller waits: who finds it empty publishes the line in `inbox`, and whoever has the baton
admits those lines after giving it back (`combine`). The sender publishes work in `delegated` in the same way. A lock is
not used because an exception from outside (Ctrl-C, a timeout thrown into the thread) can arrive between `acquire()`
returning and the `try` that would release it: Python looks for such exceptions after calls. It does not look after
`del baton[0]`, so the step from taking the baton into the `try` cannot be split.

**Interruptions.** For the same reason the state changes in statements without calls wherever two changes belong
together. Where that would cost the hot path too much, an interrupted owner of the baton leaves `dirty` behind, the
connection is closed, and `repair` counts again. What was on the wire is then decided by the next welcome, as after any
lost connection.

**Gaps.** A frame dropped from memory leaves its seq in a gap. If it never was on the wire it is lost for certain: it
is counted at once and a lost frame tells the relay in its place. If it was, the relay may have it: an ack or the next
welcome decides. So the relay's sums and ours are equal, not only close.

**Before the welcome.** On a new connection everything not acked follows hello at once, as the relay ignores a line it
has. Only a gap whose lines may be in the journal waits for the welcome, and with it what is behind: if a lost frame
were sent for it and the connection ended, nobody could say later whether the relay has the lines or the loss.

    produced = acked + pending + sum(dropped)        at every moment at which nobody has the baton

**Drop policy.** Over the bound the oldest line below WARNING goes first, then the oldest of the others.

The module is long because it is one state machine: every method here keeps the equation above, and `repair` has to
know each way in which one of them can have been interrupted.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from . import frames
from .descriptors import GET_MARK, SEND_FLAGS, Mark, read_mark

if TYPE_CHECKING:
    from .spool import Spool

FRAME_OVERHEAD: Final = 64
"""Bytes charged for each frame beyond its length: the bytes object's header, malloc's rounding, the deque's slot."""
GAP_COST: Final = 144
"""Bytes charged for each gap: the object, its integers, the slot."""
GAP_GAIN: Final = 40
"""Bytes that dropping a line in the middle must free beyond the gap it leaves; else the oldest of all goes."""
HIGH_LEVELS: Final = b"wec"
"""First letters of the level words that are dropped last: warning, error, critical."""
LEVEL_AT: Final = 21
"""Where the first letter of the level word stands in a frame."""
POLL_FIRST_S: Final = 0.000_05
POLL_LONGEST_S: Final = 0.002
"""Seconds between two looks by someone who waits for delegated work: as long as the baton is usually kept, then
longer."""
BATON_TIMEOUT_S: Final = 5.0
"""Seconds to wait for the baton: thousands of times longer than a running thread ever keeps it. A process must not
hang at its end because a thread that has the baton is suspended, by a debugger for example. Counted by the pauses and
not by the clock: while this process does not run, neither does who has the baton."""
SLICE_FRAMES: Final = 256
"""Frames released or sent in one go, with the baton and the GIL: some 30 microseconds, less than a caller can feel."""
BATCH_BYTES: Final = 32_768
"""Bytes joined for one send; large sends cost a fraction per frame, larger ones would keep the baton longer."""

SPOOL_LOOKS: Final = 4
"""How often a caller looks whether who has the baton has put its line into the spool, `POLL_FIRST_S` seconds apart."""

Send = Callable[[bytes, int], int]
Result = TypeVar("Result")


class Gap:
    """Seqs `first` to `last`, none of them in memory, all of one cause."""

    __slots__ = ("cause", "first", "last", "lost", "told")

    def __init__(self, first: int, last: int, cause: str, *, lost: bool, told: bool = False) -> None:
        self.first = first
        self.last = last
        self.cause = cause
        self.lost = lost
        """Counted as dropped. Otherwise the relay may have these lines, and they count as pending."""
        self.told = told
        """The relay knows: a lost frame was on a wire, or the reject was its own. Its ack then is not one of the lines
        themselves. Only of what is lost."""

    def is_like(self, other: Gap) -> bool:
        """Whether the two could be one gap, but for their place."""
        return self.lost is other.lost and self.told is other.told and self.cause == other.cause


class Delegated:
    """Work published for whoever has the baton, and what became of it."""

    __slots__ = ("args", "cancelled", "done", "error", "result", "work")

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.work = work
        self.args = args
        self.done = False
        self.cancelled = False
        """Nobody waits for it any more: it must not be run later."""
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Run it, unless cancelled. An ordinary error is for the one who waits, any other for this thread."""
        if not self.cancelled:
            try:
                self.result = self.work(*self.args)
            except Exception as error:
                self.error = error
        self.done = True


class Outbox:
    """The lines of one run, at most `limit` bytes of them.

    `spool`, if there is one, is given every line before it is queued or sent. `on_blocked` is called when the kernel
    no longer takes every byte at once, so that the sender looks; it must not raise, wait or take a lock. Called without
    the baton: `delegate`, `run_alone`, `combine`, `wait_for_spool`, `sender_started`, `sender_ended`,
    `break_connection`, `pending`, `produced`, `oldest_ns`. All others need the baton.

    The processor's call changes some attributes itself: it is the fast path of this class, written out where it runs
    (see there).
    """

    __slots__ = (
        "_on_blocked",
        "_plain_send",
        "acked",
        "acked_seq",
        "bad_answers",
        "baton",
        "broken",
        "charged_bytes",
        "delegated",
        "direct_fd",
        "direct_mark",
        "direct_send",
        "dirty",
        "doubtful_seq",
        "dropped",
        "has_sender",
        "inbox",
        "inbox_bytes",
        "limit",
        "overrun",
        "sent_gaps",
        "sent_high",
        "sent_low",
        "sent_seq",
        "seq",
        "spool",
        "to_write",
        "unencoded",
        "unreported_gaps",
        "unsent_high",
        "unsent_low",
    )

    def __init__(self, limit: int, *, on_blocked: Callable[[], object], spool: Spool | None = None) -> None:
        self.limit = limit
        self._on_blocked = on_blocked
        self.spool = spool
        self.baton: list[None] = [None]
        self.inbox: deque[tuple[int, bytes, bytes]] = deque()
        """(time_ns, packed level, body) of lines that came while the baton was taken."""
        self.inbox_bytes = 0
        self.delegated: deque[Delegated] = deque()
        self.overrun = 0
        """Lines that came while the baton was taken and the memory was full."""
        self.unencoded = 0
        """Lines that could not be encoded and have no place yet."""
        self.seq = 0
        self.acked = 0
        """How many lines were acked."""
        self.acked_seq = 0
        """The highest seq that was acked."""
        self.charged_bytes = 0
        """Bytes charged against `limit`."""
        self.dropped = {"overflow": 0, "too_big": 0, "encode": 0, "rejected": 0, "rejected_repeatedly": 0}
        self.sent_low: deque[bytes] = deque()
        self.sent_high: deque[bytes] = deque()
        self.unsent_low: deque[bytes] = deque()
        self.unsent_high: deque[bytes] = deque()
        self.sent_gaps: deque[Gap] = deque()
        """Gaps among what is on the wire: told on this connection, or dropped when already sent."""
        self.unreported_gaps: deque[Gap] = deque()
        """Gaps to be told when their turn comes; one that is not lost is told once the welcome has decided it."""
        self.to_write = b""
        """Bytes that must be the next on the wire: a batch, or what the kernel did not take of one."""
        self.sent_seq = 0
        """The highest seq that was ever (even in part) on a wire; not kept up to date while there is `direct_send`."""
        self.doubtful_seq = 0
        """The relay may have unsent lines up to here, from an earlier wire, and its welcome is still to come."""
        self.direct_send: Send | None = None
        """The socket's send while everything before is on the wire and the next line may follow at once."""
        self._plain_send: Send | None = None
        """The same, for bytes that are in the spool already."""
        self.direct_fd = -1
        self.direct_mark: Mark = -1
        self.dirty = False
        """Somebody was interrupted with the baton: counters and the wire are in doubt."""
        self.broken = False
        """The connection must be closed; everything sent on it is in doubt until the next welcome."""
        self.has_sender = False
        """A thread runs that will take the lines from here. Callers test nothing else when a line is only queued.
        False although there is one is harmless: the next caller looks and wakes it."""
        self.bad_answers = 0
        """Answers of the relay that cannot be true."""

    # -- taking the baton ------------------------------------------------------------------------------------

    def delegate(self, work: Callable[..., Result], *args: Any) -> Result:
        """Have `work(*args)` run with the baton, by this thread or the one that has it, and return its result.

        For those who may wait; TimeoutError after `BATON_TIMEOUT_S` seconds. Whoever has the baton runs it, because
        waiting for the baton can be in vain: a thread that logs in a loop lets others run only inside its sends,
        during which it has the baton. `work` must be short, and able to start over: it may be interrupted in the
        middle.
        """
        published = Delegated(work, args)
        try:
            self.delegated.append(published)
            waited, pause = 0.0, POLL_FIRST_S
            self.combine()
            while not published.done:
                if self.dirty:
                    # Nothing published is run before the repair, and who would repair may be the one who waits here.
                    self.run_alone(self.repair)
                if waited >= BATON_TIMEOUT_S:
                    raise TimeoutError("somebody keeps the baton")
                time.sleep(pause)
                waited += pause
                pause = min(pause * 2, POLL_LONGEST_S)
                self.combine()
        finally:
            published.cancelled = True
        if published.error is not None:
            raise published.error
        result: Result = published.result
        return result

    def publish(self, work: Callable[..., object], *args: Any) -> None:
        """Have `work(*args)` run with the baton, by this thread if the baton is free, else soon by who has it.

        For those who may not wait. `work` is as for `delegate`, and has nobody to tell of an error.
        """
        self.delegated.append(Delegated(work, args))
        self.combine()

    def run_alone(self, work: Callable[[], None]) -> None:
        """Run `work()` with the baton, in this thread: for what would take a caller too long.

        TimeoutError after `BATON_TIMEOUT_S` seconds.
        """
        waited, pause = 0.0, POLL_FIRST_S
        while True:
            try:
                del self.baton[0]
            except IndexError:
                if waited >= BATON_TIMEOUT_S:
                    raise TimeoutError("somebody keeps the baton") from None
                time.sleep(pause)
                waited += pause
                pause = min(pause * 2, POLL_LONGEST_S)
                continue
            try:
                return work()
            except BaseException:
                self.direct_send = None
                self.dirty = True
                raise
            finally:
                self.baton += (None,)  # not a call: those fail at the recursion limit

    def combine(self) -> None:
        """Admit the lines and run the work that others published while the baton was taken, if it is free.

        For one who does not have the baton and will not wait. While the state is in doubt nothing is done: the sender
        repairs it first, which would take a caller too long.
        """
        while (self.inbox or self.delegated or self.overrun or self.unencoded) and not self.dirty:
            try:
                del self.baton[0]
            except IndexError:
                return
            try:
                self.admit_inbox()
                while self.delegated:
                    published = self.delegated[0]
                    if not published.done:
                        published.run()
                    del self.delegated[0]
            except BaseException:
                self.direct_send = None
                self.dirty = True
                self.has_sender = False
                raise
            finally:
                self.baton += (None,)  # not a call: those fail at the recursion limit

    def wait_for_spool(self) -> None:
        """Give who has the baton a moment to put the lines in the inbox into the spool.

        At most a fifth of a millisecond, as who has it may be what this call has interrupted.
        """
        looks = SPOOL_LOOKS
        while self.inbox and looks:
            looks -= 1
            time.sleep(POLL_FIRST_S)
            self.combine()

    # -- the sender and its connection ---------------------------------------------------------------------------

    def sender_started(self) -> None:
        """Note that a thread takes the lines from here."""
        self.has_sender = True

    def sender_ended(self) -> None:
        """Note that nobody takes the lines from here: the next caller starts somebody."""
        self.has_sender = False

    def start_direct(self, send: Send, fd: int, mark: Mark) -> None:
        """Let callers send themselves, as everything before is on the wire."""
        self.direct_fd = fd
        self.direct_mark = mark
        self._plain_send = send
        if self.spool is not None:
            append = self.spool.append

            def send_spooled(frame: bytes, flags: int) -> int:
                append(frame)
                return send(frame, flags)

            self.direct_send = send_spooled
        else:
            self.direct_send = send

    def stop_direct(self) -> None:
        """Have callers queue their lines."""
        if self.direct_send is not None:
            self.sent_seq = max(self.sent_seq, self.seq)
            self.direct_send = None

    def break_connection(self) -> None:
        """Ask the sender to close the connection, whose bytes can no longer be trusted."""
        self.broken = True

    def connection_lost(self) -> None:
        """Forget the connection, which is closed: nothing of a torn frame is sent on the next one."""
        self.stop_direct()
        self.to_write = b""
        self.direct_fd = self.direct_mark = -1
        self.broken = False

    def count_bad_answer(self) -> None:
        """Count an answer of the relay that cannot be true."""
        self.bad_answers += 1

    # -- lines in --------------------------------------------------------------------------------------------

    def admit_inbox(self) -> None:
        """Give every line in the inbox its seq, and those that were dropped before they had one."""
        inbox = self.inbox
        while inbox:
            time_ns, level, body = inbox[0]
            frame = frames.HEADER.pack(frames.HEAD, frames.U64, self.seq + 1, frames.U64, time_ns) + level + body
            size = len(frame) + FRAME_OVERHEAD
            weight = len(body)
            high = frame[LEVEL_AT] in HIGH_LEVELS
            if self.spool is not None:
                self.spool.append(frame)
            # No call from here to `_after_queueing`, so no interruption (see above).
            if high:
                self.unsent_high += (frame,)
            else:
                self.unsent_low += (frame,)
            self.seq += 1
            self.charged_bytes += size
            self.inbox_bytes -= weight
            del inbox[0]
            self._after_queueing()
        if self.overrun:
            count = self.overrun
            self._add_gap(self.unreported_gaps, self.seq + 1, self.seq + count, "overflow", lost=True)
            self.overrun -= count
            self.seq += count
            self.dropped["overflow"] += count
            self._after_queueing()
        if self.unencoded:
            count = self.unencoded
            if self.spool is not None:
                self.spool.append_lost(frames.lost(self.seq + 1, self.seq + count, "encode"))
            self._add_gap(self.unreported_gaps, self.seq + 1, self.seq + count, "encode", lost=True)
            self.unencoded -= count
            self.seq += count
            self.dropped["encode"] += count
            self._after_queueing()

    def queue(self, time_ns: int, level: bytes, body: bytes) -> None:
        """Take a line that cannot go on the wire now."""
        if self.dirty:
            size = len(body)
            if self.charged_bytes + self.inbox_bytes + size > self.limit:
                self.overrun += 1
            else:
                self.inbox_bytes += size
                self.inbox.append((time_ns, level, body))
            return
        frame = frames.HEADER.pack(frames.HEAD, frames.U64, self.seq + 1, frames.U64, time_ns) + level + body
        size = len(frame) + FRAME_OVERHEAD
        if self.spool is not None:
            self.spool.append(frame)
        if frame[LEVEL_AT] in HIGH_LEVELS:
            self.unsent_high += (frame,)
        else:
            self.unsent_low += (frame,)
        self.seq += 1
        self.charged_bytes += size
        if self.charged_bytes > self.limit:
            self.shed()

    def _after_queueing(self) -> None:
        """Put a line that was just queued on the wire if it is its turn; keep the bound."""
        if self.direct_send is not None:
            self._fill_merged(1)
            self._push()
        if self.charged_bytes > self.limit:
            self.shed()

    # -- bytes out -------------------------------------------------------------------------------------------

    def fill(self, most: int) -> None:
        """Move up to `most` frames whose turn it is to the sent side and append their bytes to `to_write`.

        In order, lost frames in their places, at most about `BATCH_BYTES` bytes; up to the first gap that only the
        welcome can decide.
        """
        if self.unsent_high or self.unreported_gaps:
            self._fill_merged(most)
        else:
            self._fill_from_low(most)

    def _fill_from_low(self, most: int) -> None:
        """Fill from the one queue that has anything, the common backlog: nothing to merge, so no loop per frame."""
        low, sent_low = self.unsent_low, self.sent_low
        batch = list(islice(low, most))
        if not batch:
            return
        data = b"".join(batch)
        while len(batch) > 1 and len(data) > BATCH_BYTES:
            batch = batch[: len(batch) // 2]
            data = b"".join(batch)
        data = self.to_write + data
        self.sent_seq = max(self.sent_seq, frames.seq_of(batch[-1]))
        for frame in batch:
            sent_low += (frame,)
            del low[0]
        self.to_write = data

    def _fill_merged(self, most: int) -> None:
        """Fill with the lowest seqs of both queues and the gaps."""
        low, high, gaps = self.unsent_low, self.unsent_high, self.unreported_gaps
        parts: list[bytes] = []
        room = BATCH_BYTES
        try:
            while most > 0 and room > 0:
                most -= 1
                frame = low[0] if low else b""
                if high and (not low or high[0][frames.SEQ] < frame[frames.SEQ]):
                    frame = high[0]
                if gaps and (not frame or gaps[0].first < frames.seq_of(frame)):
                    gap = gaps[0]
                    if not gap.lost:
                        break  # the welcome decides it, and what comes behind may not overtake it
                    told = frames.lost(gap.first, gap.last, gap.cause)
                    room -= len(told)
                    parts.append(told)
                    last = gap.last
                    gap.told = True
                    self.sent_gaps += (gap,)
                    del gaps[0]
                elif frame:
                    room -= len(frame)
                    last = frames.seq_of(frame)
                    parts.append(frame)
                    if high and frame is high[0]:
                        self.sent_high += (frame,)
                        del high[0]
                    else:
                        self.sent_low += (frame,)
                        del low[0]
                else:
                    break
                self.sent_seq = max(self.sent_seq, last)
        finally:
            self.to_write += b"".join(parts)

    def append_bye(self, before: bytes = b"") -> None:
        """Put a bye behind everything that was sent, and `before` in front of it."""
        self.to_write += before + frames.bye(self.seq)

    def written(self, count: int) -> None:
        """Note that the kernel took so many bytes of `to_write`."""
        self.to_write = self.to_write[count:]

    def _push(self) -> None:
        """Offer `to_write` to the kernel; give up `direct_send` unless all of it was taken."""
        send = self._plain_send
        if send is None or self.direct_send is None:
            return
        taken = 0
        try:
            if read_mark(self.direct_fd, GET_MARK) == self.direct_mark:
                taken = send(self.to_write, SEND_FLAGS)
        except OSError:
            pass
        self.to_write = self.to_write[taken:]
        if self.to_write:
            self.direct_send = None
            self._on_blocked()

    def cut_short(self, frame: bytes, taken: int) -> None:
        """Note that the kernel took only `taken` bytes of the line just appended, and wake the sender."""
        if self.spool is not None and not self.spool.has(frame):
            self.spool.append(frame)  # it was not even offered: somebody has closed the descriptor
        if taken:
            self.to_write = frame[taken:]
            self.sent_seq = self.seq
        else:
            self.sent_seq = self.seq - 1
            # In this order an interruption leaves the frame twice, which `repair` puts right, never nowhere.
            if frame[LEVEL_AT] in HIGH_LEVELS:
                self.unsent_high += (frame,)
                del self.sent_high[-1]
            else:
                self.unsent_low += (frame,)
                del self.sent_low[-1]
        self.direct_send = None
        self._on_blocked()

    def unsent(self) -> bool:
        """Whether anything waits for the frames."""
        return bool(self.to_write or self.unsent_low or self.unsent_high or self.unreported_gaps)

    def outstanding(self) -> bool:
        """Whether anything on the wire has no ack yet."""
        return bool(self.sent_low or self.sent_high or self.sent_gaps)

    # -- answers ---------------------------------------------------------------------------------------------

    def release(self, seq: int) -> bool:
        """Forget up to `SLICE_FRAMES` lines the journal has, up to `seq`. True: there are more, call again.

        A seq that was never on the wire releases nothing and is counted in `bad_answers`.
        """
        if seq > (self.seq if self.direct_send is not None else self.sent_seq):
            self.bad_answers += 1
            return False
        self.acked_seq = max(self.acked_seq, seq)
        key = seq.to_bytes(8, "big")
        left = SLICE_FRAMES
        for queue in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high):
            while queue and queue[0][frames.SEQ] <= key:
                size = len(queue[0]) + FRAME_OVERHEAD
                del queue[0]
                self.acked += 1
                self.charged_bytes -= size
                left -= 1
                if not left:
                    return True
        for gaps in (self.sent_gaps, self.unreported_gaps):
            while gaps and gaps[0].first <= seq:
                gap = gaps[0]
                last = min(seq, gap.last)  # a call, but before anything changes
                count = last - gap.first + 1
                if not gap.lost:
                    self.acked += count
                elif not gap.told:
                    # The relay was not told of this gap, and acks it: the lines themselves got there.
                    self.dropped[gap.cause] -= count
                    self.acked += count
                if last == gap.last:
                    self.charged_bytes -= GAP_COST
                    del gaps[0]
                else:
                    gap.first = last + 1
        if self.spool is not None:
            self.spool.acked(self.acked_seq, everything=not self.outstanding() and not self.unsent())
        return False

    def reconnected(self) -> None:
        """Make everything not acked unsent again: a new connection has said hello.

        What was on a wire before is in doubt until `welcomed`.
        """
        unreported: deque[Gap] = deque()
        for gap in heapq.merge(self.sent_gaps, self.unreported_gaps, key=_first):
            if unreported and unreported[-1].last + 1 == gap.first and unreported[-1].is_like(gap):
                unreported[-1].last = gap.last
            else:
                unreported.append(Gap(gap.first, gap.last, gap.cause, lost=gap.lost, told=gap.told))
        low = self.sent_low + self.unsent_low
        high = self.sent_high + self.unsent_high
        no_low: deque[bytes] = deque()
        no_high: deque[bytes] = deque()
        no_gaps: deque[Gap] = deque()
        saved = (len(self.sent_gaps) + len(self.unreported_gaps) - len(unreported)) * GAP_COST
        # No call from here on, so that an interruption finds the state as it was or as it is now.
        self.to_write = b""
        self.doubtful_seq = self.sent_seq
        self.sent_gaps = no_gaps
        self.unreported_gaps = unreported
        self.sent_low = no_low
        self.sent_high = no_high
        self.unsent_low = low
        self.unsent_high = high
        self.charged_bytes -= saved

    def welcomed(self) -> None:
        """Count as dropped what was in doubt and is not in the journal. Called once the welcome's acked is released.

        Not what was sent on this connection and dropped since: its ack is still to come.
        """
        dropped = dict(self.dropped)
        unreported: deque[Gap] = deque()
        for gap in self.unreported_gaps:
            if not gap.lost:
                dropped[gap.cause] += gap.last - gap.first + 1
            decided = Gap(gap.first, gap.last, gap.cause, lost=True, told=gap.told)
            if unreported and unreported[-1].last + 1 == gap.first and unreported[-1].is_like(decided):
                unreported[-1].last = gap.last
            else:
                unreported.append(decided)
        saved = (len(self.unreported_gaps) - len(unreported)) * GAP_COST
        # No call from here on (see `reconnected`).
        self.dropped = dropped
        self.unreported_gaps = unreported
        self.doubtful_seq = 0
        self.charged_bytes -= saved

    def reject(self, seq: int, counted: str, cause: str) -> bool:
        """Drop one line for good, counting it as `counted`: "rejected" if the relay did. False: it is not in memory."""
        key = seq.to_bytes(8, "big")
        for queue in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high):
            for index, frame in enumerate(queue):
                if frame[frames.SEQ] >= key:
                    if frame[frames.SEQ] != key:
                        break
                    size = len(frame) + FRAME_OVERHEAD
                    gaps = self.sent_gaps if queue is self.sent_low or queue is self.sent_high else self.unreported_gaps
                    self._add_gap(gaps, seq, seq, cause, lost=True, told=counted == "rejected")
                    del queue[index]
                    self.charged_bytes -= size
                    self.dropped[counted] += 1
                    return True
        return False

    def first_unacked(self) -> int:
        """Return the lowest seq that is not acked: the next after the last one if there is none."""
        firsts = [
            frames.seq_of(queue[0])
            for queue in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high)
            if queue
        ]
        firsts += [gaps[0].first for gaps in (self.sent_gaps, self.unreported_gaps) if gaps]
        return min(firsts, default=self.seq + 1)

    # -- the bound -------------------------------------------------------------------------------------------

    def shed(self) -> None:
        """Drop lines until the bytes are within the bound: oldest below WARNING first, then oldest of all."""
        while self.charged_bytes > self.limit:
            queue = self.sent_low or self.unsent_low
            if not queue or not self._drop(queue, GAP_COST + GAP_GAIN):
                heads = [queue for queue in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high) if queue]
                if not heads:
                    self._join_gaps(self.sent_gaps)
                    self._join_gaps(self.unreported_gaps)
                    return
                self._drop(min(heads, key=_head), 0)

    def _drop(self, queue: deque[bytes], least: int) -> bool:
        """Drop the first of `queue`; not if that leaves a gap of its own and frees less than `least`."""
        frame = queue[0]
        seq = frames.seq_of(frame)
        size = len(frame) + FRAME_OVERHEAD
        unsent = queue is self.unsent_low or queue is self.unsent_high
        lost = unsent and seq > self.doubtful_seq
        gaps = self.unreported_gaps if unsent else self.sent_gaps
        if gaps:
            gap = gaps[-1]
            if gap.last + 1 == seq and gap.lost is lost and not gap.told and gap.cause == "overflow":
                del queue[0]
                self.charged_bytes -= size
                gap.last = seq
                if lost:
                    self.dropped["overflow"] += 1
                return True
        if size < least:
            return False
        self._add_gap(gaps, seq, seq, "overflow", lost=lost)
        del queue[0]
        self.charged_bytes -= size
        if lost:
            self.dropped["overflow"] += 1
        return True

    def _add_gap(self, gaps: deque[Gap], first: int, last: int, cause: str, *, lost: bool, told: bool = False) -> None:
        """Add seqs to the sorted `gaps`, joining neighbours of one kind."""
        added = Gap(first, last, cause, lost=lost, told=told)
        at = len(gaps)
        if gaps and gaps[-1].first > first:
            # Highs are dropped from the front, where a few steps find the place; elsewhere it is rare.
            at = next(index for index, gap in enumerate(gaps) if gap.first > first)
        before = gaps[at - 1] if at else None
        after = gaps[at] if at < len(gaps) else None
        joins = before is not None and before.last + 1 == first and before.is_like(added)
        meets = after is not None and last + 1 == after.first and after.is_like(added)
        if joins and meets and before is not None and after is not None:
            before.last = after.last
            self.charged_bytes -= GAP_COST
            del gaps[at]
        elif joins and before is not None:
            before.last = last
        elif meets and after is not None:
            after.first = first
        else:
            gaps.insert(at, added)
            self.charged_bytes += GAP_COST

    def _join_gaps(self, gaps: deque[Gap]) -> None:
        """Join neighbours of different causes into the first one's: the last resort of the bound."""
        kept: deque[Gap] = deque()
        for gap in gaps:
            before = kept[-1] if kept else None
            if before and before.last + 1 == gap.first and before.lost is gap.lost and before.told is gap.told:
                if gap.lost:
                    count = gap.last - gap.first + 1
                    self.dropped[gap.cause] -= count
                    self.dropped[before.cause] += count
                before.last = gap.last
                self.charged_bytes -= GAP_COST
            else:
                kept.append(gap)
        gaps.clear()
        gaps.extend(kept)

    # -- after an interruption, and for people ---------------------------------------------------------------

    def repair(self) -> None:  # noqa: PLR0915 - one state in, one state out
        """Make the state true again after somebody was interrupted with the baton.

        The connection is to be closed: everything in memory ends up on the sent side, in doubt until the next welcome.
        May itself be interrupted: then `dirty` stays and the next one starts over.
        """
        self.direct_send = None
        self.broken = True
        low: deque[bytes] = deque()
        high: deque[bytes] = deque()
        charged = 0
        last = self.seq
        seqs: list[int] = []
        for frame in heapq.merge(self.sent_low, self.sent_high, self.unsent_low, self.unsent_high, key=_seq_bytes):
            seq = frames.seq_of(frame)
            if seqs and seqs[-1] == seq:
                continue  # was being moved
            seqs.append(seq)
            last = max(last, seq)  # the line being admitted can be ahead of the counter
            charged += len(frame) + FRAME_OVERHEAD
            (high if frame[LEVEL_AT] in HIGH_LEVELS else low).append(frame)
        gaps: deque[Gap] = deque()
        both: set[int] = set()
        dropped = dict(self.dropped)
        at = 0
        # Seqs of an ack that was being released are no holes: they were counted when they were forgotten.
        expected = self.acked_seq + 1
        for gap in [*heapq.merge(self.sent_gaps, self.unreported_gaps, key=_first), None]:
            start, end = (gap.first, min(gap.last, last)) if gap is not None else (last + 1, last)
            while at < len(seqs) and seqs[at] < start:
                if seqs[at] > expected:
                    gaps.append(Gap(expected, seqs[at] - 1, "overflow", lost=False))
                expected = max(expected, seqs[at] + 1)
                at += 1
            if gap is None or start > end:
                continue
            if start > expected:
                gaps.append(Gap(expected, start - 1, "overflow", lost=False))
            gaps.append(Gap(start, end, gap.cause, lost=gap.lost, told=gap.told))
            expected = max(expected, end + 1)
            while at < len(seqs) and seqs[at] <= end:
                # A line that is also in a gap was being dropped: finish that.
                both.add(seqs[at])
                if gap.lost:
                    dropped[gap.cause] += 1
                at += 1
        if last >= expected:
            gaps.append(Gap(expected, last, "overflow", lost=False))
        if both:
            low = deque(frame for frame in low if frames.seq_of(frame) not in both)
            high = deque(frame for frame in high if frames.seq_of(frame) not in both)
            charged = sum(map(len, low)) + sum(map(len, high)) + FRAME_OVERHEAD * (len(low) + len(high))
        charged += GAP_COST * len(gaps)
        no_low: deque[bytes] = deque()
        no_high: deque[bytes] = deque()
        no_gaps: deque[Gap] = deque()
        # No call from here on (see `reconnected`).
        self.to_write = b""
        self.dropped = dropped
        self.sent_low = low
        self.sent_high = high
        self.unsent_low = no_low
        self.unsent_high = no_high
        self.sent_gaps = gaps
        self.unreported_gaps = no_gaps
        self.charged_bytes = charged
        self.seq = last
        self.sent_seq = last
        self.dirty = False

    def pending(self) -> int:
        """Return how many lines are neither acked nor dropped; exact while nobody has the baton."""
        doubtful = 0
        for gaps in (self.sent_gaps, self.unreported_gaps):
            for gap in list(gaps):
                if not gap.lost:
                    doubtful += gap.last - gap.first + 1
        return (
            len(self.sent_low)
            + len(self.sent_high)
            + len(self.unsent_low)
            + len(self.unsent_high)
            + len(self.inbox)
            + self.overrun
            + self.unencoded
            + doubtful
        )

    def unsent_lines(self) -> int:
        """Return how many of the pending lines were certainly never handed to the kernel as a whole.

        The others were, on this connection or an earlier one, and the relay may have them. Never blocks; exact while
        nobody has the baton, but for a goodbye or a lost frame of which a part waits.
        """
        count = len(self.inbox) + self.overrun + self.unencoded
        for queue in (self.unsent_low, self.unsent_high):
            count += sum(frames.seq_of(frame) > self.doubtful_seq for frame in list(queue))
        waiting = len(self.to_write)
        newest = heapq.merge(
            reversed(list(self.sent_low)), reversed(list(self.sent_high)), key=_seq_bytes, reverse=True
        )
        for frame in newest:
            if waiting <= 0:
                break
            waiting -= len(frame)
            count += 1
        return count

    def produced(self) -> int:
        """Return how many lines were taken, in whatever state they are. Never blocks."""
        return self.seq + len(self.inbox) + self.overrun + self.unencoded

    def oldest_ns(self) -> int | None:
        """Return when the oldest line in memory was logged, nanoseconds since 1970 UTC. Never blocks."""
        oldest = None
        for queue in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high):
            try:
                when = frames.time_of(queue[0])
            except IndexError:
                continue
            oldest = when if oldest is None or when < oldest else oldest
        return oldest


def _seq_bytes(frame: bytes) -> bytes:
    return frame[frames.SEQ]


def _first(gap: Gap) -> int:
    return gap.first


def _head(queue: deque[bytes]) -> bytes:
    return queue[0][frames.SEQ]
