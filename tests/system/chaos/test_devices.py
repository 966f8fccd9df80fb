"""The mobile app, unchanged but for `?device=` in its URL: kills of the relay, and a network that is cut."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from pathlib import Path

from tests.support.chaos.ledger import Ledger, wait_well
from tests.support.chaos.network import Network
from tests.support.chaos.scale import chance, scaled
from tests.support.node import Program, packages
from tests.support.waiting import DEADLINE_S, wait_for

APP = Path(__file__).parents[2] / "support" / "chaos" / "app.mjs"
TOKEN = "x7Kq2mPz9wLr4tVb8nYc"
KILLS = scaled(3, 50)
CUTS = scaled(3, 50)
QUIET_CUTS = scaled(2, 10)
"""Cuts while nothing is on the way."""
ON_THE_WAY = 3
"""Pings, one at a time, after which the position of a line is in the journal: one may have been on its way when the
line was sent, one is behind the line, and with the lines before the third the position was written."""
RATE = 200
"""Lines in a second: a busy bot."""


class App:
    """The app, and what it got."""

    def __init__(self, scene, relay, host="127.0.0.1", query="device=phone", inside=()):
        folder = packages("ws", "reconnecting-websocket")
        url = f"ws://{host}:{relay.port}/?{query}"
        # The app gives an attempt up after 2 s; without a network in between that is a machine that stands still.
        open_ms = 2_000 if inside else int(DEADLINE_S * 1000)
        self.program = Program(APP, str(folder), url, "100", str(open_ms), prefix=list(inside))
        scene.on_end(self.program.end)

    @property
    def said(self):
        return self.program.said

    def forget(self):
        """Look only at what comes from now on, on a connection that is open."""
        self.program.said[:] = []

    def opens(self):
        return sum("open" in said for said in self.said)

    def lose(self):
        """Take its socket away; return when it is gone: nothing more comes on that connection, cut or not."""
        before = self.closes()
        self.program.tell(lose=True)
        self.program.wait(lambda: self.closes() > before, "to have lost its connection")

    def closes(self):
        return sum("closed" in said for said in list(self.said))

    def last(self):
        """Return the number of the newest line of the bot."""
        return next((said["n"] for said in reversed(self.said) if "n" in said), 0)

    def wait_for(self, n):
        self.program.wait(lambda: self.last() >= n, f"line {n}")

    def wait_for_lines(self, feeder, more):
        """Wait until it has caught up with the bot, and then for more lines: it is live."""
        for count in (1, more):
            self.wait_for(feeder.produced + count)

    def wait_open(self, count):
        self.program.wait(lambda: self.opens() == count, f"to be open for the {count}. time")

    def repeats(self):
        """Return how many lines each connection brought that an earlier one had brought, and which of them the relay
        had to know of: those that the app had answered ON_THE_WAY pings behind. How many lines that is depends on how
        busy the machine is.
        """
        pings, again, last, newest = {}, {}, {}, 0
        connection = 0 if self.said and "open" in self.said[0] else 1
        for said in list(self.said):
            if "open" in said:
                connection += 1
                again[connection], last[connection] = [], newest
            if "n" in said:
                if said["n"] in pings:
                    again[connection].append(said["n"])
                pings.setdefault(said["n"], said["pings"])
                newest = said["pings"]
        late = [
            [n for n in again[number] if pings[n] < last[number] - ON_THE_WAY] for number in range(2, connection + 1)
        ]
        return [len(again[number]) for number in range(2, connection + 1)], late

    def missing(self, last):
        return sorted(set(range(1, last + 1)) - {said["n"] for said in self.said if "n" in said})


def kept_position(journal):
    """Return the seq that the journal has of its only device."""
    with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'devices'").fetchone():
            return None
        row = db.execute("SELECT position FROM devices").fetchone()
        return row and int(row[0].rpartition("-")[2])


def finish(feeder, app):
    """Have the bot end, and the app get its last line; return the number of lines."""
    feeder.finish()
    count = feeder.wait()
    app.wait_for(count)
    return count


def test_kills_of_the_relay(scene):
    """Nothing is missing after kill -9, and at most the lines of the last tick come again."""
    dice = chance("device kills")
    relay = scene.relay("--quiet-after", "0").start()
    app = App(scene, relay)
    app.wait_open(1)
    feeder = scene.feeder(relay, "feeder", rate=RATE)
    for number in range(KILLS):
        app.wait_for_lines(feeder, dice.randrange(20, 120))
        wait_well(relay)  # a disk that keeps a commit keeps the device's position as well
        relay.restart()
        app.wait_open(number + 2)
    count = finish(feeder, app)
    repeats, late = app.repeats()
    print(
        f"\n{KILLS} kills at {RATE} lines/s, {count} lines; repeats per kill {dict(sorted(Counter(repeats).items()))}"
    )

    assert app.missing(count) == []
    assert len(repeats) == KILLS
    assert late == [[]] * KILLS, "more than the last tick came again"


def test_a_network_that_is_cut(scene):
    """Nothing is missing after the network was away, and nothing comes again that was not on the way when it went."""
    network = Network()
    scene.on_end(network.end)
    dice = chance("device cuts")
    relay = scene.relay("--host", "0.0.0.0", "--quiet-after", "0")
    relay.environ["LOGRELAY_TOKEN"] = TOKEN
    relay.start()
    app = App(scene, relay, network.near, f"token={TOKEN}&device=phone", network.inside)
    app.wait_open(1)
    trader = scene.trader(relay).connect()
    for number in range(QUIET_CUTS):
        trader.burst(dice.randrange(3, 30))
        app.wait_for(trader.seq)
        wait_for(lambda: kept_position(relay.journal) == Ledger.read(relay.journal).head, "the position to be kept")
        network.cut()
        app.lose()
        trader.burst(dice.randrange(3, 30))
        network.mend()
        app.wait_open(number + 2)
        app.wait_for(trader.seq)
    assert app.missing(trader.seq) == []
    assert app.repeats()[0] == [0] * QUIET_CUTS
    trader.bye()
    app.forget()
    feeder = scene.feeder(relay, "feeder", rate=RATE)
    for number in range(CUTS):
        app.wait_for_lines(feeder, dice.randrange(20, 120))
        network.cut()
        app.lose()
        cut_at = feeder.acked
        wait_for(lambda at=cut_at: feeder.acked >= at + RATE, "the bot to go on")
        network.mend()
        app.wait_open(number + 1)
    count = finish(feeder, app)
    repeats, late = app.repeats()
    print(f"\n{CUTS} cuts at {RATE} lines/s, {count} lines; repeats per cut {dict(sorted(Counter(repeats).items()))}")

    assert app.missing(count) == []
    # A line that arrives and cannot be acknowledged any more comes again; how many there are is the machine's doing.
    assert late == [[]] * CUTS, "more came again than was on the way when the network was cut"


def test_without_a_name_it_is_what_the_docs_say(scene):
    """After a restart of the relay the newest lines come again; with a name none does after an orderly stop."""
    relay = scene.relay("--quiet-after", "0", "--tail", "100").start()
    trader = scene.trader(relay).connect()
    named, plain = App(scene, relay), App(scene, relay, query="")
    named.wait_open(1)
    plain.wait_open(1)
    trader.burst(20)
    named.wait_for(20)
    plain.wait_for(20)
    relay.stop()
    relay.start()
    for app in (named, plain):
        app.wait_open(2)
    trader.close()
    trader.connect()
    trader.burst(5)
    for app in (named, plain):
        app.wait_for(25)

    assert named.repeats()[0] == [0]
    assert plain.repeats()[0] == [20]
    assert named.missing(25) == plain.missing(25) == []


def test_an_app_without_a_token_shows_why(scene):
    """One line, and a close code; a client at a terminal is refused as ever; the right token lets the app in."""
    relay = scene.relay()
    relay.environ["LOGRELAY_TOKEN"] = TOKEN
    relay.start()
    app = App(scene, relay)
    app.program.wait(lambda: any("closed" in said for said in app.said), "to be closed")
    opened, line, closed = app.said[:3]

    assert opened == {"open": True}
    assert (line["level"], line["source"], line["context"]["state"]) == ("ERROR", "logrelay", "access")
    assert line["message"].startswith("this relay needs a token, and none was shown")
    assert (closed["closed"], closed["reason"]) == (4403, "this relay needs a token, and none was shown")
    status, _ = relay.get("/logs?device=phone")
    assert status == 401
    plain = App(scene, relay, query="token=wrong")
    plain.program.wait(lambda: any("closed" in said for said in plain.said), "to be refused")
    assert plain.opens() == 0
    good = App(scene, relay, query=f"device=phone&token={TOKEN}")
    scene.trader(relay).connect().burst(3)
    good.wait_for(3)
    assert not any("n" in said for said in app.said)
