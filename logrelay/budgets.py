"""What one connection on the viewers' port may cost, and all of them together: one table.

Owns: every limit on what a stranger or a viewer can make the relay hold or do, with its reason, and `Allowance`, which
counts messages against time. It must not know sockets or who is counted. Pure: time is an argument. docs/protocol.md
says what a client sees beyond each limit. Read `viewers/turns` next: it shares out the work.

What happens beyond a limit: the connection waits (it is not read from), its request is answered with 503 or `busy`, or
it is closed. Nobody else waits with it.
"""

from __future__ import annotations

# --- before a request is complete ------------------------------------------------------------------------------------

HANDSHAKE_SLOTS = 1024
"""Connections without a complete request. Beyond it the oldest of them is cut: whoever means it has sent its request
in the same moment, so the newest is never the one that holds a place for nothing."""

HANDSHAKES_PER_ADDRESS = 512
"""Of them from one address; the same, for the oldest of that address. Half of the places are left to the others."""

TLS_SILENT = 8192
"""Connections that have not said all of what begins a TLS handshake, 2 KiB each. Beyond it the oldest is cut. They are
many because connecting is quick: whoever connects without pause is to take longer to fill these places than a client
on a busy machine, or far away, takes for its first words."""

TLS_SILENT_PER_ADDRESS = 4096
"""Of them from one address; the same, for the oldest of that address. Half of the places are left to the others."""

TLS_HANDSHAKES = 1024
"""Connections in a TLS handshake, some 40 KiB each, and as many that wait for their turn to begin. Beyond it the oldest
is cut: a handshake takes a second over a bad network, and whoever begins one for nothing holds its place for longer."""

TLS_HANDSHAKES_PER_ADDRESS = 512
"""Of them from one address; the same, for the oldest of that address."""

TLS_ACCEPTS = 128
"""Taken in one turn of the loop, some 20 microseconds each."""

TLS_BEGINS = 8
"""Handshakes begun in one turn of the loop: each brings its arithmetic with it, up to a millisecond."""

# --- while a request is answered -------------------------------------------------------------------------------------

ANSWER_SLOTS = 256
"""Plain answers that are not read to their end yet, some 40 KiB each at most. Beyond it the oldest is cut."""

SEARCHES = 32
"""Answers to /logs at once. Each holds up to half a megabyte while its reader takes its time. Beyond it: 503."""

SEARCH_RETRY_AFTER_S = 2
"""When it is worth asking again: a search that is read takes less."""

STALLED_ANSWER_S = 5.0
"""While so many long answers are under way that others are refused, one of which nothing is taken for so long is cut: a
reader that is only slow takes some of it, and one that has gone, or means harm, would keep its place for a minute."""

ANSWER_SLICE_BYTES = 64 * 1024
"""Written at once of a long answer; the rest waits for the socket to drain."""

UNREAD_BYTES = 16 * 1024 * 1024
"""Answers and lines that wait for their readers, of all connections together: what the kernel has not taken. Beyond it
the one that has taken nothing for the longest time is cut, of the address that holds most. Half a megabyte for each is
in the kernel already, so what waits here is for a reader that is very slow, or none: room for sixteen of the longest
answers, or for the lines of three hundred phones that sleep and all want something else. Long answers to /logs are not
counted here, `SEARCHES` bounds them."""

HISTORIES_BEGUN = 4
"""History answers of which the first page is being read or waits for it: twice as many as are read at once, so that the
journal is never without work."""

HISTORY_KEPT_BYTES = 4 * 1024 * 1024
"""Of history answers that wait for their next page, what is there and what is expected, of all viewers together.
Beyond it nobody begins: the next one waits, with nothing kept for it, until one of the others is whole. As much again
may be kept by those that look for a text or a field."""

HISTORY_PAGES_AHEAD = 8
"""What an answer is expected to grow by is so many pages like its last one. A page ends after 50 ms, so on a busy
machine an answer has ten, and a hundred answers of which each had the first would be ten times as much in the end."""

# --- places for viewers --------------------------------------------------------------------------------------------

KEPT_PER_ADDRESS = 16
"""Viewers of one address that no other address takes the place of: the phones and pages of a house behind one router.
While there are places an address may take any number; when `--max-viewers` is reached, an address that has fewer gets
the place of the newest viewer of the address that has most. So one address cannot keep the others out, and a proxy in
front of all viewers, whose address is the only one, changes nothing."""

# --- an open WebSocket -----------------------------------------------------------------------------------------------

READ_BYTES = 16 * 1024
"""Read at once from one connection: all that a message needs, and little to hold while it waits for its turn."""

MESSAGES_PER_S = 50.0
"""Frames of one viewer that are acted on in a second. A person scrolls ten pages in a second, a program pings once."""

MESSAGES_AT_ONCE = 100.0
"""So many may come together, after a pause. Beyond it the viewer is not read from until its time has come."""

PONGS_DUE = 100
"""Pongs that do not count among them, because they answer the relay's own pings to a device: as many as are waited for,
and of those no more than this, or a device that has left thousands of pings unanswered could send as many at once."""

LEAST_WAIT_S = 0.01
"""What a viewer that sent too much waits at least: half a message's time. The loop's timers are a millisecond early or
late, so that waiting for less would look again and again for one message, and count each time."""

UNDECODED_BYTES = 16 * 1024 * 1024
"""Beginnings of messages, of all viewers together. Beyond it the viewer that has held one for the longest time is
closed with 4429: a healthy viewer's message is whole within a packet or two."""

SILENCES_AT_ONCE = 20
"""Changes of what alerts are silenced for, of all viewers together: more than a person makes on a bad morning,"""

SILENCES_PER_S = 0.1
"""and after them so many in a second. Each is told in a line of the stream and written to a file; beyond it: `busy`."""

# --- the loop --------------------------------------------------------------------------------------------------------

TURN_S = 0.004
"""Work for viewers in one turn of the loop; one message may take longer, the next one waits for the next turn.
Between two turns lines are taken, committed and published."""

# --- what people are told --------------------------------------------------------------------------------------------

NOTICE_FIRST_S = 1.0
"""What happens first is told so much later, with how often it has happened since."""

NOTICE_AGAIN_S = 60.0
"""And then no more often than this, whatever happens how often."""

TRIM_CONNECTIONS = 32
"""After so many connections have ended, memory is given back to the system: some may have been long searches."""

TRIM_PAUSE_S = 3.0
"""And not more often than this: looking for free pages takes some milliseconds, on a thread of its own."""

CAUSES: dict[str, str] = {
    "handshake": "connections without a complete request were cut: there were too many",
    "answer": "connections were cut that did not read their answers: there were too many",
    "unread": "connections were cut that did not read: too much waited for them",
    "stalled": "long answers were cut: nothing was read of them while others waited for their place",
    "share": "viewers were closed with 4429: their address had most of the places, and another one needed one",
    "undecoded": "viewers were closed with 4429: too many beginnings of messages were held",
    "messages": "times a viewer sent more messages than it may and had to wait",
}
"""What happens beyond a limit, by the name of its counter `viewer_<cause>_limit_total`."""


class Allowance:
    """How many messages a connection may send: `MESSAGES_AT_ONCE`, refilled by `MESSAGES_PER_S`."""

    __slots__ = ("_at", "_left")

    def __init__(self, mono: float) -> None:
        """Begin with a full allowance at the monotonic time `mono`, in seconds."""
        self._left = MESSAGES_AT_ONCE
        self._at = mono

    def take(self, mono: float) -> float:
        """Take one message. Returns 0.0, or the seconds after which there is one to take."""
        self._left = min(MESSAGES_AT_ONCE, self._left + (mono - self._at) * MESSAGES_PER_S)
        self._at = mono
        if self._left < 1:
            return max((1 - self._left) / MESSAGES_PER_S, LEAST_WAIT_S)
        self._left -= 1
        return 0.0
