"""A viewer that names its device: where it begins, what its pongs mean, and two connections with one name."""

from __future__ import annotations

import asyncio
import functools

import pytest

from logrelay.fanout.batch import segments_of
from logrelay.model import DeviceRow
from logrelay.viewers import device_link as device_link_module
from logrelay.viewers.device_link import PAYLOAD
from logrelay.viewers.devices import Devices
from logrelay.viewers.messages import CLOSE_BAD_REQUEST, CLOSE_DEVICE
from logrelay.viewers.session import MAX_DEFERRED, Session
from tests.support.streams import FakeSocket, FakeStream
from tests.support.waiting import DEADLINE_S


class DeviceSocket(FakeSocket):
    """A socket that counts, and whose other end has what the test says."""

    def __init__(self):
        super().__init__()
        self.bytes_written = 200
        self.arrived = None
        self.pings = []

    def write(self, payload):
        if self.closed is None:
            self.bytes_written += len(payload)
        return self.closed is None

    def send_ping(self, payload):
        self.pings.append(payload)
        self.bytes_written += len(payload) + 2

    def acknowledged_bytes(self):
        return self.arrived


class Bench:
    """A stream, the devices of a relay, and as many sessions as a test opens."""

    def __init__(self, *rows, window_s=600.0, **settings):
        self.loop = asyncio.get_running_loop()
        self.stream = FakeStream(**settings)
        self.devices = Devices(rows, window_s=window_s, mono_s=self.loop.time(), wall_us=10_000_000_000)

    def open(self, target="/?device=phone", owner="", form="single"):
        return Client(self, target, owner, form)

    def starts(self):
        calls = [call for call in self.stream.calls if call[0] in ("start_after", "start_tail")]
        self.stream.calls.clear()
        return calls


class Client:
    def __init__(self, bench, target, owner, form):
        self.bench, self.socket = bench, DeviceSocket()
        self.session = Session(
            bench.stream, self.socket, form=form, deflate=True, tail=500, loop=bench.loop, devices=bench.devices,
            owner=owner,
        )  # fmt: skip
        self.session.begin(target)

    async def line(self, seq):
        """Have the hub send a line, and the loop go round."""
        (segment,) = segments_of([b'{"type":"log","id":"k3f9ab-%d"}' % seq], [seq], "single")
        self.bench.stream.position = seq
        self.session._link.write(segment.payload)
        await asyncio.sleep(0)

    def pong(self):
        self.session.pong_received(self.socket.pings[-1])

    def end(self, **how):
        self.session.connection_lost(**how)


def row(position="k3f9ab-5", *, seen_us=10_000_000_000, connected=False):
    return DeviceRow(1, "", "phone", position, seen_us, connected)


def on_a_loop(test):
    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition):
    """Let the loop go round until something holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not (found := condition()):  # noqa: ASYNC110  (what is waited for are timers of the code under test)
            await asyncio.sleep(0)
        return found


@on_a_loop
async def test_a_new_device_begins_with_the_newest_lines_and_comes_back_behind_what_it_has():
    """What it has answered for, and not what was only sent."""
    bench = Bench()
    phone = bench.open()
    assert bench.starts() == [("start_tail", 500)]
    await phone.line(6)
    phone.pong()
    await phone.line(7)
    assert bench.stream.kept == {1: ("", "phone", 6, True)}
    phone.end()

    assert bench.stream.kept == {1: ("", "phone", 6, False)}
    bench.open()
    assert bench.starts() == [("start_after", 6, None)]


@on_a_loop
async def test_it_has_what_arrived_before_the_network_fell_silent(monkeypatch):
    """The kernel's word, for a connection that nobody has closed."""
    monkeypatch.setattr(device_link_module, "AWAKE_S", 0.0)
    bench = Bench()
    phone = bench.open()
    await phone.line(6)
    phone.pong()
    await phone.line(7)
    await until(lambda: len(phone.socket.pings) == 2)
    phone.socket.arrived = phone.socket.bytes_written - 1  # the line, and not all of the ping behind it
    phone.session._link._receipts._pings[0] = phone.session._link._receipts._pings[0]._replace(sent_s=0.0)
    assert bench.stream.kept[1][2] == 6
    phone.end()

    assert bench.stream.kept[1][2] == 7


@on_a_loop
async def test_a_goodbye_leaves_no_doubt():
    """What the other end had read it would have answered before; our own close is answered behind everything."""
    bench = Bench()
    phone = bench.open()
    await phone.line(6)
    phone.socket.arrived = 10_000
    phone.end(in_order=True)
    bench.starts()
    phone = bench.open()
    assert bench.starts() == [("start_tail", 500)], "nothing was ever answered"
    await phone.line(9)
    phone.session.close_answered()
    phone.end(in_order=True)
    bench.open()
    assert bench.starts() == [("start_after", 9, None)]


@on_a_loop
async def test_what_a_closed_socket_does_not_take_was_not_sent():
    """The hub goes on for a moment; the cursor does not."""
    bench = Bench()
    phone = bench.open()
    await phone.line(6)
    phone.pong()
    phone.socket.close(1012, "the end")
    await phone.line(7)
    phone.end()

    assert bench.stream.kept[1][2] == 6


@on_a_loop
async def test_after_the_window_it_begins_with_the_newest_lines_and_a_gap():
    """The gap is the hub's: it is told where the device was."""
    late = row(seen_us=10_000_000_000 - 601_000_000)
    bench = Bench(late)
    bench.open("/?device=phone&tail=3")

    assert bench.starts() == [("start_tail", 3, 5)]
    assert bench.devices.counters()["device_late_total"] == 1


@on_a_loop
async def test_what_a_relay_before_has_left():
    """It is an id, and means what it means to a viewer that resumes: lines may be lost, or the journal another one."""
    bench = Bench(row(connected=True, seen_us=1))
    bench.open()
    assert bench.starts() == [("start_after", 5, None)]
    bench = Bench(row("old111-9"), earlier=("old111",), first=8)
    bench.open()
    ((_, seq, gap),) = bench.starts()
    assert (seq, gap.cause, gap.first, gap.last, gap.epoch) == (7, "unsynced", 8, 9, "old111")
    bench = Bench(row("zzz999-9"))
    bench.open()
    ((_, seq, gap),) = bench.starts()
    assert (seq, gap.cause) == (0, "epoch")


@on_a_loop
async def test_an_id_of_the_viewer_wins():
    """Who knows where it was is asked; the cursor goes on from there."""
    bench = Bench(row())
    phone = bench.open("/?device=phone&after=k3f9ab-8")
    assert bench.starts() == [("start_after", 8, None)]
    await phone.line(9)
    phone.pong()
    assert bench.stream.kept[1][2] == 9


@on_a_loop
async def test_a_name_that_is_none_is_refused():
    """As any other wrong word in the URL."""
    client = Bench().open("/?device=my%20phone")

    assert client.socket.sent[0]["code"] == "bad_device"
    assert client.socket.closed[0] == CLOSE_BAD_REQUEST


@on_a_loop
async def test_a_connection_that_answers_keeps_the_name():
    """The newcomer is served like somebody without a name, and told so; what it does moves nothing."""
    bench = Bench()
    first = bench.open()
    await first.line(6)
    first.pong()
    bench.starts()
    second = bench.open()
    assert bench.starts() == [], "it is being found out"
    second.session.message_received(b'{"type":"subscribe","channel":"logs"}')
    second.session.pong_received(b"logrelay")
    first.session.pong_received(b"logrelay")
    assert bench.starts() == [], "that is the answer to somebody else's ping"
    first.pong()

    assert bench.starts() == [("start_tail", 500)]
    notice, subscribed = second.socket.sent
    assert (notice["context"], notice["source"]) == ({"notice": "relay", "state": "device"}, "logrelay")
    assert "another connection uses the device name phone" in notice["message"]
    assert subscribed["type"] == "subscribed"
    await second.line(9)
    second.end()
    assert bench.stream.kept[1] == ("", "phone", 10 if first.socket.closed else bench.stream.kept[1][2], True)
    assert (first.socket.closed, bench.devices.counters()["device_conflicts_total"]) == (None, 1)


@on_a_loop
async def test_a_connection_that_does_not_answer_is_over(monkeypatch):
    """The newcomer goes on behind what the first one has received, and the first one is closed."""
    monkeypatch.setattr(device_link_module, "ALIVE_WITHIN_S", 0.01)
    bench = Bench()
    first = bench.open()
    await first.line(6)
    first.pong()
    await first.line(7)
    bench.starts()
    second = bench.open(form="batch")
    starts = await until(bench.starts)

    assert starts == [("start_after", 6, None)]
    assert first.socket.closed[0] == CLOSE_DEVICE
    assert second.socket.sent == []
    first.end()
    assert bench.stream.kept[1] == ("", "phone", 6, True), "the end of the first one changes nothing"


@on_a_loop
async def test_who_goes_before_it_is_found_out_leaves_nothing():
    """Neither the newcomer nor the one that is asked."""
    bench = Bench()
    first = bench.open()
    second, third = bench.open(), bench.open()
    bench.starts()
    second.end()
    first.end()

    assert bench.starts() == [("start_after", 10, None)], "the third, behind what the stream says the first one had"
    assert third.socket.sent == []


@on_a_loop
async def test_requests_wait_until_it_is_known_where_the_device_begins():
    """A few of them."""
    bench = Bench()
    bench.open()
    second = bench.open()
    for _ in range(MAX_DEFERRED + 1):
        second.session.message_received(b'{"type":"subscribe","channel":"logs"}')

    assert [message["code"] for message in second.socket.sent] == ["busy"]


@on_a_loop
async def test_pings_follow_what_is_sent_one_at_a_time():
    """Not one for each line, and none where nothing is new; one that stays without an answer is followed by a few."""
    bench = Bench()
    phone = bench.open()
    for seq in (6, 7, 8):
        await phone.line(seq)
    assert len(phone.socket.pings) == 1
    phone.pong()
    await until(lambda: len(phone.socket.pings) == 2)
    phone.pong()
    phone.pong()
    assert phone.session._link._receipts.all_read
    assert phone.socket.pings == [PAYLOAD + b"1", PAYLOAD + b"2"]


@on_a_loop
async def test_a_ping_without_an_answer_is_followed_by_a_few(monkeypatch):
    """They tell a silent network from a process that does not read."""
    monkeypatch.setattr(device_link_module, "AWAKE_S", 0.001)
    bench = Bench()
    phone = bench.open()
    await phone.line(6)
    await until(lambda: phone.session._link._probe_timer is None)

    assert len(phone.socket.pings) == 1 + device_link_module.MAX_PROBES


@pytest.mark.parametrize("skip", [object(), None])
@on_a_loop
async def test_lines_of_a_stretch_that_is_skipped_do_not_count_one_by_one(skip):
    """The notice about those in between comes behind them."""
    bench = Bench()
    phone = bench.open()
    phone.session._link.viewer.skip = skip
    await phone.line(6)

    assert len(phone.session._link._receipts._written) == (skip is None)
