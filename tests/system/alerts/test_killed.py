"""kill -9 while alerts are on their way: each comes at least once, and none twice within its cooldown."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

from tests.support.chaos.relay import ROOT
from tests.support.chaos.scale import chance, scaled
from tests.support.stillness import Stillness
from tests.support.waiting import DEADLINE_S, wait_for
from tests.system.alerts.conftest import is_delivery, kill_all, processes_of

ROUNDS = scaled(3, 100)
COOLDOWN_S = 3

WHOM = [("relay",), ("worker",), ("relay", "worker"), ("relay", "worker", "delivery")]
MOMENTS = ["early", "on the wire", "on the wire", "behind"]
FIRST = [(("relay", "worker", "delivery"), "on the wire"), (("relay",), "early"), (("worker",), "on the wire")]
"""What the first rounds do, so that few of them have it all; the others are left to chance."""

DYING_BOT = """
import msgpack, os, secrets, socket, sys, time
relay = socket.socket(socket.AF_UNIX)
relay.connect(sys.argv[1])
hello = {"protocol": 1, "run": secrets.token_bytes(16), "app": sys.argv[2], "host": "box", "pid": os.getpid(),
         "started_ns": time.time_ns()}
relay.sendall(msgpack.packb([0, hello]) + msgpack.packb([1, 1, time.time_ns(), "info", {"event": "hello"}]))
unpacker = msgpack.Unpacker()
while True:
    unpacker.feed(relay.recv(4096))
    if any(frame[0] == 1 for frame in unpacker):
        os.kill(os.getpid(), 9)
"""


def test_every_alert_comes_and_none_twice_within_its_cooldown(make_relay, receiver):
    """Relay, worker and deliveries are killed in turns: while the bot dies, on the wire, and behind the answer."""
    random = chance("alerts")
    url = f'[[alert]]\nname = "phone"\nurl = "{receiver.url}"\ncooldown = "{COOLDOWN_S}s"\nmax_per_hour = 1000\n'
    relay = make_relay(url)
    on_the_wire = threading.Event()
    go_on = threading.Event()
    go_on.set()

    def answer(_got):
        on_the_wire.set()
        go_on.wait(DEADLINE_S)
        return 200, {}

    receiver.answer = answer
    with Stillness() as still:
        kill_in_turns(relay, receiver, random, on_the_wire, go_on)

    for number in range(ROUNDS):
        times = [got.at for got in receiver.wait_for(f"bot{number} ")]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        # The times are those of the service, which this process is: one that came while it stood still came later.
        assert all(gap >= COOLDOWN_S - still.longest_s for gap in gaps), (number, gaps, still.longest_s)


def kill_in_turns(relay, receiver, random, on_the_wire, go_on):
    """Have bots die one after the other, and kill a part of the relay at each; wait until all is told."""
    kills = {"relay": 0, "worker": 0, "delivery": 0}
    doubts = 0
    for number in range(ROUNDS):
        whom, moment = FIRST[number] if number < len(FIRST) else (random.choice(WHOM), random.choice(MOMENTS))
        on_the_wire.clear()
        if moment == "on the wire":
            go_on.clear()
        bot = subprocess.run(
            [sys.executable, "-c", DYING_BOT, str(relay.socket), f"bot{number}"], cwd=ROOT, timeout=DEADLINE_S
        )
        assert bot.returncode == -9
        if moment == "early":
            time.sleep(random.uniform(0, 1.6))
        else:
            assert on_the_wire.wait(DEADLINE_S), relay.tell()
        pids = processes_of(relay)
        deliveries = [pid for pid in pids if is_delivery(pid)]
        for name in whom:
            kills[name] += 1
        if "delivery" in whom:
            doubts += len(deliveries) if moment == "on the wire" else 0
            kill_all(deliveries)
        if "worker" in whom:
            kill_all([pid for pid in pids if pid not in deliveries])
        if "relay" in whom:
            relay.kill()
        go_on.set()
        if "relay" in whom:
            relay.start()  # one that was killed before it knew of the crash says that the bot is gone
        receiver.wait_for(f"bot{number} ")
    wait_for(lambda: relay.metric("alerts_waiting") == 0, "what is doubtful to be sent again")
    print(f"{ROUNDS} rounds, kills {kills}, {doubts} deliveries killed on the wire, {len(receiver.accepted)} alerts")
