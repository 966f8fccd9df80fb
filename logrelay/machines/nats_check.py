"""Asks the NATS servers whether they are as forwarding and collecting need them, for `logrelay check`.

Owns: the questions, and what is said of the answers. Nothing is stored on a server, and no stream is made. It must not
know how anything is printed. Read `nats_link` next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from logrelay.config.nats_url import NatsUrl
from logrelay.machines import nats_link
from logrelay.machines.nats_link import (
    REQUEST_TIMEOUT_S,
    NatsError,
    NatsSettings,
    NoStreamError,
    as_nats_error,
    close,
    connect,
    denied,
)
from logrelay.machines.stream_batch import (
    EXPECTED_LAST,
    LINES_SUBJECT,
    STATE_SUBJECT,
    BadBatchError,
    payload_objection,
    position_of,
)

WRONG_SEQUENCE, NO_MESSAGE, OTHER_NAME = 10071, 10037, 10056
"""JetStream's codes: the expected sequence is another, as is asked for here; there is no such message; a stream is to
be made whose name is not that of the subject."""
NEVER = str((1 << 53) - 1)
"""A sequence that no subject has: a message that expects it is refused by a server that would take ours."""
TRIED_CONSUMER_S = 1.0
"""A consumer that is made to see whether it may be goes by itself after so long."""


class Answer(NamedTuple):
    """One thing that was asked."""

    good: bool
    text: str

    @property
    def told(self) -> tuple[str, str]:
        """What is wrong, and what to do."""
        text, _, remedy = self.text.partition("; ")
        return text, remedy or "docs/machines.md has a whole configuration"


def check_forwarding(settings: NatsSettings, edge: str) -> list[Answer]:
    """Ask whether lines can be forwarded under a name. Raises ConfigError for files that cannot be used."""
    return asyncio.run(_each_server(settings, edge, lambda check: check.may_forward(edge)))


def check_collecting(settings: NatsSettings, inbox: str) -> list[Answer]:
    """Ask whether lines can be collected. Raises ConfigError for files that cannot be used."""
    return asyncio.run(_each_server(settings, inbox, lambda check: check.may_collect()))


async def _each_server(settings: NatsSettings, inbox: str, ask: Callable[[_Check], Any]) -> list[Answer]:
    found: list[Answer] = []
    asked = False
    for server in settings.servers:
        try:
            client = await connect(settings, server, name="logrelay check", inbox=inbox)
        except NatsError as error:
            found.append(Answer(good=False, text=str(error)))
            continue
        try:
            version, payload = client.connected_server_version, client.max_payload
            secure = ", TLS" if settings.wants_tls else ""
            text = f"{server.public}: nats-server {version}{secure}, messages up to {payload:,} bytes"
            found.append(Answer(good=True, text=text))
            objection = payload_objection(payload)
            if objection is not None:
                found.append(Answer(good=False, text=f"{server.public}: {objection}: no edge forwards to it"))
            if not asked:  # the others are of the same cluster
                asked = True
                check = _Check(client, settings, server, found)
                await ask(check)
        finally:
            await close(client)
    return found


class _Check:
    """Questions over one connection; what is found goes to `found`."""

    def __init__(self, client: Any, settings: NatsSettings, server: NatsUrl, found: list[Answer]) -> None:
        self._client, self._settings, self._server, self._found = client, settings, server, found
        self._js = client.jetstream(timeout=REQUEST_TIMEOUT_S)

    def _note(self, text: str, *, good: bool) -> None:
        self._found.append(Answer(good, text))

    async def _stream(self, *, read_only: bool = False) -> bool:
        name = self._settings.stream
        try:
            info = await nats_link.ensure_stream(
                self._client, self._settings, self._server, create=False, read_only=read_only
            )
        except NoStreamError as error:
            if read_only:
                self._note(f"{error}; it is made by the first edge whose user may, a hub relay makes none", good=False)
            elif await self._may_make(name):
                self._note(f"stream {name} is not there yet: the relay makes it when it starts", good=True)
            else:
                self._note(f"{error}; start once as a user who may make it, or make it: docs/machines.md", good=False)
            return False
        except NatsError as error:
            self._note(str(error), good=False)
            return False
        config, state = info.config, info.state
        replicas = config.num_replicas or 1
        text = f"stream {name}: {config.storage}, {replicas} replica(s), {state.messages:,} messages"
        self._note(f"{text}, {state.bytes:,} bytes", good=True)
        if replicas < self._settings.replicas:
            self._note(
                f"stream {name} has {replicas} replica(s), nats_replicas says {self._settings.replicas}; "
                f"nats stream edit {name} --replicas {self._settings.replicas}",
                good=False,
            )
        if not config.allow_direct:
            self._note(
                f"stream {name} lacks allow_direct: an edge then needs the permission to read all of it, not its own "
                f"last message alone; nats stream edit {name} --allow-direct",
                good=False,
            )
        return True

    async def _may_make(self, name: str) -> bool:
        """Ask for a stream under another name than the subject's: a server that lets us ask refuses that."""
        try:
            asked = orjson.dumps({"name": f"{name}-not-to-be-made", "subjects": [LINES_SUBJECT + "none"]})
            answer = await self._client.request(f"$JS.API.STREAM.CREATE.{name}", asked, timeout=REQUEST_TIMEOUT_S)
            code: object = orjson.loads(answer.data).get("error", {}).get("err_code")
        except Exception:
            return False  # there is no answer to whoever may not ask
        return code == OTHER_NAME

    async def _may_say(self, edge: str) -> None:
        """Ask whether the edge may say how it is; what is said here says nothing, and hub relays leave it out."""
        subject = STATE_SUBJECT + edge
        await self._client.publish(subject, b"")
        why = await self._denied(subject)
        if why is not None:
            self._note(f"{why}: hub relays take this edge, and its bots, for unreachable", good=False)

    async def _denied(self, subject: str) -> str | None:
        for _ in range(2):  # the client sends the first question before what waits to be sent, the second behind it
            await self._client.flush(REQUEST_TIMEOUT_S)
        return denied(self._client, subject)

    async def may_forward(self, edge: str) -> None:
        """Ask what an edge needs."""
        await self._may_say(edge)
        if not await self._stream():
            return
        name, subject = self._settings.stream, LINES_SUBJECT + edge
        try:
            last = await self._js.get_last_msg(name, subject, direct=True)
            self._note(f"the stream has lines of {edge} up to {position_of(last.headers)[1]}", good=True)
        except BadBatchError as error:
            self._note(f"the last message on {subject} is not of a relay: {error}; purge the subject", good=False)
        except Exception as error:
            if getattr(error, "err_code", None) != NO_MESSAGE and type(error).__name__ != "NotFoundError":
                self._note(str(as_nats_error(error, self._server, self._client)), good=False)
            else:
                self._note(f"the stream has no lines of {edge} yet", good=True)
        try:
            await self._js.publish(subject, b"", timeout=REQUEST_TIMEOUT_S, headers={EXPECTED_LAST: NEVER})
        except Exception as error:
            if getattr(error, "err_code", None) == WRONG_SEQUENCE:
                self._note(f"lines may be published as {edge}", good=True)
            else:
                self._note(str(as_nats_error(error, self._server, self._client)), good=False)

    async def may_collect(self) -> None:
        """Ask what a hub relay needs."""
        states = f"{STATE_SUBJECT}*"
        await self._client.subscribe(states)
        why = await self._denied(states)
        if why is not None:
            self._note(f"{why}: all edges, and their bots, will be shown as unreachable", good=False)
        if not await self._stream(read_only=True):
            return
        name = self._settings.stream
        config = {"ack_policy": "none", "deliver_policy": "new", "inactive_threshold": int(TRIED_CONSUMER_S * 1e9)}
        config["mem_storage"] = True
        try:
            asked = orjson.dumps({"stream_name": name, "config": config})
            answer = await self._client.request(f"$JS.API.CONSUMER.CREATE.{name}", asked, timeout=REQUEST_TIMEOUT_S)
            refused = orjson.loads(answer.data).get("error")
            text = f"stream {name} may be read" if refused is None else f"stream {name}: {refused.get('description')}"
            self._note(text, good=refused is None)
        except Exception as error:
            self._note(str(as_nats_error(error, self._server, self._client)), good=False)
