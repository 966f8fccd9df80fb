"""The devices that the relay keeps a cursor for, by the names that they gave.

Owns: `Devices`: which names there are, whose they are, where each stands, which connection moves it, how many there may
be, and where a device that comes back goes on. It must not know sockets or the journal: a connection is a `Holder`, and
what is to be kept goes to a function. No I/O; time is an argument. Read `viewers/device_link` next.

A device belongs to the token that it was used with: the same name with another token is another device, so nobody can
move a cursor with a token of his own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from logrelay.errors import RequestError, quoted
from logrelay.model import DeviceRow

MAX_DEVICES = 4096
"""Devices that are remembered, a few hundred bytes each, in memory and in the journal's file."""

DEVICES_PER_OWNER = 64
"""Of one token: what makes up names takes the places of its own devices and of nobody else's."""

FORGET_S = 30 * 86_400.0
"""A device that was not seen for so long is forgotten: what it has missed is in the journal no longer, mostly."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""As the names of tokens: they are in URLs, metrics and messages without any quoting."""


def check_device(name: str) -> str:
    """Return the name of a device. Raises RequestError (`bad_device`)."""
    if not _NAME.fullmatch(name):
        raise RequestError(
            "bad_device",
            f"{quoted(name)} cannot be the name of a device; allowed: 1 to 64 letters, digits and . _ -, the first a "
            "letter or a digit",
        )
    return name


class Holder(Protocol):
    """The connection that moves a device's cursor."""

    def give_up(self) -> None:
        """Say where the device stands by `Devices.left`, and close: it has come back on another connection."""


@dataclass(slots=True, eq=False)
class Device:
    """One device. Only `Devices` changes it."""

    id: int
    """The number of its row."""
    owner: str
    """The id of the token that it was used with; empty: none was needed."""
    name: str
    seen_s: float
    """Monotonic time at which it was connected last, while it is not."""
    seq: int | None = None
    """It has every line up to here. None: nobody knows yet, or only by `position`."""
    position: str = ""
    """The id of that line, as a relay before has left it."""
    holder: Holder | None = None

    def begin(self, holder: Holder) -> None:
        """Have `holder` move the cursor from now on."""
        self.holder = holder

    def move(self, holder: Holder, seq: int) -> None:
        """Note that it has received every line up to `seq`."""
        assert self.holder is holder, "only one connection moves a cursor"
        self.seq = seq

    def end(self, mono_s: float) -> None:
        """Note that it is not connected any more."""
        self.holder = None
        self.seen_s = mono_s


class Devices:
    """The devices of one relay. Belongs to one event loop.

    `rows` are those that the journal has. A device that comes back within `window_s` seconds goes
    on where it was. `mono_s` and `wall_us` are the monotonic clock in seconds and the wall clock in microseconds.
    """

    def __init__(
        self,
        rows: Sequence[DeviceRow],
        *,
        window_s: float,
        mono_s: float,
        wall_us: int,
    ) -> None:
        self._window_s = window_s
        self._by_key: dict[tuple[str, str], Device] = {}
        self._free: list[int] = []
        """Numbers of rows that were given out and are free again."""
        self.connected = 0
        """Devices that are connected now."""
        self._resumes = self._late = self._conflicts = self._forgotten = 0
        for row in rows[:MAX_DEVICES]:
            # One that was connected when the relay died was last seen at a time that nobody has written down: now.
            away_s = 0.0 if row.connected else max(0.0, (wall_us - row.seen_us) / 1e6)
            self._by_key[row.owner, row.name] = Device(
                row.id, row.owner, row.name, mono_s - away_s, position=row.position
            )
        self._last_id = max((row.id for row in rows), default=0)

    def find(self, owner: str, name: str, mono_s: float) -> Device | None:
        """Return the device, made if there is none; None: its token has as many as it may, and all are connected."""
        device = self._by_key.get((owner, name))
        if device is not None and device.holder is None and mono_s - device.seen_s > FORGET_S:
            self._forget(device)
            device = None
        if device is None:
            device = self._make(owner, name, mono_s)
        return device

    def _make(self, owner: str, name: str, mono_s: float) -> Device | None:
        own = [device for device in self._by_key.values() if device.owner == owner]
        crowd = own if len(own) >= DEVICES_PER_OWNER else self._by_key.values()
        if crowd is own or len(self._by_key) >= MAX_DEVICES:
            away = [device for device in crowd if device.holder is None]
            if not away:
                return None
            self._forget(min(away, key=lambda device: device.seen_s))
        if self._free:
            number = self._free.pop()
        else:
            self._last_id = number = self._last_id + 1
        device = self._by_key[owner, name] = Device(number, owner, name, mono_s)
        return device

    def _forget(self, device: Device) -> None:
        """Forget a device; its row is overwritten by the next one that is new."""
        del self._by_key[device.owner, device.name]
        self._free.append(device.id)
        self._forgotten += 1

    def is_late(self, device: Device, mono_s: float) -> bool:
        """Tell whether a device was away for longer than the window; one that is connected still was not."""
        return device.holder is None and mono_s - device.seen_s > self._window_s

    def take(self, device: Device, holder: Holder) -> None:
        """Have another connection move the cursor; the one that does it now has to give it up."""
        if device.holder is not None:
            device.holder.give_up()
        device.begin(holder)
        self.connected += 1

    def moved(self, device: Device, holder: Holder, seq: int) -> None:
        """Note where a device stands now, as the connection that moves it says."""
        device.move(holder, seq)

    def left(self, device: Device, holder: Holder, seq: int, mono_s: float) -> None:
        """Note that the connection which moved the cursor has ended, and where; below 0: where it began."""
        if seq >= 0:
            device.move(holder, seq)
        device.end(mono_s)
        self.connected -= 1

    def count_resume(self) -> None:
        """Count a device that goes on where it was."""
        self._resumes += 1

    def count_late(self) -> None:
        """Count a device that came back after the window."""
        self._late += 1

    def count_conflict(self) -> None:
        """Count a connection with the name of a device that was connected and alive."""
        self._conflicts += 1

    def counters(self) -> Mapping[str, int]:
        """Return what is counted, by the names in `http.metrics.METRICS`."""
        return {
            "devices": len(self._by_key),
            "devices_connected": self.connected,
            "device_resumes_total": self._resumes,
            "device_late_total": self._late,
            "device_conflicts_total": self._conflicts,
            "devices_forgotten_total": self._forgotten,
        }
