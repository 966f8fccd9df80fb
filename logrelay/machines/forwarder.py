"""Forwards the journal's lines to a JetStream stream, on a thread of its own.

Owns: `Forwarder`: the connection, its end and its return, one batch in flight at a time, and what is told of all that.
It must not read the journal (`line_feed` hands it pages) nor decide where it goes on (`forward_plan` does). Read
`nats_link` next.

One batch is in flight, because each names the sequence of the one before: what the server then refuses is in the
stream already, so nothing is ever stored twice or out of order, whatever was cut, killed or sent again. While it is in
flight the next one is read, and it is as large as the server takes, so that waiting costs little.

The thread keeps the event loop from noticing any of it: large messages are packed here, and nats-py works here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from threading import Thread
from typing import Any, TypeVar

from logrelay.config.nats_url import NatsUrl
from logrelay.errors import JournalError, RelayError
from logrelay.fanout.positions import Epochs
from logrelay.journal.interface import RowPage
from logrelay.machines import edge_state, stream_batch
from logrelay.machines.edge_state import STATE_EVERY_S, EdgeState
from logrelay.machines.forward_plan import Cutter, LastMessage, Resume, resume, row_of
from logrelay.machines.line_feed import LineFeed
from logrelay.machines.nats_link import (
    REQUEST_TIMEOUT_S,
    NatsError,
    NatsRefusedError,
    NatsSettings,
    as_nats_error,
    close,
    connect,
    denied,
    ensure_stream,
)
from logrelay.machines.overview import link_shown
from logrelay.machines.stream_batch import LINES_SUBJECT, BadBatchError, StreamBatch, position_of, split
from logrelay.model import INFO, WARNING, ForwardRow

MOST_BATCH_BYTES = 768 << 10
"""Bodies in one message: some 3,000 lines, so that a network of 100 ms still takes 30,000 lines in a second. Under the
default of a server's max_payload."""
LEAST_BATCH_BYTES = 16 << 10
"""A slow network gets smaller messages, down to this, until it keeps up."""
SLOWEST_BYTES_PER_S = 20_000.0
"""What a network takes at the least: a message is waited for so long, besides a round trip's time."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.25, 10.0
"""Between two attempts to connect. They double, and are shortened by up to a half at random, so that the edges of a
server that comes back do not all come at once."""
REFUSED_PAUSE_S = 10.0
"""After a server has refused something that only a person can change."""
TELL_AFTER_S = 5.0
"""Trouble that is over sooner is no news: a server that is restarted, a Wi-Fi that changes."""
READ_PAUSE_S = 1.0
"""After the journal could not be read."""
WRONG_SEQUENCE = 10071
"""JetStream's code for a message whose expected sequence is not that of the subject."""
NO_MESSAGE = 10037
CLOSE_TIMEOUT_S = 0.5
"""For closing a connection: what was sent is acknowledged by then, or will be sent again."""
TELL_EVERY_S = 600.0
"""Trouble that comes again and again is told of this often at most, each time with how it is then."""
TELL_OTHER_EVERY_S = 3600.0
"""The same for another relay that forwards under our name."""
OTHER_PAUSE_S = 60.0
"""Before we go on where another relay forwards under our name: both lose no line, and nobody wants that to be quick."""
MOST_REFUSALS = 5
"""Batches refused in a row that the stream should have taken: a replica may answer with what was true a moment ago."""

_Answer = TypeVar("_Answer")


class _SentElsewhereError(Exception):
    """The stream's last message of this edge is not the one that we think it is."""


class Forwarder:
    """Forwards lines until it is stopped. `start`, `stop` and the counters are for the relay's loop."""

    def __init__(
        self,
        settings: NatsSettings,
        edge: str,
        feed: LineFeed,
        *,
        noted: list[ForwardRow],
        epochs: Epochs,
        random_text: Callable[[int], str],
        random: Callable[[], float],
        version: str,
        now_us: Callable[[], int],
        is_collected: Callable[[bytes], bool] = lambda _body: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe what is forwarded; nothing is connected before `start`.

        Args:
            settings: the servers and the stream.
            edge: our name there.
            feed: where pages come from.
            noted: what the journal remembers of streams.
            epochs: those of the journal.
            random_text: returns so many random letters and digits.
            random: returns a number from 0 to 1.
            version: of this relay, for the state.
            now_us: the machine's clock.
            is_collected: tells of the body of a line whether it came from a stream: such lines are not sent back.
            clock: seconds.
        """
        self._settings, self._edge, self._feed = settings, edge, feed
        self._target = f"{settings.stream}/{edge}"
        self._noted = next((row for row in noted if row.target == self._target), None)
        self._epochs, self._random_text, self._random = epochs, random_text, random
        self._version, self._now_us, self._clock, self._is_collected = version, now_us, clock, is_collected
        self._started_us = now_us()
        self._thread = Thread(target=self._run, name="forwarder", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._stop_asked = False
        self._serving: asyncio.Task[None] | None = None
        self._batch_bytes = MOST_BATCH_BYTES
        self._forwarded = 0
        self._journal = self._noted.journal if self._noted is not None else ""
        self._trouble_since: float | None = None
        self._trouble = ""
        self._trouble_us = self._started_us
        """Since when lines are not forwarded, by the machine's clock; 0: they are."""
        self._told = False
        self._told_at = self._other_told_at = self._other_at = float("-inf")
        self._refusals = 0
        self._is_told_unheard = False
        self._connected = False
        self._connections = self._lines = self._bytes = self._batches = self._duplicates = self._lost = 0
        self._in_flight = 0

    # --- for the relay's loop ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Send what is committed as long as that takes no longer than `grace_s`, then end; blocks until it has.

        What is not sent stays in the journal and goes at the next start. Whatever a server does, this returns within
        two CLOSE_TIMEOUT_S after the grace.
        """
        self._stop_asked = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._on_stop, grace_s)
        if self._thread.ident is not None:
            self._thread.join(grace_s + 2 * CLOSE_TIMEOUT_S)

    def link_shown(self) -> Mapping[str, object]:
        """Return how the connection to the servers is, as health checks are told of it."""
        since_us = self._trouble_us
        shown = link_shown(since_us, self._trouble, connected=not since_us)
        return shown | {"lag_lines": self._feed.lag_lines}

    @property
    def trouble(self) -> str:
        """Why lines are not forwarded at the moment; empty: they are."""
        return self._trouble

    def counters(self) -> Mapping[str, int | float]:
        """Return what is counted here, by the names of `http.metrics.METRICS`."""
        return {
            "forward_connected": int(self._connected),
            "forward_lines_total": self._lines,
            "forward_bytes_total": self._bytes,
            "forward_batches_total": self._batches,
            "forward_in_flight": self._in_flight,
            "forward_lag_lines": self._feed.lag_lines,
            "forward_lag_seconds": self._feed.lag_s,
            "forward_reconnects_total": max(0, self._connections - 1),
            "forward_duplicates_total": self._duplicates,
            "forward_lost_lines_total": self._lost,
        }

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner() as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(self._serve())

    def _on_stop(self, grace_s: float) -> None:
        assert self._loop is not None
        assert self._stopping is not None
        assert self._serving is not None
        self._stopping.set()
        if self._connected and self._feed.lag_lines:
            self._loop.call_later(grace_s, self._serving.cancel)
        else:
            self._serving.cancel()

    async def _serve(self) -> None:
        self._stopping, self._serving = asyncio.Event(), asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._stop_asked:
            return
        pause_s, turn = FIRST_PAUSE_S, 0
        while not self._is_over():
            server = self._settings.servers[turn % len(self._settings.servers)]
            turn += 1
            before = self._batches
            try:
                await self._session(server)
            except NatsRefusedError as error:
                self._note_trouble(str(error), at_once=True)
                pause_s = REFUSED_PAUSE_S
            except (NatsError, RelayError) as error:
                self._note_trouble(str(error))
                pause_s = FIRST_PAUSE_S if self._batches > before else min(pause_s * 2, LAST_PAUSE_S)
            except _OtherRelayError as error:
                self._note_trouble(str(error), at_once=True)
                pause_s = OTHER_PAUSE_S
            except Exception as error:  # nobody would notice a thread that is gone
                self._note_trouble(f"an error that nobody expected: {error!r}", at_once=True)
                pause_s = LAST_PAUSE_S
            self._connected, self._in_flight = False, 0
            await self._pause(pause_s * (1 - self._random() / 2))

    def _is_over(self) -> bool:
        return self._stop_asked and (not self._connected or self._has_sent_all)

    @property
    def _has_sent_all(self) -> bool:
        """Whether nothing is left to send.

        The feed learns of what was sent on another thread, a moment later: whoever asked it at the end might wait for a
        line that never comes.
        """
        oldest, head = self._feed.ends
        return head <= max(self._forwarded, oldest - 1)

    async def _pause(self, seconds: float) -> None:
        """Wait before another attempt; being stopped ends it."""
        assert self._stopping is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        if self._trouble_since is not None:
            self._note_trouble(self._trouble)  # it may have lasted long enough to be told

    def _note_trouble(self, text: str, *, at_once: bool = False) -> None:
        now = self._clock()
        if self._trouble_since is None:
            self._trouble_since = now
            self._trouble_us = self._trouble_us or self._now_us()
        self._trouble = text
        is_due = at_once or now - self._trouble_since >= TELL_AFTER_S
        if is_due and not self._told and not self._stop_asked and now - self._told_at >= TELL_EVERY_S:
            self._told, self._told_at = True, now
            said = f"lines are not forwarded: {text}; they stay in the journal, and go when it works again"
            self._feed.announce(WARNING, said, {"state": "forward_trouble", "reason": text})

    def _note_well(self) -> None:
        self._trouble_since, self._trouble, self._trouble_us = None, "", 0
        if self._told:
            self._told = False
            waiting = self._feed.lag_lines
            text = f"lines are forwarded again; {waiting:,} have waited"
            self._feed.announce(INFO, text, {"state": "forward_recovered", "count": waiting})

    async def _session(self, server: NatsUrl) -> None:
        """Connect, and forward until something ends it; then that is raised. Returns when it is to stop."""
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def on_closed() -> None:
            if not closed.done():
                closed.set_result(None)

        client = await connect(
            self._settings, server, name=f"logrelay {self._edge}", inbox=self._edge, on_closed=on_closed
        )
        try:
            objection = stream_batch.payload_objection(client.max_payload)
            if objection is not None:
                raise NatsRefusedError(f"{server.public}: {objection}")
            link = _Link(client, server, closed)
            info = await link.do(ensure_stream(client, self._settings, server))
            self._connections += 1
            self._connected = True
            states = asyncio.create_task(self._say_states(link))
            try:
                await self._forward(link, str(info.created))
            finally:
                states.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await states
        finally:
            self._connected = False
            await close(client, CLOSE_TIMEOUT_S)

    async def _forward(self, link: _Link, made: str) -> None:
        while not self._is_over():
            begin = await self._resume(link, made)
            self._journal = begin.journal
            self._set_forwarded(begin.seq, None)
            self._note_well()
            try:
                await self._publish_from(link, begin, made)
            except _SentElsewhereError as error:
                self._refusals += 1
                if self._refusals > MOST_REFUSALS:
                    self._refusals = 0
                    raise NatsError(f"{link.server.public}: the stream refuses the next batch: {error}") from None
                # It may have been made anew meanwhile.
                made = str((await link.do(ensure_stream(link.client, self._settings, link.server))).created)
            else:
                return

    async def _resume(self, link: _Link, made: str) -> Resume:
        last = await self._last_message(link)
        oldest, head = self._feed.ends
        found = resume(
            self._noted,
            last,
            made=made,
            epochs=self._epochs,
            oldest=oldest,
            head=head,
            new_journal=lambda: self._random_text(16),
        )
        if found.acknowledged:
            self._duplicates += 1
        now = self._clock()
        if found.other and self._batches and now - self._other_at >= OTHER_PAUSE_S / 2:
            self._other_at = now + OTHER_PAUSE_S / 2
            raise _OtherRelayError(
                f"another relay forwards as {self._edge} to stream {self._settings.stream}, its last line is "
                f"{found.other}; give each machine its own --edge-name"
            )
        if found.other and now - self._other_told_at >= TELL_OTHER_EVERY_S:
            self._other_told_at = now
            text = (
                f"the last line of {self._edge} in the stream, {found.other}, is not of this journal: the journal is a "
                "new one, or another relay forwards under this name"
            )
            self._feed.announce(WARNING, text, {"state": "forward_other", "last": found.other})
        return found

    async def _last_message(self, link: _Link) -> LastMessage | None:
        """Ask the stream for its last message of this edge."""
        js = link.client.jetstream(timeout=REQUEST_TIMEOUT_S)
        subject = LINES_SUBJECT + self._edge
        try:
            try:
                # Of all ways to ask, the one that a server can allow for a single subject.
                found = await link.do(js.get_last_msg(self._settings.stream, subject, direct=True))
            except NatsError:
                # A stream that somebody made without allow_direct.
                found = await link.do(js.get_last_msg(self._settings.stream, subject))
        except _NotThereError:
            return None
        try:
            journal, id_ = position_of(found.headers)
        except BadBatchError as error:
            raise NatsRefusedError(
                f"{link.server.public}: the last message on {subject} is not of a relay ({error}); purge the subject"
            ) from None
        sequence = found.seq if found.seq is not None else 0
        return LastMessage(journal, id_, sequence)

    async def _publish_from(self, link: _Link, begin: Resume, made: str) -> None:
        cutter = Cutter(self._edge, begin, epoch_of=self._epochs.of, is_collected=self._is_collected)
        expected, most = begin.expected, min(link.client.max_payload, stream_batch.HEADER_BYTES + (1 << 20))
        following = self._feed.next_page(begin.seq, self._batch_bytes)
        while True:
            page = await self._wait_page(link, following)
            if page is None:
                return
            cut = cutter.cut(page)
            following = self._feed.next_page(cut.reached, self._batch_bytes)
            for batch in cut.batches:
                for part in split(batch, most):
                    expected = await self._publish(link, part, expected, made)
            if not cut.batches:
                self._set_forwarded(cut.reached, None)

    async def _wait_page(self, link: _Link, following: Future[RowPage]) -> RowPage | None:
        """Wait for lines; None: it is to stop."""
        assert self._stopping is not None
        page = asyncio.wrap_future(following)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            while True:
                waits: list[asyncio.Future[Any]] = [page, link.closed]
                if not self._stop_asked:
                    waits.append(stopped)
                # What is committed is sent; once there is nothing more of it, nothing is waited for.
                idle = self._stop_asked and self._has_sent_all
                await asyncio.wait(waits, timeout=0.0 if idle else None, return_when=asyncio.FIRST_COMPLETED)
                if page.done():
                    try:
                        return page.result()
                    except JournalError as error:
                        await asyncio.sleep(READ_PAUSE_S)
                        raise NatsError(f"the journal cannot be read: {error}") from None
                link.check()
                if self._stop_asked and self._has_sent_all:
                    return None
        finally:
            stopped.cancel()
            page.cancel()

    async def _publish(self, link: _Link, batch: StreamBatch, expected: int, made: str) -> int:
        """Send one batch and wait for its acknowledgement; returns its sequence in the stream."""
        headers, body = stream_batch.encode(batch, expected_last=expected)
        js = link.client.jetstream()
        timeout_s = REQUEST_TIMEOUT_S + len(body) / SLOWEST_BYTES_PER_S
        self._in_flight = 1
        try:
            ack = await link.do(
                js.publish(batch.subject, body, timeout=timeout_s, headers=headers, stream=self._settings.stream)
            )
        except NatsError:
            self._batch_bytes = max(LEAST_BATCH_BYTES, self._batch_bytes // 4)
            raise
        finally:
            self._in_flight = 0
        self._refusals = 0
        self._batch_bytes = min(MOST_BATCH_BYTES, self._batch_bytes * 2)
        self._duplicates += bool(ack.duplicate)
        self._batches += 1
        self._lines += len(batch.lines)
        self._bytes += len(body)
        self._noted = row_of(batch, target=self._target, stream_seq=ack.seq, made=made)
        self._set_forwarded(batch.last, self._noted)
        self._tell_lost(batch)
        sequence: int = ack.seq
        return sequence

    def _set_forwarded(self, seq: int, row: ForwardRow | None) -> None:
        self._forwarded = seq
        self._feed.note(seq, row)

    def _tell_lost(self, batch: StreamBatch) -> None:
        gone = [hole for hole in batch.holes if hole.cause in ("retention", "too_large")]
        for hole in gone:
            self._lost += hole.size
            of = self._epochs.of
            first, last = f"{of(hole.first)}-{hole.first}", f"{of(hole.last)}-{hole.last}"
            why = (
                "the journal had deleted them (--keep-bytes, --keep-days)"
                if hole.cause == "retention"
                else "they are larger than the server's max_payload"
            )
            text = f"{hole.size:,} {'line' if hole.size == 1 else 'lines'} not forwarded: {why}"
            details = {"state": "forward_lost", "cause": hole.cause, "count": hole.size, "first": first, "last": last}
            self._feed.announce(WARNING, text, details)

    async def _say_states(self, link: _Link) -> None:
        """Say how the edge is, again and again."""
        while True:
            with contextlib.suppress(NatsError):
                await self._say_state(link)
            await asyncio.sleep(STATE_EVERY_S)

    async def _say_state(self, link: _Link) -> None:
        now = await asyncio.wrap_future(self._feed.snapshot())
        state = EdgeState(
            edge=self._edge,
            version=self._version,
            started_us=self._started_us,
            sent_us=self._now_us(),
            interval_s=STATE_EVERY_S,
            journal=self._journal,
            head=now.head_id if now.head else "",
            forwarded=self._forwarded,
            lag_lines=self._feed.lag_lines,
            trouble=now.trouble,
            bots=edge_state.described(now.bots),
        )
        message = edge_state.encode(state)
        while len(message) > link.client.max_payload and state.bots:
            half = len(state.bots) // 2
            state = replace(state, bots=state.bots[:half], more_bots=state.more_bots + len(state.bots) - half)
            message = edge_state.encode(state)
        self._tell_unheard(link, state.subject)
        await link.do(link.client.publish(state.subject, message))

    def _tell_unheard(self, link: _Link, subject: str) -> None:
        """Say once that nobody hears how this edge is, if the server has complained of it since the last time."""
        why = denied(link.client, subject)
        if why is None or self._is_told_unheard:
            return
        self._is_told_unheard = True
        text = f"{why}: hub relays take this edge, and its bots, for unreachable; docs/machines.md has the permissions"
        self._feed.announce(WARNING, text, {"state": "forward_unheard", "reason": why})


class _OtherRelayError(Exception):
    """Somebody else publishes under our name."""


class _NotThereError(Exception):
    """The stream has no such message."""


class _Link:
    """A connection that may end while something is asked over it."""

    def __init__(self, client: Any, server: NatsUrl, closed: asyncio.Future[None]) -> None:
        self.client, self.server, self.closed = client, server, closed

    def check(self) -> None:
        """Raise NatsError when the connection has ended."""
        if self.closed.done() or self.client.is_closed:
            cause = self.client.last_error
            raise NatsError(f"{self.server.public}: the connection has ended" + (f" ({cause})" if cause else ""))

    async def do(self, asking: Awaitable[_Answer]) -> _Answer:
        """Wait for an answer, or for the end of the connection. Raises NatsError, and what is JetStream's own."""
        task = asyncio.ensure_future(asking)
        try:
            waits: list[asyncio.Future[Any]] = [task, self.closed]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.check()
            return task.result()
        except NatsError:
            raise
        except Exception as error:
            code = getattr(error, "err_code", None)
            if code == WRONG_SEQUENCE:
                raise _SentElsewhereError(str(getattr(error, "description", error))) from None
            if code == NO_MESSAGE or (code is None and type(error).__name__ == "NotFoundError"):
                raise _NotThereError from None
            if code is not None:
                raise NatsError(f"{self.server.public}: {getattr(error, 'description', None) or error}") from None
            raise as_nats_error(error, self.server, self.client) from None
        finally:
            task.cancel()
