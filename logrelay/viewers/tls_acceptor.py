"""Accepts TLS connections, and bounds how many are in their handshake.

Owns: a listening socket that speaks TLS, the connections whose handshake is not complete, and their places. It must not
know what is said over a connection. Read `viewers/connection` next: a connection begins where its handshake has ended.

The loop's own server tells of a connection when its handshake is complete. Until then nobody would count it, and a
stranger who only connects would take some 40 kB each time, as often as it likes. So the socket is accepted here, and
whoever holds a place for longest is cut when there are too many.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable

from logrelay import budgets
from logrelay.access.wrong_tokens import address_key
from logrelay.viewers.memory_return import MemoryReturn

AGAIN_S = 1.0
"""When to accept again after the system had no descriptor or no memory left."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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
        self._places: OrderedDict[socket.socket, str] = OrderedDict()
        """Those in their handshake, the oldest first, each with its address (IPv6: its /64)."""
        self._by_address: dict[str, OrderedDict[socket.socket, None]] = {}
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
        return len(self._places)

    def close(self) -> None:
        """Close the listening socket, and cut the handshakes; connections that are open stay."""
        if not self._open:
            return
        self._open = False
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for sock in list(self._places):
            self._cut(sock)

    def _on_ready(self) -> None:
        for _ in range(budgets.TLS_ACCEPTS):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._loop.remove_reader(self._listener.fileno())
                self._again = self._loop.call_later(AGAIN_S, self.begin)
                return
            sock.setblocking(False)
            self._take(sock, address_key(str(address[0])))

    def _take(self, sock: socket.socket, address: str) -> None:
        neighbours = self._by_address.get(address, ())
        if len(neighbours) >= budgets.TLS_HANDSHAKES_PER_ADDRESS:
            self._cut_oldest(next(iter(neighbours)))
        elif len(self._places) >= budgets.TLS_HANDSHAKES:
            self._cut_oldest(next(iter(self._places)))
        self._places[sock] = address
        self._by_address.setdefault(address, OrderedDict())[sock] = None
        task = self._loop.create_task(self._shake_hands(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
            self._leave(sock)

    def _leave(self, sock: socket.socket) -> None:
        address = self._places.pop(sock, None)
        if address is None:
            return
        neighbours = self._by_address[address]
        del neighbours[sock]
        if not neighbours:
            del self._by_address[address]

    def _cut_oldest(self, sock: socket.socket) -> None:
        self._cut(sock)
        self._exceeded()

    def _cut(self, sock: socket.socket) -> None:
        """Have the handshake fail: its end of the connection is over, as if the peer had gone."""
        self._leave(sock)
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the peer has gone
