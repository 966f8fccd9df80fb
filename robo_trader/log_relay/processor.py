"""The structlog processor: one call per line, from the event dict to bytes in the kernel.

Owns: the hot path, levels, exclusion, encoding, the fork and exit hooks, and the numbers a person may ask for. It must
not know how the relay stores or shows anything; it imports nothing of the rest of robo_trader and never `logrelay`.
Put it behind the processors that add to the event, before EventRenamer and every renderer.
Read `arguments` next for the settings, `records` for the way of a line.

A call returns the very object it was given, untouched, and raises nothing of its own. In the common case it packs the
event, takes the outbox's baton, and gives the frame to the kernel with one non-blocking send: when the call returns,
the line survives the death of this process. In every other case it leaves the frame in the outbox.

The module is longer than others because the hot path is one function, and because the process's hooks belong to it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import struct
import sys
import time
import weakref
from _socket import gethostname
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgpack

from . import arguments, environment, frames, records, serializer
from .descriptors import GET_MARK, SEND_FLAGS, Wakeup, missing, read_mark
from .outbox import FRAME_OVERHEAD, HIGH_LEVELS, Outbox
from .redaction import OwnRedaction, Redact, Redactor, check_redact, redaction_of, without_torn_words
from .sender import Sender
from .spool import Spool

MAX_BYTES: Final = 16 * 1024 * 1024
"""Default bound on memory for lines that are not acked: about 80,000 lines, a minute of a very loud bot."""
INBOX_BYTES: Final = 1024 * 1024
"""Bytes in the inbox that may go over the bound: two turns of the interpreter's lock, during which a thread that logs
without pause logs 4,000 lines. Whoever has the baton then drops by age and level; who publishes could only drop the
newest."""
MIN_BYTES: Final = 256 * 1024
"""Below this a few large lines would push out everything else."""
FAST_TEXT: Final = 4_096
"""Characters up to which a string goes into the packer unlooked at."""
FAST_KEY: Final = 100
"""Characters of a key up to which the same holds."""
LATE_REPORTS: Final = 10
"""Lines logged after the exit hook that are reported on stderr if they cannot be sent; more would only repeat it."""
PACKER_BYTES: Final = 8_192
"""A packer's buffer at first: more than nearly every line needs; it grows and stays. msgpack's own 256 KiB would be
taken from the kernel page by page, most of them never used."""
KEYS: Final = 2_048
"""Keys that are remembered as harmless; programs have tens, made-up keys must not grow it for ever."""
SOURCES: Final = 4_096
"""Logger names whose exclusion is remembered; made-up names must not grow it for ever."""
APP_CHARS: Final = 200
"""Characters taken from LOGRELAY_APP: the relay shows fewer."""
PRIVATE: Final = ("audit", "security")
"""Loggers that are excluded unless told otherwise. They match any part of a dotted name: `bot.audit.orders` too."""
UNCAUGHT: Final = "exception.unhandled"
"""The message of the last line of a program that an exception has ended; robo_trader's own hooks say the same."""
REPORT_SHARE: Final = 0.5
"""Part of the exit's budget in which that exception has to be formatted; the rest is for sending it."""
NO_CRASH: Final = (KeyboardInterrupt, SystemExit)
"""What ends a program as somebody wanted."""
WANTED_STATUS: Final = (0, 130, 143)
"""With these a process leaves in order, or because SIGINT or SIGTERM told it to: by the shell's custom 128 and the
signal's number."""
CHILD_ENDS_UNSEEN: Final = sys.version_info >= (3, 13)
"""Whether multiprocessing runs what a child has to do at its end when the exception that ended it is gone."""
PRINTING_HOOKS: Final = frozenset({"apport_python_hook"})
"""Modules whose excepthook is the system's: Ubuntu puts it into every program, and it logs nothing."""
SCALARS: Final = frozenset({int, float, bool, type(None)})
"""Exact types that pack in constant size and without running anybody's code."""

RANKS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
ALIASES: Final = {
    "trace": "debug",
    "msg": "info",
    "notice": "info",
    "success": "info",
    "log": "info",
    "warn": "warning",
    "err": "error",
    "exception": "error",
    "failure": "error",
    "fatal": "critical",
    "alert": "critical",
    "emergency": "critical",
    "panic": "critical",
}
"""Method names and level words that people use, and the protocol's word for each."""

_time_ns = time.time_ns
_read_mark = read_mark
_HEAD, _U64 = frames.HEAD, frames.U64
_MAX_BODY = frames.MAX_BODY

_Level = tuple[bytes, bool, Callable[..., bytes]]
"""Packed level word (empty: below the threshold), whether it is WARNING or above, and what packs a header with it."""


class LogRelayProcessor:
    """Ships every line that passes it to the relay. Never blocks, never raises, never changes the event.

    `socket` is the relay's path (None: $LOGRELAY_SOCKET and the other places in docs/protocol.md, looked up
    when connecting). Lines below `level` (None: LOGRELAY_LEVEL, else info) are not shipped, nor those of the loggers in
    `exclude` and LOGRELAY_EXCLUDE and of their dotted children; `audit` and `security`, which is what `exclude` is by
    default, match any part of a dotted name. `app` (None: LOGRELAY_APP, else the program's name) is what the relay
    shows for lines without a logger name. `max_bytes` bounds the memory for lines the relay does not have yet.
    `exit_timeout` is how many seconds the process may be held up at its end. `disabled` (None: LOGRELAY_DISABLED) makes
    all of it a no-op. `spool` (None: LOGRELAY_SPOOL, else none) is a directory in which lines outlive this process
    until the relay has them.

    `redact` takes secrets out of what is shipped, docs/redaction.md: True (the default rules), False, a `Redactor`, or
    a function that gets an event as a dict of plain values and returns the one to ship. What the other processors
    behind this one see is never changed. A variable that makes no sense is named on stderr once.

    One processor per process is meant; each has its own run, connection and thread. After fork the child is a
    new run. Raises ValueError for an argument that makes no sense; this is the only method that raises.
    """

    def __init__(  # noqa: PLR0915  (each setting is a statement or two)
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        level: str | int | None = None,
        app: str | None = None,
        max_bytes: int = MAX_BYTES,
        exclude: Iterable[str] = PRIVATE,
        exit_timeout: float = 2.0,
        disabled: bool | None = None,
        redact: Redact = True,
        spool: str | os.PathLike[str] | None = None,
    ) -> None:
        socket = arguments.path("socket", socket, "the places where a relay is looked for")
        exclude = arguments.names("exclude", exclude, ", ".join(PRIVATE))
        arguments.whole_number("max_bytes", max_bytes, MIN_BYTES, f"{MAX_BYTES}")
        arguments.seconds("exit_timeout", exit_timeout, "2")
        arguments.optional("app", app, str, "a text, the name of the bot,", "the program's name")
        arguments.optional("disabled", disabled, bool, "True, False", "LOGRELAY_DISABLED")
        check_redact(redact)
        spool = arguments.path("spool", spool, "LOGRELAY_SPOOL")
        self._settings: dict[str, Any] = {
            "socket": socket,
            "level": level,
            "app": app,
            "max_bytes": max_bytes,
            "exclude": exclude,
            "exit_timeout": exit_timeout,
            "disabled": disabled,
            "redact": redact,
            "spool": spool,
        }
        folder = os.environ.get("LOGRELAY_SPOOL", "") if spool is None else spool
        with contextlib.suppress(OSError):  # a working directory that is gone
            folder = folder and os.path.abspath(folder)  # noqa: PTH100 - the bot may go elsewhere later
        self._spool_folder = folder
        """Empty: no spool."""
        if level is None:
            level = environment.choice("LOGRELAY_LEVEL", "info", f"one of {', '.join(RANKS)}", known_level)
        self._threshold = rank_of(level)
        self._levels = _level_table(self._threshold)
        self._exclude = (*exclude, *environment.names("LOGRELAY_EXCLUDE"))
        self._app = app or os.environ.get("LOGRELAY_APP", "").strip()[:APP_CHARS] or _program()
        self._sources: dict[Any, bool] = {None: False}
        self._keys: set[str] = set()
        self._exit_timeout = exit_timeout
        self._ending = 0
        """How often the end of the process was dealt with; from the first time on no thread can be relied on."""
        self._exit_left = exit_timeout
        """Seconds the process may still be held up."""
        self._excluded = 0
        self._degraded = 0
        self._truncated = 0
        self._ignored = 0
        self._disabled = environment.switch("LOGRELAY_DISABLED") if disabled is None else disabled
        lacking = missing()
        if lacking and not self._disabled:
            self._disabled = True
            _say_unsupported(lacking)
        redaction = redaction_of(False if self._disabled else redact)
        self._redact = redaction
        self._redact_report: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        """What takes secrets out of a report before `_redact` does, see `redact_reports`."""
        own = isinstance(getattr(redaction, "__self__", None), OwnRedaction)
        self._redact_simple = _take_the_slow_way if own else redaction
        """The same for an event of short text and numbers. What a bot's own function returns may be anything."""
        self._closed = self._disabled
        if self._closed:
            # An empty table sends every event the slow way, which looks at `_closed`: no test in the hot path.
            self._levels = {}
        self._new_run()
        if not self._disabled:
            if self._out.spool is not None:
                self._out.spool.open()  # a disk may let us wait, and here nobody minds
            _register(self)

    def _new_run(self) -> None:
        """Begin a run of this process: nothing is opened and no thread is started before its first line."""
        settings = self._settings
        run, started_ns = os.urandom(16), time.time_ns()
        app = self._app

        def make_hello(failed: str = "") -> bytes:
            host, pid = gethostname(), os.getpid()
            return frames.hello(run=run, app=app, host=host, pid=pid, started_ns=started_ns, ping=True, failed=failed)

        wakeup = Wakeup()
        folder, limit = self._spool_folder, settings["max_bytes"]
        spool = Spool(folder, run=run, limit=limit, make_hello=make_hello) if folder else None
        out = Outbox(limit, on_blocked=wakeup.set, spool=spool)
        sender = Sender(
            out,
            wakeup,
            path=settings["socket"],
            make_hello=make_hello,
            exit_timeout=settings["exit_timeout"],
            spool=spool,
            app=app,
        )
        self._pool: list[Callable[[Any], bytes]] = []
        """Packers that nobody uses now: one per call, because a shared one mixes the bytes of two threads."""
        self.records = records.ShippedRecords()
        """Which records of the logging module were shipped; handlers that share the processor ask it too."""
        self._sender = sender
        self._run = run
        self._out = out

    def __reduce__(self) -> tuple[Any, ...]:
        # A bound logger with this processor may be pickled or copied: the copy is a new processor, a run of its own.
        return _rebuild, (self._settings, self._redact_report is not None)

    def __del__(self) -> None:
        sender = getattr(self, "_sender", None)
        if sender is not None:
            sender.abandon()

    # -- the call --------------------------------------------------------------------------------------------

    def __call__(self, logger: Any, method_name: str, event_dict: Any) -> Any:  # noqa: ARG002, PLR0915
        """Ship one event and return the same object."""
        # One long body, the fast path of the outbox written out as well: a call of another Python function costs as
        # much as ten lines of this one. It is also why the outbox's attributes are changed from here: at the recursion
        # limit a call fails where a statement does not, and the line would vanish uncounted.
        body = None
        try:
            prefix, high, pack_header = self._levels[event_dict.get("level", method_name)]
            if not prefix:
                return event_dict
            if self._sources[event_dict.get("logger")]:
                self._excluded += 1
                return event_dict
            if "exc_info" not in event_dict and (self._keys.issuperset(event_dict) or self._learn(event_dict)):
                pool = self._pool
                pack = pool.pop() if pool else _new_packer()
                for value in event_dict.values():
                    kind = type(value)
                    if kind is str:
                        if len(value) > FAST_TEXT:
                            break
                    elif kind not in SCALARS:
                        break
                else:
                    redact = self._redact_simple
                    body = pack(event_dict if redact is None else redact(event_dict))
                    if len(body) > _MAX_BODY:
                        body = None
                pool.append(pack)
        except Exception:
            # A value, key or level that is not what the fast path takes: the slow one looks at it again.
            # Not from in here, where sys.exc_info() would be this exception and not the caller's.
            body = None
        if body is None:
            try:
                encoded = self._slow_path(method_name, event_dict)
            except Exception:
                self._count_unencoded()
                return event_dict
            if encoded is None:
                return event_dict
            (prefix, high, pack_header), body = encoded
        now = _time_ns()
        out = self._out
        baton = out.baton
        try:
            del baton[0]
        except IndexError:
            self._contended(out, now, prefix, body)
            return event_dict
        frame = None
        seq = out.seq + 1
        try:
            send = out.direct_send
            if send is None:
                out.queue(now, prefix, body)
            else:
                frame = pack_header(_HEAD, _U64, seq, _U64, now, prefix) + body
                size = len(frame)
                if high:
                    out.sent_high.append(frame)
                else:
                    out.sent_low.append(frame)
                out.seq = seq
                out.charged_bytes = charged = out.charged_bytes + size + FRAME_OVERHEAD
                taken = 0
                try:
                    if _read_mark(out.direct_fd, GET_MARK) == out.direct_mark:
                        taken = send(frame, SEND_FLAGS)
                except OSError:
                    pass
                if taken != size:
                    out.cut_short(frame, taken)
                if charged > out.limit:
                    out.shed()
        except BaseException as error:
            # Out of memory, the recursion limit, or an exception thrown in from outside: the sender repairs the
            # outbox. Only the last kind is the caller's; for the others the line must not vanish uncounted.
            send = out.direct_send = None
            out.dirty = True
            out.has_sender = False
            if not isinstance(error, Exception):
                raise
            if out.seq < seq and (
                frame is None
                or not ((out.sent_low and out.sent_low[-1] is frame) or (out.sent_high and out.sent_high[-1] is frame))
            ):
                out.unencoded += 1
        finally:
            baton += (None,)  # not a call: those fail at the recursion limit
        if out.inbox or out.delegated or (send is None and not out.has_sender):
            self._afterwards(out)
        return event_dict

    def _contended(self, out: Outbox, now: int, prefix: bytes, body: bytes) -> None:
        """Publish a line for who has the baton: another thread, or the call that a signal handler interrupted."""
        try:
            size = len(body)
            if out.charged_bytes + out.inbox_bytes + size > out.limit and out.inbox_bytes + size > INBOX_BYTES:
                out.overrun += 1  # the newest goes: only who has the baton may touch the older ones
            else:
                out.inbox_bytes += size
                out.inbox.append((now, prefix, body))
            out.combine()
            if not out.has_sender:
                self._start()
            if out.spool is not None:
                out.wait_for_spool()
        except Exception:
            self._degraded += 1

    def _afterwards(self, out: Outbox) -> None:
        """Do what the fast path leaves: admit lines that came meanwhile, start the thread, wake it."""
        try:
            out.combine()
            if not out.has_sender:
                self._start()
                self._sender.wake()
                if self._ending:
                    self._last_words()
        except Exception:
            self._degraded += 1

    def _count_unencoded(self) -> None:
        out = self._out
        out.unencoded += 1
        try:
            out.combine()
            if not out.has_sender:
                self._start()
        except Exception:
            self._degraded += 1

    def _start(self) -> None:
        if not self._closed and self._sender.start():
            _in_multiprocessing_child(self)

    # -- the slow path ---------------------------------------------------------------------------------------

    def _learn(self, event_dict: dict[Any, Any]) -> bool:
        """Return whether all keys are short exact strings, and remember them."""
        for key in event_dict:
            if type(key) is not str or len(key) > FAST_KEY:
                return False
        if len(self._keys) + len(event_dict) <= KEYS:
            self._keys.update(event_dict)
        return len(event_dict) <= KEYS

    def _slow_path(self, method_name: Any, event_dict: Any) -> tuple[_Level, bytes] | None:
        """Encode what the fast path does not take. None: not to be shipped."""
        if self._closed:
            self._ignored += 1
            return None
        odd = not _is(event_dict, dict)
        source = records.event_in(event_dict) if odd else event_dict
        level = self._level_of(method_name, source)
        if not level[0]:
            return None
        if self._is_excluded(source):
            self._excluded += 1
            return None
        if dict.keys(source) >= serializer.HIDDEN:
            record = dict.get(source, "_record")
            if records.passed_chain(record, self) or not self.records.is_new(record):
                return None
        faults = 0
        body = b""
        for bounds in serializer.ROUNDS:
            copied = serializer.copy(source, bounds)
            event = copied.event
            if self._redact is not None:
                event = _redacted(event, self._redact, bounds, cut=bool(copied.cut))
            if copied.cut:
                event[serializer.MARK] = copied.cut
            faults = copied.faults
            body = _new_packer()(event)
            if len(body) <= _MAX_BODY:
                break
        if copied.cut:
            self._truncated += 1
        if faults or odd:
            self._degraded += 1
        return level, body

    def _level_of(self, method_name: Any, source: dict[Any, Any]) -> _Level:
        """Return the level of an event whose level word or method name is not one of the usual ones."""
        levels = self._levels
        for word in (dict.get(source, "level"), method_name):
            if _is(word, str):
                known = levels.get(str.__str__(word).lower())
                if known is not None:
                    return known
        number = dict.get(source, "level_number")
        if type(number) is not int:
            number = getattr(dict.get(source, "_record"), "levelno", None)
        if type(number) is not int and type(method_name) is str and method_name.startswith("level "):
            digits = method_name[6:]
            number = int(digits) if digits.isdecimal() and len(digits) < 10 else None
        if type(number) is int:
            return levels[word_for(number)]
        return levels["info"]

    def _is_excluded(self, source: dict[Any, Any]) -> bool:
        name = dict.get(source, "logger")
        if not _is(name, str):
            return False
        name = str.__str__(name)
        parts = name.split(".")
        excluded = any(
            name == other or name.startswith(other + ".") or (other in PRIVATE and other in parts)
            for other in self._exclude
        )
        if len(self._sources) >= SOURCES:
            self._sources = {None: False}
        self._sources[name] = excluded
        return excluded

    # -- for people and for the end --------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return the counters of this run; never blocks, exact whenever no call is under way.

        produced = acked + pending + the sum of dropped. `pending` are lines in memory or in doubt,
        `buffered_bytes` what they are charged, `dropped` is by cause, `degraded` counts lines with a value
        that could not be shown, `truncated` lines that were cut, `excluded` and `ignored` (after close) lines
        that were not taken. `given_up` counts connections that were open and on which nothing was heard any more.
        """
        out, sender = self._out, self._sender
        oldest = out.oldest_ns()
        return {
            "run": self._run.hex(),
            "state": "disabled" if self._disabled else "closed" if self._closed else sender.state,
            "produced": out.produced(),
            "acked": out.acked,
            "pending": out.pending(),
            "buffered_bytes": out.charged_bytes + out.inbox_bytes,
            "max_bytes": out.limit,
            "dropped": dict(out.dropped),
            "degraded": self._degraded,
            "truncated": self._truncated,
            "excluded": self._excluded,
            "ignored": self._ignored,
            "reconnects": sender.reconnects,
            "given_up": sender.given_up,
            "link_errors": sender.link_errors,
            "bad_answers": out.bad_answers,
            "refusal": sender.refusal,
            "oldest_unacked_age": 0.0 if oldest is None else max(0.0, (time.time_ns() - oldest) / 1e9),
        }

    def flush(self, timeout: float = 2.0) -> bool:
        """Wait until the relay has every line logged so far; False after `timeout` seconds."""
        if self._disabled or self._closed:
            return True
        return self._sender.flush(timeout)

    def redact_reports(self, redact: Redact) -> None:
        """Take secrets out of the report of an exception that ends the program with `redact` too, from now on.

        For a program that redacts in a processor of its own, in front of this one: the report comes from no chain, so
        nothing but this can apply those rules to it. `redact` is what the argument of that name may be, and comes
        before it. An event that it leaves empty is not shipped. Raises ValueError for anything else.
        """
        self._redact_report = redaction_of(redact)

    def close(self, timeout: float | None = None) -> bool:
        """Flush, say bye, end the thread; later events are only counted. True: nothing was left."""
        if self._disabled or self._closed:
            return True
        out, sender = self._out, self._sender
        done = True
        if sender.state != "idle" or out.produced() or out.spool is not None:
            done = sender.finish(self._exit_timeout if timeout is None else timeout, close=True)
            if not done:
                sender.print_summary("at close")
        self._closed = True
        self._levels = {}
        return done

    @property
    def ending(self) -> bool:
        """Whether the process is at its end, and what could be delivered has been."""
        return self._ending > 0

    def _at_exit(self, uncaught: BaseException | None = None, failed: str = "") -> None:
        """Send what is there and a bye; `uncaught` is reported before, `failed` is why the process fails, if so."""
        if self._closed:
            return
        if failed:
            self._sender.note_failure(failed)
        try:
            if uncaught is not None and self._out.produced():  # else the relay knows of no run that could end well
                self._report(uncaught)
        except Exception:
            self._degraded += 1
        finally:
            self._last_words()  # also after Ctrl-C while an exception is formatted

    def _report(self, error: BaseException) -> None:
        """Put the exception that ends the program behind the last line."""
        prefix = self._levels["critical"][0]
        if not prefix:
            return
        encoded: list[bytes] = []

        def encode() -> None:
            encoded.append(self._encoded_report(error))

        # In the sender's thread: the exception's own code may take long or never return, and no thread can be stopped.
        began = time.monotonic()
        done = self._sender.run_apart(encode, self._exit_left * REPORT_SHARE)
        self._exit_left = max(0.0, self._exit_left - (time.monotonic() - began))
        body = encoded[0] if encoded else None
        if body is None:
            why = "it could not be formatted" if done else "there was no time to format it"
            text = f"{serializer.type_name(error)}: [not shown: {why}]"
            body = _new_packer()({"event": UNCAUGHT, "exception": text})
            self._degraded += 1
        if body:
            self._contended(self._out, _time_ns(), prefix, body)

    def _encoded_report(self, error: BaseException) -> bytes:
        """Encode the report of an exception; empty: it is not to be shipped."""
        redactions = [redact for redact in (self._redact_report, self._redact) if redact is not None]
        if not redactions:
            # What the program itself takes secrets out with stands before this processor, and this line comes from no
            # processor.
            redactions = [Redactor().redact]
        body = b""
        for bounds in serializer.ROUNDS:
            copied = serializer.copy({"event": UNCAUGHT, "exc_info": error}, bounds)
            event = copied.event
            for redact in redactions:
                event = _redacted(event, redact, bounds, cut=bool(copied.cut))
            if not event:
                return b""
            if copied.cut:
                event[serializer.MARK] = copied.cut
            body = _new_packer()(event)
            if len(body) <= _MAX_BODY:
                break
        self._truncated += bool(copied.cut)
        self._degraded += bool(copied.faults)
        return body

    def _last_words(self) -> None:
        """Send what is there, in what is left of the exit's budget, and tell what could not be sent.

        Lines may still come: from exit handlers registered before ours, and from objects that are torn down. From
        Python 3.12 on no thread can be started for them, and one that runs may stop at any moment. So those that
        cannot go to the kernel at once come here, in their own thread.
        """
        out, sender = self._out, self._sender
        self._ending += 1
        if sender.state != "idle" or out.produced() or out.spool is not None:
            began = time.monotonic()
            sender.finish(self._exit_left, close=False)
            self._exit_left = max(0.0, self._exit_left - (time.monotonic() - began))
            if self._ending <= LATE_REPORTS:
                sender.print_summary()
        out.sender_ended()

    def _after_fork(self) -> None:
        """In a forked child: a new run. Logs nothing, opens nothing, starts nothing."""
        self._sender.forget_in_child()
        self._new_run()


def _redacted(
    event: dict[str, Any],
    redact: Callable[[dict[str, Any]], dict[str, Any]],
    bounds: serializer.Bounds,
    *,
    cut: bool,
) -> dict[str, Any]:
    """Return a copied event without its secrets, and as plain and bounded as it was."""
    if cut:
        event = without_torn_words(event, serializer.CUT)
    shown = redact(event)
    return shown if shown is event else serializer.copy(shown, bounds).event


def _new_packer() -> Callable[[Any], bytes]:
    # strict_types and no default: an object of any other type is an error, so nothing but C code runs while packing.
    pack: Callable[[Any], bytes] = msgpack.Packer(strict_types=True, buf_size=PACKER_BYTES).pack
    return pack


def _is(value: object, kind: type) -> bool:
    """Like isinstance, without asking the value for its `__class__`."""
    return issubclass(type(value), kind)


def rank_of(level: str | int) -> int:
    """Return the number of a level. Raises ValueError for a word that is none."""
    if isinstance(level, bool) or not isinstance(level, str | int):
        raise arguments.wrong("level", level, "a level's name or number", "LOGRELAY_LEVEL, else info")
    if isinstance(level, int):
        return level
    word = ALIASES.get(level.lower(), level.lower())
    if word not in RANKS:
        raise arguments.wrong("level", level, f"one of {', '.join(RANKS)} or a number", "LOGRELAY_LEVEL, else info")
    return RANKS[word]


def known_level(word: str) -> str:
    """Return the word if it is a level's; raise ValueError if not."""
    rank_of(word)
    return word


def _take_the_slow_way(event: dict[str, Any]) -> dict[str, Any]:
    raise NotImplementedError(type(event).__name__)


def _level_table(threshold: int) -> dict[Any, _Level]:
    table: dict[Any, _Level] = {}
    words = dict.fromkeys(RANKS, "") | ALIASES
    for word, alias in words.items():
        rank = RANKS[alias or word]
        packed = frames.LEVELS[alias or word] if rank >= threshold else b""
        header = struct.Struct(f"{frames.HEADER.format}{len(packed)}s").pack
        for name in (word, f"a{word}"):  # ainfo() and the like carry their own name in a generic BoundLogger
            table[name] = table[name.upper()] = (packed, bool(packed) and packed[1] in HIGH_LEVELS, header)
    return table


def word_for(number: int) -> str:
    """Return the protocol's word for a level number: 25 is info, as it is above info and below warning."""
    return next((word for word, rank in reversed(RANKS.items()) if number >= rank), "debug")


def _program() -> str:
    """Return a name for this program, for a person: the script's name, or the package's for `python -m`."""
    path = sys.argv[0] if getattr(sys, "argv", None) else ""
    folder, name = os.path.split(path)
    if name == "__main__.py":
        name = os.path.basename(folder)  # noqa: PTH119
    return name.removesuffix(".py").strip() or "trader"


def _say_unsupported(lacking: str) -> None:
    """Say on stderr, once in a process, that no line can be shipped on this operating system."""
    if _unsupported_said:
        return
    _unsupported_said.append(True)
    with contextlib.suppress(Exception):
        sys.stderr.write(
            f"robo_trader.log_relay[{os.getpid()}]: this system ({sys.platform}) has no {lacking}: no line is shipped "
            "to the relay, and none is kept for it. LOGRELAY_DISABLED=1 says so on purpose.\n"
        )


def _rebuild(settings: dict[str, Any], had_report_redaction: bool = False) -> LogRelayProcessor:
    made = LogRelayProcessor(settings["socket"], **{k: v for k, v in settings.items() if k != "socket"})
    if had_report_redaction:
        made.redact_reports(_withhold)
    return made


def _withhold(event: dict[str, Any]) -> dict[str, Any]:
    """Show nothing of an exception: the function that knows its secrets may be one that cannot be pickled."""
    return {"event": event.get("event"), "exception": "[not shown: the redaction did not come along with the copy]"}


# -- the process's hooks -------------------------------------------------------------------------------------

_living: dict[int, weakref.ref[LogRelayProcessor]] = {}
"""Processors that are not disabled. The hooks cannot be unregistered, so they look here."""
_hooked: list[bool] = []
_unsupported_said: list[bool] = []


def _register(processor: LogRelayProcessor) -> None:
    key = id(processor)

    def gone(_: object, living: dict[int, Any] = _living, key: int = key) -> None:
        living.pop(key, None)

    _living[key] = weakref.ref(processor, gone)
    if not _hooked:
        _hooked.append(True)
        os.register_at_fork(after_in_child=_forked)
        atexit.register(_exiting)


def _all() -> Iterator[LogRelayProcessor]:
    for ref in list(_living.values()):
        processor = ref()
        if processor is not None:
            yield processor


def _forked() -> None:
    _watch_child()
    for processor in _all():
        processor._after_fork()  # noqa: SLF001 - the hooks are the class's own, kept once per process


def _exiting() -> None:
    uncaught, failed = None, ""
    with contextlib.suppress(Exception):
        if _ended_by:
            uncaught, failed = _what_ended(_ended_by[0])
        else:
            uncaught = _uncaught()
            failed = _failure(uncaught)
            if _has_own_hook():
                uncaught = None  # the host has said what is told of it
    for processor in _all():
        processor._at_exit(uncaught, failed)  # noqa: SLF001
    _ended_by.clear()  # it is told; multiprocessing's own exit handler comes behind this one


def _has_own_hook() -> bool:
    hook = sys.excepthook
    return hook is not sys.__excepthook__ and getattr(hook, "__module__", "") not in PRINTING_HOOKS


def _failure(error: BaseException | None) -> str:
    """Say in a few words why the process ends with this exception; empty: in order, or as somebody wanted."""
    if error is None:
        return ""
    if issubclass(type(error), SystemExit):
        code = getattr(error, "code", None)
        status = 0 if code is None else code if isinstance(code, int) else 1
        return "" if status in WANTED_STATUS else f"exit status {status:d}"
    return "" if issubclass(type(error), NO_CRASH) else f"uncaught {serializer.type_name(error)}"


def _uncaught() -> BaseException | None:
    """Return the exception that has ended this program; None: there is none.

    Python keeps the one that it prints, also in a program, and before it calls a hook or any exit handler: so nothing
    of the host's has to be replaced to know it. It keeps no SystemExit.
    """
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return None  # kept for who sits at the prompt, who goes on
    error = getattr(sys, "last_exc", None)  # Python 3.12; before it, last_value
    if error is None:
        error = getattr(sys, "last_value", None)
    found = getattr(sys, "last_traceback", None)
    if error is None or issubclass(type(error), NO_CRASH) or found is None:
        return None
    # Test runners and embedders keep there what they have caught: what ends a program comes from its outermost frame.
    outermost = found.tb_frame
    is_ours = outermost.f_back is None and outermost.f_globals.get("__name__") in ("__main__", "runpy")
    return error if is_ours else None


def _in_multiprocessing_child(processor: LogRelayProcessor) -> None:
    """Have a multiprocessing child flush at its end: forked ones leave by os._exit and run no atexit."""
    process = sys.modules.get("multiprocessing.process")
    util = sys.modules.get("multiprocessing.util")
    if process is None or util is None:
        return
    if process.parent_process() is not None:
        _flush_at_end(processor)
    elif getattr(process.current_process(), "_inheriting", False):
        # A child that is still importing its main module, as under forkserver: what is to be done at the end is
        # forgotten when its work begins, and told to it then. A spawned one forgets nothing, and is told nothing.
        util.register_after_fork(processor, _flush_at_end)
        _flush_at_end(processor)


def _flush_at_end(processor: LogRelayProcessor) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _exit_of, args=(weakref.ref(processor),), exitpriority=-100)


def _exit_of(ref: weakref.ref[LogRelayProcessor]) -> None:
    processor = ref()
    if processor is None:
        return
    # Called while the exception that ends the child passes: multiprocessing prints it, and no hook is told. Another one
    # is of the parent, which was forked while it handled that. Since Python 3.13 it has passed, and was noted.
    error = sys.exc_info()[1]
    found = None if error is None else error.__traceback__
    if found is None or found.tb_frame.f_code.co_name != "_bootstrap":
        error = _ended_by[0] if _ended_by else None
    uncaught, failed = None, ""
    with contextlib.suppress(Exception):
        uncaught, failed = _what_ended(error)
    processor._at_exit(uncaught, failed)  # noqa: SLF001


def _what_ended(error: BaseException | None) -> tuple[BaseException | None, str]:
    """Return what is to be told of the exception that ends a child, and what is said of the end."""
    return None if error is None or issubclass(type(error), NO_CRASH) else error, _failure(error)


_ended_by: list[BaseException] = []
"""The exception that has ended the work of this multiprocessing child, where it is gone when exit handlers run."""

_watching: list[bool] = []
"""One element once the work of this process, if it is a multiprocessing child, is watched."""


class _Work:
    """What a multiprocessing child does: notes how it ends, and leaves no trace in the exception."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run

    def __call__(self) -> None:
        try:
            self._run()
        except BaseException as error:
            _ended_by[:] = [error]
            if error.__traceback__ is not None:
                error.with_traceback(error.__traceback__.tb_next)
            raise


def _watch_child() -> None:
    """Have the work of a multiprocessing child watched that is about to begin: this process is new, or being prepared.

    Nothing of multiprocessing is changed where nobody's work but a child's would be.
    """
    base = getattr(sys.modules.get("multiprocessing.process"), "BaseProcess", None)
    if not CHILD_ENDS_UNSEEN or base is None or _watching:
        return
    _watching.append(True)
    begin = base._bootstrap  # noqa: SLF001 - multiprocessing offers nothing that it calls there

    def begin_watched(child: Any, *args: Any, **more: Any) -> Any:
        _ended_by.clear()  # the parent's, if it was forked at its end
        child.run = _Work(child.run)
        return begin(child, *args, **more)

    base._bootstrap = begin_watched  # noqa: SLF001


if getattr(getattr(sys.modules.get("multiprocessing.process"), "_current_process", None), "_inheriting", False):
    _watch_child()  # spawned, or in the server that forks: the work comes when the imports are done
