"""The books of one run: every line that has a place in it and is not yet known to be in the journal.

Owns: the token that guards all of this, seq numbers, the frames in memory, the bound on them, what was
dropped, and what goes on the wire next. It must not know sockets beyond one callable that takes bytes, nor
threads, clocks or event dicts. `processor` puts lines in, `link` takes them out. Read `link` next.

**The token.** `token` is a list with one element; who removes it (`del token[0]`) may touch the books and
puts it back when done. No caller waits: who finds it empty appends the line to `inbox`, and whoever holds the
token drains that after giving it back. The link leaves errands in the same way. A lock is not used because an
exception from outside (Ctrl-C, a timeout thrown into the thread) can arrive between `acquire()` returning and
the `try` that would release it: Python looks for such exceptions after calls. It does not look after `del
token[0]`, so the step from taking the token into the `try` cannot be split.

**Interruptions.** For the same reason the books change in statements without calls wherever two of them
belong together. Where that would cost the hot path too much, an interrupted holder leaves `dirty` behind, the
link is closed, and `repair` counts again. What was on the wire is then settled by the next welcome, as after
any lost connection.

**Gaps.** A frame dropped from memory leaves its seq in a gap. If it never was on the wire it is lost for
certain: it is counted at once and a lost frame tells the relay in its place. If it was, the relay may have
it: an ack or the next welcome decides. So the relay's sums and ours are equal, not only close.

    produced = acked + pending + sum(dropped)        at every moment at which nobody holds the token

**Drop policy.** Over the bound the oldest line below WARNING goes first, then the oldest of the others.
"""

from __future__ import annotations

import fcntl
import heapq
import socket
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, TypeVar

from . import frames as wire

OVERHEAD: Final = 64
"""Bytes charged for each frame beyond its length: the bytes object's header, malloc's rounding, the deque's
slot."""
GAP_COST: Final = 144
"""Bytes charged for each gap: the object, its integers, the slot."""
GAP_GAIN: Final = 40
"""Bytes that dropping a line in the middle must free beyond the gap it leaves; else the oldest of all
goes."""
HIGH: Final = b"wec"
"""First letters of the level words that are dropped last: warning, error, critical."""
LEVEL: Final = 21
"""Where the first letter of the level word stands in a frame."""
NAP: Final = 0.000_05
LONGEST_NAP: Final = 0.002
"""Seconds between two looks by someone who waits for an errand: as long as the token is usually held, then
longer."""
PATIENCE: Final = 5.0
"""Seconds to wait for the token: thousands of times longer than it is ever held by a thread that runs. A
process must
not hang at its end because a thread is suspended (by a debugger, say) with the token in its hand."""
SLICE: Final = 256
"""Frames settled or sent while the token and the GIL are held: some 30 microseconds, less than a caller can
feel."""
BATCH: Final = 32_768
"""Bytes joined for one send; large sends cost a fraction per frame, larger ones would hold the token
longer."""

FLAGS: Final = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)
"""For every send: never wait, and never let a dead relay's SIGPIPE end the trader."""
F_SETSIG: Final = 10
F_GETSIG: Final = 11
"""Linux fcntl commands (the fcntl module does not name them): a signal number kept with an open file, see
`link`."""

Send = Callable[[bytes, int], int]
Result = TypeVar("Result")


class Gap:
    """Seqs `first` to `last`, none of them in memory, all of one cause."""

    __slots__ = ("cause", "first", "last", "lost")

    def __init__(self, first: int, last: int, cause: str, *, lost: bool) -> None:
        self.first = first
        self.last = last
        self.cause = cause
        self.lost = lost
        """Counted as dropped. Otherwise the relay may have these lines, and they count as pending."""


class Errand:
    """Something to be done with the token, by whoever holds it."""

    __slots__ = ("args", "cancelled", "done", "error", "result", "work")

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.work = work
        self.args = args
        self.done = False
        self.cancelled = False
        """Nobody waits for it any more: it must not be done later."""
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Do it, unless cancelled. An ordinary error is for the one who waits, any other for this thread."""
        if not self.cancelled:
            try:
                self.result = self.work(*self.args)
            except Exception as error:
                self.error = error
        self.done = True


class Outbox:
    """The books of one run.

    Called without the token: `locked`, `alone`, `settle_inbox`, `pending`, `produced`, `oldest_ns`. All
    others with it.
    """

    __slots__ = (
        "acked",
        "blocked",
        "broken",
        "cautious",
        "direct",
        "dirty",
        "dropped",
        "errands",
        "fd",
        "gaps",
        "heard_wrong",
        "held",
        "inbox",
        "inbox_bytes",
        "limit",
        "manned",
        "overrun",
        "rest",
        "sent_high",
        "sent_low",
        "seq",
        "settled",
        "tag",
        "token",
        "unencoded",
        "unsent_high",
        "unsent_low",
        "untold",
        "wired",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.token: list[None] = [None]
        self.inbox: deque[tuple[int, bytes, bytes]] = deque()
        """(time_ns, packed level, body) of lines that came while the token was taken."""
        self.inbox_bytes = 0
        self.errands: deque[Errand] = deque()
        self.overrun = 0
        """Lines that came while the token was taken and the memory was full."""
        self.unencoded = 0
        """Lines that could not be encoded and have no place yet."""
        self.seq = 0
        self.acked = 0
        """How many lines were acked."""
        self.settled = 0
        """The highest seq that was acked."""
        self.held = 0
        """Bytes charged against `limit`."""
        self.dropped = {"overflow": 0, "too_big": 0, "encode": 0, "rejected": 0, "rejected_repeatedly": 0}
        self.sent_low: deque[bytes] = deque()
        self.sent_high: deque[bytes] = deque()
        self.unsent_low: deque[bytes] = deque()
        self.unsent_high: deque[bytes] = deque()
        self.gaps: deque[Gap] = deque()
        """Gaps on this side of the wire's end: told on this connection, or dropped when already sent."""
        self.untold: deque[Gap] = deque()
        """Gaps to be told when their turn comes; all lost."""
        self.rest = b""
        """Bytes that must be the next on the wire: what the kernel did not take of a frame or batch."""
        self.wired = 0
        """The highest seq that was ever (even in part) on a wire; not kept up to date while `direct`."""
        self.direct: Send | None = None
        """The socket's send while everything before is on the wire and the next line may follow at once."""
        self.fd = -1
        self.tag = -1
        self.dirty = False
        """A holder of the token was interrupted: counters and the wire are in doubt."""
        self.broken = False
        """The connection must be closed; everything sent on it is in doubt until the next welcome."""
        self.manned = False
        """A thread runs that will take the lines from here. Callers test nothing else when a line is only
        queued."""
        self.cautious = False
        """One frame at a time, because connections keep ending around here."""
        self.blocked: Callable[[], object] = _nothing
        """Tells the link that `direct` was given up. Must not raise, block or take a lock."""
        self.heard_wrong = 0

    # -- taking the token ------------------------------------------------------------------------------------

    def locked(self, work: Callable[..., Result], *args: Any) -> Result:
        """Have `work(*args)` done with the token, by this thread or the one that holds it.

        For those who may wait; TimeoutError after `PATIENCE` seconds. The holder does it because waiting for
        the token can be in vain: a thread that logs in a loop lets others run only inside its sends, where it
        holds it. `work` must be short, and able to start over: the holder may be interrupted in the middle.
        """
        errand = Errand(work, args)
        try:
            self.errands.append(errand)
            deadline = time.monotonic() + PATIENCE
            nap = NAP
            self.settle_inbox()
            while not errand.done:
                if self.dirty:
                    # No errand is run before the books are mended, and the one who mends them may be waiting here.
                    self.alone(self.repair)
                if time.monotonic() >= deadline:
                    raise TimeoutError("somebody keeps the token")
                time.sleep(nap)
                nap = min(nap * 2, LONGEST_NAP)
                self.settle_inbox()
        finally:
            errand.cancelled = True
        if errand.error is not None:
            raise errand.error
        result: Result = errand.result
        return result

    def alone(self, work: Callable[[], None]) -> None:
        """Do `work()` with the token, in this thread: for what takes too long to be done by a caller.

        TimeoutError after `PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                del self.token[0]
            except IndexError:
                if time.monotonic() >= deadline:
                    raise TimeoutError("somebody keeps the token") from None
                time.sleep(NAP)
                continue
            try:
                return work()
            except BaseException:
                self.direct = None
                self.dirty = True
                raise
            finally:
                self.token += (None,)  # not a call: those fail at the recursion limit

    def settle_inbox(self) -> None:
        """Give the lines that came meanwhile their place and run the errands.

        For one who holds no token and will not wait. While the books are in doubt nothing is done: the link
        mends them first, which takes long for a caller.
        """
        while (self.inbox or self.errands or self.overrun or self.unencoded) and not self.dirty:
            try:
                del self.token[0]
            except IndexError:
                return
            try:
                self.absorb()
                while self.errands:
                    errand = self.errands[0]
                    if not errand.done:
                        errand.run()
                    del self.errands[0]
            except BaseException:
                self.direct = None
                self.dirty = True
                self.manned = False
                raise
            finally:
                self.token += (None,)  # not a call: those fail at the recursion limit

    # -- lines in --------------------------------------------------------------------------------------------

    def absorb(self) -> None:
        """Give every waiting line its place."""
        inbox = self.inbox
        while inbox:
            time_ns, level, body = inbox[0]
            frame = wire.HEADER.pack(wire.HEAD, wire.U64, self.seq + 1, wire.U64, time_ns) + level + body
            size = len(frame) + OVERHEAD
            weight = len(body)
            high = frame[LEVEL] in HIGH
            # From here to the end of the branch: no call, so no interruption (see above).
            if high:
                self.unsent_high += (frame,)
            else:
                self.unsent_low += (frame,)
            self.seq += 1
            self.held += size
            self.inbox_bytes -= weight
            del inbox[0]
            self.after_queueing()
        if self.overrun:
            count = self.overrun
            self._note(self.untold, self.seq + 1, self.seq + count, "overflow", lost=True)
            self.overrun -= count
            self.seq += count
            self.dropped["overflow"] += count
            self.after_queueing()
        if self.unencoded:
            count = self.unencoded
            self._note(self.untold, self.seq + 1, self.seq + count, "encode", lost=True)
            self.unencoded -= count
            self.seq += count
            self.dropped["encode"] += count
            self.after_queueing()

    def queue(self, time_ns: int, level: bytes, body: bytes) -> None:
        """Take a line that cannot go on the wire now."""
        if self.dirty:
            size = len(body)
            if self.held + self.inbox_bytes + size > self.limit:
                self.overrun += 1
            else:
                self.inbox_bytes += size
                self.inbox.append((time_ns, level, body))
            return
        frame = wire.HEADER.pack(wire.HEAD, wire.U64, self.seq + 1, wire.U64, time_ns) + level + body
        size = len(frame) + OVERHEAD
        if frame[LEVEL] in HIGH:
            self.unsent_high += (frame,)
        else:
            self.unsent_low += (frame,)
        self.seq += 1
        self.held += size
        if self.held > self.limit:
            self.shed()

    def after_queueing(self) -> None:
        """Put a line that was just queued on the wire if it is its turn; keep the bound."""
        if self.direct is not None:
            self.fill(1)
            self.push()
        if self.held > self.limit:
            self.shed()

    # -- bytes out -------------------------------------------------------------------------------------------

    def fill(self, most: int) -> None:
        """Move up to `most` frames whose turn it is to the sent side and append their bytes to `rest`.

        In order, lost frames in their places, at most about `BATCH` bytes.
        """
        low, high, untold = self.unsent_low, self.unsent_high, self.untold
        sent_low, sent_high = self.sent_low, self.sent_high
        parts: list[bytes] = []
        room = BATCH
        if not high and not untold and most > 1:
            # The common backlog: one deque, nothing to merge.
            parts = list(islice(low, most))
            wired = wire.seq_of(parts[-1]) if parts else self.wired
            data = b"".join(parts)
            while len(parts) > 1 and len(data) > BATCH:
                parts = parts[: len(parts) // 2]
                wired = wire.seq_of(parts[-1])
                data = b"".join(parts)
            data = self.rest + data
            self.wired = max(self.wired, wired)
            for frame in parts:
                sent_low += (frame,)
                del low[0]
            self.rest = data
            return
        try:
            while most > 0 and room > 0:
                most -= 1
                frame = low[0] if low else b""
                if high and (not low or high[0][wire.SEQ] < frame[wire.SEQ]):
                    frame = high[0]
                if untold and (not frame or untold[0].first < wire.seq_of(frame)):
                    gap = untold[0]
                    told = wire.lost(gap.first, gap.last, gap.cause)
                    room -= len(told)
                    parts.append(told)
                    last = gap.last
                    self.gaps += (gap,)
                    del untold[0]
                elif frame:
                    room -= len(frame)
                    last = wire.seq_of(frame)
                    parts.append(frame)
                    if high and frame is high[0]:
                        sent_high += (frame,)
                        del high[0]
                    else:
                        sent_low += (frame,)
                        del low[0]
                else:
                    break
                self.wired = max(self.wired, last)
        finally:
            self.rest += b"".join(parts)

    def push(self) -> None:
        """Offer `rest` to the kernel through `direct`; give up `direct` unless all of it was taken."""
        send = self.direct
        if send is None:
            return
        taken = 0
        try:
            if fcntl.fcntl(self.fd, F_GETSIG) == self.tag:
                taken = send(self.rest, FLAGS)
        except OSError:
            pass
        self.rest = self.rest[taken:]
        if self.rest:
            self.direct = None
            self.blocked()

    def cut_short(self, frame: bytes, taken: int) -> None:
        """Note that the kernel took only `taken` bytes of the line just appended, and wake the link."""
        if taken:
            self.rest = frame[taken:]
            self.wired = self.seq
        else:
            self.wired = self.seq - 1
            # In this order an interruption leaves the frame twice, which `repair` mends, never nowhere.
            if frame[LEVEL] in HIGH:
                self.unsent_high += (frame,)
                del self.sent_high[-1]
            else:
                self.unsent_low += (frame,)
                del self.sent_low[-1]
        self.direct = None
        self.blocked()

    def unsent(self) -> bool:
        """Whether anything waits for the wire."""
        return bool(self.rest or self.unsent_low or self.unsent_high or self.untold)

    def outstanding(self) -> bool:
        """Whether anything on the wire waits for its ack."""
        return bool(self.sent_low or self.sent_high or self.gaps)

    # -- answers ---------------------------------------------------------------------------------------------

    def release(self, seq: int) -> bool:
        """Forget up to `SLICE` lines the journal has, up to `seq`. True: there are more, call again.

        A seq that was never on the wire releases nothing and is counted in `heard_wrong`.
        """
        if seq > (self.seq if self.direct is not None else self.wired):
            self.heard_wrong += 1
            return False
        self.settled = max(self.settled, seq)
        key = seq.to_bytes(8, "big")
        left = SLICE
        for frames in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high):
            while frames and frames[0][wire.SEQ] <= key:
                size = len(frames[0]) + OVERHEAD
                del frames[0]
                self.acked += 1
                self.held -= size
                left -= 1
                if not left:
                    return True
        for gaps in (self.gaps, self.untold):
            while gaps and gaps[0].first <= seq:
                gap = gaps[0]
                last = min(seq, gap.last)  # a call, but before anything changes
                count = last - gap.first + 1
                if not gap.lost:
                    self.acked += count
                elif gaps is self.untold:
                    # Never told on this connection, yet in the journal: the lines themselves got there.
                    self.dropped[gap.cause] -= count
                    self.acked += count
                if last == gap.last:
                    self.held -= GAP_COST
                    del gaps[0]
                else:
                    gap.first = last + 1
        return False

    def reconnected(self) -> None:
        """Make everything not acked unsent again. Called once the welcome's acked is released."""
        dropped = dict(self.dropped)
        untold: deque[Gap] = deque()
        for gap in heapq.merge(self.gaps, self.untold, key=_first):
            if not gap.lost:
                dropped[gap.cause] += gap.last - gap.first + 1
            if untold and untold[-1].last + 1 == gap.first and untold[-1].cause == gap.cause:
                untold[-1].last = gap.last
            else:
                untold.append(Gap(gap.first, gap.last, gap.cause, lost=True))
        low = self.sent_low + self.unsent_low
        high = self.sent_high + self.unsent_high
        no_low: deque[bytes] = deque()
        no_high: deque[bytes] = deque()
        no_gaps: deque[Gap] = deque()
        saved = (len(self.gaps) + len(self.untold) - len(untold)) * GAP_COST
        # No call from here on, so that an interruption finds the books as they were or as they are now.
        self.rest = b""
        self.dropped = dropped
        self.gaps = no_gaps
        self.untold = untold
        self.sent_low = no_low
        self.sent_high = no_high
        self.unsent_low = low
        self.unsent_high = high
        self.held -= saved

    def rejected(self, seq: int, counted: str, cause: str) -> bool:
        """Drop one line for good, counting it as `counted`. False: it is not in memory."""
        key = seq.to_bytes(8, "big")
        for frames in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high):
            for index, frame in enumerate(frames):
                if frame[wire.SEQ] >= key:
                    if frame[wire.SEQ] != key:
                        break
                    size = len(frame) + OVERHEAD
                    gaps = self.gaps if frames is self.sent_low or frames is self.sent_high else self.untold
                    self._note(gaps, seq, seq, cause, lost=True)
                    del frames[index]
                    self.held -= size
                    self.dropped[counted] += 1
                    return True
        return False

    def first(self) -> int:
        """Return the lowest seq that is not acked: the next after the last one if there is none."""
        firsts = [wire.seq_of(q[0]) for q in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high) if q]
        firsts += [gaps[0].first for gaps in (self.gaps, self.untold) if gaps]
        return min(firsts, default=self.seq + 1)

    # -- the bound -------------------------------------------------------------------------------------------

    def shed(self) -> None:
        """Drop lines until the bytes are within the bound: oldest below WARNING first, then oldest of all."""
        while self.held > self.limit:
            frames = self.sent_low or self.unsent_low
            if not frames or not self._drop(frames, GAP_COST + GAP_GAIN):
                heads = [q for q in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high) if q]
                if not heads:
                    self._fold(self.gaps)
                    self._fold(self.untold)
                    return
                self._drop(min(heads, key=_head), 0)

    def _drop(self, frames: deque[bytes], least: int) -> bool:
        """Drop the first of `frames`; not if that leaves a gap of its own and frees less than `least`."""
        frame = frames[0]
        seq = wire.seq_of(frame)
        size = len(frame) + OVERHEAD
        lost = frames is self.unsent_low or frames is self.unsent_high
        gaps = self.untold if lost else self.gaps
        if gaps:
            gap = gaps[-1]
            if gap.last + 1 == seq and gap.lost is lost and gap.cause == "overflow":
                del frames[0]
                self.held -= size
                gap.last = seq
                if lost:
                    self.dropped["overflow"] += 1
                return True
        if size < least:
            return False
        self._note(gaps, seq, seq, "overflow", lost=lost)
        del frames[0]
        self.held -= size
        if lost:
            self.dropped["overflow"] += 1
        return True

    def _note(self, gaps: deque[Gap], first: int, last: int, cause: str, *, lost: bool) -> None:
        """Add seqs to the sorted `gaps`, joining neighbours of one kind."""
        at = len(gaps)
        if gaps and gaps[-1].first > first:
            # Highs are dropped from the front, where a few steps find the place; elsewhere it is rare.
            at = next(index for index, gap in enumerate(gaps) if gap.first > first)
        before = gaps[at - 1] if at else None
        after = gaps[at] if at < len(gaps) else None
        joins = before is not None and before.last + 1 == first and before.lost is lost and before.cause == cause
        meets = after is not None and last + 1 == after.first and after.lost is lost and after.cause == cause
        if joins and meets and before is not None and after is not None:
            before.last = after.last
            self.held -= GAP_COST
            del gaps[at]
        elif joins and before is not None:
            before.last = last
        elif meets and after is not None:
            after.first = first
        else:
            gaps.insert(at, Gap(first, last, cause, lost=lost))
            self.held += GAP_COST

    def _fold(self, gaps: deque[Gap]) -> None:
        """Join neighbours of different causes into the first one's: the last resort of the bound."""
        kept: deque[Gap] = deque()
        for gap in gaps:
            if kept and kept[-1].last + 1 == gap.first and kept[-1].lost is gap.lost:
                if gap.lost:
                    count = gap.last - gap.first + 1
                    self.dropped[gap.cause] -= count
                    self.dropped[kept[-1].cause] += count
                kept[-1].last = gap.last
                self.held -= GAP_COST
            else:
                kept.append(gap)
        gaps.clear()
        gaps.extend(kept)

    # -- after an interruption, and for people ---------------------------------------------------------------

    def repair(self) -> None:  # noqa: PLR0915 - one state in, one state out
        """Make the books true again after a holder of the token was interrupted.

        The connection is to be closed.         Everything in memory ends up on the sent side, in doubt until
        the next welcome. May itself be interrupted: then `dirty` stays and the next one starts over.
        """
        self.direct = None
        self.broken = True
        low: deque[bytes] = deque()
        high: deque[bytes] = deque()
        held = 0
        last = self.seq
        seqs: list[int] = []
        for frame in heapq.merge(self.sent_low, self.sent_high, self.unsent_low, self.unsent_high, key=_seq_bytes):
            seq = wire.seq_of(frame)
            if seqs and seqs[-1] == seq:
                continue  # was being moved
            seqs.append(seq)
            last = max(last, seq)  # the line being admitted can be ahead of the counter
            held += len(frame) + OVERHEAD
            (high if frame[LEVEL] in HIGH else low).append(frame)
        gaps: deque[Gap] = deque()
        both: set[int] = set()
        dropped = dict(self.dropped)
        at = 0
        # Seqs that an ack was being worked off for are no holes: they were counted when they were forgotten.
        expected = max(self.settled + 1, 1)
        for gap in [*heapq.merge(self.gaps, self.untold, key=_first), None]:
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
            gaps.append(Gap(start, end, gap.cause, lost=gap.lost))
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
            low = deque(frame for frame in low if wire.seq_of(frame) not in both)
            high = deque(frame for frame in high if wire.seq_of(frame) not in both)
            held = sum(map(len, low)) + sum(map(len, high)) + OVERHEAD * (len(low) + len(high))
        held += GAP_COST * len(gaps)
        no_low: deque[bytes] = deque()
        no_high: deque[bytes] = deque()
        no_gaps: deque[Gap] = deque()
        # No call from here on (see `reconnected`).
        self.rest = b""
        self.dropped = dropped
        self.sent_low = low
        self.sent_high = high
        self.unsent_low = no_low
        self.unsent_high = no_high
        self.gaps = gaps
        self.untold = no_gaps
        self.held = held
        self.seq = last
        self.wired = last
        self.dirty = False

    def pending(self) -> int:
        """Return how many lines are neither acked nor dropped; exact while nobody holds the token."""
        doubtful = 0
        for gap in list(self.gaps):
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

    def produced(self) -> int:
        """Return how many lines were taken, in whatever state they are. Never blocks."""
        return self.seq + len(self.inbox) + self.overrun + self.unencoded

    def oldest_ns(self) -> int | None:
        """Return when the oldest line in memory was logged, nanoseconds since 1970 UTC. Never blocks."""
        oldest = None
        for frames in (self.sent_low, self.sent_high, self.unsent_low, self.unsent_high):
            try:
                when = wire.time_of(frames[0])
            except IndexError:
                continue
            oldest = when if oldest is None or when < oldest else oldest
        return oldest


def _nothing() -> None:
    return None


def _seq_bytes(frame: bytes) -> bytes:
    return frame[wire.SEQ]


def _first(gap: Gap) -> int:
    return gap.first


def _head(frames: deque[bytes]) -> bytes:
    return frames[0][wire.SEQ]
