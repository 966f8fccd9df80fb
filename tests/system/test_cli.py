"""The command line, as real processes: what it prints where, and with which code it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from logrelay import __version__
from logrelay.cli.systemd_units import UNIT_FILES
from logrelay.config.settings import SETTINGS
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit, Line
from tests.support.waiting import DEADLINE_S, wait_for

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def environ(tmp_path):
    """An environment without settings, whose default places are the test's own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LOGRELAY_", "XDG_")) and k != "STATE_DIRECTORY"}
    return clean | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}


@pytest.fixture
def cli(environ, tmp_path):
    def run(*arguments, **more):
        return subprocess.run(
            [sys.executable, "-m", "logrelay", *arguments],
            env=environ | more, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("group", [[], ["token"], ["alert"], ["systemd"]])
def test_the_list_of_the_commands_says_all_of_each(cli, group):
    """Click would cut it in the middle of a sentence."""
    done = cli(*group, "--help", COLUMNS="80")
    commands = done.stdout.partition("Commands:\n")[2]
    assert done.returncode == 0
    assert commands.count("\n  ") >= 2
    assert "..." not in commands


@pytest.fixture
def relay(environ, tmp_path):
    """Start `serve` and wait for its ready line, or its end. Everything started is ended with the test."""
    started = []

    def start(*arguments, **more):
        process = subprocess.Popen(
            [sys.executable, "-m", "logrelay", "serve", *arguments],
            env=environ | more, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        alarm = threading.Timer(4 * DEADLINE_S, process.kill)  # for the whole test, which has several waits
        alarm.start()
        started.append((process, alarm))
        process.first_line = process.stderr.readline()
        return process

    yield start
    for process, alarm in started:
        alarm.cancel()
        process.kill()
        process.communicate()


def ready_line(process):
    """Return the line that says ready; a warning may stand before it."""
    while " ready on " not in process.first_line and process.poll() is None:
        process.first_line = process.stderr.readline()
    return process.first_line


def ended(process):
    # Not communicate(): it reads past what readline() has taken out of the pipe and not given yet.
    err = process.stderr.read()
    out = process.stdout.read()
    return process.wait(DEADLINE_S), out, process.first_line + err


def test_the_version_is_the_package_s(cli):
    """`--version` and `-V` should print name and version on stdout."""
    for option in ("--version", "-V"):
        done = cli(option)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"logrelay {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--prot", "1"], "--prot.*; see logrelay serve --help"),
        (["serve", "--token", TOKEN], "--token.*; see logrelay serve --help"),
        (["--nonsense"], "--nonsense.*; see logrelay --help"),
        (["nonsense"], "'nonsense'.*; see logrelay --help"),
        (["check", "--host"], "'--host' requires an argument; see logrelay check --help"),
        (["tail", "--notices", "some"], "--notices is 'some'; allowed: no, all; see logrelay tail --help"),
        (["tail", "-n", "-5"], "--lines is -5; allowed: a whole number from 0 to 100,000; see logrelay tail --help"),
        (["search", "--limit", "many", "x"], "--limit is 'many'; allowed: a whole number from 1 to 1,000,000; see .*"),
        (["send", "--timeout", "0", "x"], "--timeout is 0.0; allowed: a number above 0, up to 86,400; see .*"),
        (["export", "--format", "x"], "--format is 'x'; allowed: ndjson, csv, parquet; see logrelay export --help"),
        (["purge", "--app", "x", "ws://box"], "purge works on the journal's file.*--journal PATH"),
        (["systemd", "install", "--dry-run", "--listen", "x"], "--listen is 'x'; allowed: an IP address.*"),
        (["check", "--unit", "a"], "systemd cannot be asked about a.service.*"),
        (["token", "revoke"], "'NAME'; see logrelay token revoke --help"),
        (["token", "nonsense"], "'nonsense'.*; see logrelay token --help"),
        (["systemd", "print"], "; see logrelay systemd print --help"),
        (["systemd", "print", "all", "--trader-user", "a b"], "'a b' is not a user name.*; see logrelay systemd print"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_line_that_is_not_understood_is_one_line_and_exit_code_2(cli, arguments, said):
    """Like every other error: the program's name, what is wrong, and where the help is."""
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"logrelay: .*{said}.*\n", done.stderr), done.stderr


def test_words_may_be_in_any_case(cli, tmp_path):
    """In an option, a variable and the file; and there is a level called debug."""
    (tmp_path / "r.toml").write_text('sync = "FULL"\n')
    done = cli("check", "--json", "--config", "r.toml", "--log-level", "Debug", LOGRELAY_COMPRESSION="Off")
    shown = {name: row["value"] for name, row in json.loads(done.stdout)["settings"].items()}
    assert [shown[name] for name in ("sync", "log_level", "compression")] == ["full", "debug", "off"]
    assert cli("tail", "--notices", "ALL", "--color", "Never", "--port", "1").returncode == 5


def test_every_address_of_both_families_is_served(relay):
    """`--host ::`, and with brackets as in a URL: the ready line's address can be opened, and that of IPv4 too."""
    for host in ("::", "[::]"):
        process = relay("--port", "0", "--host", host, "--journal", ":memory:", LOGRELAY_TOKEN=TOKEN[::-1])
        found = re.search(
            r"ready on ws://(\[::\]|0\.0\.0\.0):(\d+), page http://(\[::1\]|127\.0\.0\.1):\2/", ready_line(process)
        )
        assert found is not None, process.first_line
        for address in ("127.0.0.1", *(("::1",) if found[1] == "[::]" else ())):
            with socket.create_connection((address, int(found[2])), DEADLINE_S) as client:
                client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert client.recv(12) == b"HTTP/1.1 401"
        process.terminate()
        assert ended(process)[0] == 0


def test_help_names_every_option_with_its_default(cli):
    """`serve --help` should list the whole table; the token, which is no option, only in the general help."""
    said = " ".join(cli("serve", "--help").stdout.split())

    for setting in SETTINGS:
        assert (f" {setting.flag} " in said) == setting.by_flag, setting.name
        if setting.by_flag:
            # click breaks lines at hyphens and spaces, so compare without either
            assert setting.help.replace(" ", "") in said.replace(" ", ""), setting.name
    assert "LOGRELAY_TOKEN" in " ".join(cli("--help").stdout.split())


def test_check_tells_every_setting_and_where_it_came_from(cli, tmp_path):
    """`check --json` should give value and origin of each, and name variables nobody reads on stderr."""
    (tmp_path / "r.toml").write_text("tail = 7\n")
    done = cli("check", "--json", "--config", "r.toml", "--port", "1", LOGRELAY_SYNC="full", LOGRELAY_PROT="1")
    shown = json.loads(done.stdout)

    assert done.returncode == 0
    assert shown["settings"].keys() == {s.name for s in SETTINGS}
    rows = {name: (row["value"], row["from"]) for name, row in shown["settings"].items()}
    assert rows["port"] == (1, "--port")
    assert rows["sync"] == ("full", "LOGRELAY_SYNC")
    assert rows["tail"] == (7, "tail in r.toml")
    assert rows["socket"] == (f"{tmp_path}/logrelay/ingest.sock", "default")
    assert shown["unknown_variables"] == ["LOGRELAY_PROT"]
    assert "LOGRELAY_PROT is set but is not a setting; did you mean LOGRELAY_PORT?" in done.stderr


def test_a_variable_like_no_setting_gets_no_guess(cli):
    """A guess that fits nothing would mislead."""
    assert (
        "LOGRELAY_XYZZY is set but is not a setting; see logrelay serve --help"
        in cli("check", LOGRELAY_XYZZY="1").stderr
    )


def test_check_says_where_traders_look_and_what_they_find(cli, tmp_path):
    """A socket before the relay's own, or a place where nobody looks, is told on stderr."""
    places = json.loads(cli("check", "--json", TMPDIR=str(tmp_path)).stdout)["trader_places"]
    assert [place["path"] for place in places] == [
        "/run/logrelay/ingest.sock",
        f"{tmp_path}/logrelay/ingest.sock",
        f"/run/user/{os.getuid()}/logrelay/ingest.sock",
        f"{tmp_path}/logrelay-{os.getuid()}/ingest.sock",
        f"/tmp/logrelay-{os.getuid()}/ingest.sock",
    ]
    told = cli("check", "--socket", "/elsewhere/s")
    assert "no trader looks for /elsewhere/s by itself; set LOGRELAY_SOCKET=/elsewhere/s" in told.stderr

    (tmp_path / "logrelay").mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "logrelay" / "ingest.sock"))
        own = f"{tmp_path}/logrelay-{os.getuid()}/ingest.sock"
        told = cli("check", "--socket", own, TMPDIR=str(tmp_path))
        assert f"a socket at {tmp_path}/logrelay/ingest.sock is found before {own}" in told.stderr
        assert f"{tmp_path}/logrelay/ingest.sock  there\n" in told.stdout


@pytest.mark.parametrize("mode", ["0666", "0662", "666", "0460", "rw", "0o660", "10660"])
def test_a_mode_that_lets_everybody_in_is_refused(cli, mode):
    """Also one that shuts the owner out; the text says what is allowed."""
    done = cli("check", LOGRELAY_SOCKET_MODE=mode)
    assert done.returncode == 2
    assert f"LOGRELAY_SOCKET_MODE is {mode!r}; allowed: an octal mode like 0660" in done.stderr


def test_check_verifies_a_journal(cli, tmp_path):
    """`check --verify-journal` should say in words and in JSON what is damaged, and end with 0, or 4 when it is."""
    path = tmp_path / "j.db"
    journal = SqliteJournal(str(path), now_us=lambda: 0, random_epoch=lambda: "abc123")
    journal.open()
    body = b'{"type":"log","id":"abc123-%d","level":"INFO","message":"m","context":{}}'
    journal.append(Commit([Line(seq, seq, 20, "a", 1, body % seq, "m", {}) for seq in (1, 2, 3)]))
    journal.close()
    verify = ("check", "--verify-journal", "--journal", str(path))
    done = cli(*verify)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "it is sound")
    assert "3 lines verified, 0 of them without a checksum" in done.stdout
    path.write_bytes(path.read_bytes().replace(body % 2, (body % 2).replace(b'"m"', b'"n"')))
    done = cli(*verify)
    assert done.returncode == 4
    assert "damaged: 1 lines, numbers 2\n" in done.stdout
    done = cli(*verify, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 4
    assert (found["sound"], found["damaged"], found["missing"], found["head"]) == (False, [[2, 2]], [], 3)
    done = cli("check", "--verify-journal", "--journal", str(tmp_path / "none.db"))
    assert (done.returncode, "there is no journal file at" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "is no regular file, so it is no journal to verify; "),
        ("directory", "is a directory, so it is no journal to verify; "),
        ("empty", "is empty, so it is no journal to verify; "),
        ("text", "is no SQLite database; "),
        ("/dev/zero", "is no regular file, so it is no journal to verify; "),
        ("/proc/self/mem", "cannot be read: "),
        ("nothing", "there is no journal file at "),
    ],
)
def test_what_is_no_journal_is_not_verified_and_nothing_waits(cli, tmp_path, kind, words):
    """One line that says why, exit code 4, and the same as an object for programs."""
    path = tmp_path / kind if not kind.startswith("/") else Path(kind)
    {"pipe": os.mkfifo, "directory": Path.mkdir, "empty": Path.touch}.get(kind, lambda _path: None)(path)
    if kind == "text":
        path.write_text("dear diary " * 1000)
    done = cli("check", "--verify-journal", "--json", "--journal", str(path))
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1), done.stderr
    assert words in done.stderr
    shown = json.loads(done.stdout)
    assert (shown["exit"], [one["code"] for one in shown["findings"]]) == (4, ["journal"])
    assert shown["findings"][0]["remedy"]


def test_check_prints_an_object_where_the_settings_cannot_be_read(cli):
    """Whoever reads JSON should get JSON, with what is on stderr, and the exit code."""
    done = cli("check", "--json", "--port", "http")
    shown = json.loads(done.stdout)
    (finding,) = shown["findings"]
    assert (done.returncode, shown["exit"], finding["code"], finding["rank"]) == (2, 2, "settings", "error")
    assert f"logrelay: {finding['text']}; {finding['remedy']}\n" == done.stderr


def test_a_directory_that_is_made_for_a_named_journal_is_said(relay, tmp_path):
    """It may be a typing error; one that is there, and the usual place, are not spoken of."""
    one = relay("--port", "0", "--journal", str(tmp_path / "typo" / "deep" / "j.db"))
    assert f"{tmp_path}/typo was not there and was made, for journal {tmp_path}/typo/deep/j.db" in one.first_line
    assert " ready on " in ready_line(one)
    one.terminate()
    assert one.wait(DEADLINE_S) == 0
    again = relay("--port", "0", "--journal", str(tmp_path / "typo" / "deep" / "j.db"))
    assert " ready on " in again.first_line


def test_a_directory_that_is_made_for_a_named_socket_is_said(relay, tmp_path):
    """Likewise: a bot would look for the relay elsewhere."""
    place = tmp_path / "typo" / "s"
    one = relay("--port", "0", "--socket", str(place))
    assert f"{tmp_path}/typo was not there and was made, for the log socket {place}" in one.first_line
    assert " ready on " in ready_line(one)
    one.terminate()
    assert one.wait(DEADLINE_S) == 0
    again = relay("--port", "0", "--socket", str(place))
    assert " ready on " in again.first_line


def test_check_ends_as_serve_would_with_a_group_that_is_not_there(cli):
    """All is printed first; the text says what is allowed."""
    done = cli("check", "--socket-group", "nosuchgroup")
    assert done.returncode == 3
    assert "socket_group" in done.stdout
    assert "there is no group 'nosuchgroup' on this machine; choose one of" in done.stderr


def test_check_prints_a_table_and_never_the_token(cli):
    """One line per setting for a person; the token only as set."""
    done = cli("check", LOGRELAY_TOKEN=TOKEN, LOGRELAY_PORT="0")

    assert done.returncode == 0
    table, _, places = done.stdout.partition("\n\n")
    assert [line.split()[0] for line in table.splitlines()] == [s.name for s in SETTINGS]
    assert "/run/logrelay/ingest.sock  " in places
    assert "(set)" in done.stdout
    assert TOKEN not in done.stdout + done.stderr + cli("check", "--json", LOGRELAY_TOKEN=TOKEN).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "99999"], "logrelay: --port is '99999'; allowed: a whole number from 0 to 65535\n"),
        (["check", "--sync", "no"], "logrelay: --sync is 'no'; allowed: normal or full\n"),
        (
            ["serve", "--config", "/no/file"],
            "logrelay: config file /no/file cannot be read: No such file or directory\n",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(cli, arguments, said):
    """The error should be one line without a traceback, on stderr."""
    done = cli(*arguments)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_wrong_command_line_is_exit_code_2(cli):
    """An option that does not exist should end like a wrong setting; so should a token given as one."""
    for arguments in (["serve", "--prot", "1"], ["nonsense"], ["serve", "--token", TOKEN]):
        assert cli(*arguments).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_says_ready_once_and_stops_cleanly(relay, number):
    """Exactly one line with "ready" and the URL on stderr, nothing on stdout, exit code 0 on either signal."""
    process = relay("--port", "0")
    assert "ready" in process.first_line
    assert re.search(r"ready on ws://(127\.0\.0\.1:\d+), page http://\1/, ", process.first_line)
    process.send_signal(number)
    code, out, err = ended(process)

    assert (code, out) == (0, "")
    assert len([line for line in err.splitlines() if " ready on " in line]) == 1


def test_serve_opens_the_page_in_a_browser(relay, tmp_path):
    """`--open` should start this machine's browser with an address that it can reach, once the relay is ready."""
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >{opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    process = relay("--port", "0", "--host", "0.0.0.0", "--open", BROWSER=str(browser), LOGRELAY_TOKEN=TOKEN[::-1])

    wait_for(lambda: opened.exists() or process.poll() is not None, "the browser")
    process.terminate()
    code, _, said = ended(process)
    assert code == 0, said
    assert re.search(r"page (http://127\.0\.0\.1:\d+/), ", said)[1] == opened.read_text()


def test_a_port_in_use_is_exit_code_3(relay):
    """The error should name the port and the option, in one line."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = ended(relay("--port", str(port)))

    assert (code, out) == (3, "")
    assert f"port {port}" in err
    assert "--port" in err
    assert len(err.splitlines()) == 1


def test_a_second_relay_on_the_same_socket_is_exit_code_3(relay, tmp_path):
    """The second should say that there is one already, and leave the first alone."""
    first = relay("--port", "0", "--journal", ":memory:")
    code, _, err = ended(relay("--port", "0", "--journal", ":memory:"))

    assert code == 3
    assert str(tmp_path / "logrelay" / "ingest.sock") in err
    assert len(err.splitlines()) == 1
    assert first.poll() is None


def test_a_journal_that_is_not_ours_is_exit_code_4(relay, tmp_path):
    """A file that is no journal should be refused by name, and left as it is."""
    (tmp_path / "letters.txt").write_text("dear diary " * 1000)
    code, _, err = ended(relay("--port", "0", "--journal", "letters.txt"))

    assert code == 4
    assert "letters.txt" in err
    assert "Traceback" not in err
    assert (tmp_path / "letters.txt").read_text() == "dear diary " * 1000


@pytest.mark.parametrize("unit", UNIT_FILES)
def test_units_start_the_commands_of_this_installation(cli, unit):
    """A printed unit should name the directory of the running interpreter, and nothing of where it was written for."""
    printed = cli("systemd", "print", unit).stdout

    assert "/opt/logrelay" not in printed
    starts = [line for line in printed.splitlines() if line.startswith("ExecStart=")]
    assert all(line.startswith(f"ExecStart={Path(sys.executable).parent}/") for line in starts)
    assert len(starts) == unit.endswith(".service")


def test_all_units_can_be_printed_at_once(cli):
    """`all` should be every file, each under its name."""
    printed = cli("systemd", "print", "all").stdout

    assert [line[7:] for line in printed.splitlines() if line.startswith("# ---- ")] == list(UNIT_FILES)
    for unit in UNIT_FILES:
        assert cli("systemd", "print", unit).stdout.strip() in printed


def test_the_trader_s_user_can_be_one_that_exists(cli):
    """`--trader-user` should change the user of the trader's unit, and only join it to the group."""
    unit = cli("systemd", "print", "robo-trader.service", "--trader-user", "eve").stdout
    users = cli("systemd", "print", "logrelay.sysusers", "--trader-user", "eve").stdout

    assert "\nUser=eve\n" in unit
    assert "robo-trader" not in users
    assert "m eve logrelay\n" in users
    assert "u logrelay " in users


@pytest.mark.parametrize("name", ["a b", "", "7", "-x", "a:b", "eve\nExecStart=/bin/x"])
def test_what_is_no_user_name_does_not_get_into_a_unit(cli, name):
    """Printed as it is, it would be a broken unit, or two lines of one."""
    done = cli("systemd", "print", "robo-trader.service", "--trader-user", name)

    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a user name" in done.stderr


@pytest.mark.parametrize("name", ["eve", "_bot", "bot-2", "first.last", "eve@example.com", "a" * 31])
def test_a_user_name_is_taken_as_it_is(cli, name):
    """Names from a directory service have dots and at signs."""
    assert f"\nUser={name}\n" in cli("systemd", "print", "robo-trader.service", "--trader-user", name).stdout


def test_an_installation_that_services_cannot_read_is_warned_about(cli):
    """Below /root or /home the units could not start: say so when they are printed."""
    done = cli("systemd", "print", "logrelay.service")
    hidden = str(Path(sys.executable).parent).startswith(("/root/", "/home/", "/tmp/"))

    assert done.returncode == 0
    assert ("services cannot read" in done.stderr) == hidden
