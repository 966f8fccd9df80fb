"""Who must not notice a siege: a healthy trader, and a healthy viewer with a health check and a newcomer each second.

Owns: the two processes, and their measures: log calls, latencies by timestamps, lines seen. Each takes one word per
line on stdin and answers with one JSON object. It must not know which attack runs. Read `attack` next.

    python -m tests.siege.bystanders trader SOCKET LINES-PER-SECOND
    python -m tests.siege.bystanders watcher PORT TOKEN CA     an empty token: none; a CA, a file: over TLS

The words for the trader: `mark` answers with the measures since the last mark and the number of lines so far, `finish`
ends the lines and answers with their number. For the watcher: `mark N` waits for line N and answers with the measures,
`finish N` waits for it and answers with what was lost and repeated.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence

import orjson

from tests.support.chaos.viewer import TEXT, handshake
from tests.support.stillness import Stillness
from tests.support.waiting import DEADLINE_S

NEWCOMER_S = 1.0
"""A health check and a newcomer come so often, and are to be answered within the same time."""

ANSWER_S = DEADLINE_S
"""After this long a health check or a newcomer counts as not answered; that it was late is said by its time."""

LAST_LINE_S = DEADLINE_S
"""How long the watcher waits for the last line after the trader's end."""

SLOW_S, TRIES = 0.1, 5
"""A visitor that itself stands still for so long within its request may lose its place to the crowd of an attack: it
comes again, a few times at the most, and what it takes in all is its time."""

SOURCE = "siege.bystander"
"""The logger of the healthy trader; what the attackers log has others."""


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of them lie; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return count, p50, p99 and max."""
    return {
        "count": len(values),
        "p50": quantile(values, 0.5),
        "p99": quantile(values, 0.99),
        "max": max(values, default=0.0),
    }


# --- the trader -------------------------------------------------------------------------------------------------------


def run_trader(path: str, rate: str) -> None:
    """Log at a steady rate, timing each call, until `finish`."""
    from robo_trader.logger import LogRelayProcessor, get_logger, setup_structlog  # noqa: PLC0415

    processor = LogRelayProcessor(path, app="bystander")
    setup_structlog(socket=path, relay=processor, stream=open(os.devnull, "w"), form="json")
    log = get_logger(SOURCE)
    pause, due, n = 1 / float(rate), time.monotonic(), 0
    calls: list[float] = []
    while True:
        due += pause
        if select.select([0], [], [], max(0.0, due - time.monotonic()))[0]:
            word = sys.stdin.readline().strip()
            if word != "mark":
                break
            print(json.dumps(summary(calls) | {"lines": n, "stats": processor.stats()}), flush=True)
            calls = []
            due = time.monotonic()
        n += 1
        began = time.perf_counter()
        log.info("steady", n=n, sent_ns=time.time_ns())
        calls.append(time.perf_counter() - began)
    end = time.monotonic() + LAST_LINE_S
    while processor.stats()["pending"] and time.monotonic() < end:
        time.sleep(0.01)
    print(json.dumps({"lines": n, "stats": processor.stats()}), flush=True)


# --- the watcher ------------------------------------------------------------------------------------------------------


class Watcher:
    """A viewer of the healthy trader's lines on a thread, and a second thread for health checks and newcomers."""

    def __init__(self, port: int, token: str, tls: ssl.SSLContext | None = None) -> None:
        self._port, self._token, self._tls = port, token, tls
        self._headers = f"Authorization: Bearer {token}\r\n" if token else ""
        self.lock = threading.Lock()
        self.latencies: list[float] = []
        self.health: list[float] = []
        self.newcomers: list[float] = []
        self.failures: list[str] = []
        self.seen: dict[int, int] = {}
        self.newest = 0
        self.reconnects = -1
        self.notices = 0
        self.visiting: tuple[str, float] | None = None
        """What is being asked at the moment, and since when: what has no answer yet is late, too."""
        self._still = Stillness().start()
        for target in (self._view, self._visit):
            threading.Thread(target=target, daemon=True).start()

    def _connect(self, query: dict[str, object]) -> tuple[socket.socket, bytes]:
        sock, rest, _ = handshake(self._port, {"source": SOURCE, **query}, headers=self._headers, tls=self._tls)
        return sock, rest

    def _view(self) -> None:
        last = ""
        while True:
            self.reconnects += 1
            try:
                sock, data = self._connect({"after": last} if last else {"tail": 0})
                with sock:
                    sock.settimeout(None)
                    while True:
                        buffer = bytearray(data)
                        for body in _messages(buffer):
                            last = self._take(orjson.loads(body)) or last
                        more = sock.recv(1 << 18)
                        if not more:
                            break
                        data = bytes(buffer) + more
            except OSError:
                time.sleep(0.05)

    def _take(self, message: dict[str, object]) -> str | None:
        now = time.time_ns()
        if message["type"] != "log":
            return None
        context = message["context"]
        with self.lock:
            if message["source"] == SOURCE:
                self.latencies.append((now - int(context["sent_ns"])) / 1e9)
                self.seen[context["n"]] = self.seen.get(context["n"], 0) + 1
                self.newest = max(self.newest, context["n"])
            else:
                self.notices += 1
        return message["id"]

    def _visit(self) -> None:
        due = time.monotonic()
        while True:
            for what, visit, times in (("healthz", self._ask, self.health), ("newcomer", self._come, self.newcomers)):
                began = time.perf_counter()
                self.visiting = what, began
                try:
                    self._patiently(visit)
                except Exception as error:
                    with self.lock:
                        self.failures.append(f"{what}: {error!r}")
                finally:
                    with self.lock:
                        times.append(time.perf_counter() - began)
                        self.visiting = None
            due += NEWCOMER_S
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - NEWCOMER_S)

    def _patiently(self, visit: Callable[[], None]) -> None:
        """Visit, and once more where this process stood still meanwhile."""
        for _ in range(TRIES - 1):
            self._still.longest_s = 0.0
            try:
                return visit()
            except OSError:
                if self._still.longest_s < SLOW_S:
                    raise
        return visit()

    def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if self._tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=ANSWER_S, context=self._tls)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz", headers=headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise AssertionError(f"status {response.status}: {body[:200]!r}")

    def _come(self) -> None:
        """Connect as a person does who opens the page: the newest lines, until the first one is there."""
        sock, data = self._connect({"tail": 10})
        with sock:
            sock.settimeout(ANSWER_S)
            while not any(b'"type":"log"' in body for body in _messages(bytearray(data))):
                more = sock.recv(1 << 16)
                if not more:
                    raise ConnectionError("closed before the first line")
                data += more

    def mark(self, last: int) -> dict[str, object]:
        """Wait for line `last`, which is late if it takes long, and return the measures since the last mark."""
        self._wait_for_line(last)
        with self.lock:
            if self.visiting:
                what, began = self.visiting
                (self.health if what == "healthz" else self.newcomers).append(time.perf_counter() - began)
            report = {
                "viewer": summary(self.latencies),
                "healthz": summary(self.health),
                "newcomer": summary(self.newcomers),
                "failures": list(self.failures),
                "notices": self.notices,
                "reconnects": max(self.reconnects, 0),
            }
            for values in (self.latencies, self.health, self.newcomers, self.failures):
                values.clear()
            return report

    def _wait_for_line(self, last: int) -> None:
        end = time.monotonic() + LAST_LINE_S
        while self.newest < last and time.monotonic() < end:
            time.sleep(0.02)

    def finish(self, last: int) -> dict[str, object]:
        """Wait for line `last`; return how many lines from the first one seen on were lost, and how many repeated."""
        self._wait_for_line(last)
        with self.lock:
            first = min(self.seen, default=1)
            return {
                "lost": sum(n not in self.seen for n in range(first, last + 1)),
                "repeated": sum(count - 1 for count in self.seen.values()),
                "seen": len(self.seen),
            }


def _messages(buffer: bytearray) -> list[bytes]:
    """Take the complete text messages out of a buffer; other frames are passed over."""
    found, at = [], 0
    while len(buffer) - at >= 2:
        size, head = buffer[at + 1] & 0x7F, 2
        if size == 126:
            size, head = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(buffer[at + 2 : at + 10], "big"), 10
        if len(buffer) - at < head + size:
            break
        if buffer[at] & 0x0F == TEXT:
            found.append(bytes(buffer[at + head : at + head + size]))
        at += head + size
    del buffer[:at]
    return found


def run_watcher(port: str, token: str, ca: str) -> None:
    """Watch until stdin ends."""
    watcher = Watcher(int(port), token, ssl.create_default_context(cafile=ca) if ca else None)
    for line in sys.stdin:
        word, *arguments = line.split()
        answer = (watcher.mark if word == "mark" else watcher.finish)(int(arguments[0]))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    {"trader": run_trader, "watcher": run_watcher}[sys.argv[1]](*sys.argv[2:])
