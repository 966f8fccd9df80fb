"""A trader with the real chain: structlog, redaction, LogRelayProcessor. Run as a script, in a process of its own.

Owns: the other end of `RealTrader` and of a `Nursery` of real traders. The only file here that imports a program
under test, and only when it is run.

    python -m tests.support.chaos.real_trader drive SOCKET NAME MAX-BYTES EXIT-SECONDS
                                                 then requests on stdin, answers on stdout: JSON, line by line
    python -m tests.support.chaos.real_trader nursery SOCKET     see `feeder`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.support.chaos import feeder
from tests.support.waiting import DEADLINE_S, wait_for

MODULE = "tests.support.chaos.real_trader"

ROOM = 40
"""Lines a real trader that is going to be killed has on the way at most: so few that the socket is never full, and each
one is in the kernel when the log call returns."""


class RealTrader:
    """Drives a real trader in a process of its own."""

    def __init__(self, path: Path, name: str = "robo", *, max_bytes: int = 1 << 20, exit_s: float = DEADLINE_S) -> None:
        """`exit_s`: how long it may wait at its end for a relay that does not answer."""
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "drive", str(path), name, str(max_bytes), str(exit_s)],
            env=feeder.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def _ask(self, *request: object) -> object:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def log(self, count: int, padding: int = 0, threads: int = 1) -> int:
        """Log so many lines from so many threads; returns the number of lines logged by the process so far."""
        return self._ask("log", count, padding, threads)

    def stats(self) -> dict[str, object]:
        """Return the processor's stats."""
        return self._ask("stats")

    def wait_settled(self, deadline_s: float = DEADLINE_S) -> dict[str, object]:
        """Wait until the relay has every line that was not dropped; returns the stats."""
        wait_for(lambda: self.stats()["pending"] == 0, lambda: f"not settled: {self.stats()}", deadline_s)
        return self.stats()

    def quit(self) -> int:
        """Let it end by itself; returns the exit code."""
        self.process.stdin.close()
        code = self.process.wait(2 * DEADLINE_S)
        self.process.stdout.close()
        return code

    def end(self) -> None:
        """End it whatever its state; for the end of a test."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        self.process.stdin.close()
        self.process.stdout.close()


# --- the other end ------------------------------------------------------------------------------------------------


def set_up(path: str, processor: object):
    """Configure the real chain; the console's lines go nowhere."""
    from robo_trader.logger import get_logger, setup_structlog  # noqa: PLC0415

    setup_structlog(socket=path, relay=processor, stream=open(os.devnull, "w"), form="json")
    return get_logger("load.real")


def make_processor(path: str, name: str, max_bytes: int, exit_s: float = DEADLINE_S):
    """Make the real processor."""
    from robo_trader.logger import LogRelayProcessor  # noqa: PLC0415

    return LogRelayProcessor(path, app=name, max_bytes=max_bytes, exit_timeout=exit_s)


def run_drive(path: str, name: str, max_bytes: str, exit_s: str) -> None:
    """Do what stdin says, line by line; end cleanly when it ends."""
    processor = make_processor(path, name, int(max_bytes), float(exit_s))
    log = set_up(path, processor)
    lock, logged = threading.Lock(), 0

    def some(count: int, padding: int) -> None:
        nonlocal logged
        for _ in range(count):
            with lock:  # so that the number of a line is its place
                logged += 1
                log.info("real", feeder=name, n=logged, padding="x" * padding)

    for line in sys.stdin:
        what, *arguments = json.loads(line)
        if what == "log":
            count, padding, threads = arguments
            crew = [threading.Thread(target=some, args=(count // threads, padding)) for _ in range(threads)]
            for one in crew:
                one.start()
            for one in crew:
                one.join()
            print(json.dumps(logged), flush=True)
        else:
            print(json.dumps(processor.stats()), flush=True)


def run_doomed(path: str, name: str, _run: str, shared_path: str, _reads_acks: bool) -> None:
    """Log until killed, noting each line whose log call has returned while the link was up and the socket had room."""
    shared = feeder.Shared(Path(shared_path))
    processor = make_processor(path, name, 1 << 20)
    log = set_up(path, processor)
    log.info("first words", feeder=name, n=1)
    end = time.monotonic() + DEADLINE_S
    while processor.stats()["acked"] < 1 and time.monotonic() < end:
        time.sleep(0.001)
    n = 1
    while True:
        n += 1
        log.info("last words", feeder=name, n=n, padding="x" * (n * 7 % 200))
        shared.put(feeder.SENT, n)
        while processor.stats()["pending"] > ROOM:
            time.sleep(0.0005)


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        run_drive(*sys.argv[2:])
    else:
        import robo_trader.logger  # noqa: F401  (before the forks, which then cost milliseconds)

        feeder.run_doomed = run_doomed
        feeder.run_nursery(sys.argv[2])
