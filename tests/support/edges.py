"""Stretches of an edge's journal as a test wants them, published to a real server without an edge.

Owns: `lines_batch`, `edge_state_of` and `publish`. It must not know the hub relay. Read `nats` next.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from logrelay.fanout.line_json import log_line
from logrelay.machines.edge_state import EdgeState
from logrelay.machines.edge_state import encode as encode_state
from logrelay.machines.stream_batch import LINES_SUBJECT, Hole, Origin, StreamBatch, StreamLine, encode
from tests.support.nats import asked
from tests.support.waiting import DEADLINE_S

STREAM = "LOGRELAY"


def lines_batch(
    edge: str,
    epoch: str,
    first: int,
    last: int,
    *,
    journal: str = "j1",
    app: str = "bot",
    after: str = "",
    holes: Iterable[Hole] = (),
    at_us: int | None = None,
    rank: int = 20,
    source: str = "",
) -> StreamBatch:
    """Return a batch whose lines say `<epoch>-<seq>` as their message and their `n`."""
    now_us = time.time_ns() // 1000 if at_us is None else at_us
    without = {seq for hole in holes for seq in range(hole.first, hole.last + 1)}
    lines = []
    for seq in range(first, last + 1):
        if seq in without:
            continue
        logger = source or f"{app}.x"
        event = {"event": f"{epoch}-{seq}", "logger": logger, "feeder": f"{edge}/{app}", "n": seq}
        made = log_line(epoch, seq, 1, app, now_us + seq, rank, event, (edge + app).encode().ljust(16, b"-")[:16])[0]
        lines.append(StreamLine(seq, rank, made.time_us, Origin(app, made.run_name, "box", logger), made.body))
    return StreamBatch(edge, journal, epoch, first, last, after, lines, list(holes))


def edge_state_of(edge: str, *bots: dict[str, object], interval_s: float = 3.0) -> EdgeState:
    """Return what an edge says of itself and of its bots."""
    said = tuple(
        {"host": "box", "pid": 1, "run": "0" * 32, "state": "connected", "started": "2026-01-23T10:00:00.000000Z"}
        | {"last_line": None, "last_line_age_s": 1.0, "quiet_s": 1.0, "last_seq": 1}
        | bot
        for bot in bots
    )
    return EdgeState(edge, "0.1.0", 1, 2, interval_s, "j1", "e1-1", 1, 0, bots=said)


def publish(url: str, *messages: StreamBatch | EdgeState | tuple[str, bytes], make: bool = True) -> None:
    """Publish batches, states, or (subject, bytes) as they are; with `make` a missing stream is made."""

    async def send(client: Any) -> None:
        js = client.jetstream(timeout=DEADLINE_S)
        if make:
            await js.add_stream(name=STREAM, subjects=[f"{LINES_SUBJECT}*"])
        for message in messages:
            if isinstance(message, EdgeState):
                await client.publish(message.subject, encode_state(message))
            elif isinstance(message, StreamBatch):
                headers, body = encode(message, expected_last=None)
                await js.publish(message.subject, body, headers=headers)
            else:
                await js.publish(*message)
        await client.flush(timeout=DEADLINE_S)

    asked(url, send)


def change_stream(url: str, how: str, **options: Any) -> None:
    """Call a method of JetStream for the stream: `delete_stream`, `purge_stream`."""

    async def call(client: Any) -> None:
        await getattr(client.jetstream(timeout=DEADLINE_S), how)(STREAM, **options)

    asked(url, call)
