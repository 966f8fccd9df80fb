"""Machines joined by JetStream: one edge, one nats-server, one hub relay, and a viewer of the hub relay.

Owns: the section `machines`: how late a lone line is, how many lines a second go through, what each process needs of
the processor and of memory. It must not know how samples are shown. `workloads` calls it; read `report` next.

Everything runs on this machine, so edge, server, hub relay, trader and viewer share its cores: lines per second depend
on how many there are and on what else runs, CPU time per line hardly does. So each cell has both.

Cells, in the order in which they run:

    lone       lines at LONE_RATE, from the log call at the edge to a viewer of the hub relay
    live       lines as fast as the edge takes them, until the viewer of the hub relay has the last one
    backlog    the edge's journal was filled while nobody forwarded; then the edge starts, and the hub relay gets all
    rebuild    another hub relay, with an empty journal, reads the same stream from its beginning
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peers import HOST, LogRelay, Nats, Server, free_port
from processes import BenchError, Fleet, cpu_seconds, peak_bytes

LONE_RATE = 20
LIVE_TRADERS = 4
FEED_LINES = 100_000
"""Fed at once: the feeders pack what they send beforehand, and a million lines would be 200 MB."""
STORE_SECONDS = 60.0
"""The longest an edge takes for FEED_LINES."""
LEAST_RATE = 2_000
"""Lines a second below which a cell is given up."""
WAKE_SECONDS = 60.0
"""For edge and hub relay to find the server, and for the first lines."""
SETTLE_SECONDS = 0.5
"""Edge and hub relay have done what belongs to the lines just sent: acknowledgements, commits, checkpoints."""
EDGE_NAME = "bench"
CATCH_UP_PATH = "/?tail=100000"
"""A viewer that wants what came before it had connected as well: the most that one can ask for."""

Sample = dict[str, Any]
Load = Callable[[str], Any]


class JetStream(Nats):
    """nats-server with JetStream, its files in its own folder."""

    name = "jetstream"

    def command(self, folder: Path, deflate: bool) -> list[str]:
        self.port = free_port()
        self.address = f"{HOST}:{self.port}"
        config = folder / "nats.conf"
        config.write_text(f'listen: "{self.address}"\njetstream {{ store_dir: "{folder / "store"}", max_file: 8GB }}\n')
        return [self._program(), "--config", str(config)]


class Edge(LogRelay):
    """A relay that forwards its lines; without a URL one that only keeps them."""

    name = "edge"

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def command(self, folder: Path, deflate: bool) -> list[str]:
        forward = ["--forward", self._url, "--edge-name", EDGE_NAME] if self._url else []
        return [*super().command(folder, deflate), *forward]


class Hub(LogRelay):
    """A relay that collects."""

    name = "hub"

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def command(self, folder: Path, deflate: bool) -> list[str]:
        return [*super().command(folder, deflate), "--collect", self._url]


class Machines:
    """The cells. `load` returns the load process of a role (`workloads.Bench.load`), `next_cell` a cell's number."""

    def __init__(self, fleet: Fleet, folder: Path, load: Load, next_cell: Callable[[], int], answer_s: float) -> None:
        self._fleet, self._folder, self._load, self._next_cell = fleet, folder, load, next_cell
        self._answer_s = answer_s
        self._server = JetStream()

    def missing(self) -> str:
        """Say why nothing can be measured here; "" when it can."""
        return self._server.missing()

    def measure(self, *, lone: int, live: int, backlog: int, say: Callable[[str], None]) -> list[Sample]:
        """Measure every cell with so many lines. Raises BenchError."""
        with ExitStack() as stack:
            self._start(stack, self._server, "nats")
            url = f"nats://{self._server.address}"
            hub, edge = self._start(stack, Hub(url), "hub"), self._start(stack, Edge(url), "edge")
            three = {"edge": edge, "nats": self._server, "hub": hub}
            say(f"machines, {LONE_RATE} lines/s")
            samples = [self._cell("lone", three, hub, edge, lone, rate=LONE_RATE)]
            say(f"machines, {live:,} lines as they come")
            samples.append(self._cell("live", three, hub, edge, live))
            edge.stop()
            hub.stop()
        with ExitStack() as stack:
            say(f"machines, filling an edge with {backlog:,} lines")
            cell, folder = self._next_cell(), self._folder / "machines-filled"
            self._fill(stack, folder, cell, backlog)
            self._server = JetStream()
            self._start(stack, self._server, "nats2")
            url = f"nats://{self._server.address}"
            hub = self._start(stack, Hub(url), "hub2")
            say(f"machines, {backlog:,} lines from an edge's journal")
            edge, again = Edge(url), Hub(url)
            stack.callback(edge.stop)
            stack.callback(again.stop)
            parts = {"edge": edge, "nats": self._server, "hub": hub}
            samples.append(self._catch_up("backlog", parts, edge, folder, cell, backlog))
            hub.stop()
            say(f"machines, {backlog:,} lines from the stream")
            parts = {"nats": self._server, "hub": again}
            samples.append(self._catch_up("rebuild", parts, again, self._folder / "machines-hub3", cell, backlog))
        return samples

    def _start(self, stack: ExitStack, server: Any, name: str) -> Any:
        server.start(self._fleet, self._folder / f"machines-{name}")
        stack.callback(server.stop)
        return server

    def _fill(self, stack: ExitStack, folder: Path, cell: int, lines: int) -> None:
        """Fill a journal while nobody forwards: what an edge has after a network that was gone."""
        relay = Edge("")
        relay.start(self._fleet, folder)
        stack.callback(relay.stop)
        feeders = self._load("feeders")
        feeders.ask("open", self._answer_s, kind="wire", address=relay.address, traders=LIVE_TRADERS)
        for first in range(0, lines, FEED_LINES):
            feeders.ask("blast", STORE_SECONDS, cell=cell, count=min(FEED_LINES, lines - first))
        feeders.ask("close", self._answer_s)
        relay.stop()

    def _cell(
        self, what: str, parts: Mapping[str, Server], hub: Server, edge: Server, lines: int, rate: int = 0
    ) -> Sample:
        crowd, probe, feeders = self._load("crowd"), self._load("probe"), self._load("feeders")
        traders = 1 if rate else LIVE_TRADERS
        feeders.ask("open", self._answer_s, kind="wire", address=edge.address, traders=traders)
        options = {"port": hub.port}
        # One line through everything: edge and hub relay are connected, and the commit path is warm.
        crowd.ask("open", self._answer_s, paths=[hub.path], **options)
        cell = self._next_cell()
        crowd.tell("count", cell=cell, expect=20, limit=WAKE_SECONDS)
        feeders.ask("pace", WAKE_SECONDS, cell=cell, count=20, rate=100)
        if crowd.answer(WAKE_SECONDS + self._answer_s)["missing"]:
            raise BenchError("the first lines did not come to the hub relay")
        limit = (lines / rate if rate else 0) + WAKE_SECONDS + lines / LEAST_RATE
        cell = self._next_cell()
        if rate:
            probe.ask("probe", self._answer_s, path=hub.path, **options)
            probe.tell("watch", cell=cell, expect=lines, limit=limit, traders=1, ids=True)
        crowd.tell("count", cell=cell, expect=lines, limit=limit)
        before = {name: cpu_seconds(part.pids()) for name, part in parts.items()}
        how = {"rate": rate} if rate else {}
        sent = feeders.ask("pace" if rate else "blast", limit + self._answer_s, cell=cell, count=lines, **how)
        counted = crowd.answer(limit + self._answer_s)
        watched = probe.answer(limit + self._answer_s) if rate else None
        sample = self._sample(what, parts, before, counted, (counted["last_ns"] - sent["start_ns"]) / 1e9, lines)
        sample["acked_s"] = (sent["acked_ns"] - sent["start_ns"]) / 1e9
        if watched is not None:
            sample["latencies_us"] = [round(ns / 1000) for ns in watched["latencies_ns"]]
            bad = {word: watched[word] for word in ("missing", "surplus", "disorder", "holes") if watched[word]}
            sample["faults"] = str(bad or sample["faults"])
            probe.ask("unprobe", self._answer_s)
        for child in (crowd, feeders):
            child.ask("close", self._answer_s)
        return sample

    def _catch_up(
        self, what: str, parts: Mapping[str, Server], late: Server, folder: Path, cell: int, lines: int
    ) -> Sample:
        """Measure from the start of `late`, in `folder`, to the last line at the viewer of the hub relay."""
        crowd, hub = self._load("crowd"), parts["hub"]
        limit = WAKE_SECONDS + lines / LEAST_RATE
        before = {name: 0.0 if part is late else cpu_seconds(part.pids()) for name, part in parts.items()}
        began = time.perf_counter_ns()
        if late is hub:
            late.start(self._fleet, folder)
        crowd.ask("open", self._answer_s, port=hub.port, paths=[CATCH_UP_PATH])
        crowd.tell("count", cell=cell, expect=lines, limit=limit)
        if late is not hub:
            late.start(self._fleet, folder)
        counted = crowd.answer(limit + self._answer_s)
        sample = self._sample(what, parts, before, counted, (counted["last_ns"] - began) / 1e9, lines)
        crowd.ask("close", self._answer_s)
        return sample

    def _sample(
        self,
        what: str,
        parts: Mapping[str, Server],
        before: Mapping[str, float],
        counted: Mapping[str, int],
        seconds: float,
        lines: int,
    ) -> Sample:
        time.sleep(SETTLE_SECONDS)
        flowing = (counted["last_ns"] - counted["first_ns"]) / 1e9
        used = {name: cpu_seconds(part.pids()) - before[name] for name, part in parts.items()}
        faults = {word: counted[word] for word in ("missing", "surplus", "ended") if counted[word]}
        return {
            "section": "machines",
            "server": LogRelay.name,
            "cell": what,
            "lines": lines,
            "seconds": seconds,
            "lines_per_s": counted["lines"] / seconds if seconds > 0 else 0.0,
            "flowing_lines_per_s": counted["lines"] / flowing if flowing > 0 else 0.0,
            "cpu_us": {name: value / lines * 1e6 for name, value in used.items()},
            "peak_mb": {name: peak_bytes(part.pids()) / 1e6 for name, part in parts.items()},
            "faults": str(faults or ""),
        }
