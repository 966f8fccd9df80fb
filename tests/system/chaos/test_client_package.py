"""The npm package of the client, made by `npm pack` from the repository, in Node.js against a real relay."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.chaos.ledger import Ledger, wait_well
from tests.support.chaos.scale import chance, scaled
from tests.support.node import Program, packages
from tests.support.waiting import DEADLINE_S, wait_for

ROOT = Path(__file__).parents[3]
FOLLOW = ROOT / "tests" / "support" / "chaos" / "follow.mjs"
RESTARTS = scaled(3, 50)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder in which the package is installed as `npm install` of its archive would, beside ws."""
    found = packages("ws")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--json", "--ignore-scripts", "--pack-destination", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    (made,) = json.loads(done.stdout)
    modules = folder / "node_modules"
    modules.mkdir()
    with tarfile.open(folder / made["filename"]) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (folder / "package").rename(modules / made["name"])
    (modules / "ws").symlink_to(found / "node_modules" / "ws")
    return folder


def ids_of(program):
    return [id_ for said in list(program.said) for id_ in said.get("ids", ())]


def wait_for_all(program, relay):
    """Wait until it has the journal's lines, each once and in order; returns their number."""

    def agree():
        kept, got = [entry.id for entry in Ledger.read(relay.journal).entries], ids_of(program)
        return len(kept) if got == kept else 0

    return wait_for(agree, lambda: f"the client to have what is kept; it has {len(ids_of(program))} lines")


def test_what_is_packed(installed):
    """The package has the client that the page is served, its types, and no other code."""
    package = installed / "node_modules" / "logrelay-viewer"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}

    assert files >= {"package.json", "README.md", "logrelay/static/client.js", "logrelay/static/client.d.ts"}
    assert {path for path in files if path.endswith((".js", ".mjs", ".ts", ".py"))} == {
        "logrelay/static/client.js",
        "logrelay/static/client.d.ts",
    }
    served = ROOT / "logrelay" / "static" / "client.js"
    assert (package / "logrelay/static/client.js").read_bytes() == served.read_bytes()


def test_it_is_found_by_its_name(installed):
    """`import` by the package's name gives the client; without any WebSocket it says what is missing."""
    script = 'import { LogRelayClient as C } from "logrelay-viewer"; new C({ url: "ws://x/", WebSocket: undefined });'
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        cwd=installed,
        env=os.environ | {"NODE_OPTIONS": ""},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert "there is no WebSocket here: give one, such as that of the npm package ws" in done.stderr


def test_through_restarts_nothing_is_missing_and_nothing_twice(scene, installed):
    """The relay is killed again and again under load; the client has every line of the journal once, in order."""
    dice = chance("client.js")
    relay = scene.relay("--tail", "100000").start()
    feeder = scene.feeder(relay, "feeder", rate=800)
    program = Program(FOLLOW, str(installed), f"ws://127.0.0.1:{relay.port}/")
    scene.on_end(program.end)

    def opened():
        return sum(said.get("state") == "open" for said in list(program.said))

    for kill in range(RESTARTS):
        before, more = len(ids_of(program)), dice.randrange(1, 300)
        program.wait(lambda b=before, m=more: len(ids_of(program)) >= b + m, relay.tell())
        # On a busy machine the lines of the connection before can come that late.
        program.wait(lambda k=kill: opened() > k, "to be open before the kill")
        # What is shown while a disk keeps a commit is taken back when the relay dies then, and told as a gap.
        wait_well(relay)
        relay.restart()
    feeder.finish()
    feeder.wait()
    wait_for(lambda: relay.health()["traders"][0]["state"] == "closed", relay.tell)
    count = wait_for_all(program, relay)

    assert opened() >= RESTARTS + 1
    assert not [said for said in program.said if "gap" in said]
    print(f"\n{RESTARTS} restarts, {count} lines")


def test_a_revoked_token_is_told_and_another_goes_on(scene, installed, tmp_path):
    """The client says that its token is good no longer, and goes on behind its last line with another one."""

    def token(*arguments):
        command = [relay.python, "-m", "logrelay", "token", *arguments, "--tokens", str(relay.home / "tokens.json")]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True, cwd=ROOT).stdout

    relay = scene.relay()
    first, second = token("add", "one").split()[-1], token("add", "two").split()[-1]
    relay.options += ["--tokens", str(relay.home / "tokens.json")]
    relay.start()
    trader = scene.trader(relay).connect()
    trader.burst(3)
    program = Program(FOLLOW, str(installed), f"ws://127.0.0.1:{relay.port}/", first)
    scene.on_end(program.end)
    program.wait(lambda: len(ids_of(program)) >= 4, "the first lines")
    token("revoke", "one")
    program.wait(lambda: any("denied" in said for said in program.said), "to be told")
    trader.burst(3)
    trader.wait_acked()
    program.tell(token=second)
    stranger = Program(FOLLOW, str(installed), f"ws://127.0.0.1:{relay.port}/", "never-was-a-token")
    scene.on_end(stranger.end)
    stranger.wait(lambda: any("denied" in said for said in stranger.said), "to be told of a token that never was")

    assert wait_for_all(program, relay) >= 6
