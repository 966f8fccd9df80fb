"""One viewer: what it subscribed to, and what it asked for since.

Owns: where a subscription begins, what a request changes, and history, answered one request after another. It must not
know frames or sockets: it gets whole messages and a `ViewerSocket` to answer on. Read `viewers/history_turns` next.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from logrelay.errors import JournalError, RequestError
from logrelay.fanout.batch import Form
from logrelay.fanout.filters import Filter, Notices, is_search
from logrelay.fanout.hub_types import Gap, Viewer
from logrelay.fanout.line_json import notice_body
from logrelay.fanout.positions import Lost
from logrelay.journal.interface import Query
from logrelay.model import WARNING
from logrelay.viewers import messages
from logrelay.viewers.alerting import AlertFacts, NoAlerts
from logrelay.viewers.device_link import DeviceLink, DeviceSocket
from logrelay.viewers.devices import Device, Devices
from logrelay.viewers.history_turns import HistoryTurns, Turn
from logrelay.viewers.requests import History, Ping, Silence, Subscribe, parse_request, parse_target
from logrelay.viewers.stream import Stream

MAX_HISTORIES = 4
"""History requests a viewer may have waiting; a person scrolls one page at a time."""

MAX_DEFERRED = 16
"""Subscriptions that wait for the second or two in which it is found out where a device begins."""

HISTORY_BYTES = messages.MESSAGE_BYTES - 4096
"""Bytes of lines, commas included, after which a history answer ends early, with `more` true: lines can be 64 KiB long.
What is left of a message is for a notice of a gap and for what is around the lines."""

MAX_REASON_CHARS = 100
"""Of an error, how much goes into the close frame, whose reason has at most 123 bytes (RFC 6455 section 5.5)."""


class ViewerSocket(DeviceSocket, Protocol):
    """The way to one viewer: ready frames (`Sink.write`), single messages, pings, and the end.

    While it has no room `writing_paused` is True, and `Session.writing_resumed` is called when it has. After `close`
    nothing is sent or received any more.
    """

    def send(self, text: bytes) -> None:
        """Send one text message."""


class _HistoryRequest(NamedTuple):
    """A history request whose id has been looked up."""

    before: int
    limit: int
    gap: Gap | None
    """Lines between what is answered and the id that was given, which the journal does not have."""
    notices: Notices | None
    """Which notices are wanted, where it is not what the subscription says."""


def unsynced_gap(lost: Lost) -> Gap:
    """Return the gap that tells a viewer of lines that it was shown and the journal does not have."""
    return Gap("unsynced", lost.first, lost.last, lost.lines, None, epoch=lost.epoch)


def _fitting(bodies: Sequence[bytes], room: int) -> int:
    """Return how many of the last bodies fit, with a comma each."""
    fits = 0
    for body in reversed(bodies):
        room -= len(body) + 1
        if room < 0:
            break
        fits += 1
    return fits


class Session:
    """One viewer's subscription and requests, from the opening of its WebSocket to the end of its connection.

    `tail` is the number of lines it begins with unless it asks otherwise; `form` and `deflate` are what the handshake
    agreed on. `history_turns` are shared by all sessions. `devices` has the cursors of devices; those of this viewer's
    token have the owner `owner`. Belongs to one event loop.
    """

    __slots__ = (
        "_alerts",
        "_deferred",
        "_deflate",
        "_devices",
        "_form",
        "_histories",
        "_history_task",
        "_history_turns",
        "_link",
        "_loop",
        "_owner",
        "_silence_task",
        "_socket",
        "_stream",
        "_tail",
        "_viewer",
    )

    def __init__(
        self,
        stream: Stream,
        socket: ViewerSocket,
        *,
        form: Form,
        deflate: bool,
        tail: int,
        loop: asyncio.AbstractEventLoop,
        devices: Devices | None = None,
        owner: str = "",
        alerts: AlertFacts | None = None,
        history_turns: HistoryTurns | None = None,
    ) -> None:
        self._alerts: AlertFacts = alerts or NoAlerts()
        self._silence_task: asyncio.Task[None] | None = None
        self._devices = devices
        self._owner = owner
        self._link: DeviceLink | None = None
        """Between the hub and the socket, where the URL names a device."""
        self._deferred: deque[Subscribe] | None = None
        """What was asked for while it is being found out where this device begins; None: that is known."""
        self._stream = stream
        self._socket = socket
        self._form: Form = form
        self._deflate = deflate
        self._tail = tail
        self._loop = loop
        self._viewer: Viewer | None = None
        """None until `begin`, and for good when the subscription in the URL was wrong."""
        self._histories: deque[_HistoryRequest] = deque()
        self._history_task: asyncio.Task[None] | None = None
        self._history_turns = history_turns or HistoryTurns()

    # --- what the connection reports ------------------------------------------------------------------------------

    def begin(self, target: str) -> None:
        """Begin where the query of the request target says; a wrong one is answered with an error and closed."""
        try:
            wanted = parse_target(target)
        except RequestError as error:
            self._socket.send(messages.error(error.code, str(error)))
            self._socket.close(messages.CLOSE_BAD_REQUEST, str(error)[:MAX_REASON_CHARS])
            return
        self._note(wanted.note)
        name, devices = wanted.device, self._devices
        device = None if name is None or devices is None else devices.find(self._owner, name, self._loop.time())
        if device is not None and devices is not None:
            self._begin_device(devices, device, wanted)
            return
        if name is not None and devices is not None:
            self._notify(f"too many devices are connected with this token to keep a position for {name}, too")
        self.follow(wanted)

    def follow(self, wanted: Subscribe) -> None:
        """Begin where the subscription says."""
        viewer = self._stream.join(self._socket, wanted.filter or Filter(), self._form, deflate=self._deflate)
        self._viewer = viewer
        self._start(viewer, wanted)

    def _begin_device(self, devices: Devices, device: Device, wanted: Subscribe) -> None:
        """Find out whether this connection is the one that moves the device's cursor, and begin."""
        link = DeviceLink(
            devices, device, self._stream, self._socket, wanted.filter or Filter(), self._form, loop=self._loop
        )
        self._link, self._viewer, self._deferred = link, link.viewer, deque()
        link.claim(lambda mine: self._on_claimed(devices, device, link, wanted, mine=mine))

    def _on_claimed(self, devices: Devices, device: Device, link: DeviceLink, wanted: Subscribe, *, mine: bool) -> None:
        if not mine:
            self._notify(
                f"another connection uses the device name {device.name} and is alive; this one is served without a "
                "name: give each device its own"
            )
            self._start(link.viewer, wanted)
        elif wanted.after is not None:
            link.take()
            self._start(link.viewer, wanted)
        else:
            self._start_device(devices, device, link, wanted)
        deferred, self._deferred = self._deferred, None
        for request in deferred or ():
            self._subscribe(request)

    def _start_device(self, devices: Devices, device: Device, link: DeviceLink, wanted: Subscribe) -> None:
        """Begin where the device was; after too long with the newest lines, and say what lies between."""
        late = devices.is_late(device, self._loop.time())
        link.take()
        stream, seq, gap = self._stream, device.seq, None
        tail = self._tail if wanted.tail is None else wanted.tail
        if seq is None and device.position:
            try:
                position = stream.resolve(device.position)
            except RequestError as error:
                seq = stream.oldest - 1
                gap = Gap("epoch", 0, seq, 0, None, detail=str(error))
            else:
                seq = position.seq
                gap = None if position.lost is None else unsynced_gap(position.lost)
        if seq is None:
            stream.start_tail(link.viewer, tail)
            return
        link.begin_behind(seq)
        if late and gap is None:
            devices.count_late()
            stream.start_tail(link.viewer, tail, behind=seq)
        else:
            devices.count_resume()
            stream.start_after(link.viewer, seq, gap)

    def _note(self, text: str) -> None:
        """Tell the viewer what of its request means nothing, if anything does."""
        if text:
            self._socket.send(messages.note(text))

    def _notify(self, text: str) -> None:
        """Send a notice to this viewer alone."""
        stream = self._stream
        body = notice_body(
            stream.id_of(stream.head), int(time.time() * 1e6), WARNING, text, {"notice": "relay", "state": "device"}
        )
        self._socket.send(b"[%b]" % body if self._form == "batch" else body)

    def message_received(self, text: bytes) -> None:
        """Act on one message of the viewer; a bad one is answered with an error and changes nothing."""
        try:
            request = parse_request(text)
            match request:
                case Subscribe():
                    self._subscribe(request)
                    self._note(request.note)
                case History():
                    self._queue_history(request)
                    self._note(request.note)
                case Ping():
                    self._socket.send(messages.PONG)
                case Silence():
                    self._begin_silence(request)
        except RequestError as error:
            self._socket.send(messages.error(error.code, str(error)))

    def writing_resumed(self) -> None:
        """Go on with what waits for room in the socket: history answers, then lines."""
        if self._histories:
            self._ensure_history_task()
        if self._viewer is not None:
            self._stream.drained(self._viewer)
        if self._link is not None:
            self._link.room()

    def pong_received(self, payload: bytes) -> None:
        """Take the answer to a ping, which says that everything before it was read."""
        if self._link is not None:
            self._link.answered(payload)

    def close_answered(self) -> None:
        """The other end has answered our close: it has read everything before it."""
        if self._link is not None:
            self._link.close_answered()

    def connection_lost(self, *, in_order: bool = False) -> None:
        """Forget the viewer; a history answer under way is dropped.

        `in_order`: the other end has ended the connection, and nothing that it sent before is missing.
        """
        if self._history_task is not None:
            self._history_task.cancel()
        if self._silence_task is not None:
            self._silence_task.cancel()
        if self._link is not None:
            self._link.end(in_order=in_order)
        if self._viewer is not None:
            self._stream.leave(self._viewer)

    # --- the subscription -----------------------------------------------------------------------------------------

    def _start(self, viewer: Viewer, wanted: Subscribe) -> None:
        """Begin behind the id that was given, else with the newest lines."""
        stream = self._stream
        if wanted.after is None:
            stream.start_tail(viewer, self._tail if wanted.tail is None else wanted.tail)
            return
        try:
            position = stream.resolve(wanted.after)
        except RequestError as error:
            before = stream.oldest - 1
            stream.start_after(viewer, before, Gap("epoch", 0, before, 0, None, detail=str(error)))
        else:
            lost = position.lost
            stream.start_after(viewer, position.seq, None if lost is None else unsynced_gap(lost))

    def _subscribe(self, wanted: Subscribe) -> None:
        viewer, stream = self._viewer, self._stream
        if viewer is None:
            return
        if self._deferred is not None:
            if len(self._deferred) >= MAX_DEFERRED:
                raise RequestError("busy", "it is being found out where this device begins; ask again")
            self._deferred.append(wanted)
            return
        asked = None if wanted.filter is None else wanted.filter.within(viewer.filter.limit)
        changed = asked if asked != viewer.filter else None
        self._socket.send(messages.subscribed(changed or viewer.filter, stream.id_of(stream.head)))
        if wanted.after is not None or wanted.tail is not None:
            if changed is not None:
                stream.change(viewer, changed)
            self._start(viewer, wanted)
        elif changed is not None:
            stream.resubscribe(viewer, changed)
        # Nothing asked for that is not so already: the app subscribes to what it has been getting since it connected.

    # --- alerts ---------------------------------------------------------------------------------------------------

    def _begin_silence(self, request: Silence) -> None:
        if self._silence_task is not None:
            raise RequestError("busy", "a request to silence a bot is under way; wait for its answer")
        self._silence_task = self._loop.create_task(self._silence(request))

    async def _silence(self, request: Silence) -> None:
        try:
            await self._alerts.silence(request.app, request.for_s)
        except RequestError as error:
            self._socket.send(messages.error(error.code, str(error)))
        else:
            self._socket.send(messages.alerts(self._alerts.shown()))
        finally:
            self._silence_task = None

    # --- history --------------------------------------------------------------------------------------------------

    def _queue_history(self, request: History) -> None:
        position = self._stream.resolve(request.before)
        if len(self._histories) >= MAX_HISTORIES:
            raise RequestError("busy", f"{MAX_HISTORIES} history requests are waiting already; wait for their answers")
        lost = position.lost
        # The line of the id itself was not asked for.
        told = None if lost is None or lost.lines == 1 else unsynced_gap(lost._replace(last=lost.last - 1))
        self._histories.append(_HistoryRequest(position.end, request.limit, told, request.notices))
        self._ensure_history_task()

    def _ensure_history_task(self) -> None:
        if self._history_task is None:
            self._history_task = self._loop.create_task(self._serve_histories())

    async def _serve_histories(self) -> None:
        """Answer one request after another, as long as the socket has room."""
        try:
            while self._histories and not self._socket.writing_paused:
                await self._answer_history(self._histories[0])
                self._histories.popleft()
        finally:
            self._history_task = None

    async def _answer_history(self, request: _HistoryRequest) -> None:
        # A call of its own: what is sent is kept by nobody while the next answer is waited for.
        try:
            bodies, more = await self._read_history(request)
        except JournalError as error:
            self._socket.send(messages.error("journal", f"the journal cannot be read: {error}"))
            return
        if request.gap is not None:
            bodies.append(self._stream.render_gap(request.gap))
        self._socket.send(messages.history(bodies, more))

    async def _read_history(self, request: _HistoryRequest) -> tuple[list[bytes], bool]:
        """Return the newest matches before a seq, ascending, and whether there may be more. Raises JournalError."""
        wanted = self._viewer.filter if self._viewer is not None else Filter()
        if request.notices is not None:
            wanted = replace(wanted, notices=request.notices)
        async with self._history_turns.turn(search=is_search(wanted)) as turn:
            return await self._read_pages(request, wanted, turn)

    async def _read_pages(self, request: _HistoryRequest, wanted: Filter, turn: Turn) -> tuple[list[bytes], bool]:
        stream = self._stream
        bodies: list[bytes] = []
        until = min(request.before - 1, stream.committed)
        size, left = 0, request.limit
        while until >= stream.oldest and left > 0 and size < HISTORY_BYTES:
            page = await stream.read(
                Query(
                    after=stream.oldest - 1,
                    until=until,
                    limit=left,
                    filter=wanted,
                    newest=True,
                    max_bytes=max(1, HISTORY_BYTES - size),
                )
            )
            fits = _fitting(page.bodies, HISTORY_BYTES - size)
            bodies = page.bodies[len(page.bodies) - fits :] + bodies
            if fits < len(page.bodies):
                return bodies, True
            left -= page.counted
            size += sum(map(len, page.bodies)) + len(page.bodies)
            turn.keeps(size)
            if page.complete:
                return bodies, False
            until = page.reached if not page.seqs else page.seqs[0] - 1
        return bodies, until >= stream.oldest
