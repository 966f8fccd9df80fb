"""Builds the relay from a Config, starts it, and ends it in the right order.

Owns: the event loop, signals, the order of start and stop, the ready line, the watchdog. It is the only module that
knows all the others; it makes no decision about lines. Read `relay` next.

Start: journal, log socket, viewers' port, READY. Stop (SIGTERM, SIGINT): accept nobody, take what is in the sockets,
commit, ack, send the viewers what is committed, close them with 1012, exit 0; all within `STOP_TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import secrets
import signal
import socket
import string
import sys
import time
from collections.abc import Callable

from logrelay import __version__
from logrelay.config.settings import GOOD_TOKEN_CHARS, MEMORY, Config, is_loopback
from logrelay.errors import JournalError, RelayError
from logrelay.ingest.server import TraderServer
from logrelay.journal.interface import Journal, Opening
from logrelay.journal.writer_thread import Writer
from logrelay.listeners import Listeners, open_listeners
from logrelay.model import RANKS
from logrelay.pipeline import Relay
from logrelay.systemd import Notifier, inherited_sockets, watchdog_interval
from logrelay.viewers.access_policy import AccessPolicy
from logrelay.viewers.server import ViewerServer
from logrelay.viewers.service import PlainHttp, ViewerService

STOP_TIMEOUT_S = 8.0
"""For everything from the signal to the exit; systemd's TimeoutStopSec in our unit is 10."""

SETTLE_TIMEOUT_S = 4.0
"""Of it for the last commit: a disk that stalls longer leaves the lines to the traders, which still have them."""

HAND_OVER_S = 1.0
"""Of it for viewers that are a moment behind; a sleeping phone must not hold up the end."""

CLOSE_TIMEOUT_S = 2.0
"""Of it for the viewers' closing handshakes."""

GC_THRESHOLD = (50_000, 20, 20)
"""Lines are born and die in thousands without cycles; Python's default of 700 would search for cycles a hundred
times a second under load."""

SWITCH_INTERVAL_S = 0.001
"""How long the loop and the journal's thread may keep the interpreter from each other; Python's default of 5 ms would
be the whole latency that a line is promised at the worst."""

EPOCH_CHARS = string.ascii_lowercase + string.digits


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code; raises RelayError when the start fails."""
    _raise_fd_limit()
    _let_traders_go_first()
    inherited = inherited_sockets(os.environ, os.getpid())
    journal = _journal(config)
    opening = journal.open()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(_serve(config, journal, opening, inherited))
        except RelayError:
            # The doors did not open. Later the journal is its thread's to close: if the disk hangs, we must not.
            journal.close()
            raise


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed; everything works without it, at a third of the speed."""
    try:
        import uvloop  # noqa: PLC0415  (optional, and costly to import for --help)
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _random_text(length: int) -> str:
    return "".join(secrets.choice(EPOCH_CHARS) for _ in range(length))


def _journal(config: Config) -> Journal:
    if config.journal == MEMORY:
        from logrelay.journal.memory import MemoryJournal  # noqa: PLC0415  (only one of the two is needed)

        return MemoryJournal(random_epoch=lambda: _random_text(6))
    from logrelay.journal.sqlite import SqliteJournal  # noqa: PLC0415

    return SqliteJournal(
        config.journal,
        sync="full" if config.sync == "full" else "normal",
        max_age_s=config.keep_days * 86_400,
        max_bytes=config.keep_bytes,
        now_us=lambda: time.time_ns() // 1000,
        random_epoch=lambda: _random_text(6),
    )


def _raise_fd_limit() -> None:
    """Allow as many connections as the system lets us have; the soft limit of 1,024 is for select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _let_traders_go_first() -> None:
    """Have the scheduler wake us without pushing aside who runs: the bot on this core finishes its thought first.

    Measured with trader and relay on two busy cores: p99 of a log call from 150 to 66 µs. Under our systemd unit the
    call is filtered, and CPUSchedulingPolicy= says the same.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def say(text: str) -> None:
    """Print one line of talk on stderr; a closed stderr is no reason to end."""
    with contextlib.suppress(OSError, ValueError):
        print(f"logrelay: {text}", file=sys.stderr, flush=True)  # noqa: T201  (stderr is where talk goes)


async def _serve(config: Config, journal: Journal, opening: Opening, inherited: list[socket.socket]) -> int:
    loop = asyncio.get_running_loop()
    notifier = Notifier(os.environ)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    lowest = RANKS[config.log_level]
    relay = Relay(
        opening,
        loop=loop,
        quiet_after_s=config.quiet_after,
        max_lag=config.max_lag,
        tail=config.tail,
        random_text=_random_text,
        say=lambda rank, text: say(text) if rank >= lowest else None,
    )
    writer = Writer(
        journal,
        loop.call_soon_threadsafe,
        on_committed=relay.on_committed,
        on_trouble=relay.on_trouble,
        on_recovered=relay.on_recovered,
    )
    exit_code = 0

    def give_up(_why: str) -> None:
        nonlocal exit_code
        exit_code = JournalError.exit_code
        stop.set()

    relay.hopeless = give_up
    policy = AccessPolicy(config.token, config.host, config.allow_hosts, config.allow_origins)
    service = ViewerService(relay, policy, tail=config.tail, version=__version__, loop=loop, make_http=_http_api)
    viewers = ViewerServer(service, max_viewers=config.max_viewers, compression=config.compression, loop=loop)
    ingest = TraderServer(relay, max_connections=config.max_traders, loop=loop)

    listeners = open_listeners(config, inherited)
    try:
        for sock in listeners.trader_sockets:
            await ingest.serve(sock)
        for sock in listeners.viewer_sockets:
            await viewers.listen(sock)
    except OSError:
        listeners.close()
        raise
    writer.start(opening.head, opening.oldest)
    relay.start(ingest, writer)
    service.begin()
    if config.token is not None and len(config.token) < GOOD_TOKEN_CHARS and not is_loopback(config.host):
        say(f"the token has {len(config.token)} characters and can be guessed; use {GOOD_TOKEN_CHARS} or more")
    status = f"ready on ws://{listeners.viewer_authority}, log socket {config.socket}, journal {config.journal}"
    say(status)
    notifier.ready(status)
    # What was needed to start is not garbage: keep the collector from looking at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    watchdog = asyncio.create_task(_watch(notifier, watchdog_interval(os.environ, os.getpid())))

    await stop.wait()
    notifier.stopping()
    service.end()
    await _stop(relay, listeners, ingest, viewers, writer)
    watchdog.cancel()
    notifier.close()
    return exit_code


async def _stop(
    relay: Relay, listeners: Listeners, ingest: TraderServer, viewers: ViewerServer, writer: Writer
) -> None:
    """Take what is there, commit it, ack it, show it; then close every door. At most STOP_TIMEOUT_S."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + STOP_TIMEOUT_S
    viewers.stop_accepting()
    listeners.remove_file()
    await ingest.drain()
    if not await relay.settle(SETTLE_TIMEOUT_S):
        say(f"{relay.pending_lines} lines not committed in {SETTLE_TIMEOUT_S:.0f} s; the traders still have them")
    await ingest.close()
    await relay.hand_over(HAND_OVER_S)
    await viewers.close(1012, "the relay is stopping", min(CLOSE_TIMEOUT_S, deadline - loop.time()))
    relay.close()
    await asyncio.to_thread(writer.stop, max(0.1, deadline - loop.time()))


def _http_api(service: ViewerService) -> PlainHttp:
    """Make what answers plain HTTP; called once somebody asks: a relay that only streams need not load it."""
    from logrelay.http.api import HttpApi  # noqa: PLC0415

    return HttpApi(service)


async def _watch(notifier: Notifier, interval_s: float | None) -> None:
    """Tell the service manager that the loop turns; a loop that hangs is restarted by it."""
    while interval_s is not None:
        notifier.watchdog()
        await asyncio.sleep(interval_s)
