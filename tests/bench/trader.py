"""`make bench-trader`: what one log call costs the trader, with the relay there, stuck and gone, beside other shippers.

Owns: the command line, the plan, the relays and sinks, Ctrl-C, the JSON file and the tables. `trader_peers` has the
shippers and measures them, `trader_sink` takes their bytes; docs/benchmarks.md, "The trader's side", says how to read
it. Read `trader_peers` first.

    python tests/bench/trader.py [--quick] [--shippers ours,fluent] [--json FILE] [--markdown]

Each cell is a fresh process. The rounds go through all cells in turn, so that a disturbance of the machine hits
everybody. The report goes to stdout, progress to stderr. Exit status: 0, 1 if our own shipper could not be measured,
2 for a wrong option, 130 after Ctrl-C (what was measured until then is shown).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parent))

from peers import LogRelay, first_line
from processes import BenchError, Child, Fleet
from report import Table, number, percentile, spread
from trader_peers import SHIPPERS

HERE = Path(__file__).parent
BURST_CALLS = 1_000
"""Calls in a burst: a bot that has just seen a market open. Together about 3 ms, less than the interpreter's switch
interval, so that a shipper with a thread of its own can leave its work for later, which favours it."""
STALL_LINES = 14_000
"""Lines that fill the kernel's buffers (at most 4 MiB with its overhead) of a relay that has stopped reading."""
RATE = 2_000.0
"""Lines a second of the paced part."""
WARM_CALLS = 2_000
FIRST_CALLS = 15
"""Fresh processes in which the first call is timed: it connects, so it is another kind of call."""
FIRST = {
    "relay up": ("up", False),
    "relay up, another thread runs": ("up", True),
    "down: no socket": ("down", False),
}
"""Titles, and for each the state and whether the process has another thread: then some system calls wait for others."""
FIRST_CALL_US = 500.0
"""The most that it should take."""
ANSWER_SECONDS = 20.0
"""A process that says nothing for so long is given up."""
STUCK_SECONDS = 2.0
"""More than this a measurement does not wait for calls that do not return."""
BUSY_LOAD = 1.0
"""One-minute load average above which the report says that its figures are not to be trusted."""

OURS, BASE = "ours", (1, 10)
STATES = {
    "up": "relay up",
    "coalesce": "a peer that reads once in 4 ms and keeps nothing",
    "stalled": "stalled: stopped with SIGSTOP",
    "stalled-full": "stalled, our memory full",
    "down": "down: no socket",
    "down-full": "down, our memory full",
}
PEERS = ("fluent", "fluent-roomy", "fluent-circular", "socket", "queued", "otel")


@dataclass(frozen=True)
class Cell:
    """One thing to measure."""

    shipper: str
    state: str
    threads: int
    keys: int
    paced: bool = True


@dataclass(frozen=True)
class Plan:
    """How much of it."""

    rounds: int
    minutes: float
    bursts: int
    seconds: float


FULL = Plan(rounds=3, minutes=4.0, bursts=20, seconds=1.0)
QUICK = Plan(rounds=1, minutes=1.0, bursts=10, seconds=0.6)


def cells(shippers: list[str], quick: bool) -> list[Cell]:
    """Return what a round measures, the most important first."""
    made = [Cell(name, "up", *BASE) for name in ("noop", OURS, "spooled", "chain-alone", "chain", *PEERS)]
    made.append(Cell(OURS, "coalesce", *BASE))
    for state in ("stalled", "down"):
        ours = [OURS, "spooled", "chain"]
        made += [Cell(name, state, *BASE) for name in (*ours, *PEERS)]
        made += [Cell(name, f"{state}-full", *BASE) for name in ours if not (quick and name != OURS)]
    if not quick:
        made += [Cell(name, "up", 8, 10) for name in ("noop", OURS, "chain-alone", "chain", *PEERS)]
        made += [Cell(name, state, 8, 10) for name in (OURS, "chain") for state in ("stalled", "down")]
    else:
        made += [Cell(name, "up", 8, 10) for name in ("noop", OURS, "fluent-roomy")]
    for keys in (3, 30):
        fast = ("noop", OURS, "fluent-roomy") if quick else ("noop", OURS, "chain-alone", "chain", *PEERS)
        made += [Cell(name, "up", 1, keys, paced=False) for name in fast]
    return [cell for cell in made if cell.shipper in shippers]


class Bench:
    """One run."""

    def __init__(
        self, plan: Plan, fleet: Fleet, folder: Path, shippers: list[str], *, quick: bool, rate: float = RATE
    ) -> None:
        self.plan = plan
        self.rate = rate
        self.fleet = fleet
        self.folder = folder
        self.cells = cells(shippers, quick)
        self.all_runs = plan.rounds != FULL.rounds
        """Whoever asks for another number of rounds gets it for every cell."""
        self.samples: list[dict[str, Any]] = []
        self.stuck: set[Cell] = set()
        self.first: dict[str, list[int]] = {}
        """Nanoseconds of our first calls, by the titles in `FIRST`."""
        self.problems: list[str] = []
        self.absent: dict[str, str] = {}
        self.loads: list[float] = []
        self._sinks: dict[str, Child] = {}
        self._relays: dict[str, LogRelay] = {}
        self._count = 0
        self._began = time.monotonic()

    def run(self) -> None:
        """Measure until the plan is done or the time is up."""
        for kind in SHIPPERS:
            gone = kind().missing()
            if gone:
                self.absent[kind.label] = f"not installed: {gone}"
                self.cells = [cell for cell in self.cells if cell.shipper != kind.name]
        self.time_first_calls()
        for turn in range(self.plan.rounds):
            # Who comes first changes, so that nobody is always behind the same neighbour.
            first = turn * len(self.cells) // self.plan.rounds
            for index, cell in enumerate([*self.cells[first:], *self.cells[:first]]):
                if cell in self.stuck:
                    continue  # it waits for ever; once is enough to know
                if turn and not self.all_runs and (cell.threads, cell.keys) != BASE:
                    continue  # one run of the side tables, or four minutes would not do
                if time.monotonic() - self._began > self.plan.minutes * 60 - 5:
                    self.problems.append(
                        f"the time was up in round {turn + 1} of {self.plan.rounds}: some figures have fewer runs"
                    )
                    return
                self.loads.append(os.getloadavg()[0])
                say(
                    f"round {turn + 1}/{self.plan.rounds}, {index + 1}/{len(self.cells)}: {cell.shipper} {cell.state}"
                    f" {cell.threads} thread(s) {cell.keys} keys"
                )
                try:
                    said = self.one(cell)
                    self.samples.append({**asdict(cell), "round": turn, "load": os.getloadavg()[0], **said})
                    if said["stuck"]:
                        self.stuck.add(cell)
                except BenchError as error:
                    self.problems.append(f"{cell.shipper}, {cell.state}, {cell.threads} thread(s): {error}")

    def time_first_calls(self) -> None:
        """Time the first call of fresh processes, with the relay there and without."""
        for title, (state, company) in FIRST.items():
            if all((cell.shipper, cell.state) != (OURS, state) for cell in self.cells):
                continue
            say(f"{FIRST_CALLS} first calls, {title}")
            path, _ = self._collector(OURS, state)
            for _ in range(FIRST_CALLS):
                child = self._child(OURS)
                try:
                    said = child.ask(
                        "begin", ANSWER_SECONDS, name=OURS, path=path, state=state, keys=10, company=company
                    )
                    self.first.setdefault(title, []).append(said["first_ns"])
                finally:
                    child.stop()

    def _child(self, shipper: str) -> Child:
        """Start a process that can measure a shipper."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(("LOGRELAY_", "ROBO_"))}
        return Child(self.fleet, shipper, [sys.executable, str(HERE / "trader_peers.py")], env=env)

    def one(self, cell: Cell) -> dict[str, Any]:
        """Measure one cell in a process of its own."""
        self._count += 1
        state = cell.state.partition("-")[0]
        path, far = self._collector(cell.shipper, state)
        child = self._child(cell.shipper)
        try:
            child.ask("begin", ANSWER_SECONDS, name=cell.shipper, path=path, state=state, keys=cell.keys)
            child.ask("warm", ANSWER_SECONDS, count=WARM_CALLS)
            ours = next(kind for kind in SHIPPERS if kind.name == cell.shipper).ours
            if state == "stalled":
                if far is not None:
                    os.kill(far, signal.SIGSTOP)
                if ours:
                    child.ask("warm", ANSWER_SECONDS, count=STALL_LINES)
                else:
                    child.ask("fill", ANSWER_SECONDS)
            if cell.state.endswith("-full"):
                child.ask("fill", ANSWER_SECONDS)
            return child.ask(
                "measure",
                ANSWER_SECONDS,
                bursts=self.plan.bursts,
                size=BURST_CALLS * (4 if cell.threads > 1 else 1),
                seconds=self.plan.seconds if cell.paced else 0.0,
                rate=self.rate,
                threads=cell.threads,
                settle=state in ("up", "coalesce"),
                limit=STUCK_SECONDS,
            )
        finally:
            child.stop()
            if far is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(far, signal.SIGCONT)

    def _collector(self, shipper: str, state: str) -> tuple[str, int | None]:
        """Return where the collector listens, and its process if it is to be stopped."""
        kind = next(kind for kind in SHIPPERS if kind.name == shipper)
        if state == "down" or shipper == "otel":
            return str(self.folder / "nobody.sock"), None
        if kind.ours and state != "coalesce":
            if state not in self._relays:
                relay = LogRelay()
                relay.start(self.fleet, self.folder / f"relay-{state}")
                self._relays[state] = relay
            relay = self._relays[state]
            return relay.address, relay.pids()[0] if state == "stalled" else None
        if state not in self._sinks:
            self._sinks[state] = Child(self.fleet, "sink", [sys.executable, str(HERE / "trader_sink.py")])
        path = str(self.folder / f"{self._count}.sock")
        self._sinks[state].ask(
            "listen", ANSWER_SECONDS, path=path, mode="coalesce" if state == "coalesce" else "read", ours=kind.ours
        )
        return path, self._sinks[state].pid if state == "stalled" else None

    def end(self) -> None:
        """End every process, also the stopped ones."""
        pids = [sink.pid for sink in self._sinks.values()]
        for relay in self._relays.values():
            with contextlib.suppress(BenchError):
                pids += relay.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.fleet.stop_all()


def say(what: str) -> None:
    """Show on stderr what goes on."""
    tty = sys.stderr.isatty()
    print(f"\r\033[K{what}" if tty else what, end="" if tty else "\n", file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """Return what is measured."""
    found = {"python": platform.python_version(), "logrelay": LogRelay().version()}
    for name in ("structlog", "msgpack", "fluent-logger", "opentelemetry-sdk"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> str:
    """Describe the machine in a line."""
    model = ""
    with contextlib.suppress(OSError):
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((row.partition(":")[2].strip() for row in rows if row.startswith("model name")), "")
    hypervisor = first_line("systemd-detect-virt")
    return (
        f"{os.cpu_count()} cores, {model or platform.machine()}, Linux {platform.release()}, {hypervisor or 'unknown'}"
    )


# --- the report ----------------------------------------------------------------------------------------------


class Row:
    """All runs of one cell."""

    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self.samples = samples
        self.stuck = any(sample["stuck"] for sample in samples)
        bursts = [sample["bursts"] for sample in samples if sample["bursts"]]
        self.burst_min = min((min(each) for each in bursts), default=None)
        self.bursts = [statistics.median(each) / 1000 for each in bursts]
        paced = [sorted(sample["paced"]) for sample in samples if sample["paced"]]
        self.p50 = [percentile(each, 0.50) / 1000 for each in paced]
        self.p99 = [percentile(each, 0.99) / 1000 for each in paced]
        self.p999 = [percentile(each, 0.999) / 1000 for each in paced]
        self.cpu = [sample["cpu_us"] for sample in samples if "cpu_us" in sample]

    def lost(self) -> str:
        """Say what is known of lines that did not get there."""
        counts = [sample["counts"] for sample in self.samples]
        produced = sum(sample["produced"] for sample in self.samples)
        said = []
        if self.stuck:
            calls = min(sample["calls_in_limit"] for sample in self.samples if sample["stuck"])
            said.append(f"BLOCKED: {calls} calls in {STUCK_SECONDS:.0f} s")
        if not all(counts):
            return "; ".join([*said, "not known"])
        lost = sum(count["lost"] for count in counts)
        kept = sum(count.get("kept", 0) for count in counts)
        share = f"{lost / produced:.0%}" if lost >= produced * 0.005 else "under 1%"
        said.append(f"{share} lost" if lost else "0 lost")
        if kept:
            said.append(f"{kept // len(counts):,} kept")
        return "; ".join(said)


def middle(values: list[float]) -> float | None:
    """Return the median, None if there is none."""
    return statistics.median(values) if values else None


def ratio(value: float | None, ours: float | None) -> str:
    """Return `value` in units of ours."""
    return "-" if value is None or not ours else f"{value / ours:.2f}x" if value < ours * 10 else f"{value / ours:.0f}x"


def shown(values: list[float]) -> str:
    """Return median and spread."""
    return spread(values) if values else "-"


def rows_of(result: dict[str, Any]) -> dict[tuple[str, str, int, int], Row]:
    """Put the samples of each cell together."""
    grouped: dict[tuple[str, str, int, int], list[dict[str, Any]]] = {}
    for sample in result["samples"]:
        key = (sample["shipper"], sample["state"], sample["threads"], sample["keys"])
        grouped.setdefault(key, []).append(sample)
    return {key: Row(samples) for key, samples in grouped.items()}


LABELS = {kind.name: kind.label for kind in SHIPPERS}
HEAD = ["", "burst min", "burst", "paced p50", "p99", "p99.9", "CPU/line", "burst/ours", "p99.9/ours", "lines"]


def tables(result: dict[str, Any]) -> list[Table]:
    """Make the tables."""
    rows = rows_of(result)
    made = []
    for threads in (1, 8):
        for state, title in STATES.items():
            ours = rows.get((OURS, state, threads, 10))
            body = []
            for name, label in LABELS.items():
                row = rows.get((name, state, threads, 10))
                if row is None:
                    continue
                body.append(
                    [
                        label,
                        "-" if row.burst_min is None else number(row.burst_min / 1000),
                        shown(row.bursts),
                        shown(row.p50),
                        shown(row.p99),
                        shown(row.p999),
                        shown(row.cpu),
                        ratio(middle(row.bursts), middle(ours.bursts) if ours else None),
                        ratio(middle(row.p999), middle(ours.p999) if ours else None),
                        row.lost(),
                    ]
                )
            if body:
                plural = "8 threads" if threads > 1 else "1 thread"
                made.append(Table(f"{title}; {plural}, 10 keys; us per call", "", HEAD, body))
    body = []
    for name, label in LABELS.items():
        by_keys = [rows.get((name, "up", 1, keys)) for keys in (3, 10, 30)]
        if any(by_keys) and (by_keys[0] or by_keys[2]):
            body.append([label, *("-" if row is None else shown(row.bursts) for row in by_keys)])
    if body:
        made.append(Table("How many keys the event has; burst, us per call", "", ["", "3", "10", "30"], body))
    first = {title: [took / 1000 for took in sorted(each)] for title, each in result.get("first", {}).items()}
    if first:
        body = [
            [title, number(each[0]), number(statistics.median(each)), number(each[-1])] for title, each in first.items()
        ]
        title = f"The first call of a process, which connects; us, of {FIRST_CALLS} processes"
        made.append(Table(title, "", ["", "lowest", "median", "highest"], body))
    return made


def aims(result: dict[str, Any]) -> list[str]:
    """Say which of the product's aims this run met."""
    rows = rows_of(result)

    def value(name: str, what: str, state: str = "up") -> float | None:
        row = rows.get((name, state, *BASE))
        return middle(getattr(row, what)) if row else None

    said = []

    def judge(text: str, got: float | None, most: float) -> None:
        if got is not None:
            said.append(f"{'met   ' if got <= most else 'MISSED'} {text}: {got:.2f} (aim {most:.2f} or less)")

    mine, fluent = value(OURS, "bursts"), value("fluent-roomy", "bursts")
    if mine and fluent:
        judge("burst, ours / fluent asyncsender with room", mine / fluent, 0.9)
    tails = {n: t for n in PEERS if (t := value(n, "p999")) is not None}
    tail = value(OURS, "p999")
    if tail and tails:
        best = min(tails, key=lambda n: tails[n])
        judge(f"p99.9, ours / lowest of the others ({LABELS[best]})", tail / tails[best], 1.0)
    for state in ("stalled", "stalled-full", "down", "down-full"):
        for what in ("bursts", "p50", "p999"):
            there, up = value(OURS, what, state), value(OURS, what)
            if there and up:
                judge(f"{what}, {state} / up", there / up, 2.0)
    for title, first in result.get("first", {}).items():
        judge(f"first call of a process, us, {title}", statistics.median(first) / 1000, FIRST_CALL_US)
    if mine:
        judge("stretch: burst in us", mine, 2.0)
    return said


def render(result: dict[str, Any], *, markdown: bool) -> str:
    """Return the report."""
    loads = result["loads"] or [0.0]
    out = [
        ("## What a log call costs the trader: one run" if markdown else "What a log call costs the trader"),
        f"{result['machine']}. {', '.join(f'{name} {text}' for name, text in result['versions'].items())}.",
        f"{result['kind']} run, {result['seconds']:.0f} s; load average (1 min) {min(loads):.1f} to {max(loads):.1f}.",
        f"Garbage collection: {result['gc']}.",
    ]
    if max(loads) > BUSY_LOAD:
        out.append(
            f"WARNING: the load average was above {BUSY_LOAD:.0f} while this ran (the benchmark itself is about 0.7): "
            "something else wants the cores, the tails are its as much as the shippers'."
        )
    out.append(
        "us per call; the median of the runs, the smallest and largest run in brackets. "
        f"burst: {BURST_CALLS:,} calls in a row, 'burst min' the best of all bursts (8 threads: {BURST_CALLS // 2:,} "
        f"calls each, wall time by all calls). paced: {result.get('rate', RATE):,.0f} calls/s in all, each timed. "
        "CPU/line: user + system time of the whole process, all its threads, while paced, the pacing's own sleeps "
        "included. x/ours: in units of our processor's in the same table."
    )
    for table in tables(result):
        out.append(table.markdown() if markdown else table.text())
    notes = [
        f"{kind.label}: {kind.note}" for kind in SHIPPERS if any(s["shipper"] == kind.name for s in result["samples"])
    ]
    notes += [f"missing: {name} ({why})" for name, why in result["absent"].items()]
    notes += [f"problem: {text}" for text in result["problems"]]
    bullet = "- " if markdown else "  "
    out.append("\n".join(bullet + note for note in notes))
    judged = aims(result)
    if judged:
        out.append("\n".join([("### Aims" if markdown else "Aims"), "", *(bullet + text for text in judged)]))
    return "\n\n".join(out) + "\n"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    known = [kind.name for kind in SHIPPERS]

    def names(text: str) -> list[str]:
        unknown = [word for word in text.split(",") if word not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return text.split(",")

    parser = argparse.ArgumentParser(description="Measure what a log call costs the trader, beside other shippers.")
    parser.add_argument("--quick", action="store_true", help="at most a minute, one run of the main cells")
    parser.add_argument("--shippers", type=names, default=known, help=f"of {','.join(known)}")
    parser.add_argument("--rate", type=float, default=RATE, help="lines a second of the paced part")
    parser.add_argument("--rounds", type=int, help="runs of each cell")
    parser.add_argument("--minutes", type=float, help="begin no new cell after so many minutes")
    parser.add_argument("--states", type=lambda text: text.split(","), help=f"only these, of {','.join(STATES)}")
    parser.add_argument("--relay", type=shlex.split, help="another command instead of `python -m logrelay`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help="show an earlier --json file again")
    parser.add_argument("--markdown", action="store_true", help="print it for docs/benchmarks.md")
    return parser.parse_args()


def run(options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure; return the result and whether Ctrl-C ended it."""
    plan = QUICK if options.quick else FULL
    plan = Plan(options.rounds or plan.rounds, options.minutes or plan.minutes, plan.bursts, plan.seconds)
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        say(f"WARNING: load average {load:.1f}: something else wants the cores")
    folder = Path(tempfile.mkdtemp(prefix="logrelay-bench-"))
    fleet = Fleet(folder)
    bench = Bench(plan, fleet, folder, options.shippers, quick=options.quick, rate=options.rate)
    if options.relay:
        LogRelay.program = tuple(options.relay)
    if options.states:
        bench.cells = [
            cell for cell in bench.cells if cell.state in options.states and cell.threads == 1 and cell.paced
        ]
    began, interrupted = time.monotonic(), False
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        bench.run()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
        bench.end()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        shutil.rmtree(folder, ignore_errors=True)
        say("")
    collections = [sample["gc"] for sample in bench.samples]
    state = "on" if all(each["enabled"] for each in collections) else "off"
    threshold = collections[0]["threshold"] if collections else ()
    return {
        "machine": machine(),
        "kind": "quick" if options.quick else "full",
        "seconds": time.monotonic() - began,
        "versions": versions(),
        "gc": f"{state}, thresholds {', '.join(map(str, threshold))}, as Python sets them",
        "rate": bench.rate,
        "loads": bench.loads,
        "absent": bench.absent,
        "problems": bench.problems,
        "first": bench.first,
        "samples": bench.samples,
    }, interrupted


def main() -> int:
    """Run or read, then show."""
    options = arguments()
    if options.source:
        result, interrupted = orjson.loads(options.source.read_bytes()), False
    else:
        result, interrupted = run(options)
    if options.json:
        options.json.write_bytes(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))
    print(render(result, markdown=options.markdown), end="")
    if interrupted:
        return 130
    wanted = OURS in options.shippers
    return 1 if wanted and not any(sample["shipper"] == OURS for sample in result["samples"]) else 0


if __name__ == "__main__":
    sys.exit(main())
