"""A small relay on `websockets.broadcast`: the same job as logrelay's hot path, as the manual shows it.

Reads wire protocol v1 from a Unix socket, decodes it, encodes each line as JSON once, calls broadcast() once per line.
It has no journal, no acks, no replay and no filters. usage: websockets_peer.py SOCKET PORT deflate|plain
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import Any

import msgpack
import orjson
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "critical": "ERROR"}
NOT_CONTEXT = ("event", "logger", "level", "timestamp")
EPOCH = os.urandom(3).hex()

viewers: set[ServerConnection] = set()


async def view(connection: ServerConnection) -> None:
    viewers.add(connection)
    try:
        await connection.wait_closed()
    finally:
        viewers.discard(connection)


class Ingest(asyncio.Protocol):
    """One trader; every frame becomes a broadcast."""

    seq = 0

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker()

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for frame in self._unpacker:
            if frame[0] == 1:
                broadcast(viewers, self._render(*frame[1:]))

    @classmethod
    def _render(cls, _seq: int, time_ns: int, level: str, event: dict[str, Any]) -> str:
        cls.seq += 1
        stamp = datetime.fromtimestamp(time_ns / 1e9, UTC)
        line = {
            "type": "log",
            "id": f"{EPOCH}-{cls.seq}",
            "level": LEVELS[level],
            "source": event["logger"],
            "message": event["event"],
            "context": {key: value for key, value in event.items() if key not in NOT_CONTEXT},
            "timestamp": stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return orjson.dumps(line).decode()


async def main(path: str, port: int, compression: str | None) -> None:
    ingest = await asyncio.get_running_loop().create_unix_server(Ingest, path)
    async with ingest, serve(view, "127.0.0.1", port, compression=compression):  # type: ignore[arg-type]
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), "deflate" if sys.argv[3] == "deflate" else None))
