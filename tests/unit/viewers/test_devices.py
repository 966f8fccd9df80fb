"""Devices: names, owners, bounds, and where one that comes back goes on."""

from __future__ import annotations

import pytest

from logrelay.errors import RequestError
from logrelay.model import DeviceRow
from logrelay.viewers import devices as devices_module
from logrelay.viewers.devices import DEVICES_PER_OWNER, FORGET_S, Devices, check_device


class Holder:
    def __init__(self, devices, device):
        self.devices, self.device = devices, device
        self.gave_up = False

    def give_up(self):
        self.gave_up = True
        self.devices.left(self.device, self, 7, 50.0)


def make(*rows, window_s=600.0, mono_s=1000.0, wall_us=10_000_000_000):
    return Devices(rows, window_s=window_s, mono_s=mono_s, wall_us=wall_us)


def row(number=1, name="phone", owner="", seen_us=10_000_000_000, *, connected=False):
    return DeviceRow(number, owner, name, "k3f9ab-5", seen_us, connected)


@pytest.mark.parametrize("name", ["phone", "a", "Pixel-8.of_me", "x" * 64])
def test_names(name):
    """As those of tokens."""
    assert check_device(name) == name


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 65, "-a", "a/b", "ä", "a\n", "a\x00"])
def test_other_names_are_refused(name):
    """Said with what is allowed."""
    with pytest.raises(RequestError, match="allowed: 1 to 64 letters") as caught:
        check_device(name)
    assert caught.value.code == "bad_device"


def test_a_name_is_another_device_for_another_token():
    """Nobody moves a cursor with a token of his own."""
    devices = make()
    mine, other = devices.find("mine", "phone", 0.0), devices.find("other", "phone", 0.0)

    assert mine is not other
    assert mine.id != other.id
    assert devices.find("mine", "phone", 1.0) is mine


def test_the_window_begins_when_the_connection_ends():
    """One that is connected was never away."""
    devices = make()
    device = devices.find("", "phone", 1000.0)
    holder = Holder(devices, device)
    devices.take(device, holder)
    assert not devices.is_late(device, 99_999.0)
    devices.left(device, holder, 42, 5000.0)

    assert (device.seq, device.holder) == (42, None)
    assert not devices.is_late(device, 5600.0)
    assert devices.is_late(device, 5600.1)


def test_what_a_relay_before_has_left():
    """One that was away is still away for as long; one that was connected when the relay died was seen until now."""
    away = row(1, "away", seen_us=10_000_000_000 - 700_000_000)
    devices = make(away, row(2, "live", seen_us=1, connected=True), row(3, "ahead", seen_us=99_000_000_000))
    found = {name: devices.find("", name, 1000.0) for name in ("away", "live", "ahead")}

    assert [name for name, device in found.items() if devices.is_late(device, 1000.0)] == ["away"]
    assert {(device.seq, device.position) for device in found.values()} == {(None, "k3f9ab-5")}
    assert devices.find("", "new", 1000.0).id == 4


def test_a_connection_that_takes_over_has_the_other_say_where_it_was():
    """Then only the new one moves the cursor."""
    devices = make()
    device = devices.find("", "phone", 0.0)
    first, second = Holder(devices, device), Holder(devices, device)
    devices.take(device, first)
    devices.take(device, second)

    assert (first.gave_up, device.holder, device.seq) == (True, second, 7)
    with pytest.raises(AssertionError):
        devices.moved(device, first, 9)
    assert devices.counters()["devices_connected"] == 1


def test_a_token_has_so_many_devices():
    """The one that was away for the longest time goes, and its row is taken; nobody else's does."""
    devices = make()
    other = devices.find("other", "phone", 0.0)
    for number in range(DEVICES_PER_OWNER):
        devices.find("mine", f"d{number}", float(number))
    oldest = devices.find("mine", "d0", 100.0)
    newest = devices.find("mine", "one-more", 100.0)

    assert newest.id == oldest.id
    assert devices.find("other", "phone", 100.0) is other
    assert devices.counters()["devices"] == DEVICES_PER_OWNER + 1
    assert devices.counters()["devices_forgotten_total"] == 1


def test_connected_devices_are_not_forgotten(monkeypatch):
    """Where all are connected there is no place for another one."""
    monkeypatch.setattr(devices_module, "DEVICES_PER_OWNER", 2)
    devices = make()
    for name in ("a", "b"):
        device = devices.find("", name, 0.0)
        devices.take(device, Holder(devices, device))

    assert devices.find("", "c", 0.0) is None


def test_there_are_so_many_in_all(monkeypatch):
    """Whatever the tokens are."""
    monkeypatch.setattr(devices_module, "MAX_DEVICES", 3)
    devices = make()
    for number in range(10):
        devices.find(f"token{number}", "phone", float(number))

    assert devices.counters()["devices"] == 3


def test_a_device_is_forgotten_after_a_month():
    """It begins like a new one."""
    devices = make()
    device = devices.find("", "phone", 0.0)
    holder = Holder(devices, device)
    devices.take(device, holder)
    devices.left(device, holder, 5, 0.0)

    assert devices.find("", "phone", FORGET_S).seq == 5
    assert devices.find("", "phone", FORGET_S + 1).seq is None
