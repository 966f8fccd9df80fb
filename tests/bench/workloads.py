"""What is measured: one method per section of the report, each giving samples.

Owns: the workloads and the arithmetic from clocks and counts to a sample. It must not know how samples are shown.
`fanout` calls the sections round by round; read `report` next.

One measurement is a *cell*: a server, its viewers, a number of lines at a rate. All servers get each cell one after the
other, in an order that turns from round to round, so that a slow spell of the machine hits each of them in some round.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lines import STRATEGIES
from machines import Machines
from peers import HERE, SERVERS, LogRelay, Server
from processes import BenchError, CallCounter, Child, Fleet, cpu_seconds, rss_bytes, sleeps

MAX = 0
"""The rate that means: as fast as the server takes them."""
ANSWER_SECONDS = 60.0
"""The longest any command to viewers or traders takes, above the time it was given to run."""
DELIVER_SECONDS = 20.0
"""How long after the last line was sent viewers wait for it; what is not there then counts as missing."""
AFTERWORK_SECONDS = 0.03
"""Between the last delivery and the reading of the CPU clock: acks and timers that belong to the lines just sent."""
QUIET_SECONDS = 0.1
"""Viewers are connected when nothing has come for so long."""
BEHIND = 1.5
"""A paced cell that took longer than so many times its offered time, and more than BEHIND_SECONDS longer, is marked."""
BEHIND_SECONDS = 0.25
Sample = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The sizes of a run."""

    rounds: int
    minutes: float
    """No new cell is begun after so many minutes."""
    viewers: tuple[int, ...]
    lines: dict[int, dict[int, int]]
    """Lines per cell by rate (lines/s, MAX) and number of viewers; missing: that cell is left out."""
    latency: dict[int, int]
    """Lines per cell by rate."""
    day_lines: dict[int, int]
    """Lines per cell by rate on an ordinary day."""
    crowd: int
    """Viewers where a section has one number of them."""
    crowd_lines: dict[int, int]
    """Lines per cell by rate for those sections."""
    compress_lines: int
    stalled_viewers: int
    resume_lines: int
    idle_viewers: int
    idle_seconds: float
    storm_viewers: int
    storm_seconds: float
    machines_lone: int
    machines_live: int
    machines_backlog: int


FULL = Plan(
    rounds=3,
    minutes=17,
    viewers=(1, 10, 100, 1000),
    lines={
        50: {1: 75, 10: 75, 100: 75, 1000: 50},
        1000: {1: 1000, 10: 1000, 100: 1000, 1000: 300},
        MAX: {1: 30_000, 10: 20_000, 100: 5_000, 1000: 500},
    },
    latency={10: 30, 1000: 1500},
    day_lines={1: 4, 10: 30, 50: 100},
    crowd=100,
    crowd_lines={1000: 1500, MAX: 5_000},
    compress_lines=300,
    stalled_viewers=50,
    resume_lines=100_000,
    idle_viewers=1000,
    idle_seconds=60,
    storm_viewers=2000,
    storm_seconds=10,
    machines_lone=200,
    machines_live=200_000,
    machines_backlog=1_000_000,
)
QUICK = Plan(
    rounds=1,
    minutes=1.8,
    viewers=(1, 10, 100, 1000),
    lines={
        50: {1: 25, 10: 25, 100: 25},
        1000: {1: 500, 10: 500, 100: 300},
        MAX: {1: 10_000, 10: 5_000, 100: 1_000, 1000: 100},
    },
    latency={10: 10, 1000: 500},
    day_lines={10: 10, 50: 50},
    crowd=100,
    crowd_lines={1000: 500, MAX: 2_000},
    compress_lines=100,
    stalled_viewers=10,
    resume_lines=20_000,
    idle_viewers=200,
    idle_seconds=3,
    storm_viewers=400,
    storm_seconds=2,
    machines_lone=40,
    machines_live=50_000,
    machines_backlog=100_000,
)
COMPRESS_RATE = 200
"""Lines a second in the compression section: what a server that compresses for each of 100 viewers apart can do."""
MANY_TRADERS = 8
DAY_VIEWERS = (1, 3)
DAY_WARM_LINES, DAY_WARM_RATE = 60, 100
"""Before an ordinary day is measured: logrelay makes a commit without its second thread once some have been quick."""
MEMORY_VIEWERS = 10
STORM_RATE = 100
STALLED_LINES = 20_000
"""Some 5 MB for each viewer: more than the kernel holds between two sockets, so the rest is the server's problem."""
STALLED_SECONDS = 15.0
"""The longest a server may take to accept them; none that accepts them takes more than 5."""


@dataclass
class Group:
    """Viewers and traders connected to one server."""

    server: Server
    viewers: int
    traders: int
    ids: bool
    step: int = 1
    """The probe sees every step-th line."""


@dataclass
class Bench:
    """One run: the servers, the processes around them, and the samples so far."""

    plan: Plan
    fleet: Fleet
    folder: Path
    names: list[str]
    say: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What went wrong, a sentence each."""
    absent: dict[str, str] = field(default_factory=dict)
    """Servers that cannot run here, and why."""
    versions: dict[str, str] = field(default_factory=dict)
    late: set[tuple[int, str]] = field(default_factory=set)
    """(round, section) that time ran out for."""
    round: int = 0
    section: str = ""

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._cell = 0
        self._starts = 0
        self._running: dict[tuple[str, bool], Server] = {}
        self._load: dict[str, Child] = {}

    # --- the processes ------------------------------------------------------------------------------------------

    def find(self) -> None:
        """Find out which servers can run here."""
        for kind in SERVERS:
            if kind.name in self.names:
                self.say(f"looking for {kind.name}")
                if why := kind().missing():
                    self.absent[kind.name] = why
                else:
                    self.versions[kind.name] = kind().version()

    def servers(self, only: str = "") -> Iterator[str]:
        """Yield the names of the servers that run here, the first one another in each round, until time is up."""
        present = [kind.name for kind in SERVERS if kind.name in self.versions and (not only or kind.name == only)]
        turn = self.round % len(present) if present else 0
        for name in present[turn:] + present[:turn]:
            if time.monotonic() - self._began > self.plan.minutes * 60:
                self.late.add((self.round, self.section))
                return
            yield name

    def fresh(self, name: str, *, deflate: bool = False) -> Server:
        """Start one server in a folder of its own."""
        self._starts += 1
        server = next(kind for kind in SERVERS if kind.name == name)()
        server.start(self.fleet, self.folder / f"{self._starts}-{name}", deflate=deflate)
        return server

    def server(self, name: str, *, deflate: bool = False) -> Server:
        """Return the server that serves the whole run; start it when it does not run yet."""
        if (name, deflate) not in self._running:
            self._running[name, deflate] = self.fresh(name, deflate=deflate)
        return self._running[name, deflate]

    def load(self, role: str) -> Child:
        """Return the load process of that role; `feeders...` are traders, all others viewers."""
        if role not in self._load:
            script = "feeders.py" if role.startswith("feeders") else "viewers.py"
            self._load[role] = Child(self.fleet, role, [sys.executable, str(HERE / script)])
        return self._load[role]

    def recover(self) -> None:
        """After a failure: end all load processes and every server, so that the next cell finds fresh ones."""
        for child in self._load.values():
            child.stop()
        for server in self._running.values():
            server.stop()
        self._load, self._running = {}, {}

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Turn a failure into a sentence of the report and go on."""
        self.say(what)
        try:
            yield
        except BenchError as error:
            self.problems.append(f"{what}, run {self.round + 1}: {error}")
            self.recover()

    def _next_cell(self) -> int:
        self._cell += 1
        return self._cell

    # --- one cell -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def viewing(
        self,
        name: str,
        viewers: int,
        *,
        path: Callable[[int], str] | None = None,
        deflate: bool = False,
        subprotocol: str = "",
        traders: int = 1,
        kind: str = "",
        ids: bool = True,
        step: int = 1,
    ) -> Iterator[Group]:
        """Connect traders and viewers: the crowd, and one probe in its middle so that its place favours nobody."""
        server = self.server(name, deflate=deflate)
        crowd, probe, feeders = self.load("crowd"), self.load("probe"), self.load("feeders")
        options = {"dialect": server.dialect, "deflate": deflate, "subprotocol": subprotocol, "port": server.port}
        paths = [path(index) if path else server.path for index in range(viewers)]
        middle = viewers // 2
        feeders.ask("open", ANSWER_SECONDS, kind=kind or server.trader, address=server.address, traders=traders)
        crowd.ask("open", ANSWER_SECONDS, paths=paths[:middle], **options)
        probe.ask("probe", ANSWER_SECONDS, path=paths[middle], **options)
        crowd.ask("open", ANSWER_SECONDS, paths=paths[middle + 1 :], **options)
        crowd.ask("settle", ANSWER_SECONDS, seconds=QUIET_SECONDS, limit=DELIVER_SECONDS)
        yield Group(server, viewers, traders, ids and server.ids, step)
        for child, do in ((crowd, "close"), (probe, "unprobe"), (feeders, "close")):
            child.ask(do, ANSWER_SECONDS)

    def cell(
        self, group: Group, section: str, lines: int, rate: int, *, count_calls: bool = False, **tags: Any
    ) -> Sample:
        """Send the lines, wait until all viewers have them, and return the sample (also kept, unless section is "")."""
        self._next_cell()
        crowd, probe, feeders = self.load("crowd"), self.load("probe"), self.load("feeders")
        share = lines // group.step
        offered = lines / rate if rate else 0.0
        limit = offered + DELIVER_SECONDS
        crowd.tell("count", cell=self._cell, expect=share, limit=limit)
        probe.tell(
            "watch",
            cell=self._cell,
            expect=share,
            limit=limit,
            traders=max(group.traders, group.step),
            ids=group.ids,
        )
        pids = group.server.pids()
        counter = CallCounter(self.fleet, pids) if count_calls else None
        asleep, before = sleeps(pids), cpu_seconds(pids)
        how = {"rate": rate} if rate else {}
        sent = feeders.ask("pace" if rate else "blast", limit + ANSWER_SECONDS, cell=self._cell, count=lines, **how)
        counts = [crowd.answer(limit + ANSWER_SECONDS), probe.answer(limit + ANSWER_SECONDS)]
        time.sleep(AFTERWORK_SECONDS)
        used, asleep = cpu_seconds(pids) - before, sleeps(pids) - asleep
        calls = counter.stop() if counter is not None else None
        took = (max(*(count["last_ns"] for count in counts), sent["acked_ns"]) - sent["start_ns"]) / 1e9
        delivered = sum(count["lines"] for count in counts)
        sample: Sample = {
            "section": section,
            "server": group.server.name,
            "viewers": group.viewers,
            "rate": rate,
            **tags,
            "round": self.round,
            "lines": lines,
            "cpu_us_delivered": used / max(1, delivered) * 1e6,
            "cpu_us_in": used / lines * 1e6,
            "sleeps_per_line": asleep / lines,
            "lines_per_s": lines / took,
            "seconds": took,
            "bytes_per_1000": sum(count["bytes"] for count in counts) / max(1, delivered) * 1000,
            "behind": bool(rate) and took > max(offered * BEHIND, offered + BEHIND_SECONDS),
            "first_id": counts[1]["first_id"],
            "last_id": counts[1]["last_id"],
            "latencies_us": [round(ns / 1000) for ns in counts[1]["latencies_ns"]],
        }
        if calls is not None:
            sample["calls_per_line"] = calls / lines
        if sample["latencies_us"]:
            sample["p50_ms"] = sorted(sample["latencies_us"])[len(sample["latencies_us"]) // 2] / 1000
        sample["faults"] = said = faults_of(counts, sent["rejected"])
        if section:
            kept = {key: value for key, value in sample.items() if key != "latencies_us" or section == "latency"}
            self.samples.append(kept)
            if said:
                pace = f"{rate}/s" if rate else "full speed"
                self.problems.append(
                    f"{section}, {group.server.name}, {group.viewers} viewers, {pace}, run {self.round + 1}: {said}"
                )
        return sample

    def run(self, sections: list[str]) -> None:
        """Warm up, then take every section once per round."""
        self.section = "warm-up"
        if sections != ["machines"]:  # which has servers of its own
            self.warm_up()
        for self.round in range(self.plan.rounds):  # noqa: B020  (the round is what everything below looks at)
            for self.section in sections:
                getattr(self, self.section)()

    def not_run(self, sections: list[str], interrupted: bool) -> list[str]:
        """Say which sections have fewer runs than planned, or none, for want of time."""
        out = ["interrupted: only a part was measured"] if interrupted else []
        for section in sections:
            missed = sorted(number + 1 for number, name in self.late if name == section)
            if missed:
                out.append(f"{section}: run {', '.join(map(str, missed))} not begun or not finished, time was up")
        return out

    # --- the sections -------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Start every server and send it lines that nobody counts: caches, allocators and just-in-time compilers."""
        for name in list(self.servers()):
            try:
                self.server(name)
            except BenchError as error:
                self.absent[name] = str(error)
                del self.versions[name]
                continue
            with self.guarded(f"warm-up, {name}"), self.viewing(name, 10) as group:
                self.cell(group, "", 2000, MAX)

    def footprint(self) -> None:
        """Start-up time, memory with ten viewers, memory per idle viewer: each from a fresh process."""
        for name in self.servers():
            with self.guarded(f"footprint, {name}"):
                server = self.fresh(name)
                crowd, feeders = self.load("crowd"), self.load("feeders")
                options = {"dialect": server.dialect, "port": server.port}
                try:
                    feeders.ask("open", ANSWER_SECONDS, kind=server.trader, address=server.address)
                    crowd.ask("open", ANSWER_SECONDS, paths=[server.path] * MEMORY_VIEWERS, **options)
                    self._cell += 1
                    crowd.tell("count", cell=self._cell, expect=200, limit=DELIVER_SECONDS)
                    feeders.ask("pace", ANSWER_SECONDS, cell=self._cell, count=200, rate=1000)
                    crowd.answer(ANSWER_SECONDS)
                    few = rss_bytes(server.pids())
                    crowd.ask("open", ANSWER_SECONDS, paths=[server.path] * self.plan.idle_viewers, **options)
                    crowd.ask("settle", ANSWER_SECONDS, seconds=QUIET_SECONDS, limit=DELIVER_SECONDS)
                    many = rss_bytes(server.pids())
                    crowd.ask("close", ANSWER_SECONDS)
                    feeders.ask("close", ANSWER_SECONDS)
                finally:
                    server.stop()
                self.samples.append(
                    {
                        "section": "footprint",
                        "server": name,
                        "round": self.round,
                        "start_ms": server.start_seconds * 1000,
                        "rss_mb": few / 1e6,
                        "viewer_kb": (many - few) / self.plan.idle_viewers / 1e3,
                    }
                )

    def idle(self) -> None:
        """CPU time of a server with ten idle viewers and a quiet trader; all servers side by side, they do nothing."""
        if self.round:
            return
        with self.guarded("idle"):
            quiet = [self.server(name) for name in self.servers()]
            crowd = self.load("crowd")
            for server in quiet:
                feeders = self.load(f"feeders-{server.name}")
                feeders.ask("open", ANSWER_SECONDS, kind=server.trader, address=server.address)
                paths = [server.path] * MEMORY_VIEWERS
                crowd.ask("open", ANSWER_SECONDS, paths=paths, port=server.port, dialect=server.dialect)
            crowd.ask("settle", ANSWER_SECONDS, seconds=QUIET_SECONDS, limit=DELIVER_SECONDS)
            before = [(cpu_seconds(server.pids()), sleeps(server.pids())) for server in quiet]
            time.sleep(self.plan.idle_seconds)
            for server, (used, asleep) in zip(quiet, before, strict=True):
                pids, seconds = server.pids(), self.plan.idle_seconds
                self.samples.append(
                    {
                        "section": "idle",
                        "server": server.name,
                        "round": self.round,
                        "cpu_ms_per_s": (cpu_seconds(pids) - used) / seconds * 1000,
                        "wakes_per_s": (sleeps(pids) - asleep) / seconds,
                        "idle_rss_mb": rss_bytes(pids) / 1e6,
                    }
                )
            crowd.ask("close", ANSWER_SECONDS)
            for server in quiet:
                self._load.pop(f"feeders-{server.name}").stop()

    def fanout(self) -> None:
        """CPU per delivered line and lines per second, by viewers and rate."""
        for viewers in self.plan.viewers:
            for name in self.servers():
                with self.guarded(f"fanout, {viewers} viewer(s), {name}"), self.viewing(name, viewers) as group:
                    for rate, sizes in self.plan.lines.items():
                        if viewers in sizes:
                            self.cell(group, "fanout", sizes[viewers], rate)

    def day(self) -> None:
        """A line now and then: what each costs when no other is near."""
        if self.round:
            return
        for viewers in DAY_VIEWERS:
            for name in self.servers():
                with self.guarded(f"day, {viewers} viewer(s), {name}"), self.viewing(name, viewers) as group:
                    self.cell(group, "", DAY_WARM_LINES, DAY_WARM_RATE)
                    for rate, lines in self.plan.day_lines.items():
                        self.cell(group, "day", lines, rate, count_calls=True)

    def traders(self) -> None:
        """The same line count from eight traders at once."""
        for name in self.servers():
            with self.guarded(f"traders, {name}"), self.viewing(name, 10, traders=MANY_TRADERS) as group:
                self.cell(group, "traders", self.plan.lines[1000][10], 1000, traders=MANY_TRADERS)
                self.cell(group, "traders", self.plan.lines[MAX][10], MAX, traders=MANY_TRADERS)

    def latency(self) -> None:
        """Log call to viewer."""
        for viewers in (1, self.plan.crowd):
            for name in self.servers():
                kinds = [""] if name != LogRelay.name else ["", *(["robo"] if robo_trader_ships() else [])]
                for kind in kinds:
                    what = f"latency, {viewers} viewer(s), {name} {kind}".rstrip()
                    with self.guarded(what), self.viewing(name, viewers, kind=kind) as group:
                        for rate, lines in self.plan.latency.items():
                            self.cell(group, "latency", lines, rate, kind=kind)

    def filters(self) -> None:
        """What different filters cost: only logrelay has them."""
        every = LogRelay.path
        variants: dict[str, Callable[[int], str]] = {
            "no filter": lambda _: every,
            "the same filter": lambda _: f"{every}&level=INFO&source=robo_trader.*",
            "a filter each, all lines pass": lambda i: f"{every}&level=INFO&source=robo_trader.*,other{i}.*",
            "a filter each, own 1 in 100": lambda i: f"{every}&where={quote(f'strategy=s{i % STRATEGIES:02d}')}",
        }
        for variant, path in variants.items():
            step = STRATEGIES if "own" in variant else 1
            for name in self.servers(LogRelay.name):
                with (
                    self.guarded(f"filters, {variant}"),
                    self.viewing(name, self.plan.crowd, path=path, ids=step == 1, step=step) as group,
                ):
                    for rate, lines in self.plan.crowd_lines.items():
                        self.cell(group, "filters", lines, rate, variant=variant)

    def batch(self) -> None:
        """The subprotocol logrelay.v1.batch against one message per line."""
        for variant in ("", "logrelay.v1.batch"):
            for name in self.servers(LogRelay.name):
                what = f"batch, {variant or 'a message per line'}"
                with self.guarded(what), self.viewing(name, self.plan.crowd, subprotocol=variant) as group:
                    for rate, lines in self.plan.crowd_lines.items():
                        self.cell(group, "batch", lines, rate, variant=variant or "a message per line")

    def compress(self) -> None:
        """CPU and bytes on the wire with and without permessage-deflate."""
        for deflate in (False, True):
            for name in self.servers():
                what = f"compress, {'on' if deflate else 'off'}, {name}"
                with self.guarded(what), self.viewing(name, self.plan.crowd, deflate=deflate) as group:
                    self.cell(group, "compress", self.plan.compress_lines, COMPRESS_RATE, deflate=deflate)

    def stalled(self) -> None:
        """Viewers stop reading while lines flow, then read on: what that costs in memory and time, what is lost."""
        if self.round:
            return
        for name in self.servers():
            old = self._running.pop((name, False), None)
            if old is not None:
                old.stop()  # a process that has had its peaks would not grow again
            with self.guarded(f"stalled, {name}"), self.viewing(name, self.plan.stalled_viewers) as group:
                crowd, probe, feeders, pids = (
                    self.load("crowd"),
                    self.load("probe"),
                    self.load("feeders"),
                    group.server.pids(),
                )
                self._cell += 1
                memory, before = rss_bytes(pids), cpu_seconds(pids)
                feeders.tell("blast", cell=self._cell, count=STALLED_LINES)
                if not feeders.answered(STALLED_SECONDS):
                    raise BenchError(f"did not take {STALLED_LINES:,} lines within {STALLED_SECONDS:.0f} s")
                feeders.answer(ANSWER_SECONDS)
                memory = rss_bytes(pids) - memory
                began = time.perf_counter_ns()
                wanted = {"cell": self._cell, "expect": STALLED_LINES, "limit": DELIVER_SECONDS}
                crowd.tell("count", **wanted)
                probe.tell("watch", ids=group.ids, **wanted)
                counts = [child.answer(DELIVER_SECONDS + ANSWER_SECONDS) for child in (crowd, probe)]
                used, took = cpu_seconds(pids) - before, (max(count["last_ns"] for count in counts) - began) / 1e9
                delivered = sum(count["lines"] for count in counts)
                faults = faults_of(counts, 0)
                if faults:
                    self.problems.append(f"stalled, {name}, {group.viewers} viewers: {faults}")
                self.samples.append(
                    {
                        "section": "stalled",
                        "server": name,
                        "round": self.round,
                        "viewers": group.viewers,
                        "memory_mb": memory / 1e6,
                        "seconds": took,
                        "cpu_us_delivered": used / max(1, delivered) * 1e6,
                        "faults": faults,
                    }
                )

    def resume(self) -> None:
        """A viewer comes back and has missed many lines; only logrelay can give them to it."""
        lines = self.plan.resume_lines
        for name in self.servers(LogRelay.name):
            with self.guarded("resume"):
                with self.viewing(name, 1) as group:
                    fed = self.cell(group, "", lines, MAX)
                    if fed["faults"]:
                        raise BenchError(f"feeding the lines: {fed['faults']}")
                probe, pids = self.load("probe"), group.server.pids()
                path = f"/?after={quote(fed['first_id'])}"
                before, began = cpu_seconds(pids), time.perf_counter_ns()
                probe.ask("probe", ANSWER_SECONDS, port=group.server.port, path=path)
                watch = {"cell": self._cell, "expect": lines - 1, "first_n": 1, "limit": DELIVER_SECONDS, "ids": True}
                got = probe.ask("watch", DELIVER_SECONDS + ANSWER_SECONDS, **watch)
                used, took = cpu_seconds(pids) - before, (got["last_ns"] - began) / 1e9
                probe.ask("unprobe", ANSWER_SECONDS)
                bad = {word: got[word] for word in ("missing", "surplus", "disorder", "holes") if got[word]}
                if bad:
                    self.problems.append(f"resume, run {self.round + 1}: {bad}")
                self.samples.append(
                    {
                        "section": "resume",
                        "server": name,
                        "round": self.round,
                        "lines": lines,
                        "lines_per_s": got["lines"] / took,
                        "cpu_us_delivered": used / max(1, got["lines"]) * 1e6,
                        "faults": str(bad or ""),
                    }
                )

    def storm(self) -> None:
        """Viewers that connect and drop while lines flow to one that stays."""
        if self.round:
            return
        plan = self.plan
        for name in self.servers():
            with self.guarded(f"storm, {name}"), self.viewing(name, 1) as group:
                calm = self.cell(group, "", STORM_RATE, STORM_RATE)
                server, storm = group.server, self.load("storm")
                before = cpu_seconds(server.pids())
                storm.tell(
                    "storm",
                    port=server.port,
                    # what a phone asks for: logrelay sends it the last 500 lines, the others have none to send
                    path="/" if name == LogRelay.name else server.path,
                    count=plan.storm_viewers,
                    seconds=plan.storm_seconds,
                    dialect=server.dialect,
                )
                hit = self.cell(group, "", int(plan.storm_seconds * STORM_RATE), STORM_RATE)
                done = storm.answer(plan.storm_seconds + ANSWER_SECONDS)
                used = cpu_seconds(server.pids()) - before
                failed = f"{done['failed']} could not connect: {done['why']}" if done["failed"] else ""
                faults = ", ".join(filter(None, (hit["faults"], failed)))
                if faults:
                    self.problems.append(f"storm, {name}: {faults}")
                self.samples.append(
                    {
                        "section": "storm",
                        "server": name,
                        "round": self.round,
                        "calm_ms": max(calm["latencies_us"], default=0) / 1000,
                        "worst_ms": max(hit["latencies_us"], default=0) / 1000,
                        "connect_ms": done["slowest_s"] * 1000,
                        "cpu_ms_per_viewer": used / plan.storm_viewers * 1000,
                        "faults": faults,
                    }
                )

    def machines(self) -> None:
        """An edge, a nats-server with JetStream and a hub relay: processes of this section only."""
        if self.round:
            return
        plan = self.plan
        for _ in self.servers(LogRelay.name):  # for its clock
            with self.guarded("machines"):
                machines = Machines(self.fleet, self.folder, self.load, self._next_cell, ANSWER_SECONDS)
                if why := machines.missing():
                    raise BenchError(why)
                sizes = {"lone": plan.machines_lone, "live": plan.machines_live, "backlog": plan.machines_backlog}
                found = machines.measure(**sizes, say=self.say)
                self.samples += [{**sample, "round": self.round} for sample in found]
                self.problems += [f"machines, {one['cell']}: {one['faults']}" for one in found if one["faults"]]


SECTIONS = (
    *("footprint", "idle", "day", "fanout", "latency", "traders", "filters"),
    *("batch", "compress", "resume", "stalled", "storm", "machines"),
)
"""The sections by the names of their methods, in the order they run and are shown."""


def faults_of(counts: list[dict[str, Any]], rejected: int) -> str:
    """Say what was wrong with the lines, "" if nothing. `counts` are the answers of the crowd and the probe."""
    faults = {
        "lines missing": sum(count["missing"] for count in counts),
        "lines too many": sum(count["surplus"] for count in counts),
        "lines out of order": counts[1]["disorder"],
        "holes in the ids": counts[1]["holes"],
        "viewers disconnected": sum(count["ended"] for count in counts),
        "lines rejected": rejected,
    }
    return ", ".join(f"{number} {fault}" for fault, number in faults.items() if number)


def robo_trader_ships() -> bool:
    """Tell whether robo_trader's own processor is in this checkout."""
    return (HERE.parents[1] / "robo_trader" / "log_relay" / "processor.py").exists()
