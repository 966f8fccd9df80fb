"""Builds the relay from the settings, starts it, and ends it in the right order.

Owns: the event loop, signals, the order of start and stop, the ready line, the watchdog. It is the only module that
knows all the others; it makes no decision about lines. Read `ingest/server` next: it is where a line comes in.

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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from logrelay import __version__
from logrelay.access.token_keeper import TokenKeeper
from logrelay.config.loading import Effective, require_token
from logrelay.config.reloading import ALERT_SETTINGS, Changes, compare, words
from logrelay.config.settings import MEMORY, Config
from logrelay.config.trade_names import read_trade_names
from logrelay.errors import ConfigError, JournalError, ListenError
from logrelay.faults import FaultReport
from logrelay.hangup import Hangups
from logrelay.ingest.server import TraderServer
from logrelay.journal.interface import Journal, Keeping, Opening
from logrelay.journal.writer_thread import JournalThread
from logrelay.listeners import Listeners, SocketFileWatch, open_listeners, overridden
from logrelay.model import ERROR, RANKS, WARNING, CollectedRow
from logrelay.pipeline import OtherMachines, Pipeline
from logrelay.progress import Progress, Work
from logrelay.run_table import most_runs
from logrelay.systemd import Notifier, inherited_sockets, keeps_out, watchdog_interval
from logrelay.tls import TlsFiles, tls_files
from logrelay.viewers.access_policy import AccessPolicy
from logrelay.viewers.alerting import CurrentAlerts
from logrelay.viewers.devices import Devices
from logrelay.viewers.limit_report import LimitReport
from logrelay.viewers.server import ViewerServer
from logrelay.viewers.service import PlainHttp, ViewerService
from logrelay.visible_text import visible

if TYPE_CHECKING:
    from logrelay.alerts.link import Alerts
    from logrelay.alerts.task import Task

STOP_TIMEOUT_S = 8.0
"""For everything from the signal to the exit; systemd's TimeoutStopSec in our unit is 10."""

COMMIT_TIMEOUT_S = 4.0
"""Of it for the last commit: a disk that stalls longer leaves the lines to the traders, which still have them."""

DELIVERY_TIMEOUT_S = 1.0
"""Of it for viewers that are a moment behind; a suspended phone must not hold up the end."""

FORWARD_TIMEOUT_S = 0.5
"""Of it for the last lines on their way to other machines; what does not get there stays in the journal."""

CLOSE_TIMEOUT_S = 2.0
"""Of it for the viewers' closing handshakes."""

MIN_CLOSE_S = 0.1
"""The journal's thread gets this long to close the journal even when all the time has been used up before."""

GC_THRESHOLD = (50_000, 20, 20)
"""Lines are born and die in thousands without cycles; Python's default of 700 would search for cycles a hundred
times a second under load."""

SWITCH_INTERVAL_S = 0.001
"""How long the loop and the journal's thread may keep the interpreter from each other; Python's default of 5 ms would
be the whole latency that a line is promised at the worst."""

STATUS_INTERVAL_S = 2.0
"""How old the text in `systemctl status` may be; it is sent only when it has changed."""

ID_CHARS = string.ascii_lowercase + string.digits
"""Epochs and provisional epochs are made of these. They are part of every line's id, which people read out,
type and put into URLs: one case only, and nothing that needs escaping; nor the hyphen and the dot of an id."""

EPOCH_LENGTH = 6
"""36^6 is two thousand million: no viewer will meet the same epoch twice, and an id stays short."""

DAY_S = 86_400

PLAIN_TEXT_WARNING = (
    "viewers from other machines come in plain text, so whoever is on the way can read the log and the token; "
    "give --tls-cert and --tls-key, or have them come through a VPN or a proxy with TLS"
)

SOCKET_CHECK_S = 1.0
"""How often the log socket's file is looked at: a trader that finds none tries again about as often."""


TOKEN_CHECK_S = 0.5
"""How often the token file is looked at, and the time of each token: a revoked one is promised to be out within a
second. It costs one stat(2)."""


def run(
    config: Config,
    *,
    origins: Mapping[str, str] = MappingProxyType({}),
    read_again: Callable[[], Effective] | None = None,
    hangups: Hangups | None = None,
    on_ready: Callable[[str], None] = lambda _page: None,
) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code; raises RelayError when the start fails.

    `origins` says where each setting came from, as `Effective` does. `read_again` works the settings out anew, for
    SIGHUP, and may raise ConfigError; None: they stay. `hangups` takes that signal already. `on_ready` is called once,
    when the relay serves, with the URL of its page; it must not block.
    """
    hangups = Hangups() if hangups is None else hangups
    in_use = Effective(config, origins, ())
    reread = read_again if read_again is not None else lambda: in_use
    _raise_fd_limit()
    _let_traders_go_first()
    tls = tls_files(config.tls_cert, config.tls_key)
    inherited = inherited_sockets(os.environ, os.getpid())
    tokens = TokenKeeper(config.tokens, config.token)
    for sock in inherited:
        if config.token is not None and sock.family != socket.AF_UNIX:
            require_token(str(sock.getsockname()[0]), config.token, "the inherited address")
    forward, collect = _forward(config), _collect(config)
    _require_apprise(config)
    journal = _journal(config)
    # Most often a name with a typing error in it. Where nobody has named one it is made as the docs say.
    missing = _missing_directory(config.journal) if origins.get("journal", "default") != "default" else None
    missing_socket = _missing_directory(config.socket) if origins.get("socket", "default") != "default" else None
    try:
        opening = journal.open()
    except JournalError:
        remedy = keeps_out(os.environ, config.journal)
        if remedy is None:
            raise
        # A setting that the unit does not go with: trying again for ever would not help.
        raise ConfigError(f"journal {config.journal} cannot be written: {remedy}") from None
    try:
        listeners = open_listeners(config, inherited)
    except ListenError:
        journal.close()  # nobody uses it yet; from now on it belongs to the relay's parts
        raise
    if missing is not None:
        print_stderr(f"{missing} was not there and was made, for journal {config.journal}")
    if missing_socket is not None and listeners.unix is not None:
        print_stderr(f"{missing_socket} was not there and was made, for the log socket {config.socket}")
    ineffective = overridden(config, origins, listeners)
    if ineffective is not None:
        print_stderr(ineffective)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        addresses = [str(sock.getsockname()[0]) for sock in listeners.viewer_sockets]
        settings = Reloading(in_use, reread, addresses=addresses)
        return runner.run(
            _serve(settings, hangups, journal, opening, listeners, tokens, tls, forward, collect, on_ready)
        )


def _missing_directory(path: str) -> Path | None:
    """Return the topmost directory that has to be made for a journal or a socket; None: all are there."""
    above = [] if path == MEMORY else list(Path(path).absolute().parents)
    return next((directory for directory in reversed(above) if not directory.exists()), None)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed; everything works without it, only slower."""
    try:
        import uvloop  # noqa: PLC0415  (optional, and costly to import for --help)
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class Forwarding(Protocol):
    """What sends the lines of the journal to other machines; see `machines/forwarding`."""

    def start(self) -> None:
        """Begin."""

    def committed(self, upto: int, oldest: int) -> None:
        """Learn which lines the journal has."""

    def counters(self) -> Mapping[str, int | float]:
        """Return what is counted, by the names in `http.metrics.METRICS`."""

    def link_shown(self) -> Mapping[str, object]:
        """Return how the connection to the servers is, as health checks are told of it."""

    def stop(self, grace_s: float) -> None:
        """Send what is committed as long as that takes no longer, then end. Blocks."""


MakeForwarding = Callable[[Opening, Pipeline[TraderServer], asyncio.AbstractEventLoop], Forwarding]


def _forward(config: Config) -> MakeForwarding | None:
    """Return what makes the forwarding; None: nothing is forwarded, and nothing of it is imported."""
    if not config.forward:
        return None
    from logrelay.machines.forwarding import make_forwarding  # noqa: PLC0415

    return make_forwarding(config, host=socket.gethostname(), random_text=_random_text, version=__version__)


class Collecting(Protocol):
    """What brings the lines of other machines into the journal; see `machines/collecting`."""

    @property
    def overview(self) -> OtherMachines:
        """What is shown of them."""

    def start(self, sink: Pipeline[TraderServer], /) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End; what has been taken is with the sink."""


MakeCollecting = Callable[[Sequence[CollectedRow], asyncio.AbstractEventLoop], Collecting]


def _collect(config: Config) -> MakeCollecting | None:
    """Return what makes the collecting; None: nothing is collected, and nothing of it is imported."""
    if not config.collect:
        return None
    from logrelay.machines.collecting import make_collecting  # noqa: PLC0415

    return make_collecting(config, host=socket.gethostname())


def _wants_alerts(config: Config) -> bool:
    return bool(config.alert) or config.heartbeat is not None


def _require_apprise(config: Config) -> None:
    """Raise ConfigError where alerts are to be sent, and what sends them is not installed."""
    if config.alert:
        from logrelay.alerts.task import require_apprise  # noqa: PLC0415  (most relays do without)

        require_apprise()


def _random_text(length: int) -> str:
    return "".join(secrets.choice(ID_CHARS) for _ in range(length))


def _journal(config: Config) -> Journal:
    if config.journal == MEMORY:
        from logrelay.journal.memory import MemoryJournal  # noqa: PLC0415  (only one of the two is needed)

        return MemoryJournal(random_epoch=lambda: _random_text(EPOCH_LENGTH))
    from logrelay.journal.lone_lines import LoneLineJournal  # noqa: PLC0415
    from logrelay.journal.opening_record import boot_id  # noqa: PLC0415
    from logrelay.journal.sqlite import SqliteJournal  # noqa: PLC0415

    journal = SqliteJournal(
        config.journal,
        sync="full" if config.sync == "full" else "normal",
        max_age_s=config.keep_days * DAY_S,
        max_bytes=config.keep_bytes,
        keep_free=config.keep_free,
        now_us=lambda: time.time_ns() // 1000,
        random_epoch=lambda: _random_text(EPOCH_LENGTH),
        boot=boot_id(),
        text_index=config.text_index == "on",
        on_progress=print_stderr,
    )
    return LoneLineJournal(journal)


def _raise_fd_limit() -> None:
    """Allow as many connections as the system lets us have; the soft limit of 1,024 is for select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _let_traders_go_first() -> None:
    """Have a woken relay not preempt the running process, which may be the bot in the middle of a log call.

    Measured with trader and relay on two busy cores: p99 of a log call from 150 to 66 µs. Under our systemd unit the
    call is filtered, and CPUSchedulingPolicy= says the same.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def print_stderr(text: str) -> None:
    """Print one line for the operator; a closed stderr is no reason to end."""
    with contextlib.suppress(OSError, ValueError):
        print(f"logrelay: {visible(text)}", file=sys.stderr, flush=True)  # noqa: T201  (stderr is the operator's)


class Relay:
    """Every part of one relay, built from the settings; starts and stops them in order. Belongs to one event loop."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        opening: Opening,
        listeners: Listeners,
        loop: asyncio.AbstractEventLoop,
        *,
        tokens: TokenKeeper,
        tls: TlsFiles | None = None,
        forward: MakeForwarding | None = None,
        collect: MakeCollecting | None = None,
    ) -> None:
        """Build the parts around an open journal and bound sockets, which belong to them from now on.

        `opening` is what opening the journal returned; `tls` the certificate of the viewers' port, None: plain text.
        `forward` makes what forwards the lines to other machines, `collect` what brings theirs; None: nothing does.
        Nothing is read or committed before `start`.
        """
        self._forwarding: Forwarding | None = None
        self._tokens = tokens
        self._listeners = listeners
        self._tls = tls
        self._socket_file = SocketFileWatch(listeners)
        self._stderr_rank = RANKS[config.log_level]
        self._stop_requested = asyncio.Event()
        self.exit_code = 0
        """What the process is to end with."""
        self._loop = loop
        self._faults = FaultReport()
        self._collecting = None if collect is None else collect(opening.collected, loop)
        self._pipeline = Pipeline(
            opening,
            make_journal_thread=lambda events: JournalThread(journal, opening, events, loop.call_soon_threadsafe),
            make_trader_server=lambda intake: TraderServer(
                intake, max_connections=config.max_traders, loop=loop, access=listeners.peer_access
            ),
            on_fatal=self._on_fatal,
            on_notice=self._on_notice,
            random_text=_random_text,
            loop=loop,
            quiet_after_s=config.quiet_after,
            max_lag=config.max_lag,
            landing_lines=config.tail,
            max_runs=most_runs(config.keep_bytes),
            after_commit=self._after_commit,
            machines=None if self._collecting is None else self._collecting.overview,
        )
        self._forwarding = None if forward is None else forward(opening, self._pipeline, loop)
        policy = AccessPolicy(
            config.token,
            config.host,
            config.allow_hosts,
            config.allow_origins,
            trusted_proxies=config.trusted_proxy,
        )
        limits = LimitReport(self._on_viewers_limit, loop)
        self._alerts = self._make_alerts(config)
        self._current_alerts = CurrentAlerts(time.monotonic)
        self._current_alerts.use(self._alerts)
        self._alert_changes: set[asyncio.Task[None]] = set()
        """Alerts that are being begun or ended since the settings were read again."""
        self._viewer_service = ViewerService(
            self._pipeline,
            policy,
            devices=Devices(
                opening.devices,
                window_s=config.device_window,
                mono_s=loop.time(),
                wall_us=time.time_ns() // 1000,
            ),
            tail=config.tail,
            version=__version__,
            loop=loop,
            make_http=partial(_http_api, config),
            tokens=tokens,
            limits=limits.counters,
            internal_errors=lambda: self._faults.count,
            encrypted=tls is not None,
            more_counters=self._more_counters,
            links=self._links,
            alerts=self._current_alerts,
        )
        self._viewer_server = ViewerServer(
            self._viewer_service,
            max_viewers=config.max_viewers,
            compression=config.compression,
            loop=loop,
            report=limits,
        )

    async def start(self) -> None:
        """Accept traders and viewers, then begin to commit. If it raises, sockets and journal are closed again."""
        try:
            for sock in self._listeners.trader_sockets:
                await self._pipeline.trader_server.serve(sock)
            for sock in self._listeners.viewer_sockets:
                await self._viewer_server.listen(sock, tls=None if self._tls is None else self._tls.context)
        except BaseException:
            self._listeners.close()
            await self._pipeline.close(CLOSE_TIMEOUT_S)
            raise
        self._pipeline.start()
        self._viewer_service.begin()
        if self._forwarding is not None:
            self._forwarding.start()
        if self._alerts is not None:
            await self._alerts.start()
        if self._collecting is not None:
            self._collecting.start(self._pipeline)

    def _after_commit(self, upto: int, oldest: int) -> None:
        if self._forwarding is not None:
            self._forwarding.committed(upto, oldest)

    def _more_counters(self) -> Mapping[str, int | float]:
        return {} if self._forwarding is None else self._forwarding.counters()

    def _links(self) -> Mapping[str, Mapping[str, object]]:
        """Return how the connections to NATS servers are, those there are."""
        collecting, forwarding = self._collecting, self._forwarding
        return {
            **({} if collecting is None else {"collect": collecting.overview.link_shown()}),
            **({} if forwarding is None else {"forward": forwarding.link_shown()}),
        }

    def _make_alerts(self, config: Config) -> Alerts | None:
        """Return the alerts; None: nobody wants any."""
        if not _wants_alerts(config):
            return None
        from logrelay.alerts.link import Alerts  # noqa: PLC0415  (most relays do without)
        from logrelay.alerts.runtime_file import RuntimeDirectory  # noqa: PLC0415
        from logrelay.alerts.task import STORE_SUFFIX  # noqa: PLC0415

        runtime = None
        if config.journal == MEMORY:
            with contextlib.suppress(OSError):  # without it, the alerts begin anew when their process ends
                runtime = RuntimeDirectory(os.environ)
            store = None if runtime is None else runtime.store
        else:
            store = str(Path(config.journal).resolve()) + STORE_SUFFIX
        return Alerts(
            self._pipeline,
            self._alert_task(config, store),
            ready=lambda: self._viewer_service.ready(),  # noqa: PLW0108  (made after this)
            announce=self._pipeline.announce,
            loop=self._loop,
            start_id=_random_text(EPOCH_LENGTH),
            runtime=runtime,
        )

    def _alert_task(self, config: Config, store: str | None) -> Task:
        from logrelay.alerts.task import Task  # noqa: PLC0415

        secure = "" if self._tls is None else "s"
        page = config.public_url or f"http{secure}://{self._listeners.page_authority}"
        return Task(
            config.alert,
            page.rstrip("/"),
            store,
            heartbeat=config.heartbeat,
            heartbeat_s=config.heartbeat_every,
            expected=config.expect,
        )

    def _change_alerts(self, config: Config) -> None:
        """Have the alerts go on by other settings, begin or end them."""
        alerts = self._alerts
        if alerts is not None and _wants_alerts(config):
            alerts.use(self._alert_task(config, None))
            return
        self._alerts = self._make_alerts(config)
        self._current_alerts.use(self._alerts)
        works = [] if alerts is None else [alerts.stop()]
        works += [] if self._alerts is None else [self._alerts.start()]
        for work in works:
            task = self._loop.create_task(work)
            self._alert_changes.add(task)
            task.add_done_callback(self._alert_changes.discard)

    def summary(self) -> str:
        """Say in a few words how the relay is, for `systemctl status`."""
        trouble, pipeline = self._pipeline.trouble, self._pipeline
        state = "serving" if trouble is None else f"journal in trouble: {trouble};"
        lost = pipeline.lost_traders
        traders = f"{pipeline.trader_server.connection_count} traders" + (f" ({lost} more lost)" if lost else "")
        return f"{state} {traders}, {pipeline.viewer_count} viewers"

    async def watch_socket_file(self) -> None:
        """See to it that the log socket and the journal stay usable, until cancelled.

        Their files may be removed, cut or overwritten while the relay runs, also while no line comes.
        """
        while True:
            await asyncio.sleep(SOCKET_CHECK_S)
            self._pipeline.look_after_files()
            mishap = self._socket_file.check()
            if mishap is None:
                continue
            if mishap.listener is not None:
                await self._pipeline.trader_server.serve_instead(mishap.listener.socket)
            rank = ERROR if mishap.listener is None else WARNING
            self._pipeline.announce(rank, mishap.text, {"state": "socket"})

    async def watch_tokens(self) -> None:
        """See to it, until cancelled, that nobody stays whose token was revoked or has expired."""
        while True:
            await asyncio.sleep(TOKEN_CHECK_S)
            self.check_tokens()
            self._tokens.write_uses()

    def check_tokens(self, *, reload: bool = False) -> None:
        """Act on what has become of the tokens; `reload`: read their file in any case, as after SIGHUP."""
        findings = self._tokens.check(reload=reload)
        if findings.changed:
            self._viewer_server.close_refused(self._tokens.token_set, self._tokens.now())
        for rank, text in findings.messages:
            self._pipeline.announce(rank, text, {"state": "access"})

    def reload(self, settings: Reloading) -> None:
        """Read settings, tokens and certificate again, for SIGHUP. What cannot be used changes nothing. Never raises.

        What was done, and what was not, is said on stderr in one line.
        """
        try:
            changes = settings.read()
        except ConfigError as error:
            of_settings = f"the settings in use stay: {error}"
        else:
            self._apply(changes.config, changes.applied)
            of_settings = words(changes, changes.config.config)
        self.check_tokens(reload=True)
        print_stderr(f"SIGHUP: {self._read_certificate()}; {of_settings}")
        self.warn_of_certificate()

    def _read_certificate(self) -> str:
        """Read the certificate again where there is one; say what came of it."""
        if self._tls is None:
            return "the tokens have been read again; there is no certificate"
        try:
            self._tls.reload()
        except ConfigError as error:
            return f"the tokens have been read again; the certificate in use stays: {error}"
        return "the tokens have been read again, and the certificate for connections from now on"

    def _apply(self, config: Config, changed: Sequence[str]) -> None:
        """Hand new values on to the parts that use them; `changed` names some of `RELOADABLE`."""
        self._stderr_rank = RANKS[config.log_level]
        self._viewer_server.limit_viewers(config.max_viewers)
        self._pipeline.trader_server.limit_connections(config.max_traders)
        self._tokens.change_setting(config.token)
        if "quiet_after" in changed:
            self._pipeline.change_quiet_after(config.quiet_after)
        if ALERT_SETTINGS & set(changed):
            self._change_alerts(config)
        if {"keep_days", "keep_bytes", "keep_free"} & set(changed):
            self._pipeline.journal_thread.keep(Keeping(config.keep_days * DAY_S, config.keep_bytes, config.keep_free))

    def works(self) -> Mapping[str, Work]:
        """Say of each part whether it has work, for the watchdog."""
        return self._pipeline.works(self._pipeline.trader_server.work())

    def warn_of_certificate(self) -> None:
        """Say on stderr what will keep clients away from the certificate."""
        warning = None if self._tls is None else self._tls.warning(time.time())
        if warning is not None:
            print_stderr(warning)

    def request_stop(self) -> None:
        """Have `wait_for_stop` return."""
        self._stop_requested.set()

    async def wait_for_stop(self) -> None:
        """Wait until a signal asks for the end, or the journal will not work again."""
        await self._stop_requested.wait()

    async def stop(self) -> None:
        """Take what is there, commit it, ack it, show it; then close everything. At most STOP_TIMEOUT_S."""
        pipeline, deadline = self._pipeline, self._loop.time() + STOP_TIMEOUT_S
        self._viewer_service.end()
        self._viewer_server.stop_accepting()
        self._socket_file.remove_file()
        if self._collecting is not None:
            await self._collecting.stop()
        await pipeline.trader_server.drain()
        if not await pipeline.wait_committed(COMMIT_TIMEOUT_S):
            lines = pipeline.pending_lines
            print_stderr(f"{lines} lines not committed in {COMMIT_TIMEOUT_S:.0f} s; the traders still have them")
        await pipeline.trader_server.close()
        if self._forwarding is not None:
            await asyncio.to_thread(self._forwarding.stop, FORWARD_TIMEOUT_S)
        await pipeline.wait_delivered(DELIVERY_TIMEOUT_S)
        if self._alerts is not None:
            await self._alerts.stop()
        timeout_s = min(CLOSE_TIMEOUT_S, deadline - self._loop.time())
        await self._viewer_server.close(1012, "the relay is stopping", timeout_s)
        await asyncio.to_thread(self._tokens.close)
        await pipeline.close(max(MIN_CLOSE_S, deadline - self._loop.time()))

    def _on_fatal(self, _reason: str) -> None:
        """End the process: a new one may be able to use the journal, and whoever starts it sees why this one ended."""
        self.exit_code = JournalError.exit_code
        self.request_stop()

    def _on_viewers_limit(self, text: str) -> None:
        """Say that somebody met a limit of the viewers' port, to whoever reads the log and on stderr."""
        self._pipeline.announce(WARNING, text, {"state": "limit"})

    def on_unexpected_error(self, context: Mapping[str, Any]) -> None:
        """Tell of an error that nobody caught; for the event loop, which calls it with what it knows."""
        line = self._faults.note(context.get("exception"), str(context.get("message")), self._loop.time())
        if line is not None:
            print_stderr(line)

    def _on_notice(self, rank: int, text: str) -> None:
        if rank >= self._stderr_rank:
            print_stderr(text)


class Reloading:
    """The settings in use, and reading them again: `read` works them out anew.

    `addresses` are those that the viewers' port listens on; the settings may name others, if it was inherited.
    """

    def __init__(self, in_use: Effective, read: Callable[[], Effective], *, addresses: Sequence[str]) -> None:
        self.config = in_use.config
        self._origins = in_use.origins
        self._read = read
        self._addresses = addresses

    def read(self) -> Changes:
        """Return what has changed; it is in use from then on. Raises ConfigError, and then nothing is."""
        read = self._read()
        changes = compare(self.config, self._origins, read)
        if changes.config.token is not None:
            for address in self._addresses:
                require_token(address, changes.config.token, "the address of the viewers' port")
        if "alert" in changes.applied:
            _require_apprise(changes.config)
        self.config = changes.config
        return changes


def _reload(notifier: Notifier, read: Callable[[], None], status: str) -> None:
    """Read the settings again, and tell systemd when that begins and ends, also where it fails."""
    notifier.reloading(time.monotonic_ns() // 1000)
    try:
        read()
    finally:
        notifier.ready(status)


async def _serve(
    settings: Reloading,
    hangups: Hangups,
    journal: Journal,
    opening: Opening,
    listeners: Listeners,
    tokens: TokenKeeper,
    tls: TlsFiles | None,
    forward: MakeForwarding | None,
    collect: MakeCollecting | None,
    on_ready: Callable[[str], None],
) -> int:
    loop, config = asyncio.get_running_loop(), settings.config
    notifier = Notifier(os.environ)
    relay = Relay(config, journal, opening, listeners, loop, tokens=tokens, tls=tls, forward=forward, collect=collect)
    loop.set_exception_handler(lambda _loop, context: relay.on_unexpected_error(context))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, relay.request_stop)
    await relay.start()
    if tls is None and not listeners.viewers_on_loopback:
        print_stderr(PLAIN_TEXT_WARNING)
    relay.warn_of_certificate()
    secure = "" if tls is None else "s"
    page = f"http{secure}://{listeners.page_authority}/"
    status = (
        f"ready on ws{secure}://{listeners.viewer_authority}, page {page}, "
        f"log socket {config.socket}, journal {config.journal}"
    )
    print_stderr(status)
    notifier.ready(status)
    on_ready(page)
    _tune_interpreter()

    reload = partial(_reload, notifier, lambda: relay.reload(settings), status)
    hangups.begin(lambda: loop.call_soon_threadsafe(reload))
    watchdog = asyncio.create_task(_watch(notifier, watchdog_interval(os.environ, os.getpid()), relay.works))
    shown = asyncio.create_task(_show_status(notifier, lambda: f"{relay.summary()}; {status}"))
    watches = [asyncio.create_task(_keep_up(watch)) for watch in (relay.watch_socket_file, relay.watch_tokens)]
    await relay.wait_for_stop()
    hangups.end()
    notifier.stopping()
    for task in watches:
        task.cancel()
    await relay.stop()
    for task in (watchdog, shown):
        task.cancel()
    notifier.close()
    return relay.exit_code


def _tune_interpreter() -> None:
    """Set the garbage collector and the switch interval for a relay that serves; to be called once it is ready."""
    # What was needed to start is not garbage: keep the collector from looking at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _http_api(config: Config, service: ViewerService) -> PlainHttp:
    """Make what answers plain HTTP; called once somebody asks: a relay that only streams need not load it."""
    from logrelay.http.api import HttpApi  # noqa: PLC0415

    return HttpApi(service, trade_names=read_trade_names(config.trades))


async def _keep_up(watch: Callable[[], Awaitable[None]]) -> None:
    """Run a watch until cancelled, and begin it again when it fails: without it a revoked token would stay good.

    What it failed for is reported where the loop's other errors are. A watch begins with a pause.
    """
    while True:
        try:
            await watch()
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler({"message": "a watch has failed", "exception": error})


async def _watch(notifier: Notifier, interval_s: float | None, works: Callable[[], Mapping[str, Work]]) -> None:
    """Tell the service manager that the loop turns and every part goes on; else it starts the relay again."""
    progress, told = Progress(), False
    while interval_s is not None:
        stuck = progress.look(works(), time.monotonic())
        if not stuck:
            notifier.watchdog()
        elif not told:
            parts = ", ".join(f"{name} for {seconds:.0f} s" for name, seconds in stuck.items())
            print_stderr(
                f"a part of the relay has work and does not go on ({parts}): the service manager is to restart it"
            )
        told = bool(stuck)
        await asyncio.sleep(interval_s)


async def _show_status(notifier: Notifier, summary: Callable[[], str]) -> None:
    """Keep the line in `systemctl status` up to date; without a service manager there is nobody to tell."""
    shown = ""
    while notifier.connected:
        text = summary()
        if text != shown and notifier.status(text):
            shown = text
        await asyncio.sleep(STATUS_INTERVAL_S)
