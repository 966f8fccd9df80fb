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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from websockets.datastructures import Headers
from websockets.http11 import Request

from logrelay.access.token_keeper import TokenKeeper
from logrelay.access.tokens import Token
from logrelay.config.settings import is_loopback
from logrelay.errors import RequestError
from logrelay.fanout.batch import Form
from logrelay.fanout.filters import UNLIMITED
from logrelay.fanout.positions import Position
from logrelay.http.request_head import MALFORMED
from logrelay.http.response import EVENTS, Follow, HttpResponse
from logrelay.ingest.token_bucket import TokenBucket
from logrelay.journal.interface import Page, Query, SummaryPage
from logrelay.viewers import messages
from logrelay.viewers.access_policy import BATCH, BEARER, PREFLIGHT, AccessPolicy, Refused
from logrelay.viewers.alerting import AlertFacts, LimitedAlerts, NoAlerts
from logrelay.viewers.devices import Devices
from logrelay.viewers.forwarded import forwarding_header
from logrelay.viewers.history_turns import HistoryTurns
from logrelay.viewers.narrowed import NarrowedFacts, NarrowedStream
from logrelay.viewers.requests import names_device, parse_follow, query_tokens
from logrelay.viewers.session import Session, ViewerSocket
from logrelay.viewers.stream import Stream

if TYPE_CHECKING:  # loaded once somebody asks
    from logrelay.http.api import RelayFacts

EXPLAIN_BURST = 20
EXPLAINED_PER_S = 2.0
"""Clients told in a line of the stream that a token is needed: so many at once, and in a second. The others are
refused like everybody else; they come again, and each costs a handshake and a few hundred bytes."""

RETRY_WRONG_S = 5
"""When somebody whose wrong tokens already wait for answers may ask again: the longest of them has its answer then."""


FOLLOWED: dict[str, tuple[str, bytes]] = {
    "ndjson": ("application/x-ndjson", b"\n"),
    "sse": ("text/event-stream", b":\n\n"),
}
"""Of each form of an answer that goes on: its media type, and what stands in it while there is no line."""


class PlainHttp(Protocol):
    """Answers requests that are no WebSocket. Called on the event loop."""

    def answer(self, method: str, target: str, headers: Mapping[str, str], facts: RelayFacts) -> HttpResponse:
        """Answer a request that access has been granted to, from the facts that it may see. Never raises.

        `headers` has lower-case names.
        """

    def is_public(self, target: str) -> bool:
        """Tell whether the target needs no token: the web viewer's own files."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The decision to open a WebSocket."""

    subprotocol: str | None
    """What to answer in Sec-WebSocket-Protocol; None: leave the header out."""
    token: Token | None = field(default=None, compare=False)
    """The token that it was granted to; None: the relay needs none. It is no part of what is answered."""


@dataclass(frozen=True, slots=True)
class Explain:
    """The decision to open a WebSocket for the one line that says what is missing, and to close it."""

    text: str
    """What the line says."""
    subprotocol: str | None = None
    delay_s: float = 0.0
    """When to answer, as for `HttpResponse`."""
    token: None = None


class ViewerService:
    """Decides about requests and opens sessions. Belongs to one event loop.

    `tail` is the number of lines a viewer begins with unless it asks otherwise, `version` the relay's as it is shown.
    `tokens` says which tokens are good; without it that of the policy is the only one.
    `limits` returns how often each limit of `budgets` was met, `more_counters` what other parts count,
    `links` how the connections to other machines are.
    `devices` has the cursors of devices.
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
        tokens: TokenKeeper | None = None,
        limits: Callable[[], Mapping[str, int]] = dict,
        more_counters: Callable[[], Mapping[str, int | float]] = dict,
        links: Callable[[], Mapping[str, Mapping[str, object]]] = dict,
        internal_errors: Callable[[], int] = lambda: 0,
        devices: Devices | None = None,
        encrypted: bool = False,
        alerts: AlertFacts | None = None,
    ) -> None:
        self._stream = stream
        self._policy = policy
        self._tokens = tokens or TokenKeeper(None, policy.token)
        self._tail = tail
        self._version = version
        self._loop = loop
        self._make_http = make_http
        self._limits, self._more_counters, self._links = limits, more_counters, links
        self._http: PlainHttp | None = None
        self._started = time.monotonic()
        self._serving = False
        self._refusals: Counter[str] = Counter()
        self._explanations = TokenBucket(EXPLAIN_BURST, EXPLAINED_PER_S, loop.time())
        self._explained = 0
        self._malformed: Counter[str] = Counter(dict.fromkeys(MALFORMED, 0))
        self._internal_errors = internal_errors
        self._devices = devices
        self._encrypted = encrypted
        self._alerts: AlertFacts = alerts or NoAlerts()
        self._history_turns = HistoryTurns()

    def begin(self) -> None:
        """Be ready from now on: traders and viewers are listened for."""
        self._serving = True

    def end(self) -> None:
        """Be ready no longer: the relay is stopping. Open sessions go on until their connections end."""
        self._serving = False

    # --- what a connection calls ----------------------------------------------------------------------------------

    def client_of(self, request: Request, peer: str | None) -> str | None:
        """Return the address of who asks: `peer`, or behind a trusted proxy the one that it names."""
        headers = request.headers
        return self._policy.client(
            peer, forwarded=headers.get_all("Forwarded"), x_forwarded_for=headers.get_all("X-Forwarded-For")
        )

    def decide(self, request: Request, peer: str | None) -> HttpResponse | Upgrade | Explain:
        """Decide about a complete request from address `peer`; see docs/protocol.md."""
        headers = request.headers
        shared = self._policy.sharing_headers(headers.get_all("Origin"))
        if len(shared) > 1 and request.method == "OPTIONS" and "Access-Control-Request-Method" in headers:
            # It carries no token, and answers nothing but that: the request itself is decided about when it comes.
            return HttpResponse(204, (*shared, *PREFLIGHT))
        decision = self._decide(request, peer)
        return decision.with_headers(*shared) if isinstance(decision, HttpResponse) else decision

    def _decide(self, request: Request, peer: str | None) -> HttpResponse | Upgrade | Explain:
        headers = request.headers
        offered = [
            name.strip()
            for value in headers.get_all("Sec-WebSocket-Protocol")
            for name in value.split(",")
            if name.strip()
        ]
        target = request.path
        authorization, in_query = headers.get_all("Authorization"), query_tokens(target)
        judge = partial(
            self._policy.decide,
            origin=headers.get_all("Origin"),
            host_header=headers.get_all("Host"),
            authorization=authorization,
            subprotocols=offered,
            query_token=in_query,
            peer_is_loopback=peer is None or is_loopback(peer),
            now_s=self._tokens.now(),
            host_optional=request.protocol == "HTTP/1.0",
            forwarded_by=forwarding_header(name for name, _ in headers.raw_items()),
            fetch_site=headers.get_all("Sec-Fetch-Site"),
        )
        verdict = judge(token_set=self._tokens.token_set)
        if self._tokens.token_set.needed:
            may_be_new = isinstance(verdict, Refused) and verdict.code == "bad_token"
        else:  # whoever shows a token has perhaps the first one, and its limits
            may_be_new = bool(authorization or in_query) or any(name.startswith(BEARER) for name in offered)
        if may_be_new and self._tokens.look_again():
            verdict = judge(token_set=self._tokens.token_set)
        # RFC 6455, section 4.1: it is asked for with GET.
        upgrade = request.method == "GET" and any("websocket" in value.lower() for value in headers.get_all("Upgrade"))
        if isinstance(verdict, Refused):
            # The page itself is no secret, and a browser cannot send a token along with a script's URL.
            if upgrade or verdict.status != 401 or not self._plain_http().is_public(target):
                self._refusals[verdict.code] += 1
                answer = self._refusal(verdict, peer)
                if upgrade and answer.status == 401 and shows_lines_only(headers, offered, target):
                    return self._explanation(verdict, answer, offered)
                return answer
            token = None
        else:
            token = verdict.token
            if token is not None:
                self._tokens.note_use(token, peer)
            if upgrade:
                return Upgrade(verdict.subprotocol, token)
        lowered = {name.lower(): value for name, value in headers.raw_items()}
        if request.method in ("GET", "HEAD") and not isinstance(verdict, Refused):
            followed = self._follow(target, headers.get("Last-Event-ID"), only_head=request.method == "HEAD")
            if followed is not None:
                return replace(followed, token=token)
        facts: RelayFacts = self
        if token is not None and not token.limit.nothing:
            facts = NarrowedFacts(self, token.limit)
        response = self._plain_http().answer(request.method, target, lowered, facts)
        return response if token is None else replace(response, token=token)

    def _follow(self, target: str, last_event_id: str | None, *, only_head: bool) -> HttpResponse | None:
        """Return the answer that goes on with new lines, where one is asked for."""
        path, _, query = target.partition("?")
        if path != EVENTS and not (path == "/logs" and "follow" in parse_qs(query, keep_blank_values=True)):
            return None
        form: Form = "sse" if path == EVENTS else "ndjson"
        after = last_event_id if form == "sse" else None
        try:
            parse_follow(target, after)
        except RequestError as error:
            json = (("Content-Type", "application/json"),)
            return HttpResponse(400, json, messages.error(error.code, str(error)) + b"\n")
        kind, heartbeat = FOLLOWED[form]
        headers = (("Content-Type", kind), ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
        return HttpResponse(200, headers, follow=None if only_head else Follow(target, form, after, heartbeat))

    def follow(self, socket: ViewerSocket, follow: Follow, *, token: Token | None = None) -> Session:
        """Begin the lines of an answer that goes on; `socket` gets them as they are to be written."""
        limit = UNLIMITED if token is None else token.limit
        stream = self._stream if limit.nothing else NarrowedStream(self._stream, limit)
        session = Session(stream, socket, form=follow.form, deflate=False, tail=self._tail, loop=self._loop)
        session.follow(parse_follow(follow.target, follow.after))
        return session

    def _refusal(self, verdict: Refused, peer: str | None) -> HttpResponse:
        """Return the answer to who was refused; for a wrong token it comes later and later."""
        answer = HttpResponse(verdict.status, verdict.headers, f"{verdict.message}\n".encode())
        if verdict.code != "bad_token":
            return answer
        delay_s = self._tokens.note_wrong(peer)
        if delay_s is None:
            text = "several wrong tokens from this address are waiting for their answers; try again later\n"
            return HttpResponse(429, (("Retry-After", str(RETRY_WRONG_S)),), text.encode())
        return replace(answer, delay_s=delay_s)

    def _explanation(self, verdict: Refused, answer: HttpResponse, offered: Sequence[str]) -> HttpResponse | Explain:
        """Return the way to tell a client that shows lines and nothing else why it gets none."""
        now_s = self._loop.time()
        if self._explanations.wait_s(now_s) > 0:
            return answer
        self._explanations.take()
        self._explained += 1
        what = "none was shown" if verdict.code == "no_token" else "the one that was shown is not good"
        text = (
            f"this relay needs a token, and {what}: put it into the app's address, ?token=<token>; "
            "logrelay token add NAME makes one, on the relay's machine"
        )
        carried = next((name for name in offered if name.startswith(BEARER)), None)
        return Explain(text, carried, answer.delay_s)

    def count_malformed(self, reason: str) -> None:
        """Count a request that was none; `reason` is one of `request_head.MALFORMED`."""
        self._malformed[reason] += 1

    def open(
        self,
        socket: ViewerSocket,
        target: str,
        *,
        subprotocol: str | None,
        deflate: bool,
        token: Token | None = None,
    ) -> Session:
        """Greet a viewer whose WebSocket is open, and begin where its URL says.

        `subprotocol` and `token` are what the `Upgrade` said; `deflate`: it can read compressed frames made by
        `compression`.
        """
        stream, limit = self._stream, UNLIMITED if token is None else token.limit
        if not limit.nothing:
            stream = NarrowedStream(stream, limit)
        socket.send(
            messages.connection(
                stream.id_of(stream.head),
                stream.id_of(stream.oldest),
                stream.traders_shown(),
                self._version,
                limit=limit,
                encrypted=self._encrypted,
                edges=stream.edges_shown(),
            )
        )
        form: Form = "batch" if subprotocol == BATCH else "single"
        session = Session(
            stream,
            socket,
            form=form,
            deflate=deflate,
            tail=self._tail,
            loop=self._loop,
            devices=self._devices,
            owner="" if token is None else token.id or token.name,
            alerts=self._alerts if limit.nothing else LimitedAlerts(),
            history_turns=self._history_turns,
        )
        session.begin(target)
        return session

    def _plain_http(self) -> PlainHttp:
        if self._http is None:
            self._http = self._make_http(self)
        return self._http

    # --- what plain HTTP asks (http.api.RelayFacts) ---------------------------------------------------------------

    limited = False
    """These are the facts as a whole."""

    @property
    def head(self) -> int:
        """Seq of the newest committed line; 0 when there is none."""
        return self._stream.committed

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""
        return self._stream.oldest

    def status(self) -> Mapping[str, object]:
        """Return what is known, JSON-safe, without I/O."""
        stream, edges = self._stream, self._stream.edges_shown()
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
            **({} if edges is None else {"edges": edges}),
            **self._links(),
        }

    def ready(self) -> bool:
        """Tell whether traders and viewers are listened for and lines are being kept."""
        return self._serving and self._stream.trouble is None

    def counters(self) -> Mapping[str, int | float]:
        """Return every counter by its name in `metrics.METRICS`, but for those of plain HTTP."""
        return {
            **self._stream.counters(),
            **self._limits(),
            **self._more_counters(),
            **self._alerts.counters(),
            **({} if self._devices is None else self._devices.counters()),
            "handshakes_refused_total": self._refusals.total(),
            "wrong_tokens_total": self._tokens.wrong.total,
            "token_explanations_total": self._explained,
            "internal_errors_total": self._internal_errors(),
        }

    def alerts(self) -> Mapping[str, object] | None:
        """Return what is known of the alerts."""
        return self._alerts.shown()

    def labelled(self) -> Mapping[str, Sequence[tuple[Mapping[str, str], int | float]]]:
        """Return what has labels: metric name to samples, each with its labels."""
        malformed = [({"reason": reason}, count) for reason, count in self._malformed.items()]
        return {**self._stream.app_samples(), "requests_malformed_total": malformed}

    async def read(self, query: Query) -> Page:
        """Read from the journal. Raises JournalError; cancelling drops the answer."""
        return await self._stream.read(query)

    async def summarize(self, query: Query) -> SummaryPage:
        """Have the journal count. Raises JournalError; cancelling drops the answer."""
        return await self._stream.summarize(query)

    async def lines_at(self, seqs: Sequence[int], /) -> dict[int, bytes]:
        """Read some lines by seq. Raises JournalError; cancelling drops the answer."""
        return await self._stream.lines_at(seqs)

    def id_of(self, seq: int) -> str:
        """Return the id of a position."""
        return self._stream.id_of(seq)

    def resolve(self, id_: str) -> Position:
        """Return what an id means. Raises RequestError."""
        return self._stream.resolve(id_)


def shows_lines_only(headers: Headers, offered: Sequence[str], target: str) -> bool:
    """Tell whether a client that opens a WebSocket is one that would not see a refusal: an app or somebody's page.

    They say where they are from, or name their device. The relay's own page offers BATCH, and shows what is wrong by
    itself; programs for terminals and monitors do neither, and show the status of the answer.
    """
    return BATCH not in offered and ("Origin" in headers or names_device(target))
