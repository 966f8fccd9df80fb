"""The relay's end of its alerts: the worker's process, and what the relay knows of it.

Owns: `Alerts`, which starts the worker, starts it again when it ends, gives it the lines as a viewer gets them, and
answers what viewers and monitors ask about alerts. It must not know rules, services or how a line is judged. Belongs to
one event loop. Read `app` next: it makes this object.

The worker is a viewer like any other: a position in the journal. When it is slow or stands still it falls behind, which
costs the relay nothing, and goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from logrelay.alerts.runtime_file import RuntimeDirectory
from logrelay.alerts.task import Task, command, environment
from logrelay.errors import RequestError
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub_types import Viewer
from logrelay.model import ERROR, INFO, RANKS, WARNING
from logrelay.viewers.stream import Stream

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
"""Before the worker is started again: at once for an accident, seldom for one that cannot start."""

STEADY_S = 60.0
"""A worker that ran for so long begins with the first pause again."""

END_S = 2.0
"""How long the relay's end waits for the worker's: it only has to notice."""

ANSWER_S = 5.0
"""How long a viewer waits for its silence to be written down."""

MAX_MESSAGE_BYTES = 4 << 20
"""Of the worker; a status with a hundred matters has some hundred kilobytes at the most."""

REAP_S = 0.05
"""How often it is looked whether a worker that has closed its end has ended."""

LINGER_S = 2.0
"""How long a worker that has closed its end may take to end by itself: how it ended is worth knowing."""

ALIVE_EVERY_S, ALIVE_WITHIN_S = 30.0, 120.0
"""How often the worker is asked for a sign of life, and how long it may give none: the longest that it waits for is
another process that writes its file, some seconds."""

COUNTED = {
    "sent": "alerts_sent_total",
    "failed": "alerts_failed_total",
    "given_up": "alerts_given_up_total",
    "held_back": "alerts_held_back_total",
    "silenced": "alerts_silenced_total",
    "heartbeats": "heartbeats_sent_total",
    "heartbeats_failed": "heartbeats_failed_total",
    "heartbeats_withheld": "heartbeats_withheld_total",
}
"""What the worker counts from its start, by the names of `http.metrics.METRICS`."""


class Alerts:
    """The alerts of one relay. Nothing is started before `start`.

    `announce` says something in the stream, with a level rank, a text and details; `ready` tells whether the relay
    takes lines and keeps them.
    """

    def __init__(
        self,
        stream: Stream,
        task: Task,
        *,
        ready: Callable[[], bool],
        announce: Callable[[int, str, dict[str, object]], None],
        loop: asyncio.AbstractEventLoop,
        start_id: str,
        runtime: RuntimeDirectory | None = None,
    ) -> None:
        self._stream = stream
        self._task = task
        self.start_id = start_id
        self._runtime = runtime
        self._ready = ready
        self._announce = announce
        self._loop = loop
        self._first = stream.id_of(stream.head)
        """Where a worker begins that has no position yet: with what comes after the relay's start."""
        self._link: _Link | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s = FIRST_PAUSE_S
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = 0.0
        self._starts = 0
        self._stopping = False
        self._changing = False
        """The worker is ended so that another one takes up a new task."""
        self._last_words = ""
        """What the worker said it ends for."""
        self._heard_at = 0.0
        """When it gave its last sign of life."""
        self._life_timer: asyncio.TimerHandle | None = None
        self._status: Mapping[str, Any] = {}
        self._before: dict[str, int] = {}
        """What workers that have ended had counted."""
        self._asked: dict[int, asyncio.Future[str]] = {}
        """Who waits for a silence to be written down, by number."""
        self._asked_total = 0

    # --- the worker ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the worker. One that cannot be started is told of, and tried again."""
        self._timer = None
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603  (milliseconds; our own command)
                    command("worker"), stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment()
                )
        except OSError as error:
            ours.close()
            self._announce(ERROR, f"alerts cannot be started: {error}", {"state": "alerts_failing"})
            self._start_again()
            return
        self._starts += 1
        self._started_at = self._loop.time()
        ours.setblocking(False)
        _, link = await self._loop.create_unix_connection(lambda: _Link(self, self._stream), sock=ours)
        self._link = link
        self._changing, self._last_words, self._heard_at = False, "", self._loop.time()
        link.send_bytes(self._task.as_bytes())
        self._life_timer = self._loop.call_later(ALIVE_EVERY_S, self._ask_for_life)

    def use(self, task: Task) -> None:
        """Go on by another task, in the same file: queue, cooldowns and silences stay. The worker is started anew."""
        self._task = replace(task, store=self._task.store)
        self._pause_s = FIRST_PAUSE_S
        if self._link is not None:
            self._changing = True
            self._link.end()

    def _ask_for_life(self) -> None:
        if self._link is None:
            return
        if self._loop.time() - self._heard_at > ALIVE_WITHIN_S and self._process is not None:
            self._last_words = f"it gave no sign of life for {ALIVE_WITHIN_S:.0f} s"
            self._process.kill()
            return
        self._link.send({"type": "alive"})
        self._life_timer = self._loop.call_later(ALIVE_EVERY_S, self._ask_for_life)

    def ended(self) -> None:
        """Note that the worker has closed its end."""
        self._link = None
        if self._life_timer is not None:
            self._life_timer.cancel()
        for name, value in self._counters_now().items():
            self._before[name] = value
        self._status = {**self._status, "counters": {}}
        self._reap(self._loop.time() + LINGER_S)

    def _reap(self, until: float) -> None:
        """Start a worker in place of the one that has ended; one that goes on without its socket is ended then."""
        process = self._process
        if process is None or self._stopping:
            return
        if process.poll() is None:
            if self._loop.time() >= until:
                self._last_words = self._last_words or "it closed its connection and did not end"
                process.kill()
            self._timer = self._loop.call_later(REAP_S, self._reap, until)
            return
        self._process = None
        if self._changing:
            self._timer = self._loop.call_later(0, lambda: self._loop.create_task(self.start()))
            return
        if self._loop.time() - self._started_at >= STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        if self._pause_s > FIRST_PAUSE_S or self._last_words:
            why = self._last_words or _how_it_ended(process.returncode)
            text = f"the process of the alerts has ended ({why}) and is started again"
            self._announce(WARNING, text, {"state": "alerts_failing"})
        self._start_again()

    def _start_again(self) -> None:
        if not self._stopping:
            self._timer = self._loop.call_later(self._pause_s, lambda: self._loop.create_task(self.start()))
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def stop(self) -> None:
        """End the worker. What it has not judged it judges after the next start, if the journal is in a file."""
        self._stopping = True
        for timer in (self._timer, self._life_timer):
            if timer is not None:
                timer.cancel()
        waiting = int(self._status.get("waiting", 0))
        if self._runtime is not None and waiting:
            text = f"{waiting:,} alerts were not delivered yet and are lost: with the journal in memory they end here"
            self._announce(WARNING, text, {"state": "alerts_given_up"})
        if self._link is not None:
            self._link.end()
        process = self._process
        if process is not None:
            await asyncio.to_thread(_wait, process)
        if self._runtime is not None:
            self._runtime.remove()

    # --- what the worker says -----------------------------------------------------------------------------------------

    def take(self, link: _Link, message: Mapping[str, Any]) -> None:
        """Act on one message of the worker."""
        self._heard_at = self._loop.time()
        match message.get("type"):
            case "follow":
                link.follow(str(message["after"]) or self._first, int(message["level"]))
            case "where":
                link.tell_position()
            case "pulse":
                link.send({"type": "pulse", "pulse": self._pulse(link)})
            case "status":
                self._status = message
            case "ending":
                self._last_words = str(message["why"])
            case "notice":
                self._announce(WARNING, str(message["text"]), {"state": str(message["state"])})
            case "done":
                waiting = self._asked.pop(int(message["request"]), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(str(message["error"]))

    def _pulse(self, link: _Link) -> dict[str, object]:
        stream = self._stream
        ready = self._ready()
        reason = "" if ready else (stream.trouble or "the relay is starting or stopping")
        up = {str(one.get("app")) for one in stream.traders_shown() if one.get("state") in ("connected", "quiet")}
        return {
            "ready": ready,
            "reason": reason,
            "pending": stream.pending_lines,
            "committed": stream.committed,
            "received": link.received,
            "up": sorted(up),
        }

    # --- what others ask ----------------------------------------------------------------------------------------------

    def shown(self) -> dict[str, object]:
        """Return what /alerts answers, JSON-safe."""
        status = self._status
        return {
            "type": "alerts",
            "enabled": True,
            "running": self._link is not None,
            "active": [_matter_shown(one) for one in status.get("active", ())],
            "silences": [
                {"app": app, "until": _rfc3339(until)} for app, until in sorted(status.get("silences", {}).items())
            ],
            "services": [
                {**one, "oldest": None if one["oldest"] is None else _rfc3339(one["oldest"])}
                for one in status.get("services", ())
            ],
            "heartbeat": None if self._task.heartbeat is None else _heartbeat_shown(status),
        }

    async def silence(self, app: str, for_s: float) -> None:
        """Send nothing about bots that match a glob for so long; 0: end that. Returns when it is written down.

        Raises RequestError. Cancelling ends the wait only.
        """
        link = self._link
        if link is None:
            raise RequestError("alerts", "the process of the alerts is being started; ask again in a moment")
        self._asked_total += 1
        number = self._asked_total
        answer = self._asked[number] = self._loop.create_future()
        link.send({"type": "silence", "app": app, "for_s": for_s, "request": number})
        try:
            error = await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            raise RequestError("alerts", f"the alerts have not answered within {ANSWER_S:.0f} s; ask again") from None
        finally:
            self._asked.pop(number, None)
        if error:
            raise RequestError("bad_silence", error)
        what = f"are silenced for {for_s:,.0f} s" if for_s else "are not silenced any more"
        self._announce(INFO, f"alerts about {app} {what}", {"state": "alerts_silenced"})

    def _counters_now(self) -> dict[str, int]:
        found = self._status.get("counters", {})
        return {metric: self._before.get(metric, 0) + int(found.get(name, 0)) for name, metric in COUNTED.items()}

    def counters(self) -> dict[str, int | float]:
        """Return what is counted, by the names of `http.metrics.METRICS`."""
        oldest = self._status.get("oldest")
        age_s = 0.0 if oldest is None else max(0.0, datetime.now(UTC).timestamp() - float(oldest))
        return {
            **self._counters_now(),
            "alerts_waiting": int(self._status.get("waiting", 0)),
            "alerts_oldest_age_seconds": round(age_s, 1),
            "alerts_worker_starts_total": self._starts,
        }


class _Link(asyncio.Protocol):
    """The socket to one worker: lines out, messages in. It is the sink of the worker's viewer."""

    def __init__(self, owner: Alerts, stream: Stream) -> None:
        self._owner = owner
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        self._viewer: Viewer | None = None
        self._paused = False
        self._inbox = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Act on every whole message."""
        self._inbox += data
        if len(self._inbox) > MAX_MESSAGE_BYTES:
            self.end()
            return
        *lines, rest = self._inbox.split(b"\n")
        self._inbox = bytearray(rest)
        for line in lines:
            self._owner.take(self, orjson.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (why it ended changes nothing)
        """Forget the viewer, and tell the owner."""
        self._transport = None
        if self._viewer is not None:
            self._stream.leave(self._viewer)
        self._owner.ended()

    def pause_writing(self) -> None:
        """Note that the worker does not read."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with lines."""
        self._paused = False
        if self._viewer is not None:
            self._stream.drained(self._viewer)

    def end(self) -> None:
        """Close the socket; the worker ends then."""
        if self._transport is not None:
            self._transport.abort()

    # --- the worker as a viewer ---------------------------------------------------------------------------------------

    def follow(self, after: str, level: int) -> None:
        """Begin behind an id of this journal, else with what comes from now on, and say where that is."""
        stream = self._stream
        # What is known now stands before the lines: a state that they end has to have begun.
        facts = {"traders": stream.traders_shown(), "trouble": stream.trouble, "start": self._owner.start_id}
        self.send({"type": "facts", **facts})
        position = None
        with contextlib.suppress(RequestError):  # an id of another journal: what this one has is not new
            position = stream.resolve(after)
        viewer = self._viewer = stream.join(self, Filter(level=level, notices="all"), "ndjson")
        if position is None:
            self.send({"type": "at", "id": stream.id_of(stream.head)})
            stream.start_after(viewer, stream.head)
        else:
            self.send({"type": "at", "id": after})
            stream.start_after(viewer, position.seq)

    @property
    def received(self) -> int:
        """Up to which seq the worker was sent everything; below 0: something is owed."""
        seq = None if self._viewer is None else self._stream.received(self._viewer)
        return -1 if seq is None else seq

    def tell_position(self) -> None:
        """Say up to which id the worker has been sent everything that it wants, if nothing is owed."""
        if self.received >= 0:
            self.send({"type": "at", "id": self._stream.id_of(self.received)})

    def write(self, payload: bytes) -> bool:
        """Send lines. Returns False when the socket is full."""
        self.send_bytes(payload)
        return not self._paused and self._transport is not None

    def send(self, message: Mapping[str, object]) -> None:
        """Send one message."""
        self.send_bytes(orjson.dumps(message) + b"\n")

    def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None:
            self._transport.write(data)


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process that has been told of it, not for ever."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _how_it_ended(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def _heartbeat_shown(status: Mapping[str, Any]) -> dict[str, object]:
    sent = status.get("heartbeat_sent")
    return {
        "withheld": status.get("withheld", ""),
        "error": status.get("heartbeat_error", ""),
        "sent": None if sent is None else _rfc3339(sent),
    }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _matter_shown(matter: Mapping[str, Any]) -> dict[str, object]:
    names = ("rule", "kind", "app", "active", "count", "told", "silenced", "source", "message", "reason", "id")
    shown: dict[str, object] = {name: matter[name] for name in names}
    shown |= {"since": _rfc3339(matter["since_us"] / 1e6), "last": _rfc3339(matter["last_us"] / 1e6)}
    level = next((name.upper() for name, rank in RANKS.items() if rank == matter.get("rank")), None)
    return shown if level is None else {**shown, "level": level}
