"""Runs rows of the siege and says what they did to the relay and to the bystanders.

Owns: the processes of one row, by pid, and the measuring. Every row has a relay of its own. Linux only: it reads /proc.
Read `__main__` next: it prints the table.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import msgpack
import orjson

from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit, Line
from tests.siege import rows as limits
from tests.siege.rows import Row
from tests.siege.target import GUESS, Target, hello, log
from tests.support.certificates import Authority
from tests.support.chaos.relay import ROOT, Relay
from tests.support.waiting import DEADLINE_S

TOKEN = "correct-horse-battery-staple-0123456789"

TRADER_RATE = 200
"""Lines per second of the healthy trader: twenty times a bot's, so that a p99 means something after some seconds."""

SAMPLE_S = 0.02
"""How often the relay's memory is looked at."""

GRACE_S = 10.0
"""What an attacker gets beyond its time to end by itself."""

ANSWER_S = 3 * DEADLINE_S
"""How long a bystander may take to answer: it may wait for a line and for an answer by itself."""

CALM_S = 2.0
"""How long the bystanders are measured before the attack."""


@dataclass
class Outcome:
    """What one row did. Bytes and seconds."""

    row: str
    rss_before: int = 0
    rss_during: int = 0
    rss_after: int = 0
    rss_later: int = 0
    """0: not looked at."""
    calm: dict[str, dict] = field(default_factory=dict)
    attacked: dict[str, dict] = field(default_factory=dict)
    lost: int = 0
    repeated: int = 0
    reconnects: int = 0
    stderr_bytes: int = 0
    tracebacks: int = 0
    leaks: list[str] = field(default_factory=list)
    """Files that the relay wrote, or its stderr, with a token in them, a good or a guessed one."""
    attacker: str = ""
    """Its last words, when it ended in an error: then the row says nothing."""
    relay_said: list[str] = field(default_factory=list)

    def faults(self, *, times: bool = True) -> list[str]:
        """Return what did not hold. `times` False: without latencies, for a machine that does other things too."""
        found = []
        for name, value, most in (
            ("during", self.rss_during, limits.DURING_BYTES),
            ("after", self.rss_after, limits.AFTER_BYTES),
        ):
            if value > most:
                found.append(f"{name} {value >> 20} MB")
        for what in ("lost", "repeated", "reconnects", "tracebacks"):
            if getattr(self, what):
                found.append(f"{what} {getattr(self, what)}")
        if self.leaks:
            found.append(f"a token stands in {', '.join(self.leaks)}")
        if self.stderr_bytes > limits.STDERR_BYTES:
            found.append(f"stderr {self.stderr_bytes >> 10} kB")
        failures = self.attacked["watcher"]["failures"]
        if not times:  # a disk that other work keeps for a second is said in health checks
            failures = [text for text in failures if LATE_COMMIT not in text]
        if failures:
            found.append(f"{len(failures)} not answered: {failures[0]}")
        if self.attacker:
            found.append(f"attacker: {self.attacker}")
        return found + (self._late() if times else [])

    def _late(self) -> list[str]:
        calm, attacked, found = self.calm["watcher"], self.attacked["watcher"], []
        if attacked["viewer"]["p99"] > calm["viewer"]["p99"] + limits.MORE_LATENCY_S:
            found.append(f"viewer p99 {attacked['viewer']['p99'] * 1e3:.0f} ms")
        for what in ("healthz", "newcomer"):
            if attacked[what]["max"] > limits.ANSWER_S:
                found.append(f"{what} {attacked[what]['max']:.1f} s")
        if self.attacked["trader"]["p99"] > self.calm["trader"]["p99"] + limits.MORE_CALL_S:
            found.append(f"trader's call p99 {self.attacked['trader']['p99'] * 1e3:.1f} ms")
        return found


LATE_COMMIT = "a commit has taken more than"


class Bystander:
    """One process of `bystanders`, asked by words."""

    def __init__(self, *arguments: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LOGRELAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.siege.bystanders", *arguments],
            cwd=ROOT,
            env=environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, words: str) -> dict:
        """Say a word and return the answer."""
        self.process.stdin.write(words + "\n")
        if not select.select([self.process.stdout], [], [], ANSWER_S)[0]:
            raise AssertionError(f"a bystander did not answer {words!r}")
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"a bystander ended before it answered {words!r}")
        return json.loads(line)

    def end(self) -> None:
        """End it, whatever its state."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class MemoryWatch:
    """Looks at a process's resident memory all the time, on a thread."""

    def __init__(self, relay: Relay) -> None:
        self._relay, self._stop = relay, threading.Event()
        self.highest = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            with contextlib.suppress(OSError, IndexError):
                self.highest = max(self.highest, self._relay.rss())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def fill_journal(path: Path, lines: int) -> None:
    """Write a journal with so many lines of an ordinary bot."""
    journal = SqliteJournal(str(path), now_us=lambda: time.time_ns() // 1000, random_epoch=lambda: "siege0")
    journal.open()
    step, now_us = 4000, time.time_ns() // 1000
    for first in range(1, lines + 1, step):
        batch = []
        for seq in range(first, min(first + step, lines + 1)):
            shape = {
                "type": "log",
                "id": f"siege0-{seq}",
                "level": "INFO",
                "source": f"robo_trader.part{seq % 40}",
                "message": f"trade number {seq} was executed at the price that was asked for",
                "context": {"symbol": "AAPL", "quantity": seq % 100, "price": 187.3312, "side": "buy"},
                "timestamp": "2026-01-23T10:00:00.000000Z",
                "app": "filler",
                "run": "0" * 31 + "1",
            }
            source = shape["source"]
            batch.append(Line(seq, now_us + seq, 20, source, 1, orjson.dumps(shape), "", {}, "filler"))
        journal.append(Commit(batch))
    journal.close()


def log_lines(target: Target, lines: int) -> None:
    """Have another trader log so many lines, and wait until the relay has committed them."""
    with target.unix() as sock:
        sock.settimeout(DEADLINE_S)
        sock.sendall(hello("filler"))
        context = {"symbol": "AAPL", "quantity": 100, "price": 187.3312, "side": "buy"}
        answers = msgpack.Unpacker()
        for first in range(1, lines + 1, 1000):
            last = min(first + 999, lines)
            sock.sendall(
                b"".join(
                    log(seq, {"event": f"trade number {seq} was executed", "logger": f"bot.part{seq % 40}", **context})
                    for seq in range(first, last + 1)
                )
            )
            acked = 0
            while acked < last:
                answers.feed(sock.recv(1 << 16))
                acked = max([acked, *(answer[1] for answer in answers if answer[0] == 1)])
        sock.sendall(msgpack.packb([3, lines]))


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """Make a directory with a short path: a Unix socket's may have 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="siege-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def lay_siege(
    row: Row, *, seconds: float, settle_s: float, later_s: float = 0.0, scale: float = 1.0, python: str = ""
) -> Outcome:
    """Run one row: calm for a moment, `seconds` of attack, and up to `settle_s` for memory to be given back.

    `later_s`: memory is looked at once more so many seconds after the attack; 0: it is not. `scale` makes the counts
    smaller. `python` is the interpreter that the relay runs with; empty: this one.
    """
    outcome = Outcome(row.name)
    with home() as place, contextlib.ExitStack() as ends:
        journal = place / "journal.db"
        if row.lines:
            fill_journal(journal, max(1000, int(row.lines * scale)))
        options = []
        if row.relay_token:
            config = place / "relay.toml"
            config.write_text(f'token = "{TOKEN}"\n')
            config.chmod(0o600)
            options = ["--config", str(config)]
        ca = ""
        if row.tls:
            authority = Authority(place)
            cert, key = authority.issue("relay")
            options += ["--tls-cert", str(cert), "--tls-key", str(key)]
            ca = str(place / "ca.pem")
        relay = Relay(place, *options, journal=journal)
        if python:
            relay.python = python
        ends.callback(relay.end)
        relay.start()
        trader = Bystander("trader", str(relay.socket), str(TRADER_RATE))
        ends.callback(trader.end)
        watcher = Bystander("watcher", str(relay.port), TOKEN if row.relay_token else "", ca)
        ends.callback(watcher.end)
        target = Target(
            relay.port, str(relay.socket), TOKEN if row.relay_token and row.knows_token else "", seconds, scale
        )
        if row.recent:
            log_lines(target, max(1000, int(row.recent * scale)))
        time.sleep(CALM_S / 2)
        _measures(trader, watcher)
        time.sleep(CALM_S)
        outcome.calm = _measures(trader, watcher)
        outcome.rss_before = relay.rss()
        said = len(relay.said)
        with MemoryWatch(relay) as memory:
            outcome.attacker = _attack(row, target)
            outcome.attacked = _measures(trader, watcher)
        outcome.rss_during = memory.highest
        over = time.monotonic()
        outcome.rss_after = _settled(relay, settle_s)
        if later_s:
            time.sleep(max(0.0, over + later_s - time.monotonic()))
            outcome.rss_later = relay.rss()
        lines = trader.ask("finish")["lines"]
        outcome.reconnects = watcher.ask(f"mark {lines}")["reconnects"]
        counted = watcher.ask(f"finish {lines}")
        outcome.lost, outcome.repeated = counted["lost"], counted["repeated"]
        outcome.relay_said = relay.said[said : said + 20]
        outcome.stderr_bytes = sum(len(line) + 1 for line in relay.said[said:])
        outcome.leaks = leaks(place, "\n".join(relay.said))
        outcome.tracebacks = sum("Traceback" in line or "Error" in line for line in relay.said[said:])
    return outcome


def leaks(place: Path, said: str) -> list[str]:
    """Return where a token stands that the relay was shown, but for the settings, which are not the relay's."""
    files = [path for path in place.iterdir() if path.is_file() and path.suffix != ".toml"]
    texts = {path.name: path.read_bytes() for path in files} | {"stderr": said.encode()}
    return [name for name, text in texts.items() if any(token.encode() in text for token in (TOKEN, GUESS))]


def _measures(trader: Bystander, watcher: Bystander) -> dict[str, dict]:
    """Return what both have measured since the last time; what is not delivered yet is waited for, and late."""
    calls = trader.ask("mark")
    return {"trader": calls, "watcher": watcher.ask(f"mark {calls['lines']}")}


def _attack(row: Row, target: Target) -> str:
    """Run the attacker to its end; returns its last words when it did not end well."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LOGRELAY_")}
    attacker = subprocess.Popen(
        [sys.executable, "-m", "tests.siege.attack", row.listener, row.attack, json.dumps(asdict(target))],
        cwd=ROOT,
        env=environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = attacker.communicate(timeout=target.seconds + GRACE_S)
    except subprocess.TimeoutExpired:
        attacker.kill()
        attacker.communicate()
        return ""
    return said.strip().splitlines()[-1] if attacker.returncode else ""


def _settled(relay: Relay, settle_s: float) -> int:
    """Wait until the relay's memory is what it may be after an attack, at most `settle_s`; return what it is then."""
    end = time.monotonic() + settle_s
    while (held := relay.rss()) > limits.AFTER_BYTES and time.monotonic() < end:
        time.sleep(0.1)
    return held
