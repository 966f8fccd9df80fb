"""The trader's logging: one chain that every line goes through, in the order in which it is written here.

Owns: `setup_structlog`, `get_logger` and the chain. It must not know how secrets look, how frames are packed
or what the trader does. Nothing happens at import: no thread, no socket, no configuration.
Read `bound_logger` next.

Environment (an argument of `setup_structlog` beats it; a bad value is named on stderr once and the default
used, because a typing error must not stop a trading bot):

    LOGRELAY_LEVEL    what is streamed: debug, info (default), warning, error, critical
    LOGRELAY_EXCLUDE  loggers never streamed, comma separated, added to audit and security
    LOGRELAY_APP      the name under which the relay knows this bot; default robo_trader
    LOGRELAY_SOCKET, LOGRELAY_DISABLED  are read by the relay processor itself
    LOGRELAY_REDACT_ALLOW, LOGRELAY_REDACT_DENY, LOGRELAY_REDACT_PERSONAL  are read by the redactor itself
    ROBO_LOG_LEVEL    what this console shows; default info
    ROBO_LOG_FORMAT   auto (default: colours on a terminal, JSON lines elsewhere), console, colour or json
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from structlog.contextvars import get_contextvars
from structlog.processors import (
    CallsiteParameter,
    CallsiteParameterAdder,
    StackInfoRenderer,
)

from robo_trader.log_relay import LogRelayProcessor
from robo_trader.log_relay.serializer import free_name, set_aside
from robo_trader.logging import levels
from robo_trader.logging.bound_logger import TraderLogger, warn_once
from robo_trader.logging.console import Console, Outlet, Renderer
from robo_trader.logging.excepthooks import Hooks
from robo_trader.logging.foreign import TAKEN, Attachment, ForeignHandler
from robo_trader.logging.redaction import redaction_of_reports, redaction_steps, text_redaction
from robo_trader.logging.tracebacks import exception_to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping
    from typing import TextIO

    from structlog.typing import FilteringBoundLogger, Processor

EXCLUDED = ("audit", "security")
"""Loggers whose lines stay on this machine, whichever part of the dotted name it is."""

APP = "robo_trader"
"""The name under which the relay knows this trader, and the logger name of lines that have none."""

_EARLY_LISTS = 8
"""Processor lists made before ours that follow our chain. A process has one; only tests that reset have more."""

_NOT_THE_CALLER = [__name__, "robo_trader.logging.bound_logger"]
"""Modules whose frames lie between a log call and the chain; the frame below them is the caller's. structlog takes
these as prefixes, so the whole package is not named: `excepthooks` is a caller like any other."""

_CALLSITE = CallsiteParameterAdder(
    [CallsiteParameter.FILENAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME],
    additional_ignores=_NOT_THE_CALLER,
)
_STACK = StackInfoRenderer(additional_ignores=_NOT_THE_CALLER)


# --- the chain, in reading order ---------------------------------------------------------------------
# A step that writes a key sets aside what the caller has under that name (docs/values.md).


def merge_context(logger: Any, _method_name: str, event: MutableMapping[str, Any]) -> Any:
    """Add the context variables, which any field of the line beats; what only has the name of ours is set aside."""
    for key, value in get_contextvars().items():
        if key not in event:
            event[key] = value
        elif key == "event" or (key in TAKEN and getattr(logger, "foreign", False)):
            event[free_name(key, event)] = value
    return event


def add_level(_logger: Any, method_name: str, event: MutableMapping[str, Any]) -> Any:
    """Set `level` to one of the five words; an unknown method's name is kept as `level_name`."""
    word = method_name if method_name in levels.RANKS else levels.word(method_name)
    if word is None:
        word = "info"
        set_aside(event, "level_name")
        event["level_name"] = method_name
    if "level" in event:
        set_aside(event, "level")
    event["level"] = word
    return event


def add_logger_name(logger: Any, _method_name: str, event: MutableMapping[str, Any]) -> Any:
    """Set `logger`, unless the line says itself, in words, where it comes from."""
    name = event.get("logger")
    if not name or not isinstance(name, str):
        if name is not None:
            set_aside(event, "logger")
        event["logger"] = getattr(logger, "name", APP)
    return event


def fill_in_arguments(_logger: Any, _method_name: str, event: MutableMapping[str, Any]) -> Any:
    """Fill `positional_args` into the event's text; arguments that do not fit are put behind it."""
    args = event.pop("positional_args", ())
    if args:
        event["event"] = _filled(event.get("event"), args)
    return event


def add_callsite(logger: Any, method_name: str, event: MutableMapping[str, Any]) -> Any:
    """Set `at` (file, line, function) from warning up: it costs about 4 us, and trouble is rare."""
    if levels.RANKS[event["level"]] >= levels.RANKS["warning"] and "at" not in event:
        found = _CALLSITE(logger, method_name, {})
        event["at"] = "{filename}:{lineno} {func_name}".format(**found)
    return event


class TimeAdder:
    """Sets `timestamp`: UTC, RFC 3339, microseconds. In the first line of each second it calls `every_second` too."""

    def __init__(self, every_second: Callable[[], None] = lambda: None) -> None:
        self._every_second = every_second
        self._second: tuple[int, str] = (-1, "")
        """The last second that was formatted, and its text; one tuple, so that threads see both or none."""

    def __call__(self, _logger: Any, _method_name: str, event: MutableMapping[str, Any]) -> Any:
        """Add the time of this call."""
        second, rest = divmod(time.time_ns(), 1_000_000_000)
        known, text = self._second
        if second != known:  # formatting a date costs more than all the rest of the step
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text)
            self._every_second()
        if "timestamp" in event:
            set_aside(event, "timestamp")
        event["timestamp"] = f"{text}.{rest // 1000:06d}Z"
        return event


def format_exception(logger: Any, method_name: str, event: MutableMapping[str, Any]) -> Any:
    """Turn `exc_info` into the string `exception`, without local variables, and `stack_info` into `stack`."""
    if method_name == "exception":
        event.setdefault("exc_info", True)
    if event.get("stack_info"):
        set_aside(event, "stack")
        _STACK(logger, method_name, event)
    if "exc_info" in event:
        exception_to_text(logger, method_name, event)
    return event


def _filled(event: Any, args: tuple[Any, ...]) -> Any:
    try:
        if isinstance(event, str):
            one = args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
            return event % one
    except Exception:
        pass
    try:
        return f"{event} {args!r}"
    except Exception:
        return event


def _make_chain(
    redaction: list[Processor], relay: Processor | None, renderer: Processor, every_second: Callable[[], None]
) -> list[Processor]:
    chain: list[Processor] = [
        merge_context,
        add_level,
        add_logger_name,
        fill_in_arguments,
        add_callsite,
        TimeAdder(every_second),
        format_exception,  # before the redaction: a traceback can only be searched as text
        *redaction,  # before everything that lets a line leave
    ]
    if relay is not None:
        chain.append(relay)
    chain.append(renderer)
    return chain


# --- setting up --------------------------------------------------------------------------------------


def get_logger(name: str | None = None, /, **bound: Any) -> FilteringBoundLogger:
    """Return a logger. It may be made before `setup_structlog` is called; it binds at its first line.

    `name` comes first; given by its name it is the logger's too, unless there is one in front: then it is a field.
    """
    if name is None:
        name = bound.pop("name", None)
    logger: FilteringBoundLogger = structlog.get_logger(name or APP, **bound)
    return logger


def setup_structlog(
    *,
    level: str | None = None,
    stream_level: str | None = None,
    exclude: Iterable[str] | None = None,
    socket: str | None = None,
    app: str | None = None,
    relay: Processor | bool = True,
    redactor: Processor | None = None,
    form: str | None = None,
    stream: TextIO | None = None,
    foreign: bool = True,
    hooks: bool = True,
) -> Any:
    """Configure structlog and the logging module for a trader; return the relay processor (None without).

    `level` is what the console shows, `stream_level` what goes to the relay; they are independent. `exclude`
    names loggers that are never streamed (default `EXCLUDED`; LOGRELAY_EXCLUDE adds to it). `relay` may be a
    processor of one's own, or False. `redactor` replaces the default redaction (docs/redaction.md); the secrets of the
    environment are hidden all the same. `form` is auto, console or json; `stream` defaults to stdout.
    `foreign` sends the logging module's records through the chain (the root logger's level is lowered to what
    somebody wants to see; other handlers stay), `hooks` logs exceptions that nobody caught.

    Call it once at the start of the process. A second call replaces the first: nothing is doubled, loggers
    that exist follow, and the connection to the relay is kept if its settings are the same.
    Raises ValueError for an unknown level or form given as an argument.
    """
    shown = _choice("level", level, "ROBO_LOG_LEVEL", "info", tuple(levels.RANKS))
    streamed = _choice("stream_level", stream_level, "LOGRELAY_LEVEL", "info", tuple(levels.RANKS))
    form = _choice("form", form, "ROBO_LOG_FORMAT", "auto", ("auto", "console", "colour", "json"))
    target = stream if stream is not None else sys.stdout
    settings = _RelaySettings(socket, streamed, app or os.environ.get("LOGRELAY_APP") or APP, _excluded(exclude))

    processor = _installed.use_relay(relay, settings)
    redaction = redaction_steps(redactor)
    if isinstance(processor, LogRelayProcessor):
        processor.redact_reports(redaction_of_reports(redaction, Outlet(APP, _installed.console)))
    chain = _make_chain(
        redaction,
        processor,
        Renderer(style=_style(form, target), level=shown),
        _installed.keep_foreign,
    )
    rank = levels.RANKS[shown] if processor is None else min(levels.RANKS[shown], levels.RANKS[streamed])
    _installed.use_chain(chain, rank, target)
    _installed.use_foreign(rank if foreign else None)
    _installed.use_hooks(text_redaction(redactor) if hooks else None)
    return processor


def reset_structlog() -> None:
    """Take everything back: hooks, handler, the relay connection, structlog's configuration. For tests."""
    _installed.use_hooks(None)
    _installed.use_foreign(None)
    _installed.use_relay(False, None)
    structlog.reset_defaults()


class _RelaySettings(NamedTuple):
    """What a relay processor is made of; it is kept as long as they stay the same."""

    socket: str | None
    level: str
    app: str
    exclude: tuple[str, ...]


class _Installed:
    """What a setup has put into this process, so that the next one replaces it instead of adding to it."""

    def __init__(self) -> None:
        self.console = Console()
        self.chain: list[Processor] = []
        """The one list that every logger holds; its contents are replaced, never the list."""
        self._early: deque[list[Processor]] = deque(maxlen=_EARLY_LISTS)
        """Processor lists that were configured before ours; loggers bound early hold them."""
        self._relay: Any = None
        self._relay_settings: _RelaySettings | None = None
        self._foreign: Attachment | None = None
        self._hooks: Hooks | None = None

    def use_relay(self, wanted: Any, settings: _RelaySettings | None) -> Any:
        """Return the processor to use: the one there is if its settings are the same, a new one, `wanted`, or None."""
        if wanted is True and self._relay is not None and self._relay_settings == settings:
            return self._relay
        if self._relay is not None:
            with contextlib.suppress(Exception):
                self._relay.close()
        self._relay = self._relay_settings = None
        if wanted is not True or settings is None:
            return wanted or None
        socket, level, app, exclude = settings
        self._relay = LogRelayProcessor(
            socket, level=level, app=app, exclude=exclude, redact=False
        )  # the chain does it
        self._relay_settings = settings
        return self._relay

    def use_chain(self, chain: list[Processor], rank: int, target: TextIO) -> None:
        """Have every logger, bound and cached ones too, use `chain` from `rank` up and print to `target`."""
        self.console.point_at(target)
        current = structlog.get_config()["processors"]
        if isinstance(current, list) and all(current is not known for known in (self.chain, *self._early)):
            self._early.append(current)
        for known in (self.chain, *self._early):
            known[:] = chain  # in place: bound and cached loggers hold these lists
        TraderLogger.threshold(rank)
        structlog.configure(
            processors=self.chain,
            wrapper_class=TraderLogger,
            logger_factory=self._outlet,
            cache_logger_on_first_use=True,
        )

    def _outlet(self, *args: Any) -> Outlet:
        return Outlet(args[0] if args and isinstance(args[0], str) else APP, self.console)

    def use_foreign(self, rank: int | None) -> None:
        """Send the logging module's records from `rank` up through the chain; None: leave the module alone."""
        if self._foreign is not None:
            self._foreign.undo()
            self._foreign = None
        if rank is not None:
            self._foreign = Attachment(ForeignHandler(self.chain, self.console), rank)

    def keep_foreign(self) -> None:
        """Put the handler of `use_foreign` back if someone took it away; once a second, and cheap."""
        if self._foreign is not None:
            self._foreign.keep()

    def use_hooks(self, redact_text: Callable[[str], str] | None) -> None:
        """Log exceptions that nobody caught and print them through `redact_text`; None: no longer."""
        if self._hooks is not None:
            self._hooks.remove()
        self._hooks = None if redact_text is None else Hooks(get_logger(APP).critical, redact_text)
        if self._hooks is not None:
            self._hooks.install()


_installed = _Installed()


def _excluded(given: Iterable[str] | None) -> tuple[str, ...]:
    names = dict.fromkeys(EXCLUDED if given is None else given)
    names |= dict.fromkeys(filter(None, map(str.strip, os.environ.get("LOGRELAY_EXCLUDE", "").split(","))))
    return tuple(names)


def _style(form: str, target: TextIO) -> str:
    terminal = False
    with contextlib.suppress(Exception):
        terminal = target.isatty()
    if form == "json" or (form == "auto" and not terminal):
        return "json"
    if form == "colour":
        return "colour"
    return "colour" if terminal and not os.environ.get("NO_COLOR") else "plain"


def _choice(name: str, given: str | None, variable: str, default: str, allowed: tuple[str, ...]) -> str:
    if given is not None:
        if given.lower() not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {given!r}")
        return given.lower()
    value = os.environ.get(variable, "").strip().lower()
    if not value:
        return default
    if value in allowed:
        return value
    if name != "form" and (word := levels.word(value)) is not None:
        return word  # WARN and FATAL are understood
    warn_once(f"{variable}={value!r} is not one of {', '.join(allowed)}; using {default}")
    return default
