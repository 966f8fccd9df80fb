"""One attempt to deliver one alert, in a process of its own.

Owns: the call of Apprise, what its failures mean, and the notes about the attempt in the store, which are written here
because this process outlives a kill of the relay and of the worker. It must not know rules or the engine.
Read `alerts/worker` next: it starts this process, with a request on stdin, and reads the result from stdout.

A process for each attempt costs 0.3 s of a processor some times in an hour. For that a service that hangs holds nothing
up, Apprise and its thirty megabytes are gone a moment later, and whatever goes wrong in it ends here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import smtplib
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple

from logrelay.alerts.retry import delay_s, retry_after_s
from logrelay.alerts.store import Locks, Queued, Store
from logrelay.alerts.task import missing_apprise
from logrelay.alerts.text import Message

ATTEMPT_S = 30.0
"""How long an attempt may take before the process is ended: Apprise waits 4 s for a connection, and READ_S for each
part of an answer."""

READ_S = 20.0
"""How long to wait for an answer, unless the URL says so (`rto=`): a service under load takes ten seconds, and every
answer that is not waited for leaves a doubt. Apprise's own 4 s are for people who look on."""

NICE = 10
"""Below the bots and the relay, while all of them want a processor: loading Apprise takes one for 0.3 s, and an alert
may be a second later for it."""

END_S = 3
"""How long an attempt that is on the wire may go on when the relay's service is stopped."""


class Result(NamedTuple):
    """What became of an attempt."""

    sent: bool
    error: str = ""
    """Why not, for a person; never a URL."""
    doubtful: bool = False
    """The service may have it: the connection ended before its answer."""
    retry_after_s: float | None = None
    claimed: bool = True
    """False: another process has the alert, or it is not waiting any more."""
    stored: bool = True
    """False: the store could not be written, so nothing was sent."""


class Wire:
    """What is seen of the conversation with a service, below Apprise, which only tells whether it went well."""

    def __init__(self) -> None:
        self.status = 0
        """Of the last HTTP answer; 0: there was none."""
        self.retry_after: str | None = None
        self.doubtful = False
        """The message may have arrived."""
        self.accepted = False
        """A mail server has taken it."""
        self.error = ""

    def watch_http(self, send: Callable[..., Any]) -> Callable[..., Any]:
        """Return `requests.Session.send` with notes about its answer or its failure."""
        from requests import exceptions  # noqa: PLC0415  (comes with Apprise)
        from urllib3.exceptions import NewConnectionError  # noqa: PLC0415

        def watched(session: object, request: object, **options: object) -> Any:
            self.doubtful = False
            try:
                answer = send(session, request, **options)
            except exceptions.RequestException as error:
                reason = getattr(error.args[0], "reason", None) if error.args else None
                unsent = isinstance(error, exceptions.ConnectTimeout | exceptions.SSLError | exceptions.InvalidURL)
                self.doubtful = not (unsent or isinstance(reason, NewConnectionError))
                self.error = type(error).__name__
                raise
            self.status, self.retry_after = answer.status_code, answer.headers.get("Retry-After")
            # A gateway that gives up does not know what became of the request behind it.
            self.doubtful = self.status == 504
            return answer

        return watched

    def watch_mail(self, data: Callable[..., Any]) -> Callable[..., Any]:
        """Return `smtplib.SMTP.data` with notes about whether the server has taken the mail."""

        def watched(server: Any, message: object) -> Any:
            self.doubtful = True
            server.sock.settimeout(READ_S)
            answer = data(server, message)
            self.doubtful = False
            self.accepted = answer[0] == 250
            self.error = "" if self.accepted else f"the mail server answers {answer[0]}"
            return answer

        return watched


def deliver(url: str, message: Message) -> Result:
    """Send a message by Apprise. Blocks for some seconds at most, as a rule; never raises."""
    try:
        import apprise  # noqa: PLC0415  (an extra; and only this process needs it)
        import requests  # noqa: PLC0415
    except ImportError:
        return Result(sent=False, error=missing_apprise())
    base: Any = apprise.URLBase
    base.socket_read_timeout = READ_S
    logging.disable()  # Apprise logs what it fails at, with hosts, topics and names: secrets
    services = apprise.Apprise()
    if not services.add(url):
        return Result(sent=False, error="Apprise does not understand the URL of this rule")
    wire = Wire()
    # Apprise says only whether it went well. What a relay has to know besides is in the answer: when to come again, and
    # whether a message may have arrived all the same. This process does nothing else, so the library is changed for it.
    session: Any = requests.Session
    mail: Any = smtplib.SMTP
    session.send = wire.watch_http(session.send)
    mail.data = wire.watch_mail(mail.data)
    try:
        sent = bool(
            services.notify(
                message.body, message.title, notify_type=getattr(apprise.NotifyType, message.severity.upper())
            )
        )
    except Exception as error:  # whatever a plugin of Apprise does, the alert is tried again
        return Result(sent=False, error=type(error).__name__, doubtful=wire.doubtful)
    if sent or wire.accepted:
        return Result(sent=True)
    status = f"it answers with HTTP {wire.status}" if wire.status else ""
    why = wire.error or status or "it cannot be reached, or refuses"
    again_s = retry_after_s(wire.retry_after, time.time()) if wire.status in (429, 503) else None
    return Result(sent=False, error=why, doubtful=wire.doubtful, retry_after_s=again_s)


def attempt(request: Mapping[str, Any], clock: Callable[[], float] = time.time) -> Result:
    """Carry out a request: claim the alert, send it, write down what became of it. `clock` gives seconds since 1970."""
    path, number, url = request["path"], int(request["number"]), str(request["url"])
    if path is None:  # the disk is full: the worker keeps the alert in its memory
        return deliver(url, Message(*request["message"]))
    if not Locks(path).take(number):
        return Result(sent=False, claimed=False, error="another process is sending it")
    try:
        with contextlib.closing(Store(path, create=False)) as store:
            queued = store.begin(number)
            if queued is None:
                return Result(sent=False, claimed=False, error="it is not waiting in the alerts' file")
            _load_apprise()  # what takes longest: a kill until here leaves no doubt
            store.note_sending(number)
            result = deliver(url, _message(queued))
            if result.sent:
                store.note_sent(number)
            else:
                store.note_failed(number, next_try_at(queued, result, clock()), doubtful=result.doubtful)
            return result
    except (sqlite3.Error, OSError) as error:
        return Result(sent=False, stored=False, error=f"the file of the alerts cannot be written: {error}")


def next_try_at(queued: Queued, result: Result, now: float) -> float:
    """Return when an alert is tried again. One that may have arrived waits for its cooldown: it must not ring twice."""
    wait_s = delay_s(queued.tries + 1, result.retry_after_s, random.random())  # noqa: S311  (spreads attempts)
    return now + (max(wait_s, queued.cooldown_s) if result.doubtful else wait_s)


def _message(queued: Queued) -> Message:
    doubt = "The relay was interrupted while it sent this: you may have had it before.\n" if queued.doubtful else ""
    return Message(queued.title, doubt + queued.body, queued.severity)


def _load_apprise() -> None:
    with contextlib.suppress(ImportError):
        import apprise  # noqa: F401, PLC0415


def _end_soon(_number: int, _frame: FrameType | None) -> None:
    signal.alarm(END_S)


def main() -> None:
    """Read a request from stdin, carry it out, and write the result to stdout."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    signal.signal(signal.SIGTERM, _end_soon)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the relay, whose end ends the worker
    # Whoever started this process ends it after that time, and may be gone: nobody else would.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(ATTEMPT_S))
    result = attempt(json.load(sys.stdin))
    with contextlib.suppress(OSError):  # the worker may be gone: the store has it
        os.write(1, json.dumps(result._asdict()).encode())
    os._exit(0)  # a thread of a plugin must not keep the process
