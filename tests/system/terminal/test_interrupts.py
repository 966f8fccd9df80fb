"""Ctrl-C at every moment of a command: before it is loaded, while it connects, reads and prints, and at its end.

A driver runs the command in its process and sends it the signal at the n-th call of a function, so that a moment is the
same one each time, and none is left to chance.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.chaos.relay import Relay
from tests.support.chaos.scale import scaled
from tests.support.waiting import DEADLINE_S

MOMENTS = scaled(6, 200)
"""For each command, evenly over what it does."""

MOST_LOST = scaled(2, 40)
"""Of all moments, those in a finalizer of the interpreter's own code."""

DRIVER = """
import os, signal, sys

at, counted, sys.argv = int(sys.argv[1]), sys.argv[2], ["logrelay", *sys.argv[3:]]
calls = 0

def on_event(frame, event, _):
    global calls
    if event != "call" or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return  # it is not taken by us yet
    if frame.f_code.co_name == "end" and frame.f_code.co_filename.endswith("interrupts.py"):
        with open(counted, "w") as file:
            file.write(str(calls))
        sys.setprofile(None)
        return
    calls += 1
    if calls == at:
        sys.setprofile(None)
        with open(counted, "w") as file:
            file.write("sent")
        os.kill(os.getpid(), signal.SIGINT)

from logrelay.__main__ import run
sys.setprofile(on_event)
run()
"""

COMMANDS = {
    "tail of a relay": ("tail", "--no-follow", "URL"),
    "search": ("search", "executed", "JOURNAL"),
    "export": ("export", "-o", "out.ndjson", "URL"),
    "status": ("status", "URL"),
    "send": ("send", f"--timeout={DEADLINE_S:g}", "--socket", "SOCKET", "hello"),
    "check": ("check", "--journal", "JOURNAL", "--port", "PORT"),
}


@pytest.fixture
def relay(home, journal):
    """A relay on the journal of the home, with lines in it."""
    one = Relay(home, journal=journal)
    one.start()
    yield one
    one.end()


def test_an_interrupt_at_any_moment_ends_every_command_with_130(relay, environ, home):
    """Quietly: no traceback, nothing about what was interrupted, nothing left behind; whatever has ended stays so."""
    places = {
        "PORT": str(relay.port),
        "URL": f"ws://127.0.0.1:{relay.port}",
        "JOURNAL": str(relay.journal),
        "SOCKET": str(relay.socket),
    }

    def run(at, arguments):
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(at), "counted", *(places.get(word, word) for word in arguments)],
            env=environ, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * DEADLINE_S,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    lost = []
    for name, arguments in COMMANDS.items():
        code, _, said = run(0, arguments)
        assert code in (0, 7), said
        (home / "out.ndjson").unlink(missing_ok=True)
        calls = int((home / "counted").read_text())
        last = calls - 20
        for moment in [1, 2, *(calls * step // MOMENTS for step in range(1, MOMENTS)), last]:
            at, of = moment, calls
            code, _, said = run(at, arguments)
            # A connection makes a few calls more or less, and a command that waits for a busy machine many: the same
            # part of them is tried again. The last moment may not come.
            while (counted := (home / "counted").read_text()) != "sent" and moment != last:
                assert code in (0, 7), said
                at, of = at * int(counted) // of, int(counted)
                code, _, said = run(at, arguments)
            if counted == "sent" and code != 130:
                lost.append((name, at, calls, code, said))
            # What a command says of itself is fine, as `send` does of its lines; a traceback is not.
            assert [row for row in said.splitlines() if row and not row.startswith("logrelay: ")] == [], (name, at)
            assert not (home / "out.ndjson.part").exists()
    # A file that is closed because nobody refers to it any more swallows what comes meanwhile, as the interpreter does
    # in its own finalizers: then the command has done what it was asked for.
    assert len(lost) <= MOST_LOST, lost
    assert all(code in (0, 7) for _, _, _, code, _ in lost), lost


def test_a_process_that_ignores_the_signal_goes_on_ignoring_it(relay, environ, home):
    """A background job of a shell is started so: what is typed for another program should not end it."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "200", "counted", "tail", "--no-follow", f"ws://127.0.0.1:{relay.port}"],
        env=environ, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trade.executed" in done.stdout
