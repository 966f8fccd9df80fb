"""The viewers' port: listening, how many may connect, pings, and closing all at the end.

Owns: the listening sockets, the list of connections, the limits on their number, and the one ping timer for all. It
must not know what a connection says or is told. Read `viewers/tls_acceptor` next.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict
from typing import Any

from logrelay import budgets
from logrelay.access.tokens import TokenSet
from logrelay.access.wrong_tokens import address_key
from logrelay.http.response import HttpResponse
from logrelay.memory_return import MemoryReturn
from logrelay.viewers.connection import HANDSHAKE_TIMEOUT_S, ViewerConnection
from logrelay.viewers.limit_report import LimitReport
from logrelay.viewers.messages import CLOSE_OVER_BUDGET, CLOSE_TOKEN
from logrelay.viewers.service import ViewerService
from logrelay.viewers.tls_acceptor import TlsAcceptor
from logrelay.viewers.turns import Turns
from logrelay.viewers.unread import Unread

PING_INTERVAL_S = 30.0
"""Under the 60 s after which common proxies and NATs forget an idle connection."""

RETRY_AFTER_S = 10
"""When a viewer that was one too many may try again; a reconnecting phone has given up its old place by then."""

ACCEPT_BACKLOG = 512
"""Connections accepted in one turn of the loop, at most: fewer than `budgets.HANDSHAKE_SLOTS`, so that a newcomer's
request is looked at before the places are taken by those who came with it."""

ACCEPTORS = 4
"""Handles of one listening socket. Some loops (uvloop's) accept one connection by each in a turn: with a single one, a
newcomer would wait a turn for every connection of a crowd that came before it. With more than are served in a turn the
crowd would wait here and not in the kernel, and those who came first would be cut before they are looked at."""

LISTEN_BACKLOG = 4096
"""Connections that wait in the kernel until they are accepted; beyond it a newcomer would try again after a second."""

TLS_END_S = 3.0
"""For the goodbye of a TLS connection, as long as a WebSocket gets for its own."""


class ViewerServer:
    """Listens on TCP and keeps the connections. Belongs to one event loop.

    `max_viewers` WebSockets may be open at once. `compression` is `on`, `off` or `auto`: compress for viewers that are
    not on this machine.
    """

    def __init__(
        self,
        service: ViewerService,
        *,
        max_viewers: int,
        compression: str,
        loop: asyncio.AbstractEventLoop,
        report: LimitReport | None = None,
    ) -> None:
        self.connections: dict[ViewerConnection, None] = {}
        """Every connection, whatever it is about."""
        self.viewers: dict[ViewerConnection, None] = {}
        """Those with an open WebSocket."""
        self._viewers_of: dict[str, dict[ViewerConnection, None]] = {}
        """The same by address (IPv6: its /64), in the order in which they came."""
        self.read_buffer = memoryview(bytearray(budgets.READ_BYTES))
        """What every connection is read into, one after another."""
        self._waiting: OrderedDict[ViewerConnection, str] = OrderedDict()
        """Those without a complete request, the oldest first, each with its address (IPv6: its /64)."""
        self._waiting_by_address: dict[str, OrderedDict[ViewerConnection, None]] = {}
        self._answering: OrderedDict[ViewerConnection, None] = OrderedDict()
        """Those that get a plain answer, the oldest first."""
        self._streaming: dict[ViewerConnection, None] = {}
        """Those of them whose answer is of unknown length."""
        self._charged_bytes: OrderedDict[ViewerConnection, int] = OrderedDict()
        """Undecoded bytes by connection; who began to hold first is first."""
        self._charged_total = 0
        self._unread: Unread[ViewerConnection] = Unread(budgets.UNREAD_BYTES)
        self._turns = Turns(loop)
        self._memory = MemoryReturn(loop)
        self._report = report if report is not None else LimitReport(lambda _text: None, loop)
        self._service = service
        self._max_viewers = max_viewers
        self._compression = compression
        self._loop = loop
        self._servers: list[asyncio.AbstractServer | TlsAcceptor] = []
        self._ping_timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    def limit_viewers(self, count: int) -> None:
        """Change how many WebSockets may be open at once. Those that are open stay."""
        self._max_viewers = count

    async def listen(self, sock: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        """Serve a bound TCP socket, with TLS if there is a context for it."""
        if tls is not None:
            sock.listen(LISTEN_BACKLOG)
            acceptor = TlsAcceptor(
                sock,
                tls,
                self._make_connection,
                handshake_s=HANDSHAKE_TIMEOUT_S,
                goodbye_s=TLS_END_S,
                exceeded=lambda: self.exceeded("handshake"),
                memory=self._memory,
                loop=self._loop,
            )
            self._servers.append(acceptor)
            acceptor.begin()
            return
        for listener in (sock, *(sock.dup() for _ in range(ACCEPTORS - 1))):
            server = await self._loop.create_server(self._make_connection, sock=listener, backlog=ACCEPT_BACKLOG)
            self._servers.append(server)
        sock.listen(LISTEN_BACKLOG)

    def _make_connection(self) -> ViewerConnection:
        return ViewerConnection(self, self._service, self._loop)

    # --- what a connection reports (connection.ConnectionRegistry) ------------------------------------------------

    def add(self, connection: ViewerConnection) -> bool:
        """Take up a new connection; where there are too many without a request, the oldest of them has to go."""
        self.connections[connection] = None
        address = address_key(connection.peer)
        neighbours = self._waiting_by_address.setdefault(address, OrderedDict())
        if len(neighbours) >= budgets.HANDSHAKES_PER_ADDRESS:
            self._cut_oldest(neighbours, "handshake")
        elif len(self._waiting) >= budgets.HANDSHAKE_SLOTS:
            self._cut_oldest(self._waiting, "handshake")
        self._waiting[connection] = address
        self._waiting_by_address.setdefault(address, OrderedDict())[connection] = None
        return True

    def answering(self, connection: ViewerConnection) -> None:
        """Count a connection among those that get a plain answer; of too many, the oldest has to go."""
        self._end_waiting(connection)
        if len(self._answering) >= budgets.ANSWER_SLOTS:
            self._cut_oldest(self._answering, "answer")
        self._answering[connection] = None

    def streaming(self, connection: ViewerConnection) -> None:
        """Count a connection among those that get an answer of unknown length."""
        self._streaming[connection] = None

    @property
    def streams_are_full(self) -> bool:
        """Whether others are refused."""
        return len(self._streaming) >= budgets.SEARCHES

    def _cut_oldest(self, those: OrderedDict[ViewerConnection, Any], cause: str) -> None:
        oldest = next(iter(those))
        self._end_waiting(oldest)
        self._answering.pop(oldest, None)
        oldest.abort()
        self.exceeded(cause)

    def _end_waiting(self, connection: ViewerConnection) -> None:
        if connection not in self._waiting:
            return
        address = self._waiting.pop(connection)
        neighbours = self._waiting_by_address[address]
        del neighbours[connection]
        if not neighbours:
            del self._waiting_by_address[address]

    def request_turn(self, connection: ViewerConnection) -> None:
        """Have the connection act on one message, now or in a later turn of the loop."""
        self._turns.request(connection.take_turn, newest_first=connection in self._waiting)

    def charge(self, connection: ViewerConnection, count: int) -> None:
        """Note that so many undecoded bytes are held for a connection; beyond the total, who held first is closed."""
        self._charged_total += count - self._charged_bytes.get(connection, 0)
        if count:
            self._charged_bytes[connection] = count
        else:
            self._charged_bytes.pop(connection, None)
        if self._charged_total > budgets.UNDECODED_BYTES:
            oldest, charged = self._charged_bytes.popitem(last=False)
            self._charged_total -= charged
            oldest.close(CLOSE_OVER_BUDGET, "too many beginnings of messages are held")
            self.exceeded("undecoded")

    def charge_unread(self, connection: ViewerConnection, count: int, shared: bytes | None = None) -> None:
        """Note that so many bytes wait for a connection to read; beyond the total, one that does not read is cut."""
        while (cut := self._unread.charge(connection, address_key(connection.peer), count, shared)) is not None:
            cut.reset()
            self.exceeded("unread")
            if cut is connection:
                break

    def exceeded(self, cause: str, times: int = 1) -> None:
        """Count that a limit was met; people are told of it, not each time."""
        self._report.note(cause, times)

    def refuse_viewer(self, connection: ViewerConnection) -> HttpResponse | None:
        """Return the answer for a viewer that is one too many, or None: there is a place for it.

        When all are taken, the newest viewer of the address that has most gives its place up to an address that has
        fewer; see `budgets.KEPT_PER_ADDRESS`.
        """
        count = len(self.viewers)
        if count < self._max_viewers:
            return None
        most = max(self._viewers_of.values(), key=len)
        fewer = self._viewers_of.get(address_key(connection.peer), ())
        if len(most) > max(budgets.KEPT_PER_ADDRESS, len(fewer) + 1):
            newest = next(reversed(most))
            self._end_viewing(newest)
            newest.close(CLOSE_OVER_BUDGET, "its address has most of the places, and another one needs one")
            self.exceeded("share")
            return None
        text = f"{count} viewers are connected; at most {self._max_viewers} are allowed\n"
        return HttpResponse(503, (("Retry-After", str(RETRY_AFTER_S)),), text.encode())

    def offers_compression(self, peer: str | None) -> bool:
        """Tell whether to offer compression: not to a viewer on this machine, for whom bytes cost nothing."""
        if self._compression == "auto":
            return peer is not None and not (peer.startswith("127.") or peer in ("::1", "::ffff:127.0.0.1"))
        return self._compression == "on"

    def viewer_opened(self, connection: ViewerConnection) -> None:
        """Count a connection among the viewers and ping it from now on."""
        self._end_waiting(connection)
        self.viewers[connection] = None
        self._viewers_of.setdefault(address_key(connection.peer), {})[connection] = None
        self._schedule_pings()

    def _end_viewing(self, connection: ViewerConnection) -> None:
        if connection not in self.viewers:
            return
        del self.viewers[connection]
        address = address_key(connection.peer)
        neighbours = self._viewers_of[address]
        del neighbours[connection]
        if not neighbours:
            del self._viewers_of[address]

    def forget(self, connection: ViewerConnection) -> None:
        """Remove a connection that has ended."""
        self.connections.pop(connection, None)
        self._end_viewing(connection)
        self._memory.connection_ended()
        self._end_waiting(connection)
        self._answering.pop(connection, None)
        self._streaming.pop(connection, None)
        self._unread.release(connection)
        self._charged_total -= self._charged_bytes.pop(connection, 0)
        if not self.viewers:
            self._cancel_pings()
        if self._emptied is not None and not self.connections:
            self._emptied.set()

    # --- pings ----------------------------------------------------------------------------------------------------

    def _schedule_pings(self) -> None:
        """Schedule the next pings; one timer for all viewers, and none while nobody is there."""
        if self._ping_timer is None:
            self._ping_timer = self._loop.call_later(PING_INTERVAL_S, self._ping_all)

    def _cancel_pings(self) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()
            self._ping_timer = None

    def _ping_all(self) -> None:
        self._ping_timer = None
        for connection in list(self.viewers):
            connection.ping()
        if self.viewers:
            self._schedule_pings()

    # --- tokens ---------------------------------------------------------------------------------------------------

    def close_refused(self, token_set: TokenSet, now_s: float) -> int:
        """Close the connections that show lines by a token that is not in the set any more; return their number.

        A WebSocket gets `CLOSE_TOKEN`; an answer over HTTP ends with a reset, because it is not whole.
        """
        closed = 0
        for connection in list(self.connections):
            token = connection.token
            good = not token_set.needed if token is None else token_set.holds(token, now_s)
            if connection.shows_lines and not good:
                closed += 1
                connection.close(CLOSE_TOKEN, "the token was revoked or changed, or has expired")
        return closed

    # --- the end --------------------------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections stay."""
        for server in self._servers:
            server.close()

    async def close(self, code: int, reason: str, timeout_s: float) -> None:
        """Close every connection, waiting at most `timeout_s` for the peers; then cut what is left."""
        self.stop_accepting()
        self._cancel_pings()
        self._report.close()
        self._memory.close()
        self._emptied = asyncio.Event()
        for connection in list(self.connections):
            connection.close(code, reason)
        if self.connections:
            try:
                await asyncio.wait_for(self._emptied.wait(), timeout_s)
            except TimeoutError:
                for connection in list(self.connections):
                    connection.abort()
