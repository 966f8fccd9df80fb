"""An answer to a plain HTTP request, before it is bytes.

Owns: `HttpResponse`, the one shape that whoever decides and whoever writes share. It must not know sockets, routes or
who asks. No I/O. Read `http/api` next: it makes most of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

from logrelay.access.tokens import Token
from logrelay.fanout.batch import Form

SAFE_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),  # an old link may still carry ?token=
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
"""On every answer, whoever made it. The last two only where the answer has none of its own: the web viewer's files are
kept by the browser and asked about again, and its page needs its own script and style."""


EVENTS = "/events"
"""The path of Server-Sent Events."""


@dataclass(frozen=True, slots=True)
class Follow:
    """An answer that goes on with new lines: how it is filled, and what is written while there are none."""

    target: str
    """The request target, with the subscription in its query; it has been found to be good."""
    form: Form
    after: str | None
    """An id to begin behind, from the header Last-Event-ID; None: as the target says."""
    heartbeat: bytes
    """Means nothing to the reader, and shows both sides that the connection lives."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer but for `Connection: close` and `Date`, which the connection adds.

    A body of bytes is sent with its length; where the headers hold a Content-Length that one is sent instead (an answer
    to HEAD has no body and names the length of what GET would give). A body that is a generator is sent chunk by chunk,
    each of a megabyte at most, and its end is the end of the connection: the connection awaits room in the socket
    between two chunks, and calls `aclose()` or cancels the task that awaits the next chunk when the client is gone.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | AsyncGenerator[bytes, None] = b""
    delay_s: float = 0.0
    """Seconds after which it is to be sent; 0: at once."""
    follow: Follow | None = field(default=None, compare=False)
    """Lines follow the head, without end: who begins them. The body is empty then."""
    token: Token | None = field(default=None, compare=False)
    """The token that it was granted to: once that is revoked, no more of the answer is sent. It is not part of it."""

    def with_safe_headers(self) -> HttpResponse:
        """Return the same answer with those of `SAFE_HEADERS` that it lacks."""
        present = {name.lower() for name, _ in self.headers}
        return self.with_headers(*(pair for pair in SAFE_HEADERS if pair[0].lower() not in present))

    def with_headers(self, *headers: tuple[str, str]) -> HttpResponse:
        """Return the same answer with more headers behind those it has."""
        return replace(self, headers=(*self.headers, *headers))
