"""The trader protocol, relay side: bytes in, frames out, answers as bytes. Sans-I/O.

Owns: decoding of hello, log, lost and bye; encoding of welcome, ack, reject and refused (docs/protocol.md,
section 1). It must not know sockets, clocks or the journal, nor the trader's own codec: both are held to
the same bytes by tests/contract/vectors. Read `ingest/trader_registry` next: it decides what becomes of each frame.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgpack

from logrelay.model import RANKS

PROTOCOL = 1
"""The version both sides name in hello and welcome."""

MAX_FRAME_BYTES = 64 * 1024
"""A longer log frame is rejected: the trader truncates (and marks the event) rather than send more."""

MAX_PENDING_BYTES = 1024 * 1024
"""Give up on a frame that is not complete after this much: far over any valid frame, yet small enough that
a thousand faulty traders cannot fill the memory."""

_MAX_BUFFER_BYTES = 2 * MAX_PENDING_BYTES
"""Room for a pending frame and one read from the socket (256 KiB in asyncio and uvloop)."""

_MAX_ITEMS = MAX_FRAME_BYTES
"""An item takes at least a byte, so no valid array or map is longer. Without the bound nine bytes could
claim, and allocate, a list of two million items."""

RUN_KEY_BYTES = 16
MAX_NAME_CHARS = 128
"""App and host names are shown with every run; longer ones are cut."""

MAX_SEQ = 2**63 - 1
"""SQLite's integers end here. A trader would need 300,000 years at a million lines a second."""

_CAUSE_CHARS = 64


class Hello(NamedTuple):
    """The first frame of a connection."""

    run: bytes
    app: str
    host: str
    pid: int
    started_ns: int
    knows_pings: bool = False
    """Pings may be sent to this trader."""
    is_dead: bool = False
    """The process of the run is known to be dead; another one sends what it has left behind."""
    peer_pid: int = 0
    """The pid by which the relay knows the trader's process; 0: not known. Not on the wire: the connection adds it."""


class Log(NamedTuple):
    """One line. `event` belongs to the receiver, who may change it."""

    seq: int
    time_ns: int
    rank: int
    event: dict[object, object]


class Lost(NamedTuple):
    """The trader had to drop the lines `first` to `last`."""

    first: int
    last: int
    cause: str


class Bye(NamedTuple):
    """A clean end."""

    last: int


class Ping(NamedTuple):
    """The trader wants to hear something: the answer is `PONG`."""


class Pong(NamedTuple):
    """The answer to a ping."""


class Bad(NamedTuple):
    """A log or lost frame that can never be accepted, though its seq is known: the answer is reject."""

    seq: int
    reason: str


class Broken(NamedTuple):
    """Bytes after which nothing can be understood any more: the answer is refused. Always the last frame."""

    reason: str


Frame = Hello | Log | Lost | Bye | Bad | Broken

PING = b"\x91\x04"
PONG = b"\x91\x05"
"""For traders whose hello says that they know pings; an old one takes them for nonsense and connects anew."""

_log: Callable[[tuple[object, ...]], Log] = partial(tuple.__new__, Log)
"""Makes a Log of a tuple; a NamedTuple's own constructor passes its arguments once more, at a cost per line."""

_HELLO, _LOG, _LOST, _BYE, _PING, _PONG = 0, 1, 2, 3, 4, 5


class Decoder:
    """Turns the bytes of one connection into frames; keeps at most `MAX_PENDING_BYTES` of half a frame.

    After a `Broken` the connection is to be closed; further bytes are ignored.
    """

    __slots__ = ("_broken", "_bytes_decoded", "_bytes_fed", "_unpacker", "was_pinged")

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=False,
            # A line in another encoding is shown with replacement characters rather than rejected.
            unicode_errors="replace",
            max_buffer_size=_MAX_BUFFER_BYTES,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
        )
        self._bytes_fed = 0
        self._bytes_decoded = 0
        self._broken = False
        self.was_pinged = False
        """Among what `receive` was given last were pings, however many."""

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return self._bytes_fed - self._bytes_decoded

    def receive(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes, in order, but for pings and pongs. Never raises."""
        self.was_pinged = False
        if self._broken:
            return []
        received: list[Frame] = []
        append = received.append
        unpacker = self._unpacker
        ranks = RANKS
        start = self._bytes_decoded
        try:
            unpacker.feed(data)
            self._bytes_fed += len(data)
            tell = unpacker.tell
            for raw in unpacker:
                end = tell()
                size = end - start
                start = end
                # The common frame first, all of its types at once: this loop runs for every line.
                if type(raw) is list and len(raw) == 5 and raw[0] == _LOG and size <= MAX_FRAME_BYTES:
                    kind, seq, time_ns, level, event = raw
                    rank = ranks.get(level) if type(level) is str else None
                    if (
                        rank is not None
                        and type(kind) is int  # true and 1.0 equal 1 as well
                        and type(seq) is int
                        and 0 < seq <= MAX_SEQ
                        and type(time_ns) is int
                        and type(event) is dict
                    ):
                        append(_log((seq, time_ns, rank, event)))
                        continue
                frame = _decode_uncommon(raw, size)
                if isinstance(frame, Ping | Pong):
                    self.was_pinged = self.was_pinged or isinstance(frame, Ping)
                    continue
                append(frame)
                if type(frame) is Broken:
                    self._broken = True
                    break
        except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
            # FormatError, StackError, BufferFull and the length limits: there is no way to find the next frame.
            self._broken = True
            append(Broken(f"not msgpack as agreed: {_describe_error(error)}"))
        self._bytes_decoded = start
        if not self._broken and self.pending > MAX_PENDING_BYTES:
            self._broken = True
            append(Broken(f"a frame of more than {MAX_PENDING_BYTES} bytes; at most {MAX_FRAME_BYTES} are allowed"))
        return received


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:120]


def _decode_uncommon(raw: object, size: int) -> Frame | Ping | Pong:
    """Decode whatever is not a plain good log frame; for a bad one, find what is wrong with it."""
    if type(raw) is not list or not raw:
        return Broken(f"a frame is an array that begins with its kind, not {type(raw).__name__}")
    kind = raw[0] if type(raw[0]) is int else None
    if kind == _HELLO and len(raw) == 2:
        return _decode_hello(raw[1])
    if kind == _LOG and len(raw) >= 2 and _is_seq(raw[1]):
        return Bad(raw[1], _fault_of_log(raw, size))
    if kind == _LOST and len(raw) == 5 and _is_seq(raw[1]) and _is_seq(raw[2]):
        first, last, count, cause = raw[1:]
        if first <= last and count == last - first + 1 and type(cause) is str:
            return Lost(first, last, cause[:_CAUSE_CHARS])
        return Bad(max(first, last), "a lost frame is [2, first, last, last - first + 1, cause]")
    if kind == _BYE and len(raw) == 2 and type(raw[1]) is int and 0 <= raw[1] <= MAX_SEQ:
        return Bye(raw[1])
    if kind in (_PING, _PONG) and len(raw) == 1:
        return Ping() if kind == _PING else Pong()
    return Broken(f"no frame of protocol {PROTOCOL} looks like this: kind {raw[0]!r:.20}, {len(raw)} elements")


def _is_seq(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_SEQ


def _fault_of_log(raw: list[object], size: int) -> str:
    if size > MAX_FRAME_BYTES:
        return f"the frame has {size} bytes; at most {MAX_FRAME_BYTES} are allowed"
    if len(raw) != 5:
        return f"a log frame has 5 elements, not {len(raw)}"
    _, _, time_ns, level, event = raw
    if type(time_ns) is not int:
        return f"time_ns is an integer, not {type(time_ns).__name__}"
    if type(level) is not str or level not in RANKS:
        return f"level {level!r:.40} is not one of {', '.join(RANKS)}"
    return f"an event is a map, not {type(event).__name__}"


def _decode_hello(value: object) -> Hello | Broken:
    if type(value) is not dict:
        return Broken("hello holds a map")
    if value.get("protocol") != PROTOCOL:
        return Broken(f"protocol {value.get('protocol')!r:.20} is not spoken here; this relay speaks {PROTOCOL}")
    run, app, host = value.get("run"), value.get("app"), value.get("host")
    pid, started = value.get("pid"), value.get("started_ns")
    if type(run) is not bytes or len(run) != RUN_KEY_BYTES:
        return Broken(f"hello's run is {RUN_KEY_BYTES} bytes")
    if type(app) is not str or type(host) is not str:
        return Broken("hello's app and host are strings")
    if type(pid) is not int or type(started) is not int or not (0 <= pid <= MAX_SEQ and 0 <= started <= MAX_SEQ):
        return Broken("hello's pid and started_ns are integers")
    knows_pings, is_dead = value.get("ping") is True, value.get("dead") is True
    return Hello(run, app[:MAX_NAME_CHARS], host[:MAX_NAME_CHARS], pid, started, knows_pings, is_dead)


def welcome(acked: int, *, ping_s: float = 0.0, dead_s: float = 0.0) -> bytes:
    """Encode the answer to hello: the last seq of the run that is in the journal.

    `ping_s` and `dead_s` are the seconds of silence after which either side pings, and gives up; 0: no pings here.
    """
    facts: dict[str, object] = {"protocol": PROTOCOL, "acked": acked}
    if ping_s:
        facts |= {"ping_s": ping_s, "dead_s": dead_s}
    return _pack([0, facts])


def ack(seq: int) -> bytes:
    """Encode: everything up to `seq` is in the journal."""
    return _pack([1, seq])


def reject(seq: int, reason: str) -> bytes:
    """Encode: this frame can never be accepted."""
    return _pack([2, seq, reason])


def refused(reason: str) -> bytes:
    """Encode: the relay closes this connection."""
    return _pack([3, reason])


def _pack(frame: list[object]) -> bytes:
    packed: bytes = msgpack.packb(frame)
    return packed
