"""Plain HTTP on the viewers' port: the web viewer, /healthz, /readyz, /metrics and /logs.

Owns: which paths exist and what each answers (`search` reads the parameters of /logs). It must not know
sockets: the shell that owns the port parses the request, decides access (token, Origin, Host), calls
`HttpApi.answer` and writes what it gets. What HttpApi needs of the relay is the `RelayFacts`, which the daemon
supplies. Read `static/client.js` next.

    GET /             the web viewer (no log content in it: it fetches everything over its WebSocket)
    GET /healthz      200 while the relay keeps lines, 503 with the reason while its journal is in trouble
    GET /readyz       200 when the relay takes lines and viewers, else 503
    GET /metrics      Prometheus text, see `metrics`
    GET /logs         lines as NDJSON, each exactly the message that viewers get

/logs without `after` and `since` gives the newest `limit` matches; with either of them the oldest from there.
Both ascending. An answer of `limit` lines may have been cut: ask again with `after=<last id>`, or with
`before=<first id>` for what is older. An answer that ended early by accident ends the same way as a complete
one, so whoever must be certain asks again behind the last id until nothing comes.
What goes wrong after the first byte is said in a line of its own, `{"type":"error","code":...}`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from typing import Protocol

import orjson

from logrelay.errors import JournalError, RequestError
from logrelay.http import metrics
from logrelay.http.log_query import parse_search, parse_time
from logrelay.journal.interface import Page, Query

PAGE_LINES = 2000
"""Lines read from the journal at once; about half a megabyte of usual lines, some milliseconds of reading."""
KEPT_BYTES = 4 << 20
"""Of a search from the newest line backwards, this much is kept; a longer answer is read again forwards."""
MAX_READS = 2
"""HttpApi read for HTTP at the same time. The others wait their turn; live viewers do not queue behind them."""
STATIC: dict[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/style.css": ("style.css", "text/css; charset=utf-8"),
    "/static/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/static/client.js": ("client.js", "text/javascript; charset=utf-8"),
    "/static/client.d.ts": ("client.d.ts", "text/plain; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
    "/static/manifest.json": ("manifest.json", "application/manifest+json"),
}
"""Every file there is, by path. Nothing in a request is ever made into a file name."""
ROUTES = ("/", "/healthz", "/readyz", "/metrics", "/logs")

_EVERY_ANSWER = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),  # an old link may still carry ?token=
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_STATUS_KEYS = ("version", "epoch", "head", "oldest", "uptime", "viewers")
_TRADER_KEYS = ("app", "host", "pid", "state", "last_line")
_JOURNAL_KEYS = ("trouble", "bytes")


@dataclass(slots=True)
class Answer:
    """A whole HTTP answer, but for `Connection: close` and `Date`, which the shell adds.

    Bytes come with their Content-Length among the headers (to HEAD: that of GET, and no bytes; 304 has none).
    An iterator gives chunks of at most a megabyte or so; its end is the end of the connection. The shell
    awaits room in the socket between chunks. When the client is gone it cancels the task that awaits the next
    chunk, or calls the iterator's `aclose()`; either ends the search.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncGenerator[bytes, None]


class RelayFacts(Protocol):
    """What the daemon lets the pages see of the relay."""

    @property
    def epoch(self) -> str:
        """The journal's epoch."""

    @property
    def head(self) -> int:
        """Seq of the newest committed line; 0 when there is none."""

    def status(self) -> Mapping[str, object]:
        """Return JSON-safe facts, quickly and without I/O.

        `version`, `epoch`, `head`, `oldest` (ids), `uptime` (seconds), `viewers` (count), `journal` (a
        mapping with `trouble`: str or None, `bytes`, ...) and `traders` (mappings with `app`, `host`, `pid`,
        `state`, `last_line`: RFC 3339 or None, ...).
        """

    def ready(self) -> bool:
        """Tell whether the relay takes lines and viewers now."""

    def counters(self) -> Mapping[str, int | float]:
        """Return the values of `metrics.METRICS` by name, those that HttpApi counts itself left out."""

    async def page(self, query: Query) -> Page:
        """Read from the journal, off the event loop. Raises JournalError. Cancelling drops the answer."""

    def resolve(self, id: str) -> int:  # noqa: A002  (the protocol's word)
        """Return the seq that an id means. Raises RequestError: not an id, another epoch, no longer kept."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    content_type: str
    etag: str


class HttpApi:
    """Answers plain HTTP requests. Belongs to one event loop."""

    def __init__(self, desk: RelayFacts, *, now: Callable[[], float] = time.time) -> None:
        """Read the web viewer's files. `now` is the wall clock, seconds since 1970."""
        self._desk = desk
        self._now = now
        self._files = {path: _load(*entry) for path, entry in STATIC.items()}
        self._reads = asyncio.Semaphore(MAX_READS)
        self._searches = 0
        self._searches_total = 0
        self._search_lines = 0

    @staticmethod
    def is_public(target: str) -> bool:
        """Tell whether the target is a file of the web viewer: program text, no more secret than the source.

        A page cannot add a token to the requests for its own script and style, so these must pass without.
        """
        return target.partition("?")[0] in STATIC

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> Answer:
        """Answer one request that access has already been granted to. Never raises.

        `target` is the request target as received; `headers` is looked up with lower-case names.
        """
        path, _, query = target.partition("?")
        if path not in ROUTES and path not in STATIC:
            message = f"there is nothing here; there is {', '.join(ROUTES)}"
            return _finish(method, _error(404, "not_found", message))
        if method not in ("GET", "HEAD"):
            refusal = _error(405, "bad_method", "only GET and HEAD are answered here")
            refusal.headers.append(("Allow", "GET, HEAD"))
            return _finish(method, refusal)
        if path in STATIC:
            return _finish(method, self._static(path, headers))
        if path == "/logs":
            return _finish(method, self._logs(query))
        short = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        return _finish(method, short[path]())

    def _static(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Answer with a file, or 304 when the client has it."""
        file = self._files[path]
        # no-cache: kept, but asked about each time, so that an upgraded relay never meets an old script
        answer = Answer(200, [("ETag", file.etag), ("Cache-Control", "no-cache")], file.content)
        known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
        if file.etag in known or "*" in known:
            answer.status, answer.body = 304, b""
            return answer
        answer.headers.append(("Content-Type", file.content_type))
        if path == "/":
            answer.headers.append(("Content-Security-Policy", _policy(headers.get("host", ""))))
            answer.headers.append(("Cross-Origin-Opener-Policy", "same-origin"))
        return answer

    def _healthz(self) -> Answer:
        """Say how the relay and its traders are; nothing a trader logged is in it."""
        status = self._desk.status()
        journal = _mapping(status.get("journal"))
        trouble = journal.get("trouble")
        body: dict[str, object] = {"status": "trouble" if trouble else "ok"}
        if trouble:
            body["reason"] = f"journal: {trouble}"
        # Key by key: what somebody adds to the status for other readers must not appear here unasked.
        body |= {key: status[key] for key in _STATUS_KEYS if key in status}
        body["journal"] = {key: journal[key] for key in _JOURNAL_KEYS if key in journal}
        traders = status.get("traders")
        body["traders"] = [self._trader(_mapping(t)) for t in traders] if isinstance(traders, list) else []
        return _json(503 if trouble else 200, body)

    def _trader(self, trader: Mapping[str, object]) -> dict[str, object]:
        shown = {key: trader[key] for key in _TRADER_KEYS if key in trader}
        last = trader.get("last_line")
        if isinstance(last, str):
            with suppress(RequestError):
                age = self._now() - parse_time("last_line", last, 0) / 1e6
                shown["last_line_age_seconds"] = round(max(0.0, age), 3)
        return shown

    def _readyz(self) -> Answer:
        if self._desk.ready():
            return _json(200, {"ready": True})
        trouble = _mapping(self._desk.status().get("journal")).get("trouble")
        reason = f"journal: {trouble}" if trouble else "starting or stopping"
        return _json(503, {"ready": False, "reason": reason})

    def _metrics(self) -> Answer:
        values = dict(self._desk.counters())
        uptime = self._desk.status().get("uptime")
        if isinstance(uptime, int | float):
            values.setdefault("uptime_seconds", uptime)
        values |= {
            "searches": self._searches,
            "searches_total": self._searches_total,
            "search_lines_total": self._search_lines,
        }
        headers = [("Content-Type", metrics.CONTENT_TYPE), ("Cache-Control", "no-store")]
        return Answer(200, headers, metrics.expose(values).encode())

    def _logs(self, query: str) -> Answer:
        """Check every parameter before the first byte; the lines are read while they are written."""
        head = self._desk.head
        try:
            wanted = parse_search(query, head, self._desk.resolve, round(self._now() * 1e6))
        except RequestError as error:
            return _error(410 if error.code == "expired" else 400, error.code, str(error))
        headers = [
            ("Content-Type", "application/x-ndjson"),
            ("Cache-Control", "no-store"),
            # How far was looked: whoever polls with a filter continues behind it, match or no match.
            ("Logrelay-Head", f"{self._desk.epoch}-{head}"),
        ]
        return Answer(200, headers, self._search(wanted))

    async def _search(self, query: Query) -> AsyncGenerator[bytes, None]:
        """Give the matches a page at a time; nothing of the journal is held in between. Cancelling ends it."""
        self._searches += 1
        self._searches_total += 1
        try:
            # Behind a line that was asked for by its id, what is missing was there and must be told.
            exact = not query.newest and query.since_us is None
            if query.newest:
                start, kept = await self._walk_back(query)
                for page in kept:
                    yield self._chunk(page.bodies)
                if kept or start > query.until:
                    return
                query, exact = replace(query, after=start - 1, newest=False), True
            left = query.limit
            while left > 0 and query.after < query.until:
                page = await self._read(replace(query, limit=min(left, PAGE_LINES)))
                missing = min(page.oldest - 1, query.until) - query.after
                if exact and missing > 0:
                    yield _error_line("expired", f"{missing} lines are missing here: no longer kept (retention)")
                if page.bodies:
                    yield self._chunk(page.bodies)
                left -= len(page.bodies)
                if page.complete:
                    return
                assert page.reached > query.after, "a page that got nowhere would be asked for again for ever"
                query, exact = replace(query, after=page.reached), True
        except JournalError as error:
            yield _error_line("journal", f"the journal cannot be read: {error}")
        finally:
            self._searches -= 1

    async def _walk_back(self, query: Query) -> tuple[int, list[Page]]:
        """Find where the newest `limit` matches begin, and keep them, ascending, while they are few.

        Returns the seq of the first match (`until + 1` when there is none) and the pages; no pages when they
        grew beyond KEPT_BYTES and have to be read again from that seq on.
        """
        start, left, until = query.until + 1, query.limit, query.until
        kept: list[Page] = []
        size = 0
        while left > 0 and until > query.after:
            page = await self._read(replace(query, until=until, limit=min(left, PAGE_LINES)))
            if page.bodies:
                start = page.seqs[0]
                left -= len(page.bodies)
                size += sum(map(len, page.bodies))
                if size <= KEPT_BYTES:
                    kept.append(page)
                else:
                    kept.clear()
            if page.complete:
                break
            assert page.reached < until, "a page that got nowhere would be asked for again for ever"
            until = page.reached
        return start, kept[::-1]

    async def _read(self, query: Query) -> Page:
        async with self._reads:
            page = await self._desk.page(query)
        await asyncio.sleep(0)  # a journal that answers from memory must not keep the loop from everyone else
        return page

    def _chunk(self, bodies: list[bytes]) -> bytes:
        self._search_lines += len(bodies)
        return b"\n".join(bodies) + b"\n"


def _load(name: str, content_type: str) -> _File:
    content = files("logrelay").joinpath("static", name).read_bytes()
    return _File(content, content_type, f'"{sha256(content).hexdigest()[:20]}"')


def _policy(host: str) -> str:
    """Return the Content-Security-Policy of the viewer: its own script, style and host, nothing else."""
    # 'self' covers the WebSocket of the same host in current browsers; older ones need it by name.
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; manifest-src 'self'; "
        f"connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _json(status: int, value: object) -> Answer:
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    return Answer(status, headers, orjson.dumps(value) + b"\n")


def _error(status: int, code: str, message: str) -> Answer:
    return _json(status, {"type": "error", "code": code, "message": message})


def _error_line(code: str, message: str) -> bytes:
    return orjson.dumps({"type": "error", "code": code, "message": message}) + b"\n"


def _finish(method: str, answer: Answer) -> Answer:
    """Add what every answer has, and take the body away when only the head was asked for."""
    answer.headers += _EVERY_ANSWER
    if isinstance(answer.body, bytes) and answer.status != 304:
        answer.headers.append(("Content-Length", str(len(answer.body))))
    if method == "HEAD":
        answer.body = b""
    return answer


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
