"""The other end for the shippers under test: a process that takes bytes from a Unix socket and does nothing with them.

Owns: one listening socket per sink and the ways of reading it. It must not know what the bytes are, except for the
few answers without which our own trader would not send. `trader` starts it; read `trader_peers` next.

    python tests/bench/trader_sink.py   and then commands on stdin, see `processes.serve_commands`
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
import time
from pathlib import Path

import msgpack

sys.path.insert(0, str(Path(__file__).parent))

from processes import serve_commands

READ_BYTES = 1 << 20
REST_SECONDS = 0.004
"""How long a coalescing sink leaves a connection alone after a read, as logrelay/ingest/read_coalescing does."""
ACK_SECONDS = 0.020
"""The least time between two acks to our trader, as in the relay."""


class Sink(threading.Thread):
    """Listens on `path`. `mode` is "read" (at once) or "coalesce" (at most once in REST_SECONDS).

    With `ours` it speaks just enough of wire protocol v1: a welcome, then cumulative acks.
    """

    def __init__(self, path: str, mode: str, *, ours: bool) -> None:
        super().__init__(daemon=True)
        self._rest = REST_SECONDS if mode == "coalesce" else 0.0
        self._ours = ours
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self.received = 0

    def run(self) -> None:
        """Serve for ever."""
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        unpackers: dict[socket.socket, msgpack.Unpacker] = {}
        unacked: dict[socket.socket, int] = {}
        acked_at = 0.0
        while True:
            for key, _ in selector.select(ACK_SECONDS if unacked else None):
                if key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    selector.register(connection, selectors.EVENT_READ)
                    unpackers[connection] = msgpack.Unpacker(max_buffer_size=1 << 26)
                    continue
                connection = key.fileobj  # type: ignore[assignment]
                try:
                    data = connection.recv(READ_BYTES)
                except OSError:
                    data = b""
                if not data:
                    selector.unregister(connection)
                    connection.close()
                    unacked.pop(connection, None)
                    continue
                self.received += len(data)
                if self._ours:
                    self._answer(connection, unpackers[connection], data, unacked)
            if unacked and time.monotonic() - acked_at >= ACK_SECONDS:
                acked_at = time.monotonic()
                for connection, seq in unacked.items():
                    connection.send(msgpack.packb([1, seq]))
                unacked.clear()
            if self._rest:
                time.sleep(self._rest)

    @staticmethod
    def _answer(
        connection: socket.socket, unpacker: msgpack.Unpacker, data: bytes, unacked: dict[socket.socket, int]
    ) -> None:
        unpacker.feed(data)
        for frame in unpacker:
            if frame[0] == 0:
                connection.send(msgpack.packb([0, {"protocol": 1, "acked": 0}]))
            elif frame[0] == 1:
                unacked[connection] = frame[1]


sinks: dict[str, Sink] = {}


def listen(path: str, mode: str, ours: bool = False) -> None:
    """Open a sink at `path`."""
    sinks[path] = Sink(path, mode, ours=ours)
    sinks[path].start()


def counts() -> dict[str, int]:
    """Return the bytes that each sink has taken."""
    return {path: sink.received for path, sink in sinks.items()}


if __name__ == "__main__":
    serve_commands({"listen": listen, "counts": counts})
