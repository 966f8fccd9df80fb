"""What each request on the viewers' port is answered with, and what is told of the relay as a whole.

Owns: the decision about every HTTP request (refused, a plain answer, or a WebSocket), the opening of sessions, and the
facts that `connection`, /healthz, /readyz and /metrics show. It must not know how bytes travel (`viewers/connection`)
or what a plain answer looks like (`http/api`). Read `viewers/session` next.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from websockets.http11 import Request

from logrelay.config.settings import is_loopback
from logrelay.fanout.batch import Form
from logrelay.fanout.positions import Position
from logrelay.http.response import HttpResponse
from logrelay.journal.interface import Page, Query
from logrelay.viewers import messages
from logrelay.viewers.access_policy import BATCH, AccessPolicy, Refused
from logrelay.viewers.requests import query_tokens
from logrelay.viewers.session import Session, ViewerSocket
from logrelay.viewers.stream import Stream


class PlainHttp(Protocol):
    """Answers requests that are no WebSocket. Called on the event loop."""

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> HttpResponse:
        """Answer a request that access has been granted to. `headers` has lower-case names. Never raises."""

    def is_public(self, target: str) -> bool:
        """Tell whether the target needs no token: the web viewer's own files."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The decision to open a WebSocket."""

    subprotocol: str | None
    """What to answer in Sec-WebSocket-Protocol; None: leave the header out."""


class ViewerService:
    """Decides about requests and opens sessions. Belongs to one event loop.

    `tail` is the number of lines a viewer begins with unless it asks otherwise, `version` the relay's as it is shown.
    `make_http` makes what answers plain HTTP from the facts that this object knows; it is called at the first such
    request, because a relay that only streams need not load it.
    """

    def __init__(
        self,
        stream: Stream,
        policy: AccessPolicy,
        *,
        tail: int,
        version: str,
        loop: asyncio.AbstractEventLoop,
        make_http: Callable[[ViewerService], PlainHttp],
    ) -> None:
        self._stream = stream
        self._policy = policy
        self._tail = tail
        self._version = version
        self._loop = loop
        self._make_http = make_http
        self._http: PlainHttp | None = None
        self._started = time.monotonic()
        self._serving = False
        self._refusals: Counter[str] = Counter()

    def begin(self) -> None:
        """Be ready from now on: traders and viewers are listened for."""
        self._serving = True

    def end(self) -> None:
        """Be ready no longer: the relay is stopping. Open sessions go on until their connections end."""
        self._serving = False

    # --- what a connection calls ----------------------------------------------------------------------------------

    def decide(self, request: Request, peer: str | None) -> HttpResponse | Upgrade:
        """Decide about a complete request from address `peer`; see docs/protocol.md."""
        headers = request.headers
        offered = [
            name.strip()
            for value in headers.get_all("Sec-WebSocket-Protocol")
            for name in value.split(",")
            if name.strip()
        ]
        target = request.path
        verdict = self._policy.decide(
            origin=headers.get_all("Origin"),
            host_header=headers.get_all("Host"),
            authorization=headers.get_all("Authorization"),
            subprotocols=offered,
            query_token=query_tokens(target),
            peer_is_loopback=peer is None or is_loopback(peer),
        )
        upgrade = any("websocket" in value.lower() for value in headers.get_all("Upgrade"))
        if isinstance(verdict, Refused):
            # The page itself is no secret, and a browser cannot send a token along with a script's URL.
            if upgrade or verdict.status != 401 or not self._plain_http().is_public(target):
                self._refusals[verdict.code] += 1
                return HttpResponse(verdict.status, verdict.headers, f"{verdict.message}\n".encode())
        elif upgrade:
            return Upgrade(verdict.subprotocol)
        lowered = {name.lower(): value for name, value in headers.raw_items()}
        return self._plain_http().answer(request.method, target, lowered)

    def open(self, socket: ViewerSocket, target: str, *, subprotocol: str | None, deflate: bool) -> Session:
        """Greet a viewer whose WebSocket is open, and begin where its URL says.

        `subprotocol` is what the `Upgrade` said; `deflate`: it can read compressed frames made by `compression`.
        """
        stream = self._stream
        socket.send(
            messages.connection(
                stream.id_of(stream.head), stream.id_of(stream.oldest), stream.traders_shown(), self._version
            )
        )
        form: Form = "batch" if subprotocol == BATCH else "single"
        session = Session(stream, socket, form=form, deflate=deflate, tail=self._tail, loop=self._loop)
        session.begin(target)
        return session

    def _plain_http(self) -> PlainHttp:
        if self._http is None:
            self._http = self._make_http(self)
        return self._http

    # --- what plain HTTP asks (http.api.RelayFacts) ---------------------------------------------------------------

    @property
    def head(self) -> int:
        """Seq of the newest committed line; 0 when there is none."""
        return self._stream.committed

    def status(self) -> Mapping[str, object]:
        """Return what is known, JSON-safe, without I/O."""
        stream = self._stream
        return {
            "version": self._version,
            "epoch": stream.epoch,
            "head": stream.id_of(stream.head),
            "oldest": stream.id_of(stream.oldest),
            "uptime": round(time.monotonic() - self._started, 1),
            "viewers": stream.viewer_count,
            "traders": stream.traders_shown(),
            "journal": {
                "trouble": stream.trouble,
                "bytes": stream.journal_bytes,
                "damaged_lines": stream.damaged_lines,
                "pending_lines": stream.pending_lines,
            },
        }

    def ready(self) -> bool:
        """Tell whether traders and viewers are listened for and lines are being kept."""
        return self._serving and self._stream.trouble is None

    def counters(self) -> Mapping[str, int | float]:
        """Return every counter by its name in `metrics.METRICS`, but for those of plain HTTP."""
        return {**self._stream.counters(), "handshakes_refused_total": self._refusals.total()}

    def labelled(self) -> Mapping[str, Sequence[tuple[Mapping[str, str], int | float]]]:
        """Return what has labels: metric name to samples, each with its labels."""
        return self._stream.app_samples()

    async def read(self, query: Query) -> Page:
        """Read from the journal. Raises JournalError; cancelling drops the answer."""
        return await self._stream.read(query)

    def id_of(self, seq: int) -> str:
        """Return the id of a position."""
        return self._stream.id_of(seq)

    def resolve(self, id_: str) -> Position:
        """Return what an id means. Raises RequestError."""
        return self._stream.resolve(id_)
