"""The log socket of a running relay: removed under it, given to a group, and seen through a mounted directory."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import orjson
import pytest

from tests.support.http import start
from tests.support.waiting import DEADLINE_S, wait_for

__all__ = ["start"]

ROOT = Path(__file__).resolve().parents[2]

BOT = """
import faulthandler, sys
faulthandler.dump_traceback_later({hangs}, exit=True)
from robo_trader.log_relay import LogRelayProcessor
processor = LogRelayProcessor(sys.argv[1])
for word in sys.stdin:
    processor(None, "info", {{"event": word.strip()}})
    print(processor.flush({limit}), flush=True)
"""


def messages(relay):
    with urlopen(relay.url + "logs", timeout=DEADLINE_S) as answer:
        return [orjson.loads(line)["message"] for line in answer.read().splitlines()]


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_socket_removed_under_a_running_relay_is_bound_again(start, replaced):
    """New traders find the relay, those that are connected do not notice, and everybody is told."""
    relay = start()
    before = relay.trader()
    if not replaced:
        relay.socket.unlink()
    else:
        (other := relay.directory / "other").touch()
        other.replace(relay.socket)  # in one step: the relay binds its socket again as soon as there is none
        wait_for(lambda: any("is not a socket" in said for said in messages(relay)))
        relay.socket.unlink()

    bound_again = "was removed or replaced; it has been bound again"
    wait_for(lambda: any(bound_again in said for said in messages(relay)))
    after = relay.trader("newcomer")
    after.log("from the newcomer")
    after.wait()
    before.log("from the one before")
    before.wait()
    assert {"from the newcomer", "from the one before"} <= set(messages(relay))


def test_mode_and_group_of_the_socket_are_settings(start):
    """From the environment, as in a unit; also after it was bound again."""
    relay = start(LOGRELAY_SOCKET_MODE="0620", LOGRELAY_SOCKET_GROUP=str(os.getgid()))
    assert stat.S_IMODE(relay.socket.stat().st_mode) == 0o620
    relay.socket.unlink()
    wait_for(relay.socket.exists)
    wait_for(lambda: stat.S_IMODE(relay.socket.stat().st_mode) == 0o620)


def may_mount():
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def test_a_bot_in_a_container_finds_the_relay_again_after_its_restart(start, tmp_path):
    """The directory of the socket is mounted into it: each name in it is looked up anew. Where nothing may be mounted
    the bot sees the directory itself."""
    relay = start()
    inside = tmp_path / "inside"
    inside.mkdir()
    code = BOT.format(limit=DEADLINE_S, hangs=4 * DEADLINE_S)
    command = [sys.executable, "-c", code, str((inside if may_mount() else relay.directory) / "s")]
    if may_mount():
        mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, str(relay.directory), str(inside), *command]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": "."},
    ) as bot:
        try:

            def say(word):
                bot.stdin.write(word + "\n")
                bot.stdin.flush()
                assert bot.stdout.readline() == "True\n", "the line was not acked"

            say("before the restart")
            inode = relay.socket.stat().st_ino
            relay.kill()
            relay.socket.rename(relay.directory / "kept")  # so that the new one has another inode
            relay.start()
            assert relay.socket.stat().st_ino != inode
            say("after the restart")
        finally:
            bot.kill()
    assert {"before the restart", "after the restart"} <= set(messages(relay))
