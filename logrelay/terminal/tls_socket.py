"""A TLS socket that one thread reads from while another one writes.

Owns: `TlsSocket`, and the lock by which only one thread at a time is in OpenSSL. It must not know WebSockets or what is
said. Read `terminal/answer` next.

The `websockets` library reads on a thread of its own. Two threads in one connection of OpenSSL disturb each other, and
Python before 3.13 does not keep them apart: one stream in some hundreds never began, because what the relay had said in
the moment of the request was lost.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_Result = TypeVar("_Result")


def for_two_threads(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have a context make sockets of this kind; for `recv` and `sendall`, not for files. Returns the context."""
    context.sslsocket_class = TlsSocket
    return context


class TlsSocket(ssl.SSLSocket):
    """Waits outside of OpenSSL, so that nobody waits for the lock longer than for bytes to be encrypted.

    Made by a context, which calls `do_handshake`: until then it is an ordinary one. Raises TimeoutError beyond the
    time given to `settimeout`.
    """

    _lock: threading.Lock | None = None
    """Exists from the end of the handshake on; the system's socket does not block then."""
    _limit_s: float | None = None
    """How long a call may wait."""
    _is_over = False

    def do_handshake(self, block: bool = False) -> None:
        """Agree on keys, before there is another thread."""
        super().do_handshake(block)
        self._limit_s = self.gettimeout()
        super().settimeout(0.0)
        self._lock = threading.Lock()

    def settimeout(self, value: float | None) -> None:
        """Set how long a call may wait; None: for ever."""
        if self._lock is None:
            super().settimeout(value)
        else:
            self._limit_s = value

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Return what has come, once something has; empty at the end."""
        return self._in_turn(lambda: b"" if self._is_over else super(TlsSocket, self).recv(buflen, flags))

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Send some of it, and return how much."""
        return self._in_turn(lambda: super(TlsSocket, self).send(data, flags))

    def shutdown(self, how: int) -> None:
        """End it. Who still reads gets the end: the class above would return what has come as it is, encrypted."""
        with self._lock or contextlib.nullcontext():
            self._is_over = True
            super().shutdown(how)

    def _in_turn(self, call: Callable[[], _Result]) -> _Result:
        lock, limit_s = self._lock, self._limit_s
        if lock is None:
            return call()
        end = None if limit_s is None else time.monotonic() + limit_s
        while True:
            try:
                with lock:
                    return call()
            except (ssl.SSLWantReadError, BlockingIOError):
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            poll = select.poll()
            poll.register(self.fileno(), wanted)
            left_ms = None if end is None else max(0.0, end - time.monotonic()) * 1e3
            if not poll.poll(left_ms):
                raise TimeoutError("timed out")
