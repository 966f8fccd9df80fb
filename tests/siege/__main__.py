"""`python -m tests.siege [ROW ...] [--seconds N] [--settle N] [--scale X] [--later N] [--json FILE]
[--list]`: a table for people.

Owns: the command line and the table. ROW is a part of a row's name. The exit code is 1 when a row did not hold.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict

from tests.siege.rows import ROWS
from tests.siege.siege import Outcome, lay_siege

HEAD = (
    f"{'row':<40} {'MB: before':>10} {'during':>7} {'after':>6}  "
    f"{'viewer ms: p50':>14} {'p99':>6} {'max':>6} {'calm p99':>8}  "
    f"{'healthz s':>9} {'newcomer':>8}  {'call us p99':>11} {'calm':>6}  {'lost':>4} {'twice':>5}  outcome"
)


def table_row(one: Outcome) -> str:
    """Write one row of the table."""
    viewer, calm = one.attacked["watcher"]["viewer"], one.calm["watcher"]["viewer"]
    watcher, call = one.attacked["watcher"], one.attacked["trader"]
    before, during, after = (size / 2**20 for size in (one.rss_before, one.rss_during, one.rss_after))
    p50, p99, highest, calm_p99 = (value * 1e3 for value in (viewer["p50"], viewer["p99"], viewer["max"], calm["p99"]))
    return (
        f"{one.row:<40} {before:>10.0f} {during:>7.0f} {after:>6.0f}  "
        f"{p50:>14.1f} {p99:>6.0f} {highest:>6.0f} {calm_p99:>8.0f}  "
        f"{watcher['healthz']['max']:>9.2f} {watcher['newcomer']['max']:>8.2f}  "
        f"{call['p99'] * 1e6:>11.0f} {one.calm['trader']['p99'] * 1e6:>6.0f}  "
        f"{one.lost:>4} {one.repeated:>5}  {'; '.join(one.faults()) or 'ok'}"
    )


def main() -> int:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.siege", description=__doc__)
    parser.add_argument("rows", nargs="*", help="parts of row names; none: all rows")
    parser.add_argument("--listener", choices=("viewers", "traders"))
    parser.add_argument("--seconds", type=float, default=8.0, help="of attack per row")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds for memory to be given back")
    parser.add_argument("--later", type=float, default=0.0, help="say what memory is taken so many seconds after it")
    parser.add_argument("--scale", type=float, default=1.0, help="less than 1: smaller counts")
    parser.add_argument("--python", default="", help="interpreter for the relay, such as another checkout's")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that what was started ends as well
    chosen = [row for row in ROWS if not given.rows or any(part in row.name for part in given.rows)]
    chosen = [row for row in chosen if given.listener in (None, row.listener)]
    if given.list:
        print("\n".join(row.name for row in chosen))
        return 0
    print(HEAD, flush=True)
    outcomes = []
    for row in chosen:
        outcome = lay_siege(
            row,
            seconds=given.seconds,
            settle_s=given.settle,
            later_s=given.later,
            scale=given.scale,
            python=given.python,
        )
        outcomes.append(outcome)
        later = f"; {given.later:.0f} s after it {outcome.rss_later / 2**20:.0f} MB" if given.later else ""
        print(table_row(outcome) + later, flush=True)
        if given.json:  # after each row, so that a pass that is interrupted is not lost
            with open(given.json, "w") as file:
                json.dump([asdict(one) | {"faults": one.faults()} for one in outcomes], file, indent=1)
    held = sum(not outcome.faults() for outcome in outcomes)
    print(f"{held} of {len(outcomes)} rows held")
    return 0 if held == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
