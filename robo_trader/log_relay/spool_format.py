"""What a spool file looks like: a run's lines that are not acked, for whoever finds the file when the run is dead.

Owns: the bytes of the file, writing a line into them, and reading what a dead run left. It must not know files, locks,
sockets or the clock: it is given a buffer to write to, and a function to read with. Read `spool` next.

    0      magic, length of hello, bytes of a ring, crc32 of both and hello; then hello itself
    4056   a word: the last seq in the file, so that what a damaged end has cost is known
    4064   four words: position and lap of the low ring, the same of the high ring, the seq acked, whether the run ended
    4096   the low ring: lines below WARNING; then the high ring, as long: the others

A ring holds records one behind the other, and begins again at its start when its end is reached: `position` is where
the next record goes, and from there to `lap` lies what is left of the lap before. Both are halves of one word, so that
a killed process leaves the two of one moment. A record is a mark, its length, a checksum that begins with the run's,
and a frame as it would go on the wire. So a record is valid by itself: one that was being written when the process was
killed is none, and of the lap before the first that is whole is found by its mark.

Each ring is longer than the outbox's bound, so what is still in the outbox is never overwritten, and the file needs no
rule of its own about what to drop.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from zlib import crc32

import msgpack

from . import frames

MAGIC: Final = b"LRSPOOL1"
"""Its last character is the version."""
HEADER_BYTES: Final = 4_096
START: Final = struct.Struct("=8sIII")
WORDS: Final = struct.Struct("=4Q")
LAST: Final = struct.Struct(">Q")
LAST_AT: Final = HEADER_BYTES - WORDS.size - LAST.size
"""Before the other words, where earlier files have a zero, which says nothing: so they can be read as before."""
MAX_HELLO: Final = LAST_AT - START.size
LOW, HIGH, ACKED, ENDED = range(4)
IN_ORDER, FAILED = 1, 2
"""What the word at `ENDED` says of a run that said goodbye, or would have; 0: it did not come to that."""
"""Places of the words; the first two are also the rings."""
LAP_SHIFT: Final = 32
POSITION: Final = (1 << LAP_SHIFT) - 1
RECORD: Final = struct.Struct("=4sII")
MARK: Final = b"\xf5lr\n"
"""What a record begins with. 0xf5 is in no UTF-8 text, so it is rare in lines."""
MAX_RECORD: Final = RECORD.size + frames.MAX_FRAME
SPARE: Final = 4 * MAX_RECORD
"""Bytes of a ring beyond the outbox's bound: the end that a long record does not fit into, and the line that is over
the bound until something was dropped for it."""
CHUNK: Final = 4 * MAX_RECORD
"""Bytes read at once."""
LEVEL_AT: Final = 21
HIGH_LEVELS: Final = b"wec"
"""As in `outbox`: which lines are in the high ring."""

_record = RECORD.pack
_crc32 = crc32


def ring_bytes(limit: int) -> int:
    """Return how long a ring has to be for an outbox of `limit` bytes."""
    return limit + SPARE


def file_bytes(ring: int) -> int:
    """Return how long a file with two such rings is."""
    return HEADER_BYTES + 2 * ring


class Writer:
    """Writes into a buffer of `file_bytes(ring)` zeros, for one run. Raises ValueError if hello is too long.

    One thread at a time. What a method raises is only what the buffer does.
    """

    __slots__ = ("_last", "_position", "_ring_bytes", "_seed", "_view", "_words")

    def __init__(self, view: memoryview, *, ring: int, hello: bytes, run: bytes) -> None:
        if len(hello) > MAX_HELLO:
            raise ValueError("hello is too long for the file's header: a shorter app name would do")
        self._view = view
        self._words = view[HEADER_BYTES - WORDS.size : HEADER_BYTES].cast("Q")
        self._last = view[LAST_AT : LAST_AT + LAST.size]
        self._ring_bytes = ring
        self._seed = crc32(run)
        self._position = [0, 0]
        view[START.size : START.size + len(hello)] = hello
        view[: START.size] = START.pack(MAGIC, len(hello), ring, crc32(hello, ring))

    def append(self, frame: bytes) -> None:
        """Write a line's frame."""
        ring = HIGH if frame[LEVEL_AT] in HIGH_LEVELS else LOW
        self._append(ring, frame)
        # Behind the record: who is killed in between has a record beyond the last seq, not a gap that never was.
        self._last[:] = frame[frames.SEQ]  # as the frame has it: a number would cost more

    def append_lost(self, frame: bytes) -> None:
        """Write a lost frame, for lines that never were in the file."""
        self._append(LOW, frame)
        self._last[:] = LAST.pack(msgpack.unpackb(frame)[2])

    def _append(self, ring: int, frame: bytes) -> None:
        record = _record(MARK, len(frame), _crc32(frame, self._seed)) + frame
        start = self._position[ring]
        end = start + len(record)
        if end > self._ring_bytes:
            # Said before it is done, in one word: who is killed in between leaves a lap that begins with half a record.
            self._words[ring] = start << LAP_SHIFT
            start, end = 0, len(record)
        base = HEADER_BYTES + ring * self._ring_bytes
        self._view[base + start : base + end] = record
        self._words[ring] = self._words[ring] & ~POSITION | end
        self._position[ring] = end

    def acked(self, seq: int, *, everything: bool) -> None:
        """Note that the journal has the lines up to `seq`; `everything`: there are no others, so begin at the start."""
        self._words[ACKED] = seq
        if everything:
            # The pages at the start are used again and again: they cost the disk next to nothing.
            self._position = [0, 0]
            self._words[LOW] = self._words[HIGH] = 0

    def ended(self, *, has_failed: bool = False) -> None:
        """Note that the run ended in order, or with a failure: whoever sends the rest may say goodbye for it.

        A reader that does not know failures takes it for a run that was killed.
        """
        self._words[ENDED] = FAILED if has_failed else IN_ORDER

    def release(self) -> None:
        """Let go of the buffer."""
        self._words.release()
        self._last.release()
        self._view.release()


def app_of(header: bytes) -> str | None:
    """Return whose file begins with these bytes, also of another version; None: it is no spool file."""
    if len(header) < HEADER_BYTES or header[:7] != MAGIC[:7]:
        return None
    _, size, _, _ = START.unpack_from(header)
    return app_of_hello(header[START.size : START.size + min(size, MAX_HELLO)])


def app_of_hello(hello: bytes) -> str | None:
    """Return the app that a hello names; None: it is none."""
    try:
        app = msgpack.unpackb(hello)[1]["app"]
    except Exception:  # whatever a damaged file makes of it
        return None
    return app if isinstance(app, str) else None


class Entry(NamedTuple):
    """A line, or a range of lost ones (then the frame says so)."""

    first: int
    time_ns: int
    last: int
    frame: bytes


class NewerVersionError(ValueError):
    """The file is of another version of this format."""


class Reader:
    """Reads the file of a dead run. `read_at(offset, size)` returns so many bytes, fewer at the end of the file.

    Raises ValueError if it is no such file, `NewerVersionError` if it is one of another version.
    """

    def __init__(self, read_at: Callable[[int, int], bytes]) -> None:
        header = read_at(0, HEADER_BYTES)
        if len(header) == HEADER_BYTES and header[:7] == MAGIC[:7] and header[:8] != MAGIC:
            raise NewerVersionError("another version of this format")
        if len(header) < HEADER_BYTES or header[:8] != MAGIC:
            raise ValueError("it is no spool file")
        _, size, ring, checksum = START.unpack_from(header)
        self.hello = header[START.size : START.size + min(size, MAX_HELLO)]
        """The run's first frame."""
        if crc32(self.hello, ring) != checksum:
            raise ValueError("its header is damaged")
        facts = msgpack.unpackb(self.hello)[1]
        self.run: bytes = facts["run"]
        self.app: str = facts["app"]
        self.pid: int = facts["pid"]
        words = WORDS.unpack_from(header, HEADER_BYTES - WORDS.size)
        self.acked: int = words[ACKED]
        """The run knew that the journal has the lines up to here."""
        (last,) = LAST.unpack_from(header, LAST_AT)
        self.last: int = last if last <= frames.MAX_SEQ else 0
        """The last seq that the run has put into the file; 0: not known."""
        self.ended = words[ENDED] in (IN_ORDER, FAILED)
        """The run said goodbye, or would have."""
        self.has_failed = words[ENDED] == FAILED
        """It ended with a failure."""
        self.torn = 0
        """Places with damage, as far as the file was read: not what a kill or another lap leaves."""
        self._read_at = read_at
        self._ring_bytes = ring
        self._seed = crc32(self.run)
        self._places = [(word & POSITION, word >> LAP_SHIFT) for word in words[:2]]
        if any(place > ring for places in self._places for place in places):
            raise ValueError("its positions are damaged")

    def entries(self) -> Iterator[Entry]:
        """Return what is not acked, by rising seq, from the start; so is `torn` counted.

        If the last lines of the run cannot be found, the last entry tells them as lost. Nothing but damage does that:
        the newest lines are never overwritten.
        """
        self.torn = 0
        end = self.acked
        waiting: Entry | None = None
        for entry in heapq.merge(self._entries_of(LOW), self._entries_of(HIGH)):
            if entry.last <= self.acked:
                continue
            # One seq twice: the first call was interrupted, and its seq was given to the next line.
            if waiting is not None and entry.first > waiting.last:
                yield waiting
            waiting = entry
        if waiting is not None:
            yield waiting
            end = waiting.last
        if self.last > end:
            self.torn = max(self.torn, 1)
            yield Entry(end + 1, 0, self.last, frames.lost(end + 1, self.last, "torn"))

    def _entries_of(self, ring: int) -> Iterator[Entry]:
        base = HEADER_BYTES + ring * self._ring_bytes
        position, lap = self._places[ring]
        for frame in self._records(base + position, base + lap, overwritten=True):
            yield _entry(frame)
        for frame in self._records(base, base + position, overwritten=False):
            yield _entry(frame)

    def _records(self, start: int, end: int, *, overwritten: bool) -> Iterator[bytes]:
        """Return the frames of the valid records; `overwritten`: the first may lack its beginning."""
        looking = overwritten
        while start < end:
            chunk = self._read_at(start, min(CHUNK, end - start))
            is_last = start + len(chunk) >= end
            if not chunk:
                self.torn += 1
                return
            at = 0
            while at < len(chunk):
                frame = self._frame_at(chunk, at)
                if frame is not None:
                    looking = False
                    yield frame
                    at += RECORD.size + len(frame)
                    continue
                if not is_last and at and len(chunk) - at < MAX_RECORD:
                    break  # it may go on in the next chunk
                if not looking:
                    self.torn += 1
                    looking = True
                found = chunk.find(MARK, at + 1)
                if found < 0:
                    # The chunk's last bytes may be the first ones of a mark.
                    at = len(chunk) if is_last else max(at + 1, len(chunk) - len(MARK) + 1)
                    break
                at = found
            start += at

    def _frame_at(self, chunk: bytes, at: int) -> bytes | None:
        if len(chunk) - at < RECORD.size:
            return None
        mark, size, checksum = RECORD.unpack_from(chunk, at)
        if mark != MARK or size > frames.MAX_FRAME:
            return None
        start = at + RECORD.size
        frame = chunk[start : start + size]
        return frame if len(frame) == size and crc32(frame, self._seed) == checksum else None


def _entry(frame: bytes) -> Entry:
    if frame[:2] == b"\x95\x01":
        seq = frames.seq_of(frame)
        return Entry(seq, frames.time_of(frame), seq, frame)
    _, first, last, *_ = msgpack.unpackb(frame)
    return Entry(first, 0, last, frame)


def resend(entries: Iterator[Entry], acked: int, cause: Callable[[], str]) -> Iterator[Entry]:
    """Return what goes on the wire behind a welcome that says `acked`: what it does not cover, holes told as lost.

    `cause` is asked at each hole.
    """
    for entry in entries:
        if entry.last <= acked:
            continue
        if entry.first > acked + 1:
            yield Entry(acked + 1, 0, entry.first - 1, frames.lost(acked + 1, entry.first - 1, cause()))
        if entry.first <= acked:  # a range of lost ones, of which the journal has the first
            frame = frames.lost(acked + 1, entry.last, msgpack.unpackb(entry.frame)[4])
            yield Entry(acked + 1, 0, entry.last, frame)
        else:
            yield entry
        acked = entry.last
