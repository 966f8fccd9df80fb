"""What one input is, how it is mutated, and how a failing one is made smaller.

Owns: `Case`, byte mutations and `shrink`. It must not know the protocols. Read `socket_inputs` next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

SHRINK_TRIES = 2000
"""Smaller inputs that are tried for one that failed."""

ALL_AT_ONCE = 1 << 30
"""Bytes of one read, where a connection is not cut."""

MOST_READS = 48
"""After so many reads the rest comes at once: thousands of reads of a byte would say the same thing, and take the time
of a hundred other inputs."""


class Piece(NamedTuple):
    """A part of what a peer sends, mostly a frame or a request head."""

    data: bytes
    meaning: tuple[object, ...] | None = None
    """What the protocol's page says of it, in the words of the lane; None: it is not known, so less is checked."""


@dataclass(frozen=True)
class Connection:
    """All that comes over one connection."""

    pieces: tuple[Piece, ...]
    cuts: tuple[int, ...] = (ALL_AT_ONCE,)
    """Sizes of the reads, from the beginning again when all are used."""

    def reads(self) -> Iterator[bytes]:
        """Yield what is read, in order."""
        data, at, turn = b"".join(piece.data for piece in self.pieces), 0, 0
        while at < len(data):
            size = self.cuts[turn % len(self.cuts)] if turn < MOST_READS else ALL_AT_ONCE
            yield data[at : at + size]
            at += size
            turn += 1


@dataclass(frozen=True)
class Case:
    """One input: connections, one after the other."""

    connections: tuple[Connection, ...]
    peer: dict[str, object] = field(default_factory=dict)
    """What the lane has to know besides."""

    def without(self, index: int, low: int, high: int) -> Case:
        """Return the same without the pieces `low` to `high - 1` of one connection."""
        old = self.connections[index]
        return self._with(index, replace(old, pieces=old.pieces[:low] + old.pieces[high:]))

    def _with(self, index: int, connection: Connection) -> Case:
        return replace(self, connections=(*self.connections[:index], connection, *self.connections[index + 1 :]))

    def smaller(self) -> Iterator[Case]:
        """Yield inputs with less in them: connections, pieces, cuts, and then bytes."""
        for index in range(len(self.connections)):
            if len(self.connections) > 1:
                yield replace(self, connections=self.connections[:index] + self.connections[index + 1 :])
        for index, connection in enumerate(self.connections):
            if connection.cuts != (ALL_AT_ONCE,):
                yield self._with(index, replace(connection, cuts=(ALL_AT_ONCE,)))
            step = len(connection.pieces)
            while step:
                for low in range(0, len(connection.pieces), step):
                    yield self.without(index, low, low + step)
                step //= 2
        for index, connection in enumerate(self.connections):
            for at, piece in enumerate(connection.pieces):
                step = len(piece.data) // 2
                while step:
                    for low in range(0, len(piece.data), step):
                        less = Piece(piece.data[:low] + piece.data[low + step :])
                        pieces = (*connection.pieces[:at], less, *connection.pieces[at + 1 :])
                        yield self._with(index, replace(connection, pieces=pieces))
                    step //= 2

    def __str__(self) -> str:
        """Write it down for a person."""
        rows = [f"    peer {self.peer}"] if self.peer else []
        for number, connection in enumerate(self.connections, 1):
            rows.append(f"    connection {number}, reads of {connection.cuts} bytes")
            rows += [f"      {piece.data[:400]!r} {piece.meaning or ''}" for piece in connection.pieces]
        return "\n".join(rows)


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """Return a smaller input that still fails, as far as `SHRINK_TRIES` go."""
    tries, found = 0, True
    while found and tries < SHRINK_TRIES:
        found = False
        for candidate in case.smaller():
            tries += 1
            if fails(candidate):
                case, found = candidate, True
                break
            if tries >= SHRINK_TRIES:
                break
    return case


def cuts(rng: Random) -> tuple[int, ...]:
    """Return sizes of reads."""
    chance = rng.random()
    if chance < 0.5:
        return (ALL_AT_ONCE,)
    if chance < 0.55:
        return (1 + int(rng.random() * 7),)
    return tuple(1 + int(rng.random() ** 3 * 600) for _ in range(1 + int(rng.random() * 4)))


def mutate_bytes(rng: Random, data: bytes, others: list[Piece]) -> bytes:
    """Change some bytes as chance wants it."""
    if not data:
        return bytes([int(rng.random() * 256)])
    at, chance = int(rng.random() * len(data)), rng.random()
    if chance < 0.35:
        return data[:at] + bytes([data[at] ^ (1 << int(rng.random() * 8))]) + data[at + 1 :]
    if chance < 0.5:
        return data[:at] + bytes([int(rng.random() * 256)]) + data[at + 1 :]
    if chance < 0.65:
        return data[:at]
    if chance < 0.75:
        return data[:at] + rng.randbytes(1 + int(rng.random() * 8)) + data[at:]
    if chance < 0.85:
        return data[:at] + data[at + 1 + int(rng.random() * 8) :]
    if chance < 0.95:
        other = others[int(rng.random() * len(others))].data
        return data[:at] + other[int(rng.random() * len(other)) :] if other else data
    return data[:at] + data[at : at + 16] * int(2 + rng.random() * 20) + data[at:]


def mutate(rng: Random, pieces: list[Piece]) -> None:
    """Change a stream: repeat, drop or exchange pieces, which keep their meaning, or change bytes of one."""
    for _ in range(1 + int(rng.random() * 3)):
        if not pieces:
            return
        at, chance = int(rng.random() * len(pieces)), rng.random()
        if chance < 0.15:
            pieces.insert(int(rng.random() * (len(pieces) + 1)), pieces[at])
        elif chance < 0.25:
            del pieces[at]
        elif chance < 0.4:
            other = int(rng.random() * len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        else:
            pieces[at] = Piece(mutate_bytes(rng, pieces[at].data, pieces))
