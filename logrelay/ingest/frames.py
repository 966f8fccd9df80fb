"""The trader protocol, relay side: bytes in, frames out, answers as bytes. Sans-I/O.

Owns: decoding of hello, log, lost and bye; encoding of welcome, ack, reject and refused (docs/protocol.md,
section 1). It must not know sockets, clocks or the journal, nor the trader's own codec: both are held to
the same bytes by tests/contract/vectors. Read `ingest/trader_registry` next: it decides what becomes of each frame.

The module is long because a frame is found, bounded and decoded in one pass over the bytes, with one account of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import msgpack

from logrelay.model import RANKS, UNKNOWN_UID

PROTOCOL = 1
"""The version both sides name in hello and welcome."""

MAX_FRAME_BYTES = 64 * 1024
"""A longer log frame is rejected: the trader truncates (and marks the event) rather than send more."""

MAX_PENDING_BYTES = 1024 * 1024
"""Give up on a frame that is not complete after this much. A trader with one huge line keeps its connection."""

MAX_LONG_BYTES = 4 * 1024 * 1024
"""Half frames over MAX_FRAME_BYTES, of all connections together. No trader of ours sends one, so a few may do so."""

MAX_HELLO_BYTES = 16 * 1024
"""The longest first frame of a connection: a hello has some 200 bytes. Who has not said hello gets no more memory."""

_HEAD_BYTES = 16
"""Of a frame that is too long this much is kept: the array's header, the kind and the seq, which reject names."""

ONE_BYTES = 1024
"""So little is decoded at once, in the hope that it is one frame. If it is the beginning of one, the arrays that it
claims to have take some megabytes for a moment: as many elements as it has bytes, in each of 200 levels."""

_SCAN_BYTES = 4096
"""The end of half a frame is looked for in slices of this size: msgpack's buffer stays that small."""

_SCANNER_BYTES = 44 * 1024
"""What looking for its end takes from the second read on: msgpack's stack of 40 KiB, and that buffer. After an outage
thousands of connections have half a frame each, and most of them have all of it with their second read."""

_ROOM_BYTES = 1 << 30
"""msgpack insists on a bound for its buffer; what it gets here, one read from a socket, is far less."""

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
    peer_uid: int = UNKNOWN_UID
    """The user of who connected, as the kernel says; added by the connection as well."""
    failure: str = ""
    """Why the run ends, where that is a failure; empty: it does not, or not yet."""


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


_UNDECODABLE = (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException)
"""What msgpack raises for bytes that are none of it, and for a key that cannot be one."""

Frame = Hello | Log | Lost | Bye | Bad | Broken

PING = b"\x91\x04"
PONG = b"\x91\x05"
"""For traders whose hello says that they know pings; an old one takes them for nonsense and connects anew."""

_one = partial(msgpack.unpackb, raw=False, strict_map_key=False, unicode_errors="replace")
"""Decodes as `Unpackers.decoder` does, what is one frame and nothing else."""

_first = itemgetter(0)

_log: Callable[[tuple[object, ...]], Log] = partial(tuple.__new__, Log)
"""Makes a Log of a tuple; a NamedTuple's own constructor passes its arguments once more, at a cost per line."""

_HELLO, _LOG, _LOST, _BYE, _PING, _PONG = 0, 1, 2, 3, 4, 5


class Unpackers:
    """What all connections of a loop decode with: a pair of msgpack's unpackers for whole frames, and a shared bound.

    Whoever leaves one of the two in the middle of a frame renews it: that is why they are shared and yet keep nothing.
    """

    __slots__ = ("decoder", "long_bytes", "scanner")

    def __init__(self) -> None:
        self.long_bytes = 0
        """Bytes of half frames over MAX_FRAME_BYTES that the connections wait for now. Decoders keep the account."""
        self.renew_scanner()
        self.renew_decoder()

    def count_long(self, size: int) -> bool:
        """Add to the account of half frames that are too long, or take off; tells whether there is room for them."""
        self.long_bytes += size
        return self.long_bytes <= MAX_LONG_BYTES

    def renew_scanner(self) -> None:
        """Make the one that finds the ends of frames anew."""
        self.scanner = msgpack.Unpacker(max_buffer_size=_ROOM_BYTES, read_size=_SCAN_BYTES)

    def renew_decoder(self) -> None:
        """Make the one that decodes frames anew."""
        self.decoder = msgpack.Unpacker(
            raw=False,
            strict_map_key=False,
            # A line in another encoding is shown with replacement characters rather than rejected.
            unicode_errors="replace",
            max_buffer_size=_ROOM_BYTES,
            read_size=_SCAN_BYTES,  # its first buffer, which grows as needed; else a mebibyte
        )


class Decoder:
    """Turns the bytes of one connection into frames.

    A frame stays bytes until all of it is there: msgpack would make a list of the declared length for every array whose
    header it has seen, so a few bytes could claim megabytes. At most `MAX_FRAME_BYTES` of half a frame are kept. A
    first frame longer than `first_frame_bytes` is `Broken`; pings and pongs before it do not count. After a `Broken`
    the connection is to be closed; further bytes are ignored.
    """

    __slots__ = (
        "_allowed_bytes",
        "_broken",
        "_counted_bytes",
        "_unpackers",
        "_was_one",
        "frame_count",
        "half",
        "was_pinged",
    )

    def __init__(self, unpackers: Unpackers | None = None, *, first_frame_bytes: int = MAX_PENDING_BYTES) -> None:
        self._unpackers = unpackers or Unpackers()
        self._allowed_bytes = first_frame_bytes
        """A frame that is longer, complete or not, breaks the stream."""
        self.half: _PartialFrame | None = None
        """The frame that is not complete yet."""
        self._was_one = False
        """What came last was one frame and nothing else: what comes next is mostly another one."""
        self._counted_bytes = 0
        """What of half a frame is in the shared account now."""
        self._broken = False
        self.was_pinged = False
        """Among what `receive` was given last were pings, however many."""
        self.frame_count = 0
        """Frames that what `receive` was given last has completed, pings among them: so much work it was."""

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet, kept or passed over."""
        return 0 if self.half is None else self.half.size

    @property
    def kept_bytes(self) -> int:
        """Memory that is taken by a frame that is not complete yet."""
        return 0 if self.half is None else self.half.kept_bytes

    def close(self) -> None:
        """Give back what is held: the connection is over."""
        self._drop_partial()
        self._broken, self._was_one = True, False

    def receive(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes, in order, but for pings and pongs. Never raises."""
        self.was_pinged = False
        self.frame_count = 0
        received: list[Frame] = []
        if self._was_one and len(data) <= ONE_BYTES:
            try:
                self._sort((_one(data),), received)
            except _UNDECODABLE:
                pass  # it is more than one, or half of one, or too deep to be told of: then it goes the usual way
            else:
                self.frame_count = 1
                return received
        try:
            while data and not self._broken:
                if self.half is not None:
                    data = self._complete(self.half, data, received)
                else:
                    data = self._take(data, received)
        except _UNDECODABLE as error:
            self._break_off(received, _describe_error(error))
        self._was_one = (
            self.frame_count == 1
            and self.half is None
            and not self._broken
            and self._allowed_bytes == MAX_PENDING_BYTES  # the first frame has come
        )
        return received

    def _take(self, data: bytes, received: list[Frame]) -> bytes:
        """Decode the whole frames up to one that is too long, and hold half a frame behind them.

        Returns what is behind the one that is too long. Raises what msgpack raises.
        """
        start = 0
        sizes: list[int] = []
        fault = ""
        scanner = self._unpackers.scanner
        base: int = scanner.tell()
        scanner.feed(data)
        skip, tell = scanner.skip, scanner.tell
        try:
            while True:
                skip()
                end = tell() - base
                size = end - start
                if size > MAX_FRAME_BYTES:
                    self._unpackers.renew_scanner()
                    self._decode(data[:start], sizes, received)
                    self._take_long(_PartialFrame(data[start:end]), received)
                    return data[end:]
                sizes.append(size)
                start = end
                if start == len(data):
                    break  # the usual end, without the price of an exception
        except msgpack.OutOfData:
            pass
        except _UNDECODABLE as error:
            fault = _describe_error(error)  # its text: the error and this call would keep each other, and more
        if start < len(data):
            self._unpackers.renew_scanner()
        self._decode(data[:start] if start < len(data) else data, sizes, received)
        if fault and not self._broken:
            self._break_off(received, fault)
        if start < len(data) and not self._broken:
            self.half = _PartialFrame(data[start:])
            self._check_bounds(self.half, received)
        return b""

    def _complete(self, partial: _PartialFrame, data: bytes, received: list[Frame]) -> bytes:
        """Add to the frame that has begun; returns what is behind its end. Raises what msgpack raises."""
        rest = partial.grow(data)
        if rest is None:
            self._check_bounds(partial, received)
            return b""
        self._drop_partial()
        if partial.size > MAX_FRAME_BYTES:
            self._take_long(partial, received)
        else:
            self._decode(bytes(partial.begin), [partial.size], received)
        return rest

    def _decode(self, data: bytes, sizes: list[int], received: list[Frame]) -> None:
        """Decode frames of these sizes, which make up all of `data`. Raises what msgpack raises."""
        if not sizes:
            return
        if sizes[0] > self._allowed_bytes:
            self._break(received, _too_long(self._allowed_bytes))
            return
        self.frame_count += len(sizes)
        allowed, self._allowed_bytes = self._allowed_bytes, MAX_PENDING_BYTES
        unpacker = self._unpackers.decoder
        unpacker.feed(data)
        self._sort(map(_first, zip(unpacker, sizes, strict=True)) if len(sizes) > 1 else (unpacker.unpack(),), received)
        if not received:
            self._allowed_bytes = allowed  # pings alone: who has not said hello gets no more memory for them

    def _sort(self, decoded: Iterable[object], received: list[Frame]) -> None:
        """Add the frames of what was decoded, in order; raises what msgpack raises while it goes on decoding."""
        append = received.append
        ranks = RANKS
        for raw in decoded:
            # The common frame first, all of its types at once: this loop runs for every line.
            if type(raw) is list and len(raw) == 5 and raw[0] == _LOG:
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
            frame = _decode_uncommon(raw)
            if isinstance(frame, Ping | Pong):
                self.was_pinged = self.was_pinged or isinstance(frame, Ping)
                continue
            append(frame)
            if type(frame) is Broken:
                self._unpackers.renew_decoder()
                self._broken, self._was_one = True, False
                return

    def _take_long(self, frame: _PartialFrame, received: list[Frame]) -> None:
        """Answer a complete frame that is too long."""
        if self._broken:
            return
        if frame.size > self._allowed_bytes:
            self._break(received, _too_long(self._allowed_bytes))
            return
        self._allowed_bytes = MAX_PENDING_BYTES
        self.frame_count += 1
        answer = frame.answer()
        received.append(answer)
        self._broken = type(answer) is Broken

    def _check_bounds(self, partial: _PartialFrame, received: list[Frame]) -> None:
        """Give up on a frame that has grown too long, or for which there is no room among all connections."""
        has_room = partial.size <= MAX_FRAME_BYTES or self._count(partial.size)
        if partial.size > self._allowed_bytes:
            self._break(received, _too_long(self._allowed_bytes))
        elif not has_room:
            self._break(received, _too_long(MAX_FRAME_BYTES))

    def _count(self, size: int) -> bool:
        """Have so many bytes in the shared account from now on; tells whether there is room for them.

        What was put in is remembered here and not taken from the frame, which grows before an error in it is found.
        """
        more, self._counted_bytes = size - self._counted_bytes, size
        return self._unpackers.count_long(more)

    def _drop_partial(self) -> None:
        """Forget half a frame, if there is one."""
        self.half = None
        if self._counted_bytes:
            self._count(0)

    def _break_off(self, received: list[Frame], fault: str) -> None:
        """Give up on bytes that are no msgpack: there is no way to find the next frame."""
        self._unpackers.renew_decoder()
        self._break(received, f"not msgpack as agreed: {fault}")

    def _break(self, received: list[Frame], reason: str) -> None:
        self._broken = True
        self._drop_partial()
        received.append(Broken(reason))


class _PartialFrame:
    """The beginning of a frame, whose end is looked for as bytes come. Raises what msgpack raises.

    Once it is longer than a frame may be, only its first bytes are kept. It is made of the beginning of a frame, or of
    a whole one that is too long.
    """

    __slots__ = ("_scanner", "begin", "size")

    def __init__(self, data: bytes) -> None:
        self.begin = bytearray(data)
        self._scanner: msgpack.Unpacker | None = None
        """None until more of the frame comes."""
        self.size = len(data)
        """Bytes of the frame so far, kept or passed over."""
        if self.size > MAX_FRAME_BYTES:
            self.grow(b"")

    @property
    def kept_bytes(self) -> int:
        """What it takes of memory."""
        return len(self.begin) + (0 if self._scanner is None else _SCANNER_BYTES)

    def grow(self, data: bytes) -> bytes | None:
        """Add bytes; returns what is behind the frame's end, None while that has not come."""
        if self._scanner is None:
            self._scanner = msgpack.Unpacker(max_buffer_size=_ROOM_BYTES, read_size=_SCAN_BYTES)
            data = bytes(self.begin) + data
            self.begin.clear()
            self.size = 0
        before = self.size
        rest: bytes | None = None
        for at in range(0, len(data), _SCAN_BYTES):
            part = data[at : at + _SCAN_BYTES]
            self._scanner.feed(part)
            try:
                self._scanner.skip()
            except msgpack.OutOfData:
                self.size += len(part)
                continue
            self.size = self._scanner.tell()
            rest = data[self.size - before :]
            break
        if self.size <= MAX_FRAME_BYTES:
            self.begin += data[: self.size - before]
        else:
            if before <= MAX_FRAME_BYTES:
                self.begin += data[:_HEAD_BYTES]
            del self.begin[_HEAD_BYTES:]
        return rest

    def answer(self) -> Frame:
        """Say what is wrong with a frame that is too long; Broken when its first bytes name no seq to reject."""
        unpacker = msgpack.Unpacker(max_buffer_size=_HEAD_BYTES, read_size=_HEAD_BYTES)
        unpacker.feed(bytes(self.begin))
        try:
            elements = unpacker.read_array_header()
            kind, seq = unpacker.unpack(), unpacker.unpack()
        except _UNDECODABLE:
            elements = kind = seq = None
        if type(kind) is int and kind == _LOG and _is_seq(seq) and elements >= 2:
            return Bad(seq, _fault_of_size(self.size))
        return Broken(f"a frame of {self.size} bytes that is no log frame; at most {MAX_FRAME_BYTES} are allowed")


def _too_long(allowed: int) -> str:
    return f"a frame of more than {allowed} bytes; at most {min(allowed, MAX_FRAME_BYTES)} are allowed"


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:120]


def _decode_uncommon(raw: object) -> Frame | Ping | Pong:
    """Decode whatever is not a plain good log frame; for a bad one, find what is wrong with it."""
    if type(raw) is not list or not raw:
        return Broken(f"a frame is an array that begins with its kind, not {type(raw).__name__}")
    kind = raw[0] if type(raw[0]) is int else None
    if kind == _HELLO and len(raw) == 2:
        return _decode_hello(raw[1])
    if kind == _LOG and len(raw) >= 2 and _is_seq(raw[1]):
        return Bad(raw[1], _fault_of_log(raw))
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


def _fault_of_log(raw: list[object]) -> str:
    if len(raw) != 5:
        return f"a log frame has 5 elements, not {len(raw)}"
    _, _, time_ns, level, event = raw
    if type(time_ns) is not int:
        return f"time_ns is an integer, not {type(time_ns).__name__}"
    if type(level) is not str or level not in RANKS:
        return f"level {level!r:.40} is not one of {', '.join(RANKS)}"
    return f"an event is a map, not {type(event).__name__}"


def _fault_of_size(size: int) -> str:
    return f"the frame has {size} bytes; at most {MAX_FRAME_BYTES} are allowed"


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
    failed = value.get("failed")
    failure = failed[:MAX_NAME_CHARS] if type(failed) is str else ""
    names = (app[:MAX_NAME_CHARS], host[:MAX_NAME_CHARS])
    return Hello(run, *names, pid, started, knows_pings, is_dead, failure=failure)


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
