"""The trader's half of wire protocol v1: values to bytes, bytes to values.

Owns: the exact bytes of every frame the trader sends, and the streaming decoder for what the relay answers
(docs/protocol.md, section 1). It must not know sockets, clocks, threads or who asks. Read `outbox` next.

A log frame is built in two halves, because they are known at different moments: the body is packed as soon as
the line exists, the header only when the line gets its place in the run. The header's integers therefore have
a fixed width, which also lets the outbox read the seq and the level back out of a stored frame.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import msgpack

PROTOCOL: Final = 1
MAX_FRAME: Final = 65_536
"""Bytes in one frame, header included; the relay rejects a longer one."""
MAX_DEPTH: Final = 16
"""How deep a frame's event may nest; the event itself is depth 1."""
MAX_SEQ: Final = 2**63 - 1
"""A relay that talks about a higher seq is not talking about ours (SQLite integers end here too)."""

HEADER: Final = struct.Struct(">HBQBQ")
"""0x95 (array of five) 0x01 (log), 0xcf and the seq, 0xcf and the time: see `HEAD`, `U64`."""
HEAD: Final = 0x9501
U64: Final = 0xCF
SEQ: Final = slice(3, 11)
"""Where the seq stands in a log frame: eight bytes, big-endian, so comparing bytes compares seqs."""
TIME: Final = slice(12, 20)
"""Where the time stands in a log frame, nanoseconds since 1970 UTC."""

LEVELS: Final[dict[str, bytes]] = {
    word: msgpack.packb(word) for word in ("debug", "info", "warning", "error", "critical")
}
"""The five level words, packed."""

MAX_BODY: Final = MAX_FRAME - HEADER.size - max(map(len, LEVELS.values()))
"""Bytes left for the packed event."""

SMALL_FRAME: Final = 1_024
"""Bytes that are enough for every frame but logs, unless a name is very long; then the buffer grows."""

MAX_READ: Final = 65_536
"""Bytes taken by the decoder at once."""
MAX_ANSWER: Final = 4_096
"""Bytes of one answer; real ones are far smaller, so an unfinished one that is longer is garbage."""
MAX_REASON: Final = 500
"""Characters kept of a reason the relay gives; it is shown to a person on stderr."""


class Welcome(NamedTuple):
    """The answer to hello: everything up to `acked` is in the journal."""

    acked: int
    ping_s: float = 0.0
    """Seconds of silence after which either side pings; 0: the relay does not know pings."""
    dead_s: float = 0.0
    """Seconds of silence after which either side gives the connection up."""


class Ack(NamedTuple):
    """Everything up to `seq` is in the journal."""

    seq: int


class Reject(NamedTuple):
    """This line can never be accepted; the relay has told its viewers."""

    seq: int
    reason: str


class Refused(NamedTuple):
    """The relay does not want this trader now; it closes the connection."""

    reason: str


class Ping(NamedTuple):
    """The relay wants to hear something: the answer is `PONG`."""


class Pong(NamedTuple):
    """The answer to a ping."""


class Garbage(NamedTuple):
    """Bytes that are no answer of this protocol. Nothing after them can be trusted."""

    why: str


Answer = Welcome | Ack | Reject | Refused | Ping | Pong | Garbage

PING: Final = b"\x91\x04"
PONG: Final = b"\x91\x05"
"""For a relay whose welcome has named an interval, or that has pinged; another one refuses kinds it does not know."""


def hello(*, run: bytes, app: str, host: str, pid: int, started_ns: int, ping: bool = False, failed: str = "") -> bytes:
    """Return the first frame of a connection; `ping`: the relay may send pings on it.

    `failed` says why the run ends, where that is a failure. It may also be said later, by another hello in front of the
    bye: a relay that does not know it takes that for the same hello again.
    """
    said: dict[str, Any] = {
        "protocol": PROTOCOL,
        "run": run,
        "app": app,
        "host": host,
        "pid": pid,
        "started_ns": started_ns,
    }
    if ping:
        said["ping"] = True
    if failed:
        said["failed"] = failed
    return _packb([0, said])


def hello_of_dead(said: bytes, failed: str = "") -> bytes:
    """Return the hello of a run whose process is known to be dead, for the process that sends what it left behind.

    `said` is the run's own hello, `failed` is as there. Raises ValueError and TypeError if it is none.
    """
    kind, facts = msgpack.unpackb(said)
    more = {"failed": failed} if failed else {}
    return _packb([kind, {**facts, "ping": True, "dead": True, **more}])


def log(seq: int, time_ns: int, level: bytes, body: bytes) -> bytes:
    """Return one line's frame; `level` is a value of `LEVELS`, `body` a packed map within `MAX_BODY`."""
    return HEADER.pack(HEAD, U64, seq, U64, time_ns) + level + body


def lost(first: int, last: int, cause: str) -> bytes:
    """Return the frame that stands in the place of the lines `first` to `last`."""
    return _packb([2, first, last, last - first + 1, cause])


def bye(last: int) -> bytes:
    """Return the frame of a clean end; `last` is the last seq used."""
    return _packb([3, last])


def seq_of(frame: bytes) -> int:
    """Return the seq in a log frame made by `log`."""
    return int.from_bytes(frame[SEQ], "big")


def time_of(frame: bytes) -> int:
    """Return the time in a log frame made by `log`, nanoseconds since 1970 UTC."""
    return int.from_bytes(frame[TIME], "big")


def _packb(value: list[Any]) -> bytes:
    # Not msgpack.packb: its buffer of 256 KiB comes from the kernel page by page, in the call of a run's first line.
    packed: bytes = msgpack.Packer(unicode_errors="backslashreplace", buf_size=SMALL_FRAME).pack(value)
    return packed


class Decoder:
    """Bytes from the relay in any pieces, answers out. Never raises on bad input.

    After a `Garbage` the decoder is spent: the connection is to be closed, and a new one gets a new decoder.
    """

    __slots__ = ("_fed", "_read", "_spent", "_unpacker")

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=MAX_READ,
            max_array_len=16,
            max_map_len=64,
            max_str_len=MAX_ANSWER,
            max_bin_len=MAX_ANSWER,
            max_ext_len=0,
            strict_map_key=True,
            unicode_errors="replace",
        )
        self._spent = False
        self._fed = 0
        self._read = 0
        """Bytes up to the end of the last complete answer; `tell` alone counts parts of an unfinished one as well."""

    def feed(self, data: bytes) -> list[Answer]:
        """Return the answers completed by `data`, in order; of neighbouring acks only the highest."""
        answers: list[Answer] = []
        # In pieces: a burst of many answers must not look like one oversize answer to the unpacker's bound.
        for start in range(0, len(data), MAX_READ // 2):
            if self._spent:
                break
            piece = data[start : start + MAX_READ // 2]
            try:
                self._unpacker.feed(piece)
                self._fed += len(piece)
                for value in self._unpacker:
                    self._read = self._unpacker.tell()
                    answer = _answer(value)
                    if type(answer) is Ack and answers and type(answers[-1]) is Ack:
                        # Acks are cumulative: of two neighbours only the higher matters, a lower one is stale.
                        answers[-1] = max(answers[-1], answer)
                    else:
                        answers.append(answer)
                    if type(answer) is Garbage:
                        self._spent = True
                        break
                if self._fed - self._read > MAX_ANSWER and not self._spent:
                    raise ValueError("an answer without end")  # noqa: TRY301 - handled like the unpacker's own
            except Exception as error:
                self._spent = True
                answers.append(Garbage(f"not msgpack: {str(error) or type(error).__name__}"))
        return answers


def _answer(value: object) -> Answer:
    match value:
        case [0, {"protocol": 1, "acked": int(acked), **more}] if _is_seq(acked):
            return Welcome(acked, _seconds(more.get("ping_s")), _seconds(more.get("dead_s")))
        case [0, dict()]:
            return Garbage("a welcome of another protocol")
        case [1, int(seq)] if _is_seq(seq):
            return Ack(seq)
        case [2, int(seq), reason] if _is_seq(seq):
            return Reject(seq, _reason(reason))
        case [3, reason]:
            return Refused(_reason(reason))
        case [4]:
            return Ping()
        case [5]:
            return Pong()
    return Garbage("not an answer of wire protocol v1")


def _is_seq(value: int) -> bool:
    return type(value) is int and 0 <= value <= MAX_SEQ


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SEQ:
        return 0.0
    return float(value)


def _reason(value: object) -> str:
    text = value if isinstance(value, str) else f"({type(value).__name__})"
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_REASON])
