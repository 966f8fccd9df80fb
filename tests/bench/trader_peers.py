"""The shippers under test: what a trader's log call goes through, each in a fresh process, and the measuring of it.

Owns: one class per way to ship a line, the events, the burst and the paced measurement. It must not know where the
numbers go. `trader` starts `python trader_peers.py` once per cell. Read `trader` next.

To add a shipper, add a class with `open` and put it into SHIPPERS. A shipper is measured as its manual shows it; what
was chosen where there was a choice is in its `note`.
"""

# ruff: noqa: PLC0415 - a process imports only the shipper that it measures

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import itertools
import logging
import logging.handlers
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout, for robo_trader

from processes import serve_commands

EVENTS = 64
"""Different events that take turns; one alone would sit in every cache."""
SETTLE_SECONDS = 5.0
"""The longest wait for a connection to be up, or for lines to be taken before the next burst."""
BREATH_SECONDS = 0.010
"""Between two bursts: longer than the interpreter's switch interval, so that threads get their turn."""
FILL_SECONDS = 2.0
"""The longest that a stalled or absent collector's buffers are filled for before the measurement."""
FILL_SLOW_SECONDS = 0.2
"""A call that takes this long while filling says that the shipper has come to the point where it waits."""

Call = Callable[[dict[str, Any]], Any]


class Stuck(BaseException):
    """A call did not return in the time the measurement may take. Raised into it by SIGALRM."""


class Shipper:
    """One way to ship. After `open`, `call` ships one event; class attributes say how it takes part."""

    name = ""
    label = ""
    note = ""
    """What favours or burdens it beside the others; printed below the table."""
    needs: tuple[str, ...] = ()
    """Distributions that must be installed."""
    ours = False
    """Speaks wire protocol v1."""
    whole = False
    """A whole logging call (logger, record, handler), not only the shipping step."""

    def __init__(self) -> None:
        self.call: Call = _nothing
        self.produced = 0

    def missing(self) -> str:
        """Say what is not installed; "" if nothing."""
        return ", ".join(name for name in self.needs if not _installed(name))

    def open(self, path: str, state: str) -> None:
        """Begin. `path` is the Unix socket; `state` is up, stalled or down."""

    def ready(self) -> bool:
        """Whether it is connected (or has no way to say so)."""
        return True

    def waiting(self) -> int:
        """How many lines it holds in memory."""
        return 0

    def settled(self) -> bool:
        """Whether it has nothing to do."""
        return not self.waiting()

    def filled(self) -> bool:
        """Whether its buffers are as full as they get when the collector is not there."""
        return False

    def counts(self) -> dict[str, int]:
        """Return what can be known of lost lines. An empty dict: nothing can be known."""
        return {}


def _nothing(_event: dict[str, Any]) -> None:
    return None


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


class Noop(Shipper):
    """The floor."""

    name = "noop"
    label = "no-op processor"
    note = "a Python function that returns its argument: the call, the clock and the machine's noise"

    def open(self, path: str, state: str) -> None:
        def processor(_logger: Any, _method: str, event_dict: dict[str, Any]) -> dict[str, Any]:
            return event_dict

        self.call = lambda event: processor(None, "info", event)

    def counts(self) -> dict[str, int]:
        return {"lost": 0}


class Ours(Shipper):
    """The product's processor, called as structlog calls it."""

    name = "ours"
    label = "logrelay processor"
    note = "the line is in the kernel when the call returns; acked by the relay after its commit"
    ours = True

    def open(self, path: str, state: str) -> None:
        from robo_trader.log_relay import LogRelayProcessor

        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # its line about an absent relay is not for this terminal
        self._processor = processor = LogRelayProcessor(path, app="bench")
        self.call = lambda event: processor(None, "info", event)

    def ready(self) -> bool:
        return bool(self._processor.stats()["state"] == "up")

    def waiting(self) -> int:
        return int(self._processor.stats()["pending"])

    def settled(self) -> bool:
        return bool(self._processor.flush(SETTLE_SECONDS))

    def filled(self) -> bool:
        stats = self._processor.stats()
        return bool(stats["dropped"]["overflow"] or stats["buffered_bytes"] > stats["max_bytes"] * 0.98)

    def counts(self) -> dict[str, int]:
        stats = self._processor.stats()
        return {"lost": sum(stats["dropped"].values()), "kept": stats["pending"]}


class Chain(Shipper):
    """The whole structlog call of robo_trader, with or without the product's processor in it."""

    name = "chain"
    label = "structlog call with logrelay"
    note = "the trader's whole chain: context, level, time, redaction, our processor, JSON line to /dev/null"
    ours = True
    whole = True
    relay = True

    def open(self, path: str, state: str) -> None:
        from robo_trader.logger import get_logger, setup_structlog

        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sink = Path(os.devnull).open("w")
        self._processor = setup_structlog(socket=path, relay=self.relay, form="json", stream=sink, hooks=False)
        info = get_logger("robo_trader.runner").info

        def call(event: dict[str, Any]) -> None:
            info("trade.executed", **event)

        self.call = call

    def ready(self) -> bool:
        return not self.relay or self._processor.stats()["state"] == "up"

    def waiting(self) -> int:
        return int(self._processor.stats()["pending"]) if self.relay else 0

    def settled(self) -> bool:
        return not self.relay or bool(self._processor.flush(SETTLE_SECONDS))

    def filled(self) -> bool:
        if not self.relay:
            return True
        stats = self._processor.stats()
        return bool(stats["dropped"]["overflow"] or stats["buffered_bytes"] > stats["max_bytes"] * 0.98)

    def counts(self) -> dict[str, int]:
        if not self.relay:
            return {"lost": 0}
        stats = self._processor.stats()
        return {"lost": sum(stats["dropped"].values()), "kept": stats["pending"]}


class ChainAlone(Chain):
    """The same chain without a shipper."""

    name = "chain-alone"
    label = "structlog call without a shipper"
    note = "the same chain without our processor: what the trader pays anyway"
    ours = False
    relay = False


class Fluent(Shipper):
    """fluent-logger's asyncsender, as its manual shows it."""

    name = "fluent"
    label = "fluent asyncsender"
    note = "its defaults: a queue of 100 lines, then the caller waits; whole seconds as time; no acks"
    needs = ("fluent-logger",)
    options: dict[str, Any] = {}

    def open(self, path: str, state: str) -> None:
        from fluent import asyncsender

        self.overflowed = 0
        options = dict(self.options)
        if options.get("queue_circular"):
            options["queue_overflow_handler"] = self._overflow
        self._sender = sender = asyncsender.FluentSender(
            "bench", host=f"unix://{path}", buffer_overflow_handler=self._discarded, **options
        )
        self.discarded_bytes = 0
        emit = sender.emit
        self.call = lambda event: emit("trade", event)

    def _overflow(self, _data: bytes) -> None:
        self.overflowed += 1

    def _discarded(self, data: bytes) -> None:
        import msgpack

        unpacker = msgpack.Unpacker(max_buffer_size=1 << 26)
        unpacker.feed(data)
        self.overflowed += sum(1 for _ in unpacker)

    def waiting(self) -> int:
        return self._sender._queue.qsize()

    def filled(self) -> bool:
        return self._sender._queue.full()

    def counts(self) -> dict[str, int]:
        return {"lost": self.overflowed, "kept": self._sender._queue.qsize()}


class FluentRoomy(Fluent):
    """The same with room for every burst: the fastest it gets."""

    name = "fluent-roomy"
    label = "fluent asyncsender, queue 100,000"
    note = "a queue that no burst here fills: the fastest it gets; what is in it dies with the process"
    options = {"queue_maxsize": 100_000}


class FluentCircular(Fluent):
    """The same with a bounded queue that drops."""

    name = "fluent-circular"
    label = "fluent asyncsender, circular"
    note = "queue_circular=True, 100 lines: never waits, drops the oldest in a burst"
    options = {"queue_circular": True}


class Logging(Shipper):
    """Base of those that hang on a logging.Handler."""

    whole = True

    def _through(self, handler: logging.Handler) -> None:
        logger = logging.Logger("bench", logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
        info = logger.info

        def call(event: dict[str, Any]) -> None:
            info("trade.executed", extra=event)

        self.call = call


class _CountingSocketHandler(logging.handlers.SocketHandler):
    """SocketHandler that counts what it throws away; the standard one does not say."""

    lost = 0

    def send(self, s: bytes) -> None:
        super().send(s)
        if self.sock is None:
            self.lost += 1

    def handleError(self, record: logging.LogRecord) -> None:
        self.lost += 1
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class Socket(Logging):
    """The standard library's SocketHandler."""

    name = "socket"
    label = "SocketHandler"
    note = "the whole logging call; sends from the caller, waits for the peer; pickles the record"

    def open(self, path: str, state: str) -> None:
        self._handler = _CountingSocketHandler(path, None)
        self._through(self._handler)

    def counts(self) -> dict[str, int]:
        return {"lost": self._handler.lost}


class Queued(Logging):
    """QueueHandler in front of a SocketHandler."""

    name = "queued"
    label = "QueueHandler + SocketHandler"
    note = "the whole logging call; its queue has no bound, so nothing is lost until the memory is"

    def open(self, path: str, state: str) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(-1)
        self._handler = _CountingSocketHandler(path, None)
        logging.handlers.QueueListener(self._queue, self._handler).start()
        self._through(logging.handlers.QueueHandler(self._queue))

    def waiting(self) -> int:
        return self._queue.qsize()

    def counts(self) -> dict[str, int]:
        return {"lost": self._handler.lost, "kept": self._queue.qsize()}


class OpenTelemetry(Shipper):
    """The SDK's BatchLogRecordProcessor."""

    name = "otel"
    label = "OpenTelemetry batch processor"
    note = (
        "Logger.emit into BatchLogRecordProcessor with its defaults and an in-process exporter that discards (up), "
        "sleeps for ever (stalled) or fails (down): it is spared encoding and the network; drops silently over 2,048"
    )
    needs = ("opentelemetry-sdk",)

    def open(self, path: str, state: str) -> None:
        from opentelemetry._logs import SeverityNumber
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult

        shipper = self
        self.exported = self.made = 0
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it warns about each line it drops

        class Exporter(LogRecordExporter):
            def export(self, batch: Any) -> Any:
                if state == "stalled":
                    threading.Event().wait()
                if state == "down":
                    return LogRecordExportResult.FAILURE
                shipper.exported += len(batch)
                return LogRecordExportResult.SUCCESS

            def shutdown(self) -> None:
                pass

            def force_flush(self, timeout_millis: int = 0) -> bool:
                return True

        provider = LoggerProvider(shutdown_on_exit=False)
        self._processor = BatchLogRecordProcessor(Exporter())
        provider.add_log_record_processor(self._processor)
        emit = provider.get_logger("robo_trader.runner").emit
        severity = SeverityNumber.INFO
        time_ns = time.time_ns

        def call(event: dict[str, Any]) -> None:
            emit(
                timestamp=time_ns(),
                severity_number=severity,
                severity_text="INFO",
                body="trade.executed",
                attributes=event,
            )

        self.call = call

    def waiting(self) -> int:
        return len(self._processor._batch_processor._queue)

    def settled(self) -> bool:
        return self.waiting() < 512  # less than a batch waits for its timer

    def filled(self) -> bool:
        return self.waiting() >= 2048

    def counts(self) -> dict[str, int]:
        kept = self.waiting()
        return {"lost": max(0, self.produced - self.exported - kept), "kept": kept}


SHIPPERS: tuple[type[Shipper], ...] = (
    Noop,
    Ours,
    ChainAlone,
    Chain,
    Fluent,
    FluentRoomy,
    FluentCircular,
    Socket,
    Queued,
    OpenTelemetry,
)


# --- events ----------------------------------------------------------------------------------------------


def events(keys: int, *, bare: bool) -> list[dict[str, Any]]:
    """Return EVENTS different event dicts of `keys` keys. `bare`: without event, level and logger, which a whole
    logging call adds itself."""
    made = []
    for n in range(EVENTS):
        event: dict[str, Any] = (
            {} if bare else {"event": "trade.executed", "level": "info", "logger": "robo_trader.runner"}
        )
        fields = itertools.chain(
            (
                ("symbol", ("AAPL", "MSFT", "NVDA", "GOOG")[n % 4]),
                ("side", "buy" if n % 3 else "sell"),
                ("quantity", 10 + n * 37 % 490),
                ("price", 10 + n * 7919 % 99991 / 100),
                ("order_id", f"a{n:05d}-{n * 7919 % 9973}"),
                ("strategy", f"s{n % 100:02d}"),
                ("filled", n % 2 == 0),
            ),
            ((f"factor_{i:02d}", i * 0.25 + n) for i in itertools.count()),
        )
        event.update(itertools.islice(fields, keys - 3))
        made.append(event)
    return made


# --- the measuring ------------------------------------------------------------------------------------------


shipper: Shipper = Noop()
_list: list[dict[str, Any]] = []


def begin(name: str, path: str, state: str, keys: int, *, company: bool = False) -> dict[str, Any]:
    """Open the shipper and make one call; returns once it is connected (where it can say so and is to be).

    `first_ns` is what that call took: the first of the process. `company`: while another thread runs, as in most bots.
    """
    global shipper, _list
    shipper = next(kind for kind in SHIPPERS if kind.name == name)()
    _list = events(keys, bare=shipper.whole or name == "otel")
    shipper.open(path, state)
    if company:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        time.sleep(BREATH_SECONDS)
    start = time.perf_counter_ns()
    shipper.call(_list[0])
    first_ns = time.perf_counter_ns() - start
    shipper.produced += 1
    if state != "down":
        end = time.monotonic() + SETTLE_SECONDS
        while not shipper.ready():
            if time.monotonic() > end:
                raise TimeoutError(f"{name} did not connect")
            time.sleep(0.005)
    return {"pid": os.getpid(), "first_ns": first_ns}


def _burst(count: int) -> tuple[int, int]:
    """Return the nanoseconds that `count` calls in a row took, and `count`."""
    call, turns = shipper.call, iter(list(itertools.islice(itertools.cycle(_list), count)))
    start = time.perf_counter_ns()
    try:
        for event in turns:
            call(event)
    except Stuck as stuck:
        raise Stuck(count - turns.__length_hint__()) from stuck
    return time.perf_counter_ns() - start, count


def warm(count: int) -> dict[str, Any]:
    """Make calls that are not measured."""
    left = count
    while left > 0:
        size = min(left, 200)
        _burst(size)
        shipper.produced += size
        left -= size
        time.sleep(BREATH_SECONDS)
    return {}


def fill() -> dict[str, Any]:
    """Log until the shipper's memory is full, a call waits, or FILL_SECONDS are over."""
    call, end = shipper.call, time.monotonic() + FILL_SECONDS
    made, slowest = 0, 0.0
    old = signal.signal(signal.SIGALRM, _stuck)
    signal.setitimer(signal.ITIMER_REAL, FILL_SECONDS)
    try:
        while time.monotonic() < end and not shipper.filled():
            for event in _list:
                start = time.perf_counter()
                call(event)
                made += 1
                slowest = max(slowest, time.perf_counter() - start)
            if slowest > FILL_SLOW_SECONDS:
                break
    except Stuck:
        slowest = FILL_SECONDS
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    shipper.produced += made
    return {"made": made, "slowest_s": slowest, "filled": shipper.filled()}


def _stuck(_number: int, _frame: object) -> None:
    raise Stuck


def measure(
    bursts: int, size: int, seconds: float, rate: float, threads: int, settle: bool, limit: float
) -> dict[str, Any]:
    """Measure bursts, then a paced run; one thread is this one, more are started for each part.

    Returns ns per call of each burst, the paced calls' ns in order, CPU seconds of the whole process per paced line,
    and what garbage collection did. `settle`: between bursts wait until the shipper holds nothing.
    """
    said: dict[str, Any] = {"bursts": [], "paced": [], "stuck": False}
    collections = sum(stat["collections"] for stat in gc.get_stats())
    old = signal.signal(signal.SIGALRM, _stuck)
    began = time.perf_counter()
    waited = 0.0
    try:
        for _ in range(bursts):
            signal.setitimer(signal.ITIMER_REAL, limit, limit)
            took, made = _burst(size) if threads == 1 else _bursts_together(size // threads, threads)
            shipper.produced += made
            signal.setitimer(signal.ITIMER_REAL, 0)
            said["bursts"].append(took / made)
            pause = time.perf_counter()
            time.sleep(BREATH_SECONDS)
            end = time.monotonic() + SETTLE_SECONDS
            while settle and not shipper.settled() and time.monotonic() < end:
                time.sleep(BREATH_SECONDS / 10)
            waited += time.perf_counter() - pause
        if seconds:
            cpu = time.process_time()
            before = shipper.produced
            signal.setitimer(signal.ITIMER_REAL, seconds + limit, limit)
            if threads == 1:
                _pace(rate, seconds, 0.0, said["paced"])
            else:
                _pace_together(rate, seconds, threads, said["paced"])
            signal.setitimer(signal.ITIMER_REAL, 0)
            shipper.produced = before + len(said["paced"])
            end = time.monotonic() + SETTLE_SECONDS
            while settle and not shipper.settled() and time.monotonic() < end:
                time.sleep(BREATH_SECONDS)
            said["cpu_us"] = (time.process_time() - cpu) * 1e6 / max(1, len(said["paced"]))
    except Stuck as stuck:
        said["stuck"] = True
        said["calls_in_limit"] = sum(stuck.args) + len(said["paced"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    said["took_s"] = time.perf_counter() - began
    said["gc"] = {
        "enabled": gc.isenabled(),
        "threshold": gc.get_threshold(),
        "collections": sum(stat["collections"] for stat in gc.get_stats()) - collections,
    }
    said["counts"] = shipper.counts()
    said["produced"] = shipper.produced
    said["waiting"] = shipper.waiting()
    return said


def _pace(rate: float, seconds: float, phase: float, into: list[int]) -> None:
    """Make a call at each tick of `rate`, asleep in between, as a bot that logs now and then."""
    call, clock, sleep = shipper.call, time.perf_counter_ns, time.sleep
    step = int(1e9 / rate)
    cycle = itertools.cycle(_list)
    due = clock() + int(phase * 1e9)
    end = due + int(seconds * 1e9)
    while due < end:
        left = due - clock()
        if left > 0:
            sleep(left / 1e9)
        event = next(cycle)
        start = clock()
        call(event)
        into.append(clock() - start)
        due += step
        if clock() - due > 1e9:  # fell behind by a second: what was due then is not made up for
            due = clock()


def _together(threads: int, work: Callable[[int], None]) -> int:
    """Run `work(index)` in threads that begin at one moment; return the nanoseconds until the last was done."""
    gate = threading.Barrier(threads + 1)

    def run(index: int) -> None:
        gate.wait()
        work(index)

    team = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(threads)]
    for thread in team:
        thread.start()
    gate.wait()
    start = time.perf_counter_ns()
    for thread in team:
        thread.join()
    return time.perf_counter_ns() - start


def _bursts_together(size: int, threads: int) -> tuple[int, int]:
    return _together(threads, lambda _: _burst(size) and None), size * threads


def _pace_together(rate: float, seconds: float, threads: int, into: list[int]) -> None:
    parts: list[list[int]] = [[] for _ in range(threads)]
    _together(threads, lambda i: _pace(rate / threads, seconds, i / rate, parts[i]))
    for part in parts:
        into.extend(part)


if __name__ == "__main__":
    serve_commands({"begin": begin, "warm": warm, "fill": fill, "measure": measure})
