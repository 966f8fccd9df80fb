"""Frozen tunnels, a stopped relay and a stopped bot, with the bounds that people meet: seconds, not fractions of one.

The rules one by one, with short bounds, are in tests/integration/relay/test_dead_links.py. CHAOS=full freezes a hundred
times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.chaos.ledger import LATE_COMMIT, Ledger, settled
from tests.support.chaos.real_trader import RealTrader
from tests.support.chaos.scale import FULL, scaled
from tests.support.tunnels import Tunnel, needs_socat
from tests.support.waiting import DEADLINE_S, wait_for

TUNNELS = scaled(2, 20)
ROUNDS = scaled(1, 5)
LINES = 20
"""Lines of each trader before, during and after each freeze."""

NOTICED_S = 15.0
"""Both sides promise to notice within so many seconds."""


BOT = """
import os, socket, sys, time, msgpack
hello = {"protocol": 1, "run": bytes.fromhex(sys.argv[2]), "app": "bot", "host": "box", "pid": os.getpid()}
def say(*frames):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    sock.sendall(b"".join(map(msgpack.packb, ([0, {**hello, "started_ns": time.time_ns()}], *frames))))
    return sock
sock = say()
sock.recv(1)
sock.close()
print(flush=True)
sys.stdin.readline()
say([1, 1, time.time_ns(), "info", {"event": "the last line"}], [3, 1])
"""


def counter(relay, name):
    """Return a counter from /metrics."""
    for line in relay.get("/metrics")[1].decode().splitlines():
        if line.startswith(f"logrelay_{name} "):
            return float(line.split()[1])
    raise AssertionError(name)


def check(relay, names, count):
    """Each line of each trader is kept once and in order, and nobody is told to have crashed or lost a line."""
    settled(relay)
    assert relay.stop() == 0
    ledger = Ledger.read(relay.journal)
    kept = {name: [] for name in names}
    for entry in ledger.entries:
        context = entry.data["context"]
        if "feeder" in context:
            kept[context["feeder"]].append(context["n"])
    for name in names:
        assert kept[name] == list(range(1, count + 1)), name
    assert not ledger.notices(notice="gap")
    assert not ledger.notices(state="crashed")
    errors = [entry.data for entry in ledger.entries if entry.is_notice and entry.data["level"] == "ERROR"]
    assert not [error for error in errors if LATE_COMMIT not in error["message"]]


@needs_socat
def test_frozen_tunnels_are_noticed_on_both_sides(scene):
    """All lines come once: through the thawed tunnel, or through the one that takes its place."""
    relay = scene.relay().start()
    tunnels, traders = [], []
    for n in range(TUNNELS):
        tunnels.append(Tunnel(scene.home / f"tunnel{n}", relay.socket))
        scene.on_end(tunnels[-1].end)
        tunnels[-1].start()
        traders.append(RealTrader(tunnels[-1].path, f"bot{n}"))
        scene.on_end(traders[-1].end)
    for trader in traders:
        trader.log(LINES)
        trader.wait_settled()
    slowest = {"trader": 0.0, "relay": 0.0}
    for round_ in range(ROUNDS):
        given_up = counter(relay, "trader_connections_given_up_total")
        noticed = [trader.stats()["given_up"] for trader in traders]
        began = time.monotonic()
        for tunnel in tunnels:
            tunnel.freeze()
        for trader in traders:
            trader.log(LINES)
        waiting = {"trader", "relay"}

        def all_noticed(waiting=waiting, noticed=noticed, given_up=given_up, began=began):
            done = {
                "trader": all(trader.stats()["given_up"] > n for trader, n in zip(traders, noticed, strict=True)),
                "relay": counter(relay, "trader_connections_given_up_total") >= given_up + TUNNELS,
            }
            for side in [side for side in waiting if done[side]]:
                waiting.remove(side)
                slowest[side] = max(slowest[side], time.monotonic() - began)
            return not waiting

        wait_for(all_noticed, relay.tell)
        for n, (tunnel, trader) in enumerate(zip(tunnels, traders, strict=True)):
            trader.log(LINES)
            if (round_ + n) % 2:
                tunnel.replace()
            else:
                tunnel.thaw()
        for trader in traders:
            trader.wait_settled()
    print(
        f"\n{TUNNELS * ROUNDS} freezes: the last trader noticed after {slowest['trader']:.1f} s at the most, "
        f"the relay after {slowest['relay']:.1f} s"
    )
    if FULL:
        assert max(slowest.values()) < NOTICED_S
    for trader in traders:
        assert trader.quit() == 0
    check(relay, [trader.name for trader in traders], LINES * (1 + 2 * ROUNDS))


@pytest.mark.long
def test_a_stopped_relay(scene):
    """The trader gives it up and waits in its queue; when the relay goes on it has everything, once."""
    relay = scene.relay().start()
    trader = scene.real_trader(relay)
    trader.log(LINES)
    trader.wait_settled()
    for stop in range(1, 3):
        relay.pause()
        trader.log(LINES)
        wait_for(lambda n=stop: trader.stats()["given_up"] == n)
        trader.log(LINES)
        wait_for(lambda: trader.stats()["state"] == "greeting")
        relay.resume()
        trader.wait_settled()
    assert counter(relay, "trader_connections_given_up_total") == 0
    assert trader.quit() == 0
    check(relay, ["robo"], 5 * LINES)


@pytest.mark.long
def test_a_stopped_bot(scene):
    """It is lost, and its process is known to run; when it goes on nothing is missing. Killed it has crashed."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    trader = scene.real_trader(relay)
    trader.log(LINES)
    trader.process.send_signal(signal.SIGSTOP)
    told = viewer.wait_for_notice(notice="trader", state="lost")
    assert "its process is still running" in told.data["message"]
    trader.process.send_signal(signal.SIGCONT)
    trader.log(LINES)
    trader.wait_settled()
    began = time.monotonic()
    trader.process.kill()
    viewer.wait_for_notice(notice="trader", state="crashed")
    took = time.monotonic() - began
    print(f"\na killed bot is told of after {took:.2f} s")
    assert took < DEADLINE_S


def test_a_bot_that_comes_back_and_ends_while_the_relay_is_stopped(scene):
    """The end of the process is seen before its goodbye is read: it has not crashed for that."""
    relay = scene.relay().start()
    viewer = scene.viewer(relay).start()
    bots = [
        subprocess.Popen(
            [sys.executable, "-c", BOT, str(relay.socket), os.urandom(16).hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    try:
        for bot in bots:
            assert bot.stdout.readline()
        wait_for(lambda: counter(relay, "traders_lost") == len(bots), relay.tell)
        relay.pause()
        for bot in bots:
            bot.communicate(b"\n", DEADLINE_S)
        relay.resume()
        viewer.wait_for_notice(notice="trader", state="closed")
        wait_for(lambda: counter(relay, "traders_lost") == 0, relay.tell)
    finally:
        for bot in bots:
            bot.kill()
            bot.communicate()
    settled(relay)
    assert relay.stop() == 0
    ledger = Ledger.read(relay.journal)
    assert len(ledger.notices(state="closed")) == len(bots)
    assert not ledger.notices(state="crashed")
