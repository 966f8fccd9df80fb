"""What else than an event dict reaches the processor: records of the logging module and rendered lines.

Owns: the event in what a renderer made, and whether a record was shipped before. It must not know sockets, levels or
who logs. `processor` asks it on its slow path. Read `serializer` next.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from . import serializer

GENERATION: Final = 512
"""The newest records so many, and up to as many before them, are remembered. The handlers of one see it in one call;
only a queue with more in it than this lies between."""
MOST_FRAMES: Final = 64
"""Frames looked through between a formatter and the log call: logging and structlog have about ten."""

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class ShippedRecords:
    """Remembers records of the logging module by identity, without keeping them alive.

    ProcessorFormatter runs its processors once per handler, so with two handlers a processor in it sees every record
    twice. Two records with the same text are two lines.

    What it sees are copies, one per handler, and a queue makes copies too. They share what is in the record, so the
    record is known by its `relativeCreated`: a number that is computed, and so an object of its own, for each record
    that is made, even when the clock stands still. It is held here, so that no other object can get its address.
    """

    __slots__ = ("_older", "_seen")

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._older: dict[int, float] = {}

    def is_new(self, record: Any) -> bool:
        """Say whether `record` is seen for the first time, and remember it."""
        seen, mark = self._seen, getattr(record, "relativeCreated", None)
        if type(mark) is not float:  # no LogRecord, whatever it is: what cannot be known again is new
            return True
        key = id(mark)
        if key in seen or key in self._older:
            return False
        seen[key] = mark
        if len(seen) >= GENERATION:
            self._older, self._seen = seen, {}
        return True


def chain_of(record: Any) -> Sequence[Any] | None:
    """Return the processors of the chain in which structlog made this record; None: that cannot be seen.

    Structlog hands the chain's own event dict to the logging module (`wrap_for_formatter`), which calls its handlers
    before the log call returns: so the frame that ran the chain is still there, and knows both.
    """
    made = getattr(record, "msg", None)
    if type(made) is not dict:
        return None
    frame = sys._getframe(1)  # noqa: SLF001 - the interpreter has no other name for it
    for _ in range(MOST_FRAMES):
        if frame.f_code.co_name == "_proxy_to_logger":
            found = frame.f_locals
            args = found.get("args")
            if type(args) is tuple and args and args[0] is made:
                return tuple(getattr(found.get("self"), "_processors", ()))
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def passed_chain(record: Any, processor: object) -> bool:
    """Say whether structlog made this record in a chain that `processor` is in, so that it has seen the event."""
    return any(step is processor for step in chain_of(record) or ())


def event_in(value: Any) -> dict[Any, Any]:
    """Return an event for what is not one: a rendered line, or what a `wrap_for_...` or `render_to_...` step makes."""
    if type(value) is tuple and value and type(value[0]) is tuple and value[0]:
        first = value[0][0]
        if issubclass(type(first), dict):
            event: dict[Any, Any] = first
            return event
        if issubclass(type(first), (str, bytes, bytearray)):
            fields = value[1] if len(value) > 1 and issubclass(type(value[1]), dict) else {}
            event = dict(dict.items(fields))
            serializer.set_aside(event, "event")
            event["event"] = event_in(first)["event"]
            if len(value[0]) > 1:
                serializer.set_aside(event, "positional_args")
                event["positional_args"] = value[0][1:]
            return event
    return {"event": _COLOUR.sub("", serializer.text_of(value))}
