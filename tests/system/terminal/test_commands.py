"""The commands that read lines, with a real relay, a real journal and a real terminal."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest

from logrelay.cli.status import _verdict
from tests.support.chaos.relay import Relay
from tests.support.chaos.scale import scaled
from tests.support.http import Trader
from tests.support.waiting import DEADLINE_S, wait_for

KILLS = scaled(3, 50)
LINES_BETWEEN = 40
"""Lines sent between two kills, and once more while the relay is away."""

ESCAPES = r"\x1b\[[0-9;]*[mK]"


@pytest.fixture
def relay(home):
    """A relay on the journal and the socket of the home, not started yet."""
    one = Relay(home, journal=home / ".local" / "state" / "logrelay" / "journal.db")
    yield one
    one.end()


@pytest.fixture
def send(relay, cli):
    """Put one line into the journal."""

    def put(*arguments):
        done = cli("send", f"--timeout={DEADLINE_S:g}", "--socket", relay.socket, *arguments)
        assert done.returncode == 0, done.stderr

    return put


def texts(output):
    return [one["message"] for one in map(json.loads, output.splitlines()) if one["source"] != "logrelay"]


@pytest.mark.timeout(scaled(900, 3600))
def test_tail_through_kills_misses_nothing_and_repeats_nothing(relay, start, environ, home):
    """Lines that a bot sends without pause, each once and in order, however often the relay is killed."""
    relay.start()
    tail = start("tail", "--json", "-n", "0", f"ws://127.0.0.1:{relay.port}")
    feeder = subprocess.Popen(
        [sys.executable, "-m", "logrelay", "send", "--stdin", "--socket", str(relay.socket), f"--timeout={DEADLINE_S}"],
        env=environ, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    sent, seen = 0, []

    def feed():
        nonlocal sent
        for _ in range(LINES_BETWEEN):
            feeder.stdin.write(f"line {sent}\n")
            sent += 1
        feeder.stdin.flush()

    def follow(upto):
        """Read what tail prints up to a line."""
        while f"line {upto}" not in seen[-1:]:
            row = tail.stdout.readline()
            assert row, tail.stderr.read()
            seen.extend(texts(row))

    try:
        wait_for(lambda: relay.health()["viewers"], "the viewer")
        for _ in range(KILLS):
            feed()
            follow(sent - LINES_BETWEEN // 2)  # in the middle of a batch, as it comes
            relay.kill()
            feed()
            relay.start()
        feed()
        feeder.stdin.close()
        assert feeder.wait(DEADLINE_S) == 0, feeder.stderr.read()
        follow(sent - 1)
    finally:
        feeder.kill()
        feeder.wait()
        feeder.stderr.close()
    assert seen == [f"line {n}" for n in range(sent)]
    tail.send_signal(signal.SIGINT)
    said = tail.communicate(timeout=DEADLINE_S)[1]
    assert tail.returncode == 130
    assert "Traceback" not in said
    # One more for each time that this machine stood still for longer than a connection lives without a sign of life.
    assert said.count("trying again until it is back") == said.count("again\n") >= KILLS


def test_what_the_commands_show_of_a_running_relay(relay, send, cli, start, on_terminal):
    """One relay for many questions: filters, forms, ends, colours, the terminal's width, and who is let in."""
    relay.start()
    url = f"ws://127.0.0.1:{relay.port}"
    send("--app", "my_bot", "trade.executed", "symbol=AAPL", 'note="two words"')
    send("--app", "my_bot", "--level", "error", "order.rejected", "symbol=MSFT", "text=\x1b[2J")
    send("--app", "backup", "done", "n=1")

    # filters, in JSON and in text, from the relay and from its file beside it
    for place in (url, relay.journal):
        found = cli("tail", "--no-follow", "--json", "--app", "my_*", place)
        assert (found.returncode, texts(found.stdout)) == (0, ["trade.executed", "order.rejected"]), found.stderr
        assert texts(cli("search", "--json", "", "--where", "symbol=MSFT", place).stdout) == ["order.rejected"]
        assert texts(cli("search", "EXECUTED", "--json", place).stdout) == ["trade.executed"]
        since = cli("tail", "--no-follow", "--json", "--since", "1h", "--source", "my_bot", place).stdout
        assert texts(since) == ["trade.executed", "order.rejected"]
        assert texts(cli("tail", "--json", "--until", "1h", place).stdout) == []
    plain = cli("tail", "--no-follow", "--app", "my_bot", "--where", "symbol=MSFT", url).stdout
    assert re.search(r'^\S+Z ERROR my_bot order.rejected symbol=MSFT text="\\u001b\[2J"$', plain, re.MULTILINE)
    assert "\x1b[1;31mERROR" in cli("tail", "--no-follow", "--color", "always", url).stdout
    pasted = cli("tail", "--no-follow", "--json", f"{url}/?app=my_bot&where=symbol%3DMSFT&tail=7")
    assert texts(pasted.stdout) == ["order.rejected"]
    wrong = cli("search", "--level", "loud", url)
    assert (wrong.returncode, "is not one of DEBUG" in wrong.stderr) == (2, True)

    for place in (url, relay.journal):
        nothing = cli("search", "no such words", "--since", "1h", place)
        assert (nothing.returncode, nothing.stdout) == (0, "")
        assert re.search("nothing found in .*, from 1h ago to its newest; conditions go together", nothing.stderr)

    # the end: nobody reads any more
    tail = start("tail", url)
    assert tail.stdout.readline()
    tail.stdout.close()
    assert tail.wait(DEADLINE_S) == 0
    assert tail.stderr.read() == ""

    # a terminal: colours, local times, its width, the bots' states, a line as it comes, Ctrl-C
    shown = on_terminal("tail", url, columns=50)
    shown.wait_for(r"bots: ")
    shown.wait_for(r"order\.rejected")
    send("--app", "my_bot", "a line that is rather long for a narrow terminal", "exception=Traceback\n  boom")
    shown.wait_for(r"boom")
    shown.type(b"\x03")
    assert shown.wait() == 130
    assert "\x1b[1;31mERROR" in shown.shown
    rows = re.sub(ESCAPES, "", shown.shown).split("\n")
    assert [row for row in rows if re.match(r"-- \w+day 20\d\d-\d\d-\d\d$", row)]
    assert [row for row in rows if re.match(r"\d\d:\d\d:\d\d\.\d{3} INFO  my_bot a line", row)]
    assert max(len(row) for row in rows if not row.startswith("logrelay: ")) <= 50
    assert "      Traceback" in rows
    assert "        boom" in rows
    assert "\x1b[" not in re.sub(ESCAPES, "", on_terminal_text(on_terminal, "tail", "--no-follow", url, NO_COLOR="1"))
    assert "\x1b" not in on_terminal_text(on_terminal, "tail", "--no-follow", url, NO_COLOR="1")

    # export
    csv = cli("export", "--format", "csv", "-o", "out.csv", url, "--app", "backup")
    assert csv.returncode == 0, csv.stderr
    assert "backup,done," in (relay.home / "out.csv").read_text()
    assert not (relay.home / "out.csv.part").exists()
    assert texts(cli("export", url).stdout)[:3] == ["trade.executed", "order.rejected", "done"]
    assert cli("export", "--format", "parquet", url).returncode == 2


def on_terminal_text(on_terminal, *arguments, **more):
    one = on_terminal(*arguments, **more)
    one.wait()
    return one.shown


def test_a_relay_that_wants_a_token(relay, send, cli, home):
    """It is shown from the environment, a file or the URL; without one the journal's file is read by who may."""
    relay.start()
    send("--app", "my_bot", "hello")
    url, port = f"http://127.0.0.1:{relay.port}", str(relay.port)
    journal = ("--journal", str(relay.journal))
    token = json.loads(cli("pair", "--json", "--device", "laptop", *journal).stdout)["token"]
    wait_for(lambda: relay.get("/readyz")[0] == 401, "the relay to want a token")
    (home / "token").write_text(f"{token}\n")

    refused = cli("tail", "--no-follow", url)
    assert (refused.returncode, "--token-file" in refused.stderr) == (5, True)
    for arguments, more in (
        ((url, "--token-file", "token"), {}),
        ((url,), {"LOGRELAY_TOKEN": token}),
        ((f"{url}/#token={token}",), {}),
        (("--port", port, *journal), {}),
    ):
        done = cli("tail", "--no-follow", "--json", *arguments, **more)
        assert texts(done.stdout) == ["hello"], done.stderr
        assert ("reading the journal" in done.stderr) == ("--port" in arguments)
    cli("token", "revoke", "laptop", *journal)
    assert cli("tail", f"{url}/?token={token}").returncode == 5


def test_status_has_an_exit_code_for_scripts(relay, send, cli):
    """0 while all is well, 7 once something needs a look, 5 without a relay; --json says the same."""
    relay.start()
    url = f"ws://127.0.0.1:{relay.port}"
    send("--app", "my_bot", "hello")
    # Its end comes by another connection than the question, and may be read later.
    wait_for(lambda: [one["state"] for one in relay.health()["traders"]] == ["closed"], "the end of the bot")
    well = cli("status", url)
    assert well.returncode == 0, well.stderr
    assert re.search(rf"^the relay at {url}: ok, version \S+, up [\w ]+, 0 viewers", well.stdout)
    assert re.search(r"^  my_bot  closed     [\w ]+ ago  INFO hello$", well.stdout, re.MULTILINE)

    send("--app", "my_bot", "--level", "critical", "margin call \x1b[2J")
    bad = cli("status", url)
    assert (bad.returncode, bad.stderr) == (7, "logrelay: 1 line at ERROR or above\n")
    assert re.search(r"^ +1 x CRITICAL margin call \\x1b\[2J", bad.stdout, re.MULTILINE)
    found = json.loads(cli("status", "--json", url).stdout)
    assert (found["verdict"], found["summary"]["lines"]["CRITICAL"]) == ("look", 1)
    assert cli("status", "--since", "1h", "--app", "other", url).returncode == 0
    port = str(relay.port)
    relay.stop()
    assert cli("status", url).returncode == 5
    of_file = cli("status", "--port", port, "--journal", relay.journal)
    assert (of_file.returncode, "margin call" in of_file.stdout) == (5, True)


def test_status_waits_for_bots_that_a_restarted_relay_waits_for(relay, cli, start):
    """What was connected before a restart is not there before it has come back, and most are back within a second."""
    relay.start()
    url = f"ws://127.0.0.1:{relay.port}"
    bot = Trader(relay.socket, "my_bot")
    bot.log("hello")
    bot.wait()
    relay.kill()
    bot.close()
    relay.start()
    waiting = start("status", url)
    back = Trader(relay.socket, "my_bot")
    shown, said = waiting.communicate(timeout=DEADLINE_S)
    assert re.search(r"^  my_bot  (connected|not back )", shown, re.MULTILINE), shown + said
    relay.kill()
    back.close()
    relay.start()
    bot = cli("status", url)
    assert (bot.returncode, "my_bot not back since the relay was restarted" in bot.stderr) == (7, True)
    assert re.search(r"^  my_bot  not back ", bot.stdout, re.MULTILINE)


def test_tail_of_a_file_follows_it_beside_a_relay(relay, send, start, home):
    """A journal that is named is read as it grows, by whoever writes it."""
    relay.start()
    send("one")
    tail = start("tail", "--json", relay.journal)
    seen = []
    for n in range(2, 5):
        send(f"line {n}")
        while f"line {n}" not in seen:
            row = tail.stdout.readline()
            assert row, tail.stderr.read()
            seen += texts(row)
        if n == 3:
            relay.restart()
    assert seen == ["one", "line 2", "line 3", "line 4"]
    tail.send_signal(signal.SIGINT)
    assert tail.wait(DEADLINE_S) == 130


def test_tail_without_a_relay_says_that_it_waits(journal, start):
    """It shows what the journal has, and seems to hang otherwise."""
    tail = start("tail", "-n", "1")
    assert "done files=120" in tail.stdout.readline()
    assert "; reading its journal" in tail.stderr.readline()
    assert "new lines are shown when a relay writes them into it; Ctrl-C ends this" in tail.stderr.readline()
    tail.send_signal(signal.SIGINT)
    assert tail.wait(DEADLINE_S) == 130


def test_without_a_relay_and_a_journal_it_is_said(cli):
    """What was looked for, and what to do."""
    done = cli("search", "x")
    assert done.returncode == 5
    assert "no relay answers at ws://127.0.0.1:1" in done.stderr
    assert "there is no journal at" in done.stderr
    assert "; start the relay (logrelay serve), or name a URL or a journal file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_long_search_shows_how_far_it_is(on_terminal, journal, monkeypatch):
    """On a terminal, on stderr, and taken away at the end."""
    code = (
        "from logrelay.terminal import output; output.PROGRESS_AFTER_S = output.PROGRESS_EVERY_S = 0.0; "
        "from logrelay.cli import main; main(prog_name='logrelay')"
    )
    shown = on_terminal("search", "executed", program=("-c", code))
    assert shown.wait() == 0
    assert re.search(r"searching \[#+-*\] +\d+%  \d+ lines", shown.shown), shown.shown
    assert re.sub(r".*\r\x1b\[K", "", shown.shown).count("trade.executed") == 2


def test_a_machine_that_is_not_heard_needs_a_look():
    """Its bots are unknown, which is no state of trouble by itself."""
    summary = {
        "apps": [{"app": "scalper", "state": "unknown"}], "crashes": [], "more_crashes": 0,
        "gaps": [{}], "more_gaps": 0, "lines": {"ERROR": 0, "CRITICAL": 0},
    }  # fmt: skip
    edges = [{"edge": "paris", "state": "unreachable"}, {"edge": "rome", "state": "reachable"}]

    assert _verdict(summary, {"status": "ok", "edges": edges}, runs=True, name="the relay") == (
        "look", "machine paris cannot be reached; 1 gap"
    )  # fmt: skip


def test_a_nats_server_that_cannot_be_reached_needs_a_look():
    """Although no machine is known yet, and before anything else is told."""
    summary = {
        "apps": [], "crashes": [], "more_crashes": 0, "gaps": [], "more_gaps": 0, "lines": {"ERROR": 0, "CRITICAL": 0},
    }  # fmt: skip
    link = {"connected": False, "since": "2026-01-23T10:00:00.000000Z", "reason": "nats://box:4222: refused"}
    for key, meaning in (("collect", "lines of other machines are not collected"), ("forward", "lines are not forw")):
        found = _verdict(summary, {"status": "ok", key: link}, runs=True, name="the relay")
        assert found[0] == "look"
        assert found[1].startswith(meaning)
        assert "since 2026-01-23T10:00:00.000000Z (nats://box:4222: refused); start the server" in found[1]
        well = {"status": "ok", key: {"connected": True, "since": None, "reason": None}}
        assert _verdict(summary, well, runs=True, name="the relay") == ("well", "all is well")
