"""`logrelay pair`: the links it prints open the relay, and its code says the same."""

from __future__ import annotations

import json
import re

import segno
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.chaos.relay import Relay
from tests.support.waiting import wait_for

HALVES = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}


def test_the_links_open_the_relay_and_the_code_is_the_first_of_them(home, cli, on_terminal):
    """On a terminal the code is drawn in half blocks; whoever connects with the printed token is let in."""
    relay = Relay(home, "--host", "0.0.0.0")
    relay.environ = {"LOGRELAY_TOKEN": "V3sJm0t-Qz7w_1pLk9rX"}
    relay.start()
    try:
        where = ("--journal", str(relay.journal), "--port", str(relay.port), "--host", "0.0.0.0")
        shown = on_terminal(
            "pair", "--device", "phone-1", "--expires", "1h", "--address", "127.0.0.1", *where, columns=120
        )
        assert shown.wait() == 0
        page = re.search(r"browser +(http://127\.0\.0\.1:\d+/#token=(lr_[\w-]+))$", shown.shown, re.MULTILINE)
        assert "nobody answers" not in shown.shown
        assert "the relay listens on" not in shown.shown
        drawn = [row for row in re.findall(r"\x1b\[30;107m([ ▀▄█]+)\x1b\[0m", shown.shown)]
        bits = [[HALVES[c][half] for c in row] for row in drawn for half in (0, 1)]
        code = [list(row) for row in segno.make(page[1], error="l", micro=False).matrix_iter(border=2)]
        assert bits[: len(code)] == code

        app = re.search(r"app +(ws://\S+&device=phone-1)$", shown.shown, re.MULTILINE)[1]

        def is_let_in():
            try:
                with connect(app, proxy=None) as viewer:
                    return json.loads(viewer.recv())["type"] == "connection"
            except (OSError, InvalidStatus, ConnectionClosed):
                return False

        wait_for(is_let_in, "the relay to take the token")
        again = cli("pair", "--device", "phone-1", *where)
        assert (again.returncode, "there is a token phone-1 already" in again.stderr) == (2, True)
    finally:
        relay.end()


def test_a_narrow_terminal_gets_no_broken_code(home, on_terminal):
    """It is said how many columns the code needs."""
    shown = on_terminal("pair", "--address", "127.0.0.1", columns=30)
    assert shown.wait() == 0
    assert re.search(r"the terminal has 30 columns; the code needs \d+", shown.shown.replace("\n", " "))
    assert "127.0.0.1  (nobody answers there now)" in shown.shown
    assert "the relay listens on 127.0.0.1 only, so no phone reaches it: start it with --host 0.0.0.0" in shown.shown
