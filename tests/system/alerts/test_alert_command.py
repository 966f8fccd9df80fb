"""`logrelay alert`: with a relay that runs, and without."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.chaos.relay import ROOT
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE_S, wait_for

WITHOUT_APPRISE = "import sys; sys.modules['apprise'] = None; from logrelay.cli import main; main()"


@pytest.fixture
def command(tmp_path):
    """Run `logrelay alert` in a home of its own."""

    def run(*arguments, code=None, **environ):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LOGRELAY_", "XDG_"))}
        program = ["-m", "logrelay"] if code is None else ["-c", code]
        return subprocess.run(
            [sys.executable, *program, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S,
            env=clean | {"HOME": str(tmp_path), "STATE_DIRECTORY": str(tmp_path), "PYTHONPATH": str(ROOT)} | environ,
        )  # fmt: skip

    return run


def test_a_test_says_which_service_took_it_and_shows_no_url(command, receiver):
    refused = f"json://127.0.0.1:{free_port()}/hidden"
    done = command("alert", "test", LOGRELAY_ALERT=f"{receiver.url} {refused}")

    assert done.returncode == 7
    assert done.stdout.splitlines() == ["alert1  json://***  sent", "alert2  json://***  ConnectionError"]
    assert "not sent: alert2; see whether the URL is right, and its service can be reached" in done.stderr
    assert "hidden" not in done.stdout + done.stderr
    assert "127.0.0.1" not in done.stdout + done.stderr
    assert receiver.accepted[0].title == "logrelay: this is a test"

    done = command("alert", "test", "alert1", "--json", "--alert", receiver.url, "--alert", refused)
    assert (done.returncode, [one["sent"] for one in json.loads(done.stdout)["services"]]) == (0, [True])


def test_a_list_without_a_relay_says_what_to_do(command):
    done = command("alert", "list", LOGRELAY_PORT=str(free_port()))

    assert done.returncode == 5
    assert "; start the relay (logrelay serve), or name another address" in done.stderr


def test_what_is_wrong_is_said_in_one_line(command):
    for arguments, environ, words in (
        (("alert", "test"), {}, "there are no alert rules"),
        (
            ("alert", "test", "phone"),
            {"LOGRELAY_ALERT": "json://x"},
            "there is no alert rule 'phone'; there is: alert1",
        ),
        (("alert", "silence", "x", "--for", "never"), {}, "--for never is not a time"),
        (
            ("serve",),
            {"LOGRELAY_ALERT": "nonsense"},
            "LOGRELAY_ALERT: url in alert rule alert1 is not valid (its value is not shown)",
        ),
    ):
        done = command(*arguments, **environ)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert words in done.stderr
    for arguments in (("alert", "test"), ("serve", "--port", "0")):
        done = command(*arguments, code=WITHOUT_APPRISE, LOGRELAY_ALERT="json://x")
        assert (done.returncode, "[alerts]'" in done.stderr and "-m pip install" in done.stderr) == (2, True), (
            done.stderr
        )


SYSTEMCTL = """#!/bin/sh
echo "LoadState=loaded
User=root
Environment=LOGRELAY_PUBLIC_URL=https://bots.example.net
EnvironmentFiles={file} (ignore_errors=no)
ExecStart={{ path=/opt/logrelay ; argv[]=/opt/logrelay serve --expect scalper ; ignore_errors=no }}"
"""
"""What systemd answers about a service, as far as its settings go."""


def test_the_rules_of_a_service_are_tried_as_systemd_gives_them(command, receiver, tmp_path):
    """They stand in a file that the shell of the owner does not read."""
    (tmp_path / "logrelay.env").write_text(f"LOGRELAY_ALERT={receiver.url}\n")
    (tmp_path / "systemctl").write_text(SYSTEMCTL.format(file=tmp_path / "logrelay.env"))
    (tmp_path / "systemctl").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = command("alert", "test", "--unit", "logrelay", PATH=path)

    assert (done.returncode, done.stdout) == (0, "alert1  json://***  sent\n"), done.stderr
    assert len(receiver.accepted) == 1
    assert "--unit logrelay" in command("alert", "test").stderr
    assert "--user goes with --unit" in command("alert", "list", "--user").stderr


def test_a_relay_with_tokens_says_how_to_give_one(command, make_relay, receiver, tmp_path):
    """And one with limits may neither see alerts nor silence a bot, not even its own."""
    relay = make_relay(receiver.url, "--tokens", str(tmp_path / "tokens.json"))
    places = ("--port", str(relay.port), "--journal", str(relay.journal))
    for name, limits in (("owner", ()), ("reader", ("--app", "scalper"))):
        made = command("token", "add", name, "--tokens", str(tmp_path / "tokens.json"), *limits)
        (tmp_path / name).write_text(made.stdout.split()[-1] if made.returncode == 0 else made.stderr)
    relay.restart()  # with both tokens; one that runs takes them one after the other
    wait_for(lambda: relay.get("/alerts")[0] == 401, "the tokens")
    for arguments in (("list",), ("silence", "scalper"), ("unsilence", "scalper")):
        done = command("alert", *arguments, *places)
        assert (done.returncode, len(done.stderr.splitlines())) == (5, 1), done.stderr
        assert "give one with --token-file PATH or as LOGRELAY_TOKEN. It needs a token without limits" in done.stderr
        assert "in use" not in done.stderr
        assert "URL" not in done.stderr
        done = command("alert", *arguments, *places, "--token-file", str(tmp_path / "reader"))
        assert done.returncode in (2, 5), done.stderr
        assert "limit" in done.stderr
    done = command("alert", "silence", "scalper", *places, "--token-file", str(tmp_path / "owner"))
    assert done.returncode == 0, done.stderr


def test_silences_with_a_relay_and_without(command, make_relay, receiver, make_bot):
    heartbeat = f"http://127.0.0.1:{free_port()}/hidden"
    relay = make_relay(receiver.url, LOGRELAY_HEARTBEAT=heartbeat)
    bot = make_bot(relay, "scalper")
    bot.say("info", "here")
    places = ("--port", str(relay.port), "--journal", str(relay.journal))
    wait_for(lambda: json.loads(relay.get("/alerts")[1])["services"], "the worker")
    wait_for(lambda: b'"app":"scalper"' in relay.get("/summary?since=1h")[1], "the bot to be known")
    done = command("alert", "silence", "scal*", "--for", "2h", *places)
    assert (done.returncode, done.stdout.startswith("no alerts about scal* until ")) == (0, True), done.stderr
    assert done.stderr == ""
    done = command("alert", "silence", "nobody", *places)
    assert (done.returncode, done.stdout.startswith("no alerts about nobody until ")) == (0, True), done.stderr
    assert "no bot is called nobody so far; known in the last 7d: scalper. It is silenced all the same" in done.stderr
    assert command("alert", "unsilence", "nobody", *places).returncode == 0
    bot.say("error", "not told")
    wait_for(lambda: json.loads(relay.get("/alerts")[1])["heartbeat"]["error"], "the heartbeat")
    wait_for(lambda: json.loads(relay.get("/alerts")[1])["active"], "the error")
    done = command("alert", "list", *places)
    assert "silenced: scal* until" in done.stdout
    assert "heartbeat: fails: Connection refused; none was taken yet" in done.stdout
    assert re.search(r"^alert1  error scalper  seen \S+, not told, silenced  not told$", done.stdout, re.MULTILINE)
    assert "hidden" not in done.stdout
    assert "service: alert1  json://***  nothing waits" in done.stdout
    bot.stop()
    relay.stop()

    done = command("alert", "silence", "cron", "--json", *places)
    assert "no bot is called cron so far; known in the last 7d: scalper." in done.stderr
    assert sorted(json.loads(done.stdout)["silences"]) == ["cron", "scal*"], done.stderr
    assert command("alert", "unsilence", "scal*", *places).returncode == 0
    assert command("alert", "unsilence", "scal*", *places).returncode == 2
    assert command("alert", "list", *places).returncode == 5
    relay.start()
    wait_for(lambda: json.loads(relay.get("/alerts")[1])["silences"], "the silence")
    done = command("alert", "list", "--json", *places)
    assert [one["app"] for one in json.loads(done.stdout)["silences"]] == ["cron"]


def test_without_alerts_nothing_can_be_silenced(command, make_relay):
    relay = make_relay("")
    places = ("--port", str(relay.port), "--journal", str(relay.journal))

    assert "no alerts are set up" in command("alert", "silence", "x", *places).stderr
    assert "no alerts are set up" in command("alert", "list", *places).stderr
    relay.stop()
    assert command("alert", "silence", "x", *places).returncode == 5
