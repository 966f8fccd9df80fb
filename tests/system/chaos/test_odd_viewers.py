"""Viewers that break the rules or the connection: nobody else notices, and nothing of them stays behind."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

import pytest

from tests.support.chaos.ledger import Ledger, check_trader, check_viewer
from tests.support.chaos.scale import chance, scaled
from tests.support.chaos.viewer import handshake, mask
from tests.support.waiting import wait_for

RUDE = scaled(150, 2000)

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close() sends a reset."""


def descriptors(relay) -> int:
    """Count the relay's open files."""
    return len(os.listdir(f"/proc/{relay.pid}/fd"))


READER_FILES = 4
"""Two connections that read the journal, of two files each, are opened when somebody needs them."""


def test_viewers_that_come_and_go_leave_nothing_behind(scene):
    """Viewers that reset the connection at every stage under load: the others get every line, no file stays open."""
    dice = chance("rude viewers")
    relay = scene.relay().start()
    healthy = scene.viewer(relay, name="healthy").start()
    feeder = scene.feeder(relay, "feeder", rate=1000)
    wait_for(lambda: feeder.acked > 100, relay.tell)
    before = descriptors(relay)
    head = f"GET /?tail=5000 HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\nUpgrade: websocket\r\n".encode()
    for _ in range(RUDE):
        with contextlib.suppress(OSError):  # one that stood still within its request for ten seconds is not served
            come_and_go(relay, head, dice)
    most = before + READER_FILES
    wait_for(lambda: descriptors(relay) <= most, lambda: f"{descriptors(relay)} files are open, {before} before")
    wait_for(lambda: relay.metric("_viewers") == 1, lambda: f"{relay.metric('_viewers')} viewers are counted")
    feeder.finish()
    count = feeder.wait()
    healthy.wait_for_notice(notice="trader", state="closed")
    ledger = Ledger.read(relay.journal)
    healthy.wait_for_id(ledger.head)
    assert healthy.connections == 1
    healthy.stop()
    check_trader(ledger, "feeder", 1, count)
    check_viewer(healthy, ledger)
    assert "Traceback" not in relay.tell()


def come_and_go(relay, head, dice):
    """Connect, say as much as chance wants, and go, mostly with a reset."""
    stage = dice.randrange(4)
    if stage < 2:
        sock = socket.create_connection(("127.0.0.1", relay.port))
    else:
        sock, _, _ = handshake(relay.port, {"tail": dice.choice((0, 10, 5000))}, rcvbuf=4096)
    with sock:
        if stage == 1:
            sock.sendall(head[: dice.randrange(len(head))])
        elif stage == 3:
            sock.sendall(mask(1, b'{"type":"history","before":"zzzzzz-1"}')[: dice.randrange(1, 30)])
        if dice.random() < 0.7:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


BROKEN = {
    "binary": (mask(2, b"x"), 1003),
    "not UTF-8": (mask(1, b"\xff\xfe"), 1007),
    "too big": (mask(1, b" " * 70_000), 1009),
    "unmasked": (b"\x81\x02{}", 1002),
    "reserved bit": (b"\xf1\x80" + bytes(4), 1002),
    "unknown opcode": (b"\x83\x80" + bytes(4), 1002),
    "long control frame": (b"\x89\xfe\x00\x80" + bytes(4) + bytes(128), 1002),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_frames_close_one_connection_with_the_documented_code(scene, what):
    """Each way of breaking RFC 6455 gets its close code (docs/protocol.md), and the neighbour does not notice."""
    data, code = BROKEN[what]
    relay = scene.relay().start()
    healthy = scene.viewer(relay, name="healthy").start()
    rude = scene.viewer(relay, name="rude", resume=False).start()
    rude._sock.sendall(data)
    rude.wait(lambda: rude.closes, "no close code")
    assert rude.closes[0][0] == code
    trader = scene.trader(relay).connect()
    trader.burst(20)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    healthy.wait_for_id(ledger.head)
    healthy.stop()
    assert healthy.connections == 1
    check_viewer(healthy, ledger)


def test_requests_of_a_viewer_that_reads_nothing_are_bounded(scene):
    """A viewer that asks and asks and never reads: the relay's memory stays small, others are served."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(2000, padding="x" * 500)
    trader.wait_acked()
    epoch, head = Ledger.read(relay.journal).epoch, 2001
    healthy = scene.viewer(relay, name="healthy").start()
    healthy.wait_for_id(head)
    before = relay.rss()
    greedy, _, _ = handshake(relay.port, {"tail": 0}, rcvbuf=4096)
    scene.on_end(greedy.close)
    greedy.settimeout(0.5)
    request = mask(1, b'{"type":"history","before":"%s-%d","limit":1000}' % (epoch.encode(), head))
    asked = 0
    try:
        for asked in range(scaled(300, 3000)):  # noqa: B007
            greedy.sendall(request)
    except (TimeoutError, ConnectionError):
        pass  # the relay stopped to listen, or closed: both are bounds
    # Some 700 KB each: a relay that answers all of them into its memory holds hundreds of megabytes.
    trader.burst(20)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    healthy.wait_for_id(ledger.head)
    healthy.send({"type": "history", "before": ledger.entries[-1].id, "limit": 10})
    healthy.wait(lambda: any(m["type"] == "history" for m in healthy.others), "no history for the honest viewer")
    grown = relay.rss() - before
    print(f"\n{asked + 1} requests without reading: the relay grew by {grown / 1024:.0f} KiB")
    assert grown < 24 << 20
    healthy.stop()
    check_viewer(healthy, ledger)
