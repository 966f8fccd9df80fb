"""Bots with a spool that are killed at random moments while no relay is there, and then a relay."""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from pathlib import Path

from tests.support import bots
from tests.support.chaos.ledger import Ledger
from tests.support.chaos.relay import Relay
from tests.support.chaos.scale import chance, scaled

KILLS = scaled(16, 200)
ROUND = scaled(8, 10)
"""Bots killed between two times at which there is a relay."""

LOGGER = """
faulthandler.cancel_dump_traceback_later()
signal.alarm(int(DEADLINE_S))
ship = LogRelayProcessor(SOCK, app="spooled", spool=sys.argv[2], level="debug", max_bytes=1 << 21)
tell(ship._run.hex())
n = 0
while True:
    n += 1
    ship(None, ("info", "debug", "error")[n % 3] if n % 7 else "warning", {"event": "kept", "n": n})
    os.write(1, b"%d\\n" % n)
"""
"""Says on stdout, line by line, which calls have returned. What a pipe takes of that is less than the outbox holds."""

HEIR = """
ship = LogRelayProcessor(SOCK, app="spooled", spool=sys.argv[2], exit_timeout=DEADLINE_S)
ship(None, "info", {"event": "heir"})
assert ship.flush(DEADLINE_S)
# What a relay that stood still has not answered is tried again half a minute later.
until(lambda: not [name for name in os.listdir(sys.argv[2]) if not name.startswith(ship._run.hex())], 2 * DEADLINE_S)
"""


def killed_bot(relay: Relay, folder: Path, lines: int) -> tuple[str, int]:
    """Run a bot until it has logged so many lines and some more, kill it; return its run and what had returned."""
    with bots.Bot(LOGGER, relay.socket, folder) as bot:
        run = bot.line()
        for _ in range(lines):
            bot.line()
        os.kill(bot.pid, signal.SIGKILL)
        rest = bot.process.stdout.read().split("\n")  # a last line without its end was not told whole
        bot.process.wait()
    told = [line for line in rest[:-1] if line]
    return run, int(told[-1]) if told else lines


def test_what_killed_bots_left_behind_arrives_once_in_order_under_their_own_runs(scene):
    """No relay there, SIGKILL at any moment, a relay, the next run: every line whose call had returned is there."""
    random = chance("spool")
    relay = scene.relay()
    folder = relay.home / "spool"
    returned = {}
    while len(returned) < KILLS:
        for _ in range(ROUND):
            run, lines = killed_bot(relay, folder, random.randrange(1, 600))
            returned[run] = lines
        assert len(list(folder.glob("*.spool"))) == ROUND
        relay.start()
        heir = bots.run_bot(HEIR, relay.socket, folder, hangs=2 * bots.HANGS_S)
        assert heir.code == 0, heir.err
        assert not list(folder.iterdir())
        relay.kill()
    ledger = Ledger.read(relay.journal)
    assert not ledger.notices(notice="gap")
    names = {row: key.hex() for key, (row, _, _) in ledger.runs.items()}
    found = defaultdict(list)
    for entry in ledger.entries:
        if not entry.is_notice and entry.data["message"] == "kept":
            found[names[entry.run]].append(entry.data["context"]["n"])
    assert found.keys() == returned.keys()
    for run, numbers in found.items():
        assert numbers == list(range(1, len(numbers) + 1)), "once, and in order"
        # The last call may have been in the middle, its line whole and not yet told.
        assert returned[run] <= len(numbers) <= returned[run] + 1
    total = Counter(entry.is_notice for entry in ledger.entries)[False]
    print(f"\n{KILLS} bots were killed without a relay, and {total} of their lines are there")
