"""Plain HTTP on the viewers' port: the web viewer, /healthz, /readyz, /metrics, /logs and /summary.

Owns: which paths exist and what each answers (`http/log_query` reads parameters, `http/summary` shows counts). It must
not know sockets: `viewers/connection` parses the request, `viewers/service` decides access (token, Origin, Host) and
calls `HttpApi.answer`. What this module needs of the relay is `RelayFacts`. Read `static/client.js` next.

    GET /             the web viewer (no log content in it: it fetches everything over its WebSocket)
    GET /healthz      200 while the relay keeps lines, 503 with the reason while its journal is in trouble
    GET /readyz       200 when the relay takes lines and viewers, else 503
    GET /metrics      Prometheus text, see `http/metrics`
    GET /logs         lines as NDJSON, each exactly the message that viewers get
    GET /summary      counts by level, bot and problem, crashes and gaps, as one JSON object
    GET /alerts       what alerts there are, silences, and how the services do
    GET /trade-names  which messages and fields of a bot are about trades, as the operator set them

/logs without `after` and `since` gives the newest `limit` matches; with either of them the oldest from there. Both
ascending. An answer of `limit` lines may have been cut: ask again with `after=<last id>`, or with `before=<first id>`
for what is older. An answer that ended early by accident ends the same way as a complete one, so whoever must be
certain asks again behind the last id until nothing comes. What goes wrong after the first byte is told in a line of its
own, `{"type":"error","code":...}`.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from typing import Protocol

import orjson

from logrelay import budgets
from logrelay.config.trade_names import TRADE_NAMES
from logrelay.errors import JournalError, RequestError
from logrelay.fanout.filters import most_notices
from logrelay.fanout.line_json import UNSYNCED, escaped, left_out_body
from logrelay.fanout.positions import Lost, Position, id_of
from logrelay.http import metrics
from logrelay.http.log_query import Around, SummaryQuery, parse_around_query, parse_log_query, parse_summary_query
from logrelay.http.request_head import ALLOWED_METHODS
from logrelay.http.response import EVENTS, HttpResponse
from logrelay.http.summary import gather, seqs_shown, shape
from logrelay.journal.interface import Page, Query, SummaryPage

PAGE_LINES = 2000
PAGE_BYTES = 128 << 10
"""Read from the journal at once: five hundred usual lines, some milliseconds of reading. A search holds them until its
reader has taken them, and there may be `budgets.SEARCHES` such searches."""
KEPT_BYTES = 128 << 10
"""Of a search from the newest line backwards, this much is kept; a longer answer is read again forwards."""
MAX_READS = 2
"""HttpApi read for HTTP at the same time. The others wait their turn; live viewers do not queue behind them."""
STATIC: dict[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/sw.js": ("sw.js", "text/javascript; charset=utf-8"),
    "/static/style.css": ("style.css", "text/css; charset=utf-8"),
    "/static/address.js": ("address.js", "text/javascript; charset=utf-8"),
    "/static/alerts.js": ("alerts.js", "text/javascript; charset=utf-8"),
    "/static/bots.js": ("bots.js", "text/javascript; charset=utf-8"),
    "/static/client.js": ("client.js", "text/javascript; charset=utf-8"),
    "/static/clipboard.js": ("clipboard.js", "text/javascript; charset=utf-8"),
    "/static/detail.js": ("detail.js", "text/javascript; charset=utf-8"),
    "/static/dom.js": ("dom.js", "text/javascript; charset=utf-8"),
    "/static/filters.js": ("filters.js", "text/javascript; charset=utf-8"),
    "/static/format.js": ("format.js", "text/javascript; charset=utf-8"),
    "/static/keys.js": ("keys.js", "text/javascript; charset=utf-8"),
    "/static/lines.js": ("lines.js", "text/javascript; charset=utf-8"),
    "/static/link.js": ("link.js", "text/javascript; charset=utf-8"),
    "/static/list.js": ("list.js", "text/javascript; charset=utf-8"),
    "/static/login.js": ("login.js", "text/javascript; charset=utf-8"),
    "/static/main.js": ("main.js", "text/javascript; charset=utf-8"),
    "/static/notify.js": ("notify.js", "text/javascript; charset=utf-8"),
    "/static/problems.js": ("problems.js", "text/javascript; charset=utf-8"),
    "/static/relay.js": ("relay.js", "text/javascript; charset=utf-8"),
    "/static/rows.js": ("rows.js", "text/javascript; charset=utf-8"),
    "/static/seen.js": ("seen.js", "text/javascript; charset=utf-8"),
    "/static/storage.js": ("storage.js", "text/javascript; charset=utf-8"),
    "/static/summary.js": ("summary.js", "text/javascript; charset=utf-8"),
    "/static/tradenames.js": ("tradenames.js", "text/javascript; charset=utf-8"),
    "/static/trades.js": ("trades.js", "text/javascript; charset=utf-8"),
    "/static/client.d.ts": ("client.d.ts", "text/plain; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
    "/static/icon-180.png": ("icon-180.png", "image/png"),
    "/static/icon-192.png": ("icon-192.png", "image/png"),
    "/static/icon-512.png": ("icon-512.png", "image/png"),
    "/static/manifest.json": ("manifest.json", "application/manifest+json"),
}
"""Every file there is, by path. Nothing in a request is ever made into a file name.

A file that is renamed leaves no old path behind: browsers ask about the page each time (`no-cache`), so none of them
shows an old page that would ask for the old script.
"""
ROUTES = ("/", "/healthz", "/readyz", "/metrics", "/logs", "/summary", "/alerts", "/trade-names")

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_GZIP = re.compile(r"\bgzip\b(?! *; *q=0(?:\.0*)? *(?:,|$))", re.IGNORECASE)
"""The client reads gzip: it says so, and does not say that it had better not (`q=0`)."""
_WORKER_POLICY = "default-src 'none'; connect-src 'self'"
"""What the page's service worker may do: fetch what it keeps."""
_STATUS_KEYS = ("version", "epoch", "head", "oldest", "uptime", "viewers")
_TRADER_KEYS = (
    *("app", "host", "pid", "run", "state", "awaited", "brief"),
    *("started", "last_line", "last_line_age_s", "quiet_s"),
    *("edge", "last_state", "unknown_since"),
)
"""As in the message `connection`; `last_line_age_seconds` is the name that an age had here alone, and stays."""
_MACHINE_KEYS = ("edges", "collect", "forward")
"""Only of a relay that collects or forwards."""
_JOURNAL_KEYS = ("trouble", "bytes", "damaged_lines")


class RelayFacts(Protocol):
    """What the API sees of the relay; `viewers.service` has it. Called on the event loop."""

    @property
    def limited(self) -> bool:
        """True when they are cut to what a token with limits may see."""

    @property
    def head(self) -> int:
        """Seq of the newest committed line; 0 when there is none."""

    def status(self) -> Mapping[str, object]:
        """Return JSON-safe facts, quickly and without I/O.

        `version`, `epoch`, `head`, `oldest` (ids), `uptime` (seconds), `viewers` (count), `journal` (a mapping with
        `trouble`: str or None, `bytes`, ...) and `traders` (mappings with `app`, `host`, `pid`, `state`, `last_line`:
        RFC 3339 or None, `last_line_age_s`: seconds or None, ...).
        """

    def ready(self) -> bool:
        """Tell whether the relay takes lines and viewers now."""

    def counters(self) -> Mapping[str, int | float]:
        """Return the values of `metrics.METRICS` by name, those that the API counts itself left out."""

    def alerts(self) -> Mapping[str, object] | None:
        """Return what is known of the alerts, JSON-safe; None: it may not be seen."""

    def labelled(self) -> Mapping[str, Sequence[metrics.Sample]]:
        """Return the values of those `metrics.METRICS` that have labels."""

    @property
    def oldest(self) -> int:
        """Seq of the oldest line kept."""

    async def summarize(self, query: Query) -> SummaryPage:
        """Have the journal count, see `Journal.summarize`. Raises JournalError. Cancelling drops the answer."""

    async def lines_at(self, seqs: Sequence[int], /) -> dict[int, bytes]:
        """Read some lines by seq, see `Journal.lines_at`. Raises JournalError. Cancelling drops the answer."""

    async def read(self, query: Query) -> Page:
        """Read from the journal, off the event loop. Raises JournalError. Cancelling drops the answer."""

    def id_of(self, seq: int) -> str:
        """Return the id of a position."""

    def resolve(self, id_: str, /) -> Position:
        """Return what an id means. Raises RequestError: not an id, one of another journal, one that is ahead."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    content_type: str
    etag: str
    packed: bytes | None
    """The same with gzip, where that is smaller by much: on a slow phone network it is what the page waits for."""


class HttpApi:
    """Answers plain HTTP requests. Belongs to one event loop."""

    def __init__(
        self,
        facts: RelayFacts,
        *,
        now: Callable[[], float] = time.time,
        trade_names: Mapping[str, Sequence[str]] = TRADE_NAMES,
    ) -> None:
        """Read the web viewer's files. `now` is the wall clock, seconds since 1970.

        `facts` are for requests that bring none of their own. `trade_names` is what /trade-names answers.
        """
        self._trade_names = trade_names
        self._facts = facts
        self._now = now
        self._files = {path: _load(*entry) for path, entry in STATIC.items()}
        self._reads = asyncio.Semaphore(MAX_READS)
        self._searches_open = 0
        self._searches_total = 0
        self._searches_refused = 0
        self._search_lines_total = 0

    @staticmethod
    def is_public(target: str) -> bool:
        """Tell whether the target is a file of the web viewer: program text, no more secret than the source.

        A page cannot add a token to the requests for its own script and style, so these must pass without.
        """
        return target.partition("?")[0] in STATIC

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], facts: RelayFacts | None = None
    ) -> HttpResponse:
        """Answer one request that access has already been granted to. Never raises.

        `target` is the request target as received; `headers` is looked up with lower-case names. `facts` is what this
        request may see of the relay: a route gets them as an argument and has no others.
        """
        return _completed(method, self._route(method, target, headers, self._facts if facts is None else facts))

    def _route(self, method: str, target: str, headers: Mapping[str, str], facts: RelayFacts) -> HttpResponse:
        path, _, query = target.partition("?")
        if method == "OPTIONS":  # a preflight of a listed page has been answered already
            return HttpResponse(204, (("Allow", ALLOWED_METHODS),))
        if method not in ("GET", "HEAD"):
            refusal = _error(405, "bad_method", f"only {ALLOWED_METHODS} are answered here")
            return refusal.with_headers(("Allow", ALLOWED_METHODS))
        if path not in ROUTES and path not in STATIC:
            return _error(404, "not_found", f"there is nothing here; there is {', '.join((*ROUTES, EVENTS))}")
        if path in STATIC:
            return self._static(path, headers)
        if path == "/logs":
            return self._logs(query, facts)
        if path == "/summary":
            return self._summary(query, facts)
        routes = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        if path == "/alerts":
            return self._alerts(facts)
        if path == "/trade-names":
            return _json(200, self._trade_names)
        return routes[path](facts)

    def _static(self, path: str, headers: Mapping[str, str]) -> HttpResponse:
        """Answer with a file, or 304 when the client has it."""
        file = self._files[path]
        # no-cache: kept, but asked about each time, so that an upgraded relay never meets an old script
        common = [("ETag", file.etag), ("Cache-Control", "no-cache")]
        if path == "/":
            # On 304 as well: a browser replaces the headers it has kept by those that come then (RFC 9111, 3.2).
            common += [
                ("Content-Security-Policy", _content_security_policy(headers.get("host", ""))),
                ("Cross-Origin-Opener-Policy", "same-origin"),
            ]
        elif path == "/sw.js":
            common.append(("Content-Security-Policy", _WORKER_POLICY))
        known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
        if file.etag in known or "*" in known:
            return HttpResponse(304, tuple(common))
        common.append(("Content-Type", file.content_type))
        if file.packed is None:
            return HttpResponse(200, tuple(common), file.content)
        common.append(("Vary", "Accept-Encoding"))
        if not _GZIP.search(headers.get("accept-encoding", "")):
            return HttpResponse(200, tuple(common), file.content)
        return HttpResponse(200, (*common, ("Content-Encoding", "gzip")), file.packed)

    def _healthz(self, facts: RelayFacts) -> HttpResponse:
        """Answer with the state of the relay and its traders; nothing a trader logged is in it."""
        status = facts.status()
        journal = _mapping(status.get("journal"))
        trouble = journal.get("trouble")
        body: dict[str, object] = {"status": "trouble" if trouble else "ok"}
        if trouble:
            body["reason"] = _reason(trouble)
        # Key by key: what somebody adds to the status for other readers must not appear here unasked.
        body |= {key: status[key] for key in _STATUS_KEYS if key in status}
        body["journal"] = {key: journal[key] for key in _JOURNAL_KEYS if key in journal}
        traders = status.get("traders")
        body["traders"] = [self._trader(_mapping(t)) for t in traders] if isinstance(traders, list) else []
        body |= {key: status[key] for key in _MACHINE_KEYS if key in status}
        return _json(503 if trouble else 200, body)

    @staticmethod
    def _trader(trader: Mapping[str, object]) -> dict[str, object]:
        shown = {key: trader[key] for key in _TRADER_KEYS if key in trader}
        age = trader.get("last_line_age_s")
        if age is not None:
            shown["last_line_age_seconds"] = age
        return shown

    def _readyz(self, facts: RelayFacts) -> HttpResponse:
        if facts.ready():
            return _json(200, {"ready": True})
        trouble = _mapping(facts.status().get("journal")).get("trouble")
        reason = _reason(trouble) if trouble else "starting or stopping"
        return _json(503, {"ready": False, "reason": reason})

    @staticmethod
    def _alerts(facts: RelayFacts) -> HttpResponse:
        shown = facts.alerts()
        if shown is None:
            return _error(403, "limited", "/alerts tells of all bots: it needs a token without limits")
        return _json(200, shown)

    def _metrics(self, facts: RelayFacts) -> HttpResponse:
        if facts.limited:
            return _error(403, "limited", "/metrics tells of all lines: it needs a token without limits")
        values = dict(facts.counters())
        uptime = facts.status().get("uptime")
        if isinstance(uptime, int | float):
            values.setdefault("uptime_seconds", uptime)
        values |= {
            "searches": self._searches_open,
            "searches_total": self._searches_total,
            "searches_refused_total": self._searches_refused,
            "search_lines_total": self._search_lines_total,
        }
        headers = (("Content-Type", metrics.CONTENT_TYPE), ("Cache-Control", "no-store"))
        return HttpResponse(200, headers, metrics.expose(values, facts.labelled()).encode("utf-8", "replace"))

    def _logs(self, query: str, facts: RelayFacts) -> HttpResponse:
        """Check every parameter before the first byte; lines are read from the journal while they are written."""
        if self._searches_open >= budgets.SEARCHES:
            return self._busy()
        head = facts.head
        lost: list[Lost] = []

        def resolve(id_: str) -> Position:
            position = facts.resolve(id_)
            if position.lost is not None:
                lost.append(position.lost)
            return position

        try:
            around = parse_around_query(query, resolve)
            if around is not None:
                _require_kept(around.position, facts)
                answer = self._around(around, lost, facts, head)
            else:
                answer = self._search(parse_log_query(query, head, resolve, round(self._now() * 1e6)), lost, facts)
        except RequestError as error:
            return _error(410 if error.code == "expired" else 400, error.code, str(error))
        headers = (
            ("Content-Type", "application/x-ndjson"),
            ("Cache-Control", "no-store"),
            # How far the journal was looked at: whoever polls with a filter continues behind it, match or no match.
            ("Logrelay-Head", facts.id_of(head)),
        )
        return HttpResponse(200, headers, self._counted(answer))

    def _busy(self) -> HttpResponse:
        self._searches_refused += 1
        what = f"{budgets.SEARCHES} answers to /logs and /summary are being written"
        busy = _error(503, "busy", f"{what}; ask again in a moment")
        return busy.with_headers(("Retry-After", str(budgets.SEARCH_RETRY_AFTER_S)))

    def _summary(self, query: str, facts: RelayFacts) -> HttpResponse:
        """Check every parameter before the first byte; the journal counts while the answer is awaited."""
        if self._searches_open >= budgets.SEARCHES:
            return self._busy()
        now_us = round(self._now() * 1e6)
        try:
            wanted = parse_summary_query(query, facts.head, facts.resolve, now_us)
        except RequestError as error:
            return _error(410 if error.code == "expired" else 400, error.code, str(error))
        headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
        return HttpResponse(200, headers, self._counted(self._summarize(wanted, now_us, facts)))

    async def _counted(self, answer: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Count an answer as open while it is written, and say in it where the journal cannot be read any further."""
        self._searches_open += 1
        self._searches_total += 1
        try:
            async for chunk in answer:
                yield chunk
        except JournalError as error:
            yield _error_line("journal", f"the journal cannot be read: {error}")
        finally:
            await answer.aclose()
            self._searches_open -= 1

    async def _summarize(self, wanted: SummaryQuery, now_us: int, facts: RelayFacts) -> AsyncGenerator[bytes, None]:
        traders = facts.status().get("traders")
        summary = await gather(wanted.query, facts.summarize)
        bodies = await facts.lines_at(seqs_shown(summary))
        shown = shape(
            summary,
            wanted,
            bodies,
            traders=traders if isinstance(traders, list) else [],
            head=wanted.query.until,  # whoever asks for what is behind it misses nothing that came meanwhile
            oldest=facts.oldest,
            id_of=facts.id_of,
            now_us=now_us,
        )
        yield escaped(orjson.dumps(shown)) + b"\n"

    async def _around(
        self, wanted: Around, lost: Sequence[Lost], facts: RelayFacts, head: int
    ) -> AsyncGenerator[bytes, None]:
        """Give the matches before a line, the line, and the matches behind it."""
        seq, end = wanted.position.seq, wanted.position.end
        parts = [
            Query(
                0,
                min(head, end - 1),
                wanted.before,
                wanted.filter,
                newest=True,
                notices=most_notices(wanted.filter, wanted.before),
            ),
            Query(end - 1, seq, 1),
            Query(seq, head, wanted.behind, wanted.filter),
        ]
        for part in parts:
            async for chunk in self._search(part, lost if part is parts[0] else (), facts):
                yield chunk

    async def _search(self, query: Query, lost: Sequence[Lost], facts: RelayFacts) -> AsyncGenerator[bytes, None]:
        """Give the matches a page at a time; no read of the journal is open in between. Cancelling ends it."""
        for gone in lost:
            ids = f"{id_of(gone.epoch, gone.first)} to {id_of(gone.epoch, gone.last)}"
            yield _error_line("unsynced", f"{gone.lines} lines, {ids}, are not in the journal: {UNSYNCED}")
        # Behind a line that was asked for by its id, what is missing was there and must be reported.
        exact = not query.newest and query.since_us is None
        if query.newest:
            start, notices_from, kept = await self._walk_back(query, facts)
            if notices_from:
                yield left_out_body(facts.id_of(min(start, notices_from) - 1), round(self._now() * 1e6)) + b"\n"
            for page in kept:
                yield self._chunk(page.bodies)
            if kept or start > query.until:
                return
            query, exact = replace(query, after=start - 1, newest=False), True
            if notices_from > start:
                lines_only = replace(query, until=notices_from - 1, filter=query.filter.without_notices())
                async for chunk in self._walk(lines_only, facts, exact=exact):
                    yield chunk
                query = replace(query, after=notices_from - 1)
        async for chunk in self._walk(query, facts, exact=exact):
            yield chunk

    async def _walk(self, query: Query, facts: RelayFacts, *, exact: bool) -> AsyncGenerator[bytes, None]:
        """Give the matches of a stretch, the oldest first. `exact`: what is missing at its beginning was there."""
        left = query.limit
        while left > 0 and query.after < query.until:
            page = await self._read(replace(query, limit=min(left, PAGE_LINES), max_bytes=PAGE_BYTES), facts)
            missing = min(page.oldest - 1, query.until) - query.after
            if exact and missing > 0:
                yield _error_line("expired", f"{missing} lines are missing here: no longer kept (retention)")
            if page.bodies:
                yield self._chunk(page.bodies)
            left -= page.counted
            if page.complete:
                return
            assert page.reached > query.after, "a page that got nowhere would be asked for again for ever"
            query, exact = replace(query, after=page.reached), True

    async def _walk_back(self, query: Query, facts: RelayFacts) -> tuple[int, int, list[Page]]:
        """Find where the newest `limit` matches begin, and keep them, ascending, while they are few.

        Returns the seq of the first match (`until + 1` when there is none), the seq before which notices are left out
        (0: none is), and the pages; no pages when they grew beyond KEPT_BYTES and have to be read again from there on.
        """
        start, left, until = query.until + 1, query.limit, query.until
        notices, notices_from = query.notices, 0
        kept: list[Page] = []
        size = 0
        while left > 0 and until > query.after:
            page = await self._read(
                replace(query, until=until, limit=min(left, PAGE_LINES), max_bytes=PAGE_BYTES, notices=notices), facts
            )
            notices_from = notices_from or page.notices_from
            if page.bodies:
                start = page.seqs[0]
                left -= page.counted
                notices = None if notices is None else notices - page.beside
                size += sum(map(len, page.bodies))
                if size <= KEPT_BYTES:
                    kept.append(page)
                else:
                    kept.clear()
            if page.complete:
                break
            assert page.reached < until, "a page that got nowhere would be asked for again for ever"
            until = page.reached
        return start, notices_from, kept[::-1]

    async def _read(self, query: Query, facts: RelayFacts) -> Page:
        async with self._reads:
            page = await facts.read(query)
        await asyncio.sleep(0)  # a journal that answers from memory must not keep the event loop from everybody else
        return page

    def _chunk(self, bodies: list[bytes]) -> bytes:
        self._search_lines_total += len(bodies)
        return b"\n".join(bodies) + b"\n"


def _require_kept(position: Position, facts: RelayFacts) -> None:
    if position.lost is None and position.seq < facts.oldest:
        oldest = facts.id_of(facts.oldest)
        raise RequestError("expired", f"this line is no longer kept (retention); the oldest one is {oldest}")


def _load(name: str, content_type: str) -> _File:
    content = files("logrelay").joinpath("static", name).read_bytes()
    packed = gzip.compress(content, mtime=0)
    etag = f'"{sha256(content).hexdigest()[:20]}"'
    return _File(content, content_type, etag, packed if len(packed) < len(content) * 0.9 else None)


def _content_security_policy(host: str) -> str:
    """Return the Content-Security-Policy of the viewer: its own script, style and host, nothing else."""
    # 'self' covers the WebSocket of the same host in current browsers; older ones need it by name.
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; manifest-src 'self'; "
        "worker-src 'self'; "
        f"connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _json(status: int, value: object) -> HttpResponse:
    headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
    return HttpResponse(status, headers, escaped(orjson.dumps(value)) + b"\n")


def _reason(trouble: object) -> str:
    """Say that the trouble is the journal's; most of what goes wrong with it begins with its name."""
    text = str(trouble)
    return text if text.startswith("journal ") else f"journal: {text}"


def _error(status: int, code: str, message: str) -> HttpResponse:
    return _json(status, {"type": "error", "code": code, "message": message})


def _error_line(code: str, message: str) -> bytes:
    return escaped(orjson.dumps({"type": "error", "code": code, "message": message})) + b"\n"


def _completed(method: str, response: HttpResponse) -> HttpResponse:
    """Add what every answer has, and take the body away when only the head was asked for."""
    response = response.with_safe_headers()
    if isinstance(response.body, bytes) and response.status not in (204, 304):
        response = response.with_headers(("Content-Length", str(len(response.body))))
    return replace(response, body=b"") if method == "HEAD" else response


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
