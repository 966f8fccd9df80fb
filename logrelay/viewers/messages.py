"""What the relay says to one viewer besides lines: control messages, error codes and close codes.

Owns: the rendering of `connection`, `subscribed`, `history`, `pong`, `note` and `error` (docs/protocol.md, section 2),
and the tables of every name that a viewer can be sent. It must not know sockets, frames or sessions. No I/O, no clock.
`viewers/requests` is the other direction and a module of its own: it reads what strangers wrote and raises errors, this
one writes what the relay knows and cannot fail. Read `static/client.js` next.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from logrelay.fanout.filters import NOTICES, UNLIMITED, Filter, Limit
from logrelay.fanout.line_json import escaped, notice_body
from logrelay.model import CRITICAL, ERROR, SHOWN

MESSAGE_TYPES = ("log", "connection", "subscribed", "history", "pong", "note", "alerts", "error")
"""Every `type` the relay sends."""

MESSAGE_BYTES = 1024 * 1024
"""The longest message to a viewer: what iOS and the Python client take unless told otherwise."""

ERROR_CODES: dict[str, str] = {
    "bad_json": "the message is not a JSON object",
    "bad_type": "the `type` is not one a viewer can send",
    "bad_channel": "the only channel is `logs`",
    "bad_level": "unknown level name",
    "bad_source": "too many or too long source globs",
    "bad_app": "too many or too long app globs",
    "bad_run": "too many or too long run globs",
    "bad_edge": "too many or too long edge globs",
    "bad_text": "text too long",
    "bad_where": "not of the form field=value",
    "bad_notices": "not relevant, no or all",
    "bad_tail": "not a number in the allowed range",
    "bad_id": "not an id of this relay",
    "bad_device": "not a name for a device",
    "bad_limit": "not a number in the allowed range",
    "bad_silence": "not the name of a bot, or not a time in the allowed range",
    "alerts": "there are no alerts here, or they do not answer just now",
    "limited": "the token has limits, and this concerns everybody",
    "busy": "more history requests or silences at once than allowed",
    "expired": "an id of another journal, or one it has not reached",
    "journal": "the journal cannot be read now; ask again",
}
"""Every `code` of an error message."""

NOTE_UNKNOWN = "unknown"
"""The `code` of a note."""

CLOSE_BAD_REQUEST = 4400
"""Of the private range (RFC 6455 section 7.4.2), after HTTP's 400."""

CLOSE_TOKEN = 4401
"""The same, after HTTP's 401."""

CLOSE_NEEDS_TOKEN = 4403
"""After HTTP's 403. A client that has never been let in, while 4401 ends what was good."""

CLOSE_DEVICE = 4409
"""After HTTP's 409: somebody else has what was here."""

CLOSE_OVER_BUDGET = 4429
"""After HTTP's 429: the relay holds too much for this viewer, see `budgets`."""

CLOSE_CODES: dict[int, tuple[str, str]] = {
    1000: ("normal", "the viewer closed; nothing to do"),
    1001: ("going away", "the viewer's page or app went away; nothing to do"),
    1002: ("protocol error", "the client broke RFC 6455; fix the client"),
    1003: ("unsupported data", "a message was binary; fix the client"),
    1007: ("bad data", "a message was not UTF-8; fix the client"),
    1009: ("message too big", "a request was longer than 64 KiB; fix the client"),
    1011: (
        "no answer to pings",
        "the relay heard nothing for too long; connect again and resume behind the last id",
    ),
    1012: (
        "service restart",
        "the relay is stopping; connect again with backoff and resume behind the last id",
    ),
    CLOSE_BAD_REQUEST: (
        "bad request",
        "the subscription in the URL is wrong, an error message said how; do not retry unchanged",
    ),
    CLOSE_TOKEN: (
        "token no longer good",
        "the token was revoked or changed, or has expired; connect again with one that is good",
    ),
    CLOSE_NEEDS_TOKEN: (
        "needs a token",
        "no token was shown, or a wrong one, and a line has said so; connect again with one that is good",
    ),
    CLOSE_DEVICE: (
        "device is elsewhere",
        "the device has come back on another connection while this one did not answer; nothing to do",
    ),
    CLOSE_OVER_BUDGET: (
        "over budget",
        (
            "the beginning of a message was held for too long while many were, or all places were taken, most of them "
            "by this address, and another one needed one; connect again with backoff, and send messages whole"
        ),
    ),
}
"""Every code the relay closes with: a name, and what a client does (docs/protocol.md)."""


def connection(
    head: str,
    oldest: str,
    traders: list[dict[str, object]],
    version: str,
    *,
    limit: Limit = UNLIMITED,
    encrypted: bool = False,
    edges: list[dict[str, object]] | None = None,
) -> bytes:
    """Render the first message of every connection.

    `limit` is what the viewer's token narrows everything to; `encrypted`: the relay's own port speaks TLS; `edges` are
    the machines whose lines are collected, None: none are.
    """
    message: dict[str, object] = {
        "type": "connection",
        "status": "connected",
        "head": head,
        "oldest": oldest,
        "traders": traders,
        "version": version,
        "encrypted": encrypted,
    }
    if edges is not None:
        message["edges"] = edges
    if not limit.nothing:
        message["limit"] = filter_shape(Filter(limit.level, limit.sources, apps=limit.apps))
    return _fitting(message, traders)


def _fitting(message: dict[str, object], traders: list[dict[str, object]]) -> bytes:
    """Render the message with as many of the traders as fit into MESSAGE_BYTES, the first of them."""
    text = escaped(orjson.dumps(message))
    while len(text) > MESSAGE_BYTES and traders:
        traders = traders[: len(traders) * 3 // 4]
        text = escaped(orjson.dumps(message | {"traders": traders, "more_traders": True}))
    return text


def subscribed(wanted: Filter, head: str) -> bytes:
    """Render the answer to a subscribe request: the subscription as it is now."""
    shape = filter_shape(wanted)
    return escaped(orjson.dumps({"type": "subscribed", "channel": "logs", "filter": shape, "head": head}))


def filter_shape(wanted: Filter) -> dict[str, object]:
    """Return the filter in the words of a subscribe request."""
    shape: dict[str, object] = {}
    if wanted.level > min(SHOWN):
        shape["level"] = "CRITICAL" if wanted.level >= CRITICAL else SHOWN[wanted.level]
    if wanted.sources:
        shape["source"] = list(wanted.sources)
    if wanted.apps:
        shape["app"] = list(wanted.apps)
    if wanted.runs:
        shape["run"] = list(wanted.runs)
    if wanted.edges:
        shape["edge"] = list(wanted.edges)
    if wanted.text:
        shape["text"] = wanted.text
    if wanted.where:
        shape["where"] = [f"{key}={value}" for key, value in wanted.where]
    if wanted.notices != NOTICES[0]:
        shape["notices"] = wanted.notices
    return shape


def alerts(shown: Mapping[str, object]) -> bytes:
    """Render the answer to a silence: how the alerts are now, as /alerts has it."""
    return escaped(orjson.dumps(shown))


def needs_token(text: str, time_us: int) -> bytes:
    """Render the one line that a client gets which was not let in; its id means no line of any journal."""
    return notice_body("none-0", time_us, ERROR, text, {"notice": "relay", "state": "access"})


def history(bodies: list[bytes], more: bool) -> bytes:
    """Render the answer to a history request, oldest line first."""
    return b'{"type":"history","more":%s,"logs":[%s]}' % (b"true" if more else b"false", b",".join(bodies))


def error(code: str, message: str) -> bytes:
    """Render an error; `code` is a key of ERROR_CODES."""
    return escaped(orjson.dumps({"type": "error", "code": code, "message": message}))


def note(message: str) -> bytes:
    """Render a note: a request was met, and something in it means nothing here.

    It has a type of its own, which older clients do not know and ignore: an error would tell them that it was refused.
    """
    return escaped(orjson.dumps({"type": "note", "code": NOTE_UNKNOWN, "message": message}))


PONG = b'{"type":"pong"}'
"""The answer to a ping request, for clients that cannot see WebSocket pings (every browser)."""
