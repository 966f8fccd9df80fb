"""The log line that every server under test carries, in each of the forms a server takes it in.

Owns: what a line of the benchmark looks like and how a viewer recognises it. No I/O. `feeders` sends lines,
`viewers` counts them. Read `feeders` next.

A viewer line is about 265 bytes of JSON. Its context has eight fields, two of which make it countable without parsing:
`cell` (the number of the measurement; the marker a viewer searches) and `n` (its place in it, from 0).
`ns` is CLOCK_MONOTONIC just before the log call, 0 where lines are packed beforehand and nobody asks for latency.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgpack
import orjson

SOURCE = "robo_trader.runner"
MESSAGE = "trade.executed"
STRATEGIES = 100
"""Line n belongs to strategy n % 100: what the `where` workload splits the viewers by."""
SYMBOLS = ("AAPL", "MSFT", "NVDA", "GOOG", "TSLA", "META", "INTC", "AMZN")
CENTS = 99_991
"""The range of the price in cents, a prime: no price comes twice in so many lines, or compression had an easy time."""


def marker(cell: int) -> bytes:
    """Return the bytes that occur exactly once in every line of the cell and in no other line."""
    return b'"cell":%d,' % cell


def strategy(n: int) -> str:
    return f"s{n % STRATEGIES:02d}"


def fields(cell: int, n: int, ns: int) -> dict[str, Any]:
    """Return the context of line `n`: eight fields, as a trader would give them to the log call."""
    return {
        "cell": cell,
        "n": n,
        "ns": ns,
        "symbol": SYMBOLS[n * n % 7],
        "side": "buy" if n % 3 else "sell",
        "quantity": 10 + n * 37 % 490,
        "price": 10 + n * 7919 % CENTS / 100,
        "strategy": strategy(n),
    }


def wire_frame(seq: int, time_ns: int, cell: int, n: int, ns: int) -> bytes:
    """Return the line as a log frame of wire protocol v1 (docs/protocol.md)."""
    event = {"event": MESSAGE, "logger": SOURCE, **fields(cell, n, ns)}
    return msgpack.packb([1, seq, time_ns, "info", event])  # type: ignore[no-any-return]


def json_line(seq: int, time_ns: int, cell: int, n: int, ns: int) -> bytes:
    """Return the line as a viewer of logrelay would get it, for the servers that only pass bytes on."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    line = {
        "type": "log",
        "id": f"bench0-{seq}",
        "level": "INFO",
        "source": SOURCE,
        "message": MESSAGE,
        "context": fields(cell, n, ns),
        "timestamp": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z",
    }
    return orjson.dumps(line)


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a client's WebSocket frame with the mask 0, which leaves the payload as it is (RFC 6455, 5.3)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload
