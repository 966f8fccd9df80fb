"""Questions to a large journal: how long an answer takes, and what lines that come meanwhile notice of it.

Owns: a journal of some million lines, written row by row in seconds, the questions, and their table. It measures a real
relay over HTTP, from the request to the last byte, on a warm cache; a question is asked `ROUNDS` times. It leaves out
the disk: on a cold one, the pages that a question needs come at the speed of the disk. Read `report` next.

    python tests/bench/questions.py --lines 1000000 10000000 [--index off]
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from random import Random

import msgpack
import orjson
from websockets.sync.client import connect

from logrelay.fanout.line_json import rfc3339
from logrelay.journal.checksums import line_crc, row_crc
from logrelay.journal.sqlite import SqliteJournal

WEEK_US = 7 * 86_400_000_000
BLOCK = 1000
SYMBOLS = ("AAPL", "MSFT", "NVDA", "GOOG", "TSLA", "META", "INTC", "AMZN")
RARE, FREQUENT, MISSING = "margin.call", "executed", "nothing.like.this"
RATE = 50
"""Lines a second that come while questions are answered."""
ROUNDS = 7
LISTEN_S = 10.0
"""How long latencies are measured without questions; with them, as long as the questions take."""


def order_id(n: int) -> str:
    """Return the order of line `n`: three lines have the same."""
    return f"{(n // 3 * 2_654_435_761) % (1 << 48):012x}"


def make(path: Path, lines: int, now_us: int) -> None:
    """Write a journal with `lines` lines of the last week; one in a hundred is a problem."""
    journal = SqliteJournal(str(path), now_us=lambda: now_us, random_epoch=lambda: "bench0", text_index=False)
    journal.open()
    journal.close()
    random = Random(1)
    names = [(1, "robo_trader.runner", "robo_trader"), (2, "robo_trader.broker", "robo_trader")]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA wal_autocheckpoint = 20000")
        db.executemany("INSERT INTO sources VALUES (?, ?, ?, ?)", [(*row, row_crc(row)) for row in names])
        run = "744b938d57d455224f29a864fb7f6656"
        for first in range(1, lines + 1, BLOCK):
            rows, levels, last = [], dict.fromkeys((10, 20, 30, 40, 50), 0), min(first + BLOCK, lines + 1) - 1
            for n in range(first, last + 1):
                time_us = now_us - WEEK_US + WEEK_US * n // lines
                level, source, message = 20, 1, "trade.executed"
                more = f'"quantity":{10 + n * 37 % 490},"price":{random.randrange(1000, 99999) / 100}'
                if n % 100 == 7:
                    level, source, message = (40 if n % 1000 == 7 else 30), 2, "order.rejected"
                    more = f'"exception":"Traceback\\n  x\\nRejected: margin {n % 97}"'
                elif n % 250_000 == 11:
                    message = RARE
                context = f'"symbol":"{SYMBOLS[n * n % 7]}","side":"buy","order_id":"{order_id(n)}",{more}'
                shown = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR"}[level]
                body = (
                    f'{{"type":"log","id":"bench0-{n}","level":"{shown}","source":"{names[source - 1][1]}",'
                    f'"message":"{message}","context":{{{context}}},"timestamp":"{rfc3339(time_us)}",'
                    f'"app":"robo_trader","run":"{run}"}}'
                )
                levels[level] += 1
                rows.append((n, time_us, level, source, 1, body, line_crc(n, time_us, level, source, 1, body.encode())))
            mark = (first, last, rows[-1][1], rows[0][1], rows[-1][1], *levels.values())
            db.execute("BEGIN")
            db.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            db.execute("INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*mark, row_crc(mark)))
            db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def build(path: Path, now_us: int) -> tuple[float, float, int]:
    """Make the index and the tallies; returns the CPU seconds, the longest step, and the bytes that they take."""
    before = path.stat().st_size
    journal = SqliteJournal(
        str(path), now_us=lambda: now_us, random_epoch=lambda: "bench0", max_age_s=0, max_bytes=1 << 40
    )
    journal.open()
    began, longest, more = time.thread_time(), 0.0, True
    while more:
        start = time.perf_counter()
        more = journal.derive(seconds=0.002)
        longest = max(longest, time.perf_counter() - start)
    took = time.thread_time() - began
    journal.close()
    return took, longest, path.stat().st_size - before


class Relay:
    """A relay over the journal, a trader that logs `RATE` lines a second, and a viewer that takes their latencies."""

    def __init__(self, path: Path, index: str) -> None:
        self.latencies: list[float] = []
        self._end = threading.Event()
        self._place = path.parent / "s"
        command = [sys.executable, "-m", "logrelay", "serve", "--port", "0", "--socket", str(self._place)]
        options = ["--journal", str(path), "--keep-days", "0", "--keep-bytes", "1TiB", "--text-index", index]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
        self.process = subprocess.Popen([*command, *options], env=kept, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if ready := re.search(r"wss?://[^ ,]*:(\d+)", line):
                self.port = int(ready[1])
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self._threads = [threading.Thread(target=self._log), threading.Thread(target=self._view)]
        for thread in self._threads:
            thread.start()

    def _log(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self._place))
            run = {"protocol": 1, "run": secrets.token_bytes(16), "app": "live", "host": "x", "pid": 1, "started_ns": 1}
            sock.sendall(msgpack.packb([0, run]))
            sock.setblocking(False)
            seq = 0
            while not self._end.wait(1 / RATE):
                seq += 1
                event = {"event": "tick", "ns": time.perf_counter_ns()}
                sock.send(msgpack.packb([1, seq, time.time_ns(), "info", event]))
                try:
                    sock.recv(65536)
                except BlockingIOError:
                    pass

    def _view(self) -> None:
        with connect(f"ws://127.0.0.1:{self.port}/?tail=0&app=live", max_size=None) as viewer:
            while not self._end.is_set():
                try:
                    line = orjson.loads(viewer.recv(timeout=0.5))
                except TimeoutError:
                    continue
                if line["type"] == "log" and "ns" in line["context"]:
                    self.latencies.append((time.perf_counter_ns() - line["context"]["ns"]) / 1e6)

    def ask(self, target: str) -> tuple[float, int]:
        """Return seconds and lines of an answer."""
        began = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{target}", timeout=600) as answer:
            body = answer.read()
        return time.perf_counter() - began, body.count(b"\n")

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        self.process.terminate()
        self.process.wait()


def questions(lines: int) -> dict[str, str]:
    """Return what is asked, by name."""
    order = order_id(lines // 3)
    day = "since=1d&limit=100"
    return {
        "order id as text, all": f"/logs?text={order}&limit=100",
        "order id as text, a day": f"/logs?text={order}&{day}",
        "order_id=... as text, all": f"/logs?text=order_id%3D{order}&limit=100",
        "order id as where, all": f"/logs?where=order_id%3D{order}&limit=100",
        "order id as where, a day": f"/logs?where=order_id%3D{order}&{day}",
        "rare word, all": f"/logs?text={RARE}&limit=100",
        "rare word, a day": f"/logs?text={RARE}&{day}",
        "frequent word, all": f"/logs?text={FREQUENT}&limit=100",
        "frequent word, a day": f"/logs?text={FREQUENT}&{day}",
        "a word that is not there, all": f"/logs?text={MISSING}&limit=100",
        "the same with app=": f"/logs?text={MISSING}&app=robo_trader&limit=100",
        "summary of a day": "/summary?since=1d",
        "summary of a week": "/summary?since=8d",
    }


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def measure(path: Path, lines: int, index: str, rounds: int) -> None:
    """Print a row for each question, and the latency of lines with and without them."""
    relay = Relay(path, index)
    try:
        deadline = time.perf_counter() + LISTEN_S
        while time.perf_counter() < deadline:
            time.sleep(0.1)
        quiet, at = list(relay.latencies), len(relay.latencies)
        print(f"| {lines:,} lines, index {index} | lines | p50 ms | max ms |\n|---|---|---|---|", flush=True)
        for name, target in questions(lines).items():
            took = [relay.ask(target) for _ in range(rounds)]
            times = [1000 * seconds for seconds, _ in took]
            print(f"| {name} | {took[0][1]} | {statistics.median(times):.0f} | {max(times):.0f} |", flush=True)
        asked = relay.latencies[at:]
        for what, values in (("without questions", quiet), ("with questions", asked)):
            p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
            print(f"latency of a line at {RATE}/s {what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms ({len(values)} lines)")
    finally:
        relay.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--index", choices=["on", "off"], nargs="+", default=["on"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--keep", type=Path, help="make the journals here, and leave them there")
    given = parser.parse_args()
    for lines in given.lines:
        place = given.keep or Path(tempfile.mkdtemp(prefix="logrelay-bench-"))
        place.mkdir(exist_ok=True)
        path, now_us = place / f"{lines}.db", time.time_ns() // 1000
        try:
            if not path.exists():
                began = time.perf_counter()
                make(path, lines, now_us)
                size = path.stat().st_size
                print(f"{lines:,} lines made in {time.perf_counter() - began:.0f} s, {size >> 20} MiB", flush=True)
            if "on" in given.index:
                cpu, longest, size = build(path, now_us)
                print(
                    f"index and tallies: {cpu:.1f} s of CPU ({1e6 * cpu / lines:.1f} us a line), longest step "
                    f"{1000 * longest:.1f} ms, {size >> 20} MiB ({size / lines:.0f} bytes a line)",
                    flush=True,
                )
            for index in given.index:
                measure(path, lines, index, given.rounds)
        finally:
            if given.keep is None:
                shutil.rmtree(place)


if __name__ == "__main__":
    main()
