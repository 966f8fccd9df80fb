"""What alerts cost the lines: from the log socket to a viewer, with services that answer, hang, refuse and push back.

Owns: one relay for each kind of service, all of them at once, each with a bot that logs errors and a viewer; they are
measured in turns, so that whatever else the machine does meets all of them alike. It must not judge. Read `report`
next.

    .venv/bin/python -m tests.bench.alerts          some two minutes
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from websockets.sync.client import connect

from tests.support.chaos.relay import Relay
from tests.support.http import Trader
from tests.support.ports import free_port
from tests.support.services import Receiver
from tests.support.waiting import wait_for

ROUNDS = 8
LINES = 300
"""Of a relay in a round."""
PAUSE_S = 0.005
"""Between a line's arrival and the next line: some hundred errors a second, for as long as a round takes."""
WAIT_S = 10.0


class Case:
    """A relay, its bot and its viewer; `url` is where its alerts go, None: it has none."""

    def __init__(self, name: str, home: Path, url: str | None) -> None:
        self.name = name
        home.mkdir()
        self.relay = Relay(home)
        if url is not None:
            config = home / "relay.toml"
            config.write_text(f'[[alert]]\nurl = "{url}"\ncooldown = "1s"\nmax_per_hour = 1000\n')
            self.relay.options += ["--config", str(config)]
        self.has_alerts = url is not None
        self.latencies: list[float] = []
        self._count = 0

    def start(self, stack: contextlib.ExitStack) -> None:
        """Start it; `stack` ends it."""
        stack.callback(self.relay.end)
        self.relay.start()
        self._trader = stack.enter_context(contextlib.closing(Trader(self.relay.socket, "bench")))
        self._viewer = stack.enter_context(connect(f"ws://127.0.0.1:{self.relay.port}/?tail=0", max_size=None))

    def measure(self) -> None:
        """Log the lines of a round, each an error of its own, and take the time until the viewer has it."""
        for _ in range(LINES):
            self._count += 1
            mark = "".join(chr(97 + int(digit)) for digit in str(self._count))
            begun = time.perf_counter()
            self._trader.log(f"order {mark} rejected", "error")
            while mark not in str(self._viewer.recv(WAIT_S)):
                pass
            self.latencies.append(time.perf_counter() - begun)
            time.sleep(PAUSE_S)

    def row(self) -> list[str]:
        """Return its row of the table."""
        ordered = sorted(self.latencies)
        times = [f"{1000 * ordered[int(share * (len(ordered) - 1))]:.1f}" for share in (0.5, 0.99, 1.0)]
        if not self.has_alerts:
            return [self.name, *times, "-", "-"]
        counts = [f"{self.relay.metric(f'alerts_{what}_total'):,.0f}" for what in ("sent", "failed")]
        return [self.name, *times, *counts]


def run(rounds: int) -> list[Case]:
    """Measure every case in turns."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory()))
        receivers = [Receiver() for _ in range(3)]
        for receiver, answer in zip(
            receivers, (lambda _: (200, {}), lambda _: None, lambda _: (429, {"Retry-After": "1"})), strict=True
        ):
            stack.callback(receiver.close)
            receiver.answer = answer
        answering, hanging, pushing = (receiver.url for receiver in receivers)
        urls = {
            "no alerts": None,
            "a service that answers": answering,
            "one that never answers": hanging,
            "one that answers with 429": pushing,
            "one that refuses": f"json://127.0.0.1:{free_port()}/",
        }
        cases = [Case(name, home / str(number), url) for number, (name, url) in enumerate(urls.items())]
        for case in cases:
            case.start(stack)
        for case in cases[1:]:
            wait_for(lambda case=case: json.loads(case.relay.get("/alerts")[1])["services"], "the alerts' process")
        for number in range(rounds):
            for case in cases[number % len(cases) :] + cases[: number % len(cases)]:
                case.measure()
        rows = [case.row() for case in cases]
    print("| alerts | p50 | p99 | longest | sent | failed |\n|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return cases


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description="Latency of lines, in ms, beside services of alerts in every state.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    run(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
