"""`python -m tests.siege.page FILE [FILE ...]`: writes docs/siege.md from what `make siege ARGS='--json FILE'` kept.

Owns: how the page is made of measures. Of several files the last one that has a row counts, so that a full pass can be
made in parts. Rows that no file has are named below the table. The reading trail ends here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.siege.attack import ATTACKS_ON
from tests.siege.rows import AFTER_BYTES, ANSWER_S, DURING_BYTES, MORE_LATENCY_S, ROWS, Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "siege.md"

TEXT = """\
# The relay under siege

`make siege` attacks both listeners of a relay in {count} ways, each on a relay of its own, and measures who notices:
a healthy bot (200 lines a second), a healthy viewer of its lines, and a health check and a newcomer each second.
An attack goes on for 8 s. What has to hold in every row:

* the relay takes at most {during} MB meanwhile, and {after} MB afterwards;
* the viewer's p99 is at most {more} ms above its own without an attack, where a line that does not come is late;
* health check and newcomer are answered within {answer:.0f} s;
* the bot's log calls take no longer than they do anyway, and every line arrives exactly once;
* nothing that the relay writes has a traceback or a token in it, and it says at most 16 kB on stderr.

    make siege                                             all of it, some 30 minutes
    make siege ARGS=half_frames                            the rows whose names have this in them
    make siege ARGS='--json siege.json'                    keep what was measured
    .venv/bin/python -m tests.siege.page siege.json        write this page anew from it

Which limits keep it so, and why they are what they are, is in [security.md](security.md).

## What was measured

{held} of {measured} rows held, on a machine with two cores that attacker, relay, bot and viewer share.
Times are in milliseconds, those of health check and newcomer are the longest; the relay's memory is in MB.

| attack | MB before, during, after | viewer p50, p99, max | p99 before | health check | newcomer | lost, twice | |
|---|---|---|---|---|---|---|---|
{table}
{missing}
"""


def _said(row: Row) -> str:
    """Return what the attacker does, as its function says it."""
    text = " ".join((ATTACKS_ON[row.listener][row.attack].__doc__ or "").split()).rstrip(".")
    more = [
        "over TLS" if row.tls else "",
        "" if not row.relay_token else "with a good token" if row.knows_token else "without the token",
    ]
    return "; ".join([text, *filter(None, more)])


def _line(row: Row, one: Mapping[str, Any]) -> str:
    """Write one row."""
    viewer, calm = one["attacked"]["watcher"]["viewer"], one["calm"]["watcher"]["viewer"]
    watcher = one["attacked"]["watcher"]
    sizes = ", ".join(f"{one[name] / 2**20:.0f}" for name in ("rss_before", "rss_during", "rss_after"))
    times = ", ".join(f"{viewer[name] * 1e3:.0f}" for name in ("p50", "p99", "max"))
    cells = (
        f"`{row.name}`: {_said(row)}",
        sizes,
        times,
        f"{calm['p99'] * 1e3:.0f}",
        f"{watcher['healthz']['max'] * 1e3:.0f}",
        f"{watcher['newcomer']['max'] * 1e3:.0f}",
        f"{one['lost']}, {one['repeated']}",
        "; ".join(one["faults"]) or "ok",
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def written(outcomes: Iterable[Mapping[str, Any]]) -> str:
    """Return the page for these outcomes, each as `--json` keeps it."""
    by_row = {one["row"]: one for one in outcomes}
    rows = [row for row in ROWS if row.name in by_row]
    missing = [f"`{row.name}`" for row in ROWS if row.name not in by_row]
    return (
        TEXT.format(
            count=len(ROWS),
            during=DURING_BYTES >> 20,
            after=AFTER_BYTES >> 20,
            more=round(MORE_LATENCY_S * 1e3),
            answer=ANSWER_S,
            held=sum(not by_row[row.name]["faults"] for row in rows),
            measured=len(rows),
            table="\n".join(_line(row, by_row[row.name]) for row in rows),
            missing=f"\nNot measured: {', '.join(missing)}.\n" if missing else "",
        ).rstrip("\n")
        + "\n"
    )


def main(files: list[str]) -> int:
    """Write the page."""
    if not files:
        print(__doc__, file=sys.stderr)
        return 2
    outcomes = [one for file in files for one in json.loads(Path(file).read_text())]
    PAGE.write_text(written(outcomes))
    print(f"{PAGE}: {len({one['row'] for one in outcomes})} of {len(ROWS)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
