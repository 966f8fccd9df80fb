"""Bots in processes of their own, for the tests of how a process ends, forks and is interrupted.

Owns: `run_bot` and `Bot`, which run a piece of code after `PRELUDE` in a fresh Python, and the deadline after which
such a process says where it hangs and ends itself. What is said on the wire is the business of `wire_peer`.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import DEADLINE_S
from tests.support.wire_peer import all_peers_read

ROOT = str(Path(__file__).resolve().parents[2])

FULL = os.environ.get("LOG_RELAY_FULL") == "1"
"""LOG_RELAY_FULL=1 takes the full counts and times, which need minutes; otherwise CI's."""

HANGS_S = 2 * DEADLINE_S
"""After so many seconds a bot is taken to hang: it prints where each thread stands and ends. More than the deadline
of a wait, which says what it waited for."""

UNHURRIED = f"""
from robo_trader.log_relay import LogRelayProcessor, keepalive, sender, spool_recovery
LogRelayProcessor.__init__.__kwdefaults__["exit_timeout"] = {DEADLINE_S}
sender.WELCOME_TIMEOUT_S = keepalive.PATIENCE_FIRST_S = {10 * DEADLINE_S}
spool_recovery.ANSWER_S = {DEADLINE_S}
"""
"""What a bot of the tests begins with: a relay that stands still for a while, as the process of a test may at any
moment, is waited for at the exit, is not told of on stderr and is not given up. Who is about those times sets them."""

PRELUDE = """
import atexit, faulthandler, gc, os, signal, sys, threading, time, weakref
faulthandler.dump_traceback_later({hangs}, exit=True)
{unhurried}
SOCK = sys.argv[1]

DEADLINE_S, HANGS_S = {deadline}, {hangs}

def until(condition, seconds=DEADLINE_S):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("never: " + condition.__code__.co_name)
        time.sleep(0.0005)

def up(ship):
    "Whether the next line goes into the kernel in the call."
    return ship._out.direct_send is not None

def balanced(ship):
    "Return the stats at a moment at which nobody changes what they count, and check that the books balance."
    baton, held = ship._out.baton, []
    def mine():
        try:
            held.append(baton.pop())
        except IndexError:
            pass
        return held
    until(mine)
    try:
        stats = ship.stats()
    finally:
        baton += held
    ship._out.combine()
    assert stats["produced"] == stats["acked"] + stats["pending"] + sum(stats["dropped"].values()), stats
    return stats

def tell(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def scaled(ci, full):
    """How often, or how long, to do something."""
    return full if FULL else ci


def environment():
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGRELAY_")}
    return clean | {"PYTHONPATH": ROOT, "TEST_DEADLINE_S": str(DEADLINE_S)}


def command(code, args, options=(), hangs=HANGS_S, before=""):
    prelude = PRELUDE.format(hangs=hangs, deadline=DEADLINE_S, unhurried=UNHURRIED)
    return [sys.executable, *options, "-c", before + prelude + code, *map(str, args)]


class Bot:
    """A process that runs `code`; `before` runs ahead of its imports.

    In a `with` block: killed at its end, whatever happened.
    """

    def __init__(self, code, *args, options=(), hangs=HANGS_S, before=""):
        self._command = command(code, args, options, hangs, before)
        self.code = None
        self.err = ""

    def __enter__(self):
        self.process = subprocess.Popen(
            self._command,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid
        return self

    def __exit__(self, *exc):
        self.kill()
        with contextlib.suppress(ProcessLookupError):  # whatever it forked is in its process group
            os.killpg(self.pid, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()

    def line(self):
        """The next line it tells; fails with its stderr if it ended instead."""
        line = self.process.stdout.readline().rstrip("\n")
        if not line:
            self.wait()
            raise AssertionError(f"the bot ended with {self.code}: {self.err}")
        return line

    def ask(self, words):
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def stopped(self):
        """SIGSTOP; True once it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)

    def wait(self, timeout=HANGS_S + DEADLINE_S):
        """Wait for its end; return the exit code. `out` and `err` are what was still unread.

        The lines that it gave to the kernel have been read by the peers of this process then.
        """
        self.out, self.err = self.process.communicate(timeout=timeout)
        self.code = self.process.returncode
        all_peers_read()
        return self.code


def run_bot(code, *args, options=(), hangs=HANGS_S, before=""):
    """Run `code` to its end; returns the `Bot` with `code`, `out` and `err`."""
    with Bot(code, *args, options=options, hangs=hangs, before=before) as bot:
        bot.wait(hangs + DEADLINE_S)
    return bot
