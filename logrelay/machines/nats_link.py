"""A connection to NATS as the settings say, and the stream that edges and hub relays share.

Owns: how the settings become options of nats-py, what is done about a missing stream, and what is said of errors, which
never have a secret in them. It must not know lines, journals or what is sent. nats-py is imported when there is
something to connect to, and only here. Read `nats_transport` next: the bytes below it.

One attempt is one server: whoever connects goes through the list and waits between two attempts, so that the client's
own reconnecting, which keeps what it was given for later, is not needed: what nobody has acknowledged is in a journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from logrelay.config.nats_url import NatsUrl, parse
from logrelay.config.settings import Config
from logrelay.errors import ConfigError
from logrelay.extras import install_command
from logrelay.machines.nats_transport import HearingTransport
from logrelay.machines.stream_batch import LINES_SUBJECT, edge_name_of

CONNECT_TIMEOUT_S = 5.0
"""For one attempt: a server that is reachable answers within a few round trips."""
REQUEST_TIMEOUT_S = 5.0
"""For an answer of JetStream: a cluster that has lost a server elects another leader meanwhile."""
MOST_ENDS = 3
"""Attempts at one server whose connections end without a word before they are made. Its reason may have been lost on
the way, which does not happen again and again; a server that is not up behind a proxy ends them all."""
PING_EVERY_S, MOST_PINGS = 10, 2
"""A connection that has died without a word is noticed after so many seconds times so many."""

HUB_INBOX = "logrelay-hub"
"""Answers of NATS servers to a relay that collects come below `_INBOX.` and this."""

STREAM_MAX_AGE_S = 7 * 86_400.0
STREAM_MAX_BYTES = 1 << 30
"""What a stream keeps that is made because there was none: as much as a journal keeps by itself. A server refuses a
stream for which it has no room."""
DUPLICATE_WINDOW_S = 120.0
"""Within which a server knows a message by its id; beyond it the expected sequence tells."""

TRANSPORT = "_transport"
"""Where a client of nats-py has its connection."""

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "?([^\s"\']+)', re.IGNORECASE)
"""How a server says so; nats-py has it in lower case."""
_REFUSALS = tuple(
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in (
        ("authorization violation", "it does not know us: user, password, token, nkey or credentials are wrong"),
        (r"authentication (expired|revoked)", "our user has expired or was revoked; ask for new credentials"),
        (
            r"maximum (account active )?connections exceeded",
            "it has as many connections as it allows; raise max_connections there, or end others",
        ),
        (
            r"tls required|no ssl context",
            "it wants TLS; write tls:// in place of nats://, and name the CA with --nats-tls-ca if it is a private one",
        ),
        (
            r"alert (certificate required|bad certificate|handshake failure|unknown ca)|certificate_required",
            "it does not take our TLS certificate, or was shown none; see --nats-tls-cert and --nats-tls-key",
        ),
        (r"account.*(suspended|registration)", "it has no use of our account; ask who runs the server"),
    )
)
"""What servers say when they refuse a connection, and what it means to who has set us up."""
_NOISE = "returning true from eof_received()"
"""Begins a warning of asyncio about every TLS connection that a server ends: nobody can do anything about it."""

STREAM_NOT_FOUND = 10059
"""JetStream's error code."""


class NatsError(Exception):
    """A server cannot be used now. The text says why, and has no secret in it."""


class NatsRefusedError(NatsError):
    """A server will not let us do something until somebody changes a setting, there or here."""


class NoStreamError(NatsRefusedError):
    """There is no stream of the name, and it was not to be made."""


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where the servers are, who we are there, and which stream is meant."""

    servers: tuple[NatsUrl, ...]
    stream: str
    replicas: int = 1
    creds: str | None = None
    nkey: str | None = None
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    @property
    def wants_tls(self) -> bool:
        """Whether nothing may be sent in plain text."""
        files = (self.tls_ca, self.tls_cert)
        return any(server.scheme == "tls" for server in self.servers) or any(file is not None for file in files)


def nats_settings(config: Config, urls: tuple[str, ...]) -> NatsSettings:
    """Return the settings for these servers. Raises ConfigError for files that cannot be read."""
    for name in ("nats_creds", "nats_nkey", "nats_tls_ca", "nats_tls_cert", "nats_tls_key"):
        path = getattr(config, name)
        if path is not None:
            try:
                Path(path).read_bytes()
            except OSError as error:
                text = f"{name} is {path}, which cannot be read: {error.strerror or error}"
                raise ConfigError(text) from None
    servers = tuple(parse(url) for url in urls)
    named = next((server for server in servers if server.user is not None or server.token is not None), None)
    return NatsSettings(
        servers,
        config.nats_stream,
        config.nats_replicas,
        creds=config.nats_creds,
        nkey=config.nats_nkey,
        user=config.nats_user or (named.user if named else None),
        password=config.nats_password or (named.password if named else None),
        token=config.nats_token or (named.token if named else None),
        tls_ca=config.nats_tls_ca,
        tls_cert=config.nats_tls_cert,
        tls_key=config.nats_tls_key,
    )


def forwarding(config: Config, host: str) -> tuple[NatsSettings, str]:
    """Return the settings and our name for forwarding lines; `host` names this machine. Raises ConfigError."""
    return nats_settings(config, config.forward), config.edge_name or edge_name_of(host)


def load_client() -> Any:
    """Return the package nats. Raises ConfigError, with the command that helps."""
    try:
        return import_module("nats")
    except ImportError:
        raise ConfigError(
            f"--forward and --collect need the package nats-py, which is not installed: {install_command('nats')}"
        ) from None


def tls_context(settings: NatsSettings) -> ssl.SSLContext | None:
    """Return what certificates are held to; None: no TLS is asked for. Raises ConfigError."""
    if not settings.wants_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificates for NATS cannot be used: {error}") from None
    return context


async def connect(
    settings: NatsSettings,
    server: NatsUrl,
    *,
    name: str,
    inbox: str,
    on_closed: Callable[[], Awaitable[None]] | None = None,
) -> Any:
    """Connect to one server and return the client. Raises NatsError, and ConfigError for files that cannot be used.

    `name` is how the server's own tools show us. Answers come to subjects below `_INBOX.<inbox>`, so that a server can
    be told to let nobody else read them. `on_closed` is called when a connection that was made has ended, whyever.
    Nothing is reconnected. Cancelling ends what there is of the connection.
    """
    nats = load_client()
    logging.getLogger("asyncio").addFilter(_is_no_noise)  # the same function is added once
    for _ in range(MOST_ENDS):
        try:
            return await _attempt(nats.NATS(), settings, server, name, inbox, on_closed)
        except _EndedError as error:
            ended = error
    raise ended


async def _attempt(
    client: Any,
    settings: NatsSettings,
    server: NatsUrl,
    name: str,
    inbox: str,
    on_closed: Callable[[], Awaitable[None]] | None,
) -> Any:
    transport, said, end = HearingTransport(), _LastError(), _End(on_closed)
    # nats-py takes the transport that it has, and has no argument for it.
    vars(client)[TRANSPORT] = transport
    secret_is_safe = _SecretGuard(client, settings)
    options: dict[str, Any] = {
        "servers": [server.public],
        "name": name,
        "allow_reconnect": False,
        # The client tries once more at once, and then gives up; 0 would be for ever.
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "ping_interval": PING_EVERY_S,
        "max_outstanding_pings": MOST_PINGS,
        "inbox_prefix": f"_INBOX.{inbox}",
        "error_cb": said.take,
        "closed_cb": end.take,
    }
    context = tls_context(settings)
    if context is not None:
        options["tls"] = context
        options["tls_hostname"] = server.address.rpartition(":")[0].strip("[]")
    if settings.creds is not None:
        options["user_credentials"] = settings.creds
    elif settings.nkey is not None:
        options["nkeys_seed"] = settings.nkey
    elif settings.token is not None:
        options["token"] = lambda: secret_is_safe(settings.token)
    elif settings.user is not None:
        options["user"] = settings.user
        options["password"] = lambda: secret_is_safe(settings.password or "")
    try:
        await asyncio.wait_for(client.connect(**options), CONNECT_TIMEOUT_S * 2)
        secret_is_safe("")
    except (ConfigError, NatsError):
        await close(client)
        raise
    except Exception as error:
        await close(client)
        if transport.said:  # whatever came of it, this is why
            raise as_nats_error(_SaidError(transport.said), server) from None
        cause = said.error or error
        if isinstance(cause, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
            raise _EndedError(
                f"{server.public}: the connection has ended before it was made, and nobody said why; look at the log "
                "of the server, or of what is in front of it"
            ) from None
        raise as_nats_error(cause, server) from None
    except BaseException:
        transport.close()
        raise
    await end.begin()
    return client


class _SaidError(Exception):
    """What a server has said before it ended the connection."""


class _EndedError(NatsError):
    """A connection has ended before it was made, and nobody has said why."""


class _End:
    """Passes on that a connection has ended, if it was made before."""

    def __init__(self, tell: Callable[[], Awaitable[None]] | None) -> None:
        self._tell, self._made, self._ended = tell, False, False

    async def take(self) -> None:
        """Be told that it has ended, by the client."""
        self._ended = True
        if self._made and self._tell is not None:
            await self._tell()

    async def begin(self) -> None:
        """Be told that it was made; it may have ended at once."""
        self._made = True
        if self._ended and self._tell is not None:
            await self._tell()


class _SecretGuard:
    """Gives a secret away only when the connection is encrypted, where that was asked for.

    nats-py upgrades a connection when the server says that it wants TLS; whoever is in between might leave that out.
    """

    def __init__(self, client: Any, settings: NatsSettings) -> None:
        self._client, self._settings = client, settings

    def __call__(self, secret: str) -> str:
        info = vars(self._client).get("_server_info", {})
        if self._settings.wants_tls and not info.get("tls_required"):
            raise NatsRefusedError("the server does not want TLS, which tls:// or a --nats-tls-... file asks for")
        return secret


def _is_no_noise(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NOISE)


class _LastError:
    """Keeps what a client has said last that went wrong; what it raises in the end is often that nothing worked."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def take(self, error: Exception) -> None:
        """Be told, by the client."""
        self.error = error


async def close(client: Any, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
    """Close a connection, whatever its state."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), timeout_s)


def as_nats_error(error: BaseException, server: NatsUrl, client: Any = None) -> NatsError:
    """Return what an error of nats-py, or of the network, means.

    A server says apart from the answer, which then never comes, that a user may not do something: the last that it has
    said is asked of `client`.
    """
    if isinstance(error, NatsError):
        return error
    denied = str(getattr(client, "last_error", None) or "")
    may_not = _DENIED.search(denied)
    if may_not is not None and type(error).__name__ == "TimeoutError":
        verb = "publish" if may_not[1].lower() == "publish" else "subscribe"
        return NatsRefusedError(
            f"{server.public}: the user may not {verb} to {may_not[2]}; docs/machines.md has the permissions"
        )
    if type(error).__name__ == "ConnectionClosedError" and isinstance(getattr(client, "last_error", None), Exception):
        error = client.last_error  # why it was closed
    where, text = server.public, str(error).strip() or type(error).__name__
    if isinstance(error, ConnectionRefusedError):  # asyncio's words have the number and the address once more
        text = "connection refused: no NATS server listens there"
    if isinstance(error, ssl.SSLCertVerificationError):
        return NatsRefusedError(
            f"{where}: its certificate is not trusted: {error.verify_message or error}; --nats-tls-ca names a CA of "
            "your own"
        )
    if type(error).__name__ == "AuthorizationError":
        text = "authorization violation"
    for pattern, meaning in _REFUSALS:
        if pattern.search(text):
            return NatsRefusedError(f"{where}: {meaning}")
    if isinstance(error, ssl.SSLError):
        return NatsRefusedError(f"{where}: there is no TLS with it: {error.reason or error}")
    if isinstance(error, TimeoutError) or type(error).__name__ in ("TimeoutError", "NoServersError"):
        return NatsError(f"{where}: no answer in time")
    if "Permissions Violation" in text:
        return NatsRefusedError(f"{where}: {text}")
    return NatsError(f"{where}: {text}")


def denied(client: Any, subject: str) -> str | None:
    """Return what the user may not do with a subject, if that is the last that the server has complained of.

    A server says so apart from everything else, and nobody waits for it where no answer is expected.
    """
    may_not = _DENIED.search(str(client.last_error or ""))
    if may_not is None or may_not[2].lower() != subject.lower():
        return None
    verb = "publish" if may_not[1].lower() == "publish" else "subscribe"
    return f"the user may not {verb} to {subject}"


async def ensure_stream(
    client: Any, settings: NatsSettings, server: NatsUrl, *, create: bool = True, read_only: bool = False
) -> Any:
    """Return what the server says of the stream; one that is missing is made, if `create`. Raises NatsError.

    A stream that is there is used as it is, if it takes the lines of edges. Who only reads may have one that gets them
    from other streams (a mirror, or sources), as the central one of several sites does.
    """
    js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
    subject = f"{LINES_SUBJECT}*"
    try:
        try:
            info = await js.stream_info(settings.stream)
        except Exception as error:
            if getattr(error, "err_code", None) != STREAM_NOT_FOUND or not create:
                raise
            info = await js.add_stream(
                name=settings.stream,
                subjects=[subject],
                storage="file",
                retention="limits",
                discard="old",
                num_replicas=settings.replicas,
                max_age=STREAM_MAX_AGE_S,
                max_bytes=STREAM_MAX_BYTES,
                duplicate_window=DUPLICATE_WINDOW_S,
                allow_direct=True,
            )
    except Exception as error:
        if getattr(error, "err_code", None) is not None:
            kind = NoStreamError if getattr(error, "err_code", None) == STREAM_NOT_FOUND else NatsRefusedError
            raise kind(f"{server.public}: stream {settings.stream}: {_described(error)}") from None
        refused = as_nats_error(error, server, client)
        if isinstance(refused, NatsRefusedError):
            raise refused from None
        if type(error).__name__ == "TimeoutError" or isinstance(error, TimeoutError):
            raise NatsError(
                f"{server.public}: no answer about stream {settings.stream}: JetStream has no leader now"
            ) from None
        if type(error).__name__ in ("ServiceUnavailableError", "NoRespondersError"):
            raise NatsRefusedError(
                f"{server.public}: JetStream is not enabled there (jetstream in its config)"
            ) from None
        raise refused from None
    if read_only and (info.config.mirror is not None or info.config.sources):
        return info
    if not any(takes(pattern, LINES_SUBJECT + "x") for pattern in info.config.subjects or ()):
        raise NatsRefusedError(
            f"{server.public}: stream {settings.stream} takes {', '.join(info.config.subjects or ())}, not {subject}"
        )
    return info


def takes(pattern: str, subject: str) -> bool:
    """Tell whether a subject with wildcards takes a subject."""
    wanted, given = pattern.split("."), subject.split(".")
    for place, part in enumerate(wanted):
        if part == ">":
            return len(given) > place
        if place >= len(given) or part not in ("*", given[place]):
            return False
    return len(wanted) == len(given)


def _described(error: Any) -> str:
    return str(getattr(error, "description", None) or error)
