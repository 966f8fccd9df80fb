"""`python -m robo_trader`: the command line, the signals and the pace of the paper trader.

Owns: options, exit codes (0 stopped or data ended, 2 wrong usage or an unusable file, 1 a failure) and the
wall clock. It must not know what is traded or how. Read `trading/engine` next.
"""

from __future__ import annotations

import argparse
import math
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from robo_trader.logger import get_logger, setup_structlog
    from robo_trader.trading.broker import PaperBroker
    from robo_trader.trading.engine import Engine, run
    from robo_trader.trading.market import SYMBOLS, BarsError, Minute, SimulatedMarket, read_bars
except ModuleNotFoundError as missing:
    if missing.name not in ("msgpack", "structlog"):
        raise
    sys.exit(
        f"robo_trader: {missing.name} is not installed for {sys.executable}; run `make setup`, then .venv/bin/python"
    )

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Clock:
    """Waits between minutes, and ends the waiting at once when a signal or the end of the duration comes.

    A signal handler must not touch locks (an Event could deadlock): it writes a byte into a pipe.
    """

    def __init__(self, speed: float, duration: float | None) -> None:
        """`speed` 0 means without waiting; `duration` is in seconds of wall time."""
        self._speed = speed
        self._end = None if duration is None else time.monotonic() + duration
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._reason: str | None = None

    def catch(self, *signals: signal.Signals) -> None:
        """Stop on these signals. A second one does what it does by default: it ends the process."""
        for number in signals:
            signal.signal(number, self._caught)

    def _caught(self, number: int, _frame: Any) -> None:
        self._reason = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)
        os.write(self._write, b"!")

    def wait(self, seconds: float) -> str | None:
        """Wait for so many seconds at speed 1; return the reason to stop, if there is one."""
        left = seconds / self._speed if self._speed else 0.0
        if self._end is not None:
            left = min(left, self._end - time.monotonic())
        if self._reason is None:
            select.select([self._read], [], [], max(left, 0.0))
        if self._reason is None and self._end is not None and time.monotonic() >= self._end:
            self._reason = "duration"
        return self._reason


def main(argv: Sequence[str] | None = None) -> int:
    """Run the paper trader; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        minutes = _minutes(options)
    except BarsError as error:
        sys.stderr.write(f"robo-trader: {error}\n")
        return 2
    clock = Clock(options.speed, options.duration)
    clock.catch(signal.SIGINT, signal.SIGTERM)
    setup_structlog()
    run(
        Engine(PaperBroker(options.seed)),
        minutes,
        clock.wait,
        seed=options.seed,
        speed=options.speed,
        source=str(options.bars) if options.bars else "simulator",
        symbols=options.symbols or ("all" if options.bars else list(SYMBOLS)),
        pid=os.getpid(),
    )
    return 0  # the relay processor sees to the last lines when the interpreter ends


def _minutes(options: argparse.Namespace) -> Iterable[Minute]:
    if options.bars is None:
        return SimulatedMarket(options.seed, options.symbols or SYMBOLS).minutes()
    log = get_logger("robo_trader.market")
    name = options.bars.name

    def warn(line: int, reason: str) -> None:
        log.warning("bars.row_skipped", file=name, line=line, reason=reason)

    minutes = read_bars(options.bars, warn)
    return _only(minutes, frozenset(options.symbols)) if options.symbols else minutes


def _only(minutes: Iterable[Minute], symbols: frozenset[str]) -> Iterator[Minute]:
    for minute in minutes:
        bars = tuple(bar for bar in minute.bars if bar.symbol.upper() in symbols)
        if bars:
            yield Minute(minute.time, bars, minute.happened, minute.pace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m robo_trader",
        description="A paper trader that trades simulated or recorded bars and logs as a real bot does.",
        epilog="Stops cleanly on Ctrl-C or SIGTERM. Logging is set up by the environment: LOGRELAY_SOCKET, "
        "LOGRELAY_LEVEL, LOGRELAY_EXCLUDE, LOGRELAY_DISABLED, ROBO_LOG_LEVEL, ROBO_LOG_FORMAT.",
    )
    add = parser.add_argument
    add("--seed", type=int, default=1, metavar="N", help="the same seed trades the same (default 1)")
    add("--speed", type=_pace, default=1.0, metavar="X", help="pace; 2 is twice as fast, 0 does not wait")
    add("--bars", type=Path, metavar="FILE.csv", help="trade these bars, then end; needs a header line")
    add(
        "--symbols",
        type=_names,
        metavar="A,B",
        help=f"what to trade (default {','.join(SYMBOLS)}; with --bars: all)",
    )
    add("--duration", type=_pace, metavar="S", help="stop after so many seconds")
    return parser


def _pace(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, not {text!r}")
    return number


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip().upper() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError("names no symbol; write for example AAPL,MSFT")
    return names


if __name__ == "__main__":
    sys.exit(main())
