"""What one viewer has received, as far as it can be known without its help.

Owns: `Receipts`: which bytes of a connection brought the viewer to which position, which pings were sent behind them
and answered, and what follows from that when the connection ends. It must not know sockets, timers or devices: bytes
and times are arguments. Pure. Read `viewers/devices` next.

Two things are known. An answered ping says that the other end's WebSocket has read everything before it: sure, and late
by a round trip. The kernel says which bytes the next machine's TCP has acknowledged: at once, but a process that is
suspended has not read them, nor does the machine behind a proxy have them. So the answers decide, and the kernel is
believed for the rest only where nothing speaks against it: the network fell silent, and until then no ping stood
unanswered although it had arrived (`Receipts.received`).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import orjson

from logrelay.errors import RequestError
from logrelay.fanout.positions import split_id

AWAKE_S = 0.2
"""A ping that arrived so long ago and has no answer was not read: a process that runs answers within milliseconds. Also
how long what was sent has to stay unacknowledged for the network to be called silent."""

LIVE_S = 1.0
"""While no ping has waited for longer, what has arrived is taken for read: a busy phone is late with its answers. It is
only asked for what to write down in case the relay is killed."""

KEPT_BYTES = 1024 * 1024
"""Frames kept to be counted, at most; what is beyond is known as a whole only. They are the bytes that the hub has in
memory for all viewers anyway, twice what the kernel takes of one viewer that reads slowly (`NOTSENT_BYTES`)."""

MAX_MARKS = 1024
"""Marks that are kept, at most; with more of them outstanding the newest takes the place of the one before."""


class _Written(NamedTuple):
    start: int
    payload: bytes


class _Ping(NamedTuple):
    number: int
    end: int
    """Bytes of the connection before it, itself included."""
    sent_s: float


class Receipts:
    """The bytes of one connection and what they mean; it begins at `position`, with `end` bytes written already."""

    __slots__ = ("_end", "_kept", "_marks", "_pings", "_written", "position")

    def __init__(self, position: int, end: int) -> None:
        self.position = position
        """The viewer's own end is known to have read every line up to here."""
        self._end = end
        """The bytes that this is known of."""
        self._marks: deque[tuple[int, int]] = deque()
        """Bytes, and the position with them; both rising."""
        self._written: deque[_Written] = deque()
        self._kept = 0
        self._pings: deque[_Ping] = deque()

    # --- what is sent ---------------------------------------------------------------------------------------------

    def wrote(self, start: int, payload: bytes) -> None:
        """Note frames with lines that begin at the byte `start` of the connection."""
        self._written.append(_Written(start, payload))
        self._kept += len(payload)
        while self._kept > KEPT_BYTES:
            self._kept -= len(self._written.popleft().payload)

    def mark(self, end: int, position: int) -> None:
        """Note that with the first `end` bytes of the connection a viewer stands at `position`."""
        last_end, last = self._marks[-1] if self._marks else (self._end, self.position)
        if position == last:
            return
        if end == last_end and self._marks:
            self._marks.pop()
        elif end == last_end:
            self.position = position  # nothing had to be sent for it
            return
        elif len(self._marks) >= MAX_MARKS:
            self._marks.pop()
        self._marks.append((end, position))

    @property
    def wants_ping(self) -> bool:
        """True when an answer would tell something, and none is waited for."""
        return bool(self._marks) and not self._pings

    @property
    def all_read(self) -> bool:
        """True when everything that was sent is known to have been read."""
        return not self._marks

    def pinged(self, number: int, end: int, now_s: float) -> None:
        """Note a ping, whose last byte is the byte `end` of the connection; `number` rises from ping to ping."""
        self._pings.append(_Ping(number, end, now_s))

    # --- what comes back ------------------------------------------------------------------------------------------

    def answered(self, number: int) -> bool:
        """Take the answer to a ping, which is one to all before it too. Returns whether `position` has changed."""
        end = 0
        while self._pings and self._pings[0].number <= number:
            end = self._pings.popleft().end
        return self._confirm(end)

    def read_up_to(self, end: int) -> bool:
        """Note that the other end has read the first `end` bytes. Returns whether `position` has changed."""
        return self._confirm(end)

    def unanswered_s(self, now_s: float) -> float:
        """Return for how long the oldest ping without an answer has been waiting; 0.0: there is none."""
        return now_s - self._pings[0].sent_s if self._pings else 0.0

    @property
    def unanswered(self) -> int:
        """How many pings wait for their answers."""
        return len(self._pings)

    def _confirm(self, end: int) -> bool:
        before = self.position
        while self._marks and self._marks[0][0] <= end:
            self.position = self._marks.popleft()[1]
        while self._written and self._written[0].start + len(self._written[0].payload) <= end:
            self._kept -= len(self._written.popleft().payload)
        self._end = max(self._end, end)
        return self.position != before

    def standing(self, acknowledged: int | None, now_s: float) -> int:
        """Return the position that the viewer has received for all that is known now; `acknowledged` as in `received`.

        It is what is written down while the connection is open, and counts when the relay is killed: the kernel's word
        spares a viewer that is late with its answers the lines that it has. One that is suspended gives none, and may
        lose its socket before it reads on: so that word counts for `LIVE_S` only.
        """
        if acknowledged is None or self.unanswered_s(now_s) >= LIVE_S:
            return self.position
        return self._marked(acknowledged)

    def _marked(self, acknowledged: int) -> int:
        position = self.position
        for end, at in self._marks:
            if end > acknowledged:
                break
            position = at
        return position

    # --- the end --------------------------------------------------------------------------------------------------

    def received(self, acknowledged: int | None, now_s: float) -> int:
        """Return the position that the viewer has received, for a connection that ends now without a goodbye.

        `acknowledged` is how many bytes the kernel knows to have arrived; None: it does not, or somebody else's end is
        in between. It counts beyond the answers only if what was sent `AWAKE_S` ago has not arrived, so that it was the
        network that ended, and nobody has left a ping unanswered that had arrived so long before.
        """
        if acknowledged is None:
            return self.position
        arrived = [ping for ping in self._pings if ping.end <= acknowledged]
        silent = any(ping.end > acknowledged and now_s - ping.sent_s >= AWAKE_S for ping in self._pings)
        if not silent or (arrived and arrived[-1].sent_s - arrived[0].sent_s >= AWAKE_S):
            return self.position
        return max(self._marked(acknowledged), self._last_whole_line(acknowledged))

    def _last_whole_line(self, acknowledged: int) -> int:
        """Return the seq of the last line whose frame has arrived whole, of those that are kept; 0: none."""
        found = b""
        for start, payload in self._written:
            at = 0
            while at < len(payload):
                head, size = frame_at(payload, at)
                if start + at + head + size > acknowledged:
                    return seq_of(found)
                found = payload[at + head : at + head + size]
                at += head + size
        return seq_of(found)


def frame_at(payload: bytes, at: int) -> tuple[int, int]:
    """Return the bytes of header and body of the frame of ours that begins at `at` (RFC 6455 section 5.2)."""
    size = payload[at + 1]
    if size < 126:
        return 2, size
    head = 4 if size == 126 else 10
    return head, int.from_bytes(payload[at + 2 : at + head], "big")


def seq_of(text: bytes) -> int:
    """Return the seq of a line, of the last line of an array; 0 where it is neither."""
    try:
        message = orjson.loads(text)
        return split_id((message[-1] if isinstance(message, list) else message)["id"])[1]
    except (ValueError, LookupError, TypeError, RequestError):
        return 0
