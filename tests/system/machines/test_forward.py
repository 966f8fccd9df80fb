"""An edge forwards to a real NATS server: each line once and in order, whatever is killed, cut, full or gone."""

from __future__ import annotations

import sys
import time
from itertools import pairwise

import pytest

from logrelay.machines import edge_state
from logrelay.machines.stream_batch import StreamBatch, decode
from tests.support.chaos.feeder import Trader
from tests.support.chaos.ledger import Ledger
from tests.support.chaos.relay import Relay
from tests.support.chaos.scale import FULL, chance, scaled
from tests.support.nats import Proxy, asked, messages_of, nats_cluster, nats_server, needs_nats, needs_socat
from tests.support.waiting import DEADLINE_S, wait_for
from tests.system.chaos.conftest import FULL_TIMEOUT_S

pytest.importorskip("nats", reason="nats-py is not installed (pip install '.[nats]' in the checkout)")
pytestmark = [needs_nats, pytest.mark.timeout(scaled(900, FULL_TIMEOUT_S))]

KILLS = scaled(9, 100)
GONE_S = scaled(1, 60)
LOST_BURSTS, LOST_KEEP = scaled(12, 500), ("1MiB", "64MiB")[FULL]
"""Lines of 600 at a time while the network is gone, and what the edge's journal may keep of them."""
CLUSTER_LINES = scaled(3000, 60_000)
ELECTED_S = scaled(60, 600)
"""For a server of a cluster that has lost its disk to have everything again: elections, which begin anew where
heartbeats are late, then the copy. 1 to 8 s were seen on a machine with three times the work that it has cores for."""


PATIENT = """#!{python}
import sys
import logrelay.app
from logrelay.__main__ import run
logrelay.app.FORWARD_TIMEOUT_S = {deadline}
sys.argv = ["logrelay", *sys.argv[3:]]
run()
"""
"""A Python whose relay waits at its end for what is on its way, however slowly the server takes it: half a second is
what it gives a server otherwise, and what does not get there in time goes when it is started again."""


@pytest.fixture
def edges(tmp_path):
    """Make edges that end with the test."""
    patient = tmp_path / "patient"
    patient.write_text(PATIENT.format(python=sys.executable, deadline=DEADLINE_S))
    patient.chmod(0o755)
    made: list[Relay] = []

    def make(url, *options, name="box", home=None):
        folder = home or tmp_path / name
        folder.mkdir(exist_ok=True)
        made.append(Relay(folder, "--forward", url, "--edge-name", name, *options))
        made[-1].python = str(patient)
        return made[-1]

    yield make
    for relay in made:
        relay.end()


@pytest.fixture
def bots():
    made: list[Trader] = []

    def make(relay, name="bot"):
        made.append(Trader(relay.socket, name).connect())
        return made[-1]

    yield make
    for trader in made:
        trader.close()


def rows(relay):
    """Return the journal's lines by seq."""
    return {entry.seq: entry.raw for entry in Ledger.read(relay.journal).entries}


def head(relay):
    return Ledger.read(relay.journal).head


def decoded(url) -> list[StreamBatch]:
    """Return what the stream has."""
    return [decode(message.headers, message.data) for message in messages_of(url)]


def batches(url, edge="box") -> list[StreamBatch]:
    """Return what the stream has of an edge, which is one chain without a hole or a repeat."""
    found = [batch for batch in decoded(url) if batch.edge == edge]
    for before, batch in pairwise(found):
        assert batch.after == before.id, (batch.after, before.id)
        assert batch.first == before.last + 1, (batch.first, before.last)
        assert batch.journal == before.journal
    return found


def lines_of(found):
    return {line.seq: line.body for batch in found for line in batch.lines}


def all_of(relay, url):
    """Return what the stream has, with all that the journal has now; whatever is logged meanwhile is left out."""
    journal = rows(relay)
    last = max(journal)
    wait_for(lambda: batches(url)[-1].last >= last, relay.tell)
    found = batches(url)
    assert {seq: body for seq, body in lines_of(found).items() if seq <= last} == journal
    return found


def wait_forwarded(relay, deadline_s=DEADLINE_S):
    """Wait until the stream has all that was committed."""
    wait_for(
        lambda: relay.metric("forward_lag_lines") == 0 and relay.metric("forward_connected") == 1,
        relay.tell,
        deadline_s,
    )


def test_lines_and_notices_go_once_also_over_restarts(tmp_path, edges, bots):
    """Every line of the journal should be in the stream as it is there, and a restart add nothing to it."""
    with nats_server(tmp_path / "nats") as server:
        edge = edges(server.url).start()
        bot = bots(edge, "robo")
        bot.burst(500, symbol="AAPL")
        bot.log("margin call", "critical")
        bot.wait_acked()
        wait_forwarded(edge)
        wait_for(lambda: edge.metric("forward_lines_total") == head(edge), edge.tell)
        assert edge.stop() == 0
        ended = head(edge)
        assert lines_of(batches(server.url)) == rows(edge), "the notice about the bot's end is there, too"

        edge.start()
        wait_forwarded(edge)
        edge.kill()
        edge.start()
        wait_forwarded(edge)

        found = all_of(edge, server.url)
        assert found[-1].last >= ended
        line = next(line for batch in found for line in batch.lines if b"margin call" in line.body)
        assert (line.rank, line.origin.app, line.origin.host, line.origin.source) == (50, "robo", "chaos", "load.robo")
        assert line.origin.run_name.encode() in line.body
        notice = next(line for line in found[0].lines if line.origin.app == "")
        assert notice.origin.source == "logrelay"


@needs_socat
def test_kills_and_cuts_lose_nothing_and_repeat_nothing(tmp_path, edges, bots):
    """Kill -9 of the edge and of the server and connections cut, under load: each line is in the stream once."""
    dice = chance("forward kills")
    with nats_server(tmp_path / "nats") as server:
        proxy = Proxy(server.port).start()
        try:
            edge = edges(proxy.url).start()
            bot = bots(edge)
            for kill in range(KILLS):
                bot.burst(dice.randrange(50, 400))
                bot.step(dice.random() / 20)
                if kill % 3 == 0:
                    edge.restart()
                elif kill % 3 == 1:
                    server.kill()
                    server.start()
                else:
                    proxy.cut()
                    proxy.start()
                bot.wait_acked()
            wait_forwarded(edge)
            found = all_of(edge, server.url)
            assert sum(b'"feeder":"bot"' in body for body in lines_of(found).values()) == bot.seq
        finally:
            proxy.cut()


def test_a_server_that_is_away_does_not_matter_to_bots_and_what_waited_follows(tmp_path, edges, bots):
    """Without a server lines should be taken as ever, it should be told once, and all of it go when it is back."""
    with nats_server(tmp_path / "nats") as server:
        edge = edges(server.url, "--log-level", "info").start()
        bot = bots(edge)
        bot.burst(100)
        bot.wait_acked()
        wait_forwarded(edge)
        server.kill()
        until, count = time.monotonic() + GONE_S, 0
        while time.monotonic() < until:
            bot.burst(10)
            bot.step(0.01)
            count += 10
        bot.wait_acked()
        wait_for(lambda: edge.metric("forward_connected") == 0, edge.tell)
        assert edge.metric("forward_lag_lines") >= count
        if FULL:
            assert edge.metric("forward_lag_seconds") > GONE_S / 2
            assert sum("lines are not forwarded" in said for said in edge.said) == 1
        server.start()
        began = time.monotonic()
        wait_forwarded(edge)
        print(f"\n{count} lines in {GONE_S} s without a server, {time.monotonic() - began:.1f} s to catch up")
        all_of(edge, server.url)
        if FULL:
            wait_for(lambda: any("lines are forwarded again" in said for said in edge.said), edge.tell)


def test_what_retention_takes_first_is_told_exactly(tmp_path, edges, bots):
    """Gone for longer than the journal keeps: lines and told losses should together be every line there ever was."""
    with nats_server(tmp_path / "nats") as server:
        edge = edges(server.url, "--keep-bytes", LOST_KEEP, "--log-level", "info").start()
        bot = bots(edge)
        bot.burst(50)
        bot.wait_acked()
        wait_forwarded(edge)
        server.kill()
        for _ in range(LOST_BURSTS):
            bot.burst(600, text="x" * 200)
            bot.wait_acked()
        wait_for(lambda: any("have not been forwarded" in said for said in edge.said), edge.tell)
        server.start()
        wait_forwarded(edge)
        wait_for(lambda: any("lines not forwarded: the journal had deleted" in said for said in edge.said), edge.tell)
        wait_forwarded(edge)
        lost = int(edge.metric("forward_lost_lines_total"))
        edge.stop()

        found = batches(server.url)
        holes = [hole for batch in found for hole in batch.holes]
        assert {hole.cause for hole in holes} == {"retention"}
        assert sum(hole.size for hole in holes) == lost > 1000
        assert sum(len(batch.lines) for batch in found) + lost == found[-1].last == head(edge)
        print(f"\n{head(edge)} lines, {lost} of them lost and told, {len(found)} messages")
        told = next(body for body in lines_of(found).values() if b'"forward_lost"' in body)
        assert b'"count":%d' % holes[0].size in told


def test_a_cluster_that_loses_a_server_and_its_disk_loses_no_line(tmp_path, edges, bots):
    """Of three servers with three replicas one is killed and its store deleted, twice: every line should stay once."""
    with nats_cluster(tmp_path / "nats") as cluster:
        edge = edges(cluster.urls, "--nats-replicas", "3").start()
        bot = bots(edge)
        per_round = CLUSTER_LINES // 3
        bot.burst(per_round)
        bot.wait_acked()
        wait_forwarded(edge)
        for place in (0, 1):
            victim = cluster.servers[place]
            victim.kill()
            victim.delete_store()
            bot.burst(per_round)
            bot.wait_acked()
            victim.start(ELECTED_S)
            wait_forwarded(edge, ELECTED_S)
            wait_for(lambda: replicas_current(cluster) == 3, lambda: f"three whole replicas; {edge.tell()}", ELECTED_S)
        edge.stop()
        for server in cluster.servers:
            assert lines_of(batches(server.url)) == rows(edge)


def replicas_current(cluster):
    """Return how many servers have all of the stream, as its leader says."""

    async def ask(client):
        info = await client.jetstream(timeout=10).stream_info("LOGRELAY")
        return 1 + sum(bool(peer.current) for peer in info.cluster.replicas or ())

    try:
        return asked(cluster.servers[2].url, ask)
    except Exception:
        return 0


def test_a_stream_that_is_made_anew_gets_everything_that_is_kept(tmp_path, edges, bots):
    """Whoever deletes the stream, or loses the server's disk, should have it filled again from the journals."""
    with nats_server(tmp_path / "nats") as server:
        edge = edges(server.url).start()
        bot = bots(edge)
        bot.burst(200)
        bot.wait_acked()
        wait_forwarded(edge)
        server.kill()
        server.delete_store()
        server.start()
        bot.burst(20)
        bot.wait_acked()
        wait_for(lambda: bool(server.streams()), edge.tell)
        wait_forwarded(edge)
        all_of(edge, server.url)


def test_a_journal_that_is_wiped_goes_on_under_another_name(tmp_path, edges, bots):
    """A new journal numbers from 1 again: the stream should tell both apart, and the edge say so."""
    with nats_server(tmp_path / "nats") as server:
        edge = edges(server.url).start()
        bot = bots(edge)
        bot.burst(30)
        bot.wait_acked()
        wait_forwarded(edge)
        edge.stop()
        for path in edge.home.glob("journal.db*"):
            path.unlink()
        edge.start()
        wait_for(lambda: any("is not of this journal" in said for said in edge.said), edge.tell)
        bot = bots(edge)
        bot.burst(5)
        bot.wait_acked()
        wait_forwarded(edge)
        journal = rows(edge)
        wait_for(lambda: decoded(server.url)[-1].last >= max(journal), edge.tell)
        found = decoded(server.url)
        assert len({batch.journal for batch in found}) == 2
        new = [batch for batch in found if batch.journal == found[-1].journal]
        assert {seq: body for seq, body in lines_of(new).items() if seq <= max(journal)} == journal
        assert new[0].after == found[len(found) - len(new) - 1].id


def test_a_small_server_gets_small_messages(tmp_path, edges, bots):
    """Messages should stay below the server's max_payload, and a line that is larger by itself be told."""
    with nats_server(tmp_path / "nats", max_payload=8192) as server:
        edge = edges(server.url).start()
        bot = bots(edge)
        bot.burst(200, text="y" * 300)
        bot.log("huge", text="z" * 20_000)
        bot.burst(10)
        bot.wait_acked()
        wait_forwarded(edge)
        messages = messages_of(server.url)
        assert max(len(message.data) for message in messages) < 8192
        found = batches(server.url)
        holes = [hole for batch in found for hole in batch.holes]
        assert [(hole.size, hole.cause) for hole in holes] == [(1, "too_large")]
        journal = rows(edge)
        assert b"huge" in journal.pop(holes[0].first)
        assert lines_of(found).items() <= journal.items()
        assert set(journal) - set(lines_of(found)) <= set(range(found[-1].last + 1, head(edge) + 1))


def test_a_server_that_takes_next_to_nothing_is_not_used(tmp_path, edges, bots):
    """Nothing should be lost there: the notice of a line that is too large would be too large itself, and so on."""
    with nats_server(tmp_path / "nats", max_payload=1024) as server:
        edge = edges(server.url).start()
        bots(edge).burst(3)
        wait_for(lambda: any("its max_payload is 1,024 bytes" in said for said in edge.said), edge.tell)
        assert edge.metric("forward_lost_lines_total") == 0
        assert not server.streams()


def test_the_edge_says_how_it_is(tmp_path, edges, bots):
    """Whoever listens should hear of the edge and of its bots, and of a bot that has crashed."""
    with nats_server(tmp_path / "nats") as server:
        edge = edges(server.url).start()
        bot = bots(edge, "robo")
        bot.burst(3)
        bot.wait_acked()

        async def listen(client):
            subscription = await client.subscribe("logrelay.state.*")
            return edge_state.decode((await subscription.next_msg(timeout=60)).data)

        wait_forwarded(edge)
        state = asked(server.url, listen)
        assert (state.edge, state.lag_lines, state.trouble) == ("box", 0, None)
        assert [(b["app"], b["state"], b["host"]) for b in state.bots] == [("robo", "connected", "chaos")]
        assert state.head.endswith(f"-{state.forwarded}")
        assert state.journal == batches(server.url)[0].journal
