"""A hub relay collects from a real NATS server: each line once and in order, whatever is killed, cut or emptied."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections import deque
from contextlib import closing
from itertools import count

import pytest

from tests.support.chaos.feeder import Feeder, Trader
from tests.support.chaos.ledger import Ledger, check_viewer, private_notices
from tests.support.chaos.relay import ROOT, Relay
from tests.support.chaos.scale import chance, scaled
from tests.support.chaos.viewer import Viewer
from tests.support.edges import change_stream, edge_state_of, lines_batch, publish
from tests.support.nats import Proxy, asked, nats_server, needs_nats, needs_socat
from tests.support.waiting import DEADLINE_S, wait_for
from tests.system.chaos.conftest import FULL_TIMEOUT_S

api = pytest.importorskip("nats.js.api", reason="nats-py is not installed (pip install '.[nats]' in the checkout)")
pytestmark = [needs_nats, pytest.mark.timeout(scaled(900, FULL_TIMEOUT_S))]

KILLS = scaled(9, 100)
EDGES, BOTS = 3, 4
RATE = scaled(30, 60)
"""Lines of one bot in a second: twelve of them, proxies and a server share the machine with what is tested."""


@pytest.fixture
def cast(tmp_path):
    """Make relays, bots and viewers that end with the test, the last one made first."""
    ends = []
    numbers = count()

    class Cast:
        def relay(self, *options, name=""):
            folder = tmp_path / (name or f"relay{next(numbers)}")
            folder.mkdir(exist_ok=True)
            made = Relay(folder, *options)
            ends.append(made.end)
            return made

        def hub(self, url, *options, name="hub"):
            return self.relay("--collect", url, *options, name=name)

        def edge(self, url, name, *options):
            return self.relay("--forward", url, "--edge-name", name, *options, name=name)

        def viewer(self, relay, **query):
            made = Viewer(relay.port, **query)
            ends.append(made.stop)
            return made.start()

        def feeder(self, relay, name, **options):
            made = Feeder(relay.home, relay.socket, name, **options)
            ends.append(made.end)
            return made

        def trader(self, relay, name):
            made = Trader(relay.socket, name)
            ends.append(made.close)
            return made.connect()

        def proxy(self, server):
            made = Proxy(server.port).start()
            ends.append(made.cut)
            return made

    yield Cast()
    while ends:
        ends.pop()()


@pytest.fixture
def server(tmp_path):
    with nats_server(tmp_path / "nats") as made:
        yield made


def bodies(viewer):
    """Return the lines of bots that a viewer got."""
    return [line.data for line in viewer.lines if b'"feeder"' in line.raw]


def numbers(viewer, edge="berlin"):
    """Return the `n` of each line of an edge, as they came."""
    return [data["context"]["n"] for data in bodies(viewer) if data["edge"] == edge]


def told(viewer, **context):
    """Return the contexts of notices that have these values."""
    found = [line.data["context"] for line in viewer.lines if b'"notice"' in line.raw]
    return [shown for shown in found if context.items() <= shown.items()]


def edges_in(lines):
    """Return the names of the edges that lines came from."""
    return {line.raw.rpartition(b'"edge":"')[2].partition(b'"')[0] for line in lines if b'"feeder"' in line.raw}


APP_ROWS = 500
"""What the mobile app keeps, by timestamp."""


def check_times(viewer):
    """Of the lines that the app would have, no two have one timestamp, and in each run they rise."""
    last, rows = {}, deque(maxlen=APP_ROWS)
    for data in bodies(viewer):
        shown, run = data["timestamp"], (data["edge"], data["run"])
        assert shown not in rows, data
        assert shown > last.get(run, ""), data
        rows.append(shown)
        last[run] = shown


@needs_socat
def test_kills_and_cuts_between_bots_and_a_viewer_of_the_hub(cast, server):
    """Kill -9 of edges, hub and NATS server, and cut connections, under load: each line of each bot once, in order."""
    dice = chance("collect kills")
    proxies = [cast.proxy(server) for _ in range(EDGES + 1)]
    hub = cast.hub(proxies[-1].url).start()
    edges = [cast.edge(proxy.url, f"edge{n}").start() for n, proxy in enumerate(proxies[:-1])]
    viewer = cast.viewer(hub)
    feeders = {
        f"edge{n}.bot{b}": cast.feeder(edge, f"edge{n}.bot{b}", rate=RATE)
        for n, edge in enumerate(edges)
        for b in range(BOTS)
    }
    done = dict.fromkeys(("edge", "hub", "server", "cut"), 0)
    kinds = list(done)
    for kill in range(KILLS):
        # Not before lines have come through again from every edge, else the kills would only meet what is down already.
        seen = len(viewer.lines)
        wait_for(
            lambda s=seen: len(edges_in(viewer.lines[s:])) == EDGES,
            lambda: f"lines of every edge; {hub.tell()} {[edge.tell() for edge in edges]}",
        )
        kind = kinds[kill % len(kinds)] if kill < len(kinds) else dice.choice(kinds)
        done[kind] += 1
        if kind == "edge":
            dice.choice(edges).restart()
        elif kind == "hub":
            hub.restart()
        elif kind == "server":
            server.kill()
            server.start()
        else:
            proxy = dice.choice(proxies)
            proxy.cut()
            proxy.start()
    for feeder in feeders.values():
        feeder.finish()
    produced = {name: feeder.wait() for name, feeder in feeders.items()}
    total = sum(produced.values())
    viewer.wait(lambda: sum(b'"feeder"' in line.raw for line in viewer.lines) >= total, f"not all of {total} lines")
    found: dict[str, list[int]] = {name: [] for name in produced}
    for data in bodies(viewer):
        assert data["edge"] == data["context"]["feeder"].partition(".")[0]
        assert data["host"] == "chaos"
        found[data["context"]["feeder"]].append(data["context"]["n"])
    wrong = {n: len(got) for n, got in found.items() if got != list(range(1, produced[n] + 1))}
    assert not wrong, f"lines of {wrong}, of {produced}"
    check_times(viewer)
    assert not private_notices(viewer.lines)
    assert not [gap for gap in told(viewer, notice="gap") if gap.get("cause") != "unexplained"]
    ledger = Ledger.read(hub.journal)
    viewer.wait_for_id(ledger.head)
    check_viewer(viewer, ledger)
    print(f"\n{done}: {total} lines of {len(produced)} bots, {viewer.connections} connections of the viewer")


def test_what_comes_twice_is_cut_and_what_is_missing_is_told(cast, server):
    """Batches that overlap, a hole that an edge explains, one that nobody does, and messages that are none."""
    hub = cast.hub(server.url).start()
    viewer = cast.viewer(hub, notices="all")
    impostor = lines_batch("paris", "p1", 1, 2)
    publish(
        server.url,
        lines_batch("berlin", "e1", 1, 10),
        lines_batch("berlin", "e1", 5, 12),
        ("logrelay.lines.berlin", b"nonsense"),
        impostor,
        lines_batch("berlin", "e1", 20, 22),
    )
    viewer.wait(lambda: len(bodies(viewer)) == 17, "not all lines")
    assert numbers(viewer) == [*range(1, 13), 20, 21, 22]
    [gap] = told(viewer, notice="gap")
    assert (gap["cause"], gap["count"], gap["first"], gap["last"], gap["edge"]) == (
        *("stream", 7, "e1-13", "e1-19"),
        "berlin",
    )
    [bad] = told(viewer, state="bad_message")
    assert "berlin" in str(viewer.lines[[b"bad_message" in line.raw for line in viewer.lines].index(True)].raw)
    assert bad["count"] == 1
    assert hub.metric("collected_duplicate_lines_total") == 6
    assert hub.metric("collected_missing_lines_total") == 7
    hub.restart()
    publish(server.url, lines_batch("berlin", "e1", 21, 24), make=False)
    viewer.wait(lambda: numbers(viewer)[-1] == 24, "nothing behind the restart")
    assert numbers(viewer) == [*range(1, 13), *range(20, 25)]
    check_times(viewer)


def test_a_stream_that_was_emptied_or_made_anew_is_told_and_gone_on_with(cast, server):
    """Purged before the hub relay had come to it, deleted and made anew, and read again from its beginning."""
    hub = cast.hub(server.url).start()
    viewer = cast.viewer(hub)
    publish(server.url, lines_batch("berlin", "e1", 1, 10))
    viewer.wait(lambda: len(bodies(viewer)) == 10, "not the first lines")
    hub.stop()
    publish(server.url, lines_batch("berlin", "e1", 11, 15), lines_batch("berlin", "e1", 16, 20), make=False)
    change_stream(server.url, "purge_stream")
    publish(server.url, lines_batch("berlin", "e1", 21, 25), make=False)
    hub.start()
    viewer.wait(lambda: len(bodies(viewer)) == 15, "not the lines behind the purge")
    assert [one["messages"] for one in told(viewer, state="stream")] == [2]
    assert [(one["count"], one["first"], one["last"]) for one in told(viewer, notice="gap")] == [(10, "e1-11", "e1-20")]

    change_stream(server.url, "delete_stream")
    publish(server.url, lines_batch("berlin", "e1", 21, 27), lines_batch("berlin", "e2", 31, 32))
    viewer.wait(lambda: len(bodies(viewer)) == 19, "not the lines of the new stream")
    assert numbers(viewer) == [*range(1, 11), *range(21, 28), 31, 32]
    assert len(told(viewer, state="stream")) == 2
    assert told(viewer, notice="gap")[1]["count"] == 3


def test_several_hubs_and_one_that_has_lost_its_disk(cast, server):
    """Each has everything; the one that begins anew has it from the stream."""
    first, second = cast.hub(server.url).start(), cast.hub(server.url, name="second").start()
    publish(server.url, lines_batch("berlin", "e1", 1, 900), lines_batch("paris", "p1", 1, 5))
    for hub in (first, second):
        viewer = cast.viewer(hub)
        viewer.wait(lambda v=viewer: len(bodies(v)) == 905, "not all lines")
        assert numbers(viewer) == list(range(1, 901))
    first.kill()
    for path in first.home.glob("journal.db*"):
        path.unlink()
    first.start()
    viewer = cast.viewer(first)
    viewer.wait(lambda: len(bodies(viewer)) == 905, "not rebuilt")
    assert numbers(viewer) == list(range(1, 901))
    assert not told(viewer, notice="gap")


def test_while_the_journal_is_in_trouble_lines_wait_in_the_stream(cast, server):
    """Reading stops, and goes on where it was; nothing is lost, nothing comes twice."""
    hub = cast.hub(server.url, "--keep-free", "0").start()
    viewer = cast.viewer(hub)
    publish(server.url, lines_batch("berlin", "e1", 1, 10))
    viewer.wait(lambda: len(bodies(viewer)) == 10, "not the first lines")
    hub.limit_file_size(hub.journal.stat().st_size)
    publish(server.url, *(lines_batch("berlin", "e1", n * 500 + 11, n * 500 + 510) for n in range(40)), make=False)
    wait_for(lambda: hub.metric("journal_trouble") == 1, hub.tell)
    assert hub.metric("collected_messages_total") < 41, "what there is no room for is not taken"
    hub.limit_file_size(None)
    viewer.wait(lambda: len(bodies(viewer)) == 20_010, "not all lines")
    assert numbers(viewer) == list(range(1, 20_011))
    assert not told(viewer, notice="gap")


def test_viewers_of_a_hub_ask_by_machine(cast, server):
    """In a subscription, in /logs and in the terminal; and what is told of machines that are heard and are not."""
    hub = cast.hub(server.url).start()
    bots = [{"app": "robo"}, {"app": "other", "state": "crashed"}]
    publish(
        server.url,
        lines_batch("berlin", "e1", 1, 5, app="robo"),
        lines_batch("berlin", "e1", 6, 7, app="other"),
        lines_batch("paris", "p1", 1, 3, app="robo"),
    )
    viewer = cast.viewer(hub, edge="ber*", notices="no")
    viewer.wait(lambda: len(bodies(viewer)) == 7, "not the lines of berlin")
    states = edge_state_of("berlin", *bots, interval_s=3600), edge_state_of("paris", {"app": "robo"}, interval_s=0.1)
    publish(server.url, *states, make=False)
    for query, lines in (("edge=paris", 3), ("edge=ber*&app=robo", 5), ("edge=x", 0), ("edge=*&text=p1-2", 1)):
        found = hub.get(f"/logs?notices=no&{query}")[1].splitlines()
        assert len(found) == lines, (query, found)
    assert hub.get("/logs?edge=" + "a" * 300)[0] == 400
    command = [
        sys.executable,
        "-m",
        "logrelay",
        "search",
        "--edge",
        "paris",
        "--notices",
        "no",
        "p1",
        f"http://127.0.0.1:{hub.port}/",
    ]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout
    assert shown.count("p1-") == 3

    # The edge with the short interval has become silent meanwhile.
    wait_for(lambda: hub.metric("edges_unreachable") == 1, hub.tell)
    health = hub.health()
    assert {edge["edge"]: edge["state"] for edge in health["edges"]} == {"berlin": "reachable", "paris": "unreachable"}
    states = {(trader["edge"], trader["app"]): trader["state"] for trader in health["traders"]}
    assert states == {("berlin", "robo"): "connected", ("berlin", "other"): "crashed", ("paris", "robo"): "unknown"}
    metrics = hub.get("/metrics")[1].decode()
    assert 'logrelay_trader_up{app="robo",edge="berlin"} 1' in metrics
    assert 'logrelay_trader_up{app="other",edge="berlin"} 0' in metrics
    assert 'app="robo",edge="paris"' not in metrics
    everything = cast.viewer(hub)
    assert {edge["edge"] for edge in everything.others[0]["edges"]} == {"berlin", "paris"}
    everything.wait(lambda: told(everything, state="edge_unreachable", edge="paris"), "nothing said of paris")
    assert len(bodies(everything)) == 10, "it is told behind the lines"
    publish(server.url, edge_state_of("paris", {"app": "robo"}, interval_s=3600), make=False)
    everything.wait(lambda: told(everything, state="edge_back", edge="paris"), "nothing said of its return")
    assert hub.metric("edges_unreachable") == 0


def test_limits_of_a_token_hold_for_collected_lines_by_any_way(cast, server):
    """Level, bot and logger: over WebSocket, in /logs, /summary, /healthz and `status`; bots of machines as well."""
    hub = cast.hub(server.url).start()
    publish(
        server.url,
        lines_batch("berlin", "e1", 1, 2, app="visible", rank=30, source="shown.a"),
        lines_batch("berlin", "e1", 3, 4, app="visible", rank=20, source="shown.a"),
        lines_batch("berlin", "e1", 5, 6, app="visible", rank=40, source="hidden.a"),
        lines_batch("paris", "p1", 1, 3, app="hidden", rank=40, source="shown.a"),
    )
    wait_for(lambda: hub.metric("collected_lines_total") == 9, hub.tell)
    states = [
        edge_state_of(edge, {"app": app}, interval_s=3600) for edge, app in (("berlin", "visible"), ("paris", "hidden"))
    ]
    publish(server.url, *states, make=False)
    wait_for(lambda: hub.metric("edges") == 2, hub.tell)

    def command(*arguments, **environ):
        done = subprocess.run(
            [sys.executable, "-m", "logrelay", *arguments],
            cwd=ROOT,
            env=os.environ | {"LOGRELAY_JOURNAL": str(hub.journal)} | environ,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return done.stdout.strip() or done.stderr

    limits = ("--min-level", "warning", "--app", "vis*", "--source", "shown.*")
    token, everything = command("token", "add", "phone", *limits), command("token", "add", "owner")

    def get(target, shown):
        link = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=DEADLINE_S)
        with closing(link):
            link.request("GET", target, headers={"Authorization": f"Bearer {shown}"})
            answer = link.getresponse()
            return answer.status, answer.read()

    wait_for(lambda: [get("/readyz", one)[0] for one in (token, everything)] == [200, 200], "the relay takes both")

    def lines(shown):
        found = map(json.loads, get("/logs?notices=no&limit=1000", shown)[1].splitlines())
        return [line["message"] for line in found]

    assert lines(everything) == [*(f"e1-{n}" for n in range(1, 7)), *(f"p1-{n}" for n in range(1, 4))]
    assert lines(token) == ["e1-1", "e1-2"]
    assert get("/logs?notices=no&edge=*&text=hidden", token)[1] == b""
    assert get("/logs?notices=no&edge=paris", token)[1] == b""
    viewer = cast.viewer(hub, token=token, tail=1000)
    publish(
        server.url,
        lines_batch("paris", "p1", 4, 5, app="hidden", rank=50, source="shown.a"),
        lines_batch("berlin", "e1", 7, 7, app="visible", rank=40, source="shown.a"),
        make=False,
    )
    viewer.wait(lambda: len(bodies(viewer)) >= 3, "the lines of the token")
    assert [data["message"] for data in bodies(viewer)] == ["e1-1", "e1-2", "e1-7"]
    for way in ("/summary", "/healthz"):
        assert b"hidden" in get(way, everything)[1], way
        seen = get(way, token)[1]
        assert b"visible" in seen, way
        assert b"hidden" not in seen, (way, seen)
        assert b"paris" not in seen, (way, seen)
    assert not any(b"hidden" in line.raw or b"paris" in line.raw for line in viewer.lines)
    assert "paris" not in json.dumps(viewer.others)
    url = f"http://127.0.0.1:{hub.port}/"
    assert "hidden" in command("status", url, LOGRELAY_TOKEN=everything)
    narrowed = command("status", url, LOGRELAY_TOKEN=token)
    assert "visible" in narrowed
    assert "hidden" not in narrowed


def test_a_stream_that_only_gets_its_lines_from_others_can_be_collected(cast, server):
    """A mirror, and the central stream of several sites, take no subject; an edge is refused there, a hub relay not."""
    publish(server.url, lines_batch("berlin", "e1", 1, 20))

    async def copy(client):
        js = client.jetstream()
        await js.add_stream(name="MIRROR", mirror=api.StreamSource(name="LOGRELAY"))
        await js.add_stream(name="CENTRAL", sources=[api.StreamSource(name="LOGRELAY")])

    asked(server.url, copy)
    hubs = [cast.hub(server.url, "--nats-stream", name, name=name.lower()) for name in ("MIRROR", "CENTRAL")]
    viewers = [cast.viewer(hub.start(), tail=1000) for hub in hubs]
    publish(server.url, lines_batch("berlin", "e1", 21, 25), make=False)
    for viewer in viewers:
        viewer.wait(lambda v=viewer: len(bodies(v)) == 25, "not all lines")
        assert numbers(viewer) == list(range(1, 26))
    edge = cast.edge(server.url, "rome", "--nats-stream", "MIRROR", "--log-level", "info").start()
    wait_for(lambda: any("stream MIRROR takes" in said for said in edge.said), edge.tell)


def test_a_relay_may_be_edge_and_hub_at_once(cast, server):
    """It has its own bots' lines and the others', forwards only its own, and says only of its own bots how they are."""
    both = cast.relay("--forward", server.url, "--collect", server.url, "--edge-name", "both", name="both").start()
    edge, hub = cast.edge(server.url, "edge").start(), cast.hub(server.url).start()
    for relay in (both, edge):
        bot = cast.trader(relay, f"bot.{relay.home.name}")
        bot.burst(50)
        bot.wait_acked()
    viewers = [cast.viewer(relay) for relay in (both, hub)]
    for viewer in viewers:
        viewer.wait(lambda v=viewer: len({d["context"]["feeder"] for d in bodies(v)}) == 2, "not both bots")
        viewer.wait(lambda v=viewer: len(bodies(v)) >= 100, "not all lines")
    wait_for(lambda: len(hub.health()["traders"]) == 2, hub.tell)
    wait_for(lambda: both.metric("forward_lag_lines") == 0, both.tell)
    for viewer in viewers:
        found = bodies(viewer)
        for name in ("both", "edge"):
            assert [d["context"]["n"] for d in found if d["app"] == f"bot.{name}"] == list(range(1, 51))
    own = [d.get("edge") for d in bodies(viewers[0]) if d["app"] == "bot.both"]
    assert set(own) <= {None, "both"}
    assert {(t["app"], t["edge"]) for t in hub.health()["traders"]} == {("bot.both", "both"), ("bot.edge", "edge")}


def test_a_server_that_died_is_told_by_status(cast, server):
    """Of a relay that collects and of one that forwards: since when, why and what to do; no more once it is back."""
    both = cast.relay("--forward", server.url, "--collect", server.url, "--edge-name", "both", name="both").start()

    def links():
        health = both.health()
        return [health[key] for key in ("collect", "forward")]

    def status():
        command = [sys.executable, "-m", "logrelay", "status", f"ws://127.0.0.1:{both.port}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)

    wait_for(lambda: all(link["connected"] for link in links()), both.tell)
    assert [(link["since"], link["reason"]) for link in links()] == [(None, None)] * 2
    done = status()
    assert "no connection" not in done.stdout + done.stderr
    server.kill()
    wait_for(lambda: all(link["reason"] for link in links()), both.tell)
    assert not any(link["connected"] for link in links())
    since = [link["since"] for link in links()]
    done = status()
    assert done.returncode == 7
    for meaning, moment in zip(("other machines are not collected", "lines are not forwarded"), since, strict=True):
        for shown in (done.stdout, done.stderr):
            assert f"{meaning}: no connection to the NATS servers since {moment} (" in shown
    assert "start the server" in done.stderr
    assert ": ok" not in done.stdout
    server.start()
    wait_for(lambda: all(link["connected"] for link in links()), both.tell)
    done = status()
    assert "no connection" not in done.stdout + done.stderr
    assert ": ok" in done.stdout


def test_without_the_setting_nothing_of_it_is_there(cast):
    """Neither imports nor fields nor metrics."""
    relay = cast.relay().start()
    viewer = cast.viewer(relay)
    assert "edges" not in viewer.others[0]
    assert not {"edges", "collect", "forward"} & relay.health().keys()
    assert b"collect" not in relay.get("/metrics")[1]
    of_it = "m.startswith(('nats', 'logrelay.machines'))"
    code = f"import sys; import logrelay.app; print(*[m for m in sys.modules if {of_it}])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (loaded.returncode, loaded.stdout.strip()) == (0, ""), loaded.stderr
