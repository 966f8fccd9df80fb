"""The bytes between nats-py and one server, and what the server has said in them.

Owns: a connection as nats-py wants it (`nats.aio.transport.Transport`), and the error that the server has sent over it.
It must not know users, streams or lines. Read `stream_batch` next.

A server that refuses somebody sends `-ERR '<why>'` and ends the connection at once, often before it has read all that
was sent to it; then its end is a reset. A client that is about to write at that moment gets the reset instead of the
reason, although the reason is there already: in a buffer of the process, or in that of the socket. So what arrives is
kept here when it arrives, and looked at when connecting has failed. And what a client says of itself goes out in one
piece, when it begins to wait for the answer: a second piece is what a server most often has not read at its end. With
TLS that is all that can be done, as the reason is unreadable then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Iterable
from typing import Protocol, SupportsIndex

KEPT_BYTES = 4096
"""Of what the server has sent last: an error has one line of at most some hundred bytes."""

MADE = b"PONG"
"""Begins the line that ends the handshake."""

_ERROR = re.compile(rb"-ERR\s+'?([^\r\n]*?)'?\s*(?:\r|\n|$)")


class _Uri(Protocol):
    """What is used of a parsed URL."""

    @property
    def hostname(self) -> str: ...

    @property
    def port(self) -> int: ...


class _Reader(asyncio.StreamReader):
    """Keeps the end of what it was fed, whether it was read or not."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.last = b""

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Be given bytes, by the event loop."""
        self.keep(bytes(data))
        super().feed_data(data)

    def keep(self, data: bytes) -> None:
        """Keep bytes that nobody will read."""
        self.last = (self.last + data)[-KEPT_BYTES:]


class HearingTransport:
    """One connection for one client of nats-py. What the server has said is told even when the connection was reset."""

    def __init__(self) -> None:
        self._reader: _Reader | None = None
        self._plain: _Reader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._below: asyncio.StreamWriter | None = None
        self._connecting, self._unsent = True, b""

    @property
    def said(self) -> str:
        """The server's error; empty: it has sent none. Only while connecting: later its lines have other people's."""
        for reader in (self._reader, self._plain):
            found = None if reader is None else _ERROR.search(reader.last)
            if found is not None:
                return found[1].decode("utf-8", "replace")
        return ""

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS was agreed."""
        return self._reader is not self._plain

    # --- what nats-py calls -----------------------------------------------------------------------------------

    async def connect(self, uri: _Uri, buffer_size: int, connect_timeout: float) -> None:
        """Connect to a host and a port. Raises OSError, TimeoutError."""
        self._reader = self._plain = reader = _Reader(buffer_size)
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(reader)
        async with asyncio.timeout(connect_timeout):
            sock = await self._connect(loop, uri)
            transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _connect(self, loop: asyncio.AbstractEventLoop, uri: _Uri) -> socket.socket:
        """Return a socket that is connected to the first address of the host that answers."""
        failed: OSError = ConnectionError(f"{uri.hostname} has no address")
        for family, kind, number, _, address in await loop.getaddrinfo(uri.hostname, uri.port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, number)
            try:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
            except ConnectionRefusedError as error:
                failed = ConnectionRefusedError(error.errno, f"Connect call failed {address}")
            except OSError as error:  # also of one that was connected, and is reset already
                self._hear_rest(sock.fileno())
                failed = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
            sock.close()
        raise failed

    async def connect_tls(
        self, uri: _Uri | str, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: float
    ) -> None:
        """Go on encrypted; a text is the host's name. Raises OSError, TimeoutError."""
        # A writer that nobody refers to any more closes its connection, on which TLS is going to be.
        self._below = writer = self._connected()
        self._writer = None
        reader = _Reader(buffer_size)
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(reader)
        name = uri if isinstance(uri, str) else uri.hostname
        try:
            async with asyncio.timeout(connect_timeout):
                transport = await loop.start_tls(writer.transport, protocol, ssl_context, server_hostname=name)
        except BaseException:
            writer.transport.abort()
            raise
        if transport is None:  # it has ended meanwhile
            raise ConnectionResetError("the connection has ended during the TLS handshake")
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def write(self, payload: bytes) -> None:
        """Have bytes sent; what is wrong with the connection is raised by `drain`, or when an answer is read."""
        self._unsent += payload
        if not self._connecting:
            self._send()

    def writelines(self, payload: Iterable[bytes]) -> None:
        """Have bytes sent."""
        self.write(b"".join(payload))

    async def drain(self) -> None:
        """Wait until there is room for more. Raises OSError."""
        if not self._connecting:
            await self._connected().drain()

    async def read(self, buffer_size: int) -> bytes:
        """Return what has come, at most `buffer_size` bytes; none: the server has ended the connection."""
        self._connecting = False
        return b"" if self._reader is None else await self._reader.read(buffer_size)

    async def readline(self) -> bytes:
        """Return a line of the handshake. Raises ConnectionResetError when there is none."""
        self._send()
        line = b"" if self._reader is None else await self._reader.readline()
        if not line:
            raise ConnectionResetError("the server has ended the connection before it was made")
        self._connecting = not line.startswith(MADE)
        return line

    def close(self) -> None:
        """End the connection, whatever its state."""
        if self._writer is not None:
            self._writer.close()

    async def wait_closed(self) -> None:
        """Wait until it has ended."""
        if self._writer is not None:
            await self._writer.wait_closed()

    def at_eof(self) -> bool:
        """Tell whether all was read that will ever come."""
        return self._reader is None or self._reader.at_eof()

    def __bool__(self) -> bool:
        """Always: this is the transport to use."""
        return True

    # ----------------------------------------------------------------------------------------------------------

    def _connected(self) -> asyncio.StreamWriter:
        if self._writer is None:
            raise ConnectionError("there is no connection")
        return self._writer

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, b""
        if unsent:
            writer = self._connected()
            writer.write(unsent)
            sock = writer.get_extra_info("socket") if writer.is_closing() else None
            if sock is not None:
                self._hear_rest(sock.fileno())

    def _hear_rest(self, number: int) -> None:
        """Take what a socket still has before it is closed, as writing has failed; after TLS it would say nothing."""
        if self._plain is not None and not self.is_encrypted:
            with contextlib.suppress(OSError):
                self._plain.keep(os.read(number, KEPT_BYTES))
