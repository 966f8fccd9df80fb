"""Who is read when: a trader that sends without pause is read after the others. Pure.

Owns: `ReadShares`, which says for how long a connection is left unread after a read. It must not know sockets or
timers; time is an argument, in seconds of a clock that never steps. Read `ingest/server` next: it leaves the
connections unread.

One trader alone is read as fast as it sends: a backlog after an outage should be over soon. It is a flood only for
others, whose lines wait while thousands of its lines are decoded, committed and shown. So while anybody else logs, all
that flood share a part of what the relay can do, and the kernel keeps what they have sent meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from logrelay.ingest.token_bucket import TokenBucket

BURST_LINES = 5_000
"""Lines that a connection may send at once: the backlog of a bot that was away for some minutes."""

LINES_PER_S = 2_000.0
"""Lines that it gets back in a second, ten times what a busy bot logs. Beyond it the connection floods."""

LINE_BYTES = 256
"""So many bytes cost as much as a line, if the lines are long."""

FRAMES_AT_ONCE = 1_000
"""Frames in one read of a connection, if they are as long as those of the read before: some ten milliseconds. A line
has 150 bytes, mostly, and a whole read has fewer of them; but the shortest frames have two bytes."""

FLOOD_LINES_PER_S = 10_000.0
"""Of all connections that flood, while others log: a tenth of what the relay reads at full speed on a small machine, so
that a commit has some hundred lines and nobody waits for many of them."""

LONE_S = 0.010
"""One line at a time, so far apart, is a twentieth of what a connection gets back: it need not be counted."""

LONE_BYTES = 4 * 1024
"""Of such a line: it costs as much as sixteen."""

OTHERS_S = 2.0
"""Others log if one that does not flood has been read within so many seconds."""

TELL_AFTER_S = 5.0
"""A connection that has been left unread again and again for so long is told of: catching up takes less."""

TELL_AGAIN_S = 60.0
"""And again after so long, with the number of lines since."""


class _Share:
    """What is known of one connection."""

    __slots__ = ("bucket", "flooding_since", "frame_bytes", "lines", "read_at", "told_at")

    def __init__(self, mono: float) -> None:
        self.bucket = TokenBucket(BURST_LINES, LINES_PER_S, mono)
        self.flooding_since: float | None = None
        self.told_at = float("-inf")
        self.read_at = float("-inf")
        """Monotonic time of the last read."""
        self.lines = 0
        """Since it floods, or since that was last told."""
        self.frame_bytes = 0.0
        """Of a frame in the last read that ended any, on average; 0: there was none yet."""

    def read(self, lines: int, size: int, mono: float) -> float | None:
        """Note a read; returns what it cost if the connection floods, else None."""
        since_s, self.read_at = mono - self.read_at, mono
        if lines:
            self.frame_bytes = size / lines
        if lines == 1 and since_s >= LONE_S and size <= LONE_BYTES and self.flooding_since is None:
            return None
        cost = max(lines, size / LINE_BYTES)
        if self.bucket.spend(mono, cost):
            self.flooding_since = None
            self.lines = 0
        elif self.flooding_since is None:
            self.flooding_since = mono
        self.lines += lines
        return None if self.flooding_since is None else cost

    def take_report(self, mono: float) -> tuple[int, float] | None:
        """Return lines and seconds if it is time to tell of the flood."""
        if self.flooding_since is None or mono - self.flooding_since < TELL_AFTER_S:
            return None
        if mono - self.told_at < TELL_AGAIN_S:
            return None
        since = max(self.flooding_since, self.told_at)
        lines, self.lines, self.told_at = self.lines, 0, mono
        return lines, mono - since


class ReadShares:
    """The shares of all connections; one that is over is to be forgotten."""

    def __init__(self) -> None:
        self._shares: dict[Hashable, _Share] = {}
        self._quiet: tuple[Hashable, float] | None = None
        """The connection that does not flood and was read last, and when."""
        self._free_at = 0.0
        """Monotonic time at which those that flood have used up what they have been read."""

    def pause_s(self, connection: Hashable, lines: int, size: int, mono: float) -> float:
        """Note a read of so many lines and bytes; return the seconds for which the connection is left unread.

        Frames of other kinds count as lines.
        """
        share = self._shares.get(connection)
        if share is None:
            share = self._shares[connection] = _Share(mono)
        cost = share.read(lines, size, mono)
        if cost is None:
            self._quiet = (connection, mono)
            return 0.0
        if not self._others_log(connection, mono):
            self._free_at = mono
            return 0.0
        self._free_at = max(self._free_at, mono) + cost / FLOOD_LINES_PER_S
        return self._free_at - mono

    def read_bytes(self, connection: Hashable, least: int, most: int, clock: Callable[[], float]) -> int:
        """Return how much to read of a connection at once, for `FRAMES_AT_ONCE`.

        It is the least of one that is not known, and of one that has used up more than its share while others log.
        `clock` is asked for the monotonic time where it matters.
        """
        share = self._shares.get(connection)
        if share is None or (share.flooding_since is not None and self._others_log(connection, clock())):
            return least
        wanted = share.frame_bytes * FRAMES_AT_ONCE
        return most if wanted >= most else max(least, int(wanted))

    def _others_log(self, connection: Hashable, mono: float) -> bool:
        return self._quiet is not None and self._quiet[0] != connection and mono - self._quiet[1] <= OTHERS_S

    def take_report(self, connection: Hashable, mono: float) -> tuple[int, float] | None:
        """Return how many lines in how many seconds a connection has sent that is to be told of as a flood."""
        share = self._shares.get(connection)
        return None if share is None else share.take_report(mono)

    def forget(self, connection: Hashable) -> None:
        """Forget a connection that is over."""
        self._shares.pop(connection, None)
