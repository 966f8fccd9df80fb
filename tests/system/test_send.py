"""`logrelay send` as a person and a script use it, with a real relay."""

from __future__ import annotations

import json
import os
import signal
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


ENDS_S = 2 * DEADLINE_S
"""For the end of a command that waits for the deadline by itself."""


def command(*arguments):
    """With the deadline of every wait for its acks, unless a test gives another."""
    return [sys.executable, "-m", "logrelay", "send", f"--timeout={DEADLINE_S:g}", *arguments]


def environment():
    return {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")} | {"PYTHONPATH": str(ROOT)}


def send(*arguments, stdin=b""):
    return subprocess.run(
        command(*arguments), input=stdin, env=environment(), capture_output=True, timeout=ENDS_S, check=False
    )


def lines(relay, query="limit=100000"):
    with urlopen(f"{relay.url}logs?{query}", timeout=DEADLINE_S) as answer:
        found = [orjson.loads(line) for line in answer.read().splitlines()]
    return [line for line in found if "notice" not in line["context"]]


def test_a_line_is_in_the_journal_when_the_command_returns(start):
    """With app, level and typed fields; nothing is printed."""
    relay = start()
    done = send("--app", "backup", "--level", "warn", "--socket", relay.socket, "disk low", "free=0.5", "disk=sda")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (line,) = lines(relay, "app=backup")
    assert (line["level"], line["source"], line["message"]) == ("WARNING", "backup", "disk low")
    assert line["context"] == {"free": 0.5, "disk": "sda"}
    result = json.loads(send("--json", "--socket", relay.socket, "again").stdout)
    assert (result["lines"], result["in_journal"], result["exit"], result["error"]) == (1, 1, 0, None)
    assert result["run"] == lines(relay)[-1]["run"]


def test_stdin_is_sent_in_order(start):
    """JSON and text; thousands of lines, one of them far too long."""
    relay = start()
    said = [json.dumps({"msg": f"n {n}", "n": n, "level": "error"}).encode() for n in range(5000)]
    stdin = b"\n".join([*said[:2500], b"x" * 200_000, b"", b"plain text", *said[2500:]])
    done = send("--socket", relay.socket, "--stdin", "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["in_journal"] == 5002
    got = lines(relay)
    assert [line["context"]["n"] for line in got if "n" in line["context"]] == list(range(5000))
    assert got[2500]["message"] == "x" * 48 * 1024
    assert got[2500]["context"]["truncated"] > 65_536
    assert got[2501]["message"] == "plain text"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--level", "loud", "m"], "--level is 'loud'; allowed: debug, info, warning, error or critical"),
        ([], "there is nothing to send; give a MESSAGE, or --stdin"),
        (["--stdin", "m"], "a MESSAGE and --stdin exclude each other: give one of them"),
        (["two", "words"], "'words' is not of the form key=value; put the message in quotes"),
        (["--app", "", "m"], "--app has 0 characters; allowed: 1 to 128"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments, said):
    """One line that says what is allowed."""
    done = send(*arguments)
    assert (done.returncode, done.stderr.decode()) == (2, f"logrelay: {said}\n")


def test_no_relay_is_exit_code_5(tmp_path):
    """Nothing is in the journal, and the text says so."""
    done = send("--socket", tmp_path / "s", "--timeout", "0.1", "m")
    assert done.returncode == 5
    assert f"0 of 1 lines are in the journal: no relay takes lines at {tmp_path}/s" in done.stderr.decode()


def test_a_relay_that_stands_still_from_the_start_is_exit_code_6(start):
    """The kernel has taken the line for it, which stores it once it goes on: nobody may be told that it is not."""
    relay = start()
    os.kill(relay.process.pid, signal.SIGSTOP)
    try:
        done = send("--socket", relay.socket, "--timeout", "0.3", "later")
    finally:
        os.kill(relay.process.pid, signal.SIGCONT)
    assert done.returncode == 6
    assert b"0 of 1 lines are known to be in the journal: the relay at" in done.stderr
    wait_for(lambda: [line["message"] for line in lines(relay)] == ["later"])


def test_a_result_that_cannot_be_printed_changes_no_exit_code(start):
    """1 would say that the relay has rejected a line."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("--socket", str(start().socket), "--json", "m"),
            stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=ENDS_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == b"logrelay: the result cannot be printed: No space left on device\n"


def test_a_closed_stdin_is_a_wrong_command_line(tmp_path):
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command("--socket", str(tmp_path / "s"), "--stdin")],
        stderr=subprocess.PIPE, env=environment(), timeout=ENDS_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, b"logrelay: stdin is closed: there is nothing to send\n")


def test_a_given_time_is_not_the_clock_of_the_lines_behind_it(start):
    """Old lines have their own time while it rises; another is kept as the line's field, docs/operations.md."""
    relay = start()
    text = "".join(
        f'{{"event": "{name}", "timestamp": "{time}"}}\n'
        for name, time in [("old", "2024-05-01T10:00:00Z"), ("future", "2099-01-01T00:00:00Z")]
    )
    done = send("--socket", relay.socket, "--stdin", stdin=f"{text}plain\n".encode())
    assert done.returncode == 0
    old, future, plain = lines(relay)
    assert old["timestamp"] == "2024-05-01T10:00:00.000000Z"
    assert future["context"] == {"timestamp_": "2099-01-01T00:00:00+00:00"}
    assert max(future["timestamp"], plain["timestamp"]) < "2099"
    assert plain["context"] == {}


def test_no_ack_in_time_is_exit_code_6(start):
    """A relay that stands still after its welcome."""
    relay = start()
    with subprocess.Popen(
        command("--socket", str(relay.socket), "--stdin", "--timeout", "0.5"),
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    ) as sending:  # fmt: skip
        sending.stdin.write(b"first\n")
        sending.stdin.flush()
        wait_for(lambda: [line["message"] for line in lines(relay)] == ["first"])
        os.kill(relay.process.pid, signal.SIGSTOP)
        try:
            _, said = sending.communicate(b"second\n", timeout=ENDS_S)
        finally:
            os.kill(relay.process.pid, signal.SIGCONT)
    assert sending.returncode == 6
    assert b" of 2 lines are known to be in the journal: the relay at" in said


def test_ctrl_c_says_what_is_in_the_journal(start):
    """What was read before it is waited for."""
    relay = start()
    with subprocess.Popen(
        command("--socket", str(relay.socket), "--stdin"),
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    ) as sending:  # fmt: skip
        sending.stdin.write(b"one\ntwo\n")
        sending.stdin.flush()
        wait_for(lambda: len(lines(relay)) == 2)
        sending.send_signal(signal.SIGINT)
        _, said = sending.communicate(timeout=ENDS_S)
    assert (sending.returncode, said) == (130, b"logrelay: 2 of 2 lines are in the journal: interrupted\n")


def test_a_relay_that_restarts_meanwhile_gets_each_line_once(start):
    """The command goes on where the journal stands."""
    relay = start()
    with subprocess.Popen(
        command("--socket", str(relay.socket), "--stdin"),
        stdin=subprocess.PIPE, env=environment(),
    ) as sending:  # fmt: skip
        sending.stdin.write(b"1\n2\n")
        sending.stdin.flush()
        wait_for(lambda: len(lines(relay)) == 2)
        relay.kill()
        sending.stdin.write(b"3\n")
        sending.stdin.flush()
        relay.start()
        sending.stdin.write(b"4\n")
        sending.stdin.close()
        assert sending.wait(ENDS_S) == 0
    assert [line["message"] for line in lines(relay)] == ["1", "2", "3", "4"]


def test_a_closed_stdout_does_not_matter_to_the_lines(start):
    """They are in the journal; the end is clean, without a traceback."""
    relay = start()
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command("--json", "--socket", str(relay.socket), "m"),
        stdout=write, stderr=subprocess.PIPE, env=environment(), timeout=ENDS_S, check=False,
    )  # fmt: skip
    os.close(write)
    assert b"Traceback" not in done.stderr
    assert [line["message"] for line in lines(relay)] == ["m"]


def test_the_socket_is_found_as_a_trader_finds_it(start, tmp_path):
    """By LOGRELAY_SOCKET here; another user's directory is not trusted."""
    relay = start()
    done = subprocess.run(
        command("found"), env=environment() | {"LOGRELAY_SOCKET": str(relay.socket)}, timeout=ENDS_S, check=False
    )
    assert done.returncode == 0
    assert lines(relay)[-1]["message"] == "found"
