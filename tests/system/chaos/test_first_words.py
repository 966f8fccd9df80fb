"""Bots that say one line and die at once, and bots that die while the relay is away but its socket is held."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import Counter

from tests.support import bots
from tests.support.chaos.ledger import Ledger
from tests.support.chaos.relay import Relay
from tests.support.chaos.scale import scaled
from tests.support.waiting import wait_for

KILLS = scaled(40, 1000)
RESTARTS = scaled(2, 20)

WAYS = {"SIGKILL": -signal.SIGKILL, "_exit": 7, "segfault": -signal.SIGSEGV, "execv": 5, "fork": 7}
"""How a bot dies right behind its first log call, and its exit code. fork: a child's first call, in a parent that had
logged and has a connection of its own."""

NURSERY = """
faulthandler.cancel_dump_traceback_later()
faulthandler.disable()

def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def doomed(how, name):
    ship = LogRelayProcessor(SOCK, app=name)
    if how == "fork":
        ship(None, "info", {"event": "parent"})
        pid = os.fork()
        if pid:
            os._exit(code_of(pid))
    ship(None, "info", {"event": "last words", "bot": name})
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if how in ("_exit", "fork"):
        os._exit(7)
    if how == "segfault":
        import ctypes
        ctypes.string_at(0)
    if how == "execv":
        os.execv("/bin/sh", ["sh", "-c", "exit 5"])

for line in sys.stdin:
    how, name = line.split()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(int(DEADLINE_S))
            doomed(how, name)
        finally:
            os._exit(9)
    tell(code_of(pid))
"""
QUIET = ("-W", "ignore:This process:DeprecationWarning")
"""From Python 3.12 on fork warns about any thread, and the sender is one."""


def said(relay: Relay) -> Counter[str]:
    """How often the journal has each bot's last words."""
    found = (entry.data["context"].get("bot") for entry in Ledger.read(relay.journal).entries)
    return Counter(name for name in found if name is not None)


def wait_for_all(relay: Relay, names: list[str]) -> None:
    """Wait until the journal has as many last words as there are names."""
    wait_for(lambda: len(said(relay)) >= len(names), lambda: f"missing: {sorted(set(names) - set(said(relay)))}")


def test_first_words_of_bots_that_die_at_once(scene):
    """Five ways to die right behind the first log call, again and again: no line is missing, none is there twice."""
    relay = scene.relay().start()
    names = []
    with bots.Bot(NURSERY, relay.socket, options=QUIET) as nursery:
        for number in range(KILLS):
            how = list(WAYS)[number % len(WAYS)]
            names.append(f"{how}-{number}")
            nursery.ask(f"{how} {names[-1]}")
            assert nursery.line() == str(WAYS[how])
    # Each was in the kernel when its call returned; the relay gets to it in its own time.
    wait_for_all(relay, names)
    assert said(relay) == Counter(names)
    ledger = Ledger.read(relay.journal)
    assert not ledger.notices(notice="gap")
    assert not ledger.notices(notice="trader", state="refused")
    print(f"\n{KILLS} bots died behind their first log call, every line is there")


CHATTY = """
ship = LogRelayProcessor(SOCK, app="chatty")
n = 0
for line in sys.stdin:
    for _ in range(50):
        n += 1
        ship(None, "info", {"event": "chatty", "bot": f"{line.strip()}-{n}"})
    until(lambda: up(ship) and not ship._out.unsent())
    tell(n)
"""


def test_last_words_while_the_relay_is_away_and_its_socket_is_held(scene):
    """systemd holds the socket: bots hand their lines to the kernel, die, and the next relay finds everything there."""
    listener = socket.socket(socket.AF_UNIX)
    relay = scene.relay()
    listener.bind(str(relay.socket))
    listener.listen(1024)
    relay.held = listener
    names = []
    with contextlib.closing(listener), bots.Bot(NURSERY, relay.socket, options=QUIET) as nursery:
        for number in range(RESTARTS):
            relay.start()
            # What a relay has read and not committed dies with it, and these bots cannot send it again.
            wait_for_all(relay, names)
            with bots.Bot(CHATTY, relay.socket) as chatty:
                chatty.ask(f"up{number}")
                names += [f"up{number}-{n}" for n in range(1, 51)]
                assert chatty.line() == "50"
                relay.kill()
                chatty.ask(f"away{number}")
                names += [f"away{number}-{n}" for n in range(51, 101)]
                assert chatty.line() == "100"
                chatty.kill()
            for how, code in WAYS.items():
                names.append(f"{how}-{number}")
                nursery.ask(f"{how} {names[-1]}")
                assert nursery.line() == str(code)
        relay.start()
        wait_for_all(relay, names)
    assert said(relay) == Counter(names)
    assert not Ledger.read(relay.journal).notices(notice="gap")
