"""Traders: what puts the benchmark's lines into a server, at a pace or as fast as the server takes them.

Owns: one class per way in (wire protocol v1, lines of JSON, NATS PUB, Nchan's WebSocket publisher, and robo_trader's
own processor). It must not know who views. `fanout` starts `python feeders.py`; read `viewers` next.

Paced lines are made and sent one at a time, each with the clock taken just before, as a trader's log calls would be.
Lines sent as fast as possible are packed beforehand and written in large pieces with a plain blocking send, so that the
server under test is the slow part. The wire protocol is closed by its acks: it is done when the last line is acked.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import structlog

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout, for robo_trader

from lines import MESSAGE, SOURCE, fields, json_line, masked, wire_frame
from processes import serve_commands
from streams import RECEIVE_BYTES, Connection

PIECE_BYTES = 64 * 1024
"""One write at full speed: about 400 lines, a third of a Unix socket's default buffer."""
ACK_SECONDS = 60.0
"""The longest wait for an ack: more than any run's lines take."""


class Feeder:
    """One trader. `address` is where the server takes lines."""

    rejected = 0
    """Lines the server said it will never take."""

    def encode(self, cell: int, n: int, ns: int) -> bytes:
        """Return the next line as the server takes it."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Hand bytes to the kernel, waiting for room."""
        raise NotImplementedError

    def log(self, cell: int, n: int, ns: int) -> None:
        """Log one line: what latency is counted from the beginning of."""
        self.send(self.encode(cell, n, ns))

    def finish(self) -> None:
        """Return when everything logged has its answer, where there are answers. Raises OSError."""

    def close(self) -> None:
        """End the connection, with a bye where the protocol has one."""


class WireTrader(Feeder):
    """Speaks wire protocol v1 and waits for acks."""

    handshake = True

    def __init__(self, address: str, index: int) -> None:
        self._seq = 0
        self._unpacker = msgpack.Unpacker()
        self._acked = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ACK_SECONDS)
        self._socket.connect(address)
        hello = {
            "protocol": 1,
            "run": os.urandom(16),
            "app": f"bench{index}",
            "host": "localhost",
            "pid": os.getpid(),
            "started_ns": time.time_ns(),
        }
        self._socket.sendall(msgpack.packb([0, hello]))
        if self.handshake:
            kind, *rest = self._next_frame()
            if kind != 0:
                raise ConnectionError(f"no welcome: {[kind, *rest]}")

    def encode(self, cell: int, n: int, ns: int) -> bytes:
        self._seq += 1
        return wire_frame(self._seq, time.time_ns(), cell, n, ns)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def finish(self) -> None:
        """Return when everything sent is acked."""
        while self._acked < self._seq:
            frame = self._next_frame()
            if frame[0] == 1:
                self._acked = frame[1]
            elif frame[0] == 2:
                self.rejected += 1
            elif frame[0] == 3:
                raise ConnectionError(f"refused: {frame[1]}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self.handshake:
                self._socket.sendall(msgpack.packb([3, self._seq]))
        self._socket.close()

    def _next_frame(self) -> list[Any]:
        while True:
            for frame in self._unpacker:
                return frame  # type: ignore[no-any-return]
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the relay closed the connection")
            self._unpacker.feed(data)


class UnackedTrader(WireTrader):
    """The same frames for a server that answers nothing: done when the last byte is in the kernel."""

    handshake = False

    def finish(self) -> None:
        """Nothing says more than the sending itself."""


class JsonTrader(Feeder):
    """Ready JSON, one line each, over a Unix socket."""

    def __init__(self, address: str, index: int) -> None:
        self._seq = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ACK_SECONDS)
        self._socket.connect(address)

    def encode(self, cell: int, n: int, ns: int) -> bytes:
        self._seq += 1
        return json_line(self._seq, time.time_ns(), cell, n, ns) + b"\n"

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()


class NatsTrader(Feeder):
    """Ready JSON by PUB over TCP; done when the server has answered a PING sent behind the last line."""

    def __init__(self, address: str, index: int) -> None:
        self._seq = 0
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=ACK_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(b'CONNECT {"verbose":false}\r\n')
        self.finish()

    def encode(self, cell: int, n: int, ns: int) -> bytes:
        self._seq += 1
        body = json_line(self._seq, time.time_ns(), cell, n, ns)
        return b"PUB logs %d\r\n%s\r\n" % (len(body), body)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def finish(self) -> None:
        self._socket.sendall(b"PING\r\n")
        answer = b""
        while b"PONG\r\n" not in answer:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("nats-server closed the connection")
            if b"PING\r\n" in data:
                self._socket.sendall(b"PONG\r\n")
            answer += data

    def close(self) -> None:
        self._socket.close()


class NchanTrader(Feeder):
    """Ready JSON as WebSocket messages to Nchan's publisher location; closed by its replies."""

    def __init__(self, address: str, index: int) -> None:
        self._seq = 0
        self._answered = 0
        port, path = address.split(" ")
        publisher = Connection(int(port), path)
        self._socket = publisher.socket
        self._frames = publisher.frames
        self._socket.settimeout(ACK_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def encode(self, cell: int, n: int, ns: int) -> bytes:
        self._seq += 1
        return masked(1, json_line(self._seq, time.time_ns(), cell, n, ns))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)
        # a reply left unread would in the end stop nginx from reading
        while select.select([self._socket], [], [], 0)[0]:
            self._replies(self._socket.recv(RECEIVE_BYTES))

    def finish(self) -> None:
        """Return when every publication has its reply."""
        while self._answered < self._seq:
            self._replies(self._socket.recv(RECEIVE_BYTES))

    def close(self) -> None:
        self._socket.close()

    def _replies(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("nginx closed the publisher's connection")
        self._answered += len(self._frames.feed(data))


class RoboTrader(Feeder):
    """robo_trader's own processor behind a structlog logger: `log` is a log call and nothing else."""

    def __init__(self, address: str, index: int) -> None:
        from robo_trader.log_relay import LogRelayProcessor  # noqa: PLC0415  (not there in every checkout)

        self._processor = LogRelayProcessor(address, app=f"bench{index}", disabled=False)
        chain = [structlog.processors.add_log_level, self._processor, lambda *_: ""]
        self._log = structlog.wrap_logger(structlog.ReturnLogger(), processors=chain).bind(logger=SOURCE)
        self.log(0, 0, 0)  # connects; cell 0 is nobody's
        self.finish()

    def log(self, cell: int, n: int, ns: int) -> None:
        self._log.info(MESSAGE, **fields(cell, n, ns))

    def finish(self) -> None:
        if not self._processor.flush(ACK_SECONDS):
            raise ConnectionError(f"not everything was acked: {self._processor.stats()}")

    def close(self) -> None:
        self._processor.close()


KINDS: dict[str, Callable[[str, int], Feeder]] = {
    "wire": WireTrader,
    "unacked": UnackedTrader,
    "json": JsonTrader,
    "nats": NatsTrader,
    "nchan": NchanTrader,
    "robo": RoboTrader,
}


class Traders:
    """Commands of the traders' process."""

    def __init__(self) -> None:
        self._traders: list[Feeder] = []

    def open(self, kind: str, address: str, traders: int = 1) -> dict[str, Any]:
        """Connect."""
        self.close()
        self._traders = [KINDS[kind](address, index) for index in range(traders)]
        return {}

    def close(self) -> dict[str, Any]:
        """Say bye where the protocol has one, and close."""
        for trader in self._traders:
            trader.close()
        self._traders = []
        return {}

    def pace(self, cell: int, count: int, rate: float) -> dict[str, Any]:
        """Log `count` lines at `rate` a second, taking turns among the traders; return after the last ack."""
        traders = self._traders
        start = time.perf_counter()
        for n in range(count):
            if (ahead := start + n / rate - time.perf_counter()) > 0:
                time.sleep(ahead)
            traders[n % len(traders)].log(cell, n, time.perf_counter_ns())
        sent = time.perf_counter()
        for trader in traders:
            trader.finish()
        return self._report(start, sent)

    def blast(self, cell: int, count: int) -> dict[str, Any]:
        """Send `count` lines as fast as they are taken, each trader in a thread of its own."""
        share = len(self._traders)
        loads: list[list[bytes]] = []
        for index, trader in enumerate(self._traders):
            pieces, piece = list[bytes](), bytearray()
            for n in range(index, count, share):
                piece += trader.encode(cell, n, 0)
                if len(piece) >= PIECE_BYTES:
                    pieces.append(bytes(piece))
                    piece.clear()
            loads.append([*pieces, bytes(piece)])
        failures: list[Exception] = []

        def run(trader: Feeder, pieces: list[bytes]) -> None:
            try:
                for piece in pieces:
                    trader.send(piece)
                sent.append(time.perf_counter())
                trader.finish()
            except Exception as error:  # told to the benchmark below
                failures.append(error)

        sent: list[float] = []
        threads = [
            threading.Thread(target=run, args=pair, daemon=True) for pair in zip(self._traders, loads, strict=True)
        ]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return self._report(start, max(sent))

    def _report(self, start: float, sent: float) -> dict[str, Any]:
        return {
            "start_ns": int(start * 1e9),
            "sent_ns": int(sent * 1e9),
            "acked_ns": time.perf_counter_ns(),
            "rejected": sum(trader.rejected for trader in self._traders),
        }


def main() -> None:
    """Answer commands from stdin until it ends."""
    traders = Traders()
    serve_commands({"open": traders.open, "close": traders.close, "pace": traders.pace, "blast": traders.blast})


if __name__ == "__main__":
    main()
