"""What an edge says of itself every few seconds: that it is there, how far it is, and how its bots are.

Owns: the message on `logrelay.state.<edge>`, JSON in UTF-8, both ways. It is not stored: whoever listens knows of each
edge within an interval, and takes one that has been silent for SILENT_INTERVALS of them as unreachable. It must not
know NATS clients, clocks or what is done with a state. Pure. Read `collector` next: it is who listens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from logrelay.machines.stream_batch import EDGE_NAME, STATE_SUBJECT

STATE_EVERY_S = 3.0
"""How often an edge says how it is: about as soon as a person looks twice, and nothing for a network."""
SILENT_INTERVALS = 4
"""So many intervals without a word, and an edge is unreachable: one that is lost or late must not raise an alarm."""
MOST_BOTS = 500
"""Bots in one message, those seen last: some 150 KB, far below every server's limit. The others are counted."""
MOST_STATE_BYTES = 1 << 20
"""A decoder takes no more: the default of a server's max_payload."""
MOST_CHARS = 1024
"""Of a text in it."""

BOT_KEYS = (*("app", "host", "pid", "run", "state", "started", "last_line", "last_line_age_s", "quiet_s", "last_seq"),)
"""What is said of a bot, as in the message `connection`."""


class BadStateError(ValueError):
    """A message is not a state as this version knows it. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class EdgeState:
    """How an edge is."""

    edge: str
    version: str
    """Of its relay."""
    started_us: int
    """The edge's clock when its relay started, microseconds."""
    sent_us: int
    """The edge's clock when it said this."""
    interval_s: float
    """Seconds until it says it again."""
    journal: str
    """See `StreamBatch.journal`."""
    head: str
    """Id of the newest line of its journal; empty: there is none."""
    forwarded: int
    """Seq of the last line that the stream has."""
    lag_lines: int
    """Lines that it does not have."""
    trouble: str | None = None
    """Why the edge's journal is not being written; None while it is."""
    bots: tuple[Mapping[str, object], ...] = ()
    """With `BOT_KEYS`, JSON-safe; the most recently seen first."""
    more_bots: int = 0
    """Bots that are left out."""

    @property
    def subject(self) -> str:
        """Where it is published."""
        return STATE_SUBJECT + self.edge


def encode(state: EdgeState) -> bytes:
    """Return the message of a state."""
    cut = replace(state, bots=state.bots[:MOST_BOTS], more_bots=state.more_bots + max(0, len(state.bots) - MOST_BOTS))
    shape = {name: getattr(cut, name) for name in cut.__dataclass_fields__ if name != "bots"}
    shape["bots"] = [{key: bot.get(key) for key in BOT_KEYS} for bot in cut.bots]
    return orjson.dumps(shape)


def decode(message: bytes) -> EdgeState:
    """Return the state of a message. Raises BadStateError; whatever the bytes are, nothing else.

    Keys that this version does not know are left out.
    """
    if len(message) > MOST_STATE_BYTES:
        raise BadStateError(f"it has {len(message)} bytes; at most {MOST_STATE_BYTES} are read")
    try:
        shape = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise BadStateError(f"it is no JSON: {error}") from None
    if not isinstance(shape, dict):
        raise BadStateError("it is no JSON object")
    bots = shape.get("bots")
    if not isinstance(bots, list) or len(bots) > MOST_BOTS or any(not isinstance(bot, dict) for bot in bots):
        raise BadStateError(f"its bots are not an array of at most {MOST_BOTS} objects")
    trouble = shape.get("trouble")
    state = EdgeState(
        edge=_text(shape, "edge"),
        version=_text(shape, "version"),
        started_us=_whole(shape, "started_us"),
        sent_us=_whole(shape, "sent_us"),
        interval_s=_seconds(shape, "interval_s"),
        journal=_text(shape, "journal"),
        head=_text(shape, "head"),
        forwarded=_whole(shape, "forwarded"),
        lag_lines=_whole(shape, "lag_lines"),
        trouble=None if trouble is None else _text(shape, "trouble"),
        bots=tuple(_bot(bot) for bot in bots),
        more_bots=_whole(shape, "more_bots"),
    )
    if EDGE_NAME.fullmatch(state.edge) is None:
        raise BadStateError(f"its edge is {state.edge[:40]!r}, which is no name")
    return state


def _bot(given: Mapping[str, Any]) -> dict[str, object]:
    bot = {key: given.get(key) for key in BOT_KEYS}
    for key, value in bot.items():
        if isinstance(value, str) and len(value) <= MOST_CHARS:
            continue
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadStateError(f"{key} of a bot is neither a short text nor a number")
    if not isinstance(bot["app"], str) or not isinstance(bot["run"], str) or not isinstance(bot["state"], str):
        raise BadStateError("a bot has no app, run or state")
    return bot


def _text(shape: Mapping[str, Any], name: str) -> str:
    value = shape.get(name)
    if not isinstance(value, str) or len(value) > MOST_CHARS:
        raise BadStateError(f"its {name} is no text, or longer than {MOST_CHARS} characters")
    return value


def _whole(shape: Mapping[str, Any], name: str) -> int:
    value = shape.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise BadStateError(f"its {name} is no whole number from 0 on")
    return value


def _seconds(shape: Mapping[str, Any], name: str) -> float:
    value = shape.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 3600:
        raise BadStateError(f"its {name} is no number of seconds")
    return float(value)


def described(bots: Sequence[Mapping[str, object]]) -> tuple[Mapping[str, object], ...]:
    """Return what a state says of these bots, as they are shown to viewers."""
    return tuple({key: bot.get(key) for key in BOT_KEYS} for bot in bots)
