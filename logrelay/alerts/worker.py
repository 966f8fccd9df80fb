"""The process that judges lines and has alerts delivered, started by the relay.

Owns: the loop of that process: lines come in over the socket that is its stdin, go to the engine, and alerts go through
the store to `alerts/delivery`, one process for each attempt. It must not know how the relay makes lines
(`alerts/link` is the other end). The process ends when the relay does. Read `alerts/runtime_file` next.

The relay sends first a task (`alerts/task`), then lines as NDJSON, each as viewers have it, and among them answers. The
other way go JSON objects, one in a line: `follow`, `where`, `pulse`, `alive`, `status`, `notice`, `done`, `ending`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import select
import signal
import socket
import sqlite3
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from math import inf
from pathlib import Path
from typing import Any

from logrelay.alerts.delivery import ATTEMPT_S, Result, next_try_at
from logrelay.alerts.engine import Engine, LocalTime
from logrelay.alerts.pulse import Pulse, objection
from logrelay.alerts.records import Alert
from logrelay.alerts.retry import MAX_RETRY_AFTER_S, delay_s, due_at
from logrelay.alerts.store import OWNER_BYTE, Locks, Outgoing, Queued, Store, open_store
from logrelay.alerts.task import Task, command, receive_task
from logrelay.alerts.text import render

COMMIT_S = 1.0
"""How often the position is written while lines come and nothing is to be told: a kill has so much judged once more."""

MOVE_S = 600.0
"""How often the position is moved along while no line comes that a rule looks at: retention must not reach it."""

MAX_ATTEMPTS = 4
"""Deliveries at the same time, each to a service of its own: some 50 MB of memory each for as long as they take."""

LEAST_WAIT_S, MOST_WAIT_S = 0.05, 600.0
"""Between two looks at what is due."""

DOUBT_LOOK_S = 0.5
"""How often it is looked whether the delivery of an earlier worker has ended."""

REOPEN_S = 30.0
"""How often it is tried to write the store again after it failed; alerts go out from memory meanwhile."""

FAILING_TRIES = 3
"""Failures in a row after which it is told in the stream: some twenty seconds in which a service was not reached."""

HEARTBEAT_TIMEOUT_S = 10.0
"""For the whole of a heartbeat's GET, and less than the least time between two."""

LINE_BYTES = 8 << 20
"""The longest line: a notice or a line of a bot has less than a megabyte, even with every character escaped."""


STATUS_S = 0.5
"""How often the relay is told at most what has changed of what it shows."""

BURST_LINES = 500
"""Lines that are judged in a row before it is looked at what is due."""

LAST_WORDS_S = 1.0
"""How long the end of this process waits until the relay has its reason."""


def fingerprint(url: str) -> str:
    """Return what a service is called in the store."""
    return blake2b(url.encode("utf-8", "replace"), digest_size=8, person=b"logrelay alert").hexdigest()


def local_time(now: float) -> LocalTime:
    """Return what time it is where the relay runs (`TZ`)."""
    moment = datetime.fromtimestamp(now)  # noqa: DTZ006  (the local time is what is asked for)
    return LocalTime(moment.weekday(), moment.hour * 60 + moment.minute)


def stamp(seconds: float) -> str:
    """Write a time as a person where the relay runs reads it."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def startable(
    queued: Iterable[Queued], now: float, busy: Collection[str], rests: Mapping[str, float]
) -> tuple[list[Queued], float]:
    """Return alerts to be sent now, at most one for each service, and in how many seconds the next one is due.

    A service gets its alerts one after another, in order, never two at once, and none before the time in `rests` has
    come. Only one that waits because the service may have had it lets others pass: it waits for its cooldown.
    """
    services, found, wait_s = set(busy), list[Queued](), inf
    for alert in queued:
        if alert.state != "waiting" or alert.service in services:
            continue
        due = due_at(alert.due_at, alert.made_at, alert.tries, alert.cooldown_s, now)
        rest = rests.get(alert.service, 0.0)
        if now < rest <= now + MAX_RETRY_AFTER_S:  # later than that: the clock was set back
            wait_s = min(wait_s, max(rest, due) - now)
            services.add(alert.service)
        elif due <= now:
            found.append(alert)
            services.add(alert.service)
        else:
            wait_s = min(wait_s, due - now)
            if not alert.doubtful:
                services.add(alert.service)
    return found, wait_s


MAX_SHOWN = 100
"""Matters that the relay is told of, for who looks; those that last, and the newest."""

COUNTERS = ("sent", "failed", "given_up", "heartbeats", "heartbeats_failed", "heartbeats_withheld")


class Worker:
    """Judges lines and has alerts delivered. Belongs to one event loop; `send` writes one object to the relay."""

    def __init__(self, task: Task, store: Store, locks: Locks, send: Callable[[Mapping[str, Any]], None]) -> None:
        """Take up where an earlier worker ended."""
        self._task = task
        self._store = store
        self._locks = locks
        self._send = send
        self._cursor, kept = store.load()
        self._engine = Engine(task.rules, local=local_time, expected=task.expected, kept=kept)
        self._urls = {fingerprint(rule.url): rule.url for rule in task.rules}
        self._rules = {rule.name: rule for rule in task.rules}
        self._uncommitted = False
        self._committed_at = 0.0
        self._wakeup = asyncio.Event()
        self._attempts: dict[str, asyncio.Task[None]] = {}
        """Deliveries under way, by service."""
        self._failures: dict[str, tuple[int, str]] = {}
        """Failures in a row and the last error, by service."""
        self._rests: dict[str, float] = {}
        """Before when a service that failed is left alone, by service."""
        self._from_memory: Store | None = None
        """The file's store, while alerts are kept in memory because it cannot be written."""
        self._reopen_at = 0.0
        self._moved_at = time.time()
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._services_before: Mapping[str, Any] = kept.get("services", {})
        """The services of the rules when they were written down last, by rule."""
        self._unjudged = 0
        """Lines that a fault kept from being judged."""
        self._pulse: Pulse | None = None
        self._withheld = ""
        self._beat_error = ""
        """Why the last heartbeat failed."""
        self._beat_at: float | None = None
        """When one was taken last."""
        self._beat: asyncio.Task[None] | None = None
        self._shown: Mapping[str, Any] = {}
        self._told_at = 0.0

    def begin(self) -> None:
        """Ask for the lines behind the position, and tell what is not as it should be."""
        if self._store.set_aside:
            text = f"the alerts' file was damaged; it is kept as {self._store.set_aside}, and a new one is begun"
            self._send({"type": "notice", "state": "alerts_failing", "text": text})
        for name, why in self._engine.refused:
            text = f"the alert rule {name} is left out: {why}; correct it and reload the relay"
            self._send({"type": "notice", "state": "alerts_failing", "text": text})
        with contextlib.suppress(sqlite3.Error):  # the next commit finds that out, too
            self._move_queue(time.time())
        self._send({"type": "follow", "after": self._cursor, "level": self._engine.lowest_level})

    def _move_queue(self, now: float) -> None:
        """Have alerts wait for the service that their rule names now.

        A rule that got the service of another one, or gave its own away, is not the same rule under another URL: what
        waits for such a service stays with it.
        """
        services = {name: fingerprint(rule.url) for name, rule in self._rules.items()}
        before = self._services_before
        if services == before:
            return
        for name, service in services.items():
            old = before.get(name, service)
            if old != service and old not in services.values() and service not in before.values():
                self._store.move(name, old, service)
        self._store.commit("", {"services": services}, [], now)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def take(self, message: Mapping[str, Any]) -> None:
        """Act on one message of the relay."""
        now = time.time()
        match message.get("type"):
            case "log":
                self._judge_line(message, now)
                self._cursor, self._uncommitted = str(message["id"]), True
            case "at":
                if message["id"] != self._cursor:
                    self._cursor, self._uncommitted = str(message["id"]), True
            case "facts":
                self._engine.set_relay(message["start"], now)
                self._engine.set_traders(message["traders"], now)
                self._engine.set_trouble(message["trouble"], now)
                self._uncommitted = True
            case "silence":
                self._silence(message, now)
            case "pulse":
                self._on_pulse(Pulse(**message["pulse"]))
            case "alive":
                self._send({"type": "alive"})
        self._wakeup.set()

    def _judge_line(self, line: Mapping[str, Any], now: float) -> None:
        """Judge a line. One that cannot be judged is left out, and told: it must not end the alerts of all others."""
        try:
            self._engine.take(line, _microseconds(line.get("timestamp"), now), now)
        except Exception as error:
            self._unjudged += 1
            if self._unjudged == 1:
                traceback.print_exception(error)
                text = f"the alerts could not judge the line {line.get('id')} and leave it out: {words_of(error)}"
                self._send({"type": "notice", "state": "alerts_failing", "text": text})

    def _silence(self, message: Mapping[str, Any], now: float) -> None:
        """Silence a bot or end that; the relay hears of it when it is written down."""
        app, for_s = str(message["app"]), float(message["for_s"])
        if for_s > 0:
            error = (
                "" if self._engine.silence(app, now + for_s) else "too many bots are silenced; end some silences first"
            )
        else:
            error = "" if self._engine.unsilence(app) else f"{app} is not silenced"
        self._commit([], now)
        self._tell_status(now)
        self._send({"type": "done", "request": message["request"], "error": error})

    # --- what goes out ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        while True:
            now = time.time()
            self._judge(now)
            wait_s = self._look_after_queue(now)
            if self._told_at <= now < self._told_at + STATUS_S:
                wait_s = min(wait_s, self._told_at + STATUS_S - now)
            else:
                self._tell_status(now)
            wait_s = min(wait_s, self._engine.next_due(now) - now, MOST_WAIT_S)
            if self._uncommitted:
                wait_s = min(wait_s, self._committed_at + COMMIT_S - now)
            if self._from_memory is not None:
                wait_s = min(wait_s, self._reopen_at - now)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), max(wait_s, LEAST_WAIT_S))
            self._wakeup.clear()

    def _judge(self, now: float) -> None:
        alerts = self._engine.due(now)
        if alerts or (self._uncommitted and not self._committed_at <= now < self._committed_at + COMMIT_S):
            self._commit(alerts, now, durable=bool(alerts))  # a position alone may go back: it is judged again
        if not self._moved_at <= now < self._moved_at + MOVE_S:
            self._moved_at = now
            self._send({"type": "where"})

    def _commit(self, alerts: list[Alert], now: float, *, durable: bool = True) -> None:
        changes = self._engine.take_changes()
        outgoing = [self._outgoing(alert) for alert in alerts]
        try:
            self._store.commit(self._cursor, changes, outgoing, now, durable=durable)
        except sqlite3.Error as error:
            self._go_on_in_memory(error, now)
            self._store.commit(self._cursor, changes, outgoing, now)
        self._uncommitted, self._committed_at = False, now

    def _outgoing(self, alert: Alert) -> Outgoing:
        rule = self._rules[alert.rule]
        is_state = all(matter.is_state for matter in alert.matters)
        cooldown_s = rule.state_cooldown_s if is_state else rule.line_cooldown_s
        return Outgoing(rule.name, fingerprint(rule.url), render(alert, page=self._task.page, stamp=stamp), cooldown_s)

    # --- the queue --------------------------------------------------------------------------------------------------

    def _look_after_queue(self, now: float) -> float:
        """Start deliveries that are due; returns in how many seconds to look again."""
        try:
            return self._start_due(now)
        except sqlite3.Error as error:
            self._go_on_in_memory(error, now)
            return self._start_due(now)

    def _start_due(self, now: float) -> float:
        if self._from_memory is not None and now >= self._reopen_at and not self._attempts:
            self._return_to_file(now)
        self._store.forget_sent()
        for rule, count in self._store.give_up(self._urls, now).items():
            self._counters["given_up"] += count
            text = f"{count} {'alert' if count == 1 else 'alerts'} of the rule {rule} could not be delivered: given up"
            self._send({"type": "notice", "state": "alerts_given_up", "text": text})
        queued = self._store.queued()
        wait_s = inf
        if any(alert.state == "sending" and alert.service not in self._attempts for alert in queued):
            self._store.resolve_doubts(self._locks, now)
            queued, wait_s = self._store.queued(), DOUBT_LOOK_S
        alerts, next_s = startable(queued, now, self._attempts, self._rests)
        for alert in alerts[: MAX_ATTEMPTS - len(self._attempts)]:  # the end of an attempt brings the next look
            self._attempts[alert.service] = asyncio.create_task(self._attempt(alert))
        return min(wait_s, next_s)

    async def _attempt(self, alert: Queued) -> None:
        path = None if self._store.path == ":memory:" else self._store.path
        request = {
            "path": path,
            "number": alert.number,
            "url": self._urls[alert.service],
            "message": [alert.title, alert.body, alert.severity],
        }
        try:
            result = await self._run_delivery(request)
            if path is None and result.get("claimed", True):
                self._note_in_memory(alert, result)
            self._note_result(alert, result)
        finally:
            del self._attempts[alert.service]
            self._wakeup.set()

    async def _run_delivery(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            process = await asyncio.create_subprocess_exec(
                *command("delivery"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        except OSError as error:
            return {"sent": False, "error": f"no process can be started: {error.strerror}", "killed": True}
        try:
            out, _ = await asyncio.wait_for(process.communicate(json.dumps(request).encode()), ATTEMPT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            return {"sent": False, "error": f"no answer within {ATTEMPT_S:.0f} s", "doubtful": True, "killed": True}
        try:
            found = json.loads(out)
        except ValueError:
            return {"sent": False, "error": "the delivery has ended without a result", "doubtful": True, "killed": True}
        return dict(found)

    def _note_in_memory(self, alert: Queued, result: Mapping[str, Any]) -> None:
        """Write down what became of an attempt that had no file to write it to."""
        self._store.note_sending(alert.number)
        if result["sent"]:
            self._store.note_sent(alert.number)
            return
        known = {key: value for key, value in result.items() if key in Result._fields}
        due_at = next_try_at(alert, Result(**known), time.time())
        self._store.note_failed(alert.number, due_at, doubtful=bool(result.get("doubtful")))

    def _note_result(self, alert: Queued, result: Mapping[str, Any]) -> None:
        if not result.get("stored", True):
            self._go_on_in_memory(str(result["error"]), time.time())
            return
        if result["sent"]:
            self._counters["sent"] += 1
            self._failures.pop(alert.service, None)
            self._rests.pop(alert.service, None)
            return
        self._counters["failed"] += 1
        failures = self._failures.get(alert.service, (0, ""))[0] + 1
        now = time.time()
        self._rests[alert.service] = now + delay_s(failures, result.get("retry_after_s"), 0.0)
        if (result.get("killed") or not result.get("claimed", True)) and self._from_memory is None:
            with contextlib.suppress(sqlite3.Error):  # the next look at the queue finds that out, too
                self._store.resolve_doubts(self._locks, now)
                self._store.postpone(alert.number, now + delay_s(failures, None, 0.0))
        self._failures[alert.service] = (failures, str(result.get("error", "")))
        if failures == FAILING_TRIES:
            text = f"alerts of the rule {alert.rule} do not get through ({result.get('error')}); they are tried again"
            self._send({"type": "notice", "state": "alerts_failing", "text": text})

    # --- when the file cannot be written ----------------------------------------------------------------------------

    def _go_on_in_memory(self, error: object, now: float) -> None:
        """Keep everything in memory from now on: the full disk may be what the next alert is about."""
        if self._from_memory is not None:
            return
        memory = Store(":memory:")
        with contextlib.suppress(sqlite3.Error):
            self._store.copy_to(memory)
        self._from_memory, self._store, self._reopen_at = self._store, memory, now + REOPEN_S
        text = f"the alerts' file cannot be written ({error}); they go out from memory, and a restart may repeat some"
        self._send({"type": "notice", "state": "alerts_failing", "text": text})

    def _return_to_file(self, now: float) -> None:
        file = self._from_memory
        assert file is not None, "asked by the caller"
        self._reopen_at = now + REOPEN_S
        with contextlib.suppress(sqlite3.Error, OSError):
            if not Path(file.path).exists():  # removed while it was open: what is written to it nobody finds again
                file.close()
                file = self._from_memory = open_store(file.path)
            self._store.copy_to(file)
            self._store.close()
            self._store, self._from_memory = file, None

    # --- what is told of it -----------------------------------------------------------------------------------------

    def _tell_status(self, now: float) -> None:
        """Tell the relay what has changed of what it shows."""
        self._told_at = now
        queued = self._store.queued()
        waiting: dict[str, list[float]] = {}
        for alert in queued:
            waiting.setdefault(alert.service, []).append(alert.made_at)
        services = []
        for rule in self._task.rules:
            mine = waiting.get(fingerprint(rule.url), [])
            services.append(
                {
                    "rule": rule.name,
                    "service": rule.service,
                    "waiting": len(mine),
                    "oldest": min(mine, default=None),
                    "error": self._failures.get(fingerprint(rule.url), (0, ""))[1],
                }
            )
        shown: dict[str, Any] = {
            "type": "status",
            "active": self._engine.active(now)[:MAX_SHOWN],
            "silences": self._engine.silences(now),
            "services": services,
            "waiting": len(queued),
            "oldest": min((alert.made_at for alert in queued), default=None),
            "counters": {
                **self._counters,
                "held_back": self._engine.kept_back_total,
                "silenced": self._engine.silenced_total,
            },
            "withheld": self._withheld,
            "heartbeat_error": self._beat_error,
            "heartbeat_sent": self._beat_at,
        }
        if shown != self._shown:
            self._shown = shown
            self._send(shown)

    # --- the heartbeat ----------------------------------------------------------------------------------------------

    async def beat(self) -> None:
        """Ask the relay how it is, every so often, until cancelled; the answer comes to `take`."""
        while True:
            self._send({"type": "pulse"})
            await asyncio.sleep(self._task.heartbeat_s)

    def _on_pulse(self, pulse: Pulse) -> None:
        before, self._pulse = self._pulse, pulse
        self._withheld = objection(pulse, before, self._task.expected)
        if self._withheld:
            self._counters["heartbeats_withheld"] += 1
        elif self._task.heartbeat is not None and (self._beat is None or self._beat.done()):
            self._beat = asyncio.create_task(self._send_heartbeat(self._task.heartbeat))

    async def _send_heartbeat(self, url: str) -> None:
        try:
            await asyncio.to_thread(_get, url)
        except Exception as error:  # whatever is wrong with it, its service notices
            self._counters["heartbeats_failed"] += 1
            self._beat_error = beat_error(error)
        else:
            self._counters["heartbeats"] += 1
            self._beat_error, self._beat_at = "", time.time()
        self._wakeup.set()


def _get(url: str) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "logrelay"})  # noqa: S310  (checked as a setting)
    with urllib.request.urlopen(request, timeout=HEARTBEAT_TIMEOUT_S) as answer:  # noqa: S310
        answer.read(1024)


def beat_error(error: BaseException) -> str:
    """Return why a heartbeat failed; its URL is a secret, and so is what may repeat it."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answers with HTTP {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer within {HEARTBEAT_TIMEOUT_S:.0f} s"
    return str(getattr(reason, "strerror", None) or type(reason).__name__)


def words_of(error: BaseException) -> str:
    """Return what an error is and where it comes from. Its own text may repeat a URL, except for SQLite's."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = f": {error}" if isinstance(error, sqlite3.Error) else ""
    return f"{type(error).__name__}{text}{where}"


def _microseconds(timestamp: object, now: float) -> int:
    try:
        return round(datetime.fromisoformat(str(timestamp)).timestamp() * 1e6)
    except ValueError:
        return round(now * 1e6)


async def _serve(task: Task, channel: socket.socket, store: Store, locks: Locks) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=LINE_BYTES)

    def send(message: Mapping[str, Any]) -> None:
        writer.write(json.dumps(message).encode() + b"\n")

    worker = Worker(task, store, locks, send)
    worker.begin()
    tasks = [asyncio.create_task(worker.run())]
    if task.heartbeat is not None:
        tasks.append(asyncio.create_task(worker.beat()))
    tasks.append(asyncio.create_task(_read(reader, worker)))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    errors = [error for one in done if (error := one.exception()) is not None]
    for error in errors:
        traceback.print_exception(error)
        send({"type": "ending", "why": words_of(error)})
    writer.transport.set_write_buffer_limits(0)
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(writer.drain(), LAST_WORDS_S)
    # Not in order: asyncio would kill the deliveries under way, which write down themselves what becomes of them.
    os._exit(1 if errors else 0)


async def _read(reader: asyncio.StreamReader, worker: Worker) -> None:
    """Give the worker what the relay says, until its end."""
    with contextlib.suppress(ConnectionError):
        count = 0
        while line := await reader.readline():
            worker.take(json.loads(line))
            count += 1
            if count % BURST_LINES == 0:
                await asyncio.sleep(0)


def hung_up(channel: socket.socket) -> bool:
    """Tell whether the other end is closed, whatever it may have sent before. Does not block."""
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    return bool(poll.poll(0))


def main() -> None:
    """Do the relay's task until its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the relay, whose end ends this process
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # URLs of services are secrets
    with socket.socket(fileno=os.dup(0)) as channel:
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        task = receive_task(channel)
        if task is None:
            return
        locks = Locks(task.store)
        if not locks.wait(OWNER_BYTE, unless=lambda: hung_up(channel)):
            return
        try:
            store = Store(":memory:") if task.store is None else open_store(task.store)
        except Exception as error:
            with contextlib.suppress(OSError):
                channel.sendall(json.dumps({"type": "ending", "why": words_of(error)}).encode() + b"\n")
            raise
        asyncio.run(_serve(task, channel, store, locks))
