"""Who may come in, decided on plain values.

Owns: `AccessPolicy`, which looks at the headers of one request and answers `Granted` or `Refused`. It must not know
sockets, HTTP parsing or paths: `viewers/service` passes what it has read. No I/O. What a token is and how one is found
is in `access/tokens`. Read `viewers/service` next.

Three attacks shape the rules. A web page of another site can open a WebSocket to this machine: its Origin is not our
Host. A hostile name can be made to resolve to this machine (DNS rebinding), and then Origin and Host agree: so without
a token Host must not be a name we do not know. And a neighbour on the network can simply connect: so beyond loopback
there is always a token. A proxy on this machine makes neighbours look like this machine: so a request that shows one
needs a token as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from logrelay.access.tokens import Token, TokenSet, make_token_set
from logrelay.errors import quoted
from logrelay.viewers.forwarded import client_address

BATCH = "logrelay.v1.batch"
"""The subprotocol whose messages are arrays of lines."""

BEARER = "bearer."
"""Prefix of the subprotocol that carries a token: the only header a browser's WebSocket lets a page set."""

DEFAULT_PORTS = {"http": 80, "https": 443}

SHOWN_CHARS = 80
"""How much of a peer's header a refusal repeats: it goes into a response and a log."""

VARY = (("Vary", "Origin"),)
"""Where origins are listed, an answer that was kept for one page is none for another."""

EXPOSED_HEADERS = "Logrelay-Head, Retry-After"

PREFLIGHT = (
    ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
    ("Access-Control-Allow-Headers", "Authorization, Last-Event-ID"),
    ("Access-Control-Allow-Private-Network", "true"),
    ("Access-Control-Max-Age", "600"),
)
"""What a browser is told that asks before it lets a listed page send a request, with a token for instance."""

_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s\[\]:/?#@]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://([^/?#@\s]+)", re.IGNORECASE)
_BEARER_HEADER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_BEARER_SCHEME = re.compile(r"bearer(?: .*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Granted:
    """The peer may come in."""

    subprotocol: str | None = None
    """What to answer in Sec-WebSocket-Protocol; None: leave the header out."""
    token: Token | None = field(default=None, compare=False)
    """The token that was shown, with its limits; None: the relay has none, and needs none."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer may not come in: an HTTP status, a code for the metrics, words for a person."""

    status: int
    code: str
    """bad_host, bad_origin, no_token, bad_token or bad_request."""
    message: str
    headers: tuple[tuple[str, str], ...] = ()


REFUSALS = ("bad_host", "bad_origin", "no_token", "bad_token", "bad_request")
"""Every `Refused.code`."""

CHALLENGE = (("WWW-Authenticate", "Bearer"),)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The rules for one relay. Without a token it is for this machine only, wherever it listens."""

    token: str | None = field(repr=False)
    """The token of the settings, which is good where `decide` is given no set of tokens."""
    host: str = "127.0.0.1"
    """The value of `--host`: a name given there is a name we know."""
    allowed_hosts: tuple[str, ...] = ()
    """More names that may stand in Host when there is no token."""
    allowed_origins: tuple[str, ...] = ()
    """More origins that may connect, such as `http://localhost:8081`."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose Forwarded and X-Forwarded-For are believed."""

    def client(self, peer: str | None, *, forwarded: Sequence[str], x_forwarded_for: Sequence[str]) -> str | None:
        """Return the address of who asks, which is not the peer's where that is a trusted proxy."""
        return client_address(peer, forwarded=forwarded, x_forwarded_for=x_forwarded_for, trusted=self.trusted_proxies)

    def decide(
        self,
        *,
        origin: Sequence[str],
        host_header: Sequence[str],
        authorization: Sequence[str],
        subprotocols: Sequence[str],
        query_token: Sequence[str],
        peer_is_loopback: bool,
        token_set: TokenSet | None = None,
        now_s: float = 0.0,
        host_optional: bool = False,
        forwarded_by: str | None = None,
        fetch_site: Sequence[str] = (),
    ) -> Granted | Refused:
        """Decide about one request, plain HTTP or WebSocket.

        `token_set` has the tokens that are good, `now_s` is the wall clock, in seconds since 1970.
        Each header is the list of its values, as often as it was sent; `subprotocols` are the names offered, split at
        the commas; `query_token` is every `token` of the URL. `host_optional`: the request is of HTTP/1.0, which knows
        no Host; no browser sends such, so DNS rebinding cannot look like that, and one with an Origin is refused.
        `forwarded_by`: a header by which a proxy
        shows itself; `fetch_site`: the values of Sec-Fetch-Site, by which a browser says whose page asks. Never raises:
        what is malformed is refused.
        """
        if host_optional and not origin and not any(host_header):
            host_header = ("localhost",)
        if max(len(origin), len(authorization), len(query_token)) > 1 or len(host_header) != 1:
            return Refused(400, "bad_request", "one Host and at most one Origin, Authorization and token are allowed")
        host = split_authority(host_header[0])
        shown_host = quoted(host_header[0], SHOWN_CHARS)
        if host is None:
            return Refused(400, "bad_host", f"Host {shown_host} is not of the form name or name:port")
        if origin and not self._same_origin(origin[0], host):
            return Refused(
                403,
                "bad_origin",
                f"Origin {quoted(origin[0], SHOWN_CHARS)} is not this relay's own page ({shown_host}); "
                "another one has to be listed in --allow-origins",
            )
        carried = [name for name in subprotocols if name.startswith(BEARER)]
        token_set = make_token_set(self.token) if token_set is None else token_set
        found: Token | Refused | None
        if token_set.needed:
            found = self._check_token(token_set, now_s, authorization, carried, query_token)
        else:
            foreign_page = "cross-site" in fetch_site and not (origin and self._is_listed(origin[0]))
            found = self._check_peer(host[0], peer_is_loopback, forwarded_by, foreign_page=foreign_page)
        if isinstance(found, Refused):
            return found
        return Granted(BATCH if BATCH in subprotocols else next(iter(carried), None), found)

    def _same_origin(self, origin: str, host: tuple[str, int | None]) -> bool:
        if self._is_listed(origin):
            return True  # of any scheme: an app's own page is capacitor://localhost
        match = _ORIGIN.fullmatch(origin)
        theirs = split_authority(match[2]) if match else None
        if match is None or theirs is None:
            return False  # "null", file:, an extension, or nonsense
        # A Host without a port means the default one of the scheme that was used, which only Origin names:
        # behind a TLS proxy that is 443.
        default = DEFAULT_PORTS[match[1].lower()]
        return (theirs[0], theirs[1] or default) == (host[0], host[1] or default)

    def sharing_headers(self, origin: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return the headers (Fetch standard, CORS) by which a browser lets a page of `origin` read an answer.

        `origin` has the values of the Origin header. A page that is not listed gets none of them.
        """
        if not self.allowed_origins:
            return ()
        if len(origin) != 1 or not self._is_listed(origin[0]):
            return VARY
        return (*VARY, ("Access-Control-Allow-Origin", origin[0]), ("Access-Control-Expose-Headers", EXPOSED_HEADERS))

    def _is_listed(self, origin: str) -> bool:
        return origin.lower() in [allowed.lower() for allowed in self.allowed_origins]

    def _check_peer(
        self, name: str, peer_is_loopback: bool, forwarded_by: str | None, *, foreign_page: bool
    ) -> Refused | None:
        if not peer_is_loopback:
            return Refused(403, "no_token", "this relay has no token, so only its own machine may connect")
        if forwarded_by is not None:
            return Refused(
                403,
                "no_token",
                f"this came through a proxy ({quoted(forwarded_by, SHOWN_CHARS)} says so), which lets in whoever "
                "reaches it: a relay behind a proxy needs a token, set LOGRELAY_TOKEN",
            )
        if foreign_page:
            return Refused(
                403,
                "bad_origin",
                "a page of another site asks for this (Sec-Fetch-Site: cross-site); type the address yourself, "
                "list the site in --allow-origins, or set a token",
            )
        known = {"localhost", self.host.lower(), *(allowed.lower() for allowed in self.allowed_hosts)}
        if name in known or name.endswith(".localhost") or _is_address(name):
            return None
        return Refused(
            403,
            "bad_host",
            f"Host {quoted(name, SHOWN_CHARS)} is a name this relay does not know, which is how DNS rebinding looks; "
            "use an IP address or localhost, list the name in --allow-hosts, or set a token",
        )

    @staticmethod
    def _check_token(
        token_set: TokenSet,
        now_s: float,
        authorization: Sequence[str],
        carried: Sequence[str],
        query_token: Sequence[str],
    ) -> Token | Refused:
        shown = [name[len(BEARER) :] for name in carried] + list(query_token)
        unread = ""
        for value in authorization:
            match = _BEARER_HEADER.fullmatch(value)
            if match is not None:
                shown.append(match[1])
            elif _BEARER_SCHEME.fullmatch(value) is not None:
                unread = "bad_token"
            elif not shown:
                unread = "no_token"  # beside a token, another scheme is between the client and a proxy
        if unread:
            return Refused(401, unread, "Authorization is not of the form: Bearer <token>", CHALLENGE)
        # What is missing is looked up as well: it takes the way, and the time, of what is wrong. Two texts are enough
        # to know that they are not one good token, and a header has room for two thousand.
        found = [token_set.find(text, now_s) for text in list(dict.fromkeys(shown or ("",)))[:2]]
        if not shown:
            return Refused(
                401,
                "no_token",
                "a token is needed: as the header Authorization: Bearer <token>, as the WebSocket "
                "subprotocol bearer.<token>, or as ?token=<token>",
                CHALLENGE,
            )
        # Everything shown has to be right: a wrong token beside the right one is a mistake worth hearing of.
        first = found[0]
        if first is None or None in found:
            # Who has a token whose time is over may know that: its owner then makes a new one instead of looking for a
            # typing mistake.
            over = len(shown) == 1 and token_set.has_expired(shown[0], now_s)
            words = "the token has expired" if over else "the token is wrong, was revoked or has expired"
            return Refused(401, "bad_token", words, CHALLENGE)
        if any(token != first for token in found):
            return Refused(400, "bad_request", "several different tokens were shown; show one of them")
        return first


def split_authority(text: str) -> tuple[str, int | None] | None:
    """Split `name`, `name:port` or `[v6]:port` into lower-case name and port, or return None."""
    match = _AUTHORITY.fullmatch(text)
    if match is None or (match[2] is not None and not 0 < int(match[2]) < 65536):
        return None
    return match[1].lower(), None if match[2] is None else int(match[2])


def _is_address(name: str) -> bool:
    try:
        ip_address(name[1:-1] if name.startswith("[") else name)
    except ValueError:
        return False
    return True
