"""How fast the journal is on this machine: `python tests/bench/journal.py [--lines N] [--seconds S] [--dir
D]`.

Prints a small table: lines appended per second by batch size, with the writer thread's CPU and the share of
it that holds the GIL; lines read per second by filter. Bounded to about 20 s by default. Numbers, not a test.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from logrelay.fanout.filters import Filter
from logrelay.journal.interface import Query
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit, Line

T0_US = 1_769_162_400_000_000
SYMBOLS = ("AAPL", "MSFT", "NVDA", "TSLA")
SOURCES = ("runner",) * 60 + ("market",) * 30 + ("strategy",) * 8 + ("risk",) * 2
LEVELS = (10,) * 30 + (20,) * 66 + (30,) * 3 + (40,)
BATCHES = (1, 10, 100, 500, 1000, 2000)
ROWS = 200_000
"""Lines per append measurement, and less when the time is up."""


def make(seqs: range, chance: random.Random) -> list[Line]:
    """Make lines with bodies of about 260 bytes, as the paper trader writes them."""
    lines = []
    for seq in seqs:
        level, source, symbol = chance.choice(LEVELS), chance.choice(SOURCES), chance.choice(SYMBOLS)
        message = "order.rejected" if chance.random() < 1e-4 else "trade.executed"
        body = (
            b'{"type":"log","id":"k3f9ab-%d","level":"INFO","source":"robo_trader.%s","message":"%s","context":{"symbol":'
            b'"%s","quantity":100,"price":187.3312,"order_id":"b9d3-7712","side":"buy","strategy":"momentum"},"timestamp":'
            b'"2026-01-23T10:00:00.123456Z"}' % (seq, source.encode(), message.encode(), symbol.encode())
        )
        lines.append(Line(seq, T0_US + seq * 500, level, f"robo_trader.{source}", 1, body, message, {}))
    return lines


def fresh(place: Path, **kwargs: object) -> SqliteJournal:
    """Make a new journal in the place of the last one."""
    shutil.rmtree(place / "j", ignore_errors=True)
    options = {"max_bytes": 64 << 30} | kwargs
    journal = SqliteJournal(
        str(place / "j" / "journal.db"),
        now_us=lambda: time.time_ns() // 1000,
        random_epoch=lambda: "k3f9ab",
        **options,
    )
    journal.open()
    return journal


class Bystander:
    """A thread that wakes up every millisecond, as an event loop would: how late it is shows who holds the
    GIL."""

    def __init__(self) -> None:
        """Start."""
        self._late: list[float] = []
        self._stop = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            began = time.perf_counter()
            time.sleep(0.001)
            self._late.append(time.perf_counter() - began - 0.001)

    def stop(self) -> str:
        """Return the median and the 99th percentile, in microseconds."""
        self._stop = True
        self._thread.join()
        late = sorted(self._late)
        return f"median {late[len(late) // 2] * 1e6:,.0f} us, 99 % {late[len(late) * 99 // 100] * 1e6:,.0f} us"


def append(
    place: Path, batch: int, seconds: float, sync: str = "normal", max_bytes: int = 64 << 30
) -> tuple[float, float, float]:
    """Append until `seconds` are over; returns lines/s, CPU us per line, milliseconds of the slowest
    commit."""
    journal, chance = fresh(place, sync=sync, max_bytes=max_bytes), random.Random(1)
    ready = make(range(1, 8193), chance)
    seq, took, cpu, slowest = 0, 0.0, 0.0, 0.0
    while took < seconds and seq < ROWS * 2:
        lines = [ready[(seq + n) % 8192]._replace(seq=seq + n + 1) for n in range(batch)]
        commit = Commit(lines)
        began, cpu_began = time.perf_counter(), time.thread_time()
        journal.append(commit)
        slowest = max(slowest, time.perf_counter() - began)
        while journal.due() == 0.0:
            journal.prune()
        journal.checkpoint(idle=False)
        took += time.perf_counter() - began
        cpu += time.thread_time() - cpu_began
        seq += batch
    journal.close()
    return seq / took, cpu / seq * 1e6, slowest * 1e3


def lateness(place: Path, seconds: float) -> tuple[str, str, str]:
    """Return how late a bystander wakes up alone, beside appending, and beside reading."""
    journal, ready = fresh(place), make(range(1, 100_001), random.Random(1))
    commits = [Commit(ready[at : at + 1000]) for at in range(0, len(ready), 1000)]
    bystander = Bystander()
    time.sleep(seconds)
    alone = bystander.stop()
    bystander = Bystander()
    for commit in commits:
        journal.append(commit)
    appending = bystander.stop()
    bystander = Bystander()
    read(journal, len(ready), Filter(), seconds)
    reading = bystander.stop()
    journal.close()
    return alone, appending, reading


def read(
    journal: SqliteJournal, head: int, wanted: Filter, seconds: float, **kwargs: object
) -> tuple[float, float, float]:
    """Read in pages until `seconds` are over; returns matches/s, lines looked at/s, milliseconds of the
    slowest page."""
    options = {"limit": 1000} | kwargs
    after, matches, seen, slowest, took = 0, 0, 0, 0.0, 0.0
    while took < seconds:
        began = time.perf_counter()
        page = journal.page(Query(after, head, filter=wanted, **options))
        spent = time.perf_counter() - began
        took, slowest = took + spent, max(slowest, spent)
        matches += len(page.seqs)
        seen += page.reached - after
        after = 0 if page.complete else page.reached
    return matches / took, seen / took, slowest * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=500_000, help="lines in the journal that is read")
    parser.add_argument("--seconds", type=float, default=0.7, help="time for each measurement")
    parser.add_argument("--dir", default=None, help="where the journal is put (default: the temp directory)")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="journal-bench-", dir=given.dir))
    try:
        print("append          lines/s   CPU us/line   slowest commit ms")
        for batch in BATCHES:
            print("  batch {:5}  {:9,.0f}   {:11.2f}   {:17.1f}".format(batch, *append(place, batch, given.seconds)))
        print("  1000, full  {:9,.0f}   {:11.2f}   {:17.1f}".format(*append(place, 1000, given.seconds, "full")))
        pruning = append(place, 1000, given.seconds * 2, max_bytes=16 << 20)
        print("  1000, prune {:9,.0f}   {:11.2f}   {:17.1f}".format(*pruning))
        print(
            "a bystander is late: alone {}\n  beside appending {}\n  beside reading   {}".format(
                *lateness(place, given.seconds)
            )
        )
        journal, chance = fresh(place), random.Random(2)
        for first in range(1, given.lines + 1, 4000):
            journal.append(Commit(make(range(first, min(first + 4000, given.lines + 1)), chance)))
            journal.checkpoint(idle=False)
        size = Path(journal.path).stat().st_size / given.lines
        print(f"read ({given.lines:,} lines, {size:.0f} bytes each on disk)")
        print("                  matches/s   looked at/s   slowest page ms")
        since = T0_US + given.lines * 400
        for name, wanted, kwargs in [
            ("plain", Filter(), {}),
            ("plain, 4000", Filter(), {"limit": 4000, "max_bytes": 4 << 20}),
            ("level INFO", Filter(level=20), {}),
            ("level WARNING", Filter(level=30), {}),
            ("level ERROR", Filter(level=40), {}),
            ("source 2 %", Filter(sources=("robo_trader.risk",)), {}),
            ("source 60 %", Filter(sources=("*.runner",)), {}),
            ("text, common", Filter(text="executed"), {}),
            ("text, 1 in 10^4", Filter(text="REJECTED"), {}),
            ("text, none", Filter(text="nowhere"), {}),
            ("where, a quarter", Filter(where=(("symbol", "NVDA"),)), {}),
            ("where, none", Filter(where=(("symbol", "NONE"),)), {}),
            ("time", Filter(), {"since_us": since, "until_us": since + 20_000_000}),
        ]:
            print(
                "  {:16}{:11,.0f}   {:11,.0f}   {:15.1f}".format(
                    name, *read(journal, given.lines, wanted, given.seconds / 2, **kwargs)
                )
            )
        began = time.perf_counter()
        journal.levels(100, given.lines - 100)
        print(f"  levels of all lines: {(time.perf_counter() - began) * 1e3:.1f} ms")
        journal.close()
        print(f"peak RSS of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
