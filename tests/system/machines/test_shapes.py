"""The shapes of docs/machines.md with real programs: leaf nodes, and the log socket carried to another machine."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from contextlib import ExitStack, suppress
from os import killpg

import pytest

from tests.support.chaos.feeder import Feeder, Trader
from tests.support.chaos.ledger import Ledger
from tests.support.chaos.relay import ROOT, Relay
from tests.support.chaos.scale import chance, scaled
from tests.support.chaos.viewer import Viewer
from tests.support.nats import NatsServer, asked, needs_nats, needs_socat
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S, wait_for
from tests.system.chaos.conftest import FULL_TIMEOUT_S

api = pytest.importorskip("nats.js.api", reason="nats-py is not installed (pip install 'logrelay-daemon[nats]')")
pytestmark = [needs_nats, pytest.mark.timeout(scaled(900, FULL_TIMEOUT_S))]

DROPS = scaled(3, 10)
PAGE = (ROOT / "docs" / "machines.md").read_text("utf-8")


@pytest.fixture
def scene(tmp_path):
    """Make relays, servers and viewers that end with the test, the last one made first."""
    with ExitStack() as ends:

        class Scene:
            def server(self, name, *, extra="", domain=""):
                made = NatsServer(tmp_path / name, name=name, extra=extra)
                if domain:
                    text = made.config.read_text()
                    made.config.write_text(text.replace("jetstream {", f'jetstream {{ domain: "{domain}",'))
                ends.callback(made.kill)
                return made.start()

            def relay(self, name, *options):
                (tmp_path / name).mkdir()
                made = Relay(tmp_path / name, *options)
                ends.callback(made.end)
                return made.start()

            def bot(self, relay, count):
                made = Trader(relay.socket, "bot").connect()
                ends.callback(made.close)
                made.burst(count)
                made.wait_acked()
                return made

            def viewer(self, relay):
                made = Viewer(relay.port, tail=20_000)
                ends.callback(made.stop)
                return made.start()

        made = Scene()
        made.ends = ends
        yield made


def lines(viewer, edge):
    """Return which lines of a bot at an edge a viewer has, in the order in which they came."""
    found = [line.data for line in viewer.lines if b'"feeder"' in line.raw]
    return [data["context"]["n"] for data in found if data["edge"] == edge]


def test_leaf_nodes_as_documented(scene):
    """A site with a server of its own, mirrored by the central one, which is killed in between."""
    port = free_port()
    found = re.search(r"^ +(leafnodes \{ remotes: .+)$", PAGE, re.MULTILINE)
    assert found
    leaf = found[1].replace("tls://site-a:PASSWORD@nats.example:7422", f"nats://127.0.0.1:{port}")
    assert str(port) in leaf
    central = scene.server("central", extra=f'leafnodes {{ listen: "127.0.0.1:{port}" }}')
    site = scene.server("site", extra=leaf, domain="site-a")
    assert 'domain: "site-a"' in PAGE
    near = [scene.relay(name, "--forward", site.url, "--edge-name", name) for name in ("berlin", "bonn")]
    bots = [scene.bot(edge, 300) for edge in near]
    for edge in near:
        wait_for(lambda e=edge: e.metric("forward_lag_lines") == 0 and e.metric("forward_lines_total") > 300, edge.tell)

    async def make_central(client):
        outside = api.ExternalStream(api="$JS.site-a.API")
        await client.jetstream().add_stream(name="LOGRELAY", mirror=api.StreamSource(name="LOGRELAY", external=outside))

    asked(central.url, make_central)
    hub = scene.relay("hub", "--collect", central.url)
    viewer = scene.viewer(hub)

    def has(*counts):
        return [len(lines(viewer, one)) for one in ("berlin", "bonn")] == [*counts]

    viewer.wait(lambda: has(300, 300), f"not all: {hub.tell()}")
    central.kill()
    for bot in bots:
        bot.burst(100)
        bot.wait_acked()
    wait_for(lambda: near[0].metric("forward_lag_lines") == 0, near[0].tell)  # the site keeps its lines meanwhile
    assert near[0].metric("forward_lines_total") > 400
    central.start()
    wait_for(lambda: hub.metric("collect_connected") == 1, hub.tell)
    viewer.wait(lambda: has(400, 400), f"not all: {hub.tell()}")
    for one in ("berlin", "bonn"):
        assert lines(viewer, one) == list(range(1, 401))
    assert not [line for line in viewer.lines if b'"cause":"stream"' in line.raw]


@needs_socat
def test_a_log_socket_that_socat_carries_loses_and_repeats_nothing(scene, tmp_path):
    """The commands of the page, killed again and again under load: every line of the bot once and in order."""
    unit = re.search(r"^ +ExecStart=/usr/bin/socat (.+)$", PAGE, re.MULTILINE)
    there = re.search(r"`socat (TCP-LISTEN:\S+ \S+)`", PAGE)
    assert unit
    assert there
    relay = scene.relay("relay", "--quiet-after", "0")
    carried, port = tmp_path / "carried.sock", free_port()
    changes = {"10.0.0.2": "127.0.0.1", ":8766": f":{port}"}
    commands = []
    for text, path in ((unit[1], carried), (there[1], relay.socket)):
        text = text.replace("/run/logrelay/ingest.sock", str(path))
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        commands.append([shutil.which("socat") or "socat", *shlex.split(text)])
    running: list[subprocess.Popen[bytes]] = []

    def begin(command):
        made = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        running.append(made)
        return made

    def end(process):
        with suppress(ProcessLookupError):
            killpg(process.pid, signal.SIGKILL)  # with the children, one for each connection
        process.wait(DEADLINE_S)

    try:
        begin([*commands[1][:1], commands[1][1] + ",reuseaddr", *commands[1][2:]])
        near = begin(commands[0])
        wait_for(carried.exists, "socat to listen")
        feeder = Feeder(tmp_path, carried, "bot", rate=200)
        scene.ends.callback(feeder.end)
        dice = chance("socat")
        for _ in range(DROPS):
            at = feeder.acked + dice.randrange(20, 200)
            wait_for(lambda a=at: feeder.acked >= a, lambda: f"lines to be acked; {relay.tell()}")
            end(near)
            near = begin(commands[0])
        feeder.finish()
        count = feeder.wait()
    finally:
        for process in running:
            end(process)
    ledger = Ledger.read(relay.journal)
    found = [entry.data["context"]["n"] for entry in ledger.entries if b'"feeder"' in entry.raw]
    assert found == list(range(1, count + 1))
    print(f"\n{DROPS} drops, {count} lines")
