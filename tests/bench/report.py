"""From samples to tables that a person reads, as text or as Markdown.

Owns: medians, spreads, ratios, units and words. It must not know how a sample came about: everything here works on the
JSON file of an earlier run too. Nothing comes after this module.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peers import SERVERS, LogRelay

LABELS = {kind.name: kind.label for kind in SERVERS}
FAIRNESS = {kind.name: kind.fairness for kind in SERVERS}
OURS = LogRelay.name
NOTHING = "-"
WIDTH = 118
"""Columns of the text: what a terminal beside an editor has."""
BUSY_LOAD = 0.7
"""One-minute load average before the run from which the report warns: something else wants most of a core."""
RATES = {50: "50 lines/s", 1000: "1,000 lines/s", 0: "as fast as it goes"}

Sample = dict[str, Any]

HOW_TO_READ = (
    "Each figure is the median of the runs, the smallest and largest run in brackets. "
    "15x: so many times logrelay's figure in that column. "
    "~ fell behind: the lines arrived much later than they were logged. ! lines were missing or disordered, see below. "
    "CPU time is user + system time of the server's own processes, all threads, from the kernel's clock for them; on "
    "loopback it holds the kernel's work of delivering to the viewers' sockets too. "
    "Viewers, traders and servers share the machine: the CPU figures hardly depend on that, latency and lines/s do."
)


@dataclass
class Table:
    """One table: a title with the unit, a line on how to read it, columns, rows."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]

    def text(self) -> str:
        """Return it aligned for a terminal."""
        grid = [self.head, *self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.head))]
        out = [self.title, *textwrap.wrap(self.note, WIDTH - 2, initial_indent="  ", subsequent_indent="  "), ""]
        for row in (self.head, ["-" * width for width in widths], *self.rows):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            out.append(("  " + "   ".join(cells)).rstrip())
        return "\n".join(out)

    def markdown(self) -> str:
        """Return it as Markdown."""
        grid = [self.head, ["---"] * len(self.head), *self.rows]
        paragraphs = [f"### {self.title}", *filter(None, [self.note])]
        return "\n\n".join([*paragraphs, "\n".join("| " + " | ".join(row) + " |" for row in grid)])


def number(value: float) -> str:
    """Write a number with the digits that count."""
    if value >= 10_000:
        return f"{round(value, -2):,.0f}"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: list[float]) -> str:
    """Write the median, and the smallest and largest if they differ."""
    middle, least, most = (number(value) for value in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}-{most})"


def percentile(ordered: list[int], share: float) -> float:
    """Return the value that `share` of the sorted values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def select(samples: list[Sample], **tags: Any) -> list[Sample]:
    """Return the samples that have all these values."""
    return [sample for sample in samples if all(sample.get(key) == value for key, value in tags.items())]


def figure(found: list[Sample], key: str, ours: list[Sample] | None = None) -> str:
    """Write one cell: median, spread, marks, and the ratio to `ours` where it is another server's."""
    if not found:
        return NOTHING
    values = [float(sample[key]) for sample in found]
    marks = ("~" if any(sample.get("behind") for sample in found) else "") + (
        "!" if any(sample.get("faults") for sample in found) else ""
    )
    ratio = ""
    if ours and ours is not found and found[0]["server"] != OURS:
        base = statistics.median(float(sample[key]) for sample in ours)
        if base > 0:
            times = statistics.median(values) / base
            ratio = f" {times:.0f}x" if times >= 10 else f" {times:.1f}x" if times >= 0.95 else f" {times:.2f}x"
    return spread(values) + marks + ratio


def present(samples: list[Sample]) -> list[str]:
    """Return the servers that have samples, in the order of SERVERS."""
    names = {sample["server"] for sample in samples}
    return [kind.name for kind in SERVERS if kind.name in names]


def viewers_text(count: int) -> str:
    """Say how many viewers."""
    return f"{count:,} viewer" + ("" if count == 1 else "s")


def _grid(title: str, note: str, samples: list[Sample], columns: list[tuple[str, str, dict[str, Any]]]) -> Table:
    """Rows are servers; a column is (heading, key of the sample, tags that select its samples)."""
    rows = []
    for name in present(samples):
        row = [LABELS[name]]
        for _, key, tags in columns:
            ours = select(samples, server=OURS, **tags)
            row.append(figure(select(samples, server=name, **tags), key, ours))
        rows.append(row)
    return Table(title, note, ["server", *(heading for heading, _, _ in columns)], rows)


def fanout(samples: list[Sample]) -> list[Table]:
    """CPU per delivered line for each rate, then lines per second."""
    tables = []
    for rate in (0, 1000, 50):
        some = select(samples, rate=rate)
        counts = sorted({sample["viewers"] for sample in some})
        columns = [(viewers_text(count), "cpu_us_delivered", {"viewers": count}) for count in counts]
        note = {
            0: "logrelay's trader is closed by acks; the others are sent as much as they take.",
            1000: "One line at a time, evenly. With 1,000 viewers that is a million deliveries a second.",
            50: "A bot on an ordinary day: no line meets another, so there is nothing to put together.",
        }[rate]
        if some:
            tables.append(_grid(f"CPU time per delivered line, us, {RATES[rate]}", note, some, columns))
    full = select(samples, rate=0)
    counts = sorted({sample["viewers"] for sample in full})
    columns = [(viewers_text(count), "lines_per_s", {"viewers": count}) for count in counts]
    note = (
        "From the first byte a trader sends until the last viewer has the last line; "
        "logrelay's are journaled and acked by then."
    )
    if full:
        tables.append(_grid("Lines per second, log socket to viewers, as fast as it goes", note, full, columns))
    return tables


def day(samples: list[Sample]) -> list[Table]:
    """An ordinary day: CPU, system calls, sleeps and latency of a line that comes alone."""
    cells = sorted({(sample["viewers"], sample["rate"]) for sample in samples})
    figures = (
        ("CPU time per line, us", "cpu_us_in", "User and system time of the server, all threads."),
        ("system calls per line", "calls_per_line", "Counted by perf, in all threads; - where there is no perf."),
        ("sleeps per line", "sleeps_per_line", "Times that a thread went to sleep, as the kernel counts them."),
        ("latency p50, ms", "p50_ms", "From the clock just before the line is packed and sent to the probe's read."),
    )
    out = []
    for title, key, note in figures:
        some = [sample for sample in samples if key in sample]
        columns = [(f"{viewers_text(n)}, {rate}/s", key, {"viewers": n, "rate": rate}) for n, rate in cells]
        if some:
            out.append(_grid(f"An ordinary day: {title}", note, some, columns))
    return out


def latency(samples: list[Sample]) -> list[Table]:
    """Percentiles over the lines of all runs."""
    columns = sorted({(sample["rate"], sample["viewers"]) for sample in samples})
    rows = []
    for name in present(samples):
        for kind in sorted({sample["kind"] for sample in samples if sample["server"] == name}):
            row = [LABELS[name] + (", robo_trader's own log calls" if kind == "robo" else "")]
            for rate, viewers in columns:
                found = select(samples, server=name, kind=kind, rate=rate, viewers=viewers)
                ordered = sorted(value for sample in found for value in sample["latencies_us"])
                figures = [percentile(ordered, share) / 1000 for share in (0.5, 0.99, 1.0)] if ordered else []
                mark = "!" if any(sample["faults"] for sample in found) else ""
                row.append(" / ".join(f"{value:.2f}" for value in figures) + mark or NOTHING)
            rows.append(row)
    head = [f"{rate:,}/s, {viewers_text(viewers)}" for rate, viewers in columns]
    note = (
        "p50 / p99 / worst. From the clock just before the log call (or just before a line is packed and sent) until "
        "one viewer among them, a process of its own, has read the line."
    )
    return [Table("Latency, log call to viewer, ms", note, ["server", *head], rows)] if samples else []


def footprint(samples: list[Sample], idle: list[Sample]) -> list[Table]:
    """Start, memory, idle CPU."""
    columns: list[tuple[str, str, dict[str, Any]]] = []
    if samples:
        columns += [
            ("ready after, ms", "start_ms", {"section": "footprint"}),
            ("memory (RSS), MB", "rss_mb", {"section": "footprint"}),
            ("per idle viewer, kB", "viewer_kb", {"section": "footprint"}),
        ]
    if idle:
        columns += [
            ("idle CPU, ms per s", "cpu_ms_per_s", {"section": "idle"}),
            ("sleeps per s", "wakes_per_s", {"section": "idle"}),
            ("memory then, MB", "idle_rss_mb", {"section": "idle"}),
        ]
    note = (
        "Ready: logrelay from the start of the process to its ready line, the others until their port accepts. "
        "Memory with a trader and 10 viewers after 200 lines; then per idle viewer when many more connect. "
        "Idle: 10 idle viewers and a quiet trader, for a minute; each sleep is one wake-up of the processor."
    )
    return [_grid("Start, memory, idleness", note, [*samples, *idle], columns)] if columns else []


def traders(samples: list[Sample]) -> list[Table]:
    """Eight traders."""
    columns = [
        ("CPU us per delivered line, 1,000/s", "cpu_us_delivered", {"rate": 1000}),
        ("the same, as fast as it goes", "cpu_us_delivered", {"rate": 0}),
        ("lines/s", "lines_per_s", {"rate": 0}),
    ]
    return (
        [_grid("8 traders at once, 10 viewers", "The rate is that of all together.", samples, columns)]
        if samples
        else []
    )


def _variants(title: str, note: str, samples: list[Sample], columns: list[tuple[str, str, int]]) -> list[Table]:
    """Rows are the variants of one server; a column is (heading, key, rate)."""
    rows = []
    for variant in dict.fromkeys(sample["variant"] for sample in samples):
        found = select(samples, variant=variant)
        rows.append([variant, *(figure(select(found, rate=rate), key) for _, key, rate in columns)])
    return [Table(title, note, ["viewers with", *(heading for heading, _, _ in columns)], rows)] if samples else []


def filters(samples: list[Sample]) -> list[Table]:
    """Kinds of filters."""
    columns = [
        ("CPU us per line in, 1,000/s", "cpu_us_in", 1000),
        ("as fast as it goes", "cpu_us_in", 0),
        ("CPU us per delivered line, 1,000/s", "cpu_us_delivered", 1000),
        ("as fast as it goes", "cpu_us_delivered", 0),
        ("lines/s in", "lines_per_s", 0),
    ]
    note = "One trader, so many viewers. The last row delivers each line to one viewer, the others to all of them."
    count = viewers_text(samples[0]["viewers"]) if samples else ""
    return _variants(f"Filters, logrelay, {count}", note, samples, columns)


def batch(samples: list[Sample]) -> list[Table]:
    """The batch subprotocol."""
    columns = [
        ("CPU us per delivered line, 1,000/s", "cpu_us_delivered", 1000),
        ("as fast as it goes", "cpu_us_delivered", 0),
        ("bytes per 1,000 lines, 1,000/s", "bytes_per_1000", 1000),
        ("as fast as it goes", "bytes_per_1000", 0),
    ]
    count = viewers_text(samples[0]["viewers"]) if samples else ""
    note = "The saving of a batch is in the viewer: one message to parse for many lines."
    return _variants(f"Batches, logrelay, {count}", note, samples, columns)


def compress(samples: list[Sample]) -> list[Table]:
    """permessage-deflate off and on."""
    columns: list[tuple[str, str, dict[str, Any]]] = [
        ("bytes per 1,000 lines, off", "bytes_per_1000", {"deflate": False}),
        ("on", "bytes_per_1000", {"deflate": True}),
        ("CPU us per delivered line, off", "cpu_us_delivered", {"deflate": False}),
        ("on", "cpu_us_delivered", {"deflate": True}),
    ]
    if not samples:
        return []
    title = f"permessage-deflate, {viewers_text(samples[0]['viewers'])}, {samples[0]['rate']} lines/s"
    note = "Bytes on the wire to one viewer, WebSocket headers included."
    return [_grid(title, note, samples, columns)]


def resume(samples: list[Sample]) -> list[Table]:
    """Catching up."""
    columns: list[tuple[str, str, dict[str, Any]]] = [
        ("lines/s", "lines_per_s", {}),
        ("CPU us per line", "cpu_us_delivered", {}),
    ]
    if not samples:
        return []
    note = (
        "From opening the connection with ?after=ID to the last line, every line parsed and checked by the viewer. "
        "The others keep nothing, or only what memory holds, and have no id to resume from."
    )
    return [_grid(f"Resuming after {samples[0]['lines']:,} missed lines", note, samples, columns)]


def stalled(samples: list[Sample]) -> list[Table]:
    """Viewers that stop reading for a while."""
    columns: list[tuple[str, str, dict[str, Any]]] = [
        ("memory for them, MB", "memory_mb", {}),
        ("all caught up after, s", "seconds", {}),
        ("CPU us per delivered line", "cpu_us_delivered", {}),
    ]
    if not samples:
        return []
    note = (
        "The viewers read nothing while 20,000 lines (5 MB each) are sent as fast as they are taken, then all read on "
        "at once. Memory: growth of the RSS of a fresh server until then. One run."
    )
    return [_grid(f"{viewers_text(samples[0]['viewers'])} that stop reading for a while", note, samples, columns)]


def storm(samples: list[Sample]) -> list[Table]:
    """Reconnect storm."""
    columns: list[tuple[str, str, dict[str, Any]]] = [
        ("worst before, ms", "calm_ms", {}),
        ("worst in the storm, ms", "worst_ms", {}),
        ("slowest handshake, ms", "connect_ms", {}),
        ("CPU ms per connection", "cpu_ms_per_viewer", {}),
    ]
    note = (
        "Viewers connect one after the other, evenly, and drop at once (2,000 in 10 s in a full run), while 100 lines "
        "a second flow to a healthy viewer: how late was its latest line. logrelay gives newcomers "
        "500 lines, the others send nothing. One run."
    )
    return [_grid("Reconnect storm", note, samples, columns)] if samples else []


CELLS = {
    "lone": "20 lines/s",
    "live": "as they come",
    "backlog": "from the edge's journal",
    "rebuild": "a new hub relay, from the stream",
}
PARTS = ("edge", "nats", "hub")


def machines(samples: list[Sample]) -> list[Table]:
    """Relays joined by JetStream."""
    if not samples:
        return []
    head = ["lines", "how", "lines/s", "from the first on", "latency p50 ms", "p99 ms", "most ms"]
    head += [f"CPU us/line {part}" for part in PARTS] + [f"most memory, MB: {part}" for part in PARTS]
    rows = []
    for sample in samples:
        late = sorted(sample.get("latencies_us", ()))
        times = [number(percentile(late, share) / 1000) for share in (0.5, 0.99, 1.0)] if late else [NOTHING] * 3
        rates = [NOTHING if late else number(sample[key]) for key in ("lines_per_s", "flowing_lines_per_s")]
        figures = [
            number(sample[key][part]) if part in sample[key] else NOTHING
            for key in ("cpu_us", "peak_mb")
            for part in PARTS
        ]
        rows.append([f"{sample['lines']:,}", CELLS[sample["cell"]], *rates, *times, *figures])
    note = (
        "One edge, one nats-server with JetStream, one hub relay with a viewer, everything on this machine. From the "
        "log call at the edge, or from the start of the edge or of the hub relay, to the viewer of the hub relay; from "
        "the first on: from the first line at that viewer. CPU time is that of all threads, starting included; the "
        "trader's and the viewer's, which share the cores, is not in it. One run."
    )
    return [Table("Many machines", note, head, rows)]


def tables(result: dict[str, Any]) -> list[Table]:
    """Return all tables that the samples allow."""

    def of(section: str) -> list[Sample]:
        return select(result["samples"], section=section)

    shown: list[Callable[[list[Sample]], list[Table]]] = [
        *(day, latency, traders, filters, batch, compress, resume, stalled, storm, machines)
    ]
    out = fanout(of("fanout"))
    for show in shown:
        out += show(of(show.__name__))
    return out + footprint(of("footprint"), of("idle"))


def facts(result: dict[str, Any]) -> list[str]:
    """Say what was measured on what."""
    machine = result["machine"]
    return [
        f"{machine['date']}, {machine['cpu']}, {machine['kernel']}, {machine['python']}, {machine['libraries']}",
        (
            f"{result['kind']} run, {result['rounds']} run(s) of each cell, {result['seconds'] / 60:.1f} minutes, "
            f"load average before: {machine['load_before']}"
        ),
        *(f"{LABELS[name]}: {version}; {FAIRNESS[name]}" for name, version in result["versions"].items()),
    ]


def shortcomings(result: dict[str, Any]) -> list[str]:
    """Say what did not run and what went wrong."""
    absent = [f"{LABELS[name]} did not run: {why}" for name, why in result["absent"].items()]
    load = float(result["machine"]["load_before"].split()[0])
    busy = f"the machine was busy before the run (load {load}): do not rely on latency and lines per second"
    return [*([busy] if load > BUSY_LOAD else []), *absent, *result["not_run"], *result["problems"]]


def text(result: dict[str, Any]) -> str:
    """Return the whole report for a terminal."""

    def wrapped(lines: list[str]) -> str:
        return "\n".join(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines)

    faults = shortcomings(result)
    parts = [
        "logrelay fan-out benchmark",
        wrapped(facts(result)),
        *(table.text() for table in tables(result)),
        "How to read this\n" + wrapped([HOW_TO_READ]),
        "What did not run or went wrong\n" + wrapped(faults or ["nothing: every server ran, no line was missing"]),
    ]
    return "\n\n".join(parts) + "\n"


def markdown(result: dict[str, Any]) -> str:
    """Return the section "Numbers of one run" of docs/benchmarks.md."""
    faults = shortcomings(result)
    parts = [
        "## Numbers of one run",
        "\n".join(f"- {line}" for line in facts(result)),
        HOW_TO_READ,
        *(table.markdown() for table in tables(result)),
        "### What did not run or went wrong",
        "\n".join(f"- {line}" for line in faults or ["Nothing: every server ran, no line was missing."]),
    ]
    return "\n\n".join(parts) + "\n"
