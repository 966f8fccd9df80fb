"""Reads the stream that edges forward to, and feeds this relay's own journal.

Owns: the connection of a hub relay to the servers, the consumer that it reads with, how much is on its way, and when
it tries again. It must not know sockets of viewers or SQLite: lines and what is told go to a `Sink`; what is new is
decided in `collection`, who is silent in `edges`. It lives on the relay's event loop, where lines get their seq anyway:
a batch is decoded in a fraction of the time that its lines take there. Read `collection` next, then
`fanout/collected_line`: what becomes of a line.

The consumer acknowledges nothing and has no name: where to go on is in this relay's journal, in the transaction that
has the lines, so several hub relays may read one stream, and none leaves anything behind on the server. It is asked for
a bounded number of messages at a time (`PULL_MESSAGES`), and for none while the journal is in trouble.

Each message has a number within its consumer: where one is missing, or when anything else is odd, the session ends and
the next one begins behind what was taken. Nothing depends on nats-py's own reconnecting.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import orjson

from logrelay.config.nats_url import NatsUrl
from logrelay.errors import ConfigError, JournalError
from logrelay.fanout.collected_line import WINDOW, Collected, Told
from logrelay.journal.interface import Page, Query
from logrelay.machines import edge_state, nats_link, stream_batch
from logrelay.machines.collection import Collection, StreamFacts
from logrelay.machines.edges import Change, Edges
from logrelay.machines.nats_link import NatsError, NatsRefusedError, NatsSettings
from logrelay.machines.overview import LinkCounters
from logrelay.machines.stream_batch import LINES_SUBJECT, MESSAGE_ID, STATE_SUBJECT
from logrelay.model import ERROR, INFO, WARNING, CollectedRow

PULL_MESSAGES = 64
"""Messages asked for at a time: far fewer than would matter to the server, enough that asking costs nothing."""
PULL_BYTES = 4 << 20
"""Of which so many bytes may be on their way, or one message of the largest size that the server takes."""
PULL_FOR_S = 30.0
"""Then the server is asked anew. A lone line is sent the moment it is in the stream."""
HEARTBEAT_S = 5.0
"""How often the server says that it is there while there is nothing to send."""
SILENCE_S = 16.0
"""Three heartbeats and a little: a connection without a word for so long is given up."""
CONSUMER_IDLE_S = 300.0
"""A consumer nobody has asked for so long is deleted by the server; a journal in trouble may be longer, then there is a
new one."""
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0
"""Pauses between two attempts; doubled from one to the other, and half of it at random, so that hubs do not come all at
once."""
TELL_DOWN_S = 10.0
"""A connection that is not back within this time is told of: a server that is restarted takes a few seconds."""
LEARN_BYTES = 4 << 20
"""Of the newest lines, read once at the start: some ten thousand lines of usual length."""
BAD_TOLD_S = 60.0
"""Messages that cannot be read are told of this often at most, with their number."""
STOP_S = 1.0
"""For the end of the connection when the relay stops."""
WATCH_REST_S = 0.5
"""Between two looks at which edge is silent."""


class Sink(Protocol):
    """Where lines of other machines go. Called on the loop."""

    def collect(self, found: Collected) -> None:
        """Have it committed: all of it together, or nothing."""

    async def wait_room(self) -> None:
        """Wait until more may come."""

    @property
    def committed(self) -> int:
        """Seq of the newest line in the journal."""

    def read(self, query: Query) -> Awaitable[Page]:
        """Read from the journal. Raises JournalError; cancelling drops the answer."""


class _Message(NamedTuple):
    """What is needed of a message of the stream."""

    subject: str
    headers: dict[str, str]
    body: bytes
    stream_seq: int
    consumer_seq: int
    waiting: int


class Collector:
    """Collects what edges forward, until cancelled. Belongs to one event loop."""

    def __init__(
        self,
        settings: NatsSettings,
        sink: Sink,
        collection: Collection,
        edges: Edges,
        link: LinkCounters,
        *,
        loop: asyncio.AbstractEventLoop,
        inbox: str,
        random: Callable[[], float],
        own_edge: str | None = None,
    ) -> None:
        """Collect from the servers and the stream of `settings`; nothing is connected before `run`.

        `link` is kept up to date. `inbox` is what stands behind `_INBOX.` in the subjects of answers; `random` returns
        a number from 0 to 1. `own_edge` is the name under which this relay forwards itself: what comes from there is
        left out.
        """
        self._settings, self._sink, self._collection, self._edges = settings, sink, collection, edges
        self._link, self._loop, self._inbox, self._random = link, loop, inbox, random
        self._own_edge = own_edge
        self._down_since: float | None = loop.time()
        """Since when there is no connection, seconds of the loop's clock; None: there is one."""
        self._told = ""
        """What of the connection's trouble has been told; empty: nothing."""
        self._is_told_deaf = False
        self._bad_since_told = 0
        self._bad_told_at = float("-inf")
        self._watch_timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to collect."""
        self._link.down_us = _now_us()
        self._edges.link_down(self._link.down_us)
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """Collect no more; what has been taken is with the sink. At most STOP_S."""
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP_S)

    # --- the connection -----------------------------------------------------------------------------------------

    async def _learn(self) -> None:
        """Learn which timestamps have been shown lately; where they cannot be read, one may come a second time."""
        newest = Query(0, self._sink.committed, WINDOW, newest=True, max_bytes=LEARN_BYTES)
        while newest.until > 0 and newest.limit > 0:
            try:
                page = await self._sink.read(newest)
            except JournalError:
                return
            self._collection.learn(page.bodies)
            if page.complete or page.bodies:
                return
            newest = replace(newest, until=page.reached)

    async def _run(self) -> None:
        await self._learn()
        pause, attempt = FIRST_RETRY_S, 0
        while True:
            server = self._settings.servers[attempt % len(self._settings.servers)]
            attempt += 1
            try:
                await self._session(server)
            except NatsRefusedError as error:
                self._on_failure(str(error), refused=True)
            except (NatsError, ConfigError) as error:
                self._on_failure(str(error), refused=isinstance(error, ConfigError))
            except Exception as error:
                # Of nats-py, or ours: the next session begins behind what was taken, whatever it was.
                self._loop.call_exception_handler({"message": "collecting has failed", "exception": error})
                self._on_failure(f"{server.public}: {error!r}", refused=False)
            if self._note_end():
                pause = FIRST_RETRY_S
            await asyncio.sleep(pause * (0.5 + self._random() / 2))
            pause = min(pause * 2, LAST_RETRY_S)

    def _note_end(self) -> bool:
        """Note the end of a connection; returns whether there was one."""
        if self._down_since is not None:
            return False
        self._down_since = self._loop.time()
        self._link.connected, self._link.down_us = False, _now_us()
        return True

    def _on_failure(self, why: str, *, refused: bool) -> None:
        self._note_end()
        self._link.reason = why
        down_s = self._loop.time() - (self._down_since or 0.0)
        if (refused and self._told != why) or (not self._told and down_s >= TELL_DOWN_S):
            self._told = why
            self._edges.link_down(_now_us())
            text = f"lines of other machines cannot be collected: {why}; they wait in the stream"
            self._tell(ERROR if refused else WARNING, text, {"state": "collect_lost", "reason": why})

    def _on_connected(self) -> None:
        if self._told:
            self._tell(INFO, "lines of other machines are collected again", {"state": "collect_back"})
        self._told, self._down_since = "", None
        self._link.connected, self._link.down_us, self._link.reason = True, 0, ""
        self._link.reconnects += 1
        self._edges.link_up(self._loop.time())
        self._watch()

    async def _session(self, server: NatsUrl) -> None:
        """Connect to one server and collect until that ends. Raises NatsError."""
        arrived = _Arrived()
        client = await nats_link.connect(
            self._settings, server, name="logrelay-hub", inbox=self._inbox, on_closed=arrived.on_closed
        )
        try:
            await client.subscribe(f"{STATE_SUBJECT}*", cb=self._on_state)
            info = await nats_link.ensure_stream(client, self._settings, server, create=False, read_only=True)
            self._tell_deaf(client)  # what a server has against the subscription comes before the answer
            created = getattr(info, "created", None)
            state = info.state
            facts = StreamFacts(info.config.name, str(created or ""), state.first_seq, state.last_seq)
            start, told = self._collection.begin(facts, await self._stamp(client, facts))
            consumer = await _request(
                client,
                f"$JS.API.CONSUMER.CREATE.{facts.name}",
                {
                    "stream_name": facts.name,
                    "config": {
                        "deliver_policy": "by_start_sequence",
                        "opt_start_seq": start,
                        "ack_policy": "none",
                        "replay_policy": "instant",
                        "filter_subject": f"{LINES_SUBJECT}*",
                        "mem_storage": True,
                        "num_replicas": 1,
                        "inactive_threshold": int(CONSUMER_IDLE_S * 1e9),
                    },
                },
            )
            self._on_connected()
            if told is not None:
                self._sink.collect(Collected([told]))
            await self._read(client, facts, str(consumer["name"]), arrived)
        except NatsError:
            raise
        except Exception as error:
            raise nats_link.as_nats_error(error, server) from error
        finally:
            await nats_link.close(client)

    async def _stamp(self, client: Any, facts: StreamFacts) -> str | None:
        """Return the own id of the message at the position that is remembered, as the stream has it now."""
        known = self._collection.position(facts.name)
        if known is None or known.part != facts.created or not facts.first_seq <= known.seq <= facts.last_seq:
            return None
        try:
            found = await client.jetstream(timeout=nats_link.REQUEST_TIMEOUT_S).get_msg(facts.name, known.seq)
        except Exception:
            return None  # deleted, or we may not ask: the seqs of the edges tell in any case
        return str((found.headers or {}).get(MESSAGE_ID, ""))

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read(self, client: Any, facts: StreamFacts, consumer: str, arrived: _Arrived) -> None:
        inbox = client.new_inbox()
        await client.subscribe(f"{inbox}.*", cb=arrived.on_message, pending_msgs_limit=0, pending_bytes_limit=0)
        next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{facts.name}.{consumer}"
        most_bytes = max(PULL_BYTES, client.max_payload + stream_batch.HEADER_BYTES)
        wanted = {
            "batch": PULL_MESSAGES,
            "expires": int(PULL_FOR_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
            "max_bytes": most_bytes,
        }
        consumed, number = 0, 0
        while True:
            await self._sink.wait_room()
            number += 1
            answers = f"{inbox}.{number}"
            await client.publish(next_subject, orjson.dumps(wanted), answers)
            left = PULL_MESSAGES
            while left:
                got = await arrived.next()
                status = (got.headers or {}).get("Status") if not got.reply else None
                if status is not None:
                    if got.subject == answers and _ends(status, got.headers):
                        break
                    continue
                message = _message(got)
                consumed += 1
                if message.consumer_seq != consumed:
                    raise NatsError(f"message {consumed} of the consumer was lost on the way")
                await self._take(facts, message)
                left -= 1

    async def _take(self, facts: StreamFacts, message: _Message) -> None:
        """Hand on what of a message is new, a part at a time."""
        self._link.waiting = message.waiting
        if self._own_edge is not None and message.subject == LINES_SUBJECT + self._own_edge:
            self._sink.collect(Collected(rows=[self._passed(facts, message)]))
            return
        try:
            batch = _batch(message)
        except stream_batch.BadBatchError as error:
            self._on_bad(message, str(error))
            self._sink.collect(Collected(rows=[self._passed(facts, message)]))
            return
        for part in self._collection.take(batch, _now_us()):
            # No waiting between what the collection notes as taken and the sink: they go together.
            if part.is_last:
                part.rows.append(self._passed(facts, message))
            self._sink.collect(part)
            await self._sink.wait_room()
            await asyncio.sleep(0)  # what was handed on is committed in the next turn, and others have theirs

    def _passed(self, facts: StreamFacts, message: _Message) -> CollectedRow:
        stamp = message.headers.get(MESSAGE_ID, "")
        return self._collection.passed(facts, message.stream_seq, stamp, _now_us())

    def _on_bad(self, message: _Message, why: str) -> None:
        """Tell of a message that is no batch; what is missing with it is told with the next lines of its edge."""
        self._link.bad_batches += 1
        self._bad_since_told += 1
        now = self._loop.time()
        if now - self._bad_told_at < BAD_TOLD_S:
            return
        count, self._bad_since_told, self._bad_told_at = self._bad_since_told, 0, now
        what = "a message" if count == 1 else f"{count:,} messages"
        last = f"the last one number {message.stream_seq} ({message.subject})"
        text = f"{what} of the stream could not be read, {last}: {why}"
        self._tell(WARNING, text, {"state": "bad_message", "count": count, "reason": why})

    # --- the edges ----------------------------------------------------------------------------------------------

    def _tell_deaf(self, client: Any) -> None:
        """Say once that it cannot be heard how edges are."""
        why = nats_link.denied(client, f"{STATE_SUBJECT}*")
        if why is None or self._is_told_deaf:
            return
        self._is_told_deaf = True
        text = f"{why}: all edges, and their bots, are shown as unreachable; docs/machines.md has the permissions"
        self._tell(WARNING, text, {"state": "collect_deaf", "reason": why})

    async def _on_state(self, message: Any) -> None:
        if not message.data:
            return  # `logrelay check` asks whether it may say something
        try:
            state = edge_state.decode(message.data)
        except edge_state.BadStateError:
            state = None
        if state is None or message.subject != state.subject:
            self._link.bad_batches += 1
            return
        if state.edge == self._own_edge:
            return
        change = self._edges.heard(state, self._loop.time(), _now_us())
        if change is not None:
            self._on_change(change)
        self._watch()

    def _watch(self) -> None:
        """See to it that an edge that becomes silent is noticed."""
        due = self._edges.next_deadline()
        if self._watch_timer is not None:
            if due >= self._watch_timer.when():
                return  # it is set anew when it has fired: deadlines move with every word of an edge
            self._watch_timer.cancel()
            self._watch_timer = None
        if due != float("inf"):
            self._watch_timer = self._loop.call_at(max(due, self._loop.time() + WATCH_REST_S), self._on_silence)

    def _on_silence(self) -> None:
        self._watch_timer = None
        for change in self._edges.pass_time(self._loop.time()):
            self._on_change(change)
        self._watch()

    def _on_change(self, change: Change) -> None:
        """Tell that an edge has become unreachable or is back, and have the journal remember it."""
        row = self._collection.note_state(change.edge, change.unreachable_us, _now_us())
        details: dict[str, object] = {"edge": change.edge}
        if change.unreachable_us:
            rank, details["state"] = WARNING, "edge_unreachable"
            details["silent_s"] = round(change.silent_s, 1)
            text = (
                f"edge {change.edge} is unreachable: it has said nothing for {change.silent_s:.0f} s; whether its bots "
                "run is not known from here"
            )
        else:
            rank, details["state"] = INFO, "edge_back"
            text = f"edge {change.edge} is back"
        self._sink.collect(Collected([Told(rank, "relay", text, details)], [row]))

    def _tell(self, rank: int, text: str, details: dict[str, object]) -> None:
        self._sink.collect(Collected([Told(rank, "relay", text, details)]))


class _Arrived:
    """What has come over one connection and was not taken yet: no more than was asked for."""

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._wake = asyncio.Event()
        self._is_closed = False

    async def on_message(self, message: Any) -> None:
        """Take a message; for the client."""
        self._messages.append(message)
        self._wake.set()

    async def on_closed(self) -> None:
        """Note the end of the connection; for the client."""
        self._is_closed = True
        self._wake.set()

    async def next(self) -> Any:
        """Return the next message. Raises NatsError when there will be none."""
        while not self._messages:
            if self._is_closed:
                raise NatsError("the connection has ended")
            self._wake.clear()
            try:
                async with asyncio.timeout(SILENCE_S):
                    await self._wake.wait()
            except TimeoutError:
                raise NatsError(f"nothing was heard for {SILENCE_S:.0f} s") from None
        return self._messages.popleft()


async def _request(client: Any, subject: str, asked: dict[str, object]) -> dict[str, Any]:
    """Ask JetStream something. Raises NatsError, or what nats-py raises."""
    answer = await client.request(subject, orjson.dumps(asked), timeout=nats_link.REQUEST_TIMEOUT_S)
    shape: dict[str, Any] = orjson.loads(answer.data)
    error = shape.get("error")
    if error:
        raise NatsRefusedError(f"{subject.split('.')[2].lower()}: {error.get('description', error)}")
    return shape


def _batch(message: _Message) -> stream_batch.StreamBatch:
    """Return the batch of a message. Raises BadBatchError; of an edge in whose name another one speaks, too."""
    batch = stream_batch.decode(message.headers, message.body)
    if message.subject != batch.subject:
        raise stream_batch.BadBatchError(f"it came on {message.subject}, and says that it is of {batch.edge}")
    return batch


def _message(got: Any) -> _Message:
    metadata = got.metadata
    numbers = metadata.sequence
    headers = {str(name): str(value) for name, value in (got.headers or {}).items()}
    return _Message(got.subject, headers, got.data, numbers.stream, numbers.consumer, metadata.num_pending)


def _ends(status: str, headers: dict[str, str]) -> bool:
    """Tell whether a status message ends a request that is to be made anew. Raises NatsError: the consumer is gone."""
    if status == "100":
        return False  # a heartbeat
    text = " ".join(str(value) for value in headers.values())
    if status in ("404", "408") or (status == "409" and ("MaxBytes" in text or "Batch Completed" in text)):
        return True
    raise NatsError(f"the server ends the reading: {text}")


def _now_us() -> int:
    return time.time_ns() // 1000
