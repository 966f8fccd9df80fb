"""What a person types by mistake: it is said what is wrong and what is allowed; nothing is deleted or left behind."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from http.server import SimpleHTTPRequestHandler

import pytest

from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit, Run
from tests.support.certificates import Authority
from tests.support.chaos.relay import Relay
from tests.support.waiting import DEADLINE_S, wait_for
from tests.support.web_server import Greeting, web_server
from tests.system.terminal.conftest import T0_US

EMPTY = (
    ("--run", ""), ("--app", ""), ("--app", ","), ("--source", " "), ("--grep", ""), ("--before", ""), ("--since", ""),
)  # fmt: skip


def refused(done, code, *said):
    """Check that a command has ended with one line that says it."""
    assert done.returncode == code, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for one in said:
        assert one in done.stderr


def test_an_empty_condition_deletes_nothing_and_is_refused_everywhere(cli, journal):
    """A script's variable that is not set must not become every line."""
    for option, value in EMPTY:
        refused(cli("purge", option, value, "--yes"), 2, f"{option} is empty; allowed: ")
    refused(cli("purge", "--level", "debug", "--yes"), 2, "nothing was said about which lines are to go")
    refused(cli("purge", "--before", "yesterday", "--yes"), 2, "--before 'yesterday' is not a time")
    for command in ("tail", "search", "export", "status"):
        refused(cli(command, "--app", ""), 2, "--app is empty; allowed: ")
    assert len(cli("export").stdout.splitlines()) == 5


def test_the_question_says_when_all_of_the_journal_goes(cli, journal, on_terminal):
    """Also for a dry run."""
    dry = cli("purge", "--app", "*", "--dry-run")
    assert dry.stderr == "logrelay: all 5 lines of the journal would be deleted; nothing was\n"
    asked = on_terminal("purge", "--app", "*", columns=200)
    asked.wait_for(r"Delete all 5 lines of the journal from .*\? \[y/N\]")
    asked.type(b"n\r")
    assert asked.wait() == 1


def test_a_last_argument_that_is_a_place_is_none_to_search_for(cli, journal):
    """A journal's file and a URL; any other file's name is a text."""
    (journal.parent / "executed").write_text("no journal")
    found = cli("search", "--level", "error", "--json", journal)
    assert [json.loads(row)["message"] for row in found.stdout.splitlines()] == ["order.rejected"], found.stderr
    for scheme in ("ws", "WSS", "http", "https"):
        refused(cli("search", "--around", "abc123-4", f"{scheme}://127.0.0.1:2"), 5, "://127.0.0.1:2: ")
    assert len(cli("search", "executed").stdout.splitlines()) == 2
    refused(cli("search", "x", "--around", "abc123-4", "--since", "2h"), 2, "--since cannot go with --around")
    refused(cli("tail", "localhost:18765"), 2, "did you mean ws://localhost:18765?")
    refused(cli("tail", "http//localhost:8765"), 4, "name one that is there, or a relay, such as ws://localhost:8765")
    refused(cli("tail", "ws://127.0.0.1:1"), 5, "start the relay (logrelay serve), or name another address")
    refused(cli("tail", "--token-file", "/nope"), 2, "/nope cannot be read: No such file or directory; --token-file")


def test_what_is_not_a_journal_is_called_that(cli, home):
    """By every command in the same words; no lock is left beside it, and a damaged journal is still one."""
    text, other = home / "text.db", home / "other.db"
    text.write_text("notes of mine\n" * 1000)
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (x)")
    before = {path.name: path.read_bytes() for path in (text, other)}
    for path in (text, other):
        for command in (
            ("check", "--verify-journal", "--journal", path), ("tail", path), ("serve", "--journal", path),
            ("purge", "--grep", "x", "--journal", path),
        ):  # fmt: skip
            refused(cli(*command), 4, f"journal {path} is not a journal: ")
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()} == before
    (home / "text.db.lock").write_text("logrelay journal\n1\n")
    assert "it is damaged" in cli("check", "--verify-journal", "--journal", text).stdout


def test_the_newest_run_of_a_bot_is_its_state(cli, journal):
    """From the journal's file, whatever became of the runs before it."""
    one = SqliteJournal(str(journal), now_us=lambda: T0_US, random_epoch=lambda: "def456")
    one.open()
    later_us = T0_US + 60_000_000
    one.append(Commit([], [Run(3, b"\3" * 16, "backup", "box", 3, 2, 0, 0, "crashed", later_us)]))
    one.close()
    apps = json.loads(cli("status", "--json", journal).stdout)["summary"]["apps"]
    assert {app["app"]: app["state"] for app in apps} == {"backup": "crashed", "my_bot": "crashed"}


def test_tail_begins_with_the_state_of_the_newest_run(cli, home, environ, on_terminal):
    """The first run has ended, the second one is there."""
    relay = Relay(home)
    relay.start()
    try:
        patient = f"--timeout={DEADLINE_S:g}"
        assert cli("send", patient, "--socket", relay.socket, "--app", "my_bot", "first").returncode == 0
        command = [sys.executable, "-m", "logrelay", "send", patient, "--stdin", "--app", "my_bot"]
        bot = subprocess.Popen(
            [*command, "--socket", str(relay.socket)],
            env=environ, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            bot.stdin.write(b"second\n")
            bot.stdin.flush()
            wait_for(lambda: b"second" in relay.get("/logs")[1], "the second run's line")
            shown = on_terminal("tail", f"ws://127.0.0.1:{relay.port}", columns=200)
            shown.wait_for(r"bots: my_bot connected")
        finally:
            bot.stdin.close()
            bot.kill()
            bot.wait(DEADLINE_S)
    finally:
        relay.end()


def test_a_relay_that_speaks_tls_is_told_from_none(cli, home, tmp_path_factory):
    """And what to do about a certificate that nobody else has signed."""
    folder = tmp_path_factory.mktemp("ca")
    cert, key = Authority(folder).issue("relay")
    relay = Relay(home, "--tls-cert", str(cert), "--tls-key", str(key))
    relay.start()
    try:
        url = f"ws://127.0.0.1:{relay.port}"
        for command in ("tail", "status"):
            refused(cli(command, url), 5, f"it speaks TLS, use wss://127.0.0.1:{relay.port}")
        secure = f"wss://127.0.0.1:{relay.port}"
        refused(cli("status", secure), 5, "its certificate is not trusted", "SSL_CERT_FILE=PATH")
        assert cli("status", secure, SSL_CERT_FILE=str(folder / "ca.pem")).returncode == 0
        of_settings = cli("status", LOGRELAY_PORT=str(relay.port), LOGRELAY_JOURNAL=str(home / "none"))
        refused(of_settings, 5, "or give this command the settings of the relay (LOGRELAY_TLS_CERT")
        more = {"LOGRELAY_PORT": str(relay.port), "LOGRELAY_TLS_CERT": str(cert), "LOGRELAY_TLS_KEY": str(key)}
        assert cli("status", **more).returncode == 0
        relay.stop()
        relay.options = []
        relay.start()
        for told in (cli("status", secure), cli("status", **more, LOGRELAY_JOURNAL=str(home / "none"))):
            refused(told, 5, f"{secure} does not speak TLS; use {url} if it is your relay")
    finally:
        relay.end()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--address", "http://foo/"), ("--address", "foo:8765"), ("--address", ""), ("--host", "1.2.3.4.5")],
)
def test_pair_makes_no_token_for_an_address_that_is_none(cli, home, option, value):
    """With what is allowed, before anything is written."""
    refused(cli("pair", option, value), 2, f"{option} '{value}' is neither a name nor an IP address; allowed: ")
    assert not list(home.rglob("tokens.json"))


def test_another_program_on_the_port_is_no_relay(cli, home):
    """Every command says so in the same words, with the code for no relay."""
    commands = (("search", "x"), ("tail",), ("export",), ("status",), ("alert", "list"))
    for handler in (Greeting, SimpleHTTPRequestHandler):
        with web_server(handler) as port:
            told = f"what answers at ws://127.0.0.1:{port} is not a relay; name another --port or URL"
            for command in commands:
                refused(cli(*command, "--port", str(port)), 5, told)
            refused(cli("export", f"ws://127.0.0.1:{port}"), 5, told)
