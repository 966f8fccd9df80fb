"""The lines of JavaScript in docs/migrate.md resume exactly, tried with node and a real relay."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.http import start
from tests.support.waiting import DEADLINE_S

__all__ = ["start"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migrate.md"
DRIVER = """
setTimeout(() => process.exit(1), %d);
connect(process.argv[2], (line) => {
  if (line.source !== "logrelay") console.log(line.message);
  if (line.message === "last") process.exit(0);
});
"""


def node():
    """Return the command of a node that has WebSocket; skip where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not here")
    for flags in ([], ["--experimental-websocket"]):
        asked = subprocess.run(
            [found, *flags, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"],
            capture_output=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        if asked.returncode == 0:
            return [found, *flags, "--no-warnings"]
    pytest.skip("this node has no WebSocket")


def test_the_app_resumes_behind_the_last_line(start, tmp_path):
    """The relay is killed and lines come before the app is back: each is shown once, in order."""
    command = node()
    (code,) = re.findall(r"```js\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script = tmp_path / "app.js"
    script.write_text(code + DRIVER % (4 * DEADLINE_S * 1000))
    relay = start()
    trader = relay.trader()
    for message in ("one", "two"):
        trader.log(message)
    trader.wait()
    with subprocess.Popen([*command, str(script), f"ws://127.0.0.1:{relay.port}/"], stdout=subprocess.PIPE) as app:
        try:
            assert [app.stdout.readline(), app.stdout.readline()] == [b"one\n", b"two\n"]
            relay.kill()
            relay.start()
            again = relay.trader()
            for message in ("three", "last"):
                again.log(message)
            again.wait()
            rest, _ = app.communicate(timeout=DEADLINE_S)
        finally:
            app.kill()
    assert (app.returncode, rest) == (0, b"three\nlast\n")
