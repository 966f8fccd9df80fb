"""The connection of a device: what it receives is noted as the device's cursor.

Owns: `DeviceLink`, which stands between the hub and the socket of one viewer that has named its device: it pings behind
what is sent, finds out whether another connection of the same name is still alive, and says where the device stands. It
must not know frames of the WebSocket or what a subscription is. Read `viewers/receipts` next.

A name has one cursor, and one connection moves it. Another one that comes meanwhile asks the first by a ping: if it
answers, the newcomer is served like somebody without a name, and told so; if not, it is over, although nobody knew it,
and the newcomer goes on in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from logrelay.fanout.batch import Form
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub_types import Sink
from logrelay.viewers.devices import Device, Devices
from logrelay.viewers.messages import CLOSE_DEVICE
from logrelay.viewers.receipts import AWAKE_S, Receipts
from logrelay.viewers.stream import Stream

NOWHERE = -1
"""The position of a device that has had nothing yet."""

ALIVE_WITHIN_S = 1.5
"""How long the connection that has a name may take to answer a ping before another one has it: a phone's round trip
with a second to spare, and no longer than somebody who looks at an empty list may wait."""

PINGS_PER_S = 2000
"""Pings to all devices together: an answer costs some 20 µs, so this is 4 % of a processor at the most."""

MAX_PROBES = 3
"""Pings sent behind one that has no answer, `AWAKE_S` apart: they tell a network that is silent from a process that
does not read."""

PAYLOAD = b"device "
"""What the pings carry, with a number behind it."""


class DeviceSocket(Sink, Protocol):
    """What is needed of the way to a viewer."""

    @property
    def bytes_written(self) -> int:
        """Bytes given to the transport since the connection was opened."""

    @property
    def writing_paused(self) -> bool:
        """True while the socket has no room."""

    def acknowledged_bytes(self) -> int | None:
        """Return how many of them the other end's kernel has acknowledged; None: it is not known."""

    def send_ping(self, payload: bytes) -> None:
        """Send a WebSocket ping."""

    def close(self, code: int, reason: str) -> None:
        """Close with a code of `messages.CLOSE_CODES`."""


class DeviceLink:
    """One connection of a device, from the opening of its WebSocket to its end.

    It joins the stream itself, as `viewer`, which gets nothing until it is started. Belongs to one event loop.
    """

    def __init__(
        self,
        devices: Devices,
        device: Device,
        stream: Stream,
        socket: DeviceSocket,
        wanted: Filter,
        form: Form,
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._devices = devices
        self._device = device
        self._stream = stream
        self._socket = socket
        self._loop = loop
        self.viewer = stream.join(self, wanted, form, deflate=False)
        self._receipts: Receipts | None = None
        """Exists while this connection moves the cursor."""
        self._number = 0
        """Of the last ping."""
        self._mark_requested = False
        self._pinged_at = 0.0
        self._ping_timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._askers: list[Callable[[bool], None]] = []
        """Who waits to hear whether the other end is alive."""
        self._ask_timer: asyncio.TimerHandle | None = None
        self._ask_number = 0
        """Of the ping whose answer they wait for."""
        self._dropped = False
        """The socket has taken no more: what the hub has sent since was not sent."""
        self._ended = False

    # --- whose turn it is -----------------------------------------------------------------------------------------

    def claim(self, on_decided: Callable[[bool], None]) -> None:
        """Find out whether this connection is to move the cursor, and call `on_decided` with that, now or later."""
        holder = self._device.holder
        if isinstance(holder, DeviceLink):
            holder.ask(lambda alive: self._on_asked(holder, on_decided, alive=alive))
        else:
            on_decided(True)

    def _on_asked(self, holder: DeviceLink, on_decided: Callable[[bool], None], *, alive: bool) -> None:
        if self._ended:
            return
        if self._device.holder not in (holder, None):
            self.claim(on_decided)  # somebody else was quicker
        elif alive:
            self._devices.count_conflict()
            on_decided(False)
        else:
            on_decided(True)

    def take(self) -> None:
        """Move the cursor from now on: whoever does it now says where the device stands, and is closed."""
        self._devices.take(self._device, self)
        self._receipts = Receipts(NOWHERE, self._socket.bytes_written)

    def begin_behind(self, seq: int) -> None:
        """Note that the viewer is to begin behind `seq`, which it has; nothing was sent yet."""
        self._receipts = Receipts(seq, self._socket.bytes_written)
        self._moved(seq)

    def ask(self, on_answer: Callable[[bool], None]) -> None:
        """Ask the other end whether it is alive, and call `on_answer` with that."""
        receipts = self._receipts
        if self._ended or (receipts is not None and receipts.unanswered_s(self._loop.time()) >= ALIVE_WITHIN_S):
            on_answer(False)
            return
        self._askers.append(on_answer)
        if self._ask_timer is None:
            self._ask_timer = self._loop.call_later(ALIVE_WITHIN_S, self._tell_askers, False)
            self._ping()
            self._ask_number = self._number

    def _tell_askers(self, alive: bool) -> None:
        if self._ask_timer is not None:
            self._ask_timer.cancel()
            self._ask_timer = None
        askers, self._askers = self._askers, []
        for on_answer in askers:
            on_answer(alive)

    def give_up(self) -> None:
        """Say where the device stands, and close: it has come back on another connection."""
        self.end(in_order=False)
        self._socket.close(CLOSE_DEVICE, f"device {self._device.name} has come back on another connection")

    # --- what is sent (hub_types.Sink) ----------------------------------------------------------------------------

    def write(self, payload: bytes) -> bool:
        """Send ready-made frames, and note where they end."""
        socket, receipts = self._socket, self._receipts
        start = socket.bytes_written
        room = socket.write(payload)
        if socket.bytes_written - start != len(payload):
            self._dropped = True
        elif receipts is not None:
            if self.viewer.skip is None:  # else the notice about what was left out before these lines is owed
                receipts.wrote(start, payload)
            self._request_mark()
        return room

    def _request_mark(self) -> None:
        """Have the position noted once the hub is through with what it is doing."""
        if not self._mark_requested:
            self._mark_requested = True
            self._loop.call_soon(self._mark)

    def _mark(self) -> None:
        self._mark_requested = False
        receipts = self._receipts
        if receipts is None or self._dropped:
            return
        position = self._stream.received(self.viewer)
        if position is not None:
            receipts.mark(self._socket.bytes_written, position)
            self._note()
            self._ping_if_due()

    # --- pings ----------------------------------------------------------------------------------------------------

    def _ping_if_due(self) -> None:
        receipts = self._receipts
        if receipts is None or not receipts.wants_ping or self._ping_timer is not None or self._socket.writing_paused:
            return
        wait_s = self._pinged_at + self._devices.connected / PINGS_PER_S - self._loop.time()
        if wait_s > 0:
            self._ping_timer = self._loop.call_later(wait_s, self._on_ping_timer)
        else:
            self._ping()

    def _on_ping_timer(self) -> None:
        self._ping_timer = None
        self._ping_if_due()

    def _ping(self) -> None:
        now = self._pinged_at = self._loop.time()
        self._number += 1
        self._socket.send_ping(PAYLOAD + b"%d" % self._number)
        if self._receipts is not None:
            self._receipts.pinged(self._number, self._socket.bytes_written, now)
            if self._probe_timer is None:
                self._probe_timer = self._loop.call_later(AWAKE_S, self._probe)

    def _probe(self) -> None:
        """Send another ping behind one that has no answer, if it has been without one for long enough."""
        self._probe_timer = None
        receipts = self._receipts
        if receipts is None or not 0 < receipts.unanswered <= MAX_PROBES:
            return
        left_s = AWAKE_S - receipts.unanswered_s(self._loop.time())
        if left_s > 0:
            self._probe_timer = self._loop.call_later(left_s, self._probe)
        elif not self._socket.writing_paused:
            self._ping()

    def answered(self, payload: bytes) -> None:
        """Take a pong, be it the answer to a ping of ours or to one of somebody else's."""
        text = payload.removeprefix(PAYLOAD)
        number = int(text) if text.isdigit() and len(text) < len(payload) else 0
        receipts = self._receipts
        if receipts is not None:
            before = receipts.position
            receipts.answered(number)
            if receipts.all_read:
                self._mark()  # what is not wanted moves the position too, and nothing is written for it
            if receipts.position != before:
                self._moved(receipts.position)
            self._ping_if_due()
        if self._askers and number >= self._ask_number:
            self._tell_askers(True)

    def room(self) -> None:
        """Go on with what could not be sent while the socket was full."""
        self._request_mark()

    # --- the end --------------------------------------------------------------------------------------------------

    def close_answered(self) -> None:
        """The other end has answered our close, and so it has read everything before it."""
        if self._receipts is not None and self._receipts.read_up_to(self._socket.bytes_written):
            self._moved(self._receipts.position)

    def end(self, *, in_order: bool) -> None:
        """Say where the device stands; `in_order`: the other end said goodbye, and nothing of it is on the way."""
        self._ended = True
        for timer in (self._ping_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        receipts, self._receipts = self._receipts, None
        if receipts is not None:
            acknowledged = None if in_order else self._socket.acknowledged_bytes()
            seq = receipts.received(acknowledged, self._loop.time())
            if receipts.all_read and not self._dropped:
                seq = self._stream.received(self.viewer) or seq
            device = self._device
            self._devices.left(device, self, seq, self._loop.time())
            self._stream.keep_device(device.id, device.owner, device.name, lambda: seq, connected=False)
        self._tell_askers(False)

    def _moved(self, seq: int) -> None:
        if seq != NOWHERE:
            self._devices.moved(self._device, self, seq)
            self._note(seq)

    def _note(self, sure: int = 0) -> None:
        """Have it written down where the device stands, as it is known when that is done."""
        device = self._device
        self._stream.keep_device(device.id, device.owner, device.name, self._standing, connected=True, sure=sure)

    def _standing(self) -> int:
        receipts = self._receipts
        if receipts is None:
            return NOWHERE if self._device.seq is None else self._device.seq
        return receipts.standing(self._socket.acknowledged_bytes(), self._loop.time())
