"""Accepts TLS connections, and bounds how many are in their handshake.

Owns: a listening socket that speaks TLS, the connections whose handshake is not complete, and their places. It must not
know what is said over a connection. Read `viewers/connection` next: a connection begins where its handshake has ended.

The loop's own server tells of a connection when its handshake is complete. Until then nobody would count it, and a
stranger who only connects would take some 40 kB each time, as often as it likes. So the socket is accepted here, and
whoever holds a place for longest is cut when there are too many. Nothing is made for a connection until the first thing
that it has to say, its ClientHello, is there as a whole: the kernel keeps the bytes until then, so that a crowd that
says nothing, or half of it, costs a newcomer next to no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from logrelay import budgets
from logrelay.access.wrong_tokens import address_key
from logrelay.memory_return import MemoryReturn

AGAIN_S = 1.0
"""When to accept again after the system had no descriptor or no memory left."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


HANDSHAKE_RECORD = b"\x16"
RECORD_HEAD_BYTES = 5
MAX_RECORD_BYTES = 16 * 1024
"""A record is a type, a version, a length, and as many bytes (RFC 8446, section 5.1)."""


@dataclass(slots=True, eq=False)
class _Place:
    """A connection whose handshake is not complete."""

    address: str
    """IPv6: its /64."""
    deadline: float
    """By the loop's clock."""
    wanted_bytes: int = 1
    """The kernel wakes us when so many are there, or when no more will come."""

    def wants(self, size: int) -> bool:
        """Take note that `size` bytes are wanted; False: no more than before."""
        more = size > self.wanted_bytes
        self.wanted_bytes = max(size, self.wanted_bytes)
        return more


class _Places:
    """Places of one kind, the oldest first, and those of each address."""

    def __init__(self) -> None:
        self.all: OrderedDict[socket.socket, _Place] = OrderedDict()
        self.by_address: OrderedDict[str, OrderedDict[socket.socket, None]] = OrderedDict()

    def add(self, sock: socket.socket, place: _Place) -> None:
        self.all[sock] = place
        self.by_address.setdefault(place.address, OrderedDict())[sock] = None

    def pop(self, sock: socket.socket) -> _Place | None:
        place = self.all.pop(sock, None)
        if place is not None:
            neighbours = self.by_address[place.address]
            del neighbours[sock]
            if not neighbours:
                del self.by_address[place.address]
        return place

    def one_too_many(self, address: str, most: int, most_of_address: int) -> socket.socket | None:
        """Return who has to go before another one of this address comes; None: there is room."""
        neighbours = self.by_address.get(address, ())
        if len(neighbours) >= most_of_address:
            return next(iter(neighbours))
        return next(iter(self.all)) if len(self.all) >= most else None


class TlsAcceptor:
    """Accepts from one listening socket. Belongs to one event loop.

    `make_protocol` makes what a connection is given to when its handshake is complete; `exceeded` is called when one
    was cut because there were too many; `memory` counts those that ended before. `handshake_s` is the deadline of a
    handshake, `goodbye_s` that of the end of a connection, both in seconds. A cut connection is closed without an
    answer: TLS has none that a stranger would understand.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        *,
        handshake_s: float,
        goodbye_s: float,
        exceeded: Callable[[], None],
        memory: MemoryReturn,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._listener = listener
        self._context = context
        self._make_protocol = make_protocol
        self._handshake_s = handshake_s
        self._goodbye_s = goodbye_s
        self._exceeded = exceeded
        self._memory = memory
        self._loop = loop
        self._silent = _Places()
        """Those whose ClientHello is not whole."""
        self._ready = _Places()
        """Those whose turn to begin has not come."""
        self._begun = _Places()
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Rings when the deadline of the oldest that has not begun has come."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._open = True

    def begin(self) -> None:
        """Accept from now on."""
        self._again = None
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self._on_ready)

    @property
    def count(self) -> int:
        """Connections whose handshake is not complete."""
        return sum(len(places.all) for places in (self._silent, self._ready, self._begun))

    def close(self) -> None:
        """Close the listening socket, and cut the handshakes; connections that are open stay."""
        if not self._open:
            return
        self._open = False
        if self._again is not None:
            self._again.cancel()
        if self._turn is not None:
            self._turn.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for places in (self._silent, self._ready, self._begun):
            for sock in list(places.all):
                self._cut(sock)
        if self._timer is not None:
            self._timer.cancel()

    def _on_ready(self) -> None:
        for _ in range(budgets.TLS_ACCEPTS):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                if self._silent.all:
                    self._cut_oldest(next(iter(self._silent.all)))
                    continue
                self._loop.remove_reader(self._listener.fileno())
                self._again = self._loop.call_later(AGAIN_S, self.begin)
                return
            sock.setblocking(False)
            self._take(sock, address_key(str(address[0])))

    def _take(self, sock: socket.socket, address: str) -> None:
        oldest = self._silent.one_too_many(address, budgets.TLS_SILENT, budgets.TLS_SILENT_PER_ADDRESS)
        if oldest is not None:
            self._cut_oldest(oldest)
        self._silent.add(sock, _Place(address, self._loop.time() + self._handshake_s))
        self._loop.add_reader(sock.fileno(), self._on_bytes, sock)
        if self._timer is None:
            self._timer = self._loop.call_later(self._handshake_s, self._on_deadline)

    def _on_deadline(self) -> None:
        self._timer = None
        oldest = [next(iter(places.all.items())) for places in (self._silent, self._ready) if places.all]
        if not oldest:
            return
        sock, place = min(oldest, key=lambda one: one[1].deadline)
        left_s = place.deadline - self._loop.time()
        if left_s <= 0:
            self._cut(sock)
        self._timer = self._loop.call_later(max(left_s, 0.0), self._on_deadline)

    # --- until its ClientHello is whole -------------------------------------------------------------------------------

    def _on_bytes(self, sock: socket.socket) -> None:
        """Look at what has come without taking it out of the kernel."""
        place = self._silent.all[sock]
        try:
            data = sock.recv(RECORD_HEAD_BYTES + MAX_RECORD_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data[:1] != HANDSHAKE_RECORD:
            self._drop(sock)
            return
        wanted = record_bytes(data)
        if len(data) < wanted and place.wants(wanted):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
            return
        # It is whole. Or less than was wanted is there, and it will not become more: the library sees why.
        self._loop.remove_reader(sock.fileno())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._silent.pop(sock)
        oldest = self._ready.one_too_many(place.address, budgets.TLS_HANDSHAKES, budgets.TLS_HANDSHAKES_PER_ADDRESS)
        if oldest is not None:
            self._cut_oldest(oldest)
        self._ready.add(sock, place)
        if self._turn is None:
            self._turn = self._loop.call_soon(self._on_turn)

    def _drop(self, sock: socket.socket) -> None:
        """Close a connection on which no TLS is spoken, or nothing: an answer it would not understand."""
        with contextlib.suppress(OSError):
            sock.recv(RECORD_HEAD_BYTES + MAX_RECORD_BYTES)  # closed with bytes unread, it would be a reset
        self._cut(sock)

    def _on_turn(self) -> None:
        """Begin some handshakes; the arithmetic of the others is for later turns of the loop.

        Addresses take turns, and of one address the newest is first: it is the one that somebody waits for.
        """
        self._turn = None
        for _ in range(budgets.TLS_BEGINS):
            if not self._ready.all:
                return
            address = next(iter(self._ready.by_address))
            self._begin_handshake(next(reversed(self._ready.by_address[address])))
            if address in self._ready.by_address:
                self._ready.by_address.move_to_end(address)
        self._turn = self._loop.call_soon(self._on_turn)

    def _begin_handshake(self, sock: socket.socket) -> None:
        place = self._ready.pop(sock)
        assert place is not None, "whoever is cut is not ready any more"
        oldest = self._begun.one_too_many(place.address, budgets.TLS_HANDSHAKES, budgets.TLS_HANDSHAKES_PER_ADDRESS)
        if oldest is not None:
            self._cut_oldest(oldest)
        self._begun.add(sock, place)
        task = self._loop.create_task(self._shake_hands(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the handshake ------------------------------------------------------------------------------------------------

    async def _shake_hands(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=self._goodbye_s,
            )
        except (OSError, ssl.SSLError):  # OSError has the deadline among its kinds
            self._memory.connection_ended()
        finally:
            self._begun.pop(sock)

    def _cut_oldest(self, sock: socket.socket) -> None:
        self._cut(sock)
        self._exceeded()

    def _cut(self, sock: socket.socket) -> None:
        """Close a connection; where its handshake has begun, have that fail, as if the peer had gone."""
        if self._begun.pop(sock) is not None:
            with contextlib.suppress(OSError):  # the peer has gone
                sock.shutdown(socket.SHUT_RDWR)
            return
        if self._silent.pop(sock) is not None:
            self._loop.remove_reader(sock.fileno())
        self._ready.pop(sock)
        sock.close()
        self._memory.connection_ended()


def record_bytes(data: bytes) -> int:
    """Return how many bytes the TLS record has that `data` begins with, as far as that is known.

    Of one that is too long it is as many as there are: nothing is to be waited for.
    """
    if len(data) < RECORD_HEAD_BYTES:
        return RECORD_HEAD_BYTES
    size = int.from_bytes(data[3:RECORD_HEAD_BYTES], "big")
    return len(data) if size > MAX_RECORD_BYTES else RECORD_HEAD_BYTES + size
