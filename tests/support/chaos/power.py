"""A power cut: what a disk may hold of what a relay had written, and what the relay had told by then.

Owns: the shim that records a relay's writes, syncs and answers in order (`power_shim.c`), `Recording`, which reads the
record, and `Disk`, which plays it up to a point and then drops what was not synced. It must not know SQLite or the
journal. Read `ledger` next.

What is dropped: a file keeps everything up to its last sync, and of what was written since any choice of the 4 KiB
pages, in whatever order, one of them perhaps half written; a change of its size may have got there or not. Names are
kept in order: a sync of any file makes the renames and deletions before it last, as the file systems do that keep a
journal, and of the later ones a random number.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgpack
import orjson
import pytest

from tests.support.waiting import DEADLINE_S

PAGE = 4096
HEAD = struct.Struct("<cIqI")
SOURCE = Path(__file__).with_name("power_shim.c")


def build(folder: Path) -> Path:
    """Compile the shim into `folder`; skips the test where there is no compiler."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed: what a power cut leaves cannot be recorded")
    made = folder / "power_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", made, SOURCE, "-ldl", "-lpthread"]
    subprocess.run(command, check=True, timeout=DEADLINE_S)
    return made


class Step(NamedTuple):
    """One thing that the relay did, see `power_shim.c`."""

    kind: str
    fd: int
    offset: int
    data: bytes


class Recording:
    """What one process did, in order."""

    def __init__(self, log: Path, directory: Path) -> None:
        self.directory = directory
        self.steps = list(self._read(log.read_bytes()))

    @staticmethod
    def _read(raw: bytes) -> Iterator[Step]:
        at = 0
        while at + HEAD.size <= len(raw):
            kind, fd, offset, size = HEAD.unpack_from(raw, at)
            at += HEAD.size
            if at + size > len(raw):
                return  # killed in the middle of a record
            yield Step(kind.decode(), fd, offset, raw[at : at + size])
            at += size

    def first_line(self) -> int:
        """Return the step with which a viewer had its first line."""
        return next(n for n, step in enumerate(self.steps) if step.kind == "v" and b'"type":"log"' in step.data)

    def told(self, upto: int) -> Told:
        """Return what viewers and traders had been told before step `upto`."""
        told = Told()
        streams: dict[int, _Messages] = {}
        for step in self.steps[:upto]:
            if step.kind == "v":
                if step.data.startswith(b"HTTP/1.1 "):
                    streams[step.fd] = _Messages()
                if step.fd in streams:
                    for text in streams[step.fd].feed(step.data):
                        told.message(text)
            elif step.kind == "a":
                for frame in msgpack.Unpacker(_Once(step.data)):
                    if frame[0] == 1:
                        told.acked[step.fd] = frame[1]
        return told


class _Once:
    """Bytes as a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, _size: int) -> bytes:
        data, self._data = self._data, b""
        return data


class _Messages:
    """The text messages on one connection to a viewer, uncompressed and unmasked."""

    def __init__(self) -> None:
        self._rest = b""
        self._open = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._rest += data
        if not self._open:
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                return
            self._open, self._rest = b" 101 " in head.splitlines()[0], rest
        while self._open and len(self._rest) >= 2:
            size, at = self._rest[1], 2
            if size == 126:
                size, at = int.from_bytes(self._rest[2:4], "big"), 4
            elif size == 127:
                size, at = int.from_bytes(self._rest[2:10], "big"), 10
            if len(self._rest) < at + size:
                return
            if self._rest[0] == 0x81:
                yield self._rest[at : at + size]
            self._rest = self._rest[at + size :]


@dataclass
class Told:
    """What the relay had given out."""

    lines: dict[str, bytes] = field(default_factory=dict)
    """Viewer messages by id, gap notices for one viewer left out; in the order in which they were given."""
    acked: dict[int, int] = field(default_factory=dict)
    """The last seq acked, by the descriptor of the trader's connection."""

    def message(self, text: bytes) -> None:
        """Note a message to a viewer. Fails when its id was given for another line."""
        found = orjson.loads(text)
        if found["type"] == "log" and found["context"].get("cause") not in ("lag", "retention", "epoch", "unsynced"):
            before = self.lines.setdefault(found["id"], text)
            assert before == text, f"{found['id']} was given twice:\n{before!r}\n{text!r}"


class _File:
    """A file: what was synced, and what was written since."""

    def __init__(self, content: bytes = b"") -> None:
        self.synced = bytearray(content)
        self.since: list[Step] = []

    def apply(self, step: Step, into: bytearray) -> None:
        if step.kind == "t":
            del into[step.offset :]
            into.extend(bytes(step.offset - len(into)))
            return
        end = step.offset + len(step.data)
        into.extend(bytes(max(0, end - len(into))))
        into[step.offset : end] = step.data

    def sync(self) -> None:
        for step in self.since:
            self.apply(step, self.synced)
        self.since = []

    def after_cut(self, chance: random.Random) -> bytes:
        """Return what is there when the power is back."""
        left = bytearray(self.synced)
        share = chance.choice([0.0, 0.3, 0.7, 0.95, 1.0])
        kept = chance.randrange(len(self.since) + 1) if chance.random() < 0.5 else len(self.since)
        for step in self.since[:kept]:
            for part in self._pages(step):
                if chance.random() < share:
                    torn = part.kind == "w" and chance.random() < 0.02
                    size = chance.randrange(len(part.data)) // 512 * 512 if torn else len(part.data)
                    self.apply(part._replace(data=part.data[:size]), left)
        return bytes(left)

    @staticmethod
    def _pages(step: Step) -> Iterator[Step]:
        if step.kind == "t":
            yield step
            return
        at, end = step.offset, step.offset + len(step.data)
        while at < end:
            upto = min(end, (at // PAGE + 1) * PAGE)
            yield Step("w", step.fd, at, step.data[at - step.offset : upto - step.offset])
            at = upto


class Disk:
    """The files of a directory, as a recording changes them from what was there before it."""

    def __init__(self, before: Path | None, directory: Path) -> None:
        self.directory = directory
        self.names: dict[str, _File] = {}
        self._lasting: dict[str, _File] = {}
        self._renamed: list[dict[str, _File]] = []
        """The names after each change of one that no sync has made last."""
        self._open: dict[int, _File] = {}
        for path in before.iterdir() if before is not None else ():
            self.names[path.name] = _File(path.read_bytes())
        self._lasting = dict(self.names)

    def play(self, steps: list[Step]) -> Disk:
        """Do what the relay did."""
        for step in steps:
            if step.kind == "o":
                name = self._name(step.data)
                if name and name not in self.names:
                    self.names[name] = _File()
                    self._renamed.append(dict(self.names))
                self._open[step.fd] = self.names.get(name) or _File()
            elif step.kind in "wt":
                self._open[step.fd].since.append(step)
            elif step.kind == "f":
                self._open[step.fd].sync()
                self._lasting, self._renamed = dict(self.names), []
            elif step.kind == "u":
                self.names.pop(self._name(step.data), None)
                self._renamed.append(dict(self.names))
            elif step.kind == "r":
                old, new = (self._name(part) for part in step.data.split(b"\0"))
                if old in self.names:
                    self.names[new] = self.names.pop(old)
                self._renamed.append(dict(self.names))
        return self

    def _name(self, path: bytes) -> str:
        return Path(path.decode()).name if Path(path.decode()).parent == self.directory else ""

    def after_cut(self, folder: Path, chance: random.Random) -> Path:
        """Write into `folder` what is there when the power is back, and return it."""
        folder.mkdir()
        names = chance.choice([self._lasting, *self._renamed])
        for name, file in names.items():
            if not name.endswith("-shm"):
                (folder / name).write_bytes(file.after_cut(chance))
        return folder
