"""A running relay, asked from a terminal: plain requests, and the live stream, which resumes by itself.

Owns: the connections to one relay, what is shown to be let in, and the position behind which the stream goes on. It
must not know what is done with lines, nor how the relay was found. Read `terminal/tls_socket` next.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from logrelay.config.settings import authority
from logrelay.errors import ConfigError, NoRelayError
from logrelay.terminal.answer import ACCESS_HINT, Answer, is_anothers, refusal
from logrelay.terminal.tls_socket import for_two_threads

BATCH = "logrelay.v1.batch"
"""The subprotocol by which many lines come in one message."""

TIMEOUT_S = 10.0
"""For a connection, and for each part of an answer that a search over a large journal makes: both take far less."""

CLOSE_TIMEOUT_S = 1.0
"""For the goodbye of a stream that is over: nobody waits for it in front of a terminal."""

LOOK_S = 1.0
"""How often it is looked whether anybody still reads what is printed, while no line comes."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between two attempts to connect again: a relay that restarts is back within a second or two."""

MAX_MESSAGE_BYTES = 64 << 20
"""What one message may have: a batch of an older relay is bounded by lines, not by bytes."""

GIVE_UP_CODES = (4400, 4401, 4403)
"""Close codes after which the same request would be refused again."""

UNTRUSTED_NAMES = (62, 64)
"""OpenSSL's codes for a certificate that is good, but for another name or address (X509_V_ERR_HOSTNAME_MISMATCH, and
the same for an IP address)."""

HEALTHZ_BYTES = 16 << 20
"""How much of /healthz is read: a relay with very many runs has far less, and what answers may be anything."""

NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")
"""What OpenSSL, in its versions, calls an answer that is none of TLS."""

DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a relay is, and what is shown to be let in."""

    host: str
    port: int
    secure: bool = False
    token: str | None = field(default=None, repr=False)
    certificate: str | None = None
    """PEM file of the one certificate to trust, whatever name it has; None: those of the system, for this host."""
    any_certificate: bool = False
    """Whoever answers is spoken to: only for a look at who that is, and never with a token."""
    path: str = "/"

    @property
    def url(self) -> str:
        """The WebSocket URL, without the token."""
        return f"ws{'s' if self.secure else ''}://{authority(self.host, self.port)}"

    def headers(self) -> dict[str, str]:
        """Return what every request carries."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def context(self) -> ssl.SSLContext | None:
        """Return how the relay's certificate is checked; None: plain text. Raises ConfigError."""
        if not self.secure:
            return None
        try:
            context = ssl.create_default_context(cafile=self.certificate)
        except OSError as error:
            raise ConfigError(f"the certificate {self.certificate} cannot be read: {error.strerror or error}") from None
        context.check_hostname = self.certificate is None and not self.any_certificate
        if self.certificate is not None:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is trusted itself, whoever has signed it
        if self.any_certificate:
            context.verify_mode = ssl.CERT_NONE
        return context

    def stream_context(self) -> ssl.SSLContext | None:
        """Return the same for a stream, which is read on a thread of its own."""
        context = self.context()
        return None if context is None else for_two_threads(context)


def is_url(text: str) -> bool:
    """Tell whether a text begins like the URL of a relay."""
    return text.partition("://")[0].lower() in DEFAULT_PORTS and "://" in text


def parse_address(url: str, token: str | None) -> tuple[Address, list[tuple[str, str]]]:
    """Return the relay that a URL names, and the other parameters in it. A token in the URL wins over `token`.

    Raises ConfigError. ws, wss, http and https are the same here: both protocols are spoken on one port.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise ConfigError(f"{url!r} is not a URL of a relay; allowed: ws://HOST:8765, or wss, http, https")
    given = [*parse_qsl(parts.query), *(pair for pair in parse_qsl(parts.fragment) if pair[0] == "token")]
    shown = [value for name, value in given if name == "token"]
    address = Address(
        host,
        DEFAULT_PORTS[parts.scheme] if port is None else port,
        secure=parts.scheme in ("wss", "https"),
        token=shown[-1] if shown else token,
    )
    return address, [pair for pair in given if pair[0] not in ("token", "device")]


class TlsDiffersError(NoRelayError):
    """Somebody answers, by TLS where it was asked without, or the other way round."""


class RelaySource:
    """Answers requests by asking a running relay."""

    follows = True

    def __init__(self, address: Address, *, timeout_s: float = TIMEOUT_S) -> None:
        """Name the relay. Nothing is opened. `timeout_s` is for a connection, and for each part of an answer."""
        self.address = address
        self.timeout_s = timeout_s

    @property
    def name(self) -> str:
        """What a person is told was asked."""
        return f"the relay at {self.address.url}"

    def get(self, target: str, progress: Callable[[float | None], None] = lambda _share: None) -> Answer:
        """Send a request such as `/logs?limit=5`. Raises NoRelayError where nobody answers.

        `progress` is told while the answer comes that nobody knows how far it is.
        """
        address = self.address
        connection = (
            http.client.HTTPSConnection(address.host, address.port, timeout=self.timeout_s, context=address.context())
            if address.secure
            else http.client.HTTPConnection(address.host, address.port, timeout=self.timeout_s)
        )
        try:
            connection.request("GET", target, headers=address.headers())
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # TLS answers at once, with an alert, and refuses no connection.
            silent = isinstance(error, ConnectionRefusedError | TimeoutError)
            if not address.secure and not silent and _speaks_tls(address, self.timeout_s):
                secure = replace(address, secure=True).url
                raise TlsDiffersError(
                    f"the relay at {address.url} does not answer: it speaks TLS, use {secure}"
                ) from error
            if address.secure and isinstance(error, ssl.SSLError) and error.reason in NOT_TLS:
                plain = replace(address, secure=False).url
                raise TlsDiffersError(
                    f"what answers at {address.url} does not speak TLS; use {plain} if it is your relay"
                ) from error
            raise NoRelayError(f"no relay answers at {address.url}: {_words(error)}") from error
        return Answer(response.status, dict(response.getheaders()), _body(connection, response, progress, self.name))

    def health(self) -> tuple[int, bytes]:
        """Return status and body of /healthz, whoever gives it. Raises NoRelayError where nobody answers."""
        answer = self.get("/healthz")
        return answer.status, answer.beginning(HEALTHZ_BYTES, self.timeout_s)

    def require_relay(self, status: int, body: bytes) -> None:
        """Raise NoRelayError where `health` is not that of a relay: another program has the port."""
        if is_anothers(status, body):
            raise NoRelayError(f"what answers at {self.address.url} is not a relay; name another --port or URL")


def _body(
    connection: http.client.HTTPConnection,
    response: http.client.HTTPResponse,
    progress: Callable[[float | None], None],
    name: str,
) -> Iterator[bytes]:
    try:
        while chunk := response.read1(1 << 16):
            yield chunk
            progress(None)
    except (OSError, http.client.HTTPException) as error:
        raise NoRelayError(f"{name} has ended the answer before its end: {_words(error)}") from error
    finally:
        connection.close()


def ask(address: Address, request: Mapping[str, object], access_hint: str = ACCESS_HINT) -> dict[str, Any]:
    """Send one request of a viewer, and return its answer; `access_hint` says how the command is given a token.

    Raises NoRelayError where nobody answers or nobody is let in, and ConfigError where it is refused.
    """
    try:
        with connect(
            f"{address.url}/?tail=0&level=critical&notices=no",
            ssl=address.stream_context(), additional_headers=address.headers(), max_size=MAX_MESSAGE_BYTES,
            open_timeout=TIMEOUT_S, close_timeout=CLOSE_TIMEOUT_S, proxy=None,
        ) as stream:  # fmt: skip
            stream.send(orjson.dumps(request).decode())
            while True:
                message = orjson.loads(stream.recv(TIMEOUT_S))
                if message["type"] == "error":
                    raise ConfigError(str(message["message"]))
                if message["type"] not in ("log", "connection", "note"):
                    return dict(message)
    except InvalidStatus as error:
        raise refusal(error.response.status_code, bytes(error.response.body), access_hint) from None
    except (ConnectionClosed, OSError, InvalidHandshake, TimeoutError) as error:
        raise NoRelayError(f"no relay answers at {address.url}: {_words(error)}") from error


class Follower:
    """The live stream of a relay behind a position, through every restart of it. Belongs to one thread."""

    def __init__(
        self,
        address: Address,
        query: str,
        after: str,
        *,
        on_state: Callable[[str], None],
        on_traders: Callable[[list[Mapping[str, object]]], None] = lambda _traders: None,
        is_over: Callable[[], bool] = lambda: False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Describe what is followed; nothing is opened.

        Args:
            address: the relay.
            query: the filter, as parameters of the URL.
            after: the id behind which the stream begins; empty: with the next line.
            on_state: told in words when the connection is lost, and when it is back.
            on_traders: told the bots that the relay knows of, at each connection.
            is_over: asked about once a second whether to end.
            pause: waits so many seconds between two attempts.
        """
        self._address, self._query = address, query
        self.position = after
        """The id of the last line that was given."""
        self._on_state, self._on_traders, self._is_over, self._pause = on_state, on_traders, is_over, pause

    def lines(self) -> Iterator[dict[str, object]]:
        """Give lines as they come, each once, until `is_over`. Raises NoRelayError and ConfigError when refused."""
        pause_s, lost = FIRST_PAUSE_S, False
        while not self._is_over():
            try:
                with self._connect() as stream:
                    if lost:
                        self._on_state(f"connected to {self._address.url} again")
                    pause_s, lost = FIRST_PAUSE_S, False
                    yield from self._read(stream)
                    return
            except ConnectionClosed as error:
                received = error.rcvd
                if received is not None and received.code in GIVE_UP_CODES:
                    raise NoRelayError(f"the relay has ended the stream ({received.code}): {received.reason}") from None
                why = received.reason if received is not None and received.reason else "the connection is lost"
            except InvalidStatus as error:
                response = error.response
                if response.status_code < 500:
                    raise refusal(response.status_code, bytes(response.body)) from None
                why = f"it answers with HTTP {response.status_code}"
            except (OSError, InvalidHandshake, TimeoutError) as error:
                why = _words(error)
            if not lost:
                self._on_state(f"{self._address.url}: {why}; trying again until it is back")
            lost = True
            self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _connect(self) -> ClientConnection:
        address = self._address
        begin = f"after={self.position}" if self.position else "tail=0"
        return connect(
            f"{address.url}/?{'&'.join(filter(None, (self._query, begin)))}",
            ssl=address.stream_context(),
            subprotocols=[Subprotocol(BATCH)],
            additional_headers=address.headers(),
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            proxy=None,
        )

    def _read(self, stream: ClientConnection) -> Iterator[dict[str, object]]:
        while True:
            try:
                message = orjson.loads(stream.recv(LOOK_S))
            except TimeoutError:
                if self._is_over():
                    return
                continue
            for one in message if isinstance(message, list) else [message]:
                match one.get("type"):
                    case "log":
                        self.position = str(one["id"])
                        yield one
                    case "connection":
                        self._on_traders(one.get("traders") or [])
                        if not self.position:
                            self.position = str(one["head"])
                    case "error":
                        raise ConfigError(str(one.get("message")))


def _speaks_tls(address: Address, timeout_s: float) -> bool:
    """Tell whether a handshake is answered there, with whatever certificate: nothing is said to it."""
    try:
        with socket.create_connection((address.host, address.port), timeout_s) as plain:
            ssl.create_default_context().wrap_socket(plain, server_hostname=address.host).close()
    except ssl.SSLCertVerificationError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        cure = (
            "ask for it by a name that the certificate has"
            if error.verify_code in UNTRUSTED_NAMES
            else "if it is your own, name it, or the one that signed it, as SSL_CERT_FILE=PATH (a PEM file)"
        )
        return f"its certificate is not trusted ({error.verify_message.rstrip('.')}): {cure}"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
