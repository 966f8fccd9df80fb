"""What happens at the viewers' door: who is admitted, what a session asks for, what the pages may see.

Owns: admission of requests, viewer sessions, history, and the facts shown in `connection`, /healthz and /metrics. It
must not know how bytes travel (`viewers`) or how pages look (`pages`). Read `messages` next for the words.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from websockets.http11 import Request

from logrelay.config.settings import is_loopback
from logrelay.errors import JournalError, RequestError
from logrelay.fanout.batch import Form
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub import Gap, Viewer
from logrelay.journal.interface import Page, Query
from logrelay.pipeline import Relay
from logrelay.viewers import messages, requests
from logrelay.viewers.access_policy import BATCH, AccessPolicy, Granted, Refused
from logrelay.viewers.requests import History, Ping, Subscribe
from logrelay.viewers.server import ViewerConnection, ViewerServer

MAX_HISTORIES = 4
"""History requests a viewer may have waiting; a person scrolls one page at a time."""

HISTORY_BYTES = 1024 * 1024
"""Bytes of lines after which a history answer ends early, with `more` true: lines can be 64 KiB long."""

Answer = tuple[int, list[tuple[str, str]], bytes | AsyncIterator[bytes]]
Respond = Callable[[str, str, Mapping[str, str]], Answer]
"""Method, target, headers (lower-case names) to a plain HTTP answer."""


@dataclass(slots=True)
class Admission:
    """See `viewers.Admission`."""

    refusal: tuple[int, list[tuple[str, str]], bytes] | None = None
    answer: Answer | None = None
    upgrade: bool = False
    subprotocol: str | None = None


class ViewerService:
    """Serves the viewers' door, and the pages, from the relay."""

    def __init__(
        self, relay: Relay, door: AccessPolicy, *, tail: int, version: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.relay = relay
        self.tail = tail
        self.version = version
        self.loop = loop
        self.respond: Respond | None = None
        """Set by the daemon: answers plain HTTP."""
        self.public: Callable[[str], bool] = lambda _target: False
        """Set by the daemon: tells targets that need no token (the web viewer's own files)."""
        self.viewers: ViewerServer | None = None
        self.started = time.monotonic()
        self.serving = False
        self.refusals: Counter[str] = Counter()
        self._door = door

    # --- what a connection calls ---------------------------------------------------------------------------------

    def admit(self, request: Request, peer: str | None) -> Admission:
        """Decide about a request; see docs/protocol.md, doors."""
        headers = request.headers
        offered = [
            name.strip()
            for value in headers.get_all("Sec-WebSocket-Protocol")
            for name in value.split(",")
            if name.strip()
        ]
        target = request.path
        tokens = requests.query_tokens(target)
        verdict = self._door.decide(
            origin=headers.get_all("Origin"),
            host_header=headers.get_all("Host"),
            authorization=headers.get_all("Authorization"),
            subprotocols=offered,
            query_token=tokens,
            peer_is_loopback=peer is None or is_loopback(peer),
        )
        upgrade = any("websocket" in value.lower() for value in headers.get_all("Upgrade"))
        if isinstance(verdict, Refused):
            # The page itself is no secret, and a browser cannot send a token along with a script's URL.
            if not (verdict.status == 401 and not upgrade and self.public(target)):
                self.refusals[verdict.code] += 1
                return Admission(refusal=(verdict.status, list(verdict.headers), f"{verdict.message}\n".encode()))
            verdict = Granted()
        if upgrade:
            return Admission(upgrade=True, subprotocol=verdict.subprotocol)
        if self.respond is None:
            return Admission(refusal=(404, [], b"connect with a WebSocket\n"))
        lowered = {name.lower(): value for name, value in headers.raw_items()}
        return Admission(answer=self.respond(request.method, target, lowered))

    def open(self, connection: ViewerConnection, request: Request) -> Session:
        """Greet a viewer and begin where its URL says."""
        return Session(self, connection, request.path)

    # --- what plain HTTP asks -----------------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """The journal's epoch."""
        return self.relay.epoch

    @property
    def head(self) -> int:
        """Seq of the newest committed line."""
        return self.relay.hub.committed

    def status(self) -> Mapping[str, object]:
        """Return what is known, JSON-safe, without I/O."""
        relay, hub = self.relay, self.relay.hub
        return {
            "version": self.version,
            "epoch": relay.epoch,
            "head": relay.id_of(hub.head),
            "oldest": relay.id_of(hub.oldest),
            "uptime": round(time.monotonic() - self.started, 1),
            "viewers": len(hub.viewers),
            "traders": relay.traders.shown(time.monotonic()),
            "journal": {
                "trouble": relay.trouble,
                "bytes": relay.writer.stats().disk_bytes,
                "pending_lines": relay.pending_lines,
            },
        }

    def ready(self) -> bool:
        """Tell whether both doors are open and lines are being kept."""
        return self.serving and self.relay.trouble is None

    def counters(self) -> Mapping[str, int | float]:
        """Return every counter by its name in `metrics.METRICS`."""
        relay, hub, counters, stats = (
            self.relay,
            self.relay.hub,
            self.relay.traders.counters,
            self.relay.writer.stats(),
        )
        return {
            "lines_total": relay.sequencer.lines_total,
            "bytes_total": relay.sequencer.bytes_total,
            "commits_total": stats.commits,
            "journal_bytes": stats.disk_bytes,
            "journal_trouble": int(relay.trouble is not None),
            "pending_lines": relay.pending_lines,
            "viewers": len(hub.viewers),
            "viewers_behind": hub.behind(),
            "viewer_lines_total": hub.lines_sent,
            "viewer_bytes_total": hub.bytes_sent,
            "viewer_gaps_total": hub.gaps,
            "viewer_lines_skipped_total": hub.lines_skipped,
            "traders": relay.traders.connected(),
            "traders_quiet": relay.traders.in_state("quiet"),
            "trader_connections_total": counters.connections,
            "trader_lost_lines_total": counters.lost_lines + counters.unexplained_lines,
            "trader_rejected_frames_total": counters.rejected,
            "trader_refused_total": counters.refused,
            "trader_duplicate_frames_total": counters.duplicates,
            "trader_crashes_total": counters.crashed,
            "handshakes_refused_total": sum(self.refusals.values()),
        }

    async def page(self, query: Query) -> Page:
        """Read from the journal. Raises JournalError; cancelling drops the answer."""
        return await asyncio.wrap_future(self.relay.writer.read(query))

    def resolve(self, id: str) -> int:  # noqa: A002  (the protocol's word)
        """Return the seq an id means. Raises RequestError."""
        return self.relay.resolve(id)


class Session:
    """One viewer's subscription and requests."""

    __slots__ = ("_connection", "_desk", "_histories", "_task", "_viewer")

    def __init__(self, desk: ViewerService, connection: ViewerConnection, target: str) -> None:
        self._desk = desk
        self._connection = connection
        self._viewer: Viewer | None = None
        self._histories: deque[History] = deque()
        self._task: asyncio.Task[None] | None = None
        relay, hub = desk.relay, desk.relay.hub
        connection.send(
            messages.connection(
                relay.id_of(hub.head),
                relay.id_of(hub.oldest),
                relay.traders.shown(time.monotonic()),
                desk.version,
            )
        )
        try:
            wanted = requests.parse_target(target)
        except RequestError as error:
            connection.send(messages.error(error.code, str(error)))
            connection.close(4400, f"{error}"[:100])
            return
        form: Form = "batch" if connection.subprotocol == BATCH else "plain"
        self._viewer = hub.join(connection, wanted.filter or Filter(), form, deflate=connection.deflate)
        self._start(self._viewer, wanted)

    def _start(self, viewer: Viewer, wanted: Subscribe) -> None:
        hub = self._desk.relay.hub
        if wanted.after is None:
            hub.start_tail(viewer, self._desk.tail if wanted.tail is None else wanted.tail)
            return
        try:
            seq = self._desk.relay.resolve(wanted.after)
        except RequestError as error:
            oldest = hub.oldest
            hub.start_after(viewer, oldest - 1, Gap("epoch", 0, oldest - 1, 0, None, detail=str(error)))
        else:
            hub.start_after(viewer, seq)

    def received(self, text: bytes) -> None:
        """Act on one message of the viewer; a bad one is answered with an error and changes nothing."""
        try:
            request = requests.parse_request(text)
            match request:
                case Subscribe():
                    self._subscribe(request)
                case History():
                    self._history(request)
                case Ping():
                    self._connection.send(messages.PONG)
        except RequestError as error:
            self._connection.send(messages.error(error.code, str(error)))

    def _subscribe(self, wanted: Subscribe) -> None:
        viewer, relay = self._viewer, self._desk.relay
        if viewer is None:
            return
        changed = wanted.filter if wanted.filter is not None and wanted.filter != viewer.filter else None
        self._connection.send(messages.subscribed(changed or viewer.filter, relay.id_of(relay.hub.head)))
        if wanted.after is not None or wanted.tail is not None:
            if changed is not None:
                viewer_filter = changed
                relay.hub.change(viewer, viewer_filter)
            self._start(viewer, wanted)
        elif changed is not None:
            relay.hub.resubscribe(viewer, changed)
        # Nothing asked for that is not so already: the app subscribes to what it has been getting since it connected.

    def _history(self, request: History) -> None:
        before = self._desk.relay.resolve(request.before)
        if len(self._histories) >= MAX_HISTORIES:
            raise RequestError("busy", f"{MAX_HISTORIES} history requests are waiting already; wait for their answers")
        self._histories.append(History(f"{self._desk.epoch}-{before}", request.limit))
        if self._task is None:
            self._task = self._desk.loop.create_task(self._answer_histories())

    async def _answer_histories(self) -> None:
        """Answer one request after another."""
        try:
            while self._histories and not self._connection.full:
                request = self._histories[0]
                try:
                    bodies, more = await self._read_back(request)
                except JournalError as error:
                    self._connection.send(messages.error("journal", f"the journal cannot be read: {error}"))
                else:
                    self._connection.send(messages.history(bodies, more))
                self._histories.popleft()
        finally:
            self._task = None

    async def _read_back(self, request: History) -> tuple[list[bytes], bool]:
        """Return the newest matches before an id, ascending, and whether there may be more."""
        viewer = self._viewer
        hub = self._desk.relay.hub
        bodies: list[bytes] = []
        until = min(self._desk.relay.resolve(request.before) - 1, hub.committed)
        size = 0
        while until >= hub.oldest and len(bodies) < request.limit and size < HISTORY_BYTES:
            page = await self._desk.page(
                Query(
                    after=hub.oldest - 1,
                    until=until,
                    limit=request.limit - len(bodies),
                    filter=viewer.filter if viewer is not None else Filter(),
                    newest=True,
                )
            )
            bodies = page.bodies + bodies
            size += sum(map(len, page.bodies))
            if page.complete:
                return bodies, False
            until = page.reached if not page.seqs else page.seqs[0] - 1
        return bodies, until >= hub.oldest

    def drained(self) -> None:
        """The socket has room again."""
        if self._histories and self._task is None:
            self._task = self._desk.loop.create_task(self._answer_histories())
        if self._viewer is not None:
            self._desk.relay.hub.drained(self._viewer)

    def ended(self) -> None:
        """Forget the viewer."""
        if self._task is not None:
            self._task.cancel()
        if self._viewer is not None:
            self._desk.relay.hub.leave(self._viewer)
