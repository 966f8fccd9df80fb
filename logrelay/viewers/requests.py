"""The requests of viewers, parsed strictly.

Owns: the requests (`Subscribe`, `History`, `Ping`), their parsing from a message or from the query of a URL, and their
limits (docs/protocol.md, section 2). It must not know sockets, sessions or what a request leads to. No I/O, no clock.
`viewers/messages` is the other direction. Read `viewers/messages` next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

import orjson

from logrelay.errors import RequestError, quoted
from logrelay.fanout.filters import FILTER_PARAMETERS, Filter, Notices, field_text, parse_filter
from logrelay.fanout.positions import EXAMPLE_ID, is_id
from logrelay.viewers.devices import check_device

REQUEST_TYPES = ("subscribe", "history", "ping", "silence", "unsilence")
"""Every `type` a viewer may send."""

MAX_TAIL = 100_000
"""Lines a viewer may ask for on connect; twenty times what the web viewer shows."""

MAX_HISTORY = 1_000
"""Lines in one history answer: about 300 KB, one comfortable message."""

DEFAULT_HISTORY = 200

MAX_APP_CHARS = 256
"""Of the glob of a silence, as of one in a filter."""

MAX_SILENCE_S = 30 * 86_400
"""A bot that is to be left alone for longer than a month had better be left out of the rules."""

SHOWN_CHARS = 60
"""How much of a wrong value an error repeats."""

SHOWN_NAMES = 5
"""How many of the names that mean nothing here a note repeats."""

_DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Subscribe:
    """What a viewer wants to see; None: as it is."""

    filter: Filter | None = None
    tail: int | None = None
    after: str | None = None
    device: str | None = None
    """The name of the viewer's device; only a URL says it."""
    note: str = ""
    """What was given and means nothing, in words for the viewer; empty: all of it was understood."""


@dataclass(frozen=True, slots=True)
class History:
    """Asks for the newest `limit` lines older than `before`; the answer has the oldest of them first."""

    before: str
    limit: int = DEFAULT_HISTORY
    notices: Notices | None = None
    """Which notices it wants among them; None: as the subscription says."""
    note: str = ""
    """As that of a subscription."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a pong."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Asks that no alerts be sent about bots that match a glob for so many seconds; 0: that this be over."""

    app: str
    for_s: float


Request = Subscribe | History | Ping | Silence

URL_PARAMETERS = (*FILTER_PARAMETERS, "tail", "after", "device", "token")
"""What the URL of a WebSocket may say. A client's own parameters are no errors, as a proxy may add some; but a misspelt
one shows other lines than were meant, so the viewer is told."""
SUBSCRIBE_FIELDS = ("type", "channel", *FILTER_PARAMETERS, "tail", "after")
HISTORY_FIELDS = ("type", "before", "limit", "notices")


def parse_request(text: str | bytes) -> Request:
    """Parse one message of a viewer. Raises RequestError; the viewer then keeps what it had."""
    try:
        message = orjson.loads(text)
    except ValueError:
        raise RequestError(
            "bad_json",
            f'{_clip(text)} is not JSON; send an object such as {{"type":"subscribe","channel":"logs"}}',
        ) from None
    if not isinstance(message, dict):
        raise RequestError("bad_json", f"{_clip(text)} is not a JSON object")
    match message.get("type"):
        case "subscribe":
            channel = message.get("channel", "logs")
            if channel != "logs":
                raise RequestError("bad_channel", f"channel {_clip(channel)} is unknown; the only one is 'logs'")
            return replace(_subscribe(_as_lists(message)), note=_note("field", message, SUBSCRIBE_FIELDS))
        case "history":
            before = message.get("before")
            if before is None:
                raise RequestError("bad_id", f"before is missing; it is an id such as {EXAMPLE_ID!r}")
            if not isinstance(before, str) or not is_id(before):
                raise RequestError("bad_id", f"before {_clip(before)} is not an id such as {EXAMPLE_ID!r}")
            limit = _number(message.get("limit", DEFAULT_HISTORY), "limit", 1, MAX_HISTORY)
            params = _as_lists({"notices": message.get("notices")})
            notices = parse_filter(params).notices if params else None
            return History(before, limit, notices, _note("field", message, HISTORY_FIELDS))
        case "ping":
            return Ping()
        case "silence":
            return Silence(_silenced_app(message), _silence_s(message.get("for_s")))
        case "unsilence":
            return Silence(_silenced_app(message), 0.0)
        case None:
            raise RequestError("bad_type", f"type is missing; it is one of {', '.join(REQUEST_TYPES)}")
        case other:
            raise RequestError("bad_type", f"type {_clip(other)} is not one of {', '.join(REQUEST_TYPES)}")


def _silenced_app(message: Mapping[str, object]) -> str:
    app = message.get("app")
    if not isinstance(app, str) or not 0 < len(app) <= MAX_APP_CHARS or "\0" in app:
        raise RequestError("bad_silence", f"app {_clip(app)} is not the name of a bot, or a glob such as 'scalper*'")
    return app


def _silence_s(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 1 <= given <= MAX_SILENCE_S:
        raise RequestError("bad_silence", f"for_s {_clip(given)} is not a number of seconds from 1 to {MAX_SILENCE_S}")
    return float(given)


def parse_target(target: str) -> Subscribe:
    """Parse the subscription in the query of a request target; unknown parameters change nothing but its note.

    Raises RequestError.
    """
    params = _query(target)
    wanted = replace(_subscribe(params), note=_note("parameter", params, URL_PARAMETERS))
    names = params.get("device")
    return replace(wanted, device=check_device(names[-1])) if names else wanted


def names_device(target: str) -> bool:
    """Tell whether a request target names a device."""
    return "device" in _query(target)


FOLLOW_PARAMETERS = (*FILTER_PARAMETERS, "tail", "limit", "after", "follow", "token")
"""Of an answer over plain HTTP that goes on with new lines; `limit` is another name of `tail`."""


def parse_follow(target: str, last_event_id: str | None = None) -> Subscribe:
    """Parse the subscription of /events or of /logs?follow=1; strictly, as /logs is. Raises RequestError.

    `last_event_id` wins over `after`: the browser sends the same URL again, and behind which line it goes on.
    """
    params = _query(target)
    for name in params:
        if name not in FOLLOW_PARAMETERS:
            allowed = ", ".join(FOLLOW_PARAMETERS[:-1])
            raise RequestError("bad_parameter", f"parameter {_clip(name)} is not one of {allowed}, with follow=1")
    if params.get("follow", ["1"]) != ["1"]:
        raise RequestError("bad_parameter", f"follow {_clip(params['follow'][-1])} is not 1; leave it out otherwise")
    if "limit" in params:
        params["tail"] = params.pop("limit")
    if last_event_id:
        params["after"] = [last_event_id]
    return _subscribe(params)


def query_tokens(target: str) -> list[str]:
    """Return every `token` parameter of a request target."""
    return _query(target).get("token", [])


def _query(target: str) -> dict[str, list[str]]:
    """Return the parameters behind the first `?`, whatever the target looks like otherwise."""
    # The HTTP parser decodes bytes beyond ASCII as lone surrogates, which neither JSON nor SQLite can encode.
    text = target.partition("?")[2].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return parse_qs(text, keep_blank_values=True)


def _as_lists(message: dict[str, Any]) -> dict[str, list[str]]:
    """Bring a JSON subscribe request into the form of a query: every value a list of strings."""
    params: dict[str, list[str]] = {}
    for key in (*FILTER_PARAMETERS, "tail", "after"):
        value = message.get(key)
        if value is None:
            continue
        if key == "where" and isinstance(value, dict):
            try:
                value = [f"{name}={field_text(v)}" for name, v in value.items()]
            except TypeError:  # orjson reads deeper than it writes
                raise RequestError("bad_where", "where is nested too deep") from None
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str | int) and not isinstance(v, bool) for v in values):
            raise RequestError(f"bad_{'id' if key == 'after' else key}", f"{key} {_clip(value)} is not a string")
        params[key] = [str(v) for v in values]
    return params


def _subscribe(params: Mapping[str, list[str]]) -> Subscribe:
    wanted = parse_filter(params) if any(key in params for key in FILTER_PARAMETERS) else None
    tail = after = None
    if params.get("tail"):
        tail = _number(params["tail"][-1], "tail", 0, MAX_TAIL)
    if params.get("after"):
        after = params["after"][-1]
        if not is_id(after):
            raise RequestError("bad_id", f"after {_clip(after)} is not an id such as {EXAMPLE_ID!r}")
    return Subscribe(wanted, tail, after)


def _number(value: object, name: str, low: int, high: int) -> int:
    text = str(value)
    number = int(text) if _DIGITS.fullmatch(text) else low - 1
    if not low <= number <= high:
        raise RequestError(f"bad_{name}", f"{name} {_clip(value)} is not a whole number from {low} to {high}")
    return number


def _note(what: str, given: Iterable[str], known: Sequence[str]) -> str:
    """Say which names mean nothing; empty: all of them are known."""
    unknown = [name for name in given if name not in known]
    if not unknown:
        return ""
    names = ", ".join(quoted(name) for name in unknown[:SHOWN_NAMES])
    more = f" and {len(unknown) - SHOWN_NAMES} more" if len(unknown) > SHOWN_NAMES else ""
    allowed = ", ".join(name for name in known if name != "token")
    return (
        f"{what} {names}{more} means nothing here and changes nothing; there is {allowed}"
        if len(unknown) == 1
        else f"{what}s {names}{more} mean nothing here and change nothing; there is {allowed}"
    )


def _clip(value: object) -> str:
    """Return what a viewer sent as it is repeated to it, as it was written: a text in quotes, else JSON."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return quoted(value, SHOWN_CHARS)
    try:
        text = orjson.dumps(value).decode()
    except (TypeError, RecursionError):  # orjson reads deeper than it writes
        return "(nested too deep)"
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."
