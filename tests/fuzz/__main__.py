"""`python -m tests.fuzz [--socket|--port] [--seed N] [--inputs N] [--seconds N] [--real] [--json FILE]`.

Owns: the command line, what is shown meanwhile, and the last words. The exit code is 1 when anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict

from tests.fuzz.lanes import LANES, LaneOutcome, run_lane
from tests.fuzz.real import run_real

INPUTS = 1_000_000
"""For each listener, in this process."""

REAL_SECONDS = 120.0
"""For each listener of a real relay, where nothing is said of inputs or seconds."""


def show(outcome: LaneOutcome) -> None:
    """Say how far it is, on one line that is written again and again on a terminal."""
    end = "\r" if sys.stderr.isatty() else "\n"
    if end == "\r" or outcome.inputs % 50_000 == 0:
        rate = outcome.inputs / max(outcome.seconds, 0.001)
        text = f"{outcome.listener}: {outcome.inputs:,} inputs, {rate:,.0f} a second, {len(outcome.faults)} faults"
        print(text, end=end, file=sys.stderr, flush=True)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--socket", action="store_true", help="the log socket only")
    parser.add_argument("--port", action="store_true", help="the viewers' port only")
    parser.add_argument(
        "--seed", type=int, help="of the first input; the next ones count on from it (default: the time)"
    )
    parser.add_argument("--inputs", type=int, help=f"for each listener (default: {INPUTS:,} in this process)")
    parser.add_argument("--seconds", type=float, help="for each listener at most")
    parser.add_argument("--real", action="store_true", help="give them to a real relay, over its sockets")
    parser.add_argument("--json", metavar="FILE", help="write what was found")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that what was started ends as well
    seed = time.time_ns() // 1000 if given.seed is None else given.seed
    listeners = [name for name in LANES if getattr(given, name)] or list(LANES)
    print(f"seed {seed}", flush=True)
    found: list[dict[str, object]] = []
    for listener in listeners:
        if given.real:
            seconds = given.seconds or (float("inf") if given.inputs else REAL_SECONDS)
            real = run_real(listener, seed=seed, inputs=given.inputs or INPUTS, seconds=seconds)
            words = f"{listener}, a real relay: {real.inputs:,} inputs, {real.rss_before >> 20} MB before and "
            words += f"{real.rss_after >> 20} after"
            faults = real.faults
            found.append({"listener": listener} | asdict(real))
        else:
            inputs, seconds = given.inputs or INPUTS, given.seconds or float("inf")
            lane = run_lane(listener, seed=seed, inputs=inputs, seconds=seconds, progress=show)
            words = f"{listener}: {lane.inputs:,} inputs in {lane.seconds:,.0f} s, {lane.rss_after >> 20} MB"
            faults = lane.faults
            found.append(asdict(lane))
        print(f"{words}, {len(faults)} faults", flush=True)
        for fault in faults:
            print(f"\n{fault}", flush=True)
    if given.json:
        with open(given.json, "w") as file:
            json.dump({"seed": seed, "found": found}, file, indent=1)
    return 1 if any(one["faults"] for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
