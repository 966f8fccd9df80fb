"""Connections that stay open and are dead: noticed on both sides, nothing lost, nothing twice, no false alarm.

The bounds are short here, so that a test takes a second; those that people meet are in
tests/system/chaos/test_dead_links.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import msgpack
import pytest

from logrelay.ingest.keepalive import Bounds
from robo_trader.log_relay.processor import LogRelayProcessor
from tests.integration.relay.test_trader_socket import read_logs
from tests.support.tunnels import Tunnel, needs_socat
from tests.support.waiting import DEADLINE_S, wait_for

SHORT = Bounds(tick_s=0.1, ping_ticks=2, dead_ticks=6)
"""Given up after 0.6 s. A machine so busy that this is too short gives up healthy connections as well, which the tests
allow: it costs a reconnect, and neither a line nor an alarm."""

PATIENT = Bounds(tick_s=0.05, ping_ticks=2, dead_ticks=40)
"""For what must not be given up: 2 s, twenty times a ping's interval."""

NEVER = Bounds(dead_ticks=10_000)
"""For what is not noticed by silence."""

ROUNDS = 3

BOT = """
import sys
from robo_trader.log_relay.processor import LogRelayProcessor
relay = LogRelayProcessor(sys.argv[1], app="bot", exit_timeout=float(sys.argv[2]))
for n, _ in enumerate(sys.stdin, 1):
    relay(None, "info", {"event": f"line {n}"})
    print(relay.flush(float(sys.argv[2])), flush=True)
"""


@pytest.fixture
def link(house, folder):
    """Return a relay, a tunnel to it, and a trader at the tunnel's other end."""
    with contextlib.ExitStack() as stack:
        relay = house(bounds=SHORT)
        tunnel = Tunnel(folder / "tunnel", relay.path).start()
        stack.callback(tunnel.end)
        trader = LogRelayProcessor(folder / "tunnel", app="bot", exit_timeout=DEADLINE_S)
        stack.callback(trader.close)
        yield relay, tunnel, trader


def say(trader, count):
    """Log so many lines, numbered from the last one on."""
    first = trader.stats()["produced"] + 1
    for n in range(first, first + count):
        trader(None, "info", {"event": f"line {n}"})


def wait_for_pings(trader):
    """Wait until the relay has pinged for longer than a silent connection is kept."""
    heard, keepalive = set(), trader._sender._keepalive
    wait_for(lambda: heard.add(keepalive._heard) or len(heard) > 1 + PATIENT.dead_ticks // PATIENT.ping_ticks)


def check(relay, count):
    """Each line is there once and in order, none is told as lost, and nobody is told to have crashed."""
    assert [line["message"] for line in read_logs(relay, "bot")] == [f"line {n}" for n in range(1, count + 1)]
    told = read_logs(relay, "logrelay")
    assert not [line for line in told if line["level"] == "ERROR"], told
    assert not [line for line in told if line["context"]["notice"] == "gap"], told


@needs_socat
def test_a_frozen_tunnel_is_noticed_on_both_sides(link):
    """It goes on with what it has in it, or another takes its place: each line comes once either way."""
    relay, tunnel, trader = link
    say(trader, 10)
    assert trader.flush(DEADLINE_S)
    for round_ in range(ROUNDS):
        given_up = relay.counter("trader_connections_given_up_total")
        noticed = trader.stats()["given_up"]
        tunnel.freeze()
        say(trader, 10)
        wait_for(lambda n=noticed: trader.stats()["given_up"] > n, lambda: str(trader.stats()))
        wait_for(lambda n=given_up: relay.counter("trader_connections_given_up_total") > n)
        say(trader, 10)
        assert trader.stats()["pending"] == 20
        if round_ % 2:
            tunnel.replace()
        else:
            tunnel.thaw()
        assert trader.flush(DEADLINE_S), trader.stats()
    assert trader.close()
    check(relay, 10 + ROUNDS * 20)


def test_an_idle_connection_is_kept(house, folder):
    """Pings and pongs are all that goes over it, for longer than a silent one is kept."""
    relay = house(bounds=PATIENT)
    trader = LogRelayProcessor(relay.path, app="bot", exit_timeout=DEADLINE_S)
    try:
        say(trader, 1)
        assert trader.flush(DEADLINE_S)
        wait_for_pings(trader)
        assert (relay.counter("trader_connections_given_up_total"), trader.stats()["given_up"]) == (0, 0)
    finally:
        trader.close()
    check(relay, 1)


@needs_socat
def test_a_dropped_tunnel_is_no_crash(link, until):
    """What became of the process is not known from here, and that is what is said; it is back when it is back."""
    relay, tunnel, trader = link
    say(trader, 1)
    assert trader.flush(DEADLINE_S)
    tunnel.end()
    until(lambda: any("lost its connection" in line["message"] for line in read_logs(relay, "logrelay")))
    told = next(line for line in read_logs(relay, "logrelay") if "lost its connection" in line["message"])
    assert (told["level"], told["context"]["state"]) == ("WARNING", "lost")
    assert "whether it still runs is not known from here" in told["message"]
    assert relay.counter("traders_lost") == 1
    tunnel.start()
    say(trader, 1)
    assert trader.flush(DEADLINE_S)
    until(lambda: relay.counter("traders_lost") == 0)  # on a busy machine it may be lost once more
    assert trader.close()
    check(relay, 2)


def test_a_process_of_this_machine_that_runs_on_is_known_to(house, until):
    """It has closed its connection, without a word; a trader from before pings."""
    relay = house()
    trader = relay.trader()
    said = {
        "protocol": 1,
        "run": trader.run,
        "app": "bot",
        "host": "box",
        "pid": os.getpid(),
        "started_ns": time.time_ns(),
    }
    trader.send([0, said])
    assert trader.frame() == [0, {"protocol": 1, "acked": 0}]
    trader.close()
    until(lambda: any("its process is still running" in line["message"] for line in read_logs(relay, "logrelay")))
    assert relay.counter("trader_crashes_total") == 0


def test_a_relay_that_pauses_reading_keeps_its_traders(house, folder):
    """It has no room for lines: it neither gives up traders it does not read, nor is it given up by them."""
    relay = house(bounds=PATIENT)
    trader = LogRelayProcessor(relay.path, app="bot", exit_timeout=DEADLINE_S)
    try:
        say(trader, 1)
        assert trader.flush(DEADLINE_S)
        given_up = relay.counter("trader_connections_given_up_total"), trader.stats()["given_up"]
        relay.call(relay.ingest.pause_reading)
        say(trader, 20_000)  # more than the socket holds: no pong has room
        wait_for_pings(trader)
        assert (relay.counter("trader_connections_given_up_total"), trader.stats()["given_up"]) == given_up
        relay.call(relay.ingest.resume_reading)
        assert trader.flush(DEADLINE_S)
        assert trader.stats()["dropped"]["overflow"] == 0
    finally:
        trader.close()
    check(relay, 20_001)


def test_a_loop_that_stood_still_gives_nobody_up(house):
    """First it reads what has come meanwhile."""
    relay = house(bounds=PATIENT)
    trader = LogRelayProcessor(relay.path, app="bot", exit_timeout=DEADLINE_S)
    try:
        say(trader, 1)
        assert trader.flush(DEADLINE_S)
        relay.call(time.sleep, 2 * PATIENT.dead_s)  # the trader gives up a relay that is so slow
        say(trader, 3)
        assert trader.flush(DEADLINE_S)
        assert relay.counter("trader_connections_given_up_total") == 0
    finally:
        trader.close()
    check(relay, 4)


@pytest.fixture
def bot(folder):
    """Return a function that starts a bot, which logs a line for each that it is told, and says when it is acked."""
    with contextlib.ExitStack() as stack:

        def start(relay):
            arguments = [sys.executable, "-c", BOT, str(relay.path), str(DEADLINE_S)]
            child = stack.enter_context(
                subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(child.kill)
            return child

        yield start


def tell(child):
    """Have a bot log a line, and wait until it is acked."""
    print("log", file=child.stdin, flush=True)
    assert child.stdout.readline() == "True\n"


def states(relay):
    """Return what was told of the state of traders."""
    return [line["context"]["state"] for line in read_logs(relay, "logrelay") if line["context"]["notice"] == "trader"]


def test_a_bot_that_is_stopped_has_not_crashed(house, bot, until):
    """It is lost, and back when it goes on; killed while it is lost it has crashed."""
    relay = house(bounds=SHORT)
    child = bot(relay)
    tell(child)
    for round_ in range(2):
        child.send_signal(signal.SIGSTOP)
        until(lambda n=round_: states(relay).count("lost") > n)
        assert any("nothing was heard of it" in line["message"] for line in read_logs(relay, "logrelay"))
        assert any("its process is still running" in line["message"] for line in read_logs(relay, "logrelay"))
        child.send_signal(signal.SIGCONT)
        tell(child)
    check(relay, 3)
    child.send_signal(signal.SIGSTOP)
    until(lambda: states(relay)[-1] == "lost")
    assert relay.counter("trader_crashes_total") == 0
    child.kill()
    until(lambda: states(relay)[-1] == "crashed")
    assert relay.counter("trader_crashes_total") == 1


def test_a_bot_that_is_killed_has_crashed(house, bot, until):
    """Its process is known, so there is nothing to wait for; one that ends in order has not."""
    relay = house(bounds=NEVER)
    for ended in ("crashed", "closed"):
        child = bot(relay)
        tell(child)
        if ended == "crashed":
            child.kill()
        else:
            child.stdin.close()
        until(lambda state=ended: states(relay)[-1] == state)
    assert (relay.counter("trader_crashes_total"), relay.counter("trader_connections_lost_total")) == (1, 0)


BECOMES_ANOTHER = """
import os, sys
from robo_trader.log_relay.processor import LogRelayProcessor
relay = LogRelayProcessor(sys.argv[1], app=sys.argv[3], exit_timeout=float(sys.argv[2]))
relay(None, "info", {"event": "line"})
assert relay.flush(float(sys.argv[2]))
if sys.argv[3] == "first":
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[4], *sys.argv[1:3], "second", ""])
relay.close()
"""


def test_a_process_that_becomes_another_program_has_not_crashed(house, until):
    """Its first run never said goodbye, and its end is the end of the second one, which did."""
    relay = house()
    arguments = [str(relay.path), str(DEADLINE_S), "first", BECOMES_ANOTHER]
    subprocess.run([sys.executable, "-c", BECOMES_ANOTHER, *arguments], check=True, timeout=2 * DEADLINE_S)
    until(lambda: {"gone", "closed"} <= set(states(relay)))
    assert "crashed" not in states(relay)
    assert (len(read_logs(relay, "first")), len(read_logs(relay, "second"))) == (1, 1)


def test_a_relay_from_before_pings_gets_none(sock_pair_relay):
    """Its welcome names no seconds, and it would refuse what it does not know."""
    path, frames_of, closed = sock_pair_relay
    trader = LogRelayProcessor(path, app="bot", exit_timeout=0.1)
    try:
        say(trader, 1)
        wait_for(lambda: [1, 1] in [frame[:2] for frame in frames_of()])
        assert trader._sender._keepalive.wait_s(time.monotonic()) == float("inf")
        assert not closed()
    finally:
        trader.close()
    assert {frame[0] for frame in frames_of()} <= {0, 1, 3}


@pytest.fixture
def sock_pair_relay(folder):
    """A relay's end that welcomes as the one before pings did, and reads."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "old"))
    listener.listen()
    listener.settimeout(DEADLINE_S)
    unpacker, got, accepted = msgpack.Unpacker(), [], []

    def read():
        if not accepted:
            connection, _ = listener.accept()
            connection.setblocking(False)
            accepted.append(connection)
            connection.send(msgpack.packb([0, {"protocol": 1, "acked": 0}]))
        with contextlib.suppress(BlockingIOError):
            unpacker.feed(accepted[0].recv(65536))
        got.extend(unpacker)
        return got

    yield folder / "old", read, lambda: len(accepted) != 1
    for sock in (*accepted, listener):
        sock.close()
