"""`make bench`: one run, one report: logrelay beside other ways to put a log line on many viewers' screens.

Owns: the command line, the run from start to end, Ctrl-C, the JSON file. `peers` has the servers, `workloads` what is
measured, `report` how it is shown; docs/benchmarks.md says how to read it. Read `peers` first.

    python tests/bench/fanout.py [--quick] [--only fanout,latency] [--servers logrelay,nats] [--json FILE] [--markdown]

The report goes to stdout, progress to stderr. Exit status: 0, 1 if logrelay lost or disordered a line or did not run,
2 for a wrong option, 130 after Ctrl-C (what was measured until then is shown).
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parent))

import report
from peers import SERVERS, LogRelay, machine
from processes import Fleet
from workloads import FULL, QUICK, SECTIONS, Bench

NAMES = [kind.name for kind in SERVERS]


def arguments() -> argparse.Namespace:
    """Parse the command line."""

    def names(known: tuple[str, ...] | list[str]) -> Any:
        def parse(text: str) -> list[str]:
            unknown = [word for word in text.split(",") if word not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
            return [name for name in known if name in text.split(",")]

        return parse

    parser = argparse.ArgumentParser(description="Measure logrelay beside other fan-out servers; loopback only.")
    parser.add_argument("--quick", action="store_true", help="under two minutes, one run of each cell: a first look")
    parser.add_argument("--only", type=names(SECTIONS), default=list(SECTIONS), help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--servers", type=names(NAMES), default=NAMES, help=f"of {','.join(NAMES)}")
    parser.add_argument("--rounds", type=int, help="runs of each cell")
    parser.add_argument("--minutes", type=float, help="begin no new cell after so many minutes")
    parser.add_argument("--relay", type=shlex.split, help="another command instead of `python -m logrelay`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help="show an earlier --json file again")
    parser.add_argument("--markdown", action="store_true", help="print the section for docs/benchmarks.md")
    return parser.parse_args()


def progress() -> Any:
    """Return a function that shows what is going on, on one line of a terminal or line by line in a log."""
    began, tty = time.monotonic(), sys.stderr.isatty()

    def say(what: str) -> None:
        line = f"{time.monotonic() - began:5.0f} s  {what}"
        print(f"\r\033[K{line}" if tty and what else line, end="" if tty else "\n", file=sys.stderr, flush=True)

    return say


def run(options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Measure; return the result and whether Ctrl-C ended it."""
    plan = QUICK if options.quick else FULL
    sizes = {"rounds": options.rounds, "minutes": options.minutes}
    plan = dataclasses.replace(plan, **{key: value for key, value in sizes.items() if value is not None})
    if options.relay:
        LogRelay.program = tuple(options.relay)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the servers inherit it
    folder = Path(tempfile.mkdtemp(prefix="logrelay-bench-"))
    fleet = Fleet(folder)
    say = progress()
    bench = Bench(plan, fleet, folder, options.servers, say)
    about, began, interrupted = machine(), time.monotonic(), False
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        bench.find()
        bench.run(options.only)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        say("ending")
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
        fleet.stop_all()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        shutil.rmtree(folder, ignore_errors=True)
        print(file=sys.stderr)
    result = {
        "machine": about,
        "kind": "quick" if options.quick else "full",
        "rounds": plan.rounds,
        "seconds": time.monotonic() - began,
        "versions": bench.versions,
        "absent": bench.absent,
        "not_run": bench.not_run(options.only, interrupted),
        "problems": bench.problems,
        "samples": bench.samples,
    }
    return result, interrupted


def main() -> int:
    """Run or read, then show."""
    options = arguments()
    if options.source:
        result, interrupted = orjson.loads(options.source.read_bytes()), False
    else:
        result, interrupted = run(options)
    if options.json:
        options.json.write_bytes(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))
    print(report.markdown(result) if options.markdown else report.text(result), end="")
    if interrupted:
        return 130
    ours = [sample for sample in result["samples"] if sample["server"] == LogRelay.name]
    wanted = LogRelay.name in options.servers
    return 1 if wanted and (not ours or any(sample.get("faults") for sample in ours)) else 0


if __name__ == "__main__":
    sys.exit(main())
