"""Traders whose clock jumps, who talk nonsense, who never listen, or who are very many: the others do not notice."""

from __future__ import annotations

import socket
import time

import pytest

from tests.support.chaos.feeder import pack
from tests.support.chaos.ledger import Ledger, check_rising_times, check_trader, check_viewer, settled
from tests.support.chaos.scale import chance
from tests.support.waiting import DEADLINE_S, wait_for

HOUR_NS = 3600 * 10**9
MANY = 200
HELLO_S = 9.0
"""Less than the ten seconds that docs/protocol.md gives a connection for its hello."""


def test_clock_stepping_back_and_forth(scene):
    """The trader's clock jumps by an hour and back: order is by seq, shown times rise, each step back is told once."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    trader = scene.trader(relay).connect()
    now = time.time_ns()
    for hours in (0, -1, 0, 1, 0):
        for n in range(50):
            trader.log("tick", time_ns=now + hours * HOUR_NS + trader.seq * 1_000_000 + n)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, 250)
    check_rising_times(ledger)
    viewer.wait_for_id(ledger.head)
    check_viewer(viewer, ledger)
    notices = ledger.notices(notice="trader", state="clock")
    assert len(notices) == 2, "back by an hour twice: told twice, not for each line"
    assert all(3590 < notice["context"]["back_s"] < 3610 for notice in notices)
    # The clock that went an hour ahead and back: the shown times stand still, a microsecond apart.
    shown = [entry.data["timestamp"] for entry in ledger.of("trader")]
    assert shown[200] > shown[199]
    assert shown[249][:16] == shown[199][:16]


def test_clock_that_goes_back_is_remembered_across_restarts(scene):
    """Shown times rise within a run even when relay and clock were reset in between."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.log("before")
    trader.wait_acked()
    relay.restart()
    trader.close()
    trader.connect()
    for _ in range(3):
        trader.log("behind", time_ns=time.time_ns() - HOUR_NS)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, 4)
    check_rising_times(ledger)


@pytest.mark.parametrize("clock", [-1, 0, 2**63 - 1, -(2**63), 2**64 - 1])
def test_absurd_clocks_do_not_cost_a_line(scene, clock):
    """Whatever number a trader's clock shows, the line is kept, the relay lives, and the next line comes behind it."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.log("absurd", time_ns=clock)
    trader.log("sane")
    trader.log("sane again")
    trader.wait_acked()
    trader.bye()
    wait_for(lambda: relay.health()["traders"][0]["state"] == "closed", relay.tell)
    ledger = Ledger.read(relay.journal)
    assert [entry.data["context"]["n"] for entry in ledger.of("trader")] == [1, 2, 3]
    assert relay.process.poll() is None


def test_many_traders_at_once(scene):
    """Two hundred traders in one moment: each line of each is kept once, in its trader's order."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    traders = [scene.trader(relay, f"trader{n}") for n in range(MANY)]
    for trader in traders:
        trader.connect()
    for _ in range(5):
        for trader in traders:
            trader.burst(10)
    for trader in traders:
        trader.wait_acked()
    for trader in traders:
        trader.bye()
    viewer.wait(lambda: sum(b'"closed"' in got.raw for got in viewer.lines) == MANY, "not all ends were told")
    ledger = settled(relay)
    kept = {}
    for entry in ledger.entries:
        context = entry.data["context"]
        if "feeder" in context:
            kept.setdefault(context["feeder"], []).append(context["n"])
    assert kept == {trader.name: list(range(1, 51)) for trader in traders}
    viewer.wait_for_id(ledger.head)
    check_viewer(viewer, ledger)
    assert not ledger.notices(state="crashed")


def test_more_traders_than_allowed(scene):
    """The trader that is one too many is refused in words, is told of in the stream, and the others go on."""
    relay = scene.relay("--max-traders", "3").start()
    traders = [scene.trader(relay, f"trader{n}").connect() for n in range(3)]
    extra = scene.trader(relay, "extra")
    extra.burst(5)
    assert not extra.try_connect()
    assert "at most 3" in extra.refused
    for trader in traders:
        trader.burst(10)
        trader.wait_acked()
    traders[0].bye()
    extra.refused = None
    wait_for(extra.try_connect, "a place became free, and the trader still does not get it")
    extra.wait_acked()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "extra", 1, 5)
    for trader in traders:
        check_trader(ledger, trader.name, 1, 10)


def hello(trader, **changes) -> bytes:
    """A hello with something wrong in it."""
    fields = {"protocol": 1, "run": trader.run, "app": "bad", "host": "chaos", "pid": 1, "started_ns": 1}
    return pack([0, fields | changes])


NONSENSE = {
    "nothing but noise": lambda trader, dice: dice.randbytes(3000),
    "http": lambda trader, dice: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "json": lambda trader, dice: b'{"event": "hello"}\n' * 100,
    "no hello": lambda trader, dice: pack([1, 1, 0, "info", {"event": "x"}]),
    "another protocol": lambda trader, dice: hello(trader, protocol=2),
    "a short run": lambda trader, dice: hello(trader, run=b"short"),
    "wrong types in hello": lambda trader, dice: hello(trader, pid="1"),
    "noise behind hello": lambda trader, dice: hello(trader) + b"\xc1" + dice.randbytes(3000),
    "an unknown kind": lambda trader, dice: hello(trader) + pack([9, 1, 2]),
    "a frame without end": lambda trader, dice: (
        hello(trader) + b"\x95\x01\x01\x01\xa4info\xc6\x00\x20\x00\x00" + bytes(1_200_000)
    ),
    "a huge array": lambda trader, dice: hello(trader) + b"\xdd\xff\xff\xff\xff" + bytes(1_100_000),
    "a huge map": lambda trader, dice: hello(trader) + b"\xdf\xff\xff\xff\xff" + bytes(1_100_000),
    "endless nesting": lambda trader, dice: hello(trader) + b"\x91" * 100_000,
    "a bare number": lambda trader, dice: hello(trader) + b"\x01",
    "a string": lambda trader, dice: hello(trader) + pack("hello"),
}


@pytest.fixture
def company(scene):
    """A relay, a viewer, and an honest trader that everybody else must leave alone."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    honest = scene.trader(relay, "honest").connect()
    honest.burst(10)
    honest.wait_acked()
    return relay, viewer, honest


def undisturbed(relay, viewer, honest) -> Ledger:
    """The honest trader's lines go on, each once; the viewer gets everything; the relay is the same process."""
    honest.burst(10)
    honest.wait_acked()
    assert honest.welcomes == [0], "the honest trader lost its connection"
    assert relay.process.poll() is None
    assert "Traceback" not in relay.tell()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "honest", 1, honest.seq)
    viewer.wait_for_id(ledger.head)
    assert viewer.connections == 1
    check_viewer(viewer, ledger)
    return ledger


def test_nonsense_is_refused_and_disturbs_nobody(scene, company):
    """Whatever is not the protocol is answered with refused and a closed connection, and told in the stream."""
    relay, viewer, honest = company
    dice = chance("nonsense")
    for round_, (what, make) in enumerate(NONSENSE.items(), 1):
        bad = scene.trader(relay, "bad")
        bad.sock = socket.socket(socket.AF_UNIX)
        bad.sock.connect(str(relay.socket))
        data = make(bad, dice)
        bad.sock.settimeout(DEADLINE_S)
        try:
            bad.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the last byte of it
        bad.sock.setblocking(False)
        try:
            bad.wait_closed()
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None
        wait_for(lambda n=round_: relay.metric("trader_refused_total") == n, lambda w=what: f"{w} was not counted")
        honest.log(what)
    undisturbed(relay, viewer, honest)

    def told() -> int:
        refusals = Ledger.read(relay.journal).notices(notice="trader", state="refused")
        return sum(refusal["context"].get("count", 1) for refusal in refusals)

    # Many refusals in a short time are told together, but every one of them is told.
    wait_for(lambda: told() == len(NONSENSE), lambda: f"{told()} of {len(NONSENSE)} refusals were told")


def test_frames_that_cannot_be_accepted_are_rejected_one_by_one(scene, company):
    """Too long, an unknown level, an event that is no map: reject, one gap notice each, and the next frame is taken."""
    relay, viewer, honest = company
    bad = scene.trader(relay, "bad").connect()
    bad.log("before")
    wrong = {
        2: [1, 2, 0, "info", {"event": "x" * 70_000}],
        3: [1, 3, 0, "loud", {"event": "level"}],
        4: [1, 4, 0, "info", "no map"],
        5: [1, 5, "now", "info", {"event": "time"}],
        6: [1, 6, 0, "info"],
    }
    for frame in wrong.values():
        bad.send_raw(pack(frame))
    bad.seq = 6
    bad.log("behind")
    bad.wait_acked()
    assert [seq for seq, _ in bad.rejected] == [2, 3, 4, 5, 6]
    ledger = undisturbed(relay, viewer, honest)
    check_trader(ledger, "bad", 1, 7, without=range(2, 7))
    gaps = [gap["context"] for gap in ledger.notices(notice="gap")]
    assert [(gap["cause"], gap["first"], gap["last"], gap["count"]) for gap in gaps] == [
        ("rejected", seq, seq, 1) for seq in wrong
    ]


def test_largest_frames(scene, company):
    """Frames of exactly 64 KiB are taken, whole and in order, from several traders; one byte more is rejected."""
    relay, viewer, honest = company
    traders = [scene.trader(relay, f"large{n}").connect() for n in range(3)]
    overhead = len(traders[0].add("line", padding="x" * 60_000)) - 60_000
    traders[0].flush_all()
    for _ in range(20):
        for trader in traders:
            frame = trader.add("line", padding="x" * (65_536 - overhead - 200))
            assert len(frame) <= 65_536
            trader.flush_all()
    for trader in traders:
        trader.wait_acked()
    exact = traders[0]
    room = 65_536 - len(pack([1, exact.seq + 1, time.time_ns(), "info", {"event": ""}])) - 2
    exact.seq += 1
    exact.send_raw(pack([1, exact.seq, time.time_ns(), "info", {"event": "x" * room}]))
    exact.seq += 1
    exact.send_raw(pack([1, exact.seq, time.time_ns(), "info", {"event": "x" * (room + 1)}]))
    wait_for(lambda: exact.step(0.05) and exact.acked >= exact.seq - 1 and exact.rejected, "no reject")
    assert [seq for seq, _ in exact.rejected] == [exact.seq]
    ledger = undisturbed(relay, viewer, honest)
    for trader in traders[1:]:
        check_trader(ledger, trader.name, 1, 20)


def test_a_trader_that_never_reads_its_acks(scene, company):
    """Acks pile up until the socket is full: its lines are still taken, and after it is killed all are there."""
    relay, viewer, honest = company
    deaf = scene.trader(relay, "deaf").connect()
    for _ in range(3_000):
        deaf.add("not listening")
        if deaf.seq % 3 == 0:
            deaf.flush_all()
    deaf.flush_all()
    # An ack for each of these: the answers fill the socket.
    for _ in range(300):
        deaf.log("still not listening")
        wait_for(lambda: deaf.unread() == 0, "the relay stopped to read a trader that does not read")
    deaf.close()
    viewer.wait_for_notice(notice="trader", state="lost")
    ledger = undisturbed(relay, viewer, honest)
    check_trader(ledger, "deaf", 1, 3_300)


def test_half_a_frame_and_silence(scene, company):
    """Connections with half a hello or half a line, left open: they cost nobody anything."""
    relay, viewer, honest = company
    began, silent = time.monotonic(), []
    for cut in (0, 1, 10):
        sock = socket.socket(socket.AF_UNIX)
        scene.on_end(sock.close)
        sock.connect(str(relay.socket))
        sock.sendall(honest.hello()[:cut])
        silent.append(sock)
    half = scene.trader(relay, "half").connect()
    half.send_raw(pack([1, 1, 0, "info", {"event": "x" * 60_000}])[:30_000])
    ledger = undisturbed(relay, viewer, honest)
    refused = ledger.notices(state="refused")
    # Whoever says no hello for long is turned away, and on a machine that stands still meanwhile that is now.
    assert not refused or time.monotonic() - began > HELLO_S
    assert all("no hello came" in notice["message"] for notice in refused)
    half.close()
    viewer.wait_for_notice(notice="trader", state="lost")
