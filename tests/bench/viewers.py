"""Viewers: a process with many connections that count lines, and one that reads every line with care.

Owns: the viewer side of every measurement. It must not know which server it is connected to, beyond the dialect of
its stream. `fanout` starts `python viewers.py` and asks it with the commands at the end. Read `peers` next.

The crowd counts lines by their marker in the raw bytes, without parsing. It answers no pings: no measurement lasts as
long as a server's ping timeout. The probe is one connection that parses every frame and every line: it finds lines
that are missing, repeated or out of order, checks that logrelay's ids rise by one, notes when it had each line, and
answers pings.
"""

from __future__ import annotations

import contextlib
import resource
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parent))

from lines import marker, masked
from processes import serve_commands
from streams import CLOSE, PING, PONG, Connection, NatsMessages

SPARE_FILES = 64
"""File descriptors a viewer process keeps for itself."""
STORM_THREADS = 8
"""Handshakes a storm has under way at once: at 200 a second each may take 40 ms before the storm falls behind."""


class Crowd:
    """Many viewers that count."""

    def __init__(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._most = hard - SPARE_FILES
        self._viewers: dict[int, Connection] = {}
        self._poll = select.epoll()

    def open(self, port: int, paths: list[str], **options: Any) -> dict[str, Any]:
        """Connect one viewer per path, in order, on top of those that are there."""
        if len(self._viewers) + len(paths) > self._most:
            raise RuntimeError(f"{len(paths)} viewers are more than the {self._most} files this process may open")
        for path in paths:
            viewer = Connection(port, path, **options)
            self._viewers[viewer.socket.fileno()] = viewer
            self._poll.register(viewer.socket.fileno(), select.EPOLLIN)
        return {"open": len(self._viewers)}

    def close(self) -> dict[str, Any]:
        """Close all connections at once, without a word."""
        for viewer in self._viewers.values():
            viewer.socket.close()  # a closed socket leaves the epoll set by itself
        self._viewers = {}
        return {}

    def settle(self, seconds: float, limit: float) -> dict[str, Any]:
        """Read what servers say on connect, until nothing has come for `seconds`."""
        end = time.monotonic() + limit
        while (ready := self._poll.poll(seconds)) and time.monotonic() < end:
            for fd, _ in ready:
                data = self._read(fd)
                if self._viewers[fd].deflate:  # the window of what follows
                    self._viewers[fd].frames.feed(data)
        return {"ended": sum(1 for viewer in self._viewers.values() if viewer.ended)}

    def count(self, cell: int, expect: int | list[int], limit: float) -> dict[str, Any]:
        """Read until each viewer has its `expect` lines of the cell, or for `limit` seconds."""
        mark = marker(cell)
        viewers = list(self._viewers.values())
        for index, viewer in enumerate(viewers):
            viewer.begin(expect if isinstance(expect, int) else expect[index])
        waiting = sum(1 for viewer in viewers if viewer.expected and not viewer.ended)
        end, first_ns, last_ns = time.monotonic() + limit, 0, 0
        while waiting and (left := end - time.monotonic()) > 0:
            for fd, _ in self._poll.poll(left):
                viewer = self._viewers[fd]
                data = self._read(fd)
                if viewer.ended:
                    waiting -= viewer.count < viewer.expected
                    continue
                done = data and viewer.count_lines(data, mark)
                if not first_ns and viewer.count:
                    first_ns = time.perf_counter_ns()
                if done:
                    waiting -= 1
                    last_ns = time.perf_counter_ns()
        return {
            "first_ns": first_ns,
            "last_ns": last_ns,
            "bytes": sum(viewer.bytes for viewer in viewers),
            "lines": sum(viewer.count for viewer in viewers),
            "missing": sum(max(0, viewer.expected - viewer.count) for viewer in viewers),
            "surplus": sum(max(0, viewer.count - viewer.expected) for viewer in viewers),
            "ended": sum(1 for viewer in viewers if viewer.ended),
        }

    def _read(self, fd: int) -> bytes:
        viewer = self._viewers[fd]
        data = viewer.read()
        if viewer.ended:
            self._poll.unregister(fd)
        return data

    def storm(self, port: int, path: str, count: int, seconds: float, **options: Any) -> dict[str, Any]:
        """Connect `count` viewers evenly over `seconds`; drop each as soon as its handshake is done."""
        start, failures, took = time.monotonic(), list[str](), list[float]()

        def some(first: int) -> None:
            for index in range(first, count, STORM_THREADS):
                time.sleep(max(0.0, start + index * seconds / count - time.monotonic()))
                began = time.monotonic()
                try:
                    Connection(port, path, **options).socket.close()
                except OSError as error:
                    failures.append(str(error))
                took.append(time.monotonic() - began)

        threads = [threading.Thread(target=some, args=(index,)) for index in range(STORM_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {
            "failed": len(failures),
            "why": failures[0] if failures else "",
            "slowest_s": max(took),
            "seconds": time.monotonic() - start,
        }


class Probe:
    """One viewer that reads every line."""

    def __init__(self) -> None:
        self._viewer: Connection | None = None
        self._nats: NatsMessages | None = None
        self._last_id: tuple[str, int] | None = None

    def open(self, port: int, path: str, **options: Any) -> dict[str, Any]:
        """Connect."""
        self.close()
        self._nats = NatsMessages() if options.get("dialect") == "nats" else None
        self._viewer = Connection(port, path, **options)
        return {}

    def close(self) -> dict[str, Any]:
        """Close without a word."""
        if self._viewer is not None:
            self._viewer.socket.close()
        self._viewer = None
        self._last_id = None
        return {}

    def watch(
        self, cell: int, expect: int, limit: float, traders: int = 1, ids: bool = False, first_n: int = 0
    ) -> dict[str, Any]:
        """Read until the `expect` lines of the cell are here, or for `limit` seconds.

        Line `n` comes from trader `n % traders`; each trader's lines must come in order. With `ids`, every line's id
        (notices too) must be one more than the id before.
        """
        viewer = self._viewer
        if viewer is None:
            raise RuntimeError("the probe is not connected")
        viewer.begin(expect)
        next_n = {(first_n + t) % traders: first_n + t for t in range(traders)}
        latencies: list[int] = []
        disorder = holes = repeated = 0
        first_line_id = last_line_id = ""
        end, last_ns = time.monotonic() + limit, 0
        while viewer.count < expect and not viewer.ended and (left := end - time.monotonic()) > 0:
            select.select([viewer.socket], [], [], left)
            data = viewer.read()
            now = time.perf_counter_ns()
            for line in self._lines(viewer, data):
                if line.get("type") != "log":
                    continue
                if ids:
                    epoch, _, seq = line["id"].rpartition("-")
                    holes += self._last_id is not None and self._last_id != (epoch, int(seq) - 1)
                    self._last_id = (epoch, int(seq))
                context = line["context"]
                if context.get("cell") != cell:
                    continue
                n = context["n"]
                due = next_n[n % traders]
                repeated += n < due
                disorder += n > due
                next_n[n % traders] = max(due, n + traders)
                viewer.count += 1
                last_ns, last_line_id = now, line["id"]
                first_line_id = first_line_id or last_line_id
                if context["ns"]:
                    latencies.append(now - context["ns"])
        return {
            "last_ns": last_ns,
            "bytes": viewer.bytes,
            "lines": viewer.count,
            "missing": max(0, expect - viewer.count),
            "surplus": repeated,
            "disorder": disorder,
            "holes": holes,
            "ended": int(bool(viewer.ended)),
            "first_id": first_line_id,
            "last_id": last_line_id,
            "latencies_ns": latencies,
        }

    def _lines(self, viewer: Connection, data: bytes) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for opcode, payload in viewer.frames.feed(data):
            if opcode == PING:
                with contextlib.suppress(OSError):
                    viewer.socket.send(masked(PONG, payload))
            elif opcode == CLOSE:
                viewer.ended = f"close {payload[:2].hex()}"
            elif self._nats is not None:
                out.extend(orjson.loads(message) for message in self._nats.feed(payload))
            else:
                message = orjson.loads(payload)
                out.extend(message if isinstance(message, list) else [message])
        return out


def main() -> None:
    """Answer commands from stdin until it ends."""
    crowd, probe = Crowd(), Probe()
    serve_commands(
        {
            "open": crowd.open,
            "close": crowd.close,
            "settle": crowd.settle,
            "count": crowd.count,
            "storm": crowd.storm,
            "probe": probe.open,
            "unprobe": probe.close,
            "watch": probe.watch,
        }
    )


if __name__ == "__main__":
    main()
