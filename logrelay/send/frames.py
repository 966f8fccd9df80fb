"""The frames that a trader sends and the answers that it reads, for `logrelay send`: the other half of `ingest/frames`.

Owns: encoding of hello, log and bye, how a line that is too long for a frame is cut, and decoding of welcome, ack,
reject and refused (docs/protocol.md, section 1). It must not know sockets, nor the trader's own codec: both are held to
the vectors in tests/contract/vectors. Pure. Read `send/link` next: it sends them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgpack

from logrelay.ingest.frames import MAX_FRAME_BYTES, PROTOCOL

CUT_BYTES = 48 * 1024
"""What is left of the message of a line that is too long: it fits into a frame whatever else is in it."""

MAX_LOGGER_CHARS = 256
"""A longer logger name is not kept in a line that has to be cut."""

MAX_ANSWER_BYTES = 64 * 1024
"""An honest answer has some dozen bytes, a refusal some hundred."""


class Welcome(NamedTuple):
    """The answer to hello."""

    acked: int


class Ack(NamedTuple):
    """Everything up to `seq` is in the journal."""

    seq: int


class Reject(NamedTuple):
    """This line will never be accepted."""

    seq: int
    reason: str


class Refused(NamedTuple):
    """The relay does not want this connection, or does not speak our protocol."""

    reason: str


Answer = Welcome | Ack | Reject | Refused


def hello(run: bytes, app: str, host: str, pid: int, started_ns: int) -> bytes:
    """Encode the first frame of a connection."""
    said = {"protocol": PROTOCOL, "run": run, "app": app, "host": host, "pid": pid, "started_ns": started_ns}
    return _pack([0, said])


def log(seq: int, time_ns: int, level: str, event: Mapping[str, object]) -> bytes:
    """Encode a line. What does not fit into a frame is left out: the fields, and the end of the message.

    `truncated` then says how many bytes it would have had; 0: it was nested too deep to be encoded.
    """
    try:
        packed = _pack([1, seq, time_ns, level, event])
    except ValueError:  # nested deeper than msgpack goes
        packed = b""
    if packed and len(packed) <= MAX_FRAME_BYTES:
        return packed
    message = event.get("event")
    text = message if isinstance(message, str) else ""
    cut = text.encode("utf-8", "replace")[:CUT_BYTES].decode("utf-8", "ignore")
    logger = event.get("logger")
    kept: dict[str, object] = {"event": cut, "truncated": len(packed)}
    if isinstance(logger, str) and len(logger) <= MAX_LOGGER_CHARS:
        kept["logger"] = logger
    return _pack([1, seq, time_ns, level, kept])


def bye(last: int) -> bytes:
    """Encode the end of the run: the relay then acks at once."""
    return _pack([3, last])


class Answers:
    """Decodes what the relay says on one connection."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(raw=False, unicode_errors="replace", max_buffer_size=MAX_ANSWER_BYTES)

    def receive(self, data: bytes) -> list[Answer]:
        """Return the answers that `data` completes. What cannot be understood is a refusal, the last answer."""
        answers: list[Answer] = []
        try:
            self._unpacker.feed(data)
            answers.extend(_decode(raw) for raw in self._unpacker)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            answers.append(Refused(f"what answers there is no relay ({type(error).__name__})"))
        return answers


def _decode(raw: object) -> Answer:
    match raw:
        case [0, {"protocol": protocol, "acked": int(acked)}] if protocol == PROTOCOL:
            return Welcome(acked)
        case [1, int(seq)]:
            return Ack(seq)
        case [2, int(seq), str(reason)]:
            return Reject(seq, reason)
        case [3, str(reason)]:
            return Refused(reason)
    raise ValueError(raw)


def _pack(frame: list[object]) -> bytes:
    packed: bytes = msgpack.packb(frame, unicode_errors="replace")
    return packed
