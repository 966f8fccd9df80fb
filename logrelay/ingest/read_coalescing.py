"""How long the traders' sockets are left unread between two reads. Pure.

Owns: the rule that turns a stream of single lines into batches. While the relay rests, the kernel buffers; a trader's
send then wakes nobody (measured: 18 us -> 7 us per call at 2,000 lines/s), and everything that costs the same for one
line or a hundred (a commit, a write per viewer) is paid once.

It must not know sockets or timers. Read `ingest/server` next: it applies the rule.

A line that comes alone is read at once, and nothing follows: a rest would only cost a timer. Where lines come close
behind one another, the relay rests after each read, so that a line waits for at most one rest and a commit has several
lines. When much had piled up the batch was large already, and a rest would only waste the processor.
"""

from __future__ import annotations

REST_S = 0.004
"""Between two reads of a stream; a line waits half of it on average, which nobody sees. At 1,000 lines/s four or five
lines then share a commit, a write to each viewer and two wake-ups."""

LONE_S = 0.010
"""A read so long after the one before finds a line that comes alone: up to 100 lines/s, evenly."""

MAX_REST_S = 0.008
"""With p99 from log call to viewer promised within 10 ms at 100 viewers, no rest may use it up."""

COMMIT_S = 0.001
"""The fixed costs of a read that do not grow, and"""
VIEWER_WRITE_S = 0.000_010
"""one write to one viewer's socket. A rest is at least as long as both, so that at most half of the time goes into
them."""

FULL_BYTES = 32 * 1024
"""A tick that read this much (some 150 lines, a millisecond of work) is worth its fixed costs: do not rest."""

FULL_BYTES_PER_VIEWER = 2 * 1024
"""And this much for every viewer, so that the work on its lines is several times that of the writes."""


def rest_after(read_bytes: int, viewers: int, *, since_s: float) -> float:
    """Return the seconds to leave the sockets unread after a tick that read `read_bytes`.

    `viewers` are at the head; `since_s` is how long before this read the one before was.
    """
    if since_s >= LONE_S or read_bytes >= max(FULL_BYTES, viewers * FULL_BYTES_PER_VIEWER):
        return 0.0
    return min(max(REST_S, COMMIT_S + viewers * VIEWER_WRITE_S), MAX_REST_S)
